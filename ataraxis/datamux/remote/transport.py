"""The protocol of transports: connections that carry whole messages in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from ataraxis.config.limits import Limits
from ataraxis.datamux.catalog import made
from ataraxis.datamux.remote.access import Access, Identity
from ataraxis.datamux.remote.codec import Codec, Fragments
from ataraxis.datamux.remote.layout import packed_error

CLOSED_BY_PEER = 1000
"""The peer disconnected."""
GOING_AWAY = 1001
"""The peer is shutting down."""
REFUSED = 1008
"""The peer refuses to continue; see the reason."""


class ConnectionLost(ConnectionError):
    """A connection ended, with a code of WebSocket; None if it broke."""

    def __init__(self, reason: str, code: int | None = None) -> None:
        super().__init__(reason)
        self.code = code


class Connection(Protocol):
    """One open connection; it detects a peer that is gone."""

    codec: str
    """Name of the codec that both sides agreed on."""
    peer: str
    """Name of the peer, for people."""

    async def send(self, data: bytes | Fragments) -> None:
        """Send a message; wait while the network is slow. Raises `ConnectionLost`."""

    async def receive(self) -> bytes | memoryview:
        """Wait for the next message; raise `ConnectionLost` if the connection ended."""

    async def close(self, code: int, reason: str) -> None:
        """Close the connection, with a reason."""

    def abort(self) -> None:
        """Break the connection at once."""


class Listener(Protocol):
    """Accepts connections."""

    port: int
    """Port on which it listens."""

    async def close(self, code: int, reason: str) -> None:
        """Stop, and close every connection."""


Serve = Callable[[Connection], Awaitable[None]]


class Transport(Protocol):
    """A kind of network."""

    async def connect(
        self, host: str, port: int, codec: str, identity: Identity, heartbeat_s: float
    ) -> Connection:
        """Open a connection.

        Raises `AccessDenied` or `RemoteError` if the server refuses, `OSError` if it
        cannot be reached.
        """

    async def listen(
        self, host: str, port: int, codecs: tuple[str, ...], access: Access,
        limits: Limits, serve: Serve,
    ) -> Listener:  # fmt: skip
        """Accept connections, and serve each; raise `OSError` if it cannot listen."""


_HOME = {"websocket": "ataraxis.datamux.remote.websocket:WebSocket"}
"""Names of the transports."""


def transport_of(name: str) -> Transport:
    """Return the transport of a name, 'websocket'; raises as `codec_of`."""
    found: Transport = made(_HOME, name, "rpc")
    return found


# ---- refusing a client, so that it receives the reason

_LINGER_S = 2.0
_CLOSE_S = 3.0


async def refuse(connection: Connection, codec: Codec, error: BaseException) -> None:
    """Send an error to a client, and close.

    Data that it still sends is read for a while and dropped: closing a connection with
    unread data breaks it, and the error would be lost.
    """
    try:
        async with asyncio.timeout(_LINGER_S):
            message = {"op": "error", "error": packed_error(error)}
            await connection.send(codec.encode(message))
            while True:
                await connection.receive()
    except ConnectionLost:
        return
    except TimeoutError:
        pass
    try:
        async with asyncio.timeout(_CLOSE_S):
            await connection.close(REFUSED, str(error))
    except (ConnectionLost, TimeoutError):
        connection.abort()
