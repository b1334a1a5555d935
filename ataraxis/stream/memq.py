"""MemQ: a work queue. Each frame goes to one getter, who acknowledges it."""

from __future__ import annotations

import math
import os
import sys
import uuid
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
from ataraxis._kernels.queue_handle import FrameLease, Message, QueueHandle
from ataraxis.clock import now_ns
from ataraxis.errors import (
    CorruptFrame,
    DataOverflow,
    GetTimeout,
    LayoutError,
    LeaseLost,
    NotConnectedError,
    PutTimeout,
    QueueEmpty,
    QueueFull,
    SegmentNotFound,
)
from ataraxis.frame import HEADER_BYTES, Frame, crc32, restamp
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
from ataraxis.stream.endpoint import check_timeout, plain_name
from ataraxis.stream.lease import (
    Lease,
    make_large,
    name_of_large,
    part_queue,
    remove_large,
    sweep_large,
    view_large,
)
from ataraxis.stream.statistics import QueueStatistics, compose_queue

# ---- what is waited for in a queue, by a loop


class DataEvent(EventWord):
    """A frame in a queue, for who waits in a loop."""

    def __init__(self, queue: MemQ) -> None:
        super().__init__(queue._attached(), QUEUE_DATA)
        # A descriptor must not keep a handle that is dropped.
        self._queue = weakref.ref(queue)

    def is_ready(self) -> bool:
        """Whether there is probably a frame, or the handle was closed."""
        queue = self._queue()
        if queue is None or not queue.is_open:
            return True
        return bool(queue._partial) or queue._has_data


class RoomEvent(EventWord):
    """Room in a queue, for who waits in a loop."""

    def __init__(self, queue: MemQ) -> None:
        super().__init__(queue._attached(), QUEUE_SPACE)
        self._queue = weakref.ref(queue)

    def is_ready(self) -> bool:
        """Whether there is probably room, or the handle was closed."""
        queue = self._queue()
        return queue is None or not queue.is_open or queue._has_room


_NEVER = (1 << 63) - 1


_EXIT_S = 2.0


def _arrive(kind: Any, name: str, where: str, uuid: bytes, manners: Any) -> Any:
    """Attach to the queue that a pickled handle named."""
    segment = Segment.attach(name, kind=Kind.QUEUE, context=where, uuid=uuid)
    return kind.of_segment(segment, *manners)


_PAD = 64


_WAITED = (status_of.FULL, status_of.TIMEOUT)


# ---- the queue

Acknowledge: TypeAlias = Literal["get", "next", "task_done"]
_MANNERS = ("get", "next", "task_done")
# Header and all extensions of a frame, up to the next multiple of 64.
_FRONT = 192
_NAME_BYTES = 180


