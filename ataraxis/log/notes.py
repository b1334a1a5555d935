"""`Notes`: what a writer leaves to its successor, so that nothing is written twice.

A writer that dies has entries that it wrote and did not acknowledge: the queue gives
them to the next one again. In the status stand the numbers of the batch it had, how
many of these were written, and the entry it was about to write, with the inode its file
had before it had a name. So the successor knows each of them.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ataraxis.frame import HEADER_BYTES
from ataraxis.log.status import COUNT, DONE, INODE, INTENT, STAMP, LogStatus

_HEAD = struct.Struct("<4xBBHQQq16xI")
_STAMP = struct.Struct("<Q8x")
_EXTENDED, _STAMPED = 8, 16
_PAD = 63


class Delivered(NamedTuple):
    """A frame as it lies in a drained buffer: an entry."""

    number: int
    """Its number in the queue, the same at each delivery."""
    source: int
    stamp: int
    payload: memoryview
    at: int
    """Where in the buffer it begins."""
    end: int
    """Where the next one begins."""


def delivered(data: memoryview) -> Iterator[Delivered]:
    """Take a drained buffer apart."""
    at = 0
    while at < len(data):
        _, _, flags, length, number, stamp, source = _HEAD.unpack_from(data, at)
        start = at + HEADER_BYTES
        end = start + length
        if flags & _EXTENDED:
            start += 64
        if flags & _STAMPED:
            (stamp,) = _STAMP.unpack_from(data, start)
            start += _STAMP.size
        begin, at = at, (end + _PAD) & ~_PAD
        yield Delivered(number, source, stamp, data[start:end], begin, at)


class Notes:
    """What the writer before had not acknowledged, and our own notes.

    Parameters
    ----------
    status : LogStatus
        Has the notes of the writer before, and takes ours.
    again : list of int
        Numbers that the queue may give once more; the others were acknowledged.
    """

    def __init__(self, status: LogStatus, again: Iterable[int]) -> None:
        self._status = status
        words = status.words
        count, done = words[COUNT], words[DONE]
        numbers = list(status.numbers[:count])
        self.numbers = frozenset(numbers).intersection(again)
        """Entries of the last batch that was not acknowledged."""
        self.written = set(self.numbers.intersection(numbers[:done]))
        """Those that are written, and were not seen again yet."""
        self._again: set[int] = set()
        is_open = done < count and words[INTENT] == done + 1
        self.intent = numbers[done] if is_open else None
        """The entry that was being written."""
        self.inode, self.stamp = words[INODE], words[STAMP]

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
