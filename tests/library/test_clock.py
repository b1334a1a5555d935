"""The clock: anchors that bracket, offsets that keep their promise."""

import dataclasses
import json
import time

import numpy as np
import pytest
from clock_rig import Oscillator
from hypothesis import given, settings
from hypothesis import strategies as st

from ataraxis.clock import Anchor, Offset, _host, boot_id, now_ns

SECOND = 10**9


def test_now_is_the_monotonic_clock_in_whole_nanoseconds():
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    now = now_ns()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    assert type(now) is int
    assert before <= now <= after


def test_anchor_is_both_clocks_at_one_instant():
    before, wall_before = now_ns(), time.time_ns()
    anchor = Anchor.take()
    after, wall_after = now_ns(), time.time_ns()
    assert before <= anchor.monotonic_ns <= after
    assert wall_before <= anchor.wall_ns <= wall_after
    assert 0 <= anchor.uncertainty_ns <= after - before
    assert anchor.host
    assert anchor.boot_id == boot_id()
    assert Anchor(**json.loads(json.dumps(dataclasses.asdict(anchor)))) == anchor


def test_anchor_keeps_the_tightest_reading(monkeypatch):
    monotonic = iter([0, 100, 200, 211, 300, 390])
    wall = iter([1000, 2000, 3000])
    monkeypatch.setattr(_host, "now_ns", lambda: next(monotonic))
    monkeypatch.setattr(_host.time, "time_ns", lambda: next(wall))
    anchor = Anchor.take(readings=3)
    assert (anchor.monotonic_ns, anchor.wall_ns, anchor.uncertainty_ns) == (
        205,
        2000,
        6,
    )


def test_anchor_needs_a_reading():
    with pytest.raises(ValueError, match="at least 1"):
        Anchor.take(readings=0)


def test_anchor_turns_times_exactly():
    anchor = Anchor(wall_ns=1_700_000_000 * SECOND + 1, monotonic_ns=2**53 + 1)
    assert anchor.to_wall_ns(2**53 + 3) == 1_700_000_000 * SECOND + 3
    assert anchor.to_monotonic_ns(anchor.to_wall_ns(12345)) == 12345
    stamps = np.array([[2**53 + 1], [2**53 + 2]])
    wall = anchor.to_wall_ns(stamps)
    assert wall.dtype == np.int64
    assert wall.tolist() == [[anchor.wall_ns], [anchor.wall_ns + 1]]
    assert stamps[0, 0] == 2**53 + 1
    times = anchor.to_datetime64(stamps)
    assert times.dtype == np.dtype("M8[ns]")
    assert times.shape == (2, 1)
    assert str(times[1, 0]) == "2023-11-14T22:13:20.000000002"
    assert anchor.to_datetime64(2**53 + 2) == times[1, 0]


def test_boot_that_the_kernel_does_not_tell_is_empty(monkeypatch, tmp_path):
    monkeypatch.setattr(_host, "BOOT_ID", str(tmp_path / "none"))
    assert boot_id() == ""


