"""``ataraxis demo --arrays``: exact counting, whole copies, a writer killed half way.

All between real processes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ataraxis.errors import OwnerDied
from ataraxis.shm import Context, SharedMemoryArray

COUNTS = 50_000
LOOK_S = 1.0


def show() -> int:
    """Run the demo; return the exit code, 0 if all results are as expected."""
    console = Console()
    root = (
        Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())
    )
    place = Context.create(root / f"ataraxis-demo-{os.getpid()}")
    console.print(f"[bold]ataraxis demo[/bold]: real processes, in {place.path}")
    table = Table("what", "expected", "found", "")
    try:
        results = [_count(place), _tear(place), *_die(place), _leftovers(place)]
    finally:
        for leftover in place.path.iterdir():
            leftover.unlink()
        place.path.rmdir()
    for what, expected, found in results:
        verdict = "[green]ok[/green]" if expected == found else "[red]WRONG[/red]"
        table.add_row(what, str(expected), str(found), verdict)
    console.print(table)
    return int(any(expected != found for _, expected, found in results))


def _start(target: Any, *arguments: Any) -> Any:
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def _count(place: Context) -> tuple[str, object, object]:
    zeros = np.zeros(1, np.int64)
    with SharedMemoryArray.create_array("counts", zeros, context=place) as counts:
        workers = [_start(_counting, counts) for _ in range(2)]
        for worker in workers:
            worker.join()
        found = int(counts[0])
    return f"2 processes add 1, {COUNTS:,} times each", 2 * COUNTS, found


def _counting(counts: SharedMemoryArray) -> None:
    for _ in range(COUNTS):
        counts.add(0, 1)


def _tear(place: Context) -> tuple[str, object, object]:
    frame = np.zeros((256, 512))
    with SharedMemoryArray.create_array("frame", frame, context=place) as shared:
        workers = [_start(_filling, shared, start) for start in (0, 1)]
        shared.wait_for_change(timeout=20, since=0)
        copies, torn = 0, 0
        end = time.monotonic() + LOOK_S
        while time.monotonic() < end:
            copy = shared[...]
            copies += 1
            torn += int(copy.min() != copy.max())
        for worker in workers:
            worker.kill()
            worker.join()
    return f"torn among {copies:,} copies of a 1 MB array, 2 writers", 0, torn


def _filling(shared: SharedMemoryArray, value: float) -> None:
    block = np.empty(shared.shape)
    while True:
        value += 2
        block[:] = value
        shared[...] = block


def _die(place: Context) -> list[tuple[str, object, object]]:
    rows: list[tuple[str, object, object]] = []
    pose = np.zeros((4, 3))
    with SharedMemoryArray.create_array(
        "pose", pose, context=place, dims=("mouse", "axis"), coords={"axis": [*"xyz"]}
    ) as shared:
        mine, theirs = multiprocessing.Pipe()
        worker = _start(_dying, shared, theirs)
        mine.recv()
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        begun = time.monotonic()
        result = "data whole"
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                shared[0]
            except OwnerDied:
                result = "OwnerDied"
        waited = time.monotonic() - begun
        names = [w.category.__name__ for w in caught]
        rows.append(("warnings about the dead owner", ["LockRecovered"], names))
        rows.append(("a read after a writer was killed half way", "OwnerDied", result))
        rows.append(("it took less than 1 s", True, waited < 1))
        with shared.array() as view:
            view[:] = 7
        shared.heal()
        rows.append(("the y column after healing", [7.0] * 4, _column(shared)))
    return rows


def _column(shared: SharedMemoryArray) -> list[float]:
    return [float(value) for value in shared.sel(axis="y")]


def _dying(shared: SharedMemoryArray, pipe: Connection) -> None:
    with shared.array() as view:
        view[:2] = 1
        pipe.send("half way")
        signal.pause()


def _leftovers(place: Context) -> tuple[str, object, object]:
    return "segments left behind", [], place.names()
