"""A SpikeGLX recording of 300 GB in sparse files: opened, read, replayed.

    python benchmarks/bench_recordings.py [--json OUT] [--quick] [--directory DIR]

Run it on a quiet machine. Four probes of 384 channels at 30 kHz with their LF bands and
a board. Compared:

- opening it, its time and peak memory printed beside: with parsing the headers by neo.
- one second of a probe: with a copy of the same bytes from `np.memmap`.
- a replay of all four probes at 1x for 10 s into functions that take blocks: the
  seconds of recording that came with the seconds that passed, and how late blocks were.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measure import Aim, interleaved, report

import ataraxis.datamux as dm

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
import spikeglx

OURS, NEO, COPY, CLOCK = "ataraxis", "neo", "copy of memmap", "the clock"
SITES, PROBES, REPLAY_S = 384, 4, 10.0
AIMS = [
    Aim("open", OURS, NEO, 1.5, 3),
    Aim("read 1 s", OURS, COPY, 1.2, 2),
    Aim("replay 4 probes", OURS, CLOCK, 0.98, 0.9, False),
]


def written(folder: Path, seconds: float) -> float:
    """Write the recording; return its bytes."""
    for probe in range(PROBES):
        for band, rate in (("ap", spikeglx.AP_HZ), ("lf", spikeglx.LF_HZ)):
            place = folder / f"imec{probe}"
            spikeglx.write_probe(place, "run", probe, band, int(seconds * rate), SITES)
    spikeglx.write_board(folder, "run", int(seconds * spikeglx.NI_HZ), 8)
    return sum(path.stat().st_size for path in folder.rglob("*.bin"))


def seconds_of(work: Callable[[], object]) -> float:
    """Return how long a call takes, s."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def parsed(folder: Path) -> None:
    from neo.rawio import SpikeGLXRawIO

    SpikeGLXRawIO(str(folder)).parse_header()


def replayed(folder: Path, seconds: float) -> tuple[float, float]:
    """Return seconds of recording a second, and how late most blocks were, s."""
    found = dm.open_recordings(folder)
    came = [0] * PROBES

    def sink_of(probe: int) -> Callable[[Any], None]:
        def take(block: Any) -> None:
            if block != dm.END_OF_STREAM:
                came[probe] += len(block)

        return take

    with dm.API() as api:
        began = time.perf_counter()
        acks = [
            api.replay(
                found[f"imec{probe}.ap"], sink_of(probe), deliver="block", stop=seconds
            )
            for probe in range(PROBES)
        ]
        for ack in acks:
            ack.wait(seconds * 10)
        passed = time.perf_counter() - began
        late = max(ack.task.statistics().lateness.p99_s for ack in acks)
    return min(came) / spikeglx.AP_HZ / passed, late


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--directory")
    options = parser.parse_args()
    length = 300.0 if options.quick else 3000.0
    with tempfile.TemporaryDirectory(dir=options.directory) as place:
        folder = Path(place) / "run_g0"
        size = written(folder, length)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        first = seconds_of(lambda: dm.open_recordings(folder))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        results = interleaved("open", "s", {
            OURS: lambda: seconds_of(lambda: dm.open_recordings(folder)),
            NEO: lambda: seconds_of(lambda: parsed(folder)),
        }, 5)  # fmt: skip
        recording = dm.open_recordings(folder)["imec0.ap"]
        path = folder / "imec0" / "run_g0_t0.imec0.ap.bin"
        mapped = np.memmap(path, "<i2", "r").reshape(-1, SITES + 1)
        places = iter(range(0, len(recording) - 60_000, 45_000))

        def read() -> None:
            at = next(places)
            np.array(recording.read(at, at + 30_000).array)

        def copied() -> None:
            at = next(places)
            np.array(mapped[at : at + 30_000, :SITES])

        results += interleaved("read 1 s", "s", {
            OURS: lambda: seconds_of(read), COPY: lambda: seconds_of(copied),
        }, 9)  # fmt: skip
        lateness: list[float] = []

        def replay() -> float:
            pace, late = replayed(folder, REPLAY_S / (5 if options.quick else 1))
            lateness.append(late)
            return pace

        results += interleaved(
            "replay 4 probes", "x", {OURS: replay, CLOCK: lambda: 1.0}, 5
        )
    notes = [
        f"{size / 1e9:.0f} GB opened for the first time in {first:.2f} s, neo's import "
        f"included; peak memory {peak / 1024:.0f} MB, {before / 1024:.0f} before",
        f"99 % of blocks replayed were late by {max(lateness) * 1e3:.2f} ms or less",
    ]
    return report(results, AIMS, options.json, notes)


if __name__ == "__main__":
    raise SystemExit(main())
