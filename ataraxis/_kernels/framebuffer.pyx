"""The frame buffer: a ring of chunks handed out by one CAS on a head that never comes back; copies in and out, checked.

Who is overtaken finds out by checksum, never by waiting. A process that is killed leaves nothing behind, except the word
that says who serves. A chunk is copied first and then the copy is checked, never the other way round: the bytes may
change in between. Where the machine has the vectors for it, one pass does both (xxh3_copy.h: what is hashed is what was
stored); else the hash is given from above. Short copies keep the GIL, long ones do not.
"""
from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.bytearray cimport PyByteArray_CheckExact
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.long cimport PyLong_CheckExact
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcmp, strchr

from ataraxis._kernels.atomics cimport (
    AX_GIL_BYTES, ax_add64, ax_cas32, ax_cas64, ax_copy, ax_fence_acquire, ax_fence_release, ax_load32, ax_load64,
    ax_peek64, ax_put64, ax_store32,
)
from ataraxis._kernels.layout cimport AX_KIND_FRAMEBUFFER, AX_LAP_MASK, AX_READY, AX_SECTORS, ax_framebuffer, ax_live
from ataraxis._kernels.memory cimport Participant, alive, ax_party, live_of, on_death
from ataraxis._kernels.platform cimport ax_crash, ax_now_ns
from ataraxis._kernels.xxh3_copy cimport AX_MOVE_SHORT, ax_mover, ax_mover_of

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object value, int *overflow)

cdef enum:
    LOOKS = 8              # tries to see the stamps of a ring that is being allocated from
    CHECKSUM_BYTES = 8

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


cdef uint64_t move_by(ax_mover mover, char *chunk, char *bytes, Py_ssize_t count, bint stores) noexcept nogil:
    cdef char *to = chunk if stores else bytes
    cdef const char *from_ = bytes if stores else chunk
    cdef Py_ssize_t half = count // 2
    if count > AX_MOVE_SHORT and mover != NULL:
        return mover(to, from_, count, bytes)
    ax_copy(to, from_, half)
    ax_crash("chunk_half_copied")
    ax_copy(to + half, from_ + half, count - half)
    ax_crash("chunk_copied")
    return 0


cdef uint64_t big_endian(uint64_t hash) noexcept nogil:
    # As XXH3's canonical form has it, on machines of either order.
    cdef unsigned char *to = <unsigned char *>&hash
    cdef uint64_t rest = hash
    cdef int k
    for k in range(7, -1, -1):
        to[k] = rest & 0xFF
        rest >>= 8
    return hash


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

    cdef unsigned char[::1] memory      # the payload, acquired once
    cdef char *data
    cdef Py_ssize_t capacity
    cdef ax_framebuffer *ring
    cdef ax_live *live
    cdef Participant participant

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


cdef int borrow(object data, Py_buffer *buffer, int flags) except -1:
    # C-contiguous memory of bytes. Raw bytes of Python objects are pointers: whoever reads them into an
    # array of objects dies of it. An 'O' may also be in a field's name: whoever is above looks closer.
    if PyByteArray_CheckExact(data):
        PyObject_GetBuffer(data, buffer, PyBUF_SIMPLE | flags)
        return 0
    PyObject_GetBuffer(data, buffer, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | flags)
    if buffer.format != NULL and strchr(buffer.format, c'O') != NULL:
        PyBuffer_Release(buffer)
        raise TypeError("perhaps Python objects")
    return 0


def widths():
    """Bytes of the vectors that copies can be hashed by while they are made, best first."""
    return [width for width in (64, 32) if ax_mover_of(width) != NULL]


