"""Scalars in YAML: numbers, text, paths, times and enums.

Each type has one writer and one reader, which are inverses.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import enum
import math
import re
import uuid
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Any, get_args

from ataraxis.config.limits import FILES
from ataraxis.config.node import Scalar, Sequence, YamlNode, did_you_mean, shown
from ataraxis.config.schema import NoneType

# ---- dates, times and durations as text, exact to the microsecond

# Digits beyond the sixth, which Python's parser drops silently, are refused.

_DATE = re.compile(r"(\d{4})-(\d\d?)-(\d\d?)", re.ASCII)
_DATETIME = re.compile(
    r"(?P<date>\d{4}-\d\d?-\d\d?)(?:[Tt]|[ \t]+)"
    r"(?P<hour>\d\d?):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.(?P<fraction>\d*))?)?"
    r"(?:[ \t]*(?P<zone>[Zz]|[-+]\d\d?(?::?\d\d(?::\d\d(?:\.\d+)?)?)?))?",
    re.ASCII,
)
_ZONE = re.compile(r"([-+])(\d\d?)(?::?(\d\d))?(?::(\d\d)(?:\.(\d+))?)?", re.ASCII)
_PART = re.compile(r"(\d+)(?:\.(\d*))?(?:[eE]([-+]?\d+))?\s*(d|h|min|s|ms|us)\b\s*")
_CLOCK = re.compile(
    r"(?:(?P<days>-?\d+) days?, )?(?P<sign>-)?(?P<hours>\d+):(?P<minutes>[0-5]\d)"
    r":(?P<seconds>[0-5]\d)(?:\.(?P<fraction>\d{1,6}))?",
    re.ASCII,
)
_UNITS_US = {
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "min": 60_000_000,
    "s": 1_000_000,
    "ms": 1_000,
    "us": 1,
}
_LARGEST_EXPONENT = 18


def parse_date(text: str) -> dt.date:
    """Read ``2026-11-20``."""
    match = _DATE.fullmatch(text.strip())
    if match is None:
        raise ValueError("write a date as 2026-11-20")
    return dt.date(*map(int, match.groups()))


def parse_datetime(text: str) -> dt.datetime:
    """Read ``2026-11-20 19:11:42.5+01:00`` in all forms of YAML."""
    match = _DATETIME.fullmatch(text.strip())
    if match is None:
        raise ValueError("write a time as 2026-11-20T19:11:42")
    day = parse_date(match["date"])
    time = dt.time(
        int(match["hour"]),
        int(match["minute"]),
        int(match["second"] or 0),
        _microseconds(match["fraction"] or ""),
        _zone(match["zone"]),
    )
    return dt.datetime.combine(day, time)


def _microseconds(digits: str) -> int:
    """Read the digits after the dot of a second."""
    if digits[6:].strip("0"):
        raise ValueError("a datetime holds microseconds: at most 6 digits")
    return int(digits[:6].ljust(6, "0"))


def _zone(text: str | None) -> dt.tzinfo | None:
    if text is None:
        return None
    if text in "Zz":
        return dt.UTC
    match = _ZONE.fullmatch(text)
    assert match is not None
    sign, hours, minutes, seconds, fraction = match.groups()
    offset = dt.timedelta(
        hours=int(hours),
        minutes=int(minutes or 0),
        seconds=int(seconds or 0),
        microseconds=_microseconds(fraction or ""),
    )
    return dt.timezone(-offset if sign == "-" else offset)


def format_duration(value: dt.timedelta) -> str:
    """Write a duration as ``1 h 30 min`` or ``2.5 s``."""
    total = value // dt.timedelta(microseconds=1)
    sign, total = ("-" if total < 0 else ""), abs(total)
    if total == 0:
        return "0 s"
    parts = []
    for unit in ("d", "h", "min"):
        count, total = divmod(total, _UNITS_US[unit])
        if count:
            parts.append(f"{count} {unit}")
    if not parts and total < _UNITS_US["s"]:
        unit = "us" if total % _UNITS_US["ms"] else "ms"
        parts.append(f"{total // _UNITS_US[unit]} {unit}")
    elif total:
        seconds, rest = divmod(total, 1_000_000)
        fraction = f".{rest:06d}".rstrip("0") if rest else ""
        parts.append(f"{seconds}{fraction} s")
    return sign + " ".join(parts)


def parse_duration(text: str) -> dt.timedelta:
    """Read ``1 h 30 min``, ``-2.5 s`` or Python's own ``1 day, 2:03:04``."""
    stripped = text.strip()
    if (clock := _CLOCK.fullmatch(stripped)) is not None:
        days = dt.timedelta(days=int(clock["days"] or 0))
        rest = dt.timedelta(
            hours=int(clock["hours"]),
            minutes=int(clock["minutes"]),
            seconds=int(clock["seconds"]),
            microseconds=_microseconds(clock["fraction"] or ""),
        )
        return days - rest if clock["sign"] else days + rest
    sign = -1 if stripped.startswith("-") else 1
    rest_text = stripped.lstrip("+-") if stripped[:2] not in ("--", "++") else stripped
    total, position = 0, 0
    while position < len(rest_text) or not rest_text:
        part = _PART.match(rest_text, position)
        if part is None:
            raise ValueError("write a duration as '1 h 30 min', '2.5 s' or '250 ms'")
        total += _part_us(*part.groups())
        position = part.end()
    return dt.timedelta(microseconds=sign * total)


