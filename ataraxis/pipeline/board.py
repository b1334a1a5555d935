"""`StatusBoard`: states and counters of the processes of a run, in shared memory.

A segment of int64 words that exists as long as the run and has its name. Each word has
one writer. The attributes of the segment describe the rows.
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

# Words of the run.
OWNER, STARTED, STATE, OWNER_START, TAKEN = range(5)
HEAD = 8
# Words of a processor: its state, and 8 values (lane, sequence) that killed workers.
POISON, POISONS = 8, 8
# Then up to 32 lanes that it resequences: (lane, next sequence).
LANES, MOST_LANES = POISON + 2 * POISONS, 32
PROCESSOR = LANES + 2 * MOST_LANES
# Words of a worker.
(
    PID, ROW_STATE, RECEIVED, EMITTED, ERRORS, REPEATED, DROPPED, CORRUPT, BUSY_NS,
    BEGAN_NS, LANE, SEQUENCE, RESTARTS, DEAD_LETTERS, LAST_NS, WAITED_NS,
) = range(16)  # fmt: skip
BINS, N_BINS = 16, 32
EDGES, N_EDGES = BINS + N_BINS, 16
# Its host, as the place in the list `hosts` of `about`; the run writes it.
HOST = EDGES + N_EDGES
WORKER = HOST + 16
# States of the run, of a processor, of a worker.
STARTING, RUNNING, FINISHED, FAILED, TERMINATED = range(5)
STATES = ("starting", "running", "completed", "failed", "terminated")
MARK = "ataraxis_pipe"


class StatusBoard:
    """The words of a run, created by its program and attached by its workers."""

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
        """Create the board of a run; `about` describes it, as `Plan.about` returns."""
        workers = sum(p["workers"] for p in about["processors"])
        # The end of the pipe has the words of a processor and of a worker, too.
        words = HEAD + PROCESSOR * (len(about["processors"]) + 1)
        words += WORKER * (workers + 2)
        owner = SharedMemoryArray.create_array(
            name,
            np.zeros(words, np.int64),
            attrs={MARK: json.dumps(about)},
            context=context,
        )
        board = cls(Segment.attach(name, context=context), owner)
        board.words[OWNER_START] = ProcessIdentity.of(os.getpid()).start
        board.words[OWNER] = os.getpid()
        return board

    @classmethod
    def attach(cls, name: str, context: ContextLike) -> StatusBoard:
        """Attach the board of a run; `LayoutError` if the segment is not a board."""
        segment = Segment.attach(name, context=context)
        if MARK not in segment.labels.attrs:
            raise LayoutError(f"segment {name!r} is not the status board of a pipe")
        return cls(segment, None)

    @property
    def segment(self) -> Segment:
        """The segment that holds the words."""
        assert self._segment is not None
        return self._segment

    def close(self) -> None:
        """Detach; in the program that created the board, remove it too."""
        self.words.release()
        self.array = np.zeros(0, np.int64)
        self._segment = None
        if self._owner is not None:
            self._owner.disconnect()
            self._owner.destroy()

    # ---- rows

    @staticmethod
    def of_processor(index: int) -> int:
        """Return the index of a processor's first word."""
        return HEAD + PROCESSOR * index

    def of_worker(self, row: int) -> int:
        """Return the index of a worker's first word."""
        return HEAD + PROCESSOR * (self.processors + 1) + WORKER * row

    def state_of(self, index: int) -> int:
        """Return the state of a processor."""
        return self.words[self.of_processor(index)]

    # ---- lanes

    def next_sequence(self, index: int, lane: int) -> int:
        """Return the sequence that a processor waits for next in a lane."""
        for k in self._lane_words(index):
            if self.words[k] == lane:
                return self.words[k + 1]
            if self.words[k] == 0:
                break
        return 0

    def sequence_word(self, index: int, lane: int) -> int:
        """Return the index of the word that holds a lane's next sequence.

        For the writer of the word: adds the lane if it is new.
        """
        for k in self._lane_words(index):
            if self.words[k] == 0:
                self.words[k + 1] = 0
                self.words[k] = lane
            if self.words[k] == lane:
                return k + 1
        raise RuntimeError(
            f"a processor resequences more than {MOST_LANES} lanes: too many paths "
            "lead to it, or workers of its sources were restarted too often"
        )

    def _lane_words(self, index: int) -> range:
        first = self.of_processor(index) + LANES
        return range(first, first + 2 * MOST_LANES, 2)

    # ---- values that kill workers

    def is_poison(self, index: int, lane: int, sequence: int) -> bool:
        """Whether a value has killed as many workers as `attempts=` allows."""
        first = self.of_processor(index) + POISON
        words = self.words
        return any(
            words[k] == lane and words[k + 1] == sequence
            for k in range(first, first + 2 * POISONS, 2)
            if words[k]
        )

    def add_poison(self, index: int, lane: int, sequence: int, count: int) -> None:
        """Mark a value, after `count` others; only the last 8 marks are kept."""
        at = self.of_processor(index) + POISON + 2 * (count % POISONS)
        self.words[at] = 0
        self.words[at + 1] = sequence
        self.words[at] = lane


# ---- runs whose program was killed


def clear(run: str, context: Context) -> None:
    """Remove every name of a run whose program has ended."""
    for name in context.names():
        if name == run or name.startswith(f"{run}."):
            with suppress(FileNotFoundError):
                os.unlink(context.join(name))


def board_names(context: Context) -> list[str]:
    """Return the names of the boards in a context: those of its runs."""
    names = set(context.names())
    return sorted(name for name in names if f"{name}.credit" in names)


def reap_dead_runs(context: Context) -> None:
    """Remove the names of every run in a context whose program has ended."""
    for run in board_names(context):
        with suppress(SegmentNotFound, LayoutError):
            board = StatusBoard.attach(run, context)
            owner, start = board.words[OWNER], board.words[OWNER_START]
            board.close()
            if owner and not ProcessIdentity(owner, start).is_alive():
                clear(run, context)
