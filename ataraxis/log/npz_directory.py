"""The central directory of an npz archive as arrays, read at once, not in a loop."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.errors import CorruptFrame
from ataraxis.log.entries import SUFFIX, parse_stem
from ataraxis.log.npz import (
    CENTRAL,
    CENTRAL_MAGIC,
    END,
    END_64,
    END_64_MAGIC,
    END_MAGIC,
    LOCATOR,
    LOCATOR_MAGIC,
    WIDE_ID,
    WRITTEN_ID,
)

MEMBER = np.dtype(
    [
        ("stamp", "<u8"),
        ("copy", "<u8"),
        ("at", "<u8"),
        ("packed_bytes", "<u8"),
        ("nbytes", "<u8"),
        ("written_ns", "<u8"),
        ("name_at", "<u8"),
        ("source", "<u4"),
        ("crc", "<u4"),
        ("name_bytes", "<u2"),
        ("method", "<u2"),
        ("is_entry", "?"),
    ]
)
"""One row a member; `at`: where its local header begins, `name_at`: a name of it."""

FAR = 2**32 - 1
"""A size or place that is written in the extra field."""

_FIXED = {"method": (10, "<u2"), "crc": (16, "<u4"), "packed_bytes": (20, "<u4"),
          "nbytes": (24, "<u4"), "at": (42, "<u4")}  # fmt: skip
_POWERS = np.array([10**k for k in range(20)], np.uint64)
_ZERO, _UNDERSCORE = ord("0"), ord("_")

Table = NDArray[np.void]


def read_directory(data: NDArray[np.uint8], dtype: np.dtype[Any] = MEMBER) -> Table:
    """Read the central directory; `CorruptFrame` if it is not whole."""
    start, end, count = _find_directory(data)
    table = np.zeros(count, dtype)
    at, done, block = start, 0, 64
    while done < count:
        if end - at < CENTRAL.size or bytes(data[at : at + 4]) != CENTRAL_MAGIC:
            raise CorruptFrame(f"its directory is damaged at byte {at}")
        lengths = data[at + 28 : at + 34].view("<u2")
        stride = CENTRAL.size + int(lengths.sum())
        most = min(block, count - done, (end - at) // stride)
        if most == 0:
            raise CorruptFrame(f"its directory is cut off at byte {at}")
        rows = data[at : at + most * stride].reshape(most, stride)
        alike = (rows[:, :4] == rows[0, :4]).all(1) & (
            rows[:, 28:34] == rows[0, 28:34]
        ).all(1)
        run = most if alike.all() else int(np.argmin(alike))
        _fill(table[done : done + run], rows[:run], at, int(lengths[0]), data)
        at, done = at + run * stride, done + run
        block = min(block * 2, 1 << 16) if run == most else 64
    if at != end:
        raise CorruptFrame(f"its directory has {end - at} bytes too many")
    return table


def _find_directory(data: NDArray[np.uint8]) -> tuple[int, int, int]:
    """Find the central directory: its first byte, the byte after it, its members."""
    tail = max(0, len(data) - END.size - 65535)
    found = bytes(data[tail:]).rfind(END_MAGIC)
    if found < 0 or len(data) - tail - found < END.size:
        raise CorruptFrame("it has no end: it was cut off, or is no archive")
    end = tail + found
    *_, count, size, start, _ = END.unpack_from(data.data, end)
    locator = end - LOCATOR.size
    if locator >= 0 and bytes(data[locator : locator + 4]) == LOCATOR_MAGIC:
        at = LOCATOR.unpack_from(data.data, locator)[2]
        if at + END_64.size > locator or bytes(data[at : at + 4]) != END_64_MAGIC:
            raise CorruptFrame("the end of its directory is damaged")
        *_, count, size, start = END_64.unpack_from(data.data, at)
        end = at
    if start + size != end or count * CENTRAL.size > size:
        raise CorruptFrame("its directory is not where its end says")
    return start, end, count


def _fill(
    table: Table,
    rows: NDArray[np.uint8],
    at: int,
    name_bytes: int,
    data: NDArray[np.uint8],
) -> None:
    """Read members whose records have equal lengths."""
    for field, (column, kind) in _FIXED.items():
        width = int(kind[2])
        table[field] = _column(rows, column, width).view(kind)[:, 0]
    stride = rows.shape[1]
    table["name_bytes"] = name_bytes
    table["name_at"] = at + CENTRAL.size + stride * np.arange(len(rows), dtype="u8")
    _read_extras(table, rows, CENTRAL.size + name_bytes)
    names = rows[:, CENTRAL.size : CENTRAL.size + name_bytes]
    is_regular = _read_names(table, names)
    for i in np.flatnonzero(~is_regular):
        read_name(table, int(i), bytes(names[i]))


def _column(rows: NDArray[np.uint8], start: int, width: int) -> NDArray[np.uint8]:
    return np.ascontiguousarray(rows[:, start : start + width])


def _read_extras(table: Table, rows: NDArray[np.uint8], start: int) -> None:
    """Read sizes past 32 bits, and when sources were written."""
    is_far = {f: table[f] == FAR for f in ("nbytes", "packed_bytes", "at")}
    extra = rows[:, start:]
    if extra.shape[1] < 4:
        return
    at = 0
    # The layout of the first row's fields; where another row's differs, one by one.
    while at + 4 <= extra.shape[1]:
        kind, size = _column(extra[:1], at, 4).view("<u2")[0]
        same = (extra[:, at : at + 4] == extra[0, at : at + 4]).all(1)
        if not same.all() or at + 4 + size > extra.shape[1]:
            break
        if kind == WRITTEN_ID and size == 8:
            table["written_ns"] = _column(extra, at + 4, 8).view("<u8")[:, 0]
        elif kind == WIDE_ID:
            here = at + 4
            for field, far in is_far.items():
                if far.all() and here + 8 <= at + 4 + size:
                    table[field] = _column(extra, here, 8).view("<u8")[:, 0]
                    here += 8
                elif far.any():
                    raise CorruptFrame("its directory mixes sizes in an unknown way")
        at += 4 + int(size)


def _read_names(table: Table, names: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Read the names that look like the first; which these are."""
    first = bytes(names[0])
    parts = first.removesuffix(b".npy").split(b"_")
    widths = [len(part) for part in parts]
    if not 2 <= len(parts) <= 3 or not all(0 < width < 20 for width in widths[::2]):
        return np.zeros(len(names), np.bool_)
    if not 0 < widths[1] <= 20 or not first.endswith(b".npy"):
        return np.zeros(len(names), np.bool_)
    digits = names - np.uint8(_ZERO)
    good = (names[:, -4:] == names[0, -4:]).all(1)
    at, values = 0, []
    for k, width in enumerate(widths):
        if k:
            good &= names[:, at - 1] == _UNDERSCORE
        part = digits[:, at : at + width]
        good &= (part < 10).all(1)
        values.append(part.astype(np.uint64) @ _POWERS[:width][::-1])
        at += width + 1
    if widths[1] == 20:
        # 20 digits may pass 64 bits: the few such names are read one by one.
        good &= digits[:, widths[0] + 1] < 2
        good &= (values[1] >= 10**19) | (digits[:, widths[0] + 1] == 0)
    good &= values[0] < 2**32
    good = np.asarray(good, np.bool_)
    table["source"], table["stamp"] = values[0], values[1]
    table["copy"] = values[2] if len(values) == 3 else 0
    table["is_entry"] = good
    return good


def read_name(table: Table, i: int, name: bytes) -> None:
    """Read one name, that of row `i`."""
    text = name.decode("latin1")
    key = parse_stem(text.removesuffix(SUFFIX)) if text.endswith(SUFFIX) else None
    table["is_entry"][i] = key is not None
    table["stamp"][i], table["source"][i], table["copy"][i] = key or (0, 0, 0)


def text_at(data: NDArray[np.uint8], at: int, count: int) -> str:
    """Return a name as text; any bytes are some."""
    return bytes(data[at : at + count]).decode("latin1")
