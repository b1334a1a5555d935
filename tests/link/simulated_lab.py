"""A laboratory in one process: real state machines of links, everything else simulated.

Virtual time, one heap of events. When an agent is killed, what stays of it in truth
stays here: the rings, the files of the spools. The network delays, damages, breaks, is
silent in one direction; disks fill; clocks drift; readers stop. After every event the
invariants of a mirror are checked, in turn, and at the end, when all is healed, that
every mirror has every frame.
"""

from __future__ import annotations

import bisect
import functools
import heapq
import itertools
import random
import struct
from collections.abc import Callable
from typing import Any

from ataraxis._kernels.journal_write import EMPTY, ENDED, FULL, LAPPED, OK, TORN
from ataraxis.errors import BadMessage, LoggerError, SpoolFull
from ataraxis.frame import DType, Frame, crc32
from ataraxis.link.inlet import CONTROL, GAP, StreamInlet
from ataraxis.link.messages import (
    Absent,
    Ack,
    Ask,
    Hello,
    Offer,
    StreamEnd,
    Want,
    encode,
    next_message,
)
from ataraxis.link.outlet import StreamOutlet, choose_outlet
from ataraxis.link.session import (
    CALM_BEAT_S,
    DEAD_S,
    Backoff,
    LinkSession,
    RoundTrip,
)
from ataraxis.link.spool import MirrorKey, SpoolMemory

PAYLOAD = 16
FRAME_BYTES = 64 + PAYLOAD
PART = 8
OVERFLOW = -11


class Killed(Exception):
    """The agent is killed at this point."""


class Broken(AssertionError):
    """An invariant does not hold."""


@functools.lru_cache(1 << 16)
def frame_of(stream_id: str, sequence: int) -> bytes:
    payload = struct.pack("<IIQ", crc32(stream_id.encode()), PAYLOAD, sequence)
    frame = Frame(
        dtype=DType.RAW, payload_bytes=PAYLOAD, sequence=sequence, source=1,
        checksum=True, parts=(memoryview(payload),),
    )  # fmt: skip
    return frame.to_bytes()


# ---- what stays when an agent is killed


class Ring:
    """The ring of a stream at its own host."""

    def __init__(self, stream_id: str, slots: int) -> None:
        self.stream_id, self.slots = stream_id, slots
        self.frames: dict[int, bytes] = {}
        self.tail = self.head = 0
        self.after = 0
        """Number after its newest frame."""
        self.has_holes = False
        self.holes: set[int] = set()
        """Numbers that never had a frame: slots that producers who share it skipped."""
        self.is_ended = False
        self.is_gating = False
        self.is_paced = True
        self.refused = self.waits = 0

    def send(self) -> bool:
        """Send a frame; False if the producer must wait."""
        if self.head - self.tail >= self.slots:
            if self.is_gating:
                self.waits += 1
                return False
            self.frames.pop(self.tail, None)
            self.tail += 1
        self.frames[self.head] = frame_of(self.stream_id, self.head)
        self.head += 1
        self.after = self.head
        return True

    def skip(self) -> None:
        """Use a slot and its number for no frame, if there is room."""
        if self.has_holes and self.head - self.tail < self.slots:
            self.holes.add(self.head)
            self.head += 1


class Disk:
    """The disk of a host, and whether it is full."""

    def __init__(self) -> None:
        self.is_full = False
        self.spools: dict[str, Files] = {}


class Files:
    """The files of one spool."""

    def __init__(self) -> None:
        self.frames: dict[int, bytes] = {}
        self.first = self.next = 0
        self.memory = SpoolMemory()


