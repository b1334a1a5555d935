"""The ring of a stream: claims, publishing, taking and releasing frames, joining and leaving readers, and the clean-up.

Source: docs/explanation/concurrency.md. A broadcast ring with gating cursors after the LMAX
Disruptor (Thompson et al., 2011). A claim is a compare-and-swap on the slot's word, so that a producer killed at any
instruction leaves either nothing or a slot owned by a dead participant. A reader that gates reads slots that no
producer overwrites. A reader that does not gate pins a slot and checks again (Dekker), or copies and checks again
(Boehm, MSPC 2012). A joining reader publishes its cursor before it decides where to start.
"""
from cython cimport no_gc_clear
from libc.errno cimport EINTR
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ataraxis._kernels.atomics cimport (
    ax_add64, ax_and64, ax_cas64, ax_copy, ax_fence_acquire, ax_fence_full, ax_load32, ax_load64, ax_or64, ax_peek32,
    ax_peek64, ax_put64, ax_store32, ax_store64, ax_u64,
)
from ataraxis._kernels.event cimport event_cancel, event_prepare, event_signal, event_wake
from ataraxis._kernels.layout cimport (
    AX_BUSY, AX_CURSOR_DETACHED, AX_CURSOR_GATING, AX_CURSOR_IDLE, AX_CURSOR_WATCHING, AX_DAMAGED, AX_DURABLES, AX_EMPTY,
    AX_ENDED, AX_FULL, AX_KIND_STREAM, AX_LAPPED, AX_OK, AX_OVERFLOW, AX_PAYLOAD_AT, AX_POLICY_JOINING,
    AX_POLICY_LATEST, AX_POLICY_LOSSLESS, AX_SLOT_READY, AX_SLOT_SKIP, AX_SLOT_WRITING, AX_STREAM_RESUMABLE,
    AX_STREAM_SHARED, AX_TIMEOUT, ax_reader, ax_slot, ax_stream,
)
from ataraxis._kernels.lock cimport pthread_self
from ataraxis._kernels.memory cimport (
    AX_WORD_AHEAD, AX_WORD_BEHIND, AX_WORD_OVERTAKEN, AX_WORD_STATE, AX_WORD_TAIL, AX_WORD_WRITER, ax_party, damage_text,
    damaged, inherited, live_of, on_death, sweep,
)
from ataraxis._kernels.platform cimport ax_cpus, ax_crash, ax_end_turn, ax_futex_wait, ax_now_ns, ax_take_turn
from ataraxis._kernels.timing cimport PAUSES, ROOM_PAUSES, SPIN_MAX_NS, next_spin, spin_on

cdef enum:
    SLICE_NS = 50000000     # longest sleep before checking signals
    PROBE_NS = 20000000     # longest wait before checking liveness
    AHEAD = 16              # a producer reads the cursors that often a lap
    SKIPS = 16              # pinned slots skipped before checking whether their readers are alive
    IDLE_NS = 500000000     # the same on an idle stream, where a reader should cost little
    DOUBLINGS = 5           # slices after which the sleep doubles
    RUN = 32                # frames that are copied before they are released
    LAP_BITS = 48           # of a word
    POLLS = 64              # checks without a frame before a reader verifies the ring's words


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
    ring.resumable = stream.flags & AX_STREAM_RESUMABLE
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
    party.cells = ring.slots
    locate(ring, ax_load64(&stream.tail))
    return AX_OK


