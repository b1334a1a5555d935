# The ring of a stream: words, claims and cursors.
#
#   slot word    lap << 16 | owner << 3 | FREE WRITING READY SKIP; position p lives in slot p % n, lap p / n + 1
#   tail         next position to claim, or behind it during a claim: a hint that every producer advances
#   cursor       position << 2 | IDLE GATING DETACHED WATCHING: the reader is done with everything before it
#   pins         a bit per participant and slot: a reader that does not gate reads this slot
#
# Half the slots are never pinned (viewers copy their frames): whatever viewers hold, a producer finds a slot
# to write while a reader that gates still holds the previous frame. With only one such slot, a reader that holds
# its last frame while it waits for the next one would wait forever.
# Modelled in tests/models/ring.pml. Fences by letter: J join/scan, P pin/overwrite, E event.pxd.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from ataraxis._kernels.atomics cimport ax_load64, ax_peek64, ax_u32, ax_u64
from ataraxis._kernels.frame cimport ax_frame
from ataraxis._kernels.layout cimport ax_reader, ax_slot, ax_stream
from ataraxis._kernels.lock cimport pthread_t
from ataraxis._kernels.memory cimport Participant, ax_damage, ax_party
from ataraxis._kernels.timing cimport SPIN_CROWDED_NS

# State of one handle on a stream, private to it; the geometry is copied from shared memory once, in ring_open.
cdef struct ax_ring:
    ax_party *party
    ax_stream *stream
    ax_reader *readers
    char *controls
    char *frames
    uint64_t slots
    uint64_t stride
    uint64_t capacity
    uint64_t control_stride
    uint64_t unpinned         # slots below it are never pinned: half of them, at least two
    uint32_t participants
    uint32_t words            # of a mask
    uint32_t me               # this participant
    bint shared
    bint resumable            # ends when it is marked, not when its producer dies
    # the next position of this handle; index and lap follow it
    uint64_t position
    uint64_t index
    uint64_t lap
    # of a producer
    uint64_t limit            # may claim positions below it
    uint64_t sent             # frames published (not shared)
    bint claimed
    bint leaves               # without an end, as if it died
    uint64_t passed           # positions skipped because a viewer had pinned the slot
    bint is_followed          # a reader that gates was behind at the last check
    # of a reader
    ax_reader *line
    uint32_t policy
    bint gates
    uint64_t oldest           # first position not released
    uint64_t oldest_index
    uint8_t *out              # per slot: 1 if handed out and gating
    uint64_t held             # frames handed out and not released
    uint64_t freed            # positions released since the last signal to `space`
    uint64_t expected         # next sequence, AX_UNKNOWN before the first
    uint64_t received
    uint64_t dropped
    uint32_t slices           # slices of a wait that found nothing
    uint32_t looks            # checks that found nothing and did not wait
    bint is_overtaken         # a slot was overwritten while this reader held it
    ax_u32 wake_flag          # asks the waiting thread to return
    # of both
    ax_damage damage          # details of AX_DAMAGED
    int cpus                  # that this process may use
    int64_t spin_ns           # adaptive: how long to spin before sleeping; 0 with one CPU

cdef enum:
    OWNER_MASK = 0x1FFF

cdef extern from *:
    """
    #define AX_UNKNOWN UINT64_MAX
    """
    uint64_t AX_UNKNOWN

cdef inline uint64_t word_of(uint64_t lap, uint64_t owner, uint64_t state) noexcept nogil:
    return lap << 16 | owner << 3 | state

cdef inline ax_slot *slot_at(ax_ring *ring, uint64_t index) noexcept nogil:
    return <ax_slot *>(ring.controls + index * ring.control_stride)

cdef inline ax_u64 *pins_at(ax_ring *ring, uint64_t index) noexcept nogil:
    return <ax_u64 *>(ring.controls + index * ring.control_stride + 64)

cdef inline bint pinned(ax_ring *ring, uint64_t index) noexcept nogil:
    # Whether a viewer reads it.
    cdef ax_u64 *pins
    cdef uint32_t k
    if index < ring.unpinned:
        return False
    pins = pins_at(ring, index)
    for k in range(ring.words):
        # Acquire: pairs with the release in `release_frame`.
        if ax_load64(&pins[k]):
            return True
    return False

cdef inline char *payload_at(ax_ring *ring, uint64_t index) noexcept nogil:
    return ring.frames + index * ring.stride + 192

cdef inline ax_frame *frame_at(ax_ring *ring, uint64_t index) noexcept nogil:
    # `at` comes from shared memory: masked, so that a frame never begins outside its slot.
    cdef uint32_t at = <uint32_t>ax_peek64(<ax_u64 *>&slot_at(ring, index).at) & 0xFF
    return <ax_frame *>(ring.frames + index * ring.stride + (at if at <= 128 else 128))

# The frame may be overwritten during these reads: the caller checks `unchanged` afterwards.
cdef inline uint64_t sequence_at(ax_ring *ring, uint64_t index) noexcept nogil:
    return ax_peek64(<ax_u64 *>&frame_at(ring, index).sequence)

cdef inline int64_t time_at(ax_ring *ring, uint64_t index) noexcept nogil:
    return <int64_t>ax_peek64(<ax_u64 *>&frame_at(ring, index).time_ns)

