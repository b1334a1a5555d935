"""LogArchive: a log of any layout through one interface.

Each layout has a backend, a subclass of `LogSource` with a classmethod
``accepts(path) -> bool``. `BACKENDS` lists them: the first that accepts reads a path.
"""

from __future__ import annotations

import importlib
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast, overload

import numpy as np
from numpy.typing import NDArray

from ataraxis._kernels.memory import watch_open, watch_wait
from ataraxis.clock import Anchor
from ataraxis.errors import CorruptFrame
from ataraxis.frame import Frame
from ataraxis.labels import Labels, is_blocks
from ataraxis.log.clock_table import clock_of, is_table
from ataraxis.log.host_times import Route, read_tables
from ataraxis.log.journal.page import Gap, files_of
from ataraxis.log.journal.reader import JournalReader
from ataraxis.log.npy.package import Messages
from ataraxis.log.rows import TEXT, RowKind, read_rows
from ataraxis.log.selection import (
    EntryBlock,
    LogSource,
    Problem,
    Selection,
    SourceInfo,
    distinct,
)
from ataraxis.log.series import Series, Times, by_anchors

LONGEST_SLEEP_S = 0.5
CHUNK = 4096
# ---- the archive

# Module and class of the backend of each layout, in the order they are tried.
BACKENDS = [
    ("ataraxis.log.journal.reader", "JournalReader"),
    ("ataraxis.log.npy.reader", "PackageReader"),
]


def open_source(path: str | os.PathLike[str], name: str | None = None) -> LogSource:
    """Open a log with the backend of its layout.

    Raises `FileNotFoundError` if the path does not exist, or no backend accepts it.
    """
    for module, class_name in BACKENDS:
        backend = getattr(importlib.import_module(module), class_name)
        if backend.accepts(Path(path)):
            return cast("LogSource", backend(path, name) if name else backend(path))
    found = "no log" if Path(path).exists() else "nothing"
    raise FileNotFoundError(
        2, f"expected a log, found {found}: give its directory or file", str(path)
    )


