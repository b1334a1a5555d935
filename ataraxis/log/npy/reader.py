"""`PackageReader`: npy directories and npz archives, for `LogArchive`."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.errors import CorruptFrame
from ataraxis.frame import Frame, crc32
from ataraxis.log.npy.archiving import ARCHIVE_SUFFIX
from ataraxis.log.npy.directory import keys_in
from ataraxis.log.npy.entries import (
    NPY_BYTES,
    PREFIX,
    EntryKey,
    check_entry,
    npy_header,
)
from ataraxis.log.npy.npz_index import MEMBER, NOT_AN_ENTRY, NpzIndex
from ataraxis.log.npy.npz_writer import LOCAL, STORED
from ataraxis.log.selection import LogSource, Problem, Selection, SourceInfo, distinct

ROW = np.dtype([*MEMBER.descr, ("file", "<i4"), ("sequence", "<u8")])
"""A member, and its archive; -1: a file of its own."""
_HEAD = NPY_BYTES + PREFIX.size
_LAST = np.uint64(2**63 - 1)


class PackageReader(LogSource):
    """Read npz archives of any version, an npy directory, or both at once.

    Entries are numbered in the order of stamps; later ones follow. An entry that is in
    an archive and also a file counts once. `Frame.device_time` is the stamp; so is the
    time, as far as 63 bits hold it.

    The directory of an archive is used until it fails to find an intact member; then
    the member's own header corrects it.
    """

    unit = "us"
    """Unit of times: the source's, by convention microseconds since its onset."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._archives: list[NpzIndex] = []
        self._known: dict[Path, int] = {}
        self._names: dict[int, str] = {}
        self._keys: set[EntryKey] = set()
        self._problems: dict[Path, Problem] = {}
        self._table = np.empty(0, ROW)
        self._next: dict[int, int] = {}
        self._is_corrected = False
        self.refresh()

    @classmethod
    def accepts(cls, path: Path) -> bool:
        """Return whether the path has archives or entries."""
        if path.is_file():
            return path.suffix == ".npz"
        return path.is_dir() and (
            any(path.glob(f"*{ARCHIVE_SUFFIX}")) or bool(keys_in(path)[0])
        )

    def refresh(self) -> bool:
        """Add what was written since; return whether there was anything."""
        found = [self._of_archive(path) for path in self._paths()]
        if self.path.is_dir():
            found.append(self._of_directory())
        new = _sorted(_concatenate(found))
        for source in distinct(new["source"]):
            mine = np.flatnonzero(new["source"] == source)
            first = self._next.get(int(source), 0)
            new["sequence"][mine] = first + np.arange(len(mine))
            self._next[int(source)] = first + len(mine)
        start = len(self._table)
        for i in np.flatnonzero(new["file"] < 0):
            # Its position in the list: the file names follow the sorted rows.
            self._names[start + int(i)] = self._waiting[int(new["name_at"][i])]
        self._table = _concatenate([self._table, new])
        return len(new) > 0

    def _paths(self) -> list[Path]:
        if self.path.is_dir():
            return sorted(self.path.glob(f"*{ARCHIVE_SUFFIX}"))
        return [self.path]

    def _of_archive(self, path: Path) -> NDArray[np.void]:
        """Return the members of an archive that are new."""
        inode = path.stat().st_ino
        if self._known.get(path) == inode:
            return np.empty(0, ROW)
        is_again, self._known[path] = path in self._known, inode
        index = NpzIndex(path, ROW)
        if index.problem is not None:
            self._problems[path] = Problem(path, len(index.data), 0, index.problem)
        for problem in index.damaged:
            self._problems[path / f"{problem.offset}"] = problem
        table = index.table
        table["file"] = len(self._archives)
        if not table["is_entry"].all():
            table = table[table["is_entry"]]
        self._archives.append(index)
        if self.path.is_dir() or is_again:
            if not self._keys:
                self._keys.update(EntryKey(*key) for key in _keys(self._table))
            keys = [EntryKey(*key) for key in _keys(table)]
            is_new = np.array([key not in self._keys for key in keys], np.bool_)
            self._keys.update(keys)
            table = np.asarray(table[is_new]) if len(table) else table
        return table

    def _of_directory(self) -> NDArray[np.void]:
        """Return the entries that are new files."""
        keys, foreign = keys_in(self.path)
        for name in foreign:
            path = self.path / name
            self._problems[path] = Problem(path, 0, path.stat().st_size, NOT_AN_ENTRY)
        new = [(key, name) for key, name in keys if key not in self._keys]
        self._keys.update(key for key, _ in new)
        self._waiting = [name for _, name in new]
        table = np.zeros(len(new), ROW)
        for i, (key, name) in enumerate(new):
            table["stamp"][i], table["source"][i], table["copy"][i] = key
            table["name_at"][i] = i
            table["nbytes"][i] = os.stat(self.path / name).st_size
        table["file"] = -1
        return table

    # ---- properties

    def __len__(self) -> int:
        return len(self._table)

    @property
    def problems(self) -> list[Problem]:
        """Damaged and foreign parts noticed so far."""
        return list(self._problems.values())

    @property
    def sources(self) -> dict[int, SourceInfo]:
        """The sources by their numbers."""
        return {int(n): SourceInfo(int(n)) for n in distinct(self._table["source"])}

    # ---- entries

    def select(
        self,
        source: int | None = None,
        start: int | None = None,
        stop: int | None = None,
    ) -> Selection:
        """Find entries by source and stamp, `start` to before `stop`."""
        stamps = self._table["stamp"]
        good = np.ones(len(stamps), np.bool_)
        if source is not None:
            good &= self._table["source"] == source
        if start is not None and start > 0:
            good &= stamps >= np.uint64(min(start, 2**64 - 1))
        if stop is not None:
            good &= stamps < np.uint64(max(stop, 0)) if stop < 2**64 else True
        return self.pick(np.flatnonzero(good))

    def unknown(
        self, source: int | None, start: int | None, stop: int | None
    ) -> list[Problem]:
        """Find damage of archives, which may have contained any source and time."""
        return [
            Problem(index.path, len(index.data), 0, index.problem)
            for index in self._archives
            if index.problem is not None
        ]

    def pick(self, numbers: NDArray[np.int64] | range) -> Selection:
        """Return entries by their numbers, in any order."""
        wanted = np.asarray(numbers, np.int64)
        rows = self._rows(wanted)
        return Selection(
            wanted,
            np.minimum(rows["stamp"], _LAST).astype(np.int64),
            rows["sequence"],
            rows["source"],
            np.maximum(rows["nbytes"], np.uint64(_HEAD)) - np.uint64(_HEAD),
            wanted,
        )

    def _rows(self, numbers: NDArray[np.int64]) -> NDArray[np.void]:
        """Return members by number: a view if they are consecutive."""
        count = len(numbers)
        first, last = (int(numbers[0]), int(numbers[-1])) if count else (0, 0)
        if last - first == count - 1 and (np.diff(numbers) == 1).all():
            return self._table[first : last + 1]
        return np.asarray(self._table[numbers])

    def frame(self, number: int, *, verify: bool = True) -> Frame:
        """Return an entry; a view of the archive if it is stored there.

        Raises `CorruptFrame`, with its name, if it is damaged.
        """
        payload = self._payload(number, verify)
        row = self._table[number]
        return Frame.from_value(
            np.frombuffer(payload, np.uint8),
            sequence=int(row["sequence"]),
            time_ns=int(min(row["stamp"], _LAST)),
            source=int(row["source"]),
            device_time=int(row["stamp"]),
            device_sequence=0,
            checksum=False,
        )

    def _payload(self, number: int, verify: bool) -> memoryview:
        """Return the payload of an entry; correct its row if that is damaged."""
        row = self._table[number]
        key = EntryKey(int(row["stamp"]), int(row["source"]), int(row["copy"]))
        index = self._archives[int(row["file"])] if row["file"] >= 0 else None
        path = self.path if index is None else index.path
        try:
            if index is not None:
                found = memoryview(index.read(row, verify=verify))
            else:
                path = self.path / self._names[number]
                found = memoryview(path.read_bytes())
            return found[check_entry(key, found) :]
        except (CorruptFrame, OSError) as error:
            problem = index.correct(row) if index is not None else None
            if problem is not None:
                self._is_corrected = True
                self._problems[path / f"{problem.offset}"] = problem
                return self._payload(number, verify)
            problem = Problem(path, int(row["at"]), int(row["nbytes"]), str(error))
            self._problems[path / key.stem] = problem
            raise CorruptFrame(f"entry {key.stem} of {path}: {error}") from error

    def frames(self, selection: Selection, *, verify: bool = True) -> Iterator[Frame]:
        """Iterate over the entries of a selection, like `frame`."""
        for number in selection.numbers:
            yield self.frame(int(number), verify=verify)

    def gather(
        self, selection: Selection, out: NDArray[np.uint8], *, verify: bool = True
    ) -> int:
        """Copy payloads to the rows of `out`; see `LogSource.gather`."""
        rows = self._rows(selection.numbers)
        is_one = len(rows) and rows["file"][0] >= 0
        if is_one and (rows["file"] == rows["file"][0]).all():
            index = self._archives[int(rows["file"][0])]
            if gather(index, rows, out, verify=verify):
                return len(rows)
        # One by one: files, deflated or damaged members, different sizes.
        for done, number in enumerate(selection.numbers.tolist()):
            try:
                payload = self._payload(number, verify)
            except CorruptFrame:
                return done
            if len(payload) != out.shape[1]:
                return done
            out[done] = payload
        return len(selection)

    def corrected(self, selection: Selection) -> Selection:
        """Return the selection, updated if reading has corrected rows."""
        return self.pick(selection.numbers) if self._is_corrected else selection

    def device_stamps(self, selection: Selection) -> NDArray[np.int64] | None:
        """Return stamps, which are unsigned, and zeros: (n, 2)."""
        out = np.zeros((len(selection), 2), np.int64)
        out[:, 0] = self._rows(selection.numbers)["stamp"].view(np.int64)
        return out

    def extents(self, source: int) -> NDArray[np.int64]:
        """Return the entries of a source as ranges of numbers, (k, 2), in order."""
        good = np.concatenate([[False], self._table["source"] == source, [False]])
        return np.flatnonzero(np.diff(good)).reshape(-1, 2)

    def close(self) -> None:
        """Close the files; what was read stays valid."""
        self._archives.clear()
        self._table = np.empty(0, ROW)


