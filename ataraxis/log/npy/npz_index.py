"""Index of an npz archive, from its directory or, if that is damaged, its members.

The directory has no checksum: where the two disagree, an intact member is right.
"""

from __future__ import annotations

import itertools
import mmap
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ataraxis.errors import CorruptFrame
from ataraxis.frame import crc32
from ataraxis.log.npy.entries import SUFFIX, EntryKey, check_entry, parse_stem
from ataraxis.log.npy.npz_writer import (
    CENTRAL,
    CENTRAL_MAGIC,
    END,
    END_64,
    END_64_MAGIC,
    END_MAGIC,
    LOCAL,
    LOCAL_MAGIC,
    LOCATOR,
    LOCATOR_MAGIC,
    WIDE_ID,
    WRITTEN_ID,
    Member,
    unpack,
)
from ataraxis.log.selection import Problem

# ---- the central directory as arrays

MEMBER = np.dtype(
    [
        ("stamp", "<u8"), ("copy", "<u8"), ("at", "<u8"), ("packed_bytes", "<u8"),
        ("nbytes", "<u8"), ("written_ns", "<u8"), ("name_at", "<u8"),
        ("source", "<u4"), ("crc", "<u4"), ("name_bytes", "<u2"), ("method", "<u2"),
        ("is_entry", "?"),
    ]
)  # fmt: skip
"""A member; `at`: offset of its local header, `name_at`: offset of its name."""

FAR = 2**32 - 1
"""Marks a size or offset that is in the extra field."""

_FIXED = {"method": (10, "<u2"), "crc": (16, "<u4"), "packed_bytes": (20, "<u4"),
          "nbytes": (24, "<u4"), "at": (42, "<u4")}  # fmt: skip
_POWERS = np.array([10**k for k in range(20)], np.uint64)
_ZERO, _UNDERSCORE = ord("0"), ord("_")

Table = NDArray[np.void]


def read_directory(data: NDArray[np.uint8], dtype: np.dtype[Any] = MEMBER) -> Table:
    """Read the central directory; raise `CorruptFrame` if it is incomplete."""
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
    """Find the central directory: start, end, and number of members."""
    tail = max(0, len(data) - END.size - 65535)
    found = bytes(data[tail:]).rfind(END_MAGIC)
    if found < 0 or len(data) - tail - found < END.size:
        raise CorruptFrame("it has no end: it was cut off, or is not an archive")
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
        table[field] = _column(rows, column, int(kind[2])).view(kind)[:, 0]
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
    """Read sizes beyond 32 bits, and the times of source files."""
    is_far = {f: table[f] == FAR for f in ("nbytes", "packed_bytes", "at")}
    extra = rows[:, start:]
    if extra.shape[1] < 4:
        return
    at = 0
    # In the layout of the first row; rows that differ are read one by one.
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
    """Parse the names that look like the first; return which they are."""
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
        # 20 digits may exceed 64 bits: such names are parsed one by one.
        good &= digits[:, widths[0] + 1] < 2
        good &= (values[1] >= 10**19) | (digits[:, widths[0] + 1] == 0)
    good &= values[0] < 2**32
    good = np.asarray(good, np.bool_)
    table["source"], table["stamp"] = values[0], values[1]
    table["copy"] = values[2] if len(values) == 3 else 0
    table["is_entry"] = good
    return good


def read_name(table: Table, i: int, name: bytes) -> None:
    """Parse one name, of row `i`."""
    text = name.decode("latin1")
    key = parse_stem(text.removesuffix(SUFFIX)) if text.endswith(SUFFIX) else None
    table["is_entry"][i] = key is not None
    table["stamp"][i], table["source"][i], table["copy"][i] = key or (0, 0, 0)


def text_at(data: NDArray[np.uint8], at: int, count: int) -> str:
    """Return a name of any bytes as text."""
    return bytes(data[at : at + count]).decode("latin1")


# ---- members by their local headers, without the directory

NOT_AN_ENTRY = "its name is not one of an entry"


class Lost(NamedTuple):
    """Bytes of an archive that are not an intact entry."""

    at: int
    nbytes: int
    what: str


def search(data: NDArray[np.uint8]) -> tuple[Table, list[Lost]]:
    """Find the members of an archive whose directory is missing or damaged.

    Returns the intact ones in the order of the archive, and the bytes between them.
    """
    buffer = data.base if isinstance(data.base, mmap.mmap) else bytes(data)
    rows: list[Any] = []
    begun: list[int] = []
    behind = 0
    at = buffer.find(LOCAL_MAGIC)
    while at >= 0:
        row = read_local(data, at)
        end = at + 4 if row is None else _end(data, row)
        if row is not None and is_whole(data, row):
            rows.append(row)
            if behind < at:
                begun.append(behind)
            behind = end
        else:
            begun.append(at)
            # Its size may be damaged: other members may begin within it, except those
            # of an archive that is its payload.
            follows = bytes(data[end : end + 4]) in (LOCAL_MAGIC, CENTRAL_MAGIC)
            if not follows or buffer.find(END_MAGIC, at, end) < 0:
                end = at + 4
        at = buffer.find(LOCAL_MAGIC, end)
    stop = buffer.find(CENTRAL_MAGIC, max([behind, *begun[-1:]]))
    stop = len(data) if stop < 0 else stop
    table = np.zeros(len(rows), MEMBER)
    for i, row in enumerate(rows):
        table[i] = row
    if behind < stop:
        begun.append(behind)
    return table, _lost(data, table, begun, stop, _directory_names(data, buffer, stop))


