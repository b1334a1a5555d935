"""Waiting from event loops, `select` and Qt: one thread of a process sleeps for all.

A futex has no descriptor that a loop could watch. So one thread of the process sleeps
on all futexes that are waited for (`futex_waitv`, Linux 5.16), and notifies the loops.
It runs only while something is waited for, and does not poll: without events, it checks
every two seconds whether the other processes live.

A participant that sleeps sets a bit in shared memory, or it is not woken. It is set by
`FUTEX_WAKE_OP`, an atomic read-modify-write of a word of memory.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import numpy as np

from ataraxis.shm.segment import Segment

# Offsets in a segment's control block (layout.h): the futexes that count wake-ups; and,
# after each, the words with a bit for each participant that sleeps.
STREAM_DATA, QUEUE_DATA, QUEUE_SPACE, SLEEPERS = 768, 384, 640, 128
# Of an array: the futex, and the bit of the lock's word for sleepers.
ARRAY_EVENT, ARRAY_LOCK, ARRAY_BIT = 48, 0, 30

_FUTEX = {"x86_64": 202, "aarch64": 98}.get(platform.machine(), 0)
_FUTEX_WAITV = 449
_WAKE, _WAKE_OP = 1, 5
_OR, _SHIFT = 2, 8  # of FUTEX_WAKE_OP: the operation, on 1 << argument
_MOST = 127  # words that one system call waits for, beside the bell
_SHORT_S, _LONG_S, _LINGER_S, _LOOK_S = 0.02, 2.0, 0.25, 0.002


class Waitable(Protocol):
    """An eventcount in shared memory that may be waited for.

    A waiter arms it, tries, and sleeps if the attempt failed: events after the attempt
    change the count.
    """

    def arm(self) -> tuple[int, int]:
        """Set the sleeper's bit; return the futex's address and its count."""

    def has_changed(self, seen: int) -> bool:
        """Return whether the count is not `seen` any more."""

    def is_ready(self) -> bool:
        """Return whether a try may succeed without an event: the other side has died.

        Called rarely, by the thread.
        """


class EventWord:
    """A futex of a segment, and the bit of its participant for sleeping.

    `event` is its offset in the control block; `word` and `bit` are the offset of the
    word with the bit, and which bit, by default that of the segment's participant,
    behind the futex. The mapping is kept.
    """

    def __init__(
        self, segment: Segment, event: int, word: int | None = None, bit: int = 0
    ) -> None:
        if word is None:
            slot = segment.participant.slot
            word, bit = event + SLEEPERS + slot // 32 * 4, slot % 32
        memory = np.frombuffer(memoryview(segment.mapping), np.uint8)
        base = memory.__array_interface__["data"][0] + segment.header.geometry.control
        self._memory = memory
        at = segment.header.geometry.control + event
        self._count = memory[at : at + 4].view(np.uint32)
        self._event, self._word, self._bit = base + event, base + word, bit

    def arm(self) -> tuple[int, int]:
        """Read the count, then set the bit: the waker clears the bit, then counts.

        The bit stays even without a sleep: that costs the waker one system call.
        """
        seen = int(self._count[0])
        _system().set_bit(self._word, self._bit)
        return self._event, seen

    def has_changed(self, seen: int) -> bool:
        """Return whether the count has changed."""
        return int(self._count[0]) != seen


# ---- the system calls


class _Wait(ctypes.Structure):
    _fields_ = (
        ("expected", ctypes.c_uint64),
        ("word", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
    )


class _Time(ctypes.Structure):
    _fields_ = (("s", ctypes.c_int64), ("ns", ctypes.c_int64))


class _System:
    """System calls of futexes, as far as available."""

    def __init__(self) -> None:
        self._call = ctypes.CDLL(None, use_errno=True).syscall
        self._call.restype = ctypes.c_long
        self._unused = ctypes.c_uint32()
        self.can_sleep = _FUTEX > 0

    def set_bit(self, word: int, bit: int) -> None:
        """Set a bit of a shared word, atomically and as a full barrier."""
        if not self.can_sleep:
            return
        # It also wakes a sleeper of a private word, which has none.
        unused = ctypes.addressof(self._unused)
        how = ctypes.c_uint32((_OR | _SHIFT) << 28 | bit << 12)
        if self._futex(unused, _WAKE_OP, 0, ctypes.c_void_p(word), how) < 0:
            self.can_sleep = False

    def wake(self, word: int) -> None:
        """Wake a sleeper of a word."""
        if self.can_sleep:
            self._futex(word, _WAKE, 1, None, ctypes.c_uint32(0))

    def _futex(self, word: int, what: int, count: int, other: Any, how: Any) -> int:
        return int(
            self._call(
                ctypes.c_long(_FUTEX),
                ctypes.c_void_p(word),
                ctypes.c_int(what),
                ctypes.c_int(count),
                ctypes.c_void_p(None),
                other,
                how,
            )
        )

    def sleep(self, waits: ctypes.Array[_Wait], seconds: float) -> None:
        """Sleep until one of the words is woken or has changed, or for `seconds`."""
        if self.can_sleep:
            end = time.clock_gettime_ns(time.CLOCK_MONOTONIC) + int(seconds * 1e9)
            until = _Time(end // 10**9, end % 10**9)
            done = self._call(
                ctypes.c_long(_FUTEX_WAITV),
                ctypes.byref(waits),
                ctypes.c_uint(len(waits)),
                ctypes.c_uint(0),
                ctypes.byref(until),
                ctypes.c_int(1),  # CLOCK_MONOTONIC
            )
            if done >= 0 or ctypes.get_errno() not in (errno.ENOSYS, errno.EPERM):
                return
            self.can_sleep = False
        # An older kernel, or a sandbox: poll.
        time.sleep(min(seconds, _LOOK_S))


def _waits_of(words: Sequence[tuple[int, int]]) -> ctypes.Array[_Wait]:
    """Pack addresses and expected values for the system call."""
    waits = (_Wait * len(words))()
    for wait, (word, seen) in zip(waits, words, strict=True):
        wait.expected, wait.word, wait.flags = seen, word, 2  # 32 bits, shared
    return waits


_made: _System | None = None


def _system() -> _System:
    global _made
    if _made is None:
        _made = _System()
    return _made


# ---- the thread


class WaitEntry:
    """A wait, armed by `Waitable.arm`, and what the thread calls once at its end.

    `notify` must not wait.
    """

    def __init__(
        self, what: Waitable, armed: tuple[int, int], notify: Callable[[], object]
    ) -> None:
        self.what, self.armed, self.notify = what, armed, notify
        self.sleeper: _Sleeper | None = None
        self.is_over = False

    @property
    def has_happened(self) -> bool:
        """Whether the count has changed."""
        return self.what.has_changed(self.armed[1])

    @property
    def is_ready(self) -> bool:
        """Whether a try may succeed, or raises."""
        try:
            return self.what.is_ready()
        except (RuntimeError, OSError, ValueError):
            return True  # closed or removed: the try raises


class _Sleeper:
    """A thread that sleeps for up to 127 entries; it ends some time after the last."""

    def __init__(self) -> None:
        self.entries: dict[int, WaitEntry] = {}
        self._bell = ctypes.c_uint32()
        self.thread = threading.Thread(
            target=self._run, name="ataraxis-waiting", daemon=True
        )

    def ring(self) -> None:
        """Make the thread read its entries again. The caller holds the lock."""
        self._bell.value += 1
        _system().wake(ctypes.addressof(self._bell))

    def _run(self) -> None:
        bell, entries = ctypes.addressof(self._bell), list[WaitEntry]()
        nap, looked, is_last = _SHORT_S, time.monotonic(), False
        rung = -1
        while True:
            # The bell before the entries: an entry added after this rings it.
            if rung != self._bell.value:
                with _lock:
                    rung = self._bell.value
                    entries = list(self.entries.values())
                waits = _waits_of([(bell, rung), *(entry.armed for entry in entries)])
                is_last = False
            elif is_last:
                with _lock:
                    if not self.entries:
                        _sleepers.remove(self)
                        return
            is_last = not entries
            _system().sleep(waits, _LINGER_S if is_last else nap)
            ready = [entry for entry in entries if entry.has_happened]
            if ready:
                nap = _SHORT_S
            elif (now := time.monotonic()) - looked >= nap:
                looked, nap = now, min(2 * nap, _LONG_S)
                ready = [entry for entry in entries if entry.is_ready]
            for entry in ready:
                with _lock:
                    # Under the lock: a forgotten entry is not notified.
                    if self.entries.pop(id(entry), None) is not None:
                        entry.is_over = True
                        with suppress(RuntimeError, OSError):  # its loop was closed
                            entry.notify()
            if ready or rung != self._bell.value:
                # Entries that are not waited for any more are not kept.
                entries, entry = [], None  # type: ignore[assignment]
                rung = -1
            ready.clear()


_lock = threading.Lock()
_sleepers: list[_Sleeper] = []
_forks_are_seen = False


def _after_fork() -> None:
    """Reset the state in a forked child, which has no thread and no entries."""
    global _lock, _made
    _lock, _made = threading.Lock(), None
    _sleepers.clear()


def watch(entry: WaitEntry) -> None:
    """Make the thread notify an entry at its next event."""
    global _forks_are_seen
    with _lock:
        if not _forks_are_seen:
            os.register_at_fork(after_in_child=_after_fork)
            _forks_are_seen = True
        for sleeper in _sleepers:
            if len(sleeper.entries) < _MOST:
                break
        else:
            sleeper = _Sleeper()
            _sleepers.append(sleeper)
        entry.sleeper = sleeper
        sleeper.entries[id(entry)] = entry
        if sleeper.thread.ident is None:
            sleeper.thread.start()
        else:
            sleeper.ring()


def forget(entry: WaitEntry) -> None:
    """Remove an entry: it is not notified after this has returned."""
    with _lock:
        sleeper = entry.sleeper
        if sleeper is not None and sleeper.entries.pop(id(entry), None) is not None:
            sleeper.ring()


class Alarm:
    """The sleep of one thread: until an event of segments, or until another one rings.

    The thread reads `count`, looks for work, arms what it waits for, looks again, and
    sleeps: what happens after the reading ends the sleep.

    Examples
    --------
    >>> alarm = Alarm()
    >>> seen = alarm.count
    >>> alarm.ring()
    >>> alarm.sleep(seen, 60)  # rung already
    """

    def __init__(self) -> None:
        self._bell = ctypes.c_uint32()
        self._gate = threading.Lock()

    @property
    def count(self) -> int:
        """How many times it was rung, modulo 2**32."""
        return self._bell.value

    def ring(self) -> None:
        """End the thread's sleep, or its next one if it read `count` before."""
        with self._gate:  # each ring changes the count
            self._bell.value += 1
        _system().wake(ctypes.addressof(self._bell))

    def sleep(self, seen: int, seconds: float, *armed: tuple[int, int]) -> None:
        """Sleep until `ring` or an event that was armed, at most for `seconds`.

        `seen` is the `count` before the look for work; `armed` is of `Waitable.arm`.
        May return earlier.
        """
        if seconds > 0:
            bell = ctypes.addressof(self._bell)
            _system().sleep(_waits_of([(bell, seen), *armed]), seconds)


