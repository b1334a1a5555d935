"""Losses that were planted, and recordings without any: four counts that agree.

`verify`, the verdict, xarray and LogArchive over the same recordings; 200 of 12 kinds,
and 200 clean ones, at full figures.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import xarray as xr

from ataraxis import Consumer, DataLogger, LogArchive, Producer, Recorder
from ataraxis._kernels import journal_write
from ataraxis.clock import Anchor
from ataraxis.errors import CorruptFrame
from ataraxis.log.journal.input import InputFile
from ataraxis.log.journal.output import Syncer
from ataraxis.log.journal.writer import JournalWriter
from ataraxis.log.verification import verify
from ataraxis.session.verdict import judge

STRESS = float(os.environ.get("ATARAXIS_STRESS", "0.02"))
EACH = max(1, round(17 * STRESS))
NAME = "cam"


class Planted(NamedTuple):
    """What was done to a recording."""

    missing: int
    late: int = 0
    waited_s: float = 0.0


class Bench:
    """A stream and its recordings, made by chance."""

    def __init__(self, path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self.chance, self.patch = (
            path,
            np.random.default_rng(seed),
            monkeypatch,
        )
        self.sent = 0

    def number(self, low: int, high: int) -> int:
        return int(self.chance.integers(low, high))

    def producer(self, **options: Any) -> Producer:
        options.setdefault("buffer_count", self.number(4, 40))
        return Producer(NAME, shape=(4,), dtype="i8", on_stall=id, **options)

    def send(self, producer: Producer, n: int) -> None:
        for k in range(self.sent, self.sent + n):
            producer.send(np.full(4, k, "i8"))
        self.sent += n

    def record(self, **options: Any) -> Recorder:
        return Recorder(NAME, self.path, **options)

    def whole(self, **options: Any) -> int:
        """Record some frames, all of them; how many."""
        n = self.number(30, 300)
        with self.producer() as producer, self.record(**options):
            self.send(producer, n)
        return n

    @property
    def files(self) -> list[Path]:
        return sorted(self.path.glob("*.axj"))


def late(bench: Bench) -> Planted:
    with bench.producer(buffer_count=8) as producer:
        bench.send(producer, bench.number(20, 90))
        with bench.record():
            bench.send(producer, bench.number(1, 90))
    with LogArchive(bench.path) as log:
        return Planted(0, int(log.read(NAME).sequence[0]))


def drop_newest(bench: Bench) -> Planted:
    with bench.producer(on_full="drop_newest", buffer_count=8) as producer:
        with bench.record():
            slow = Consumer(NAME, policy="lossless")
            bench.send(producer, bench.number(20, 60))
            slow.close()
            time.sleep(0.01)
            bench.send(producer, 3)
        return Planted(producer.statistics().refused)


def lapped(bench: Bench) -> Planted:
    with bench.producer(buffer_count=8) as producer:
        with bench.record():
            bench.send(producer, bench.number(5, 40))
        bench.send(producer, bench.number(20, 90))
        with bench.record():
            bench.send(producer, bench.number(5, 40))
    with LogArchive(bench.path) as log:
        return Planted(bench.sent - len(log.read(NAME)))


def _cut(path: Path, frames: int) -> int:
    """Cut the close record off, and frames with it; how many."""
    file = InputFile(path)
    control = file.runs[file.runs["kind"] == 1]
    end = int(control["offset"][-1])
    n = min(frames, len(file) - 1)
    if n:
        end = int(file.entries(len(file) - n, len(file))[0]["offset"])
    file.close()
    os.truncate(path, end)
    return n


def killed(bench: Bench) -> Planted:
    with bench.producer() as producer:
        for _ in range(bench.number(2, 4)):
            with bench.record():
                bench.send(producer, bench.number(5, 60))
            if len(bench.files) == 1:
                _cut(bench.files[0], 0)
    return Planted(0)


def cut(bench: Bench) -> Planted:
    with bench.producer() as producer:
        for _ in range(2):
            with bench.record():
                bench.send(producer, bench.number(20, 60))
    return Planted(_cut(bench.files[0], bench.number(1, 15)))


def _flip(bench: Bench, back: int) -> None:
    (path,) = bench.files
    data = bytearray(path.read_bytes())
    row = bench.number(1, bench.sent - 1)
    at = data.find(np.full(4, row, "i8").tobytes())
    data[at - back] ^= 1 << bench.number(0, 8)
    path.write_bytes(data)


def flipped_header(bench: Bench) -> Planted:
    bench.whole()
    _flip(bench, bench.number(1, 65))
    return Planted(1)


def flipped_payload(bench: Bench) -> Planted:
    bench.whole()
    _flip(bench, -bench.number(0, 32))
    return Planted(1)


def removed(bench: Bench) -> Planted:
    bench.whole(file_bytes=8192)
    which = bench.files[bench.number(0, max(len(bench.files) - 1, 1))]
    if len(bench.files) == 1:
        return Planted(0)
    file = InputFile(which)
    count = len(file)
    file.close()
    which.unlink()
    return Planted(count)


def _failing(bench: Bench, durability: str, what: str) -> Planted:
    times = [bench.number(1, 4)]
    flush, force = JournalWriter._flush, Syncer.force

    def flushed(writer: JournalWriter) -> int:
        if what == "write" and times[0] and bench.sent > 5:
            times[0] -= 1
            return journal_write.TORN
        return int(flush(writer))

    def forced(syncer: Syncer, fd: int) -> None:
        if what == "sync" and times[0] and bench.sent > 5:
            times[0] -= 1
            raise OSError(5, "Input/output error")
        if what == "slow":
            time.sleep(0.02)
        force(syncer, fd)

    with bench.patch.context() as patch:
        patch.setattr(JournalWriter, "_flush", flushed)
        patch.setattr(Syncer, "force", forced)
        with bench.producer() as producer, bench.record(durability=durability):
            for _ in range(4):
                bench.send(producer, bench.number(5, 30))
    return Planted(0)


def full_disk(bench: Bench) -> Planted:
    return _failing(bench, "os", "write")


def broken_sync(bench: Bench) -> Planted:
    return _failing(bench, "disk", "sync")


def slow_disk(bench: Bench) -> Planted:
    return _failing(bench, "disk", "slow")


def stalled(bench: Bench) -> Planted:
    with bench.producer(buffer_count=4) as producer, bench.record():
        reader = Consumer(NAME, policy="lossless")
        timer = threading.Timer(0.15, reader.close)
        timer.start()
        bench.send(producer, bench.number(30, 90))
        timer.join()
        waited = producer.statistics().stalled_s
    return Planted(0, waited_s=waited)


def skipped(bench: Bench) -> Planted:
    with bench.producer(shared=True, buffer_count=8) as producer, bench.record():
        viewer = Consumer(NAME, policy="lossy", start="latest")
        held = []
        for k in range(bench.number(30, 90)):
            bench.send(producer, 1)
            frame = viewer.receive(timeout=10)
            if k == 6:
                held.append(frame.array)
            del frame
        held.clear()
        viewer.close()
    return Planted(0)


KINDS: list[Callable[[Bench], Planted]] = [
    late, drop_newest, lapped, killed, cut, flipped_header, flipped_payload, removed,
    full_disk, broken_sync, stalled, skipped,
]  # fmt: skip
CLEAN: list[Callable[[Bench], Planted]] = [
    killed, full_disk, broken_sync, slow_disk, stalled, skipped,
    lambda bench: Planted(0 * bench.whole()),
]  # fmt: skip


def _counts(path: Path) -> dict[str, tuple[int, int]]:
    """Return how many frames are missing and late, as each one says."""
    report = verify(path)
    (source,) = report.sources
    found = {"verify": (source.missing + report.unknown, source.late)}
    verdict = judge(path, Anchor.take())
    said = verdict[NAME]
    found["verdict"] = said.missing, said.late
    with LogArchive(path) as log, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        block = log.read(NAME, skip_damaged=True)
        found["LogArchive"] = log.missing(NAME) + len(block.left_out), source.late
        assert len(block) == source.received
    with xr.open_dataset(path, engine="ataraxis") as ds:
        rows = np.arange(ds.sizes["time"])
        bad = 0
        try:
            ds[NAME].load()
        except CorruptFrame:
            for row in rows:
                try:
                    ds[NAME].isel(time=int(row)).load()
                except CorruptFrame:
                    bad += 1
        found["xarray"] = ds.attrs["missing"] + bad, ds.attrs["late"]
    assert verdict.is_trusted == (not said.missing and not verdict.notes), verdict
    return found


@pytest.mark.parametrize("seed", range(EACH))
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_four_counts_agree_on_what_was_planted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, seed: int
) -> None:
    planted = kind(Bench(tmp_path, seed, monkeypatch))
    expected = planted.missing, planted.late
    assert _counts(tmp_path) == dict.fromkeys(
        ("verify", "verdict", "LogArchive", "xarray"), expected
    )
    (source,) = verify(tmp_path).sources
    assert source.waited_s == pytest.approx(planted.waited_s, abs=0.02) or (
        not planted.waited_s
    )


@pytest.mark.parametrize("seed", range(max(1, round(29 * STRESS))))
@pytest.mark.parametrize("kind", range(len(CLEAN)))
def test_a_clean_recording_raises_no_alarm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: int, seed: int
) -> None:
    bench = Bench(tmp_path, 1000 + seed, monkeypatch)
    assert CLEAN[kind](bench).missing == 0
    assert set(_counts(tmp_path).values()) == {(0, 0)}
    assert verify(tmp_path).is_complete


@pytest.mark.parametrize("seed", range(max(1, round(10 * STRESS))))
def test_a_logger_of_several_threads_raises_no_alarm(tmp_path: Path, seed: int) -> None:
    counts = np.random.default_rng(seed).integers(20, 200, 4).tolist()
    with DataLogger(tmp_path, "rig", layout="journal") as logger:

        def log(source: int, n: int) -> None:
            for k in range(n):
                logger.input_queue.log(source, np.full(3, k))

        threads = [
            threading.Thread(target=log, args=each) for each in enumerate(counts)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    report = verify(logger.output_directory)
    assert report.is_complete
    assert [s.received for s in report.sources] == counts
