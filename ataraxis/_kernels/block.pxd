# Putting rows of an array, each a frame.
from libc.stdint cimport int64_t, uint64_t

from ataraxis._kernels.frame cimport ax_frame
from ataraxis._kernels.put cimport PutKernel

# Rows of one array: what their frames share, and where each goes on from the one before.
cdef struct ax_rows:
    ax_frame head
    const char *data
    uint64_t width            # bytes of a row
    uint64_t each             # bytes of a frame, padded
    uint64_t stamp            # device time of the next row
    uint64_t step

cdef class BlockKernel(PutKernel):
    cdef int fill(self, ax_rows *rows, uint64_t most, uint64_t *done, int64_t deadline) except -100
