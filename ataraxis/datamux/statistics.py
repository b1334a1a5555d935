"""Statistics of a task: counts, losses, and how late its blocks were."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_KEPT = 65536
_BATCHES = 40
_LEAST = 3  # independent batches, however correlated neighbours are
_SURE = 3.0  # standard deviations in the bounds, three times the error
Times = NDArray[np.float64]


@dataclass(frozen=True)
class LatenessStatistics:
    """How long after their deadlines blocks were delivered."""

    count: int
    """Blocks that were paced."""
    median_s: float
    """Half were later, s; of the last 65536."""
    p99_s: float
    """One in a hundred was later, s; of the last 65536."""
    max_s: float
    """The latest of all, s."""
    slope: float
    """Growth of lateness, s per second, of the last 65536; 0 without drift."""
    slope_error: float
    """Standard error of `slope`: three of them are its bounds at 99.7 %, also if
    neighbours are late together; infinite for fewer than 120 blocks."""


@dataclass(frozen=True)
class TaskStatistics:
    """Counts of a task so far."""

    blocks: int
    """Blocks read."""
    samples: int
    """Samples read."""
    delivered: int
    """Items, blocks or frames put into the sink."""
    dropped: int
    """Items dropped because the sink was full (`on_full`)."""
    lost: int
    """Samples that the source reports as lost."""
    reconnects: tuple[str, ...]
    """The reason of each reopening of the source."""
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
        """Record that a block was delivered `late_ns` after its deadline."""
        self._late[self._n % _KEPT] = late_ns
        self._when[self._n % _KEPT] = now_ns
        self._max = max(self._max, late_ns)
        self._n += 1

    def summary(self) -> LatenessStatistics:
        """Return the statistics."""
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
    """Return the slope of y over x, and one third of its bounds at 99.7 %.

    The slope is the median of the slopes between any two batches, its bounds are those
    of Kendall's statistic [1]_: a stall of the machine changes neither. On a busy
    machine neighbouring blocks, and batches, are late together: the number of
    independent batches follows from the correlation of neighbours [2]_, or of
    neighbouring pairs if that gives fewer. The correlation of few batches is estimated
    too low, and corrected [3]_.

    References
    ----------
    .. [1] P. K. Sen, Estimates of the regression coefficient based on Kendall's tau,
       J. Am. Stat. Assoc. 63, 1379-1389, 1968.
    .. [2] S. Yue and C. Wang, The Mann-Kendall test modified by effective sample size
       to detect trend in serially correlated hydrological series, Water Resources
       Management 18, 201-218, 2004.
    .. [3] M. G. Kendall, Note on bias in the estimation of autocorrelation, Biometrika
       41, 403-404, 1954.
    """
    n = _BATCHES
    if len(x) < 3 * n:
        return 0.0, math.inf
    x = np.array([part.mean() for part in np.array_split(x, n)])
    y = np.array([np.median(part) for part in np.array_split(y, n)])
    if not np.diff(x).all():
        return 0.0, math.inf
    first, second = np.triu_indices(n, 1)
    slopes = np.sort((y[second] - y[first]) / (x[second] - x[first]))
    slope = float(np.median(slopes))
    rest = y - slope * x
    pairs = np.median(rest.reshape(-1, 2), axis=1)
    independent = max(_LEAST, min(_independent(rest), _independent(pairs)))
    deviation = math.sqrt(n * (n - 1) * (2 * n + 5) / 18 * n / independent)
    most = len(slopes) - 1
    beyond = max(0, round((most - _SURE * deviation) / 2))
    return slope, float(slopes[most - beyond] - slopes[beyond]) / (2 * _SURE)


def _independent(rest: Times) -> float:
    """Return the effective number of independent values, by ranks."""
    n = len(rest)
    ranks = np.argsort(np.argsort(rest)) - (n - 1) / 2
    alike = float((ranks[1:] * ranks[:-1]).sum() / (ranks**2).sum())
    alike = max(0.0, alike + (1 + 4 * alike) / n)
    return n * (1 - alike) / (1 + alike)
