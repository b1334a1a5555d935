"""The lock of a segment: a futex word that names its owner's slot, recovery when that owner dies, and its handle; also
a lock between the threads of one process.

Source: docs/explanation/concurrency.md; the mutex is Drepper's ("Futexes are tricky", 2011) with the
owner in the word, the data version a seqlock (Boehm, MSPC 2012). Modelled in tests/models/lock.pml.
"""
from cpython.exc cimport PyErr_CheckSignals
from cpython.pythread cimport PyThread_allocate_lock, PyThread_free_lock, PyThread_release_lock, PyThread_type_lock
from cython cimport no_gc, no_gc_clear
from libc.errno cimport EINTR
from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t

from ataraxis._kernels.atomics cimport (
    ax_add32, ax_add64, ax_and32, ax_cas32, ax_fence_release, ax_linger, ax_load32, ax_or32, ax_peek32, ax_peek64,
    ax_put32, ax_put64, ax_store64,
)
from ataraxis._kernels.layout cimport (
    AX_BUSY, AX_CROWDED, AX_DAMAGED, AX_ENDED, AX_FULL, AX_KEPT, AX_KIND_ARRAY, AX_LOCK_CHANGE, AX_LOCK_OWNER, AX_LOCK_WAITERS,
    AX_OK, AX_OVERFLOW, AX_RETIRED, AX_RETIRED_STATE, AX_TIMEOUT, AX_TORN, ax_guard,
)
from ataraxis._kernels.memory cimport (
    AX_WORD_OWNER, Participant, ax_damage, ax_party, damage_text, damaged, entry_of, lock_vacant, inherited, unlock_vacant, live_of,
    on_death, reap,
)
from ataraxis._kernels.platform cimport ax_crash, ax_futex_wait, ax_futex_wake, ax_now_ns
from ataraxis._kernels.timing cimport deadline_of

cdef extern from "pythread.h" nogil:
    enum: PY_LOCK_ACQUIRED
    int PyThread_acquire_lock_timed(PyThread_type_lock lock, long long microseconds, int is_interruptible)

cdef enum:
    SLICE_NS = 50000000    # longest sleep before checking signals
    PROBE_NS = 20000000    # longest wait before checking whether the owner is alive
    ALL_SLEEPERS = 0x7FFFFFFF
    LINGER = 20            # some 1 us between attempts
    SHARED = 2             # ax_guard.health: a release found another owner


# ---- the algorithm

cdef void lock_wake(ax_guard *guard, uint32_t seen) noexcept nogil:
    if seen & AX_LOCK_WAITERS:
        ax_futex_wake(&guard.lock, 1)
    if seen & AX_LOCK_CHANGE:
        # The thread that cleared the bit wakes. The count keeps a thread about to sleep from missing it.
        ax_add32(&guard.event, 1)
        ax_futex_wake(&guard.event, ALL_SLEEPERS)


cdef void lock_release_slow(ax_guard *guard, ax_party *party, uint32_t seen) noexcept nogil:
    # The released word was not only this owner: threads wait, or it was damaged.
    if seen & AX_LOCK_OWNER != party.slot + 1:
        # Another participant may have held the lock too: the data may be mixed.
        ax_put32(&guard.torn_pid, 0)
        ax_put32(&guard.health, SHARED)
        ax_add64(&guard.torn, 1)
        seen |= AX_LOCK_WAITERS | AX_LOCK_CHANGE
    lock_wake(guard, seen)


cdef bint is_lock_lost(ax_guard *guard, ax_party *party, uint32_t seen) noexcept nogil:
    # Whether the lock names an impossible or absent owner, which will never release it.
    cdef uint32_t owner = (seen & AX_LOCK_OWNER) - 1
    cdef bint found
    if owner >= party.slots:
        return seen & AX_LOCK_OWNER and ax_load32(&guard.lock) & AX_LOCK_OWNER == seen & AX_LOCK_OWNER
    if not lock_vacant(party, owner):
        return False
    # The slot cannot be taken meanwhile; its last owner's lock was freed before it was.
    found = ax_load32(&guard.lock) & AX_LOCK_OWNER == owner + 1
    unlock_vacant(party, owner)
    return found


