# A producer's handle on a stream.
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ataraxis._kernels.frame cimport ax_frame
from ataraxis._kernels.ring cimport Endpoint

# Times of a frame.
cdef struct ax_stamp:
    int64_t time_ns
    bint has_device
    bint is_unsigned
    uint64_t device_time
    uint64_t device_sequence

# Rows of an array that are being sent.
cdef struct ax_rows:
    const char *data
    Py_ssize_t count
    Py_ssize_t sent
    const int64_t *times    # one a row, or NULL
    const int64_t *device   # two a row: time and counter; or NULL

cdef class ProducerHandle(Endpoint):
    cdef ax_frame typed                 # header of a frame of the stream's dtype and shape
    cdef int kind                       # its numpy type number, -1: any frame
    cdef Py_ssize_t typed_bytes
    cdef Py_ssize_t item_bytes          # of the dtype
    cdef int ndim
    cdef Py_ssize_t shape[8]
    cdef public int _on_full            # 0 block, 1 raise, 2 drop the newest
    cdef public object cancel_event
    cdef uint64_t ticket                # changes when a loan ends
    cdef uint64_t dropped_ticket                # of a loan dropped while a thread was inside; 0: none
    cdef uint64_t next_device
    cdef bint has_device
    cdef uint32_t source
    cdef bint takes_short               # frames may be shorter along the first dimension
    cdef bint counts_samples            # the device's counter counts samples, not frames
    cdef object crc                     # CRC-32 of bytes; None: frames have no checksum
    cdef bint is_summed

    cdef int claim_slot(self, int64_t deadline) except -100
    cdef uint32_t sum(self, char *data, Py_ssize_t bytes) noexcept with gil
    cdef uint32_t write_head(self, Py_ssize_t bytes, const ax_frame *head, ax_stamp *stamp, uint64_t sequence) noexcept nogil
    cdef void publish_frame(self, Py_ssize_t bytes, const ax_frame *head, ax_stamp *stamp) noexcept nogil
    cdef int put(self, const char *data, Py_ssize_t bytes, const ax_frame *head, ax_stamp *stamp, int64_t deadline) except -100
    cdef int64_t deadline_for(self, object timeout) except -1
    cdef bint result_of(self, int status) except -1
    cdef object _send_bytes(self, data, ax_frame *head, ax_stamp *stamp, timeout)
    cdef void end_loan(self, uint64_t ticket) noexcept
    cdef int send_while_room(self, ax_rows *rows, ax_stamp *stamp, int64_t step_ns) noexcept nogil
    cdef void send_run(self, uint64_t run, ax_rows *rows, ax_stamp *stamp, int64_t step_ns) noexcept nogil
    cdef uint32_t fill(self, ax_rows *rows, ax_stamp *stamp, int64_t step_ns, uint64_t sequence) noexcept nogil
