"""YamlConfig: the seed's chapter, every type, every refusal."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import os
import pickle
import subprocess
import sys
import tempfile
import types
import typing
import warnings
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NewType, Optional, Union

import numpy as np
import pytest
from ids import plain
from numpy.typing import NDArray
from places import GOLDEN, ROOT

from ataraxis.config import (
    YAML_EXCLUDE_METADATA,
    ConfigError,
    ConfigProblem,
    ConfigWarning,
    YamlConfig,
)


class Mode(enum.Enum):
    LIVE = "live"
    REPLAY = "replay"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Right(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass(frozen=True)
class Camera:
    name: str = "left"
    fps: float = 30.0


@dataclass
class Board:
    port: str
    baud: int = 9600


def one(kind: Any, default: Any = dataclasses.MISSING) -> Any:
    """Make a class with the one field ``value``."""
    rest = () if default is dataclasses.MISSING else (field(default=default),)
    return dataclasses.make_dataclass(
        "One", [("value", kind, *rest)], bases=(YamlConfig,)
    )


def loaded(kind: Any, text: str, folder: Path, **options: Any) -> Any:
    """Read ``value`` of a type from a text."""
    path = folder / "one.yaml"
    path.write_text(text, "utf-8")
    return one(kind).from_yaml(path, **options).value


def refused(kind: Any, text: str, folder: Path) -> ConfigProblem:
    """Give the one problem that a text has."""
    with pytest.raises(ConfigError) as caught:
        loaded(kind, text, folder)
    (problem,) = caught.value.errors
    return problem


# The seed, and the door


def test_the_seed_chapter_runs_as_printed() -> None:
    from ataraxis import YamlConfig

    @dataclass
    class MyConfig(YamlConfig):
        integer: int = 0
        string: str = "random"

    config = MyConfig(integer=123, string="hello")
    tempdir = tempfile.TemporaryDirectory()
    out_path = Path(tempdir.name).joinpath("my_config.yaml")
    config.to_yaml(file_path=out_path)
    assert out_path.exists()
    loaded_config = MyConfig.from_yaml(file_path=out_path)
    assert loaded_config.integer == config.integer
    assert loaded_config.string == config.string
    tempdir.cleanup()


@pytest.mark.parametrize("name", ["a.yaml", "a.yml", "a.YAML", "a.Yml"])
@pytest.mark.parametrize("kind", [str, Path])
def test_both_suffixes_in_any_case_as_text_or_path(
    tmp_path: Path, name: str, kind: Any
) -> None:
    one(int)(3).to_yaml(kind(tmp_path / name))
    assert one(int).from_yaml(kind(tmp_path / name)).value == 3


@pytest.mark.parametrize("name", ["a.txt", "a", "yaml", ".yaml", "a.yaml.bak"])
def test_another_suffix_is_a_value_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"ends in \.yaml or \.yml"):
        one(int)(3).to_yaml(tmp_path / name)
    with pytest.raises(ValueError, match=r"ends in \.yaml or \.yml"):
        one(int).from_yaml(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_missing_file_is_file_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        one(int).from_yaml(tmp_path / "none.yaml")


def test_a_class_without_the_decorator_is_a_type_error(tmp_path: Path) -> None:
    class Plain(YamlConfig):
        pass

    with pytest.raises(TypeError, match="Plain is not a dataclass"):
        Plain().to_yaml(tmp_path / "plain.yaml")


def test_importing_the_module_imports_no_yaml_and_no_numpy() -> None:
    program = (
        "import sys, ataraxis.config\n"
        "slow = {'ruamel', 'ruamel.yaml', 'numpy', 'yaml', 'difflib'}\n"
        "sys.exit(repr(slow & set(sys.modules)) if slow & set(sys.modules) else 0)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert ended.returncode == 0, ended.stderr


def test_slots_and_frozen_and_keyword_only_classes_can_inherit(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    for options in ({"frozen": True}, {"slots": True}, {"kw_only": True}):
        cls = dataclasses.make_dataclass(
            "Made", [("value", int)], bases=(YamlConfig,), **options
        )
        cls(value=3).to_yaml(path)
        assert cls.from_yaml(path) == cls(value=3)
    assert not hasattr(
        dataclasses.make_dataclass("S", ["a"], bases=(YamlConfig,), slots=True)(1),
        "__dict__",
    )


# Types and their forms

ODD_WORDS = ["no", "1e-3", "22:30", "null", "~", "0x1f", "y", "1_0"]
FORMS: list[tuple[Any, Any, str]] = [
    (bool, True, "true"),
    (int, 2**70, str(2**70)),
    (float, 1e-5, "1.0e-05"),
    (float, 1e22, "1.0e+22"),
    (float, float("inf"), ".inf"),
    (float, float("-inf"), "-.inf"),
    (float, -0.0, "-0.0"),
    (complex, 1 - 2j, "1-2j"),
    (str, "hello", "hello"),
    *((str, word, f"'{word}'") for word in ODD_WORDS),
    (str, "", "''"),
    (str, " lead", "' lead'"),
    (str, "µ 漢字", "µ 漢字"),
    (str, "a\tb", '"a\\tb"'),
    (str, "one\ntwo\n", "|\n  one\n  two"),
    (str, "one \ntwo\n", '"one \\ntwo\\n"'),
    (bytes, b"\x00\xff", "!!binary 'AP8='"),
    (Path, Path("/data/mouse 1"), "/data/mouse 1"),
    (dt.date, dt.date(2026, 11, 20), "2026-11-20"),
    (dt.datetime, dt.datetime(2026, 11, 20, 19, 11), "2026-11-20T19:11:00"),
    (dt.time, dt.time(22, 30), "'22:30:00'"),
    (dt.timedelta, dt.timedelta(seconds=5400.25), "1 h 30 min 0.25 s"),
    (dt.timedelta, dt.timedelta(microseconds=-1500), "'-1500 us'"),
    (dt.timedelta, dt.timedelta(milliseconds=250), "250 ms"),
    (Decimal, Decimal("0.10"), "'0.10'"),
    (Mode, Mode.REPLAY, "replay"),
    (Level, Level.HIGH, "2"),
    (Right, Right.READ | Right.WRITE, "READ | WRITE"),
    (Literal["x", 2], 2, "2"),
    (Optional[int], None, "null"),  # noqa: UP045
    (list[int], [1, 2], "[1, 2]"),
    (list[int], [], "[]"),
    (tuple[int, str], (1, "a"), "[1, a]"),
    (tuple[()], (), "[]"),
    (set[int], {30, 4, 1}, "[1, 4, 30]"),
    (frozenset[str], frozenset({"b", "a"}), "[a, b]"),
    (dict[int, Mode], {7: Mode.LIVE}, "\n  7: live"),
    (dict[tuple[int, int], float], {(1, 2): 0.5}, "\n  [1, 2]: 0.5"),
    (dict[Camera, int], {Camera(): 1}, "\n  {name: left, fps: 30.0}: 1"),
    (list[Camera], [Camera()], "\n  - name: left\n    fps: 30.0"),
    (Camera | Board, Board("COM3"), "\n  port: COM3\n  baud: 9600"),
    (str | Path, Path("a"), "!Path a"),
    (Mode | str, "live", "!str live"),
    (int | float, 1.0, "1.0"),
    (float | int, 1, "1"),
    (list[int] | list[str], ["1"], "['1']"),
    (Any, {"a": [1, None]}, "\n  a: [1, null]"),
    (np.float32, np.float32(0.1), "0.1"),
    (np.uint8, np.uint8(255), "255"),
    (np.complex64, np.complex64(1 - 0.1j), "1.0-0.1j"),
    (np.datetime64, np.datetime64("2026-11-20", "D"), "2026-11-20 D"),
    (np.timedelta64, np.timedelta64(5, "ns"), "5 ns"),
    (np.dtype, np.dtype("f4"), "float32"),
    (np.dtype, np.dtype(">f4"), "'>f4'"),
    (NDArray[np.float32], np.array([[0.1], [2]], "f4"), "[[0.1], [2.0]]"),
    (
        NDArray[np.float32],
        np.zeros((0, 2), "f4"),
        "\n  dtype: float32\n  shape: [0, 2]\n  data: []",
    ),
    (
        np.ndarray,
        np.array([1, 2], "i2"),
        "\n  dtype: int16\n  shape: [2]\n  data: [1, 2]",
    ),
    (
        np.ndarray,
        np.array([(1, 0.5)], [("t", "u8"), ("x", "f4")]),
        "\n  dtype:\n    - [t, uint64]\n    - [x, float32]\n  shape: [1]"
        "\n  data: [[1, 0.5]]",
    ),
    (Annotated[int, "units"], 3, "3"),
    (NewType("Hertz", float), 3.0, "3.0"),
]


@pytest.mark.parametrize(
    ("kind", "value", "form"), FORMS, ids=[f"{k}-{form}"[:50] for k, _, form in FORMS]
)
def test_each_type_has_its_form_and_comes_back(
    tmp_path: Path, kind: Any, value: Any, form: str
) -> None:
    path = tmp_path / "one.yaml"
    one(kind)(value).to_yaml(path)
    space = "" if form.startswith("\n") else " "
    assert path.read_text("utf-8") == f"value:{space}{form}\n"
    back = one(kind).from_yaml(path).value
    assert type(back) is type(value)
    if isinstance(value, np.ndarray):
        assert back.dtype == value.dtype
        assert back.shape == value.shape
        assert (back == value).all()
    else:
        assert back == value


def test_nan_comes_back_as_nan(tmp_path: Path) -> None:
    one(float)(float("nan")).to_yaml(tmp_path / "a.yaml")
    assert np.isnan(one(float).from_yaml(tmp_path / "a.yaml").value)


def test_an_int_of_any_size_comes_back(tmp_path: Path) -> None:
    one(int)(-(10**5000)).to_yaml(tmp_path / "a.yaml")
    assert one(int).from_yaml(tmp_path / "a.yaml").value == -(10**5000)


READINGS: list[tuple[Any, str, Any]] = [
    (float, "30", 30.0),
    (float, "1e-3", 0.001),
    (float, "1_000.5", 1000.5),
    (int, "1_000", 1000),
    (int, "0o17", 15),
    (int, "0b101", 5),
    (int, "+7", 7),
    (str, "no", "no"),
    (str, "22:30", "22:30"),
    (str, "2026-11-20", "2026-11-20"),
    (str, ">-\n  folded\n  text", "folded text"),
    (Mode, "LIVE", Mode.LIVE),
    (Level, "HIGH", Level.HIGH),
    (Right, "3", Right.READ | Right.WRITE),
    (dt.timedelta, "90", dt.timedelta(seconds=90)),
    (dt.timedelta, "1 day, 2:03:04.5", dt.timedelta(days=1, seconds=7384.5)),
    (dt.timedelta, "-1 day, 23:59:59", dt.timedelta(seconds=-1)),
    (dt.timedelta, "1.5h", dt.timedelta(minutes=90)),
    (dt.datetime, "2026-11-20 19:11:42.5 +1", None),
    (dt.datetime, "'2026-11-20T19:11'", dt.datetime(2026, 11, 20, 19, 11)),
    (Decimal, ".5", Decimal("0.5")),
    (set[int], "!!set {1: null, 2: null}", {1, 2}),
    (bool, "!!bool true", True),
    (str, "!!str 5", "5"),
    (Camera | None, "!Camera {name: a}", Camera("a")),
    (typing.Tuple, "[1, a]", (1, "a")),  # noqa: UP006
    (tuple, "[1, a]", (1, "a")),
    (typing.Sequence[int], "[1]", [1]),
    (typing.Mapping[str, int], "{a: 1}", {"a": 1}),
    (Any, "2026-11-20", dt.date(2026, 11, 20)),
]


@pytest.mark.parametrize(
    ("kind", "text", "value"), READINGS, ids=[f"{r[0]}-{r[1]}"[:50] for r in READINGS]
)
def test_what_people_write_is_read(
    tmp_path: Path, kind: Any, text: str, value: Any
) -> None:
    if value is None:
        zone = dt.timezone(dt.timedelta(hours=1))
        value = dt.datetime(2026, 11, 20, 19, 11, 42, 500_000, zone)
    back = loaded(kind, f"value: {text}\n", tmp_path)
    assert back == value
    assert type(back) is type(value)


REFUSALS: list[tuple[Any, str, str, str]] = [
    (float, '"30"', "float", "str '30'"),
    (int, "true", "int", "bool true"),
    (int, "1.5", "int", "float 1.5"),
    (int, "1.0", "int", "float 1.0"),
    (int, "null", "int", "null"),
    (int, "017", "int", "int 017"),
    (float, "9007199254740993", "float", "int 9007199254740993"),
    (float, "true", "float", "bool true"),
    (bool, "no", "bool", "str 'no'"),
    (bool, "1", "bool", "int 1"),
    (str, "1.10", "str", "float 1.10"),
    (str, "null", "str", "null"),
    (Path, "5", "Path", "int 5"),
    (bytes, "hello", "bytes", "str 'hello'"),
    (dt.date, "2026-11-20T10:00", "date", "datetime 2026-11-20T10:00"),
    (dt.datetime, "2026-11-20", "datetime", "date 2026-11-20"),
    (dt.datetime, "2026-11-20 10:00:00.1234567", "datetime", ""),
    (dt.timedelta, "fast", "timedelta", "str 'fast'"),
    (dt.timedelta, "0.0000001", "timedelta", "float 0.0000001"),
    (dt.timedelta, "1e99", "timedelta", "float 1e99"),
    (list[int], "5", "list[int]", "int 5"),
    (list[int], "{a: 1}", "list[int]", "a mapping of 1"),
    (set[int], "[1, 1]", "each item once", "a duplicate item"),
    (tuple[int, int], "[1]", "tuple[int, int] (2 items)", "1"),
    (dict[str, int], "[1]", "dict[str, int]", "a list of 1"),
    (dict[int, int], "{1: 1, 0x1: 2}", "each key once", "a duplicate key"),
    (Camera, "5", "Camera (a mapping)", "int 5"),
    (Level, "true", "one of '1', '2'", "bool true"),
    (Mode, "liv", "one of 'live', 'replay'", "str 'liv'"),
    (Right, "READ | WRIT", "flags joined by '|', of 'READ', 'WRITE'", ""),
    (Literal["x", 1], "true", "one of 'x', 1", "bool true"),
    (int | str | None, "1.5", "int | str | null", "float 1.5"),
    (Camera | Board, "!Bord {port: a}", "Camera | Board", "tag '!Bord'"),
    (int, "!Camera 5", "int", "tag '!Camera'"),
    (np.uint8, "256", "uint8", "int 256"),
    (np.float32, "1e39", "float32", "float 1e39"),
    (np.longdouble, "1e99999", np.dtype(np.longdouble).name, "float 1e99999"),
    (np.datetime64, "2026-11-20T10:00Z s", "datetime64", "str '2026-11-20T10:00Z s'"),
    (np.datetime64, "2026-11-20", "datetime64", "date 2026-11-20"),
    (NDArray[np.uint8], "[1, 256]", "uint8", "int 256"),
    (NDArray[np.uint8], "[[1, 2], [3]]", "a list of 2", "a list of 1"),
    (np.dtype, "object", "a dtype without objects", "str 'object'"),
    (np.dtype, "floot32", "the name of a dtype, as float32", "str 'floot32'"),
    (np.ndarray, "[a]", "ndarray", "a list of 1"),
]


@pytest.mark.parametrize(
    ("kind", "text", "expected", "found"),
    REFUSALS,
    ids=[f"{r[0]}-{r[1]}"[:50] for r in REFUSALS],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, kind: Any, text: str, expected: str, found: str
) -> None:
    problem = refused(kind, f"# one\nvalue: {text}\n", tmp_path)
    assert problem.path == str(tmp_path / "one.yaml")
    assert problem.line == 2
    assert problem.field.startswith("value")
    assert problem.expected == expected
    assert found in problem.found


UNWRITABLE: list[tuple[Any, Any]] = [
    (int, "x"),
    (int, True),
    (int, 1.0),
    (int, None),
    (str, 1),
    (Path, "x"),
    (list[int], (1,)),
    (list[int], [1, "a"]),
    (tuple[int, int], (1,)),
    (Camera, Board("x")),
    (Mode, "live"),
    (Any, {1, 2}),
    (Any, object()),
    (types.ModuleType, types),
    (np.ndarray, np.array([None])),
    (np.ndarray, np.ma.array([1])),
    (np.float32, 0.5),
    (float, 2**53 + 1),
    (int | str, 1.5),
    (dict[Any, int], {object(): 1}),
]


@pytest.mark.parametrize(("kind", "value"), UNWRITABLE, ids=plain)
def test_what_would_not_come_back_is_not_written(
    tmp_path: Path, kind: Any, value: Any
) -> None:
    with pytest.raises(ConfigError) as caught:
        one(kind)(value).to_yaml(tmp_path / "a.yaml")
    assert caught.value.errors[0].field.startswith("value")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "value", "back"),
    [
        (float, 3, 3.0),
        (int, np.int64(3), 3),
        (float, np.float64(0.5), 0.5),
        (float, np.float32(0.1), float(np.float32(0.1))),
        (bool, np.True_, True),
        (int, Level.HIGH, 2),
        (str, np.str_("a"), "a"),
    ],
    ids=repr,
)
def test_an_equal_value_of_a_narrower_type_is_written(
    tmp_path: Path, kind: Any, value: Any, back: Any
) -> None:
    one(kind)(value).to_yaml(tmp_path / "a.yaml")
    got = one(kind).from_yaml(tmp_path / "a.yaml").value
    assert got == back == value
    assert type(got) is type(back)


def test_a_subclass_in_the_place_of_its_parent_is_refused(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Fast(Camera):
        shutter: float = 0.1

    with pytest.raises(ConfigError, match="expected Camera, found Fast"):
        one(Camera)(Fast()).to_yaml(tmp_path / "a.yaml")


def test_a_value_that_contains_itself_is_refused(tmp_path: Path) -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ConfigError, match="levels of nesting"):
        one(Any)(loop).to_yaml(tmp_path / "a.yaml")


def test_a_default_of_none_makes_the_field_optional(tmp_path: Path) -> None:
    cls = one(int, None)
    cls().to_yaml(tmp_path / "a.yaml")
    assert cls.from_yaml(tmp_path / "a.yaml").value is None


# All errors at once


@dataclass
class Rig(YamlConfig):
    name: str
    cameras: list[Camera] = field(default_factory=list)
    mode: Literal["live", "replay"] = "live"
    device: Camera | Board | None = None
    count: ClassVar[int] = 0


BAD = """\
nmae: rig
name: rig
cameras:
  - name: left
    fps: "30"
  - {name: right, fps: fast, gain: 1}
