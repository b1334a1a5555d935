"""Fits of frame numbers to the strobes that a camera sends with its frames."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from ataraxis.clock._arrivals import fit_arrivals
from ataraxis.clock._fit import ClockFit, FitSegment
from ataraxis.clock._pulses import fit_pulses
from ataraxis.clock._unwrap import Times, set_apart, unit_of, unwrap_by_host
from ataraxis.errors import AmbiguousMatch

ASSUMPTION = (
    "the camera sends one strobe a frame and counts every frame, at intervals that"
    " change slowly between pauses, and each arrives within delay_ms of its strobe"
)
# A part of a frame interval, ns: frame numbers times this many are exact ticks.
_TICK_NS = 1000
_FEWEST = 8
# Intervals of up to so many frames show the period.
_MISSED = 3
_LAGS = 2, 4, 8, 16, 32, 64, 128, 256


def fit_strobes(
    strobes_ns: Any,
    frames: Any,
    arrivals_ns: Any,
    *,
    delay_ms: tuple[float, float],
    bits: int | None = None,
    tolerance_ns: int | None = None,
    clock: str = "host",
) -> ClockFit:
    """Fit a camera's frame numbers to the times of its strobes.

    Frames are matched with strobes by their numbers and by when they arrived: frames
    that were dropped, and strobes that were lost, false or bounced, are left out. The
    line begins again after a pause.

    Parameters
    ----------
    strobes_ns : array_like of int, shape (m,)
        Edges of one polarity, ns, increasing. Of a DAQ with its own clock convert them
        by its fit first, so that they are about of the clock of the arrivals.
    frames : array_like of int, shape (n,)
        The camera's own number of each frame that arrived, which counts dropped ones.
    arrivals_ns : array_like of int, shape (n,)
        When each arrived, ns.
    delay_ms : tuple of float
        Least and largest fixed delay between strobe and arrival, ms. A range that is
        wider than the interval of the frames is ambiguous.
    bits : int, optional
        Declared width of the camera's counter; None: it never wraps.
    tolerance_ns : int, optional
        A strobe matches within this, ns. Default: some 50 us.
    clock : str, optional
        Name of the clock of the strobes.

    Returns
    -------
    ClockFit
        Its ticks are frame numbers: `to_host_ns` gives the strobe of a frame, also of
        one whose strobe was lost. `used` and `partners` are the indices of matched
        frames and strobes. Bounds are absolute, between frame and strobe.

    Raises
    ------
    AmbiguousMatch
        Strobes several frames apart fit equally well; it names the shifts.
    ValueError
        Too few strobes or frames match, or arrays that differ in shape or do not
        increase.

    Notes
    -----
    The arrivals are fitted by `fit_arrivals`, in parts between pauses; each part is
    matched by `fit_pulses` with that fit as the coarse one.

    Examples
    --------
    >>> import numpy as np
    >>> strobes = 10**9 + np.arange(400) * 10_000_000
    >>> frames = np.delete(np.arange(400), [17, 18, 19])  # dropped
    >>> arrivals = strobes[frames] + 4_000_000
    >>> fit = fit_strobes(np.delete(strobes, 50), frames, arrivals, delay_ms=(2, 6))
    >>> fit.to_host_ns(50) - int(strobes[50]), len(fit.used)
    (0, 396)
    """
    strobes, arrivals = np.asarray(strobes_ns), np.asarray(arrivals_ns)
    if strobes.ndim != 1 or len(strobes) < _FEWEST or strobes.dtype.kind not in "iu":
        raise ValueError(
            f"strobes_ns must be at least {_FEWEST} integers, ns, of shape (m,), got"
            f" {strobes.dtype} of shape {strobes.shape}"
        )
    if arrivals.ndim != 1 or arrivals.shape != np.shape(frames):
        raise ValueError(
            "frames and arrivals_ns must be arrays of one shape (n,), got"
            f" {np.shape(frames)} and {arrivals.shape}"
        )
    strobes, arrivals = strobes.astype("i8"), arrivals.astype("i8")
    period = _period(strobes)
    each = max(int(period // _TICK_NS), 1)
    unit = unit_of(Fraction(period) / each)
    made = unwrap_by_host(frames, arrivals, unit * each, bits)
    made = set_apart(made, unit * each, bits)
    ticks = made.ticks * each
    coarse = fit_arrivals(ticks, arrivals, unit_ns=unit)
    found: list[ClockFit] = []
    refused: ValueError | None = None
    for part in coarse.segments:
        inside = np.flatnonzero((ticks >= part.device[0]) & (ticks <= part.device[-1]))
        if len(inside) < _FEWEST:
            continue
        first, last = np.searchsorted(strobes, _window(coarse, part, delay_ms, period))
        try:
            match = fit_pulses(
                ticks[inside], strobes[first:last], unit_ns=unit, coarse=coarse,
                delay_ms=delay_ms, tolerance_ns=tolerance_ns, clock=clock,
            )  # fmt: skip
        except AmbiguousMatch:
            raise
        except ValueError as error:  # a short part, or without strobes
            refused = refused or error
            continue
        found.append(
            replace(match, used=inside[match.used], partners=match.partners + first)
        )
    if not found:
        raise refused or ValueError(
            f"too few frames between pauses: {len(ticks)} arrived in"
            f" {len(coarse.segments)} parts, and a part needs at least {_FEWEST}"
        )
    used = np.concatenate([match.used for match in found])
    partners = np.concatenate([match.partners for match in found])
    _check(coarse, ticks[used], strobes[partners], delay_ms)
    starts = np.array(made.starts)
    bases = [made.bases[int(np.searchsorted(starts, m.used[0], "right")) - 1]
             for m in found]  # fmt: skip
    segments = tuple(
        _in_frames(segment, each, base, match.residuals)
        for match, base in zip(found, bases, strict=True)
        for segment in match.segments
    )
    fit = ClockFit("pulses", ASSUMPTION, unit * each, segments, bits, clock,
                   ticks=made.ticks[used], used=used, partners=partners)  # fmt: skip
    return replace(fit, residuals=strobes[partners] - fit.to_host_ns(fit.ticks))


def _period(strobes: Times) -> float:
    """Return the interval of the frames, ns, whatever strobes are lost or false."""
    steps = np.diff(strobes)
    usual = max(float(np.median(steps)), 1.0)
    frames = np.rint(steps / usual)
    is_good = (frames >= 1) & (frames <= _MISSED)
    is_good &= np.abs(steps / usual - frames) < 0.1
    if not is_good.any():
        return usual
    period = max(float(np.median(steps[is_good] / frames[is_good])), 1.0)
    # Strobes of a DAQ are whole samples: longer intervals show what a sample hides.
    for lag in _LAGS:
        if 2 * lag > len(strobes):
            break
        apart = (strobes[lag:] - strobes[:-lag]) / period
        frames = np.rint(apart)
        is_good = (frames >= 1) & (frames <= _MISSED * lag)
        is_good &= np.abs(apart - frames) < 0.1
        if not is_good.any():
            break
        period *= max(float(np.median(apart[is_good] / frames[is_good])), 0.5)
    return period


def _window(
    coarse: ClockFit, part: FitSegment, delay_ms: tuple[float, float], period: float
) -> list[float]:
    """Return when the strobes of a part may be, ns."""
    ends = part.device[[0, -1]]
    host, bound = coarse.to_host_ns(ends), coarse.bound_at(ends)
    slack = bound + 2 * period
    return [host[0] - slack[0] - delay_ms[1] * 1e6,
            host[1] + slack[1] - delay_ms[0] * 1e6]  # fmt: skip


def _check(
    coarse: ClockFit, ticks: Times, strobes: Times, delay_ms: tuple[float, float]
) -> None:
    """Raise if frames that were matched arrived before their strobes, or too late."""
    delay, bound = coarse.to_host_ns(ticks) - strobes, coarse.bound_at(ticks)
    low, high = (round(ms * 1e6) for ms in delay_ms)
    wrong = np.flatnonzero((delay < low - bound) | (delay > high + bound))
    if len(wrong):
        k = int(wrong[0])
        raise ValueError(
            f"{len(wrong)} frames match strobes outside of delay_ms={delay_ms}, first"
            f" by {delay[k] / 1e6:.3f} ms: the camera paused, or did not count its"
            " dropped frames; fit the parts before and after one by one"
        )


def _in_frames(
    segment: FitSegment, each: int, base: int, residuals: Times
) -> FitSegment:
    """Return a line in frames; a lost strobe may be off as far as any, and more."""
    least = int(np.ceil(1.25 * np.abs(residuals).max())) + 2
    bound = np.maximum(segment.bound_ns, least)
    return replace(segment, device=segment.device // each, bound_ns=bound, base=base)
