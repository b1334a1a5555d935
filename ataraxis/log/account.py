"""SourceAccount: how many entries of a source are expected, received, missing and late.

docs/reference/verdict.md defines these words. `verify`, the verdict of a session,
xarray and `LogArchive` take their numbers from here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.log.device import DeviceLoss, DeviceStamps
from ataraxis.log.journal.page import FileHeader, Gap
from ataraxis.log.selection import distinct

REFUSED = "given up by the producer, for no slot was free"
"""Reason of gaps whose frames have no sequence number: the next frame took it."""


@dataclass(frozen=True)
class SourceReport:
    """One source of one session, in the words of docs/reference/verdict.md."""

    journal: str
    """Name of its journal."""
    source: int
    """Its number."""
    name: str
    """Name of the source or of its stream."""
    expected: int
    """Entries sent since the recorder joined, as far as is known."""
    received: int
    """Intact entries in the files."""
    missing: int
    """expected - received: lost before they were written, or damaged afterwards."""
    damaged: int
    """Missing entries whose bytes differ from what was written."""
    repeated: int
    """Entries that are stored a second time."""
    late: int = 0
    """Frames sent before the recorder joined; not expected."""
    waited_s: float = 0.0
    """Time that producers waited for readers during the recording, s."""
    device: DeviceLoss | None = None
    """What the device itself lost; None if unknown or not counted."""
    is_device: bool = False
    """Whether it has device stamps, or its labels name a device."""
    rate_hz: float | None = None
    """Frames per second by the device's clock if it has one, else by the host's."""
    declared_hz: float | None = None
    """Frames per second according to its labels."""
    is_device_rate: bool = False
    """Whether `rate_hz` uses the device's clock."""

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


def is_numbered(header: FileHeader | None, description: dict[str, Any]) -> bool:
    """Return whether a gap in the sequence numbers of a source is a loss.

    Not in a file of a `DataLogger`, whose sequence numbers are positions of its queue
    (each process reserves some), nor in a stream of several producers, where a skipped
    position takes a number.
    """
    is_logger = header is not None and "logger" in header.about
    return not is_logger and not description.get("is_shared", False)


@dataclass
class SourceAccount:
    """What the files hold of one source of one session, added file by file."""

    name: str = ""
    is_numbered: bool = True
    joined: int | None = None
    """First sequence number of the first recorder; None if not recorded."""
    late: int = 0
    """Late frames, as recorded where sequence numbers do not count frames."""
    sequences: list[NDArray[np.uint64]] = field(default_factory=list)
    broken: int = 0
    gaps: list[Gap] = field(default_factory=list)
    stamps: DeviceStamps = field(default_factory=DeviceStamps)
    stalled_ns: list[int] = field(default_factory=list)
    """Accumulated waits of the producers, at each join and end."""

    def describe(self, header: FileHeader | None, description: dict[str, Any]) -> None:
        """Add what a file says about the source."""
        self.name = str(description.get("name", self.name))
        self.is_numbered = is_numbered(header, description)
        if (joined := description.get("joined")) is not None:
            self.joined = min(int(joined), self.joined or int(joined))
            self.late = int(description.get("late", 0))
        self.add_stall(description)

    def add_stall(self, record: dict[str, Any]) -> None:
        """Add the waits of the producers that a record contains, if any."""
        if "stalled_ns" in record:
            self.stalled_ns.append(int(record["stalled_ns"]))

    def report(self, journal: str, source: int) -> SourceReport:
        """Return the totals."""
        everything = np.concatenate([np.empty(0, "u8"), *self.sequences])
        unique = distinct(everything)
        received = len(unique)
        expected, late = self._expected(unique)
        waited = max(self.stalled_ns, default=0) - min(self.stalled_ns, default=0)
        refused = sum(g.count for g in self.gaps if self._took(g, unique))
        device = self.stamps.losses(refused) if self.is_numbered else None
        rate, is_own = self.stamps.rate_hz() if self.is_numbered else (None, False)
        return SourceReport(
            journal, source, self.name, expected, received, expected - received,
            self.broken, len(everything) - received, late, waited * 1e-9, device,
            self.stamps.is_device, rate, self.stamps.declared_hz, is_own,
        )  # fmt: skip

    def span(self, first: int, last: int, count: int) -> tuple[int, int]:
        """Return how many entries are missing and late, from the first and last ones.

        Equals `report` for a log without damage or repeated entries, and reads no entry
        in between.
        """
        if not self.is_numbered or not count:
            return sum(gap.count for gap in self.gaps), self.late
        expected, late = self._between(first, last, lambda gap: gap.reason == REFUSED)
        return max(expected - count, 0), late

    def _expected(self, unique: NDArray[np.uint64]) -> tuple[int, int]:
        """Return how many entries are expected, and how many were sent before."""
        received = len(unique)
        if self.is_numbered and received:
            expected, late = self._between(
                int(unique[0]), int(unique[-1]), lambda gap: self._took(gap, unique)
            )
            return max(expected, received + self.broken), late
        lost = sum(gap.count for gap in self.gaps)
        if not self.is_numbered:
            return received + self.broken + lost, self.late
        return max(lost, self.broken), self.joined or 0

    def _between(
        self, first: int, last: int, is_unnumbered: Callable[[Gap], bool]
    ) -> tuple[int, int]:
        """Return expected and late entries, given the first and last number."""
        begin = first if self.joined is None else min(self.joined, first)
        expected = last - begin + 1
        for gap in self.gaps:
            if is_unnumbered(gap):
                expected += gap.count
            elif gap.first < begin:
                expected += min(gap.count, begin - gap.first)
                begin = gap.first
            elif gap.first > last:
                expected += gap.count
        return expected, begin if self.joined else 0

    @staticmethod
    def _took(gap: Gap, unique: NDArray[np.uint64]) -> bool:
        """Return whether the next frame took the number of frames that were refused."""
        at = int(np.searchsorted(unique, np.uint64(gap.first)))
        return at < len(unique) and int(unique[at]) == gap.first
