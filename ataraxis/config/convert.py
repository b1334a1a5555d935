"""Conversion: nodes to values and back, one recursion over the annotations.

A value is read as the file has it or refused; nothing is converted silently. Problems
are collected, not raised.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_origin

from ataraxis.config import scalars
from ataraxis.config.limits import FILES
from ataraxis.config.node import (
    Alias,
    ConfigProblem,
    Mapping,
    Scalar,
    Sequence,
    YamlNode,
    did_you_mean,
    fingerprint,
    flattened,
    resolved,
    shown,
)
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

# ---- dataclasses from mappings


class Draft:
    """The fields, by name, of a `cls` that was read but not built: no user code ran."""

    def __init__(self, cls: type, values: dict[str, Any]) -> None:
        self.cls = cls
        self.values = values

    def __eq__(self, other: object) -> bool:
        """Compare class and fields, as frozen dataclasses used as keys do."""
        return isinstance(other, Draft) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        return (self.cls, *self.values.items())


def read_dataclass(reader: ConfigReader, node: YamlNode, cls: type, field: str) -> Any:
    """Read a mapping as a dataclass; every key must be a field."""
    if not isinstance(node, Mapping):
        return reader.refuse(node, field, f"{cls.__name__} (a mapping)")
    before = len(reader.problems)
    values = read_fields(reader, node, cls, field)
    if len(reader.problems) > before:
        return UNREAD
    return build(reader, node, cls, values, field)


def read_fields(
    reader: ConfigReader, node: Mapping, cls: type, field: str
) -> dict[str, Any]:
    """Read the fields that the mapping has; note required ones that it lacks."""
    before = len(reader.problems)
    schemas = fields_of(cls)
    values: dict[str, Any] = {}
    kinds: dict[str, str] = {}
    for key, value_node in flattened(node):
        target = resolved(key)
        name = target.text if isinstance(target, Scalar) else ""
        place = f"{field}.{name}" if field else name
        schema = schemas.get(name)
        if schema is None or schema.excluded:
            _note_unknown(reader, key, name, cls, place)
            continue
        kind = target.kind if isinstance(target, Scalar) else ""
        # The parser has noted a duplicate of the same literal already.
        if kinds.setdefault(name, kind) != kind and not reader.settings.lax:
            reader.refuse(key, place, "each key once", f"duplicate key {name!r}")
        values[name] = reader.read(value_node, schema.type, place)
    values = {name: value for name, value in values.items() if value is not UNREAD}
    for schema in schemas.values():
        if schema.required and not schema.excluded and schema.name not in values:
            _note_missing(reader, node, schema, field, before)
    return values


def _note_unknown(
    reader: ConfigReader, key: YamlNode, name: str, cls: type, place: str
) -> None:
    noted = reader.warnings if reader.settings.lax else reader.problems
    if len(noted) >= _PROBLEMS:
        return
    schemas = fields_of(cls).values()
    known = [schema.name for schema in schemas if not schema.excluded]
    excluded = any(schema.excluded and schema.name == name for schema in schemas)
    hint = "the field is not kept in the file" if excluded else ""
    hint = hint or did_you_mean(name, known) or "it has " + ", ".join(known)
    found = f"unknown key {shown(name)}" if name else "a key that is not a name"
    noted.append(reader.problem(key, place, f"a field of {cls.__name__}", found, hint))


def _note_missing(
    reader: ConfigReader, node: YamlNode, schema: FieldSchema, field: str, before: int
) -> None:
    """Note a required field that the file lacks, unless its value was refused."""
    place = f"{field}.{schema.name}" if field else schema.name
    for problem in reader.problems[before:]:
        rest = problem.field.removeprefix(place)
        if problem.field.startswith(place) and rest[:1] in ("", ".", "["):
            return
    expected, hint = type_name(schema.type), f"add '{schema.name}: ...'"
    reader.problems.append(reader.problem(node, place, expected, "no such key", hint))


def build(
    reader: ConfigReader, node: YamlNode, cls: type, values: dict[str, Any], field: str
) -> Any:
    """Call the dataclass; an exception that it raises is a problem of the file."""
    if not reader.settings.build:
        return Draft(cls, values)
    schemas = fields_of(cls)
    arguments = {
        name: value
        for name, value in values.items()
        if name not in schemas or schemas[name].init
    }
    try:
        instance = cls(**arguments)
    except Exception as error:  # of user code, caused by the file
        found = f"{type(error).__name__}: {error}"
        reader.failure = error
        return reader.refuse(node, field, f"a valid {cls.__name__}", found)
    for name, value in values.items():
        if name in schemas and not schemas[name].init:
            object.__setattr__(instance, name, value)
    return instance


# ---- reading: nodes and annotations to values

# Nodes read through aliases: a small file must not become a large value.
_ALIAS_BUDGET = FILES.values
_PROBLEMS = 1000  # each takes time for its hint


class Unread:
    """The type of `UNREAD`, which stands for a value that could not be read."""


UNREAD = Unread()


@dataclass(slots=True)
class ConvertOptions:
    """How a file is read.

    `exact` refuses even 1 for a float (unions choose by it); `lax` keeps values that do
    not fit, and warns; `build` makes the dataclasses, else `Draft`.
    """

    path: Path
    dialect: str = "1.2"
    exact: bool = False
    lax: bool = False
    build: bool = True


class ConfigReader:
    """Reads nodes as types; collects what does not fit in `problems`."""

    def __init__(self, settings: ConvertOptions) -> None:
        self.settings = settings
        self.problems: list[ConfigProblem] = []
        self.warnings: list[ConfigProblem] = []
        self.failure: Exception | None = None
        self._through_aliases = 0
        self._aliases_open = 0

    def read(self, node: YamlNode, annotation: Any, field: str = "") -> Any:
        """Read a node as a type; `UNREAD` if it does not fit."""
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
            return read_union(self, node, alternatives, field)
        sets = (set, frozenset, Any, object)
        if node.tag and not (
            node.tag == "!!set" and container_of(annotation)[0] in sets
        ):
            return self.refuse(
                node, field, type_name(annotation), f"tag '{node.tag}'", "remove it"
            )
        return self.read_member(node, annotation, field)

    def read_member(self, node: YamlNode, annotation: Any, field: str) -> Any:
        """Read a node as a type that is not a union, whatever its tag."""
        if annotation is Any or annotation is object:
            return self._untyped(node, field)
        if get_origin(annotation) is Literal:
            return self._choice(node, annotation, field, scalars.read_literal)
        if is_dataclass_type(annotation):
            return read_dataclass(self, node, annotation, field)
        if is_numpy(annotation):
            return self._numpy(node, annotation, field)
        origin, arguments = container_of(annotation)
        if origin in (dict, OrderedDict):
            return self._dict(node, annotation, field, origin, arguments)
        if origin is tuple:
            return self._tuple(node, annotation, field, arguments)
        if origin in (list, set, frozenset):
            return self._items(node, annotation, field, origin, arguments)
        if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
            return self._choice(node, annotation, field, scalars.read_enum)
        if scalars.is_leaf(annotation):
            return self._leaf(node, annotation, field)
        hint = "YAML cannot hold it; mark the field with YAML_EXCLUDE_METADATA"
        return self.refuse(
            node, field, "a type that can be read", type_name(annotation), hint
        )

    def _numpy(self, node: YamlNode, annotation: Any, field: str) -> Any:
        from ataraxis.config.numpy_values import ElementError, read_numpy

        try:
            return read_numpy(node, annotation, self.settings.exact)
        except ElementError as error:
            return self.refuse(
                error.node or node, field, error.expected, hint=error.hint
            )

    def problem(
        self,
        node: YamlNode,
        field: str,
        expected: str,
        found: str | None = None,
        hint: str = "",
    ) -> ConfigProblem:
        """Return a problem at the place of a node."""
        found = described(node) if found is None else found
        path, line = str(self.settings.path), node.line or None
        return ConfigProblem(path, line, field, expected, found, hint)

    def refuse(
        self,
        node: YamlNode,
        field: str,
        expected: str,
        found: str | None = None,
        hint: str = "",
    ) -> Any:
        """Note a problem; reading continues with the next value."""
        problem = self.problem(node, field, expected, found, hint)
        if self.settings.lax and found is None:
            return self.keep(node, field, problem)
        self.problems.append(problem)
        return UNREAD

    def keep(self, node: YamlNode, field: str, problem: ConfigProblem) -> Any:
        """Return a value that does not fit as the file has it, with a warning."""
        before = len(self.problems)
        value = self._untyped(node, field)
        if value is not UNREAD and len(self.problems) == before:
            self.warnings.append(problem)
        return value

    def _leaf(self, node: YamlNode, annotation: Any, field: str) -> Any:
        settings = self.settings
        hint = ""
        if isinstance(node, Scalar):
            try:
                return scalars.read_leaf(
                    node, annotation, settings.exact, settings.dialect
                )
            except scalars.ScalarError as problem:
                hint = problem.hint
            if settings.lax:
                found = scalars.read_leniently(node, annotation, settings.dialect)
                if found is not None:
                    self._warn(node, field, type_name(annotation))
                    return found
        return self.refuse(node, field, type_name(annotation), hint=hint)

    def _warn(self, node: YamlNode, field: str, expected: str) -> None:
        self.warnings.append(self.problem(node, field, expected))

    def _choice(self, node: YamlNode, annotation: Any, field: str, read: Any) -> Any:
        try:
            return read(node, annotation, self.settings.dialect)
        except scalars.ScalarError as problem:
            return self.refuse(node, field, problem.expected, hint=problem.hint)

    def _items(
        self,
        node: YamlNode,
        annotation: Any,
        field: str,
        origin: Any,
        arguments: tuple[Any, ...],
    ) -> Any:
        item_type = arguments[0] if arguments else Any
        items = _items_of(node)
        if items is None:
            return self.refuse(node, field, type_name(annotation))
        values = [
            self.read(item, item_type, f"{field}[{index}]")
            for index, item in enumerate(items)
        ]
        if _has_unread(values):
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
        self, node: YamlNode, annotation: Any, field: str, arguments: tuple[Any, ...]
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
        return UNREAD if _has_unread(values) else tuple(values)

    def _dict(
        self,
        node: YamlNode,
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
        for key_node, value_node in flattened(node):
            place = f"{field}[{key_text(key_node)}]"
            key = self.read(key_node, key_type, place)
            value = self.read(value_node, value_type, place)
            if key is UNREAD or value is UNREAD:
                complete = False
                continue
            try:
                if key in result and not self.settings.lax:
                    complete = False
                    if place not in places:  # else the parser has noted it
                        self.refuse(key_node, place, "each key once", "a duplicate key")
                result[key] = value
                places.add(place)
            except TypeError:
                self.refuse(key_node, place, "a key that can be hashed", "another")
                complete = False
        return result if complete else UNREAD

    def _untyped(self, node: YamlNode, field: str) -> Any:
        """Read a node as the type that YAML gives it."""
        if isinstance(node, Alias):
            return self.read(node, Any, field)
        if isinstance(node, Scalar):
            try:
                return scalars.read_untyped(node, self.settings.dialect)
            except (ValueError, ArithmeticError) as error:
                found = described(node)
                return self.refuse(node, field, "a plain value", found, str(error))
        if node.tag == "!!set":
            return self._items(node, set[Any], field, set, (Any,))
        if isinstance(node, Sequence):
            return self._items(node, list[Any], field, list, (Any,))
        return self._dict(node, dict[Any, Any], field, dict, (Any, Any))


def _has_unread(values: list[Any]) -> bool:
    """Return whether a value is `UNREAD`; ``in`` would compare elements of arrays."""
    return any(value is UNREAD for value in values)


def described(node: YamlNode) -> str:
    """Return the kind and size of a node, for messages."""
    node = resolved(node)
    if isinstance(node, Scalar):
        return scalars.described(node)
    if isinstance(node, Sequence):
        return f"a list of {len(node.items)}"
    assert isinstance(node, Mapping)
    return f"a mapping of {len(node.pairs)}"


def key_text(node: YamlNode) -> str:
    """Return a key as part of a field path."""
    node = resolved(node)
    if isinstance(node, Scalar):
        return repr(node.text) if node.kind == "str" else node.text
    return "..."


def _items_of(node: YamlNode) -> list[YamlNode] | None:
    """List the items of a sequence or of a YAML set."""
    if isinstance(node, Sequence):
        return node.items
    if isinstance(node, Mapping) and node.tag == "!!set":
        return [key for key, _ in node.pairs]
    return None


# ---- unions: which member of ``Camera | Board`` a node or a value is

# The first member that fits, exact fits before wider ones. If reading would choose
# another member than the one written, the writer adds a local tag (``!Board``).


def tags_of(alternatives: tuple[Any, ...]) -> list[str]:
    """Return the tag of each member: its name, numbered if two are equal."""
    names = [_base_name(member) for member in alternatives]
    return [
        f"!{name}" if names.count(name) == 1 else f"!{name}-{position}"
        for position, name in enumerate(names, start=1)
    ]


def _base_name(member: Any) -> str:
    origin = container_of(member)[0]
    name = getattr(origin, "__name__", None) or str(origin).rpartition(".")[2]
    return "".join(c if c.isalnum() and c.isascii() else "-" for c in name)


def read_union(
    reader: ConfigReader, node: YamlNode, alternatives: tuple[Any, ...], field: str
) -> Any:
    """Read a node as the member that fits; else report the closest."""
    tags = tags_of(alternatives)
    if node.tag and node.tag != "!!set":
        if node.tag in tags:
            return reader.read_member(node, alternatives[tags.index(node.tag)], field)
        return reader.refuse(
            node,
            field,
            " | ".join(map(type_name, alternatives)),
            f"tag '{node.tag}'",
            did_you_mean(node.tag, tags) or "the tags are " + ", ".join(tags),
        )
    trials: list[list[ConfigProblem]] = []
    for exact in _passes(reader.settings.exact):
        trials.clear()
        for member in alternatives:
            trial = _trial(reader, exact)
            value = trial.read_member(node, member, field)
            if not trial.problems:
                return value
            trials.append(trial.problems)
    _report(reader, node, alternatives, trials, field)
    if not reader.settings.lax:
        return UNREAD
    return reader.keep(node, field, reader.problems.pop())


def _passes(exact: bool) -> tuple[bool, ...]:
    """Return the passes: exact fits, then wider ones; in an exact pass only one.

    Two passes at each level would double the work with each level of nesting.
    """
    return (True,) if exact else (True, False)


def chosen(reader: ConfigReader, node: YamlNode, alternatives: tuple[Any, ...]) -> int:
    """Return the position of the member that reading an untagged node chooses."""
    for exact in _passes(reader.settings.exact):
        for position, member in enumerate(alternatives):
            trial = _trial(reader, exact)
            trial.read_member(node, member, "")
            if not trial.problems:
                return position
    return -1


def _trial(reader: ConfigReader, exact: bool) -> ConfigReader:
    """Return a reader of its own problems, which are not reported."""
    settings = replace(reader.settings, exact=exact or reader.settings.exact, lax=False)
    return type(reader)(settings)


def _report(
    reader: ConfigReader,
    node: YamlNode,
    alternatives: tuple[Any, ...],
    trials: list[list[ConfigProblem]],
    field: str,
) -> None:
    """Note the problems of the closest member that has the node's shape."""
    alike = [
        (len(problems), position)
        for position, problems in enumerate(trials)
        if _alike(node, alternatives[position])
    ]
    everything = " | ".join(map(type_name, alternatives))
    if not alike or reader.settings.lax:
        hints = [problem.hint for problems in trials for problem in problems]
        hint = next(filter(None, hints), "") if not alike else ""
        reader.problems.append(reader.problem(node, field, everything, None, hint))
        return
    position = min(alike)[1]
    closest = f"closest of {everything}: {type_name(alternatives[position])}"
    for problem in trials[position]:
        hint = f"{problem.hint}; {closest}" if problem.hint else closest
        reader.problems.append(replace(problem, hint=hint))


