"""LogArchive: a log of any layout through one interface.

Each layout has a backend, a `LogSource` (see `ataraxis.log.selection`) that also has a
classmethod ``accepts(path) -> bool``. `BACKENDS` names them: the first that accepts a
path reads it.
"""

from __future__ import annotations

import importlib
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn, cast, overload

import numpy as np
from numpy.typing import NDArray

from ataraxis._kernels.memory import watch_open, watch_wait
from ataraxis.clock import Anchor
from ataraxis.errors import CorruptFrame
from ataraxis.frame import Frame
from ataraxis.labels import Labels
from ataraxis.log.journal.page import Gap
from ataraxis.log.npy.package import Messages
from ataraxis.log.selection import EntryBlock, LogSource, Problem, Selection, SourceInfo
from ataraxis.log.series import TEXT, RowKind, by_anchors, read_rows

# ---- following a log that is being written: sleep until it grows, end with its writer

LONGEST_SLEEP_S = 0.5
CHUNK = 4096


def follow(
    source: LogSource, timeout: float | None, start: int, *, verify: bool = True
) -> Iterator[Frame]:
    """Iterate over the entries of a log, those to come included.

    Parameters
    ----------
    source : LogSource
        The log.
    timeout : float or None
        Longest wait for the next entry, s; then it ends.
    start : int
        Number of the first entry.
    verify : bool
        Whether checksums are looked at.
    """
    directory = source.path if source.path.is_dir() else source.path.parent
    watch = watch_open(os.fsencode(directory), True)
    since = time.monotonic()
    try:
        while True:
            # Asked before looking: what is written before it ends is seen by the look.
            was_live = source.is_live
            source.refresh()
            if start < len(source):
                stop = min(len(source), start + CHUNK)
                yield from source.frames(source.pick(range(start, stop)), verify=verify)
                start, since = stop, time.monotonic()
                continue
            # And after it: a writer that was between two files has the next one now.
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


# ---- the archive

# Module and class of each layout's backend; asked in this order.
BACKENDS = [
    ("ataraxis.log.journal.reader", "JournalReader"),
    ("ataraxis.log.npy.reader", "PackageReader"),
]


def open_source(path: str | os.PathLike[str], name: str | None = None) -> LogSource:
    """Open a log with the backend of its layout.

    Raises
    ------
    FileNotFoundError
        Nothing is there, or no backend knows it.
    """
    for module, class_name in BACKENDS:
        backend = getattr(importlib.import_module(module), class_name)
        if backend.accepts(Path(path)):
            return cast("LogSource", backend(path, name) if name else backend(path))
    found = "nothing" if not Path(path).exists() else "no log that is known"
    raise FileNotFoundError(
        2,
        f"a log was asked for, {found} is there: give its directory or file",
        str(path),
    )


