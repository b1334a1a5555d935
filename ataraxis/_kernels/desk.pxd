# One handle on a work queue, without what it does.
from libc.stdint cimport int64_t

from ataraxis._kernels.atomics cimport ax_u32
from ataraxis._kernels.memory cimport Participant
from ataraxis._kernels.queue cimport ax_work

cdef class Desk:
    cdef ax_work work
    cdef readonly bint is_open
    cdef bint is_leaving
    cdef ax_u32 users                   # calls that are inside
    cdef Participant participant
    cdef unsigned char[::1] memory      # the payload, acquired once
    cdef object crc_of                  # crc32(data, value), for long payloads
    cdef bint checks                    # frames get a checksum

    cdef int enter(self) except -1
    cdef int leave(self) except -1
    cdef int wait(self, int what, int64_t deadline) except -100
