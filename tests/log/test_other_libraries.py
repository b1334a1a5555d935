"""A recording as it opens, in the hands of other libraries of data."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import ataraxis.datamux as dm
from ataraxis.frame import Frame
from ataraxis.labels import Labels
from ataraxis.log import JournalWriter, export_log

RATE_HZ = 1000.0
NAMES = ["Fz", "Cz", "Pz", "Oz"]
SECOND, STEP = 10**9, 10**6


def needed(name: str) -> object:
    return pytest.importorskip(name, reason=f"needs {name}")


@pytest.fixture(scope="module")
def data() -> np.ndarray:
    t = np.arange(5030) / RATE_HZ
    slow = np.sin(2 * np.pi * 10 * t)[:, None] * [1, 2, 3, 4]
    return (slow + np.random.default_rng(0).normal(size=slow.shape) / 9).astype("f4")


@pytest.fixture(scope="module")
def recording(data: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blocks of 100 samples, the last of 30; images; a counter in ms; a subject."""
    path = tmp_path_factory.mktemp("recording")
    kinds = {
        "daq": Labels(
            "f4", (100, 4), ("time", "channel"), coords={"channel": NAMES},
            attrs={"units": "mV", "sample_rate_hz": RATE_HZ},
        ),
        "camera": Labels("u1", (2, 3), ("y", "x")),
        "delay": Labels("f8", (1,), ("side",), attrs={"units": "ms"}),
    }  # fmt: skip
    with JournalWriter(path, "rig") as journal:
        numbers = {name: journal.labels_id(kind) for name, kind in kinds.items()}
        for source, (name, kind) in enumerate(kinds.items()):
            journal.describe(source, name, kind)
        for k, at in enumerate(range(0, len(data), 100)):
            block = data[at : at + 100]
            values = block, np.full((2, 3), k, "u1"), np.full(1, float(k))
            for source, value in enumerate(values):
                frame = Frame.from_value(
                    value, sequence=k, time_ns=SECOND + (at + len(block) - 1) * STEP,
                    device_time=k, device_sequence=k,
                )  # fmt: skip
                number = list(numbers.values())[source]
                journal.append(frame.to_bytes(), source=source, labels=number)
    (path / "session.yaml").write_text("name: a\nsubject: m42\n")
    return path


@pytest.fixture
def ds(recording: Path) -> Iterator[xr.Dataset]:
    with xr.open_dataset(recording, engine="ataraxis", source="daq") as found:
        yield found


# ---- tables


def test_pandas_takes_it_as_a_table_by_time(ds: xr.Dataset, data: np.ndarray) -> None:
    table = ds.daq.to_pandas()
    assert list(table.columns) == NAMES
    np.testing.assert_array_equal(table.to_numpy(), data)
    assert isinstance(table.index, pd.DatetimeIndex)
    mean = table.resample("100ms", origin="start").mean()
    want = data[:5000].astype("f8").reshape(50, 100, 4).mean(1)
    np.testing.assert_allclose(mean.to_numpy()[:50], want, rtol=1e-3, atol=1e-5)
    assert len(table.loc[table.index[10] : table.index[19]]) == 10
    same = ds.daq.resample(time="100ms", origin="start").mean()
    np.testing.assert_allclose(same.values, mean.to_numpy(), rtol=1e-3, atol=1e-5)


def test_pandas_takes_each_sample_of_a_dataset(
    ds: xr.Dataset, data: np.ndarray
) -> None:
    long = ds.drop_dims("entry").to_dataframe()
    assert list(long.index.names) == ["time", "channel"]
    np.testing.assert_array_equal(long["daq"].to_numpy(), data.reshape(-1))
    assert long["position"].to_numpy()[::4].tolist() == list(range(5030))
    entries = ds.drop_dims(["time", "channel"]).to_dataframe()
    assert len(entries) == 51
    one = ds.daq.sel(channel="Pz").to_series()
    np.testing.assert_array_equal(one.to_numpy(), data[:, 2])
    nearest = pd.merge_asof(
        one.iloc[::7].rename("a").reset_index(),
        one.rename("b").reset_index(),
        on="time",
    )
    np.testing.assert_array_equal(nearest["a"], nearest["b"])


# ---- arrays


def test_scipy_filters_it(ds: xr.Dataset, data: np.ndarray) -> None:
    signal = pytest.importorskip("scipy.signal", reason="needs scipy")
    for how in (
        lambda x: signal.decimate(x, 10, axis=0),
        lambda x: signal.resample_poly(x, 1, 5, axis=0),
        lambda x: signal.sosfiltfilt(signal.butter(3, 0.1, output="sos"), x, axis=0),
        lambda x: signal.detrend(x, axis=0),
        lambda x: np.abs(signal.hilbert(x, axis=0)),
    ):
        np.testing.assert_array_equal(how(ds.daq), how(data))
    # Of no array of xarray itself: numpy's moveaxis gives a list to its transpose.
    frequency, power = signal.welch(ds.daq.values, RATE_HZ, axis=0, nperseg=1000)
    assert frequency[power.argmax(0)].tolist() == [10.0] * 4
    peaks, _ = signal.find_peaks(ds.daq.sel(channel="Oz"), height=2, distance=60)
    np.testing.assert_allclose(np.diff(peaks), 100, atol=10)


