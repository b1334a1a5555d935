"""Coordinates: the values along one or more named dimensions, with their attributes."""

from __future__ import annotations

import datetime
import difflib
import math
import operator
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ataraxis.errors import LayoutError
from ataraxis.labels._dtypes import dtype_from_json, plain, tagged, text, untagged

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
    """Return the `Coordinate` of a value given for one; refuse what does not fit."""
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
                f"{where} is along {dim!r}, which is not one of the dims"
                f" {tuple(extents)}: name it after one, or give (dims, values)."
            )
    if name in extents and dims != (name,):
        raise ValueError(
            f"{where} has the name of a dimension but is along {dims}: give it 1-d"
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
    """Return a coordinate as JSON: times as integers, complex numbers as pairs."""
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
    """Return dims, values and attrs of a coordinate's JSON, at most `budget` bytes."""
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
        raise LayoutError(f"{where} is not valid JSON of a coordinate.")
    dims: tuple[str, ...] = tuple(data["dims"])
    shape = tuple(extents[dim] for dim in dims)
    dtype = dtype_from_json(data["dtype"])
    values = untagged(data["values"])
    if len(values) != math.prod(shape):
        raise LayoutError(f"{where} has {len(values)} values for shape {shape}.")
    if len(values) * dtype.itemsize > budget or dtype.char in "gG":
        raise LayoutError(f"{where} is larger than labels keep or of an odd dtype.")
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
    """Return whether NumPy stores a JSON value unchanged as a dtype."""
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


# ---- positions of labels, as xarray's ``.sel``: scalars, lists, slices with both ends

_Values = np.ndarray[Any, Any]


def position_of(dim: str, values: _Values, label: Any) -> int | slice | list[int]:
    """Return the position of a label, of several, or of a slice of labels."""
    if isinstance(label, slice):
        return _slice(dim, values, label)
    if isinstance(label, (list, np.ndarray)) and np.ndim(label) == 1:
        found = [_exact(dim, values, item) for item in label]
        for item, places in zip(label, found, strict=True):
            if len(places) > 1:
                raise KeyError(
                    f"{dim} has the label {item!r} at {len(places)} positions; in a"
                    " list each label must be unique: ask for it alone."
                )
        return [places[0] for places in found]
    places = _exact(dim, values, label)
    return places[0] if len(places) == 1 else places


def position_without_labels(dim: str, size: int, label: Any) -> int | slice | list[int]:
    """Return labels as positions, as xarray does along a dimension without labels."""
    if isinstance(label, slice):
        return label
    if isinstance(label, (list, np.ndarray)) and np.ndim(label) == 1:
        return [_place(dim, size, item) for item in label]
    return _place(dim, size, label)


def _place(dim: str, size: int, label: Any) -> int:
    try:
        place = operator.index(label)
    except TypeError:
        place = size
    if not -size <= place < size:
        raise KeyError(
            f"{dim} has no coordinate, so its labels are the positions 0 to {size - 1};"
            f" {label!r} is not one of them."
        )
    return place % size


def _exact(dim: str, values: _Values, label: Any) -> list[int]:
    wanted = _like(values, label)
    places: list[int] = []
    if wanted is not None:
        is_missing = values.dtype.kind in "fcmM" and wanted != wanted
        alike = values != values if is_missing else values == wanted
        places = np.flatnonzero(alike).tolist()
    if not places:
        raise KeyError(f"{dim} has no label {label!r}{_closest(values, wanted)}")
    return places


def _like(values: _Values, label: Any) -> Any:
    """Return the label as the coordinate's kind; None if it is of another kind."""
    kind = values.dtype.kind
    if isinstance(label, np.ndarray) and label.ndim == 0:
        label = label[()]
    if kind == "U":
        return str(label) if isinstance(label, str) else None
    if kind == "b":
        return bool(label) if isinstance(label, (bool, np.bool_)) else None
    if kind in "mM":
        return _time(values, label)
    if isinstance(label, (bool, np.bool_)):
        return None
    if isinstance(label, (np.datetime64, np.timedelta64)):
        return None
    return label if isinstance(label, (int, float, complex, np.number)) else None


def _time(values: _Values, label: Any) -> Any:
    """Return text, datetime and NumPy times as a scalar of the coordinate's kind."""
    kind = values.dtype.type
    if isinstance(label, kind):
        return label
    if isinstance(label, (str, datetime.date, datetime.timedelta)):
        try:
            return kind(label)
        except (ValueError, TypeError):
            return None
    return None


def _slice(dim: str, values: _Values, label: slice) -> slice:
    step = 1 if label.step is None else operator.index(label.step)
    if step == 0:
        raise ValueError(f"{dim}: the step of a slice of labels cannot be 0.")
    first, last = label.start, label.stop
    if step < 0:
        first, last = last, first
    start = 0 if first is None else _bound(dim, values, first, is_end=False)
    stop = len(values) if last is None else _bound(dim, values, last, is_end=True)
    if step > 0:
        return slice(start, max(start, stop), label.step)
    if stop <= start:
        return slice(0, 0, step)
    return slice(stop - 1, start - 1 if start else None, step)


def _bound(dim: str, values: _Values, label: Any, *, is_end: bool) -> int:
    """Return the position at which a slice of labels begins, or ends (excluded)."""
    wanted = _like(values, label)
    if wanted is None:
        raise KeyError(f"{dim} has no label {label!r}{_closest(values, None)}")
    order = _order(values)
    if order == 0:
        places = _exact(dim, values, label)
        if len(places) > 1:
            raise KeyError(
                f"{dim} has the label {label!r} at {len(places)} positions and is not"
                " sorted, so it cannot bound a slice: select by position."
            )
        return places[0] + is_end
    if order < 0:
        return len(values) - _sorted_bound(values[::-1], label, wanted, not is_end)
    return _sorted_bound(values, label, wanted, is_end)


def _sorted_bound(values: _Values, label: Any, wanted: Any, is_end: bool) -> int:
    """Return how many values are before a bound; "2024-05-01" means the whole day."""
    if is_end and isinstance(label, str) and values.dtype.kind == "M":
        unit: Any = np.datetime_data(wanted)[0]
        wanted, is_end = wanted + np.timedelta64(1, unit), False
    return int(np.searchsorted(values, wanted, "right" if is_end else "left"))


def _order(values: _Values) -> int:
    """Return 1 for ascending, -1 for descending, 0 for neither."""
    if values.dtype.kind == "c":
        return 0
    if bool(np.all(values[:-1] <= values[1:])):
        return 1
    return -1 if bool(np.all(values[:-1] >= values[1:])) else 0


def _closest(values: _Values, wanted: Any) -> str:
    """Return the end of an error message: the closest labels."""
    if not len(values):
        return ": it has no labels."
    if values.dtype.kind == "U" and wanted is not None:
        close: list[Any] = difflib.get_close_matches(wanted, values.tolist(), 3, 0.5)
        if close:
            return f"; did you mean {' or '.join(map(repr, close))}?"
    elif wanted is not None and values.dtype.kind in "iuf" and np.isfinite(wanted):
        distance = np.abs(values.astype("f8") - float(wanted))
        near = np.sort(np.argsort(distance, kind="stable")[:3])
        return f"; the closest are {', '.join(str(values[i]) for i in near)}."
    shown = ", ".join(
        repr(str(v)) if values.dtype.kind == "U" else str(v) for v in values[:5]
    )
    return f"; its labels are {shown}{', ...' if len(values) > 5 else ''}."
