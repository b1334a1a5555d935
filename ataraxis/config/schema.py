"""The fields of a dataclass, their types, and the names of types in messages."""

from __future__ import annotations

import builtins
import dataclasses
import sys
import types
import typing
from collections import abc
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ataraxis.config.node import ConfigProblem, config_error

NoneType = type(None)
# Abstract annotations are read as the plain container.
_PLAIN_CONTAINER: dict[Any, Any] = {
    abc.Sequence: list,
    abc.MutableSequence: list,
    abc.Mapping: dict,
    abc.MutableMapping: dict,
    abc.Set: frozenset,
    abc.MutableSet: set,
}


@dataclass(frozen=True, slots=True)
class FieldSchema:
    """One field of a dataclass, as YAML sees it."""

    name: str
    type: Any
    required: bool
    init: bool
    excluded: bool
    remark: str


@lru_cache(maxsize=512)
def fields_of(cls: type) -> dict[str, FieldSchema]:
    """List the fields of a dataclass with their resolved types."""
    try:
        hints = _hints_of(cls)
    except NameError as error:
        problem = ConfigProblem(
            cls.__qualname__,
            None,
            "",
            "annotations that can be resolved",
            f"the unknown name {error.name!r}",
            "define the class and its types at the top level of a module",
        )
        raise config_error("the dataclass cannot be used", [problem]) from error
    return {
        field.name: _field_schema(field, _unshadowed(cls, field, hints[field.name]))
        for field in dataclasses.fields(cls)
    }


def _hints_of(cls: type) -> dict[str, Any]:
    """Resolve the annotations of a class, each in its own module.

    A name that is also a field's refers to the module, not to the field's default.
    """
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        notes = vars(base).get("__annotations__", {})
        names = {name: item for name, item in vars(base).items() if name not in notes}
        body = {"__annotations__": notes, "__module__": base.__module__}
        hints |= typing.get_type_hints(type(base.__name__, (), body), localns=names)
    return hints


def _unshadowed(cls: type, field: dataclasses.Field[Any], hint: Any) -> Any:
    """Return the type of ``list: list = ...``, where a field hides the type's name.

    Python evaluates the annotation after the default, so it is the default there and in
    the fields after it.
    """
    hiding = hint if isinstance(hint, dataclasses.Field) else None
    if hiding is None and hint is not None and not isinstance(hint, type):
        fields = dataclasses.fields(cls)
        hiding = next((one for one in fields if one.default is hint), None)
    if hiding is None:
        return hint
    defining = next(
        b for b in cls.__mro__ if field.name in vars(b).get("__annotations__", {})
    )
    names = vars(sys.modules.get(defining.__module__, builtins))
    return names.get(hiding.name, vars(builtins).get(hiding.name, hint))


def _field_schema(field: dataclasses.Field[Any], hint: Any) -> FieldSchema:
    missing = dataclasses.MISSING
    if field.default is None and NoneType not in members(hint):
        hint = typing.Optional[hint]  # noqa: UP045 - hint is a value here
    units, text = field.metadata.get("units"), field.metadata.get("help")
    marked = [f"[{units}]"] if units else []
    return FieldSchema(
        name=field.name,
        type=hint,
        required=(
            field.init and field.default is missing and field.default_factory is missing
        ),
        init=field.init,
        excluded=bool(field.metadata.get("yaml_exclude")),
        remark=" ".join(marked + ([str(text)] if text else [])),
    )


def unwrap(annotation: Any) -> Any:
    """Return the type inside Annotated, NewType, Final and aliases."""
    while True:
        origin = typing.get_origin(annotation)
        if origin is typing.Annotated or origin is typing.Final:
            annotation = typing.get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        elif type(origin).__name__ == "TypeAliasType":  # NDArray is one in new numpy
            annotation = origin.__value__[typing.get_args(annotation)]
        elif isinstance(annotation, typing.TypeVar):
            annotation = annotation.__bound__ or Any
        elif annotation is None:
            return NoneType
        else:
            return annotation


def members(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, flat; another type is its only member."""
    annotation = unwrap(annotation)
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return (annotation,)
    parts = [members(part) for part in typing.get_args(annotation)]
    return tuple(dict.fromkeys(member for part in parts for member in part))


def container_of(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """Split ``dict[str, int]`` into ``dict`` and its arguments."""
    origin = typing.get_origin(annotation) or annotation
    if isinstance(origin, type):
        origin = _PLAIN_CONTAINER.get(origin, origin)
    return origin, typing.get_args(annotation)


def is_any_tuple(annotation: Any) -> bool:
    """Return whether it is a bare ``tuple``; ``tuple[()]`` has no arguments either."""
    return annotation is tuple or annotation is typing.Tuple  # noqa: UP006


def is_dataclass_type(annotation: Any) -> bool:
    """Return whether the annotation is a dataclass."""
    return isinstance(annotation, type) and dataclasses.is_dataclass(annotation)


def require_dataclass(cls: type) -> None:
    """Raise `TypeError` for a subclass of YamlConfig that is not a dataclass."""
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"{cls.__name__} is not a dataclass: decorate it")


def is_numpy(annotation: Any) -> bool:
    """Return whether a type is numpy's, without importing numpy."""
    numpy = sys.modules.get("numpy")
    origin = typing.get_origin(annotation) or annotation
    return (
        numpy is not None
        and isinstance(origin, type)
        and issubclass(origin, (numpy.generic, numpy.ndarray, numpy.dtype))
    )


def type_name(annotation: Any) -> str:
    """Return the name of a type as it is written in code."""
    annotation = unwrap(annotation)
    if annotation is NoneType:
        return "null"
    if annotation is Any or annotation is object:
        return "any plain value"
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(type_name, members(annotation)))
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if annotation is ...:
        return "..."
    if is_numpy(annotation) and origin is not None:
        return f"{origin.__name__} of {_array_dtype_name(arguments)}"
    name = getattr(origin or annotation, "__name__", str(annotation))
    if origin is None or not arguments:
        return str(name)
    return f"{name}[{', '.join(map(type_name, arguments))}]"


def _array_dtype_name(arguments: tuple[Any, ...]) -> str:
    """Return the name of the element type of ``NDArray[np.float32]``."""
    inner = typing.get_args(arguments[-1]) or (arguments[-1],)
    return str(getattr(inner[0], "__name__", inner[0]))
