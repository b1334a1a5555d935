"""How a client is sent away: with words that reach it."""

from __future__ import annotations

import asyncio

from ataraxis.datamux.remote.codec import Codec
from ataraxis.datamux.remote.failure import packed_error
from ataraxis.datamux.remote.transport import REFUSED, Connection, ConnectionLost

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
