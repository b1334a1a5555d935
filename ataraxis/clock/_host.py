"""The clocks of hosts: monotonic time, wall time, offsets between hosts."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

now_ns = time.monotonic_ns
"""Return the monotonic time of this host, int ns (CLOCK_MONOTONIC)."""

BOOT_ID = "/proc/sys/kernel/random/boot_id"

_Times = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Anchor:
    """One instant read on both clocks of a host: wall time and monotonic time.

    Taken once per session, and each minute in a journal: wall time is adjusted,
    monotonic time is never set.

    Examples
    --------
    >>> anchor = Anchor(wall_ns=1_700_000_000 * 10**9, monotonic_ns=50)
    >>> anchor.to_wall_ns(51) - anchor.wall_ns
    1
    """

    wall_ns: int
    """Wall time, ns since 1970-01-01 UTC."""
    monotonic_ns: int
    """Monotonic time at that instant, ns."""
    host: str = ""
    """Name of the host."""
    boot_id: str = ""
    """Boot of the host: monotonic time restarts at each. Empty if unknown."""
    uncertainty_ns: int = 0
    """The two readings are of the same instant within this, ns."""

    @classmethod
    def take(cls, readings: int = 8) -> Anchor:
        """Read both clocks of this host.

        Parameters
        ----------
        readings : int, optional
            Number of tries; each reads the wall clock between two monotonic readings,
            and the closest pair is kept.

        Returns
        -------
        Anchor
            Its `uncertainty_ns` is usually below 1000.
        """
        import socket

        if readings < 1:
            raise ValueError(f"readings must be at least 1, got {readings}")
        taken = [(now_ns(), time.time_ns(), now_ns()) for _ in range(readings)]
        before, wall, after = min(taken, key=lambda reading: reading[2] - reading[0])
        return cls(
            wall_ns=wall,
            monotonic_ns=(before + after) // 2,
            host=socket.gethostname(),
            boot_id=boot_id(),
            uncertainty_ns=(after - before + 1) // 2,
        )

    @overload
    def to_wall_ns(self, monotonic_ns: int) -> int: ...
    @overload
    def to_wall_ns(self, monotonic_ns: _Times) -> _Times: ...
    def to_wall_ns(self, monotonic_ns: int | _Times) -> int | _Times:
        """Convert monotonic time to wall time.

        Parameters
        ----------
        monotonic_ns : int or ndarray of int64
            Monotonic times of the anchor's host and boot, ns, any shape.

        Returns
        -------
        int or ndarray of int64
            Wall times, ns since 1970-01-01 UTC, same shape; a copy.
        """
        return monotonic_ns + (self.wall_ns - self.monotonic_ns)

    def to_datetime64(self, monotonic_ns: int | _Times) -> Any:
        """Convert monotonic time to a datetime64 of wall time.

        Parameters
        ----------
        monotonic_ns : int or ndarray of int64
            Monotonic times of the anchor's host and boot, ns, any shape.

        Returns
        -------
        numpy.datetime64 or ndarray of datetime64[ns]
            UTC, same shape; a copy.

        Examples
        --------
        >>> Anchor(0, 10).to_datetime64(10)
        np.datetime64('1970-01-01T00:00:00.000000000')
        """
        wall = self.to_wall_ns(np.asarray(monotonic_ns, "i8"))
        return np.asarray(wall).astype("M8[ns]")[()]

    def to_monotonic_ns(self, wall_ns: int) -> int:
        """Convert wall time, ns since 1970-01-01 UTC, to monotonic time, ns."""
        return wall_ns - (self.wall_ns - self.monotonic_ns)


UNKNOWN_DRIFT = 1e-4
"""Largest difference of the rates of two clocks that were compared briefly: 100 ppm."""
WANDER = 2e-6
"""Largest change of a crystal's rate with temperature between measurements: 2 ppm."""
SLEW = 1e-16
"""A rate changes by this at most, per ns, and by `UNKNOWN_DRIFT` in total: 0.1 ppm a
second, as a board does that is switched on or carried into the cold."""
_SPAN_NS = 10 * 10**9


