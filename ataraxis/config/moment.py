"""Dates, times and durations as text, exact to the microsecond.

Python's own parser drops digits beyond the sixth silently; here they are refused.
"""

from __future__ import annotations

import datetime as dt
import re

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
    """Read ``2026-11-20 19:11:42.5+01:00``, in every form YAML allows."""
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


def format_datetime(value: dt.datetime) -> str:
    """Write a datetime as ISO 8601."""
    return value.isoformat()


def _microseconds(digits: str) -> int:
    """Read the digits after the dot of a second."""
    if digits[6:].strip("0"):
        raise ValueError("a datetime holds microseconds: at most 6 digits")
    return int(digits[:6].ljust(6, "0"))


def _zone(text: str | None) -> dt.tzinfo | None:
    """Read an offset from UTC."""
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
    """Write a duration in the units people use, as ``1 h 30 min`` or ``2.5 s``."""
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
    while position < len(rest_text):
        part = _PART.match(rest_text, position)
        if part is None:
            raise ValueError("write a duration as '1 h 30 min', '2.5 s' or '250 ms'")
        total += _part_us(*part.groups())
        position = part.end()
    if not rest_text:
        raise ValueError("write a duration as '1 h 30 min', '2.5 s' or '250 ms'")
    return dt.timedelta(microseconds=sign * total)


def _part_us(whole: str, fraction: str | None, power: str | None, unit: str) -> int:
    """Turn one number and unit into microseconds, without rounding."""
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
