"""Who is alive: neither pids nor time say so, only the kernel."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from workers_stress import (
    COUNT,
    GO,
    OTHER,
    PHASE,
    READING,
    READY,
    SLOT,
    TORN,
    WRITING,
    Zygote,
)

from ataraxis import SharedMemoryArray
from ataraxis._kernels.memory import byte_held
from ataraxis.errors import LockRecovered
from ataraxis.shm import Segment

pytestmark = pytest.mark.filterwarnings("ignore::ataraxis.errors.LockRecovered")


@pytest.fixture
def array(arena: Path) -> Iterator[SharedMemoryArray]:
    assert LockRecovered
    with SharedMemoryArray.create_array(
        "main", np.zeros(8, np.int64), context=arena
    ) as made:
        yield made


def held(array: SharedMemoryArray, zygote: Zygote, worker: int = 1) -> int:
    slot = zygote.board.mine(worker, SLOT)
    return byte_held(array._participant.descriptor, slot)


def gone(pid: int) -> None:
    """Kill a worker's child, an orphan by now, and wait for its end."""
    watch = os.pidfd_open(pid)
    signal.pidfd_send_signal(watch, signal.SIGKILL)
    import select

    assert select.select([watch], [], [], 10)[0]
    os.close(watch)


@pytest.mark.parametrize("way", ["fork", "exec"])
def test_a_child_does_not_keep_its_parent_alive(
    array: SharedMemoryArray, zygote: Zygote, way: str
) -> None:
    board = zygote.board
    pid = zygote.start("parent_of", 1, way=way)
    board.until(lambda: board.mine(1, PHASE) == WRITING and board.mine(1, COUNT))
    if way == "fork":
        board.until(lambda: board.mine(1, TORN))
    assert held(array, zygote) == 1
    zygote.kill(pid)
    assert zygote.wait(pid) == -9
    assert held(array, zygote) == 0
    assert array.lock.acquire(1)
    array.lock.release()
    gone(board.mine(1, COUNT))


def test_a_child_forked_inside_a_section_leaves_the_lock_alone(
    array: SharedMemoryArray, zygote: Zygote
) -> None:
    board = zygote.board
    pid = zygote.start("fork_in_section", 1)
    board.until(lambda: board.mine(1, PHASE) == OTHER)
    # The child has left its copy of the section; the parent is still inside.
    assert not array.lock.acquire(0.05)
    assert array.version == 0
    board[GO] = 2
    zygote.finish(pid)
    assert array[0] == 5
    assert array.version == 1
    assert not array.statistics().torn


def test_an_inherited_handle_attaches_anew(
    array: SharedMemoryArray, zygote: Zygote
) -> None:
    zygote.finish(zygote.start("inherited", 1))
    assert array[0] == 2
    assert array[1] == 1


def test_exec_is_a_death(array: SharedMemoryArray, zygote: Zygote) -> None:
    board = zygote.board
    pid = zygote.start("executes", 1)
    board.until(lambda: board.mine(1, PHASE) == WRITING)
    assert held(array, zygote) == 1
    board[GO] = 2
    board.until(lambda: not held(array, zygote))
    assert array.lock.acquire(1)
    array.lock.release()
    zygote.kill(pid)
    assert zygote.wait(pid) == -9


def test_a_holder_that_closes_all_descriptors_lives_on(
    array: SharedMemoryArray, zygote: Zygote
) -> None:
    board = zygote.board
    pid = zygote.start("closes_all", 1, first="hold")
    board.until(lambda: board.mine(1, PHASE) == WRITING)
    assert held(array, zygote) == 1
    assert array._participant.sweep() == 0
    assert not array.lock.acquire(0.05)
    board[GO] = 2
    assert array.lock.acquire(5)
    array.lock.release()
    zygote.finish(pid)
    assert array.statistics().recoveries == 0


def test_who_closed_all_descriptors_still_sees_the_dead(
    array: SharedMemoryArray, zygote: Zygote
) -> None:
    board = zygote.board
    closer = zygote.start("closes_all", 1, first="")
    holder = zygote.start("hold", 2)
    board.until(lambda: board.mine(1, PHASE) == board.mine(2, PHASE) == WRITING)
    zygote.kill(holder)
    assert zygote.wait(holder) == -9
    board[GO] = 2
    # Only the closer looks: no other process takes the lock meanwhile.
    zygote.finish(closer)
    assert array.statistics().recoveries == 1


def test_a_zombie_is_dead(array: SharedMemoryArray, zygote: Zygote) -> None:
    board = zygote.board
    pid = zygote.start("hold", 1)
    board.until(lambda: board.mine(1, PHASE) == WRITING)
    zygote.kill(pid)
    board.until(lambda: not held(array, zygote))
    # No process has waited for it: kill(pid, 0) says that it is there.
    os.kill(pid, 0)
    assert array.lock.acquire(1)
    array.lock.release()
    assert zygote.wait(pid) == -9


def test_a_stopped_owner_is_alive(array: SharedMemoryArray, zygote: Zygote) -> None:
    board = zygote.board
    pid = zygote.start("hold", 1, way="section")
    board.until(lambda: board.mine(1, PHASE) == WRITING)
    zygote.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        assert held(array, zygote) == 1
        assert not array.lock.acquire(0.2), "a stopped process was taken for dead"
        assert array._participant.sweep() == 0
    waiter = zygote.start("take", 2)
    board.until(lambda: board.mine(2, PHASE) == READING)
    zygote.kill(pid, signal.SIGCONT)
    assert not array.lock.acquire(0.05)
    board[GO] = 2
    zygote.finish(pid, waiter)
    assert array.statistics().recoveries == 0
    assert not array.statistics().is_torn


