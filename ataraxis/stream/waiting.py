"""Waiting for frames from an event loop: one thread of the process sleeps for all.

A futex has no descriptor that a loop could watch. The thread ends when nobody waits.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from ataraxis._kernels.consumer import Bell, Frame, wait_any

if TYPE_CHECKING:
    from ataraxis.stream.consumer import Consumer

_lock = threading.Lock()
_waiting: dict[asyncio.Future[None], Consumer] = {}
_thread: threading.Thread | None = None
_bell = Bell()
SLICE_S = 0.05


async def wait_async(consumer: Consumer) -> Frame | None:
    """Return the next frame of `consumer`, or None at the end of its stream."""
    global _thread
    while consumer._segment is not None:
        frame = consumer.receive(blocking=False)
        if frame is not None or (consumer.is_ended and not consumer.has_next):
            return frame
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with _lock:
            _waiting[future] = consumer
            if _thread is None:
                _thread = threading.Thread(
                    target=_serve, name="ataraxis-waiting", daemon=True
                )
                _thread.start()
        _bell.ring()
        try:
            await future
        finally:
            with _lock:
                _waiting.pop(future, None)
    return None


def _serve() -> None:
    global _thread
    while True:
        with _lock:
            seen = _bell.count
            futures, consumers = list(_waiting), list(_waiting.values())
            if not futures:
                _thread = None
                return
        for future, found in zip(
            futures, wait_any(consumers, _bell, seen, SLICE_S), strict=True
        ):
            if found:
                with _lock:
                    _waiting.pop(future, None)
                _tell(future)
        del futures, consumers, future


def _tell(future: asyncio.Future[None]) -> None:
    def wake() -> None:
        if not future.done():
            future.set_result(None)

    try:
        future.get_loop().call_soon_threadsafe(wake)
    except RuntimeError:
        pass  # the loop was closed meanwhile
