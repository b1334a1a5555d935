"""A disk that does not answer: a thread is blocked in the kernel, nothing is lost."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import fuse_disk
import numpy as np
import pytest
from deadline import wait_until

from ataraxis import LogArchive, Producer, Recorder, Session
from ataraxis.errors import LoggerError, StreamUnavailable
from ataraxis.log import recorder as module
from ataraxis.log.verification import verify
from ataraxis.shm.thread import Latch

pytestmark = pytest.mark.usefixtures("context")
N = 400


class Disk:
    """A directory on a disk that blocks on demand."""

    def __init__(self, place: Path) -> None:
        self.path, self.source, self.gate = place / "m", place / "s", place / "gate"
        self.path.mkdir()
        self.source.mkdir()
        self.program = subprocess.Popen(
            [
                sys.executable, "-P", fuse_disk.__file__, str(self.source),
                str(self.path), str(self.gate),
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_until(lambda: self.is_there or self.program.poll() is not None, 20)

    @property
    def is_there(self) -> bool:
        return os.path.ismount(self.path)

    def stand(self) -> None:
        self.gate.touch()

    def go_on(self) -> None:
        self.gate.unlink(missing_ok=True)

    def close(self) -> None:
        self.go_on()
        subprocess.run(["fusermount", "-u", "-z", str(self.path)], check=False)
        self.program.terminate()
        self.program.wait(20)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if importlib.util.find_spec("mfusepy") is None:
        pytest.skip("mfusepy is not installed")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK) or not shutil.which("fusermount"):
        pytest.skip("this machine has no FUSE")
    found = Disk(tmp_path)
    if not found.is_there:
        found.close()
        pytest.skip("a FUSE file system cannot be mounted here")
    yield found
    found.close()


def _send(camera: Producer, first: int, last: int) -> None:
    for k in range(first, last):
        camera.send(np.full(4, k, "i8"))
        time.sleep(0.001)


def _all_there(path: Path) -> None:
    with LogArchive(path) as log:
        assert log.read("cam").data[:, 0].tolist() == list(range(N))
    (source,) = verify(path, "cam").sources
    assert (source.received, source.missing, source.repeated) == (N, 0, 0)


@pytest.mark.parametrize("durability", ["os", "disk"])
@pytest.mark.parametrize("seconds", [0.3, 30])
def test_a_disk_that_blocks_for_a_while_loses_nothing(
    disk: Disk, figure: Any, durability: Any, seconds: float
) -> None:
    seconds = min(seconds, figure(30, 6.5))
    with (
        Producer("cam", shape=(4,), dtype="i8", buffer_count=8, on_stall=id) as camera,
        Session("s", directory=disk.path / "s", durability=durability) as session,
    ):
        session.record("cam", timeout=10)
        _send(camera, 0, 100)
        disk.stand()
        sender = threading.Thread(target=_send, args=(camera, 100, N))
        sender.start()
        began = time.monotonic()
        if seconds > module.SILENT_S:
            wait_until(lambda: session.statistics()["cam"].error, 20, "the error")
            assert "has not answered" in session.statistics()["cam"].error
            assert camera.statistics().is_stalled
        time.sleep(max(0, began + seconds - time.monotonic()))
        disk.go_on()
        sender.join()
    verdict = session.verdict["cam"]
    assert verdict.is_trusted, session.verdict
    assert (verdict.expected, verdict.received) == (N, N)
    was_reported = any("has not answered" in note for note in verdict.notes)
    assert was_reported == (seconds > module.SILENT_S), verdict.notes
    _all_there(session.directory)


@pytest.mark.parametrize("durability", ["os", "disk"])
def test_a_disk_that_never_answers_is_not_waited_for(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, durability: Any
) -> None:
    monkeypatch.setattr(module, "STUCK_S", 1.5)
    with Producer("cam", shape=(4,), dtype="i8", buffer_count=1024) as camera:
        recorder = Recorder("cam", disk.path / "r", durability=durability)
        _send(camera, 0, 100)
        wait_until(lambda: recorder.statistics()["cam"].frames == 100)
        disk.stand()
        _send(camera, 100, 300)
        began = time.monotonic()
        with pytest.raises(LoggerError, match="has not answered for 2 s; unsaved"):
            recorder.stop()
        assert time.monotonic() - began < 10
        (reader,) = camera.statistics().readers
        assert reader.is_gating
        disk.go_on()  # the thread ends what it was at
        wait_until(lambda: not recorder.is_recording)
        with Recorder("cam", disk.path / "r", durability=durability):
            _send(camera, 300, N)
    _all_there(disk.path / "r")


@pytest.mark.parametrize("durability", ["os", "disk"])
@pytest.mark.parametrize(("width", "slots"), [(4, 8), (1024, 256), (4096, 64)])
def test_the_user_releases_producers_while_the_kernel_blocks(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, durability: Any, width: int, slots: int
) -> None:
    """The file is correct, although producers overwrote the blocked frames."""
    monkeypatch.setattr(module, "SILENT_S", 0.5)
    release, reported = Latch(), []
    camera = Producer(
        "cam", shape=(width,), dtype="i8", buffer_count=slots, on_stall=id
    )

    def send(first: int, last: int) -> None:
        for k in range(first, last):
            camera.send(np.full(width, k, "i8"))

    with camera:
        recorder = Recorder("cam", disk.path / "r", durability=durability)
        send(0, 100)
        wait_until(lambda: recorder.statistics()["cam"].frames == 100)
        disk.stand()
        sender = threading.Thread(target=send, args=(100, 100 + 4 * slots))
        sender.start()

        def refused(error: LoggerError) -> None:
            reported.append(str(error))
            release.set()

        left = recorder.finish(release, refused)
        assert "has not answered" in reported[0]
        assert left["cam"][0] >= 100
        sender.join(20)  # producers do not wait for a released reader
        assert not sender.is_alive()
        disk.go_on()
        wait_until(lambda: not recorder.is_recording)
        camera.unlink()  # with the frames that have no reader
    (saved,) = verify(disk.path / "r", "cam").sources
    assert saved.received >= 100
    with LogArchive(disk.path / "r") as log:
        whole = log.read("cam", skip_damaged=True)
    assert (whole.data == whole.sequence[:, np.newaxis].astype("i8")).all()


PROGRAM = """
import sys, threading, time, warnings
import numpy as np
from ataraxis import Producer, Recorder
from ataraxis.errors import LoggerError, StreamUnavailable
from ataraxis.log import recorder as module

module.STUCK_S = 1.0
camera = Producer("cam", shape=(4,), dtype="i8", buffer_count=64)
recorder = Recorder("cam", sys.argv[1], durability="disk")
camera.send(np.zeros(4, "i8"))
while recorder.statistics()["cam"].frames < 1:
    time.sleep(0.01)
open(sys.argv[2], "w").close()
camera.send(np.ones(4, "i8"))
try:
    recorder.stop()
except LoggerError as error:
    print(error)
print("ended")
"""


def test_a_program_ends_without_its_disk(disk: Disk) -> None:
    """The process ends when the kernel unblocks its thread."""
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(disk.path / "r"), str(disk.gate)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert program.stdout is not None
    with program.stdout:
        assert "gave up waiting for the disk" in program.stdout.readline()
        assert program.stdout.readline() == "ended\n"
    disk.go_on()
    assert program.wait(20) == 0
    # Another recorder writes what it had not written.
    with suppress(StreamUnavailable), Recorder("cam", disk.path / "r"):
        pass
    (saved,) = verify(disk.path / "r", "cam").sources
    assert (saved.received, saved.missing, saved.repeated) == (2, 0, 0)