cdef uint64_t control_stride_of(uint32_t participants) noexcept nogil:
    return (64 + <uint64_t>(participants + 63) // 64 * 8 + 127) // 128 * 128


cdef enum:
    DURABLE_BITS = 0xFFFF   # valid bits of the mask

cdef uint64_t gate(ax_ring *ring) noexcept nogil:
    # The first position that may not be claimed: n past the slowest reader that gates.
    # Never far ahead of the tail, so that most of the ring is still safe to read for a joining reader.
    cdef uint64_t tail, low, top, seen
    tail = ax_load64(&ring.stream.tail)
    top = tail + max(1, ring.slots // AHEAD)
    seen = ax_load64(&ring.stream.announced)
    while seen < top and not ax_cas64(&ring.stream.announced, seen, top):
        seen = ax_load64(&ring.stream.announced)
    # Fence J: pairs with the one in reader_join. Either this loop sees the joiner's cursor, or it sees `announced`.
    ax_fence_full()
    low = slowest(ring, tail)
    ring.is_followed = low < tail
    return min(low + ring.slots, top)


cdef uint64_t slowest(ax_ring *ring, uint64_t low) noexcept nogil:
    # The position of the slowest reader that gates, or `low` if all are past it.
    cdef uint64_t mask
    cdef uint32_t k, reader
    for k in range(ring.words):
        # Acquire: pairs with reader_leave; a reader that left has read its last frame.
        mask = ax_load64(&ring.stream.readers[k])
        while mask:
            reader = k * 64 + first_bit(mask)
            mask &= mask - 1
            if reader >= ring.participants:
                # The mask is damaged.
                break
            low = lower(low, ax_load64(&ring.readers[reader].cursor))
    mask = ax_load64(&ring.stream.durables) & DURABLE_BITS
    while mask:
        reader = ring.participants + first_bit(mask)
        mask &= mask - 1
        low = lower(low, ax_load64(&ring.readers[reader].cursor))
    return low


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


cdef int check_full(ax_ring *ring) noexcept nogil:
    # No room at this position: AX_FULL, or AX_DAMAGED if more than the ring lies between the tail and a reader
    # that gates. Joining readers are left out: their cursor is still moving up.
    cdef uint64_t cursor
    cdef uint32_t k
    cdef ax_reader *line
    if ring.lap >> LAP_BITS:
        return damaged(&ring.damage, AX_WORD_TAIL, 0, ring.position, 0)
    if ring.limit == ring.position:
        return AX_FULL
    for k in range(ring.participants + AX_DURABLES):
        if k < ring.participants:
            if not ax_load64(&ring.stream.readers[k >> 6]) >> (k & 63) & 1:
                continue
        elif not ax_load64(&ring.stream.durables) >> (k - ring.participants) & 1:
            continue
        line = &ring.readers[k]
        # Acquire, each: a joining reader marks its policy before its first cursor and unmarks it after its last.
        cursor = ax_load64(&line.cursor)
        if ax_load32(&line.policy) & AX_POLICY_JOINING or ax_load64(&line.cursor) != cursor:
            continue
        if lower(ring.position, cursor) + ring.slots < ring.position:
            return damaged(&ring.damage, AX_WORD_TAIL, k, ring.position, cursor >> 2)
    return AX_FULL


cdef int claim(ax_ring *ring) noexcept nogil:
    # Claim the next free slot: WRITING, owned by this participant. AX_OK, AX_FULL (gating readers are behind), or AX_DAMAGED.
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
            if ring.position >= ring.limit or ring.lap >> LAP_BITS:
                return check_full(ring)
        word = &slot_at(ring, ring.index).word
        # Acquire: pairs with publish and abandon of the previous lap.
        seen = ax_load64(word)
        if seen >> 16 > ring.lap:
            # A producer that claims for a later lap has seen a later tail. Without one, the word is damaged.
            if ax_load64(&stream.tail) == tail:
                return damaged(&ring.damage, AX_WORD_AHEAD, ring.index, seen >> 16, ring.lap)
            continue
        if seen >> 16 == ring.lap:
            # Claimed by a producer that has not moved the tail yet: help.
            ax_cas64(&stream.tail, tail, tail + 1)
            continue
        if seen & 7 == AX_SLOT_WRITING:
            # Its writer is a lap behind and no reader gates on it: its frame is lost. The winner of the
            # swap moves on; the loser checks again.
            ax_cas64(word, seen, word_of(ring.lap, seen >> 3 & OWNER_MASK, AX_SLOT_WRITING))
            skips += 1
            if skips > 2 * ring.slots:
                # Every slot is being written or read: wait as for room.
                return AX_FULL
            continue
        ax_crash("claim_before")
        # One winner; the loser tries again.
        if not ax_cas64(word, seen, word_of(ring.lap, ring.me, AX_SLOT_WRITING)):
            continue
        ax_crash("claim_word")
        advance(ring, tail)
        ax_crash("claim_tail")
        # Fence P: pairs with the one in `pin`. It also keeps the payload's stores below WRITING, for readers
        # that copy and validate.
        ax_fence_full()
        ring.claimed = True
        if not skip_pinned(ring):
            return AX_OK
        skips += 1
        if skips > 2 * ring.slots:
            return AX_FULL


cdef bint skip_pinned(ax_ring *ring) noexcept nogil:
    # If a viewer has pinned the claimed slot: leave its data alone and skip the position.
    if not pinned(ring, ring.index):
        return False
    set_state(ring, AX_SLOT_SKIP)
    event_signal(&ring.stream.data, ring.words)
    ax_add64(&ring.stream.skipped, 1)
    step(ring)
    ring.passed += 1
    if ring.passed % SKIPS == 0:
        sweep(ring.party, PROBE_NS)
    return True


cdef inline void advance(ax_ring *ring, uint64_t tail) noexcept nogil:
    # Release: a thread that sees the tail sees the claim.
    if ring.shared:
        ax_cas64(&ring.stream.tail, tail, tail + 1)
    else:
        ax_store64(&ring.stream.tail, tail + 1)


cdef inline void set_state(ax_ring *ring, uint64_t state) noexcept nogil:
    # Release: pairs with the acquire of readers and of the next claimer.
    cdef ax_u64 *word = &slot_at(ring, ring.index).word
    cdef uint64_t seen
    ring.claimed = False
    if not ring.shared:
        ax_store64(word, word_of(ring.lap, ring.me, state))
        return
    if ax_cas64(word, word_of(ring.lap, ring.me, AX_SLOT_WRITING), word_of(ring.lap, ring.me, state)):
        return
    # A producer one lap ahead raised the lap: the frame is lost; the slot stays claimed until it is marked SKIP.
    seen = ax_load64(word)
    while not ax_cas64(word, seen, seen & ~<uint64_t>7 | AX_SLOT_SKIP):
        seen = ax_load64(word)


cdef inline void publish_slot(ax_ring *ring, uint32_t at, uint64_t bytes) noexcept nogil:
    cdef ax_slot *slot = slot_at(ring, ring.index)
    cdef ax_stream *stream = ring.stream
    ax_put64(<ax_u64 *>&slot.at, at)
    ax_put64(&slot.bytes, bytes)
    ax_crash("publish_before")
    set_state(ring, AX_SLOT_READY)
    ax_crash("publish_word")
    ring.sent += 1
    if ring.shared:
        ax_add64(&stream.sent, 1)
        ax_add64(&stream.sent_bytes, bytes)
    else:
        # Release: pairs with `first_expected`.
        ax_store64(&stream.sent, ring.sent)
        ax_put64(&stream.sent_bytes, ax_peek64(&stream.sent_bytes) + bytes)
    step(ring)


cdef void publish(ax_ring *ring, uint32_t at, uint64_t bytes) noexcept nogil:
    # Publish the claimed slot, which holds a complete frame.
    publish_slot(ring, at, bytes)
    event_signal(&ring.stream.data, ring.words)


cdef void publish_run(ax_ring *ring, uint64_t end, uint32_t at, uint64_t bytes) noexcept nogil:
    # Publish in order the slots of a run up to `end` that were not skipped. No other thread changes their words.
    while ring.position < end:
        if ax_peek64(&slot_at(ring, ring.index).word) & 7 == AX_SLOT_WRITING:
            publish_slot(ring, at, bytes)
        else:
            step(ring)
    event_signal(&ring.stream.data, ring.words)


cdef void abandon(ax_ring *ring) noexcept nogil:
    # Drop the claimed slot; readers skip it.
    if ring.claimed:
        set_state(ring, AX_SLOT_SKIP)
        event_signal(&ring.stream.data, ring.words)
        step(ring)


cdef int claim_wait(ax_ring *ring, int64_t deadline, bint first) noexcept nogil:
    # One slice of waiting for room: AX_OK claimed, AX_BUSY check signals and call again, AX_TIMEOUT, AX_DAMAGED.
    cdef ax_stream *stream = ring.stream
    cdef int64_t now = ax_now_ns(), started = now, spin_ns = spin_time(ring)
    cdef uint32_t seen
    # Longer pauses with many slots: a producer close behind a reader would exchange cache lines with it all the time.
    cdef uint32_t pauses = <uint32_t>min(ring.slots // 2 + 1, ROOM_PAUSES)
    cdef int status
    while first and spin_ns and spin_on(pauses, started, spin_ns):
        status = claim(ring)
        if status != AX_FULL:
            return status
    while True:
        seen = event_prepare(&stream.space, ring.me)
        status = claim(ring)
        if status == AX_FULL and now < deadline and now - started < SLICE_NS:
            status = ax_futex_wait(&stream.space.count, seen, min(PROBE_NS, deadline - now))
            status = AX_BUSY if status == -EINTR else claim(ring)
        event_cancel(&stream.space, ring.me)
        if status == AX_BUSY or status == AX_DAMAGED:
            return status
        now = ax_now_ns()
        if status == AX_OK:
            if first:
                ring.spin_ns = next_spin(ring.spin_ns, now - started)
            return AX_OK
        sweep(ring.party, PROBE_NS)
        expire(ring, now)
        if now >= deadline:
            status = claim(ring)
            return status if status != AX_FULL else AX_TIMEOUT
        if now - started >= SLICE_NS:
            return AX_BUSY


cdef void expire(ax_ring *ring, int64_t now) noexcept nogil:
    # Durable readers that stayed away too long stop gating. The swap loses to a reader that returns now.
    cdef uint64_t mask = ax_load64(&ring.stream.durables) & DURABLE_BITS, cursor, since
    cdef ax_reader *line
    while mask:
        line = &ring.readers[ring.participants + first_bit(mask)]
        cursor = ax_load64(&line.cursor)
        since = ax_load64(&line.detached_ns)
        if (
            cursor & 3 == AX_CURSOR_DETACHED
            # The reader may have left after `now` was taken.
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
    if not ring.shared:
        count_last(ring)
    return AX_OK


cdef void count_last(ax_ring *ring) noexcept nogil:
    # The producer before may have died after it published a frame, and before it counted it. Its slots were cleaned up.
    cdef uint64_t position = ring.position, least, sequence
    cdef ax_got got
    least = position - ring.slots if position > ring.slots else 0
    while position > least:
        position -= 1
        if at_position(ring, position, &got) != AX_OK:
            continue
        sequence = sequence_at(ring, got.index)
        if sequence >= ring.sent and sequence != AX_UNKNOWN:
            ring.sent = sequence + 1
            ax_put64(&ring.stream.sent_bytes, ax_peek64(&ring.stream.sent_bytes) + bytes_at(ring, got.index))
            ax_crash("resume_counting")
            # Release: pairs with `first_expected`.
            ax_store64(&ring.stream.sent, ring.sent)
        return


cdef void producer_leave(ax_ring *ring) noexcept nogil:
    # Acquire-release: pairs with has_producers; a reader that sees the bit cleared sees the last frame.
    abandon(ring)
    if ring.resumable and not ring.leaves:
        ax_crash("end_unmarked")
        # Release: pairs with `is_over`. Before the bit is cleared, so that a death in between is an end.
        ax_store64(&ring.stream.over, 1)
        ax_crash("end_marked")
    ax_and64(&ring.stream.producers[ring.me >> 6], ~(<uint64_t>1 << (ring.me & 63)))
    event_signal(&ring.stream.data, ring.words)


cdef void stream_cleanup(ax_party *party, uint32_t who) noexcept nogil:
    # The only clean-up. The caller owns byte `who`. May be interrupted at any line and repeated.
    cdef ax_stream *stream = <ax_stream *>party.control
    cdef ax_reader *readers = <ax_reader *>(party.control + sizeof(ax_stream))
    cdef char *controls = <char *>(readers + party.slots + AX_DURABLES)
    cdef uint64_t stride = control_stride_of(party.slots), i, word, slots = stream.slots
    cdef uint64_t bit = <uint64_t>1 << (who & 63)
    cdef uint32_t group = who >> 6
    cdef ax_slot *slot
    cdef ax_u64 *pins
    if party.cells:
        slots = party.cells
    elif (
        # Not checked by a handle: accepted if slots and frames fit into the file.
        slots >> 32 or stream.stride >> 46
        or slots > <uint64_t>(party.base + party.bytes - controls) // (stride + stream.stride)
    ):
        return
    for i in range(slots):
        slot = <ax_slot *>(controls + i * stride)
        word = ax_load64(&slot.word)
        while word & 7 == AX_SLOT_WRITING and word >> 3 & OWNER_MASK == who:
            ax_crash("cleanup_slot")
            # The swap lost to a producer that raised the lap: check again.
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
        # It died before its name was guaranteed any frame, and no other name is.
        ax_store32(&live_of(party).kept, 0)
    ax_crash("cleanup_cursor")
    ax_and64(&stream.data.sleepers[group], ~bit)
    ax_and64(&stream.space.sleepers[group], ~bit)
    if ax_load64(&stream.producers[group]) & bit:
        # It may have died waiting; another producer that waits sets it again.
        ax_put64(&stream.stalled_since_ns, 0)
    # Last, so that a reader that sees the end sees every frame, and every dropped claim.
    ax_and64(&stream.producers[group], ~bit)
    event_wake(&stream.data)
    event_wake(&stream.space)


cdef bint detach(ax_stream *stream, ax_reader *durables, uint32_t who) noexcept nogil:
    # A durable cursor outlives its reader and goes on gating. Returns whether a name was freed and no other is left.
    cdef int k
    cdef uint64_t cursor
    cdef bint found = False, alone = True
    for k in range(AX_DURABLES):
        if ax_load32(&durables[k].owner) != who + 1:
            continue
        cursor = ax_load64(&durables[k].cursor)
        if cursor & 3 == AX_CURSOR_GATING and ax_peek32(&durables[k].policy) & AX_POLICY_JOINING:
            # No frame was guaranteed yet: those at the cursor may be overwritten.
            ax_store64(&durables[k].cursor, AX_CURSOR_IDLE)
            cursor = AX_CURSOR_IDLE
        if cursor & 3 == AX_CURSOR_GATING:
            ax_store64(&durables[k].detached_ns, <uint64_t>ax_now_ns())
            ax_cas64(&durables[k].cursor, cursor, cursor & ~<uint64_t>3 | AX_CURSOR_DETACHED)
            ax_crash("cleanup_detached")
        elif cursor & 3 == AX_CURSOR_IDLE or cursor & 3 == AX_CURSOR_WATCHING:
            # It stopped gating: no frame is guaranteed to it any more.
            ax_store64(&durables[k].cursor, AX_CURSOR_IDLE)
            ax_and64(&stream.durables, ~(<uint64_t>1 << k))
            found = True
        ax_store32(&durables[k].owner, 0)
    for k in range(AX_DURABLES):
        # An owned line is about to be guaranteed frames.
        alone &= ax_load32(&durables[k].owner) == 0
    return found and alone and ax_load64(&stream.durables) == 0


on_death(AX_KIND_STREAM, stream_cleanup)


# ---- readers: take a frame, release it, wait

cdef int next_frame(ax_ring *ring, ax_got *got) noexcept nogil:
    # Take the next frame under this reader's policy: AX_OK, AX_EMPTY, AX_ENDED, or AX_DAMAGED.
    cdef int status
    if ring.is_overtaken:
        ring.is_overtaken = False
        return AX_DAMAGED
    if ring.policy == AX_POLICY_LATEST:
        status = next_latest(ring, got)
    elif ring.gates:
        status = next_gating(ring, got)
    else:
        status = next_watching(ring, got)
    if status == AX_EMPTY and is_over(ring) and not has_next(ring):
        # The last producer published its frames before it left: no more will come.
        mark_drained(ring, ring.position)
        count_end(ring)
        return AX_ENDED
    if status == AX_EMPTY and ring.freed:
        signal_space(ring)
    if status == AX_EMPTY:
        ring.looks += 1
        if ring.looks % POLLS == 0:
            return check_waiting(ring)
    return status


cdef uint64_t copy_run(ax_ring *ring, char *to, int64_t *stamps, uint64_t each, uint64_t most) noexcept nogil:
    # Copy consecutive ready frames of `each` bytes, for a gating reader that holds none, and release them together.
    # Returns how many. Other frames are left to `next_frame`.
    cdef uint64_t done = 0, word, sequence
    cdef uint64_t index = ring.index
    if not ring.gates or ring.oldest != ring.position:
        return 0
    most = min(min(most, RUN), min(max(1, ring.slots // 8), ring.slots - index))
    while done < most:
        # Acquire: pairs with `set_state`.
        word = ax_load64(&slot_at(ring, index).word)
        if word >> 16 != ring.lap or word & 7 != AX_SLOT_READY or bytes_at(ring, index) != each:
            break
        sequence = sequence_at(ring, index)
        if stamps != NULL:
            stamps[done] = time_at(ring, index)
        ax_copy(to + done * each, payload_at(ring, index), each)
        count_frame(ring, sequence, frame_at(ring, index).header_crc)
        done += 1
        index += 1
    # The first one would be overwritten first. If the cursor did not protect it, the copies are not trusted.
    if done == 0 or not is_intact(ring, ring.index, ring.position):
        return 0
    ring.position += done
    ring.index = index
    if index == ring.slots:
        ring.index = 0
        ring.lap += 1
    ring.freed += done
    ring.oldest, ring.oldest_index = ring.position, ring.index
    ax_crash("cursor_before")
    move_cursor(ring, ring.position)
    ax_crash("cursor_moved")
    if ring.freed * 4 >= ring.slots:
        signal_space(ring)
    return done


cdef inline int next_gating(ax_ring *ring, ax_got *got) noexcept nogil:
    # Acquire: pairs with `set_state`.
    cdef uint64_t word = ax_load64(&slot_at(ring, ring.index).word)
    cdef bint passed = False
    while word >> 16 == ring.lap and word & 7 == AX_SLOT_SKIP:
        if ring.shared and ring.expected != AX_UNKNOWN:
            ring.expected += 1
        step(ring)
        passed = True
        word = ax_load64(&slot_at(ring, ring.index).word)
    if passed and not ring.held:
        ring.oldest, ring.oldest_index = ring.position, ring.index
        move_cursor(ring, ring.position)
        signal_space(ring)
    if word >> 16 == ring.lap and word & 7 == AX_SLOT_READY:
        got.index, got.position, got.word, got.held = ring.index, ring.position, word, HELD_BY_CURSOR
        ring.out[ring.index] = 1
        ring.held += 1
        step(ring)
        return AX_OK
    if word >> 16 <= ring.lap:
        return AX_EMPTY
    # Impossible while this reader gates.
    return damaged(&ring.damage, AX_WORD_OVERTAKEN, ring.index, word >> 16, ring.lap)


cdef inline bint is_intact(ax_ring *ring, uint64_t index, uint64_t position) noexcept nogil:
    # Whether a slot protected by the cursor is unchanged. The fence keeps the reads of it above this load.
    cdef uint64_t found
    ax_fence_acquire()
    found = ax_peek64(&slot_at(ring, index).word) >> 16
    if (found - 1) * ring.slots + index == position:
        return True
    ring.is_overtaken = True
    damaged(&ring.damage, AX_WORD_OVERTAKEN, index, found, position // ring.slots + 1)
    return False


cdef int check_waiting(ax_ring *ring) noexcept nogil:
    # No frame for this reader: check the words. AX_EMPTY, or AX_DAMAGED. The caller is inside.
    if ring.gates:
        restore_cursor(ring)
    return check_words(ring)


cdef int check_words(ax_ring *ring) noexcept nogil:
    cdef ax_u64 *word = &slot_at(ring, ring.index).word
    cdef uint64_t seen = ax_load64(word), tail = ax_load64(&ring.stream.tail)
    cdef uint64_t owner = seen >> 3 & OWNER_MASK
    # A run claimed by a producer that died is not in the tail yet: a reader may be that far ahead.
    if ring.position > ring.slots and ring.position - ring.slots > tail:
        return damaged(&ring.damage, AX_WORD_TAIL, 0, tail, ring.position)
    if seen >> 16 < ring.lap:
        # The word was loaded before the tail: load it again.
        if tail > ring.position and ax_load64(word) >> 16 < ring.lap:
            return damaged(&ring.damage, AX_WORD_BEHIND, ring.index, seen >> 16, ring.lap)
    elif seen >> 16 == ring.lap and seen & 7 == AX_SLOT_WRITING:
        # A producer's bit is set before it claims, and cleared after its last slot was published or dropped.
        if (
            (owner >= ring.participants or not ax_load64(&ring.stream.producers[owner >> 6]) >> (owner & 63) & 1)
            and ax_load64(word) == seen
        ):
            return damaged(&ring.damage, AX_WORD_WRITER, ring.index, owner, ring.lap)
    elif seen >> 16 == ring.lap and seen & 7 != AX_SLOT_READY and seen & 7 != AX_SLOT_SKIP:
        return damaged(&ring.damage, AX_WORD_STATE, ring.index, seen & 7, ring.lap)
    return AX_EMPTY


cdef void restore_cursor(ax_ring *ring) noexcept nogil:
    # Only this reader writes its cursor and its bit while it gates: restore them if they were damaged.
    cdef ax_stream *stream = ring.stream
    cdef uint64_t bit
    if ax_peek64(&ring.line.cursor) != ring.oldest << 2 | AX_CURSOR_GATING:
        move_cursor(ring, ring.oldest)
    if ring.line == &ring.readers[ring.me]:
        bit = <uint64_t>1 << (ring.me & 63)
        if not ax_peek64(&stream.readers[ring.me >> 6]) & bit:
            ax_or64(&stream.readers[ring.me >> 6], bit)
    else:
        bit = <uint64_t>1 << (ring.line - ring.readers - ring.participants)
        if not ax_peek64(&stream.durables) & bit:
            ax_or64(&stream.durables, bit)


cdef int next_watching(ax_ring *ring, ax_got *got) noexcept nogil:
    # Frames in order; a slow reader is lapped.
    cdef uint64_t word, tail, left = 2 * ring.slots + 2
    while left:
        left -= 1
        word = ax_load64(&slot_at(ring, ring.index).word)
        if word >> 16 < ring.lap:
            return AX_EMPTY
        if word >> 16 == ring.lap:
            if word & 7 == AX_SLOT_SKIP:
                if ring.shared and ring.expected != AX_UNKNOWN:
                    ring.expected += 1
                step(ring)
                watch_cursor(ring)
                continue
            if word & 7 != AX_SLOT_READY:
                return AX_EMPTY
            if pin(ring, ring.index, ring.position, word, got):
                step(ring)
                watch_cursor(ring)
                return AX_OK
        # Lapped: continue at the oldest position that is not being overwritten.
        tail = ax_load64(&ring.stream.tail)
        tail = tail - ring.slots + 1 if tail >= ring.slots else 0
        locate(ring, max(tail, ring.position + 1))
        watch_cursor(ring)
    # Too many retries: the caller tries again.
    return AX_EMPTY


cdef int next_latest(ax_ring *ring, ax_got *got) noexcept nogil:
    # The newest complete frame that was not taken yet.
    cdef uint64_t next = ring.position, position = ax_load64(&ring.stream.tail), low
    cdef uint64_t word
    # The tail may lag by one behind a claim.
    position += 1
    low = max(next, position - ring.slots if position > ring.slots else 0)
    while position > low:
        position -= 1
        locate(ring, position)
        word = ax_load64(&slot_at(ring, ring.index).word)
        if (
            word >> 16 == ring.lap
            and word & 7 == AX_SLOT_READY
            and pin(ring, ring.index, position, word, got)
        ):
            step(ring)
            watch_cursor(ring)
            return AX_OK
    locate(ring, next)
    return AX_EMPTY


cdef inline bint pin(ax_ring *ring, uint64_t index, uint64_t position, uint64_t word, ax_got *got) noexcept nogil:
    # Protect the slot's frame from being overwritten; False: it was overwritten already.
    cdef ax_u64 *pins
    got.index, got.position, got.word = index, position, word
    if index < ring.unpinned:
        got.held = HELD_BY_COPY
        ring.held += 1
        return True
    got.held = HELD_BY_PIN
    pins = pins_at(ring, index) + (ring.me >> 6)
    ax_or64(pins, <uint64_t>1 << (ring.me & 63))
    # Fence P: pairs with the one in `claim`. Either the producer sees the pin, or this reader sees its claim.
    ax_fence_full()
    ax_crash("pin_set")
    if ax_load64(&slot_at(ring, index).word) == word:
        ring.held += 1
        return True
    ax_and64(pins, ~(<uint64_t>1 << (ring.me & 63)))
    return False


cdef int at_position(ax_ring *ring, uint64_t position, ax_got *got) noexcept nogil:
    # Take the frame at a position without protection, under any policy: AX_OK, AX_EMPTY, AX_LAPPED.
    cdef uint64_t lap = position // ring.slots + 1
    cdef uint64_t index = position - (lap - 1) * ring.slots
    cdef uint64_t word = ax_load64(&slot_at(ring, index).word)
    if word >> 16 != lap:
        return AX_EMPTY if word >> 16 < lap else AX_LAPPED
    if word & 7 != AX_SLOT_READY:
        return AX_EMPTY
    got.index, got.position, got.word, got.held = index, position, word, HELD_BY_COPY
    return AX_OK


cdef bint unchanged(ax_ring *ring, ax_got *got) noexcept nogil:
    # Check after a copy that the frame was not overwritten. The fence keeps the copy's loads above this load.
    ax_fence_acquire()
    return ax_peek64(&slot_at(ring, got.index).word) == got.word


cdef void count_frame(ax_ring *ring, uint64_t sequence, uint64_t passed) noexcept nogil:
    # Count a received frame; a gap before it counts as dropped, but for `passed` numbers that had no frame.
    if ring.expected == AX_UNKNOWN:
        ax_put64(&ring.line.joined, sequence)
    elif sequence > ring.expected:
        ring.dropped += sequence - ring.expected - min(passed, sequence - ring.expected)
        ax_put64(&ring.line.dropped, ring.dropped)
    ring.expected = sequence + 1
    ring.received += 1
    ax_put64(&ring.line.received, ring.received)


cdef inline void count_end(ax_ring *ring) noexcept nogil:
    # At the end: numbers that no frame will have any more count as dropped. Acquire: pairs with the releases of `sent`.
    cdef uint64_t sent = ax_load64(&ring.stream.sent)
    if ring.shared or ring.expected == AX_UNKNOWN or sent <= ring.expected:
        return
    ring.dropped += sent - ring.expected
    ring.expected = sent
    ax_put64(&ring.line.dropped, ring.dropped)


cdef void release_frame(ax_ring *ring, uint64_t index, uint64_t position, int held) noexcept nogil:
    # Producers that wait are woken when a quarter of the ring is free, or nothing is left to read: a wake-up
    # costs more than many frames. If the reader stops in between, they wait at most until their next probe.
    ring.held -= 1
    if held == HELD_BY_PIN:
        # Release: pairs with `pinned`; the last access is over.
        ax_and64(pins_at(ring, index) + (ring.me >> 6), ~(<uint64_t>1 << (ring.me & 63)))
        return
    if held == HELD_BY_COPY:
        return
    is_intact(ring, index, position)
    ring.out[index] = 0
    if position != ring.oldest:
        return
    while ring.oldest != ring.position and not ring.out[ring.oldest_index]:
        ring.freed += 1
        ring.oldest += 1
        ring.oldest_index += 1
        if ring.oldest_index == ring.slots:
            ring.oldest_index = 0
    ax_crash("cursor_before")
    move_cursor(ring, ring.oldest)
    ax_crash("cursor_moved")
    if ring.freed * 4 >= ring.slots:
        signal_space(ring)


cdef void signal_space(ax_ring *ring) noexcept nogil:
    ring.freed = 0
    event_signal(&ring.stream.space, ring.words)


cdef inline void move_cursor(ax_ring *ring, uint64_t position) noexcept nogil:
    # Release: pairs with `gate`; all accesses below the position are over. Only this reader writes it, unless
    # a durable one was expired.
    ax_store64(&ring.line.cursor, position << 2 | AX_CURSOR_GATING)


cdef inline void watch_cursor(ax_ring *ring) noexcept nogil:
    # For statistics only: producers do not wait for a reader that watches.
    ax_put64(&ring.line.cursor, ring.position << 2 | AX_CURSOR_WATCHING)


cdef void mark_drained(ax_ring *ring, uint64_t position) noexcept nogil:
    cdef uint64_t seen = ax_load64(&ring.stream.drained)
    while seen < position and not ax_cas64(&ring.stream.drained, seen, position):
        seen = ax_load64(&ring.stream.drained)


cdef void mark_read(ax_ring *ring) noexcept nogil:
    # A reader stops: record it if every frame so far was read, though no end was seen.
    cdef uint64_t tail = ax_load64(&ring.stream.tail)
    if ring.received and not has_next(ring):
        mark_drained(ring, tail)


cdef bint has_next(ax_ring *ring) noexcept nogil:
    # Whether an unread frame was sent or is being written; ignores dropped claims.
    cdef uint64_t position = ring.position, lap, index, word, tail, left = 2 * ring.slots + 2
    while left:
        left -= 1
        lap = position // ring.slots + 1
        index = position - (lap - 1) * ring.slots
        word = ax_load64(&slot_at(ring, index).word)
        if word >> 16 < lap:
            return False
        if word >> 16 == lap and word & 7 != AX_SLOT_SKIP:
            return True
        position += 1
        if word >> 16 > lap:
            tail = ax_load64(&ring.stream.tail)
            position = max(position, tail - ring.slots if tail > ring.slots else 0)
    return True


cdef int next_wait(ax_ring *ring, ax_got *got, int64_t deadline, bint first) noexcept nogil:
    # One slice of waiting: as next_frame, or AX_BUSY check signals and call again, AX_TIMEOUT, AX_DAMAGED.
    cdef ax_stream *stream = ring.stream
    cdef int64_t now = ax_now_ns(), started = now, spin_ns = spin_time(ring)
    cdef int64_t sleep_ns
    cdef uint32_t seen
    cdef int status
    ring.slices = 0 if first else ring.slices + 1
    sleep_ns = min(IDLE_NS, <int64_t>PROBE_NS << min(ring.slices, DOUBLINGS))
    while first and spin_ns and spin_on(PAUSES, started, spin_ns):
        status = next_frame(ring, got)
        if status != AX_EMPTY:
            return status
    while True:
        seen = event_prepare(&stream.data, ring.me)
        status = next_frame(ring, got)
        if status == AX_EMPTY and ax_load32(&ring.wake_flag):
            event_cancel(&stream.data, ring.me)
            return AX_BUSY
        if status == AX_EMPTY and now < deadline and now - started < SLICE_NS:
            if ax_futex_wait(&stream.data.count, seen, min(sleep_ns, deadline - now)) == -EINTR:
                event_cancel(&stream.data, ring.me)
                return AX_BUSY
            status = next_frame(ring, got)
        event_cancel(&stream.data, ring.me)
        now = ax_now_ns()
        if status != AX_EMPTY:
            if first:
                ring.spin_ns = next_spin(ring.spin_ns, now - started)
            return status
        sweep(ring.party, PROBE_NS)
        if check_waiting(ring) != AX_EMPTY:
            return AX_DAMAGED
        if now >= deadline:
            status = next_frame(ring, got)
            return status if status != AX_EMPTY else AX_TIMEOUT
        if now - started >= SLICE_NS:
            return AX_BUSY


# ---- readers: join and leave

cdef int reader_join(ax_ring *ring, uint32_t policy, bint from_oldest, int durable) noexcept nogil:
    # Join as a reader; `durable` is the line of its durable name, -1 without one.
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
        # A durable cursor is at most the ring behind the tail, and never ahead of it.
        tail = ax_load64(&stream.tail)
        if (cursor >> 2) > tail + ring.slots or (cursor >> 2) + ring.slots < tail:
            return damaged(&ring.damage, AX_WORD_TAIL, 0, tail, cursor >> 2)
        # Resume. The swap loses to `expire`.
        if ax_cas64(&line.cursor, cursor, cursor & ~<uint64_t>3 | AX_CURSOR_GATING):
            return set_position(ring, cursor >> 2)
    ax_put64(&line.received, 0)
    ax_put64(&line.dropped, 0)
    # Release: a cleaner that sees the cursor sees that no frame is guaranteed yet.
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
    elif ring.gates and has_producers(ring):
        # Frames below may be overwritten by a producer that has not seen this cursor.
        floor = ax_load64(&stream.announced)
        # A value further ahead of the tail is damaged.
        floor = min(floor, ax_load64(&stream.tail) + max(1, ring.slots // AHEAD))
        start = max(start, floor - ring.slots if floor > ring.slots else 0)
    while start < tail and overwritten(ring, start):
        start += 1
    if policy == AX_POLICY_LATEST and from_oldest and tail:
        start = tail - 1
    ax_store64(&line.cursor, start << 2 | state)
    # Release: frames from the cursor on are guaranteed from here on.
    ax_store32(&line.policy, policy)
    ax_crash("join_done")
    set_position(ring, start)
    ring.expected = first_expected(ring, start, tail)
    ax_put64(&line.joined, 0 if ring.expected == AX_UNKNOWN else ring.expected)
    return AX_OK


cdef int set_position(ax_ring *ring, uint64_t position) noexcept nogil:
    locate(ring, position)
    ring.oldest = position
    ring.oldest_index = ring.index
    return AX_OK


cdef bint overwritten(ax_ring *ring, uint64_t position) noexcept nogil:
    cdef uint64_t lap = position // ring.slots + 1
    return ax_load64(&slot_at(ring, position - (lap - 1) * ring.slots).word) >> 16 > lap


cdef uint64_t first_expected(ax_ring *ring, uint64_t start, uint64_t tail) noexcept nogil:
    # The first sequence for a reader that begins at `start`: losses count from there.
    cdef uint64_t position, sequence
    # Acquire: pairs with the releases of `sent`. Before the slots: a frame found nowhere below has this number or a larger one.
    cdef uint64_t sent = ax_load64(&ring.stream.sent)
    cdef ax_got got
    if ring.shared:
        return start
    if tail == 0:
        return sent
    for position in range(start, min(tail, start + ring.slots)):
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
                return max(sequence + 1, sent)
    return AX_UNKNOWN


cdef void reader_leave(ax_ring *ring) noexcept nogil:
    # Leave for good; a durable name is removed too.
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


cdef void reader_stop_gating(ax_ring *ring) noexcept nogil:
    # Stop gating, called by a thread that is not inside: the one inside may hang in the kernel. Slots that it reads may
    # be overwritten meanwhile. The reader line stays owned.
    cdef uint64_t cursor = ax_load64(&ring.line.cursor)
    if cursor & 3 == AX_CURSOR_GATING:
        # Loses to `move_cursor` of a thread that continues; pairs with `gate`.
        ax_cas64(&ring.line.cursor, cursor, cursor & ~<uint64_t>3 | AX_CURSOR_WATCHING)
    event_wake(&ring.stream.space)


# ---- the bridge

@no_gc_clear   # `ring` points into `participant` and `memory`: neither goes before it
cdef class Endpoint:
    """A handle on the ring, used by one thread at a time. Closing it waits for that thread, or leaves the rest to it.

    A subclass opens it, and provides `_revive()` (make the handle usable or raise), `interrupt` (wake a thread that
    waits inside), `finish` (called once before leaving) and `detach` (leave, if that is due).
    """

    @property
    def _damage(self):
        """The last DAMAGED as text: the word, its value, and what is possible."""
        return damage_text(&self.ring.damage)

    def _shut(self):
        """Leave the stream once no thread is inside."""
        if not self.is_open:
            return
        self.is_open = False
        self.is_leaving = True
        if inherited(self.ring.party):
            self.participant = None
            self.memory = None
            return
        while not ax_take_turn(&self.busy):
            if self.inside == pthread_self():
                # Closed in a signal handler, or the like: the interrupted call leaves.
                return
            self.interrupt()
            self._yield()
        self.finish()
        self.leave()

    cdef int enter(self) except -1:
        # Admit one thread at a time.
        if not self.is_open or inherited(self.ring.party):
            self._revive()
        while not ax_take_turn(&self.busy):
            self._yield()
            if not self.is_open:
                self._revive()
        self.inside = pthread_self()
        return 0

    cdef void leave(self) noexcept:
        self.detach()
        ax_end_turn(&self.busy)

    cdef void interrupt(self) noexcept:
        pass

    cdef void finish(self) noexcept:
        pass

    cdef void detach(self) noexcept:
        pass

    def _yield(self):
        """Let the thread that is inside run."""
        import time
        time.sleep(0.0001)
