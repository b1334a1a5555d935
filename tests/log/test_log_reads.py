"""LogArchive.read: intact entries are read, left out ones are reported."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ataraxis import LogArchive
from ataraxis.errors import CorruptFrame
from ataraxis.log.journal.page import PAGE, index_path
from ataraxis.log.journal.writer import JournalWriter
from ataraxis.log.verification import verify

HEADER = 64
VALUES: dict[str, list[Any]] = {
    "float": [1.5, -2.0],
    "int": [3, -4],
    "bool": [True, False],
    "complex": [1j, 2 + 0j],
    "0-d": [np.array(3.0), np.array(4.0)],
    "numpy scalar": [np.float32(3), np.float32(4)],
    "text": ["left", "a longer text"],
    "bytes": [b"abc", b"xyz"],
    "datetime64": [np.array([t], "M8[us]") for t in ("2024-01-01", "1969-12-31")],
    "timedelta64": [np.array([5], "m8[s]"), np.array([-5], "m8[s]")],
    "records": [np.full(2, k, [("a", "i1"), ("b", "i4")]) for k in (0, 1)],
    "big-endian": [np.arange(3, dtype=">i4"), np.arange(3, 6).astype(">i4")],
    "unicode": [np.array(["ab", "c"]), np.array(["dd", "e"])],
    "fixed bytes": [np.array([b"ab", b"c"]), np.array([b"dd", b"e"])],
    "longdouble": [np.arange(2, dtype="g"), np.arange(2, 4).astype("g")],
    "empty": [np.empty((0, 3)), np.empty((0, 3))],
    "5-d": [np.zeros((1, 2, 1, 2, 1)), np.ones((1, 2, 1, 2, 1))],
    "plain": [np.zeros(3), np.ones(3)],
}  # fmt: skip


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("checksum", [True, False])
def test_every_kind_of_value_that_is_alike_is_read_in_bulk(
    tmp_path: Path, kind: str, checksum: bool
) -> None:
    values = VALUES[kind]
    with JournalWriter(tmp_path, checksum=checksum) as journal:
        for value in values:
            journal.log(1, value)
    with LogArchive(tmp_path) as log:
        block = log.read(1)
        if isinstance(values[0], str):
            assert block.data.tolist() == values
        else:
            one = [
                np.frombuffer(v, "u1") if isinstance(v, bytes) else v for v in values
            ]
            expected = np.array(one, np.asarray(one[0]).dtype)
            assert block.data.dtype == expected.dtype
            np.testing.assert_array_equal(block.data, expected)
        assert not len(block.left_out)
        assert block.problems == ()


def test_entries_whose_labels_have_another_number_are_alike(tmp_path: Path) -> None:
    """Each file numbers its labels separately."""
    record = np.dtype([("a", "i2"), ("b", ">f4")])
    other = np.dtype([("z", "u1")])
    for first, second in ((other, record), (record, other)):
        with JournalWriter(tmp_path) as journal:
            journal.log_block(7, np.ones(3, first))
            journal.log_block(8, np.ones(3, second))
    with LogArchive(tmp_path) as log:
        numbers = [k for k in range(len(log)) if log[k].array.dtype == record]
        block = log.read(numbers=np.array(numbers))
        assert block.data.dtype == record
        assert block.data["a"].tolist() == [1] * 6


def test_kinds_that_differ_are_refused_by_name(tmp_path: Path) -> None:
    with JournalWriter(tmp_path) as journal:
        journal.log(1, "text")
        journal.log(1, np.zeros(3))
        journal.log(2, {"a": 1})
        journal.log(3, 2**80)
        journal.log(4, 5)
        journal.log(4, 2**80)
    with LogArchive(tmp_path) as log:
        with pytest.raises(
            ValueError, match=r"entry 1 .* is float64 .*, entry 0 .* text"
        ):
            log.read(1)
        for source in (3, 4):
            with pytest.raises(ValueError, match=r"is INT|not an array .INT"):
                log.read(source)


# ---- damage


def _journal(path: Path, sources: list[int], n: int = 120) -> Path:
    with JournalWriter(path, "j") as journal:
        for k in range(n):
            journal.log(
                sources[k % len(sources)], np.full(4, k, "i8"), time_ns=1000 + k
            )
    return next(path.glob("*.axj"))


def _flip(file: Path, row: int, back: int, mask: int = 4) -> None:
    data = bytearray(file.read_bytes())
    at = data.find(np.full(4, row, "i8").tobytes())
    data[at - back] ^= mask
    file.write_bytes(data)


@pytest.fixture
def caught() -> Iterator[list[warnings.WarningMessage]]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield found


@pytest.mark.parametrize("back", range(1, HEADER + 1, 3))
@pytest.mark.parametrize("with_index", [True, False])
def test_a_damaged_header_is_always_reported(
    tmp_path: Path, caught: list[Any], back: int, with_index: bool
) -> None:
    file = _journal(tmp_path, [5])
    _flip(file, 60, back)
    if not with_index:
        index_path(file).unlink()
    with LogArchive(tmp_path) as log:
        if with_index:
            with pytest.raises(CorruptFrame, match="entry 60"):
                log.read(5)
        else:
            block = log.read(5)
            assert len(block) == 119
            assert caught
            assert block.problems
    assert not verify(tmp_path).is_complete


def test_a_damaged_header_belongs_to_the_times_of_its_neighbours(
    tmp_path: Path,
) -> None:
    _flip(_journal(tmp_path, [5]), 60, 20)
    with LogArchive(tmp_path) as log:
        assert len(log.read(5, 1000, 1059)) == 59
        assert len(log.read(5, 1062, 1120)) == 58
        for start, stop in ((1000, 1060), (1060, 1061), (1061, 1120), (None, None)):
            with pytest.raises(CorruptFrame, match="entry 60"):
                log.read(5, start, stop)


def test_damaged_entries_can_be_left_out_and_are_named(
    tmp_path: Path, caught: list[Any]
) -> None:
    file = _journal(tmp_path, [5])
    _flip(file, 60, 20)  # a header
    _flip(file, 7, -1)  # a payload
    with LogArchive(tmp_path) as log:
        block = log.read(5, skip_damaged=True)
        assert len(block) == 118
        assert block.left_out.tolist() == [7, 60]
        assert [r for r in range(120) if r not in block.data[:, 0]] == [7, 60]
    assert not caught


def test_of_several_sources_the_damage_may_be_of_each(
    tmp_path: Path, caught: list[Any]
) -> None:
    _flip(_journal(tmp_path, [5, 6]), 60, 20)
    with LogArchive(tmp_path) as log:
        for source, count in ((5, 59), (6, 60)):
            caught.clear()
            block = log.read(source)
            assert len(block) == count
            assert len(block.problems) == 1
            assert "may have contained" in str(caught[0].message)
        with pytest.raises(CorruptFrame):
            log.read()
    assert sum(s.missing for s in verify(tmp_path).sources) >= 1


def test_an_intact_log_is_read_without_a_warning(
    tmp_path: Path, caught: list[Any]
) -> None:
    file = _journal(tmp_path, [5, 6])
    index_path(file).unlink()
    with LogArchive(tmp_path) as log:
        assert len(log.read(5)) == 60
    assert file.stat().st_size > PAGE
    assert not caught
