"""Functions that the tests of the logger run in other processes."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np

from ataraxis import LogPackage
from ataraxis.errors import LoggerError
from ataraxis.log import compress_npy_logs
from ataraxis.log.npy.directory import EntryDirectory


def archive_at_once(path: Path, at_once: Any, base: int) -> None:
    """Add a hundred entries, then archive while others do so too."""
    with EntryDirectory(path) as entries:
        for i in range(100):
            entries.write(i % 3, base + i, b"late")
    at_once.wait(30)
    compress_npy_logs(path, remove_sources=True)


def log_many(queue: Any, source: int, count: int) -> None:
    """Log entries with their source and number; half of all stamps are equal."""
    for i in range(count):
        data = np.frombuffer(f"{source} {i}".encode(), np.uint8)
        queue.put(LogPackage(source, i // 2, data))


def log_until_refused(queue: Any, result: str) -> None:
    """Log until the logger refuses; write how many entries it accepted."""
    count = 0
    try:
        while True:
            queue.put(LogPackage(1, count, np.zeros(3, np.uint8)))
            count += 1
    except LoggerError:
        Path(result + ".new").write_text(str(count))
        Path(result + ".new").rename(result)


def log_and_count(queue: Any, source: int, counter: str) -> None:
    """Log forever; count the returned puts in a mapped file, which survives a kill."""
    with open(counter, "r+b") as file:
        count = mmap.mmap(file.fileno(), 8)
    number = 0
    while True:
        data = b"%d %d " % (source, number) + b"x" * (number % 200)
        queue.put(LogPackage(source, number // 2, np.frombuffer(data, np.uint8)))
        number += 1
        count[:8] = number.to_bytes(8, "little")


def accepted(path: Path) -> list[bytes]:
    """Payloads of a log of either layout, sorted."""
    found = [bytes(np.load(p)[9:]) for p in path.glob("*.npy")]
    if any(path.glob("*.axj")):
        from ataraxis.log.journal.reader import JournalReader

        with JournalReader(path) as log:
            everything = log.frames(log.select())
            found += [frame.array.tobytes() for frame in everything]
    return sorted(found)
