"""The transport ``websocket``: the `websockets` library's asyncio side."""

from __future__ import annotations

import http
import logging
from typing import Any

from ataraxis.datamux.optional import need
from ataraxis.datamux.remote.access import Access, Identity
from ataraxis.datamux.remote.limits import Limits
from ataraxis.datamux.remote.transport import Connection, ConnectionLost, Serve
from ataraxis.errors import AccessDenied, RemoteError

PROTOCOL = "ataraxis.1."
"""What the name of a codec follows in ``Sec-WebSocket-Protocol``."""
PATHS = ("/", "/ws")
CLIENT_BYTES = 256 * 2**20
"""The longest message from a server."""
_WRITE_BYTES = 2**20
_CLOSE_S = 2.0
_OPEN_S = 5.0
_BEATS = 3
_log = logging.getLogger("ataraxis.datamux.websocket")
_log.addHandler(logging.NullHandler())
_log.propagate = False  # what strangers do at the door is told to them, not to us


class WebSocketConnection:
    """A `Connection` over a WebSocket."""

    def __init__(self, socket: Any, peer: str) -> None:
        self._socket = socket
        self._exceptions = need("websockets.exceptions", "remote", "RemoteAPI")
        self.peer = peer
        self.codec = (socket.subprotocol or "").removeprefix(PROTOCOL)

    async def send(self, data: bytes | bytearray) -> None:
        """Send a message; see `Connection.send`."""
        try:
            await self._socket.send(data)
        except self._exceptions.ConnectionClosed as error:
            raise self._lost(error) from error

    async def receive(self) -> bytes:
        """Wait for the next message; see `Connection.receive`."""
        try:
            data: bytes = await self._socket.recv(decode=False)
        except self._exceptions.ConnectionClosed as error:
            raise self._lost(error) from error
        return data

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

    def __init__(self, server: Any) -> None:
        self._server = server
        self.port: int = server.sockets[0].getsockname()[1]

    async def close(self, code: int, reason: str) -> None:
        """Stop, and end every connection."""
        self._server.close(code=code, reason=reason)
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
        if identity.token is not None:
            headers["Authorization"] = f"Bearer {identity.token}"
        scheme = "wss" if identity.tls else "ws"
        place = f"[{host}]" if ":" in host else host
        try:
            socket = await client.connect(
                f"{scheme}://{place}:{port}/ws",
                ssl=identity.tls,
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
            )
        except exceptions.InvalidStatus as error:
            raise _refused(error.response, f"{host}:{port}") from error
        except exceptions.InvalidHandshake as error:
            raise RemoteError(
                f"{host}:{port} answers, but not as a server of ataraxis: {error}"
            ) from error
        except EOFError as error:
            raise RemoteError(f"{host}:{port} hung up: {error}") from error
        return WebSocketConnection(socket, f"{host}:{port}")

    async def listen(
        self, host: str, port: int, codecs: tuple[str, ...], access: Access,
        limits: Limits, serve: Serve,
    ) -> WebSocketListener:  # fmt: skip
        """Wait for connections; see `Transport.listen`."""
        module = need("websockets.asyncio.server", "remote", "a remote API")
        door = Door(module, codecs, access, limits, serve)
        server = await module.serve(
            door.serve,
            host,
            port,
            ssl=access.tls,
            process_request=door.refuse,
            select_subprotocol=door.choose,
            create_connection=door.connection,
            compression=None,
            server_header=None,
            open_timeout=limits.handshake_s,
            close_timeout=_CLOSE_S,
            ping_interval=limits.heartbeat_s,
            ping_timeout=limits.heartbeat_s * (_BEATS - 1),
            max_size=limits.message_bytes,
            max_queue=4,
            write_limit=_WRITE_BYTES,
            logger=_log,
        )
        return WebSocketListener(server)


class Door:
    """Lets connections in, or says why not."""

    def __init__(
        self,
        module: Any,
        codecs: tuple[str, ...],
        access: Access,
        limits: Limits,
        serve: Serve,
    ) -> None:
        self._codecs = codecs
        self._access = access
        self._limits = limits
        self._serve = serve
        self._waiting: set[Any] = set()
        self._open = 0
        door = self

        class Counted(module.ServerConnection):  # type: ignore[misc]
            """A connection that is counted until it has said who it is."""

            def connection_made(self, transport: Any) -> None:
                """Let it wait, unless too many do."""
                super().connection_made(transport)
                if len(door._waiting) >= limits.handshakes:
                    transport.abort()
                else:
                    door._waiting.add(self)

            def connection_lost(self, error: Exception | None) -> None:
                """Forget it."""
                door._waiting.discard(self)
                super().connection_lost(error)

        self.connection = Counted

    def refuse(self, socket: Any, request: Any) -> Any:
        """Return the answer to a request that is refused; None if it is not."""
        headers = {name.lower(): value for name, value in request.headers.raw_items()}
        path = request.path.partition("?")[0]
        refusal = self._access.refusal(headers)
        offered = headers.get("sec-websocket-protocol", "")
        if path not in PATHS:
            refusal = 404, f"nothing is at {path[:80]!r}: connect to /ws"
        elif refusal is None and not self._chosen(offered.split(",")):
            refusal = (
                400,
                (
                    f"this server speaks {', '.join(self._codecs)}, not {offered[:80]!r}: "
                    f"the subprotocol is {PROTOCOL}CODEC"
                ),
            )
        elif refusal is None and self._open >= self._limits.clients:
            refusal = 503, f"{self._open} clients are here already: come again later"
        if refusal is None:
            return None
        return socket.respond(http.HTTPStatus(refusal[0]), refusal[1] + "\n")

    def _chosen(self, offered: list[str]) -> str | None:
        for name in map(str.strip, offered):
            if (
                name.startswith(PROTOCOL)
                and name.removeprefix(PROTOCOL) in self._codecs
            ):
                return name
        return None

    def choose(self, socket: Any, offered: list[str]) -> str | None:
        """Return the subprotocol."""
        return self._chosen(offered)

    async def serve(self, socket: Any) -> None:
        """Serve a connection that was let in."""
        self._waiting.discard(socket)
        address = socket.remote_address
        peer = f"{address[0]}:{address[1]}" if address else "somebody"
        self._open += 1
        try:
            await self._serve(WebSocketConnection(socket, peer))
        finally:
            self._open -= 1


def _refused(response: Any, where: str) -> Exception:
    words = bytes(response.body or b"")[:500].decode(errors="replace").strip()
    kind = AccessDenied if response.status_code in (401, 403) else RemoteError
    return kind(f"{where} refused: {words or response.reason_phrase}")
