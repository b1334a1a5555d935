"""Small values, straight into and out of a slot: as payloads, and as frames with an origin (messages of pipelines).

Numbers, None, bytes, ASCII text and arrays of plain numbers, encoded as `ataraxis.frame` encodes them. Other values,
and invalid frames, have no fast path here. Uses the NumPy C-API to examine arrays and to make result arrays.
"""
cimport numpy as cnp
from cpython.bool cimport PyBool_Check
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.long cimport PyLong_CheckExact
from cpython.unicode cimport PyUnicode_CheckExact
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from ataraxis._kernels.arena cimport Arena, Chunk, pinned_chunk
from ataraxis._kernels.crc cimport ax_crc32, ax_crc_init
from ataraxis._kernels.element cimport code_of, kind_of
from ataraxis._kernels.frame cimport (
    AX_DTYPE_BOOL, AX_DTYPE_F64, AX_DTYPE_I8, AX_DTYPE_I64, AX_DTYPE_INT, AX_DTYPE_NONE, AX_DTYPE_RAW, AX_DTYPE_STR,
    AX_DTYPE_U8, AX_DTYPE_U32, AX_DTYPE_U64, AX_FLAG_CHECKSUM, AX_FLAG_ORIGIN, AX_FRAME_MAGIC, ax_frame, ax_padded,
)
from ataraxis._kernels.layout cimport AX_MESSAGE_CHUNK
from ataraxis._kernels.platform cimport ax_crash
from ataraxis._kernels.queue cimport ax_lease, ax_work, queue_holds

cnp.import_array()
ax_crc_init()

cdef enum:
    SMALL = 40             # most bytes of a scalar payload that is read

cdef extern from *:
    """
    static const char *ax_ascii(PyObject *text, Py_ssize_t *bytes)
    {
        if (!PyUnicode_IS_COMPACT_ASCII(text)) return NULL;
        *bytes = PyUnicode_GET_LENGTH(text);
        return (const char *)PyUnicode_1BYTE_DATA(text);
    }
    static PyObject *ax_text(const char *data, Py_ssize_t bytes)
    {
        for (Py_ssize_t i = 0; i < bytes; i++)
            if (data[i] & 0x80) return PyUnicode_DecodeUTF8(data, bytes, "surrogatepass");
        PyObject *text = PyUnicode_New(bytes, 127);
        if (text && bytes) memcpy(PyUnicode_1BYTE_DATA(text), data, bytes);
        return text;
    }
    static int ax_bits(uint64_t n) { return n ? 64 - __builtin_clzll(n) : 0; }
    """
    const char *ax_ascii(object text, Py_ssize_t *bytes)
    object ax_text(const char *data, Py_ssize_t bytes)
    int ax_bits(uint64_t n) nogil
    int64_t PyLong_AsLongLongAndOverflow(object, int *) except? -1
    uint64_t PyLong_AsUnsignedLongLong(object) except? -1
    object PyLong_FromLongLong(int64_t)
    object PyLong_FromUnsignedLongLong(uint64_t)
    object PyFloat_FromDouble(double)


# ---- the bridge

cdef bint encode_number(ax_payload *payload, value, int code) except -1:
    # Encode an integer for its code, two's complement; False if it does not fit.
    cdef int overflow = 0, bits
    cdef int64_t number = PyLong_AsLongLongAndOverflow(value, &overflow)
    cdef uint64_t size
    payload.data = <const char *>payload.room
    payload.room[1] = -1 if number < 0 else 0
    payload.room[0] = number
    if code == -1:
        if overflow:
            return False
        size = <uint64_t>number if number >= 0 else ~<uint64_t>number + 1
        payload.head.dtype = AX_DTYPE_INT
        payload.bytes = ax_bits(size) // 8 + 1
        return True
    payload.head.dtype = code
    if code == AX_DTYPE_U64:
        if overflow < 0 or (overflow == 0 and number < 0):
            return False
        if overflow:
            try:
                payload.room[0] = <int64_t>PyLong_AsUnsignedLongLong(value)
            except OverflowError:
                return False
        payload.bytes = 8
        return True
    if overflow:
        return False
    if AX_DTYPE_U8 <= code <= AX_DTYPE_U32:
        payload.bytes = 1 << code - AX_DTYPE_U8
        bits = 8 << code - AX_DTYPE_U8
        return 0 <= number < <int64_t>1 << bits
    payload.bytes = 1 << code - AX_DTYPE_I8
    bits = (8 << code - AX_DTYPE_I8) - 1
    return code == AX_DTYPE_I64 or -(<int64_t>1 << bits) <= number < <int64_t>1 << bits


