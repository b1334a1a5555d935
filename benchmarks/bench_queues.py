"""Work queues: frames a second between processes, compared with the usual queues.

`multiprocessing.Queue` and, if it is installed, `faster_fifo.Queue`, take turns in one
run. Each putter is a process; one process gets, or drains whole runs of frames.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import sys
import time
from collections.abc import Callable
from typing import Any

from measure import Aim, Result, interleaved, report

from ataraxis import MemQ

OURS, DRAINED = "MemQ", "MemQ drain_into"
STANDARD, FASTER = "multiprocessing.Queue", "faster_fifo.Queue"
SPAWN = multiprocessing.get_context("spawn")


def put(queue: Any, ready: Any, go: Any, count: int, size: int) -> None:
    value = bytes(size)
    ready.release()
    go.wait()
    for _ in range(count):
        queue.put(value)
    queue.close()


def get(queue: Any, count: int) -> None:
    for _ in range(count):
        queue.get()


def drain(queue: MemQ, count: int) -> None:
    buffer = bytearray(4 << 20)
    while count:
        count -= queue.drain_into(buffer, acknowledge=False)[1]
        queue.acknowledge_drained()


def rate(
    make: Callable[[], Any], take: Callable[..., None], putters: int, n: int, size: int
) -> float:
    """Return frames a second, from the first put to the last get."""
    queue = make()
    ready, go = SPAWN.Semaphore(0), SPAWN.Event()
    arguments = queue, ready, go, n // putters, size
    children = [SPAWN.Process(target=put, args=arguments) for _ in range(putters)]
    for child in children:
        child.start()
    for _ in children:
        ready.acquire()
    begin = time.perf_counter()
    go.set()
    take(queue, n // putters * putters)
    seconds = time.perf_counter() - begin
    for child in children:
        child.join()
    queue.close()
    return n / seconds


def peers(size: int) -> dict[str, tuple[Callable[[], Any], Callable[..., None]]]:
    def ours() -> MemQ:
        return MemQ(buffer_count=8192 if size < 4096 else 16, buffer_size=size)

    found: dict[str, tuple[Callable[[], Any], Callable[..., None]]] = {
        OURS: (ours, get),
        DRAINED: (ours, drain),
        STANDARD: (lambda: SPAWN.Queue(8192), get),
    }
    try:
        from faster_fifo import Queue
    except ImportError:
        return found
    found[FASTER] = (lambda: Queue(max_size_bytes=32 << 20), get)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", help="also write the results to this file")
    parser.add_argument("--quick", action="store_true", help="a tenth of the frames")
    options = parser.parse_args()
    results: list[Result] = []
    aims: list[Aim] = []
    for size, count, putters in ((64, 300_000, 1), (64, 300_000, 3), (65536, 9000, 1)):
        n = count // 10 if options.quick else count
        case = f"{size} B, {putters} putting"
        turns = {
            who: functools.partial(rate, m, t, putters, n, size)
            for who, (m, t) in peers(size).items()
        }
        results += interleaved(case, "1/s", turns, 5)
        aims.append(Aim(case, OURS, (STANDARD, FASTER), 3, 1, False))
    return report(results, aims, options.json)


if __name__ == "__main__":
    sys.exit(main())
