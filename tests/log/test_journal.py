"""The journal: entries are read back, whatever happened to its files."""

from __future__ import annotations

import doctest
import importlib
import os
import resource
import signal
import threading
import time
import zlib
from pathlib import Path
from unittest import mock

import numpy as np
import programs
import pytest
from deadline import wait_until
from hypothesis import given
from hypothesis import strategies as st
from places import ROOT

from ataraxis._kernels import journal_scan
from ataraxis.errors import CorruptFrame, LoggerError, NotConnectedError
from ataraxis.frame import Frame
from ataraxis.labels import Labels
from ataraxis.log import JournalWriter, LogArchive
from ataraxis.log.journal import input as journal_input
from ataraxis.log.journal.output import Syncer
from ataraxis.log.journal.page import PAGE, FileHeader
from ataraxis.shm.files import is_owned, own


def only(directory: Path, suffix: str = "axj") -> Path:
    (path,) = directory.glob(f"*.{suffix}")
    return path


# ---- entries are read back


VALUES = [
    b"bytes", "text", 7, -1.5, None, True, [1, "a", None], {"a": (1, 2)},
    np.arange(6.0).reshape(2, 3), np.array("2026-11-21", "M8[ns]"),
    np.zeros(3, [("x", "<f4"), ("n", "<i8")]), np.zeros((0, 4)), np.float32(1.5),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda v: type(v).__name__)
def test_a_value_is_read_back(tmp_path: Path, value: object) -> None:
    with JournalWriter(tmp_path) as journal:
        number = journal.log(3, value, time_ns=11, device_time=-5, device_sequence=9)
    frame = LogArchive(tmp_path)[0]
    assert (frame.source, frame.sequence, frame.time_ns) == (3, number, 11)
    assert (frame.device_time, frame.device_sequence) == (-5, 9)
    np.testing.assert_equal(frame.value, value)


DTYPES = ["u1", "<i2", ">i4", "<f8", "c16", "?", "M8[us]", "S5", "<U3"]
BLOCK = st.tuples(
    st.integers(0, 2**32 - 2),
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 5), min_size=1, max_size=4),
    st.integers(-(2**62), 2**62),
    st.booleans(),
)


@given(
    st.lists(BLOCK, max_size=8),
    st.sampled_from([8192, 20000, 2**30]),
    st.booleans(),
)
def test_blocks_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, blocks: list, size: int, checksum: bool
) -> None:
    directory = tmp_path_factory.mktemp("journal")
    chance = np.random.default_rng(1)
    expected = []
    with JournalWriter(
        directory, file_bytes=size, buffer_bytes=4096, checksum=checksum
    ) as journal:
        for source, dtype, shape, time, is_stamped in blocks:
            block = chance.integers(0, 2, shape).astype(dtype)
            ticks = None
            if is_stamped:
                ticks = np.arange(shape[0], dtype="u8") + np.uint64(2**63)
            first = journal.log_block(
                source, block, time_ns=time, step_ns=3, device_time=ticks
            )
            for k in range(shape[0]):
                tick = 2**63 + k if is_stamped else None
                row = block[k : k + 1].reshape(shape[1:])
                expected.append((source, first + k, time + 3 * k, tick, row))
    with LogArchive(directory) as archive:
        assert len(archive) == len(expected)
        assert archive.problems == []
        for frame, (*head, row) in zip(archive, expected, strict=True):
            found = [frame.source, frame.sequence, frame.time_ns, frame.device_time]
            assert found == head
            assert frame.array.tobytes() == row.tobytes()
            assert (frame.array.dtype, frame.array.shape) == (row.dtype, row.shape)
            assert frame.checksum == checksum


def test_large_entries_and_small_ones_keep_their_order(tmp_path: Path) -> None:
    chance = np.random.default_rng(2)
    values = [chance.bytes(int(n)) for n in chance.integers(0, 70_000, 200)]
    with JournalWriter(tmp_path, file_bytes=2**20, buffer_bytes=4096) as journal:
        for value in values:
            journal.log(1, value)
    archive = LogArchive(tmp_path)
    assert len(list(tmp_path.glob("*.axj"))) > 3
    assert [frame.value for frame in archive] == values