def _part_us(whole: str, fraction: str | None, power: str | None, unit: str) -> int:
    """Return one number and unit in microseconds, without rounding."""
    exponent = int(power or 0)
    if abs(exponent) > _LARGEST_EXPONENT:
        raise ValueError("a duration within what a timedelta holds")
    digits = int(whole + (fraction or "")) * _UNITS_US[unit]
    exponent -= len(fraction or "")
    if exponent >= 0:
        return int(digits * 10**exponent)
    value, rest = divmod(digits, 10**-exponent)
    if rest:
        raise ValueError("a timedelta holds microseconds: fewer digits")
    return int(value)


# ---- plain words of YAML: their kind, and numbers to and from text

_TIMESTAMP = (
    r"\d{4}-\d\d?-\d\d?"
    r"(?:(?:[Tt]|[ \t]+)\d\d?:\d\d(?::\d\d(?:\.\d*)?)?"
    r"(?:[ \t]*(?:Z|[-+]\d\d?(?::?\d\d(?::\d\d(?:\.\d+)?)?)?))?)?"
)
_NULL = r"~|null|Null|NULL|"
_SPECIAL = r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"

_PATTERNS = {
    "1.2": [
        ("null", _NULL),
        ("bool", r"true|True|TRUE|false|False|FALSE"),
        ("int", r"[-+]?(?:\d[\d_]*|0b[01_]+|0o[0-7_]+|0x[\da-fA-F_]+)"),
        (
            "float",
            r"[-+]?(?:\d[\d_]*\.[\d_]*|\.\d[\d_]*)(?:[eE][-+]?\d+)?"
            r"|[-+]?\d[\d_]*[eE][-+]?\d+|" + _SPECIAL,
        ),
        ("timestamp", _TIMESTAMP),
        ("merge", "<<"),
    ],
    "1.1": [
        ("null", _NULL),
        (
            "bool",
            r"true|True|TRUE|false|False|FALSE|yes|Yes|YES|no|No|NO|on|On|ON"
            r"|off|Off|OFF",
        ),
        (
            "int",
            r"[-+]?(?:0b[01_]+|0[0-7_]+|0|[1-9][\d_]*|0x[\da-fA-F_]+"
            r"|[1-9][\d_]*(?::[0-5]?\d)+)",
        ),
        (
            "float",
            r"[-+]?(?:\d[\d_]*\.[\d_]*|\.\d[\d_]*)(?:[eE][-+]\d+)?"
            r"|[-+]?\d[\d_]*(?::[0-5]?\d)+\.[\d_]*|" + _SPECIAL,
        ),
        ("timestamp", _TIMESTAMP),
        ("merge", "<<"),
    ],
}
_COMPILED = {
    dialect: [(kind, re.compile(pattern, re.ASCII)) for kind, pattern in rows]
    for dialect, rows in _PATTERNS.items()
}
# Quoted, because other readers give these words another type.
_QUOTED_WORDS = frozenset({"y", "Y", "n", "N", "="})
_PLAIN_START = re.compile(r"[^\W\d]|[/.\d(^+<]")
_FLOW_MARKS = re.compile(r"[\[\]{},]|:\s|:$|\s#")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
# Python does not convert longer decimal numbers; longer ones are hexadecimal.
_LONGEST_DECIMAL_BITS = 13_000
_BASES = {"0b": 2, "0o": 8, "0x": 16}


def kind_of(text: str, dialect: str = "1.2") -> str:
    """Return the kind of an unquoted word: null, bool, int, float, timestamp, str."""
    for kind, pattern in _COMPILED[dialect]:
        if pattern.fullmatch(text):
            return kind
    return "str"


