"""Counters of few bits as int64 that never wrap, and exact conversion of their unit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

Times = np.ndarray[Any, np.dtype[np.int64]]

_SECOND = 10**9
_HOUR = 3600 * _SECOND
# A stamp may arrive this much later than the one after it, ns.
_BACKLOG_NS = 10 * _SECOND


@dataclass(frozen=True, eq=False)
class DeviceTicks:
    """A device's counter without wraps, and where the counter was reset.

    Examples
    --------
    >>> import numpy as np
    >>> made = unwrap(np.array([254, 255, 0, 1], "u1"), 8)
    >>> made.ticks.tolist(), made.bases
    ([254, 255, 256, 257], (0,))
    """

    ticks: Times
    """Stamps without wraps, ticks, shape (n,). After a reset they continue above those
    before it, so that no two stamps of a recording share a value."""
    starts: tuple[int, ...]
    """Index of the first stamp of each segment; the first is 0."""
    bases: tuple[int, ...]
    """`ticks` minus the device's own counter, ticks, one for each segment; right modulo
    2**bits."""

    def slices(self) -> Iterator[slice]:
        """Return the stamps of each segment, as slices."""
        ends = (*self.starts[1:], len(self.ticks))
        return (slice(a, b) for a, b in zip(self.starts, ends, strict=True))


def unwrap(ticks: Any, bits: int | None = 64, *, most: Any = None) -> DeviceTicks:
    """Return a counter of few bits without its wraps, and where it was reset.

    A step back is a wrap if the counter would have moved on by `most` ticks or less
    and by half of its range or less. Any other step back is a reset: the device
    restarted, and a new segment begins.

    Parameters
    ----------
    ticks : array_like of int, shape (n,)
        The counter, in the order of recording, ticks; int64 or uint64 at most.
    bits : int, optional
        Declared width of the counter, 1 to 64. None: it never wraps.
    most : int or array_like of int, optional
        The largest possible step, ticks; of shape (n - 1,) if it differs from step to
        step. Default: half the range.

    Returns
    -------
    DeviceTicks
        Copies, int64.

    Raises
    ------
    ValueError
        `bits` or a stamp is out of range, or the array is not of one dimension.

    Notes
    -----
    A gap of a whole lap or more cannot be seen in the counter alone: `fit_arrivals`
    counts such laps with the help of the arrival times.

    Examples
    --------
    >>> made = unwrap([4294967000, 500, 1500, 20, 1020], 32)
    >>> made.ticks.tolist()
    [4294967000, 4294967796, 4294968796, 8589934612, 8589935612]
    >>> made.starts
    (0, 3)
    """
    raw = counter_of(ticks, bits)
    if bits is None or len(raw) < 2:
        back = np.flatnonzero(np.diff(raw) < 0) + 1
        return _segments(raw, np.zeros(len(raw), "i8"), back, None)
    if bits == 64:
        step = (raw[1:].view("u8") - raw[:-1].view("u8")).view("i8")
        is_back = step < 0  # more than half of the range
        if most is not None:
            is_back |= (raw[1:].view("u8") < raw[:-1].view("u8")) & (step > most)
        back = np.flatnonzero(is_back) + 1
        return _segments(raw, np.zeros(len(raw), "i8"), back, None)
    span = 1 << bits
    ahead = np.diff(raw) % span
    is_back = np.diff(raw) < 0
    limit = span // 2 if most is None else np.minimum(most, span // 2)
    is_wrap = is_back & (ahead <= limit)
    laps = np.concatenate([[0], np.cumsum(is_wrap)]).astype("i8")
    return _segments(raw, laps, np.flatnonzero(is_back & ~is_wrap) + 1, span)


def _segments(raw: Times, laps: Times, back: Any, span: int | None) -> DeviceTicks:
    """Place each segment above the one before it."""
    starts = (0, *(int(i) for i in back))
    ends = (*starts[1:], len(raw))
    ticks = np.empty(len(raw), "i8")
    bases, top = [], None
    for a, b in zip(starts, ends, strict=True):
        if a == b:
            bases.append(0)
            continue
        part = raw[a:b] + (laps[a:b] - laps[a]) * (span or 0)
        base = 0
        if top is not None:
            lowest = int(part.min())
            base = top + 1 - lowest
            if span:  # a whole number of laps: the counter is still ticks % span
                base = -(-base // span) * span
        if not -(2**63) <= base + int(part.max()) < 2**63:
            raise ValueError(
                "the counter's segments do not fit into int64 one after the other:"
                " unwrap the recording in parts"
            )
        ticks[a:b] = part + base
        bases.append(base)
        top = int(ticks[a:b].max())
    return DeviceTicks(ticks, starts, tuple(bases))


def counter_of(ticks: Any, bits: int | None) -> Times:
    """Return a device's stamps as int64, checked; of u8 the same bits."""
    given = np.asarray(ticks)
    if given.ndim != 1:
        raise ValueError(
            f"ticks must be an array of shape (n,), got shape {given.shape}"
        )
    if given.size and given.dtype.kind not in "iu":
        raise ValueError(
            f"ticks must be integers, got {given.dtype}: a double loses ticks; pass"
            " the device's own counter"
        )
    if bits is None:
        if given.size and given.dtype == np.uint64 and int(given.max()) >= 2**63:
            raise ValueError("ticks of 2**63 or more need bits=64")
        return given.astype("i8")
    if not 1 <= bits <= 64:
        raise ValueError(f"bits must be 1 to 64, got {bits}")
    if given.size and (int(given.max()) >= 1 << bits or int(given.min()) < 0):
        raise ValueError(
            f"a counter of {bits} bits holds 0 to {(1 << bits) - 1}, got"
            f" {int(given.min())} to {int(given.max())}: declare its width by bits="
        )
    return given.astype("u8").view("i8")


