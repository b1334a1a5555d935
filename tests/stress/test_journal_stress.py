"""Journals: writers killed, files damaged, power lost, disks full."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import variants
import workers_log

from ataraxis import LogArchive, Producer, Recorder
from ataraxis.errors import CorruptFrame, LayoutError, LoggerError
from ataraxis.log import JournalWriter
from ataraxis.log.journal.output import Syncer
from ataraxis.log.recovery import recover
from ataraxis.log.verification import verify

spawn = multiprocessing.get_context("spawn")


# ---- writers killed


def written(directory: Path) -> list[int]:
    """Return the first item of each entry of `workers_log.write`; all items agree."""
    found = []
    for frame in LogArchive(directory):
        assert (frame.array == frame.array[0]).all()
        found.append(int(frame.array[0]))
    return found


def test_a_writer_killed_at_random(
    tmp_path: Path, figure: Callable[..., float]
) -> None:
    chance = random.Random(6)
    for round_ in range(int(figure(200, 3))):
        directory = tmp_path / str(round_)
        ours, theirs = spawn.Pipe()
        process = spawn.Process(
            target=workers_log.write,
            args=(directory, theirs, round_, chance.choice([10**9, 5000])),
        )
        process.start()
        theirs.close()
        safe = ours.recv()
        until = time.monotonic() + chance.random() * 0.1
        try:
            while time.monotonic() < until:
                if ours.poll(0.001):
                    safe = ours.recv()
            os.kill(process.pid, signal.SIGKILL)
            while True:
                safe = ours.recv()
        except EOFError:
            pass
        process.join()
        found = written(directory)
        assert found == list(range(len(found)))
        assert len(found) >= safe
        reports = recover(directory)
        assert sum(report.entries for report in reports) == len(found)
        reported = [str(problem) for report in reports for problem in report.problems]
        assert any("did not close" in t or "never begun" in t for t in reported)
        assert written(directory) == found
        shutil.rmtree(directory)


CRASH = """
import sys
from pathlib import Path
# An editable install of this very package would come first.
sys.meta_path[:] = [f for f in sys.meta_path if "Mesonpy" not in type(f).__name__]
sys.path.insert(0, sys.argv[1])
import numpy as np
from ataraxis.log.journal.writer import JournalWriter
journal = JournalWriter(Path(sys.argv[2]), file_bytes=65536)
for k in range(100):
    journal.log(1, np.full(200, k))
    if k % 10 == 9:
        print(journal.flush(), flush=True)
journal.close()
"""
LEAST = {
    "journal_opened": 0, "journal_begun": 0, "journal_unwritten": 0,
    "journal_written": 10, "journal_indexed": 10, "journal_rolling": 30,
}  # fmt: skip


def test_every_journal_point_has_a_line() -> None:
    assert variants.journal_points() == set(LEAST)


@pytest.mark.parametrize("point", sorted(LEAST))
def test_a_writer_killed_at(point: str, package: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", CRASH, package, tmp_path],
        env={**os.environ, "ATARAXIS_CRASH_AT": point},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL, f"{point} was not reached: {done.stderr}"
    safe = int(done.stdout.split()[-1]) if done.stdout else 0
    archive = LogArchive(tmp_path)
    found = [int(frame.array[0]) for frame in archive]
    assert found == list(range(len(found)))
    assert len(found) >= max(safe, LEAST[point])
    assert archive.problems
    # The next session takes the next number, and nothing of this one is lost.
    with JournalWriter(tmp_path) as journal:
        journal.log(1, "after")
    values = [frame.value for frame in LogArchive(tmp_path)]
    assert len(values) == len(found) + 1
    assert values[-1] == "after"


# ---- files damaged


def test_damage(tmp_path: Path, figure: Callable[..., float]) -> None:
    chance = random.Random(7)
    values = [
        chance.randbytes(chance.choice([0, 1, 63, 64, 65, 200, 3000]))
        for _ in range(300)
    ]
    places = []
    with JournalWriter(tmp_path / "whole") as journal:
        for k, value in enumerate(values):
            before = journal.nbytes
            journal.log(7, value, sequence=k, device_time=k)
            places.append((before, before + 80 + len(value)))
            if chance.random() < 0.05:
                journal.flush()
    names = [path.name for path in sorted((tmp_path / "whole").iterdir())]
    index, data = ((tmp_path / "whole" / name).read_bytes() for name in names)
    directory = tmp_path / "hurt"
    directory.mkdir()
    for _ in range(int(figure(10_000, 200))):
        hurt, marks = bytearray(data), bytearray(index)
        flips = [
            chance.randrange(len(hurt)) for _ in range(chance.choice([0, 1, 1, 8]))
        ]
        for flip in flips:
            hurt[flip] ^= 1 << chance.randrange(8)
        for _ in range(chance.choice([0, 0, 1, 5])):
            marks[chance.randrange(len(marks))] ^= 1 << chance.randrange(8)
        end = chance.choice([len(hurt), len(hurt), chance.randrange(len(hurt))])
        marks = marks[: chance.choice([len(marks), chance.randrange(len(marks)), 0])]
        (directory / names[0]).write_bytes(marks)
        (directory / names[1]).write_bytes(hurt[:end])
        intact = {
            k
            for k, (start, stop) in enumerate(places)
            if stop <= end and not any(start <= flip < stop for flip in flips)
        }
        check(directory, values, intact)


def check(directory: Path, values: list[bytes], intact: set[int]) -> None:
    """Every intact entry is read, every other one is reported missing."""
    try:
        archive = LogArchive(directory)
    except LayoutError:
        assert not intact
        return
    read: dict[int, bytes] = {}
    damaged = 0
    for number in range(len(archive)):
        try:
            frame = archive[number]
        except CorruptFrame:
            damaged += 1
        else:
            read[frame.sequence] = frame.value
    # With one intact header left, the seed of a file is unknown.
    if archive.problems and len(intact) < 2 and not read:
        return
    assert read.keys() >= intact
    assert all(values[k] == value for k, value in read.items())
    assert damaged or archive.problems or len(read) == len(values)
    report = verify(directory)
    assert sum(source.received for source in report.sources) == len(read)
    assert report.is_complete or len(read) < len(values) or report.problems


# ---- power lost


def test_power_loss_costs_no_more_than_was_promised(
    tmp_path: Path, figure: Callable[..., float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written after the last fdatasync is dropped: the rest was promised."""
    kept: dict[Path, int] = {}

    def force(self: Syncer, fd: int) -> None:
        # The disk may lose everything written since the call began.
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        kept[path] = max(kept.get(path, 0), os.fstat(fd).st_size)

    monkeypatch.setattr(Syncer, "force", force)
    chance = random.Random(8)
    for round_ in range(int(figure(200, 5))):
        directory = tmp_path / str(round_)
        kept.clear()
        limit = chance.choice([1, 5000, 100_000])
        journal = JournalWriter(
            directory, durability="disk", sync_s=chance.choice([0.001, 60]),
            sync_bytes=limit, file_bytes=chance.choice([2**16, 2**30]),
        )  # fmt: skip
        accepted = 0
        for _ in range(chance.randrange(1, 60)):
            journal.log_block(1, np.full((chance.randrange(1, 9), 40), accepted))
            accepted = journal.entries
        promised = journal.statistics().on_disk
        lost = tmp_path / f"{round_}.lost"
        shutil.copytree(directory, lost)
        sizes = dict(kept)
        journal.close()
        for path in lost.iterdir():
            # The index was never promised; the name and first page were.
            size = sizes.get(directory / path.name, 4096)
            os.truncate(path, min(size, path.stat().st_size))
        found = LogArchive(lost)
        assert len(found) >= promised
        assert [f.sequence for f in found] == list(range(len(found)))
        frame_bytes = 64 + 320
        assert (accepted - promised) * frame_bytes <= limit + 9 * frame_bytes + 8192
        shutil.rmtree(directory)
        shutil.rmtree(lost)


