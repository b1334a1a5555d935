"""`LogPackage`: one entry for a log, checked when it is made."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ataraxis._kernels.journal_scan import Package
from ataraxis.log.npy.entries import NPY_BYTES, SOURCE_LIMIT, EntryKey, entry_head
from ataraxis.log.selection import LogSource, Selection

_UINT8 = np.dtype(np.uint8)
_U64 = 2**64


class LogPackage(Package):
    """A source id, a stamp, and the bytes to log.

    Parameters
    ----------
    source_id : int
        Any integer from 0 to 255, NumPy's or Python's.
    timestamp : int
        Any integer from 0 to 2**64 - 1. Also called `time_stamp`, `acquisition_time`.
    data : ndarray of uint8, shape (n,)
        Also called `serialized_data`. Not copied: the logger copies it in `put`.

    Raises
    ------
    TypeError, ValueError
        It cannot be logged.

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
        """Return stamp and payload, given by any of their names."""
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
        """Convert and check what the fast path did not accept."""
        return (
            _integer("source_id", source, SOURCE_LIMIT),
            _integer("timestamp", stamp, _U64),
            _bytes_array(data),
        )

    @property
    def source_id(self) -> np.uint8:
        """Source id."""
        return np.uint8(self.source)

    @property
    def time_stamp(self) -> np.uint64:
        """Stamp, in the unit of the source."""
        return np.uint64(self.stamp)

    @property
    def acquisition_time(self) -> np.uint64:
        """Stamp, under the name of ataraxis-data-structures 4.0."""
        return np.uint64(self.stamp)

    @property
    def serialized_data(self) -> NDArray[np.uint8]:
        """Payload, shape (n,); the array that was given."""
        return self.payload

    def get_data(self) -> tuple[str, NDArray[np.uint8]]:
        """Return the entry's file name and array, shape (9 + n,): a copy."""
        head = entry_head(self.source, self.stamp, self.payload.size)[NPY_BYTES:]
        name = EntryKey(self.stamp, self.source).stem + ".npy"
        return name, np.concatenate((np.frombuffer(head, np.uint8), self.payload))

    @property
    def data(self) -> tuple[str, NDArray[np.uint8]]:
        """Result of `get_data`, under its later name."""
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
        names = " and ".join(found) if found else "none of them"
        raise TypeError(f"give one of {', '.join(given)}; got {names}")
    return found.popitem()[1]


def _integer(name: str, value: Any, limit: int) -> int:
    """Convert to an integer from 0 to `limit` - 1, or raise."""
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{name} must be an integer, got {type(value).__name__}: {value!r:.60}"
        ) from None
    if not 0 <= number < limit:
        raise ValueError(f"{name}={number}: give one from 0 to {limit - 1}.")
    return number


def _bytes_array(data: Any) -> NDArray[np.uint8]:
    """Return data as a uint8 vector, or raise."""
    if not isinstance(data, np.ndarray):
        raise TypeError(
            f"data must be a uint8 array, got {type(data).__name__}; bytes become one "
            "with np.frombuffer(data, np.uint8)"
        )
    if data.dtype == np.bool_:
        data = data.view(np.uint8)  # a byte each, 0 or 1
    if data.dtype != _UINT8:
        raise TypeError(
            f"data must be a uint8 array, got {data.dtype}: data.view(np.uint8) keeps "
            "every byte, data.astype(np.uint8) may truncate numbers"
        )
    if data.ndim != 1:
        raise ValueError(
            f"data must have one dimension, got shape {data.shape}: give data.ravel(), "
            "or use DataLogger.log(), which keeps shapes in the journal layout"
        )
    return np.asarray(data)


# ---- the methods of ataraxis-data-structures' LogArchiveReader, for any layout

PARALLEL_PROCESSING_THRESHOLD = 2000
ONSET_BYTES = 8


class LogMessage(NamedTuple):
    """One entry, as LogArchiveReader returns it."""

    timestamp_us: np.uint64
    """Onset plus stamp, UTC microseconds."""
    payload: NDArray[np.uint8]
    """Payload bytes."""


class Messages:
    """The part of `LogArchive` that is compatible with LogArchiveReader.

    The stamp of an entry is its device time if it has one (as a LogPackage has), else
    its time in microseconds. Entries up to the onset are skipped: the first one of
    stamp 0 and 8 bytes, which are UTC microseconds.
    """

    _source: LogSource
    _onset: int | None
    _verify: bool
    _found: tuple[Selection, NDArray[np.uint64], int] | None = None

    def _messages(self) -> tuple[Selection, NDArray[np.uint64], int]:
        """Return all entries, their stamps, and the position behind the onset."""
        if self._found is None or len(self._found[0]) != len(self._source):
            found = self._source.select()
            device = self._source.device_stamps(found)
            if device is not None:
                stamps = device[:, 0].astype(np.uint64)
            else:
                scale = 1000 if self._source.unit == "ns" else 1
                stamps = (found.time // scale).astype(np.uint64)
            begin = 0
            if self._onset is None:
                for at in np.flatnonzero(stamps == 0):
                    payload = self._source.frame(int(found.numbers[at])).payload
                    if len(payload) == ONSET_BYTES:
                        self._onset = int.from_bytes(payload, "little")
                        begin = int(at) + 1
                        break
            self._found = found, stamps, begin
        return self._found

    @property
    def onset_timestamp_us(self) -> np.uint64:
        """The onset, UTC microseconds; `ValueError` without one: give ``onset_us=``."""
        self._messages()
        if self._onset is None:
            raise ValueError(
                "the log has no onset (an entry of stamp 0 with 8 bytes): give "
                "onset_us= to the archive"
            )
        return np.uint64(self._onset)

    @property
    def message_count(self) -> int:
        """Number of entries behind the onset."""
        found, _, begin = self._messages()
        return len(found) - begin

    def get_batches(
        self, workers: int = -1, batch_multiplier: int = 4
    ) -> list[list[int]]:
        """Divide the messages into batches for workers; one below 2000.

        Parameters
        ----------
        workers : int
            Processes; below 1: one per CPU.
        batch_multiplier : int
            Batches per worker.

        Returns
        -------
        list of list of int
            Keys for `iter_messages`, also of another archive of the path.
        """
        found, _, begin = self._messages()
        keys = found.numbers[begin:]
        if len(keys) < PARALLEL_PROCESSING_THRESHOLD:
            return [keys.tolist()] if len(keys) else []
        count = (workers if workers > 0 else os.cpu_count() or 1) * batch_multiplier
        return [p.tolist() for p in np.array_split(keys, max(count, 1)) if len(p)]

    def iter_messages(self, keys: Sequence[Any] | None = None) -> Iterator[LogMessage]:
        """Iterate over all messages, or those of a batch."""
        found, stamps, begin = self._messages()
        onset = self.onset_timestamp_us
        numbers = found.numbers[begin:] if keys is None else np.asarray(keys, np.int64)
        at = np.searchsorted(found.numbers, numbers)
        frames = self._source.frames(self._source.pick(numbers), verify=self._verify)
        for k, frame in zip(at, frames, strict=True):
            yield LogMessage(onset + stamps[k], np.frombuffer(frame.payload, np.uint8))

    def read_all_messages(self) -> tuple[NDArray[np.uint64], list[NDArray[np.uint8]]]:
        """Return the stamps of all messages, UTC microseconds, and their payloads."""
        messages = list(self.iter_messages())
        stamps = np.fromiter((m.timestamp_us for m in messages), "u8", len(messages))
        return stamps, [m.payload for m in messages]