def unwrap_by_host(
    ticks: Any, host_ns: Times, unit: Fraction, bits: int | None
) -> DeviceTicks:
    """Return a counter without wraps; arrival times count the laps that gaps hide."""
    raw = counter_of(ticks, bits)
    if bits is None or bits == 64 or len(raw) < 2:
        return unwrap(ticks, bits)
    span, per_tick = 1 << bits, float(unit)
    step_ns = np.diff(host_ns).astype("f8")
    if not is_dense(host_ns, unit, bits):
        return _segments(raw, _laps_by_phase(raw, host_ns, span, per_tick), [], span)
    most = ((np.maximum(step_ns, 0) + _BACKLOG_NS) / per_tick).astype("i8")
    made = unwrap(ticks, bits, most=most)
    wide = np.flatnonzero(step_ns > span * per_tick / 2) + 1
    if not len(wide):
        return made
    late = host_ns - host_ns[0] - (made.ticks - made.ticks[0]) * per_tick
    laps = np.zeros(len(raw), "i8")
    resets = set(made.starts)
    for i in wide:
        if int(i) in resets:
            continue
        # The least delays before and after the gap differ by whole laps.
        before = late[max(0, i - 64) : i].min()
        until = np.searchsorted(host_ns[i:], host_ns[i] + 2 * _SECOND)
        after = late[i : i + max(64, int(until))].min()
        missed = max(round((after - before) / (span * per_tick)), 0)
        late[i:] -= missed * span * per_tick
        laps[i:] += missed
    return _with_laps(made, laps * span)


def set_apart(made: DeviceTicks, unit: Fraction, bits: int | None) -> DeviceTicks:
    """Return ticks with an hour between segments, for stamps after the last one known.

    Of sparse stamps: those of samples between the last one and the reset follow it.
    """
    gap = int(_HOUR / unit)
    if bits is not None and bits < 64:
        gap = -(-gap >> bits) << bits  # whole laps
    steps = gap * np.arange(len(made.starts))
    if int(made.ticks[-1]) + int(steps[-1]) >= 2**63:
        return made
    ticks = made.ticks.copy()
    for part, step in zip(made.slices(), steps, strict=True):
        ticks[part] += step
    bases = tuple(
        base + int(step) for base, step in zip(made.bases, steps, strict=True)
    )
    return DeviceTicks(ticks, made.starts, bases)


def is_dense(host_ns: Times, unit: Fraction, bits: int) -> bool:
    """Return whether a counter is read four times a lap, or more often."""
    lap = float(unit) * (1 << bits)
    return bool(np.median(np.abs(np.diff(host_ns))) * 4 < lap)


def _with_laps(made: DeviceTicks, added: Times) -> DeviceTicks:
    bases = tuple(
        base + int(added[start])
        for base, start in zip(made.bases, made.starts, strict=True)
    )
    return DeviceTicks(made.ticks + added, made.starts, bases)


def _laps_by_phase(raw: Times, host_ns: Times, span: int, per_tick: float) -> Times:
    """Count laps of a counter that is read less than once a lap, by arrival times.

    A stamp may be late by nearly a lap: delays are counted from the least ones.
    """
    host = (host_ns - host_ns[0]).astype("f8") / per_tick
    phase = (host - raw) % span
    block = max(4, int(10e9 / max(float(np.median(np.diff(host_ns))), 1.0)))
    # The least delay follows the largest gap of the phases on their circle.
    first = np.sort(phase[: max(block, 64)])
    gaps = np.diff(np.append(first, first[0] + span))
    least = first[(int(np.argmax(gaps)) + 1) % len(first)]
    delay = np.empty(len(raw))
    for a in range(0, len(raw), block):
        part = (phase[a : a + block] - least + span / 8) % span - span / 8
        delay[a : a + block] = part + least
        least += part.min()
    laps: Times = np.rint((host - delay - raw) / span).astype("i8")
    return laps


# ---- the unit of a counter, exactly


def unit_of(unit_ns: Any) -> Fraction:
    """Return ns per tick as a fraction, checked."""
    unit = Fraction(unit_ns).limit_denominator(10**6)
    if unit <= 0:
        raise ValueError(f"unit_ns must be more than 0 ns per tick, got {unit_ns}")
    return unit


def ns_of_ticks(ticks: Times, unit: Fraction) -> Times:
    """Return a number of ticks in ns, rounded down; in integers, so none is lost."""
    ns, parts = divmod(unit.numerator, unit.denominator)
    whole, rest = np.divmod(ticks, unit.denominator)
    # The product of rest and numerator may not fit: frames are 10**8 ns, say.
    result: Times = whole * unit.numerator + rest * ns
    result += rest * parts // unit.denominator
    return result