def parse_bool(text: str) -> bool:
    """Read a word of kind bool."""
    return text.lower() in {"true", "yes", "on"}


def parse_int(text: str, dialect: str = "1.2") -> int:
    """Read a word of kind int; `ValueError` if other readers give another value."""
    sign = -1 if text.startswith("-") else 1
    digits = text.lstrip("+-").replace("_", "")
    if len(digits) > FILES.digits:
        raise ValueError(f"{len(digits)} digits, at most {FILES.digits} are read")
    if ":" in digits:
        return sign * int(_sexagesimal(digits))
    if (base := _BASES.get(digits[:2])) is not None:
        return sign * int(digits[2:], base)
    if len(digits) > 1 and digits.startswith("0"):
        if dialect == "1.1":
            return sign * int(digits, 8)
        raise ValueError(
            f"a leading zero is octal in some readers; write {digits.lstrip('0') or 0}"
            f" or 0o{digits.lstrip('0') or 0}"
        )
    return sign * int(digits)


def parse_float(text: str) -> float:
    """Read a word of kind int or float as a float."""
    digits = text.replace("_", "").lower()
    if digits.endswith((".inf", ".nan")):
        return float(digits.replace(".", ""))
    if ":" in digits:
        sign = -1.0 if digits.startswith("-") else 1.0
        return sign * _sexagesimal(digits.lstrip("+-"))
    return float(digits)


def _sexagesimal(digits: str) -> float:
    """Read 22:30 as YAML 1.1 does, in base 60."""
    value = 0.0
    for part in digits.split(":"):
        value = value * 60 + float(part)
    return value


def format_int(value: int) -> str:
    """Write an int of any size."""
    return hex(value) if value.bit_length() > _LONGEST_DECIMAL_BITS else str(value)


def format_float(value: float) -> str:
    """Write a float so that every YAML reader reads the same float."""
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    return dotted(repr(float(value)))


def dotted(digits: str) -> str:
    """Add a dot to a number: PyYAML reads ``1e-05`` as a string."""
    mantissa, mark, exponent = digits.partition("e")
    if "." not in mantissa:
        mantissa += ".0"
    if mark and exponent[0] not in "+-":
        exponent = "+" + exponent
    return mantissa + mark + exponent


def quoted(text: str) -> str:
    """Write a string, in quotes if a reader could give it another type."""
    if text and not text.isprintable():
        return '"' + "".join(map(_escaped, text)) + '"'
    if (
        not _PLAIN_START.match(text)
        or text != text.strip()
        or _FLOW_MARKS.search(text)
        or text in _QUOTED_WORDS
        or text.startswith("...")
        or kind_of(text) != "str"
        or kind_of(text, "1.1") != "str"
    ):
        return "'" + text.replace("'", "''") + "'"
    return text


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


# ---- numbers, text, paths and their like

Reading = Callable[[Scalar, str], Any]


class ScalarError(ValueError):
    """A scalar is not of the type; `hint` is what to do, if known."""

    def __init__(self, hint: str = "", expected: str = "") -> None:
        super().__init__(hint)
        self.hint = hint
        self.expected = expected


def is_leaf(annotation: Any) -> bool:
    """Return whether the type is a single value."""
    return annotation in _READERS or (
        isinstance(annotation, type) and issubclass(annotation, PurePath)
    )


def write_leaf(value: Any, annotation: Any, exact: bool) -> Scalar | None:
    """Write a value of the type; ``None`` if it is of another type."""
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
    """Return the equal value of a wider type, or ``None``."""
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
    """Read a scalar as the type; `ScalarError` if it is not one."""
    if issubclass(annotation, PurePath):
        return annotation(_text(node, dialect))
    if exact and annotation is float and node.kind == "int":
        raise ScalarError
    try:
        return _READERS[annotation](node, dialect)
    except ScalarError:
        raise
    except (ValueError, ArithmeticError) as error:
        raise ScalarError(str(error)) from error


def read_untyped(node: Scalar, dialect: str = "1.2") -> Any:
    """Read a scalar as the type that YAML gives it."""
    if node.kind == "timestamp":
        return parse_datetime(node.text) if ":" in node.text else _date(node, dialect)
    return _READERS[_BY_KIND[node.kind]](node, dialect)


def described(node: Scalar) -> str:
    """Return the kind of a scalar, and its text in the file, for messages."""
    if node.kind == "null":
        return "null"
    if node.kind == "str":
        return f"str {shown(node.text)}"
    timestamp = "datetime" if ":" in node.text else "date"
    names = {"timestamp": timestamp, "binary": "bytes"}
    name = names.get(node.kind, node.kind)
    return f"{name} {shown(node.text)[1:-1]}"


