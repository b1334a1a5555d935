"""XDF files of simulated devices: clocks that drift and are reset, gaps, offsets."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from clock_rig import SECOND, Oscillator


@dataclass
class XdfStream:
    """A stream as it was sent, and the truth about it; times in s."""

    name: str
    rate: float
    stamps: np.ndarray
    """As written."""
    true: np.ndarray
    """When each sample was made, by the recording computer's clock."""
    clock_times: np.ndarray
    clock_values: np.ndarray
    resets: int = 0
    values: np.ndarray = field(default_factory=lambda: np.empty(0))


def made(
    rng, name, rate=100.0, seconds=300.0, ppm=20.0, swing_ppm=5.0, resets=(), gaps=(),
    jitter_s=1e-4, noise_s=5e-5, host_s=5000.0, every_s=5.0, outliers=0,
):  # fmt: skip
    """Return a stream whose device restarts its clock at `resets`, s."""
    n = int(seconds * (rate or 3))
    if rate:
        since = np.arange(n) / rate
    else:
        since = np.sort(rng.uniform(0, seconds, n))
    for start, length in gaps:
        since = since[(since < start) | (since > start + length)]
    asked = np.arange(1.0, seconds, every_s)
    edges = np.array([0.0, *resets, np.inf])
    starts = rng.uniform(100, 90_000, len(edges) - 1)
    oven = Oscillator(ppm, swing_ppm, 600 * SECOND, unit_ns=1)

    def device(at):
        run = np.searchsorted(edges, at, "right") - 1
        elapsed = (oven.ticks(at * 1e9) - oven.ticks(edges[run] * 1e9)) / 1e9
        return starts[run] + elapsed

    measured = host_s + asked - device(asked) + rng.normal(0, noise_s, len(asked))
    wrong = rng.choice(np.arange(4, len(asked) - 4), outliers, replace=False)
    measured[wrong] += rng.choice([-1, 1], outliers) * rng.uniform(0.01, 0.2, outliers)
    stamped = device(since)
    if rate:
        stamped = stamped + rng.uniform(0, jitter_s, len(since))
    return XdfStream(
        name, rate, stamped, host_s + since + (stamped - device(since)),
        device(asked), measured, len(resets), np.arange(len(since)) % 30_000,
    )  # fmt: skip


def write(path: Path, streams: list[XdfStream]) -> Path:
    """Write streams of int32 to a new file, offsets and samples in turn."""
    with open(path, "xb") as file:
        file.write(b"XDF:")
        _chunk(file, 1, b"<?xml version='1.0'?><info><version>1.0</version></info>")
        for number, stream in enumerate(streams, 1):
            text = (
                f"<?xml version='1.0'?><info><name>{stream.name}</name><type>EEG</type>"
                f"<channel_count>1</channel_count><nominal_srate>{stream.rate}"
                "</nominal_srate><channel_format>int32</channel_format><desc/></info>"
            )
            _chunk(file, 2, struct.pack("<I", number) + text.encode())
        for number, stream in enumerate(streams, 1):
            for pair in zip(stream.clock_times, stream.clock_values, strict=True):
                _chunk(file, 4, struct.pack("<Idd", number, *pair))
            rows = np.empty(
                len(stream.stamps), [("size", "u1"), ("t", "<f8"), ("v", "<i4")]
            )
            rows["size"], rows["t"], rows["v"] = 8, stream.stamps, stream.values
            for a in range(0, len(rows), 1000):
                part = rows[a : a + 1000]
                head = struct.pack("<IBI", number, 4, len(part))
                _chunk(file, 3, head + part.tobytes())
            footer = b"<?xml version='1.0'?><info></info>"
            _chunk(file, 6, struct.pack("<I", number) + footer)
    return path


def _chunk(file, tag: int, content: bytes) -> None:
    file.write(struct.pack("<BIH", 4, len(content) + 2, tag) + content)
