"""The work queue: claims, leases, acknowledgements, waiting, and the clean-up after dead participants.

Source: docs/explanation/concurrency.md. Claims and leases are compare-and-swaps on the slot's word, so that a process
killed at any instruction leaves either nothing or a slot owned by a dead participant. A waiting thread checks, spins
for as long as spinning paid lately where cores are free, then sleeps, never longer than a slice; by elapsed time it
checks liveness and expired leases.
"""
from libc.errno cimport EINTR
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ataraxis._kernels.atomics cimport (
    ax_and64, ax_cas32, ax_cas64, ax_fence_acquire, ax_fence_full, ax_fence_release, ax_load32, ax_load64, ax_pause,
    ax_peek32, ax_peek64, ax_put32, ax_put64, ax_store32, ax_store64, ax_u32, ax_u64,
)
from ataraxis._kernels.event cimport event_cancel, event_prepare, event_signal, event_wake
from ataraxis._kernels.layout cimport (
    AX_ACTIVE, AX_BUSY, AX_DAMAGED, AX_DEAD, AX_EMPTY, AX_FULL, AX_KIND_QUEUE, AX_MESSAGE_CHUNK, AX_OK, AX_OVERFLOW, AX_QUEUE_FRAMES, AX_SLOT_FREE,
    AX_SLOT_GROWING, AX_SLOT_LEASED, AX_SLOT_READY, AX_SLOT_RETRY, AX_SLOT_SKIP, AX_SLOT_WRITING, AX_TIMEOUT, ax_event, ax_message,
    ax_queue, ax_tally, ax_ticket,
)
from ataraxis._kernels.memory cimport (
    AX_WORD_AHEAD, AX_WORD_BEHIND, AX_WORD_HEAD, AX_WORD_LEFT, AX_WORD_STATE, AX_WORD_TAIL, AX_WORD_WRITER, ax_party, damaged,
    entry_of, lock_vacant, unlock_vacant, live_of, on_death, sweep,
)
from ataraxis._kernels.platform cimport ax_cpus, ax_crash, ax_futex_wait, ax_now_ns
from ataraxis._kernels.timing cimport PAUSES, ROOM_PAUSES, SPIN_CROWDED_NS, SPIN_MAX_NS, next_spin, spin_on

cdef enum:
    KEPT = 1                # ax_live.kept: holds frames; 2 + slot: that participant is checking for frames
    SLICE_NS = 50000000     # longest sleep before checking signals
    PROBE_NS = 20000000     # longest wait before checking liveness
    IDLE_NS = 500000000     # the same on an idle queue, where a getter should cost little
    DOUBLINGS = 5           # slices after which the sleep doubles
    OWNERS_NS = 100000000    # longest wait before checking that owners of slots exist
    LAP_BITS = 44           # of a word


# ---- the algorithm

cdef int queue_open(ax_work *work, ax_party *party, char *frames, uint64_t bytes) noexcept nogil:
    # Copy and check the geometry; AX_OVERFLOW if it does not fit the segment.
    cdef ax_queue *queue = <ax_queue *>party.control
    work.party = party
    work.queue = queue
    work.slots = queue.slots
    work.stride = queue.stride
    work.lease_ns = queue.lease_ns
    work.words = (party.slots + 63) // 64
    work.me = party.slot
    work.tally = <ax_tally *>(party.control + sizeof(ax_queue)) + work.me
    work.lines = <ax_message *>(party.control + sizeof(ax_queue) + party.slots * sizeof(ax_tally))
    work.frames = frames
    work.asleep[0] = work.asleep[1] = 0
    work.last.frames = 0
    ax_put64(&work.depth, 0)
    ax_put32(&work.gate, 0)
    ax_put32(&work.wake_flag, 0)
    ax_put64(&work.spin_ns, SPIN_MAX_NS if party.spins else 0)
    work.cpus = ax_cpus()
    ax_put32(&work.is_damaged, 0)
    ax_put64(&work.owners_checked_ns, 0)
    if not (
        0 < work.slots < (<uint64_t>1 << 32)
        and 0 < work.stride < (<uint64_t>1 << 32)
        and work.slots <= bytes // work.stride
        and work.slots <= <uint64_t>(frames - <char *>work.lines) // sizeof(ax_message)
        and frames + bytes <= party.base + party.bytes
    ):
        return AX_OVERFLOW
    party.cells = work.slots
    return AX_OK


