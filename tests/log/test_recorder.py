"""The recorder: every frame of a stream is in a file, or counted."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import workers_log
from click.testing import CliRunner
from deadline import wait_until
from programs import Program

from ataraxis import Consumer, LogArchive, Producer, Recorder
from ataraxis.cli import main
from ataraxis.errors import LoggerError, SegmentNotFound
from ataraxis.log.disk_watch import DiskWatch, LowDisk
from ataraxis.log.journal.page import Gap
from ataraxis.log.verification import verify

spawn = multiprocessing.get_context("spawn")


@contextmanager
def full_disk(nbytes: int) -> Iterator[None]:
    """Limit the size of files to `nbytes`, as on a full disk."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, limit[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, old)


def test_streams_are_recorded_with_their_labels_and_stamps(tmp_path: Path) -> None:
    camera = Producer(
        "camera", shape=(40, 50), dtype="u1", dims=("y", "x"), attrs={"rate_hz": 120}
    )
    events = Producer("events", 200, 64)
    with Recorder(["camera", "events"], tmp_path) as recorder:
        for k in range(100):
            image = np.full((40, 50), k, "u1")
            camera.send(image, device_time=1000 + k, device_sequence=k, time_ns=10 * k)
            events.send(f"event {k}")
        assert recorder.is_recording
    assert not recorder.is_recording
    assert {s.frames for s in recorder.statistics().values()} == {100}
    archive = LogArchive(tmp_path)
    assert [info.name for info in archive.sources.values()] == ["camera", "events"]
    block = archive.read("camera")
    assert (block.data == np.arange(100, dtype="u1")[:, None, None]).all()
    assert block.labels == camera.labels
    assert block.time.tolist() == [10 * k for k in range(100)]
    assert block.device is not None
    assert block.device.tolist() == [[1000 + k, k] for k in range(100)]
    assert block.to_xarray().dims == ("time", "y", "x")
    assert all(frame.checksum for frame in archive)
    found = [frame.value for frame in archive.entries("events")]
    assert found == [f"event {k}" for k in range(100)]
    assert verify(tmp_path).is_complete
    camera.unlink()
    events.unlink()


def test_large_frames_are_recorded(tmp_path: Path) -> None:
    producer = Producer("large", shape=(300_000,), dtype="u2", buffer_count=3)
    with Recorder("large", tmp_path, file_bytes=2**21):
        for k in range(12):
            producer.send(np.full(300_000, k, "u2"))
    block = LogArchive(tmp_path).read("large")
    assert (block.data == np.arange(12)[:, None]).all()
    assert len(list(tmp_path.glob("*.axj"))) > 2
    producer.unlink()


def test_a_recording_ends_with_its_stream(tmp_path: Path) -> None:
    with Producer("ends", 64, 8) as producer:
        recorder = Recorder("ends", tmp_path)
        for k in range(20):
            producer.send(b"%d" % k)
        assert not recorder.wait(0)
    assert recorder.wait(10)
    recorder.stop()
    assert [f.value for f in LogArchive(tmp_path)] == [b"%d" % k for k in range(20)]


def test_frames_the_producer_gave_up_are_counted_in_the_file(tmp_path: Path) -> None:
    producer = Producer("hasty", 64, 4, on_full="drop_newest", sync=True)
    slow = Consumer("hasty")
    losses = []
    recorder = Recorder("hasty", tmp_path, on_loss=losses.append)
    sent = sum(producer.send(b"x") for _ in range(10))
    assert sent == 4
    for _ in range(4):
        slow.receive().release()
    wait_until(lambda: recorder.statistics()["hasty"].lost == 6)
    producer.send(b"y")
    recorder.stop()
    assert sum(gap.count for gap in losses) == 6
    (report,) = verify(tmp_path).sources
    assert (report.expected, report.received, report.missing) == (11, 5, 6)
    slow.close()
    producer.unlink()


@pytest.mark.parametrize("shared", [False, True])
def test_a_killed_recorder_loses_no_frame(tmp_path: Path, shared: bool) -> None:
    producer = Producer(
        "precious", shape=(3,), dtype="i8", buffer_count=256, shared=shared
    )
    for round_ in range(3):
        ready = spawn.Event()
        process = spawn.Process(
            target=workers_log.record, args=("precious", tmp_path, ready)
        )
        process.start()
        assert ready.wait(60)
        for k in range(50):
            producer.send(np.full(3, 60 * round_ + k))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        for k in range(50, 60):
            producer.send(np.full(3, 60 * round_ + k))
    # Counting the readers reaps dead ones.
    assert producer.subscriber_count == 1
    assert producer.statistics().detached == ("recorder",)
    assert "did not close" in str(verify(tmp_path).problems[-1])
    with Recorder("precious", tmp_path):
        pass
    block = LogArchive(tmp_path).read("precious")
    assert block.data[:, 0].tolist() == list(range(180))
    assert block.sequence.tolist() == list(range(180))
    report = verify(tmp_path)
    assert report.sources[0].missing == 0
    assert report.is_complete  # the last went on where the killed ones were
    producer.unlink()


