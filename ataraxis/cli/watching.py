"""What ``ataraxis top`` shows: one reading after the other of streams and pipes."""

from __future__ import annotations

import dataclasses
from typing import Any

from rich.console import Group, RenderableType

from ataraxis import screen
from ataraxis.pipeline.glance import glance
from ataraxis.stream.meter import Meter


class Watch:
    """Reads a context again and again.

    Parameters
    ----------
    context : str or None
        The directory.
    interval : float
        Time between two looks, s.
    """

    def __init__(self, context: str | None, interval: float) -> None:
        self._context, self._interval = context, interval
        self._meter = Meter(context)
        self._meter.read()
        self._before = glance(context)

    def look(self) -> RenderableType:
        """Lay out what there is now."""
        reading, found = screen.top(self._meter.read()), glance(self._context)
        before, self._before = self._before, found
        if not found:
            return reading
        return Group(reading, screen.pipes(found, before, self._interval))

    def as_dict(self) -> dict[str, Any]:
        """Return what there is now, for JSON."""
        workers = [dataclasses.asdict(seen) for seen in glance(self._context)]
        return {**self._meter.read().as_dict(), "pipes": workers}
