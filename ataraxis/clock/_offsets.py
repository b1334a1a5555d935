"""Fits from offsets between two clocks, as LSL measures them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from ataraxis.clock._fit import ClockFit, FitSegment
from ataraxis.clock._host import UNKNOWN_DRIFT
from ataraxis.clock._lines import Floats, line_through
from ataraxis.clock._round_trips import fit_round_trips
from ataraxis.clock._unwrap import (
    Times,
    counter_of,
    ns_of_ticks,
    set_apart,
    unit_of,
    unwrap_by_host,
)

ASSUMPTION = (
    "each offset was measured by a request and an answer that took equally long, but"
    " for what the offsets scatter"
)
# What LSL states of one offset, ns: of fewer than _FEW nothing can be estimated.
_STATED = 200_000
_FEW = 8
# An offset is this many standard deviations away at most, outliers excepted.
_SIGMAS = 4.0
# A step of the offsets is a jump if it is so many times the usual one.
_STEPS = 20.0
# So many offsets that contradict those before and after them are outliers.
_OUTLIERS = 2


def fit_offsets(
    device: Any,
    offset_ns: Any,
    *,
    unit_ns: Any = 1,
    round_trip_ns: Any = None,
    bits: int | None = None,
    clock: str = "host",
) -> ClockFit:
    """Fit a device's time to the host's by measured offsets between their clocks.

    These are LSL's clock offsets, in XDF files and of inlets: (time, offset) pairs. The
    line is robust; it begins again where a clock was reset or jumped.

    Parameters
    ----------
    device : array_like of int, shape (n,)
        When each offset was measured, by the device's clock, ticks.
    offset_ns : array_like of int, shape (n,)
        What must be added to the device's time, ns, to get the host's.
    unit_ns : int, float or Fraction, optional
        Nominal duration of a tick, ns.
    round_trip_ns : int or array_like of int, optional
        Duration of the request and answer that measured each offset, ns, or a duration
        that none exceeded. Then bounds are absolute.
    bits : int, optional
        Declared width of the device's counter; None: it never wraps.
    clock : str, optional
        Name of the host's clock.

    Returns
    -------
    ClockFit
        With `round_trip_ns` that of `fit_round_trips`. Without, `bound_at` is of
        jitter and drift: if the way there always takes longer than the way back, the
        offsets are all wrong by half the difference, which they cannot show.

    Raises
    ------
    ValueError
        No offsets, arrays of different shapes, or numbers that are not integers.

    Notes
    -----
    The line is the one of `fit_pulses`. LSL measures an offset every 2 s or so and
    files the last one: with clocks that differ by 20 ppm it is 40 us too old.

    References
    ----------
    .. [1] C. Kothe et al., The Lab Streaming Layer, Imaging Neuroscience 3 (2025):
       offsets, and their line in XDF.

    Examples
    --------
    >>> import numpy as np
    >>> seconds = np.arange(0, 600, 5) * 10**9
    >>> fit = fit_offsets(seconds, 7_000_000 + seconds // 10**5)  # 10 ppm
    >>> fit.to_host_ns(300 * 10**9) - 300 * 10**9
    10000000
    >>> fit.absolute_bound_at(0) is None
    True
    >>> fit_offsets(seconds, seconds * 0, round_trip_ns=300_000).is_absolute
    True
    """
    offsets = np.asarray(offset_ns)
    if offsets.ndim != 1 or offsets.shape != np.shape(device) or not len(offsets):
        raise ValueError(
            "device and offset_ns must be arrays of one shape (n,), with at least one"
            f" offset, got {np.shape(device)} and {offsets.shape}"
        )
    if offsets.dtype.kind not in "iu":
        raise ValueError(
            f"offset_ns must be integers, ns, got {offsets.dtype}: a double loses ns;"
            " of seconds pass np.rint(1e9 * offsets).astype('i8')"
        )
    unit = unit_of(unit_ns)
    host = ns_of_ticks(counter_of(device, bits), unit) + offsets.astype("i8")
    if round_trip_ns is not None:
        half = (np.broadcast_to(np.asarray(round_trip_ns, "i8"), host.shape) + 1) // 2
        return fit_round_trips(
            host - half, device, host + half, unit_ns=unit, bits=bits, clock=clock
        )
    made = set_apart(unwrap_by_host(device, host, unit, bits), unit, bits)
    scatter, is_stated = _scatter(made.ticks, host, made.starts, unit)
    segments: list[FitSegment] = []
    used: list[Times] = []
    for part, base in zip(made.slices(), made.bases, strict=True):
        for piece in _pieces(made.ticks[part], host[part], unit, scatter):
            x, y = made.ticks[part][piece], host[part][piece]
            segments.append(line_through(x, y, unit, scatter, base))
            used.append(piece + part.start)
    which = np.concatenate(used)
    assumption = ASSUMPTION
    if is_stated:
        assumption += f", or {_STATED // 1000} us, which LSL states: they are few"
    fit = ClockFit("offsets", assumption, unit, tuple(segments), bits, clock,
                   ticks=made.ticks[which], used=which)  # fmt: skip
    return replace(fit, residuals=host[which] - fit.to_host_ns(made.ticks[which]))


def _scatter(
    ticks: Times, host: Times, starts: tuple[int, ...], unit: Fraction
) -> tuple[float, bool]:
    """Return how far an offset may be wrong, ns, and whether that is only stated."""
    x = ns_of_ticks(ticks - ticks[0], unit)
    lag = (host - host[0] - x).astype("f8")
    # Twice differenced, the offset, its drift and most of a jump are gone.
    curved = np.diff(lag, 2) / 2
    resets = np.array(starts[1:], int)
    curved = np.delete(curved, np.unique([*(resets - 1), *(resets - 2)]).astype(int)
                       if len(resets) else [])  # fmt: skip
    if len(curved) < _FEW - 2:
        return float(_STATED), True
    sigma = 1.4826 * float(np.median(np.abs(curved))) / np.sqrt(1.5)
    return _SIGMAS * sigma + float(unit), False


def _pieces(
    ticks: Times, host: Times, unit: Fraction, scatter: float
) -> Iterator[Times]:
    """Yield the indices of offsets between jumps, without outliers."""
    x = ns_of_ticks(ticks - ticks[0], unit).astype("f8")
    lag = (host - host[0]).astype("f8") - x
    if len(lag) < 2:
        yield np.arange(len(lag))
        return
    apart = np.maximum(np.diff(x), 1)
    lag -= float(np.median(np.diff(lag) / apart)) * x
    steps = np.abs(np.diff(lag))
    limit = np.maximum(_STEPS * float(np.median(steps)), 4 * scatter)
    cuts = np.flatnonzero(steps > limit + UNKNOWN_DRIFT * apart) + 1
    groups = np.split(np.arange(len(lag)), cuts)
    yield from _without_outliers(groups, lag, float(limit))


def _without_outliers(
    groups: list[Times], lag: Floats, limit: float
) -> Iterator[Times]:
    """Yield groups of offsets on one line; small ones are left out, if others exist."""
    large = [group for group in groups if len(group) > _OUTLIERS] or groups
    kept = [large[0]]
    for group in large[1:]:
        before, after = lag[kept[-1][-_FEW:]], lag[group[:_FEW]]
        if abs(float(np.median(after)) - float(np.median(before))) <= limit:
            kept[-1] = np.concatenate([kept[-1], group])
        else:
            kept.append(group)
    yield from kept
