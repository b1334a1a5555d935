"""Recordings that makers' own programs wrote, for formats of neo, MNE and ScanImage.

Compared value by value and stamp by stamp: with the reference reader, and where there
is one with a second reader that does not use it. Files come from packages that ship
them or write them, and from public repositories, each in the folder of its name in
the folder that ``ATARAXIS_SAMPLES`` names. A test whose file is not there says by
which command it is had.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import struct
import subprocess
import warnings
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from public_files import sample

import ataraxis.datamux as dm
from ataraxis.errors import RecordingError

MNE_DATA = "mne-tools/mne-testing-data"
GIN = "https://gin.g-node.org/NeuralEnsemble/ephy_testing_data"
OPHYS = "https://gin.g-node.org/CatalystNeuro/ophys_testing_data"


def shipped(package: str, inside: str, install: str) -> Path:
    """A file or folder that an installed package ships, or skip; not imported."""
    spec = importlib.util.find_spec(package)
    path = Path(spec.origin or "").parent / inside if spec else Path("/none")
    if not path.exists():
        pytest.skip(f"{install}, which ships {inside}")
    return path


def opened(path: Path) -> dict[str, dm.Recording]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dict(dm.open_recordings(path))


# ---- neo


def read_by_neo(reader: str, path: Path, **options: Any) -> Any:
    rawio = pytest.importorskip("neo.rawio")
    kind = getattr(rawio, reader)
    if kind.rawmode == "one-dir" and path.is_file() and reader != "TdtRawIO":
        path = path.parent
    key = "filename" if "file" in kind.rawmode else "dirname"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw = kind(**{key: str(path)}, **options)
        raw.parse_header()
    weakref.finalize(raw, close_files, vars(raw))
    return raw


def close_files(kept: dict[str, Any]) -> None:
    """Close what neo leaves open."""
    for file in kept.get("_nsx_fids", {}).values():
        file.close()


def own_signal(
    found: Mapping[str, dm.Recording], number: int, block: int, segment: int
) -> dm.Recording:
    return own_stream(found, number, block, segment, has_rate=True)


def own_stream(
    found: Mapping[str, dm.Recording],
    number: int,
    block: int,
    segment: int,
    *,
    has_rate: bool,
) -> dm.Recording:
    """The stream of samples, or of events, that neo has under these numbers."""
    wanted = {"neo": number, "block_index": block, "seg_index": segment}
    return next(
        own
        for own in found.values()
        if bool(own.stream.rate_hz) == has_rate
        and wanted.items() <= own.stream.attrs.items()
    )


def compare_neo(found: Mapping[str, dm.Recording], raw: Any, without: str = "") -> int:
    """Compare every block and segment; return how many samples were compared."""
    header, samples, streams = raw.header, 0, 0
    channels = header["signal_channels"]
    places = [
        (b, s) for b in range(raw.block_count()) for s in range(raw.segment_count(b))
    ]
    for place, (block, segment) in enumerate(places):
        end = f":{place}" if place else ""
        for number, head in enumerate(header["signal_streams"]):
            if head["name"] == without:
                continue
            own = own_signal(found, number, block, segment)
            compare_signal(own, raw, number, block, segment)
            mine = channels[channels["stream_id"] == head["id"]]
            for field, name in zip(own.stream.fields, mine["name"], strict=True):
                assert name in ("", field, field.partition("#")[0])
            samples += len(own) * len(mine)
            streams += 1
        for number, name in enumerate(header["event_channels"]["name"]):
            own = own_stream(found, number, block, segment, has_rate=False)
            assert own.stream.id.partition("#")[0].removesuffix(end) == name
            at, durations, labels = raw.get_event_timestamps(block, segment, number)
            t = raw.rescale_event_timestamp(at, "float64", number)
            order = np.argsort(t, kind="stable")
            read = own.read()
            np.testing.assert_array_equal(read.t, np.asarray(t)[order])
            texts = np.asarray(labels).astype("U")[order]
            assert read.values["label"].tolist() == texts.tolist()
            if durations is not None and len(durations):
                long = raw.rescale_epoch_duration(durations, "float64", number)
                np.testing.assert_array_equal(
                    read.values["duration"], np.asarray(long)[order]
                )
            streams += 1
        if len(header["spike_channels"]):
            read = found[f"spikes{end}"].read()
            streams += 1
            whole = [
                raw.rescale_spike_timestamp(
                    raw.get_spike_timestamps(block, segment, unit), "float64"
                )
                for unit in range(len(header["spike_channels"]))
            ]
            np.testing.assert_array_equal(read.t, np.sort(np.concatenate(whole)))
            units = read.values["unit"]
            for unit, own_t in enumerate(whole):
                name = str(header["spike_channels"]["name"][unit])
                if (header["spike_channels"]["name"] == name).sum() == 1:
                    np.testing.assert_array_equal(read.t[units == name], np.sort(own_t))
    assert len(found) == streams
    return samples


def own_names(stream: dm.Stream) -> list[str]:
    """The names of fields, without the numbers of those that are equal."""
    return [name.partition("#")[0] for name in stream.fields]


def compare_signal(
    own: dm.Recording, raw: Any, number: int, block: int, segment: int
) -> None:
    """Stored and scaled values, units, and times from the first one at one rate."""
    values = np.asarray(raw.get_analogsignal_chunk(block, segment, None, None, number))
    read = own.read()
    if type(raw).__name__ == "Spike2RawIO":  # zeros behind a shorter channel
        values = values[: len(own)]
    np.testing.assert_array_equal(np.stack([*read.values.values()], 1), values)
    stream_id = raw.header["signal_streams"][number]["id"]
    channels = raw.header["signal_channels"]
    units = [str(u) for u in channels["units"][channels["stream_id"] == stream_id]]
    attrs = own.stream.attrs
    if "gain" in attrs:
        assert attrs["scaled_unit"] == units
        scaled = raw.rescale_signal_raw_to_float(values, "float64", number)
        ours = values * np.array(attrs["gain"]) + np.array(attrs["offset"])
        np.testing.assert_allclose(ours, scaled, rtol=1e-6)
    else:
        assert [field.unit for field in own.stream.fields.values()] == units
    first = raw.get_signal_t_start(block, segment, number)
    t = first + np.arange(len(values)) / raw.get_signal_sampling_rate(number)
    np.testing.assert_allclose(read.t, t, rtol=1e-12, atol=1e-12)


# ---- SpikeGLX and Open Ephys: of Neuropixels probes, which spikewrap ships

TINY = "examples/example_tiny_data"
SPIKEWRAP = "pip install --no-deps spikewrap"


@pytest.mark.parametrize("run", ["run-001_g0", "run-002_g0"])
def test_spikeglx(run: str) -> None:
    """Against neo, and the file mapped as its `.meta` says."""
    inside = f"{TINY}/spikeglx/rawdata/sub-001/ses-001/ephys/{run}_imec0"
    folder = shipped("spikewrap", inside, SPIKEWRAP)
    found = opened(folder)
    assert compare_neo(found, read_by_neo("SpikeGLXRawIO", folder)) > 5e6
    (path,) = folder.glob("*.ap.bin")
    meta = dict(
        line.partition("=")[::2]
        for line in path.with_suffix(".meta").read_text().splitlines()
    )
    mapped = np.memmap(path, "<i2", "r").reshape(-1, int(meta["nSavedChans"]))
    own = found["imec0.ap"]
    np.testing.assert_array_equal(own.read().array, mapped[:, :384])
    np.testing.assert_array_equal(found["imec0.ap-SYNC"].read().array, mapped[:, 384:])
    rate = float(meta["imSampRate"])
    t = (int(meta["firstSample"]) + np.arange(len(mapped))) / rate
    np.testing.assert_allclose(own.t, t, rtol=1e-12)


def test_open_ephys_binary() -> None:
    """Against neo, and the program's own arrays of values and sample numbers."""
    inside = f"{TINY}/openephys/rawdata/sub-001/ses-001/ephys/Record Node 104"
    folder = shipped("spikewrap", inside, SPIKEWRAP)
    found = opened(folder)
    assert compare_neo(found, read_by_neo("OpenEphysBinaryRawIO", folder)) > 7e5
    for segment, run in enumerate(("recording1", "recording2")):
        own = own_signal(found, 0, 0, segment)
        (part,) = folder.glob(f"*/{run}/continuous/*")
        mapped = np.memmap(part / "continuous.dat", "<i2", "r").reshape(len(own), -1)
        np.testing.assert_array_equal(own.read().array, mapped[:, :384])
        numbers = np.load(part / "sample_numbers.npy")
        np.testing.assert_allclose(own.t, numbers / 30_000, rtol=1e-12)


