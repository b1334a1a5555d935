# The lock of a segment and the write section it guards.
#
#   lock word      WAITERS | CHANGE | owner (slot + 1; 0 free)
#   version        even at rest, odd inside a section, + 2 per commit
#   event          futex of threads that wait for a change; + 1 per wake-up
#   unlocked       writes made without the lock
#   dirty          the owner may have written partly
#   health         1: an owner died while dirty and the data are not healed yet; 2: a release found another owner
#
# Everything but `lock` is written by the owner only, or by the holder of a dead owner's byte.
cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ataraxis._kernels.atomics cimport (
    ax_cas32, ax_fence_release, ax_load64, ax_peek32, ax_peek64, ax_put64, ax_store32, ax_store64, ax_swap32,
)
from ataraxis._kernels.layout cimport AX_LOCK_CHANGE, AX_LOCK_OWNER, AX_LOCK_WAITERS, AX_READY, ax_guard
from ataraxis._kernels.memory cimport Participant, ax_party, inherited, live_of
from ataraxis._kernels.platform cimport ax_crash

cdef extern from "pthread.h" nogil:
    ctypedef unsigned long pthread_t
    pthread_t pthread_self()

cdef inline bint lock_mine(ax_party *party) noexcept nogil:
    # Relaxed is enough: only this thread ever stores its own id.
    return ax_peek64(&party.holder) == <uint64_t>pthread_self()

cdef inline bint lock_try(ax_guard *guard, ax_party *party) noexcept nogil:
    # One attempt. The lock is recursive: its holder only counts.
    cdef uint32_t seen
    if lock_mine(party):
        party.depth += 1
        return True
    seen = ax_peek32(&guard.lock)
    if seen & AX_LOCK_OWNER:
        return False
    # Acquire: pairs with the swap in lock_release and the release of a dead owner's lock in lock_free.
    if not ax_cas32(&guard.lock, seen, seen | (party.slot + 1)):
        return False
    ax_crash("lock_taken")
    ax_put64(&party.holder, <uint64_t>pthread_self())
    party.depth = 1
    return True

cdef inline void lock_release(ax_guard *guard, ax_party *party) noexcept nogil:
    cdef uint32_t seen
    party.depth -= 1
    if party.depth:
        return
    ax_put64(&party.holder, 0)
    # Release: pairs with the CAS in lock_try. The swap also takes the sleepers' bits: a thread that set one before it
    # is woken, and a thread that sets one after it sees the new version.
    seen = ax_swap32(&guard.lock, 0)
    ax_crash("lock_released")
    if seen != party.slot + 1:
        lock_release_slow(guard, party, seen)

cdef inline bint section_is_open(ax_guard *guard) noexcept nogil:
    # For the lock's owner only: no other thread changes the version's parity.
    return ax_peek64(&guard.version) & 1

cdef inline void section_open(ax_guard *guard) noexcept nogil:
    # Seqlock, Boehm 2012: the fence keeps the data's stores below the odd version.
    ax_put64(&guard.version, ax_peek64(&guard.version) | 1)
    ax_fence_release()

cdef inline void section_close(ax_guard *guard) noexcept nogil:
    # The data are complete from here on: a kill after this line must not mark them torn.
    ax_store32(&guard.dirty, 0)
    # Release: pairs with the acquire load of `version` in readers.
    ax_store64(&guard.version, (ax_peek64(&guard.version) | 1) + 1)

cdef inline void section_leave(ax_guard *guard) noexcept nogil:
    # Nothing was written: the even version that readers saw is valid again. Wakes no waiter.
    ax_store64(&guard.version, ax_peek64(&guard.version) & ~<uint64_t>1)

cdef inline uint64_t changes(ax_guard *guard) noexcept nogil:
    # Number of complete writes. Acquire: a reader that learns of one can read it.
    return (ax_load64(&guard.version) >> 1) + ax_load64(&guard.unlocked)

cdef void lock_wake(ax_guard *guard, uint32_t seen) noexcept nogil
cdef void lock_release_slow(ax_guard *guard, ax_party *party, uint32_t seen) noexcept nogil
cdef int lock_wait(ax_guard *guard, ax_party *party, int64_t deadline, int64_t *probed, bint first) noexcept nogil
cdef bint is_lock_lost(ax_guard *guard, ax_party *party, uint32_t seen) noexcept nogil
cdef int change_wait(ax_guard *guard, ax_party *party, uint64_t last, int64_t deadline) noexcept nogil
cdef int lock_take(ax_guard *guard, ax_party *party, int64_t deadline) except -100

cdef class LockHandle:
    cdef Participant participant
    cdef ax_party *party                # NULL while not connected
    cdef ax_guard *guard
    cdef object __weakref__

    cdef int revive(self) except -1
    cdef int wait(self, int64_t deadline) except -1
    cdef int wait_for_lock(self, int64_t deadline) except -100

    @cython.final
    cdef inline int ready(self) except -1:
        # Return if connected, not a forked copy and not unlinked; otherwise the subclass decides.
        if self.party == NULL or inherited(self.party) or ax_peek32(&live_of(self.party).state) != AX_READY:
            return self.revive()
        return 0

    @cython.final
    cdef inline int take(self, int64_t deadline) except -1:
        # Take the lock, or raise. Warns if it was taken from a dead owner.
        if not lock_try(self.guard, self.party) or ax_peek32(&self.party.recovered):
            return self.wait(deadline)
        return 0
