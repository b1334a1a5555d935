"""Threads of outlets: they move frames from rings of this host to channels.

Of each stream one thread keeps the ring moving when the links do not: it spools, gives
slots back, and notices the end. Each mirror has a sender, which copies held frames into
one buffer under the stream's lock and sends them outside of it, and a receiver, which
takes acknowledgements. A sender sleeps until the ring has a frame or its mirror has
acknowledged.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ataraxis._kernels import snapshot
from ataraxis._kernels.link import RingToBuffer
from ataraxis.errors import (
    AtaraxisError,
    BadMessage,
    HostUnavailable,
    LayoutError,
    LoggerError,
    SegmentNotFound,
)
from ataraxis.link.carrier import ChannelClosed
from ataraxis.link.conversation import Conversation
from ataraxis.link.messages import Absent, Ack, Ask, LinkMessage, Reply, Want
from ataraxis.link.outlet import (
    OutletLink,
    OutletStatistics,
    StreamOutlet,
    choose_outlet,
)
from ataraxis.link.session import DEAD_S
from ataraxis.link.spool import MirrorKey, Spool, SpoolMemory, spools_of
from ataraxis.shm.context import Context
from ataraxis.shm.header import Kind
from ataraxis.shm.segment import Segment
from ataraxis.shm.thread import Thread
from ataraxis.shm.waiting import Alarm
from ataraxis.stream import Consumer
from ataraxis.stream.consumer import FrameEvent

DURABLE = "agent"
"""Durable name of the one reader of all mirrors of a stream."""
FORGET = "forget"
"""A question on a mirror's channel: the mirror was closed for good."""
_IDLE_S, _CALM_S = 0.5, 1.0
_ACTIVE_S = 0.05
_LOOK_S = 0.25
RETURN_S = 10.0
"""What an agent before has left is kept for so long for mirrors that are not known."""
_WANT_S = 10.0
_BURST_FRAMES, _GATHER_BYTES, _GATHER_S = 8, 1 << 16, 1e-3
"""If so many frames were there at once, but fewer bytes, more follow: they are awaited
for so long, s, and sent together. A frame that comes alone is sent at once."""

Report = Callable[[str], None]


class HeldRing(RingToBuffer):
    """The frames of a consumer that are held; numbers are known before the first."""

    def __init__(self, consumer: Consumer, expected: int | None = None) -> None:
        # Read before a look at the ring: the number of the next frame, or an older one.
        self._unseen = consumer.last_sent_iteration if expected is None else expected
        super().__init__(consumer, expected)
        if expected is None and consumer.policy == "lossless":
            # What a dead agent held is held again, before `first` is asked for.
            self.take(consumer.buffer_count)

    @property
    def first(self) -> int:
        """Number of the oldest held frame; of the next one without any."""
        found = super().first
        return self._unseen if found is None else found

    @property
    def next(self) -> int:
        """Number after the newest held frame."""
        found = super().next
        return self._unseen if found is None else found


