"""The log compared with the original, the usual formats, and raw write loops.

    python benchmarks/bench_log.py [--json OUT] [--quick] [--directory DIR]

Run it on a quiet machine; --directory chooses the disk. Compared:

- 64-byte entries, one `put` each from one process, until `stop()` has returned: with
  a raw loop of one writev call for each entry, and one for each 256, one file for each
  entry ("bare files"), the original 3.1.1, and sqlite, h5py, zarr, mcap and pyarrow if
  they are installed.
- `log_block` of 64-byte rows: with one buffered file.
- 64 KiB entries: with raw sequential writes.
- three producers together: with one of them.
- a million entries of an archive into one array.

Peers that are not installed are left out. No peer syncs to disk.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measure import Aim, Result, interleaved, report

from ataraxis import DataLogger, LogArchive, LogPackage, assemble_log_archives
from ataraxis.log.npy.directory import EntryDirectory

OURS, NPY, RAW, BARE, ORIGINAL = (
    "ataraxis journal", "ataraxis npy", "writev loop", "bare files", "original 3.1.1",
)  # fmt: skip
EACH = "writev an entry"
SMALL, LARGE = 64, 1 << 16
AIMS = [
    Aim("64 B entries", OURS, EACH, 1.0, 0.4, False),
    Aim("64 B entries", OURS, ORIGINAL, 100, 50, False),
    Aim("files", NPY, BARE, 1 / 1.5, 1 / 1.5, False),
    Aim("log_block 64 B", OURS, "buffered file", 0.5, 0.5, False),
    Aim("64 KiB entries", OURS, RAW, 0.8, 0.6, False),
    Aim("3 producers", OURS, "1 producer", 1.5, 1.5, False),
    Aim("idle writer", OURS, "1 % of a core", 1.0, 1.0),
]


class Desk:
    """Create a directory for each turn, and remove it afterwards."""

    def __init__(self, home: str | None) -> None:
        self.home = home

    def rate(self, work: Callable[[Path], int]) -> float:
        """Return entries a second of one turn; `work` returns how many it wrote."""
        path = Path(tempfile.mkdtemp(dir=self.home))
        try:
            began = time.perf_counter()
            count = work(path)
            return count / (time.perf_counter() - began)
        finally:
            shutil.rmtree(path)


def started(path: Path, count: int, size: int, layout: str = "journal") -> float:
    """Return the rate without the start of the writer, which takes some 0.2 s once."""
    data = np.zeros(size, np.uint8)
    with DataLogger(path, layout=layout) as logger:
        logger.log(0, data)
        while not logger.statistics().written:
            time.sleep(0.001)
        put = logger.input_queue.put
        began = time.perf_counter()
        for i in range(count):
            put(LogPackage(1, i, data))
        logger.stop()
        return count / (time.perf_counter() - began)


def blocks(path: Path, count: int) -> float:
    rows = np.zeros((count, SMALL), np.uint8)
    with DataLogger(path, layout="journal") as logger:
        logger.log(0, rows[0])
        while not logger.statistics().written:
            time.sleep(0.001)
        began = time.perf_counter()
        logger.log_block(1, rows)
        logger.stop()
        return count / (time.perf_counter() - began)


def idle(path: Path, seconds: float) -> float:
    """Return the share of a core that an idle writer uses."""
    with DataLogger(path, layout="journal") as logger:
        logger.log(0, np.zeros(SMALL, np.uint8))
        while not logger.statistics().written:
            time.sleep(0.001)
        # Peers may have left child processes, such as multiprocessing's tracker.
        writer = Path(f"/proc/{logger.input_queue._writer.pid}/schedstat")
        time.sleep(1)
        before = int(writer.read_text().split()[0])
        time.sleep(seconds)
        return (int(writer.read_text().split()[0]) - before) * 1e-9 / seconds


def one_of_three(queue: object, count: int, gate: object) -> None:
    data = np.zeros(SMALL, np.uint8)
    gate.wait()
    for i in range(count):
        queue.put(LogPackage(1, i, data))
    gate.wait()


def together(path: Path, count: int, producers: int) -> float:
    how = multiprocessing.get_context("fork")
    gate = how.Barrier(producers + 1)
    with DataLogger(path, layout="journal") as logger:
        given = logger.input_queue, count // producers, gate
        children = [
            how.Process(target=one_of_three, args=given) for _ in range(producers)
        ]
        for child in children:
            child.start()
        logger.log(0, np.zeros(SMALL, np.uint8))
        while not logger.statistics().written:
            time.sleep(0.001)
        gate.wait()
        began = time.perf_counter()
        # Until the last put has returned; the exit of the interpreter is not measured.
        gate.wait()
        logger.stop()
        seconds = time.perf_counter() - began
        for child in children:
            child.join()
        return count / seconds


def writev(path: Path, count: int, size: int) -> int:
    parts = [bytes(size)] * min(256, max(1, (1 << 20) // size))
    descriptor = os.open(path / "raw", os.O_WRONLY | os.O_CREAT, 0o644)
    for _ in range(count // len(parts)):
        os.writev(descriptor, parts)
    os.close(descriptor)
    return count // len(parts) * len(parts)


def writev_each(path: Path, count: int) -> int:
    parts = [bytes(SMALL)]
    descriptor = os.open(path / "raw", os.O_WRONLY | os.O_CREAT, 0o644)
    for _ in range(count):
        os.writev(descriptor, parts)
    os.close(descriptor)
    return count


def buffered(path: Path, count: int) -> int:
    row = bytes(SMALL)
    with open(path / "raw", "wb", buffering=1 << 20) as file:
        for _ in range(count):
            file.write(row)
    return count


def bare(path: Path, count: int) -> int:
    data = bytes(137 + SMALL)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    for i in range(count):
        descriptor = os.open(f"{path}/{1:03d}_{i:020d}.npy", flags, 0o644)
        os.write(descriptor, data)
        os.close(descriptor)
    return count


def original(path: Path, count: int) -> int:
    import ataraxis_data_structures as theirs

    logger = theirs.DataLogger(path, instance_name="bench", exist_ok=True)
    logger.start()
    data = np.zeros(SMALL, np.uint8)
    for i in range(count):
        package = theirs.LogPackage(np.uint8(1), np.uint64(i), data)
        logger.input_queue.put(package)
    logger.stop()
    return count


def sqlite(path: Path, count: int) -> int:
    with sqlite3.connect(path / "db") as db:
        db.execute("CREATE TABLE log (source, stamp, data)")
        data = bytes(SMALL)
        db.executemany(
            "INSERT INTO log VALUES (1, ?, ?)", ((i, data) for i in range(count))
        )
    db.close()
    return count


def h5(path: Path, count: int) -> int:
    import h5py

    rows = np.zeros((1, SMALL), np.uint8)
    with h5py.File(path / "h5", "w") as file:
        shape = {"shape": (0, SMALL), "maxshape": (None, SMALL)}
        table = file.create_dataset("log", dtype="u1", chunks=(1024, SMALL), **shape)
        for i in range(count):
            table.resize(i + 1, 0)
            table[i] = rows[0]
    return count


def zarr_(path: Path, count: int) -> int:
    import zarr

    table = zarr.open(
        str(path / "z"), mode="w", shape=(0, SMALL), chunks=(1024, SMALL), dtype="u1"
    )
    row = np.zeros((1, SMALL), np.uint8)
    for _ in range(count):
        table.append(row)
    return count


def mcap(path: Path, count: int) -> int:
    from mcap.writer import Writer

    data = bytes(SMALL)
    with open(path / "mcap", "wb") as file:
        writer = Writer(file)
        writer.start()
        schema = writer.register_schema("raw", "", b"")
        channel = writer.register_channel("log", "", schema)
        for i in range(count):
            writer.add_message(channel, i, data, i)
        writer.finish()
    return count


def arrow(path: Path, count: int) -> int:
    import pyarrow

    schema = pyarrow.schema([("stamp", "u8"), ("data", pyarrow.binary())])
    data = bytes(SMALL)
    with (
        pyarrow.OSFile(str(path / "arrow"), "wb") as file,
        pyarrow.ipc.new_file(file, schema) as writer,
    ):
        for start in range(0, count, 1024):
            n = min(1024, count - start)
            columns = [pyarrow.array(range(start, start + n)), [data] * n]
            writer.write(pyarrow.record_batch(columns, schema))
    return count


PEERS = {
    "sqlite": ("sqlite3", sqlite, 1.0),
    ORIGINAL: ("ataraxis_data_structures", original, 0.01),
    "h5py": ("h5py", h5, 0.05),
    "zarr": ("zarr", zarr_, 0.002),
    "mcap": ("mcap", mcap, 0.2),
    "pyarrow": ("pyarrow", arrow, 1.0),
}


def installed() -> dict[str, tuple[Callable[[Path, int], int], float]]:
    found = {}
    for name, (module, work, part) in PEERS.items():
        try:
            __import__(module)
        except ImportError:
            print(f"{name} is not installed: left out", file=sys.stderr)
            continue
        found[name] = work, part
    return found


def archives(desk: Desk, count: int) -> list[Result]:
    """Read an archive into one array, as entries a second."""
    path = Path(tempfile.mkdtemp(dir=desk.home))
    try:
        with EntryDirectory(path) as entries:
            for i in range(count):
                entries.write(1, i, bytes(SMALL))
        assemble_log_archives(path)

        def bulk() -> float:
            began = time.perf_counter()
            with LogArchive(path / "1_log.npz") as log:
                assert log.read().data.shape == (count, SMALL)
            return count / (time.perf_counter() - began)

        def numpys() -> float:
            began = time.perf_counter()
            with np.load(path / "1_log.npz") as archive:
                names = archive.files[: count // 20]
                np.stack([archive[name] for name in names])
            return len(names) / (time.perf_counter() - began)

        return interleaved("npz to array", "/s", {OURS: bulk, "np.load": numpys}, 5)
    finally:
        shutil.rmtree(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--directory")
    arguments = parser.parse_args()
    desk = Desk(arguments.directory)
    n, turns = (20_000, 3) if arguments.quick else (1_000_000, 5)
    files, large = n // 20, max(16, n // 100)

    def direct(work: Callable[..., float], *given: object) -> Callable[[], float]:
        def turn() -> float:
            path = Path(tempfile.mkdtemp(dir=desk.home))
            try:
                return work(path, *given)
            finally:
                shutil.rmtree(path)

        return turn

    small = {
        OURS: direct(started, n, SMALL),
        EACH: lambda: desk.rate(lambda path: writev_each(path, n)),
        RAW: lambda: desk.rate(lambda path: writev(path, n, SMALL)),
    }
    for name, (work, part) in installed().items():
        count = max(10, int(n * part))
        small[name] = lambda w=work, c=count: desk.rate(lambda path: w(path, c))
    results = interleaved("64 B entries", "/s", small, turns)
    results += interleaved(
        "files",
        "/s",
        {
            NPY: direct(started, files, SMALL, "npy"),
            BARE: lambda: desk.rate(lambda path: bare(path, files)),
        },
        turns,
    )
    results += interleaved(
        "log_block 64 B",
        "/s",
        {
            OURS: direct(blocks, n),
            "buffered file": lambda: desk.rate(lambda path: buffered(path, n)),
        },
        turns,
    )
    results += interleaved(
        "64 KiB entries",
        "/s",
        {
            OURS: direct(started, large, LARGE),
            RAW: lambda: desk.rate(lambda path: writev(path, large, LARGE)),
        },
        turns,
    )
    results += interleaved(
        "3 producers",
        "/s",
        {OURS: direct(together, n, 3), "1 producer": direct(together, n, 1)},
        turns,
    )
    results += interleaved(
        "idle writer",
        "of a core",
        {OURS: direct(idle, 3.0), "1 % of a core": lambda: 0.01},
        turns,
    )
    results += archives(desk, files)
    return report(results, AIMS, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
