"""Clocks: the host's, those of other hosts, and those of devices.

Every stamp in ataraxis is `now_ns()`: CLOCK_MONOTONIC of this host, int64 ns. An
`Anchor` converts it to wall time, an `Offset` to another host's clock, a `ClockFit` a
device's stamps to host time. Stamps are never changed: conversions are recorded beside
them.
"""

from ataraxis.clock._arrivals import fit_arrivals
from ataraxis.clock._fit import ClockFit, FitSegment, relate
from ataraxis.clock._host import (
    BOOT_ID,
    SLEW,
    UNKNOWN_DRIFT,
    WANDER,
    Anchor,
    Offset,
    boot_id,
    boottime,
    now_ns,
)
from ataraxis.clock._offsets import fit_offsets
from ataraxis.clock._order import convert_in_order
from ataraxis.clock._pulses import fit_pulses
from ataraxis.clock._round_trips import fit_round_trips
from ataraxis.clock._strobes import fit_strobes
from ataraxis.clock._unwrap import DeviceTicks, unwrap

__all__ = [
    "BOOT_ID",
    "SLEW",
    "UNKNOWN_DRIFT",
    "WANDER",
    "Anchor",
    "ClockFit",
    "DeviceTicks",
    "FitSegment",
    "Offset",
    "boot_id",
    "boottime",
    "convert_in_order",
    "fit_arrivals",
    "fit_offsets",
    "fit_pulses",
    "fit_round_trips",
    "fit_strobes",
    "now_ns",
    "relate",
    "unwrap",
]
