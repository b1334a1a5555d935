"""What runs in a context: every pipe, its workers, their counts."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ataraxis.errors import LayoutError, SegmentNotFound
from ataraxis.pipeline import board as words_of
from ataraxis.pipeline.board import Board
from ataraxis.pipeline.readings import rows_of, workers_of
from ataraxis.shm.context import Context, ContextLike


@dataclass(frozen=True)
class Glance:
    """A worker of a pipe that runs."""

    run: str
    """The run: the pipe's name, and a part of its own."""
    worker: str
    """The processor, and which of its workers."""
    pid: int
    """Its process; 0: none now."""
    received: int
    """Values it has taken."""
    emitted: int
    """Frames it has emitted."""
    restarts: int
    """Times its process was started anew."""
    dropped: int
    """Frames that overflow= has dropped."""
    dead_letters: int
    """Values in the dead letters."""
    last_ns: int
    """When it was done with a value last, monotonic ns; 0: never."""


def glance(context: ContextLike = None) -> list[Glance]:
    """Read the boards of a context; the pipes do not notice.

    Examples
    --------
    >>> glance()
    []
    """
    where = Context.of(context)
    names = set(where.names())
    found: list[Glance] = []
    for name in sorted(names):
        if f"{name}.credit" in names:
            with suppress(SegmentNotFound, LayoutError):
                found += _workers(Board.attach(name, where))
    return found


def _workers(board: Board) -> list[Glance]:
    run = board.segment.name
    names = workers_of(board.about)
    rows = rows_of(board.about, board.array).copy()
    board.close()
    return [_seen(run, *pair) for pair in zip(names, rows, strict=True)]


def _seen(run: str, worker: str, row: Any) -> Glance:
    at = (
        words_of.PID,
        words_of.RECEIVED,
        words_of.EMITTED,
        words_of.RESTARTS,
        words_of.DROPPED,
        words_of.LETTERS,
        words_of.LAST_NS,
    )
    return Glance(run, worker, *(int(row[k]) for k in at))
