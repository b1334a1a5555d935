"""Pipelines compared with the usual alternatives, in one run, as ratios.

    python benchmarks/bench_pipeline.py [--json OUT] [--quick] [--only CASE] ...

The cases. *Counter*: two processes, `await` on both sides; each number is a message.
multiprocessing.Queue and faster-fifo have no `await`: their put and get are called in
coroutines. dataloop-upipe is the original, with its own interface, and with its lock
repaired (upipe_peer.py). *In batches* of 1000 numbers: an array is a message, for all;
faster-fifo pickles it, and ataraxis checks it with a CRC-32; "put_many" is
faster-fifo's own way, 1000 numbers a call, each pickled. *1 MB, 3 stages*: every stage
copies the block and changes it; joblib gives all blocks to two workers, stage after
stage. *Two workers*: their speed-up over one, compared with two bare processes that
share nothing. *Plain functions*: two stages of a function that does next to nothing,
one value at a time, compared with both calls in one task of a pool. The original has
no batches, and pickles arrays into a queue of 4 MB: it takes part in the counter only.
*1 ms, SIZE, N workers* is a curve over sizes and workers: a function keeps a core busy
for some 1 ms and returns its value; bare processes do the same with a value of their
own, which goes nowhere. Only numbers of workers that leave a core for the program are
measured, and two on two; with one, joblib calls the function itself. *One edge*: a
value of 160 KB from a function that emits to one that gets, both awaited; less twice
the time of a memcpy, measured in between.

Peers that are not installed are left out, and listed: faster-fifo; joblib and dask, for
this version of Python; dataloop-upipe, for Python 3.9. The latter may be in virtual
environments: $ATARAXIS_PEERS/joblib (both) and .../upipe (/tmp/peers).
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import multiprocessing as mp
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from measure import Aim, interleaved, report

from ataraxis.pipeline import DType, Pipe, Processor

SPAWN = mp.get_context("spawn")
BATCH = 1000
PEERS = Path(os.environ.get("ATARAXIS_PEERS", "/tmp/peers"))
# The original gets a tenth of the numbers: it is slow, and steady.
UPIPE_SHARE = 10


# ---- the counter, with `await` on both sides


def counter(limit: int, batch: int = 1) -> float:
    """Return numbers a second through one edge, from the first `get` to the last."""

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
    """Run a pipe whose last processor prints its duration, s."""
    import contextlib
    import io

    text = io.StringIO()
    with contextlib.redirect_stdout(text), pipe.run() as run:
        run.wait()
    return float(text.getvalue().split("took ")[1].split()[0])


def _mp_produce(queue: Any, limit: int, batch: int) -> None:
    async def emit(value: Any) -> None:
        queue.put(value)

    async def main() -> None:
        for k in range(limit // batch):
            await emit(k if batch == 1 else np.arange(batch, dtype="u4"))

    asyncio.run(main())


def _mp_consume(queue: Any, limit: int, batch: int, answer: Any) -> None:
    async def get() -> Any:
        return queue.get()

    async def main() -> float:
        start = 0.0
        for k in range(limit // batch):
            value = await get()
            assert batch > 1 or value == k
            start = start or time.perf_counter()
        return time.perf_counter() - start

    answer.put(asyncio.run(main()))


def peer_counter(make: Callable[[], Any], limit: int, batch: int = 1) -> float:
    """Do the same over a queue of another library."""
    queue, answer = make(), SPAWN.Queue()
    workers = [
        SPAWN.Process(target=_mp_consume, args=(queue, limit, batch, answer)),
        SPAWN.Process(target=_mp_produce, args=(queue, limit, batch)),
    ]
    for worker in workers:
        worker.start()
    seconds = answer.get(timeout=600)
    for worker in workers:
        worker.join()
    return limit / float(seconds)


def _many_produce(queue: Any, limit: int) -> None:
    async def main() -> None:
        for k in range(0, limit, BATCH):
            queue.put_many(list(range(k, k + BATCH)))

    asyncio.run(main())


def _many_consume(queue: Any, limit: int, answer: Any) -> None:
    async def main() -> float:
        start, got = 0.0, 0
        while got < limit:
            values = queue.get_many(max_messages_to_get=BATCH, timeout=60)
            assert values[0] == got
            got += len(values)
            start = start or time.perf_counter()
        return time.perf_counter() - start

    answer.put(asyncio.run(main()))


def fifo_many(make: Callable[[], Any], limit: int) -> float:
    """Do the same with faster-fifo's own batches."""
    queue, answer = make(), SPAWN.Queue()
    workers = [
        SPAWN.Process(target=_many_consume, args=(queue, limit, answer)),
        SPAWN.Process(target=_many_produce, args=(queue, limit)),
    ]
    for worker in workers:
        worker.start()
    seconds = answer.get(timeout=600)
    for worker in workers:
        worker.join()
    return limit / float(seconds)


