"""The clocks of other hosts: measured by round trips, published as a stream."""

from __future__ import annotations

import contextlib
from collections import deque
from dataclasses import dataclass

import numpy as np

from ataraxis.clock import UNKNOWN_DRIFT, Offset
from ataraxis.errors import AtaraxisError
from ataraxis.log.clock_table import BOOT, FIELDS, HOST, LOCAL, table_name
from ataraxis.shm.context import ContextLike
from ataraxis.stream import Producer

BURST_NS = 500_000_000
"""Round trips that begin within this time are one burst, ns."""
WINDOW_NS = 64 * 10**9
"""A line goes through the bursts of this time, ns."""
ROWS = 300
"""Rows that the ring of a published clock holds: some minutes."""
_MOST_EVENTS = 64
_Trip = tuple[int, int, int, int]


@dataclass(frozen=True)
class ClockJump:
    """A round trip that contradicts what was known: a clock jumped.

    A host was suspended, or restarted, or a machine that is emulated was paused.

    Examples
    --------
    >>> str(ClockJump("acq", 10**9, 2_500_000_000, 40_000))
    'the clock of acq jumped by 2.5 s (+-4e-05 s) against the clock here'
    """

    host: str
    """Name of the other host."""
    local_ns: int
    """Local monotonic time at which it was noticed, ns."""
    jump_ns: int
    """How much larger the offset is than expected, ns."""
    bound_ns: int
    """Largest error of `jump_ns`, ns."""

    def __str__(self) -> str:
        return (
            f"the clock of {self.host} jumped by {self.jump_ns / 1e9:.6g} s "
            f"(+-{self.bound_ns / 1e9:.3g} s) against the clock here"
        )


class HostClock:
    """How far the clock of another host is ahead, by round trips; without any I/O.

    Of each burst of trips the one of the least delay is kept, for 64 s, and a line goes
    through the better half of these. A trip that contradicts the line begins a new one.

    Parameters
    ----------
    host : str
        Name of the other host.
    boot_id : str, optional
        Its boot. After a restart of the host, make another clock.

    Notes
    -----
    The bound of an estimate covers delays of any asymmetry, and rates of the two clocks
    that differ by up to `UNKNOWN_DRIFT`. It cannot cover a jump that no trip has seen
    yet, nor one that is smaller than bound and half a round trip together.

    Examples
    --------
    >>> clock = HostClock("acq")
    >>> for second in range(20):
    ...     t0 = second * 10**9
    ...     there = t0 + 5_000 * 10**9 + 15_000
    ...     _ = clock.add(t0, there, there + 100, t0 + 30_100)
    >>> offset = clock.offset(19 * 10**9)
    >>> offset.host, abs(offset.offset_ns - 5_000 * 10**9) <= offset.bound_ns < 20_000
    ('acq', True)
    """

    def __init__(self, host: str, boot_id: str = "") -> None:
        self.host, self.boot_id = host, boot_id
        self._bursts: deque[_Trip] = deque()
        """The trip of the least delay of each burst."""
        self._began = 0
        """When the newest burst began, local ns."""
        self._is_fitted = True
        self._line: Offset | None = None
        """The newest line, or, before there is one, the trip of the least delay."""
        self._events: deque[ClockJump] = deque(maxlen=_MOST_EVENTS)

    @property
    def events(self) -> tuple[ClockJump, ...]:
        """The newest jumps, at most 64."""
        return tuple(self._events)

    def add(self, t0: int, t1: int, t2: int, t3: int) -> ClockJump | None:
        """Add a round trip, in the order of `t3`; return the jump that it shows.

        Parameters
        ----------
        t0, t3 : int
            Sent here, and received here, local monotonic ns.
        t1, t2 : int
            Received there, and answered there, monotonic ns of the other host.

        Returns
        -------
        ClockJump or None
            A trip whose answer precedes its request is left out.
        """
        if t3 < t0 or t2 < t1 or (t3 - t0) < (t2 - t1):
            return None
        # The clocks part by so much within a trip, and stamps are rounded.
        slack = int((t3 - t0) * UNKNOWN_DRIFT) + 2
        trip = (t0 - slack, t1, t2, t3 + slack)
        is_next = not self._bursts or t0 - self._began >= BURST_NS
        if is_next:
            self._fit()
        jump = self._jump(trip)
        if jump is not None:
            self._events.append(jump)
            self._bursts.clear()
            self._line, is_next = None, True
        if is_next:
            self._began = t0
            self._bursts.append(trip)
            while t3 - self._bursts[0][3] > WINDOW_NS:
                self._bursts.popleft()
        elif _delay(trip) <= _delay(self._bursts[-1]):
            self._bursts[-1] = trip
        self._is_fitted = False
        return jump

    @property
    def round_trip_ns(self) -> int | None:
        """The least round trip of the last 64 s, without the time there, ns."""
        return min(map(_delay, self._bursts), default=None)

    def offset(self, now_ns: int) -> Offset | None:
        """Return the estimate with the least bound at a local time; None: no trip yet.

        Parameters
        ----------
        now_ns : int
            Local monotonic time, ns. Use `Offset.bound_at` of the same time.
        """
        self._fit()
        line = self._line
        if line is None:
            return None
        # After a pause, or before there is a line, a newer trip may be better.
        trips = [self._bursts[-1]] if line.span_ns else self._bursts
        points = (Offset.from_round_trips([trip], self.host) for trip in trips)
        return min((line, *points), key=lambda one: one.bound_at(now_ns))

    def _fit(self) -> None:
        """Fit the line again, if a trip was added."""
        if self._is_fitted or not self._bursts:
            return
        self._is_fitted = True
        found = Offset.from_round_trips(self._bursts, self.host)
        # After a pause the window is short again: until then the old line goes on.
        if found.span_ns or self._line is None or not self._line.span_ns:
            self._line = found

    def _jump(self, trip: _Trip) -> ClockJump | None:
        """Return how far a trip is from what was known, if it contradicts that."""
        if self._line is None:
            return None
        now, own = trip[3], Offset.from_round_trips([trip])
        for known in (self._line, Offset.from_round_trips([self._bursts[-1]])):
            away = own.offset_ns - (known.to_remote_ns(now) - now)
            bound = own.bound_ns + known.bound_at(now)
            if abs(away) > bound:
                return ClockJump(self.host, now, away, bound)
        return None


