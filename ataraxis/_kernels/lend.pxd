# Declared for `receive`: what lends frames, and a frame that was lent.
from libc.stdint cimport uint32_t, uint64_t
from ataraxis._kernels.lock cimport pthread_t
from ataraxis._kernels.layout cimport ax_frame
from ataraxis._kernels.participants cimport Participant
from ataraxis._kernels.ring cimport ax_ring

cdef class Lender:
    cdef ax_ring ring
    cdef readonly bint is_open
    cdef bint is_leaving                # closed; frames are still held
    cdef Participant participant
    cdef unsigned char[::1] memory
    cdef unsigned char[::1] out
    cdef uint32_t busy                  # a thread is inside
    cdef pthread_t inside               # the thread that is
    cdef list returned                  # frames given back while a thread was inside
    cdef Frame pending                  # looked at by is_alive, not yet received
    cdef object dtype                   # of our own shape's frames, or None
    cdef uint64_t joined                # first sequence that counted

    cdef int enter(self) except -1
    cdef void leave(self) noexcept
    cdef int settle(self) noexcept
    cdef void back(self, uint64_t index, uint64_t position, int held) noexcept
    cdef void detach(self) noexcept

cdef class Frame:
    cdef Lender owner
    cdef ax_frame *head
    cdef char *data
    cdef Py_ssize_t bytes
    cdef uint64_t index
    cdef uint64_t position
    cdef int held                       # HELD_BY_*, or -1: given back
    cdef bint is_over                   # released by the user
    cdef Py_ssize_t lent                # views of it that live
    cdef Py_ssize_t cursor              # of read()
    cdef object copy                    # bytes of our own, where the slot could not be kept

    cdef int ready(self) except -1
    cdef void drop(self) noexcept
