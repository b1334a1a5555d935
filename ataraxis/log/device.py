"""Loss inside a device, before its samples arrived, derived from its own counter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.labels import frame_rate

COUNTER, BITS = "device_counter", "device_counter_bits"
UNITS, BITS_OF_TIME = "device_time_units", "device_time_bits"
PER_S = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
PARTS = 8
"""Number of parts of a recording whose rates are compared."""
_SLACK = 64


@dataclass(frozen=True)
class DeviceLoss:
    """What a device lost before it sent, according to its counter."""

    lost: int
    """Missing counter values, in `unit`."""
    unit: str
    """'frames' or 'samples': what the counter counts."""
    resets: int = 0
    """Resets of the counter; what was lost at one is unknown."""
    wraps: int = 0
    """Overflows of a counter of its width."""


def unwrapped(
    counters: NDArray[np.uint64],
    bits: int,
    times_ns: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.intp], int]:
    """Unwrap a counter of a given width, and separate resets from overflows.

    Parameters
    ----------
    counters : uint64 array, shape (n,)
        Values as the device sent them.
    bits : int
        Its declared width, 8 to 64.
    times_ns : int64 array, shape (n,), optional
        Arrival times. A step back is an overflow if the elapsed time explains the
        distance forward across it, else a reset.

    Returns
    -------
    steps : int64 array, shape (n - 1,)
        Increments; 1 where it was reset.
    resets : int array
        Index of the last entry before each reset.
    wraps : int
        Number of overflows.

    Examples
    --------
    >>> unwrapped(np.array([254, 255, 0, 1, 0], "u8"), 8)
    (array([1, 1, 1, 1]), array([3]), 1)
    """
    ahead = np.diff(counters.astype("u8"))
    if bits < 64:
        ahead &= np.uint64((1 << bits) - 1)
    steps = ahead.view("i8")
    is_back = counters[1:] < counters[:-1]
    if bits >= 64:
        is_reset = is_back
    else:
        limit = np.full(len(steps), 1 << (bits - 1), "i8")
        if times_ns is not None and len(steps):
            passed = np.diff(times_ns)
            forward = ~is_back & (steps > 0)
            per_ns = (
                np.median(steps[forward] / np.maximum(passed[forward], 1))
                if (forward.any())
                else 0.0
            )
            likely = 4 * per_ns * np.maximum(passed, 0) + _SLACK
            limit = np.minimum(limit, likely.astype("i8"))
        is_reset = is_back & (steps > limit)
    resets = np.flatnonzero(is_reset)
    steps = np.where(is_reset, 1, steps)
    return steps, resets, int(np.count_nonzero(is_back & ~is_reset))


class DeviceStamps:
    """The device counters of one source, and the losses they show.

    The attributes of its labels may have ``device_counter``: 'frames', 'samples',
    'none' (not from a device) or 'unknown' (a device without a counter); and
    ``device_counter_bits``.
    """

    def __init__(self) -> None:
        self._counters: list[NDArray[np.uint64]] = []
        self._sequences: list[NDArray[np.uint64]] = []
        self._times: list[NDArray[np.int64]] = []
        self._device_times: list[NDArray[np.int64]] = []
        self._attrs: Mapping[str, Any] = {}
        self._per_frame = 1
        self._are_all = True

    def describe(self, attrs: Mapping[str, Any], per_frame: int) -> None:
        """Set the attributes of the source's labels, and the samples per frame."""
        self._attrs, self._per_frame = attrs, max(per_frame, 1)

    def add(
        self,
        stamps: NDArray[np.int64] | None,
        sequences: NDArray[np.uint64],
        times_ns: NDArray[np.int64],
    ) -> None:
        """Add device times and counters of entries, (n, 2), or None without stamps."""
        self._sequences.append(sequences)
        self._times.append(times_ns)
        if stamps is None:
            self._are_all &= not len(sequences)
            return
        self._device_times.append(stamps[:, 0].copy())
        self._counters.append(stamps[:, 1].copy().view("u8"))

    @property
    def declared_hz(self) -> float | None:
        """Frames per second according to the labels."""
        return frame_rate(self._attrs, self._per_frame)

    def rate_hz(self) -> tuple[float | None, bool]:
        """Return frames per second, and whether the device's clock was used.

        By the host's clock it is the median over `PARTS` parts, so that a burst at the
        start has no effect. None with too few frames.
        """
        if sum(map(len, self._sequences)) < 2:
            return None, False
        sequences = np.concatenate(self._sequences)
        order = _order(sequences)
        steps = sequences[order].view("i8")
        per_s = PER_S.get(str(self._attrs.get(UNITS)))
        if per_s and self._are_all:
            times = np.concatenate(self._device_times)[order]
            seconds = (int(times[-1]) - int(times[0])) / per_s
            frames = int(steps[-1] - steps[0])
            return (frames / seconds if seconds > 0 else None), True
        times = np.concatenate(self._times)[order]
        at = np.unique(np.linspace(0, len(times) - 1, PARTS + 1).astype(int))
        passed = np.diff(times[at]) * 1e-9
        is_some = passed > 0
        if not is_some.any():
            return None, False
        return float(np.median(np.diff(steps[at])[is_some] / passed[is_some])), False

    @property
    def is_device(self) -> bool:
        """Whether it comes from a device, as far as it is known."""
        counter = self._attrs.get(COUNTER)
        return counter != "none" and (counter is not None or bool(self._counters))

    def losses(self, refused: int) -> DeviceLoss | None:
        """Count what is missing in the counter and was not lost later.

        `refused` frames were given up by the producer and have no sequence number.
        """
        kind = self._attrs.get(COUNTER)
        if kind in ("none", "unknown") or not self._counters or not self._are_all:
            return None
        counters = np.concatenate(self._counters)
        sequences = np.concatenate(self._sequences)
        order = _order(sequences)
        counters = counters[order]
        if kind is None and not counters.any():
            return None  # device times without a counter
        sequences = sequences[order]
        times = np.concatenate(self._times)[order]
        bits = int(self._attrs.get(BITS, 64))
        steps, resets, wraps = unwrapped(counters, bits, times)
        unit = self._unit(kind, steps)
        each = self._per_frame if unit == "samples" else 1
        between = np.diff(sequences).view("i8")
        excess = steps - between * each
        excess[resets] = 0
        excess[between == 0] = 0  # repeated entries
        lost = max(int(excess.sum()) - refused * each, 0)
        return DeviceLoss(lost, unit, len(resets), wraps)

    def _unit(self, kind: str | None, steps: NDArray[np.int64]) -> str:
        if kind in ("frames", "samples"):
            return kind
        each = self._per_frame
        is_of_samples = np.count_nonzero(steps == each) > np.count_nonzero(steps == 1)
        return "samples" if each > 1 and is_of_samples else "frames"


def _order(sequences: NDArray[np.uint64]) -> Any:
    """Return an index that sorts entries by sequence number; most are sorted."""
    if (sequences[1:] >= sequences[:-1]).all():
        return slice(None)
    return np.argsort(sequences, kind="stable")
