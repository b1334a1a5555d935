"""A reader's end as the lender of frames, and the frames it lends.

A frame goes back to its lender when it was released and the last view of it is gone, from whichever
thread that is. It uses the NumPy C-API for views of a frame.
"""
cimport numpy as cnp
from cpython.buffer cimport PyBUF_READ, PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.ref cimport Py_INCREF
from cython cimport final, freelist, no_gc_clear
from libc.stdint cimport int64_t, uint64_t

from ataraxis._kernels.atomics cimport ax_peek64, ax_store32
from ataraxis._kernels.event cimport event_wake
from ataraxis._kernels.frame cimport AX_FLAG_CHECKSUM, AX_FLAG_DEVICE_STAMP, AX_FLAG_DEVICE_UNSIGNED, ax_frame
from ataraxis._kernels.join cimport reader_leave
from ataraxis._kernels.lock cimport pthread_self
from ataraxis._kernels.memory cimport inherited
from ataraxis._kernels.platform cimport ax_take_turn
from ataraxis._kernels.reader cimport give_back, settle_had
from ataraxis._kernels.ring cimport AX_UNKNOWN

cdef extern from "numpy/arrayobject.h":
    object PyArray_NewFromDescr(type subtype, cnp.dtype descr, int nd, cnp.npy_intp *dims, cnp.npy_intp *strides,
                                void *data, int flags, object obj)

cnp.import_array()


# ---- the bridge

@no_gc_clear   # as Turn
cdef class Lender(Turn):
    """A reader's place in the ring, used by one thread at a time, and what it has lent.

    A subclass opens it, and provides `_revive()` (make usable or raise), `_dtype_of(code)`,
    `_over(frame)` (raise: it was released) and the hooks of `Frame`.
    """

    cdef void stir(self) noexcept:
        ax_store32(&self.ring.poke, 1)
        event_wake(&self.ring.stream.data)

    cdef void finish(self) noexcept:
        # A frame that was looked at and not received was not had.
        if self.pending is None:
            settle_had(&self.ring)
        self.pending = None

    cdef void detach(self) noexcept:
        if self.is_leaving and not self.ring.held:
            self.is_leaving = False
            if self.ring.expected != AX_UNKNOWN:
                self.joined = ax_peek64(&self.ring.line.joined)
            reader_leave(&self.ring)
            self.participant = None
            self.memory = None

    cdef void leave(self) noexcept:
        if self.is_leaving:
            self.pending = None
        if self.returned is not None:
            self.settle()
        Turn.leave(self)

    cdef int settle(self) noexcept:
        # Frames that were given back while a thread was inside.
        cdef list returned
        ax_store32(&self.ring.poke, 0)
        while self.returned is not None:
            returned, self.returned = self.returned, None
            for index, position, held in returned:
                give_back(&self.ring, index, position, held)
        return 0

    cdef void back(self, uint64_t index, uint64_t position, int held) noexcept:
        if inherited(self.ring.party):
            return
        if ax_take_turn(&self.busy):
            give_back(&self.ring, index, position, held)
            self.leave()
            return
        # A thread is inside: it takes the frame back, soon.
        if self.returned is None:
            self.returned = []
        self.returned.append((index, position, held))
        if self.inside != pthread_self():
            ax_store32(&self.ring.poke, 1)
            event_wake(&self.ring.stream.data)


@final
@no_gc_clear
cdef class Keep:
    """Holds a frame for a view of it."""
    cdef Frame frame

    def __dealloc__(self):
        self.frame.lent -= 1
        if self.frame.is_over and not self.frame.lent:
            self.frame.drop()


