"""Reading: nodes and annotations to values, with every problem noted, none raised.

A value is taken for what the file says or refused; nothing is converted silently.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_origin

from ataraxis.config import choice, construction, leaf
from ataraxis.config.node import Alias, Mapping, Node, Scalar, Sequence
from ataraxis.config.problem import ConfigProblem
from ataraxis.config.schema import (
    container_of,
    is_any_tuple,
    is_dataclass_type,
    is_numpy,
    members,
    type_name,
    unwrap,
)

# Nodes read through aliases: a small file must not become a large value.
_ALIAS_BUDGET = 100_000


class Unread:
    """What stands for a value that could not be read."""


UNREAD = Unread()


@dataclass(slots=True)
class Settings:
    """How a file is read.

    `exact` refuses even 1 for a float (unions choose by it); `lax` keeps what does
    not fit and warns; `build` makes the dataclasses, else stand-ins that run no code.
    """

    path: Path
    dialect: str = "1.2"
    exact: bool = False
    lax: bool = False
    build: bool = True


class Reader:
    """Reads nodes as types; `problems` says what did not fit.

    Parameters
    ----------
    settings : Settings
        How to read.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.problems: list[ConfigProblem] = []
        self.warnings: list[ConfigProblem] = []
        self.failure: Exception | None = None
        self._through_aliases = 0
        self._aliases_open = 0

    def read(self, node: Node, annotation: Any, field: str = "") -> Any:
        """Read a node as a type; `UNREAD` when it does not fit."""
        if isinstance(node, Alias):
            self._aliases_open += 1
            value = self.read(node.target, annotation, field)
            self._aliases_open -= 1
            return value
        if self._aliases_open:
            self._through_aliases += 1
            if self._through_aliases > _ALIAS_BUDGET:
                if self._through_aliases == _ALIAS_BUDGET + 1:
                    self.refuse(node, field, "a smaller file", "too many aliases")
                return UNREAD
        annotation = unwrap(annotation)
        alternatives = members(annotation)
        if len(alternatives) > 1:
            from ataraxis.config.union import read_union

            return read_union(self, node, alternatives, field)
        if node.tag and not (node.tag == "!!set" and _is_set(annotation)):
            return self.refuse(
                node, field, type_name(annotation), f"tag '{node.tag}'", "remove it"
            )
        return self.read_member(node, annotation, field)

    def read_member(self, node: Node, annotation: Any, field: str) -> Any:
        """Read a node as a type that is no union, whatever its tag."""
        if annotation is Any or annotation is object:
            return self._untyped(node, field)
        if get_origin(annotation) is Literal:
            return self._choice(node, annotation, field, choice.read_literal)
        if is_dataclass_type(annotation):
            return construction.read_dataclass(self, node, annotation, field)
        if is_numpy(annotation):
            from ataraxis.config.array import read_numpy

            return read_numpy(self, node, annotation, field)
        origin, arguments = container_of(annotation)
        if origin in (dict, OrderedDict):
            return self._dict(node, annotation, field, origin, arguments)
        if origin is tuple:
            return self._tuple(node, annotation, field, arguments)
        if origin in (list, set, frozenset):
            return self._items(node, annotation, field, origin, arguments)
        if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
            return self._choice(node, annotation, field, choice.read_enum)
        if leaf.is_leaf(annotation):
            return self._leaf(node, annotation, field)
        hint = "YAML cannot hold it; mark the field with YAML_EXCLUDE_METADATA"
        return self.refuse(
            node, field, "a type that can be read", type_name(annotation), hint
        )

    def refuse(
        self,
        node: Node,
        field: str,
        expected: str,
        found: str | None = None,
        hint: str = "",
    ) -> Any:
        """Note a problem; reading goes on with the next value."""
        problem = ConfigProblem(
            str(self.settings.path),
            node.line or None,
            field,
            expected,
            described(node) if found is None else found,
            hint,
        )
        if self.settings.lax and found is None:
            return self.keep(node, field, problem)
        self.problems.append(problem)
        return UNREAD

    def keep(self, node: Node, field: str, problem: ConfigProblem) -> Any:
        """Take a value that does not fit as it stands, as the originals did."""
        before = len(self.problems)
        value = self._untyped(node, field)
        if value is not UNREAD and len(self.problems) == before:
            self.warnings.append(problem)
        return value

    def _leaf(self, node: Node, annotation: Any, field: str) -> Any:
        settings = self.settings
        hint = ""
        if isinstance(node, Scalar):
            try:
                return leaf.read_leaf(
                    node, annotation, settings.exact, settings.dialect
                )
            except leaf.Mismatch as mismatch:
                hint = mismatch.hint
            if settings.lax:
                from ataraxis.config.leniency import read_leniently

                found = read_leniently(node, annotation, settings.dialect)
                if found is not None:
                    self._warn(node, field, type_name(annotation))
                    return found
        return self.refuse(node, field, type_name(annotation), hint=hint)

    def _warn(self, node: Node, field: str, expected: str) -> None:
        self.warnings.append(
            ConfigProblem(
                str(self.settings.path), node.line, field, expected, described(node)
            )
        )

    def _choice(self, node: Node, annotation: Any, field: str, read: Any) -> Any:
        try:
            return read(node, annotation, self.settings.dialect)
        except leaf.Mismatch as mismatch:
            return self.refuse(node, field, mismatch.expected, hint=mismatch.hint)

    def _items(
        self,
        node: Node,
        annotation: Any,
        field: str,
        origin: Any,
        arguments: tuple[Any, ...],
    ) -> Any:
        """Read a list or a set."""
        item_type = arguments[0] if arguments else Any
        items = _items_of(node)
        if items is None:
            return self.refuse(node, field, type_name(annotation))
        values = [
            self.read(item, item_type, f"{field}[{index}]")
            for index, item in enumerate(items)
        ]
        if UNREAD in values_by_identity(values):
            return UNREAD
        if origin is list:
            return values
        try:
            unique = origin(values)
        except TypeError:
            return self.refuse(node, field, type_name(annotation), "unhashable items")
        if len(unique) < len(values) and not self.settings.lax:
            return self.refuse(node, field, "each item once", "a duplicate item")
        return unique

    def _tuple(
        self, node: Node, annotation: Any, field: str, arguments: tuple[Any, ...]
    ) -> Any:
        if not isinstance(node, Sequence):
            return self.refuse(node, field, type_name(annotation))
        count = len(node.items)
        if is_any_tuple(annotation):
            types: list[Any] = [Any] * count
        elif len(arguments) == 2 and arguments[1] is ...:
            types = [arguments[0]] * count
        else:
            types = list(arguments)
        if len(types) != count:
            expected, found = f"{len(types)} items", f"{count}"
            expected = f"{type_name(annotation)} ({expected})"
            if not self.settings.lax:
                return self.refuse(node, field, expected, found)
            self._warn(node, field, expected)
            types = [Any] * count
        values = [
            self.read(item, item_type, f"{field}[{index}]")
            for index, (item, item_type) in enumerate(
                zip(node.items, types, strict=True)
            )
        ]
        return UNREAD if UNREAD in values_by_identity(values) else tuple(values)

    def _dict(
        self,
        node: Node,
        annotation: Any,
        field: str,
        origin: Any,
        arguments: tuple[Any, ...],
    ) -> Any:
        key_type, value_type = arguments or (Any, Any)
        if not isinstance(node, Mapping):
            return self.refuse(node, field, type_name(annotation))
        result = origin()
        places: set[str] = set()
        complete = True
        for key_node, value_node in construction.flattened(node):
            place = f"{field}[{key_text(key_node)}]"
            key = self.read(key_node, key_type, place)
            value = self.read(value_node, value_type, place)
            if key is UNREAD or value is UNREAD:
                complete = False
                continue
            try:
                if key in result and not self.settings.lax:
                    complete = False
                    if place not in places:  # else the parser noted it
                        found = "a duplicate key"
                        self.refuse(key_node, place, "each key once", found)
                result[key] = value
                places.add(place)
            except TypeError:
                self.refuse(key_node, place, "a key that can be hashed", "another")
                complete = False
        return result if complete else UNREAD

    def _untyped(self, node: Node, field: str) -> Any:
        """Read a node as what YAML takes it for."""
        if isinstance(node, Alias):
            return self.read(node, Any, field)
        if isinstance(node, Scalar):
            try:
                return leaf.read_untyped(node, self.settings.dialect)
            except (ValueError, ArithmeticError) as error:
                found = described(node)
                return self.refuse(node, field, "a plain value", found, str(error))
        if node.tag == "!!set":
            return self._items(node, set[Any], field, set, (Any,))
        if isinstance(node, Sequence):
            return self._items(node, list[Any], field, list, (Any,))
        return self._dict(node, dict[Any, Any], field, dict, (Any, Any))


def values_by_identity(values: list[Any]) -> list[Any]:
    """Keep only the sentinels: ``in`` on arrays would compare elements."""
    return [value for value in values if value is UNREAD]


def described(node: Node) -> str:
    """Say in plain words what a node is."""
    if isinstance(node, Alias):
        return described(node.target)
    if isinstance(node, Scalar):
        return leaf.described(node)
    if isinstance(node, Sequence):
        return f"a list of {len(node.items)}"
    assert isinstance(node, Mapping)
    return f"a mapping of {len(node.pairs)}"


def key_text(node: Node) -> str:
    """Show a key inside a field path."""
    while isinstance(node, Alias):
        node = node.target
    if isinstance(node, Scalar):
        return repr(node.text) if node.kind == "str" else node.text
    return "..."


def _is_set(annotation: Any) -> bool:
    return container_of(annotation)[0] in (set, frozenset, Any, object)


def _items_of(node: Node) -> list[Node] | None:
    """List the items of a sequence, or of YAML's own set."""
    if isinstance(node, Sequence):
        return node.items
    if isinstance(node, Mapping) and node.tag == "!!set":
        return [key for key, _ in node.pairs]
    return None
