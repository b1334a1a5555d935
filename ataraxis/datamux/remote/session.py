"""One client of a server: its requests, and its connection of the moment."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from ataraxis.datamux.api import API
from ataraxis.datamux.remote.calls import known
from ataraxis.datamux.remote.codec import Codec, Message, whole
from ataraxis.datamux.remote.failure import packed_error
from ataraxis.datamux.remote.limits import Bucket, Limits
from ataraxis.datamux.remote.refusal import refuse
from ataraxis.datamux.remote.streams import Streams
from ataraxis.datamux.remote.transforms import Transforms
from ataraxis.datamux.remote.transport import Connection, ConnectionLost
from ataraxis.errors import BadMessage, RemoteError

_WAITING_BYTES = 8 * 2**20
_OUTBOX_BYTES = 8 * 2**20


@dataclass(frozen=True)
class House:
    """What all sessions of a server share."""

    api: API
    """Who does the work."""
    limits: Limits
    """What a client may take."""
    transforms: Transforms
    """What may be done to blocks here."""
    pool: Executor
    """Where work that waits is done."""


class Session:
    """Answers one client, whose connection may break and come back.

    Parameters
    ----------
    house : House
        What it works with.
    codec : Codec
        How it talks.
    """

    def __init__(self, house: House, codec: Codec) -> None:
        self.key = secrets.token_urlsafe(24)
        self.codec = codec
        self._house = house
        limits = house.limits
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self.streams = Streams(house.api, codec, limits, house.transforms, self._tell)
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

    def _tell(self) -> None:
        """Wake the sender, from any thread."""
        if not self._wake.is_set():
            try:
                self._loop.call_soon_threadsafe(self._wake.set)
            except RuntimeError:
                pass  # the server has ended

    # ---- its connection

    async def serve(self, connection: Connection, welcome: Message, asked: Any) -> bool:
        """Serve a connection until it ends; whether the client left for good."""
        if self._connection is not None:
            self._connection.abort()  # a connection that died, and nobody noticed
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
        """Send answers first, then the streams in turn."""
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
        """Read until the client says goodbye; too much of it has to wait."""
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
        """Let a request wait for its turn; reading goes on, or no pong would come."""
        whole(message, "id")
        limits, count = self._house.limits, self._requests.qsize()
        if count >= limits.patience or self._waiting_bytes > _WAITING_BYTES:
            raise RemoteError(
                f"too many requests: {limits.requests_hz:g} a second are answered, and "
                f"{count} wait already"
            )
        self._waiting_bytes += nbytes
        self._requests.put_nowait((message, nbytes))

    # ---- its requests

    async def _work(self) -> None:
        """Answer requests, one after the other, and no more a second than is right."""
        while True:
            message, nbytes = await self._requests.get()
            self._waiting_bytes -= nbytes
            if wait := self._asked.take():
                await asyncio.sleep(wait)
            answer: Message = {"op": "reply", "id": message["id"]}
            try:
                answer["result"] = await self._answer(message)
                data = self.codec.encode(answer)
            except Exception as error:  # whatever it is, the client is told
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
        return await self._loop.run_in_executor(
            self._house.pool, self.streams.answer, call, number, arguments
        )

    async def drop(self) -> None:
        """Stop everything of this client, and forget it."""
        if self.expiry is not None:
            self.expiry.cancel()
        self._worker.cancel()
        await asyncio.gather(self._worker, return_exceptions=True)
        await self._loop.run_in_executor(self._house.pool, self.streams.close)
