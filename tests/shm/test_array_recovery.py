"""A process dies holding the lock: none hangs, and half-written data are reported."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from programs import Program
from threads import in_thread

from ataraxis import SharedMemoryArray
from ataraxis.errors import LockRecovered, OwnerDied

HOLDER = """
    from ataraxis import attach
    array = attach("x")
    with array.lock:
        print("held", flush=True)
        input()
    """
DIES_IN_A_WRITE = """
    import os, signal
    from ataraxis import attach
    array = attach("x")
    with array.array() as view:
        view[:2] = 9
        print("held", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
DIES_WITH_WHOLE_DATA = """
    import os, signal
    from ataraxis import attach
    array = attach("x")
    with array.lock:
        print("held", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """


@pytest.fixture
def array() -> Any:
    with SharedMemoryArray.create_array("x", np.zeros(4, "i8")) as array:
        yield array


def test_the_lock_of_a_killed_process_is_recovered_with_one_warning(
    array: SharedMemoryArray,
) -> None:
    """Flaw 2: every later call blocked for ever."""
    with Program(DIES_WITH_WHOLE_DATA) as holder:
        holder.expect("held")
        holder.finish()
        started = time.monotonic()
        with pytest.warns(LockRecovered, match="'x'") as caught:
            assert array.lock.acquire(timeout=10)
        assert time.monotonic() - started < 1
        array.lock.release()
    assert len(caught) == 1
    assert array.lock.recoveries == 1
    with array.lock:
        array[0] = 1
    assert array.lock.recoveries == 1
    assert array[0] == 1


@pytest.mark.parametrize("program", [DIES_IN_A_WRITE, DIES_WITH_WHOLE_DATA])
def test_a_recovery_counts_as_a_write(array: SharedMemoryArray, program: str) -> None:
    """A reader that copied meanwhile must see that the version changed."""
    array[0] = 1
    before = array.version
    with Program(program) as holder:
        holder.expect("held")
        holder.finish()
        with pytest.warns(LockRecovered):
            assert array.lock.acquire(timeout=10)
    array.lock.release()
    assert array.version == before + 1


def test_a_recovery_that_is_raised_leaves_the_lock_free(
    array: SharedMemoryArray,
) -> None:
    """Under -W error the warning is an exception; no process may hang for it."""
    with Program(DIES_WITH_WHOLE_DATA) as holder:
        holder.expect("held")
        holder.finish()
        with pytest.raises(LockRecovered):
            array.lock.acquire(timeout=10)
    assert not array.lock.is_held
    array[0] = 3
    assert in_thread(lambda: array[0]) == 3


@pytest.mark.parametrize(
    "write",
    [
        lambda a: a.__setitem__(0, 1),
        lambda a: a.__setitem__(slice(0, 2), np.ones(2, "i8")),
        lambda a: a.add(0, 1),
        lambda a: a.array().__enter__(),
        lambda a: a.update(lambda old: old + 1),
    ],
    ids=["element", "slice", "add", "array", "update"],
)
def test_a_recovery_raised_in_a_write_leaves_the_lock_free(
    array: SharedMemoryArray, write: Callable[[SharedMemoryArray], Any]
) -> None:
    with Program(DIES_WITH_WHOLE_DATA) as holder:
        holder.expect("held")
        holder.finish()
        with pytest.raises(LockRecovered):
            write(array)
    assert not array.lock.is_held
    assert in_thread(
        lambda: array.lock.acquire(timeout=0) and array.lock.release()
    ) is (None)


def test_half_written_data_are_reported_until_they_are_healed(
    array: SharedMemoryArray,
) -> None:
    with Program(DIES_IN_A_WRITE) as writer:
        writer.expect("held")
        writer.finish()
        pid = writer.pid
        with pytest.warns(LockRecovered, match="half written"), array.lock:
            pass
    for read in (
        lambda: array[0],
        lambda: array[...],
        lambda: array[::2],
        lambda: array.read_data(0),
        array.snapshot,
        lambda: array.add(0, 1),
        lambda: array.update(lambda old: old),
        lambda: array.compare_exchange(0, 9, 1),
    ):
        with pytest.raises(OwnerDied, match=str(pid)):
            read()
    assert array.statistics().is_torn
    assert array.statistics().torn_pid == pid
    assert array.read_data((0,), with_lock=False).tolist() == [9, 9, 0, 0]
    with array.array() as view:
        view[2:] = 9
    with pytest.raises(OwnerDied):
        array[0]
    array.heal()
    assert array[...].tolist() == [9, 9, 9, 9]
    assert not array.statistics().is_torn


@pytest.mark.parametrize(
    "index",
    [..., slice(None), (), (slice(None),), slice(0, 4), slice(None, None, -1)],
    ids=str,
)
@pytest.mark.parametrize("value", [[1, 2, 3, 4], np.arange(4)], ids=["list", "ndarray"])
def test_writing_everything_heals(
    array: SharedMemoryArray, index: Any, value: Any
) -> None:
    with Program(DIES_IN_A_WRITE) as writer:
        writer.expect("held")
        writer.finish()
        with pytest.warns(LockRecovered):
            array[index] = value
    plain = np.zeros(4, "i8")
    plain[index] = value
    assert array[...].tolist() == plain.tolist()


def test_a_partial_write_does_not_heal(array: SharedMemoryArray) -> None:
    with Program(DIES_IN_A_WRITE) as writer:
        writer.expect("held")
        writer.finish()
        with pytest.warns(LockRecovered):
            array[0] = 1
    array[1:] = [1, 2, 3]
    array[np.array([True, True, False, True])] = 0
    with pytest.raises(OwnerDied):
        array[0]
    array.heal()


def test_a_waiter_that_sleeps_is_freed_by_the_owners_death(
    array: SharedMemoryArray,
) -> None:
    with Program(HOLDER) as holder:
        holder.expect("held")
        waited: list[float] = []

        def take() -> None:
            with pytest.warns(LockRecovered), array.lock:
                waited.append(time.monotonic())

        thread = threading.Thread(target=take)
        thread.start()
        killed = time.monotonic()
        holder.process.kill()
        thread.join(timeout=30)
        assert waited[0] - killed < 1
