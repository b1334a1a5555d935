"""Blocks: the samples of a source whose entries hold several each, as one array."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ataraxis.errors import CorruptFrame
from ataraxis.frame import Frame
from ataraxis.log.rows import PIECE_BYTES, RowKind, read_rows
from ataraxis.log.selection import LogSource

Ints = NDArray[np.int64]


class Blocks:
    """Where the samples of some entries are; reads them.

    Parameters
    ----------
    source : LogSource
        The log.
    number : int
        Number of its source.
    ranges : int64 array, shape (k, 2)
        Numbers of the entries, as ranges, in order.
    kind : RowKind
        Of a whole block: its first axis is that of samples.
    verify : bool
        Whether to check checksums.
    refuse, damaged : callable
        Raise for an entry of another kind, or a damaged one, given its number.
    """

    def __init__(
        self,
        source: LogSource,
        number: int,
        ranges: Ints,
        kind: RowKind,
        *,
        verify: bool,
        refuse: Callable[[Frame, int], NoReturn],
        damaged: Callable[[int, CorruptFrame], NoReturn],
    ) -> None:
        self._source, self._kind, self._verify = source, kind, verify
        self._refuse, self._damaged = refuse, damaged
        self.rest = kind.shape[1:]
        """Shape of a sample."""
        self.sample_bytes = math.prod(self.rest) * kind.dtype.itemsize
        """Size of a sample."""
        parts = _clipped(source.sizes(number), ranges)
        self._heads = parts[:, 0]
        """Number of the first entry of each part of entries of one size."""
        rows = parts[:, 1] - parts[:, 0]
        self._rows = np.concatenate([[0], np.cumsum(rows)])
        self._each = self._lengths(parts)
        self._starts = np.concatenate([[0], np.cumsum(rows * self._each)])

    def _lengths(self, parts: Ints) -> Ints:
        """Return the samples of an entry of each part: one header a size is read."""
        sizes, first = np.unique(parts[:, 2], return_index=True)
        found = np.empty(len(sizes), np.int64)
        for k, at in enumerate(first.tolist()):
            found[k] = self._length(int(parts[at, 0]), int(parts[at, 1]))
        return found[np.searchsorted(sizes, parts[:, 2])]

    def _length(self, first: int, last: int) -> int:
        for number in range(first, min(last, first + 64)):
            try:
                frame = self._source.frame(number, verify=False)
            except CorruptFrame:
                continue
            try:
                own = RowKind.of(frame)
            except TypeError:
                self._refuse(frame, number)
            if own.dtype != self._kind.dtype or own.shape[1:] != self.rest:
                self._refuse(frame, number)
            if len(own.shape) != len(self._kind.shape):
                self._refuse(frame, number)
            return own.shape[0]
        return self._kind.shape[0]

    def __len__(self) -> int:
        """Return the number of samples."""
        return int(self._starts[-1])

    @property
    def counts(self) -> Ints:
        """Samples of each entry, (n,)."""
        return np.repeat(self._each, np.diff(self._rows))

    def first_samples(self, rows: Ints) -> Ints:
        """Return the number of the first sample of some rows."""
        part = np.searchsorted(self._rows, rows, "right") - 1
        behind = rows - self._rows[part]
        return np.asarray(self._starts[part] + behind * self._each[part])

    def samples_of(self, rows: Ints) -> Ints:
        """Return the samples of some rows, in order."""
        first, each = self.first_samples(rows), self.counts_of(rows)
        behind = np.cumsum(each) - each
        return np.asarray(np.arange(int(each.sum())) - np.repeat(behind - first, each))

    def rows_of(self, samples: Ints) -> tuple[Ints, Ints]:
        """Return the row of each sample, and its place in it."""
        part = np.searchsorted(self._starts, samples, "right") - 1
        each = np.maximum(self._each[part], 1)
        row, inner = np.divmod(samples - self._starts[part], each)
        return row + self._rows[part], inner

    def _kind_of(self, samples: int) -> RowKind:
        kind = self._kind
        return RowKind(kind.code, kind.dtype, (samples, *self.rest), kind.is_plain)

    def _numbers(self, rows: Ints) -> Ints:
        part = np.searchsorted(self._rows, rows, "right") - 1
        return np.asarray(self._heads[part] + rows - self._rows[part])

    # ---- reading

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Read samples from `start` to before `stop`: a copy."""
        if start < stop:
            part = int(np.searchsorted(self._starts, start, "right")) - 1
            if stop <= self._starts[part + 1]:
                return self._within(part, start, stop)
        out = np.empty((max(stop - start, 0), *self.rest), self._kind.dtype)
        at = start
        while at < stop:
            part = int(np.searchsorted(self._starts, at, "right")) - 1
            each, begin = int(self._each[part]), int(self._starts[part])
            end = min(stop, int(self._starts[part + 1]))
            row, inner = divmod(at - begin, each)
            if inner or end - at < each:
                upto = min(end, at - inner + each)
                block = self._rows_as(part, row, row + 1)[0]
                out[at - start : upto - start] = block[inner : inner + upto - at]
                at = upto
                continue
            many = (end - at) // each
            place = out[at - start : at - start + many * each]
            self._rows_as(part, row, row + many, place.reshape(many, each, *self.rest))
            at += many * each
        return out

    def _within(self, part: int, start: int, stop: int) -> NDArray[Any]:
        """Read samples of entries of one size, by whole entries."""
        each, begin = int(self._each[part]), int(self._starts[part])
        first, inner = divmod(start - begin, each)
        last = -(-(stop - begin) // each)
        blocks = self._rows_as(part, first, last)
        flat = blocks.reshape((last - first) * each, *self.rest)
        found = flat[inner : inner + stop - start]
        # A small part does not keep all of them in memory.
        return found if 2 * len(found) > len(flat) else found.copy()

    def _rows_as(
        self, part: int, first: int, last: int, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Read rows of a part of entries of one size."""
        head, each = int(self._heads[part]), int(self._each[part])
        return self._read_rows(range(head + first, head + last), each, out)

    def _read_rows(
        self, numbers: Ints | range, each: int, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Read entries of `each` samples by their numbers."""
        return read_rows(
            self._source, self._source.pick(numbers), self._kind_of(each), out,
            verify=self._verify, refuse=self._refuse, damaged=self._damaged,
        )  # fmt: skip

    def take(self, samples: Ints) -> NDArray[Any]:
        """Read samples by number, in any order: a copy."""
        if not len(samples):
            return self.read(0, 0)
        steps = np.diff(samples)
        if (steps == 1).all():
            return self.read(int(samples[0]), int(samples[-1]) + 1)
        rows, inner = self.rows_of(samples)
        needed, back = np.unique(rows, return_inverse=True)
        # Blocks of one length behind each other.
        counts = self.counts_of(needed)
        order = np.argsort(counts, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        needed, back = needed[order], place[back]
        lengths, heads = np.unique(counts[order], return_index=True)
        pieces = [
            (at, min(at + self._at_once(each), last), each)
            for each, head, last in zip(
                lengths.tolist(), heads, [*heads[1:], len(needed)], strict=True
            )
            for at in range(head, last, self._at_once(each))
        ]
        if len(pieces) == 1:
            return self._picked(needed, pieces[0][2], back, inner)
        out = np.empty((len(samples), *self.rest), self._kind.dtype)
        sorted_by = np.argsort(back, kind="stable")
        edges = np.searchsorted(back[sorted_by], [at for at, _, _ in pieces])
        for (at, end, each), mine in zip(
            pieces, np.split(sorted_by, edges[1:]), strict=True
        ):
            out[mine] = self._picked(needed[at:end], each, back[mine] - at, inner[mine])
        return out

    def _at_once(self, each: int) -> int:
        """Return how many blocks of a length are read at once."""
        return max(1, PIECE_BYTES // max(each * self.sample_bytes, 1))

    def counts_of(self, rows: Ints) -> Ints:
        """Return the samples of some rows."""
        part = np.searchsorted(self._rows, rows, "right") - 1
        return np.asarray(self._each[part])

    def _picked(
        self, rows: Ints, each: int, back: NDArray[np.intp], inner: Ints
    ) -> NDArray[Any]:
        blocks = self._read_rows(self._numbers(rows), each)
        flat = blocks.reshape(len(rows) * each, *self.rest)
        return np.asarray(flat[back * each + inner])


def _clipped(sizes: Ints, ranges: Ints) -> Ints:
    """Return the parts of ranges of one size, (k, 3), that are in other ranges."""
    if len(ranges) == 0 or len(sizes) == 0:
        return np.empty((0, 3), np.int64)
    # Cut both at each other's edges, then keep what is in both.
    edges = np.unique(np.concatenate([sizes[:, :2].reshape(-1), ranges.reshape(-1)]))
    parts = np.stack([edges[:-1], edges[1:]], 1)
    at = np.searchsorted(sizes[:, 0], parts[:, 0], "right") - 1
    within = np.searchsorted(ranges[:, 0], parts[:, 0], "right") - 1
    is_in = (at >= 0) & (within >= 0)
    is_in &= parts[:, 1] <= sizes[np.maximum(at, 0), 1]
    is_in &= parts[:, 1] <= ranges[np.maximum(within, 0), 1]
    return np.concatenate([parts[is_in], sizes[at[is_in], 2:]], 1)