class OutletRun:
    """One stream of this host, its ring and its spool, for any number of mirrors.

    Parameters
    ----------
    stream : str
        Its name.
    spools : Path
        Directory of spools.
    limit : int
        Most bytes of this stream's spool.
    report : callable
        Called with a line of text: the spool is nearly full, or cannot be written.
    consumer : Consumer or None
        The stream's durable reader `DURABLE`, or one that is not lossless, for a single
        mirror; None: its ring is gone, and what is left is in the spool.
    memory : SpoolMemory, optional
        Of the spool, without a consumer.
    """

    def __init__(
        self,
        stream: str,
        spools: Path,
        limit: int,
        report: Report,
        consumer: Consumer | None,
        memory: SpoolMemory | None = None,
    ) -> None:
        self.stream, self._report = stream, report
        self.lock = threading.Lock()
        self.consumer = consumer
        self.is_lossless = consumer is None or consumer.policy == "lossless"
        self._event: FrameEvent | None = None
        store: HeldRing | None = None
        if consumer is not None:
            self.stream_id, labels = consumer.stream_id, labels_text(consumer)
            slots, slot_bytes = consumer.buffer_count, consumer.buffer_size
            is_paced = "rate_hz" in consumer.labels.attrs
            has_holes = is_numbered_by_slot(consumer)
            self._event, store = FrameEvent(consumer), HeldRing(consumer)
        else:
            assert memory is not None
            self.stream_id, labels = memory.stream_id, memory.labels
            slots, slot_bytes, is_paced = memory.slots, memory.slot_bytes, False
            has_holes = False
        spool = Spool(spools, self.stream_id, limit) if self.is_lossless else None
        self._spool = spool
        self.outlet = StreamOutlet(
            stream, self.stream_id, labels, store, spool, slots=slots,
            slot_bytes=slot_bytes, now=time.monotonic(), is_lossless=self.is_lossless,
            is_paced=is_paced, has_holes=has_holes,
        )  # fmt: skip
        self._alarm = Alarm()
        self._is_closed = False
        self._failure = ""
        self._moved_at = self._account_at = 0.0
        self._newest = -1
        self._is_end_counted = False
        with self.lock:
            self.tick()
        self._thread = Thread(self._keep, f"ataraxis-outlet-{stream}")
        if self.is_lossless:
            self._thread.start()

    # ---- with the lock

    def step(self) -> None:
        """Hold new frames and give slots back; the caller has the lock."""
        if not self.is_lossless:
            self.tick()
            return
        self.outlet.tick(time.monotonic(), may_write=False)
        if self.outlet.is_ended and not self._is_end_counted:
            self._count()
        if self.outlet.next != self._newest:
            self._newest, self._moved_at = self.outlet.next, time.monotonic()

    def tick(self) -> None:
        """Do what is due, also what may wait for a disk; the caller has the lock."""
        now = time.monotonic()
        if self.consumer is not None and now - self._account_at >= _ACTIVE_S:
            self._account_at = now
            # Sweeps: the end of a producer that was killed is noticed.
            _ = self.consumer.is_ended
            self._count()
        self.outlet.tick(now)
        if self.outlet.is_ended and not self._is_end_counted:
            self._count()
        for event in self.outlet.events():
            self._report(f"stream {self.stream}: {event}")
        if self.outlet.next != self._newest:
            self._newest, self._moved_at = self.outlet.next, now

    def _count(self) -> None:
        """Pass on what the ring counts; those of an ended stream do not change."""
        if self.consumer is not None:
            self._is_end_counted = self.outlet.is_ended
            words = snapshot.words(self.consumer._attached().participant)  # noqa: SLF001
            self.outlet.account(refused=words[6], gaps=words[8], stalled_ns=words[4])

    def armed(self) -> tuple[tuple[int, int], ...]:
        """Arm the event of a new frame; for `Alarm.sleep`."""
        event = self._event
        return () if event is None else (event.arm(),)

    def has_news(self, armed: tuple[tuple[int, int], ...]) -> bool:
        """Return whether there was an event since `armed`."""
        event = self._event
        return event is not None and any(event.has_changed(seen) for _, seen in armed)

    # ---- the thread

    def _keep(self) -> None:
        while not self._is_closed:
            seen = self._alarm.count
            armed: tuple[tuple[int, int], ...] = ()
            try:
                with self.lock:
                    now = time.monotonic()
                    is_active = now - self._moved_at < _IDLE_S
                    if not is_active:
                        armed = self.armed()
                    self.tick()
                    wake = self.outlet.next_wake(now) - now
                    if not self.outlet.is_ring_needed:
                        self._drop_ring()
                self._failure = ""
            except (AtaraxisError, OSError) as error:
                if str(error) != self._failure:
                    self._failure = str(error)
                    self._report(f"stream {self.stream}: {error}")
                wake = _IDLE_S
            pause = min(max(wake, _ACTIVE_S), _ACTIVE_S if is_active else _CALM_S)
            self._alarm.sleep(seen, pause, *armed)

    def _drop_ring(self) -> None:
        """Leave the ring of a stream that has ended and is safe; needs the lock."""
        consumer, self.consumer = self.consumer, None
        self._event = None
        self.outlet.detach()
        if consumer is not None:
            consumer.close()

    # ---- for the agent

    @property
    def is_awaited(self) -> bool:
        """Whether it has ended, and a mirror still receives it."""
        return self.outlet.is_ended and self.outlet.is_needed

    @property
    def is_over(self) -> bool:
        """Whether no mirror needs it."""
        with self.lock:
            return not self.outlet.is_needed

    def statistics(self) -> dict[MirrorKey, OutletStatistics]:
        """Return the totals of each mirror."""
        now = time.monotonic()
        with self.lock:
            return {
                key: self.outlet.statistics(key, now) for key in self.outlet.mirrors
            }

    @property
    def problem(self) -> str:
        """Why frames wait in the ring; '' if they need not."""
        return self.outlet.problem or self._failure

    @property
    def spooled_bytes(self) -> int:
        """Bytes of the spool's files."""
        return 0 if self._spool is None else self._spool.nbytes

    def forget(self, key: MirrorKey) -> None:
        """Keep nothing for a mirror any more."""
        with self.lock:
            self.outlet.forget(key, time.monotonic())
        self._alarm.ring()

    def close(self, *, is_final: bool) -> None:
        """End the thread. If final, nothing is kept: no frame, no spool, no reader."""
        self._is_closed = True
        self._alarm.ring()
        self._thread.join(DEAD_S + 2)
        with self.lock:
            consumer, self.consumer = self.consumer, None
            self._event = self.outlet.store = None
            if self._spool is not None:
                self._spool.close()
                if is_final:
                    self._spool.remove()
        if consumer is not None and (is_final or not self.is_lossless):
            consumer.close()
        # Else it is dropped: the durable name keeps the frames for the next agent.


