"""LogArchive over npy directories and npz archives, of every version."""

from __future__ import annotations

import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from places import GOLDEN

from ataraxis import LogArchive, assemble_log_archives, compress_npy_logs
from ataraxis.errors import CorruptFrame
from ataraxis.log.npy.directory import EntryDirectory
from ataraxis.log.npy.entries import EntryKey, entry_head
from ataraxis.log.npy.npz_writer import NpzWriter
from ataraxis.log.npy.reader import PackageReader, _files, rows_hold
from ataraxis.log.verification import verify


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


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 64, 1000])
@pytest.mark.parametrize("size", [1, 137, 4096])
def test_the_checksum_of_a_block_verifies_each_row(n: int, size: int) -> None:
    chance = np.random.default_rng(n + size)
    rows = chance.integers(0, 255, (n, size)).astype("u1")
    stored = np.array([zlib.crc32(row) for row in rows], np.uint32)
    assert rows_hold(rows, stored)
    for at in chance.integers(0, n * size, 20 if n else 0):
        rows.reshape(-1)[at] ^= 1 << int(chance.integers(8))
        assert not rows_hold(rows, stored)
        assert (
            sum(zlib.crc32(row) != crc for row, crc in zip(rows, stored, strict=True))
            == 1
        )
        row = at // size
        stored[row] = zlib.crc32(rows[row])


