"""Participants killed at random: the others go on, and nothing is left."""

from __future__ import annotations

import os
import random
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from workers_stress import (
    BEAT,
    BROKEN,
    COUNT,
    GO,
    PHASE,
    READY,
    SLOT,
    STOP,
    WRITING,
    Zygote,
    warned,
)

from ataraxis import SharedMemoryArray
from ataraxis._kernels.memory import byte_held
from ataraxis.errors import LockRecovered, OwnerDied

LIMIT_NS = 1_000_000_000


def byte_free(descriptor: int, slot: int, pid: int) -> int:
    """Wait until no process holds the byte; when that was, ns."""
    deadline = time.monotonic() + 20
    while byte_held(descriptor, slot) != 0:
        if time.monotonic() > deadline:
            # A paused machine's clock jumps: give it a second more.
            time.sleep(1)
            if byte_held(descriptor, slot) == 0:
                break
            about = Path(f"/proc/{pid}/status").read_text()
            raise AssertionError(f"byte {slot} outlives its owner {pid}: {about}")
    return time.monotonic_ns()


def test_random_deaths(
    arena: Path, zygote: Zygote, figure: Callable[..., float]
) -> None:
    kills = int(figure(500, 10))
    board = zygote.board
    chance = random.Random(20261120)
    survivors, victims = (1, 2), (3, 4, 5)
    longest = torn = 0
    warnings.simplefilter("ignore", LockRecovered)
    with (
        SharedMemoryArray.create_array(
            "main", np.zeros(1 << 18, np.int64), context=arena
        ) as array,
        SharedMemoryArray.create_array(
            "side", np.zeros(4, np.int64), context=arena
        ) as side,
    ):
        probe = array._participant.descriptor
        steady = [zygote.start("survive", k) for k in survivors]
        at = {k: zygote.start("suffer", k, seed=k) for k in victims}
        board.until(lambda: all(board.mine(k, READY) for k in victims))
        board.until(lambda: all(board.mine(k, COUNT) for k in survivors))
        for kill in range(kills):
            k = chance.choice(victims)
            # Any moment: that is the point.
            time.sleep(chance.random() * 0.008)
            slot, before = board.mine(k, SLOT), array.statistics()
            zygote.kill(at[k])
            freed = byte_free(probe, slot, at[k])
            board.until(
                lambda t=freed: all(board.mine(s, BEAT) > t for s in survivors), 10
            )
            waited = max(board.mine(s, BEAT) for s in survivors) - freed
            longest = max(longest, waited)
            assert waited < LIMIT_NS, f"kill {kill}: a survivor waited {waited} ns"
            assert zygote.wait(at[k]) == -9, zygote.complaints()

            # Its name is free at once, and the one all fight for still works.
            with SharedMemoryArray.create_array(
                f"own-{k}", np.ones(8), context=arena
            ) as own:
                assert own[...].sum() == 8

            after = array.statistics()
            if after.torn > before.torn:
                torn += 1
                assert board.mine(k, PHASE) == WRITING, "flagged, but was not writing"
            with array.lock:
                # Under the lock: another victim's whole write would heal, too.
                if array.statistics().is_torn:
                    with pytest.raises(OwnerDied):
                        array[...]
                    with pytest.raises(OwnerDied):
                        array.add(0, 1)
                    with array.array() as view:
                        view[...] = kill
                    array.heal()
            try:
                copy = array[...]
            except OwnerDied:
                raise AssertionError("torn, but only one was killed") from None
            assert copy.min() == copy.max(), "torn, and not flagged"
            board.set_mine(k, READY, 0)
            board.set_mine(k, PHASE, 0)
            at[k] = zygote.start("suffer", k, seed=1000 * kill + k)
            board.until(lambda k=k: board.mine(k, READY))
            zygote.check()
        for k in victims:
            zygote.kill(at[k])
            assert zygote.wait(at[k]) == -9
        board[STOP] = 1
        zygote.finish(*steady)
        array._participant.sweep()
        side._participant.sweep()
        final = array.statistics()
        said = warned(board)
        print(
            f"{kills} kills: longest wait {longest / 1e6:.1f} ms, {torn} torn, "
            f"{final.recoveries} recoveries, {said} warned by workers"
        )
        assert not board[BROKEN], "exclusion was broken"
        assert said <= final.recoveries, "an event was warned of twice"
        assert final.owner == -1
        assert array._participant.recoveries >= kills
        # Only this process takes part in either.
        held = [s for s in range(128) if byte_held(probe, s)]
        assert held == [array._participant.slot]
        # What the dead left under the name they fought for is replaced at once.
        for name in ("same", *(f"own-{k}" for k in victims)):
            SharedMemoryArray.create_array(name, np.ones(2), context=arena).destroy()
    assert os.listdir(arena) == []


