# Small values, as a frame's payload and as a frame with an origin.
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ataraxis._kernels.frame cimport ax_frame
from ataraxis._kernels.queue cimport ax_lease, ax_work

# A payload, zeros before it is laid: of a number, `room` holds it; else the value does.
cdef struct ax_payload:
    ax_frame head             # dtype, ndim and extents
    const char *data
    uint64_t bytes
    int64_t room[2]

# Where a value comes from: what lies behind the header.
cdef struct ax_origin:
    uint64_t lane
    uint64_t sequence
    uint32_t part
    uint32_t overlap

# What a frame says of its value.
cdef struct ax_message_header:
    ax_origin origin
    int64_t time_ns
    uint32_t source

cdef bint lay_value(ax_payload *payload, value, int code) except -1
cdef int lay_message(char *slot, ax_payload *payload, ax_message_header *header, crc_of) except -1
# The value of a leased slot, checked; NotImplemented: it goes the long way.
cdef object read_message(ax_work *work, ax_lease *slot_lease, ax_message_header *header, crc_of)
