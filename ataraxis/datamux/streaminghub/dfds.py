"""DFDS metadata: the JSON files of StreamingHub, read and checked.

Errors name file and key. ``{"@ref": "file.json#/part"}`` is followed within the folder,
never over a network.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import math
import posixpath
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from ataraxis.config.limits import FILES
from ataraxis.datamux.description import DTYPES, Collection, Field, Node, Stream
from ataraxis.datamux.folder import Folder
from ataraxis.errors import ConfigError

T = TypeVar("T")
D = TypeVar("D", Collection, Node)
_DEPTH = 16
_SAMPLE = 2**28  # values
_IGNORED = {"$schema", "$id", "@id"}


def read_json(kind: type[T], path: Path, folder: Folder | None = None) -> T:
    """Read a `Collection`, `Node` or `Stream`, as `kind` is, from a DFDS file.

    `path` is the file, JSON; its name, if `folder` is given. Raises `OSError`; or
    `ConfigError` with file, key, what was expected and found.
    """
    path = Path(path)
    where = Folder(path.parent) if folder is None else folder
    read = _References(where)
    return build(kind, read.load(path.name, 0), where.shown(path.name), "")


def build(
    kind: type[T], data: Any, file: str, key: str, *, is_checked: bool = True
) -> T:
    """Return an instance of a dataclass of `description` from parsed JSON.

    Types are checked; values too if `is_checked`.
    """
    if not isinstance(data, dict):
        raise _misfit(file, key, "an object {...}", data)
    hints = _hints(typing.cast(typing.Hashable, kind))
    unknown = [k for k in data if k not in hints and k not in _IGNORED]
    for name in unknown:
        close = difflib.get_close_matches(name, hints, 1)
        raise ConfigError(
            f"{file}: {_join(key, name)}: unknown key"
            + (f" (did you mean {close[0]!r}?)" if close else f"; known: {[*hints]}")
        )
    values = {
        name: _value(hints[name], value, file, _join(key, name), is_checked)
        for name, value in data.items()
        if name not in _IGNORED
    }
    made = kind(**values)
    if is_checked:
        check(made, file, key)
    return made


def check(made: Any, file: str, key: str = "") -> None:
    """Raise `ConfigError` if values of an instance of `description` are invalid.

    It names file, key, what was expected and what was found.
    """
    if isinstance(made, Field):
        if made.dtype not in DTYPES:
            expected = f"one of {', '.join(DTYPES)}"
            raise _misfit(file, _join(key, "dtype"), expected, made.dtype)
        if any(extent < 1 for extent in made.shape):
            raise _misfit(file, _join(key, "shape"), "extents of 1 or more", made.shape)
        if len(made.shape) > 8 or math.prod(made.shape) > _SAMPLE:
            expected = f"at most 8 extents and {_SAMPLE} values per sample"
            raise _misfit(file, _join(key, "shape"), expected, made.shape)
    elif isinstance(made, Stream):
        rate = made.frequency
        if rate is not None and not 0 <= rate < float("inf"):
            raise _misfit(
                file, _join(key, "frequency"), "a number of 0 or more (Hz)", rate
            )
        if not 1 <= len(made.fields) <= FILES.columns:
            expected = f"at least one field, at most {FILES.columns}"
            raise _misfit(file, _join(key, "fields"), expected, len(made.fields))
    elif isinstance(made, Collection):
        if "://" not in made.pattern:
            expected = "a pattern such as 'csv://{subject}_{task}'"
            raise _misfit(file, _join(key, "pattern"), expected, made.pattern)
        if not made.name or "/" in made.name or made.name in (".", ".."):
            raise _misfit(file, _join(key, "name"), "the name of a folder", made.name)
        if not 1 <= len(made.streams) <= FILES.streams:
            expected = f"at least one stream, at most {FILES.streams}"
            raise _misfit(file, _join(key, "streams"), expected, len(made.streams))


def check_all(made: Any, file: str) -> None:
    """Check a `Collection` or `Node` read from YAML, and its parts."""
    for name in ("streams", "outputs", "inputs"):
        for stream_id, stream in getattr(made, name, {}).items():
            key = f"{name}.{stream_id}"
            for side in ("fields", "index"):
                for column, item in getattr(stream, side).items():
                    check(item, file, f"{key}.{side}.{column}")
            check(stream, file, key)
    check(made, file)


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    if not dataclasses.is_dataclass(kind):
        raise TypeError(f"{kind!r} is not a description")
    return typing.get_type_hints(kind)


def _value(hint: Any, value: Any, file: str, key: str, is_checked: bool) -> Any:
    """Return a JSON value checked against the annotation of its field."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return _value(
            next(a for a in arguments if a is not type(None)),
            value, file, key, is_checked,
        )  # fmt: skip
    if origin is dict:
        if not isinstance(value, dict):
            raise _misfit(file, key, "an object {...}", value)
        return {
            k: _value(arguments[1], v, file, _join(key, k), is_checked)
            for k, v in value.items()
        }
    if origin in (list, tuple):
        if not isinstance(value, list):
            raise _misfit(file, key, "a list [...]", value)
        items = [
            _value(arguments[0], v, file, f"{key}[{i}]", is_checked)
            for i, v in enumerate(value)
        ]
        return items if origin is list else tuple(items)
    if dataclasses.is_dataclass(hint):
        return build(
            typing.cast("type[Any]", hint), value, file, key, is_checked=is_checked
        )
    if hint is float and isinstance(value, (int, float)) and value is not True:
        return value  # an integer rate stays an integer
    if type(value) is not hint:
        raise _misfit(
            file, key, {"str": "text"}.get(hint.__name__, hint.__name__), value
        )
    return value


