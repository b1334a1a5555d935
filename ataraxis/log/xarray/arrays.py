"""Lazy arrays of a log for xarray: indexing reads only the selected part."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from ataraxis.log.archive import Nodes
from ataraxis.log.host_times import ClockTable, ClockTimes
from ataraxis.log.row_times import EntryTimes, RowTimes, SampleTimes, row_times_of
from ataraxis.log.series import Column, Rows, Series

Key = tuple[Any, ...]


class Opened:
    """An open series that is reopened where it is unpickled, with as many rows.

    `home` is closed with it; the others, arguments of `Nodes`, `Nodes.find`,
    `LogNode.series` and `row_times_of`, open it again. With `is_by_entry`, rows are
    entries also of blocks.
    """

    def __init__(
        self,
        series: Series,
        home: Nodes,
        path: str,
        name: str | None,
        number: int,
        options: dict[str, Any],
        time: str | None = None,
        is_by_entry: bool = False,
    ) -> None:
        self.series, self._home = series, home
        self.times: RowTimes = (
            EntryTimes(series) if is_by_entry else row_times_of(series, time)
        )
        first = 0 if options.get("entries") is None else options["entries"].start or 0
        # A log in progress grows; the dataset must not.
        if first >= 0:
            options = {**options, "entries": slice(first, first + len(series))}
        self._how = path, name, number, options, time, is_by_entry

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, self._how

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Opened):
            return NotImplemented
        return self is other or self._how == other._how

    __hash__ = None  # type: ignore[assignment]

    def close(self) -> None:
        """Close the files of the log."""
        self._home.close()


def _reopened(
    path: str, name: str | None, number: int, options: dict[str, Any],
    time: str | None, is_by_entry: bool,
) -> Opened:  # fmt: skip
    home = Nodes(path, name)
    series = home.find(number).series(**options)
    return Opened(series, home, path, name, number, options, time, is_by_entry)


class RowArray(BackendArray):
    """Rows of a series, or one field of them, along a first dimension.

    Rows are entries, or the samples of blocks. `field` is the path to a field of a
    structured dtype; () for all.
    """

    def __init__(self, opened: Opened, field: tuple[str, ...] = ()) -> None:
        self._opened, self._field = opened, field
        series, times = opened.series, opened.times
        dtype, inner = series.dtype, ()
        for name in field:
            dtype = dtype[name]
        if dtype.subdtype is not None:
            dtype, inner = dtype.subdtype
        self.dtype: np.dtype[Any] = dtype
        row = series.shape
        if isinstance(times, SampleTimes):
            row = times.blocks.rest
        self.shape: tuple[int, ...] = (len(times), *row, *inner)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._get
        )

    def _get(self, key: Key) -> Any:
        rows, rest = key[0], key[1:]
        is_whole = all(isinstance(k, slice) and k == slice(None) for k in rest)

        def take(piece: NDArray[Any]) -> NDArray[Any]:
            for name in self._field:
                piece = piece[name]
            for axis in range(len(rest), 0, -1):
                piece = piece[(slice(None),) * axis + (rest[axis - 1],)]
            return piece

        how = None if is_whole and not self._field else take
        times = self._opened.times
        if isinstance(times, SampleTimes):
            found = times.read(_rows(rows), how)
        else:
            found = self._opened.series.read(_rows(rows), how)
        return found if _is_many(rows) else found[0]


class TimeArray(BackendArray):
    """Times of rows, or positions of samples.

    With `rows`, only these. When all are read, `whole` gets them.
    """

    def __init__(
        self,
        opened: Opened,
        rows: range | None = None,
        whole: list[NDArray[Any]] | None = None,
        *,
        is_position: bool = False,
    ) -> None:
        self._opened, self._whole, self._is_position = opened, whole, is_position
        times = opened.times
        self._rows = range(len(times)) if rows is None else rows
        self.dtype: np.dtype[Any] = np.dtype("i8") if is_position else times.dtype
        self.shape: tuple[int, ...] = (len(self._rows),)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._get
        )

    def _get(self, key: Key) -> Any:
        rows = _rows(key[0])
        own = self._rows
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(own)), dtype=np.int64)
        times, rows = self._opened.times, own.start + own.step * rows
        if not self._is_position:
            found = times.at(rows)
        else:
            assert isinstance(times, SampleTimes)
            found = times.positions(rows)
        is_all = isinstance(key[0], slice) and len(rows) == len(own)
        if self._whole is not None and is_all and key[0].step in (None, 1):
            self._whole[:] = [found]
        return found if _is_many(key[0]) else found[0]


class ClockArray(BackendArray):
    """Times of rows on the clock of a host."""

    def __init__(
        self, opened: Opened, tables: dict[str, ClockTable], clock: str
    ) -> None:
        self._opened, self._tables, self._clock = opened, tables, clock
        times = self._times
        self.dtype: np.dtype[Any] = times.dtype
        self.shape: tuple[int, ...] = (len(times),)
        self.attrs = times.attrs
        """Attributes of the coordinate."""

    @property
    def _times(self) -> ClockTimes:
        opened = self._opened
        return ClockTimes(opened.series, opened.times, self._tables, self._clock)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._get
        )

    def _get(self, key: Key) -> Any:
        rows = _rows(key[0])
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(self.shape[0]), dtype=np.int64)
        found = self._times.at(rows)
        return found if _is_many(key[0]) else found[0]


class ColumnArray(BackendArray):
    """One number per entry, by one of `Series.columns`: its stamp, for example."""

    def __init__(self, opened: Opened, read: Column, dtype: Any) -> None:
        self._opened, self._read = opened, read
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.shape: tuple[int, ...] = (len(opened.series),)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._get
        )

    def _get(self, key: Key) -> Any:
        found = self._read(self._opened.series, _rows(key[0]))
        return found if _is_many(key[0]) else found[0]


def _is_many(rows: Any) -> bool:
    return isinstance(rows, slice) or np.ndim(rows) > 0


def _rows(rows: Any) -> Rows:
    return rows if isinstance(rows, slice) else np.atleast_1d(rows).astype(np.int64)
