"""`LogQueue`: the queue of a log, for entries from any process."""

from __future__ import annotations

import math
import os
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Full
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ataraxis.clock import now_ns
from ataraxis.errors import LoggerError, NotConnectedError, PutTimeout, QueueFull
from ataraxis.labels import unmasked, whole
from ataraxis.log.journal.writer import plain_header, row_bytes
from ataraxis.log.npy.package import LogPackage
from ataraxis.log.status import (
    ATTENTION,
    DROPPED,
    ENDED,
    FAILED,
    FINISHED,
    FREE,
    GENERATION,
    RUNNING,
    STATE,
    STOPPING,
    WRITTEN,
    LogStatus,
)
from ataraxis.log.writer import start_writer
from ataraxis.shm.process import ChildProcess, ProcessOutput, RestartBudget
from ataraxis.stream import MemQ

# ---- rows of a block


class QueuedRows:
    """Puts each row as an entry; a further call continues where there was no room.

    The rows, (n, ...), are contiguous, of any dtype without Python objects; `stamp` is
    that of the first row, `step` the increment per row, u64.
    """

    def __init__(
        self, queue: MemQ, source: int, rows: NDArray[Any], stamp: int, step: int
    ) -> None:
        self._queue, self._source = queue, source
        self._rows, self._stamp, self._step = rows, stamp, step
        self._done = 0
        self._header = plain_header(source, rows.dtype, rows.shape[1:])
        self._bytes = row_bytes(rows)

    @property
    def left(self) -> int:
        """Rows that are not in the queue yet."""
        return len(self._rows) - self._done

    def __call__(self, block: bool, timeout: float | None) -> None:
        """Put the remaining rows; raise `queue.Full` if there is no room for all."""
        wait = timeout if block else 0
        try:
            if self._header is None or not self._queue.put_rows(
                self._bytes[self._done :], self._header, self._now, self._step, wait
            ):
                self._put_each(block, timeout)
            self._done = len(self._rows)
        except (QueueFull, PutTimeout) as full:
            self._done += full.count
            full.count = self._done
            raise

    @property
    def _now(self) -> int:
        """The stamp of the next row."""
        return int((self._stamp + self._done * self._step) % 2**64)

    def _put_each(self, block: bool, timeout: float | None) -> None:
        """Put rows that need labels, or are larger than a slot, one by one."""
        end = None if timeout is None else time.monotonic() + timeout
        while self.left:
            row = np.asarray(self._rows[self._done])
            left = None if end is None else max(0.0, end - time.monotonic())
            self._queue.put(
                row, block, left, source=self._source, device_time=self._now
            )
            self._done += 1


# ---- the queue

OnFull = Literal["block", "raise", "drop_newest"]
ON_FULL = get_args(OnFull)
_SLICE_S = 0.2
_STALL_S = 5.0
_STARTING_S = 30.0
_MOST_WRITERS = 2
_MOST_TRIES = 3
_REAP_S = 5.0
_TAIL_LINES = 3


