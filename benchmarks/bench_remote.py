"""RemoteAPI over loopback: blocks against bare websockets, items against the original.

    python benchmarks/bench_remote.py [--json OUT] [--quick]

Run it on a quiet machine. Blocks with the codec ``frame`` are compared with a bare
transfer of as many messages of as many bytes by the same `websockets`, read and
dropped. Items (one dict per sample, in a queue) with json and msgpack are compared with
the original's remote API, which needs Python 3.11 and its own packages; pass that
Python:

    python3.11 -m venv orig && orig/bin/pip install streaminghub-datamux==0.1.8 \
        streaminghub-rpc-websocket streaminghub-codec-json streaminghub-codec-msgpack
    python benchmarks/bench_remote.py --original orig/bin/python

Otherwise its best result in reference/datamux.md, 3,300 items/s, is used.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import queue
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from measure import Aim, Result, interleaved, report

import ataraxis.datamux as dm

OURS, BARE, ORIGINAL = "ataraxis", "bare websockets", "original 0.1.8"
ROWS, CHANNELS = 2**16, 64
BLOCKS = {"blocks of 256 KiB": 1024, "blocks of 1 MiB": 4096}
STATED = 3300.0
HERE = Path(__file__).resolve().parent


def describe(folder: Path, rows: int) -> None:
    """Write two collections: 64 channels to send as blocks, 2 as items."""
    for name, fields, n in (("wide", CHANNELS, ROWS), ("eyes", 2, rows)):
        kind = {"description": "", "dtype": "f32"}
        names = [f"c{i}" for i in range(fields)]
        suffix = "npy" if name == "wide" else "csv"
        described = {
            "name": name, "description": "", "keywords": [], "authors": [],
            "streams": {"gaze": {
                "name": "gaze", "description": "", "unit": "", "frequency": 1000,
                "fields": {k: {"name": k, **kind} for k in names},
                "index": {} if name == "wide" else {"t": {"name": "t", **kind}},
            }},
            "groups": {"subject": {"description": "", "values": ["A"]}},
            "pattern": f"{suffix}://{{subject}}",
        }  # fmt: skip
        table = np.random.default_rng(0).normal(size=(n, fields)).astype("f4")
        (folder / name).mkdir()
        path = folder / name / f"A.{suffix}"
        if suffix == "npy":
            np.save(path, table)
        else:
            table = np.column_stack([np.arange(n) / 1000, table])
            header = ",".join(["t", *names])
            np.savetxt(path, table, "%.6f", ",", header=header, comments="")
        (folder / f"{name}.collection.json").write_text(json.dumps(described))


@contextlib.contextmanager
def peer(*arguments: object) -> Iterator[int]:
    """Start a server in a separate process; yield its port."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "remote_peer.py"), *map(str, arguments)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def blocks(api: dm.RemoteAPI, samples: int, total: int) -> Callable[[], float]:
    """Return the time per block, s, from the first to the last, read and dropped."""

    def run() -> float:
        seen: list[float] = []
        ack = api.replay_collection_stream(
            "wide", "gaze", {"subject": "A"},
            lambda _: seen.append(time.perf_counter()),
            rate_limit=False, deliver="block", block=samples,
            loop=total * samples // ROWS,
        )  # fmt: skip
        assert ack.wait().reason == "completed", ack.error
        return (seen[-2] - seen[0]) / (len(seen) - 2)

    return run


def bare(port: int, count: int) -> Callable[[], float]:
    from websockets.asyncio.client import connect

    async def receive() -> float:
        async with connect(
            f"ws://127.0.0.1:{port}", compression=None, max_size=None
        ) as socket:
            await socket.send(b"")
            await socket.recv()
            begin = time.perf_counter()
            for _ in range(count - 1):
                await socket.recv()
            return (time.perf_counter() - begin) / (count - 1)

    return lambda: asyncio.run(receive())


def items(api: dm.RemoteAPI, repeats: int) -> Callable[[], float]:
    """Return the time per item, s, from the first to the last, through a queue."""

    def run() -> float:
        sink: queue.SimpleQueue = queue.SimpleQueue()
        api.replay_collection_stream(
            "eyes", "gaze", {"subject": "A"}, sink, rate_limit=False, loop=repeats
        )
        sink.get()
        begin, count = time.perf_counter(), 0
        while sink.get() != dm.END_OF_STREAM:
            count += 1
        return (time.perf_counter() - begin) / count

    return run


def original(python: str | None, folder: Path, codec: str) -> Callable[[], float]:
    if python is None:
        return lambda: 1 / STATED

    def run() -> float:
        done = subprocess.run(
            [python, str(HERE / "remote_original.py"), str(folder), codec, "2000"],
            capture_output=True, text=True, check=True, timeout=300,
        )  # fmt: skip
        return float(done.stdout.split()[-1])

    return run


def block_bytes(samples: int) -> int:
    """Return the size of the message of a block: frames of times and values."""
    from ataraxis.datamux.remote.codec import codec_of

    arrays = [np.zeros(samples), np.zeros((samples, CHANNELS), "f4")]
    return len(codec_of("frame").encode_block(1, 1, 0, arrays))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", help="also write the results to this file")
    parser.add_argument("--quick", action="store_true", help="smaller, and fewer turns")
    parser.add_argument("--original", help="a Python with the original installed")
    options = parser.parse_args()
    repetitions = 3 if options.quick else 7
    megabytes = 256 if options.quick else 1024
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        describe(folder, 2_000 if options.quick else 10_000)
        port = stack.enter_context(peer("ours", folder))
        apis = {}
        for codec in ("frame", "json", "msgpack"):
            apis[codec] = stack.enter_context(dm.RemoteAPI("websocket", codec))
            apis[codec].connect("127.0.0.1", port)
        for case, samples in BLOCKS.items():
            nbytes = block_bytes(samples)
            count = max(megabytes * 2**20 // nbytes, ROWS // samples)
            count -= count % (ROWS // samples)
            with peer("bare", nbytes, count, ROWS // samples) as other:
                runs = {
                    OURS: blocks(apis["frame"], samples, count),
                    BARE: bare(other, count),
                }
                results += interleaved(case, "s/block", runs, repetitions)
        for codec in ("json", "msgpack"):
            runs = {
                OURS: items(apis[codec], 10),
                ORIGINAL: original(options.original, folder, codec),
            }
            results += interleaved(f"items, {codec}", "s/item", runs, repetitions)
    aims = [
        *(Aim(case, OURS, BARE, 1.3, 2.0) for case in BLOCKS),
        *(
            Aim(f"items, {codec}", OURS, ORIGINAL, 1 / 50, 1 / 25)
            for codec in ("json", "msgpack")
        ),
    ]  # fmt: skip
    return report(results, aims, options.json)


if __name__ == "__main__":
    sys.exit(main())
