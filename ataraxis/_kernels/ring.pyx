"""The ring of a stream, its producers' half, and the one clean-up after whoever died.

Source: docs/explanation/concurrency.md. A broadcast ring with gating cursors after the LMAX
Disruptor (Thompson et al., 2011); the claim is a compare-and-swap on the slot's own word, so that a
producer killed at any instruction leaves either nothing or a slot owned by a dead participant.
"""
from libc.errno cimport EINTR
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ataraxis._kernels.atomics cimport (
    ax_add64, ax_and64, ax_cas64, ax_fence_full, ax_load32, ax_load64, ax_or64, ax_peek32, ax_peek64, ax_put64,
    ax_store32, ax_store64, ax_u64,
)
from ataraxis._kernels.event cimport event_cancel, event_prepare, event_signal, event_wake
from ataraxis._kernels.layout cimport (
    AX_BUSY, AX_CURSOR_DETACHED, AX_CURSOR_GATING, AX_CURSOR_IDLE, AX_DURABLES, AX_FULL, AX_KIND_STREAM, AX_OK,
    AX_OVERFLOW, AX_PAYLOAD_AT, AX_POLICY_JOINING, AX_SLOT_READY, AX_SLOT_SKIP, AX_SLOT_WRITING, AX_STREAM_SHARED,
    AX_TIMEOUT, ax_reader, ax_slot, ax_stream,
)
from ataraxis._kernels.memory cimport ax_party, live_of, on_death, sweep
from ataraxis._kernels.platform cimport ax_cpus, ax_crash, ax_futex_wait, ax_now_ns
from ataraxis._kernels.timing cimport ROOM_PAUSES, SPIN_MAX_NS, next_spin, spin_on

cdef enum:
    SLICE_NS = 50000000     # longest sleep before looking at signals
    PROBE_NS = 20000000     # longest wait before asking who lives
    AHEAD = 16              # a producer looks at the cursors that often a lap
    SKIPS = 16              # pinned slots passed over before asking whether their readers live


# ---- the algorithm