class LogQueue:
    """Put entries into a log; can be sent to any process.

    Made by `DataLogger.input_queue`. When `put` has returned, an entry survives the
    death of every process, see `DataLogger`.
    """

    def __init__(self, queue: MemQ, path: str, on_full: OnFull, layout: str) -> None:
        self._queue = queue
        self._path = path
        self._on_full = on_full
        self._layout = layout
        self._status = LogStatus(path)
        self._words = self._status.words
        self._put = queue.put
        queue.share_slots()
        self._writer: ChildProcess | None = None
        self._errors: ProcessOutput | None = None
        self._starts, self._generation = RestartBudget(_MOST_TRIES), 0
        self._started = -_STARTING_S
        self._owner = os.getpid()
        self._creator = 0
        self._is_closed = self._has_warned = False

    def set_owner(self, *, warns: bool) -> None:
        """Make this the logger's own handle, which stays open after `close`."""
        self._creator = os.getpid()
        self._has_warned = not warns

    def __reduce__(self) -> tuple[Any, ...]:
        return LogQueue, (self._queue, self._path, self._on_full, self._layout)

    # ---- putting

    def put(
        self, package: LogPackage, block: bool = True, timeout: float | None = None
    ) -> None:
        """Log one package; it is copied into shared memory.

        Parameters
        ----------
        package : LogPackage
            Its array may be changed after the call.
        block : bool
            Wait for room in the queue.
        timeout : float or None
            Longest wait, s.

        Raises
        ------
        TypeError
            It is not a `LogPackage`.
        LoggerError
            The log cannot be written any more; the message states what is safe. This
            package was not accepted.
        QueueFull, TimeoutError
            There was no room, or none within `timeout`.
        """
        if type(package) is not LogPackage:
            raise TypeError(
                f"put takes a LogPackage, got {type(package).__name__}: "
                "LogPackage(source_id, timestamp, data), or DataLogger.log()"
            )
        source, stamp, data = package.source, package.stamp, package.payload
        words = self._words
        if not words[ATTENTION] and self._on_full == "block":
            wait = _SLICE_S if timeout is None or timeout > _SLICE_S else timeout
            try:
                self._put(data, block, wait, source=source, device_time=stamp)
            except Full:
                if not block or wait == timeout:
                    raise
            else:
                if words[ATTENTION]:
                    self._restart_if_ended()
                return
            timeout = None if timeout is None else timeout - wait
        put = partial(self._put, data, source=source, device_time=stamp)
        self._put_checked(put, block, timeout)

    def put_nowait(self, package: LogPackage) -> None:
        """Log one package without waiting; raise `QueueFull` without room."""
        self.put(package, False)

    def log(
        self,
        source_id: int,
        array: ArrayLike,
        *,
        timestamp: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Log an array of any dtype and shape.

        Parameters
        ----------
        source_id : int
            0 to 255; in the journal layout to 2**32 - 2.
        array : array_like
            The npy layout keeps its bytes, the journal layout also dtype and shape.
        timestamp : int, optional
            Default: the monotonic time of this host, ns.
        timeout : float or None
            Longest wait, s.
        """
        values = unmasked(array, "a log")
        self._check_source(source_id, values)
        stamp = now_ns() if timestamp is None else whole(timestamp, "timestamp")
        if self._layout == "npy":
            values = as_bytes(values)
        put = partial(self._put, values, source=int(source_id), device_time=stamp)
        self._put_checked(put, True, timeout)

    def log_block(
        self,
        source_id: int,
        block: ArrayLike,
        *,
        timestamp: int | None = None,
        step: int = 0,
        timeout: float | None = None,
    ) -> int:
        """Log each row of an array as one entry; return how many.

        Parameters
        ----------
        source_id : int
            As for `log`.
        block : array_like
            Shape (n, ...), of any dtype without Python objects.
        timestamp : int, optional
            Stamp of the first row. Default: the monotonic time of this host, ns.
        step : int
            Increment of the stamp per row.
        timeout : float or None
            Longest wait, s.
        """
        rows = np.ascontiguousarray(unmasked(block, "a log"))
        if rows.ndim < 1:
            raise ValueError("log_block needs rows: an array of at least one dimension")
        self._check_source(source_id, rows)
        if not len(rows):
            return 0
        step = whole(step, "step")
        if not 0 <= step < 1 << 48:
            raise ValueError(f"step must be from 0 to 2**48 - 1, got {step}")
        stamp = now_ns() if timestamp is None else whole(timestamp, "timestamp")
        if self._layout == "npy":
            rows = as_bytes(rows).reshape(len(rows), -1)
        pending = QueuedRows(self._queue, int(source_id), rows, stamp, step)
        self._put_checked(pending, True, timeout, lambda: pending.left)
        return len(rows)

    def _check_source(self, source: int, values: NDArray[Any]) -> None:
        whole(source, "source_id")
        most = 255 if self._layout == "npy" else 2**32 - 2
        if not 0 <= source <= most:
            raise ValueError(
                f"source_id={source}: give one from 0 to {most} in the {self._layout} "
                "layout"
            )
        if values.dtype.hasobject:
            raise TypeError("an array of Python objects cannot be logged")

    # ---- state

    def qsize(self) -> int:
        """Return how many slots of the queue wait to be written."""
        return self._queue.qsize()

    def empty(self) -> bool:
        """Return whether nothing waits to be written."""
        return self._queue.empty()

    def full(self) -> bool:
        """Return whether every slot is taken; small entries may fit behind others."""
        return self._queue.full()

    def close(self) -> None:
        """Close this handle; entries in the queue are still written."""
        if self._creator == os.getpid():
            # The logger still needs the handle.
            self._on_full, self._is_closed = "raise", True
        else:
            self._queue.close()

    def join_thread(self) -> None:
        """Do nothing, for compatibility: `put` itself copies to shared memory."""

    cancel_join_thread = join_thread

    def __repr__(self) -> str:
        return f"<LogQueue {self._queue.name!r}>"

    # ---- waiting for room

    def _put_checked(
        self,
        put: Callable[[bool, float | None], None],
        block: bool,
        timeout: float | None,
        left: Callable[[], int] = lambda: 1,
    ) -> None:
        """Call `put`, and check the writer while there is no room.

        `put` takes ``(block, timeout)`` as `MemQ.put`; `left` counts its entries.
        """
        if self._is_closed:
            raise NotConnectedError(
                f"{self!r} is closed: use the logger's input_queue in another process, "
                "or make another logger"
            )
        began = moved = time.monotonic()
        end = None if timeout is None else began + timeout
        written = self._words[WRITTEN]
        while True:
            self.check()
            wait: float | None = _SLICE_S
            if end is not None:
                wait = min(_SLICE_S, max(0.0, end - time.monotonic()))
            if not block or self._on_full != "block":
                wait = 0
            try:
                put(bool(wait), wait)
            except Full:
                if self._on_full == "drop_newest":
                    self._words[DROPPED] += left()
                    return None
                now = time.monotonic()
                if not wait or (end is not None and now >= end):
                    raise
            else:
                if self._words[ATTENTION]:
                    self._restart_if_ended()
                return None
            self.check_writer()
            if self._words[WRITTEN] != written or not self._status.is_written():
                # There is progress, or the writer is being started.
                written, moved = self._words[WRITTEN], now
            elif now - moved > _STALL_S:
                moved = math.inf
                warnings.warn(
                    f"{self!r}: nothing written for {_STALL_S:.0f} s; put() is waiting "
                    "for the disk",
                    RuntimeWarning,
                    stacklevel=3,
                )

    def _restart_if_ended(self) -> None:
        """Start a writer for what was accepted while the last one ended."""
        if self._words[STATE] == ENDED and not self._status.is_written():
            self.start_writer()

    def check(self) -> None:
        """Raise `LoggerError` if the log cannot be written any more."""
        state = self._words[STATE]
        if state == FAILED:
            raise LoggerError(self.failure_message(self._status.error))
        if state == ENDED:
            raise LoggerError(
                self.failure_message("the program that made it has ended")
            )
        if self._words[FREE] and not self._has_warned:
            self._has_warned = True
            warnings.warn(str(self._status.low_disk()), RuntimeWarning, stacklevel=4)

    def failure_message(self, why: str) -> str:
        """Return an error message that states which entries are safe."""
        about = self._status.about
        with suppress(Exception):
            waiting = self._queue.statistics()
            slots = waiting.waiting + waiting.leased
            rest = (
                f"{slots} frames wait in {self._queue.name!r} of {about['context']}, "
                "safe until this machine restarts: start() writes them once the cause "
                "is gone, or 'ataraxis recover'"
            )
            if not slots:
                rest = "nothing else was accepted"
            return (
                f"the log {about['name']!r} cannot be written: {why}. "
                f"{self._words[WRITTEN]} entries are in {about['directory']}; {rest}."
            )
        return f"the log {about['name']!r} cannot be written: {why}"

    def check_writer(self) -> None:
        """Start another writer if the last one died."""
        words = self._words
        is_running = self._is_writer_running()
        if words[STATE] not in (RUNNING, STOPPING) or words[FINISHED]:
            return
        if self._status.is_written():
            return
        if is_running and time.monotonic() - self._started < _STARTING_S:
            return
        if not os.path.exists(self._path):
            self._status.fail("the context of its queue was removed with the queue")
            return
        if words[GENERATION] >= _MOST_WRITERS:
            self._status.fail(
                f"the writer process died twice; giving up{self._exit_report()}"
            )
            return
        if words[GENERATION] != self._generation:
            self._generation = words[GENERATION]
            self._starts.renew()
        if self._starts.is_spent:
            self._status.fail(
                "the writer process cannot be started: tried "
                f"{self._starts.deaths} times{self._exit_report()}"
            )
            return
        self.start_writer()

    def _is_writer_running(self) -> bool:
        """Return whether the writer that this process started runs; reap it if not."""
        if self._writer is not None and self._owner == os.getpid():
            self._writer.poll()
        return self._writer is not None and self._writer.code is None

    def _exit_report(self) -> str:
        """Return how the last writer ended, and its last error output."""
        found = ""
        code = None if self._writer is None else self._writer.code
        if code is not None:
            found = f"; the last one ended with exit code {code}"
            if code < 0:
                found = f"; the last one was killed by signal {-code}"
        if self._errors is not None:
            lines = " / ".join(self._errors.last_lines(_TAIL_LINES))
            found += f" and printed: {lines}" if lines else " and printed nothing"
        return (
            f"{found} (its interpreter is {sys.executable}; can that import ataraxis?)"
        )

    def reap(self) -> None:
        """Wait for the end of the writer that this process started."""
        if self._writer is not None and self._is_writer_running():
            with suppress(TimeoutError):
                self._writer.wait(_REAP_S)

    def start_writer(self) -> None:
        """Start a writer; it ends at once if there is one already.

        A failure to start becomes the log's failure, which `check` raises.
        """
        self._is_writer_running()
        self._owner = os.getpid()
        self._started = time.monotonic()
        self._starts.spend()
        try:
            self._errors, self._writer = ProcessOutput(), None
            self._writer = start_writer(self._path, self._errors)
        except OSError as error:
            self._status.fail(f"the writer process cannot be started: {error}")

    def begin(self) -> None:
        """Start the first writer of a log; raise `LoggerError` if it fails."""
        self._generation = 0
        self._starts.renew()
        self.start_writer()
        self.check()


def as_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """View an array as a vector of its bytes; a copy if it is not contiguous."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)