def read_local(data: NDArray[np.uint8], at: int) -> Any:
    """Read a local header; None if it is not one."""
    if at + LOCAL.size > len(data):
        return None
    fields = LOCAL.unpack_from(data.data, at)
    magic, _, _, method, _, _, crc, packed, nbytes, name_bytes, extra_bytes = fields
    name_at = at + LOCAL.size
    if magic != LOCAL_MAGIC or name_at + name_bytes + extra_bytes > len(data):
        return None
    if not name_bytes:
        return None
    table = np.zeros(1, MEMBER)
    if packed == FAR or nbytes == FAR:
        extra = data[name_at + name_bytes :][:extra_bytes]
        if extra_bytes < 20 or struct.unpack_from("<2H", extra.data) != (WIDE_ID, 16):
            return None
        nbytes, packed = struct.unpack_from("<2Q", extra.data, 4)
    for field, value in (
        ("at", at), ("name_at", name_at), ("name_bytes", name_bytes), ("crc", crc),
        ("packed_bytes", packed), ("nbytes", nbytes), ("method", method),
    ):  # fmt: skip
        table[field] = value
    read_name(table, 0, bytes(data[name_at : name_at + name_bytes]))
    return table[0]


def is_whole(data: NDArray[np.uint8], row: Any) -> bool:
    """Return whether a member of `read_local` has its checksum, and fits its name."""
    end = _end(data, row)
    if end > len(data):
        return False
    packed = data.data[end - int(row["packed_bytes"]) : end]
    try:
        found = unpack(packed, int(row["method"]), int(row["nbytes"]))
        if crc32(found) != int(row["crc"]):
            return False
        if row["is_entry"]:
            key = EntryKey(int(row["stamp"]), int(row["source"]), int(row["copy"]))
            check_entry(key, found)
    except CorruptFrame:
        return False
    return True


def _end(data: NDArray[np.uint8], row: Any) -> int:
    """Return where a member ends, by its local header."""
    extra_bytes: int = struct.unpack_from("<H", data.data, int(row["at"]) + 28)[0]
    sizes = int(row["name_bytes"]) + extra_bytes + int(row["packed_bytes"])
    return int(row["name_at"]) + sizes


def _directory_names(
    data: NDArray[np.uint8], buffer: Any, start: int
) -> dict[int, str]:
    """Return names by the offsets of members, from the remains of the directory."""
    names: dict[int, str] = {}
    at = buffer.find(CENTRAL_MAGIC, start)
    while 0 <= at <= len(data) - CENTRAL.size:
        fields = CENTRAL.unpack_from(data.data, at)
        names.setdefault(fields[16], text_at(data, at + CENTRAL.size, fields[10]))
        at = buffer.find(CENTRAL_MAGIC, at + 4)
    return names


def _lost(
    data: NDArray[np.uint8],
    table: Table,
    begun: list[int],
    stop: int,
    names: dict[int, str],
) -> list[Lost]:
    """Return everything that is not intact, by where it begins.

    `begun` are offsets of members, intact or not, and of other bytes; `stop` is the
    offset of the directory, and `names` are its names by offset.
    """
    whole = dict(zip(table["at"].tolist(), table, strict=True))
    known = {text_at(data, int(r["name_at"]), int(r["name_bytes"])) for r in table}
    missing = {at for at, name in names.items() if at < stop and name not in known}
    places = sorted({*begun, *whole, *missing})
    lost, behind = [], 0
    for at, following in itertools.pairwise([*places, stop]):
        row = whole.get(at)
        if row is not None:
            behind = _end(data, row)
            if not row["is_entry"]:
                what = f"{_name(data, row)}: {NOT_AN_ENTRY}"
                lost.append(Lost(at, behind - at, what))
        elif at >= behind and following > at:
            row = read_local(data, at)
            name = names.get(at, "") or ("" if row is None else _name(data, row))
            what = f"{name}: cut or changed" if name else "no member begins here"
            lost.append(Lost(at, following - at, what))
    return lost


def _name(data: NDArray[np.uint8], row: Any) -> str:
    return text_at(data, int(row["name_at"]), int(row["name_bytes"]))


# ---- the index

_FIELDS = ("method", "crc", "packed_bytes", "nbytes", "at", "source", "stamp", "copy")
_STREAMED = 8  # a flag: sizes and checksum follow the bytes


def open_bytes(path: str | Path) -> NDArray[np.uint8]:
    """Map a file read-only; return an array."""
    with open(path, "rb") as file:
        if not file.seek(0, 2):
            return np.empty(0, np.uint8)
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), "u1")


