"""Chunks of the frame buffer: copied in and out, and checked by checksum.

Copy first, then check the copy, never the other way round: the bytes may change in between. Where the
machine has the vectors for it, one pass does both (xxh3_copy.h: what is hashed is what was stored); else the hash
is given from above. Short copies keep the GIL, long ones do not.
"""
from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.bytearray cimport PyByteArray_CheckExact
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t
from libc.string cimport memcmp, strchr

from ataraxis._kernels.atomics cimport AX_GIL_BYTES, ax_copy
from ataraxis._kernels.framebuffer cimport RingKernel
from ataraxis._kernels.platform cimport ax_crash
from ataraxis._kernels.xxh3_copy cimport AX_MOVE_SHORT, ax_mover, ax_mover_of

cdef enum:
    CHECKSUM_BYTES = 8


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
