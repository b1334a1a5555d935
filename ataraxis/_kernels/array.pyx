"""Locked reads and writes of an n-d array in a segment: lock and copy in one call.

The algorithm half copies bytes between private memory and the payload under the guard of lock.pxd. The bridge half
turns the commonest indices into offsets and leaves every other form to numpy, in shm/array.py. Uses the NumPy C-API
for scalars and result arrays.
"""
cimport numpy as cnp
from cpython.buffer cimport PyObject_GetBuffer
from cpython.exc cimport PyErr_Clear, PyErr_Occurred
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.long cimport PyLong_CheckExact
from cpython.slice cimport PySlice_AdjustIndices, PySlice_Check, PySlice_Unpack
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.math cimport isfinite
from libc.stdint cimport INT64_MAX, uint64_t

from ataraxis._kernels.atomics cimport AX_GIL_BYTES, ax_copy, ax_peek32
from ataraxis._kernels.copy cimport copy_in, copy_out, store_element
from ataraxis._kernels.element cimport add_element, encode_integer
from ataraxis._kernels.layout cimport AX_BUSY, AX_OK, AX_TORN, ax_guard
from ataraxis._kernels.lock cimport LockHandle, lock_release
from ataraxis._kernels.memory cimport Participant
from ataraxis._kernels.scalar cimport ax_scalar

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object value, int *overflow)
    Py_ssize_t PyLong_AsSsize_t(object value)   # -1 also for an error: see position_of

cdef extern from "numpy/arrayobject.h":
    void PyArray_ScalarAsCtype(object scalar, void *to)

cnp.import_array()

cdef enum:
    LOOKS = 8              # unlocked attempts of a reader before it takes the lock


# ---- the bridge

cdef inline Py_ssize_t position_of(object index, Py_ssize_t size):
    # 0 to size - 1, or -1: out of range; numpy raises the error.
    cdef Py_ssize_t i = PyLong_AsSsize_t(index)
    if i < 0:
        if i == -1 and PyErr_Occurred():
            PyErr_Clear()
            return -1
        i += size
    return i if 0 <= i < size else -1


