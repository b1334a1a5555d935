"""Single values: the YAML form of numbers, text, paths, times and their like.

Each type has one writer and one reader, which are inverses; containers are elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import uuid
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Any

from ataraxis.config import literal, moment
from ataraxis.config.node import Scalar
from ataraxis.config.problem import shown
from ataraxis.config.schema import NoneType

Reading = Callable[[Scalar, str], Any]


class Mismatch(ValueError):
    """A scalar is not of the type asked for; says what to do when it is known."""

    def __init__(self, hint: str = "", expected: str = "") -> None:
        super().__init__(hint)
        self.hint = hint
        self.expected = expected


def is_leaf(annotation: Any) -> bool:
    """Tell whether the type is a single value."""
    return annotation in _READERS or (
        isinstance(annotation, type) and issubclass(annotation, PurePath)
    )


def write_leaf(value: Any, annotation: Any, exact: bool) -> Scalar | None:
    """Write a value of the type; ``None`` when it is of another."""
    if not isinstance(annotation, type):
        return None
    if issubclass(annotation, PurePath):
        concrete = type(Path()) if annotation is Path else annotation
        fits = type(value) in (annotation, concrete)
        return Scalar(text=str(value)) if fits else None
    if type(value) is not annotation:
        value = None if exact else _widened(value, annotation)
        if value is None:
            return None
    kind, write = _WRITERS[annotation]
    return Scalar(text=write(value), kind=kind)


def _widened(value: Any, annotation: type) -> Any:
    """Turn a value into the equal one of a wider type, or ``None``."""
    module = type(value).__module__
    if module == "numpy" and hasattr(value, "item") and value.shape == ():
        plain = value.item()
        return plain if type(plain) is annotation and plain == value else None
    if annotation is str and isinstance(value, str):
        return str.__str__(value)
    if annotation in (int, float) and isinstance(value, annotation):
        return None if isinstance(value, bool) else annotation(value)
    if annotation is float and type(value) is int:
        try:
            return float(value) if float(value) == value else None
        except OverflowError:
            return None
    return None


def read_leaf(node: Scalar, annotation: Any, exact: bool, dialect: str = "1.2") -> Any:
    """Read a scalar as the type; `Mismatch` when it is not one."""
    if issubclass(annotation, PurePath):
        return annotation(_text(node, dialect))
    if exact and annotation is float and node.kind == "int":
        raise Mismatch
    try:
        return _READERS[annotation](node, dialect)
    except Mismatch:
        raise
    except (ValueError, ArithmeticError) as error:
        raise Mismatch(str(error)) from error


def read_untyped(node: Scalar, dialect: str = "1.2") -> Any:
    """Read a scalar as what YAML takes it for."""
    if node.kind == "timestamp":
        timed = ":" in node.text
        return moment.parse_datetime(node.text) if timed else _date(node, dialect)
    return _READERS[_BY_KIND[node.kind]](node, dialect)


def described(node: Scalar) -> str:
    """Say what a scalar is: its kind, and its text as the file has it."""
    if node.kind == "null":
        return "null"
    if node.kind == "str":
        return f"str {shown(node.text)}"
    moment_name = "datetime" if ":" in node.text else "date"
    names = {"timestamp": moment_name, "binary": "bytes"}
    name = names.get(node.kind, node.kind)
    return f"{name} {shown(node.text)[1:-1]}"


def _expect(node: Scalar, *kinds: str) -> str:
    if node.kind not in kinds:
        raise Mismatch
    return node.text


def _null(node: Scalar, dialect: str) -> None:
    _expect(node, "null")


def _bool(node: Scalar, dialect: str) -> bool:
    if node.kind != "bool" and node.text.lower() in ("yes", "no", "on", "off"):
        raise Mismatch("YAML 1.2: write true or false")
    return literal.parse_bool(_expect(node, "bool"))


def _int(node: Scalar, dialect: str) -> int:
    return literal.parse_int(_expect(node, "int"), dialect)


def _float(node: Scalar, dialect: str) -> float:
    if node.kind != "int":
        return literal.parse_float(_expect(node, "float"))
    whole = literal.parse_int(node.text, dialect)
    value = float(whole)
    if int(value) != whole:
        raise Mismatch("no float has exactly this value; write it with a dot")
    return -value if value == 0 and node.text.startswith("-") else value


def _text(node: Scalar, dialect: str) -> str:
    # A bare date is text to YAML 1.2; numbers, booleans and null are not.
    if node.kind not in ("str", "timestamp", "merge"):
        raise Mismatch(f"for text write '{node.text}' with quotes")
    return node.text


def _bytes(node: Scalar, dialect: str) -> bytes:
    kinds = ("binary", "str") if node.tag else ("binary",)
    text = "".join(_expect(node, *kinds).split())
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise Mismatch(f"not base64: {error}") from error


def _complex(node: Scalar, dialect: str) -> complex:
    if node.kind in ("int", "float"):
        return complex(literal.parse_float(node.text))
    return complex(_expect(node, "str"))


def _date(node: Scalar, dialect: str) -> dt.date:
    text = _expect(node, "timestamp", "str")
    if ":" in text:
        raise Mismatch("a date without a time")
    return moment.parse_date(text)


def _datetime(node: Scalar, dialect: str) -> dt.datetime:
    text = _expect(node, "timestamp", "str")
    if ":" not in text:
        raise Mismatch(f"add the time, as {text}T00:00:00")
    return moment.parse_datetime(text)


def _time(node: Scalar, dialect: str) -> dt.time:
    return dt.time.fromisoformat(_expect(node, "str"))


def _timedelta(node: Scalar, dialect: str) -> dt.timedelta:
    if node.kind in ("int", "float"):
        return moment.parse_duration(node.text + " s")
    return moment.parse_duration(_expect(node, "str"))


def _decimal(node: Scalar, dialect: str) -> Decimal:
    try:
        text = _expect(node, "str", "int", "float")
        special = node.kind == "float" and text.lower().endswith(("inf", "nan"))
        return Decimal(text.replace(".", "") if special else text)
    except InvalidOperation as error:
        raise Mismatch("a decimal number, as '0.10'") from error


def _fraction(node: Scalar, dialect: str) -> Fraction:
    return Fraction(_expect(node, "str", "int", "float"))


def _uuid(node: Scalar, dialect: str) -> uuid.UUID:
    return uuid.UUID(_expect(node, "str"))


_READERS: dict[Any, Reading] = {
    NoneType: _null,
    bool: _bool,
    int: _int,
    float: _float,
    str: _text,
    bytes: _bytes,
    complex: _complex,
    dt.date: _date,
    dt.datetime: _datetime,
    dt.time: _time,
    dt.timedelta: _timedelta,
    Decimal: _decimal,
    Fraction: _fraction,
    uuid.UUID: _uuid,
}
_BY_KIND = {
    "null": NoneType,
    "bool": bool,
    "int": int,
    "float": float,
    "str": str,
    "merge": str,
    "binary": bytes,
}
_WRITERS: dict[Any, tuple[str, Callable[[Any], str]]] = {
    NoneType: ("null", lambda value: "null"),
    bool: ("bool", lambda value: str(value).lower()),
    int: ("int", literal.format_int),
    float: ("float", literal.format_float),
    str: ("str", str),
    bytes: ("binary", lambda value: base64.b64encode(value).decode("ascii")),
    complex: ("str", lambda value: repr(value).strip("()")),
    dt.date: ("timestamp", dt.date.isoformat),
    dt.datetime: ("timestamp", moment.format_datetime),
    dt.time: ("str", dt.time.isoformat),
    dt.timedelta: ("str", moment.format_duration),
    Decimal: ("str", str),
    Fraction: ("str", str),
    uuid.UUID: ("str", str),
}
