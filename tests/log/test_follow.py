"""Recorder(follow=True): the next streams of a name, and kills of either side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Command
from deadline import wait_until

from ataraxis import LogArchive, Producer, Recorder
from ataraxis.errors import AtaraxisError, StreamExists
from ataraxis.log.journal.input import InputFile
from ataraxis.log.journal.page import files_of
from ataraxis.log.verification import verify
from ataraxis.stream.announcement import announced

xr = pytest.importorskip("xarray")
Place = tuple[Path, Path]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A context, and the directory of a log."""
    context = tmp_path / "context"
    context.mkdir(mode=0o700)
    return context, tmp_path / "log"


def send(context: Path, first: int, count: int, **options: Any) -> None:
    """Be a program that makes the stream, sends, and ends."""
    producer = Producer("camera", shape=(), dtype="i8", context=context, **options)
    for k in range(count):
        producer.send(np.int64(first + k))
    producer.close()


def values(directory: Path) -> list[int]:
    with LogArchive(directory) as archive:
        frames = archive.entries("camera")
        return [int(frame.array) for frame in frames]


def test_the_next_streams_of_the_name_are_recorded(place: Place) -> None:
    context, directory = place
    with _recorder_of_a_first(context, directory) as recorder:
        for part in range(1, 4):
            send(context, 100 * part, 10)
        wait_until(lambda: recorder.statistics()["camera"].frames == 40, 20)
        found = recorder.statistics()["camera"]
        assert found.parts == 4
        assert found.lost == 0
        assert found.is_recording
        assert recorder.is_recording
    assert not recorder.is_recording
    expected = [100 * part + k for part in range(4) for k in range(10)]
    assert values(directory) == expected
    ids = stream_ids(directory)
    assert len(ids) == len(set(ids)) == 4
    report = verify(directory)
    assert report.is_complete
    assert [s.expected for s in report.sources] == [10] * 4
    with LogArchive(directory) as archive:
        assert archive.missing("camera") == 0
        assert not archive.gaps
        sequence = archive.select("camera").sequence
        assert sequence.tolist() == [*range(10)] * 4


def _recorder_of_a_first(context: Path, directory: Path) -> Recorder:
    """Return a recorder that follows, of a stream that has ended."""
    producer = Producer("camera", shape=(), dtype="i8", context=context)
    recorder = Recorder("camera", directory, context=context, follow=True)
    for k in range(10):
        producer.send(np.int64(k))
    producer.close()
    return recorder


def stream_ids(directory: Path) -> list[str]:
    found = []
    for path in files_of(directory, "camera")["camera"]:
        file = InputFile(path)
        found += [one["stream"] for one in file.records.sources.values()]
        file.close()
    return found


def test_without_follow_the_end_of_a_stream_is_the_end(place: Place) -> None:
    context, directory = place
    producer = Producer("camera", shape=(), dtype="i8", context=context)
    with Recorder("camera", directory, context=context) as recorder:
        producer.send(np.int64(1))
        producer.close()
        assert recorder.wait(20)
        assert recorder.statistics()["camera"].parts == 1
        send(context, 5, 1)
    assert values(directory) == [1]


def test_what_was_sent_before_the_stop_is_recorded(place: Place) -> None:
    """Also of a stream that was made just before."""
    context, directory = place
    for turn in range(10):
        own = directory / str(turn)
        recorder = _recorder_of_a_first(context, own)
        producer = Producer("camera", shape=(), dtype="i8", context=context)
        for k in range(5):
            producer.send(np.int64(50 + k))
        recorder.stop()
        producer.unlink()
        assert values(own) == [*range(10), *range(50, 55)]


def test_blocks_have_no_gap_between_parts(place: Place) -> None:
    """Positions go on: nothing is known to be missing between two streams."""
    context, directory = place
    recorder: Recorder | None = None
    for part in range(3):
        producer = Producer(
            "probe", shape=(5, 2), dtype="i4", dims=("time", "channel"),
            attrs={"sample_rate_hz": 1000}, context=context,
        )  # fmt: skip
        if recorder is None:
            recorder = Recorder("probe", directory, context=context, follow=True)
        for k in range(40):
            row = np.full((5, 2), 1000 * part + k, "i4")
            producer.send(row, time_ns=part * 10**9 + (k + 1) * 5_000_000)
        producer.close()
    assert recorder is not None
    recorder.stop()
    with xr.open_dataset(directory, engine="ataraxis") as dataset:
        assert dataset.attrs["missing"] == 0
        assert dataset.sizes["time"] == 3 * 40 * 5
        assert (np.diff(dataset["position"].values) == 1).all()
        assert dataset["probe"].values[::5, 0].tolist() == [
            1000 * part + k for part in range(3) for k in range(40)
        ]


