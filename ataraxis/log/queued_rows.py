"""`QueuedRows`: rows of a block on their way into a log's queue."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.errors import PutTimeout, QueueFull
from ataraxis.log.journal_rows import plain_header, row_bytes
from ataraxis.stream import MemQ


class QueuedRows:
    """Each row an entry; called again, it goes on where there was no room.

    Parameters
    ----------
    queue : MemQ
        Takes them.
    source : int
        Of all.
    rows : ndarray
        Shape (n, ...); contiguous, any dtype without Python objects.
    stamp, step : int
        Of the first row, and from row to row; u64.
    """

    def __init__(
        self, queue: MemQ, source: int, rows: NDArray[Any], stamp: int, step: int
    ) -> None:
        self._queue, self._source = queue, source
        self._rows, self._stamp, self._step = rows, stamp, step
        self._done = 0
        self._header = plain_header(source, rows.dtype, rows.shape[1:])
        self._bytes = row_bytes(rows)

    @property
    def left(self) -> int:
        """Rows that are not put yet."""
        return len(self._rows) - self._done

    def __call__(self, block: bool, timeout: float | None) -> None:
        """Put what is left; `queue.Full` if not all of it found room."""
        wait = timeout if block else 0
        try:
            if self._header is None or not self._queue.put_rows(
                self._bytes[self._done :], self._header, self._now, self._step, wait
            ):
                self._put_each(block, timeout)
            self._done = len(self._rows)
        except (QueueFull, PutTimeout) as full:
            self._done += full.count
            full.count = self._done
            raise

    @property
    def _now(self) -> int:
        """The stamp of the next row."""
        return int((self._stamp + self._done * self._step) % 2**64)

    def _put_each(self, block: bool, timeout: float | None) -> None:
        """Put rows that only labels can name, or that are larger than a slot."""
        end = None if timeout is None else time.monotonic() + timeout
        while self.left:
            row = np.asarray(self._rows[self._done])
            left = None if end is None else max(0.0, end - time.monotonic())
            self._queue.put(
                row, block, left, source=self._source, device_time=self._now
            )
            self._done += 1
