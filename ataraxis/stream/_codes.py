"""Which values a stream takes, and what their frames say of them."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

RAW, STR, ND_ARR = 0, 5, 9
TYPED_LABELS = 1
_CODES = {
    "u1": 1, "u2": 2, "u4": 3, "u8": 4, "i1": 10, "i2": 11, "i4": 12, "i8": 13,
    "f2": 14, "f4": 15, "f8": 16, "c8": 17, "c16": 18, "b1": 19,
}  # fmt: skip
_DTYPES = {code: np.dtype(text) for text, code in _CODES.items()}
_BYTES = np.dtype("u1")


class Encoded(NamedTuple):
    """A value as the payload of a frame."""

    code: int
    shape: tuple[int, ...]
    data: Any
    labels: int
    pickled: bool


@lru_cache(64)
def code_of(dtype: np.dtype[Any]) -> int:
    """Return the frame's code of a dtype; `ND_ARR` where only labels can say it."""
    if dtype.names is not None or not dtype.isnative:
        return ND_ARR
    return _CODES.get(dtype.str[1:], ND_ARR)


def dtype_of(code: int) -> np.dtype[Any]:
    """Return the dtype of a frame's items; bytes for whatever is no array."""
    return _DTYPES.get(code, _BYTES)


def encode(value: Any, dtype: np.dtype[Any] | None) -> Encoded:
    """Write a value as a payload, for a stream of arrays of `dtype` or of anything.

    Raises
    ------
    TypeError
        The value is none that a stream takes, or not of its dtype.
    """
    if isinstance(value, str):
        return Encoded(STR, (), value.encode(), 0, False)
    if isinstance(value, bytes | bytearray | memoryview):
        view = memoryview(value)
        data = view.cast("B") if view.c_contiguous and view.nbytes else view.tobytes()
        return Encoded(RAW, (), data, 0, False)
    xarray = sys.modules.get("xarray")
    if xarray is not None and isinstance(value, xarray.DataArray):
        value = value.values
    array = np.asarray(value)
    if dtype is not None:
        if array.dtype != dtype and not _goes(value, array, dtype):
            raise TypeError(
                f"the stream holds {dtype}, the value is {array.dtype}: convert it "
                f"first, array.astype({dtype.str!r})"
            )
        array = np.ascontiguousarray(array, dtype).reshape(array.shape)
        return Encoded(code_of(dtype), array.shape, _flat(array), TYPED_LABELS, False)
    if code_of(array.dtype) == ND_ARR:
        raise TypeError(
            f"a stream without a dtype does not take {array.dtype}: make it with "
            "dtype= and shape=, or send bytes"
        )
    array = np.ascontiguousarray(array).reshape(array.shape)
    return Encoded(code_of(array.dtype), array.shape, _flat(array), 0, False)


def _goes(value: Any, array: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> bool:
    """Tell whether a value becomes `dtype` without loss; a Python number may narrow."""
    if np.can_cast(array.dtype, dtype, "safe"):
        return True
    if isinstance(value, np.ndarray | np.generic):
        return False
    return bool(np.can_cast(array.dtype, dtype, "same_kind")) or (
        array.dtype.kind in "iu" and dtype.kind in "iuf"
    )


def _flat(array: np.ndarray[Any, Any]) -> Any:
    """View the bytes of a contiguous array."""
    if not array.nbytes:
        return b""
    return array.reshape(-1).view(np.uint8)
