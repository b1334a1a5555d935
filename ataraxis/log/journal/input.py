"""One file of a journal, open for reading: mapped, listed by its index, checked."""

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
    Notes,
    index_path,
    seed_of_frames,
)
from ataraxis.log.selection import Problem, distinct
from ataraxis.shm.files import is_owned


class InputFile:
    """Read one file of a journal, finished, torn, damaged, or still being written.

    Parameters
    ----------
    path : Path
        The data file.
    is_index_used : bool
        Whether the index is believed where it fits; else all of the data is looked at.

    Raises
    ------
    LayoutError
        Nothing in it tells that it is a journal's.

    Notes
    -----
    Opening reads the index, not the data; what the index does not cover is scanned.
    """

    def __init__(self, path: Path, *, is_index_used: bool = True) -> None:
        self.path = path
        self._is_index_used = is_index_used
        self.problems: list[Problem] = []
        """What was noticed when it was opened."""
        self.header: FileHeader | None = None
        """Its first page; None: lost, in both places."""
        self.data: Any = b""
        self.runs: Runs = np.empty(0, RUN)
        """All runs: those of entries, of records, and gaps."""
        self.cut = 0
        """Bytes at its end that are no whole frame."""
        self._notes: Notes | None = None
        self._walked: tuple[int, Entries] | None = None
        self._most: int | None = None
        self._noted = 0
        self._end = PAGE
        self.seed = -1
        """What its header CRCs go on from; -1: not known, there is no first page."""
        self._count()
        self._map()
        self.refresh()

    def _map(self) -> None:
        with open(self.path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size:
                self.data = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)

    def _identify(self, index: bytes | memoryview) -> bool:
        """Find the seed of its frames: in its page, in the index's, in the frames."""
        if self.seed >= 0:
            return True
        if len(self.data) < PAGE:
            return False
        try:
            self.header = FileHeader.unpack(self.data[:PAGE], str(self.path))
        except LayoutError as error:
            try:
                self.header = FileHeader.unpack(bytes(index[:PAGE]))
                self._note(0, PAGE, f"{error}; taken from its index")
            except LayoutError:
                seed = seed_of_frames(self.data)
                if seed is None:
                    raise error from None
                self._note(0, PAGE, f"{error}; name, host and wall time are lost")
                self.seed = seed
                return True
        self.seed = self.header.seed
        return True

    def _note(self, offset: int, nbytes: int, what: str) -> None:
        self.problems.append(Problem(self.path, offset, nbytes, what))

    def refresh(self) -> bool:
        """Take in what was written since; whether there was anything."""
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
        runs = believed(index, self.seed, len(self.data))
        if len(runs) < count or not np.array_equal(runs[:count], self.runs):
            # What is known may be ahead of the index: of it only later runs count.
            runs = np.concatenate([self.runs, runs[runs["offset"] >= end]])
            if len(runs) > count and runs["offset"][count] != end:
                runs = runs[:count]
        if len(runs):
            end = int(runs["offset"][-1] + runs["bytes"][-1])
        tail = scanned(self.data, end, len(self.data), self.seed)
        while len(tail) and tail["kind"][-1] == journal_scan.DAMAGE:
            tail = tail[:-1]
        self.runs = np.concatenate([runs, tail]) if len(tail) else runs
        if len(self.runs):
            self._end = int(self.runs["offset"][-1] + self.runs["bytes"][-1])
        # The padding of the last frame may be missing: nothing is lost by that.
        self.cut = max(len(self.data) - self._end, 0)
        self._count()
        return len(self.runs) > count

    def _count(self) -> None:
        self._walked = None
        is_data = self.runs["kind"] == journal_scan.DATA
        self.data_runs = self.runs[is_data]
        counts = self.data_runs["count"].astype(np.int64)
        ends = np.cumsum(counts)
        if self._most is not None and len(ends) and ends[-1] > self._most:
            last = int(np.searchsorted(ends, self._most))
            kept = self._most - (int(ends[last - 1]) if last else 0)
            self.data_runs = self.data_runs[: last + 1].copy()
            run = self.data_runs[last]
            if run["stride"]:
                self.data_runs[last] = part_of(run, 0, kept)
            else:
                self.data_runs["count"][last] = kept
            if not kept:
                self.data_runs = self.data_runs[:last]
        self.starts = np.zeros(len(self.data_runs) + 1, np.int64)
        np.cumsum(self.data_runs["count"], out=self.starts[1:])

    def leave_out(self, first: int) -> None:
        """Take its entries from a number on for none: a later file has them again."""
        self._most = first
        self._count()

    def __len__(self) -> int:
        return int(self.starts[-1])

    # ---- what its records say

    @property
    def notes(self) -> Notes:
        """Labels, sources, anchors and gaps: what its records say."""
        notes = self._notes = self._notes or Notes()
        control = self.runs[self.runs["kind"] == journal_scan.CONTROL]
        for run in control[self._noted :]:
            for entry in listed(self.data, run, self.seed):
                try:
                    notes.take(self.frame(entry))
                except CorruptFrame as error:
                    self._note(int(entry["offset"]), int(entry["bytes"]), str(error))
        self._noted = len(control)
        return notes

    @property
    def is_closed(self) -> bool:
        """Whether its writer said that it is complete."""
        return self.notes.close is not None

    @property
    def is_written(self) -> bool:
        """Whether somebody has it open for writing."""
        return is_owned(self.path)

    def losses(self) -> list[Problem]:
        """Say what is missing in it, as far as its index and its records tell."""
        found = []
        for gap in self.runs[self.runs["kind"] == journal_scan.DAMAGE]:
            at, nbytes = int(gap["offset"]), int(gap["bytes"])
            found.append(Problem(self.path, at, nbytes, "no frame begins here"))
        close = None if self.is_written or self.seed < 0 else self.notes.close
        if close is not None and close.get("entries") != len(self):
            what = f"{len(self)} entries are found of {close.get('entries')} written"
            found.append(Problem(self.path, 0, len(self.data), what))
        return found

    def ending(self) -> list[Problem]:
        """Say why it may not be all that its writer had, if nobody closed it."""
        found: list[Problem] = []
        if self.is_written or self._most is not None:
            return found  # what came later is in the file that has it again
        if self.seed < 0:
            what = "it was never begun: its writer was stopped before its first entry"
            return [Problem(self.path, 0, len(self.data), what)]
        if self.cut:
            end = len(self.data) - self.cut
            what = "a frame cut off: its writer was stopped, or the file shortened"
            found.append(Problem(self.path, end, self.cut, what))
        if not self.is_closed:
            what = "its writer did not close it: what came later is not there"
            found.append(Problem(self.path, len(self.data), 0, what))
        return found

    # ---- entries

    def entries(self, first: int, last: int) -> Entries:
        """List entries by number; `last` is not included."""
        if last <= first:
            return np.empty(0, ENTRY)
        a = int(np.searchsorted(self.starts, first, "right")) - 1
        b = int(np.searchsorted(self.starts, last, "left"))
        base = int(self.starts[a])
        if b - a > 1:
            runs = self.data_runs[a:b].copy()
            shift = first - base if runs["stride"][0] else 0
            runs[0] = (
                part_of(runs[0], shift, int(runs["count"][0])) if shift else runs[0]
            )
            end = int(self.starts[b - 1])
            if runs["stride"][-1]:
                runs[-1] = part_of(runs[-1], 0, last - end)
            return self._joined(runs)[first - base - shift : last - base - shift]
        run = self.data_runs[a]
        if run["stride"]:
            return listed(self.data, part_of(run, first - base, last - base), self.seed)
        # Frames of several sizes are found one after the other: kept for the next call.
        known = self._walked
        if known is None or known[0] != a:
            known = self._walked = (a, listed(self.data, run, self.seed))
        return known[1][first - base : last - base]

    def _joined(self, runs: Runs) -> Entries:
        table, at = np.empty(int(runs["count"].sum()), ENTRY), 0
        for run in runs:
            count = int(run["count"])
            listed(self.data, run, self.seed, table[at : at + count])
            at += count
        return table

    def select(
        self, source: int | None, start_ns: int | None, stop_ns: int | None
    ) -> tuple[NDArray[np.int64], Entries]:
        """Find the entries of a source and of a time: their numbers, and a list.

        Only the runs that may have some are looked at. An entry whose header is damaged
        is of the source that all of its run are of, and may be of any time between its
        neighbours'; in a run of several sources it is of none: see `unknown`.
        """
        at = self._runs_of(source, start_ns, stop_ns)
        runs = self.data_runs[at]
        table = self._joined(runs)
        numbers = np.arange(len(table), dtype=np.int64)
        shift = (
            self.starts[at]
            - np.concatenate([[0], np.cumsum(runs["count"], dtype=np.int64)[:-1]])
            if len(at)
            else np.empty(0, np.int64)
        )
        numbers += np.repeat(shift, runs["count"])
        lost = table["state"] != journal_scan.GOOD
        wanted = np.ones(len(table), bool)
        if source is not None:
            own = np.repeat(runs["source"] == source, runs["count"])
            wanted &= np.where(lost, own, table["source"] == source)
        if start_ns is not None or stop_ns is not None:
            low = high = table["time_ns"]
            if lost.any():
                low, high = _between(table, lost, runs)
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
        """Find the runs that may have entries of a source and of a time."""
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
        """Find damage that may have held entries of a source and time.

        Headers of runs of several sources, and what no run covers.
        """
        found = self.losses()
        if source is None:
            return found
        for run in self.data_runs[self._runs_of(source, start_ns, stop_ns)]:
            if run["source"] != SEVERAL:
                continue
            for entry in listed(self.data, run, self.seed):
                if entry["state"] != journal_scan.GOOD:
                    what = "the header of an entry is damaged: of any of its sources"
                    at, nbytes = int(entry["offset"]), int(entry["bytes"])
                    found.append(Problem(self.path, at, nbytes, what))
        return found

    def mixed_sources(self) -> set[int]:
        """List the sources of runs that have several; looks at their headers."""
        found: set[int] = set()
        for run in self.data_runs[self.data_runs["source"] == SEVERAL]:
            table = listed(self.data, run, self.seed)
            good = table["state"] == journal_scan.GOOD
            found |= set(map(int, distinct(table["source"][good])))
        return found

    def frame(self, entry: Any, *, verify: bool = True) -> Frame:
        """Read an entry; its payload is a view of the file.

        Raises
        ------
        CorruptFrame
            It is damaged: names the file and the byte.
        """
        at = int(entry["offset"])
        try:
            if entry["state"] == journal_scan.LOST:
                raise CorruptFrame(
                    f"the header at byte {at} is damaged, {int(entry['bytes'])} bytes "
                    "with it"
                )
            number = int(entry["labels"])
            labels = self.notes.labels.get(number) if number else None
            end = at + HEADER_BYTES + int(entry["bytes"])
            return Frame.from_buffer(
                memoryview(self.data)[:end], at, seed=self.seed, verify=verify,
                labels=labels,
            )  # fmt: skip
        except CorruptFrame as error:
            raise CorruptFrame(f"{self.path}: {error}") from error

    def device_stamps(self, entries: Entries) -> NDArray[np.int64] | None:
        """Copy device times and counters, (n, 2); None: not all entries have them."""
        if not len(entries) or not (entries["flags"] & Flag.DEVICE_STAMP).all():
            return None
        out = np.empty((len(entries), 2), np.int64)
        table = np.ascontiguousarray(entries).view("u1")
        if journal_scan.device_stamps(self.data, table, out) < len(entries):
            return None
        return out

    def close(self) -> None:
        """Forget the mapping; it goes with the last array that looks at it."""
        self.data = b""
        self.runs = np.empty(0, RUN)
        self._count()


