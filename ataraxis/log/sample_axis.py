"""Sample axis: position and time of every sample of a source, by its number.

Samples are numbered from 0 as they are in the file. The position of a sample counts the
lost ones, too. A line through positions and arrivals (`ataraxis.clock.fit_arrivals`)
gives each sample its time, so that the jitter of arrivals is not in the times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.clock import UNKNOWN_DRIFT, ClockFit, FitSegment, fit_arrivals
from ataraxis.labels import sample_rate, sample_times, stamp_of
from ataraxis.log.device import BITS, COUNTER, PER_S, UNITS, unwrapped

Ints = NDArray[np.int64]
LATENCY = "latency_ms"
"""Attribute of labels: least and largest fixed delay of the device, ms."""
NOMINAL = "the declared rate is exact: there are too few frames to fit it"
_EMPTY = np.empty(0, np.int64)

# ---- what is known of the frames


@dataclass(frozen=True)
class FrameTimes:
    """Stamps of the frames of a source, and how many samples each has."""

    counts: Ints
    """Samples of each frame, (n,)."""
    time_ns: Ints
    """Stamp of each frame, monotonic ns, (n,)."""
    sequence: NDArray[np.uint64] | None = None
    """Sequence numbers, (n,); None if a gap in them is not a loss."""
    device: Ints | None = None
    """Device times and counters, (n, 2)."""
    shift_ns: Ints | int = 0
    """What is added to each stamp, ns, (n,): wall minus monotonic time."""
    known: NDArray[np.bool_] | None = None
    """Whether each header is intact, (n,); None: all are."""
    whole: int = 1
    """Samples that a lost frame had: those of a whole one."""

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def numbers(self) -> Ints:
        """Number of the first sample of each frame, and of samples: (n + 1,)."""
        return np.concatenate([[0], np.cumsum(self.counts)])

    @property
    def rows(self) -> NDArray[np.intp]:
        """Indices of the frames whose headers are intact."""
        if self.known is None:
            return np.arange(len(self))
        return np.flatnonzero(self.known)

    def positions(self, rate: float | None, attrs: Mapping[str, Any]) -> Ints:
        """Return the position of the first sample of each frame, (n,).

        Lost samples count: by the sequence numbers of frames; by the device's counter
        if it counts samples; by its clock, if it shows a gap of a hundredth of a frame
        or more.
        """
        rows, numbers = self.rows, self.numbers[:-1]
        lost = np.zeros(len(self), np.int64)
        if len(rows) > 1:
            here = np.diff(numbers[rows])
            found = np.zeros(len(here), np.int64)
            if self.sequence is not None:
                steps = np.diff(self.sequence[rows]).view(np.int64) - np.diff(rows)
                found = np.maximum(steps, 0) * self.whole
            if self.device is not None:
                own = self._lost_in_device(rows, here, rate, attrs)
                found = np.maximum(found, own)
            lost[rows[1:]] = found
        return numbers + np.cumsum(lost)

    def _lost_in_device(
        self,
        rows: NDArray[np.intp],
        here: Ints,
        rate: float | None,
        attrs: Mapping[str, Any],
    ) -> Ints:
        assert self.device is not None
        device = self.device[rows]
        if attrs.get(COUNTER) == "samples":
            bits = int(attrs.get(BITS, 64))
            counters = device[:, 1].copy().view(np.uint64)
            steps, resets, _ = unwrapped(counters, bits, self.time_ns[rows])
            excess = steps - here
            excess[resets] = 0
            return np.asarray(np.maximum(excess, 0))
        per_s = PER_S.get(str(attrs.get(UNITS)))
        if per_s is None or rate is None:
            return np.zeros(len(here), np.int64)
        passed = np.diff(device[:, 0]) * (rate / per_s)
        excess = np.rint(passed - here).astype(np.int64)
        is_gap = excess >= np.maximum(2, here // 100)
        return np.asarray(np.where(is_gap, excess, 0))


# ---- the fit


def fit_frames(
    frames: FrameTimes,
    positions: Ints,
    rate: float,
    stamp_of: str,
    latency_ms: tuple[float, float] | None = None,
) -> ClockFit:
    """Fit the host's time of samples, by position, to the stamps of their frames.

    Too few frames for `fit_arrivals` get a line of the declared rate below them.
    """
    unit = 10**9 / Fraction(repr(float(rate)))
    ticks, host = stamped_samples(frames, positions, stamp_of)
    try:
        return fit_arrivals(ticks, host, unit_ns=unit, latency_ms=latency_ms)
    except ValueError:
        return _nominal(ticks, host, unit, latency_ms)


def fit_samples(
    frames: FrameTimes, positions: Ints, attrs: Mapping[str, Any]
) -> ClockFit:
    """Fit frames whose labels have these attributes.

    Raises `ValueError` if there are no samples, if their rate is neither declared nor
    can be measured, or if the declared latency is not valid.
    """
    if not frames.counts[frames.rows].any():
        raise ValueError("there are no samples to fit")
    kind, declared = stamp_of(attrs), sample_rate(attrs)
    rate = rate_of(frames, positions, declared, kind)
    if rate is None:
        raise ValueError(
            "blocks without a rate, and too few to measure it: declare "
            "attrs['sample_rate_hz']"
        )
    return fit_frames(frames, positions, rate, kind, latency_of(attrs))


def latency_of(attrs: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the declared least and largest fixed delay of a device, ms.

    Raises `ValueError` if the attribute is not two numbers, 0 <= least <= largest.
    """
    given = attrs.get(LATENCY)
    if given is None:
        return None
    try:
        low, high = (float(value) for value in given)
    except (TypeError, ValueError):
        low, high = 0.0, -1.0
    if not 0 <= low <= high < float("inf"):
        raise ValueError(
            f"attrs[{LATENCY!r}] must be the least and largest delay, ms, such as "
            f"[2.0, 5.0], got {given!r}"
        )
    return low, high


