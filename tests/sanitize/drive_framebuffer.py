"""Work the frame buffer's kernels hard inside one process, for a sanitizer to watch.

Run by tests/stress/test_sanitizers.py as drive.py is, with the same arguments. Clients
share one mapping, so that a sanitizer, which sees one process and one address per byte,
sees all sides of every chunk.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections.abc import Callable

sys.meta_path[:] = [f for f in sys.meta_path if "Mesonpy" not in type(f).__name__]
sys.path.insert(0, sys.argv[1])

import numpy as np  # noqa: E402

from ataraxis import (  # noqa: E402
    FrameBufferClient,
    FrameBufferServer,
    FrameBufferTimeout,
)
from ataraxis._kernels import framebuffer, memory  # noqa: E402
from ataraxis.framebuffer.client import digest_of  # noqa: E402
from ataraxis.shm import Segment  # noqa: E402

for kernel in (framebuffer, memory):
    assert kernel.__file__.startswith(sys.argv[1]), kernel.__file__
# Chunks on both sides of what is copied with the GIL, in a ring of a few of them.
MOST, CAPACITY = 100_000, 400_000
WIDTHS = [0, *framebuffer.widths()]


def another(segment: Segment, width: int) -> FrameBufferClient:
    """Read and write through the very same mapping."""
    client = FrameBufferClient.of_segment(segment)
    client._hash_by(digest_of, width)
    return client


def main(directory: str, seconds: float) -> None:
    failed: list[BaseException] = []
    done = [0] * 8
    with (
        FrameBufferServer("watched", CAPACITY, context=directory) as server,
        FrameBufferClient("watched", context=directory) as first,
    ):
        segment = first._segment
        assert segment is not None
        clients = [another(segment, WIDTHS[k % len(WIDTHS)]) for k in range(6)]
        posted: list[tuple[int, int, bytes]] = []
        deadline = time.monotonic() + seconds

        def write(me: int, client: FrameBufferClient) -> None:
            chance = random.Random(me + 8 * done[me])
            data = chance.randbytes(chance.choice([1, 8, 200, 241, 5000, MOST]))
            offset = client.allocate(len(data))
            posted.append((offset, len(data), client.write(offset, data)))
            del posted[:-6]

        def read(me: int, client: FrameBufferClient) -> None:
            if not posted:
                return
            offset, size, checksum = random.choice(posted)
            out = np.empty(size, "u1")
            try:
                client.read_into(offset, size, checksum, out)
                assert digest_of(out) == checksum, "wrong bytes were accepted"
                assert digest_of(client.read(offset, size, checksum)) == checksum
            except FrameBufferTimeout:
                pass

        def label(me: int, client: FrameBufferClient) -> None:
            try:
                ticket = client.put(np.arange(me, me + 700))
                assert client.get(ticket)[0] == me
            except FrameBufferTimeout:
                pass
            assert client.statistics().oldest_s >= 0

        def serve(me: int, client: FrameBufferClient) -> None:
            # Wills are made and revoked; slots taken and left.
            key = f"other {me}"
            with FrameBufferServer(key, 1000, context=directory) as other:
                other.allocate(7)
                with FrameBufferClient(key, context=directory) as mine:
                    mine.read(0, 3, mine.write(0, b"abc"))
            server.allocate(1 + done[me] % 9, align=8)

        def run(
            me: int, job: Callable[[int, FrameBufferClient], None],
            client: FrameBufferClient,
        ) -> None:  # fmt: skip
            try:
                while time.monotonic() < deadline and not failed:
                    job(me, client)
                    done[me] += 1
            except BaseException as error:
                failed.append(error)

        jobs = [write, write, read, read, label, serve, read, write]
        threads = [
            threading.Thread(target=run, args=(me, job, clients[me % 6]))
            for me, job in enumerate(jobs)
        ]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        if failed:
            raise failed[0]
        for width in WIDTHS:
            every_form(another(segment, width))
        clients.clear()
    print("done", done)
    assert all(done), "a thread starved"


def every_form(client: FrameBufferClient) -> None:
    """Each size up to some blocks, in buffers without a byte to spare; and nonsense."""
    chance = random.Random(7)
    sizes = [*range(1, 700), 1023, 1024, 1025, 4096, 65536, 65537, 70_001]
    for size in sizes:
        data = chance.randbytes(size)
        at = CAPACITY - size
        checksum = client.write(at, data)
        out = np.empty(size, "u1")
        client.read_into(at, size, checksum, out)
        assert out.tobytes() == data == client.read(at, size, checksum)
        assert client.write(at, out) == checksum
    far = [0, 1, -1, CAPACITY, CAPACITY - 1, 1 << 62, -(1 << 63), 1 << 64, "7", None]
    for _ in range(2000):
        offset, size = chance.choice(far), chance.choice(far)
        try:
            client.read(offset, size, bytes(8))  # type: ignore[arg-type]
        except (ValueError, TypeError, FrameBufferTimeout):
            pass
        try:
            client.write(offset, os.urandom(3))  # type: ignore[arg-type]
            client.allocate(size)  # type: ignore[arg-type]
        except (ValueError, TypeError):
            pass


if __name__ == "__main__":
    main(sys.argv[2], float(sys.argv[3]))
