"""Arrays compared with numpy, with and without multiprocessing.Lock, and the original.

    python benchmarks/bench_arrays.py [--json OUT] [--quick]

Run it on a quiet machine. `pip install ".[bench]"` installs the original.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import pickle
import sys
import time
from multiprocessing.shared_memory import SharedMemory

import numpy as np
from measure import Aim, Result, interleaved, per_call_ns, report

from ataraxis import SharedMemoryArray, attach

OURS, NUMPY, LOCKED, ORIGINAL = "ataraxis", "numpy", "numpy+mp.Lock", "original 3.1.1"
N = 1024


def loop(statement: str, **names: object) -> object:
    """Compile ``statement`` into a function that repeats it, as timeit does."""
    source = f"def run(calls):\n for _ in range(calls):\n  {statement}\n"
    space = dict(names)
    exec(source, space)  # text of this file, not input
    return space["run"]


def timed(statement: str, calls: int, **names: object) -> object:
    run = loop(statement, **names)
    return lambda: per_call_ns(run, calls)


def single(calls: int, original: object | None) -> list[Result]:
    plain = np.zeros(N)
    ours = SharedMemoryArray.create_array("bench", np.zeros(N))
    lock = multiprocessing.Lock()
    small, page = np.ones(100), np.ones(N)
    names = {"a": ours, "p": plain, "s": small, "b": page, "lock": lock, "o": original}
    cases = [
        ("read a[i]", "a[5]", "p[5]", "o.read_data(5)"),
        ("write a[i]", "a[5] = 1.5", "p[5] = 1.5", "o.write_data(5, 1.5)"),
        ("add", "a.add(5, 1.0)", "p[5] += 1.0", None),
        ("read 100", "a[10:110]", "p[10:110].copy()", "o.read_data((10, 110))"),
        ("write 100", "a[10:110] = s", "p[10:110] = s", "o.write_data((10, 110), s)"),
        ("read 8 KB", "a[:]", "p[:].copy()", "o.read_data((0,))"),
        ("write 8 KB", "a[:] = b", "p[:] = b", "o.write_data((0,), b)"),
    ]
    results = []
    for case, mine, theirs, old in cases:
        peers = {
            OURS: timed(mine, calls, **names),
            NUMPY: timed(theirs, calls, **names),
            LOCKED: timed(f"\n   with lock: {theirs}".lstrip("\n "), calls, **names),
        }
        if original is not None and old:
            peers[ORIGINAL] = timed(old, max(calls // 20, 1), **names)
        results += interleaved(case, "ns", peers)
    ours.destroy()
    return results


def large() -> list[Result]:
    shape = (1440, 1080, 4)
    image, out = np.ones(shape, "u1"), np.empty(shape, "u1")
    ours = SharedMemoryArray.create_array("bench_image", image)
    plain = image.copy()
    calls = 100
    write = {
        OURS: timed("a[...] = b", calls, a=ours, b=image),
        "memcpy": timed("copyto(p, b)", calls, copyto=np.copyto, p=plain, b=image),
    }
    read = {
        OURS: timed("a._fetch_into(o)", calls, a=ours, o=out),
        "memcpy": timed("copyto(o, p)", calls, copyto=np.copyto, p=plain, o=out),
    }
    results = interleaved("write 6.2 MB", "ns", write)
    results += interleaved("read 6.2 MB", "ns", read)
    ours.destroy()
    return results


def contend_ours(name: str, calls: int, ready: object, counts: object) -> None:
    array = attach(name)
    ready.wait()
    end = time.perf_counter() + 1.0
    done = 0
    while time.perf_counter() < end:
        for _ in range(calls):
            array.add(0, 1)
        done += calls
    counts.put(done)


def contend_locked(name: str, calls: int, ready: object, counts: object, lock: object):
    segment = SharedMemory(name=name)
    array = np.ndarray((1,), np.int64, segment.buf)
    ready.wait()
    end = time.perf_counter() + 1.0
    done = 0
    while time.perf_counter() < end:
        for _ in range(calls):
            with lock:
                array[0] += 1
        done += calls
    counts.put(done)
    del array
    segment.close()


def contention(repetitions: int) -> list[Result]:
    fork = multiprocessing.get_context("fork")
    shares: list[float] = []

    def race(target: object, name: str, *extra: object) -> float:
        ready, counts = fork.Barrier(2), fork.Queue()
        arguments = (name, 1000, ready, counts, *extra)
        workers = [fork.Process(target=target, args=arguments) for _ in range(2)]
        for worker in workers:
            worker.start()
        done = [counts.get() for _ in workers]
        for worker in workers:
            worker.join()
        if not extra:
            shares.append(min(done) / sum(done))
        return sum(done)

    segment = SharedMemory(create=True, size=8)
    ours = SharedMemoryArray.create_array("bench_race", np.zeros(1, np.int64))
    peers = {
        OURS: lambda: race(contend_ours, "bench_race"),
        LOCKED: lambda: race(contend_locked, segment.name, fork.Lock()),
    }
    results = interleaved("2 processes a[0] += 1", "1/s", peers, repetitions)
    share = Result("smaller share", OURS, "of all", sorted(shares)[len(shares) // 2],
                   min(shares), max(shares), len(shares))  # fmt: skip
    segment.close()
    segment.unlink()
    ours.destroy()
    return [*results, share]


def opening(calls: int) -> list[Result]:
    ours = SharedMemoryArray.create_array("bench_open", np.zeros(N))
    theirs = SharedMemory(create=True, size=8 * N)
    # In another process than the creator's: detach each time.
    script = (
        "import sys, time\n"
        "from ataraxis import attach\n"
        "attach('bench_open').disconnect()\n"
        "n = int(sys.argv[1]); b = time.perf_counter_ns()\n"
        "for _ in range(n): attach('bench_open').disconnect()\n"
        "print((time.perf_counter_ns() - b) / n)\n"
    )
    import subprocess

    def attach_elsewhere() -> float:
        command = [sys.executable, "-c", script, str(calls)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return float(done.stdout)

    def attach_shared() -> float:
        def run(n: int) -> None:
            for _ in range(n):
                SharedMemory(name=theirs.name).close()

        return per_call_ns(run, calls)

    peers = {OURS: attach_elsewhere, "SharedMemory(name=)": attach_shared}
    results = interleaved("attach by name", "ns", peers, 5)
    size = float(len(pickle.dumps(ours)))
    results.append(Result("pickled handle", OURS, "bytes", size, size, size, 1))
    theirs.close()
    theirs.unlink()
    ours.destroy()
    return results


AIMS = [
    Aim("read a[i]", OURS, NUMPY, 1.0, 2.0),
    Aim("write a[i]", OURS, NUMPY, 1.0, 2.0),
    Aim("add", OURS, NUMPY, 0.5, 1.0),
    Aim("read 100", OURS, NUMPY, 1.0, 1.25),
    Aim("write 100", OURS, NUMPY, 1.0, 1.25),
    Aim("read 8 KB", OURS, NUMPY, 1.0, 1.25),
    Aim("write 8 KB", OURS, NUMPY, 1.0, 1.25),
    Aim("read 6.2 MB", OURS, "memcpy", 1.05, 1.15),
    Aim("write 6.2 MB", OURS, "memcpy", 1.05, 1.15),
    Aim("2 processes a[0] += 1", OURS, LOCKED, 8, 4, smaller_is_better=False),
    Aim("read a[i]", OURS, ORIGINAL, 1 / 40, 1 / 40),
    Aim("write a[i]", OURS, ORIGINAL, 1 / 40, 1 / 40),
    Aim("read 100", OURS, ORIGINAL, 1 / 15, 1 / 15),
    Aim("write 100", OURS, ORIGINAL, 1 / 15, 1 / 15),
    Aim("attach by name", OURS, "SharedMemory(name=)", 5, 5),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", help="also write the results to this file")
    parser.add_argument("--quick", action="store_true", help="a tenth of the calls")
    options = parser.parse_args()
    calls = 20_000 if options.quick else 200_000
    original = None
    with contextlib.suppress(ImportError):
        from ataraxis_data_structures import SharedMemoryArray as Original

        name = f"bench-{os.getpid()}"
        original = Original.create_array(name, np.zeros(N), exist_ok=True)
    results = single(calls, original)
    if original is not None:
        original.disconnect()
        original.destroy()
    results += large()
    results += contention(3 if options.quick else 7)
    results += opening(200 if options.quick else 2000)
    return report(results, AIMS, options.json)


if __name__ == "__main__":
    sys.exit(main())