# ---- recorders killed


@pytest.mark.parametrize("shared", [False, True])
def test_a_recorder_killed_at_random_misses_nothing(
    tmp_path: Path, arena: Path, figure: Callable[..., float], shared: bool
) -> None:
    chance = random.Random(9)
    producer = Producer(
        "precious", shape=(50,), dtype="i8", buffer_count=64, context=arena,
        on_stall=lambda statistics: None, shared=shared,
    )  # fmt: skip
    sent = 0
    for _ in range(int(figure(100, 4))):
        ready = spawn.Event()
        process = spawn.Process(
            target=workers_log.record,
            args=("precious", tmp_path, ready),
            kwargs={"context": arena},
        )
        process.start()
        assert ready.wait(60)
        # At any moment, also in the middle of a burst.
        until = time.monotonic() + chance.random() * 0.05
        while time.monotonic() < until:
            producer.send(np.full(50, sent))
            sent += 1
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    with Recorder("precious", tmp_path, context=arena):
        pass
    data = LogArchive(tmp_path).read("precious").data
    assert data[:, 0].tolist() == list(range(sent))
    assert verify(tmp_path).sources[0].missing == 0
    producer.unlink()


# ---- disks full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount 4 MiB of memory."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if os.geteuid() != 0 or mount is None or umount is None:
        pytest.skip("mounting a small tmpfs needs root")
    path = tmp_path / "disk"
    path.mkdir()
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=4m", "tmpfs", path], capture_output=True
    )
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted: {done.stderr.decode()}")
    yield path
    subprocess.run([umount, "-l", path], check=True)


def test_a_disk_that_fills_up(small_disk: Path) -> None:
    journal = JournalWriter(small_disk, "full", buffer_bytes=65536)
    rows = np.arange(2_000_000, dtype="i8").reshape(-1, 100)
    began = time.monotonic()
    with pytest.raises(LoggerError, match=r"No space left.*are in files and safe"):
        journal.log_block(1, rows)
    assert time.monotonic() - began < 1
    safe = journal.statistics().written
    archive = LogArchive(small_disk)
    assert len(archive) >= safe > 1000
    assert (archive.read(1).data[:safe] == rows[:safe]).all()
    with pytest.raises(LoggerError):
        journal.close()


def test_a_recorder_on_a_disk_that_fills_up(small_disk: Path, arena: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(2**21))
    reported: list[tuple[float, LoggerError]] = []
    producer = Producer(
        "images", shape=(100_000,), dtype="u1", buffer_count=8, context=arena,
        on_stall=lambda statistics: None,
    )  # fmt: skip
    recorder = Recorder(
        "images", small_disk, context=arena, on_low_disk=lambda low: None,
        on_error=lambda error: reported.append((time.monotonic(), error)),
    )  # fmt: skip
    began = time.monotonic()
    sent = 0
    while not reported:
        assert time.monotonic() - began < 30
        if producer.next_to_send(blocking=False) is not None:
            producer.send(np.full(100_000, sent % 251, "u1"))
            sent += 1
    assert "No space left" in str(reported[0][1])
    safe = LogArchive(small_disk).read("images").data
    assert (safe == (np.arange(len(safe)) % 251)[:, None]).all()
    # Room is made: everything that waited is written.
    ballast.unlink()
    recorder.stop()
    data = LogArchive(small_disk).read("images").data
    assert len(data) == sent
    assert (data == (np.arange(sent) % 251)[:, None]).all()
    producer.unlink()
