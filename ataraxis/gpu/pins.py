"""Pins: mappings that are page-locked, once each, for all handles of a process.

Each `Pin` of a handle, and each copy that is under way, has a `Hold`; the last one that
is given back unlocks the pages. A forked child has a registry of its own: what its
parent locked is not the child's to unlock.
"""

from __future__ import annotations

import atexit
import errno
import logging
import os
import resource
import threading
from typing import Any, Self

from ataraxis.errors import PinError
from ataraxis.gpu.drivers import (
    ALREADY_REGISTERED,
    DEVICE_MAP,
    NO_MEMORY,
    NOT_PERMITTED,
    NOT_SUPPORTED,
    PORTABLE,
    READ_ONLY,
    SYSTEM,
    DriverError,
    PinDriver,
    driver_for,
)
from ataraxis.gpu.watcher import wait_for_copies

EXIT_S = 5.0
_log = logging.getLogger("ataraxis.gpu")


class _Registration:
    """A mapping whose pages a driver has locked."""

    def __init__(self, memory: Any, address: int, driver: PinDriver) -> None:
        self.memory = memory  # mapped as long as it is locked
        self.address = address
        self.driver = driver
        self.holds = 0
        self.is_locked = False

    def lock(self, nbytes: int, what: str) -> None:
        """Have the driver lock the pages; `PinError` explains why it does not."""
        is_writable = not memoryview(self.memory).readonly
        flags = PORTABLE | DEVICE_MAP | (0 if is_writable else READ_ONLY)
        try:
            self.driver.register(self.address, nbytes, flags)
        except DriverError as error:
            raise _explained(error, nbytes, what) from error
        self.is_locked = True


class _Registry:
    """The registrations of one process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        # Reentrant: the garbage collector may drop a pin while one is made.
        self.lock = threading.RLock()
        self.found: dict[int, _Registration] = {}

    def take(self, memory: Any, address: int, nbytes: int, what: str) -> _Registration:
        with self.lock:
            registration = self.found.get(address)
            if registration is None:
                registration = _Registration(memory, address, driver_for(what))
                # Known before it is locked: an interrupt leaves nothing locked unseen.
                self.found[address] = registration
            if not registration.is_locked:
                try:
                    registration.lock(nbytes, what)
                except PinError:
                    self.found.pop(address, None)
                    raise
            registration.holds += 1
            return registration

    def give(self, registration: _Registration) -> None:
        with self.lock:
            registration.holds -= 1
            if registration.holds <= 0:
                self.forget(registration)

    def forget(self, registration: _Registration) -> None:
        """Unlock the pages, once."""
        with self.lock:
            if self.found.get(registration.address) is not registration:
                return
            del self.found[registration.address]
            try:
                registration.driver.unregister(registration.address)
            except DriverError as error:
                # The driver's process-wide end unlocks all pages before us.
                # A record of the log may live on; the error would keep the mapping.
                _log.warning("pages at %#x: %s", registration.address, str(error))


_current: _Registry | None = None


def _registry() -> _Registry:
    """Return the registry of this process; a forked child begins with an empty one."""
    global _current
    registry = _current
    if registry is None or registry.pid != os.getpid():
        registry = _current = _Registry()
        # Before the streams' own: what was registered last is called first.
        atexit.unregister(_undo_all)
        atexit.register(_undo_all)
    return registry


def _undo_all() -> None:
    """At the end of the program: wait for copies, then unlock every page."""
    registry = _current
    if registry is None or registry.pid != os.getpid():
        return
    if not wait_for_copies(EXIT_S):
        _log.warning("copies to a GPU were not over %s s after the end", EXIT_S)
        return
    for registration in list(registry.found.values()):
        registry.forget(registration)


def _explained(error: DriverError, nbytes: int, what: str) -> PinError:
    """Return what to do about an error of the driver."""
    number, todo = errno.EIO, "see the driver's log (dmesg)"
    if error.code in (NO_MEMORY, SYSTEM):
        soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        limit = "none" if soft == resource.RLIM_INFINITY else f"{soft} bytes"
        number = errno.ENOMEM
        todo = (
            f"the limit of locked memory is {limit} (ulimit -l; Docker: --ulimit "
            "memlock=-1), and the memory must be free: raise the limit, or make the "
            "stream with a smaller buffer_count="
        )
    elif error.code == NOT_PERMITTED:
        number, todo = errno.EPERM, "run it as a user who may lock memory for the GPU"
    elif error.code == NOT_SUPPORTED:
        number, todo = errno.EOPNOTSUPP, "this GPU or system cannot lock memory"
    elif error.code == ALREADY_REGISTERED:
        number = errno.EEXIST
        todo = "other code of this program has locked these pages: leave it to pin()"
    return PinError(
        number, f"{what}: {nbytes} bytes cannot be page-locked: {error}. To do: {todo}"
    )


class Hold:
    """Keeps a mapping locked until it is given back, or dropped."""

    def __init__(self, memory: Any, address: int, nbytes: int, what: str) -> None:
        self._registration: _Registration | None = None
        self._registry = _registry()
        self._registration = self._registry.take(memory, address, nbytes, what)

    @property
    def driver(self) -> PinDriver | None:
        """The driver that has locked it; None: given back, or the parent's."""
        if self._registration is None or self._registry.pid != os.getpid():
            return None
        return self._registration.driver

    def give_back(self) -> None:
        """Give it back, once; nothing happens in a forked child."""
        registration, self._registration = self._registration, None
        if registration is not None and self._registry.pid == os.getpid():
            self._registry.give(registration)

    def __del__(self) -> None:
        if getattr(self, "_registration", None) is not None:
            self.give_back()


