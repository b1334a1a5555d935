"""Columns: minimum and maximum of each so many samples, exactly, with their losses."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bounds = tuple[NDArray[Any], NDArray[Any]]
_STEPS = (
    10,
    11,
    12,
    14,
    16,
    18,
    20,
    22,
    25,
    28,
    32,
    36,
    40,
    45,
    50,
    56,
    64,
    70,
    80,
    90,
)
_DRAWN = {
    "b1": "u1", "i1": "i1", "u1": "u1", "i2": "i2", "u2": "u2", "i4": "i4", "u4": "u4",
    "i8": "f8", "u8": "f8", "f2": "f4", "f4": "f4", "f8": "f8",
}  # fmt: skip


def drawn_dtype(dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    """Return the dtype of the columns of numbers; None: they cannot be drawn.

    Integers of 64 bits become doubles, which are exact up to 2**53.

    Examples
    --------
    >>> drawn_dtype(np.dtype(">i2")), drawn_dtype(np.dtype("U3")) is None
    (dtype('int16'), True)
    """
    name = _DRAWN.get(dtype.str[1:])
    return None if name is None else np.dtype(name)


def factor_of(samples: float, columns: int) -> int:
    """Return how many samples a column holds, so that at most `columns` are needed.

    Factors are of a short list, so that windows of about the same width share columns.

    Examples
    --------
    >>> factor_of(60_000, 1050), factor_of(10, 1000)
    (64, 1)
    """
    least = samples / max(columns, 1)
    if least <= _STEPS[0]:
        return max(math.ceil(least), 1)
    for power in itertools.count():
        for step in _STEPS:
            if step * 10**power >= least:
                return int(step * 10**power)
    raise AssertionError("unreachable")


class ColumnSeries:
    """The newest columns of the samples of one stream.

    Column k holds samples ``k * factor`` to ``(k + 1) * factor - 1``. One of which no
    sample is there is empty: its minimum is greater than its maximum. NaN does not
    count as a sample.

    Parameters
    ----------
    factor : int
        Samples of a column.
    channels : int
        Values of a sample.
    dtype : dtype
        Of the columns, as `drawn_dtype` returns it.
    capacity : int
        How many columns are kept.

    Examples
    --------
    >>> series = ColumnSeries(3, 1, np.dtype("i2"), 100)
    >>> series.add(0, np.arange(7, dtype="i2")[:, None])
    >>> series.add(12, np.arange(3, dtype="i2")[:, None])  # 7 to 11 were lost
    >>> first, low, high = series.read(0, series.end)
    >>> low.ravel().tolist(), high.ravel().tolist()
    ([0, 3, 6, 32767, 0], [2, 5, 6, -32768, 2])
    """

    def __init__(
        self, factor: int, channels: int, dtype: np.dtype[Any], capacity: int
    ) -> None:
        self.factor, self.channels, self.dtype = factor, channels, dtype
        self.capacity = capacity
        is_float = dtype.kind == "f"
        limits: Any = np.finfo(dtype) if is_float else np.iinfo(dtype)
        self._empty = (np.inf, -np.inf) if is_float else (limits.max, limits.min)
        self._least = np.fmin if is_float else np.minimum
        self._most = np.fmax if is_float else np.maximum
        self._low = np.full((capacity, channels), self._empty[0], dtype)
        self._high = np.full((capacity, channels), self._empty[1], dtype)
        self._open = self._blank()
        self._next: int | None = None
        self.begin = 0
        """First column of the series."""
        self.end = 0
        """The column that is not complete yet."""

    def _blank(self) -> Bounds:
        shape = (self.channels,)
        low, high = (np.full(shape, bound, self.dtype) for bound in self._empty)
        return low, high

    @property
    def first(self) -> int:
        """The oldest column that is kept."""
        return max(self.begin, self.end - self.capacity)

    def add(self, position: int, samples: NDArray[Any]) -> None:
        """Add samples that follow each other; `position` is that of the first.

        Positions before that of an earlier call are left out.

        Parameters
        ----------
        position : int
            Samples since the beginning, lost ones included.
        samples : ndarray
            Shape (n, channels).
        """
        if self._next is None:
            self.begin = self.end = position // self.factor
        elif position < self._next:
            samples = samples[self._next - position :]
            position = self._next
        if not len(samples):
            return
        self._close_until(position // self.factor)
        self._next = position + len(samples)
        f = self.factor
        at = min(-position % f, len(samples))
        if position % f:
            self._grow(samples[:at])
            if self._next // f > self.end:
                self._close_until(self.end + 1)
        else:
            at = 0
        whole = (len(samples) - at) // f
        if whole:
            cut = samples[at : at + whole * f].reshape(whole, f, self.channels)
            self._append(self._least.reduce(cut, 1), self._most.reduce(cut, 1))
            at += whole * f
        if at < len(samples):
            self._grow(samples[at:])

    def add_at(self, columns: NDArray[np.int64], samples: NDArray[Any]) -> None:
        """Add samples whose columns are given, not decreasing; shape (n, channels).

        Those of a column that is complete go into the one that is not.
        """
        if not len(samples):
            return
        if self._next is None:
            self.begin = self.end = int(columns[0])
            self._next = 0
        columns = np.maximum(columns, self.end)
        starts = np.flatnonzero(np.diff(columns, prepend=columns[0] - 1))
        for start, stop in itertools.pairwise([*starts.tolist(), len(samples)]):
            self.advance(int(columns[start]))
            self._grow(samples[start:stop])

    def advance(self, column: int) -> None:
        """Complete the columns before `column`: no sample of them will come."""
        if self._next is not None:
            self._close_until(column)

    def _grow(self, samples: NDArray[Any]) -> None:
        """Add samples to the column that is not complete."""
        low, high = self._open
        self._least(low, self._least.reduce(samples, 0), out=low)
        self._most(high, self._most.reduce(samples, 0), out=high)

    def _close_until(self, column: int) -> None:
        """Complete columns until `column` is the open one."""
        if column <= self.end:
            return
        self._append(*(bound[None] for bound in self._open))
        self._open = self._blank()
        lost = column - self.end
        if lost > self.capacity:
            self.end = column - self.capacity
            lost = self.capacity
        if lost:
            shape = (lost, self.channels)
            self._append(*(np.full(shape, bound, self.dtype) for bound in self._empty))

    def _append(self, low: NDArray[Any], high: NDArray[Any]) -> None:
        count = len(low)
        if count > self.capacity:
            low, high = low[-self.capacity :], high[-self.capacity :]
        start = self.end + count - len(low)
        at = start % self.capacity
        head = min(len(low), self.capacity - at)
        for ring, new in ((self._low, low), (self._high, high)):
            ring[at : at + head] = new[:head]
            ring[: len(new) - head] = new[head:]
        self.end += count

    def read(
        self, start: int, stop: int, channels: NDArray[np.intp] | None = None
    ) -> tuple[int, NDArray[Any], NDArray[Any]]:
        """Return the columns that are kept of `start` to `stop`.

        Parameters
        ----------
        start, stop : int
            Numbers of columns; `stop` is not included.
        channels : int array, optional
            Only these.

        Returns
        -------
        first : int
            Number of the first one returned.
        low, high : ndarray
            Minimum and maximum of each, shape (columns, channels); copies.
        """
        start, stop = max(start, self.first), min(stop, self.end)
        places = np.arange(start, max(stop, start)) % self.capacity
        low, high = self._low[places], self._high[places]
        if channels is not None:
            low, high = low[:, channels], high[:, channels]
        return start, low, high
