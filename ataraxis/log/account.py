"""SourceAccount: of one recorded source, what is expected, received, missing and late.

The one place that says what these words mean: see docs/reference/verdict.md. `verify`,
the verdict of a session, xarray and `LogArchive` take their numbers from here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.log.device import DeviceLoss, DeviceStamps
from ataraxis.log.journal.page import FileHeader, Gap, Notes
from ataraxis.log.selection import distinct

REFUSED = "given up by the producer, for no slot was free"
"""Reason of gaps whose frames have no sequence: the next frame took it."""


@dataclass(frozen=True)
class SourceReport:
    """One source of one session; the words are those of docs/reference/verdict.md."""

    journal: str
    """The journal it is in."""
    source: int
    """Its number."""
    name: str
    """What it was called; a stream's name."""
    expected: int
    """Entries its producer sent from where the recorder joined, as far as is known."""
    received: int
    """Entries that are in the files, and whole."""
    missing: int
    """expected - received: lost before they were written, or damaged since."""
    damaged: int
    """Entries whose bytes are not those that were written; of the missing ones."""
    repeated: int
    """Entries that are there once more."""
    late: int = 0
    """Frames that were sent before the recorder joined; not expected."""
    waited_s: float = 0.0
    """How long producers waited for readers while it was recorded, s."""
    device: DeviceLoss | None = None
    """What the device itself lost; None: it cannot be known, or was not looked at."""
    is_device: bool = False
    """Whether it says that it comes from a device, or has a device's stamps."""
    rate_hz: float | None = None
    """Frames a second: by its device's clock if it has one, else by the host's."""
    declared_hz: float | None = None
    """Frames a second, as its labels say."""
    is_device_rate: bool = False
    """Whether `rate_hz` is by the device's clock."""

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


def is_numbered(header: FileHeader | None, said: dict[str, Any]) -> bool:
    """Tell whether a gap in the sequence of a source is a loss.

    It is not in what a `DataLogger` wrote, where sequences are numbers of its queue:
    each process reserves some; nor in a stream of several producers, where a
    position that was passed over takes its number.
    """
    is_logger = header is not None and "logger" in header.about
    return not is_logger and not said.get("is_shared", False)


@dataclass
class SourceAccount:
    """What was found of one source of one session, file by file."""

    name: str = ""
    is_numbered: bool = True
    joined: int | None = None
    """Sequence with which the first recorder began; None: it did not say."""
    late: int = 0
    """As a recorder said it where sequences are not numbers of frames."""
    sequences: list[NDArray[np.uint64]] = field(default_factory=list)
    broken: int = 0
    gaps: list[Gap] = field(default_factory=list)
    stamps: DeviceStamps = field(default_factory=DeviceStamps)
    stalled_ns: list[int] = field(default_factory=list)
    """What producers had waited, at joins and ends."""

    def describe(self, header: FileHeader | None, said: dict[str, Any]) -> None:
        """Take in what a file says of the source."""
        self.name = str(said.get("name", self.name))
        self.is_numbered = is_numbered(header, said)
        if (joined := said.get("joined")) is not None:
            self.joined = min(int(joined), self.joined or int(joined))
            self.late = int(said.get("late", 0))
        if "stalled_ns" in said:
            self.stalled_ns.append(int(said["stalled_ns"]))

    def close(self, notes: Notes) -> None:
        """Take in what its recorder said at the end."""
        if notes.close is not None and "stalled_ns" in notes.close:
            self.stalled_ns.append(int(notes.close["stalled_ns"]))

    def report(self, journal: str, source: int) -> SourceReport:
        """Sum up."""
        everything = np.concatenate([np.empty(0, "u8"), *self.sequences])
        unique = distinct(everything)
        received = len(unique)
        expected, late = self._expected(unique)
        waited = max(self.stalled_ns, default=0) - min(self.stalled_ns, default=0)
        refused = sum(g.count for g in self.gaps if self._is_unnumbered(g, unique))
        device = self.stamps.losses(refused) if self.is_numbered else None
        rate, is_own = self.stamps.rate_hz() if self.is_numbered else (None, False)
        return SourceReport(
            journal, source, self.name, expected, received, expected - received,
            self.broken, len(everything) - received, late, waited * 1e-9, device,
            self.stamps.is_device, rate, self.stamps.declared_hz, is_own,
        )  # fmt: skip

    def span(self, first: int, last: int, count: int) -> tuple[int, int]:
        """Say how many are missing and late, from the ends of what is there.

        The same as `report` says, without a look at each entry: of a log without
        damage, in which nothing is there twice.
        """
        if not self.is_numbered or not count:
            return sum(gap.count for gap in self.gaps), self.late
        begin = first if self.joined is None else min(self.joined, first)
        expected = last - begin + 1
        for gap in self.gaps:
            if gap.reason == REFUSED or gap.first > last:
                expected += gap.count
            elif gap.first < begin:
                expected += min(gap.count, begin - gap.first)
                begin = gap.first
        return max(expected - count, 0), begin if self.joined else 0

    def _expected(self, unique: NDArray[np.uint64]) -> tuple[int, int]:
        """Say how many entries there should be, and how many were sent before."""
        received = len(unique)
        if not self.is_numbered:
            lost = sum(gap.count for gap in self.gaps)
            return received + self.broken + lost, self.late
        if not received:
            lost = sum(gap.count for gap in self.gaps)
            return max(lost, self.broken), self.joined or 0
        first, last = int(unique[0]), int(unique[-1])
        begin = first if self.joined is None else min(self.joined, first)
        expected = last - begin + 1
        for gap in self.gaps:
            if self._is_unnumbered(gap, unique):
                expected += gap.count
            elif gap.first < begin:
                expected += min(gap.count, begin - gap.first)
                begin = gap.first
            elif gap.first > last:
                expected += gap.count
        return max(expected, received + self.broken), begin if self.joined else 0

    @staticmethod
    def _is_unnumbered(gap: Gap, unique: NDArray[np.uint64]) -> bool:
        """Tell whether frames were given up, so that the next one took their number."""
        at = int(np.searchsorted(unique, np.uint64(gap.first)))
        return at < len(unique) and int(unique[at]) == gap.first
