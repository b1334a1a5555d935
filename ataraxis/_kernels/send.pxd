# Declared for `loan`: the producer's end of a stream.
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ataraxis._kernels.atomics cimport ax_put64, ax_u64
from ataraxis._kernels.frame cimport ax_frame
from ataraxis._kernels.ring cimport ax_ring
from ataraxis._kernels.turn cimport Turn

# What a frame says beside its payload.
cdef struct ax_stamp:
    int64_t time_ns
    bint has_device
    bint is_unsigned
    uint64_t device_time
    uint64_t device_sequence

cdef inline void number_head(ax_ring *ring, ax_frame *frame, uint64_t length, uint64_t sequence, int64_t time_ns) noexcept nogil:
    # What differs from frame to frame.
    ax_put64(<ax_u64 *>&frame.length, length)
    ax_put64(<ax_u64 *>&frame.sequence, ring.position if ring.shared else sequence)
    ax_put64(<ax_u64 *>&frame.time_ns, <uint64_t>time_ns)
    ax_put64(&ring.stream.last_ns, <uint64_t>time_ns)

cdef class ProducerKernel(Turn):
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
