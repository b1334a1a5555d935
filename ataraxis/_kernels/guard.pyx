"""The lock of a segment as a handle of Python's: connected or not, held or not.

What the lock is stands in lock.pxd. A subclass gives the manners: `_revive()` makes the handle usable
or raises, `_fail(status)` raises, `_warn_recovered()` says that a lock was taken from a dead owner.
"""
from cpython.exc cimport PyErr_CheckSignals
from cython cimport no_gc_clear
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ataraxis._kernels.atomics cimport ax_add64, ax_and32, ax_fence_release, ax_peek32, ax_peek64, ax_put32
from ataraxis._kernels.layout cimport (
    AX_BUSY, AX_CROWDED, AX_ENDED, AX_FULL, AX_KEPT, AX_LOCK_CHANGE, AX_LOCK_OWNER, AX_OK, AX_OVERFLOW, AX_RETIRED,
    AX_TIMEOUT, AX_TORN, ax_guard,
)
from ataraxis._kernels.lock cimport (
    change_wait, changes, lock_mine, lock_release, lock_take, lock_try, lock_wake, section_close, section_is_open,
    section_leave, section_open,
)
from ataraxis._kernels.participants cimport Participant, inherited
from ataraxis._kernels.platform cimport ax_crash
from ataraxis._kernels.timing cimport deadline_of

OK, BUSY, TIMEOUT, TORN, RETIRED, FULL = AX_OK, AX_BUSY, AX_TIMEOUT, AX_TORN, AX_RETIRED, AX_FULL
ENDED, CROWDED, KEPT, OVERFLOW = AX_ENDED, AX_CROWDED, AX_KEPT, AX_OVERFLOW


cdef void release(ax_guard *guard, ax_party *party) noexcept:
    # No write, no section: who only looked has changed nothing.
    if party.depth == 1 and section_is_open(guard):
        section_close(guard)
        ax_crash("lock_section_closed")
    lock_release(guard, party)


@no_gc_clear   # `party` points into `participant`: neither goes before the other
cdef class GuardKernel:
    """The lock behind a handle."""

    def _connect(self, Participant participant not None):
        """Use the lock of the segment that `participant` takes part in."""
        self.participant = participant
        self.guard = <ax_guard *>participant.party.control
        self.party = &participant.party

    def _ready(self):
        """Make sure that the handle is usable, or raise."""
        self.ready()

    def _shut(self):
        """Let go of the segment."""
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
        # The slow half of take(); may be entered holding the lock, with a recovery to report.
        cdef Participant keep = self.participant
        cdef int status = AX_OK
        if not lock_mine(&keep.party):
            status = self.patience(deadline)
        if status != AX_OK:
            self._fail(status)
        if ax_peek32(&keep.party.recovered):
            try:
                self._warn_recovered()
            except:
                # Warnings may be errors: nobody else may pay for it.
                lock_release(<ax_guard *>keep.party.control, &keep.party)
                raise
        return 0

    cdef int patience(self, int64_t deadline) except -100:
        # The GIL is given up meanwhile: another thread may disconnect the handle, which leaves `keep` alone.
        cdef Participant keep = self.participant
        cdef ax_guard *guard = self.guard
        cdef int status = lock_take(guard, &keep.party, deadline)
        if self.participant is keep:
            return status
        if status == AX_OK:
            lock_release(guard, &keep.party)
        raise RuntimeError("another thread disconnected the handle while this one waited for its lock")

    def _acquire(self, timeout):
        """Take the lock; False if it was not to be had in time. The first write opens the section."""
        cdef int64_t deadline = deadline_of(timeout)
        self.ready()
        cdef Participant keep = self.participant
        cdef ax_guard *guard = self.guard
        if not lock_try(guard, &keep.party) and self.patience(deadline) == AX_TIMEOUT:
            return False
        ax_crash("lock_held")
        if ax_peek32(&keep.party.recovered):
            try:
                self._warn_recovered()
            except:
                release(guard, &keep.party)
                raise
        return True

    def _mark_dirty(self):
        """Say that data may be half written until the section closes; whether that opened the section."""
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
        """Say that nothing was written after all, in the section that `_mark_dirty` opened."""
        if self.guard != NULL:
            ax_put32(&self.guard.dirty, 0)
            section_leave(self.guard)

    def _heal(self):
        """Declare the data whole; the caller holds the lock."""
        if self.guard != NULL:
            ax_put32(&self.guard.health, 0)
            ax_crash("section_healed")

    def _held(self):
        """Whether this thread holds the lock."""
        return self.party != NULL and not inherited(self.party) and lock_mine(self.party)

    def _changed_unlocked(self):
        """Count a write made without the lock, and wake who waits for changes."""
        cdef uint32_t seen
        self.ready()
        ax_add64(&self.guard.unlocked, 1)
        # A read-modify-write, not a look: pairs with the one in change_wait, so that one sees the other.
        seen = ax_and32(&self.guard.lock, ~AX_LOCK_CHANGE)
        lock_wake(self.guard, seen & AX_LOCK_CHANGE)

    def _wait_change(self, uint64_t last, timeout):
        """Wait until more than `last` writes are complete; a status."""
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
        """Version, health, recoveries, torn writes, pid of the last writer that died half way, owner slot."""
        if self.guard == NULL:
            return None
        return (
            changes(self.guard), ax_peek32(&self.guard.health), ax_peek64(&self.guard.recoveries),
            ax_peek64(&self.guard.torn), ax_peek32(&self.guard.torn_pid),
            <int>(ax_peek32(&self.guard.lock) & AX_LOCK_OWNER) - 1,
        )

    def _release(self):
        """Close the write section and give the lock back."""
        if self.participant is None:
            raise RuntimeError("this thread does not hold the lock: the handle is not connected")
        leave(self.participant)


def leave(Participant participant not None):
    """Close the write section that this thread opened; nothing in a forked child, whose lock it is not."""
    if inherited(&participant.party):
        return
    if not lock_mine(&participant.party):
        raise RuntimeError("this thread does not hold the lock")
    release(<ax_guard *>participant.party.control, &participant.party)