cdef int lock_wait(ax_guard *guard, ax_party *party, int64_t deadline, int64_t *probed, bint first) noexcept nogil:
    # One slice of waiting: AX_OK taken, AX_BUSY check signals and call again, AX_TIMEOUT. `probed` outlives the
    # slice: signals may cut every slice short, and the owner's death must still be noticed.
    cdef int64_t now, started = ax_now_ns()
    cdef uint32_t seen, attempts = party.spins if first else 0
    while attempts:
        # Each attempt takes the cache line from the owner: few attempts, far apart.
        for _ in range(LINGER):
            ax_linger()
        if lock_try(guard, party):
            return AX_OK
        attempts -= 1
    while True:
        seen = ax_load32(&guard.lock)
        if not seen & AX_LOCK_OWNER:
            # WAITERS stays set: others may still sleep. Acquire as in lock_try.
            if ax_cas32(&guard.lock, seen, seen | AX_LOCK_WAITERS | (party.slot + 1)):
                ax_crash("lock_waited")
                ax_put64(&party.holder, <uint64_t>pthread_self())
                party.depth = 1
                return AX_OK
            continue
        now = ax_now_ns()
        if not seen & AX_LOCK_WAITERS:
            # Also before a timeout: a wake-up that this thread received must reach another waiter.
            if not ax_cas32(&guard.lock, seen, seen | AX_LOCK_WAITERS):
                continue
            seen |= AX_LOCK_WAITERS
            ax_crash("lock_waiting")
        if now >= deadline:
            # However short the wait was, check for a dead owner before the timeout.
            if reap(party, (seen & AX_LOCK_OWNER) - 1):
                continue
            return AX_DAMAGED if is_lock_lost(guard, party, seen) else AX_TIMEOUT
        if now - started >= SLICE_NS:
            return AX_BUSY
        if now - probed[0] >= PROBE_NS:
            probed[0] = now
            if reap(party, (seen & AX_LOCK_OWNER) - 1):
                continue
            if is_lock_lost(guard, party, seen):
                return AX_DAMAGED
        if ax_futex_wait(&guard.lock, seen, min(PROBE_NS, deadline - now)) == -EINTR:
            return AX_BUSY


cdef int change_wait(ax_guard *guard, ax_party *party, uint64_t last, int64_t deadline) noexcept nogil:
    # One slice of waiting until more than `last` writes are complete.
    cdef int64_t now = ax_now_ns()
    # Load the count before setting the bit: clearing the bit changes the count, which ends the futex wait.
    cdef uint32_t event = ax_load32(&guard.event)
    cdef uint32_t seen
    # Set the bit before the check: pairs with the swap in lock_release, which either sees the bit or is seen.
    seen = ax_or32(&guard.lock, AX_LOCK_CHANGE)
    ax_crash("change_waiting")
    if changes(guard) != last:
        return AX_OK
    if ax_load32(&live_of(party).state) == AX_RETIRED_STATE:
        return AX_RETIRED
    if now >= deadline:
        return AX_TIMEOUT
    ax_futex_wait(&guard.event, event, min(SLICE_NS, deadline - now))
    if changes(guard) != last:
        return AX_OK
    if seen & AX_LOCK_OWNER and ax_load32(&guard.lock) & AX_LOCK_OWNER == seen & AX_LOCK_OWNER:
        # The same owner for a whole slice: it may have died between its write and its wake-up.
        reap(party, (seen & AX_LOCK_OWNER) - 1)
    return AX_BUSY


cdef void guard_cleanup(ax_party *party, uint32_t slot) noexcept nogil:
    # The only clean-up: free the lock if `slot` held it. May be interrupted at any line and repeated.
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
    # store whose commit was cut off: readers that copied meanwhile must retry.
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
    # Try with the GIL; wait without it, checking signals between slices.
    cdef int status, attempts = 1
    cdef bint first = True
    cdef int64_t probed = 0
    while attempts:
        if lock_try(guard, party):
            return AX_OK
        attempts -= 1
    if deadline <= 0:
        # Do not wait, but check for a dead owner.
        with nogil:
            reap(party, (ax_load32(&guard.lock) & AX_LOCK_OWNER) - 1)
        if lock_try(guard, party):
            return AX_OK
        return AX_DAMAGED if is_lock_lost(guard, party, ax_load32(&guard.lock)) else AX_TIMEOUT
    probed = ax_now_ns()
    while True:
        with nogil:
            status = lock_wait(guard, party, deadline, &probed, first)
        if status != AX_BUSY:
            return status
        first = False
        PyErr_CheckSignals()


