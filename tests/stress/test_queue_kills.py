"""Putters and getters of a work queue killed and stopped: no frame is lost."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from workers_queue import BEGUN, COUNT, EACH, GO, GOT, PUT, SLOT, STOP
from workers_stress import Zygote

from ataraxis import MemQ
from ataraxis._kernels.memory import byte_held

LIMIT_S = 1.0
PUTTERS, GETTERS = (0, 1, 2), (3, 4, 5)


@pytest.fixture
def queue(arena: Path) -> Iterator[MemQ]:
    with MemQ("q", 16, 512, context=arena) as made:
        yield made
    assert os.listdir(arena) == []


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def read(ledger: Path) -> NDArray[np.uint8]:
    """Copy the ledger: whether each frame's put began, returned, how often got."""
    return np.fromfile(ledger, np.uint8).reshape(3, -1)


def byte_free(queue: MemQ, slot: int) -> float:
    """Wait until no process holds the byte of a slot; when that was."""
    assert queue._segment is not None
    descriptor = queue._segment.participant.descriptor
    deadline = time.monotonic() + 20
    while byte_held(descriptor, slot):
        assert time.monotonic() < deadline, "the byte outlives its owner"
    return time.monotonic()


def finish(zygote: Zygote, queue: MemQ, putters: list[int], getters: list[int]) -> None:
    """Stop the putters, wait for the last acknowledgement, stop the getters."""
    zygote.board[STOP] = 1
    zygote.finish(*putters)
    queue.join(timeout=30)
    zygote.board[GO] = 1
    zygote.finish(*getters)
    queue.sweep()
    statistics = queue.statistics()
    assert (statistics.used, statistics.waiting, statistics.leased) == (0, 0, 0)


def start(zygote: Zygote, worker: int, ledger: Path, way: str) -> int:
    zygote.board.set_mine(worker, COUNT, 0)
    if worker in PUTTERS:
        return zygote.start("workers_queue:put", worker, ledger=str(ledger))
    return zygote.start("workers_queue:get", worker, ledger=str(ledger), way=way)


@pytest.mark.parametrize("way", ["get", "lease", "drain"])
def test_three_by_three_each_exactly_once(
    zygote: Zygote, queue: MemQ, ledger: Path, figure: Callable[..., float], way: str
) -> None:
    n = int(figure(100_000, 500))
    putters = [
        zygote.start("workers_queue:put", k, ledger=str(ledger), n=n) for k in PUTTERS
    ]
    getters = [start(zygote, k, ledger, way) for k in GETTERS]
    zygote.finish(*putters)
    finish(zygote, queue, [], getters)
    words = read(ledger)
    sent = np.concatenate([words[PUT, k * EACH : k * EACH + n] for k in PUTTERS])
    got = np.concatenate([words[GOT, k * EACH : k * EACH + n] for k in PUTTERS])
    assert (sent == 1).all()
    assert (got == 1).all()
    assert queue.statistics().acknowledged == queue.statistics().put == 3 * n


