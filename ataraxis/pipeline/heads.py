"""What a pipe is fed with: values one by one, of anything that has some."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ataraxis.errors import EndOfStream

_ROWS = 1024
_SLICE_S = 0.25
Value = tuple[Any, int | None]


def values_of(source: Any, is_over: Callable[[], bool]) -> Iterator[Value]:
    """Go through a source: each value, and its time, ns, if it has one.

    Parameters
    ----------
    source : iterable, Consumer or datamux Source
        Of a stream, a copy of each frame's array; of a live source, blocks of shape
        (n, *labels.shape) as they come.
    is_over : callable
        Whether the pipe is being stopped.

    Raises
    ------
    TypeError
        It is nothing that has values.
    """
    if hasattr(source, "read_into"):
        return _blocks(source, is_over)
    if hasattr(source, "receive"):
        return _frames(source, is_over)
    if not isinstance(source, Iterable):
        raise TypeError(
            f"source={source!r}: an iterable, a Consumer, or a live source of datamux"
        )
    return ((value, None) for value in source)


def _frames(consumer: Any, is_over: Callable[[], bool]) -> Iterator[Value]:
    while not is_over():
        try:
            frame = consumer.receive(timeout=_SLICE_S)
        except TimeoutError:  # a pause of the producer's
            continue
        if frame is None:
            return
        with frame:
            value, time_ns = np.array(frame.array), frame.time_ns
        yield value, time_ns


def _blocks(source: Any, is_over: Callable[[], bool]) -> Iterator[Value]:
    from ataraxis.datamux.source import STAMP

    source.open()
    try:
        labels = source.labels
        stamps = np.zeros(_ROWS, STAMP)
        out = np.zeros((_ROWS, *labels.shape), labels.dtype)
        while not is_over():
            try:
                n = source.read_into(out, stamps, timeout=_SLICE_S)
            except EndOfStream:
                return
            if n:
                yield out[:n].copy(), int(stamps["time_ns"][0])
    finally:
        source.close()
