"""Lease: a frame that one getter has, and has not acknowledged yet."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from ataraxis._kernels import queue as kernel
from ataraxis._kernels import survey
from ataraxis._kernels.mapping import crash_point
from ataraxis._kernels.participants import anybody
from ataraxis.errors import AtaraxisError, LayoutError, LeaseLost, SegmentNotFound
from ataraxis.frame import Frame
from ataraxis.labels import Labels
from ataraxis.shm import files
from ataraxis.shm.header import Header, Kind
from ataraxis.shm.segment import Segment

if TYPE_CHECKING:
    from ataraxis._kernels.get import Grip
    from ataraxis.shm.context import Context


class Lease:
    """A frame out to a getter: nobody else gets it until it is given back.

    Made by `MemQ.lease`. A context manager: acknowledges at the end of the block, gives
    the frame back after an exception. If the process dies first, or drops the lease,
    another getter gets the frame.

    Examples
    --------
    >>> from ataraxis import MemQ
    >>> queue = MemQ()
    >>> queue.put("scan 7")
    >>> with queue.lease() as job:
    ...     job.value, job.attempt
    ('scan 7', 1)
    >>> queue.empty()
    True
    """

    def __init__(
        self,
        name: str,
        grip: Grip,
        place: int,
        frame: Frame,
        finish: Callable[[bool], bool],
    ) -> None:
        self._name = name
        self._grip = grip
        self._place = place
        self._frame = frame
        self._finish = finish
        self._is_over = False

    @property
    def frame(self) -> Frame:
        """The frame: a copy, or a view of the segment of its own; stays valid."""
        return self._frame

    @property
    def value(self) -> Any:
        """What was put, read anew at each use; arrays are views of `frame`."""
        return self._frame.value

    @property
    def id(self) -> int:
        """Number of the frame in the queue: the same at each delivery, never reused."""
        return self._grip.id * 64 + self._place

    @property
    def attempt(self) -> int:
        """1 at the first delivery; more after somebody had it and failed."""
        return self._grip.failures + 1

    @property
    def is_over(self) -> bool:
        """Whether it was acknowledged or given back."""
        return self._is_over

    def acknowledge(self) -> None:
        """Say that the frame is done with; does nothing the second time.

        Raises
        ------
        LeaseLost
            The lease ran out, and another getter has, or had, the frame.
        """
        if not self._is_over:
            self._is_over = True
            if not self._finish(True):
                raise LeaseLost(
                    f"queue {self._name!r}: the lease of frame {self.id} ran out "
                    "before it was acknowledged, and another getter has it; make the "
                    "queue with a longer lease_timeout="
                )

    def give_back(self) -> None:
        """Let another getter have the frame; does nothing after the lease is over."""
        if not self._is_over:
            self._is_over = True
            self._finish(False)

    ack = acknowledge
    nack = give_back

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        """Acknowledge; give back after an exception."""
        if kind is None:
            self.acknowledge()
        else:
            self.give_back()

    def __del__(self) -> None:
        """Give back what was dropped."""
        if not getattr(self, "_is_over", True):
            self.give_back()

    def __repr__(self) -> str:
        state = "over" if self._is_over else f"attempt {self.attempt}"
        return f"<Lease of frame {self.id}, {state}>"


# ---- `Held`: a leased frame as its bytes, for those who decode it themselves


class Held:
    """What a `Lease` is, without its comfort: quick to make, and nothing is decoded.

    Made by `MemQ.hold`.
    """

    __slots__ = ("_grip", "_is_over", "_settle", "data")

    def __init__(
        self, settle: Callable[[Grip, int, bool], int], grip: Grip, data: bytes
    ) -> None:
        self._settle, self._grip = settle, grip
        self._is_over = False
        self.data = data
        """The whole frame; its checksums were not looked at."""

    @property
    def id(self) -> int:
        """Number of the frame in the queue: the same at each delivery, never reused."""
        return self._grip.id * 64

    @property
    def attempt(self) -> int:
        """1 at the first delivery; more after somebody had it and failed."""
        return self._grip.failures + 1

    def acknowledge(self) -> None:
        """Say that the frame is done with; `LeaseLost` if the lease ran out before."""
        if not self._is_over:
            self._is_over = True
            if self._settle(self._grip, 1, False):
                raise LeaseLost(f"the lease of frame {self.id} ran out")

    def give_back(self) -> None:
        """Let another getter have the frame; does nothing after the lease is over."""
        if not self._is_over:
            self._is_over = True
            self._settle(self._grip, 0, True)

    def __del__(self) -> None:
        """Give back what was dropped."""
        if not self._is_over:
            with suppress(AtaraxisError):  # the handle was closed: that gave it back
                self.give_back()


# ---- frames that are larger than a slot: each in a segment of its own, named in the
# slot

# The segment is kept from before its name is in the queue until the acknowledgement
# takes it away. Whoever dies in between leaves either nothing, a file that `ataraxis
# gc` removes, or one that the last to leave the queue does.

MARK = "~"
PARTICIPANTS = 8


def make_large(queue: str, context: Context, frame: bytes) -> Segment:
    """Write a frame into a segment of its own, kept until `remove_large`."""

    def fill(segment: Segment) -> None:
        segment.payload[:] = np.frombuffer(frame, np.uint8)

    segment = Segment.create(
        f"{queue}{MARK}{uuid.uuid4().hex[:16]}",
        Kind.QUEUE,
        Labels("u1", (len(frame),), ("byte",)),
        control_bytes=kernel.control_bytes(0, PARTICIPANTS),
        payload_bytes=len(frame),
        fill=fill,
        context=context,
        participants=PARTICIPANTS,
    )
    crash_point(b"large_made")
    survey.keep(segment.participant, True)
    segment.keep_name()
    crash_point(b"large_kept")
    return segment


def view_large(name: str, context: Context) -> memoryview | None:
    """View the frame in a segment; None: it was acknowledged and is gone.

    The view keeps the memory, also after the name is gone.
    """
    try:
        segment = Segment.attach(name, kind=Kind.QUEUE, context=context)
    except SegmentNotFound:
        return None
    return segment.payload.data.toreadonly()


def remove_large(name: str, context: Context) -> None:
    """Take the segment's name away: the frame is done with."""
    with contextlib.suppress(FileNotFoundError):
        context.unlink(name)
    crash_point(b"large_gone")


def part_queue(queue: str, context: Context, descriptor: int, slots: int) -> None:
    """Take a queue's name away if it is empty and nobody takes part in it any more."""
    try:
        directory = context.open_directory()
    except FileNotFoundError:
        os.close(descriptor)
        return
    try:
        if files.take_name(descriptor, directory, queue, slots, is_forced=False):
            sweep_large(queue, context)
    finally:
        os.close(directory)
        os.close(descriptor)


def sweep_large(queue: str, context: Context) -> None:
    """Take away what those who were killed have left of a queue that is gone."""
    directory = context.open_directory()
    try:
        for name in context.names():
            if not name.startswith(queue + MARK):
                continue
            try:
                with files.find(directory, context, name) as found:
                    size = found.status.st_size
                    header = Header.unpack(found.page, size, found.path)
                    slots = header.geometry.participants
                    if header.kind is Kind.QUEUE and not anybody(
                        found.descriptor, slots
                    ):
                        remove_large(name, context)
            except (SegmentNotFound, LayoutError, OSError):
                continue
    finally:
        os.close(directory)