def _concatenate(tables: list[NDArray[np.void]]) -> NDArray[np.void]:
    """Join tables; return the only one with rows itself."""
    full = [table for table in tables if len(table)]
    if len(full) == 1:
        return full[0]
    return np.concatenate(full) if full else np.empty(0, ROW)


def _sorted(table: NDArray[np.void]) -> NDArray[np.void]:
    """Sort members by stamp, source and copy; return a sorted table itself."""
    stamps = table["stamp"]
    if len(table) and (stamps[1:] > stamps[:-1]).all():
        return table
    return np.asarray(table[np.lexsort((table["copy"], table["source"], stamps))])


def _keys(table: NDArray[Any]) -> Iterator[tuple[int, int, int]]:
    """Return the keys of members, as plain integers."""
    fields = (table[name].tolist() for name in ("stamp", "source", "copy"))
    return zip(*fields, strict=True)


# ---- one checksum for many rows

# A CRC is linear: that of A followed by B is that of A, advanced by the length of B,
# xor that of B. So the CRC of a block, in one call, verifies those of all its rows.

_Words = NDArray[np.uint32]


def rows_hold(rows: NDArray[np.uint8], stored: NDArray[np.uint32]) -> bool:
    """Return whether every row has its stored CRC-32.

    `rows` has shape (n, bytes of a row) and is contiguous, `stored` has shape (n,).

    Examples
    --------
    >>> rows = np.arange(6, dtype=np.uint8).reshape(3, 2)
    >>> stored = np.array([crc32(row) for row in rows], np.uint32)
    >>> rows_hold(rows, stored), rows_hold(rows[::-1].copy(), stored)
    (True, False)
    """
    n, size = rows.shape
    if not n:
        return True
    levels = (n - 1).bit_length()
    # The CRC of nothing is 0, however far it is advanced.
    words = np.zeros(1 << levels, np.uint32)
    words[-n:] = stored
    for level in range(levels):
        words = _advance(words[::2], _tables(size, level)) ^ words[1::2]
    return int(words[0]) == crc32(rows.reshape(-1).data)


