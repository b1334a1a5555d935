"""Edges: values that workers on other hosts take, and when their leases end.

A queue of the host that puts, the edge queue, holds every value until it is settled.
`LeaseLedger` is that side: which host has which value. `InboxLedger` is the side of the
workers: what arrived, and what is settled. They do no I/O and read no clock.

A value is settled there when no queue of that host holds it, or anything made of it:
not its inbox, not the queues behind that, and not the edge queues that leave the host,
which hold their values until the next host has settled them. On the run's own host a
value is settled when it is received. See docs/decisions/0038 and tests/models/edge.pml.

A *generation* is all that one agent had of a run until its workers were ended: if a
host asks in another one, what the one before had is given to others. A generation whose
values were given away meanwhile is revoked: its host ends its workers first.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from ataraxis.errors import BadMessage
from ataraxis.frame import HEADER_BYTES
from ataraxis.link.edge_batches import BACK, LEASES, seal
from ataraxis.link.messages import (
    EdgeConfirm,
    EdgeFence,
    EdgeGrant,
    EdgeOffer,
    EdgeWant,
)

CREDIT, MOST_CREDIT = 64, 4096
"""Values that wait in an inbox, at first and at most: as many as are taken at once."""
CREDIT_BYTES = 1 << 22
LOOK_S, CALM_LOOK_S = 0.005, 0.05
"""Shortest and longest time between two looks at the queues behind an inbox, s."""
_BATCH = 1024
_GENERATIONS = 64

# ---- the side that puts


class LeasedQueue(Protocol):
    """The edge queue of a ledger; `ataraxis._kernels.edge.QueueToLink`.

    A value's number is the same at each delivery, and never another value's.
    """

    def take(
        self, buffer: Any, start: int, most: int, only_back: bool
    ) -> tuple[int, list[int]]:
        """Lease values and write them as records; without waiting.

        `only_back`: those alone that were leased before. Frames that end a stream are
        leased and not written: see `last`. An end behind the buffer, without numbers:
        so many bytes are needed.
        """

    def copy(self, numbers: Sequence[int], buffer: Any, start: int) -> tuple[int, int]:
        """Write leased values again; return the end, as `take`, and how many fit."""

    def settle(self, numbers: Sequence[int]) -> None:
        """Acknowledge leased values."""

    def give_back(self, numbers: Sequence[int]) -> None:
        """Give leased values back; they come first."""

    @property
    def last(self) -> list[int]:
        """Numbers of leased frames that end a stream."""

    @property
    def has_waiting(self) -> bool:
        """Whether a value waits that is not leased."""


class LeaseLink:
    """A channel to a host that takes values; made by `LeaseLedger.want`."""

    def __init__(self, host: str, want: EdgeWant) -> None:
        self.host, self.generation, self.ends = host, want.generation, want.ends
        self.granted, self.granted_bytes = want.frames, want.nbytes
        self.sent = self.sent_bytes = self.settlements = 0
        self.needs: deque[int] = deque()
        self.is_current = self.is_answered = True
        """`is_answered`: whether the host has said which of its values it lacks. They
        go first: else they would come after younger ones."""

    @property
    def credit(self) -> int:
        """How many values more may be sent."""
        return self.granted - self.sent if self.granted_bytes > self.sent_bytes else 0


class HostLeases:
    """What one host has leased."""

    def __init__(self) -> None:
        self.generation = ""
        self.revoked: deque[str] = deque(maxlen=_GENERATIONS)
        self.held: dict[int, None] = {}
        self.last = self.settled = 0
        self.link: LeaseLink | None = None


class LeaseLedger:
    """Which host has which value of an edge queue.

    Parameters
    ----------
    queue : LeasedQueue
        The queue.
    queue_id : str
        Its id: numbers are its own.
    generation : callable
        Returns the run's generation on this host.
    slots : int, optional
        Of the queue. Where hosts compete, one may have three quarters of them: if what
        it makes cannot leave it, the others go on.

    Notes
    -----
    One thread at a time. On each new channel `want` is called first; then what `fill`
    returns is sent while it returns something, and `grant`, `need` and `settle` get
    what arrives.
    """

    def __init__(
        self,
        queue: LeasedQueue,
        queue_id: str,
        generation: Callable[[], str],
        slots: int = 1 << 62,
    ) -> None:
        self.queue, self.queue_id, self._generation = queue, queue_id, generation
        self._most = 3 * slots // 4
        self.hosts: dict[str, HostLeases] = {}
        self.sent = self.settled = self.resent = self.taken_back = self.links = 0

    # ---- channels

    def want(
        self, host: str, want: EdgeWant
    ) -> tuple[LeaseLink | None, EdgeOffer | EdgeFence, list[int]]:
        """Begin a channel.

        Returns
        -------
        link : LeaseLink or None
            None: its generation is revoked; it asks again after its workers have ended.
        answer : EdgeOffer or EdgeFence
            To send first.
        held : list of int
            To send after the offer: the numbers of the values that the host has.
        """
        leases = self.hosts.setdefault(host, HostLeases())
        self.lost_link(leases.link)
        if want.generation in leases.revoked:
            return None, EdgeFence(want.run, want.generation), []
        if want.generation != leases.generation:
            # The host begins again: nothing of what it had is there any more.
            self._take_back(leases)
            self._revoke(leases)
            leases.generation = want.generation
        link = leases.link = LeaseLink(host, want)
        link.is_answered = not leases.held
        self.links += 1
        return link, EdgeOffer(self.queue_id, self._generation()), list(leases.held)

    def lost_link(self, link: LeaseLink | None) -> None:
        """The channel is closed. Its leases go on."""
        if link is not None:
            link.is_current = False
            if self.hosts[link.host].link is link:
                self.hosts[link.host].link = None

    # ---- what arrives

    def grant(self, link: LeaseLink, grant: EdgeGrant) -> None:
        """Take the number of values that may be sent."""
        link.granted = max(link.granted, grant.frames)
        link.granted_bytes = max(link.granted_bytes, grant.nbytes)

    def need(self, link: LeaseLink, numbers: Sequence[int]) -> None:
        """Take the numbers of values that the host has leased and that are not there.

        It answers so to numbers that it was sent, also if it lacks nothing.

        Raises
        ------
        BadMessage
            It has not leased one of them.
        """
        held = self.hosts[link.host].held
        if link.is_current and not all(number in held for number in numbers):
            raise BadMessage(f"host {link.host!r} needs a value that it has not leased")
        link.needs.extend(numbers)
        link.is_answered = True

    def settle(self, link: LeaseLink, numbers: Sequence[int]) -> EdgeConfirm:
        """End leases; return what to answer.

        A number that the host has not leased is ignored: the value was taken back.
        """
        link.settlements += 1
        if link.is_current:
            leases = self.hosts[link.host]
            mine = [number for number in numbers if leases.held.pop(number, 0) is None]
            self.queue.settle(mine)
            self.settled += len(mine)
            leases.settled += len(mine)
        return EdgeConfirm(link.settlements)

    # ---- what is sent

    def room(self, link: LeaseLink) -> int:
        """Return how many values that wait may be sent now."""
        credit = max(link.credit, 0) if link.is_answered else 0
        if len(self.hosts) > 1:
            credit = min(credit, self._most - len(self.hosts[link.host].held))
        return max(credit, 0)

    def fill(self, link: LeaseLink, buffer: memoryview) -> int:
        """Lease values; return the bytes of the batch that is in the buffer, or 0.

        A number less than 0: the buffer must have so many bytes, at least.
        """
        if not link.is_current or not link.is_answered:
            return 0
        if link.needs:
            return self._fill_needs(link, buffer)
        leases, credit = self.hosts[link.host], self.room(link)
        end, numbers = self.queue.take(
            buffer, HEADER_BYTES, min(credit, _BATCH) or _BATCH, credit == 0
        )
        if not numbers:
            if end > len(buffer):
                return -end
            numbers = self._last_of(leases, link)
            end, count = self.queue.copy(numbers, buffer, HEADER_BYTES)
            if not count:
                return 0
            del numbers[count:]
            leases.last += count
            credit = 0
        leases.held.update(dict.fromkeys(numbers))
        self.sent += len(numbers)
        if credit:
            link.sent += len(numbers)
            link.sent_bytes += end - HEADER_BYTES
        return seal(LEASES if credit else BACK, buffer, end)

    def _fill_needs(self, link: LeaseLink, buffer: memoryview) -> int:
        held = self.hosts[link.host].held
        numbers = [n for n in itertools.islice(link.needs, _BATCH) if n in held]
        end, count = self.queue.copy(numbers, buffer, HEADER_BYTES)
        if count == len(numbers):
            for _ in range(min(_BATCH, len(link.needs))):
                link.needs.popleft()
        else:
            while link.needs and link.needs[0] != numbers[count]:
                link.needs.popleft()
        self.resent += count
        if count:
            return seal(BACK, buffer, end)
        return -end if end > len(buffer) else 0

    def _last_of(self, leases: HostLeases, link: LeaseLink) -> list[int]:
        """Return the frames that end a stream, once every other value is settled."""
        last = self.queue.last
        if not last or self.queue.has_waiting:
            return []
        given: set[int] = set()
        ends = set(last)
        for each in self.hosts.values():
            if not ends.issuperset(each.held):
                return []
            given.update(each.held)
        left = max(link.ends - leases.last, 0)
        return [number for number in last if number not in given][:left]

    # ---- hosts that are lost

    def lost(self, host: str, generation: str = "") -> int:
        """Take back what a host has: its workers have ended; return how many.

        Its generation is revoked: it is told so when it asks again. If one is given,
        nothing is done for a host that has begun another one meanwhile.
        """
        leases = self.hosts.get(host)
        if leases is None or (generation and leases.generation != generation):
            return 0
        self.lost_link(leases.link)
        count = self._take_back(leases)
        self._revoke(leases)
        return count

    def fenced(self, host: str, generation: str) -> int:
        """Take back what a host had before a generation: it says that it is gone."""
        leases = self.hosts.get(host)
        if leases is None or leases.generation in ("", generation):
            return 0
        return self.lost(host)

    def _take_back(self, leases: HostLeases) -> int:
        count = len(leases.held)
        # The oldest is the last that is given back: a queue goes on from that one.
        self.queue.give_back(sorted(leases.held, reverse=True))
        leases.held.clear()
        leases.last = 0
        self.taken_back += count
        return count

    def _revoke(self, leases: HostLeases) -> None:
        if leases.generation:
            leases.revoked.append(leases.generation)
        leases.generation = ""

    def drop(self) -> None:
        """Forget what hosts have: the queue was emptied, the run begins again here."""
        for leases in self.hosts.values():
            self.lost_link(leases.link)
            self.queue.settle(list(leases.held))
            leases.held.clear()
            leases.last = 0
        self.queue.settle(self.queue.last)

    @property
    def held(self) -> int:
        """Values that hosts have."""
        return sum(len(leases.held) for leases in self.hosts.values())


# ---- descent: what was made of a value


class QueueScan(NamedTuple):
    """What a queue holds that is not acknowledged."""

    unknown: Collection[int]
    """Lanes that are not in the table."""
    first_foreign: int | None
    """The smallest number of a frame whose lane has no root."""
    tail: int
    """Number that the next frame will have, at least."""
    waiting: int
    """Frames that are not leased."""


class ScannedQueue(Protocol):
    """A queue that is looked at; `ataraxis._kernels.edge.QueueScanner`."""

    def scan(self, roots: Any, keys: set[int]) -> Sequence[Any]:
        """Look at every frame that is not acknowledged; return a `QueueScan`'s fields.

        `roots`: see `LaneRoots.table`. The keys of the values are added to `keys`.
        """


FOREIGN = -1
"""Root of lanes whose numbers are not those of the values that entered."""
_MIX, _ALL = 0x9E37_79B9_7F4A_7C15, 2**64 - 1
_MOST_LANES = 20_000
Steps = Collection[tuple[int, int]]


def key_of(lane: int, sequence: int) -> int:
    """Return what a value and all that was made of it have in common, a u64.

    Two values may share it: they are settled together then, no sooner.
    """
    return (lane ^ (sequence * _MIX & _ALL)) & _ALL


class LaneRoots:
    """The lanes in which values entered this host, for each lane of what follows.

    Parameters
    ----------
    lane_of : callable
        Returns the lane of a processor's results, of a lane and its index.

    Examples
    --------
    >>> roots = LaneRoots(lambda lane, index: 10 * lane + index)
    >>> roots.enter(7, [(-1, 1), (1, 2)])
    >>> roots.table
    {0: 0, 7: 7, 71: 7, 712: 7}

    What processor 1 makes on other hosts enters as well:

    >>> roots.enter(71, [(-1, 2)])
    >>> roots.table[71], roots.table[712]
    ((7, 71), (7, 71))
    """

    def __init__(self, lane_of: Callable[[int, int], int]) -> None:
        self.table: dict[int, int | tuple[int, ...]] = {0: 0}
        """By lane: its root, or roots; `FOREIGN` where there is none. A lane has more
        than one if its frames are made here, and arrive from other hosts, too."""
        self._lane_of = lane_of
        self._entered: set[tuple[int, Steps]] = set()
        self._is_over = False

    def enter(self, lane: int, steps: Steps) -> None:
        """Note that values of a lane enter this host, and the ways that they take."""
        key = lane, tuple(steps)
        if key in self._entered or self._is_over:
            return
        self._entered.add(key)
        children: dict[int, list[int]] = {}
        for first, then in steps:
            children.setdefault(first, []).append(then)
        self._add(lane, lane)
        ways = [(lane, then) for then in children.get(-1, [])]
        while ways:
            before, index = ways.pop()
            made = self._lane_of(before, index)
            self._add(made, lane)
            ways += [(made, then) for then in children.get(index, [])]
            if len(self.table) > _MOST_LANES:
                # Too many to know: then of none it is known what it is made of.
                self._is_over = True
                self.table = {0: 0}
                return

    def _add(self, lane: int, root: int) -> None:
        known = self.table.get(lane, FOREIGN)
        found = (*(known if isinstance(known, tuple) else (known,)), root)
        unique = tuple(dict.fromkeys(k for k in found if k != FOREIGN))
        self.table[lane] = unique if len(unique) > 1 else unique[0]

    def miss(self, lane: int) -> None:
        """Note that a frame has a lane of which nothing is known."""
        self.table.setdefault(lane, FOREIGN)


class _Wave:
    """Values that wait until the foreign frames of some moment have passed."""

    def __init__(self, keys: set[int]) -> None:
        self.keys = keys
        self.stage = 0
        self.mark: int | None = None

    def step(self, place: int, found: QueueScan) -> None:
        """Move on to the next queue, if this one has no such frame from before."""
        if self.stage != place:
            return
        if self.mark is None:
            self.mark = found.tail
        if found.first_foreign is None or found.first_foreign >= self.mark:
            self.stage, self.mark = place + 1, None


class DescentLook:
    """Finds the values that are settled: nothing on this host is made of them.

    Parameters
    ----------
    queues : sequence of ScannedQueue
        The inbox, and the queues behind it, in topological order.
    roots : LaneRoots
        Of the run on this host.
    steps : collection of (int, int)
        The ways that values take here: pairs of processors of which the second takes
        what the first makes; -1 is the value itself.

    Notes
    -----
    A worker puts what it makes before it acknowledges, so that a look from the inbox on
    misses nothing. Of a function that emits numbers of its own it is not known what a
    frame is made of: then values wait until all such frames have passed that were there
    when they had been taken, queue by queue.
    """

    def __init__(
        self, queues: Sequence[ScannedQueue], roots: LaneRoots, steps: Steps = ()
    ) -> None:
        self.queues, self.roots, self.steps = list(queues), roots, tuple(steps)
        self.waiting = 0
        """Values in the inbox that are not leased."""
        self._waves: list[_Wave] = []

    def look(self, values: Mapping[int, int]) -> list[int]:
        """Return the numbers of those values that are settled; `values` has the keys.

        Keys as of `key_of`.
        """
        held, scans = set[int](), list[QueueScan]()
        for place, queue in enumerate(self.queues):
            found = QueueScan(*queue.scan(self.roots.table, held))
            if found.unknown:
                for lane in found.unknown:
                    self.roots.miss(lane)
                found = QueueScan(*queue.scan(self.roots.table, held))
            scans.append(found)
            for wave in self._waves:
                wave.step(place, found)
        self.waiting = scans[0].waiting
        if not self._waves and all(found.first_foreign is None for found in scans):
            return [number for number, key in values.items() if key not in held]
        settled = self._settled({k for k in values.values() if k not in held}, scans)
        return [number for number, key in values.items() if key in settled]

    def _settled(self, clear: set[int], scans: list[QueueScan]) -> set[int]:
        """Return those of the keys whose wave is over; begin one for the others."""
        settled = clear.difference(*(wave.keys for wave in self._waves))
        if any(found.first_foreign is not None for found in scans):
            wave = _Wave(settled)
            settled = set()
            self._waves.append(wave)
            for place, found in enumerate(scans):
                wave.step(place, found)
        for wave in self._waves:
            if wave.stage == len(scans):
                settled |= wave.keys & clear
        self._waves = [w for w in self._waves if w.keys and w.stage < len(scans)]
        return settled


# ---- the side of the workers


class EdgeInbox(Protocol):
    """The inbox of a ledger; `ataraxis._kernels.edge.LinkToQueue`."""

    def put(
        self, buffer: Any, start: int, stop: int, known: Collection[int]
    ) -> tuple[int, list[int], list[int], Collection[int], int, bool, str]:
        """Put the values of records, but for known ones, without waiting.

        Returns
        -------
        at : int
            Where the rest begins.
        numbers : list of int
            Of the values that were put.
        keys : list of int
            The key of each, of its own lane.
        lanes : collection of int
            The lanes among them.
        repeated : int
            How many were known.
        is_full : bool
            Whether the inbox has no room for the next one.
        problem : str
            What is wrong with the next record; '' if nothing is.
        """


class InboxLedger:
    """What arrived on an edge, and what of it is settled.

    Parameters
    ----------
    inbox : EdgeInbox
        Takes the values.
    descent : DescentLook or None
        None: this is the run's own host, where what is received is settled.
    run, edge : str
        The run, and the name of the edge queue.
    ends : int
        How many frames that end a stream it takes at most.

    Notes
    -----
    One thread at a time. On each channel `want` is sent first; `offer`, `held`, `put`
    and `confirm` get what arrives; then `look` at `next_look`, `settled_due` and
    `grant_due` are sent.
    """

    def __init__(
        self,
        inbox: EdgeInbox,
        descent: DescentLook | None,
        run: str,
        edge: str,
        generation: str,
        ends: int = 1,
    ) -> None:
        self.inbox, self.descent = inbox, descent
        self.run, self.edge, self.ends = run, edge, ends
        self.generation = generation
        self.source_generation = self.queue_id = ""
        self.is_open = False
        """Whether the other side has offered its values on this channel."""
        self.entries: dict[int, int | None] = {}
        """Key of each value that has arrived; None: it is settled."""
        self.links = self.received = self.repeated = self.settled = 0
        self._open: dict[int, int] = {}
        self._told: deque[list[int]] = deque()
        self._confirmed = 0
        self._untold: list[int] = []
        self._arrived = self._arrived_bytes = 0
        self._granted = self._granted_bytes = 0
        self._window, self._taken = CREDIT, 0
        self._look_s, self._looked_at = LOOK_S, 0.0

    # ---- channels

    def want(self) -> EdgeWant:
        """Begin a channel."""
        self.links += 1
        self.is_open = False
        self._told.clear()
        self._untold.clear()
        self._confirmed = self._arrived = self._arrived_bytes = self._taken = 0
        self._granted, self._granted_bytes = self._window, CREDIT_BYTES
        return EdgeWant(
            self.run, self.edge, self.generation, self._granted, self._granted_bytes,
            self.ends,
        )  # fmt: skip

    def fence(self, generation: str) -> None:
        """Begin a new generation: workers have ended, the queues here are empty."""
        self.generation = generation
        self.entries.clear()
        self._open.clear()
        self._untold.clear()
        self.is_open = False

    # ---- what arrives

    def offer(self, offer: EdgeOffer) -> None:
        """Take the id of the edge queue."""
        self.source_generation = offer.generation
        if offer.queue != self.queue_id:
            # Its host begins again, and so do its numbers; what is here is still done.
            self.entries.clear()
            self._open.clear()
            self._untold.clear()
            self.queue_id = offer.queue
        self.is_open = True

    def held(self, numbers: Sequence[int]) -> list[int]:
        """Take the numbers that this host has leased; return those that it lacks."""
        leased = set(numbers)
        settled = [number for number, key in self.entries.items() if key is None]
        # Of these the settlement was lost, or is not sent yet; the others may go.
        self._untold = [number for number in settled if number in leased]
        for number in settled:
            if number not in leased:
                del self.entries[number]
        return [number for number in numbers if number not in self.entries]

    def put(
        self, buffer: Any, start: int, stop: int, *, has_credit: bool
    ) -> tuple[int, bool]:
        """Put the values of a batch; return where the rest begins, and if it is full.

        Raises
        ------
        BadMessage
            A record is damaged, or nothing was asked for.
        """
        if not self.is_open:
            raise BadMessage(f"edge {self.edge!r}: values arrive without an offer")
        at, numbers, keys, lanes, repeated, is_full, problem = self.inbox.put(
            buffer, start, stop, self.entries
        )
        self.received += len(numbers)
        self.repeated += repeated
        if self.descent is None:
            self.entries.update(dict.fromkeys(numbers))
            self._untold += numbers
            self.settled += len(numbers)
        else:
            for lane in lanes:
                self.descent.roots.enter(lane, self.descent.steps)
            found = dict(zip(numbers, keys, strict=True))
            self.entries.update(found)
            self._open.update(found)
        if has_credit:
            self._arrived += len(numbers) + repeated
            self._arrived_bytes += at - start
        if numbers:
            self._look_s = LOOK_S
        if self.descent is None:
            self._note_taken(0)
        if problem:
            raise BadMessage(f"edge {self.edge!r}: {problem}")
        return at, is_full

    def confirm(self, confirm: EdgeConfirm) -> None:
        """Forget settlements that the other side has taken."""
        while self._confirmed < confirm.count and self._told:
            self._confirmed += 1
            for number in self._told.popleft():
                self.entries.pop(number, None)

    # ---- what is settled

    def next_look(self, now: float) -> float:
        """Return when to look, s."""
        if self.descent is None or not (self._open or self._arrived > self._taken):
            return now + 1.0
        return max(self._looked_at + self._look_s, now)

    def look(self, now: float) -> None:
        """Find what is settled, and what the workers have taken."""
        if self.descent is None or now < self._looked_at + self._look_s:
            return
        done = self.descent.look(self._open)
        if done:
            for number in done:
                del self._open[number]
                self.entries[number] = None
            self.settled += len(done)
            self._untold += done
        is_news = self._note_taken(self.descent.waiting) or bool(done)
        self._look_s = LOOK_S if is_news else min(2 * self._look_s, CALM_LOOK_S)
        self._looked_at = now

    def _note_taken(self, waiting: int) -> bool:
        """Note how many values the workers have taken; return whether it is more.

        Twice as many as they took since the last time may wait.
        """
        taken = max(self._arrived - waiting, self._taken)
        more, self._taken = taken - self._taken, taken
        self._window = min(max(2 * more, 7 * self._window // 8, CREDIT), MOST_CREDIT)
        return more > 0

    def settled_due(self) -> list[int]:
        """Return the numbers of a settlement to send now."""
        if not self.is_open or not self._untold:
            return []
        numbers, self._untold = self._untold, []
        self._told.append(numbers)
        return numbers

    def grant_due(self) -> EdgeGrant | None:
        """Return the values that may be sent, if that is worth a message."""
        if not self.is_open:
            return None
        granted = max(self._taken + self._window, self._granted)
        mean = self._arrived_bytes // self._arrived if self._arrived else 0
        nbytes = max(self._taken * mean + CREDIT_BYTES, self._granted_bytes)
        if (
            granted - self._granted < self._window // 4
            and nbytes - self._granted_bytes < CREDIT_BYTES // 4
        ):
            return None
        self._granted, self._granted_bytes = granted, nbytes
        return EdgeGrant(granted, nbytes)
