"""The npy layout and its archives: names, bytes, merging, damage, compatibility."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import random
import subprocess
import sys
import textwrap
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from places import GOLDEN
from workers_logger import archive_at_once

from ataraxis.errors import CorruptFrame
from ataraxis.log import (
    LogArchive,
    LogPackage,
    assemble_log_archives,
    compress_npy_logs,
)
from ataraxis.log.npy import archiving
from ataraxis.log.npy.directory import EntryDirectory, keys_in
from ataraxis.log.npy.entries import EntryKey, check_entry, npy_header, parse_stem
from ataraxis.log.npy.npz_index import NpzIndex

ONSET_US = 1_700_000_000_000_000
PAYLOAD = np.array([9, 8, 7], np.uint8)


def fill(path: Path, count: int, source: int = 7, base: int = 0) -> None:
    with EntryDirectory(path) as entries:
        for i in range(count):
            entries.write(source, base + i, f"{source} {i}".encode())


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


# ---- packages


def test_a_package_has_every_generations_names() -> None:
    package = LogPackage(np.uint8(7), np.uint64(0x0102030405060708), PAYLOAD)
    name, array = package.get_data()
    assert name == "007_00072623859790382856.npy"
    assert array.tolist() == [7, 8, 7, 6, 5, 4, 3, 2, 1, 9, 8, 7]
    assert array.dtype == np.uint8
    assert package.data[0] == name
    assert (package.source_id, package.time_stamp) == (7, 0x0102030405060708)
    assert package.acquisition_time == package.time_stamp
    assert isinstance(package.source_id, np.uint8)
    assert isinstance(package.time_stamp, np.uint64)
    assert package.serialized_data is PAYLOAD
    same = LogPackage(source_id=7, time_stamp=2**56, serialized_data=PAYLOAD)
    later = LogPackage(np.uint16(7), acquisition_time=2**56, serialized_data=PAYLOAD)
    assert same == later == pickle.loads(pickle.dumps(same)) != package
    with pytest.raises(AttributeError):
        package.source_id = 3  # type: ignore[misc]
    with pytest.raises(AttributeError):
        package._source = 3


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        ((256, 1, PAYLOAD), ValueError),
        ((-1, 1, PAYLOAD), ValueError),
        ((np.uint16(300), 1, PAYLOAD), ValueError),
        ((1, -1, PAYLOAD), ValueError),
        ((1, 2**64, PAYLOAD), ValueError),
        ((1.0, 1, PAYLOAD), TypeError),
        ((True, 1, PAYLOAD), TypeError),
        ((1, 1.5, PAYLOAD), TypeError),
        ((1, 1, PAYLOAD.astype(np.uint16)), TypeError),
        ((1, 1, PAYLOAD.astype(float)), TypeError),
        ((1, 1, PAYLOAD.reshape(1, 3)), ValueError),
        ((1, 1, b"abc"), TypeError),
        ((1, 1, [1, 2]), TypeError),
        ((1, 1, None), TypeError),
        ((1, None, PAYLOAD), TypeError),
    ],
)
def test_a_wrong_package_is_refused_where_it_is_made(bad, kind) -> None:
    with pytest.raises(kind) as refused:
        LogPackage(*bad)
    assert str(refused.value)


# ---- names and bytes


@pytest.mark.parametrize("count", [0, 9, 10, 99, 12345, 10**9, 10**15])
def test_the_header_is_numpys(count: int) -> None:
    out = io.BytesIO()
    described = {"descr": "|u1", "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(out, described)
    assert npy_header(count) == out.getvalue()


def test_names_go_there_and_back() -> None:
    for key in (EntryKey(0, 0), EntryKey(2**64 - 1, 255), EntryKey(5, 1, 12)):
        assert parse_stem(key.stem) == key
    for name in ("a", "1", "001_", "1_2_3_4", "-1_2", "1_-2", "٣_4", "1_2x", "1__2"):
        assert parse_stem(name) is None
    assert parse_stem(f"1_{2**64}") is None


def test_equal_stamps_get_the_next_free_name(tmp_path: Path) -> None:
    with EntryDirectory(tmp_path) as one, EntryDirectory(tmp_path) as two:
        for i in range(50):
            (one if i % 2 else two).write(3, 5, bytes([i]))
    names = sorted(os.listdir(tmp_path))
    expected = {"003_00000000000000000005.npy"}
    assert set(names) == expected | {
        f"003_00000000000000000005_{i}.npy" for i in range(1, 50)
    }
    values = [np.load(tmp_path / name)[9:].tolist() for name in names]
    assert sorted(values) == [[i] for i in range(50)]


@pytest.mark.parametrize("way", ["nameless", "named", "plain"])
def test_every_way_to_write_gives_the_same_file(tmp_path, way, monkeypatch) -> None:
    with EntryDirectory(tmp_path) as entries:
        if way != "nameless":
            os.close(entries._self)
            entries._self = -1
        entries._has_links = way != "plain"
        for payload in (b"", b"x", b"y" * 100_000):
            entries.write(1, 2, payload, durable=True)
        entries.sync()
    kept = sorted(tmp_path.iterdir(), key=lambda path: path.stat().st_size)
    assert [np.load(path).size - 9 for path in kept] == [0, 1, 100_000]
    out = io.BytesIO()
    np.save(out, np.load(kept[1]))
    assert kept[1].read_bytes() == out.getvalue()


def test_writing_to_a_removed_directory_raises(
    tmp_path: Path,
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    with EntryDirectory(gone) as entries:
        gone.rmdir()
        with pytest.raises(OSError, match="was removed"):
            entries.write(1, 2, b"x")
        assert entries.is_removed()


# ---- archives


def test_archives_are_what_numpy_would_write(tmp_path: Path) -> None:
    fill(tmp_path, 30)
    fill(tmp_path, 3, source=200)
    before = {p.name: p.read_bytes() for p in tmp_path.glob("*.npy")}
    report = compress_npy_logs(tmp_path, remove_sources=True, verify_integrity=True)
    assert report.entries == 33
    assert sorted(os.listdir(tmp_path)) == ["200_log.npz", "7_log.npz"]
    found = members(tmp_path / "7_log.npz")
    assert list(found) == sorted(found)
    assert found | members(tmp_path / "200_log.npz") == before
    with np.load(tmp_path / "7_log.npz") as archive:
        assert bytes(archive["007_00000000000000000003"][9:]) == b"7 3"
    assert compress_npy_logs(tmp_path).entries == 0


def test_a_second_session_merges(tmp_path: Path) -> None:
    """Flaw 16: the archive of the first session was overwritten."""
    for _ in range(3):
        fill(tmp_path, 10)
        assemble_log_archives(tmp_path)
    found = members(tmp_path / "7_log.npz")
    assert len(found) == 30
    keys = [parse_stem(name[:-4]) for name in found]
    assert keys == sorted(keys)
    assert {data[-1:] for data in found.values()} == {b"%d" % i for i in range(10)}


def test_archiving_again_adds_nothing_twice(tmp_path: Path) -> None:
    fill(tmp_path, 10)
    fill(tmp_path, 10)
    assert compress_npy_logs(tmp_path).entries == 20
    first = members(tmp_path / "7_log.npz")
    assert compress_npy_logs(tmp_path, compress=False).entries == 0
    assert assemble_log_archives(tmp_path).entries == 0
    assert members(tmp_path / "7_log.npz") == first
    assert os.listdir(tmp_path) == ["7_log.npz"]


def test_two_loggers_below_one_directory_do_not_meet(tmp_path: Path) -> None:
    """Flaw 16: colliding entries of two loggers were merged, and one was lost."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        fill(tmp_path / name, 5)
    compress_npy_logs(tmp_path, remove_sources=True)
    for name in ("one", "two"):
        assert len(members(tmp_path / name / "7_log.npz")) == 5
    fill(tmp_path / "one", 5, base=100)
    assemble_log_archives(tmp_path)
    assert len(list((tmp_path / "one").glob("*.npy"))) == 5


