"""Frames recorded directly from a queue's slots, and frames drained first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ataraxis import DataLogger
from ataraxis.frame import Frame
from ataraxis.log.journal.reader import JournalReader
from ataraxis.log.writer import JournalEntrySink, WriterCheckpoint

RNG = np.random.default_rng(5)
PLAIN = ("?", "u1", "i2", "u4", "f4", "f8", "i8", "c16")
ENTRIES = {
    "plain": [RNG.integers(0, 99, (3, 4)).astype(kind) for kind in PLAIN],
    "shapes": [np.zeros(shape) for shape in ((), (0,), (1, 1, 1, 1), (2,) * 6, (3, 0))],
    "others": [
        np.array(["é", "uv"]), np.array([b"a", b"bcd"]), np.arange(3, dtype=">i4"),
        np.zeros(2, [("x", "f4"), ("y", "i2")]), np.array(["2026-11-21"], "M8[D]"),
    ],
    "long": [RNG.integers(0, 256, n, np.uint8) for n in (70_000, 70_001, 1, 90_000)],
    "short and long": [np.zeros(n, np.uint8) for n in (64, 80_000, 64, 80_000, 80_000)],
}  # fmt: skip
BLOCKS = {
    "rows": [RNG.normal(size=(100, 3)), np.arange(7, dtype="i2"), np.zeros((5, 0))],
    "rows of many dims": [np.arange(64.0).reshape(4, 2, 2, 2, 2), np.zeros((2,) * 7)],
    "rows of others": [np.array([b"ab", b"c"]), np.zeros(3, [("x", "f4")])],
    "no rows": [np.zeros((0, 3))],
}


def recorded(path: Path) -> list[tuple[Any, ...]]:
    with JournalReader(path) as journal:
        assert journal.problems == []
        frames = [journal.frame(k) for k in range(len(journal))]
        # Frames that were given back are redelivered, in any order.
        frames.sort(key=lambda frame: frame.sequence)
        return [described(frame) for frame in frames]


def described(frame: Frame) -> tuple[Any, ...]:
    """Return every field of a frame, with the labels instead of their number."""
    data, array = frame.to_bytes(), frame.array
    return data[:56], data[64:], array.dtype, array.shape, array.tobytes()


@pytest.mark.parametrize("kind", [*ENTRIES, *BLOCKS])
def test_both_ways_record_the_same_bytes(kind: str, tmp_path: Path) -> None:
    """Numbers, stamps, labels, payloads, checksums: every byte of every frame."""
    logger = DataLogger(tmp_path, layout="journal", buffer_size=1 << 17)
    status, queue = logger._status, logger._memq
    count = 0
    for k, array in enumerate(ENTRIES.get(kind, [])):
        logger.log(k, array, timestamp=1000 + k)
        count += 1
    for k, rows in enumerate(BLOCKS.get(kind, [])):
        count += logger.input_queue.log_block(k, rows, timestamp=50, step=k)

    def sink(name: str) -> JournalEntrySink:
        about: dict[str, Any] = {**status.about, "directory": str(tmp_path / name)}
        (tmp_path / name).mkdir()
        return JournalEntrySink(status, about, WriterCheckpoint(status, []))

    hauled, drained = sink("hauled"), sink("drained")
    while hauled._record(queue, 0):
        assert not hauled._is_large_next
    hauled.close()
    queue.give_back_drained()
    while drained._drain_buffer.fill(queue):
        pass
    drained.close()
    queue.acknowledge_drained()
    found = recorded(tmp_path / "hauled")
    assert found == recorded(tmp_path / "drained")
    assert len(found) == count
    logger.close()
