"""Recordings in NumPy's files: npy and npz."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.datamux.description import Stream
from ataraxis.datamux.formats import files
from ataraxis.errors import RecordingError


class Npy:
    """``npy://{a}``: records whose names are the columns, or (samples, fields).

    Mapped, not read. A 2-d array holds the fields in their declared order, or first
    the time and then the fields; a 1-d array of numbers is the only field.
    """

    def keys(self, folder: Path) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """List ``*.npy``, also in sub-folders."""
        return files(folder, ".npy")

    def columns(
        self, folder: Path, key: str, stream_id: str, stream: Stream
    ) -> Mapping[str, NDArray[Any]]:
        """Map the file and name its columns."""
        path = folder / f"{key}.npy"
        return named(_loaded(path, path, "r"), stream, str(path))


class Npz:
    """``npz://{a}``: one array a column, or one named after the stream."""

    def keys(self, folder: Path) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """List ``*.npz``, also in sub-folders."""
        return files(folder, ".npz")

    def columns(
        self, folder: Path, key: str, stream_id: str, stream: Stream
    ) -> Mapping[str, NDArray[Any]]:
        """Read the arrays that the stream declares."""
        path = folder / f"{key}.npz"
        with path.open("rb") as file, _loaded(file, path, None) as archive:
            try:
                if stream_id in archive.files and stream_id not in stream.fields:
                    return named(archive[stream_id], stream, f"{path}[{stream_id}]")
                wanted = {*stream.fields, *stream.index, stream.time}
                return {k: archive[k] for k in archive.files if k in wanted}
            except Exception as error:  # zipfile, zlib and NumPy each raise theirs
                raise RecordingError(f"{path}: damaged: {error}") from error


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


def _loaded(file: Any, path: Path, mode: Any) -> Any:
    try:
        return np.load(file, mmap_mode=mode, allow_pickle=False)
    except FileNotFoundError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy each raise theirs
        raise RecordingError(f"{path}: not NumPy's, or damaged: {error}") from error