class NpzIndex:
    """The members of one archive of any version, intact or not.

    `dtype` is `MEMBER`, or a dtype with its fields.

    Attributes
    ----------
    table : ndarray of MEMBER
        Members in the order of the archive.
    problem : str or None
        Why its directory is unusable, so that members were searched for.
    damaged : list of Problem
        Damage found at opening.
    """

    def __init__(self, path: str | Path, dtype: np.dtype[Any] = MEMBER) -> None:
        self.path = Path(path)
        self.data = open_bytes(path)
        self.view = self.data.data
        self.problem: str | None = None
        self.damaged: list[Problem] = []
        self._unlisted: dict[str, Any] | None = None
        try:
            self.table = read_directory(self.data, dtype)
        except CorruptFrame as error:
            self.problem = str(error)
            found, lost = search(self.data)
            self.damaged += [Problem(self.path, *each) for each in lost]
            self.table = np.zeros(len(found), dtype)
            for name in MEMBER.names or ():
                self.table[name] = found[name]
        else:
            self._check_foreign()

    def name(self, row: Any) -> str:
        """Return the file name of a member."""
        return text_at(self.data, int(row["name_at"]), int(row["name_bytes"]))

    def member(self, row: Any) -> Member:
        """Return a member for `NpzWriter.add_packed`."""
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
        """Return a view of the packed bytes of a member.

        Raises `CorruptFrame` if the directory points to something else.
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
        """Return the npy file of a member: a view if it is stored, else a copy.

        Raises `CorruptFrame` if its bytes are damaged.
        """
        packed: memoryview | bytes = self.packed(row)
        data = unpack(packed, int(row["method"]), int(row["nbytes"]))
        if verify and crc32(data) != int(row["crc"]):
            raise CorruptFrame(f"{self.path}: {self.name(row)}: wrong checksum")
        return data

    # ---- a damaged directory

    def agrees(self, row: Any) -> bool:
        """Return whether the local header of a member agrees with the directory."""
        at = int(row["at"])
        if at + LOCAL.size > len(self.data):
            return False
        fields = LOCAL.unpack_from(self.view, at)
        magic, _, flags, method, _, _, crc, packed, nbytes, name_bytes, _ = fields
        own = text_at(self.data, at + LOCAL.size, name_bytes)
        if magic != LOCAL_MAGIC or own != self.name(row):
            return False
        if flags & _STREAMED:
            return True
        sizes = int(row["packed_bytes"]), int(row["nbytes"])
        is_far = FAR in (packed, nbytes)
        same = (method, crc) == (int(row["method"]), int(row["crc"]))
        return same and (is_far or sizes == (packed, nbytes))

    def correct(self, row: Any) -> Problem | None:
        """Correct a row of the table, in place, by the local header of its member.

        Returns the damage of the directory; None if the row is unchanged, because its
        member is damaged, or agrees with it.
        """
        at, name = int(row["at"]), self.name(row)
        found = read_local(self.data, at)
        # If the name is there without a valid header, the header is damaged, not `at`.
        own = text_at(self.data, at + LOCAL.size, int(row["name_bytes"]))
        is_named = own == name
        is_shared = np.count_nonzero(self.table["at"] == np.uint64(at)) > 1
        if found is not None and not is_whole(self.data, found):
            found = None
        if not is_named and (found is None or is_shared):
            found = self._find_unlisted(name)
        if found is None or not found["is_entry"]:
            return None
        if row["is_entry"] and all(found[field] == row[field] for field in _FIELDS):
            return None
        start = max(int(row["name_at"]) - CENTRAL.size, 0)
        size = CENTRAL.size + int(row["name_bytes"])
        for field in (*_FIELDS, "name_at", "name_bytes", "is_entry"):
            row[field] = found[field]
        what = f"the directory is damaged; read {self.name(row)} by its own header"
        return Problem(self.path, start, size, what)

    def _find_unlisted(self, name: str) -> Any:
        """Return a member that the directory does not list, by name."""
        if self._unlisted is None:
            starts = set(self.table["at"].tolist())
            found, _ = search(self.data)
            free = [row for row in found if int(row["at"]) not in starts]
            self._unlisted = {self.name(row): row for row in free}
        if name not in self._unlisted:
            names = {self.name(row) for row in self.table} if self._unlisted else set()
            name = next((own for own in self._unlisted if own not in names), "")
        return self._unlisted.pop(name, None)

    def _check_foreign(self) -> None:
        """Check whether members with foreign names are entries by their own headers."""
        for i in np.flatnonzero(~self.table["is_entry"]).tolist():
            row = self.table[i]
            if self.agrees(row):
                continue
            at, size = int(row["at"]), int(row["packed_bytes"])
            what = f"{self.name(row)}: {NOT_AN_ENTRY}, and its member disagrees"
            problem = self.correct(row) or Problem(self.path, at, size, what)
            self.damaged.append(problem)
