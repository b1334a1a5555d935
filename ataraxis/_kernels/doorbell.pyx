"""Sleep for several consumers at once, and for a bell: what one thread of a process does for its event loops.

Without `futex_waitv` (Linux 5.16) one sleeps on the bell alone, briefly, and looks.
"""
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memset

from ataraxis._kernels.atomics cimport ax_add32, ax_load32, ax_u32
from ataraxis._kernels.event cimport event_cancel, event_prepare
from ataraxis._kernels.memory cimport Participant, ax_party, inherited, sweep
from ataraxis._kernels.platform cimport ax_futex_wait, ax_futex_waitv, ax_futex_wake, ax_now_ns, ax_wait, ax_wait_for
from ataraxis._kernels.reader cimport has_next
from ataraxis._kernels.receive cimport ConsumerKernel
from ataraxis._kernels.ring cimport anybody_sends, ax_ring

cdef enum:
    MOST = 127             # words that one system call waits for, beside the bell
    SWEEP_NS = 20000000    # longest wait before asking who lives
    LOOK_NS = 2000000      # between two looks where one cannot sleep for all


# ---- the algorithm

cdef inline bint is_ready(ax_ring *ring) noexcept nogil:
    return has_next(ring) or not anybody_sends(ring)


cdef void sleep_for(ax_ring **rings, ax_wait *waits, uint32_t count, ax_u32 *bell, uint32_t seen, int64_t deadline) noexcept nogil:
    # Until a ring has something, the bell moves on from `seen`, or the deadline.
    cdef uint32_t k
    cdef bint found = False
    for k in range(count):
        ax_wait_for(&waits[k], &rings[k].stream.data.count, event_prepare(&rings[k].stream.data, rings[k].me))
        found |= is_ready(rings[k])
    ax_wait_for(&waits[count], bell, seen)
    if not found and ax_futex_waitv(waits, count + 1, deadline) < 0:
        # It cannot, or something has happened already: then the bell, or a short while, ends this.
        ax_futex_wait(bell, seen, min(LOOK_NS, deadline - ax_now_ns()))
    for k in range(count):
        event_cancel(&rings[k].stream.data, rings[k].me)


# ---- the bridge

cdef class Bell:
    """Ends the sleep of a thread that waits for consumers, when there is one more to wait for."""

    cdef ax_u32 word

    @property
    def count(self):
        """How often it was rung."""
        return ax_load32(&self.word)

    def ring(self):
        """Wake who sleeps."""
        # Release: pairs with the load in `count`.
        ax_add32(&self.word, 1)
        ax_futex_wake(&self.word, 1)


def wait_any(consumers, Bell bell not None, uint32_t seen, double seconds):
    """Sleep until a consumer has something, a stream ended, the bell moved on from `seen`, or `seconds` passed.

    Returns one bool a consumer: whether it has something, has ended, or was closed.
    """
    cdef ax_ring *rings[MOST]
    cdef ax_wait waits[MOST + 1]
    cdef list found = [True] * len(consumers), kept = [], places = []
    cdef ConsumerKernel consumer
    cdef Participant participant
    cdef uint32_t count = 0
    cdef int64_t deadline = ax_now_ns() + <int64_t>(seconds * 1e9)
    cdef Py_ssize_t place
    cdef ax_party *party
    for place in range(len(consumers)):
        consumer = consumers[place]
        participant = consumer.participant
        if participant is None or not consumer.is_open or inherited(&participant.party):
            continue
        if count == MOST:
            # More than a call takes: these are looked at.
            found[place] = is_ready(&consumer.ring)
            deadline = min(deadline, ax_now_ns() + LOOK_NS)
            continue
        rings[count] = &consumer.ring
        kept.append(participant)   # its mapping stays, whoever closes the consumer meanwhile
        places.append(place)
        count += 1
    if count < len(consumers) and True in found:
        deadline = 0
    memset(waits, 0, sizeof(waits))
    with nogil:
        sleep_for(rings, waits, count, &bell.word, seen, deadline)
    for place in range(count):
        party = &(<Participant>kept[place]).party
        sweep(party, SWEEP_NS)
        found[places[place]] = is_ready(rings[place])
    return found