def _delay(trip: _Trip) -> int:
    t0, t1, t2, t3 = trip
    return (t3 - t0) - (t2 - t1)


class ClockPublisher:
    """Publish the clock of another host as the stream ``clock.HOST`` of a context.

    Its rows are those of `ataraxis.log.clock_table`. No reader holds it up; it is gone
    when the publisher is closed. A stream that a dead publisher left is replaced.

    Parameters
    ----------
    context : Context, str, Path or None
        The directory of the stream.
    host : str
        Name of the other host.
    local : str, optional
        Name of this host, by which ``clock=`` of readers finds it.

    Examples
    --------
    >>> from ataraxis import Consumer
    >>> from ataraxis.clock import now_ns
    >>> clock, publisher = HostClock("doc_acq"), ClockPublisher(None, "doc_acq")
    >>> now = now_ns()
    >>> _ = clock.add(now, now + 1005, now + 1006, now + 11)
    >>> publisher.publish(clock.offset(now), now)
    True
    >>> reader = Consumer("clock.doc_acq")
    >>> with reader.receive() as row:
    ...     int(row.array[1])
    1000
    >>> reader.close(); publisher.close()
    """

    def __init__(self, context: ContextLike, host: str, local: str = "") -> None:
        self.host, self.name, self._local = host, table_name(host), local
        self._context, self._boot_id = context, ""
        self._producer: Producer | None = None
        self.error = ""
        """Why the last estimate was not published; empty if it was."""

    def publish(self, offset: Offset | None, now_ns: int, boot_id: str = "") -> bool:
        """Publish an estimate, as of a local time; return whether it was.

        Never waits, and never raises for a stream that cannot be made or takes nothing:
        see `error`.

        Parameters
        ----------
        offset : Offset or None
            By `HostClock.offset`; None publishes nothing.
        now_ns : int
            Local monotonic time of the row, ns.
        boot_id : str, optional
            Boot of the other host. Another one than before begins another stream of the
            name: the clock has restarted.
        """
        if offset is None:
            return False
        row = np.array(
            [
                now_ns, offset.to_remote_ns(now_ns) - now_ns, offset.bound_at(now_ns),
                round(offset.drift * 1e9),
            ],
            "i8",
        )  # fmt: skip
        try:
            if self._producer is None or boot_id != self._boot_id:
                self._begin(boot_id)
            assert self._producer is not None
            is_sent = bool(self._producer.send(row, time_ns=now_ns))
        except (AtaraxisError, OSError) as error:
            self.error = str(error)
            return False
        self.error = "" if is_sent else "a reader of its stream holds the whole ring"
        return is_sent

    def _begin(self, boot_id: str) -> None:
        self.close()
        self._producer = Producer(
            self.name, shape=(len(FIELDS),), dtype="i8", dims=("field",),
            coords={"field": list(FIELDS)}, buffer_count=ROWS, context=self._context,
            on_full="drop_newest", join_timeout=0.0,
            attrs={
                "long_name": f"clock of {self.host} minus the clock of this host",
                HOST: self.host, BOOT: boot_id, LOCAL: self._local,
            },
        )  # fmt: skip
        self._boot_id = boot_id

    def close(self) -> None:
        """End the stream, and remove it; a second call does nothing."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with contextlib.suppress(AtaraxisError, OSError):
                producer.unlink()