def _advance(words: _Words, tables: _Words) -> _Words:
    """Advance CRCs by the number of bytes that `tables` are for."""
    low: _Words = tables[0][words & 0xFF] ^ tables[1][words >> 8 & 0xFF]
    high: _Words = tables[2][words >> 16 & 0xFF] ^ tables[3][words >> 24]
    return low ^ high


@functools.lru_cache(maxsize=256)
def _tables(size: int, level: int) -> _Words:
    """Return tables, (4, 256), that advance CRCs by ``size << level`` bytes."""
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    if level:
        # Twice the distance: apply half of it twice.
        tables = _tables(size, level - 1)
        columns = _advance(_advance(bits, tables), tables)
    else:
        zeros = bytes(size)
        start = crc32(zeros)
        moved = [crc32(zeros, int(bit)) ^ start for bit in bits]
        columns = np.array(moved, np.uint32)
    made = np.zeros((4, 256), np.uint32)
    for i in range(32):
        byte, bit = divmod(i, 8)
        made[byte, 1 << bit : 2 << bit] = made[byte, : 1 << bit] ^ columns[i]
    return made


# ---- gathering

_BLOCK_ROWS = 8192


def gather(
    index: NpzIndex, rows: NDArray[Any], out: NDArray[np.uint8], *, verify: bool
) -> bool:
    """Copy the payloads of stored entries to the rows of `out`.

    `rows` are members of the archive, with the fields of `MEMBER`; `out` has shape (n,
    bytes of a payload). False: some are not stored, intact and of that size; `out` is
    then undefined.
    """
    size = _HEAD + out.shape[1]
    if (rows["method"] != STORED).any() or (rows["packed_bytes"] != size).any():
        return False
    header = np.frombuffer(npy_header(size - NPY_BYTES), np.uint8)
    for start in range(0, len(rows), _BLOCK_ROWS):
        part = rows[start : start + _BLOCK_ROWS]
        found = _files(index.data, part["at"], size)
        if found is None:
            return False
        if (found[:, :NPY_BYTES].view("<u8") != header.view("<u8")).any():
            return False
        stamps = found[:, NPY_BYTES + 1 : _HEAD].copy().view("<u8")[:, 0]
        if (stamps != part["stamp"]).any():
            return False
        if (found[:, NPY_BYTES] != part["source"]).any():
            return False
        if verify and not rows_hold(found, part["crc"]):
            return False
        out[start : start + _BLOCK_ROWS] = found[:, _HEAD:]
    return True


