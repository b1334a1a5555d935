"""A handle on a work queue: taking part in it, waiting, leaving; and what its words say.

Putting and getting are put.pyx and get.pyx; the algorithms queue.pyx and vigil.pyx.
"""
from cpython.exc cimport PyErr_CheckSignals
from cython cimport no_gc_clear
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ataraxis._kernels.atomics cimport ax_add32, ax_load32, ax_load64, ax_peek32, ax_peek64, ax_put32, ax_store32
from ataraxis._kernels.event cimport event_signal, event_wake
from ataraxis._kernels.layout cimport (
    AX_BUSY, AX_DEAD, AX_EMPTY, AX_FULL, AX_OK, AX_OVERFLOW, AX_QUEUE_FRAMES, AX_SLOT_FREE, AX_SLOT_GROWING,
    AX_SLOT_LEASED, AX_SLOT_READY, AX_SLOT_RETRY, AX_TIMEOUT, ax_message, ax_tally,
)
from ataraxis._kernels.memory cimport Participant, inherited
from ataraxis._kernels.queue cimport ones, queue_open
from ataraxis._kernels.timing cimport deadline_of
from ataraxis._kernels.vigil cimport (
    AX_WAIT_DATA, AX_WAIT_IDLE, queue_has_data, queue_has_room, queue_look, queue_wait,
)

# ---- the bridge

