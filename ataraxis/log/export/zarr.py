"""A log as Zarr: one group per source, as `xarray.open_zarr` and others read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.log.export.series import ExportSeries
from ataraxis.log.optional import need
from ataraxis.log.xarray.backend import dataset_of

CHUNK_BYTES = 1 << 22
_TIMES = {
    "M": {"units": "nanoseconds since 1970-01-01", "calendar": "proleptic_gregorian"},
    "m": {"units": "nanoseconds", "dtype": "timedelta64[ns]"},
}


class ZarrExporter:
    """Groups by the names of the sources, with the contents of `open_dataset`."""

    subject = ""

    def check(self, items: list[ExportSeries]) -> None:
        """Raise for dtypes that Zarr lacks."""
        need("zarr", "zarr", "a Zarr store")
        for item in items:
            for field in item.fields:
                dtype, _ = item.kind(field)
                if dtype.kind == "V":
                    raise ValueError(
                        f"{item.series.title} is {dtype}, which Zarr cannot hold: "
                        "export it to npz"
                    )

    def write(self, path: Path, items: list[ExportSeries]) -> None:
        """Write a new directory."""
        zarr = need("zarr", "zarr", "a Zarr store")
        root = zarr.open_group(store=str(path), mode="w-", zarr_format=3)
        for item in items:
            dataset = dataset_of(item.node, str(path), item.options)
            group = root.create_group(item.name)
            group.attrs.update(_plain(dataset.attrs))
            names = [*dataset.coords, *dataset.data_vars]
            group.attrs["coordinates"] = " ".join(
                str(name) for name in dataset.coords if name not in dataset.dims
            )
            for name in names:
                _write(group, str(name), dataset.variables[name], item)


def _write(group: Any, name: str, variable: Any, item: ExportSeries) -> None:
    """Write a variable in pieces of whole chunks."""
    is_entry = item.is_samples and variable.dims[:1] == ("entry",)
    is_long = variable.dims[:1] == (item.dim,) or is_entry
    count = item.entry_count if is_entry else len(item)
    shape = (count, *variable.shape[1:]) if is_long else variable.shape
    dtype, attrs = _kind(variable)
    row_bytes = max(int(np.prod(shape[1:])) * np.dtype(variable.dtype).itemsize, 1)
    each = max(1, min(max(shape[:1], default=1), CHUNK_BYTES // row_bytes))
    chunks = (each, *(max(n, 1) for n in shape[1:])) if shape else ()
    array = group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=chunks,
        dimension_names=list(variable.dims),
        attributes={**_plain(variable.attrs), **attrs},
    )
    if not is_long:
        array[...] = _encoded(np.asarray(variable.values), dtype)
        return
    is_data = not attrs and variable.ndim == 1 + len(item.row_shape)
    is_data &= name not in (*item.series.columns(), "position", "first_sample")
    for start in range(0, count, each):
        stop = min(start + each, count)
        rows = item.entries_at(start, stop) if is_entry else item.at(start, stop)
        piece = _encoded(np.asarray(variable[rows].values), dtype)
        array[start : start + len(piece)] = piece
        if is_data:
            item.report(len(piece))


def _kind(variable: Any) -> tuple[Any, dict[str, str]]:
    """Return the dtype in the store, and attributes for decoding."""
    kind = variable.dtype.kind
    if kind in _TIMES:
        return np.dtype("i8"), _TIMES[kind]
    if kind in "OUS":
        return str, {}
    return variable.dtype.newbyteorder("="), {}


def _encoded(values: NDArray[Any], dtype: Any) -> NDArray[Any]:
    if dtype is str:
        return values.astype("U") if values.size else values.astype("U1")
    if values.dtype.kind in "mM":
        unit = "M8[ns]" if values.dtype.kind == "M" else "m8[ns]"
        return values.astype(unit).view(np.int64)
    return values.astype(dtype, copy=False)


def _plain(attrs: Any) -> dict[str, Any]:
    """Return attributes that JSON can hold."""
    made: dict[str, Any] = json.loads(json.dumps(dict(attrs), default=str))
    return made