cdef class ArrayKernel(LockHandle):
    """The memory and lock of a SharedMemoryArray.

    A subclass provides `_revive()` (make the handle usable or raise), `_read(index)` and
    `_write(index, value)` (every index form not handled here) and `_fail(status)` (raise).
    """

    cdef unsigned char[::1] memory      # the payload
    cdef char *data
    cdef object dtype                   # numpy dtype
    cdef object scalar                  # its scalar type
    cdef int kind                       # numpy type number of dtypes with a fast path, else -1
    cdef int ndim
    cdef Py_ssize_t itemsize
    cdef Py_ssize_t bytes
    cdef Py_ssize_t shape[8]
    cdef Py_ssize_t strides[8]

    def _open(self, memory, Participant participant not None, object dtype, tuple shape):
        """Use the payload `memory` (uint8, read and written in place)."""
        cdef Py_ssize_t step
        cdef int k
        self.memory = memory
        self.bytes = self.memory.shape[0]
        self.data = <char *>&self.memory[0] if self.bytes else NULL
        self.dtype = dtype
        self.scalar = dtype.type
        self.itemsize = dtype.itemsize
        self.ndim = len(shape)
        step = self.itemsize
        for k in range(self.ndim - 1, -1, -1):
            self.shape[k] = shape[k]
            self.strides[k] = step
            step *= shape[k]
        if step != self.bytes:
            raise ValueError("dtype and shape do not fit the payload")
        self.kind = -1
        if self.bytes and dtype.isnative and dtype.isbuiltin and dtype.kind in "biufc" and dtype.char not in "gG":
            self.kind = dtype.num
        self._connect(participant)

    def _shut(self):
        """Release segment and memory; existing views stay valid."""
        LockHandle._shut(self)
        self.data = NULL
        self.memory = None

    cdef int fetch(self, char *to, Py_ssize_t offset, Py_ssize_t count) except -1:
        # Copy bytes of the payload, never torn.
        cdef ax_guard *guard = self.guard
        cdef const char *from_ = self.data + offset
        cdef int attempts = LOOKS
        if count > AX_GIL_BYTES:
            return self.fetch_long(to, offset, count)
        while attempts:
            if copy_out(guard, to, from_, count):
                return 0
            attempts -= 1
        return self.fetch_locked(to, offset, count)

    cdef int fetch_long(self, char *to, Py_ssize_t offset, Py_ssize_t count) except -1:
        # The same without the GIL. The local memoryview keeps the mapping if another thread disconnects the handle.
        cdef unsigned char[::1] memory = self.memory
        cdef ax_guard *guard = self.guard
        cdef int attempts = LOOKS
        with nogil:
            while attempts:
                if copy_out(guard, to, <char *>&memory[0] + offset, count):
                    break
                attempts -= 1
        return 0 if attempts else self.fetch_locked(to, offset, count)

    cdef int fetch_locked(self, char *to, Py_ssize_t offset, Py_ssize_t count) except -1:
        cdef Participant keep
        cdef unsigned char[::1] memory
        cdef ax_guard *guard
        cdef bint torn
        self.take(INT64_MAX)
        keep, memory, guard = self.participant, self.memory, self.guard
        torn = ax_peek32(&guard.health) != 0
        if not torn:
            with nogil:
                ax_copy(to, <char *>&memory[0] + offset, count)
        lock_release(guard, &keep.party)
        if torn:
            self._fail(AX_TORN)
        return 0

    cdef int put(self, Py_ssize_t offset, const char *from_, Py_ssize_t count) except -1:
        cdef Participant keep
        cdef unsigned char[::1] memory
        cdef ax_guard *guard
        cdef char *to
        cdef bint whole = count == self.bytes
        self.take(INT64_MAX)
        keep, memory, guard = self.participant, self.memory, self.guard
        to = <char *>&memory[0] + offset
        if count <= AX_GIL_BYTES:
            copy_in(guard, &keep.party, to, from_, count, whole)
        else:
            with nogil:
                copy_in(guard, &keep.party, to, from_, count, whole)
        lock_release(guard, &keep.party)
        return 0

    cdef Py_ssize_t offset_of(self, object index) except -2:
        # Offset of one element for a plain index, or -1: no fast path.
        cdef Py_ssize_t i, offset = 0
        cdef int k
        if self.ndim == 1:
            if not PyLong_CheckExact(index):
                return -1
            i = position_of(index, self.shape[0])
            return i * self.itemsize if i >= 0 else -1
        if not PyTuple_CheckExact(index) or PyTuple_GET_SIZE(index) != self.ndim:
            return -1
        for k in range(self.ndim):
            item = <object>PyTuple_GET_ITEM(index, k)
            if not PyLong_CheckExact(item):
                return -1
            i = position_of(item, self.shape[k])
            if i < 0:
                return -1
            offset += i * self.strides[k]
        return offset

    cdef bint find_rows(self, object index, Py_ssize_t *offset, Py_ssize_t *count, Py_ssize_t *rows) except -1:
        # Find the whole rows that a plain slice or Ellipsis selects: offset, bytes, rows.
        cdef Py_ssize_t start = 0, stop = 0, step = 1
        if self.ndim == 0 or self.kind < 0:
            return False
        if index is Ellipsis:
            offset[0], count[0], rows[0] = 0, self.bytes, self.shape[0]
            return True
        if not PySlice_Check(index):
            return False
        PySlice_Unpack(index, &start, &stop, &step)
        rows[0] = PySlice_AdjustIndices(self.shape[0], &start, &stop, step)
        if step != 1:
            return False
        offset[0] = start * self.strides[0]
        count[0] = rows[0] * self.strides[0]
        return True

    def __getitem__(self, index):
        cdef Py_ssize_t offset = 0, count = 0, rows = 0
        cdef cnp.npy_intp dims[8]
        cdef uint64_t element_[2]     # aligned for every type
        cdef char *element = <char *>element_
        cdef int k
        self.ready()
        if self.kind >= 0:
            offset = self.offset_of(index)
            if offset >= 0:
                self.fetch(element, offset, self.itemsize)
                return ax_scalar(self.kind, element, self.dtype)
            if self.find_rows(index, &offset, &count, &rows):
                dims[0] = rows
                for k in range(1, self.ndim):
                    dims[k] = self.shape[k]
                result = cnp.PyArray_SimpleNew(self.ndim, dims, self.kind)
                if count:
                    self.fetch(<char *>cnp.PyArray_DATA(result), offset, count)
                return result
        return self._read(index)

    def __setitem__(self, index, value):
        cdef Py_ssize_t offset = 0, count = 0, rows = 0
        cdef uint64_t element_[2]     # aligned for every type
        cdef char *element = <char *>element_
        cdef Participant keep        # another thread may disconnect the handle during take()
        cdef ax_guard *guard
        cdef char *to
        self.ready()
        if self.kind >= 0:
            offset = self.offset_of(index)
            if offset >= 0:
                if self.encode(value, element):
                    keep, guard, to = self.participant, self.guard, self.data + offset
                    self.take(INT64_MAX)
                    store_element(guard, &keep.party, to, element, self.itemsize)
                    lock_release(guard, &keep.party)
                    return
            elif (
                cnp.PyArray_CheckExact(value)
                and cnp.PyArray_TYPE(value) == self.kind
                and cnp.PyArray_ISCARRAY_RO(value)
                and self.find_rows(index, &offset, &count, &rows)
                and self.fits(value, rows)
                and not self.overlaps(<char *>cnp.PyArray_DATA(value), count)
            ):
                if count:
                    self.put(offset, <char *>cnp.PyArray_DATA(value), count)
                return
        self._write(index, value)

    cdef bint fits(self, cnp.ndarray value, Py_ssize_t rows):
        # Exactly the shape of the target, not a view of it: numpy does broadcasting and overlap.
        cdef int k
        cdef char *from_ = <char *>cnp.PyArray_DATA(value)
        if cnp.PyArray_NDIM(value) != self.ndim or cnp.PyArray_DIM(value, 0) != rows:
            return False
        if self.data - cnp.PyArray_NBYTES(value) < from_ < self.data + self.bytes:
            return False
        for k in range(1, self.ndim):
            if cnp.PyArray_DIM(value, k) != self.shape[k]:
                return False
        return True

    cdef bint overlaps(self, const char *from_, Py_ssize_t count) noexcept:
        # A view of this array's memory: numpy copies that.
        return from_ < self.data + self.bytes and self.data < from_ + count

    cdef bint encode(self, object value, char *to) except -1:
        # Encode a Python number or a scalar of this dtype; False if it does not fit exactly.
        cdef int overflow = 0
        cdef long long number
        cdef double real
        if PyLong_CheckExact(value):
            number = PyLong_AsLongLongAndOverflow(value, &overflow)
            if overflow:
                return False
            return encode_integer(self.kind, number, to)
        if PyFloat_CheckExact(value):
            real = PyFloat_AS_DOUBLE(value)
            if self.kind == cnp.NPY_DOUBLE:
                (<double *>to)[0] = real
                return True
            if self.kind == cnp.NPY_FLOAT and (not isfinite(real) or isfinite(<float>real)):
                (<float *>to)[0] = <float>real
                return True
            return False
        if type(value) is self.scalar:
            PyArray_ScalarAsCtype(value, to)
            return True
        return False

    def add(self, index, amount, /):
        """Add `amount` to one element atomically and return the new value.

        Parameters
        ----------
        index : int or tuple of int
            One element.
        amount : int, float or numpy scalar
            Must be representable in the array's dtype.

        Returns
        -------
        numpy scalar
            The element after the addition.

        Raises
        ------
        OverflowError
            The sum does not fit the integer dtype; the element is unchanged.
        OwnerDied
            A writer died during a write and the array is not healed yet.

        Notes
        -----
        Waits for the lock without limit; atomic among all locked accesses.

        Examples
        --------
        >>> import numpy as np
        >>> from ataraxis import SharedMemoryArray
        >>> with SharedMemoryArray.create_array("doc_add", np.zeros(2, "i8")) as counts:
        ...     int(counts.add(0, 5))
        5
        """
        cdef Py_ssize_t offset
        cdef uint64_t element_[2]     # aligned for every type
        cdef uint64_t sum__[2]
        cdef char *element = <char *>element_
        cdef char *sum_ = <char *>sum__
        cdef int status
        self.ready()
        offset = self.offset_of(index) if self.kind >= 0 else -1
        if offset < 0 or not self.encode(amount, element):
            return self._add(index, amount)
        cdef Participant keep = self.participant
        cdef ax_guard *guard = self.guard
        cdef char *to = self.data + offset
        self.take(INT64_MAX)
        if ax_peek32(&guard.health):
            status = AX_TORN
        else:
            status = add_element(self.kind, sum_, to, element)
            if status == AX_OK:
                store_element(guard, &keep.party, to, sum_, self.itemsize)
        lock_release(guard, &keep.party)
        if status == AX_BUSY:
            return self._add(index, amount)
        if status != AX_OK:
            self._fail(status)
        return ax_scalar(self.kind, sum_, self.dtype)

    def _fetch_into(self, cnp.ndarray out not None):
        """Copy the whole payload into `out` (C-contiguous, of the same size), never torn."""
        self.ready()
        if not (cnp.PyArray_IS_C_CONTIGUOUS(out) and cnp.PyArray_ISWRITEABLE(out)) or cnp.PyArray_NBYTES(out) != self.bytes:
            raise ValueError("out must be C-contiguous, writable and of the array's size")
        if self.bytes:
            self.fetch(<char *>cnp.PyArray_DATA(out), 0, self.bytes)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        # The live, read-only ndarray view exports its buffer: it keeps the mapping.
        self.ready()
        array = self.__array__(copy=False)
        if array.dtype.kind == "V" and array.dtype.names is None:
            raise BufferError("the buffer protocol has no void type: use numpy.asarray")
        PyObject_GetBuffer(array, buffer, flags)
