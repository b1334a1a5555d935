"""The frame buffer's ring: chunks handed out by one CAS on a head that never comes back.

Who is overtaken finds out by checksum (chunks.pyx), never by waiting. A process that is killed leaves
nothing behind, except the word that says who serves.
"""
from cpython.long cimport PyLong_CheckExact
from libc.stdint cimport uint32_t, uint64_t

from ataraxis._kernels.atomics cimport (
    ax_add64, ax_cas32, ax_cas64, ax_fence_acquire, ax_fence_release, ax_load32, ax_load64, ax_peek64, ax_put64,
    ax_store32,
)
from ataraxis._kernels.layout cimport AX_KIND_FRAMEBUFFER, AX_LAP_MASK, AX_READY, AX_SECTORS, ax_framebuffer
from ataraxis._kernels.memory cimport Participant, alive, ax_party, live_of, on_death
from ataraxis._kernels.platform cimport ax_crash, ax_now_ns

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object value, int *overflow)

cdef enum:
    LOOKS = 8              # tries to see the stamps of a ring that is being allocated from

CONTROL_BYTES = sizeof(ax_framebuffer)
SERVER_AT = <size_t>&(<ax_framebuffer *>NULL).server


# ---- the algorithm

cdef uint64_t sectors_of(uint64_t capacity) noexcept nogil:
    # None is empty, also in the smallest ring.
    return min(<uint64_t>AX_SECTORS, capacity)


cdef uint64_t sector_from(uint64_t offset, uint64_t capacity) noexcept nogil:
    # The first sector that starts at `offset` or later; their number if none does.
    return (offset - 1) * sectors_of(capacity) // capacity + 1 if offset else 0


cdef void stamp(ax_framebuffer *ring, uint64_t capacity, uint64_t lap, uint64_t start, uint64_t end) noexcept nogil:
    # Say when head passed the sectors that start in [start, end) of a lap.
    cdef uint64_t time = <uint64_t>ax_now_ns() & ~<uint64_t>AX_LAP_MASK | lap & AX_LAP_MASK
    cdef uint64_t k
    for k in range(sector_from(start, capacity), min(sector_from(end, capacity), sectors_of(capacity))):
        ax_put64(&ring.stamps[k], time)


cdef uint64_t ring_allocate(
    ax_framebuffer *ring, uint64_t capacity, uint64_t size, uint64_t align, uint64_t *position
) noexcept nogil:
    # 1 <= size <= capacity, align a power of two. The offset is computed without the position, so that
    # a head that somebody spoilt cannot lead out of the ring.
    cdef uint64_t head, lap = 0, offset = 0, start = 0
    while True:
        # Relaxed: nothing is read through head; the CAS orders the allocators.
        head = ax_peek64(&ring.head)
        lap, offset = head // capacity, head % capacity
        start = (offset + align - 1) & ~(align - 1)
        if start > capacity - size:
            # A chunk never straddles the end: the tail is skipped.
            start = 0
        position[0] = (lap if start >= offset else lap + 1) * capacity + start
        if ax_cas64(&ring.head, head, position[0] + size):
            break
    # Pairs with the fence in turned(): who sees bytes of whoever was given this chunk sees the head.
    ax_fence_release()
    # Killed from here on: head has moved, the stamps are of an older lap, which oldest_stamp() sees.
    ax_crash("allocate_moved")
    if start < offset:
        stamp(ring, capacity, lap, offset, capacity)
        lap, offset = lap + 1, 0
        ax_crash("allocate_wrapped")
    stamp(ring, capacity, lap, offset, start + size)
    ax_crash("allocate_stamped")
    ax_add64(&ring.chunks, 1)
    return start


cdef bint ring_holds(ax_framebuffer *ring, uint64_t capacity, uint64_t position, uint64_t size) noexcept nogil:
    # Whether a chunk has been handed out and not been overtaken. Pairs with the CAS in ring_allocate.
    cdef uint64_t head = ax_load64(&ring.head)
    return size <= head and position <= head - size and head - position <= capacity


cdef uint64_t oldest_stamp(ax_framebuffer *ring, uint64_t sectors, uint64_t lap, uint64_t sector) noexcept nogil:
    # The first stamp of its own lap from a sector on, all round; 0 if there is none.
    cdef uint64_t left = sectors, seen
    while left:
        if sector == sectors:
            sector, lap = 0, lap + 1
        seen = ax_peek64(&ring.stamps[sector])
        # Of another lap: its allocator has not come to it yet, or was killed there. The next is younger.
        if seen and (seen ^ lap) & AX_LAP_MASK == 0:
            # Rounded up: nothing is called older than it is.
            return seen | AX_LAP_MASK
        sector += 1
        left -= 1
    return 0


