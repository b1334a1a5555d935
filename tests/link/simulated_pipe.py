"""Pipes over many hosts in one process: real ledgers of edges, all else simulated.

Each group of hosts is a pipe: its values are put at `home`, go to hosts that compete,
through two processors there, over a second edge to one or two other hosts, and home.
Where the second stage has one host, that one puts its values in order; it may be one of
those that compete. Hosts are wiped
and frozen, workers killed, links cut, for less and for more than the lease.
`Home` is what an engine does: it measures leases, and says which hosts are lost.
"""

from __future__ import annotations

import heapq
import itertools
import random
import zlib
from collections.abc import Callable, Collection, Sequence
from typing import Any

from simulated_lab import Broken, End, Link

from ataraxis.errors import BadMessage
from ataraxis.frame import HEADER_BYTES
from ataraxis.link.edge import (
    FOREIGN,
    DescentLook,
    InboxLedger,
    LaneRoots,
    LeaseLedger,
    LeaseLink,
    key_of,
)
from ataraxis.link.edge_batches import (
    BACK,
    HELD,
    LEASES,
    NEEDS,
    RECORD,
    SETTLED,
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
    encode,
    is_data,
    next_message,
)
from ataraxis.link.session import DEAD_S, Backoff
from ataraxis.pipeline.frames import HEAD_LANE, lane_of

LEASE_S, GRACE_S, TICK_S, FENCE_S = 5.0, 2.0, 0.1, 0.3
READY, LEASED, BACK_AGAIN = "ready", "leased", "back"
Value = tuple[int, int, int]
"""Lane, sequence, and which processor made it."""


