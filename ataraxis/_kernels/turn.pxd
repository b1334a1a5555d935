# One end of a stream, whichever: what it holds, and whose turn it is. Declared for `send` and `lend`.
from libc.stdint cimport uint32_t

from ataraxis._kernels.lock cimport pthread_t
from ataraxis._kernels.memory cimport Participant
from ataraxis._kernels.ring cimport ax_ring

cdef class Turn:
    cdef ax_ring ring
    cdef readonly bint is_open
    cdef bint is_leaving                # closed; somebody is inside, or frames are still held
    cdef Participant participant
    cdef unsigned char[::1] memory      # the payload, acquired once
    cdef uint32_t busy                  # a thread is inside
    cdef pthread_t inside               # this one

    cdef int enter(self) except -1
    cdef void leave(self) noexcept
    cdef void stir(self) noexcept
    cdef void finish(self) noexcept
    cdef void detach(self) noexcept
