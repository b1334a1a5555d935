"""A network between a client and a server that can be cut or silenced."""

from __future__ import annotations

import asyncio

from ataraxis.datamux.remote.loop_thread import LoopThread


class Relay:
    """Forwards bytes to a port of this machine."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._is_open = True
        self._thread = LoopThread("relay")
        self._flows = self._thread.run(self._made()).result(10)
        self.connections = 0
        """Number of connections so far."""
        self._server = self._thread.run(self._listen()).result(10)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _made(self) -> asyncio.Event:
        event = asyncio.Event()
        event.set()
        return event

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**16)

    async def _serve(self, reader, writer) -> None:
        if not self._is_open:
            writer.transport.abort()
            return
        self.connections += 1
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        pair = (writer, back)
        self._pairs.add(pair)
        await asyncio.gather(self._pass(reader, back), self._pass(there, writer))
        self._pairs.discard(pair)

    async def _pass(self, reader, writer) -> None:
        try:
            while data := await reader.read(2**16):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.close()

    def cut(self) -> None:
        """Break every connection."""
        self._thread.run(self._cut()).result(10)

    async def _cut(self) -> None:
        for pair in [*self._pairs]:
            for writer in pair:
                writer.transport.abort()

    def shut(self) -> None:
        """Break every connection, and refuse new ones."""
        self._is_open = False
        self.cut()

    def open(self) -> None:
        """Accept connections again."""
        self._is_open = True

    def silence(self) -> None:
        """Hold all bytes, without an error."""
        self._thread.loop.call_soon_threadsafe(self._flows.clear)

    def speak(self) -> None:
        """Forward the held bytes."""
        self._thread.loop.call_soon_threadsafe(self._flows.set)

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *exc: object) -> None:
        self._thread.loop.call_soon_threadsafe(self._server.close)
        self.speak()
        self.cut()
        self._thread.close()
