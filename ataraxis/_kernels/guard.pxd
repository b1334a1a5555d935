# The lock of a segment as a handle of Python's; base of the kernels that guard data with it.
cimport cython
from libc.stdint cimport int64_t

from ataraxis._kernels.atomics cimport ax_peek32
from ataraxis._kernels.layout cimport AX_READY, ax_guard
from ataraxis._kernels.lock cimport lock_try
from ataraxis._kernels.participants cimport Participant, ax_party, inherited, live_of

cdef class GuardKernel:
    cdef Participant participant
    cdef ax_party *party                # NULL while not connected
    cdef ax_guard *guard
    cdef object __weakref__

    cdef int revive(self) except -1
    cdef int wait(self, int64_t deadline) except -1
    cdef int patience(self, int64_t deadline) except -100

    @cython.final
    cdef inline int ready(self) except -1:
        # Connected, not a forked copy, not unlinked; else the subclass decides.
        if self.party == NULL or inherited(self.party) or ax_peek32(&live_of(self.party).state) != AX_READY:
            return self.revive()
        return 0

    @cython.final
    cdef inline int take(self, int64_t deadline) except -1:
        # Hold the lock, or raise; says so when it came from a dead owner.
        if not lock_try(self.guard, self.party) or ax_peek32(&self.party.recovered):
            return self.wait(deadline)
        return 0
