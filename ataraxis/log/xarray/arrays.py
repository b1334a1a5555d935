"""Lazy arrays of a log for xarray: indexing reads only the selected part."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from ataraxis.log.archive import Nodes
from ataraxis.log.series import Column, Rows, Series

Key = tuple[Any, ...]


class Opened:
    """An open series that is reopened where it is unpickled, with as many rows.

    `home` is closed with it; the others, arguments of `Nodes`, `Nodes.find` and
    `LogNode.series`, open it again.
    """

    def __init__(
        self,
        series: Series,
        home: Nodes,
        path: str,
        name: str | None,
        number: int,
        options: dict[str, Any],
    ) -> None:
        self.series, self._home = series, home
        first = 0 if options.get("entries") is None else options["entries"].start or 0
        # A log in progress grows; the dataset must not.
        if first >= 0:
            options = {**options, "entries": slice(first, first + len(series))}
        self._how = path, name, number, options

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
    path: str, name: str | None, number: int, options: dict[str, Any]
) -> Opened:
    home = Nodes(path, name)
    series = home.find(number).series(**options)
    return Opened(series, home, path, name, number, options)


class RowArray(BackendArray):
    """Rows of a series, or one field of them, along a first dimension of entries.

    `field` is the path to a field of a structured dtype; () for all.
    """

    def __init__(self, opened: Opened, field: tuple[str, ...] = ()) -> None:
        self._opened, self._field = opened, field
        series = opened.series
        dtype, inner = series.dtype, ()
        for name in field:
            dtype = dtype[name]
        if dtype.subdtype is not None:
            dtype, inner = dtype.subdtype
        self.dtype: np.dtype[Any] = dtype
        self.shape: tuple[int, ...] = (len(series), *series.shape, *inner)

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

        found = self._opened.series.read(
            _rows(rows), None if is_whole and not self._field else take
        )
        return found if _is_many(rows) else found[0]


class ColumnArray(BackendArray):
    """One number per entry, by one of `Series.columns`: its time, for example.

    With `rows`, only these.
    """

    def __init__(
        self,
        opened: Opened,
        read: Column,
        dtype: Any,
        rows: range | None = None,
    ) -> None:
        self._opened, self._read = opened, read
        self._rows = range(len(opened.series)) if rows is None else rows
        self.dtype: np.dtype[Any] = np.dtype(dtype)
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
        found = self._read(self._opened.series, own.start + own.step * rows)
        return found if _is_many(key[0]) else found[0]


def _is_many(rows: Any) -> bool:
    return isinstance(rows, slice) or np.ndim(rows) > 0


def _rows(rows: Any) -> Rows:
    return rows if isinstance(rows, slice) else np.atleast_1d(rows).astype(np.int64)
