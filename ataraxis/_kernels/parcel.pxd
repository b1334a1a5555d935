# Frames with an origin, on a work queue's handle: written into the slot, and read out of it.
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ataraxis._kernels.drain cimport DrainKernel
from ataraxis._kernels.get cimport Grip
from ataraxis._kernels.payload cimport ax_payload
from ataraxis._kernels.queue cimport ax_grip

cdef enum:
    UNFIT = -2                # of a put: no frame that goes quickly

# Where a value comes from: what lies behind the header.
cdef struct ax_origin:
    uint64_t lane
    uint64_t sequence
    uint32_t part
    uint32_t overlap

# What a frame says of its value.
cdef struct ax_letter:
    ax_origin origin
    int64_t time_ns
    uint32_t source

cdef class ParcelKernel(DrainKernel):
    cdef int lay(self, char *slot, ax_payload *payload, ax_letter *letter) except -1
    cdef int post(self, value, int code, ax_letter *letter, int64_t deadline) except -100
    cdef int lease_soon(self, ax_grip *grip) except -100
    cdef object opened(self, ax_grip *grip, ax_letter *letter)

cdef class Parcel:
    cdef ParcelKernel queue
    cdef ax_grip grip
    cdef ax_letter letter
    cdef bint is_over
    cdef readonly object value
    cdef bint finish(self, bint is_done) except -1

cdef Grip grip_of(ax_grip *leased)
