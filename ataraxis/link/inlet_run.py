"""Thread of an inlet: it moves what arrives on a channel into a ring of this host.

One thread a mirror dials, receives into one large buffer, publishes from it, and sends
acknowledgements. If the channel breaks it dials again, and asks for the frame after the
last one that is in the ring.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ataraxis._kernels import snapshot
from ataraxis._kernels.link import FULL, OK, TORN, BufferToRing
from ataraxis.errors import (
    BadMessage,
    LayoutError,
    SegmentNotFound,
)
from ataraxis.labels import Labels
from ataraxis.link.carrier import NAME_BYTES, Carrier
from ataraxis.link.conversation import Conversation
from ataraxis.link.inlet import InletStatistics, StreamInlet
from ataraxis.link.messages import FramesLost, Hello, Offer, StreamEnd, is_data
from ataraxis.link.session import CALM_BEAT_S, Backoff, LinkSession
from ataraxis.shm.context import Context
from ataraxis.shm.header import Kind
from ataraxis.shm.segment import Segment
from ataraxis.shm.thread import Thread
from ataraxis.stream import Producer
from ataraxis.stream.endpoint import RESUMABLE, SYNC, TYPED

MIRROR = "mirror "
"""Begins the name of a mirror's channel."""
CLOCK, ORIGIN, SHARED = "clock", "origin", "origin_is_shared"
"""Attributes of a mirror: whose clock its stamps are of, the original's id, and that
several producers share the original: slots that they skip have numbers."""
DIAL_S = 3.0
_FULL_S = 0.05
_TURN_S = 0.1
"""A frame may arrive for so long before acknowledgements and beats have their turn."""
_HOLD_S = 0.02
_RECORDED_S = 0.05
_JOIN_S = 1.0
_SMALL = 4096
_BUFFER_BYTES = 1 << 20

Report = Callable[[str], None]


@dataclass(frozen=True)
class MirrorWish:
    """Which stream is mirrored here, and how."""

    stream: str
    """Its name on the other host."""
    host: str
    """The other host."""
    name: str
    """Its name here."""
    policy: Literal["lossless", "lossy", "latest"] = "lossless"
    on_spool_full: Literal["wait", "lose"] = "wait"
    acknowledge: Literal["ring", "recorded"] = "ring"
    hold: bool = True
    """Whether a ring full of frames waits for the first reader that gates."""