def _alike(node: YamlNode, member: Any) -> bool:
    """Return whether a member has the shape of the node."""
    origin = container_of(member)[0]
    if isinstance(node, Mapping):
        return is_dataclass_type(member) or origin is dict
    if isinstance(node, Sequence):
        return origin in (list, tuple, set, frozenset)
    return False


def write_union(
    writer: ConfigWriter, value: Any, alternatives: tuple[Any, ...], field: str
) -> YamlNode | None:
    """Write a value as its member, tagged if reading would choose another."""
    trials: list[tuple[int, list[ConfigProblem]]] = []
    for exact in _passes(writer.exact):
        trials.clear()
        for position, member in enumerate(alternatives):
            trial = writer.trial(exact)
            node = trial.write_member(value, member, field)
            if node is None:
                trials.append((position, trial.problems))
                continue
            if chosen(writer.checker(), node, alternatives) != position:
                node.tag = tags_of(alternatives)[position]
                if isinstance(node, Scalar) and node.kind == "null":
                    node.tag = ""
            return node
    own = [
        problems
        for position, problems in trials
        if is_dataclass_type(alternatives[position])
        and writer.is_of(value, alternatives[position])
    ]
    if own:
        writer.problems.extend(own[0])
        return None
    names = [member for member in alternatives if member is not NoneType]
    everything = " | ".join(map(type_name, [*names, *alternatives[len(names) :]]))
    return writer.refuse(value, field, everything)


