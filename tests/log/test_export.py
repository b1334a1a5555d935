"""Exports, read back by each format's own reader: every sample and stamp."""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

import ataraxis.datamux as dm
from ataraxis import Producer, Recorder
from ataraxis.cli import main
from ataraxis.errors import CorruptFrame
from ataraxis.log import JournalWriter, LogArchive, export_log
from ataraxis.log.export import series as series_module
from ataraxis.log.npy.directory import EntryDirectory

NEEDS = {"npz": "numpy", "nwb": "pynwb", "zarr": "zarr", "xdf": "pyxdf"}
EVERY = list(NEEDS)
ONSET_US = 1_700_000_000_000_000


def needed(kind: str) -> object:
    return pytest.importorskip(NEEDS[kind], reason=f"needs {NEEDS[kind]}")


@pytest.fixture(scope="module", autouse=True)
def zarr_threads(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Zarr starts threads once, which stay."""
    try:
        zarr = importlib.import_module("zarr")
    except ImportError:
        return
    zarr.config.set({"threading.max_workers": 1})
    path = tmp_path_factory.mktemp("zarr") / "a"
    zarr.create_array(store=str(path), shape=(4,), dtype="i4", chunks=(1,))[:] = 1


def test_a_session_exports_its_subject_units_and_axes(recording: Path) -> None:
    pynwb = needed("nwb")
    out = recording / "a.nwb"
    for text, subject in (
        ("name: a\nsubject: m42\n", "m42"), ("subject: ''\n", None),
        ("- no session\n", None), ("subject: [1]\n", None), ("\0", None),
    ):  # fmt: skip
        (recording / "session.yaml").write_text(text)
        export_log(recording, out, overwrite=True)
        with pynwb.NWBHDF5IO(str(out), "r") as io:
            file = io.read()
            found = None if file.subject is None else file.subject.subject_id
            assert found == subject
            units = {name: each.unit for name, each in file.acquisition.items()}
    assert units["probe"] == "mV"
    assert units["camera"] == units["camera_device"] == "count"
    with xr.open_dataset(recording, engine="ataraxis", group="camera") as dataset:
        assert dataset.time.attrs["axis"] == "T"
        assert dataset.time.attrs["standard_name"] == "time"


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images, channels at a rate, and words; pieces of a few rows."""
    monkeypatch.setattr(series_module, "PIECE_BYTES", 1 << 9)
    path = tmp_path / "recording"
    camera = Producer("camera", shape=(2, 3), dtype="u1", dims=("y", "x"))
    probe = Producer(
        "probe", shape=(2,), dtype="f4", dims=("channel",),
        coords={"channel": ["left", "right"]}, attrs={"units": "mV", "rate_hz": 100.0},
    )  # fmt: skip
    words = Producer("words", 64, 8)
    chance = np.random.default_rng(1)
    with camera, probe, words, Recorder(["camera", "probe", "words"], path):
        for k in range(200):
            image = chance.integers(0, 255, (2, 3)).astype("u1")
            camera.send(image, device_time=7 * k - 50, device_sequence=k)
            probe.send(chance.normal(size=2).astype("f4"))
            if k % 50 == 0:
                words.send(f"wörd {k}")
    return path


def truth(path: Path, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples, raw stamps and wall times, as `LogArchive` and xarray have them."""
    with xr.open_dataset(path, engine="ataraxis", source=name) as dataset:
        wall = dataset["entry_time" if name == "daq" else "time"].values
    if name == "words":
        frames = list(LogArchive(path).entries(name))
        values = np.array([frame.value for frame in frames])
        return values, np.array([frame.time_ns for frame in frames]), wall
    block = LogArchive(path).read(name)
    return block.data, block.time, wall


def left(path: Path) -> list[str]:
    return sorted(entry for entry in os.listdir(path) if entry.startswith(".export"))


# ---- each format, read by its own reader


def test_npz_is_read_by_numpy(recording: Path, tmp_path: Path) -> None:
    made = export_log(recording, tmp_path / "a.npz")
    with np.load(made) as archive:
        for name in ("camera", "probe", "words"):
            values, stamps, wall = truth(recording, name)
            assert archive[name].dtype == values.dtype
            np.testing.assert_array_equal(archive[name], values)
            np.testing.assert_array_equal(archive[f"{name}.monotonic_ns"], stamps)
            np.testing.assert_array_equal(archive[f"{name}.time"], wall)
            assert len(archive[f"{name}.sequence"]) == len(values)
        assert archive["camera.device_time"].tolist() == list(range(-50, 1350, 7))
        assert archive["camera.device_sequence"].tolist() == list(range(200))
        labels = json.loads(str(archive["probe.labels"]))
    assert labels["attrs"] == {"units": "mV", "rate_hz": 100.0}
    assert labels["dims"] == ["channel"]


def test_nwb_is_read_by_pynwb(recording: Path, tmp_path: Path) -> None:
    pynwb = needed("nwb")
    made = export_log(recording, tmp_path / "a.nwb")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert not any(pynwb.validate(path=str(made)))
        with pynwb.NWBHDF5IO(str(made), "r") as io:
            file = io.read()
            start = np.datetime64(file.session_start_time.replace(tzinfo=None), "ns")
            for name in ("camera", "probe", "words"):
                values, _, wall = truth(recording, name)
                series = file.acquisition[name]
                kept = values.astype(object) if name == "words" else values
                np.testing.assert_array_equal(series.data[...], kept)
                seconds = np.asarray(series.timestamps)
                stamps = start + np.rint(seconds * 1e9).astype("m8[ns]")
                np.testing.assert_array_equal(stamps, wall)
            probe, device = file.acquisition["probe"], file.acquisition["camera_device"]
            assert probe.unit == "mV"
            assert probe.comments.splitlines()[:2] == [
                "fields: left, right", "rate_hz: 100.0",
            ]  # fmt: skip
            stamps = np.stack([np.arange(-50, 1350, 7), np.arange(200)], 1)
            np.testing.assert_array_equal(device.data[...], stamps)


@pytest.mark.filterwarnings("ignore")
def test_zarr_is_read_by_zarr_and_xarray(recording: Path, tmp_path: Path) -> None:
    zarr = needed("zarr")
    made = export_log(recording, tmp_path / "a.zarr")
    root = zarr.open_group(str(made), mode="r")
    for name in ("camera", "probe", "words"):
        values, stamps, wall = truth(recording, name)
        np.testing.assert_array_equal(root[name][name][...], values)
        np.testing.assert_array_equal(root[name]["monotonic_ns"][...], stamps)
        with xr.open_dataset(
            made, group=name, engine="zarr", consolidated=False
        ) as back:
            np.testing.assert_array_equal(back.time.values, wall)
            with xr.open_dataset(recording, engine="ataraxis", source=name) as ours:
                assert set(back.coords) == set(ours.coords)
                assert back[name].dims == ours[name].dims
                assert back[name].attrs == ours[name].attrs
                np.testing.assert_array_equal(back[name], ours[name])
    with xr.open_datatree(made, engine="zarr", consolidated=False) as tree:
        assert tree["camera"].device_time.values.tolist() == list(range(-50, 1350, 7))


def test_xdf_is_read_by_pyxdf(recording: Path, tmp_path: Path) -> None:
    pyxdf = needed("xdf")
    # Six channels of an image are channels.
    made = export_log(recording, tmp_path / "a.xdf")
    loaded, header = pyxdf.load_xdf(str(made), dejitter_timestamps=False)
    streams = {stream["info"]["name"][0]: stream for stream in loaded}
    zero = int(header["info"]["zero_ns"][0])
    for name in ("camera", "probe", "words"):
        values, _, wall = truth(recording, name)
        found = streams[name]
        rows = found["time_series"]
        if name == "words":
            assert [row[0] for row in rows] == values.tolist()
        else:
            np.testing.assert_array_equal(rows, values.reshape(len(values), -1))
        stamps = zero + np.rint(found["time_stamps"] * 1e9).astype("i8")
        np.testing.assert_array_equal(stamps, wall.astype("i8"))
    info = streams["probe"]["info"]
    assert float(info["nominal_srate"][0]) == 100.0
    channels = info["desc"][0]["channels"][0]["channel"]
    assert [channel["label"][0] for channel in channels] == ["left", "right"]
    assert [channel["unit"][0] for channel in channels] == ["mV", "mV"]
    device = streams["camera device"]["time_series"]
    np.testing.assert_array_equal(device[:, 0], range(-50, 1350, 7))
    np.testing.assert_array_equal(device[:, 1], range(200))


def test_blocks_of_samples_are_samples_in_xdf(tmp_path: Path) -> None:
    pyxdf = needed("xdf")
    daq = Producer(
        "daq", shape=(4, 2), dtype="i2", dims=("time", "channel"),
        attrs={"sample_rate_hz": 1000.0},
    )  # fmt: skip
    rows = np.arange(160, dtype="i2").reshape(20, 4, 2)
    with daq, Recorder("daq", tmp_path):
        for row in rows:
            daq.send(row)
    made = export_log(tmp_path, tmp_path / "a.xdf")
    (stream,), header = pyxdf.load_xdf(str(made), dejitter_timestamps=False)
    np.testing.assert_array_equal(stream["time_series"], rows.reshape(80, 2))
    stamps = np.rint(stream["time_stamps"] * 1e9).astype("i8")
    stamps += int(header["info"]["zero_ns"][0])
    with xr.open_dataset(tmp_path, engine="ataraxis", name="daq") as fitted:
        np.testing.assert_array_equal(stamps, fitted.time.values.astype("i8"))
    np.testing.assert_allclose(np.diff(stream["time_stamps"]), 1e-3, atol=1e-9)


@pytest.mark.parametrize("kind", ["nwb", "zarr"])
def test_blocks_of_samples_are_samples_in_other_formats(
    tmp_path: Path, kind: str
) -> None:
    needed(kind)
    daq = Producer(
        "daq", shape=(4, 2), dtype="i2", dims=("time", "channel"),
        attrs={"sample_rate_hz": 1000.0, "device_time_units": "us"},
    )  # fmt: skip
    rows = np.arange(160, dtype="i2").reshape(20, 4, 2)
    with daq, Recorder("daq", tmp_path):
        for k, row in enumerate(rows):
            daq.send(row, time_ns=10**9 + 4 * 10**6 * k, device_time=4000 * k)
    made = export_log(tmp_path, tmp_path / f"a.{kind}")
    with xr.open_dataset(tmp_path, engine="ataraxis", name="daq") as fitted:
        times, stamps = fitted.time.values, fitted.monotonic_ns.values
    if kind == "zarr":
        with xr.open_zarr(made, group="daq", consolidated=False, chunks=None) as found:
            np.testing.assert_array_equal(found.daq.values, rows.reshape(80, 2))
            assert found.daq.dims == ("time", "channel")
            np.testing.assert_array_equal(found.time.values, times)
            np.testing.assert_array_equal(found.monotonic_ns.values, stamps)
            np.testing.assert_array_equal(found.first_sample.values, range(0, 80, 4))
            np.testing.assert_array_equal(found.position.values, range(80))
        return
    import pynwb

    with pynwb.NWBHDF5IO(str(made), "r") as io:
        file = io.read()
        daq = file.acquisition["daq"]
        np.testing.assert_array_equal(daq.data[:], rows.reshape(80, 2))
        zero = np.datetime64(int(file.session_start_time.timestamp()), "s")
        away = (times - zero).astype("m8[ns]").astype("i8") / 1e9
        np.testing.assert_array_equal(daq.timestamps[:], away)
        entries = file.acquisition["daq_entries"].data[:]
        np.testing.assert_array_equal(entries[:, 0], stamps)
        np.testing.assert_array_equal(entries[:, 1], range(0, 80, 4))
        device = file.acquisition["daq_device"]
        np.testing.assert_array_equal(device.data[:, 0], range(0, 80_000, 4000))
        assert len(device.timestamps[:]) == 20


def test_what_a_stamp_is_travels_to_xarray_and_nwb(tmp_path: Path) -> None:
    needed("nwb")
    import pynwb

    attrs = {
        "stamp_of": "exposure_mid", "exposure_ns": 8_000_000, "readout_ns": 2_000_000,
        "line_time_ns": 15_000,
    }  # fmt: skip
    camera = Producer("camera", shape=(2, 3), dtype="u1", dims=("y", "x"), attrs=attrs)
    with camera, Recorder("camera", tmp_path):
        camera.send(np.zeros((2, 3), "u1"))
    with xr.open_dataset(tmp_path, engine="ataraxis", name="camera") as found:
        assert attrs.items() <= found.camera.attrs.items()
    made = export_log(tmp_path, tmp_path / "a.nwb")
    with pynwb.NWBHDF5IO(str(made), "r") as io:
        comments = io.read().acquisition["camera"].comments
    labels = json.loads(comments.partition("labels: ")[2])
    assert attrs.items() <= labels["attrs"].items()


DTYPES = ["u1", "<i2", ">i4", "<u8", "f2", ">f8", "c16", "?", "M8[us]", "S5", "<U3"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["npz", "zarr", "nwb"])
def test_every_dtype_is_kept_or_refused(tmp_path: Path, kind: str, dtype: str) -> None:
    module = needed(kind)
    rows = np.arange(40).reshape(20, 2).astype("M8[us]" if "M" in dtype else dtype)
    with JournalWriter(tmp_path) as journal:
        journal.log_block(1, rows)
    if (kind, dtype) == ("nwb", "c16"):
        with pytest.raises(ValueError, match="complex128, which NWB cannot hold"):
            export_log(tmp_path, tmp_path / "a.nwb")
        return
    made = export_log(tmp_path, tmp_path / f"a.{kind}")
    if kind == "npz":
        back = np.load(made)["source_1"]
        assert back.dtype == rows.dtype
    elif kind == "zarr":
        name = "source_1"
        with xr.open_dataset(made, group=name, engine="zarr", consolidated=False) as ds:
            back = ds.data.values
    else:
        with module.NWBHDF5IO(str(made), "r") as io:
            back = io.read().acquisition["source_1"].data[...]
    if rows.dtype.kind in "SU":
        back = np.array([[_text(v) for v in row] for row in back])
        rows = rows.astype("U")
    elif rows.dtype.kind == "M" and back.dtype.kind == "i":
        rows = rows.view("i8")
    np.testing.assert_array_equal(back, rows)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def test_records_are_exported_by_field(tmp_path: Path) -> None:
    needed("zarr")
    needed("nwb")
    kind = np.dtype([("n", "i4"), ("xy", "f4", (2,))])
    rows = np.zeros(30, kind)
    rows["n"] = np.arange(30)
    rows["xy"] = np.arange(60).reshape(30, 2)
    with JournalWriter(tmp_path) as journal:
        journal.log_block(1, rows)
    np.testing.assert_array_equal(
        np.load(export_log(tmp_path, tmp_path / "a.npz"))["source_1"], rows
    )
    zarr = importlib.import_module("zarr")
    group = zarr.open_group(str(export_log(tmp_path, tmp_path / "a.zarr")), mode="r")
    np.testing.assert_array_equal(group["source_1/xy"][...], rows["xy"])
    export_log(tmp_path, tmp_path / "a.nwb")
    with importlib.import_module("pynwb").NWBHDF5IO(str(tmp_path / "a.nwb"), "r") as io:
        file = io.read()
        np.testing.assert_array_equal(
            file.acquisition["source_1_n"].data[...], rows["n"]
        )
        np.testing.assert_array_equal(
            file.acquisition["source_1_xy"].data[...], rows["xy"]
        )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", EVERY)
def test_an_empty_stream_is_exported(tmp_path: Path, kind: str) -> None:
    needed(kind)
    still = Producer("still", shape=(3,), dtype="f4", dims=("axis",))
    with still, Recorder("still", tmp_path):
        pass
    assert export_log(tmp_path, tmp_path / f"a.{kind}").exists()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", EVERY)
def test_npy_logs_are_exported(tmp_path: Path, kind: str) -> None:
    module = needed(kind)
    with EntryDirectory(tmp_path) as entries:
        entries.write(7, 0, ONSET_US.to_bytes(8, "little"))
        for k in range(20):
            entries.write(7, 100 * k, bytes([k, 255 - k]))
    made = export_log(tmp_path, tmp_path / f"a.{kind}")
    wanted = np.array([[k, 255 - k] for k in range(20)])
    if kind == "npz":
        np.testing.assert_array_equal(np.load(made)["source_7"], wanted)
        first = np.load(made)["source_7.time"][1]
        assert first == np.datetime64(ONSET_US + 100, "us")
    elif kind == "xdf":
        streams = {s["info"]["name"][0]: s for s in module.load_xdf(str(made))[0]}
        np.testing.assert_array_equal(streams["source_7"]["time_series"], wanted)


# ---- errors


@pytest.mark.parametrize("kind", EVERY)
def test_an_existing_file_stays_unless_overwrite_is_given(
    recording: Path, tmp_path: Path, kind: str
) -> None:
    needed(kind)
    output = tmp_path / f"a.{kind}"
    output.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        export_log(recording, output)
    assert output.read_bytes() == b"mine"
    assert export_log(recording, output, overwrite=True, sources=["probe"]) == output
    assert output.is_dir() == (kind == "zarr")
    export_log(recording, output, overwrite=True, sources=[1])
    assert left(tmp_path) == []


@pytest.mark.parametrize("kind", EVERY)
def test_the_output_is_complete_or_absent(
    recording: Path, tmp_path: Path, kind: str
) -> None:
    needed(kind)
    (path,) = recording.glob("probe*.axj")
    data = bytearray(path.read_bytes())
    data[data.rfind(LogArchive(recording).read("probe").data[-1].tobytes())] ^= 1
    path.write_bytes(data)
    output = tmp_path / f"a.{kind}"
    with pytest.raises(CorruptFrame, match="entry 199 of source 1 'probe'"):
        export_log(recording, output)
    assert not output.exists()
    export_log(recording, output, skip_damaged=True, sources=["probe"])
    assert left(tmp_path) == []
    if kind == "npz":
        assert np.load(output)["probe"].shape == (199, 2)
        assert np.load(output)["probe.sequence"].tolist() == list(range(199))


@pytest.mark.parametrize("kind", ["nwb", "zarr"])
def test_a_missing_package_is_named_with_the_pip_command(
    recording: Path, tmp_path: Path, kind: str
) -> None:
    with (
        mock.patch.dict(sys.modules, {NEEDS[kind]: None}),
        pytest.raises(ModuleNotFoundError, match=rf'pip install "ataraxis\[{kind}\]"'),
    ):
        export_log(recording, tmp_path / f"a.{kind}")
    assert os.listdir(tmp_path) == ["recording"]


def test_what_a_format_cannot_hold_is_refused_before_writing(
    tmp_path: Path,
) -> None:
    with JournalWriter(tmp_path / "a") as journal:
        journal.log_block(1, np.zeros((3, 2), "u8"))
        journal.log_block(2, np.zeros((3, 100, 100), "u1"))
        journal.log(3, {"a": 1})
    for source, message in (
        (1, "uint64, which XDF cannot hold"),
        (2, "XDF holds at most 4096 channels"),
    ):
        with pytest.raises(ValueError, match=message):
            export_log(tmp_path / "a", tmp_path / "a.xdf", sources=[source])
    with pytest.raises(ValueError, match="DICT"):
        export_log(tmp_path / "a", tmp_path / "a.npz")
    with pytest.raises(ValueError, match="not one of npz, nwb, zarr, xdf"):
        export_log(tmp_path / "a", tmp_path / "a.mat")
    assert os.listdir(tmp_path) == ["a"]


# ---- progress, memory, the command


def test_progress_adds_up(recording: Path, tmp_path: Path) -> None:
    progress: dict[str, list[int]] = {}
    export_log(
        recording,
        tmp_path / "a.npz",
        progress=lambda name, of, done: progress.setdefault(name, [of]).append(done),
    )
    assert {name: (of, sum(done)) for name, (of, *done) in progress.items()} == {
        "camera": (200, 200), "probe": (200, 200), "words": (4, 4),
    }  # fmt: skip
    assert len(progress["camera"]) > 5


@pytest.mark.parametrize("kind", EVERY)
def test_memory_is_bounded(tmp_path: Path, kind: str) -> None:
    """64 MB of channels, a few pieces of which are in memory at a time."""
    import tracemalloc

    needed(kind)
    with JournalWriter(tmp_path) as journal:
        block = np.zeros((4096, 1024), "f4")
        for _ in range(4):
            journal.log_block(1, block)
        journal.log_block(2, block[:5])
    del block
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_log(tmp_path, tmp_path / f"b.{kind}", sources=[2])
        tracemalloc.start()
        export_log(tmp_path, tmp_path / f"a.{kind}", sources=[1])
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < (9e7 if kind == "xdf" else 6e7), most


def test_the_command_line(recording: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    output = tmp_path / "a.npz"
    done = runner.invoke(main, ["export", str(recording), str(output)])
    assert done.exit_code == 0, done.output
    assert "a.npz: written" in done.output
    again = runner.invoke(main, ["export", str(recording), str(output)])
    assert again.exit_code == 1
    assert "--overwrite" in again.output
    more = ["--overwrite", "--source", "probe", "--source", "0"]
    done = runner.invoke(main, ["export", str(recording), str(output), *more])
    assert done.exit_code == 0, done.output
    assert "words" not in np.load(output)
    wrong = runner.invoke(main, ["export", str(recording), str(output) + ".mat"])
    assert "not one of npz, nwb, zarr, xdf" in wrong.output
    wrong = runner.invoke(main, ["export", str(tmp_path), str(tmp_path / "b.npz")])
    assert "no log" in wrong.output


@pytest.mark.parametrize("suffix", ["journal", "npz", "nwb", "zarr", "xdf"])
def test_ns_of_this_century_come_back_from_every_format(
    tmp_path: Path, suffix: str
) -> None:
    ns = 1_700_000_000_123_456_789 + np.arange(1000) * 101
    stream = dm.Stream(
        "s", fields={"v": dm.Field()}, index={"t": dm.Field(dtype="i64", unit="ns")}
    )
    recording = dm.Recording.of(stream, {"v": np.arange(1000.0), "t": ns})
    sink = dm.JournalSink(stream, "s", tmp_path / "log")
    dm.API().replay(recording, sink, rate_limit=False).wait()
    sink.close()
    if suffix == "journal":
        block = dm.open_recordings(tmp_path / "log")["s"].read()
        assert block.index["device_time"].tolist() == ns.tolist()
        return
    module = needed(suffix)
    out = export_log(tmp_path / "log", tmp_path / f"out.{suffix}")
    if suffix == "npz":
        found = np.load(out)["s.device_time"]
    elif suffix == "nwb":
        with module.NWBHDF5IO(str(out), "r") as io:
            found = io.read().acquisition["s_device"].data[:, 0]
    elif suffix == "zarr":
        found = module.open_group(str(out))["s"]["device_time"][:]
    else:
        streams, _ = module.load_xdf(str(out), dejitter_timestamps=False)
        (device,) = (s for s in streams if s["info"]["name"][0] == "s device")
        found = device["time_series"][:, 0]
    assert np.asarray(found).tolist() == ns.tolist()
