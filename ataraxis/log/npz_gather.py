"""Many entries of an archive into one array, in a few calls of NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.log.crc_rows import rows_hold
from ataraxis.log.entries import NPY_BYTES, PREFIX, npy_header
from ataraxis.log.npz import LOCAL, STORED

if TYPE_CHECKING:
    from ataraxis.log.npz_index import NpzIndex

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
