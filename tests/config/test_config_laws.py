"""Laws of YamlConfig over generated dataclasses, instances and damaged texts."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import math
import tempfile
import typing
import uuid
from collections import OrderedDict
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from laws import examples
from numpy.typing import NDArray

from ataraxis.config import ConfigError, YamlConfig

LAW = settings(
    max_examples=examples(200),
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


class Mode(enum.Enum):
    LIVE = "live"
    OFF = "off"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Shape(enum.Enum):
    DISC = (1, 2)
    RING = 0.5


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Word(enum.StrEnum):
    YES = "yes"
    NULL = "null"


@dataclasses.dataclass(frozen=True)
class Camera:
    name: str = "left"
    fps: float = 30.0


@dataclasses.dataclass
class Board:
    port: str
    baud: int = 9600


@dataclasses.dataclass
class Twin:
    name: str = "left"
    fps: float = 30.0


WORDS = """no yes null ~ 1e-3 22:30 0x1f 017 1_000 .inf true = << - ? # {a} [b] a:b a:
lead 'q' " é µ 漢字 2026-01-01 --- ... !tag &a *b | > % @ ` y N 1.0e-05 0o17 off"""
LINES = ["", " lead", "trail ", "two\nlines", "two\nlines\n", "a\n\n b\n", "\t", "\r\n"]
ODD = ["a\n\n", "\n", "x: y", "x #y", "\x85", "\u2028", "\ufeff", "a\n# b\n--- c"]
text = st.text(max_size=12) | st.sampled_from([*WORDS.split(), *LINES, *ODD])
offsets = st.integers(-86_399, 86_399).map(lambda s: dt.timezone(dt.timedelta(0, s)))
stamps = st.datetimes(timezones=st.none() | offsets)
decimals = st.decimals(allow_nan=False) | st.integers().map(Decimal)
f4 = st.floats(width=32).map(np.float32)
cameras = st.builds(Camera, text, st.floats(allow_nan=False))
boards = st.builds(Board, text, st.integers())
dtypes = st.sampled_from(
    [np.dtype(t) for t in ("f4", ">f8", "u1", "?", "c8", "S3", "U5", "M8[ns]", "m8[s]")]
    + [np.dtype([("t", "u8"), ("x", ">f4", (2,)), ("n", [("a", "S2")])])]
)


def arrays_of(dtype: Any, elements: Any) -> Any:
    """Draw small arrays of one dtype, empty and 0-d ones too."""
    shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)

    def fill(shape: tuple[int, ...]) -> Any:
        count = math.prod(shape)
        rows = st.lists(elements, min_size=count, max_size=count)
        return rows.map(lambda row: np.array(row, dtype).reshape(shape))

    return shapes.flatmap(fill)


def any_array(dtype: np.dtype[Any]) -> Any:
    """Draw arrays of any dtype from raw bytes that the dtype can hold."""
    if dtype.kind in "biuf" or dtype.names:
        numbers = st.integers(0, 100)
        return arrays_of("u1", numbers).map(lambda a: np.zeros(a.shape, dtype))
    return arrays_of("u1", st.integers(0, 9)).map(
        lambda a: (
            a.astype(dtype)
            if dtype.kind not in "mM"
            else a.astype("i8").view().astype(dtype)
        )
    )


