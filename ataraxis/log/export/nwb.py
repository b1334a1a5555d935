"""A log as NWB, through pynwb: a TimeSeries for each source, and one for its stamps."""

from __future__ import annotations

import datetime
import math
import uuid
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ataraxis.log.export.track import ExportSeries
from ataraxis.log.export.xdf import zero_ns
from ataraxis.log.optional import need

CHUNK_BYTES = 1 << 20
MOST_DIMS = 4
_SECOND = 10**9
_NO_UNIT = "dimensionless"  # a unit that quantities and neo know


class NwbExporter:
    """Series by the names of the sources, and ``NAME_device`` with device stamps.

    Their times are seconds after the session's start, which is the whole second before
    the first one: doubles hold them to the nanosecond. Labels and rate are in the
    comments, as JSON. A session's subject is the file's.
    """

    subject = ""

    def check(self, tracks: list[ExportSeries]) -> None:
        """Refuse what NWB has no dtype for, and times that are none."""
        need("pynwb", "nwb", "an NWB file")
        for track in tracks:
            series = track.series
            for field in track.fields:
                dtype, _ = track.kind(field)
                if dtype.kind in "cV":
                    raise ValueError(
                        f"{series.called} is {dtype}, which NWB has not: export it to "
                        f"{'zarr' if dtype.kind == 'c' else 'npz'}"
                    )
            if series.times.dtype.kind == "u":
                raise ValueError(
                    f"the stamps of {series.called} are no microseconds, and NWB wants "
                    "times: export it to npz or zarr"
                )

    def write(self, path: Path, tracks: list[ExportSeries]) -> None:
        """Write a new file."""
        pynwb = need("pynwb", "nwb", "an NWB file")
        zero = zero_ns(tracks)
        when = datetime.datetime.fromtimestamp(zero // _SECOND, datetime.UTC)
        file = pynwb.NWBFile("recorded by ataraxis", str(uuid.uuid4()), when)
        if self.subject:
            file.subject = pynwb.file.Subject(subject_id=self.subject)
        for track in tracks:
            for series in _series(pynwb, track, zero):
                file.add_acquisition(series)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what hdmf thinks of cached schemas
            with pynwb.NWBHDF5IO(str(path), "w") as io:
                io.write(file)


def _series(pynwb: Any, track: ExportSeries, zero: int) -> list[Any]:
    """Make the series of one source: lazy, but for its times."""
    name = track.name.replace("/", "_").replace(":", "_")
    labels = track.series.labels
    said = "" if labels is None else f"\nlabels: {labels.to_json().decode()}"
    rate = f"\nrate_hz: {track.rate_hz!r}" if track.rate_hz else ""
    times: Any = _Column(
        track, np.dtype("f8"), (), lambda rows: _seconds(track, rows, zero)
    )
    made: list[Any] = []
    for field in track.fields:
        dtype, shape = track.kind(field)
        width = math.prod(shape)
        kept = shape if len(shape) < MOST_DIMS else (width,)
        names = field or _labels(track)
        data: Any = _Column(track, _kind(dtype), kept, _reader(track, field, kept))
        if track.is_text:
            data = _texts(track)
        series = pynwb.TimeSeries(
            name="_".join((name, *field)),
            data=data.data() if isinstance(data, _Column) else data,
            unit=track.units or _NO_UNIT,
            timestamps=made[0] if made else times.data(),
            description=str(track.series.attrs.get("description", "a recorded stream")),
            comments=f"fields: {', '.join(names)}{rate}{said}",
        )
        made.append(series)
    if track.series.has_device:
        sign = np.dtype("u8" if track.series.is_device_unsigned else "i8")
        stamps = _Column(
            track, sign, (2,), lambda rows: track.series.device(rows).view(sign)
        )
        made.append(
            pynwb.TimeSeries(
                name=f"{name}_device",
                data=stamps.data(),
                unit="us" if track.series.times.unit == "us" else _NO_UNIT,
                timestamps=made[0],
                description=f"device stamps of {name}: ticks, and a counter",
                comments="fields: device_time, device_sequence",
            )
        )
    return made


def _labels(track: ExportSeries) -> tuple[str, ...]:
    labels, dims = track.series.labels, track.series.dims
    if labels is not None and len(dims) == 1 and dims[0] in labels.coords:
        return tuple(map(str, labels.coords[dims[0]].values))
    return (track.series.name,)


def _seconds(track: ExportSeries, rows: Any, zero: int) -> Any:
    return (track.series.time(rows).view(np.int64) - zero) / _SECOND


def _kind(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in the file: times are integers, halves are floats."""
    if dtype.kind in "mM":
        return np.dtype("i8")
    if dtype == np.dtype("f2"):
        return np.dtype("f4")
    return dtype.newbyteorder("=")


def _reader(track: ExportSeries, field: tuple[str, ...], shape: tuple[int, ...]) -> Any:
    dtype = _kind(track.kind(field)[0])
    take = track.take(field)

    def read(rows: Any) -> Any:
        piece = take(track.series.read(rows))
        track.told(len(piece))
        if piece.dtype.kind in "mM":
            piece = piece.astype(piece.dtype.newbyteorder("=")).view("i8")
        return piece.reshape(len(piece), *shape).astype(dtype, copy=False)

    return read


def _texts(track: ExportSeries) -> list[str]:
    found: list[str] = []
    for _, rows in track.pieces():
        found += map(str, track.series.read(rows))
    track.told(len(found))
    return found


class _Column:
    """Something of each row, given to hdmf in pieces."""

    def __init__(
        self,
        track: ExportSeries,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        read: Any,
    ) -> None:
        self.track, self.dtype, self.shape, self.read = track, dtype, shape, read

    def data(self) -> Any:
        """Return an iterator of hdmf; of nothing, an array."""
        shape = (len(self.track), *self.shape)
        if not math.prod(shape):
            return np.empty(shape, self.dtype)
        return _iterator_class()(self)


def _iterator_class() -> Any:
    """Make the class when hdmf is there."""
    hdmf = need("hdmf.data_utils", "nwb", "an NWB file")

    class Pieces(hdmf.GenericDataChunkIterator):  # type: ignore[misc, name-defined]
        """Reads rows when they are written."""

        def __init__(self, column: _Column) -> None:
            self._column = column
            row = max(math.prod(column.shape) * column.dtype.itemsize, 1)
            each = max(1, min(len(column.track), CHUNK_BYTES // row))
            most = max(
                1, min(len(column.track), 16 * CHUNK_BYTES // row // each * each)
            )
            super().__init__(
                chunk_shape=(each, *column.shape),
                buffer_shape=(max(each, most), *column.shape),
            )

        def _get_data(self, selection: tuple[slice, ...]) -> Any:
            rows = selection[0]
            read = self._column.read(self._column.track.at(rows.start, rows.stop))
            return read[(slice(None), *selection[1:])]

        def _get_maxshape(self) -> tuple[int, ...]:
            return (len(self._column.track), *self._column.shape)

        def _get_dtype(self) -> Any:
            return self._column.dtype

    return Pieces
