"""DataMux at full figures: a whole record, a fast amplifier, a minute beside a load."""

from __future__ import annotations

import multiprocessing
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from places import DATA
from workers_datamux import burn, push_lsl

import ataraxis.datamux as dm
from ataraxis import Consumer, LogArchive
from ataraxis.datamux import Field, Recording, Stream
from ataraxis.errors import EndOfStream

if not DATA.is_dir():
    DATA = Path("/work/shared/data")


def test_the_whole_of_record_100_survives_stream_xdf_and_nwb(arena, figure, tmp_path):
    pyxdf = pytest.importorskip("pyxdf")
    pynwb = pytest.importorskip("pynwb")
    pytest.importorskip("wfdb")
    header = DATA / "mitdb-100" / "100.hea"
    if not header.is_file():
        pytest.skip("the recordings of ../shared/data are not here")
    recording = dm.open_recordings(header)["signals"]
    n = int(figure(len(recording), 5000))
    sink = dm.JournalSink(
        recording.stream, "ecg", tmp_path / "log", context=arena, sync=True
    )
    stop = None if n == len(recording) else float(recording.t[n])
    with dm.API(tmp_path, tmp_path) as api, Consumer("ecg", context=arena) as reader:
        ack = api.replay(recording, sink, rate_limit=False, stop=stop)
        values = reader.read(n, timeout=60)  # lossless: it gates the replay
        assert ack.wait(60).reason == "completed"
    sink.close()
    whole = recording.read(0, n)
    np.testing.assert_array_equal(values, whole.array)
    # What was recorded, out into both formats, and back.
    recorded = dm.open_recordings(tmp_path / "log")["ecg"]
    stamps = recorded.read().index["device_time"]
    np.testing.assert_array_equal(recorded.read().array, whole.array)
    np.testing.assert_array_equal(stamps, whole.time_ns)
    np.testing.assert_array_equal(recorded.t, stamps / 1e9)
    dm.write_xdf(tmp_path / "a.xdf", {"ecg": recorded})
    (back,), _ = pyxdf.load_xdf(str(tmp_path / "a.xdf"), dejitter_timestamps=False)
    np.testing.assert_array_equal(back["time_series"], whole.array)
    np.testing.assert_array_equal(back["time_stamps"], recorded.t)
    np.testing.assert_array_equal(np.rint(back["time_stamps"] * 1e9), stamps)
    dm.write_nwb(tmp_path / "a.nwb", {"ecg": recorded})
    with pynwb.NWBHDF5IO(str(tmp_path / "a.nwb"), "r") as io:
        series = io.read().acquisition["ecg"]
        np.testing.assert_array_equal(series.data[...], whole.array)
        np.testing.assert_array_equal(np.rint(series.timestamps[...] * 1e9), stamps)


def test_a_fast_amplifier_loses_nothing_on_our_side(figure, tmp_path, record_property):
    pytest.importorskip("pylsl")
    channels, rate, seconds = 64, 30_000.0, figure(60.0, 2.0)
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(
        target=push_lsl, args=("amplifier", channels, rate, seconds, there)
    )
    process.start()
    assert here.recv() == "ready"
    numbers: list[np.ndarray] = []
    with dm.API(tmp_path, tmp_path) as api:
        attrs = {"source_id": "id-amplifier"}
        ack = api.record_live_stream(
            "lsl", "amplifier", attrs, tmp_path / "log", sync=True, buffer_seconds=1
        )
        with Consumer("amplifier") as reader:
            thread = threading.Thread(target=read_numbers, args=(reader, numbers))
            thread.start()
            here.send("go")
            pushed, first_s = here.recv()
            deadline = time.monotonic() + seconds * 3 + 30
            while (done := ack.task.statistics()).samples + done.lost < pushed:
                assert time.monotonic() < deadline, done
                time.sleep(0.05)
            offsets, lost = ack.task.source.offsets, done.lost
            assert done.reconnects == ()
            api.stop_task(ack.randseq)
            assert ack.wait(60).reason == "stopped"
            thread.join(60)
        ack.task.sink.close()
    here.send("over")
    process.join(20)
    assert process.exitcode == 0
    # Every sample that LSL delivered is in the stream and in the journal, in order,
    # with its own time; what LSL lost is counted.
    archive = LogArchive(tmp_path / "log")
    block = archive.read("amplifier")
    assert len(block) + lost == pushed
    assert archive.gaps == []
    first = block.data[:, 0].astype("i8")
    np.testing.assert_array_equal(np.concatenate(numbers)[:, 0], first)
    for channel in range(channels):
        found = block.data[:, channel].astype("i8")
        np.testing.assert_array_equal(found, (first + channel) % 2**24)
    steps = np.diff(first) % 2**24
    assert (steps >= 1).all()
    assert int((steps - 1).sum()) + int(first[0]) == lost
    k = np.concatenate([[0], np.cumsum(steps)]) + first[0]
    times = block.device[:, 0] * 1e-9
    np.testing.assert_allclose(times, first_s + k / rate, atol=1e-6)
    assert len(offsets) >= max(1, int(seconds / 5) - 1)
    clock = archive.read("amplifier.clock").data
    assert clock[: len(offsets), 0].tolist() == [o.offset_ns for o in offsets]
    assert clock[-1, 2] == lost
    record_property("lsl", f"{len(block)} samples, {lost} lost, {len(offsets)} offsets")
    print(f"{len(block)} samples, {lost} lost by LSL, {len(offsets)} offsets")


def read_numbers(reader: Consumer, numbers: list[np.ndarray]) -> None:
    """Read a stream to its end, in blocks; keep two channels."""
    while True:
        try:
            rows = reader.read(1024, timeout=60)
        except EndOfStream:
            return
        numbers.append(rows[:, [0, -1]].astype("i8"))


def test_lateness_does_not_grow_beside_a_busy_core(figure, tmp_path, record_property):
    seconds = figure(60.0, 3.0)
    fields = {f"c{i}": Field(dtype="f32") for i in range(32)}
    stream = Stream("eeg", frequency=1000, fields=fields)
    n = int(seconds * 1000)
    column = np.arange(n, dtype="f4")
    recording = Recording.of(stream, dict.fromkeys(fields, column))
    spawn = multiprocessing.get_context("spawn")
    until = spawn.Event()
    process = spawn.Process(target=burn, args=(until,))
    process.start()
    try:
        with dm.API(tmp_path, tmp_path) as api:
            seen: list[int] = []
            ack = api.replay(
                recording,
                lambda b: seen.append(len(b)) if b != dm.END_OF_STREAM else None,
                deliver="block",
            )
            assert ack.wait(seconds * 3 + 60).reason == "completed"
            late = ack.task.statistics().lateness
    finally:
        until.set()
        process.join(20)
    assert sum(seen) == n
    record_property("lateness", str(late))
    print(f"p99 {late.p99_s * 1e3:.3g} ms, {late}")
    assert abs(late.slope) <= 3 * late.slope_error, late
    assert late.max_s < 10