KILLED_BEFORE_RELEASE = """
import os, sys, time
from ataraxis import Recorder
from ataraxis.log import recorder

class Killed(recorder.RingToFile):
    def release(self):
        if self.held:
            os.kill(os.getpid(), 9)

recorder.RingToFile = Killed
with Recorder("written", sys.argv[1]):
    print("recording", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("shared", [False, True])
def test_frames_of_a_recorder_killed_before_it_released_them_are_written_once(
    tmp_path: Path, shared: bool
) -> None:
    producer = Producer("written", 64, 16, shared=shared)
    for round_ in range(3):
        with Program(KILLED_BEFORE_RELEASE, tmp_path) as program:
            assert program.process.stdout is not None
            program.process.stdout.readline()  # it may be dead already
            for k in range(3):
                producer.send(b"%d" % (3 * round_ + k))
            program.process.wait(60)
    with Recorder("written", tmp_path) as recorder:
        producer.send(b"9")
    assert recorder.statistics()["written"].skipped > 0
    assert [f.value for f in LogArchive(tmp_path)] == [b"%d" % k for k in range(10)]
    (report,) = verify(tmp_path).sources
    assert (report.expected, report.received, report.missing) == (10, 10, 0)
    producer.unlink()


def test_a_recorder_detached_for_too_long_counts_what_it_missed(
    tmp_path: Path,
) -> None:
    producer = Producer("impatient", shape=(3,), dtype="i8", buffer_count=16)
    ready = spawn.Event()
    process = spawn.Process(
        target=workers_log.record,
        args=("impatient", tmp_path, ready),
        kwargs={"detached_timeout": 0.1},
    )
    process.start()
    assert ready.wait(60)
    for k in range(10):
        producer.send(np.full(3, k))
    wait_until(lambda: len(LogArchive(tmp_path)) == 10)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    for k in range(10, 60):
        producer.send(np.full(3, k))
    losses: list[Gap] = []
    with Recorder("impatient", tmp_path, on_loss=losses.append):
        pass
    (gap,) = losses
    assert gap.first == 10
    assert LogArchive(tmp_path).gaps[0].count == gap.count
    kept = LogArchive(tmp_path).read("impatient").data[:, 0].tolist()
    assert kept == [*range(10), *range(10 + gap.count, 60)]
    (report,) = verify(tmp_path).sources
    assert (report.expected, report.missing) == (60, gap.count)
    producer.unlink()


def test_several_producers_of_one_stream_are_recorded(tmp_path: Path) -> None:
    ends = [Producer("shared", 64, 16, shared=True) for _ in range(2)]
    with Recorder("shared", tmp_path):
        for k in range(100):
            ends[k % 2].send(b"%d" % k)
    assert [f.value for f in LogArchive(tmp_path)] == [b"%d" % k for k in range(100)]
    assert verify(tmp_path).is_complete
    for end in ends:
        end.unlink()


def test_waiting_for_an_unfinished_frame_uses_no_cpu(tmp_path: Path) -> None:
    producer = Producer("slow", 64, 8)
    with Recorder("slow", tmp_path) as recorder:
        buffer = producer.next_to_send()
        began = time.process_time()
        wait_until_slept(0.5)
        assert time.process_time() - began < 0.2
        buffer.write(b"made")
        buffer.send()
        wait_until(lambda: recorder.statistics()["slow"].frames == 1)
    producer.unlink()


def wait_until_slept(seconds: float) -> None:
    """Wait, during which nothing is expected to happen."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.1)


def test_another_stream_of_the_name_is_recorded_from_its_start(tmp_path: Path) -> None:
    for _ in range(2):
        with Producer("again", 64, 8) as producer:
            with Recorder("again", tmp_path):
                for k in range(5):
                    producer.send(b"%d" % k)
            producer.unlink()
    archive = LogArchive(tmp_path)
    assert [f.value for f in archive] == [b"%d" % k for k in range(5)] * 2
    report = verify(tmp_path)
    assert [s.received for s in report.sources] == [5, 5]
    assert report.is_complete