def upipe_python() -> Path | None:
    """Return a Python that has the original."""
    python = PEERS / "upipe" / "bin" / "python"
    return python if python.exists() else None


def upipe_counter(limit: int) -> float:
    """Do the same with the original."""
    peer = Path(__file__).with_name("upipe_peer.py")
    command = [str(upipe_python()), str(peer), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"dataloop-upipe: {done.stderr[-1000:]}")
    return float(done.stdout)


# ---- arrays of 1 MB through three stages


def touch(block: np.ndarray) -> np.ndarray:
    """Change a block, in negligible time."""
    block = block.copy()
    block[0] += 1
    return block


def arrays(count: int) -> float:
    """Return blocks of 1 MB a second through three processors."""
    block = np.zeros(1 << 17)
    pipe = Pipe("arrays")
    last = pipe.add(Processor("a", func=touch))
    for name in "bc":
        last = last.add(Processor(name, func=touch))
    found: list[float] = []
    with pipe.run(sink=lambda value: found.append(time.perf_counter())) as run:
        run.wait_until_ready()
        start = time.perf_counter()
        for _ in range(count):
            run.emit(block, timeout=None)
        run.stop()
    assert len(found) == count
    return count / (found[-1] - start)


def _stage(taken: Any, given: Any) -> None:
    while (block := taken.get()) is not None:
        given.put(touch(block))
    given.put(None)


def peer_arrays(make: Callable[[], Any], count: int) -> float:
    """Do the same over queues of another library."""
    queues = [make() for _ in range(4)]
    workers = [SPAWN.Process(target=_stage, args=queues[k : k + 2]) for k in range(3)]
    for worker in workers:
        worker.start()
    block = np.zeros(1 << 17)
    queues[0].put(block)
    queues[3].get()
    start, got = time.perf_counter(), 0
    for k in range(count):
        queues[0].put(block)
        if k >= 12:
            queues[3].get()
            got += 1
    queues[0].put(None)
    while queues[3].get() is not None:
        got += 1
    assert got == count
    seconds = time.perf_counter() - start
    for worker in workers:
        worker.join()
    return count / seconds


# ---- plain functions: small values one by one through two of them


def add_one(value: int) -> int:
    """Return the next number: the work is nothing, so that the way is measured."""
    return value + 1


def add_two(value: int) -> int:
    """Do what two stages do, in one call: a pool has no stages."""
    return add_one(add_one(value))


def plain(count: int) -> float:
    """Return values a second through two plain functions, from end to end."""
    pipe = Pipe("plain")
    pipe.add(Processor("a", func=add_one)).add(Processor("b", func=add_one))
    results: list[int] = []
    with pipe.run(sink=results) as run:
        run.wait_until_ready(60)
        began = time.perf_counter()
        for k in range(count):
            run.emit(k, timeout=None)
        run.stop(wait=False)
        run.wait(300)
        seconds = time.perf_counter() - began
    assert results == list(range(2, count + 2))
    return count / seconds


