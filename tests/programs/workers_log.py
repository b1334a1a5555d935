"""Functions that the tests of the log run in other processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np


def record(stream: str, directory: Path, ready: object, **options: object) -> None:
    """Record until killed or the stream ends."""
    from ataraxis.log import Recorder

    recorder = Recorder(stream, directory, **options)  # type: ignore[arg-type]
    ready.set()  # type: ignore[attr-defined]
    recorder.wait()
    recorder.stop()


def write(directory: Path, pipe: object, seed: int, crash_at: int) -> None:
    """Log blocks and single entries, send how many are safe, die after `crash_at`."""
    from ataraxis.log import JournalWriter

    chance = np.random.default_rng(seed)
    journal = JournalWriter(directory, file_bytes=2**18, buffer_bytes=8192)
    k = 0
    while True:
        n = int(chance.integers(1, 50))
        width = int(chance.choice([1, 8, 64, 3000]))
        rows = np.repeat(np.arange(k, k + n, dtype="<i8")[:, None], width, 1)
        journal.log_block(1, rows)
        k += n
        if chance.random() < 0.3:
            pipe.send(journal.flush())  # type: ignore[attr-defined]
        if k >= crash_at:
            os.kill(os.getpid(), signal.SIGKILL)


def log_arrays(queue: Any, source: int, n: int) -> None:
    """Log `n` arrays, one after the other."""
    for k in range(n):
        queue.log(source, np.full((2, 3), k, "f4"))
