"""The original's counter, `await` on both sides; print numbers a second.

    python upipe_peer.py NUMBERS

Run by a Python with dataloop-upipe 0.2.0: 3.9, since its pinned dependencies have no
wheels for a later one (``python3.9 -m venv upipe; upipe/bin/pip install
dataloop-upipe``). The released version stops on Linux after one message: the lock of a
queue is a shared memory block that is released by closing it, which removes the name on
Windows only. Here every process removes the name too; nothing else is changed. It uses
port 852, so it needs root; and it leaves a server and memory behind, which are ended
and removed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MENDED = """
from multiprocessing import shared_memory as m

close = m.SharedMemory.close
def closed(self):
    name = self.name
    close(self)
    if name.endswith(("_rlock", "_wlock")):
        try:
            self.unlink()
        except FileNotFoundError:
            pass
m.SharedMemory.close = closed
"""
FOLDER, NUMBERS = "UPIPE_PEER_FOLDER", "UPIPE_PEER_NUMBERS"


async def produce() -> None:
    from dataloop.upipe import DType, Worker

    me = Worker("produce")
    await me.join()
    k, count = 0, int(os.environ[NUMBERS])
    while k < count:
        if await me.emit(k, DType.U32):
            k += 1


async def consume() -> None:
    from dataloop.upipe import Worker

    me = Worker("consume")
    await me.join()
    start, count = 0.0, int(os.environ[NUMBERS])
    for k in range(count):
        value = await me.get_sync(timeout=60)
        assert value == k, (value, k)
        start = start or time.perf_counter()
    seconds = time.perf_counter() - start
    half = Path(os.environ[FOLDER]) / "half"
    half.write_text(str(count / seconds))
    half.rename(half.with_name("found"))


async def run() -> None:
    from dataloop.upipe import Pipe, Processor

    pipe = Pipe("peer")
    pipe.add(Processor("produce", func=produce)).add(Processor("consume", func=consume))
    await pipe.start()
    await pipe.wait_for_completion()


def main() -> None:
    before = set(os.listdir("/dev/shm"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sitecustomize.py").write_text(MENDED)
        # A separate temporary folder: it kills every process that an old log names.
        env = {**os.environ, FOLDER: name, NUMBERS: sys.argv[1], "PYTHONPATH": name,
               "TMPDIR": name}  # fmt: skip
        with open(folder / "output", "wb") as output:
            running = subprocess.Popen(
                [sys.executable, os.path.abspath(__file__), "run"], env=env, cwd=name,
                stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + 120
        try:
            while not (folder / "found").exists():
                if time.monotonic() > deadline or running.poll() is not None:
                    raise SystemExit((folder / "output").read_text()[-2000:])
                time.sleep(0.1)
            print((folder / "found").read_text())
        finally:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            for left in set(os.listdir("/dev/shm")) - before:
                if left.startswith(("Q_", "processor_control:")):
                    os.unlink(f"/dev/shm/{left}")


if __name__ == "__main__":
    if sys.argv[1] == "run":
        asyncio.get_event_loop().run_until_complete(run())
    else:
        main()
