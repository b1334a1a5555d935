"""Robust lines through pairs of times of two clocks, and where a clock jumped."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from ataraxis.clock._fit import FitSegment
from ataraxis.clock._host import WANDER
from ataraxis.clock._unwrap import Times, ns_of_ticks

Floats = np.ndarray[Any, np.dtype[np.float64]]


def line_through(
    x: Times, y: Times, unit: Fraction, quantum: float, base: int
) -> FitSegment:
    """Return the line through pairs of times, with its bound.

    `x` are ticks without wraps and `y` the same instants by the other clock, ns, each
    right within `quantum` ns but for outliers. `base` is that of the segment.
    """
    keep = np.concatenate([[True], np.diff(x) > 0])
    x, y = x[keep], y[keep]
    elapsed = ns_of_ticks(x - x[0], unit)
    at, lag = elapsed.astype("f8"), (y - y[0] - elapsed).astype("f8")
    for _ in range(2):  # bounced and false edges that are close by
        smooth, size = _smoothed(at, lag)
        away = np.abs(lag - smooth)
        good = away <= 4 * float(np.median(away)) + quantum
        x, y, at, lag = x[good], y[good], at[good], lag[good]
    elapsed = ns_of_ticks(x - x[0], unit)
    at, lag = elapsed.astype("f8"), (y - y[0] - elapsed).astype("f8")
    smooth, size = _smoothed(at, lag)
    knots = np.unique(np.append(np.arange(0, len(x), max(size // 2, 1)), len(x) - 1))
    if len(x) > 1:
        # Knots stay next to gaps, so that the line bends there.
        gaps = np.flatnonzero(np.diff(at) > 20 * np.median(np.diff(at)))
        knots = np.union1d(knots, np.concatenate([gaps, gaps + 1])).astype(int)
    level = np.rint(smooth[knots]).astype("i8")
    off = np.abs(lag - np.interp(at, at[knots], smooth[knots]))
    width = max(size, 2)
    around = np.pad(off, width, mode="edge")
    worst = np.lib.stride_tricks.sliding_window_view(around, 2 * width + 1).max(1)
    spacing = float(np.median(np.diff(at))) if len(at) > 1 else 0.0
    bound = np.ceil(worst[knots] + quantum + 2).astype("i8")
    line = FitSegment(x[knots], y[0] + elapsed[knots] + level, bound, 0.0, 0, base)
    span = max(float(at[-1]), 1.0)
    length = min(span, max(size, 16) * max(spacing, 1.0))
    growth = 2 * float(np.median(bound)) / length + WANDER + spread(line, unit)
    return replace(
        line, growth=min(growth, 1.0), reach_ns=int(2 * spacing),
        ends=max(int(np.ceil(length / span * len(knots))), 1),
    )  # fmt: skip


def spread(line: FitSegment, unit: Any) -> float:
    """Return how much the rate changes beyond what the bounds explain, ns per ns."""
    if len(line.device) < 3:
        return 0.0
    ticks = np.diff(line.device)
    ns = np.maximum(ns_of_ticks(ticks, unit), 1)
    rates = (np.diff(line.host_ns) - ns) / ns
    doubt = (line.bound_ns[1:] + line.bound_ns[:-1]) / ns
    away = np.abs(rates - np.median(rates)) - doubt
    return float(max(away.max(), 0.0))


def _smoothed(x: Floats, y: Floats) -> tuple[Floats, int]:
    """Return a line through noisy values, and of how many neighbours on each side.

    The number is the one whose lines predict the values that are left out best.
    """
    if len(x) < 6:
        return y.copy(), 1
    best: tuple[float, Floats, int] | None = None
    for size in (1, 2, 4, 8, 16, 32, 64):
        if 2 * size + 1 > len(x):
            break
        fitted, left_out = _local_lines(x, y, size)
        error = float(np.mean((left_out[1:-1] - y[1:-1]) ** 2))
        if best is None or error < best[0]:
            best = error, fitted, size
    assert best is not None
    return best[1], best[2]


def _local_lines(x: Floats, y: Floats, size: int) -> tuple[Floats, Floats]:
    """Return local straight lines' values, with and without the value itself."""
    n = len(x)
    low = np.maximum(np.arange(n) - size, 0)
    high = np.minimum(np.arange(n) + size + 1, n)
    # Sums of windows by differences; x from its window's middle, against cancellation.
    scale = max(float(x[-1] - x[0]), 1.0)
    u = (x - x[0]) / scale
    m = high - low

    def sums(values: Floats) -> Floats:
        total = np.concatenate([[0.0], np.cumsum(values)])
        return np.asarray(total[high] - total[low])

    su, sy = sums(u) / m, sums(y) / m
    suu = np.maximum(sums(u * u) / m - su * su, 1e-30)
    suy = sums(u * y) / m - su * sy
    fitted = sy + suy / suu * (u - su)
    leverage = 1 / m + (u - su) ** 2 / (suu * m)
    left_out = y - (y - fitted) / np.maximum(1 - leverage, 1e-6)
    return fitted, left_out
