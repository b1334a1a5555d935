"""One client of a server: its requests, and its current connection."""

from __future__ import annotations

import asyncio
import importlib.metadata
import math
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from typing import Any

from ataraxis.clock import now_ns
from ataraxis.config.limits import Limits
from ataraxis.datamux.api import API
from ataraxis.datamux.block import Block
from ataraxis.datamux.catalog import pick
from ataraxis.datamux.description import Stream
from ataraxis.datamux.price import Account, Bill, Ledger, Price, charge
from ataraxis.datamux.remote.codec import Codec, Message, whole
from ataraxis.datamux.remote.layout import (
    packed,
    packed_error,
    unpacked,
    unpacked_signals,
)
from ataraxis.datamux.remote.outbound import Budget, Outlet, Total
from ataraxis.datamux.remote.transport import Connection, ConnectionLost, refuse
from ataraxis.datamux.simulation import Faults
from ataraxis.datamux.task import StreamAck, Task
from ataraxis.errors import BadMessage, RemoteError, SourceNotFound

# ---- the calls of a server: their arguments, and the functions that answer

# Names and types are checked here, values by the API.

Types = tuple[type, ...]
_NONE = type(None)
_TEXT, _FLAG, _NUMBER = (str,), (bool,), (int, float)
_MAYBE = (int, float, _NONE)
_ATTRS = (dict,)
_SAMPLE_BYTES = 64 * 2**20
_PACED: dict[str, Types] = {
    "rate_limit": _FLAG, "speed": _NUMBER, "block": _MAYBE, "timeline": (int, _NONE),
}  # fmt: skip
_REPLAY: dict[str, Types] = {
    "collection_id": _TEXT, "stream_id": _TEXT, "attrs": _ATTRS, "strict_time": _FLAG,
    "use_relative_ts": _FLAG, "start": _MAYBE, "stop": _MAYBE, "loop": (bool, int),
    "paused": _FLAG, "transform": _TEXT, **_PACED,
}  # fmt: skip
STARTS: dict[str, dict[str, Types]] = {
    "replay_collection_stream": _REPLAY,
    "publish_collection_stream": _REPLAY,
    "proxy_live_stream": {
        "node_id": _TEXT, "stream_id": _TEXT, "attrs": _ATTRS, "rate_limit": _FLAG,
        "strict_time": _FLAG, "use_relative_ts": _FLAG, "block": (int, _NONE),
        "patience": _MAYBE, "transform": _TEXT,
    },
    "simulate_stream": {
        "source": (str, dict), "stream_id": _TEXT, "attrs": (dict, _NONE),
        "signals": (dict, _NONE), "guided": _FLAG, "seed": (int,),
        "faults": (dict, _NONE), "duration": _MAYBE, "transform": _TEXT, **_PACED,
    },
}  # fmt: skip
"""Calls that start a stream, with their arguments."""
LISTS: dict[str, tuple[dict[str, Types], Callable[[API, Message], Any]]] = {
    "list_collections": ({}, lambda api, _: api.list_collections()),
    "list_collection_streams": (
        {"collection_id": _TEXT},
        lambda api, a: api.list_collection_streams(a["collection_id"]),
    ),
    "list_live_nodes": ({}, lambda api, _: api.list_live_nodes()),
    "list_live_streams": (
        {"node_id": _TEXT},
        lambda api, a: api.list_live_streams(a["node_id"]),
    ),
    "time": ({}, lambda api, _: now_ns()),
}
"""Calls that answer at once, with their arguments and functions."""
STEERS: dict[str, tuple[dict[str, Types], Callable[[Task, Message], Any]]] = {
    "pause": ({}, lambda task, _: task.pause()),
    "resume": ({}, lambda task, _: task.resume()),
    "seek": ({"at_s": _NUMBER}, lambda task, a: task.seek(a["at_s"])),
    "set_speed": ({"speed": _NUMBER}, lambda task, a: _set_speed(task, a["speed"])),
    "position": ({}, lambda task, _: _timeline(task).position_s),
    "statistics": ({}, lambda task, _: statistics(task)),
}
"""Calls about a running stream, with their arguments and functions."""


def _timeline(task: Task) -> Any:
    if task.timeline is None:
        raise TypeError("the stream is not paced")
    return task.timeline


