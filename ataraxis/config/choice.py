"""Enumerations and literals: a word in the file chooses one of a few values.

An enum whose values are all text or whole numbers is written by value, as the
originals do; any other by the name of the member.
"""

from __future__ import annotations

import enum
from typing import Any, get_args

from ataraxis.config import leaf, literal
from ataraxis.config.node import Node, Scalar, Sequence
from ataraxis.config.problem import did_you_mean


def _by_value(choices: type[enum.Enum]) -> bool:
    """Tell whether the members' values serve as words."""
    return all(
        type(_bare(member.value)) in (str, int)
        for member in choices.__members__.values()
    )


def _bare(value: Any) -> Any:
    """Strip a value of an IntEnum or StrEnum to the plain int or str."""
    for plain in (bool, int, str, float):
        if isinstance(value, plain):
            return plain(value)
    return value


def write_enum(value: Any, choices: type[enum.Enum]) -> Scalar | None:
    """Write a member; ``None`` when the value is no member."""
    if not isinstance(value, choices):
        return None
    if isinstance(value, enum.Flag) and issubclass(choices, enum.Flag):
        names = [member.name or "" for member in choices if member in value]
        joined = choices(0)
        for name in names:
            joined |= choices[name]
        if names and joined == value:
            return Scalar(text=" | ".join(names))
        return Scalar(text=literal.format_int(int(value.value)), kind="int")
    if not _by_value(choices):
        return Scalar(text=value.name)
    plain = _bare(value.value)
    return leaf.write_leaf(plain, type(plain), exact=True)


def read_enum(node: Node, choices: type[enum.Enum], dialect: str = "1.2") -> Any:
    """Read a member by value or by name; `Mismatch` lists what there is."""
    if isinstance(node, Scalar):
        value = _plain(node, dialect)
        if issubclass(choices, enum.Flag):
            return _read_flag(node, choices, value)
        by_name = choices.__members__.get(node.text) if node.kind == "str" else None
        if by_name is not None and not _by_value(choices):
            return by_name
        for member in choices.__members__.values():
            bare = _bare(member.value)
            if type(bare) is type(value) and bare == value:
                return member
        if by_name is not None:
            return by_name
    elif isinstance(node, Sequence):
        for member in choices.__members__.values():
            if isinstance(member.value, tuple) and _same_items(
                node, member.value, dialect
            ):
                return member
    words = _words(choices)
    hint = did_you_mean(node.text, words) if isinstance(node, Scalar) else ""
    raise leaf.Mismatch(hint, "one of " + ", ".join(map(repr, words)))


def _read_flag(node: Scalar, choices: type[enum.Flag], value: Any) -> Any:
    """Read ``READ | WRITE`` or the number that stands for it."""
    if type(value) is int:
        try:
            return choices(value)
        except ValueError as error:
            raise leaf.Mismatch("", f"flags of {choices.__name__}") from error
    combined = choices(0)
    for name in (part.strip() for part in node.text.split("|")):
        if name not in choices.__members__ or node.kind != "str":
            names = list(choices.__members__)
            expected = "flags joined by '|', of " + ", ".join(map(repr, names))
            raise leaf.Mismatch(did_you_mean(name, names), expected)
        combined |= choices[name]
    return combined


def _words(choices: type[enum.Enum]) -> list[str]:
    """List what may be written for the members."""
    if _by_value(choices):
        return [str(_bare(member.value)) for member in choices]
    return [member.name for member in choices]


def _same_items(node: Sequence, values: tuple[Any, ...], dialect: str) -> bool:
    """Compare a list in the file with the value of a member."""
    items = [
        _plain(item, dialect) if isinstance(item, Scalar) else node
        for item in node.items
    ]
    return items == list(values)


def _plain(node: Scalar, dialect: str) -> Any:
    """Read a scalar untyped, or as its own text when it is damaged."""
    try:
        return leaf.read_untyped(node, dialect)
    except ValueError:
        return node.text


def write_literal(value: Any, annotation: Any) -> Scalar | None:
    """Write one of the values of a ``Literal``; ``None`` when it is none."""
    for choice in get_args(annotation):
        if type(choice) is type(value) and choice == value:
            if isinstance(choice, enum.Enum):
                return write_enum(choice, type(choice))
            return leaf.write_leaf(choice, type(choice), exact=True)
    return None


def read_literal(node: Node, annotation: Any, dialect: str = "1.2") -> Any:
    """Read one of the values of a ``Literal``; `Mismatch` lists what there is."""
    choices = get_args(annotation)
    for choice in choices:
        if not isinstance(node, Scalar):
            break
        try:
            if isinstance(choice, enum.Enum):
                value = read_enum(node, type(choice), dialect)
            else:
                value = leaf.read_leaf(node, type(choice), True, dialect)
        except leaf.Mismatch:
            continue
        if value == choice:
            return choice
    words = [choice for choice in choices if isinstance(choice, str)]
    hint = did_you_mean(node.text, words) if isinstance(node, Scalar) else ""
    raise leaf.Mismatch(hint, "one of " + ", ".join(map(repr, choices)))