cdef class ChunkKernel(RingKernel):
    """Copies between private memory and chunks, and their checksums.

    A subclass also provides `_plain(data)` and `_checksum(value)` (contiguous bytes and exactly bytes, or
    raise), `_outside(offset, size)` and `_expired(offset, size, checksum)` (raise).
    """

    cdef object digest                  # bytes-like -> checksum, bytes
    cdef ax_mover mover                 # copies and hashes at once, or NULL
    cdef ax_mover far_mover             # the same, of long copies

    def _hash_by(self, digest, int width=0):
        """Take the hash of bytes-like objects; it lets other threads run while it works on large ones.

        With a width (one of `widths()`), copies of more than 240 bytes are hashed while they are made, by
        XXH3; then `digest` must be that, too.
        """
        self.digest = digest
        self.mover = ax_mover_of(width)
        # Beyond the nearest cache the narrower vectors win: fewer of their stores straddle two lines.
        self.far_mover = ax_mover_of(32) if width == 64 else self.mover

    cdef bint moves(self, Py_ssize_t count) noexcept:
        # Whether copies of so many bytes come with their hash.
        return count > AX_MOVE_SHORT and self.mover != NULL

    cdef uint64_t move(self, Py_ssize_t at, char *bytes, Py_ssize_t count, bint stores) noexcept:
        # Into the chunk or out of it; the hash, if it comes with it. The memoryview of our own keeps the
        # mapping while another thread may stop the handle.
        cdef unsigned char[::1] memory
        cdef ax_mover mover
        cdef uint64_t hash
        if count <= AX_GIL_BYTES:
            return move_by(self.mover, self.data + at, bytes, count, stores)
        memory = self.memory
        mover = self.far_mover
        with nogil:
            hash = move_by(mover, <char *>&memory[at], bytes, count, stores)
        return hash

    cdef object store(self, Py_ssize_t at, const char *from_, Py_ssize_t count, object data):
        # Of the caller's bytes, never of the ring's: those may be somebody else's by now.
        cdef uint64_t hash = self.move(at, <char *>from_, count, True)
        if not self.moves(count):
            return self.digest(data)
        hash = big_endian(hash)
        return PyBytes_FromStringAndSize(<char *>&hash, CHECKSUM_BYTES)

    cdef bint fetch(self, Py_ssize_t at, char *to, Py_ssize_t count, object copy, object checksum) except -1:
        # Whether the copy is what the checksum, exactly bytes, is of.
        cdef uint64_t hash = self.move(at, to, count, False)
        if not self.moves(count):
            return self.digest(copy) == checksum
        hash = big_endian(hash)
        return PyBytes_GET_SIZE(checksum) == CHECKSUM_BYTES and (
            memcmp(PyBytes_AS_STRING(checksum), &hash, CHECKSUM_BYTES) == 0
        )

    def write(self, offset, data):
        """Copy bytes into a chunk.

        Parameters
        ----------
        offset : int
            What `allocate` gave; decimal text is taken too.
        data : bytes-like
            C-contiguous, at most as many bytes as were allocated. Copied.

        Returns
        -------
        bytes
            Checksum of `data`: 8 bytes, XXH3.

        Raises
        ------
        TypeError, ValueError
            `data` is text, or not contiguous, or does not lie inside the ring.
        SegmentNotFound
            The server has stopped.

        Notes
        -----
        Never waits. Copies and hashes more than 64 KiB with the GIL released. If the
        ring has come round since `allocate`, the reader finds out, by the checksum.
        """
        cdef Py_buffer source
        cdef Py_ssize_t at = self.number(offset, True)
        if PyBytes_CheckExact(data):
            # They neither change nor move: nothing is to be borrowed.
            self.ready(True)
            if not self.inside(at, PyBytes_GET_SIZE(data)):
                self._outside(offset, PyBytes_GET_SIZE(data))
            return self.store(at, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), data)
        try:
            borrow(data, &source, 0)
        except (TypeError, ValueError, BufferError):
            return self.write(offset, self._plain(data))
        try:
            self.ready(True)
            if not self.inside(at, source.len):
                self._outside(offset, source.len)
            return self.store(at, <char *>source.buf, source.len, data)
        finally:
            PyBuffer_Release(&source)

    def read(self, offset, size, checksum):
        """Copy a chunk out, and check the copy.

        Parameters
        ----------
        offset : int
            Where it begins; decimal text is taken too.
        size : int
            Its bytes.
        checksum : bytes-like
            What `write` gave.

        Returns
        -------
        bytes
            What was written. A copy.

        Raises
        ------
        FrameBufferTimeout
            The ring came round before: these are not the bytes of the checksum.
        ValueError
            The chunk would not lie inside the ring.

        Notes
        -----
        Never waits. Copies and hashes more than 64 KiB with the GIL released. The
        memory of a large new `bytes` costs more than the copy: see `read_into`.
        """
        cdef Py_ssize_t at = self.number(offset, True)
        cdef Py_ssize_t count = self.number(size, False)
        if not PyBytes_CheckExact(checksum):
            checksum = self._checksum(checksum)
        self.ready(False)
        if not self.inside(at, count):
            self._outside(offset, size)
        copy = PyBytes_FromStringAndSize(NULL, count)
        if not self.fetch(at, PyBytes_AS_STRING(copy), count, copy, checksum):
            self._expired(offset, size, checksum)
        return copy

    def read_into(self, offset, size, checksum, out):
        """Copy a chunk into memory of the caller's, and check the copy.

        Parameters
        ----------
        offset, size : int
            Where it begins, and its bytes.
        checksum : bytes-like
            What `write` gave.
        out : writable bytes-like
            C-contiguous, exactly `size` bytes: an ndarray, a bytearray.

        Raises
        ------
        FrameBufferTimeout
            The ring came round before. `out` then holds bytes that are no chunk.
        ValueError
            The chunk would not lie inside the ring, or `out` is of another size.

        Notes
        -----
        Never waits. The fastest way to read: no memory is made.
        """
        cdef Py_buffer target
        cdef Py_ssize_t at = self.number(offset, True)
        cdef Py_ssize_t count = self.number(size, False)
        cdef bint fits, whole = True
        if not PyBytes_CheckExact(checksum):
            checksum = self._checksum(checksum)
        try:
            borrow(out, &target, PyBUF_WRITABLE)
        except (TypeError, ValueError, BufferError):
            out = self._plain(out)
            PyObject_GetBuffer(out, &target, PyBUF_SIMPLE | PyBUF_WRITABLE)
        try:
            self.ready(False)
            if not self.inside(at, count):
                self._outside(offset, size)
            fits = target.len == count
            if fits:
                whole = self.fetch(at, <char *>target.buf, count, out, checksum)
        finally:
            PyBuffer_Release(&target)
        if not fits:
            raise ValueError(f"out has {target.len} bytes, the chunk {count}: give exactly as many")
        if not whole:
            self._expired(offset, size, checksum)
