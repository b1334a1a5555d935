"""netCDF files and Zarr stores, through ``xarray``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.datamux.folder import Folder
from ataraxis.datamux.sources.members import ArrayFile
from ataraxis.errors import RecordingError


class Gridded(ArrayFile):
    """``netcdf://{session}`` (``.nc``) and ``zarr://{session}``, a folder ``.zarr``.

    The variables over each first dimension are one stream.

    Its times are the coordinate of that dimension, if it has one. Values are decoded as
    CF says: scaled, with NaN where one is missing.
    """

    suffix = ".nc"

    def keys(self, folder: Folder) -> list[tuple[str, Mapping[str, Any]]]:
        """List the files or stores, also in sub-folders."""
        if self.suffix != ".zarr":
            return super().keys(folder)
        stores = {
            inside.removesuffix(self.suffix)
            for inside, _ in folder.walk()
            if inside.endswith(self.suffix)
        }
        return [(key, {}) for key in sorted(stores)]

    @contextmanager
    def members(
        self, folder: Folder, key: str
    ) -> Iterator[tuple[Mapping[str, Any], str]]:
        """Open a file; arrays are read when they are asked for."""
        import xarray as xr

        path = _path(folder, f"{key}{self.suffix}")
        options: dict[str, Any] = {}
        if self.suffix == ".zarr":
            options = {"engine": "zarr", "consolidated": False, "chunks": None}
        try:
            dataset = xr.open_dataset(path, **options)
        except ModuleNotFoundError:
            raise
        except Exception as error:  # each engine raises its own kinds
            raise RecordingError(
                f"{path}: xarray does not open it: {type(error).__name__}: {error}"
            ) from error
        with dataset:
            yield _by_dimension(dataset), str(path)

    def read(self, member: Any) -> NDArray[Any]:
        """Read an array."""
        return np.asarray(member.values)

    def unit_of(self, member: Any) -> str:
        """Return the attribute ``units`` of a variable."""
        return str(member.attrs.get("units", ""))


def _path(folder: Folder, name: str) -> Path:
    if folder.is_confined:
        raise RecordingError(
            f"{folder.shown(name)}: recordings read by xarray are opened by "
            "programs of this machine only"
        )
    path = Path(folder.shown(name))
    if not path.exists():
        raise folder.not_there(name)
    return path


def _by_dimension(dataset: Any) -> dict[str, Any]:
    """Return variables by ``dimension/name``, with their coordinate as ``t``.

    Of a dataset with one first dimension, by their names alone.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, variable in dataset.data_vars.items():
        if variable.ndim:
            found.setdefault(str(variable.dims[0]), {})[str(name)] = variable
    members: dict[str, Any] = {}
    for dim, variables in found.items():
        path = f"{dim}/" if len(found) > 1 else ""
        if dim in dataset.coords and dataset[dim].dtype.kind in "fiuM":
            members[f"{path}t"] = dataset[dim]
        members |= {path + name: variable for name, variable in variables.items()}
    return members
