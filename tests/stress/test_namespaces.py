"""Two PID namespaces with equal pids, as two containers have them."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from workers_stress import (
    BROKEN,
    COUNT,
    GO,
    OTHER,
    OWNER,
    PHASE,
    READING,
    SLOT,
    WRITING,
    Zygote,
)

from ataraxis import SharedMemoryArray
from ataraxis._kernels.memory import byte_held
from ataraxis.errors import LockRecovered

ENTER = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


@pytest.fixture
def namespaces(arena: Path, tmp_path: Path) -> Iterator[tuple[Zygote, Zygote]]:
    if shutil.which("unshare") is None:
        pytest.skip("unshare(1) is not installed")
    if subprocess.run([*ENTER, "true"], capture_output=True).returncode:
        pytest.skip("no PID namespaces for this user (needs CAP_SYS_ADMIN)")
    with (
        Zygote(arena, tmp_path, prefix=ENTER) as first,
        Zygote(arena, tmp_path, prefix=ENTER) as second,
    ):
        yield first, second


@pytest.mark.filterwarnings("ignore::ataraxis.errors.LockRecovered")
def test_equal_pids_never_break_exclusion(
    arena: Path, namespaces: tuple[Zygote, Zygote], figure: Callable[..., float]
) -> None:
    first, second = namespaces
    board = first.board
    assert LockRecovered
    with SharedMemoryArray.create_array(
        "main", np.zeros(4, np.int64), context=arena
    ) as array:
        probe = array._participant.descriptor
        for k in range(int(figure(200, 6))):
            board[GO] = 0
            for worker in (1, 2, 3):
                board.set_mine(worker, PHASE, 0)
                board.set_mine(worker, COUNT, 0)
            before = array.statistics().recoveries
            holder = first.start("hold", 1)
            board.until(lambda: board.mine(1, PHASE) == WRITING)
            waiter = second.start("take", 2)
            # Equal pids and thread ids in two namespaces: a robust mutex fails here.
            assert holder == waiter
            board.until(lambda: board.mine(2, PHASE) == READING)
            time.sleep(0.001 * (k % 4))
            second.kill(waiter)
            assert second.wait(waiter) == -9
            assert byte_held(probe, board.mine(1, SLOT)) == 1, "the holder is alive"
            array._participant.sweep()
            assert not array.lock.acquire(0.03 * (k % 2)), "exclusion is broken"
            assert board[OWNER] == 2
            assert array.statistics().recoveries == before
            if k % 2:
                first.kill(holder)
                assert first.wait(holder) == -9
                assert byte_held(probe, board.mine(1, SLOT)) == 0, "the holder is dead"
            else:
                board[GO] = 2
                first.finish(holder)
                assert board.mine(1, PHASE) == OTHER
            since = time.monotonic()
            second.finish(second.start("take", 3))
            assert time.monotonic() - since < 2
            assert board.mine(3, COUNT) == 1
            assert array.statistics().recoveries == before + k % 2
            # Keep the pids of the two in step.
            assert first.start("take", 4) == waiter + 1
            first.finish(waiter + 1)
        assert os.getpid() != holder


def test_both_count_exactly(
    arena: Path, namespaces: tuple[Zygote, Zygote], figure: Callable[..., float]
) -> None:
    n = int(figure(50_000))
    with SharedMemoryArray.create_array(
        "count", np.zeros(4, np.int64), context=arena
    ) as array:
        pids = [z.start("count_mixed", k, n=n) for k, z in enumerate(namespaces)]
        for z, pid in zip(namespaces, pids, strict=True):
            z.finish(pid)
        assert array[0] == 2 * n
        assert not namespaces[0].board[BROKEN]
