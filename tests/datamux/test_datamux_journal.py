"""Live streams into journals, frames filled in place, and logs as recordings."""

from __future__ import annotations

import itertools
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from datamux_rig import counting, drained
from deadline import wait_until

import ataraxis.datamux as dm
from ataraxis import (
    Consumer,
    DataLogger,
    LogArchive,
    LogPackage,
    Producer,
    Recorder,
    assemble_log_archives,
)
from ataraxis.clock import Offset, now_ns
from ataraxis.datamux import END_OF_STREAM, Block, Field, JournalSink, Stream
from ataraxis.datamux.proxy import Proxy
from ataraxis.datamux.sinks.journal import CLOCK
from ataraxis.datamux.sinks.stream import StreamSink
from ataraxis.datamux.task import Task
from ataraxis.errors import (
    EndOfStream,
    LoggerError,
    RecordingError,
    SourceNotFound,
    StreamExists,
)

EEG = Stream(
    "eeg",
    frequency=1000,
    unit="uV",
    fields={f"c{i}": Field(dtype="i32") for i in range(3)},
    index={"t": Field(unit="s")},
    attrs={"id": "eeg"},
)


class Counting:
    """A source that gives `sizes` rows at a time, then ends."""

    stream = EEG
    labels = EEG.labels()

    def __init__(self, sizes: list[int], has_clock: bool = True) -> None:
        self._sizes = sizes
        self._has_clock = has_clock
        self.at = 0
        self.lost = 0
        self.places: list[int] = []  # where it wrote
        self.offsets: list[Offset] = []
        self.before = None

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def read_into(self, out, stamps=None, *, timeout=None) -> int:
        if self.before is not None:
            self.before(self)
        if not self._sizes:
            raise EndOfStream("all given")
        there = self._sizes.pop(0)
        n = min(there, len(out))
        if n < there:
            self._sizes.insert(0, there - n)
        number = np.arange(self.at, self.at + n)
        out[:n] = number[:, None] * 10 + np.arange(3)
        self.places.append(out.ctypes.data)
        stamps["time_ns"][:n] = now_ns()
        if self._has_clock:
            stamps["device_s"][:n] = 5 + number / 1000
        self.at += n
        return n


def expected(n: int) -> np.ndarray:
    return np.arange(n)[:, None] * 10 + np.arange(3)


def proxied(source: Counting, producer: Producer, **options) -> Task:
    sink = StreamSink(producer)
    task = Task("t", Proxy(source, lend=sink.lend, **options), sink)
    task.start()
    return task


# ---- in place


