"""Where a task puts its items: queues, callables, an ataraxis `Producer`.

Every sink is bounded: by the queue's own size, or by `buffer` items where the queue has
none. `on_full` decides whether a full sink is waited for, or items are dropped and
counted.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ataraxis.datamux.end import End
from ataraxis.errors import QueueFull
from ataraxis.stream.overflow import Overflow

ON_FULL = ("block", "drop_oldest", "drop_newest", "raise")
SLICE_S = 0.05
_PAUSE_S = 0.002
_GRACE_S = 0.5
BUFFER = 65536

IsOver = Callable[[], bool]


class Sink(Protocol):
    """The target of a task; called by one thread."""

    takes_blocks: bool
    delivered: int
    dropped: int

    def put(self, items: Sequence[Any], is_over: IsOver) -> None:
        """Hand items over, in order; wait for room until it is over."""

    def finish(self, end: End, is_over: IsOver) -> End:
        """Hand over the end; once it is over, drop unread items to make room.

        Returns the end that was handed over: 'stopped' if items were dropped for it.
        """

    def wake(self) -> None:
        """Make a wait check whether it is over."""


class ShortWaits:
    """What sinks share that wait for short times only: counts, and no `wake`."""

    takes_blocks = False
    delivered = 0
    dropped = 0

    def wake(self) -> None:
        """Do nothing: waits are short."""


class CallSink(ShortWaits):
    """Calls a function with each item, in the task's thread."""

    def __init__(self, function: Callable[[Any], object]) -> None:
        self._function = function

    def put(self, items: Sequence[Any], is_over: IsOver) -> None:
        """Call with each item; an exception ends the task."""
        for item in items:
            if is_over():
                return
            self._function(item)
            self.delivered += 1

    def finish(self, end: End, is_over: IsOver) -> End:
        """Call with the end."""
        self._function(end)
        return end


class QueueSink(ShortWaits):
    """Puts into a queue of `queue` or `multiprocessing`, or any object with ``put``."""

    def __init__(self, target: Any, on_full: Overflow, buffer: int) -> None:
        self._queue = target
        self._on_full = on_full
        self._buffer = buffer
        self._is_timed = hasattr(target, "put_nowait")
        # A queue of multiprocessing has no maxsize; its qsize is enough.
        self._is_bounded = getattr(target, "maxsize", 0) > 0

    def put(self, items: Sequence[Any], is_over: IsOver) -> None:
        """Put each item; waits check regularly whether it is over."""
        at = 0
        while at < len(items):
            room = self._room(len(items) - at)
            if room <= 0:
                if not self._make_room(is_over):
                    self.dropped += len(items) - at
                    return
                continue
            for item in items[at : at + room]:
                if not self._put_one(item, is_over):
                    return
            at += room

    def _room(self, wanted: int) -> int:
        if self._is_bounded:
            return wanted
        try:
            return min(wanted, self._buffer - int(self._queue.qsize()))
        except (AttributeError, NotImplementedError):
            return wanted

    def _make_room(self, is_over: IsOver) -> bool:
        """Wait for a reader of an unbounded queue, or apply `on_full`."""
        if is_over() or self._on_full == "drop_newest":
            return False
        if self._on_full == "raise":
            raise _full(self._buffer)
        if self._on_full == "drop_oldest" and self._evict():
            return True
        time.sleep(_PAUSE_S)
        return True

    def _put_one(self, item: Any, is_over: IsOver) -> bool:
        """Put one item; False if it is over."""
        if not self._is_timed:
            self._queue.put(item)
            self.delivered += 1
            return True
        while True:
            try:
                self._queue.put_nowait(item)
            except queue.Full:
                if is_over():
                    return False
                if self._on_full == "raise":
                    raise _full(self._buffer) from None
                if self._on_full == "drop_newest":
                    self.dropped += 1
                    return True
                if self._on_full == "drop_oldest" and self._evict():
                    continue
                try:
                    self._queue.put(item, True, SLICE_S)
                except queue.Full:
                    continue
            self.delivered += 1
            return True

    def _evict(self) -> bool:
        try:
            self._queue.get_nowait()
        except (queue.Empty, AttributeError):
            return False
        self.dropped += 1
        return True

    def finish(self, end: End, is_over: IsOver) -> End:
        """Put the end: wait for room, or make room once the task was stopped."""
        if not self._is_timed:
            self._queue.put(end)
            return end
        grace = time.monotonic() + _GRACE_S
        while True:
            try:
                self._queue.put(end, True, SLICE_S)
                return end
            except queue.Full:
                # A reader that left leaves a full queue: drop the oldest item.
                if self._on_full != "block":
                    self._evict()
                elif is_over() and time.monotonic() > grace:
                    end = cut_short(end)
                    if not self._evict():
                        return end


def cut_short(end: End) -> End:
    """Return the end of a stream of which not everything was delivered."""
    return End("stopped") if end.reason == "completed" else end


def _full(buffer: int) -> QueueFull:
    return QueueFull(
        f"the sink is full (buffer={buffer}): read faster, or use on_full='block' or "
        "'drop_oldest'"
    )
