"""Arrays on their way through a function: labels, parts and overlaps."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ataraxis.labels import is_data_array

_NUMPY = ("ndarray", "NDArray", "ArrayLike")


def _parameters(function: Any) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a function, or of the ``process`` of a class."""
    if not inspect.isroutine(function) and hasattr(function, "process"):
        function = function.process
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def wants_numpy(function: Any) -> bool:
    """Return whether a function annotates its first parameter as a NumPy array."""
    for parameter in _parameters(function).values():
        if parameter.name != "self":
            found = parameter.annotation
            if not isinstance(found, str):
                found = getattr(found, "__name__", str(found))
            return any(name in found for name in _NUMPY)
    return False


def takes_overlap(function: Any) -> bool:
    """Return whether a function has a parameter ``overlap``."""
    return "overlap" in _parameters(function)


def relabel(result: Any, like: Any) -> Any:
    """Put the labels of a function's input on its result, as far as they fit.

    A result with as many dimensions keeps the dims, and the coordinates of those whose
    length is unchanged. With fewer dimensions, each keeps the next dim of its length,
    in order. If that fails, the result is returned as it is.
    """
    if not is_data_array(like) or not isinstance(result, np.ndarray) or not result.ndim:
        return result
    dims = _dims(result.shape, dict(zip(like.dims, like.shape, strict=True)))
    if dims is None:
        return result
    sizes = dict(zip(dims, result.shape, strict=True))
    coords = {
        name: coord.variable
        for name, coord in like.coords.items()
        if all(sizes.get(d) == n for d, n in zip(coord.dims, coord.shape, strict=True))
    }
    return type(like)(result, coords, dims, like.name, like.attrs)


def _dims(shape: tuple[int, ...], sizes: dict[Any, int]) -> tuple[Any, ...] | None:
    if len(shape) == len(sizes):
        return tuple(sizes)
    left = iter(sizes.items())
    found = [next((dim for dim, n in left if n == extent), None) for extent in shape]
    return None if None in found else tuple(found)


def concatenate(parts: Sequence[Any], axis: int) -> Any:
    """Join arrays along an axis; with labels, if the first one has some."""
    first = parts[0]
    if is_data_array(first):
        import xarray

        return xarray.concat(parts, first.dims[axis], combine_attrs="override")
    return np.concatenate(parts, axis)


def split_channels(value: Any, count: int) -> list[Any]:
    """Cut an array along its last axis into `count` parts of about equal size."""
    if count == 1:
        return [value]
    edges = np.linspace(0, value.shape[-1], count + 1).astype(int)
    return [value[..., a:b] for a, b in itertools.pairwise(edges)]


def trim_overlap(result: Any, overlap: int, length: int) -> Any:
    """Remove the overlap from a result that has the length of the input."""
    if overlap and getattr(result, "ndim", 0) and result.shape[0] == length:
        return result[overlap:]
    return result
