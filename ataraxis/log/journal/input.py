"""A file of a journal open for reading, and its index."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis._kernels import journal_scan
from ataraxis.errors import CorruptFrame, LayoutError
from ataraxis.frame import HEADER_BYTES, Flag, Frame
from ataraxis.log.journal.page import (
    PAGE,
    RUN_BYTES,
    FileHeader,
    FileRecords,
    index_path,
    recover_crc_seed,
)
from ataraxis.log.selection import Problem, distinct
from ataraxis.shm.files import is_owned


class InputFile:
    """Read one file of a journal: finished, cut, damaged, or still being written.

    Opening reads the index, and scans only what it does not cover; without
    `is_index_used` it scans all of the data. Raises `LayoutError` if nothing in the
    file shows that it is a journal's.
    """

    def __init__(self, path: Path, *, is_index_used: bool = True) -> None:
        self.path = path
        self._is_index_used = is_index_used
        self.problems: list[Problem] = []
        """Damage noticed when it was opened."""
        self.header: FileHeader | None = None
        """Its first page; None if lost in both places."""
        self.data: Any = b""
        self.runs: Runs = np.empty(0, RUN)
        """All runs: of entries, of records, and of damage."""
        self.cut = 0
        """Bytes at its end that are not a complete frame."""
        self._records: FileRecords | None = None
        self._listed: tuple[int, Entries] | None = None
        self._limit: int | None = None
        self._records_read = 0
        self._end = PAGE
        self.seed = -1
        """Seed of its header CRCs; -1: unknown, the first page is missing."""
        self._count()
        self._map()
        self.refresh()

    def _map(self) -> None:
        with open(self.path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size:
                self.data = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)

    def _identify(self, index: bytes | memoryview) -> bool:
        """Find the seed of its frames: in its page, its index, or the frames."""
        if self.seed >= 0:
            return True
        if len(self.data) < PAGE:
            return False
        try:
            self.header = FileHeader.unpack(self.data[:PAGE], str(self.path))
        except LayoutError as error:
            try:
                self.header = FileHeader.unpack(bytes(index[:PAGE]))
                self._add_problem(0, PAGE, f"{error}; taken from its index")
            except LayoutError:
                seed = recover_crc_seed(self.data)
                if seed is None:
                    raise error from None
                what = f"{error}; name, host and wall time are lost"
                self._add_problem(0, PAGE, what)
                self.seed = seed
                return True
        self.seed = self.header.seed
        return True

    def _add_problem(self, offset: int, nbytes: int, what: str) -> None:
        self.problems.append(Problem(self.path, offset, nbytes, what))

    def refresh(self) -> bool:
        """Add what was written since; return whether there was anything."""
        size = os.stat(self.path).st_size
        if size > len(self.data):
            self._map()
        elif self.seed >= 0:
            return False
        try:
            index = index_path(self.path).read_bytes()
        except OSError:
            index = b""
        if not self._identify(index):
            return False
        end, count = self._end, len(self.runs)
        if not self._is_index_used:
            index = b""
        runs = valid_runs(index, self.seed, len(self.data))
        if len(runs) < count or not np.array_equal(runs[:count], self.runs):
            # The known runs may be ahead of the index: use only its later ones.
            runs = np.concatenate([self.runs, runs[runs["offset"] >= end]])
            if len(runs) > count and runs["offset"][count] != end:
                runs = runs[:count]
        if len(runs):
            end = int(runs["offset"][-1] + runs["bytes"][-1])
        tail = scan_runs(self.data, end, len(self.data), self.seed)
        while len(tail) and tail["kind"][-1] == journal_scan.DAMAGE:
            tail = tail[:-1]
        self.runs = np.concatenate([runs, tail]) if len(tail) else runs
        if len(self.runs):
            self._end = int(self.runs["offset"][-1] + self.runs["bytes"][-1])
        # The padding of the last frame may be missing, without a loss.
        self.cut = max(len(self.data) - self._end, 0)
        self._count()
        return len(self.runs) > count

    def _count(self) -> None:
        self._listed = None
        self.data_runs = self.runs[self.runs["kind"] == journal_scan.DATA]
        ends = np.cumsum(self.data_runs["count"].astype(np.int64))
        if self._limit is not None and len(ends) and ends[-1] > self._limit:
            last = int(np.searchsorted(ends, self._limit))
            kept = self._limit - (int(ends[last - 1]) if last else 0)
            self.data_runs = self.data_runs[: last + 1].copy()
            run = self.data_runs[last]
            if run["stride"]:
                self.data_runs[last] = run_slice(run, 0, kept)
            else:
                self.data_runs["count"][last] = kept
            if not kept:
                self.data_runs = self.data_runs[:last]
        self.starts = np.zeros(len(self.data_runs) + 1, np.int64)
        np.cumsum(self.data_runs["count"], out=self.starts[1:])

    def leave_out(self, first: int) -> None:
        """Remove its entries from a number on: a later file repeats them."""
        self._limit = first
        self._count()

    def __len__(self) -> int:
        return int(self.starts[-1])

    # ---- records

    @property
    def records(self) -> FileRecords:
        """Labels, sources, anchors and gaps, from its records."""
        records = self._records = self._records or FileRecords()
        control = self.runs[self.runs["kind"] == journal_scan.CONTROL]
        for run in control[self._records_read :]:
            for entry in list_entries(self.data, run, self.seed):
                try:
                    records.add(self.frame(entry))
                except CorruptFrame as error:
                    at, nbytes = int(entry["offset"]), int(entry["bytes"])
                    self._add_problem(at, nbytes, str(error))
        self._records_read = len(control)
        return records

    @property
    def is_closed(self) -> bool:
        """Whether its writer has completed it."""
        return self.records.close is not None

    @property
    def is_written(self) -> bool:
        """Whether a writer has it open."""
        return is_owned(self.path)

    def losses(self) -> list[Problem]:
        """Return what is missing, according to its index and its records."""
        found = []
        for gap in self.runs[self.runs["kind"] == journal_scan.DAMAGE]:
            at, nbytes = int(gap["offset"]), int(gap["bytes"])
            found.append(Problem(self.path, at, nbytes, "no frame begins here"))
        close = None if self.is_written or self.seed < 0 else self.records.close
        if close is not None and close.get("entries") != len(self):
            what = f"{len(self)} entries found, {close.get('entries')} written"
            found.append(Problem(self.path, 0, len(self.data), what))
        return found

    def ending(self) -> list[Problem]:
        """Return why entries at its end may be missing, if it was not closed."""
        found: list[Problem] = []
        if self.is_written or self._limit is not None:
            return found  # a later file repeats the end
        if self.seed < 0:
            what = "it was never begun: its writer was stopped before its first entry"
            return [Problem(self.path, 0, len(self.data), what)]
        if self.cut:
            end = len(self.data) - self.cut
            what = "a frame cut off: its writer was stopped, or the file shortened"
            found.append(Problem(self.path, end, self.cut, what))
        if not self.is_closed:
            what = "its writer did not close it: later entries are missing"
            found.append(Problem(self.path, len(self.data), 0, what))
        return found

    # ---- entries

    def entries(self, first: int, last: int) -> Entries:
        """List entries by number, without `last`."""
        if last <= first:
            return np.empty(0, ENTRY)
        a = int(np.searchsorted(self.starts, first, "right")) - 1
        b = int(np.searchsorted(self.starts, last, "left"))
        base = int(self.starts[a])
        if b - a > 1:
            runs = self.data_runs[a:b].copy()
            shift = first - base if runs["stride"][0] else 0
            runs[0] = (
                run_slice(runs[0], shift, int(runs["count"][0])) if shift else runs[0]
            )
            end = int(self.starts[b - 1])
            if runs["stride"][-1]:
                runs[-1] = run_slice(runs[-1], 0, last - end)
            return self._list_runs(runs)[first - base - shift : last - base - shift]
        run = self.data_runs[a]
        if run["stride"]:
            part = run_slice(run, first - base, last - base)
            return list_entries(self.data, part, self.seed)
        # Frames of different sizes must be listed in order: kept for the next call.
        known = self._listed
        if known is None or known[0] != a:
            known = self._listed = (a, list_entries(self.data, run, self.seed))
        return known[1][first - base : last - base]

    def _list_runs(self, runs: Runs) -> Entries:
        table, at = np.empty(int(runs["count"].sum()), ENTRY), 0
        for run in runs:
            count = int(run["count"])
            list_entries(self.data, run, self.seed, table[at : at + count])
            at += count
        return table

    def select(
        self, source: int | None, start_ns: int | None, stop_ns: int | None
    ) -> tuple[NDArray[np.int64], Entries]:
        """Find the entries of a source and time; return their numbers and a list.

        Reads only the runs that may have some. An entry with a damaged header counts as
        of the source of its run, and as of any time between its neighbours; in a run of
        several sources it is not found, see `unknown`.
        """
        at = self._runs_of(source, start_ns, stop_ns)
        runs = self.data_runs[at]
        table = self._list_runs(runs)
        numbers = np.arange(len(table), dtype=np.int64)
        counts = runs["count"].astype(np.int64)
        numbers += np.repeat(self.starts[at] - (np.cumsum(counts) - counts), counts)
        lost = table["state"] != journal_scan.GOOD
        wanted = np.ones(len(table), bool)
        if source is not None:
            own = np.repeat(runs["source"] == source, runs["count"])
            wanted &= np.where(lost, own, table["source"] == source)
        if start_ns is not None or stop_ns is not None:
            low = high = table["time_ns"]
            if lost.any():
                low, high = _time_bounds(table, lost, runs)
            if start_ns is not None:
                wanted &= high >= start_ns
            if stop_ns is not None:
                wanted &= low < stop_ns
        if wanted.all():
            return numbers, table
        return numbers[wanted], table[wanted]

    def _runs_of(
        self, source: int | None, start_ns: int | None, stop_ns: int | None
    ) -> NDArray[np.intp]:
        """Return the indices of runs that may have entries of a source and time."""
        runs, keep = self.data_runs, np.ones(len(self.data_runs), bool)
        if source is not None:
            keep &= (runs["source"] == source) | (runs["source"] == SEVERAL)
        if start_ns is not None:
            keep &= runs["time_max"] >= start_ns
        if stop_ns is not None:
            keep &= runs["time_min"] < stop_ns
        return np.flatnonzero(keep)

    def unknown(
        self, source: int | None, start_ns: int | None, stop_ns: int | None
    ) -> list[Problem]:
        """Find damage that may have contained entries of a source and time.

        That is headers in runs of several sources, and bytes that no run covers.
        """
        found = self.losses()
        if source is None:
            return found
        for run in self.data_runs[self._runs_of(source, start_ns, stop_ns)]:
            if run["source"] != SEVERAL:
                continue
            for entry in list_entries(self.data, run, self.seed):
                if entry["state"] != journal_scan.GOOD:
                    what = "the header of an entry is damaged: its source is unknown"
                    at, nbytes = int(entry["offset"]), int(entry["bytes"])
                    found.append(Problem(self.path, at, nbytes, what))
        return found

    def mixed_sources(self) -> set[int]:
        """Return the sources of runs that have several; reads their headers."""
        found: set[int] = set()
        for run in self.data_runs[self.data_runs["source"] == SEVERAL]:
            table = list_entries(self.data, run, self.seed)
            good = table["state"] == journal_scan.GOOD
            found |= set(map(int, distinct(table["source"][good])))
        return found

    def frame(self, entry: Any, *, verify: bool = True) -> Frame:
        """Return an entry, whose payload is a view of the file.

        Raises `CorruptFrame`, with the file and the byte, if it is damaged.
        """
        at = int(entry["offset"])
        try:
            if entry["state"] == journal_scan.LOST:
                raise CorruptFrame(
                    f"the header at byte {at} is damaged, with "
                    f"{int(entry['bytes'])} bytes"
                )
            number = int(entry["labels"])
            labels = self.records.labels.get(number) if number else None
            end = at + HEADER_BYTES + int(entry["bytes"])
            return Frame.from_buffer(
                memoryview(self.data)[:end], at, seed=self.seed, verify=verify,
                labels=labels,
            )  # fmt: skip
        except CorruptFrame as error:
            raise CorruptFrame(f"{self.path}: {error}") from error

    def device_stamps(self, entries: Entries) -> NDArray[np.int64] | None:
        """Return device times and counters, (n, 2): a copy; None if one has none."""
        if not len(entries) or not (entries["flags"] & Flag.DEVICE_STAMP).all():
            return None
        out = np.empty((len(entries), 2), np.int64)
        table = np.ascontiguousarray(entries).view("u1")
        if journal_scan.device_stamps(self.data, table, out) < len(entries):
            return None
        return out

    def close(self) -> None:
        """Release the mapping, which lasts until no array uses it."""
        self.data = b""
        self.runs = np.empty(0, RUN)
        self._count()


def leave_out_repeated(files: Sequence[InputFile]) -> None:
    """Remove entries from files that later ones repeat after a disk failure."""
    again = {
        str(target["uuid"]): int(target["entries"])
        for file in files
        if file.header is not None and (target := file.header.about.get("again"))
    }
    for file in files:
        if file.header is not None and file.header.uuid.hex() in again:
            file.leave_out(again[file.header.uuid.hex()])


def _time_bounds(
    table: Entries, lost: NDArray[np.bool_], runs: Runs
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first and last possible time of entries, also of damaged ones."""
    low, high = table["time_ns"].copy(), table["time_ns"].copy()
    run_of = np.repeat(np.arange(len(runs)), runs["count"])
    low[lost] = runs["time_min"][run_of[lost]]
    high[lost] = runs["time_max"][run_of[lost]]
    good = np.flatnonzero(~lost)
    if len(good):
        for k in np.flatnonzero(lost):
            after = int(np.searchsorted(good, k))
            before = good[after - 1] if after else None
            behind = good[after] if after < len(good) else None
            if before is not None and run_of[before] == run_of[k]:
                low[k] = table["time_ns"][before]
            if behind is not None and run_of[behind] == run_of[k]:
                high[k] = max(table["time_ns"][behind], low[k])
    return low, high


