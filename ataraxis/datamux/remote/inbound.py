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
    """Takes messages in the connection's thread, gives blocks in the task's.

    What was not read yet is bounded by the server: it sends no more than a window
    beyond what is confirmed, and a block is confirmed once the task's sink has it.

    Parameters
    ----------
    number : int
        Of the stream.
    codec : Codec
        How blocks travel.
    confirm : callable
        Called with the inlet when it is time to say what was read.
    release : callable
        Called with the inlet once nobody reads any more.
    ask : callable
        Asks the server for the stream's statistics; None if it cannot.
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
        """Goes to another place, of a replay."""
        self.next = 0
        """Number of the next message from the server."""
        self.read = 0
        """Number of the next message that the task will read."""
        self.confirm_bytes = _CONFIRM_BYTES
        """How much is read before that is said at once, and not a little later."""
        self.is_started = False
        """Whether the server has said that it runs."""
        self.is_ended = False
        """Whether its last message is here."""
        self.reconnects: list[str] = []
        """Why the connection was made again, each time."""
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
        """Take a message, unless it came before.

        Raises
        ------
        BadMessage
            One is missing in between.
        """
        number = whole(message, "sequence")
        if number < self.next:
            return
        if number > self.next:
            raise BadMessage(f"message {number} came, {self.next} was expected")
        with self._lock:
            self.next += 1
            self.is_ended = self.is_ended or message["op"] == "end"
            self._inbox.append((message, nbytes))
            self._arrived.notify()

    def fail(self, error: Exception) -> None:
        """End it after what is here: nothing more will come."""
        with self._lock:
            if not self.is_ended:
                self._failure = error
            self._arrived.notify()

    # ---- in the task's thread

    def blocks(self, is_over: Callable[[], bool]) -> Iterator[Block]:
        """Give blocks as they come, until the end."""
        layout: Layout | None = None
        unsaid = 0
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
                unsaid += nbytes
                is_urgent = unsaid >= self.confirm_bytes
                unsaid = 0 if is_urgent else unsaid
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
        told = unpacked_error(error) if error else RemoteError("the server stopped it")
        raise SourceLost(str(told)) from told

    def wake(self) -> None:
        """Make a wait look whether it is over."""
        with self._lock:
            self._arrived.notify_all()

    # ---- for those who have the task

    def _told(self) -> Message:
        if not self._statistics and not self.is_ended:
            return self._ask(self) or {}
        return self._statistics

    def lateness(self) -> LatenessStatistics:
        """Return how late blocks were, at the server."""
        found = self._told().get("lateness")
        if not isinstance(found, dict):
            return Lateness().summary()
        values: dict[str, Any] = {
            k: float("inf") if v is None else v for k, v in found.items()
        }
        return LatenessStatistics(**values)

    def losses(self) -> tuple[int, tuple[str, ...]]:
        """Return samples lost at the source, and why anything was opened again."""
        told = self._told()
        there = [str(reason) for reason in told.get("reconnects", [])]
        return int(told.get("lost", 0)), (*there, *self.reconnects)
