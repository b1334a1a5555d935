"""An event loop in a thread, which ends completely."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from ataraxis.errors import NotConnectedError
from ataraxis.shm.thread import Outcome, Thread

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for other threads; `close` ends them and the thread.

    Examples
    --------
    >>> async def double(x):
    ...     return 2 * x
    >>> loop = LoopThread("example")
    >>> loop.run(double(4)).result(5)
    8
    >>> loop.close()
    """

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._pid = os.getpid()
        self._is_closed = False
        self._lock = threading.Lock()
        self._thread = Thread(self._run, name)
        self._thread.start()

    def _run(self) -> None:
        loop = self.loop
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            asyncio.set_event_loop(None)
            loop.close()

    @property
    def is_current(self) -> bool:
        """Whether this is called in the thread."""
        return self._thread.is_current

    def run(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine in the loop; return its future.

        Raises `NotConnectedError` if the loop was closed, or belongs to the parent of
        this forked process.
        """
        made: Outcome[T] = Outcome()

        def ended(task: asyncio.Task[T]) -> None:
            if task.cancelled():
                made.cancel()
            elif (error := task.exception()) is not None:
                made.set_exception(error)
            else:
                made.set_result(task.result())

        def begin() -> None:
            self.loop.create_task(coroutine).add_done_callback(ended)

        try:
            self._check()
            self.loop.call_soon_threadsafe(begin)
        except BaseException:
            coroutine.close()
            raise
        return made

    def call(self, function: Callable[..., object], *arguments: Any) -> bool:
        """Call a function soon in the loop; False if the loop is closed."""
        try:
            self.loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            return False
        return True

    def _check(self) -> None:
        if self._pid != os.getpid():
            raise NotConnectedError(
                "this connection belongs to the parent process: make a new one after "
                "the fork"
            )
        if self._is_closed:
            raise NotConnectedError("the connection was closed: connect again")

    def close(self, timeout: float | None = 10.0) -> None:
        """End every coroutine, and the thread; a second call does nothing."""
        if self._pid != os.getpid():
            return
        with self._lock:
            is_first, self._is_closed = not self._is_closed, True
        if is_first:
            self.call(self.loop.stop)
        self._thread.join(timeout)
