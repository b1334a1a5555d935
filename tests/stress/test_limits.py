"""At the limits: no memory left, signals all the time, thousands of lives."""

from __future__ import annotations

import errno
import gc
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from workers_stress import SLOT, Zygote

from ataraxis import SharedMemoryArray
from ataraxis.shm import segment as segments


@pytest.fixture
def small(arena: Path) -> Iterator[Path]:
    """Lend a tmpfs of 4 MB."""
    path = arena / "small"
    path.mkdir(mode=0o700)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", path],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        path.rmdir()
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    try:
        yield path
    finally:
        gc.collect()
        subprocess.run(["umount", path], check=True)
        path.rmdir()


def free(path: Path) -> int:
    room = os.statvfs(path)
    return room.f_bavail * room.f_frsize


def test_too_large_for_the_memory_there_is(small: Path) -> None:
    before = free(small)
    with pytest.raises(OSError, match="needs 67125248 bytes") as caught:
        SharedMemoryArray.create_array("a", np.zeros(64 << 17), context=small)
    assert caught.value.errno == errno.ENOSPC
    del caught
    gc.collect()
    assert os.listdir(small) == []
    assert free(small) == before
    # Twice the free space, as the promise says, and then what does fit.
    with pytest.raises(OSError, match="free"):
        SharedMemoryArray.create_array("a", np.zeros(8 << 17), context=small)
    gc.collect()
    with SharedMemoryArray.create_array("a", np.ones(3 << 17), context=small) as array:
        left = free(small)
        with pytest.raises(OSError, match="free"):
            SharedMemoryArray.create_array("b", np.zeros(2 << 17), context=small)
        gc.collect()
        assert free(small) == left
        assert array[...].sum() == 3 << 17
    assert os.listdir(small) == []


def test_a_full_context_still_works(small: Path) -> None:
    with SharedMemoryArray.create_array("a", np.zeros(8), context=small) as array:
        with open(small / "ballast", "wb", buffering=0) as file:
            while free(small):
                file.write(bytes(min(free(small), 1 << 16)))
        assert free(small) < 1 << 16
        other = SharedMemoryArray.attach("a", context=small)
        other.add(0, 1)
        other[...] = np.ones(8)
        with array.array() as view:
            view += 1
        assert array[0] == 2
        with pytest.raises(OSError, match="free"):
            SharedMemoryArray.create_array("b", np.zeros(1 << 14), context=small)
        other.disconnect()
        os.unlink(small / "ballast")
    assert os.listdir(small) == []


@pytest.fixture
def alarms() -> Iterator[list[int]]:
    """Let a timer fire every ms."""
    fired: list[int] = []
    previous = signal.signal(signal.SIGALRM, lambda *a: fired.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        yield fired
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def test_creation_goes_on_through_signals(arena: Path, alarms: list[int]) -> None:
    array = SharedMemoryArray.create_array("a", np.ones(256 << 17), context=arena)
    assert alarms
    assert array[...].sum() == 256 << 17
    array.destroy()


def test_creation_goes_on_where_a_signal_undoes_the_work(
    arena: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older kernels throw away what fallocate did so far when a signal comes."""
    calls: list[int] = []

    def allocate(descriptor: int, offset: int, count: int) -> int:
        calls.append(count)
        if count > 1 << 20:
            return -errno.EINTR
        return real(descriptor, offset, count)

    real = segments.allocate
    monkeypatch.setattr(segments, "allocate", allocate)
    with SharedMemoryArray.create_array("a", np.ones(8 << 17), context=arena) as array:
        assert array[...].sum() == 8 << 17
    assert len(calls) < 100


def test_thousands_of_lives_leave_nothing(
    arena: Path, figure: Callable[..., float]
) -> None:
    def live(n: int) -> None:
        for k in range(n):
            array = SharedMemoryArray.create_array(
                "life", np.full(1000, k), context=arena
            )
            other = SharedMemoryArray.attach("life", context=arena)
            with other.array() as view:
                view[0] = 1
            assert array[0] == 1
            other.disconnect()
            array.destroy()

    live(50)
    gc.collect()
    before = usage()
    live(int(figure(2000, 50)))
    gc.collect()
    after = usage()
    assert after[:2] == before[:2], "descriptors or maps grow"
    assert after[2] - before[2] < 1 << 20, f"memory grows: {before} -> {after}"


def test_attaching_from_elsewhere_leaves_nothing(
    arena: Path, zygote: Zygote, figure: Callable[..., float]
) -> None:
    with SharedMemoryArray.create_array("life", np.zeros(1000), context=arena) as life:
        zygote.finish(zygote.start("attach_often", 1, n=int(figure(2000, 50))))
        assert zygote.board.mine(1, SLOT) == 0
        assert life._participant.sweep() == 0


def usage() -> tuple[int, int, int]:
    """Count descriptors, maps and resident bytes of this process."""
    with open("/proc/self/maps") as maps, open("/proc/self/statm") as statm:
        count = sum("ataraxis" in line for line in maps)
        resident = int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    return len(os.listdir("/proc/self/fd")), count, resident
