"""Nothing is counted twice and nothing is lost, whichever process counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from workers_stress import BROKEN, Zygote

from ataraxis import SharedMemoryArray


def counted(arena: Path, zygote: Zygote, *jobs: tuple[str, int, int]) -> int:
    """Run jobs (name, n, threads) side by side; what they counted up to."""
    with SharedMemoryArray.create_array(
        "count", np.zeros(4, np.int64), context=arena
    ) as array:
        pids = [
            zygote.start(job, worker, n=n, threads=threads)
            for worker, (job, n, threads) in enumerate(jobs)
        ]
        zygote.finish(*pids, timeout=300)
        assert array.statistics().owner == -1
        assert array.statistics().recoveries == 0
        return int(array[0])


def test_two_processes_add_exactly(arena: Path, zygote: Zygote) -> None:
    # The full figure always: it takes a second.
    assert counted(arena, zygote, *[("count_add", 100_000, 1)] * 2) == 200_000


def test_two_processes_read_modify_write_exactly(arena: Path, zygote: Zygote) -> None:
    assert counted(arena, zygote, *[("count_section", 100_000, 1)] * 2) == 200_000


@pytest.mark.parametrize("job", ["count_update", "count_exchange"])
def test_two_processes_update_exactly(
    arena: Path, zygote: Zygote, figure: Callable[..., float], job: str
) -> None:
    n = int(figure(100_000))
    assert counted(arena, zygote, *[(job, n, 1)] * 2) == 2 * n


@pytest.mark.parametrize("job", ["count_add", "count_section", "count_update"])
def test_threads_of_processes_count_exactly(
    arena: Path, zygote: Zygote, figure: Callable[..., float], job: str
) -> None:
    n = int(figure(25_000))
    assert counted(arena, zygote, *[(job, n, 4)] * 2) == 8 * n


def test_all_ways_at_once_exclude_each_other(
    arena: Path, zygote: Zygote, figure: Callable[..., float]
) -> None:
    n = int(figure(50_000))
    jobs = [("count_mixed", n, 2)] * 3 + [("count_add", n, 1)]
    assert counted(arena, zygote, *jobs) == 7 * n
    assert not zygote.board[BROKEN], "two were in the section at a time"
