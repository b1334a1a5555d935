"""Block: entries of a log as one array, with their times beside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.labels import Labels

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True, eq=False)
class Block:
    """Entries of one dtype and shape, read together; each row of `data` is one."""

    data: NDArray[Any]
    """Shape (n, *shape)."""
    time: NDArray[np.int64]
    """Shape (n,), in `unit`."""
    sequence: NDArray[np.uint64]
    """Shape (n,): numbers within their source."""
    source: NDArray[np.uint32]
    """Shape (n,)."""
    device: NDArray[np.int64] | None
    """Shape (n, 2): device time and counter; None if not all have them."""
    labels: Labels | None
    """Of one row."""
    unit: str
    """Of `time`."""

    def __len__(self) -> int:
        return len(self.data)

    def to_xarray(self, name: str | None = None) -> xr.DataArray:
        """Return the data with their labels, along a dimension "time".

        Parameters
        ----------
        name : str, optional
            Name of the result; that of the labels, if not given.

        Returns
        -------
        xarray.DataArray
            Dims ("time", *dims), or "entry" if the rows have a "time" of their own; a
            view of `data`. Coordinates time and sequence, and device_time and
            device_sequence where there are.
        """
        import xarray as xr

        labels = self.labels or Labels(self.data.dtype, self.data.shape[1:])
        row = labels.to_xarray(np.zeros(labels.shape, labels.dtype), name)
        dim = "time" if "time" not in row.dims else "entry"
        key = "time" if "time" not in row.coords else "entry_time"
        coords: dict[Any, Any] = dict(row.coords.items())
        coords[key] = (dim, self.time, {"units": self.unit})
        coords["sequence"] = (dim, self.sequence)
        if self.device is not None:
            coords["device_time"] = (dim, self.device[:, 0])
            coords["device_sequence"] = (dim, self.device[:, 1])
        return xr.DataArray(self.data, coords, (dim, *row.dims), row.name, row.attrs)
