"""`LogQueue`: what entries are put into, from any process."""

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
    DROPPED,
    ENDED,
    FAILED,
    FINISHED,
    FREE,
    GENERATION,
    RUNNING,
    STATE,
    STOPPING,
    WORRY,
    WRITTEN,
    LogStatus,
)
from ataraxis.log.writer import start_writer
from ataraxis.shm.process import ChildProcess, ProcessOutput, RestartBudget
from ataraxis.stream import MemQ

# ---- `QueuedRows`: rows of a block on their way into a log's queue


class QueuedRows:
    """Each row an entry; called again, it goes on where there was no room.

    Parameters
    ----------
    queue : MemQ
        Takes them.
    source : int
        Of all.
    rows : ndarray
        Shape (n, ...); contiguous, any dtype without Python objects.
    stamp, step : int
        Of the first row, and from row to row; u64.
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
        """Rows that are not put yet."""
        return len(self._rows) - self._done

    def __call__(self, block: bool, timeout: float | None) -> None:
        """Put what is left; `queue.Full` if not all of it found room."""
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
        """Put rows that only labels can name, or that are larger than a slot."""
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
_WORDS_LINES = 3


class LogQueue:
    """Put entries into a log; sent to any process, by any start method.

    Made by `DataLogger.input_queue`. An entry is safe from the death of every process
    when `put` has returned, see the promises of `DataLogger`.
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
        self._looked = time.monotonic()
        self._started = -_STARTING_S
        self._owner = os.getpid()
        self._creator = 0
        self._is_closed = self._has_warned = False

    def set_owner(self, *, warns: bool) -> None:
        """Be the logger's own handle: it outlives `close`; whether it warns."""
        self._creator = os.getpid()
        self._has_warned = not warns

    def __reduce__(self) -> tuple[Any, ...]:
        return LogQueue, (self._queue, self._path, self._on_full, self._layout)

    # ---- what goes in

    def put(
        self, package: LogPackage, block: bool = True, timeout: float | None = None
    ) -> None:
        """Log one package: copied once, into shared memory, before this returns.

        Parameters
        ----------
        package : LogPackage
            Its array may be changed afterwards.
        block : bool
            Wait for room; how long is the disk's business.
        timeout : float or None
            Longest wait, s.

        Raises
        ------
        TypeError
            It is no `LogPackage`.
        LoggerError
            The log is not written any more: says what is safe. This package was not
            accepted.
        QueueFull, TimeoutError
            No room, or none within `timeout`.
        """
        if type(package) is not LogPackage:
            raise TypeError(
                f"put takes a LogPackage, got {type(package).__name__}: "
                "LogPackage(source_id, timestamp, data), or DataLogger.log()"
            )
        source, stamp, data = package.source, package.stamp, package.payload
        words = self._words
        if not words[WORRY] and self._on_full == "block":
            wait = _SLICE_S if timeout is None or timeout > _SLICE_S else timeout
            try:
                self._put(data, block, wait, source=source, device_time=stamp)
            except Full:
                if not block or wait == timeout:
                    raise
            else:
                if words[WORRY]:
                    self._accepted_late()
                return
            timeout = None if timeout is None else timeout - wait
        once = partial(self._put, data, source=source, device_time=stamp)
        self._offer(once, block, timeout)

    def put_nowait(self, package: LogPackage) -> None:
        """Log one package without waiting; `QueueFull` if there is no room."""
        self.put(package, False)

    def log(
        self,
        source_id: int,
        array: ArrayLike,
        *,
        timestamp: int | None = None,
        timeout: float | None = None,
    ) -> None:
        """Log an array of any dtype and shape; the stamp is filled in.

        Parameters
        ----------
        source_id : int
            0 to 255; in the journal layout to 2**32 - 2.
        array : array_like
            In the npy layout, its bytes are kept; in the journal, also what they are.
        timestamp : int, optional
            Monotonic time of this host, ns, if not given.
        timeout : float or None
            Longest wait, s.
        """
        values = unmasked(array, "a log")
        self._check_source(source_id, values)
        stamp = now_ns() if timestamp is None else whole(timestamp, "timestamp")
        if self._layout == "npy":
            values = as_bytes(values)
        once = partial(self._put, values, source=int(source_id), device_time=stamp)
        self._offer(once, True, timeout)

    def log_block(
        self,
        source_id: int,
        block: ArrayLike,
        *,
        timestamp: int | None = None,
        step: int = 0,
        timeout: float | None = None,
    ) -> int:
        """Log each row of an array as one entry, in one call; how many.

        Parameters
        ----------
        source_id : int
            As for `log`.
        block : array_like
            Shape (n, ...), of any dtype without Python objects.
        timestamp : int, optional
            Of the first row; monotonic time of this host, ns, if not given.
        step : int
            From row to row.
        timeout : float or None
            Longest wait, s.
        """
        rows = np.ascontiguousarray(unmasked(block, "a log"))
        if rows.ndim < 1:
            raise ValueError("log_block takes rows: an array of at least one dimension")
        self._check_source(source_id, rows)
        if not len(rows):
            return 0
        step = whole(step, "step")
        if not 0 <= step < 1 << 48:
            raise ValueError(f"step={step}: 0 to 2**48 - 1")
        stamp = now_ns() if timestamp is None else whole(timestamp, "timestamp")
        if self._layout == "npy":
            rows = as_bytes(rows).reshape(len(rows), -1)
        going = QueuedRows(self._queue, int(source_id), rows, stamp, step)
        self._offer(going, True, timeout, lambda: going.left)
        return len(rows)

    def _check_source(self, source: int, values: NDArray[Any]) -> None:
        whole(source, "source_id")
        most = 255 if self._layout == "npy" else 2**32 - 2
        if not 0 <= source <= most:
            raise ValueError(
                f"source_id={source}: 0 to {most} in the {self._layout} layout"
            )
        if values.dtype.hasobject:
            raise TypeError("an array of Python objects cannot be logged")

    # ---- what there is

    def qsize(self) -> int:
        """How many slots of the queue wait to be written."""
        return self._queue.qsize()

    def empty(self) -> bool:
        """Whether nothing waits to be written."""
        return self._queue.empty()

    def full(self) -> bool:
        """Whether every slot is taken; small entries may still fit behind others."""
        return self._queue.full()

    def close(self) -> None:
        """Leave the queue; what was put is written all the same."""
        if self._creator == os.getpid():
            # The logger needs the handle still.
            self._on_full, self._is_closed = "raise", True
        else:
            self._queue.close()

    def join_thread(self) -> None:
        """Do nothing: there is no thread; what `put` took is in shared memory."""

    cancel_join_thread = join_thread

    def __repr__(self) -> str:
        return f"<LogQueue {self._queue.name!r}>"

    # ---- when it does not go quickly

    def _offer(
        self,
        once: Callable[[bool, float | None], None],
        block: bool,
        timeout: float | None,
        left: Callable[[], int] = lambda: 1,
    ) -> None:
        """Put, and look at the writer while there is no room.

        `once` tries, as `MemQ.put` does; `left` says how many entries that is.
        """
        if self._is_closed:
            raise NotConnectedError(
                f"{self!r} was closed: take the logger's input_queue of another process"
                ", or make another logger"
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
                once(bool(wait), wait)
            except Full:
                if self._on_full == "drop_newest":
                    self._words[DROPPED] += left()
                    return None
                now = time.monotonic()
                if not wait or (end is not None and now >= end):
                    raise
            else:
                if self._words[WORRY]:
                    self._accepted_late()
                return None
            self.look()
            if self._words[WRITTEN] != written or not self._status.is_written():
                # It moves, or the writer is only being started.
                written, moved = self._words[WRITTEN], now
            elif now - moved > _STALL_S:
                moved = math.inf
                warnings.warn(
                    f"{self!r}: the disk has taken nothing for {_STALL_S:.0f} s, and "
                    "put waits for it",
                    RuntimeWarning,
                    stacklevel=3,
                )

    def _accepted_late(self) -> None:
        """Have written what was put while the last writer left: it was accepted."""
        if self._words[STATE] == ENDED and not self._status.is_written():
            self.start_writer()

    def check(self) -> None:
        """Raise `LoggerError` if the log is not written any more."""
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
        """Say which entries are safe."""
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

    def look(self) -> None:
        """Start another writer if there should be one and there is none."""
        words = self._words
        is_running = self._is_writer_running()
        if words[STATE] not in (RUNNING, STOPPING) or words[FINISHED]:
            return
        if self._status.is_written():
            return
        if is_running and time.monotonic() - self._started < _STARTING_S:
            return
        if not os.path.exists(self._path):
            # A writer would find nothing to write.
            self._status.fail("the context of its queue was removed, and the queue")
            return
        if words[GENERATION] >= _MOST_WRITERS:
            self._status.fail(
                f"its writer was killed, and the next one too{self._last_words()}"
            )
            return
        if words[GENERATION] != self._generation:
            self._generation = words[GENERATION]
            self._starts.renew()
        if self._starts.is_spent:
            self._status.fail(
                f"its writer cannot be started: tried {self._starts.deaths} times"
                f"{self._last_words()}"
            )
            return
        self.start_writer()

    def _is_writer_running(self) -> bool:
        """Return whether the writer that this process started runs; reap it if not."""
        if self._writer is not None and self._owner == os.getpid():
            self._writer.poll()
        return self._writer is not None and self._writer.code is None

    def _last_words(self) -> str:
        """Say how the last writer ended, and what it complained of."""
        found = ""
        code = None if self._writer is None else self._writer.code
        if code is not None:
            found = f"; the last one ended with exit code {code}"
            if code < 0:
                found = f"; the last one was killed by signal {-code}"
        if self._errors is not None:
            said = " / ".join(self._errors.last_lines(_WORDS_LINES))
            found += f" and said: {said}" if said else " and said nothing"
        command = sys.executable
        return f"{found} (it is {command}; is that a Python that imports ataraxis?)"

    def reap(self) -> None:
        """Wait for the end of the writer this process started; it is about to end."""
        if self._writer is not None and self._is_writer_running():
            with suppress(TimeoutError):
                self._writer.wait(_REAP_S)

    def start_writer(self) -> None:
        """Start a writer; it ends at once if there is one.

        What keeps it from starting is the log's failure, which `check` raises.
        """
        self._is_writer_running()
        self._owner = os.getpid()
        self._started = time.monotonic()
        self._starts.spend()
        try:
            self._errors, self._writer = ProcessOutput(), None
            self._writer = start_writer(self._path, self._errors)
        except OSError as error:
            self._status.fail(f"its writer cannot be started: {error}")

    def begin(self) -> None:
        """Start the first writer of a log that begins; `LoggerError` if it cannot."""
        self._generation = 0
        self._starts.renew()
        self.start_writer()
        self.check()


def as_bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """View an array as a vector of its bytes; a copy if it is not contiguous."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)
