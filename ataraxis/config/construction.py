"""Dataclasses from mappings: keys to fields, and the call that builds the instance.

Also the stand-in that is used where text is only checked and no user code may run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ataraxis.config.node import Mapping, Node, Scalar, Sequence, resolved
from ataraxis.config.problem import ConfigProblem, did_you_mean, shown
from ataraxis.config.schema import FieldSchema, fields_of, type_name

if TYPE_CHECKING:
    from ataraxis.config.reader import Reader


class Draft:
    """The fields of an instance that was read but not built.

    Parameters
    ----------
    cls : type
        The dataclass it stands for.
    values : dict
        Field name to value.
    """

    def __init__(self, cls: type, values: dict[str, Any]) -> None:
        self.cls = cls
        self.values = values

    def __eq__(self, other: object) -> bool:
        """Equal when class and fields are, as frozen dataclasses used as keys."""
        return isinstance(other, Draft) and self._key() == other._key()

    def __hash__(self) -> int:
        """Hash as a frozen dataclass does."""
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        return (self.cls, *self.values.items())


def flattened(node: Mapping) -> list[tuple[Node, Node]]:
    """List the pairs of a mapping, with those that ``<<`` merges in after its own."""
    own: list[tuple[Node, Node]] = []
    merged: list[tuple[Node, Node]] = []
    for key, value in node.pairs:
        if isinstance(key, Scalar) and key.kind == "merge":
            target = resolved(value)
            sources = target.items if isinstance(target, Sequence) else [target]
            for source in map(resolved, sources):
                if isinstance(source, Mapping):
                    merged.extend(flattened(source))
        else:
            own.append((key, value))
    names = {_name(key) for key, _ in own}
    for key, value in merged:
        if _name(key) not in names:
            names.add(_name(key))
            own.append((key, value))
    return own


def _name(key: Node) -> Any:
    """Identify a key; a key that is no scalar is only itself."""
    key = resolved(key)
    return (key.kind, key.text) if isinstance(key, Scalar) else id(key)


def read_dataclass(reader: Reader, node: Node, cls: type, field: str) -> Any:
    """Read a mapping as a dataclass; every key must be a field."""
    from ataraxis.config.reader import UNREAD

    if not isinstance(node, Mapping):
        return reader.refuse(node, field, f"{cls.__name__} (a mapping)")
    before = len(reader.problems)
    values = read_fields(reader, node, cls, field)
    complete = len(reader.problems) == before
    for schema in fields_of(cls).values():
        if schema.required and not schema.excluded and schema.name not in values:
            complete = False
            note_missing(reader, node, schema, field, before)
    return build(reader, node, cls, values, field) if complete else UNREAD


def read_fields(reader: Reader, node: Mapping, cls: type, field: str) -> dict[str, Any]:
    """Read the values of the fields that the mapping has."""
    from ataraxis.config.reader import UNREAD

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
        # The same literal twice was noted by the parser already.
        if kinds.setdefault(name, kind) != kind and not reader.settings.lax:
            reader.refuse(key, place, "each key once", f"duplicate key {name!r}")
        values[name] = reader.read(value_node, schema.type, place)
    return {name: value for name, value in values.items() if value is not UNREAD}


def _note_unknown(reader: Reader, key: Node, name: str, cls: type, place: str) -> None:
    schemas = fields_of(cls).values()
    known = [schema.name for schema in schemas if not schema.excluded]
    excluded = any(schema.excluded and schema.name == name for schema in schemas)
    hint = "the field is not kept in the file" if excluded else ""
    problem = ConfigProblem(
        str(reader.settings.path),
        key.line,
        place,
        f"a field of {cls.__name__}",
        f"unknown key {shown(name)}" if name else "a key that is no name",
        hint or did_you_mean(name, known) or "it has " + ", ".join(known),
    )
    (reader.warnings if reader.settings.lax else reader.problems).append(problem)


def note_missing(
    reader: Reader, node: Node, schema: FieldSchema, field: str, before: int
) -> None:
    """Note a required field that the file lacks, unless its value was refused."""
    place = f"{field}.{schema.name}" if field else schema.name
    if any(_within(problem, place) for problem in reader.problems[before:]):
        return
    reader.problems.append(
        ConfigProblem(
            str(reader.settings.path),
            node.line,
            place,
            type_name(schema.type),
            "no such key",
            f"add '{schema.name}: ...'",
        )
    )


def _within(problem: ConfigProblem, place: str) -> bool:
    """Tell whether a problem is about a field or something in it."""
    rest = problem.field.removeprefix(place)
    return problem.field.startswith(place) and rest[:1] in ("", ".", "[")


def build(
    reader: Reader, node: Node, cls: type, values: dict[str, Any], field: str
) -> Any:
    """Call the dataclass; what it raises is a problem of the file."""
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
    except Exception as error:  # user code: whatever it raises, the file caused it
        found = f"{type(error).__name__}: {error}"
        reader.failure = error
        return reader.refuse(node, field, f"a valid {cls.__name__}", found)
    for name, value in values.items():
        if name in schemas and not schemas[name].init:
            object.__setattr__(instance, name, value)
    return instance
