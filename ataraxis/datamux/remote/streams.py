"""The streams of one client on a server: started, steered, confirmed, stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ataraxis.datamux.ack import StreamAck
from ataraxis.datamux.api import API
from ataraxis.datamux.remote.calls import (
    LISTS,
    STARTS,
    STEERS,
    checked_arguments,
    listed,
    start,
    statistics,
)
from ataraxis.datamux.remote.codec import Codec, Message
from ataraxis.datamux.remote.limits import Limits
from ataraxis.datamux.remote.outlet import Outlet
from ataraxis.datamux.remote.ring import Room
from ataraxis.datamux.remote.transforms import Transforms
from ataraxis.errors import BadMessage, RemoteError, SourceNotFound

_NUMBERS = 2**32
_WINDOW = 8 * 2**20


class Streams:
    """Starts the streams of a client and finds them by the numbers it gave them.

    `answer` runs in a pool's thread, one call at a time; the rest in the loop.

    Parameters
    ----------
    api : API
        Who does the work.
    codec : Codec
        How blocks travel.
    limits : Limits
        What a client may take.
    transforms : Transforms
        What may be done to blocks here.
    tell : callable
        Called when there is something to send.
    """

    def __init__(
        self,
        api: API,
        codec: Codec,
        limits: Limits,
        transforms: Transforms,
        tell: Callable[[], None],
    ) -> None:
        self._api = api
        self._codec = codec
        self._limits = limits
        self._transforms = transforms
        self._tell = tell
        self._room = Room(limits.ring_bytes)
        self._window = min(_WINDOW, limits.ring_bytes)
        self._outlets: dict[int, Outlet] = {}
        self._acks: dict[int, StreamAck] = {}
        self._lock = threading.Lock()
        self._is_closed = False

    # ---- in the loop

    def outlets(self) -> list[Outlet]:
        """Return what there is to send from."""
        with self._lock:
            return [*self._outlets.values()]

    def confirm(self, pairs: Any) -> None:
        """Forget what the client has read: pairs of stream and next message.

        Raises
        ------
        BadMessage
            They are no such pairs.
        """
        for number, until in _pairs(pairs):
            outlet = self._outlets.get(number)
            if outlet is not None:
                outlet.confirm(until)
                if outlet.is_over:
                    self._stop(number, timeout=0)  # one that was evicted still runs

    def rewind(self, pairs: Any) -> list[int]:
        """Go back to what a client that comes back needs next; the streams it has."""
        asked = dict(_pairs(pairs))
        for outlet in self.outlets():
            if outlet.number in asked:
                outlet.rewind(asked[outlet.number])
            else:
                self._stop(outlet.number, timeout=0)
        return [outlet.number for outlet in self.outlets()]

    @property
    def is_empty(self) -> bool:
        """Whether there are none."""
        return not self._outlets

    @property
    def kept_bytes(self) -> int:
        """Bytes that are kept until the client has read them."""
        return self._room.used

    def _forget(self, number: int) -> StreamAck | None:
        with self._lock:
            self._outlets.pop(number, None)
            ack = self._acks.pop(number, None)
        if ack is not None and ack.randseq is not None:
            self._api.forget(ack.randseq)
        return ack

    # ---- in a thread of the pool

    def answer(self, call: str, number: Any, given: Any) -> Any:
        """Do what a client asks; the answer, of plain values."""
        if call in LISTS:
            return listed(self._api, call, given)
        if type(number) is not int or not 0 < number < _NUMBERS:
            raise BadMessage(f"{call}: stream {str(number)[:40]!r}: expected a number")
        if call in STARTS:
            return self._start(call, number, given)
        if call == "stop":
            self._stop(number)
            return None
        takes, steer = STEERS[call]
        arguments = checked_arguments(call, takes, given)
        if len(arguments) < len(takes):
            raise BadMessage(f"{call} needs {[*takes]}")
        task = self._acks[number].task if number in self._acks else None
        if task is None:
            raise SourceNotFound(f"{call}: there is no stream {number}")
        return steer(task, arguments)

    def _start(self, call: str, number: int, given: Any) -> Message:
        limits = self._limits
        arguments = checked_arguments(call, STARTS[call], given, limits.block_samples)
        if number in self._acks:
            return self._started(number)  # asked again, by a client that came back
        if len(self._outlets) >= limits.streams:
            raise RemoteError(
                f"{len(self._outlets)} streams run for this client, the most it may "
                "have: stop one"
            )
        transform = timeline = None
        if "transform" in arguments:
            transform = self._transforms.find(arguments["transform"])
        if arguments.get("timeline") is not None:
            shared = self._acks.get(arguments["timeline"])
            if shared is None or shared.task is None or shared.task.timeline is None:
                raise SourceNotFound("timeline: of a stream that is not there any more")
            timeline = shared.task.timeline
        outlet = Outlet(
            number, self._codec, self._room, self._tell,
            window=self._window,
            is_live=call == "proxy_live_stream",
        )  # fmt: skip
        ack = start(self._api, call, arguments, outlet, transform, timeline)
        task = ack.task
        assert task is not None
        outlet.details = lambda: {"statistics": statistics(task)}
        with self._lock:
            is_late = self._is_closed
            self._outlets[number], self._acks[number] = outlet, ack
        if call == "publish_collection_stream":
            task.call_when_done(lambda end: outlet.finish(end, lambda: True))
        if is_late:
            self._stop(number)
        self._tell()
        return self._started(number)

    def _started(self, number: int) -> Message:
        task = self._acks[number].task
        is_paced = task is not None and task.timeline is not None
        return {"is_paced": is_paced, "window": self._window}

    def _stop(self, number: int, timeout: float = 5.0) -> None:
        outlet = self._outlets.get(number)
        if outlet is not None:
            outlet.close()
        ack = self._forget(number)
        if ack is not None and ack.task is not None:
            ack.task.stop(timeout)

    def close(self) -> None:
        """Stop all of them."""
        with self._lock:
            self._is_closed = True
            acks, outlets = [*self._acks.values()], [*self._outlets.values()]
        for outlet in outlets:
            outlet.close()
        for ack in acks:
            if ack.task is not None:
                ack.task.stop(0)
        for number in [*self._acks]:
            self._stop(number)


def _pairs(pairs: Any) -> list[tuple[int, int]]:
    if not isinstance(pairs, list):
        raise BadMessage("streams: expected pairs of numbers")
    found = []
    for pair in pairs:
        is_pair = isinstance(pair, (list, tuple)) and len(pair) == 2
        if not is_pair or any(type(n) is not int or n < 0 for n in pair):
            raise BadMessage("streams: expected pairs of numbers")
        found.append((pair[0], pair[1]))
    return found
