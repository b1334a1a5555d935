"""xarray's engine "ataraxis": a log as lazy datasets.

``xr.open_dataset(path, engine="ataraxis")`` and ``xr.open_datatree`` find it by its
entry point (group ``xarray.backends``).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from numpy.typing import DTypeLike
from xarray.backends import BackendEntrypoint
from xarray.core.indexing import LazilyIndexedArray

from ataraxis.log.archive import LogNode, Nodes
from ataraxis.log.export.series import fields_of
from ataraxis.log.npy.archiving import ARCHIVE_SUFFIX
from ataraxis.log.npy.entries import SUFFIX, parse_stem
from ataraxis.log.xarray import arrays
from ataraxis.log.xarray.index import TimeIndex

CHUNK_BYTES = 1 << 24
AT_ONCE = 4096
"""Opening reads the times of at most this many entries; others stay on disk."""
DEVICE_UNITS = "device_time_units"
"""Attribute of labels for the unit of device times."""
_LOOKED_AT = 1000


class AtaraxisBackend(BackendEntrypoint):
    """Journals, npy directories and npz archives as datasets of xarray.

    Notes
    -----
    A source becomes one variable along "time" (one per field of a structured dtype),
    named after its labels or its stream, with the dims, coordinates and attributes of
    its labels. If the rows have a "time" of their own, entries are along "entry".
    Coordinates: ``time``; ``monotonic_ns``, the stamps; ``sequence``; and
    ``device_time`` and ``device_sequence`` if present. Each access reads the selected
    part from disk; `load()` keeps it.
    """

    description = "Recordings and logs of ataraxis, lazy"
    url = "https://ataraxis.readthedocs.io"
    open_dataset_parameters: ClassVar[tuple[str, ...]] = (
        "filename_or_obj", "drop_variables", "source", "group", "name", "entries",
        "dtype", "onset_us", "verify",
    )  # fmt: skip
    supports_groups: ClassVar[bool] = True

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Return whether it is a log, by names alone; never raises."""
        if not isinstance(filename_or_obj, (str, os.PathLike)):
            return False
        try:
            path = Path(filename_or_obj)
            if path.suffix == ".axj" or path.name.endswith(ARCHIVE_SUFFIX):
                return path.is_file()
            return path.is_dir() and _has_log(path)
        except (OSError, ValueError):
            return False

    def open_dataset(  # type: ignore[override]
        self,
        filename_or_obj: str | os.PathLike[str],
        *,
        drop_variables: str | Iterable[str] | None = None,
        source: int | str | None = None,
        group: str | None = None,
        name: str | None = None,
        entries: slice | None = None,
        dtype: DTypeLike | None = None,
        onset_us: int | None = None,
        verify: bool = True,
    ) -> xr.Dataset:
        """Open one source of a log.

        Parameters
        ----------
        filename_or_obj : str or Path
            Directory or file of a log.
        drop_variables : str or iterable of str, optional
            Names of variables to leave out.
        source : int or str, optional
            Name or number of the stream or source; required if there are several.
        group : str, optional
            The same, under xarray's name.
        name : str, optional
            Only this journal of a directory.
        entries : slice, optional
            Only these entries of the source.
        dtype : dtype-like, optional
            Dtype of the bytes of each entry, if the log does not give it.
        onset_us : int, optional
            UTC microseconds from which the stamps of an npy log count.
        verify : bool
            Whether to check checksums.

        Raises
        ------
        ValueError
            There are several sources, or entries differ in kind; the message states
            what to do.
        FileNotFoundError
            The path has no log.
        """
        path = os.path.abspath(filename_or_obj)
        opened = Nodes(path, name)
        try:
            node = opened.find(group if source is None else source)
            options = {
                "entries": entries, "dtype": dtype, "onset_us": onset_us,
                "verify": verify,
            }  # fmt: skip
            return dataset_of(node, path, options, drop_variables)
        except BaseException:
            opened.close()
            raise

    def open_groups_as_dict(  # type: ignore[override]
        self,
        filename_or_obj: str | os.PathLike[str],
        *,
        drop_variables: str | Iterable[str] | None = None,
        sources: Iterable[str] | None = None,
        group: str | None = None,
        name: str | None = None,
        onset_us: int | None = None,
        verify: bool = True,
    ) -> dict[str, xr.Dataset]:
        """Open all sources of a log, or the named ones, by their paths: "/camera"."""
        path = os.path.abspath(filename_or_obj)
        opened = Nodes(path, name)
        try:
            nodes: list[LogNode] = list(opened)
            chosen = [group.strip("/")] if group and group.strip("/") else sources
            if chosen is not None:
                nodes = [opened.find(one) for one in chosen]
            options = {"onset_us": onset_us, "verify": verify}
            found = {"/": xr.Dataset(attrs={"path": path})}
            for node in nodes:
                try:
                    made = dataset_of(node, path, options, drop_variables)
                except ValueError as error:
                    others = [n.name for n in nodes if n is not node]
                    raise ValueError(
                        f"{error}; or open the others: sources={others}"
                    ) from (error)
                found[f"/{node.name}"] = made
        except BaseException:
            opened.close()
            raise
        found["/"].set_close(opened.close)
        return found

    def open_datatree(  # type: ignore[override]
        self,
        filename_or_obj: str | os.PathLike[str],
        *,
        drop_variables: str | Iterable[str] | None = None,
        **options: Any,
    ) -> xr.DataTree:
        """Open all sources of a log as nodes; options of `open_groups_as_dict`."""
        groups = self.open_groups_as_dict(
            filename_or_obj, drop_variables=drop_variables, **options
        )
        tree = xr.DataTree.from_dict(groups)
        tree.set_close(groups["/"].close)
        return tree


