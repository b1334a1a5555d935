"""JournalReader: one journal, or all journals of a directory, as one log."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ataraxis._kernels import journal_scan
from ataraxis.clock import Anchor
from ataraxis.errors import CorruptFrame, LayoutError
from ataraxis.frame import HEADER_BYTES, DType, Frame
from ataraxis.log.account import SourceAccount, is_numbered
from ataraxis.log.clock_table import clock_of
from ataraxis.log.journal.input import (
    ENTRY,
    SEVERAL,
    Entries,
    InputFile,
    leave_out_repeated,
    list_entries,
)
from ataraxis.log.journal.page import Gap, files_of
from ataraxis.log.selection import (
    LogSource,
    Problem,
    Selection,
    SourceInfo,
    SourcePart,
)

# ---- entries of a source as ranges, and their wall times

NOT_A_TIME = np.iinfo(np.int64).min
_SPARSE = 64


def extents(file: InputFile, source: int) -> NDArray[np.int64]:
    """Return the entries of a source in a file as ranges of numbers, (k, 2).

    Runs of one source are not read; of runs with several, the headers are.
    """
    runs, starts = file.data_runs, file.starts
    at = np.flatnonzero(runs["source"] == source)
    found = [np.stack([starts[at], starts[at + 1]], 1)]
    for k in np.flatnonzero(runs["source"] == SEVERAL).tolist():
        table = list_entries(file.data, runs[k], file.seed)
        good = (table["source"] == source) & (table["state"] == journal_scan.GOOD)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], good, [False]])))
        found.append(edges.reshape(-1, 2) + starts[k])
    ranges = np.concatenate(found)
    return merge_ranges(ranges[np.argsort(ranges[:, 0], kind="stable")])


def sizes_of(file: InputFile, first: int, last: int) -> NDArray[np.int64]:
    """Return entries of a file as ranges of one size in a run, (k, 3).

    The size is -1 where headers are damaged.
    """
    runs, starts, found = file.data_runs, file.starts, [np.empty((0, 3), np.int64)]
    at = int(np.searchsorted(starts, first, "right")) - 1
    while first < last:
        stop = min(int(starts[at + 1]), last)
        if runs["padding"][at]:
            # All frames are alike: the run itself tells their size.
            size = int(runs["stride"][at]) - HEADER_BYTES - int(runs["padding"][at]) + 1
            found.append(np.array([[first, stop, size]], np.int64))
        else:
            table = file.entries(first, stop)
            is_lost = table["state"] == journal_scan.LOST
            nbytes = np.where(is_lost, -1, table["bytes"].astype(np.int64))
            edges = np.flatnonzero(np.diff(nbytes)) + 1
            heads = np.concatenate([[0], edges])
            tails = np.concatenate([edges, [stop - first]])
            found.append(np.stack([heads + first, tails + first, nbytes[heads]], 1))
        first, at = stop, at + 1
    return np.concatenate(found)


def merge_ranges(ranges: NDArray[np.int64]) -> NDArray[np.int64]:
    """Merge adjacent ranges."""
    if len(ranges) < 2:
        return ranges
    is_first = np.concatenate([[True], ranges[1:, 0] != ranges[:-1, 1]])
    is_last = np.concatenate([is_first[1:], [True]])
    return np.stack([ranges[is_first, 0], ranges[is_last, 1]], 1)


def wall_shifts(files: Iterable[InputFile]) -> list[int | None]:
    """Return wall minus monotonic time of each file, from one anchor per session.

    All files of a session use the anchor of its first file, so that times within a
    session differ as their stamps do. A file whose first page is lost uses its first
    anchor record, or the shift of the file before.
    """
    sessions: dict[str, int] = {}
    found: list[int | None] = []
    for file in files:
        header = file.header
        anchors = ([header.anchor] if header else []) + file.records.anchors
        shift = found[-1] if found else None
        if anchors:
            shift = anchors[0].wall_ns - anchors[0].monotonic_ns
        if header is not None and shift is not None:
            shift = sessions.setdefault(header.session, shift)
        found.append(shift)
    known = [shift for shift in found if shift is not None]
    first = known[0] if known else None
    return [first if shift is None else shift for shift in found]


class _Span:
    """The first and last entries of one stream, and how many there are."""

    def __init__(self) -> None:
        self.account = SourceAccount()
        self._first: int | None = None
        self._last = self._count = 0

    def add(self, file: InputFile, ranges: NDArray[np.int64]) -> None:
        """Add the entries of a file."""
        if not len(ranges):
            return
        self._count += int((ranges[:, 1] - ranges[:, 0]).sum())
        low = _end_sequence(file, range(*ranges[0].tolist()))
        high = _end_sequence(file, range(*ranges[-1].tolist())[::-1])
        if low is not None and high is not None:
            first = low if self._first is None else self._first
            self._first = min(first, low, high)
            self._last = max(self._last, low, high)

    def count(self) -> tuple[int, int]:
        """Return how many are missing, and how many were late."""
        return self.account.span(self._first or 0, self._last, self._count)


def _end_sequence(file: InputFile, numbers: range) -> int | None:
    """Return the sequence number of the first intact entry of some."""
    for number in numbers[:_SPARSE]:
        entry = file.entries(number, number + 1)[0]
        if entry["state"] == journal_scan.GOOD:
            return int(entry["sequence"])
    return None


# ---- the reader


class JournalReader(LogSource):
    """Read journals, also damaged ones and those still being written.

    Parameters
    ----------
    path : str or Path
        A directory, or a file of a journal.
    name : str, optional
        Only this journal. Default: all of the directory, one after the other.

    Raises
    ------
    FileNotFoundError, LayoutError
        The path has no journal; a file is not a journal's.

    Notes
    -----
    Opening reads indexes, not data. Entries are numbered from 0, file after file.
    Arrays and frames are views of the mapped files and keep them mapped. `LogArchive`
    reads journals with it.
    """

    unit = "ns"

    def __init__(self, path: str | os.PathLike[str], name: str | None = None) -> None:
        self.path = Path(path)
        self.name = name
        self.files: list[InputFile] = []
        self._known: set[Path] = set()
        self._failed: list[Problem] = []
        self.starts = np.zeros(1, np.int64)
        if not self._paths():
            what = f"the journal {name!r}" if name else "a journal"
            raise FileNotFoundError(
                2, f"expected {what} (files NAME.000000.axj), found none", str(path)
            )
        self.refresh()

    @classmethod
    def accepts(cls, path: Path) -> bool:
        """Return whether the path has a journal."""
        if path.is_file():
            return path.suffix == ".axj"
        return path.is_dir() and any(path.glob("*.axj"))

    def _paths(self) -> list[Path]:
        return [p for paths in files_of(self.path, self.name).values() for p in paths]

    def refresh(self) -> bool:
        """Add what was written since; return whether there was anything."""
        count = len(self)
        for path in self._paths():
            if path in self._known:
                continue
            self._known.add(path)
            try:
                self.files.append(InputFile(path))
            except (LayoutError, OSError) as error:
                self._failed.append(Problem(path, 0, path.stat().st_size, str(error)))
        # Growth of a file before the last one would change later numbers.
        for file in self.files:
            file.refresh()
        leave_out_repeated(self.files)
        self.starts = np.zeros(len(self.files) + 1, np.int64)
        np.cumsum([len(file) for file in self.files], out=self.starts[1:])
        return len(self) > count

    def __len__(self) -> int:
        return int(self.starts[-1])

    # ---- properties

    @property
    def problems(self) -> list[Problem]:
        """Problems noticed so far; `verify` checks everything."""
        found = list(self._failed)
        for file in self.files:
            found += [*file.problems, *file.losses(), *file.ending()]
        return found

    @property
    def is_live(self) -> bool:
        """Whether a writer has a file of it open."""
        return any(not f.is_closed and f.is_written for f in self.files)

    @property
    def anchors(self) -> list[Anchor]:
        """Pairs of monotonic and wall time: of each file's start, and each minute."""
        found = []
        for file in self.files:
            found += [file.header.anchor] if file.header is not None else []
            found += file.records.anchors
        return found

    @property
    def gaps(self) -> list[Gap]:
        """Frames known to be missing."""
        return [gap for file in self.files for gap in file.records.gaps]

    @property
    def sources(self) -> dict[int, SourceInfo]:
        """The sources by their numbers: those with entries or a description."""
        found: dict[int, SourceInfo] = {}
        for file in self.files:
            numbers = set(map(int, np.unique(file.data_runs["source"])))
            if SEVERAL in numbers:
                numbers.remove(SEVERAL)
                numbers |= file.mixed_sources()
            records = file.records
            for number in sorted(numbers | records.sources.keys()):
                fields = records.sources.get(number, {})
                labels = records.labels.get(fields.get("labels", 0))
                if number not in found or fields:
                    more = {
                        key: value
                        for key, value in fields.items()
                        if key not in ("record", "source", "name", "labels")
                    }
                    found[number] = SourceInfo(number, fields.get("name"), labels, more)
        return found

    # ---- entries

    def select(
        self,
        source: int | None = None,
        start: int | None = None,
        stop: int | None = None,
    ) -> Selection:
        """Find entries by source and time, `start` to before `stop`, ns."""
        parts = [file.select(source, start, stop) for file in self.files]
        parts = parts or [(np.empty(0, np.int64), np.empty(0, ENTRY))]
        return self._selection(
            [n + s for (n, _), s in zip(parts, self.starts, strict=False)],
            [table for _, table in parts],
            range(len(parts)),
        )

    def unknown(
        self, source: int | None, start: int | None, stop: int | None
    ) -> list[Problem]:
        """Find damage that may have contained entries of a source and time."""
        found = list(self._failed)
        for file in self.files:
            found += file.unknown(source, start, stop)
        return found

    def pick(self, numbers: NDArray[np.int64] | range) -> Selection:
        """Return entries by their numbers, in any order."""
        wanted = np.asarray(numbers, np.int64)
        which = np.searchsorted(self.starts, wanted, "right") - 1
        # Distant entries are looked up one by one, without those between.
        is_far = np.abs(np.diff(wanted)) > _SPARSE
        edges = np.flatnonzero(is_far | (np.diff(which) != 0)) + 1
        tables, files, parts = [], [], np.split(wanted, edges)
        for part in parts if len(wanted) else []:
            at = int(np.searchsorted(self.starts, part[0], "right")) - 1
            own = part - self.starts[at]
            low, high = int(own.min()), int(own.max()) + 1
            table = self.files[at].entries(low, high)
            is_whole = high - low == len(own) and bool(np.all(np.diff(own) == 1))
            tables.append(table if is_whole else table[own - low])
            files.append(at)
        if not tables:
            parts, tables, files = [wanted], [np.empty(0, ENTRY)], [0]
        return self._selection(parts, tables, files)

    def _selection(
        self,
        numbers: list[NDArray[np.int64]],
        tables: list[Entries],
        files: Iterable[int],
    ) -> Selection:
        table = np.concatenate(tables) if len(tables) != 1 else tables[0]
        lengths = [len(t) for t in tables]
        known = table["state"] != journal_scan.LOST
        return Selection(
            np.concatenate(numbers) if len(numbers) != 1 else numbers[0],
            table["time_ns"],
            table["sequence"],
            table["source"],
            table["bytes"],
            (table, np.repeat(np.fromiter(files, np.int32, len(tables)), lengths)),
            None if known.all() else known,
        )

    def frame(self, number: int, *, verify: bool = True) -> Frame:
        """Return an entry, whose payload is a view of the file.

        Raises `CorruptFrame`, with the file and the byte, if it is damaged.
        """
        at = int(np.searchsorted(self.starts, number, "right")) - 1
        file, own = self.files[at], number - int(self.starts[at])
        return file.frame(file.entries(own, own + 1)[0], verify=verify)

    def frames(self, selection: Selection, *, verify: bool = True) -> Iterator[Frame]:
        """Iterate over the entries of a selection, like `frame`."""
        table, which = selection.where
        for entry, at in zip(table, which, strict=True):
            yield self.files[at].frame(entry, verify=verify)

    def gather(
        self, selection: Selection, out: NDArray[np.uint8], *, verify: bool = True
    ) -> int:
        """Copy payloads to the rows of `out`; see `LogSource.gather`."""
        table, _ = selection.where
        done = 0
        for file, start, stop in self._parts(selection):
            if start and not self._is_alike(selection, start):
                break
            part = np.ascontiguousarray(table[start:stop]).view("u1")
            done += journal_scan.gather(file.data, part, out[start:stop], verify)
            if done < stop:
                break
        return done

    def _is_alike(self, selection: Selection, at: int) -> bool:
        """Return whether an entry has the dtype and shape of the first one."""
        table, which = selection.where
        try:
            one, other = (
                self.files[int(which[k])].frame(table[k], verify=False) for k in (0, at)
            )
        except CorruptFrame:
            return False
        if (one.dtype, one.shape) != (other.dtype, other.shape):
            return False
        return one.dtype != DType.ND_ARR or one.array.dtype == other.array.dtype

    def extents(self, source: int) -> NDArray[np.int64]:
        """Return the entries of a source as ranges of numbers, (k, 2), in order."""
        parts = [
            extents(file, source) + start
            for file, start in zip(self.files, self.starts, strict=False)
        ]
        return merge_ranges(np.concatenate([np.empty((0, 2), np.int64), *parts]))

    def sizes(self, source: int) -> NDArray[np.int64]:
        """Return the entries of a source as ranges of one size, (k, 3), in order.

        Reads no header of a run that states that its frames are alike.
        """
        found = [np.empty((0, 3), np.int64)]
        for file, start in zip(self.files, self.starts, strict=False):
            for first, last in extents(file, source).tolist():
                parts = sizes_of(file, first, last)
                parts[:, :2] += start
                found.append(parts)
        parts = np.concatenate(found)
        if not len(parts):
            return parts
        is_new = np.ones(len(parts), bool)
        is_new[1:] = (parts[1:, 2] != parts[:-1, 2]) | (parts[1:, 0] != parts[:-1, 1])
        first = np.flatnonzero(is_new)
        parts[first, 1] = parts[np.append(first[1:], len(parts)) - 1, 1]
        return parts[first]

    def is_numbered(self, source: int) -> bool:
        """Return whether a gap in the sequence numbers of a source is a loss."""
        return all(
            is_numbered(file.header, file.records.sources.get(source, {}))
            for file in self.files
        )

    def account(self, source: int) -> tuple[int, int]:
        """Return how many entries of a source are missing, and how many were late.

        Of several streams of one name, the counts of all: each has its own numbers.
        """
        accounts: dict[str, _Span] = {}
        stream = ""
        for file in self.files:
            records = file.records
            fields = records.sources.get(source, {})
            stream = str(fields.get("stream", stream))
            span = accounts.setdefault(stream, _Span())
            span.account.describe(file.header, fields)
            span.account.gaps += [gap for gap in records.gaps if gap.source == source]
            span.add(file, extents(file, source))
        found = [span.count() for span in accounts.values()]
        return sum(lost for lost, _ in found), sum(late for _, late in found)

    def parts(self, source: int) -> list[SourcePart]:
        """Return the streams that a source was recorded from, in order."""
        found: dict[str, SourcePart] = {}
        stream = ""
        for file, start in zip(self.files, self.starts, strict=False):
            fields = file.records.sources.get(source, {})
            stream = str(fields.get("stream", stream))
            labels = file.records.labels.get(fields.get("labels", 0))
            own = extents(file, source) + start
            if not fields and not len(own):
                continue
            before = found.get(stream)
            if before is not None:
                own = np.concatenate([before.ranges, own])
                labels = before.labels if labels is None else labels
            found[stream] = SourcePart(stream, labels, merge_ranges(own))
        return list(found.values())

    def shifts_ns(self, source: int) -> list[int | None]:
        """Return wall minus monotonic time of each file; None if unknown.

        That of another host is not known: the anchors are of the host that recorded.
        """
        if source in self._of_others():
            return [None]
        return wall_shifts(self.files)

    def _of_others(self) -> list[int]:
        """Return the sources whose stamps are of another host."""
        found = set()
        for file in self.files:
            for source, fields in file.records.sources.items():
                labels = file.records.labels.get(fields.get("labels", 0))
                if clock_of(labels)[0]:
                    found.add(source)
        return sorted(found)

    def wall_ns(self, selection: Selection) -> NDArray[np.int64] | None:
        """Return wall times, ns since 1970; see `LogSource.wall_ns`.

        NaT for entries of a source whose stamps are of another host; None, if all are.
        """
        is_other = np.isin(selection.source, self._of_others())
        if len(selection) and is_other.all():
            return None
        known = [shift for shift in wall_shifts(self.files) if shift is not None]
        if len(known) < len(self.files):
            return None
        table, which = selection.where
        wall = table["time_ns"] + np.array(known or [0], np.int64)[which]
        wall[(table["state"] == journal_scan.LOST) | is_other] = NOT_A_TIME
        return np.asarray(wall)

    def device_stamps(self, selection: Selection) -> NDArray[np.int64] | None:
        """Return device times and counters, (n, 2): a copy; None if one has none."""
        table, _ = selection.where
        parts = [
            file.device_stamps(table[start:stop])
            for file, start, stop in self._parts(selection)
        ]
        found = [part for part in parts if part is not None]
        if not found or len(found) < len(parts):
            return None
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _parts(self, selection: Selection) -> Iterator[tuple[InputFile, int, int]]:
        """Split a selection by file: file, start and stop."""
        _, which = selection.where
        edges = [0, *(np.flatnonzero(np.diff(which)) + 1).tolist(), len(which)]
        for start, stop in pairwise(edges):
            if start < stop:
                yield self.files[int(which[start])], start, stop

    def close(self) -> None:
        """Close the files; arrays and frames that were read stay valid."""
        for file in self.files:
            file.close()
        self.files.clear()
        self.starts = np.zeros(1, np.int64)
