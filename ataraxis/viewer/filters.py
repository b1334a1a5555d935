"""Filters of traces, for the picture only: what is recorded is not changed."""

from __future__ import annotations

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
