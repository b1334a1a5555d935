"""The readers' half of a stream's ring.

Source: docs/explanation/concurrency.md. A reader that gates reads what nobody overwrites; one that
does not pins a slot and looks again (Dekker), or copies and looks again (Boehm, MSPC 2012).
"""
from libc.errno cimport EINTR
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ataraxis._kernels.atomics cimport (
    ax_and64, ax_cas64, ax_copy, ax_fence_acquire, ax_fence_full, ax_load32, ax_load64, ax_or64, ax_peek64, ax_put64,
    ax_store64, ax_u64,
)
from ataraxis._kernels.event cimport event_cancel, event_prepare, event_signal
from ataraxis._kernels.layout cimport (
    AX_BUSY, AX_CURSOR_GATING, AX_CURSOR_WATCHING, AX_EMPTY, AX_ENDED, AX_LAPPED, AX_OK, AX_POLICY_LATEST,
    AX_SLOT_READY, AX_SLOT_SKIP, AX_TIMEOUT, ax_stream,
)
from ataraxis._kernels.memory cimport sweep
from ataraxis._kernels.platform cimport ax_crash, ax_futex_wait, ax_now_ns
from ataraxis._kernels.ring cimport (
    AX_UNKNOWN, anybody_sends, ax_ring, bytes_at, locate, payload_at, pins_at, sequence_at, slot_at, spin_time, step,
    time_at,
)
from ataraxis._kernels.timing cimport PAUSES, next_spin, spin_on

cdef enum:
    SLICE_NS = 50000000     # longest sleep before looking at signals
    PROBE_NS = 20000000     # longest wait before asking who lives
    IDLE_NS = 500000000     # the same where nothing has come for some time: an idle reader costs nothing
    DOUBLINGS = 5           # slices in which a nap becomes twice as long
    RUN = 32                # frames that are copied before they are given back


# ---- the algorithm

cdef int next_frame(ax_ring *ring, ax_got *got) noexcept nogil:
    # The next frame under our policy: AX_OK, AX_EMPTY, or AX_ENDED.
    cdef int status
    if ring.policy == AX_POLICY_LATEST:
        status = newest(ring, got)
    elif ring.gates:
        status = gated(ring, got)
    else:
        status = watched(ring, got)
    if status == AX_EMPTY and not anybody_sends(ring) and not has_next(ring):
        # Who sent last showed its frames before it left: what is not there now will never be.
        settle_drained(ring, ring.position)
        return AX_ENDED
    if status == AX_EMPTY and ring.freed:
        tell_space(ring)
    return status