class LogArchive(Messages):
    """Read a log: journals, npy directories and npz archives alike.

    Parameters
    ----------
    path : str or Path
        A directory or file: of a journal, of the originals' npy files, or an archive.
    name : str, optional
        In a directory of several journals: only this one. All together, if not given.
    onset_us : int, optional
        For logs of microseconds since an onset: the onset, if the log has none, UTC.
    verify : bool
        Whether checksums are looked at.

    Raises
    ------
    FileNotFoundError
        There is no log.
    LayoutError
        It is damaged beyond recognition.

    Notes
    -----
    Lazy: opening reads an index. Single entries are views of the file, bulk arrays are
    copies, made in one call. Entries are numbered from 0 in the order they were
    written; times need not rise. `LogArchiveReader`'s names are taken too.

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
        """Unit of all times: 'ns', monotonic, or 'us', since the onset."""
        return self._source.unit

    @property
    def sources(self) -> dict[int, SourceInfo]:
        """The sources by their numbers: name, labels, what their writer said."""
        return self._source.sources

    @property
    def problems(self) -> list[Problem]:
        """What is damaged, cut or foreign, as far as it was noticed."""
        return self._source.problems

    @property
    def gaps(self) -> list[Gap]:
        """Frames that are known to be missing, as the recorder counted them."""
        return self._source.gaps

    def missing(self, source: int | str) -> int:
        """Count the entries of a source that should be there and are not.

        As `ataraxis verify` counts, without a look at each entry: what is damaged is
        found when it is read.
        """
        number = self._number(source)
        assert number is not None
        return self._source.account(number)[0]

    @property
    def anchors(self) -> list[Anchor]:
        """Wall times of monotonic ones, taken while it was written."""
        return self._source.anchors

    @property
    def is_live(self) -> bool:
        """Whether somebody still writes it."""
        return self._source.is_live

    def refresh(self) -> bool:
        """Take in what was written since; whether there was anything."""
        return self._source.refresh()

    def to_datetime64(self, times: NDArray[np.int64]) -> NDArray[np.datetime64]:
        """Turn monotonic times into wall times, by the anchors that were recorded.

        Parameters
        ----------
        times : int64 array
            As in `EntryBlock.time`, ns, any shape.

        Returns
        -------
        datetime64[ns] array
            UTC, same shape; each by the last anchor before it.

        Raises
        ------
        ValueError
            The log has no anchors, or its parts were written in several boots of a
            machine: a monotonic time alone does not say of which.
        """
        return by_anchors(self.anchors, times, str(self.path))

    # ---- one by one

    @overload
    def __getitem__(self, key: int) -> Frame: ...
    @overload
    def __getitem__(self, key: slice) -> list[Frame]: ...
    def __getitem__(self, key: int | slice) -> Frame | list[Frame]:
        """Read an entry by its number, or several; payloads are views of the file.

        Raises `IndexError`, and `CorruptFrame` if an entry is damaged.
        """
        if isinstance(key, slice):
            return list(self.entries(numbers=range(len(self))[key]))
        number = key + len(self) if key < 0 else key
        if not 0 <= number < len(self):
            raise IndexError(f"entry {key} of {self.path}: it has {len(self)}")
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
        """Iterate over entries, all of them or as `select` finds them.

        Raises `CorruptFrame` at a damaged one; go on behind it by its number.
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
        """Find entries without reading them.

        Parameters
        ----------
        source : int or str, optional
            Number or name of a source; all, if not given.
        start, stop : int, optional
            Times, in `unit`; `stop` is not included.
        numbers : array of int or range, optional
            Only these, in this order; not together with the others.

        Returns
        -------
        Selection
            Numbers, times, sequences, sources and sizes, as arrays.
        """
        if numbers is None:
            return self._source.select(self._number(source), start, stop)
        if source is not None or start is not None or stop is not None:
            raise ValueError("numbers= is given alone: select by time first")
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
        """Read entries of one dtype and shape into one array, in one call.

        Parameters
        ----------
        source, start, stop, numbers
            As for `select`.
        skip_damaged : bool
            Leave damaged entries out, and say in `EntryBlock.left_out` which.

        Returns
        -------
        Block
            Its `data` has shape (n, *shape), with the times and sequences beside; text
            is an array of str objects. A copy.

        Raises
        ------
        ValueError
            There are none, or not all are alike: says which number differs.
        CorruptFrame
            One is damaged: says which number. See `skip_damaged`.

        Warns
        -----
        RuntimeWarning
            Damage in the files may have held more entries of that source and time:
            their headers are gone. `EntryBlock.problems` has where.
        """
        found = self.select(source, start, stop, numbers=numbers)
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
                f"{len(problems)} damaged places of {self.path} may have held more of "
                f"these entries; the first: {problems[0]}",
                RuntimeWarning,
                stacklevel=2,
            )
        if not len(found):
            raise ValueError(
                f"no entry of {self.path} is of that source and time"
                + (f": {len(left_out)} are damaged" if len(left_out) else "")
            )
        first, frame = int(found.numbers[0]), self._first(int(found.numbers[0]))
        try:
            kind = RowKind.of(frame)
        except TypeError:
            self._refuse_value(frame, first)

        def refuse(frame: Frame, number: int) -> NoReturn:
            try:
                own = RowKind.of(frame)
            except TypeError:
                self._refuse_value(frame, number)
            raise ValueError(
                f"entry {number} of {self.path} is {own}, entry {first} is {kind}: "
                "select a source or numbers that are alike"
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

    def _is_whole(self, number: int) -> bool:
        try:
            self._source.frame(int(number), verify=self._verify)
        except CorruptFrame:
            return False
        return True

    def _first(self, number: int) -> Frame:
        try:
            return self._source.frame(number, verify=self._verify)
        except CorruptFrame as error:
            self._damaged(number, error)

    def _damaged(self, number: int, error: CorruptFrame) -> NoReturn:
        raise CorruptFrame(
            f"entry {number} of {self.path} is damaged: {error}: leave it out with "
            "skip_damaged=True, or choose others with numbers="
        ) from error

    def _refuse_value(self, frame: Frame, number: int) -> NoReturn:
        raise ValueError(
            f"entry {number} of {self.path} is no array ({frame.dtype.name}): "
            "select a source, or read it by entries()"
        )

    def _labels_of(self, frame: Frame, kind: RowKind) -> Labels | None:
        """Labels of a frame: what it refers to, or what its source is said to be."""
        labels = frame.labels
        if labels is None:
            info = self.sources.get(frame.source)
            labels = info.labels if info is not None else None
        if labels is not None and (labels.dtype, labels.shape) != (
            kind.dtype,
            kind.shape,
        ):
            return None
        return labels

    def batches(
        self, n: int, source: int | str | None = None
    ) -> list[NDArray[np.int64]]:
        """Divide the entries into `n` parts for worker processes.

        Returns
        -------
        list of int64 arrays
            Numbers, which another process gives to `read` or `entries` of its own
            archive of the same path: opening costs next to nothing. None is empty;
            fewer than `n` if there are fewer entries.
        """
        if n < 1:
            raise ValueError(f"{n} batches: at least one")
        numbers = (
            np.arange(len(self), dtype=np.int64)
            if source is None
            else self.select(source).numbers
        )
        return [part for part in np.array_split(numbers, n) if len(part)]

    def follow(
        self, timeout: float | None = None, *, start: int = 0
    ) -> Iterator[Frame]:
        """Iterate over entries, those to come included, while somebody writes.

        Parameters
        ----------
        timeout : float or None
            Longest wait for the next entry, s; then it ends.
        start : int
            Number of the first entry.

        Notes
        -----
        Ends when the writer has closed the log or died, and everything was read. Sleeps
        until a file grows; Ctrl-C ends it.
        """
        return follow(self._source, timeout, start, verify=self._verify)

    def close(self) -> None:
        """Let go of the files; what was read stays valid."""
        self._source.close()

    def __enter__(self) -> LogArchive:
        return self

    def __exit__(self, *exc: object) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        return f"<LogArchive {self.path}, {len(self)} entries>"
