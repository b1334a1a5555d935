"""The getting half of a queue's handle: values, leases, runs of frames."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from ataraxis._kernels import queue_handle as status_of
from ataraxis.errors import CorruptFrame, DataOverflow, GetTimeout, LeaseLost
from ataraxis.frame import Frame, restamp
from ataraxis.stream import _large
from ataraxis.stream._end import check_timeout
from ataraxis.stream._queue_end import QueueEnd
from ataraxis.stream.lease import Lease

if TYPE_CHECKING:
    from ataraxis._kernels.queue_handle import Grip

_PAD = 64


class Getting(QueueEnd):
    """What a handle does to get frames out of its queue."""

    def get_nowait(self) -> Any:
        """Get without waiting; `QueueEmpty` if there is nothing."""
        return self.get(False)

    def get_many(
        self, limit: int = 1 << 62, block: bool = True, timeout: float | None = None
    ) -> list[Any]:
        """Get the values that are there, at most `limit`: a list.

        Waits only for the first. Acknowledged when it returns, in every manner of the
        handle. Raises as `get`.
        """
        check_timeout(timeout)
        if limit < 1:
            raise ValueError(f"limit={limit}: at least 1")
        values, status = self._get_many(limit, self._deadline(block, timeout))
        if status != status_of.OK:
            self._fail(status, False)
        return values

    def get_frame(self, block: bool = True, timeout: float | None = None) -> Frame:
        """Get one `Frame`, as it was put, its number and stamps with it; as `get`."""
        lease = self.lease(block, timeout)
        if self._manner == "get":
            lease.acknowledge()
        else:
            self._owe(lease)
        return lease.frame

    # ---- leases

    def lease(self, block: bool = True, timeout: float | None = None) -> Lease:
        """Get a frame that stays ours until it is acknowledged or given back.

        Parameters
        ----------
        block, timeout
            As for `get`.

        Returns
        -------
        Lease
            With ``value``, ``frame``, ``id`` and ``attempt``; a context manager.

        Raises
        ------
        QueueEmpty, TimeoutError, CorruptFrame
            As `get`.

        Notes
        -----
        Every frame is acknowledged at least once by somebody who lives; exactly once if
        nobody dies, gives back, or outlives `lease_timeout`. ``id`` tells a frame that
        comes again from a new one.
        """
        check_timeout(timeout)
        deadline = self._deadline(block, timeout)
        while True:
            grip, place = self._reach(deadline)
            data = self._copy(grip, place)
            if data is None:
                self._drop(grip)
                continue
            large = data.decode() if grip.is_large else None
            frame = _large.view(large, self._where) if large is not None else data
            if frame is None:
                # Acknowledged by somebody who died before the slot was free.
                self._finish(grip, place, True, large)
                continue
            try:
                return Lease(
                    self._name,
                    grip,
                    place,
                    self._frame(frame),
                    functools.partial(self._end, grip, place, large),
                )
            except ValueError as error:
                if isinstance(error, CorruptFrame):
                    error.data = bytes(frame)
                self._finish(grip, place, True, large)
                raise

    def _reach(self, deadline: int) -> tuple[Grip, int]:
        """Take a frame of a slot that we have, or of the next one."""
        with self._guard:
            if self._pocket:
                return self._pick(self._pocket[0])
        grip = self._hold(deadline)
        if isinstance(grip, int):
            self._fail(grip, False)
        with self._guard:
            self._pocket.append(grip)
            self._is_plain = False
            return self._pick(grip)

    def _pick(self, grip: Grip) -> tuple[Grip, int]:
        bit = grip.pending & -grip.pending
        grip.pending &= ~bit
        grip.out |= bit
        if not grip.pending:
            self._drop(grip)
        return grip, bit.bit_length() - 1

    def _drop(self, grip: Grip) -> None:
        """Hand out no more of a slot."""
        with self._guard:
            grip.pending = 0
            if grip in self._pocket:
                self._pocket.remove(grip)
            self._is_plain = self._manner == "get" and not self._pocket

    def _end(self, grip: Grip, place: int, large: str | None, is_done: bool) -> bool:
        """End a lease, if the handle is still the one that has it."""
        if self._is_copy or not self.is_open:
            return False
        return self._finish(grip, place, is_done, large)

    def _finish(self, grip: Grip, place: int, is_done: bool, large: str | None) -> bool:
        """End the lease of a frame; False if it was over."""
        with self._guard:
            grip.out &= ~(1 << place)
            done = 1 << place if is_done else 0
            if not is_done:
                grip.failed = True
                self._drop(grip)
            is_last = not (grip.out or grip.pending)
            if large is not None and is_done:
                if self._mark(grip, 0) != status_of.OK:
                    return False
                _large.take_away(large, self._where)
            if is_last:
                status = self._settle(grip, done, grip.failed)
            elif is_done:
                status = self._mark(grip, done)
            else:
                status = status_of.OK
            return status == status_of.OK

    # ---- manners

    def _get_leased(self, block: bool, timeout: float | None) -> Any:
        """Get where the acknowledgement comes later, or from a slot that we have."""
        if self._manner == "next":
            self._pay()
        lease = self.lease(block, timeout)
        if self._manner == "get":
            lease.acknowledge()
        else:
            self._owe(lease)
        return lease.value

    def _owe(self, lease: Lease) -> None:
        with self._guard:
            self._unfinished.append(lease)

    def _pay(self) -> None:
        with self._guard:
            while self._unfinished:
                self._unfinished.popleft().acknowledge()

    def task_done(self) -> None:
        """Acknowledge the oldest `get` of this handle that is not yet.

        Raises
        ------
        ValueError
            There is none; also if the handle was not made with
            ``acknowledge="task_done"``, so that `get` has acknowledged already.
        LeaseLost
            The lease ran out before.
        """
        with self._guard:
            if not self._unfinished:
                raise ValueError(
                    f"queue {self._name!r}: task_done() without a get() that waits for "
                    'it; open the handle with acknowledge="task_done"'
                )
            lease = self._unfinished.popleft()
        lease.acknowledge()

    def join(self, timeout: float | None = None) -> None:
        """Wait until every frame that was put is acknowledged.

        Raises
        ------
        TimeoutError
            Some were not within `timeout`, s.
        """
        check_timeout(timeout)
        if self._await_idle(timeout) != status_of.OK:
            raise GetTimeout(
                f"queue {self._name!r}: {self._counts()[0]} frames wait and "
                f"{self._counts()[1]} are leased after {timeout} s"
            )

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until there is probably a frame to get, or somebody says `nudge`.

        Parameters
        ----------
        timeout : float or None
            Longest wait, s.

        Returns
        -------
        bool
            False: nothing happened within `timeout`. True is no promise: another
            getter may be first.
        """
        check_timeout(timeout)
        return bool(self._await_data(timeout) == status_of.OK)

    def nudge(self) -> None:
        """End the `wait` of every getter, so that they look at what else they mind."""
        self._nudge()

    def _end_leases(self) -> None:
        """Leave no lease behind: the last ones are acknowledged, or go back."""
        with self._guard:
            while self._unfinished:
                lease = self._unfinished.popleft()
                if self._manner == "next":
                    lease.acknowledge()
                else:
                    lease.give_back()

    # ---- runs of frames

    def drain_into(
        self,
        buffer: Any,
        block: bool = True,
        timeout: float | None = None,
        *,
        seed: int = 0,
        acknowledge: bool = True,
    ) -> tuple[int, int]:
        """Copy all frames that are there into a buffer, one behind the other.

        Parameters
        ----------
        buffer : writable bytes-like
            At least one slot long; as many whole frames as it takes.
        block, timeout
            As for `get`: waits for the first only.
        seed : int
            What the headers' CRCs go on from: ``crc32(uuid)`` of a journal.
        acknowledge : bool
            Say False to acknowledge when they are written, by
            `acknowledge_drained`; until then others get them if this process dies.

        Returns
        -------
        tuple of int
            Bytes written, and frames. Each frame begins at a multiple of 64; zeros
            between. Checksums of payloads are not looked at.

        Raises
        ------
        DataOverflow
            `buffer` is too small for the next frame, which stays in the queue.
        QueueEmpty, TimeoutError
            As `get`.
        """
        check_timeout(timeout)
        deadline = self._deadline(block, timeout)
        before = self._drained
        view = memoryview(buffer).cast("B")
        end, frames, status, name, number = self._drain(
            view, 0, seed, not acknowledge, deadline
        )
        if name is not None:
            end, frames = self._pour(view, end, frames, name, number, seed)
            if acknowledge:
                self._settle_drained(True, before)
        if not frames:
            if status == status_of.OVERFLOW:
                raise DataOverflow(
                    f"queue {self._name!r}: a buffer of {len(view)} bytes is shorter "
                    f"than a slot: {self._geometry[1]} bytes at least"
                )
            if status != status_of.OK:
                self._fail(status, False)
        return end, frames

    def _pour(
        self,
        view: memoryview,
        at: int,
        frames: int,
        ticket: bytes,
        number: int | None,
        seed: int,
    ) -> tuple[int, int]:
        """Copy a large frame, or give it back if it does not fit any more."""
        name = ticket.decode()
        frame = _large.view(name, self._where)
        if frame is None:
            self._larges.append(name)
            return at, frames
        end = at + -(-len(frame) // _PAD) * _PAD
        if end > len(view):
            self._release_drained(False, self._drained - 1)
            if frames:
                return at, frames
            raise DataOverflow(
                f"queue {self._name!r}: the next frame has {end - at} bytes, the "
                f"buffer {len(view)}; drain into a larger one"
            )
        self._larges.append(name)
        view[at : at + len(frame)] = frame
        view[at + len(frame) : end] = bytes(end - at - len(frame))
        if seed or number is not None:
            labels_id = int.from_bytes(frame[56:60], "little")
            restamp(view, at, labels_id=labels_id, seed=seed, sequence=number)
        return end, frames + 1

    def acknowledge_drained(self) -> None:
        """Acknowledge what ``drain_into(acknowledge=False)`` has copied since.

        Raises
        ------
        LeaseLost
            Some leases ran out before: another getter has, or had, those frames.
        """
        lost = self._settle_drained(True, 0)
        if lost:
            raise LeaseLost(
                f"queue {self._name!r}: {lost} leases ran out before their frames were "
                "acknowledged; make it with a longer lease_timeout="
            )

    def give_back_drained(self) -> None:
        """Let others have what ``drain_into(acknowledge=False)`` has copied since."""
        self._settle_drained(False, 0)

    def _settle_drained(self, is_done: bool, first: int) -> int:
        if is_done:
            while self._larges:
                _large.take_away(self._larges.pop(), self._where)
        self._larges.clear()
        return self._release_drained(is_done, first)

    # ---- what the kernel asks for

    def _frame(self, data: Any) -> Frame:
        return Frame.from_buffer(data, allow_pickle=self._allow_pickle)

    def _decode(self, data: Any) -> Any:
        return self._frame(data).value

    def _open_large(self, name: bytes) -> memoryview | None:
        return _large.view(name.decode(), self._where)

    def _unlink_large(self, name: bytes) -> None:
        _large.take_away(name.decode(), self._where)