def test_samples_that_open_ephys_lost_leave_a_pause(tmp_path: Path) -> None:
    """Numbers of samples with a gap, in a copy of the program's files."""
    inside = f"{TINY}/openephys/rawdata/sub-001/ses-001/ephys/Record Node 104"
    folder = tmp_path / "Record Node 104"
    shutil.copytree(shipped("spikewrap", inside, SPIKEWRAP), folder)
    (path,) = folder.glob("*/recording1/continuous/*/sample_numbers.npy")
    numbers = np.load(path)
    numbers[600:] += 300
    np.save(path, numbers)
    own = own_signal(opened(folder), 0, 0, 0)
    np.testing.assert_allclose(own.t, numbers / 30_000, rtol=1e-12)
    assert own.locate(own.t[600] - own.t[0] - 0.001) == 600


def test_open_ephys_old() -> None:
    """16 channels of 0.6.7, a file each."""
    folder = sample(
        "open-ephys/open-ephys-python-tools",
        "tests/data/v0.6.7_OpenEphys/Record Node 101",
    )
    found = opened(folder)
    assert compare_neo(found, read_by_neo("OpenEphysRawIO", folder)) > 2e6
    record = np.dtype(
        [("t", "<i8"), ("n", "<u2"), ("recording", "<u2"), ("v", ">i2", 1024),
         ("mark", "u1", 10)]
    )  # fmt: skip
    (own,) = found.values()
    for path in folder.glob("*.continuous"):
        records = np.fromfile(path, record, offset=1024)
        name = path.stem.rpartition("_")[2]
        np.testing.assert_array_equal(own.read().values[name], records["v"].ravel())
        np.testing.assert_allclose(
            own.t[::1024], records["t"] / own.stream.rate_hz, rtol=1e-12
        )


# ---- Axon, WinWCP and AxoGraph

MYOKIT = "pip install --no-deps myokit"


@pytest.mark.parametrize("name", ["abf-v1.abf", "abf-v2.abf"])
def test_axon(name: str) -> None:
    path = shipped("myokit", f"tests/data/formats/{name}", MYOKIT)
    assert compare_neo(opened(path), read_by_neo("AxonRawIO", path)) > 10_000


def test_winwcp() -> None:
    """11 records of two channels, against neo and myokit."""
    path = shipped("myokit", "tests/data/formats/wcp-file.wcp", MYOKIT)
    found = opened(path)
    assert compare_neo(found, read_by_neo("WinWcpRawIO", path)) == 11 * 256 * 2
    wcp = pytest.importorskip("myokit.formats.wcp", reason="what myokit needs")
    records = wcp.WcpFile(path)
    for channel in range(records.channel_count()):
        times, columns = records.channel(channel)
        for place, (t, values) in enumerate(zip(times, columns, strict=True)):
            own = own_signal(found, 0, 0, place)
            gain = own.stream.attrs["gain"][channel]
            stored = own.read().array[:, channel]
            np.testing.assert_allclose(stored * gain, values, rtol=1e-6)
            np.testing.assert_allclose(own.t, t - t[0], rtol=1e-6, atol=1e-9)
            assert [*own.stream.fields] == records.channel_names()


def axographio() -> Any:
    """AxoGraph's own functions."""
    return pytest.importorskip(
        "axographio",
        reason="pip install setuptools wheel 'Cython<4' && pip install --no-deps "
        "--no-build-isolation axographio: a writer of AxoGraph",
    )


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [("axograph_x_format", "axgx"), ("old_digitized_format", "axgd")],
)
def test_axograph_that_its_own_functions_write(
    tmp_path: Path, kind: str, suffix: str
) -> None:
    module = axographio()
    path = tmp_path / f"a.{suffix}"
    source = np.random.default_rng(0)
    columns: list[Any] = [module.aslinearsequence(np.arange(500) / 1000)]
    for _ in range(2):
        values = source.normal(size=500) / 100
        if kind == "old_digitized_format":
            values = module.asscaledarray(values)
        columns.append(values)
    names = ["Time (s)", "left (V)", "right (V)"]
    module.file_contents(names, columns, getattr(module, kind)).write(str(path))
    found = opened(path)
    compare_neo(found, read_by_neo("AxographRawIO", path))
    compare_axograph(found, module.read(str(path)))


@pytest.mark.parametrize("name", ["AxoGraph X File.axgx", "AxoGraph Digitized File"])
def test_axograph(tmp_path: Path, name: str) -> None:
    """What the program itself wrote, which axographio ships."""
    module = axographio()
    inside = f"include/axograph_readwrite/{name}"
    path = tmp_path / f"a{Path(name).suffix or '.axgd'}"
    path.write_bytes(
        shipped("axographio", inside, "pip install axographio").read_bytes()
    )
    found = opened(path)
    compare_neo(found, read_by_neo("AxographRawIO", path))
    compare_axograph(found, module.read(str(path)))