def _files(
    data: NDArray[np.uint8], places: NDArray[np.uint64], size: int
) -> NDArray[np.uint8] | None:
    """Copy npy files of equal size, with local headers at `places`: (n, size)."""
    if int(places.max()) + LOCAL.size > len(data):
        return None
    at = places.astype(np.int64)
    stride = int(at[1] - at[0]) if len(at) > 1 else 0
    if stride > 0 and (np.diff(at) == stride).all():
        return _strided_files(data, int(at[0]), len(at), stride, size)
    begin = at + LOCAL.size
    for k in (26, 28):  # where the lengths of name and extra field are
        begin += data[at + k] + 256 * data[at + k + 1].astype(np.int64)
    if int(begin.max()) + size > len(data):
        return None
    return np.asarray(data[begin[:, None] + np.arange(size)])


def _strided_files(
    data: NDArray[np.uint8], at: int, count: int, stride: int, size: int
) -> NDArray[np.uint8] | None:
    """Copy files whose local headers are `stride` bytes apart, without an index."""
    lengths = data[at + 26 : at + 30].view("<u2")
    front = LOCAL.size + int(lengths.sum())
    end = at + (count - 1) * stride + front + size
    if end > len(data) or front + size > stride:
        return None
    rows = np.lib.stride_tricks.as_strided(
        data[at:], (count, front + size), (stride, 1), writeable=False
    )
    if (rows[:, 26:30] != rows[0, 26:30]).any():
        return None
    return np.ascontiguousarray(rows[:, front:])