def test_foreign_and_damaged_files_are_reported_and_kept(tmp_path: Path) -> None:
    """Flaw 21: one foreign or truncated file stopped it."""
    fill(tmp_path, 20)
    (tmp_path / "results.npy").write_bytes(b"mine")
    cut = tmp_path / "007_00000000000000000004.npy"
    cut.write_bytes(cut.read_bytes()[:-1])
    empty = tmp_path / "007_00000000000000000005.npy"
    empty.write_bytes(b"")
    with pytest.warns(RuntimeWarning, match=r"results.npy|_00000000000000000004"):
        report = compress_npy_logs(tmp_path, remove_sources=True)
    assert report.entries == 18
    assert report.foreign == (tmp_path / "results.npy",)
    assert set(report.damaged) == {cut, empty}
    left = {"007_00000000000000000004.npy", "007_00000000000000000005.npy"}
    assert set(os.listdir(tmp_path)) == left | {"results.npy", "7_log.npz"}


def test_a_damaged_archive_is_kept_beside_what_could_be_saved(tmp_path: Path) -> None:
    fill(tmp_path, 20)
    assemble_log_archives(tmp_path)
    whole = tmp_path / "7_log.npz"
    broken = whole.read_bytes()[:-2000]
    whole.write_bytes(broken)
    fill(tmp_path, 2, base=100)
    with pytest.warns(RuntimeWarning, match="cut off"):
        assemble_log_archives(tmp_path)
    kept = tmp_path / "7_log.npz.damaged-0"
    assert kept.read_bytes() == broken
    found = members(whole)
    assert "007_00000000000000000101.npy" in found
    assert 10 < len(found) <= 22


