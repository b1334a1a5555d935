"""Statistics of streams and queues, read from their control words."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ataraxis._kernels import snapshot
from ataraxis._kernels.memory import Participant
from ataraxis.clock import now_ns
from ataraxis.errors import LayoutError
from ataraxis.labels import Labels, samples_per_frame
from ataraxis.shm import files
from ataraxis.shm.header import LIVE, SegmentHeader

VIEWER = "view"
"""Label of lossy readers that only show a stream, which nothing waits for or counts."""
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
    """Whether it keeps gating after it dies."""
    is_detached: bool
    """Whether it is durable and not attached; it still gates."""
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
    """Time since it detached, s; 0 if it is attached."""

    @property
    def is_viewer(self) -> bool:
        """Whether it only shows the stream: lossy, with the label 'view'."""
        return self.label == VIEWER and self.policy == "lossy"


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
    """Frames published here."""
    sent_bytes: int
    """Payload bytes of them."""
    last_ns: int
    """Time of the last frame, monotonic ns; 0 before the first."""
    age_s: float | None
    """Time since the last frame, s; None before the first."""
    stalled_s: float
    """Time producers have spent waiting for readers, s."""
    is_stalled: bool
    """Whether a producer waits now."""
    refused: int
    """Frames dropped because no slot was free (`on_full`)."""
    skipped: int
    """Slots passed over because a viewer held them."""
    device_gaps: int
    """Numbers missing in the device's counter, which counts frames or, if frames are
    blocks, samples."""
    producers: int
    """Producers alive, or not yet found dead."""
    readers: tuple[ReaderStatistics, ...]
    """Readers, and durable readers that are detached."""
    is_ended: bool = False
    """Whether no producer lives, and none may go on with the stream."""

    @property
    def state(self) -> Literal["live", "ended", "waits for its producer"]:
        """'waits for its producer': it has none now, and one may resume it."""
        if self.producers:
            return "live"
        return "ended" if self.is_ended else "waits for its producer"

    @property
    def detached(self) -> tuple[str, ...]:
        """Names of durable readers that are detached and still gate."""
        return tuple(r.label for r in self.readers if r.is_detached)


def device_gaps(gaps: int, sent: int, labels: Labels) -> int:
    """Return the gaps of a device's counter without the steps inside whole blocks.

    Parameters
    ----------
    gaps : int
        Steps of the counter beyond one per frame.
    sent : int
        Frames.
    labels : Labels
        Of a frame. With its attribute ``device_counter`` the producer counted only what
        is missing, of 'samples' or 'frames'; without it, a counter that advanced by a
        whole block each time counts samples.

    Examples
    --------
    >>> block = Labels("i2", (200, 32), dims=("time", "channel"))
    >>> device_gaps(199 * 456 + 3, 457, block), device_gaps(3, 457, block)
    (3, 3)
    """
    each = samples_per_frame(labels)
    whole = max(sent - 1, 0) * (each - 1)
    is_known = labels.attrs.get("device_counter") in ("frames", "samples")
    if each > 1 and not is_known and gaps >= whole:
        return max(gaps - whole, 0)
    return gaps


def read_statistics(
    name: str, participant: Participant, labels: Labels
) -> StreamStatistics:
    """Read the control words of the stream that `participant` takes part in."""
    words = list(snapshot.words(participant))
    words[8] = device_gaps(words[8], words[1], labels)
    return stream_statistics(
        name,
        snapshot.geometry(participant),
        tuple(words),
        len(snapshot.producers(participant)),
        snapshot.readers(participant),
        is_ended=snapshot.is_over(participant),
    )


def stream_statistics(
    name: str,
    geometry: tuple[int, int, int],
    words: tuple[int, ...],
    producers: int,
    entries: Iterable[tuple[Any, ...]],
    *,
    is_ended: bool,
) -> StreamStatistics:
    """Return the statistics of a stream with these control words.

    `geometry`, `words` and `entries` are as `snapshot.geometry`, `snapshot.words` and
    `snapshot.readers` return them; `producers` is the number of live ones.
    """
    slots, capacity, _ = geometry
    tail, sent, sent_bytes, last, stalled, since, refused, skipped, gaps = words[:9]
    sent = max(sent - words[9], 0)  # without numbers that were lost on the way here
    now = now_ns()
    readers = []
    for entry in entries:
        _, durable, state, position, policy, received, dropped, joined = entry[:8]
        is_detached = state == _DETACHED
        readers.append(
            ReaderStatistics(
                entry[10].decode("utf-8", "replace"),
                _POLICIES[policy] if policy < len(_POLICIES) else "?",
                durable,
                is_detached,
                state in (_GATING, _DETACHED),
                max(tail - position, 0),
                received,
                dropped,
                joined,
                max(now - entry[8], 0) * 1e-9 if is_detached else 0.0,
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
        is_ended,
    )


def count_readers(participant: Participant) -> int:
    """Return the number of readers, durable ones that are away included.

    Readers that only show the stream (`ReaderStatistics.is_viewer`) are not counted:
    nothing that waits for its readers waits for, or is content with, a viewer.
    """
    name, lossy = VIEWER.encode(), _POLICIES.index("lossy")
    found = snapshot.readers(participant)
    return sum(entry[10] != name or entry[4] != lossy for entry in found)


# ---- work queues

# Places of the words in layout.h; a test compares them with what a handle reads.
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
    """Frames that a getter has leased and not acknowledged."""
    used: int
    """Slots that are not free."""
    put: int
    """Frames put; without one whose putter was killed before it counted it."""
    put_bytes: int
    """Payload bytes of them."""
    acknowledged: int
    """Frames acknowledged; without one whose getter was killed before it counted it."""
    redelivered: int
    """Slots leased again after a getter died, gave them back or was too slow."""
    lost_leases: int
    """Leases that had expired before they were acknowledged."""
    corrupt: int
    """Frames whose bytes changed between putter and getter."""
    refused: int
    """Puts that found no room and did not wait."""
    stalled_s: float
    """Time putters have spent waiting for room, s."""
    is_stalled: bool
    """Whether a putter waits now."""
    recoveries: int
    """Participants that died and whose state was cleaned up."""
    last_put_ns: int
    """Time of the last put, monotonic ns; 0 before the first."""
    last_get_ns: int
    """Time of the last acknowledgement, monotonic ns; 0 before the first."""


def queue_statistics(
    name: str,
    geometry: tuple[int, int],
    counts: tuple[int, int, int],
    tallies: tuple[Any, ...],
    recoveries: int,
) -> QueueStatistics:
    """Return the statistics of a queue with these control words.

    `geometry` is slots and payload bytes of one; `counts` and `tallies` are as the
    kernel's `_counts` and `_tallies` return them.
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


def read_queue(found: files.Found, header: SegmentHeader) -> QueueStatistics | None:
    """Read the queue in an open file, without taking part; None: it is a large frame.

    Takes no participant slot and no lock, writes nothing and wakes nothing. Raises
    `LayoutError` if the control block does not fit the file.
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
    # A slot that is being filled holds the frames before the newest.
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
    return queue_statistics(
        os.path.basename(found.path),
        (slots, stride - _FRONT),
        counts,
        (*sums, *map(int, last), since[since > 0].tolist()),
        recoveries,
    )