def test_encoded_frames_are_kept_as_they_are(tmp_path: Path) -> None:
    frames = [
        Frame.from_value(np.arange(k), source=k, sequence=2 * k, time_ns=k, checksum=c)
        for k, c in enumerate([True, False, True])
    ]
    packed = b"".join(f.to_bytes() for f in frames)
    aligned = b"".join(
        f.to_bytes().ljust(f.nbytes + -f.nbytes % 64, b"!") for f in frames
    )
    with JournalWriter(tmp_path) as journal:
        assert journal.append(packed, align=1) == 3
        assert journal.append(aligned, source=70_000) == 3
        with pytest.raises(ValueError, match="no frame begins at byte 64"):
            journal.append(frames[0].to_bytes() + b"nonsense", align=1)
    archive = LogArchive(tmp_path)
    assert [f.sequence for f in archive] == [0, 2, 4, 0, 2, 4, 0]
    assert [f.source for f in archive] == [0, 1, 2, 70_000, 70_000, 70_000, 0]
    assert [f.checksum for f in archive][:3] == [True, False, True]
    assert archive[2].value.tolist() == [0, 1]


# ---- by number, time, source; in bulk


def some(directory: Path) -> LogArchive:
    """Three sources, interleaved, one with another shape."""
    with JournalWriter(directory, file_bytes=16384) as journal:
        journal.describe(5, "pose", Labels("f8", (2,), ("axis",), {"axis": ["x", "y"]}))
        for k in range(100):
            journal.log(5, np.array([k, -k], "f8"), time_ns=10 * k)
            journal.log(300, np.array([k], "i4"), time_ns=10 * k + 1)
            if k % 10 == 0:
                journal.log(7, f"event {k}", time_ns=10 * k + 2)
                journal.flush()
    return LogArchive(directory)


def test_entries_are_found_by_source_and_time(tmp_path: Path) -> None:
    archive = some(tmp_path)
    assert len(archive) == 210
    assert sorted(archive.sources) == [5, 7, 300]
    assert archive.sources[5].name == "pose"
    pose = archive.read("pose", start=100, stop=200)
    assert pose.data.tolist() == [[k, -k] for k in range(10, 20)]
    assert pose.time.tolist() == list(range(100, 200, 10))
    assert pose.sequence.tolist() == list(range(10, 20))
    xarray = pose.to_xarray()
    assert xarray.sel(axis="y").values.tolist() == list(range(-10, -20, -1))
    assert xarray.time.attrs["units"] == "ns"
    assert archive.read(300).data[:, 0].tolist() == list(range(100))
    assert [f.value for f in archive.entries(7)] == [
        f"event {k}" for k in range(0, 100, 10)
    ]
    window = archive.select(start=995, stop=2000)
    assert len(window) == 0
    assert archive.select(start=990).source.tolist() == [5, 300]


def test_entries_are_found_by_number(tmp_path: Path) -> None:
    archive = some(tmp_path)
    assert archive[-1].value.tolist() == [99]
    assert [f.sequence for f in archive[0:3]] == [0, 0, 0]
    found = archive.select(7).numbers
    picked = archive.read(numbers=archive.select(300).numbers[::-7])
    assert picked.data[:, 0].tolist() == list(range(99, -1, -7))
    assert [archive[int(k)].value for k in found] == [
        f.value for f in archive.entries(7)
    ]
    with pytest.raises(IndexError, match="it has 210"):
        archive[210]
    parts = archive.batches(4, source=5)
    read = np.concatenate([LogArchive(tmp_path).read(numbers=p).data for p in parts])
    assert read[:, 0].tolist() == list(range(100))


def test_entries_that_differ_in_kind_are_named(tmp_path: Path) -> None:
    archive = some(tmp_path)
    with pytest.raises(
        ValueError, match=r"entry 1 of .* is int32 of shape \(1,\), entry 0 is"
    ):
        archive.read()
    with pytest.raises(ValueError, match="no entry"):
        archive.read(9)
    with pytest.raises(KeyError, match="has no source 'poes'"):
        archive.read("poes")


