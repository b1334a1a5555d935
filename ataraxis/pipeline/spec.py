"""What a worker receives when it starts, in a form that travels to its process."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

from ataraxis.pipeline.function import Code
from ataraxis.pipeline.partition import Key

WINDOW = 128
"""Size of the ordering window: how many numbers of a lane may be out of order."""


@dataclass(frozen=True)
class Target:
    """The input queues of a processor, for the processes that put into them."""

    name: str
    """Name of the processor; '' is the pipe's end."""
    index: int
    """Index of the processor; of the pipe's end, the number of processors."""
    queues: tuple[str, ...]
    """One queue for all workers, or one each."""
    on_full: str = "block"
    allow_pickle: bool = False
    overlap: int = 0
    split: bool = False
    key: Key | None = None
    """Selects the queue of a value."""
    ends: tuple[tuple[int, tuple[int, ...]], ...] = ()
    """Where values that enter here are resequenced; see `graph.ordering_windows`."""
    is_end: bool = False
    marks_calls: bool = False
    """Whether its workers emit themselves, and must see which values are calls."""
    workers: int = 1


@dataclass(frozen=True)
class WorkerSpec:
    """Everything that a worker has to know."""

    run: str
    """Name of the run, and of its status board."""
    context: str
    processor: str
    index: int
    worker: int
    """Which of the processor's workers, from 0."""
    row: int
    """Its row of the board."""
    code: Code
    config: dict[str, Any]
    inbox: str
    """Name of its input queue; '': none."""
    targets: tuple[Target, ...]
    ordered_parents: tuple[int, ...] = ()
    """Parents whose frames it puts in order."""
    tells_gaps: bool = False
    """Whether it sends a gap for a value without a result."""
    fills_gaps: bool = False
    """Whether it also sends gaps for values that were dropped before it."""
    has_sink: bool = False
    """Whether results are sent to the pipe's end although no caller waits for them."""
    max_batch: int = 1
    max_wait: float = 0.0
    on_error: str = "fail"
    attempts: int = 3
    allow_pickle: bool = False
    dead_letters: str = ""
    """Directory of the dead letters."""
    gpu: str | None = None
    """Its GPU, as CUDA_VISIBLE_DEVICES names it."""
    threads: int | None = 1
    generation: int = 0
    """How often the worker was started before."""
    host: str | None = None

    def to_bytes(self) -> bytes:
        """Write it as a pickle, for a process that this program starts."""
        return pickle.dumps(self)

    @staticmethod
    def from_bytes(data: bytes) -> WorkerSpec:
        """Read what `to_bytes` wrote, in the process that was started."""
        spec = pickle.loads(data)
        assert isinstance(spec, WorkerSpec)
        return spec