cdef uint64_t ring_oldest(ax_framebuffer *ring, uint64_t capacity) noexcept nogil:
    # When the oldest bytes that are still whole were handed out, ns; 0 if none are. Exact to a sector.
    cdef uint64_t head, start, seen = 0
    cdef int looks = LOOKS
    while looks:
        head = ax_load64(&ring.head)
        start = head - capacity if head > capacity else 0
        seen = oldest_stamp(ring, sectors_of(capacity), start // capacity, sector_from(start % capacity, capacity))
        if ax_load64(&ring.head) == head:
            break
        looks -= 1
    return seen


cdef void ring_cleanup(ax_party *party, uint32_t slot) noexcept nogil:
    # The control block of a damaged file may be too small.
    cdef ax_framebuffer *ring = <ax_framebuffer *>party.control
    if party.control + sizeof(ax_framebuffer) <= party.base + party.bytes:
        ax_cas32(&ring.server, slot + 1, 0)
    ax_crash("cleanup_served")


on_death(AX_KIND_FRAMEBUFFER, ring_cleanup)


# ---- the bridge

cdef ax_framebuffer *ring_of(Participant participant) except NULL:
    cdef ax_party *party = &participant.party
    if party.control + sizeof(ax_framebuffer) > party.base + party.bytes:
        raise ValueError("no control block")
    return <ax_framebuffer *>party.control


def turn_of(Participant participant not None, uint64_t capacity, uint64_t at, uint64_t count):
    """How far the head may come, from now on, without handing out any of the bytes [at, at + count)."""
    # Acquire: pairs with the CAS in ring_allocate.
    cdef uint64_t head = ax_load64(&ring_of(participant).head)
    cdef uint64_t gone = head % capacity
    if gone < at:
        return head + at - gone
    return head if gone < at + count else head + capacity - gone + at


def turned(Participant participant not None, uint64_t turn):
    """Whether the head has come further, before what was read of the ring until now was written."""
    # Pairs with the release fence in ring_allocate; keeps the reads above the look at the head.
    ax_fence_acquire()
    return ax_load64(&ring_of(participant).head) > turn


cdef class RingKernel:
    """The ring behind a frame buffer's handle; its subclass gives the manners.

    A subclass provides `_revive(writes)` (make the handle usable or raise) and `_number(value, is_offset)`
    (an int from what is not exactly one, or raise).
    """

    def _open(self, memory, Participant participant not None):
        """Work on the payload `memory` (uint8, read and written in place) of a segment."""
        cdef ax_party *party = &participant.party
        cdef unsigned char[::1] payload = memory
        if party.control + sizeof(ax_framebuffer) > party.base + party.bytes or payload.shape[0] < 1:
            raise ValueError("no control block, or no payload")
        self.memory = payload
        self.capacity = payload.shape[0]
        self.participant = participant
        self.ring = <ax_framebuffer *>party.control
        self.live = live_of(party)
        self.data = <char *>&payload[0]

    def _shut(self):
        """Let go of the segment; views of it stay valid."""
        self.data = NULL
        self.ring = NULL
        self.live = NULL
        self.participant = None
        self.memory = None

    cdef int ready(self, bint writes) except -1:
        # Acquire: pairs with nothing of ours; who sees the name taken away looks what it means now.
        if self.data == NULL or ax_load32(&self.live.state) != AX_READY:
            self._revive(writes)
            if self.data == NULL:
                raise SystemError("_revive() left the handle unconnected")
        return 0

    cdef Py_ssize_t number(self, object value, bint is_offset) except -2:
        # -1: negative, or of more than 63 bits.
        cdef int overflow = 0
        cdef long long result
        if not PyLong_CheckExact(value):
            value = self._number(value, is_offset)
        result = PyLong_AsLongLongAndOverflow(value, &overflow)
        return -1 if overflow or result < 0 else <Py_ssize_t>result

    cdef bint inside(self, Py_ssize_t at, Py_ssize_t count) noexcept:
        return 0 <= at and 0 < count <= self.capacity and at <= self.capacity - count

    def _serve(self):
        """Say that this participant is the server."""
        # Release: whoever sees it sees a segment that is whole.
        ax_store32(&self.ring.server, self.participant.party.slot + 1)
        ax_crash("serve_said")

    def _served(self):
        """Whether the participant that serves lives."""
        cdef uint32_t server
        self.ready(False)
        server = ax_load32(&self.ring.server)
        return server != 0 and alive(&self.participant.party, server - 1) != 0

    def _allocate(self, size, align):
        """Offset and position of a new chunk; None if it can never fit."""
        cdef Py_ssize_t count = self.number(size, False)
        cdef Py_ssize_t step = self.number(align, False)
        cdef uint64_t position = 0
        cdef uint64_t offset
        self.ready(True)
        if not self.inside(0, count) or not 0 < step <= 4096 or step & (step - 1):
            return None
        offset = ring_allocate(self.ring, self.capacity, count, step, &position)
        return offset, position

    def _holds(self, uint64_t position, uint64_t size):
        """Whether the chunk at a position is whole."""
        self.ready(False)
        return ring_holds(self.ring, self.capacity, position, size)

    def _look(self):
        """Capacity, bytes and chunks handed out, and when the oldest whole bytes were, ns (0: none are)."""
        self.ready(False)
        return (
            self.capacity, ax_load64(&self.ring.head), ax_peek64(&self.ring.chunks),
            ring_oldest(self.ring, self.capacity), ax_now_ns(),
        )
