"""Columns: minimum and maximum of each are exact, whatever came and was lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ataraxis import Producer
from ataraxis.labels import Labels
from ataraxis.viewer.columns import ColumnSeries, drawn_dtype, factor_of
from ataraxis.viewer.filters import HighPass, Spectrum, make_filter
from ataraxis.viewer.tap import Intervals, Tap, shown_as

DTYPES = ["i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8"]


def by_hand(
    pieces: list[tuple[int, np.ndarray]], factor: int, end: int
) -> dict[int, tuple[list[float], list[float]]]:
    """Minimum and maximum of each column before `end` that has a sample."""
    rows: dict[int, list[np.ndarray]] = {}
    for position, samples in pieces:
        for k, row in enumerate(samples):
            rows.setdefault((position + k) // factor, []).append(row)
    return {
        column: (np.min(found, 0).tolist(), np.max(found, 0).tolist())
        for column, found in rows.items()
        if column < end
    }


def found_in(series: ColumnSeries) -> dict[int, tuple[list[float], list[float]]]:
    first, low, high = series.read(0, series.end)
    return {
        first + k: (a.tolist(), b.tolist())
        for k, (a, b) in enumerate(zip(low, high, strict=True))
        if (a <= b).all()
    }


@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(1, 60)), min_size=1, max_size=12
    ),
    st.integers(1, 25),
    st.integers(1, 3),
    st.sampled_from(DTYPES),
    st.integers(0, 10**6),
)
def test_every_column_is_exact(
    gaps_and_counts: list[tuple[int, int]], factor: int, channels: int, dtype: str,
    start: int,
) -> None:  # fmt: skip
    rng = np.random.default_rng(len(gaps_and_counts))
    series = ColumnSeries(factor, channels, np.dtype(dtype), 100_000)
    position, pieces = start, []
    for gap, count in gaps_and_counts:
        position += gap
        samples = rng.integers(0, 100, (count, channels)).astype(dtype)
        series.add(position, samples)
        pieces.append((position, samples))
        position += count
    assert series.end == position // factor
    assert found_in(series) == by_hand(pieces, factor, series.end)
    # What was lost is empty, and every column is there.
    assert series.first == pieces[0][0] // factor
    assert len(series.read(0, series.end)[1]) == series.end - series.first


@given(st.lists(st.integers(0, 30), min_size=1, max_size=40), st.integers(1, 7))
def test_columns_by_time_are_exact(steps: list[int], batch: int) -> None:
    columns = np.cumsum(steps)
    samples = np.arange(len(steps), dtype="f8")[:, None]
    series = ColumnSeries(1, 1, np.dtype("f8"), 10_000)
    for k in range(0, len(steps), batch):
        series.add_at(columns[k : k + batch], samples[k : k + batch])
    series.advance(int(columns[-1]) + 1)
    expected = {
        int(c): ([float(s.min())], [float(s.max())])
        for c in np.unique(columns)
        for s in [samples[columns == c]]
    }
    assert found_in(series) == expected


def test_the_oldest_columns_go_first() -> None:
    series = ColumnSeries(2, 1, np.dtype("i4"), 10)
    for k in range(0, 100, 5):
        series.add(k, np.arange(k, k + 5, dtype="i4")[:, None])
    first, low, high = series.read(0, 50)
    assert (first, series.first, series.end) == (40, 40, 50)
    assert low.ravel().tolist() == list(range(80, 100, 2))
    assert high.ravel().tolist() == list(range(81, 100, 2))


def test_a_gap_longer_than_what_is_kept_leaves_empty_columns() -> None:
    series = ColumnSeries(1, 1, np.dtype("i2"), 8)
    series.add(0, np.ones((4, 1), "i2"))
    series.add(10**9, np.full((3, 1), 7, "i2"))
    first, low, high = series.read(0, series.end)
    assert first == 10**9 + 3 - 8
    assert (low > high).ravel().tolist() == [True] * 5 + [False] * 3


def test_positions_that_go_back_are_left_out() -> None:
    series = ColumnSeries(1, 1, np.dtype("i2"), 8)
    series.add(5, np.array([[1], [2]], "i2"))
    series.add(4, np.array([[9], [9], [9], [3]], "i2"))
    assert series.read(0, series.end)[1].ravel().tolist() == [1, 2, 3]


def test_nan_is_no_sample() -> None:
    series = ColumnSeries(2, 1, np.dtype("f4"), 8)
    series.add(0, np.array([[np.nan], [3], [np.nan], [np.nan]], "f4"))
    _, low, high = series.read(0, series.end)
    assert (low[0, 0], high[0, 0]) == (3, 3)
    assert not low[1, 0] <= high[1, 0]


@given(st.floats(1e-3, 1e12), st.integers(1, 8192))
def test_a_window_fits_its_columns(samples: float, columns: int) -> None:
    factor = factor_of(samples, columns)
    assert factor * columns >= samples * 0.999
    assert factor == 1 or factor <= 1.2 * samples / columns + 1


@pytest.mark.parametrize("dtype", ["?", ">i2", "<f2", "i8", "u8", "f8"])
def test_numbers_can_be_drawn(dtype: str) -> None:
    found = drawn_dtype(np.dtype(dtype))
    assert found is not None
    assert found.isnative


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (Labels("i2", (300, 64), ("time", "channel")), "traces"),
        (Labels("f8", ()), "traces"),
        (Labels("f8", (7,), ("axis",)), "traces"),
        (Labels("u1", (480, 640)), "picture"),
        (Labels("u2", (4, 480, 640), ("time", "y", "x")), "picture"),
        (Labels("u1", (480, 640, 3)), "picture"),
        (Labels("u1", (480, 640, 7)), ""),
        (Labels("c8", (4,)), ""),
        (Labels([("a", "f8")], ()), ""),
        (Labels("f8", (5000,)), ""),
    ],
    ids=str,
)
def test_how_a_stream_is_shown(labels: Labels, kind: str) -> None:
    assert shown_as(labels, True) == kind
    assert shown_as(labels, False) == ""


# ---- a tap

BLOCKS = {"sample_rate_hz": 1000}


def test_a_tap_cuts_what_was_sent_and_leaves_lost_frames_empty() -> None:
    with Producer(
        "probe", shape=(10, 2), dtype="i2", dims=("time", "channel"), attrs=BLOCKS,
        buffer_count=8,
    ) as probe:  # fmt: skip
        tap = Tap("probe", None, 60)
        key = tap.series_of(1.0, 200)
        assert key == ("", 5)
        sent = np.arange(2 * 10 * 40, dtype="i2").reshape(40, 10, 2)
        for k in range(6):
            probe.send(sent[k])
        assert tap.drain()
        for k in range(6, 36):  # four times as many as the ring holds
            probe.send(sent[k])
        assert tap.drain()
        series, missed = tap.series[key], tap.missed
        assert missed >= 30 - 8
        first, low, high = series.read(0, series.end)
        whole = sent[:36].reshape(72, 5, 2)
        is_there = (low <= high).all(axis=1)
        assert (first, len(low)) == (0, 72)
        assert (~is_there).sum() == 2 * missed
        assert np.array_equal(low[is_there], whole.min(axis=1)[is_there])
        assert np.array_equal(high[is_there], whole.max(axis=1)[is_there])
        probe.end()
        assert not tap.drain()
        tap.close()
        probe.unlink()


def test_a_tap_reads_single_samples_many_at_a_time() -> None:
    with Producer(
        "lick", shape=(), dtype="f4", attrs={"sample_rate_hz": 100}, buffer_count=64
    ) as lick:
        tap = Tap("lick", None, 60)
        key = tap.series_of(2.0, 1000)
        for k in range(50):
            lick.send(np.float32(k), time_ns=10**9 + k * 10**7)
        tap.drain()
        _, low, _ = tap.series[key].read(0, 50)
        assert low.ravel().tolist() == list(range(50))
        assert abs(tap.time_of(key, 10) - (10**9 + 10**8)) < 10**6
        assert tap.intervals.counts().sum() == 49
        tap.close()
        lick.unlink()


def test_a_tap_of_a_stream_without_a_rate_places_samples_by_time() -> None:
    from ataraxis.clock import now_ns

    with Producer("poke", shape=(1,), dtype="u1", buffer_count=64) as poke:
        tap = Tap("poke", None, 60)
        key = tap.series_of(2.0, 100)
        assert key[1] < 0
        began = now_ns() - 3 * 10**9
        for k in range(5):
            poke.send(np.array([k], "u1"), time_ns=began + k * 10**8)
        tap.drain()
        series = tap.series[key]
        first, low, high = series.read(0, series.end)
        shown = low[(low <= high).all(axis=1)].ravel().tolist()
        assert shown == [0, 1, 2, 3, 4]
        assert first == began // -key[1]
        tap.close()
        poke.unlink()


def test_a_filtered_series_is_exact_too_and_begins_again_after_a_gap() -> None:
    rng = np.random.default_rng(1)
    rows = rng.integers(-900, 900, (1000, 3)).astype("i2")
    high, whole = HighPass(3000.0), HighPass(3000.0)
    pieces = [high(k, rows[k : k + 70]) for k in range(0, 1000, 70)]
    expected = whole(0, rows)
    assert np.allclose(np.concatenate(pieces), expected, atol=1e-3)
    assert abs(expected[10:].mean()) < 5
    slow = np.linspace(0, 3000, 1000)[:, None].repeat(3, 1)
    assert np.abs(HighPass(3000.0)(0, slow)).max() < 20
    assert np.array_equal(high(5000, rows[:50]), HighPass(3000.0)(0, rows[:50]))
    assert make_filter("highpass", None) is None
    with Producer(
        "probe", shape=(100, 3), dtype="i2", dims=("time", "channel"),
        attrs={"sample_rate_hz": 3000}, buffer_count=16,
    ) as probe:  # fmt: skip
        tap = Tap("probe", None, 60)
        plain = tap.series_of(1.0, 300)
        median = tap.series_of(1.0, 300, "median")
        assert (plain, median) == (("", 10), ("median", 10))
        for k in range(10):
            probe.send(rows[100 * k : 100 * k + 100])
        tap.drain()
        middle = rows - np.median(rows, axis=1, keepdims=True)
        for key, values in ((plain, rows), (median, middle)):
            _, low, high_ = tap.series[key].read(0, 100)
            assert np.array_equal(low, values.reshape(100, 10, 3).min(1))
            assert np.array_equal(high_, values.reshape(100, 10, 3).max(1))
        tap.drop_unused([plain])
        tap._used_s[median] -= 61
        tap.drop_unused([plain])
        assert list(tap.series) == [plain]
        assert not tap._filters
        tap.close()
        probe.unlink()


@pytest.mark.parametrize("piece", [1, 7, 64, 1000])
def test_a_spectrum_is_the_same_in_any_pieces(piece: int) -> None:
    rate = 2000.0
    tone = np.sin(2 * np.pi * 500 * np.arange(1000) / rate)[:, None] * 100
    whole, cut = Spectrum(0, rate), Spectrum(0, rate)
    columns, power = whole(96, tone)
    parts = [cut(96 + k, tone[k : k + piece]) for k in range(0, 1000, piece)]
    assert np.concatenate([c for c, _ in parts]).tolist() == columns.tolist()
    found = np.concatenate([p for _, p in parts])
    assert np.allclose(found, power, atol=1e-3)
    assert (power.argmax(axis=1) == whole.hop // 2).all(), "500 of 1,000 Hz"
    # Begins again after a gap, at whole pieces.
    assert cut(10_000, tone[: 2 * cut.hop - 1])[0].size == 0


def test_a_tap_has_the_spectrum_of_a_channel() -> None:
    with Producer(
        "probe", shape=(100, 3), dtype="i2", dims=("time", "channel"),
        attrs={"sample_rate_hz": 2000}, buffer_count=16,
    ) as probe:  # fmt: skip
        tap = Tap("probe", None, 60)
        key = tap.spectrum_of(2)
        assert key == ("spectrum of 2", 16)
        assert tap.spectrum_of(3) is None
        t = np.arange(1000) / 2000
        wave = (300 * np.sin(2 * np.pi * 250 * t)).astype("i2")
        for k in range(10):
            block = np.zeros((100, 3), "i2")
            block[:, 2] = wave[100 * k : 100 * k + 100]
            probe.send(block)
        tap.drain()
        series = tap.series[key]
        _, low, high = series.read(0, series.end)
        assert len(low) > 50
        assert np.array_equal(low, high)
        assert (low.argmax(axis=1) == 4).all(), "250 of 1,000 Hz"
        tap.close()
        probe.unlink()


def test_intervals_forget() -> None:
    intervals = Intervals()
    intervals.add(0, np.array([0]))
    intervals.add(1, np.array([10**6]))
    intervals.add(5, np.array([10**9]))  # 2 to 4 were lost: not an interval
    counts = intervals.counts()
    assert counts.sum() == 1
    assert counts[30] == 1
    intervals._second -= 11
    assert intervals.counts().sum() == 0
