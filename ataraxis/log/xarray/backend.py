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
from ataraxis.log.clock_table import is_table
from ataraxis.log.export.series import fields_of
from ataraxis.log.host_times import read_tables
from ataraxis.log.npy.archiving import ARCHIVE_SUFFIX
from ataraxis.log.npy.entries import SUFFIX, parse_stem
from ataraxis.log.row_times import SampleTimes, checked_kind
from ataraxis.log.series import TIME_AXIS
from ataraxis.log.xarray import arrays
from ataraxis.log.xarray.index import TimeIndex

CHUNK_BYTES = 1 << 24
AT_ONCE = 4096
"""Opening reads the times of at most this many rows; others stay on disk."""
DEVICE_UNITS = "device_time_units"
"""Attribute of labels for the unit of device times."""
_LOOKED_AT = 1000


class AtaraxisBackend(BackendEntrypoint):
    """Journals, npy directories and npz archives as datasets of xarray.

    Notes
    -----
    A source becomes one variable along "time" (one per field of a structured dtype),
    named after its labels or its stream, with the dims, coordinates and attributes of
    its labels. Coordinates: ``time``; ``monotonic_ns``, the stamps; ``sequence``; and
    ``device_time`` and ``device_sequence`` if present.

    The samples of blocks (a first dimension "time" of each entry) are along one "time",
    with their ``position``, which counts lost ones; what belongs to an entry is along
    "entry", with ``first_sample``. Each access reads the selected part from disk;
    `load()` keeps it.
    """

    description = "Recordings and logs of ataraxis, lazy"
    url = "https://ataraxis.readthedocs.io"
    open_dataset_parameters: ClassVar[tuple[str, ...]] = (
        "filename_or_obj", "drop_variables", "source", "group", "name", "entries",
        "dtype", "onset_us", "verify", "time", "by_entry", "clock",
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
        time: str | None = None,
        by_entry: bool = False,
        clock: str | None = None,
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
        time : {'fitted', 'host', 'device'}, optional
            Clock of "time": the host's by a fit of the device's clock, or of the rate
            of samples; the host's stamps; or the device's own. Default: 'fitted' of
            blocks and where a fit is kept beside the log, else 'host'. Times of samples
            that go back have no index, and are ``time_host`` or ``time_device``.
        by_entry : bool
            Whether blocks are along "entry", one behind the other.
        clock : str, optional
            Name of a host: adds ``time_HOST``, the times on its clock, by the recorded
            offsets between the hosts; its attribute ``bound_ns`` is their largest
            error. Of the host that recorded they are wall times, as those of its own
            streams; of others, since that host started.

        Raises
        ------
        ValueError
            There are several sources, entries differ in kind, or the source lacks that
            clock or time; the message states what to do.
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
            return dataset_of(
                node, path, options, drop_variables, time=time, by_entry=by_entry,
                clock=clock,
            )  # fmt: skip
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
        time: str | None = None,
        by_entry: bool = False,
        clock: str | None = None,
    ) -> dict[str, xr.Dataset]:
        """Open all sources of a log, or the named ones, by their paths: "/camera".

        A source that lacks the clock `time` is opened with that of the host. With
        `clock`, all but the clocks of other hosts get the times of that host's clock.
        """
        checked_kind(time)
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
                    made = _dataset_with(
                        node, path, options, drop_variables, time, by_entry,
                        None if is_table(node.name, node.info.labels) else clock,
                    )  # fmt: skip
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


def _dataset_with(
    node: LogNode,
    path: str,
    options: dict[str, Any],
    drop: str | Iterable[str] | None,
    time: str | None,
    by_entry: bool,
    clock: str | None,
) -> xr.Dataset:
    """Return the dataset of a node, with the host's times if it lacks others."""
    more: dict[str, Any] = {"by_entry": by_entry, "clock": clock}
    try:
        return dataset_of(node, path, options, drop, time=time, **more)
    except ValueError:
        if time in (None, "host"):
            raise
    return dataset_of(node, path, options, drop, time="host", **more)


