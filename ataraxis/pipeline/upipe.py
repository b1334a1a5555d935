"""What programs of uPipe see of a pipe: its queues with their counters, its sink.

``types`` of `ataraxis.pipeline` is this module.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from ataraxis.frame import DType
from ataraxis.pipeline.settings import APIProcSettings

__all__ = ["APIProcSettings", "DType", "EdgeQueue", "ReadyResult", "SinkQueue"]


@dataclass(frozen=True)
class EdgeQueue:
    """A queue between two processors, as ``in_qs`` and ``out_qs`` of a worker show it.

    Its counters are of the moment when they are asked for.
    """

    name: str
    count: Callable[[], tuple[int, int]]
    """Returns how many frames were got from it, and how many wait in it."""

    @property
    def exe_counter(self) -> int:
        """How many frames were got from it, by all workers of the processor."""
        return self.count()[0]

    @property
    def alloc_counter(self) -> int:
        """How many frames were put into it."""
        return sum(self.count())

    @property
    def pending_counter(self) -> int:
        """How many frames wait in it."""
        return self.count()[1]


class SinkQueue:
    """What comes out of a pipe, and has no caller who waits for it.

    Parameters
    ----------
    results : deque
        What came out and was not taken yet.
    """

    def __init__(self, results: deque[Any]) -> None:
        self._results = results

    async def get(self) -> Any:
        """Return the oldest result, or None if there is none now."""
        return self._results.popleft() if self._results else None

    @property
    def pending_counter(self) -> int:
        """How many results wait."""
        return len(self._results)


class ReadyResult:
    """Something that is done already: it may be awaited, and need not be."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield
