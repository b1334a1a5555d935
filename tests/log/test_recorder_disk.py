"""A recorder whose disk fails: no frame is lost, and the error is reported."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from deadline import wait_until

from ataraxis import LogArchive, Producer, Recorder, Session
from ataraxis._kernels import journal_write
from ataraxis.errors import LoggerError
from ataraxis.log.journal.output import OutputFile, Syncer
from ataraxis.log.journal.writer import JournalWriter
from ataraxis.log.verification import verify

N = 300


class Failing:
    """Syncs and writes of this process that fail on demand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.syncs = self.writes = 0  # how many more fail
        self.error = errno.EIO
        self.hits = 0
        sync, flush = Syncer.force, JournalWriter._flush
        begin = OutputFile.__init__

        def force(syncer: Syncer, fd: int) -> None:
            if self.syncs:
                self.syncs -= 1
                self.hits += 1
                raise OSError(self.error, os.strerror(self.error))
            sync(syncer, fd)

        def flushed(writer: JournalWriter) -> int:
            if self.writes:
                self.writes -= 1
                self.hits += 1
                return journal_write.TORN
            return int(flush(writer))

        def begun(file: OutputFile, *args: Any) -> None:
            if self.writes:
                self.writes -= 1
                raise OSError(self.error, os.strerror(self.error))
            begin(file, *args)

        monkeypatch.setattr(Syncer, "force", force)
        monkeypatch.setattr(JournalWriter, "_flush", flushed)
        monkeypatch.setattr(OutputFile, "__init__", begun)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    return Failing(monkeypatch)


def _send(producer: Producer, n: int, at: Callable[[int], object]) -> None:
    for k in range(n):
        at(k)
        producer.send(np.full(4, k, "i8"))


def _all_there(path: Path, n: int = N) -> None:
    with LogArchive(path) as log:
        block = log.read("cam")
        assert block.data[:, 0].tolist() == list(range(n))
        assert block.sequence.tolist() == list(range(n))
    with xr.open_dataset(path, engine="ataraxis") as ds:
        assert ds.attrs["missing"] == 0
        assert ds["cam"].values[:, 0].tolist() == list(range(n))
    report = verify(path)
    assert report.missing == 0, report
    (source,) = report.sources
    assert (source.received, source.repeated) == (n, 0)


@pytest.mark.parametrize("durability", ["os", "disk"])
@pytest.mark.parametrize("what", ["writes", "syncs"])
@pytest.mark.parametrize("times", [1, 7])
@pytest.mark.parametrize("slots", [4, 64])
def test_an_error_of_the_disk_loses_nothing(
    tmp_path: Path, failing: Failing, durability: Any, what: str, times: int, slots: int
) -> None:
    errors: list[LoggerError] = []
    with Producer(
        "cam", shape=(4,), dtype="i8", buffer_count=slots, on_stall=id
    ) as cam:
        recorder = Recorder(
            "cam", tmp_path, durability=durability, on_error=errors.append
        )

        def at(k: int) -> None:
            if k in (100, 200):
                setattr(failing, what, times)

        _send(cam, N, at)
    assert recorder.wait(60)
    recorder.stop()
    _all_there(tmp_path)
    assert bool(errors) == bool(failing.hits)
    if durability == "disk" or what == "writes":
        assert failing.hits


@pytest.mark.parametrize("durability", ["os", "disk"])
def test_a_disk_that_fails_for_long_gates_and_is_reported(
    tmp_path: Path, failing: Failing, durability: Any
) -> None:
    with (
        Producer("cam", shape=(4,), dtype="i8", buffer_count=8, on_stall=id) as cam,
        Session("s", directory=tmp_path, durability=durability) as s,
    ):
        s.record("cam", timeout=10)
        sender = threading.Thread(target=_send, args=(cam, N, lambda k: None))
        failing.writes = failing.syncs = 10**9
        sender.start()
        wait_until(lambda: s.statistics()["cam"].error, 20, "the error")
        wait_until(lambda: cam.statistics().is_stalled, 20, "it gates")
        failing.writes = failing.syncs = 0
        sender.join()
    stream = s.verdict["cam"]
    assert stream.is_trusted, s.verdict
    assert stream.expected == stream.received == N
    assert stream.waited_s > 0
    assert any("could not be written for some time" in note for note in stream.notes)


def test_frames_that_are_not_on_the_disk_stay_in_the_ring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow sync: it releases the frames, not the write."""
    gate, waits = threading.Event(), threading.Event()
    force = Syncer.force

    def slow(syncer: Syncer, fd: int) -> None:
        waits.set()
        gate.wait(30)
        force(syncer, fd)

    monkeypatch.setattr(Syncer, "force", slow)
    with Producer("cam", shape=(4,), dtype="i8", buffer_count=4) as cam:
        recorder = Recorder("cam", tmp_path, durability="disk")
        for k in range(4):
            cam.send(np.full(4, k, "i8"))
        assert waits.wait(20)
        with pytest.raises(TimeoutError):
            cam.send(np.full(4, 4, "i8"), timeout=0.3)
        gate.set()
        for k in range(4, N):
            cam.send(np.full(4, k, "i8"))
    assert recorder.wait(60)
    recorder.stop()
    _all_there(tmp_path)


def test_a_recorder_stopped_while_its_disk_fails_keeps_the_frames(
    tmp_path: Path, failing: Failing
) -> None:
    with Producer("cam", shape=(4,), dtype="i8", buffer_count=64) as cam:
        recorder = Recorder("cam", tmp_path, durability="disk")
        _send(cam, 20, lambda k: None)
        wait_until(lambda: recorder.statistics()["cam"].frames == 20)
        failing.syncs = failing.writes = 10**9
        for k in range(20, 40):
            cam.send(np.full(4, k, "i8"))
        with pytest.raises(LoggerError):
            recorder.stop()
        (reader,) = cam.statistics().readers
        assert reader.is_detached
        assert reader.is_gating
        failing.syncs = failing.writes = 0
        with Recorder("cam", tmp_path, durability="disk"):
            for k in range(40, N):
                cam.send(np.full(4, k, "i8"))
    with LogArchive(tmp_path) as log:
        found = log.read("cam").data[:, 0]
    assert sorted(set(found.tolist())) == list(range(N))
    assert verify(tmp_path).missing == 0
