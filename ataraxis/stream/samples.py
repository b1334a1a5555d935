"""Samples of a stream with their times, cut from its frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.labels import (
    Labels,
    is_blocks,
    sample_rate,
    sample_times,
    samples_per_frame,
    stamp_of,
)

if TYPE_CHECKING:
    import xarray as xr

# ---- how the frames of a stream consist of samples


@dataclass(frozen=True)
class SampleLayout:
    """How the frames of a stream consist of samples, by its labels."""

    are_blocks: bool
    """Whether a frame is a block of samples; else it is one."""
    whole: int
    """Samples of a whole frame."""
    shape: tuple[int, ...]
    """Shape of a sample."""
    rate: float | None
    """Samples per second."""
    stamp: str
    """Of what the time of a frame is."""

    @classmethod
    def of(cls, labels: Labels) -> SampleLayout:
        """Return the layout that labels state."""
        are_blocks = is_blocks(labels)
        return cls(
            are_blocks,
            samples_per_frame(labels),
            labels.shape[1:] if are_blocks else labels.shape,
            sample_rate(labels),
            stamp_of(labels),
        )

    @property
    def has_times(self) -> bool:
        """Whether each sample has a time."""
        return self.whole <= 1 or self.rate is not None

    def times(
        self, frames: NDArray[np.int64], first: int, count: int
    ) -> NDArray[np.int64]:
        """Return the times of `count` samples, from sample `first` of frame 0 on.

        A row of `frames` is the time, sequence and number of samples of a frame.
        """
        found = sample_times(frames[:, 0], frames[:, 2], self.rate, self.stamp)
        return found[first : first + count]


# ---- samples that were read


@dataclass(frozen=True, eq=False)
class SampleBlock:
    """Samples of a stream that follow each other without a loss, with their times.

    Returned by `Consumer.read_block`.

    Examples
    --------
    >>> import numpy as np
    >>> from ataraxis import Consumer, Producer
    >>> attrs = {"sample_rate_hz": 1000, "stamp_of": "sample"}
    >>> dims = ("time", "channel")
    >>> daq = Producer("doc_block", shape=(4, 2), dtype="i2", dims=dims, attrs=attrs)
    >>> reader = Consumer("doc_block")
    >>> daq.send(np.arange(8, dtype="i2").reshape(4, 2), time_ns=5_000_000)
    True
    >>> block = reader.read_block(3)
    >>> block.data.shape, block.time_ns, block.lost
    ((3, 2), array([5000000, 6000000, 7000000]), 0)
    >>> reader.close(); daq.unlink()
    """

    data: NDArray[Any]
    """The samples, shape (n, ...); a copy."""
    time_ns: NDArray[np.int64]
    """Monotonic time of each sample, ns, shape (n,)."""
    sequence: int | None
    """Sequence of the frame that the first sample was in; None without samples."""
    lost: int
    """Samples lost since the last block; a lost frame counts as a whole one."""
    labels: Labels = field(repr=False)
    """Labels of the stream's frames."""
    name: str
    """Name of the stream."""

    def __len__(self) -> int:
        return len(self.data)

    def to_xarray(self) -> xr.DataArray:
        """Return the samples with the stream's labels, without a copy.

        Returns
        -------
        xarray.DataArray
            Dims ``("time", ...)``; coordinate "time", monotonic ns, int64; the labels'
            coordinates of other dims, and their attributes.
        """
        return labelled_samples(self.data, self.time_ns, self.labels, self.name)


_TIME_ATTRS = {
    "units": "ns", "long_name": "monotonic time", "standard_name": "time", "axis": "T",
}  # fmt: skip


def labelled_samples(
    data: NDArray[Any], time_ns: NDArray[np.int64], labels: Labels, name: str | None
) -> xr.DataArray:
    """Return samples along "time" with the labels of their stream's frames, as views.

    The dim is "frame_time" if "time" is another dim of a sample.
    """
    import xarray as xr

    dims = labels.dims[1:] if is_blocks(labels) else labels.dims
    dim = "time" if "time" not in dims else "frame_time"
    coords: dict[Any, Any] = {
        key: (coord.dims, coord.values, coord.attrs)
        for key, coord in labels.coords.items()
        if set(coord.dims) <= set(dims) and key != dim
    }
    coords[dim] = (dim, time_ns, _TIME_ATTRS)
    # Through a Dataset, as in `Labels.to_xarray`: it does not copy coordinates.
    key = "__ataraxis__"
    values = ((dim, *dims), data, dict(labels.attrs))
    found = xr.Dataset({key: values}, coords)[key]
    found.name = name
    return found