cdef int queue_claim(ax_work *work, uint64_t *index, uint64_t *position) noexcept nogil:
    # Claim the next free slot: WRITING, owned by this participant. AX_OK, AX_FULL, or AX_DAMAGED.
    cdef ax_queue *queue = work.queue
    cdef ax_message *line
    cdef uint64_t tail, lap, i, seen, open_until = 0
    while True:
        # Acquire: pairs with the swap that moved it.
        tail = ax_load64(&queue.tail)
        lap = tail // work.slots + 1
        i = tail - (lap - 1) * work.slots
        line = &work.lines[i]
        # Acquire: pairs with the acknowledgement of the previous lap.
        seen = ax_load64(&line.word)
        if seen >> LAP > lap and is_ahead(work, i, seen):
            return AX_DAMAGED
        if seen >> LAP >= lap:
            # Claimed or passed over by a putter that has not moved the tail yet: help.
            ax_cas64(&queue.tail, tail, tail + 1)
            continue
        if seen & 7 == AX_SLOT_FREE:
            ax_crash("put_before")
            if lap >> LAP_BITS:
                return damaged(&work.damage, AX_WORD_TAIL, 0, tail, 0)
            # One winner; the loser tries again.
            if not ax_cas64(&line.word, seen, word_of(lap, 0, work.me, AX_SLOT_WRITING)):
                continue
            ax_crash("put_claimed")
            ax_cas64(&queue.tail, tail, tail + 1)
            # A getter that lost the lease of this slot and still copies it sees the word changed (queue_holds).
            ax_fence_release()
            ax_put64(&line.deadline_ns, 0)
            # Later frames must not be appended to an earlier slot.
            work.last.frames = 0
            index[0] = i
            position[0] = tail
            return AX_OK
        if seen & 7 != AX_SLOT_LEASED and seen & 7 != AX_SLOT_RETRY:
            return AX_FULL
        # Leased. Pass it over if another slot is free.
        if tail >= open_until:
            open_until = next_free(work, tail)
            if open_until == 0:
                return AX_FULL
        ax_cas64(&line.word, seen, seen & ((<uint64_t>1 << LAP) - 1) | lap << LAP)
        ax_crash("put_passed_over")


cdef uint64_t next_free(ax_work *work, uint64_t tail) noexcept nogil:
    # The first position from `tail` on whose slot is free, 0 if none. Slots that wait for a getter lie
    # between head and tail, so only those after them are checked.
    cdef uint64_t position, lap, i, seen, end
    help_head(work)
    # At most one lap, wherever the head is.
    end = min(ax_load64(&work.queue.head), tail) + work.slots
    position = tail
    while position < end:
        lap = position // work.slots + 1
        i = position - (lap - 1) * work.slots
        seen = ax_load64(&work.lines[i].word)
        if seen & 7 == AX_SLOT_FREE and seen >> LAP < lap:
            return position
        position += 1
    return 0


cdef bint is_ahead(ax_work *work, uint64_t i, uint64_t seen) noexcept nogil:
    # Whether slot i's word has a position that no putter has reached: its writer would have seen a tail as far.
    cdef uint64_t tail = ax_load64(&work.queue.tail), lap = tail // work.slots + 1
    if seen >> LAP < lap or (seen >> LAP == lap and i <= tail - (lap - 1) * work.slots):
        return False
    damaged(&work.damage, AX_WORD_AHEAD, i, seen >> LAP, lap)
    return True


cdef inline void advance_head(ax_work *work, uint64_t head) noexcept nogil:
    # Move the head to the next position, or to the last lap if it is further behind: putters passed everything before.
    cdef uint64_t tail = ax_load64(&work.queue.tail)
    ax_cas64(&work.queue.head, head, max(head + 1, tail - work.slots) if tail > work.slots else head + 1)


cdef void help_head(ax_work *work) noexcept nogil:
    # Move the head past slots that need no getter.
    cdef uint64_t head, lap, seen, left = 2 * work.slots + 2
    while left:
        left -= 1
        head = ax_load64(&work.queue.head)
        lap = head // work.slots + 1
        seen = ax_load64(&work.lines[head - (lap - 1) * work.slots].word)
        if seen >> LAP < lap or (seen >> LAP == lap and (seen & 7 == AX_SLOT_READY or is_being_put(seen))):
            return
        advance_head(work, head)