@dataclass(frozen=True)
class Offset:
    """How far another host's clock is ahead of this host's: recorded, never applied.

    The offset changes with `drift`. Between the first and the last measurement it is
    right within `bound_ns`; before and after, within `bound_at`, which grows with time.

    Notes
    -----
    The bound assumes that the clocks' rates differ by a constant during the
    measurement, and by `UNKNOWN_DRIFT` at most if that was short; and that they change
    by `SLEW` at most before and after it, as temperature does.

    References
    ----------
    .. [1] D. L. Mills, RFC 5905 (NTP version 4), section 8; LSL keeps the sample of the
       least delay in the same way.

    Examples
    --------
    >>> trips = [(100, 1105, 1106, 111), (200, 1240, 1241, 281)]
    >>> found = Offset.from_round_trips(trips)
    >>> found.offset_ns, found.bound_ns, found.measured_ns
    (1000, 5, 111)
    >>> found.bound_at(111), found.bound_at(111 + 60 * 10**9)
    (5, 6000005)
    """

    offset_ns: int
    """Remote time minus local time at `measured_ns`, ns."""
    bound_ns: int
    """Largest error during the measurement, ns."""
    measured_ns: int
    """Local monotonic time of the last measurement, ns."""
    host: str = ""
    """Name of the other host."""
    drift: float = 0.0
    """Growth of the offset, ns per ns: 20e-6 is 20 ppm."""
    growth: float = UNKNOWN_DRIFT
    """Growth of the error before and after the measurement, ns per ns."""
    span_ns: int = 0
    """Duration of the measurement, ns."""

    @classmethod
    def from_round_trips(
        cls, samples: Iterable[tuple[int, int, int, int]], host: str = ""
    ) -> Offset:
        """Estimate the offset from round trips.

        Parameters
        ----------
        samples : iterable of (t0, t1, t2, t3)
            Sent here, received there, answered there, received here; ns, each on the
            clock of its host. Or an int64 array of shape (n, 4).
        host : str, optional
            Name of the other host.

        Returns
        -------
        Offset
            A line through the half of the samples with the smallest delays, if these
            span 10 s or more; else the sample with the smallest delay.

        Raises
        ------
        ValueError
            No sample is possible: in each, an answer precedes its request.
        """
        kept: list[tuple[int, int, int]] = []
        for sample in samples:
            t0, t1, t2, t3 = (int(stamp) for stamp in sample)
            delay = (t3 - t0) - (t2 - t1)
            if t3 < t0 or t2 < t1 or delay < 0:
                continue
            kept.append((delay, ((t1 - t0) + (t2 - t3)) // 2, t3))
        if not kept:
            raise ValueError(
                "no usable round trip: each needs (t0, t1, t2, t3) with t0 <= t3,"
                " t1 <= t2 and a delay of 0 or more; exchange some first"
            )
        kept.sort(key=lambda trip: trip[0])
        better = kept[: (len(kept) + 1) // 2]
        last = max(trip[2] for trip in better)
        span = last - min(trip[2] for trip in better)
        if span >= _SPAN_NS and len(better) > 2:
            return cls._through(better, last, span, host)
        delay, offset, measured = kept[0]
        # Half the delay, rounded up, also covers the rounding of the offset.
        return cls(offset, (delay + 1) // 2, measured, host)

    @classmethod
    def _through(
        cls, trips: list[tuple[int, int, int]], last: int, span: int, host: str
    ) -> Offset:
        """Fit a line to offsets over time, by least squares."""
        first = trips[0][1]
        delays, offsets, times = (
            np.array(column, "f8")
            for column in zip(
                *((d, o - first, t - last) for d, o, t in trips), strict=True
            )
        )
        drift, at_last = np.polyfit(times, offsets, 1)
        away = np.abs(offsets - (drift * times + at_last))
        # The true offset is within half a delay of each sample. A line that is within
        # the bound at both ends is so between them, and its slope is at most twice the
        # bound over the span.
        bound = int(np.ceil((away + delays / 2).max())) + 1
        growth = min(UNKNOWN_DRIFT + abs(float(drift)), 2 * bound / span + WANDER)
        return cls(
            first + round(float(at_last)), bound, last, host,
            float(drift), growth, span,
        )  # fmt: skip

    def bound_at(self, local_ns: int) -> int:
        """Return the largest error of the offset at a local monotonic time, ns."""
        after = local_ns - self.measured_ns
        age = max(after, -after - self.span_ns, 0)
        # The rate that was measured changes with temperature, to what is possible.
        rate = self.growth + SLEW * (age + self.span_ns if self.span_ns else 0)
        most = max(self.growth, UNKNOWN_DRIFT + abs(self.drift))
        return self.bound_ns + math.ceil(min(rate, most) * age)

    def to_local_ns(self, remote_ns: int) -> int:
        """Convert a remote time to local time, ns; the error is within `bound_at`."""
        near = remote_ns - self.offset_ns
        if not self.drift:
            return near
        return near - round(self.drift / (1 + self.drift) * (near - self.measured_ns))

    def to_remote_ns(self, local_ns: int) -> int:
        """Convert a local time to remote time, ns; the error is within `bound_at`."""
        if not self.drift:
            return local_ns + self.offset_ns
        moved = round(self.drift * (local_ns - self.measured_ns))
        return local_ns + self.offset_ns + moved


def boottime() -> float:
    """Return the time since boot, s, which goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Return the identity of this boot; empty if unknown."""
    try:
        with open(BOOT_ID, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