def _set_speed(task: Task, speed: float) -> None:
    _timeline(task).speed = speed


def statistics(task: Task) -> Message:
    """Return the statistics of a task as plain values."""
    found = asdict(task.statistics())
    lateness = found["lateness"]
    # The error of the slope may be infinite, which JSON cannot express.
    found["lateness"] = {
        k: (None if isinstance(v, float) and not math.isfinite(v) else v)
        for k, v in lateness.items()
    }
    return {**found, "reconnects": list(found["reconnects"])}


def checked_arguments(
    call: str, takes: Mapping[str, Types], given: Any, block_samples: int = 0
) -> Message:
    """Return the arguments of a call; `BadMessage` for unknown or wrong ones."""
    if not isinstance(given, dict):
        raise BadMessage(f"{call}: expected arguments as an object")
    for name, value in given.items():
        if name not in takes:
            raise BadMessage(
                f"{call}: unknown argument {str(name)[:40]!r}: known are {[*takes]}"
            )
        if type(value) not in takes[name]:
            wanted = " or ".join(kind.__name__ for kind in takes[name])
            raise BadMessage(f"{call}: {name}={str(value)[:40]!r}: expected {wanted}")
    block = given.get("block")
    if block_samples and isinstance(block, (int, float)) and block > block_samples:
        raise BadMessage(f"{call}: block must be at most {block_samples}, got {block}")
    return given


def start(
    api: API,
    call: str,
    arguments: Message,
    sink: Any,
    transform: Callable[[Any], Any] | None,
    timeline: Any,
) -> StreamAck:
    """Start a stream into a sink; return the acknowledgement of the API."""
    more = {k: v for k, v in arguments.items() if k not in ("transform", "timeline")}
    if transform is not None:
        more["transform"] = transform
    if timeline is not None:
        more["timeline"] = timeline
    try:
        if call == "publish_collection_stream":
            return api.publish_collection_stream(**more)
        if call == "replay_collection_stream":
            return api.replay_collection_stream(sink=sink, deliver="block", **more)
        if call == "proxy_live_stream":
            return api.proxy_live_stream(sink=sink, deliver="block", **more)
        return api.simulate_stream(sink=sink, deliver="block", **_simulated(more))
    except TypeError as error:
        if "argument" not in str(error):
            raise
        raise BadMessage(f"{call}: {error}") from error


_UNPACED = 512  # samples of a block without rate limit


def _simulated(more: Message) -> Message:
    if more.get("rate_limit") is False and more.get("block") is None:
        more["block"] = _UNPACED
    if isinstance(more.get("source"), dict):
        stream = unpacked(Stream, more["source"])
        if stream.fields and stream.labels().nbytes > _SAMPLE_BYTES:
            raise BadMessage(
                f"simulate_stream: a sample of more than {_SAMPLE_BYTES} bytes"
            )
        more["source"] = stream
    if more.get("faults") is not None:
        more["faults"] = unpacked(Faults, more["faults"])
    if more.get("signals") is not None:
        more["signals"] = unpacked_signals(more["signals"])
    return more


def listed(api: API, call: str, given: Any) -> Any:
    """Answer a call of `LISTS`."""
    takes, answer = LISTS[call]
    arguments = checked_arguments(call, takes, given)
    missing = [name for name in takes if name not in arguments]
    if missing:
        raise BadMessage(f"{call} needs {missing}")
    return packed(answer(api, arguments))


def known(call: Any) -> str:
    """Return the name of a call; raise `SourceNotFound` if it is unknown."""
    names = {name: name for name in (*STARTS, *LISTS, *STEERS, "stop")}
    found: str = pick(names, str(call)[:80], "call", "this server")
    return found


# ---- transforms that run on a server: given by name, never as code of a client

GROUP = "ataraxis.transforms"
Transform = Callable[[Block], Block]


