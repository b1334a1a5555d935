"""What a stream's control words say, as numbers; read from shared memory by anybody."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ataraxis._kernels import snapshot
from ataraxis._kernels.memory import Participant
from ataraxis.clock import now_ns

_POLICIES = ("lossless", "lossy", "latest")
_GATING, _DETACHED = 1, 2


@dataclass(frozen=True)
class ReaderStatistics:
    """One reader of a stream."""

    label: str
    """Its label or durable name."""
    policy: str
    """'lossless', 'lossy' or 'latest'."""
    is_durable: bool
    """Whether it goes on gating when it dies."""
    is_detached: bool
    """Whether it is durable and away; it gates all the same."""
    is_gating: bool
    """Whether the producer waits for it."""
    lag: int
    """Positions between it and the producer."""
    received: int
    """Frames it has received."""
    dropped: int
    """Frames it has lost since it joined."""
    joined_sequence: int
    """Sequence of its first frame: received + dropped count from there."""
    detached_s: float
    """How long it has been away, s; 0 if it is here."""


@dataclass(frozen=True)
class StreamStatistics:
    """A stream as a whole."""

    name: str
    """Its name in its context."""
    buffer_count: int
    """Slots."""
    buffer_size: int
    """Payload bytes a slot holds."""
    sent: int
    """Frames published."""
    sent_bytes: int
    """Payload bytes of them."""
    last_ns: int
    """Time of the last frame, monotonic ns; 0 before the first."""
    age_s: float | None
    """How long ago that was, s; None before the first."""
    stalled_s: float
    """Time producers have spent waiting for readers, s."""
    is_stalled: bool
    """Whether one waits now."""
    refused: int
    """Frames given up because no slot was free (`on_full`)."""
    skipped: int
    """Slots passed over because a viewer held them."""
    device_gaps: int
    """Numbers missing in the device's own counter."""
    producers: int
    """Producers alive, or not yet found dead."""
    readers: tuple[ReaderStatistics, ...]
    """Everybody who reads, and durable readers that are away."""

    @property
    def detached(self) -> tuple[str, ...]:
        """Names of durable readers that are away and gate all the same."""
        return tuple(r.label for r in self.readers if r.is_detached)


def survey_stream(name: str, participant: Participant) -> StreamStatistics:
    """Read the control words of the stream that `participant` takes part in."""
    return compose(
        name,
        snapshot.geometry(participant),
        snapshot.words(participant),
        len(snapshot.producers(participant)),
        snapshot.readers(participant),
    )


def compose(
    name: str,
    geometry: tuple[int, int, int],
    words: tuple[int, ...],
    producers: int,
    entries: Iterable[tuple[Any, ...]],
) -> StreamStatistics:
    """Say what control words mean, wherever they were read.

    Parameters
    ----------
    name : str
        The stream's name.
    geometry, words, entries
        As `snapshot.geometry`, `snapshot.words` and `snapshot.readers` return them.
    producers : int
        How many send.
    """
    slots, capacity, _ = geometry
    tail, sent, sent_bytes, last, stalled, since, refused, skipped, gaps, _ = words
    now = now_ns()
    readers = []
    for entry in entries:
        _, durable, state, position, policy, received, dropped, joined = entry[:8]
        away = state == _DETACHED
        readers.append(
            ReaderStatistics(
                entry[10].decode("utf-8", "replace"),
                _POLICIES[policy] if policy < len(_POLICIES) else "?",
                durable,
                away,
                state in (_GATING, _DETACHED),
                max(tail - position, 0),
                received,
                dropped,
                joined,
                max(now - entry[8], 0) * 1e-9 if away else 0.0,
            )
        )
    if since:
        stalled += max(now - since, 0)
    return StreamStatistics(
        name,
        slots,
        capacity,
        sent,
        sent_bytes,
        last,
        max(now - last, 0) * 1e-9 if last else None,
        stalled * 1e-9,
        bool(since),
        refused,
        skipped,
        gaps,
        producers,
        tuple(readers),
    )