def compare_axograph(found: Mapping[str, dm.Recording], reference: Any) -> None:
    """Columns in volts, as AxoGraph's functions read them, whatever the unit shown."""
    _, *columns = [np.asarray(column, "f8") for column in reference.data]
    streams = [own for own in found.values() if own.stream.rate_hz]
    ours, units = [], []
    for own in streams:
        stored = np.asarray(own.read().array, "f8")
        attrs = own.stream.attrs
        count = stored.shape[1]
        stored = stored * attrs.get("gain", [1] * count) + np.array(
            attrs.get("offset", [0] * count)
        )
        ours += [*stored.T]
        units += attrs.get("scaled_unit") or [
            f.unit for f in own.stream.fields.values()
        ]
        step = np.asarray(reference.data[0], "f8")[:2]
        np.testing.assert_allclose(np.diff(own.t[:2]), np.diff(step), rtol=1e-5)
    texts = [str(name) for name in reference.names[1:]]
    assert len(ours) == len(columns)
    for mine, column, unit, text in zip(ours, columns, units, texts, strict=True):
        assert unit in text
        np.testing.assert_allclose(mine, column, rtol=1e-6, atol=1e-12)


# ---- NeuroExplorer, by its maker's writer


@pytest.mark.parametrize("name", ["File_neuroexplorer_1", "File_neuroexplorer_2"])
def test_neuroexplorer(name: str) -> None:
    """Of the program itself: neo's values, and the times of the file's pieces."""
    path = sample(GIN, f"neuroexplorer/{name}.nex")
    raw, found = read_by_neo("NeuroExplorerRawIO", path), opened(path)
    data = path.read_bytes()
    (clock,) = struct.unpack_from("<d", data, 264)
    (variables,) = struct.unpack_from("<i", data, 280)
    pieces = {}
    for head in range(544, 544 + 208 * variables, 208):
        kind, _, text, place, count = struct.unpack_from("<ii64sii", data, head)
        if kind == 5:
            words = np.frombuffer(data, "<i4", 2 * count, place).reshape(2, count)
            pieces[text.partition(b"\0")[0].decode()] = words
    samples = pauses = 0
    for number in range(len(raw.header["signal_streams"])):
        own = own_signal(found, number, 0, 0)
        values = np.asarray(raw.get_analogsignal_chunk(0, 0, None, None, number))
        np.testing.assert_array_equal(own.read().array, values)
        begun, starts = pieces[next(iter(own.stream.fields))]
        step = 1 / own.stream.rate_hz
        np.testing.assert_allclose(own.t[starts], begun / clock, atol=step / 2)
        pauses += int((np.diff(own.t) > 2 * step).sum())
        samples += len(own)
    assert samples > 600_000
    assert pauses > 0
    compare_neo({n: r for n, r in found.items() if not r.stream.rate_hz}, _Quiet(raw))


def test_neuroexplorer_that_its_makers_package_writes(tmp_path: Path) -> None:
    """Two rates, a pause, events, intervals, markers, neurons and waveforms."""
    nex = pytest.importorskip(
        "nex.nexfile", reason="pip install --no-deps nex: NeuroExplorer's own writer"
    )
    source = np.random.default_rng(0)
    writer = nex.NexWriter(100_000, useNumpy=True)
    slow = source.normal(size=400)
    parts = [source.normal(size=300), source.normal(size=200), source.normal(size=100)]
    writer.AddContVarWithSingleFragment("FP01", 0.25, 1000, slow)
    writer.AddContVarWithMultipleFragments(
        "FP02", np.array([0.1, 0.4, 2.5]), 1000, parts
    )
    writer.AddEvent("door", np.array([0.5, 1.25]))
    writer.AddIntervalVariable("trial", np.array([0.2, 1.0]), np.array([0.7, 1.5]))
    writer.AddMarker("code", np.array([0.3, 0.9]), ["n"], [["1", "2"]])
    writer.AddNeuron("sig001a", np.array([0.11, 0.32, 2.0]))
    writer.AddWave(
        "sig001a_wf", np.array([0.1, 0.4]), 40_000, source.normal(size=(2, 32))
    )
    path = tmp_path / "a.nex"
    writer.WriteNexFile(str(path))
    found = opened(path)
    raw = read_by_neo("NeuroExplorerRawIO", path)
    read = nex.Reader(useNumpy=True).ReadNexFile(str(path))
    by_name = {var["Header"]["Name"]: var for var in read["Variables"]}
    for number, name in enumerate(("FP01", "FP02")):
        own = own_signal(found, number, 0, 0)
        assert [*own.stream.fields] == [name]
        values = np.asarray(raw.get_analogsignal_chunk(0, 0, None, None, number))
        np.testing.assert_array_equal(own.read().array, values)
        scaled = values[:, 0] * own.stream.attrs["gain"][0]
        np.testing.assert_allclose(
            scaled, by_name[name]["ContinuousValues"], rtol=1e-6, atol=1e-9
        )
        keys = ("FragmentTimestamps", "FragmentCounts")
        begun, counts = (by_name[name][key] for key in keys)
        t = [at + np.arange(n) / 1000 for at, n in zip(begun, counts, strict=True)]
        np.testing.assert_allclose(own.t, np.concatenate(t), rtol=1e-12)
    assert found["door"].t.tolist() == [0.5, 1.25]
    trial = found["trial"].read()
    assert trial.t.tolist() == [0.2, 1.0]
    np.testing.assert_allclose(trial.values["duration"], [0.5, 0.5])
    code = found["code"].read()
    assert code.t.tolist() == [0.3, 0.9]
    assert code.values["label"].tolist() == ["1", "2"]
    spikes = found["spikes"].read()
    assert spikes.t.tolist() == [0.1, 0.11, 0.32, 0.4, 2.0]
    assert spikes.t[spikes.values["unit"] == "sig001a"].tolist() == [0.11, 0.32, 2.0]


# ---- Intan


@pytest.mark.parametrize("name", ["sampledata.rhd", "r4_210612_195804_part.rhd"])
def test_intan(name: str) -> None:
    path = sample("rudstre/ephys2", f"ephys2/tests/data/{name}")
    assert compare_neo(opened(path), read_by_neo("IntanRawIO", path)) > 5e5


def test_intan_in_a_file_per_signal() -> None:
    """Auxiliary inputs are stored at the amplifiers' rate, each value four times."""
    path = sample("rudstre/ephys2", "ephys2/tests/data/sample_ofps/info.rhd")
    found = opened(path)
    raw = read_by_neo("IntanRawIO", path)
    stamps = np.fromfile(path.with_name("time.dat"), "<i4")
    names = ("amplifier", "auxiliary", "digitalin")
    for number, name in enumerate(names):
        own = own_signal(found, number, 0, 0)
        values = np.asarray(raw.get_analogsignal_chunk(0, 0, None, None, number))
        np.testing.assert_array_equal(own.read().array, values)
        np.testing.assert_allclose(own.t, stamps / 30_000, rtol=1e-12)
        if name != "digitalin":  # its bits are channels
            stored = np.fromfile(path.with_name(f"{name}.dat"), values.dtype)
            np.testing.assert_array_equal(
                own.read().array, stored.reshape(values.shape)
            )


