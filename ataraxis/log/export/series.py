"""ExportSeries: one source in pieces, for another format."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.errors import CorruptFrame
from ataraxis.labels import sample_rate
from ataraxis.log.archive import LogNode
from ataraxis.log.clock_table import clock_of
from ataraxis.log.host_times import ClockTimes, read_tables
from ataraxis.log.row_times import EntryTimes, RowTimes, SampleTimes, row_times_of
from ataraxis.log.rows import PIECE_BYTES, TEXT
from ataraxis.log.series import Series


class ExportSeries:
    """A source to export: its properties, and its rows in pieces of some MB.

    Rows are the samples of blocks, with their fitted times, else entries. The options
    are those of `export_log`, for the one source; with `by_entry` rows are entries.
    """

    def __init__(
        self,
        node: LogNode,
        *,
        onset_us: int | None = None,
        skip_damaged: bool = False,
        progress: Callable[[str, int, int], None] | None = None,
        by_entry: bool = False,
    ) -> None:
        self.node, self.name = node, node.name
        self.options = {"onset_us": onset_us}
        """Options of `Series`."""
        self.series: Series = node.series(**self.options)
        times: RowTimes = (
            EntryTimes(self.series) if by_entry else row_times_of(self.series)
        )
        self._samples = times if isinstance(times, SampleTimes) else None
        self._times: RowTimes | ClockTimes
        self._own_times, self._times = times, times
        self.entries: NDArray[np.int64] | slice = slice(0, len(self.series))
        """Entries that are exported."""
        self.rows: NDArray[np.int64] | slice = slice(0, len(self._times))
        self._count = len(self._times)
        if skip_damaged:
            self.entries = intact_rows(self.series)
            if len(self.entries) < len(self.series):
                self.rows = self.entries
                if self._samples is not None:
                    self.rows = self._samples.blocks.samples_of(self.entries)
                self._count = len(self.rows)
        self._progress = progress
        self._entry_times: RowTimes | ClockTimes = EntryTimes(self.series)

    def __len__(self) -> int:
        return self._count

    @property
    def is_samples(self) -> bool:
        """Whether rows are the samples of blocks."""
        return self._samples is not None

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of a row."""
        samples = self._samples
        return self.series.shape if samples is None else samples.blocks.rest

    @property
    def row_dims(self) -> tuple[str, ...]:
        """Names of the dimensions of a row."""
        return self.series.dims[1:] if self.is_samples else self.series.dims

    def read(self, rows: Any) -> NDArray[Any]:
        """Read rows into an array, (n, *row_shape): a copy."""
        if self._samples is not None:
            return self._samples.read(rows)
        return self.series.read(rows)

    def time(self, rows: Any) -> NDArray[Any]:
        """Return the times of rows, (n,)."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self._times)), dtype=np.int64)
        return self._times.at(rows)

    def entry_time(self, entries: Any) -> NDArray[Any]:
        """Return the times of entries, (n,)."""
        if isinstance(entries, slice):
            entries = np.arange(*entries.indices(len(self.series)), dtype=np.int64)
        return self._entry_times.at(entries)

    @property
    def hosts(self) -> set[str]:
        """Hosts whose clocks its stamps are of; "" is the one that recorded."""
        parts = self.series.source.parts(self.series.number)
        return {clock_of(part.labels)[0] for part in parts}

    def use_time_here(self) -> None:
        """Convert its times to those of the host that recorded.

        Raises `ValueError` if no recorded clock leads there.
        """
        series = self.series
        here = next((a.host for a in series.source.anchors if a.host), "")
        tables = read_tables(series.source.path)
        self._times = ClockTimes(series, self._own_times, tables, here)
        self._entry_times = ClockTimes(series, EntryTimes(series), tables, here)

    @property
    def entry_count(self) -> int:
        """Number of entries that are exported."""
        if isinstance(self.entries, slice):
            return len(self.series)
        return len(self.entries)

    def entries_at(self, start: int, stop: int) -> Any:
        """Return exported entries from `start` to before `stop`."""
        if isinstance(self.entries, slice):
            return slice(start, stop)
        return self.entries[start:stop]

    def first_samples(self, entries: Any) -> NDArray[np.int64]:
        """Return the number of the first sample of entries of blocks, (n,)."""
        assert self._samples is not None
        if isinstance(entries, slice):
            entries = np.arange(entries.start, entries.stop)
        return self._samples.blocks.first_samples(entries)

    @property
    def dim(self) -> str:
        """Name of the dimension of rows in xarray."""
        if self.is_samples:
            return "time"
        labels = self.series.labels
        is_own = labels is not None and "time" in labels.coords
        return "entry" if is_own or "time" in self.series.dims else "time"

    @property
    def rate_hz(self) -> float:
        """Nominal rate of its samples, Hz; 0 if unknown."""
        if self.is_samples or self.series.dims[:1] != ("time",):
            return sample_rate(self.series.attrs) or 0.0
        return 0.0

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
        return dtype.base, (*self.row_shape, *dtype.shape)

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
            row_bytes = math.prod(self.row_shape) * self.series.dtype.itemsize
            each = max(1, PIECE_BYTES // max(row_bytes, 16))
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


def on_one_clock(items: Sequence[ExportSeries], name: str) -> None:
    """Convert sources of other hosts, for a format with one time for all; its name.

    Raises `ValueError` if the clocks of two hosts cannot be related.
    """
    hosts = {host for item in items for host in item.hosts}
    for item in items:
        if item.hosts <= {""}:
            continue
        try:
            item.use_time_here()
        except ValueError as error:
            if len(hosts) > 1:
                raise ValueError(
                    f"{name} has one time for all sources: {error}; or export the "
                    "sources of one host, or to zarr or npz, which keep the times of "
                    "each"
                ) from error


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
