"""ExportSeries: one source on its way into another format, in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.errors import CorruptFrame
from ataraxis.log.nodes import LogNode
from ataraxis.log.series import PIECE_BYTES, TEXT, Series


class ExportSeries:
    """A source to be written: what it is, and its rows in pieces of some MB.

    Parameters
    ----------
    node : LogNode
        The source.
    onset_us : int, optional
        As of `Series`.
    is_mended : bool
        Whether damaged entries are left out.
    progress : callable, optional
        Told of rows: ``progress(name, rows, rows_done_now)``.
    """

    def __init__(
        self,
        node: LogNode,
        *,
        onset_us: int | None = None,
        is_mended: bool = False,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self.node, self.name = node, node.name
        self.options = {"onset_us": onset_us}
        """Of `Series`."""
        self.series: Series = node.series(**self.options)
        self.rows: NDArray[np.int64] | slice = slice(0, len(self.series))
        self._count = len(self.series)
        if is_mended:
            self.rows = intact(self.series)
            self._count = len(self.rows)
        self._progress = progress

    def __len__(self) -> int:
        return self._count

    @property
    def dim(self) -> str:
        """What xarray calls the dimension of rows."""
        labels = self.series.labels
        is_own = labels is not None and "time" in labels.coords
        return "entry" if is_own or "time" in self.series.dims else "time"

    @property
    def rate_hz(self) -> float:
        """Nominal rate of its samples, Hz; 0 if nobody said."""
        name = "sample_rate_hz" if self.is_blocks else "rate_hz"
        rate = self.series.attrs.get(name)
        return float(rate) if isinstance(rate, (int, float)) else 0.0

    @property
    def is_blocks(self) -> bool:
        """Whether a row is several samples, along a first dimension "time"."""
        return self.series.dims[:1] == ("time",) and len(self.series.shape) > 0

    @property
    def units(self) -> str:
        """Unit of the values, as its labels say."""
        return str(self.series.attrs.get("units", self.series.attrs.get("unit", "")))

    @property
    def is_text(self) -> bool:
        """Whether each entry is a text."""
        return self.series.dtype == TEXT

    @property
    def fields(self) -> list[tuple[str, ...]]:
        """Paths to the fields of a structured dtype; one that is empty, if none."""
        return fields_of(self.series.dtype)

    def kind(self, field: tuple[str, ...]) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """Return dtype and shape of a row of a field."""
        dtype = self.series.dtype
        for name in field:
            dtype = dtype[name]
        inner = dtype.shape
        return dtype.base, (*self.series.shape, *inner)

    def take(self, field: tuple[str, ...]) -> Callable[[Any], NDArray[Any]]:
        """Return what takes a field out of rows."""

        def taken(rows: Any) -> NDArray[Any]:
            for name in field:
                rows = rows[name]
            return np.asarray(rows)

        return taken

    def pieces(
        self, each: int | None = None, most: int | None = None
    ) -> Iterator[tuple[int, Any]]:
        """Iterate over where each piece begins, and which rows of the series it is.

        Parameters
        ----------
        each : int, optional
            Rows of a piece; as many as are `PIECE_BYTES`, if not given.
        most : int, optional
            Most rows of a piece.
        """
        if each is None:
            each = max(1, PIECE_BYTES // max(self.series.row_bytes, 16))
        each = min(each, most or each)
        for start in range(0, len(self), each):
            stop = min(start + each, len(self))
            yield start, self.at(start, stop)

    def at(self, start: int, stop: int) -> Any:
        """Return which rows of the series are from `start` to before `stop`."""
        if isinstance(self.rows, slice):
            return slice(start, stop)
        return self.rows[start:stop]

    def told(self, rows: int) -> None:
        """Tell of rows that were written."""
        if self._progress is not None:
            self._progress(self.name, len(self), rows)

    def columns(self) -> dict[str, tuple[np.dtype[Any], Callable[[Any], Any]]]:
        """List what there is beside the rows: dtype, and what reads it of rows."""
        series = self.series
        found: dict[str, tuple[np.dtype[Any], Callable[[Any], Any]]] = {
            "time": (series.times.dtype, series.time),
            "sequence": (np.dtype("u8"), series.sequence),
        }
        if series.times.unit == "ns":
            found["monotonic_ns"] = (
                np.dtype("i8"),
                lambda rows: series.pick(rows).time,
            )
        if series.has_device:
            sign = np.dtype("u8" if series.is_device_unsigned else "i8")
            found["device_time"] = (
                sign,
                lambda rows: series.device(rows)[:, 0].copy().view(sign),
            )
            if series.times.unit == "ns":
                found["device_sequence"] = (
                    np.dtype("u8"),
                    lambda rows: series.device(rows)[:, 1].copy().view("u8"),
                )
        return found


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


def intact(series: Series) -> NDArray[np.int64]:
    """Find the rows that can be read: reads all of them."""
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
