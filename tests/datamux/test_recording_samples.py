"""Files of other programs, against their reference readers.

Those that packages ship, those that other writers make where these are installed, and
public sample files in the folder that ``ATARAXIS_SAMPLES`` names, which are not part of
the library: recordings of Axon, BrainVision, Neuromag, Intan, Open Ephys, Harp,
DeepLabCut, SLEAP, pyControl, EDF, BDF and a video.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import public_files
import pytest

import ataraxis.datamux as dm

HOMES = {
    "mne-tools/mne-python mne/io/edf/tests/data": [
        "test.edf", "test.bdf", "test_uneven_samp.edf", "duplicate_channel_labels.edf",
        "test_edf_stim_channel.edf",
    ],
    "mne-tools/mne-python mne/io/brainvision/tests/data": [
        "test.vhdr", "test_bin_raw.fif",
    ],
    "swharden/pyABF data/abfs": [
        "14o16001_vc_pair_step.abf", "171116sh_0011.abf", "File_axon_5.abf",
        "pclamp11_4ch.abf",
    ],
    "rudstre/ephys2 ephys2/tests/data": ["sampledata.rhd"],
    "harp-tech/harp-python tests/data": [
        "device_0.bin", "device_44.bin", "write_0.bin",
    ],
    "talmolab/sleap tests/data/dlc": ["dlc_testdata.csv", "madlc_testdata.csv"],
}  # fmt: skip
"""Repositories and folders of public files."""


def shipped(package: str, inside: str) -> Path:
    """A file of an installed package, or skip."""
    pytest.importorskip(package)
    spec = importlib.util.find_spec(package)
    path = Path(spec.origin or "").parent / inside if spec else Path("/none")
    if not path.exists():
        pytest.skip(f"{package} does not ship {inside}")
    return path


def sample(name: str) -> Path:
    """A public sample file, also beside the repositories' folders, or skip."""
    path = public_files.SAMPLES / name
    if path.is_file() and path.stat().st_size:
        return path
    for home, names in HOMES.items():
        if name in names:
            repository, _, folder = home.partition(" ")
            return public_files.sample(repository, f"{folder}/{name}")
    pytest.skip(f"{name} in the folder that ATARAXIS_SAMPLES names")


def opened(path: Path) -> Mapping[str, dm.Recording]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dm.open_recordings(path)


# ---- what packages ship


@pytest.mark.parametrize(
    "name",
    ["testdouble_4.2c_SOL2", "testdouble_6.1_SOL2", "testdouble_6.5.1_GLNX86",
     "testdouble_7.1_GLNX86", "testdouble_7.4_GLNX86", "testmatrix_7.4_GLNX86",
     "testmulti_7.4_GLNX86", "test3dmatrix_7.4_GLNX86",
     "testbool_8_WIN64", "teststruct_7.4_GLNX86", "little_endian", "big_endian"],
)  # fmt: skip
def test_files_that_matlab_wrote(name: str) -> None:
    """Versions 4 to 8, which SciPy ships."""
    io = pytest.importorskip("scipy.io")
    path = shipped("scipy.io", f"matlab/tests/data/{name}.mat")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = io.loadmat(path)
    arrays = {
        k: v
        for k, v in expected.items()
        if not k.startswith("__") and v.dtype.kind in "fiub" and v.size > 1
    }
    if name.startswith("teststruct"):
        arrays = {"teststruct/doublefield": expected["teststruct"][0, 0]["doublefield"]}
    assert arrays
    found = opened(path)
    for own, array in arrays.items():
        block = found[own].read()
        whole = array.ravel() if 1 in array.shape and array.ndim == 2 else array
        columns = [np.asarray(column) for column in block.values.values()]
        if whole.ndim == 2:
            np.testing.assert_array_equal(np.stack(columns, 1), whole)
        else:
            np.testing.assert_array_equal(columns[0], whole)


@pytest.mark.parametrize(
    "name",
    ["test-44100Hz-2ch-32bit-float-le.wav", "test-44100Hz-le-1ch-4bytes.wav",
     "test-8000Hz-le-2ch-1byteu.wav", "test-8000Hz-le-3ch-5S-24bit.wav",
     "test-48000Hz-2ch-64bit-float-le-wavex.wav",
     "test-44100Hz-le-1ch-4bytes-rf64.wav"],
)  # fmt: skip
def test_sound_that_other_programs_wrote(name: str) -> None:
    """Of SciPy: against soundfile's values as they are stored."""
    soundfile = pytest.importorskip("soundfile")
    path = shipped("scipy.io", f"tests/data/{name}")
    recording = opened(path)["sound"]
    dtype = recording.read(0, 1).array.dtype.name
    values, rate = soundfile.read(path, dtype=dtype, always_2d=True)
    np.testing.assert_array_equal(recording.read().array, values)
    np.testing.assert_allclose(recording.t, np.arange(len(values)) / rate, 0, 1e-9)


