# Mapped files; participants of a segment, their liveness, and the clean-up after dead ones.
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ataraxis._kernels.atomics cimport ax_u32, ax_u64
from ataraxis._kernels.layout cimport ax_live, ax_participant

cdef class Mapping:
    cdef char *base
    cdef Py_ssize_t bytes
    cdef object __weakref__

ctypedef void (*ax_cleanup)(ax_party *party, uint32_t slot) noexcept nogil

# One attachment: private memory of this process, set once by Participant.__cinit__ except where said.
cdef struct ax_party:
    char *base                    # the mapping
    char *control                 # the kind's control block, inside it
    uint64_t bytes                # length of the mapping
    uint32_t kind
    uint32_t slots                # participants the segment has room for
    uint32_t slot                 # of this participant
    uint32_t spins                # attempts before sleeping; 0 with one CPU
    int probe                     # changes: a descriptor of the file, to query other slots' bytes
    void *watch                   # registration that closes the probe in a forked child
    char *home                    # path of the file, in case user code closes the probe
    uint64_t dev
    uint64_t ino
    void *page                    # the mapping that keeps this slot's byte locked
    uint64_t fork                 # *forks at attachment; differs in a forked child
    uint64_t *forks
    ax_cleanup cleanup
    ax_u64 holder                 # changes: the thread of this process that holds the lock, 0 none
    uint32_t depth                # changes: how often it holds it; written by the holder only
    ax_u32 recovered              # changes: locks freed after a death and not reported yet
    ax_u64 swept_ns               # changes: time of the last sweep
    uint64_t cells                # slots of the ring or queue, as a handle has checked them; 0: not yet

cdef inline ax_live *live_of(ax_party *party) noexcept nogil:
    return <ax_live *>(party.base + 0x800)

cdef inline ax_participant *entry_of(ax_party *party, uint32_t slot) noexcept nogil:
    return <ax_participant *>(party.base + 4096) + slot

cdef inline bint inherited(ax_party *party) noexcept nogil:
    # True in a forked child: the slot is the parent's.
    return party.fork != party.forks[0]

cdef void on_death(uint32_t kind, ax_cleanup cleanup) noexcept
cdef bint probing(ax_party *party) noexcept nogil
cdef int alive(ax_party *party, uint32_t slot) noexcept nogil
cdef bint reap(ax_party *party, uint32_t slot) noexcept nogil
cdef int sweep(ax_party *party, int64_t period_ns) noexcept nogil
cdef bint lock_vacant(ax_party *party, uint32_t slot) noexcept nogil
cdef void unlock_vacant(ax_party *party, uint32_t slot) noexcept nogil

# Kinds of damage: a word of shared memory with an impossible value.
cdef enum:
    AX_WORD_OWNER = 1         # of the lock: an impossible or absent participant
    AX_WORD_AHEAD = 2         # of a slot: a lap that no producer has reached
    AX_WORD_BEHIND = 3        # of a slot: a lap before the one claimed according to the tail
    AX_WORD_STATE = 4         # of a slot: an unknown state
    AX_WORD_WRITER = 5        # of a slot: written by a participant that is not a producer
    AX_WORD_TAIL = 6          # more than a ring from a reader that gates, or too large for a word
    AX_WORD_HEAD = 7          # of a queue: beyond its tail
    AX_WORD_LEFT = 8          # of a slot: more frames left than it has
    AX_WORD_OVERTAKEN = 9     # of a slot: overwritten while a reader held it

cdef struct ax_damage:
    int word
    uint64_t index
    uint64_t found
    uint64_t other

cdef int damaged(ax_damage *damage, int word, uint64_t index, uint64_t found, uint64_t other) noexcept nogil
cdef str damage_text(ax_damage *damage)

cdef class Participant:
    cdef ax_party party
    cdef object mapping           # keeps `base` mapped
    cdef object __weakref__