LEAVES: list[tuple[Any, Any]] = [
    (bool, st.booleans()),
    (int, st.integers() | st.just(10**400) | st.just(-(2**70))),
    (float, st.floats()),
    (complex, st.complex_numbers()),
    (str, text),
    (bytes, st.binary(max_size=20)),
    (type(None), st.none()),
    (Path, text.filter(lambda t: "\0" not in t).map(Path)),
    (PurePosixPath, text.map(PurePosixPath)),
    (dt.datetime, stamps),
    (dt.date, st.dates()),
    (dt.time, st.times()),
    (dt.timedelta, st.timedeltas()),
    (Decimal, decimals),
    (Fraction, st.fractions()),
    (uuid.UUID, st.uuids()),
    (Mode, st.sampled_from(Mode)),
    (Level, st.sampled_from(Level)),
    (Shape, st.sampled_from(Shape)),
    (Right, st.integers(0, 3).map(Right)),
    (Word, st.sampled_from(Word)),
    (Literal["a", 1, True, None, "no"], st.sampled_from(["a", 1, True, None, "no"])),
]
NUMPY: list[tuple[Any, Any]] = [
    (np.float32, f4),
    (np.float16, st.floats(width=16).map(np.float16)),
    (np.float64, st.floats().map(np.float64)),
    (np.longdouble, st.floats().map(lambda x: np.longdouble(x) / 3)),
    (np.int8, st.integers(-128, 127).map(np.int8)),
    (np.uint64, st.integers(0, 2**64 - 1).map(np.uint64)),
    (np.bool_, st.booleans().map(np.bool_)),
    (np.complex64, st.tuples(f4, f4).map(lambda p: np.array(p).view("c8")[0])),
    (np.str_, text.map(np.str_)),
    (
        np.datetime64,
        st.integers(-(10**15), 10**15).map(lambda n: np.datetime64(n, "us")),
    ),
    (
        np.timedelta64,
        st.integers(-(10**9), 10**9).map(lambda n: np.timedelta64(n, "ms")),
    ),
    (np.dtype, dtypes),
    (NDArray[np.float32], arrays_of("f4", f4)),
    (NDArray[np.float64], arrays_of("f8", st.floats())),
    (NDArray[np.uint8], arrays_of("u1", st.integers(0, 255))),
    (np.ndarray, arrays_of("i8", st.integers(-5, 5)) | dtypes.flatmap(any_array)),
]
HASHABLE = [*LEAVES, (Camera, cameras)]


def _dict(pair: Any, key: Any) -> tuple[Any, Any]:
    return (dict[key[0], pair[0]], st.dictionaries(key[1], pair[1], max_size=3))


def _union(kinds: Any) -> Any:
    """Make one union of a few types."""
    return typing.Union[tuple(kinds)]  # noqa: UP007


def _grown(inner: Any) -> Any:
    """Make container types of simpler types, each with its values."""
    one_key = st.sampled_from(HASHABLE).filter(lambda pair: pair[0] is not Decimal)
    return st.one_of(
        inner.map(lambda p: (list[p[0]], st.lists(p[1], max_size=3))),
        inner.map(lambda p: (tuple[p[0], ...], st.lists(p[1], max_size=3).map(tuple))),
        st.tuples(inner, inner).map(
            lambda ps: (tuple[ps[0][0], ps[1][0]], st.tuples(ps[0][1], ps[1][1]))
        ),
        st.tuples(inner, one_key).map(lambda ps: _dict(*ps)),
        inner.map(
            lambda p: (
                OrderedDict[str, p[0]],
                st.dictionaries(text, p[1], max_size=3).map(OrderedDict),
            )
        ),
        one_key.map(lambda p: (set[p[0]], st.sets(p[1], max_size=3))),
        one_key.map(lambda p: (frozenset[p[0]], st.frozensets(p[1], max_size=3))),
        st.lists(inner, min_size=2, max_size=3).map(
            lambda ps: (_union(p[0] for p in ps), st.one_of(p[1] for p in ps))
        ),
    )


typed = st.recursive(
    st.sampled_from(LEAVES + NUMPY)
    | st.sampled_from([(Camera, cameras), (Board, boards), (Twin | Camera, cameras)]),
    _grown,
    max_leaves=4,
)
NAMES = ["alpha", "beta", "no", "null", "y"]


@st.composite
def instances(draw: Any, count: int = 1) -> list[Any]:
    """Draw a new dataclass and a few instances of it."""
    kinds = draw(st.lists(typed, min_size=1, max_size=5))
    fields = [(NAMES[i], kind) for i, (kind, _) in enumerate(kinds)]
    cls = dataclasses.make_dataclass(
        "Drawn", fields, bases=(YamlConfig,), frozen=draw(st.booleans())
    )
    return [cls(*(draw(values) for _, values in kinds)) for _ in range(count)]


