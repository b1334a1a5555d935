from libc.stdint cimport int64_t, uint32_t, uint64_t

from ataraxis._kernels.send cimport ProducerKernel, ax_stamp

# Rows of an array on their way.
cdef struct ax_rows:
    const char *data
    Py_ssize_t count
    Py_ssize_t sent
    const int64_t *times    # one a row, or NULL
    const int64_t *device   # two a row: time and counter; or NULL

cdef class RowsKernel(ProducerKernel):
    cdef int burst(self, ax_rows *rows, ax_stamp *stamp, int64_t step_ns) noexcept nogil
    cdef void send_run(self, uint64_t run, ax_rows *rows, ax_stamp *stamp, int64_t step_ns) noexcept nogil
    cdef uint32_t fill(self, ax_rows *rows, ax_stamp *stamp, int64_t step_ns, uint64_t sequence) noexcept nogil