cdef void release(ax_guard *guard, ax_party *party) noexcept:
    # Without a write no section is open, and the version stays.
    if party.depth == 1 and section_is_open(guard):
        section_close(guard)
        ax_crash("lock_section_closed")
    lock_release(guard, party)


@no_gc_clear   # `party` points into `participant`, which must outlive it
cdef class LockHandle:
    """The lock of a segment as a Python handle: connected or not, held or not.

    A subclass provides `_revive()` (make the handle usable or raise), `_fail(status)` (raise) and
    `_warn_recovered()` (warn that a lock was taken from a dead owner).
    """

    def _connect(self, Participant participant not None):
        """Use the lock of the participant's segment."""
        self.participant = participant
        self.guard = <ax_guard *>participant.party.control
        self.party = &participant.party

    def _ready(self):
        """Make the handle usable, or raise."""
        self.ready()

    def _shut(self):
        """Release the segment."""
        self.party = NULL
        self.guard = NULL
        self.participant = None

    @property
    def _participant(self):
        return self.participant

    cdef int revive(self) except -1:
        self._revive()
        if self.party == NULL:
            raise SystemError("_revive() left the handle unconnected")
        return 0

    cdef int wait(self, int64_t deadline) except -1:
        # The slow path of take(); may be entered holding the lock, with a recovery to report.
        cdef Participant keep = self.participant
        cdef int status = AX_OK
        if not lock_mine(&keep.party):
            status = self.wait_for_lock(deadline)
        if status != AX_OK:
            self._fail(status)
        if ax_peek32(&keep.party.recovered):
            try:
                self._warn_recovered()
            except:
                # Warnings may be errors: release the lock then.
                lock_release(<ax_guard *>keep.party.control, &keep.party)
                raise
        return 0

    cdef int wait_for_lock(self, int64_t deadline) except -100:
        # The GIL is released meanwhile: another thread may disconnect the handle; `keep` stays valid.
        cdef Participant keep = self.participant
        cdef ax_guard *guard = self.guard
        cdef int status = lock_take(guard, &keep.party, deadline)
        if self.participant is keep:
            return status
        if status == AX_OK:
            lock_release(guard, &keep.party)
        raise RuntimeError("another thread disconnected the handle while this one waited for its lock")

    def _acquire(self, timeout):
        """Take the lock; return False on timeout. The first write opens the section."""
        cdef int64_t deadline = deadline_of(timeout)
        self.ready()
        cdef Participant keep = self.participant
        cdef ax_guard *guard = self.guard
        cdef int status = AX_OK if lock_try(guard, &keep.party) else self.wait_for_lock(deadline)
        if status == AX_TIMEOUT:
            return False
        if status != AX_OK:
            self._fail(status)
        ax_crash("lock_held")
        if ax_peek32(&keep.party.recovered):
            try:
                self._warn_recovered()
            except:
                release(guard, &keep.party)
                raise
        return True

    def _mark_dirty(self):
        """Mark the data as partly written until the section closes; return whether this opened the section."""
        if self.guard == NULL:
            raise RuntimeError("the handle was disconnected inside its write section")
        cdef bint opened = not section_is_open(self.guard)
        ax_put32(&self.guard.dirty, 1)
        if opened:
            section_open(self.guard)
        else:
            ax_fence_release()
        ax_crash("section_dirty")
        return opened

    def _unmark_dirty(self):
        """Undo `_mark_dirty` in the section that it opened: nothing was written."""
        if self.guard != NULL:
            ax_put32(&self.guard.dirty, 0)
            section_leave(self.guard)

    def _heal(self):
        """Declare the data complete. The caller holds the lock."""
        if self.guard != NULL:
            ax_put32(&self.guard.health, 0)
            ax_crash("section_healed")

    def _held(self):
        """Whether this thread holds the lock."""
        return self.party != NULL and not inherited(self.party) and lock_mine(self.party)

    def _changed_unlocked(self):
        """Count a write made without the lock, and wake threads that wait for changes."""
        cdef uint32_t seen
        self.ready()
        ax_add64(&self.guard.unlocked, 1)
        # A read-modify-write, not a load: pairs with the one in change_wait, so that one sees the other.
        seen = ax_and32(&self.guard.lock, ~AX_LOCK_CHANGE)
        lock_wake(self.guard, seen & AX_LOCK_CHANGE)

    def _wait_change(self, uint64_t last, timeout):
        """Wait until more than `last` writes are complete; return a status."""
        cdef int status = AX_BUSY
        cdef int64_t deadline = deadline_of(timeout)
        cdef Participant keep
        self.ready()
        keep = self.participant
        cdef ax_guard *guard = self.guard
        while status == AX_BUSY:
            with nogil:
                status = change_wait(guard, &keep.party, last, deadline)
            if status == AX_BUSY:
                PyErr_CheckSignals()
        return status

    def _guard(self):
        """Return version, health, recoveries, torn writes, pid of the last writer that died in a write, owner slot."""
        if self.guard == NULL:
            return None
        return (
            changes(self.guard), ax_peek32(&self.guard.health), ax_peek64(&self.guard.recoveries),
            ax_peek64(&self.guard.torn), ax_peek32(&self.guard.torn_pid),
            <int>(ax_peek32(&self.guard.lock) & AX_LOCK_OWNER) - 1,
        )

    @property
    def _damage(self):
        """The damage of the lock's word, as text."""
        cdef ax_damage damage
        damaged(
            &damage, AX_WORD_OWNER, 0, <uint64_t>(ax_peek32(&self.guard.lock) & AX_LOCK_OWNER) - 1, self.participant.party.slots,
        )
        return damage_text(&damage)

    def _release(self):
        """Close the write section and release the lock."""
        if self.participant is None:
            raise RuntimeError("this thread does not hold the lock: the handle is not connected")
        leave(self.participant)


