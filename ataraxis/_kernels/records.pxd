# A file of frames, open for writing.
from libc.stdint cimport uint32_t, uint64_t

from ataraxis._kernels.crc cimport ax_seal
from ataraxis._kernels.frame cimport ax_frame
from ataraxis._kernels.journal cimport ax_run

cdef struct ax_sink:
    int fd
    int index_fd
    ax_seal seal
    uint32_t shift              # from a header's checksum without a seed to that with ours: XOR
    uint64_t at                 # where in the file the buffer's first byte goes
    uint64_t limit              # no frame begins at or behind it
    uint64_t index_at
    uint64_t used
    uint64_t capacity
    uint64_t frames             # in the file
    uint64_t waiting            # in the buffer
    size_t runs                 # not in the index yet; the last one may be open
    int error                   # of the last write, -errno
    char *buffer
    ax_run *run

cdef enum:
    DIRECT_BYTES = 16384        # a longer payload is not copied first
    SEVERAL = 32                # such in one write, at most

cdef int put_whole(ax_sink *sink, const char *frame, uint64_t padded) noexcept nogil
cdef int put_several(ax_sink *sink, ax_frame *heads, const char **data, uint32_t *count) noexcept nogil
cdef int put(ax_sink *sink, ax_frame *head, const char *front, uint64_t front_bytes, const char *data, uint64_t count,
             bint is_checked) noexcept nogil

cdef class RecordKernel:
    cdef ax_sink sink
    cdef unsigned char[::1] buffer
    cdef unsigned char[::1] run_memory