def dataset_of(
    node: LogNode,
    path: str,
    options: dict[str, Any],
    drop: str | Iterable[str] | None = None,
    *,
    time: str | None = None,
    by_entry: bool = False,
    clock: str | None = None,
) -> xr.Dataset:
    """Return the lazy dataset of an open node.

    `path` and the `options` of `Series` open it again in another process; `drop` names
    variables to leave out; `time`, `by_entry` and `clock` are as in `open_dataset`.
    """
    series = node.series(**options)
    how = path, node.journal, node.info.number, options, time, by_entry
    opened = arrays.Opened(series, node.home, *how)
    times = opened.times
    dropped = {drop} if isinstance(drop, str) else set(drop or ())
    labels = series.labels.coords if series.labels is not None else {}
    coords: dict[str, xr.Variable] = {
        name: xr.Variable(coord.dims, coord.values, coord.attrs)
        for name, coord in labels.items()
    }
    samples = times if isinstance(times, SampleTimes) else None
    is_samples = samples is not None
    is_own = not is_samples and ("time" in series.dims or "time" in labels)
    dim = "entry" if is_own else "time"
    row = series.dims[1:] if is_samples else series.dims
    entry = "entry" if is_samples else dim
    if samples is not None:
        # Before the others, so that these are named beside them.
        coords |= _sample_coords(opened, samples)
    for name, (dtype, read) in series.columns().items():
        if name == "time" and not is_own and not is_samples:
            lazy = LazilyIndexedArray(arrays.TimeArray(opened))
            coords["time"] = xr.Variable((dim,), lazy, times.attrs)
            continue
        attrs = dict(series.times.attrs) if name == "time" else None
        if attrs is not None and is_samples:
            # For cf_xarray, the axis T is that of the samples.
            attrs = {k: v for k, v in attrs.items() if k not in TIME_AXIS}
        if name == "device_time":
            unit = "us" if series.times.unit == "us" else series.attrs.get(DEVICE_UNITS)
            attrs = None if unit is None else {"units": unit}
        column = f"entry_{name}" if name == "time" else name
        column = column if column not in {*coords, *row} else f"entry_{column}"
        lazy = LazilyIndexedArray(arrays.ColumnArray(opened, read, dtype))
        coords[column] = xr.Variable((entry,), lazy, attrs)
    if clock is not None:
        coords[f"time_{clock}"] = _on_clock(opened, path, clock, dim)
    coords = {name: var for name, var in coords.items() if name not in dropped}
    variables = {
        name: var
        for name, var in _variables(opened, (dim, *row), {*coords, *row, dim}).items()
        if name not in dropped
    }
    dataset = xr.Dataset(variables, attrs=_attrs(node))
    index = {}
    if "time" in coords and not is_own:
        # Whether stamps go back is looked up only where they were asked for.
        if time in (None, "fitted") or times.is_sorted:
            index["time"] = made = TimeIndex(opened, range(len(times)), "time")
            if len(times) <= AT_ONCE:
                made.read()
                coords |= made.create_variables(coords)
        else:
            # Under the name of its dim xarray would index it.
            coords[f"time_{time}"] = coords.pop("time")
    own = {
        name: var
        for name, var in coords.items()
        if var.dims == (name,) and name not in ("time", "entry")
    }
    lazy_index = xr.Coordinates(
        {n: v for n, v in coords.items() if n in index or n not in own}, index
    )
    dataset = dataset.assign_coords(lazy_index)
    dataset = dataset.assign_coords({n: v for n, v in own.items() if n not in index})
    dataset.set_close(opened.close)
    return dataset


def _sample_coords(opened: arrays.Opened, times: SampleTimes) -> dict[str, xr.Variable]:
    """Make the coordinates of samples, and which of them an entry begins with."""
    first = times.blocks.first_samples(np.arange(len(opened.series)))
    time = LazilyIndexedArray(arrays.TimeArray(opened))
    position = LazilyIndexedArray(arrays.TimeArray(opened, is_position=True))
    where = {"long_name": "number of the sample at the device, lost ones counted"}
    return {
        "time": xr.Variable(("time",), time, times.attrs),
        "position": xr.Variable(("time",), position, where),
        "first_sample": xr.Variable(("entry",), first),
    }


def _on_clock(opened: arrays.Opened, path: str, clock: str, dim: str) -> xr.Variable:
    """Make the times of rows on the clock of a host."""
    times = arrays.ClockArray(opened, read_tables(path), clock)
    return xr.Variable((dim,), LazilyIndexedArray(times), times.attrs)


def _variables(
    opened: arrays.Opened, of_row: tuple[str, ...], taken: set[str]
) -> dict[str, xr.Variable]:
    """Make the data variables, along `of_row` each: one per field."""
    series = opened.series
    found = {}
    for field in fields_of(series.dtype):
        name = ".".join(field) or series.name
        if name in taken:
            name = f"{series.name}_{name}" if field else "data"
        data = arrays.RowArray(opened, field)
        more = len(data.shape) - len(of_row)
        dims = (*of_row, *(f"{name}_{i}" for i in range(more)))
        row_bytes = max(int(np.prod(data.shape[1:])) * data.dtype.itemsize, 1)
        chunks = dict(zip(dims, data.shape, strict=True))
        chunks[dims[0]] = max(1, min(data.shape[0], CHUNK_BYTES // row_bytes))
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
