"""What takes the results at a pipe's end: a callable, a list, a queue, a stream, a log.

Called by one thread of the program, with each result once, in order where the pipe has
one. What waits there holds the pipe up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Taker = Callable[[Any], object]


def taker_of(sink: Any) -> Taker:
    """Return the function that takes results, for what the user gave.

    Raises
    ------
    TypeError
        It is nothing that takes values.
    """
    if isinstance(sink, list):
        return sink.append
    for kind, make in _KINDS:
        if hasattr(sink, kind):
            return make(sink)
    if callable(sink):
        made: Taker = sink
        return made
    raise TypeError(
        f"sink={sink!r}: a callable, a list, a queue with put(), a Producer, a "
        "JournalWriter or a DataLogger"
    )


def _stream(producer: Any) -> Taker:
    """Send arrays into a stream; labelled ones lose their labels to the stream's."""

    def take(value: Any) -> None:
        producer.send(np.ascontiguousarray(getattr(value, "values", value)))

    return take


def _log(log: Any) -> Taker:
    """Log values as entries of source 0."""
    return lambda value: log.log(0, value)


def _queue(queue: Any) -> Taker:
    """Put values into a queue, waiting for room."""
    made: Taker = queue.put
    return made


_KINDS: tuple[tuple[str, Callable[[Any], Taker]], ...] = (
    ("send", _stream),
    ("log", _log),
    ("put", _queue),
)
