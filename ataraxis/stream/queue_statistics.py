"""What a work queue's control words say, as numbers; read from shared memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ataraxis.clock import now_ns


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
