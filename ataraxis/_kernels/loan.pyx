"""A slot lent for writing: the memory of a frame before it is sent."""
from cpython.buffer cimport PyBuffer_FillInfo
from cython cimport final, no_gc_clear
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from ataraxis._kernels.atomics cimport ax_copy, ax_zero
from ataraxis._kernels.frame cimport ax_frame
from ataraxis._kernels.platform cimport ax_now_ns
from ataraxis._kernels.ring cimport abandon, payload_at
from ataraxis._kernels.send cimport ProducerKernel, ax_stamp, head_of, stamp_device

# ---- the bridge

@no_gc_clear   # `data` points into `memory`
cdef class Loan:
    """The payload of a claimed slot, writable until it is sent; exports a buffer.

    A buffer cannot be taken away from who keeps it. So what is exported is memory of our own, which is
    copied into the slot when it is sent; `_memory` is the slot itself, for who can be told that it is over.

    A subclass provides `_over()`, which raises because the loan is over.
    """

    cdef ProducerKernel producer
    cdef uint64_t ticket
    cdef char *data
    cdef readonly Py_ssize_t buffer_size
    cdef Py_ssize_t lent                # times its memory was lent out
    cdef Py_ssize_t written             # bytes put in, gaps included
    cdef bint in_place                  # the slot itself was lent: everybody sees the slot
    cdef unsigned char[::1] own         # what is exported instead of the slot
    cdef readonly uint64_t _position
    cdef readonly uint64_t _sequence
    cdef unsigned char[::1] memory      # keeps the mapping

    def __cinit__(self, ProducerKernel producer not None, uint64_t ticket, *args, **kwargs):
        self.producer = producer
        self.ticket = ticket
        self.memory = producer.memory
        self.own = None   # a view that was never set is not None
        self.data = payload_at(&producer.ring, producer.ring.index)
        self.buffer_size = <Py_ssize_t>producer.ring.capacity
        self._position = producer.ring.position
        self._sequence = producer.ring.position if producer.ring.shared else producer.ring.sent

    @property
    def _is_ours(self):
        """Whether the slot may still be written and sent."""
        return self.ours()

    cdef inline bint ours(self):
        return self.producer.is_open and self.ticket == self.producer.ticket and self.producer.ring.claimed

    @property
    def _was_lent(self):
        """Whether somebody was given its memory, so that what is in it is known to them only."""
        return self.lent > 0

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if not self.ours():
            self._over()
        if not self.in_place and self.own is None and self.buffer_size:
            self.own = bytearray(self.buffer_size)
            memcpy(&self.own[0], self.data, self.written)
            self.data = <char *>&self.own[0]
        self.lent += 1
        PyBuffer_FillInfo(buffer, self, self.data, self.buffer_size, 0, flags)

    @property
    def _memory(self):
        """Where the frame is put together: exports the slot, unless a buffer of our own was exported before."""
        return Place(self)

    def _put(self, Py_ssize_t offset, const unsigned char[::1] data):
        """Copy bytes in; the caller has checked that they fit."""
        if not self.ours():
            self._over()
        if not 0 <= offset <= self.buffer_size - data.shape[0]:
            raise ValueError("outside the slot")
        if data.shape[0]:
            ax_copy(self.data + offset, &data[0], data.shape[0])
            self.written = max(self.written, offset + data.shape[0])

    def _clear(self, Py_ssize_t start, Py_ssize_t stop):
        """Zero bytes that nobody wrote, so that no earlier frame shows through."""
        if not self.ours():
            self._over()
        if 0 <= start < stop <= self.buffer_size:
            ax_zero(self.data + start, stop - start)

    def _get(self, Py_ssize_t start, Py_ssize_t stop):
        """Copy bytes out."""
        if not self.ours():
            self._over()
        if not 0 <= start <= stop <= self.buffer_size:
            raise ValueError("outside the slot")
        return (<char *>self.data)[start:stop]

    def _send(self, Py_ssize_t bytes, int code, tuple shape, int labels, device_time, device_sequence, time_ns):
        """Show the first `bytes` as a frame; the loan is over."""
        cdef ax_stamp stamp
        cdef ax_frame head
        cdef char *slot
        if not 0 <= bytes <= self.buffer_size:
            raise ValueError("outside the slot")
        stamp.has_device = False
        stamp.time_ns = ax_now_ns() if time_ns is None else time_ns
        if device_time is not None or device_sequence is not None:
            stamp_device(&stamp, device_time, device_sequence)
        head_of(&head, code, shape, labels, self.producer.source)
        self.producer.enter()
        try:
            if not self.ours():
                self._over()
            if self.own is not None:
                slot = payload_at(&self.producer.ring, self.producer.ring.index)
                with nogil:
                    ax_copy(slot, self.data, bytes)
            self.producer.seal(bytes, &head, &stamp)
            self.producer.ticket += 1
        finally:
            self.producer.leave()

    def _abandon(self):
        """Give the slot up; readers pass over it."""
        self.producer.enter()
        try:
            if self.ours():
                abandon(&self.producer.ring)
                self.producer.ticket += 1
        finally:
            self.producer.leave()


@final
cdef class Place:
    """Exports the memory in which a loan's frame is put together."""

    cdef Loan loan

    def __cinit__(self, Loan loan not None):
        self.loan = loan

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if not self.loan.ours():
            self.loan._over()
        self.loan.in_place = self.loan.own is None
        self.loan.lent += 1
        PyBuffer_FillInfo(buffer, self, self.loan.data, self.loan.buffer_size, 0, flags)
