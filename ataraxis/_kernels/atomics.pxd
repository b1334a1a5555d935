# The words of atomics.h; opaque, so that a plain access does not compile.
from libc.stdint cimport uint32_t, uint64_t

cdef extern from "atomics.h" nogil:
    ctypedef struct ax_u32:
        pass
    ctypedef struct ax_u64:
        pass

    uint32_t ax_load32(ax_u32 *p)
    uint32_t ax_peek32(ax_u32 *p)
    void ax_store32(ax_u32 *p, uint32_t v)
    void ax_put32(ax_u32 *p, uint32_t v)
    uint32_t ax_swap32(ax_u32 *p, uint32_t v)
    uint32_t ax_or32(ax_u32 *p, uint32_t v)
    uint32_t ax_and32(ax_u32 *p, uint32_t v)
    uint32_t ax_add32(ax_u32 *p, uint32_t v)
    bint ax_cas32(ax_u32 *p, uint32_t expected, uint32_t desired)

    uint64_t ax_load64(ax_u64 *p)
    uint64_t ax_peek64(ax_u64 *p)
    void ax_store64(ax_u64 *p, uint64_t v)
    void ax_put64(ax_u64 *p, uint64_t v)
    uint64_t ax_or64(ax_u64 *p, uint64_t v)
    uint64_t ax_and64(ax_u64 *p, uint64_t v)
    uint64_t ax_add64(ax_u64 *p, uint64_t v)
    bint ax_cas64(ax_u64 *p, uint64_t expected, uint64_t desired)

    void ax_fence_acquire()
    void ax_fence_release()
    void ax_fence_full()
    void ax_pause()
    void ax_linger()
    int AX_GIL_BYTES
    void ax_copy(void *to, const void *from_, size_t n)
    void ax_zero(void *to, size_t n)
