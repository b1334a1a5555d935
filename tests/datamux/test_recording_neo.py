"""Recording systems, against neo: stored and scaled values, times, units and names.

Axon files are written by pyABF. No program that Python can install writes the others;
`neo_files` writes small ones.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import ataraxis.datamux as dm
from ataraxis.testing.recordings import RecordingContract, Referred

pytest.importorskip("neo.rawio")
import neo_files
from neo import rawio


def close_files(kept: dict[str, Any]) -> None:
    """Close what neo leaves open."""
    for file in kept.get("_nsx_fids", {}).values():
        file.close()


class NeoContract(RecordingContract):
    """A system whose reader in neo is `reader`; the first stream is compared."""

    stream = "first"
    samples = 640
    has_empty = False
    has_damage = True
    reader: ClassVar[str]

    def raw(self, path: Path) -> Any:
        kind = getattr(rawio, self.reader)
        options = {"progress_bar": False} if self.reader == "PlexonRawIO" else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = kind(str(path), **options)
            made.parse_header()
        weakref.finalize(made, close_files, vars(made))
        return made

    def stored(self, raw: Any, number: int) -> np.ndarray:
        return np.asarray(raw.get_analogsignal_chunk(0, 0, None, None, number))

    def open(self, path: Path) -> Mapping[str, dm.Recording]:
        found = dm.open_recordings(path)
        signals = [own for own in found.values() if own.stream.rate_hz]
        return {**found, "first": signals[0]}

    def read_reference(self, path: Path) -> Referred:
        raw = self.raw(path)
        values = np.asarray(raw.get_analogsignal_chunk(0, 0, None, None, 0))
        first = raw.get_signal_t_start(0, 0, 0)
        rate = raw.get_signal_sampling_rate(0)
        return Referred(values, first + np.arange(len(values)) / rate)

    def test_every_stream_scaled_values_events_and_spikes(self, tmp_path: Path) -> None:
        """All that neo gives, under its names."""
        path = self._made(tmp_path, self.samples)
        raw, found = self.raw(path), dm.open_recordings(path)
        channels = raw.header["signal_channels"]
        for number, head in enumerate(raw.header["signal_streams"]):
            own = next(
                r
                for r in found.values()
                if r.stream.attrs.get("neo") == number and r.stream.rate_hz
            )
            names = channels["name"][channels["stream_id"] == head["id"]]
            assert [*own.stream.fields] == [str(name) for name in names]
            stored = self.stored(raw, number)
            np.testing.assert_array_equal(own.read().array, stored)
            attrs = own.stream.attrs
            if "gain" in attrs:
                scaled = raw.rescale_signal_raw_to_float(stored, "float64", number)
                ours = stored * np.array(attrs["gain"]) + np.array(attrs["offset"])
                np.testing.assert_allclose(ours, scaled, rtol=1e-9)
        for number, name in enumerate(raw.header["event_channels"]["name"]):
            at, _, labels = raw.get_event_timestamps(0, 0, number)
            block = found[str(name)].read()
            t = raw.rescale_event_timestamp(at, "float64", number)
            np.testing.assert_array_equal(block.t, t)
            assert block.values["label"].tolist() == [str(text) for text in labels]
        if len(raw.header["spike_channels"]):
            at = raw.get_spike_timestamps(spike_channel_index=0)
            t = raw.rescale_spike_timestamp(at, "float64")
            np.testing.assert_array_equal(found["spikes"].t, t)


class TestAxon(NeoContract):
    """ABF 1 of pyABF: one channel, here one sweep."""

    formats = (".abf",)
    suffix = ".abf"
    reader = "AxonRawIO"
    channels = 1
    samples = 8000  # neo reads the header of a larger version
    has_one = can_grow = False

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        writer = pytest.importorskip("pyabf.abfWriter")
        writer.writeABF1(values.T / 10.0, str(path), 1000.0)


class TestWinEdr(NeoContract):
    formats = (".edr",)
    suffix = ".edr"
    reader = "WinEdrRawIO"

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        neo_files.write_edr(path, values)


class TestWinWcp(NeoContract):
    formats = (".wcp",)
    suffix = ".wcp"
    reader = "WinWcpRawIO"
    channels = 4
    has_one = False
    can_grow = False

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        neo_files.write_wcp(path, values)


class TestNeuroExplorer(NeoContract):
    formats = (".nex",)
    suffix = ".nex"
    reader = "NeuroExplorerRawIO"

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        neo_files.write_nex(path, values)


class TestPlexon(NeoContract):
    formats = (".plx",)
    suffix = ".plx"
    reader = "PlexonRawIO"

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        neo_files.write_plx(path, values)
        np.save(path.with_suffix(".npy"), values)

    def read_reference(self, path: Path) -> Referred:
        """What was written: neo 0.14 gives the last block as zeros."""
        values = np.load(path.with_suffix(".npy"))
        return Referred(values, np.arange(len(values)) / 1000)

    def stored(self, raw: Any, number: int) -> np.ndarray:
        return np.load(Path(raw.filename).with_suffix(".npy"))


class TestNeuralynx(NeoContract):
    formats = (".ncs",)
    suffix = "_lynx"
    reader = "NeuralynxRawIO"
    samples = 1300

    def test_a_channel_without_samples_is_left_out_with_a_warning(
        self, tmp_path: Path
    ) -> None:
        path = self._made(tmp_path, 600)
        empty = path / "CSC2.ncs"
        empty.write_bytes(empty.read_bytes()[:16384])
        with pytest.warns(RuntimeWarning, match=r"CSC2\.ncs has no samples"):
            found = self.open(path)["first"]
        assert [*found.stream.fields] == ["CSC1", "CSC3"]

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        neo_files.write_ncs(path, values)


class TestOpenEphysOld(NeoContract):
    formats = (".continuous",)
    suffix = "_oe"
    reader = "OpenEphysRawIO"
    samples = 2048
    has_one = can_grow = False

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        neo_files.write_continuous(path, values)


class TestBlackrock(NeoContract):
    formats = (".ns1", ".ns2", ".ns3", ".ns4", ".ns5", ".ns6", ".nev")
    suffix = ".ns2"
    reader = "BlackrockRawIO"
    has_one = False  # of neo

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        neo_files.write_nsx(path, values)
        neo_files.write_nev(path.with_suffix(".nev"))

    def test_the_events_open_the_same(self, tmp_path: Path) -> None:
        path = self._made(tmp_path, 300)
        found = dm.open_recordings(path.with_suffix(".nev"))
        assert [*found] == [*dm.open_recordings(path)]


class TestIntan(NeoContract):
    formats = (".rhd",)
    suffix = ".rhd"
    reader = "IntanRawIO"
    has_one = can_grow = False

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        neo_files.write_rhd(path, values)


class TestIntanStimulator(TestIntan):
    formats = (".rhs",)
    suffix = ".rhs"

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        neo_files.write_rhs(path, values)


class TestMicromed(NeoContract):
    formats = (".trc",)
    suffix = ".trc"
    reader = "MicromedRawIO"

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        neo_files.write_trc(path, values)


class TestSpikeGadgets(NeoContract):
    formats = (".rec",)
    suffix = ".rec"
    reader = "SpikeGadgetsRawIO"
    stream = "trodes"

    def read_reference(self, path: Path) -> Referred:
        found = super().read_reference(path)
        values = np.asarray(self.raw(path).get_analogsignal_chunk(stream_index=1))
        return Referred(values, found.t)

    def stored(self, raw: Any, number: int) -> np.ndarray:
        """Inputs in the order of their names; neo has that of their places."""
        stored = super().stored(raw, number)
        return stored if number else stored[:, ::-1]

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        neo_files.write_rec(path, values)


class TestTdtTank(NeoContract):
    """A tank of one block."""

    formats = (".tsq",)
    suffix = "_tank"
    reader = "TdtRawIO"
    has_one = can_grow = False

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        neo_files.write_tdt(path / "Block-1", values)


class TestTdtBlock(TestTdtTank):
    """The block itself."""

    suffix = "_block"

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        neo_files.write_tdt(path, values)

    def raw(self, path: Path) -> Any:
        return super().raw(next(path.glob("*.tsq")))


class TestAlphaOmega(NeoContract):
    """A folder with a file of the device."""

    formats = (".mpx",)
    suffix = "_device"
    reader = "AlphaOmegaRawIO"
    can_grow = False

    def raw(self, path: Path) -> Any:
        """With steps of the resolution by the gain; neo has the reverse."""
        made = super().raw(path)
        made.header["signal_channels"]["gain"] **= -1
        return made

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        path.mkdir(parents=True)
        neo_files.write_mpx(path / "a.mpx", values)


def test_a_folder_of_med_has_its_own_reader(tmp_path: Path) -> None:
    """By the folder's suffix; it needs a package that is not installed here."""
    from ataraxis.datamux.folder import Folder
    from ataraxis.datamux.sources.neo import Neo, reader_of
    from ataraxis.errors import RecordingError

    (tmp_path / "a.medd").mkdir()
    assert reader_of(Folder(tmp_path), "a.medd") == "MedRawIO"
    assert [key for key, _ in Neo().keys(Folder(tmp_path))] == ["a.medd"]
    with pytest.raises(RecordingError, match=r"a\.medd: MedRawIO of neo"):
        dm.open_recordings(tmp_path / "a.medd")


class TestAxographOld(NeoContract):
    formats = (".axgd",)
    suffix = ".axgd"
    reader = "AxographRawIO"
    dtype = "f4"
    has_one = False

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        neo_files.write_axgd(path, values)


class TestAxograph(TestAxographOld):
    formats = (".axgx",)
    suffix = ".axgx"
    dtype = "i2"

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        neo_files.write_axgx(path, values)


class TestSpike2(NeoContract):
    formats = (".smr",)
    suffix = ".smr"
    reader = "Spike2RawIO"
    samples = 1300

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        neo_files.write_smr(path, values)


class TestOpenEphysBinary(NeoContract):
    formats = (".oebin",)
    suffix = "_oebin"
    reader = "OpenEphysBinaryRawIO"

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        neo_files.write_oebin(path, values)

    def file_of_values(self, path: Path) -> Path:
        return next(path.rglob("continuous.dat"))