class MirrorRing:
    """The ring of a mirror, with one reader that gates."""

    fault = "damaged"

    def __init__(self, lab: Lab, mirror: Mirror, offer: Offer) -> None:
        self.lab, self.mirror = lab, mirror
        self.stream_id, self.slots = offer.stream_id, offer.slots
        self.first = self.sent = offer.first
        self.passed_until = 0  # in the memory of the agent
        self.read = offer.first
        self.lost: list[tuple[int, int]] = []
        self.repeated = 0
        self.is_ended = self.is_owned = False
        self.told: tuple[int, int, int] | None = None
        self.step: Callable[[], None] = lambda: None

    @property
    def next(self) -> int:
        return max(self.sent, self.passed_until)

    def write(self, buffer: Any, start: int, stop: int) -> tuple[int, int]:
        view = memoryview(buffer)
        while stop - start >= 64:
            if view[start : start + 4] != b"AXF1":
                return start, TORN
            if view[start + 48 : start + 52] == b"\0\0\0\0":
                return start, CONTROL
            if stop - start < FRAME_BYTES:
                return start, OK
            data = bytes(view[start : start + FRAME_BYTES])
            sequence = int.from_bytes(data[16:24], "little")
            if sequence > self.next:
                return start, GAP
            if sequence < self.next:
                self.repeated += 1
            else:
                if self.next - self.read >= self.slots:
                    return start, FULL
                if data != frame_of(self.stream_id, sequence):
                    return start, TORN
                if self.is_ended:
                    raise Broken("a frame is published after the end")
                self.step()
                self.sent = self.next + 1
                self.step()
            start += FRAME_BYTES
        return start, OK

    def lose(self, first: int, count: int) -> None:
        if first > self.next:
            raise Broken(f"frames from {first} on are lost, {self.next} is next")
        self.lost.append((self.next, first + count))
        self.sent = max(self.sent, first + count)
        self.step()

    def skip(self, first: int, count: int) -> None:
        if first > self.next:
            raise Broken(f"numbers from {first} on are skipped, {self.next} is next")
        source = self.mirror.far.ring_of(self.mirror.stream, self.stream_id)
        if not source.holes.issuperset(range(first, first + count)):
            raise Broken(f"numbers {first} to {first + count} had frames")
        self.passed_until = max(self.passed_until, first + count)

    def account(self, refused: int, gaps: int, stalled_ns: int) -> None:
        self.told = refused, gaps, stalled_ns


# ---- what an agent has of it


class Store:
    """`RingToBuffer`: dies with its agent."""

    def __init__(self, ring: Ring, step: Callable[[], None]) -> None:
        self.ring, self.step = ring, step
        self.next = ring.tail
        self.numbers: list[int] = []
        ring.is_gating = True

    @property
    def first(self) -> int:
        return self.numbers[0] if self.numbers else self.next

    @property
    def held(self) -> int:
        return len(self.numbers)

    @property
    def held_bytes(self) -> int:
        return self.held * FRAME_BYTES

    def take(self, most: int) -> tuple[int, int]:
        there = [n for n in range(self.next, self.ring.head) if n in self.ring.frames]
        taken = there[:most]
        if taken:
            self.numbers += taken
            self.next = taken[-1] + 1
            return len(taken), OK if len(taken) == most else EMPTY
        return 0, ENDED if self.ring.is_ended else EMPTY

    def accept(self) -> int:
        raise AssertionError("nothing is overwritten")

    def copy(self, sequence: int, buffer: Any, start: int) -> tuple[int, int, int]:
        end = start
        for number in self.numbers[bisect.bisect_left(self.numbers, sequence) :]:
            if number != sequence:
                return end, sequence, LAPPED
            if end + FRAME_BYTES > len(buffer):
                return end, sequence, OK if end > start else OVERFLOW
            buffer[end : end + FRAME_BYTES] = self.ring.frames[sequence]
            sequence, end = sequence + 1, end + FRAME_BYTES
        if end > start:
            return end, sequence, OK
        return end, sequence, LAPPED if sequence < self.next else EMPTY

    def missing(self, sequence: int) -> int:
        later = self.numbers[bisect.bisect_left(self.numbers, sequence) :]
        return max((later[0] if later else self.next) - sequence, 0)

    def spill(self, file: Any, source: int, labels: int, until: int) -> Any:
        raise AssertionError("the simulated spool takes frames itself")

    def release(self, until: int) -> int:
        count = 0
        while self.numbers and self.first < until:
            self.step()
            del self.ring.frames[self.numbers.pop(0)]
            self.ring.tail = self.first
            count += 1
        return count


