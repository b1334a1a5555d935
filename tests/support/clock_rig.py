"""Simulated devices: oscillators that drift with temperature, delays, pulses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MS, SECOND = 10**6, 10**9
HOUR = 3600 * SECOND


@dataclass(frozen=True)
class Oscillator:
    """A device's clock: off by `ppm`, and by up to `swing_ppm` with temperature."""

    ppm: float = 30.0
    swing_ppm: float = 20.0
    period_ns: float = 1.5 * HOUR
    unit_ns: float = 1000.0
    start: int = 0

    def ticks(self, true_ns):
        """Return the counter, not yet rounded down, as (whole, part) of doubles."""
        t = np.asarray(true_ns, "f8")
        w = 2 * np.pi / self.period_ns
        gained = self.ppm * 1e-6 * t + self.swing_ppm * 1e-6 / w * (1 - np.cos(w * t))
        return self.start + (t + gained) / self.unit_ns

    def stamp(self, true_ns):
        return np.floor(self.ticks(true_ns)).astype("i8")

    def true_ns(self, ticks):
        """Return when the counter reached `ticks`, ns, by fixed-point iteration."""
        wanted = np.asarray(ticks, "f8")
        t = (wanted - self.start) * self.unit_ns
        for _ in range(6):
            t = t - (self.ticks(t) - wanted) * self.unit_ns
        return t


def delays(rng, n, fixed_ms, kind="exponential", jitter_ms=2.0):
    """Return delays, ns: a fixed one and jitter that is never negative."""
    if kind == "exponential":
        jitter = rng.exponential(jitter_ms * MS, n)
    else:
        jitter = rng.uniform(0, jitter_ms * MS, n)
    return np.rint(fixed_ms * MS + jitter).astype("i8")


def sample_times(rng, n, hours=3.0):
    """Return true times of samples, ns, not quite regular."""
    t = np.linspace(0, hours * HOUR, n) + rng.uniform(0, hours * HOUR / n / 10, n)
    return np.rint(t).astype("i8")


def barcodes(rng, seconds, every_s=1.0):
    """Return true times of rising edges, ns, at intervals that are not all equal."""
    steps = rng.uniform(0.5, 1.5, int(seconds / every_s)) * every_s
    return np.rint(np.cumsum(steps) * SECOND).astype("i8")


def recorded(rng, edges, *, lost=0.01, extra=0.01, bounced=0.01, start=0, stop=None):
    """Return the true times of the edges that a device records, sorted, ns."""
    stop = edges[-1] if stop is None else stop
    kept = edges[(edges >= start) & (edges <= stop)]
    kept = kept[rng.random(len(kept)) >= lost]
    false = rng.uniform(start, stop, rng.binomial(len(kept), extra)).astype("i8")
    again = kept[rng.random(len(kept)) < bounced]
    again = again + rng.integers(100_000, 3 * MS, len(again))
    return np.sort(np.concatenate([kept, false, again]))


def camera(
    seed, hz=60.0, seconds=600, pauses=(), reset=None, bits=None, first=0, span_s=None,
    lost=0.01, dropped=0.02, fixed_ms=12,
):  # fmt: skip
    """Simulate a camera whose strobes a DAQ records, and whose frames arrive.

    Returns the true times of the frames that arrived, their numbers as counted, their
    arrivals and the recorded strobes, ns. `pauses` are (after s, for s).
    """
    rng = np.random.default_rng(seed)
    oven = Oscillator(30, 20, 1800 * SECOND, unit_ns=1)
    number = np.arange(int(hz * seconds))
    ideal = number * (SECOND / hz)
    for after_s, for_s in pauses:
        ideal = ideal + np.where(number >= after_s * hz, for_s * SECOND, 0)
    jitter = rng.normal(0, 2000, len(number))
    true = np.rint(oven.true_ns(ideal) + jitter).astype("i8") + 5 * SECOND
    start_s, stop_s = span_s or (0, 10 * seconds)
    strobes = recorded(
        rng, true, lost=lost, start=true[0] + start_s * SECOND,
        stop=min(true[-1], true[0] + stop_s * SECOND),
    )  # fmt: skip
    counted = number + first
    if reset is not None:
        counted = np.where(number >= reset, number - reset, counted)
    if bits is not None:
        counted = counted % (1 << bits)
    arrived = np.maximum.accumulate(true + delays(rng, len(true), fixed_ms))
    kept = rng.random(len(true)) >= dropped
    return true[kept], counted[kept], arrived[kept], strobes
