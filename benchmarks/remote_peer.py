"""Servers for bench_remote.py, each in a separate process; print the port.

python remote_peer.py ours FOLDER
python remote_peer.py bare BYTES COUNT DIFFERENT
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading


def ours(folder: str) -> None:
    import ataraxis.datamux as dm

    with dm.Server(dm.API(folder, folder)) as server:
        print(server.port, flush=True)
        threading.Event().wait()


async def bare(nbytes: int, count: int, different: int) -> None:
    from websockets.asyncio.server import serve

    # As many different messages as the recording has blocks, so that no cache helps.
    messages = [os.urandom(nbytes) for _ in range(different)]

    async def send(socket) -> None:
        await socket.recv()
        for i in range(count):
            await socket.send(messages[i % different])
        await socket.wait_closed()

    async with serve(
        send, "127.0.0.1", 0, compression=None, write_limit=2**20, max_size=None
    ) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "ours":
        ours(sys.argv[2])
    else:
        asyncio.run(bare(*map(int, sys.argv[2:])))
