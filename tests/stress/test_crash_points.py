"""A death at every named point: the table of what may be left, tried line by line.

`POINTS` is the kill table. The names are read from the sources, so that a point
without a line here, or a line whose point is gone, fails.
"""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import variants
from workers_stress import (
    COUNT,
    GO,
    PHASE,
    READING,
    READY,
    SLOT,
    WRITING,
    Zygote,
)

from ataraxis import SharedMemoryArray
from ataraxis._kernels.memory import byte_held
from ataraxis.errors import OwnerDied, SegmentExists


class Line(NamedTuple):
    """What leads to the point, and what its death leaves."""

    way: str
    """The job of workers_stress.crash that comes past."""
    is_torn: bool = False
    """Whether data may be half written, and are flagged."""
    values: tuple[int, ...] = (7,)
    """What an element may be afterwards."""
    recoveries: int = 0
    """How often the lock is then taken from the dead."""
    name: str | None = None
    """A name that the death leaves behind, without anybody who takes part in it."""


HALF = (7, 9)
POINTS = {
    # The lock.
    "lock_taken": Line("element", recoveries=1),
    "lock_held": Line("section", recoveries=1),
    "lock_section_closed": Line("section", values=(9,), recoveries=1),
    "lock_released": Line("element", values=HALF),
    "lock_waiting": Line("wait"),
    "lock_waited": Line("wait", recoveries=1),
    "change_waiting": Line("change"),
    # Writing.
    "section_dirty": Line("section", True, HALF, 1),
    "section_healed": Line("section", True, (9,), 1),
    "write_marked": Line("assign", True, HALF, 1),
    "write_section_open": Line("assign", True, HALF, 1),
    "write_half_copied": Line("assign", True, HALF, 1),
    "write_copied": Line("assign", True, HALF, 1),
    "write_section_closed": Line("assign", values=(9,), recoveries=1),
    "store_element_stored": Line("element", values=HALF, recoveries=1),
    # Cleaning up after another: a third process repeats it.
    "reap_before_cleanup": Line("reap", True, recoveries=1),
    "cleanup_torn": Line("reap", True, recoveries=1),
    "cleanup_version": Line("reap", True, recoveries=1),
    "cleanup_freed": Line("reap", True, recoveries=1),
    "vacate_cleaned": Line("reap", True, recoveries=1),
    "reap_after_cleanup": Line("reap", True, recoveries=1),
    # Taking part.
    "attach_mapped": Line("attach"),
    "attach_byte_held": Line("attach"),
    "attach_introduced": Line("attach"),
    "attach_settled": Line("attach"),
    "attach_again": Line("retired"),
    "detach_cleaned": Line("attach"),
    "detach_freed": Line("attach"),
    # Creating and unlinking.
    "create_opened": Line("create"),
    "create_allocated": Line("create"),
    "create_filled": Line("create"),
    "create_linked": Line("create", name="made"),
    "create_published": Line("create", name="made"),
    "create_room_made": Line("create"),
    "unlink_retired": Line("create", name="made"),
    "unlink_done": Line("create"),
}


def test_every_point_has_a_line() -> None:
    assert variants.array_points() == set(POINTS)


