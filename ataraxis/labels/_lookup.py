"""Which label is where: the part of ``.sel`` that needs no index object.

Exact matches, lists of labels, and label slices with both ends included, as in xarray.
"""

from __future__ import annotations

import datetime
import difflib
import operator
from typing import Any

import numpy as np

_Values = np.ndarray[Any, Any]


def position_of(dim: str, values: _Values, label: Any) -> int | slice | list[int]:
    """Find the position of a label, of several, or of a slice of labels."""
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
    """Take positions for labels, as xarray does along a dimension without any."""
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
            f" {label!r} is none of them."
        )
    return place % size


def _exact(dim: str, values: _Values, label: Any) -> list[int]:
    wanted = _like(values, label)
    if wanted is None:
        places: list[int] = []
    elif values.dtype.kind in "fc" and wanted != wanted:
        places = np.flatnonzero(np.isnan(values)).tolist()
    elif values.dtype.kind in "mM" and np.isnat(wanted):
        places = np.flatnonzero(np.isnat(values)).tolist()
    else:
        places = np.flatnonzero(values == wanted).tolist()
    if not places:
        raise KeyError(f"{dim} has no label {label!r}{_closest(values, wanted)}")
    return places


def _like(values: _Values, label: Any) -> Any:
    """Return the label as the coordinate's own kind, None when it is of another."""
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
    """Turn text, datetime and NumPy times into a scalar of the coordinate's kind."""
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
                " sorted, so it bounds no slice: select by position."
            )
        return places[0] + is_end
    if order < 0:
        return len(values) - _sorted_bound(values[::-1], label, wanted, not is_end)
    return _sorted_bound(values, label, wanted, is_end)


def _sorted_bound(values: _Values, label: Any, wanted: Any, is_end: bool) -> int:
    """Count the values before a bound; text such as "2024-05-01" means that day."""
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
    """Finish an error with the labels that come closest."""
    if not len(values):
        return ": it has no labels at all."
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
