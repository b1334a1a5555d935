"""NWB: the time series of a file, read and written through ``pynwb``."""

from __future__ import annotations

import datetime
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.datamux.description import (
    Field,
    Stream,
    channel_names,
    dtype_name,
    names_within,
)
from ataraxis.datamux.folder import Folder, OpenedFile, SuffixFormat
from ataraxis.datamux.recording import Recording
from ataraxis.datamux.sources.hdf5 import check_inside, opened_hdf5, read_dataset, walk
from ataraxis.errors import RecordingError
from ataraxis.log.export.nwb import declared_unit, write_series, written_unit
from ataraxis.log.optional import need


class Nwb(SuffixFormat):
    """``nwb://{session}``: each `TimeSeries` by its name, and tables of times.

    Series of one name have that of their module, too: ``lick@behavior``. Time intervals
    (``trials``, ``epochs`` and others) are events at their start, with their columns;
    ``units`` are the spikes of all units, each with its unit's id. Float fields have
    the values in the unit, integer fields the stored values. Fields are the columns in
    order.
    """

    suffix = ".nwb"

    def columns(
        self, folder: Folder, key: str, stream_id: str, stream: Stream
    ) -> Mapping[str, NDArray[Any]]:
        """Read one time series."""
        with _series_of(folder, f"{key}.nwb") as (series, opened):
            path = opened.shown
            wanted = str(stream.attrs.get("nwb_name", stream_id))
            if wanted in series and _is_table(series[wanted]):
                return {
                    stream.time if name == "t" else name: column
                    for name, column in _table(series[wanted], opened).items()
                }
            if wanted not in series:
                raise RecordingError(
                    f"{path}: no time series {wanted!r}: found {[*series]}"
                )
            found = series[wanted]
            data = _values(found.data, opened)
            image = _shape_of(data)
            if image and [f.shape for f in stream.fields.values()] == [image]:
                whole = np.asarray(data)[:, np.newaxis]  # one field of that shape
            else:
                whole = _rows(data)
            if len(stream.fields) != whole.shape[1]:
                raise RecordingError(
                    f"{path}: {wanted!r} has {whole.shape[1]} columns, declared "
                    f"{[*stream.fields]}"
                )
            kinds = {f.numpy_dtype.kind for f in stream.fields.values()}
            if kinds == {"f"} and _is_scaled(found):
                whole = whole * _conversion(found, whole.shape[1]) + found.offset
            t = _times_of(found, len(whole), opened)
        columns = {name: whole[:, i] for i, name in enumerate(stream.fields)}
        return {stream.time: t, **columns}

    def describe(self, folder: Folder, key: str) -> dict[str, Stream]:
        """Return the time series of a file by name."""
        described = {}
        with _series_of(folder, f"{key}.nwb") as (series, opened):
            for name, found in series.items():
                if _is_table(found):
                    described[name] = _described_table(name, found, opened)
                    continue
                data = _values(found.data, opened, 1)
                whole, shape = _rows(data), _shape_of(data)
                dtype = "f64" if _is_scaled(found) else dtype_name(whole.dtype) or "str"
                width = whole.shape[1]
                line = (found.comments or "").partition("\n")[0]
                # Only what `write_nwb` wrote; comments of others are prose.
                is_ours = line.startswith("fields: ")
                listed = line.removeprefix("fields: ").split(", ") if is_ours else []
                names = [name] if shape else channel_names(width, listed)
                unit = found.unit or ""
                unit = declared_unit(unit) if is_ours else unit
                described[name] = Stream(
                    name, found.description, unit, found.rate,
                    fields={n: Field(n, dtype=dtype, shape=shape) for n in names},
                    index={"t": Field("time", unit="s")}, attrs={"id": name},
                )  # fmt: skip
        return described


def _is_table(found: Any) -> bool:
    return hasattr(found, "colnames")


def _table(found: Any, opened: OpenedFile) -> dict[str, NDArray[Any]]:
    """Return the columns of time intervals, or the spikes of units, and their times."""
    ids = np.asarray(found.id[:])
    if "spike_times" in found.colnames:
        index = found["spike_times"]
        times = [np.asarray(index[row], "f8") for row in range(len(ids))]
        counts = [len(own) for own in times]
        whole = np.concatenate(times) if times else np.empty(0)
        return {"t": whole, "unit": np.repeat(ids, counts)}
    columns: dict[str, NDArray[Any]] = {"id": ids}
    for name in found.colnames:
        column = found[name]
        if hasattr(column, "target") or not hasattr(column, "data"):
            continue  # several values a row
        values = _values(column.data, opened)
        if values.dtype == object:
            if not all(isinstance(value, str | bytes) for value in values.ravel()):
                continue
            values = np.array([str(value) for value in values], "U")
        if values.ndim == 1 and dtype_name(values.dtype) and len(values) == len(ids):
            columns[str(name)] = values
    if "start_time" not in columns:
        raise RecordingError(
            f"{opened.shown}: table {found.name!r} has no column 'start_time': found "
            f"{[*columns]}"
        )
    return {"t": np.asarray(columns.pop("start_time"), "f8"), **columns}


def _described_table(name: str, found: Any, opened: OpenedFile) -> Stream:
    columns = _table(found, opened)
    fields = {
        own: Field(
            own, "", dtype_name(column.dtype) or "str", "s" * own.endswith("_time")
        )
        for own, column in columns.items()
        if own != "t"
    }
    index = {"t": Field("time", unit="s")}
    return Stream(
        name, found.description, fields=fields, index=index, attrs={"id": name}
    )


