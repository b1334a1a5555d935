"""What a log archive is made of: sources, selections of entries, and who reads them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ataraxis.clock import Anchor
from ataraxis.frame import Frame
from ataraxis.labels import Labels
from ataraxis.log.journal_record import Gap
from ataraxis.log.problem import Problem


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
        """Find entries by source and time, `stop` not included, in order of numbers."""

    def pick(self, numbers: NDArray[np.int64] | range) -> Selection:
        """Find entries by numbers, in any order; all are inside the log."""

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

    def device_stamps(self, selection: Selection) -> NDArray[np.int64] | None:
        """Return device times and counters, (n, 2), or None where not all have them."""

    def extents(self, source: int) -> NDArray[np.int64]:
        """Return the entries of a source as ranges of numbers, (k, 2), in order."""

    def shifts_ns(self, source: int) -> list[int | None]:
        """Return what makes wall time of a monotonic one, of each session; or None."""

    def wall_ns(self, selection: Selection) -> NDArray[np.int64] | None:
        """Return wall times, ns since 1970; NaT where a header is damaged.

        Monotonic times and one number for each session; None if nobody knows it.
        """

    def close(self) -> None:
        """Let go of the files."""
