"""How a stream's segment is made, joined, or made anew where a dead one lies."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from ataraxis._kernels import snapshot
from ataraxis._kernels.consumer import BUSY
from ataraxis.errors import (
    LayoutError,
    NotConnectedError,
    SegmentExists,
    SegmentNotFound,
    StreamExists,
    StreamUnavailable,
    TooManyParticipants,
)
from ataraxis.labels import Labels
from ataraxis.shm.context import ContextLike
from ataraxis.shm.header import Kind
from ataraxis.shm.segment import Segment
from ataraxis.stream._end import SHARED, no_new_names

TRIES = 8
PATIENCE_S = 2.0
REGISTER_TRIES = 200


def open_to_send(
    name: str,
    labels: Labels,
    slots: int,
    capacity: int,
    flags: int,
    *,
    context: ContextLike,
    participants: int,
    mode: int | None,
    group: str | int | None,
) -> Segment:
    """Make the stream, or join it as one more producer if it is shared.

    Raises
    ------
    StreamExists
        A live producer has the name, or frames are promised to a durable reader.
    """

    def fill(segment: Segment) -> None:
        g = segment.header.geometry
        control = np.frombuffer(memoryview(segment.mapping), np.uint8)
        control = control[g.control : g.control + g.control_bytes]
        snapshot.describe(control, slots, capacity, participants, flags)
        snapshot.announce(segment.participant)

    for attempt in range(TRIES):
        joined = _join(name, labels, flags, context)
        if joined is not None:
            return joined
        try:
            return Segment.create(
                name,
                Kind.STREAM,
                labels,
                control_bytes=snapshot.control_bytes(slots, participants),
                payload_bytes=slots * snapshot.stride_of(capacity),
                fill=fill,
                context=context,
                participants=participants,
                mode=mode,
                group=group,
            )
        except SegmentExists:
            if attempt == TRIES - 1:
                raise
    raise AssertionError("unreachable")


def _join(
    name: str, labels: Labels, flags: int, context: ContextLike
) -> Segment | None:
    """Join a shared stream that lives, or clear away one whose producers are gone."""
    try:
        old = Segment.attach(name, kind=Kind.STREAM, context=context)
    except (SegmentNotFound, LayoutError):
        return None
    old.participant.sweep()
    if snapshot.producers(old.participant):
        theirs = snapshot.geometry(old.participant)[2]
        if not flags & theirs & SHARED:
            raise StreamExists(
                f"stream {name!r} in {old.context.path} has a producer already: read "
                f"it with Consumer({name!r}), use another name, or give both "
                "producers shared=True"
            )
        if old.labels != labels or theirs != flags:
            raise StreamExists(
                f"stream {name!r} has other labels, sizes or policy than this "
                f"producer's ({old.labels}): give both the same"
            )
        return old
    # An end is an end: nobody new sends there. Its readers keep what they have.
    _await(lambda: not _promised(old), PATIENCE_S)
    with no_new_names(old):
        if away := _promised(old):
            raise StreamExists(
                f"stream {name!r} has ended, but holds frames that its durable reader "
                f"{away!r} has not had yet: start that reader, or 'ataraxis recover'"
            )
        snapshot.keep(old.participant, False)
        old.unlink()
    return None


def _promised(segment: Segment) -> str | None:
    """Name a durable reader that has frames to come, or None."""
    segment.participant.sweep()
    tail = snapshot.words(segment.participant)[0]
    for name in snapshot.registered(segment.participant):
        return str(name, "utf-8", "replace")
    for entry in snapshot.readers(segment.participant):
        if entry[1] and entry[3] < tail:
            return entry[10].decode("utf-8", "replace")
    return None


def _await(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)


def register_durable(segment: Segment, durable: str, timeout: float | None) -> int:
    """Take the line of a durable name: its number."""
    limit = (1 << 63) if timeout is None else int(timeout * 1e9)
    for _ in range(REGISTER_TRIES):
        segment.participant.sweep()
        line = snapshot.register_durable(segment.participant, durable.encode(), limit)
        if line is None:
            time.sleep(0.001)
        elif line == BUSY:
            raise NotConnectedError(
                f"stream {segment.name!r}: a live consumer reads as durable "
                f"{durable!r}; close it, or use another name"
            )
        elif line == snapshot.RETIRED and segment.meaning_of_name() == "this":
            time.sleep(0.001)  # somebody looked whether it may go, and it may not
        elif line == snapshot.RETIRED:
            raise StreamUnavailable(
                f"stream {segment.name!r} has ended, and its name was taken away just "
                "now: wait for the next stream of the name, timeout="
            )
        elif line < 0:
            raise TooManyParticipants(
                f"stream {segment.name!r}: it has 16 durable names, and no more fit"
            )
        else:
            return line
    raise TimeoutError(f"stream {segment.name!r}: could not register {durable!r}")
