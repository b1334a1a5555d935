"""A stream from another machine as the feed of a task here."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from ataraxis.datamux.block import Block
from ataraxis.datamux.remote.codec import Codec, Message, whole
from ataraxis.datamux.remote.layout import Layout, unpacked_error
from ataraxis.datamux.statistics import Lateness, LatenessStatistics
from ataraxis.datamux.timeline import Timeline
from ataraxis.errors import BadMessage, RemoteError, SourceLost

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