cdef bint queue_grow(ax_work *work) noexcept nogil:
    # Claim the last slot of this handle again, if it is not leased yet: GROWING, to append after its frames.
    cdef ax_last *last = &work.last
    cdef uint64_t word = word_of(last.position // work.slots + 1, 0, work.me, AX_SLOT_READY)
    ax_crash("grow_before")
    # Acquire: pairs with no store: no other thread wrote there since. One winner: this, or a getter.
    if not ax_cas64(&work.lines[last.index].word, word, word & ~<uint64_t>7 | AX_SLOT_GROWING):
        last.frames = 0
        return False
    ax_crash("grow_claimed")
    # A getter that lost its lease and still copies sees the word changed, as in queue_claim.
    ax_fence_release()
    return True


cdef inline uint64_t first_bits(uint32_t count) noexcept nogil:
    return <uint64_t>-1 >> (AX_QUEUE_FRAMES - min(max(count, <uint32_t>1), <uint32_t>AX_QUEUE_FRAMES))


cdef void queue_publish(ax_work *work, uint64_t index, uint64_t position, uint32_t bytes, uint32_t frames, uint32_t flags) noexcept nogil:
    # Publish the claimed slot, which holds complete frames. The caller wakes sleepers (queue_wake).
    cdef ax_message *line = &work.lines[index]
    cdef ax_u32 *kept = &live_of(work.party).kept
    ax_put64(&line.id, position)
    ax_put64(&line.left, first_bits(frames))
    ax_put32(&line.bytes, bytes)
    ax_put32(&line.flags, flags)
    ax_put32(&line.failures, 0)
    # Last, and behind the frames themselves: the clean-up of a GROWING slot believes it.
    ax_fence_release()
    ax_put32(&line.frames, frames)
    # Before the frame is published: a segment with frames is never reclaimed.
    if ax_peek32(kept) != KEPT:
        ax_store32(kept, KEPT)
    ax_crash("put_written")
    # Release: pairs with the acquire of getters. Only a live writer changes its word.
    ax_store64(&line.word, word_of(position // work.slots + 1, 0, work.me, AX_SLOT_READY))
    ax_crash("put_shown")


cdef void queue_wake(ax_work *work, bint of_data) noexcept nogil:
    # Wake threads that wait for data, or for room, after a change.
    cdef ax_u32 *kept = &live_of(work.party).kept
    if of_data:
        event_signal(&work.queue.data, work.words)
        # After the fence in event_signal, which pairs with that in queue_settle_kept: it sees the frame, or this its mark.
        if ax_load32(kept) != KEPT:
            ax_store32(kept, KEPT)
    else:
        event_signal(&work.queue.space, work.words)


cdef void queue_abandon(ax_work *work, uint64_t index) noexcept nogil:
    # Free the claimed slot; getters pass over it.
    cdef ax_u64 *word = &work.lines[index].word
    ax_store64(word, ax_peek64(word) & ~<uint64_t>7 | AX_SLOT_FREE)
    queue_wake(work, True)
    queue_wake(work, False)


cdef int queue_lease(ax_work *work, ax_lease *slot_lease) noexcept nogil:
    # Lease the next READY or RETRY slot: AX_OK, AX_EMPTY, or AX_DAMAGED.
    cdef ax_queue *queue = work.queue
    cdef uint64_t head, lap, i, seen
    cdef int status
    if ax_peek32(&queue.hint):
        status = lease_retry(work, slot_lease)
        if status != AX_EMPTY:
            return status
    while True:
        head = ax_load64(&queue.head)
        lap = head // work.slots + 1
        i = head - (lap - 1) * work.slots
        # Acquire: pairs with queue_publish.
        seen = ax_load64(&work.lines[i].word)
        if seen >> LAP < lap:
            return AX_EMPTY
        if seen >> LAP == lap:
            if is_being_put(seen):
                return AX_EMPTY
            if seen & 7 == AX_SLOT_READY:
                if not lease_slot(work, i, seen, slot_lease):
                    continue
                ax_cas64(&queue.head, head, head + 1)
                ax_crash("get_leased")
                return AX_OK if slot_lease.frames else free_corrupt(work, slot_lease)
            if not is_state(seen):
                return damaged(&work.damage, AX_WORD_STATE, i, seen & 7, lap)
        elif is_ahead(work, i, seen):
            return AX_DAMAGED
        # Leased already, or done.
        advance_head(work, head)


cdef inline bint is_state(uint64_t seen) noexcept nogil:
    return seen & 7 != AX_SLOT_SKIP and seen & 7 != 7


cdef int free_corrupt(ax_work *work, ax_lease *slot_lease) noexcept nogil:
    # A slot whose frames cannot be determined: free it and report it once.
    queue_settle(work, slot_lease, <uint64_t>-1, False)
    queue_wake(work, False)
    add_to(&work.tally.corrupt, 1)
    return AX_DAMAGED


cdef bint lease_slot(ax_work *work, uint64_t i, uint64_t seen, ax_lease *slot_lease) noexcept nogil:
    # Lease slot i; False if another thread did. Frames 0: its words contradict each other.
    cdef ax_message *line = &work.lines[i]
    cdef uint64_t all_
    slot_lease.lease = (seen >> LEASE) + 1 & LEASE_MASK
    ax_crash("get_before")
    # One winner; the loser tries again.
    if not ax_cas64(&line.word, seen, word_of(seen >> LAP, slot_lease.lease, work.me, AX_SLOT_LEASED)):
        return False
    ax_crash("get_taken")
    if work.lease_ns:
        ax_put64(&line.deadline_ns, <uint64_t>ax_now_ns() + work.lease_ns)
    slot_lease.index = i
    slot_lease.id = ax_peek64(&line.id)
    slot_lease.left = ax_peek64(&line.left)
    slot_lease.bytes = min(ax_peek32(&line.bytes), <uint32_t>work.stride)
    slot_lease.frames = ax_peek32(&line.frames)
    slot_lease.flags = ax_peek32(&line.flags)
    slot_lease.failures = ax_peek32(&line.failures)
    if slot_lease.flags & AX_MESSAGE_CHUNK:
        memcpy(&slot_lease.ticket, slot_of(work, i), sizeof(ax_ticket))
    all_ = first_bits(slot_lease.frames)
    if (
        slot_lease.frames == 0 or slot_lease.frames > <uint32_t>AX_QUEUE_FRAMES or slot_lease.left & ~all_ != 0
        or (seen & 7 == AX_SLOT_READY and slot_lease.left != all_)
    ):
        damaged(&work.damage, AX_WORD_LEFT, i, slot_lease.left, slot_lease.frames)
        slot_lease.frames = 0
    return True


cdef int lease_retry(ax_work *work, ax_lease *slot_lease) noexcept nogil:
    # Lease a RETRY slot: AX_OK, AX_EMPTY, AX_DAMAGED. The hint is cleared before the search, so that a mark set meanwhile is not lost.
    cdef uint64_t start = ax_peek32(&work.queue.hint), k, i, seen
    ax_store32(&work.queue.hint, 0)
    ax_fence_full()
    ax_crash("get_hint_cleared")
    start = start - 1 if 0 < start <= work.slots else 0
    for k in range(work.slots):
        i = start + k if start + k < work.slots else start + k - work.slots
        seen = ax_load64(&work.lines[i].word)
        while seen & 7 == AX_SLOT_RETRY:
            if lease_slot(work, i, seen, slot_lease):
                # There may be more.
                ax_store32(&work.queue.hint, <uint32_t>i + 1)
                if slot_lease.frames == 0:
                    return free_corrupt(work, slot_lease)
                if slot_lease.left:
                    return AX_OK
                # Every frame was acknowledged by a getter that died before it freed the slot.
                queue_settle(work, slot_lease, 0, False)
                queue_wake(work, False)
                break
            seen = ax_load64(&work.lines[i].word)
    return AX_EMPTY


cdef inline bint still_leased(ax_work *work, uint64_t word, ax_lease *slot_lease) noexcept nogil:
    # The lap may have been raised meanwhile; the id distinguishes another frame in the same slot.
    return (
        word & ((<uint64_t>1 << LAP) - 1) == word_of(0, slot_lease.lease, work.me, AX_SLOT_LEASED)
        and ax_peek64(&work.lines[slot_lease.index].id) == slot_lease.id
    )


cdef bint queue_holds(ax_work *work, ax_lease *slot_lease) noexcept nogil:
    # Check after a copy that the lease still holds. The fence keeps the copy's loads above this load.
    ax_fence_acquire()
    return still_leased(work, ax_load64(&work.lines[slot_lease.index].word), slot_lease)


cdef bint queue_keeps(void *queue, uint64_t position) noexcept nogil:
    # Whether the slot of a position holds what was put there. The caller knows that the position was claimed: in its slot
    # every state and id is of that position or of a later one.
    cdef ax_work *work = <ax_work *>queue
    cdef uint64_t lap = position // work.slots + 1, i = position - (lap - 1) * work.slots
    # Acquire: pairs with the acknowledgement, and with queue_publish, which writes the id first.
    cdef uint64_t seen = ax_load64(&work.lines[i].word)
    if seen & 7 == AX_SLOT_FREE:
        return False
    if seen & 7 == AX_SLOT_LEASED or seen & 7 == AX_SLOT_RETRY:
        # The lap may have been raised.
        return ax_peek64(&work.lines[i].id) == position
    return seen >> LAP == lap


cdef int queue_mark(ax_work *work, ax_lease *slot_lease, uint64_t done) noexcept nogil:
    # Acknowledge some frames and keep the rest leased. A lease lost meanwhile may still mark: its frames were processed.
    cdef ax_message *line = &work.lines[slot_lease.index]
    if not still_leased(work, ax_load64(&line.word), slot_lease):
        return AX_DEAD
    ax_put64(&line.left, ax_peek64(&line.left) & ~done)
    return AX_OK


cdef int queue_settle(ax_work *work, ax_lease *slot_lease, uint64_t done, bint failed) noexcept nogil:
    # Acknowledge the frames `done`; a slot with frames left becomes RETRY. AX_OK, or AX_DEAD: the lease was over.
    # The caller wakes threads that wait for room.
    cdef ax_message *line = &work.lines[slot_lease.index]
    cdef uint64_t left = 0, seen
    ax_crash("ack_before")
    while True:
        seen = ax_load64(&line.word)
        if not still_leased(work, seen, slot_lease):
            add_to(&work.tally.lost, 1)
            return AX_DEAD
        left = ax_peek64(&line.left) & ~done
        if done:
            ax_put64(&line.left, left)
            done = 0
            ax_crash("ack_marked")
        elif left and failed:
            ax_put32(&line.failures, slot_lease.failures + 1)
        # Release: pairs with the next claim, or the next lease. The lap may be raised meanwhile: try again.
        if ax_cas64(&line.word, seen, seen & ~<uint64_t>7 | (AX_SLOT_RETRY if left else AX_SLOT_FREE)):
            break
    ax_crash("ack_settled")
    if left:
        ax_store32(&work.queue.hint, <uint32_t>slot_lease.index + 1)
        ax_crash("ack_hinted")
        queue_wake(work, True)
    return AX_OK


cdef uint64_t cells_of(ax_party *party, ax_message *lines) noexcept nogil:
    # Number of slots. Not checked by a handle: accepted if lines and slots fit into the file, else 0.
    cdef ax_queue *queue = <ax_queue *>party.control
    cdef uint64_t slots = queue.slots, stride = queue.stride
    if party.cells:
        return party.cells
    if slots >> 32 or stride >> 32 or slots > <uint64_t>(party.base + party.bytes - <char *>lines) // (sizeof(ax_message) + stride):
        return 0
    return slots


cdef void queue_settle_kept(ax_party *party) noexcept nogil:
    # Clear `kept` once every slot is free. A mark of this participant first: a frame put meanwhile replaces it.
    cdef ax_message *lines = <ax_message *>(party.control + sizeof(ax_queue) + party.slots * sizeof(ax_tally))
    cdef ax_u32 *kept = &live_of(party).kept
    cdef uint32_t seen = ax_load32(kept), marker = party.slot + 2
    cdef uint64_t i, slots = cells_of(party, lines)
    # A segment without slots holds one large frame: the getter that acknowledges it unlinks it.
    if seen == 0 or slots == 0 or not ax_cas32(kept, seen, marker):
        return
    ax_crash("kept_marked")
    # Pairs with the fence in queue_wake.
    ax_fence_full()
    for i in range(slots):
        if ax_load64(&lines[i].word) & 7 != AX_SLOT_FREE:
            ax_cas32(kept, marker, KEPT)
            return
    ax_cas32(kept, marker, 0)


cdef void queue_cleanup(ax_party *party, uint32_t who) noexcept nogil:
    # The only clean-up. The caller owns byte `who`. May be interrupted at any line and repeated.
    cdef ax_queue *queue = <ax_queue *>party.control
    cdef ax_message *lines = <ax_message *>(party.control + sizeof(ax_queue) + party.slots * sizeof(ax_tally))
    cdef ax_tally *tally = <ax_tally *>(party.control + sizeof(ax_queue)) + who
    cdef uint64_t i, word, state, slots = cells_of(party, lines)
    for i in range(slots):
        word = ax_load64(&lines[i].word)
        while owner_of(word) == who:
            if word & 7 == AX_SLOT_WRITING:
                state = AX_SLOT_FREE
            elif word & 7 == AX_SLOT_GROWING:
                # `frames` counts complete frames; `left` may have one more.
                ax_put64(&lines[i].left, first_bits(ax_load32(&lines[i].frames)))
                state = AX_SLOT_READY
            elif word & 7 == AX_SLOT_LEASED:
                ax_put32(&lines[i].failures, ax_peek32(&lines[i].failures) + 1)
                state = AX_SLOT_RETRY
            else:
                break
            ax_crash("queue_cleanup_slot")
            # The swap lost to a putter that passed over: check again.
            if ax_cas64(&lines[i].word, word, word & ~<uint64_t>7 | state):
                break
            word = ax_load64(&lines[i].word)
    ax_crash("queue_cleanup_slots")
    ax_and64(&queue.data.sleepers[who >> 6], ~(<uint64_t>1 << (who & 63)))
    ax_and64(&queue.space.sleepers[who >> 6], ~(<uint64_t>1 << (who & 63)))
    ax_put64(&tally.stalled_since_ns, 0)
    # Always, and last: the dead participant may have cleared it before its search.
    ax_store32(&queue.hint, 1)
    ax_crash("queue_cleanup_hinted")
    event_wake(&queue.data)
    event_wake(&queue.space)
    queue_settle_kept(party)


on_death(AX_KIND_QUEUE, queue_cleanup)


# ---- waiting: for a frame, for room, until idle

cdef void expire(ax_work *work) noexcept nogil:
    # Expired leases become RETRY.
    cdef uint64_t now, before, i, seen, deadline
    if not work.lease_ns:
        return
    now = <uint64_t>ax_now_ns()
    before = ax_peek64(&work.expired_ns)
    if now - before < min(<uint64_t>PROBE_NS, work.lease_ns // 4 + 1) or not ax_cas64(&work.expired_ns, before, now):
        return
    for i in range(work.slots):
        seen = ax_load64(&work.lines[i].word)
        if seen & 7 != AX_SLOT_LEASED:
            continue
        deadline = ax_peek64(&work.lines[i].deadline_ns)
        if deadline == 0 or (deadline > now and deadline <= <uint64_t>ax_now_ns() + work.lease_ns):
            # Not expired. A deadline later than any possible lease is damaged and counts as expired.
            continue
        # The swap loses to the acknowledgement.
        if ax_cas64(&work.lines[i].word, seen, seen & ~<uint64_t>7 | AX_SLOT_RETRY):
            ax_crash("lease_over")
            ax_put32(&work.lines[i].failures, ax_peek32(&work.lines[i].failures) + 1)
            ax_store32(&work.queue.hint, <uint32_t>i + 1)
            queue_wake(work, True)


cdef void queue_reap(ax_work *work) noexcept nogil:
    # Called when there is no frame or no room: clean up after dead participants, expire leases. At most once per PROBE_NS.
    sweep(work.party, PROBE_NS)
    expire(work)
    ax_put32(&work.is_damaged, is_inconsistent(work) or find_ownerless(work))


cdef bint is_inconsistent(ax_work *work) noexcept nogil:
    # Whether head, tail and the words there contradict each other. Loaded in this order: the head is at most
    # one ahead of the tail, and a slot that the tail has passed has a word of that lap.
    cdef uint64_t head = ax_load64(&work.queue.head), lap = head // work.slots + 1
    cdef uint64_t i = head - (lap - 1) * work.slots
    cdef ax_u64 *word = &work.lines[i].word
    cdef uint64_t tail = ax_load64(&work.queue.tail), seen = ax_load64(word)
    if head > tail and head - tail > 1:
        damaged(&work.damage, AX_WORD_HEAD, 0, head, tail)
        return True
    if seen >> LAP < lap and tail > head:
        damaged(&work.damage, AX_WORD_BEHIND, i, seen >> LAP, lap)
        return True
    lap = tail // work.slots + 1
    i = tail - (lap - 1) * work.slots
    seen = ax_load64(&work.lines[i].word)
    if not is_state(seen):
        damaged(&work.damage, AX_WORD_STATE, i, seen & 7, seen >> LAP)
        return True
    return False


cdef bint find_ownerless(ax_work *work) noexcept nogil:
    # Find slots whose owner is impossible or absent: leased ones become RETRY; returns whether one is being put, which
    # no participant will finish. Rare, because it reads every slot.
    cdef uint64_t now = <uint64_t>ax_now_ns(), before = ax_peek64(&work.owners_checked_ns), i, seen
    cdef uint32_t owner
    cdef bint found, any_ = False
    if now - before < <uint64_t>OWNERS_NS or not ax_cas64(&work.owners_checked_ns, before, now):
        return ax_peek32(&work.is_damaged) and work.damage.word == AX_WORD_WRITER
    for i in range(work.slots):
        seen = ax_load64(&work.lines[i].word)
        if seen & 7 != AX_SLOT_LEASED and not is_being_put(seen):
            continue
        owner = <uint32_t>owner_of(seen)
        if owner < work.party.slots and ax_peek32(&entry_of(work.party, owner).state) == AX_ACTIVE:
            continue
        if owner < work.party.slots:
            if not lock_vacant(work.party, owner):
                continue
            # The participant slot cannot be taken meanwhile, and its last owner's slots were freed before it was.
            found = ax_load64(&work.lines[i].word) == seen
            unlock_vacant(work.party, owner)
            if not found:
                continue
        if seen & 7 != AX_SLOT_LEASED:
            # The putter may be alive under another number: leave the slot to it.
            damaged(&work.damage, AX_WORD_WRITER, i, owner, seen >> LAP)
            any_ = True
        elif ax_cas64(&work.lines[i].word, seen, seen & ~<uint64_t>7 | AX_SLOT_RETRY):
            ax_put32(&work.lines[i].failures, ax_peek32(&work.lines[i].failures) + 1)
            ax_store32(&work.queue.hint, <uint32_t>i + 1)
            queue_wake(work, True)
    return any_


cdef bint queue_has_data(ax_work *work) noexcept nogil:
    cdef uint64_t head = ax_load64(&work.queue.head), lap, seen
    if ax_load32(&work.queue.hint):
        return True
    lap = head // work.slots + 1
    seen = ax_load64(&work.lines[head - (lap - 1) * work.slots].word)
    return seen >> LAP > lap or (seen >> LAP == lap and not is_being_put(seen))


cdef uint64_t queue_waiting(ax_work *work) noexcept nogil:
    # How many slots wait for a getter, those being put included.
    cdef uint64_t head, tail
    help_head(work)
    head = ax_load64(&work.queue.head)
    tail = ax_load64(&work.queue.tail)
    return min(tail - head, work.slots) if tail > head else 0


cdef bint queue_has_room(ax_work *work) noexcept nogil:
    cdef uint64_t tail = ax_load64(&work.queue.tail), lap, seen, depth = ax_peek64(&work.depth)
    if depth and queue_waiting(work) >= depth:
        return False
    lap = tail // work.slots + 1
    seen = ax_load64(&work.lines[tail - (lap - 1) * work.slots].word)
    if seen >> LAP >= lap or seen & 7 == AX_SLOT_FREE:
        return True
    return (seen & 7 == AX_SLOT_LEASED or seen & 7 == AX_SLOT_RETRY) and next_free(work, tail) != 0


cdef bint queue_idle(ax_work *work) noexcept nogil:
    # Whether every slot is free: every frame was acknowledged.
    cdef uint64_t i
    for i in range(work.slots):
        if ax_load64(&work.lines[i].word) & 7 != AX_SLOT_FREE:
            return False
    return True


cdef void sleep_on(ax_work *work, int side, int step) noexcept nogil:
    # Threads of a handle share its bit: the last one that wakes clears it.
    cdef ax_event *event = &work.queue.space if side else &work.queue.data
    while not ax_cas32(&work.gate, 0, 1):
        ax_pause()
    work.asleep[side] += step
    if step < 0 and work.asleep[side] == 0:
        event_cancel(event, work.me)
    # Release: pairs with the swap above.
    ax_store32(&work.gate, 0)


cdef inline bint condition_holds(ax_work *work, int what) noexcept nogil:
    if what == AX_WAIT_DATA:
        return queue_has_data(work)
    return queue_has_room(work) if what == AX_WAIT_ROOM else queue_idle(work)


cdef int64_t spin_time(ax_work *work) noexcept nogil:
    # How long to spin before sleeping; briefly if there are more handles than CPUs.
    cdef int64_t spin_ns = <int64_t>ax_peek64(&work.spin_ns)
    cdef uint32_t k
    cdef int count = 0
    for k in range(work.party.slots):
        count += ax_peek32(&entry_of(work.party, k).state) == AX_ACTIVE
        if count > work.cpus:
            return min(spin_ns, SPIN_CROWDED_NS)
    return spin_ns


cdef int queue_wait(ax_work *work, int what, int64_t deadline, uint32_t slices) noexcept nogil:
    # One slice of waiting, after `slices` others: AX_OK check again, AX_BUSY check signals and call again, AX_TIMEOUT, AX_DAMAGED.
    cdef bint first = slices == 0
    cdef int side = 0 if what == AX_WAIT_DATA else 1
    cdef ax_event *event = &work.queue.space if side else &work.queue.data
    cdef int64_t now = ax_now_ns(), started = now
    cdef int64_t spin_ns = spin_time(work) if first and what != AX_WAIT_IDLE else 0
    # Longer pauses for room: a check may read every slot, and takes cache lines from the getters that free them.
    cdef uint32_t seen, pauses = <uint32_t>min(work.slots // 2 + 1, ROOM_PAUSES) if side else PAUSES
    cdef int64_t sleep_ns = PROBE_NS
    cdef bint is_there
    # Longer sleeps only for data without leases: a thread waiting for room waits for a getter that may have died.
    if what == AX_WAIT_DATA and work.lease_ns == 0:
        sleep_ns = min(IDLE_NS, sleep_ns << min(slices, <uint32_t>DOUBLINGS))
    while spin_ns and spin_on(pauses, started, spin_ns):
        if condition_holds(work, what):
            return AX_OK
    if what == AX_WAIT_DATA:
        queue_settle_kept(work.party)
    while True:
        sleep_on(work, side, 1)
        seen = event_prepare(event, work.me)
        is_there = condition_holds(work, what) or ax_load32(&work.wake_flag)
        if not is_there and now < deadline and now - started < SLICE_NS:
            if ax_futex_wait(&event.count, seen, min(sleep_ns, deadline - now)) == -EINTR:
                sleep_on(work, side, -1)
                return AX_BUSY
            is_there = condition_holds(work, what)
        sleep_on(work, side, -1)
        if ax_load32(&work.wake_flag):
            return AX_BUSY
        if is_there:
            if first and what != AX_WAIT_IDLE:
                ax_put64(&work.spin_ns, next_spin(ax_peek64(&work.spin_ns), ax_now_ns() - started))
            return AX_OK
        now = ax_now_ns()
        queue_reap(work)
        if condition_holds(work, what):
            return AX_OK
        if ax_peek32(&work.is_damaged):
            return AX_DAMAGED
        if now >= deadline:
            return AX_TIMEOUT
        if now - started >= SLICE_NS:
            return AX_BUSY


# ---- the bridge

def control_bytes(uint64_t slots, uint32_t participants):
    """Return the size of a queue's control block in bytes; a multiple of 128."""
    return (sizeof(ax_queue) + participants * sizeof(ax_tally) + slots * sizeof(ax_message) + 127) // 128 * 128


def describe(unsigned char[::1] control, uint64_t slots, uint64_t stride, uint64_t lease_ns, uint32_t participants):
    """Write a queue's geometry into its control block, which is all zeros and not published yet."""
    cdef ax_queue *queue = <ax_queue *>&control[0]
    queue.slots = slots
    queue.stride = stride
    queue.lease_ns = lease_ns
    queue.participants = participants


def note_large(unsigned char[::1] control):
    """Record that a frame is put in a separate segment or an arena, before that is created."""
    cdef ax_queue *queue = <ax_queue *>&control[0]
    if not ax_peek32(&queue.has_larges):
        ax_store32(&queue.has_larges, 1)             # pairs with the load in has_larges


def has_larges(unsigned char[::1] control):
    """Return whether a frame was ever put in a separate segment or an arena."""
    return ax_load32(&(<ax_queue *>&control[0]).has_larges) != 0   # pairs with the store in note_large
