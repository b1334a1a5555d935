"""`overview`: every column's minimum and maximum is exact, and losses are empty."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ataraxis.frame import Frame
from ataraxis.labels import Labels
from ataraxis.log import JournalWriter
from ataraxis.viewer import levels
from ataraxis.viewer.overview import forget, overview

RATE = 1000


@pytest.fixture(autouse=True)
def nothing_kept() -> Any:
    yield
    forget()


def write(
    folder: Path, blocks: dict[int, np.ndarray], rows: int, first: int = 0
) -> None:
    """Write blocks by their sequence numbers, each of `rows` samples."""
    example = next(iter(blocks.values()))
    shape = (rows, *example.shape[1:])
    labels = Labels(
        example.dtype, shape, ("time", "channel"), attrs={"sample_rate_hz": RATE}
    )
    with JournalWriter(folder, "probe") as journal:
        journal.describe(1, "probe", labels)
        number = journal.labels_id(labels)
        for sequence, block in blocks.items():
            stamp = (sequence * rows + len(block)) * 10**9 // RATE + 10**9
            frame = Frame.from_value(block, sequence=sequence, time_ns=stamp)
            journal.append(frame.to_bytes(), source=1, labels=number)


def oracle(
    blocks: dict[int, np.ndarray], rows: int, begin: int, each: int, count: int
) -> np.ndarray:
    """The bounds of columns, by a loop over samples."""
    channels = next(iter(blocks.values())).shape[1]
    found = np.full((count, 2, channels), np.nan)
    for sequence, block in blocks.items():
        for i, sample in enumerate(block):
            column = (sequence * rows + i - begin) // each
            if 0 <= column < count:
                found[column, 0] = np.fmin(found[column, 0], sample)
                found[column, 1] = np.fmax(found[column, 1], sample)
    return found


def compare(seen: Any, blocks: dict[int, np.ndarray], rows: int) -> None:
    each, count = seen.attrs["samples_per_column"], seen.sizes["column"]
    first = min(blocks) * rows
    begin = int(seen["first"].values[0]) + first if count else 0
    expected = oracle(blocks, rows, begin, each, count)
    is_there = ~np.isnan(expected[:, 0]).all(1)
    np.testing.assert_array_equal(seen["is_there"].values, is_there)
    np.testing.assert_array_equal(seen.values[is_there], expected[is_there])
    gone = seen.values[~is_there]
    assert (gone[:, 0] > gone[:, 1]).all()


@settings(deadline=None, max_examples=40)
@given(
    lost=st.sets(st.integers(1, 38), max_size=12),
    rows=st.integers(1, 200),
    columns=st.integers(1, 300),
    dtype=st.sampled_from(["i2", "u1", "f4", "i8"]),
    is_direct=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_bounds_are_those_of_a_loop(
    tmp_path_factory, lost, rows, columns, dtype, is_direct, seed
) -> None:
    folder = tmp_path_factory.mktemp("o")
    source = np.random.default_rng(seed)
    blocks = {
        sequence: source.integers(0, 100, (rows, 3)).astype(dtype)
        for sequence in range(40)
        if sequence not in lost
    }
    write(folder, blocks, rows)
    patch = pytest.MonkeyPatch()
    if not is_direct:  # by the levels, as of a large recording
        patch.setattr("ataraxis.viewer.overview._READ_AT_MOST", 0)
    try:
        seen = overview(folder, "probe", columns)
    finally:
        patch.undo()
        forget()
    assert seen.sizes["column"] <= columns + 1
    compare(seen, blocks, rows)


def made(count: int = 300, rows: int = 100, seed: int = 3) -> dict[int, np.ndarray]:
    source = np.random.default_rng(seed)
    return {
        k: source.integers(-9999, 9999, (rows, 2)).astype("i2") for k in range(count)
    }


def test_further_overviews_read_the_file_of_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one reads no samples but the last ones; a damaged file is made again."""
    monkeypatch.setattr("ataraxis.viewer.overview._READ_AT_MOST", 0)
    blocks = made()
    write(tmp_path, blocks, 100)
    compare(overview(tmp_path, "probe", 50), blocks, 100)
    (kept,) = (tmp_path / levels.FOLDER).glob("*/0")
    about = kept.with_name("about.json")
    known = about.read_text()
    forget()
    read: list[int] = []
    original = levels.Samples.read

    def counted(self: Any, start: int, stop: int) -> np.ndarray:
        read.append(stop - start)
        return original(self, start, stop)

    monkeypatch.setattr(levels.Samples, "read", counted)
    compare(overview(tmp_path, "probe", 50), blocks, 100)
    assert sum(read) <= levels.BASE
    forget()
    for damage in (b"", b"garbage", kept.read_bytes()[:-5]):
        kept.write_bytes(damage)
        compare(overview(tmp_path, "probe", 50), blocks, 100)
        forget()
    for damage in ("", "{}", "[]", known.replace('"channels": 2', '"channels": 3')):
        about.write_text(damage)
        compare(overview(tmp_path, "probe", 50), blocks, 100)
        forget()


def test_two_that_read_at_once_do_not_write_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one has files without a name, and the first one's are whole."""
    monkeypatch.setattr("ataraxis.viewer.overview._READ_AT_MOST", 0)
    monkeypatch.setattr(levels, "PIECE_BYTES", 1 << 12)
    blocks = made()
    write(tmp_path, blocks, 100)
    nodes, node = levels.open_samples(tmp_path, "probe")
    first = levels.Levels(levels.Samples(node), tmp_path, levels.identity_of(node))
    assert first.extend()
    compare(overview(tmp_path, "probe", 50), blocks, 100)
    first.complete()
    first.close()
    nodes.close()
    forget()
    compare(overview(tmp_path, "probe", 50), blocks, 100)