def test_a_damaged_directory_is_not_copied(tmp_path: Path) -> None:
    fill(tmp_path, 20)
    assemble_log_archives(tmp_path)
    whole = tmp_path / "7_log.npz"
    entries = members(whole)
    broken = bytearray(whole.read_bytes())
    at = broken.index(b"PK\x01\x02")
    broken[at + 16] ^= 1  # the checksum of the first
    whole.write_bytes(broken)
    fill(tmp_path, 2, base=100)
    with pytest.warns(RuntimeWarning, match="directory is damaged"):
        assemble_log_archives(tmp_path)
    assert (tmp_path / "7_log.npz.damaged-0").read_bytes() == broken
    found = members(whole)
    assert len(found) == 22
    assert entries.items() <= found.items()


def test_verification_that_fails_removes_nothing(tmp_path, monkeypatch) -> None:
    fill(tmp_path, 5)
    compress_npy_logs(tmp_path)
    before = (tmp_path / "7_log.npz").read_bytes()
    fill(tmp_path, 5, base=50)
    monkeypatch.setattr(archiving.NpzIndex, "read", lambda *_: b"something else")
    with pytest.raises(ValueError, match="nothing was removed"):
        compress_npy_logs(tmp_path, remove_sources=True, verify_integrity=True)
    assert (tmp_path / "7_log.npz").read_bytes() == before
    assert len(list(tmp_path.glob("*.npy"))) == 10
    assert len(os.listdir(tmp_path)) == 11


