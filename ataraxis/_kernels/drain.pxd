# The draining half of a handle on a work queue.
from ataraxis._kernels.get cimport GetKernel
from ataraxis._kernels.queue cimport ax_grip

cdef class DrainKernel(GetKernel):
    cdef ax_grip *held                  # what was drained and nobody acknowledged
    cdef Py_ssize_t held_count, held_room
    cdef int remember(self, ax_grip *grip) except -1
