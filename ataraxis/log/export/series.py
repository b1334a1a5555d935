"""ExportSeries: one source in pieces, for another format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.errors import CorruptFrame
from ataraxis.log.archive import LogNode
from ataraxis.log.rows import PIECE_BYTES, TEXT
from ataraxis.log.series import Series


class ExportSeries:
    """A source to export: its properties, and its rows in pieces of some MB.

    The options are those of `export_log`, for the one source.
    """

    def __init__(
        self,
        node: LogNode,
        *,
        onset_us: int | None = None,
        skip_damaged: bool = False,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self.node, self.name = node, node.name
        self.options = {"onset_us": onset_us}
        """Options of `Series`."""
        self.series: Series = node.series(**self.options)
        self.rows: NDArray[np.int64] | slice = slice(0, len(self.series))
        self._count = len(self.series)
        if skip_damaged:
            self.rows = intact_rows(self.series)
            self._count = len(self.rows)
        self._progress = progress

    def __len__(self) -> int:
        return self._count

    @property
    def dim(self) -> str:
        """Name of the dimension of rows in xarray."""
        labels = self.series.labels
        is_own = labels is not None and "time" in labels.coords
        return "entry" if is_own or "time" in self.series.dims else "time"

    @property
    def rate_hz(self) -> float:
        """Nominal rate of its samples, Hz; 0 if unknown."""
        name = "sample_rate_hz" if self.is_blocks else "rate_hz"
        rate = self.series.attrs.get(name)
        return float(rate) if isinstance(rate, (int, float)) else 0.0

    @property
    def is_blocks(self) -> bool:
        """Whether a row has several samples, along a first dimension "time"."""
        return self.series.dims[:1] == ("time",) and len(self.series.shape) > 0

    @property
    def units(self) -> str:
        """Unit of the values, from its labels."""
        return str(self.series.attrs.get("units", self.series.attrs.get("unit", "")))

    @property
    def is_text(self) -> bool:
        """Whether each entry is text."""
        return self.series.dtype == TEXT

    @property
    def fields(self) -> list[tuple[str, ...]]:
        """Paths to the fields of a structured dtype; else one empty path."""
        return fields_of(self.series.dtype)

    def kind(self, field: tuple[str, ...]) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """Return dtype and shape of a row of a field."""
        dtype = self.series.dtype
        for name in field:
            dtype = dtype[name]
        return dtype.base, (*self.series.shape, *dtype.shape)

    def take(self, field: tuple[str, ...]) -> Callable[[Any], NDArray[Any]]:
        """Return a function that selects a field of rows."""

        def taken(rows: Any) -> NDArray[Any]:
            for name in field:
                rows = rows[name]
            return np.asarray(rows)

        return taken

    def dim_labels(self, dims: tuple[str, ...]) -> list[str]:
        """Return the coordinate of the only one of `dims` as text; [] without one."""
        labels = self.series.labels
        if labels is None or len(dims) != 1 or dims[0] not in labels.coords:
            return []
        return [str(value) for value in labels.coords[dims[0]].values]

    def check_times(self, name: str) -> None:
        """Raise `ValueError` if stamps are not times; `name` is the format's."""
        if self.series.times.dtype.kind == "u":
            raise ValueError(
                f"the stamps of {self.series.title} are not microseconds, and {name} "
                "needs times: export it to npz or zarr"
            )

    def pieces(
        self, each: int | None = None, most: int | None = None
    ) -> Iterator[tuple[int, Any]]:
        """Iterate over pieces: the first row, and the rows of the series.

        A piece has `each` rows, by default as many as are `PIECE_BYTES`; at `most` so
        many.
        """
        if each is None:
            each = max(1, PIECE_BYTES // max(self.series.row_bytes, 16))
        each = min(each, most or each)
        for start in range(0, len(self), each):
            yield start, self.at(start, min(start + each, len(self)))

    def at(self, start: int, stop: int) -> Any:
        """Return the rows of the series from `start` to before `stop`."""
        if isinstance(self.rows, slice):
            return slice(start, stop)
        return self.rows[start:stop]

    def report(self, rows: int) -> None:
        """Report rows that were written."""
        if self._progress is not None:
            self._progress(self.name, len(self), rows)


def fields_of(dtype: np.dtype[Any]) -> list[tuple[str, ...]]:
    """List the paths to the fields of a dtype; one empty path if it has none.

    Examples
    --------
    >>> fields_of(np.dtype([("a", "u1"), ("b", [("c", "f4")])]))
    [('a',), ('b', 'c')]
    """
    if dtype.names is None:
        return [()]
    return [(name, *rest) for name in dtype.names for rest in fields_of(dtype[name])]


def intact_rows(series: Series) -> NDArray[np.int64]:
    """Return the rows that can be read; reads all of them."""
    good = np.ones(len(series), np.bool_)
    waiting = [(0, len(series))]
    while waiting:
        start, stop = waiting.pop()
        step = max(1, PIECE_BYTES // max(series.row_bytes, 16))
        if stop - start > step:
            waiting += [(k, min(k + step, stop)) for k in range(start, stop, step)]
            continue
        try:
            series.read(slice(start, stop))
        except CorruptFrame:
            if stop - start == 1:
                good[start] = False
            else:
                middle = (start + stop) // 2
                waiting += [(start, middle), (middle, stop)]
    return np.flatnonzero(good)
