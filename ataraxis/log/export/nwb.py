"""A log as NWB, through pynwb: one TimeSeries per source, and one for its stamps."""

from __future__ import annotations

import datetime
import math
import uuid
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ataraxis.log.export.series import ExportSeries, on_one_clock
from ataraxis.log.export.xdf import seconds, zero_ns
from ataraxis.log.optional import need

CHUNK_BYTES = 1 << 20
MOST_DIMS = 4
_SECOND = 10**9
_NO_UNIT = "dimensionless"
# neo takes a final "s" off and looks for the rest in quantities: "ms" would be metres.
_COUNT = "count"
_WRITTEN_OUT = {
    "s": "second", "ms": "millisecond", "us": "microsecond", "ns": "nanosecond",
}  # fmt: skip


def written_unit(declared: str, dtype: np.dtype[Any]) -> str:
    """Return the unit in the file; integers without one are counts."""
    if declared:
        return _WRITTEN_OUT.get(declared, declared)
    return _COUNT if dtype.kind in "iub" else _NO_UNIT


def declared_unit(written: str) -> str:
    """Return the unit that `written_unit` wrote; none of a count."""
    if written in (_COUNT, _NO_UNIT):
        return ""
    return next((k for k, v in _WRITTEN_OUT.items() if v == written), written)


