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

# ---- the admission of a server: who is let in, and how many at a time

PROTOCOL = "ataraxis.1."
"""What the name of a codec follows in ``Sec-WebSocket-Protocol``."""
PATHS = ("/", "/ws")


class Admission:
    """Lets connections in, or says why not."""

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
            """A connection whose peer is looked at, if it is of this machine."""

            def connection_made(self, transport: Any) -> None:
                """Break a connection of another user."""
                super().connection_made(transport)
                if access.is_unix and not is_same_user(transport):
                    transport.abort()

            def connection_lost(self, error: Exception | None) -> None:
                """Forget it."""
                admission.let_in(self)
                super().connection_lost(error)

        self.connection = Admitted

    def let_in(self, socket: Any) -> None:
        """Count a connection no more: it is in, or gone."""
        made = socket.transport.get_extra_info("socket")
        if self.gate is not None and made is not None and made.fileno() >= 0:
            self.gate.let_in(made.fileno())

    def refuse(self, socket: Any, request: Any) -> Any:
        """Return the answer to a request that is refused; None if it is not."""
        headers = {name.lower(): value for name, value in request.headers.raw_items()}
        path = request.path.partition("?")[0]
        refusal = self._access.refusal(headers)
        offered = headers.get("sec-websocket-protocol", "")
        if path not in PATHS:
            refusal = 404, f"nothing is at {path[:80]!r}: connect to /ws"
        elif refusal is None and not self._chosen(offered.split(",")):
            spoken = ", ".join(self._codecs)
            refusal = 400, f"this server speaks {spoken}, not {offered[:80]!r}"
        elif refusal is None and self._open >= 2 * self._limits.clients:
            # Those too who are being told why they may not stay.
            refusal = 503, f"{self._open} connections are here: come again later"
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
        """Serve a connection that was let in."""
        self.let_in(socket)
        self._open += 1
        try:
            await self._serve(socket)
        finally:
            self._open -= 1


# ---- long messages through `websockets` with one copy on each side, where it makes
# four

# It reads a socket into pieces, gathers these, cuts the message out and copies it once
# more; it writes a message after a copy of each of its fragments. Here a long message
# is received where it stays, and sent as one frame that is joined once. Handshakes,
# heartbeats and closing stay what they are.

LONG_BYTES = 2**16
"""From here on a message is read into memory of its own."""
_SCRATCH_BYTES = 2**18
_HEAD_BYTES = 2**12
_FINAL, _BYTES_2, _BYTES_8 = 0x80, 126, 127


@functools.cache
def reading(connection: Any, frames: Any) -> Any:
    """Return a kind of a client's connection that reads long messages so.

    Parameters
    ----------
    connection : type
        ``websockets.asyncio.client.ClientConnection``.
    frames : module
        ``websockets.frames``.

    Returns
    -------
    type
        Its `take` turns what ``recv(decode=False)`` returned into the message.
    """

    class BufferedConnection(connection, asyncio.BufferedProtocol):  # type: ignore[misc]
        """Gives the socket the memory of the message that is to come."""

        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            self._scratch = memoryview(bytearray(_SCRATCH_BYTES))
            self._rest = self._scratch[:0]  # of a long message: what is to come
            self._is_long = False  # the last message was
            self._long: deque[memoryview] = deque()
            self._reader = self.protocol.reader
            self._read_short = self._reader.read_exact
            self._reader.read_exact = self._read_exact

        def get_buffer(self, sizehint: int) -> memoryview:
            """Return where bytes shall come."""
            if self._rest:
                return self._rest
            # After a long message comes another: only its head passes by here.
            return self._scratch[:_HEAD_BYTES] if self._is_long else self._scratch

        def buffer_updated(self, nbytes: int) -> None:
            """Go on, once a long message is whole, or with what is short."""
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
                        raise EOFError(f"{len(self._rest)} of {n} bytes did not come")
                    yield
            finally:
                self._rest = whole[:0]
            return whole.toreadonly()

        def process_event(self, event: Any) -> None:
            """Lay a long message aside, and let an empty one stand for it."""
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
            """Return the message that `data` stands for; itself if it is one."""
            return data if data or not self._long else self._long.popleft()

    return BufferedConnection


