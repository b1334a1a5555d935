"""Threads, latches and outcomes that stay usable after an interrupt at any instruction.

`threading.Event` and `Condition` take their lock in Python code: an exception there
(Ctrl-C, a handler that raises) leaves it taken, and the next ``set()`` waits for ever.
An interrupted `threading.Thread.join` of CPython 3.11 marks a running thread as ended.
The classes here use C locks, and attributes that every wait reads every `SLICE_S`.
"""

from __future__ import annotations

import _thread
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from typing import Any, TypeVar

__all__ = ["SLICE_S", "Latch", "Outcome", "Thread", "begin_exit", "end_daemon"]
T = TypeVar("T")
SLICE_S = 0.25
_GONE_S = 1.0
_PUBLISH_S = 0.05
_log = logging.getLogger("concurrent.futures")


class Latch:
    """An event that is set once; signal handlers may set it, or raise."""

    __slots__ = ("_gate", "_is_set")

    def __init__(self) -> None:
        self._is_set = False
        self._gate = _thread.allocate_lock()
        self._gate.acquire()

    def is_set(self) -> bool:
        """Return whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it, and wake the threads that wait."""
        # First: if an interrupt prevents the rest, waits see it within SLICE_S.
        self._is_set = True
        with suppress(RuntimeError):  # the gate is open already
            self._gate.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set; return False after `timeout`, s."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self._is_set:
            left = SLICE_S if end is None else min(end - time.monotonic(), SLICE_S)
            if left <= 0:
                break
            if self._gate.acquire(timeout=left):
                # For the next thread that waits.
                with suppress(RuntimeError):
                    self._gate.release()
        return self._is_set


class Thread:
    """A daemon thread whose end is a `Latch`; `target` is dropped at its end.

    Examples
    --------
    >>> thread = Thread(print, "example", ("in the thread",))
    >>> thread.start(), thread.join(10), thread.is_alive()
    in the thread
    (None, True, False)
    """

    def __init__(
        self, target: Callable[..., object], name: str, args: tuple[Any, ...] = ()
    ) -> None:
        self._target: Callable[[], object] | None = lambda: target(*args)
        self._claim = _thread.allocate_lock()
        self._begun, self._ended = Latch(), Latch()
        self._is_wanted = False
        self._failure: BaseException | None = None
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start it, once; raise `RuntimeError` if the system cannot start a thread.

        May be called again after an interrupt.
        """
        # `threading.Thread.start` waits for an `Event`, so it is called in a thread
        # that signals do not interrupt.
        self._is_wanted = True
        if not self._begun.is_set():
            _thread.start_new_thread(self._launch, ())
            self._begun.wait()
        if self._failure is not None:
            raise self._failure

    def _launch(self) -> None:
        if not self._claim.acquire(blocking=False):
            return
        try:
            self._thread.start()
        except BaseException as error:
            self._failure, self._target = error, None
            self._ended.set()
        finally:
            self._begun.set()

    def _run(self) -> None:
        target, self._target = self._target, None
        try:
            if target is not None:
                target()
        finally:
            del target
            self._ended.set()

    @property
    def is_current(self) -> bool:
        """Whether it is the current thread."""
        return threading.current_thread() is self._thread

    def is_alive(self) -> bool:
        """Return whether it was started, in this process, and has not ended."""
        return self._pid == os.getpid() and self._is_wanted and not self._ended.is_set()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until it has ended; return False after `timeout`, s.

        Does not wait for a thread that was not started, nor for the current one.
        """
        if self.is_current:
            return False
        if not self._is_wanted or self._pid != os.getpid():
            return True
        if not self._begun.is_set():
            # `start` was interrupted: repeat it.
            with suppress(RuntimeError):
                self.start()
        if not self._ended.wait(timeout):
            return False
        # Wait until Python has removed it from its list of threads.
        end = time.monotonic() + _GONE_S
        while self._thread in threading.enumerate() and time.monotonic() < end:
            time.sleep(0.0001)
        return True

    def __repr__(self) -> str:
        is_over = self._ended.is_set()
        state = "runs" if self.is_alive() else "over" if is_over else "new"
        return f"<Thread {self._thread.name!r}, {state}>"


# ---- at the end of the program

_is_ending = False


