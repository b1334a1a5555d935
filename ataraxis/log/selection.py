"""Parts of a log archive: sources, selections, and the interface of the layouts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ataraxis.clock import Anchor
from ataraxis.frame import Frame
from ataraxis.labels import Labels, is_blocks
from ataraxis.log.journal.page import Gap

if TYPE_CHECKING:
    import xarray as xr


def distinct(numbers: NDArray[Any]) -> NDArray[Any]:
    """Return the unique numbers of an array of shape (n,), sorted; a copy.

    Like `numpy.unique`, but faster where the input is sorted or consists of a few
    sorted pieces, as sequence numbers are: `unique` hashes every number.
    """
    for _ in range(2):
        is_new = np.ones(len(numbers), bool)
        np.not_equal(numbers[1:], numbers[:-1], out=is_new[1:])
        numbers = numbers[is_new]
        if (numbers[1:] > numbers[:-1]).all():
            break
        numbers.sort()
    return numbers


# ---- problems


@dataclass(frozen=True)
class Problem:
    """Something in a log that differs from what was written.

    Examples
    --------
    >>> print(Problem(Path("a.axj"), 4096, 64, "no frame begins"))
    a.axj: 64 bytes at byte 4096: no frame begins
    """

    path: Path
    """The file."""
    offset: int
    """Byte where it starts."""
    nbytes: int
    """Its size."""
    what: str
    """What is wrong, and what it means."""

    def __str__(self) -> str:
        return f"{self.path}: {self.nbytes} bytes at byte {self.offset}: {self.what}"


# ---- the selection


@dataclass(frozen=True)
class SourceInfo:
    """Description of a source."""

    number: int
    """Its number in the log."""
    name: str | None = None
    """Name of the source, or of the stream it was recorded from."""
    labels: Labels | None = None
    """Labels of each of its entries."""
    more: dict[str, Any] = field(default_factory=dict)
    """Further fields from its writer."""


@dataclass(frozen=True, eq=False)
class SourcePart:
    """The entries of a source that were recorded from one stream."""

    stream: str
    """Id of the stream; empty if it is not known, or is not a stream."""
    labels: Labels | None
    """Labels of each entry."""
    ranges: NDArray[np.int64]
    """Their numbers as ranges, (k, 2), in order."""


@dataclass(frozen=True, eq=False)
class Selection:
    """Entries of a log, found but not read; arrays of shape (n,)."""

    numbers: NDArray[np.int64]
    """Their numbers in the log."""
    time: NDArray[np.int64]
    """Their times, in the unit of the log."""
    sequence: NDArray[np.uint64]
    """Their sequence numbers within their source."""
    source: NDArray[np.uint32]
    """Their sources."""
    nbytes: NDArray[np.uint64]
    """Size of each, extensions included."""
    where: Any = None
    """Positions, private to the backend."""
    known: NDArray[np.bool_] | None = None
    """Whether the header of each is intact; None: all are."""

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, key: slice) -> Selection:
        """Return some of them, by position in the selection."""
        where = self.where
        if isinstance(where, tuple):
            where = tuple(part[key] for part in where)
        elif where is not None:
            where = where[key]
        return Selection(
            self.numbers[key],
            self.time[key],
            self.sequence[key],
            self.source[key],
            self.nbytes[key],
            where,
            None if self.known is None else self.known[key],
        )


class LogSource(Protocol):
    """Base of the readers of a layout: journals, or npy files and archives.

    Entries have numbers from 0 on, which do not change while the log grows. `where` of
    a `Selection` is the backend's own: an array, or a tuple of arrays, of the
    selection's length.
    """

    path: Path
    """What was opened."""
    unit: str
    """Unit of times: 'ns' (monotonic) or 'us' (since the onset, or an epoch)."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}, {len(self)} entries>"

    def __len__(self) -> int: ...
    @property
    def problems(self) -> list[Problem]:
        """Damaged, foreign and missing parts noticed so far."""

    @property
    def is_live(self) -> bool:
        """Whether a writer has it open; False if unknown."""
        return False

    @property
    def sources(self) -> dict[int, SourceInfo]:
        """The sources by their numbers."""

    @property
    def anchors(self) -> list[Anchor]:
        """Pairs of monotonic and wall time; none if unknown."""
        return []

    @property
    def gaps(self) -> list[Gap]:
        """Frames known to be missing."""
        return []

    def refresh(self) -> bool:
        """Add what was written since; return whether there was anything.

        Numbers of known entries stay as they are.
        """

    def select(
        self,
        source: int | None = None,
        start: int | None = None,
        stop: int | None = None,
    ) -> Selection:
        """Find entries by source and time, `stop` not included, in order of numbers.

        Includes damaged ones if their neighbours determine their source.
        """

    def pick(self, numbers: NDArray[np.int64] | range) -> Selection:
        """Return entries by their numbers, in any order; all must exist."""

    def unknown(
        self, source: int | None, start: int | None, stop: int | None
    ) -> list[Problem]:
        """Find damage that may have contained entries of a source and time.

        Their headers are lost, so that `select` cannot find them.
        """

    def frame(self, number: int, *, verify: bool = True) -> Frame:
        """Return one entry; raise `CorruptFrame` if it is damaged."""

    def frames(self, selection: Selection, *, verify: bool = True) -> Iterator[Frame]:
        """Iterate over the entries of a selection."""

    def gather(
        self, selection: Selection, out: NDArray[np.uint8], *, verify: bool = True
    ) -> int:
        """Copy payloads to the rows of `out`, (n, bytes); return how many were copied.

        Stops at an entry that is damaged, or differs from the first in dtype or shape.
        """

    def corrected(self, selection: Selection) -> Selection:
        """Return the selection, updated if reading has corrected its index."""
        return selection

    def device_stamps(self, selection: Selection) -> NDArray[np.int64] | None:
        """Return device times and counters, (n, 2), or None where not all have them."""

    def extents(self, source: int) -> NDArray[np.int64]:
        """Return the entries of a source as ranges of numbers, (k, 2), in order."""

    def sizes(self, source: int) -> NDArray[np.int64]:
        """Return the entries of a source as ranges of one size, (k, 3), in order.

        First number, number after the last, and bytes of each as `Selection.nbytes`.
        """
        found = [np.empty((0, 3), np.int64)]
        for first, last in self.extents(source).tolist():
            nbytes = self.pick(range(first, last)).nbytes.astype(np.int64)
            edges = np.flatnonzero(np.diff(nbytes)) + 1
            starts = np.concatenate([[0], edges])
            stops = np.concatenate([edges, [last - first]])
            found.append(np.stack([starts + first, stops + first, nbytes[starts]], 1))
        return np.concatenate(found)

    def is_numbered(self, source: int) -> bool:
        """Return whether a gap in the sequence numbers of a source is a loss."""
        return False

    def account(self, source: int) -> tuple[int, int]:
        """Return how many entries of a source are missing, and how many were late."""
        return 0, 0

    def parts(self, source: int) -> list[SourcePart]:
        """Return the streams that a source was recorded from, one after the other.

        Each has its own sequence numbers, and may have another clock.
        """
        info = self.sources.get(source)
        labels = info.labels if info is not None else None
        return [SourcePart("", labels, self.extents(source))]

    def shifts_ns(self, source: int) -> list[int | None]:
        """Return wall minus monotonic time of each session; None if unknown."""
        return [None]

    def wall_ns(self, selection: Selection) -> NDArray[np.int64] | None:
        """Return wall times, ns since 1970; NaT where a header is damaged.

        One shift is used per session; None if one is unknown.
        """
        return None

    def close(self) -> None:
        """Close the files; what was read stays valid."""


