"""One thread at a time inside an end of a stream; who closes it waits for that one, or leaves it to it."""
from cython cimport no_gc_clear

from ataraxis._kernels.lock cimport pthread_self
from ataraxis._kernels.memory cimport inherited
from ataraxis._kernels.platform cimport ax_end_turn, ax_take_turn

# ---- the bridge

@no_gc_clear   # `ring` points into `participant` and `memory`: neither goes before it
cdef class Turn:
    """An end's place in the ring, used by one thread at a time.

    A subclass opens it, and provides `_revive()` (make the handle usable or raise), `stir` (make a thread that
    waits inside look up), `finish` (what is done in the last turn) and `detach` (leave, if that is due).
    """

    def _shut(self):
        """Leave the stream, when nobody is inside any more."""
        if not self.is_open:
            return
        self.is_open = False
        self.is_leaving = True
        if inherited(self.ring.party):
            self.participant = None
            self.memory = None
            return
        while not ax_take_turn(&self.busy):
            if self.inside == pthread_self():
                # Closed from a signal handler, or the like: the call below us leaves.
                return
            self.stir()
            self._yield()
        self.finish()
        self.leave()

    cdef int enter(self) except -1:
        # One thread at a time; another waits its turn.
        if not self.is_open or inherited(self.ring.party):
            self._revive()
        while not ax_take_turn(&self.busy):
            self._yield()
            if not self.is_open:
                self._revive()
        self.inside = pthread_self()
        return 0

    cdef void leave(self) noexcept:
        self.detach()
        ax_end_turn(&self.busy)

    cdef void stir(self) noexcept:
        pass

    cdef void finish(self) noexcept:
        pass

    cdef void detach(self) noexcept:
        pass

    def _yield(self):
        """Let the thread that is inside get on."""
        import time
        time.sleep(0.0001)
