"""`Notes`: what a writer leaves to its successor, so that nothing is written twice.

A writer that dies has entries that it wrote and did not acknowledge: the queue gives
them to the next one again. In the shared words stand the first and last number of the
batch it had, the last entry of it that was written, and the one it was about to write,
with the inode its file had before it had a name. So the successor knows each of them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ataraxis.frame import HEADER_BYTES
from ataraxis.log.status import DONE, FIRST, INODE, INTENT, LAST, ROW, LogStatus

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


@dataclass(frozen=True)
class Notes:
    """The notes of a writer that is gone, if it died in the middle of a batch."""

    first: int
    last: int
    done: int
    intent: int
    row: int
    inode: int

    @classmethod
    def left(cls, status: LogStatus) -> Notes:
        """Read what the writer before left."""
        words = status.words
        return cls(*(words[k] for k in (FIRST, LAST, DONE, INTENT, ROW, INODE)))

    def concerns(self, number: int) -> bool:
        """Whether the entry was in the batch of the writer that is gone."""
        return self.first <= number + 1 <= self.last

    def is_written(self, number: int) -> bool:
        """Whether the entry was written whole."""
        return self.first <= number + 1 <= self.done

    def is_half_written(self, number: int) -> bool:
        """Whether it is the one that was being written."""
        return number + 1 == self.intent


def begin_batch(status: LogStatus, first: int, last: int) -> None:
    """Note a batch, before any of it is written; the one before was acknowledged."""
    words = status.words
    words[FIRST] = 0
    words[DONE] = words[INTENT] = words[ROW] = 0
    words[LAST] = last + 1
    words[FIRST] = first + 1


def end_batch(status: LogStatus) -> None:
    """Forget a batch that was acknowledged."""
    status.words[FIRST] = 0
