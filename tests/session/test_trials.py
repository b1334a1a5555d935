"""`around`: trials against a plain NumPy oracle; events as columns; psth and raster."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import examples

from ataraxis import Session, around
from ataraxis.frame import Frame
from ataraxis.labels import Labels
from ataraxis.log import JournalWriter
from ataraxis.session import events_of, psth, raster

SECOND, STEP = 10**9, 10**6


def write_events(path: Path, times: list[int]) -> None:
    event = np.dtype([("event", "U64"), ("data", "U448")])
    rows = np.array([("go", f'{{"k": {k}}}') for k in range(len(times))], event)
    with JournalWriter(path, "events") as journal:
        journal.describe(2, "events", Labels(event, ()))
        for row, time in zip(rows, times, strict=True):
            journal.log(2, row, time_ns=time)


def write_blocks(
    path: Path, counts: np.ndarray, lost: np.ndarray, dtype: str, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Write blocks at 1 kHz, some lost; return the samples and their times."""
    data = np.arange(1, int(counts.sum()) + 1).astype(dtype)
    gaps = np.cumsum(lost)
    position = np.cumsum(counts) - counts + gaps * most
    labels = Labels(dtype, (most,), ("time",), attrs={"sample_rate_hz": 1000})
    with JournalWriter(path, "daq") as journal:
        journal.describe(1, "daq", labels)
        number = journal.labels_id(labels)
        at = 0
        for k, count in enumerate(counts.tolist()):
            frame = Frame.from_value(
                data[at : at + count],
                sequence=int(k + gaps[k]),
                time_ns=int(SECOND + (position[k] + count - 1) * STEP),
            )
            journal.append(frame.to_bytes(), source=1, labels=number)
            at += count
    places = np.concatenate(
        [p + np.arange(n) for p, n in zip(position, counts, strict=True)]
    )
    return data, SECOND + places * STEP


@settings(max_examples=examples(200), deadline=None)
@given(
    st.integers(1, 20).flatmap(
        lambda most: st.tuples(
            st.just(most),
            st.lists(st.integers(1, most), min_size=1, max_size=60),
        )
    ),
    st.sampled_from([0, 0, 0.05, 0.3]),
    st.lists(st.integers(-300, 1500), min_size=1, max_size=8),
    st.integers(0, 120),
    st.integers(1, 120),
    st.sampled_from(["i2", "u4", "f4"]),
    st.integers(0, 2**16),
)
def test_a_trial_has_each_sample_of_its_part_once(
    blocks, share, events, before, after, dtype, seed
) -> None:
    most, lengths = blocks
    counts, rng = np.array(lengths), np.random.default_rng(seed)
    lost = (rng.random(len(counts)) < share) * rng.integers(1, 4, len(counts))
    times = [SECOND + ms * STEP + int(rng.integers(-499_000, 499_000)) for ms in events]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        data, stamps = write_blocks(path, counts, lost * (np.arange(len(lost)) > 0),
                                    dtype, most)  # fmt: skip
        write_events(path, times)
        with xr.open_datatree(path, engine="ataraxis") as tree:
            cut = around(tree, "go", before / 1000, after / 1000)["daq"].to_dataset()
            loaded = tree.load()
            again = around(loaded, "go", before / 1000, after / 1000)["daq"]
    xr.testing.assert_identical(cut, again.to_dataset())
    assert cut.sizes == {"trial": len(events), "time": before + after}
    for k, time in enumerate(times):
        place = np.rint((stamps - (time - before * STEP)) / STEP).astype(int)
        is_in = (place >= 0) & (place < before + after)
        there = np.zeros(before + after, bool)
        there[place[is_in]] = True
        want = np.zeros(before + after, dtype)
        want[place[is_in]] = data[is_in]
        np.testing.assert_array_equal(cut.is_there.values[k], there)
        np.testing.assert_array_equal(cut.daq.values[k][there], want[there])
        missing = cut.daq.values[k][~there]
        if dtype == "f4":
            assert np.isnan(missing).all()
        else:
            edge = np.iinfo(dtype).min if dtype == "i2" else np.iinfo(dtype).max
            assert (missing == edge).all()
            if len(missing):
                assert cut.daq.attrs["missing_value"] == edge
    np.testing.assert_allclose(
        cut.time.values, (np.arange(before + after) - before) / 1000, atol=1e-12
    )


