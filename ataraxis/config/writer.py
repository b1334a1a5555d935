"""Writing: values and annotations to nodes, or the problems that forbid it.

What a reader would not take back as the same value is refused here, so that a file
that was written can always be read.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_origin

from ataraxis.config import choice, leaf, literal
from ataraxis.config.construction import Draft
from ataraxis.config.node import Mapping, Node, Scalar, Sequence, fingerprint
from ataraxis.config.problem import ConfigProblem, shown
from ataraxis.config.reader import Reader, Settings
from ataraxis.config.schema import (
    FieldSchema,
    NoneType,
    container_of,
    fields_of,
    is_any_tuple,
    is_dataclass_type,
    is_numpy,
    members,
    type_name,
    unwrap,
)

_UNTYPED = (NoneType, bool, int, float, str, bytes, dt.datetime, dt.date)
_DEEPEST = 90


class Writer:
    """Makes nodes of values; `problems` says what YAML cannot hold.

    Parameters
    ----------
    path : Path
        The file, for messages.
    exact : bool
        Refuse even an int for a float; unions choose by it.
    depth : int
        How deep in the document the writer begins.
    """

    def __init__(self, path: Path, exact: bool = False, depth: int = 0) -> None:
        self.path = path
        self.exact = exact
        self.problems: list[ConfigProblem] = []
        self._depth = depth

    def trial(self, exact: bool) -> Writer:
        """Make a writer whose problems count for nothing."""
        return Writer(self.path, exact or self.exact, self._depth)

    def checker(self) -> Reader:
        """Make a reader that builds nothing."""
        return Reader(Settings(self.path, build=False))

    def write(self, value: Any, annotation: Any, field: str = "") -> Node | None:
        """Write a value as a type; ``None`` when it does not fit."""
        self._depth += 1
        if self._depth > _DEEPEST:
            node = self.refuse(value, field, f"at most {_DEEPEST} levels of nesting")
        else:
            alternatives = members(annotation)
            if len(alternatives) > 1:
                from ataraxis.config.union import write_union

                node = write_union(self, value, alternatives, field)
            else:
                node = self.write_member(value, alternatives[0], field)
        self._depth -= 1
        if node is not None:
            node.schema = annotation
        return node

    def write_member(self, value: Any, annotation: Any, field: str) -> Node | None:
        """Write a value as a type that is no union."""
        annotation = unwrap(annotation)
        node: Node | None = None
        if annotation is Any or annotation is object:
            return self._untyped(value, field)
        origin, arguments = container_of(annotation)
        if get_origin(annotation) is Literal:
            node = choice.write_literal(value, annotation)
        elif is_dataclass_type(annotation):
            if self.is_of(value, annotation):
                return self._dataclass(value, annotation, field)
        elif is_numpy(annotation):
            from ataraxis.config.array import write_numpy

            return write_numpy(self, value, annotation, field)
        elif origin in (dict, OrderedDict, tuple, list, set, frozenset):
            if type(value) is origin:
                return self._container(value, origin, arguments, annotation, field)
        elif isinstance(annotation, type) and issubclass(annotation, enum.Enum):
            node = choice.write_enum(value, annotation)
        elif leaf.is_leaf(annotation):
            node = leaf.write_leaf(value, annotation, self.exact)
        else:
            hint = "YAML cannot hold it; mark the field with YAML_EXCLUDE_METADATA"
            return self.refuse(value, field, "a type that can be written", hint)
        return (
            self.refuse(value, field, type_name(annotation)) if node is None else node
        )

    def refuse(
        self, value: Any, field: str, expected: str, hint: str = ""
    ) -> Node | None:
        """Note a value that cannot be written."""
        found = f"{type(value).__name__} {shown(value)}"
        self.problems.append(
            ConfigProblem(str(self.path), None, field, expected, found, hint)
        )
        return None

    def is_of(self, value: Any, cls: type) -> bool:
        """Tell whether a value is an instance of the class itself, or stands for one.

        A subclass would come back as the class that the annotation names.
        """
        return (value.cls if isinstance(value, Draft) else type(value)) is cls

    def _dataclass(self, value: Any, cls: type, field: str) -> Mapping | None:
        node = Mapping()
        before = len(self.problems)
        for schema in fields_of(cls).values():
            if schema.excluded:
                continue
            place = f"{field}.{schema.name}" if field else schema.name
            if isinstance(value, Draft):
                if schema.name not in value.values:
                    continue
                item = value.values[schema.name]
            elif not hasattr(value, schema.name):
                self.refuse(None, place, type_name(schema.type), "it was never set")
                continue
            else:
                item = getattr(value, schema.name)
            written = self.write(item, schema.type, place)
            if written is not None:
                node.pairs.append((_field_key(schema), written))
        return node if len(self.problems) == before else None

    def _container(
        self,
        value: Any,
        origin: Any,
        arguments: tuple[Any, ...],
        annotation: Any,
        field: str,
    ) -> Node | None:
        if origin in (dict, OrderedDict):
            return self._dict(value, arguments or (Any, Any), field, origin)
        if origin is not tuple:
            node = self._items(value, arguments[0] if arguments else Any, field)
            if node is not None and origin is not list:
                node.items.sort(key=_sort_key)
            return node
        if is_any_tuple(annotation):
            return self._items(value, Any, field)
        if len(arguments) == 2 and arguments[1] is ...:
            return self._items(value, arguments[0], field)
        if len(arguments) != len(value):
            expected = f"{type_name(annotation)} ({len(arguments)} items)"
            self.refuse(value, field, expected)
            return None
        return self._items(value, arguments, field)

    def _items(self, values: Iterable[Any], kinds: Any, field: str) -> Sequence | None:
        node = Sequence()
        before = len(self.problems)
        for index, item in enumerate(values):
            kind = kinds[index] if isinstance(kinds, tuple) else kinds
            written = self.write(item, kind, f"{field}[{index}]")
            if written is not None:
                node.items.append(written)
        return node if len(self.problems) == before else None

    def _dict(
        self, value: dict[Any, Any], kinds: tuple[Any, ...], field: str, origin: Any
    ) -> Mapping | None:
        node = Mapping(ordered=origin is OrderedDict)
        before = len(self.problems)
        seen = set()
        for key, item in value.items():
            place = f"{field}[{shown(key)}]"
            key_node = self.write(key, kinds[0], place)
            item_node = self.write(item, kinds[1], place)
            if key_node is None or item_node is None:
                continue
            if (mark := fingerprint(key_node)) in seen:
                self.refuse(key, place, "keys that differ in the file")
            seen.add(mark)
            node.pairs.append((key_node, item_node))
        return node if len(self.problems) == before else None

    def _untyped(self, value: Any, field: str) -> Node | None:
        """Write a value for ``Any``: only what YAML itself tells apart."""
        if type(value) in (list, dict):
            return self._container(value, type(value), (), type(value), field)
        if type(value) in _UNTYPED:
            return leaf.write_leaf(value, type(value), exact=True)
        hint = "annotate the field with its type"
        return self.refuse(value, field, "a plain value", hint)


def _field_key(schema: FieldSchema) -> Scalar:
    return Scalar(text=schema.name, remark=schema.remark)


def _sort_key(item: Node) -> tuple[int, int, str]:
    """Order the items of a set, so that equal sets make equal files."""
    if isinstance(item, Scalar) and item.kind == "int":
        return (0, literal.parse_int(item.text), "")
    return (1, 0, repr(_ordered_mark(fingerprint(item))))


def _ordered_mark(mark: Any) -> Any:
    """Sort what is unordered in a fingerprint."""
    if isinstance(mark, frozenset):
        return sorted(map(_ordered_mark, mark), key=repr)
    return tuple(map(_ordered_mark, mark)) if isinstance(mark, tuple) else mark
