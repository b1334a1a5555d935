"""Chunks of the frame buffer: copied in and out, and checked by checksum.

Copy first, then check the copy, never the other way round: the bytes may change in between. The hash
itself is given from above. Short copies keep the GIL, long ones do not.
"""
from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.bytearray cimport PyByteArray_CheckExact
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize
from libc.string cimport strchr

from ataraxis._kernels.atomics cimport ax_copy
from ataraxis._kernels.framebuffer cimport RingKernel

cdef enum:
    GIL_BYTES = 65536      # a longer copy lets other threads run


cdef int borrow(object data, Py_buffer *buffer, int flags) except -1:
    # C-contiguous memory of bytes. Raw bytes of Python objects are pointers: whoever reads them into an
    # array of objects dies of it. An 'O' may also be in a field's name: whoever is above looks closer.
    if PyBytes_CheckExact(data) or PyByteArray_CheckExact(data):
        PyObject_GetBuffer(data, buffer, PyBUF_SIMPLE | flags)
        return 0
    PyObject_GetBuffer(data, buffer, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | flags)
    if buffer.format != NULL and strchr(buffer.format, c'O') != NULL:
        PyBuffer_Release(buffer)
        raise TypeError("perhaps Python objects")
    return 0


cdef class ChunkKernel(RingKernel):
    """Copies between private memory and chunks, and their checksums.

    A subclass also provides `_plain(data)` and `_checksum(value)` (contiguous bytes and exactly bytes, or
    raise), `_outside(offset, size)` and `_expired(offset, size, checksum)` (raise).
    """

    cdef object digest                  # bytes-like -> checksum, bytes

    def _hash_by(self, digest):
        """Take the hash of bytes-like objects; it lets other threads run while it works on large ones."""
        self.digest = digest

    cdef int store(self, Py_ssize_t at, const char *from_, Py_ssize_t count) except -1:
        # The memoryview of our own keeps the mapping while another thread may stop the handle.
        cdef unsigned char[::1] memory
        if count <= GIL_BYTES:
            ax_copy(self.data + at, from_, count)
            return 0
        memory = self.memory
        with nogil:
            ax_copy(&memory[at], from_, count)
        return 0

    cdef int fetch(self, char *to, Py_ssize_t at, Py_ssize_t count) except -1:
        cdef unsigned char[::1] memory
        if count <= GIL_BYTES:
            ax_copy(to, self.data + at, count)
            return 0
        memory = self.memory
        with nogil:
            ax_copy(to, &memory[at], count)
        return 0

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
        try:
            borrow(data, &source, 0)
        except (TypeError, ValueError, BufferError):
            return self.write(offset, self._plain(data))
        try:
            self.ready(True)
            if not self.inside(at, source.len):
                self._outside(offset, source.len)
            self.store(at, <char *>source.buf, source.len)
            # Of the caller's bytes, never of the ring's: those may be somebody else's by now.
            return self.digest(data)
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
        self.fetch(PyBytes_AS_STRING(copy), at, count)
        if self.digest(copy) != checksum:
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
        cdef bint fits
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
                self.fetch(<char *>target.buf, at, count)
        finally:
            PyBuffer_Release(&target)
        if not fits:
            raise ValueError(f"out has {target.len} bytes, the chunk {count}: give exactly as many")
        if self.digest(out) != checksum:
            self._expired(offset, size, checksum)
