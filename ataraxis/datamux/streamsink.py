"""A stream of ataraxis as a sink: samples become frames, their times device times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ataraxis.datamux.block import Block, joined
from ataraxis.datamux.description import Stream
from ataraxis.datamux.end import End
from ataraxis.datamux.sink import SLICE_S, IsOver
from ataraxis.shm.context import ContextLike
from ataraxis.stream import Producer

_PATIENCE_S = 0.5


class StreamSink:
    """Sends each sample as one frame, or so many as a frame of the producer holds.

    A frame's device time is the sample's own time, ns; its device sequence is the
    sample's number; its time is when it was sent, or arrived here from a live source.
    The producer is ended with the stream, and closed by whoever made it.
    """

    takes_blocks = True

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self.delivered = 0
        self.dropped = 0
        self._rest: Block | None = None
        if not producer.is_typed:
            raise TypeError(
                f"producer {producer.name!r} holds bytes: make it with shape= and "
                "dtype=, or with ataraxis.datamux.producer_of(stream, name)"
            )

    def put(self, items: Sequence[Any], is_over: IsOver) -> None:
        """Send blocks."""
        for block in items:
            if not isinstance(block, Block):
                raise TypeError(
                    "a Producer takes blocks and transform gave "
                    f"{type(block).__name__}: return a Block, or use a queue"
                )
            self._send_block(block, is_over)

    def _send_block(self, block: Block, is_over: IsOver) -> None:
        array, labels = block.array, self._producer.labels
        stamps, arrived = block.time_ns.tolist(), block.arrived_ns
        if array.shape[1:] == labels.shape:
            times = None if arrived is None else arrived.tolist()
            rows = np.ascontiguousarray(array, labels.dtype)
            for i, stamp in enumerate(stamps):
                sent_ns = None if times is None else times[i]
                number = block.sequence + i
                if not self._send(rows[i], stamp, number, sent_ns, is_over):
                    return
        elif labels.shape[1:] == array.shape[1:]:
            self._send_chunks(block, labels.shape[0], is_over)
        else:
            raise ValueError(
                f"producer {self._producer.name!r} has frames of {labels.shape}, the "
                f"stream's samples are {array.shape[1:]}: use "
                "ataraxis.datamux.producer_of(stream, name)"
            )

    def _send_chunks(self, block: Block, size: int, is_over: IsOver) -> None:
        """Send frames of `size` samples; the rest waits for the next block."""
        if self._rest is not None:
            block = joined(self._rest, block)
        stamps, array = block.time_ns, block.array
        whole = len(block) // size * size
        dtype = self._producer.labels.dtype
        for at in range(0, whole, size):
            rows = np.ascontiguousarray(array[at : at + size], dtype)
            sent_ns = None if block.arrived_ns is None else int(block.arrived_ns[at])
            number = block.sequence + at
            if not self._send(rows, int(stamps[at]), number, sent_ns, is_over):
                return
        self._rest = block[whole:] if whole < len(block) else None

    def _send(
        self, rows: Any, stamp: int, number: int, sent_ns: int | None, is_over: IsOver
    ) -> bool:
        while not is_over():
            try:
                is_sent = self._producer.send(
                    rows,
                    timeout=SLICE_S,
                    device_time=stamp,
                    device_sequence=number,
                    time_ns=sent_ns,
                )
            except TimeoutError:
                continue  # a reader that gates is behind
            self.delivered += is_sent
            self.dropped += not is_sent
            return True
        return False

    def finish(self, end: End, is_over: IsOver) -> End:
        """End the producer; samples that fill no whole frame count as dropped."""
        if self._rest is not None:
            self.dropped += len(self._rest)
        self._producer.end()
        return end

    def wake(self) -> None:
        """Waits here are short."""


def producer_of(
    stream: Stream,
    name: str,
    *,
    samples: int | None = None,
    context: ContextLike = None,
    **options: Any,
) -> Producer:
    """Make a `Producer` with a stream's labels: shape, dtype, channels, units, rate.

    Parameters
    ----------
    stream : Stream
        What it will carry.
    name : str
        Name of the stream in its context.
    samples : int, optional
        Samples a frame, for a first dimension ``time``; one, without it, if not given.
    context : Context, str, Path or None
        The directory it lives in.
    **options
        As `Producer` takes them: ``sync=True``, ``buffer_count=`` and so on.

    Returns
    -------
    Producer
        To be given as a sink. It ends with the stream; close it when you are done.
    """
    labels = stream.labels()
    shape, dims, attrs = labels.shape, labels.dims, dict(labels.attrs)
    if samples is not None:
        shape, dims = (samples, *shape), ("time", *dims)
        if stream.rate_hz:
            attrs["sample_rate_hz"] = stream.rate_hz
            attrs["rate_hz"] = stream.rate_hz / samples
    coords = {name: (c.dims, c.values, c.attrs) for name, c in labels.coords.items()}
    return Producer(
        name, shape=shape, dtype=labels.dtype, dims=dims, coords=coords, attrs=attrs,
        context=context, **options,
    )  # fmt: skip
