"""What a task has done: counts, losses, and how late its blocks were."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_KEPT = 65536
_BATCHES = 20
Times = NDArray[np.float64]


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
    """How lateness grows, s a second, of the last 65536; 0 if nothing drifts."""
    slope_error: float
    """Standard error of it, by medians of batches; infinite of fewer than 60 blocks."""


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
        self._when = np.zeros(_KEPT, np.int64)
        self._max = 0
        self._n = 0

    def add(self, now_ns: int, late_ns: int) -> None:
        """Note that a block was handed over `late_ns` after its deadline."""
        self._late[self._n % _KEPT] = late_ns
        self._when[self._n % _KEPT] = now_ns
        self._max = max(self._max, late_ns)
        self._n += 1

    def summary(self) -> LatenessStatistics:
        """Return what was found."""
        n = min(self._n, _KEPT)
        if n == 0:
            return LatenessStatistics(0, 0.0, 0.0, 0.0, 0.0, math.inf)
        order = np.argsort(self._when[:n], kind="stable")
        when, late = self._when[:n][order], self._late[:n][order]
        median, p99 = np.percentile(late, [50, 99]) * 1e-9
        seconds = (when - when[0]).astype(np.float64) * 1e-9
        slope, error = _fit(seconds, late.astype(np.float64) * 1e-9)
        return LatenessStatistics(
            self._n, float(median), float(p99), self._max * 1e-9, slope, error
        )


def _fit(x: Times, y: Times) -> tuple[float, float]:
    """Return the slope of y over x and its standard error, by medians of batches.

    A busy machine makes neighbours late together; long batches are nearly independent,
    which single blocks are not. Medians, since a stall of the machine is no drift,
    which makes every block later.

    References
    ----------
    .. [1] A. M. Law, Simulation Modeling and Analysis, on batch means.
    """
    if len(x) < 3 * _BATCHES:
        return 0.0, math.inf
    x = np.array([part.mean() for part in np.array_split(x, _BATCHES)])
    y = np.array([np.median(part) for part in np.array_split(y, _BATCHES)])
    x = x - x.mean()
    spread = float((x**2).sum())
    if spread == 0:
        return 0.0, math.inf
    slope = float((x * y).sum()) / spread
    rest = y - y.mean() - slope * x
    return slope, math.sqrt(float((rest**2).sum()) / (_BATCHES - 2) / spread)