def same(a: Any, b: Any) -> bool:
    """Compare values and types; NaN equals NaN, -0.0 does not equal 0.0."""
    if type(a) is not type(b):
        return False
    if dataclasses.is_dataclass(a):
        return all(
            same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a)
        )
    if isinstance(a, np.ndarray):
        if a.dtype != b.dtype or a.shape != b.shape or a.dtype.kind not in "fc":
            return (
                a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
            )
        return all(same(x, y) for x, y in zip(a.ravel(), b.ravel(), strict=True))
    if isinstance(a, float | np.floating):
        if np.isnan(a):
            return bool(np.isnan(b))
        return bool(a == b) and bool(np.signbit(a) == np.signbit(b))
    if isinstance(a, complex | np.complexfloating):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        ordered = isinstance(a, OrderedDict)
        if ordered and list(a) != list(b):
            return False
        return len(a) == len(b) and all(
            any(same(k, m) and same(v, w) for m, w in b.items()) for k, v in a.items()
        )
    if isinstance(a, set | frozenset):
        return len(a) == len(b) and all(any(same(x, y) for y in b) for x in a)
    if isinstance(a, np.datetime64 | np.timedelta64) and np.isnat(a):
        return bool(np.isnat(b))
    return bool(a == b)


@LAW
@given(instances())
def test_any_instance_comes_back_as_an_equal_one(drawn: list[Any]) -> None:
    (instance,) = drawn
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drawn.yaml"
        instance.to_yaml(path)
        assert same(type(instance).from_yaml(path), instance), path.read_text("utf-8")
        assert [entry.name for entry in Path(folder).iterdir()] == ["drawn.yaml"]


@LAW
@given(instances(count=2))
def test_saving_over_another_instance_loads_as_the_new_one(drawn: list[Any]) -> None:
    first, second = drawn
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drawn.yaml"
        first.to_yaml(path)
        commented = "# head\n" + path.read_text("utf-8") + "# tail\n"
        path.write_bytes(commented.encode())
        second.to_yaml(path)
        assert same(type(second).from_yaml(path), second), path.read_text("utf-8")


@LAW
@given(instances())
def test_saving_the_same_values_changes_no_byte(drawn: list[Any]) -> None:
    (instance,) = drawn
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drawn.yaml"
        instance.to_yaml(path)
        before = b"# head\r\n" + path.read_bytes() + b"# tail"
        path.write_bytes(before)
        instance.to_yaml(path)
        assert path.read_bytes() == before


@dataclasses.dataclass
class Damaged(YamlConfig):
    """A class with a field of every kind, whose file is damaged below."""

    name: str = "rig: 1"
    count: int = 3
    gain: float = 1e-05
    ready: bool = True
    mode: Mode = Mode.LIVE
    either: int | str | None = None
    way: Literal["x", "y"] = "x"
    root: Path = Path("/data/mouse 1")
    start: dt.datetime = dt.datetime(2026, 11, 20, 12, 30)
    pause: dt.timedelta = dt.timedelta(seconds=5400.5)
    size: tuple[int, float] = (640, 0.5)
    names: set[str] = dataclasses.field(default_factory=lambda: {"a", "no"})
    cameras: list[Camera] = dataclasses.field(default_factory=lambda: [Camera()])
    device: Camera | Board = dataclasses.field(default_factory=lambda: Board("COM1"))
    gains: dict[int, float] = dataclasses.field(default_factory=lambda: {1: 0.5})
    level: np.float32 = np.float32(0.1)  # noqa: RUF009
    pose: NDArray[np.float32] = dataclasses.field(
        default_factory=lambda: np.zeros((2, 2), "f4")
    )
    notes: str = "two\nlines\n"