def test_netcdf_that_another_program_wrote() -> None:
    xr = pytest.importorskip("xarray")
    path = shipped("scipy.io", "tests/data/example_1.nc")
    with xr.open_dataset(path, engine="scipy", decode_times=False) as expected:
        arrays = {n: v.values for n, v in expected.data_vars.items() if v.ndim}
    found = opened(path)
    blocks = [recording.read() for recording in found.values()]
    columns = {name: block.values[name] for block in blocks for name in block.values}
    assert arrays
    for name, values in arrays.items():
        np.testing.assert_array_equal(columns[name], values)


def test_parquet_that_other_versions_wrote(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = shipped("pyarrow", "tests/data/parquet/v0.7.1.parquet")
    expected = parquet.read_table(path).to_pydict()
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "a.parquet").write_bytes(path.read_bytes())
    (tmp_path / "c.collection.yaml").write_text(
        "name: c\npattern: parquet://{session}\nstreams:\n  s:\n    name: s\n"
        "    frequency: 1\n    fields:\n      carat: {dtype: f64}\n"
        "      price: {dtype: i64}\n      cut: {dtype: str}\n"
    )
    api = dm.API(data_dir=tmp_path, meta_dir=tmp_path)
    block = api.recording("c", "s", {"session": "a"}).read()
    for name in ("carat", "price", "cut"):
        assert block.values[name].tolist() == expected[name]


# ---- what other writers make


def test_edf_that_edflib_writes(tmp_path: Path) -> None:
    """Two rates and annotations of EDFlib, read by edfio."""
    pyedflib = pytest.importorskip("pyedflib", reason="pyedflib, a writer of EDF")
    edfio = pytest.importorskip("edfio")
    path = tmp_path / "a.edf"
    source = np.random.default_rng(0)
    with pyedflib.EdfWriter(str(path), 2, pyedflib.FILETYPE_EDFPLUS) as file:
        heads = [
            {"label": label, "dimension": "uV", "sample_frequency": rate,
             "physical_max": 100, "physical_min": -100, "digital_max": 32767,
             "digital_min": -32768, "transducer": "", "prefilter": ""}
            for label, rate in (("EEG", 200), ("EOG", 100))
        ]  # fmt: skip
        file.setSignalHeaders(heads)
        file.writeSamples([source.normal(size=2000), source.normal(size=1000)])
        file.writeAnnotation(1.5, -1, "blink")
    compare_edf(path, edfio.read_edf(path))
    notes = opened(path)["annotations"].read()
    assert (notes.t.tolist(), notes.values["text"].tolist()) == ([1.5], ["blink"])


def compare_edf(path: Path, reference: Any) -> None:
    found = opened(path)
    blocks = [found[name].read() for name in found if name.startswith("signals")]
    for signal in reference.signals:
        same = [
            name
            for block in blocks
            for name in block.values
            if name.partition("#")[0] == signal.label
            and len(block.values[name]) == len(signal.data)
            and np.array_equal(block.values[name], signal.data)
        ]
        assert same, signal.label


def test_matlab_7_3_that_hdf5storage_writes(tmp_path: Path) -> None:
    hdf5storage = pytest.importorskip("hdf5storage", reason="a writer of MATLAB 7.3")
    values = np.random.default_rng(0).normal(size=(60, 2))
    made = {"x": values, "t": np.arange(60.0)[:, None] / 10}
    hdf5storage.savemat(str(tmp_path / "a.mat"), made, format="7.3")
    block = opened(tmp_path / "a.mat")["a"].read()
    np.testing.assert_array_equal(block.array, values)
    np.testing.assert_array_equal(block.t, np.arange(60.0) / 10)


def test_tracks_that_sleap_io_writes(tmp_path: Path) -> None:
    sleap = pytest.importorskip(
        "sleap_io", reason="sleap-io, a writer of SLEAP's files"
    )
    for module in ("skeleton", "video", "labels"):
        pytest.importorskip(f"sleap_io.model.{module}", reason="what sleap-io needs")
    h5py = pytest.importorskip("h5py")
    skeleton = sleap.Skeleton(["nose", "tail"])
    video = sleap.Video(filename="a.mp4", open_backend=False)
    track = sleap.Track("mouse")
    frames = [
        sleap.LabeledFrame(
            video=video, frame_idx=i,
            instances=[
                sleap.PredictedInstance.from_numpy(
                    np.array([[i, 2 * i], [i + 0.5, i]], float), skeleton=skeleton,
                    point_scores=np.ones(2), score=1.0, track=track,
                )
            ],
        )
        for i in range(12)
    ]  # fmt: skip
    labels = sleap.Labels(frames, tracks=[track])
    path = tmp_path / "a.analysis.h5"
    sleap.save_analysis_h5(labels, str(path))
    compare_sleap(path, h5py)


