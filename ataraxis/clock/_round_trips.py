"""Fits from round trips: requests that a device answers with its time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from ataraxis.clock._fit import ClockFit, FitSegment
from ataraxis.clock._host import SLEW, UNKNOWN_DRIFT, WANDER
from ataraxis.clock._lines import spread
from ataraxis.clock._unwrap import (
    Times,
    ns_of_ticks,
    set_apart,
    unit_of,
    unwrap_by_host,
)

_TRIPS = 8
"""Of so many trips in a row the fastest is a knot."""
_SLOPE_NS = 100 * 10**9


def fit_round_trips(
    sent_ns: Any,
    device: Any,
    received_ns: Any,
    *,
    unit_ns: Any = 1,
    bits: int | None = None,
    clock: str = "host",
) -> ClockFit:
    """Fit a device's time to the host's by requests that the device answers.

    Parameters
    ----------
    sent_ns, received_ns : array_like of int, shape (n,)
        When each request was sent and its answer received, host time, ns.
    device : array_like of int, shape (n,)
        The device's stamp in the answer, ticks.
    unit_ns : int, float or Fraction, optional
        Nominal duration of a tick, ns.
    bits : int, optional
        Declared width of the device's counter; None: it never wraps.
    clock : str, optional
        Name of the host's clock.

    Returns
    -------
    ClockFit
        A line through the fastest of each 8 trips, with absolute bounds.

    Raises
    ------
    ValueError
        The arrays differ in shape, are empty, or an answer precedes its request.

    Notes
    -----
    The device's stamp lies between request and answer: the middle is right within half
    of the round trip, whatever the way there and back. The line begins again where two
    trips contradict each other; those that contradict the line widen the bound.

    References
    ----------
    .. [1] D. L. Mills, RFC 5905 (NTP version 4), section 8.

    Examples
    --------
    >>> fit = fit_round_trips([1000, 5000], [0, 4], [1200, 5100], unit_ns=1000)
    >>> fit.to_host_ns([0, 4]).tolist(), fit.bound_at([0, 4]).tolist()
    ([1100, 5050], [1101, 1051])
    """
    sent, received = np.asarray(sent_ns, "i8"), np.asarray(received_ns, "i8")
    if sent.ndim != 1 or not sent.shape == received.shape == np.shape(device):
        raise ValueError(
            "sent_ns, device and received_ns must be arrays of one shape (n,), got"
            f" {sent.shape}, {np.shape(device)} and {received.shape}"
        )
    if not len(sent) or (received < sent).any():
        raise ValueError(
            "each round trip needs sent_ns <= received_ns, and at least one trip:"
            f" got {len(sent)}, {int((received < sent).sum())} of them received before"
            " they were sent"
        )
    unit = unit_of(unit_ns)
    half = (received - sent + 1) // 2
    middle = sent + (received - sent) // 2
    made = set_apart(unwrap_by_host(device, middle, unit, bits), unit, bits)
    tick = -(-unit.numerator // unit.denominator) if unit != 1 else 0
    half = half + tick
    segments = tuple(
        _segment(made.ticks[piece], middle[piece], half[piece], unit, base)
        for part, base in zip(made.slices(), made.bases, strict=True)
        for piece in _between_jumps(made.ticks, middle, half, unit, part)
    )
    fit = ClockFit(
        "round trips",
        "that the device stamps between request and answer, and that its rate changes"
        f" by {WANDER * 1e6:g} ppm at most beyond what was measured",
        unit, segments, bits, clock, ticks=made.ticks, used=np.arange(len(sent)),
    )  # fmt: skip
    residuals = middle - fit.to_host_ns(made.ticks)
    return replace(fit, residuals=residuals)


def _between_jumps(
    ticks: Times, middle: Times, half: Times, unit: Any, part: slice
) -> Iterator[slice]:
    """Yield parts of some trips: where two contradict each other, a clock jumped."""
    x = ns_of_ticks(ticks[part] - ticks[part.start], unit).astype("f8")
    lag, apart = (middle[part] - middle[part.start]) - x, np.maximum(np.diff(x), 1)
    steps = np.diff(lag)
    usual = float(np.median(steps / apart)) if len(steps) else 0.0
    most = half[part][1:] + half[part][:-1] + UNKNOWN_DRIFT * apart
    cuts = np.flatnonzero(np.abs(steps - usual * apart) > most) + 1
    edges = [0, *(int(i) for i in cuts), len(x)]
    for a, b in pairwise(edges):
        yield slice(part.start + a, part.start + b)


def _segment(
    ticks: Times, middle: Times, half: Times, unit: Any, base: int
) -> FitSegment:
    """Return a line through the fastest trips between two resets."""
    groups = max(len(ticks) // _TRIPS, min(len(ticks), 2))
    edges = np.linspace(0, len(ticks), groups + 1).astype(int)
    knots = np.array([a + int(np.argmin(half[a:b])) for a, b in pairwise(edges)])
    knots = knots[np.concatenate([[True], np.diff(ticks[knots]) > 0])]
    bound = half[knots] + 1
    line = FitSegment(ticks[knots], middle[knots], bound, UNKNOWN_DRIFT, base=base)
    if len(knots) > 1:
        at = ns_of_ticks(line.device - line.device[0], unit)
        # The slope at either end is that of some 100 s.
        after = int(np.searchsorted(at, _SLOPE_NS))
        before = len(at) - 1 - int(np.searchsorted(at, at[-1] - _SLOPE_NS, "right"))
        ends = min(max(after, before + 1, 1), len(at) - 1)
        length = min(int(at[ends]), int(at[-1] - at[-1 - ends]))
        longest = max(int(at[ends]), int(at[-1] - at[-1 - ends]))
        growth = 2 * int(bound.max()) / length + WANDER + spread(line, unit)
        growth = min(growth + min(SLEW * longest, UNKNOWN_DRIFT), 1.0)
        line = replace(line, growth=growth, ends=ends)
    # How far the line leaves the interval of a trip, its bound there was too small.
    outside = np.abs(middle - line.line(ticks, unit)) - half - line.bound(ticks, unit)
    bound = bound + np.maximum(outside.max(), 0)
    return replace(line, bound_ns=bound)
