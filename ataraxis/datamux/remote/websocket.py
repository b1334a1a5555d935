"""The transport ``websocket``: the `websockets` library's asyncio side."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http
import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import numpy as np

from ataraxis.config.limits import Limits
from ataraxis.datamux.remote.access import Access, Identity, is_same_user, unix_path
from ataraxis.datamux.remote.codec import Fragments
from ataraxis.datamux.remote.gate import BACKLOG, UNIX, Gate, bound, bound_unix
from ataraxis.datamux.remote.transport import Connection, ConnectionLost, Serve
from ataraxis.errors import AccessDenied, RemoteError
from ataraxis.log.optional import need

# ---- the admission of clients: their identity, and their number

PROTOCOL = "ataraxis.1."
"""Prefix of the name of a codec in ``Sec-WebSocket-Protocol``."""
PATHS = ("/", "/ws")


class Admission:
    """Accepts connections, or refuses them with a reason."""

    def __init__(
        self,
        module: Any,
        codecs: tuple[str, ...],
        access: Access,
        limits: Limits,
        serve: Callable[[Any], Awaitable[None]],
    ) -> None:
        self._codecs = codecs
        self._access = access
        self._limits = limits
        self._serve = serve
        self._open = 0
        self.gate: Gate | None = None
        admission = self

        class Admitted(module.ServerConnection):  # type: ignore[misc]
            """A connection whose user is checked on a Unix socket."""

            def connection_made(self, transport: Any) -> None:
                """Abort a connection of another user."""
                super().connection_made(transport)
                if access.is_unix and not is_same_user(transport):
                    transport.abort()

            def connection_lost(self, error: Exception | None) -> None:
                """Stop counting it."""
                admission.let_in(self)
                super().connection_lost(error)

        self.connection = Admitted

    def let_in(self, socket: Any) -> None:
        """Stop counting a connection at the gate: it was admitted, or is gone."""
        made = socket.transport.get_extra_info("socket")
        if self.gate is not None and made is not None and made.fileno() >= 0:
            self.gate.let_in(made.fileno())

    def refuse(self, socket: Any, request: Any) -> Any:
        """Return the response that refuses a request; None if it is accepted."""
        headers = {name.lower(): value for name, value in request.headers.raw_items()}
        path = request.path.partition("?")[0]
        refusal = self._access.refusal(headers)
        offered = headers.get("sec-websocket-protocol", "")
        if path not in PATHS:
            refusal = 404, f"{path[:80]!r} does not exist: connect to /ws"
        elif refusal is None and not self._chosen(offered.split(",")):
            spoken = ", ".join(self._codecs)
            refusal = 400, f"this server speaks {spoken}, not {offered[:80]!r}"
        elif refusal is None and self._open >= 2 * self._limits.clients:
            # Including those that are being refused.
            refusal = 503, f"the server has {self._open} connections: try later"
        if refusal is None:
            return None
        return socket.respond(http.HTTPStatus(refusal[0]), refusal[1] + "\n")

    def _chosen(self, offered: list[str]) -> str | None:
        spoken = {PROTOCOL + codec for codec in self._codecs}
        return next((n for n in map(str.strip, offered) if n in spoken), None)

    def choose(self, socket: Any, offered: list[str]) -> str | None:
        """Return the subprotocol."""
        return self._chosen(offered)

    async def serve(self, socket: Any) -> None:
        """Serve an admitted connection."""
        self.let_in(socket)
        self._open += 1
        try:
            await self._serve(socket)
        finally:
            self._open -= 1


# ---- long messages through `websockets` with one copy on each side instead of four

# `websockets` reads a socket into pieces, joins them, cuts out the message and copies
# it again; it sends a message after a copy of each fragment. Here a long message is
# read into its final memory, and sent as one frame that is joined once.

LONG_BYTES = 2**16
"""Messages of this size are read into their final memory."""
_SCRATCH_BYTES = 2**18
_HEAD_BYTES = 2**12
_FINAL, _BYTES_2, _BYTES_8 = 0x80, 126, 127


@functools.cache
def reading(connection: Any, frames: Any) -> Any:
    """Return a subclass of ``ClientConnection`` that reads long messages so.

    Its `take` turns the result of ``recv(decode=False)`` into the message.
    """

    class BufferedConnection(connection, asyncio.BufferedProtocol):  # type: ignore[misc]
        """Gives the socket the memory of the next message."""

        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            self._scratch = memoryview(bytearray(_SCRATCH_BYTES))
            self._rest = self._scratch[:0]  # the missing part of a long message
            self._is_long = False  # whether the last message was long
            self._long: deque[memoryview] = deque()
            self._reader = self.protocol.reader
            self._read_short = self._reader.read_exact
            self._reader.read_exact = self._read_exact

        def get_buffer(self, sizehint: int) -> memoryview:
            """Return the memory for received bytes."""
            if self._rest:
                return self._rest
            # After a long message expect another: read only its head.
            return self._scratch[:_HEAD_BYTES] if self._is_long else self._scratch

        def buffer_updated(self, nbytes: int) -> None:
            """Continue with a complete long message, or with short ones."""
            if not self._rest:
                self.data_received(self._scratch[:nbytes])
                return
            self._rest = self._rest[nbytes:]
            if not self._rest:
                self.data_received(b"")

        def _read_exact(self, n: int) -> Generator[None, None, Any]:
            if n < LONG_BYTES:
                self._is_long = self._is_long and n < _HEAD_BYTES
                return (yield from self._read_short(n))
            self._is_long = True
            whole: memoryview = np.empty(n, "u1").data
            gathered = self._reader.buffer
            have = min(len(gathered), n)
            whole[:have] = gathered[:have]
            del gathered[:have]
            self._rest = whole[have:]
            try:
                while self._rest:
                    if self._reader.eof:
                        raise EOFError(f"{len(self._rest)} of {n} bytes are missing")
                    yield
            finally:
                self._rest = whole[:0]
            return whole.toreadonly()

        def process_event(self, event: Any) -> None:
            """Keep a long message, and pass an empty one in its place."""
            if (
                isinstance(event, frames.Frame)
                and isinstance(event.data, memoryview)
                and event.opcode is frames.Opcode.BINARY
                and event.fin
            ):
                self._long.append(event.data)
                event = frames.Frame(event.opcode, b"")
            super().process_event(event)

        def take(self, data: bytes) -> bytes | memoryview:
            """Return the long message that an empty `data` stands for, or `data`."""
            return data if data or not self._long else self._long.popleft()

    return BufferedConnection


@functools.cache
def joined(frames: Any) -> Any:
    """Return a class of ``websockets.frames`` with a `Fragments` as data."""

    class Joined(frames.Frame):  # type: ignore[misc]
        """Joins its fragments when it is sent."""

        def serialize(self, *, mask: bool, extensions: Any = None) -> bytes:
            """Return the bytes, without mask and extension."""
            data: Fragments = self.data
            return b"".join((_head(self.opcode, len(data)), *data.pieces))

    return Joined


def _head(opcode: int, nbytes: int) -> bytes:
    """Return the header of a message in one frame: section 5.2 of RFC 6455."""
    first = _FINAL | opcode
    if nbytes < _BYTES_2:
        return bytes((first, nbytes))
    if nbytes < 2**16:
        return bytes((first, _BYTES_2)) + nbytes.to_bytes(2, "big")
    return bytes((first, _BYTES_8)) + nbytes.to_bytes(8, "big")


# ---- the transport

CLIENT_BYTES = 256 * 2**20
"""The longest message from a server."""
_WRITE_BYTES = 2**18
_SWEEP_S = 0.5
_CLOSE_S = 2.0
_OPEN_S = 5.0
_BEATS = 3
_log = logging.getLogger("ataraxis.datamux.websocket")
_log.addHandler(logging.NullHandler())
_log.propagate = False  # refused clients get the reason, it is not logged


class WebSocketConnection:
    """A `Connection` over a WebSocket."""

    def __init__(self, socket: Any, peer: str) -> None:
        self._socket = socket
        self._exceptions = need("websockets.exceptions", "remote", "RemoteAPI")
        self.peer = peer
        self._is_text = socket.subprotocol == f"{PROTOCOL}json"
        self.codec = (socket.subprotocol or "").removeprefix(PROTOCOL)
        frames = need("websockets.frames", "remote", "RemoteAPI")
        self._joined = joined(frames)
        self._opcode = frames.Opcode.TEXT if self._is_text else frames.Opcode.BINARY
        self._is_reading = hasattr(socket, "take")

    async def send(self, data: bytes | Fragments) -> None:
        """Send a message; see `Connection.send`."""
        try:
            if isinstance(data, Fragments):
                async with self._socket.send_context():
                    self._socket.protocol.send_frame(self._joined(self._opcode, data))
            else:
                await self._socket.send(data, text=self._is_text)
        except self._exceptions.ConnectionClosed as error:
            raise self._lost(error) from error

    async def receive(self) -> bytes | memoryview:
        """Wait for the next message; see `Connection.receive`."""
        try:
            data: bytes = await self._socket.recv(decode=False)
        except self._exceptions.ConnectionClosed as error:
            raise self._lost(error) from error
        return self._socket.take(data) if self._is_reading else data

    def _lost(self, error: Any) -> ConnectionLost:
        if error.rcvd is None:
            return ConnectionLost(f"the connection to {self.peer} broke: {error}")
        return ConnectionLost(error.rcvd.reason or "no reason given", error.rcvd.code)

    async def close(self, code: int, reason: str) -> None:
        """Close the connection, with as much of the reason as a close frame holds."""
        short = reason.encode()[:120].decode(errors="ignore")
        await self._socket.close(code, short)

    def abort(self) -> None:
        """Break the connection at once."""
        self._socket.transport.abort()


class WebSocketListener:
    """A `Listener` for WebSockets."""

    def __init__(self, server: Any, gate: Gate, path: str) -> None:
        self._server = server
        self._gate = gate
        self._path = path
        self.port: int = 0 if path else gate.getsockname()[1]
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            self._gate.sweep()

    async def close(self, code: int, reason: str) -> None:
        """Stop, and close every connection."""
        self._sweeper.cancel()
        await asyncio.gather(self._sweeper, return_exceptions=True)
        self._server.close(code=code, reason=reason)
        if self._path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
        await self._server.wait_closed()


class WebSocket:
    """WebSockets, with TLS if a context is given, without compression."""

    async def connect(
        self, host: str, port: int, codec: str, identity: Identity, heartbeat_s: float
    ) -> Connection:
        """Open a connection; see `Transport.connect`."""
        client = need("websockets.asyncio.client", "remote", "RemoteAPI")
        exceptions = need("websockets.exceptions", "remote", "RemoteAPI")
        headers = {}
        if (token := identity.shown_token()) is not None:
            headers["Authorization"] = f"Bearer {token}"
        where: dict[str, Any] = {"ssl": identity.tls}
        scheme = "wss" if identity.tls else "ws"
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        named = f"{host}:{port}"
        if host.startswith(UNIX):
            place, named = "localhost", host
            where = {"unix": True, "path": unix_path(host)}
        try:
            frames = need("websockets.frames", "remote", "RemoteAPI")
            socket = await _direct(client)(
                f"{scheme}://{place}/ws", **where, subprotocols=[PROTOCOL + codec],
                additional_headers=headers, compression=None, proxy=None,
                open_timeout=_OPEN_S, close_timeout=_CLOSE_S,
                ping_interval=heartbeat_s, ping_timeout=heartbeat_s * (_BEATS - 1),
                max_size=CLIENT_BYTES, write_limit=_WRITE_BYTES, logger=_log,
                create_connection=reading(client.ClientConnection, frames),
            )  # fmt: skip
        except exceptions.InvalidStatus as error:
            raise _refused(error.response, named) from error
        except exceptions.InvalidHandshake as error:
            raise RemoteError(
                f"{named} is not a server of ataraxis: {error}"
            ) from error
        except EOFError as error:
            raise RemoteError(f"{named} closed the connection: {error}") from error
        return WebSocketConnection(socket, named)

    async def listen(
        self, host: str, port: int, codecs: tuple[str, ...], access: Access,
        limits: Limits, serve: Serve,
    ) -> WebSocketListener:  # fmt: skip
        """Accept connections; see `Transport.listen`."""
        module = need("websockets.asyncio.server", "remote", "a remote API")

        async def serve_socket(socket: Any) -> None:
            address = socket.remote_address
            peer = f"{address[0]}:{address[1]}" if address else "this machine"
            await serve(WebSocketConnection(socket, peer))

        path = unix_path(host) if access.is_unix else ""
        listeners = [bound_unix(path)] if path else bound(host, port)
        admission = Admission(module, codecs, access, limits, serve_socket)
        admission.gate = gate = Gate(listeners, limits)
        if not path:
            access.publish(gate.getsockname()[1])
        server = await module.serve(
            admission.serve, sock=gate, backlog=BACKLOG, ssl=access.tls,
            process_request=admission.refuse, select_subprotocol=admission.choose,
            create_connection=admission.connection, compression=None,
            server_header=None, open_timeout=limits.handshake_s,
            close_timeout=_CLOSE_S, ping_interval=limits.heartbeat_s,
            ping_timeout=limits.heartbeat_s * (_BEATS - 1),
            max_size=limits.message_bytes, max_queue=2, write_limit=_WRITE_BYTES,
            logger=_log,
        )  # fmt: skip
        return WebSocketListener(server, gate, path)


@functools.cache
def _direct(client: Any) -> Any:
    """Return ``connect`` without redirects, as a token is for one server."""

    class Direct(client.connect):  # type: ignore[misc]
        """Does not follow redirects."""

        def process_redirect(self, exc: Exception) -> Exception:
            """Treat a redirect as a refusal."""
            return exc

    return Direct


def _refused(response: Any, where: str) -> Exception:
    words = bytes(response.body or b"")[:500].decode(errors="replace").strip()
    kind = AccessDenied if response.status_code in (401, 403) else RemoteError
    return kind(f"{where} refused: {words or response.reason_phrase}")