class OpenedOutlet(NamedTuple):
    """A stream, and the link to one of its mirrors."""

    run: OutletRun
    link: OutletLink


# ---- one mirror of one stream: a sender and a receiver


class OutletChannel:
    """Serves one mirror of another host on its channel, until that ends.

    Parameters
    ----------
    talk : Conversation
        After the exchange of `Hello`; closed at the end.
    open_run : callable
        Called with the mirror and its `Want`; returns the stream, or None if it does
        not exist yet.
    forget : callable
        Called with the mirror when its host asks to forget it.
    """

    def __init__(
        self,
        talk: Conversation,
        open_run: Callable[[MirrorKey, Want], OpenedOutlet | None],
        forget: Callable[[MirrorKey], None],
    ) -> None:
        self._talk, self._open_run, self._forget = talk, open_run, forget
        self._alarm = Alarm()
        self._is_over, self._has_work = False, True
        self._key: MirrorKey | None = None
        self._failure: Exception | None = None

    def run(self, early: Iterator[LinkMessage]) -> None:
        """Receive until the channel ends; in the caller's thread.

        Raises
        ------
        ChannelClosed, TimeoutError, BadMessage
            The end of the channel; `BadMessage` and others were told to the other host.
        """
        waiting = list(early)
        try:
            while True:
                self._serve(*self._found(self._next_want(waiting)), waiting)
        except (ChannelClosed, TimeoutError):
            raise
        except (AtaraxisError, OSError, ValueError) as error:
            self._talk.refuse(f"{type(error).__name__}: {error}"[:4000])
            raise
        finally:
            self._is_over = True
            self._alarm.ring()
            self._talk.close()

    def _next_want(self, waiting: list[LinkMessage]) -> Want:
        """Wait for the next `Want`."""
        while True:
            while waiting:
                message = waiting.pop(0)
                if isinstance(message, Want):
                    return message
                if not self._is_answered(message) and not isinstance(message, Ack):
                    raise BadMessage(f"expected 'want', got {type(message).__name__}")
            waiting += self._received(_IDLE_S)

    def _received(self, timeout: float) -> list[LinkMessage]:
        """Send what is due, and return the messages that have arrived."""
        self._talk.send()
        pause = min(self._talk.wait_time(time.monotonic()), timeout)
        self._talk.receive(pause)
        return list(self._talk.messages())

    def _is_answered(self, message: LinkMessage) -> bool:
        """Answer a question, if it is one."""
        if not isinstance(message, Ask):
            return False
        if message.what == FORGET and self._key is not None:
            self._forget(self._key)
            self._talk.send(Reply(message.number))
            raise ChannelClosed(f"host {self._key.host} has closed the mirror")
        self._talk.send(Reply(message.number, error=f"{message.what!r} is not known"))
        return True

    def _found(self, want: Want) -> OpenedOutlet:
        """Return the stream, as soon as it exists."""
        self._key = MirrorKey(self._talk.channel.peer, want.mirror)
        is_told = False
        while (opened := self._open_run(self._key, want)) is None:
            if not is_told:
                self._talk.send(Absent(want.stream))
                is_told = True
            for message in self._received(_LOOK_S):
                if not self._is_answered(message) and not isinstance(message, Ack):
                    raise BadMessage(f"expected nothing, got {type(message).__name__}")
        return opened

    def _serve(
        self, run: OutletRun, link: OutletLink, waiting: list[LinkMessage]
    ) -> None:
        """Send a stream until the mirror has its end, or wants something else."""
        self._is_over, self._has_work = False, True
        name = f"ataraxis-send-{run.stream}-{link.key.host}"
        sender = Thread(self._send, name, (run, link))
        sender.start()
        try:
            while True:
                now, is_news = time.monotonic(), bool(waiting)
                while waiting and not isinstance(waiting[0], Want):
                    message = waiting.pop(0)
                    if isinstance(message, Ack):
                        with run.lock:
                            link.ack(message, now)
                            run.step()
                        self._has_work = True
                    elif not self._is_answered(message):
                        raise BadMessage(f"unexpected {type(message).__name__}")
                if waiting:
                    return
                if is_news or self._talk.session.next_wake(now) <= now:
                    if link.sent == link.acked:  # on its way is nothing that blocks
                        self._talk.send()
                    if is_news or link.sent != link.acked:
                        self._alarm.ring()
                if self._failure is not None:
                    raise self._failure
                if not link.is_current:
                    raise ChannelClosed("the mirror has another channel")
                self._talk.receive(_CALM_S)
                waiting += self._talk.messages()
        finally:
            self._is_over = True
            self._alarm.ring()
            with run.lock:
                link.close(time.monotonic())
            if not sender.join(_IDLE_S):
                self._talk.close()  # a send that hangs
                sender.join(DEAD_S + 2)
            if not run.is_lossless:
                run.close(is_final=True)

    def _send(self, run: OutletRun, link: OutletLink) -> None:
        """Send frames and messages; the sender's thread."""
        buffer = memoryview(bytearray(run.outlet.buffer_bytes))
        try:
            armed: tuple[tuple[int, int], ...] = ()
            lively_until = 0.0
            while not self._is_over and link.is_current:
                seen, count, before = self._alarm.count, 0, link.sent
                now = time.monotonic()
                is_end_due = run.outlet.is_ended and not link.has_sent_end
                # After the last frame the account follows, of what has changed.
                is_lively = now < lively_until
                if is_end_due or is_lively or not run.is_lossless:
                    self._has_work = True
                if self._has_work or run.has_news(armed):
                    self._has_work = False
                    with run.lock:
                        run.step()
                        count = link.fill(buffer, time.monotonic())
                        armed = () if count else run.armed()
                    if not count:
                        # What came before it was armed does not wake it.
                        with run.lock:
                            run.step()
                            count = link.fill(buffer, time.monotonic())
                if count:
                    self._has_work, lively_until = True, now + 2 * _CALM_S
                    self._talk.send_frames(buffer[:count], count)
                    if count < _GATHER_BYTES and link.sent - before >= _BURST_FRAMES:
                        time.sleep(max(now + _GATHER_S - time.monotonic(), 0))
                    continue
                self._talk.send()
                pause = self._talk.wait_time(time.monotonic())
                if is_lively:
                    pause = min(pause, _IDLE_S)
                self._alarm.sleep(seen, pause, *armed)
        except Exception as error:  # told by the receiver, whatever it is
            self._failure = error
            self._talk.close()


