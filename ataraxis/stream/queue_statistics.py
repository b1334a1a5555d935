"""What a work queue's control words say, as numbers; read from shared memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from ataraxis.clock import now_ns
from ataraxis.errors import LayoutError
from ataraxis.shm import files
from ataraxis.shm.header import LIVE, Header

# Where layout.h has the words; a test compares what is read with what a handle says.
_QUEUE_BYTES, _TALLY_WORDS, _LINE_WORDS, _FRONT = 896, 16, 8, 192
_FREE, _READY, _LEASED, _RETRY, _GROWING = 0, 2, 4, 5, 6


@dataclass(frozen=True)
class QueueStatistics:
    """A work queue as a whole, since it was made."""

    name: str
    """Its name in its context."""
    buffer_count: int
    """Slots."""
    buffer_size: int
    """Payload bytes that fit a slot."""
    waiting: int
    """Frames that no getter has."""
    leased: int
    """Frames that a getter has and has not acknowledged."""
    used: int
    """Slots that are not free."""
    put: int
    """Frames put; one whose putter was killed just then may be missing here."""
    put_bytes: int
    """Payload bytes of them."""
    acknowledged: int
    """Frames acknowledged; one whose getter was killed just then may be missing."""
    redelivered: int
    """Slots leased again after a getter died, gave them back or was too slow."""
    lost_leases: int
    """Leases that were over when they were to be acknowledged."""
    corrupt: int
    """Frames whose bytes had changed between putter and getter."""
    refused: int
    """Puts that found no room and did not wait for it."""
    stalled_s: float
    """Time that putters have spent waiting for room, s."""
    is_stalled: bool
    """Whether one waits now."""
    recoveries: int
    """Participants that died and were cleaned up after."""
    last_put_ns: int
    """Time of the last put, monotonic ns; 0 before the first."""
    last_get_ns: int
    """Time of the last acknowledgement, monotonic ns; 0 before the first."""


def compose(
    name: str,
    geometry: tuple[int, int],
    counts: tuple[int, int, int],
    tallies: tuple[Any, ...],
    recoveries: int,
) -> QueueStatistics:
    """Say what control words mean, wherever they were read.

    Parameters
    ----------
    name : str
        The queue's name.
    geometry : tuple of int
        Slots, and payload bytes of one.
    counts, tallies : tuple
        As the kernel's `_counts` and `_tallies` return them.
    recoveries : int
        Participants that were cleaned up after.
    """
    *sums, last_put, last_get, since = tallies
    put, put_bytes, done, again, refused, stalled, lost, corrupt = sums
    stalled += sum(max(now_ns() - began, 0) for began in since)
    return QueueStatistics(
        name,
        *geometry,
        *counts,
        put,
        put_bytes,
        done,
        again,
        lost,
        corrupt,
        refused,
        stalled * 1e-9,
        bool(since),
        recoveries,
        last_put,
        last_get,
    )


def look(found: files.Found, header: Header) -> QueueStatistics | None:
    """Read the queue in an open file from outside; None: it is one large frame.

    No participant, no lock, no store, no wake-up: nobody can tell. Raises `LayoutError`
    if the control block does not fit the file.
    """
    g = header.geometry
    data = os.pread(found.descriptor, g.control_bytes, g.control)
    slots, stride = np.frombuffer(data, "<u8", 2).tolist()
    if slots == 0:
        return None
    start = _QUEUE_BYTES + 8 * _TALLY_WORDS * g.participants
    if start + 8 * _LINE_WORDS * slots > len(data) or slots * stride > g.payload_bytes:
        raise LayoutError(f"{found.path}: its control block does not fit the file")
    tally = np.frombuffer(data, "<u8", _TALLY_WORDS * g.participants, _QUEUE_BYTES)
    tally = tally.reshape(-1, _TALLY_WORDS)
    line = np.frombuffer(data, "<u8", _LINE_WORDS * slots, start)
    line = line.reshape(-1, _LINE_WORDS)
    state, frames = line[:, 0] & 7, np.bitwise_count(line[:, 1])
    # Those before the one that is being put.
    is_growing = state == _GROWING
    frames[is_growing] = line[is_growing, 4] >> 32
    counts = (
        int(frames[(state == _READY) | (state == _RETRY) | is_growing].sum()),
        int(frames[state == _LEASED].sum()),
        int((state != _FREE).sum()),
    )
    sums = tally[:, [0, 1, 2, 3, 4, 5, 7, 8]].sum(axis=0).tolist()
    since = tally[:, 6]
    recoveries = int.from_bytes(os.pread(found.descriptor, 8, LIVE + 8), "little")
    last = tally[:, 9].max(), tally[:, 10].max()
    return compose(
        os.path.basename(found.path),
        (slots, stride - _FRONT),
        counts,
        (*sums, *map(int, last), since[since > 0].tolist()),
        recoveries,
    )
