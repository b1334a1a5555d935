"""Recordings: the first picture, the exact one, the next zoom, the report, 100 GB.

A recording of 64 channels x 30 kHz is written, with the fit of its clock, as a session
has it, and looked at from the page cache. Times are compared with 1 s: the aims are
those of a quiet machine. The recording of 104 GB is a sparse file.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measure import Aim, Result, report

import ataraxis
from ataraxis.labels import Labels
from ataraxis.log import JournalWriter
from ataraxis.session.clocks import fit_session
from ataraxis.viewer.levels import FOLDER
from ataraxis.viewer.overview import forget, overview
from ataraxis.viewer.recorded import RecordedSession

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "support"))

OURS = "ataraxis"
LIMIT = "1 s"
RATE, SAMPLES, CHANNELS = 30_000, 300, 64


def write(home: Path, nbytes: int) -> None:
    """Write a recording of so many bytes."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(-500, 500, (200, SAMPLES, CHANNELS)).astype("i2")
    labels = Labels(
        "i2", (SAMPLES, CHANNELS), ("time", "channel"),
        attrs={"sample_rate_hz": RATE, "units": "uV"},
    )  # fmt: skip
    period = 10**9 * SAMPLES // RATE
    with JournalWriter(home, "probe") as journal:
        journal.describe(1, "probe", labels)
        for k in range(0, nbytes // blocks[0].nbytes, len(blocks)):
            stamps = period * np.arange(k + 1, k + len(blocks) + 1)
            journal.log_block(1, blocks, time_ns=stamps)
    fit_session(home)  # as a session does at its end


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


class Recordings:
    """Measures each step, some times in turn."""

    def __init__(self, folder: Path, nbytes: int, turns: int) -> None:
        import xarray
        from recording_rig import sparse_recording

        xarray.DataArray([0])  # loads dask: not what is measured

        self.home, self.half = folder / "two", folder / "half"
        write(self.home, nbytes)
        write(self.half, nbytes // 4)
        self.long = sparse_recording(folder, 10_800)
        self.turns, self.found = turns, dict[str, list[float]]()

    def note(self, case: str, seconds: float) -> None:
        self.found.setdefault(case, []).append(seconds)

    def turn(self) -> None:
        home = self.home
        for folder in (home, self.half, self.long):
            shutil.rmtree(folder / FOLDER, ignore_errors=True)
        forget()
        self.note("quick", timed(lambda: overview(home, "probe", 1000, quick=True)))
        forget()
        self.note("exact", timed(lambda: overview(home, "probe", 1000)))
        length = overview(home, "probe", 10).attrs["samples_per_column"] * 10 / RATE
        for share in (0.1, 0.3, 0.5):
            start, stop = length * share, length * (share + 0.4)
            self.note(
                "zoom",
                timed(lambda a=start, b=stop: overview(home, "probe", 1000, start=a,
                                                       stop=b)),
            )  # fmt: skip
        forget()
        self.note("report", timed(lambda: ataraxis.report(self.half)))
        self.size = (self.half / "report.html").stat().st_size
        self.note("long", timed(self._open_long))

    def _open_long(self) -> None:
        session = RecordedSession(self.long)
        session.words()
        session.streams["probe"].columns(0, session.end, 1200)
        session.close()

    def results(self) -> list[Result]:
        found = []
        for case, values in self.found.items():
            name, _, _ = CASES[case]
            found.append(
                Result(name, OURS, "s", statistics.median(values), min(values),
                       max(values), len(values))
            )  # fmt: skip
            found.append(Result(name, LIMIT, "s", 1.0, 1.0, 1.0, len(values)))
        return found


CASES = {
    "quick": ("overview of 2 GB, quick", 1.0, 3.0),
    "exact": ("overview of 2 GB, exact", 6.0, 40.0),
    "zoom": ("the next zoom", 0.01, 0.5),
    "report": ("report of 0.5 GB", 1.0, 10.0),
    "long": ("first picture of 3 h, 104 GB", 3.0, 10.0),
}
"""Of each: name, aim and floor, s."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one turn")
    parser.add_argument("--json", help="also write the results to this file")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-overview-"))
    try:
        bench = Recordings(folder, 2_000_000_000, 1 if options.quick else 5)
        for _ in range(bench.turns):
            bench.turn()
        forget()
    finally:
        shutil.rmtree(folder)
    aims = [Aim(name, OURS, LIMIT, aim, floor) for name, aim, floor in CASES.values()]
    notes = [f"the report has {bench.size:,} bytes"]
    return report(bench.results(), aims, options.json, notes)


if __name__ == "__main__":
    sys.exit(main())
