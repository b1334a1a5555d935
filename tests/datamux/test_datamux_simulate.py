"""Simulation: the same seed gives the same samples; faults strike as configured."""

from __future__ import annotations

import queue
import time

import numpy as np
import pytest
from datamux_rig import counting, drained, write_collection, write_csv
from hypothesis import given
from hypothesis import strategies as st

import ataraxis.datamux as dm
from ataraxis.datamux import Faults, Field, Stream
from ataraxis.datamux.simulation import (
    Events,
    Noise,
    Pattern,
    Ramp,
    Sine,
    Spikes,
)  # fmt: skip
from ataraxis.errors import SourceLost, SourceNotFound


@pytest.fixture
def api(tmp_path):
    with dm.API(tmp_path, tmp_path) as api:
        yield api


def stream(rate: float | None = 200, dtype: str = "f64", **fields) -> Stream:
    made = fields or {"a": Field(dtype=dtype), "b": Field(dtype=dtype)}
    return Stream("sim", frequency=rate, fields=made, index={"t": Field(unit="s")})


def simulated(api, made, *, expect: str = "completed", **options):
    """Return all times, one array of all values, and the blocks."""
    sink = queue.Queue()
    options = {"rate_limit": False, "duration": 5.0, "deliver": "block", **options}
    ack = api.simulate_stream(made, sink=sink, **options)
    blocks, end = drained(sink)
    assert end.reason == expect, end
    ack.wait(5)
    t = np.concatenate([b.t for b in blocks])
    return t, np.concatenate([b.array for b in blocks]), ack


def test_a_sine_is_one(api):
    t, values, _ = simulated(api, stream(), signals={"b": Sine(3.0, 2.0, 1.0)})
    assert len(t) == 1000
    np.testing.assert_array_equal(t, np.arange(1000) / 200)
    np.testing.assert_allclose(values[:, 0], np.sin(2 * np.pi * t), atol=1e-9)
    expected = 1 + 2 * np.sin(6 * np.pi * t)
    np.testing.assert_allclose(values[:, 1], expected, atol=1e-9)


FAULTS = Faults(dropout=0.1, nan=0.05, jitter_s=0.001, drift_ppm=50, burst=0.5)


@pytest.mark.parametrize("signal", [Noise(), Spikes(), Ramp(), Sine()], ids=repr)
@pytest.mark.parametrize("faults", [None, FAULTS], ids=["clean", "faults"])
def test_the_same_seed_gives_the_same_bits_however_it_is_read(api, signal, faults):
    options = {"signals": signal, "faults": faults, "duration": 3.0}
    first = simulated(api, stream(), seed=7, block=64, **options)
    again = simulated(api, stream(), seed=7, block=1, speed=3.0, **options)
    paced = simulated(
        api, stream(), seed=7, block=0.5, rate_limit=True, speed=100, **options
    )
    other = simulated(api, stream(), seed=8, **options)
    for same in (again, paced):
        assert first[0].tobytes() == same[0].tobytes()
        assert first[1].tobytes() == same[1].tobytes()
    if faults or not isinstance(signal, (Sine, Ramp)):
        assert first[1].tobytes() != other[1].tobytes()


def test_noise_spikes_and_ramps_are_what_they_say(api):
    options = {"duration": 100.0}
    _, noise, _ = simulated(api, stream(), signals=Noise(2.0, 5.0), **options)
    assert abs(noise.mean() - 5) < 0.1
    assert abs(noise.std() - 2) < 0.1
    _, spikes, _ = simulated(api, stream(), signals=Spikes(4.0, 100.0), **options)
    assert 300 < (spikes[:, 0] > 50).sum() < 500
    t, ramp, _ = simulated(api, stream(), signals=Ramp(0.5, 3.0))
    np.testing.assert_allclose(ramp[:, 1], 3 * ((t / 0.5) % 1.0))


def test_integers_are_rounded_and_clipped_as_a_converter_does(api):
    _, values, _ = simulated(api, stream(dtype="i8"), signals=Sine(1.0, 500.0))
    assert values.dtype == np.int8
    assert (values.min(), values.max()) == (-128, 127)


def test_a_camera_pattern_moves(api):
    made = stream(30, frame=Field(dtype="u8", shape=(12, 32)))
    t, frames, _ = simulated(api, made, signals=Pattern(2.0), duration=2.0)
    assert frames.shape == (60, 12, 32)
    brightest = frames[:, 0].argmax(axis=1)
    expected = (t / 2.0) % 1.0 * 32
    assert np.abs(brightest - expected).max() <= 3


def test_events_come_at_random_times_and_guided_ones_as_recorded(api):
    made = stream(None, code=Field(dtype="u8"))
    t, codes, _ = simulated(api, made, signals=Events(10.0, 3), duration=100.0)
    assert 850 < len(t) < 1150
    assert set(codes.ravel().tolist()) == {1, 2, 3}
    assert (np.diff(t) >= 0).all()
    recording = counting(50, rate=None)
    t, _, _ = simulated(api, recording, guided=True, duration=3.0)
    np.testing.assert_allclose(np.diff(t), 0.01, rtol=1e-6)