@pytest.mark.parametrize("is_even", [True, False])
def test_a_long_archive_is_one_array_and_damage_in_it_is_named(
    tmp_path: Path, is_even: bool
) -> None:
    path, count = tmp_path / "7_log.npz", 20_000
    with NpzWriter(path, compress=False) as archive:
        for k in range(count):
            data = entry_head(7, k, 4) + k.to_bytes(4, "little")
            archive.add(EntryKey(k, 7).stem, data)
            if not is_even and k % 1000 == 5:
                archive.add(f"foreign{k}", b"x" * (k // 1000))
        archive.finish()
    with LogArchive(path) as log:
        block = log.read()
        assert block.data.view("<u4")[:, 0].tolist() == list(range(count))
        part = log.read(numbers=np.arange(100, 9000, 3))
        assert part.data.view("<u4")[:, 0].tolist() == list(range(100, 9000, 3))
    data = bytearray(path.read_bytes())
    data[data.index(entry_head(7, 15_001, 4)) + 138] ^= 4
    path.write_bytes(data)
    with LogArchive(path) as log:
        with pytest.raises(CorruptFrame, match="00015001"):
            log.read()
        good = np.delete(np.arange(count), 15_001)
        assert len(log.read(numbers=good)) == count - 1
    with LogArchive(path, verify=False) as log:
        assert len(log.read()) == count


# ---- archives with a damaged directory


def record_offset(data: bytes, number: int) -> int:
    """Return the offset of a member's record in the directory."""
    at = data.index(b"PK\x01\x02")
    for _ in range(number):
        at = data.index(b"PK\x01\x02", at + 4)
    return at


def archive_of(path: Path, count: int = 9) -> tuple[Path, bytearray]:
    fill(path, count, base=100)
    assemble_log_archives(path)
    return path / "7_log.npz", bytearray((path / "7_log.npz").read_bytes())


def check_all(path: Path, count: int = 9) -> list[str]:
    """Read every entry, one by one and in bulk; return the problems."""
    with LogArchive(path) as log:
        block = log.read()
        assert block.data.tobytes().split() == [b"%d" % i for i in range(count)]
        assert block.time.tolist() == list(range(100, 100 + count))
        assert block.source.tolist() == [7] * count
    with LogArchive(path) as log:
        stamps = [frame.device_time for frame in log]
        assert stamps == list(range(100, 100 + count))
        assert log.read().time.tolist() == stamps
        return [problem.what for problem in log.problems]


@pytest.mark.parametrize("field", ["method", "crc", "packed", "nbytes", "at", "far"])
def test_a_damaged_directory_loses_nothing(tmp_path: Path, field: str) -> None:
    path, data = archive_of(tmp_path)
    place = {"method": 10, "crc": 17, "packed": 20, "nbytes": 24, "at": 43, "far": 45}
    data[record_offset(data, 4) + place[field]] ^= 8
    path.write_bytes(data)
    problems = check_all(path)
    assert len(problems) == 1
    assert "007_00000000000000000104.npy" in problems[0]
    assert "directory is damaged" in problems[0]
    report = verify(path)
    assert (report.sources[0].received, report.sources[0].missing) == (9, 0)
    assert len(report.problems) == 1


def test_an_offset_of_another_member_is_not_trusted(tmp_path: Path) -> None:
    path, data = archive_of(tmp_path)
    at = record_offset(data, 4)
    (where,) = struct.unpack_from("<I", data, at + 42)
    struct.pack_into("<I", data, at + 42, where // 4 * 5)
    path.write_bytes(data)
    assert len(check_all(path)) == 1


@pytest.mark.parametrize("digit", [2, 23, 25])
def test_a_damaged_name_is_taken_from_the_member(tmp_path: Path, digit: int) -> None:
    path, data = archive_of(tmp_path)
    at = record_offset(data, 4) + 46
    data[at + digit] ^= 16 if digit == 25 else 1  # 25: no name of an entry any more
    path.write_bytes(data)
    with LogArchive(path) as log:
        assert len(log) == 9
        assert len(log.problems) == (digit == 25)
    assert len(problems := check_all(path)) == 1
    assert "007_00000000000000000104.npy" in problems[0]


def test_a_damaged_name_and_offset(tmp_path: Path) -> None:
    path, data = archive_of(tmp_path)
    at = record_offset(data, 4)
    data[at + 43] ^= 4
    data[at + 46 + 20] ^= 64
    path.write_bytes(data)
    assert len(check_all(path)) == 1


def test_foreign_members_are_not_damage(tmp_path: Path) -> None:
    path = tmp_path / "mixed.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/", b"")
        archive.writestr("notes.txt", b"some")
        archive.writestr(f"{EntryKey(5, 7).stem}.npy", entry_head(7, 5, 1) + b"x")
    with LogArchive(path) as log:
        assert [bytes(frame.payload) for frame in log] == [b"x"]
        assert not log.problems
    assert verify(path).is_complete


def test_what_is_lost_without_a_directory_is_named(tmp_path: Path) -> None:
    path, data = archive_of(tmp_path)
    stride = data.index(b"PK\x03\x04", 4)
    data[2 * stride] ^= 1  # no member begins there: the directory has its name
    data[5 * stride + 40] ^= 1  # it begins, under the name of another
    for cut in (3, len(data) - record_offset(data, 0)):
        path.write_bytes(data[:-cut])
        with LogArchive(path) as log:
            stamps = [frame.device_time for frame in log]
            assert stamps == [100, 101, 103, 104, 106, 107, 108]
            lost = {(p.offset, p.nbytes): p.what for p in log.problems}
        assert len(lost) == 3
        assert "cut off" in lost[(len(data) - cut, 0)]
        what = lost[(2 * stride, stride)]
        if cut == 3:
            assert what.startswith("007_00000000000000000102.npy")
            assert "000105.npy" in lost[(5 * stride, stride)]
        else:
            assert what == "no member begins here"
            assert "cut or changed" in lost[(5 * stride, stride)]
        report = verify(path)
        assert report.sources[0].received == 7
        assert not report.is_complete


def test_an_archive_that_is_a_payload_is_not_searched(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    _, inner = archive_of(tmp_path / "inner")
    path = tmp_path / "outer.npz"
    with NpzWriter(path, compress=False) as archive:
        for k, payload in enumerate((bytes(inner), b"after")):
            data = entry_head(8, k, len(payload)) + payload
            archive.add(EntryKey(k, 8).stem, data)
        archive.finish()
    data = bytearray(path.read_bytes())
    data[30 + 28 + 130] ^= 1
    path.write_bytes(data)
    with LogArchive(path) as log:
        with pytest.raises(CorruptFrame):
            log[0]
        assert bytes(log[1].payload) == b"after"
    path.write_bytes(data[:-3])
    with LogArchive(path) as log:
        assert [bytes(frame.payload) for frame in log] == [b"after"]
        assert len(log.problems) > 1


def test_offsets_past_63_bits_are_refused() -> None:
    data = np.zeros(1000, np.uint8)
    for far in (2**63, 2**64 - 1, 971):
        assert _files(data, np.array([0, far], np.uint64), 10) is None


def test_verify_counts_damage_in_a_directory(tmp_path: Path) -> None:
    fill(tmp_path, 20)
    assert verify(tmp_path).is_complete
    cut = tmp_path / "007_00000000000000000004.npy"
    cut.write_bytes(b"")
    report = verify(tmp_path)
    (source,) = report.sources
    assert (source.source, source.expected, source.received) == (7, 20, 19)
    assert (source.missing, source.damaged) == (1, 1)
    assert [problem.path for problem in report.problems] == [cut]
