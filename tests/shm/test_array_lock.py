"""The lock of an array: nested, foreign, timed, interrupted, recovered."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import numpy as np
import pytest
from deadline import wait_until
from programs import Program
from threads import in_thread

from ataraxis import SharedMemoryArray, attach

HOLDER = """
    from ataraxis import attach
    array = attach("x")
    with array.lock:
        print("held", flush=True)
        input()
    """


@pytest.fixture
def array() -> Any:
    with SharedMemoryArray.create_array("x", np.zeros(4, "i8")) as array:
        yield array


def test_the_lock_is_taken_and_given_back(array: SharedMemoryArray) -> None:
    lock = array.lock
    assert not lock.is_held
    assert lock.acquire() is True
    assert lock.is_held
    assert array.statistics().owner >= 0
    lock.release()
    assert not lock.is_held
    assert array.statistics().owner == -1


def test_a_thread_may_take_the_lock_again(array: SharedMemoryArray) -> None:
    """Flaw 3: array[0] inside "with array()" deadlocked."""
    with array.lock, array.lock:
        with array.array() as view:
            view[0] = 1
            array[1] = array[0] + 1
            array[2:] = [3, 4]
            array.write_data(0, 10)
            array.add(0, 1)
            array.update(lambda old: old + 1)
            assert array.snapshot().values.tolist() == [12, 3, 4, 5]
            assert array.compare_exchange(0, 12, 0)
        assert array.lock.is_held
    assert not array.lock.is_held
    assert array[...].tolist() == [0, 3, 4, 5]


def test_nested_sections_commit_only_at_the_end(array: SharedMemoryArray) -> None:
    before = array.version
    with array.array() as outer:
        outer[0] = 1
        with array.array() as inner:
            inner[1] = 1
        array[2] = 1
        assert in_thread(lambda: array.lock.acquire(timeout=0)) is False
        assert not in_thread(lambda: attach("x").lock.is_held)
        array[3] = 1
    assert array.version == before + 1
    assert array[...].tolist() == [1, 1, 1, 1]


def test_two_handles_of_a_process_do_not_deadlock(array: SharedMemoryArray) -> None:
    other = attach("x")
    with array.array() as view:
        view[0] = 1
        other[1] = 2
        with other.array() as again:
            again[2] = 3
        assert other.lock.is_held
    assert other[...].tolist() == [1, 2, 3, 0]
    assert not other.lock.is_held


def test_releasing_a_lock_that_is_not_held_is_an_error(
    array: SharedMemoryArray,
) -> None:
    with pytest.raises(RuntimeError, match="not hold"):
        array.lock.release()
    with array.lock:
        with pytest.raises(RuntimeError, match="not hold"):
            in_thread(array.lock.release)
        assert array.lock.is_held


def test_another_thread_does_not_get_a_held_lock(array: SharedMemoryArray) -> None:
    with array.lock:
        assert in_thread(lambda: array.lock.acquire(timeout=0)) is False
        started = time.monotonic()
        assert in_thread(lambda: array.lock.acquire(timeout=0.2)) is False
        assert 0.19 < time.monotonic() - started < 5

    def take_and_give_back() -> bool:
        taken = array.lock.acquire(timeout=0)
        array.lock.release()
        return taken

    assert in_thread(take_and_give_back) is True


def test_another_process_does_not_get_a_held_lock(array: SharedMemoryArray) -> None:
    program = """
        from ataraxis import attach
        array = attach("x")
        taken = array.lock.acquire
        print(taken(timeout=0), taken(timeout=0.1), flush=True)
        input()
        print(array.lock.acquire(timeout=20), flush=True)
        array.lock.release()
        """
    with Program(program) as other:
        with array.lock:
            other.expect("False False")
        other.tell()
        other.expect("True")
        other.succeed()


def test_a_waiter_gets_the_lock_when_it_is_released(array: SharedMemoryArray) -> None:
    with Program(HOLDER) as holder:
        holder.expect("held")
        assert not array.lock.acquire(timeout=0.01)
        taken: list[bool] = []

        def take() -> None:
            taken.append(array.lock.acquire(timeout=30))
            array.lock.release()

        thread = threading.Thread(target=take)
        thread.start()
        holder.tell()
        thread.join(timeout=30)
        assert taken == [True]
        holder.succeed()


def test_reads_of_elements_wait_for_an_open_section(array: SharedMemoryArray) -> None:
    """All that is written in a section becomes visible at once."""
    read: list[Any] = []
    thread = threading.Thread(target=lambda: read.append(array[:2].tolist()))
    with array.array() as view:
        view[0] = 1
        thread.start()
        view[1] = 1
    thread.join(timeout=30)
    assert read == [[1, 1]]


def test_without_the_lock_one_reads_what_is_there(array: SharedMemoryArray) -> None:
    with array.array() as view:
        view[0] = 1
        assert in_thread(lambda: array.read_data(0, with_lock=False)) == 1
        assert in_thread(lambda: np.asarray(array)[0]) == 1

        def look() -> int:
            with array.array(with_lock=False) as unlocked:
                assert not unlocked.flags.writeable
                return int(unlocked[0])

        assert in_thread(look) == 1
        in_thread(lambda: array.write_data(1, 5, with_lock=False))
        assert view[1] == 5


def test_array_lends_a_writable_view_while_the_lock_is_held(
    array: SharedMemoryArray,
) -> None:
    with array.array() as view:
        assert view.flags.writeable
        assert view.shape == array.shape
        assert view.dtype == array.dtype
        assert array.lock.is_held
        view += 1
    assert array[...].tolist() == [1, 1, 1, 1]
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 7
    array[0] = 5
    assert view[0] == 5


def test_an_error_inside_a_section_releases_the_lock(array: SharedMemoryArray) -> None:
    def fail() -> None:
        with array.array() as view:
            view[0] = 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not array.lock.is_held
    assert array[0] == 1


def test_ctrl_c_ends_a_wait_for_the_lock(array: SharedMemoryArray) -> None:
    program = """
        import signal
        from ataraxis import attach
        signal.signal(signal.SIGINT, signal.default_int_handler)
        array = attach("x")
        print("ready", flush=True)
        try:
            {wait}
        except KeyboardInterrupt:
            print("interrupted")
        """
    for wait in ("array.lock.acquire()", "array[0] = 1", "array.array().__enter__()"):
        with array.lock, Program(program.format(wait=wait)) as waiter:
            waiter.expect("ready")
            waiter.wait_until_asleep()
            started = time.monotonic()
            waiter.process.send_signal(signal.SIGINT)
            waiter.expect("interrupted")
            assert time.monotonic() - started < 1
            waiter.succeed()
    assert array[0] == 0


def test_other_signals_are_handled_in_a_wait_that_goes_on(
    array: SharedMemoryArray,
) -> None:
    program = """
        import signal
        from ataraxis import attach
        signal.signal(signal.SIGUSR1, lambda *_: print("signal", flush=True))
        array = attach("x")
        print("ready", flush=True)
        print(array.lock.acquire(timeout=30))
        """
    with Program(program) as waiter:
        with array.lock:
            waiter.expect("ready")
            waiter.wait_until_asleep()
            os.kill(waiter.pid, signal.SIGUSR1)
            waiter.expect("signal")
        waiter.expect("True")
        assert waiter.finish()[0] == 0


def test_a_disconnect_in_another_thread_does_not_upset_a_waiter() -> None:
    """The waiter gets the lock's answer or an error, never a crash."""
    array = SharedMemoryArray.create_array("x", np.zeros(4, "i8"))
    with Program(HOLDER) as holder:
        holder.expect("held")
        other = attach("x")
        array.destroy()
        del array
        ended: list[BaseException | None] = []

        def write() -> None:
            try:
                other[0] = 1
                ended.append(None)
            except RuntimeError as error:
                ended.append(error)

        thread = threading.Thread(target=write)
        thread.start()
        wait_until(lambda: thread.is_alive())
        other.disconnect()
        holder.tell()
        thread.join(timeout=30)
        assert len(ended) == 1
        holder.succeed()


def test_disconnecting_inside_a_section_does_not_keep_the_lock(
    array: SharedMemoryArray,
) -> None:
    """In any case no other thread waits for ever."""
    other = attach("x")
    try:
        with array.array() as view:
            view[0] = 1
            array.disconnect()
    except RuntimeError:
        pass
    assert in_thread(lambda: other.lock.acquire(timeout=5)) is True
