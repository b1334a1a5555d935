"""Lease: a frame that one getter has and has not acknowledged; large frames."""

from __future__ import annotations

import contextlib
import os
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np

from ataraxis._kernels import queue as kernel
from ataraxis._kernels import snapshot
from ataraxis._kernels.memory import anybody, crash_point
from ataraxis._kernels.queue_handle import FrameLease
from ataraxis.errors import LayoutError, SegmentNotFound
from ataraxis.frame import Frame
from ataraxis.labels import Labels
from ataraxis.shm import files
from ataraxis.shm.header import Kind, SegmentHeader
from ataraxis.shm.segment import Segment
from ataraxis.stream.arena import MARK, name_of_arena

if TYPE_CHECKING:
    from ataraxis.shm.context import Context


class Lease(FrameLease):
    """A frame leased by a getter: no other getter gets it until it is given back.

    Made by `MemQ.lease`. A context manager: acknowledges at the end of the block, gives
    the frame back after an exception, also one of a signal handler. If the process dies
    or drops the lease before that, another getter gets the frame.

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

    _frame: Frame

    @property
    def frame(self) -> Frame:
        """The frame: a copy, or a view of a large frame; stays valid."""
        return self._frame

    @property
    def value(self) -> Any:
        """The value that was put, decoded at each use; arrays are views of `frame`."""
        return self._frame.value

    ack = FrameLease.acknowledge
    nack = FrameLease.give_back

    def __repr__(self) -> str:
        state = "over" if self.is_over else f"attempt {self.attempt}"
        return f"<Lease of frame {self.id}, {state}>"


# ---- frames that fit no chunk: each in a segment of its own, named in the slot

# The segment is kept from before its name is in the queue until the acknowledgement
# removes it. A process that dies in between leaves nothing, or a file that `ataraxis
# gc` or the last process to leave the queue removes.

_HEX = b"0123456789abcdef"
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
    snapshot.keep(segment.participant, True)
    segment.keep_name()
    crash_point(b"large_kept")
    return segment


def name_of_large(ticket: bytes, queue: str) -> str | None:
    """Return the segment's name in a slot; None: it is not one of this queue's.

    The name comes from shared memory: a damaged one must not open or remove another
    file.
    """
    start = f"{queue}{MARK}".encode()
    digits = ticket[len(start) :]
    if ticket.startswith(start) and len(digits) == 16 and not digits.strip(_HEX):
        return ticket.decode()
    return None


def view_large(name: str, context: Context) -> memoryview | None:
    """Return a view of the frame in a segment; None: it was acknowledged and removed.

    The view stays valid after the name is removed.
    """
    try:
        segment = Segment.attach(name, kind=Kind.QUEUE, context=context)
    except SegmentNotFound:
        return None
    return segment.payload.data.toreadonly()


def remove_large(name: str, context: Context) -> None:
    """Remove the segment of a frame that was acknowledged."""
    with contextlib.suppress(FileNotFoundError):
        context.unlink(name)
    crash_point(b"large_gone")


def remove_empty_queue(
    queue: str,
    context: Context,
    descriptor: int,
    slots: int,
    has_larges: bool,
    uuid: bytes,
) -> None:
    """Remove a queue's name if it is empty and has no participant."""
    try:
        directory = context.open_directory()
    except FileNotFoundError:
        os.close(descriptor)
        return
    try:
        gone = files.take_name(descriptor, directory, queue, slots, is_forced=False)
        if gone and has_larges:
            sweep_large(queue, context, uuid)
    finally:
        os.close(directory)
        os.close(descriptor)


def sweep_large(queue: str, context: Context, uuid: bytes) -> None:
    """Remove the arena of a queue that is gone, and what killed processes left.

    Live views keep the arena's memory, not its name.
    """
    arena = name_of_arena(queue, uuid)
    directory = context.open_directory()
    try:
        try:
            names = context.names()
        except OSError:
            return  # no file descriptor is free: `ataraxis gc` removes them
        for name in names:
            if not name.startswith(queue + MARK):
                continue
            try:
                with files.find(directory, context, name) as found:
                    size = found.status.st_size
                    header = SegmentHeader.unpack(found.page, size, found.path)
                    slots = header.geometry.participants
                    is_unused = not anybody(found.descriptor, slots)
                    if header.kind is Kind.ARENA:
                        is_unused |= name == arena
                    if header.kind in (Kind.QUEUE, Kind.ARENA) and is_unused:
                        remove_large(name, context)
            except (SegmentNotFound, LayoutError, OSError):
                continue
    finally:
        os.close(directory)