def test_sklearn_takes_samples_as_rows(ds: xr.Dataset, data: np.ndarray) -> None:
    decomposition = pytest.importorskip("sklearn.decomposition", reason="needs sklearn")
    pca = decomposition.PCA(2).fit(ds.daq)
    assert pca.explained_variance_ratio_[0] > 0.98
    want = decomposition.PCA(2).fit(data)
    np.testing.assert_array_equal(pca.transform(ds.daq), want.transform(data))
    across = decomposition.PCA(1).fit_transform(ds.daq.T)
    assert np.abs(np.diff(across[:, 0])).min() > 1
    part = ds.daq.isel(time=slice(100, 4000, 3))
    assert decomposition.PCA(2).fit_transform(part).shape == (1300, 2)


def test_mne_takes_it_as_raw(ds: xr.Dataset, data: np.ndarray) -> None:
    mne = needed("mne")
    info = mne.create_info(
        ds.channel.values.tolist(), ds.daq.attrs["sample_rate_hz"], "eeg", verbose=False
    )
    raw = mne.io.RawArray(ds.daq.T, info, verbose=False)
    assert raw.ch_names == NAMES
    assert raw.info["sfreq"] == RATE_HZ
    np.testing.assert_array_equal(raw.get_data(), data.T.astype("f8"))
    start = pd.Timestamp(ds.time.values[0], tz="UTC").floor("us").to_pydatetime()
    raw.set_meas_date(start)
    assert raw.info["meas_date"] == start
    done = raw.copy().filter(5, 20, verbose=False).resample(250, verbose=False)
    assert done.get_data().shape == (4, 1258)


# ---- conventions


def test_cf_xarray_finds_the_time_of_samples(recording: Path, ds: xr.Dataset) -> None:
    needed("cf_xarray")
    assert ds.cf.axes == {"T": ["time"]}
    assert ds.cf.coordinates == {"time": ["time"]}
    assert ds.cf.standard_names == {"time": ["time"]}
    xr.testing.assert_identical(ds.cf["time"].variable, ds.time.variable)
    assert ds.cf["T"].name == "time"
    assert ds.cf.isel(T=slice(5)).sizes["time"] == 5
    within = slice(ds.time.values[3], ds.time.values[9])
    assert ds.cf.sel(T=within).sizes["time"] == 7
    assert ds.daq.cf.mean("T").dims == ("channel",)
    assert "T: ['time']" in repr(ds.cf)
    for options in (
        {"source": "camera"}, {"source": "daq", "time": "host"},
    ):  # fmt: skip
        with xr.open_dataset(recording, engine="ataraxis", **options) as other:
            assert other.cf.axes == {"T": ["time"]}
            assert other.cf["time"].dims == ("time",)


def test_cf_xarray_finds_the_time_of_a_device(tmp_path: Path) -> None:
    needed("cf_xarray")
    described = Labels(
        "f4", (10, 1), ("time", "channel"),
        attrs={"sample_rate_hz": RATE_HZ, "device_time_units": "us"},
    )  # fmt: skip
    with JournalWriter(tmp_path, "rig") as journal:
        journal.describe(0, "daq", described)
        for k in range(9):
            frame = Frame.from_value(
                np.zeros((10, 1), "f4"), sequence=k, time_ns=SECOND + 10 * k * STEP,
                device_time=k * 10_000, device_sequence=k,
            )  # fmt: skip
            labels = journal.labels_id(described)
            journal.append(frame.to_bytes(), source=0, labels=labels)
    with xr.open_dataset(tmp_path, engine="ataraxis", time="device") as found:
        assert found.cf.axes == {"T": ["time"]}


# ---- files


def test_neo_reads_the_nwb_and_knows_its_units(
    recording: Path, data: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    needed("pynwb")
    neo = needed("neo")
    made = export_log(recording, tmp_path / "a.nwb")
    caplog.set_level(logging.WARNING)
    reader = neo.NWBIO(str(made), "r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (block,) = reader.read_all_blocks()
    units = [record for record in caplog.records if "unit" in record.getMessage()]
    assert units == []
    (segment,) = block.segments
    found = {s.name: s for s in segment.irregularlysampledsignals}
    np.testing.assert_array_equal(found["daq"].magnitude, data)
    named = {name: signal.units.dimensionality.string for name, signal in found.items()}
    assert named["daq"] == "mV"
    assert named["delay"] == "ms"
    assert {named["camera"], named["camera_device"], named["daq_entries"]} == {"ct"}
    with xr.open_dataset(recording, engine="ataraxis", source="daq") as ds:
        steps = np.diff(ds.time.values).astype("f8") / SECOND
    got = np.diff(found["daq"].times.rescale("s").magnitude)
    np.testing.assert_allclose(got, steps, atol=1e-8)


def test_neo_reads_the_nwb_of_a_collection(recording: Path, tmp_path: Path) -> None:
    needed("pynwb")
    neo = needed("neo")
    recordings = dm.open_recordings(recording)
    dm.write_nwb(tmp_path / "b.nwb", recordings)
    again = dm.open_recordings(tmp_path / "b.nwb")
    for name in ("daq", "camera", "delay"):
        assert again[name].stream.unit == recordings[name].stream.unit
    (block,) = neo.NWBIO(str(tmp_path / "b.nwb"), "r").read_all_blocks()
    found = {s.name: s for s in block.segments[0].irregularlysampledsignals}
    assert found["delay"].units.dimensionality.string == "ms"
    assert found["camera"].units.dimensionality.string == "ct"
