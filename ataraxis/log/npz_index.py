"""What is in an npz archive: its directory as arrays, read at once, not in a loop.

An archive that was cut off has no directory: then its members are searched for, and
those whose checksum holds are taken.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.errors import CorruptFrame
from ataraxis.frame import crc32
from ataraxis.log.entries import SUFFIX, parse_stem
from ataraxis.log.npz import (
    CENTRAL,
    CENTRAL_MAGIC,
    DEFLATED,
    END,
    END_64,
    END_64_MAGIC,
    END_MAGIC,
    LOCAL,
    LOCAL_MAGIC,
    LOCATOR,
    LOCATOR_MAGIC,
    STORED,
    WIDE_ID,
    WRITTEN_ID,
    Member,
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

_U32 = 2**32 - 1
_FIXED = {"method": (10, "<u2"), "crc": (16, "<u4"), "packed_bytes": (20, "<u4"),
          "nbytes": (24, "<u4"), "at": (42, "<u4")}  # fmt: skip
_POWERS = np.array([10**k for k in range(20)], np.uint64)
_ZERO, _UNDERSCORE = ord("0"), ord("_")

Table = NDArray[np.void]


def open_bytes(path: str | Path) -> NDArray[np.uint8]:
    """Map a file, read-only; an empty one is an empty array."""
    with open(path, "rb") as file:
        if not file.seek(0, 2):
            return np.empty(0, np.uint8)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), "u1")


class NpzIndex:
    """The members of one archive.

    Parameters
    ----------
    path : str or Path
        An npz of any generation, whole or not.
    dtype : dtype, optional
        `MEMBER`, or one that has its fields.

    Attributes
    ----------
    table : ndarray of MEMBER
        Members in the order of the archive.
    problem : str or None
        Why its directory could not be used, and members were searched for.
    damaged : list of str
        What the search found broken.
    """

    def __init__(self, path: str | Path, dtype: np.dtype[Any] = MEMBER) -> None:
        self.path = Path(path)
        self.data = open_bytes(path)
        self.view = self.data.data
        self.problem: str | None = None
        self.damaged: list[str] = []
        try:
            self.table = read_directory(self.data, dtype)
        except CorruptFrame as error:
            self.problem = str(error)
            found, self.damaged = search(self.data)
            self.table = np.zeros(len(found), dtype)
            for name in MEMBER.names or ():
                self.table[name] = found[name]

    def name(self, row: Any) -> str:
        """Return the name of a member, with suffix."""
        return _text(self.data, int(row["name_at"]), int(row["name_bytes"]))

    def member(self, row: Any) -> Member:
        """Return a member as `NpzWriter.add_packed` takes it."""
        start = int(row["name_at"])
        return Member(
            bytes(self.view[start : start + int(row["name_bytes"])]),
            int(row["method"]),
            int(row["crc"]),
            int(row["packed_bytes"]),
            int(row["nbytes"]),
            int(row["written_ns"]),
        )

    def packed(self, row: Any) -> memoryview:
        """Return the packed bytes of a member: a view.

        Raises
        ------
        CorruptFrame
            There is no member where the directory says.
        """
        at = int(row["at"])
        if at + LOCAL.size > len(self.data) or self.view[at : at + 4] != LOCAL_MAGIC:
            raise CorruptFrame(f"{self.path}: no member at byte {at}")
        name_bytes, extra_bytes = struct.unpack_from("<2H", self.view, at + 26)
        start = at + LOCAL.size + name_bytes + extra_bytes
        end = start + int(row["packed_bytes"])
        if end > len(self.data):
            raise CorruptFrame(f"{self.path}: the member at byte {at} is cut off")
        return self.view[start:end]

    def read(self, row: Any, *, verify: bool = True) -> memoryview | bytes:
        """Return the npy file of a member: a view of a stored one, else new bytes.

        Raises
        ------
        CorruptFrame
            Its bytes are not what was written.
        """
        packed: memoryview | bytes = self.packed(row)
        data = unpack(packed, int(row["method"]), int(row["nbytes"]))
        if verify and crc32(data) != int(row["crc"]):
            raise CorruptFrame(f"{self.path}: {self.name(row)}: wrong checksum")
        return data


def unpack(packed: memoryview | bytes, method: int, nbytes: int) -> memoryview | bytes:
    """Return the bytes of a member; `CorruptFrame` if they are not `nbytes`."""
    if method == DEFLATED:
        inflate = zlib.decompressobj(-15)
        try:
            packed = inflate.decompress(packed, nbytes + 1)
        except zlib.error as error:
            raise CorruptFrame(f"a member cannot be inflated: {error}") from error
    elif method != STORED:
        raise CorruptFrame(f"a member is packed by method {method}, not 0 or 8")
    if len(packed) != nbytes:
        raise CorruptFrame(f"a member has {len(packed)} bytes, expected {nbytes}")
    return packed


# ---- the directory


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
        _read_name(table, int(i), bytes(names[i]))


def _column(rows: NDArray[np.uint8], start: int, width: int) -> NDArray[np.uint8]:
    return np.ascontiguousarray(rows[:, start : start + width])


def _read_extras(table: Table, rows: NDArray[np.uint8], start: int) -> None:
    """Read sizes past 32 bits, and when sources were written."""
    is_far = {f: table[f] == _U32 for f in ("nbytes", "packed_bytes", "at")}
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
    if widths[1] > 20 or not first.endswith(b".npy"):
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


def _read_name(table: Table, i: int, name: bytes) -> None:
    """Read one name that is unlike its neighbours."""
    text = name.decode("latin1")
    key = parse_stem(text.removesuffix(SUFFIX)) if text.endswith(SUFFIX) else None
    table["is_entry"][i] = key is not None
    table["stamp"][i], table["source"][i], table["copy"][i] = key or (0, 0, 0)


# ---- without a directory


def search(data: NDArray[np.uint8]) -> tuple[Table, list[str]]:
    """Find the members of an archive whose directory is missing or damaged.

    Returns
    -------
    table : ndarray of MEMBER
        Members whose checksum holds.
    damaged : list of str
        Names of the others that were found.
    """
    view = data.data
    buffer = data.base if isinstance(data.base, mmap.mmap) else bytes(data)
    rows, damaged = [], []
    at = buffer.find(LOCAL_MAGIC)
    while at >= 0:
        end = at + 4
        row = _local(data, at)
        if row is not None:
            start = int(row["name_at"]) + int(row["name_bytes"])
            start += struct.unpack_from("<H", view, at + 28)[0]
            stop = start + int(row["packed_bytes"])
            if stop <= len(data) and _holds(view[start:stop], row):
                rows.append(row)
                end = stop
            else:
                name = _text(data, int(row["name_at"]), int(row["name_bytes"]))
                damaged.append(f"{name}: cut off or changed")
        at = buffer.find(LOCAL_MAGIC, end)
    table = np.zeros(len(rows), MEMBER)
    for i, row in enumerate(rows):
        table[i] = row
    return table, damaged


def _local(data: NDArray[np.uint8], at: int) -> Any:
    """Read a local header; None if there is none."""
    if at + LOCAL.size > len(data):
        return None
    fields = LOCAL.unpack_from(data.data, at)
    _, _, _, method, _, _, crc, packed, nbytes, name_bytes, extra_bytes = fields
    name_at = at + LOCAL.size
    if not 4 < name_bytes < 256 or name_at + name_bytes + extra_bytes > len(data):
        return None
    table = np.zeros(1, MEMBER)
    if packed == _U32 or nbytes == _U32:
        extra = data[name_at + name_bytes :][:extra_bytes]
        if extra_bytes < 20 or struct.unpack_from("<2H", extra.data) != (WIDE_ID, 16):
            return None
        nbytes, packed = struct.unpack_from("<2Q", extra.data, 4)
    for field, value in (
        ("at", at), ("name_at", name_at), ("name_bytes", name_bytes), ("crc", crc),
        ("packed_bytes", packed), ("nbytes", nbytes), ("method", method),
    ):  # fmt: skip
        table[field] = value
    _read_name(table, 0, bytes(data[name_at : name_at + name_bytes]))
    return table[0]


def _holds(packed: memoryview, row: Any) -> bool:
    try:
        data = unpack(packed, int(row["method"]), int(row["nbytes"]))
    except CorruptFrame:
        return False
    return crc32(data) == int(row["crc"])


def _text(data: NDArray[np.uint8], at: int, count: int) -> str:
    return bytes(data[at : at + count]).decode("latin1")
