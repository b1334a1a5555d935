# The work queue: words and claims. Each slot is put once and leased until it is acknowledged.
#
#   word     lap << 20 | lease << 13 | owner << 3 | FREE WRITING READY LEASED RETRY GROWING; position p lives in slot p % n, lap p / n + 1
#   tail     next position to claim, or behind it: a hint that every participant advances
#   head     next position to lease, or behind it: the same
#   hint     a slot may be RETRY: its getter died, gave it back, lost its lease, or acknowledged only part of it
#
#   FREE --claim--> WRITING --publish--> READY --lease--> LEASED --ack--> FREE
#                      | its putter dies                   | ^  \--give back, death, lease over--> RETRY --lease--> LEASED
#                      v                                   v |
#                     FREE                                RETRY
#
#   READY --grow--> GROWING --publish--> READY: its putter appends a frame. If the putter dies, the slot becomes READY
#   with `frames` frames; `frames` is written last.
#
# A slot that is still leased one lap later is passed over: putters raise its lap and go on, as long as another slot
# is free, so that a long lease delays no other process. Modelled in tests/models/queue.pml; fence E is event.pxd's.
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ataraxis._kernels.atomics cimport ax_peek64, ax_put64, ax_u32, ax_u64
from ataraxis._kernels.frame cimport ax_frame, ax_padded
from ataraxis._kernels.layout cimport AX_SLOT_GROWING, AX_SLOT_WRITING, ax_message, ax_queue, ax_tally, ax_ticket
from ataraxis._kernels.memory cimport ax_damage, ax_party

# The last slot that a handle put into, where it may append; frames 0: none.
cdef struct ax_last:
    uint64_t index
    uint64_t position
    uint32_t bytes
    uint32_t frames

# State of one handle, private to it; copied from shared memory once, in queue_open.
cdef struct ax_work:
    ax_party *party
    ax_queue *queue
    ax_message *lines
    ax_tally *tally           # of this participant
    char *frames
    uint64_t slots
    uint64_t stride
    uint64_t lease_ns
    uint32_t words            # of a mask
    uint32_t me               # this participant
    ax_last last              # guarded by the GIL; not used without one
    ax_u64 depth              # not 0: the queue counts as full while so many frames wait; set by the last put
    ax_u32 gate               # guards `asleep`
    uint32_t asleep[2]        # threads of this handle that sleep for data, for space
    ax_u32 wake_flag          # waiting threads return and check
    ax_u64 expired_ns         # time of the last check for expired leases
    ax_u64 spin_ns            # adaptive: how long to spin before sleeping; 0 with one CPU
    int cpus                  # that this process may use
    ax_u64 owners_checked_ns  # time of the last check for absent owners
    ax_u32 is_damaged         # result of the last check
    ax_damage damage          # details of AX_DAMAGED

# A getter's lease of a slot.
cdef struct ax_lease:
    uint64_t index
    uint64_t id
    uint64_t lease            # lease number in the word: tells this lease from the owner's next one
    uint64_t left             # a bit per frame not acknowledged
    uint32_t bytes
    uint32_t frames
    uint32_t flags
    uint32_t failures
    ax_ticket ticket          # of a frame in a chunk; not trusted

cdef enum:
    LAP = 20                  # of a word: shifts and masks
    LEASE = 13
    LEASE_MASK = 0x7F
    OWNER_MASK = 0x3FF

cdef inline uint64_t word_of(uint64_t lap, uint64_t lease, uint64_t owner, uint64_t state) noexcept nogil:
    return lap << LAP | (lease & LEASE_MASK) << LEASE | owner << 3 | state

cdef inline uint64_t owner_of(uint64_t word) noexcept nogil:
    return word >> 3 & OWNER_MASK

cdef inline bint is_being_put(uint64_t word) noexcept nogil:
    return word & 7 == AX_SLOT_WRITING or word & 7 == AX_SLOT_GROWING

cdef extern from *:
    """
    static inline int ax_ctz(uint64_t mask) { return __builtin_ctzll(mask); }
    static inline int ax_ones(uint64_t mask) { return __builtin_popcountll(mask); }
    """
    int first_bit "ax_ctz"(uint64_t mask) nogil
    int ones "ax_ones"(uint64_t mask) nogil

cdef inline void add_to(ax_u64 *word, uint64_t number) noexcept nogil:
    # To a word that only this participant writes.
    ax_put64(word, ax_peek64(word) + number)

cdef inline char *slot_of(ax_work *work, uint64_t index) noexcept nogil:
    return work.frames + index * work.stride

cdef inline bint frame_at(ax_lease *slot_lease, const char *slot, int k, uint64_t *at, uint64_t *bytes) noexcept nogil:
    # Find frame k of a slot; False if a header is invalid. The slot's contents are not trusted.
    cdef int i
    at[0] = 0
    for i in range(k + 1):
        if at[0] + sizeof(ax_frame) > slot_lease.bytes:
            return False
        bytes[0] = sizeof(ax_frame) + (<ax_frame *>(slot + at[0])).length
        if bytes[0] < sizeof(ax_frame) or bytes[0] > slot_lease.bytes - at[0]:
            return False
        if i < k:
            at[0] += ax_padded(bytes[0])
    return True

cdef int queue_open(ax_work *work, ax_party *party, char *frames, uint64_t bytes) noexcept nogil
cdef int queue_claim(ax_work *work, uint64_t *index, uint64_t *position) noexcept nogil
cdef bint queue_grow(ax_work *work) noexcept nogil
cdef void queue_publish(ax_work *work, uint64_t index, uint64_t position, uint32_t bytes, uint32_t frames, uint32_t flags) noexcept nogil
cdef void queue_abandon(ax_work *work, uint64_t index) noexcept nogil
cdef int queue_lease(ax_work *work, ax_lease *slot_lease) noexcept nogil
cdef int lease_retry(ax_work *work, ax_lease *slot_lease) noexcept nogil
cdef int queue_settle(ax_work *work, ax_lease *slot_lease, uint64_t done, bint failed) noexcept nogil
cdef int queue_mark(ax_work *work, ax_lease *slot_lease, uint64_t done) noexcept nogil
cdef bint queue_holds(ax_work *work, ax_lease *slot_lease) noexcept nogil
cdef uint64_t next_free(ax_work *work, uint64_t tail) noexcept nogil
cdef bint queue_keeps(void *queue, uint64_t position) noexcept nogil
cdef void queue_settle_kept(ax_party *party) noexcept nogil
cdef void queue_wake(ax_work *work, bint of_data) noexcept nogil

# What to wait for.
cdef enum:
    AX_WAIT_DATA = 0
    AX_WAIT_ROOM = 1
    AX_WAIT_IDLE = 2

cdef void queue_reap(ax_work *work) noexcept nogil
cdef bint queue_has_data(ax_work *work) noexcept nogil
cdef uint64_t queue_waiting(ax_work *work) noexcept nogil
cdef bint queue_has_room(ax_work *work) noexcept nogil
cdef bint queue_idle(ax_work *work) noexcept nogil
cdef int queue_wait(ax_work *work, int what, int64_t deadline, uint32_t slices) noexcept nogil
