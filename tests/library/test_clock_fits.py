"""Fits of devices' clocks: small errors, bounds that hold, ambiguity refused."""

from __future__ import annotations

import json
import pickle
import sys

import numpy as np
import pytest
from clock_rig import (
    HOUR,
    MS,
    SECOND,
    Oscillator,
    barcodes,
    camera,
    delays,
    recorded,
    sample_times,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import examples

from ataraxis.clock import (
    ClockFit,
    convert_in_order,
    fit_arrivals,
    fit_offsets,
    fit_pulses,
    fit_round_trips,
    fit_strobes,
    relate,
    unwrap,
)
from ataraxis.errors import AmbiguousMatch

US = 1000
NEURAL = Oscillator(unit_ns=1e9 / 30000)  # one sample at 30 kHz is 33 us
AHEAD = 7 * SECOND
CLEAN = {"lost": 0, "extra": 0, "bounced": 0}


# ---- unwrapping


@settings(deadline=None, max_examples=examples(200))
@given(
    bits=st.integers(1, 64),
    first=st.integers(0, 2**61),
    shares=st.lists(st.floats(0, 1), max_size=50),
)
def test_a_counter_of_any_width_is_unwrapped(bits, first, shares):
    half = min((1 << bits) // 2, 2**40)
    true = np.cumsum([first, *(int(share * half) for share in shares)])
    made = unwrap(np.array([int(t) % (1 << bits) for t in true], "u8"), bits)
    assert made.ticks.dtype == np.int64
    assert np.diff(made.ticks).tolist() == np.diff(true).tolist()
    assert made.starts == (0,)


@settings(deadline=None, max_examples=examples(100))
@given(
    bits=st.sampled_from([16, 24, 32, 64, None]),
    runs=st.lists(st.integers(1, 20), min_size=1, max_size=5),
)
def test_each_reset_begins_a_segment_above_the_last(bits, runs):
    """Each run counts from 0; a step back of few ticks is not a wrap."""
    raw = np.concatenate([np.arange(n) * 10 for n in runs])
    made = unwrap(raw, bits)
    resets = np.flatnonzero(np.diff(raw) < 0) + 1
    assert list(made.starts[1:]) == resets.tolist()
    assert (np.diff(made.ticks) >= 0).all()
    for part, base in zip(made.slices(), made.bases, strict=True):
        lap = 1 << bits if bits and bits < 64 else 2**62
        assert ((made.ticks[part] - base) % lap == raw[part]).all()


def test_unwrap_refuses_what_it_cannot_read():
    with pytest.raises(ValueError, match="holds 0 to 255, got 0 to 256"):
        unwrap([0, 256], 8)
    with pytest.raises(ValueError, match="1 to 64"):
        unwrap([0], 65)
    with pytest.raises(ValueError, match="a double loses ticks"):
        unwrap([0.5, 1.5], 8)
    with pytest.raises(ValueError, match="shape"):
        unwrap([[1]], 8)
    assert unwrap(np.array([2**64 - 1, 0, 5], "u8"), 64).ticks.tolist() == [-1, 0, 5]


# ---- arrivals


def arrivals(seed=0, n=60_000, bits=None, oven=None, fixed=12, kind="exponential"):
    oven, rng = oven or Oscillator(), np.random.default_rng(seed)
    t = sample_times(rng, n)
    raw = oven.stamp(t)
    return (
        oven,
        t,
        raw if bits is None else raw % (1 << bits),
        t + delays(rng, n, fixed, kind),
    )


def errors(fit, true_ns, fixed=12):
    return fit.to_host_ns(fit.ticks) - true_ns - fixed * MS


@pytest.mark.parametrize("kind", ["exponential", "uniform"])
@pytest.mark.parametrize(("fixed", "bits"), [(3, None), (12, 32), (25, 16)])
def test_three_hours_of_arrivals_are_right_but_for_a_constant(fixed, bits, kind):
    oven = Oscillator(0, 50, HOUR)
    _, t, raw, host = arrivals(fixed, 60_000, bits, oven, fixed, kind)
    fit = fit_arrivals(raw, host, unit_ns=1000, bits=bits)
    away = errors(fit, t, fixed)
    assert np.ptp(away) / 2 < 100 * US
    assert (np.abs(away) <= fit.bound_at(fit.ticks)).all()
    assert fit.absolute_bound_at(fit.ticks) is None
    assert "fixed delay" in repr(fit)
    assert "jitter >= 0" in fit.assumption
    near = fit.to_host_ns(raw, near_ns=host)
    assert (near == fit.to_host_ns(fit.ticks)).all()


def test_a_declared_latency_makes_the_bound_absolute():
    _, t, raw, host = arrivals()
    fit = fit_arrivals(raw, host, unit_ns=1000, latency_ms=(3, 25))
    away = np.abs(fit.to_host_ns(fit.ticks) - t)
    bound = fit.absolute_bound_at(fit.ticks)
    assert (away <= bound).all()
    assert bound.min() > 11 * MS
    assert (fit.bound_at(fit.ticks) == bound).all()
    with pytest.raises(ValueError, match="min <= max"):
        fit_arrivals(raw, host, unit_ns=1000, latency_ms=(5, 3))


def board_reset(oven, t, raw, host):
    a = len(t) // 3
    kept = (t <= t[a]) | (t >= t[a] + 20 * SECOND)
    late = t >= t[a] + 20 * SECOND
    since = int(oven.stamp(t[a] + 19 * SECOND))
    raw = np.where(late, oven.stamp(t) - since, raw)
    return t[kept], raw[kept], host[kept]


def host_jump(by):
    def event(oven, t, raw, host):
        shift = np.where(t > t[len(t) // 2], by, 0)
        return t + shift, raw, host + shift

    return event


def suspended(oven, t, raw, host):
    """CLOCK_MONOTONIC stands still; what the device sent is lost."""
    start = t[len(t) // 2]
    kept = (t <= start) | (t >= start + 300 * SECOND)
    shift = np.where(t > start, 300 * SECOND, 0)
    return (t - shift)[kept], raw[kept], (host - shift)[kept]


def stalled(oven, t, raw, host):
    start = t[len(t) // 2]
    return t, raw, np.where((t > start) & (t < start + 5 * SECOND),
                            np.maximum(host, start + 5 * SECOND), host)  # fmt: skip


@pytest.mark.parametrize(
    ("event", "segments"),
    [
        (board_reset, 2), (host_jump(5 * SECOND), 2), (host_jump(-5 * SECOND), 2),
        (host_jump(20 * MS), 2), (host_jump(-20 * MS), 2), (suspended, 2), (stalled, 1),
    ],
    ids=["reset", "ahead 5 s", "back 5 s", "ahead 20 ms", "back 20 ms", "suspended",
         "stalled"],
)  # fmt: skip
@pytest.mark.parametrize("bits", [None, 32])
def test_resets_and_jumps_begin_a_segment(event, segments, bits):
    oven, t, raw, host = arrivals(2)
    t, raw, host = event(oven, t, raw, host)
    raw = raw if bits is None else raw % (1 << bits)
    fit = fit_arrivals(raw, host, unit_ns=1000, bits=bits)
    assert len(fit.segments) == segments
    away = errors(fit, t)
    assert np.ptp(away) / 2 < 100 * US
    assert (np.abs(away) <= fit.bound_at(fit.ticks)).all()
    assert (fit.to_host_ns(raw, near_ns=host) == fit.to_host_ns(fit.ticks)).all()


@pytest.mark.parametrize("by_us", [-2700, -600, -250, -100, 100, 250, 600, 1500])
@pytest.mark.parametrize("seed", range(3))
def test_a_jump_that_hides_in_the_jitter_widens_the_bound(by_us, seed):
    """A line cannot show a jump of a tenth of the jitter: the claim must stay true."""
    rng, oven = np.random.default_rng(seed), Oscillator(0, 50, HOUR)
    t = sample_times(rng, 20_000, hours=1)
    jump = np.where(t > t[rng.integers(1000, 19_000)], by_us * US, 0)
    host = t + jump + delays(rng, len(t), 12)
    fit = fit_arrivals(oven.stamp(t), host, unit_ns=1000)
    away = np.abs(errors(fit, t + jump))
    bound = fit.bound_at(fit.ticks)
    assert (away <= bound).all()
    assert np.median(bound) < 150 * US
    assert np.mean(away < 100 * US) > 0.95


def resumed(kept, duration_s, clock_stands):
    """A host is suspended, and buffers stamps; its clock may stand still meanwhile."""

    def event(oven, t, raw, host):
        start = t[len(t) // 2]
        end = start + duration_s * SECOND
        inside = (t > start) & (t < end)
        which = np.flatnonzero(inside)
        lost = {"all": which[:0], "first": which[200:], "last": which[:-200]}[kept]
        keep = np.full(len(t), True)
        keep[lost] = False
        stood = np.clip(t - start, 0, end - start) if clock_stands else np.zeros_like(t)
        resume = end - stood[-1] + 50 * MS
        burst = resume + np.cumsum(inside) * 20 * US
        host = np.maximum.accumulate(np.where(inside, burst, host - stood))
        return (t - stood)[keep], raw[keep], host[keep], inside[keep]

    return event


@pytest.mark.parametrize("clock_stands", [True, False])
@pytest.mark.parametrize("kept", ["all", "first", "last"])
@pytest.mark.parametrize("duration_s", [20, 300, 2000])
def test_what_a_suspended_host_buffered_spoils_nothing(clock_stands, kept, duration_s):
    oven, t, raw, host = arrivals(1)
    event = resumed(kept, duration_s, clock_stands)
    t, raw, host, is_buffered = event(oven, t, raw, host)
    fit = fit_arrivals(raw, host, unit_ns=1000)
    away = errors(fit, t)
    assert np.abs(away[~is_buffered]).max() < 100 * US
    assert (np.abs(away) <= fit.bound_at(fit.ticks)).all()
    assert len(fit.segments) == (2 if clock_stands else 1)


@pytest.mark.parametrize("gap_s", [0, 0.5, 20])
@pytest.mark.parametrize("seed", range(3))
def test_a_reset_that_hides_in_a_counter_of_few_bits(seed, gap_s):
    """16 bits of us lap 15 times a second, the device sends 5: only the phase jumps."""
    oven, t, raw, host = arrivals(seed)
    for at in np.random.default_rng(seed).integers(12_000, 48_000, 1 + seed % 2):
        raw = np.where(t >= t[at], raw - int(oven.stamp(t[at])), raw)
        kept = (t < t[at]) | (t >= t[at] + gap_s * SECOND)
        t, raw, host = t[kept], raw[kept], host[kept]
    fit = fit_arrivals(raw % 2**16, host, unit_ns=1000, bits=16)
    away = np.abs(errors(fit, t))
    assert (away <= fit.bound_at(fit.ticks)).all()
    assert np.mean(away < 100 * US) > 0.99
    near = fit.to_host_ns(raw % 2**16, near_ns=host)
    bound = fit.bound_at(raw % 2**16, near_ns=host)
    assert (np.abs(near - t - 12 * MS) <= bound).all()


def test_a_fast_counter_is_unwrapped_through_stalls_and_gaps():
    """A counter of 16 bits of us wraps 15 times a second; the device sends at 1 kHz."""
    rng, oven = np.random.default_rng(0), Oscillator()
    t = np.arange(40_000) * MS + rng.integers(0, 50 * US, 40_000)
    host = t + delays(rng, len(t), 12)
    stall = (t > 10 * SECOND) & (t < 10.5 * SECOND)
    host[stall] = np.maximum(host[stall], int(10.5 * SECOND))
    kept = (t < 20 * SECOND) | (t > 25 * SECOND)
    t, host = t[kept], host[kept]
    fit = fit_arrivals(oven.stamp(t) % 2**16, host, unit_ns=1000, bits=16)
    assert np.abs(errors(fit, t)).max() < 20 * US


def test_arrivals_that_are_too_few_or_not_whole_are_refused():
    with pytest.raises(ValueError, match="at least 32 stamps, got 3"):
        fit_arrivals([1, 2, 3], [1, 2, 3], unit_ns=1)
    with pytest.raises(ValueError, match="one shape"):
        fit_arrivals([1, 2, 3], [1, 2], unit_ns=1)
    with pytest.raises(ValueError, match="a double loses ns"):
        fit_arrivals(range(40), np.arange(40.0), unit_ns=1)
    with pytest.raises(ValueError, match="unit_ns must be more than 0"):
        fit_arrivals(range(40), range(40), unit_ns=0)


# ---- pulses


def pulse_fit(seed=0, edges=None, ours=(), others=(), seconds=3 * 3600, **options):
    rng = np.random.default_rng(seed)
    edges = barcodes(rng, seconds) if edges is None else edges
    a = recorded(rng, edges, **dict(ours))
    b = recorded(rng, edges, **dict(others))
    ticks = np.ceil(NEURAL.ticks(a)).astype("i8")
    return fit_pulses(ticks, b + AHEAD, unit_ns=1e9 / 30000, **options)


def check_pulses(fit, n=10_000, seed=0, within=33 * US):
    low, high = int(fit.ticks[0]), int(fit.ticks[-1])
    ticks = np.random.default_rng(seed).integers(low, high, n)
    away = np.abs(fit.to_host_ns(ticks) - AHEAD - NEURAL.true_ns(ticks))
    assert away.max() <= within
    assert (away <= fit.bound_at(ticks)).all()
    # Bounds also hold an hour before and after.
    ticks = np.random.default_rng(seed).integers(low - 108_000_000, high, n)
    away = np.abs(fit.to_host_ns(ticks) - AHEAD - NEURAL.true_ns(ticks))
    assert (away <= fit.bound_at(ticks)).all()


@pytest.mark.parametrize(
    ("ours", "others"),
    [
        ({}, {}),
        ({"start": HOUR // 3}, {"stop": 2 * HOUR}),
        ({"start": HOUR // 3, "stop": 2 * HOUR}, {"start": HOUR, "stop": 3 * HOUR}),
        ({"lost": 0.1, "extra": 0.1, "bounced": 0.1}, {"lost": 0.1, "bounced": 0.1}),
    ],
    ids=["dirty", "late start, early stop", "partly together", "very dirty"],
)
def test_barcodes_place_every_sample_within_one_sample(ours, others):
    fit = pulse_fit(0, ours=ours, others=others)
    check_pulses(fit)
    assert fit.is_absolute
    assert len(fit.used) == len(fit.partners) == len(fit.residuals)


def equal(period_ns=SECOND, seconds=1800):
    return (np.arange(seconds * SECOND // period_ns) + 3) * period_ns


def coarse(fixed, seconds=1800, latency_ms=None):
    rng = np.random.default_rng(9)
    t = np.sort(rng.integers(0, seconds * SECOND, 20_000))
    host = t + AHEAD + delays(rng, len(t), fixed)
    return fit_arrivals(
        np.ceil(NEURAL.ticks(t)).astype("i8"), host, unit_ns=1e9 / 30000,
        latency_ms=latency_ms,
    )  # fmt: skip


@pytest.mark.parametrize("dirt", [{}, CLEAN], ids=["dirty", "clean"])
@pytest.mark.parametrize("start", [0, 100 * SECOND, 101 * SECOND])
def test_equal_pulses_are_refused(dirt, start):
    with pytest.raises(AmbiguousMatch, match="fit equally well") as caught:
        pulse_fit(edges=equal(), ours={**dirt, "start": start}, others=dirt)
    assert len(caught.value.candidates) > 1
    assert f"{caught.value.candidates[0] / 1e6:.3f}" in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).candidates


@pytest.mark.parametrize("fixed", [3, 12, 25])
def test_arrivals_break_the_tie_of_equal_pulses(fixed):
    """One period off would be an error of a second."""
    fit = pulse_fit(edges=equal(), ours={"start": 100 * SECOND}, coarse=coarse(fixed))
    check_pulses(fit)


def test_arrivals_cannot_tell_pulses_that_are_closer_than_the_delay():
    edges = equal(20 * MS, 120)
    with pytest.raises(AmbiguousMatch):
        pulse_fit(edges=edges, coarse=coarse(12, 120))
    fit = pulse_fit(edges=edges, coarse=coarse(12, 120, (10, 15)))
    ticks = fit.ticks
    away = fit.to_host_ns(ticks) - AHEAD - NEURAL.true_ns(ticks)
    assert np.abs(away).max() < 34 * US


def test_barcodes_that_repeat_are_refused():
    """A pattern of 20 intervals, again and again, fits 20 pulses later as well."""
    pattern = np.random.default_rng(3).integers(500, 1500, 20) * MS
    edges = np.cumsum(np.tile(pattern, 30))
    with pytest.raises(AmbiguousMatch, match="shifts of"):
        pulse_fit(edges=edges, ours=CLEAN, others=CLEAN)


def widths(seed, n, equal_widths):
    rng = np.random.default_rng(seed)
    rise = barcodes(rng, n)
    width = 100 * MS if equal_widths else rng.integers(50 * MS, 400 * MS, len(rise))
    ticks = np.ceil(NEURAL.ticks(rise)).astype("i8")
    return ticks, rise + AHEAD, rise + width + AHEAD


def test_inverted_polarity_is_found_or_refused():
    ticks, rise, fall = widths(0, 600, False)
    unit = 1e9 / 30000
    good = fit_pulses(ticks, rise, unit_ns=unit, inverted_edges_ns=fall)
    assert "inverted" not in good.assumption
    turned = fit_pulses(ticks, fall, unit_ns=unit, inverted_edges_ns=rise)
    assert "inverted" in turned.assumption
    assert (turned.to_host_ns(ticks) == good.to_host_ns(ticks)).all()
    with pytest.raises(ValueError, match=r"too few edges|Check the polarity"):
        fit_pulses(ticks, fall, unit_ns=unit)
    ticks, rise, fall = widths(0, 600, True)
    with pytest.raises(AmbiguousMatch, match="both polarities"):
        fit_pulses(ticks, fall, unit_ns=unit, inverted_edges_ns=rise)


def test_pulses_that_do_not_belong_together_are_refused():
    rng = np.random.default_rng(0)
    a, b = barcodes(rng, 600), barcodes(rng, 600)
    with pytest.raises(ValueError, match="too few edges match"):
        fit_pulses(a // MS, b, unit_ns=MS)
    with pytest.raises(ValueError, match="too few edges match: at least 8 of 2 and 2"):
        fit_pulses([1, 2], [1, 2])
    with pytest.raises(ValueError, match="must increase"):
        fit_pulses(range(20), [3, 2, 1])
    with pytest.raises(ValueError, match="a double loses ns"):
        fit_pulses(range(20), np.arange(20.0))


@settings(deadline=None, max_examples=examples(60))
@given(
    seed=st.integers(0, 10**6),
    start_s=st.integers(0, 100),
    stop_s=st.integers(200, 300),
)
def test_every_bound_of_a_short_train_holds(seed, start_s, stop_s):
    span = {"start": start_s * SECOND, "stop": stop_s * SECOND}
    fit = pulse_fit(seed, ours=span, seconds=300)
    check_pulses(fit, 100, seed, within=40 * US)


# ---- round trips


@settings(deadline=None, max_examples=examples(100))
@given(
    seed=st.integers(0, 10**6), n=st.integers(1, 200), every_s=st.integers(1, 60),
    reset=st.booleans(),
)  # fmt: skip
def test_round_trips_hold_their_bound(seed, n, every_s, reset):
    rng, oven = np.random.default_rng(seed), Oscillator(30, 20, HOUR)
    true = np.cumsum(rng.integers(SECOND, (every_s + 1) * SECOND, n))
    sent = true - rng.exponential(MS, n).astype("i8")
    received = true + rng.exponential(2 * MS, n).astype("i8")
    raw = oven.stamp(true)
    if reset and n > 2:
        raw[n // 2 :] -= raw[n // 2] - 5
    fit = fit_round_trips(sent, raw % 2**32, received, unit_ns=1000, bits=32)
    assert (np.abs(fit.to_host_ns(fit.ticks) - true) <= fit.bound_at(fit.ticks)).all()
    assert fit.is_absolute


def test_round_trips_that_are_impossible_are_refused():
    with pytest.raises(ValueError, match="received before"):
        fit_round_trips([5], [1], [4])
    with pytest.raises(ValueError, match="at least one trip"):
        fit_round_trips([], [], [])


@pytest.mark.parametrize("jump", [-3 * SECOND, 40 * MS])
def test_round_trips_begin_again_where_they_contradict_each_other(jump):
    rng = np.random.default_rng(0)
    true = np.arange(200) * 5 * SECOND
    sent, received = true - rng.integers(1, MS, 200), true + rng.integers(1, MS, 200)
    device = true + np.where(np.arange(200) >= 90, jump, 0)
    fit = fit_round_trips(sent, device, received)
    assert len(fit.segments) == 2
    bound = fit.bound_at(device)
    assert (np.abs(fit.to_host_ns(device, near_ns=true) - true) <= bound).all()
    assert np.median(bound) < 2 * MS


# ---- offsets


def offsets(seed, seconds=3600, noise=50 * US, oven=None):
    rng, oven = np.random.default_rng(seed), oven or Oscillator(20, 5, HOUR, 1)
    true = np.arange(1, seconds, 5) * SECOND
    device = oven.stamp(true)
    return device, true - device + np.rint(rng.normal(0, noise, len(true))).astype("i8")


@pytest.mark.parametrize("seed", range(5))
def test_offsets_with_outliers_hold_their_bound(seed):
    oven = Oscillator(20, 5, HOUR, 1)
    device, measured = offsets(seed, oven=oven)
    measured[[10, 11, 100, 400]] += np.array([300, -300, 20, -5000]) * MS
    fit = fit_offsets(device, measured)
    assert len(fit.segments) == 1
    assert len(fit.used) == len(device) - 4
    ticks = np.random.default_rng(0).integers(device[0], device[-1] + HOUR, 10_000)
    away = np.abs(fit.to_host_ns(ticks) - oven.true_ns(ticks))
    assert (away <= fit.bound_at(ticks)).all()
    assert np.median(fit.bound_at(device)) < 500 * US
    assert not fit.is_absolute
    with pytest.raises(ValueError, match="round_trip_ns"):
        relate(fit, fit)


def test_offsets_with_their_round_trips_are_absolute():
    device, measured = offsets(0)
    fit = fit_offsets(device, measured, round_trip_ns=600 * US)
    true = Oscillator(20, 5, HOUR, 1).true_ns(device)
    assert fit.is_absolute
    assert (np.abs(fit.to_host_ns(device) - true) <= fit.bound_at(device)).all()


def test_few_offsets_claim_what_is_stated():
    fit = fit_offsets([0, 5 * SECOND], [100, 300])
    assert fit.bound_at(0) > 200 * US
    assert "they are few" in fit.assumption
    assert fit_offsets([7], [5]).to_host_ns(7) == 12


def test_offsets_that_are_not_whole_or_not_pairs_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        fit_offsets([1, 2], [1])
    with pytest.raises(ValueError, match="at least one offset"):
        fit_offsets([], [])
    with pytest.raises(ValueError, match=r"np\.rint"):
        fit_offsets([1, 2], [0.5, 0.5])


def restarted(*runs):
    """Return a fit by offsets of a device that was on at (from s, to s, its clock)."""
    true = [np.arange(a, b, 5) * SECOND for a, b, _ in runs]
    device = [t - a * SECOND + own * SECOND
              for t, (a, _, own) in zip(true, runs, strict=True)]  # fmt: skip
    both = np.concatenate(device)
    return fit_offsets(both, np.concatenate(true) - both)


@pytest.mark.parametrize("second", [3, 600, 50_000], ids=["back", "on", "ahead"])
def test_stamps_are_converted_through_resets_by_their_order(second):
    runs = (0, 300, 1000), (304, 600, second)
    fit = restarted(*runs)
    true = np.arange(0, 600 * SECOND, 7 * MS)
    true = true[(true < 299 * SECOND) | (true >= 304 * SECOND)]
    stamps = np.where(true < 304 * SECOND, true + 1000 * SECOND,
                      true + (second - 304) * SECOND)  # fmt: skip
    host, bound = convert_in_order(fit, stamps)
    assert (np.abs(host - true) <= bound).all()
    assert bound.max() < MS


def test_a_reset_that_no_stamp_shows_is_refused_or_told_apart():
    runs = (0, 300, 1000), (310, 400, 5), (410, 700, 5)
    fit = restarted(*runs)
    first = np.arange(1000, 1300) * SECOND
    # Only the third run is that long.
    host, _ = convert_in_order(fit, np.concatenate([first, np.arange(5, 290) * SECOND]))
    assert abs(host[-1] - 694 * SECOND) < MS
    with pytest.raises(AmbiguousMatch, match=r"stamp 300 may be of several") as caught:
        convert_in_order(fit, np.concatenate([first, np.arange(5, 50) * SECOND]))
    assert caught.value.candidates == pytest.approx((310 * SECOND, 410 * SECOND))
    with pytest.raises(ValueError, match="reset 3 times"):
        convert_in_order(fit, np.tile(np.arange(5, 50), 4) * SECOND)
    with pytest.raises(ValueError, match="near_ns"):
        convert_in_order(fit_round_trips([1], [1], [1], bits=8), [1])


# ---- strobes


@pytest.mark.parametrize(
    "rig",
    [
        {}, {"bits": 16, "first": 60_000}, {"bits": 8}, {"span_s": (100, 400)},
        {"pauses": ((200, 5), (400, 0.7))}, {"reset": 15_000},
        {"lost": 0.1, "dropped": 0.2}, {"hz": 200.0, "seconds": 200},
    ],
    ids=["dirty", "u16", "u8", "late start, early stop", "pauses", "reset",
         "very dirty", "200 Hz"],
)  # fmt: skip
def test_every_frame_has_its_own_strobe(rig):
    true, frames, arrivals, strobes = camera(3, **rig)
    bits = rig.get("bits")
    delay_ms = (11, 14) if "hz" in rig else (8, 16)
    fit = fit_strobes(strobes, frames, arrivals, delay_ms=delay_ms, bits=bits)
    assert (strobes[fit.partners] == true[fit.used]).all()
    recorded_share = 0.5 if "span_s" in rig else 1 - rig.get("lost", 0.01)
    assert len(fit.used) > 0.97 * recorded_share * len(frames)
    away = np.abs(fit.to_host_ns(frames, near_ns=arrivals) - true)
    bound = fit.bound_at(frames, near_ns=arrivals)
    inside = np.abs(away) < 100 * MS  # not between two parts
    assert np.mean(away <= bound) > 0.9999
    assert np.median(bound) < 20 * US
    assert inside.mean() > 0.99


@pytest.mark.parametrize("rate", [1000, 10_000])
@pytest.mark.parametrize("period_ns", [16_666_667, 33_333_333, 109_994_440])
def test_strobes_that_are_whole_samples_fit(rate, period_ns):
    sample = SECOND // rate
    true = SECOND + np.arange(400) * period_ns
    strobes = -(-true // sample) * sample
    arrivals = true + delays(np.random.default_rng(2), 400, 12)
    fit = fit_strobes(
        np.delete(strobes, [20, 90]), np.arange(400)[60:], arrivals[60:],
        delay_ms=(10, 14), tolerance_ns=50 * US + 2 * sample,
    )  # fmt: skip
    # Also of the 60 frames before the first one.
    assert abs(fit.to_host_ns(np.arange(400)) - true).max() < 1.5 * sample


def test_strobes_that_may_be_of_other_frames_are_refused():
    _, frames, arrivals, strobes = camera(5)
    with pytest.raises(AmbiguousMatch, match="fit equally well") as caught:
        fit_strobes(strobes, frames, arrivals, delay_ms=(0, 50))
    shifts = np.diff(sorted(caught.value.candidates)) / 1e6
    assert shifts == pytest.approx(1000 / 60, abs=0.1)
    with pytest.raises(ValueError, match="too few edges match"):
        fit_strobes(strobes, frames, arrivals, delay_ms=(30, 40))
    with pytest.raises(ValueError, match="at least 8 integers"):
        fit_strobes(strobes[:7], frames, arrivals, delay_ms=(8, 16))
    with pytest.raises(ValueError, match="one shape"):
        fit_strobes(strobes, frames[1:], arrivals, delay_ms=(8, 16))


# ---- every fit


def trips(start=10**18, n=100, ahead=0):
    ticks = np.arange(n) * 1000
    sent = start + np.arange(n) * SECOND
    return fit_round_trips(sent, ticks + ahead, sent + 400, unit_ns=MS)


def test_conversion_loses_no_ns_and_comes_back():
    fit = trips(start=2**62 + 1)
    assert fit.to_host_ns(3000) == 2**62 + 1 + 3 * SECOND + 200
    assert type(fit.to_host_ns(3000)) is int
    made = fit.to_host_ns(np.array([[0, 1]]))
    assert made.dtype == np.int64
    assert made.tolist() == [[2**62 + 201, 2**62 + 201 + MS]]
    assert fit.to_device(made).tolist() == [[0, 1]]
    with pytest.raises(ValueError, match="a double loses ticks"):
        fit.to_host_ns(1.5)
    with pytest.raises(ValueError, match="shape"):
        fit.to_host_ns([1, 2], near_ns=5)


def test_a_fit_goes_through_json_and_stays_frozen():
    _, _, raw, host = arrivals(n=2000)
    fit = fit_arrivals(raw, host, unit_ns=1000, latency_ms=(1, 2), clock="rig")
    back = ClockFit.from_dict(json.loads(json.dumps(fit.as_dict())))
    assert back == fit
    assert back != trips()
    assert (back.bound_at(raw) == fit.bound_at(raw)).all()
    assert (host - fit.to_host_ns(fit.ticks) == fit.residuals + 1_500_000).all()
    small = ClockFit.from_dict(json.loads(json.dumps(fit.as_dict(residuals=False))))
    assert len(small.residuals) == 0
    assert (small.to_host_ns(raw) == fit.to_host_ns(raw)).all()
    assert (small.bound_at(raw) == fit.bound_at(raw)).all()
    assert small.as_dict(residuals=False) == fit.as_dict(residuals=False)
    with pytest.raises(ValueError, match="is missing"):
        ClockFit.from_dict({"kind": "pulses", "assumption": "", "segments": []})
    with pytest.raises(AttributeError):
        fit.kind = "pulses"
    with pytest.raises(ValueError, match="read-only"):
        fit.residuals[0] = 0


def test_two_devices_are_related_through_absolute_fits_only():
    a, b = trips(), trips(ahead=5_000_000)
    both = relate(a, b)
    assert both.to_host_ns(500) == (500 + 5_000_000) * MS
    assert both.bound_at(500) >= a.bound_at(500) + b.bound_at(5_000_500)
    _, t, raw, host = arrivals(n=2000)
    loose = fit_arrivals(raw, host, unit_ns=1000)
    with pytest.raises(ValueError, match="Declare latency_ms"):
        relate(a, loose)
    with pytest.raises(ValueError, match="no time in common"):
        relate(a, trips(start=0))
    known = fit_arrivals(raw, host, unit_ns=1000, latency_ms=(10, 14))
    other = fit_round_trips(t - 500, t // US, t + 500, unit_ns=1000)
    both = relate(known, other)
    inside = (known.ticks > both.segments[0].device[0]) & (
        known.ticks < both.segments[0].device[-1]
    )
    away = np.abs(both.to_host_ns(known.ticks[inside]) - t[inside])
    assert (away <= both.bound_at(known.ticks[inside]) + US).all()


class Axes:
    """What a plot draws."""

    def __init__(self):
        self.drawn = []

    def __getattr__(self, name):
        return lambda *args, **options: self.drawn.append(name)


def test_a_plot_draws_residuals_and_bounds():
    pytest.importorskip("matplotlib", reason="the plot extra is not installed")
    axes = trips().plot()
    assert axes.get_xlabel() == "host time, s"
    (residuals,) = axes.lines
    assert len(residuals.get_xdata()) == 100
    assert len(axes.collections) == 1


def test_a_plot_needs_matplotlib_only_when_it_is_drawn(monkeypatch):
    axes = Axes()
    assert trips().plot(axes) is axes
    assert {"plot", "fill_between", "set_xlabel"} <= set(axes.drawn)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'ataraxis\[plot\]'"):
        trips().plot()
