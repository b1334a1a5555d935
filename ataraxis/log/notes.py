"""`Notes`: what a writer leaves to its successor, so that nothing is written twice.

A writer that dies has entries that it wrote and did not acknowledge: the queue gives
them to the next one again. In the status stand the numbers of the batch it had, how
many of these were written, and the entry it was about to write, with the inode its file
had before it had a name. So the successor knows each of them.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ataraxis.frame import HEADER_BYTES
from ataraxis.log.status import COUNT, DONE, INODE, INTENT, ROW, STAMP, LogStatus

BLOCK = 1 << 63
"""In a device counter: the frame is a block, each row of it an entry."""
_HEAD = struct.Struct("<4xBBHQQq4II")
_STAMP = struct.Struct("<QQ")
_EXTENDED, _STAMPED = 8, 16
_PAD = 63


class Delivered(NamedTuple):
    """A frame as it lies in a drained buffer."""

    number: int
    """Its number in the queue, the same at each delivery."""
    source: int
    stamp: int
    """Of its first row, if it is a block."""
    rows: int
    """Entries in it: 1, or the rows of a block."""
    step: int
    """From the stamp of one row to the next."""
    payload: memoryview
    frame: memoryview
    """The whole frame."""
    at: int
    """Where in the buffer it begins."""
    end: int
    """Where the next one begins."""
    is_block: bool


def delivered(data: memoryview) -> Iterator[Delivered]:
    """Take a drained buffer apart."""
    at = 0
    while at < len(data):
        fields = _HEAD.unpack_from(data, at)
        _, _, flags, length, number, time_ns, extent, _, _, _, source = fields
        end = at + HEADER_BYTES + length
        start = at + HEADER_BYTES
        if flags & _EXTENDED:
            extent = int.from_bytes(data[start : start + 8], "little")
            start += 64
        stamp, counter = time_ns, 0
        if flags & _STAMPED:
            stamp, counter = _STAMP.unpack_from(data, start)
            start += _STAMP.size
        is_block = bool(counter & BLOCK)
        begin, after = at, (end + _PAD) & ~_PAD
        rows = extent if is_block else 1
        yield Delivered(
            number,
            source,
            stamp,
            rows,
            counter & ~BLOCK if is_block else 0,
            data[start:end],
            data[begin:end],
            begin,
            after,
            is_block,
        )
        at = after


class Notes:
    """What the writer before had not acknowledged, and our own notes.

    Parameters
    ----------
    status : LogStatus
        Has the notes of the writer before, and takes ours.
    """

    def __init__(self, status: LogStatus) -> None:
        self._status = status
        words = status.words
        count, done = words[COUNT], words[DONE]
        numbers = list(status.numbers[:count])
        self.numbers = frozenset(numbers)
        """Entries of the last batch that was not acknowledged."""
        self.written = set(numbers[:done])
        """Those that are written, and were not seen again yet."""
        self._again: set[int] = set()
        self.intent = numbers[done] if done < count and words[INTENT] else None
        """The entry that was being written."""
        self.row, self.inode, self.stamp = words[ROW], words[INODE], words[STAMP]

    def begin(self, numbers: NDArray[np.uint64]) -> None:
        """Note a batch, before any of it is written."""
        words = self._status.words
        if not self.written:
            words[COUNT] = words[INTENT] = words[DONE] = 0
            self._status.numbers[: len(numbers)] = numbers.data.cast("B").cast("Q")
            words[COUNT] = len(numbers)
            return
        self._begin_again(list(map(int, numbers)))

    def _begin_again(self, numbers: list[int]) -> None:
        """Note a batch with entries that a writer before had."""
        words = self._status.words
        self._again = self.written.intersection(numbers)
        # Written ones that are still to come again stay noted, in front.
        kept = sorted(self.written)
        new = [number for number in numbers if number not in self.written]
        everything = kept + new
        words[COUNT] = words[INTENT] = 0
        words[DONE] = len(kept)
        self._status.numbers[: len(everything)] = array("Q", everything)
        words[COUNT] = len(everything)

    def end(self) -> None:
        """Forget a batch that was acknowledged."""
        self.written -= self._again
        self._again.clear()
        if not self.written:
            self._status.words[COUNT] = 0