MOST_FITTED = 2_000_000


def stamped_samples(
    frames: FrameTimes, positions: Ints, stamp_of: str
) -> tuple[Ints, Ints]:
    """Return positions of samples whose times the stamps are, and the stamps, ns."""
    rows = thinned(frames.rows[frames.counts[frames.rows] > 0])
    ticks = positions[rows]
    if stamp_of == "arrival":
        ticks = ticks + frames.counts[rows] - 1
    return ticks, frames.time_ns[rows]


def thinned(rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return at most `MOST_FITTED` of some rows, evenly spread."""
    return rows[:: max(1, -(-len(rows) // MOST_FITTED))]


def _nominal(
    ticks: Ints,
    host: Ints,
    unit: Fraction,
    latency_ms: tuple[float, float] | None,
) -> ClockFit:
    """Return the line of the nominal rate through the fastest arrival."""
    delays = host - (ticks * float(unit)).astype(np.int64)
    best = int(np.argmin(delays))
    spread = int(delays.max() - delays.min())
    latency = None
    if latency_ms is not None:
        latency = round(latency_ms[0] * 1e6), round(latency_ms[1] * 1e6)
    part = FitSegment(
        ticks[best : best + 1], host[best : best + 1], np.array([spread], np.int64),
        growth=UNKNOWN_DRIFT,
    )  # fmt: skip
    return ClockFit(
        "arrivals", NOMINAL, unit.limit_denominator(10**6), (part,), None, "host",
        latency,
    )  # fmt: skip


RATE_TOLERANCE = 0.05
_LAGS = 64


def rate_of(
    frames: FrameTimes, positions: Ints, declared: float | None, stamp_of: str
) -> float | None:
    """Return the samples per second: as declared, unless the stamps contradict it.

    A recording that was replayed faster, say, has the rate of its arrivals. None
    without a declared rate and with too few frames.
    """
    ticks, host = stamped_samples(frames, positions, stamp_of)
    if len(ticks) < 2:
        return declared
    lag = max(1, len(ticks) // _LAGS)
    samples, passed = ticks[lag:] - ticks[:-lag], host[lag:] - host[:-lag]
    is_some = (samples > 0) & (passed > 0)
    if not is_some.any():
        return declared
    rate = float(np.median(samples[is_some] / passed[is_some])) * 1e9
    if declared is not None and (
        len(ticks) < _LAGS or abs(rate / declared - 1) < RATE_TOLERANCE
    ):
        return declared
    return rate


# ---- the axis


def _segments_at(fit: ClockFit, ticks: Ints) -> NDArray[np.intp]:
    """Return the number of the segment whose knots are nearest to each tick."""
    ends = np.array([part.device[-1] for part in fit.segments[:-1]], np.int64)
    heads = np.array([part.device[0] for part in fit.segments[1:]], np.int64)
    return np.searchsorted(ends + (heads - ends) // 2, ticks, "left")


class SampleAxis:
    """Time and position of samples, by number, without an array of them.

    `starts` are the numbers at which parts begin, and the number of samples: within a
    part, times increase. `time_of` and `position_of` take numbers, (m,).
    """

    def __init__(
        self,
        starts: Ints,
        time_of: Callable[[Ints], Ints],
        position_of: Callable[[Ints], Ints],
    ) -> None:
        is_part = np.concatenate([np.diff(starts) > 0, [True]])
        self._starts, self.at, self.position = starts[is_part], time_of, position_of
        self._ends = time_of(self._starts[1:] - 1) if len(self) else _EMPTY
        self._firsts = time_of(self._starts[:-1]) if len(self) else _EMPTY
        self.is_sorted = bool((self._firsts[1:] > self._ends[:-1]).all())
        """Whether times increase from the first sample to the last."""

    def __len__(self) -> int:
        return int(self._starts[-1]) if len(self._starts) else 0

    # ---- the kinds

    @classmethod
    def fitted(
        cls, frames: FrameTimes, positions: Ints, fit: ClockFit, stamp_of: str
    ) -> SampleAxis:
        """Return the axis of a fit of positions: strictly increasing in a segment.

        The samples of a frame are in the segment of its stamp.
        """
        numbers = frames.numbers
        shifts = np.broadcast_to(np.asarray(frames.shift_ns, np.int64), len(frames))
        stamped = positions + (np.maximum(frames.counts - 1, 0)) * (
            stamp_of == "arrival"
        )
        segments = _segments_at(fit, stamped)
        is_new = np.ones(len(frames), bool)
        follows = positions[:-1] + frames.counts[:-1] == positions[1:]
        is_new[1:] = ~follows | (shifts[1:] != shifts[:-1])
        is_new[1:] |= segments[1:] != segments[:-1]
        first, begin = numbers[:-1][is_new], positions[is_new]
        shift, segment = shifts[is_new] - fit.half_latencies[0], segments[is_new]
        lines = fit.segments

        def position_of(number: Ints) -> Ints:
            part = np.searchsorted(first, number, "right") - 1
            return np.asarray(begin[part] + (number - first[part]))

        def time_of(number: Ints) -> Ints:
            part = np.searchsorted(first, number, "right") - 1
            ticks = begin[part] + (number - first[part])
            if len(lines) == 1:
                return np.asarray(lines[0].line(ticks, fit.unit) + shift[part])
            made = np.empty(ticks.shape, np.int64)
            where = segment[part]
            for one in np.unique(where).tolist():
                mine = where == one
                made[mine] = lines[one].line(ticks[mine], fit.unit)
            return np.asarray(made + shift[part])

        starts = np.append(first, numbers[-1:])
        return cls(starts, time_of, position_of)

    @classmethod
    def stamped(
        cls,
        frames: FrameTimes,
        positions: Ints,
        stamps_ns: Ints,
        rate: float | None,
        stamp_of: str,
    ) -> SampleAxis:
        """Return the axis of the frames' own stamps: each frame is a part."""
        numbers = frames.numbers
        first = numbers[:-1]
        most = int(frames.counts.max(initial=1))
        # Distances within a frame, as `sample_times` rounds them.
        step = sample_times([0], most, rate, "sample")

        def position_of(number: Ints) -> Ints:
            row = np.searchsorted(numbers, number, "right") - 1
            return np.asarray(positions[row] + (number - first[row]))

        def time_of(number: Ints) -> Ints:
            row = np.searchsorted(numbers, number, "right") - 1
            inner = number - first[row]
            if stamp_of != "arrival":
                return np.asarray(stamps_ns[row] + step[inner])
            return np.asarray(stamps_ns[row] - step[frames.counts[row] - 1 - inner])

        return cls(numbers, time_of, position_of)

    # ---- search

    def search(self, times_ns: Ints) -> Ints:
        """Return how many samples are before each time; the axis must be sorted."""
        wanted = np.asarray(times_ns, np.int64)
        if not len(self):
            return np.zeros(wanted.shape, np.int64)
        part = np.searchsorted(self._ends, wanted, "left")
        is_behind = part == len(self._ends)
        part = np.minimum(part, len(self._ends) - 1)
        low, high = self._starts[part].copy(), self._starts[part + 1].copy()
        for _ in range(64):
            is_open = low < high
            if not is_open.any():
                break
            middle = (low + high) // 2
            is_less = is_open & (self.at(np.where(is_open, middle, 0)) < wanted)
            low = np.where(is_less, middle + 1, low)
            high = np.where(is_open & ~is_less, middle, high)
        return np.asarray(np.where(is_behind, len(self), low))

    def find(self, start: int | None, stop: int | None) -> slice | Ints:
        """Return the numbers of samples from `start` to before `stop`, ns."""
        if self.is_sorted:
            ends = [self.search(np.array([t]))[0] if t is not None else None
                    for t in (start, stop)]  # fmt: skip
            low = 0 if ends[0] is None else int(ends[0])
            high = len(self) if ends[1] is None else int(ends[1])
            return slice(low, max(low, high))
        found = [_EMPTY]
        low_ns = -(2**63) if start is None else start
        high_ns = 2**63 - 1 if stop is None else stop
        hit = (self._ends >= low_ns) & (self._firsts < high_ns)
        for part in np.flatnonzero(hit).tolist():
            own = np.arange(self._starts[part], self._starts[part + 1])
            times = self.at(own)
            found.append(own[(times >= low_ns) & (times < high_ns)])
        return np.concatenate(found)


def axis_of(
    frames: FrameTimes, attrs: Mapping[str, Any], fit: ClockFit | None = None
) -> SampleAxis:
    """Return the fitted axis of frames whose labels have these attributes.

    `fit` is one of their positions; by default it is made by `fit_samples`, which may
    raise.
    """
    positions = frames.positions(sample_rate(attrs), attrs)
    if fit is None:
        fit = fit_samples(frames, positions, attrs)
    return SampleAxis.fitted(frames, positions, fit, stamp_of(attrs))
