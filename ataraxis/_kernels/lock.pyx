"""The lock of a segment: a futex word that names its owner's slot, and recovery when that owner dies.

Source: docs/explanation/concurrency.md; the mutex is Drepper's ("Futexes are tricky", 2011) with the
owner in the word, the data version a seqlock (Boehm, MSPC 2012). Modelled in tests/models/lock.pml.
"""
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EINTR
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ataraxis._kernels.atomics cimport (
    ax_add32, ax_add64, ax_cas32, ax_linger, ax_load32, ax_or32, ax_peek32, ax_peek64, ax_put32, ax_put64, ax_store64,
)
from ataraxis._kernels.layout cimport (
    AX_BUSY, AX_KIND_ARRAY, AX_LOCK_CHANGE, AX_LOCK_OWNER, AX_LOCK_WAITERS, AX_OK, AX_READY, AX_RETIRED, AX_TIMEOUT,
    ax_guard,
)
from ataraxis._kernels.participants cimport ax_party, entry_of, live_of, on_death, reap
from ataraxis._kernels.platform cimport ax_crash, ax_futex_wait, ax_futex_wake, ax_now_ns

cdef enum:
    SLICE_NS = 50000000    # longest sleep before looking at signals
    PROBE_NS = 20000000    # longest wait before asking whether the owner lives
    EVERYBODY = 0x7FFFFFFF
    LINGER = 20            # some 1 us between looks


# ---- the algorithm

cdef void lock_wake(ax_guard *guard, uint32_t seen) noexcept nogil:
    if seen & AX_LOCK_WAITERS:
        ax_futex_wake(&guard.lock, 1)
    if seen & AX_LOCK_CHANGE:
        # Who took the bit wakes; the count keeps whoever is about to sleep from sleeping through it.
        ax_add32(&guard.event, 1)
        ax_futex_wake(&guard.event, EVERYBODY)


cdef int lock_wait(ax_guard *guard, ax_party *party, int64_t deadline, int64_t *probed, bint first) noexcept nogil:
    # One slice: AX_OK taken, AX_BUSY look at your signals and call again, AX_TIMEOUT. `probed` outlives the
    # slice: signals may cut every one short, and the owner's death must still be noticed.
    cdef int64_t now, started = ax_now_ns()
    cdef uint32_t seen, looks = party.spins if first else 0
    while looks:
        # Each look takes the line away from the owner: a few far between let it do many turns meanwhile.
        for _ in range(LINGER):
            ax_linger()
        if lock_try(guard, party):
            return AX_OK
        looks -= 1
    while True:
        seen = ax_load32(&guard.lock)
        if not seen & AX_LOCK_OWNER:
            # WAITERS stays set: others may sleep beside us. Acquire as in lock_try.
            if ax_cas32(&guard.lock, seen, seen | AX_LOCK_WAITERS | (party.slot + 1)):
                ax_crash("lock_waited")
                ax_put64(&party.holder, <uint64_t>pthread_self())
                party.depth = 1
                return AX_OK
            continue
        now = ax_now_ns()
        if not seen & AX_LOCK_WAITERS:
            # Also by who gives up: the wake-up that it may have been given was meant for somebody.
            if not ax_cas32(&guard.lock, seen, seen | AX_LOCK_WAITERS):
                continue
            seen |= AX_LOCK_WAITERS
            ax_crash("lock_waiting")
        if now >= deadline:
            # However short the wait was, a dead owner is not worth an answer of "busy".
            if reap(party, (seen & AX_LOCK_OWNER) - 1):
                continue
            return AX_TIMEOUT
        if now - started >= SLICE_NS:
            return AX_BUSY
        if now - probed[0] >= PROBE_NS:
            probed[0] = now
            if reap(party, (seen & AX_LOCK_OWNER) - 1):
                continue
        if ax_futex_wait(&guard.lock, seen, min(PROBE_NS, deadline - now)) == -EINTR:
            return AX_BUSY