cdef bint encode_value(ax_payload *payload, value, int code) except -1:
    # Encode a value as a payload that may point into it; False: no fast path.
    cdef Py_ssize_t bytes = 0
    cdef int k
    if PyLong_CheckExact(value):
        return (code == -1 or AX_DTYPE_U8 <= code <= AX_DTYPE_U64 or AX_DTYPE_I8 <= code <= AX_DTYPE_I64) and encode_number(payload, value, code)
    if code != -1:
        return False
    if PyFloat_CheckExact(value):
        payload.head.dtype = AX_DTYPE_F64
        (<double *>payload.room)[0] = PyFloat_AS_DOUBLE(value)
        payload.data, payload.bytes = <const char *>payload.room, 8
    elif value is None:
        payload.head.dtype = AX_DTYPE_NONE
    elif PyBool_Check(value):
        payload.head.dtype = AX_DTYPE_BOOL
        payload.room[0] = value is True
        payload.data, payload.bytes = <const char *>payload.room, 1
    elif PyBytes_CheckExact(value):
        payload.data, payload.bytes = PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value)
    elif PyUnicode_CheckExact(value):
        payload.data = ax_ascii(value, &bytes)
        payload.head.dtype, payload.bytes = AX_DTYPE_STR, bytes
        return payload.data != NULL
    elif cnp.PyArray_CheckExact(value) and cnp.PyArray_ISCARRAY_RO(value) and 0 < cnp.PyArray_NDIM(value) <= 4:
        payload.head.dtype = code_of(cnp.PyArray_TYPE(value))
        payload.head.ndim = cnp.PyArray_NDIM(value)
        for k in range(cnp.PyArray_NDIM(value)):
            if cnp.PyArray_DIM(value, k) >= 1 << 32:
                return False
            payload.head.extents[k] = cnp.PyArray_DIM(value, k)
        payload.data, payload.bytes = <const char *>cnp.PyArray_DATA(value), cnp.PyArray_NBYTES(value)
        return payload.head.dtype != 0 and payload.bytes != 0
    else:
        return False
    return True


cdef object number_of(int code, const char *data, uint64_t bytes):
    # Decode a scalar; NotImplemented: no fast path.
    cdef int64_t number = 0
    cdef double real = 0
    if bytes > 8:
        return NotImplemented
    memcpy(&number, data, bytes)
    if code == AX_DTYPE_NONE:
        return None if bytes == 0 else NotImplemented
    if code == AX_DTYPE_BOOL:
        return number == 1 if bytes == 1 and number in (0, 1) else NotImplemented
    if code == AX_DTYPE_F64:
        memcpy(&real, &number, 8)
        return PyFloat_FromDouble(real) if bytes == 8 else NotImplemented
    if AX_DTYPE_U8 <= code <= AX_DTYPE_U64:
        return PyLong_FromUnsignedLongLong(<uint64_t>number) if bytes == <uint64_t>1 << code - AX_DTYPE_U8 else NotImplemented
    if bytes == 0 or not (code == AX_DTYPE_INT or (AX_DTYPE_I8 <= code <= AX_DTYPE_I64 and bytes == <uint64_t>1 << code - AX_DTYPE_I8)):
        return NotImplemented
    if bytes < 8 and number >> 8 * bytes - 1:
        number -= <int64_t>1 << 8 * bytes
    return PyLong_FromLongLong(number)


cdef object text_of(const char *data, uint64_t bytes):
    # Decode UTF-8 text, surrogates included.
    return ax_text(data, bytes)


# ---- frames with an origin

cdef int write_message(char *slot, ax_payload *payload, ax_message_header *header, crc_of, bint is_there) except -1:
    # Write the frame with its origin, zero-padded; `is_there`: the payload is in its place already.
    # `crc_of(data, value)` computes the CRC of long payloads.
    cdef uint64_t bytes = payload.bytes
    cdef uint32_t crc = ax_crc32(0, &header.origin, sizeof(ax_origin))
    cdef char *to = slot + sizeof(ax_frame) + sizeof(ax_origin)
    memcpy(slot + sizeof(ax_frame), &header.origin, sizeof(ax_origin))
    # Of the copy in the slot: the value may change meanwhile.
    if is_there:
        crc = crc_after(crc_of, crc, to, bytes)
    elif bytes:           # None has no bytes and no address
        crc = copy_crc(crc_of, crc, to, payload.data, bytes)
    ax_crash("put_half")
    memset(to + bytes, 0, ax_padded(sizeof(ax_frame) + sizeof(ax_origin) + bytes) - sizeof(ax_frame) - sizeof(ax_origin) - bytes)
    memcpy(payload.head.magic, AX_FRAME_MAGIC, 4)
    payload.head.flags = AX_FLAG_CHECKSUM | AX_FLAG_ORIGIN
    payload.head.length = sizeof(ax_origin) + bytes
    payload.head.sequence = header.origin.sequence
    payload.head.time_ns = header.time_ns
    payload.head.source = header.source
    payload.head.crc = crc
    payload.head.header_crc = ax_crc32(0, &payload.head, sizeof(ax_frame) - 4)
    memcpy(slot, &payload.head, sizeof(ax_frame))
    return 0


