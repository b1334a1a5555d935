"""Alignment: the values of a DataArray, ordered by its dims and labels."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.labels._coordinates import Coordinate


def labels_at(
    index: Any,
    shape: tuple[int, ...],
    dims: tuple[str, ...],
    coords: Mapping[str, Coordinate],
) -> tuple[tuple[str, ...], dict[str, Coordinate]] | None:
    """Return the dims and coords that a NumPy index selects.

    None where it mixes or moves dims: a mask, several arrays, an array with a number,
    new axes.
    """
    items = list(index) if isinstance(index, tuple) else [index]
    rest = [slice(None)] * (len(shape) - sum(item is not ... for item in items))
    places = [k for k, item in enumerate(items) if item is ...]
    if len(places) == 1:
        items[places[0] : places[0] + 1] = rest
    else:
        items += rest
    if len(places) > 1 or len(items) != len(shape):
        return None
    kept, found, lists = [], {}, 0
    for dim, item in zip(dims, items, strict=True):
        if isinstance(item, int | np.integer) and not isinstance(item, bool | np.bool_):
            continue
        if isinstance(item, list | np.ndarray):
            places_of = np.asarray(item)
            lists += 1
            if lists > 1 or places_of.ndim != 1 or places_of.dtype.kind not in "iub":
                return None
        elif not isinstance(item, slice):
            return None
        kept.append(dim)
        if dim in coords:
            found[dim] = Coordinate((dim,), coords[dim].values[item], {})
    is_moved = lists > 0 and len(kept) < len(dims)
    return None if is_moved else (tuple(kept), found)


def is_data_array(value: Any) -> bool:
    """Return whether a value is a DataArray, without importing xarray."""
    xarray = sys.modules.get("xarray")
    return xarray is not None and isinstance(value, xarray.DataArray)


def align(
    value: Any,
    dims: tuple[str, ...],
    coords: Mapping[str, Coordinate],
    what: str,
    *,
    may_broadcast: bool = False,
) -> NDArray[Any]:
    """Return the values of a DataArray in an order of dims and labels.

    Parameters
    ----------
    value : xarray.DataArray
        Its dims, and its labels along each, may be in any order.
    dims : tuple of str
        The order of dims; with xarray's default names (``dim_0``) on either side,
        values are taken by position.
    coords : mapping of Coordinate
        Labels along `dims`; only those of a dim's own name are compared. If either side
        has none, values are taken by position.
    what : str
        The name of the target, for errors.
    may_broadcast : bool
        Whether dims may be missing; they get length 1.

    Returns
    -------
    ndarray
        In the order of `dims`; a view, or a copy if labels were in another order.

    Raises
    ------
    ValueError
        It has other dims, or other labels, than `dims` and `coords`; both are shown.
    """
    own = tuple(map(str, value.dims))
    if _are_default_names(own) or _are_default_names(dims):
        return np.asarray(value.values)
    if not set(own) <= set(dims) or (len(own) < len(dims) and not may_broadcast):
        raise ValueError(
            f"{what}: a DataArray of the dims {own} was given, the dims {dims} are "
            "needed: rename() or transpose() it, or give .values for its positions"
        )
    present = [dim for dim in dims if dim in own]
    values = np.asarray(value.transpose(*present).values)
    for at, dim in enumerate(present):
        if dim in coords and dim in value.indexes:
            order = _order(value.indexes[dim], coords[dim].values, dim, what)
            if order is not None:
                values = np.take(values, order, axis=at)
    if len(own) < len(dims):
        places = iter(values.shape)
        values = values.reshape([next(places) if d in own else 1 for d in dims])
    return values


def _are_default_names(dims: tuple[str, ...]) -> bool:
    """Return whether dims have xarray's default names."""
    return dims == tuple(f"dim_{k}" for k in range(len(dims)))


def _order(
    index: Any, wanted: NDArray[Any], dim: str, what: str
) -> NDArray[np.intp] | None:
    """Return the position of each wanted label in an index; None: the same order."""
    found = np.asarray(index)
    is_float = found.dtype.kind in "fc" and wanted.dtype.kind in "fc"
    if np.array_equal(found, wanted, equal_nan=is_float):
        return None
    if len(found) == len(wanted) and index.is_unique:
        order: NDArray[np.intp] = np.asarray(index.get_indexer(wanted))
        if np.array_equal(np.sort(order), np.arange(len(wanted))):
            return order
    raise ValueError(
        f"{what}: along {dim!r} a DataArray of the labels {_shown(found)} was given, "
        f"the labels {_shown(wanted)} are needed: reindex() or sel() it, or give "
        ".values for its positions"
    )


def _shown(labels: NDArray[Any]) -> str:
    shown = ", ".join(map(str, labels[:8].tolist()))
    return f"[{shown}{', ...' if len(labels) > 8 else ''}] ({len(labels)})"
