"""The frame buffer: a ring of chunks, allocated by one CAS on a head that only grows; copies in and out, checked.

A reader whose chunk was overwritten finds out by checksum and never waits. A killed process leaves nothing to clean up
except the word that names the server. A chunk is copied first and then the copy is checked, because the bytes in the
ring may change in between. With AVX2 or AVX-512, one pass does both (xxh3_copy.h hashes the stored bytes); otherwise
the subclass's hash is used. Short copies keep the GIL, long ones release it.
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
    LOOKS = 8              # attempts to read the stamps while others allocate
    CHECKSUM_BYTES = 8

CONTROL_BYTES = sizeof(ax_framebuffer)
SERVER_AT = <size_t>&(<ax_framebuffer *>NULL).server


# ---- the algorithm

cdef uint64_t sectors_of(uint64_t capacity) noexcept nogil:
    # At most one sector per byte: no sector is empty.
    return min(<uint64_t>AX_SECTORS, capacity)


cdef uint64_t sector_from(uint64_t offset, uint64_t capacity) noexcept nogil:
    # The first sector that starts at `offset` or later; the number of sectors if none does.
    return (offset - 1) * sectors_of(capacity) // capacity + 1 if offset else 0


cdef void write_stamps(ax_framebuffer *ring, uint64_t capacity, uint64_t lap, uint64_t start, uint64_t end) noexcept nogil:
    # Record when the head passed the sectors that start in [start, end) of a lap.
    cdef uint64_t time = <uint64_t>ax_now_ns() & ~<uint64_t>AX_LAP_MASK | lap & AX_LAP_MASK
    cdef uint64_t k
    for k in range(sector_from(start, capacity), min(sector_from(end, capacity), sectors_of(capacity))):
        ax_put64(&ring.stamps[k], time)


cdef uint64_t ring_allocate(
    ax_framebuffer *ring, uint64_t capacity, uint64_t size, uint64_t align, uint64_t *position
) noexcept nogil:
    # 1 <= size <= capacity, align a power of two. The offset is computed without the position, so that
    # a damaged head cannot lead out of the ring.
    cdef uint64_t head, lap = 0, offset = 0, start = 0
    while True:
        # Relaxed: no data are read through head; the CAS orders the allocators.
        head = ax_peek64(&ring.head)
        lap, offset = head // capacity, head % capacity
        start = (offset + align - 1) & ~(align - 1)
        if start > capacity - size:
            # A chunk never straddles the end: the tail is skipped.
            start = 0
        position[0] = (lap if start >= offset else lap + 1) * capacity + start
        if ax_cas64(&ring.head, head, position[0] + size):
            break
    # Pairs with the fence in turned(): a reader that sees bytes of this chunk's writer sees the head.
    ax_fence_release()
    # After a kill here the head has moved and the stamps are of an older lap; oldest_stamp() detects it.
    ax_crash("allocate_moved")
    if start < offset:
        write_stamps(ring, capacity, lap, offset, capacity)
        lap, offset = lap + 1, 0
        ax_crash("allocate_wrapped")
    write_stamps(ring, capacity, lap, offset, start + size)
    ax_crash("allocate_stamped")
    ax_add64(&ring.chunks, 1)
    return start


cdef bint ring_holds(ax_framebuffer *ring, uint64_t capacity, uint64_t position, uint64_t size) noexcept nogil:
    # Whether a chunk was allocated and not overwritten since. Pairs with the CAS in ring_allocate.
    cdef uint64_t head = ax_load64(&ring.head)
    return size <= head and position <= head - size and head - position <= capacity


cdef uint64_t oldest_stamp(ax_framebuffer *ring, uint64_t sectors, uint64_t lap, uint64_t sector) noexcept nogil:
    # The first stamp of its own lap, searching the whole ring from a sector on; 0 if none.
    cdef uint64_t left = sectors, seen
    while left:
        if sector == sectors:
            sector, lap = 0, lap + 1
        seen = ax_peek64(&ring.stamps[sector])
        # Of another lap: its allocator has not written it yet, or was killed. The next one is younger.
        if seen and (seen ^ lap) & AX_LAP_MASK == 0:
            # Rounded up, so that an age is never overstated.
            return seen | AX_LAP_MASK
        sector += 1
        left -= 1
    return 0


cdef uint64_t ring_oldest(ax_framebuffer *ring, uint64_t capacity) noexcept nogil:
    # When the oldest intact bytes were allocated, ns; 0 if none. Exact to a sector.
    cdef uint64_t head, start, seen = 0
    cdef int attempts = LOOKS
    while attempts:
        head = ax_load64(&ring.head)
        start = head - capacity if head > capacity else 0
        seen = oldest_stamp(ring, sectors_of(capacity), start // capacity, sector_from(start % capacity, capacity))
        if ax_load64(&ring.head) == head:
            break
        attempts -= 1
    return seen


cdef void ring_cleanup(ax_party *party, uint32_t slot) noexcept nogil:
    # A damaged file may be too small for the control block.
    cdef ax_framebuffer *ring = <ax_framebuffer *>party.control
    if party.control + sizeof(ax_framebuffer) <= party.base + party.bytes:
        ax_cas32(&ring.server, slot + 1, 0)
    ax_crash("cleanup_served")


on_death(AX_KIND_FRAMEBUFFER, ring_cleanup)


cdef uint64_t copy_by(ax_mover mover, char *chunk, char *bytes, Py_ssize_t count, bint stores) noexcept nogil:
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
    # XXH3's canonical byte order, on any machine.
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
    """Return how far the head may move before any of the bytes [at, at + count) is allocated."""
    # Acquire: pairs with the CAS in ring_allocate.
    cdef uint64_t head = ax_load64(&ring_of(participant).head)
    cdef uint64_t gone = head % capacity
    if gone < at:
        return head + at - gone
    return head if gone < at + count else head + capacity - gone + at


def turned(Participant participant not None, uint64_t turn):
    """Return whether the head moved further before the bytes read until now were written."""
    # Pairs with the release fence in ring_allocate; keeps the reads above the load of the head.
    ax_fence_acquire()
    return ax_load64(&ring_of(participant).head) > turn


cdef class RingKernel:
    """The ring of a frame buffer.

    A subclass provides `_revive(writes)` (make the handle usable or raise) and `_number(value, is_offset)`
    (an int from what is not exactly one, or raise).
    """

    cdef unsigned char[::1] memory      # the payload
    cdef char *data
    cdef Py_ssize_t capacity
    cdef ax_framebuffer *ring
    cdef ax_live *live
    cdef Participant participant

    def _open(self, memory, Participant participant not None):
        """Use the payload `memory` (uint8, read and written in place) of a segment."""
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
        """Release the segment; existing views stay valid."""
        self.data = NULL
        self.ring = NULL
        self.live = NULL
        self.participant = None
        self.memory = None

    cdef int ready(self, bint writes) except -1:
        # Acquire: pairs with no store of this kernel. If the name was unlinked, the subclass decides.
        if self.data == NULL or ax_load32(&self.live.state) != AX_READY:
            self._revive(writes)
            if self.data == NULL:
                raise SystemError("_revive() left the handle unconnected")
        return 0

    cdef Py_ssize_t number(self, object value, bint is_offset) except -2:
        # -1: negative, or more than 63 bits.
        cdef int overflow = 0
        cdef long long result
        if not PyLong_CheckExact(value):
            value = self._number(value, is_offset)
        result = PyLong_AsLongLongAndOverflow(value, &overflow)
        return -1 if overflow or result < 0 else <Py_ssize_t>result

    cdef bint inside(self, Py_ssize_t at, Py_ssize_t count) noexcept:
        return 0 <= at and 0 < count <= self.capacity and at <= self.capacity - count

    def _serve(self):
        """Declare this participant the server."""
        # Release: a process that sees it sees a complete segment.
        ax_store32(&self.ring.server, self.participant.party.slot + 1)
        ax_crash("serve_said")

    def _served(self):
        """Return whether the server is alive."""
        cdef uint32_t server
        self.ready(False)
        server = ax_load32(&self.ring.server)
        return server != 0 and alive(&self.participant.party, server - 1) != 0

    def _allocate(self, size, align):
        """Allocate a chunk; return its offset and position, or None if it can never fit."""
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
        """Return whether the chunk at a position is intact."""
        self.ready(False)
        return ring_holds(self.ring, self.capacity, position, size)

    def _look(self):
        """Return capacity, bytes and chunks allocated, time of the oldest intact bytes (ns, 0: none), and now."""
        self.ready(False)
        return (
            self.capacity, ax_load64(&self.ring.head), ax_peek64(&self.ring.chunks),
            ring_oldest(self.ring, self.capacity), ax_now_ns(),
        )


cdef int get_buffer(object data, Py_buffer *buffer, int flags) except -1:
    # Get C-contiguous memory of bytes. Writing raw bytes into Python objects would crash the process. An 'O' may also
    # stand in a field's name: the subclass examines those closer.
    if PyByteArray_CheckExact(data):
        PyObject_GetBuffer(data, buffer, PyBUF_SIMPLE | flags)
        return 0
    PyObject_GetBuffer(data, buffer, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | flags)
    if buffer.format != NULL and strchr(buffer.format, c'O') != NULL:
        PyBuffer_Release(buffer)
        raise TypeError("data may contain Python objects")
    return 0


def widths():
    """Return the vector widths, in bytes, for which copies can be hashed in one pass, best first."""
    return [width for width in (64, 32) if ax_mover_of(width) != NULL]


cdef class ChunkKernel(RingKernel):
    """Copies between private memory and chunks, and their checksums.

    A subclass also provides `_plain(data)` and `_checksum(value)` (return contiguous bytes and exactly bytes, or
    raise), `_outside(offset, size)` and `_expired(offset, size, checksum)` (raise).
    """

    cdef object digest                  # bytes-like -> checksum, bytes
    cdef ax_mover mover                 # copies and hashes in one pass, or NULL
    cdef ax_mover far_mover             # the same, for long copies

    def _hash_by(self, digest, int width=0):
        """Set the hash function of bytes-like objects; it releases the GIL for large ones.

        With a width (one of `widths()`), copies of more than 240 bytes are hashed during the copy, by
        XXH3; then `digest` must be XXH3, too.
        """
        self.digest = digest
        self.mover = ax_mover_of(width)
        # Beyond L1 narrower vectors are faster: fewer stores straddle two lines.
        self.far_mover = ax_mover_of(32) if width == 64 else self.mover

    cdef bint hashes_copy(self, Py_ssize_t count) noexcept:
        # Whether copies of so many bytes are hashed during the copy.
        return count > AX_MOVE_SHORT and self.mover != NULL

    cdef uint64_t copy(self, Py_ssize_t at, char *bytes, Py_ssize_t count, bint stores) noexcept:
        # Copy into the chunk or out of it; returns the hash, if `moves`. The local memoryview keeps the mapping if
        # another thread closes the handle.
        cdef unsigned char[::1] memory
        cdef ax_mover mover
        cdef uint64_t hash
        if count <= AX_GIL_BYTES:
            return copy_by(self.mover, self.data + at, bytes, count, stores)
        memory = self.memory
        mover = self.far_mover
        with nogil:
            hash = copy_by(mover, <char *>&memory[at], bytes, count, stores)
        return hash

    cdef object store(self, Py_ssize_t at, const char *from_, Py_ssize_t count, object data):
        # Hash the caller's bytes, never the ring's: those may be overwritten by now.
        cdef uint64_t hash = self.copy(at, <char *>from_, count, True)
        if not self.hashes_copy(count):
            return self.digest(data)
        hash = big_endian(hash)
        return PyBytes_FromStringAndSize(<char *>&hash, CHECKSUM_BYTES)

    cdef bint fetch(self, Py_ssize_t at, char *to, Py_ssize_t count, object copy, object checksum) except -1:
        # Whether the copy matches the checksum, exactly bytes.
        cdef uint64_t hash = self.copy(at, to, count, False)
        if not self.hashes_copy(count):
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
            Result of `allocate`; decimal text is accepted too.
        data : bytes-like
            C-contiguous, at most as many bytes as were allocated. Copied.

        Returns
        -------
        bytes
            Checksum of `data`: 8 bytes, XXH3.

        Raises
        ------
        TypeError, ValueError
            `data` is text, not contiguous, or does not lie inside the ring.
        SegmentNotFound
            The server has stopped.

        Notes
        -----
        Never waits. Copies and hashes more than 64 KiB with the GIL released. If the
        ring wrapped since `allocate`, the reader finds out, by the checksum.
        """
        cdef Py_buffer source
        cdef Py_ssize_t at = self.number(offset, True)
        if PyBytes_CheckExact(data):
            # Immutable: no buffer is needed.
            self.ready(True)
            if not self.inside(at, PyBytes_GET_SIZE(data)):
                self._outside(offset, PyBytes_GET_SIZE(data))
            return self.store(at, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), data)
        try:
            get_buffer(data, &source, 0)
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
            Offset of the chunk; decimal text is accepted too.
        size : int
            Its size in bytes.
        checksum : bytes-like
            What `write` gave.

        Returns
        -------
        bytes
            The bytes that were written. A copy.

        Raises
        ------
        FrameBufferTimeout
            The ring wrapped: the bytes do not match the checksum.
        ValueError
            The chunk would not lie inside the ring.

        Notes
        -----
        Never waits. Copies and hashes more than 64 KiB with the GIL released. The
        allocation of a large `bytes` costs more than the copy: see `read_into`.
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
        """Copy a chunk into the caller's memory, and check the copy.

        Parameters
        ----------
        offset, size : int
            Offset and size in bytes.
        checksum : bytes-like
            What `write` gave.
        out : writable bytes-like
            C-contiguous, exactly `size` bytes: an ndarray, a bytearray.

        Raises
        ------
        FrameBufferTimeout
            The ring wrapped. `out` then holds bytes that are not a chunk.
        ValueError
            The chunk would not lie inside the ring, or `out` is of another size.

        Notes
        -----
        Never waits. The fastest way to read: allocates no memory.
        """
        cdef Py_buffer target
        cdef Py_ssize_t at = self.number(offset, True)
        cdef Py_ssize_t count = self.number(size, False)
        cdef bint fits, whole = True
        if not PyBytes_CheckExact(checksum):
            checksum = self._checksum(checksum)
        try:
            get_buffer(out, &target, PyBUF_WRITABLE)
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
            raise ValueError(f"out must have exactly the chunk's {count} bytes, got {target.len}")
        if not whole:
            self._expired(offset, size, checksum)
