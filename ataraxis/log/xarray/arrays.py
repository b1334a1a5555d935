"""Lazy arrays of a log for xarray: what is indexed is read, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from ataraxis.log.nodes import Nodes
from ataraxis.log.series import Rows, Series

Key = tuple[Any, ...]


class Opened:
    """A series that is opened again where it is unpickled, with as many rows.

    Parameters
    ----------
    series : Series
        Open.
    home : Nodes
        What closes it.
    path, name, number : str, str or None, int
        How to open it again.
    options : dict
        Of `Series`.
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
        # A log in progress grows; this does not.
        is_from_the_end = first < 0
        if not is_from_the_end:
            options = {**options, "entries": slice(first, first + len(series))}
        self._how = path, name, number, options

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle how to open it."""
        return _reopened, self._how

    def __eq__(self, other: object) -> bool:
        """Compare what is opened, and how."""
        if not isinstance(other, Opened):
            return NotImplemented
        return self is other or self._how == other._how

    __hash__ = None  # type: ignore[assignment]

    def close(self) -> None:
        """Let go of the files of the log."""
        self._home.close()


def _reopened(
    path: str, name: str | None, number: int, options: dict[str, Any]
) -> Opened:
    home = Nodes(path, name)
    series = home.find(number).series(**options)
    return Opened(series, home, path, name, number, options)


class RowArray(BackendArray):
    """Rows of a series, or one field of them, along a first dimension of entries.

    Parameters
    ----------
    opened : Opened
        The series.
    field : tuple of str
        Path to a field of a structured dtype; () for all.
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
        """Read what is asked for."""
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
    """One number for each entry: its time, its sequence, its device time.

    Parameters
    ----------
    opened : Opened
        The series.
    read : callable
        Reads numbers of rows: ``read(series, rows)``. A function of a module.
    dtype : dtype
        Of what it returns.
    rows : range, optional
        Only these rows.
    """

    def __init__(
        self,
        opened: Opened,
        read: Callable[[Series, Rows], NDArray[Any]],
        dtype: Any,
        rows: range | None = None,
    ) -> None:
        self._opened, self._read = opened, read
        self._rows = range(len(opened.series)) if rows is None else rows
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.shape: tuple[int, ...] = (len(self._rows),)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        """Read what is asked for."""
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


# ---- what columns are read with


def time_of(series: Series, rows: Rows) -> NDArray[Any]:
    """Read times, as `Times` has them."""
    return series.time(rows)


def monotonic_of(series: Series, rows: Rows) -> NDArray[np.int64]:
    """Read raw stamps, in the unit of the log."""
    return series.pick(rows).time


def sequence_of(series: Series, rows: Rows) -> NDArray[np.uint64]:
    """Read numbers within the source."""
    return series.sequence(rows)


def device_time_of(series: Series, rows: Rows) -> NDArray[Any]:
    """Read device times, of the sign they were given with."""
    found = series.device(rows)[:, 0].copy()
    return found.view(np.uint64) if series.is_device_unsigned else found


def device_sequence_of(series: Series, rows: Rows) -> NDArray[np.uint64]:
    """Read device counters."""
    return series.device(rows)[:, 1].copy().view(np.uint64)
