"""DataMux at full figures: a whole record, a fast amplifier, a minute beside a load."""

from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path

import numpy as np
import pytest
from workers_datamux import burn, push_lsl

import ataraxis.datamux as dm
from ataraxis import Consumer
from ataraxis.datamux import Field, Recording, Stream

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
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
    api = dm.API(tmp_path, tmp_path)
    got: list[tuple[np.ndarray, np.ndarray]] = []

    def record() -> None:
        values, stamps = np.empty((n, 2)), np.empty(n, "i8")
        for i, frame in enumerate(reader):
            values[i], stamps[i] = frame.array, frame.device_time
        got.append((values, stamps))

    made = dm.producer_of(recording.stream, "ecg", sync=True, context=arena)
    with made as producer, Consumer("ecg", context=arena) as reader:
        thread = threading.Thread(target=record)
        thread.start()
        stop = None if n == len(recording) else float(recording.t[n])
        ack = api.replay(recording, producer, rate_limit=False, stop=stop)
        thread.join()
        assert ack.wait(10).reason == "completed"
    ((values, stamps),) = got
    whole = recording.read(0, n)
    np.testing.assert_array_equal(values, whole.array)
    np.testing.assert_array_equal(stamps, whole.time_ns)
    # What was recorded, out into both formats, and back.
    columns = {"t": stamps, "MLII": values[:, 0], "V5": values[:, 1]}
    declared = recording.stream.copy()
    declared.index["t"] = Field("time", dtype="i64", unit="ns")
    recorded = Recording.of(declared, columns)
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


def test_a_fast_amplifier_loses_nothing_on_our_side(figure, tmp_path):
    pytest.importorskip("pylsl")
    channels, rate, seconds = 64, 30_000.0, figure(60.0, 2.0)
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(
        target=push_lsl, args=("amplifier", channels, rate, seconds, there)
    )
    process.start()
    assert here.recv() == "ready"
    with dm.API(tmp_path, tmp_path) as api:
        source = api.open_source("lsl", "amplifier", {"source_id": "id-amplifier"})
        declared = source.stream
        source.close()
        made = dm.producer_of(declared, "amplifier", sync=True, buffer_seconds=1)
        numbers, times = [], []
        with made as producer, Consumer("amplifier") as reader:
            attrs = {"source_id": "id-amplifier"}
            ack = api.proxy_live_stream("lsl", "amplifier", attrs, producer)
            here.send("go")
            pushed, first_s = here.recv()
            for frame in reader:
                numbers.append(frame.array[[0, 1, -1]].copy())
                times.append(frame.device_time)
                if len(times) + ack.task.statistics().lost >= pushed:
                    break
            del frame
            offsets, lost = ack.task.source.offsets, ack.task.statistics().lost
            assert ack.task.statistics().reconnects == ()
            api.stop_task(ack.randseq)
            while reader.receive(timeout=5) is not None:
                pass
    here.send("over")
    process.join(20)
    assert process.exitcode == 0
    first, second, last = np.array(numbers, "i8").T
    np.testing.assert_array_equal(second, (first + 1) % 2**24)
    np.testing.assert_array_equal(last, (first + channels - 1) % 2**24)
    # Every sample that LSL delivered is here, in order, with its own time.
    assert len(first) + lost == pushed
    steps = np.diff(first) % 2**24
    assert (steps >= 1).all()
    assert int((steps - 1).sum()) + int(first[0]) == lost
    k = np.concatenate([[0], np.cumsum(steps)]) + first[0]
    np.testing.assert_allclose(np.array(times) * 1e-9, first_s + k / rate, atol=1e-6)
    assert len(offsets) >= max(1, int(seconds / 5) - 1)


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
    print(late)
    # Zero within its error; the second term is what a second of stall may do to a fit.
    assert abs(late.slope) < 4 * late.slope_error + 0.5 / seconds**2, late
    assert late.max_s < 10
