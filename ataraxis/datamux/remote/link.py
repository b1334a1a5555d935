"""A client's connection, which is restored when it breaks, and its requests."""

from __future__ import annotations

import asyncio
import atexit
import time
from collections import deque
from concurrent.futures import Future
from typing import Any

from ataraxis.datamux.remote.access import Identity
from ataraxis.datamux.remote.codec import Codec, Message
from ataraxis.datamux.remote.inbound import Inlet
from ataraxis.datamux.remote.layout import unpacked_error
from ataraxis.datamux.remote.loop_thread import LoopThread
from ataraxis.datamux.remote.transport import (
    CLOSED_BY_PEER,
    GOING_AWAY,
    REFUSED,
    Connection,
    ConnectionLost,
    Transport,
)
from ataraxis.errors import AccessDenied, BadMessage, NotConnectedError, RemoteError
from ataraxis.shm.thread import Outcome

VERSION = 1
_PAUSE_S = (0.05, 1.0)
_CONFIRM_S = 0.05
_HELLO_S = 10.0
_GOODBYE_S = 2.0


class Link:
    """Keeps a session with a server, over as many connections as needed.

    `patience` and `heartbeat_s` are those of `RemoteAPI.connect`.
    """

    def __init__(
        self,
        transport: Transport,
        codec: Codec,
        identity: Identity,
        host: str,
        port: int,
        *,
        patience: float,
        heartbeat_s: float,
    ) -> None:
        self._transport = transport
        self.codec = codec
        self._identity = identity
        self._host, self._port = host, port
        self._patience = patience
        self._heartbeat_s = heartbeat_s
        self._thread = LoopThread("ataraxis-remote")
        atexit.register(self.close)
        self._wake = asyncio.Event()
        self._session: str | None = None
        self._outbox: deque[bytes] = deque()
        self._asked: dict[int, tuple[bytes, Future[Any]]] = {}
        self._inlets: dict[int, Inlet] = {}
        self._unconfirmed: set[Inlet] = set()
        self._flush: asyncio.TimerHandle | None = None
        self._count = 0
        self._streams = 0
        self._keeper: asyncio.Task[None] | None = None
        self._ending: Exception | None = None
        self._vanishing: asyncio.Task[None] | None = None
        self._is_retired = False
        self.welcome: Message = {}
        """The first message of the server."""

    # ---- from any thread

    @property
    def place(self) -> str:
        """Address of the server."""
        return f"{self._host}:{self._port}"

    def open(self) -> Future[None]:
        """Connect for the first time; the future has the errors."""
        return self._thread.run(self._open())

    def request(
        self, call: str, arguments: Message, inlet: Inlet | None = None
    ) -> Future[Any]:
        """Send a request; return a future of its answer. Resent after a reconnect."""
        future: Future[Any] = Outcome()
        message: Message = {"op": "request", "call": call, "arguments": arguments}
        if inlet is not None:
            message["stream"] = inlet.number
        self._do(self._request, message, future, future=future)
        return future

    def start(self, call: str, arguments: Message, inlet: Inlet) -> Future[Any]:
        """Request a stream; the inlet is ready before its messages come."""
        future: Future[Any] = Outcome()
        message = {
            "op": "request", "call": call, "arguments": arguments,
            "stream": inlet.number,
        }  # fmt: skip
        self._do(self._start, message, inlet, future, future=future)
        return future

    def inlet(self) -> Inlet:
        """Return an inlet with a new number."""
        self._streams += 1
        return Inlet(
            self._streams, self.codec, self._confirm, self._release, self._statistics
        )

    def _do(self, function: Any, *arguments: Any, future: Future[Any]) -> None:
        if self._ending is not None:
            future.set_exception(self._ending)
        elif not self._thread.call(function, *arguments):
            future.set_exception(NotConnectedError("disconnected: connect() again"))

    @property
    def is_current(self) -> bool:
        """Whether this is called in the connection's thread."""
        return self._thread.is_current

    def close(self) -> None:
        """Disconnect, end every stream and the thread; a second call does nothing."""
        atexit.unregister(self.close)
        if not self._thread.is_current:
            try:
                self._thread.run(self._leave()).result(_GOODBYE_S * 2)
            except (TimeoutError, NotConnectedError):
                pass
        self._thread.close()

    def retire(self) -> None:
        """Close once the last stream has ended; does not wait."""
        self._thread.call(self._retire)

    def _retire(self) -> None:
        self._is_retired = True
        if not self._inlets and self._vanishing is None:
            self._vanishing = asyncio.get_running_loop().create_task(self._vanish())

    async def _vanish(self) -> None:
        await self._leave()
        self.close()

    # ---- called by inlets, from the threads of their tasks

    def _confirm(self, inlet: Inlet, is_urgent: bool) -> None:
        if inlet not in self._unconfirmed or is_urgent:
            self._thread.call(self._note, inlet, is_urgent)

    def _release(self, inlet: Inlet) -> None:
        self._thread.call(self._let_go, inlet)

    def _statistics(self, inlet: Inlet) -> Message | None:
        try:
            found: Message = self.request("statistics", {}, inlet).result(5)
        except (OSError, LookupError, TimeoutError, RuntimeError):
            return None
        return found

    # ---- in the loop: requests and confirmations

    def _request(self, message: Message, future: Future[Any]) -> None:
        if self._ending is not None:
            future.set_exception(self._ending)
            return
        self._count += 1
        try:
            data = self.codec.encode({**message, "id": self._count})
        except (TypeError, ValueError, OverflowError) as error:
            future.set_exception(
                TypeError(f"{message['call']}: an argument cannot be sent: {error}")
            )
            return
        self._asked[self._count] = (data, future)
        self._outbox.append(data)
        self._wake.set()

    def _start(self, message: Message, inlet: Inlet, future: Future[Any]) -> None:
        self._inlets[inlet.number] = inlet
        future.add_done_callback(lambda done: self._started(inlet, done))
        self._request(message, future)

    def _started(self, inlet: Inlet, future: Future[Any]) -> None:
        if future.cancelled() or future.exception() is not None:
            self._inlets.pop(inlet.number, None)
            return
        window = future.result().get("window")
        if isinstance(window, int):
            inlet.confirm_bytes = min(inlet.confirm_bytes, window // 4)
        inlet.is_started = True

    def _note(self, inlet: Inlet, is_urgent: bool) -> None:
        self._unconfirmed.add(inlet)
        if is_urgent:
            self._confirm_all()
        elif self._flush is None:
            loop = asyncio.get_running_loop()
            self._flush = loop.call_later(_CONFIRM_S, self._confirm_all)

    def _confirm_all(self) -> None:
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        pairs = [[inlet.number, inlet.read] for inlet in self._unconfirmed]
        self._unconfirmed.clear()
        if pairs and self._ending is None:
            self._outbox.append(self.codec.encode({"op": "confirm", "streams": pairs}))
            self._wake.set()

    def _let_go(self, inlet: Inlet) -> None:
        """Forget a stream that was read to its end, or is not needed any more."""
        self._inlets.pop(inlet.number, None)
        if self._ending is not None:
            pass
        elif inlet.is_ended:
            self._note(inlet, is_urgent=True)
        else:
            stop = {"op": "request", "call": "stop", "stream": inlet.number}
            self._request(stop, Future())
        if self._is_retired:
            self._retire()

    # ---- in the loop: the connection

    async def _open(self) -> None:
        connection = await self._connect()
        self._keeper = asyncio.get_running_loop().create_task(self._stay(connection))

    async def _connect(self) -> Connection:
        """Connect and send hello; resume the session if one exists."""
        connection = await self._transport.connect(
            self._host, self._port, self.codec.name, self._identity, self._heartbeat_s
        )
        try:
            hello: Message = {"op": "hello", "version": VERSION}
            if self._session is not None:
                hello["session"] = self._session
                hello["streams"] = [[i.number, i.next] for i in self._inlets.values()]
            await connection.send(self.codec.encode(hello))
            async with asyncio.timeout(_HELLO_S):
                welcome = self.codec.decode(await connection.receive())
            if welcome["op"] == "error":
                raise unpacked_error(welcome.get("error"))
            if welcome["op"] != "welcome" or not isinstance(
                welcome.get("session"), str
            ):
                raise BadMessage(f"expected welcome, got {welcome['op'][:40]!r}")
            self._welcomed(welcome)
        except BaseException:
            connection.abort()
            raise
        return connection

    def _welcomed(self, welcome: Message) -> None:
        is_back = self._session is not None
        is_known = welcome["session"] == self._session
        self._session, self.welcome = welcome["session"], welcome
        there = welcome.get("streams")
        known = set(there) if is_known and isinstance(there, list) else set()
        for inlet in [*self._inlets.values()]:
            if inlet.is_started and not inlet.is_ended and inlet.number not in known:
                inlet.fail(
                    RemoteError(
                        "the server does not know this session any more: it was "
                        "restarted, or the connection was broken for too long"
                    )
                )
        if is_back:
            self._outbox.clear()
            self._outbox.extend(data for data, _ in self._asked.values())
            self._unconfirmed.update(self._inlets.values())
            self._confirm_all()

    async def _stay(self, connection: Connection) -> None:
        """Serve the connection until the end; reconnect when it breaks."""
        while True:
            error: Exception
            try:
                await self._talk(connection)
            except ConnectionLost as lost:
                error = lost
                if lost.code in (CLOSED_BY_PEER, GOING_AWAY, REFUSED):
                    self._end(RemoteError(f"the server ended the connection: {lost}"))
                    return
            except (BadMessage, RemoteError) as refused:
                connection.abort()
                self._end(RemoteError(str(refused)))
                return
            try:
                connection = await self._again(error)
            except Exception as failure:  # any error ends the streams
                self._end(RemoteError(f"{failure} (the connection broke: {error})"))
                return
            for inlet in self._inlets.values():
                inlet.reconnects.append(str(error))

    async def _again(self, error: Exception) -> Connection:
        """Reconnect, within `patience`."""
        deadline, pause = time.monotonic() + self._patience, _PAUSE_S[0]
        while True:
            try:
                return await self._connect()
            except AccessDenied:
                raise
            except (OSError, TimeoutError, BadMessage) as failure:
                if time.monotonic() + pause > deadline:
                    raise RemoteError(
                        f"{self._host}:{self._port} did not come back in "
                        f"{self._patience:g} s: {failure}"
                    ) from failure
            await asyncio.sleep(pause)
            pause = min(2 * pause, _PAUSE_S[1])

    async def _talk(self, connection: Connection) -> None:
        sender = asyncio.get_running_loop().create_task(self._send(connection))
        try:
            while True:
                data = await connection.receive()
                self._take(self.codec.decode(data), len(data))
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    async def _send(self, connection: Connection) -> None:
        while True:
            self._wake.clear()
            while self._outbox:
                await connection.send(self._outbox[0])
                self._outbox.popleft()
            await self._wake.wait()

    def _take(self, message: Message, nbytes: int) -> None:
        op = message["op"]
        if op in ("block", "labels", "end"):
            inlet = self._inlets.get(message.get("stream", 0))
            if inlet is not None:
                inlet.push(message, nbytes)
        elif op == "reply":
            asked = self._asked.pop(message.get("id", 0), None)
            if asked is not None and not asked[1].done():
                if "error" in message:
                    asked[1].set_exception(unpacked_error(message["error"]))
                else:
                    asked[1].set_result(message.get("result"))
        elif op == "error":
            raise RemoteError(str(unpacked_error(message.get("error"))))
        else:
            raise BadMessage(f"unknown op from the server: {op[:40]!r}")

    # ---- the end

    async def _leave(self) -> None:
        keeper, self._keeper = self._keeper, None
        self._end(NotConnectedError("disconnected: connect() again"))
        if keeper is not None:
            self._outbox.append(self.codec.encode({"op": "bye"}))
            self._wake.set()
            await asyncio.wait([keeper], timeout=_GOODBYE_S)
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)

    def _end(self, error: Exception) -> None:
        """End every stream and request with this error."""
        if self._ending is not None:
            return
        self._ending = error
        for inlet in [*self._inlets.values()]:
            inlet.fail(error)
        asked, self._asked = self._asked, {}
        for _, future in asked.values():
            if not future.done():
                future.set_exception(error)
