# A journal's file that takes frames.
from libc.stdint cimport uint32_t, uint64_t

from ataraxis._kernels.crc cimport ax_seal
from ataraxis._kernels.frame cimport ax_frame
from ataraxis._kernels.journal cimport ax_run

cdef struct ax_sink:
    int fd
    int index_fd
    ax_seal seal
    uint32_t shift              # XOR from a header's checksum without seed to the one with this file's seed
    uint64_t at                 # file offset of the buffer's first byte
    uint64_t limit              # no frame begins at or after it
    uint64_t index_at
    uint64_t used
    uint64_t capacity
    uint64_t frames             # in the file
    uint64_t waiting            # in the buffer
    size_t runs                 # not written to the index yet; the last one may grow
    int error                   # of the last write, -errno
    char *buffer
    ax_run *run

cdef int put_frame(ax_sink *sink, ax_frame *head, const char *front, uint64_t front_bytes, const char *data, uint64_t count,
                   bint is_checked) noexcept nogil

cdef class RecordKernel:
    cdef ax_sink sink
    cdef unsigned char[::1] buffer
    cdef unsigned char[::1] run_memory
