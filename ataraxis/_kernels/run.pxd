# Runs of slots, for blocks of small frames: claimed together by the only producer of a stream, published one by one.
#
# A run is `claim` of ring.pyx for consecutive slots, with one store of the tail after all their words and one
# fence P after that. The words are stored, not swapped: with one producer, no other participant changes a word that
# is not WRITING. Modelled with RUN in tests/models/ring.pml, and in ring_litmus.cpp.
from libc.stdint cimport uint64_t

from ataraxis._kernels.atomics cimport ax_fence_full, ax_load64, ax_put64, ax_store64
from ataraxis._kernels.layout cimport AX_SLOT_WRITING
from ataraxis._kernels.platform cimport ax_crash
from ataraxis._kernels.ring cimport ax_ring, gate, payload_at, slot_at, word_of

cdef extern from *:
    """
    #if defined(__x86_64__)
    /* For baseline x86-64, compilers emit a plain prefetch, after which a store must request the line again. Where
     * the instruction is unknown, it is a no-op. */
    #define ax_prefetch_to_write(address) __asm__ __volatile__("prefetchw %0" : : "m"(*(const char *)(address)))
    #else
    #define ax_prefetch_to_write(address) __builtin_prefetch(address, 1, 3)
    #endif
    """
    void ax_prefetch_to_write(const void *address) nogil

cdef inline void prefetch_slot(ax_ring *ring, uint64_t index) noexcept nogil:
    # Prefetch the lines of a slot for writing: they are in its last reader's cache.
    ax_prefetch_to_write(slot_at(ring, index))
    ax_prefetch_to_write(payload_at(ring, index) - 64)
    ax_prefetch_to_write(payload_at(ring, index))

cdef inline uint64_t claim_run(ax_ring *ring, uint64_t most) noexcept nogil:
    # Claim up to `most` slots from `position` on; returns how many. 0: a slot is in use, or no room: use `claim`.
    # Does not check pins.
    cdef uint64_t k, seen, count = 0
    # Acquire: pairs with the release below, and that in `advance`.
    if ring.shared or ax_load64(&ring.stream.tail) != ring.position:
        return 0
    if ring.position >= ring.limit:
        ring.limit = gate(ring)
        if ring.position >= ring.limit:
            return 0
    most = min(most, min(ring.limit - ring.position, ring.slots - ring.index))
    for k in range(most):
        ax_prefetch_to_write(slot_at(ring, ring.index + k))
    for k in range(most):
        # Acquire: pairs with `set_state` of the previous lap, by a producer that has left.
        seen = ax_load64(&slot_at(ring, ring.index + k).word)
        if seen >> 16 >= ring.lap or seen & 7 == AX_SLOT_WRITING:
            break
        prefetch_slot(ring, ring.index + k)
        count += 1
    if count == 0:
        return 0
    for k in range(count):
        ax_put64(&slot_at(ring, ring.index + k).word, word_of(ring.lap, ring.me, AX_SLOT_WRITING))
    ax_crash("run_claimed")
    # Release: a thread that sees the tail sees the claims.
    ax_store64(&ring.stream.tail, ring.position + count)
    ax_crash("run_tail")
    # Fence P: pairs with the one in `pin`, for each of them; also keeps the payloads' stores below WRITING.
    ax_fence_full()
    return count