class MemQ(QueueHandle):
    """A work queue in shared memory: any number of putters and getters.

    Parameters
    ----------
    name : str, optional
        Its name in the context, by which others `attach`; one of its own, if not given.
    buffer_count : int
        Slots: how many frames it holds, more of small ones that `put_many` packs.
    buffer_size : int
        Payload bytes that fit a slot. A larger frame travels in a segment of its own,
        some 300 us more.
    lease_timeout : float, optional
        How long a getter may keep a frame that it does not acknowledge, s; then another
        gets it. Without it, as long as the getter lives.
    acknowledge : {'get', 'next', 'task_done'}
        When a `get` of this handle is acknowledged: when it returns; by the next `get`,
        or `close`; or by `task_done`. Until then another getter has the frame again if
        this process dies. `lease` says it frame by frame.
    checksum : bool
        Give frames a CRC-32, checked by the getter.
    allow_pickle : bool
        Whether values that nothing else carries may be pickled; on both ends.
    context : Context, str, Path or None
        The directory it lives in.
    participants : int
        How many handles may be open at a time, 1 to 1024.
    mode, group : optional
        Permission bits and group of the file, see `Segment.create`.
    size : int, optional
        Bytes for all slots together, as uPipe has it, in place of `buffer_count`.

    Raises
    ------
    SegmentExists
        A live queue has the name, or one with frames that nobody has had.

    Notes
    -----
    A handle may be used by any number of threads. It is sent to other processes by any
    start method: a pickled one is a name, a forked one attaches anew at its first use.
    The name goes with the last handle that leaves the queue empty. With frames in it,
    the queue stays, also after its last process was killed: `attach` and get them.

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
        if size is not None:
            if size < 1:
                raise ValueError(f"size={size} bytes: at least 1")
            buffer_count = max(2, size // (-(-(buffer_size + _FRONT) // 64) * 64))
        if not 0 < buffer_count < 1 << 31:
            raise ValueError(f"buffer_count={buffer_count}: at least 1")
        if not 0 <= buffer_size < 1 << 31:
            raise ValueError(f"buffer_size={buffer_size}: 0 to 2 GiB")
        if lease_timeout is not None and not lease_timeout > 0:
            raise ValueError(f"lease_timeout={lease_timeout!r}: None or more than 0 s")
        self._introduce(acknowledge, checksum, allow_pickle)
        stride = -(-(buffer_size + _FRONT) // 64) * 64
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
        self._plug(segment)

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
            How long to wait for one that is not there yet, s.
        acknowledge, checksum, allow_pickle, context
            As for `MemQ`; they are each handle's own.

        Raises
        ------
        SegmentNotFound
            No segment has the name (`timeout` 0).
        TimeoutError
            None had it within `timeout`.
        LayoutError
            It is no queue, or damaged.
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
        queue._introduce(acknowledge, checksum, allow_pickle)
        queue._plug(segment)
        return queue

    def _introduce(
        self, acknowledge: Acknowledge, checksum: bool, allow_pickle: bool
    ) -> None:
        if acknowledge not in _MANNERS:
            raise ValueError(f"acknowledge={acknowledge!r}: {', '.join(_MANNERS)}")
        self._segment: Segment | None = None
        self._ack_mode: Acknowledge = acknowledge
        self._checksum = bool(checksum)
        self._allow_pickle = bool(allow_pickle)
        self._begin()

    def _plug(self, segment: Segment) -> None:
        """Take part; the handle is open from here on."""
        self._name = segment.name
        self._where = segment.context
        self._uuid = segment.header.uuid
        self._capacity = segment.labels.nbytes
        part = segment.participant
        if not segment.header.geometry.payload_bytes or not self._open(
            segment.payload, part, crc32, self._checksum
        ):
            raise LayoutError(
                f"segment {segment.name!r} is no work queue, or its control block does "
                "not fit the file: it holds one large frame of a queue, or was damaged"
            )
        self._has_left = Latch()
        self._farewell = weakref.finalize(self, _at_exit, weakref.ref(self))
        # Last: what has a segment leaves it.
        self._segment = segment
        process = sys.modules.get("multiprocessing.process")
        util = sys.modules.get("multiprocessing.util")
        if process is not None and util is not None and process.parent_process():
            # Its children end without the interpreter's own clean-up.
            util.Finalize(self, _at_exit, (weakref.ref(self),), exitpriority=10)

    # ---- leaving

    def close(self) -> None:
        """Leave the queue: what this handle got and did not acknowledge goes back.

        With ``acknowledge="next"`` the last frame is acknowledged. The name goes if the
        queue is empty and nobody else takes part.
        """
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            descriptor.close()
        if self.is_open and not self._is_copy:
            self._end_leases()
        self._shut()

    def unlink(self) -> None:
        """Take the queue's name away, with what is in it, and leave it."""
        segment = self._segment
        has_larges = False
        if segment is not None and not self._is_copy:
            has_larges = kernel.has_larges(_control(segment))
            snapshot.keep(segment.participant, False)
            segment.unlink()
        self.close()
        if has_larges:
            sweep_large(self._name, self._where)

    def join_thread(self) -> None:
        """Do nothing: there is no thread; what `put` took is in the queue."""

    cancel_join_thread = join_thread

    def _gone(self) -> None:
        """Take the name away, if nothing is left, now that the last call has left."""
        segment, self._segment = self._segment, None
        self._farewell.detach()
        try:
            if segment is None or segment.participant.is_inherited:
                return
            descriptor = os.dup(segment.participant.descriptor)
            context, slots = segment.context, segment.header.geometry.participants
            has_larges = kernel.has_larges(_control(segment))
            del segment
            part_queue(self._name, context, descriptor, slots, has_larges)
        finally:
            self._has_left.set()

    def __enter__(self) -> MemQ:
        return self

    def __exit__(self, *exc: object) -> None:
        """Close."""
        self.close()

    def __del__(self) -> None:
        """Leave with the last reference."""
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
        """How many frames wait for a getter, those of a slot we lease among them."""
        return self._counts()[0] + sum(slot_lease.left for slot_lease in self._partial)

    def empty(self) -> bool:
        """Whether no frame waits for a getter."""
        return self.qsize() == 0

    def had_before(self) -> list[int]:
        """Numbers of frames that a getter has, or had and did not acknowledge.

        Their sequences, if they were numbered here; they come (again) if it dies.
        """
        return self._had_before()

    def full(self) -> bool:
        """Whether a put would have to wait."""
        return not self._has_room

    def statistics(self) -> QueueStatistics:
        """Read the queue's control words; disturbs nobody."""
        segment = self._attached()
        return compose_queue(
            self._name,
            (self.buffer_count, self.buffer_size),
            self._counts(),
            self._tallies(),
            segment.participant.recoveries,
        )

    def sweep(self) -> int:
        """Clean up after every dead participant now; how many there were."""
        return self._attached().participant.sweep()

    def __repr__(self) -> str:
        return f"<MemQ {self._name!r}, {'open' if self.is_open else 'closed'}>"

    # ---- the kernel with manners

    _name: str
    _where: Context
    _uuid: bytes
    _ack_mode: str
    _checksum: bool
    _allow_pickle: bool
    _segment: Segment | None
    _descriptor: Descriptor | None = None

    def _begin(self) -> None:
        """Forget whatever is leased: at the start, and in a forked child."""
        self._descriptor = None
        self._partial = []
        self._unfinished: deque[Lease] = deque()
        self._segments: list[str] = []
        self._acknowledges = self._is_plain = self._ack_mode == "get"

    @property
    def _is_copy(self) -> bool:
        """Whether this is a forked child's copy of a handle, not attached itself."""
        return self._segment is not None and self._segment.participant.is_inherited

    def _attached(self) -> Segment:
        """Return the segment, or raise because the handle was closed."""
        if not self.is_open or self._is_copy:
            self._revive()
        assert self._segment is not None
        return self._segment

    def _revive(self) -> None:
        """Attach anew in a forked child; else say why the handle is of no use."""
        if not self._is_copy:
            end_daemon()
            raise NotConnectedError(
                f"queue {self._name!r}: this handle was closed; attach({self._name!r})"
            )
        segment = Segment.attach(
            self._name, kind=Kind.QUEUE, context=self._where, uuid=self._uuid
        )
        self._begin()
        self._plug(segment)

    def _fail(self, status: int, is_put: bool, count: int = 0) -> NoReturn:
        """Turn a status of the kernel into its exception; the only place that does."""
        name = self._name
        error: QueueFull | QueueEmpty | PutTimeout | GetTimeout
        if status == status_of.FULL:
            error = QueueFull(
                f"queue {name!r}: every slot holds a frame that is not acknowledged; "
                "wait with timeout=, start more getters, or make it with a larger "
                "buffer_count="
            )
        elif status == status_of.EMPTY:
            self._found_nothing()
            error = QueueEmpty(f"queue {name!r} holds nothing; wait with timeout=")
        elif status == status_of.DAMAGED:
            raise LayoutError(
                f"queue {name!r} was damaged: {self._damage}. Take what still comes, "
                "and make the queue again under another name"
            )
        elif is_put:
            error = PutTimeout(
                f"queue {name!r}: no slot came free within the timeout; see "
                "statistics() for who holds them"
            )
        else:
            self._found_nothing()
            error = GetTimeout(f"queue {name!r}: nothing came within the timeout")
        if isinstance(error, QueueFull | PutTimeout):
            error.count = count
        raise error

    def _found_nothing(self) -> None:
        """Let the descriptor be quiet until there is something."""
        if self._descriptor is not None:
            # What is there now leaves it as it is: the next look gets it.
            self._descriptor.rearm(
                lambda: True if self._partial or self._has_data else NOTHING
            )

    def _deadline(self, block: bool, timeout: float | None) -> int:
        """Turn a timeout in s into a monotonic time, ns; 0: do not wait."""
        if not block or timeout == 0:
            return 0
        if timeout is None or timeout > 9e8 or math.isinf(timeout):
            return _NEVER
        return now_ns() + int(timeout * 1e9)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as a name: the other process attaches."""
        return _arrive, (
            type(self),
            self._name,
            str(self._where.path),
            self._uuid,
            (self._ack_mode, self._checksum, self._allow_pickle),
        )

    # ---- what a handle does to get frames out of its queue

    def get_nowait(self) -> Any:
        """Get without waiting; `QueueEmpty` if there is nothing."""
        return self.get(False)

    async def get_async(self, timeout: float | None = None) -> Any:
        """Get, awaited: in asyncio, uvloop or, with ``ataraxis[trio]``, trio.

        One thread of this process sleeps for all that wait. Who is cancelled has not
        got anything. Raises as `get`.
        """
        check_timeout(timeout)
        value = await until(self._try_get, DataEvent(self), timeout=timeout)
        if value is NOTHING:
            self._fail(status_of.TIMEOUT, False)
        return value

    def _try_get(self) -> Any:
        # A look is cheaper than an exception.
        if not self._partial and not self._has_data:
            self._found_nothing()
            return NOTHING
        try:
            return self.get(False)
        except QueueEmpty:
            return NOTHING

    def fileno(self) -> int:
        """Return a descriptor that is readable while there may be a frame.

        For `select`, ``loop.add_reader``, a QSocketNotifier. It becomes quiet when a
        get that does not wait has found nothing; so take frames until `QueueEmpty`, or
        one at a time, and expect `QueueEmpty`. Do not read from it or close it: `close`
        of the queue does.
        """
        self._attached()
        if self._descriptor is None:
            self._descriptor = Descriptor(DataEvent(self))
        return self._descriptor.number

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
        if self._ack_mode == "get":
            lease.acknowledge()
        else:
            self._defer_ack(lease)
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
            lease = self._lease(Lease, deadline)
            if isinstance(lease, int):
                self._fail(lease, False)
            try:
                frame: Any = lease.data
                name = name_of_large(frame, self._name) if lease.is_large else None
                if name is not None:
                    frame = view_large(name, self._where)
                if frame is not None:
                    lease._frame = self._frame(frame)
                    return lease
            except ValueError as error:
                if isinstance(error, CorruptFrame):
                    error.data = bytes(frame)
                with suppress(LeaseLost):
                    lease.acknowledge()
                raise
            # Acknowledged by a getter that died before the slot was free.
            with suppress(LeaseLost):
                lease.acknowledge()

    def __iter__(self) -> Iterator[Any]:
        """Get values one after the other; each is acknowledged at the next step.

        A loop that is left, by an exception or by ``break``, gives its last value back:
        another getter has it again. Waits without end; ends when the handle is closed.

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

    # ---- manners

    def _get_leased(self, block: bool, timeout: float | None) -> Any:
        """Get where the acknowledgement comes later, or from a slot that we have."""
        if self._ack_mode == "next":
            self._ack_deferred()
        lease = self.lease(block, timeout)
        if self._ack_mode == "get":
            lease.acknowledge()
        else:
            self._defer_ack(lease)
        return lease.value

    def _defer_ack(self, lease: Lease) -> None:
        self._unfinished.append(lease)

    def _ack_deferred(self) -> None:
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
        try:
            lease = self._unfinished.popleft()
        except IndexError:
            raise ValueError(
                f"queue {self._name!r}: task_done() without a get() that waits for it; "
                'open the handle with acknowledge="task_done"'
            ) from None
        lease.acknowledge()

    def join(self, timeout: float | None = None) -> None:
        """Wait until every frame that was put is acknowledged.

        Raises
        ------
        TimeoutError
            Some were not within `timeout`, s.
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
        status = self._await_data(timeout)
        if status == status_of.DAMAGED:
            self._fail(status, False)
        return bool(status == status_of.OK)

    def nudge(self) -> None:
        """End the `wait` of every getter, so that they look at what else they mind."""
        self._nudge()

    def _end_leases(self) -> None:
        """Leave no lease behind: the last ones are acknowledged, or go back."""
        while self._unfinished:
            lease = self._unfinished.popleft()
            if self._ack_mode == "next":
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
        name = name_of_large(ticket, self._name)
        if name is None:
            self._release_drained(not frames, self._drained - 1)
            if frames:
                return at, frames
            raise CorruptFrame(
                f"queue {self._name!r}: a slot says that its frame lies in a segment "
                f"of its own, and {ticket[:40]!r} is not the name of one; the frame is "
                "gone"
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
            while self._segments:
                remove_large(self._segments.pop(), self._where)
        self._segments.clear()
        return self._release_drained(is_done, first)

    # ---- what the kernel asks for

    def _frame(self, data: Any) -> Frame:
        return Frame.from_buffer(data, allow_pickle=self._allow_pickle)

    def _decode(self, data: Any) -> Any:
        return self._frame(data).value

    def _open_large(self, name: bytes) -> memoryview | None:
        large = name_of_large(name, self._name)
        # What is not a name is not a frame either, which `_decode` says.
        return memoryview(name) if large is None else view_large(large, self._where)

    def _unlink_large(self, name: bytes) -> None:
        large = name_of_large(name, self._name)
        if large is not None:
            remove_large(large, self._where)

    # ---- what a handle does to put values into its queue

    def put_nowait(self, obj: Any) -> None:
        """Put without waiting; `QueueFull` if there is no room."""
        self.put(obj, False)

    async def put_async(self, obj: Any, timeout: float | None = None) -> None:
        """Put, awaited: in asyncio, uvloop or, with ``ataraxis[trio]``, trio.

        Who is cancelled has not put anything. Raises as `put`.
        """
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

    # ---- putting and leasing of frames with an origin, as quick as it goes

    def post(
        self,
        value: Any,
        code: int,
        origin: tuple[int, int, int],
        source: int,
        time_ns: int,
        timeout: float | None,
    ) -> bool | None:
        """Put a value as a frame with an origin; whether it found room.

        Parameters
        ----------
        value : object
            A number, None, bytes, text or an array: written where it will lie.
        code : int
            How to write it, a `DType`; -1: as itself.
        origin : tuple of int
            The frame's `Origin`: source, sequence, part. The sequence is the frame's.
        source, time_ns : int
            Of the frame.
        timeout : float or None
            As for `offer`.

        Returns
        -------
        bool or None
            None: it does not go that way, nothing was done; encode it and `offer`.
        """
        deadline = 0 if timeout == 0 else self._deadline(True, timeout)
        status = self._post(value, code, *origin, 0, source, time_ns, deadline)
        if status == status_of.OK:
            return True
        return False if status in _WAITED else None

    def hold(self, timeout: float | None = None) -> Message | FrameLease | None:
        """Lease a frame; None if none came within `timeout`, s.

        For callers that decode frames themselves. A frame of `post` is a `Message`,
        decoded and checked; any other frame as its bytes, `FrameLease`; one that shares
        its slot with others, or lies in a segment of its own, as a `Lease`.
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
    """Take away an empty queue of the name that nobody takes part in any more."""
    try:
        old = MemQ.attach(name, context=context)
    except (SegmentNotFound, LayoutError):
        return
    old.sweep()
    old.close()


def _at_exit(handle: weakref.ref[MemQ]) -> None:
    """Leave when the interpreter ends; a handle that is gone has left already."""
    queue = handle()
    if queue is not None:
        begin_exit()
        queue.close()
        # A daemon thread that waits inside comes out first: it takes the name away.
        queue._has_left.wait(_EXIT_S)


def _control(segment: Segment) -> NDArray[np.uint8]:
    """View a queue's control block."""
    g = segment.header.geometry
    memory = np.frombuffer(memoryview(segment.mapping), np.uint8)
    return memory[g.control : g.control + g.control_bytes]
