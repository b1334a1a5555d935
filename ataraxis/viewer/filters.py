"""Filters and spectrum of traces, of the picture only: no recording is changed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

CORNER_HZ = 300.0
"""The high-pass removes what is slower than about this, Hz."""


class HighPass:
    """Subtracts the mean of the last 1/300 s, channel by channel.

    Parameters
    ----------
    rate : float
        Samples a second.

    Examples
    --------
    >>> found = HighPass(900.0)
    >>> found(0, np.array([[3.0], [3.0], [3.0], [9.0]])).ravel().tolist()
    [0.0, 0.0, 0.0, 4.0]
    """

    def __init__(self, rate: float) -> None:
        self._width = max(2, round(rate / CORNER_HZ))
        self._tail: NDArray[np.float64] | None = None
        self._next = -1

    def __call__(self, position: int, rows: NDArray[Any]) -> NDArray[np.float32]:
        """Return filtered samples, shape (n, channels); begins again after a gap."""
        if self._tail is None or position != self._next:
            self._tail = np.empty((0, rows.shape[1]))
        self._next = position + len(rows)
        whole = np.concatenate([self._tail, rows])
        before, width = len(self._tail), self._width
        sums = np.zeros((len(whole) + 1, rows.shape[1]))
        np.cumsum(whole, axis=0, out=sums[1:])
        ends = np.arange(before + 1, len(whole) + 1)
        starts = np.maximum(ends - width, 0)
        means = (sums[ends] - sums[starts]) / (ends - starts)[:, None]
        self._tail = whole[max(len(whole) - width + 1, 0) :]
        return (rows - means).astype(np.float32)


class MedianReference:
    """Subtracts the median of all channels from each sample.

    Examples
    --------
    >>> MedianReference()(0, np.array([[1, 2, 9]])).tolist()
    [[-1.0, 0.0, 7.0]]
    """

    def __call__(self, position: int, rows: NDArray[Any]) -> NDArray[np.float32]:
        """Return samples without what all channels have in common."""
        found = rows - np.median(rows, axis=1, keepdims=True)
        return np.asarray(found, np.float32)


FILTERS = {
    "": "",
    "highpass": f"high-pass {CORNER_HZ:g} Hz",
    "median": "median reference",
}
"""Names of filters, and what the page calls them."""


def make_filter(name: str, rate: float | None) -> HighPass | MedianReference | None:
    """Return a filter; None: without a name, or without the rate that it needs."""
    if name == "highpass" and rate is not None:
        return HighPass(rate)
    return MedianReference() if name == "median" else None


# ---- the spectrum of one channel over time

_WANTED_S = 0.017
_LEAST, _MOST = 32, 512
_FLOOR = 1e-12


class Spectrum:
    """Power of a channel in pieces that overlap by half, dB.

    Column k is of the piece that ends with sample ``(k + 1) * hop - 1``. A piece with a
    gap has no column.

    Parameters
    ----------
    channel : int
        Which channel.
    rate : float
        Samples a second.

    Examples
    --------
    >>> spectrum = Spectrum(0, 1000.0)
    >>> spectrum.hop, spectrum.bins
    (16, 17)
    >>> tone = np.sin(np.arange(64) * np.pi / 2)[:, None]  # 250 Hz
    >>> columns, power = spectrum(0, tone)
    >>> columns.tolist(), power.argmax(axis=1).tolist()
    ([1, 2, 3], [8, 8, 8])
    """

    def __init__(self, channel: int, rate: float) -> None:
        size = 2 ** round(math.log2(max(rate * _WANTED_S, 1)))
        self._size = min(max(size, _LEAST), _MOST)
        self.hop = self._size // 2
        """Samples from one piece to the next."""
        self.bins = self.hop + 1
        """Frequencies, from 0 to half the rate."""
        self._channel = channel
        self._window = np.hanning(self._size + 1)[:-1]
        self._kept: NDArray[np.float64] = np.empty(0)
        self._next = -1

    def __call__(
        self, position: int, rows: NDArray[Any]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the columns that are whole now, shape (n,), and power, (n, bins).

        `position` is that of the first of the samples, shape (n, channels).
        """
        if position != self._next:
            self._kept = np.empty(0)
        self._next = position + len(rows)
        values = np.asarray(rows[:, self._channel], np.float64)
        self._kept = np.concatenate([self._kept, values])
        start = self._next - len(self._kept)
        skip = -start % self.hop
        count = (len(self._kept) - skip - self._size) // self.hop + 1
        if count <= 0:
            return np.empty(0, np.int64), np.empty((0, self.bins), np.float32)
        pieces = np.lib.stride_tricks.sliding_window_view(
            self._kept[skip:], self._size
        )[:: self.hop][:count]
        power = np.abs(np.fft.rfft(pieces * self._window, axis=1)) ** 2 / self._size
        first = (start + skip) // self.hop + 1
        self._kept = self._kept[skip + count * self.hop :]
        found = 10 * np.log10(power + _FLOOR)
        return np.arange(first, first + count), found.astype(np.float32)
