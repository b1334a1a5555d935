"""MemQ: a work queue. Each frame goes to one getter, which acknowledges it."""

from __future__ import annotations

import math
import os
import sys
import uuid
import warnings
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, Literal, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ataraxis._kernels import queue as kernel
from ataraxis._kernels import queue_handle as status_of
from ataraxis._kernels import snapshot
from ataraxis._kernels.arena import Arena
from ataraxis._kernels.queue_handle import FrameLease, Message, QueueHandle
from ataraxis.clock import now_ns
from ataraxis.errors import (
    CorruptFrame,
    DataOverflow,
    GetTimeout,
    GpuUnavailable,
    LayoutError,
    LeaseLost,
    NotConnectedError,
    PinError,
    PutTimeout,
    QueueEmpty,
    QueueFull,
    SegmentNotFound,
)
from ataraxis.frame import HEADER_BYTES, Frame, crc32, restamp
from ataraxis.gpu.pins import Pin
from ataraxis.labels import Labels
from ataraxis.shm.context import Context, ContextLike, checked_name
from ataraxis.shm.header import Kind
from ataraxis.shm.segment import Segment
from ataraxis.shm.thread import Latch, begin_exit, end_daemon
from ataraxis.shm.waiting import (
    NOTHING,
    QUEUE_DATA,
    QUEUE_SPACE,
    Descriptor,
    EventWord,
    until,
)
from ataraxis.stream.arena import open_arena
from ataraxis.stream.endpoint import check_timeout, plain_name
from ataraxis.stream.lease import (
    Lease,
    make_large,
    name_of_large,
    remove_empty_queue,
    remove_large,
    sweep_large,
    view_large,
)
from ataraxis.stream.statistics import QueueStatistics, queue_statistics

# ---- what a loop waits for in a queue


class DataEvent(EventWord):
    """A frame in a queue, awaited by an event loop."""

    def __init__(self, queue: MemQ) -> None:
        super().__init__(queue._attached(), QUEUE_DATA)
        # A descriptor must not keep a dropped handle alive.
        self._queue = weakref.ref(queue)

    def is_ready(self) -> bool:
        """Return True if there is probably a frame, or for a closed handle."""
        queue = self._queue()
        if queue is None or not queue.is_open:
            return True
        return bool(queue._partial) or queue._has_data


class RoomEvent(EventWord):
    """Room in a queue, awaited by an event loop."""

    def __init__(self, queue: MemQ) -> None:
        super().__init__(queue._attached(), QUEUE_SPACE)
        self._queue = weakref.ref(queue)

    def is_ready(self) -> bool:
        """Return True if there is probably room, or for a closed handle."""
        queue = self._queue()
        return queue is None or not queue.is_open or queue._has_room


# ---- the queue

_NEVER = (1 << 63) - 1
_EXIT_S = 2.0
_PAD = 64
_NO_ROOM = (status_of.FULL, status_of.TIMEOUT)
Acknowledge: TypeAlias = Literal["get", "next", "task_done"]
_ACKNOWLEDGE = ("get", "next", "task_done")
# Header and all extensions of a frame, up to the next multiple of 64.
_FRONT = 192
_NAME_BYTES = 180