class Transforms:
    """Functions of a block by name, given to the server or from plug-ins."""

    def __init__(self, given: Mapping[str, Transform] | None = None) -> None:
        self._given = dict(given or {})
        self._points: Any = None

    def _plugins(self) -> Any:
        """Return the entry points; cached, as the search reads many files."""
        if self._points is None:
            self._points = importlib.metadata.entry_points(group=GROUP)
        return self._points

    def names(self) -> list[str]:
        """Return the names, also of installed plug-ins."""
        return sorted({*self._given, *(point.name for point in self._plugins())})

    def find(self, name: str) -> Transform:
        """Return the function of a name; raise `SourceNotFound` if it is unknown."""
        if name in self._given:
            return self._given[name]
        for point in self._plugins():
            if point.name == name:
                loaded: Transform = point.load()
                return loaded
        missing: Any = pick(self.names(), name, "transform", "this server")
        raise AssertionError(missing)


# ---- the streams of one client on a server: start, steer, confirm, stop

_NUMBERS = 2**32
_WINDOW = 8 * 2**20


class Streams:
    """Starts the streams of a client and finds them by their numbers.

    `answer` runs in a thread of the pool, one call at a time; the rest in the loop.
    `notify` is called when messages are ready to be sent.
    """

    def __init__(
        self,
        api: API,
        codec: Codec,
        limits: Limits,
        transforms: Transforms,
        notify: Callable[[], None],
        account: Account,
        total: Total,
    ) -> None:
        self._api = api
        self._codec = codec
        self._limits = limits
        self._transforms = transforms
        self._notify = notify
        self._account = account
        self._budget = Budget(limits.ring_bytes, total)
        self._window = min(_WINDOW, limits.ring_bytes)
        self._outlets: dict[int, Outlet] = {}
        self._acks: dict[int, StreamAck] = {}
        self._bills: dict[int, Bill] = {}
        self._lock = threading.Lock()
        self._is_closed = False

    # ---- in the loop

    def outlets(self) -> list[Outlet]:
        """Return the outlets."""
        with self._lock:
            return [*self._outlets.values()]

    def confirm(self, pairs: Any) -> None:
        """Drop the messages that the client has read: pairs of stream and next message.

        Raises `BadMessage` if the pairs are invalid.
        """
        for number, until in _pairs(pairs):
            outlet = self._outlets.get(number)
            if outlet is not None:
                outlet.confirm(until)
                if outlet.is_over:
                    self._stop(number, timeout=0)  # an evicted one still runs

    def rewind(self, pairs: Any) -> list[int]:
        """Go back to the messages that a resuming client needs; return its streams."""
        asked = dict(_pairs(pairs))
        for outlet in self.outlets():
            if outlet.number in asked:
                outlet.rewind(asked[outlet.number])
            else:
                self._stop(outlet.number, timeout=0)
        return [outlet.number for outlet in self.outlets()]

    @property
    def is_empty(self) -> bool:
        """Whether no streams exist."""
        return not self._outlets

    @property
    def kept_bytes(self) -> int:
        """Bytes kept until the client has read them."""
        return self._budget.used

    def _forget(self, number: int) -> StreamAck | None:
        with self._lock:
            self._outlets.pop(number, None)
            ack = self._acks.pop(number, None)
            bill = self._bills.pop(number, None)
        if bill is not None:
            self._end_bill(ack, bill)
        if ack is not None and ack.randseq is not None:
            self._api.forget(ack.randseq)
        return ack

    def _end_bill(self, ack: StreamAck | None, bill: Bill) -> None:
        """Pay back the bill of a stream once its thread has ended."""
        if ack is None or ack.task is None:
            bill.pay_back()
        else:
            ack.task.call_when_done(lambda _: bill.pay_back())

    # ---- in a thread of the pool

    def answer(self, call: str, number: Any, given: Any) -> Any:
        """Answer a call with plain values."""
        if call in LISTS:
            with self._account.bill() as bill:
                found = listed(self._api, call, given)
                bill.pay_back()
            return found
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
            raise SourceNotFound(f"{call}: no stream {number}")
        return steer(task, arguments)

    def _start(self, call: str, number: int, given: Any) -> Message:
        limits = self._limits
        arguments = checked_arguments(call, STARTS[call], given, limits.block_samples)
        if number in self._acks:
            return self._started(number)  # requested again by a resuming client
        if len(self._outlets) >= limits.streams:
            raise RemoteError(
                f"the client has {len(self._outlets)} streams, the limit: stop one"
            )
        transform = timeline = None
        if "transform" in arguments:
            transform = self._transforms.find(arguments["transform"])
        if arguments.get("timeline") is not None:
            shared = self._acks.get(arguments["timeline"])
            if shared is None or shared.task is None or shared.task.timeline is None:
                raise SourceNotFound("timeline: its stream has ended")
            timeline = shared.task.timeline
        outlet = Outlet(
            number, self._codec, self._budget, self._notify,
            window=self._window,
            is_live=call == "proxy_live_stream",
            is_paced=arguments.get("rate_limit") is not False,
        )  # fmt: skip
        try:
            with self._account.bill() as bill:
                charge(Price(streams=1))
                ack = start(self._api, call, arguments, outlet, transform, timeline)
        except BaseException:
            outlet.close()
            raise
        task = ack.task
        assert task is not None
        outlet.details = lambda: {"statistics": statistics(task)}
        with self._lock:
            is_late = self._is_closed
            self._outlets[number], self._acks[number] = outlet, ack
            self._bills[number] = bill
        if call == "publish_collection_stream":
            task.call_when_done(lambda end: outlet.finish(end, lambda: True))
        if is_late:
            self._stop(number)
        self._notify()
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
        """Stop all streams."""
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


