"""Recordings in HDF5: one file ``data.h5`` a collection, as DFDS lays it out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.datamux.description import Stream
from ataraxis.datamux.optional import need
from ataraxis.datamux.sources.arrays import named
from ataraxis.errors import RecordingError

FILE = "data.h5"


class Hdf5:
    """``h5://{a}_{b}``: a dataset of records, or a group of columns, a recording.

    Attributes of the dataset become attributes of its streams. Needs h5py.
    """

    def keys(self, folder: Path) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """List the datasets, and the groups that hold only datasets."""
        found: list[tuple[str, Mapping[str, Any]]] = []

        def look(name: str, item: Any) -> None:
            inside = [*item.values()] if hasattr(item, "values") else []
            is_dataset = hasattr(item, "dtype")
            if is_dataset or (inside and all(hasattr(i, "dtype") for i in inside)):
                attrs = {key: _scalar(value) for key, value in item.attrs.items()}
                found.append((name, attrs))

        with _opened(folder / FILE) as file:
            file.visititems(look)
        return sorted(found, key=lambda item: item[0])

    def columns(
        self, folder: Path, key: str, stream_id: str, stream: Stream
    ) -> Mapping[str, NDArray[Any]]:
        """Read the columns of a recording."""
        path = folder / FILE
        with _opened(path) as file:
            if key not in file:
                raise FileNotFoundError(2, "no such recording", f"{path}/{key}")
            item = file[key]
            try:
                if hasattr(item, "dtype"):
                    return named(item[...], stream, f"{path}/{key}")
                return {name: column[...] for name, column in item.items()}
            except (OSError, AttributeError) as error:
                raise RecordingError(f"{path}/{key}: damaged: {error}") from error


def _opened(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(2, "no such recording", str(path))
    h5py = need("h5py", "tables", "an HDF5 recording")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise RecordingError(f"{path}: not HDF5, or damaged: {error}") from error


def _scalar(value: Any) -> Any:
    """Turn NumPy's scalars of attributes into Python's."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