cdef uint64_t bytes_of(int ndim, cnp.npy_intp *dims, int kind) except? 0:
    # Bytes of an array; the largest number if it is none that fits a chunk.
    cdef uint64_t count = cnp.PyDataType_ELSIZE(cnp.PyArray_DescrFromType(kind))
    cdef int k
    for k in range(ndim):
        if dims[k] and count >= (<uint64_t>1 << 62) // <uint64_t>dims[k]:
            return <uint64_t>-1
        count *= <uint64_t>dims[k]
    return count


cdef object view_of(Chunk pin, char *data, int ndim, cnp.npy_intp *dims, int kind):
    # A read-only array of bytes in a pinned chunk.
    value = cnp.PyArray_SimpleNewFromData(ndim, dims, kind, data)
    cnp.PyArray_CLEARFLAGS(value, cnp.NPY_ARRAY_WRITEABLE)
    cnp.set_array_base(value, pin)
    return value


cdef object read_message(
    ax_work *work, ax_lease *slot_lease, char *slot, uint64_t bytes, Arena arena, ax_message_header *header, crc_of
):
    # The value of a leased slot, checked; NotImplemented: no fast path. The caller is inside.
    cdef uint64_t count
    cdef ax_frame head
    cdef char small[SMALL]
    cdef char *to = small
    cdef uint32_t crc
    cdef int kind, i
    cdef cnp.npy_intp dims[4]
    cdef Chunk pin = None
    if slot == NULL or slot_lease.frames != 1:
        return NotImplemented
    memcpy(&head, slot, sizeof(ax_frame))
    if (
        head.flags != (AX_FLAG_CHECKSUM | AX_FLAG_ORIGIN) or memcmp(head.magic, AX_FRAME_MAGIC, 4) or head.labels or bytes < sizeof(ax_frame) + sizeof(ax_origin)
        or ax_crc32(0, &head, sizeof(ax_frame) - 4) != head.header_crc or head.sequence >> 63
    ):
        return NotImplemented
    memcpy(&header.origin, slot + sizeof(ax_frame), sizeof(ax_origin))
    if header.origin.part:
        return NotImplemented
    header.time_ns, header.source = head.time_ns, head.source
    slot += sizeof(ax_frame) + sizeof(ax_origin)
    count = bytes - sizeof(ax_frame) - sizeof(ax_origin)
    value = None
    if head.ndim == 0 and head.dtype == AX_DTYPE_RAW:
        value = PyBytes_FromStringAndSize(NULL, count)
        to = PyBytes_AS_STRING(value)
    elif head.ndim == 0 and head.dtype == AX_DTYPE_STR:
        value = PyBytes_FromStringAndSize(NULL, count)
        to = PyBytes_AS_STRING(value)
    elif head.ndim == 0:
        if count > SMALL:
            return NotImplemented
    else:
        kind = kind_of(head.dtype)
        if kind < 0 or head.ndim > 4:
            return NotImplemented
        for i in range(head.ndim):
            dims[i] = head.extents[i]
        if arena is not None and slot_lease.flags & AX_MESSAGE_CHUNK:
            if bytes_of(head.ndim, dims, kind) != count:
                return NotImplemented
            pin = pinned_chunk(arena, slot_lease.ticket.chunk, slot_lease.id, slot, count)
            if pin is None:
                return NotImplemented
            to = slot
            value = view_of(pin, slot, head.ndim, dims, kind)
        else:
            value = cnp.PyArray_EMPTY(head.ndim, dims, kind, 0)
            if <uint64_t>cnp.PyArray_NBYTES(value) != count:
                return NotImplemented
            to = <char *>cnp.PyArray_DATA(value)
    crc = ax_crc32(0, &header.origin, sizeof(ax_origin))
    crc = copy_crc(crc_of, crc, to, slot, count) if pin is None else crc_after(crc_of, crc, to, count)
    ax_crash("get_copied")
    if crc != head.crc or not queue_holds(work, slot_lease):
        return NotImplemented
    if head.ndim == 0 and head.dtype == AX_DTYPE_STR:
        return text_of(to, count)
    return number_of(head.dtype, small, count) if value is None else value
