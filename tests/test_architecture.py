"""The house: directions of imports, sizes, stubs, docstrings, errors, a light door."""

from __future__ import annotations

import ast
import inspect
import pickle
import queue
import re
from collections.abc import Iterator
from pathlib import Path

import programs
import pytest

import ataraxis
from ataraxis import errors

HERE = Path(__file__).resolve().parent
HOUSE = HERE.parent / "ataraxis"
SOURCES = sorted(p for p in HOUSE.rglob("*") if p.suffix in (".py", ".pyx", ".pxd"))
# DESIGN section 2: who may import whom. A room sees those below it.
LEAVES = {"errors", "clock", "labels", "frame", "config"}
FLOORS = [
    {"_kernels"},
    LEAVES,
    {"shm"},
    {"stream", "framebuffer"},
    {"log"},
    {"datamux"},
    {"pipeline"},
    {"session"},
    {"viewer", "screen"},
    {"demo"},
    {"cli"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
SEES_ALL = {"testing"}
HEAVY = {
    "xarray", "pandas", "asyncio", "yaml", "ruamel", "multiprocessing", "click", "rich",
}  # fmt: skip
CIMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+c?import\s+(\(?)|c?import\s+([\w.]+))")


def name_of(path: Path) -> str:
    return path.relative_to(HOUSE.parent).as_posix()


def room_of(module: str) -> str:
    """The room of a dotted name: "ataraxis.shm.array" -> "shm"; "" is the door."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Modules of ataraxis that a file imports or cimports, with the names it takes."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield alias.name, []
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative import"
                yield node.module or "", [alias.name for alias in node.names]
        return
    lines = re.sub(r"\(\s*([^()]*?)\s*\)", _joined, text).splitlines()
    for line in lines:
        if found := CIMPORT.match(line):
            names = line[found.end() :].replace(")", "").split(",")
            yield found[1] or found[3], [n.split(" as ")[0].strip() for n in names]


def _joined(brackets: re.Match[str]) -> str:
    return "(" + " ".join(brackets[1].split()) + ")"


def ours(path: Path) -> Iterator[tuple[str, list[str]]]:
    for module, names in imports(path):
        if module == "ataraxis" and names:
            yield from ((f"ataraxis.{name}", []) for name in names)
        elif module.split(".")[0] == "ataraxis":
            yield module, names


def test_every_room_is_one_of_the_design() -> None:
    rooms = {room_of(name_of(p).replace("/", ".")) for p in SOURCES} - {"__init__"}
    rooms = {room.removesuffix(".py") for room in rooms} - {"py"}
    assert rooms <= FLOOR.keys() | SEES_ALL | {"__init__", "__main__"}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    parts = path.relative_to(HOUSE).with_suffix("").parts
    room = parts[0]
    if room in SEES_ALL:
        return
    for module, _ in ours(path):
        other = room_of(module)
        if room == "__init__":
            pytest.fail(f"{path.name} imports {module}: names load on first use")
        if other == room:
            continue
        assert other, f"{path.name} imports ataraxis itself"
        is_leaf_to_leaf = room in LEAVES and other in LEAVES
        below = FLOOR[other] < FLOOR[room]
        assert below or is_leaf_to_leaf, f"{path.name} imports {module}: up or sideways"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_kernels_know_nothing_of_ataraxis(path: Path) -> None:
    if "_kernels" not in path.parts:
        return
    assert all(room_of(module) == "_kernels" for module, _ in ours(path))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nobody_takes_another_modules_private_names(path: Path) -> None:
    package = name_of(path.parent).replace("/", ".")
    for module, names in ours(path):
        private = [n for n in names if n.startswith("_") and not n.startswith("__")]
        if private:
            assert module == package, f"{path.name} takes {private} of {module}"
        inside = [part for part in module.split(".") if part.startswith("_")]
        if inside and inside != ["_kernels"]:
            assert module.startswith(package), f"{path.name} reaches into {module}"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_file_is_longer_than_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_every_kernel_has_a_stub_of_its_own() -> None:
    kernels = list((HOUSE / "_kernels").glob("*.pyx"))
    assert kernels
    assert [p.name for p in kernels if not p.with_suffix(".pyi").exists()] == []
    strays = [p for p in HOUSE.rglob("*.pyi") if not p.with_suffix(".pyx").exists()]
    assert strays == []
    assert list(HOUSE.rglob("*.pyx")) == kernels or all(
        p.parent.name == "_kernels" for p in HOUSE.rglob("*.pyx")
    )


def test_no_room_is_a_drawer() -> None:
    drawers = {"util", "utils", "base", "manager", "managers", "helper", "helpers"}
    names = {p.stem.strip("_") for p in HOUSE.rglob("*")}
    assert not names & (drawers - {"util"}), names & drawers
    assert "util" not in {p.stem for p in HOUSE.iterdir()}


# ---- the door


@pytest.mark.parametrize(
    "use",
    [
        "import ataraxis",
        "import ataraxis; ataraxis.SharedMemoryArray; ataraxis.attach",
        "import numpy, ataraxis\n"
        "with ataraxis.SharedMemoryArray.create_array('x', numpy.zeros(3)) as a:\n"
        "  a[0] = 1; a[1:]; a.add(0, 1); ataraxis.attach('x')",
    ],
    ids=["import", "names", "use"],
)
def test_import_is_light(use: str) -> None:
    report = "\nimport sys; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    assert not HEAVY & set(programs.run(use + report).split())


def test_the_door_lists_names_without_loading_them() -> None:
    listed = programs.run("""
        import sys, ataraxis
        assert "SharedMemoryArray" in dir(ataraxis)
        assert "ataraxis.shm" not in sys.modules
        try:
            ataraxis.nonsense
        except AttributeError as error:
            print(error)
        """)
    assert "nonsense" in listed


@pytest.mark.parametrize("name", ataraxis.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    value = getattr(ataraxis, name)
    if not (inspect.isclass(value) or callable(value)):
        return
    assert inspect.getdoc(value)
    if not inspect.isclass(value):
        return
    for member, thing in inspect.getmembers(value):
        is_own = not hasattr(object, member) and not member.startswith("_")
        if is_own and (callable(thing) or isinstance(thing, property)):
            assert inspect.getdoc(thing), f"{name}.{member} has no docstring"


# ---- errors

BUILT_IN = {
    "SegmentExists": (FileExistsError, RuntimeError),
    "SegmentNotFound": (FileNotFoundError, RuntimeError),
    "LayoutError": (ValueError,),
    "NotConnectedError": (ConnectionError, RuntimeError),
    "StaleSegment": (ConnectionError,),
    "LockRecovered": (RuntimeWarning,),
    "OwnerDied": (RuntimeError,),
    "DataOverflow": (IndexError,),
    "AlreadySent": (RuntimeError,),
    "ReleasedBuffer": (RuntimeError,),
    "EndOfStream": (EOFError,),
    "Lapped": (BufferError,),
    "FrameBufferTimeout": (TimeoutError,),
    "CorruptFrame": (ValueError,),
    "LoggerError": (ChildProcessError, RuntimeError),
    "ConfigError": (ValueError,),
    "RemoteError": (ConnectionError,),
    "ProcessorError": (RuntimeError,),
    "PipeError": (ExceptionGroup,),
    "LeaseLost": (RuntimeError,),
    "TooManyParticipants": (OSError,),
    "QueueFull": (queue.Full,),
    "QueueEmpty": (queue.Empty,),
}


def raised() -> dict[str, type[BaseException]]:
    found = inspect.getmembers(errors, inspect.isclass)
    return {n: c for n, c in found if issubclass(c, BaseException) and n[0] != "_"}


@pytest.mark.parametrize(("name", "parents"), BUILT_IN.items(), ids=BUILT_IN)
def test_an_error_is_ours_and_the_built_in_that_fits(
    name: str, parents: tuple[type[BaseException], ...]
) -> None:
    error = getattr(errors, name)
    assert issubclass(error, errors.AtaraxisError)
    for parent in parents:
        assert issubclass(error, parent)


def test_errors_has_every_error_of_the_design() -> None:
    assert set(raised()) >= {*BUILT_IN, "StreamExists", "StreamUnavailable"}
    assert all(error.__doc__ for error in raised().values())
    assert errors.StreamExists is errors.SegmentExists
    assert errors.StreamUnavailable is errors.SegmentNotFound


@pytest.mark.parametrize("name", BUILT_IN)
def test_an_error_survives_pickling(name: str) -> None:
    kind = getattr(errors, name)
    message = "what was asked; what was found"
    error = kind(message, [ValueError("x")]) if name == "PipeError" else kind(message)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert str(copy) == str(error)
    assert message in str(copy)
    assert kind.__doc__
