"""Creating, attaching and waiting among 10 names and among 2,000 others.

And the processor time of waiting for a name that does not come.
"""

from __future__ import annotations

import argparse
import functools
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measure import Aim, Result, interleaved, report

from ataraxis import Consumer, MemQ, Producer, SharedMemoryArray

FEW, MANY = "among 10 names", "among 2,000 names"
ROUNDS = 40


def crowd(place: Path, count: int) -> list[SharedMemoryArray]:
    made = [
        SharedMemoryArray.create_array(f"name-{k:04d}", np.zeros(1), context=place)
        for k in range(10)
    ]
    for k in range(10, count):  # the same names, cheaper than as many attachments
        (place / f"name-{k:04d}").hardlink_to(place / "name-0000")
    return made


def make(place: Path) -> Any:
    return Producer("camera", 64, 4, context=place).unlink


def make_queue(place: Path) -> Any:
    return MemQ("jobs", buffer_count=4, buffer_size=64, context=place).unlink


def attach(place: Path) -> Any:
    return Consumer("there", context=place).close


def wait(place: Path) -> Any:
    try:
        Consumer("never", context=place, timeout=0.001)
    except TimeoutError:
        pass
    return int


def microseconds(step: Callable[[Path], Any], place: Path, rounds: int) -> float:
    """Return processor time of a call, without that of its clean-up."""
    used = 0.0
    for _ in range(rounds):
        began = time.process_time()
        undo = step(place)
        used += time.process_time() - began
        undo()
    return used / rounds * 1e6


def share(place: Path, seconds: float) -> float:
    """Return the share of a core while waiting for a missing name, %."""
    began, used = time.monotonic(), time.process_time()
    try:
        Consumer("never", context=place, timeout=seconds)
    except TimeoutError:
        pass
    return (time.process_time() - used) / (time.monotonic() - began) * 100


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", help="also write the results to this file")
    parser.add_argument("--quick", action="store_true", help="short turns")
    options = parser.parse_args()
    rounds = ROUNDS // 4 if options.quick else ROUNDS
    shm = "/dev/shm" if Path("/dev/shm").is_dir() else None
    few, many = (Path(tempfile.mkdtemp(dir=shm)) for _ in range(2))
    results: list[Result] = []
    aims: list[Aim] = []
    try:
        kept = [crowd(few, 10), crowd(many, 2000)]
        streams = [Producer("there", 64, 4, context=place) for place in (few, many)]
        steps = {
            "make a stream": make, "make a queue": make_queue,
            "attach": attach, "wait 1 ms in vain": wait,
        }  # fmt: skip
        for case, step in steps.items():
            turns = {
                MANY: functools.partial(microseconds, step, many, rounds),
                FEW: functools.partial(microseconds, step, few, rounds),
            }
            results += interleaved(case, "us", turns, 9)
            aims.append(Aim(case, MANY, FEW, 1.3, 1.3))
        seconds = 2.0 if options.quick else 10.0
        turns = {
            "a missing name": functools.partial(share, many, seconds),
            "0.5 % of a core": lambda: 0.5,
        }
        results += interleaved("wait", "%", turns, 5)
        aims.append(Aim("wait", "a missing name", "0.5 % of a core", 1, 1))
        for stream in streams:
            stream.unlink()
        del kept
    finally:
        shutil.rmtree(few)
        shutil.rmtree(many)
    return report(results, aims, options.json)


if __name__ == "__main__":
    sys.exit(main())
