# Copies between private memory and a payload that a lock and a seqlock guard (lock.pxd).
from libc.stdint cimport uint64_t

from ataraxis._kernels.atomics cimport (
    ax_copy, ax_fence_acquire, ax_fence_release, ax_load64, ax_peek32, ax_peek64, ax_put32, ax_store64,
)
from ataraxis._kernels.layout cimport ax_guard
from ataraxis._kernels.lock cimport section_close, section_is_open, section_open
from ataraxis._kernels.memory cimport ax_party
from ataraxis._kernels.platform cimport ax_crash

cdef inline bint copy_out(ax_guard *guard, char *to, const char *from_, size_t count) noexcept nogil:
    # One optimistic read of a seqlock (Boehm 2012); False if a writer interfered.
    # Acquire: pairs with the release in section_close.
    cdef uint64_t version = ax_load64(&guard.version)
    if version & 1 or ax_peek32(&guard.health):
        return False
    ax_copy(to, from_, count)
    # The fence keeps the copy's loads above the second load of the version.
    ax_fence_acquire()
    return ax_peek64(&guard.version) == version

cdef inline void copy_in(ax_guard *guard, ax_party *party, char *to, const char *from_, size_t count, bint heals) noexcept nogil:
    # The caller holds the lock. The section stays open until the outermost release, so that readers
    # see all writes under one lock or none.
    ax_put32(&guard.dirty, 1)
    ax_crash("write_marked")
    if section_is_open(guard):
        ax_fence_release()
    else:
        section_open(guard)
    ax_crash("write_section_open")
    ax_copy(to, from_, count // 2)
    ax_crash("write_half_copied")
    ax_copy(to + count // 2, from_ + count // 2, count - count // 2)
    if heals:
        ax_put32(&guard.health, 0)
    ax_crash("write_copied")
    if party.depth == 1:
        section_close(guard)
    ax_crash("write_section_closed")

cdef inline void store_element(ax_guard *guard, ax_party *party, char *to, const char *from_, size_t count) noexcept nogil:
    # One aligned store needs no section: it is atomic. The version makes readers of more than it retry.
    if count > 8 or party.depth > 1:
        copy_in(guard, party, to, from_, count, False)
        return
    # Pairs with the acquire fence in copy_out: a reader that sees this store sees every earlier commit.
    ax_fence_release()
    ax_copy(to, from_, count)
    ax_crash("store_element_stored")
    ax_store64(&guard.version, ax_peek64(&guard.version) + 2)