def _misfit(file: str, key: str, expected: str, found: Any) -> ConfigError:
    text = repr(found)
    shown = text if len(text) < 60 else f"{text[:57]}..."
    return ConfigError(
        f"{file}: {key or 'the file'}: expected {expected}, found {shown}"
    )


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


# ---- files and references


class _References:
    """Reads a file and those it refers to, in one folder, up to a limit.

    Each file is parsed once.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._parsed: dict[str, Any] = {}
        self._left = FILES.references

    def load(self, name: str, depth: int, fragment: str = "") -> Any:
        """Return a file, or a part of it, with references resolved."""
        if name not in self._parsed:
            self._parsed[name] = read_text_json(self._folder, name)
        data = self._parsed[name]
        shown = self._folder.shown(name)
        for part in filter(None, fragment.split("/")):
            if not isinstance(data, dict) or part not in data:
                raise ConfigError(
                    f"{shown}: '#{fragment}' is referred to, {part!r} is missing"
                )
            data = data[part]
        return self._followed(data, name, depth)

    def _followed(self, data: Any, name: str, depth: int) -> Any:
        """Replace each reference by its target."""
        if not isinstance(data, dict):
            return data
        if set(data) != {"@ref"}:
            return {k: self._followed(value, name, depth) for k, value in data.items()}
        target, shown = data["@ref"], self._folder.shown(name)
        if not isinstance(target, str) or "://" in target.replace("file://", ""):
            raise ConfigError(
                f"{shown}: @ref {str(target)[:200]!r}: only files are followed; keep a "
                "copy beside it"
            )
        if depth >= _DEPTH:
            raise ConfigError(
                f"{shown}: @ref {target!r}: nested {_DEPTH} deep, perhaps a circle"
            )
        self._left -= 1
        if self._left < 0:
            raise ConfigError(
                f"{shown}: @ref {target!r}: more than {FILES.references} references"
            )
        other, _, fragment = target.removeprefix("file://").partition("#")
        folder = name.rpartition("/")[0]
        other = posixpath.normpath(posixpath.join(folder, other)) if other else name
        if other.startswith(("/", "..")) or "\0" in other:
            raise ConfigError(
                f"{shown}: @ref {target[:200]!r}: leads out of the folder; keep a copy "
                "in it"
            )
        if not self._folder.is_there(other):
            raise ConfigError(
                f"{shown}: @ref {target!r}: missing file {self._folder.shown(other)}"
            )
        found = self.load(other, depth + 1, fragment)
        # As in StreamingHub: a reference to a whole node means its device.
        if isinstance(found, dict) and "device" in found and not fragment:
            return {"device": found["device"]}
        return found


def read_text_json(folder: Folder, name: str) -> Any:
    """Read a file of JSON; raise `ConfigError` if it is not, or too long."""
    with folder.opened(name) as opened:
        shown = opened.shown
        if opened.size > FILES.text_bytes:
            raise ConfigError(
                f"{shown}: {opened.size} bytes, at most {FILES.text_bytes} are read"
            )
        try:
            text = opened.file.read(FILES.text_bytes + 1).decode("utf-8-sig")
            return json.loads(text, parse_int=_whole)
        except UnicodeDecodeError as error:
            raise ConfigError(f"{shown}: not UTF-8 text: {error}") from error
        except json.JSONDecodeError as error:
            raise ConfigError(
                f"{shown}:{error.lineno}: not JSON: {error.msg}, column {error.colno}"
            ) from error
        except RecursionError as error:
            raise ConfigError(f"{shown}: not metadata: nested too deeply") from error
        except ValueError as error:
            raise ConfigError(f"{shown}: not metadata: {error}") from error


def _whole(text: str) -> int:
    if len(text) > FILES.digits:
        raise ValueError(
            f"a number of {len(text)} digits, at most {FILES.digits} are read"
        )
    return int(text)


def read_node(path: Path, folder: Folder | None = None) -> Node:
    """Read a node from DFDS JSON or YAML; its id defaults to the file's stem."""
    path = Path(path)
    node = read_description(Node, path.name, folder or Folder(path.parent))
    node.id = node.id or path.name.split(".")[0]
    return node


def read_description(kind: type[D], name: str, folder: Folder) -> D:
    """Read a `Collection` or `Node` from DFDS JSON or YAML of a folder."""
    if name.endswith(".json"):
        return read_json(kind, Path(name), folder)
    with folder.opened(name) as opened:
        made = kind.from_yaml(Path(opened.path))
        check_all(made, opened.shown)
    return made