class LogArchive(Messages):
    """Read a log: journals, npy directories and npz archives alike.

    Parameters
    ----------
    path : str or Path
        A directory or a file: a journal, npy entries, or an npz archive.
    name : str, optional
        Only this journal of a directory. Default: all of them together.
    onset_us : int, optional
        Onset of a log that counts microseconds and has no onset entry, UTC.
    verify : bool
        Whether to check checksums.

    Raises
    ------
    FileNotFoundError
        The path has no log.
    LayoutError
        The log is damaged beyond recognition.

    Notes
    -----
    Opening reads an index only. Single entries are views of the file, bulk arrays are
    copies. Entries are numbered from 0 in the order they were written; times may go
    back. The methods of ataraxis-data-structures' `LogArchiveReader` work as well.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from ataraxis.log.journal.writer import JournalWriter
    >>> directory = tempfile.TemporaryDirectory()
    >>> rows = np.arange(12.0).reshape(4, 3)
    >>> with JournalWriter(directory.name) as journal:
    ...     _ = journal.log_block(300, rows, time_ns=5, step_ns=2)
    >>> archive = LogArchive(directory.name)
    >>> len(archive), archive[1].array, list(archive.sources)
    (4, array([3., 4., 5.]), [300])
    >>> archive.read(300, start=7, stop=11).data
    array([[3., 4., 5.],
           [6., 7., 8.]])
    >>> directory.cleanup()
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        name: str | None = None,
        *,
        onset_us: int | None = None,
        verify: bool = True,
    ) -> None:
        self.path = Path(path)
        self._source = open_source(path, name)
        self._onset = None if onset_us is None else int(onset_us)
        self._verify = verify

    # ---- what it is

    def __len__(self) -> int:
        return len(self._source)

    @property
    def unit(self) -> str:
        """Unit of all times: 'ns' (monotonic) or 'us' (since the onset)."""
        return self._source.unit

    @property
    def sources(self) -> dict[int, SourceInfo]:
        """The sources by their numbers: name, labels, and further fields."""
        return self._source.sources

    @property
    def problems(self) -> list[Problem]:
        """Damage, cut files and foreign files noticed so far."""
        return self._source.problems

    @property
    def gaps(self) -> list[Gap]:
        """Frames known to be missing, as the recorder counted them."""
        return self._source.gaps

    def missing(self, source: int | str) -> int:
        """Count the missing entries of a source.

        Counts as `ataraxis verify` does, without reading the entries: damage is found
        only when an entry is read.
        """
        number = self._number(source)
        assert number is not None
        return self._source.account(number)[0]

    def is_numbered(self, source: int | str) -> bool:
        """Return whether a gap in the sequence numbers of a source is a loss."""
        number = self._number(source)
        assert number is not None
        return self._source.is_numbered(number)

    @property
    def anchors(self) -> list[Anchor]:
        """Pairs of monotonic and wall time, taken during the recording."""
        return self._source.anchors

    @property
    def is_live(self) -> bool:
        """Whether a writer has the log open."""
        return self._source.is_live

    def refresh(self) -> bool:
        """Add what was written since; return whether there was anything."""
        return self._source.refresh()

    def to_datetime64(self, times: NDArray[np.int64]) -> NDArray[np.datetime64]:
        """Convert monotonic times to wall times by the recorded anchors.

        Parameters
        ----------
        times : int64 array
            As in `EntryBlock.time`, ns, any shape; of the host that recorded, see
            `to_clock`.

        Returns
        -------
        datetime64[ns] array
            UTC, same shape; each converted by the last anchor before it.

        Raises
        ------
        ValueError
            The log has no anchors, or was written in several boots of a machine, so
            that a monotonic time is ambiguous.
        """
        return by_anchors(self.anchors, times, str(self.path))

    def to_clock(
        self, source: int | str, times: NDArray[np.int64], clock: str
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Convert monotonic times of a source to those of a host, with their bounds.

        Parameters
        ----------
        source : int or str
            Number or name of a source: its labels state whose clock its stamps are of.
        times : int64 array
            Monotonic times, as in `EntryBlock.time`, ns, shape (n,).
        clock : str
            Name of the host: of the one that recorded, or of one whose clock was
            recorded.

        Returns
        -------
        times, bounds : int64 array
            Monotonic times of that host, ns, and the largest error of each, ns.

        Raises
        ------
        ValueError
            No recorded clock leads to that of the host.
        """
        number = self._number(source)
        assert number is not None
        hosts = [clock_of(part.labels) for part in self._source.parts(number)]
        if len(set(hosts)) != 1:
            raise ValueError(
                f"{self.path}: the stamps of source {source!r} are of the clocks "
                f"{sorted(set(hosts))}: xarray.open_dataset(..., clock={clock!r}) "
                "converts each by its own"
            )
        here = {anchor.host for anchor in self.anchors}
        title = f"source {source!r} of {self.path}"
        route = Route(title, read_tables(self.path), here, clock)
        return route.convert(np.asarray(times, np.int64), *hosts[0])

    # ---- one by one

    @overload
    def __getitem__(self, key: int) -> Frame: ...
    @overload
    def __getitem__(self, key: slice) -> list[Frame]: ...
    def __getitem__(self, key: int | slice) -> Frame | list[Frame]:
        """Return an entry by its number, or several; payloads are views of the file.

        Raises `IndexError`, or `CorruptFrame` if an entry is damaged.
        """
        if isinstance(key, slice):
            return list(self.entries(numbers=range(len(self))[key]))
        number = key + len(self) if key < 0 else key
        if not 0 <= number < len(self):
            raise IndexError(f"{self.path} has no entry {key}: it has {len(self)}")
        return self._source.frame(number, verify=self._verify)

    def __iter__(self) -> Iterator[Frame]:
        return self.entries()

    def entries(
        self,
        source: int | str | None = None,
        start: int | None = None,
        stop: int | None = None,
        *,
        numbers: NDArray[np.int64] | range | None = None,
    ) -> Iterator[Frame]:
        """Iterate over all entries, or over those that `select` finds.

        Raises `CorruptFrame` at a damaged one; continue behind it with `numbers`.
        """
        found = self.select(source, start, stop, numbers=numbers)
        return self._source.frames(found, verify=self._verify)

    # ---- in bulk

    def select(
        self,
        source: int | str | None = None,
        start: int | None = None,
        stop: int | None = None,
        *,
        numbers: NDArray[np.int64] | range | None = None,
    ) -> Selection:
        """Find entries without reading their payloads.

        Parameters
        ----------
        source : int or str, optional
            Number or name of a source. Default: all.
        start, stop : int, optional
            Times, in `unit`; `stop` is not included.
        numbers : array of int or range, optional
            Only these, in this order; excludes the other arguments.

        Returns
        -------
        Selection
            Numbers, times, sequence numbers, sources and sizes, as arrays.
        """
        if numbers is None:
            return self._source.select(self._number(source), start, stop)
        if source is not None or start is not None or stop is not None:
            raise ValueError("numbers= excludes source, start and stop: give one kind")
        wanted = np.asarray(numbers, np.int64)
        if len(wanted) and not 0 <= wanted.min() <= wanted.max() < len(self):
            raise IndexError(f"numbers of {self.path} go from 0 to {len(self) - 1}")
        return self._source.pick(wanted)

    def _number(self, source: int | str | None) -> int | None:
        if not isinstance(source, str):
            return None if source is None else int(source)
        sources = self.sources
        for number, info in sources.items():
            if info.name == source:
                return number
        names = [info.name or number for number, info in sources.items()]
        raise KeyError(f"{self.path} has no source {source!r}: it has {names}")

    def read(
        self,
        source: int | str | None = None,
        start: int | None = None,
        stop: int | None = None,
        *,
        numbers: NDArray[np.int64] | range | None = None,
        skip_damaged: bool = False,
    ) -> EntryBlock:
        """Read entries of one dtype and shape into one array.

        Onsets of npy logs are left out, unless `numbers` has them.

        Parameters
        ----------
        source, start, stop, numbers
            As for `select`.
        skip_damaged : bool
            Leave damaged entries out; `EntryBlock.left_out` lists them.

        Returns
        -------
        EntryBlock
            `data` has shape (n, *shape), a copy; text is an array of str objects.
            Without a shorter last block of samples, which `left_out` lists.

        Raises
        ------
        ValueError
            Nothing was found, or the entries differ in dtype or shape; the message
            names the first that differs.
        CorruptFrame
            An entry is damaged; the message names it. See `skip_damaged`.

        Warns
        -----
        RuntimeWarning
            Damage in the files may have contained more such entries, whose headers are
            lost. `EntryBlock.problems` shows where. Or the last block of samples is
            shorter than the others, and is left out.
        """
        found = self.select(source, start, stop, numbers=numbers)
        if numbers is None:
            found = self.without_onsets(found)
        problems = (
            self._source.unknown(self._number(source), start, stop)
            if numbers is None
            else []
        )
        left_out = np.empty(0, np.int64)
        if skip_damaged:
            is_whole = np.fromiter(map(self._is_whole, found.numbers), bool, len(found))
            left_out = found.numbers[~is_whole]
            found = self._source.pick(found.numbers[is_whole])
        if problems:
            warnings.warn(
                f"{len(problems)} damaged places of {self.path} may have contained "
                f"more of these entries; the first: {problems[0]}",
                RuntimeWarning,
                stacklevel=2,
            )
        if not len(found):
            raise ValueError(
                f"{self.path} has no entry of that source and time"
                + (f": {len(left_out)} are damaged" if len(left_out) else "")
            )
        first = int(found.numbers[0])
        try:
            frame = self._source.frame(first, verify=self._verify)
        except CorruptFrame as error:
            self._damaged(first, error)
        kind = self._kind_of(frame, first)

        def refuse(frame: Frame, number: int) -> NoReturn:
            own = self._kind_of(frame, number)
            raise ValueError(
                f"entry {number} of {self.path} is {own}, entry {first} is {kind}: "
                "select a source or numbers of one kind"
            )

        found, rest = self._whole_blocks(found, kind, frame)
        if len(rest):
            left_out = np.concatenate([left_out, rest])
            warnings.warn(
                f"the last block of {self.path} is shorter and is left out: the "
                "samples of all are in xarray.open_dataset(path, engine='ataraxis')",
                RuntimeWarning,
                stacklevel=2,
            )
        data = read_rows(
            self._source, found, kind, verify=self._verify, refuse=refuse,
            damaged=self._damaged,
        )  # fmt: skip
        found = self._source.corrected(found)
        return EntryBlock(
            data=data,
            time=found.time,
            sequence=found.sequence,
            source=found.source,
            device=self._source.device_stamps(found),
            labels=None if kind.dtype == TEXT else self._labels_of(frame, kind),
            unit=self.unit,
            left_out=left_out,
            problems=tuple(problems),
        )

    def without_onsets(self, found: Selection) -> Selection:
        """Leave the onsets of an npy log out of a selection: they are times, not data.

        Parameters
        ----------
        found : Selection
            Of this archive.

        Returns
        -------
        Selection
            Without entries of stamp 0 whose 8 bytes are microseconds of this century.
        """
        if self.unit != "us":
            return found
        behind = [
            Times(self._source, int(number)).onset_numbers
            for number in distinct(found.source)
        ]
        onsets = np.concatenate([np.empty(0, np.int64), *behind])
        is_onset = np.isin(found.numbers, onsets)
        return self._source.pick(found.numbers[~is_onset]) if is_onset.any() else found

    def _whole_blocks(
        self, found: Selection, kind: RowKind, first: Frame
    ) -> tuple[Selection, NDArray[np.int64]]:
        """Leave out a shorter last block of samples; return its number, too."""
        none = np.empty(0, np.int64)
        if len(found) < 2 or found.nbytes[-1] >= found.nbytes[0]:
            return found, none
        info = self.sources.get(first.source)
        labels = info.labels if info is not None else None
        if labels is None or not is_blocks(labels) or labels.shape != kind.shape:
            return found, none
        if (found.nbytes[:-1] != found.nbytes[0]).any():
            return found, none
        return found[: len(found) - 1], found.numbers[-1:]

    def _is_whole(self, number: int) -> bool:
        try:
            self._source.frame(int(number), verify=self._verify)
        except CorruptFrame:
            return False
        return True

    def _damaged(self, number: int, error: CorruptFrame) -> NoReturn:
        raise CorruptFrame(
            f"entry {number} of {self.path} is damaged: {error}: leave it out with "
            "skip_damaged=True, or choose others with numbers="
        ) from error

    def _kind_of(self, frame: Frame, number: int) -> RowKind:
        try:
            return RowKind.of(frame)
        except TypeError:
            raise ValueError(
                f"entry {number} of {self.path} is not an array ({frame.dtype.name}): "
                "select a source, or read it by entries()"
            ) from None

    def _labels_of(self, frame: Frame, kind: RowKind) -> Labels | None:
        """Return the labels of a frame, or else of its source, if they fit."""
        info = self.sources.get(frame.source)
        labels = frame.labels or (info.labels if info is not None else None)
        if labels is None or (labels.dtype, labels.shape) != (kind.dtype, kind.shape):
            return None
        return labels

    def batches(
        self, n: int, source: int | str | None = None
    ) -> list[NDArray[np.int64]]:
        """Divide the entries into `n` parts for worker processes.

        Returns
        -------
        list of int64 arrays
            Numbers that another process passes to `read` or `entries` of an archive of
            the same path. No part is empty; with fewer than `n` entries there are fewer
            parts.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        numbers = np.arange(len(self), dtype=np.int64)
        if source is not None:
            numbers = self.select(source).numbers
        return [part for part in np.array_split(numbers, n) if len(part)]

    def follow(
        self, timeout: float | None = None, *, start: int = 0
    ) -> Iterator[Frame]:
        """Iterate over the entries, and over new ones as they are written.

        Parameters
        ----------
        timeout : float or None
            Longest wait for the next entry, s; the iteration ends after it.
        start : int
            Number of the first entry.

        Notes
        -----
        Ends when the writer has closed the log or died, and every entry was returned.
        Sleeps until a file grows; Ctrl-C interrupts it.
        """
        source = self._source
        directory = source.path if source.path.is_dir() else source.path.parent
        watch = watch_open(os.fsencode(directory), True)
        since = time.monotonic()
        try:
            while True:
                # Read before the refresh, which sees what was written until the end.
                was_live = source.is_live
                source.refresh()
                if start < len(source):
                    stop = min(len(source), start + CHUNK)
                    chunk = source.pick(range(start, stop))
                    yield from source.frames(chunk, verify=self._verify)
                    start, since = stop, time.monotonic()
                    continue
                # And after it: a writer between two files has opened the next one now.
                if not was_live and not source.is_live:
                    return
                left = LONGEST_SLEEP_S
                if timeout is not None:
                    left = min(left, since + timeout - time.monotonic())
                    if left <= 0:
                        return
                if watch < 0 or watch_wait(watch, int(left * 1e9)) < 0:
                    time.sleep(min(left, 0.02))
        finally:
            if watch >= 0:
                os.close(watch)

    def close(self) -> None:
        """Close the files; what was read stays valid."""
        self._source.close()

    def __enter__(self) -> LogArchive:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from ataraxis.card import html_of

        return html_of("archive", self)

    def __repr__(self) -> str:
        return f"<LogArchive {self.path}, {len(self)} entries>"


# ---- The sources of the logs at a path, one node per stream or source


@dataclass(frozen=True)
class LogNode:
    """One source of a log."""

    name: str
    """Name of its stream; ``source_7`` if it has none."""
    info: SourceInfo
    """Number, name and labels."""
    log: LogSource
    """The log it is in."""
    journal: str | None
    """The journal it is in, if it is one."""
    home: Nodes
    """The open nodes it belongs to."""

    def series(self, **options: Any) -> Series:
        """Open it; the options are those of `Series`."""
        series = Series(self.log, self.info, **options)
        self.home.opened.append(series)
        return series


class Nodes(Sequence[LogNode]):
    """The nodes at a path, open until `close`; with `name`, of this journal only.

    Raises `FileNotFoundError` if the path has no log.
    """

    def __init__(self, path: str | os.PathLike[str], name: str | None = None) -> None:
        self.path = Path(path)
        self._logs: list[LogSource] = []
        self._nodes: list[LogNode] = []
        self.opened: list[Series] = []
        """Series to close with it."""
        self._name = name
        if name is None and not JournalReader.accepts(self.path):
            self._add(open_source(path), None, False)
            return
        journals = list(files_of(self.path, name)) if self.path.exists() else []
        if not journals:
            open_source(path, name)  # raises
        for journal in journals:
            self._add(open_source(path, journal), journal, len(journals) > 1)

    def _add(
        self, log: LogSource, journal: str | None, is_one_of_several: bool
    ) -> None:
        self._logs.append(log)
        sources = {
            number: info
            for number, info in log.sources.items()
            if info.labels is not None or len(log.extents(number))
        }
        for number, info in sources.items():
            own = info.name or f"source_{number}"
            if is_one_of_several and journal is not None:
                if len(sources) == 1:
                    own = info.name or journal
                elif info.name is None:
                    own = f"{journal}/{own}"
            own = own.strip("/") or f"source_{number}"
            if any(node.name == own for node in self._nodes):
                own = f"{own}_{number}" if journal is None else f"{journal}/{own}"
            self._nodes.append(LogNode(own, info, log, journal, self))

    def __reduce__(self) -> tuple[Any, ...]:
        return Nodes, (self.path, self._name)

    def __len__(self) -> int:
        return len(self._nodes)

    def __getitem__(self, key: Any) -> Any:
        return self._nodes[key]

    def find(self, source: int | str | None = None) -> LogNode:
        """Return one by name or number; without either, the only one.

        The recorded clocks of other hosts count only if there is nothing else. Raises
        `ValueError` if there are several, `KeyError` if it does not exist; the message
        lists them.
        """
        if source is None:
            found = [
                node for node in self._nodes
                if not is_table(node.info.name or "", node.info.labels)
            ] or self._nodes  # fmt: skip
        elif isinstance(source, str):
            wanted = source.strip("/")
            found = [n for n in self._nodes if wanted in (n.name, n.info.name)][:1]
        else:
            found = [node for node in self._nodes if node.info.number == source]
        if len(found) == 1:
            return found[0]
        names = [node.name for node in self._nodes]
        if len(found) > 1:
            raise ValueError(
                f"{self.path} has several sources {names}: choose one with "
                f"source={names[0]!r}, or open all with xarray.open_datatree()"
            )
        if source is None:
            raise ValueError(f"{self.path} is a log without entries")
        raise KeyError(f"{self.path} has no source {source!r}: it has {names}")

    def close(self) -> None:
        """Close all files; what was read stays valid."""
        for series in self.opened:
            series.close()
        for log in self._logs:
            log.close()