# ---- writing: values and annotations to nodes

# Values that would not be read back as equal are refused, so that every file that was
# written can be read.

_UNTYPED = (NoneType, bool, int, float, str, bytes, dt.datetime, dt.date)
_DEEPEST = 90


class ConfigWriter:
    """Makes nodes of values; collects what YAML cannot hold in `problems`.

    `exact` refuses even an int for a float, by which unions choose; `depth` is the
    level of the document at which the writer begins.
    """

    def __init__(self, path: Path, exact: bool = False, depth: int = 0) -> None:
        self.path = path
        self.exact = exact
        self.problems: list[ConfigProblem] = []
        self._depth = depth

    def trial(self, exact: bool) -> ConfigWriter:
        """Return a writer of its own problems, which are not reported."""
        return ConfigWriter(self.path, exact or self.exact, self._depth)

    def checker(self) -> ConfigReader:
        """Return a reader that does not build instances."""
        return ConfigReader(ConvertOptions(self.path, build=False))

    def write(self, value: Any, annotation: Any, field: str = "") -> YamlNode | None:
        """Write a value as a type; ``None`` if it does not fit."""
        self._depth += 1
        if self._depth > _DEEPEST:
            node = self.refuse(value, field, f"at most {_DEEPEST} levels of nesting")
        else:
            alternatives = members(annotation)
            if len(alternatives) > 1:
                node = write_union(self, value, alternatives, field)
            else:
                node = self.write_member(value, alternatives[0], field)
        self._depth -= 1
        if node is not None:
            node.schema = annotation
        return node

    def write_member(self, value: Any, annotation: Any, field: str) -> YamlNode | None:
        """Write a value as a type that is not a union."""
        annotation = unwrap(annotation)
        node: YamlNode | None = None
        if annotation is Any or annotation is object:
            return self._untyped(value, field)
        origin, arguments = container_of(annotation)
        if get_origin(annotation) is Literal:
            node = scalars.write_literal(value, annotation)
        elif is_dataclass_type(annotation):
            if self.is_of(value, annotation):
                return self._dataclass(value, annotation, field)
        elif is_numpy(annotation):
            from ataraxis.config.numpy_values import ElementError, write_numpy

            try:
                return write_numpy(value, annotation)
            except ElementError as error:
                return self.refuse(value, field, error.expected, error.hint)
        elif origin in (dict, OrderedDict, tuple, list, set, frozenset):
            if type(value) is origin:
                return self._container(value, origin, arguments, annotation, field)
        elif isinstance(annotation, type) and issubclass(annotation, enum.Enum):
            node = scalars.write_enum(value, annotation)
        elif scalars.is_leaf(annotation):
            node = scalars.write_leaf(value, annotation, self.exact)
        else:
            hint = "YAML cannot hold it; mark the field with YAML_EXCLUDE_METADATA"
            return self.refuse(value, field, "a type that can be written", hint)
        return (
            self.refuse(value, field, type_name(annotation)) if node is None else node
        )

    def refuse(
        self, value: Any, field: str, expected: str, hint: str = ""
    ) -> YamlNode | None:
        """Note a value that cannot be written."""
        found = f"{type(value).__name__} {shown(value)}"
        self.problems.append(
            ConfigProblem(str(self.path), None, field, expected, found, hint)
        )
        return None

    def is_of(self, value: Any, cls: type) -> bool:
        """Return whether a value, or its `Draft`, is of exactly the class.

        A subclass would be read back as the class of the annotation.
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
                self.refuse(None, place, type_name(schema.type), "it is not set")
                continue
            else:
                item = getattr(value, schema.name)
            written = self.write(item, schema.type, place)
            if written is not None:
                key = Scalar(text=schema.name, remark=schema.remark)
                node.pairs.append((key, written))
        return node if len(self.problems) == before else None

    def _container(
        self,
        value: Any,
        origin: Any,
        arguments: tuple[Any, ...],
        annotation: Any,
        field: str,
    ) -> YamlNode | None:
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

    def _untyped(self, value: Any, field: str) -> YamlNode | None:
        """Write a value for ``Any``: only types that YAML distinguishes."""
        if type(value) in (list, dict):
            return self._container(value, type(value), (), type(value), field)
        if type(value) in _UNTYPED:
            return scalars.write_leaf(value, type(value), exact=True)
        hint = "annotate the field with its type"
        return self.refuse(value, field, "a plain value", hint)


def _sort_key(item: YamlNode) -> tuple[int, int, str]:
    """Return the sort key of an item of a set, so that equal sets give equal files."""
    if isinstance(item, Scalar) and item.kind == "int":
        return (0, scalars.parse_int(item.text), "")
    return (1, 0, repr(_ordered_mark(fingerprint(item))))


def _ordered_mark(mark: Any) -> Any:
    """Sort the unordered parts of a fingerprint."""
    if isinstance(mark, frozenset):
        return sorted(map(_ordered_mark, mark), key=repr)
    return tuple(map(_ordered_mark, mark)) if isinstance(mark, tuple) else mark