@pytest.mark.parametrize("point", sorted(POINTS))
@pytest.mark.filterwarnings("ignore::ataraxis.errors.LockRecovered")
def test_death_at(point: str, mother: Zygote, arena: Path) -> None:
    line = POINTS[point]
    board = mother.board
    with SharedMemoryArray.create_array(
        "main", np.full(1 << 12, 7, np.int64), context=arena
    ) as array:
        number = array._participant.descriptor
        if point in {"create_room_made"}:
            half_unlinked(mother, "made")
        if line.way == "retired":
            half_unlinked(mother, "half")
        dead = before_death(mother, line.way)
        pid = mother.start("crash", 1, way=line.way, crash_at=point)
        if line.way == "wait":
            board.until(lambda: board.mine(1, PHASE) == READING)
            board.until(lambda: is_waited_for(array))
            board[GO] = 3
        # It really died there: a point that is never reached ends with 0.
        assert mother.wait(pid) == -9, f"{point} was not reached: {mother.complaints()}"
        mother.finish(*dead)
        if board.mine(1, READY):
            assert byte_held(number, board.mine(1, SLOT)) == 0

        # The others go on, within a second.
        since = time.monotonic()
        worker = mother.start("take", 3)
        assert array.lock.acquire(1)
        array.lock.release()
        board.until(lambda: board.mine(3, COUNT) == 1, 5)
        assert time.monotonic() - since < 1
        mother.finish(worker)

        # The data are as the table says, and flagged exactly when they may be half.
        state = array.statistics()
        assert state.is_torn == line.is_torn
        assert state.recoveries - line.recoveries in repeated(point)
        assert state.owner == -1
        if line.is_torn:
            for use in (lambda: array[...], lambda: array.add(0, 1), array.snapshot):
                with pytest.raises(OwnerDied):
                    use()
            array.heal()
        copy = array[...]
        assert set(np.unique(copy).tolist()) <= set(line.values)
        array.add(0, 1)
        array[...] = np.zeros_like(copy)

        # Names: a name that is left has no participant, and gives way at once.
        left = sorted(os.listdir(arena))
        assert left == sorted(["main", *([line.name] if line.name else [])])
        for name in ("made", "half"):
            SharedMemoryArray.create_array(name, np.ones(2), context=arena).destroy()
        with pytest.raises(SegmentExists):
            SharedMemoryArray.create_array("main", np.ones(2), context=arena)
        array._participant.sweep()
        held = [s for s in range(128) if byte_held(number, s)]
        assert held == [array._participant.slot]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert array.lock.acquire(1)
            array.lock.release()
    assert os.listdir(arena) == []


def repeated(point: str) -> tuple[int, ...]:
    """How often the count of recoveries may be one too high: died after counting."""
    return (0, 1) if point == "cleanup_freed" else (0,)


def half_unlinked(mother: Zygote, name: str) -> None:
    """Leave a segment under `name` whose creator died while unlinking it."""
    pid = mother.start("leave", 4, name=name, crash_at="unlink_retired")
    assert mother.wait(pid) == -9


def before_death(mother: Zygote, way: str) -> list[int]:
    """Set the stage: who holds the lock, or died holding it; who must still end."""
    board = mother.board
    if way == "wait":
        holder = mother.start("hold", 2)
        board.until(lambda: board.mine(2, PHASE) == WRITING)
        return [holder]
    if way == "reap":
        holder = mother.start("hold", 2, way="section_only")
        board.until(lambda: board.mine(2, PHASE) == WRITING)
        mother.kill(holder)
        assert mother.wait(holder) == -9
    return []


def is_waited_for(array: SharedMemoryArray) -> bool:
    assert array._segment is not None
    at = array._segment.header.geometry.control
    word = bytes(memoryview(array._segment.mapping)[at : at + 4])
    return bool(int.from_bytes(word, "little") & 0x80000000)


def test_a_reaper_with_a_child_takes_nothing_to_the_grave(
    mother: Zygote, arena: Path
) -> None:
    """A byte taken through a probe must not live on in a forked child's copy."""
    board = mother.board
    with SharedMemoryArray.create_array(
        "main", np.full(1 << 12, 7, np.int64), context=arena
    ) as array:
        before_death(mother, "reap")
        pid = mother.start("reaps_with_child", 1, crash_at="reap_before_cleanup")
        assert mother.wait(pid) == -9
        child = board.mine(1, COUNT)
        try:
            assert byte_held(array._participant.descriptor, board.mine(2, SLOT)) == 0
            with pytest.warns(match="recovered"):
                assert array.lock.acquire(1)
            array.lock.release()
        finally:
            os.kill(child, 9)
            end(child)


def end(pid: int) -> None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[0] == "Z":
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.001)
    raise AssertionError(f"{pid} does not end")
