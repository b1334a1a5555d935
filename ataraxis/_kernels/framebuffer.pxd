# What a frame buffer's handle works on.
from ataraxis._kernels.layout cimport ax_framebuffer, ax_live
from ataraxis._kernels.memory cimport Participant

cdef class RingKernel:
    cdef unsigned char[::1] memory      # the payload, acquired once
    cdef char *data
    cdef Py_ssize_t capacity
    cdef ax_framebuffer *ring
    cdef ax_live *live
    cdef Participant participant

    cdef int ready(self, bint writes) except -1
    cdef Py_ssize_t number(self, object value, bint is_offset) except -2
    cdef bint inside(self, Py_ssize_t at, Py_ssize_t count) noexcept