def test_a_disk_that_is_full_is_gone_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ataraxis.viewer.overview._READ_AT_MOST", 0)
    monkeypatch.setattr(levels, "PIECE_BYTES", 1 << 12)
    blocks = made()
    write(tmp_path, blocks, 100)
    pwrite, calls = levels.os.pwrite, []

    def full(file: int, data: Any, at: int) -> int:
        calls.append(at)
        if len(calls) == 5:
            raise OSError(28, "no space left")
        return pwrite(file, data, at)

    monkeypatch.setattr(levels.os, "pwrite", full)
    compare(overview(tmp_path, "probe", 50), blocks, 100)
    assert len(calls) > 9


def test_a_recording_that_grew_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ataraxis.viewer.overview._READ_AT_MOST", 0)
    blocks = made(320)
    first = {k: blocks[k] for k in range(155)}
    write(tmp_path, first, 100)
    compare(overview(tmp_path, "probe", 40), first, 100)
    write(tmp_path, {k: blocks[k] for k in range(155, 320)}, 100)
    compare(overview(tmp_path, "probe", 40), blocks, 100)


def test_another_recording_in_its_place_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ataraxis.viewer.overview._READ_AT_MOST", 0)
    write(tmp_path, made(), 100)
    overview(tmp_path, "probe", 40)
    for path in tmp_path.glob("*.ax*"):
        path.unlink()
    others = made(seed=8)
    write(tmp_path, others, 100)
    compare(overview(tmp_path, "probe", 40), others, 100)


def test_a_folder_that_cannot_be_written_has_its_bounds_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ataraxis.viewer.overview._READ_AT_MOST", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("ataraxis.viewer.levels.os.access", lambda *_: False)
    blocks = made()
    write(tmp_path / "rec", blocks, 100)
    compare(overview(tmp_path / "rec", "probe", 40), blocks, 100)
    assert not (tmp_path / "rec" / levels.FOLDER).exists()
    assert len([*(tmp_path / "cache").rglob("about.json")]) == 1


def test_spans_times_and_units(tmp_path: Path) -> None:
    blocks = made(100)
    del blocks[50]
    write(tmp_path, blocks, 100)
    seen = overview(tmp_path, "probe", 20, start=4.0, stop=6.0)
    assert seen.sizes["column"] == 20
    assert seen.attrs["samples_per_column"] == 100
    assert seen["first"].values[[0, -1]].tolist() == [4000, 5900]
    assert seen["is_there"].values.tolist() == [k != 10 for k in range(20)]
    steps = np.diff(seen["time"].values[:10]).astype("i8")
    assert (abs(steps - 10**8) < 10**5).all()
    compare(seen, blocks, 100)
    assert overview(tmp_path, "probe", 20, start=99.0).sizes["column"] == 0


def test_quick_reads_little_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ataraxis.viewer.overview._READ_AT_MOST", 0)
    blocks = made(400)
    write(tmp_path, blocks, 100)
    exact = overview(tmp_path, "probe", 100)
    assert not exact.attrs["is_sampled"]
    seen = overview(tmp_path, "probe", 100, quick=True)
    assert seen.attrs["is_sampled"]
    there = seen["is_there"].values
    assert there.mean() > 0.9
    whole = oracle(blocks, 100, 0, seen.attrs["samples_per_column"], len(there))
    assert (seen.values[there][:, 0] >= whole[there][:, 0]).all()
    assert (seen.values[there][:, 1] <= whole[there][:, 1]).all()


def test_not_a_number_is_not_a_sample_and_text_is_refused(tmp_path: Path) -> None:
    values = np.arange(600.0).reshape(300, 2)
    values[10:50] = np.nan
    write(tmp_path, {0: values}, 300)
    seen = overview(tmp_path, "probe", 30)
    assert seen["is_there"].values.tolist() == [not 1 <= k < 5 for k in range(30)]
    assert seen.sel(bound="max").values[0].tolist() == [18, 19]
    with JournalWriter(tmp_path / "text", "notes") as journal:
        journal.describe(1, "notes")
        journal.append(Frame.from_value("a", time_ns=5).to_bytes(), source=1)
    with pytest.raises(ValueError, match="an overview shows numbers"):
        overview(tmp_path / "text", "notes")


def test_pictures_and_single_values_have_columns(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (90, 4, 3)).astype("u1")
    with JournalWriter(tmp_path, "camera") as journal:
        journal.describe(1, "camera", Labels("u1", (4, 3), ("y", "x")))
        journal.log_block(1, images, time_ns=10**7 * np.arange(1, 91))
    seen = overview(tmp_path, "camera", 9)
    flat = images.reshape(9, 10, 12)
    np.testing.assert_array_equal(seen.sel(bound="min").values, flat.min(1))
    np.testing.assert_array_equal(seen.sel(bound="max").values, flat.max(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": 0}, "columns must be 1 to 65,536, got 0"),
        ({"start": -1.0}, "start must be 0 s or more"),
        ({"stop": float("nan")}, "stop must be 0 s or more"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        overview(tmp_path, "probe", **options)
