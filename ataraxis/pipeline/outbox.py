"""`Outbox`: one edge of the graph, seen by who puts into it."""

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
from ataraxis.pipeline.arrays import joined, shared
from ataraxis.pipeline.board import FINISHED, StatusBoard
from ataraxis.pipeline.frames import (
    CALLED,
    GAPS,
    GROUP,
    PLAIN,
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

# How often who waits for room looks whether there is anybody left to make some.
SLICE_S = 0.25
_ANY = 1 << 62


class Outbox:
    """Puts frames into the input queues of one processor, as its settings say."""

    def __init__(
        self, target: Target, board: StatusBoard, credit: str, context: ContextLike
    ) -> None:
        self.target = target
        self._board = board
        self._queues = [MemQ.attach(name, context=context) for name in target.queues]
        self._queue = self._queues[0]
        self._on_full = target.on_full
        self._state = board.of_processor(target.index)
        self._credit: SharedMemoryArray | None = None
        if target.ends:
            self._credit = SharedMemoryArray.attach(credit, context=context)
        self._tails: dict[int, Any] = {}
        self._router: Router | None = None
        self._shares: list[tuple[Any, ...]] = []
        if target.key is not None:
            self._router = Router(target.key, target.name, len(self._queues))
        self._ends: dict[int, list[tuple[int, int]]] = {}
        self._open: dict[int, int] = {}
        self.dropped = 0

    @property
    def is_plain(self) -> bool:
        """Whether every frame goes to one queue, just as it is."""
        target = self.target
        return not target.overlap and not target.split and target.key is None

    @property
    def direct(self) -> MemQ | None:
        """The queue, if all there is to do is to put into it."""
        is_direct = self.is_plain and self._on_full == "block" and not self.target.ends
        return self._queue if is_direct else None

    @property
    def is_finished(self) -> bool:
        """Whether those who would get it have ended in good order."""
        return self._board.words[self._state] == FINISHED

    def room(self) -> list[Waitable]:
        """Return what happens when a put that found no room may find some."""
        found: list[Waitable] = [RoomEvent(queue) for queue in self._queues]
        if self._credit is not None:
            found.append(self._credit.change_event())
        return found

    @property
    def waiting(self) -> int:
        """How many frames wait for a worker."""
        return sum(queue.qsize() for queue in self._queues)

    @property
    def is_full(self) -> bool:
        """Whether a put would probably wait."""
        return self._on_full == "block" and any(q.full() for q in self._queues)

    def put(self, frame: bytes, timeout: float | None, which: int = 0) -> bool:
        """Put a whole frame: False if there was no room in time.

        True also if it was dropped, as the policy says, or there is nobody left.
        """
        if self.is_finished:
            return True
        queue = self._queues[which] if which else self._queue
        if self._on_full != "block":
            return self._force(queue, frame)
        if timeout == 0:
            return queue.offer(frame, 0)
        while not queue.offer(frame, SLICE_S if timeout is None else timeout):
            if self.is_finished:
                return True
            if timeout is not None:
                return False
        return True

    def send(
        self,
        value: Any,
        dtype: DType | int | None,
        lane: int,
        sequence: int,
        kind: int,
        source: int,
        time_ns: int,
        timeout: float | None,
        which: int = 0,
    ) -> bool:
        """Put a value, as a frame that `put` would put; where possible in one copy."""
        queue = self._queues[which]
        code = -1 if dtype is None else dtype
        if kind == PLAIN and self.target.marks_calls and is_call(lane):
            kind = CALLED
        if self._on_full == "block" and isinstance(code, int):
            wait: float | None = 0
            while not self.is_finished:
                went = queue.post(
                    value, code, (lane, sequence, kind), source, time_ns, wait
                )
                if went is None:
                    break
                if went or timeout == 0 or (wait and timeout is not None):
                    return went
                wait = SLICE_S if timeout is None else timeout
            else:
                return True
        frame = write(value, dtype, lane, sequence, kind, 0, source, time_ns,
                      self.target.allow_pickle)  # fmt: skip
        return self.put(frame, timeout, which)

    def _force(self, queue: MemQ, frame: bytes) -> bool:
        """Put where a full queue is not waited for."""
        if self._on_full == "latest":
            while self._evict(queue):
                pass
        while not queue.offer(frame, 0):
            if self._on_full == "raise":
                raise QueueFull(
                    f"the input of {self.target.name!r} is full, and its on_full= is "
                    "'raise': 'block' waits, 'drop_oldest' and 'drop_newest' count"
                )
            if self._on_full == "drop_newest" or not self._evict(queue):
                self.dropped += 1
                return True
        return True

    def _evict(self, queue: MemQ) -> bool:
        """Drop the oldest frame; False if there is none, or only the last one."""
        with suppress(Empty):
            lease = queue.lease(False)
            if lease.frame.end_of_stream:
                lease.give_back()
                return False
            lease.acknowledge()
            self.dropped += 1
            return True
        return False

    def in_window(self, lane: int, sequence: int, timeout: float | None) -> bool:
        """Wait until a value may go on its way; False: not in time.

        It must not be too far ahead of the oldest one that is not in order yet.
        """
        credit = self._credit
        if credit is None or sequence < self._open.get(lane, 0):
            return True
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            version = credit.statistics().version
            self._open[lane] = self._passed(lane) + WINDOW
            if sequence < self._open[lane]:
                return True
            left = SLICE_S
            if deadline is not None:
                left = min(left, deadline - time.monotonic())
                if left <= 0:
                    return False
            with suppress(TimeoutError):
                credit.wait_for_change(left, since=version)

    def _passed(self, lane: int) -> int:
        """Return the oldest number of a lane that somebody has not put in order yet."""
        ends = self._ends.get(lane)
        if ends is None:
            ends = self._ends[lane] = [
                (last, functools.reduce(lane_of, path, lane))
                for last, path in self.target.ends
            ]
        board = self._board
        return min(
            (
                board.next_of(last, end)
                for last, end in ends
                if board.state_of(last) != FINISHED
            ),
            default=_ANY,
        )

    def check(self, value: Any, part: int) -> None:
        """Refuse what cannot go this way, before any other way has it.

        Raises
        ------
        TypeError, ValueError
            It is no array, where arrays are cut; or has no key.
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
                f"arrays, one at a time; it was given {type(value).__name__}"
            )

    def put_value(
        self,
        value: Any,
        dtype: DType | int | None,
        lane: int,
        sequence: int,
        kind: int,
        source: int,
        time_ns: int,
        timeout: float | None,
    ) -> bool:
        """Put a value in parts, or with the end of the one before, or by its key.

        It was checked by `check`.
        """
        if self._router is not None:
            return self._put_by_key(
                value, dtype, lane, sequence, kind, source, time_ns, timeout
            )
        count = len(self._queues) if self.target.split else 0
        if kind_of(kind) in GAPS:
            for k in range(len(self._queues)):
                mark = part_of(kind_of(kind), k, count) if count else kind
                frame = write(None, None, lane, sequence, mark, 0, source, time_ns)
                if not self.put(frame, timeout if k == 0 else None, k):
                    return False
            return True
        # Put back below: after an interrupt nothing is known to come before the next.
        before, overlap = self._tails.pop(lane, None), 0
        whole = value
        if self.target.overlap:
            if before is not None:
                whole, overlap = joined([before, value], 0), len(before)
            kept = whole[-self.target.overlap :]
            tail = kept.copy(deep=True) if hasattr(kept, "dims") else np.array(kept)
        parts = shared(whole, len(self._queues))
        for k, part in enumerate(parts):
            mark = part_of(PLAIN, k, count) if count else kind
            frame = write(part, dtype, lane, sequence, mark, overlap, source, time_ns,
                          self.target.allow_pickle)  # fmt: skip
            if not self.put(frame, timeout if k == 0 else None, k):
                if before is not None:
                    self._tails[lane] = before
                return False
        if self.target.overlap:
            self._tails[lane] = tail
        return True

    def _put_by_key(
        self, value: Any, dtype: Any, lane: int, sequence: int, part: int, source: int,
        time_ns: int, timeout: float | None,
    ) -> bool:  # fmt: skip
        """Put a value to the worker of its key; several of several keys in groups."""
        shares, count = self._shares, len(self._queues)
        having = [k for k, share in enumerate(shares) if share]
        if kind_of(part) in GAPS or not having:
            having = [sequence % count]  # somebody has to tell of it
        if len(having) == 1:
            return self.send(
                value, dtype, lane, sequence, part, source, time_ns, timeout, having[0]
            )
        index, parts = index_of(part)
        for k, share in enumerate(shares):
            mark = part_of(GROUP, index * count + k, max(parts, 1) * count)
            frame = write(share, None, lane, sequence, mark, 0, source, time_ns,
                          self.target.allow_pickle)  # fmt: skip
            if not self.put(frame, timeout, k):
                return False
            timeout = None
        return True

    def close(self) -> None:
        """Leave the queues."""
        for queue in self._queues:
            queue.close()
        if self._credit is not None:
            self._credit.disconnect()


def send_to_all(
    outboxes: Sequence[Outbox],
    value: Any,
    dtype: DType | int | None,
    lane: int,
    sequence: int,
    kind: int,
    source: int,
    time_ns: int,
    timeout: float | None,
    on_put: Callable[[Outbox], object] = lambda outbox: None,
) -> bool:
    """Put a value into every outbox, or into none; False: no room in time.

    `on_put` is called with each outbox, once it has the value.
    """
    if len(outboxes) > 1 and timeout is not None:
        # Whoever may have to be waited for comes first; then there is no return.
        outboxes = sorted(outboxes, key=lambda o: not o.is_full)
        if timeout == 0 and outboxes[0].is_full and not outboxes[0].is_finished:
            return False
    for outbox in outboxes:
        outbox.check(value, kind)
    if not all(o.in_window(lane, sequence, timeout) for o in outboxes):
        return False
    for outbox in outboxes:
        put = outbox.send if outbox.is_plain else outbox.put_value
        if not put(value, dtype, lane, sequence, kind, source, time_ns, timeout):
            return False
        timeout = None
        on_put(outbox)
    return True
