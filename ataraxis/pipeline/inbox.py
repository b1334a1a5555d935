"""`Inbox`: the frames of an input queue as jobs: whole, in order, each once."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ataraxis._kernels.queue_handle import FrameLease, Message
from ataraxis.clock import now_ns
from ataraxis.errors import CorruptFrame
from ataraxis.frame import Frame
from ataraxis.pipeline.arrays import concatenate
from ataraxis.pipeline.board import (
    BINS,
    CORRUPT,
    LAST_NS,
    N_BINS,
    RECEIVED,
    REPEATED,
    StatusBoard,
)
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
    kind_of,
    read,
    read_frame,
)
from ataraxis.pipeline.reorder import Resequencer
from ataraxis.shm.array import SharedMemoryArray
from ataraxis.shm.context import ContextLike
from ataraxis.stream import MemQ
from ataraxis.stream.lease import Lease

# How long to wait for the number of a damaged frame, s.
_MISSING_S = 1.0
# How often a worker that goes on for one that was lost asks what is done, s.
_LOOK_S = 0.05
_BITS_OF_A_BYTE = 8
AnyLease: TypeAlias = Message | FrameLease


@dataclass(slots=True)
class Job:
    """A frame that was received, or the parts of one."""

    lane: int
    sequence: int
    kind: int
    value: Any
    overlap: int
    time_ns: int
    source: int
    attempt: int
    leases: list[AnyLease]
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
        """The index of a part of a value and their count; (0, 0): the whole value."""
        return (next(iter(self.parts)), self.count) if self.count else (0, 0)

    def acknowledge(self) -> None:
        """Acknowledge its frames."""
        for lease in self.leases:
            lease.acknowledge()

    def give_back(self) -> None:
        """Give its frames back, for another worker."""
        for lease in self.leases:
            lease.give_back()

    def merge(self, other: Job) -> None:
        """Add another part of the same value; acknowledge it if it is a repeat."""
        if not other.parts.keys().isdisjoint(self.parts):
            other.acknowledge()
            return
        if other.kind == GROUP:
            self.kind = GROUP
        self.is_skipped |= other.kind == SKIPPED
        self.parts.update(other.parts)
        self.leases += other.leases

    def join(self) -> None:
        """Make one value of all parts."""
        parts = [self.parts[k] for k in range(self.count)]
        gap = SKIPPED if self.is_skipped else GAP
        self.count = 0
        if self.kind == GROUP:
            self.value = tuple(v for part in parts for v in part or ())
            self.kind = BUNDLE if self.value else gap
        elif all(part is None for part in parts):
            self.kind = gap
        elif all(getattr(part, "ndim", 0) for part in parts):
            self.kind, self.value = PLAIN, concatenate(parts, parts[0].ndim - 1)
        else:
            self.kind, self.value = BUNDLE, tuple(p for p in parts if p is not None)


def _job_of(lease: FrameLease, found: Read) -> Job:
    """Return the job of a frame that was read."""
    lane, sequence, part, overlap, source, time_ns, _, value = found
    if sequence < 0:
        # A frame without an origin, put by hand: the queue numbers it.
        sequence = lease.id
    kind = kind_of(part)
    job = Job(lane, sequence, PLAIN if kind == CALLED else kind, value, overlap,
              time_ns, source, lease.attempt, [lease])  # fmt: skip
    index, count = index_of(part)
    if count:
        job.parts, job.count = {index: value}, count
    return job


def job_of_message(message: Message) -> Job:
    """Return the job of a frame that was read when it was leased."""
    return Job(
        message.lane, message.sequence, PLAIN, message.value, message.overlap,
        message.time_ns, message.source, message.attempt, [message],
    )  # fmt: skip


def data_of(lease: AnyLease) -> bytes:
    """Return the bytes of a frame."""
    return lease.frame.to_bytes() if isinstance(lease, Lease) else lease.data


class Inbox:
    """Jobs from an input queue, until the frame that marks its end.

    Parameters
    ----------
    queue : MemQ
        The queue.
    board : StatusBoard
        The board of the run.
    index, row : int
        The processor, and the row of the reader, on the board.
    ordered : tuple of int
        Parents whose frames are put in order.
    credit : str
        Name of the array that changes when frames were put in order.
    context : Context, str, Path or None
        The directory of the array.
    on_corrupt : callable, optional
        Called for a damaged frame.
    allow_pickle : bool
        Whether pickles are read.
    is_resumed : bool
        Whether the words of the lanes may be older than what was done. Numbers before
        `StatusBoard.first_missing` were done, and are not waited for.
    is_counted : bool
        Whether that is known. Without it, a number that does not come within 1 s was
        done before.
    """

    def __init__(
        self,
        queue: MemQ,
        board: StatusBoard,
        index: int,
        row: int,
        ordered: tuple[int, ...],
        credit: str,
        context: ContextLike,
        on_corrupt: Callable[[CorruptFrame, Job | None], None] | None = None,
        allow_pickle: bool = False,
        is_resumed: bool = False,
        is_counted: bool = False,
    ) -> None:
        self._queue = queue
        self._words, self._row = board.words, board.of_worker(row)
        self._ordered = frozenset(ordered)
        self._credit: SharedMemoryArray | None = None
        if ordered:
            self._credit = SharedMemoryArray.attach(credit, context=context)
        self._resequencer: Resequencer[Job] = Resequencer(
            board.words, lambda lane: board.sequence_word(index, lane)
        )
        self._on_corrupt, self._allow_pickle = on_corrupt, allow_pickle
        self._partial: dict[tuple[int, int], Job] = {}
        self._ready: deque[Job] = deque()
        self._lanes = {HEAD_LANE, CALL_LANE}
        self._missing = int(is_resumed and not is_counted)
        self._first_missing: Callable[[int], int] | None = None
        if is_resumed and is_counted:
            self._first_missing = lambda lane: board.first_missing(index, lane)
        self._look_at = 0.0
        self.last: AnyLease | None = None
        """The lease of the last frame, once it has arrived."""

    def close(self) -> None:
        """Close the queue."""
        self._queue.close()
        if self._credit is not None:
            self._credit.disconnect()

    def __iter__(self) -> Iterator[Job]:
        """Iterate over the jobs as they come, until the last frame."""
        while (job := self.next(None)) is not None:
            yield job

    def next(self, timeout: float | None) -> Job | None:
        """Return the next job, or None at the end; `TimeoutError`: not in time."""
        job = self._next(timeout)
        if job is not None:
            words, row = self._words, self._row
            words[row + RECEIVED] += 1
            age = max(now_ns() - job.time_ns, 1)
            words[row + BINS + min(age.bit_length() - 1, N_BINS - 1)] += 1
        return job

    def is_ordered(self, job: Job) -> bool:
        """Return whether a job was put in order, and so has no repeats."""
        return job.source in self._ordered

    def finish(self, job: Job) -> None:
        """Acknowledge a job whose results were sent."""
        if job.source in self._ordered:
            self._resequencer.finish(job)
            if self._credit is not None and job.sequence & 15 == 15:
                self._credit.add(0, 1)
        job.acknowledge()
        self._words[self._row + LAST_NS] = now_ns()

    def _next(self, timeout: float | None) -> Job | None:
        early = self._resequencer
        while True:
            if self._ready:
                return self._ready.popleft()
            job = early.pop() if self._ordered else None
            if job is not None:
                return job
            if self.last is not None:
                if not len(early):
                    return None
                early.skip()
                continue
            if self._has_skipped_done():
                continue
            wait, most = timeout, _MISSING_S if self._missing else _LOOK_S
            if (self._missing or self._first_missing is not None) and len(early):
                wait = most if timeout is None else min(timeout, most)
            try:
                self._take(wait)
            except TimeoutError:
                if wait == timeout:
                    raise
                if self._missing:
                    early.skip()
                    self._missing = 0

    def _has_skipped_done(self) -> bool:
        """Go on after numbers that a worker before has done; whether there were any."""
        if self._first_missing is None or not len(self._resequencer):
            return False
        now = time.monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + _LOOK_S
        return self._resequencer.skip_done(self._first_missing)

    def _take(self, timeout: float | None) -> None:
        try:
            lease = self._queue.hold(timeout)
        except CorruptFrame as error:
            self._damaged(error)
            return
        if lease is None:
            raise TimeoutError("no frame came in time")
        self.accept(lease)

    @property
    def is_empty(self) -> bool:
        """Whether the next job comes from the queue."""
        return not self._ready and self.last is None

    def accept(self, lease: AnyLease) -> None:
        """Take a frame that was leased already."""
        if isinstance(lease, Message):
            self._sort(job_of_message(lease))
            return
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
            self._sort(_job_of(lease, found))

    def _sort(self, job: Job) -> None:
        """Add a job to those that are ready, or to those that wait for others."""
        self._lanes.add(job.lane)
        if job.source not in self._ordered:
            self._ready.append(job)
            return
        if job.count:
            key = (job.lane, job.sequence)
            first = self._partial.setdefault(key, job)
            if first is not job:
                first.merge(job)
            else:
                job.is_skipped |= job.kind == SKIPPED
            if len(first.parts) < first.count:
                return
            del self._partial[key]
            first.join()
            job = first
        if not self._resequencer.push(job):
            self._words[self._row + REPEATED] += 1
            job.acknowledge()

    def _damaged(self, error: CorruptFrame) -> None:
        """Report a damaged frame, and replace it by a gap if its origin is readable."""
        job = None
        if error.data is not None:
            with suppress(CorruptFrame):
                job = self._gap_of(Frame.from_buffer(error.data, verify=False))
        self._words[self._row + CORRUPT] += 1
        if self._on_corrupt is not None:
            self._on_corrupt(error, job)
        if job is None:
            self._missing += 1
        else:
            self._sort(job)

    def _gap_of(self, frame: Frame) -> Job | None:
        """Return the gap for a damaged frame whose header is intact."""
        origin = frame.origin
        if origin is None:
            return None
        # The checksum of the header does not cover the lane: take the closest one.
        lane = min(self._lanes, key=lambda known: _distance(known, origin.source))
        if _distance(lane, origin.source) > _BITS_OF_A_BYTE:
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
