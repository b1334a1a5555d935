"""One numpy value and its text: scalars, and the elements of arrays.

Written with the shortest digits of their own precision: float32 0.1 is ``0.1``.
"""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np

from ataraxis.config import literal
from ataraxis.config.node import Node, Scalar, resolved

_REAL = r"[-+]?(?:\d[\d.]*(?:e[-+]?\d+)?|\.inf|\.nan)"
# numpy has no zones: it would shift such a time with no more than a warning.
_ZONED = re.compile(r":.*(?:[Zz]|[-+]\d\d:?\d\d)$")
_COMPLEX = re.compile(rf"({_REAL})([-+]{_REAL.removeprefix('[-+]?')})j", re.ASCII)


class Refused(Exception):
    """An element does not fit; carries the node for its line."""

    def __init__(
        self, node: Node | None = None, expected: str = "", hint: str = ""
    ) -> None:
        super().__init__(hint)
        self.node, self.expected, self.hint = node, expected, hint


def write_element(value: Any) -> Scalar | None:
    """Write one element; ``None`` for a kind that YAML cannot hold."""
    kind = value.dtype.kind
    if kind == "b":
        return Scalar(text=str(bool(value)).lower(), kind="bool")
    if kind in "iu":
        return Scalar(text=literal.format_int(int(value)), kind="int")
    if kind == "f":
        return Scalar(text=_digits(value), kind="float")
    if kind == "c":
        imaginary = _digits(value.imag)
        sign = "" if imaginary.startswith("-") else "+"
        return Scalar(text=f"{_digits(value.real)}{sign}{imaginary}j")
    if kind == "U":
        return Scalar(text=str(value))
    if kind == "S":
        return Scalar(text=bytes(value).decode("latin-1"))
    if kind == "M":
        return Scalar(text=_write_datetime(value))
    if kind == "m":
        unit, count = np.datetime_data(value.dtype)
        number = "NaT" if np.isnat(value) else str(value.astype("i8"))
        return Scalar(text=f"{number} {_unit(unit, count)}")
    return None


def _digits(value: Any) -> str:
    if np.isnan(value):
        return ".nan"
    if np.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    return literal.dotted(str(value))


def _unit(unit: str, count: int) -> str:
    return unit if count == 1 else f"{count}{unit}"


def _write_datetime(value: Any) -> str:
    unit, count = np.datetime_data(value.dtype)
    return f"{np.datetime_as_string(value)} {_unit(unit, count)}"


def read_element(node: Node, dtype: np.dtype[Any], exact: bool) -> Any:
    """Read one element; a number that the dtype cannot hold is refused."""
    node = resolved(node)
    if not isinstance(node, Scalar):
        raise Refused(node, dtype.name)
    text, kind = node.text, node.kind
    if dtype.kind == "b" and kind == "bool":
        return np.bool_(literal.parse_bool(text))
    if dtype.kind in "iu" and kind == "int":
        value = literal.parse_int(text)
        limits = np.iinfo(dtype)
        if not limits.min <= value <= limits.max:
            hint = f"{dtype.name} holds {limits.min} to {limits.max}"
            raise Refused(node, dtype.name, hint)
        return dtype.type(value)
    if dtype.kind == "f" and kind in (("float",) if exact else ("int", "float")):
        return _read_float(node, text, dtype)
    if dtype.kind == "c" and (match := _COMPLEX.fullmatch(text)) is not None:
        parts = (part.removeprefix("+") for part in match.groups())
        pair = np.array([_read_float(node, part, _part_of(dtype)) for part in parts])
        return pair.view(dtype.newbyteorder("="))[0]
    if dtype.kind in "US" and kind in ("str", "timestamp", "merge"):
        return _read_text(node, dtype)
    if dtype.kind in "mM" and kind == "str":
        return _read_moment(node, dtype)
    raise Refused(node, dtype.name)


def _part_of(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Give the dtype of the real part of a complex one."""
    return np.zeros((), dtype.newbyteorder("=")).real.dtype


def _read_float(node: Node, text: str, dtype: np.dtype[Any]) -> Any:
    if literal.kind_of(text) not in ("int", "float"):
        raise Refused(node, dtype.name)
    digits = text.lower().replace("_", "")
    if digits.endswith((".inf", ".nan")):
        digits = digits.replace(".", "")
    elif literal.kind_of(text) == "int":
        digits = str(literal.parse_int(text))
    with np.errstate(over="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # longdouble asks no errstate
        value = dtype.type(digits)
    if np.isinf(value) and "inf" not in digits:
        raise Refused(node, dtype.name, f"{dtype.name} cannot hold it")
    return value


def _read_text(node: Scalar, dtype: np.dtype[Any]) -> Any:
    raw: Any = node.text
    if dtype.kind == "S":
        try:
            raw = node.text.encode("latin-1")
        except UnicodeEncodeError as error:
            raise Refused(node, dtype.name, "bytes 0 to 255 only") from error
    width = dtype.itemsize // (4 if dtype.kind == "U" else 1)
    if width and len(raw) > width:
        raise Refused(node, dtype.name, f"at most {width} characters")
    return dtype.type(raw)


def _read_moment(node: Scalar, dtype: np.dtype[Any]) -> Any:
    """Read ``2026-11-20T19:11 us`` or ``250 ms``: the unit is always said."""
    text, _, unit = node.text.rpartition(" ")
    example = "2026-11-20T19:11:42 ms" if dtype.kind == "M" else "250 ms"
    if not text or _ZONED.search(text):
        hint = f"write it with its unit and no zone, as '{example}'"
        raise Refused(node, dtype.name, hint)
    fixed = np.datetime_data(dtype)[0] != "generic"
    try:
        amount: Any = text
        if dtype.kind == "m" and text != "NaT":
            amount = int(text)
        maker: Any = np.datetime64 if dtype.kind == "M" else np.timedelta64
        value = maker(amount, *(() if unit == "generic" else (unit,)))
    except (ValueError, TypeError, OverflowError, Warning) as error:
        raise Refused(node, dtype.name, f"write it as '{example}'") from error
    if fixed and value.dtype != dtype.newbyteorder("="):
        raise Refused(node, dtype.name, "another unit than the dtype's")
    return value
