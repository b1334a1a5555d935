"""Drivers and libraries of GPUs: fakes of both, and contracts as tests over yours."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.gpu.drivers import (
    ALREADY_REGISTERED,
    NOT_REGISTERED,
    PORTABLE,
    DriverError,
)
from ataraxis.gpu.libraries import writable_alias
from ataraxis.gpu.watcher import CopyEvent

WAIT_S = 30.0
PAGE = mmap.PAGESIZE
DONT_FORK, DO_FORK = 10, 11  # of madvise


class FakePinDriver:
    """A driver without a GPU: records calls, and fails where it is told to.

    Parameters
    ----------
    keeps_from_children : bool
        Whether registered pages are kept out of forked children, as some drivers do.

    Examples
    --------
    >>> from ataraxis import SharedMemoryArray
    >>> from ataraxis.gpu.drivers import use_driver
    >>> with use_driver(FakePinDriver()) as driver:
    ...     with SharedMemoryArray.create_array("doc_pin", np.zeros(3)) as array:
    ...         with array.pin() as pin:
    ...             pin.driver, len(driver.registered)
    ...     driver.registered
    ('fake', 1)
    {}
    """

    name = "fake"

    def __init__(self, *, keeps_from_children: bool = False) -> None:
        self.registered: dict[int, int] = {}
        """Address to bytes of what is registered."""
        self.calls: list[tuple[int, str, int]] = []
        """Every call that worked: process, name, address."""
        self.flags: list[int] = []
        self.fails: dict[str, int] = {}
        """Name of a call to the CUDA error that it fails with."""
        self._keeps = keeps_from_children

    def register(self, address: int, nbytes: int, flags: int) -> None:
        """Register pages, as cuMemHostRegister does."""
        self._check("register")
        if nbytes <= 0 or address % PAGE:
            raise DriverError("register", 1, "invalid argument")
        if any(a < address + nbytes and address < a + n for a, n in self._ranges()):
            raise DriverError("register", ALREADY_REGISTERED, "already registered")
        ctypes.string_at(address, 1)  # an address that is not mapped ends the process
        self._advise(address, nbytes, DONT_FORK)
        self.registered[address] = nbytes
        self.flags.append(flags)
        self.calls.append((os.getpid(), "register", address))

    def unregister(self, address: int) -> None:
        """Unregister pages; fails for an address that is not the start of some."""
        self._check("unregister")
        nbytes = self.registered.pop(address, 0)
        if not nbytes:
            raise DriverError("unregister", NOT_REGISTERED, "not registered")
        ctypes.string_at(address, 1)  # unlocked before it is unmapped
        self._advise(address, nbytes, DO_FORK)
        self.calls.append((os.getpid(), "unregister", address))

    def device_address(self, address: int) -> int:
        """Return the same address, if it is registered."""
        if not any(a <= address < a + n for a, n in self._ranges()):
            raise DriverError("device_address", NOT_REGISTERED, "not registered")
        return address

    def _ranges(self) -> list[tuple[int, int]]:
        return list(self.registered.items())

    def _check(self, call: str) -> None:
        if call in self.fails:
            raise DriverError(call, self.fails[call], "as it was told to")

    def _advise(self, address: int, nbytes: int, advice: int) -> None:
        if self._keeps:
            libc = ctypes.CDLL(None, use_errno=True)
            done = libc.madvise(
                ctypes.c_void_p(address), ctypes.c_size_t(nbytes), advice
            )
            assert done == 0, os.strerror(ctypes.get_errno())


class FakeDeviceArray:
    """An array of a GPU that there is not: other memory, reached by copies only."""

    def __init__(self, memory: NDArray[Any], device: str) -> None:
        self.memory, self.device = memory, device

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents."""
        return self.memory.shape

    def __getitem__(self, index: Any) -> FakeDeviceArray:
        return FakeDeviceArray(self.memory[index, ...], self.device)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return kDLCUDA."""
        return (2, 0)


class FakeLibrary:
    """A library without a GPU: one thread copies, later, and in the order of calls.

    As a GPU does, it reads addresses and keeps no array alive: what was overwritten
    before its copy shows in the result.
    """

    name = "fake"

    def __init__(self) -> None:
        self.calls: list[str] = []
        """Names of calls, in order."""
        self._work: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._gate = threading.Event()
        self._gate.set()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            self._gate.wait()
            work()

    def stop(self) -> None:
        """Copy nothing until `go`: a slow GPU."""
        self._gate.clear()

    def go(self) -> None:
        """Copy again."""
        self._gate.set()

    def close(self) -> None:
        """End the thread."""
        self.go()
        self._work.put(None)
        self._thread.join(WAIT_S)

    def __enter__(self) -> FakeLibrary:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # ---- as `ataraxis.gpu.libraries.BatchLibrary`

    def empty(
        self, shape: tuple[int, ...], dtype: np.dtype[Any], device: Any, stream: Any
    ) -> FakeDeviceArray:
        """Return a new array."""
        if dtype.kind not in "biufc":
            raise TypeError(f"fake has no {dtype}")
        return FakeDeviceArray(np.zeros(shape, dtype), str(device))

    def put(
        self, source: NDArray[Any], device: Any, stream: Any
    ) -> tuple[FakeDeviceArray, CopyEvent]:
        """Begin to copy into a new array."""
        made = self.empty(source.shape, source.dtype, device, stream)
        self.copy(source, made, stream)
        return made, self.mark(made, stream)

    def copy(self, source: NDArray[Any], target: FakeDeviceArray, stream: Any) -> None:
        """Begin to copy into an array."""
        self.calls.append("copy")
        memory = writable_alias(source)
        self._work.put(lambda: np.copyto(target.memory, memory))

    def mark(self, target: FakeDeviceArray, stream: Any) -> CopyEvent:
        """Return the end of what was begun."""
        self.calls.append("mark")
        over = threading.Event()
        self._work.put(over.set)
        return CopyEvent(over.wait, over.is_set)

    def copy_back(self, source: FakeDeviceArray, target: NDArray[Any]) -> CopyEvent:
        """Begin to copy to host memory."""
        self.calls.append("copy_back")
        memory = writable_alias(target)
        self._work.put(lambda: np.copyto(memory, source.memory))
        return self.mark(source, None)

    def side_stream(self, device: Any) -> str:
        """Return the name of a stream."""
        return "side"

    def lead(self, target: FakeDeviceArray, stream: Any) -> None:
        """Record the call."""
        self.calls.append("lead")

    def follow(self, target: FakeDeviceArray, stream: Any) -> None:
        """Record the call."""
        self.calls.append("follow")

    def synchronize(self, device: Any) -> None:
        """Wait for all that was begun."""
        self.calls.append("synchronize")
        if self._thread.is_alive():
            assert self.mark(None, None).wait() is not False  # type: ignore[arg-type]

    def layout(self, array: FakeDeviceArray) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Return shape and dtype."""
        return array.shape, array.memory.dtype


