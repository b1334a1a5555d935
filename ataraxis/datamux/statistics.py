"""What a task has done: counts, losses, and how late its blocks were."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_KEPT = 65536


@dataclass(frozen=True)
class LatenessStatistics:
    """How long after their deadlines blocks were handed over."""

    count: int
    """Blocks that were paced."""
    median_s: float
    """Half were later, s; of the last 65536."""
    p99_s: float
    """One in a hundred was later, s; of the last 65536."""
    max_s: float
    """The latest of all, s."""
    slope: float
    """How lateness grows, s a second; 0 if nothing drifts."""
    slope_error: float
    """Standard error of the slope."""


@dataclass(frozen=True)
class TaskStatistics:
    """What a task has done so far."""

    blocks: int
    """Blocks read."""
    samples: int
    """Samples read."""
    delivered: int
    """Items, blocks or frames put into the sink."""
    dropped: int
    """Of these given up because the sink was full (`policy`)."""
    lost: int
    """Samples that the source says it lost."""
    reconnects: tuple[str, ...]
    """Why the source was opened again, each time."""
    lateness: LatenessStatistics
    """How late blocks were, if paced."""


class Lateness:
    """Collects lateness as it comes, in bounded memory."""

    def __init__(self) -> None:
        self._late = np.zeros(_KEPT, np.int64)
        self._max = 0
        self._first_ns: int | None = None
        self._n = 0
        self._sums = [0.0] * 5  # x, y, xx, xy, yy

    def add(self, now_ns: int, late_ns: int) -> None:
        """Note that a block was handed over `late_ns` after its deadline."""
        if self._first_ns is None:
            self._first_ns = now_ns
        x, y = (now_ns - self._first_ns) * 1e-9, late_ns * 1e-9
        for i, term in enumerate((x, y, x * x, x * y, y * y)):
            self._sums[i] += term
        self._late[self._n % _KEPT] = late_ns
        self._max = max(self._max, late_ns)
        self._n += 1

    def summary(self) -> LatenessStatistics:
        """Return what was found."""
        n = self._n
        if n == 0:
            return LatenessStatistics(0, 0.0, 0.0, 0.0, 0.0, math.inf)
        median, p99 = np.percentile(self._late[: min(n, _KEPT)], [50, 99]) * 1e-9
        x, y, xx, xy, yy = self._sums
        sxx, sxy, syy = xx - x * x / n, xy - x * y / n, yy - y * y / n
        slope, error = 0.0, math.inf
        if n > 2 and sxx > 0:
            slope = sxy / sxx
            error = math.sqrt(max(syy - slope * sxy, 0.0) / (n - 2) / sxx)
        return LatenessStatistics(
            n, float(median), float(p99), self._max * 1e-9, slope, error
        )