@pytest.mark.parametrize("dies_at", ["rename", "unlink"])
def test_killed_half_way_and_run_again(tmp_path, monkeypatch, dies_at) -> None:
    fill(tmp_path, 10)

    class Killed(BaseException):
        pass

    def die(*args: object, **kwargs: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(archiving.os, dies_at, die)
        with pytest.raises(Killed):
            compress_npy_logs(tmp_path, remove_sources=True)
    assert len(list(tmp_path.glob("*.npy"))) == 10
    (tmp_path / ".archive-of-the-dead.tmp").write_bytes(b"half")
    compress_npy_logs(tmp_path, remove_sources=True)
    assert os.listdir(tmp_path) == ["7_log.npz"]
    assert len(members(tmp_path / "7_log.npz")) == 10


@pytest.mark.parametrize("workers", [-3, 0, 1, 2, None, 64])
def test_at_least_one_worker_runs(tmp_path: Path, workers: int | None) -> None:
    for source in range(3):
        fill(tmp_path, 5, source)
    report = compress_npy_logs(tmp_path, max_workers=workers, remove_sources=True)
    assert report.entries == 15
    assert len(os.listdir(tmp_path)) == 3


def test_several_processes_may_archive_at_once(tmp_path: Path) -> None:
    for source in range(3):
        fill(tmp_path, 100, source)
    spawn = multiprocessing.get_context("spawn")
    at_once = spawn.Barrier(3)
    processes = [
        spawn.Process(target=archive_at_once, args=(tmp_path, at_once, 100 * (k + 1)))
        for k in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    compress_npy_logs(tmp_path, remove_sources=True)
    assert sorted(os.listdir(tmp_path)) == ["0_log.npz", "1_log.npz", "2_log.npz"]
    assert sum(len(members(path)) for path in tmp_path.iterdir()) == 600


def test_no_such_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        compress_npy_logs(tmp_path / "no")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        assemble_log_archives(tmp_path / "file")


def test_a_progress_bar_goes_to_standard_error(tmp_path: Path, capfd) -> None:
    fill(tmp_path, 5)
    compress_npy_logs(tmp_path, verbose=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "5/5" in err


# ---- archives of other writers, and broken ones


@pytest.mark.parametrize("generation", ["3.1.1", "7.2.0"])
def test_the_originals_archives_are_read(generation: str) -> None:
    home = GOLDEN / f"log_{generation}"
    entries = members(home / "entries.zip")
    seen = {}
    for path in home.glob("*_log.npz"):
        index = NpzIndex(path)
        assert index.problem is None
        for row in index.table:
            key = EntryKey(int(row["stamp"]), int(row["source"]), int(row["copy"]))
            data = index.read(row)
            seen[index.name(row)] = bytes(data)
            assert index.name(row) == key.stem + ".npy"
            assert check_entry(key, data) == 137
    assert seen == entries
    assert len(seen) == 22


@pytest.mark.parametrize("generation", ["3.1.1", "7.2.0"])
def test_members_are_byte_identical_to_the_originals(generation, tmp_path) -> None:
    home = GOLDEN / f"log_{generation}"
    with zipfile.ZipFile(home / "entries.zip") as entries:
        entries.extractall(tmp_path)
    for path in tmp_path.glob("*.npy"):
        key = parse_stem(path.stem)
        data = path.read_bytes()
        assert key is not None
        with EntryDirectory(tmp_path) as again:
            name = again.write(key.source, key.stamp, data[check_entry(key, data) :])
        assert (tmp_path / name).read_bytes() == data
        (tmp_path / name).unlink()
    compress_npy_logs(tmp_path)
    for path in home.glob("*_log.npz"):
        assert members(path) == members(tmp_path / path.name)


def test_an_originals_archive_is_merged_into(tmp_path: Path) -> None:
    home = GOLDEN / "log_3.1.1"
    with zipfile.ZipFile(home / "entries.zip") as entries:
        entries.extractall(tmp_path)
    (tmp_path / "7_log.npz").write_bytes((home / "7_log.npz").read_bytes())
    fill(tmp_path, 3, base=1000)
    report = compress_npy_logs(tmp_path)
    assert report.entries == 4  # one of source 200, three new ones
    found = members(tmp_path / "7_log.npz")
    assert len(found) == 24
    assert "007_00000000000000001000_1.npy" in found


def test_broken_archives_never_crash(tmp_path: Path) -> None:
    fill(tmp_path, 40)
    compress_npy_logs(tmp_path, remove_sources=True)
    path = tmp_path / "7_log.npz"
    whole = path.read_bytes()
    intact = set(members(path).values())
    chance = random.Random(6)
    counts = []
    for _ in range(300):
        broken = bytearray(whole)
        if chance.random() < 0.5:
            del broken[chance.randrange(len(broken)) :]
        else:
            broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
        path.write_bytes(broken)
        index = NpzIndex(path)
        good = 0
        for row in index.table:
            try:
                assert bytes(index.read(row)) in intact
                good += 1
            except CorruptFrame:
                pass
        if len(broken) == len(whole):
            assert good >= 39
        counts.append(good)
    assert max(counts) == 40
    assert min(counts) < 20


@pytest.mark.parametrize("compress", [False, True])
def test_names_that_pass_64_bits_or_have_other_widths(tmp_path, compress) -> None:
    stamps = [0, 1, 10**19 - 1, 10**19, 2**64 - 1]
    with EntryDirectory(tmp_path) as entries:
        for stamp in stamps:
            entries.write(7, stamp, b"x")
            entries.write(7, stamp, b"y")
    compress_npy_logs(tmp_path, compress=compress, remove_sources=True)
    table = NpzIndex(tmp_path / "7_log.npz").table
    assert table["stamp"].tolist() == sorted(stamps * 2)
    assert table["copy"].tolist() == [0, 1] * 5
    assert table["is_entry"].all()


# ---- the originals themselves, where they are installed

READ_BY_ORIGINAL = """
    import sys
    from pathlib import Path
    import numpy as np
    import ataraxis_data_structures as original

    if __name__ == "__main__":
        path = Path(sys.argv[2]) / sys.argv[1]
        if hasattr(original, "compress_npy_logs"):
            original.compress_npy_logs(path, remove_sources=True, max_workers=1)
        else:
            original.assemble_log_archives(path, max_workers=1)
        with np.load(path / "7_log.npz") as archive:
            found = sorted(bytes(archive[name][9:]) for name in archive.files)
        if hasattr(original, "LogArchiveReader"):
            reader = original.LogArchiveReader(path / "ours" / "7_log.npz")
            assert reader.message_count == 9, reader.message_count
        print(found == sorted([b"7 %d" % i for i in range(5)] * 2))
"""


def originals() -> list[str]:
    """Interpreters with ataraxis-data-structures 3.1.1 and 7.x."""
    named = os.environ.get("ATARAXIS_ORIGINALS", "").split(os.pathsep)
    found = [path for path in named if path]
    try:
        import ataraxis_data_structures  # noqa: F401
    except ImportError:
        return found
    return [sys.executable, *found]


def with_originals(program: str, *arguments: Path) -> list[str]:
    """Run a program under each of them; return its last line of output."""
    interpreters = originals()
    if not interpreters:
        pytest.skip("no ataraxis-data-structures; ATARAXIS_ORIGINALS names Pythons")
    lines = []
    for k, python in enumerate(interpreters):
        done = subprocess.run(
            [python, "-c", textwrap.dedent(program), str(k), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        lines.append(done.stdout.strip().splitlines()[-1])
    return lines


def test_the_originals_read_ours(tmp_path: Path) -> None:
    for k, _ in enumerate(originals()):
        here = tmp_path / str(k)
        (here / "ours").mkdir(parents=True)
        for path in (here, here / "ours"):
            fill(path, 5)
            fill(path, 5)
        onset = np.array([ONSET_US], np.uint64).view(np.uint8)
        first = here / "ours" / "007_00000000000000000000.npy"
        first.unlink()
        with EntryDirectory(here / "ours") as entries:
            entries.write(7, 0, onset)
        assemble_log_archives(here / "ours")
    assert set(with_originals(READ_BY_ORIGINAL, tmp_path)) == {"True"}


WRITTEN_BY_ORIGINAL = """
    import sys
    from pathlib import Path
    import numpy as np
    import ataraxis_data_structures as original

    if __name__ == "__main__":
        path = Path(sys.argv[2]) / sys.argv[1]
        path.mkdir()
        packages = [(np.array([1_700_000_000_000_000], np.uint64).view(np.uint8), 0)]
        packages += [(np.full(k % 5 + 1, k, np.uint8), 1000 * k) for k in range(1, 40)]
        for data, stamp in packages:
            package = original.LogPackage(np.uint8(7), np.uint64(stamp), data)
            is_new = hasattr(package, "data")
            name, array = package.data if is_new else package.get_data()
            np.save(path / name, array)
        if hasattr(original, "compress_npy_logs"):
            original.compress_npy_logs(path, remove_sources=False, max_workers=1)
        else:
            original.assemble_log_archives(path, max_workers=1, remove_sources=False)
        print((path / "7_log.npz").exists())
"""


def test_we_read_the_originals_and_members_are_the_same_bytes(tmp_path: Path) -> None:
    """Both archivers make the same archives of the same files."""
    made = with_originals(WRITTEN_BY_ORIGINAL, tmp_path)
    assert set(made) == {"True"}
    for k in range(len(made)):
        path = tmp_path / str(k)
        theirs = members(path / "7_log.npz")
        files = {file.name: file.read_bytes() for file in path.glob("*.npy")}
        assert theirs == files
        assert len(theirs) == 40
        with LogArchive(path / "7_log.npz") as log:
            assert log.onset_timestamp_us == ONSET_US
            stamps, payloads = log.read_all_messages()
        assert stamps.tolist() == [ONSET_US + 1000 * i for i in range(1, 40)]
        wanted = [bytes([i] * (i % 5 + 1)) for i in range(1, 40)]
        assert [bytes(payload) for payload in payloads] == wanted
        (path / "7_log.npz").unlink()
        for compress in (False, True):
            compress_npy_logs(path, compress=compress)
            assert members(path / "7_log.npz") == theirs
            (path / "7_log.npz").unlink()
        # The files of the same entries are equal, too.
        ours = tmp_path / f"ours {k}"
        ours.mkdir()
        with EntryDirectory(ours) as entries:
            entries.write(7, 0, ONSET_US.to_bytes(8, "little"))
            for i, payload in enumerate(wanted, 1):
                entries.write(7, 1000 * i, payload)
        assert {file.name: file.read_bytes() for file in ours.iterdir()} == files


def test_keys_are_listed_without_links_and_hidden_files(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    (tmp_path / ".007_1.npy").touch()
    (tmp_path / "007_5.npy").symlink_to("007_00000000000000000000.npy")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        keys, foreign = keys_in(tmp_path)
    assert len(keys) == 2
    assert foreign == ["007_5.npy"]


# ---- onsets


@pytest.mark.parametrize("size", [2, 8])
def test_a_log_with_an_onset_is_read_in_every_way(tmp_path: Path, size: int) -> None:
    """The onset is a time: it is in no array of values, wherever the log is opened."""
    import xarray as xr

    import ataraxis.datamux as dm

    onset = 1_700_000_000_000_000
    rows = np.arange(5 * size, dtype="u1").reshape(5, size)
    with EntryDirectory(tmp_path) as entries:
        entries.write(1, 0, onset.to_bytes(8, "little"))
        for k, row in enumerate(rows):
            entries.write(1, 100 * (k + 1), row.tobytes())
        entries.write(2, 0, onset.to_bytes(8, "little"))
    with LogArchive(tmp_path) as archive:
        np.testing.assert_array_equal(archive.read(1).data, rows)
        assert archive.read(1).time.tolist() == [100, 200, 300, 400, 500]
        assert len(archive.select(1)) == 6
        assert archive.read(numbers=archive.select(1).numbers[:1]).data.shape == (1, 8)
        assert archive.onset_timestamp_us == onset
    with xr.open_dataset(tmp_path, engine="ataraxis", source=1) as found:
        np.testing.assert_array_equal(found.data.values, rows)
    recordings = dm.open_recordings(tmp_path)
    assert [*recordings] == ["1"]
    block = recordings["1"].read()
    values = np.stack([*block.values.values()], -1).reshape(5, size)
    np.testing.assert_array_equal(values, rows)