def test_each_recovery_is_warned_of_once(
    arena: Path, zygote: Zygote, figure: Callable[..., float]
) -> None:
    board = zygote.board
    with SharedMemoryArray.create_array(
        "main", np.zeros(4, np.int64), context=arena
    ) as array:
        rounds = int(figure(200, 6))
        for k in range(rounds):
            way = ("lock", "section")[k % 2]
            board.set_mine(1, PHASE, 0)
            pid = zygote.start("hold", 1, way=way)
            board.until(lambda: board.mine(1, PHASE) == WRITING)
            before = array.statistics()
            zygote.kill(pid)
            number = array._participant.descriptor
            freed = byte_free(number, board.mine(1, SLOT), pid)
            with pytest.warns(LockRecovered) as caught:
                assert array.lock.acquire(5)
            assert time.monotonic_ns() - freed < LIMIT_NS
            array.lock.release()
            assert len(caught) == 1
            assert ("half written" in str(caught[0].message)) == (way == "section")
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert array.lock.acquire(5)
                array.lock.release()
            after = array.statistics()
            assert after.recoveries == before.recoveries + 1
            # Flagged if, and only if, it was killed inside a write.
            assert after.is_torn == (way == "section")
            if after.is_torn:
                for use in (array.snapshot, lambda: array[0], lambda: array.add(0, 1)):
                    with pytest.raises(OwnerDied):
                        use()
                array.heal()
            assert array[...].shape == (4,)
            assert zygote.wait(pid) == -9


def test_a_recovery_warned_of_as_an_error_leaves_the_lock_free(
    arena: Path, zygote: Zygote
) -> None:
    board = zygote.board
    with SharedMemoryArray.create_array(
        "main", np.zeros(4, np.int64), context=arena
    ) as array:
        for use in (lambda: array.__setitem__(0, 1), lambda: array.lock.acquire(5)):
            board.set_mine(1, PHASE, 0)
            pid = zygote.start("hold", 1)
            board.until(lambda: board.mine(1, PHASE) == WRITING)
            zygote.kill(pid)
            assert zygote.wait(pid) == -9
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                with pytest.raises(LockRecovered):
                    use()
            assert not array.lock.is_held
            assert array.statistics().owner == -1
            board.set_mine(2, COUNT, 0)
            zygote.finish(zygote.start("take", 2))


def test_a_killed_waiter_is_no_loss(
    arena: Path, zygote: Zygote, figure: Callable[..., float]
) -> None:
    board = zygote.board
    with SharedMemoryArray.create_array(
        "main", np.zeros(4, np.int64), context=arena
    ) as array:
        for k in range(int(figure(100, 3))):
            board[GO] = 0
            for worker in (1, 2, 3):
                board.set_mine(worker, PHASE, 0)
                board.set_mine(worker, COUNT, 0)
            holder = zygote.start("hold", 1)
            board.until(lambda: board.mine(1, PHASE) == WRITING)
            waiters = [zygote.start("take", w) for w in (2, 3)]
            board.until(lambda: board.mine(2, PHASE) and board.mine(3, PHASE))
            time.sleep(0.002 * (k % 3))
            zygote.kill(waiters[0])
            assert zygote.wait(waiters[0]) == -9
            assert not array.lock.acquire(0)
            released = time.monotonic_ns()
            board[GO] = 2
            board.until(lambda: board.mine(3, COUNT) == 1, 5)
            assert time.monotonic_ns() - released < LIMIT_NS
            zygote.finish(holder, waiters[1])
        assert array.statistics().recoveries == 0
