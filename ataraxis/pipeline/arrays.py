"""Arrays on their way through a function: labels off, labels on, parts and wholes."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ataraxis.labels import is_data_array

_PLAIN = ("ndarray", "NDArray", "ArrayLike")


def wants_plain(function: Any) -> bool:
    """Whether a function says that its first parameter is a NumPy array."""
    target = function
    if not inspect.isroutine(function) and hasattr(function, "process"):
        target = function.process
    try:
        parameters = [
            p for p in inspect.signature(target).parameters.values() if p.name != "self"
        ]
    except (TypeError, ValueError):
        return False
    if not parameters or parameters[0].annotation is inspect.Parameter.empty:
        return False
    said = parameters[0].annotation
    text = said if isinstance(said, str) else getattr(said, "__name__", str(said))
    return any(name in text for name in _PLAIN)


def takes_overlap(function: Any) -> bool:
    """Whether a function has a parameter ``overlap``."""
    target = function
    if not inspect.isroutine(function) and hasattr(function, "process"):
        target = function.process
    try:
        return "overlap" in inspect.signature(target).parameters
    except (TypeError, ValueError):
        return False


def relabelled(result: Any, like: Any) -> Any:
    """Put the labels of a function's input on its output, as far as they fit.

    An array of as many dimensions keeps the dims, and the coordinates of those that are
    as long as before. Of fewer dimensions, each keeps the dim that is as long, in
    order. What does not fit stays as it is.
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
    found, left = [], list(sizes.items())
    for extent in shape:
        while left and left[0][1] != extent:
            left.pop(0)
        if not left:
            return None
        found.append(left.pop(0)[0])
    return tuple(found)


def joined(parts: Sequence[Any], axis: int) -> Any:
    """Join arrays along an axis; labels and all, if the first has some."""
    first = parts[0]
    if is_data_array(first):
        import xarray

        return xarray.concat(parts, first.dims[axis], combine_attrs="override")
    return np.concatenate(parts, axis)


def shared(value: Any, count: int) -> list[Any]:
    """Cut an array along its last axis into as many parts, as equal as can be."""
    if count == 1:
        return [value]
    edges = np.linspace(0, value.shape[-1], count + 1).astype(int)
    return [value[..., a:b] for a, b in itertools.pairwise(edges)]


def trimmed(result: Any, overlap: int, length: int) -> Any:
    """Take the overlap off a result that is as long as what went in."""
    if overlap and getattr(result, "ndim", 0) and result.shape[0] == length:
        return result[overlap:]
    return result
