"""The transport ``websocket``: the `websockets` library's asyncio side."""

from __future__ import annotations

import logging
from typing import Any

from ataraxis.datamux.optional import need
from ataraxis.datamux.remote.access import Access, Identity
from ataraxis.datamux.remote.data import Data
from ataraxis.datamux.remote.door import PROTOCOL, Door
from ataraxis.datamux.remote.limits import Limits
from ataraxis.datamux.remote.straight import joined, reading
from ataraxis.datamux.remote.transport import Connection, ConnectionLost, Serve
from ataraxis.errors import AccessDenied, RemoteError

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
        self._is_text = socket.subprotocol == f"{PROTOCOL}json"
        self.codec = (socket.subprotocol or "").removeprefix(PROTOCOL)
        frames = need("websockets.frames", "remote", "RemoteAPI")
        self._joined = joined(frames)
        self._opcode = frames.Opcode.TEXT if self._is_text else frames.Opcode.BINARY
        self._is_reading = hasattr(socket, "take")

    async def send(self, data: bytes | Data) -> None:
        """Send a message; see `Connection.send`."""
        try:
            if isinstance(data, Data):
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
                create_connection=reading(
                    client.ClientConnection,
                    need("websockets.frames", "remote", "RemoteAPI"),
                ),
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

        async def serve_socket(socket: Any) -> None:
            address = socket.remote_address
            peer = f"{address[0]}:{address[1]}" if address else "somebody"
            await serve(WebSocketConnection(socket, peer))

        door = Door(module, codecs, access, limits, serve_socket)
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


def _refused(response: Any, where: str) -> Exception:
    words = bytes(response.body or b"")[:500].decode(errors="replace").strip()
    kind = AccessDenied if response.status_code in (401, 403) else RemoteError
    return kind(f"{where} refused: {words or response.reason_phrase}")
