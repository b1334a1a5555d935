"""The queue and the flag that StreamingHub's programs make with ``dm.Queue()``."""

from __future__ import annotations

import multiprocessing
import queue
from multiprocessing.synchronize import Event
from typing import Any

Flag = Event


class Queue:
    """A queue between processes whose `get` gives None when nothing came in time.

    Any queue will do as a sink; this one is for programs that were written for the
    original.

    Parameters
    ----------
    empty : bool
        Without memory of its own, until `assign`.
    timeout : float or None
        How long `get` waits, s; None: until something comes.

    Examples
    --------
    >>> sink = Queue(timeout=5)
    >>> sink.put({"a": 1})
    >>> sink.get()
    {'a': 1}
    >>> sink.close()
    """

    def __init__(self, empty: bool = False, timeout: float | None = None) -> None:
        self.timeout = timeout
        self.q: Any = None if empty else multiprocessing.get_context("spawn").Queue()

    def assign(self, q: Queue) -> None:
        """Be another handle on the same queue."""
        self.q = q.q

    def get(self) -> Any:
        """Return the next item, or None if none came within `timeout`."""
        try:
            return self._whole().get(timeout=self.timeout)
        except queue.Empty:
            return None

    def get_nowait(self) -> Any:
        """Return the next item; `queue.Empty` if there is none."""
        return self._whole().get_nowait()

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item."""
        self._whole().put(obj, block, timeout)

    def put_nowait(self, obj: Any) -> None:
        """Put an item."""
        self._whole().put_nowait(obj)

    def qsize(self) -> int:
        """Return about how many items are there."""
        return int(self._whole().qsize())

    def close(self) -> None:
        """Put nothing more from here, and wait until what was put is on its way."""
        if self.q is not None:
            self.q.close()
            self.q.join_thread()

    def _whole(self) -> Any:
        if self.q is None:
            raise ValueError(
                "Queue(empty=True) has nothing behind it: assign() a queue"
            )
        return self.q


def create_flag() -> Flag:
    """Return an event that processes share."""
    return multiprocessing.get_context("spawn").Event()
