"""Each format of other programs, against its own reference reader."""

from __future__ import annotations

import datetime
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spikeglx

import ataraxis.datamux as dm
from ataraxis.errors import RecordingError
from ataraxis.testing.recordings import RecordingContract, Referred

RATE = 250.0


@pytest.fixture(scope="module", autouse=True)
def zarr_threads(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Zarr starts threads once, which stay."""
    try:
        import zarr
    except ImportError:
        return
    zarr.config.set({"threading.max_workers": 1})
    path = tmp_path_factory.mktemp("zarr") / "a"
    zarr.create_array(store=str(path), shape=(4,), dtype="i4", chunks=(1,))[:] = 1


def seconds(n: int, rate: float = RATE) -> np.ndarray:
    return np.arange(n) / rate


class TestEdf(RecordingContract):
    formats = ("edf", ".edf")
    suffix = ".edf"
    keeps_names = True
    has_empty = False
    has_one = False
    can_grow = False  # whole data records

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        edfio = pytest.importorskip("edfio")
        whole = len(values) // 50 * 50
        signals = [
            edfio.EdfSignal(
                values[:whole, i] / 10, RATE, label=name, physical_dimension="uV",
                physical_range=(-3276.8, 3276.7), digital_range=(-32768, 32767),
            )
            for i, name in enumerate(names)
        ]  # fmt: skip
        edfio.Edf(signals, data_record_duration=0.2).write(path)

    def read_reference(self, path: Path) -> Referred:
        import edfio

        signals = edfio.read_edf(path).signals
        values = np.stack([s.data for s in signals], 1)
        units = tuple(s.physical_dimension for s in signals)
        return Referred(values, seconds(len(values)), units)


class TestBdf(TestEdf):
    formats = ("bdf", ".bdf")
    suffix = ".bdf"

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        edfio = pytest.importorskip("edfio")
        whole = len(values) // 50 * 50
        signals = [
            edfio.BdfSignal(
                values[:whole, i] / 7.0, RATE, label=name, physical_dimension="mV",
                physical_range=(-5000, 5000),
            )
            for i, name in enumerate(names)
        ]  # fmt: skip
        edfio.Bdf(signals, data_record_duration=0.2).write(path)

    def read_reference(self, path: Path) -> Referred:
        import edfio

        signals = edfio.read_bdf(path).signals
        values = np.stack([s.data for s in signals], 1)
        return Referred(values, seconds(len(values)), ("mV",) * len(signals))


class TestWav(RecordingContract):
    formats = ("wav", ".wav")
    suffix = ".wav"
    stream = "sound"
    rate_hz = 44_100.0

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        soundfile = pytest.importorskip("soundfile")
        soundfile.write(path, values, 44_100, "PCM_16")

    def read_reference(self, path: Path) -> Referred:
        import soundfile

        values, rate = soundfile.read(path, dtype="int16", always_2d=True)
        return Referred(values, np.arange(len(values)) / rate)


class TestFlac(TestWav):
    formats = ("flac", ".flac")
    suffix = ".flac"
    has_empty = False


class TestMatlab5(RecordingContract):
    formats = ("mat", ".mat")
    suffix = ".mat"
    stream = "made"
    dtype = "f8"
    channels = 2

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        io = pytest.importorskip("scipy.io")
        io.savemat(path, {"x": values, "t": 5 + seconds(len(values)), "who": "m42"})

    def read_reference(self, path: Path) -> Referred:
        import scipy.io

        found = scipy.io.loadmat(path)
        return Referred(found["x"].reshape(-1, 2), found["t"].ravel())

    has_one = False  # a matrix of one row is a vector in MATLAB


class TestMatlab73(TestMatlab5):
    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w", userblock_size=512) as file:
            for name, data in (("x", values.T), ("t", seconds(len(values))[:, None])):
                file.create_dataset(name, data=data).attrs["MATLAB_class"] = b"double"
        start = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
        with path.open("r+b") as file:
            file.write(start.ljust(512, b"\0"))

    def read_reference(self, path: Path) -> Referred:
        import h5py

        with h5py.File(path) as file:
            return Referred(file["x"][:].T, file["t"][:].ravel())

    @pytest.mark.slow
    def test_a_cut_file_gives_no_wrong_value(self, tmp_path: Path) -> None:
        super().test_a_cut_file_gives_no_wrong_value(tmp_path)


class TestHdf5(RecordingContract):
    formats = ("hdf5", ".h5")
    suffix = ".h5"
    stream = "probe"
    dtype = "u2"

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            file["probe/data"] = values
            file["probe/data"].attrs["units"] = "uV"
            file["probe/timestamps"] = 7 + seconds(len(values))
            file["note"] = "text"

    def read_reference(self, path: Path) -> Referred:
        import h5py

        with h5py.File(path) as file:
            values, t = file["probe/data"][:], file["probe/timestamps"][:]
        return Referred(values, t, ("uV",) * 3)

    def write_beside(self, path: Path, values: np.ndarray) -> str:
        self.write(path, [], values)
        h5py = pytest.importorskip("h5py")

        with h5py.File(path, "a") as file:
            file["pairs"] = np.zeros(4, [("a", "i4"), ("b", "f4")])
        return "pairs"

    @pytest.mark.slow
    def test_a_cut_file_gives_no_wrong_value(self, tmp_path: Path) -> None:
        super().test_a_cut_file_gives_no_wrong_value(tmp_path)


class TestNetCdf(RecordingContract):
    formats = ("netcdf", ".nc")
    suffix = ".nc"
    stream = "made"
    dtype = "f8"

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        self.save(self.dataset(values), path)

    def dataset(self, values: np.ndarray) -> Any:
        import xarray as xr

        attrs = {"units": "mV"}
        variable = (("time", "channel"), values, attrs)
        return xr.Dataset({"v": variable}, {"time": 3 + seconds(len(values))})

    def save(self, dataset: Any, path: Path) -> None:
        pytest.importorskip("scipy")
        dataset.to_netcdf(path, engine="scipy")

    def read_reference(self, path: Path) -> Referred:
        import xarray as xr

        with xr.open_dataset(path) as found:
            return Referred(found.v.values, found.time.values, ("mV",) * 3)


class TestZarrStore(TestNetCdf):
    formats = ("zarr", ".zarr")
    suffix = ".zarr"

    def save(self, dataset: Any, path: Path) -> None:
        pytest.importorskip("zarr")
        dataset.to_zarr(path, mode="w", consolidated=False)

    def read_reference(self, path: Path) -> Referred:
        import xarray as xr

        with xr.open_zarr(path, chunks=None, consolidated=False) as found:
            return Referred(found.v.values, found.time.values, ("mV",) * 3)

    def write_beside(self, path: Path, values: np.ndarray) -> str:
        import xarray as xr

        self.write(path, [], values)
        odd = xr.Dataset({"odd": (("time",), np.zeros(len(values), "c8"))})
        odd.to_zarr(path, mode="a", consolidated=False)
        return "odd"


class TestTiff(RecordingContract):
    formats = ("tiff", ".tif")
    suffix = ".tif"
    stream = "frames"
    channels = 12
    has_empty = False
    has_one = False  # one row is one image: the next test has it

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        tifffile = pytest.importorskip("tifffile")
        images = values.astype("u2").reshape(-1, 3, 4)
        metadata = {"axes": "TYX", "finterval": 0.25}
        tifffile.imwrite(path, images, imagej=True, metadata=metadata)

    def read_reference(self, path: Path) -> Referred:
        import tifffile

        images = tifffile.imread(path)
        return Referred(images, np.arange(len(images)) * 0.25)


class TestSpikeGlx(RecordingContract):
    formats = ("neo", ".meta")
    suffix = "_run_g0"
    stream = "imec0.ap"
    rate_hz = 30_000.0
    has_empty = False

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        pytest.importorskip("neo")
        sync = np.zeros((len(values), 1), "i2")
        whole = np.concatenate([values, sync], 1)
        spikeglx.write_probe(path / "imec0", "run", 0, "ap", whole, self.channels)

    def read_reference(self, path: Path) -> Referred:
        from neo.rawio import SpikeGLXRawIO

        raw = SpikeGLXRawIO(str(path))
        raw.parse_header()
        values = np.asarray(raw.get_analogsignal_chunk(0, 0, None, None, 0))
        return Referred(values, seconds(len(values), self.rate_hz))


class TestFif(RecordingContract):
    formats = ("mne", ".fif")
    suffix = "_raw.fif"
    dtype = "f8"
    has_empty = False

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        mne = pytest.importorskip("mne")
        info = mne.create_info(names, RATE, "eeg")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            raw = mne.io.RawArray(values.T * 1e-6, info, verbose="error")
            raw.save(path, fmt="double", overwrite=True, verbose="error")

    def read_reference(self, path: Path) -> Referred:
        import mne

        raw = mne.io.read_raw_fif(path, verbose="error")
        return Referred(raw.get_data().T, raw.times, ("V",) * len(raw.ch_names))


class TestDeepLabCut(RecordingContract):
    formats = ("dlc", ".csv")
    suffix = ".csv"
    stream = "points"
    dtype = "f8"
    is_text = True

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        head = [
            "scorer,net,net,net",
            "bodyparts,nose,nose,nose",
            "coords,x,y,likelihood",
        ]
        rows = [
            f"{i},{','.join(map(repr, map(float, r)))}" for i, r in enumerate(values)
        ]
        path.write_text("\n".join(head + rows) + "\n")

    def read_reference(self, path: Path) -> Referred:
        pandas = pytest.importorskip("pandas")
        table = pandas.read_csv(path, header=[0, 1, 2], index_col=0)
        return Referred(table.to_numpy(), table.index.to_numpy("f8"), ("px", "px", ""))


class TestNwb(RecordingContract):
    formats = ("nwb", ".nwb")
    suffix = ".nwb"
    stream = "lfp"
    has_empty = False

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        pynwb = pytest.importorskip("pynwb")
        when = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
        file = pynwb.NWBFile(
            session_description="d", identifier="i", session_start_time=when
        )
        file.add_acquisition(
            pynwb.TimeSeries(
                name="lfp", data=values, unit="V", conversion=1e-6, rate=RATE
            )
        )
        with pynwb.NWBHDF5IO(path, "w") as io:
            io.write(file)

    def read_reference(self, path: Path) -> Referred:
        import pynwb

        with pynwb.NWBHDF5IO(path, "r") as io:
            values = np.asarray(io.read().acquisition["lfp"].get_data_in_units()[:])
        return Referred(values, seconds(len(values)), ("V",) * 3)

    def write_beside(self, path: Path, values: np.ndarray) -> str:
        h5py = pytest.importorskip("h5py")

        self.write(path, [], values)
        with h5py.File(path, "a") as file:
            file.copy("acquisition/lfp", "acquisition/odd")
            file["acquisition/odd"].attrs["object_id"] = "odd"
            del file["acquisition/odd/data"]
            file["acquisition/odd/data"] = np.zeros(4, "c8")
            about = file["acquisition/odd/data"].attrs
            about.update(file["acquisition/lfp/data"].attrs)
        return "odd"

    @pytest.mark.slow
    def test_a_cut_file_gives_no_wrong_value(self, tmp_path: Path) -> None:
        super().test_a_cut_file_gives_no_wrong_value(tmp_path)


class TestVideo(RecordingContract):
    formats = ("mkv", ".mkv")
    suffix = ".mkv"
    stream = "frames"
    samples = 90
    has_empty = False

    def _made(self, folder: Path, n: int, names: list[str] | None = None) -> Path:
        path = folder / "made.mkv"
        self.write(path, [], np.arange(n))
        return path

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        av = pytest.importorskip("av")
        with av.open(str(path), "w") as container:
            stream = container.add_stream("ffv1", rate=25)
            stream.width, stream.height, stream.pix_fmt = 32, 16, "gray"
            for number in values:
                image = np.full((16, 32), number % 251, np.uint8)
                image[0, :8] = [(number >> bit) % 2 * 255 for bit in range(8)]
                frame = av.VideoFrame.from_ndarray(image, "gray")
                frame.pts = int(number) + int(number > 30) * 10  # a pause
                container.mux(stream.encode(frame))
            container.mux(stream.encode())

    def read_reference(self, path: Path) -> Referred:
        import av

        with av.open(str(path)) as container:
            frames = [(float(f.pts * f.time_base), f.to_ndarray(format="gray"))
                      for f in container.decode(video=0)]  # fmt: skip
        t, images = zip(*frames, strict=True)
        return Referred(np.stack(images), np.array(t))


# ---- what is particular to one of them


def test_a_video_takes_stamps_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    TestVideo().write(tmp_path / "m" / "v.mkv", [], np.arange(20))
    np.save(tmp_path / "m" / "stamps.npy", 100 + np.arange(20) / 3)
    (tmp_path / "m.collection.yaml").write_text(
        "name: m\npattern: mkv://{session}\nstreams:\n  frames:\n    name: frames\n"
        "    attrs: {stamps: stamps.npy}\n"
        "    fields:\n      image: {dtype: u8, shape: [16, 32]}\n"
    )
    api = dm.API(data_dir=tmp_path, meta_dir=tmp_path)
    recording = api.recording("m", "frames", {"session": "v"})
    np.testing.assert_array_equal(recording.t, 100 + np.arange(20) / 3)
    np.save(tmp_path / "m" / "stamps.npy", np.arange(19.0))
    with pytest.raises(RecordingError, match=r"20 frames, and stamps of shape \(19,\)"):
        api.recording("m", "frames", {"session": "v"})


def test_signals_of_several_rates_and_annotations_of_edf(tmp_path: Path) -> None:
    edfio = pytest.importorskip("edfio")
    slow = edfio.EdfSignal(np.arange(20.0), 10, label="temp", physical_dimension="C")
    fast = edfio.EdfSignal(np.arange(200.0), 100, label="eeg", physical_dimension="uV")
    notes = [
        edfio.EdfAnnotation(0.5, None, "light"),
        edfio.EdfAnnotation(1.25, 0.5, "é"),
    ]
    edfio.Edf([slow, fast], annotations=notes).write(tmp_path / "x.edf")
    found = dm.open_recordings(tmp_path / "x.edf")
    assert sorted(found) == ["annotations", "signals_100hz", "signals_10hz"]
    reference = edfio.read_edf(tmp_path / "x.edf")
    np.testing.assert_array_equal(
        found["signals_10hz"].read().values["temp"], reference.get_signal("temp").data
    )
    block = found["annotations"].read()
    assert block.values["text"].tolist() == ["light", "é"]
    assert block.t.tolist() == [0.5, 1.25]
    np.testing.assert_array_equal(block.values["duration"], [np.nan, 0.5])


def test_probe_lfp_and_board_of_one_spikeglx_run(tmp_path: Path) -> None:
    """Stored and scaled values, times and units, as neo gives them."""
    rawio = pytest.importorskip("neo.rawio")
    source = np.random.default_rng(3)
    for band in ("ap", "lf"):
        values = source.integers(-500, 500, (300, 5)).astype("i2")
        spikeglx.write_probe(tmp_path / "run", "r", 0, band, values, 4)
    spikeglx.write_board(tmp_path / "run", "r", source.integers(-9, 9, (200, 2)), 2)
    found = dm.open_recordings(tmp_path / "run")
    raw = rawio.SpikeGLXRawIO(str(tmp_path / "run"))
    raw.parse_header()
    names = [str(name) for name in raw.header["signal_streams"]["name"]]
    assert [*found] == names
    assert {"imec0.lf", "nidq"} < {*names}
    for number, name in enumerate(names):
        recording = found[name]
        stored = raw.get_analogsignal_chunk(0, 0, None, None, number)
        np.testing.assert_array_equal(recording.read().array, stored)
        assert recording.stream.rate_hz == raw.get_signal_sampling_rate(number)
        scaled = raw.rescale_signal_raw_to_float(stored, "float64", number)
        attrs = recording.stream.attrs
        if "gain" in attrs:
            ours = stored * np.array(attrs["gain"]) + np.array(attrs["offset"])
            np.testing.assert_allclose(ours, scaled, rtol=1e-12)
    by_file = dm.open_recordings(tmp_path / "run" / "r_g0_t0.imec0.lf.meta")
    assert [*by_file] == names


def test_a_declared_float_is_the_scaled_value(tmp_path: Path) -> None:
    pytest.importorskip("neo")
    values = np.arange(50, dtype="i2").reshape(10, 5)
    spikeglx.write_probe(tmp_path / "d" / "run", "r", 0, "ap", values, 4)
    (tmp_path / "d.collection.yaml").write_text(
        "name: d\npattern: neo://{session}\nstreams:\n  imec0.ap:\n    name: probe\n"
        "    fields:\n      AP2: {dtype: f64, unit: uV}\n"
    )
    api = dm.API(data_dir=tmp_path, meta_dir=tmp_path)
    (listed,) = api.list_collection_streams("d")
    assert listed.attrs["session"] == "run"
    recording = api.recording("d", "imec0.ap", {"session": "run"})
    np.testing.assert_allclose(
        recording.read().values["AP2"], values[:, 2] * 0.6 / 512 / 500 * 1e6, rtol=1e-12
    )


def test_tables_of_times_in_nwb(tmp_path: Path) -> None:
    pynwb = pytest.importorskip("pynwb")
    when = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    file = pynwb.NWBFile(
        session_description="d", identifier="i", session_start_time=when
    )
    file.add_trial_column(name="choice", description="left or right")
    for i in range(3):
        file.add_trial(start_time=float(i), stop_time=i + 0.5, choice="lr"[i % 2])
    for times in ([0.1, 0.4], [], [0.2]):
        file.add_unit(spike_times=times)
    for module in ("a", "b"):
        place = file.create_processing_module(name=module, description="x")
        place.add(
            pynwb.TimeSeries(name="lick", data=np.arange(2.0), unit="V", rate=10.0)
        )
    with pynwb.NWBHDF5IO(tmp_path / "x.nwb", "w") as io:
        io.write(file)
    found = dm.open_recordings(tmp_path / "x.nwb")
    assert {"lick@a", "lick@b", "trials", "units"} == {*found}
    trials = found["trials"].read()
    assert trials.t.tolist() == [0, 1, 2]
    assert trials.values["choice"].tolist() == ["l", "r", "l"]
    assert trials.values["stop_time"].tolist() == [0.5, 1.5, 2.5]
    units = found["units"].read()
    assert units.t.tolist() == [0.1, 0.2, 0.4]
    assert units.values["unit"].tolist() == [0, 2, 0]


def test_packed_tables_and_dates(tmp_path: Path) -> None:
    import gzip

    rows = "when,v\n2026-01-02T03:04:05.5Z,1\n2026-01-02T05:04:06+02:00,2\n"
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "a.csv.gz").write_bytes(gzip.compress(rows.encode()))
    (tmp_path / "c.collection.yaml").write_text(
        "name: c\npattern: csv://{trial}\nstreams:\n  s:\n    name: s\n"
        "    fields:\n      v: {dtype: i16}\n    index:\n      when: {dtype: f64}\n"
    )
    api = dm.API(data_dir=tmp_path, meta_dir=tmp_path)
    assert [s.attrs["trial"] for s in api.list_collection_streams("c")] == ["a"]
    recording = api.recording("c", "s", {"trial": "a"})
    assert recording.duration_s == pytest.approx(0.5)
    assert recording.read().values["v"].tolist() == [1, 2]
    (tmp_path / "c" / "a.csv.gz").write_bytes(gzip.compress(rows.encode())[:-9])
    with pytest.raises(RecordingError, match="not packed by gzip, or damaged"):
        api.recording("c", "s", {"trial": "a"})


def test_logs_of_pycontrol(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(
        'I Experiment name : x\nS {"wait": 1, "go": 2}\nE {"poke": 3}\n'
        "D 0 1\nD 1500 3\nP 1600 hello: 1\nD 1700 2\n"
    )
    block = dm.open_recordings(tmp_path / "a.txt")["events"].read()
    assert block.t.tolist() == [0, 1.5, 1.6, 1.7]
    assert block.values["kind"].tolist() == ["state", "event", "print", "state"]
    assert block.values["name"].tolist() == ["wait", "poke", "", "go"]
    (tmp_path / "b.tsv").write_text(
        "time\ttype\tsubtype\tcontent\n\tinfo\tversion\t2\n"
        "0.5\tstate\t\tgo\n0.75\tevent\tinput\tpoke\n1.0\tprint\ttask\thi\n"
    )
    block = dm.open_recordings(tmp_path / "b.tsv")["events"].read()
    assert block.t.tolist() == [0.5, 0.75, 1.0]
    assert block.values["name"].tolist() == ["go", "poke", "task"]
    assert block.values["text"].tolist() == ["", "input", "hi"]


def test_registers_of_harp(tmp_path: Path) -> None:
    harp = pytest.importorskip("harp")
    messages = bytearray()
    for i in range(5):
        stamp = (100 + i).to_bytes(4, "little") + (500 * i).to_bytes(2, "little")
        body = bytes([3, 12, 44, 255, 0x12]) + stamp + (7 * i).to_bytes(2, "little")
        messages += body + bytes([sum(body) % 256])
    path = tmp_path / "device_44.bin"
    path.write_bytes(messages)
    expected = harp.read(path)
    block = dm.open_recordings(path)["register"].read()
    np.testing.assert_array_equal(block.t, expected.index.to_numpy())
    np.testing.assert_array_equal(block.values["value0"], expected[0].to_numpy())
    (tmp_path / "device_0.bin").write_bytes(b"")
    assert len(dm.open_recordings(tmp_path / "device_0.bin")["register"]) == 0


def test_the_tracks_of_sleap(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    tracks = np.random.default_rng(0).normal(size=(2, 2, 3, 40))
    tracks[0, :, 1, 5] = np.nan
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["tracks"] = tracks
        file["node_names"] = [b"nose", b"ear", b"tail"]
        file["track_names"] = [b"m1", b"m2"]
        file["point_scores"] = np.zeros((2, 3, 40))
    found = dm.open_recordings(tmp_path / "x.h5")
    assert [*found] == ["m1", "m2"]
    block = found["m1"].read()
    np.testing.assert_array_equal(block.values["ear.y"], tracks[0, 1, 1])
    assert block.t.tolist() == [*range(40)]


def test_recordings_that_need_other_files_are_not_opened_for_clients(tmp_path) -> None:
    pytest.importorskip("neo")
    spikeglx.write_probe(tmp_path / "run", "r", 0, "ap", np.zeros((9, 5), "i2"), 4)
    from ataraxis.datamux.folder import Folder
    from ataraxis.datamux.formats import recordings_in

    with pytest.raises(RecordingError, match="programs of this machine only"):
        recordings_in(Folder(tmp_path, is_confined=True), "run")


def test_info_lists_what_a_recording_holds(tmp_path: Path) -> None:
    """Samples, rate, dtypes, units, span and gaps, in a table and as JSON."""
    import json

    from click.testing import CliRunner

    from ataraxis.cli import main

    t = np.concatenate([np.arange(50), 60 + np.arange(50)]) / 100
    np.savez(tmp_path / "x.npz", t=t, v=np.zeros((100, 2), "i2"), sample_rate_hz=100)
    ran = CliRunner().invoke(main, ["info", str(tmp_path / "x.npz"), "--json"])
    assert ran.exit_code == 0, ran.output
    (found,) = json.loads(ran.output)["streams"]
    assert found == {
        "name": "x", "samples": 100, "rate_hz": 100.0, "dtype": "i16", "shape": [2],
        "fields": ["v0", "v1"], "unit": "", "first_s": 0.0, "last_s": 1.09, "gaps": 1,
    }  # fmt: skip
    ran = CliRunner().invoke(main, ["info", str(tmp_path / "x.npz")])
    assert "100 Hz" in ran.output
    ran = CliRunner().invoke(main, ["info", str(tmp_path / "no.npz")])
    assert ran.exit_code == 1
    assert "no.npz" in ran.output


def test_a_stream_that_cannot_be_read_is_left_out_beside_good_ones(tmp_path) -> None:
    """With a warning; and asked for, it raises."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["good"] = np.arange(5)
        file["pairs"] = np.zeros(4, [("a", "i4"), ("b", "f4")])
        file["empty"] = np.zeros(0, "f4")
    with pytest.warns(RuntimeWarning, match="'pairs' is left out"):
        found = dm.open_recordings(tmp_path / "x.h5")
    assert {*found} == {"good", "empty"}
    assert len(found["empty"]) == 0
    with pytest.raises(RecordingError, match="array 'pairs' is"):
        found["pairs"]


class TestBrainVision(RecordingContract):
    formats = ("mne", ".vhdr")
    suffix = ".vhdr"
    has_empty = False

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        pytest.importorskip("mne")
        values.astype("<i2").tofile(path.with_suffix(".eeg"))
        lines = [
            "Brain Vision Data Exchange Header File Version 1.0", "[Common Infos]",
            "Codepage=UTF-8", f"DataFile={path.stem}.eeg",
            f"MarkerFile={path.stem}.vmrk", "DataFormat=BINARY",
            "DataOrientation=MULTIPLEXED", f"NumberOfChannels={len(names)}",
            f"SamplingInterval={round(1e6 / RATE)}", "[Binary Infos]",
            "BinaryFormat=INT_16", "[Channel Infos]",
            *(f"Ch{i}={name},,0.5,uV" for i, name in enumerate(names, 1)),
        ]  # fmt: skip
        path.write_text("\n".join(lines) + "\n")
        path.with_suffix(".vmrk").write_text(
            "Brain Vision Data Exchange Marker File, Version 1.0\n[Common Infos]\n"
            f"Codepage=UTF-8\nDataFile={path.stem}.eeg\n[Marker Infos]\n"
            "Mk1=Stimulus,S  1,1,1,0\n"
        )

    def read_reference(self, path: Path) -> Referred:
        import mne

        raw = mne.io.read_raw_brainvision(path, verbose="error")
        return Referred(raw.get_data().T, raw.times, ("V",) * len(raw.ch_names))

    def file_of_values(self, path: Path) -> Path:
        return path.with_suffix(".eeg")


def test_large_and_scanimage_stacks(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    images = np.random.default_rng(5).integers(0, 9999, (12, 8, 6)).astype("u2")
    tifffile.imwrite(
        tmp_path / "big.tif", images, bigtiff=True, photometric="minisblack"
    )
    recording = dm.open_recordings(tmp_path / "big.tif")["frames"]
    np.testing.assert_array_equal(recording.read(3, 9).array, images[3:9])
    assert recording.t.tolist() == [*range(12)]  # numbers: the file has no times
    lines = [
        "SI.VERSION_MAJOR = 2020", "SI.hChannels.channelSave = [1;3]",
        "SI.hRoiManager.scanFrameRate = 30.5",
    ]  # fmt: skip
    header = "\n".join(lines).encode() + b"\0"
    with tifffile.TiffWriter(tmp_path / "si.tif", bigtiff=True) as file:
        for image in images:
            file.write(image, software=header.decode(), metadata=None)
    found = dm.open_recordings(tmp_path / "si.tif")
    with tifffile.TiffFile(tmp_path / "si.tif") as file:
        if not file.is_scanimage:
            pytest.skip("tifffile does not take it for ScanImage's")
    assert [*found] == ["channel1", "channel3"]
    np.testing.assert_array_equal(found["channel3"].read().array, images[1::2])
    assert found["channel1"].stream.rate_hz == 30.5


def test_gaze_of_eyelink(tmp_path: Path) -> None:
    mne = pytest.importorskip("mne")
    lines = [
        "** CONVERTED FROM x.edf", "** DATE: Tue Jan  6 10:11:12 2026",
        "** TYPE: EDF_FILE BINARY EVENT SAMPLE TAGGED", "** VERSION: EYELINK II 1",
        "MSG\t1000 DISPLAY_COORDS 0 0 1919 1079", "MSG\t1000 RECCFG CR 1000 2 1 R",
        "MSG\t1000 GAZE_COORDS 0.00 0.00 1919.00 1079.00",
        "START\t1000\tRIGHT\tSAMPLES\tEVENTS", "PRESCALER\t1", "VPRESCALER\t1",
        "PUPIL\tAREA",
        "EVENTS\tGAZE\tRIGHT\tRATE\t1000.00\tTRACKING\tCR\tFILTER\t2",
        "SAMPLES\tGAZE\tRIGHT\tRATE\t1000.00\tTRACKING\tCR\tFILTER\t2",
        *(f"{1000 + i}\t{500.5 + i}\t{400 - i}.0\t{900 + i}.0\t..." for i in range(50)),
        "MSG\t1030 go", "END\t1050\tSAMPLES\tEVENTS\tRES\t30.0\t25.0",
    ]  # fmt: skip
    path = tmp_path / "x.asc"
    path.write_text("\n".join(lines) + "\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw = mne.io.read_raw_eyelink(path, verbose="error")
    recording = dm.open_recordings(path)["signals"]
    np.testing.assert_array_equal(recording.read().array, raw.get_data().T)
    assert [*recording.stream.fields] == raw.ch_names


class TestWfdb(RecordingContract):
    formats = ("wfdb", ".hea")
    suffix = ".hea"
    dtype = "f8"
    keeps_names = True
    has_empty = False

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        wfdb = pytest.importorskip("wfdb")
        if len({*names}) < len(names):
            pytest.skip("the writer of wfdb refuses equal names: see k04's test")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pandas, about wfdb
            wfdb.wrsamp(
                path.stem, fs=RATE, units=["mV"] * len(names), sig_name=names,
                p_signal=values, fmt=["16"] * len(names), write_dir=str(path.parent),
            )  # fmt: skip

    def read_reference(self, path: Path) -> Referred:
        import wfdb

        record = wfdb.rdrecord(str(path.with_suffix("")))
        n = len(record.p_signal)
        return Referred(record.p_signal, seconds(n), tuple(record.units))

    def file_of_values(self, path: Path) -> Path:
        return path.with_suffix(".dat")


class TestWfdbBySignals(TestWfdb):
    """The file of the signals, which opens its header."""

    formats = ("wfdb", ".dat")
    suffix = ".dat"
    has_damage = False  # without a header they are nothing


class TestXdf(RecordingContract):
    formats = ("xdf", ".xdf")
    suffix = ".xdf"
    stream = "probe"
    dtype = "f4"
    has_empty = False
    has_one = False

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        pytest.importorskip("pyxdf")
        fields = {name: dm.Field(name, dtype="f32") for name in names}
        stream = dm.Stream("probe", frequency=RATE, fields=fields)
        columns = {name: values[:, i] for i, name in enumerate(names)}
        path.unlink(missing_ok=True)
        dm.write_xdf(path, {"probe": dm.Recording.of(stream, columns)})

    def read_reference(self, path: Path) -> Referred:
        import pyxdf

        (found,), _ = pyxdf.load_xdf(path)
        return Referred(np.asarray(found["time_series"]), found["time_stamps"])


class TestNpz(RecordingContract):
    formats = ("npz", ".npz")
    suffix = ".npz"
    stream = "made"

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        np.savez(path, t=2 + seconds(len(values)), v=values)

    def read_reference(self, path: Path) -> Referred:
        with np.load(path) as found:
            return Referred(found["v"], found["t"])


def test_signals_events_and_spikes_of_neo(tmp_path: Path, monkeypatch) -> None:
    """Neo's own example: two blocks of segments, events, epochs and units."""
    rawio = pytest.importorskip("neo.rawio")
    from ataraxis.datamux.sources import neo

    monkeypatch.setitem(neo.FILES_OF, ".fake", "ExampleRawIO")
    path = tmp_path / "x.fake"
    path.write_bytes(b"")
    raw = rawio.ExampleRawIO(str(path))
    raw.parse_header()
    found = dm.open_recordings(path)
    segments = [(b, s) for b in range(raw.block_count())
                for s in range(raw.segment_count(b))]  # fmt: skip
    for place, (block, segment) in enumerate(segments):
        end = f":{place}" if place else ""
        for number, name in enumerate(raw.header["signal_streams"]["name"]):
            got = found[f"{name}{end}"].read()
            stored = raw.get_analogsignal_chunk(block, segment, None, None, number)
            np.testing.assert_array_equal(got.array, stored)
            assert got.t[0] == raw.get_signal_t_start(block, segment, number)
        for number, name in enumerate(raw.header["event_channels"]["name"]):
            got = found[f"{name}{end}"].read()
            at, long, labels = raw.get_event_timestamps(block, segment, number)
            expected = raw.rescale_event_timestamp(at, "float64", number)
            np.testing.assert_array_equal(got.t, expected)
            assert got.values["label"].tolist() == [str(text) for text in labels]
            assert ("duration" in got.values) == (long is not None)
        got = found[f"spikes{end}"].read()
        units = np.asarray(got.values["unit"])
        for number, name in enumerate(raw.header["spike_channels"]["name"]):
            at = raw.get_spike_timestamps(block, segment, number)
            expected = raw.rescale_spike_timestamp(at, "float64")
            np.testing.assert_array_equal(got.t[units == str(name)], expected)


def test_a_new_format_is_a_live_source_and_a_scene_of_the_demo(tmp_path: Path) -> None:
    """`replay` and ``demo --real`` take what `open_recordings` opens."""
    soundfile = pytest.importorskip("soundfile")
    from ataraxis.demo.scene import of_recording

    tone = (1000 * np.sin(np.arange(8000) / 9)).astype("i2")
    soundfile.write(tmp_path / "call.wav", np.stack([tone, -tone], 1), 8000, "PCM_16")
    scene = of_recording(tmp_path / "call.wav", 5.0)
    assert [*scene.rig.sources] == ["sound"]
    with dm.API() as api:
        blocks: list[dm.Block] = []
        recording = dm.open_recordings(tmp_path / "call.wav")["sound"]
        ack = api.replay(recording, blocks.append, deliver="block", rate_limit=False)
        assert ack.wait(30).reason == "completed"
    got = np.concatenate([b.array for b in blocks if b != dm.END_OF_STREAM])
    np.testing.assert_array_equal(got[:, 1], -tone)


def test_nwb_in_zarr(tmp_path: Path) -> None:
    """A folder of hdmf-zarr 0.13; its values are those that its writer was given."""
    import zipfile

    from places import GOLDEN

    pytest.importorskip("zarr")
    with zipfile.ZipFile(GOLDEN / "nwb_zarr.zip") as packed:
        packed.extractall(tmp_path)
    found = dm.open_recordings(tmp_path / "x.nwb.zarr")
    assert {*found} == {"lfp", "lick", "trials"}
    lfp = found["lfp"].read()
    expected = np.arange(40).reshape(20, 2) * 1e-6 + 0.5
    np.testing.assert_array_equal(lfp.array, expected)
    np.testing.assert_array_equal(lfp.t, np.arange(20) / 1000 + 2)
    assert found["lfp"].stream.unit == "V"
    assert found["lick"].t.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert found["trials"].t.tolist() == [0.5, 1.5]
    assert found["trials"].read().values["stop_time"].tolist() == [1, 2]
    (tmp_path / "x.nwb.zarr" / "acquisition" / "lfp" / "data" / ".zarray").write_text(
        "{"
    )
    with pytest.raises(RecordingError, match="damaged"):
        dm.open_recordings(tmp_path / "x.nwb.zarr")


def test_labels_of_single_images_are_numbered(tmp_path: Path) -> None:
    """DeepLabCut's training data have paths where its results have frames."""
    (tmp_path / "labels.csv").write_text(
        "scorer,LM,LM\nbodyparts,A,A\ncoords,x,y\n"
        "labeled-data/v/img000.png,0,1.5\nlabeled-data/v/img003.png,2,\n"
    )
    recording = dm.open_recordings(tmp_path / "labels.csv")["points"]
    assert recording.t.tolist() == [0, 1]
    np.testing.assert_array_equal(recording.read().array, [[0, 1.5], [2, np.nan]])


def test_a_packed_xdf_file(tmp_path: Path) -> None:
    """``.xdfz`` gives what ``.xdf`` gives."""
    import gzip

    pytest.importorskip("pyxdf")
    values = np.arange(600, dtype="f4").reshape(200, 3)
    TestXdf().write(tmp_path / "a.xdf", ["x", "y", "z"], values)
    plain = dm.open_recordings(tmp_path / "a.xdf")["probe"]
    (tmp_path / "b.xdfz").write_bytes(gzip.compress((tmp_path / "a.xdf").read_bytes()))
    packed = dm.open_recordings(tmp_path / "b.xdfz")["probe"]
    np.testing.assert_array_equal(packed.read().array, plain.read().array)
    np.testing.assert_array_equal(packed.t, plain.t)


def test_a_stream_of_xdf_may_have_no_type(tmp_path: Path) -> None:
    """Other programs than LSL leave it out; pyxdf reads it."""
    import struct

    pytest.importorskip("pyxdf")

    def chunk(tag: int, content: bytes) -> bytes:
        content = struct.pack("<H", tag) + content
        return b"\x04" + struct.pack("<I", len(content)) + content

    head = b'<?xml version="1.0"?><info>'
    stream = (
        b"<name>s</name><channel_count>1</channel_count><nominal_srate>10"
        b"</nominal_srate><channel_format>int16</channel_format></info>"
    )
    one = struct.pack("<I", 1)
    (tmp_path / "a.xdf").write_bytes(
        b"XDF:"
        + chunk(1, head + b"<version>1.0</version></info>")
        + chunk(2, one + head + stream)
        + chunk(3, one + b"\x01\x01\x08" + struct.pack("<dh", 1.0, 7))
    )
    found = dm.open_recordings(tmp_path / "a.xdf")["s"].read()
    assert (found.t.tolist(), found.values["ch0"].tolist()) == ([1.0], [7])
