"""Calls the callbacks of a logger when its writer reports a loss, error or low disk."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ataraxis.errors import LoggerError
from ataraxis.log.disk_watch import LowDisk
from ataraxis.log.status import DROPPED, FAILED, STATE, LogStatus
from ataraxis.shm.thread import Latch, Thread

if TYPE_CHECKING:
    from ataraxis.log.queue import LogQueue

_EVERY_S = 0.2


@dataclass(frozen=True)
class Loss:
    """Entries that were not accepted because the queue was full."""

    count: int
    """Entries since the last call; approximate if several processes drop at once."""
    total: int
    """Entries since the logger was made."""


class LogWatch:
    """A thread that checks a log's status five times a second and calls back.

    `queue` makes the error message. The callbacks take `Loss`, `LoggerError` and
    `LowDisk`.
    """

    def __init__(
        self,
        queue: LogQueue,
        status: LogStatus,
        on_loss: Callable[[Loss], object] | None,
        on_error: Callable[[LoggerError], object] | None,
        on_low_disk: Callable[[LowDisk], object] | None,
    ) -> None:
        self._queue, self._status = queue, status
        self._on_loss, self._on_error = on_loss, on_error
        self._on_low_disk = on_low_disk
        self._dropped = status.words[DROPPED]
        self._has_failed = self._is_low = False
        self._stop = Latch()
        self._thread: Thread | None = None

    def start(self) -> None:
        """Start the thread if there are callbacks and it does not run."""
        if not (self._on_loss or self._on_error or self._on_low_disk):
            return
        self._has_failed = False
        if self._thread is None or not self._thread.is_alive():
            self._stop = Latch()
            self._thread = Thread(self._run, "ataraxis-log-watch", (self._stop,))
        self._thread.start()

    def stop(self) -> None:
        """Check once more, and end the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, stop: Latch) -> None:
        while True:
            is_last = stop.wait(_EVERY_S)
            try:
                self.check()
            except Exception as error:
                warnings.warn(
                    f"a callback of {self._queue!r} raised {error!r}",
                    RuntimeWarning,
                    stacklevel=2,
                )
            if is_last:
                return

    def check(self) -> None:
        """Call back for what is new."""
        words = self._status.words
        dropped, self._dropped = self._dropped, words[DROPPED]
        if self._dropped > dropped:
            self._call(self._on_loss, Loss(self._dropped - dropped, self._dropped))
        was_low, low = self._is_low, self._status.low_disk()
        self._is_low = low is not None
        if low is not None and not was_low:
            self._call(self._on_low_disk, low)
        had_failed, self._has_failed = self._has_failed, words[STATE] == FAILED
        if self._has_failed and not had_failed:
            message = self._queue.failure_message(self._status.error)
            self._call(self._on_error, LoggerError(message))

    @staticmethod
    def _call(callback: Callable[[Any], object] | None, what: object) -> None:
        if callback is not None:
            callback(what)
