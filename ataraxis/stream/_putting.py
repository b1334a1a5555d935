"""The putting half of a queue's handle; `put` itself is the kernel's."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis._kernels import queue_handle as status_of
from ataraxis.frame import HEADER_BYTES, Frame
from ataraxis.stream import _large
from ataraxis.stream._end import check_timeout
from ataraxis.stream._getting import Getting


class Putting(Getting):
    """What a handle does to put values into its queue."""

    def put_nowait(self, obj: Any) -> None:
        """Put without waiting; `QueueFull` if there is no room."""
        self.put(obj, False)

    def share_slots(self) -> None:
        """Let a put of this handle go into the slot of the one before, if it is there.

        For many small values, and a getter that takes whole slots. What one handle puts
        stays in order; among several, a value may come before older ones of others.
        """
        # Threads of a handle share what it has put last, guarded by Python's lock.
        self._packs = getattr(sys, "_is_gil_enabled", lambda: True)()

    def put_many(
        self,
        values: Iterable[Any],
        block: bool = True,
        timeout: float | None = None,
        *,
        pack: bool = True,
        source: int = 0,
        time_ns: int | None = None,
    ) -> int:
        """Put several values in one call; how many.

        Parameters
        ----------
        values : iterable
            As for `put`.
        block, timeout
            As for `put`, for all of them together.
        pack : bool
            Up to 64 small frames share a slot. A getter that leases frames of such a
            slot has all of it; for jobs that several workers share, say False.
        source, time_ns : int, optional
            As for `put`, of each.

        Raises
        ------
        QueueFull, TimeoutError
            Only the first values found room: the error's `count` says how many.
        """
        check_timeout(timeout)
        deadline = self._deadline(block, timeout)
        done, status = self._put_many(values, pack, deadline, source, time_ns)
        if status != status_of.OK:
            self._fail(status, True, done)
        return done

    def put_rows(
        self,
        rows: NDArray[np.uint8],
        header: bytes,
        device_time: int,
        step: int,
        timeout: float | None = None,
    ) -> bool:
        """Put each row as a frame, as many to a slot as it takes, in one call.

        Parameters
        ----------
        rows : ndarray
            Shape (n, bytes); contiguous.
        header : bytes
            64 of them: says what a row is, and its source.
        device_time, step : int
            Of the first row, and from row to row; u64.
        timeout : float or None
            Longest wait, s; None waits without end, 0 not at all.

        Returns
        -------
        bool
            False: a row is larger than a slot, nothing was put.

        Raises
        ------
        QueueFull, TimeoutError
            No room; the first `count` of the error are put.
        """
        deadline = self._deadline(True, timeout) if timeout != 0 else 0
        done, status = self._put_rows(rows, header, device_time, step, deadline)
        if status not in (status_of.OK, status_of.OVERFLOW):
            self._fail(status, True, done)
        return status == status_of.OK

    def offer(self, frame: bytes, timeout: float | None = None) -> bool:
        """Put a whole frame that is encoded already, as it is; whether it found room.

        Parameters
        ----------
        frame : bytes
            As `Frame.to_bytes` writes it; with its checksum, whatever the handle says.
        timeout : float or None
            Longest wait, s; None waits without end, 0 not at all.
        """
        deadline = self._deadline(True, timeout)
        if len(frame) <= self._geometry[1]:
            status = self._put_frame(frame, False, deadline)
        else:
            status = self._put_large(frame, False, deadline)
        return status == status_of.OK

    def _encode(
        self,
        value: Any,
        source: int,
        time_ns: int | None,
        device_time: int | None,
        device_sequence: int | None,
    ) -> tuple[bytes, bool]:
        """Write a value as a whole frame; whether the queue shall number it."""
        if isinstance(value, Frame):
            return value.to_bytes(), False
        frame = Frame.from_value(
            value,
            source=source,
            time_ns=time_ns,
            device_time=device_time,
            device_sequence=device_sequence,
            checksum=self._checksum,
            allow_pickle=self._allow_pickle,
        )
        return frame.to_bytes(), True

    def _put_other(self, value: Any, deadline: int, *stamps: Any) -> int:
        """Put what the kernel does not encode, or what does not fit a slot."""
        frame, is_numbered = self._encode(value, *stamps)
        if len(frame) <= self._geometry[1]:
            return self._put_frame(frame, is_numbered, deadline)
        return self._put_large(frame, is_numbered, deadline)

    def _put_large(self, frame: bytes, is_numbered: bool, deadline: int) -> int:
        segment = _large.make(self._name, self._where, frame)
        name = segment.name.encode()
        status = status_of.FULL
        try:
            payload = len(frame) - HEADER_BYTES
            status = self._put_ticket(name, payload, is_numbered, deadline)
        finally:
            if status != status_of.OK:
                _large.take_away(segment.name, self._where)
        return status
