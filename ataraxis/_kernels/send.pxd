# Declared for `loan`: the producer's end of a stream.
from libc.stdint cimport int64_t, uint32_t, uint64_t
from ataraxis._kernels.lock cimport pthread_t
from ataraxis._kernels.layout cimport ax_frame
from ataraxis._kernels.participants cimport Participant
from ataraxis._kernels.ring cimport ax_ring

# What a frame says beside its payload.
cdef struct ax_stamp:
    int64_t time_ns
    bint has_device
    bint is_unsigned
    uint64_t device_time
    uint64_t device_sequence

cdef class ProducerKernel:
    cdef ax_ring ring
    cdef readonly bint is_open
    cdef Participant participant
    cdef unsigned char[::1] memory      # the payload, acquired once
    cdef uint32_t busy                  # a thread is inside
    cdef pthread_t inside               # this one
    cdef bint is_leaving
    cdef ax_frame typed                 # header of a frame of our own dtype and shape
    cdef int kind                       # numpy type number of it, -1: any frame
    cdef Py_ssize_t typed_bytes
    cdef int ndim
    cdef Py_ssize_t shape[8]
    cdef public int _on_full            # 0 block, 1 raise, 2 drop the newest
    cdef public object cancel_event
    cdef uint64_t ticket                # changes when a loan is over
    cdef uint64_t next_device
    cdef bint has_device
    cdef uint32_t source
    cdef object crc                     # CRC-32 of bytes; None: frames have no checksum
    cdef bint is_summed

    cdef int enter(self) except -1
    cdef void leave(self) noexcept
    cdef void detach(self) noexcept
    cdef int take(self, int64_t deadline) except -100
    cdef int put(self, const char *data, Py_ssize_t bytes, const ax_frame *head, ax_stamp *stamp, int64_t deadline) except -100
    cdef inline int64_t patience(self, object timeout) except -1
    cdef bint answer(self, int status) except -1
    cdef object _send_bytes(self, data, ax_frame *head, ax_stamp *stamp, timeout)
    cdef uint32_t sum(self, char *data, Py_ssize_t bytes) noexcept with gil
    cdef uint32_t write_head(self, Py_ssize_t bytes, const ax_frame *head, ax_stamp *stamp, uint64_t sequence) noexcept nogil
    cdef void seal(self, Py_ssize_t bytes, const ax_frame *head, ax_stamp *stamp) noexcept nogil

cdef int stamp_device(ax_stamp *stamp, time, sequence) except -1
cdef int head_of(ax_frame *head, int code, tuple shape, uint32_t labels, uint32_t source) except -1