def test_several_journals_and_sessions_are_read_together(tmp_path: Path) -> None:
    for _ in range(2):
        with JournalWriter(tmp_path, "a") as a, JournalWriter(tmp_path, "b") as b:
            a.log(1, "a")
            b.log(2, "b")
    assert [f.value for f in LogArchive(tmp_path)] == ["a", "a", "b", "b"]
    assert [f.value for f in LogArchive(tmp_path, "b")] == ["b", "b"]
    assert len(LogArchive(tmp_path / "a.000001.axj")) == 2
    assert len(list(tmp_path.glob("*.axj"))) == 4


def test_two_writers_of_one_name_lose_nothing(tmp_path: Path) -> None:
    with JournalWriter(tmp_path) as one, JournalWriter(tmp_path) as two:
        for k in range(100):
            one.log(1, k)
            two.log(2, k)
    archive = LogArchive(tmp_path)
    for source in (1, 2):
        assert [f.value for f in archive.entries(source)] == list(range(100))


def test_threads_share_a_writer(tmp_path: Path) -> None:
    with JournalWriter(tmp_path, buffer_bytes=4096, file_bytes=65536) as journal:

        def work(source: int) -> None:
            for k in range(300):
                journal.log_block(source, np.full((3, 4), k))

        threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    archive = LogArchive(tmp_path)
    for source in range(3):
        data = archive.read(source).data[:, 0]
        assert data.tolist() == [k for k in range(300) for _ in range(3)]


# ---- reading with and without the index


@pytest.mark.parametrize("how", ["gone", "cut", "flipped", "foreign", "empty"])
def test_the_index_is_optional(tmp_path: Path, how: str) -> None:
    with JournalWriter(tmp_path) as journal:
        for k in range(50):
            journal.log(k % 3, np.arange(k))
            journal.flush()
    index = only(tmp_path, "axi")
    whole = index.read_bytes()
    if how == "gone":
        index.unlink()
    elif how == "cut":
        index.write_bytes(whole[: PAGE + 64 * 20 + 13])
    elif how == "flipped":
        index.write_bytes(whole[: PAGE + 100] + b"?" + whole[PAGE + 101 :])
    elif how == "foreign":
        index.write_bytes(os.urandom(len(whole)))
    else:
        index.write_bytes(b"")
    archive = LogArchive(tmp_path)
    assert [len(f.array) for f in archive] == list(range(50))
    assert archive.problems == []


def test_a_lost_first_page_is_optional(tmp_path: Path) -> None:
    with JournalWriter(tmp_path) as journal:
        journal.log_block(1, np.arange(10.0))
    data = only(tmp_path)
    data.write_bytes(os.urandom(PAGE) + data.read_bytes()[PAGE:])
    archive = LogArchive(tmp_path)
    assert archive.read(1).data.tolist() == list(range(10))
    assert "taken from its index" in str(archive.problems[0])
    only(tmp_path, "axi").unlink()
    archive = LogArchive(tmp_path)
    assert archive.read(1).data.tolist() == list(range(10))
    assert "wall time are lost" in str(archive.problems[0])


@given(st.data())
def test_any_damage_costs_only_what_it_hits(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("damage")
    values = [b"%d" % k * (k % 90) for k in range(120)]
    places = []
    with JournalWriter(directory) as journal:
        for k, value in enumerate(values):
            before = journal.nbytes
            journal.log(1, value, sequence=k)
            places.append((before, journal.nbytes))
    path = only(directory)
    raw = bytearray(path.read_bytes())
    if data.draw(st.booleans(), "without index"):
        only(directory, "axi").unlink()
    flips = data.draw(st.lists(st.integers(PAGE, len(raw) - 1), max_size=5), "flips")
    for flip in flips:
        raw[flip] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.none() | st.integers(PAGE, len(raw)), "cut")
    path.write_bytes(raw[:cut])
    end = len(raw) if cut is None else cut
    intact = {
        k
        for k, (start, stop) in enumerate(places)
        if start + 64 + len(values[k]) <= end
        and not any(start <= f < start + 64 + len(values[k]) for f in flips)
    }
    archive = LogArchive(directory)
    read, damaged = {}, 0
    for number in range(len(archive)):
        try:
            frame = archive[number]
        except CorruptFrame as error:
            damaged += str(path) in str(error)
        else:
            read[frame.sequence] = frame.value
    assert read.keys() >= intact
    assert all(values[k] == value for k, value in read.items())
    if len(read) < len(values):
        assert damaged or archive.problems


