"""A device's time as host time: a piecewise line with a bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, overload

import numpy as np

from ataraxis.clock._host import SLEW, UNKNOWN_DRIFT, WANDER
from ataraxis.clock._unwrap import Times, ns_of_ticks


def _empty() -> Times:
    return np.empty(0, "i8")


_INPUTS = ("residuals", "ticks", "used", "partners")


@dataclass(frozen=True, eq=False)
class FitSegment:
    """A part of a fit between resets and jumps: a line through knots.

    Between knots the line is straight; before and after, its slope is that of the
    outer `ends` pieces.
    """

    device: Times
    """Knots: stamps of the device without wraps, ticks, increasing, shape (n,)."""
    host_ns: Times
    """Host time of each knot, ns, shape (n,)."""
    bound_ns: Times
    """Largest error at each knot, ns, shape (n,)."""
    growth: float
    """Growth of the bound before and after the knots, ns per ns, beside `SLEW`."""
    reach_ns: int = 0
    """The bound grows from this distance to the nearest knot, ns."""
    base: int = 0
    """Ticks without wraps minus the device's own counter, modulo its range."""
    ends: int = 1
    """Number of outer pieces whose slope is taken before and after the knots."""

    def line(self, device: Times, unit: Fraction) -> Times:
        """Return the host time of stamps without wraps, ns, exactly rounded."""
        anchor, slope = self._pieces(device, unit)
        ahead = device - self.device[anchor]
        # Whole ticks in integers; only the small difference of the rates is a double.
        away = np.rint(ahead * slope).astype("i8")
        result: Times = self.host_ns[anchor] + ns_of_ticks(ahead, unit) + away
        return result

    def _pieces(self, device: Times, unit: Fraction) -> tuple[Any, Any]:
        """Return the knot from which each stamp counts, and ns gained per tick."""
        piece = np.searchsorted(self.device, device, "right")
        return np.maximum(piece - 1, 0), self._slopes(unit)[piece]

    def _slopes(self, unit: Fraction) -> Any:
        if len(self.device) < 2:
            return np.zeros(2)
        ticks, host = np.diff(self.device), np.diff(self.host_ns)
        gained = (host - ns_of_ticks(ticks, unit)).astype("f8")
        n = min(max(self.ends, 1), len(ticks))
        first = gained[:n].sum() / float(ticks[:n].sum())
        last = gained[-n:].sum() / float(ticks[-n:].sum())
        return np.concatenate([[first], gained / ticks, [last]])

    def inverse(self, host_ns: Times, unit: Fraction) -> Times:
        """Return the stamp without wraps at a host time, ticks, rounded."""
        piece = np.searchsorted(self.host_ns, host_ns, "right")
        anchor = np.maximum(piece - 1, 0)
        rate = float(unit) + self._slopes(unit)[piece]
        ticks = (host_ns - self.host_ns[anchor]) / rate
        result: Times = self.device[anchor] + np.rint(ticks).astype("i8")
        return result

    def inverse_ns(self, host_ns: Times, unit: Fraction) -> Times:
        """Return the device's time at a host time, in ns of its nominal unit."""
        piece = np.searchsorted(self.host_ns, host_ns, "right")
        anchor = np.maximum(piece - 1, 0)
        ahead = host_ns - self.host_ns[anchor]
        slope = self._slopes(unit)[piece]
        away = np.rint(ahead * (slope / (float(unit) + slope))).astype("i8")
        result: Times = ns_of_ticks(self.device[anchor], unit) + ahead - away
        return result

    def bound(self, device: Times, unit: Fraction) -> Times:
        """Return the largest error at stamps without wraps, ns."""
        right = np.searchsorted(self.device, device, "left")
        left = np.clip(right - 1, 0, len(self.device) - 1)
        right = np.minimum(right, len(self.device) - 1)
        left = np.where(self.device[right] == device, right, left)
        nearest = np.minimum(
            np.abs(device - self.device[left]), np.abs(self.device[right] - device)
        )
        away = np.maximum(nearest * float(unit) - self.reach_ns, 0)
        # Between knots the line ends within their bounds: only a turn adds to them.
        is_inside = left < right
        apart = np.where(is_inside, self.device[right] - self.device[left], nearest)
        turned = np.minimum(apart * (float(unit) * SLEW), UNKNOWN_DRIFT)
        turned += np.where(is_inside, WANDER, self.growth)
        worse = np.maximum(self.bound_ns[left], self.bound_ns[right])
        result: Times = worse + np.ceil(away * turned).astype("i8")
        return result


