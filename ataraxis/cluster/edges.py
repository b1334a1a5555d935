"""Threads of edges: they move values from edge queues here to inboxes elsewhere.

On the host of an edge queue each channel has a sender, which leases values and sends
them in batches, and a receiver, which takes settlements. On the host of the inbox one
thread an edge dials, puts what arrives, looks for what is settled, and tells it.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from ataraxis._kernels.edge import LinkToQueue, QueueScanner, QueueToLink
from ataraxis.errors import (
    AccessDenied,
    AtaraxisError,
    BadMessage,
    CorruptFrame,
    QueueEmpty,
    SourceNotFound,
)
from ataraxis.frame import HEADER_BYTES
from ataraxis.link.carrier import NAME_BYTES, Carrier, Channel, ChannelClosed
from ataraxis.link.conversation import Conversation
from ataraxis.link.edge import (
    DescentLook,
    InboxLedger,
    LaneRoots,
    LeaseLedger,
    LeaseLink,
)
from ataraxis.link.edge_batches import (
    BACK,
    BATCH_BYTES,
    HELD,
    LEASES,
    NEEDS,
    SETTLED,
    batch_bytes,
    next_batch,
    numbers_batch,
    numbers_of,
)
from ataraxis.link.messages import (
    EdgeConfirm,
    EdgeFence,
    EdgeGrant,
    EdgeOffer,
    EdgeWant,
    Hello,
    LinkMessage,
    is_data,
)
from ataraxis.link.session import CALM_BEAT_S, DEAD_S, Backoff, LinkSession
from ataraxis.pipeline.frames import lane_of
from ataraxis.shm.context import Context
from ataraxis.shm.header import Kind
from ataraxis.shm.segment import Segment
from ataraxis.shm.thread import Thread
from ataraxis.stream import MemQ

EDGE = "edge "
"""Begins the name of an edge's channel."""
DIAL_S = 3.0
_IDLE_S, _POLL_S, _FULL_S = 0.5, 0.05, 0.002
_GATHER_S, _FEW_BYTES = 0.001, 1 << 16
_TURN_S = 0.02
"""A batch may arrive for so long before settlements and beats have their turn."""
_RECEIVE_BYTES = 1 << 20
_ROOM = 1 << 17
MOST_PROCESSORS = 1000
"""Of a run whose workers are on several hosts."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class EdgePlan:
    """An edge of a run: from a queue of one host to an inbox of another."""

    run: str
    name: str
    """Name of the edge queue, on `source`."""
    source: str
    """Host of the edge queue."""
    to: str
    """Host of the inbox."""
    inbox: str
    """Name of the inbox, on `to`."""
    path: tuple[str, ...] = ()
    """Queues on `to` that hold what is made of the values, in topological order; the
    edge queues that leave `to` among them, the inbox not."""
    is_home: bool = False
    """Whether `to` is the run's own host: what is received there is settled."""
    ends: int = 1
    """How many frames that end a stream the inbox takes at most: its readers."""
    steps: tuple[tuple[int, int], ...] = ()
    """Pairs of processors on `to`: the second takes what the first makes; the first
    pair is -1 and the processor of the inbox. Without them nothing is known of what is
    made of a value, and it is settled later."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        steps = [list(pair) for pair in self.steps]
        return {**asdict(self), "path": list(self.path), "steps": steps}

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> Self:
        """Return what `as_dict` wrote.

        Raises
        ------
        BadMessage
            A field is missing, unknown, or of a wrong type.
        """
        types = {"path": list, "is_home": bool, "ends": int, "steps": list}
        names = {f.name for f in fields(cls)}
        path, steps = found.get("path", []), found.get("steps", [])
        if (
            not names.issuperset(found)
            or not {"run", "name", "source", "to", "inbox"}.issubset(found)
            or any(type(v) is not types.get(k, str) for k, v in found.items())
            or not all(isinstance(name, str) for name in path)
            or not all(map(_is_step, steps))
        ):
            raise BadMessage(f"this is not the plan of an edge: {str(found)[:200]}")
        pairs = tuple((first, then) for first, then in steps)
        return cls(**{**found, "path": tuple(path), "steps": pairs})


def _is_step(pair: object) -> bool:
    """Whether this is a pair of processors, the first of which comes before."""
    if not isinstance(pair, list) or [type(k) for k in pair] != [int, int]:
        return False
    first, then = pair
    return bool(-1 <= first < then < MOST_PROCESSORS)


class EdgeOutlet:
    """One edge queue of this host; any number of hosts take its values.

    Parameters
    ----------
    plan : EdgePlan
        One of its edges.
    edges : Edges
        Of the agent here.
    """

    def __init__(self, plan: EdgePlan, edges: Edges) -> None:
        self.run, self.name, self._edges = plan.run, plan.name, edges
        segment = Segment.attach(plan.name, kind=Kind.QUEUE, context=edges.context)
        queue_id = segment.header.uuid.hex()
        self.queue = MemQ.of_segment(segment)
        self.lock = threading.Lock()
        self.store = QueueToLink(self.queue)
        self.ledger = LeaseLedger(
            self.store, queue_id, lambda: edges.generation(plan.run),
            self.queue.buffer_count,
        )  # fmt: skip
        self._talks: dict[LeaseLink, tuple[Conversation, threading.Event]] = {}
        self.hosts = {plan.to}
        """Hosts that may take its values."""
        self.problem = ""
        self._is_finished = False

    def finish(self) -> None:
        """Lease nothing more: the last frames that follow are for readers here."""
        with self.lock:
            self._is_finished = True

    def serve(
        self, talk: Conversation, want: EdgeWant, waiting: list[LinkMessage]
    ) -> None:
        """Serve a channel until it ends; in the caller's thread."""
        host = talk.channel.peer
        with self.lock:
            link, answer, held = self.ledger.want(host, want)
        if link is None:
            talk.send(answer)
            # The other side closes the channel when it has read that.
            with contextlib.suppress(ChannelClosed):
                talk.receive(DIAL_S)
            return
        wake = threading.Event()
        self._talks[link] = talk, wake
        talk.send(answer)
        data = numbers_batch(HELD, held)
        talk.send_frames(data, len(data))
        name = f"ataraxis-edge-{self.name}-{host}"
        sender = Thread(self._send, name, (link, talk, wake))
        sender.start()
        try:
            self._receive(link, talk, wake, waiting)
        finally:
            with self.lock:
                self.ledger.lost_link(link)
            self._wake(wake)
            if not sender.join(_IDLE_S):
                talk.close()  # a send that hangs
                sender.join(DEAD_S + 2)
            self._talks.pop(link, None)

    def _wake(self, wake: threading.Event) -> None:
        """End the sleep of a sender, wherever it sleeps."""
        wake.set()
        if self.queue.is_open:
            with contextlib.suppress(AtaraxisError):
                self.queue.nudge()

    def _receive(
        self,
        link: LeaseLink,
        talk: Conversation,
        wake: threading.Event,
        waiting: list[LinkMessage],
    ) -> None:
        while link.is_current:
            self._take_messages(link, wake, waiting)
            while talk.start < talk.stop:
                before = talk.start
                if is_data(talk.buffer, talk.start, talk.stop):
                    answer = self._take_batch(link, talk, wake)
                    if answer is not None:
                        talk.send(answer)
                self._take_messages(link, wake, list(talk.messages(has_frames=True)))
                if talk.start == before:
                    break
            talk.receive(_IDLE_S)
            waiting = list(talk.messages(has_frames=True))

    def _take_messages(
        self, link: LeaseLink, wake: threading.Event, messages: list[LinkMessage]
    ) -> None:
        for message in messages:
            if isinstance(message, EdgeGrant):
                had = link.credit
                with self.lock:
                    self.ledger.grant(link, message)
                if had <= 0:
                    wake.set()
            elif isinstance(message, EdgeFence):
                self._edges.told_to_fence(message, link.host)
                raise ChannelClosed(f"host {link.host} has given our values away")
            else:
                raise BadMessage(f"unexpected {type(message).__name__}")
        messages.clear()

    def _take_batch(
        self, link: LeaseLink, talk: Conversation, wake: threading.Event
    ) -> EdgeConfirm | None:
        _make_room(talk)
        batch = next_batch(talk.buffer, talk.start, talk.stop)
        if batch is None:
            return None
        numbers = numbers_of(talk.buffer, batch)
        talk.start = batch.end
        if batch.kind == NEEDS:
            with self.lock:
                self.ledger.need(link, numbers)
            self._wake(wake)
            return None
        if batch.kind != SETTLED:
            raise BadMessage(f"unexpected batch of kind {batch.kind}")
        with self.lock:
            is_full = self.ledger.room(link) == 0
            confirm = self.ledger.settle(link, numbers)
            has_last = bool(self.ledger.queue.last)
        if is_full:
            wake.set()
        if has_last:
            self._wake(wake)
            for _, other in list(self._talks.values()):
                self._wake(other)
        return confirm

    def _send(self, link: LeaseLink, talk: Conversation, wake: threading.Event) -> None:
        """Send values; the sender's thread."""
        size = HEADER_BYTES + max(BATCH_BYTES, self.store.slot_bytes)
        buffer = memoryview(bytearray(size))
        sent_at = 0.0
        try:
            while link.is_current:
                wake.clear()
                with self.lock:
                    count = 0 if self._is_finished else self.ledger.fill(link, buffer)
                if count < 0:
                    buffer = memoryview(bytearray(_ROOM - count))
                    continue
                if count:
                    talk.send_frames(buffer[:count], count)
                    now = time.monotonic()
                    if count < _FEW_BYTES and now - sent_at < 2 * _GATHER_S:
                        time.sleep(_GATHER_S)  # a few at a time cost the most
                    sent_at = now
                    continue
                talk.send()
                pause = min(talk.wait_time(time.monotonic()), _IDLE_S)
                with self.lock:
                    has_room = self.ledger.room(link) > 0
                if has_room and not self._is_finished:
                    self.queue.wait(pause)
                else:
                    wake.wait(min(pause, _POLL_S))
        except Exception as error:  # told by the receiver: the channel is closed
            if not isinstance(error, ChannelClosed | TimeoutError):
                self.problem = str(error) or repr(error)
                self._edges.report(f"edge {self.name}: {self.problem}")
            talk.close()

    # ---- for other threads

    def lost(self, host: str, generation: str = "") -> int:
        """Take back what a host has; return how many values."""
        with self.lock:
            count = self.ledger.lost(host, generation)
        self._cut()
        return count

    def fenced(self, host: str, generation: str) -> int:
        """Take back what a host had before a generation; return how many values."""
        with self.lock:
            count = self.ledger.fenced(host, generation)
        self._cut()
        return count

    def _cut(self) -> None:
        """Close the channels that are not current."""
        for link, (talk, wake) in list(self._talks.items()):
            if not link.is_current:
                talk.close()
            self._wake(wake)

    def drop(self) -> None:
        """Empty the queue: the run begins again on this host."""
        with self.lock:
            self.ledger.drop()
            empty(self.queue)
        for talk, _ in list(self._talks.values()):
            talk.close()

    @property
    def is_idle(self) -> bool:
        """Whether no value waits, or is leased."""
        with self.lock:
            return not self.ledger.held and not self.queue.statistics().used

    def statistics(self) -> list[dict[str, Any]]:
        """Return the totals, a row for each host that takes values."""
        with self.lock:
            ledger = self.ledger
            waiting = self.queue.qsize() if self.queue.is_open else 0
            return [
                {
                    "run": self.run, "name": self.name, "kind": "outlet", "host": host,
                    "waiting": waiting, "held": len(leases.held), "sent": ledger.sent,
                    "settled": leases.settled, "repeated": ledger.resent,
                    "taken_back": ledger.taken_back, "links": ledger.links,
                    "is_connected": leases.link is not None, "problem": self.problem,
                }
                for host, leases in ledger.hosts.items()
            ]  # fmt: skip

    def close(self) -> None:
        """End the channels; leased values go back to the queue."""
        with self.lock:
            for leases in self.ledger.hosts.values():
                self.ledger.lost_link(leases.link)
        for talk, wake in list(self._talks.values()):
            talk.close()
            wake.set()
        self.queue.close()