def test_a_jump_of_the_clock_within_a_trial_leaves_a_hole(tmp_path: Path) -> None:
    """The host slept for 60 s in the middle; no sample has its time from before."""
    labels = Labels("f8", (10,), ("time",), attrs={"sample_rate_hz": 1000})
    data = np.arange(4000.0)
    with JournalWriter(tmp_path, "daq") as journal:
        journal.describe(1, "daq", labels)
        number = journal.labels_id(labels)
        for k in range(400):
            away = 60 * SECOND if k >= 200 else 0
            stamp = SECOND + (10 * k + 9) * STEP + away
            frame = Frame.from_value(
                data[10 * k : 10 * k + 10], sequence=k, time_ns=stamp
            )
            journal.append(frame.to_bytes(), source=1, labels=number)
    write_events(tmp_path, [SECOND + 2000 * STEP])
    with xr.open_datatree(tmp_path, engine="ataraxis") as tree:
        cut = around(tree, "go", 0.5, 0.5)["daq"].to_dataset()
    there = cut.is_there.values[0]
    np.testing.assert_array_equal(cut.daq.values[0][:500], data[1500:2000])
    assert there[:500].all()
    assert not there[500:].any()


def test_times_of_another_clock_are_refused(tmp_path: Path) -> None:
    counts = np.full(20, 10)
    write_blocks(tmp_path, counts, counts * 0, "f8", 10)
    write_events(tmp_path, [SECOND])
    with xr.open_datatree(tmp_path, engine="ataraxis") as tree:
        away = np.arange(200) * np.timedelta64(1, "ms")
        moved = tree["daq"].to_dataset().assign_coords(time=away)
        other = xr.DataTree.from_dict({"daq": moved, "events": tree["events"].dataset})
        with pytest.raises(ValueError, match="two clocks"):
            around(other, "go", 0.1, 0.1)


def test_events_are_columns(tmp_path: Path) -> None:
    with Session("s", directory=tmp_path) as s:
        s.event("go", trial=1, side="left", good=True)
        s.event("go", trial=2, side="right", good=False)
        s.event("reward", ml=0.5, more=[1, 2])
    with xr.open_datatree(tmp_path / "s", engine="ataraxis") as tree:
        found = events_of(tree)
    assert found.event.values.tolist() == ["go", "go", "reward"]
    np.testing.assert_array_equal(found.trial.values, [1, 2, np.nan])
    assert found.side.values.tolist() == ["left", "right", ""]
    np.testing.assert_array_equal(found.ml.values, [np.nan, np.nan, 0.5])
    assert "more" not in found
    assert found.time.dims == ("time",)
    with pytest.raises(KeyError, match="no events"):
        events_of(xr.DataTree())


def test_psth_counts_what_raster_shows() -> None:
    rng = np.random.default_rng(0)
    spikes, events = rng.random(5000) * 100, np.arange(5.0, 95.0)
    edges = np.linspace(-0.5, 1.0, 31)
    shown = raster(spikes, events, (-0.5, 1.0))
    want = np.histogram(np.concatenate(shown), edges)[0] / (90 * 0.05)
    np.testing.assert_allclose(psth(spikes, events, edges), want)
    zero = np.datetime64("2026-11-30", "ns")
    stamps = [zero + (t * 1e9).astype("m8[ns]") for t in (spikes, events)]
    for one, two in zip(shown, raster(*stamps, (-0.5, 1.0)), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-8)