# ---- the index: runs of frames, validated, or rebuilt from the data

RUN = np.dtype(
    [
        ("offset", "<u8"), ("bytes", "<u8"), ("count", "<u4"), ("stride", "<u4"),
        ("time_min", "<i8"), ("time_max", "<i8"), ("sequence", "<u8"),
        ("source", "<u4"), ("kind", "<u2"), ("padding", "<u2"), ("alike", "<u4"),
        ("crc", "<u4"),
    ]
)  # fmt: skip
ENTRY = np.dtype(
    [
        ("offset", "<u8"), ("bytes", "<u8"), ("time_ns", "<i8"), ("sequence", "<u8"),
        ("source", "<u4"), ("labels", "<u4"), ("dtype", "u1"), ("ndim", "u1"),
        ("flags", "<u2"), ("state", "<u4"),
    ]
)  # fmt: skip
SEVERAL = 2**32 - 1
_CHUNK = 4096
Runs = NDArray[Any]
Entries = NDArray[Any]


def valid_runs(index: bytes | memoryview, seed: int, size: int) -> Runs:
    """Return the runs of an index up to the first one that does not fit its file.

    `index` is any bytes, with its first page; the result, contiguous runs, is a view of
    it. `seed` and `size` are those of the data file.
    """
    body = memoryview(index)[PAGE:]
    body = body[: len(body) // RUN_BYTES * RUN_BYTES]
    if not len(body):
        return np.empty(0, RUN)
    return np.frombuffer(body, RUN)[: journal_scan.good_runs(body, seed, PAGE, size)]


def scan_runs(data: Any, start: int, stop: int, seed: int) -> Runs:
    """Scan a part of a file; return its runs, a copy. Damage is runs of kind DAMAGE."""
    found, room = [], np.empty(_CHUNK, RUN)
    while start < stop:
        count, start = journal_scan.list_runs(data, start, stop, seed, room.view("u1"))
        found.append(room[:count].copy())
    return np.concatenate(found) if found else np.empty(0, RUN)


def list_entries(data: Any, run: Any, seed: int, out: Entries | None = None) -> Entries:
    """List the entries of a run of a data file, damaged ones included.

    Fills and returns `out`, of the length of the run, if given. For a damaged header,
    `state` is LOST, and `offset` and `bytes` are those of the damage; adjacent lost
    frames of different sizes share one.
    """
    start, stride, count = int(run["offset"]), int(run["stride"]), int(run["count"])
    stop = min(start + int(run["bytes"]), len(data))
    table = np.empty(count, ENTRY) if out is None else out
    n, at = journal_scan.list_entries(
        data, start, stop, seed, stride, table.view("u1"), False
    )
    if n == count and at >= stop:
        return table
    # Damage hides or adds entries: list all, then adjust their number.
    found = [table[:n].copy()]
    while at < stop:
        room = np.empty(_CHUNK, ENTRY)
        n, at = journal_scan.list_entries(
            data, at, stop, seed, stride, room.view("u1"), False
        )
        found.append(room[:n])
    table[:] = _fit_count(np.concatenate(found), run)
    return table


def run_slice(run: Any, first: int, last: int) -> Any:
    """Return a part of a run whose frames are of one size."""
    part = run.copy()
    part["offset"] += first * int(run["stride"])
    part["count"] = last - first
    part["bytes"] = (last - first) * int(run["stride"])
    return part


def _fit_count(table: Entries, run: Any) -> Entries:
    """Adjust a list of entries to the number that the run had."""
    count = int(run["count"])
    lost = np.flatnonzero(table["state"] != journal_scan.GOOD)
    if len(table) > count:
        # Padding after the last intact frame looks like one more lost entry.
        spare = lost[len(lost) - (len(table) - count) :]
        return np.delete(table, spare)[:count]
    if not len(lost):
        gap = np.zeros(1, ENTRY)
        gap["offset"], gap["state"] = run["offset"] + run["bytes"], journal_scan.LOST
        return np.concatenate([table, np.repeat(gap, count - len(table))])
    # The widest damage most likely hides the missing ones.
    widest = lost[np.argmax(table["bytes"][lost])]
    repeats = np.ones(len(table), int)
    repeats[widest] += count - len(table)
    return np.repeat(table, repeats)
