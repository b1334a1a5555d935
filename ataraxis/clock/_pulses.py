"""Fits from one pulse train that two clocks recorded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from ataraxis.clock._fit import ClockFit
from ataraxis.clock._host import SLEW, UNKNOWN_DRIFT
from ataraxis.clock._lines import Floats, line_through
from ataraxis.clock._unwrap import Times, ns_of_ticks, unit_of, unwrap
from ataraxis.errors import AmbiguousMatch

ASSUMPTION = (
    "both clocks record the same edges, each within one tick, and the intervals match"
    " at one shift only"
)
_FEWEST = 8
# Edges of a part of the train that is matched with all of the other recording.
_CHUNK = 60
_CHUNKS = 9
# At least this share of the edges must match.
_LEAST_SHARE = 0.5
# A shift fits as well as another if it matches so many of its edges, ...
_AS_MANY = 0.8
# ... with residuals that are at most so many times as large.
_AS_CLOSE = 2.0
# So many shifts of a part are tried, and the best of all through the whole train.
_TRIED = 24
_FOLLOWED = 6
# Edges on each side of a part that show which shifts are likely.
_NEAR = 200
_MINUTE = 60e9


def fit_pulses(
    device_edges: Any,
    other_edges_ns: Any,
    *,
    unit_ns: Any = 1,
    bits: int | None = None,
    other_unit_ns: Any = 1,
    coarse: ClockFit | None = None,
    delay_ms: tuple[float, float] = (0.0, 50.0),
    tolerance_ns: int | None = None,
    inverted_edges_ns: Any = None,
    clock: str = "host",
) -> ClockFit:
    """Fit a device's time to another clock by a pulse train that both recorded.

    Edges are matched by their intervals, which must not all be equal (barcodes, random
    intervals), unless `coarse` says which of the equal pulses is which. Lost, false
    and bounced edges, and a late start or early stop of either recording, are left out.

    Parameters
    ----------
    device_edges : array_like of int, shape (n,)
        Edges by the device's clock, ticks, increasing; as it counts if `bits` is given.
    other_edges_ns : array_like of int, shape (m,)
        Edges of the same polarity by the other clock, ns, increasing.
    unit_ns : int, float or Fraction, optional
        Nominal duration of a tick, ns.
    bits : int, optional
        Declared width of the device's counter; None: it never wraps.
    other_unit_ns : int, float or Fraction, optional
        Resolution of `other_edges_ns`, ns.
    coarse : ClockFit, optional
        The device's fit of arrivals at the other clock. It need not be absolute.
    delay_ms : tuple of float, optional
        Least and largest fixed delay of `coarse`, ms; its declared latency if it has
        one. Used to match pulses only, never in the bound.
    tolerance_ns : int, optional
        An edge matches within this, ns. Default: 50 us and two ticks of each clock.
    inverted_edges_ns : array_like of int, optional
        The opposite edges by the other clock, ns: used if only they match, as of a
        recording of inverted polarity.
    clock : str, optional
        Name of the other clock.

    Returns
    -------
    ClockFit
        `used` and `partners` are the indices of the matched edges; bounds are absolute,
        between the two recordings.

    Raises
    ------
    AmbiguousMatch
        Several shifts, or both polarities, fit equally well; it names them.
    ValueError
        Too few edges match, or an array is not of increasing integers.

    Notes
    -----
    The shift is the one that most pairs of edges share; then edges are followed in both
    directions, as a phase-locked loop does. The line is a local regression; of how many
    edges, is what predicts left-out edges best. If the other clock jumped, only the
    longer part is fitted, or none if less than half of the edges match.

    References
    ----------
    .. [1] W. S. Cleveland, Robust locally weighted regression, J. Am. Stat. Assoc. 74
       (1979).
    .. [2] M. Stone, Cross-validatory choice and assessment of statistical predictions,
       J. R. Stat. Soc. B 36 (1974).

    Examples
    --------
    >>> import numpy as np
    >>> times = np.cumsum(np.random.default_rng(1).integers(1, 9, 50)) * 10**8
    >>> fit = fit_pulses(times // 10**6, times[3:] + 7 * 10**9, unit_ns=10**6)
    >>> len(fit.used), fit.to_host_ns(int(times[9] // 10**6)) - int(times[9])
    (47, 7000000000)
    """
    unit, other_unit = unit_of(unit_ns), unit_of(other_unit_ns)
    made = unwrap(device_edges, bits)
    polarities = [("as declared", _edges_of(other_edges_ns, "other_edges_ns"))]
    if inverted_edges_ns is not None:
        inverted = _edges_of(inverted_edges_ns, "inverted_edges_ns")
        polarities.append(("inverted", inverted))
    search = _Search(unit, other_unit, tolerance_ns, coarse, _delays(coarse, delay_ms))
    found: list[tuple[str, list[_Match], Times]] = []
    refused: ValueError | None = None
    for name, edges in polarities:
        try:
            matches = [
                match
                for part, base in zip(made.slices(), made.bases, strict=True)
                for match in search.matches(made.ticks[part], edges, part.start, base)
            ]
            if not matches:
                raise ValueError(_too_few(len(made.ticks), len(edges)))
            found.append((name, matches, edges))
        except ValueError as error:
            if isinstance(error, AmbiguousMatch) or refused is None:
                refused = error
    if refused and (not found or isinstance(refused, AmbiguousMatch)):
        raise refused
    name, matches, edges = _of_one_polarity(found)
    assumption = ASSUMPTION
    if name == "inverted":
        assumption += "; the other recording's polarity is inverted"
    quantum = float(unit) + float(other_unit)
    segments = tuple(
        line_through(
            made.ticks[match.used], edges[match.partners], unit, quantum, match.base
        )
        for match in matches
    )
    used = np.concatenate([match.used for match in matches])
    partners = np.concatenate([match.partners for match in matches])
    fit = ClockFit("pulses", assumption, unit, segments, bits, clock,
                   ticks=made.ticks[used], used=used, partners=partners)  # fmt: skip
    return replace(fit, residuals=edges[partners] - fit.to_host_ns(made.ticks[used]))


def _edges_of(edges: Any, name: str) -> Times:
    given = np.asarray(edges)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise ValueError(
            f"{name} must be integers, ns, of shape (n,), got {given.dtype} of shape"
            f" {given.shape}: a double loses ns"
        )
    made: Times = given.astype("i8")
    if (np.diff(made) < 0).any():
        raise ValueError(
            f"{name} must increase, but edge {int(np.argmax(np.diff(made) < 0)) + 1} is"
            " before the one that precedes it: fit the parts between the jumps"
        )
    return made


def _delays(
    coarse: ClockFit | None, delay_ms: tuple[float, float]
) -> tuple[float, float]:
    """Return by how much `coarse.to_host_ns` may be too late, least and most, ns."""
    if coarse is None or coarse.is_absolute:
        return 0.0, 0.0
    low, high = (float(ms) * 1e6 for ms in delay_ms)
    if not low <= high:
        raise ValueError(f"delay_ms must be (min, max), got {delay_ms}")
    return low, high


def _too_few(ours: int, others: int) -> str:
    return (
        f"too few edges match: at least {_FEWEST} of {ours} and {others} must, at one"
        " shift. Check the polarity, unit_ns, and that both recorded the same signal"
    )


@dataclass(frozen=True, eq=False)
class _Match:
    """Edges of two recordings that belong together."""

    used: Times
    partners: Times
    shift: int
    """Other clock minus device at the device's first edge, ns."""
    scatter: float
    """Typical residual, ns."""
    share: float
    """Of the edges where both recorded."""
    base: int = 0

    @property
    def quality(self) -> float:
        """Many edges, few of them left out, small residuals."""
        return len(self.used) * self.share / self.scatter


def _of_one_polarity(
    found: list[tuple[str, list[_Match], Times]],
) -> tuple[str, list[_Match], Times]:
    """Return the polarity that fits much better; refuse if none does."""
    if len(found) == 1:
        return found[0]
    (a, b) = sorted(found, key=lambda f: -sum(len(m.used) for m in f[1]))
    many = [sum(len(m.used) for m in f[1]) for f in (a, b)]
    if many[1] < _AS_MANY * many[0]:
        return a
    scatters = [float(np.median([m.scatter for m in f[1]])) for f in (a, b)]
    if scatters[1] > _AS_CLOSE * scatters[0]:
        return a
    if scatters[0] > _AS_CLOSE * scatters[1]:
        return b
    shifts = [f[1][0].shift for f in (a, b)]
    raise _ambiguous(shifts, "both polarities match, as pulses of equal width do")


def _ambiguous(shifts: list[int], why: str) -> AmbiguousMatch:
    shown = ", ".join(f"{shift / 1e6:.3f}" for shift in shifts[:6])
    more = f" and {len(shifts) - 6} more" if len(shifts) > 6 else ""
    error = AmbiguousMatch(
        f"{why}: shifts of {shown}{more} ms fit equally well. Pass coarse= (a fit of"
        " arrivals) with a small delay_ms, or record intervals that differ (barcodes)"
    )
    error.candidates = tuple(shifts)
    return error


class _Search:
    """Matches edges of two clocks."""

    def __init__(
        self,
        unit: Fraction,
        other_unit: Fraction,
        tolerance_ns: int | None,
        coarse: ClockFit | None,
        delays: tuple[float, float],
    ) -> None:
        self._unit, self._coarse, self._delays = unit, coarse, delays
        self._quantum = float(unit) + float(other_unit)
        self._tolerance = float(tolerance_ns or 50_000 + 2 * self._quantum)

    def matches(
        self, ticks: Times, other: Times, first: int, base: int
    ) -> list[_Match]:
        """Return the matches of the edges between two resets, in order."""
        if len(ticks) < _FEWEST or len(other) < _FEWEST:
            return []
        # Doubles of ns from the first edge of each: exact to 1 us for a century.
        ours = ns_of_ticks(ticks - ticks[0], self._unit).astype("f8")
        others = (other - other[0]).astype("f8")
        start = int(other[0])
        train = _Train(ours, others, self._tolerance, self._quantum)
        # Parts near each shift show which are likely; these are followed to the ends.
        near: list[tuple[_Match, slice, float]] = []
        for chunk, lag in self._lags(ticks, train, start):
            match = train.match(chunk, lag, _NEAR)
            if match is not None:
                near.append((match, chunk, lag))
        if not near:
            return []
        most = max(match.quality for match, _, _ in near)
        # Of shifts that fit equally well there, those first that let most edges match.
        near.sort(
            key=lambda found: (
                found[0].quality < _AS_MANY * most,
                -train.overlap(found[2]),
                -found[0].quality,
            )
        )
        made: list[_Match] = []
        for match, chunk, lag in near:
            is_known = any(_is_same(match, other) for other in made)
            if is_known or match.quality < most / 4 or len(made) >= _FOLLOWED:
                continue
            whole = train.match(chunk, lag, len(ours))
            if whole is not None:
                made.append(whole)
        if not made:
            return []
        best = _best(made, start)
        if best.share < _LEAST_SHARE:
            return []
        return [replace(best, used=best.used + first, base=base)]

    # ---- which shift

    def _lags(
        self, ticks: Times, train: _Train, start: int
    ) -> list[tuple[slice, float]]:
        """Return shifts that fit parts of the train well, as (part, shift)."""
        ours, others = train.ours, train.others
        found: list[tuple[float, slice, float]] = []
        size = min(train.chunk, len(ours))
        for a in np.unique(np.linspace(0, len(ours) - size, _CHUNKS).astype(int)):
            chunk = slice(int(a), int(a) + size)
            low, high = self._window(ticks[chunk], ours[chunk], start)
            lags = (others[None, :] - ours[chunk, None]).ravel()
            lags = np.sort(lags[(lags >= low) & (lags <= high)])
            found += [(n, chunk, lag) for n, lag in self._peaks(lags, ours[chunk])]
        if not found:
            return []
        most = max(n for n, _, _ in found)
        found.sort(key=lambda candidate: -candidate[0])
        needed = max(0.5 * most, _FEWEST / 2)
        return [(c, lag) for n, c, lag in found if n >= needed][: 2 * _TRIED]

    def _window(self, ticks: Times, ours: Floats, start: int) -> tuple[float, float]:
        """Return the least and largest shift that the coarse clock allows, ns."""
        if self._coarse is None:
            return -np.inf, np.inf
        shifts = (self._coarse.to_host_ns(ticks) - start) - ours
        doubt = np.asarray(self._coarse.bound_at(ticks)) + self._tolerance
        low, high = self._delays
        return float((shifts - doubt).min() - high), float((shifts + doubt).max() - low)

    def _peaks(self, lags: Floats, ours: Floats) -> list[tuple[float, float]]:
        """Return the shifts that most pairs share, as (pairs, shift)."""
        if not len(lags):
            return []
        width = self._tolerance + UNKNOWN_DRIFT * float(ours[-1] - ours[0])
        count = np.searchsorted(lags, lags + width, "right") - np.arange(len(lags))
        peaks: list[tuple[float, float]] = []
        order = np.argsort(-count, kind="stable")
        least = max(0.4 * float(count[order[0]]), 3)
        taken = np.zeros(len(lags), bool)
        for i in order:
            if count[i] < least or len(peaks) >= _TRIED:
                break
            if not taken[i]:
                j = int(np.searchsorted(lags, lags[i] + width, "right"))
                peaks.append((float(count[i]), float(np.median(lags[i:j]))))
                near = np.searchsorted(lags, [lags[i] - width, lags[i] + 2 * width])
                taken[near[0] : near[1]] = True
        return peaks


class _Train:
    """Two recordings of a pulse train, ns from the first edge of each."""

    def __init__(
        self, ours: Floats, others: Floats, tolerance: float, quantum: float
    ) -> None:
        self.ours, self.others, self._quantum = ours, others, quantum
        usual = max(float(np.median(np.diff(ours))), 1.0)
        self.chunk = int(np.clip(_MINUTE / usual, 16, _CHUNK))
        self._recent = int(np.clip(_MINUTE / usual, 6, 32))
        self._step = self._recent // 2
        # The rate changes while the line is drawn on.
        turned = SLEW / 2 * (usual * (self._recent + self._step)) ** 2
        self._tolerance = tolerance + min(turned, usual / 8)

    def overlap(self, lag: float) -> float:
        """Return for how long both recorded if the shift is `lag`, ns."""
        ours, others = self.ours, self.others
        start = max(float(ours[0]) + lag, float(others[0]))
        return min(float(ours[-1]) + lag, float(others[-1])) - start

    def match(self, chunk: slice, lag: float, reach: int) -> _Match | None:
        """Match edges outwards from a part, following the drift; None if few match."""
        ours, others, tolerance = self.ours, self.others, self._tolerance
        span = float(ours[chunk.stop - 1] - ours[chunk.start])
        seed = np.arange(chunk.start, chunk.stop)
        used, partners = _nearest(
            ours, others, seed, (lag, 0.0, 0.0), tolerance + UNKNOWN_DRIFT * span
        )
        for within in (2 * tolerance, 2 * tolerance, tolerance):
            if len(used) < 4:
                return None
            line = _local(ours[used], others[partners])
            used, partners = _nearest(ours, others, seed, line, within)
        right = self._outwards(used, partners, chunk.stop, 1, reach)
        left = self._outwards(used, partners, chunk.start - 1, -1, reach)
        used = np.concatenate([left[0][::-1], used, right[0]]).astype("i8")
        partners = np.concatenate([left[1][::-1], partners, right[1]]).astype("i8")
        # An edge of the other recording belongs to one of ours.
        order = np.argsort(used, kind="stable")
        used, partners = used[order], partners[order]
        up = np.concatenate([[True], np.diff(partners) > 0])[: len(used)]
        used, partners = used[up], partners[up]
        if len(used) < _FEWEST:
            return None
        first, last = max(chunk.start - reach, 0), chunk.stop + reach
        return self._measured(used, partners, slice(first, last))

    def _outwards(
        self, used: Any, partners: Any, k: int, way: int, reach: int
    ) -> tuple[list[int], list[int]]:
        """Match steps of edges, each by a line through the ones before it."""
        ours, others, tolerance = self.ours, self.others, self._tolerance
        recent_x = ours[used][::way][-self._recent :]
        recent_y = others[partners][::way][-self._recent :]
        indices: list[int] = []
        found: list[int] = []
        end = min(max(k + way * reach, -1), len(ours))
        while len(recent_x) > 3 and (end - k) * way > 0:
            step = np.arange(k, end, way)[: self._step]
            line = _local(recent_x, recent_y)
            gap = abs(float(ours[step[0]] - recent_x[-1]))
            wide = min(SLEW / 2 * gap**2, 20 * tolerance) if gap > _MINUTE else 0.0
            a, b = _nearest(ours, others, np.sort(step), line, tolerance + wide)
            if len(a) > 3 and wide:
                off = others[b] - ours[a] - _value(line, ours[a])
                close = np.abs(off - np.median(off)) <= tolerance
                a, b = a[close], b[close]
            indices += a[::way].tolist()
            found += b[::way].tolist()
            recent_x = np.append(recent_x, ours[a[::way]])[-self._recent :]
            recent_y = np.append(recent_y, others[b[::way]])[-self._recent :]
            k += way * len(step)
        return indices, found

    def _measured(self, used: Any, partners: Any, part: slice) -> _Match:
        """Return a match with how well it fits."""
        ours, others = self.ours[part], self.others
        lag = others[partners] - self.ours[used]
        middle = np.abs(lag[1:-1] - (lag[2:] + lag[:-2]) / 2)
        scatter = float(np.percentile(middle, 80)) if len(middle) else 0.0
        # Edges in the time that both recorded, by the recording that has fewer.
        there = ours + np.interp(ours, self.ours[used], lag)
        slack = self._tolerance
        mine = (there >= others[0] - slack) & (there <= others[-1] + slack)
        theirs = (others >= there[0] - slack) & (others <= there[-1] + slack)
        share = len(used) / max(min(int(mine.sum()), int(theirs.sum())), 1)
        return _Match(used, partners, round(float(lag[0])),
                      max(scatter, self._quantum / 2), min(share, 1.0))  # fmt: skip


def _local(x: Floats, y: Floats) -> tuple[float, float, float]:
    """Return shift, rate and place of a robust line through shifts (Theil, Sen)."""
    if x[0] > x[-1]:  # of edges that are matched backwards
        x, y = x[::-1], y[::-1]
    lag, at = y - x, float(np.median(x))
    half = len(x) // 2
    if half < 2:
        return float(np.median(lag)), 0.0, at
    apart = np.maximum(x[half:] - x[: len(x) - half], 1)
    rate = float(np.median((lag[half:] - lag[: len(x) - half]) / apart))
    rate = min(max(rate, -2 * UNKNOWN_DRIFT), 2 * UNKNOWN_DRIFT)
    return float(np.median(lag - rate * (x - at))), rate, at


def _value(line: tuple[float, float, float], x: Floats) -> Floats:
    level, rate, at = line
    return level + rate * (x - at)


def _best(made: list[_Match], start: int) -> _Match:
    """Return the match that is much better than every other one; refuse if none is.

    Their shifts count from the first edges; `start` is added.
    """
    made = [replace(match, shift=match.shift + start) for match in made]
    made = sorted(made, key=lambda m: (-len(m.used), m.scatter))
    distinct: list[_Match] = []
    for match in made:
        if not any(_is_same(match, other) for other in distinct):
            distinct.append(match)
    best = max(distinct, key=lambda m: m.quality)
    equal = [
        m
        for m in distinct
        if m.share >= _AS_MANY * best.share
        and m.scatter <= _AS_CLOSE * best.scatter
        and len(m.used) >= min(len(best.used) / 2, 4 * _FEWEST)
    ]
    if len(equal) > 1:
        shifts = sorted((m.shift for m in equal), key=abs)
        raise _ambiguous(shifts, "the intervals of the pulses repeat")
    return best


def _is_same(a: _Match, b: _Match) -> bool:
    """Return whether most edges of the smaller match are matched equally."""
    common, i, j = np.intersect1d(a.used, b.used, return_indices=True)
    if not len(common):
        return False
    return bool(np.mean(a.partners[i] == b.partners[j]) > 0.5)


def _nearest(
    ours: Floats,
    others: Floats,
    which: Any,
    line: tuple[float, float, float],
    within: float,
) -> tuple[Any, Any]:
    """Match edges with the nearest ones, if each is the nearest of the other."""
    wanted = ours[which] + _value(line, ours[which])
    right = np.clip(np.searchsorted(others, wanted), 1, len(others) - 1)
    is_left = wanted - others[right - 1] <= others[right] - wanted
    partner = right - is_left
    off = np.abs(others[partner] - wanted)
    order = np.lexsort((off, partner))
    first = np.concatenate([[True], np.diff(partner[order]) > 0])
    chosen = np.sort(order[first])
    chosen = chosen[off[chosen] <= within]
    return which[chosen], partner[chosen]