@no_gc_clear   # `work` points into `participant` and `memory`: neither goes before it
cdef class Desk:
    """A participant of a queue.

    A subclass provides `_revive()` (make the handle usable or raise) and `_gone()` (the last call has left).
    """

    def _open(self, memory, Participant participant not None, crc_of, bint checks):
        """Take part; `memory` is the payload (uint8). False: the geometry does not fit."""
        self.memory = memory
        self.participant = participant
        self.crc_of = crc_of
        self.checks = checks
        self.is_leaving = False
        ax_put32(&self.users, 0)
        if queue_open(&self.work, &participant.party, <char *>&self.memory[0], self.memory.shape[0]) != AX_OK:
            return False
        self.is_open = True
        return True

    def _shut(self):
        """Leave the queue, now or when the last call that is inside comes out; what is leased goes back to all."""
        if not self.is_open:
            return
        self.is_open = False
        if inherited(self.work.party):
            self.participant = None
            self.memory = None
            self._gone()
            return
        self.is_leaving = True
        ax_add32(&self.users, 1)
        ax_store32(&self.work.poke, 1)
        event_wake(&self.work.queue.data)
        event_wake(&self.work.queue.space)
        self.leave()

    cdef inline int enter(self) except -1:
        # Any number of threads: what they share is atomic.
        if not self.is_open or inherited(self.work.party):
            self._revive()
        ax_add32(&self.users, 1)
        return 0

    cdef inline int leave(self) except -1:
        if ax_add32(&self.users, <uint32_t>-1) == 1 and self.is_leaving:
            self.is_leaving = False
            self.participant = None
            self.memory = None
            self._gone()
        return 0

    cdef int wait(self, int what, int64_t deadline) except -100:
        # Until it may have happened: AX_OK, AX_TIMEOUT. The caller is inside.
        cdef int status
        cdef uint32_t naps = 0
        while True:
            with nogil:
                status = queue_wait(&self.work, what, deadline, naps)
            if status != AX_BUSY:
                return status
            naps += 1
            PyErr_CheckSignals()
            if not self.is_open:
                self._revive()

    def _await_idle(self, timeout):
        """Wait until every frame was acknowledged: a status."""
        cdef int64_t deadline = deadline_of(timeout)
        self.enter()
        try:
            return self.wait(AX_WAIT_IDLE, deadline)
        finally:
            self.leave()

    def _await_data(self, timeout):
        """Wait until there may be a frame: a status."""
        cdef int64_t deadline = deadline_of(timeout)
        self.enter()
        try:
            if queue_has_data(&self.work):
                return AX_OK
            queue_look(&self.work)
            return self.wait(AX_WAIT_DATA, deadline)
        finally:
            self.leave()

    def _nudge(self):
        """Have those who wait for a frame look again."""
        self.enter()
        try:
            ax_store32(&self.work.queue.hint, 1)
            event_signal(&self.work.queue.data, self.work.words)
        finally:
            self.leave()

    @property
    def _has_data(self):
        """Whether a get would probably find a frame."""
        self.enter()
        try:
            if not queue_has_data(&self.work):
                queue_look(&self.work)
            return queue_has_data(&self.work)
        finally:
            self.leave()

    @property
    def _has_room(self):
        """Whether a put would probably find room."""
        self.enter()
        try:
            if not queue_has_room(&self.work):
                queue_look(&self.work)
            return queue_has_room(&self.work)
        finally:
            self.leave()

    def _counts(self):
        """Frames that wait, frames that are leased, slots that are not free."""
        cdef uint64_t i, word, waiting = 0, leased = 0, used = 0
        cdef int frames
        self.enter()
        try:
            for i in range(self.work.slots):
                word = ax_load64(&self.work.lines[i].word)
                if word & 7 == AX_SLOT_FREE:
                    continue
                used += 1
                frames = ones(ax_peek64(&self.work.lines[i].left))
                if word & 7 == AX_SLOT_READY or word & 7 == AX_SLOT_RETRY:
                    waiting += frames
                elif word & 7 == AX_SLOT_GROWING:
                    # Those before the one that is being put.
                    waiting += ax_peek32(&self.work.lines[i].frames)
                elif word & 7 == AX_SLOT_LEASED:
                    leased += frames
        finally:
            self.leave()
        return waiting, leased, used

    def _had_before(self):
        """Numbers of frames that a getter has, or had and did not acknowledge."""
        cdef ax_message *line
        cdef uint64_t i, word, left
        cdef int k
        numbers = []
        self.enter()
        try:
            for i in range(self.work.slots):
                line = &self.work.lines[i]
                word = ax_load64(&line.word)
                if word & 7 != AX_SLOT_LEASED and word & 7 != AX_SLOT_RETRY:
                    continue
                left = ax_peek64(&line.left)
                for k in range(AX_QUEUE_FRAMES):
                    if left >> k & 1:
                        numbers.append(ax_peek64(&line.id) * AX_QUEUE_FRAMES + k)
        finally:
            self.leave()
        return numbers

    def _tallies(self):
        """Sums over all participants there ever were: put, put_bytes, acknowledged, redelivered, refused, stalled_ns,
        lost, corrupt; the last put and get, ns; since when each that waits for room does."""
        cdef ax_tally *tally
        cdef uint32_t k
        cdef uint64_t last_put = 0, last_get = 0
        cdef uint64_t sums[8]
        self.enter()
        try:
            for k in range(8):
                sums[k] = 0
            stalled = []
            tally = self.work.tally - self.work.me
            for k in range(self.work.party.slots):
                sums[0] += ax_peek64(&tally[k].put)
                sums[1] += ax_peek64(&tally[k].put_bytes)
                sums[2] += ax_peek64(&tally[k].acknowledged)
                sums[3] += ax_peek64(&tally[k].redelivered)
                sums[4] += ax_peek64(&tally[k].refused)
                sums[5] += ax_peek64(&tally[k].stalled_ns)
                sums[6] += ax_peek64(&tally[k].lost)
                sums[7] += ax_peek64(&tally[k].corrupt)
                last_put = max(last_put, ax_peek64(&tally[k].last_put_ns))
                last_get = max(last_get, ax_peek64(&tally[k].last_get_ns))
                if ax_peek64(&tally[k].stalled_since_ns):
                    stalled.append(ax_peek64(&tally[k].stalled_since_ns))
        finally:
            self.leave()
        return *[sums[k] for k in range(8)], last_put, last_get, stalled

    @property
    def _geometry(self):
        """Slots, bytes of a slot, how long a lease lasts in ns."""
        return self.work.slots, self.work.stride, self.work.lease_ns

    @property
    def _users(self):
        """Calls that are inside."""
        return ax_load32(&self.users)


# Statuses, for the rooms.
OK, BUSY, TIMEOUT, FULL, EMPTY, OVERFLOW, LOST = AX_OK, AX_BUSY, AX_TIMEOUT, AX_FULL, AX_EMPTY, AX_OVERFLOW, AX_DEAD
