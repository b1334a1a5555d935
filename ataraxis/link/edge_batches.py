"""Batches of an edge: values and their numbers, between the messages of a channel.

A batch is a frame of source 1 whose sequence is its kind. `LEASES` and `BACK` hold
values: for each its number in the edge queue and its length, u64, then the frame as it
lies in the queue, padded to 8 bytes. The others hold numbers alone, u64.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from ataraxis.errors import BadMessage
from ataraxis.frame import HEADER_BYTES, MAGIC, DType, Flag, crc32
from ataraxis.link.messages import DATA_SOURCE

if TYPE_CHECKING:
    from typing_extensions import Buffer

LEASES, BACK, HELD, NEEDS, SETTLED = range(1, 6)
"""Values; values that need no credit; numbers that the asking host has leased; those of
them that it lacks; values that are settled."""
BATCH_BYTES = 1 << 18
"""Bytes of values that a batch has, unless one alone is larger."""
MOST_BATCH = 1 << 31
RECORD = struct.Struct("<QQ")
_FIXED = struct.Struct("<4sBBHQQq4IIII")
_WORD = struct.Struct("<I")
_CRC_AT = 60
_MOST_NUMBERS = 1 << 20


class Batch(NamedTuple):
    """A batch that has arrived: its payload is ``data[start:end]``."""

    kind: int
    start: int
    end: int


def seal(kind: int, buffer: memoryview, end: int) -> int:
    """Write the header of the batch whose payload is ``buffer[64:end]``; return `end`.

    Examples
    --------
    >>> data = bytearray(64) + bytes(8)
    >>> seal(SETTLED, memoryview(data), 72)
    72
    >>> next_batch(memoryview(data), 0, 72), next_batch(memoryview(data), 0, 70)
    (Batch(kind=5, start=64, end=72), None)
    """
    crc = crc32(buffer[HEADER_BYTES:end])
    head = _FIXED.pack(
        MAGIC, DType.RAW, 0, int(Flag.CHECKSUM), end - HEADER_BYTES, kind, 0, 0, 0, 0,
        0, DATA_SOURCE, crc, 0,
    )  # fmt: skip
    buffer[:_CRC_AT] = head
    _WORD.pack_into(buffer, _CRC_AT, crc32(head))
    return end


def numbers_batch(kind: int, numbers: Iterable[int]) -> bytes:
    """Return a batch of numbers.

    Examples
    --------
    >>> data = memoryview(numbers_batch(NEEDS, [64, 128]))
    >>> numbers_of(data, next_batch(data, 0, len(data)))
    [64, 128]
    """
    data = bytearray(HEADER_BYTES) + array("Q", numbers).tobytes()
    seal(kind, memoryview(data), len(data))
    return bytes(data)


def batch_bytes(data: memoryview, start: int, stop: int) -> int:
    """Return the length of the batch whose header is at `start`, bytes.

    0: the header has not arrived. Raises `BadMessage` if it is not one.
    """
    if stop - start < HEADER_BYTES:
        return 0
    head = data[start : start + HEADER_BYTES]
    length = int.from_bytes(head[8:16], "little")
    if (
        head[:4] != MAGIC
        or crc32(head[:_CRC_AT]) != int.from_bytes(head[_CRC_AT:], "little")
        or not LEASES <= int.from_bytes(head[16:24], "little") <= SETTLED
        or length > MOST_BATCH
    ):
        raise BadMessage("no batch of an edge begins here, or its header is damaged")
    return HEADER_BYTES + length


def next_batch(data: memoryview, start: int, stop: int) -> Batch | None:
    """Return the batch at `start`; None if it has not arrived completely.

    Raises
    ------
    BadMessage
        It is not a batch, or it is damaged.
    """
    size = batch_bytes(data, start, stop)
    if not size or size > stop - start:
        return None
    body = start + HEADER_BYTES, start + size
    if crc32(data[slice(*body)]) != int.from_bytes(
        data[start + 52 : start + 56], "little"
    ):
        raise BadMessage("a batch of an edge is damaged: its checksum is wrong")
    return Batch(int.from_bytes(data[start + 16 : start + 24], "little"), *body)


def numbers_of(data: Buffer, batch: Batch | None) -> list[int]:
    """Return the numbers in a batch; `BadMessage` if it has none, or too many."""
    if batch is None or (batch.end - batch.start) % 8:
        raise BadMessage("a batch of numbers has a part of one")
    if batch.end - batch.start > 8 * _MOST_NUMBERS:
        raise BadMessage(f"a batch has more than {_MOST_NUMBERS} numbers")
    found = array("Q")
    found.frombytes(memoryview(data)[batch.start : batch.end])
    return found.tolist()
