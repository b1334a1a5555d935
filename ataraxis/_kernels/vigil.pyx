"""Waiting in a work queue: for a frame, for room, for every acknowledgement.

Look, spin for as long as that has paid lately where there are cores to spare, then sleep; never longer than a slice,
and by elapsed time ask who lives and which leases ran out.
"""
from libc.errno cimport EINTR
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ataraxis._kernels.atomics cimport (
    ax_cas32, ax_cas64, ax_load32, ax_load64, ax_pause, ax_peek32, ax_peek64, ax_put32, ax_put64, ax_store32,
)
from ataraxis._kernels.event cimport event_cancel, event_prepare
from ataraxis._kernels.layout cimport (
    AX_ACTIVE, AX_BUSY, AX_OK, AX_SLOT_FREE, AX_SLOT_LEASED, AX_SLOT_RETRY, AX_TIMEOUT, ax_event,
)
from ataraxis._kernels.memory cimport entry_of, sweep
from ataraxis._kernels.platform cimport ax_crash, ax_futex_wait, ax_now_ns
from ataraxis._kernels.queue cimport LAP, ax_work, is_being_put, next_free, queue_settle_kept, queue_told
from ataraxis._kernels.timing cimport PAUSES, ROOM_PAUSES, SPIN_CROWDED_NS, next_spin, spin_on

cdef enum:
    SLICE_NS = 50000000     # longest sleep before looking at signals
    PROBE_NS = 20000000     # longest wait before asking who lives
    IDLE_NS = 500000000     # the same where nothing has come for some time: an idle getter costs nothing
    DOUBLINGS = 5           # slices in which a nap becomes twice as long


# ---- the algorithm

cdef void expire(ax_work *work) noexcept nogil:
    # Leases that ran out go back to all.
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
        if deadline == 0 or deadline > now:
            continue
        # The swap loses to the acknowledgement.
        if ax_cas64(&work.lines[i].word, seen, seen & ~<uint64_t>7 | AX_SLOT_RETRY):
            ax_crash("lease_over")
            ax_put32(&work.lines[i].failures, ax_peek32(&work.lines[i].failures) + 1)
            ax_store32(&work.queue.hint, <uint32_t>i + 1)
            queue_told(work, True)


cdef void queue_look(ax_work *work) noexcept nogil:
    # Somebody finds nothing, or no room: are there any dead, or leases that ran out? At most once per PROBE_NS.
    sweep(work.party, PROBE_NS)
    expire(work)


cdef bint queue_has_data(ax_work *work) noexcept nogil:
    cdef uint64_t head = ax_load64(&work.queue.head), lap, seen
    if ax_load32(&work.queue.hint):
        return True
    lap = head // work.slots + 1
    seen = ax_load64(&work.lines[head - (lap - 1) * work.slots].word)
    return seen >> LAP > lap or (seen >> LAP == lap and not is_being_put(seen))


cdef bint queue_has_room(ax_work *work) noexcept nogil:
    cdef uint64_t tail = ax_load64(&work.queue.tail), lap, seen
    lap = tail // work.slots + 1
    seen = ax_load64(&work.lines[tail - (lap - 1) * work.slots].word)
    if seen >> LAP >= lap or seen & 7 == AX_SLOT_FREE:
        return True
    return (seen & 7 == AX_SLOT_LEASED or seen & 7 == AX_SLOT_RETRY) and next_free(work, tail) != 0


cdef bint queue_idle(ax_work *work) noexcept nogil:
    # Whether every slot is free: everything that was put is acknowledged.
    cdef uint64_t i
    for i in range(work.slots):
        if ax_load64(&work.lines[i].word) & 7 != AX_SLOT_FREE:
            return False
    return True


cdef void doze(ax_work *work, int side, int step) noexcept nogil:
    # Threads of a handle share its bit: the last one that wakes takes it off.
    cdef ax_event *event = &work.queue.space if side else &work.queue.data
    while not ax_cas32(&work.gate, 0, 1):
        ax_pause()
    work.asleep[side] += step
    if step < 0 and work.asleep[side] == 0:
        event_cancel(event, work.me)
    # Release: pairs with the swap above.
    ax_store32(&work.gate, 0)


cdef inline bint happened(ax_work *work, int what) noexcept nogil:
    if what == AX_WAIT_DATA:
        return queue_has_data(work)
    return queue_has_room(work) if what == AX_WAIT_ROOM else queue_idle(work)


cdef int64_t spin_time(ax_work *work) noexcept nogil:
    # How long to look before sleeping; briefly, if there are more handles than CPUs.
    cdef int64_t spin_ns = <int64_t>ax_peek64(&work.spin_ns)
    cdef uint32_t k
    cdef int count = 0
    for k in range(work.party.slots):
        count += ax_peek32(&entry_of(work.party, k).state) == AX_ACTIVE
        if count > work.cpus:
            return min(spin_ns, SPIN_CROWDED_NS)
    return spin_ns


cdef int queue_wait(ax_work *work, int what, int64_t deadline, uint32_t naps) noexcept nogil:
    # One slice of waiting, after `naps` others: AX_OK look again, AX_BUSY look at your signals, AX_TIMEOUT.
    cdef bint first = naps == 0
    cdef int side = 0 if what == AX_WAIT_DATA else 1
    cdef ax_event *event = &work.queue.space if side else &work.queue.data
    cdef int64_t now = ax_now_ns(), started = now
    cdef int64_t spin_ns = spin_time(work) if first and what != AX_WAIT_IDLE else 0
    # Room is looked for more rarely: that may mean to look at every slot, and takes their lines from whoever frees them.
    cdef uint32_t seen, pauses = <uint32_t>min(work.slots // 2 + 1, ROOM_PAUSES) if side else PAUSES
    cdef int64_t nap = PROBE_NS
    cdef bint is_there
    # Who waits for room waits for somebody who may have died; leases run out on time.
    if what == AX_WAIT_DATA and work.lease_ns == 0:
        nap = min(IDLE_NS, nap << min(naps, <uint32_t>DOUBLINGS))
    while spin_ns and spin_on(pauses, started, spin_ns):
        if happened(work, what):
            return AX_OK
    if what == AX_WAIT_DATA:
        queue_settle_kept(work.party)
    while True:
        doze(work, side, 1)
        seen = event_prepare(event, work.me)
        is_there = happened(work, what) or ax_load32(&work.poke)
        if not is_there and now < deadline and now - started < SLICE_NS:
            if ax_futex_wait(&event.count, seen, min(nap, deadline - now)) == -EINTR:
                doze(work, side, -1)
                return AX_BUSY
            is_there = happened(work, what)
        doze(work, side, -1)
        if ax_load32(&work.poke):
            return AX_BUSY
        if is_there:
            if first and what != AX_WAIT_IDLE:
                ax_put64(&work.spin_ns, next_spin(ax_peek64(&work.spin_ns), ax_now_ns() - started))
            return AX_OK
        now = ax_now_ns()
        queue_look(work)
        if happened(work, what):
            return AX_OK
        if now >= deadline:
            return AX_TIMEOUT
        if now - started >= SLICE_NS:
            return AX_BUSY
