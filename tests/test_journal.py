"""The journal: what goes in comes out, whatever was done to its files."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ataraxis.errors import CorruptFrame, LoggerError, NotConnectedError
from ataraxis.frame import Frame
from ataraxis.labels import Labels
from ataraxis.log import JournalWriter, LogArchive
from ataraxis.log.journal_page import PAGE, FileHeader


def only(directory: Path, suffix: str = "axj") -> Path:
    (path,) = directory.glob(f"*.{suffix}")
    return path


# ---- what goes in comes out


VALUES = [
    b"bytes", "text", 7, -1.5, None, True, [1, "a", None], {"a": (1, 2)},
    np.arange(6.0).reshape(2, 3), np.array("2026-11-21", "M8[ns]"),
    np.zeros(3, [("x", "<f4"), ("n", "<i8")]), np.zeros((0, 4)), np.float32(1.5),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda v: type(v).__name__)
def test_a_value_comes_back(tmp_path: Path, value: object) -> None:
    with JournalWriter(tmp_path) as journal:
        number = journal.log(3, value, time_ns=11, device_time=-5, device_sequence=9)
    frame = LogArchive(tmp_path)[0]
    assert (frame.source, frame.sequence, frame.time_ns) == (3, number, 11)
    assert (frame.device_time, frame.device_sequence) == (-5, 9)
    np.testing.assert_equal(frame.value, value)


DTYPES = ["u1", "<i2", ">i4", "<f8", "c16", "?", "M8[us]", "S5", "<U3"]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**32 - 2),
            st.sampled_from(DTYPES),
            st.lists(st.integers(0, 5), min_size=1, max_size=4),
            st.integers(-(2**62), 2**62),
            st.booleans(),
        ),
        max_size=8,
    ),
    st.sampled_from([8192, 20000, 2**30]),
    st.booleans(),
)
def test_blocks_come_back(
    tmp_path_factory: pytest.TempPathFactory, blocks: list, size: int, checksum: bool
) -> None:
    directory = tmp_path_factory.mktemp("journal")
    chance = np.random.default_rng(1)
    expected = []
    with JournalWriter(
        directory, file_bytes=size, buffer_bytes=4096, checksum=checksum
    ) as journal:
        for source, dtype, shape, time, is_stamped in blocks:
            itemsize = np.dtype(dtype).itemsize
            n = int(np.prod(shape)) * itemsize
            block = chance.integers(0, 2, n, "u1").view("u1")
            block = np.frombuffer(block.tobytes(), dtype).reshape(shape)
            ticks = np.arange(shape[0]) + 2**63 if is_stamped else None
            if ticks is not None:
                ticks = ticks.astype("u8")
            first = journal.log_block(
                source, block, time_ns=time, step_ns=3, device_time=ticks
            )
            for k in range(shape[0]):
                expected.append((source, first + k, time + 3 * k, block[k], is_stamped))
    archive = LogArchive(directory)
    assert len(archive) == len(expected)
    assert archive.problems == []
    for frame, (source, sequence, time, row, is_stamped) in zip(
        archive, expected, strict=True
    ):
        assert (frame.source, frame.sequence, frame.time_ns) == (source, sequence, time)
        assert frame.device_time == (
            2**63 + (sequence - expected_first(expected, source, sequence, frame))
            if is_stamped
            else None
        )
        assert frame.array.tobytes() == row.tobytes()
        assert frame.array.dtype == row.dtype
        assert frame.array.shape == row.shape
        assert frame.checksum == checksum


def expected_first(expected: list, source: int, sequence: int, frame: Frame) -> int:
    """The sequence at which the block of a row began, from its device time."""
    return sequence - (frame.device_time - 2**63)
