# A consumer's end of a stream.
from libc.stdint cimport int64_t, uint64_t

from ataraxis._kernels.lend cimport Frame, Lender
from ataraxis._kernels.reader cimport ax_got

cdef class ConsumerKernel(Lender):
    cdef bint is_drained
    cdef public object cancel_event
    cdef public bint _verifies          # every frame is compared with its checksum
    cdef uint64_t last                  # sequence of the last frame received

    cdef int next(self, ax_got *got, int64_t deadline) except -100
    cdef Frame wrap(self, ax_got *got)
    cdef int drain(
        self, char *to, int64_t *stamps, Py_ssize_t each, Py_ssize_t rows, Py_ssize_t *done, ax_got *got, bint has_got,
    ) noexcept nogil
    cdef Frame fetch(self, int64_t deadline, int *status)
