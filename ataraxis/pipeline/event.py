"""`Event`: something that happened in a run, as `Run.events` tells it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

What: TypeAlias = Literal[
    "spawned", "ready", "exited", "restarted", "hung", "redelivered", "dead letter",
    "corrupt", "dropped", "error", "processor finished", "stopping", "completed",
    "failed", "terminated",
]  # fmt: skip


@dataclass(frozen=True)
class Event:
    """Something that happened."""

    what: What
    time_ns: int
    """When, monotonic ns."""
    processor: str = ""
    """To whose worker; '' to the pipe."""
    worker: int = -1
    """To which of its workers, from 0; -1: to none of them."""
    text: str = ""
    """What there is to say, in a line."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, JSON-able."""
        return dataclasses.asdict(self)
