"""Reading logs: a million entries into one array, and opening logs of two sizes.

    python benchmarks/bench_log_read.py [--json OUT] [--quick] [--directory DIR]

Compared:

- 64-byte entries of an archive, and of a journal, into one array, opening included,
  with the original's way, one member after the other (its own `LogArchiveReader`, if it
  is installed).
- opening a journal of 1 GB with one of 0.1 GB, in xarray and as a `LogArchive`.

Files are in the page cache: this measures programs, not disks.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr
from measure import Aim, Result, interleaved, report

from ataraxis import LogArchive
from ataraxis.log import JournalWriter
from ataraxis.log.npy.entries import EntryKey, entry_head
from ataraxis.log.npy.npz_writer import NpzWriter

SIZE = 64
OURS, JOURNAL, ORIGINAL = "ataraxis npz", "ataraxis journal", "original's way"
AIMS = [
    Aim("entries to array", OURS, ORIGINAL, 100, 50, False),
    Aim("entries to array", JOURNAL, ORIGINAL, 100, 50, False),
    Aim("open in xarray", "1 GB", "0.1 GB", 1.2, 2.0),
    Aim("open", "1 GB", "0.1 GB", 1.2, 2.0),
]
ONSET_US = 1_700_000_000_000_000


def archive_of(path: Path, count: int) -> Path:
    """Write an archive like those of the originals, with its onset first."""
    with NpzWriter(path / "1_log.npz", compress=False) as archive:
        for stamp in range(count):
            data = bytes(SIZE) if stamp else ONSET_US.to_bytes(8, "little")
            head = entry_head(1, stamp, len(data))
            archive.add(EntryKey(stamp, 1).stem, head + data)
        archive.finish()
    return path / "1_log.npz"


def journal_of(path: Path, count: int) -> Path:
    path.mkdir()
    rows = np.zeros((100_000, SIZE), np.uint8)
    with JournalWriter(path) as journal:
        for start in range(0, count, len(rows)):
            part = rows[: count - start]
            journal.log_block(1, part, time_ns=1000 * start, step_ns=1000)
    return path


def to_array(path: Path, numbers: range) -> float:
    """Return entries a second."""
    began = time.perf_counter()
    with LogArchive(path) as log:
        assert log.read(numbers=numbers).data.shape == (len(numbers), SIZE)
    return len(numbers) / (time.perf_counter() - began)


def original(path: Path, count: int, part: int) -> float:
    """Return entries a second, extrapolated: opening once, reading a part of them."""
    began = time.perf_counter()
    try:
        from ataraxis_data_structures import LogArchiveReader
    except ImportError:
        with np.load(path) as archive:
            names = archive.files
            opened = time.perf_counter()
            np.stack([archive[name][9:] for name in names[1 : part + 1]])
    else:
        reader = LogArchiveReader(path)
        keys = [key for batch in reader.get_batches(1, 1) for key in batch]
        opened = time.perf_counter()
        np.stack([m.payload for m in reader.iter_messages(keys[:part])])
    each = (opened - began) / count + (time.perf_counter() - opened) / part
    return 1 / each


def opening(open_it: Callable[[Path], object], path: Path) -> Callable[[], float]:
    def turn() -> float:
        began = time.perf_counter()
        open_it(path).close()
        return (time.perf_counter() - began) * 1e3

    return turn


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--directory")
    arguments = parser.parse_args()
    count, turns = (50_000, 3) if arguments.quick else (1_000_000, 5)
    home = Path(tempfile.mkdtemp(dir=arguments.directory))
    try:
        npz, plain = archive_of(home, count), journal_of(home / "journal", count)
        few = min(count // 2, 20_000)
        results: list[Result] = interleaved(
            "entries to array",
            "/s",
            {
                OURS: lambda: to_array(npz, range(1, count)),
                JOURNAL: lambda: to_array(plain, range(count)),
                ORIGINAL: lambda: original(npz, count, few),
            },
            turns,
        )
        part = 10 if arguments.quick else 1
        logs = {
            "0.1 GB": journal_of(home / "small", 780_000 // part),
            "1 GB": journal_of(home / "large", 7_800_000 // part),
        }
        for case, open_it in (
            ("open in xarray", lambda path: xr.open_dataset(path, engine="ataraxis")),
            ("open", LogArchive),
        ):
            peers = {size: opening(open_it, path) for size, path in logs.items()}
            results += interleaved(case, "ms", peers, 9)
        return report(results, AIMS, arguments.json)
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    sys.exit(main())
