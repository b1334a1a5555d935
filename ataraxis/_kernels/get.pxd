# The getting half of a handle on a work queue.
from libc.stdint cimport int64_t, uint64_t

from ataraxis._kernels.block cimport BlockKernel
from ataraxis._kernels.queue cimport ax_grip

cdef class Grip:
    cdef ax_grip grip
    cdef public uint64_t pending
    cdef public uint64_t out
    cdef public bint failed

cdef class GetKernel(BlockKernel):
    cdef public bint _is_plain          # a get acknowledges at once
    cdef int hold(self, ax_grip *grip, int64_t deadline) except -100
    cdef int settle(self, ax_grip *grip, uint64_t done, bint failed, bint tell) noexcept
    cdef object copy_of(self, ax_grip *grip, int k)
    cdef object quick(self, ax_grip *grip, int k)
    cdef object one(self, ax_grip *grip, int k, bint *is_had)
    cdef bint several(self, ax_grip *grip, Py_ssize_t limit, list values) except -1

cdef bint frame_at(ax_grip *grip, const char *slot, int k, uint64_t *at, uint64_t *bytes) noexcept nogil
