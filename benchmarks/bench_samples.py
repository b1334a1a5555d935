"""A recording of blocks in xarray, compared with NumPy on the same bytes.

    python benchmarks/bench_samples.py [--json OUT] [--quick] [--directory DIR]

Run it on a quiet machine. A recording of 1e7 samples of 64 channels, int16, in blocks
of 200, lies in the page cache. Compared:

- opening it with its axis of samples: with opening it by entry.
- all of it through ``.sel(time=slice(...))``: with a copy of the same bytes from
  `np.memmap`; with checksums and without.
- `around` of 1,000 trials of 0.4 s: with fancy indexing of the memmap by an index that
  was made before.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr
from measure import Aim, Result, interleaved, report

from ataraxis.frame import Frame
from ataraxis.labels import Labels
from ataraxis.log import JournalWriter
from ataraxis.session.trials import around

OURS, CHECKED, ENTRIES, COPY, FANCY = (
    "ataraxis", "ataraxis, checksums", "by entry", "copy of memmap", "fancy indexing",
)  # fmt: skip
RATE, EACH, CHANNELS, TRIALS, TRIAL_S = 20_000, 200, 64, 1000, 0.4
AIMS = [
    Aim("open", OURS, ENTRIES, 1 / 1.2, 1 / 1.5, False),
    Aim("sel", OURS, COPY, 1 / 1.3, 1 / 2, False),
    Aim("sel", CHECKED, COPY, 1 / 2, 1 / 3, False),
    Aim("around", OURS, FANCY, 1 / 2, 1 / 4, False),
]


def recorded(directory: Path, samples: int) -> None:
    """Write the recording, its events, and the same samples as plain bytes."""
    labels = Labels(
        "i2", (EACH, CHANNELS), ("time", "channel"), attrs={"sample_rate_hz": RATE}
    )
    rng = np.random.default_rng(0)
    with (
        JournalWriter(directory, "daq") as journal,
        open(directory / "plain.bin", "wb") as plain,
    ):
        journal.describe(1, "daq", labels)
        number = journal.labels_id(labels)
        for k in range(samples // EACH):
            block = rng.integers(-(2**15), 2**15, (EACH, CHANNELS), dtype="i2")
            stamp = 10**9 + (k + 1) * EACH * (10**9 // RATE)
            stamp += int(rng.exponential(2e5))
            frame = Frame.from_value(block, sequence=k, time_ns=stamp)
            journal.append(frame.to_bytes(), source=1, labels=number)
            plain.write(block.tobytes())
    spans = np.linspace(1.0, samples / RATE - 1.0, TRIALS)
    event = np.dtype([("event", "U64"), ("data", "U448")])
    rows = np.array([("stim", "")] * TRIALS, event)
    with JournalWriter(directory, "events") as journal:
        journal.describe(2, "events", Labels(event, ()))
        journal.log_block(2, rows, time_ns=10**9 + (spans * 1e9).astype("i8"))


def timed(work: object) -> float:
    """Return calls per second of one call."""
    start = time.perf_counter()
    work()  # type: ignore[operator]
    return 1 / (time.perf_counter() - start)


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--directory")
    options = parser.parse_args()
    samples = 10**6 if options.quick else 10**7
    turns = 5 if options.quick else 7
    with tempfile.TemporaryDirectory(dir=options.directory) as home:
        place = Path(home)
        recorded(place, samples)
        plain = np.memmap(place / "plain.bin", "i2").reshape(samples, CHANNELS)
        plain.sum(dtype="i8")  # into the page cache

        def opened(**more: object) -> xr.Dataset:
            return xr.open_dataset(
                place, engine="ataraxis", source="daq", cache=False, **more
            )

        def chosen(dataset: xr.Dataset) -> np.ndarray:
            return dataset.sel(time=part).daq.values

        fast, checked = opened(verify=False), opened()
        times = fast.time.values[[10, samples - 10]]
        part = slice(*times)
        first, last = 10, samples - 9
        np.testing.assert_array_equal(chosen(checked), plain[first:last])
        tree = xr.open_datatree(place, engine="ataraxis", verify=False)
        width = round(TRIAL_S * RATE)
        cut = around(tree, "stim", 0.1, TRIAL_S - 0.1)["daq"]
        assert bool(cut.is_there.all())
        stamps = fast.time.values.astype("i8")
        starts = np.searchsorted(
            stamps, tree["events"].time.values.astype("i8") - 10**8
        )
        index = starts[:, None] + np.arange(width)
        results: list[Result] = []
        for title, works in (
            ("open", {
                OURS: lambda: opened().close(),
                ENTRIES: lambda: opened(by_entry=True).close(),
            }),
            ("sel", {
                OURS: lambda: chosen(fast), CHECKED: lambda: chosen(checked),
                COPY: lambda: np.array(plain[first:last]),
            }),
            ("around", {
                OURS: lambda: around(tree, "stim", 0.1, TRIAL_S - 0.1),
                FANCY: lambda: plain[index],
            }),
        ):  # fmt: skip
            runs = {name: (lambda w=work: timed(w)) for name, work in works.items()}
            results += interleaved(title, "1/s", runs, turns)
        tree.close()
        fast.close()
        checked.close()
    return report(results, AIMS, options.json)


if __name__ == "__main__":
    raise SystemExit(main())