@dataclass(frozen=True, eq=False)
class ClockFit:
    """A device's time as host time, with a bound and what the bound assumes.

    `fit_arrivals`, `fit_pulses` and the other fits return one. Stamps are given
    without wraps, as `unwrap` returns them, or as the device counts, with the time
    near which each arrived.

    Examples
    --------
    >>> from ataraxis.clock import fit_round_trips
    >>> sent = [0, 10**9, 2 * 10**9]
    >>> fit = fit_round_trips(sent, [5, 1005, 2005], [t + 400 for t in sent],
    ...                       unit_ns=10**6)
    >>> fit.to_host_ns(505), fit.bound_at(505), fit.to_device(500000200)
    (500000200, 1001251, 505)
    >>> ClockFit.from_dict(fit.as_dict()) == fit
    True
    """

    kind: str
    """``arrivals``, ``offsets``, ``pulses``, ``strobes`` that a device recorded whose
    clock is itself fitted, ``round trips`` or ``relation``."""
    assumption: str
    """What `bound_at` assumes, in words."""
    unit: Fraction
    """Nominal ns per tick of the device."""
    segments: tuple[FitSegment, ...]
    """Lines, in the order of the device's time."""
    bits: int | None = None
    """Declared width of the device's counter; None: it never wraps."""
    clock: str = "host"
    """Name of the clock that the fit converts to."""
    latency_ns: tuple[int, int] | None = None
    """Of arrivals: declared least and largest fixed delay, ns; of strobes: by how much
    the times of the device that recorded them are late, as far as known."""
    residuals: Times = field(default_factory=_empty, repr=False)
    """Recorded minus fitted host time of each input that was used, ns, int64."""
    ticks: Times = field(default_factory=_empty, repr=False)
    """The device's stamp of each residual, ticks without wraps."""
    used: Times = field(default_factory=_empty, repr=False)
    """Index of the input of each residual."""
    partners: Times = field(default_factory=_empty, repr=False)
    """Of pulses: index of the other recording's edge of each residual."""

    def __post_init__(self) -> None:
        if not self.segments:
            raise ValueError("a fit needs at least one segment")
        for array in (self.residuals, self.ticks, self.used, self.partners):
            array.flags.writeable = False

    def __repr__(self) -> str:
        ppm = ", ".join(f"{1e6 * rate:+.1f}" for rate in self.rates[:3])
        more = ", ..." if len(self.segments) > 3 else ""
        worst = max(int(s.bound_ns.max()) for s in self.segments)
        absolute = "known" if self.is_absolute else "unknown"
        return (
            f"<ClockFit of {self.kind} to {self.clock}:"
            f" {len(self.segments)} segment(s), {ppm}{more} ppm, bound up to"
            f" {worst / 1000:.1f} us, absolute error"
            f" {absolute}; assumes {self.assumption}>"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ClockFit):
            return NotImplemented
        return self.as_dict() == other.as_dict()

    __hash__ = None  # type: ignore[assignment]

    @property
    def rates(self) -> list[float]:
        """Each segment's mean rate minus the nominal one, ns per ns."""
        rates = []
        for part in self.segments:
            ticks = part.device[-1:] - part.device[:1]
            nominal = max(int(ns_of_ticks(ticks, self.unit)[0]), 1)
            gained = int(part.host_ns[-1] - part.host_ns[0]) - nominal
            rates.append(gained / nominal if len(part.device) > 1 else 0.0)
        return rates

    @property
    def is_absolute(self) -> bool:
        """Whether `absolute_bound_at` is known."""
        is_relative = self.kind in ("arrivals", "offsets", "strobes")
        return not is_relative or self.latency_ns is not None

    # ---- conversion

    @overload
    def to_host_ns(self, device: int, *, near_ns: int | None = None) -> int: ...
    @overload
    def to_host_ns(self, device: Any, *, near_ns: Any = None) -> Times: ...
    def to_host_ns(self, device: Any, *, near_ns: Any = None) -> int | Times:
        """Convert stamps of the device to host time.

        Parameters
        ----------
        device : int or array_like of int
            Stamps without wraps, ticks; with `near_ns` as the device counts them.
        near_ns : int or array_like of int, optional
            Host time near each stamp, such as its arrival, ns, same shape: tells laps
            and resets of the counter apart. It may be earlier than the stamp by an
            eighth of a lap, and later by seven.

        Returns
        -------
        int or ndarray of int64
            Host times, ns, same shape; a copy. Of arrivals without a declared latency
            they are late by the fixed delay, which is unknown.

        Examples
        --------
        >>> from ataraxis.clock import fit_round_trips
        >>> fit = fit_round_trips([0, 10**9], [5, 1005], [400, 10**9 + 400],
        ...                       unit_ns=10**6)
        >>> fit.to_host_ns([5, 505]).tolist()
        [200, 500000200]
        """
        ticks = self.ticks_near(device, near_ns)
        made = self._line(ticks) - self.half_latencies[0]
        return int(made) if made.ndim == 0 else made

    @property
    def half_latencies(self) -> tuple[int, int]:
        """The middle of the declared latencies and half of their range, ns."""
        low, high = self.latency_ns or (0, 0)
        return (low + high) // 2, -((low - high) // 2)

    def _line(self, ticks: Times) -> Times:
        result = np.empty(ticks.shape, "i8")
        where = self._segment_of(ticks)
        for number, part in enumerate(self.segments):
            mine = where == number
            result[mine] = part.line(ticks[mine], self.unit)
        return result

    def _segment_of(self, ticks: Times) -> Any:
        """Return the number of the segment whose knots are nearest to each stamp."""
        ends = np.array([part.device[-1] for part in self.segments[:-1]], "i8")
        starts = np.array([part.device[0] for part in self.segments[1:]], "i8")
        return np.searchsorted(ends + (starts - ends) // 2, ticks, "left")

    def ticks_near(self, device: Any, near_ns: Any) -> Times:
        """Return stamps without wraps, ticks, of the arguments of `to_host_ns`."""
        given = np.asarray(device)
        if given.dtype.kind not in "iu":
            raise ValueError(
                f"device must be integers, ticks, got {given.dtype}: a double loses"
                " ticks"
            )
        if near_ns is None:
            return given.astype("i8")
        near = np.asarray(near_ns, "i8")
        if near.shape != given.shape:
            raise ValueError(
                f"near_ns must have the shape of device, {given.shape}, got"
                f" {near.shape}"
            )
        raw = given.astype("u8").view("i8") if self.bits == 64 else given.astype("i8")
        best = np.zeros(given.shape, "i8")
        least = np.full(given.shape, np.inf)
        for part in self.segments:
            ticks = raw + part.base
            if self.bits is not None and self.bits < 64:
                span = 1 << self.bits
                # The time may be later than the stamp by nearly a lap, as arrivals are.
                guess = part.inverse(near, self.unit) + span // 8
                ticks += (guess - ticks) // span * span
            away = np.abs(part.line(ticks, self.unit) - near).astype("f8")
            # Outside its knots a segment is likely only by their distance.
            outside = np.maximum(part.device[0] - ticks, ticks - part.device[-1])
            away += np.maximum(outside, 0) * float(self.unit)
            best = np.where(away < least, ticks, best)
            least = np.minimum(away, least)
        return best

    @overload
    def to_device(self, host_ns: int) -> int: ...
    @overload
    def to_device(self, host_ns: Any) -> Times: ...
    def to_device(self, host_ns: Any) -> int | Times:
        """Convert host times to stamps of the device.

        Parameters
        ----------
        host_ns : int or array_like of int
            Host times, ns.

        Returns
        -------
        int or ndarray of int64
            Stamps without wraps, rounded to whole ticks, same shape; a copy. Where the
            host's clock jumped back, the later of two stamps.

        Examples
        --------
        >>> from ataraxis.clock import fit_round_trips
        >>> fit = fit_round_trips([0, 10**9], [5, 1005], [400, 10**9 + 400],
        ...                       unit_ns=10**6)
        >>> fit.to_device(10**9 + 200)
        1005
        """
        given = np.asarray(host_ns)
        if given.dtype.kind not in "iu":
            raise ValueError(f"host_ns must be integers, ns, got {given.dtype}")
        host = given.astype("i8") + self.half_latencies[0]
        result = np.empty(host.shape, "i8")
        left = np.full(host.shape, True)
        for number in reversed(range(len(self.segments))):
            part = self.segments[number]
            start = int(part.host_ns[0])
            if number:
                start -= max(start - int(self.segments[number - 1].host_ns[-1]), 0) // 2
            mine = left & ((host >= start) | (number == 0))
            result[mine] = part.inverse(host[mine], self.unit)
            left &= ~mine
        return int(result) if result.ndim == 0 else result

    # ---- bounds

    @overload
    def bound_at(self, device: int, *, near_ns: int | None = None) -> int: ...
    @overload
    def bound_at(self, device: Any, *, near_ns: Any = None) -> Times: ...
    def bound_at(self, device: Any, *, near_ns: Any = None) -> int | Times:
        """Return the largest error of `to_host_ns`.

        Of arrivals without a declared latency: of jitter and drift only, as the
        distance from a line that is late by one unknown constant. With a declared
        latency, and of pulses and round trips: of everything.

        Parameters
        ----------
        device, near_ns
            As of `to_host_ns`.

        Returns
        -------
        int or ndarray of int64
            Bounds, ns, same shape; they grow away from the recorded stamps.

        Examples
        --------
        >>> from ataraxis.clock import fit_round_trips
        >>> fit = fit_round_trips([0], [5], [400], unit_ns=10**6)
        >>> fit.bound_at(5), fit.bound_at(1005)
        (1000201, 1100301)
        """
        ticks = self.ticks_near(device, near_ns)
        result = np.empty(ticks.shape, "i8")
        where = self._segment_of(ticks)
        for number, part in enumerate(self.segments):
            mine = where == number
            result[mine] = part.bound(ticks[mine], self.unit)
        for left, right in zip(self.segments, self.segments[1:], strict=False):
            if left.base != right.base:  # a reset: the ticks show which line holds
                continue
            # Between segments either line may hold.
            between = (ticks > left.device[-1]) & (ticks < right.device[0])
            lines = [part.line(ticks[between], self.unit) for part in (left, right)]
            result[between] += np.abs(lines[0] - lines[1])
        result += self.half_latencies[1]
        return int(result) if result.ndim == 0 else result

    def absolute_bound_at(
        self, device: Any, *, near_ns: Any = None
    ) -> int | Times | None:
        """Return the largest error against the true host time; None if it is unknown.

        Parameters
        ----------
        device, near_ns
            As of `to_host_ns`.

        Returns
        -------
        int, ndarray of int64 or None
            `bound_at`; None of arrivals without a declared latency.

        Examples
        --------
        >>> from ataraxis.clock import fit_round_trips
        >>> fit_round_trips([0], [5], [400], unit_ns=10**6).absolute_bound_at(5)
        1000201
        """
        if not self.is_absolute:
            return None
        result: int | Times = self.bound_at(device, near_ns=near_ns)
        return result

    # ---- JSON, picture

    def as_dict(self, *, residuals: bool = True) -> dict[str, Any]:
        """Return the fit as a dict for JSON; `from_dict` reads it back, equal.

        Parameters
        ----------
        residuals : bool, optional
            Whether to include `residuals`, `ticks`, `used` and `partners`, four numbers
            for each input. Without them the fit converts as before, in a few kB.

        Examples
        --------
        >>> from ataraxis.clock import fit_round_trips
        >>> fit_round_trips([0], [5], [400], unit_ns=10**6).as_dict()["unit"]
        [1000000, 1]
        """
        made = {
            "kind": self.kind,
            "assumption": self.assumption,
            "unit": [self.unit.numerator, self.unit.denominator],
            "bits": self.bits,
            "clock": self.clock,
            "latency_ns": list(self.latency_ns) if self.latency_ns else None,
            "segments": [
                {
                    "device": part.device.tolist(),
                    "host_ns": part.host_ns.tolist(),
                    "bound_ns": part.bound_ns.tolist(),
                    "growth": part.growth,
                    "reach_ns": part.reach_ns,
                    "base": part.base,
                    "ends": part.ends,
                }
                for part in self.segments
            ],
        }
        if residuals:
            made |= {name: getattr(self, name).tolist() for name in _INPUTS}
        return made

    @classmethod
    def from_dict(cls, made: Mapping[str, Any]) -> ClockFit:
        """Return the fit of which `as_dict` returned `made`.

        Raises
        ------
        ValueError
            A key is missing.

        Examples
        --------
        >>> from ataraxis.clock import fit_round_trips
        >>> fit = fit_round_trips([0], [5], [400], unit_ns=10**6)
        >>> ClockFit.from_dict(fit.as_dict()).kind
        'round trips'
        """
        try:
            segments = tuple(
                FitSegment(
                    np.array(part["device"], "i8"),
                    np.array(part["host_ns"], "i8"),
                    np.array(part["bound_ns"], "i8"),
                    float(part["growth"]), int(part["reach_ns"]), int(part["base"]),
                    int(part["ends"]),
                )
                for part in made["segments"]
            )  # fmt: skip
            low_high = made["latency_ns"]
            return cls(
                made["kind"],
                made["assumption"],
                Fraction(*made["unit"]),
                segments,
                made["bits"],
                made["clock"],
                (int(low_high[0]), int(low_high[1])) if low_high else None,
                *(np.array(made.get(name, ()), "i8") for name in _INPUTS),
            )
        except KeyError as error:
            raise ValueError(
                f"not a fit: {error} is missing; pass what as_dict() returned"
            ) from error

    def plot(self, axes: Any = None) -> Any:
        """Draw the residuals and the bound over the host's time.

        Parameters
        ----------
        axes : matplotlib.axes.Axes, optional
            Where to draw. Default: a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            The axes: s on x, us on y.

        Raises
        ------
        ModuleNotFoundError
            matplotlib is not installed.
        """
        if axes is None:
            try:
                from matplotlib.figure import Figure
            except ModuleNotFoundError as error:
                raise ModuleNotFoundError(
                    "a plot of a fit needs matplotlib: pip install 'ataraxis[plot]'"
                ) from error
            axes = Figure(layout="constrained").add_subplot()
        first = int(self.segments[0].host_ns[0])
        for part in self.segments:
            seconds = (part.host_ns - first) / 1e9
            bound = part.bound_ns / 1e3
            axes.fill_between(seconds, -bound, bound, alpha=0.3, color="tab:orange")
        if len(self.residuals):
            at = (self._line(self.ticks) - first) / 1e9
            axes.plot(at, self.residuals / 1e3, ".", markersize=2)
        axes.set_xlabel(f"{self.clock} time, s")
        axes.set_ylabel("recorded - fitted, us")
        axes.set_title(f"{self.kind}: assumes {self.assumption}", fontsize="small")
        return axes


def relate(fit_a: ClockFit, fit_b: ClockFit) -> ClockFit:
    """Return a fit of one device's time to another's.

    Parameters
    ----------
    fit_a, fit_b : ClockFit
        Fits to the same clock, both with absolute bounds.

    Returns
    -------
    ClockFit
        Its `to_host_ns` converts stamps of the first device to ns of the second, that
        is ticks times its nominal unit. Bounds add up.

    Raises
    ------
    ValueError
        A fit knows jitter and drift only, or the fits convert to different clocks.

    Examples
    --------
    >>> from ataraxis.clock import fit_round_trips
    >>> a = fit_round_trips([0, 10**9], [0, 1000], [400, 10**9 + 400], unit_ns=10**6)
    >>> b = fit_round_trips([0, 10**9], [7, 1007], [400, 10**9 + 400], unit_ns=10**6)
    >>> both = relate(a, b)
    >>> both.to_host_ns(500), both.bound_at(0)
    (507000000, 2000404)
    """
    for name, fit in (("fit_a", fit_a), ("fit_b", fit_b)):
        if not fit.is_absolute:
            raise ValueError(
                f"{name} knows jitter and drift only: its device's fixed delay is"
                " unknown. Declare latency_ms=(min, max), of offsets round_trip_ns, or"
                " record one pulse train by both devices and use fit_pulses"
            )
    if fit_a.clock != fit_b.clock:
        raise ValueError(
            f"fit_a converts to {fit_a.clock!r}, fit_b to {fit_b.clock!r}: both must"
            " be fits to one clock"
        )
    made = [
        part
        for a in fit_a.segments
        for b in fit_b.segments
        if (part := _through(fit_a, a, fit_b, b)) is not None
    ]
    if not made:
        raise ValueError(
            "the fits have no time in common: the devices must run at the same time"
        )
    return ClockFit(
        kind="relation",
        assumption=f"{fit_a.assumption}; and {fit_b.assumption}",
        unit=fit_a.unit,
        segments=tuple(made),
        bits=fit_a.bits,
        clock="the second device",
    )


def _through(
    fit_a: ClockFit, a: FitSegment, fit_b: ClockFit, b: FitSegment
) -> FitSegment | None:
    """Return the line through two segments where both have knots, or None."""
    middle_a, middle_b = fit_a.half_latencies[0], fit_b.half_latencies[0]
    a_host, b_host = a.host_ns - middle_a, b.host_ns - middle_b
    start, end = max(a_host[0], b_host[0]), min(a_host[-1], b_host[-1])
    if start > end:
        return None
    # With the middles of gaps the sum of two bounds is straight between knots.
    middles = [h[:-1] + np.diff(h) // 2 for h in (a_host, b_host)]
    host = np.concatenate([a_host, b_host, *middles, [start, end]])
    host = host[(host >= start) & (host <= end)]
    device = np.unique(a.inverse(host + middle_a, fit_a.unit))
    on_b = a.line(device, fit_a.unit) - middle_a + middle_b
    bound = a.bound(device, fit_a.unit) + b.bound(
        b.inverse(on_b, fit_b.unit), fit_b.unit
    )
    # Rounding of knots to ticks and of two lines to ns.
    bound += fit_a.half_latencies[1] + fit_b.half_latencies[1] + 2
    growth = a.growth + b.growth
    return FitSegment(
        device, b.inverse_ns(on_b, fit_b.unit), bound, growth,
        min(a.reach_ns, b.reach_ns), a.base, max(a.ends, b.ends),
    )  # fmt: skip
