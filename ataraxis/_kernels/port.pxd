# A worker's way in and out, where one value takes one look.
from libc.stdint cimport int64_t, uint64_t

from ataraxis._kernels.queue cimport ax_grip
from ataraxis._kernels.queue_handle cimport QueueHandle

cdef class PortKernel:
    cdef QueueHandle outbox            # of the only child; None: emitting goes the long way
    cdef QueueHandle inbox             # None: so does getting
    cdef int64_t[::1] board
    cdef Py_ssize_t state, finished     # words of the board: of the run, of the only child
    cdef Py_ssize_t emitted, received, bins, last_bin, lane_at, began, last
    cdef Py_ssize_t edge
    cdef ax_grip grip
    cdef bint is_held                   # `grip` is leased: what `get` returned last
    cdef public uint64_t _lane, _sequence
    cdef uint64_t source
    cdef public bint _has_got, _is_quick
    cdef public object _job, _values

    cdef bint say(self, value, dtype) except -1
    cdef object hear(self)
    cdef int pay(self, int64_t now) except -1
    cdef object attempt(self, int what, value, more)

cdef class Promise:
    cdef PortKernel port
    cdef int what
    cdef object value, more, timeout, inner
    cdef bint is_begun
    cdef int go(self, value, void **result) except -1