class MemQ(QueueHandle):
    """A work queue in shared memory: any number of putters and getters.

    Parameters
    ----------
    name : str, optional
        Its name in the context, by which others `attach`; by default a unique one.
    buffer_count : int
        Slots: how many frames it holds; more if small ones are packed by `put_many`.
    buffer_size : int
        Payload bytes that fit a slot. A larger frame travels in a chunk of the queue's
        arena, which is made at the first one; if no chunk is free, in a segment of its
        own, which takes some 300 us more.
    lease_timeout : float, optional
        How long a getter may keep a frame without acknowledging it, s, before another
        gets it. By default as long as the getter lives.
    acknowledge : {'get', 'next', 'task_done'}
        When a `get` of this handle is acknowledged: when it returns; by the next `get`
        or `close`; or by `task_done`. If the process dies before that, another getter
        gets the frame again. `lease` acknowledges frame by frame.
    checksum : bool
        Give frames a CRC-32, checked by the getter.
    allow_pickle : bool
        Allow pickle for values without a native encoding. Must be set on both ends.
    context : Context, str, Path or None
        The directory it lives in.
    participants : int
        How many handles may be open at a time, 1 to 1024.
    mode, group : optional
        Permission bits and group of the file, see `Segment.create`.
    size : int, optional
        Bytes of all slots together, as in uPipe; replaces `buffer_count`.

    Raises
    ------
    SegmentExists
        The name belongs to a live queue or to one with undelivered frames.

    Notes
    -----
    Threads may share a handle. It can be sent to other processes by any start method: a
    pickled one is a name, a forked one attaches again at its first use. The last handle
    that leaves an empty queue removes its name. A queue with frames stays, also after
    its last process was killed: `attach` and get them.

    Examples
    --------
    >>> import numpy as np
    >>> from ataraxis import MemQ
    >>> jobs = MemQ("doc_memq", buffer_count=8)
    >>> worker = MemQ.attach("doc_memq")
    >>> jobs.put(np.arange(3))
    >>> worker.get()
    array([0, 1, 2])
    """

    def __init__(
        self,
        name: str | bytes | None = None,
        buffer_count: int = 1024,
        buffer_size: int = 1024,
        *,
        lease_timeout: float | None = None,
        acknowledge: Acknowledge = "get",
        checksum: bool = True,
        allow_pickle: bool = False,
        context: ContextLike = None,
        participants: int = 128,
        mode: int | None = None,
        group: str | int | None = None,
        size: int | None = None,
    ) -> None:
        if name is None:
            name = f"memq-{uuid.uuid4().hex[:16]}"
        name = checked_name(plain_name(name))
        if len(name.encode()) > _NAME_BYTES:
            raise ValueError(f"a queue's name has at most {_NAME_BYTES} bytes: {name}")
        stride = -(-(buffer_size + _FRONT) // 64) * 64
        if size is not None:
            if size < 1:
                raise ValueError(f"size must be at least 1 byte, got {size}")
            buffer_count = max(2, size // stride)
        if not 0 < buffer_count < 1 << 31:
            raise ValueError(f"buffer_count must be at least 1, got {buffer_count}")
        if not 0 <= buffer_size < 1 << 31:
            raise ValueError(f"buffer_size must be 0 to 2 GiB, got {buffer_size}")
        if lease_timeout is not None and not lease_timeout > 0:
            raise ValueError(
                f"lease_timeout must be None or more than 0 s, got {lease_timeout!r}"
            )
        self._set_options(acknowledge, checksum, allow_pickle)
        lease_ns = 0 if lease_timeout is None else max(1, int(lease_timeout * 1e9))

        def fill(segment: Segment) -> None:
            control = _control(segment)
            kernel.describe(control, buffer_count, stride, lease_ns, participants)

        where = Context.of(context)
        _clear(name, where)
        segment = Segment.create(
            name,
            Kind.QUEUE,
            Labels("u1", (buffer_size,), ("byte",)),
            control_bytes=kernel.control_bytes(buffer_count, participants),
            payload_bytes=buffer_count * stride,
            fill=fill,
            context=where,
            participants=participants,
            mode=mode,
            group=group,
        )
        segment.keep_name()
        self._bind(segment)

    @classmethod
    def attach(
        cls,
        name: str | bytes,
        *,
        timeout: float | None = 0,
        acknowledge: Acknowledge = "get",
        checksum: bool = True,
        allow_pickle: bool = False,
        context: ContextLike = None,
    ) -> MemQ:
        """Open the queue that has the name.

        Parameters
        ----------
        name : str
            Its name in the context.
        timeout : float or None
            How long to wait for a queue that does not exist yet, s.
        acknowledge, checksum, allow_pickle, context
            As for `MemQ`; each handle has its own.

        Raises
        ------
        SegmentNotFound, TimeoutError
            No segment has the name (within `timeout`).
        LayoutError
            It is not a queue, or is damaged.
        """
        check_timeout(timeout)
        segment = Segment.attach(
            plain_name(name), kind=Kind.QUEUE, context=context, timeout=timeout
        )
        return cls.of_segment(segment, acknowledge, checksum, allow_pickle)

    @classmethod
    def of_segment(
        cls,
        segment: Segment,
        acknowledge: Acknowledge = "get",
        checksum: bool = True,
        allow_pickle: bool = False,
    ) -> MemQ:
        """Open a queue in a segment that is attached already."""
        queue = cls.__new__(cls)
        queue._set_options(acknowledge, checksum, allow_pickle)
        queue._bind(segment)
        return queue

    def _set_options(
        self, acknowledge: Acknowledge, checksum: bool, allow_pickle: bool
    ) -> None:
        if acknowledge not in _ACKNOWLEDGE:
            raise ValueError(
                f"acknowledge must be one of {', '.join(_ACKNOWLEDGE)}, got "
                f"{acknowledge!r}"
            )
        self._segment: Segment | None = None
        self._ack_mode: Acknowledge = acknowledge
        self._checksum = bool(checksum)
        self._allow_pickle = bool(allow_pickle)
        self._reset_leases()

    def _bind(self, segment: Segment) -> None:
        """Join the queue in a segment; the handle is open from here on."""
        self._name = segment.name
        self._where = segment.context
        self._uuid = segment.header.uuid
        self._capacity = segment.labels.nbytes
        part = segment.participant
        if not segment.header.geometry.payload_bytes or not self._open(
            segment.payload, part, crc32, self._checksum
        ):
            raise LayoutError(
                f"segment {segment.name!r} is not a work queue, or its control block "
                "does not fit the file: it holds one large frame of a queue, or was "
                "damaged"
            )
        self._has_left = Latch()
        self._finalizer = weakref.finalize(self, _at_exit, weakref.ref(self))
        # Last: a handle that has a segment leaves it when dropped.
        self._segment = segment
        process = sys.modules.get("multiprocessing.process")
        util = sys.modules.get("multiprocessing.util")
        if process is not None and util is not None and process.parent_process():
            # Children of multiprocessing end without the interpreter's clean-up.
            util.Finalize(self, _at_exit, (weakref.ref(self),), exitpriority=10)

    # ---- leaving

    def close(self) -> None:
        """Leave the queue; frames of this handle not acknowledged go back.

        With ``acknowledge="next"`` the last frame is acknowledged. The last handle to
        leave an empty queue removes its name.
        """
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            descriptor.close()
        if self.is_open and not self._is_copy:
            self._end_leases()
        pin, self._arena_pin = self._arena_pin, None
        if pin is not None:
            pin.close()
        self._shut()

    def unlink(self) -> None:
        """Remove the queue's name, with all frames in it, and leave it."""
        segment = self._segment
        has_larges = False
        if segment is not None and not self._is_copy:
            has_larges = kernel.has_larges(_control(segment))
            snapshot.keep(segment.participant, False)
            segment.unlink()
        self.close()
        if has_larges:
            sweep_large(self._name, self._where, self._uuid)

    def join_thread(self) -> None:
        """Do nothing: a value is in the queue when `put` returns."""

    cancel_join_thread = join_thread

    def _gone(self) -> None:
        """Leave the segment once no call uses it; remove the name of an empty queue."""
        segment, self._segment = self._segment, None
        self._finalizer.detach()
        try:
            if segment is None or segment.participant.is_inherited:
                return
            descriptor = os.dup(segment.participant.descriptor)
            context, slots = segment.context, segment.header.geometry.participants
            has_larges = kernel.has_larges(_control(segment))
            del segment
            remove_empty_queue(
                self._name, context, descriptor, slots, has_larges, self._uuid
            )
        finally:
            self._has_left.set()

    def __enter__(self) -> MemQ:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_segment", None) is not None:
            self.close()

    # ---- what it is

    @property
    def name(self) -> str:
        """Name of the queue in its context."""
        return self._name

    @property
    def buffer_count(self) -> int:
        """Slots."""
        return self._geometry[0]

    @property
    def buffer_size(self) -> int:
        """Payload bytes that fit a slot."""
        return int(self._capacity)

    def qsize(self) -> int:
        """Return how many frames wait for a getter, those of a leased slot included."""
        return self._counts()[0] + sum(slot_lease.left for slot_lease in self._partial)

    def empty(self) -> bool:
        """Return whether no frame waits for a getter."""
        return self.qsize() == 0

    def had_before(self) -> list[int]:
        """Return the sequences of frames leased and not acknowledged, or redelivered.

        Of frames numbered here; they are delivered again if their getter dies.
        """
        return self._had_before()

    def full(self) -> bool:
        """Return whether a put would have to wait."""
        return not self._has_room

    def statistics(self) -> QueueStatistics:
        """Read the queue's control words; waits for nothing and stops nothing."""
        segment = self._attached()
        return queue_statistics(
            self._name,
            (self.buffer_count, self.buffer_size),
            self._counts(),
            self._tallies(),
            segment.participant.recoveries,
        )

    def sweep(self) -> int:
        """Clean up after dead participants now; return how many there were."""
        swept = self._attached().participant.sweep()
        if self._has_larges:
            self._sweep_arena()
        return swept

    @property
    def arena_bytes(self) -> int:
        """Bytes of the arena's chunks that hold frames, or views of them."""
        return self._arena_used if self._has_larges else 0

    @property
    def _has_larges(self) -> bool:
        """Whether a frame larger than a slot was ever put."""
        return bool(kernel.has_larges(_control(self._attached())))

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from ataraxis.card import html_of

        return html_of("queue", self)

    def __repr__(self) -> str:
        return f"<MemQ {self._name!r}, {'open' if self.is_open else 'closed'}>"

    # ---- attaching, and statuses of the kernel as exceptions

    _descriptor: Descriptor | None = None

    def _reset_leases(self) -> None:
        """Drop all leases: at the start, and in a forked child."""
        self._descriptor = None
        self._views = True
        self._partial = []
        self._unfinished: deque[Lease] = deque()
        self._segments: list[str] = []
        self._acknowledges = self._is_plain = self._ack_mode == "get"

    @property
    def _is_copy(self) -> bool:
        """Whether this is a forked child's copy of a handle, not attached yet."""
        return self._segment is not None and self._segment.participant.is_inherited

    def _attached(self) -> Segment:
        """Return the segment, or raise because the handle was closed."""
        if not self.is_open or self._is_copy:
            self._revive()
        assert self._segment is not None
        return self._segment

    def _revive(self) -> None:
        """Attach again in a forked child; raise if the handle was closed."""
        if not self._is_copy:
            end_daemon()
            raise NotConnectedError(
                f"queue {self._name!r}: this handle was closed; attach({self._name!r})"
            )
        segment = Segment.attach(
            self._name, kind=Kind.QUEUE, context=self._where, uuid=self._uuid
        )
        self._reset_leases()
        self._bind(segment)

    def _fail(self, status: int, is_put: bool, count: int = 0) -> NoReturn:
        """Raise the exception of a kernel status; `count` values were put before."""
        name = self._name
        error: QueueFull | QueueEmpty | PutTimeout | GetTimeout
        if status == status_of.FULL:
            error = QueueFull(
                f"queue {name!r}: every slot holds a frame that is not acknowledged; "
                "wait with timeout=, start more getters, or make it with a larger "
                "buffer_count="
            )
        elif status == status_of.EMPTY:
            self._rearm_descriptor()
            error = QueueEmpty(f"queue {name!r} is empty; wait with timeout=")
        elif status == status_of.DAMAGED:
            raise LayoutError(
                f"queue {name!r} was damaged: {self._damage}. Get the frames that are "
                "left, then make the queue again under another name"
            )
        elif is_put:
            error = PutTimeout(
                f"queue {name!r}: no slot became free within the timeout; statistics() "
                "shows how many frames wait and are leased"
            )
        else:
            self._rearm_descriptor()
            error = GetTimeout(f"queue {name!r}: no frame came within the timeout")
        if isinstance(error, QueueFull | PutTimeout):
            error.count = count
        raise error

    def _rearm_descriptor(self) -> None:
        """Make the descriptor unreadable until there is a frame."""
        if self._descriptor is not None:
            self._descriptor.rearm(
                lambda: True if self._partial or self._has_data else NOTHING
            )

    def _deadline(self, block: bool, timeout: float | None) -> int:
        """Return the monotonic time of a timeout in s, ns; 0: do not wait."""
        if not block or timeout == 0:
            return 0
        if timeout is None or timeout > 9e8 or math.isinf(timeout):
            return _NEVER
        return now_ns() + int(timeout * 1e9)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the name: the other process attaches."""
        options = self._ack_mode, self._checksum, self._allow_pickle
        path = str(self._where.path)
        return _attach, (type(self), self._name, path, self._uuid, options)

    # ---- getting

    def get_nowait(self) -> Any:
        """Get without waiting; `QueueEmpty` if there is nothing."""
        return self.get(False)

    async def get_async(self, timeout: float | None = None) -> Any:
        """Get without blocking the event loop; raises as `get`.

        Works in asyncio, uvloop and, with ``ataraxis[trio]``, trio. One thread of the
        process sleeps for all waiting tasks. A cancelled task has got nothing.
        """
        check_timeout(timeout)
        value = await until(self._try_get, DataEvent(self), timeout=timeout)
        if value is NOTHING:
            self._fail(status_of.TIMEOUT, False)
        return value

    def _try_get(self) -> Any:
        # This check is cheaper than an exception.
        if not self._partial and not self._has_data:
            self._rearm_descriptor()
            return NOTHING
        try:
            return self.get(False)
        except QueueEmpty:
            return NOTHING

    def fileno(self) -> int:
        """Return a descriptor that is readable while there may be a frame.

        For `select`, ``loop.add_reader``, a QSocketNotifier. It stops being readable
        when a get that does not wait finds nothing; so get frames until `QueueEmpty`,
        or one at a time and expect `QueueEmpty`. Do not read from it or close it:
        `close` of the queue does.
        """
        self._attached()
        if self._descriptor is None:
            self._descriptor = Descriptor(DataEvent(self))
        return self._descriptor.number

    def get_many(
        self, limit: int = 1 << 62, block: bool = True, timeout: float | None = None
    ) -> list[Any]:
        """Return a list of the values in the queue, at most `limit`.

        Waits only for the first. They are acknowledged when it returns, whatever
        `acknowledge` is. Raises as `get`.
        """
        check_timeout(timeout)
        if limit < 1:
            raise ValueError(f"limit must be at least 1, got {limit}")
        values, status = self._get_many(limit, self._deadline(block, timeout))
        if status != status_of.OK:
            self._fail(status, False)
        return values

    def get_frame(self, block: bool = True, timeout: float | None = None) -> Frame:
        """Get one `Frame`, with its sequence and stamps; as `get`."""
        lease = self.lease(block, timeout)
        self._finish(lease)
        return lease.frame

    # ---- leases

    def lease(self, block: bool = True, timeout: float | None = None) -> Lease:
        """Lease a frame: no other getter gets it until it is given back.

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
        Every frame is delivered until a live getter acknowledges it: exactly once
        unless a getter dies, gives it back, or exceeds `lease_timeout`. A redelivered
        frame has the same ``id``.
        """
        check_timeout(timeout)
        deadline = self._deadline(block, timeout)
        while True:
            lease = self._lease(Lease, deadline)
            if isinstance(lease, int):
                self._fail(lease, False)
            try:
                frame: Any = lease.data if lease.view is None else lease.view
                name = name_of_large(frame, self._name) if lease.is_large else None
                if name is not None:
                    frame = self._view_large(name)
                if frame is not None:
                    lease._frame = self._frame(frame)
                    return lease
            except ValueError as error:
                if isinstance(error, CorruptFrame):
                    error.data = bytes(frame)
                with suppress(LeaseLost):
                    lease.acknowledge()
                raise
            # Acknowledged by a getter that died before it freed the slot.
            with suppress(LeaseLost):
                lease.acknowledge()

    def __iter__(self) -> Iterator[Any]:
        """Get values one by one; each is acknowledged at the next step.

        A loop that is left by an exception or ``break`` gives its last value back:
        another getter gets it. Waits without limit; ends when the handle is closed.

        Examples
        --------
        >>> from ataraxis import MemQ
        >>> queue = MemQ()
        >>> queue.put_many([1, 2, 3])
        3
        >>> for number in queue:
        ...     if number == 2:
        ...         break
        >>> queue.get_many()
        [2, 3]
        """
        while self.is_open:
            with self.lease() as lease:
                yield lease.value

    def _lose(self, number: int) -> NoReturn:
        raise LeaseLost(
            f"queue {self._name!r}: the lease of frame {number} ran out before it was "
            "acknowledged, and another getter has it; make the queue with a longer "
            "lease_timeout="
        )

    # ---- acknowledgements

    def _get_leased(self, block: bool, timeout: float | None) -> Any:
        """Get with a later acknowledgement, or from a slot that is leased already."""
        if self._ack_mode == "next":
            while self._unfinished:
                self._unfinished.popleft().acknowledge()
        lease = self.lease(block, timeout)
        self._finish(lease)
        return lease.value

    def _finish(self, lease: Lease) -> None:
        """Acknowledge a lease now, or keep it for `task_done` or the next get."""
        if self._ack_mode == "get":
            lease.acknowledge()
        else:
            self._unfinished.append(lease)

    def task_done(self) -> None:
        """Acknowledge the oldest `get` of this handle that is not acknowledged.

        Raises
        ------
        ValueError
            Every `get` is acknowledged, as always without ``acknowledge="task_done"``.
        LeaseLost
            The lease expired before.
        """
        try:
            lease = self._unfinished.popleft()
        except IndexError:
            raise ValueError(
                f"queue {self._name!r}: task_done() without an unacknowledged get(); "
                'open the handle with acknowledge="task_done"'
            ) from None
        lease.acknowledge()

    def join(self, timeout: float | None = None) -> None:
        """Wait until every frame that was put is acknowledged.

        Raises
        ------
        TimeoutError
            Some were not acknowledged within `timeout`, s.
        """
        check_timeout(timeout)
        status = self._await_idle(timeout)
        if status == status_of.DAMAGED:
            self._fail(status, False)
        if status != status_of.OK:
            raise GetTimeout(
                f"queue {self._name!r}: {self._counts()[0]} frames wait and "
                f"{self._counts()[1]} are leased after {timeout} s"
            )

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until there is probably a frame to get, or another thread calls `nudge`.

        Parameters
        ----------
        timeout : float or None
            Longest wait, s.

        Returns
        -------
        bool
            False: nothing happened within `timeout`. True: try to get; another getter
            may be first.
        """
        check_timeout(timeout)
        status = self._await_data(timeout)
        if status == status_of.DAMAGED:
            self._fail(status, False)
        return bool(status == status_of.OK)

    def nudge(self) -> None:
        """End the `wait` of every getter."""
        self._nudge()

    def _end_leases(self) -> None:
        """Acknowledge the deferred leases, or give them back."""
        while self._unfinished:
            lease = self._unfinished.popleft()
            if self._ack_mode == "next":
                lease.acknowledge()
            else:
                lease.give_back()

    # ---- draining into a buffer

    def drain_into(
        self,
        buffer: Any,
        block: bool = True,
        timeout: float | None = None,
        *,
        seed: int = 0,
        acknowledge: bool = True,
    ) -> tuple[int, int]:
        """Copy the frames in the queue into a buffer, one after the other.

        Parameters
        ----------
        buffer : writable bytes-like
            At least one slot long; filled with as many whole frames as fit.
        block, timeout
            As for `get`: waits for the first only.
        seed : int
            Start value of the headers' CRCs: ``crc32(uuid)`` in a journal.
        acknowledge : bool
            False: they are acknowledged later, by `acknowledge_drained`. If the process
            dies before that, other getters get them.

        Returns
        -------
        tuple of int
            Bytes written, and frames. Each frame begins at a multiple of 64, with zeros
            between. Checksums of payloads are not checked.

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
            end, frames = self._drain_large(view, end, frames, name, number, seed)
            if acknowledge:
                self._settle_drained(True, before)
        if not frames:
            if status == status_of.OVERFLOW and number is not None:
                raise DataOverflow(
                    f"queue {self._name!r}: the next frame has {number} bytes, the "
                    f"buffer {len(view)}; drain into a larger one"
                )
            if status == status_of.OVERFLOW:
                raise DataOverflow(
                    f"queue {self._name!r}: a buffer of {len(view)} bytes is shorter "
                    f"than a slot: give at least {self._geometry[1]} bytes"
                )
            if status != status_of.OK:
                self._fail(status, False)
        return end, frames

    def _drain_large(
        self,
        view: memoryview,
        at: int,
        frames: int,
        ticket: bytes,
        number: int | None,
        seed: int,
    ) -> tuple[int, int]:
        """Copy a large frame, or give it back if it does not fit."""
        name = name_of_large(ticket, self._name)
        if name is None:
            self._release_drained(not frames, self._drained - 1)
            if frames:
                return at, frames
            raise CorruptFrame(
                f"queue {self._name!r}: a slot names a segment for its large frame, "
                f"but {ticket[:40]!r} is not the name of one; the frame is lost"
            )
        frame = view_large(name, self._where)
        if frame is None:
            self._segments.append(name)
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
        self._segments.append(name)
        view[at : at + len(frame)] = frame
        view[at + len(frame) : end] = bytes(end - at - len(frame))
        if seed or number is not None:
            labels_id = int.from_bytes(frame[56:60], "little")
            restamp(view, at, labels_id=labels_id, seed=seed, sequence=number)
        return end, frames + 1

    def acknowledge_drained(self) -> None:
        """Acknowledge the frames that ``drain_into(acknowledge=False)`` has copied.

        Raises
        ------
        LeaseLost
            Some leases expired before: another getter got those frames.
        """
        lost = self._settle_drained(True, 0)
        if lost:
            raise LeaseLost(
                f"queue {self._name!r}: {lost} leases expired before their frames were "
                "acknowledged; make it with a longer lease_timeout="
            )

    def give_back_drained(self) -> None:
        """Give back the frames that ``drain_into(acknowledge=False)`` has copied."""
        self._settle_drained(False, 0)

    def _settle_drained(self, is_done: bool, first: int) -> int:
        if is_done:
            while self._segments:
                remove_large(self._segments.pop(), self._where)
        self._segments.clear()
        return self._release_drained(is_done, first)

    # ---- called by the kernel

    def _frame(self, data: Any) -> Frame:
        return Frame.from_buffer(data, allow_pickle=self._allow_pickle)

    def _decode(self, data: Any) -> Any:
        return self._frame(data).value

    def _open_large(self, name: bytes) -> memoryview | None:
        large = name_of_large(name, self._name)
        # Bytes that are not a name are not a frame either: `_decode` raises.
        return memoryview(name) if large is None else self._view_large(large)

    def _view_large(self, name: str) -> memoryview | None:
        frame = view_large(name, self._where)
        if self._pins_arena and frame is not None:
            self._count_unpinned(len(frame))
        return frame

    def _unlink_large(self, name: bytes) -> None:
        large = name_of_large(name, self._name)
        if large is not None:
            remove_large(large, self._where)

    # ---- putting

    def put_nowait(self, obj: Any) -> None:
        """Put without waiting; `QueueFull` if there is no room."""
        self.put(obj, False)

    async def put_async(self, obj: Any, timeout: float | None = None) -> None:
        """Put without blocking the event loop, as `get_async`; raises as `put`."""
        check_timeout(timeout)

        def attempt() -> Any:
            if not self._has_room:
                return NOTHING
            try:
                self.put(obj, False)
            except QueueFull:
                return NOTHING
            return None

        if await until(attempt, RoomEvent(self), timeout=timeout) is NOTHING:
            self._fail(status_of.TIMEOUT, True)

    def share_slots(self) -> None:
        """Let puts of this handle share a slot with its last put, if that waits.

        For many small values and a getter that takes whole slots. Values of one handle
        stay in order; a value may overtake older ones of other handles.
        """
        # Threads share the place of the handle's last put, guarded by the GIL.
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
        """Put several values in one call; return how many.

        Parameters
        ----------
        values : iterable
            As for `put`.
        block, timeout
            As for `put`, for all of them together.
        pack : bool
            Up to 64 small frames share a slot. A getter leases such a slot as a whole;
            for jobs that several workers share, give False.
        source, time_ns : int, optional
            As for `put`, of each.

        Raises
        ------
        QueueFull, TimeoutError
            Only the first values found room: `count` of the error is how many.
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
        """Put each row as a frame, several to a slot if they fit, in one call.

        The rows are uint8, (n, bytes), contiguous; `header` is the frame header of a
        row, 64 bytes; `device_time` and `step` are of the first row, and from row to
        row, u64. A `timeout` of 0 does not wait. Returns False, with nothing put, if a
        row is larger than a slot. Raises `QueueFull` or `TimeoutError`, whose `count`
        is how many were put.
        """
        deadline = self._deadline(True, timeout) if timeout != 0 else 0
        done, status = self._put_rows(rows, header, device_time, step, deadline)
        if status not in (status_of.OK, status_of.OVERFLOW):
            self._fail(status, True, done)
        return status == status_of.OK

    def offer(self, frame: bytes, timeout: float | None = None) -> bool:
        """Put an encoded frame as it is; return whether it found room.

        It keeps its own checksum. A `timeout` of None waits without limit, of 0 not at
        all.
        """
        deadline = self._deadline(True, timeout)
        return self._put_whole(frame, False, deadline) == status_of.OK

    def _encode(
        self,
        value: Any,
        source: int,
        time_ns: int | None,
        device_time: int | None,
        device_sequence: int | None,
    ) -> tuple[bytes, bool]:
        """Return a value as an encoded frame, and whether the queue numbers it."""
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
        """Put a value that the kernel does not encode, or that fits no chunk."""
        frame, is_numbered = self._encode(value, *stamps)
        return self._put_whole(frame, is_numbered, deadline)

    def _put_whole(self, frame: bytes, is_numbered: bool, deadline: int) -> int:
        """Put an encoded frame of any size: into a slot, a chunk or a segment."""
        status = self._put_frame(frame, is_numbered, deadline)
        if status == status_of.OVERFLOW:
            status = self._put_large(frame, is_numbered, deadline)
        return status

    def _attach_arena(self, nbytes: int) -> Arena | None:
        """Attach to the arena; make it for a frame of `nbytes`, if that is not 0."""
        segment = self._attached()
        if nbytes:
            kernel.note_large(_control(segment))
        found = open_arena(segment, self._geometry[0], nbytes)
        if found is None:
            return None
        arena = Arena(found.payload, found.participant)
        if self._pins_arena:
            self._pin_arena(found)
        return arena

    def pin_arena(self) -> None:
        """Lock the pages of the queue's arena for copies to GPUs, once it has one.

        Arrays that a getter returns from it are then copied faster, as those of a
        pinned stream. `close` unlocks them. Where that is not possible, a
        `RuntimeWarning` tells why: copies work without. Values that do not fit the
        arena are copied as without, too: the first is warned of, `unpinned_count`
        counts them.
        """
        self._pins_arena = True

    _pins_arena = False
    _arena_pin: Pin | None = None
    _unpinned = 0

    @property
    def unpinned_count(self) -> int:
        """Values got since `pin_arena` that lay outside of the arena."""
        return self._unpinned

    def _count_unpinned(self, nbytes: int) -> None:
        self._unpinned += 1
        if self._unpinned == 1:
            warnings.warn(
                f"queue {self._name!r}: a value of {nbytes:,} bytes lies outside of "
                "the page-locked arena, and is copied to the GPU as from pageable "
                "memory: send smaller values, or fewer at a time",
                RuntimeWarning,
                stacklevel=4,
            )

    def _pin_arena(self, arena: Segment) -> None:
        mapping = arena.mapping
        what = f"the arena of queue {self._name!r}"
        self._arena_pin = Pin(mapping, mapping.address, len(mapping), what)
        try:
            self._arena_pin.begin()
        except (GpuUnavailable, PinError) as error:
            self._pins_arena = False
            warnings.warn(str(error), RuntimeWarning, stacklevel=2)

    def _put_large(self, frame: bytes, is_numbered: bool, deadline: int) -> int:
        if self._segment is not None:
            kernel.note_large(_control(self._segment))
        segment = make_large(self._name, self._where, frame)
        name = segment.name.encode()
        status = status_of.FULL
        try:
            payload = len(frame) - HEADER_BYTES
            status = self._put_ticket(name, payload, is_numbered, deadline)
        finally:
            if status != status_of.OK:
                remove_large(segment.name, self._where)
        return status

    # ---- the fast path of frames with an origin

    def post(
        self,
        value: Any,
        code: int,
        origin: tuple[int, int, int],
        source: int,
        time_ns: int,
        timeout: float | None,
    ) -> bool | None:
        """Put a value as a frame with an origin; return whether it found room.

        The value is a number, None, bytes, text or an array, encoded in place as
        `code`, a `DType`, or -1 for its own. `origin` is source, sequence and part of
        `Origin`; the frame gets its sequence. Returns None, with nothing done, if the
        kernel cannot encode it: encode it and `offer`, which has the same `timeout`.
        """
        deadline = 0 if timeout == 0 else self._deadline(True, timeout)
        status = self._post(value, code, *origin, 0, source, time_ns, deadline)
        if status == status_of.OK:
            return True
        return False if status in _NO_ROOM else None

    def limit_depth(self, nbytes: int, frames: int) -> None:
        """From now on, large puts of this handle also wait while many of them wait.

        The queue counts as full while frames of the size of the one to be put wait in
        it that have `nbytes` together, or more, and are at least `frames`: a short
        queue stays in the cache.
        """
        self._deep_bytes, self._least_frames = nbytes, max(1, frames)

    def copy_large(self) -> None:
        """From now on, leased frames in chunks are copies, not views of the chunk."""
        self._views = False

    def empty_message(
        self, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> NDArray[Any] | None:
        """Return an array to fill and `post`, without a copy then.

        None: it would fit a slot, its dtype has no fast path, or no chunk is free.
        """
        return self._empty(shape, dtype)

    @property
    def has_partial(self) -> bool:
        """Whether frames of a slot that is leased already come next."""
        return bool(self._partial)

    def hold(self, timeout: float | None = None) -> Message | FrameLease | None:
        """Lease a frame; None if none came within `timeout`, s.

        For callers that decode frames themselves. A frame of `post` is a `Message`,
        decoded and checked; another is a `FrameLease` of its bytes; one that shares
        its slot, or has a segment of its own, is a `Lease`.
        """
        deadline = 0 if timeout == 0 else self._deadline(True, timeout)
        while not self._partial:
            found = self._fetch(deadline)
            if isinstance(found, int):
                return None
            if found is not None:
                return found
        return self.lease(True, timeout)


def _clear(name: str, context: Context) -> None:
    """Remove an empty queue of the name that has no participant."""
    try:
        old = MemQ.attach(name, context=context)
    except (SegmentNotFound, LayoutError):
        return
    old.sweep()
    old.close()


def _attach(kind: Any, name: str, path: str, uuid: bytes, options: Any) -> Any:
    """Attach to the queue of a pickled handle."""
    segment = Segment.attach(name, kind=Kind.QUEUE, context=path, uuid=uuid)
    return kind.of_segment(segment, *options)


def _at_exit(handle: weakref.ref[MemQ]) -> None:
    """Leave when the interpreter ends."""
    queue = handle()
    if queue is not None:
        begin_exit()
        queue.close()
        # A daemon thread inside a call leaves first, and removes the name.
        queue._has_left.wait(_EXIT_S)


def _control(segment: Segment) -> NDArray[np.uint8]:
    """Return a view of a queue's control block."""
    g = segment.header.geometry
    memory = np.frombuffer(memoryview(segment.mapping), np.uint8)
    return memory[g.control : g.control + g.control_bytes]