# ---- the connection

_BUSY = 2
_QUEUE_S = 20.0
_WAITING_BYTES = 2 * 2**20
_OUTBOX_BYTES = 2 * 2**20


@dataclass(frozen=True)
class ServerLimits:
    """What all clients of a server share."""

    api: API
    """Answers the calls."""
    limits: Limits
    """Limits of a client."""
    transforms: Transforms
    """Transforms of this server."""
    pool: Executor
    """Threads for work that waits."""
    ledger: Ledger
    """Expenses of all clients."""
    total: Total
    """Unread bytes of all clients."""


class ClientConnection:
    """Serves one client, whose connection may break and be resumed."""

    def __init__(self, server_limits: ServerLimits, codec: Codec) -> None:
        self.key = secrets.token_urlsafe(24)
        self.codec = codec
        self._server_limits = server_limits
        limits = server_limits.limits
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self.streams = Streams(
            server_limits.api, codec, limits, server_limits.transforms, self._notify,
            Account(server_limits.ledger), server_limits.total,
        )  # fmt: skip
        self._requests: asyncio.Queue[tuple[Message, int]] = asyncio.Queue()
        self._waiting_bytes = 0
        self._outbox: deque[bytes] = deque()
        self._outbox_bytes = 0
        self._drained = asyncio.Event()
        self._messages = Bucket(limits.messages_hz, 2 * limits.messages_hz)
        self._asked = Bucket(limits.requests_hz, 2 * limits.requests_hz)
        self._connection: Connection | None = None
        self._served = asyncio.Lock()
        self._claims = 0
        self._worker = self._loop.create_task(self._work())
        self.expiry: asyncio.TimerHandle | None = None

    @property
    def is_attached(self) -> bool:
        """Whether its client is connected."""
        return self._claims > 0

    def _notify(self) -> None:
        """Wake the sender; from any thread."""
        if not self._wake.is_set():
            try:
                self._loop.call_soon_threadsafe(self._wake.set)
            except RuntimeError:
                pass  # the server has ended

    # ---- its connection

    async def serve(self, connection: Connection, welcome: Message, asked: Any) -> bool:
        """Serve a connection until it ends; return whether the client left for good."""
        if self._connection is not None:
            self._connection.abort()  # a broken connection that was not detected
        self._claims += 1
        try:
            async with self._served:
                if self.expiry is not None:
                    self.expiry.cancel()
                self._connection = connection
                try:
                    there = self.streams.rewind(asked)
                    hello = {**welcome, "session": self.key, "streams": there}
                    await connection.send(self.codec.encode(hello))
                    return await self._serve(connection)
                except ConnectionLost:
                    return False
                finally:
                    self._connection = None
        finally:
            self._claims -= 1

    async def _serve(self, connection: Connection) -> bool:
        reader = self._loop.create_task(self._read(connection))
        sender = self._loop.create_task(self._send(connection))
        both = {reader, sender}
        try:
            done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
        for task in done:
            error = None if task.cancelled() else task.exception()
            if isinstance(error, ConnectionLost):
                continue
            if error is not None:
                await refuse(connection, self.codec, error)
            return True
        return False

    async def _send(self, connection: Connection) -> None:
        """Send answers first, then from each stream in turn."""
        while True:
            self._wake.clear()
            is_idle = True
            while self._outbox:
                await self._post(connection)
                is_idle = False
            for outlet in self.streams.outlets():
                data = outlet.take()
                if data is not None:
                    await connection.send(data)
                    is_idle = False
                if self._outbox:
                    await self._post(connection)
            if is_idle:
                await self._wake.wait()

    async def _post(self, connection: Connection) -> None:
        data = self._outbox.popleft()
        self._outbox_bytes -= len(data)
        self._drained.set()
        await connection.send(data)

    async def _read(self, connection: Connection) -> None:
        """Read until the client says goodbye; delay it at too many messages."""
        while True:
            data = await connection.receive()
            message = self.codec.decode(data)
            if wait := self._messages.take():
                await asyncio.sleep(wait)
            op = message["op"]
            if op == "confirm":
                self.streams.confirm(message.get("streams"))
                self._wake.set()
            elif op == "request":
                self._admit(message, len(data))
            elif op == "bye":
                return
            else:
                raise BadMessage(f"op {op[:40]!r}: expected request, confirm or bye")

    def _admit(self, message: Message, nbytes: int) -> None:
        """Queue a request; reading continues, so that heartbeats are answered."""
        whole(message, "id")
        limits, count = self._server_limits.limits, self._requests.qsize()
        if count >= limits.patience or self._waiting_bytes > _WAITING_BYTES:
            raise RemoteError(
                f"too many requests: {limits.requests_hz:g} per second are answered, "
                f"and {count} wait already"
            )
        self._waiting_bytes += nbytes
        self._requests.put_nowait((message, nbytes))

    # ---- its requests

    async def _work(self) -> None:
        """Answer requests one after the other, at the limited rate."""
        while True:
            message, nbytes = await self._requests.get()
            self._waiting_bytes -= nbytes
            if wait := self._asked.take():
                await asyncio.sleep(wait)
            answer: Message = {"op": "reply", "id": message["id"]}
            try:
                answer["result"] = await self._answer(message)
                data = self.codec.encode(answer)
            except Exception as error:  # any error is sent to the client
                answer.pop("result", None)
                data = self.codec.encode({**answer, "error": packed_error(error)})
            self._outbox.append(data)
            self._outbox_bytes += len(data)
            self._wake.set()
            while self._outbox_bytes > _OUTBOX_BYTES:
                self._drained.clear()
                await self._drained.wait()

    async def _answer(self, message: Message) -> Any:
        call = known(message.get("call"))
        arguments = message.get("arguments", {})
        number = message.get("stream")
        if call in STARTS:
            # Wait while many streams run without rate limit.
            until_s = time.monotonic() + _QUEUE_S
            while (
                self._server_limits.total.busy >= _BUSY and time.monotonic() < until_s
            ):
                await asyncio.sleep(0.02)
        return await self._loop.run_in_executor(
            self._server_limits.pool, self.streams.answer, call, number, arguments
        )

    async def drop(self) -> None:
        """Stop everything of this client."""
        if self.expiry is not None:
            self.expiry.cancel()
        self._worker.cancel()
        await asyncio.gather(self._worker, return_exceptions=True)
        await self._loop.run_in_executor(self._server_limits.pool, self.streams.close)


# ---- rate limits


class Bucket:
    """A rate limit: `rate_hz` on average, `burst` at once.

    Examples
    --------
    >>> bucket = Bucket(10.0, burst=2)
    >>> bucket.take(now=0.0), bucket.take(now=0.0), bucket.take(now=0.0)
    (0.0, 0.0, 0.1)
    """

    def __init__(self, rate_hz: float, burst: float) -> None:
        self._rate_hz = rate_hz
        self._burst = burst
        self._left = burst
        self._since = -float("inf")

    def take(self, now: float | None = None, count: float = 1) -> float:
        """Take `count`; return how long to wait, s."""
        now = time.monotonic() if now is None else now
        gained = (now - self._since) * self._rate_hz
        self._left = min(self._burst, self._left + gained) - count
        self._since = now
        return max(0.0, -self._left / self._rate_hz)