@final
@freelist(64)
@no_gc_clear   # gives its slot back through its owner
cdef class Frame:
    """One frame, lent by a consumer: read-only, and not overwritten while it or a view of it lives.

    Behaves like MomentumX's ReadBuffer, and like an array with labels.
    """

    def __dealloc__(self):
        self.drop()

    cdef inline void drop(self) noexcept:
        if self.held >= 0 and self.owner is not None:
            self.owner.back(self.index, self.position, self.held)
            self.held = -1

    cdef inline int ready(self) except -1:
        if self.is_over:
            self.owner._over(self)
        return 0

    def release(self):
        """Give the slot back; views that live keep it until they are gone. May be repeated."""
        self.is_over = True
        if not self.lent:
            self.drop()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.release()

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        self.ready()
        PyBuffer_FillInfo(buffer, self, self.data, self.bytes, 1, flags)
        self.lent += 1

    def __releasebuffer__(self, Py_buffer *buffer):
        self.lent -= 1
        if self.is_over and not self.lent:
            self.drop()

    @property
    def array(self):
        """The payload: a read-only view, of the stream's dtype and the frame's own shape.

        Valid as long as it lives, under every policy. uint8, shape (bytes,), if the frame is no array.
        """
        cdef cnp.npy_intp dims[4]
        cdef int k, ndim
        cdef Py_ssize_t count
        cdef cnp.dtype descr
        cdef Keep keep
        self.ready()
        if self.head.labels and self.owner.dtype is not None:
            descr = self.owner.dtype
        else:
            descr = self.owner._dtype_of(self.head.dtype)
        ndim = self.head.ndim
        count = descr.itemsize
        if ndim > 4:
            self.owner._corrupt(self)
        if ndim == 0 and count != self.bytes:
            ndim = 1
            dims[0] = self.bytes // count if count else 0
            count *= dims[0]
        else:
            for k in range(ndim):
                dims[k] = self.head.extents[k]
                count *= dims[k]
        if count != self.bytes:
            self.owner._corrupt(self)
        keep = Keep.__new__(Keep)
        keep.frame = self
        self.lent += 1
        Py_INCREF(descr)
        result = PyArray_NewFromDescr(cnp.ndarray, descr, ndim, dims, NULL, self.data, cnp.NPY_ARRAY_C_CONTIGUOUS | cnp.NPY_ARRAY_ALIGNED, None)
        cnp.set_array_base(result, keep)
        return result

    def __array__(self, dtype=None, copy=None):
        array = self.array
        return array if dtype is None or dtype == array.dtype else array.astype(dtype)

    def verify(self):
        """Look whether the bytes are those that were sent, by the frame's CRC-32.

        Returns
        -------
        bool
            True if they are; False if it has none (the producer's ``checksum=False``).

        Raises
        ------
        CorruptFrame
            They are others.
        """
        cdef Py_ssize_t front
        self.ready()
        if not self.head.flags & AX_FLAG_CHECKSUM:
            return False
        front = self.data - <char *>self.head - sizeof(ax_frame)
        if front + self.bytes:
            data = PyMemoryView_FromMemory(self.data - front, front + self.bytes, PyBUF_READ)
        else:
            data = b""
        self.owner._compare(self, data, self.head.crc)
        return True

    def to_xarray(self):
        """The payload with the stream's labels: a DataArray over a read-only view."""
        return self.owner._to_xarray(self)

    @property
    def value(self):
        """What was sent, as a Python or NumPy object; arrays are read-only views."""
        self.ready()
        return self.owner._value(self)

    def __len__(self):
        return self.bytes

    def __getitem__(self, index):
        cdef Py_ssize_t i
        self.ready()
        if isinstance(index, slice):
            start, stop, step = index.indices(self.bytes)
            if step == 1:
                i = start
                return PyBytes_FromStringAndSize(self.data + i, max(stop - start, 0))
            return PyBytes_FromStringAndSize(self.data, self.bytes)[index]
        i = index
        if i < 0:
            i += self.bytes
        if not 0 <= i < self.bytes:
            raise IndexError(f"index {index} is out of range for {self.bytes} bytes")
        return (<unsigned char *>self.data)[i]

    def read(self, count=None):
        """Read all bytes, or `count` from the cursor on; a copy."""
        cdef Py_ssize_t start = 0, stop = self.bytes
        self.ready()
        if count is not None:
            if count < 0:
                raise ValueError(f"count must be >= 0, got {count}")
            start = self.cursor
            stop = min(self.bytes, start + <Py_ssize_t>min(count, self.bytes))
        self.cursor = stop
        return PyBytes_FromStringAndSize(self.data + start, stop - start)

    def seek(self, index):
        """Move the cursor of `read`; where it is now."""
        if not 0 <= index <= self.bytes:
            raise ValueError(f"position {index} is outside the frame's {self.bytes} bytes")
        self.cursor = index
        return index

    def tell(self):
        """Where the cursor of `read` is."""
        return self.cursor

    @property
    def sequence(self):
        """Number within the stream, from 0."""
        self.ready()
        return self.head.sequence

    @property
    def iteration(self):
        """Number within the stream, from 1 (MomentumX)."""
        self.ready()
        return self.head.sequence + 1

    @property
    def time_ns(self):
        """When it was made: monotonic time of the producer's host, ns."""
        self.ready()
        return self.head.time_ns

    @property
    def data_timestamp(self):
        """When it was made, ns (MomentumX)."""
        self.ready()
        return self.head.time_ns

    @property
    def device_time(self):
        """The device's own time in its ticks, or None."""
        self.ready()
        if not self.head.flags & AX_FLAG_DEVICE_STAMP:
            return None
        if self.head.flags & AX_FLAG_DEVICE_UNSIGNED:
            return (<uint64_t *>(self.data - 16))[0]
        return (<int64_t *>(self.data - 16))[0]

    @property
    def device_sequence(self):
        """The device's own counter, or None."""
        self.ready()
        return (<uint64_t *>(self.data - 8))[0] if self.head.flags & AX_FLAG_DEVICE_STAMP else None

    @property
    def _code(self):
        return self.head.dtype

    @property
    def _flags(self):
        return self.head.flags

    @property
    def _shape(self):
        return tuple([self.head.extents[k] for k in range(min(<int>self.head.ndim, 4))])

    @property
    def nbytes(self):
        """Bytes of payload."""
        return self.bytes

    @property
    def data_size(self):
        """Bytes of payload (MomentumX)."""
        return self.bytes

    @property
    def buffer_id(self):
        """Which buffer it lies in, iteration modulo the number of buffers (MomentumX)."""
        return (self.position + 1) % self.owner.ring.slots

    @property
    def buffer_size(self):
        """Bytes a slot holds."""
        return self.owner.ring.capacity

    @property
    def buffer_count(self):
        """Slots of the stream."""
        return self.owner.ring.slots

    @property
    def dropped_count(self):
        """Frames its consumer has lost so far."""
        return self.owner.ring.dropped

    @property
    def is_released(self):
        """Whether it was released."""
        return self.is_over

    def __repr__(self):
        if self.is_over:
            return "<Frame, released>"
        return f"<Frame {self.head.sequence}: {self.bytes} bytes>"
