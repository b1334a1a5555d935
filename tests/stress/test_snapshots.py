"""A copy shows what was there at one moment, and single stores in their order."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from workers_stress import COUNT, STOP, Zygote

from ataraxis import SharedMemoryArray


def run(zygote: Zygote, pids: list[int], seconds: float) -> list[int]:
    """Let workers run; how far each came."""
    board = zygote.board
    try:
        board.until(
            lambda: (
                all(board.mine(k, COUNT) for k in range(len(pids))) or broken(zygote)
            )
        )
        before = [board.mine(k, COUNT) for k in range(len(pids))]
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not broken(zygote):
            time.sleep(0.05)
        after = [board.mine(k, COUNT) for k in range(len(pids))]
    finally:
        board[STOP] = 1
    zygote.finish(*pids)
    return [b - a for a, b in zip(before, after, strict=True)]


def broken(zygote: Zygote) -> bool:
    return any(zygote.errors.iterdir())


def test_copies_of_a_megabyte_are_never_torn(
    arena: Path, zygote: Zygote, figure: Callable[..., float]
) -> None:
    with SharedMemoryArray.create_array(
        "frame", np.zeros(1 << 17), context=arena
    ) as array:
        pids = [
            zygote.start("write_patterns", 0, way="section"),
            zygote.start("write_patterns", 1, way="assign"),
            zygote.start("read_patterns", 2, way="copy"),
            zygote.start("read_patterns", 3, way="snapshot"),
        ]
        seconds = figure(60, 1)
        done = run(zygote, pids, seconds)
        print(f"in {seconds} s: writes {done[:2]}, untorn copies {done[2:]}")
        assert all(n > 5 * seconds for n in done), f"a reader starved: {done}"
        assert not array.statistics().torn


def test_single_stores_are_seen_in_their_order(
    arena: Path, zygote: Zygote, figure: Callable[..., float]
) -> None:
    with SharedMemoryArray.create_array(
        "order", np.zeros(64, np.int64), context=arena
    ) as array:
        pids = [zygote.start("write_in_order", 0)]
        pids += [zygote.start("read_in_order", k) for k in (1, 2)]
        done = run(zygote, pids, figure(20, 0.5))
        print(f"rounds of stores {done[0]}, copies in order {done[1:]}")
        assert all(done)
        assert array.statistics().owner == -1
