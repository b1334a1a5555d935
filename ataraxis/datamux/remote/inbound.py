"""A stream from another machine as the feed of a task here."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np

from ataraxis.clock import now_ns
from ataraxis.datamux.block import Block
from ataraxis.datamux.catalog import pick
from ataraxis.datamux.description import Stream, labels_of
from ataraxis.datamux.end import End
from ataraxis.datamux.remote.codec import Codec, Message, whole
from ataraxis.datamux.remote.layout import Layout, unpacked_error
from ataraxis.datamux.source import Array, check_out
from ataraxis.datamux.statistics import Lateness, LatenessStatistics
from ataraxis.datamux.task import StreamAck
from ataraxis.datamux.timeline import Timeline
from ataraxis.errors import (
    BadMessage,
    EndOfStream,
    NotConnectedError,
    RemoteError,
    SourceLost,
)
from ataraxis.labels import Labels

_SLICE_S = 0.5
_CONFIRM_BYTES = 2**21


class Inlet:
    """Takes messages in the connection's thread, yields blocks in the task's.

    The server bounds unread data: it sends at most a window beyond what is confirmed,
    and a block is confirmed once the task's sink has it. `confirm` is called when read
    blocks should be confirmed, `release` when reading has ended, and `ask` for the
    statistics of the stream, which it returns, or None.
    """

    def __init__(
        self,
        number: int,
        codec: Codec,
        confirm: Callable[[Inlet, bool], None],
        release: Callable[[Inlet], None],
        ask: Callable[[Inlet], Message | None],
    ) -> None:
        self.number = number
        self.timeline: Timeline | None = None
        self.seek: Callable[[float], None] | None = None
        """Seeks in a replay."""
        self.next = 0
        """Number of the next message from the server."""
        self.read = 0
        """Number of the next message that the task will read."""
        self.confirm_bytes = _CONFIRM_BYTES
        """Bytes read before they are confirmed at once, not a little later."""
        self.is_started = False
        """Whether the server has started the stream."""
        self.is_ended = False
        """Whether the last message has arrived."""
        self.reconnects: list[str] = []
        """The reason of each reconnection."""
        self._codec = codec
        self._confirm = confirm
        self._release = release
        self._ask = ask
        self._inbox: deque[tuple[Message, int]] = deque()
        self._lock = threading.RLock()  # entered without Python's Condition
        self._arrived = threading.Condition(self._lock)
        self._failure: Exception | None = None
        self._statistics: Message = {}

    # ---- in the connection's thread

    def push(self, message: Message, nbytes: int) -> None:
        """Take a message, unless it is a duplicate; `BadMessage` if one is missing."""
        number = whole(message, "sequence")
        if number < self.next:
            return
        if number > self.next:
            raise BadMessage(f"expected message {self.next}, got {number}")
        with self._lock:
            self.next += 1
            self.is_ended = self.is_ended or message["op"] == "end"
            self._inbox.append((message, nbytes))
            self._arrived.notify()

    def fail(self, error: Exception) -> None:
        """End the stream after the messages that have arrived."""
        with self._lock:
            if not self.is_ended:
                self._failure = error
            self._arrived.notify()

    # ---- in the task's thread

    def blocks(self, is_over: Callable[[], bool]) -> Iterator[Block]:
        """Yield blocks as they come, until the end."""
        layout: Layout | None = None
        unconfirmed = 0
        try:
            while (found := self._next(is_over)) is not None:
                message, nbytes = found
                if message["op"] == "end":
                    self._end(message)
                    return
                if message["op"] == "labels":
                    layout = Layout.unpack(message)
                elif layout is None:
                    raise BadMessage("a block came before its labels")
                else:
                    first, arrays = self._codec.arrays(message, layout.columns)
                    yield layout.block(first, arrays)
                self.read += 1
                unconfirmed += nbytes
                is_urgent = unconfirmed >= self.confirm_bytes
                unconfirmed = 0 if is_urgent else unconfirmed
                self._confirm(self, is_urgent)
        finally:
            self._release(self)

    def _next(self, is_over: Callable[[], bool]) -> tuple[Message, int] | None:
        with self._lock:
            while not is_over():
                if self._inbox:
                    return self._inbox.popleft()
                if self._failure is not None:
                    raise SourceLost(str(self._failure)) from self._failure
                self._arrived.wait(_SLICE_S)
        return None

    def _end(self, message: Message) -> None:
        self.read += 1
        found = message.get("statistics")
        self._statistics = found if isinstance(found, dict) else {}
        reason, error = message.get("reason"), message.get("error")
        if reason == "completed":
            return
        if reason == "failed" and error is not None:
            raise unpacked_error(error)
        cause = unpacked_error(error) if error else RemoteError("the server stopped it")
        raise SourceLost(str(cause)) from cause

    def wake(self) -> None:
        """Make a wait check whether it is over."""
        with self._lock:
            self._arrived.notify_all()

    # ---- from any thread

    def _report(self) -> Message:
        if not self._statistics and not self.is_ended:
            return self._ask(self) or {}
        return self._statistics

    def lateness(self) -> LatenessStatistics:
        """Return how late blocks were on the server."""
        found = self._report().get("lateness")
        if not isinstance(found, dict):
            return Lateness().summary()
        values: dict[str, Any] = {
            k: float("inf") if v is None else v for k, v in found.items()
        }
        return LatenessStatistics(**values)

    def losses(self) -> tuple[int, tuple[str, ...]]:
        """Return samples lost at the source, and the reasons of reopenings."""
        report = self._report()
        there = [str(reason) for reason in report.get("reconnects", [])]
        return int(report.get("lost", 0)), (*there, *self.reconnects)


# ---- A live stream of a server, read by its caller

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