cdef int ring_open(ax_ring *ring, ax_party *party, char *frames, uint64_t bytes) noexcept nogil:
    # Copy and check the geometry; AX_OVERFLOW if it does not fit the segment.
    cdef ax_stream *stream = <ax_stream *>party.control
    cdef uint64_t lines = sizeof(ax_stream) + (<uint64_t>party.slots + AX_DURABLES) * sizeof(ax_reader)
    ring.party = party
    ring.stream = stream
    ring.slots = stream.slots
    ring.stride = stream.stride
    ring.capacity = stream.capacity
    ring.control_stride = stream.control_stride
    ring.unpinned = max(2, (ring.slots + 1) // 2)
    ring.participants = party.slots
    ring.words = (party.slots + 63) // 64
    ring.me = party.slot
    ring.shared = stream.flags & AX_STREAM_SHARED
    ring.readers = <ax_reader *>(party.control + sizeof(ax_stream))
    ring.controls = party.control + lines
    ring.frames = frames
    ring.cpus = ax_cpus()
    ring.spin_ns = SPIN_MAX_NS if party.spins else 0
    ring.expected = AX_UNKNOWN
    if not (
        0 < ring.slots < (<uint64_t>1 << 32)
        and ring.control_stride == control_stride_of(party.slots)
        and AX_PAYLOAD_AT <= ring.stride <= (<uint64_t>1 << 46)
        and ring.capacity <= ring.stride - AX_PAYLOAD_AT
        and ring.slots <= bytes // ring.stride
        and <char *>ring.controls + ring.slots * ring.control_stride <= frames
        and frames + bytes <= party.base + party.bytes
    ):
        return AX_OVERFLOW
    locate(ring, ax_load64(&stream.tail))
    return AX_OK


cdef uint64_t control_stride_of(uint32_t participants) noexcept nogil:
    return (64 + <uint64_t>(participants + 63) // 64 * 8 + 127) // 128 * 128


cdef uint64_t gate(ax_ring *ring) noexcept nogil:
    # The first position that may not be claimed: n past the slowest reader that gates.
    # Never far ahead of the tail, so that who joins finds most of the ring still safe to read.
    cdef uint64_t tail, low, mask, top, seen
    cdef uint32_t k, reader
    tail = ax_load64(&ring.stream.tail)
    low, top = tail, tail + max(1, ring.slots // AHEAD)
    seen = ax_load64(&ring.stream.announced)
    while seen < top and not ax_cas64(&ring.stream.announced, seen, top):
        seen = ax_load64(&ring.stream.announced)
    # Fence J: pairs with the one in reader_join. Either we see the joiner's cursor, or it sees what we announced.
    ax_fence_full()
    for k in range(ring.words):
        # Acquire: pairs with reader_leave; who is gone has looked at its last frame.
        mask = ax_load64(&ring.stream.readers[k])
        while mask:
            reader = k * 64 + first_bit(mask)
            mask &= mask - 1
            low = lower(low, ax_load64(&ring.readers[reader].cursor))
    mask = ax_load64(&ring.stream.durables)
    while mask:
        reader = ring.participants + first_bit(mask)
        mask &= mask - 1
        low = lower(low, ax_load64(&ring.readers[reader].cursor))
    ring.is_followed = low < tail
    return min(low + ring.slots, top)


cdef inline uint64_t lower(uint64_t low, uint64_t cursor) noexcept nogil:
    # Acquire where it was loaded: pairs with the release of a cursor after the reader's last access.
    if cursor & 3 == AX_CURSOR_GATING or cursor & 3 == AX_CURSOR_DETACHED:
        return min(low, cursor >> 2)
    return low


cdef extern from *:
    """
    static inline uint32_t ax_first_bit(uint64_t mask) { return (uint32_t)__builtin_ctzll(mask); }
    """
    uint32_t first_bit "ax_first_bit"(uint64_t mask) nogil


cdef int claim(ax_ring *ring) noexcept nogil:
    # Own the next free slot: WRITING in our name. AX_OK or AX_FULL (readers that gate are behind).
    cdef ax_stream *stream = ring.stream
    cdef ax_u64 *word
    cdef uint64_t seen, tail
    cdef uint64_t skips = 0
    while True:
        # Acquire: pairs with the release in `advance`.
        tail = ax_load64(&stream.tail)
        if tail != ring.position:
            locate(ring, tail)
        if ring.position >= ring.limit:
            ring.limit = gate(ring)
            if ring.position >= ring.limit:
                return AX_FULL
        word = &slot_at(ring, ring.index).word
        # Acquire: pairs with publish and abandon of the lap before.
        seen = ax_load64(word)
        if seen >> 16 > ring.lap:
            continue
        if seen >> 16 == ring.lap:
            # Somebody claimed it and has not said so: help.
            ax_cas64(&stream.tail, tail, tail + 1)
            continue
        if seen & 7 == AX_SLOT_WRITING:
            # Its writer is a lap behind and nobody gates on it: it has lost its frame. The winner of the
            # swap moves on; the loser looks again.
            ax_cas64(word, seen, word_of(ring.lap, seen >> 3 & OWNER_MASK, AX_SLOT_WRITING))
            skips += 1
            if skips > 2 * ring.slots:
                # Every slot is being written or looked at: wait as for room.
                return AX_FULL
            continue
        ax_crash("claim_before")
        # One winner; the loser looks again.
        if not ax_cas64(word, seen, word_of(ring.lap, ring.me, AX_SLOT_WRITING)):
            continue
        ax_crash("claim_word")
        advance(ring, tail)
        ax_crash("claim_tail")
        # Fence P: pairs with the one in `pin`; also keeps the payload's stores below WRITING, for readers
        # that copy and validate.
        ax_fence_full()
        ring.claimed = True
        if not passed_over(ring):
            return AX_OK
        skips += 1
        if skips > 2 * ring.slots:
            return AX_FULL


cdef bint passed_over(ax_ring *ring) noexcept nogil:
    # Whether a viewer looks at the slot we have claimed: then its data is left alone, and the position skipped.
    if not pinned(ring, ring.index):
        return False
    settle(ring, AX_SLOT_SKIP)
    event_signal(&ring.stream.data, ring.words)
    ax_add64(&ring.stream.skipped, 1)
    step(ring)
    ring.passed += 1
    if ring.passed % SKIPS == 0:
        sweep(ring.party, PROBE_NS)
    return True


cdef inline void advance(ax_ring *ring, uint64_t tail) noexcept nogil:
    # Release: whoever sees the tail sees the claim.
    if ring.shared:
        ax_cas64(&ring.stream.tail, tail, tail + 1)
    else:
        ax_store64(&ring.stream.tail, tail + 1)


cdef inline void settle(ax_ring *ring, uint64_t state) noexcept nogil:
    # Release: pairs with the acquire of readers and of the next claimer.
    cdef ax_u64 *word = &slot_at(ring, ring.index).word
    cdef uint64_t seen
    ring.claimed = False
    if not ring.shared:
        ax_store64(word, word_of(ring.lap, ring.me, state))
        return
    if ax_cas64(word, word_of(ring.lap, ring.me, AX_SLOT_WRITING), word_of(ring.lap, ring.me, state)):
        return
    # Bumped by a producer that has gone round the ring: the frame is lost, the slot ours until it is passed over.
    seen = ax_load64(word)
    while not ax_cas64(word, seen, seen & ~<uint64_t>7 | AX_SLOT_SKIP):
        seen = ax_load64(word)


cdef inline void show(ax_ring *ring, uint32_t at, uint64_t bytes) noexcept nogil:
    cdef ax_slot *slot = slot_at(ring, ring.index)
    cdef ax_stream *stream = ring.stream
    ax_put64(<ax_u64 *>&slot.at, at)
    ax_put64(&slot.bytes, bytes)
    ax_crash("publish_before")
    settle(ring, AX_SLOT_READY)
    ax_crash("publish_word")
    ring.sent += 1
    if ring.shared:
        ax_add64(&stream.sent, 1)
        ax_add64(&stream.sent_bytes, bytes)
    else:
        ax_put64(&stream.sent, ring.sent)
        ax_put64(&stream.sent_bytes, ax_peek64(&stream.sent_bytes) + bytes)
    step(ring)


cdef void publish(ax_ring *ring, uint32_t at, uint64_t bytes) noexcept nogil:
    # The claimed slot holds a whole frame: show it.
    show(ring, at, bytes)
    event_signal(&ring.stream.data, ring.words)


cdef void publish_run(ax_ring *ring, uint64_t end, uint32_t at, uint64_t bytes) noexcept nogil:
    # What of a run up to `end` was not passed over holds whole frames: show them in order. Only we change the words.
    while ring.position < end:
        if ax_peek64(&slot_at(ring, ring.index).word) & 7 == AX_SLOT_WRITING:
            show(ring, at, bytes)
        else:
            step(ring)
    event_signal(&ring.stream.data, ring.words)


cdef void abandon(ax_ring *ring) noexcept nogil:
    # Give the claimed slot up; readers pass over it.
    if ring.claimed:
        settle(ring, AX_SLOT_SKIP)
        event_signal(&ring.stream.data, ring.words)
        step(ring)


cdef int claim_wait(ax_ring *ring, int64_t deadline, bint first) noexcept nogil:
    # One slice of waiting for room: AX_OK claimed, AX_BUSY look at your signals, AX_TIMEOUT, AX_RETIRED.
    cdef ax_stream *stream = ring.stream
    cdef int64_t now = ax_now_ns(), started = now, spin_ns = spin_time(ring)
    cdef uint32_t seen
    # Many slots, rarer looks: right behind a reader, a producer takes cache lines from it, and it from the producer.
    cdef uint32_t pauses = <uint32_t>min(ring.slots // 2 + 1, ROOM_PAUSES)
    cdef int status
    while first and spin_ns and spin_on(pauses, started, spin_ns):
        if claim(ring) == AX_OK:
            return AX_OK
    while True:
        seen = event_prepare(&stream.space, ring.me)
        status = claim(ring)
        if status != AX_OK and now < deadline and now - started < SLICE_NS:
            status = ax_futex_wait(&stream.space.count, seen, min(PROBE_NS, deadline - now))
            status = AX_BUSY if status == -EINTR else claim(ring)
        event_cancel(&stream.space, ring.me)
        if status == AX_BUSY:
            return status
        now = ax_now_ns()
        if status == AX_OK:
            if first:
                ring.spin_ns = next_spin(ring.spin_ns, now - started)
            return AX_OK
        sweep(ring.party, PROBE_NS)
        expire(ring, now)
        if now >= deadline:
            return AX_OK if claim(ring) == AX_OK else AX_TIMEOUT
        if now - started >= SLICE_NS:
            return AX_BUSY


cdef void expire(ax_ring *ring, int64_t now) noexcept nogil:
    # Durable readers that stayed away too long stop gating. The swap loses to one that returns just now.
    cdef uint64_t mask = ax_load64(&ring.stream.durables), cursor, since
    cdef ax_reader *line
    while mask:
        line = &ring.readers[ring.participants + first_bit(mask)]
        cursor = ax_load64(&line.cursor)
        since = ax_load64(&line.detached_ns)
        if (
            cursor & 3 == AX_CURSOR_DETACHED
            # It may have gone after we looked at the clock.
            and <uint64_t>now > since and <uint64_t>now - since > ax_load64(&line.timeout_ns)
            and ax_cas64(&line.cursor, cursor, cursor & ~<uint64_t>3 | AX_CURSOR_IDLE)
        ):
            ax_and64(&ring.stream.durables, ~(mask & (~mask + 1)))
        mask &= mask - 1


cdef int producer_join(ax_ring *ring) noexcept nogil:
    ax_or64(&ring.stream.producers[ring.me >> 6], <uint64_t>1 << (ring.me & 63))
    ring.sent = ax_load64(&ring.stream.sent)
    locate(ring, ax_load64(&ring.stream.tail))
    ring.limit = 0
    return AX_OK


cdef void producer_leave(ax_ring *ring) noexcept nogil:
    # Acquire-release: pairs with anybody_sends; a reader that sees us gone sees our last frame.
    abandon(ring)
    ax_and64(&ring.stream.producers[ring.me >> 6], ~(<uint64_t>1 << (ring.me & 63)))
    event_signal(&ring.stream.data, ring.words)


cdef void stream_cleanup(ax_party *party, uint32_t who) noexcept nogil:
    # The only repair. The caller owns byte `who`; may be interrupted at any line and repeated.
    cdef ax_stream *stream = <ax_stream *>party.control
    cdef ax_reader *readers = <ax_reader *>(party.control + sizeof(ax_stream))
    cdef char *controls = <char *>(readers + party.slots + AX_DURABLES)
    cdef uint64_t stride = control_stride_of(party.slots), i, word, slots = stream.slots
    cdef uint64_t bit = <uint64_t>1 << (who & 63)
    cdef uint32_t group = who >> 6
    cdef ax_slot *slot
    cdef ax_u64 *pins
    if slots > <uint64_t>(party.base + party.bytes - controls) // stride:
        return
    for i in range(slots):
        slot = <ax_slot *>(controls + i * stride)
        word = ax_load64(&slot.word)
        while word & 7 == AX_SLOT_WRITING and word >> 3 & OWNER_MASK == who:
            ax_crash("cleanup_slot")
            # The loser was bumped by a producer: look again.
            if ax_cas64(&slot.word, word, word & ~<uint64_t>7 | AX_SLOT_SKIP):
                break
            word = ax_load64(&slot.word)
        pins = <ax_u64 *>(<char *>slot + 64)
        if ax_peek64(&pins[group]) & bit:
            ax_and64(&pins[group], ~bit)
    ax_crash("cleanup_slots")
    ax_store64(&readers[who].cursor, AX_CURSOR_IDLE)
    ax_and64(&stream.readers[group], ~bit)
    if detach(stream, readers + party.slots, who):
        # It died before anything was promised to its name, and nothing is to anybody.
        ax_store32(&live_of(party).kept, 0)
    ax_crash("cleanup_cursor")
    ax_and64(&stream.data.sleepers[group], ~bit)
    ax_and64(&stream.space.sleepers[group], ~bit)
    if ax_load64(&stream.producers[group]) & bit:
        # It may have died waiting; another that waits says so again.
        ax_put64(&stream.stalled_since_ns, 0)
    # Last, so that a reader that sees the end sees every frame, and every claim passed over.
    ax_and64(&stream.producers[group], ~bit)
    event_wake(&stream.data)
    event_wake(&stream.space)


cdef bint detach(ax_stream *stream, ax_reader *durables, uint32_t who) noexcept nogil:
    # A durable cursor outlives its reader, and gates on. Whether a name was given up, and no other is left.
    cdef int k
    cdef uint64_t cursor
    cdef bint found = False, alone = True
    for k in range(AX_DURABLES):
        if ax_load32(&durables[k].owner) != who + 1:
            continue
        cursor = ax_load64(&durables[k].cursor)
        if cursor & 3 == AX_CURSOR_GATING and ax_peek32(&durables[k].policy) & AX_POLICY_JOINING:
            # Nothing was promised yet: what is at the cursor may be gone.
            ax_store64(&durables[k].cursor, AX_CURSOR_IDLE)
            cursor = AX_CURSOR_IDLE
        if cursor & 3 == AX_CURSOR_GATING:
            ax_store64(&durables[k].detached_ns, <uint64_t>ax_now_ns())
            ax_cas64(&durables[k].cursor, cursor, cursor & ~<uint64_t>3 | AX_CURSOR_DETACHED)
            ax_crash("cleanup_detached")
        elif cursor & 3 == AX_CURSOR_IDLE:
            ax_and64(&stream.durables, ~(<uint64_t>1 << k))
            found = True
        ax_store32(&durables[k].owner, 0)
    for k in range(AX_DURABLES):
        # Who owns a line is about to be promised something.
        alone &= ax_load32(&durables[k].owner) == 0
    return found and alone and ax_load64(&stream.durables) == 0


on_death(AX_KIND_STREAM, stream_cleanup)
