"""`LogPackage`: one entry on its way to the log, checked where it is made."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis._kernels.journal_scan import Package
from ataraxis.log.entries import NPY_BYTES, SOURCE_LIMIT, EntryKey, entry_head

_UINT8 = np.dtype(np.uint8)
_U64 = 2**64


class LogPackage(Package):
    """A source's id, a stamp, and the bytes to keep.

    Parameters
    ----------
    source_id : int
        Any integer from 0 to 255, NumPy's or Python's.
    timestamp : int
        Any integer from 0 to 2**64 - 1. Also called `time_stamp`, `acquisition_time`.
    data : ndarray of uint8, shape (n,)
        Also called `serialized_data`. Not copied: the logger copies it at `put`.

    Raises
    ------
    TypeError, ValueError
        It could not be logged; said here and not in the process that writes.

    Examples
    --------
    >>> package = LogPackage(np.uint8(7), np.uint64(5), np.array([9, 8], np.uint8))
    >>> package.get_data()[0]
    '007_00000000000000000005.npy'
    >>> LogPackage(300, 5, np.array([9], np.uint8))
    Traceback (most recent call last):
    ValueError: source_id=300: give one from 0 to 255.
    """

    __slots__ = ()

    def _named(
        self, timestamp: Any, data: Any, time: Any, acquired: Any, serialized: Any
    ) -> tuple[Any, Any]:
        """Return stamp and payload that were given by other names."""
        if time is not None or acquired is not None:
            timestamp = _one_of(
                timestamp=timestamp, time_stamp=time, acquisition_time=acquired
            )
        if serialized is not None:
            data = _one_of(data=data, serialized_data=serialized)
        return timestamp, data

    def _settle(
        self, source: Any, stamp: Any, data: Any
    ) -> tuple[int, int, NDArray[np.uint8]]:
        """Return what is good after all, or say what is wrong."""
        return (
            _integer("source_id", source, SOURCE_LIMIT),
            _integer("timestamp", stamp, _U64),
            _bytes_array(data),
        )

    @property
    def source_id(self) -> np.uint8:
        """Id of the source."""
        return np.uint8(self.source)

    @property
    def time_stamp(self) -> np.uint64:
        """The stamp, in the unit of the source."""
        return np.uint64(self.stamp)

    @property
    def acquisition_time(self) -> np.uint64:
        """The stamp, as ataraxis-data-structures 4.0 calls it."""
        return np.uint64(self.stamp)

    @property
    def serialized_data(self) -> NDArray[np.uint8]:
        """The payload, shape (n,); the array that was given."""
        return self.payload

    def get_data(self) -> tuple[str, NDArray[np.uint8]]:
        """Return the entry's file name and array, shape (9 + n,): a copy."""
        head = entry_head(self.source, self.stamp, self.payload.size)[NPY_BYTES:]
        name = EntryKey(self.stamp, self.source).stem + ".npy"
        return name, np.concatenate((np.frombuffer(head, np.uint8), self.payload))

    @property
    def data(self) -> tuple[str, NDArray[np.uint8]]:
        """What `get_data` returns; the later generations' name."""
        return self.get_data()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LogPackage):
            return NotImplemented
        return (
            self.source == other.source
            and self.stamp == other.stamp
            and np.array_equal(self.payload, other.payload)
        )

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return LogPackage, (self.source, self.stamp, self.payload)

    def __repr__(self) -> str:
        return (
            f"LogPackage(source_id={self.source}, timestamp={self.stamp}, "
            f"data={self.payload!r})"
        )


def _one_of(**given: Any) -> Any:
    """Return the one value given under several names."""
    found = {name: value for name, value in given.items() if value is not None}
    if len(found) != 1:
        said = " and ".join(found) if found else "none of them"
        raise TypeError(f"give one of {', '.join(given)}; got {said}")
    return found.popitem()[1]


def _integer(name: str, value: Any, limit: int) -> int:
    """Return a plain integer from 0 to `limit` - 1."""
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}={value!r}: an integer, not a bool.")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{name} is an integer, got {type(value).__name__}: {value!r:.60}"
        ) from None
    if not 0 <= number < limit:
        raise ValueError(f"{name}={number}: give one from 0 to {limit - 1}.")
    return number


def _bytes_array(data: Any) -> NDArray[np.uint8]:
    """Return data that is a uint8 vector after all (a subclass), or say what it is."""
    if not isinstance(data, np.ndarray):
        raise TypeError(
            f"data is a uint8 array, got {type(data).__name__}; of bytes, "
            "np.frombuffer(data, np.uint8) is one"
        )
    if data.dtype != _UINT8:
        raise TypeError(
            f"data is a uint8 array, got {data.dtype}: data.view(np.uint8) keeps every "
            "byte, data.astype(np.uint8) may cut numbers"
        )
    if data.ndim != 1:
        raise ValueError(
            f"data has one dimension, got shape {data.shape}: give data.ravel(), or "
            "use DataLogger.log(), which keeps shapes in the journal layout"
        )
    return np.asarray(data)