class MirroredRing(BufferToRing):
    """A mirror's ring; it takes one ring full of frames until a reader gates.

    `producer` is closed by `finish` or `leave`.
    """

    def __init__(self, producer: Producer, *, holds: bool) -> None:
        super().__init__(producer, producer.last_sent_iteration)
        self._producer = producer
        self._begun = self.next
        self._holds = holds
        self._read_at = 0.0
        self._holes: deque[tuple[int, int]] = deque()
        """Numbers without a frame here: after how many frames, and how many."""

    @property
    def is_holding(self) -> bool:
        """Whether it waits for a reader that gates before it takes more."""
        if not self._holds:
            return False
        now = time.monotonic()
        if now - self._read_at >= _HOLD_S:
            self._read_at = now
            readers = self._producer.statistics()
            self._holds = not (
                any(reader.is_gating for reader in readers.readers) or readers.detached
            )
        return self._holds

    def write(self, buffer: Any, start: int, stop: int) -> tuple[int, int]:
        """Publish whole frames without waiting; see `BufferToRing.write`."""
        if not self.is_holding:
            return super().write(buffer, start, stop)
        left = self._producer.buffer_count - (self.next - self._begun)
        if left <= 0:
            return start, FULL
        at = start
        while left and stop - at >= 64:
            at += 64 + int.from_bytes(buffer[at + 8 : at + 16], "little")
            left -= 1
        end, status = super().write(buffer, start, min(at, stop))
        is_cut = left == 0 and status == OK and end == at < stop
        return end, FULL if is_cut else status

    def recorded(self) -> int | None:
        """Return the number before which durable readers have released all frames.

        None: there is no durable reader. 0: not known, as a reader still holds frames
        that an earlier agent published.
        """
        readers = self._producer.statistics().readers
        lags = [reader.lag for reader in readers if reader.is_durable]
        if not lags:
            return None
        lag, written, last = max(lags), self.frames, self.next
        while self._holes and self._holes[0][0] < written - self._producer.buffer_count:
            self._holes.popleft()  # no reader is so far behind
        if lag > written:
            return 0
        # Frames lie one behind the other in the ring, whatever their numbers are.
        return last - lag - sum(n for at, n in self._holes if at > written - lag)

    def lose(self, first: int, count: int) -> None:
        """Pass over numbers that are lost; see `BufferToRing.lose`."""
        super().lose(first, count)
        self._holes.append((self.frames, count))

    def skip(self, first: int, count: int) -> None:
        """Pass over numbers that never had a frame; see `BufferToRing.skip`."""
        super().skip(first, count)
        self._holes.append((self.frames, count))

    def finish(self) -> None:
        """End the stream: its readers learn of it after the last frame."""
        self._producer.end()
        self._producer.close()

    def remove(self) -> None:
        """End the stream and take its name away, but for durable readers of it."""
        found = self._producer.statistics()
        if found.detached or any(reader.is_durable for reader in found.readers):
            self.finish()
        else:
            self._producer.unlink()

    def leave(self) -> None:
        """Leave the stream as it is: readers wait for the next agent."""
        self._producer.leave()


@dataclass
class EndedRing:
    """What is known of a ring that has ended: it takes nothing; as `MirrorRing`."""

    next: int
    """Number after its last frame."""
    repeated: int = 0
    fault: str = "its stream has ended"

    def write(self, buffer: Any, start: int, stop: int) -> tuple[int, int]:
        """Refuse every frame."""
        return start, TORN

    def lose(self, first: int, count: int) -> None:
        """Pass over nothing."""

    def skip(self, first: int, count: int) -> None:
        """Pass over nothing."""

    def account(self, refused: int, gaps: int, stalled_ns: int) -> None:
        """Note nothing."""