# ---- from an event loop


Armed = tuple[Waitable, tuple[int, int]]


async def until(
    attempt: Callable[[], Any], *what: Waitable, timeout: float | None = None
) -> Any:
    """Try until `attempt` returns something else than `NOTHING`, and return it.

    In asyncio, uvloop and, through anyio, trio. Nothing is awaited between a success
    and the return: a cancelled wait loses nothing. `attempt` does not wait; after one
    of the events `what`, another one may succeed. Returns `NOTHING` after `timeout`, s.
    """
    in_trio = _in_trio()
    if in_trio:
        # In trio each call lets other tasks run, and can be cancelled.
        await _anyio().lowlevel.checkpoint()
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        found = attempt()
        if found is not NOTHING:
            return found
        armed = [(one, one.arm()) for one in what]
        found = attempt()
        if found is not NOTHING:
            return found
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return NOTHING
        await (_changed_in_anyio if in_trio else _changed)(armed, left)


async def _changed(armed: Sequence[Armed], timeout: float | None) -> None:
    """Wait in asyncio until one of them has changed, or for `timeout`, s."""
    import asyncio

    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not future.done():
            future.set_result(None)

    def notify() -> None:
        loop.call_soon_threadsafe(wake)

    handle = None if timeout is None else loop.call_later(timeout, wake)
    entries = [WaitEntry(one, seen, notify) for one, seen in armed]
    try:
        for entry in entries:
            watch(entry)
        await future
    finally:
        for entry in entries:
            forget(entry)
        if handle is not None:
            handle.cancel()


