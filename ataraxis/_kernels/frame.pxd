# The frame header, flags and codes of frame.h.
from cpython.long cimport PyLong_CheckExact
from cpython.number cimport PyNumber_Index
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "frame.h" nogil:
    const char *AX_FRAME_MAGIC
    enum: AX_EXTENTS_BYTES, AX_STAMP_BYTES, AX_ORIGIN_BYTES
    int AX_FRAME_PAD
    enum:
        AX_FLAG_CHECKSUM, AX_FLAG_END_OF_STREAM, AX_FLAG_PICKLED, AX_FLAG_EXTENTS
        AX_FLAG_DEVICE_STAMP, AX_FLAG_DEVICE_UNSIGNED, AX_FLAG_ORIGIN, AX_FLAG_SESSION_EVENT
    enum:
        AX_DTYPE_RAW, AX_DTYPE_U8, AX_DTYPE_U16, AX_DTYPE_U32, AX_DTYPE_U64, AX_DTYPE_STR
        AX_DTYPE_I8, AX_DTYPE_I16, AX_DTYPE_I32, AX_DTYPE_I64, AX_DTYPE_F16, AX_DTYPE_F32
        AX_DTYPE_F64, AX_DTYPE_C64, AX_DTYPE_C128, AX_DTYPE_BOOL, AX_DTYPE_NONE, AX_DTYPE_INT

    ctypedef struct ax_frame:
        char magic[4]
        uint8_t dtype
        uint8_t ndim
        uint16_t flags
        uint64_t length
        uint64_t sequence
        int64_t time_ns
        uint32_t extents[4]
        uint32_t source
        uint32_t crc
        uint32_t labels
        uint32_t header_crc

    uint64_t ax_padded(uint64_t bytes)
    uint32_t ax_front_bytes(uint32_t flags)

cdef inline object whole(value, str what):
    # A header field as a Python int; TypeError where C would truncate: 1.9 to 1.
    if PyLong_CheckExact(value):
        return value
    try:
        return PyNumber_Index(value)
    except TypeError:
        raise TypeError(f"{what} must be a whole number, got {value!r}") from None