@given(
    offset=st.integers(-(2**62), 2**62),
    trips=st.lists(
        st.tuples(*[st.integers(0, 10**6)] * 4), min_size=1, max_size=8
    ),
)  # fmt: skip
def test_true_offset_is_within_the_bound(offset, trips):
    samples = []
    for start, there, work, back in trips:
        t1 = start + there + offset
        samples.append((start, t1, t1 + work, start + there + work + back))
    found = Offset.from_round_trips(samples, "b")
    assert abs(found.offset_ns - offset) <= found.bound_ns
    assert found.bound_ns == min((there + back + 1) // 2 for _, there, _, back in trips)
    assert found.host == "b"
    assert found.measured_ns in [sample[3] for sample in samples]


@settings(deadline=None)
@given(
    ahead=st.integers(-(2**60), 2**60),
    drift=st.floats(-50e-6, 50e-6),
    every_s=st.integers(1, 30),
    ways=st.lists(
        st.tuples(st.integers(1000, 10**6), st.integers(1000, 10**6)),
        min_size=1, max_size=60,
    ),
    asked_s=st.lists(st.integers(-3600, 7200), min_size=1),
)  # fmt: skip
def test_a_clock_that_drifts_is_within_the_bound_at_any_time(
    ahead, drift, every_s, ways, asked_s
):
    def there(here):
        return here + ahead + round(drift * here)

    samples = []
    for k, (out, back) in enumerate(ways):
        sent = k * every_s * 10**9
        answered = there(sent + out)
        samples.append((sent, answered, answered, sent + out + back))
    found = Offset.from_round_trips(samples)
    for second in asked_s:
        here = second * 10**9
        bound = found.bound_at(here) + 2  # of rounding
        assert abs(found.to_local_ns(there(here)) - here) <= bound
        assert abs(found.to_remote_ns(here) - there(here)) <= bound
    span = len(ways) * every_s
    if span > 60 and len(ways) > 10:
        assert found.drift == pytest.approx(drift, abs=2 * found.bound_ns / 1e10)


@pytest.mark.parametrize("measured_s", [30, 120, 600])
def test_a_rate_that_changes_with_temperature_stays_within_the_bound(measured_s):
    """20 ppm in 45 minutes: a line through a minute is 36 ms off an hour later."""
    rng, oven = np.random.default_rng(measured_s), Oscillator(20, 20, unit_ns=1)
    for start in range(0, 5400, 600):
        sent = (start + np.arange(measured_s)) * SECOND
        out, back = (rng.integers(30_000, 200_000, measured_s) for _ in range(2))
        there = oven.stamp(sent + out)
        trips = np.stack([sent, there, there, sent + out + back], axis=1)
        found = Offset.from_round_trips(trips)
        for later_s in (0, 10, 100, 1000, 3600, 7200):
            here = int(trips[-1, 3]) + later_s * SECOND
            away = abs(found.to_remote_ns(here) - int(oven.stamp(here)))
            assert away <= found.bound_at(here) + 2


def test_a_line_of_bad_measurements_claims_little():
    """Ways whose asymmetry turns in the middle look like a drift, and are none."""
    ways = [(20, 0)] * 10 + [(0, 20)] * 11
    samples = [
        (t, t + out * 10**6, t + out * 10**6, t + (out + back) * 10**6)
        for t, (out, back) in zip(range(0, 21 * 10**9, 10**9), ways, strict=True)
    ]
    found = Offset.from_round_trips(samples)
    for second in (-3600, -60, 0, 10, 20, 30, 80, 3600):
        here = second * 10**9
        assert abs(found.to_remote_ns(here) - here) <= found.bound_at(here)


@pytest.mark.parametrize("drift", [-1e-3, 1e-4, 1e-3])
@pytest.mark.parametrize("later_s", [-(10**6), 0, 10**6])
def test_a_time_converted_there_and_back_is_the_same(drift, later_s):
    """Also for a clock so wrong that the square of its drift counts."""
    found = Offset(5_000, 10, 7 * SECOND, drift=drift, growth=1e-6, span_ns=SECOND)
    here = 7 * SECOND + later_s * SECOND
    there = here + 5_000 + round(drift * later_s * SECOND)
    assert abs(found.to_remote_ns(here) - there) <= 1
    assert abs(found.to_local_ns(there) - here) <= 1


def test_the_bound_grows_with_age_and_span_up_to_what_is_possible():
    """1 ppm, 0.1 ppm a second of age and span, and at most 100 ppm and the drift."""
    span = 10 * SECOND
    found = Offset(0, 10, 0, drift=-5e-5, growth=1e-6, span_ns=span)
    assert (
        found.bound_at(-span) == found.bound_at(-span // 2) == found.bound_at(0) == 10
    )
    for age, rate in ((span, 3e-6), (10 * span, 12e-6), (10**6 * SECOND, 150e-6)):
        for local in (age, -span - age):
            wanted = 10 + rate * age
            assert found.bound_at(local) == pytest.approx(wanted, rel=1e-6, abs=2)


def test_offset_takes_arrays_and_skips_impossible_samples():
    samples = np.array(
        [[0, 500, 400, 90], [10, 110, 120, 5], [0, 0, 50, 20], [0, 105, 106, 11]]
    )
    offset = Offset.from_round_trips(samples)
    assert offset == Offset(offset_ns=100, bound_ns=5, measured_ns=11)
    assert type(offset.offset_ns) is int
    assert offset.to_local_ns(offset.to_remote_ns(7)) == 7
    assert offset.to_remote_ns(7) == 107
    assert offset.to_local_ns(np.array([107, 108])).tolist() == [7, 8]
    at_once = Offset.from_round_trips([(0, 500, 500, 90), (200, 300, 304, 204)])
    assert at_once == Offset(offset_ns=100, bound_ns=0, measured_ns=204)
    with pytest.raises(ValueError, match="no usable round trip"):
        Offset.from_round_trips(samples[:3])
    with pytest.raises(ValueError, match="exchange some"):
        Offset.from_round_trips([])