def _expect(node: Scalar, *kinds: str) -> str:
    if node.kind not in kinds:
        raise ScalarError
    return node.text


def _null(node: Scalar, dialect: str) -> None:
    _expect(node, "null")


def _bool(node: Scalar, dialect: str) -> bool:
    if node.kind != "bool" and node.text.lower() in ("yes", "no", "on", "off"):
        raise ScalarError("YAML 1.2: write true or false")
    return parse_bool(_expect(node, "bool"))


def _int(node: Scalar, dialect: str) -> int:
    return parse_int(_expect(node, "int"), dialect)


def _float(node: Scalar, dialect: str) -> float:
    if node.kind != "int":
        return parse_float(_expect(node, "float"))
    whole = parse_int(node.text, dialect)
    value = float(whole)
    if int(value) != whole:
        raise ScalarError("no float has exactly this value; write it with a dot")
    return -value if value == 0 and node.text.startswith("-") else value


def _text(node: Scalar, dialect: str) -> str:
    # A bare date is text in YAML 1.2; numbers, booleans and null are not.
    if node.kind not in ("str", "timestamp", "merge"):
        raise ScalarError(f"for text write '{node.text}' with quotes")
    return node.text


def _bytes(node: Scalar, dialect: str) -> bytes:
    kinds = ("binary", "str") if node.tag else ("binary",)
    text = "".join(_expect(node, *kinds).split())
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ScalarError(f"not base64: {error}") from error


_RANGE = re.compile(r"range\((\s*-?\d{1,25}\s*(?:,\s*-?\d{1,25}\s*){0,2})\)")


def _complex(node: Scalar, dialect: str) -> complex:
    if node.kind in ("int", "float"):
        return complex(parse_float(node.text))
    return complex(_expect(node, "str"))


def _range(node: Scalar, dialect: str) -> range:
    found = _RANGE.fullmatch(_expect(node, "str"))
    if found is None:
        raise ScalarError("a range, as range(0, 10) or range(0, 10, 2)")
    return range(*(int(part) for part in found[1].split(",")))


def _date(node: Scalar, dialect: str) -> dt.date:
    text = _expect(node, "timestamp", "str")
    if ":" in text:
        raise ScalarError("a date without a time")
    return parse_date(text)


def _datetime(node: Scalar, dialect: str) -> dt.datetime:
    text = _expect(node, "timestamp", "str")
    if ":" not in text:
        raise ScalarError(f"add the time, as {text}T00:00:00")
    return parse_datetime(text)


def _timedelta(node: Scalar, dialect: str) -> dt.timedelta:
    if node.kind in ("int", "float"):
        return parse_duration(node.text + " s")
    return parse_duration(_expect(node, "str"))


def _decimal(node: Scalar, dialect: str) -> Decimal:
    try:
        text = _expect(node, "str", "int", "float")
        special = node.kind == "float" and text.lower().endswith(("inf", "nan"))
        return Decimal(text.replace(".", "") if special else text)
    except InvalidOperation as error:
        raise ScalarError("a decimal number, as '0.10'") from error


_READERS: dict[Any, Reading] = {
    NoneType: _null,
    bool: _bool,
    int: _int,
    float: _float,
    str: _text,
    bytes: _bytes,
    complex: _complex,
    range: _range,
    dt.date: _date,
    dt.datetime: _datetime,
    dt.time: lambda node, dialect: dt.time.fromisoformat(_expect(node, "str")),
    dt.timedelta: _timedelta,
    Decimal: _decimal,
    Fraction: lambda node, dialect: Fraction(_expect(node, "str", "int", "float")),
    uuid.UUID: lambda node, dialect: uuid.UUID(_expect(node, "str")),
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
    int: ("int", format_int),
    float: ("float", format_float),
    str: ("str", str),
    bytes: ("binary", lambda value: base64.b64encode(value).decode("ascii")),
    complex: ("str", lambda value: repr(value).strip("()")),
    range: ("str", repr),
    dt.date: ("timestamp", dt.date.isoformat),
    dt.datetime: ("timestamp", dt.datetime.isoformat),
    dt.time: ("str", dt.time.isoformat),
    dt.timedelta: ("str", format_duration),
    Decimal: ("str", str),
    Fraction: ("str", str),
    uuid.UUID: ("str", str),
}

# ---- enums and literals

