"""Long messages through `websockets` with one copy on each side, where it makes four.

It reads a socket into pieces, gathers these, cuts the message out and copies it once
more; it writes a message after a copy of each of its fragments. Here a long message is
received where it stays, and sent as one frame that is joined once. Handshakes,
heartbeats and closing stay what they are.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Generator
from typing import Any

import numpy as np

from ataraxis.datamux.remote.data import Data

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

    class Reading(connection, asyncio.BufferedProtocol):  # type: ignore[misc]
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

    return Reading


@functools.cache
def joined(frames: Any) -> Any:
    """Return a kind of frame whose data is a `Data`: as sent by a server.

    Parameters
    ----------
    frames : module
        ``websockets.frames``.
    """

    class Joined(frames.Frame):  # type: ignore[misc]
        """Is put together when it is sent."""

        def serialize(self, *, mask: bool, extensions: Any = None) -> bytes:
            """Return its bytes: not masked, and of no extension."""
            data: Data = self.data
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
