# The structs and functions of journal.h.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from ataraxis._kernels.frame cimport ax_frame

cdef extern from "journal.h" nogil:
    uint32_t AX_CONTROL, AX_SEVERAL
    int AX_RUN_DATA, AX_RUN_CONTROL, AX_RUN_DAMAGE
    int AX_ENTRY_GOOD, AX_ENTRY_LOST, AX_ENTRY_BROKEN, AX_ENTRY_CUT

    struct iovec:
        void *iov_base
        size_t iov_len

    ctypedef struct ax_run:
        uint64_t offset
        uint64_t bytes
        uint32_t count
        uint32_t stride
        int64_t time_min
        int64_t time_max
        uint64_t sequence
        uint32_t source
        uint16_t kind
        uint16_t padding
        uint32_t alike
        uint32_t crc

    ctypedef struct ax_entry:
        uint64_t offset
        uint64_t bytes
        int64_t time_ns
        uint64_t sequence
        uint32_t source
        uint32_t labels
        uint8_t dtype
        uint8_t ndim
        uint16_t flags
        uint32_t state

    size_t ax_run_add(ax_run *runs, size_t closed, size_t count, uint64_t offset, uint64_t bytes, const ax_frame *head)
    int ax_write_all(int fd, iovec *pieces, int count, uint64_t at)