def test_pauses_of_intan_are_in_the_times(tmp_path: Path) -> None:
    """Stamps with a gap, in a copy of a public recording; neo refuses them."""
    folder = sample("rudstre/ephys2", "ephys2/tests/data/sample_ofps")
    shutil.copytree(folder, tmp_path / "a")
    stamps = np.fromfile(folder / "time.dat", "<i4")
    stamps[4000:] += 30_000
    stamps.tofile(tmp_path / "a" / "time.dat")
    for number in range(2):
        own = own_signal(opened(tmp_path / "a" / "info.rhd"), number, 0, 0)
        np.testing.assert_allclose(own.t, stamps / 30_000, rtol=1e-12)
    stamps[7000:] -= 60_000
    stamps.tofile(tmp_path / "a" / "time.dat")
    with pytest.raises(RecordingError, match="time stamps go back after sample 6999"):
        opened(tmp_path / "a" / "info.rhd")["RHD2000 amplifier channel"].read()


def test_intan_stimulator() -> None:
    path = sample("Intan-Technologies/load-rhs-notebook-python", "sampledata.rhs")
    assert compare_neo(opened(path), read_by_neo("IntanRawIO", path)) > 1e5


def test_intan_stimulator_by_the_reader_of_its_maker(tmp_path: Path) -> None:
    """Of a file of our own in Intan's layout: values, steps of the current, times."""
    import neo_files

    path = sample(
        "Intan-Technologies/load-rhs-notebook-python", "importrhsutilities.py"
    )
    spec = importlib.util.spec_from_file_location("importrhsutilities", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    source = np.random.default_rng(0)
    values = source.integers(-9000, 9000, (1280, 3)).astype("i2")
    words = source.integers(0, 1 << 16, values.shape) & 0b1110_0001_1111_1111
    neo_files.write_rhs(tmp_path / "a.rhs", values, words.astype("u2"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves the file open
        read, _ = module.load_file(str(tmp_path / "a.rhs"))
    found = opened(tmp_path / "a.rhs")
    own = found["RHS2000 amplifier channel"]
    attrs = own.stream.attrs
    ours = own.read().array * np.array(attrs["gain"]) + np.array(attrs["offset"])
    np.testing.assert_allclose(ours.T, read["amplifier_data"], atol=1e-9)
    assert attrs["scaled_unit"] == ["uV"] * 3
    np.testing.assert_array_equal(own.t, read["t"])
    current = found["Stim channel"]
    ampere = current.read().array * np.array(current.stream.attrs["gain"])
    np.testing.assert_allclose(ampere.T * 1e6, read["stim_data"], rtol=1e-6)
    assert current.stream.attrs["scaled_unit"] == ["A"] * 3


# ---- Neuralynx

LYNX = np.dtype(
    [("t", "<u8"), ("channel", "<u4"), ("hz", "<u4"), ("n", "<u4"), ("v", "<i2", 512)]
)


@pytest.mark.parametrize(
    "names",
    [("LAHC1", "LAHC2", "LAHC3", "xAIR1", "xEKG1"), ("LAHCu1",),
     ("LAHC1_3_gaps", "LAHC2_3_gaps")],
    ids=["macro", "micro", "gaps"],
)  # fmt: skip
def test_neuralynx(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Of Cheetah; each record's stamp within the clock's microsecond of ours."""
    for name in names:
        source = sample(MNE_DATA, f"neuralynx/{name}.ncs")
        shutil.copy(source, tmp_path)
    found = opened(tmp_path)
    options = {}
    if "gaps" in names[0]:
        with pytest.raises(ValueError, match="timestamp gaps"):
            read_by_neo("NeuralynxRawIO", tmp_path)
        options["gap_tolerance_ms"] = 0.5
        assert len(found) == 4
    raw = read_by_neo("NeuralynxRawIO", tmp_path, **options)
    assert compare_neo(found, raw) > 10_000
    for name in names:
        records = np.fromfile(tmp_path / f"{name}.ncs", LYNX, offset=16384)
        values = np.concatenate([record["v"][: record["n"]] for record in records])
        parts = [own.read() for own in found.values() if name_in(own, name)]
        ours = np.concatenate([part.values[field_of(part, name)] for part in parts])
        np.testing.assert_array_equal(ours, values)
        t = np.concatenate([part.t for part in parts])
        starts = np.append(0, np.cumsum(records["n"], dtype=np.int64))[:-1]
        stamps = (records["t"] - records["t"][0]) / 1e6
        np.testing.assert_allclose(t[starts], stamps, atol=1.0 / records["hz"][0])


def name_in(own: dm.Recording, name: str) -> bool:
    return any(field.split("_")[0] == name.split("_")[0] for field in own.stream.fields)


def field_of(block: dm.Block, name: str) -> str:
    wanted = name.split("_")[0]
    return next(field for field in block.values if field.split("_")[0] == wanted)


# ---- Blackrock


@pytest.mark.parametrize(
    "name",
    ["Test_anonymized", "test_BRSMPGRP_raw", "test_NEURALCD_raw", "test_NEURALSG_raw"],
)
def test_blackrock_signals(name: str) -> None:
    """Versions 2.1, 2.2, 2.3 and 3.0, one of them with a pause."""
    path = sample(MNE_DATA, f"nsx/{name}.ns3")
    raw = read_by_neo("BlackrockRawIO", path)
    assert compare_neo(opened(path), raw) >= 500


@pytest.mark.parametrize("name", ["example_1.nev", "example_2.ns2"])
def test_blackrock(name: str) -> None:
    """Events and spikes; signals."""
    path = sample("VH-Lab/NDR-matlab", f"example_data/{name}")
    raw = read_by_neo("BlackrockRawIO", path.with_suffix(""))
    found = opened(path)
    compare_neo(found, raw)
    if path.suffix == ".nev":
        assert len(found["spikes"]) > 1000
    else:
        assert len(found["nsx2"]) > 3000


# ---- Plexon


@pytest.mark.parametrize("name", ["explore1.plx", "postfwd5.plx"])
def test_plexon(name: str) -> None:
    """Events and spikes by neo, whose last block of signals is zeros; signals below."""
    toolkit = "lib/sigTOOL/sigTOOL Neuroscience Toolkit/File/menu_Import"
    path = sample(
        "VH-Lab/NDR-matlab", f"{toolkit}/group_NeuroScience File Formats/plx/{name}"
    )
    raw = read_by_neo("PlexonRawIO", path, progress_bar=False)
    found = opened(path)
    compare_neo({n: r for n, r in found.items() if not r.stream.rate_hz}, _Quiet(raw))
    assert len(found["spikes"]) > 100


def test_plexon_signals() -> None:
    """Neo's values but for its last block of zeros, and the stamp of each block."""
    path = sample(GIN, "plexon/File_plexon_3.plx")
    raw = read_by_neo("PlexonRawIO", path, progress_bar=False)
    data, found = path.read_bytes(), opened(path)
    clock, *counts = struct.unpack_from("<4i", data, 136)
    at = 7504 + 1020 * counts[0] + 296 * (counts[1] + counts[2])
    pieces: dict[int, list[tuple[int, Any]]] = {}
    while at < len(data):
        kind, _, stamp, channel, _, waves, words = struct.unpack_from(
            "<hHIhhhh", data, at
        )
        if kind == 5:
            own = np.frombuffer(data, "<i2", waves * words, at + 16)
            pieces.setdefault(channel, []).append((stamp, own))
        at += 16 + 2 * waves * words
    channels, samples = raw.header["signal_channels"], 0
    for number, head in enumerate(raw.header["signal_streams"]):
        own_read = own_signal(found, number, 0, 0).read()
        neo = np.asarray(raw.get_analogsignal_chunk(0, 0, None, None, number))
        mine = channels[channels["stream_id"] == head["id"]]
        for place, (name, channel) in enumerate(mine[["name", "id"]].tolist()):
            blocks = pieces[int(channel)]
            stored = np.concatenate([block for _, block in blocks])
            ours = own_read.values[name]
            np.testing.assert_array_equal(ours, stored)
            whole = len(stored) - len(blocks[-1][1])
            np.testing.assert_array_equal(neo[:whole, place], ours[:whole])
            edges = np.append(0, np.cumsum([len(block) for _, block in blocks]))[:-1]
            t = np.array([stamp for stamp, _ in blocks]) / clock
            step = 1 / float(mine["sampling_rate"][place])
            np.testing.assert_allclose(own_read.t[edges], t, atol=step / 2)
            samples += len(stored)
    assert samples == 600_806


class _Quiet:
    """A reader of neo without its signals."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self.header = {**raw.header, "signal_streams": np.array([])}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


# ---- Spike2

SPIKE2 = [
    "biomech0deg", "biomech5deg", "motor_units", "physiology", "tremor_kinetic",
    "tremor_mvc_ext", "tremor_mvc_flex", "tremor_postural",
]  # fmt: skip
SONPY = os.environ.get("ATARAXIS_SONPY", "")
READ_BY_CED = """
import json, sys
from sonpy import lib as son
file = son.SonFile(sys.argv[1], True)
out = []
for n in range(file.MaxChannels()):
    last, divide = file.ChannelMaxTime(n), file.ChannelDivide(n)
    if file.ChannelType(n) == son.DataType.Adc:
        first = file.FirstTime(n, 0, last)
        values = file.ReadInts(n, (last - first) // divide + 1, first)
        out.append([file.GetChannelTitle(n), file.GetChannelUnits(n),
                    first * file.GetTimeBase(), divide * file.GetTimeBase(),
                    file.GetChannelScale(n) / 6553.6, file.GetChannelOffset(n),
                    [int(v) for v in values]])
json.dump(out, sys.stdout)
"""
WRITE_BY_CED = """
import sys
import numpy as np
from sonpy import lib as son
file = son.SonFile(sys.argv[1])
file.SetTimeBase(1e-5)
source = np.random.default_rng(0)
signals = [("left", 100), ("right", 100), ("slow", 1000)]
for n, (name, every) in enumerate(signals):
    file.SetWaveChannel(n, every, son.DataType.Adc)
    file.SetChannelTitle(n, name)
    file.SetChannelUnits(n, "mV")
    file.SetChannelScale(n, 2.0 + n)
    file.SetChannelOffset(n, 0.5)
file.SetEventChannel(5, 100)
file.SetChannelTitle(5, "lick")
file.SetBuffering(-1, 0x8000, 0)
for n, (name, every) in enumerate(signals):
    values = source.integers(-9000, 9000, 200000 // every).astype(np.int16)
    assert file.WriteInts(n, values, 0) > 0
file.WriteEvents(5, np.array([1000, 2500, 150000], np.int64))
del file
"""


def ced(program: str, path: Path) -> str:
    """Run a program with CED's own library, which is for Python 3.7 to 3.9 here."""
    if not SONPY:
        pytest.skip(
            "ATARAXIS_SONPY=V/bin/python of: python3.9 -m venv V && V/bin/pip install "
            "sonpy==1.9.5 numpy: CED's own library"
        )
    done = subprocess.run(
        [SONPY, "-c", program, str(path)], capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", SPIKE2)
def test_spike2(name: str) -> None:
    path = sample("MartinHeroux/spike2py", f"tests/payloads/{name}.smr")
    assert compare_neo(opened(path), read_by_neo("Spike2RawIO", path)) > 1e5


@pytest.mark.parametrize("name", SPIKE2)
def test_spike2_by_the_library_of_its_maker(name: str) -> None:
    path = sample("MartinHeroux/spike2py", f"tests/payloads/{name}.smr")
    compare_ced(path, json.loads(ced(READ_BY_CED, path)))


def test_spike2_that_the_library_of_its_maker_writes(tmp_path: Path) -> None:
    path = tmp_path / "a.smr"
    ced(WRITE_BY_CED, path)
    compare_ced(path, json.loads(ced(READ_BY_CED, path)))
    found = opened(path)
    compare_neo(found, read_by_neo("Spike2RawIO", path))
    np.testing.assert_allclose(found["lick"].t, [0.01, 0.025, 1.5], rtol=1e-12)


def compare_ced(path: Path, reference: list[Any]) -> None:
    """Each channel's name, unit, stored values, scale and times."""
    ours = {}
    for own in opened(path).values():
        if own.stream.rate_hz:
            for place, field in enumerate(own.stream.fields):
                ours[field] = (own, place)
    assert len(ours) == len(reference)
    for title, unit, first, step, scale, offset, values in reference:
        own, place = ours[title]
        np.testing.assert_array_equal(own.read().array[:, place], values[: len(own)])
        assert 0 <= len(values) - len(own) <= 1  # as many as the shortest of its stream
        attrs = own.stream.attrs
        assert attrs["scaled_unit"][place] == unit
        np.testing.assert_allclose(attrs["gain"][place], scale, rtol=1e-5)
        np.testing.assert_allclose(attrs["offset"][place], offset, rtol=1e-6)
        t = first + np.arange(len(own)) * step
        np.testing.assert_allclose(own.t, t, rtol=1e-9, atol=step / 2)


# ---- further files of public sets: of TDT, Micromed, SpikeGadgets and others


AXON = ["File_axon_1", "File_axon_2", "File_axon_3", "File_axon_5", "File_axon_6",
        "File_axon_7", "test_file_edr3"]  # fmt: skip
AXOGRAPH = ["AxoGraph_X_File.axgx", "File_axograph.axgd", "episodic.axgd",
            "events_and_epochs.axgx"]  # fmt: skip


@pytest.mark.parametrize(
    ("repository", "inside", "reader"),
    [
        ("LernerLab/GuPPy", "stubbed_testing_data/tdt/Photo_63_207-181030-103332",
         "TdtRawIO"),
        ("etiennedemontalivet/micromed-io", "data/sample.TRC", "MicromedRawIO"),
        ("VH-Lab/NDR-matlab", "example_data/example.rec", "SpikeGadgetsRawIO"),
        ("VH-Lab/NDR-matlab", "example_data/example.rhd", "IntanRawIO"),
        ("VH-Lab/NDR-matlab", "example_data/example.smr", "Spike2RawIO"),
        (GIN, "tdt/aep_05", "TdtRawIO"),
        *((GIN, f"axon/{name}.abf", "AxonRawIO") for name in AXON),
        *((GIN, f"axograph/{name}", "AxographRawIO") for name in AXOGRAPH),
        (GIN, "blackrock/blackrock_2_1/l101210-001.nev", "BlackrockRawIO"),
        (GIN, "blackrock/segment/PauseCorrect/pause_correct.nev", "BlackrockRawIO"),
        (GIN, "blackrock/segment/ResetCorrect/reset.nev", "BlackrockRawIO"),
        (GIN, "neuralynx/Cheetah_v1.1.0/original_data", "NeuralynxRawIO"),
        (GIN, "neuralynx/Cheetah_v6.4.1dev/original_data", "NeuralynxRawIO"),
        (GIN, "openephys/OpenEphys_SampleData_1", "OpenEphysRawIO"),
        (GIN, "openephys/OpenEphys_SampleData_2_(multiple_starts)", "OpenEphysRawIO"),
        (GIN, "openephysbinary/v0.4.4.1_with_video_tracking/experiment1/recording1",
         "OpenEphysBinaryRawIO"),
        (GIN, "openephysbinary/v0.5.x_two_nodes/RecordNode103/experiment1/recording2",
         "OpenEphysBinaryRawIO"),
        (GIN, "spike2/File_spike2_1.smr", "Spike2RawIO"),
        (GIN, "spike2/File_spike2_3.smr", "Spike2RawIO"),
        (GIN, "spikegadgets/W122_06_09_2019_1_fromSD.rec", "SpikeGadgetsRawIO"),
        (GIN, "spikeglx/DigitalChannelTest_g0", "SpikeGLXRawIO"),
        (GIN, "spikeglx/NP2_with_sync", "SpikeGLXRawIO"),
        (GIN, "spikeglx/np_ultra_stub/p5_g0/p5_g0_imec0", "SpikeGLXRawIO"),
        (GIN, "winwcp/File_winwcp_1.wcp", "WinWcpRawIO"),
        (GIN, "micromed/File_micromed_1.TRC", "MicromedRawIO"),
        (GIN, "spikegadgets/20210225_em8_minirec2_ac.rec", "SpikeGadgetsRawIO"),
        (GIN, "winedr/File_WinEDR_1.EDR", "WinEdrRawIO"),
        (GIN, "winedr/File_WinEDR_3.EDR", "WinEdrRawIO"),
        (GIN, "intan/intan_rhs_test_1.rhs", "IntanRawIO"),
        (GIN, "spikeglx/Noise4Sam_g0", "SpikeGLXRawIO"),
    ],
    ids=lambda value: value.rpartition("/")[2] if "/" in value else None,
)  # fmt: skip
def test_further_files_of_neo(repository: str, inside: str, reader: str) -> None:
    path = sample(repository, inside)
    raw = read_by_neo(reader, path)
    assert compare_neo(opened(path), raw) > 0


def test_spikegadgets_by_a_header_that_trodes_wrote(tmp_path: Path) -> None:
    """Two Neuropixels probes: the program's header, and packets that it describes."""
    source = sample(
        "SpikeInterface/probeinterface",
        "tests/data/spikegadgets/"
        "SpikeGadgets_test_data_2xNpix1.0_20240318_173658_header_only.rec",
    )
    path = tmp_path / "a.rec"
    shutil.copy(source, path)
    header = read_by_neo("SpikeGadgetsRawIO", path)
    packet = header._raw_memmap.shape[1]
    packets = np.random.default_rng(0).integers(0, 256, (300, packet)).astype("u1")
    packets[:, 0] = 0x55
    at = header._timestamp_byte
    packets[:, at : at + 4] = np.arange(300, dtype="<u4")[:, None].view("u1")
    with path.open("ab") as file:
        file.write(packets.tobytes())
    found = opened(path)
    assert compare_neo(found, read_by_neo("SpikeGadgetsRawIO", path)) > 300 * 700
    stored = packets[:, -2 * 768 :].copy().view("<i2")
    ours = np.sort(found["trodes"].read().array, axis=1)
    np.testing.assert_array_equal(ours, np.sort(stored, axis=1))


JAGULAR = "kemerelab/jagular"


def test_spikegadgets_with_pauses_and_more_channels_than_are_described() -> None:
    """Packets of 128 channels, 80 of which are described: neo takes them for shorter.

    The values, at the places that Trodes' order of chips gives.
    """
    path = sample(JAGULAR, "sample_data/sample_data_1.rec")
    head, _, body = path.read_bytes().partition(b"</Configuration>\n")
    assert head.count(b"<SpikeChannel ") == 80
    packets = np.frombuffer(
        body, [("mark", "u1"), ("devices", "u1", 41), ("n", "<u4"), ("v", "<i2", 128)]
    )
    assert (packets["mark"] == 0x55).all()
    found = opened(path)
    own = found["trodes"]
    assert len(own.stream.fields) == 80
    for name, values in own.read().values.items():
        chip, local = divmod(int(name.partition("chan")[2]), 32)
        np.testing.assert_array_equal(values, packets["v"][:, local * 4 + chip])
    since = packets["n"].astype(np.int64) - int(packets["n"][0])
    np.testing.assert_allclose(own.t, since / 30_000, rtol=1e-12)
    raw = read_by_neo("SpikeGadgetsRawIO", path)
    names = raw.header["signal_channels"]["name"]
    assert [*found["ECU"].stream.fields, *own.stream.fields] == names.tolist()


@pytest.mark.parametrize("number", range(2, 6))
def test_spikegadgets_whose_numbers_go_back(number: int) -> None:
    """Packets that were put together for a test: refused, with the place."""
    path = sample(JAGULAR, f"sample_data/sample_data_{number}.rec")
    with pytest.raises(RecordingError, match="time stamps go back after sample 0"):
        opened(path)


# ---- Alpha Omega


def pieces_of_mpx(path: Path) -> dict[str, tuple[float, float, list[int], list[Any]]]:
    """Of each channel: its rate, uV a step, numbers of blocks' first samples, blocks.

    By the blocks of the device's manual alone.
    """
    data, at, found = path.read_bytes(), 0, {}
    while (length := int.from_bytes(data[at : at + 2], "little")) != 0xFFFF:
        kind = data[at + 2 : at + 3]
        if kind == b"2":
            is_analog, _, number = struct.unpack_from("<hhh", data, at + 8)
            mode, resolution, khz = struct.unpack_from("<hff", data, at + 18)
            if is_analog:
                name = at + (48 if mode else 38)
                (gain,) = struct.unpack_from("<h", data, name - 2)
                text = data[name : at + length].partition(b"\0")[0].decode()
                step = resolution / (gain / 100)
                found[number] = (text, (khz * 1000, step, [], []))
        elif kind == b"5":
            (number,) = struct.unpack_from("<h", data, at + 4)
            if number in found:
                _, (_, _, firsts, blocks) = found[number]
                blocks.append(np.frombuffer(data, "<i2", (length - 10) // 2, at + 6))
                firsts += struct.unpack_from("<L", data, at + length - 4)
        at += length
    return dict(found.values())


@pytest.mark.parametrize(
    ("repository", "inside", "counts"),
    [("cajigaslab/AlphaOmega-Reporter-MATLAB", "examples/sample_case",
      (3_833_949, 134)),
     (GIN, "alphaomega/mpx_map_version4", (1, 0))],
    ids=["Neuro Omega", "AlphaRS"],
)  # fmt: skip
def test_alpha_omega(repository: str, inside: str, counts: tuple[int, int]) -> None:
    """Neo's values and names; steps, and times of every stream, are the file's."""
    folder = sample(repository, inside)
    raw, found = read_by_neo("AlphaOmegaRawIO", folder), opened(folder)
    channels = raw.header["signal_channels"]
    samples = spikes = 0
    for segment, notes in enumerate(raw.raw_annotations["blocks"][0]["segments"]):
        files = [
            pieces_of_mpx(Path(n)) for n in sorted(notes["file_origin"].splitlines())
        ]
        for number, head in enumerate(raw.header["signal_streams"]):
            own = own_signal(found, number, 0, segment)
            read = own.read()
            values = np.asarray(
                raw.get_analogsignal_chunk(0, segment, None, None, number)
            )
            names = [*channels["name"][channels["stream_id"] == head["id"]]]
            assert [*own.stream.fields] == names
            np.testing.assert_array_equal(read.array, values)
            for place, name in enumerate(names):
                parts = [file[name] for file in files if name in file]
                blocks = [block for part in parts for block in part[3]]
                stored = np.concatenate(blocks)
                np.testing.assert_array_equal(read.array[:, place], stored)
                numbers = [
                    first + np.arange(len(block))
                    for part in parts
                    for first, block in zip(part[2], part[3], strict=True)
                ]
                rate, step = parts[0][:2]
                t = np.concatenate(numbers) / rate
                np.testing.assert_allclose(read.t, t, rtol=1e-12)
                attrs = own.stream.attrs
                np.testing.assert_allclose(attrs["gain"][place], step, rtol=1e-6)
                assert attrs["scaled_unit"][place] == "uV"
                samples += len(stored)
        end = f":{segment}" if segment else ""
        at = [
            np.array(file[name][2]) / file[name][0]
            for file in files
            for name in raw.header["spike_channels"]["name"]
            if name in file
        ]
        if at:
            np.testing.assert_allclose(found[f"spikes{end}"].t, np.sort(np.hstack(at)))
            spikes += len(found[f"spikes{end}"])
    assert samples >= counts[0]
    assert spikes >= counts[1]


# ---- MED, by its maker's package


@pytest.mark.parametrize(
    ("repository", "inside", "count"),
    [("MEDFormat/MEDPython", "var_sf.medd", 9_305_296),
     (GIN, "med/sine_waves.medd", 1)],
    ids=["four rates", "sine waves"],
)  # fmt: skip
def test_med(repository: str, inside: str, count: int) -> None:
    """Of four rates, in three segments each."""
    from ataraxis.datamux.sources import neo_mended

    path = sample(repository, inside)
    try:
        neo_mended._check_med()
    except ImportError as error:
        pytest.skip(f"a Python with 'numpy<2' and 'dhn_med_py<2': {error}")
    assert compare_neo(opened(path), read_by_neo("MedRawIO", path)) >= count


# ---- MNE


def read_by_mne(reader: str, path: Path, **options: Any) -> Any:
    mne = pytest.importorskip("mne")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(mne.io, f"read_raw_{reader}")(path, verbose="error", **options)


def compare_mne(path: Path, raw: Any) -> None:
    """Values, times, names, units, and every annotation."""
    found = opened(path)
    own = found["signals"]
    read = own.read()
    np.testing.assert_array_equal(read.array, raw.get_data().T)
    np.testing.assert_allclose(read.t, raw.times, rtol=1e-12, atol=1e-12)
    assert own_names(own.stream) == raw.ch_names
    kinds = raw.get_channel_types()
    units = [field.unit for field in own.stream.fields.values()]
    assert all(
        unit == "V" for unit, kind in zip(units, kinds, strict=True) if kind == "eeg"
    )
    notes = raw.annotations
    if not len(notes):
        assert "annotations" not in found
        return
    block = found["annotations"].read()
    begun = raw.first_time if notes.orig_time is not None else 0.0
    order = np.argsort(notes.onset, kind="stable")
    np.testing.assert_allclose(block.t, notes.onset[order] - begun, atol=1e-9)
    texts = [str(notes.description[place]) for place in order]
    assert block.values["text"].tolist() == texts
    np.testing.assert_array_equal(block.values["duration"], notes.duration[order])


@pytest.mark.parametrize(
    ("inside", "reader"),
    [
        ("GDF/test_1ch.gdf", "gdf"),
        ("GDF/test_gdf_1.25.gdf", "gdf"),
        ("GDF/test_gdf_2.20.gdf", "gdf"),
        ("nedf/testdata.nedf", "nedf"),
        ("eyetrack/test_eyelink.asc", "eyelink"),
        ("eyetrack/test_eyelink_HREF.asc", "eyelink"),
        ("EEGLAB/test_raw_2021.set", "eeglab"),
        ("SNIRF/NIRx/NIRSport2/1.0.3/2021-05-05_001.snirf", "snirf"),
        ("Brainvision/test_NO.vhdr", "brainvision"),
    ],
    ids=lambda value: value.rpartition("/")[2],
)
def test_files_of_mnes_testing_data(inside: str, reader: str) -> None:
    """Of several amplifiers and programs."""
    path = sample(MNE_DATA, inside)
    compare_mne(path, read_by_mne(reader, path))


def test_eyelink_of_both_eyes() -> None:
    path = sample(
        "pymovements/pymovements", "tests/files/eyelink_binocular_example.asc"
    )
    compare_mne(path, read_by_mne("eyelink", path))


@pytest.mark.parametrize(
    ("repository", "inside", "width", "count"),
    [
        (MNE_DATA, "CNT/scan41_short.cnt", "int16", 3070),
        (MNE_DATA, "CNT/test_CNT_events_mne_JWoess_clipped.cnt", "int32", 90_000),
        ("sccn/eeglab", "sample_data/test_data/test.cnt", "int16", 25_605),
    ],
    ids=["without a count", "32 bits", "fewer than counted"],
)
def test_neuroscan(repository: str, inside: str, width: str, count: int) -> None:
    """Whose headers give no count, or a wrong one: MNE asks how wide samples are."""
    path = sample(repository, inside)
    with pytest.raises(RuntimeError, match="number of bytes per sample"):
        read_by_mne("cnt", path)
    options = {"data_format": width, "recompute_n_samples": count == 25_605 or None}
    raw = read_by_mne("cnt", path, **options)
    assert len(raw.times) == count
    compare_mne(path, raw)


@pytest.mark.parametrize(
    "name", ["test_CA_208", "test_CA_208_start_stop", "test_CA_208_amp_disconnection"]
)
def test_ant(name: str) -> None:
    """ANT's `.cnt`, which is not Neuroscan's; against MNE and what ANT exported."""
    pytest.importorskip("antio", reason="pip install antio, ANT's own library")
    path = sample(MNE_DATA, f"antio/CA_208/{name}.cnt")
    compare_mne(path, read_by_mne("ant", path))
    exported = read_by_mne("brainvision", path.with_suffix(".vhdr"))
    values = opened(path)["signals"].read().array
    np.testing.assert_allclose(values, exported.get_data().T, atol=1e-8)


SAVE = "apt-get install biosig-tools: BioSig, another writer"


@pytest.mark.parametrize("kind", ["EDF", "BDF"])
def test_what_biosig_writes(tmp_path: Path, kind: str) -> None:
    """An EDF of edfio, converted: what edfio reads, within a step of what was given."""
    edfio = pytest.importorskip("edfio")
    program = shutil.which("save2gdf")
    if program is None:
        pytest.skip(SAVE)
    source = np.random.default_rng(0)
    given = [source.normal(scale=50, size=2000) for _ in range(3)]
    signals = [
        edfio.EdfSignal(values, 200, label=f"EEG{n}", physical_dimension="uV")
        for n, values in enumerate(given)
    ]
    edfio.Edf(signals).write(tmp_path / "a.edf")
    path = tmp_path / f"b.{kind.lower()}"
    done = subprocess.run(
        [program, f"-f={kind}", str(tmp_path / "a.edf"), str(path)], timeout=60,
        capture_output=True, check=False,
    )  # fmt: skip
    assert path.is_file(), done
    reference = (edfio.read_bdf if kind == "BDF" else edfio.read_edf)(path)
    own = next(r for n, r in opened(path).items() if n.startswith("signals"))
    columns = [*own.read().values.values()]
    for column, signal, values in zip(columns, reference.signals, given, strict=True):
        np.testing.assert_array_equal(column, signal.data)
        np.testing.assert_allclose(column, values, atol=0.02)
    np.testing.assert_allclose(own.t, np.arange(2000) / 200, rtol=1e-12)


# ---- ScanImage


def test_scanimage_3() -> None:
    """30 images of channel 2 of ScanImage 3.8, which gives no names that 4 has."""
    tifffile = pytest.importorskip("tifffile")
    path = sample("jefferis/scanimage", "inst/extdata/Blank-IPA_1s_16r_032.tif")
    (own,) = opened(path).values()
    images = tifffile.imread(path, series=None, key=range(30))
    np.testing.assert_array_equal(own.read().values["image"], images)
    rate = 8.13802083333333  # state.acq.frameRate
    assert own.stream.rate_hz == rate
    np.testing.assert_allclose(own.t, np.arange(30) / rate, rtol=1e-12)


@pytest.mark.parametrize(
    ("inside", "channels", "frames"),
    [
        ("scanimage_20220923_noroi.tif", 2, 12),
        ("volumetric_single_channel_multi_file/vol_one_ch_multi_files_00001_00003.tif",
         1, 160),
        ("volumetric_single_channel_single_file_no_flyback/"
         "vol_no_flyback_00001_00001.tif", 1, 90),
        ("volumetric_two_channels_multi_file/vol_two_ch_multi_files_00001_00010.tif",
         2, 160),
    ],
    ids=["2023, slices", "2021, third file", "2021, volumes", "2021, two channels"],
)  # fmt: skip
def test_scanimage(inside: str, channels: int, frames: int) -> None:
    """BigTIFF with pauses: images, channels and each stamp as tifffile reads them."""
    tifffile = pytest.importorskip("tifffile")
    path = sample(OPHYS, f"imaging_datasets/ScanImage/{inside}")
    with tifffile.TiffFile(path) as file:
        saved = file.scanimage_metadata["FrameData"]["SI.hChannels.channelSave"]
        images = np.stack([page.asarray() for page in file.pages])
        lines = [page.description.splitlines() for page in file.pages]
    t = [
        float(line.partition("=")[2])
        for page in lines
        for line in page
        if line.startswith("frameTimestamps_sec")
    ]
    found = opened(path)
    names = [f"channel{n}" for n in np.ravel(saved)] if channels > 1 else ["frames"]
    assert [*found] == names
    for place, own in enumerate(found.values()):
        assert len(own) == frames
        np.testing.assert_array_equal(
            own.read().values["image"], images[place::channels]
        )
        np.testing.assert_array_equal(own.t, t[place::channels])


def test_images_that_another_writer_of_scanimages_files_wrote() -> None:
    """ScanImageTiffIO, in C++; it does not say that two channels were saved."""
    tifffile = pytest.importorskip("tifffile")
    path = sample("rhayman/ScanImageTiffIO", "tests/data/test_file1.tif")
    (own,) = opened(path).values()
    images = tifffile.imread(path, series=None, key=range(6))
    np.testing.assert_array_equal(own.read().values["image"], images)
    t = [0, 0, 0.033351950, 0.033351950, 0.066703900, 0.066703900]
    np.testing.assert_array_equal(own.t, t)
    assert own.stream.rate_hz == 29.9786


# ---- TDT, by its maker's package

TDT = "pip install --no-deps tdt, TDT's own package"


def test_tdt_of_our_own_by_the_package_of_its_maker(tmp_path: Path) -> None:
    """Two stores in TDT's layout: the same values, rate and start."""
    import neo_files

    tdt = pytest.importorskip("tdt", reason=TDT)
    values = np.random.default_rng(0).integers(-9000, 9000, (1024, 3)).astype("i2")
    path = tmp_path / "Block-1"
    neo_files.write_tdt(path, values, stores=["Wave", "Othr"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about its notes
        block = tdt.read_block(str(path))
    for name, own in opened(path).items():
        store = block.streams[name]
        np.testing.assert_array_equal(own.read().array.T, store.data)
        assert own.stream.rate_hz == store.fs
        np.testing.assert_allclose(own.t, store.start_time + np.arange(1024) / store.fs)


def test_tdt_by_the_package_of_its_maker() -> None:
    """A block of Synapse, cut for tests: its one cut store is left out."""
    path = sample(
        OPHYS, "fiber_photometry_datasets/TDT/Photo_249_391-200721-120136_stubbed"
    )
    with pytest.warns(RuntimeWarning, match="'Fi1r' is left out: .* cut: its index"):
        found = dm.open_recordings(path)
    raw = read_by_neo("TdtRawIO", next(path.glob("*.tsq")))
    compare_neo(found, raw, without="Fi1r")
    tdt = pytest.importorskip("tdt", reason=TDT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        block = tdt.read_block(str(path))
    for name, store in block.streams.items():
        if name != "Fi1r":
            own = found[name]
            np.testing.assert_array_equal(own.read().array.T, np.atleast_2d(store.data))
            t = store.start_time + np.arange(len(own)) / store.fs
            np.testing.assert_allclose(own.t, t, atol=2e-6)
    for name, store in block.epocs.items():
        np.testing.assert_allclose(found[name].t, store.onset, atol=2e-6)
    assert sum(len(found[name]) for name in block.epocs.keys()) == 1567  # noqa: SIM118
