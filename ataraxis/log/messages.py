"""The names of ataraxis-data-structures' LogArchiveReader, for logs of any layout."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ataraxis.log.selection import LogSource, Selection

PARALLEL_PROCESSING_THRESHOLD = 2000
ONSET_BYTES = 8


class LogMessage(NamedTuple):
    """One entry as the original reader gives it."""

    timestamp_us: np.uint64
    """Its stamp, UTC microseconds: onset and stamp together."""
    payload: NDArray[np.uint8]
    """Its bytes."""


class Messages:
    """The half of `LogArchive` that reads as LogArchiveReader did.

    The stamp of an entry is its device time where it has one (a LogPackage's), else its
    time in microseconds. Entries up to and including the onset (the first one of stamp
    0 and 8 bytes, which are UTC microseconds) are passed over.
    """

    _source: LogSource
    _onset: int | None
    _verify: bool
    _found: tuple[Selection, NDArray[np.uint64], int] | None = None

    def _messages(self) -> tuple[Selection, NDArray[np.uint64], int]:
        """All entries, their stamps, and the position behind the onset."""
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
        """The onset, UTC microseconds.

        Raises
        ------
        ValueError
            The log has none: give ``onset_us=``.
        """
        self._messages()
        if self._onset is None:
            raise ValueError(
                "the log has no onset (an entry of stamp 0 with 8 bytes): give "
                "onset_us= to the archive"
            )
        return np.uint64(self._onset)

    @property
    def message_count(self) -> int:
        """Entries behind the onset."""
        found, _, begin = self._messages()
        return len(found) - begin

    def get_batches(
        self, workers: int = -1, batch_multiplier: int = 4
    ) -> list[list[int]]:
        """Divide the messages into batches for workers; one below 2000.

        Parameters
        ----------
        workers : int
            Processes; one for each processor, if below 1.
        batch_multiplier : int
            Batches for each.

        Returns
        -------
        list of list of int
            Keys for `iter_messages`, also of another archive of the same path.
        """
        found, _, begin = self._messages()
        keys = found.numbers[begin:]
        if len(keys) < PARALLEL_PROCESSING_THRESHOLD:
            return [keys.tolist()] if len(keys) else []
        count = (workers if workers > 0 else os.cpu_count() or 1) * batch_multiplier
        return [p.tolist() for p in np.array_split(keys, max(count, 1)) if len(p)]

    def iter_messages(self, keys: Sequence[Any] | None = None) -> Iterator[LogMessage]:
        """Iterate over the messages, or those of a batch."""
        found, stamps, begin = self._messages()
        onset = self.onset_timestamp_us
        numbers = found.numbers[begin:] if keys is None else np.asarray(keys, np.int64)
        at = np.searchsorted(found.numbers, numbers)
        part = self._source.pick(numbers)
        frames = self._source.frames(part, verify=self._verify)
        for k, frame in zip(at, frames, strict=True):
            yield LogMessage(onset + stamps[k], np.frombuffer(frame.payload, np.uint8))

    def read_all_messages(self) -> tuple[NDArray[np.uint64], list[NDArray[np.uint8]]]:
        """Read all messages: their stamps, UTC microseconds, and their payloads."""
        messages = list(self.iter_messages())
        stamps = np.fromiter((m.timestamp_us for m in messages), "u8", len(messages))
        return stamps, [m.payload for m in messages]
