"""Replay compared with the original DataMux; LSL into shared memory with pylsl alone.

    python benchmarks/bench_datamux.py [--json OUT] [--quick]

Run it on a quiet machine. `pip install ".[bench,datamux]"` installs the peers; the
original needs Python 3.11. Unpaced replay of a CSV recording with 2 and with 32 float
fields; reading the file is not measured.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import queue
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measure import Aim, Result, interleaved, report

import ataraxis.datamux as dm
from ataraxis import Consumer

ITEMS, BLOCKS, ORIGINAL = "ataraxis items", "ataraxis blocks", "original 0.1.8"
ALONE = "pylsl alone"
INTO = {"3000 a frame": 3000, "300 a frame": 300, "1 a frame": None}
FIELDS = (2, 32)


def describe(folder: Path, fields: int, rows: int) -> None:
    """Write a collection with one recording that both can read."""
    kind = {"description": "", "dtype": "f32"}
    names = [f"c{i}" for i in range(fields)]
    collection = {
        "name": "eyes", "description": "", "keywords": [], "authors": [],
        "streams": {"gaze": {
            "name": "gaze", "description": "", "unit": "", "frequency": 1000,
            "fields": {name: {"name": name, **kind} for name in names},
            "index": {"t": {"name": "t", **kind}},
        }},
        "groups": {"subject": {"description": "", "values": ["A"]}},
        "pattern": "csv://{subject}",
    }  # fmt: skip
    (folder / "eyes.collection.json").write_text(json.dumps(collection))
    (folder / "eyes").mkdir()
    table = np.random.default_rng(0).normal(size=(rows, fields + 1))
    table[:, 0] = np.arange(rows) / 1000
    header = ",".join(["t", *names])
    np.savetxt(
        folder / "eyes" / "A.csv", table, "%.6f", ",", header=header, comments=""
    )
    rc = {"data_dir": str(folder), "meta_dir": str(folder)}
    (folder / ".streaminghubrc").write_text(json.dumps(rc))


def replay(folder: Path, deliver: str, repeats: int) -> Callable[[], float]:
    """Return the time per item, s, from the first to the last, into a queue.Queue."""
    recording = dm.API(folder, folder).recording("eyes", "gaze", {"subject": "A"})
    api = dm.API(folder, folder)

    def run() -> float:
        sink: queue.SimpleQueue = queue.SimpleQueue()
        api.replay(recording, sink, rate_limit=False, deliver=deliver, loop=repeats)
        first = sink.get()
        begin = time.perf_counter()
        count = 0
        while (item := sink.get()) != dm.END_OF_STREAM:
            count += 1 if deliver == "record" else len(item)
        del first
        return (time.perf_counter() - begin) / count

    return run


def original(folder: Path, count: int) -> Callable[[], float]:
    peer = Path(__file__).with_name("datamux_peer.py")

    def run() -> float:
        command = [sys.executable, str(peer), str(folder), str(count)]
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=600
        )
        return float(done.stdout.split()[-1])

    return run


def replays(quick: bool) -> list[Result]:
    results = []
    for fields in FIELDS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            rows = 2_000 if quick else 10_000
            describe(folder, fields, rows)
            peers = {
                ITEMS: replay(folder, "record", 10),
                BLOCKS: replay(folder, "block", 200),
            }
            if importlib.util.find_spec("streaminghub_datamux"):
                peers[ORIGINAL] = original(folder, rows)
            case = f"replay, {fields} fields"
            results += interleaved(case, "s/item", peers, 3 if quick else 5)
    return results


def lsl(quick: bool) -> list[Result]:
    """Return the time to receive 300 samples of 64 channels from a backlog.

    pylsl alone reads 300 samples a call into one array. ataraxis does what
    `proxy_live_stream` does, into a stream of 1, 300 or 3,000 samples a frame. Measured
    is the CPU time of the reading thread; LSL's own threads do the same for all.
    """
    if not importlib.util.find_spec("pylsl"):
        return []
    import pylsl

    from ataraxis.datamux.proxy import Proxy
    from ataraxis.datamux.sinks.stream import StreamSink
    from ataraxis.datamux.sources.lsl import LslSource

    chunks, size, channels = (200 if quick else 1000), 300, 64
    total = chunks * size
    data = np.random.default_rng(0).normal(size=(size, channels)).astype("f4")

    numbers = itertools.count()  # a closed outlet may still be found for a while

    def outlet() -> tuple[str, pylsl.StreamOutlet]:
        name = f"bench-{os.getpid()}-{next(numbers)}"
        info = pylsl.StreamInfo(name, "EEG", channels, 30_000, "float32", name)
        return name, pylsl.StreamOutlet(info, chunk_size=size)

    def fill(made: pylsl.StreamOutlet) -> None:
        made.wait_for_consumers(10)
        for _ in range(chunks):
            made.push_chunk(data)
        time.sleep(1.0)  # until it has arrived, so that no turn waits

    def alone() -> float:
        name, made = outlet()
        (found,) = pylsl.resolve_byprop("source_id", name, 1, 10)
        inlet = pylsl.StreamInlet(found, as_numpy=True)
        inlet.open_stream(timeout=10)
        fill(made)
        out = np.empty((size, channels), "f4")
        begin, got = time.thread_time(), 0
        while got < total:
            _, stamps = inlet.pull_chunk(
                timeout=1.0, max_samples=size, min_samples=1, dest_obj=out
            )
            if not len(stamps):
                break
            got += len(stamps)
        took = time.thread_time() - begin
        inlet.close_stream()
        return took / (got / size)

    def into(samples: int | None) -> Callable[[], float]:
        def run() -> float:
            name, made = outlet()
            source = LslSource(name, {"source_id": name})
            source.open()
            fill(made)
            got = 0
            with (
                dm.producer_of(source.stream, "bench-lsl", samples=samples) as producer,
                Consumer("bench-lsl", policy="latest"),
            ):
                sink = StreamSink(producer)
                proxy = Proxy(source, lend=sink.lend)
                begin = time.thread_time()
                blocks = proxy.blocks(lambda: False)
                while got < total:
                    block = next(blocks)
                    sink.put([block], lambda: False)
                    got += len(block)
                took = time.thread_time() - begin
                blocks.close()
                producer.unlink()
            return took / (got / size)

        return run

    peers = {name: into(samples) for name, samples in INTO.items()} | {ALONE: alone}
    return interleaved("LSL", "s/300 samples", peers, 3 if quick else 5)


AIMS = [
    *(
        aim
        for fields in FIELDS
        for aim in (
            Aim(f"replay, {fields} fields", ITEMS, ORIGINAL, 1 / 50, 1 / 30),
            Aim(f"replay, {fields} fields", BLOCKS, ORIGINAL, 1 / 300, 1 / 150),
        )
    ),
    *(Aim("LSL", name, ALONE, 1.2, 1.4) for name in INTO),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", help="also write the results to this file")
    parser.add_argument("--quick", action="store_true", help="smaller, and fewer turns")
    options = parser.parse_args()
    results = replays(options.quick) + lsl(options.quick)
    return report(results, AIMS, options.json)


if __name__ == "__main__":
    sys.exit(main())