def test_a_full_disk_is_reported_at_once_and_costs_nothing(tmp_path: Path) -> None:
    producer = Producer("stubborn", shape=(1000,), dtype="f8", buffer_count=8)
    reported = []
    recorder = Recorder("stubborn", tmp_path, on_error=reported.append)
    for k in range(4):
        producer.send(np.full(1000, k))
    wait_until(lambda: recorder.statistics()["stubborn"].frames == 4)
    with full_disk(50_000):
        for k in range(4, 10):
            producer.send(np.full(1000, k))
        wait_until(lambda: bool(reported), timeout=5)
        with pytest.raises(
            LoggerError, match=r"first \d entries are in files and safe"
        ):
            recorder.check()
        safe = LogArchive(tmp_path).read("stubborn").data[:, 0]
        assert safe.tolist() == list(range(len(safe)))
    producer.send(np.full(1000, 10))
    recorder.stop()
    assert len(reported) == 1
    assert LogArchive(tmp_path).read("stubborn").data[:, 0].tolist() == list(range(11))
    producer.unlink()


def test_frames_a_full_disk_refused_stay_in_the_ring(tmp_path: Path) -> None:
    producer = Producer("kept", shape=(1000,), dtype="f8", buffer_count=8)
    recorder = Recorder("kept", tmp_path)
    with full_disk(30_000):
        for k in range(8):
            producer.send(np.full(1000, k))
        with pytest.raises(LoggerError, match="safe"):
            recorder.stop()
    del recorder
    with Recorder("kept", tmp_path):
        pass
    assert LogArchive(tmp_path).read("kept").data[:, 0].tolist() == list(range(8))
    producer.unlink()


@pytest.mark.parametrize("durability", ["os", "disk"])
@pytest.mark.parametrize("is_whole_directory", [True, False])
def test_files_that_were_removed_are_written_again(
    tmp_path: Path, durability: Any, is_whole_directory: bool
) -> None:
    place = tmp_path / "gone"
    with Producer("homeless", 64, 8) as producer:
        recorder = Recorder("homeless", place, durability=durability)
        for k in range(30):
            producer.send(b"%d" % k)
            if k == 15:
                wait_until(lambda: recorder.statistics()["homeless"].frames == 16)
                if is_whole_directory:
                    shutil.rmtree(place)
                else:
                    for path in place.iterdir():
                        path.unlink()
        recorder.stop()
    with LogArchive(place) as log:
        assert [frame.value for frame in log] == [b"%d" % k for k in range(30)]
        assert not log.problems
    assert verify(place).is_complete


def test_a_low_disk_is_reported_once(tmp_path: Path) -> None:
    reported: list[LowDisk] = []
    watch = DiskWatch(tmp_path, 600, reported.append)
    free = os.statvfs(tmp_path)
    little = mock.Mock(f_bavail=2**19, f_frsize=4096)
    with mock.patch("os.statvfs", return_value=little):
        watch.check(0, is_forced=True)
        assert reported == []
        for nbytes in (2**31, 2**33):
            watch.check(nbytes, is_forced=True)
    assert len(reported) == 1
    assert reported[0].free_bytes == 2**31
    assert reported[0].seconds_left < 600
    with mock.patch("os.statvfs", return_value=free):
        watch.check(2**33, is_forced=True)
    with mock.patch("os.statvfs", return_value=mock.Mock(f_bavail=1, f_frsize=4096)):
        quiet = DiskWatch(tmp_path, 600, None)
        with pytest.warns(RuntimeWarning, match="make room"):
            quiet.check(2**33, is_forced=True)
        with warnings.catch_warnings(action="error"):
            quiet.check(2**33, is_forced=True)


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(SegmentNotFound, match="missing"):
        Recorder("missing", tmp_path)
    with pytest.raises(ValueError, match="unique names"):
        Recorder(["a", "a"], tmp_path)
    with Producer("here", 64, 8) as producer:
        (tmp_path / "file").touch()
        with pytest.raises(LoggerError, match="nothing"):
            Recorder("here", tmp_path / "file")
        assert producer.subscriber_count == 0
        producer.unlink()


def test_the_command_line(tmp_path: Path) -> None:
    run = CliRunner().invoke
    with Producer("cli", 64, 64) as producer:
        for k in range(10):
            producer.send(b"%d" % k)
    done = run(main, ["record", "cli", "-o", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "cli: 10 frames recorded, 0 lost; it had ended before" in done.output
    done = run(main, ["verify", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "10 expected, 10 received, 0 missing" in done.output
    (data,) = tmp_path.glob("*.axj")
    whole = data.read_bytes()
    data.write_bytes(whole[:-394])
    done = run(main, ["verify", "--json", str(tmp_path)])
    assert done.exit_code == 1
    assert json.loads(done.output)["sources"][0]["received"] == 8
    done = run(main, ["recover", str(tmp_path)])
    assert "8 entries whole, index rebuilt" in done.output
    assert "cut off" in done.output
    assert data.read_bytes() == whole[:-394]
    done = run(main, ["recover", "--json", str(tmp_path)])
    assert not json.loads(done.output)[0]["is_indexed_anew"]
    assert run(main, ["verify", str(tmp_path / "nowhere")]).exit_code == 1
