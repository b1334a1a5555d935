"""The frame buffer under load and under kills: not one wrong payload, no client hangs.

Full figures (ATARAXIS_STRESS=1): 8 writers and 8 readers for 60 s in a ring much too
small; 200 kills at random of clients and servers.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import workers_framebuffer as workers
from deadline import wait_until

from ataraxis import FrameBufferClient, FrameBufferServer

pytestmark = pytest.mark.stress
spawn = multiprocessing.get_context("spawn")


def scaled(full: float, least: float) -> float:
    return max(least, full * float(os.environ.get("ATARAXIS_STRESS", "0.02")))


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A context of its own, in which nothing may be left."""
    shm = "/dev/shm" if os.path.isdir("/dev/shm") else None
    path = Path(tempfile.mkdtemp(prefix="ataraxis-stress-", dir=shm))
    monkeypatch.setenv("ATARAXIS_CONTEXT", str(path))
    yield path
    gc.collect()
    left = [p.name for p in path.iterdir()]
    for name in left:
        (path / name).unlink()
    path.rmdir()
    assert not left


def started(target: Any, *arguments: Any) -> Any:
    process = spawn.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def ended(processes: list[Any], timeout: float = 60) -> None:
    """Wait for all; a process that hangs is the failure looked for."""
    deadline = time.monotonic() + timeout
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    hanging = [process.name for process in processes if process.is_alive()]
    for process in processes:
        process.kill()
        process.join()
    assert not hanging, f"hang: {hanging}"


@pytest.mark.parametrize("most", [4_000, 100_000])
def test_many_writers_and_readers(place: Path, most: int) -> None:
    """8 writers, 8 readers, ring of 5 chunks: what is accepted is right, every time."""
    many = int(scaled(8, 3))
    stop, tickets, counts = spawn.Event(), spawn.Queue(), spawn.Queue()
    with FrameBufferServer("key", 5 * most) as server:
        readers = [
            started(workers.read_until_told, "key", k, tickets, stop, counts)
            for k in range(many)
        ]
        writers = [
            started(workers.write_until_told, "key", k, most, tickets, stop)
            for k in range(many)
        ]
        wait_until(lambda: server.statistics().chunks > 0, 60)
        end = time.monotonic() + scaled(60, 2)
        while time.monotonic() < end:
            assert server.statistics().oldest_s < 60
            assert server.allocate(1) >= 0
            stop.wait(0.05)
        stop.set()
        found = [counts.get(timeout=60) for _ in range(many)]
        # What was not read keeps the writers' queue threads from ending.
        ended(readers)
        ended(writers)
        right, late, wrong = map(sum, zip(*found, strict=True))
        chunks = server.statistics().chunks
    tickets.close()
    counts.close()
    print(
        f"\n{chunks} chunks of up to {most}: {right} right, {late} late, {wrong} wrong"
    )
    assert wrong == 0
    assert right > 0
    assert late > 0


def test_random_kills(place: Path, tmp_path: Path) -> None:
    """200 kills of clients and servers, one in three a server; all in one life."""
    chance = random.Random(int(os.environ.get("ATARAXIS_SEED", "5")))
    kills = int(scaled(200, 12))
    boards = tmp_path / "boards"
    boards.mkdir()
    stop = str(tmp_path / "stop")
    server = started(workers.serve_until_killed, "key", 300_000, stop)
    clients = {
        k: started(workers.exchange_until_killed, "key", k, str(boards), stop)
        for k in range(4)
    }
    served = 0
    for kill in range(kills):
        progress = workers.progress(boards)
        # No client hangs while another, or the server, is gone.
        wait_until(
            lambda seen=progress: all(
                workers.progress(boards).get(k, 0) > seen.get(k, 0) for k in clients
            ),
            60,
            f"all clients to go on before kill {kill}",
        )
        if chance.random() < 1 / 3:
            server.kill()
            server.join()
            server = started(workers.serve_until_killed, "key", 300_000, stop)
            served += 1
        else:
            victim = chance.choice(list(clients))
            clients[victim].kill()
            clients[victim].join()
            clients[victim] = started(
                workers.exchange_until_killed, "key", victim, str(boards), stop
            )
    assert served
    Path(stop).touch()
    ended(list(clients.values()))
    assert [client.exitcode for client in clients.values()] == [0] * 4
    assert not list(boards.glob("wrong*")), [
        p.read_text() for p in boards.glob("wrong*")
    ]
    ended([server])
    assert not list(place.iterdir())
    # The ring's slots are all free again, and the key is free.
    with FrameBufferServer("key", 1000, participants=2), FrameBufferClient("key"):
        pass


def test_a_second_server_never_gets_in(place: Path) -> None:
    """Racing servers of one key: at any time at most one lives."""
    stop, counts = spawn.Event(), spawn.Queue()
    rounds = int(scaled(2000, 30))
    racers = [started(workers.race_to_serve, "key", rounds, counts) for _ in range(4)]
    found = [counts.get(timeout=300) for _ in racers]
    ended(racers)
    stop.set()
    counts.close()
    assert sum(won for won, _ in found) > 0
    assert sum(clashes for _, clashes in found) == 0