cdef inline uint64_t bytes_at(ax_ring *ring, uint64_t index) noexcept nogil:
    cdef uint64_t bytes = ax_peek64(&slot_at(ring, index).bytes)
    return bytes if bytes <= ring.capacity else ring.capacity

cdef inline void step(ax_ring *ring) noexcept nogil:
    ring.position += 1
    ring.index += 1
    if ring.index == ring.slots:
        ring.index = 0
        ring.lap += 1

cdef inline void locate(ax_ring *ring, uint64_t position) noexcept nogil:
    ring.position = position
    ring.lap = position // ring.slots + 1
    ring.index = position - (ring.lap - 1) * ring.slots

cdef extern from *:
    """
    static inline uint32_t ax_count_bits(uint64_t mask) { return (uint32_t)__builtin_popcountll(mask); }
    """
    uint32_t count_bits "ax_count_bits"(uint64_t mask) nogil

cdef inline int64_t spin_time(ax_ring *ring) noexcept nogil:
    # How long to spin before sleeping.
    cdef uint32_t k, count = count_bits(ax_peek64(&ring.stream.durables))
    for k in range(ring.words):
        count += count_bits(ax_peek64(&ring.stream.readers[k])) + count_bits(ax_peek64(&ring.stream.producers[k]))
    return ring.spin_ns if <int>count <= ring.cpus else min(ring.spin_ns, SPIN_CROWDED_NS)

cdef inline bint has_producers(ax_ring *ring) noexcept nogil:
    # Acquire: pairs with the release that clears a producer's bit after its last frame.
    cdef uint32_t k
    for k in range(ring.words):
        if ax_load64(&ring.stream.producers[k]):
            return True
    return False

cdef inline bint is_over(ax_ring *ring) noexcept nogil:
    # Whether no frame will be published any more. Acquire: `over` is stored after the last frame, and never cleared.
    return not has_producers(ring) and (not ring.resumable or ax_load64(&ring.stream.over) != 0)

cdef int ring_open(ax_ring *ring, ax_party *party, char *frames, uint64_t bytes) noexcept nogil
cdef uint64_t control_stride_of(uint32_t participants) noexcept nogil
cdef uint64_t gate(ax_ring *ring) noexcept nogil
cdef uint64_t slowest(ax_ring *ring, uint64_t low) noexcept nogil
cdef int claim(ax_ring *ring) noexcept nogil
cdef int check_full(ax_ring *ring) noexcept nogil
cdef int check_words(ax_ring *ring) noexcept nogil
cdef bint skip_pinned(ax_ring *ring) noexcept nogil
cdef void publish(ax_ring *ring, uint32_t at, uint64_t bytes) noexcept nogil
cdef void publish_run(ax_ring *ring, uint64_t end, uint32_t at, uint64_t bytes) noexcept nogil
cdef void abandon(ax_ring *ring) noexcept nogil
cdef int claim_wait(ax_ring *ring, int64_t deadline, bint first) noexcept nogil
cdef int producer_join(ax_ring *ring) noexcept nogil
cdef void producer_leave(ax_ring *ring) noexcept nogil

cdef enum:
    HELD_BY_CURSOR = 0        # this reader's cursor protects the slot
    HELD_BY_PIN = 1           # this reader's pin protects the slot
    HELD_BY_COPY = 2          # unprotected: copy, then check `unchanged`

# A frame that was taken.
cdef struct ax_got:
    uint64_t index
    uint64_t position
    uint64_t word
    int held

cdef int next_frame(ax_ring *ring, ax_got *got) noexcept nogil
cdef uint64_t copy_run(ax_ring *ring, char *to, int64_t *stamps, uint64_t each, uint64_t most) noexcept nogil
cdef int next_wait(ax_ring *ring, ax_got *got, int64_t deadline, bint first) noexcept nogil
cdef int at_position(ax_ring *ring, uint64_t position, ax_got *got) noexcept nogil
cdef bint unchanged(ax_ring *ring, ax_got *got) noexcept nogil
cdef void count_frame(ax_ring *ring, uint64_t sequence, uint64_t passed) noexcept nogil
cdef void release_frame(ax_ring *ring, uint64_t index, uint64_t position, int held) noexcept nogil
cdef bint has_next(ax_ring *ring) noexcept nogil
cdef void mark_read(ax_ring *ring) noexcept nogil

cdef int reader_join(ax_ring *ring, uint32_t policy, bint from_oldest, int durable) noexcept nogil
cdef void reader_leave(ax_ring *ring) noexcept nogil
cdef void reader_stop_gating(ax_ring *ring) noexcept nogil

# Base of ProducerHandle and ConsumerHandle.
cdef class Endpoint:
    cdef ax_ring ring
    cdef readonly bint is_open
    cdef bint is_leaving                # closed, but a thread is inside, or frames are still held
    cdef Participant participant
    cdef unsigned char[::1] memory      # the payload
    cdef uint32_t busy                  # 1: a thread is inside
    cdef pthread_t inside               # that thread

    cdef int enter(self) except -1
    cdef void leave(self) noexcept
    cdef void interrupt(self) noexcept
    cdef void finish(self) noexcept
    cdef void detach(self) noexcept
