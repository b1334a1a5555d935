"""MemQ: a work queue. Each frame goes to one getter, who acknowledges it."""

from __future__ import annotations

import os
import sys
import uuid
import weakref
from typing import Literal, TypeAlias

import numpy as np

from ataraxis._kernels import queue as kernel
from ataraxis._kernels import snapshot
from ataraxis.errors import LayoutError, SegmentNotFound
from ataraxis.frame import crc32
from ataraxis.labels import Labels
from ataraxis.shm.context import Context, ContextLike, checked_name
from ataraxis.shm.header import Kind
from ataraxis.shm.segment import Segment
from ataraxis.stream import _large
from ataraxis.stream._end import check_timeout, plain_name
from ataraxis.stream._posting import Posting
from ataraxis.stream.queue_statistics import QueueStatistics, compose

Acknowledge: TypeAlias = Literal["get", "next", "task_done"]
_MANNERS = ("get", "next", "task_done")
# Header and all extensions of a frame, up to the next multiple of 64.
_FRONT = 192
_NAME_BYTES = 180


class MemQ(Posting):
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
    ) -> None:
        if name is None:
            name = f"memq-{uuid.uuid4().hex[:16]}"
        name = checked_name(plain_name(name))
        if len(name.encode()) > _NAME_BYTES:
            raise ValueError(f"a queue's name has at most {_NAME_BYTES} bytes: {name}")
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
            g = segment.header.geometry
            control = np.frombuffer(memoryview(segment.mapping), np.uint8)
            control = control[g.control : g.control + g.control_bytes]
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
        self._manner: Acknowledge = acknowledge
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
        self._segment = segment
        self._farewell = weakref.finalize(self, _at_exit, weakref.ref(self))
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
        if self.is_open and not self._is_copy:
            self._end_leases()
        self._shut()

    def unlink(self) -> None:
        """Take the queue's name away, with what is in it, and leave it."""
        segment = self._segment
        if segment is not None and not self._is_copy:
            snapshot.keep(segment.participant, False)
            segment.unlink()
        self.close()
        _large.sweep(self._name, self._where)

    def join_thread(self) -> None:
        """Do nothing: there is no thread; what `put` took is in the queue."""

    cancel_join_thread = join_thread

    def _gone(self) -> None:
        """Take the name away, if nothing is left, now that the last call has left."""
        segment, self._segment = self._segment, None
        self._farewell.detach()
        if segment is None or segment.participant.is_inherited:
            return
        descriptor = os.dup(segment.participant.descriptor)
        context, slots = segment.context, segment.header.geometry.participants
        del segment
        _large.part(self._name, context, descriptor, slots)

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
        with self._guard:
            ours = sum(grip.pending.bit_count() for grip in self._pocket)
        return self._counts()[0] + ours

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
        return compose(
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
        queue.close()
