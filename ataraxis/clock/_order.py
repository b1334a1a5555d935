"""Stamps in the order of recording, without arrival times: which reset is which."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ataraxis.clock._fit import ClockFit
from ataraxis.clock._unwrap import Times, counter_of, ns_of_ticks
from ataraxis.errors import AmbiguousMatch

_SECOND = 10**9
# A step back of stamps that is shorter than this is not a reset, ns.
_RESET_NS = 5 * _SECOND
# Ways to assign stamps that are compared.
_WAYS = 3
# Another way is as likely if so much of the stamps more contradict it.
_AS_LIKELY = 0.01


class Converted(NamedTuple):
    """Host times of stamps, and the largest errors of these."""

    host_ns: Times
    """Host times, ns, int64."""
    bound_ns: Times
    """Largest errors, ns, int64, as of `ClockFit.bound_at`."""


class _Way(NamedTuple):
    """Segments of the first parts of the stamps, and how many stamps contradict."""

    wrong: int
    ranges: tuple[tuple[int, int], ...]


def convert_in_order(fit: ClockFit, device: Any) -> Converted:
    """Convert stamps in the order of recording, by a fit of a device that was reset.

    A device that was reset counts from its beginning again: its stamps alone do not
    tell to which segment of the fit they belong, but their order does.

    Parameters
    ----------
    fit : ClockFit
        A fit whose counter never wraps (`bits` is None).
    device : array_like of int, shape (n,)
        Stamps as the device counts, ticks.

    Returns
    -------
    Converted
        `host_ns` and `bound_ns`, ns, int64, shape (n,); copies.

    Raises
    ------
    AmbiguousMatch
        The stamps fit several segments equally well, as when a device was reset
        several times and sent nothing between two of them; it names their host times.
    ValueError
        The stamps are reset more often than the fit, or the counter wraps.

    Examples
    --------
    >>> from ataraxis.clock import fit_offsets
    >>> fit = fit_offsets([100, 110, 5, 15], [1000, 1000, 1120, 1120], unit_ns=10**9)
    >>> convert_in_order(fit, [100, 105, 6, 15]).host_ns.tolist()
    [100000001000, 105000001000, 6000001120, 15000001120]
    """
    if fit.bits is not None:
        raise ValueError(
            f"the counter wraps after {fit.bits} bits: pass near_ns= to fit.to_host_ns,"
            " a host time near each stamp"
        )
    raw = counter_of(device, None)
    lows = np.array([part.device[0] - part.base for part in fit.segments])
    highs = np.array([part.device[-1] - part.base for part in fit.segments])
    starts = _resets(fit, raw, highs)
    parts = [
        slice(a, b) for a, b in zip([0, *starts], [*starts, len(raw)], strict=True)
    ]
    slack = _slack(fit)
    goes_on = np.concatenate([[False], lows[1:] > highs[:-1]])
    sorted_parts = [np.sort(raw[part]) for part in parts]
    ways = _ways(sorted_parts, lows - slack, highs + slack, goes_on)
    if not ways:
        raise ValueError(
            f"the stamps are reset {len(starts)} times, first at stamp"
            f" {starts[0] if starts else 0}, and the fit has {len(fit.segments)}"
            " segments: measure offsets, or record arrivals, after every reset"
        )
    made = [_converted(fit, raw, parts, way.ranges, lows, highs) for way in ways]
    best = made[0]
    for way, other in zip(ways[1:], made[1:], strict=True):
        is_likely = way.wrong <= ways[0].wrong + _AS_LIKELY * len(raw)
        differs = np.abs(other.host_ns - best.host_ns) > best.bound_ns + other.bound_ns
        if is_likely and differs.any():
            k = int(np.argmax(differs))
            candidates = int(best.host_ns[k]), int(other.host_ns[k])
            error = AmbiguousMatch(
                f"stamp {k} may be of several segments of the fit, at the host times"
                f" {candidates[0]} and {candidates[1]} ns: pass near_ns= to"
                " fit.to_host_ns, or convert the parts between resets one by one"
            )
            error.candidates = candidates
            raise error
    return best


def _resets(fit: ClockFit, raw: Times, highs: Times) -> list[int]:
    """Return where the stamps step back as far as the fit says that its device did."""
    least = _RESET_NS
    for k, (part, after) in enumerate(
        zip(fit.segments, fit.segments[1:], strict=False)
    ):
        at = highs[k : k + 1]
        lines = [p.line(at + p.base, fit.unit)[0] for p in (part, after)]
        back = int(lines[1] - lines[0])
        if back >= _SECOND:
            least = min(least, back // 2)
    step = -np.diff(raw) * float(fit.unit)
    return [int(i) for i in np.flatnonzero(step >= least) + 1]


def _slack(fit: ClockFit) -> int:
    """Return how far stamps may be outside of the knots of their segment, ticks."""
    gaps = np.concatenate([np.diff(part.device) for part in fit.segments])
    usual = int(2 * np.max(gaps)) if len(gaps) else 0
    least = int(2 * _RESET_NS / float(fit.unit))
    ns = int(ns_of_ticks(np.array([usual]), fit.unit)[0])
    return usual if ns > 2 * _RESET_NS else least


def _ways(parts: list[Times], lows: Times, highs: Times, goes_on: Any) -> list[_Way]:
    """Return the likeliest assignments of parts of stamps to segments, best first.

    Each part has one segment, or several in a row between which the device was not
    reset (`goes_on`); segments may be without stamps. Dynamic programming.
    """
    count = len(lows)
    best: dict[int, list[_Way]] = {-1: [_Way(0, ())]}
    for part in parts:
        below = np.searchsorted(part, lows, "left")
        above = len(part) - np.searchsorted(part, highs, "right")
        found: dict[int, list[_Way]] = {}
        for last, ways in best.items():
            for a in range(last + 1, count):
                for b in range(a, count):
                    if b > a and not goes_on[b]:
                        break
                    wrong = int(below[a] + above[b])
                    found.setdefault(b, []).extend(
                        _Way(way.wrong + wrong, (*way.ranges, (a, b))) for way in ways
                    )
        best = {b: sorted(ways)[:_WAYS] for b, ways in found.items()}
    return sorted(way for ways in best.values() for way in ways)[: 4 * _WAYS]


def _converted(
    fit: ClockFit,
    raw: Times,
    parts: list[slice],
    ranges: tuple[tuple[int, int], ...],
    lows: Times,
    highs: Times,
) -> Converted:
    """Convert stamps by one assignment of segments."""
    made = Converted(np.empty(len(raw), "i8"), np.zeros(len(raw), "i8"))
    middle, half = fit.half_latencies
    for part, (a, b) in zip(parts, ranges, strict=True):
        mine, edges, doubts = raw[part], [0], np.zeros(len(raw[part]), "i8")
        for k in range(a, b):
            cut, unsure, jump = _cut(fit, k, mine, lows[k + 1], highs[k])
            edges.append(max(cut, edges[-1]))
            doubts[unsure] += jump
        for k, (i, j) in enumerate(pairwise([*edges, len(mine)]), a):
            segment, where = fit.segments[k], slice(part.start + i, part.start + j)
            ticks = raw[where] + segment.base
            made.host_ns[where] = segment.line(ticks, fit.unit) - middle
            made.bound_ns[where] = segment.bound(ticks, fit.unit) + half
        made.bound_ns[part] += doubts
    return made


def _cut(
    fit: ClockFit, k: int, stamps: Times, low: int, high: int
) -> tuple[int, slice, int]:
    """Return at which stamp a segment ends, where that is unsure, and the jump, ns."""
    before, after = fit.segments[k], fit.segments[k + 1]
    at = np.array([high])
    lines = [part.line(at + part.base, fit.unit)[0] for part in (before, after)]
    jump = int(lines[1] - lines[0])
    rising = np.maximum.accumulate(stamps)
    first, last = np.searchsorted(rising, high, "right"), np.searchsorted(rising, low)
    start = max(int(first) - 1, 0)
    steps = np.diff(stamps[start : int(last) + 1])
    if len(steps) and jump < 0:
        # A device that jumped ahead shows it; a host's jump does not.
        largest = int(np.argmax(steps))
        if steps[largest] * float(fit.unit) >= -jump / 2:
            return start + largest + 1, slice(0, 0), 0
    middle = int(np.searchsorted(rising, high + (low - high) // 2))
    return middle, slice(int(first), int(last)), abs(jump)