async def _changed_in_anyio(armed: Sequence[Armed], timeout: float | None) -> None:
    """Wait as `_changed` does, in any loop that anyio supports."""
    anyio = _anyio()
    descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    entries = [
        WaitEntry(one, seen, functools.partial(os.eventfd_write, descriptor, 1))
        for one, seen in armed
    ]
    try:
        for entry in entries:
            watch(entry)
        with anyio.move_on_after(timeout):
            await anyio.wait_readable(descriptor)
    finally:
        for entry in entries:
            forget(entry)
        os.close(descriptor)


def _in_trio() -> bool:
    trio = sys.modules.get("trio")
    return trio is not None and bool(trio.lowlevel.in_trio_task())


def _anyio() -> Any:
    try:
        import anyio
    except ImportError:
        raise ImportError(
            "waiting in trio needs anyio: pip install 'ataraxis[trio]'"
        ) from None
    return anyio


NOTHING = object()


# ---- a descriptor


class Descriptor:
    """An eventfd that is readable while a try may succeed: for `select` and Qt.

    It is readable at first; `rearm`, after a try that failed, clears it.
    """

    def __init__(self, what: Waitable) -> None:
        self._what = what
        self._entry: WaitEntry | None = None
        self._gate = threading.Lock()
        self._pid = os.getpid()
        self.number = os.eventfd(1, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def rearm(self, attempt: Callable[[], Any]) -> Any:
        """Try once more after a try that failed; return its result.

        If it is `NOTHING`, the descriptor is not readable until the next event.
        """
        with self._gate:
            is_armed = self._entry is not None and not self._entry.is_over
            if is_armed or self.number < 0:
                return NOTHING
            armed = self._what.arm()
            found = attempt()
            if found is NOTHING:
                with suppress(BlockingIOError):
                    os.eventfd_read(self.number)
                self._entry = WaitEntry(self._what, armed, self._notify)
                watch(self._entry)
            return found

    def _notify(self) -> None:
        os.eventfd_write(self.number, 1)

    def close(self) -> None:
        """Close the descriptor."""
        with self._gate:
            number, self.number = self.number, -1
            entry, self._entry = self._entry, None
            if entry is not None and self._pid == os.getpid():
                forget(entry)
            if number >= 0:
                os.close(number)
