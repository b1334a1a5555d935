"""`TimeIndex`: times of a long recording, looked up on disk instead of in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from xarray import Variable
from xarray.core.indexes import PandasIndex
from xarray.core.indexing import IndexSelResult, LazilyIndexedArray

from ataraxis.log.row_times import SampleTimes
from ataraxis.log.xarray.arrays import Opened, TimeArray

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

IN_MEMORY = 1 << 16
"""A slice of at most this many rows gets a pandas index."""
_NEAREST = ("nearest", "pad", "ffill", "backfill", "bfill")
_WIDEST_NS = 1 << 62


class _OneOfPandas(type):
    """Makes a subclass of `PandasIndex` equal to it as a key of a dict.

    xarray groups the indexes that it aligns by their exact type, so that a subclass
    would conflict with the index of any other array (`Aligner._collect_indexes`).
    """

    def __eq__(cls, other: object) -> bool:
        return other is PandasIndex or type.__eq__(cls, other)

    def __hash__(cls) -> int:
        return hash(PandasIndex)


class TimeIndex(PandasIndex, metaclass=_OneOfPandas):
    """An index of times on disk; falls back to pandas in memory.

    Slices of labels, single labels and nearest labels are looked up in the log. Slicing
    reads nothing; a short slice gets a pandas index. Alignment, lists of labels and
    other operations read all times once; `load()` keeps them. `rows` are those of the
    dataset.
    """

    def __init__(self, opened: Opened, rows: range, dim: Hashable) -> None:
        self._opened, self._rows = opened, rows
        self._times = opened.times
        self._read: list[NDArray[Any]] = []
        self._whole: pd.Index[Any] | None = None
        self.dim = dim
        self.coord_dtype = self._times.dtype

    def __reduce__(self) -> tuple[Any, ...]:
        if self.is_in_memory:
            return PandasIndex, (self.index, self.dim, self.coord_dtype)
        return TimeIndex, (self._opened, self._rows, self.dim)

    # ---- operations that read every time

    @property
    def index(self) -> pd.Index[Any]:
        """All times, in memory."""
        if self._whole is None:
            if not self._read:
                self._read[:] = [self._times.at(_array(self._rows))]
            self._whole = pd.Index(self._read[0], name=self.dim)
        return self._whole

    def read(self) -> None:
        """Read all times into memory."""
        assert self.index is not None

    @property
    def is_in_memory(self) -> bool:
        """Whether all times are in memory."""
        return self._whole is not None or bool(self._read)

    def _replace(
        self, index: Any, dim: Hashable = None, coord_dtype: Any = None
    ) -> PandasIndex:
        dtype = self.coord_dtype if coord_dtype is None else coord_dtype
        return PandasIndex(index, self.dim if dim is None else dim, dtype)

    @classmethod
    def from_variables(
        cls, variables: Mapping[Any, Variable], *, options: Mapping[str, Any]
    ) -> Any:
        """Make a pandas index."""
        return PandasIndex.from_variables(variables, options=options)

    @classmethod
    def concat(
        cls,
        indexes: Sequence[Any],
        dim: Hashable,
        positions: Iterable[Iterable[int]] | None = None,
    ) -> Any:
        """Join several into a pandas index."""
        return PandasIndex.concat(indexes, dim, positions)

    def join(self, other: Any, how: str = "inner") -> Any:
        """Join with another into a pandas index."""
        return self._replace(self.index).join(other, how)

    def equals(self, other: Any, **options: Any) -> bool:
        """Compare times; two equal ranges of one series are not read."""
        if isinstance(other, TimeIndex) and self._is_same(other):
            return True
        return bool(super().equals(other, **options))

    def _is_same(self, other: TimeIndex) -> bool:
        alike = (self._rows, self.dim) == (other._rows, other.dim)
        return alike and self._opened == other._opened

    def _copy(self, deep: bool = True, memo: Any = None) -> TimeIndex:
        made = TimeIndex(self._opened, self._rows, self.dim)
        made._read, made._whole = self._read, self._whole
        return made

    def create_variables(
        self, variables: Mapping[Any, Variable] | None = None
    ) -> dict[Any, Variable]:
        """Return the coordinate: lazy, unless the times are in memory."""
        if self.is_in_memory:
            made: dict[Any, Variable] = self._replace(self.index).create_variables(
                variables
            )
            return made
        old = (variables or {}).get(self.dim)
        data = TimeArray(self._opened, self._rows, self._read)
        attrs, encoding = (None, None) if old is None else (old.attrs, old.encoding)
        lazy = LazilyIndexedArray(data)
        return {self.dim: Variable((self.dim,), lazy, attrs, encoding)}

    # ---- many times at once

    @property
    def is_searchable(self) -> bool:
        """Whether `search` works: all rows of times that do not go back."""
        axis = getattr(self._times, "axis", None)
        is_whole = self._rows == range(len(self._times))
        return is_whole and axis is not None and self._times.is_sorted

    def search(self, times_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many rows are before each time, ns."""
        assert isinstance(self._times, SampleTimes)
        return self._times.search(times_ns)

    # ---- by position

    def isel(self, indexers: Mapping[Any, Any]) -> PandasIndex | None:
        """Return a part of it by positions."""
        if self.is_in_memory:
            return self._replace(self.index).isel(indexers)
        wanted = indexers[self.dim]
        if isinstance(wanted, Variable):
            if wanted.dims != (self.dim,):
                return None
            wanted = wanted.values
        if not isinstance(wanted, slice):
            if np.ndim(wanted) == 0:
                return None
            return self._replace(self._some(_array(self._rows)[np.asarray(wanted)]))
        rows = self._rows[wanted]
        if len(rows) > IN_MEMORY:
            return (
                self if rows == self._rows else TimeIndex(self._opened, rows, self.dim)
            )
        return self._replace(self._some(_array(rows)))

    def _some(self, rows: NDArray[np.int64]) -> pd.Index[Any]:
        return pd.Index(self._times.at(rows), name=self.dim)

    # ---- by label

    def sel(
        self, labels: dict[Any, Any], method: Any = None, tolerance: Any = None
    ) -> IndexSelResult:
        """Return the positions of labels."""
        (label,) = labels.values()
        found: Any = None
        if tolerance is None and not self.is_in_memory:
            if isinstance(label, slice) and method is None:
                found = self._slice(label)
            elif np.ndim(label) == 0 and not isinstance(label, dict):
                found = self._one(label, method)
        if found is None:
            return super().sel(labels, method, tolerance)
        return IndexSelResult({self.dim: found})

    def _slice(self, label: slice) -> Any:
        start, stop = self._bounds(label.start)[0], self._bounds(label.stop)[1]
        if start is NotImplemented or stop is NotImplemented:
            return None
        rows = self._positions(start, stop)
        if isinstance(rows, slice):
            return slice(rows.start, rows.stop, label.step)
        return _shortest(rows[:: label.step])

    def _one(self, label: Any, method: str | None) -> Any:
        label = label.values[()] if hasattr(label, "values") else label
        start, stop = self._bounds(label)
        if start is NotImplemented or start is None:
            return None
        if method is not None:
            return self._near(start, method) if method in _NEAREST else None
        rows = _as_array(self._positions(start, stop))
        if not len(rows):
            raise KeyError(
                f"{label!r} is not a time of {self._times.title}; use "
                "method='nearest' for the closest"
            )
        is_period = stop - start > 1
        return int(rows[0]) if len(rows) == 1 and not is_period else _shortest(rows)

    def _near(self, wanted: int, method: str) -> Any:
        """Search windows of increasing width around a time."""
        width = 1 << 10
        while width <= _WIDEST_NS:
            start = wanted if method in ("backfill", "bfill") else wanted - width
            stop = wanted + 1 if method in ("pad", "ffill") else wanted + width + 1
            rows = _as_array(self._positions(start, stop))
            if len(rows):
                own = self._rows.start + self._rows.step * rows
                times = self._times.at(own).view(np.int64)
                far = np.abs(times - wanted)
                # Of two equally close ones the later, as pandas does.
                best = np.flatnonzero(far == far.min())
                return int(rows[best[np.argmax(times[best])]])
            width <<= 3
        raise KeyError(f"{self._times.title} has no time on the requested side")

    def _bounds(self, label: Any) -> tuple[Any, Any]:
        """Return the first time that a label means, and the first one after it."""
        if label is None:
            return None, None
        kind = self.coord_dtype.kind
        try:
            if kind == "u":
                return (int(label), int(label) + 1)
            if kind == "m":
                if isinstance(label, str):
                    return NotImplemented, NotImplemented
                at = int(pd.Timedelta(label).as_unit("ns").value)
                return at, at + 1
            if isinstance(label, str):
                # "2026-11-21T15:00" means the whole minute.
                first = np.datetime64(label)
                unit: Any = np.datetime_data(first)[0]
                last = first + np.timedelta64(1, unit)
                return _ns(first), _ns(last)
            at = int(pd.Timestamp(label).as_unit("ns").value)
        except (ValueError, TypeError, OverflowError):
            return NotImplemented, NotImplemented
        return at, at + 1

    def _positions(self, start: Any, stop: Any) -> slice | NDArray[np.int64]:
        """Return the positions of times from `start` to before `stop`."""
        found, own = self._times.find(start, stop), self._rows
        if isinstance(found, slice):
            if own.step == 1:
                low = min(max(found.start - own.start, 0), len(own))
                high = min(max(found.stop - own.start, low), len(own))
                return slice(low, high)
            found = _as_array(found)
        rows = found - own.start
        rows = rows[(rows % own.step == 0)] // own.step
        return np.sort(rows[(rows >= 0) & (rows < len(own))])

    def __repr__(self) -> str:
        return f"<TimeIndex of {self._times.title}, {len(self._rows)} times>"

    def _repr_inline_(self, max_width: int) -> str:
        return f"TimeIndex ({len(self._rows)} times on disk)"


def _ns(time: np.datetime64) -> int:
    """Return ns since 1970; ValueError outside of 1678 to 2262."""
    return int(pd.Timestamp(time).as_unit("ns").value)


def _array(rows: range) -> NDArray[np.int64]:
    return np.arange(rows.start, rows.stop, rows.step, dtype=np.int64)


def _as_array(rows: slice | NDArray[np.int64]) -> NDArray[np.int64]:
    if isinstance(rows, slice):
        return np.arange(rows.start, rows.stop, dtype=np.int64)
    return rows


def _shortest(rows: NDArray[np.int64]) -> Any:
    """Return an equivalent slice if there is one, else the rows."""
    if not len(rows):
        return slice(0, 0)
    step = int(rows[1] - rows[0]) if len(rows) > 1 else 1
    if step > 0 and np.all(np.diff(rows) == step):
        return slice(int(rows[0]), int(rows[-1]) + 1, step)
    return rows