# ---- durability


def test_flushed_entries_are_readable_before_close(tmp_path: Path) -> None:
    with JournalWriter(tmp_path) as journal:
        journal.log(1, "x")
        assert journal.statistics().written == 0
        assert len(LogArchive(tmp_path)) == 0
        assert journal.flush() == 1
        assert journal.statistics().written == 1
        archive = LogArchive(tmp_path)
        assert (len(archive), archive.is_live) == (1, True)
        journal.log(1, "y")
        journal.flush()
        assert archive.refresh()
        assert [f.value for f in archive] == ["x", "y"]
    assert not archive.is_live


def test_an_unclosed_writer_writes_its_entries(tmp_path: Path) -> None:
    journal = JournalWriter(tmp_path)
    journal.log(1, "x")
    del journal
    assert LogArchive(tmp_path)[0].value == "x"


@pytest.mark.parametrize("durability", ["os", "disk"])
@pytest.mark.parametrize("end", ["", "raise SystemExit(0)", "import os; os.fork()"])
def test_a_program_that_ends_writes_its_entries(
    tmp_path: Path, durability: str, end: str
) -> None:
    programs.run(
        f"""
        import sys
        from ataraxis.log import JournalWriter
        journal = JournalWriter(sys.argv[1], durability={durability!r})
        cycle = [journal]
        cycle.append(cycle)
        journal.log(1, "x")
        {end}
        """,
        tmp_path,
        warnings="-W ignore",
    )
    archive = LogArchive(tmp_path)
    assert [f.value for f in archive] == ["x"]
    assert archive.problems == []


def test_a_forked_copy_is_inert(tmp_path: Path) -> None:
    with JournalWriter(tmp_path) as journal:
        journal.log(1, "x")
        pid = os.fork()
        if pid == 0:
            try:
                journal.log(1, "y")
            except NotConnectedError:
                journal.close()
                os._exit(0)
            os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0
        journal.log(1, "z")
    assert [f.value for f in LogArchive(tmp_path)] == ["x", "z"]


LOG = ROOT / "ataraxis" / "log"
MODULES = sorted(
    ".".join(p.relative_to(LOG).with_suffix("").parts) for p in LOG.rglob("[!_]*.py")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings(name: str) -> None:
    module = importlib.import_module(f"ataraxis.log.{name}")
    assert doctest.testmod(module, extraglobs={"Path": Path}).failed == 0


def test_the_disk_is_waited_for(tmp_path: Path) -> None:
    with JournalWriter(tmp_path, durability="disk", sync_s=0.01) as journal:
        journal.log(1, "x")
        wait_until(lambda: journal.statistics().on_disk == 1)
        journal.log(1, "y")
        assert journal.sync() == 2
        assert journal.statistics().on_disk == 2
    with JournalWriter(tmp_path, durability="disk", sync_s=60, sync_bytes=1) as journal:
        journal.log(1, "x")
        assert journal.statistics().on_disk == 1


def test_a_failed_disk_is_never_trusted_again(tmp_path: Path) -> None:
    journal = JournalWriter(tmp_path, durability="disk", sync_s=60)
    journal.log(1, "x")
    journal.sync()
    journal.log(1, "y")
    with (
        mock.patch.object(Syncer, "force", side_effect=OSError(5, "I/O error")),
        pytest.raises(LoggerError, match=r"first 1 entries are on it"),
    ):
        journal.sync()
    with pytest.raises(LoggerError, match="the disk failed"):
        journal.log(1, "z")
    with pytest.raises(LoggerError, match="the disk failed"):
        journal.close()
    assert [f.value for f in LogArchive(tmp_path)] == ["x", "y"]


def test_a_refused_write_states_what_is_safe_and_can_be_retried(
    tmp_path: Path,
) -> None:
    with JournalWriter(tmp_path) as journal:
        journal.log_block(1, np.arange(10))
        journal.flush()
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (journal.nbytes + 100, limit[1]))
            journal.log_block(1, np.arange(10, 20))
            with pytest.raises(LoggerError, match="first 10 entries are in files"):
                journal.flush()
            assert journal.statistics().written == 10
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            signal.signal(signal.SIGXFSZ, old)
        assert journal.flush() == 20
    assert LogArchive(tmp_path).read(1).data.tolist() == list(range(20))


