# Small values as a frame's payload, and back.
from libc.stdint cimport int64_t, uint64_t

from ataraxis._kernels.frame cimport ax_frame

# A payload, zeros before it is laid: of a number, `room` holds it; else the value does.
cdef struct ax_payload:
    ax_frame head             # dtype, ndim and extents
    const char *data
    uint64_t bytes
    int64_t room[2]

cdef bint lay_value(ax_payload *payload, value, int code) except -1
cdef object number_of(int code, const char *data, uint64_t bytes)
cdef object text_of(const char *data, uint64_t bytes)
