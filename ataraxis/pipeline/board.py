"""`StatusBoard`: what the processes of a run say of themselves, in shared memory.

A segment of int64 words that lasts as long as the run. Each word has one writer. The
name of the segment is the run's, its attributes say what the rows are.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.errors import LayoutError, SegmentNotFound
from ataraxis.shm.array import SharedMemoryArray
from ataraxis.shm.context import Context, ContextLike
from ataraxis.shm.process import ProcessIdentity
from ataraxis.shm.segment import Segment

# Words of the head.
OWNER, STARTED, STATE, OWNER_START, TAKEN = range(5)
HEAD = 8
# Words of a processor: its state, and who has killed workers, 8 (lane, sequence).
POISON, POISONS = 8, 8
# Then up to 32 lanes that it puts in order: (lane, next sequence).
LANES, MOST_LANES = POISON + 2 * POISONS, 32
PROCESSOR = LANES + 2 * MOST_LANES
# Words of a worker.
(
    PID, ROW_STATE, RECEIVED, EMITTED, ERRORS, REPEATED, DROPPED, CORRUPT, BUSY_NS,
    BEGAN_NS, LANE, SEQUENCE, RESTARTS, LETTERS, LAST_NS, WAITED_NS,
) = range(16)  # fmt: skip
BINS, N_BINS = 16, 32
EDGES, N_EDGES = BINS + N_BINS, 16
WORKER = EDGES + N_EDGES
# States of the run, of a processor, of a worker.
STARTING, RUNNING, FINISHED, FAILED, TERMINATED = range(5)
STATES = ("starting", "running", "completed", "failed", "terminated")
MARK = "ataraxis_pipe"


class StatusBoard:
    """The words of a run; made by its program, opened by its workers."""

    def __init__(self, segment: Segment, owner: SharedMemoryArray | None) -> None:
        self._segment: Segment | None = segment
        self._owner = owner
        about = json.loads(segment.labels.attrs[MARK])
        self.about: dict[str, Any] = about
        self.processors: int = len(about["processors"])
        shape = (segment.labels.nbytes // 8,)
        self.array: NDArray[np.int64] = segment.view(shape, np.dtype(np.int64))
        self.words: memoryview[int] = self.array.data.cast("B").cast("q")

    @classmethod
    def create(
        cls, name: str, about: dict[str, Any], context: ContextLike
    ) -> StatusBoard:
        """Make the board of a run; `about` is JSON-able and has its processors."""
        workers = sum(p["workers"] for p in about["processors"])
        # The pipe's own end keeps lanes as a processor does, and counts as a worker.
        words = HEAD + PROCESSOR * (len(about["processors"]) + 1)
        words += WORKER * (workers + 2)
        owner = SharedMemoryArray.create_array(
            name,
            np.zeros(words, np.int64),
            attrs={MARK: json.dumps(about)},
            context=context,
        )
        made = cls(Segment.attach(name, context=context), owner)
        made.words[OWNER_START] = ProcessIdentity.of(os.getpid()).start
        made.words[OWNER] = os.getpid()
        return made

    @classmethod
    def attach(cls, name: str, context: ContextLike) -> StatusBoard:
        """Open the board of a run that is going on."""
        segment = Segment.attach(name, context=context)
        if MARK not in segment.labels.attrs:
            raise LayoutError(f"segment {name!r} is no board of a pipe")
        return cls(segment, None)

    @property
    def segment(self) -> Segment:
        """The segment it is in."""
        assert self._segment is not None
        return self._segment

    def close(self) -> None:
        """Leave; whoever made it takes the name away."""
        self.words.release()
        self.array = np.zeros(0, np.int64)
        self._segment = None
        if self._owner is not None:
            self._owner.disconnect()
            self._owner.destroy()

    # ---- rows

    @staticmethod
    def of_processor(index: int) -> int:
        """Return where the words of a processor begin."""
        return HEAD + PROCESSOR * index

    def of_worker(self, row: int) -> int:
        """Return where the words of a worker begin."""
        return HEAD + PROCESSOR * (self.processors + 1) + WORKER * row

    def state_of(self, index: int) -> int:
        """Return the state of a processor."""
        return self.words[self.of_processor(index)]

    # ---- lanes

    def next_of(self, index: int, lane: int) -> int:
        """Return the sequence that a processor waits for next in a lane."""
        at = self.of_processor(index) + LANES
        for k in range(at, at + 2 * MOST_LANES, 2):
            if self.words[k] == lane:
                return self.words[k + 1]
            if self.words[k] == 0:
                break
        return 0

    def place_of(self, index: int, lane: int) -> int:
        """Return the word of a lane's next sequence, for its one writer."""
        at = self.of_processor(index) + LANES
        for k in range(at, at + 2 * MOST_LANES, 2):
            if self.words[k] == 0:
                self.words[k + 1] = 0
                self.words[k] = lane
            if self.words[k] == lane:
                return k + 1
        raise RuntimeError(
            f"a processor puts more than {MOST_LANES} sequences in order: too many "
            "ways lead to it, or workers of its sources were restarted too often"
        )

    # ---- values that kill

    def is_poison(self, index: int, lane: int, sequence: int) -> bool:
        """Whether a value has killed as many workers as it may."""
        at = self.of_processor(index) + POISON
        words = self.words
        return any(
            words[k] == lane and words[k + 1] == sequence
            for k in range(at, at + 2 * POISONS, 2)
            if words[k]
        )

    def add_poison(self, index: int, lane: int, sequence: int, count: int) -> None:
        """Mark a value; the oldest of more than 8 marks gives way."""
        at = self.of_processor(index) + POISON + 2 * (count % POISONS)
        self.words[at] = 0
        self.words[at + 1] = sequence
        self.words[at] = lane


# ---- what a run leaves behind whose program was killed when no worker could notice


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
            board = StatusBoard.attach(run, context)
            owner, start = board.words[OWNER], board.words[OWNER_START]
            board.close()
            if owner and not ProcessIdentity(owner, start).is_alive():
                clear(run, context)
                found.append(run)
    return found
