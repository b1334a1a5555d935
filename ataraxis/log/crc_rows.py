"""Checksums of many rows in one go: that of them all, put together from each one's.

A CRC is linear: that of A and B together is that of A, moved on by the length of B,
xor that of B. So the CRC of a whole block, taken in one call, says whether each row's
own is right; only where it does not must rows be looked at one by one.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from ataraxis.frame import crc32

_Words = NDArray[np.uint32]


def rows_hold(rows: NDArray[np.uint8], stored: NDArray[np.uint32]) -> bool:
    """Tell whether every row has the CRC-32 that is stored of it.

    Parameters
    ----------
    rows : ndarray of uint8
        Shape (n, bytes of a row), contiguous.
    stored : ndarray of uint32
        Shape (n,).

    Examples
    --------
    >>> rows = np.arange(6, dtype=np.uint8).reshape(3, 2)
    >>> stored = np.array([crc32(row) for row in rows], np.uint32)
    >>> rows_hold(rows, stored), rows_hold(rows[::-1].copy(), stored)
    (True, False)
    """
    n, size = rows.shape
    if not n:
        return True
    levels = (n - 1).bit_length()
    # The CRC of nothing is 0, and so it stays however far it is moved on.
    words = np.zeros(1 << levels, np.uint32)
    words[-n:] = stored
    for level in range(levels):
        words = _moved(words[::2], _tables(size, level)) ^ words[1::2]
    return int(words[0]) == crc32(rows.reshape(-1).data)


def _moved(words: _Words, tables: _Words) -> _Words:
    """Move CRCs on by the bytes that `tables` are for."""
    low: _Words = tables[0][words & 0xFF] ^ tables[1][words >> 8 & 0xFF]
    high: _Words = tables[2][words >> 16 & 0xFF] ^ tables[3][words >> 24]
    return low ^ high


@functools.lru_cache(maxsize=256)
def _tables(size: int, level: int) -> _Words:
    """Make tables, (4, 256), that move CRCs on by ``size << level`` bytes."""
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    if level:
        # Twice as far is as far, twice.
        tables = _tables(size, level - 1)
        columns = _moved(_moved(bits, tables), tables)
    else:
        zeros = bytes(size)
        start = crc32(zeros)
        moved = [crc32(zeros, int(bit)) ^ start for bit in bits]
        columns = np.array(moved, np.uint32)
    made = np.zeros((4, 256), np.uint32)
    for i in range(32):
        byte, bit = divmod(i, 8)
        made[byte, 1 << bit : 2 << bit] = made[byte, : 1 << bit] ^ columns[i]
    return made
