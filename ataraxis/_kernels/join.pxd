# Readers come and go.
from libc.stdint cimport uint32_t

from ataraxis._kernels.ring cimport ax_ring

cdef int reader_join(ax_ring *ring, uint32_t policy, bint from_oldest, int durable) noexcept nogil
cdef void reader_leave(ax_ring *ring) noexcept nogil
