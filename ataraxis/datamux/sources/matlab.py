"""MATLAB files: up to version 7 through ``scipy``, version 7.3 through ``h5py``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from ataraxis.config.limits import FILES
from ataraxis.datamux.folder import Folder, OpenedFile
from ataraxis.datamux.sources.hdf5 import opened_hdf5, read_dataset, walk
from ataraxis.datamux.sources.members import ArrayFile
from ataraxis.errors import RecordingError
from ataraxis.log.optional import need

_HDF5 = b"\x89HDF\r\n\x1a\n"
_HEADER = 512  # MATLAB's own, before the HDF5


class Matlab(ArrayFile):
    """``mat://{session}``: numeric arrays and text; of structs ``struct/field``.

    Vectors are samples, whether they are rows or columns; matrices have samples in
    rows. See `ataraxis.datamux.sources.members` for what makes a stream.
    """

    suffix = ".mat"

    @contextmanager
    def members(
        self, folder: Folder, key: str
    ) -> Iterator[tuple[Mapping[str, Any], str]]:
        """Read the arrays of a file."""
        with folder.opened(f"{key}.mat") as opened:
            start = opened.file.read(_HEADER + len(_HDF5))
            opened.file.seek(0)
            is_hdf5 = _HDF5 in (start[: len(_HDF5)], start[_HEADER:])
            if not is_hdf5:
                yield _version_5(opened), opened.shown
                return
        with opened_hdf5(folder, f"{key}.mat") as (file, opened):
            yield _version_7(file, opened), opened.shown


def _version_5(opened: OpenedFile) -> dict[str, Any]:
    io = need("scipy.io", "mat", "a MATLAB file")
    try:
        listed = io.whosmat(opened.file)
        opened.file.seek(0)
        nbytes = sum(int(np.prod(shape, dtype=object)) * 8 for _, shape, _ in listed)
        opened.check(nbytes, "the file")
        found = io.loadmat(opened.file, struct_as_record=True, squeeze_me=False)
    except RecordingError:
        raise
    except Exception as error:  # scipy raises several kinds
        raise RecordingError(
            f"{opened.shown}: not a MATLAB file, or damaged: {error}"
        ) from error
    members: dict[str, Any] = {}
    for name, value in found.items():
        if not name.startswith("__"):
            _add(members, name, value, 0)
    return members


def _add(members: dict[str, Any], path: str, value: Any, depth: int) -> None:
    """Add an array, or the fields of a struct; cells and objects are left out."""
    if not isinstance(value, np.ndarray) or depth > FILES.depth:
        return
    if value.dtype.names is not None:
        if value.size == 1:
            for name in value.dtype.names:
                _add(members, f"{path}/{name}", value[name].ravel()[0], depth + 1)
        return
    if value.dtype.kind in "fiub":
        members[path] = _samples(value)


def _version_7(file: Any, opened: OpenedFile) -> dict[str, Any]:
    members = {}
    for name, item in walk(file, opened):
        if not hasattr(item, "dtype") or name.startswith("#"):
            continue
        if item.dtype.kind not in "fiub" or item.attrs.get("MATLAB_empty", 0):
            continue
        kind = item.attrs.get("MATLAB_class", b"")
        if kind in (b"char", b"cell", b"function_handle", b"string"):
            continue
        value = read_dataset(item, opened).T  # MATLAB's order of dimensions
        members[name] = _samples(value.astype("?") if kind == b"logical" else value)
    return members


def _samples(value: Any) -> Any:
    """Return a row or column as a vector; one number as a scalar."""
    if value.size == 1:
        return value.reshape(())
    return value.ravel() if value.ndim == 2 and 1 in value.shape else value