class EdgeInlet:
    """One edge that ends on this host: values go into an inbox, settlements back.

    Parameters
    ----------
    plan : EdgePlan
        The edge.
    edges : Edges
        Of the agent here.
    """

    def __init__(self, plan: EdgePlan, edges: Edges) -> None:
        self.plan, self._edges = plan, edges
        names = () if plan.is_home else plan.path
        self.queues: list[MemQ] = []
        try:
            for name in (plan.inbox, *names):
                self.queues.append(MemQ.attach(name, context=edges.context))
        except BaseException:
            self._close_queues()
            raise
        roots, self.lock = edges.roots(plan.run)
        scanners = [QueueScanner(q, k == 0) for k, q in enumerate(self.queues)]
        self.ledger = InboxLedger(
            LinkToQueue(self.queues[0]),
            None if plan.is_home else DescentLook(scanners, roots, plan.steps),
            plan.run, plan.name, edges.generation(plan.run), plan.ends,
        )  # fmt: skip
        self._talk: Conversation | None = None
        self._is_closed = False
        self._wake = threading.Event()
        self._done = 0
        self._is_checked = False
        self.problem = ""
        self._thread = Thread(self._run, f"ataraxis-edge-{plan.name}")

    def start(self) -> None:
        """Begin to dial."""
        self._thread.start()

    @property
    def is_connected(self) -> bool:
        """Whether the source offers its values."""
        return self._talk is not None and self.ledger.is_open

    def statistics(self) -> list[dict[str, Any]]:
        """Return the totals, one row."""
        ledger, plan = self.ledger, self.plan
        waiting = ledger.descent.waiting if ledger.descent is not None else 0
        held = sum(key is not None for key in list(ledger.entries.values()))
        return [
            {
                "run": plan.run, "name": plan.name, "kind": "inlet",
                "host": plan.source, "waiting": waiting, "held": held,
                "sent": ledger.received, "settled": ledger.settled,
                "repeated": ledger.repeated, "taken_back": 0, "links": ledger.links,
                "is_connected": self.is_connected, "problem": self.problem,
            }
        ]  # fmt: skip

    def fence(self, generation: str) -> None:
        """Begin again: what is in the queues here is dropped; under the run's lock."""
        self.ledger.fence(generation)
        if not self.plan.is_home:
            for queue in self.queues:
                empty(queue)
        self.cut()
        self._wake.set()

    def cut(self) -> None:
        """Close the channel; another one is dialled."""
        if (talk := self._talk) is not None:
            talk.close()

    def close(self) -> None:
        """End the thread."""
        self._is_closed = True
        self._wake.set()
        self.cut()
        self._thread.join(DIAL_S + 2)
        self._close_queues()

    def _close_queues(self) -> None:
        for queue in self.queues:
            queue.close()

    # ---- the thread

    def _run(self) -> None:
        backoff = Backoff()
        while not self._is_closed:
            try:
                self._talk_once(backoff)
            except Exception as error:  # of this edge alone: told, and tried again
                self._fail(str(error) or repr(error))
            if not self._is_closed:
                self._wake.clear()
                now = time.monotonic()
                self._wake.wait(backoff.failed(now) - now)

    def _fail(self, problem: str) -> None:
        if self._is_closed:
            return
        if problem != self.problem:
            self._edges.report(f"edge {self.plan.name}: {problem}")
        self.problem = problem

    def _talk_once(self, backoff: Backoff) -> None:
        plan, edges = self.plan, self._edges
        channel = edges.carrier.dial(
            edges.address_of(plan.source), plan.source, _channel_name(plan.name),
            DIAL_S,
        )  # fmt: skip
        session = LinkSession(
            edges.me, plan.source, time.monotonic(), beat_s=CALM_BEAT_S
        )
        talk = Conversation(channel, session, _RECEIVE_BYTES)
        try:
            early = list(talk.greet(DIAL_S))
            self._done, self._is_checked = 0, False
            self._talk = talk
            if self._is_closed:
                return
            with self.lock:
                want = self.ledger.want()
            talk.send(want)
            self._take_messages(talk, early)
            while not self._is_closed:
                self._step(talk, backoff)
        finally:
            self._talk = None
            talk.close()

    def _step(self, talk: Conversation, backoff: Backoff) -> None:
        ledger = self.ledger
        is_full = self._take(talk)
        now = time.monotonic()
        with self.lock:
            ledger.look(now)
            settled, grant = ledger.settled_due(), ledger.grant_due()
            wake = ledger.next_look(now)
        if settled:
            data = numbers_batch(SETTLED, settled)
            talk.send_frames(data, len(data))
        talk.send(*[grant] if grant is not None else [])
        if ledger.is_open:
            backoff.succeeded()
            self.problem = ""
        pause = min(talk.wait_time(now), max(wake - now, 0.0))
        if is_full:
            pause = min(pause, _FULL_S)
            if talk.is_full:
                time.sleep(pause)
                return
        found = talk.receive(pause)
        while found and talk.lacks and time.monotonic() - now < _TURN_S:
            if is_data(talk.buffer, talk.start, talk.stop):
                _make_room(talk)
            found = talk.receive(_FULL_S)

    def _take(self, talk: Conversation) -> bool:
        """Take what has arrived; return whether the inbox is full."""
        while talk.start < talk.stop:
            before = talk.start, self._done
            if is_data(talk.buffer, talk.start, talk.stop):
                if self._take_batch(talk):
                    return True
            else:
                self._take_messages(talk, list(talk.messages(has_frames=True)))
            if (talk.start, self._done) == before:
                return False
        return False

    def _take_messages(self, talk: Conversation, messages: list[LinkMessage]) -> None:
        for message in messages:
            match message:
                case EdgeOffer():
                    with self.lock:
                        self.ledger.offer(message)
                    self._refuse_revoked(talk)
                case EdgeConfirm():
                    with self.lock:
                        self.ledger.confirm(message)
                case EdgeFence():
                    self._edges.told_to_fence(message, self.plan.source)
                    self._await_fence(message.generation)
                    raise ChannelClosed("the values here were given to other hosts")
                case _:
                    raise BadMessage(f"unexpected {type(message).__name__}")

    def _refuse_revoked(self, talk: Conversation) -> None:
        """Take nothing of a host whose values were given to others."""
        plan, generation = self.plan, self.ledger.source_generation
        if self._edges.is_revoked(plan.run, plan.source, generation):
            talk.send(EdgeFence(plan.run, generation))
            with contextlib.suppress(ChannelClosed):
                talk.receive(DIAL_S)
            raise ChannelClosed(f"the values of {plan.source} were given to others")

    def _await_fence(self, generation: str) -> None:
        while not self._is_closed and self.ledger.generation == generation:
            self._wake.clear()
            self._wake.wait(_POLL_S)

    def _take_batch(self, talk: Conversation) -> bool:
        """Take a batch, or a part of one; return whether the inbox is full."""
        if not self._is_checked:
            _make_room(talk)
            if next_batch(talk.buffer, talk.start, talk.stop) is None:
                return False
            self._is_checked = True
        size = batch_bytes(talk.buffer, talk.start, talk.stop)
        start, end = talk.start + HEADER_BYTES, talk.start + size
        kind = talk.buffer[talk.start + 16]
        if kind == HELD:
            batch = next_batch(talk.buffer, talk.start, talk.stop)
            numbers = numbers_of(talk.buffer, batch)
            with self.lock:
                needs = self.ledger.held(numbers)
            if numbers:  # the other side waits for it
                data = numbers_batch(NEEDS, needs)
                talk.send_frames(data, len(data))
        elif kind in (LEASES, BACK):
            self._refuse_revoked(talk)
            with self.lock:
                at, is_full = self.ledger.put(
                    talk.buffer, start + self._done, end, has_credit=kind == LEASES
                )
            self._done = at - start
            if is_full:
                return True
        else:
            raise BadMessage(f"unexpected batch of kind {kind}")
        talk.start, self._done, self._is_checked = end, 0, False
        return False


