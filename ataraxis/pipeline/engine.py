"""`Engine`: where workers run. Four calls; `Local` is the one that is always there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ataraxis.pipeline.spec import WorkerSpec


@dataclass(frozen=True)
class WorkerEvent:
    """What an engine has to tell of a worker."""

    handle: Any
    """As `Engine.spawn` returned it."""
    what: Literal["output", "message", "exit"]
    data: Any
    """Of output, the bytes and whether they are errors; of a message, its dict; of an
    exit, the exit code, negative the number of the signal that killed it."""


class Engine(Protocol):
    """Starts processes, signals them and tells what becomes of them.

    Used by one thread, the run's supervisor, but for `watch`'s ``bell``.
    """

    def hosts(self) -> Sequence[str]:
        """Return the names of the hosts there are; the first is the default."""

    def spawn(self, host: str, spec: WorkerSpec) -> Any:
        """Start a worker: a handle, hashable, that `watch` names it by.

        The process ends within 1 s of the one that has called this. Raises `OSError`
        if it cannot be started.
        """

    def signal(self, handle: Any, number: int) -> None:
        """Send a signal to a worker; nothing happens if it has ended."""

    def watch(self, timeout: float | None, bell: int) -> list[WorkerEvent]:
        """Wait until there is news, `bell` is readable, or `timeout` s have passed.

        `bell` is a descriptor; it is not read. -1: there is none any more, since a run
        has ended. What a worker has written comes before
        its exit, whole.
        """