class DiskSpool:
    """`Spool`: dies with its agent, its files do not."""

    def __init__(self, disk: Disk, stream_id: str, step: Any, limit: int) -> None:
        self.disk, self.step, self.limit = disk, step, limit
        self.files = disk.spools.setdefault(stream_id, Files())

    @property
    def first(self) -> int:
        return self.files.first

    @property
    def next(self) -> int:
        return self.files.next

    @property
    def nbytes(self) -> int:
        return len(self.files.frames) * FRAME_BYTES

    @property
    def oldest_until(self) -> int:
        return min((self.first // PART + 1) * PART, self.next)

    def append(self, store: Store, until: int) -> int:
        files = self.files
        if files.first == files.next < store.first:
            files.frames.clear()
            files.first = files.next = store.first
        for number in [n for n in store.numbers if files.next <= n < until]:
            if self.disk.is_full:
                raise LoggerError("no space left on device")
            if self.nbytes + FRAME_BYTES > self.limit:
                raise SpoolFull("its limit is reached")
            self.step()
            files.frames[number] = store.ring.frames[number]
            files.next = number + 1
        self.step()
        return files.next

    def read(self, sequence: int, buffer: Any, start: int) -> tuple[int, int]:
        files, end = self.files, start
        if sequence not in files.frames:
            return start, min(
                (n for n in files.frames if n > sequence), default=sequence
            )
        while sequence in files.frames and end + FRAME_BYTES <= len(buffer):
            buffer[end : end + FRAME_BYTES] = files.frames[sequence]
            sequence, end = sequence + 1, end + FRAME_BYTES
        return end, sequence

    def trim(self, until: int) -> None:
        files = self.files
        files.first = min(max(files.first, until), files.next)
        for sequence in [n for n in files.frames if n < files.first]:
            del files.frames[sequence]

    def recall(self) -> SpoolMemory:
        return self.files.memory

    def remember(self, memory: SpoolMemory) -> None:
        if self.disk.is_full:
            raise LoggerError("no space left on device")
        self.step()
        self.files.memory = memory


# ---- the network


class Wire:
    """One direction of a channel: bytes in order, late, or held back."""

    def __init__(self, lab: Lab, delay: float) -> None:
        self.lab, self.delay = lab, delay
        self.is_silent = self.is_cut = self.is_noisy = False
        self.held: list[bytes] = []
        self.last = 0.0
        self.arrive: Callable[[bytes], None] = lambda data: None

    def send(self, data: bytes) -> None:
        if self.is_cut:
            return
        if self.is_noisy:
            self.is_noisy = False
            at = self.lab.random.randrange(len(data))
            data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        if self.is_silent:
            self.held.append(data)
            return
        self.last = max(self.last, self.lab.now + self.delay * self.lab.draw())
        self.lab.at(self.last, lambda: self._arrived(data))

    def _arrived(self, data: bytes) -> None:
        if self.is_cut:
            return
        if self.is_silent:
            self.held.append(data)
        else:
            self.arrive(data)

    def heal(self) -> None:
        self.is_silent = False
        held, self.held = self.held, []
        for data in held:
            self.send(data)


class Link:
    """A channel between the agents of two hosts."""

    def __init__(self, lab: Lab, near: Host, far: Host) -> None:
        self.lab, self.near, self.far = lab, near, far
        self.there, self.back = Wire(lab, lab.delay), Wire(lab, lab.delay)
        for wire, ends in ((self.there, (near, far)), (self.back, (far, near))):
            wire.is_silent = (ends[0].name, ends[1].name) in lab.silent
        self.ends: list[End] = []

    def cut(self, *, is_told: bool) -> None:
        """End the channel; the ends learn of it now, or by silence."""
        self.there.is_cut = self.back.is_cut = True
        for end in list(self.ends):
            if is_told:
                self.lab.at(self.lab.now, end.closed)


class End:
    """One end of a channel: a session, and what arrived."""

    def __init__(self, host: Host, link: Link, out: Wire, peer: str) -> None:
        self.host, self.lab, self.link, self.out = host, host.lab, link, out
        calm: dict[str, Any] = {"beat_s": CALM_BEAT_S, "is_timing": False}
        self.session = LinkSession(
            host.hello(), peer, host.clock(), **calm if host.lab.is_calm else {}
        )
        self.data = bytearray()
        self.is_closed = False
        self.wake_at = float("inf")
        link.ends.append(self)

    def arrived(self, data: bytes) -> None:
        if self.is_closed or not self.host.is_alive:
            return
        self.session.received(len(data), self.host.clock())
        self.data += data
        self.lab.guard(self.host, self._work)

    def poke(self) -> None:
        if not self.is_closed and self.host.is_alive:
            self.lab.guard(self.host, self._work)

    def _work(self) -> None:
        now = self.host.clock()
        if self.session.is_dead(now):
            self.closed()
            return
        try:
            self.consume(now)
        except BadMessage as error:
            self.lab.bad.append(str(error))
            self.closed()
            return
        for trip in self.session.round_trips():
            self._check_clock(trip)
        for message in self.session.due(now):
            self.out.send(encode(message))
        if self.session.is_open:
            self.emit(now)
        self._plan(now)

    def _check_clock(self, trip: RoundTrip) -> None:
        """The true offset of the clocks is within the bound of a round trip."""
        far = self.link.near if self.host is self.link.far else self.link.far
        offset = ((trip.arrived - trip.sent) + (trip.returned - trip.received)) / 2
        bound = ((trip.received - trip.sent) - (trip.returned - trip.arrived)) / 2
        truth = (far.clock() - self.host.clock()) * 1e9
        elapsed = trip.received - trip.sent
        if abs(offset - truth) > bound + 4e-4 * elapsed + 10:
            raise Broken(f"a round trip is {offset - truth} ns wrong, bound {bound}")

    def _plan(self, now: float) -> None:
        wake = min(self.session.next_wake(now), self.next_wake(now))
        at = self.lab.now + max(wake - now, 0.005)
        if at < self.wake_at - 1e-9 or self.wake_at <= self.lab.now:
            self.wake_at = at
            self.lab.at(at, self._wake)

    def _wake(self) -> None:
        if self.lab.now >= self.wake_at - 1e-9:
            self.wake_at = float("inf")
            self.poke()

    def closed(self) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self.link.cut(is_told=self.lab.random.random() < 0.7)
        if self.host.is_alive:
            self.ended()

    def consume(self, now: float) -> None: ...
    def emit(self, now: float) -> None: ...
    def next_wake(self, now: float) -> float: ...
    def ended(self) -> None: ...


class ServingEnd(End):
    """The end at the stream's host."""

    def __init__(self, host: Host, link: Link, peer: str) -> None:
        super().__init__(host, link, link.back, peer)
        self.outlet_link: Any = None
        self.wanted: Want | None = None

    def consume(self, now: float) -> None:
        at, view = 0, memoryview(bytes(self.data))
        while True:
            message, end = next_message(view, at, len(view))
            if message is None:
                break
            at = end
            if self.session.take(message, now):
                continue
            key = MirrorKey(self.session.peer, getattr(message, "mirror", ""))
            match message:
                case Want():
                    self.wanted, self.key = message, key
                    if self.outlet_link is not None:
                        self.outlet_link.close(now)
                        self.outlet_link = None
                    self.serve(now)
                case Ack():
                    if self.outlet_link is not None:
                        self.outlet_link.ack(message, now)
                        self.outlet_link.outlet.tick(now, may_write=False)
                case Ask(what="forget"):
                    for outlet in self.host.outlets(str(message.arguments["stream"])):
                        outlet.forget(
                            MirrorKey(
                                self.session.peer, str(message.arguments["mirror"])
                            ),
                            now,
                        )
                case _:
                    raise BadMessage(f"unexpected {message}")
        del self.data[:at]

    def serve(self, now: float) -> None:
        """Begin what is wanted, if a stream of the name is there."""
        assert self.wanted is not None
        outlet = choose_outlet(
            self.host.outlets(self.wanted.stream), self.key, self.wanted
        )
        if outlet is None:
            self.out.send(encode(Absent(self.wanted.stream)))
            return
        try:
            outlet.tick(now)
            self.outlet_link = outlet.want(self.key, self.wanted, now)
        except LoggerError:
            self.lab.at(self.lab.now, self.closed)  # it will ask again
            return
        self.wanted = None

    def emit(self, now: float) -> None:
        if self.wanted is not None and self.outlet_link is None:
            self.serve(now)
        link = self.outlet_link
        if link is None:
            return
        if not link.is_current:
            self.closed()
            return
        buffer = bytearray(4096)
        while size := link.fill(buffer, now):
            self.out.send(bytes(buffer[:size]))
        state = link.outlet._mirrors[link.key]
        if link.sent_bytes > max(link.granted, 0) + 64 + 64 + 16 + 24 + PAYLOAD:
            raise Broken(f"{link.sent_bytes} bytes sent, {link.granted} granted")
        if not state.needs <= max(link.sent, link.acked):
            raise Broken("needs what was not sent")

    def next_wake(self, now: float) -> float:
        return now + self.lab.look_s

    def ended(self) -> None:
        if self.outlet_link is not None:
            self.outlet_link.close(self.host.clock())
        self.host.serving.discard(self)


class MirrorEnd(End):
    """The end at the mirror's host."""

    def __init__(self, mirror: Mirror, link: Link) -> None:
        super().__init__(mirror.host, link, link.there, mirror.far.name)
        self.mirror = mirror
        self.has_asked = False

    def consume(self, now: float) -> None:
        inlet = self.mirror.inlet
        assert inlet is not None
        at, data = 0, bytes(self.data)
        view = memoryview(data)
        try:
            while True:
                at, status = inlet.publish(view, at, len(view), now)
                if status == FULL:
                    break
                message, at = (
                    next_message(view, at, len(view))
                    if (status == CONTROL)
                    else (None, at)
                )
                if message is None:
                    break
                if not self.session.take(message, now):
                    if not inlet.take(message, now):
                        raise BadMessage(f"unexpected {message}")
                    if inlet.end is not None and isinstance(message, StreamEnd):
                        self._send_ack(now)
                        self.out.send(encode(inlet.want(now)))
        finally:
            del self.data[:at]

    def _send_ack(self, now: float) -> None:
        inlet = self.mirror.inlet
        assert inlet is not None
        if inlet.is_recorded:
            inlet.recorded(self.mirror.recorded_next())
        ack = inlet.ack_due(now)
        if ack is not None:
            self.out.send(encode(ack))

    def emit(self, now: float) -> None:
        assert self.mirror.inlet is not None
        if not self.has_asked:
            self.has_asked = True
            self.mirror.backoff.succeeded()
            if self.mirror.is_recorded:
                self.mirror.inlet.recorded(self.mirror.recorded_next())
            self.out.send(encode(self.mirror.inlet.want(now)))
        self._send_ack(now)

    def next_wake(self, now: float) -> float:
        assert self.mirror.inlet is not None
        return self.mirror.inlet.next_wake(now)

    def ended(self) -> None:
        self.mirror.lost_link()


# ---- hosts


class Mirror:
    """A mirror, as its host's configuration has it; rings and readers stay."""

    def __init__(
        self, host: Host, far: Host, stream: str, on_full: str, is_recorded: bool
    ) -> None:
        self.host, self.far, self.stream = host, far, stream
        self.on_full, self.is_recorded = on_full, is_recorded
        self.name = f"{stream}@{far.name}"
        self.rings: list[MirrorRing] = []
        self.records: dict[str, int] = {}
        self.inlet: StreamInlet | None = None
        self.backoff = Backoff()
        self.end: MirrorEnd | None = None
        self.is_reading = True
        self.is_known = False

    @property
    def key(self) -> MirrorKey:
        return MirrorKey(self.host.name, self.name)

    # MirrorHost

    def begin(self, offer: Offer) -> MirrorRing:
        self.host.step()
        ring = MirrorRing(self.host.lab, self, offer)
        ring.step = self.host.step
        if self.rings and not self.rings[-1].is_ended:
            raise Broken("a stream begins before the last one has ended")
        if any(ring.stream_id == old.stream_id for old in self.rings):
            raise Broken("a stream begins twice")
        self.rings.append(ring)
        self.records.setdefault(offer.stream_id, offer.first)
        recorded = self.records[offer.stream_id]
        source = self.far.ring_of(self.stream, offer.stream_id)
        is_whole = source.holes.issuperset(range(recorded, offer.first))
        if not is_whole and self.on_full != "lose":
            raise Broken(
                f"{recorded} frames are recorded, the ring begins with {offer.first}"
            )
        return ring

    def end_ring(self, end: StreamEnd) -> None:
        self.host.step()
        ring = self.rings[-1]
        source = self.far.ring_of(self.stream, ring.stream_id)
        if not source.is_ended or ring.next != source.after:
            raise Broken(
                f"the mirror ends at {ring.next}, the stream at {source.after}"
            )
        ring.is_ended = True
        self.host.step()

    # the agent

    def start(self) -> None:
        """Make the inlet, after a start of the agent, and dial."""
        self.inlet = self.host.lab.inlet_class(
            _Rings(self), self.stream, self.name, on_spool_full=self.on_full,
            is_recorded=self.is_recorded, channel_window=self.host.lab.window,
        )  # fmt: skip
        if self.rings:
            ring = self.rings[-1]
            ring.step, ring.passed_until = self.host.step, 0
            self.inlet.resume(ring, ring.stream_id, has_ended=ring.is_ended)
        self.end = None
        self.dial()

    def dial(self) -> None:
        host, lab = self.host, self.host.lab
        if not host.is_alive or self.end is not None:
            return
        pair = (host.name, self.far.name)
        if not self.far.is_alive or pair in lab.silent or pair[::-1] in lab.silent:
            self.lost_link()
            return
        link = Link(lab, host, self.far)
        self.end = MirrorEnd(self, link)
        serving = ServingEnd(self.far, link, host.name)
        self.far.serving.add(serving)
        link.there.arrive, link.back.arrive = serving.arrived, self.end.arrived
        lab.links.append(link)
        self.end.poke()
        serving.poke()

    def lost_link(self) -> None:
        self.end = None
        now = self.host.clock()
        if self.inlet is not None:
            self.inlet.lost_link(now)
        at = self.backoff.failed(now)
        generation = self.host.generation
        self.host.lab.at(
            self.host.lab.now + at - now,
            lambda: self.dial() if self.host.generation == generation else None,
        )

    def recorded_next(self) -> int:
        return self.records.get(self.rings[-1].stream_id, 0) if self.rings else 0

    def read(self) -> None:
        """The reader of the ring, which is also the recorder."""
        if self.is_reading:
            for ring in self.rings[-2:]:
                ring.read = ring.next
                known = self.records[ring.stream_id]
                self.records[ring.stream_id] = max(known, ring.next)
        if self.end is not None:
            self.end.poke()


class _Rings:
    """What an inlet calls."""

    def __init__(self, mirror: Mirror) -> None:
        self.mirror = mirror

    def begin(self, offer: Offer) -> MirrorRing:
        return self.mirror.begin(offer)

    def end(self, end: StreamEnd) -> None:
        self.mirror.end_ring(end)


class Host:
    """A machine: streams and mirrors, and an agent that may be killed."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.lab, self.name = lab, name
        self.drift = lab.random.uniform(-1e-4, 1e-4)
        self.offset = lab.random.uniform(0, 1e4)
        self.is_alive = False
        self.generation = 0
        self.steps_left: int | None = None
        self.streams: dict[str, list[Ring]] = {}
        self.all_rings: dict[str, list[Ring]] = {}
        self.disk = Disk()
        self.mirrors: list[Mirror] = []
        self.made: dict[str, StreamOutlet] = {}
        self.serving: set[ServingEnd] = set()

    def clock(self) -> float:
        return self.offset + self.lab.now * (1 + self.drift)

    def hello(self) -> Hello:
        agent = f"{self.name}-{self.generation}"
        return Hello(lab="lab", host=self.name, boot=self.name, agent=agent)

    def step(self) -> None:
        """A point where the agent may be killed."""
        if self.steps_left is not None:
            self.steps_left -= 1
            if self.steps_left <= 0:
                self.steps_left = None
                raise Killed

    # streams

    def add_stream(self, name: str) -> None:
        number = self.lab.number()
        ring = Ring(f"{name}-{self.name}-{number}", self.lab.slots)
        ring.is_paced = number % 3 > 0
        ring.has_holes = number % 2 > 0
        self.streams.setdefault(name, []).append(ring)
        self.all_rings.setdefault(name, []).append(ring)
        # The durable cursor: a mirror of the stream is configured.
        ring.is_gating = True
        if self.is_alive:
            self.lab.guard(self, lambda: self._make_outlet(name, ring))
            for end in list(self.serving):
                end.poke()

    def restart_program(self, name: str) -> None:
        self.streams[name][-1].is_ended = True
        self.add_stream(name)

    def ring_of(self, name: str, stream_id: str) -> Ring:
        return next(r for r in self.all_rings[name] if r.stream_id == stream_id)

    def outlets(self, name: str) -> list[StreamOutlet]:
        return [
            self.made[ring.stream_id]
            for ring in self.streams.get(name, ())
            if ring.stream_id in self.made
        ]

    def _make_outlet(self, name: str, ring: Ring) -> None:
        spool = DiskSpool(self.disk, ring.stream_id, self.step, self.lab.spool_bytes)
        earlier = self.outlets(name)
        outlet = self.lab.outlet_class(
            name, ring.stream_id, "{}", Store(ring, self.step), spool,
            slots=ring.slots, slot_bytes=PAYLOAD, now=self.clock(),
            is_paced=ring.is_paced, has_holes=ring.has_holes,
        )  # fmt: skip
        self.made[ring.stream_id] = outlet
        if earlier:
            try:
                outlet.adopt(earlier[-1])
            except LoggerError:
                pass  # noted later, with the positions

    def send(self, name: str) -> None:
        ring = self.streams[name][-1]
        if self.lab.random.random() < 0.1:
            ring.skip()
        ring.send()
        outlet = self.made.get(ring.stream_id)
        if self.is_alive and outlet is not None:
            self.lab.guard(self, lambda: self.work(name))

    def work(self, name: str) -> None:
        """What the thread of a stream does after a frame."""
        now = self.clock()
        for outlet in self.outlets(name):
            outlet.account(0, 0, 0)
            outlet.tick(now)
        for end in list(self.serving):
            link = end.outlet_link
            if link is not None and link.outlet.stream == name:
                end.poke()
        self._drop(name)

    def _drop(self, name: str) -> None:
        """Remove streams that ended and that every mirror has."""
        rings = self.streams[name]
        while len(rings) > 1 and self.made[rings[0].stream_id].is_over:
            if not self.made[rings[-1].stream_id].is_noted:
                break
            ring = rings[0]
            if ring.frames or not self.made[ring.stream_id].mirrors:
                break
            self.step()
            rings.pop(0)
            del self.made[ring.stream_id]
            self.disk.spools.pop(ring.stream_id, None)

    # the agent

    def start(self) -> None:
        if self.is_alive:
            return
        self.is_alive = True
        self.generation += 1
        self.lab.guard(self, self._start)

    def _start(self) -> None:
        for name, rings in self.streams.items():
            for ring in rings:
                self._make_outlet(name, ring)
        for mirror in self.mirrors:
            mirror.start()

    def kill(self) -> None:
        """End the agent, and what it has in memory."""
        if not self.is_alive:
            return
        self.is_alive = False
        self.steps_left = None
        self.made.clear()
        for end in [*self.serving, *(m.end for m in self.mirrors if m.end)]:
            end.closed()
        self.serving.clear()
        for mirror in self.mirrors:
            mirror.inlet = mirror.end = None
        self.lab.at(self.lab.now + self.lab.random.uniform(0.05, 2), self.start)

    def reboot(self) -> None:
        """Lose the rings of the mirrors, with the agent; records stay."""
        if all(mirror.is_recorded for mirror in self.mirrors):
            self.kill()
            for mirror in self.mirrors:
                mirror.rings.clear()


# ---- the laboratory


class Lab:
    """Hosts, streams, mirrors, faults, time."""

    def __init__(
        self,
        seed: int,
        *,
        hosts: int = 20,
        mirrors: int = 20,
        outlet_class: type[StreamOutlet] = StreamOutlet,
        inlet_class: type[StreamInlet] = StreamInlet,
        rate_hz: float = 25.0,
        is_calm: bool = False,
    ) -> None:
        self.is_calm = is_calm
        self.look_s, self.read_s = (1.0, 1.0) if is_calm else (0.25, 0.02)
        self.random = random.Random(seed)
        self.outlet_class, self.inlet_class = outlet_class, inlet_class
        self.now = 0.0
        self.heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count, self._number = itertools.count(), itertools.count()
        self.links: list[Link] = []
        self.silent: set[tuple[str, str]] = set()
        self.bad: list[str] = []
        self.delay, self.slots = 0.004, 16
        self.window, self.spool_bytes = 12 * FRAME_BYTES, 60 * FRAME_BYTES
        self.is_sending = True
        self.events = 0
        self.touched: set[Mirror] = set()
        self.hosts = [Host(self, f"h{k}") for k in range(hosts)]
        self.mirrors: list[Mirror] = []
        for k in range(mirrors):
            near = self.hosts[k % hosts]
            far = self.random.choice([h for h in self.hosts if h is not near])
            stream = f"s{self.random.randrange(2)}"
            if any(m.far is far and m.stream == stream for m in near.mirrors):
                continue
            # A host that reboots has recorded mirrors only.
            is_recorded = near.mirrors[0].is_recorded if near.mirrors else k % 3 == 0
            on_full = "lose" if k % 4 == 1 else "wait"
            mirror = Mirror(near, far, stream, on_full, is_recorded)
            near.mirrors.append(mirror)
            self.mirrors.append(mirror)
        for mirror in self.mirrors:
            if mirror.stream not in mirror.far.streams:
                mirror.far.add_stream(mirror.stream)
        for host in self.hosts:
            host.start()
            for name in host.streams:
                self._produce(host, name, 1 / rate_hz)
        for mirror in self.mirrors:
            self._consume(mirror)

    def draw(self) -> float:
        return self.random.uniform(0.5, 1.5)

    def number(self) -> int:
        return next(self._number)

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.heap, (max(when, self.now), next(self._count), what))

    def guard(self, host: Host, work: Callable[[], None]) -> None:
        """Run a piece of an agent, which may be killed in it."""
        try:
            work()
        except Killed:
            host.kill()

    def _produce(self, host: Host, name: str, period: float) -> None:
        def send() -> None:
            if self.is_sending:
                for _ in range(self.random.choice((1, 1, 1, 3))):
                    host.send(name)
            elif host.is_alive:
                self.guard(host, lambda: host.work(name))
            self.at(self.now + period * self.draw(), send)

        self.at(self.random.uniform(0, period), send)

    def _consume(self, mirror: Mirror) -> None:
        def read() -> None:
            mirror.read()
            self.at(self.now + self.read_s * self.draw(), read)

        self.at(self.read_s, read)

    # time

    def run(self, seconds: float) -> None:
        """Let time go on; check after every event."""
        until = self.now + seconds
        while self.heap and self.heap[0][0] <= until:
            self.now, _, work = heapq.heappop(self.heap)
            work()
            self.events += 1
            self.check(self.mirrors[self.events % len(self.mirrors)])
        self.now = until

    # faults

    FAULTS = (
        "cut", "cut_silently", "noise", "one_way", "partition", "heal",
        "kill", "kill_inside", "full_disk", "room", "stop_reader", "read",
        "restart_program", "reboot",
    )  # fmt: skip

    def fault(self, what: str, k: int) -> None:
        """Do one fault to the k-th host, link or mirror."""
        host = self.hosts[k % len(self.hosts)]
        mirror = self.mirrors[k % len(self.mirrors)]
        live = [link for link in self.links if not link.there.is_cut]
        self.links = live
        match what:
            case "cut" | "cut_silently" if live:
                live[k % len(live)].cut(is_told=what == "cut")
            case "noise" if live:
                live[k % len(live)].back.is_noisy = True
                live[k % len(live)].there.is_noisy = True
            case "one_way":
                self._silence({(mirror.host.name, mirror.far.name)})
            case "partition":
                pair = (mirror.host.name, mirror.far.name)
                self._silence({pair, pair[::-1]})
            case "heal":
                self.heal()
            case "kill":
                host.kill()
            case "kill_inside":
                host.steps_left = 1 + k % 23
            case "full_disk":
                host.disk.is_full = True
            case "room":
                host.disk.is_full = False
            case "stop_reader":
                mirror.is_reading = False
            case "read":
                mirror.is_reading = True
            case "restart_program" if self.is_sending:
                mirror.far.restart_program(mirror.stream)
            case "reboot":
                host.reboot()

    def _silence(self, pairs: set[tuple[str, str]]) -> None:
        self.silent |= pairs
        for link in self.links:
            names = link.near.name, link.far.name
            link.there.is_silent |= names in pairs
            link.back.is_silent |= names[::-1] in pairs

    def heal(self) -> None:
        self.silent.clear()
        for link in self.links:
            if not link.there.is_cut:
                link.there.heal()
                link.back.heal()

    # invariants

    def check(self, mirror: Mirror) -> None:
        """What the mirror does not have yet is in the ring, or in the spool."""
        if not mirror.rings:
            return
        current = mirror.rings[-1]
        source = mirror.far.ring_of(mirror.stream, current.stream_id)
        if current.next > source.head:
            raise Broken(f"{current.next} of {source.head} frames were published")
        if current.is_ended or mirror.on_full == "lose":
            return
        if current.lost:
            raise Broken(f"{mirror.name}: {current.lost} are lost")
        needed = current.next
        if mirror.is_recorded:
            needed = mirror.records[current.stream_id]
        if needed < source.tail:
            files = mirror.far.disk.spools.get(source.stream_id, Files())
            for number in range(needed, source.tail):
                if number not in files.frames and number not in source.holes:
                    raise Broken(
                        f"{mirror.name} has frames up to {needed}, the ring begins at "
                        f"{source.tail}, and the spool has not {number}"
                    )

    def finish(self, seconds: float = 40.0) -> None:
        """End all faults; then every mirror must have every frame."""
        self.heal()
        for host in self.hosts:
            host.steps_left = None
            host.disk.is_full = False
        for mirror in self.mirrors:
            mirror.is_reading = True
        self.run(DEAD_S)
        self.is_sending = False
        deadline = self.now + seconds
        while self.now < deadline and not self.is_complete():
            self.run(0.5)
        for mirror in self.mirrors:
            source = mirror.far.all_rings[mirror.stream][-1]
            last = mirror.rings[-1] if mirror.rings else None
            if last is None or last.stream_id != source.stream_id:
                raise Broken(f"{mirror.name} has not the newest stream")
            if last.next != source.after:
                raise Broken(f"{mirror.name} has {last.next} of {source.after} frames")
        for host in self.hosts:
            for rings in host.streams.values():
                for ring in rings[:-1]:
                    raise Broken(f"{ring.stream_id} was not dropped after its end")

    def is_complete(self) -> bool:
        for mirror in self.mirrors:
            source = mirror.far.all_rings[mirror.stream][-1]
            if not mirror.rings or mirror.rings[-1].stream_id != source.stream_id:
                return False
            if mirror.rings[-1].next != source.after:
                return False
        return all(len(r) == 1 for h in self.hosts for r in h.streams.values())