def leave_out_repeated(files: Sequence[InputFile]) -> None:
    """Leave out of files what later ones have again, after a disk had failed."""
    again = {
        str(said["uuid"]): int(said["entries"])
        for file in files
        if file.header is not None and (said := file.header.about.get("again"))
    }
    for file in files:
        if file.header is not None and file.header.uuid.hex() in again:
            file.leave_out(again[file.header.uuid.hex()])


def _between(
    table: Entries, lost: NDArray[np.bool_], runs: Runs
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Say between which times entries lie: their own, or those of their neighbours."""
    low, high = table["time_ns"].copy(), table["time_ns"].copy()
    run_of = np.repeat(np.arange(len(runs)), runs["count"])
    low[lost], high[lost] = (
        runs["time_min"][run_of[lost]],
        runs["time_max"][run_of[lost]],
    )
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


# ---- The index of a journal's file: runs of frames, believed where it can be, rebuilt

RUN = np.dtype(
    [
        ("offset", "<u8"), ("bytes", "<u8"), ("count", "<u4"), ("stride", "<u4"),
        ("time_min", "<i8"), ("time_max", "<i8"), ("sequence", "<u8"),
        ("source", "<u4"), ("kind", "<u2"), ("reserved", "<u2"), ("reserved2", "<u4"),
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


def believed(index: bytes | memoryview, seed: int, size: int) -> Runs:
    """Take the runs of an index that fit their file: whole, without a hole between.

    Parameters
    ----------
    index : bytes-like
        The index file, its first page included; whatever is in it.
    seed : int
        Of the data file.
    size : int
        Bytes of the data file.

    Returns
    -------
    ndarray of RUN
        A view of `index`, up to the first run that cannot be believed.
    """
    body = memoryview(index)[PAGE:]
    body = body[: len(body) // RUN_BYTES * RUN_BYTES]
    if not len(body):
        return np.empty(0, RUN)
    return np.frombuffer(body, RUN)[: journal_scan.good_runs(body, seed, PAGE, size)]


def scanned(data: Any, start: int, stop: int, seed: int) -> Runs:
    """Make the runs of what lies between two bytes of a file.

    Returns
    -------
    ndarray of RUN
        A copy; gaps are runs of kind DAMAGE.
    """
    found, room = [], np.empty(_CHUNK, RUN)
    while start < stop:
        count, start = journal_scan.list_runs(data, start, stop, seed, room.view("u1"))
        found.append(room[:count].copy())
    return np.concatenate(found) if found else np.empty(0, RUN)


def listed(data: Any, run: Any, seed: int, out: Entries | None = None) -> Entries:
    """List the entries of a run: as many as it has, damaged ones included.

    Parameters
    ----------
    data : bytes-like
        The data file.
    run : one of RUN
        Of that file.
    seed : int
        Of that file.
    out : ndarray of ENTRY, optional
        Filled and returned; of as many as the run has.

    Returns
    -------
    ndarray of ENTRY
        Where a header is damaged its `state` is LOST, and `offset` and `bytes` those of
        the gap; frames of several sizes that are lost together have one gap together.
    """
    start, stride, count = int(run["offset"]), int(run["stride"]), int(run["count"])
    stop = min(start + int(run["bytes"]), len(data))
    table = np.empty(count, ENTRY) if out is None else out
    n, at = journal_scan.list_entries(
        data, start, stop, seed, stride, table.view("u1"), False
    )
    if n == count and at >= stop:
        return table
    # Damage has made more of them, or fewer: all that is found, then brought to fit.
    found = [table[:n].copy()]
    while at < stop:
        room = np.empty(_CHUNK, ENTRY)
        n, at = journal_scan.list_entries(
            data, at, stop, seed, stride, room.view("u1"), False
        )
        found.append(room[:n])
    table[:] = _fitted(np.concatenate(found), run)
    return table


def part_of(run: Any, first: int, last: int) -> Any:
    """Take a part of a run whose frames are of one size."""
    part = run.copy()
    part["offset"] += first * int(run["stride"])
    part["count"] = last - first
    part["bytes"] = (last - first) * int(run["stride"])
    return part


def _fitted(table: Entries, run: Any) -> Entries:
    """Give a damaged run as many entries as it had."""
    count = int(run["count"])
    lost = np.flatnonzero(table["state"] != journal_scan.GOOD)
    if len(table) > count:
        # Padding after the last frame that is whole looks like one more gap.
        spare = lost[len(lost) - (len(table) - count) :]
        return np.delete(table, spare)[:count]
    if not len(lost):
        gap = np.zeros(1, ENTRY)
        gap["offset"], gap["state"] = run["offset"] + run["bytes"], journal_scan.LOST
        return np.concatenate([table, np.repeat(gap, count - len(table))])
    # The widest gap had most frames in it.
    widest = lost[np.argmax(table["bytes"][lost])]
    repeats = np.ones(len(table), int)
    repeats[widest] += count - len(table)
    return np.repeat(table, repeats)