class MirrorRings:
    """Makes and ends the rings of one mirror; `MirrorHost` of its inlet.

    Parameters
    ----------
    wish : MirrorWish
        What is mirrored.
    context : Context
        Where the rings are made.
    """

    def __init__(self, wish: MirrorWish, context: Context) -> None:
        self.wish, self.context = wish, context
        self.boot = ""
        """Boot of the other host: its clock."""
        self.ring: MirroredRing | None = None
        self.ends = 0
        """How many streams have ended."""
        self.ended: tuple[str, int] | None = None
        """Id of the last stream that ended, and the number after its last frame."""
        self.on_end: Callable[[], object] = lambda: None
        """Called before a ring is ended, to remember `ended`."""
        self._origin = ""
        self.slot_bytes = 0

    def resume(self) -> tuple[MirroredRing | EndedRing, str] | None:
        """Join the ring that a dead agent left; return it and the stream's id.

        One whose stream has ended is only looked at.
        """
        try:
            segment = Segment.attach(
                self.wish.name, kind=Kind.STREAM, context=self.context
            )
        except (SegmentNotFound, LayoutError):
            return None
        labels, part = segment.labels, segment.participant
        slots, slot_bytes, flags = snapshot.geometry(part)
        origin = labels.attrs.get(ORIGIN)
        clock = str(labels.attrs.get(CLOCK, ""))
        is_ours = isinstance(origin, str) and clock.startswith(f"{self.wish.host}/")
        is_over, after = snapshot.is_over(part), snapshot.words(part)[1]
        del segment, part
        if not is_ours or not flags & RESUMABLE:
            return None
        assert isinstance(origin, str)
        self._origin = origin
        if is_over:
            return EndedRing(after), origin
        producer = self._made(labels, flags, slots, slot_bytes, 0)
        self.ring = MirroredRing(producer, holds=False)
        return self.ring, origin

    def begin(self, offer: Offer) -> MirroredRing:
        """Make the ring of a stream, with its labels."""
        try:
            described = json.loads(offer.labels)
            labels = Labels.from_json(json.dumps(described["labels"]).encode())
            flags = TYPED * bool(described["typed"]) | SYNC * bool(described["sync"])
        except (ValueError, TypeError, KeyError) as error:
            raise BadMessage(f"labels of {offer.stream!r}: {error}") from None
        if not 0 < offer.slots < 1 << 31:
            raise BadMessage(f"{offer.stream!r} has {offer.slots} slots")
        attrs = {
            **labels.attrs, ORIGIN: offer.stream_id,
            CLOCK: labels.attrs.get(CLOCK, f"{self.wish.host}/{self.boot}"),
            **({SHARED: True} if described.get("shared") else {}),
        }  # fmt: skip
        labels = Labels(
            labels.dtype, labels.shape, labels.dims, labels.coords, attrs, labels.name
        )
        producer = self._made(labels, flags, offer.slots, offer.slot_bytes, offer.first)
        self._origin = offer.stream_id
        holds = self.wish.hold and self.wish.policy == "lossless"
        self.ring = MirroredRing(producer, holds=holds)
        return self.ring

    def _made(
        self, labels: Labels, flags: int, slots: int, slot_bytes: int, first: int
    ) -> Producer:
        self.slot_bytes = slot_bytes
        typed: dict[str, Any] = {}
        if flags & TYPED:
            typed = {
                "shape": labels.shape, "dtype": labels.dtype, "dims": labels.dims,
                "coords": labels.coords,
            }  # fmt: skip
        return Producer(
            self.wish.name, slot_bytes, slots, bool(flags & SYNC),
            context=self.context, attrs=labels.attrs, resume=True,
            first_sequence=first, join_timeout=_JOIN_S, **typed,
        )  # fmt: skip

    def end(self, end: StreamEnd) -> None:
        """End the ring."""
        ring = self.ring
        self.ended = self._origin, end.next
        self.on_end()  # before the end: of an agent that is killed here, the ring tells
        self.ring = None
        self.ends += 1
        if ring is not None:
            ring.finish()

    def close(self, *, is_final: bool) -> None:
        """Leave the ring; if final, end it, and keep nothing for later readers."""
        ring, self.ring = self.ring, None
        if ring is None:
            return
        if is_final:
            ring.remove()
        else:
            ring.leave()


