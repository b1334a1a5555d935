"""EEG, optical and eye tracking formats, against MNE: values, times, units and names.

BrainVision is written by pybv, EEGLAB by eeglabio and SNIRF by snirf where they are
installed; `eeg_files` writes small ones of the others.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, ClassVar

import eeg_files
import numpy as np
import pytest

import ataraxis.datamux as dm
from ataraxis.testing.recordings import RecordingContract, Referred

mne = pytest.importorskip("mne")

RATE = 250.0


class MneContract(RecordingContract):
    """A format whose reader in MNE is `reader`."""

    reader: ClassVar[str]
    has_empty = False
    unit = "V"

    def raw(self, path: Path) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return getattr(mne.io, f"read_raw_{self.reader}")(path, verbose="error")

    def read_reference(self, path: Path) -> Referred:
        raw = self.raw(path)
        assert [*self.open(path)["signals"].stream.fields] == raw.ch_names
        return Referred(raw.get_data().T, raw.times)

    def test_annotations_are_where_mne_has_them(self, tmp_path: Path) -> None:
        """Texts, onsets since the first sample, and durations."""
        path = self._made(tmp_path, self.samples)
        notes = self.raw(path).annotations
        found = self.open(path)
        if not len(notes):
            assert [*found] == ["signals"]
            return
        block = found["annotations"].read()
        np.testing.assert_allclose(block.t, notes.onset)
        assert block.values["text"].tolist() == [str(n) for n in notes.description]
        np.testing.assert_array_equal(block.values["duration"], notes.duration)


class TestEeglab(MneContract):
    formats = ("mne", ".set")
    suffix = ".set"
    reader = "eeglab"
    has_one = False

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        pytest.importorskip("scipy.io")
        eeg_files.write_set(path, names, values)


class TestNeuroscan(MneContract):
    formats = ("mne", ".cnt")
    suffix = ".cnt"
    reader = "cnt"

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        eeg_files.write_cnt(path, names, values)


class TestGdf(MneContract):
    formats = ("mne", ".gdf")
    suffix = ".gdf"
    reader = "gdf"

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        eeg_files.write_gdf(path, names, values)


class TestNedf(MneContract):
    formats = ("mne", ".nedf")
    suffix = ".nedf"
    reader = "nedf"

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        pytest.importorskip("defusedxml")
        eeg_files.write_nedf(path, names, values)


class TestSnirf(MneContract):
    formats = ("mne", ".snirf")
    suffix = ".snirf"
    reader = "snirf"
    dtype = "f8"
    channels = 4
    has_one = False

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        pytest.importorskip("h5py")
        eeg_files.write_snirf(path, names, np.abs(values) + 1)


class TestEyelink(MneContract):
    formats = ("mne", ".asc")
    suffix = ".asc"
    reader = "eyelink"
    is_text = True
    samples = 300

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        eeg_files.write_asc(path, names, np.abs(values))


class TestPybv(MneContract):
    """BrainVision's three files, of 16-bit integers, with markers."""

    formats = ("mne", ".vhdr")
    suffix = ".vhdr"
    reader = "brainvision"

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        pybv = pytest.importorskip("pybv")
        events = np.array([[0, 5], [len(values) - 1, 9]])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that a resolution rounds
            pybv.write_brainvision(
                data=values.T * 1e-6, sfreq=RATE, ch_names=names, fname_base=path.stem,
                folder_out=str(path.parent), events=events, resolution=1.0,
                unit="µV", fmt="binary_int16", overwrite=True,
            )  # fmt: skip

    def file_of_values(self, path: Path) -> Path:
        return path.with_suffix(".eeg")


def raw_of(values: np.ndarray) -> Any:
    info = mne.create_info([f"c{i}" for i in range(values.shape[1])], RATE, "eeg")
    return mne.io.RawArray(values.T * 1e-6, info, verbose="error")


def compared(path: Path, reader: str) -> dm.Recording:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        raw = getattr(mne.io, f"read_raw_{reader}")(path, verbose="error")
    found = dm.open_recordings(path)["signals"]
    np.testing.assert_array_equal(found.read().array, raw.get_data().T)
    np.testing.assert_allclose(found.t, raw.times, 0, 1e-9)
    assert [*found.stream.fields] == raw.ch_names
    return found


def test_eeglab_files_that_eeglabio_writes(tmp_path: Path) -> None:
    pytest.importorskip("eeglabio", reason="eeglabio, which writes EEGLAB's files")
    values = np.random.default_rng(1).normal(size=(300, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mne.export.export_raw(tmp_path / "a.set", raw_of(values), verbose="error")
    assert len(compared(tmp_path / "a.set", "eeglab")) == 300


def test_snirf_files_that_snirf_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where it writes its log
    snirf = pytest.importorskip("snirf", reason="snirf, which writes its format")
    pytest.importorskip("h5py")
    eeg_files.write_snirf(tmp_path / "a.snirf", [], np.ones((50, 4)) + np.arange(4))
    with snirf.Snirf(str(tmp_path / "a.snirf"), "r") as file:
        file.save(str(tmp_path / "b.snirf"))
    assert len(compared(tmp_path / "b.snirf", "snirf")) == 50
