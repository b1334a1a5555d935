"""NWB in Zarr, as ``hdmf-zarr`` writes it: time series and time intervals.

``hdmf-zarr`` needs an older ``zarr`` than the exports of ataraxis, so the folder's own
attributes are read here, and its arrays by ``zarr``.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.config.limits import FILES
from ataraxis.datamux.description import Field, Stream, dtype_name, names_within
from ataraxis.datamux.folder import Folder
from ataraxis.errors import RecordingError
from ataraxis.log.optional import need

SUFFIX = ".nwb.zarr"
_SPECIFICATIONS = "specifications"


class NwbZarr:
    """``nwb_zarr://{session}``: each `TimeSeries` by its name, and time intervals.

    Values are in the unit of the series, as pynwb's ``get_data_in_units`` gives them.
    """

    def keys(self, folder: Folder) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """List the folders, also in sub-folders."""
        found = {inside for inside, _ in folder.walk() if inside.endswith(SUFFIX)}
        return [(key.removesuffix(SUFFIX), {}) for key in sorted(found)]

    def describe(self, folder: Folder, key: str) -> dict[str, Stream]:
        """Return the streams of a folder; reads rates, and the columns of tables."""
        described = {}
        for name, place in _series(folder, key).items():
            if (place / "data").is_dir():
                described[name] = _of_series(name, place)
            else:
                columns = _intervals(place)
                described[name] = Stream(
                    name,
                    fields={
                        own: Field(own, dtype=dtype_name(column.dtype) or "f64")
                        for own, column in columns.items()
                        if own != "t"
                    },
                    index={"t": Field("time", unit="s")}, attrs={"id": name},
                )  # fmt: skip
        return described

    def columns(
        self, folder: Folder, key: str, stream_id: str, stream: Stream
    ) -> Mapping[str, NDArray[Any]]:
        """Read one stream."""
        series = _series(folder, key)
        wanted = str(stream.attrs.get("nwb_name", stream_id))
        if wanted not in series:
            raise RecordingError(
                f"{folder.shown(key)}: no time series {wanted!r}: found {[*series]}"
            )
        place = series[wanted]
        if not (place / "data").is_dir():
            columns = _intervals(place)
            return {stream.time: columns.pop("t"), **columns}
        data = _array(place / "data")
        attrs = _attrs(place / "data")
        whole = data.reshape(len(data), math.prod(data.shape[1:]))
        if len(stream.fields) != whole.shape[1]:
            raise RecordingError(
                f"{place}: {whole.shape[1]} columns, declared {[*stream.fields]}"
            )
        kinds = {field.numpy_dtype.kind for field in stream.fields.values()}
        if kinds == {"f"} and _is_scaled(attrs):
            whole = whole * attrs.get("conversion", 1.0) + attrs.get("offset", 0.0)
        t = _times(place, len(whole))
        return {
            stream.time: t,
            **{name: whole[:, i] for i, name in enumerate(stream.fields)},
        }


def _is_scaled(attrs: Mapping[str, Any]) -> bool:
    return attrs.get("conversion", 1.0) != 1.0 or bool(attrs.get("offset", 0.0))


def _of_series(name: str, place: Path) -> Stream:
    about = _shape(place / "data")
    attrs = _attrs(place / "data")
    shape, dtype = tuple(about["shape"]), np.dtype(about["dtype"])
    width = int(np.prod(shape[1:], dtype=np.int64))
    kind = "f64" if _is_scaled(attrs) else dtype_name(dtype) or "f64"
    start = place / "starting_time"
    rate = float(_attrs(start).get("rate", 0)) if start.is_dir() else 0.0
    return Stream(
        name, str(_attrs(place).get("description", "")), str(attrs.get("unit", "")),
        rate or None,
        fields={f"ch{i}": Field(f"ch{i}", dtype=kind) for i in range(width)},
        index={"t": Field("time", unit="s")}, attrs={"id": name, "nwb_name": name},
    )  # fmt: skip


def _times(place: Path, count: int) -> NDArray[np.float64]:
    if (place / "timestamps").is_dir():
        return np.asarray(_array(place / "timestamps"), np.float64)
    start = place / "starting_time"
    if not start.is_dir():
        raise RecordingError(f"{place}: neither timestamps nor starting_time")
    first = float(np.ravel(_array(start))[0])
    times: NDArray[np.float64] = np.arange(count) / float(_attrs(start)["rate"]) + first
    return times


def _intervals(place: Path) -> dict[str, NDArray[Any]]:
    """Return the columns of a table of intervals that are plain numbers."""
    columns: dict[str, NDArray[Any]] = {}
    for name in sorted(entry.name for entry in place.iterdir() if entry.is_dir()):
        if np.dtype(_shape(place / name)["dtype"]).kind in "iufb":
            columns[name] = np.asarray(_array(place / name))
    if "start_time" not in columns:
        raise RecordingError(f"{place}: no column 'start_time': found {[*columns]}")
    return {"t": np.asarray(columns.pop("start_time"), "f8"), **columns}


def _series(folder: Folder, key: str) -> dict[str, Path]:
    """Return the groups of time series and intervals by name."""
    if folder.is_confined:
        raise RecordingError(
            f"{folder.shown(key)}: NWB in Zarr is opened by programs of this machine "
            "only"
        )
    home = Path(folder.shown(f"{key}{SUFFIX}"))
    if not home.is_dir():
        raise folder.not_there(f"{key}{SUFFIX}")
    found: list[Path] = []
    for place, names, files in os.walk(home):
        names[:] = sorted(name for name in names if name != _SPECIFICATIONS)
        if ".zgroup" not in files or ".zattrs" not in files:
            continue
        path = Path(place)
        kind = str(_attrs(path).get("neurodata_type", ""))
        if kind == "TimeIntervals" or (path / "data" / ".zarray").is_file():
            found.append(path)
        if len(found) > FILES.streams:
            raise RecordingError(
                f"{home}: more than {FILES.streams} streams, which is the most"
            )
    names = names_within(
        [path.name for path in found], [path.parent.name for path in found]
    )
    return dict(zip(names, found, strict=True))


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > FILES.text_bytes:
            raise ValueError(f"{path.stat().st_size} bytes")
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RecordingError(f"{path}: damaged: {error}") from error
    if not isinstance(found, dict):
        raise RecordingError(f"{path}: damaged: not a mapping")
    return found


def _attrs(place: Path) -> dict[str, Any]:
    return _json(place / ".zattrs")


def _shape(place: Path) -> dict[str, Any]:
    found = _json(place / ".zarray")
    if not {"shape", "dtype"} <= found.keys():
        raise RecordingError(f"{place}: not an array of Zarr")
    return found


def _array(place: Path) -> NDArray[Any]:
    zarr = need("zarr", "zarr", "NWB in Zarr")
    try:
        return np.asarray(zarr.open_array(str(place), mode="r", zarr_format=2)[...])
    except Exception as error:  # zarr raises several kinds
        raise RecordingError(
            f"{place}: zarr does not read it: {type(error).__name__}: {error}"
        ) from error