def _is_scaled(found: Any) -> bool:
    """Whether stored values must be scaled to the unit of the series."""
    each = getattr(found, "channel_conversion", None)
    return bool(found.conversion != 1.0 or found.offset or each is not None)


def _conversion(found: Any, width: int) -> Any:
    """Return the factor from stored values to the unit, for all or per channel."""
    each = getattr(found, "channel_conversion", None)
    if each is None:
        return found.conversion
    each = np.asarray(each, np.float64)
    if each.shape != (width,):
        raise RecordingError(
            f"{found.name!r} has {width} channels and {each.shape} conversions"
        )
    return found.conversion * each


def _shape_of(data: Any) -> tuple[int, ...]:
    """Return the shape of a sample that is an image, or larger; () of channels."""
    shape = tuple(np.shape(data))
    return shape[1:] if len(shape) > 2 else ()


def _rows(data: Any) -> NDArray[Any]:
    array = np.asarray(data)
    if array.dtype == object:
        array = np.array([str(value) for value in array.ravel()], "U").reshape(
            array.shape
        )
    return array.reshape(len(array), math.prod(array.shape[1:]))


def _values(data: Any, opened: OpenedFile, rows: int | None = None) -> Any:
    """Read a dataset, unless pynwb has read it already."""
    if hasattr(data, "id"):
        return read_dataset(data, opened, rows)
    found = np.asarray(data)
    return found if rows is None else found[:rows]


def _times_of(found: Any, n: int, opened: OpenedFile) -> NDArray[np.float64]:
    if found.timestamps is not None:
        return np.asarray(_values(found.timestamps, opened), np.float64)
    rate, first = float(found.rate), float(found.starting_time or 0.0)
    return np.arange(n) / rate + first


@contextmanager
def _series_of(
    folder: Folder, name: str
) -> Iterator[tuple[dict[str, Any], OpenedFile]]:
    if not folder.is_there(name):
        raise folder.not_there(name)
    pynwb = need("pynwb", "nwb", "an NWB recording")
    with warnings.catch_warnings(), opened_hdf5(folder, name) as (file, opened):
        warnings.simplefilter("ignore")  # of hdmf about cached schemas
        _check_links(file, opened)
        try:
            io = pynwb.NWBHDF5IO(file=file, mode="r")
            objects = io.read().objects.values()
        except Exception as error:  # hdmf and h5py raise several kinds
            raise RecordingError(
                f"{opened.shown}: not NWB, or damaged: {error}"
            ) from error
        try:
            kinds = (pynwb.TimeSeries, pynwb.epoch.TimeIntervals, pynwb.misc.Units)
            found = [item for item in objects if isinstance(item, kinds)]
            names = names_within(
                [str(item.name) for item in found],
                [str(item.parent.name) if item.parent else "" for item in found],
            )
            yield dict(zip(names, found, strict=True)), opened
        finally:
            io.close()


def _check_links(file: Any, opened: OpenedFile) -> None:
    """Raise if a file links to another one, as pynwb would follow the link."""
    h5py = need("h5py", "tables", "an NWB recording")
    for name, item in walk(file, opened):
        if isinstance(item, h5py.Dataset):
            check_inside(item, opened)
        if not isinstance(item, h5py.Group):
            continue
        for part in item:
            kind = item.id.links.get_info(part.encode()).type
            if kind not in (h5py.h5l.TYPE_HARD, h5py.h5l.TYPE_SOFT):
                raise RecordingError(
                    f"{opened.shown}/{name}: {part!r} is a link to another file: "
                    "not followed"
                )


def write_nwb(
    path: str | Path,
    recordings: Mapping[str, Recording],
    *,
    start: datetime.datetime | None = None,
    description: str = "recorded by ataraxis",
) -> None:
    """Write recordings as the time series of one NWB file, times and values exactly.

    Parameters
    ----------
    path : str or Path
        The file; must not exist.
    recordings : mapping of str to Recording
        Recordings by the names of their time series: fields of one dtype. NWB has
        times in seconds as doubles, which hold the ns up to 97 days; of ns since 1970
        they are off by up to 128.
    start : datetime, optional
        Time 0; by default now.
    description : str
        Description of the session.

    Raises
    ------
    ValueError
        The fields of a recording do not make an array; nothing is written.
    FileExistsError
        The file exists.
    """
    pynwb = need("pynwb", "nwb", "an NWB file")
    if Path(path).exists():
        raise FileExistsError(17, "write_nwb replaces nothing", str(path))
    when = start or datetime.datetime.now(datetime.UTC)
    if when.tzinfo is None:
        when = when.astimezone()
    made = []
    for name, recording in recordings.items():
        stream = recording.stream
        units = {f.unit or stream.unit for f in stream.fields.values()}
        data = _data(recording)
        unit = units.pop() if len(units) == 1 else "mixed"
        made.append(
            pynwb.TimeSeries(
                name=name, data=data, timestamps=recording.t,
                unit=written_unit(unit, np.asarray(data).dtype),
                description=stream.description or stream.name or "no description",
                comments=f"fields: {', '.join(stream.fields)}",
            )
        )  # fmt: skip
    write_series(path, made, when, description)


def _data(recording: Recording) -> Any:
    columns = [*recording.read().values.values()]
    if columns[0].dtype.kind == "U" and len(columns) == 1:
        return [str(value) for value in columns[0]]
    return recording.read().array
