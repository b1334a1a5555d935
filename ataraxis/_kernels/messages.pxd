# Small values as payloads, and as frames with an origin.
from cpython.buffer cimport PyBUF_READ
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ataraxis._kernels.arena cimport Arena
from ataraxis._kernels.atomics cimport AX_GIL_BYTES, ax_copy
from ataraxis._kernels.crc cimport AX_CRC_BYTES, ax_copy_crc32, ax_crc32, ax_crc_is_wide
from ataraxis._kernels.frame cimport ax_frame
from ataraxis._kernels.queue cimport ax_lease, ax_work

# An encoded payload, zeroed before use. `room` holds a number; otherwise `data` points into the value.
cdef struct ax_payload:
    ax_frame head             # dtype, ndim and extents
    const char *data
    uint64_t bytes
    int64_t room[2]

# The origin of a value: follows the header.
cdef struct ax_origin:
    uint64_t lane
    uint64_t sequence
    uint32_t part
    uint32_t overlap

# The fields of a message besides its value.
cdef struct ax_message_header:
    ax_origin origin
    int64_t time_ns
    uint32_t source

cdef inline void copy_bytes(char *to, const char *from_, uint64_t count) noexcept:
    # Releases the GIL for a long copy.
    if count <= AX_GIL_BYTES:
        memcpy(to, from_, count)
    else:
        with nogil:
            ax_copy(to, from_, count)

cdef inline uint32_t crc_after(crc_of, uint32_t crc, const char *data, uint64_t count) except? 0xFFFFFFFF:
    # Continue a CRC; `crc_of(data, crc)` is faster for long payloads on some machines. Releases the GIL for a long one.
    if count > AX_CRC_BYTES and not ax_crc_is_wide:
        return crc_of(PyMemoryView_FromMemory(<char *>data, count, PyBUF_READ), crc)
    if count <= AX_GIL_BYTES:
        return ax_crc32(crc, data, count)
    with nogil:
        crc = ax_crc32(crc, data, count)
    return crc

cdef inline uint32_t copy_crc(crc_of, uint32_t crc, char *to, const char *from_, uint64_t count) except? 0xFFFFFFFF:
    # Copy, and continue a CRC by what was copied, in one pass where possible.
    if count > AX_CRC_BYTES and not ax_crc_is_wide:
        copy_bytes(to, from_, count)
        return crc_after(crc_of, crc, to, count)
    if count <= AX_GIL_BYTES:
        return ax_copy_crc32(crc, to, from_, count)
    with nogil:
        crc = ax_copy_crc32(crc, to, from_, count)
    return crc

cdef bint encode_value(ax_payload *payload, value, int code) except -1
cdef int write_message(char *slot, ax_payload *payload, ax_message_header *header, crc_of, bint is_there) except -1
# The value of a leased slot, whose frame is at `slot`, checked; NotImplemented: no fast path. An array in a chunk is a view
# of it if `arena` is given, else a copy.
cdef object read_message(
    ax_work *work, ax_lease *slot_lease, char *slot, uint64_t bytes, Arena arena, ax_message_header *header, crc_of
)
