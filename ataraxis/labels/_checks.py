"""What a user may ask of dtype, shape and dims; each refusal says what to do."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ataraxis.labels._dtypes import MAX_NDIM, dtype_to_json
from ataraxis.labels._json import text

MAX_BYTES = 2**62


def checked_dtype(given: Any) -> np.dtype[Any]:
    """Refuse what `dtype_to_json` cannot describe, before anything is shared."""
    dtype: np.dtype[Any] = np.dtype(given)
    if dtype.subdtype is not None:
        raise ValueError(
            f"dtype {dtype} is itself an array of shape {dtype.shape}: append that to"
            f" shape and give dtype={dtype.base}."
        )
    dtype_to_json(dtype)
    return dtype


def checked_shape(given: Sequence[int], dtype: np.dtype[Any]) -> tuple[int, ...]:
    """Refuse extents that no array has."""
    shape = tuple(operator.index(extent) for extent in given)
    if len(shape) > MAX_NDIM:
        raise ValueError(
            f"shape {shape} has {len(shape)} dimensions and at most {MAX_NDIM} are"
            " kept: reshape the array."
        )
    if any(extent < 0 for extent in shape):
        raise ValueError(f"shape {shape} has a negative extent.")
    if math.prod(max(n, 1) for n in shape) * max(dtype.itemsize, 1) >= MAX_BYTES:
        raise ValueError(f"an array of shape {shape} and dtype {dtype} is too large.")
    return shape


def checked_dims(
    given: Sequence[str] | None, shape: tuple[int, ...]
) -> tuple[str, ...]:
    """Refuse names that are too many, too few, twice, or no text."""
    if given is None:
        return tuple(f"dim_{i}" for i in range(len(shape)))
    if isinstance(given, str):
        given = (given,)
    dims = tuple(text(dim, "a name in dims") for dim in given)
    if len(dims) != len(shape):
        raise ValueError(
            f"dims {dims} are {len(dims)} names, but shape {shape} has {len(shape)}"
            " dimensions: give one name for each."
        )
    if len(set(dims)) != len(dims):
        raise ValueError(f"dims {dims} has a name twice: give each its own.")
    return dims