# ---- contracts


@contextmanager
def _raises(code: int | None) -> Any:
    try:
        yield
    except DriverError as error:
        if code is not None:
            assert error.code == code, f"expected {code}, got {error}"
        assert str(error.code) in str(error)
    else:
        raise AssertionError("it did not raise DriverError")


class PinDriverContract:
    """Laws of a `PinDriver`, as tests: subclass it in a test module and give `make`.

    Examples
    --------
    >>> class TestFake(PinDriverContract):
    ...     def make(self):
    ...         return FakePinDriver()
    >>> TestFake().test_pages_are_registered_once()
    """

    def make(self) -> Any:
        """Return a driver with nothing registered."""
        raise NotImplementedError

    def memory(self, pages: int = 4) -> tuple[mmap.mmap, int]:
        """Return new shared pages and their address."""
        made = mmap.mmap(-1, pages * PAGE)
        return made, np.frombuffer(made, np.uint8).ctypes.data

    def test_pages_are_registered_once(self) -> None:
        """A second registration fails, and changes nothing."""
        driver = self.make()
        memory, address = self.memory()
        driver.register(address, len(memory), PORTABLE)
        with _raises(ALREADY_REGISTERED):
            driver.register(address, len(memory), PORTABLE)
        driver.unregister(address)

    def test_unregistered_pages_can_be_registered_again(self) -> None:
        """Nothing is left of a registration."""
        driver = self.make()
        memory, address = self.memory()
        for _ in range(3):
            driver.register(address, len(memory), PORTABLE)
            driver.unregister(address)

    def test_what_is_not_registered_is_not_unregistered(self) -> None:
        """Before, and after it was."""
        driver = self.make()
        memory, address = self.memory()
        with _raises(NOT_REGISTERED):
            driver.unregister(address)
        driver.register(address, len(memory), PORTABLE)
        driver.unregister(address)
        with _raises(NOT_REGISTERED):
            driver.unregister(address)

    def test_no_bytes_are_refused(self) -> None:
        """An error, and nothing is registered."""
        driver = self.make()
        _memory, address = self.memory()
        with _raises(None):
            driver.register(address, 0, PORTABLE)
        with _raises(None):
            driver.unregister(address)

    def test_another_thread_unregisters(self) -> None:
        """The watcher does, whose thread has no context of its own."""
        driver = self.make()
        memory, address = self.memory()
        failures: list[BaseException] = []

        def unregister() -> None:
            try:
                driver.unregister(address)
            except BaseException as error:
                failures.append(error)

        driver.register(address, len(memory), PORTABLE)
        thread = threading.Thread(target=unregister)
        thread.start()
        thread.join(WAIT_S)
        assert not failures
        driver.register(address, len(memory), PORTABLE)
        driver.unregister(address)

    def test_bytes_stay_as_they_are(self) -> None:
        """Registered, written, unregistered: the memory is the program's."""
        driver = self.make()
        memory, address = self.memory()
        memory[:] = bytes(range(256)) * (len(memory) // 256)
        driver.register(address, len(memory), PORTABLE)
        memory[7] = 99
        driver.unregister(address)
        assert memory[7] == 99
        assert memory[PAGE + 5] == 5


DTYPES = ("u1", "i2", "u4", "i8", "f2", "f4", "f8", "c8", "?")


class LibraryContract:
    """Laws of a library that copies, as tests: give `make`, `device` and `to_numpy`.

    Examples
    --------
    >>> class TestFakeLibrary(LibraryContract):
    ...     def make(self):
    ...         return FakeLibrary()
    ...     def to_numpy(self, array):
    ...         return array.memory
    >>> TestFakeLibrary().test_a_copy_has_the_bits()
    """

    device: Any = "cpu"
    dtypes: tuple[str, ...] = DTYPES

    def make(self) -> Any:
        """Return the library."""
        raise NotImplementedError

    def to_numpy(self, array: Any) -> NDArray[Any]:
        """Return the values of one of its arrays."""
        raise NotImplementedError

    def example(self, dtype: str, shape: tuple[int, ...] = (3, 5)) -> NDArray[Any]:
        """Return read-only values of all kinds of bits."""
        raw = np.random.default_rng(7).bytes(int(np.prod(shape)) * 16)
        count = int(np.prod(shape))
        kind = np.dtype(dtype)
        if kind.kind == "b":
            made = np.frombuffer(raw, "u1", count) % 2 == 1
        elif kind.kind in "fc":
            made = np.frombuffer(raw, "i1", count).astype(kind) / 8
        else:
            made = np.frombuffer(raw, kind, count)
        made = made.astype(kind, copy=False).reshape(shape)
        made.flags.writeable = False
        return np.asarray(made)

    def test_a_copy_has_the_bits(self) -> None:
        """Of every dtype; also of no elements, and of none but one."""
        library = self.make()
        for dtype in self.dtypes:
            for shape in ((3, 5), (), (0, 4)):
                source = self.example(dtype, shape)
                made, event = library.put(source, self.device, None)
                if event is not None:
                    event.wait()
                    assert event.is_over()
                found = self.to_numpy(made)
                assert (found.dtype, found.shape) == (source.dtype, shape)
                assert np.array_equal(found, source)
                assert library.layout(made) == (shape, source.dtype)

    def test_a_copy_is_not_the_source(self) -> None:
        """When its event is over, the source may be overwritten: a slot is."""
        library = self.make()
        memory = np.zeros(1 << 16, np.uint8)
        start = -memory.ctypes.data % 64  # where libraries take memory over
        source = memory[start : start + 4096].view("f4")
        source.flags.writeable = False
        made, event = library.put(source, self.device, None)
        if event is not None:
            event.wait()
        memory[:] = 255
        assert np.array_equal(self.to_numpy(made), np.zeros(1024, "f4"))

    def test_it_copies_back(self) -> None:
        """Into memory of the program."""
        library = self.make()
        source = self.example("f4")
        made, event = library.put(source, self.device, None)
        if event is not None:
            event.wait()
        target = np.zeros_like(source)
        event = library.copy_back(made, target)
        if event is not None:
            event.wait()
        assert np.array_equal(target, source)

    def test_records_are_refused(self) -> None:
        """By TypeError, which names the dtype."""
        library = self.make()
        records = np.zeros(3, [("a", "i4"), ("b", "f8")])
        try:
            library.put(records, self.device, None)
        except TypeError as error:
            assert "('a', '<i4')" in str(error)
        else:
            raise AssertionError("records were accepted")

    def test_synchronize_waits_for_copies(self) -> None:
        """Nothing that was begun is under way after it."""
        library = self.make()
        _, event = library.put(self.example("u1"), self.device, None)
        library.synchronize(self.device)
        deadline = time.monotonic() + WAIT_S
        while event is not None and not event.is_over():
            assert time.monotonic() < deadline
