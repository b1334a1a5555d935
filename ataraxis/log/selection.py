"""What a log archive is made of: sources, selections of entries, and who reads them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ataraxis.clock import Anchor
from ataraxis.frame import Frame
from ataraxis.labels import Labels
from ataraxis.log.journal.page import Gap

if TYPE_CHECKING:
    import xarray as xr


def distinct(numbers: NDArray[Any]) -> NDArray[Any]:
    """Return the different numbers of an array of shape (n,), sorted; a copy.

    As `numpy.unique`, which hashes every number: 12 s of a verdict on 12,000,000
    entries. What a log has is sorted already, or a few sorted pieces.

    Examples
    --------
    >>> distinct(np.array([3, 3, 4, 7, 4]))
    array([3, 4, 7])
    """
    for _ in range(2):
        is_new = np.ones(len(numbers), bool)
        np.not_equal(numbers[1:], numbers[:-1], out=is_new[1:])
        numbers = numbers[is_new]
        if (numbers[1:] > numbers[:-1]).all():
            break
        numbers.sort()
    return numbers


# ---- problem: something in a log that is not as it was written


@dataclass(frozen=True)
class Problem:
    """Something in a log that is not as it was written.

    Examples
    --------
    >>> print(Problem(Path("a.axj"), 4096, 64, "no frame begins"))
    a.axj: 64 bytes at byte 4096: no frame begins
    """

    path: Path
    """The file."""
    offset: int
    """Byte where it begins."""
    nbytes: int
    """Bytes of it."""
    what: str
    """What is wrong, and what it means."""

    def __str__(self) -> str:
        return f"{self.path}: {self.nbytes} bytes at byte {self.offset}: {self.what}"


# ---- the selection


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a source."""

    number: int
    """Its number in the log."""
    name: str | None = None
    """What it was called, the stream it was recorded from."""
    labels: Labels | None = None
    """Of each of its entries."""
    more: dict[str, Any] = field(default_factory=dict)
    """What else its writer said."""


@dataclass(frozen=True, eq=False)
class Selection:
    """Entries of a log, found but not read; arrays of shape (n,)."""

    numbers: NDArray[np.int64]
    """Their numbers in the log."""
    time: NDArray[np.int64]
    """Their times, in the log's unit."""
    sequence: NDArray[np.uint64]
    """Their numbers within their source."""
    source: NDArray[np.uint32]
    """Their sources."""
    nbytes: NDArray[np.uint64]
    """Bytes of each, extensions included."""
    where: Any = None
    """The backend's own: where they are."""

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, key: slice) -> Selection:
        """Take some of them, by position in the selection."""
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
        )


