"""Coordinates: the values along one or more named dimensions, with their attributes.

Which label is where is `_lookup`'s business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ataraxis.errors import LayoutError
from ataraxis.labels._dtypes import dtype_from_json
from ataraxis.labels._json import plain, tagged, text, untagged

COORDS_BYTES = 64 * 2**20
_KINDS = frozenset("biufcmMU")


class Coordinate(NamedTuple):
    """Values along named dimensions: xarray's ``(dims, values, attrs)``."""

    dims: tuple[str, ...]
    """Names of the dimensions, () for a single value."""
    values: np.ndarray[Any, Any]
    """Read-only copy, of the extents of `dims`; bool, number, str or time."""
    attrs: dict[str, Any]
    """JSON-able attributes, e.g. ``{"units": "s"}``."""


def coordinate(name: str, given: Any, extents: Mapping[str, int]) -> Coordinate:
    """Normalise what a user gave for one coordinate; explain what does not fit."""
    where = f"coords[{name!r}]"
    attrs: Any = {}
    if isinstance(given, tuple) and len(given) in (2, 3):
        dims, given, *rest = given
        dims = (dims,) if isinstance(dims, str) else tuple(dims)
        attrs = rest[0] if rest else {}
    elif np.ndim(given) == 0 and name not in extents:
        dims = ()
    else:
        dims = (name,)
    for dim in dims:
        if dim not in extents:
            raise ValueError(
                f"{where} is along {dim!r}, which is none of the dims"
                f" {tuple(extents)}: name it after one, or give (dims, values)."
            )
    if name in extents and dims != (name,):
        raise ValueError(
            f"{where} has the name of a dimension but runs along {dims}: give it 1-d"
            " values, or another name."
        )
    values = _values(given, where)
    expected = tuple(extents[dim] for dim in dims)
    if len(set(dims)) != len(dims) or values.shape != expected:
        raise ValueError(
            f"{where} has shape {values.shape}, but its dims {dims} have shape"
            f" {expected}: give one value per position."
        )
    attrs = plain(dict(attrs), f"{where} attrs")
    return Coordinate(dims, values, attrs)


def _values(given: Any, where: str) -> np.ndarray[Any, Any]:
    values = np.asarray(given)
    if values.dtype.kind == "T" or (
        values.dtype == object and all(isinstance(v, str) for v in values.flat)
    ):
        values = values.astype("U")
    elif values.dtype.kind == "U" and not isinstance(given, (np.ndarray, np.generic)):
        flat: list[Any] = np.asarray(given, dtype=object).ravel().tolist()
        if not all(isinstance(item, str) for item in flat):
            raise TypeError(f"{where} mixes text and other values: give one type.")
    dtype = values.dtype
    if dtype.kind not in _KINDS or dtype.char in "gG":
        raise TypeError(
            f"{where} has dtype {dtype}; coordinates are bool, numbers, str,"
            " datetime64 or timedelta64: convert the values with .astype(), a"
            " MultiIndex with .reset_index()."
        )
    if values.nbytes > COORDS_BYTES:
        raise ValueError(
            f"{where} has {values.nbytes} bytes and at most {COORDS_BYTES} are kept:"
            " share large coordinates as an array of their own."
        )
    if dtype.kind == "U":
        for item in values.flat:
            text(item, where)
    values = np.array(values, order="C")
    values.flags.writeable = False
    return values


def coordinate_to_json(coord: Coordinate) -> dict[str, Any]:
    """Describe a coordinate; times as integers, complex numbers as pairs."""
    flat = coord.values.ravel()
    kind = flat.dtype.kind
    if kind in "mM":
        flat = flat.view(flat.dtype.str[0] + "i8")
    values: list[Any] = flat.tolist()
    if kind == "c":
        values = [[value.real, value.imag] for value in values]
    described = {
        "dims": list(coord.dims),
        "dtype": coord.values.dtype.str,
        "values": tagged(values),
    }
    if coord.attrs:
        described["attrs"] = tagged(coord.attrs)
    return described


def coordinate_from_json(
    name: str, data: Any, extents: Mapping[str, int], budget: int
) -> tuple[tuple[str, ...], np.ndarray[Any, Any], Any]:
    """Rebuild what `coordinate_to_json` described, within `budget` bytes."""
    where = f"coordinate {name[:80]!r}"
    if not (
        isinstance(data, dict)
        and data.keys() - {"attrs"} == {"dims", "dtype", "values"}
        and isinstance(data["dims"], list)
        and all(isinstance(dim, str) and dim in extents for dim in data["dims"])
        and isinstance(data["dtype"], str)
        and isinstance(data["values"], list)
        and isinstance(data.get("attrs", {}), dict)
    ):
        raise LayoutError(f"{where} is not one of these labels.")
    dims: tuple[str, ...] = tuple(data["dims"])
    shape = tuple(extents[dim] for dim in dims)
    dtype = dtype_from_json(data["dtype"])
    values = untagged(data["values"])
    if len(values) != math.prod(shape):
        raise LayoutError(f"{where} has {len(values)} values for shape {shape}.")
    if len(values) * dtype.itemsize > budget or dtype.char in "gG":
        raise LayoutError(f"{where} is larger than labels keep.")
    if not all(_fits(value, dtype) for value in values):
        raise LayoutError(f"{where} has values that are not of dtype {dtype.str}.")
    if dtype.kind == "c":
        values = [complex(*pair) for pair in values]
    try:
        if dtype.kind in "mM":
            array = np.array(values, dtype=dtype.str[0] + "i8").view(dtype)
        else:
            array = np.array(values, dtype=dtype)
    except (OverflowError, ValueError, TypeError) as error:
        raise LayoutError(f"{where}: {error}.") from error
    return dims, array.reshape(shape), untagged(data.get("attrs", {}))


def _fits(value: Any, dtype: np.dtype[Any]) -> bool:
    """Tell whether NumPy would take the value without bending it."""
    kind = dtype.kind
    if kind == "b":
        return type(value) is bool
    if kind in "iumM":
        return type(value) is int
    if kind == "f":
        return type(value) in (int, float)
    if kind == "U":
        return type(value) is str and 4 * len(value) <= dtype.itemsize
    return (
        kind == "c"
        and type(value) is list
        and [type(part) for part in value] == [float, float]
    )
