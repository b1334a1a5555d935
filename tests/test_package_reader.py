"""LogArchive over npy directories and npz archives, of every generation."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import pytest

from ataraxis import LogArchive, assemble_log_archives, compress_npy_logs
from ataraxis.errors import CorruptFrame
from ataraxis.log.directory import EntryDirectory
from ataraxis.log.package_reader import PackageReader

GOLDEN = Path(__file__).resolve().parent / "golden"


def fill(path: Path, count: int, source: int = 7, base: int = 0) -> None:
    with EntryDirectory(path) as entries:
        for i in range(count):
            entries.write(source, base + i, b"%4d" % i)


@pytest.mark.parametrize("how", ["npy", "stored", "deflated", "both"])
def test_one_interface(tmp_path: Path, how: str) -> None:
    fill(tmp_path, 50)
    fill(tmp_path, 50)
    fill(tmp_path, 5, source=8, base=2**64 - 5)
    if how != "npy":
        compress = how == "deflated"
        compress_npy_logs(tmp_path, compress=compress, remove_sources=how != "both")
    with LogArchive(tmp_path) as log:
        assert len(log) == 105
        assert list(log.sources) == [7, 8]
        assert bytes(log[0].payload) == bytes(log[1].payload) == b"   0"
        assert (log[2].device_time, log[2].sequence) == (1, 2)
        assert log[-1].device_time == 2**64 - 1
        found = log.select(7, start=10, stop=20)
        assert found.time.tolist() == [t for t in range(10, 20) for _ in range(2)]
        block = log.read(7, start=10, stop=20)
        assert block.data.tobytes().split() == [
            b"%d" % t for t in range(10, 20) for _ in range(2)
        ]
        assert not log.refresh()
        fill(tmp_path, 3, base=5000)
        assert log.refresh()
        assert len(log) == 108
        assert log[107].device_time == 5002
        assert log[107].sequence == 102
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assemble_log_archives(tmp_path)
    with LogArchive(tmp_path / "7_log.npz") as log:
        assert len(log) == 103
        parts = log.batches(4)
        assert sum(len(log.read(numbers=part).data) for part in parts) == 103


@pytest.mark.parametrize("generation", ["3.1.1", "7.2.0"])
def test_the_originals_archives_and_their_onset(generation: str) -> None:
    home = GOLDEN / f"log_{generation}"
    with LogArchive(home) as log:
        assert len(log) == 22
    with LogArchive(home / "7_log.npz") as log:
        assert log.onset_timestamp_us == 1_700_000_000_000_000
        assert log.message_count == 20
        stamps = [int(message.timestamp_us) for message in log.iter_messages()]
        assert stamps[:3] == [1_700_000_000_001_000 + 1000 * i for i in range(3)]


def test_damage_is_named(tmp_path: Path) -> None:
    fill(tmp_path, 20)
    (tmp_path / "mine.npy").write_bytes(b"x")
    cut = tmp_path / "007_00000000000000000004.npy"
    cut.write_bytes(cut.read_bytes()[:100])
    reader = PackageReader(tmp_path)
    with pytest.raises(CorruptFrame, match="_00000000000000000004"):
        reader.frame(4)
    assert {p.path.name for p in reader.problems} == {"mine.npy", cut.name}
    cut.unlink()
    (tmp_path / "mine.npy").unlink()
    assemble_log_archives(tmp_path)
    path = tmp_path / "7_log.npz"
    with zipfile.ZipFile(path) as archive:
        at = archive.infolist()[3].header_offset
    data = bytearray(path.read_bytes())
    data[at + 58 + 137] ^= 1  # in the payload of the fourth
    path.write_bytes(data)
    with LogArchive(path) as log:
        assert len(log) == 19
        with pytest.raises(CorruptFrame):
            log[3]
        with pytest.raises(CorruptFrame):
            log.read()
        assert len(log.problems) == 1
        assert bytes(log[4].payload) == b"   5"


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LogArchive(tmp_path)
