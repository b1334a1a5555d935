"""Sinks that belong to an event loop: `asyncio.Queue` and coroutine functions.

The task's thread hands over a batch with one call into the loop, not one per item.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError
from typing import Any

from ataraxis.datamux.end import End
from ataraxis.datamux.sinks.sink import SLICE_S, IsOver, ShortWaits, cut_short
from ataraxis.errors import NotConnectedError, QueueFull
from ataraxis.stream.overflow import Overflow

_BATCH = 1024  # items moved at a time, so that the loop can run other tasks
_PAUSE_S = 0.002


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the running loop; raise `RuntimeError` if no loop runs."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "an asyncio sink needs a running event loop: call from an async function, "
            "or give a queue.Queue"
        ) from None


class LoopSink:
    """Puts into an `asyncio.Queue` of the loop in which it was made."""

    takes_blocks = False

    def __init__(
        self, target: asyncio.Queue[Any], on_full: Overflow, buffer: int
    ) -> None:
        self._loop = running_loop()
        self._queue = target
        self._on_full = on_full
        self._limit = target.maxsize if target.maxsize > 0 else buffer
        self._waiting: deque[Any] = deque()
        self._lock = threading.RLock()  # entered without Python's Condition
        self._room = threading.Condition(self._lock)
        self._is_scheduled = False
        self._pump: asyncio.Task[None] | None = None
        self._error: Exception | None = None
        self.delivered = 0
        self.dropped = 0

    # ---- in the task's thread

    def put(self, items: Sequence[Any], is_over: IsOver) -> None:
        """Hand a batch over, after the one before it was taken."""
        with self._lock:
            while self._waiting and not is_over():
                self._check()
                self._room.wait(SLICE_S)
            self._check()
            if is_over():
                return
            self._waiting.extend(items)
            self._schedule()
            while self._on_full == "raise" and self._waiting and not is_over():
                self._room.wait(SLICE_S)
                self._check()
            self._check()

    def finish(self, end: End, is_over: IsOver) -> End:
        """Hand the end over; wait until it is in the queue."""
        with self._lock:
            self._error = None
            if not is_over() and self._on_full == "block":
                self._waiting.append(end)
                while self._waiting and not is_over():
                    if self._loop.is_closed():
                        return cut_short(end)
                    self._schedule()
                    self._room.wait(SLICE_S)
                if not self._waiting:
                    return end
                self._waiting.pop()
            if is_over() and self._waiting:
                end = cut_short(end)
                self.dropped += len(self._waiting)
                self._waiting.clear()
            if not self._loop.is_closed():
                self._call(self._force, end)
            return end

    def wake(self) -> None:
        """Make a wait check whether it is over."""
        with self._lock:
            self._room.notify_all()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
        if self._loop.is_closed():
            raise NotConnectedError("the sink's event loop was closed")

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._call(self._drain)

    def _call(self, function: Callable[..., object], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError as error:
            raise NotConnectedError("the sink's event loop was closed") from error

    # ---- in the loop

    def _drain(self) -> None:
        """Move waiting items into the queue while it has room."""
        with self._lock:
            self._is_scheduled = False
            if self._pump is not None:
                return
            for _ in range(min(len(self._waiting), _BATCH)):
                if self._queue.qsize() >= self._limit and not self._no_room():
                    return
                if self._waiting:
                    self._move()
            if self._waiting:
                self._again(0.0)
            else:
                self._room.notify_all()

    def _move(self) -> None:
        item = self._waiting.popleft()
        self._queue.put_nowait(item)
        if not isinstance(item, End):
            self.delivered += 1

    def _no_room(self) -> bool:
        """Apply `on_full`; whether the drain may continue."""
        if self._on_full == "drop_newest":
            self.dropped += 1
            self._waiting.popleft()
            self._room.notify_all()
            return bool(self._waiting) and self._no_room()
        if self._on_full == "drop_oldest":
            self._queue.get_nowait()
            self.dropped += 1
            return True
        if self._on_full == "raise":
            self._waiting.clear()
            self._error = QueueFull(
                f"the sink is full ({self._limit} items): read faster, or use "
                "on_full='block' or 'drop_oldest'"
            )
            self._room.notify_all()
        elif self._queue.maxsize > 0:
            self._pump = self._loop.create_task(self._pumping())
        else:
            self._again(_PAUSE_S)
        return False

    def _again(self, delay_s: float) -> None:
        self._is_scheduled = True
        self._loop.call_later(delay_s, self._drain)

    async def _pumping(self) -> None:
        """Put items one by one into a bounded queue, waiting for room."""
        try:
            while self._waiting:
                item = self._waiting[0]
                await self._queue.put(item)
                with self._lock:
                    if self._waiting and self._waiting[0] is item:
                        self._waiting.popleft()
                    if not isinstance(item, End):
                        self.delivered += 1
                    if not self._waiting:
                        self._room.notify_all()
        finally:
            self._pump = None

    def _force(self, end: End) -> None:
        """Put the end, dropping unread items if the queue is full."""
        with self._lock:
            if self._pump is not None:
                self._pump.cancel()
            while self._waiting:
                if self._queue.qsize() < self._limit:
                    self._move()
                elif self._on_full == "drop_oldest":
                    self._queue.get_nowait()
                    self.dropped += 1
                else:
                    self.dropped += len(self._waiting)
                    self._waiting.clear()
            if self._queue.full():
                self._queue.get_nowait()
                self.dropped += 1
            self._queue.put_nowait(end)
            self._room.notify_all()


class CoroutineSink(ShortWaits):
    """Awaits a coroutine function with each item, in the loop in which it was made."""

    def __init__(self, function: Callable[[Any], Coroutine[Any, Any, object]]) -> None:
        self._loop = running_loop()
        self._function = function

    def put(self, items: Sequence[Any], is_over: IsOver) -> None:
        """Await each in turn; an exception ends the task."""
        for item in items:
            if is_over() or not self._run(item, is_over):
                return
            self.delivered += 1

    def _run(self, item: Any, is_over: IsOver) -> bool:
        made = self._function(item)
        try:
            future = asyncio.run_coroutine_threadsafe(made, self._loop)
        except RuntimeError as error:
            made.close()
            raise NotConnectedError("the sink's event loop was closed") from error
        while True:
            try:
                future.result(SLICE_S)
            except TimeoutError:
                if future.done():
                    raise  # raised by the function
                if self._loop.is_closed() or is_over():
                    future.cancel()
                    return False
            except CancelledError as error:
                raise NotConnectedError("the sink's event loop ended") from error
            else:
                return True

    def finish(self, end: End, is_over: IsOver) -> End:
        """Call with the end; does not wait once the task was stopped."""
        if not self._loop.is_closed():
            self._run(end, is_over)
        return end