def begin_exit() -> None:
    """Note that the program ends: what its daemon threads wait for is being closed."""
    global _is_ending
    _is_ending = True


def end_daemon() -> None:
    """End the current thread if the program ends; only daemon threads are left then.

    `SystemExit` ends a thread silently; an error would print a traceback at every exit.
    """
    if _is_ending and threading.get_ident() != threading.main_thread().ident:
        raise SystemExit


class Outcome(Future[T]):
    """A future that stays usable after an interrupt of its callers.

    An interrupt at any instruction of `Future.cancel` may leave the lock taken that
    `set_result` needs. Here both use a C lock only; `concurrent.futures.wait` and
    `as_completed` are notified besides.

    Examples
    --------
    >>> outcome = Outcome()
    >>> outcome.add_done_callback(lambda done: print("done:", done.result()))
    >>> outcome.set_result(3)
    done: 3
    >>> outcome.result(timeout=1)
    3
    """

    def __init__(self) -> None:
        super().__init__()
        self._settled = Latch()
        self._turn = _thread.allocate_lock()
        self._value: Any = None
        self._error: BaseException | None = None
        self._is_cancelled = False
        self._calls: list[Callable[[Future[T]], object]] = []

    # ---- setting the result

    def set_result(self, result: T) -> None:
        """Set the result; `InvalidStateError` if it is done already."""
        self._settle(result, None)

    def set_exception(self, exception: BaseException | None) -> None:
        """Set the error; `InvalidStateError` if it is done already."""
        self._settle(None, exception)

    def _settle(self, value: Any, error: BaseException | None) -> None:
        with self._turn:
            if self._settled.is_set():
                raise InvalidStateError(f"{self!r} has been answered or cancelled")
            self._value, self._error = value, error
            self._settled.set()
        self._publish("FINISHED")
        self._call_back()

    def _publish(self, state: str) -> None:
        """Notify `concurrent.futures.wait` and `as_completed`."""
        # An interrupted waiter may have left the lock taken; go on without it then.
        has_lock = self._condition.acquire(timeout=_PUBLISH_S)
        try:
            self._state = state
            for waiter in self._waiters:
                if self._is_cancelled:
                    waiter.add_cancelled(self)
                elif self._error is not None:
                    waiter.add_exception(self)
                else:
                    waiter.add_result(self)
        finally:
            if has_lock:
                self._condition.release()

    def _call_back(self) -> None:
        while self._calls:
            with suppress(IndexError):  # another thread took it
                self._call(self._calls.pop(0))

    def _call(self, function: Callable[[Future[T]], object]) -> None:
        try:
            function(self)
        except Exception:  # as `Future` does
            _log.exception("exception calling callback for %r", self)

    # ---- waiting

    def cancel(self) -> bool:
        """Cancel it; return whether it is cancelled."""
        with self._turn:
            if not self._settled.is_set():
                self._is_cancelled = True
                self._settled.set()
        if self._is_cancelled:
            self._publish("CANCELLED_AND_NOTIFIED")
            self._call_back()
        return self._is_cancelled

    def set_running_or_notify_cancel(self) -> bool:
        """Return whether it is not done; it may be cancelled until it is."""
        return not self._settled.is_set()

    def cancelled(self) -> bool:
        """Return whether it was cancelled."""
        return self._is_cancelled

    def running(self) -> bool:
        """Return False: it is pending until it is done."""
        return False

    def done(self) -> bool:
        """Return whether it has a result or an error, or was cancelled."""
        return self._settled.is_set()

    def result(self, timeout: float | None = None) -> T:
        """Wait for the result; raise the error, or `TimeoutError`."""
        error = self.exception(timeout)
        if error is not None:
            try:
                raise error
            finally:
                del error, self  # the traceback would hold them
        value: T = self._value
        return value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait until it is done; return its error, or None."""
        if not self._settled.wait(timeout):
            raise TimeoutError(f"no result within {timeout} s")
        if self._is_cancelled:
            raise CancelledError
        return self._error

    def __repr__(self) -> str:
        is_over = "answered" if self._settled.is_set() else "pending"
        return f"<Outcome, {'cancelled' if self._is_cancelled else is_over}>"

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Call `fn` once it is done, in the thread that sets the result; or now."""
        self._calls.append(fn)
        if self._settled.is_set():
            self._call_back()
