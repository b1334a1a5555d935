"""Fits from arrival times: a line below delays that are never negative."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from ataraxis.clock._fit import ClockFit, FitSegment
from ataraxis.clock._host import SLEW, UNKNOWN_DRIFT, WANDER
from ataraxis.clock._unwrap import Times, is_dense, ns_of_ticks, unit_of, unwrap_by_host

ASSUMPTION = (
    "arrival = device's time + a fixed delay + jitter, jitter >= 0 and near 0 in every"
    " window of the fit"
)
_FEWEST = 32
_SECOND = 10**9
# A window has this many stamps if they are dense enough, and these durations, ns.
_STAMPS = 400
_SHORTEST, _LONGEST = 4 * _SECOND, 120 * _SECOND
# Cells of a window, each of which keeps its fastest stamp.
_CELLS = 64
# Trends that are removed one after the other: each is better near the ends.
_TURNS = 2
# P(no stamp has less jitter than the bound) = exp(-_DOUBT) in a window.
_DOUBT = 20.0
# A stall that lasts longer than this is taken for a jump of a clock, ns.
_STALL = 120 * _SECOND
# A stamp that is later than this is left out, ns.
_LATE = _SECOND // 2
# The rate may change by so much in a gap, ns per ns.
_IN_GAPS = 20e-6
# Blocks of so many stamps show small jumps.
_SMALL_BLOCK = 200

Floats = np.ndarray[Any, np.dtype[np.float64]]


def fit_arrivals(
    device: Any,
    host_ns: Any,
    *,
    unit_ns: Any,
    bits: int | None = None,
    latency_ms: tuple[float, float] | None = None,
    clock: str = "host",
) -> ClockFit:
    """Fit a device's time to the host's by the times at which its stamps arrived.

    A piecewise line below the arrivals follows drift; it begins again where the device
    was reset or a clock jumped. It is late by the fixed delay between device and host,
    which arrivals cannot show.

    Parameters
    ----------
    device : array_like of int, shape (n,)
        The device's stamps in the order of arrival, ticks, as it counts.
    host_ns : array_like of int, shape (n,)
        Arrival of each, host time, ns.
    unit_ns : int, float or Fraction
        Nominal duration of a tick, ns.
    bits : int, optional
        Declared width of the device's counter, 1 to 64; None: it never wraps.
    latency_ms : tuple of float, optional
        Least and largest possible fixed delay, ms. Then the middle is subtracted, and
        bounds are absolute and include half of the range.
    clock : str, optional
        Name of the host's clock.

    Returns
    -------
    ClockFit
        `bound_at` bounds jitter and drift; `absolute_bound_at` is None unless
        `latency_ms` was declared.

    Raises
    ------
    ValueError
        Fewer than 32 stamps, shapes that differ, stamps that are not integers or do
        not fit `bits`, or an impossible latency.

    Notes
    -----
    In overlapping windows the line is the edge of the lower convex hull of the delays
    that is below their mean, after a smooth trend is removed. The bound is the delay
    below which some stamp of each window would almost surely be if the line were
    wrong by more. A jump of a clock that is smaller than about a quarter of the jitter
    cannot be told from jitter: it bends the line, and widens the bound there. So does a
    reset of a counter that laps between two stamps, which hides in its phase. Stamps
    that a suspended host receives when it resumes are left out, but converted.

    References
    ----------
    .. [1] A. M. Andrew, Another efficient algorithm for convex hulls in two
       dimensions, Information Processing Letters 9 (1979).
    .. [2] S. B. Moon, P. Skelly, D. Towsley, Estimation and removal of clock skew from
       network delay measurements, INFOCOM 1999.

    Examples
    --------
    >>> import numpy as np
    >>> ms = np.arange(1000)
    >>> jitter = np.random.default_rng(0).integers(0, 10**6, 1000)
    >>> fit = fit_arrivals(ms, ms * 10**6 + 3_000_000 + jitter, unit_ns=10**6)
    >>> abs(fit.to_host_ns(500) - 503_000_000) <= fit.bound_at(500)
    True
    >>> fit.absolute_bound_at(500) is None
    True
    """
    host = np.asarray(host_ns)
    if host.ndim != 1 or host.shape != np.shape(device):
        raise ValueError(
            "device and host_ns must be arrays of one shape (n,), got"
            f" {np.shape(device)} and {host.shape}"
        )
    if len(host) < _FEWEST:
        raise ValueError(
            f"a fit of arrivals needs at least {_FEWEST} stamps, got {len(host)}:"
            " record longer, or use round trips"
        )
    if host.dtype.kind not in "iu":
        raise ValueError(
            f"host_ns must be integers, ns, got {host.dtype}: a double loses ns"
        )
    host, unit = host.astype("i8"), unit_of(unit_ns)
    made = unwrap_by_host(device, host, unit, bits)
    envelopes = []
    # A reset of a counter that laps between stamps hides in its phase.
    lap = float(unit * (1 << bits)) if bits and not is_dense(host, unit, bits) else 0.0
    for part, base in zip(made.slices(), made.bases, strict=True):
        ticks, arrived = made.ticks[part], host[part]
        elapsed = ns_of_ticks(ticks - ticks[0], unit)
        delay = (arrived - arrived[0] - elapsed).astype("f8")
        envelopes += [
            _Envelope(ticks, arrived, piece, unit, base)
            for piece in _pieces(elapsed.astype("f8"), delay, float(unit), lap)
        ]
    for before, after in pairwise(envelopes):
        if before.base == after.base:
            before.compare(after)
            after.compare(before)
    jitter = np.maximum(np.concatenate([line.jitter for line in envelopes]), 0)
    segments = tuple(line.segment(jitter) for line in envelopes)
    fit = ClockFit(
        "arrivals", ASSUMPTION, unit, segments, bits, clock, None,
        np.zeros(len(host), "i8"), made.ticks, np.arange(len(host)),
    )  # fmt: skip
    ticks = made.ticks
    if lap:
        ticks = fit.ticks_near(device, host)
    residuals = host - fit.to_host_ns(ticks)
    return replace(
        fit, ticks=ticks, residuals=residuals, latency_ns=_latency(latency_ms)
    )


def _latency(latency_ms: tuple[float, float] | None) -> tuple[int, int] | None:
    if latency_ms is None:
        return None
    low, high = (round(float(ms) * 1e6) for ms in latency_ms)
    if not 0 <= low <= high:
        raise ValueError(
            f"latency_ms must be (min, max) with 0 <= min <= max, got {latency_ms}"
        )
    return low, high


# ---- jumps of clocks, stalls, glitches


@dataclass(frozen=True)
class _Cut:
    """Where a clock jumped."""

    index: int
    jump: float = 0.0
    """By how much, ns."""
    before: int = 0
    """So many stamps before it may be of the line after it."""
    after: int = 0
    """So many stamps from it on may be of the line before it."""


@dataclass(frozen=True, eq=False)
class _Piece:
    """Stamps between two cuts."""

    stamps: slice
    on_time: Any
    """Which of them are neither in a stall nor glitches."""
    first: _Cut
    last: _Cut


def _pieces(
    elapsed: Floats, delay: Floats, rounds: float, lap: float
) -> Iterator[_Piece]:
    """Split stamps where a clock jumped.

    If laps are counted by arrival times, `lap`, ns, those next to a cut may be wrong.
    """
    n = len(delay)
    period = max(float(np.median(np.diff(elapsed))), 1.0) if n > 1 else 1.0
    block = int(np.clip(10 * _SECOND / period, 4, 64))
    blocks = _Blocks(elapsed, delay, block)
    on_time, cuts = blocks.follow(20 * blocks.usual + 2 * rounds + 50_000)
    coarse = [*(cut.index for cut in cuts), n]
    for a, b in pairwise(coarse):
        kept = a + np.flatnonzero(on_time[a:b])
        if len(kept) >= 10 * _SMALL_BLOCK:
            small = _small_jumps(elapsed[kept], delay[kept], rounds)
            cuts += [replace(cut, index=int(kept[cut.index])) for cut in small]
    cuts.sort(key=lambda cut: cut.index)
    if lap:
        cuts = [
            cut if not cut.index else
            _Cut(cut.index, max(cut.jump, lap), max(cut.before, 2 * block),
                 max(cut.after, 2 * block))
            for cut in cuts
        ]  # fmt: skip
    cuts.append(_Cut(n))
    for first, last in pairwise(cuts):
        if last.index > first.index:
            where = slice(first.index, last.index)
            yield _Piece(where, on_time[where], first, last)


class _Blocks:
    """The least delay of each block of stamps, without the mean drift."""

    def __init__(self, elapsed: Floats, delay: Floats, block: int) -> None:
        n = len(delay)
        self.starts = np.arange(0, max(n - block // 2, 1), block)
        self.ends = np.append(self.starts[1:], n)
        pairs = zip(self.starts, self.ends, strict=True)
        fastest = np.array([a + int(np.argmin(delay[a:b])) for a, b in pairs])
        least, self.at, rate = delay[fastest], elapsed[fastest], 0.0
        if len(fastest) > 2:
            far = max(len(fastest) // 8, 1)
            apart = np.maximum(self.at[far:] - self.at[:-far], 1)
            rate = float(np.median((least[far:] - least[:-far]) / apart))
        self.flat = least - rate * self.at
        self.level, self._elapsed = delay - rate * elapsed, elapsed
        change = np.abs(np.diff(self.flat))
        self.usual = float(np.median(change)) if len(change) > 1 else np.inf

    def follow(self, limit: float) -> tuple[Any, list[_Cut]]:
        """Return which stamps are on time, and where the least delay jumped."""
        level, flat = self.level, self.flat
        on_time = np.full(len(level), True)
        cuts, recent, seen = [_Cut(0)], [float(flat[0])], float(self.at[0])
        k = 0
        while k < len(flat):
            a, b, now = int(self.starts[k]), int(self.ends[k]), min(recent)
            away = float(self.at[k]) - seen
            # In a long gap the rate may have changed.
            bound = limit + (_IN_GAPS * away if away > 30 * _SECOND else 0)
            early = a + np.flatnonzero(level[a:b] < now - bound)
            if len(early) and self._is_glitch(k, early, now - bound):
                on_time[early] = False
            elif len(early):
                settled = k
                while settled + 1 < len(flat) and flat[settled + 1] < (
                    flat[settled] - limit
                ):
                    settled += 1  # what a suspended host receives when it resumes
                start = int(self.starts[settled])
                late = level[start : self.ends[settled]] > flat[settled] + limit
                on_time[early[0] : start + int(np.argmin(late))] = False
                cuts.append(self._fallen(int(early[0]), settled, now, limit))
                k, recent = settled, [float(flat[settled])]
            elif flat[k] > now + bound:
                # A stall ends; what does not end is a jump of the host's clock.
                last = np.searchsorted(self.at, self.at[k] + _STALL)
                is_stall = bool((flat[k + 1 : last] < now + bound / 2).any())
                if is_stall or self._is_burst(a, b):
                    on_time[a:b] = False
                    k += 1
                    continue
                cuts.append(self._risen(k, now, limit))
                on_time[cuts[-1].index : a] = True
                recent = [float(flat[k])]
            else:
                recent = [*recent[-3:], float(flat[k])]
            # What is this late tells nothing, and may be all that a window has.
            a = max(a, cuts[-1].index)
            on_time[a:b] &= level[a:b] < flat[k] + _LATE + 20 * limit
            seen = float(self.at[k])
            k += 1
        return on_time, cuts

    def _is_burst(self, a: int, b: int) -> bool:
        """Return whether stamps arrive much faster than they were made."""
        caught_up = float(self.level[a] - self.level[b - 1])
        return caught_up > float(self._elapsed[b - 1] - self._elapsed[a]) / 2 > 0

    def _is_glitch(self, k: int, early: Any, below: float) -> bool:
        until = int(self.ends[min(k + 1, len(self.ends) - 1)])
        after = self.level[int(early[0]) : until] < below
        return len(early) < 3 and float(np.mean(after)) < 0.5

    def _fallen(self, index: int, k: int, old: float, limit: float) -> _Cut:
        of_block = self.level[max(int(self.starts[k]), index) : int(self.ends[k])]
        jump = old - float(self.flat[k])
        doubtful = _doubtful(of_block - of_block.min(), jump - limit / 2)
        return _Cut(index, jump, before=doubtful)

    def _risen(self, k: int, old: float, limit: float) -> _Cut:
        # A stamp below the new line is of the old one.
        start, end = int(self.starts[max(k - 1, 0)]), int(self.ends[k])
        new, otherwise = float(self.flat[k]), int(self.starts[k]) - start
        # Here the rate may differ from the mean one.
        near = slice(max(k - 4, 0), k + 5)
        apart = np.maximum(np.diff(self.at[near]), 1)
        rate = float(np.median(np.diff(self.flat[near]) / apart)) if len(apart) else 0.0
        away = self._elapsed[start:end] - self.at[k]
        level = self.level[start:end] - rate * away
        old += rate * float(self.at[k] - self.at[max(k - 1, 0)])
        index = _last_below(level, new - min(limit / 2, 3 * self.usual), otherwise)
        first = _last_below(level, new - min(limit, (new - old) / 2), otherwise)
        doubtful = _doubtful(level[:index] - old, new - old) if index else 0
        # Where a jump is hardly seen, the block before it is doubtful.
        before = index if new - old < 2 * limit else max(index - first, 0)
        return _Cut(start + index, new - old, before, doubtful)


def _doubtful(jitter: Floats, jump: float) -> int:
    """Return how many stamps in a row may have more jitter than a jump."""
    if jump > 2 * float(jitter.max()):
        return 0
    share = min(float(np.mean(jitter < jump)), 1 - 1 / (len(jitter) + 1))
    return int(np.ceil(-_DOUBT / np.log1p(-max(share, 0.05))))


def _small_jumps(elapsed: Floats, delay: Floats, rounds: float) -> list[_Cut]:
    """Return jumps that only blocks of many stamps show."""
    duration = max(float(elapsed[-1] - elapsed[0]), 1.0)
    size = int(np.clip(40 * _SECOND * len(delay) / duration, 32, _SMALL_BLOCK))
    starts = np.arange(0, len(delay) - size + 1, size)
    inside = slice(0, len(starts) * size)
    level, own = delay[inside].reshape(-1, size), np.zeros(len(starts))
    away = elapsed[inside].reshape(-1, size) - elapsed[starts, None]
    for _ in range(3):  # the fastest stamp of a block depends on the drift in it
        fastest = starts + np.argmin(level - own[:, None] * away, axis=1)
        least, at = delay[fastest], elapsed[fastest]
        apart = np.maximum(np.diff(at), 1)
        padded = np.pad(np.diff(least) / apart, 2, mode="reflect", reflect_type="odd")
        slopes = np.median(np.lib.stride_tricks.sliding_window_view(padded, 5), axis=1)
        own = np.append(slopes, slopes[-1])
    surprise = np.diff(least) - slopes * apart
    usual = float(np.percentile(np.abs(surprise), 90))
    limit, usual_apart = 10 * usual + 2 * rounds, float(np.median(apart))
    found: list[_Cut] = []
    e = np.pad(surprise, 3)
    for k in np.flatnonzero(np.abs(surprise) > limit / 2):
        # A block with stamps of both lines shares the jump with the next one.
        way = 1 if surprise[k] * (e[k + 4] - e[k + 2]) > 0 else -1
        low, high = (k, k + 2) if way > 0 else (k - 1, k + 1)
        if low < 0 or high >= len(starts) or (found and found[-1].index > starts[low]):
            continue
        change = float(surprise[k] + surprise[k + way])
        # A block without a fast stamp comes back at once, drift goes on, and in a gap
        # the rate may have changed.
        gap = float(max(apart[k], apart[np.clip(k + way, 0, len(apart) - 1)]))
        others = np.abs([*e[low + 1 : low + 3], *e[high + 3 : high + 5]]).max()
        needed = max(limit, 2.5 * others)
        if gap > 3 * usual_apart:
            needed += _IN_GAPS * gap
        if not 2 <= k < len(surprise) - 2:
            needed *= 3
        is_step = _is_step(at, least, int(low), int(high), change)
        if abs(change) <= needed or not is_step:
            continue
        a, b = int(starts[low]), int(starts[high]) + size
        level = delay[a:b] - slopes[k] * (elapsed[a:b] - at[k])
        old, new = float(level[:size].min()), float(level[-size:].min())
        jump = new - old
        if abs(jump) <= limit:
            continue
        if jump < 0:  # the same, backwards
            level, old, new = level[::-1], new, old
        index = _last_below(level, new - usual - rounds, size)
        first = _last_below(level, new - min(limit, abs(jump) / 2), size)
        doubtful = _doubtful(level[:first] - old, abs(jump) - usual - rounds)
        # So many of the stamps before `index` are doubtful, and after it.
        near = (index - first, max(doubtful - (index - first), 0))
        if jump < 0:
            index, near = len(level) - index, near[::-1]
        found.append(_Cut(a + index, abs(jump), *near))
    return found


def _last_below(level: Floats, limit: float, otherwise: int) -> int:
    """Return the index after the last stamp below a limit."""
    below = np.flatnonzero(level < limit)
    return int(below[-1]) + 1 if len(below) else otherwise


def _is_step(at: Floats, least: Floats, low: int, high: int, jump: float) -> bool:
    """Return whether parabolas on both sides also see most of a jump between blocks."""
    edge, sides = (at[low] + at[high]) / 2, []
    for part in (slice(max(low - 4, 0), low + 1), slice(high, high + 5)):
        x = (at[part] - edge) / max(float(np.ptp(at[part])), 1.0)
        degree = min(2, len(x) - 2)
        if degree < 0:
            return False
        sides.append(np.polynomial.polynomial.polyfit(x, least[part], degree)[0])
    return bool((sides[1] - sides[0]) * np.sign(jump) > 0.5 * abs(jump))


# ---- the envelope


class _Envelope:
    """The line below the delays of one piece."""

    def __init__(
        self, ticks: Times, host: Times, piece: _Piece, unit: Fraction, base: int
    ) -> None:
        ticks, host, on_time = ticks[piece.stamps], host[piece.stamps], piece.on_time
        extra = np.zeros(len(ticks))
        extra[len(ticks) - min(piece.last.before, len(ticks)) :] = piece.last.jump
        extra[: piece.first.after] = piece.first.jump
        if (on_time & (extra == 0)).sum() > 1:
            on_time = on_time & (extra == 0)
        else:
            on_time = np.full(len(ticks), True)
        doubtful, ticks_of = np.flatnonzero(extra), ticks
        ticks, host = ticks[on_time], host[on_time]
        order = np.argsort(ticks, kind="stable")
        self._ticks, self._host, self._unit = ticks[order], host[order], unit
        elapsed = ns_of_ticks(self._ticks - self._ticks[0], unit)
        self.base = base
        self._doubtful = ticks_of[doubtful], extra[doubtful]
        self._x = elapsed.astype("f8")
        self._y = (self._host - self._host[0] - elapsed).astype("f8")
        duration, n = float(self._x[-1]), len(self._x)
        dense = float(np.clip(_STAMPS * duration / n, _SHORTEST, _LONGEST))
        self._window = max(dense, _FEWEST * duration / n)
        knots = [self._stretch(a, b) for a, b in self._stretches()]
        self._at, self._value, self._bend, self._step = (
            np.concatenate(parts) for parts in zip(*knots, strict=True)
        )
        self._extend()
        self.jitter = self._y - np.interp(self._x, self._at, self._value)

    def _extend(self) -> None:
        """Draw the line on to doubtful stamps next to a cut."""
        at, value = self._at, self._value
        if len(at) < 2 or not len(self._doubtful[0]):
            return
        x = ns_of_ticks(self._doubtful[0] - self._ticks[0], self._unit).astype("f8")
        for end, edge in ((0, x.min()), (-1, x.max())):
            inside = at[0] <= edge <= at[-1]
            if not inside and (edge < at[0]) == (end == 0):
                far = np.clip(at[end] + (self._window if end == 0 else -self._window),
                              at[0], at[-1])  # fmt: skip
                slope = (np.interp(far, at, value) - value[end]) / (far - at[end])
                where = 0 if end == 0 else len(self._at)
                low = value[end] + slope * (edge - at[end])
                self._at = np.insert(self._at, where, edge)
                self._value = np.insert(self._value, where, low)
                self._bend = np.insert(self._bend, where, self._bend[end])
                self._step = np.insert(self._step, where, self._step[end])

    def compare(self, other: _Envelope) -> None:
        """Measure the jump between two lines where it is doubtful which one holds."""
        ticks, jump = self._doubtful
        apart = np.abs(other.host_at(ticks) - self.host_at(ticks))
        self._doubtful = ticks, np.maximum(jump, apart)

    def host_at(self, ticks: Times) -> Times:
        """Return the line's host times, ns, also before and after it."""
        elapsed = ns_of_ticks(ticks - self._ticks[0], self._unit)
        x, at, value = elapsed.astype("f8"), self._at, self._value
        delay = np.interp(x, at, value)
        near = min(self._window / 2, float(at[-1] - at[0]))
        if near > 0:
            inner = np.interp([at[0] + near, at[-1] - near], at, value)
            delay += (inner[0] - value[0]) / near * np.minimum(x - at[0], 0)
            delay += (value[-1] - inner[1]) / near * np.maximum(x - at[-1], 0)
        result: Times = self._host[0] + elapsed + np.rint(delay).astype("i8")
        return result

    def _stretches(self) -> Iterator[tuple[int, int]]:
        """Return parts without gaps of half a window."""
        gaps = np.flatnonzero(np.diff(self._x) > self._window / 2) + 1
        cuts = [0, *(int(i) for i in gaps), len(self._x)]
        return pairwise(cuts)

    def _stretch(self, a: int, b: int) -> tuple[Floats, Floats, Floats, Floats]:
        """Return knots, values there, and how much the line bends, and steps, there."""
        x, y = self._x[a:b], self._y[a:b]
        start, end, window = float(x[0]), float(x[-1]), self._window
        if end - start < 1.25 * window:
            at = np.array([start, end]) if end > start else np.array([start])
            slope, middle = _support(x, y, (start + end) / 2)
            line = middle + slope * (at - (start + end) / 2)
            return at, line, np.zeros(len(at)), np.zeros(len(at))
        count = int(np.ceil(4 * (end - start - window) / window)) + 1
        centres = np.linspace(start + window / 2, end - window / 2, count)
        rough = self._hulls(x, y, centres)
        trend = _Trend(centres, rough, window)
        fine = np.concatenate([[start + window / 4], centres, [end - window / 4]])
        low = self._hulls(x, y - trend(x), fine)
        for _ in range(_TURNS):
            trend = _Trend(fine, trend(fine) + low, window)
            low = self._hulls(x, y - trend(x), fine)
        value = trend(fine) + low
        bend = np.abs(rough - value[1:-1]) / 4
        at = np.union1d(np.linspace(start, end, 4 * len(fine)), fine)
        line = trend(at) + np.interp(at, fine, low)
        step = self._steps(x, y, at, line)
        return at, line, np.interp(at, centres, bend), step

    def _steps(self, x: Floats, y: Floats, at: Floats, line: Floats) -> Floats:
        """Return how far the delays on both sides of each knot may be apart, ns.

        A jump that is too small to be seen as one bends the line, which hides a part
        of it.
        """
        half = self._window / 2
        edges = np.linspace(
            at[0], at[-1], int(np.ceil(4 * (at[-1] - at[0]) / half)) + 1
        )
        centres, spacing = edges[1:-1], edges[1] - edges[0]
        number = np.arange(1, len(edges) - 1)
        # A window from each edge on; those at the ends are narrower.
        left, right = np.minimum(number, 4), np.minimum(number[::-1], 4)
        starts = np.concatenate([edges[1:-1], edges[:1].repeat(3)])
        widths = np.concatenate([right, [1, 2, 3]]) * spacing
        after = self._hulls(x, y, starts + widths / 2, widths)
        first = self._hulls(x, y, edges[:1] + 2 * spacing, 4 * spacing)
        before = np.concatenate([after[-3:], first, after[: -3 - 4]])
        change = after[:-3] - before
        left, right = left * spacing, right * spacing
        ends = np.clip(centres + 2 * half * np.array([[-1], [1]]), at[0], at[-1])
        levels = np.interp(ends, at, line)
        hidden = (left + right) / 2 / (ends[1] - ends[0])
        step = np.abs(change - (levels[1] - levels[0]) * hidden) / (1 - hidden)
        step = np.nan_to_num(step, nan=0.0)
        low = np.searchsorted(centres, at - half)
        high = np.searchsorted(centres, at + half, "right")
        return np.array([step[i:j].max() for i, j in zip(low, high, strict=True)])

    def _hulls(
        self, x: Floats, y: Floats, centres: Floats, window: Any = None
    ) -> Floats:
        """Return the lower hull's value in the middle of each window; NaN: empty."""
        half = (self._window if window is None else window) / 2
        cell = np.floor((x - x[0]) / (self._window / _CELLS)).astype(int)
        order = np.lexsort((y, cell))
        first = np.concatenate([[True], np.diff(cell[order]) > 0])
        x, y = x[order[first]], y[order[first]]
        low = np.searchsorted(x, centres - half)
        high = np.searchsorted(x, centres + half, "right")
        return np.array(
            [
                _support(x[i:j], y[i:j], c)[1] if j > i else np.nan
                for i, j, c in zip(low, high, centres, strict=True)
            ]
        )

    def segment(self, pool: Floats) -> FitSegment:
        """Return the line with its bound; `pool` is the jitter of the whole fit."""
        half = self._window / 2
        low = np.searchsorted(self._x, self._at - half)
        high = np.searchsorted(self._x, self._at + half, "right")
        bounds = np.array(
            [_excess(self.jitter[i:j], pool) for i, j in zip(low, high, strict=True)]
        )
        bounds += self._bend + max(float(self._unit), 1.0) + 1
        # A step is as uncertain as the line.
        bounds = np.maximum(bounds, 1.1 * self._step + bounds / 2)
        usual = float(np.median(bounds))
        doubtful, jumps = self._doubtful
        doubtful = ns_of_ticks(doubtful - self._ticks[0], self._unit)
        for at, jump in zip(doubtful, jumps, strict=True):
            k = int(np.searchsorted(self._at, at))
            near = slice(max(k - 1, 0), k + 1)
            bounds[near] = np.maximum(bounds[near], jump + jump / 50 + 3 * usual)
        ticks = self._ticks[0] + np.rint(self._at / float(self._unit)).astype("i8")
        keep = np.concatenate([np.diff(ticks) > 0, [True]])
        elapsed = ns_of_ticks(ticks - self._ticks[0], self._unit)
        host = self._host[0] + elapsed + np.rint(self._value).astype("i8")
        ends = max(int(keep.sum() * self._window / max(self._x[-1], 1.0)), 1)
        return FitSegment(
            ticks[keep], host[keep], np.ceil(bounds[keep]).astype("i8"),
            self._growth(bounds), int(self._window / 8), self.base, ends,
        )  # fmt: skip

    def _growth(self, bounds: Floats) -> float:
        """Return how fast the line may leave its course, ns per ns."""
        duration = float(self._x[-1])
        if duration <= 0:
            return UNKNOWN_DRIFT
        step = min(self._window, duration)
        grid = np.arange(0, duration + step / 2, step)
        rates = np.diff(np.interp(grid, self._at, self._value)) / step
        spread = float(np.ptp(rates)) if len(rates) else 0.0
        turned = min(SLEW * step, UNKNOWN_DRIFT)
        return spread + 2 * float(np.median(bounds)) / step + WANDER + turned


