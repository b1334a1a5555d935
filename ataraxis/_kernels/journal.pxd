# The structs and functions of journal.h and crc.h.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from ataraxis._kernels.layout cimport ax_frame

cdef extern from "journal.h" nogil:
    uint32_t AX_CONTROL, AX_SEVERAL
    int AX_RUN_DATA, AX_RUN_CONTROL, AX_RUN_DAMAGE
    int AX_ENTRY_GOOD, AX_ENTRY_LOST, AX_ENTRY_BROKEN, AX_ENTRY_CUT

    struct iovec:
        void *iov_base
        size_t iov_len

    ctypedef struct ax_seal:
        uint32_t seed
        uint32_t front

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
        uint16_t reserved
        uint32_t reserved2
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

    void ax_crc_init()
    uint32_t ax_crc32(uint32_t crc, const void *data, size_t n)
    ax_seal ax_seal_of(uint32_t seed)
    uint32_t ax_header_crc(ax_seal seal, const void *header)
    uint64_t ax_padded(uint64_t bytes)
    size_t ax_run_add(ax_run *runs, size_t closed, size_t count, uint64_t offset, uint64_t bytes, const ax_frame *head)
    int ax_write_all(int fd, iovec *pieces, int count, uint64_t at)
