# Elements: frame codes of NumPy types, encoding of Python integers, addition. No exceptions.
cimport numpy as cnp
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from ataraxis._kernels.frame cimport (
    AX_DTYPE_BOOL, AX_DTYPE_C64, AX_DTYPE_C128, AX_DTYPE_F16, AX_DTYPE_F32, AX_DTYPE_F64, AX_DTYPE_I8, AX_DTYPE_I16,
    AX_DTYPE_I32, AX_DTYPE_I64, AX_DTYPE_U8, AX_DTYPE_U16, AX_DTYPE_U32, AX_DTYPE_U64,
)
from ataraxis._kernels.layout cimport AX_BUSY, AX_OK, AX_OVERFLOW

cdef extern from *:
    """
    #define ax_add_overflows(a, b, out) __builtin_add_overflow(a, b, out)
    """
    bint ax_add_overflows(int64_t a, int64_t b, int64_t *out) nogil
    bint ax_addu_overflows "ax_add_overflows"(uint64_t a, uint64_t b, uint64_t *out) nogil

cdef inline bint encode_integer(int kind, int64_t number, char *to) noexcept:
    if kind == cnp.NPY_LONG or kind == cnp.NPY_LONGLONG:
        (<int64_t *>to)[0] = number
    elif kind == cnp.NPY_ULONG or kind == cnp.NPY_ULONGLONG:
        if number < 0:
            return False
        (<int64_t *>to)[0] = number
    elif kind == cnp.NPY_INT:
        (<int32_t *>to)[0] = <int32_t>number
        return number == <int32_t>number
    elif kind == cnp.NPY_UINT:
        (<uint32_t *>to)[0] = <uint32_t>number
        return number == <int64_t><uint32_t>number
    elif kind == cnp.NPY_DOUBLE:
        (<double *>to)[0] = <double>number
        return -(1 << 53) <= number <= (1 << 53)
    elif kind == cnp.NPY_FLOAT:
        (<float *>to)[0] = <float>number
        return -(1 << 24) <= number <= (1 << 24)
    elif kind == cnp.NPY_UBYTE:
        (<uint8_t *>to)[0] = <uint8_t>number
        return 0 <= number <= 255
    elif kind == cnp.NPY_BYTE:
        (<int8_t *>to)[0] = <int8_t>number
        return -128 <= number <= 127
    elif kind == cnp.NPY_SHORT:
        (<int16_t *>to)[0] = <int16_t>number
        return number == <int16_t>number
    elif kind == cnp.NPY_USHORT:
        (<uint16_t *>to)[0] = <uint16_t>number
        return 0 <= number <= 65535
    else:
        return False
    return True

cdef inline int add_element(int kind, char *to, const char *a, const char *b) noexcept:
    # AX_OK, AX_OVERFLOW, or AX_BUSY for the kinds left to numpy.
    cdef int64_t wide
    if kind == cnp.NPY_DOUBLE:
        (<double *>to)[0] = (<double *>a)[0] + (<double *>b)[0]
    elif kind == cnp.NPY_LONG or kind == cnp.NPY_LONGLONG:
        if ax_add_overflows((<int64_t *>a)[0], (<int64_t *>b)[0], <int64_t *>to):
            return AX_OVERFLOW
    elif kind == cnp.NPY_ULONG or kind == cnp.NPY_ULONGLONG:
        if ax_addu_overflows((<uint64_t *>a)[0], (<uint64_t *>b)[0], <uint64_t *>to):
            return AX_OVERFLOW
    elif kind == cnp.NPY_INT:
        wide = <int64_t>(<int32_t *>a)[0] + (<int32_t *>b)[0]
        return AX_OK if encode_integer(kind, wide, to) else AX_OVERFLOW
    elif kind == cnp.NPY_UINT:
        wide = <int64_t>(<uint32_t *>a)[0] + (<uint32_t *>b)[0]
        return AX_OK if encode_integer(kind, wide, to) else AX_OVERFLOW
    elif kind == cnp.NPY_FLOAT:
        (<float *>to)[0] = (<float *>a)[0] + (<float *>b)[0]
    else:
        return AX_BUSY
    return AX_OK

cdef inline int code_of(int kind) noexcept:
    # The frame code of a NumPy type number, 0: no fast path.
    if kind == cnp.NPY_UINT8:
        return AX_DTYPE_U8
    if kind == cnp.NPY_UINT16:
        return AX_DTYPE_U16
    if kind == cnp.NPY_UINT32:
        return AX_DTYPE_U32
    if kind == cnp.NPY_UINT64:
        return AX_DTYPE_U64
    if kind == cnp.NPY_INT8:
        return AX_DTYPE_I8
    if kind == cnp.NPY_INT16:
        return AX_DTYPE_I16
    if kind == cnp.NPY_INT32:
        return AX_DTYPE_I32
    if kind == cnp.NPY_INT64:
        return AX_DTYPE_I64
    if kind == cnp.NPY_FLOAT16:
        return AX_DTYPE_F16
    if kind == cnp.NPY_FLOAT32:
        return AX_DTYPE_F32
    if kind == cnp.NPY_FLOAT64:
        return AX_DTYPE_F64
    if kind == cnp.NPY_COMPLEX64:
        return AX_DTYPE_C64
    if kind == cnp.NPY_COMPLEX128:
        return AX_DTYPE_C128
    return AX_DTYPE_BOOL if kind == cnp.NPY_BOOL else 0

cdef inline int kind_of(int code) noexcept:
    # The NumPy type number of a frame code, -1: no fast path. BOOL has none: a byte may be neither 0 nor 1.
    if code == AX_DTYPE_U8:
        return cnp.NPY_UINT8
    if code == AX_DTYPE_U16:
        return cnp.NPY_UINT16
    if code == AX_DTYPE_U32:
        return cnp.NPY_UINT32
    if code == AX_DTYPE_U64:
        return cnp.NPY_UINT64
    if code == AX_DTYPE_I8:
        return cnp.NPY_INT8
    if code == AX_DTYPE_I16:
        return cnp.NPY_INT16
    if code == AX_DTYPE_I32:
        return cnp.NPY_INT32
    if code == AX_DTYPE_I64:
        return cnp.NPY_INT64
    if code == AX_DTYPE_F16:
        return cnp.NPY_FLOAT16
    if code == AX_DTYPE_F32:
        return cnp.NPY_FLOAT32
    if code == AX_DTYPE_F64:
        return cnp.NPY_FLOAT64
    if code == AX_DTYPE_C64:
        return cnp.NPY_COMPLEX64
    return cnp.NPY_COMPLEX128 if code == AX_DTYPE_C128 else -1
