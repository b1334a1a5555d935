"""What a run leaves behind whose program was killed when no worker could notice."""

from __future__ import annotations

import os
from contextlib import suppress

from ataraxis.errors import LayoutError, SegmentNotFound
from ataraxis.log.status import process_start
from ataraxis.pipeline.board import OWNER, OWNER_START, Board
from ataraxis.shm.context import Context


def names_of(run: str, context: Context) -> list[str]:
    """Return every name that belongs to a run."""
    return [n for n in context.names() if n == run or n.startswith(f"{run}.")]


def clear(run: str, context: Context) -> None:
    """Take away every name of a run whose program is gone."""
    for name in names_of(run, context):
        with suppress(FileNotFoundError):
            os.unlink(context.join(name))


def clear_dead(context: Context) -> list[str]:
    """Clear every run of a context whose program is gone; which they were."""
    names = set(context.names())
    found = []
    for run in sorted(n for n in names if f"{n}.credit" in names):
        with suppress(SegmentNotFound, LayoutError):
            board = Board.attach(run, context)
            owner, start = board.words[OWNER], board.words[OWNER_START]
            board.close()
            if owner and process_start(owner) != start:
                clear(run, context)
                found.append(run)
    return found