def test_a_stopped_waiter_holds_nobody_up(
    array: SharedMemoryArray, zygote: Zygote
) -> None:
    board = zygote.board
    holder = zygote.start("hold", 1)
    board.until(lambda: board.mine(1, PHASE) == WRITING)
    stopped = zygote.start("take", 2)
    board.until(lambda: board.mine(2, PHASE) == READING)
    zygote.kill(stopped, signal.SIGSTOP)
    waiter = zygote.start("take", 3)
    board.until(lambda: board.mine(3, PHASE) == READING)
    board[GO] = 2
    since = time.monotonic()
    board.until(lambda: board.mine(3, COUNT))
    assert time.monotonic() - since < 1
    zygote.kill(stopped, signal.SIGCONT)
    zygote.finish(holder, stopped, waiter)


def test_two_attachments_in_one_process_see_each_other(
    arena: Path, array: SharedMemoryArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ataraxis.shm.segment.ONE_PER_PROCESS", frozenset())
    one = Segment.attach("main", context=arena)
    two = Segment.attach("main", context=arena)
    assert one.participant.slot != two.participant.slot
    for me, other in ((one, two), (two, one)):
        number = me.participant.descriptor
        assert byte_held(number, other.participant.slot) == 1
        assert byte_held(number, me.participant.slot) == 1
        assert me.participant.sweep() == 0
    slot = two.participant.slot
    del two, other, me
    assert byte_held(one.participant.descriptor, slot) == 0


def test_short_timeouts_notice_a_death(
    array: SharedMemoryArray, zygote: Zygote
) -> None:
    board = zygote.board
    pid = zygote.start("hold", 1)
    board.until(lambda: board.mine(1, PHASE) == WRITING)
    assert not array.lock.acquire(0.005)
    zygote.kill(pid)
    assert zygote.wait(pid) == -9
    # Shorter than the period of probing.
    assert array.lock.acquire(0.005)
    array.lock.release()


def test_signals_do_not_hide_a_death(array: SharedMemoryArray, zygote: Zygote) -> None:
    board = zygote.board
    pid = zygote.start("hold", 1)
    board.until(lambda: board.mine(1, PHASE) == WRITING)
    waiter = zygote.start("waits_interrupted", 2)
    board.until(lambda: board.mine(2, PHASE) == READING)
    assert not board.mine(2, COUNT)
    zygote.kill(pid)
    assert zygote.wait(pid) == -9
    since = time.monotonic()
    board.until(lambda: board.mine(2, COUNT), 5)
    assert time.monotonic() - since < 1
    zygote.finish(waiter)


def test_signals_do_not_end_a_wait(array: SharedMemoryArray, zygote: Zygote) -> None:
    board = zygote.board
    pid = zygote.start("hold", 1)
    board.until(lambda: board.mine(1, PHASE) == WRITING)
    waiter = zygote.start("waits_interrupted", 2)
    board.until(lambda: board.mine(2, PHASE) == READING)
    fired = board.mine(2, TORN)
    # Signals came while it waited, their handlers ran, and it still waits.
    board.until(lambda: board.mine(2, TORN) >= fired + 20)
    assert not board.mine(2, COUNT)
    board[GO] = 2
    zygote.finish(pid, waiter)


def test_disconnect_in_another_thread_ends_a_wait_cleanly(
    arena: Path,
    array: SharedMemoryArray,
    zygote: Zygote,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    board = zygote.board
    monkeypatch.setattr("ataraxis.shm.segment.ONE_PER_PROCESS", frozenset())
    uses = (
        lambda other: other.__setitem__(0, 1),
        lambda other: other.add(0, 1),
        lambda other: other.__setitem__(slice(None), np.ones(8, np.int64)),
        lambda other: other.lock.acquire(),
        lambda other: other[...],
    )
    for use in uses:
        board[GO] = 0
        board.set_mine(1, PHASE, 0)
        # A handle on an attachment of its own: the last reference goes.
        segment = Segment.attach("main", context=arena)
        other = SharedMemoryArray(
            "main", segment.context, segment.header.uuid, segment.labels
        )
        other._plug(segment)
        del segment
        pid = zygote.start("hold", 1, way="section")
        board.until(lambda: board.mine(1, PHASE) == WRITING)
        raised: list[BaseException] = []
        entered = threading.Event()

        def run(use=use, other=other, raised=raised, entered=entered) -> None:
            entered.set()
            try:
                use(other)
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        entered.wait(5)
        # Until it sleeps on the lock: its bit says so.
        board.until(lambda: is_waited_for(array))
        other.disconnect()
        board[GO] = 2
        thread.join(10)
        assert not thread.is_alive()
        assert all(isinstance(e, RuntimeError) for e in raised), raised
        zygote.finish(pid)
        assert array.statistics().owner == -1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert array.lock.acquire(1)
            array.lock.release()
        del other, run, raised, thread


def is_waited_for(array: SharedMemoryArray) -> bool:
    assert array._segment is not None
    at = array._segment.header.geometry.control
    word = bytes(memoryview(array._segment.mapping)[at : at + 4])
    return bool(int.from_bytes(word, "little") & 0x80000000)


def test_workers_that_only_take_part_are_counted(
    array: SharedMemoryArray, zygote: Zygote
) -> None:
    board = zygote.board
    pids = [zygote.start("sleepy", k) for k in range(1, 9)]
    board.until(lambda: all(board.mine(k, READY) for k in range(1, 9)))
    slots = {board.mine(k, SLOT) for k in range(1, 9)} | {array._participant.slot}
    assert len(slots) == 9
    for pid in pids:
        zygote.kill(pid)
        assert zygote.wait(pid) == -9
    assert array._participant.sweep() == 8
    assert array._participant.sweep() == 0
    number = array._participant.descriptor
    assert [s for s in range(128) if byte_held(number, s)] == [array._participant.slot]
