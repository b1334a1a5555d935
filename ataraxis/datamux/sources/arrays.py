"""Recordings in NumPy files: npy and npz."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.config.limits import FILES
from ataraxis.datamux.description import Stream
from ataraxis.datamux.folder import Folder, OpenedFile, SuffixFormat
from ataraxis.errors import RecordingError


class Npy(SuffixFormat):
    """``npy://{a}``: records whose names are the columns, or (samples, fields).

    The file is mapped. A 2-d array holds the fields in their declared order, or first
    the time and then the fields; a 1-d array of numbers is the only field.
    """

    suffix = ".npy"

    def columns(
        self, folder: Folder, key: str, stream_id: str, stream: Stream
    ) -> Mapping[str, NDArray[Any]]:
        """Map the file and name the columns."""
        with folder.opened(f"{key}.npy") as opened:
            return named(_mapped(opened), stream, opened.shown)


class Npz(SuffixFormat):
    """``npz://{a}``: one array per column, or one named after the stream."""

    suffix = ".npz"

    def columns(
        self, folder: Folder, key: str, stream_id: str, stream: Stream
    ) -> Mapping[str, NDArray[Any]]:
        """Read the arrays that the stream declares."""
        with folder.opened(f"{key}.npz") as opened:
            members = npz_members(opened)
            if stream_id in members and stream_id not in stream.fields:
                found = npz_arrays(opened, [stream_id])[stream_id]
                return named(found, stream, f"{opened.shown}[{stream_id}]")
            wanted = {*stream.fields, *stream.index, stream.time}
            return npz_arrays(opened, [k for k in members if k in wanted])


def named(
    array: NDArray[Any], stream: Stream, where: str
) -> Mapping[str, NDArray[Any]]:
    """Name the columns of an array as the stream declares them; views."""
    fields = [*stream.fields]
    if array.dtype.names is not None:
        return {name: array[name] for name in array.dtype.names}
    if len(fields) == 1 and array.ndim == 1 + len(stream.fields[fields[0]].shape):
        return {fields[0]: array}
    if array.ndim == 2 and array.shape[1] == len(fields):
        return {name: array[:, i] for i, name in enumerate(fields)}
    if array.ndim == 2 and array.shape[1] == len(fields) + 1:
        return {name: array[:, i] for i, name in enumerate([stream.time, *fields])}
    raise RecordingError(
        f"{where}: shape {array.shape}: expected records, or (samples, {len(fields)}) "
        f"for the fields {fields}, or one column more, time first"
    )


def _mapped(opened: OpenedFile) -> NDArray[Any]:
    try:
        found = np.load(opened.path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy raises several kinds
        raise RecordingError(
            f"{opened.shown}: not a NumPy file, or damaged: {error}"
        ) from error
    if not isinstance(found, np.ndarray):
        found.close()
        raise RecordingError(
            f"{opened.shown}: an archive of arrays: expected one array"
        )
    return found


# ---- npz: a zip of npy files, whose sizes are checked before they are unpacked

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what NumPy writes


def npz_members(opened: OpenedFile) -> dict[str, zipfile.ZipInfo]:
    """Return the members of an npz file by the names of their arrays.

    Raises `RecordingError` if the file is damaged, or has too many.
    """
    try:
        with zipfile.ZipFile(opened.file) as archive:
            found = archive.infolist()
    except Exception as error:  # zipfile raises several kinds
        raise RecordingError(
            f"{opened.shown}: not a NumPy file, or damaged: {error}"
        ) from error
    if len(found) > FILES.columns:
        raise RecordingError(
            f"{opened.shown}: {len(found)} arrays, at most {FILES.columns} are read"
        )
    return {info.filename.removesuffix(".npy"): info for info in found}


def npz_arrays(opened: OpenedFile, names: list[str]) -> dict[str, NDArray[Any]]:
    """Read arrays of an npz file.

    Raises `RecordingError` if the file is damaged, or too small for an array.
    """
    members = npz_members(opened)
    opened.check(sum(members[name].file_size for name in names), "the archive")
    found = {}
    with zipfile.ZipFile(opened.file) as archive:
        for name in names:
            try:
                found[name] = _member(archive, members[name])
            except Exception as error:  # zipfile, zlib and NumPy raise several kinds
                raise RecordingError(
                    f"{opened.shown}: damaged: {name!r}: {error}"
                ) from error
    return found


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    """Read one array; check that its size is the declared one."""
    if info.compress_type not in _METHODS:
        raise ValueError(f"NumPy does not write compression {info.compress_type}")
    with archive.open(info) as opened:
        file: Any = opened
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read is None:
            raise ValueError(f"unknown version {version} of npy")
        shape, is_fortran, dtype = read(file)
        if dtype.hasobject:
            raise ValueError("it holds Python objects, which are not read")
        declared = math.prod(shape) * dtype.itemsize
        if declared > info.file_size:
            raise ValueError(
                f"its header declares {declared} bytes, the archive {info.file_size}"
            )
        data = bytearray(declared)
        found = file.readinto(data) if declared else 0
        while found < declared and (more := file.readinto(memoryview(data)[found:])):
            found += more
        if found < declared or file.read(1):
            raise ValueError(f"its header declares {declared} bytes, found {found}")
    if not declared:
        return np.zeros(shape, dtype)
    return np.frombuffer(data, dtype).reshape(shape, order="F" if is_fortran else "C")