# ---- blocks


@dataclass(frozen=True, eq=False)
class EntryBlock:
    """Entries of one dtype and shape in one array; each row of `data` is one."""

    data: NDArray[Any]
    """Shape (n, *shape)."""
    time: NDArray[np.int64]
    """Shape (n,), in `unit`."""
    sequence: NDArray[np.uint64]
    """Shape (n,): sequence numbers within their source."""
    source: NDArray[np.uint32]
    """Shape (n,)."""
    device: NDArray[np.int64] | None
    """Shape (n, 2): device time and counter; None if an entry has none."""
    labels: Labels | None
    """Labels of one row."""
    unit: str
    """Unit of `time`."""
    left_out: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """Numbers of the damaged entries that `skip_damaged` left out."""
    problems: tuple[Problem, ...] = ()
    """Damage that may have contained more such entries."""

    def __len__(self) -> int:
        return len(self.data)

    def to_xarray(self, name: str | None = None) -> xr.DataArray:
        """Return the data with their labels, along the dimension "time".

        Parameters
        ----------
        name : str, optional
            Name of the result. Default: the name of the labels.

        Returns
        -------
        xarray.DataArray
            Dims ("time", *dims), or "entry" if the rows have a "time" themselves; a
            view of `data`. Coordinates time and sequence, and device_time and
            device_sequence if present. The samples of blocks are along one "time", with
            times fitted to the stamps of these entries, and their "position".
        """
        import xarray as xr

        labels = self.labels or Labels(self.data.dtype, self.data.shape[1:])
        row = labels.to_xarray(np.zeros(labels.shape, labels.dtype), name)
        if is_blocks(labels) and not any("time" in c.dims for c in row.coords.values()):
            return self._samples(labels, row)
        dim = "time" if "time" not in row.dims else "entry"
        key = "time" if "time" not in row.coords else "entry_time"
        coords: dict[Any, Any] = dict(row.coords.items())
        coords[key] = (dim, self.time, {"units": self.unit})
        coords["sequence"] = (dim, self.sequence)
        if self.device is not None:
            coords["device_time"] = (dim, self.device[:, 0])
            coords["device_sequence"] = (dim, self.device[:, 1])
        return xr.DataArray(self.data, coords, (dim, *row.dims), row.name, row.attrs)

    def _samples(self, labels: Labels, row: xr.DataArray) -> xr.DataArray:
        """Return the samples of blocks along one time."""
        import xarray as xr

        from ataraxis.log.sample_axis import FrameTimes, axis_of

        counts = np.full(len(self.data), labels.shape[0])
        frames = FrameTimes(
            counts, self.time, self.sequence, self.device, whole=labels.shape[0]
        )
        axis = axis_of(frames, labels.attrs)
        numbers = np.arange(int(counts.sum()))
        coords: dict[Any, Any] = dict(row.coords.items())
        coords["time"] = ("time", axis.at(numbers), {"units": self.unit})
        coords["position"] = ("time", axis.position(numbers))
        data = self.data.reshape(-1, *labels.shape[1:])
        return xr.DataArray(data, coords, row.dims, row.name, row.attrs)