class Pin:
    """The page-locked mapping of a handle; made by ``pin()`` of a stream or an array.

    A context manager: locked until as many blocks have ended as were begun, or the
    handle is closed. The pages are locked once for all handles of the process.

    Parameters
    ----------
    memory : object
        Exports a buffer: it is mapped as long as its pages are locked.
    address, nbytes : int
        Where it lies in this process, and its bytes.
    what : str
        What it is, for errors.
    """

    def __init__(self, memory: Any, address: int, nbytes: int, what: str) -> None:
        self._place = memory, address, nbytes, what
        self._hold: Hold | None = None
        self._count = 0

    def begin(self) -> Self:
        """Lock the pages, unless they are; `end` undoes it."""
        with _registry().lock:
            if not self.is_pinned:
                self._hold, self._count = Hold(*self._place), 0
            self._count += 1
        return self

    def end(self) -> None:
        """Undo one `begin`; the last one unlocks the pages, after copies under way."""
        with _registry().lock:
            self._count -= 1
            if self._count <= 0:
                self.close()

    def close(self) -> None:
        """Undo every `begin`."""
        hold, self._hold, self._count = self._hold, None, 0
        if hold is not None:
            hold.give_back()

    def hold(self) -> Hold | None:
        """Return one more hold, for a copy; None if it is not pinned."""
        return Hold(*self._place) if self.is_pinned else None

    @property
    def is_pinned(self) -> bool:
        """Whether the pages are locked by this process for this handle."""
        return self._hold is not None and self._hold.driver is not None

    @property
    def driver(self) -> str:
        """Name of the library that has locked them; '' if they are not."""
        driver = None if self._hold is None else self._hold.driver
        return "" if driver is None else driver.name

    @property
    def nbytes(self) -> int:
        """Bytes of the mapping."""
        return int(self._place[2])

    def device_address(self, address: int) -> int:
        """Return where a GPU sees an address of the mapping; `PinError` if unpinned."""
        driver = None if self._hold is None else self._hold.driver
        if driver is None:
            raise PinError(errno.EINVAL, f"{self._place[3]} is not pinned: pin() it")
        return driver.device_address(address)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._count:
            self.end()

    def __repr__(self) -> str:
        state = f"locked by {self.driver}" if self.is_pinned else "not locked"
        return f"<Pin of {self._place[3]}, {self.nbytes} bytes, {state}>"
