"""What takes the results at a pipe's end: a callable, a list, a stream, a log, xarray.

Called by one thread of the program, with each result once, in order where the pipe has
one. What waits there holds the pipe up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ataraxis.errors import DataOverflow
from ataraxis.pipeline.arrays import is_labelled

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
    if is_labelled(sink):
        return _array(sink)
    for kind, make in _KINDS:
        if hasattr(sink, kind):
            return make(sink)
    if callable(sink):
        made: Taker = sink
        return made
    raise TypeError(
        f"sink={sink!r}: a callable, a list, a queue with put(), a Producer, a "
        "JournalWriter, a DataLogger or a DataArray of NumPy's memory"
    )


def _stream(producer: Any) -> Taker:
    """Send arrays into a stream; labelled ones lose their labels to the stream's."""

    def take(value: Any) -> None:
        producer.send(np.ascontiguousarray(getattr(value, "values", value)))

    return take


def _array(sink: Any) -> Taker:
    """Write results into a labelled array, one behind the other along its first dim.

    One of as many dimensions is a block of rows, one of a dimension less is a row.
    """
    rows, at = sink.data, 0
    if not isinstance(rows, np.ndarray) or not rows.ndim or not rows.flags.writeable:
        raise TypeError(
            f"sink: a DataArray of {type(rows).__name__} takes no results; one of "
            "NumPy's memory that can be written, of at least one dimension, does"
        )

    def take(value: Any) -> None:
        nonlocal at
        data = np.asarray(value)
        block = data if data.ndim == rows.ndim else data[np.newaxis]
        if at + len(block) > len(rows):
            raise DataOverflow(
                f"the sink has {len(rows)} rows along {sink.dims[0]!r}, and row "
                f"{at + len(block)} came: make it longer"
            )
        rows[at : at + len(block)] = block
        at += len(block)

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
