"""A live stream of a server, read by its caller."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np

from ataraxis.clock import now_ns
from ataraxis.datamux.block import Block
from ataraxis.datamux.catalog import pick
from ataraxis.datamux.description import Stream, labels_of
from ataraxis.datamux.end import End
from ataraxis.datamux.source import Array, check_out
from ataraxis.datamux.task import StreamAck
from ataraxis.errors import EndOfStream, NotConnectedError, SourceLost
from ataraxis.labels import Labels

_BLOCKS = 16


class RemoteSource:
    """A `Source` on another machine; see `ataraxis.datamux.source.Source`.

    A sample's time is its arrival here; its device time that of the source there; its
    device sequence the counter of the source, or its number in the stream there.

    `listed` requests the descriptions of the node's streams, `start` starts the stream
    into a sink; both return futures.
    """

    def __init__(
        self,
        stream_id: str,
        node_id: str,
        listed: Callable[[], Future[list[Stream]]],
        start: Callable[[Any], Future[StreamAck]],
    ) -> None:
        self._names = stream_id, node_id
        self._listed, self._start = listed, start
        self._stream: Stream | None = None
        self._labels: Labels | None = None
        self._ack: StreamAck | None = None
        self._sink: queue.Queue[Any] = queue.Queue(_BLOCKS)
        self._rest: Block | None = None
        self._end: End | None = None
        self.lost = 0

    @property
    def stream(self) -> Stream:
        """Description by the server."""
        if self._stream is None:
            raise NotConnectedError(
                f"stream {self._names[0]!r}: open() the source first"
            )
        return self._stream

    @property
    def labels(self) -> Labels:
        """Labels of one sample."""
        if self._labels is None:
            self._labels = labels_of(self.stream)
        return self._labels

    def open(self) -> None:
        """Start the stream on the server; waits for it."""
        stream_id, node_id = self._names
        found = {stream.id: stream for stream in self._listed().result()}
        self._stream = pick(found, stream_id, "stream", f"node {node_id!r} there")
        self._labels = self._rest = self._end = None
        self._sink = queue.Queue(_BLOCKS)
        self._ack = self._start(self._sink).result()

    def read_into(
        self, out: Array, stamps: Array | None = None, *, timeout: float | None = None
    ) -> int:
        """Fill rows with the next samples; see `Source.read_into`."""
        if self._ack is None:
            raise NotConnectedError(
                f"stream {self._names[0]!r}: open() the source first"
            )
        check_out(out, self.labels)
        block = self._next(timeout)
        if block is None:
            return 0
        count = min(len(out), len(block))
        self._rest = block[count:] if count < len(block) else None
        part = block[:count]
        out[:count] = part.array
        if stamps is not None:
            numbers = part.index.get("device_sequence")
            if numbers is None:
                numbers = np.arange(part.sequence, part.sequence + count)
            stamps["time_ns"][:count] = now_ns()
            stamps["device_s"][:count] = part.t
            stamps["device_sequence"][:count] = numbers
        return count

    def _next(self, timeout: float | None) -> Block | None:
        if self._rest is not None:
            return self._rest
        while self._end is None:
            try:
                item = self._sink.get(timeout=timeout)
            except queue.Empty:
                return None
            if not isinstance(item, End):
                block: Block = item
                return block
            self._end = item
            if self._ack is not None and self._ack.task is not None:
                self.lost = self._ack.task.statistics().lost
        if self._end.reason in ("completed", "stopped"):
            raise EndOfStream(f"stream {self._names[0]!r}: {self._end.reason}")
        reason = self._end.error or self._end.reason
        raise SourceLost(f"stream {self._names[0]!r}: {reason}")

    def close(self) -> None:
        """Stop the stream on the server; a second call does nothing."""
        ack, self._ack = self._ack, None
        if ack is None or ack.task is None:
            return
        # The task's thread may wait for room in the sink.
        while not ack.task.stop(0):
            try:
                self._sink.get(timeout=0.02)
            except queue.Empty:
                continue