def test_loss_in_one_part_is_not_hidden_by_another(place: Place) -> None:
    """The numbers of the second stream begin at 0 again."""
    context, directory = place
    producer = Producer(
        "camera", shape=(), dtype="i8", context=context, buffer_count=4,
        on_full="drop_newest",
    )  # fmt: skip
    recorder = Recorder("camera", directory, context=context, follow=True)
    sent = 200_000
    for k in range(sent):
        producer.send(np.int64(k))
    producer.close()
    send(context, 0, 10)
    wait_until(lambda: recorder.statistics()["camera"].parts == 2, 20)
    recorder.stop()
    found = recorder.statistics()["camera"]
    missing = sum(source.missing for source in verify(directory).sources)
    with LogArchive(directory) as archive:
        assert archive.missing("camera") == missing == found.lost
        assert found.frames + missing == sent + 10


# ---- kills

SENDER = """
import sys, time
import numpy as np
from ataraxis import Producer
from ataraxis.errors import AtaraxisError, StreamExists
context, first = sys.argv[1], int(sys.argv[2])
while True:
    try:
        producer = Producer(
            "camera", shape=(), dtype="i8", context=context, buffer_count=64,
            join_timeout=20.0,
        )
        break
    except StreamExists:
        time.sleep(0.01)
k = 0
while True:
    producer.send(np.int64(first + k))
    print(first + k, flush=True)
    k += 1
    time.sleep(0.0005)
"""

FOLLOWER = """
import sys, time
from ataraxis import Recorder
context, directory = sys.argv[1:]
recorder = Recorder("camera", directory, context=context, follow=True, timeout=None)
print("ready", flush=True)
sys.stdin.readline()
recorder.stop()
"""


def program(text: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", text, *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def follower_of(context: Path, directory: Path) -> subprocess.Popen[str]:
    """Start a recorder, and wait until it has joined."""
    process = program(FOLLOWER, context, directory)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def kill(process: subprocess.Popen[str]) -> list[str]:
    """Kill a program, and return what it has printed."""
    os.kill(process.pid, signal.SIGKILL)
    out, _ = process.communicate()
    return out.split()


def test_kills_of_producer_and_recorder_lose_nothing(place: Place) -> None:
    """What a send has returned for is on the disk at the end."""
    context, directory = place
    rng = np.random.default_rng(3)
    follower = program(FOLLOWER, context, directory)
    wait_until(lambda: announced("camera", context), 20)
    sender = program(SENDER, context, 0)
    sent: list[int] = []
    try:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "ready\n"
        for turn in range(1, 7):
            time.sleep(rng.uniform(0.0, 0.4))
            if turn % 3:
                sent += map(int, kill(sender))
                sender = program(SENDER, context, turn * 10**6)
            if turn % 2:
                kill(follower)
                follower = follower_of(context, directory)
        time.sleep(0.3)
        sent += map(int, kill(sender))
        follower.communicate("stop\n", timeout=60)
        assert follower.returncode == 0
    finally:
        for process in (sender, follower):
            if process.poll() is None:
                kill(process)
    recorded = values(directory)
    assert set(sent) <= set(recorded)
    assert len(recorded) == len(set(recorded))
    assert verify(directory).missing == 0


def test_a_stream_that_a_dead_follower_has_not_read_is_not_replaced(
    place: Place,
) -> None:
    context, directory = place
    producer = Producer("camera", shape=(), dtype="i8", context=context)
    follower = follower_of(context, directory)
    producer.send(np.int64(1))
    kill(follower)
    producer.send(np.int64(2))
    producer.close()
    with pytest.raises(StreamExists, match="has not read"):
        Producer("camera", shape=(), dtype="i8", context=context)
    with Recorder("camera", directory, context=context, follow=True) as recorder:
        wait_until(lambda: values(directory) == [1, 2], 20)
        send(context, 3, 1)
        wait_until(lambda: recorder.statistics()["camera"].parts == 2, 20)
    assert values(directory) == [1, 2, 3]


def test_the_command_line_follows(tmp_path: Path) -> None:
    """`ataraxis record --follow`: two programs of one name, until a signal."""
    log = tmp_path / "log"
    with Command("record", "parts", "--follow", "-o", str(log)) as running:
        running.expect("it heeds signals")
        for part in range(2):
            with Producer("parts", shape=(2,), dtype="i8") as producer:
                producer.wait_for_subscribers(1, timeout=30)
                for k in range(10):
                    producer.send(np.full(2, 10 * part + k), timeout=20)
        wait_until(lambda: _frames(log) == 20, 30, "both parts on the disk")
        running.process.send_signal(signal.SIGINT)
        code, output = running.end()
    assert code == 0, output
    assert "parts: 20 frames recorded, 0 lost" in output


def _frames(log: Path) -> int:
    try:
        with LogArchive(log) as archive:
            return len(archive.read("parts").data)
    except (OSError, AtaraxisError, ValueError, KeyError):
        return 0