def compare_sleap(path: Path, h5py: Any) -> None:
    with h5py.File(path) as file:
        tracks = file["tracks"][:]
        nodes = [name.decode() for name in file["node_names"][:]]
    for number, recording in enumerate(opened(path).values()):
        block = recording.read()
        for place, node in enumerate(nodes):
            for axis, letter in enumerate("xy"):
                np.testing.assert_array_equal(
                    block.values[f"{node}.{letter}"], tracks[number, axis, place]
                )
        assert block.t.tolist() == [*range(tracks.shape[-1])]


# ---- public sample files


@pytest.mark.parametrize(
    "name",
    ["14o16001_vc_pair_step.abf", "171116sh_0011.abf", "File_axon_5.abf",
     "pclamp11_4ch.abf", "sampledata.rhd"],
)  # fmt: skip
def test_public_files_of_neo(name: str) -> None:
    rawio = pytest.importorskip("neo.rawio")
    path = sample(name)
    kind = rawio.AxonRawIO if path.suffix == ".abf" else rawio.IntanRawIO
    raw = kind(str(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw.parse_header()
    found = opened(path)
    segments = [
        (b, s) for b in range(raw.block_count()) for s in range(raw.segment_count(b))
    ]
    for place, (block, segment) in enumerate(segments):
        for number, name in enumerate(raw.header["signal_streams"]["name"]):
            own = found[f"{name}:{place}" if place else str(name)]
            values = raw.get_analogsignal_chunk(block, segment, None, None, number)
            np.testing.assert_array_equal(own.read().array, values)
            assert own.first_s == raw.get_signal_t_start(block, segment, number)


@pytest.mark.parametrize(
    "name",
    ["test.edf", "test.bdf", "test_uneven_samp.edf", "duplicate_channel_labels.edf",
     "test_edf_stim_channel.edf"],
)  # fmt: skip
def test_public_files_of_edf(name: str) -> None:
    edfio = pytest.importorskip("edfio")
    path = sample(name)
    read = edfio.read_bdf if path.suffix == ".bdf" else edfio.read_edf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compare_edf(path, read(path))


@pytest.mark.parametrize("name", ["test.vhdr", "test_bin_raw.fif"])
def test_public_files_of_mne(name: str) -> None:
    mne = pytest.importorskip("mne")
    path = sample(name)
    reader = "brainvision" if path.suffix == ".vhdr" else "fif"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw = getattr(mne.io, f"read_raw_{reader}")(path, verbose="error")
    found = opened(path)["signals"]
    np.testing.assert_array_equal(found.read().array, raw.get_data().T)
    np.testing.assert_allclose(found.t, raw.times, 0, 1e-9)


@pytest.mark.parametrize("name", ["device_0.bin", "device_44.bin", "write_0.bin"])
def test_public_files_of_harp(name: str) -> None:
    harp = pytest.importorskip("harp")
    table = harp.read(sample(name))
    block = opened(sample(name))["register"].read()
    np.testing.assert_array_equal(block.t, table.index.to_numpy())
    for column in table.columns:
        np.testing.assert_array_equal(block.values[f"value{column}"], table[column])


@pytest.mark.parametrize(
    ("name", "rows"), [("dlc_testdata.csv", 3), ("madlc_testdata.csv", 4)]
)
def test_public_files_of_deeplabcut(name: str, rows: int) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(sample(name), header=[*range(rows)], index_col=0)
    block = opened(sample(name))["points"].read()
    np.testing.assert_array_equal(block.array, table.to_numpy("f8"))


def test_a_public_file_of_sleap() -> None:
    h5py = pytest.importorskip("h5py")
    compare_sleap(sample("predictions.analysis.h5"), h5py)


def test_a_public_file_of_pycontrol() -> None:
    path = sample("gc_input_test.txt")
    rows = [line.split(" ", 2) for line in path.read_text().splitlines()]
    rows = [row for row in rows if row[0] in ("D", "P") and row[1].isdigit()]
    block = opened(path)["events"].read()
    assert block.t.tolist() == sorted(int(row[1]) / 1000 for row in rows)


@pytest.mark.slow
def test_a_public_video() -> None:
    av = pytest.importorskip("av")
    path = sample("v.mp4")
    recording = opened(path)["frames"]
    count = 0
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if count % 250 == 0:
                image = recording.read(count, count + 1).values["image"][0]
                np.testing.assert_array_equal(image, frame.to_ndarray(format="rgb24"))
                assert (
                    abs(recording.t[count] - float(frame.pts * frame.time_base)) < 1e-9
                )
            count += 1
    assert len(recording) == count
