from libc.stdint cimport int64_t, uint64_t

from ataraxis._kernels.send cimport ProducerKernel, ax_stamp


cdef class RowsKernel(ProducerKernel):
    cdef int burst(self, const char **data, Py_ssize_t *sent, Py_ssize_t count, ax_stamp *stamp, int64_t step_ns) noexcept nogil
    cdef void send_run(self, uint64_t run, const char **data, Py_ssize_t *sent, ax_stamp *stamp, int64_t step_ns) noexcept nogil
