"""Literals: what kind of value a plain YAML word is, and numbers to and from text.

Two dialects: "1.2" is YAML 1.2, ours; "1.1" is what PyYAML, and so the originals,
reads, where ``no`` is false and ``22:30`` is 1350.
"""

from __future__ import annotations

import math
import re

from ataraxis.config.limits import FILES

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
# Words other readers take for something else; quoted, never refused.
_QUOTED_WORDS = frozenset({"y", "Y", "n", "N", "="})
_PLAIN_START = re.compile(r"[^\W\d]|[/.\d(^+<]")
_FLOW_MARKS = re.compile(r"[\[\]{},]|:\s|:$|\s#")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
# Python refuses to convert longer decimal numbers; hexadecimal has no such limit.
_LONGEST_DECIMAL_BITS = 13_000
_BASES = {"0b": 2, "0o": 8, "0x": 16}


def kind_of(text: str, dialect: str = "1.2") -> str:
    """Tell the kind of an unquoted word: null, bool, int, float, timestamp, str."""
    for kind, pattern in _COMPILED[dialect]:
        if pattern.fullmatch(text):
            return kind
    return "str"


def parse_bool(text: str) -> bool:
    """Read a word of kind bool."""
    return text.lower() in {"true", "yes", "on"}


def parse_int(text: str, dialect: str = "1.2") -> int:
    """Read a word of kind int; ValueError where two readers would disagree."""
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
            f"a leading zero is octal to some readers; write {digits.lstrip('0') or 0}"
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
    """Read 22:30 as YAML 1.1 does: digits to the base of 60."""
    value = 0.0
    for part in digits.split(":"):
        value = value * 60 + float(part)
    return value


def format_int(value: int) -> str:
    """Write an int of any size."""
    return hex(value) if value.bit_length() > _LONGEST_DECIMAL_BITS else str(value)


def format_float(value: float) -> str:
    """Write a float so that every YAML reader takes it for the same float."""
    if math.isnan(value):
        return ".nan"
    if math.isinf(value):
        return ".inf" if value > 0 else "-.inf"
    return dotted(repr(float(value)))


def dotted(digits: str) -> str:
    """Give a number a dot: PyYAML takes ``1e-05`` for a string, ``1.0e-05`` not."""
    mantissa, mark, exponent = digits.partition("e")
    if "." not in mantissa:
        mantissa += ".0"
    if mark and exponent[0] not in "+-":
        exponent = "+" + exponent
    return mantissa + mark + exponent


def quoted(text: str) -> str:
    """Write a string, in quotes where a reader could take it for something else."""
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
    """Write one character of a double-quoted string."""
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