cdef int leave(Participant participant) except -1:
    # Close the write section and release the lock. A no-op in a forked child, which does not hold it.
    if inherited(&participant.party):
        return 0
    if not lock_mine(&participant.party):
        raise RuntimeError("this thread does not hold the lock")
    release(<ax_guard *>participant.party.control, &participant.party)
    return 0


# ---- with blocks: entry and exit are one call in C, so that no exception of a signal handler can come between taking
# the lock and recording it, or between leaving the block and releasing it

cdef class LockKernel:
    """The lock of a handle as an object: `acquire`, `release`, and ``with``."""

    cdef LockHandle handle

    def __cinit__(self, LockHandle handle not None):
        self.handle = handle

    def acquire(self, timeout=None):
        """Take the lock.

        Parameters
        ----------
        timeout : float or None
            Longest wait, s. ``None`` waits without limit, ``0`` does not wait.

        Returns
        -------
        bool
            Whether it was taken.

        Notes
        -----
        Waits with the GIL released; Ctrl-C ends the wait. From your first write until `release`, all readers
        wait: they see all of your writes or none. An exception of a signal handler may come between this call and
        your next line: a ``with`` block releases the lock then, ``acquire`` and ``try`` do not.
        """
        return self.handle._acquire(timeout)

    def release(self):
        """Release the lock.

        Raises
        ------
        RuntimeError
            This thread does not hold it.
        """
        self.handle._release()

    @property
    def is_held(self):
        """Whether this thread holds it."""
        return self.handle._held()

    def __enter__(self):
        self.handle.ready()
        self.handle.take(INT64_MAX)
        return self

    def __exit__(self, *exc):
        self.handle._release()


