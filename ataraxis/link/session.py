"""`LinkSession`: one end of a channel; who is there, whether it lives, what time.

It does no I/O and reads no clock: `now` is the host's monotonic time, s, and messages
are returned. The first message of both sides is `Hello`. A side that has sent nothing,
or heard nothing, for `BEAT_S` sends a `Beat`, which the other side returns; so each
beat is also a round trip of the two clocks. A side that has heard nothing for `DEAD_S`
closes the channel, whatever the carrier says.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from ataraxis.errors import BadMessage
from ataraxis.link.messages import VERSION, Beat, Hello, LinkMessage, Refuse

BEAT_S, CALM_BEAT_S, SERVED_BEAT_S = 0.5, 1.4, 2.0
"""Silence after which a side beats: on a control channel, and on one of a mirror. The
side that serves a mirror is later: it need not ask while the other one does."""
SUSPECT_S = 2.0
DEAD_S = 3.0
BURST = 8
BURST_S = 1.0
"""A channel with `is_timing` sends so many beats in a row each second."""
PAUSE_S, MOST_PAUSE_S = 0.05, 1.0


class RoundTrip(NamedTuple):
    """Times of a beat and its answer, ns: of this host, the other twice, this host."""

    sent: int
    arrived: int
    returned: int
    received: int


class LinkSession:
    """One end of a channel to another agent.

    Parameters
    ----------
    me : Hello
        What this side says of itself.
    peer : str
        Name of the other host, proven by its certificate.
    now : float
        Monotonic time, s.
    is_timing : bool, optional
        Whether this side sends bursts of beats, for the clock of the other host.
    beat_s : float, optional
        Silence after which it sends a beat, s.

    Attributes
    ----------
    hello : Hello or None
        What the other side said of itself; None before it did.
    proven : int
        The newest number of `ask` whose beat has come back, ns: the other side has
        heard this one since then.
    refusal : str
        Why the channel must be closed, '' if it need not: send what `due` returns and
        close it.

    Examples
    --------
    >>> a = LinkSession(Hello("rig", "acq", "b1", "a1"), "gpu", now=0.0)
    >>> b = LinkSession(Hello("rig", "gpu", "b2", "a2"), "acq", now=0.0)
    >>> for message in a.due(0.0):
    ...     _ = b.take(message, now=0.1)
    >>> b.is_open, b.hello.host, a.is_open
    (True, 'acq', False)
    """

    def __init__(
        self,
        me: Hello,
        peer: str,
        now: float,
        *,
        is_timing: bool = False,
        beat_s: float = BEAT_S,
    ) -> None:
        self.me, self.peer, self.is_timing = me, peer, is_timing
        self.beat_s = beat_s
        self.hello: Hello | None = None
        self.refusal = ""
        self._queue: list[LinkMessage] = [me]
        self._heard = self._said = now
        self._asked = self._burst_at = now
        self._left = BURST if is_timing else 0
        self._waits: int | None = None
        self.proven = 0
        self._trips: list[RoundTrip] = []

    # ---- what happens

    def received(self, nbytes: int, now: float) -> None:
        """Note that bytes of any kind have arrived."""
        if nbytes > 0:
            self._heard = max(self._heard, now)

    def sent(self, nbytes: int, now: float) -> None:
        """Note that bytes of any kind were sent."""
        if nbytes > 0:
            self._said = max(self._said, now)

    def take(self, message: LinkMessage, now: float) -> bool:
        """Take a message; return whether it was of the session.

        Other messages, and the frames of streams, are for the outlet or the inlet: only
        after the `Hello` of the other side.

        Raises
        ------
        BadMessage
            The first message is not a `Hello`, or a later one is: close the channel.
        """
        self.received(1, now)
        if self.hello is None:
            if isinstance(message, Refuse):
                self._refuse(f"host {self.peer!r} refuses: {message.why}")
                return True
            if not isinstance(message, Hello):
                raise BadMessage(
                    f"host {self.peer!r} must begin with 'hello', and sent "
                    f"{type(message).__name__}"
                )
            self._greet(message)
            return True
        match message:
            case Hello():
                raise BadMessage(f"host {self.peer!r} said 'hello' twice")
            case Refuse():
                self._refuse(f"host {self.peer!r} refuses: {message.why}")
            case Beat():
                self._take_beat(message, now)
            case _:
                return False
        return True

    def _greet(self, hello: Hello) -> None:
        self.hello = hello
        why = ""
        if hello.version != VERSION:
            why = (
                f"its link has version {hello.version}, this host has {VERSION}: "
                "install one version of ataraxis on both"
            )
        elif hello.lab != self.me.lab:
            why = (
                f"it belongs to lab {hello.lab!r}, this host to {self.me.lab!r}: the "
                "hosts of a link need one hosts.yaml"
            )
        elif hello.host != self.peer:
            why = (
                f"it calls itself {hello.host!r}, but its certificate is of "
                f"{self.peer!r}: give it the folder that was made for it"
            )
        elif hello.agent == self.me.agent:
            why = "it is this very agent: its address in hosts.yaml is of this host"
        if why:
            self._queue.append(Refuse(f"refused by {self.me.host!r}: {why}"))
            self._refuse(f"host {self.peer!r} was refused: {why}")

    def _refuse(self, why: str) -> None:
        self.refusal = self.refusal or why

    def _take_beat(self, beat: Beat, now: float) -> None:
        at = _ns(now)
        if not beat.returned:
            # At most one is kept for each, so that a flood of beats costs no memory.
            if len(self._queue) < 2 * BURST:
                self._queue.append(Beat(beat.sent, at, at))
            return
        if self.proven < beat.sent <= _ns(self._asked):
            self.proven = beat.sent
        if beat.sent != self._waits:
            return  # of an earlier question, or of none
        self._waits = None
        if beat.arrived <= beat.returned and beat.sent <= at:
            self._trips.append(RoundTrip(beat.sent, beat.arrived, beat.returned, at))
            del self._trips[: -8 * BURST]

    # ---- what to do

    def due(self, now: float) -> list[LinkMessage]:
        """Return the messages to send now; they count as sent."""
        messages, self._queue = self._queue, []
        for k, message in enumerate(messages):
            if isinstance(message, Beat) and message.returned:
                messages[k] = Beat(message.sent, message.arrived, _ns(now))
        if self.is_open and self._is_beat_due(now):
            self._asked = now
            self._waits = _ns(now)
            messages.append(Beat(self._waits))
        if messages:
            self._said = now
        return messages

    def ask(self, now: float) -> int:
        """Send a beat with the next `due`, whatever else is sent; return its number."""
        self._asked = now
        self._waits = _ns(now)
        self._queue.append(Beat(self._waits))
        return self._waits

    def _is_beat_due(self, now: float) -> bool:
        if self.is_timing:
            if now - self._burst_at >= BURST_S:
                self._burst_at, self._left = now, BURST
            if self._left and (self._waits is None or now - self._asked >= BEAT_S):
                self._left -= 1
                return True
        return now - self._asked >= self.beat_s and (
            now - self._said >= self.beat_s or now - self._heard >= self.beat_s
        )

    def next_wake(self, now: float) -> float:
        """Return when `due` or `is_dead` may change without a message, s."""
        if self._queue or self.refusal:
            return now
        at = self._heard + DEAD_S
        if self.is_open:
            quiet = min(self._said, self._heard) + self.beat_s
            at = min(at, max(self._asked + self.beat_s, quiet))
            if self.is_timing:
                at = min(at, self._burst_at + BURST_S)
                if self._left and self._waits is None:
                    at = now
        return max(at, now)

    def round_trips(self) -> list[RoundTrip]:
        """Return the round trips since the last call."""
        trips, self._trips = self._trips, []
        return trips

    @property
    def is_open(self) -> bool:
        """Whether the other side said `Hello`, and was not refused."""
        return self.hello is not None and not self.refusal

    def is_dead(self, now: float) -> bool:
        """Whether the channel must be closed: silence of 3 s, or a refusal."""
        return bool(self.refusal) or now - self._heard >= DEAD_S

    def state(self, now: float) -> Literal["connecting", "open", "suspect", "dead"]:
        """Return how the other side is."""
        if self.is_dead(now):
            return "dead"
        if not self.is_open:
            return "connecting"
        return "suspect" if now - self._heard >= SUSPECT_S else "open"


class Backoff:
    """When to dial again: after 50 ms, then after pauses that double, up to 1 s.

    Examples
    --------
    >>> backoff = Backoff()
    >>> [backoff.failed(0.0) for _ in range(6)]
    [0.05, 0.1, 0.2, 0.4, 0.8, 1.0]
    >>> backoff.succeeded()
    >>> backoff.failed(9.0)
    9.05
    """

    def __init__(self) -> None:
        self._pause = PAUSE_S

    def failed(self, now: float) -> float:
        """Note a failure; return when to try again, s."""
        pause = self._pause
        self._pause = min(2 * pause, MOST_PAUSE_S)
        return now + pause

    def succeeded(self) -> None:
        """Note that the other side answered: the next pause is the shortest."""
        self._pause = PAUSE_S


def _ns(now: float) -> int:
    return max(round(now * 1e9), 1)
