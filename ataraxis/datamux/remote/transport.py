"""What a remote API needs of a network: connections that carry whole messages in order.

Small, so that another one fits beside WebSocket.
"""

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
"""The other side left of its own will."""
GOING_AWAY = 1001
"""The other side is shutting down."""
REFUSED = 1008
"""The other side refuses to go on: the reason says why."""


class ConnectionLost(ConnectionError):
    """A connection ended.

    Parameters
    ----------
    reason : str
        What is known of it.
    code : int or None
        Why, as WebSocket has it; None if it just broke.
    """

    def __init__(self, reason: str, code: int | None = None) -> None:
        super().__init__(reason)
        self.code = code


class Connection(Protocol):
    """One open connection. It finds out by itself, in time, that the peer is gone."""

    codec: str
    """Name of the codec that both sides have agreed on."""
    peer: str
    """Who the other side is, for people."""

    async def send(self, data: bytes | Fragments) -> None:
        """Send a message; wait while the network is behind.

        Raises
        ------
        ConnectionLost
            It is not there any more.
        """

    async def receive(self) -> bytes | memoryview:
        """Wait for the next message.

        Raises
        ------
        ConnectionLost
            It is not there any more.
        """

    async def close(self, code: int, reason: str) -> None:
        """End it, and say why."""

    def abort(self) -> None:
        """Break it at once."""


class Listener(Protocol):
    """Waits for connections."""

    port: int
    """Where."""

    async def close(self, code: int, reason: str) -> None:
        """Stop, and end every connection."""


Serve = Callable[[Connection], Awaitable[None]]


class Transport(Protocol):
    """A kind of network."""

    async def connect(
        self, host: str, port: int, codec: str, identity: Identity, heartbeat_s: float
    ) -> Connection:
        """Open a connection.

        Raises
        ------
        AccessDenied, RemoteError
            The other side refused: its words.
        OSError
            It is not there.
        """

    async def listen(
        self, host: str, port: int, codecs: tuple[str, ...], access: Access,
        limits: Limits, serve: Serve,
    ) -> Listener:  # fmt: skip
        """Wait for connections, and serve each.

        Raises
        ------
        OSError
            The address is in use, or is not ours.
        """


_HOME = {"websocket": "ataraxis.datamux.remote.websocket:WebSocket"}
TRANSPORTS = tuple(_HOME)
"""Names of the transports."""


def transport_of(name: str) -> Transport:
    """Return the transport of a name: 'websocket'.

    Raises
    ------
    SourceNotFound
        There is none of that name.
    ModuleNotFoundError
        What it needs is not installed: what to type.
    """
    found: Transport = made(_HOME, name, "rpc")
    return found


# ---- how a client is sent away: with words that reach it

_LINGER_S = 2.0
_CLOSE_S = 3.0


async def refuse(connection: Connection, codec: Codec, error: BaseException) -> None:
    """Tell a client why, and close.

    What it still sends is read for a while, and forgotten: a connection that is closed
    with something unread breaks, and takes the words with it.
    """
    try:
        async with asyncio.timeout(_LINGER_S):
            told = {"op": "error", "error": packed_error(error)}
            await connection.send(codec.encode(told))
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
