"""Formats of a collection's files, and logs, against their own reference readers.

Written by pandas, NumPy, pyarrow and h5py, and in the seed's layout of logs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import ataraxis.datamux as dm
from ataraxis.log import LogArchive
from ataraxis.log.journal.writer import JournalWriter
from ataraxis.testing.recordings import RecordingContract, Referred

RATE = 250.0
DTYPES = {"f8": "f64", "f4": "f32", "i2": "i16", "u1": "u8"}


def described(path: Path, suffix: str, pattern: str, stream: str) -> dm.Recording:
    """Open a file by a collection that has the description of a stream."""
    meta = path.parent.parent / f"{path.parent.name}.meta"
    meta.mkdir(exist_ok=True)
    name = path.parent.name
    (meta / "c.collection.yaml").write_text(
        f"name: {name}\npattern: {pattern}\nstreams:\n  s:\n    name: s\n{stream}"
    )
    api = dm.API(data_dir=path.parent.parent, meta_dir=meta)
    attrs = {"session": path.name.removesuffix(suffix)}
    return api.recording("c", "s", attrs)


class TableContract(RecordingContract):
    """A format that a collection describes; tests of it have no open_recordings."""

    stream = "s"
    pattern: ClassVar[str]

    def open(self, path: Path) -> Mapping[str, dm.Recording]:
        dtype = DTYPES[np.dtype(self.dtype).str[1:]]
        fields = "".join(
            f"      c{i}: {{dtype: {dtype}, unit: mV}}\n" for i in range(self.channels)
        )
        stream = f"    fields:\n{fields}    index:\n      t: {{dtype: f64, unit: s}}\n"
        return {"s": described(path, self.suffix, self.pattern, stream)}

    def table(self, names: list[str], values: np.ndarray) -> dict[str, np.ndarray]:
        t = 5 + np.arange(len(values)) / RATE
        return {"t": t, **{name: values[:, i] for i, name in enumerate(names)}}

    def referred(self, columns: Any) -> Referred:
        values = np.stack([np.asarray(columns[f"c{i}"]) for i in range(3)], 1)
        return Referred(values, np.asarray(columns["t"], "f8"), ("mV",) * 3)


class TestCsv(TableContract):
    formats = ("csv", ".csv")
    suffix = ".csv"
    pattern = "csv://{session}"
    is_text = True

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        pandas = pytest.importorskip("pandas")
        pandas.DataFrame(self.table(names, values)).to_csv(path, index=False)

    def read_reference(self, path: Path) -> Referred:
        import pandas

        table = pandas.read_csv(path)
        return self.referred(table.astype({f"c{i}": self.dtype for i in range(3)}))


class TestCsvOfFloats(TestCsv):
    dtype = "f8"


class TestCsvPacked(TestCsv):
    suffix = ".csv.gz"
    dtype = "f4"


class TestParquet(TableContract):
    formats = ("parquet",)
    suffix = ".parquet"
    pattern = "parquet://{session}"

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        pandas = pytest.importorskip("pandas")
        pytest.importorskip("pyarrow")
        pandas.DataFrame(self.table(names, values)).to_parquet(path)

    def read_reference(self, path: Path) -> Referred:
        parquet = pytest.importorskip("pyarrow.parquet")
        return self.referred(parquet.read_table(path).to_pydict())

    def test_it_is_equal_to_the_reference_reader(self, tmp_path: Path) -> None:
        super().test_it_is_equal_to_the_reference_reader(tmp_path)
        assert (
            self.open(tmp_path / "made.parquet")["s"].stream.fields["c0"].dtype == "i16"
        )


class TestNpyRecords(TableContract):
    formats = ("npy",)
    suffix = ".npy"
    pattern = "npy://{session}"
    dtype = "f4"

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        columns = self.table(names, values)
        kind = [(name, column.dtype) for name, column in columns.items()]
        made = np.empty(len(values), kind)
        for name, column in columns.items():
            made[name] = column
        np.save(path, made)

    def read_reference(self, path: Path) -> Referred:
        return self.referred(np.load(path))


class TestNpyMatrix(TestNpyRecords):
    dtype = "f8"

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        np.save(path, np.stack([*self.table(names, values).values()], 1))

    def read_reference(self, path: Path) -> Referred:
        whole = np.load(path)
        return Referred(whole[:, 1:], whole[:, 0], ("mV",) * 3)


class TestNpzDescribed(TestNpyRecords):
    formats = ("npz",)
    suffix = ".npz"
    pattern = "npz://{session}"
    dtype = "i2"

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        np.savez_compressed(path, **self.table(names, values))


class TestHdf5Described(TableContract):
    """One ``data.h5`` of a dataset of records a recording."""

    formats = ("h5",)
    suffix = ".h5"
    pattern = "h5://{session}"
    dtype = "f4"

    def path_in(self, folder: Path, stem: str) -> Path:
        return folder / "data.h5"

    def open(self, path: Path) -> Mapping[str, dm.Recording]:
        found = super().open(path.with_name("made.h5"))
        assert "data.h5" in found["s"].where or "made" in found["s"].where
        return found

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        h5py = pytest.importorskip("h5py")
        columns = self.table(names, values)
        made = np.rec.fromarrays([*columns.values()], names=[*columns])
        with h5py.File(path, "w") as file:
            file["made"] = made.view(np.ndarray)

    def read_reference(self, path: Path) -> Referred:
        import h5py

        with h5py.File(path) as file:
            return self.referred(file["made"][:])

    @pytest.mark.slow
    def test_a_cut_file_gives_no_wrong_value(self, tmp_path: Path) -> None:
        super().test_a_cut_file_gives_no_wrong_value(tmp_path)


@pytest.mark.slow
class TestHdf5Columns(TestHdf5Described):
    """A group of columns a recording."""

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            for name, column in self.table(names, values).items():
                file[f"made/{name}"] = column

    def read_reference(self, path: Path) -> Referred:
        import h5py

        with h5py.File(path) as file:
            return self.referred({name: d[:] for name, d in file["made"].items()})


# ---- logs

ONSET_US = 1_700_000_000_000_000


def entry(source: int, stamp: int, payload: bytes) -> np.ndarray:
    """The bytes of an entry of the seed: source, stamp in us, and payload."""
    head = source.to_bytes(1, "little") + stamp.to_bytes(8, "little")
    return np.frombuffer(head + payload, np.uint8)


class TestSeedEntries(RecordingContract):
    """The seed's ``.npy`` entries, in a folder, with the entry of the onset."""

    formats = ("log", ".npy")
    suffix = "_data_log"
    stream = "7"
    dtype = "u1"
    rate_hz = 2000.0
    has_empty = False
    step_us = 500

    def entries(self, values: np.ndarray) -> dict[str, np.ndarray]:
        onset = ONSET_US.to_bytes(8, "little", signed=True)
        made = {"007_00000000000000000000": entry(7, 0, onset)}
        for k, row in enumerate(values, 1):
            stamp = k * self.step_us
            made[f"007_{stamp:020d}"] = entry(7, stamp, row.tobytes())
        return made

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        path.mkdir()
        for name, data in self.entries(values).items():
            np.save(path / f"{name}.npy", data)

    def loaded(self, path: Path) -> dict[str, np.ndarray]:
        return {own.stem: np.load(own) for own in path.glob("*.npy")}

    def read_reference(self, path: Path) -> Referred:
        found = [data for _, data in sorted(self.loaded(path).items())]
        stamps = [int(data[1:9].view("u8")[0]) for data in found[1:]]
        t = np.array(stamps) / 1e6  # since the onset
        return Referred(np.stack([data[9:] for data in found[1:]]), t)


class TestSeedArchive(TestSeedEntries):
    """The same in an archive, as the seed compresses it."""

    formats = ("log", ".npz")
    suffix = "_log.npz"

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        np.savez_compressed(path, **self.entries(values))

    def loaded(self, path: Path) -> dict[str, np.ndarray]:
        with np.load(path) as found:
            return {name: found[name] for name in found.files}


class TestJournal(RecordingContract):
    """A journal, read by xarray's reader of it, too: no other program writes one."""

    formats = ("log", ".axj")
    suffix = "_log"
    stream = "30"
    dtype = "f4"
    has_empty = False

    def write(self, path: Path, names: list[str], values: np.ndarray) -> None:
        path.mkdir()
        with JournalWriter(path) as journal:
            journal.log_block(30, values, time_ns=10**9, step_ns=4_000_000)

    def read_reference(self, path: Path) -> Referred:
        with LogArchive(path) as archive:
            found = [archive[i] for i in range(len(archive))]
            t = np.array([own.time_ns for own in found]) / 1e9
            return Referred(np.stack([own.array for own in found]), t)
