"""Members of an npz archive by what they say themselves, not by its directory.

An archive that was cut off has no directory: then its members are searched for, and
those that are whole are taken.
"""

from __future__ import annotations

import itertools
import mmap
import struct
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ataraxis.errors import CorruptFrame
from ataraxis.frame import crc32
from ataraxis.log.entries import EntryKey, check_entry
from ataraxis.log.npz import (
    CENTRAL,
    CENTRAL_MAGIC,
    END_MAGIC,
    LOCAL,
    LOCAL_MAGIC,
    WIDE_ID,
    unpack,
)
from ataraxis.log.npz_directory import FAR, MEMBER, Table, read_name, text_at

NO_ENTRY = "its name is not one of an entry"


class Lost(NamedTuple):
    """Bytes of an archive that are no whole entry."""

    at: int
    nbytes: int
    what: str


def search(data: NDArray[np.uint8]) -> tuple[Table, list[Lost]]:
    """Find the members of an archive whose directory is missing or damaged.

    Returns
    -------
    table : ndarray of MEMBER
        Members that are whole, in the order of the archive.
    lost : list of Lost
        What lies between them and is none, by name as far as names are left.
    """
    buffer = data.base if isinstance(data.base, mmap.mmap) else bytes(data)
    rows: list[Any] = []
    begun: list[int] = []
    behind = 0
    at = buffer.find(LOCAL_MAGIC)
    while at >= 0:
        row = local(data, at)
        end = at + 4 if row is None else _end(data, row)
        if row is not None and is_whole(data, row):
            rows.append(row)
            if behind < at:
                begun.append(behind)
            behind = end
        else:
            begun.append(at)
            # Its size may be what is hit: others begin within it, but for those of an
            # archive that is its payload.
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
    names = _directed(data, buffer, stop)
    return table, _lost(data, table, begun, stop, names)


def local(data: NDArray[np.uint8], at: int) -> Any:
    """Read a local header; None if there is none."""
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
    """Whether a member that `local` found is as it was written, and is who it says."""
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
    """Say where a member ends, as its local header has it."""
    extra_bytes: int = struct.unpack_from("<H", data.data, int(row["at"]) + 28)[0]
    sizes = int(row["name_bytes"]) + extra_bytes + int(row["packed_bytes"])
    return int(row["name_at"]) + sizes


def _directed(data: NDArray[np.uint8], buffer: Any, start: int) -> dict[int, str]:
    """Names by the places of members, as what is left of the directory has them."""
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
    """Say what is not whole: pieces from where something begins to where the next does.

    Parameters
    ----------
    data, table : ndarray
        The archive; its whole members.
    begun : list of int
        Where something begins: a member, whole or not, or bytes that are none.
    stop : int
        Where the directory begins.
    names : dict of int to str
        What the directory has, by where it begins.
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
                lost.append(Lost(at, behind - at, f"{_name(data, row)}: {NO_ENTRY}"))
        elif at >= behind and following > at:
            row = local(data, at)
            name = names.get(at, "") or ("" if row is None else _name(data, row))
            what = f"{name}: cut off or changed" if name else "no member begins here"
            lost.append(Lost(at, following - at, what))
    return lost


def _name(data: NDArray[np.uint8], row: Any) -> str:
    return text_at(data, int(row["name_at"]), int(row["name_bytes"]))