class SimQueue:
    """A work queue: as `MemQ`, and what the kernels of edges do with it."""

    _ids = itertools.count()

    def __init__(self, slots: int = 256) -> None:
        self.slots, self.id = slots, f"q{next(self._ids)}"
        self.next = 0
        self.frames: dict[int, Value] = {}
        self.state: dict[int, str] = {}
        self.last: list[int] = []

    # a queue

    def offer(self, value: Value) -> bool:
        if len(self.frames) >= self.slots:
            return False
        self.frames[self.next], self.state[self.next] = value, READY
        self.next += 1
        return True

    def lease(self, *, only_back: bool = False) -> int | None:
        wanted = (BACK_AGAIN,) if only_back else (BACK_AGAIN, READY)
        for state in wanted:
            for number, found in self.state.items():
                if found == state:
                    self.state[number] = LEASED
                    return number
        return None

    def acknowledge(self, number: int) -> None:
        if self.state.pop(number) != LEASED:
            raise Broken(f"{number} is acknowledged without a lease")
        del self.frames[number]

    # LeasedQueue

    def take(
        self, buffer: Any, start: int, most: int, only_back: bool
    ) -> tuple[int, list[int]]:
        numbers: list[int] = []
        while len(numbers) < most:
            number = self.lease(only_back=only_back)
            if number is None:
                break
            numbers.append(number)
        end, count = self.copy(numbers, buffer, start)
        self.give_back(numbers[count:])
        return end, numbers[:count]

    def copy(self, numbers: Sequence[int], buffer: Any, start: int) -> tuple[int, int]:
        for count, number in enumerate(numbers):
            if start + RECORD.size + 24 > len(buffer):
                return start, count
            lane, sequence, source = self.frames[number]
            RECORD.pack_into(buffer, start, number, 24)
            RECORD.pack_into(buffer, start + 16, lane, sequence)
            buffer[start + 32 : start + 40] = source.to_bytes(8, "little")
            start += 40
        return start, len(numbers)

    def settle(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self.acknowledge(number)

    def give_back(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            if self.state[number] != LEASED:
                raise Broken(f"{number} is given back without a lease")
            self.state[number] = BACK_AGAIN

    @property
    def has_waiting(self) -> bool:
        return any(state != LEASED for state in self.state.values())

    # EdgeInbox

    def put(
        self, buffer: Any, start: int, stop: int, known: Collection[int]
    ) -> tuple[int, list[int], list[int], set[int], int, bool, str]:
        numbers: list[int] = []
        keys: list[int] = []
        lanes: set[int] = set()
        repeated = 0
        while start < stop:
            number, _ = RECORD.unpack_from(buffer, start)
            lane, sequence = RECORD.unpack_from(buffer, start + 16)
            source = int.from_bytes(buffer[start + 32 : start + 40], "little")
            if number in known:
                repeated += 1
            else:
                if not self.offer((lane, sequence, source)):
                    return start, numbers, keys, lanes, repeated, True, ""
                numbers.append(number)
                keys.append(key_of(lane, sequence))
                lanes.add(lane)
            start += 40
        return start, numbers, keys, lanes, repeated, False, ""

    # ScannedQueue

    def scan(self, roots: dict[int, Any], keys: set[int]) -> tuple[Any, ...]:
        unknown, foreign = set[int](), list[int]()
        for number, (lane, sequence, _) in self.frames.items():
            root = roots.get(lane)
            if root is None:
                unknown.add(lane)
            elif root == FOREIGN:
                foreign.append(number)
            else:
                several = root if isinstance(root, tuple) else (root,)
                keys.update(key_of(each, sequence) for each in several)
        waiting = sum(state != LEASED for state in self.state.values())
        return unknown, min(foreign, default=None), self.next, waiting


class SimWorker:
    """A worker: one value at a time, or, if it puts them in order, all that are early.

    `emits`: it numbers what it makes itself.
    """

    def __init__(
        self, host: SimHost, name: str, inbox: str, out: str, index: int, *,
        is_ordered: bool = False, emits: bool = False,
    ) -> None:  # fmt: skip
        self.host, self.name = host, name
        self.inbox, self.out, self.index = inbox, out, index
        self.is_ordered, self.emits = is_ordered, emits
        self.early: dict[int, int] = {}
        self.taken: int | None = None
        self.made: Value | None = None
        self.next = self.emitted = 0

    def kill(self) -> None:
        """End: what it has leased goes back."""
        queue = self.host.queues[self.inbox]
        taken = [] if self.taken is None else [self.taken]
        queue.give_back([*taken, *self.early.values()])
        self.taken = self.made = None
        self.early.clear()

    def step(self) -> None:
        queue = self.host.queues[self.inbox]
        if self.taken is None:
            self._take(queue)
            return
        lane, sequence, _ = queue.frames[self.taken]
        if self.made is None:
            made = lane_of(lane, self.index), sequence, self.index
            if self.emits:
                # One for each process of a worker, as `WorkerIO` has it.
                process = zlib.crc32(self.host.name.encode()) + self.host.starts
                own = lane_of(self.index + 1, process)
                made = own, self.host.emit(sequence), self.index
            if self.host.queues[self.out].offer(made):
                self.made = made
            return
        queue.acknowledge(self.taken)
        if self.is_ordered:
            self.next = max(self.next, sequence + 1)
        self.taken = self.made = None

    def _take(self, queue: SimQueue) -> None:
        if not self.is_ordered:
            self.taken = queue.lease()
            return
        while (number := queue.lease()) is not None:
            sequence = queue.frames[number][1]
            if sequence < self.next or sequence in self.early:
                queue.acknowledge(number)  # a repeat, as an `Inbox` does it
            else:
                self.early[sequence] = number
        self.taken = self.early.pop(self.next, None)


class SimEdge:
    """An edge that ends at a host, and dials."""

    def __init__(
        self, host: SimHost, source: SimHost, run: int, name: str, inbox: str,
        path: tuple[str, ...], steps: Sequence[tuple[int, int]] = (),
    ) -> None:  # fmt: skip
        self.host, self.source, self.run, self.name = host, source, run, name
        self.inbox, self.path, self.steps = inbox, path, steps
        self.backoff = Backoff()
        self.end: InboxEnd | None = None
        self.make()

    def make(self) -> None:
        """Make the ledger, after a start of the agent."""
        host = self.host
        queues = [host.queues[name] for name in (self.inbox, *self.path)]
        descent = None
        if not host.is_home:
            descent = host.lab.descent_class(queues, host.roots, self.steps)
        self.ledger = host.lab.inbox_class(
            queues[0], descent, str(self.run), self.name, host.generation
        )

    def dial(self) -> None:
        host, source, lab = self.host, self.source, self.host.lab
        if self.end is not None or not host.is_alive:
            return
        if host.is_frozen:
            lab.at(lab.now + 0.5, self.dial)
            return
        pair = (host.name, source.name)
        if not source.is_running or {pair, pair[::-1]} & lab.silent:
            self.lost_link()
            return
        link = Link(lab, host, source)  # type: ignore[arg-type]
        self.end = InboxEnd(self, link)
        far = SourceEnd(self.run, self.name, source, link, host.name)
        link.there.arrive, link.back.arrive = far.arrived, self.end.arrived
        lab.links.append(link)
        self.end.poke()
        far.poke()

    def lost_link(self) -> None:
        self.end = None
        now = self.host.clock()
        wait = self.backoff.failed(now) - now
        self.host.lab.at(self.host.lab.now + wait, self.dial)


class EdgeEnd(End):
    """An end of an edge's channel; of a frozen host it does nothing."""

    def arrived(self, data: bytes) -> None:
        if self.host.is_frozen:
            self.host.later.append(lambda: self.arrived(data))
        else:
            super().arrived(data)

    def poke(self) -> None:
        if self.host.is_frozen:
            self.host.later.append(self.poke)
        else:
            super().poke()

    def consume(self, now: float) -> None:
        view, at = memoryview(bytes(self.data)), 0
        while at < len(view):
            if is_data(view, at, len(view)):
                batch = next_batch(view, at, len(view))
                if batch is None or not self.take_batch(view, batch):
                    break
                at = batch.end
                continue
            message, end = next_message(view, at, len(view))
            if message is None:
                break
            at = end
            if not self.session.take(message, now):
                self.take_message(message)
            if self.is_closed:
                return
        del self.data[:at]

    def take_batch(self, view: memoryview, batch: Any) -> bool: ...
    def take_message(self, message: Any) -> None: ...


class SourceEnd(EdgeEnd):
    """The end at an edge queue."""

    def __init__(
        self, run: int, name: str, host: SimHost, link: Link, peer: str
    ) -> None:
        super().__init__(host, link, link.back, peer)  # type: ignore[arg-type]
        self.run, self.ledger = run, host.outlets[run, name]
        self.lease_link: LeaseLink | None = None
        host.serving.append(self)
        self.buffer = memoryview(bytearray(HEADER_BYTES + 40 * 50))

    def take_message(self, message: Any) -> None:
        match message:
            case EdgeWant():
                link, answer, held = self.ledger.want(self.session.peer, message)
                self.out.send(encode(answer))
                self.lease_link = link
                if link is not None:
                    self.out.send(numbers_batch(HELD, held))
            case EdgeGrant() if self.lease_link is not None:
                self.ledger.grant(self.lease_link, message)
            case EdgeFence():
                self.host.told_to_fence(message.generation)
                self.closed()
            case _:
                raise BadMessage(f"unexpected {message}")

    def take_batch(self, view: memoryview, batch: Any) -> bool:
        numbers, link = numbers_of(view, batch), self.lease_link
        if link is None:
            return True
        if batch.kind == NEEDS:
            self.ledger.need(link, numbers)
        else:
            held = self.ledger.hosts[link.host].held
            for number in numbers if link.is_current else ():
                if number in held:
                    self.host.lab.settled(self, self.ledger.queue.frames[number])
            self.out.send(encode(self.ledger.settle(link, numbers)))
        return True

    def emit(self, now: float) -> None:
        link = self.lease_link
        if link is None:
            return
        if not link.is_current:
            self.closed()
            return
        while (count := self.ledger.fill(link, self.buffer)) > 0:
            self.out.send(bytes(self.buffer[:count]))
        if link.sent > link.granted:
            raise Broken(f"{link.sent} values were sent, {link.granted} granted")

    def next_wake(self, now: float) -> float:
        return now + 0.05

    def ended(self) -> None:
        self.ledger.lost_link(self.lease_link)
        if self in self.host.serving:
            self.host.serving.remove(self)


class InboxEnd(EdgeEnd):
    """The end at an inbox."""

    def __init__(self, edge: SimEdge, link: Link) -> None:
        super().__init__(edge.host, link, link.there, edge.source.name)  # type: ignore[arg-type]
        self.edge, self.ledger = edge, edge.ledger
        self.has_asked = False
        self.offset = 0

    def take_message(self, message: Any) -> None:
        match message:
            case EdgeOffer():
                self.ledger.offer(message)
                self._refuse_revoked()
            case EdgeConfirm():
                self.ledger.confirm(message)
            case EdgeFence():
                self.host.told_to_fence(message.generation)
                self.closed()
            case _:
                raise BadMessage(f"unexpected {message}")

    def _refuse_revoked(self) -> bool:
        source = self.edge.source.name
        if (source, self.ledger.source_generation) not in self.host.revoked:
            return False
        generation = self.ledger.source_generation
        self.out.send(encode(EdgeFence(str(self.edge.run), generation)))
        self.lab.at(self.lab.now + 0.1, self.closed)
        self.ledger.is_open = False
        return True

    def take_batch(self, view: memoryview, batch: Any) -> bool:
        if not self.ledger.is_open:
            return True
        if self._refuse_revoked():
            return True
        if batch.kind == HELD:
            numbers = numbers_of(view, batch)
            needs = self.ledger.held(numbers)
            if numbers:
                self.out.send(numbers_batch(NEEDS, needs))
            return True
        assert batch.kind in (LEASES, BACK)
        self.lab.arrives(self.edge, view, batch)
        at, is_full = self.ledger.put(
            view, batch.start + self.offset, batch.end, has_credit=batch.kind == LEASES
        )
        self.offset = at - batch.start if is_full else 0
        return not is_full

    def emit(self, now: float) -> None:
        if not self.has_asked:
            self.has_asked = True
            self.ledger.generation = self.host.generation
            self.out.send(encode(self.ledger.want()))
            self.edge.backoff.succeeded()
        self.ledger.look(now)
        if settled := self.ledger.settled_due():
            self.out.send(numbers_batch(SETTLED, settled))
        if grant := self.ledger.grant_due():
            self.out.send(encode(grant))

    def next_wake(self, now: float) -> float:
        return min(self.ledger.next_look(now), now + 0.2)

    def ended(self) -> None:
        if self.edge.end is self:
            self.edge.lost_link()


class SimHost:
    """A machine with an agent, and the queues and workers of a run."""

    def __init__(self, lab: PipeLab, name: str, *, is_home: bool = False) -> None:
        self.lab, self.name, self.is_home = lab, name, is_home
        self.offset = lab.random.uniform(0, 1e4)
        self.is_alive, self.is_frozen = True, False
        self.starts = 0
        self.generation_count = 0
        self.generation = self.told = f"{name}.0"
        self.roots = self.lab.roots_class(lane_of)
        self.queues: dict[str, SimQueue] = {}
        self.outlets: dict[tuple[int, str], LeaseLedger] = {}
        self.edges: list[SimEdge] = []
        self.workers: list[SimWorker] = []
        self.serving: list[SourceEnd] = []
        self.later: list[Callable[[], None]] = []
        self.revoked: set[tuple[str, str]] = set()
        self.beat = self.heard = 0.0
        self.run_lost = False
        self.is_fencing = False

    # what `End` needs

    def hello(self) -> Hello:
        agent = f"{self.name}-{self.starts}"
        return Hello("lab", self.name, "boot", agent)

    def clock(self) -> float:
        return self.lab.now + self.offset

    @property
    def is_running(self) -> bool:
        return self.is_alive and not self.is_frozen

    # a run

    def add_outlet(self, run: int, name: str) -> None:
        self.outlets[run, name] = self.lab.lease_class(
            self.queues[name], self.queues[name].id, lambda: self.generation,
            self.queues[name].slots,
        )  # fmt: skip

    def emit(self, sequence: int) -> int:
        """Number what a worker emits itself; the lab remembers what it was made of."""
        number = len(self.lab.emissions) + 7_000_000
        self.lab.emissions[number] = sequence
        return number

    def told_to_fence(self, generation: str) -> None:
        if generation == self.generation:
            self.fence()

    def fence(self) -> None:
        """End the workers; once they have ended, begin again."""
        if self.is_fencing or self.is_home:
            return
        self.is_fencing = True
        for worker in self.workers:
            worker.kill()
        start = self.starts

        def ended() -> None:
            if self.starts == start and self.is_alive:
                self.is_fencing = False
                self._begin_anew()

        self.lab.at(self.lab.now + FENCE_S * self.lab.draw(), ended)

    def _begin_anew(self) -> None:
        self.generation_count += 1
        self.generation = f"{self.name}.{self.generation_count}"
        for ledger in self.outlets.values():
            ledger.drop()
        for edge in self.edges:
            edge.ledger.fence(self.generation)
        for queue in self.queues.values():
            queue.frames.clear()
            queue.state.clear()
        self._reset_order()
        self._close_ends()

    def _reset_order(self) -> None:
        """Let workers that put values in order go on after what is at home.

        What they had finished beyond that went with the queues here.
        """
        run = int(self.name[1:].partition("-")[0])
        found = self.lab.results[run]
        first = next(k for k in itertools.count() if k not in found)
        for worker in self.workers:
            worker.next = first

    def _close_ends(self) -> None:
        for end in [*self.serving, *(e.end for e in self.edges if e.end is not None)]:
            end.closed()

    def wipe(self) -> None:
        """Lose everything; come back after a while."""
        if self.is_home or not self.is_alive:
            return
        self.is_alive = False
        self.starts += 1
        for worker in self.workers:
            worker.taken = worker.made = None
            worker.early.clear()
        ends = [*self.serving, *(e.end for e in self.edges if e.end is not None)]
        for end in ends:
            end.closed()
        self.serving.clear()
        self.later.clear()
        self.is_frozen = self.is_fencing = False
        for edge in self.edges:
            edge.end = None
        self.lab.at(self.lab.now + self.lab.random.uniform(0.5, 9), self.start)

    def start(self) -> None:
        self.is_alive = True
        self.generation_count += 1
        self.generation = f"{self.name}.{self.generation_count}"
        self.roots = self.lab.roots_class(lane_of)
        self.queues = {name: SimQueue(q.slots) for name, q in self.queues.items()}
        for run, name in list(self.outlets):
            self.add_outlet(run, name)
        self._reset_order()
        self.beat = self.lab.now
        for edge in self.edges:
            edge.make()
            edge.dial()

    def freeze(self, seconds: float) -> None:
        if self.is_home or not self.is_running:
            return
        self.is_frozen = True

        def thaw() -> None:
            if not self.is_frozen:
                return
            self.is_frozen = False
            later, self.later = self.later, []
            for work in later:
                self.lab.at(self.lab.now + 0.2 * self.lab.random.random(), work)

        self.lab.at(self.lab.now + seconds, thaw)


class PipeLab:
    """Hosts, pipes, faults, time."""

    def __init__(
        self, seed: int, *, groups: int = 1, values: int = 150,
        lease_class: type[LeaseLedger] = LeaseLedger,
        inbox_class: type[InboxLedger] = InboxLedger,
        descent_class: type[DescentLook] = DescentLook,
        roots_class: type[LaneRoots] = LaneRoots,
        emits: bool | None = None, shares: bool | None = None,
    ) -> None:  # fmt: skip
        self.random = random.Random(seed)
        self.roots_class = roots_class
        self.lease_class, self.inbox_class = lease_class, inbox_class
        self.descent_class = descent_class
        self.now, self.delay = 0.0, 0.004
        self.heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self.links: list[Link] = []
        self.silent: set[tuple[str, str]] = set()
        self.bad: list[str] = []
        self.values, self.is_calm = values, False
        self.home = SimHost(self, "home", is_home=True)
        self.hosts: list[SimHost] = []
        self.results: dict[int, set[int]] = {}
        self.emissions: dict[int, int] = {}
        self.raw = self.taken_back = 0
        self.orders: list[tuple[SimHost, str, str]] = []
        for run in range(groups):
            is_shared = random.Random(seed + run).random() < 0.3
            self._make(
                run, self.random.random() < 0.3 if emits is None else emits,
                shares=is_shared if shares is None else shares,
            )  # fmt: skip
        for host in [self.home, *self.hosts]:
            for edge in host.edges:
                edge.dial()
            for worker in host.workers:
                self._work(worker)
        self.at(TICK_S, self._tick)

    def _make(self, run: int, emits: bool, shares: bool) -> None:
        """Make a pipe: home, 2 or 3 hosts that compete, 1 or 2 hosts, home.

        `shares`: the second stage is on the first of those that compete.
        """
        name, home = f"r{run}", self.home
        first = [
            SimHost(self, f"{name}-b{k}") for k in range(self.random.choice((2, 3)))
        ]
        second = [
            SimHost(self, f"{name}-c{k}") for k in range(self.random.choice((1, 2)))
        ]
        if shares:
            second = first[:1]
        is_ordered = len(second) == 1 and not emits
        self.results[run] = set()
        home.queues[f"{name}.1"] = SimQueue(400)
        home.queues[f"{name}.end"] = SimQueue(10_000)
        home.add_outlet(run, f"{name}.1")
        for host in first:
            path, steps = ("mid", f"{name}.2"), [(-1, 0), (0, 1)]
            if host in second:
                path, steps = ("mid", "own", f"{name}.3"), [*steps, (1, 2)]
            for queue in ("in", *path):
                host.queues[queue] = SimQueue(400)
            host.add_outlet(run, path[-1])
            host.workers = [
                SimWorker(host, "p0", "in", "mid", 0),
                SimWorker(host, "p0b", "in", "mid", 0),
                SimWorker(host, "p1", "mid", path[1], 1, emits=emits),
            ]
            host.edges.append(SimEdge(host, home, run, f"{name}.1", "in", path, steps))
        for host in second:
            inbox = "own" if host in first else "in"
            for queue in (inbox, f"{name}.3"):
                host.queues.setdefault(queue, SimQueue(400))
            if (run, f"{name}.3") not in host.outlets:
                host.add_outlet(run, f"{name}.3")
            host.workers.append(
                SimWorker(host, "p2", inbox, f"{name}.3", 2, is_ordered=is_ordered)
            )
            edge, steps = f"{name}.2", [(-1, 2)]
            host.edges += [
                SimEdge(host, source, run, edge, inbox, (f"{name}.3",), steps)
                for source in first
                if source is not host
            ]
            home.edges.append(SimEdge(home, host, run, f"{name}.3", f"{name}.end", ()))
        self.hosts += dict.fromkeys([*first, *second])
        self._feed(run, home.queues[f"{name}.1"])

    # time, as `Lab`

    def draw(self) -> float:
        return self.random.uniform(0.5, 1.5)

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.heap, (max(when, self.now), next(self._count), what))

    def guard(self, host: Any, work: Callable[[], None]) -> None:
        work()

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self.heap and self.heap[0][0] <= until:
            self.now, _, work = heapq.heappop(self.heap)
            work()
        self.now = until

    # the program at home, workers, the engine

    def _feed(self, run: int, queue: SimQueue) -> None:
        numbers = iter(range(self.values))
        pending = [next(numbers)]

        def put() -> None:
            while pending and queue.offer((HEAD_LANE, pending[0], 99)):
                pending[:] = [k for k in [next(numbers, None)] if k is not None]
                if self.random.random() < 0.7:
                    break
            if pending:
                self.at(self.now + 0.03 * self.draw(), put)

        self.at(0.1, put)

    def _work(self, worker: SimWorker) -> None:
        def step() -> None:
            host = worker.host
            if host.is_running and not host.is_fencing:
                worker.step()
            self.at(self.now + 0.012 * self.draw(), step)

        self.at(0.01, step)

    def _reaches(self, host: SimHost) -> bool:
        pair = ("home", host.name)
        return host.is_running and not {pair, pair[::-1]} & self.silent

    def _tick(self) -> None:
        """Beats, leases and orders, as the engine has them."""
        for host in self.hosts:
            if self._reaches(host):
                if host.run_lost and (host.name, host.generation) in self.home.revoked:
                    host.told_to_fence(host.generation)
                else:
                    host.run_lost = False
                    host.beat = host.heard = self.now
                    host.told = host.generation
                for order in [o for o in self.orders if o[0] is host]:
                    self.orders.remove(order)
                    self._take_back(host, order[1], order[2])
            if host.is_running and self.now - host.beat > LEASE_S:
                if (
                    any(w.taken is not None or w.early for w in host.workers)
                    or host.queues["in"].frames
                    or not host.run_lost
                ):
                    host.fence()
                host.beat = self.now
            if not host.run_lost and self.now - host.heard > LEASE_S + GRACE_S:
                host.run_lost = True
                if host.is_running and host.generation == host.told:
                    busy = [w.name for w in host.workers if w.taken is not None]
                    if busy and not host.is_fencing:
                        raise Broken(f"{busy} of {host.name} run past their lease")
                self._take_back(self.home, host.name, host.told)
                self.home.revoked.add((host.name, host.told))
                self.orders += [
                    (other, host.name, host.told)
                    for other in self.hosts
                    if other is not host
                ]
        self.at(self.now + TICK_S, self._tick)

    def _take_back(self, host: SimHost, lost: str, generation: str) -> None:
        for ledger in host.outlets.values():
            self.taken_back += ledger.lost(lost, generation)

    # invariants

    def settled(self, end: SourceEnd, value: Value) -> None:
        """What home settles has its result at the sink."""
        if end.host is self.home and value[1] not in self.results[end.run]:
            raise Broken(f"value {value[1]} is settled, and its result is not here")

    def arrives(self, edge: SimEdge, view: memoryview, batch: Any) -> None:
        if edge.host is not self.home:
            return
        generation = edge.ledger.source_generation
        if (edge.source.name, generation) in self.home.revoked:
            raise Broken(f"a result of the revoked generation {generation} is taken")
        for at in range(batch.start, batch.end, 40):
            _, sequence = RECORD.unpack_from(view, at + 16)
            self.raw += 1
            self.results[edge.run].add(self.emissions.get(sequence, sequence))

    def check(self) -> None:
        """A value is leased to one host at a time."""
        for host in [self.home, *self.hosts]:
            for ledger in host.outlets.values():
                held = [n for each in ledger.hosts.values() for n in each.held]
                if len(held) != len(set(held)):
                    raise Broken("a value is leased twice")
                queue = ledger.queue
                if any(queue.state.get(n) != LEASED for n in held):
                    raise Broken("a value is leased and not held")

    # faults

    FAULTS = (
        "wipe", "kill", "cut", "cut_silently", "partition", "long_partition",
        "partition_inside", "freeze", "long_freeze", "noise", "heal",
    )  # fmt: skip

    def fault(self, what: str, k: int) -> None:
        host = self.hosts[k % len(self.hosts)]
        live = [link for link in self.links if not link.there.is_cut]
        self.links = live
        match what:
            case "wipe":
                host.wipe()
            case "kill":
                if host.is_running and not host.is_fencing:
                    host.workers[k % len(host.workers)].kill()
            case "cut" | "cut_silently" if live:
                live[k % len(live)].cut(is_told=what == "cut")
            case "noise" if live:
                live[k % len(live)].back.is_noisy = True
                live[k % len(live)].there.is_noisy = True
            case "partition" | "long_partition":
                self._part("home", host.name, 2 if what == "partition" else 9 + k % 9)
            case "partition_inside":
                other = self.hosts[(k + 1) % len(self.hosts)]
                self._part(other.name, host.name, 1 + k % 12)
            case "freeze" | "long_freeze":
                host.freeze(1.5 if what == "freeze" else 8 + k % 8)
            case "heal":
                self.heal()

    def _part(self, one: str, other: str, seconds: float) -> None:
        pairs = {(one, other), (other, one)}
        self.silent |= pairs
        for link in self.links:
            names = link.near.name, link.far.name
            link.there.is_silent |= names in pairs
            link.back.is_silent |= names[::-1] in pairs

        def heal() -> None:
            self.silent -= pairs
            for link in self.links:
                if not link.there.is_cut and (link.near.name, link.far.name) in pairs:
                    link.there.heal()
                    link.back.heal()

        self.at(self.now + seconds, heal)

    def heal(self) -> None:
        self.silent.clear()
        for link in self.links:
            if not link.there.is_cut:
                link.there.heal()
                link.back.heal()

    @property
    def is_complete(self) -> bool:
        return all(
            len(found) == self.values for found in self.results.values()
        ) and all(
            not host.queues[name].frames
            for host in [self.home, *self.hosts]
            for name in host.queues
            if not name.endswith(".end")
        )

    def finish(self, seconds: float = 120.0) -> None:
        """No more faults: every result must come, every lease must end."""
        self.heal()
        self.run(DEAD_S + LEASE_S)
        deadline = self.now + seconds
        while self.now < deadline and not self.is_complete:
            self.run(1.0)
            self.check()
        for run, found in self.results.items():
            if len(found) != self.values:
                lacking = sorted(set(range(self.values)) - found)
                raise Broken(f"pipe {run} lacks {len(lacking)} results: {lacking[:9]}")
        if not self.is_complete:
            left = {
                f"{host.name} {name}": len(queue.frames)
                for host in [self.home, *self.hosts]
                for name, queue in host.queues.items()
                if queue.frames and not name.endswith(".end")
            }
            raise Broken(f"leases do not end: {left}")
