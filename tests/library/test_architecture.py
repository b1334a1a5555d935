"""Structure: import directions, sizes, stubs, docstrings, errors, a fast import."""

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
from places import ROOT

import ataraxis
from ataraxis import errors

HOUSE = ROOT / "ataraxis"
SOURCES = sorted(p for p in HOUSE.rglob("*") if p.suffix in (".py", ".pyx", ".pxd"))
# A subpackage imports only from floors below its own.
LEAVES = {"errors", "clock", "labels", "frame", "config", "card", "gpu"}
FLOORS = [
    {"_kernels"},
    LEAVES,
    {"shm"},
    {"stream", "framebuffer"},
    {"log"},
    {"datamux", "link"},
    {"pipeline"},
    {"cluster"},
    {"session"},
    {"viewer", "screen", "latency"},
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
    """Return the modules that a file imports or cimports, with the imported names."""
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
def test_no_module_takes_private_names_of_another(path: Path) -> None:
    package = name_of(path.parent).replace("/", ".")
    for module, names in ours(path):
        private = [n for n in names if n.startswith("_") and not n.startswith("__")]
        if private:
            assert module == package, f"{path.name} takes {private} of {module}"
        inside = [part for part in module.split(".") if part.startswith("_")]
        if inside and inside != ["_kernels"]:
            assert module.startswith(package), f"{path.name} reaches into {module}"


# ---- a file is one mechanism; exceptions are listed, and may only shrink

# A base class with one subclass: the class is spread, or the base has a reason.
ONE_SUBCLASS = {
    "ataraxis.datamux.recording.Recording": "public; the subclass reads in pieces",
    "ataraxis.frame._frame.Payload": "the constructor of Frame is uPipe's",
    "ataraxis.log.npy.package.Messages": "the dialect's names, kept out of LogArchive",
}
# Modules of fewer than 40 lines of code that one other imports.
SMALL = {
    "ataraxis.datamux.sinks.adapt": "knows every kind of sink, each knows only itself",
    "ataraxis.demo.detector": "what a user's own function looks like",
    "ataraxis.shm.attach": "knows every kind of segment, and each knows only itself",
    "ataraxis.viewer.recorded_widget": "what the widget of live streams does not load",
}

MODULES = {
    name_of(path).removesuffix(".py").replace("/", ".").removesuffix(".__init__"): path
    for path in SOURCES
    if path.suffix == ".py"
}
TREES = {m: ast.parse(p.read_text(encoding="utf-8")) for m, p in MODULES.items()}


def classes() -> Iterator[tuple[str, ast.ClassDef]]:
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                yield module, node


def base_names(module: str, node: ast.ClassDef) -> list[str]:
    """Dotted names of a class's bases, by the imports of its module."""
    taken = {}
    for other in ast.walk(TREES[module]):
        if isinstance(other, ast.ImportFrom):
            for alias in other.names:
                taken[alias.asname or alias.name] = f"{other.module}.{alias.name}"
    found = []
    for base in node.bases:
        name = base.value if isinstance(base, ast.Subscript) else base
        text = ast.unparse(name)
        found.append(taken.get(text, f"{module}.{text}"))
    return found


def made_itself() -> set[str]:
    """Return names that are called: such a class is instantiated itself."""
    return {
        ast.unparse(node.func).split(".")[-1]
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    }


def test_no_class_is_spread() -> None:
    """A base class has two subclasses, is instantiated itself, or is a contract."""
    subclasses: dict[str, set[str]] = {}
    bases: dict[str, list[str]] = {}
    for module, node in classes():
        bases[f"{module}.{node.name}"] = base_names(module, node)
        for base in base_names(module, node):
            subclasses.setdefault(base, set()).add(f"{module}.{node.name}")
    contracts = {"typing.Protocol", "abc.ABC"}
    made = made_itself()
    spread = {
        base
        for base, found in subclasses.items()
        if base in bases
        and len(found) == 1
        and not contracts & set(bases[base])
        and base.rpartition(".")[2] not in made
    }
    assert spread == set(ONE_SUBCLASS)


def circles() -> set[frozenset[str]]:
    """Return sets of modules that import each other, directly or not (Tarjan 1972)."""
    arrows: dict[str, set[str]] = {m: set() for m in MODULES}
    for module, path in MODULES.items():
        for other, names in ours(path):
            deeper = {f"{other}.{n}" for n in names} & MODULES.keys()
            arrows[module] |= deeper or ({other} & MODULES.keys())
        arrows[module].discard(module)
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: set[frozenset[str]] = set()

    def visit(module: str) -> None:
        number[module] = low[module] = len(number)
        stack.append(module)
        for other in arrows[module]:
            if other not in number:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], number[other])
        if low[module] == number[module]:
            ring = set()
            while module not in ring:
                ring.add(stack.pop())
            if len(ring) > 1:
                found.add(frozenset(ring))

    for module in arrows:
        if module not in number:
            visit(module)
    return found


def test_no_circle_in_a_room() -> None:
    assert circles() == set()


def lines_of_code(module: str) -> int:
    """Count lines other than blanks, comments, imports and docstrings."""
    tree, text = TREES[module], MODULES[module].read_text(encoding="utf-8")
    left_out: set[int] = set()
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_text or isinstance(node, ast.Import | ast.ImportFrom):
            left_out.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return sum(
        bool(line.strip()) and not line.lstrip().startswith("#")
        for number, line in enumerate(text.splitlines(), 1)
        if number not in left_out
    )


def test_small_files_say_why() -> None:
    importers: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        for other, names in ours(path):
            for target in ({f"{other}.{n}" for n in names} | {other}) & MODULES.keys():
                importers.setdefault(target, set()).add(module)
    small = {
        module
        for module, path in MODULES.items()
        if path.name != "__init__.py"
        and len(importers.get(module, ())) == 1
        and lines_of_code(module) < 40
    }
    assert small == set(SMALL)
    assert all(SMALL.values())


def test_a_word_means_one_thing() -> None:
    places: dict[str, set[str]] = {}
    for module, node in classes():
        places.setdefault(node.name, set()).add(module)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_a_name_is_bound_once_in_a_module() -> None:
    """A constant that a second one hides has another value than its reader expects."""
    twice = []
    for module, tree in TREES.items():
        bound: set[str] = set()
        for node in tree.body:
            names = []
            if isinstance(node, ast.Assign):
                names = [n.id for n in node.targets if isinstance(n, ast.Name)]
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names = [node.target.id]
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                names = [] if node.decorator_list else [node.name]
            twice += [f"{module}.{name}" for name in names if name in bound]
            bound |= set(names)
    assert twice == []


def test_no_module_hides_a_public_name() -> None:
    """``pipeline.processor`` is the decorator, whatever was imported before."""
    report = programs.run("""
        import importlib, pkgutil, types, ataraxis
        for found in pkgutil.walk_packages(ataraxis.__path__, "ataraxis."):
            left_out = (".__main__", "testing", "pyinstaller")
            if not any(part in found.name for part in left_out):
                importlib.import_module(found.name)
        import sys
        for name, package in sorted(sys.modules.items()):
            if name.split(".")[0] == "ataraxis" and hasattr(package, "__path__"):
                for public in getattr(package, "__all__", ()):
                    if isinstance(getattr(package, public), types.ModuleType):
                        print(f"{name}.{public}")
        """)
    # Module names of the original libraries.
    assert report.split() == ["ataraxis.datamux.util", "ataraxis.pipeline.types"]


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
    "AmbiguousMatch": (ValueError,),
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