@no_gc_clear   # releases held locks when it is deallocated
cdef class SectionKernel:
    """An array's memory for the duration of a ``with`` block.

    Parameters
    ----------
    handle : LockHandle
        The array's handle; the block gets a view of its ``_view``.
    is_locked : bool
        Hold the lock and return a writable view; else return a read-only one.
    is_dirty : bool
        Whether data may be partly written from the start. If not, only the lock is held, and the version is
        unchanged, until `_mark_dirty`.

    Notes
    -----
    A section that is dropped inside its block, in any thread, releases the lock.
    """

    cdef LockHandle handle
    cdef bint is_locked
    cdef bint is_dirty
    cdef list held          # a view, its participant and the thread, for each time it was entered

    def __cinit__(self, LockHandle handle not None, *, bint is_locked, bint is_dirty=True):
        self.handle, self.is_locked, self.is_dirty = handle, is_locked, is_dirty
        self.held = []

    def __enter__(self):
        cdef Participant keep
        self.handle.ready()
        if self.is_locked:
            self.handle.take(INT64_MAX)
            ax_crash("lock_held")
        keep = self.handle.participant
        try:
            view = self.handle._view.view()
            if not self.is_locked:
                view.flags.writeable = False
                return view
            if self.is_dirty:
                self.handle._mark_dirty()
            self.held.append((view, keep, <uint64_t>pthread_self()))
        except:
            if self.is_locked:
                release(<ax_guard *>keep.party.control, &keep.party)
            raise
        return view

    def __exit__(self, *exc):
        if self.is_locked:
            view, keep, _ = self.held.pop()
            # Views that were kept become read-only.
            view.flags.writeable = False
            leave(keep)

    def __dealloc__(self):
        cdef Participant keep
        cdef uint64_t thread
        while self.held:
            _, keep, thread = self.held.pop()
            # Unless the lock was released explicitly meanwhile.
            if not inherited(&keep.party) and ax_peek64(&keep.party.holder) == thread:
                release(<ax_guard *>keep.party.control, &keep.party)


# Statuses, for other packages.
OK, BUSY, TIMEOUT, TORN, RETIRED, FULL = AX_OK, AX_BUSY, AX_TIMEOUT, AX_TORN, AX_RETIRED, AX_FULL
ENDED, CROWDED, KEPT, OVERFLOW, DAMAGED = AX_ENDED, AX_CROWDED, AX_KEPT, AX_OVERFLOW, AX_DAMAGED


# ---- between the threads of this process

cdef class ThreadLock:
    """A lock between threads, for `with` blocks, with a timeout.

    With `threading.Lock`, ``if lock.acquire(timeout=1): try: ...`` keeps the lock forever if an interrupt
    comes before the ``try``. This lock is taken and released in C.

    Examples
    --------
    >>> lock = ThreadLock()
    >>> with lock.within(1.0) as has_it, lock.within(0.01) as has_it_twice:
    ...     print(has_it, has_it_twice)
    True False
    """

    cdef PyThread_type_lock lock

    def __cinit__(self):
        self.lock = PyThread_allocate_lock()
        if self.lock == NULL:
            raise MemoryError("the system cannot allocate a lock")

    def __dealloc__(self):
        if self.lock != NULL:
            PyThread_free_lock(self.lock)

    def within(self, double seconds):
        """Return a context manager that waits so long for the lock; it gives whether the lock was taken."""
        return ThreadHold(self, seconds)


@no_gc   # a lock has no references
cdef class ThreadHold:
    """One attempt to hold a `ThreadLock`; releases it when dropped."""

    cdef ThreadLock lock
    cdef long long wait_us
    cdef bint is_held

    def __cinit__(self, ThreadLock lock not None, double seconds):
        self.lock = lock
        self.wait_us = <long long>(min(max(seconds, 0.0), 1e9) * 1e6)

    def __enter__(self):
        cdef PyThread_type_lock lock = self.lock.lock
        cdef long long wait_us = self.wait_us
        cdef bint has_it = PyThread_acquire_lock_timed(lock, 0, 0) == PY_LOCK_ACQUIRED
        if not has_it and wait_us:
            # Not interruptible: exceptions of signal handlers come after the block was entered, and leave it.
            with nogil:
                has_it = PyThread_acquire_lock_timed(lock, wait_us, 0) == PY_LOCK_ACQUIRED
        self.is_held |= has_it
        return has_it

    def __exit__(self, *exc):
        self.give_back()

    def __dealloc__(self):
        self.give_back()

    cdef void give_back(self) noexcept:
        if self.is_held:
            self.is_held = False
            PyThread_release_lock(self.lock.lock)
