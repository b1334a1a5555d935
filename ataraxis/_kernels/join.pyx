"""How readers take part in a stream's ring, and leave it.

Source: docs/explanation/concurrency.md. Who joins says where it stands before it looks at what it may have.
"""
from libc.stdint cimport uint32_t, uint64_t

from ataraxis._kernels.atomics cimport (
    ax_and64, ax_cas64, ax_fence_full, ax_load64, ax_or64, ax_put64, ax_store32, ax_store64,
)
from ataraxis._kernels.event cimport event_signal
from ataraxis._kernels.layout cimport (
    AX_CURSOR_DETACHED, AX_CURSOR_GATING, AX_CURSOR_IDLE, AX_CURSOR_WATCHING, AX_OK, AX_POLICY_JOINING,
    AX_POLICY_LATEST, AX_POLICY_LOSSLESS, ax_reader, ax_stream,
)
from ataraxis._kernels.memory cimport live_of
from ataraxis._kernels.platform cimport ax_crash
from ataraxis._kernels.reader cimport at_position, ax_got, unchanged
from ataraxis._kernels.ring cimport AX_UNKNOWN, anybody_sends, ax_ring, locate, sequence_at, slot_at

# ---- the algorithm

cdef int reader_join(ax_ring *ring, uint32_t policy, bint from_oldest, int durable) noexcept nogil:
    # Take part as a reader; `durable` is the line of our name, -1 without one.
    cdef ax_stream *stream = ring.stream
    cdef ax_reader *line = &ring.readers[ring.me if durable < 0 else ring.participants + durable]
    cdef uint64_t state, tail, start, floor, cursor = ax_load64(&line.cursor)
    ring.line = line
    ring.policy = policy
    ring.gates = policy == AX_POLICY_LOSSLESS
    state = AX_CURSOR_GATING if ring.gates else AX_CURSOR_WATCHING
    ring.received = ax_load64(&line.received) if durable >= 0 else 0
    ring.dropped = ax_load64(&line.dropped) if durable >= 0 else 0
    ring.expected = AX_UNKNOWN
    if durable >= 0 and cursor & 3 == AX_CURSOR_DETACHED:
        # Back before the time was up? The swap loses to `expire`.
        if ax_cas64(&line.cursor, cursor, cursor & ~<uint64_t>3 | AX_CURSOR_GATING):
            return stand_at(ring, cursor >> 2)
    ax_put64(&line.received, 0)
    ax_put64(&line.dropped, 0)
    # Release: a cleaner that sees the cursor sees that nothing is promised yet.
    ax_store32(&line.policy, policy | AX_POLICY_JOINING)
    tail = ax_load64(&stream.tail)
    start = tail
    if from_oldest:
        start = tail - ring.slots if tail > ring.slots else 0
    ax_store64(&line.cursor, start << 2 | state)
    ax_crash("join_published")
    if durable < 0:
        ax_or64(&stream.readers[ring.me >> 6], <uint64_t>1 << (ring.me & 63))
    else:
        ax_or64(&stream.durables, <uint64_t>1 << durable)
    # Fence J: pairs with the one in `gate`.
    ax_fence_full()
    tail = ax_load64(&stream.tail)
    if not from_oldest:
        start = tail
    elif ring.gates and anybody_sends(ring):
        # What is below may be overwritten by a producer that has not seen us.
        floor = ax_load64(&stream.announced)
        start = max(start, floor - ring.slots if floor > ring.slots else 0)
    while start < tail and overwritten(ring, start):
        start += 1
    if policy == AX_POLICY_LATEST and from_oldest and tail:
        start = tail - 1
    ax_store64(&line.cursor, start << 2 | state)
    # Release: what is promised from here on is above the cursor.
    ax_store32(&line.policy, policy)
    ax_crash("join_done")
    stand_at(ring, start)
    ring.expected = first_expected(ring, start, tail)
    ax_put64(&line.joined, 0 if ring.expected == AX_UNKNOWN else ring.expected)
    return AX_OK


cdef int stand_at(ax_ring *ring, uint64_t position) noexcept nogil:
    locate(ring, position)
    ring.oldest = position
    ring.oldest_index = ring.index
    return AX_OK


cdef bint overwritten(ax_ring *ring, uint64_t position) noexcept nogil:
    cdef uint64_t lap = position // ring.slots + 1
    return ax_load64(&slot_at(ring, position - (lap - 1) * ring.slots).word) >> 16 > lap


cdef uint64_t first_expected(ax_ring *ring, uint64_t start, uint64_t tail) noexcept nogil:
    # The sequence that comes first for a reader that begins at `start`, so that losses count from there.
    cdef uint64_t position, sequence
    cdef ax_got got
    if ring.shared or tail == 0:
        return start
    for position in range(start, tail):
        if at_position(ring, position, &got) == AX_OK:
            sequence = sequence_at(ring, got.index)
            if unchanged(ring, &got):
                return sequence
    position = start
    while position and start - position < ring.slots:
        position -= 1
        if at_position(ring, position, &got) == AX_OK:
            sequence = sequence_at(ring, got.index)
            if unchanged(ring, &got):
                return sequence + 1
    return AX_UNKNOWN


cdef void reader_leave(ax_ring *ring) noexcept nogil:
    # Go for good: a durable name is forgotten too.
    cdef ax_stream *stream = ring.stream
    ax_store64(&ring.line.cursor, AX_CURSOR_IDLE)
    if ring.line == &ring.readers[ring.me]:
        ax_and64(&stream.readers[ring.me >> 6], ~(<uint64_t>1 << (ring.me & 63)))
    else:
        ax_and64(&stream.durables, ~(<uint64_t>1 << (ring.line - ring.readers - ring.participants)))
        if ax_load64(&stream.durables) == 0:
            ax_store32(&live_of(ring.party).kept, 0)
        ax_store32(&ring.line.owner, 0)
    event_signal(&stream.space, ring.words)
