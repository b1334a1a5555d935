"""The index forms of the seed: an int, ``(start,)`` or ``(start, stop)``."""

from __future__ import annotations

import operator
from types import EllipsisType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

SeedIndex: TypeAlias = (
    "int | tuple[int] | tuple[int, int] | slice | EllipsisType | NDArray[Any]"
)


def seed_index(index: Any, shape: tuple[int, ...]) -> Any:
    """Turn an index of `read_data` and `write_data` into one of numpy's.

    Parameters
    ----------
    index : int, tuple, slice, Ellipsis or ndarray
        An int is one element (of a 1-d array) or one row. ``(start,)`` is everything
        from `start` on, ``(start, stop)`` ends before `stop`; negative numbers count
        from the end. Slices, ``...`` and index arrays mean what they mean to numpy.
    shape : tuple of int
        Of the array.

    Raises
    ------
    IndexError
        Out of range; nothing is clipped.
    ValueError
        Not one of the forms, or `start` after `stop`.
    """
    if isinstance(index, slice | np.ndarray) or index is Ellipsis:
        return index
    if not shape:
        raise IndexError(f"index {index!r}: a 0-d array has no elements to number")
    size = shape[0]
    if not isinstance(index, tuple):
        return _whole(index, size, size - 1)
    if len(index) == 1:
        return slice(_whole(index[0], size, size), size)
    if len(index) != 2:
        raise ValueError(
            f"index {index!r} has {len(index)} numbers: give (start,) or (start, "
            "stop), or index the array itself, array[...], for numpy's forms"
        )
    start, stop = (_whole(i, size, size) for i in index)
    if start > stop:
        raise ValueError(f"index {index!r}: start {start} lies after stop {stop}")
    return slice(start, stop)


def _whole(value: Any, size: int, last: int) -> int:
    """Return a position 0..last for an integer that may count from the end."""
    if isinstance(value, bool | np.bool_):
        raise ValueError(f"index {value!r} is a truth value, not a position")
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(
            f"index {value!r} is a {type(value).__name__}: give an int, (start,) or "
            "(start, stop)"
        ) from None
    position = number + size if number < 0 else number
    if not 0 <= position <= last:
        raise IndexError(f"index {number} is out of range for {size} elements")
    return position
