"""Pipelines beside what one would use instead, in one run, as ratios.

    python benchmarks/bench_pipeline.py [--json OUT] [--quick] [--numbers N] ...

Peers that are not installed are left out: dataloop-upipe (Linux: it hangs as released),
faster-fifo, joblib.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing as mp
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from measure import Aim, interleaved, report

from ataraxis.pipeline import DType, Pipe, Processor

SPAWN = mp.get_context("spawn")
BATCH = 1000


# ---- the counter, with `await` on both sides


def counter(limit: int, batch: int = 1) -> float:
    """Numbers a second through one edge, from the first `get` to the last."""

    async def produce() -> None:
        me = Processor("produce")
        await me.connect()
        for k in range(limit // batch):
            value = k if batch == 1 else np.arange(batch, dtype="u4")
            while not await me.emit(value, DType.U32 if batch == 1 else None):
                pass

    async def consume() -> None:
        me = Processor("consume")
        await me.connect()
        start = 0.0
        for k in range(limit // batch):
            value = await me.get_sync(60)
            assert batch > 1 or value == k
            start = start or time.perf_counter()
        seconds = time.perf_counter() - start
        print(f"took {seconds}", flush=True)

    pipe = Pipe("bench")
    pipe.add(Processor("produce", func=produce)).add(Processor("consume", func=consume))
    return limit / _told(pipe)


def _told(pipe: Pipe) -> float:
    """Run a pipe whose last processor prints how long it took, s."""
    import contextlib
    import io

    text = io.StringIO()
    with contextlib.redirect_stdout(text), pipe.run() as run:
        run.wait()
    return float(text.getvalue().split("took ")[1].split()[0])


def _mp_produce(queue: Any, limit: int, batch: int) -> None:
    async def emit(value: Any) -> None:
        queue.put(value)

    async COUNT, BATCHED, STAGES = "counter", f"counter, batches of {BATCH}", "1 MB, 3 stages"
PAIR, START, IDLE = "two workers : one", "start to first result", "idle pipe"
OURS, BARE, BOUND = "ataraxis", "bare processes", "aim of the issue"
OTHERS = ("multiprocessing.Queue", "faster-fifo", "dataloop-upipe", "joblib")
AIMS = [
    Aim(COUNT, OURS, OTHERS, 3, 1.5, False),
    Aim(COUNT, OURS, "dataloop-upipe", 20, 20, False),
    Aim(BATCHED, OURS, OTHERS, 10, 5, False),
    Aim(STAGES, OURS, OTHERS, 3, 2, False),
    Aim(PAIR, OURS, BARE, 0.9, 0.9, False),
    Aim(START, OURS, BARE, 1.5, 1.5),
    Aim(IDLE, OURS, BOUND, 1, 1),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", help="also write the results here")
    parser.add_argument("--quick", action="store_true", help="a fifth of everything")
    parser.add_argument("--numbers", type=int, default=100_000)
    parser.add_argument("--blocks", type=int, default=300)
    parser.add_argument("--values", type=int, default=400)
    asked = parser.parse_args()
    share, turns = (5, 3) if asked.quick else (1, 5)
    numbers, blocks = asked.numbers // share // BATCH * BATCH, asked.blocks // share
    values = asked.values // share
    many = numbers * 10  # some milliseconds are not enough to measure
    there = peers()
    one = {n: lambda m=m: peer_counter(m, numbers) for n, m in there.items()}
    few = {n: lambda m=m: peer_counter(m, many, BATCH) for n, m in there.items()}
    large = {n: lambda m=m: peer_arrays(m, blocks) for n, m in there.items()}
    if joblib_rate(1) is not None:
        large["joblib"] = lambda: joblib_rate(blocks) or 0.0
    one[OURS] = lambda: counter(numbers)
    few[OURS] = lambda: counter(many, BATCH)
    large[OURS] = lambda: arrays(blocks)
    found = interleaved(COUNT, "/s", one, turns)
    found += interleaved(BATCHED, "/s", few, turns)
    found += interleaved(STAGES, "/s", large, turns)
    pair = {OURS: lambda: speed_up(values), BARE: lambda: bare_speed_up(values)}
    found += interleaved(PAIR, "x", pair, turns)
    found += interleaved(START, "x", {OURS: start_ratio, BARE: lambda: 1.0}, turns)
    found += interleaved(IDLE, "% of a CPU", {OURS: idle, BOUND: lambda: 0.5}, turns)
    return report(found, AIMS, asked.json)


if __name__ == "__main__":
    sys.exit(main())