mode: repaly
device:
  port: COM3
  boud: 9600
mode: live
"""
EXPECTED = """\
bad.yaml:1: nmae: expected a field of Rig, found unknown key 'nmae' \
(did you mean 'name'?)
bad.yaml:5: cameras[0].fps: expected float, found str '30'
bad.yaml:6: cameras[1].fps: expected float, found str 'fast'
bad.yaml:6: cameras[1].gain: expected a field of Camera, found unknown key 'gain' \
(it has name, fps)
bad.yaml:7: mode: expected one of 'live', 'replay', found str 'repaly' \
(did you mean 'replay'?)
bad.yaml:10: device.boud: expected a field of Board, found unknown key 'boud' \
(did you mean 'baud'?; closest of Camera | Board | null: Board)
bad.yaml:11: mode: expected each key once, found duplicate key 'mode' \
(first on line 7)"""


def test_all_errors_come_at_once_with_line_field_and_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text(BAD, "utf-8")
    with pytest.raises(ConfigError) as caught:
        Rig.from_yaml("bad.yaml")
    assert str(caught.value) == f"bad.yaml does not fit Rig\n{EXPECTED}"
    assert "Scalar" not in str(caught.value)


def test_a_missing_required_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("# nothing\nmode: live\n", "utf-8")
    with pytest.raises(ConfigError) as caught:
        Rig.from_yaml(path)
    (problem,) = caught.value.errors
    assert (problem.line, problem.field) == (2, "name")
    assert problem.found == "no such key"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("# only a comment\n", 1),
        ("- 1\n", 1),
        ("\nword\n", 2),
        ("name: a\n---\nname: b\n", 2),
        ("name: [1\n", 2),
        ("name: a\n\tmode: live\n", 2),
        ("name: *none\n", 1),
        ("name: &a [*a]\n", 1),
        ("name: a\nmode: l\x07ive\n", 2),
        ("name: " + "[" * 500 + "]" * 500 + "\n", 1),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_document_that_is_not_a_mapping_has_its_line(
    tmp_path: Path, text: str, line: int
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as caught:
        Rig.from_yaml(path)
    assert caught.value.errors[0].line == line


def test_what_the_class_itself_refuses_is_a_problem_of_the_file(tmp_path: Path) -> None:
    def check(self: Any) -> None:
        if self.value < 0:
            raise ValueError("a rate is positive")

    cls = dataclasses.make_dataclass(
        "Rate",
        [("value", int)],
        bases=(YamlConfig,),
        namespace={"__post_init__": check},
    )
    path = tmp_path / "a.yaml"
    path.write_text("# x\nvalue: -1\n", "utf-8")
    with pytest.raises(ConfigError, match="ValueError: a rate is positive") as caught:
        cls.from_yaml(path)
    assert caught.value.errors[0].line == 2
    assert isinstance(caught.value.__cause__, ValueError)


def test_saving_runs_no_code_of_the_class(tmp_path: Path) -> None:
    made: list[int] = []

    def note(self: Any) -> None:
        made.append(self.value)

    cls = dataclasses.make_dataclass(
        "Counted",
        [("value", int)],
        bases=(YamlConfig,),
        namespace={"__post_init__": note},
    )
    instance = cls(1)
    instance.to_yaml(tmp_path / "a.yaml")
    instance.value = 2
    instance.to_yaml(tmp_path / "a.yaml")
    assert made == [1]


def test_a_small_file_cannot_become_a_large_value(tmp_path: Path) -> None:
    rows = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    bomb = "value:\n" + "".join(f"  {row}\n" for row in rows)
    with pytest.raises(ConfigError, match="too many aliases"):
        loaded(dict[str, Any], bomb, tmp_path)


def test_the_error_and_its_problems_can_be_pickled(tmp_path: Path) -> None:
    problem = refused(int, "value: x\n", tmp_path)
    with pytest.raises(ConfigError) as caught:
        loaded(int, "value: x\n", tmp_path)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.errors) == (str(caught.value), (problem,))


# No code runs

TAGS = [
    "!!python/object/apply:os.mkdir [ran]",
    "!!python/object/new:os.mkdir [ran]",
    "!!python/object:os.mkdir {}",
    "!!python/name:os.mkdir",
    "!!python/module:os",
    "!!python/tuple [1]",
    "!<tag:yaml.org,2002:python/object/apply:os.mkdir> [ran]",
    "!!python/object/apply:subprocess.run [[mkdir, ran]]",
]


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("place", ["value: {}", "{}: 1", "value: [{{a: {}}}]", "{}"])
def test_python_tags_are_refused_and_run_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    strict: bool,
    tag: str,
    place: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    text = place.format(tag) + "\n"
    pattern = r"no code runs from a file|expected YAML"
    with pytest.raises(ConfigError, match=pattern):
        loaded(Any, text, tmp_path, strict=strict)
    assert os.listdir(tmp_path) == ["one.yaml"]


def test_a_tag_handle_cannot_disguise_a_python_tag(tmp_path: Path) -> None:
    text = "%TAG !p! tag:yaml.org,2002:python/\n---\nvalue: !p!tuple [1]\n"
    assert "no code runs" in refused(Any, text, tmp_path).hint


# Excluded fields


@dataclass
class Tracker(YamlConfig):
    file_path: Path = field(metadata=YAML_EXCLUDE_METADATA)
    jobs: int = 0
    cache: Any = field(default=None, metadata={**YAML_EXCLUDE_METADATA, "help": "x"})

    @classmethod
    def restore_excluded_fields(
        cls, data: dict[Any, Any], file_path: Path
    ) -> dict[Any, Any]:
        return {**data, "file_path": file_path}


def test_excluded_fields_are_restored_by_the_class(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    Tracker(path, 3, cache=object()).to_yaml(path)
    assert path.read_text("utf-8") == "jobs: 3\n"
    assert Tracker.from_yaml(path) == Tracker(path, 3)


def test_a_required_excluded_field_without_a_value_is_named(
    tmp_path: Path,
) -> None:
    cls = dataclasses.make_dataclass(
        "Lost",
        [("where", Path, field(metadata=YAML_EXCLUDE_METADATA)), ("value", int, 0)],
        bases=(YamlConfig,),
    )
    path = tmp_path / "a.yaml"
    cls(path).to_yaml(path)
    with pytest.raises(ConfigError, match=r"give it in Lost\.restore_excluded_fields"):
        cls.from_yaml(path)


def test_fields_that_init_does_not_take_come_back(tmp_path: Path) -> None:
    cls = dataclasses.make_dataclass(
        "Derived",
        [("value", int), ("total", int, field(init=False, default=0))],
        bases=(YamlConfig,),
        frozen=True,
    )
    instance = cls(1)
    object.__setattr__(instance, "total", 5)
    instance.to_yaml(tmp_path / "a.yaml")
    assert cls.from_yaml(tmp_path / "a.yaml") == instance


# Files of the originals: tests/golden/*_3.1.1.yaml and *_7.2.0.yaml were written by
# those releases from PyPI, with the values that SESSION and OldRig repeat here.


@dataclass
class OldCamera:
    name: str = "left"
    fps: float = 30.0
    roi: list = field(default_factory=lambda: [0, 0, 640, 480])  # type: ignore[type-arg]


@dataclass
class Session(YamlConfig):
    animal: str
    clock: str
    tiny: str
    digits: str
    empty: str
    unit: str
    long: str
    lines: str
    axis: dict  # type: ignore[type-arg]
    count: int
    big: int
    gain: float
    huge: float
    limit: float
    ready: bool
    nothing: int | None
    day: dt.date
    start: dt.datetime
    aware: dt.datetime
    raw: bytes
    ports: set[int]
    cameras: list[OldCamera]
    by_id: dict[int, str]
    nested: dict[str, dict[str, list[int]]]


SESSION = Session(
    animal="no",
    clock="22:30",
    tiny="1e-3",
    digits="0123",
    empty="",
    unit="µm é 漢字",
    long="word " * 60 + "end",
    lines="first\n  second: x\n\nthird # not a comment\n",
    axis={"y": 1.5, "n": -2.0},
    count=-3,
    big=2**70,
    gain=1e-05,
    huge=1e22,
    limit=float("inf"),
    ready=True,
    nothing=None,
    day=dt.date(2025, 9, 30),
    start=dt.datetime(2025, 9, 30, 12, 30, 15, 250000),
    aware=dt.datetime(2025, 9, 30, 10, 30, 15, tzinfo=dt.UTC),
    raw=b"\x00\xffdata",
    ports={1, 2, 3},
    cameras=[OldCamera(), OldCamera("right", 59.94)],
    by_id={7: "seven", 8: "eight"},
    nested={"a": {"b": [1, 2]}, "c": {}},
)


@dataclass
class OldRig(YamlConfig):
    root: Path
    backup: Path | None
    mode: Mode
    level: Level
    either: Mode | str
    size: tuple[int, int]
    names: tuple[str, ...]
    gains: dict[Mode, float]
    paths: list[Path]
    camera: OldCamera


@pytest.mark.parametrize("version", ["3.1.1", "7.2.0"])
def test_files_written_by_the_originals_load_as_they_were_meant(version: str) -> None:
    path = GOLDEN / f"session_{version}.yaml"
    assert Session.from_yaml(path, strict=False) == SESSION


@pytest.mark.parametrize("version", ["3.1.1", "7.2.0"])
def test_the_seed_file_of_the_originals_loads_even_strictly(version: str) -> None:
    cls = dataclasses.make_dataclass(
        "MyConfig", [("integer", int), ("string", str)], bases=(YamlConfig,)
    )
    path = GOLDEN / f"seed_{version}.yaml"
    for strict in (True, False):
        assert cls.from_yaml(path, strict=strict) == cls(123, "hello")


def test_paths_enums_and_tuples_of_the_later_original_load() -> None:
    rig = OldRig.from_yaml(GOLDEN / "rig_7.2.0.yaml", strict=False)
    assert rig == OldRig(
        root=Path("/data/mouse 1"),
        backup=None,
        mode=Mode.REPLAY,
        level=Level.HIGH,
        either=Mode.LIVE,
        size=(640, 480),
        names=("a", "b"),
        gains={Mode.LIVE: 1.0, Mode.REPLAY: 0.5},
        paths=[Path("a"), Path("b/c")],
        camera=OldCamera(),
    )
    assert rig.mode is Mode.REPLAY


def test_a_file_the_original_could_not_read_itself_is_refused_by_line() -> None:
    names = ["size", "root", "mode", "gain", "pose", "order"]
    cls = dataclasses.make_dataclass(
        "Tagged", [(name, Any) for name in names], bases=(YamlConfig,)
    )
    with pytest.raises(ConfigError) as caught:
        cls.from_yaml(GOLDEN / "tags_3.1.1.yaml", strict=False)
    tagged = {e.field.split(".")[0].split("[")[0]: e.line for e in caught.value.errors}
    assert tagged.keys() == set(names)
    assert all(tagged.values())


def test_a_file_of_the_originals_saved_by_us_then_loads_strictly(
    tmp_path: Path,
) -> None:
    path = tmp_path / "session.yaml"
    original = (GOLDEN / "session_3.1.1.yaml").read_text("utf-8")
    path.write_text(original, "utf-8")
    Session.from_yaml(path, strict=False).to_yaml(path)
    assert Session.from_yaml(path) == SESSION
    # The one word that YAML 1.2 reads otherwise is the one place that changed.
    mended = original.replace("tiny: 1e-3\n", "tiny: '1e-3'\n")
    assert path.read_text("utf-8") == mended
    assert (tmp_path / "session.yaml.bak").read_text("utf-8") == original


LAX: list[tuple[Any, str, Any, bool]] = [
    (int, "value: 22:30", 1350, False),
    (bool, "value: no", False, False),
    (int, "value: 017", 15, False),
    (int, "value: '30'", 30, True),
    (float, "value: 1e-3", 0.001, True),
    (str, "value: no", "no", True),
    (str, "value: 5", "5", True),
    (int, "value: 5.0", 5, True),
    (int, "value: hello", "hello", True),
    (int, "value: null", None, True),
    (Camera, "value: 5", 5, True),
    (int | bool, "value: x", "x", True),
    (int, "value: 1\ntypo: 2", 1, True),
    (int, "value: 1\nvalue: 2", 2, True),
    (tuple[int, int], "value: [1]", (1,), True),
]


@pytest.mark.parametrize(
    ("kind", "text", "value", "warned"), LAX, ids=[row[1] for row in LAX]
)
def test_lax_reading_gives_what_the_originals_gave_and_warns(
    tmp_path: Path, kind: Any, text: str, value: Any, warned: bool
) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        back = loaded(kind, text + "\n", tmp_path, strict=False)
    assert back == value
    assert type(back) is type(value)
    assert [w.category for w in seen] == [ConfigWarning] * warned
    assert all("one.yaml:" in str(w.message) and w.filename == __file__ for w in seen)


def test_lax_reading_still_refuses_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("---\n{}\n...\n", "utf-8")
    with pytest.raises(ConfigError, match="value: expected int, found no such key"):
        one(int).from_yaml(path, strict=False)


def test_a_changed_order_is_saved_where_order_is_part_of_the_value(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.yaml"
    ordered = one(collections.OrderedDict[str, int])
    for names in ("ab", "ba", "bca"):
        items = collections.OrderedDict((name, ord(name)) for name in names)
        ordered(items).to_yaml(path)
        assert list(ordered.from_yaml(path).value) == list(names)


@dataclass
class Link:
    """A chain: every link is a union inside a union."""

    weight: float
    next: Link | None = None


def test_the_work_for_nested_unions_does_not_double_with_each_level(
    tmp_path: Path,
) -> None:
    depth = 40
    chain = None
    for weight in range(depth):
        chain = Link(float(weight), chain)
    path = tmp_path / "chain.yaml"
    cls = one(Link | None)
    cls(chain).to_yaml(path)
    # A whole number is a float only in the second, wider try of every level.
    path.write_text(path.read_text("utf-8").replace(" 0.0", " 0"), "utf-8")
    assert cls.from_yaml(path) == cls(chain)
    path.write_text(path.read_text("utf-8").replace(" 0\n", " x\n"), "utf-8")
    with pytest.raises(ConfigError) as caught:
        cls.from_yaml(path)
    (problem,) = caught.value.errors
    assert problem.line == 2 * depth


@pytest.mark.skipif(sys.version_info < (3, 12), reason="type aliases came with 3.12")
def test_type_aliases_with_and_without_parameters_are_looked_through(
    tmp_path: Path,
) -> None:
    make: Any = typing.TypeAliasType  # type: ignore[attr-defined]
    item = typing.TypeVar("item")
    pair = make("pair", tuple[item, item], type_params=(item,))  # type: ignore[valid-type]
    assert loaded(make("Text", str), "value: a\n", tmp_path) == "a"
    assert loaded(pair[int], "value: [1, 2]\n", tmp_path) == (1, 2)
    assert loaded(pair[int] | None, "value: [1, 2]\n", tmp_path) == (1, 2)


def test_unions_of_both_spellings_are_the_same(tmp_path: Path) -> None:
    for kind in (int | str, Union[int, str], Optional[Union[int, str]]):  # noqa: UP007, UP045
        assert loaded(kind, "value: 'a'\n", tmp_path) == "a"


def test_the_errors_printed_in_the_reference_are_true() -> None:
    page = ROOT / "docs" / "reference" / "config.md"
    text = page.read_text("utf-8")
    assert EXPECTED in text
    assert BAD in text


# ---- fields that hide the type they are annotated with


@dataclass
class Hiding(YamlConfig):
    first: dict[str, int] = field(default_factory=dict)
    list: list = field(default_factory=list)  # type: ignore[type-arg]
    int: int = 3
    date: str | None = None


HIDING = """
from dataclasses import dataclass, field
from ataraxis import YamlConfig