@pytest.mark.parametrize("sizes", [[8] * 5, [3, 1, 8, 8, 5, 7, 8], [1] * 20, [40]])
def test_frames_of_samples_are_filled_in_place(sizes: list[int]) -> None:
    source, total = Counting([*sizes]), 0
    with (
        dm.producer_of(EEG, "eeg", samples=8, sync=True, buffer_count=16) as producer,
        Consumer("eeg") as reader,
    ):
        task = proxied(source, producer)
        assert task.wait(20).reason == "completed"
        total = source.at
        frames = [
            (f.array.copy(), f.device_time, f.device_sequence, f.time_ns)
            for f in reader
        ]
        assert task.statistics().delivered == total // 8
        assert task.statistics().dropped == total % 8
    values = np.concatenate([frame[0] for frame in frames])
    np.testing.assert_array_equal(values, expected(total // 8 * 8))
    assert [f[1] for f in frames] == [
        5 * 10**9 + 8_000_000 * k for k in range(total // 8)
    ]
    assert [f[2] for f in frames] == [8 * k for k in range(total // 8)]
    assert all(0 <= now_ns() - f[3] < 60 * 10**9 for f in frames)
    # Each row where it stays: rows of one frame follow each other in memory.
    if sizes == [1] * 20:
        assert np.diff(source.places[:8]).tolist() == [12] * 7


def test_while_the_ring_is_full_rows_are_copied_and_none_is_lost() -> None:
    source = Counting([3] * 40)
    with (
        dm.producer_of(EEG, "eeg", samples=4, sync=True, buffer_count=2) as producer,
        Consumer("eeg") as reader,
    ):
        task = proxied(source, producer)
        wait_until(lambda: producer.last_sent_iteration == 2, 10)
        held = producer.last_sent_iteration
        values = np.concatenate([frame.array.copy() for frame in reader])
        assert task.wait(20).reason == "completed"
    assert held == 2
    np.testing.assert_array_equal(values, expected(120))


def test_a_dropped_row_is_counted_where_the_producer_must_not_wait() -> None:
    source = Counting([2] * 10)
    with (
        dm.producer_of(EEG, "eeg", buffer_count=4, on_full="drop_newest") as producer,
        Consumer("eeg", policy="lossless") as reader,
    ):
        task = proxied(source, producer)
        assert task.wait(20).reason == "completed"
        statistics = task.statistics()
        assert (statistics.delivered, statistics.dropped) == (4, 16)
        np.testing.assert_array_equal(reader.read(4), expected(4))


def test_a_counter_of_the_device_goes_with_its_frames() -> None:
    stream = EEG.copy()
    stream.index = {"t": Field(unit="s"), "device_sequence": Field(dtype="i64")}
    columns = {f"c{i}": np.arange(5, dtype="i4") for i in range(3)}
    columns.update(t=np.arange(5) / 10, device_sequence=np.array([7, 8, 11, 12, 13]))
    recording = dm.Recording.of(stream, columns)
    with (
        dm.producer_of(stream, "eeg", sync=True) as producer,
        Consumer("eeg") as reader,
    ):
        dm.API().replay(recording, producer, rate_limit=False).wait(10)
        assert [f.device_sequence for f in reader] == [7, 8, 11, 12, 13]
        assert producer.is_ended


# ---- a journal as sink


@pytest.mark.parametrize("samples", [None, 10])
def test_a_live_stream_is_shared_and_kept(tmp_path: Path, samples) -> None:
    with dm.API() as api:
        ack = api.record_live_stream(
            "sim", "ramp", {}, tmp_path / "log", "rig", samples=samples
        )
        with Consumer("rig") as viewer:
            assert viewer.receive(timeout=10).array.dtype == np.int16
        wait_until(lambda: ack.task.statistics().delivered >= 20, 20)
        api.stop_task(ack.randseq)
        assert ack.wait(10).reason == "stopped"
        delivered = ack.task.statistics().delivered
        ack.task.sink.close()
    opened = dm.open_recordings(tmp_path / "log")
    assert set(opened) <= {"rig", "rig.clock"}
    recording = opened["rig"]
    assert len(recording) == delivered * (samples or 1)
    assert [*recording.stream.fields] == [f"ch{i}" for i in range(4)]
    assert recording.stream.rate_hz == 1000
    np.testing.assert_allclose(recording.t, np.arange(len(recording)) / 1000, atol=1e-9)
    ramp = np.rint(np.arange(len(recording)) % 1000)
    np.testing.assert_array_equal(recording.read().values["ch0"], ramp)
    made = recording.read().index["time_ns"]
    assert (np.diff(made) >= 0).all()
    assert abs(now_ns() - made[-1]) < 60e9


def test_a_sources_clock_and_losses_are_recorded(tmp_path: Path) -> None:
    source = Counting([5] * 4)

    def measured(what: Counting) -> None:
        if what.at == 5:
            what.offsets.append(Offset(1000, 20, 123_456, "there"))
        if what.at == 10:
            what.offsets.append(Offset(1100, 30, 223_456, "there"))
            what.lost = 4
        if what.at == 15:
            what.lost = 9

    source.before = measured
    sink = JournalSink(EEG, "eeg", tmp_path, source=source)
    task = Task("t", Proxy(source, lend=sink.lend), sink)
    task.start()
    assert task.wait(20).reason == "completed"
    assert task.end is END_OF_STREAM
    sink.close()
    clock = LogArchive(tmp_path).read("eeg.clock")
    assert clock.data.tolist() == [[1000, 20, 0], [1100, 30, 4], [1100, 30, 9]]
    assert clock.time[:2].tolist() == [123_456, 223_456]
    assert clock.labels.coords["channel"].values.tolist() == [*CLOCK]
    opened = dm.open_recordings(tmp_path)
    assert opened["eeg.clock"].read().values["lost"].tolist() == [0, 4, 9]
    np.testing.assert_array_equal(opened["eeg"].read().array, expected(20))


def test_what_cannot_be_recorded_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with dm.API() as api:
        with pytest.raises(LoggerError, match="file"):
            api.record_live_stream("sim", "sine", {}, tmp_path / "file" / "x")
        with pytest.raises(SourceNotFound):
            api.record_live_stream("sim", "nothing", {}, tmp_path / "log")
        taken = Producer("sine", 8)
        with pytest.raises(StreamExists):
            api.record_live_stream("sim", "sine", {}, tmp_path / "log")
        taken.unlink()
        # And the next one works.
        ack = api.record_live_stream("sim", "sine", {}, tmp_path / "log")
        api.stop_task(ack.randseq)
        ack.task.sink.close()


def test_a_disk_that_refuses_ends_the_task_when_the_ring_is_full(
    tmp_path: Path, monkeypatch
) -> None:
    source = Counting([4] * 1000)
    sink = JournalSink(EEG, "eeg", tmp_path, buffer_count=8)
    gate = Consumer("eeg", policy="lossless")  # never reads: as if the recorder waits
    refusal = LoggerError("the disk is full")

    def check() -> None:
        raise refusal

    monkeypatch.setattr(sink.recorder, "check", check)
    task = Task("t", Proxy(source, lend=sink.lend), sink)
    task.start()
    end = task.wait(20)
    assert end.reason == "failed"
    assert end.error is refusal
    assert task.statistics().delivered == 8
    gate.close()
    sink.close()


def test_the_command_line_proxies_into_a_stream_and_a_journal(tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "ataraxis.cli"), "proxy", "sim", "sine",
        *("--name", "rig", "-o", str(tmp_path / "log"), "--attr", "seed=3"),
    ]  # fmt: skip
    command[1:3] = ["-c", "from ataraxis.cli import main; main()"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/"
    )
    try:
        with Consumer("rig", timeout=30) as viewer:
            assert viewer.receive(timeout=10).array.shape == (4,)
        process.send_signal(signal.SIGINT)
        report, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, report
    count = int(report.split("rig: ")[1].split()[0])
    assert "0 lost" in report
    assert len(dm.open_recordings(tmp_path / "log")["rig"]) == count > 0


# ---- logs as recordings


def recorded(directory: Path, samples: int | None = None) -> dm.Recording:
    """Replay a recording into a stream that is recorded."""
    recording = counting(100, fields=3)
    sink = JournalSink(recording.stream, "count", directory, samples=samples)
    ack = dm.API().replay(recording, sink, rate_limit=False)
    assert ack.wait(20).reason == "completed"
    sink.close()
    return recording


@pytest.mark.parametrize("samples", [None, 7])
def test_a_recorded_replay_is_replayed(tmp_path: Path, samples) -> None:
    data = tmp_path / "rig"
    whole = recorded(data / "monday", samples)
    recorded(data / "tuesday", samples)
    (data / "empty").mkdir()
    (tmp_path / "rig.collection.yaml").write_text("""
name: rig
pattern: log://{session}
streams:
  count:
    frequency: 100
    fields: {c0: {dtype: i32}, c1: {dtype: i32}, c2: {dtype: i32}}
    index: {t: {unit: s}, device_sequence: {dtype: i64}}
""")
    with dm.API(tmp_path, tmp_path) as api:
        listed = api.list_collection_streams("rig")
        assert [s.attrs["session"] for s in listed] == ["monday", "tuesday"]
        sink: queue.Queue = queue.Queue()
        api.replay_collection_stream(
            "rig", "count", {"session": "monday"}, sink, rate_limit=False
        )
        items, end = drained(sink)
        assert end is END_OF_STREAM
        n = 100 if samples is None else 98  # an incomplete frame is not sent
        assert [item["value"]["c1"] for item in items] == [*range(n)]
        np.testing.assert_allclose([i["index"]["t"] for i in items], whole.t[:n])
        with pytest.raises(SourceNotFound, match="no recording"):
            api.recording("rig", "count", {"session": "sunday"})
        with pytest.raises(RecordingError, match="not a log"):
            api.recording("rig", "count", {"session": "empty"})


def test_a_log_says_what_is_in_it(tmp_path: Path) -> None:
    image = Producer("image", shape=(2, 3), dtype="u1", dims=("y", "x"))
    words = Producer("words", 64)
    text = Producer("text", shape=(1,), dtype="U8", dims=("channel",))
    nothing = Producer("nothing", shape=(1,), dtype="f8")
    names = ["image", "words", "text", "nothing"]
    with Recorder(names, tmp_path):
        for k in range(3):
            image.send(np.full((2, 3), k, "u1"), device_time=17 * k, time_ns=k * 10**9)
            words.send("some" * k)
            text.send(np.array(["go"]))
    for producer in (image, words, text, nothing):
        producer.unlink()
    opened = dm.open_recordings(tmp_path)
    assert [*opened] == ["image", "text"]
    found = opened["image"]
    # Ticks of a device are not seconds: the times are those of the frames.
    np.testing.assert_array_equal(found.t, [0, 1, 2])
    assert found.read().index["device_time"].tolist() == [0, 17, 34]
    assert found.read().values["image"].shape == (3, 2, 3)
    assert found.stream.attrs["lost"] == 0
    assert opened["text"].read().records()[0]["value"] == {"ch0": "go"}
    single = dm.open_recordings(next(tmp_path.glob("image*.axj")))
    assert [*single] == ["image"]


@pytest.mark.parametrize("stamp", ["arrival", "sample"])
@pytest.mark.parametrize("lengths", [[4, 4, 4], [4, 4, 3], [1, 4, 2, 2], [2, 2]])
def test_recorded_blocks_are_samples(
    tmp_path: Path, lengths: list[int], stamp: str
) -> None:
    """Each sample has its time, by what the labels state of stamps."""
    daq = Producer(
        "daq", shape=(4, 2), dtype="i2", dims=("time", "channel"),
        coords={"channel": ["a", "b"]}, attrs={"rate_hz": 100, "stamp_of": stamp},
    )  # fmt: skip
    starts = np.cumsum([0, *lengths])
    with Recorder("daq", tmp_path):
        for first, stop in itertools.pairwise(starts.tolist()):
            at = first if stamp == "sample" else stop - 1
            rows = np.arange(first, stop, dtype="i2")
            daq.send(np.stack([rows, -rows], 1), time_ns=at * 10**7)
    daq.unlink()
    found = dm.open_recordings(tmp_path)["daq"]
    assert found.stream.rate_hz == 100
    np.testing.assert_allclose(found.t, np.arange(starts[-1]) / 100)
    assert found.read().values["b"].tolist() == [-k for k in range(starts[-1])]


def test_a_block_that_arrived_is_stamped_as_its_labels_state() -> None:
    """Of the last sample, or of the first one; by rows, and in place."""
    for stamp, wanted in (("arrival", 3), ("sample", 0)):
        options = {"shape": (4, 3), "dtype": "i4", "dims": ("time", "channel")}
        attrs = {"sample_rate_hz": 1000, "stamp_of": stamp}
        with Producer("daq", **options, attrs=attrs) as daq, Consumer("daq") as reader:
            sink = StreamSink(daq)
            for first, stop in ((0, 3), (3, 8)):
                number = np.arange(first, stop)
                columns = {f"c{i}": number.astype("i4") for i in range(3)}
                block = Block(EEG, number / 1e3, columns, arrived_ns=number * 10**6)
                sink.put([block], lambda: False)
            sink.finish(END_OF_STREAM, lambda: False)
            times = [frame.time_ns for frame in reader]
            assert times == [wanted * 10**6, (wanted + 4) * 10**6]


def test_logs_of_the_seeds_layout_are_recordings_too(tmp_path: Path) -> None:
    logger = DataLogger(tmp_path, "rig")
    logger.start()
    for k in range(5):
        payload = np.full(4, k, "u1")
        logger.input_queue.put(LogPackage(3, np.uint64(1000 * k), payload))
    logger.stop()
    (directory,) = [p for p in tmp_path.iterdir() if p.is_dir()]
    opened = dm.open_recordings(directory)
    assert [*opened] == ["3"]
    np.testing.assert_allclose(opened["3"].t, np.arange(5) / 1000)
    assert opened["3"].read().values["3"].shape == (5, 4)
    assemble_log_archives(directory, remove_sources=True)
    (archive,) = directory.glob("*.npz")
    np.testing.assert_array_equal(
        dm.open_recordings(archive)["3"].read().values["3"],
        opened["3"].read().values["3"],
    )


def test_a_log_that_is_written_is_read_so_far_and_a_damaged_one_raises(
    tmp_path: Path,
) -> None:
    producer = Producer("live", shape=(), dtype="i4")
    recorder = Recorder("live", tmp_path / "log")
    for k in range(10):
        producer.send(np.int32(k))
    wait_until(lambda: recorder.statistics()["live"].frames == 10, 10)
    assert dm.open_recordings(tmp_path / "log")["live"].read().values[
        "live"
    ].tolist() == [*range(10)]
    producer.unlink()
    recorder.stop()
    (file,) = (tmp_path / "log").glob("*.axj")
    data = bytearray(file.read_bytes())
    frames = [m.start() for m in re.finditer(b"AXF1\x0c", data)]
    data[frames[6] + 64] ^= 1
    file.write_bytes(data)
    with pytest.raises(RecordingError, match=r"damaged: .*checksum"):
        dm.open_recordings(tmp_path / "log")
    with pytest.raises(RecordingError, match="not a log"):
        dm.open_recordings(tmp_path)


def test_threads_end(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    recorded(tmp_path / "x")
    deadline = time.monotonic() + 10
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not set(threading.enumerate()) - before
