"""version, wait_for_change and snapshots."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from deadline import wait_until
from programs import Program

from ataraxis import SharedMemoryArray, attach
from ataraxis.errors import StaleSegment


def locked_write(array: SharedMemoryArray) -> None:
    with array.array() as view:
        view[0] += 1


def several_writes_under_one_lock(array: SharedMemoryArray) -> None:
    with array.lock:
        array[0] = 1
        array[1:3] = 5
        array.add(0, 1)


WRITES: dict[str, Callable[[SharedMemoryArray], Any]] = {
    "element": lambda a: a.__setitem__(0, 5),
    "slice": lambda a: a.__setitem__(slice(0, 2), np.zeros(2, "i8")),
    "all": lambda a: a.__setitem__(..., 0),
    "whole ndarray": lambda a: a.__setitem__(..., np.zeros(4, "i8")),
    "strided": lambda a: a.__setitem__(slice(None, None, 2), 1),
    "mask": lambda a: a.__setitem__(np.array([True, False, True, False]), 1),
    "write_data": lambda a: a.write_data(1, 5),
    "write_data without lock": lambda a: a.write_data(1, 5, with_lock=False),
    "add": lambda a: a.add(0, 1),
    "add to some": lambda a: a.add(slice(0, 2), 1),
    "compare_exchange": lambda a: a.compare_exchange(0, 0, 9),
    "update": lambda a: a.update(lambda old: old + 1),
    "array": locked_write,
    "lock": several_writes_under_one_lock,
}
NO_WRITES: dict[str, Callable[[SharedMemoryArray], Any]] = {
    "element": lambda a: a[0],
    "all": lambda a: a[...],
    "strided": lambda a: a[::2],
    "mask": lambda a: a[np.array([True, False, True, False])],
    "read_data": lambda a: a.read_data((0,)),
    "snapshot": lambda a: a.snapshot(),
    "iteration": lambda a: list(a),
    "compare_exchange": lambda a: a.compare_exchange(0, 99, 1),
    "unlocked view": lambda a: a.array(with_lock=False).__enter__().sum(),
    "empty lock": lambda a: a.lock.__enter__().release(),
    "reading under the lock": lambda a: a.lock.__enter__() and (a[0], a.lock.release()),
    "statistics": lambda a: a.statistics(),
}
REFUSED: dict[str, Callable[[SharedMemoryArray], Any]] = {
    "lossy": lambda a: a.__setitem__(0, 0.5),
    "wrong shape": lambda a: a.__setitem__(..., [1, 2, 3]),
    "wrong index": lambda a: a.__setitem__(9, 1),
    "wrong mask": lambda a: a.__setitem__(np.array([True, False]), 1),
    "wrong sum": lambda a: a.add(0, "x"),
    "wrong update": lambda a: a.update(lambda old: old[:1].repeat(3)),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_every_write_counts_once(write: Callable[[SharedMemoryArray], Any]) -> None:
    with SharedMemoryArray.create_array("x", np.zeros(4, "i8")) as array:
        before = array.version
        write(array)
        assert array.version == before + 1


@pytest.mark.parametrize("read", NO_WRITES.values(), ids=NO_WRITES)
def test_what_writes_nothing_is_no_change(
    read: Callable[[SharedMemoryArray], Any],
) -> None:
    """Else a reader wakes itself, and all others, for ever."""
    with SharedMemoryArray.create_array("x", np.zeros(4, "i8")) as array:
        before = array.version
        read(array)
        assert array.version == before
        with pytest.raises(TimeoutError):
            array.wait_for_change(timeout=0, since=before)


@pytest.mark.parametrize("write", REFUSED.values(), ids=REFUSED)
def test_a_refused_write_is_no_change(
    write: Callable[[SharedMemoryArray], Any],
) -> None:
    with SharedMemoryArray.create_array("x", np.zeros(4, "i8")) as array:
        before = array.version
        with pytest.raises((ValueError, IndexError)):
            write(array)
        assert array.version == before
        assert not array[...].any()
        assert not array.lock.is_held


def test_waiting_does_not_wait_with_timeout_0() -> None:
    with SharedMemoryArray.create_array("x", np.zeros(4)) as array:
        started = time.monotonic()
        with pytest.raises(TimeoutError, match="x"):
            array.wait_for_change(timeout=0)
        assert time.monotonic() - started < 1
        seen = array.version
        array[0] = 1
        assert array.wait_for_change(timeout=0, since=seen) == seen + 1


def test_waiting_ends_at_its_timeout() -> None:
    with SharedMemoryArray.create_array("x", np.zeros(4)) as array:
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            array.wait_for_change(timeout=0.2)
        assert 0.19 < time.monotonic() - started < 5


@pytest.mark.parametrize("timeout", [-1, float("nan"), -0.001])
def test_a_timeout_that_is_none_is_refused(timeout: float) -> None:
    with SharedMemoryArray.create_array("x", np.zeros(4)) as array:
        with pytest.raises(ValueError, match="timeout"):
            array.wait_for_change(timeout=timeout)
        with array.lock, pytest.raises(ValueError, match="timeout"):
            attach_in_thread_acquires(timeout)


def attach_in_thread_acquires(timeout: float) -> None:
    raised: list[BaseException] = []

    def acquire() -> None:
        try:
            attach("x").lock.acquire(timeout)
        except ValueError as error:
            raised.append(error)

    thread = threading.Thread(target=acquire)
    thread.start()
    thread.join()
    raise raised[0]


def test_a_write_in_another_process_wakes_who_waits() -> None:
    """Flaw 13: waiting was impossible."""
    program = """
        from ataraxis import attach
        array = attach("x")
        print("ready", flush=True)
        seen = array.version
        while array[0] != 3:
            seen = array.wait_for_change(timeout=20, since=seen)
            print(array[0], flush=True)
        """
    with (
        SharedMemoryArray.create_array("x", np.zeros(4, "i8")) as array,
        Program(program) as waiter,
    ):
        waiter.expect("ready")
        for value in (1, 2, 3):
            waiter.wait_until_asleep()
            array[0] = value
            waiter.expect(str(value))
        waiter.succeed()


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_every_write_wakes_a_waiting_thread(
    write: Callable[[SharedMemoryArray], Any],
) -> None:
    with SharedMemoryArray.create_array("x", np.zeros(4, "i8")) as array:
        seen, woken = array.version, []
        thread = threading.Thread(
            target=lambda: woken.append(array.wait_for_change(20, since=seen))
        )
        thread.start()
        write(array)
        thread.join(timeout=10)
        assert woken == [seen + 1]


def test_destroying_the_array_ends_a_wait_for_change() -> None:
    array = SharedMemoryArray.create_array("x", np.zeros(4))
    other, raised = attach("x"), []

    def wait() -> None:
        try:
            other.wait_for_change(timeout=20)
        except StaleSegment as error:
            raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    array.destroy()
    thread.join(timeout=10)
    assert len(raised) == 1


def test_ctrl_c_ends_a_wait_for_change() -> None:
    program = """
        import signal
        from ataraxis import attach
        signal.signal(signal.SIGINT, signal.default_int_handler)
        array = attach("x")
        print("ready", flush=True)
        try:
            array.wait_for_change()
        except KeyboardInterrupt:
            print("interrupted")
        """
    with (
        SharedMemoryArray.create_array("x", np.zeros(4)),
        Program(program) as waiter,
    ):
        waiter.expect("ready")
        waiter.wait_until_asleep()
        started = time.monotonic()
        waiter.process.send_signal(signal.SIGINT)
        waiter.expect("interrupted")
        assert time.monotonic() - started < 1
        waiter.succeed()


def test_a_snapshot_is_a_frozen_copy() -> None:
    with SharedMemoryArray.create_array("x", np.arange(4)) as array:
        taken = array.snapshot()
        array[...] = 0
        assert taken.values.tolist() == [0, 1, 2, 3]


def test_a_snapshot_of_many_rows_never_mixes_two_writes() -> None:
    program = """
        import workers
        from ataraxis import attach
        array = attach("x")
        print("ready", flush=True)
        workers.write_rows(array, 400)
        """
    with (
        SharedMemoryArray.create_array("x", np.zeros((64, 512))) as array,
        Program(program) as writer,
    ):
        writer.expect("ready")
        torn = 0
        while writer.process.poll() is None:
            copy = array.__array__(copy=True)
            for values in (array.snapshot().values, array[...], copy, array[1:]):
                torn += int(values.min() != values.max())
        assert torn == 0
        writer.succeed()


def test_a_snapshot_waits_for_a_section_that_is_open() -> None:
    with SharedMemoryArray.create_array("x", np.zeros(4)) as array:
        taken: list[Any] = []
        thread = threading.Thread(target=lambda: taken.append(array.snapshot().values))
        with array.array() as view:
            view[:2] = 1
            thread.start()
            assert not taken
            view[2:] = 1
        thread.join(timeout=10)
        assert taken[0].tolist() == [1, 1, 1, 1]
        wait_until(lambda: not thread.is_alive())
