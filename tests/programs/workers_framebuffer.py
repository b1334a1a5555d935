"""What the frame buffer's tests run in other processes, and the deeds they share."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from places import ROOT

from ataraxis import FrameBufferClient, FrameBufferServer, FrameBufferTimeout
from ataraxis.errors import SegmentExists, SegmentNotFound

HOWTO = ROOT / "docs" / "howto" / "framebuffer.md"


# As a container is: PID, IPC, mount and host name of its own.
CONTAINED = [
    "unshare", "--pid", "--ipc", "--mount", "--uts", "--fork", "--mount-proc",
    "--kill-child",
]  # fmt: skip


def can_contain() -> bool:
    """Whether this user may make namespaces (it needs CAP_SYS_ADMIN)."""
    return shutil.which("unshare") is not None and (
        subprocess.run([*CONTAINED, "true"], capture_output=True).returncode == 0
    )


def pages(directory: Path) -> None:
    """Write the programs of the how-to into a directory, each under its own name."""
    blocks = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", HOWTO.read_text(), re.S)
    for name, text in blocks:
        (directory / name).write_text(text)


def free_ports(count: int) -> list[int]:
    """Find ports without a listener."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def listens(port: int) -> bool:
    """Whether a server answers there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def heeded_signals() -> Iterator[None]:
    """Let programs that are started here heed SIGINT and SIGHUP.

    What runs in the background of a shell, or under nohup, ignores them, and so would
    all that it starts.
    """
    ignored = [n for n in (1, 2, 15) if signal.getsignal(n) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)


def pattern(seed: int, size: int) -> bytes:
    """Make bytes that tell their seed: any mixture of two is neither."""
    return random.Random(seed).randbytes(size)


def write_until_told(key: str, seed: int, most: int, tickets: Any, stop: Any) -> None:
    """Put patterned chunks of random sizes, and offer (seed, ticket) to the readers."""
    chance = random.Random(seed)
    count = 0
    with FrameBufferClient(key, timeout=30) as client:
        while not stop.is_set():
            size = chance.randint(1, most)
            count += 1
            mark = seed * 1_000_000 + count
            data = np.frombuffer(pattern(mark, size), np.uint8)
            try:
                ticket = client.put(data, align=1)
            except FrameBufferTimeout:
                continue
            offer(tickets, (mark, ticket.offset, size, ticket.digest))
    tickets.cancel_join_thread()


def offer(queue: Any, item: Any) -> None:
    """Put if there is room: no process waits, or is waited for."""
    if queue.qsize() < 12:
        queue.put(item)


def read_until_told(key: str, seed: int, tickets: Any, stop: Any, counts: Any) -> None:
    """Read what is offered, late as it comes; count right, late and wrong payloads."""
    import queue

    chance = random.Random(seed)
    right = late = wrong = 0
    out = np.empty(1 << 20, np.uint8)
    with FrameBufferClient(key, timeout=30) as client:
        while not stop.is_set():
            try:
                mark, offset, size, checksum = tickets.get(timeout=0.05)
            except queue.Empty:
                continue
            way = chance.randrange(3)
            try:
                if way == 0:
                    data = client.read(offset, size, checksum)
                elif way == 1:
                    client.read_into(offset, size, checksum, out[:size])
                    data = out[:size].tobytes()
                else:
                    with client.view(offset, size, checksum) as live:
                        data = live.tobytes()
            except FrameBufferTimeout:
                late += 1
                continue
            if data == pattern(mark, size):
                right += 1
            else:
                wrong += 1
    counts.put((right, late, wrong))


def serve_until_killed(key: str, size: int, stop: str) -> None:
    """Serve a key until the board says stop, or killed."""
    with FrameBufferServer(key, size):
        while not os.path.exists(stop):
            time.sleep(0.005)


def exchange_until_killed(key: str, me: int, boards: str, stop: str) -> None:
    """Put, post what was put, get what others posted, until stopped or killed.

    A board is a file that is replaced as a whole, so that no kill leaves half of one.
    """
    chance = random.Random(os.getpid())
    count = 0
    while not os.path.exists(stop):
        try:
            with FrameBufferClient(key, timeout=5) as client:
                while not os.path.exists(stop):
                    count += 1
                    _exchange(client, me, Path(boards), chance, count)
        except (SegmentNotFound, TimeoutError):
            # FrameBufferTimeout is dealt with below: the server is gone for now.
            post(Path(boards), me, count, "")


def _exchange(
    client: FrameBufferClient, me: int, boards: Path, chance: random.Random, count: int
) -> None:
    mark = chance.getrandbits(48)
    size = chance.randint(1, 50_000)
    data = np.frombuffer(pattern(mark, size), np.uint8)
    with contextlib.suppress(FrameBufferTimeout):
        ticket = client.put(data)
        post(boards, me, count, json.dumps([mark, ticket.to_json()]))
    for path in boards.glob("board*"):
        text = path.read_text().partition("\n")[2]
        if not text:
            continue
        mark, ticket = json.loads(text)
        try:
            found = client.get(ticket)
        except FrameBufferTimeout:
            continue
        if found.tobytes() != pattern(mark, found.size):
            (boards / f"wrong-{me}-{os.getpid()}").write_text(text)


def post(boards: Path, me: int, count: int, text: str) -> None:
    """Replace a board; its first line counts what its owner did."""
    draft = boards / f"draft-{me}"
    draft.write_text(f"{os.getpid()} {time.monotonic_ns()}\n{text}")
    draft.replace(boards / f"board-{me}")


def progress(boards: Path) -> dict[int, int]:
    """When each client was last seen to get on."""
    return {
        int(path.name.rpartition("-")[2]): int(path.read_text().split()[1])
        for path in boards.glob("board*")
    }


def race_to_serve(key: str, rounds: int, counts: Any) -> None:
    """Serve and stop, again and again; while serving, no other server may."""
    won = clashes = 0
    for _ in range(rounds):
        server = FrameBufferServer(key, 5000)
        try:
            server.start()
        except SegmentExists:
            continue
        won += 1
        try:
            with FrameBufferClient(key) as client:
                clashes += client.statistics().handed_out_bytes != 0
                server.allocate(1)
                clashes += client.statistics().handed_out_bytes != 1
        except SegmentNotFound:
            clashes += 1
        server.stop()
    counts.put((won, clashes))
