"""Participants of streams killed and stopped at random: the others go on."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from workers_stream import COUNT, DONE, LAST, SLOT, STOP
from workers_stress import Zygote

from ataraxis._kernels import snapshot
from ataraxis._kernels.memory import byte_held
from ataraxis.stream import Consumer, Producer

LIMIT_S = 1.0
RINGS = (8, 64)  # blocks go in runs where there are more slots than 16
POLICIES = ("lossless", "lossy", "latest")


def byte_free(stream: Consumer, slot: int) -> float:
    """Wait until no process holds the byte of a slot; when that was."""
    descriptor = stream._segment.participant.descriptor
    deadline = time.monotonic() + 20
    while byte_held(descriptor, slot):
        assert time.monotonic() < deadline, "the byte outlives its owner"
    return time.monotonic()


def test_consumers_killed(
    arena: Path, zygote: Zygote, figure: Callable[..., float]
) -> None:
    """Flaws 3, 4: under every policy, whatever they held."""
    kills = int(figure(600, 12))
    board, chance = zygote.board, random.Random(20261120)
    recorder = zygote.start("workers_stream:receive", 1)
    sender = zygote.start(
        "workers_stream:send", 0, slots=random.choice(RINGS), words=512
    )
    board.until(lambda: board.mine(1, COUNT) > 10)
    watch = Consumer("s", context=arena, policy="latest", label="watch")

    def start(worker: int) -> int:
        board.set_mine(worker, COUNT, 0)
        policy = chance.choice(POLICIES)
        hold = 0 if policy == "lossless" else chance.randrange(5)
        return zygote.start("workers_stream:receive", worker, policy=policy, hold=hold)

    victims = {k: start(k) for k in (2, 3, 4, 5)}
    longest = 0.0
    for _ in range(kills):
        k = chance.choice(list(victims))
        board.until(lambda k=k: board.mine(k, COUNT) > 0)
        time.sleep(chance.uniform(0, 0.01))
        slot = board.mine(k, SLOT)
        zygote.kill(victims[k])
        free = byte_free(watch, slot)
        before = board.mine(1, COUNT)
        board.until(lambda before=before: board.mine(1, COUNT) > before + 8)
        longest = max(longest, time.monotonic() - free)
        assert zygote.wait(victims[k]) == -signal.SIGKILL
        victims[k] = start(k)
    assert longest < LIMIT_S, f"{longest} s"
    board.until(lambda: all(board.mine(k, COUNT) for k in victims))
    board[STOP] = 1
    zygote.finish(sender, recorder, *victims.values())
    assert board.mine(1, LAST) == board.mine(0, COUNT) - 1
    while watch.is_alive:
        watch.receive()
    assert not snapshot.producers(watch._segment.participant)
    assert [e[10] for e in snapshot.readers(watch._segment.participant)] == [b"watch"]
    watch.close()


@pytest.mark.parametrize("words", [8, 100_000])
def test_producers_killed(
    arena: Path, zygote: Zygote, figure: Callable[..., float], words: int
) -> None:
    """The next one has the name at once; readers get all that was sent, and whole."""
    rounds = int(figure(200, 4))
    board = zygote.board
    longest = 0.0
    for _ in range(rounds):
        for k in range(8):
            board.set_mine(k, COUNT, 0)
            board.set_mine(k, DONE, 0)
        sender = zygote.start(
            "workers_stream:send",
            0,
            words=words,
            slots=random.choice(RINGS),
            subscribers=4,
        )
        jobs = [
            zygote.start("workers_stream:receive", k + 1, policy=policy, hold=k % 2)
            for k, policy in enumerate(POLICIES)
        ]
        watch = Consumer("s", context=arena, policy="latest", timeout=20)
        board.until(lambda: all(board.mine(k, COUNT) > 20 for k in (1, 2, 3)))
        time.sleep(random.uniform(0, 0.01))
        zygote.kill(sender)
        free = byte_free(watch, board.mine(0, SLOT))
        board.until(lambda: all(board.mine(k, DONE) for k in (1, 2, 3)))
        longest = max(longest, time.monotonic() - free)
        zygote.finish(*jobs)
        assert zygote.wait(sender) == -signal.SIGKILL
        # What it had counted it had sent; one more may have been.
        assert board.mine(1, LAST) >= board.mine(0, COUNT) - 1
        assert watch.is_ended
        again = Producer("s", 8, 4, context=arena)
        again.unlink()
        watch.close()
    assert longest < LIMIT_S, f"{longest} s"


def test_shared_producers_killed(
    arena: Path, zygote: Zygote, figure: Callable[..., float]
) -> None:
    kills = int(figure(200, 6))
    board, chance = zygote.board, random.Random(7)

    def start(worker: int) -> int:
        board.set_mine(worker, COUNT, 0)
        return zygote.start(
            "workers_stream:send", worker, shared=True, slots=4, words=512
        )

    senders = {k: start(k) for k in (2, 3, 4)}
    reader = zygote.start("workers_stream:receive_shared", 1)
    longest = 0.0
    watch = Consumer("s", context=arena, policy="latest", timeout=20)
    for _ in range(kills):
        k = chance.choice(list(senders))
        # All of them: a stream whose only producer dies has ended, and its reader goes.
        board.until(lambda: all(board.mine(j, COUNT) for j in senders))
        time.sleep(chance.uniform(0, 0.005))
        zygote.kill(senders[k])
        free = byte_free(watch, board.mine(k, SLOT))
        before = board.mine(1, COUNT)
        board.until(lambda before=before: board.mine(1, COUNT) > before + 8)
        longest = max(longest, time.monotonic() - free)
        assert zygote.wait(senders[k]) == -signal.SIGKILL
        senders[k] = start(k)
    assert longest < LIMIT_S, f"{longest} s"
    board.until(lambda: all(board.mine(k, COUNT) for k in senders))
    board[STOP] = 1
    zygote.finish(reader, *senders.values())
    while watch.is_alive:
        watch.receive()
    watch.close()


def test_a_durable_reader_killed_misses_nothing(
    arena: Path, zygote: Zygote, figure: Callable[..., float]
) -> None:
    kills = int(figure(200, 6))
    board, chance = zygote.board, random.Random(3)
    sender = zygote.start(
        "workers_stream:send", 0, slots=random.choice(RINGS), subscribers=2
    )
    viewer = zygote.start("workers_stream:receive", 2, policy="lossy")
    reader = zygote.start("workers_stream:receive_durable", 1)
    for _ in range(kills):
        before = board.mine(1, COUNT)
        board.until(lambda before=before: board.mine(1, COUNT) > before)
        time.sleep(chance.uniform(0, 0.005))
        zygote.kill(reader)
        assert zygote.wait(reader) == -signal.SIGKILL
        if chance.random() < 0.3:
            time.sleep(0.1)
        reader = zygote.start("workers_stream:receive_durable", 1)
    before = board.mine(1, COUNT)
    board.until(lambda: board.mine(1, COUNT) > before)
    board[STOP] = 1
    zygote.finish(sender, viewer, reader)
    assert board.mine(1, LAST) == board.mine(0, COUNT)


def test_stopped_and_continued(
    arena: Path, zygote: Zygote, figure: Callable[..., float]
) -> None:
    """Flaw 5: any process stopped, at any moment."""
    stops = int(figure(200, 6))
    board, chance = zygote.board, random.Random(11)
    sender = zygote.start(
        "workers_stream:send", 0, slots=random.choice(RINGS), subscribers=3
    )
    readers = [
        zygote.start("workers_stream:receive", k + 1, policy=policy)
        for k, policy in enumerate(POLICIES)
    ]
    pids = [sender, *readers]
    board.until(lambda: all(board.mine(k, COUNT) > 0 for k in range(4)))
    for _ in range(stops):
        pid = chance.choice(pids)
        zygote.kill(pid, signal.SIGSTOP)
        time.sleep(chance.uniform(0.02, 0.15))
        zygote.kill(pid, signal.SIGCONT)
        before = [board.mine(k, COUNT) for k in range(4)]
        began = time.monotonic()
        board.until(
            lambda before=before: all(
                board.mine(k, COUNT) > before[k] for k in range(4)
            )
        )
        assert time.monotonic() - began < LIMIT_S
    board[STOP] = 1
    zygote.finish(*pids)
    assert board.mine(1, LAST) == board.mine(0, COUNT) - 1
