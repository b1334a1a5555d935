"""Many entries of an archive into one array, in a few calls of NumPy."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.frame import crc32
from ataraxis.log.npy.entries import NPY_BYTES, PREFIX, npy_header
from ataraxis.log.npy.npz_writer import LOCAL, STORED

if TYPE_CHECKING:
    from ataraxis.log.npy.npz_index import NpzIndex

# ---- checksums of many rows in one go: that of them all, put together from each one's

# A CRC is linear: that of A and B together is that of A, moved on by the length of B,
# xor that of B. So the CRC of a whole block, taken in one call, says whether each row's
# own is right; only where it does not must rows be looked at one by one.

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


# ---- gathering

_HEAD = NPY_BYTES + PREFIX.size
_TOGETHER = 8192


def gather(
    index: NpzIndex, rows: NDArray[Any], out: NDArray[np.uint8], *, verify: bool
) -> bool:
    """Copy the payloads of stored entries into the rows of `out`.

    Parameters
    ----------
    index : NpzIndex
        The archive.
    rows : ndarray
        Its members, with the fields of `MEMBER`.
    out : ndarray of uint8
        Shape (n, bytes of a payload).
    verify : bool
        Whether checksums are looked at.

    Returns
    -------
    bool
        False: not all are stored, whole and of that size. `out` is then undefined, and
        a look at each says which is not.
    """
    size = _HEAD + out.shape[1]
    if (rows["method"] != STORED).any() or (rows["packed_bytes"] != size).any():
        return False
    header = np.frombuffer(npy_header(size - NPY_BYTES), np.uint8)
    for start in range(0, len(rows), _TOGETHER):
        part = rows[start : start + _TOGETHER]
        found = _files(index.data, part["at"], size)
        if found is None:
            return False
        if (found[:, :NPY_BYTES].view("<u8") != header.view("<u8")).any():
            return False
        stamps = found[:, NPY_BYTES + 1 : _HEAD].copy().view("<u8")[:, 0]
        if (stamps != part["stamp"]).any():
            return False
        if (found[:, NPY_BYTES] != part["source"]).any():
            return False
        if verify and not rows_hold(found, part["crc"]):
            return False
        out[start : start + _TOGETHER] = found[:, _HEAD:]
    return True


def _files(
    data: NDArray[np.uint8], places: NDArray[np.uint64], size: int
) -> NDArray[np.uint8] | None:
    """Copy npy files of equal size, whose local headers are at `places`: (n, size)."""
    if int(places.max()) + LOCAL.size > len(data):
        return None
    at = places.astype(np.int64)
    stride = int(at[1] - at[0]) if len(at) > 1 else 0
    if stride > 0 and (np.diff(at) == stride).all():
        return _evenly(data, int(at[0]), len(at), stride, size)
    begin = at + LOCAL.size
    for k in (26, 28):  # where the lengths of name and extra field are
        begin += data[at + k] + 256 * data[at + k + 1].astype(np.int64)
    if int(begin.max()) + size > len(data):
        return None
    return np.asarray(data[begin[:, None] + np.arange(size)])


def _evenly(
    data: NDArray[np.uint8], at: int, count: int, stride: int, size: int
) -> NDArray[np.uint8] | None:
    """Copy files whose local headers are `stride` bytes apart: no index for each."""
    lengths = data[at + 26 : at + 30].view("<u2")
    front = LOCAL.size + int(lengths.sum())
    end = at + (count - 1) * stride + front + size
    if end > len(data) or front + size > stride:
        return None
    rows = np.lib.stride_tricks.as_strided(
        data[at:], (count, front + size), (stride, 1), writeable=False
    )
    if (rows[:, 26:30] != rows[0, 26:30]).any():
        return None
    return np.ascontiguousarray(rows[:, front:])