def _has_log(path: Path) -> bool:
    """Check the first names of a directory."""
    with os.scandir(path) as listing:
        for _, found in zip(range(_LOOKED_AT), listing, strict=False):
            name = found.name
            if name.endswith((".axj", ARCHIVE_SUFFIX)):
                return True
            if name.endswith(SUFFIX) and parse_stem(name[: -len(SUFFIX)]):
                return True
    return False


def dataset_of(
    node: LogNode,
    path: str,
    options: dict[str, Any],
    drop: str | Iterable[str] | None = None,
) -> xr.Dataset:
    """Return the lazy dataset of an open node.

    `path` and the `options` of `Series` open it again in another process; `drop` names
    variables to leave out.
    """
    series = node.series(**options)
    how = path, node.journal, node.info.number, options
    opened = arrays.Opened(series, node.home, *how)
    dropped = {drop} if isinstance(drop, str) else set(drop or ())
    labels = series.labels.coords if series.labels is not None else {}
    is_own = "time" in series.dims or "time" in labels
    dim, key = ("entry", "entry_time") if is_own else ("time", "time")
    coords: dict[str, xr.Variable] = {
        name: xr.Variable(coord.dims, coord.values, coord.attrs)
        for name, coord in labels.items()
    }

    for name, (dtype, read) in series.columns().items():
        attrs = series.times.attrs if name == "time" else None
        if name == "device_time":
            unit = "us" if series.times.unit == "us" else series.attrs.get(DEVICE_UNITS)
            attrs = None if unit is None else {"units": unit}
        column = key if name == "time" else name
        column = column if column not in {*coords, *series.dims} else f"entry_{column}"
        lazy = LazilyIndexedArray(arrays.ColumnArray(opened, read, dtype))
        coords[column] = xr.Variable((dim,), lazy, attrs)
    coords = {name: var for name, var in coords.items() if name not in dropped}
    variables = {
        name: var
        for name, var in _variables(opened, dim, {*coords, *series.dims, dim}).items()
        if name not in dropped
    }
    dataset = xr.Dataset(variables, attrs=_attrs(node))
    index = {}
    if key == dim and dim in coords and len(series) > AT_ONCE:
        index = {dim: TimeIndex(opened, range(len(series)), dim)}
    own = {name: var for name, var in coords.items() if var.dims == (name,)}
    lazy_index = xr.Coordinates(
        {n: v for n, v in coords.items() if n in index or n not in own}, index
    )
    dataset = dataset.assign_coords(lazy_index)
    dataset = dataset.assign_coords({n: v for n, v in own.items() if n not in index})
    dataset.set_close(opened.close)
    return dataset


def _variables(
    opened: arrays.Opened, dim: str, taken: set[str]
) -> dict[str, xr.Variable]:
    """Make the data variables: one per field."""
    series = opened.series
    found = {}
    for field in fields_of(series.dtype):
        name = ".".join(field) or series.name
        if name in taken:
            name = f"{series.name}_{name}" if field else "data"
        data = arrays.RowArray(opened, field)
        more = len(data.shape) - 1 - len(series.dims)
        dims = (dim, *series.dims, *(f"{name}_{i}" for i in range(more)))
        row_bytes = max(int(np.prod(data.shape[1:])) * data.dtype.itemsize, 1)
        chunks = dict(zip(dims, data.shape, strict=True))
        chunks[dim] = max(1, min(len(series), CHUNK_BYTES // row_bytes))
        variable = xr.Variable(dims, LazilyIndexedArray(data), dict(series.attrs))
        variable.encoding = {"preferred_chunks": chunks}
        found[name] = variable
    return found


def _attrs(node: LogNode) -> dict[str, Any]:
    """Return the attributes of a dataset: its source, host, and what is missing."""
    info = node.info
    attrs: dict[str, Any] = {"source": info.number}
    if info.name is not None:
        attrs["stream"] = info.name
    attrs["missing"], attrs["late"] = node.log.account(info.number)
    if node.log.unit == "ns":
        hosts = sorted({anchor.host for anchor in node.log.anchors if anchor.host})
        attrs["host"] = ", ".join(hosts)
    return attrs
