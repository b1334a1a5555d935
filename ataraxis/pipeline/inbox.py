"""`Inbox`: frames out of an input queue, as jobs: whole, in order, each once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ataraxis._kernels.queue_handle import FrameLease, Message
from ataraxis.errors import CorruptFrame
from ataraxis.frame import Frame
from ataraxis.pipeline.arrays import joined
from ataraxis.pipeline.frames import (
    BUNDLE,
    CALL_LANE,
    CALLED,
    GAP,
    GAPS,
    GROUP,
    HEAD_LANE,
    PLAIN,
    SKIPPED,
    Read,
    index_of,
    read,
    read_frame,
)
from ataraxis.pipeline.reorder import Resequencer
from ataraxis.stream import MemQ
from ataraxis.stream.lease import Lease

# How long to wait for a number that a damaged frame may have had.
_MISSING_S = 1.0
_BYTE = 8
Letter = Message | FrameLease


@dataclass(slots=True)
class Job:
    """A frame that came in, or the parts of one."""

    lane: int
    sequence: int
    kind: int
    value: Any
    overlap: int
    time_ns: int
    source: int
    attempt: int
    leases: list[Letter]
    parts: dict[int, Any] = field(default_factory=dict)
    count: int = 0
    is_skipped: bool = False
    """Whether a part of it went to the dead letters."""

    @property
    def values(self) -> tuple[Any, ...]:
        """The values in it: one, several or none."""
        if self.kind in GAPS:
            return ()
        return tuple(self.value) if self.kind in (BUNDLE, GROUP) else (self.value,)

    @property
    def part(self) -> tuple[int, int]:
        """Which part of a value it is, and of how many; (0, 0): the whole."""
        return (next(iter(self.parts)), self.count) if self.count else (0, 0)

    @property
    def _gap(self) -> int:
        return SKIPPED if self.is_skipped else GAP

    def acknowledge(self) -> None:
        """Say that it is done with."""
        for lease in self.leases:
            lease.acknowledge()

    def give_back(self) -> None:
        """Let another worker have it."""
        for lease in self.leases:
            lease.give_back()

    def add(self, other: Job) -> bool:
        """Take another part of the same value; whether it is whole now."""
        for k in other.parts:
            if k in self.parts:
                other.acknowledge()
                return len(self.parts) == self.count
        if other.kind == GROUP:
            self.kind = GROUP
        self.is_skipped |= other.kind == SKIPPED
        self.parts.update(other.parts)
        self.leases += other.leases
        if len(self.parts) < self.count:
            return False
        parts = [self.parts[k] for k in range(self.count)]
        self.count = 0
        if self.kind == GROUP:
            self.value = tuple(v for part in parts for v in part or ())
            self.kind = BUNDLE if self.value else self._gap
        elif all(part is None for part in parts):
            self.kind = self._gap
        elif all(getattr(part, "ndim", 0) for part in parts):
            self.kind, self.value = PLAIN, joined(parts, parts[0].ndim - 1)
        else:
            self.kind, self.value = BUNDLE, tuple(p for p in parts if p is not None)
        return True


def job_of(lease: FrameLease, found: Read) -> Job:
    """Make a job of a frame that was read."""
    lane, sequence, part, overlap, source, time_ns, _, value = found
    if sequence < 0:
        # Somebody put it into the queue by hand: it is numbered by the queue.
        sequence = lease.id
    kind = part & 0xFF
    job = Job(lane, sequence, PLAIN if kind == CALLED else kind, value, overlap,
              time_ns, source, lease.attempt, [lease])  # fmt: skip
    if part > 0xFF:
        index, count = index_of(part)
        job.parts, job.count = {index: value}, count
    return job


def job_in(message: Message) -> Job:
    """Make a job of a frame that was read when it was leased."""
    return Job(
        message.lane, message.sequence, PLAIN, message.value, message.overlap,
        message.time_ns, message.source, message.attempt, [message],
    )  # fmt: skip


def data_of(lease: Letter) -> bytes:
    """Return the bytes of a frame."""
    return lease.frame.to_bytes() if isinstance(lease, Lease) else lease.data


class Inbox:
    """Jobs out of a queue, until the frame that says that none follows.

    Parameters
    ----------
    queue : MemQ
        The input queue.
    ordered : tuple of int
        Parents whose frames are put in order first.
    line : Resequencer
        What puts them in order.
    on_repeat, on_corrupt : callable
        Told of a frame that has been here before, and of a damaged one.
    allow_pickle : bool
        Whether pickles are read.
    """

    def __init__(
        self,
        queue: MemQ,
        ordered: tuple[int, ...],
        line: Resequencer[Job],
        on_repeat: Callable[[Job], None],
        on_corrupt: Callable[[CorruptFrame, Job | None], None],
        allow_pickle: bool = False,
    ) -> None:
        self._queue = queue
        self._allow_pickle = allow_pickle
        self._ordered = frozenset(ordered)
        self._line = line
        self._partial: dict[tuple[int, int], Job] = {}
        self._ready: deque[Job] = deque()
        self._on_repeat = on_repeat
        self._on_corrupt = on_corrupt
        self._lanes = {HEAD_LANE, CALL_LANE}
        self._missing = 0
        self.last: Letter | None = None
        """The lease of the last frame, once it has come."""

    def __iter__(self) -> Iterator[Job]:
        """Go through the jobs as they come, until the last frame."""
        while (job := self.next(None)) is not None:
            yield job

    def next(self, timeout: float | None) -> Job | None:
        """Return the next job, or None at the end; `TimeoutError`: none in time."""
        while True:
            if self._ready:
                return self._ready.popleft()
            if not self._ordered:
                if self.last is not None:
                    return None
                self._take(timeout)
                continue
            job = self._line.pop()
            if job is not None:
                return job
            if self.last is not None:
                if not len(self._line):
                    return None
                self._line.skip()
                continue
            wait, is_short = timeout, False
            if self._missing and len(self._line):
                is_short = timeout is None or timeout > _MISSING_S
                wait = _MISSING_S if is_short else timeout
            try:
                self._take(wait)
            except TimeoutError:
                if not is_short:
                    raise
                self._line.skip()
                self._missing = 0

    def _take(self, timeout: float | None) -> None:
        try:
            lease = self._queue.hold(timeout)
        except CorruptFrame as error:
            self._damaged(error)
            return
        if lease is None:
            raise TimeoutError("nothing came in time")
        if isinstance(lease, Message):
            self._sort(job_in(lease))
        else:
            self._open(lease)

    def accept(self, lease: FrameLease | None) -> None:
        """Take a frame that was leased already; None: its slot's come one by one."""
        if lease is not None:
            self._open(lease)

    @property
    def is_empty(self) -> bool:
        """Whether what comes next comes from the queue."""
        return not self._ready and self.last is None

    def _open(self, lease: FrameLease) -> None:
        try:
            if isinstance(lease, Lease):
                found = read_frame(lease.frame)
            else:
                found = read(lease.data, self._allow_pickle)
        except CorruptFrame as error:
            error.data = data_of(lease)
            lease.acknowledge()
            self._damaged(error)
            return
        if found.is_last:
            self.last = lease
        else:
            self._sort(job_of(lease, found))

    def _sort(self, job: Job) -> None:
        self._lanes.add(job.lane)
        if job.source not in self._ordered:
            self._ready.append(job)
            return
        if job.count:
            key = (job.lane, job.sequence)
            first = self._partial.get(key)
            if first is None:
                self._partial[key] = first = job
                is_whole = job.count == 1 and job.add(Job(*_NOTHING, [], {}, 0))
            else:
                is_whole = first.add(job)
            if not is_whole:
                return
            del self._partial[key]
            job = first
        if not self._line.push(job):
            self._on_repeat(job)
            job.acknowledge()

    def _damaged(self, error: CorruptFrame) -> None:
        """Go on without a damaged frame; say which it was, if its head says so."""
        job = None
        if error.data is not None:
            with suppress(CorruptFrame):
                job = self._rest_of(Frame.from_buffer(error.data, verify=False))
        self._on_corrupt(error, job)
        if job is None:
            self._missing += 1
        else:
            self._sort(job)

    def _rest_of(self, frame: Frame) -> Job | None:
        """Return what stands for a damaged frame whose header is whole."""
        origin = frame.origin
        if origin is None:
            return None
        # The checksum of the header does not cover the lane: which may it have been?
        lane = min(self._lanes, key=lambda known: _distance(known, origin.source))
        if _distance(lane, origin.source) > _BYTE:
            return None
        job = Job(
            lane, frame.sequence, SKIPPED, None, 0, frame.time_ns, frame.source, 1, []
        )
        index, count = index_of(origin.part)
        if count > index:
            job.parts, job.count = {index: None}, count
        return job


def _distance(a: int, b: int) -> int:
    return (a ^ b).bit_count()


_NOTHING = (0, 0, GAP, None, 0, 0, 0, 1)
