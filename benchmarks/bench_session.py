"""A session compared with a bare recorder: the cost of its book-keeping.

    python benchmarks/bench_session.py [--json OUT] [--quick] [--directory DIR]

640x480 pictures at full speed, until all are on disk and, for a session, counted and
judged. Recorded by threads of this program, and by a separate process.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from measure import Aim, Result, interleaved, report

from ataraxis import Producer, Recorder, Session

SHAPE = (480, 640)
CASE = "record 640x480"
BARE, THREADS, PROCESS = "Recorder", "session, threads", "session, a process"
AIMS = [
    Aim(CASE, THREADS, BARE, 0.9, 0.7, False),
    Aim(CASE, PROCESS, BARE, 0.9, 0.5, False),
]


def rate(
    frames: int, home: str | None, begin: Callable[[ExitStack, Path], None]
) -> float:
    """Return pictures a second, from the first send until the last one is on disk."""
    directory = Path(tempfile.mkdtemp(dir=home))
    picture = np.zeros(SHAPE, "u1")
    try:
        with Producer("bench_camera", shape=SHAPE, dtype="u1", sync=True) as camera:
            with ExitStack() as stack:
                begin(stack, directory)
                camera.wait_for_subscribers(1, 60)
                began = time.perf_counter()
                for _ in range(frames):
                    camera.send(picture)
                last = camera.statistics().readers
                while any(reader.lag for reader in last):
                    time.sleep(0.001)
                    last = camera.statistics().readers
                seconds = time.perf_counter() - began
            camera.unlink()
        return frames / seconds
    finally:
        shutil.rmtree(directory)


def bare(stack: ExitStack, directory: Path) -> None:
    stack.enter_context(Recorder("bench_camera", directory))


def threads(stack: ExitStack, directory: Path) -> None:
    session = stack.enter_context(Session("s", directory=directory))
    session.record("bench_camera")


def process(stack: ExitStack, directory: Path) -> None:
    session = stack.enter_context(Session("s", directory=directory))
    session.record("bench_camera", process=True)


def measured(frames: int, repetitions: int, home: str | None) -> list[Result]:
    turns = {BARE: bare, THREADS: threads, PROCESS: process}
    peers = {
        name: lambda begin=begin: rate(frames, home, begin)
        for name, begin in turns.items()
    }
    return interleaved(CASE, "pictures/s", peers, repetitions)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", help="also write the results to this file")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter turns")
    parser.add_argument("--directory", help="directory on the disk to measure")
    asked = parser.parse_args()
    frames, repetitions = (300, 3) if asked.quick else (1000, 7)
    with tempfile.TemporaryDirectory(prefix="axbench-", dir="/dev/shm") as context:
        os.environ["ATARAXIS_CONTEXT"] = context
        found = measured(frames, repetitions, asked.directory)
    return report(found, AIMS, asked.json)


if __name__ == "__main__":
    sys.exit(main())