@pytest.mark.parametrize("way", ["lease", "drain", "mixed", "get"])
def test_killed_at_random(
    zygote: Zygote, queue: MemQ, ledger: Path, figure: Callable[..., float], way: str
) -> None:
    """Every frame whose put returned is got; twice only if its getter was killed."""
    kills = int(figure(500, 12))
    board, chance = zygote.board, random.Random(20261121)
    pids = {k: start(zygote, k, ledger, way) for k in PUTTERS + GETTERS}
    longest, killed_getters = 0.0, 0
    for _ in range(kills):
        k = chance.choice(list(pids))
        board.until(lambda: all(board.mine(j, COUNT) for j in pids))
        time.sleep(chance.uniform(0, 0.01))
        slot = board.mine(k, SLOT)
        zygote.kill(pids[k])
        free = byte_free(queue, slot)
        others = [j for j in GETTERS if j != k]
        before = sum(board.mine(j, COUNT) for j in others)
        board.until(
            lambda before=before, others=others: (
                sum(board.mine(j, COUNT) for j in others) > before + 8
            )
        )
        longest = max(longest, time.monotonic() - free)
        assert zygote.wait(pids[k]) == -signal.SIGKILL
        killed_getters += k in GETTERS
        pids[k] = start(zygote, k, ledger, way)
    assert longest < LIMIT_S, f"{longest} s"
    board.until(lambda: all(board.mine(j, COUNT) for j in pids))
    finish(zygote, queue, [pids[k] for k in PUTTERS], [pids[k] for k in GETTERS])
    begun, sent, got = read(ledger)[[BEGUN, PUT, GOT]]
    assert not got[begun == 0].any()
    if way == "get":
        # Acknowledged when it returns: what a killed one had got and not noted is gone.
        assert (got <= 1).all()
        assert (got[sent == 1] == 0).sum() <= killed_getters
    else:
        assert (got[sent == 1] >= 1).all(), f"{(got[sent == 1] == 0).sum()} lost"
        again = int(got[got > 1].astype(int).sum() - (got > 1).sum())
        assert again <= killed_getters * (1 if way == "lease" else 16 * 7 + 1)
    assert queue.statistics().recoveries >= kills * 0.9
    assert queue.statistics().corrupt == 0


def test_all_killed_and_the_rest_drained(
    zygote: Zygote, arena: Path, ledger: Path, figure: Callable[..., float]
) -> None:
    """After the death of all, the queue is there: attach and get what was put."""
    board = zygote.board
    for _ in range(int(figure(100, 3))):
        queue = MemQ("q", 16, 512, context=arena)
        for k in PUTTERS + GETTERS:
            board.set_mine(k, COUNT, 0)
        ledger.unlink(missing_ok=True)
        pids = [start(zygote, k, ledger, "lease") for k in (*PUTTERS, GETTERS[0])]
        board.until(lambda: all(board.mine(k, COUNT) for k in PUTTERS))
        queue.close()
        time.sleep(random.uniform(0, 0.01))
        for pid in pids:
            zygote.kill(pid)
        for pid in pids:
            assert zygote.wait(pid) == -signal.SIGKILL
        again = MemQ.attach("q", context=arena)
        for slot in range(128):
            # Also of one that was killed while it attached.
            if slot != again._segment.participant.slot:
                byte_free(again, slot)
        again.sweep()
        words = read(ledger)
        while not again.empty():
            with again.lease(False) as lease:
                words[GOT, int(lease.value[0])] += 1
        again.close()
        assert os.listdir(arena) == []
        assert (words[GOT][words[PUT] == 1] >= 1).all()


def test_stopped_and_continued(
    zygote: Zygote, queue: MemQ, ledger: Path, figure: Callable[..., float]
) -> None:
    """A stopped getter keeps its lease, a putter its place; none is reaped."""
    board, chance = zygote.board, random.Random(5)
    pids = {k: start(zygote, k, ledger, "lease") for k in PUTTERS + GETTERS}
    board.until(lambda: all(board.mine(k, COUNT) for k in pids))
    for _ in range(int(figure(200, 5))):
        k = chance.choice(list(pids))
        zygote.kill(pids[k], signal.SIGSTOP)
        time.sleep(chance.uniform(0.02, 0.15))
        zygote.kill(pids[k], signal.SIGCONT)
        before = {j: board.mine(j, COUNT) for j in pids}
        began = time.monotonic()
        board.until(
            lambda before=before: all(board.mine(j, COUNT) > before[j] for j in pids)
        )
        assert time.monotonic() - began < LIMIT_S
    finish(zygote, queue, [pids[k] for k in PUTTERS], [pids[k] for k in GETTERS])
    words = read(ledger)
    assert (words[GOT] == words[PUT]).all()
    assert queue.statistics().recoveries == 0
