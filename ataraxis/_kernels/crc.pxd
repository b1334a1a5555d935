# The checksums of crc.h. The importing module must call ax_crc_init().
from libc.stdint cimport uint32_t

cdef extern from "crc.h" nogil:
    int AX_CRC_BYTES
    int ax_crc_is_wide

    ctypedef struct ax_seal:
        uint32_t seed
        uint32_t front

    void ax_crc_init()
    uint32_t ax_crc32(uint32_t crc, const void *data, size_t n)
    uint32_t ax_copy_crc32(uint32_t crc, void *to, const void *source, size_t n)
    ax_seal ax_seal_of(uint32_t seed)
    uint32_t ax_header_crc(ax_seal seal, const void *header)
