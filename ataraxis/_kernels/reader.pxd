# The readers' half of the ring: take a frame, give it back, wait.
from libc.stdint cimport int64_t, uint64_t

from ataraxis._kernels.ring cimport ax_ring

cdef enum:
    HELD_BY_CURSOR = 0        # our cursor keeps it: nobody overwrites it
    HELD_BY_PIN = 1           # our pin keeps it
    HELD_BY_COPY = 2          # nobody keeps it: copy, then ask `unchanged`

# A frame handed to us.
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
cdef void count_frame(ax_ring *ring, uint64_t sequence) noexcept nogil
cdef void give_back(ax_ring *ring, uint64_t index, uint64_t position, int held) noexcept nogil
cdef bint has_next(ax_ring *ring) noexcept nogil
cdef void settle_had(ax_ring *ring) noexcept nogil