# An enum whose values are all str or int is written by value, as the originals do; any
# other by the name of the member.


def _by_value(choices: type[enum.Enum]) -> bool:
    """Return whether members are written by value."""
    return all(
        type(_bare(member.value)) in (str, int)
        for member in choices.__members__.values()
    )


def _bare(value: Any) -> Any:
    """Return a value of an IntEnum or StrEnum as plain int or str."""
    for plain in (bool, int, str, float):
        if isinstance(value, plain):
            return plain(value)
    return value


def write_enum(value: Any, choices: type[enum.Enum]) -> Scalar | None:
    """Write a member; ``None`` if the value is not one."""
    if not isinstance(value, choices):
        return None
    if isinstance(value, enum.Flag) and issubclass(choices, enum.Flag):
        names = [member.name or "" for member in choices if member in value]
        joined = choices(0)
        for name in names:
            joined |= choices[name]
        if names and joined == value:
            return Scalar(text=" | ".join(names))
        return Scalar(text=format_int(int(value.value)), kind="int")
    if not _by_value(choices):
        return Scalar(text=value.name)
    plain = _bare(value.value)
    return write_leaf(plain, type(plain), exact=True)


def read_enum(node: YamlNode, choices: type[enum.Enum], dialect: str = "1.2") -> Any:
    """Read a member by value or by name; `ScalarError` lists the members."""
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
    raise ScalarError(hint, "one of " + ", ".join(map(repr, words)))


def _read_flag(node: Scalar, choices: type[enum.Flag], value: Any) -> Any:
    """Read ``READ | WRITE`` or its number."""
    if type(value) is int:
        try:
            return choices(value)
        except ValueError as error:
            raise ScalarError("", f"flags of {choices.__name__}") from error
    combined = choices(0)
    for name in (part.strip() for part in node.text.split("|")):
        if name not in choices.__members__ or node.kind != "str":
            names = list(choices.__members__)
            expected = "flags joined by '|', of " + ", ".join(map(repr, names))
            raise ScalarError(did_you_mean(name, names), expected)
        combined |= choices[name]
    return combined


def _words(choices: type[enum.Enum]) -> list[str]:
    if _by_value(choices):
        return [str(_bare(member.value)) for member in choices]
    return [member.name for member in choices]


def _same_items(node: Sequence, values: tuple[Any, ...], dialect: str) -> bool:
    """Return whether a list in the file equals the value of a member."""
    items = [
        _plain(item, dialect) if isinstance(item, Scalar) else node
        for item in node.items
    ]
    return items == list(values)


def _plain(node: Scalar, dialect: str) -> Any:
    """Read a scalar untyped, or as text if it is damaged."""
    try:
        return read_untyped(node, dialect)
    except ValueError:
        return node.text


def write_literal(value: Any, annotation: Any) -> Scalar | None:
    """Write one of the values of a ``Literal``; ``None`` for another value."""
    for choice in get_args(annotation):
        if type(choice) is type(value) and choice == value:
            if isinstance(choice, enum.Enum):
                return write_enum(choice, type(choice))
            return write_leaf(choice, type(choice), exact=True)
    return None


def read_literal(node: YamlNode, annotation: Any, dialect: str = "1.2") -> Any:
    """Read one of the values of a ``Literal``; `ScalarError` lists them."""
    choices = get_args(annotation)
    for choice in choices:
        if not isinstance(node, Scalar):
            break
        try:
            if isinstance(choice, enum.Enum):
                value = read_enum(node, type(choice), dialect)
            else:
                value = read_leaf(node, type(choice), True, dialect)
        except ScalarError:
            continue
        if value == choice:
            return choice
    words = [choice for choice in choices if isinstance(choice, str)]
    hint = did_you_mean(node.text, words) if isinstance(node, Scalar) else ""
    raise ScalarError(hint, "one of " + ", ".join(map(repr, choices)))


# ---- conversions of ``strict=False``, each reported as a warning by the reader


def read_leniently(node: Scalar, annotation: Any, dialect: str) -> Any:
    """Read a scalar of another kind as the type, or ``None`` if its meaning is open."""
    if node.kind == "null":
        return None
    if annotation is str:
        return node.text
    if annotation is int and node.kind == "float":
        value = parse_float(node.text)
        return int(value) if value.is_integer() else None
    for kind in (kind_of(node.text), "str"):
        other = Scalar(line=node.line, text=node.text, kind=kind)
        try:
            return read_leaf(other, annotation, False, dialect)
        except ScalarError:
            continue
    return None
