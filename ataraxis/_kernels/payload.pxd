# Small values as a frame's payload, and back.
from libc.stdint cimport int64_t, uint64_t
from ataraxis._kernels.layout cimport ax_frame

cdef enum:
    CODE_RAW = 0
    CODE_TEXT = 5
    CODE_F64 = 16
    CODE_BOOL = 19
    CODE_NONE = 20
    CODE_INT = 21

# A payload, zeros before it is laid: of a number, `room` holds it; else the value does.
cdef struct ax_payload:
    ax_frame head             # dtype, ndim and extents
    const char *data
    uint64_t bytes
    int64_t room[2]

cdef bint lay_value(ax_payload *payload, value, int code) except -1
cdef object number_of(int code, const char *data, uint64_t bytes)
cdef object text_of(const char *data, uint64_t bytes)
