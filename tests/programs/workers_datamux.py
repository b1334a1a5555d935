"""Spawn targets of the tests of DataMux."""

from __future__ import annotations

import time
from typing import Any

import numpy as np


def push_lsl(name: str, channels: int, rate: float, seconds: float, pipe: Any) -> None:
    """Push counted samples through an LSL outlet in time, 100 chunks a second.

    Channel c of sample k is ``(k + c) % 2**24``; its time is ``k / rate`` after the
    first. Says ``ready``, waits for a reader, and says how many it will push.
    """
    import pylsl

    info = pylsl.StreamInfo(name, "EEG", channels, rate, "float32", f"id-{name}")
    outlet = pylsl.StreamOutlet(info)
    pipe.send("ready")
    if not outlet.wait_for_consumers(30):
        pipe.send("no reader came")
        return
    pipe.recv()
    size = max(1, round(rate / 100))
    begin, first_s = time.monotonic(), pylsl.local_clock()
    pushed, total = 0, -(-round(rate * seconds) // size) * size
    pipe.send((total, first_s))
    while pushed < total:
        k = pushed + np.arange(size)
        rows = ((k[:, None] + np.arange(channels)) % 2**24).astype("f4")
        outlet.push_chunk(rows, first_s + (pushed + size - 1) / rate)
        pushed += size
        time.sleep(max(0.0, begin + pushed / rate - time.monotonic()))
    pipe.recv()


def burn(until: Any) -> None:
    """Keep a core busy until stopped."""
    while not until.is_set():
        np.linalg.norm(np.random.default_rng(0).normal(size=20_000))