cdef int change_wait(ax_guard *guard, ax_party *party, uint64_t last, int64_t deadline) noexcept nogil:
    # One slice of waiting until more than `last` writes are complete.
    cdef int64_t now = ax_now_ns()
    # The count before the bit: whoever takes the bit counts, so that the futex does not sleep through it.
    cdef uint32_t event = ax_load32(&guard.event)
    cdef uint32_t seen
    # The bit before the look: pairs with the swap in lock_release, which either sees the bit or is seen.
    seen = ax_or32(&guard.lock, AX_LOCK_CHANGE)
    ax_crash("change_waiting")
    if changes(guard) != last:
        return AX_OK
    if ax_load32(&live_of(party).state) != AX_READY:
        return AX_RETIRED
    if now >= deadline:
        return AX_TIMEOUT
    ax_futex_wait(&guard.event, event, min(SLICE_NS, deadline - now))
    if changes(guard) != last:
        return AX_OK
    if seen & AX_LOCK_OWNER and ax_load32(&guard.lock) & AX_LOCK_OWNER == seen & AX_LOCK_OWNER:
        # The same owner for a whole slice: it may have died between its write and saying so.
        reap(party, (seen & AX_LOCK_OWNER) - 1)
    return AX_BUSY


cdef void guard_cleanup(ax_party *party, uint32_t slot) noexcept nogil:
    # The only repair: free the lock if `slot` held it. May be interrupted at any line and repeated.
    cdef ax_guard *guard = <ax_guard *>party.control
    cdef uint32_t seen = ax_load32(&guard.lock)
    cdef uint64_t version
    if seen & AX_LOCK_OWNER != slot + 1:
        return
    if ax_peek32(&guard.dirty):
        ax_put32(&guard.torn_pid, <uint32_t>entry_of(party, slot).pid)
        if ax_peek32(&guard.health) == 0:
            ax_add64(&guard.torn, 1)
        ax_put32(&guard.health, 1)
        ax_crash("cleanup_torn")
    version = ax_peek64(&guard.version)
    # Release: a reader that sees the even version sees `health` too. An even one may hide a single-element
    # store whose commit was cut off: readers that copied meanwhile must look again.
    ax_store64(&guard.version, version + 1 if version & 1 else version + 2)
    ax_put32(&guard.dirty, 0)
    ax_crash("cleanup_version")
    ax_add64(&guard.recoveries, 1)
    lock_free(guard, seen)
    ax_add32(&party.recovered, 1)


cdef void lock_free(ax_guard *guard, uint32_t seen) noexcept nogil:
    # Release: pairs with the CAS in lock_try. Others may only add bits meanwhile.
    while not ax_cas32(&guard.lock, seen, seen & ~AX_LOCK_OWNER & ~AX_LOCK_CHANGE):
        seen = ax_load32(&guard.lock)
    ax_crash("cleanup_freed")
    lock_wake(guard, AX_LOCK_WAITERS | AX_LOCK_CHANGE)


on_death(AX_KIND_ARRAY, guard_cleanup)


# ---- the bridge

cdef int lock_take(ax_guard *guard, ax_party *party, int64_t deadline) except -100:
    # Try with the GIL; wait without it, looking at signals between slices.
    cdef int status, looks = 1
    cdef bint first = True
    cdef int64_t probed = 0
    while looks:
        if lock_try(guard, party):
            return AX_OK
        looks -= 1
    if deadline <= 0:
        # Not at all; but a dead owner is not worth an answer of "busy".
        with nogil:
            reap(party, (ax_load32(&guard.lock) & AX_LOCK_OWNER) - 1)
        return AX_OK if lock_try(guard, party) else AX_TIMEOUT
    probed = ax_now_ns()
    while True:
        with nogil:
            status = lock_wait(guard, party, deadline, &probed, first)
        if status != AX_BUSY:
            return status
        first = False
        PyErr_CheckSignals()