def test_gaps_are_written_into_the_file(tmp_path: Path) -> None:
    with JournalWriter(tmp_path) as journal:
        journal.log(1, "x", sequence=4)
        journal.gap(1, 5, 3, "dropped by the producer")
        journal.log(1, "y", sequence=8)
    (gap,) = LogArchive(tmp_path).gaps
    assert (gap.source, gap.first, gap.count) == (1, 5, 3)
    assert gap.reason == "dropped by the producer"


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="durability"):
        JournalWriter(tmp_path, durability="ram")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="about="):
        JournalWriter(tmp_path, about={"x": "y" * 5000})
    (tmp_path / "file").touch()
    with pytest.raises(LoggerError, match="nothing was written"):
        JournalWriter(tmp_path / "file" / "under")
    journal = JournalWriter(tmp_path / "a")
    with pytest.raises(ValueError, match="source=-1"):
        journal.log(-1, 0)
    with pytest.raises(ValueError, match="source=4294967295"):
        journal.log_block(2**32 - 1, [0])
    with pytest.raises(TypeError, match="Python objects"):
        journal.log_block(1, np.array([None]))
    with pytest.raises(ValueError, match="device stamps"):
        journal.log_block(1, np.zeros(3), device_time=np.zeros(2, int))
    journal.close()
    with pytest.raises(NotConnectedError, match="closed"):
        journal.log(1, 0)
    with pytest.raises(FileNotFoundError):
        LogArchive(tmp_path / "nowhere")


def test_anchors_give_wall_times(tmp_path: Path) -> None:
    before = np.datetime64(time.time_ns(), "ns")
    with JournalWriter(tmp_path) as journal:
        journal.log_block(1, np.zeros(3), step_ns=1)
    archive = LogArchive(tmp_path)
    wall = archive.to_datetime64(archive.read(1).time)
    second = np.timedelta64(1, "s")
    assert before - second < wall[0] < np.datetime64(time.time_ns(), "ns") + second
    assert np.diff(wall).astype(int).tolist() == [1, 1]


def test_the_first_page_describes_the_file(tmp_path: Path) -> None:
    with JournalWriter(tmp_path, "eeg", about={"mouse": 7}):
        pass
    page = FileHeader.unpack(only(tmp_path).read_bytes()[:PAGE])
    assert (page.name, page.number, page.about) == ("eeg", 0, {"mouse": 7})
    assert only(tmp_path, "axi").read_bytes()[:PAGE] == page.pack()


# ---- a recording in progress


def test_a_follower_sees_what_is_written_and_the_end(tmp_path: Path) -> None:
    journal = JournalWriter(tmp_path, file_bytes=8192)
    seen: list[int] = []

    def look() -> None:
        seen.extend(frame.value for frame in LogArchive(tmp_path).follow())

    follower = threading.Thread(target=look)
    follower.start()
    for k in range(200):
        journal.log(1, k)
        if k % 40 == 0:
            journal.flush()
            wait_until(lambda k=k: len(seen) == k + 1)
    journal.close()
    follower.join(10)
    assert seen == list(range(200))


def test_a_reader_does_not_block_the_writer(tmp_path: Path) -> None:
    """A reader that is stopped while it checks for a writer blocks no process."""
    path = tmp_path / "file"
    path.touch()
    asked = os.open(path, os.O_RDONLY)
    taken = os.open(path, os.O_RDWR)
    try:
        assert not is_owned(path)
        assert own(taken)
        assert is_owned(path)
        again = os.open(path, os.O_RDWR)
        assert not own(again)
        os.close(again)
        assert is_owned(path)
    finally:
        os.close(taken)
        os.close(asked)
    assert not is_owned(path)


