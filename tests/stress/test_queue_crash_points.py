"""A death at every named point of a work queue: what is left, and the others go on.

`POINTS` is the queue's kill table. The names are read from the sources, so that a point
without a line here, or a line whose point is gone, fails.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import variants
from workers_queue import BIG, PHASE, SLOT
from workers_stress import Zygote

from ataraxis import MemQ
from ataraxis._kernels.memory import byte_held

LIMIT_S = 1.0
# What the queue holds before: numbers of frames. The first two share a slot.
BEFORE = (1, 2, 3)
# The frame that a dying putter puts.
NEW = 100


class Line(NamedTuple):
    """What leads to the point, and what is got afterwards."""

    way: str
    """The job of workers_queue.crash that comes past."""
    left: tuple[int, ...]
    """Frames that are there afterwards, in any order."""
    names: int = 0
    """Segments of large frames that the death leaves until the queue goes."""
    is_large: bool = False
    """Whether the queue holds a large frame, NEW, as its first."""
    is_in_chunk: bool = False
    """Whether that lies in a chunk, not in a segment of its own."""
    first: str = ""
    """Where a process that does the same dies before."""
    held: int = 0
    """Frames that another process holds, and dies with, before."""


ALL = BEFORE
POINTS = {
    # Putting: before it is published no getter sees it, from then on it is there.
    "put_before": Line("put", ALL),
    "put_claimed": Line("put", ALL),
    "put_half": Line("put", ALL),
    "put_written": Line("put", ALL),
    "put_shown": Line("put", (*ALL, NEW)),
    # A second frame goes behind the first, which is there whatever happens.
    "grow_before": Line("grow", (*ALL, NEW)),
    "grow_claimed": Line("grow", (*ALL, NEW)),
    "put_passed_over": Line("put_many", (1, 2), held=1),
    "large_made": Line("large", ALL, names=1),
    "large_kept": Line("large", ALL, names=1),
    # Getting: it comes again until the acknowledgement is marked.
    "get_before": Line("get", ALL),
    "get_taken": Line("get", ALL),
    "get_leased": Line("get", ALL),
    "get_copied": Line("large_get", (*ALL, NEW), names=1, is_large=True),
    "get_hint_cleared": Line("sweep", ALL, held=1),
    "ack_before": Line("get", ALL),
    "ack_marked": Line("get", (2, 3)),
    "ack_settled": Line("get", (2, 3)),
    "ack_hinted": Line("get", (2, 3)),
    "large_gone": Line("large_get", ALL, is_large=True),
    "lease_over": Line("wait_over", (1, 2), held=1),
    # The arena. A chunk that is not given to a slot holds no frame.
    "arena_made": Line("chunk", ALL),
    "arena_kept": Line("chunk", ALL),
    "chunk_cut": Line("chunk", ALL),
    "chunk_taken": Line("chunk", ALL),
    "chunk_filled": Line("chunk", ALL),
    "chunk_given": Line("chunk", ALL),
    "chunk_popped": Line("chunk_again", ALL, is_large=True, is_in_chunk=True),
    # A chunk whose frame is acknowledged is free.
    "chunk_acknowledged": Line("get", ALL, is_large=True, is_in_chunk=True),
    "chunk_freed": Line("get", ALL, is_large=True, is_in_chunk=True),
    "chunk_listing": Line("get", ALL, is_large=True, is_in_chunk=True),
    "chunk_reclaimed": Line("sweep", ALL, first="chunk_given"),
    "chunk_pinned": Line("chunk_view", (*ALL, NEW), is_large=True, is_in_chunk=True),
    "chunk_unpinned": Line("chunk_view", ALL, is_large=True, is_in_chunk=True),
    "arena_cleanup_chunk": Line(
        "sweep", (*ALL, NEW), is_large=True, is_in_chunk=True, held=1
    ),
    "arena_cleaned": Line(
        "sweep", (*ALL, NEW), is_large=True, is_in_chunk=True, held=1
    ),
    # Nothing is left: is anything kept?
    "kept_marked": Line("wait", ()),
    # Cleaning up after another: another process repeats it.
    "queue_cleanup_slot": Line("sweep", ALL, held=1),
    "queue_cleanup_slots": Line("sweep", ALL, held=1),
    "queue_cleanup_hinted": Line("sweep", ALL, held=1),
}


def test_every_point_has_a_line() -> None:
    assert variants.queue_points() == set(POINTS)


def frame(number: int, words: int = 3) -> np.ndarray:
    return np.full(words, number, np.uint32)


def byte_free(queue: MemQ, slot: int) -> None:
    deadline = time.monotonic() + 20
    while byte_held(queue._segment.participant.descriptor, slot):
        assert time.monotonic() < deadline, "the byte outlives its owner"


@pytest.mark.parametrize("point", sorted(POINTS))
def test_death_at(point: str, mother: Zygote, arena: Path) -> None:
    line = POINTS[point]
    board = mother.board
    lease_timeout = 0.02 if line.way == "wait_over" else None
    queue = MemQ("q", 4, 256, lease_timeout=lease_timeout, context=arena)
    queue._is_without_arena = not line.is_in_chunk
    if line.is_large:
        queue.put(frame(NEW, BIG))
    queue._is_without_arena = False
    queue.put_many([frame(1), frame(2)])
    queue.put(frame(3))
    if line.held:
        holder = mother.start("workers_queue:hold", 2, many=line.held)
        board.until(lambda: board.mine(2, PHASE) == 1)
        if line.way == "sweep":
            mother.kill(holder)
            assert mother.wait(holder) == -9
            byte_free(queue, board.mine(2, SLOT))
    if line.first:
        pid = mother.start("workers_queue:crash", 1, way="chunk", crash_at=line.first)
        assert mother.wait(pid) == -9, f"{line.first} was not reached"
        byte_free(queue, board.mine(1, SLOT))
    pid = mother.start("workers_queue:crash", 1, way=line.way, crash_at=point)
    # It really died there: a point that is never reached ends with 0.
    assert mother.wait(pid) == -9, f"{point} was not reached: {mother.complaints()}"
    byte_free(queue, board.mine(1, SLOT))
    if line.held and line.way != "sweep":
        mother.kill(holder)
        assert mother.wait(holder) == -9
        byte_free(queue, board.mine(2, SLOT))

    # A process that is left gets what is there, within a second, and nothing else.
    since = time.monotonic()
    got, lease = [], None
    while True:
        try:
            with queue.lease(timeout=0.1) as lease:
                got.append(int(lease.value[0]))
        except TimeoutError:
            break
    assert time.monotonic() - since < LIMIT_S
    assert sorted(got) == sorted(line.left)
    # And may put as many as ever.
    for _ in range(2):
        for k in range(4):
            queue.put(frame(k), timeout=LIMIT_S)
        assert [int(queue.get(timeout=LIMIT_S)[0]) for _ in range(4)] == [0, 1, 2, 3]
    for _ in range(2):
        for k in range(4):
            queue.put(frame(k, BIG), timeout=LIMIT_S)
        assert [int(queue.get(timeout=LIMIT_S)[0]) for _ in range(4)] == [0, 1, 2, 3]
    queue.sweep()
    assert queue.statistics().used == 0
    del lease
    assert queue.arena_bytes == 0
    queue.close()
    # Nothing is left of an empty queue.
    assert os.listdir(arena) == []
