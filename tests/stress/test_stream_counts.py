"""Every frame once, in order; viewers beside it that lose some, and know how many."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from workers_stream import COUNT, DROPPED, LAST, PHASE, STOP
from workers_stress import Zygote


def test_lossless_to_three(
    arena: Path, zygote: Zygote, figure: Callable[..., float]
) -> None:
    n = int(figure(10_000_000, 50_000))
    board = zygote.board
    readers = [zygote.start("workers_stream:receive", w) for w in (1, 2, 3)]
    sender = zygote.start(
        "workers_stream:send", 0, words=1, slots=1024, n=n, subscribers=3, way="plain"
    )
    zygote.finish(sender, *readers, timeout=600)
    for worker in (1, 2, 3):
        assert board.mine(worker, COUNT) == n
        assert board.mine(worker, LAST) == n - 1


@pytest.mark.parametrize("words", [8, 20_000])
def test_all_policies_on_one_stream(
    arena: Path, zygote: Zygote, figure: Callable[..., float], words: int
) -> None:
    board = zygote.board
    jobs = [
        {"policy": "lossless"},
        {"policy": "lossy", "hold": 2},
        {"policy": "latest", "hold": 1},
        {"policy": "lossy", "linger": 0.001},
        {"policy": "latest", "linger": 0.002, "hold": 3},
    ]
    readers = [
        zygote.start("workers_stream:receive", k + 1, **job)
        for k, job in enumerate(jobs)
    ]
    sender = zygote.start(
        "workers_stream:send",
        0,
        words=words,
        slots=random.choice((8, 64)),
        subscribers=len(jobs),
    )
    time.sleep(figure(60, 2))
    board[STOP] = 1
    zygote.finish(sender, *readers)
    sent = board.mine(0, COUNT)
    assert board.mine(1, COUNT) == sent > 100
    assert board.mine(1, DROPPED) == 0
    assert all(board.mine(k, LAST) == sent - 1 for k in range(1, 6))


def test_a_frozen_viewer_stalls_no_process(
    arena: Path, zygote: Zygote, figure: Callable[..., float]
) -> None:
    import signal

    board = zygote.board
    viewers = [
        zygote.start("workers_stream:receive", k, policy=policy, hold=20)
        for k, policy in ((2, "lossy"), (3, "latest"), (4, "lossy"))
    ]
    recorder = zygote.start("workers_stream:receive", 1)
    sender = zygote.start("workers_stream:send", 0, slots=4, subscribers=4)
    board.until(lambda: all(board.mine(k, COUNT) > 30 for k in (1, 2, 3, 4)))
    for pid in viewers:
        zygote.kill(pid, signal.SIGSTOP)
    for _ in range(int(figure(50, 3))):
        before = board.mine(1, COUNT)
        began = time.monotonic()
        board.until(lambda before=before: board.mine(1, COUNT) > before + 200)
        assert time.monotonic() - began < 5
    assert board.mine(2, PHASE) == 1
    for pid in viewers:
        zygote.kill(pid, signal.SIGCONT)
    board[STOP] = 1
    zygote.finish(sender, recorder, *viewers)