class LogSource(Protocol):
    """What reads one layout of logs for `LogArchive`: journals, npy files, archives.

    Entries have numbers from 0 on, which stay as they are while the log grows. `where`
    of a `Selection` is the backend's own: an array, or a tuple of arrays, of the
    selection's length.
    """

    path: Path
    """What was opened."""
    unit: str
    """Unit of times: 'ns' (monotonic) or 'us' (since the onset, or an epoch)."""

    def __len__(self) -> int: ...
    @property
    def problems(self) -> list[Problem]:
        """What is damaged, foreign or missing, as far as it was noticed."""

    @property
    def is_live(self) -> bool:
        """Whether somebody still writes it; False where nobody can know."""

    @property
    def sources(self) -> dict[int, SourceInfo]:
        """By their numbers."""

    @property
    def anchors(self) -> list[Anchor]:
        """Wall times of monotonic ones; none where nobody knows."""

    @property
    def gaps(self) -> list[Gap]:
        """Frames that are known to be missing."""

    def refresh(self) -> bool:
        """Take in what was written since; whether there was anything."""

    def select(
        self,
        source: int | None = None,
        start: int | None = None,
        stop: int | None = None,
    ) -> Selection:
        """Find entries by source and time, `stop` not included, in order of numbers.

        Also those that are damaged, where what is around them tells their source.
        """

    def pick(self, numbers: NDArray[np.int64] | range) -> Selection:
        """Find entries by numbers, in any order; all are inside the log."""

    def unknown(
        self, source: int | None, start: int | None, stop: int | None
    ) -> list[Problem]:
        """Find damage that may have held entries of a source and time.

        Their headers are gone, so that `select` cannot find them.
        """

    def frame(self, number: int, *, verify: bool = True) -> Frame:
        """Read one entry; `CorruptFrame` if it is damaged."""

    def frames(self, selection: Selection, *, verify: bool = True) -> Iterator[Frame]:
        """Read the entries of a selection, one after the other."""

    def gather(
        self, selection: Selection, out: NDArray[np.uint8], *, verify: bool = True
    ) -> int:
        """Copy payloads into rows, (n, bytes); how many went before one did not.

        It does not if it is damaged, or of another dtype or shape than the first.
        """

    def corrected(self, selection: Selection) -> Selection:
        """Return a selection as it is now: reading may have found an index to be wrong.

        The same one, if it says what the entries do.
        """

    def device_stamps(self, selection: Selection) -> NDArray[np.int64] | None:
        """Return device times and counters, (n, 2), or None where not all have them."""

    def extents(self, source: int) -> NDArray[np.int64]:
        """Return the entries of a source as ranges of numbers, (k, 2), in order."""

    def account(self, source: int) -> tuple[int, int]:
        """Return how many entries of a source are missing, and how many were late."""

    def shifts_ns(self, source: int) -> list[int | None]:
        """Return what makes wall time of a monotonic one, of each session; or None."""

    def wall_ns(self, selection: Selection) -> NDArray[np.int64] | None:
        """Return wall times, ns since 1970; NaT where a header is damaged.

        Monotonic times and one number for each session; None if nobody knows it.
        """

    def close(self) -> None:
        """Let go of the files."""


# ---- block: entries of a log as one array, with their times beside


@dataclass(frozen=True, eq=False)
class EntryBlock:
    """Entries of one dtype and shape, read together; each row of `data` is one."""

    data: NDArray[Any]
    """Shape (n, *shape)."""
    time: NDArray[np.int64]
    """Shape (n,), in `unit`."""
    sequence: NDArray[np.uint64]
    """Shape (n,): numbers within their source."""
    source: NDArray[np.uint32]
    """Shape (n,)."""
    device: NDArray[np.int64] | None
    """Shape (n, 2): device time and counter; None if not all have them."""
    labels: Labels | None
    """Of one row."""
    unit: str
    """Of `time`."""
    left_out: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """Numbers of entries that are damaged and were asked to be left out."""
    problems: tuple[Problem, ...] = ()
    """Damage that may have held more of these entries."""

    def __len__(self) -> int:
        return len(self.data)

    def to_xarray(self, name: str | None = None) -> xr.DataArray:
        """Return the data with their labels, along a dimension "time".

        Parameters
        ----------
        name : str, optional
            Name of the result; that of the labels, if not given.

        Returns
        -------
        xarray.DataArray
            Dims ("time", *dims), or "entry" if the rows have a "time" of their own; a
            view of `data`. Coordinates time and sequence, and device_time and
            device_sequence where there are.
        """
        import xarray as xr

        labels = self.labels or Labels(self.data.dtype, self.data.shape[1:])
        row = labels.to_xarray(np.zeros(labels.shape, labels.dtype), name)
        dim = "time" if "time" not in row.dims else "entry"
        key = "time" if "time" not in row.coords else "entry_time"
        coords: dict[Any, Any] = dict(row.coords.items())
        coords[key] = (dim, self.time, {"units": self.unit})
        coords["sequence"] = (dim, self.sequence)
        if self.device is not None:
            coords["device_time"] = (dim, self.device[:, 0])
            coords["device_sequence"] = (dim, self.device[:, 1])
        return xr.DataArray(self.data, coords, (dim, *row.dims), row.name, row.attrs)
