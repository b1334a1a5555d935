"""What a worker is told when it starts, in a form that travels to another process."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from typing import Any

from ataraxis.pipeline.function import Code
from ataraxis.pipeline.partition import Key

WINDOW = 128
"""How many numbers of a lane may be on their way to whoever puts them in order."""


@dataclass(frozen=True)
class Target:
    """An input queue, or the queues of several workers, that a processor puts into."""

    name: str
    """The processor behind it; '' is the pipe's own end."""
    index: int
    """That processor's index; of the pipe's end, the number of processors."""
    queues: tuple[str, ...]
    on_full: str = "block"
    allow_pickle: bool = False
    overlap: int = 0
    split: bool = False
    key: Key | None = None
    """What tells which of the queues a value goes into."""
    ends: tuple[tuple[int, tuple[int, ...]], ...] = ()
    """Who, further on, puts in order what enters here, by index, and through which
    processors it goes; see `ataraxis.pipeline.graph`."""
    is_end: bool = False
    marks_calls: bool = False
    """Whether its workers emit themselves, and must be told what a caller waits for."""


@dataclass(frozen=True)
class WorkerSpec:
    """Everything a worker has to know."""

    run: str
    """Name of the run; its board has that name."""
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
    targets: tuple[Target, ...]
    resequences: bool = False
    slots: int = 0
    """Slots of the inbox."""
    joins: tuple[tuple[int, int], ...] = ()
    """Parents that split, and how many parts they make."""
    tells_gaps: bool = False
    """Whether a value that nothing came of is told to those behind."""
    fills: bool = False
    """Whether it tells those behind also of the numbers that were dropped before it."""
    has_taker: bool = False
    """Whether somebody takes what comes out at the pipe's end."""
    max_batch: int = 1
    max_wait: float = 0.0
    on_error: str = "fail"
    attempts: int = 3
    allow_pickle: bool = False
    letters: str = ""
    """Directory of the dead letters."""
    threads: int | None = 1
    generation: int = 0
    """How often the worker was started before."""
    host: str | None = None
    ordered_parents: tuple[int, ...] = field(default=())

    def to_bytes(self) -> bytes:
        """Write it, for a process of our own."""
        return pickle.dumps(self)

    @staticmethod
    def from_bytes(data: bytes) -> WorkerSpec:
        """Read what `to_bytes` wrote, in a process that our own program started."""
        spec = pickle.loads(data)
        assert isinstance(spec, WorkerSpec)
        return spec
