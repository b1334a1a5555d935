"""Vector registers as other people's code leaves them.

Hand-written AVX code that ends without VZEROUPPER (ISA-L's checksums) leaves the upper halves of the registers in use.
From then on every SSE instruction of the thread also waits for them: all code that was compiled for plain x86-64 is
slower, CPython's included, and that of forked children. Source: Intel 64 and IA-32 Architectures Optimization Reference
Manual, "Mixing AVX code with SSE code".
"""
cdef extern from *:
    """
    #if defined(__x86_64__)
    #include <immintrin.h>
    __attribute__((target("avx"))) static void ax_clear_upper(void) { _mm256_zeroupper(); }
    static inline void ax_leave_vectors(void)
    {
        if (__builtin_cpu_supports("avx"))
            ax_clear_upper();
    }
    #else
    static inline void ax_leave_vectors(void) {}
    #endif
    """
    void ax_leave_vectors() noexcept nogil


def leave():
    """Say that the upper halves are in use no more."""
    ax_leave_vectors()