@dataclass
class Hiding(YamlConfig):
    first: dict = field(default_factory=dict)
    list: list = field(default_factory=list)
    int: int = 3
    date: "str | None" = None
"""


@pytest.mark.parametrize("has_text", [True, False], ids=["text", "values"])
def test_a_field_may_hide_the_type_of_its_own_annotation(
    tmp_path: Path, has_text: bool
) -> None:
    made: Any = Hiding
    if not has_text:  # annotations that are evaluated, after the default is there
        module = types.ModuleType("hiding")
        sys.modules["hiding"] = module
        exec(
            HIDING.replace("YamlConfig\n\n@", "YamlConfig\n__name__ = 'hiding'\n@"),
            module.__dict__,
        )
        made = module.Hiding
    path = tmp_path / "hiding.yaml"
    for given in (made(), made({"a": 1}, [1, "b"], 4, "today")):
        given.to_yaml(path)
        assert made.from_yaml(path) == given
    path.write_text("int: many\n")
    with pytest.raises(ConfigError, match="int: expected int, found str 'many'"):
        made.from_yaml(path)


@dataclass
class Ranged(YamlConfig):
    trials: range = range(3)
    maybe: range | None = None


@pytest.mark.parametrize("trials", [range(0), range(5, -5, -2), range(10**18)])
def test_a_range_comes_back(tmp_path: Path, trials: range) -> None:
    path = tmp_path / "range.yaml"
    Ranged(trials, trials).to_yaml(path)
    assert Ranged.from_yaml(path) == Ranged(trials, trials)
    for text in ("range(1, 2, 0)", "range(1, 2, 3, 4)", "range(x)", "5", "null"):
        path.write_text(f"trials: {text}\n")
        with pytest.raises(ConfigError, match="trials: expected range, found"):
            Ranged.from_yaml(path)


class Outer(enum.Enum):
    A = "a"


@dataclass
class Aliased(YamlConfig):
    class Mode(enum.Enum):
        LIVE = "live"

    Level = Literal["low", "high"]
    Maybe = Optional[int]  # noqa: UP045 - as older programs have it
    level: Level = "low"
    maybe: Maybe = None
    mode: Mode = Mode.LIVE


@dataclass
class Derived(Aliased):
    class Mode(enum.Enum):
        LIVE = "live"
        DEAD = "dead"

    other: Mode = Mode.DEAD


def test_names_of_a_class_body_mean_what_they_mean_there(tmp_path: Path) -> None:
    path = tmp_path / "names.yaml"
    made = Derived("high", 3, Aliased.Mode.LIVE, Derived.Mode.DEAD)
    made.to_yaml(path)
    assert Derived.from_yaml(path) == made
    path.write_text("mode: dead\n")  # of the other class
    with pytest.raises(ConfigError, match="mode"):
        Derived.from_yaml(path)