# ---- all outlets of this host


class OutletRuns:
    """The streams of a context that other hosts mirror.

    Parameters
    ----------
    context : Context
        Where the streams are.
    spools : Path
        Directory of spools: what a dead agent left there goes on.
    limit : int
        Most bytes of all spools together.
    report : callable
        Called with a line of text.
    """

    def __init__(
        self, context: Context, spools: Path, limit: int, report: Report
    ) -> None:
        self._context, self._spools, self._limit = context, spools, limit
        self._report = report
        self._gate = threading.Lock()
        self._runs: dict[str, OutletRun] = {}
        self._is_closed = False
        self._return()
        self._left = set(self._runs)
        self._left_until = time.monotonic() + RETURN_S

    def _return(self) -> None:
        """Take up what an agent left that died: durable readers, and spools."""
        for name in self._context.names():
            with contextlib.suppress(AtaraxisError, OSError):
                if _has_durable(name, self._context):
                    self._opened(name)
        for memory in spools_of(self._spools):
            if memory.stream_id in self._runs or self._id_of(memory.stream) == (
                memory.stream_id
            ):
                continue  # its ring is here: opened already, or when its mirror asks
            try:
                run = self._made(memory.stream, None, memory)
                self._runs[memory.stream_id] = run
            except (AtaraxisError, OSError, ValueError) as error:
                self._report(f"the spool of {memory.stream!r} cannot be read: {error}")

    def _made(
        self, stream: str, consumer: Consumer | None, memory: SpoolMemory | None = None
    ) -> OutletRun:
        return OutletRun(
            stream, self._spools, self._limit, self._report, consumer, memory
        )

    def _opened(self, name: str, *, but: str = "") -> OutletRun | None:
        """Return the outlet of the stream that has a name now; make it if needed.

        None: it is the stream `but`.
        """
        stream_id = self._id_of(name)
        if stream_id == but:
            return None
        if stream_id in self._runs:
            return self._runs[stream_id]
        consumer = Consumer(name, context=self._context, durable=DURABLE)
        earlier = [run for run in self._runs.values() if run.stream == name]
        try:
            run = self._runs[consumer.stream_id] = self._made(name, consumer)
        except BaseException:
            if consumer.received_count == 0:
                consumer.close()
            raise
        if earlier:
            try:
                with run.lock:
                    run.outlet.adopt(earlier[-1].outlet)
            except (LoggerError, OSError) as error:  # tried again by its tick
                self._report(f"the mirrors of {name!r} could not be noted: {error}")
        return run

    def _id_of(self, name: str) -> str:
        """Return the id of the stream that has a name now; '' if there is none."""
        try:
            segment = Segment.attach(name, kind=Kind.STREAM, context=self._context)
        except (SegmentNotFound, FileNotFoundError, LayoutError, ValueError):
            return ""
        return segment.header.uuid.hex()

    def look(self) -> None:
        """Open the next streams of names whose mirrors still receive an earlier one.

        Their mirrors may be away: frames are kept for them from the first one on.
        """
        with self._gate:
            names = {run.stream for run in self._runs.values() if run.is_awaited}
            for name in names:
                with contextlib.suppress(AtaraxisError, OSError):
                    self._opened(name)

    def open(self, key: MirrorKey, want: Want) -> OpenedOutlet | None:
        """Open the stream that a mirror wants; None: it does not exist yet.

        A stream that the mirror has begun goes on; then older ones that it has not
        received; then the one of the name.
        """
        with self._gate:
            if self._is_closed:
                raise HostUnavailable("this agent ends")
            run = self._chosen(key, want)
            if run is None:
                return None
            try:
                with run.lock:
                    return OpenedOutlet(
                        run, run.outlet.want(key, want, time.monotonic())
                    )
            except BaseException:
                if not run.is_lossless:
                    run.close(is_final=True)
                raise

    def _chosen(self, key: MirrorKey, want: Want) -> OutletRun | None:
        if want.policy != "lossless":
            return self._open_fleeting(want)
        try:
            self._opened(want.stream, but=want.stream_id if want.has_ended else "")
        except (SegmentNotFound, FileNotFoundError):
            pass  # only older ones, or none
        except LayoutError as error:
            raise SegmentNotFound(f"{want.stream!r} is not a stream") from error
        runs = [run for run in self._runs.values() if run.stream == want.stream]
        found = choose_outlet([run.outlet for run in runs], key, want)
        return next((run for run in runs if run.outlet is found), None)

    def _open_fleeting(self, want: Want) -> OutletRun | None:
        """Return a stream for one channel, whose frames may be overwritten."""
        try:
            consumer = Consumer(
                want.stream, context=self._context, start="latest",
                policy="latest" if want.policy == "latest" else "lossy",
                label=DURABLE,
            )  # fmt: skip
        except (SegmentNotFound, FileNotFoundError):
            return None
        if consumer.stream_id == want.stream_id and want.has_ended:
            consumer.close()
            return None
        return self._made(want.stream, consumer)

    def forget(self, key: MirrorKey) -> None:
        """Keep nothing for a mirror any more, of any stream."""
        with self._gate:
            runs = list(self._runs.values())
        for run in runs:
            if key in run.outlet.mirrors:
                run.forget(key)
        self.sweep()

    def sweep(self) -> None:
        """Drop the streams that no mirror needs."""
        with self._gate:
            if time.monotonic() >= self._left_until:
                self._left.clear()
            newest = {run.stream: run for run in self._runs.values()}
            over = [
                run
                for run in self._runs.values()
                if run.is_over
                and run.stream_id not in self._left
                and newest[run.stream].outlet.is_noted
            ]
            for run in over:
                del self._runs[run.stream_id]
        for run in over:
            run.close(is_final=True)

    @property
    def runs(self) -> tuple[OutletRun, ...]:
        """The streams."""
        with self._gate:
            return tuple(self._runs.values())

    def close(self) -> None:
        """End all threads; frames stay in rings and spools for the next agent."""
        with self._gate:
            self._is_closed = True
            runs, self._runs = list(self._runs.values()), {}
        for run in runs:
            run.close(is_final=not run.outlet.is_needed)


def _has_durable(name: str, context: Context) -> bool:
    """Return whether a stream keeps frames for the agent of its host."""
    from ataraxis.stream.inspector import Inspector

    found = Inspector(name, context).statistics()
    return any(
        reader.label == DURABLE and reader.is_durable for reader in found.readers
    )


def is_numbered_by_slot(consumer: Consumer) -> bool:
    """Return whether numbers may have no frame, of a shared stream or its mirror."""
    return consumer.is_shared or bool(consumer.labels.attrs.get("origin_is_shared"))


def labels_text(consumer: Consumer) -> str:
    """Return what a mirror needs to make the same stream, as JSON."""
    described = {
        "labels": json.loads(consumer.labels.to_json()),
        "typed": consumer.is_typed,
        "sync": consumer.is_sync,
        "shared": is_numbered_by_slot(consumer),
    }
    return json.dumps(described, separators=(",", ":"))
