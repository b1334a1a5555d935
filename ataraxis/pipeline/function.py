"""A processor's function: its kind, and how it travels to its workers.

A function that a worker can import travels as ``module:name``. One of ``__main__``, of
a notebook cell or inside another function travels by cloudpickle, only from the user's
program to the processes that it starts.
"""

from __future__ import annotations

import base64
import importlib
import inspect
import io
import linecache
import os
import runpy
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType
from typing import Any, Literal, TypeAlias, get_args

from ataraxis.errors import AccessDenied

Kind: TypeAlias = Literal["dialect", "source", "map", "script"]


@dataclass(frozen=True)
class Code:
    """The code that a worker runs, in a form that travels."""

    kind: Kind
    """'dialect': it gets and emits itself; 'source': it yields values; 'map': it takes
    a value and returns a result; 'script': a file."""
    name: str = ""
    """``module:qualname``, if it can be imported."""
    pickle: bytes = b""
    """The function by cloudpickle, if it cannot be imported."""
    entry: str = ""
    """Path of the script."""

    def load(self, *, is_own: bool = False) -> Any:
        """Return the function, in the worker.

        With `is_own`, `AccessDenied` is raised for a function that its module only
        imports: ``module:subprocess.run`` is not a function of the module.
        """
        if self.kind == "script":
            return lambda: runpy.run_path(self.entry, run_name="__main__")
        if self.name:
            found = _named(self.name)
            if is_own and not self.pickle and name_of(found) != self.name:
                raise AccessDenied(
                    f"{self.name!r} is not defined in its module, which only imports "
                    "it: a host of 'modules:' runs functions of these modules alone"
                )
            return found
        import pickle

        return pickle.loads(self.pickle)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that are given, for JSON."""
        found: dict[str, Any] = {"kind": self.kind}
        if self.name:
            found["function"] = self.name
        if self.entry:
            found["entry"] = self.entry
        if self.pickle:
            found["pickle"] = base64.b64encode(self.pickle).decode()
        return found

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Code:
        """Return the code of which `as_dict` has returned the fields.

        Raises
        ------
        ValueError
            The fields are not those of a code.
        """
        kind: Any = fields.get("kind")
        texts = [fields.get(name, "") for name in ("function", "entry", "pickle")]
        if kind not in get_args(Kind) or not all(isinstance(t, str) for t in texts):
            raise ValueError(f"expected the code of a processor, got {fields!r:.200}")
        function, entry, pickle = texts
        return cls(kind, function, base64.b64decode(pickle), entry)


def kind_of(function: Any) -> Kind:
    """Return the kind of a function, by its parameters.

    Raises
    ------
    TypeError
        It is neither a function nor a class with ``process``.
    """
    target, skipped = function, 0
    if not inspect.isroutine(function) and hasattr(function, "process"):
        target = function.process
        skipped = int(inspect.isclass(function) and not _is_bound(function))
    if not callable(target):
        raise TypeError(
            f"func must be a function or a class with process(self, value), got "
            f"{function!r}"
        )
    try:
        parameters = list(inspect.signature(target).parameters.values())[skipped:]
    except (TypeError, ValueError):
        return "map"
    takes = [
        p
        for p in parameters
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)
        and p.name not in ("context", "overlap")
    ]
    if takes:
        return "map"
    if inspect.isgeneratorfunction(target) or inspect.isasyncgenfunction(target):
        return "source"
    if target is not function:
        raise TypeError(f"process(self, value) of {function!r} must take a value")
    return "dialect"


def _is_bound(cls: Any) -> bool:
    """Return whether ``process`` of a class is static, or a class method."""
    return isinstance(
        inspect.getattr_static(cls, "process"), (staticmethod, classmethod)
    )


def code_of(function: Any, entry: str | None) -> Code:
    """Return a function, or the script `entry`, in the form that travels."""
    if entry is not None:
        return Code("script", entry=str(entry))
    kind = kind_of(function)
    name = name_of(function)
    if name:
        return Code(kind, name)
    return Code(kind, pickle=_pickled(function))


def _pickled(function: Any) -> bytes:
    """Pickle a function by value, with the names and text of its source files.

    cloudpickle drops the file of a code object, so a traceback would show no line.
    """
    try:
        import cloudpickle  # type: ignore[import-untyped]
    except ImportError:
        raise ImportError(
            f"the worker cannot import {function!r}, since it is in the main program, "
            "a notebook or another function: pip install 'cloudpickle>=3', or move it "
            "to a module"
        ) from None
    table = cloudpickle.Pickler.dispatch_table
    reduce_code: Callable[[CodeType], Any] = table[CodeType]
    sources: dict[str, tuple[str, str]] = {}

    def reduce(code: CodeType) -> Any:
        make, arguments, *rest = reduce_code(code)
        known = sources.get(code.co_filename)
        if known is None:
            known = sources[code.co_filename] = _source_of(code.co_filename)
        return (located, (*known, make, arguments), *rest)

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        dispatch_table = table.new_child({CodeType: reduce})

    buffer = io.BytesIO()
    Pickler(buffer).dump(function)
    return buffer.getvalue()


def _source_of(name: str) -> tuple[str, str]:
    """Return the absolute name of a source file, and its text if it is not on disk."""
    if os.path.exists(name):
        return os.path.abspath(name), ""
    return name, "".join(linecache.getlines(name))


def located(
    name: str, text: str, make: Callable[..., CodeType], arguments: tuple[Any, ...]
) -> CodeType:
    """Make the code object in the worker, and register its source for tracebacks."""
    if text and name not in linecache.cache:
        # Without a modification time, so that no file on disk replaces it.
        linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    return make(*arguments).replace(co_filename=name)


def name_of(function: Any) -> str:
    """Return ``module:qualname`` if that leads to the same function, or ''."""
    module = getattr(function, "__module__", None)
    qualname = getattr(function, "__qualname__", None)
    if not module or not qualname or module == "__main__" or "<" in qualname:
        return ""
    name = f"{module}:{qualname}"
    try:
        return name if _named(name) is function else ""
    except (ImportError, AttributeError):
        return ""


def _named(name: str) -> Any:
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    # `@processor` replaces a function by a `Processor`.
    return getattr(found, "undecorated", found)