def _channel_name(edge: str) -> str:
    """Return the name of an edge's channel, which is told to nothing but logs."""
    data = f"{EDGE}{edge}".encode()[:NAME_BYTES]
    return data.decode("utf-8", "ignore")


def _make_room(talk: Conversation) -> None:
    """Let the buffer have room for the batch that begins to arrive."""
    size = batch_bytes(talk.buffer, talk.start, talk.stop)
    if size + _ROOM > len(talk.buffer):
        talk.grow(size + _ROOM)


def empty(queue: MemQ) -> None:
    """Drop every frame of a queue whose getters have ended."""
    queue.sweep()
    while True:
        try:
            queue.lease(False).acknowledge()
        except QueueEmpty:
            return
        except CorruptFrame:
            continue


class _EdgeRun:
    """What the edges of a run share on this host."""

    def __init__(self) -> None:
        self.generation = secrets.token_hex(8)
        self.roots = LaneRoots(lane_of)
        self.lock = threading.RLock()
        self.is_told = False
        """Whether `on_fence` was called in this generation."""


class Edges:
    """All edges that begin or end on this host; one object in each agent.

    Parameters
    ----------
    me : Hello
        What this agent says of itself.
    carrier : Carrier
        Dials other hosts.
    address_of : callable
        Returns the address of a host.
    context : Context
        Where the queues are.
    report : callable
        Called with a line of text.

    Attributes
    ----------
    on_fence : callable
        Called, once a generation, with a run and the reason when its workers here must
        end at once, as their values were given to other hosts; then `fence` has to be
        called. It returns soon: a thread of an edge waits.
    """

    def __init__(
        self,
        me: Hello,
        carrier: Carrier,
        address_of: Callable[[str], str],
        context: Context,
        report: Report,
    ) -> None:
        self.me, self.carrier, self.address_of = me, carrier, address_of
        self.context, self.report = context, report
        self.on_fence: Callable[[str, str], object] = lambda run, why: None
        self._gate = threading.RLock()
        self._runs: dict[str, _EdgeRun] = {}
        self._outlets: dict[tuple[str, str], EdgeOutlet] = {}
        self._inlets: dict[tuple[str, str, str], EdgeInlet] = {}
        self._revoked: set[tuple[str, str, str]] = set()

    # ---- runs

    def _run(self, run: str) -> _EdgeRun:
        with self._gate:
            return self._runs.setdefault(run, _EdgeRun())

    def generation(self, run: str) -> str:
        """Return the id of all that this host has of a run; a fence gives a new one."""
        return self._run(run).generation

    def roots(self, run: str) -> tuple[LaneRoots, threading.RLock]:
        """Return the lanes of a run here, and the lock of its inlets."""
        found = self._run(run)
        return found.roots, found.lock

    def connect(self, plan: EdgePlan) -> None:
        """Begin the part of an edge that is on this host; its queues exist.

        Raises
        ------
        SegmentNotFound
            One of the queues does not exist.
        ValueError
            No part of it is on this host.
        """
        if self.me.host not in (plan.source, plan.to) or plan.source == plan.to:
            raise ValueError(f"edge {plan.name!r} is not one of host {self.me.host!r}")
        with self._gate:
            if plan.source == self.me.host:
                outlet = self._outlets.get((plan.run, plan.name))
                if outlet is None:
                    self._outlets[plan.run, plan.name] = EdgeOutlet(plan, self)
                else:
                    outlet.hosts.add(plan.to)
                return
            key = plan.run, plan.name, plan.source
            known = self._inlets.get(key)
            if known is not None:
                if known.plan == plan:
                    return
                raise ValueError(f"edge {plan.name!r} is here already, as {known.plan}")
            inlet = self._inlets[key] = EdgeInlet(plan, self)
        inlet.start()

    def finish(self, run: str, name: str) -> None:
        """Lease nothing more from a queue here that is idle and has readers here, too.

        The last frames that follow are for these. Does nothing without such an edge.
        """
        with self._gate:
            outlet = self._outlets.get((run, name))
        if outlet is not None:
            outlet.finish()

    def release(self, run: str) -> None:
        """End all edges of a run here; the queues stay."""
        with self._gate:
            inlets = [self._inlets.pop(k) for k in list(self._inlets) if k[0] == run]
            outlets = [self._outlets.pop(k) for k in list(self._outlets) if k[0] == run]
            self._runs.pop(run, None)
            self._revoked = {row for row in self._revoked if row[0] != run}
        for inlet in inlets:
            inlet.close()
        for outlet in outlets:
            outlet.close()

    def close(self) -> None:
        """End all edges."""
        for run in {*self._runs, *(k[0] for k in [*self._outlets, *self._inlets])}:
            self.release(run)

    # ---- channels of other hosts

    def serve(self, channel: Channel) -> None:
        """Serve a channel that the host of an inbox has dialled, until it ends."""
        session = LinkSession(
            self.me, channel.peer, time.monotonic(), beat_s=CALM_BEAT_S
        )
        talk = Conversation(channel, session)
        try:
            waiting = list(talk.greet(DIAL_S))
            while not waiting:
                talk.send()
                talk.receive(min(talk.wait_time(time.monotonic()), _IDLE_S))
                waiting += talk.messages(has_frames=True)
            want = waiting.pop(0)
            if not isinstance(want, EdgeWant):
                raise BadMessage(f"expected 'edge want', got {type(want).__name__}")
            self._found(want, channel.peer).serve(talk, want, waiting)
        except (ChannelClosed, TimeoutError):
            raise
        except (AtaraxisError, OSError, ValueError) as error:
            talk.refuse(f"{type(error).__name__}: {error}"[:4000])
            raise
        finally:
            talk.close()

    def _found(self, want: EdgeWant, host: str) -> EdgeOutlet:
        """Return the edge queue that a host asks for."""
        with self._gate:
            outlet = self._outlets.get((want.run, want.edge))
        me = self.me.host
        if outlet is None:
            raise SourceNotFound(
                f"edge {want.edge!r} of run {want.run!r} is not known on {me!r}"
            )
        if host not in outlet.hosts:
            raise AccessDenied(
                f"host {host!r} has no part of edge {want.edge!r} on {me!r}: connect "
                "its plan there first"
            )
        return outlet

    # ---- fences

    def fence(self, run: str) -> str:
        """Begin a run again here: its workers have ended, nothing of it is kept.

        Empties the inboxes of its edges, the queues behind them, and the edge queues of
        this host; returns the new generation, which the other hosts are told.
        """
        found = self._run(run)
        with self._gate:
            inlets = [e for k, e in self._inlets.items() if k[0] == run]
            outlets = [e for k, e in self._outlets.items() if k[0] == run]
        with found.lock:
            found.generation, found.is_told = secrets.token_hex(8), False
            for outlet in outlets:
                outlet.drop()
            for inlet in inlets:
                inlet.fence(found.generation)
        return found.generation

    def told_to_fence(self, message: EdgeFence, host: str) -> None:
        """Take what another host says: its values here were given to others."""
        found = self._run(message.run)
        with self._gate:
            is_new = message.generation == found.generation and not found.is_told
            found.is_told |= is_new
        if is_new:
            self.on_fence(message.run, f"host {host} has given its values to others")

    def lost(
        self, host: str, run: str | None = None, generation: str | None = None
    ) -> int:
        """Take back what a host has: its lease and the grace are over.

        Parameters
        ----------
        host : str
            The host.
        run : str, optional
            By default, of all runs.
        generation : str, optional
            What `generation` was there, as the host told. Given, this has no effect on
            a host that has begun again meanwhile.

        Returns
        -------
        int
            How many values were taken back. What the host sends of that generation is
            refused from now on.
        """
        count = 0
        for outlet, inlet in self._of(host, run):
            if outlet is not None:
                with outlet.lock:
                    leases = outlet.ledger.hosts.get(host)
                    known = "" if leases is None else leases.generation
                self._revoke(outlet.run, host, generation or known)
                count += outlet.lost(host, generation or "")
            if inlet is not None:
                known = inlet.ledger.source_generation
                self._revoke(inlet.plan.run, host, generation or known)
                inlet.cut()
        return count

    def fenced(self, host: str, generation: str, run: str | None = None) -> int:
        """Take back what a host had before a generation: its workers have ended."""
        count = 0
        for outlet, _ in self._of(host, run):
            if outlet is not None:
                count += outlet.fenced(host, generation)
        return count

    def _of(
        self, host: str, run: str | None
    ) -> list[tuple[EdgeOutlet | None, EdgeInlet | None]]:
        with self._gate:
            outlets = [e for k, e in self._outlets.items() if run in (None, k[0])]
            inlets = [
                e
                for k, e in self._inlets.items()
                if run in (None, k[0]) and k[2] == host
            ]
        return [*((e, None) for e in outlets), *((None, e) for e in inlets)]

    def _revoke(self, run: str, host: str, generation: str) -> None:
        if generation:
            with self._gate:
                self._revoked.add((run, host, generation))

    def is_revoked(self, run: str, host: str, generation: str) -> bool:
        """Whether the values of a host's generation were given to others."""
        return (run, host, generation) in self._revoked

    # ---- what is

    def idle(self, run: str) -> bool:
        """Whether no value waits in, or is leased from, an edge queue of this host."""
        with self._gate:
            outlets = [e for k, e in self._outlets.items() if k[0] == run]
        return all(outlet.is_idle for outlet in outlets)

    def statistics(self) -> list[dict[str, Any]]:
        """Return the totals of each edge here, JSON-able."""
        with self._gate:
            parts: list[EdgeOutlet | EdgeInlet] = [
                *self._outlets.values(),
                *self._inlets.values(),
            ]
        return [row for part in parts for row in part.statistics()]