def pool_plain(count: int) -> float:
    """Return values a second through multiprocessing's pool of two, one by one."""
    with SPAWN.Pool(2) as pool:
        pool.map(add_two, range(100))
        began = time.perf_counter()
        results = list(pool.imap(add_two, range(count)))
        seconds = time.perf_counter() - began
    assert results == list(range(2, count + 2))
    return count / seconds


# ---- one edge: a large value, less what two copies cost

EDGE_BYTES = 160_000


def edge(count: int) -> float:
    """Return us a value of 160 KB through one edge, beyond two copies of it."""

    async def produce() -> None:
        me = Processor("produce")
        await me.connect()
        value = np.zeros(EDGE_BYTES // 8)
        for _ in range(count):
            while not await me.emit(value):
                pass

    async def consume() -> None:
        me = Processor("consume")
        await me.connect()
        await me.get_sync(60)
        start = time.perf_counter()
        for _ in range(count - 1):
            await me.get_sync(60)
        print(f"took {time.perf_counter() - start}", flush=True)

    pipe = Pipe("bench")
    pipe.add(Processor("produce", func=produce)).add(Processor("consume", func=consume))
    return max(1e6 * _told(pipe) / count - 2 * copy_us(), 0.1)


def copy_us() -> float:
    """Return the time of a copy of 160 KB in the cache, us."""
    source = np.zeros(EDGE_BYTES // 8)
    target, times = source.copy(), []
    for _ in range(101):
        start = time.perf_counter()
        np.copyto(target, source)
        times.append(time.perf_counter() - start)
    return 1e6 * sorted(times)[50]


# ---- a curve over sizes and workers: 1 ms of work a value

SIZES = {"8 B": 8, "20 KB": 20_000, "160 KB": 160_000, "1 MB": 1 << 20, "8 MB": 8 << 20}
CORES = os.cpu_count() or 1
WORKERS = [1, 2, *(n for n in (4, 8, 14) if n < CORES)]
# A second of results, but not more than so many bytes.
MOST_BYTES = 2 << 30


def busy(value: np.ndarray) -> np.ndarray:
    """Keep a core busy for some 1 ms, and return the value."""
    total = 0
    for k in range(20_000):
        total += k
    return value


def results_of(nbytes: int, workers: int, share: int) -> int:
    """Return how many values a measurement takes."""
    return max(min(1000 * workers, MOST_BYTES // nbytes) // share, 40)


def our_curve(nbytes: int, workers: int, count: int) -> float:
    """Return results a second of a pipe of one function."""
    value = np.zeros(nbytes // 8)
    pipe = Pipe("curve")
    pipe.add(Processor("busy", func=busy, workers=workers))
    found: list[float] = []
    with pipe.run(sink=lambda result: found.append(time.perf_counter())) as run:
        run.wait_until_ready()
        for _ in range(2 * workers):
            run.emit(value, timeout=None)
        while len(found) < 2 * workers:
            time.sleep(0.001)
        start = time.perf_counter()
        for _ in range(count):
            run.emit(value, timeout=None)
        run.stop()
    return count / (found[-1] - start)


def _bare_curve(ready: Any, go: Any, done: Any, nbytes: int, count: int) -> None:
    value = np.zeros(nbytes // 8)
    busy(value)
    ready.release()
    go.wait()
    for _ in range(count):
        busy(value)
    done.release()


def _let_go(
    target: Callable[..., None], workers: int, *arguments: object
) -> tuple[list[Any], float]:
    """Start processes; return them, and when all of them began to work, s."""
    ready, go = SPAWN.Semaphore(0), SPAWN.Event()
    made = [
        SPAWN.Process(target=target, args=(ready, go, *arguments))
        for _ in range(workers)
    ]
    for process in made:
        process.start()
    for _ in made:
        ready.acquire()
    start = time.perf_counter()
    go.set()
    return made, start


def bare_curve(nbytes: int, workers: int, count: int) -> float:
    """Return the same of bare processes."""
    done, each = SPAWN.Semaphore(0), count // workers
    made, start = _let_go(_bare_curve, workers, done, nbytes, each)
    for _ in made:
        done.acquire()
    seconds = time.perf_counter() - start
    for process in made:
        process.join()
    return each * workers / seconds


def pool_curve(nbytes: int, workers: int, count: int) -> float:
    """Return the same of multiprocessing's pool."""
    value = np.zeros(nbytes // 8)
    with SPAWN.Pool(workers) as pool:
        for _ in pool.imap(busy, [value] * 2 * workers):
            pass
        start = time.perf_counter()
        got = sum(1 for _ in pool.imap(busy, (value for _ in range(count))))
        seconds = time.perf_counter() - start
    assert got == count
    return count / seconds


def joblib_curve(nbytes: int, workers: int, count: int) -> float:
    """Return the same of joblib."""
    from joblib import Parallel, delayed

    os.environ["PYTHONPATH"] = str(JOBLIB)
    value = np.zeros(nbytes // 8)
    with Parallel(n_jobs=workers, return_as="generator") as parallel:
        for _ in parallel(delayed(busy)(value) for _ in range(2 * workers)):
            pass
        start = time.perf_counter()
        got = sum(1 for _ in parallel(delayed(busy)(value) for _ in range(count)))
        seconds = time.perf_counter() - start
    del os.environ["PYTHONPATH"]
    assert got == count
    return count / seconds


def dask_curve(nbytes: int, workers: int, count: int) -> float:
    """Return the same of dask, with a process for each worker."""
    from distributed import Client, LocalCluster

    os.environ["PYTHONPATH"] = str(JOBLIB)
    value = np.zeros(nbytes // 8)
    # It reports each connection that its own end closes.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    cluster = LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        silence_logs=logging.CRITICAL,
    )
    with cluster, Client(cluster) as client:
        client.gather(client.map(busy, [value] * 2 * workers, pure=False))
        start = time.perf_counter()
        done = client.gather(client.map(busy, [value] * count, pure=False))
        seconds = time.perf_counter() - start
    del os.environ["PYTHONPATH"]
    assert len(done) == count
    return count / seconds


def has_dask() -> bool:
    """Search for dask in this Python and among the peers."""
    has_joblib()  # extends the path
    with suppress(ImportError):
        import distributed  # noqa: F401

        return True
    return False


def curve_name(size: str, workers: int) -> str:
    return f"1 ms, {size}, {workers} worker{'s' if workers > 1 else ''}"


def curve(share: int) -> dict[str, tuple[str, dict[str, Callable[[], float]]]]:
    """Return the cases of the curve."""
    makers = {BARE: bare_curve, POOL: pool_curve, OURS: our_curve}
    if has_joblib():
        makers["joblib"] = joblib_curve
    if has_dask():
        makers["dask"] = dask_curve
    cases: dict[str, tuple[str, dict[str, Callable[[], float]]]] = {}
    for size, nbytes in SIZES.items():
        for workers in WORKERS:
            count = results_of(nbytes, workers, share)
            cases[curve_name(size, workers)] = (
                "/s",
                {
                    who: lambda make=make, a=nbytes, b=workers, c=count: make(a, b, c)
                    for who, make in makers.items()
                },
            )
    return cases


# ---- two workers, compared with two bare processes


def work(value: int) -> int:
    """Keep a core busy for some 5 ms."""
    total = 0
    for k in range(100_000):
        total += k * value
    return total


def speed_up(count: int) -> float:
    """Return how much faster two workers are than one."""
    return _rate(count, 2) / _rate(count, 1)


def _rate(count: int, workers: int) -> float:
    pipe = Pipe("work")
    pipe.add(Processor("work", func=work, workers=workers))
    found: list[float] = []
    with pipe.run(sink=lambda value: found.append(time.perf_counter())) as run:
        run.wait_until_ready()
        start = time.perf_counter()
        for k in range(count):
            run.emit(k, timeout=None)
        run.stop()
    return count / (found[-1] - start)


def bare_speed_up(count: int) -> float:
    """Return the same of two bare processes."""
    return _bare_rate(count, 2) / _bare_rate(count, 1)


def _bare(ready: Any, go: Any, count: int) -> None:
    ready.release()
    go.wait()
    for k in range(count):
        work(k)


def _bare_rate(count: int, workers: int) -> float:
    made, start = _let_go(_bare, workers, count // workers)
    for process in made:
        process.join()
    return count / (time.perf_counter() - start)


# ---- starting, idling


def _first(queue: Any) -> None:
    import numpy  # noqa: F401 - what every worker needs

    queue.put(1)


def start_ratio() -> float:
    """Return the time from start to first result, and that of bare processes."""
    queue = SPAWN.Queue()
    start = time.perf_counter()
    made = [SPAWN.Process(target=_first, args=(queue,)) for _ in range(2)]
    for process in made:
        process.start()
    for _ in made:
        queue.get()
    bare = time.perf_counter() - start
    for process in made:
        process.join()
    pipe = Pipe("start")
    pipe.add(Processor("a", func=touch)).add(Processor("b", func=touch))
    start = time.perf_counter()
    with pipe.run() as run:
        run.call(np.zeros(3))
        ours = time.perf_counter() - start
        run.stop()
    return ours / bare


def idle(seconds: float = 5.0) -> float:
    """Return the share of a CPU that an idle pipe of two workers uses, percent."""
    import resource

    pipe = Pipe("idle")
    pipe.add(Processor("a", func=touch)).add(Processor("b", func=touch))
    with pipe.run() as run:
        run.call(np.zeros(3))
        pids = list(run.workers.values())
        before = sum(map(_cpu, pids)) + _own(resource)
        time.sleep(seconds)
        used = sum(map(_cpu, pids)) + _own(resource) - before
        run.stop()
    return 100 * used / seconds


def _own(resource: Any) -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return float(usage.ru_utime + usage.ru_stime)


def _cpu(pid: int) -> float:
    with open(f"/proc/{pid}/schedstat") as file:
        return int(file.read().split()[0]) * 1e-9


def peers() -> dict[str, Callable[[], Any]]:
    found: dict[str, Callable[[], Any]] = {"multiprocessing.Queue": SPAWN.Queue}
    with suppress(ImportError):
        from faster_fifo import Queue

        found["faster-fifo"] = lambda: Queue(64_000_000)
    return found


VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
JOBLIB = PEERS / "joblib" / "lib" / VERSION / "site-packages"


def has_joblib() -> bool:
    """Search for joblib in this Python and among the peers."""
    if JOBLIB.exists() and str(JOBLIB) not in sys.path:
        sys.path.append(str(JOBLIB))
    with suppress(ImportError):
        import joblib  # noqa: F401

        return True
    return False


def joblib_rate(count: int) -> float:
    """Return blocks of 1 MB a second through three stages of joblib."""
    from joblib import Parallel, delayed

    os.environ["PYTHONPATH"] = str(JOBLIB)  # the only way to tell its workers
    block = np.zeros(1 << 17)
    with Parallel(n_jobs=2) as parallel:
        parallel(delayed(touch)(block) for _ in range(2))
        start = time.perf_counter()
        blocks = [block] * count
        for _ in range(3):
            blocks = parallel(delayed(touch)(b) for b in blocks)
        seconds = time.perf_counter() - start
    del os.environ["PYTHONPATH"]
    return count / seconds


COUNT, BATCHED, STAGES = "counter", f"counter, batches of {BATCH}", "1 MB, 3 stages"
PAIR, START, IDLE = "two workers : one", "start to first result", "idle pipe"
PLAIN, POOL = "plain functions, 8 B", "multiprocessing.Pool.imap"
EDGE = "160 KB, one edge, beyond two copies"
OURS, BARE, BOUND = "ataraxis", "bare processes", "aim of the issue"
FIFO, MANY, UPIPE = "faster-fifo", "faster-fifo, put_many", "dataloop-upipe"
OTHERS = ("multiprocessing.Queue", FIFO, MANY, UPIPE, "joblib")
AIMS = [
    Aim(COUNT, OURS, OTHERS, 3, 1.5, False),
    Aim(COUNT, OURS, UPIPE, 20, 20, False),
    Aim(BATCHED, OURS, OTHERS, 10, 5, False),
    Aim(STAGES, OURS, OTHERS, 3, 2, False),
    Aim(PLAIN, OURS, POOL, 2, 1, False),
    Aim(EDGE, OURS, BOUND, 1, 3),
    Aim(PAIR, OURS, BARE, 0.95, 0.9, False),
    *(
        Aim(curve_name(size, 14), OURS, BARE, 0.9, 0.8, False)
        for size in ("8 B", "20 KB", "160 KB")
    ),
    Aim(curve_name("1 MB", 4), OURS, BARE, 0.85, 0.7, False),
    Aim(START, OURS, BARE, 1.5, 1.5),
    Aim(IDLE, OURS, BOUND, 1, 1),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", help="also write the results to this file")
    parser.add_argument("--quick", action="store_true", help="a fifth of all counts")
    parser.add_argument("--numbers", type=int, default=100_000)
    parser.add_argument("--blocks", type=int, default=300)
    parser.add_argument("--values", type=int, default=400)
    parser.add_argument(
        "--only", action="append", metavar="CASE", help="only cases with this name"
    )
    asked = parser.parse_args()
    share, turns = (5, 3) if asked.quick else (1, 5)
    cases = all_cases(
        asked.numbers // share // BATCH * BATCH,
        asked.blocks // share,
        asked.values // share,
        share,
    )
    found = []
    for case, (unit, who) in cases.items():
        named = asked.only or [case]
        if any(case == text or (text not in cases and text in case) for text in named):
            found += interleaved(case, unit, who, turns)
    return report(found, AIMS, asked.json, absent())


def absent() -> list[str]:
    """List missing peers, and how to install them."""
    missing = []
    if FIFO not in peers():
        missing.append("faster-fifo is missing: pip install 'faster-fifo>=1.5'")
    if not has_joblib():
        missing.append("joblib is missing: pip install joblib")
    if not has_dask():
        missing.append("dask is missing: pip install dask distributed")
    if upipe_python() is None:
        missing.append(
            f"dataloop-upipe is missing: python3.9 -m venv {PEERS}/upipe; "
            f"{PEERS}/upipe/bin/pip install dataloop-upipe"
        )
    return missing


def all_cases(
    numbers: int, blocks: int, values: int, share: int
) -> dict[str, tuple[str, dict[str, Callable[[], float]]]]:
    """Return the cases: name, unit, peers."""
    many = numbers * 100  # a few milliseconds are too short to measure
    there = peers()
    one = {n: lambda m=m: peer_counter(m, numbers) for n, m in there.items()}
    few = {n: lambda m=m: peer_counter(m, many, BATCH) for n, m in there.items()}
    large = {n: lambda m=m: peer_arrays(m, blocks) for n, m in there.items()}
    if FIFO in there:
        few[MANY] = lambda: fifo_many(there[FIFO], numbers * 5)
    if upipe_python() is not None:
        one[UPIPE] = lambda: upipe_counter(numbers // UPIPE_SHARE)
    if has_joblib():
        large["joblib"] = lambda: joblib_rate(blocks)
    one[OURS] = lambda: counter(numbers)
    few[OURS] = lambda: counter(many, BATCH)
    large[OURS] = lambda: arrays(blocks)
    return {
        COUNT: ("/s", one),
        BATCHED: ("/s", few),
        STAGES: ("/s", large),
        PLAIN: ("/s", {OURS: lambda: plain(numbers),
                       POOL: lambda: pool_plain(numbers)}),
        EDGE: ("us", {OURS: lambda: edge(numbers // 20), BOUND: lambda: 10.0}),
        **curve(share),
        PAIR: ("x", {OURS: lambda: speed_up(values),
                     BARE: lambda: bare_speed_up(values)}),
        START: ("x", {OURS: start_ratio, BARE: lambda: 1.0}),
        IDLE: ("% of a CPU", {OURS: idle, BOUND: lambda: 0.5}),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
