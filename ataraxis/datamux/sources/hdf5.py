"""Recordings in HDF5: one file ``data.h5`` per collection, as in DFDS.

An HDF5 file can refer to other files: by external links, external raw data or virtual
datasets. None of them is followed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.config.limits import FILES
from ataraxis.datamux.description import Stream
from ataraxis.datamux.folder import Folder, OpenedFile
from ataraxis.datamux.sources.arrays import named
from ataraxis.datamux.sources.hdf5_trial import try_hdf5
from ataraxis.errors import RecordingError
from ataraxis.log.optional import need

FILE = "data.h5"
_ROWS = 1024
_ATTRIBUTE_BYTES = 2**16
_DEPTH = 16


class Hdf5:
    """``h5://{a}_{b}``: a dataset of records, or a group of columns, per recording.

    Attributes of the dataset become attributes of its streams. Needs h5py.
    """

    def keys(self, folder: Folder) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """List the datasets, and the groups that contain only datasets."""
        found: list[tuple[str, Mapping[str, Any]]] = []
        with opened_hdf5(folder, FILE) as (file, opened):
            for name, item in walk(file, opened):
                if not name:
                    continue
                if hasattr(item, "dtype") or _holds_columns(item):
                    found.append((name, _attributes(item)))
        return sorted(found, key=lambda item: item[0])

    def columns(
        self, folder: Folder, key: str, stream_id: str, stream: Stream
    ) -> Mapping[str, NDArray[Any]]:
        """Read the columns of a recording."""
        with opened_hdf5(folder, FILE) as (file, opened):
            item = found_in(file, key, opened)
            where = f"{opened.shown}/{key}"
            if hasattr(item, "dtype"):
                return named(read_dataset(item, opened), stream, where)
            if not hasattr(item, "items"):
                raise RecordingError(f"{where}: neither a dataset nor a group")
            columns = {}
            for name in item:
                if name in stream.fields or name in stream.index or name == stream.time:
                    column = found_in(item, name, opened)
                    if hasattr(column, "dtype"):
                        columns[name] = read_dataset(column, opened)
            return columns


@contextmanager
def opened_hdf5(folder: Folder, name: str) -> Iterator[tuple[Any, OpenedFile]]:
    """Open an HDF5 file; errors of h5py become `RecordingError`."""
    if not folder.is_there(name):
        raise folder.not_there(name)
    h5py = need("h5py", "tables", "an HDF5 recording")
    with folder.opened(name) as opened:
        try_hdf5(opened)
        try:
            with h5py.File(opened.path, "r") as file:
                yield file, opened
        except (RecordingError, FileNotFoundError):
            raise
        except Exception as error:  # h5py raises OSError, KeyError, RuntimeError, ...
            raise RecordingError(
                f"{opened.shown}: not HDF5, or damaged: {error}"
            ) from error


def found_in(group: Any, path: str, opened: OpenedFile, depth: int = 0) -> Any:
    """Return the object at a path of a group; links to other files are not followed.

    Raises `FileNotFoundError`; or `RecordingError` if a link leads out of the file, or
    in a circle.
    """
    h5py = need("h5py", "tables", "an HDF5 recording")
    where = f"{opened.shown}/{path}"
    at = group.file if path.startswith("/") else group
    for part in path.split("/"):
        if part in ("", "."):
            continue
        name = part.encode("utf-8", "surrogateescape")
        if not isinstance(at, h5py.Group) or not at.id.links.exists(name):
            raise FileNotFoundError(2, "no such recording", where)
        kind = at.id.links.get_info(name).type
        if kind == h5py.h5l.TYPE_HARD:
            at = at[part]
        elif kind == h5py.h5l.TYPE_SOFT and depth < _DEPTH:
            target = at.id.links.get_val(name).decode("utf-8", "surrogateescape")
            at = found_in(at, target, opened, depth + 1)
        else:
            raise RecordingError(f"{where}: {part!r} is a link that is not followed")
    return at


def walk(file: Any, opened: OpenedFile) -> Iterator[tuple[str, Any]]:
    """Yield each group and dataset with its name, once, through hard links.

    Raises `RecordingError` if they are too many, or nested too deeply.
    """
    h5py = need("h5py", "tables", "an HDF5 recording")
    pending: list[tuple[str, Any, int]] = [("", file, 0)]
    seen = {_address(file)}
    while pending:
        name, item, depth = pending.pop()
        yield name, item
        if not isinstance(item, h5py.Group):
            continue
        for part in link_names(item):
            if item.id.links.get_info(part.encode()).type != h5py.h5l.TYPE_HARD:
                continue
            below = item[part]
            address = _address(below)
            if address in seen:
                continue
            seen.add(address)
            if len(seen) > FILES.columns or depth >= FILES.depth:
                raise RecordingError(
                    f"{opened.shown}: more than {FILES.columns} objects, or "
                    f"{FILES.depth} levels of them"
                )
            pending.append((f"{name}/{part}" if name else part, below, depth + 1))


def link_names(group: Any) -> list[str]:
    """Return the names of all links of a group."""
    return [str(name) for name in group]


def _address(item: Any) -> Any:
    h5py = need("h5py", "tables", "an HDF5 recording")
    return h5py.h5o.get_info(item.id).addr


def check_inside(dataset: Any, opened: OpenedFile) -> None:
    """Raise `RecordingError` unless values are in the file, in chunks not too large."""
    h5py = need("h5py", "tables", "an HDF5 recording")
    made = dataset.id.get_create_plist()
    where = f"{opened.shown}{dataset.name}"
    if made.get_layout() == h5py.h5d.VIRTUAL:
        raise RecordingError(
            f"{where}: a virtual dataset: its values are in other files"
        )
    if made.get_external_count():
        raise RecordingError(f"{where}: its values are in another file: not read")
    if made.get_layout() == h5py.h5d.CHUNKED:
        chunk = math.prod(made.get_chunk()) * max(1, dataset.id.get_type().get_size())
        if chunk > FILES.allowed(opened.size):
            raise RecordingError(f"{where}: chunks of {chunk} bytes are too large")


def read_dataset(dataset: Any, opened: OpenedFile, rows: int | None = None) -> Any:
    """Read a dataset, or its first rows; raise `RecordingError` as `check_inside`."""
    check_inside(dataset, opened)
    shape = dataset.shape
    if shape is None:
        raise RecordingError(f"{opened.shown}{dataset.name}: an empty dataset")
    if rows is not None and shape:
        shape = (min(rows, shape[0]), *shape[1:])
    opened.check(
        math.prod(shape) * max(1, dataset.dtype.itemsize), f"dataset {dataset.name!r}"
    )
    if dataset.dtype != object or not shape:
        return dataset[: shape[0]] if rows is not None and shape else dataset[...]
    pieces, nbytes = [], 0
    for at in range(0, shape[0], _ROWS):
        piece = dataset[at : min(at + _ROWS, shape[0])]
        nbytes += sum(getattr(v, "nbytes", 0) or len(v) for v in piece.ravel())
        if nbytes > FILES.allowed(opened.size):
            raise RecordingError(
                f"{opened.shown}{dataset.name}: its values become {nbytes} bytes"
            )
        pieces.append(piece)
    return np.concatenate(pieces) if pieces else dataset[...]


def _holds_columns(group: Any) -> bool:
    """Whether a group contains only datasets, through hard links."""
    h5py = need("h5py", "tables", "an HDF5 recording")
    inside = link_names(group)
    return bool(inside) and all(
        group.id.links.get_info(name.encode()).type == h5py.h5l.TYPE_HARD
        and group.get(name, getclass=True) is h5py.Dataset
        for name in inside[: FILES.columns]
    )


def _attributes(item: Any) -> dict[str, Any]:
    """Return the small attributes as Python values."""
    found = {}
    for name in item.attrs:
        try:
            made = item.attrs.get_id(name)
            nbytes = math.prod(made.shape or ()) * made.dtype.itemsize
            if nbytes <= _ATTRIBUTE_BYTES:
                found[name] = _scalar(item.attrs[name])
        except Exception:
            continue
    return found


def _scalar(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
