"""Frames that are larger than a slot: each in a segment of its own, named in the slot.

The segment is kept from before its name is in the queue until the acknowledgement takes
it away. Whoever dies in between leaves either nothing, a file that `ataraxis gc`
removes, or one that the last to leave the queue does.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from typing import TYPE_CHECKING

import numpy as np

from ataraxis._kernels import queue as kernel
from ataraxis._kernels import snapshot
from ataraxis._kernels.memory import anybody, crash_point
from ataraxis.errors import LayoutError, SegmentNotFound
from ataraxis.labels import Labels
from ataraxis.shm import files
from ataraxis.shm.header import Header, Kind
from ataraxis.shm.segment import Segment

if TYPE_CHECKING:
    from ataraxis.shm.context import Context

MARK = "~"
PARTICIPANTS = 8


def make(queue: str, context: Context, frame: bytes) -> Segment:
    """Write a frame into a segment of its own, kept until `take_away`."""

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


def view(name: str, context: Context) -> memoryview | None:
    """View the frame in a segment; None: it was acknowledged and is gone.

    The view keeps the memory, also after the name is gone.
    """
    try:
        segment = Segment.attach(name, kind=Kind.QUEUE, context=context)
    except SegmentNotFound:
        return None
    return segment.payload.data.toreadonly()


def take_away(name: str, context: Context) -> None:
    """Take the segment's name away: the frame is done with."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(context.join(name))
    crash_point(b"large_gone")


def part(queue: str, context: Context, descriptor: int, slots: int) -> None:
    """Take a queue's name away if it is empty and nobody takes part in it any more."""
    try:
        directory = context.open_directory()
    except FileNotFoundError:
        os.close(descriptor)
        return
    try:
        if files.take_name(descriptor, directory, queue, slots, is_forced=False):
            sweep(queue, context)
    finally:
        os.close(directory)
        os.close(descriptor)


def sweep(queue: str, context: Context) -> None:
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
                        take_away(name, context)
            except (SegmentNotFound, LayoutError, OSError):
                continue
    finally:
        os.close(directory)