class InletRun:
    """One mirror on this host, until it is closed.

    Parameters
    ----------
    wish : MirrorWish
        What is mirrored.
    me : Hello
        What this agent says of itself.
    carrier : Carrier
        Dials the other host.
    address : str
        Of the other host.
    context : Context
        Where the stream is made.
    report : callable
        Called with a line of text when the state changes.
    on_end : callable
        Called before the stream here is ended: `ended` has what a later agent needs.
    is_restored : bool, optional
        Whether an earlier agent had the mirror: its ring is resumed.
    ended : tuple of (str, int), optional
        What that agent's `ended` was: that stream is not received once more.
    """

    def __init__(
        self,
        wish: MirrorWish,
        me: Hello,
        carrier: Carrier,
        address: str,
        context: Context,
        report: Report,
        *,
        on_end: Callable[[], object],
        is_restored: bool = False,
        ended: tuple[str, int] | None = None,
    ) -> None:
        self.wish, self.address = wish, address
        self._is_restored = is_restored
        self._me, self._carrier, self._report = me, carrier, report
        self._rings = MirrorRings(wish, context)
        self._rings.ended, self._rings.on_end = ended, on_end
        self._inlet = StreamInlet(
            self._rings, wish.stream, wish.name, policy=wish.policy,
            on_spool_full=wish.on_spool_full,
            is_recorded=wish.acknowledge == "recorded",
        )  # fmt: skip
        self._talk: Conversation | None = None
        self._is_closed = False
        self._wake = threading.Event()
        self._changed = threading.Condition()
        self._state = "connecting"
        self._since = time.monotonic()
        self._arrived_at = time.monotonic()
        self._recorded_at = 0.0
        self.problem = ""
        """What failed last; '' while frames flow."""
        self._thread = Thread(self._run, f"ataraxis-mirror-{wish.name}")
        self._thread.start()

    # ---- for other threads

    @property
    def state(self) -> str:
        """'connecting', 'flowing', 'spooling', 'disconnected', 'ended' or 'lost'."""
        return self._state

    @property
    def since_s(self) -> float:
        """For how long it has been in this state, s."""
        return time.monotonic() - self._since

    @property
    def is_here(self) -> bool:
        """Whether the stream exists here, and has not ended."""
        return self._rings.ring is not None

    @property
    def ended(self) -> tuple[str, int] | None:
        """Id of the last stream that ended, and the number after its last frame."""
        return self._rings.ended

    @property
    def ends(self) -> int:
        """How many streams of the name have ended since this object was made."""
        return self._rings.ends

    @property
    def is_connected(self) -> bool:
        """Whether the other host answers."""
        talk = self._talk
        return talk is not None and talk.session.is_open

    @property
    def behind_s(self) -> float:
        """How long ago a frame came, if frames are missing, s; else 0."""
        if not self._inlet.behind:
            return 0.0
        return time.monotonic() - self._arrived_at

    def statistics(self) -> InletStatistics:
        """Return the totals since this object was made."""
        return self._inlet.statistics()

    def wait(self, is_done: Callable[[InletRun], bool], timeout: float) -> bool:
        """Wait until something holds; False after `timeout`, s."""
        with self._changed:
            return self._changed.wait_for(lambda: is_done(self), timeout)

    def close(self, *, is_final: bool) -> None:
        """End the thread; if final, also the stream here, else it can be resumed."""
        self._is_closed = True
        self._wake.set()
        if (talk := self._talk) is not None:
            talk.close()
        self._thread.join(DIAL_S + 2)
        self._rings.close(is_final=is_final)
        self._notify()

    # ---- the thread

    def _run(self) -> None:
        backoff = Backoff()
        try:
            if self._is_restored:
                self._resume()
        except Exception as error:  # told, and the thread goes on
            self._fail(f"the ring that is here cannot be resumed: {error}")
        while not self._is_closed and self._inlet.state != "lost":
            try:
                self._talk_once(backoff)
            except Exception as error:  # of this mirror alone: told, and tried again
                self._fail(str(error) or repr(error))
            self._inlet.lost_link(time.monotonic())
            self._look()
            if not self._is_closed:
                now = time.monotonic()
                self._wake.wait(backoff.failed(now) - now)

    def _resume(self) -> None:
        """Go on where an earlier agent was."""
        found, ended = self._rings.resume(), self._rings.ended
        if found is None and ended is not None:
            found = EndedRing(ended[1]), ended[0]
        if found is not None:
            has_ended = isinstance(found[0], EndedRing)
            self._rings.ends += has_ended
            self._inlet.resume(*found, has_ended=has_ended)

    def _fail(self, problem: str) -> None:
        if self._is_closed:
            return
        if problem != self.problem:
            self._report(f"mirror {self.wish.name}: {problem}")
        self.problem = problem

    def _talk_once(self, backoff: Backoff) -> None:
        """Dial, and receive until the channel ends."""
        channel = self._carrier.dial(
            self.address, self.wish.host, _channel_name(self.wish.name), DIAL_S,
            priority=0 < self._rings.slot_bytes <= _SMALL,
        )  # fmt: skip
        session = LinkSession(
            self._me, self.wish.host, time.monotonic(), beat_s=CALM_BEAT_S
        )
        talk = Conversation(channel, session, _BUFFER_BYTES)
        try:
            early = talk.greet(DIAL_S)
            assert session.hello is not None
            self._rings.boot = session.hello.boot
            self._talk = talk
            if self._is_closed:
                return
            talk.send(self._inlet.want(time.monotonic()))
            for message in early:
                self._inlet.take(message, time.monotonic())
            self._receive(talk, backoff)
        finally:
            self._talk = None
            talk.close()

    def _receive(self, talk: Conversation, backoff: Backoff) -> None:
        inlet, is_calm = self._inlet, False
        while not self._is_closed:
            now = time.monotonic()
            is_full = self._publish(talk, now)
            self._look()
            if inlet.is_recorded and now - self._recorded_at >= _RECORDED_S:
                self._recorded_at = now
                ring = self._rings.ring
                if ring is not None and (until := ring.recorded()) is not None:
                    inlet.recorded(until)
            ack = inlet.ack_due(now, is_calm=is_calm or is_full)
            if ack is None:
                talk.send()
            else:
                talk.send(ack)
                if ack.has_ended:
                    talk.send(inlet.want(now))  # the next stream of the name
                    self._look()
            if inlet.state == "flowing":
                backoff.succeeded()
                self.problem = ""
            pause = min(talk.wait_time(now), max(inlet.next_wake(now) - now, 0))
            ring = self._rings.ring
            if is_full and ring is not None:
                if ring.is_holding:
                    pause = min(pause, _HOLD_S)
                else:
                    ring.wait(min(pause, _FULL_S))
                    pause = 0.0
                if talk.is_full:
                    if ring.is_holding:
                        self._wake.wait(pause)
                    continue
            elif inlet.is_recorded:
                pause = min(pause, _RECORDED_S)
            is_held = inlet.is_ack_held
            found = talk.receive(0.0 if is_held else pause)
            is_calm = is_held and not found
            while found and talk.lacks and time.monotonic() - now < _TURN_S:
                found = talk.receive(_FULL_S)

    def _publish(self, talk: Conversation, now: float) -> bool:
        """Publish what has arrived; return whether the ring is full."""
        inlet = self._inlet
        while talk.start < talk.stop:
            before = talk.start
            if is_data(talk.buffer, talk.start, talk.stop):
                at, status = inlet.publish(talk.buffer, talk.start, talk.stop, now)
                talk.start = at
                if at > before:
                    self._arrived_at = now
                if status == FULL:
                    return True
                if status == OK:
                    return False
                if at == before:
                    raise BadMessage(f"{self.wish.host} sent a frame before its offer")
            for message in talk.messages(has_frames=True):
                if not inlet.take(message, now):
                    raise BadMessage(f"unexpected {type(message).__name__}")
                if isinstance(message, FramesLost) and not message.is_skipped:
                    self._report(
                        f"mirror {self.wish.name}: {message.count} frames from "
                        f"{message.first} on are lost: {message.why}"
                    )
                if isinstance(message, Offer):
                    talk.grow(self._rings.slot_bytes + _SMALL + _BUFFER_BYTES)
            if talk.start == before:
                return False
        return False

    def _look(self) -> None:
        """Tell waiting threads of a new state."""
        state = self._inlet.state
        if state in ("connecting", "disconnected") and self._inlet.end is not None:
            state = "ended" if state == "connecting" else state
        if state != self._state or self.is_here > self._told_here:
            if state != self._state:
                self._state, self._since = state, time.monotonic()
            self._told_here = self.is_here
            self._notify()

    _told_here = False

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()


def _channel_name(mirror: str) -> str:
    """Return the name of a mirror's channel, which is told to nothing but logs."""
    data = f"{MIRROR}{mirror}".encode()[:NAME_BYTES]
    return data.decode("utf-8", "ignore")
