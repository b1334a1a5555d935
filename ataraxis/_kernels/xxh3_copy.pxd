# Copying with hashing, of xxh3_copy.h.
from libc.stdint cimport uint64_t

cdef extern from "xxh3_copy.h" nogil:
    enum: AX_MOVE_SHORT
    ctypedef uint64_t (*ax_mover)(char *to, const char *from_, size_t n, const char *mine) noexcept
    ax_mover ax_mover_of(int bytes)