class _Trend:
    """A smooth line through knots: local parabolas on a grid."""

    def __init__(self, at: Floats, value: Floats, window: float) -> None:
        self._grid = np.linspace(
            at[0] - window / 2, at[-1] + window / 2, 2 * len(at) + 3
        )
        low = np.searchsorted(at, self._grid - 1.5 * window)
        high = np.searchsorted(at, self._grid + 1.5 * window, "right")
        self._value = np.empty(len(self._grid))
        for k, (i, j) in enumerate(zip(low, high, strict=True)):
            x = (at[i:j] - self._grid[k]) / window
            degree = 2 if j - i >= 6 else min(j - i - 1, 1)
            self._value[k] = np.polynomial.polynomial.polyfit(x, value[i:j], degree)[0]

    def __call__(self, x: Floats) -> Floats:
        return np.interp(x, self._grid, self._value)


def _support(x: Floats, y: Floats, centre: float) -> tuple[float, float]:
    """Return slope and value at `centre` of the lower hull's edge there.

    The lower half of Andrew's monotone chain.
    """
    hull: list[tuple[float, float]] = []
    for point in zip(x.tolist(), y.tolist(), strict=True):
        while len(hull) > 1 and _is_above(hull[-2], hull[-1], point):
            hull.pop()
        if hull and hull[-1][0] == point[0]:
            if hull[-1][1] <= point[1]:
                continue
            hull.pop()
        hull.append(point)
    if len(hull) == 1:
        return 0.0, hull[0][1]
    right = next((i for i, (at, _) in enumerate(hull) if at >= centre), len(hull) - 1)
    (x0, y0), (x1, y1) = hull[max(right, 1) - 1], hull[max(right, 1)]
    slope = (y1 - y0) / (x1 - x0)
    return slope, y0 + slope * (centre - x0)


def _is_above(
    a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]
) -> bool:
    return (b[0] - a[0]) * (c[1] - a[1]) <= (b[1] - a[1]) * (c[0] - a[0])


def _excess(mine: Floats, pool: Floats) -> float:
    """Return how far a line below some delays may be from their least value, ns."""
    below = float(max(-mine.min(), 0.0)) if len(mine) else 0.0
    share = 1 - np.exp(-_DOUBT / max(len(mine), 1))
    is_few = len(mine) < 4 * _DOUBT
    source = pool if is_few else mine
    rank = min(int(np.ceil(share * len(source))), len(source) - 1)
    least = float(mine.max()) if is_few and len(mine) else 0.0
    # A line that is too high makes its own delays look small.
    return float(max(np.partition(source, rank)[rank], least)) + 2 * below
