"""The samples of blocks along one time axis: data, positions and times."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import examples

from ataraxis.frame import Frame
from ataraxis.labels import Labels, sample_times
from ataraxis.log import JournalWriter, blocks
from ataraxis.log.fits import FOLDER, load_fit
from ataraxis.session import fit_session

SECOND = 10**9


def labels(length: int, rate: float | None = 1000.0, **attrs: object) -> Labels:
    if rate is not None:
        attrs["sample_rate_hz"] = rate
    return Labels("i4", (length, 2), ("time", "channel"), attrs=attrs)


def written(
    path: Path,
    lengths: list[int],
    stamps: list[int],
    described: Labels,
    sequences: list[int] | None = None,
    device: list[tuple[int, int]] | None = None,
) -> np.ndarray:
    """Write blocks of counting samples; return the samples."""
    data = np.arange(2 * sum(lengths), dtype="i4").reshape(-1, 2)
    with JournalWriter(path, "rig") as journal:
        number = journal.labels_id(described)
        journal.describe(0, "daq", described)
        at = 0
        for k, length in enumerate(lengths):
            frame = Frame.from_value(
                data[at : at + length],
                sequence=k if sequences is None else sequences[k],
                time_ns=stamps[k],
                device_time=None if device is None else device[k][0],
                device_sequence=None if device is None else device[k][1],
            )
            journal.append(frame.to_bytes(), source=0, labels=number)
            at += length
    return data


def opened(path: Path, **options: object) -> xr.Dataset:
    return xr.open_dataset(path, engine="ataraxis", **options)


# ---- the law

STEP = 10**6


@st.composite
def recordings(draw: st.DrawFn):
    most = draw(st.sampled_from([1, 3, 8, 50]))
    count = draw(st.integers(1, 120))
    if draw(st.booleans()):
        lengths = [most] * (count - 1) + [draw(st.integers(1, most))]
    else:
        lengths = draw(
            st.lists(st.integers(0, most), min_size=count, max_size=count).filter(any)
        )
    lost = draw(
        st.lists(st.sampled_from([0] * 9 + [1, 4]), min_size=count, max_size=count)
    )
    jitter = draw(st.sampled_from([0, 10**5, 5 * 10**6]))
    seed = draw(st.integers(0, 2**16))
    return most, lengths, lost, jitter, seed


@settings(max_examples=examples(200), deadline=None)
@given(recordings(), st.sampled_from(["arrival", "sample"]))
def test_samples_are_those_sent_in_order_once(recording, kind) -> None:
    most, lengths, lost, jitter, seed = recording
    counts, gaps = np.array(lengths), np.cumsum([0, *lost[1:]])
    sequences = (np.arange(len(counts)) + gaps).tolist()
    position = np.cumsum(counts) - counts + gaps * most
    end = np.maximum(counts - 1, 0) if kind == "arrival" else 0
    rng = np.random.default_rng(seed)
    exact = SECOND + (position + end) * STEP
    stamps = exact + (
        rng.exponential(jitter, len(counts)).astype("i8") if jitter else 0
    )
    described = labels(most, 1000.0, stamp_of=kind)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        data = written(path, lengths, stamps.tolist(), described, sequences)
        places = np.concatenate(
            [p + np.arange(n) for p, n in zip(position, counts, strict=True)]
        )
        with opened(path) as found:
            assert found.daq.dims == ("time", "channel")
            np.testing.assert_array_equal(found.daq.values, data)
            np.testing.assert_array_equal(found.position.values, places)
            times = found.time.values.astype("i8")
            assert (np.diff(times) > 0).all()
            first = np.cumsum(counts) - counts
            np.testing.assert_array_equal(found.first_sample.values, first)
            np.testing.assert_array_equal(found.monotonic_ns.values, stamps)
            for k in rng.integers(0, len(data), 5).tolist():
                one = found.sel(time=found.time.values[k])
                np.testing.assert_array_equal(one.daq.values, data[k])
                low, high = sorted(rng.integers(0, len(data) + 1, 2).tolist())
                part = found.daq[low:high]
                np.testing.assert_array_equal(part.values, data[low:high])
                some = rng.integers(0, len(data), 7)
                np.testing.assert_array_equal(found.daq[some].values, data[some])
                within = slice(*found.time.values[[low - 1 if low else 0, k]])
                chosen = found.sel(time=within).daq.values
                np.testing.assert_array_equal(chosen, data[max(low - 1, 0) : k + 1])
        if not jitter:
            want = SECOND + (places - places[0]) * STEP
            np.testing.assert_array_equal(times - (times[0] - want[0]), want)
        with opened(path, time="host") as found:
            name = "time" if "time" in found.coords else "time_host"
            host = sample_times(stamps, counts, 1000.0, kind)
            away = found[name].values.astype("i8") - host
            assert (away == away[0]).all()


def test_fitted_times_forget_the_jitter_of_arrivals(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    starts = SECOND + np.arange(500) * 10_000_000
    stamps = starts + 199 * 50_000 + rng.exponential(2e5, 500).astype("i8")
    written(tmp_path, [200] * 500, stamps.tolist(), labels(200, 20_000.0))
    with opened(tmp_path) as found:
        times = found.time.values.astype("i8")
        want = SECOND + np.arange(100_000) * 50_000
        away = times - want
        away -= away[0]
        assert np.abs(away).max() < 50_000
        steps = np.unique(np.diff(times))
        assert steps.min() > 49_900
        assert steps.max() < 50_100


def test_a_shorter_and_an_empty_block_are_samples_too(tmp_path: Path) -> None:
    lengths = [4, 4, 0, 3, 4, 1]
    data = written(tmp_path, lengths, [k * 4 * STEP for k in range(6)], labels(4))
    with opened(tmp_path) as found:
        np.testing.assert_array_equal(found.daq.values, data)
        assert found.sizes == {"time": 16, "channel": 2, "entry": 6}
    with pytest.raises(ValueError, match="entry 2"):
        opened(tmp_path, by_entry=True).load()


def test_samples_of_many_blocks_are_read_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "PIECE_BYTES", 64)
    lengths = [4, 4, 0, 3, 4, 1] * 9 + [2]
    stamps = [(k + 1) * 4 * STEP for k in range(len(lengths))]
    data = written(tmp_path, lengths, stamps, labels(4))
    rng = np.random.default_rng(4)
    with (
        opened(tmp_path) as found,
        mock.patch.object(blocks, "read_rows", side_effect=blocks.read_rows) as reads,
    ):
        for count in (1, 5, 300):
            some = rng.integers(0, len(data), count)
            np.testing.assert_array_equal(found.daq[some].values, data[some])
        reads.reset_mock()
        odd = found.daq[1::2].values
    np.testing.assert_array_equal(odd, data[1::2])
    assert reads.call_count < len(lengths)


def test_parts_of_a_recording_have_the_times_of_the_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    stamps = np.arange(200) * 10 * STEP + rng.integers(0, 10**5, 200)
    data = written(tmp_path, [10] * 200, stamps.tolist(), labels(10))
    with opened(tmp_path) as whole, opened(tmp_path, entries=slice(50, 200)) as part:
        np.testing.assert_array_equal(part.daq.values, data[500:])
        np.testing.assert_array_equal(part.time.values, whole.time.values[500:])
        assert part.position.values[0] == 500
        wanted = whole.time.values[1203]
        np.testing.assert_array_equal(part.sel(time=wanted).daq.values, data[1203])


def test_a_device_says_what_it_lost(tmp_path: Path) -> None:
    """Between blocks 9 and 10 the device lost 25 samples, by its counter or clock."""
    starts = np.arange(20) * 10 + np.where(np.arange(20) > 9, 25, 0)
    stamps = ((starts + 9) * STEP + SECOND).tolist()
    device = [(int(s) * 1000, int(s)) for s in starts]
    for attrs in ({"device_counter": "samples"}, {"device_time_units": "us"}):
        path = tmp_path / next(iter(attrs))
        path.mkdir()
        written(path, [10] * 20, stamps, labels(10, **attrs), device=device)
        with opened(path) as found:
            position = found.position.values
            np.testing.assert_array_equal(position[::10], starts)
            times = found.time.values.astype("i8")
            assert (np.diff(times) == np.diff(position) * STEP).all()


def test_each_clock_is_there_on_request(tmp_path: Path) -> None:
    starts = np.arange(50) * 10
    stamps = ((starts + 9) * STEP + SECOND + 777).tolist()
    device = [(int(s) * 1000, 0) for s in starts]
    described = labels(10, device_time_units="us")
    written(tmp_path, [10] * 50, stamps, described, device=device)
    with opened(tmp_path, time="device") as found:
        want = np.arange(500) * np.timedelta64(1, "ms")
        np.testing.assert_array_equal(found.time.values, want)
        assert found.time.attrs["clock"] == "device"
    with opened(tmp_path, time="host") as found:
        assert found.time.attrs["clock"] == "host"
        np.testing.assert_array_equal(
            np.diff(found.time.values), np.timedelta64(1, "ms")
        )
    with pytest.raises(ValueError, match="did you mean 'host'"):
        opened(tmp_path, time="hosts")


def test_stamps_that_go_back_have_no_index(tmp_path: Path) -> None:
    stamps = [SECOND, SECOND + 30 * STEP, SECOND + 25 * STEP]
    data = written(tmp_path, [10] * 3, stamps, labels(10))
    with opened(tmp_path, time="host") as found:
        assert "time" not in found.indexes
        assert found.time_host.dims == ("time",)
        np.testing.assert_array_equal(found.daq.values, data)
    with opened(tmp_path) as found:
        assert found.indexes["time"].is_monotonic_increasing


def test_without_a_declared_rate_it_is_measured(tmp_path: Path) -> None:
    stamps = [SECOND + k * 10 * STEP for k in range(100)]
    written(tmp_path, [10] * 100, stamps, labels(10, None))
    with opened(tmp_path) as found:
        steps = np.diff(found.time.values).astype("i8")
        assert abs(steps - STEP).max() <= 1


def test_a_damaged_block_is_an_error_only_when_it_is_read(tmp_path: Path) -> None:
    data = written(tmp_path, [10] * 50, [k * 10 * STEP for k in range(50)], labels(10))
    file = next(tmp_path.glob("*.axj"))
    raw = bytearray(file.read_bytes())
    at = raw.find(data[200:210].tobytes())
    raw[at] ^= 1
    file.write_bytes(bytes(raw))
    with opened(tmp_path) as found:
        np.testing.assert_array_equal(found.daq[:200].values, data[:200])
        np.testing.assert_array_equal(found.daq[210:].values, data[210:])
        with pytest.raises(Exception, match="entry 20"):
            found.daq[195:205].load()
    with opened(tmp_path, verify=False) as found:
        assert (found.daq.values != data).sum() == 1


# ---- fits that are kept


def test_a_fit_that_is_kept_is_used_until_the_recording_grows(tmp_path: Path) -> None:
    starts = np.arange(100) * 10
    stamps = ((starts + 9) * STEP + SECOND).tolist()
    written(tmp_path, [10] * 100, stamps, labels(10))
    (clock,) = fit_session(tmp_path, latency_ms={"daq": (2.0, 4.0)})
    assert clock.kind == "absolute"
    kept = load_fit(tmp_path, "daq")
    assert kept is not None
    assert kept.entries == 100
    with opened(tmp_path) as fitted, opened(tmp_path, time="host") as host:
        late = (host.time.values - fitted.time.values).astype("i8")
        assert (late == 3 * STEP).all()
    file = tmp_path / FOLDER / "daq.npz"
    for bad in (b"", b"PK\x05\x06" + bytes(18), file.read_bytes()[:-40]):
        file.write_bytes(bad)
        with (
            pytest.warns(RuntimeWarning, match="left aside"),
            opened(tmp_path) as found,
        ):
            again = found.time.values
        np.testing.assert_array_equal(again, host.time.values)


def test_device_times_of_entries_are_fitted_on_request(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ticks = np.arange(2000) * 1000
    stamps = SECOND + ticks * 1000 + rng.exponential(10**6, 2000).astype("i8")
    described = Labels("f8", (), (), attrs={"device_time_units": "us"})
    with JournalWriter(tmp_path, "rig") as journal:
        journal.describe(0, "board", described)
        journal.log_block(
            0, np.arange(2000.0), time_ns=stamps, device_time=ticks,
            device_sequence=np.arange(2000),
        )  # fmt: skip
    with opened(tmp_path) as found:
        assert found.time.attrs.get("clock") is None
        host = found.time.values
    with opened(tmp_path, time="fitted") as found:
        steps = np.diff(found.time.values).astype("i8")
        assert abs(steps - 10**6).max() < 200
        at = found.time.values[700]
        assert found.sel(time=at).board.values == 700
        assert len(found.sel(time=slice(at, found.time.values[900])).time) == 201
    fit_session(tmp_path)
    with opened(tmp_path) as found:
        assert found.time.attrs["clock"] == "fitted"
        assert (found.time.values < host).mean() > 0.9
    with opened(tmp_path, time="device") as found:
        assert found.time.values[5] == np.timedelta64(5, "ms")


# ---- as xarray does in memory

SIZES = [3, 4096, 4097, 70_000]


@pytest.fixture(scope="module", params=SIZES)
def pair(request, tmp_path_factory):
    """A recording as it opens, and the same in memory."""
    path = tmp_path_factory.mktemp("samples")
    n, each = request.param, 3 if request.param == 3 else 41
    lengths = [each] * (n // each) + ([n % each] if n % each else [])
    ends = np.cumsum(lengths)
    written(path, lengths, ((ends - 1) * STEP + SECOND).tolist(), labels(each))
    lazy = opened(path)
    lazy = lazy.drop_dims("entry")
    with opened(path) as other:
        plain = other.drop_dims("entry").load()
        plain = plain.assign_coords(time=plain.time.values)
    assert type(plain.xindexes["time"]) is not type(lazy.xindexes["time"])
    yield lazy, plain
    lazy.close()


def foreign(plain: xr.Dataset) -> xr.DataArray:
    """An array of other times: some equal, some between, some outside."""
    times = plain.time.values
    half = np.timedelta64(500, "us")
    own = np.concatenate([times[1::2], times[:1] + half, times[-1:] + 10 * half])
    own.sort()
    return xr.DataArray(np.arange(float(len(own))), {"time": own}, name="other")


OPERATIONS = {
    "minus a part": lambda d, o: d.daq - d.daq[:10],
    "a part minus it": lambda d, o: d.daq[:10] - d.daq,
    "where of a part": lambda d, o: d.daq.where(d.daq[: len(d.time) // 2] > 3),
    "assign a part": lambda d, o: d.assign(q=d.daq.isel(time=slice(1, 50))),
    "plus a foreign": lambda d, o: d.daq + o,
    "a foreign plus it": lambda d, o: o + d.daq,
    "reindex nearest": lambda d, o: d.daq.reindex(time=o.time, method="nearest"),
    "reindex": lambda d, o: d.daq.reindex(time=o.time.values),
    "reindex_like": lambda d, o: d.daq.reindex_like(o),
    "reindex_like of a foreign": lambda d, o: o.reindex_like(d.daq),
    "outer merge": lambda d, o: xr.merge([d.daq, o], join="outer", compat="equals"),
    "inner align": lambda d, o: xr.align(d.daq, o, join="inner")[0],
    "outer align": lambda d, o: xr.align(o, d.daq, join="outer")[1],
    "left align": lambda d, o: xr.align(d.daq, o, join="left")[1],
    "exact align": lambda d, o: xr.align(d.daq, d.daq, join="exact")[0],
    "concat": lambda d, o: xr.concat([d.daq, d.daq], "time"),
    "concat of a foreign": lambda d, o: xr.concat(
        [o, d.daq.isel(channel=0).drop_vars("position")],
        "time",
        coords="minimal",
        compat="override",
    ),
    "resample": lambda d, o: d.daq.resample(time=f"{2 + len(d.time) // 500}ms").mean(),
    "interp": lambda d, o: d.daq.interp(time=o.time.values[1:-1]),
    "sel of some": lambda d, o: d.daq.sel(time=d.time.values[[0, -1]]),
    "sel nearest": lambda d, o: d.daq.sel(time=o.time.values, method="nearest"),
    "sel slice": lambda d, o: d.daq.sel(time=slice(d.time.values[1], None)),
    "sortby": lambda d, o: d.daq.sortby("time", ascending=False),
    "groupby": lambda d, o: d.daq.groupby("time.second").mean(),
    "diff": lambda d, o: d.daq.diff("time"),
    "roll": lambda d, o: d.daq.roll(time=1, roll_coords=True),
    "shift": lambda d, o: d.daq.shift(time=1),
    "rename": lambda d, o: d.daq.rename(time="t"),
    "to_pandas": lambda d, o: d.daq.to_pandas(),
    "to_dataframe": lambda d, o: d.daq.to_dataframe(),
    "drop_isel": lambda d, o: d.daq.drop_isel(time=[0]),
    "stack": lambda d, o: d.daq.stack(z=("time", "channel")),
    "copy": lambda d, o: d.daq.copy(deep=True),
    "combine_first": lambda d, o: d.daq.astype(float).combine_first(o),
    "cumulative": lambda d, o: d.daq.cumsum("time"),
}


LARGE = (
    "minus a part", "a part minus it", "plus a foreign", "reindex nearest",
    "outer merge", "inner align", "outer align", "concat", "sel nearest", "sel slice",
    "combine_first",
)  # fmt: skip


@pytest.fixture(scope="module")
def ten_million(tmp_path_factory):
    """A recording of 10 million samples, or a part of them, and the same in memory."""
    path = tmp_path_factory.mktemp("large")
    count = int(10_000 * float(os.environ.get("ATARAXIS_STRESS", "0.1")))
    lengths = [1000] * count + [7]
    stamps = (np.cumsum(lengths) - 1) * STEP + SECOND
    written(path, lengths, stamps.tolist(), labels(1000))
    with opened(path) as found:
        plain = found.drop_dims("entry").load()
        plain = plain.assign_coords(time=plain.time.values)
    yield path, plain
    shutil.rmtree(path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("operation", [*LARGE, "resample to 100"])
def test_operations_of_ten_million_samples(ten_million, operation) -> None:
    path, plain = ten_million
    other = foreign(plain)

    def hundred(d: xr.Dataset, o: xr.DataArray) -> xr.DataArray:
        return d.daq.resample(time=f"{len(d.time) // 100}ms").mean()

    work = OPERATIONS.get(operation, hundred)
    with opened(path) as found:
        got = work(found.drop_dims("entry"), other).load()
    xr.testing.assert_equal(got.drop_attrs(), work(plain, other).drop_attrs())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 8 << 20


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_operations_are_those_of_the_same_data_in_memory(pair, operation) -> None:
    if operation == "interp":
        pytest.importorskip("scipy", reason="needs scipy")
    lazy, plain = pair
    other = foreign(plain)
    work = OPERATIONS[operation]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got, want = work(lazy, other), work(plain, other)
    if hasattr(want, "columns"):
        np.testing.assert_array_equal(got.values, want.values)
        assert got.index.equals(want.index)
        return
    xr.testing.assert_equal(got.drop_attrs(), want.drop_attrs())
    assert (
        got.to_dataset(name="x").indexes.keys()
        == (want.to_dataset(name="x").indexes.keys())
        if isinstance(got, xr.DataArray)
        else True
    )


def test_what_is_loaded_lives_without_its_files(tmp_path: Path) -> None:
    stamps = [(k + 1) * 50 * STEP for k in range(200)]
    data = written(tmp_path, [50] * 200, stamps, labels(50))
    with opened(tmp_path) as found:
        kept = found.load()
    times = kept.time.values
    assert kept.sel(time=times[5000]).daq.values.tolist() == data[5000].tolist()
    part = kept.sel(time=slice(times[10], times[9000]))
    np.testing.assert_array_equal(part.daq.values, data[10:9001])
    xr.testing.assert_equal(kept.daq - kept.daq, kept.daq * 0)
