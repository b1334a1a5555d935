"""The arena of a queue: a segment with chunks for frames larger than a slot.

Made by the first handle that puts such a frame; its name has the queue's uuid in it, so
that an arena is never taken for one of an older queue of the same name. It goes with
the queue's name. Chunks, pins and clean-up are in ``_kernels/arena.pyx``.
"""

from __future__ import annotations

import os
import stat

import numpy as np

from ataraxis._kernels import arena as kernel
from ataraxis._kernels import snapshot
from ataraxis._kernels.memory import crash_point
from ataraxis.errors import SegmentExists, SegmentNotFound, TooManyParticipants
from ataraxis.labels import Labels
from ataraxis.shm.context import Context
from ataraxis.shm.header import MAX_PARTICIPANTS, Kind
from ataraxis.shm.segment import Segment, free_memory

LEAST_BYTES, MOST_BYTES = 64 << 20, 256 << 20
# Of what is free in the context's file system, and of free memory.
SHARE = 4
# Chunks that getters and putters may hold while every slot of the queue has one.
SPARE = 32
LEAST_CHUNKS, MOST_CHUNKS = 64, 2048
MARK = "~"


def name_of_arena(queue: str, uuid: bytes) -> str:
    """Return the name of the arena of the queue that has the uuid."""
    return f"{queue}{MARK}{uuid.hex()[:16]}"


def open_arena(queue: Segment, slots: int, nbytes: int) -> Segment | None:
    """Attach to the segment of a queue's arena.

    Parameters
    ----------
    queue : Segment
        The queue's segment.
    slots : int
        Slots of the queue.
    nbytes : int
        Size of a frame that is to be put: the arena is made if there is none. 0: only
        attach.

    Returns
    -------
    Segment or None
        None: there is none; or there is no room to make it, or no place to take part,
        and the frame goes into a segment of its own.
    """
    name = name_of_arena(queue.name, queue.header.uuid)
    try:
        segment = _attach(queue, name)
        if segment is None and nbytes:
            segment = _make(queue, name, slots, nbytes)
    except TooManyParticipants:
        if not nbytes:
            raise  # a getter cannot do without
        segment = None
    return segment


def _attach(queue: Segment, name: str) -> Segment | None:
    try:
        return Segment.attach(name, kind=Kind.ARENA, context=queue.context)
    except SegmentNotFound:
        return None


def _make(queue: Segment, name: str, slots: int, nbytes: int) -> Segment | None:
    """Make the arena, of a size that the first frame suggests; None: no room."""
    total = size_of_arena(queue.context, slots, nbytes)
    each = kernel.chunk_bytes(nbytes)
    if not total or not each:
        return None
    chunks = min(max(2 * total // each, LEAST_CHUNKS), MOST_CHUNKS)
    participants = min(2 * queue.header.geometry.participants, MAX_PARTICIPANTS)
    status = os.fstat(queue.participant.descriptor)

    def fill(segment: Segment) -> None:
        g = segment.header.geometry
        memory = np.frombuffer(memoryview(segment.mapping), np.uint8)
        control = memory[g.control : g.control + g.control_bytes]
        kernel.describe(control, chunks, total, participants)
        # Kept from before it has its name: frames in it are promised to a getter.
        snapshot.keep(segment.participant, True)
        crash_point(b"arena_made")

    try:
        segment = Segment.create(
            name,
            Kind.ARENA,
            Labels("u1", (total,), ("byte",)),
            control_bytes=kernel.control_bytes(chunks, participants),
            payload_bytes=total,
            fill=fill,
            context=queue.context,
            participants=participants,
            mode=stat.S_IMODE(status.st_mode),
            group=status.st_gid if status.st_gid != os.getegid() else None,
        )
    except SegmentExists:
        return _attach(queue, name)
    except OSError:
        return None
    segment.keep_name()
    crash_point(b"arena_kept")
    return segment


def size_of_arena(context: Context, slots: int, nbytes: int) -> int:
    """Return the bytes of an arena for frames of `nbytes`; 0: there is no room."""
    each = kernel.chunk_bytes(nbytes)
    room = os.statvfs(context.path)
    free = min(room.f_bavail * room.f_frsize, free_memory()) // SHARE
    wanted = min(max((slots + SPARE) * each, LEAST_BYTES), MOST_BYTES)
    total = min(wanted, free) // 4096 * 4096
    return total if total >= 2 * each else 0
