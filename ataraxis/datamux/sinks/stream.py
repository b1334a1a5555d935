"""A stream of ataraxis as a sink: samples become frames, their times device times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.datamux.block import Block
from ataraxis.datamux.description import DEVICE_UNITS, Stream
from ataraxis.datamux.end import End
from ataraxis.datamux.sinks.sink import SLICE_S, IsOver, ShortWaits
from ataraxis.errors import QueueFull
from ataraxis.labels import Labels, stamp_of
from ataraxis.shm.context import ContextLike
from ataraxis.stream import Producer
from ataraxis.stream.write_buffer import WriteBuffer


class StreamSink(ShortWaits):
    """Sends each sample as one frame, or as many as a frame of the producer holds.

    A frame's device time is the sample's time, ns; its device sequence is the device's
    counter, or else the sample's number; of a frame of several samples, those of its
    first one. Its time is when it was sent, or arrived from a live source: its last
    sample, or its first one if the labels state ``stamp_of="sample"``. The sink ends
    the producer with the stream, and does not close it.
    """

    takes_blocks = True

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._rest: Block | None = None
        # The labels of the last `lend`, and whether they fit.
        self._known: Labels | None = None
        self._is_alike = False
        # The frame that is filled in place, its samples, the stamps of its first.
        self._loan: WriteBuffer | None = None
        self._lent: NDArray[Any] | None = None
        self._filled = 0
        self._first: tuple[int, int, int | None] = (0, 0, None)
        self._is_first_stamped = stamp_of(producer.labels) != "arrival"
        if not producer.is_typed:
            raise TypeError(
                f"producer {producer.name!r} holds bytes: make it with shape= and "
                "dtype=, or with ataraxis.datamux.producer_of(stream, name)"
            )

    def lend(self, labels: Labels) -> NDArray[Any] | None:
        """Return a view of the free rows of the next frame, to be filled in place.

        Blocks of this array are not copied. None: frames do not consist of such
        samples, or no slot is free.
        """
        if labels is not self._known:
            own = self._producer.labels
            self._is_alike = own.shape[1:] == labels.shape and own.dtype == labels.dtype
            self._is_alike &= bool(own.shape)
            self._known = labels
        if not self._is_alike or not self._begin():
            return None
        assert self._lent is not None
        return self._lent[self._filled :]

    def _begin(self) -> bool:
        """Open a frame, with the samples left over; whether a slot is free."""
        if self._loan is not None:
            return True
        loan = self._producer.next_to_send(blocking=False)
        if loan is None:
            return False
        self._loan, self._lent = loan, loan.array
        rest, self._rest, self._filled = self._rest, None, 0
        if rest is not None:
            self._add(rest)
        return True

    def _add(self, block: Block) -> int:
        """Copy into the open frame; return how many samples fit."""
        assert self._lent is not None
        place = self._lent[self._filled : self._filled + len(block)]
        place[:] = block.array[: len(place)]
        self._fill(block[: len(place)])
        return len(place)

    def _fill(self, block: Block) -> None:
        """Count samples that are in the open frame; send it when it is full."""
        loan, lent = self._loan, self._lent
        assert loan is not None
        assert lent is not None
        if not self._filled:
            arrived = None if block.arrived_ns is None else int(block.arrived_ns[0])
            own = block.index.get("device_sequence")
            number = block.sequence if own is None else max(int(own[0]), 0)
            self._first = round(float(block.t[0]) * 1e9), number, arrived
        self._filled += len(block)
        if self._filled == len(lent):
            stamp, number, arrived = self._first
            if not self._is_first_stamped and block.arrived_ns is not None:
                arrived = int(block.arrived_ns[-1])
            loan.stamp(device_time=stamp, device_sequence=number, time_ns=arrived)
            self._loan = self._lent = None
            loan.send(lent.nbytes)
            self.delivered += 1

    def put(self, items: Sequence[Any], is_over: IsOver) -> None:
        """Send blocks."""
        for block in items:
            if not isinstance(block, Block):
                raise TypeError(
                    "a Producer takes blocks, transform returned "
                    f"{type(block).__name__}: return a Block, or use a queue"
                )
            if self._lent is not None and block.array.base is self._lent:
                self._fill(block)
            else:
                self._send_block(block, is_over)

    def _send_block(self, block: Block, is_over: IsOver) -> None:
        shape, labels = block.array.shape[1:], self._producer.labels
        if shape == labels.shape:
            self._send_rows(block, block.array, 1, is_over)
        elif labels.shape[1:] == shape:
            size = labels.shape[0]
            if self._rest is not None:
                self._begin()
            if self._lent is not None:  # complete the open frame first
                block = block[self._add(block) :]
            if self._rest is not None:
                block = self._rest.followed_by(block)
            whole, self._rest = len(block) // size * size, None
            rows = block.array[:whole].reshape(whole // size, size, *shape)
            self._send_rows(block, rows, size, is_over)
            if whole < len(block):
                if self._begin():
                    self._add(block[whole:])
                else:
                    self._rest = block[whole:].copy()
        else:
            raise ValueError(
                f"producer {self._producer.name!r} has frames of {labels.shape}, the "
                f"stream's samples are {shape}: use "
                "ataraxis.datamux.producer_of(stream, name)"
            )

    def _send_rows(
        self, block: Block, rows: NDArray[Any], size: int, is_over: IsOver
    ) -> None:
        """Send each row as a frame, of `size` samples of the block."""
        rows = np.ascontiguousarray(rows, self._producer.labels.dtype)
        n, at = len(rows), 0
        device = np.empty((n, 2), np.int64)
        device[:, 0] = block.time_ns[: n * size : size]
        device[:, 1] = _numbers(block)[: n * size : size]
        times = block.arrived_ns
        if times is not None:
            at_first = 0 if self._is_first_stamped else size - 1
            times = np.ascontiguousarray(times[at_first : n * size : size])
        while at < n:  # try before asking is_over: send what was read if possible
            try:
                sent = self._producer.send_block(
                    rows[at:],
                    time_ns=None if times is None else times[at:],
                    device=device[at:],
                    timeout=SLICE_S,
                )
                self.dropped += n - at - sent
                at = n
            except TimeoutError as late:  # a lossless reader is behind
                sent = getattr(late, "count", 0)
                at += sent
                if is_over():
                    self.dropped += n - at
                    at = n
            except QueueFull as full:
                self.delivered += full.count
                raise
            self.delivered += sent

    def finish(self, end: End, is_over: IsOver) -> End:
        """End the producer; samples of an incomplete frame count as dropped."""
        self.dropped += self._filled if self._loan is not None else 0
        if self._rest is not None:
            self.dropped += len(self._rest)
        self._loan = self._lent = None
        self._producer.end()
        return end


def _numbers(block: Block) -> NDArray[np.int64]:
    """Return the device's counter of each sample, or else its number."""
    found = block.index.get("device_sequence")
    if found is not None and found.dtype.kind in "iu" and found.min(initial=0) >= 0:
        return found
    return np.arange(block.sequence, block.sequence + len(block))


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
        Description of the samples.
    name : str
        Name of the stream in its context.
    samples : int, optional
        Samples per frame, as first dimension ``time``; by default one, without it. The
        attribute ``rate_hz`` is then of frames, beside ``sample_rate_hz``.
    context : Context, str, Path or None
        Directory of the stream.
    **options
        As `Producer` takes them: ``sync=True``, ``buffer_count=`` and so on.

    Returns
    -------
    Producer
        A sink. It ends with the stream; the caller closes it.
    """
    labels = stream.labels()
    shape, dims = labels.shape, labels.dims
    attrs = {**labels.attrs, DEVICE_UNITS: "ns"}
    if samples is not None:
        shape, dims = (samples, *shape), ("time", *dims)
        if stream.rate_hz:
            attrs["sample_rate_hz"] = stream.rate_hz
            attrs["rate_hz"] = stream.rate_hz / samples
    labels = Labels(labels.dtype, shape, dims, attrs=attrs, coords=labels.coords)
    return producer_with(labels, name, context=context, **options)


def producer_with(labels: Labels, name: str, **options: Any) -> Producer:
    """Make a `Producer` whose frames have these labels."""
    coords = {key: (c.dims, c.values, c.attrs) for key, c in labels.coords.items()}
    return Producer(
        name, shape=labels.shape, dtype=labels.dtype, dims=labels.dims, coords=coords,
        attrs=labels.attrs, **options,
    )  # fmt: skip
