"""The watcher: one thread that waits for copies, and gives back what they read.

It waits for the event of the oldest copy, with the GIL released, and then looks at the
others. What a copy kept (a view of a slot, a hold of its pages) is dropped when its
event is over: that frees the slot, which wakes a waiting `receive`. Driver callbacks
(cuLaunchHostFunc) would need the GIL in a thread of the driver, and are not used.
"""

from __future__ import annotations

import _thread
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

IDLE_S = 0.5
"""After so long without a copy, s, the thread ends; the next copy starts another."""
_log = logging.getLogger("ataraxis.gpu")


@dataclass(frozen=True)
class CopyEvent:
    """The end of a copy."""

    wait: Callable[[], object]
    """Sleeps until the copy is over, with the GIL released."""
    is_over: Callable[[], bool]
    """Returns whether it is."""


class CopyWatcher:
    """Waits for copies of one process, in a thread that runs while there are any."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._new: SimpleQueue[tuple[CopyEvent, list[Any]]] = SimpleQueue()
        self._lock = _thread.allocate_lock()
        self._is_running = False
        self.begun = self.ended = 0

    def keep(self, event: CopyEvent, kept: list[Any]) -> None:
        """Drop the items of `kept` when the event is over; the list is emptied."""
        with self._lock:
            self.begun += 1
            self._new.put((event, kept))
            if self._is_running:
                return
            self._is_running = True
            try:
                # Not `threading.Thread.start`, which an interrupt may break off.
                _thread.start_new_thread(self._run, ())
            except BaseException:
                self._is_running = False
                self.begun -= 1
                self._new.get_nowait()
                raise

    def _run(self) -> None:
        waiting: list[tuple[CopyEvent, list[Any]]] = []
        while True:
            try:
                waiting.append(self._new.get(timeout=0 if waiting else IDLE_S))
                continue
            except Empty:
                pass
            if waiting:
                event, kept = waiting.pop(0)
                _settle(event.wait)
                kept.clear()
                self.ended += 1
                left = []
                while waiting:
                    event, kept = waiting.pop(0)
                    if _settle(event.is_over):
                        kept.clear()
                        self.ended += 1
                    else:
                        left.append((event, kept))
                waiting = left
                del event, kept
                continue
            with self._lock:
                if self._new.empty():
                    self._is_running = False
                    return


def _settle(look: Callable[[], object]) -> bool:
    """Return whether a copy is over; one that failed is: its context has ended."""
    try:
        return look() is not False
    except Exception as error:
        _log.error("a copy to a GPU failed: %s: %s", type(error).__name__, error)
        return True


_current: CopyWatcher | None = None


def watcher() -> CopyWatcher:
    """Return the watcher of this process; a forked child has its own."""
    global _current
    found = _current
    if found is None or found.pid != os.getpid():
        found = _current = CopyWatcher()
    return found


def wait_for_copies(timeout: float) -> bool:
    """Wait until no copy is under way; return False after `timeout`, s."""
    found = watcher()
    deadline = time.monotonic() + timeout
    while found.ended < found.begun:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True