def test_a_follower_between_two_files_of_a_writer_continues(tmp_path: Path) -> None:
    """The first file is closed, the next is still empty: that is not the end."""
    journal = JournalWriter(tmp_path)
    journal.log(1, 0)
    journal.flush()
    archive = LogArchive(tmp_path)
    frames = archive.follow(timeout=20)
    assert next(frames).value == 0
    journal._roll()
    later = threading.Timer(0.1, lambda: (journal.log(1, 1), journal.close()))
    later.start()
    assert [frame.value for frame in frames] == [1]
    later.join()


def test_a_follower_times_out(tmp_path: Path) -> None:
    with JournalWriter(tmp_path) as journal:
        journal.log(1, "x")
        journal.flush()
        archive = LogArchive(tmp_path)
        assert [f.value for f in archive.follow(timeout=0.05)] == ["x"]
        assert [f.value for f in archive.follow(timeout=0, start=1)] == []


# ---- compatibility with LogArchiveReader


def test_the_methods_of_log_archive_reader(tmp_path: Path) -> None:
    onset = 1_700_000_000_000_000
    with JournalWriter(tmp_path) as journal:
        journal.log(7, onset.to_bytes(8, "little"), device_time=0)
        for k in range(3000):
            journal.log(7, bytes([k % 256]), device_time=k)
    archive = LogArchive(tmp_path)
    assert archive.onset_timestamp_us == onset
    assert archive.message_count == 3000
    stamps, payloads = archive.read_all_messages()
    assert stamps.tolist() == [onset + k for k in range(3000)]
    assert [int(p[0]) for p in payloads] == [k % 256 for k in range(3000)]
    batches = archive.get_batches(workers=2)
    assert len(batches) == 8
    read = [m for batch in batches for m in LogArchive(tmp_path).iter_messages(batch)]
    assert [m.timestamp_us for m in read] == stamps.tolist()


def test_an_entry_begins_before_the_size_of_a_file(tmp_path: Path) -> None:
    """Here one ends exactly there: the next one is in the next file."""
    with JournalWriter(tmp_path, file_bytes=8192) as journal:
        for k in range(100):
            journal.log(1, np.zeros(2), time_ns=k)
    files = [journal_input.InputFile(path) for path in sorted(tmp_path.glob("*.axj"))]
    runs = [run for file in files for run in file.data_runs]
    assert {int(run["stride"]) for run in runs} == {128}
    starts = [int(run["offset"] + (run["count"] - 1) * 128) for run in runs]
    assert max(starts) == 8192 - 128
    assert sum(map(len, files)) == 100
    for file in files:
        file.close()


def test_an_index_read_after_its_entries_counts_the_damaged_ones(
    tmp_path: Path,
) -> None:
    """It was behind, so the first entries were scanned; of later ones it is used."""
    with JournalWriter(tmp_path, "j") as journal:
        for n in (4, 6):
            journal.log_block(1, np.zeros((n, 2)), time_ns=np.arange(n))
            journal.flush()
        journal.log_block(2, np.zeros((10, 100)), time_ns=np.arange(10))
    path, index = only(tmp_path), only(tmp_path, "axi")
    data, rows = bytearray(path.read_bytes()), index.read_bytes()
    later = journal_input.InputFile(path).data_runs[-1]
    first, stride = int(later["offset"]), int(later["stride"])
    os.truncate(path, first)
    index.write_bytes(rows[:PAGE])
    file = journal_input.InputFile(path)
    assert len(file) == 10
    for k in (3, 4):
        data[first + k * stride + 20] ^= 0xFF
    with path.open("r+b") as whole:
        whole.seek(first)
        whole.write(data[first:])
    index.write_bytes(rows)
    assert file.refresh()
    assert len(file) == 20
    file.close()


def test_a_refresh_that_finds_part_of_an_entry_finds_nothing(tmp_path: Path) -> None:
    with JournalWriter(tmp_path) as journal:
        journal.log_block(1, np.zeros((5, 2)), time_ns=np.arange(5))
    path = only(tmp_path)
    file = journal_input.InputFile(path)
    known = len(file)
    for part in (file.data[PAGE : PAGE + 40], bytes(7)):
        with path.open("ab") as end:
            end.write(part)
        assert not file.refresh()
        assert len(file) == known
    file.close()