cdef uint64_t copy_run(ax_ring *ring, char *to, int64_t *stamps, uint64_t each, uint64_t most) noexcept nogil:
    # Frames of `each` bytes that lie ready one behind the other, for a reader that gates and holds none: copied, and
    # given back at once, as if we had held all of them until now. How many; what is not plain is `next_frame`'s.
    cdef uint64_t done = 0, word, sequence
    cdef uint64_t index = ring.index
    if not ring.gates or ring.oldest != ring.position:
        return 0
    most = min(min(most, RUN), min(max(1, ring.slots // 8), ring.slots - index))
    while done < most:
        # Acquire: pairs with `settle` in ring.pyx.
        word = ax_load64(&slot_at(ring, index).word)
        if word >> 16 != ring.lap or word & 7 != AX_SLOT_READY or bytes_at(ring, index) != each:
            break
        sequence = sequence_at(ring, index)
        if stamps != NULL:
            stamps[done] = time_at(ring, index)
        ax_copy(to + done * each, payload_at(ring, index), each)
        count_frame(ring, sequence)
        done += 1
        index += 1
    if done == 0:
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
        tell_space(ring)
    return done


cdef inline int gated(ax_ring *ring, ax_got *got) noexcept nogil:
    # Acquire: pairs with `settle` in ring.pyx.
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
        tell_space(ring)
    if word >> 16 == ring.lap and word & 7 == AX_SLOT_READY:
        got.index, got.position, got.word, got.held = ring.index, ring.position, word, HELD_BY_CURSOR
        ring.out[ring.index] = 1
        ring.held += 1
        step(ring)
        return AX_OK
    # A later lap cannot be while we gate; it only shows when we were declared away for too long.
    return AX_EMPTY if word >> 16 <= ring.lap else AX_LAPPED


cdef int watched(ax_ring *ring, ax_got *got) noexcept nogil:
    # In order, but overtaken when slow.
    cdef uint64_t word, tail
    while True:
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
        # Lapped: go on where there is most time before the producer comes round again.
        tail = ax_load64(&ring.stream.tail)
        tail = tail - ring.slots + 1 if tail >= ring.slots else 0
        locate(ring, max(tail, ring.position + 1))
        watch_cursor(ring)


cdef int newest(ax_ring *ring, ax_got *got) noexcept nogil:
    # The newest frame that is complete, if it is not one we had.
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
    # Keep the slot's frame from being overwritten, or False: it was overtaken.
    cdef ax_u64 *pins
    got.index, got.position, got.word = index, position, word
    if index < ring.unpinned:
        got.held = HELD_BY_COPY
        ring.held += 1
        return True
    got.held = HELD_BY_PIN
    pins = pins_at(ring, index) + (ring.me >> 6)
    ax_or64(pins, <uint64_t>1 << (ring.me & 63))
    # Fence P: pairs with the one in `claim`. Either the producer sees our pin, or we see its claim.
    ax_fence_full()
    ax_crash("pin_set")
    if ax_load64(&slot_at(ring, index).word) == word:
        ring.held += 1
        return True
    ax_and64(pins, ~(<uint64_t>1 << (ring.me & 63)))
    return False


cdef int at_position(ax_ring *ring, uint64_t position, ax_got *got) noexcept nogil:
    # The frame at a position, held as a viewer would, whatever our policy: AX_OK, AX_EMPTY, AX_LAPPED.
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
    # After copying: was it one whole frame? The fence keeps the copy's loads above the second look.
    ax_fence_acquire()
    return ax_peek64(&slot_at(ring, got.index).word) == got.word


cdef void count_frame(ax_ring *ring, uint64_t sequence) noexcept nogil:
    # A frame was had: what lies between it and the one before was lost to us.
    if ring.expected == AX_UNKNOWN:
        ax_put64(&ring.line.joined, sequence)
    elif sequence > ring.expected:
        ring.dropped += sequence - ring.expected
        ax_put64(&ring.line.dropped, ring.dropped)
    ring.expected = sequence + 1
    ring.received += 1
    ax_put64(&ring.line.received, ring.received)


cdef void give_back(ax_ring *ring, uint64_t index, uint64_t position, int held) noexcept nogil:
    # Who waits for room is told when a quarter of the ring is free, or there is nothing more to read: a wake-up
    # costs more than many frames. Its own probe bounds what a reader that stops in between makes it wait.
    ring.held -= 1
    if held == HELD_BY_PIN:
        # Release: pairs with `pinned`; our last access is over.
        ax_and64(pins_at(ring, index) + (ring.me >> 6), ~(<uint64_t>1 << (ring.me & 63)))
        return
    if held == HELD_BY_COPY:
        return
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
        tell_space(ring)


cdef void tell_space(ax_ring *ring) noexcept nogil:
    ring.freed = 0
    event_signal(&ring.stream.space, ring.words)


cdef inline void move_cursor(ax_ring *ring, uint64_t position) noexcept nogil:
    # Release: pairs with `gate`; all our accesses below the position are over. Only we write it, unless
    # a durable one was declared away for good.
    ax_store64(&ring.line.cursor, position << 2 | AX_CURSOR_GATING)


cdef inline void watch_cursor(ax_ring *ring) noexcept nogil:
    # For statistics only: nobody waits for a reader that watches.
    ax_put64(&ring.line.cursor, ring.position << 2 | AX_CURSOR_WATCHING)


cdef void settle_drained(ax_ring *ring, uint64_t position) noexcept nogil:
    cdef uint64_t seen = ax_load64(&ring.stream.drained)
    while seen < position and not ax_cas64(&ring.stream.drained, seen, position):
        seen = ax_load64(&ring.stream.drained)


cdef void settle_had(ax_ring *ring) noexcept nogil:
    # A reader stops: if it had every frame so far, say so, though nobody told it of an end.
    cdef uint64_t tail = ax_load64(&ring.stream.tail)
    if ring.received and not has_next(ring):
        settle_drained(ring, tail)


cdef bint has_next(ax_ring *ring) noexcept nogil:
    # Whether something we have not had was sent, or is being written; passes over what was given up.
    cdef uint64_t position = ring.position, lap, index, word, tail
    while True:
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


cdef int next_wait(ax_ring *ring, ax_got *got, int64_t deadline, bint first) noexcept nogil:
    # One slice of waiting: as next_frame, or AX_BUSY look at your signals, or AX_TIMEOUT.
    cdef ax_stream *stream = ring.stream
    cdef int64_t now = ax_now_ns(), started = now, spin_ns = spin_time(ring)
    cdef int64_t nap
    cdef uint32_t seen
    cdef int status
    ring.naps = 0 if first else ring.naps + 1
    nap = min(IDLE_NS, <int64_t>PROBE_NS << min(ring.naps, DOUBLINGS))
    while first and spin_ns and spin_on(PAUSES, started, spin_ns):
        status = next_frame(ring, got)
        if status != AX_EMPTY:
            return status
    while True:
        seen = event_prepare(&stream.data, ring.me)
        status = next_frame(ring, got)
        if status == AX_EMPTY and ax_load32(&ring.poke):
            event_cancel(&stream.data, ring.me)
            return AX_BUSY
        if status == AX_EMPTY and now < deadline and now - started < SLICE_NS:
            if ax_futex_wait(&stream.data.count, seen, min(nap, deadline - now)) == -EINTR:
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
        if now >= deadline:
            status = next_frame(ring, got)
            return status if status != AX_EMPTY else AX_TIMEOUT
        if now - started >= SLICE_NS:
            return AX_BUSY
