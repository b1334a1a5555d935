"""`Outbox`: an edge of the graph, as the process that puts into it sees it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty
from typing import Any

import numpy as np

from ataraxis.errors import QueueFull
from ataraxis.frame import DType
from ataraxis.pipeline.arrays import concatenate, split_channels
from ataraxis.pipeline.board import FINISHED, StatusBoard
from ataraxis.pipeline.frames import (
    CALLED,
    GAPS,
    GROUP,
    PLAIN,
    Stamp,
    index_of,
    is_call,
    kind_of,
    lane_of,
    part_of,
    write,
)
from ataraxis.pipeline.partition import Router
from ataraxis.pipeline.spec import WINDOW, Target
from ataraxis.shm.array import SharedMemoryArray
from ataraxis.shm.context import ContextLike
from ataraxis.shm.waiting import Waitable
from ataraxis.stream.memq import MemQ, RoomEvent

# How often a wait for room checks whether a reader is left.
SLICE_S = 0.25
# Large values that wait in a queue, together, so that they stay in the cache; but as
# many as this for each worker.
DEEP_BYTES = 8 << 20
WAITING_EACH = 2
_ANY = 1 << 62


class Outbox:
    """Puts frames into the input queues of one processor, as its settings say.

    Every put returns False if there was no room within `timeout`, s. It returns True
    also if `on_full` dropped the frame, or if the processor has finished.
    """

    def __init__(
        self, target: Target, board: StatusBoard, credit: str, context: ContextLike
    ) -> None:
        self.target = target
        self.is_plain = not target.overlap and not target.split and target.key is None
        """Whether every frame goes to one queue, unchanged."""
        self.dropped = 0
        self._board = board
        self._queues = [MemQ.attach(name, context=context) for name in target.queues]
        self._on_full = target.on_full
        if target.on_full == "block":
            for queue in self._queues:
                queue.limit_depth(DEEP_BYTES, WAITING_EACH * target.workers)
        self._state = board.of_processor(target.index)
        self._credit: SharedMemoryArray | None = None
        if target.ends:
            self._credit = SharedMemoryArray.attach(credit, context=context)
        self._ends: dict[int, list[tuple[int, int]]] = {}
        self._limits: dict[int, int] = {}
        self._tails: dict[int, Any] = {}
        self._shares: list[tuple[Any, ...]] = []
        self._router: Router | None = None
        if target.key is not None:
            self._router = Router(target.key, target.name, len(self._queues))

    @property
    def direct(self) -> MemQ | None:
        """The queue, if a put into it is all that there is to do."""
        is_direct = self.is_plain and self._on_full == "block" and not self.target.ends
        return self._queues[0] if is_direct else None

    @property
    def is_finished(self) -> bool:
        """Whether the workers of the processor have ended in good order."""
        return self._board.words[self._state] == FINISHED

    def room(self) -> list[Waitable]:
        """Return the events after which a put that found no room may find some."""
        found: list[Waitable] = [RoomEvent(queue) for queue in self._queues]
        if self._credit is not None:
            found.append(self._credit.change_event())
        return found

    @property
    def waiting(self) -> int:
        """How many frames wait in the queues."""
        return sum(queue.qsize() for queue in self._queues)

    @property
    def is_full(self) -> bool:
        """Whether a put would probably wait."""
        return self._on_full == "block" and any(q.full() for q in self._queues)

    def close(self) -> None:
        """Close the queues."""
        for queue in self._queues:
            queue.close()
        if self._credit is not None:
            self._credit.disconnect()

    # ---- one frame into one queue

    def put_whole(
        self,
        value: Any,
        dtype: DType | int | None,
        stamp: Stamp,
        timeout: float | None,
        which: int = 0,
    ) -> bool:
        """Put a value into one queue as one frame, with one copy where possible."""
        lane, sequence, part, source, time_ns = stamp
        code = -1 if dtype is None else dtype
        if part == PLAIN and self.target.marks_calls and is_call(lane):
            part = CALLED
        if self._on_full == "block" and isinstance(code, int):
            queue = self._queues[which]
            wait: float | None = 0
            while not self.is_finished:
                is_put = queue.post(
                    value, code, (lane, sequence, part), source, time_ns, wait
                )
                if is_put is None:
                    break
                if is_put or timeout == 0 or (wait and timeout is not None):
                    return is_put
                wait = SLICE_S if timeout is None else timeout
            else:
                return True
        return self._put_frame(value, dtype, stamp, part, timeout, which)

    def _put_frame(
        self,
        value: Any,
        dtype: DType | int | None,
        stamp: Stamp,
        part: int,
        timeout: float | None,
        which: int,
        overlap: int = 0,
    ) -> bool:
        """Write a value as a frame, and put that."""
        lane, sequence, _, source, time_ns = stamp
        frame = write(value, dtype, lane, sequence, part, overlap, source, time_ns,
                      self.target.allow_pickle)  # fmt: skip
        queue = self._queues[which]
        while not self.is_finished:
            if self._on_full != "block":
                return self._force(queue, frame)
            if queue.offer(frame, SLICE_S if timeout is None else timeout):
                return True
            if timeout is not None:
                return timeout > 0 and self.is_finished
        return True

    def _force(self, queue: MemQ, frame: bytes) -> bool:
        """Put a frame without waiting for room."""
        if self._on_full == "latest":
            while self._evict(queue):
                pass
        while not queue.offer(frame, 0):
            if self._on_full == "raise":
                raise QueueFull(
                    f"the input queue of processor {self.target.name!r} is full, and "
                    "on_full='raise': on_full='block' waits, 'drop_oldest' and "
                    "'drop_newest' drop values and count them"
                )
            if self._on_full == "drop_newest" or not self._evict(queue):
                self.dropped += 1
                return True
        return True

    def _evict(self, queue: MemQ) -> bool:
        """Drop the oldest frame; False if none is left but the last frame."""
        with suppress(Empty):
            lease = queue.lease(False)
            if lease.frame.end_of_stream:
                lease.give_back()
                return False
            lease.acknowledge()
            self.dropped += 1
            return True
        return False

    # ---- the ordering window

    def in_window(self, lane: int, sequence: int, timeout: float | None) -> bool:
        """Wait until a value is within the ordering window; False: not in time.

        It is if fewer than `WINDOW` values lie between it and the oldest one that is
        not back in order yet.
        """
        credit = self._credit
        if credit is None or sequence < self._limits.get(lane, 0):
            return True
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            version = credit.statistics().version
            self._limits[lane] = self._oldest(lane) + WINDOW
            if sequence < self._limits[lane]:
                return True
            left = SLICE_S
            if deadline is not None:
                left = min(left, deadline - time.monotonic())
                if left <= 0:
                    return False
            with suppress(TimeoutError):
                credit.wait_for_change(left, since=version)

    def _oldest(self, lane: int) -> int:
        """Return the oldest number of a lane that is not in order everywhere yet."""
        ends = self._ends.get(lane)
        if ends is None:
            ends = self._ends[lane] = [
                (last, functools.reduce(lane_of, path, lane))
                for last, path in self.target.ends
            ]
        board = self._board
        return min(
            (
                board.next_sequence(last, end)
                for last, end in ends
                if board.words[board.of_processor(last)] != FINISHED
            ),
            default=_ANY,
        )

    # ---- values: whole, in parts, by key

    def check(self, value: Any, part: int) -> None:
        """Refuse a value that cannot be put here, before any outbox has it.

        Raises
        ------
        TypeError, ValueError
            It is not an array, where arrays are cut; or it has no key.
        """
        kind = kind_of(part)
        if self.is_plain or kind in GAPS:
            return
        if self._router is not None:
            values = value if kind != PLAIN else (value,)
            self._shares = self._router.shares_of(values)
        elif kind != PLAIN or not getattr(value, "ndim", 0):
            raise TypeError(
                f"processor {self.target.name!r} has split= or overlap= and takes "
                f"arrays, one at a time, got {type(value).__name__}"
            )

    def put(
        self,
        value: Any,
        dtype: DType | int | None,
        stamp: Stamp,
        timeout: float | None,
    ) -> bool:
        """Put a value that `check` has accepted."""
        if self.is_plain:
            return self.put_whole(value, dtype, stamp, timeout)
        if self._router is not None:
            return self._put_by_key(value, dtype, stamp, timeout)
        lane, kind, before, overlap = stamp.lane, kind_of(stamp.part), None, 0
        count = len(self._queues) if self.target.split else 0
        is_gap = kind in GAPS
        if self.target.overlap and not is_gap:
            # Stored again below: after an interrupt, the previous block is unknown.
            before = self._tails.pop(lane, None)
            if before is not None:
                value, overlap = concatenate([before, value], 0), len(before)
            tail = value[-self.target.overlap :]
            tail = tail.copy(deep=True) if hasattr(tail, "dims") else np.array(tail)
        parts = split_channels(value, len(self._queues)) if not is_gap else None
        for k in range(len(self._queues)):
            each = None if parts is None else parts[k]
            part = part_of(kind, k, count) if count else stamp.part
            if not self._put_frame(each, dtype, stamp, part, timeout, k, overlap):
                if before is not None:
                    self._tails[lane] = before
                return False
            timeout = None
        if self.target.overlap and not is_gap:
            self._tails[lane] = tail
        return True

    def _put_by_key(
        self,
        value: Any,
        dtype: DType | int | None,
        stamp: Stamp,
        timeout: float | None,
    ) -> bool:
        """Put a value to the worker of its key; a bundle of several keys in groups."""
        shares, count = list(self._shares), len(self._queues)
        kind = kind_of(stamp.part)
        index, parts = index_of(stamp.part)
        if kind in GAPS:
            shares = [()] * count
        workers = [k for k, share in enumerate(shares) if share]
        if not parts and len(workers) < 2:
            # Without a key, one of the workers passes the gap on.
            which = workers[0] if workers else stamp.sequence % count
            return self.put_whole(value, dtype, stamp, timeout, which)
        kind = kind if kind in GAPS else GROUP
        for k, share in enumerate(shares):
            part = part_of(kind, index * count + k, max(parts, 1) * count)
            each = share if kind == GROUP else None
            if not self._put_frame(each, None, stamp, part, timeout, k):
                return False
            timeout = None
        return True


def put_into_all(
    outboxes: Sequence[Outbox],
    value: Any,
    dtype: DType | int | None,
    stamp: Stamp,
    timeout: float | None,
    on_put: Callable[[Outbox], object] = lambda outbox: None,
) -> bool:
    """Put a value into every outbox, or into none; False: no room in time.

    `on_put` is called with each outbox, once it has the value.
    """
    if len(outboxes) > 1 and timeout is not None:
        # A full one comes first: after the first put, the others wait without a limit.
        outboxes = sorted(outboxes, key=lambda o: not o.is_full)
        if timeout == 0 and outboxes[0].is_full and not outboxes[0].is_finished:
            return False
    for outbox in outboxes:
        outbox.check(value, stamp.part)
    if not all(o.in_window(stamp.lane, stamp.sequence, timeout) for o in outboxes):
        return False
    for outbox in outboxes:
        if not outbox.put(value, dtype, stamp, timeout):
            return False
        timeout = None
        on_put(outbox)
    return True