def test_entries_of_a_damaged_run_are_as_many_as_the_run_had() -> None:
    good, lost = journal_scan.GOOD, journal_scan.LOST
    run = np.zeros((), journal_input.RUN)
    table = np.zeros(4, journal_input.ENTRY)
    table["state"] = [good, lost, good, lost]
    table["bytes"] = [64, 640, 64, 128]

    def states(count: int, entries=table) -> list[int]:
        run["count"] = count
        return journal_input._fit_count(entries, run)["state"].tolist()

    # The widest damage hides those that are missing; padding looks like one more lost.
    assert states(6) == [good, lost, lost, lost, good, lost]
    assert states(3) == [good, lost, good]
    assert states(3, table[[0, 2]]) == [good, good, lost]


# ---- runs: which frames are alike


def _files_of(directory: Path) -> list[journal_input.InputFile]:
    """Return a file with the runs that its writer wrote, and with rebuilt ones."""
    path = only(directory)
    return [journal_input.InputFile(path, is_index_used=used) for used in (True, False)]


@given(
    lengths=st.lists(
        st.tuples(st.integers(0, 70), st.integers(1, 40)), min_size=1, max_size=6
    )
)
def test_a_run_states_whether_its_frames_are_alike(
    lengths: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Blocks of several lengths, some of one padded size: never a wrong length."""
    tmp_path = tmp_path_factory.mktemp("runs")
    with JournalWriter(tmp_path) as journal:
        for length, count in lengths:
            for _ in range(count):
                journal.log(1, np.zeros(length, "u1"))
    for file in _files_of(tmp_path):
        for run in file.data_runs:
            entries = journal_input.list_entries(file.data, run, file.seed)
            word = entries["dtype"] | entries["ndim"].astype("u4") << 8
            word |= entries["flags"].astype("u4") << 16
            if run["padding"]:
                assert run["stride"]
                own = run["stride"] - 64 - (run["padding"] - 1)
                assert set(entries["bytes"].tolist()) == {int(own)}
                assert set(word.tolist()) == {int(run["alike"])}
            else:
                assert run["alike"] == 0
                assert len(set(zip(entries["bytes"], word, strict=True))) > 1


def test_a_shorter_last_block_has_a_run_of_its_own(tmp_path: Path) -> None:
    """One header still tells the length of the many that were whole."""
    with JournalWriter(tmp_path) as journal:
        for _ in range(1000):
            journal.log(1, np.zeros(100, "i2"))
        journal.log(1, np.zeros(99, "i2"))
    for file in _files_of(tmp_path):
        runs = file.data_runs
        assert runs["count"].tolist() == [1000, 1]
        assert len(set(runs["stride"].tolist())) == 1
        assert (runs["padding"] > 0).all()


def test_text_of_many_lengths_keeps_long_runs(tmp_path: Path) -> None:
    with JournalWriter(tmp_path) as journal:
        for k in range(3000):
            journal.log(1, "x" * (1 + k % 60))
    for file in _files_of(tmp_path):
        runs = file.data_runs
        assert runs["count"].tolist() == [3000]
        assert runs["padding"].tolist() == [0]


def test_an_index_of_before_is_read(tmp_path: Path) -> None:
    """Its runs do not state whether frames are alike."""
    with JournalWriter(tmp_path) as journal:
        for k in range(40):
            journal.log(1, np.full(20, k, "u1"))
    path = only(tmp_path, "axi")
    data = bytearray(path.read_bytes())
    runs = np.frombuffer(data, journal_input.RUN, offset=PAGE)
    seed = zlib.crc32(FileHeader.unpack(bytes(data[:PAGE])).uuid)
    for run in runs:
        run["padding"] = run["alike"] = 0
        run["crc"] = zlib.crc32(run.tobytes()[:60], seed)
    path.write_bytes(data)
    (file, _) = _files_of(tmp_path)
    assert len(file.runs) == len(runs)
    assert not file.runs["padding"].any()
    assert LogArchive(tmp_path).read(1).data[:, 0].tolist() == [*range(40)]