class NwbExporter:
    """TimeSeries by the names of the sources; device stamps as ``NAME_device``.

    Times are seconds since the session's start, which is the whole second before the
    first one: a double holds them to the nanosecond. Labels and rate are in the
    comments, as JSON. The subject is that of the session.
    """

    subject = ""

    def check(self, items: list[ExportSeries]) -> None:
        """Raise for dtypes that NWB lacks, and for stamps without a time unit."""
        need("pynwb", "nwb", "an NWB file")
        for item in items:
            series = item.series
            for field in item.fields:
                dtype, _ = item.kind(field)
                if dtype.kind in "cV":
                    raise ValueError(
                        f"{series.title} is {dtype}, which NWB cannot hold: export it "
                        f"to {'zarr' if dtype.kind == 'c' else 'npz'}"
                    )
            item.check_times("NWB")
        on_one_clock(items, "NWB")

    def write(self, path: Path, items: list[ExportSeries]) -> None:
        """Write a new file."""
        pynwb = need("pynwb", "nwb", "an NWB file")
        zero = zero_ns(items)
        when = datetime.datetime.fromtimestamp(zero // _SECOND, datetime.UTC)
        made = [series for item in items for series in _series(pynwb, item, zero)]
        write_series(path, made, when, subject=self.subject)


def write_series(
    path: str | Path,
    series: Iterable[Any],
    start: datetime.datetime,
    description: str = "recorded by ataraxis",
    subject: str = "",
) -> None:
    """Write TimeSeries of pynwb, times in s since `start`, as a new file."""
    pynwb = need("pynwb", "nwb", "an NWB file")
    file = pynwb.NWBFile(description, str(uuid.uuid4()), start)
    if subject:
        file.subject = pynwb.file.Subject(subject_id=subject)
    for item in series:
        file.add_acquisition(item)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hdmf warns about cached schemas
        with pynwb.NWBHDF5IO(str(path), "w") as io:
            io.write(file)


def _series(pynwb: Any, item: ExportSeries, zero: int) -> list[Any]:
    """Make the TimeSeries of one source; only their times are in memory."""
    name = item.name.replace("/", "_").replace(":", "_")
    labels = item.series.labels
    text = "" if labels is None else f"\nlabels: {labels.to_json().decode()}"
    rate = f"\nrate_hz: {item.rate_hz!r}" if item.rate_hz else ""
    times: Any = _Column(
        item, np.dtype("f8"), (), lambda rows: seconds(item, rows, zero)
    )
    made: list[Any] = []
    for field in item.fields:
        dtype, shape = item.kind(field)
        width = math.prod(shape)
        kept = shape if len(shape) < MOST_DIMS else (width,)
        names = field or item.dim_labels(item.row_dims) or [item.series.name]
        data: Any = _Column(item, _kind(dtype), kept, _reader(item, field, kept))
        if item.is_text:
            data = _texts(item)
        series = pynwb.TimeSeries(
            name="_".join((name, *field)),
            data=data.data() if isinstance(data, _Column) else data,
            unit=written_unit(item.units, dtype),
            timestamps=made[0] if made else times.data(),
            description=str(item.series.attrs.get("description", "a recorded stream")),
            comments=f"fields: {', '.join(names)}{rate}{text}",
        )
        made.append(series)
    stamps: Any = made[0]
    if item.is_samples:
        # What belongs to an entry of several samples has times of its own.
        read = item.entry_time
        stamps = _Column(
            item, np.dtype("f8"), (),
            lambda rows: (read(rows).view(np.int64) - zero) / _SECOND, True,
        ).data()  # fmt: skip
        made.append(
            pynwb.TimeSeries(
                name=f"{name}_entries",
                data=_Column(item, np.dtype("i8"), (2,), _entries(item), True).data(),
                unit=_COUNT,
                timestamps=stamps,
                description=f"each entry of {name}: monotonic stamp, first sample",
                comments="fields: monotonic_ns, first_sample",
            )
        )
        stamps = made[-1]
    if item.series.has_device:
        sign = np.dtype("u8" if item.series.is_device_unsigned else "i8")
        column = _Column(
            item, sign, (2,), lambda rows: item.series.device(rows).view(sign), True
        )
        made.append(
            pynwb.TimeSeries(
                name=f"{name}_device",
                data=column.data(),
                unit=_WRITTEN_OUT["us"] if item.series.times.unit == "us" else _COUNT,
                timestamps=stamps,
                description=f"device stamps of {name}: ticks, and a counter",
                comments="fields: device_time, device_sequence",
            )
        )
    return made


def _entries(item: ExportSeries) -> Any:
    def read(rows: Any) -> Any:
        return np.stack([item.series.monotonic(rows), item.first_samples(rows)], 1)

    return read


def _kind(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in the file: integers for times, floats for halves."""
    if dtype.kind in "mM":
        return np.dtype("i8")
    if dtype == np.dtype("f2"):
        return np.dtype("f4")
    return dtype.newbyteorder("=")


def _reader(item: ExportSeries, field: tuple[str, ...], shape: tuple[int, ...]) -> Any:
    dtype = _kind(item.kind(field)[0])
    take = item.take(field)

    def read(rows: Any) -> Any:
        piece = take(item.read(rows))
        item.report(len(piece))
        if piece.dtype.kind in "mM":
            piece = piece.astype(piece.dtype.newbyteorder("=")).view("i8")
        return piece.reshape(len(piece), *shape).astype(dtype, copy=False)

    return read


def _texts(item: ExportSeries) -> list[str]:
    found: list[str] = []
    for _, rows in item.pieces():
        found += map(str, item.read(rows))
    item.report(len(found))
    return found


class _Column:
    """Data of each row, or of each entry, read by hdmf in pieces."""

    def __init__(
        self,
        item: ExportSeries,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        read: Any,
        is_of_entries: bool = False,
    ) -> None:
        self.dtype, self.shape, self.read = dtype, shape, read
        self.at = item.entries_at if is_of_entries else item.at
        self.count = item.entry_count if is_of_entries else len(item)

    def data(self) -> Any:
        """Return an hdmf iterator, or an array if empty."""
        shape = (self.count, *self.shape)
        if not math.prod(shape):
            return np.empty(shape, self.dtype)
        return _iterator_class()(self)


def _iterator_class() -> Any:
    """Make the class on use, when hdmf is imported."""
    hdmf = need("hdmf.data_utils", "nwb", "an NWB file")

    class Pieces(hdmf.GenericDataChunkIterator):  # type: ignore[misc, name-defined]
        """Reads rows when they are written."""

        def __init__(self, column: _Column) -> None:
            self._column = column
            row = max(math.prod(column.shape) * column.dtype.itemsize, 1)
            each = max(1, min(column.count, CHUNK_BYTES // row))
            most = max(1, min(column.count, 16 * CHUNK_BYTES // row // each * each))
            super().__init__(
                chunk_shape=(each, *column.shape),
                buffer_shape=(max(each, most), *column.shape),
            )

        def _get_data(self, selection: tuple[slice, ...]) -> Any:
            rows = selection[0]
            read = self._column.read(self._column.at(rows.start, rows.stop))
            return read[(slice(None), *selection[1:])]

        def _get_maxshape(self) -> tuple[int, ...]:
            return (self._column.count, *self._column.shape)

        def _get_dtype(self) -> Any:
            return self._column.dtype

    return Pieces