MARKS = "- # ' \" [ ] { } , | > & * ! ? << ~ % @ ` --- ... &a *a !!int !Board"
TOKENS = "null 1 1.5 true no .nan 2026-01-01 0x1f name: count: é :"
CONTROLS = ["\\", "\t", "\x07", "\n", ": ", "!!python/object:os.system "]
PIECES = [*MARKS.split(), *TOKENS.split(), *CONTROLS]


@st.composite
def damaged_texts(draw: Any, original: str) -> str:
    """Draw a text with a few characters or lines removed, added, swapped or doubled."""
    changed = original
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(changed)))
        end = min(len(changed), start + draw(st.integers(0, 6)))
        piece = draw(st.sampled_from(PIECES) | st.text(max_size=3) | st.just("\n"))
        lines = changed.splitlines(keepends=True) or [""]
        one = draw(st.integers(0, len(lines) - 1))
        two = draw(st.integers(0, len(lines) - 1))
        way = draw(st.sampled_from(["cut", "put", "double", "drop", "swap", "indent"]))
        if way == "cut":
            changed = changed[:start] + changed[end:]
        elif way == "put":
            changed = changed[:start] + piece + changed[end:]
        elif way == "swap":
            lines[one], lines[two] = lines[two], lines[one]
            changed = "".join(lines)
        else:
            lines[one] = {"double": lines[one] * 2, "drop": ""}.get(
                way, " " + lines[one]
            )
            changed = "".join(lines)
    return changed


def has_right_types(loaded: Damaged) -> bool:
    """Check by hand, without the code under test, that each field has its type."""
    device = loaded.device
    camera_types = [
        type(c.name) is str and type(c.fps) is float for c in loaded.cameras
    ]
    return all(
        [
            type(loaded.name) is str,
            type(loaded.count) is int,
            type(loaded.gain) is float,
            type(loaded.ready) is bool,
            isinstance(loaded.mode, Mode),
            type(loaded.either) in (int, str, type(None)),
            loaded.way in ("x", "y"),
            isinstance(loaded.root, Path),
            type(loaded.start) is dt.datetime,
            type(loaded.pause) is dt.timedelta,
            [type(item) for item in loaded.size] == [int, float],
            type(loaded.names) is set,
            all(type(name) is str for name in loaded.names),
            type(loaded.cameras) is list,
            *camera_types,
            (type(device) is Camera and type(device.fps) is float)
            or (type(device) is Board and type(device.baud) is int),
            all(type(k) is int and type(v) is float for k, v in loaded.gains.items()),
            type(loaded.level) is np.float32,
            type(loaded.pose) is np.ndarray,
            loaded.pose.dtype == np.float32,
            type(loaded.notes) is str,
        ]
    )


@settings(LAW, max_examples=examples(500))
@given(st.data())
def test_any_damage_loads_right_or_is_an_error_with_a_line(data: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "damaged.yaml"
        Damaged().to_yaml(path)
        text = data.draw(damaged_texts(path.read_text("utf-8")))
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        refused = None
        try:
            loaded = Damaged.from_yaml(path)
        except ConfigError as error:
            refused = error
        if refused is not None:
            assert refused.errors
            last = len(text.splitlines()) + 1
            for problem in refused.errors:
                assert problem.path == str(path)
                assert problem.line is not None
                assert 1 <= problem.line <= last
        else:
            assert has_right_types(loaded), text
            # Whatever loads can be saved over the damage, and loads again.
            loaded.to_yaml(path)
            assert has_right_types(Damaged.from_yaml(path))


@settings(LAW, max_examples=examples(300))
@given(st.binary(max_size=40))
def test_any_bytes_at_all_are_an_error_with_a_line(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "noise.yaml"
        path.write_bytes(data)
        with pytest.raises(ConfigError) as caught:
            Board2.from_yaml(path)
        assert all(problem.line is not None for problem in caught.value.errors)


@dataclasses.dataclass
class Board2(YamlConfig):
    """Needs a key that noise does not have."""

    a_key_that_no_noise_has: int