@functools.cache
def joined(frames: Any) -> Any:
    """Return a kind of frame whose data is a `Fragments`: as sent by a server.

    Parameters
    ----------
    frames : module
        ``websockets.frames``.
    """

    class Joined(frames.Frame):  # type: ignore[misc]
        """Is put together when it is sent."""

        def serialize(self, *, mask: bool, extensions: Any = None) -> bytes:
            """Return its bytes: not masked, and of no extension."""
            data: Fragments = self.data
            return b"".join((_head(self.opcode, len(data)), *data.pieces))

    return Joined


def _head(opcode: int, nbytes: int) -> bytes:
    """Return what a message in one frame begins with: section 5.2 of RFC 6455."""
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
_log.propagate = False  # what strangers do at the admission is told to them, not to us


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
        words = error.rcvd.reason or "it gave no reason"
        return ConnectionLost(words, error.rcvd.code)

    async def close(self, code: int, reason: str) -> None:
        """End it, and say why, in as many of the words as a close frame holds."""
        short = reason.encode()[:120].decode(errors="ignore")
        await self._socket.close(code, short)

    def abort(self) -> None:
        """Break it at once."""
        self._socket.transport.abort()


class WebSocketListener:
    """A `Listener` for WebSockets."""

    def __init__(self, server: Any, gate: Gate, path: str) -> None:
        self._server = server
        self._gate = gate
        self._path = path
        self.port: int = 0 if path else gate.getsockname()[1]
        loop = asyncio.get_running_loop()
        self._sweeper = loop.create_task(self._sweep())

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            self._gate.sweep()

    async def close(self, code: int, reason: str) -> None:
        """Stop, and end every connection."""
        self._sweeper.cancel()
        await asyncio.gather(self._sweeper, return_exceptions=True)
        self._server.close(code=code, reason=reason)
        if self._path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
        await self._server.wait_closed()


class WebSocket:
    """WebSockets, with TLS if there is a context, and without compression."""

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
            socket = await _direct(client)(
                f"{scheme}://{place}/ws",
                **where,
                subprotocols=[PROTOCOL + codec],
                additional_headers=headers,
                compression=None,
                proxy=None,
                open_timeout=_OPEN_S,
                close_timeout=_CLOSE_S,
                ping_interval=heartbeat_s,
                ping_timeout=heartbeat_s * (_BEATS - 1),
                max_size=CLIENT_BYTES,
                write_limit=_WRITE_BYTES,
                logger=_log,
                create_connection=reading(
                    client.ClientConnection,
                    need("websockets.frames", "remote", "RemoteAPI"),
                ),
            )
        except exceptions.InvalidStatus as error:
            raise _refused(error.response, named) from error
        except exceptions.InvalidHandshake as error:
            raise RemoteError(
                f"{named} answers, but not as a server of ataraxis: {error}"
            ) from error
        except EOFError as error:
            raise RemoteError(f"{named} hung up: {error}") from error
        return WebSocketConnection(socket, named)

    async def listen(
        self, host: str, port: int, codecs: tuple[str, ...], access: Access,
        limits: Limits, serve: Serve,
    ) -> WebSocketListener:  # fmt: skip
        """Wait for connections; see `Transport.listen`."""
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
            admission.serve,
            sock=gate,
            backlog=BACKLOG,
            ssl=access.tls,
            process_request=admission.refuse,
            select_subprotocol=admission.choose,
            create_connection=admission.connection,
            compression=None,
            server_header=None,
            open_timeout=limits.handshake_s,
            close_timeout=_CLOSE_S,
            ping_interval=limits.heartbeat_s,
            ping_timeout=limits.heartbeat_s * (_BEATS - 1),
            max_size=limits.message_bytes,
            max_queue=2,
            write_limit=_WRITE_BYTES,
            logger=_log,
        )
        return WebSocketListener(server, gate, path)


@functools.cache
def _direct(client: Any) -> Any:
    """Return ``connect`` without redirects: a token goes where it was given for."""

    class Direct(client.connect):  # type: ignore[misc]
        """Follows no redirect."""

        def process_redirect(self, exc: Exception) -> Exception:
            """Take a redirect for the refusal that it is."""
            return exc

    return Direct


def _refused(response: Any, where: str) -> Exception:
    words = bytes(response.body or b"")[:500].decode(errors="replace").strip()
    kind = AccessDenied if response.status_code in (401, 403) else RemoteError
    return kind(f"{where} refused: {words or response.reason_phrase}")
