# The checksum of crc.h; a kernel that uses it calls ax_crc_prepare when it is loaded.
from libc.stdint cimport uint32_t

cdef extern from "crc.h" nogil:
    void ax_crc_prepare()
    uint32_t ax_crc32(uint32_t crc, const void *data, size_t n)
