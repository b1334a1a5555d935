"""Commands end in order at the first signal, at once at the second."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import (
    COMMANDS,
    Camera,
    Command,
    ended_in_order,
    rig_of,
    unlink_what_may_stay,
)
from deadline import wait_until
from disks import Disk

from ataraxis import LogArchive
from ataraxis.session import SessionFolder
from ataraxis.shm.process import Ending
from ataraxis.stream.inspector import Inspector

CASES = [
    ("record", signal.SIGINT, 1), ("record", signal.SIGHUP, 2),
    ("run", signal.SIGTERM, 1), ("proxy", signal.SIGHUP, 1),
    ("replay", signal.SIGTERM, 1), ("serve", signal.SIGHUP, 1),
    ("serve", signal.SIGINT, 2), ("check", signal.SIGINT, 1),
]  # fmt: skip


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(tmp_path, monkeypatch)


@pytest.mark.parametrize(("command", "number", "times"), CASES)
def test_a_command_ends_in_order(
    command: str, number: int, times: int, context: Path, tmp_path: Path
) -> None:
    assert {case[0] for case in CASES} == set(COMMANDS)
    try:
        ended_in_order(command, number, times, 0.5, tmp_path)
    finally:
        unlink_what_may_stay(context)


def test_signals_are_counted_and_the_handlers_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Ending() as ending:
        assert not ending.first.wait(0)
        os.kill(os.getpid(), signal.SIGTERM)
        assert ending.first.wait(5)
        assert not ending.second.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        assert ending.second.wait(5)
        assert ending.name == "SIGINT"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Ending() as ending:
            signal.raise_signal(signal.SIGHUP)
            assert not ending.first.wait(0)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_in_a_thread_there_are_no_signals_to_take() -> None:
    found: list[object] = []

    def run() -> None:
        with Ending() as ending:
            found.append(ending.first.wait(0))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [False]


def test_record_that_waits_for_a_stream_ends_at_once(tmp_path: Path) -> None:
    with Command("record", "never", "-o", str(tmp_path / "log")) as running:
        running.expect("it heeds signals")
        running.process.send_signal(signal.SIGTERM)
        code, output = running.end()
    assert code == 1
    assert "ended by SIGTERM before all streams existed" in output
    assert not (tmp_path / "log").exists()


@contextlib.contextmanager
def recording(where: Path) -> Iterator[Command]:
    """`record` of a camera, which has begun to write."""
    with Command("record", "camera", "-o", str(where)) as running:
        wait_until(lambda: _size(where) > 8192, 60, "frames on the disk")
        yield running


def test_while_the_disk_refuses_the_first_signal_waits_and_room_ends_it(
    disk: Disk, tmp_path: Path
) -> None:
    camera = Camera()
    try:
        with recording(tmp_path / "log") as running:
            with disk.refusing():
                running.expect("could not be written")
                running.process.send_signal(signal.SIGINT)
                running.expect("Not over yet")
                wait_until(lambda: Inspector("camera").statistics().is_stalled, 20)
            code, output = running.end()
        assert code == 0, output
        assert camera.goes_on()
    finally:
        camera.close()
    (stream,) = re.findall(r"camera: (\d+) frames recorded, 0 lost", output)
    with contextlib.closing(LogArchive(tmp_path / "log")) as archive:
        found = archive.read("camera").sequence.tolist()
    assert found == list(range(found[0], found[0] + int(stream)))


def test_the_second_signal_lets_the_camera_go_and_names_the_frames(
    disk: Disk, tmp_path: Path
) -> None:
    camera = Camera()
    try:
        with recording(tmp_path / "log") as running, disk.refusing():
            running.expect("could not be written")
            running.process.send_signal(signal.SIGTERM)
            running.expect("Not over yet")
            wait_until(lambda: Inspector("camera").statistics().is_stalled, 20)
            sent = Inspector("camera").statistics().sent
            began = time.monotonic()
            running.process.send_signal(signal.SIGTERM)
            code, output = running.end()
            assert time.monotonic() - began < 5
            assert camera.goes_on()
        assert not Inspector("camera").statistics().readers
    finally:
        camera.close()
    assert code == 1
    first, last, count = map(
        int, re.search(r"frames (\d+) to (\d+) \((\d+)\) are not on", output).groups()
    )
    assert count == last - first + 1
    assert last == sent - 1
    with contextlib.closing(LogArchive(tmp_path / "log")) as archive:
        found = archive.read("camera").sequence.tolist()
    assert found == list(range(found[0], first))
    assert "released by SIGTERM" in output


@pytest.mark.parametrize("process", [False, True], ids=["thread", "process"])
def test_a_session_whose_disk_refuses_is_ended_by_the_second_signal(
    disk: Disk, tmp_path: Path, process: bool
) -> None:
    rig = str(rig_of(tmp_path, process=process))
    with Command("run", rig, "--name", "s", "-o", str(tmp_path)) as running:
        wait_until(lambda: _has_sent("probe", 5) and _size(tmp_path / "s") > 65536, 60)
        with disk.refusing():
            time.sleep(0.5)
            running.process.send_signal(signal.SIGINT)
            running.expect("Not over yet")
            time.sleep(0.2)
            running.process.send_signal(signal.SIGINT)
            time.sleep(1.0)
        code, output = running.end()
    assert code == 1, output
    assert "NOT TRUSTED" in output
    assert re.search(r"frames \d+ to \d+ \(\d+\) are not on the disk", output), output
    if SessionFolder(tmp_path / "s").verdict() is None:
        assert "verdict.yaml could not be written" in output


def _size(where: Path) -> int:
    return sum(path.stat().st_size for path in where.glob("*.axj"))


def _has_sent(name: str, count: int) -> bool:
    try:
        return Inspector(name).statistics().sent > count
    except FileNotFoundError:
        return False