def test_a_function_of_time(api):
    t, values, _ = simulated(api, stream(), signals={"a": lambda t: t**2})
    np.testing.assert_array_equal(values[:, 0], t**2)
    sink = queue.Queue()
    api.simulate_stream(stream(), sink=sink, signals=lambda t: 1.0)
    _, end = drained(sink)
    assert "returned shape ()" in str(end.error)


def test_guided_values_are_pieces_of_the_recording(api, tmp_path):
    folder = write_collection(tmp_path)
    write_csv(folder / "A_1_1.csv", 1000)
    attrs = {"subject": "A", "session": "1", "task": "1"}
    sink = queue.Queue()
    api.simulate_stream(
        "eyes", "gaze", attrs, sink, guided=True, duration=5.0, rate_limit=False
    )
    items, _ = drained(sink)
    x = np.array([item["value"]["x"] for item in items]).reshape(5, 100)
    assert (np.diff(x, axis=1) == 1).all()
    assert len({row[0] for row in x.tolist()}) > 1
    api.simulate_stream("eyes", "gaze", {}, sink, duration=0.5, rate_limit=False)
    items, _ = drained(sink)
    assert [*items[0]["value"]] == ["x", "y"]
    assert len(items) == 50


# ---- faults


def test_dropouts_are_counted_and_the_others_stay(api):
    clean = simulated(api, stream(), signals=Noise(), duration=50.0)
    t, values, ack = simulated(
        api, stream(), signals=Noise(), duration=50.0, faults=Faults(dropout=0.2)
    )
    lost = ack.task.statistics().lost
    assert len(t) + lost == 10_000
    assert 1800 < lost < 2200
    kept = np.isin(clean[0], t)
    np.testing.assert_array_equal(clean[1][kept], values)


def test_nan_jitter_and_drift(api):
    faults = Faults(nan=0.1, jitter_s=0.01, drift_ppm=1000)
    t, values, _ = simulated(api, stream(), faults=faults, duration=100.0)
    missing = np.isnan(values).all(axis=1)
    assert 0.08 < missing.mean() < 0.12
    assert (np.isnan(values).any(axis=1) == missing).all()
    assert (np.diff(t) >= 0).all()
    true = np.arange(len(t)) / 200
    drift, _ = np.polyfit(true, t, 1)
    assert abs(drift - 1.001) < 1e-4
    assert 0.002 < np.std(t - true * 1.001) < 0.02


def test_a_burst_comes_late_and_together(api):
    faults = Faults(burst=10.0, burst_s=0.5)  # in each 0.1 s a stall begins
    arrivals = []
    ack = api.simulate_stream(
        stream(100),
        sink=lambda b: arrivals.append((time.monotonic(), b)),
        faults=faults, duration=0.5, deliver="block", block=1,
    )  # fmt: skip
    ack.wait(20)
    at = np.array([a for a, b in arrivals[:-1]])
    due = np.array([b.t[0] for a, b in arrivals[:-1]])
    held = (at - at[0]) - (due - due[0])
    assert held.max() > 0.2
    assert len(due) == 50


def test_a_source_that_goes_away_says_lost(api):
    sink = queue.Queue()
    faults = Faults(lost_after_s=0.25)
    api.simulate_stream(stream(100), sink=sink, faults=faults, rate_limit=False)
    items, end = drained(sink)
    assert len(items) == 25
    assert (end.reason, type(end.error)) == ("lost", SourceLost)


@given(
    dropout=st.floats(0, 1), nan=st.floats(0, 1), jitter=st.floats(0, 0.1),
    drift=st.floats(-1e4, 1e4), seed=st.integers(0, 2**32),
)  # fmt: skip
def test_times_never_go_back_whatever_the_faults(dropout, nan, jitter, drift, seed):
    faults = Faults(dropout=dropout, nan=nan, jitter_s=jitter, drift_ppm=drift)
    chunks = dm.Simulation(stream(), seed=seed, faults=faults).chunks()
    last = -np.inf
    for _ in range(5):
        chunk = next(chunks)
        assert len(chunk.block) + chunk.lost == 20
        times = np.concatenate([[last], chunk.block.t])
        assert (np.diff(times) >= 0).all()
        last = times[-1] if len(times) else last


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"signals": {"c": Sine()}}, SourceNotFound, "no field 'c'"),
        ({"signals": 3}, TypeError, "signal must be one of .*, got 3"),
        ({"guided": True}, ValueError, "needs a recording"),
        ({"duration": -1}, ValueError, "duration must be 0 s or more, got -1"),
        ({"block": 0}, ValueError, "block must be more than 0, got 0"),
        ({"sink": None}, TypeError, "sink must be a queue"),
    ],
    ids=str,
)
def test_what_cannot_be_simulated_is_refused_in_the_call(api, options, error, message):
    sink = options.pop("sink", queue.Queue())
    with pytest.raises(error, match=message):
        api.simulate_stream(stream(), sink=sink, **options)


def test_text_needs_a_guide_and_faults_have_limits(api):
    with pytest.raises(ValueError, match="needs a recording as guide"):
        api.simulate_stream(stream(w=Field(dtype="str")), sink=queue.Queue())
    for wrong in ({"dropout": 1.5}, {"jitter_s": -1}, {"nan": float("nan")}):
        with pytest.raises(ValueError, match="Faults"):
            Faults(**wrong)
