# Declared for `receive`: what lends frames, and a frame that was lent.
from libc.stdint cimport uint64_t

from ataraxis._kernels.frame cimport ax_frame
from ataraxis._kernels.turn cimport Turn

cdef class Lender(Turn):
    cdef unsigned char[::1] out
    cdef list returned                  # frames given back while a thread was inside
    cdef Frame pending                  # looked at by is_alive, not yet received
    cdef object dtype                   # of our own shape's frames, or None
    cdef uint64_t joined                # first sequence that counted

    cdef int settle(self) noexcept
    cdef void back(self, uint64_t index, uint64_t position, int held) noexcept

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
