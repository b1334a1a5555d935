# The putting half of a handle on a work queue.
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ataraxis._kernels.desk cimport Desk
from ataraxis._kernels.frame cimport ax_frame
from ataraxis._kernels.queue cimport ax_last

# A frame in pieces: header, extension, payload; `kept` keeps the payload alive.
cdef struct ax_piece:
    ax_frame head
    uint64_t stamp[2]
    uint32_t stamp_bytes
    const char *data
    uint64_t bytes
    bint whole                # `data` is a whole frame already: header and all

cdef class PutKernel(Desk):
    cdef public bint _packs             # a put goes behind the last one where nobody has taken that yet
    cdef int piece_of(self, ax_piece *piece, value, source, time_ns, device_time, device_sequence) except -1
    cdef int claim(self, uint64_t *index, uint64_t *position, int64_t deadline) except -100
    cdef int seal(self, ax_piece *piece) except -1
    cdef int put_alone(self, ax_piece *piece, uint64_t bytes, int64_t deadline) except -100
    cdef int put_piece(self, ax_piece *piece, int64_t deadline) except -100
    cdef int put_packed(self, char *frames, uint32_t bytes, uint32_t count, uint64_t payload, int64_t deadline) except -100
    cdef void count(self, uint64_t frames, uint64_t bytes, int64_t now) noexcept
    cdef uint32_t reopen(self, uint64_t each) noexcept
    cdef void show(self, ax_last *slot, uint64_t bytes, uint32_t frames) noexcept
    cdef bint add(self, ax_piece *piece, uint64_t bytes) noexcept
