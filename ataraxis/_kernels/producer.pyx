"""The producer's handle on a stream: claim a slot, fill it, publish it; rows of an array in runs; slots for writing.

ring.pyx has the algorithm; this is the bridge. Uses the NumPy C-API to examine arrays; values that are not sent as
they are go through `_encode` of the subclass.
"""
cimport numpy as cnp
from cpython.buffer cimport PyBUF_READ, PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.memoryview cimport PyMemoryView_FromMemory
from cython cimport final, no_gc_clear
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from ataraxis._kernels.atomics cimport (
    AX_GIL_BYTES, ax_add64, ax_copy, ax_peek64, ax_put32, ax_put64, ax_u32, ax_u64, ax_zero,
)
from ataraxis._kernels.event cimport event_signal, event_wake
from ataraxis._kernels.frame cimport (
    AX_FLAG_CHECKSUM, AX_FLAG_DEVICE_STAMP, AX_FLAG_DEVICE_UNSIGNED, AX_FLAG_PICKLED, AX_FRAME_MAGIC, AX_STAMP_BYTES,
    ax_frame, whole,
)
from ataraxis._kernels.layout cimport AX_BUSY, AX_FULL, AX_OK, AX_OVERFLOW, AX_PAYLOAD_AT
from ataraxis._kernels.memory cimport Participant, inherited
from ataraxis._kernels.platform cimport ax_crash, ax_now_ns, ax_prefault, ax_take_turn
from ataraxis._kernels.ring cimport (
    Endpoint, abandon, ax_ring, claim, claim_wait, locate, skip_pinned, payload_at, pinned, producer_join,
    producer_leave, publish, publish_run, ring_open, step,
)
from ataraxis._kernels.run cimport prefetch_slot, claim_run
from ataraxis._kernels.timing cimport deadline_of

cnp.import_array()

cdef enum:
    RUN = 16               # frames that are claimed together; sleepers are woken after them
    RUN_BYTES = 4096       # most payload bytes of a run: longer runs were slower


# ---- the algorithm

cdef inline void number_head(ax_ring *ring, ax_frame *frame, uint64_t length, uint64_t sequence, int64_t time_ns) noexcept nogil:
    # Write the fields that differ from frame to frame.
    ax_put64(<ax_u64 *>&frame.length, length)
    ax_put64(<ax_u64 *>&frame.sequence, ring.position if ring.shared else sequence)
    ax_put64(<ax_u64 *>&frame.time_ns, <uint64_t>time_ns)
    ax_put64(&ring.stream.last_ns, <uint64_t>time_ns)


# ---- the bridge

@no_gc_clear   # as Endpoint
cdef class ProducerHandle(Endpoint):
    """A producer's state and slots.

    A subclass provides `_encode(value)` -> (code, shape, bytes-like), `_is_on_gpu(value)`, `_send_gpu(value, ...)` -> bool, `_cast(value, casting)` -> array, `_fail(status, sent)` (raise) and
    `_revive()` (make the handle usable or raise).
    """

    def _open(self, memory, Participant participant not None, dtype, shape, int code, uint32_t labels, uint32_t source):
        """Join as a producer; `memory` is the payload (uint8). Return False if the geometry does not fit."""
        cdef int k
        self.memory = memory
        self.participant = participant
        if ring_open(&self.ring, &participant.party, <char *>&self.memory[0], self.memory.shape[0]) != AX_OK:
            return False
        with nogil:
            ax_prefault(<char *>&self.memory[0], self.memory.shape[0])
        memset(&self.typed, 0, sizeof(ax_frame))
        memcpy(self.typed.magic, AX_FRAME_MAGIC, 4)
        self.source = source
        self.typed.source = source
        self.kind = -1
        if dtype is not None:
            self.typed.dtype = code
            self.typed.labels = labels
            self.ndim = len(shape)
            self.typed.ndim = self.ndim
            self.typed_bytes = self.item_bytes = dtype.itemsize
            for k in range(self.ndim):
                self.shape[k] = shape[k]
                self.typed_bytes *= shape[k]
                if k < 4:
                    self.typed.extents[k] = shape[k]
            if self.ndim <= 4 and dtype.isnative and dtype.isbuiltin and dtype.kind in "biufc" and dtype.char not in "gG":
                self.kind = dtype.num
        producer_join(&self.ring)
        self.is_open = True
        return True

    def _leave(self):
        """Leave the stream without an end, as if this process died."""
        self.ring.leaves = True
        self._shut()

    def _shut(self):
        """Leave the stream."""
        self.ticket += self.is_open
        Endpoint._shut(self)

    cdef void interrupt(self) noexcept:
        event_wake(&self.ring.stream.space)

    cdef void detach(self) noexcept:
        if self.is_leaving:
            self.is_leaving = False
            producer_leave(&self.ring)
            self.participant = None
            self.memory = None

    cdef int claim_slot(self, int64_t deadline) except -100:
        # Claim a slot: AX_OK, AX_FULL (not waiting), AX_TIMEOUT, AX_BUSY (cancelled). The caller is inside.
        cdef int status
        cdef bint first = True
        cdef int64_t started
        if self.ring.claimed:
            return AX_OK
        status = claim(&self.ring)
        if status == AX_OK or deadline == 0:
            return status
        started = ax_now_ns()
        ax_put64(&self.ring.stream.stalled_since_ns, <uint64_t>started)
        try:
            while True:
                with nogil:
                    status = claim_wait(&self.ring, deadline, first)
                if status != AX_BUSY:
                    return status
                first = False
                if ax_peek64(&self.ring.stream.stalled_since_ns) == 0:
                    # Cleared by another producer, or by a clean-up: this wait goes on.
                    ax_put64(&self.ring.stream.stalled_since_ns, <uint64_t>started)
                PyErr_CheckSignals()
                if self.cancel_event is not None and self.cancel_event.is_set():
                    return AX_BUSY
                if not self.is_open:
                    self._revive()
                self._stalled((ax_now_ns() - started) * 1e-9)
        finally:
            ax_put64(&self.ring.stream.stalled_since_ns, 0)
            ax_add64(&self.ring.stream.stalled_ns, <uint64_t>(ax_now_ns() - started))

    def _sum_with(self, crc):
        """Give each frame the checksum that `crc(bytes)` returns, over everything after its header."""
        self.crc = crc
        self.is_summed = True

    def _take_short(self, bint counts_samples):
        """Send arrays that are shorter along the first dimension, too: frames are blocks of samples.

        counts_samples: the device's counter advances by the samples of a block.
        """
        self.takes_short = self.ndim > 0
        self.counts_samples = self.takes_short and counts_samples

    cdef uint32_t sum(self, char *data, Py_ssize_t bytes) noexcept with gil:
        return self.crc(PyMemoryView_FromMemory(data, bytes, PyBUF_READ)) if bytes else 0

    cdef uint32_t write_head(self, Py_ssize_t bytes, const ax_frame *head, ax_stamp *stamp, uint64_t sequence) noexcept nogil:
        # Write the header before the payload; returns the frame's offset in the slot. Uses atomics or ax_copy, because a
        # reader that copies and checks again may be reading it.
        cdef uint32_t at = AX_PAYLOAD_AT - sizeof(ax_frame)
        cdef uint16_t flags = head.flags
        cdef char *payload = payload_at(&self.ring, self.ring.index)
        cdef ax_frame *frame
        cdef uint64_t tail[2]
        cdef uint64_t length = bytes
        if stamp.has_device:
            at -= AX_STAMP_BYTES
            length += AX_STAMP_BYTES
            flags |= AX_FLAG_DEVICE_STAMP | (AX_FLAG_DEVICE_UNSIGNED if stamp.is_unsigned else 0)
            tail[0], tail[1] = stamp.device_time, stamp.device_sequence
            ax_copy(payload - AX_STAMP_BYTES, tail, AX_STAMP_BYTES)
            if self.has_device and stamp.device_sequence > self.next_device:
                ax_add64(&self.ring.stream.gaps, stamp.device_sequence - self.next_device)
            self.has_device = True
            self.next_device = stamp.device_sequence + 1
            if self.counts_samples:
                self.next_device += (head.extents[0] if head.labels else <uint64_t>self.shape[0]) - 1
        frame = <ax_frame *>(payload - AX_PAYLOAD_AT + at)
        ax_copy(frame, head, sizeof(ax_frame))
        if self.is_summed:
            flags |= AX_FLAG_CHECKSUM
            ax_put32(<ax_u32 *>&frame.crc, self.sum(payload - (length - bytes), length))
        ax_copy(&frame.flags, &flags, sizeof(flags))
        number_head(&self.ring, frame, length, sequence, stamp.time_ns)
        return at

    cdef void publish_frame(self, Py_ssize_t bytes, const ax_frame *head, ax_stamp *stamp) noexcept nogil:
        # Publish the frame; its payload is written.
        publish(&self.ring, self.write_head(bytes, head, stamp, self.ring.sent), bytes)

    cdef int put(self, const char *data, Py_ssize_t bytes, const ax_frame *head, ax_stamp *stamp, int64_t deadline) except -100:
        # Send one frame with one copy. The caller keeps `data` alive.
        cdef int status
        cdef char *to
        if <uint64_t>bytes > self.ring.capacity:
            return AX_OVERFLOW
        self.enter()
        try:
            # A loan that was not sent is over: its slot is used.
            self.ticket += self.ring.claimed
            status = self.claim_slot(deadline)
            if status == AX_OK:
                to = payload_at(&self.ring, self.ring.index)
                if bytes > AX_GIL_BYTES:
                    with nogil:
                        ax_copy(to, data, bytes // 2)
                        ax_crash("send_half")
                        ax_copy(to + bytes // 2, data + bytes // 2, bytes - bytes // 2)
                else:
                    ax_copy(to, data, bytes)
                self.publish_frame(bytes, head, stamp)
                # Only for readers that gate: with readers that copy, the prefetch was slower.
                if self.ring.is_followed:
                    prefetch_slot(&self.ring, self.ring.index)
        finally:
            self.leave()
        return status

    cdef inline int64_t deadline_for(self, object timeout) except -1:
        return deadline_of(timeout) if self._on_full == 0 else 0

    cdef bint result_of(self, int status) except -1:
        # True: sent, False: dropped; other statuses raise.
        if status == AX_OK:
            return True
        if status == AX_FULL and self._on_full == 2:
            ax_add64(&self.ring.stream.refused, 1)
            return False
        if status == AX_BUSY:
            return False
        self._fail(status)
        return False

    def send(self, value, *, timeout=None, device_time=None, device_sequence=None, time_ns=None, casting=None):
        """Send one frame, with one copy from `value` into the stream.

        Parameters
        ----------
        value : ndarray, bytes-like, str, number, array of a GPU, or any value that a frame can hold
            For a stream with a shape: an array of its dtype, with its shape or another that fits. For a stream of blocks
            (first dim "time"): a block of any length up to that of its shape.
        timeout : float or None
            Longest wait for readers that gate, s; None waits without limit, 0 does not wait.
        device_time : int, optional
            The device's time, in its ticks.
        device_sequence : int, optional
            The device's counter; missing numbers are counted as gaps.
        time_ns : int, optional
            Monotonic time of the data, ns; now, if not given. Of a block: as ``attrs["stamp_of"]`` states, by default of
            its last sample.
        casting : str, optional
            By default, values that would change in the stream's dtype are refused. "unsafe" allows all; "same_kind" and
            the others are numpy's rules.

        Returns
        -------
        bool
            False if the frame was dropped (``on_full="drop_newest"``, a cancelled wait).

        Raises
        ------
        DataOverflow
            The frame does not fit a slot, or a block has more samples than the stream's shape.
        QueueFull
            A reader that gates is behind (``on_full="raise"``).
        TimeoutError
            It still is after `timeout`.
        ValueError, TypeError
            Values, dims or labels do not fit the stream; nothing was sent.

        Notes
        -----
        Waits only for readers that gate; Ctrl-C ends the wait.

        Examples
        --------
        >>> import numpy as np
        >>> from ataraxis import Consumer, Producer
        >>> with Producer("doc_send", shape=(3,), dtype="f8") as daq:
        ...     daq.send(np.arange(3.0))
        True
        """
        cdef ax_stamp stamp
        cdef ax_frame other
        cdef Py_ssize_t count
        cdef int k
        stamp.has_device = False
        stamp.time_ns = ax_now_ns() if time_ns is None else whole(time_ns, "time_ns")
        if device_time is not None or device_sequence is not None:
            stamp_device(&stamp, device_time, device_sequence)
        if casting is not None:
            value = self._cast(value, casting)
        if cnp.PyArray_CheckExact(value) and self.kind >= 0:
            if cnp.PyArray_TYPE(value) == self.kind and cnp.PyArray_NDIM(value) == self.ndim and cnp.PyArray_ISCARRAY_RO(value):
                for k in range(self.takes_short, self.ndim):
                    if cnp.PyArray_DIM(value, k) != self.shape[k]:
                        break
                else:
                    count = cnp.PyArray_DIM(value, 0) if self.takes_short else 0
                    if not self.takes_short or count == self.shape[0]:
                        return self.result_of(self.put(
                            <char *>cnp.PyArray_DATA(value), self.typed_bytes, &self.typed, &stamp, self.deadline_for(timeout),
                        ))
                    if count < self.shape[0]:
                        other = self.typed
                        other.extents[0] = count
                        return self.result_of(self.put(
                            <char *>cnp.PyArray_DATA(value), self.typed_bytes // self.shape[0] * count, &other, &stamp,
                            self.deadline_for(timeout),
                        ))
        elif PyBytes_CheckExact(value) and self.typed_bytes == 0:
            return self.result_of(self.put(
                PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value), &self.typed, &stamp, self.deadline_for(timeout),
            ))
        if hasattr(value, "__dlpack_device__") and self._is_on_gpu(value):
            sent = self._send_gpu(value, timeout, device_time, device_sequence, stamp.time_ns)
            return self.result_of(AX_FULL) if sent is None else sent
        code, shape, data, labels, pickled = self._encode(value)
        head_of(&other, code, shape, labels, self.source)
        if pickled:
            other.flags |= AX_FLAG_PICKLED
        return self._send_bytes(data, &other, &stamp, timeout)

    cdef object _send_bytes(self, data, ax_frame *head, ax_stamp *stamp, timeout):
        cdef const unsigned char[::1] view
        if len(data) == 0:
            return self.result_of(self.put(NULL, 0, head, stamp, self.deadline_for(timeout)))
        view = data
        return self.result_of(self.put(<const char *>&view[0], view.shape[0], head, stamp, self.deadline_for(timeout)))

    def _lend(self, kind, timeout):
        """Claim a slot and return it as a `kind` of WriteLoan; or return a status.

        No exception of a signal handler can come in between: a claimed slot always has an object that drops it.
        """
        cdef int status
        self.enter()
        try:
            status = self.claim_slot(deadline_of(timeout))
            if status == AX_OK:
                self.ticket += 1
        finally:
            self.leave()
        return kind(self, self.ticket) if status == AX_OK else status

    cdef void end_loan(self, uint64_t ticket) noexcept:
        # End a loan that was not sent; in any thread.
        if not self.is_open or inherited(self.ring.party) or ticket != self.ticket or not self.ring.claimed:
            return
        self.dropped_ticket = ticket
        # A thread that is inside drops the slot when it leaves, unless it uses the slot itself.
        if ax_take_turn(&self.busy):
            self.leave()

    cdef void leave(self) noexcept:
        if self.dropped_ticket:
            if self.dropped_ticket == self.ticket and self.ring.claimed:
                # A single producer keeps the slot claimed and reuses it: dropping it would waste a position.
                if self.ring.shared:
                    abandon(&self.ring)
                self.ticket += 1
            self.dropped_ticket = 0
        Endpoint.leave(self)

    # ---- rows: every row of an array is a frame, claimed and published in runs

    def _send_rows(
        self, cnp.ndarray block not None, const int64_t[::1] times not None, int64_t step_ns, const int64_t[:, ::1] device, timeout,
    ):
        """Send each row of a C-contiguous array as a frame of the stream's dtype and shape; return how many were sent.

        `times` has one per row, or only the first; `device` is (n, 2) or None.
        """
        cdef ax_rows rows
        cdef int status = AX_OK
        cdef int64_t deadline = self.deadline_for(timeout)
        cdef ax_stamp stamp
        rows.data, rows.count, rows.sent = <char *>cnp.PyArray_DATA(block), cnp.PyArray_DIM(block, 0), 0
        rows.times = &times[0] if times.shape[0] == rows.count else NULL
        rows.device = &device[0, 0] if device is not None and rows.count else NULL
        stamp.has_device, stamp.is_unsigned = rows.device != NULL, False
        stamp.time_ns = times[0] if times.shape[0] else 0
        self.enter()
        try:
            # A loan that was not sent is over: its slot is used.
            self.ticket += self.ring.claimed
            while rows.sent < rows.count:
                with nogil:
                    status = self.send_while_room(&rows, &stamp, step_ns)
                if status == AX_FULL:
                    status = self.claim_slot(deadline)
                if status != AX_OK:
                    if status == AX_FULL and self._on_full == 2:
                        ax_add64(&self.ring.stream.refused, rows.count - rows.sent)
                    elif status != AX_BUSY:
                        self._fail(status, rows.sent)
                    break
                PyErr_CheckSignals()
        finally:
            event_signal(&self.ring.stream.data, self.ring.words)
            self.leave()
        return rows.sent

    cdef int send_while_room(self, ax_rows *rows, ax_stamp *stamp, int64_t step_ns) noexcept nogil:
        # Send frames while there is room: in runs where possible, else one by one.
        cdef Py_ssize_t most = max(1, min(RUN, RUN_BYTES // max(1, self.typed_bytes)))
        cdef uint64_t run
        while rows.sent < rows.count:
            run = 0 if self.ring.claimed else claim_run(&self.ring, min(most, rows.count - rows.sent))
            if run:
                self.send_run(run, rows, stamp, step_ns)
                continue
            if not self.ring.claimed and claim(&self.ring) != AX_OK:
                event_signal(&self.ring.stream.data, self.ring.words)
                return AX_FULL
            publish(&self.ring, self.fill(rows, stamp, step_ns, self.ring.sent), self.typed_bytes)
        return AX_OK

    cdef void send_run(self, uint64_t run, ax_rows *rows, ax_stamp *stamp, int64_t step_ns) noexcept nogil:
        # Fill all slots of a run, then publish them in order: a reader close behind then takes no cache line that is
        # still being written.
        cdef ax_ring *ring = &self.ring
        cdef uint64_t position = ring.position, end = position + run, sequence = ring.sent
        cdef uint32_t at = 0  # the same for all
        while ring.position < end:
            ring.claimed = True
            if pinned(ring, ring.index) and skip_pinned(ring):
                continue
            at = self.fill(rows, stamp, step_ns, sequence)
            sequence += 1
            step(ring)
        ax_crash("run_filled")
        locate(ring, position)
        publish_run(ring, end, at, self.typed_bytes)

    cdef inline uint32_t fill(self, ax_rows *rows, ax_stamp *stamp, int64_t step_ns, uint64_t sequence) noexcept nogil:
        # Write the next row into the current slot; returns the frame's offset in the slot.
        cdef Py_ssize_t k = rows.sent
        cdef char *payload = payload_at(&self.ring, self.ring.index)
        cdef ax_frame *frame = <ax_frame *>(payload - sizeof(ax_frame))
        cdef uint32_t at = AX_PAYLOAD_AT - sizeof(ax_frame)
        ax_copy(payload, rows.data + k * self.typed_bytes, self.typed_bytes)
        if rows.times != NULL:
            stamp.time_ns = rows.times[k]
        if rows.device != NULL or self.is_summed:
            if rows.device != NULL:
                stamp.device_time, stamp.device_sequence = rows.device[2 * k], rows.device[2 * k + 1]
            at = self.write_head(self.typed_bytes, &self.typed, stamp, sequence)
        else:
            ax_copy(frame, &self.typed, sizeof(ax_frame))
            number_head(&self.ring, frame, self.typed_bytes, sequence, stamp.time_ns)
        stamp.time_ns += step_ns
        rows.sent += 1
        return at


cdef int stamp_device(ax_stamp *stamp, time, sequence) except -1:
    cdef int64_t signed_
    stamp.has_device = True
    stamp.is_unsigned = False
    time = 0 if time is None else whole(time, "device_time")
    if time >= 1 << 63:
        stamp.is_unsigned = True
        stamp.device_time = time
    else:
        signed_ = time
        stamp.device_time = <uint64_t>signed_
    stamp.device_sequence = 0 if sequence is None else whole(sequence, "device_sequence")
    return 0


cdef int head_of(ax_frame *head, int code, tuple shape, uint32_t labels, uint32_t source) except -1:
    cdef int k
    memset(head, 0, sizeof(ax_frame))
    memcpy(head.magic, AX_FRAME_MAGIC, 4)
    if len(shape) > 4:
        raise ValueError(f"a frame in a stream has at most 4 dimensions, got shape {shape}: reshape it")
    head.dtype = code
    head.ndim = len(shape)
    for k in range(len(shape)):
        head.extents[k] = shape[k]
    head.labels = labels
    head.source = source
    return 0


@no_gc_clear   # `data` points into `memory`
cdef class WriteLoan:
    """The payload of a claimed slot, writable until it is sent; exports a buffer.

    An exported buffer cannot be revoked. So the exported memory is private, and is copied into the slot when it is
    sent; `_memory` exports the slot itself, for callers that stop using it when the loan is over.

    A loan that is dropped unsent drops its slot. A subclass provides `send()` and `_over()` (raise: the loan is over).
    """

    cdef ProducerHandle producer
    cdef uint64_t ticket
    cdef char *data
    cdef readonly Py_ssize_t buffer_size
    cdef Py_ssize_t exports                # times its memory was exported
    cdef Py_ssize_t written             # bytes written, gaps included
    cdef bint in_place                  # the slot itself was exported, not private memory
    cdef unsigned char[::1] own         # private memory that is exported instead of the slot
    cdef readonly uint64_t _position
    cdef readonly uint64_t _sequence
    cdef unsigned char[::1] memory      # keeps the mapping

    def __cinit__(self, ProducerHandle producer not None, uint64_t ticket, *args, **kwargs):
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
        return self.is_usable()

    cdef inline bint is_usable(self):
        return self.producer.is_open and self.ticket == self.producer.ticket and self.producer.ring.claimed

    @property
    def _was_lent(self):
        """Whether its memory was exported: only the caller knows which bytes are written."""
        return self.exports > 0

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if not self.is_usable():
            self._over()
        if not self.in_place and self.own is None and self.buffer_size:
            self.own = bytearray(self.buffer_size)
            memcpy(&self.own[0], self.data, self.written)
            self.data = <char *>&self.own[0]
        self.exports += 1
        PyBuffer_FillInfo(buffer, self, self.data, self.buffer_size, 0, flags)

    @property
    def _memory(self):
        """An exporter of the slot, or of the private memory if that was exported before."""
        return SlotView(self)

    def _put(self, Py_ssize_t offset, const unsigned char[::1] data):
        """Copy bytes in. The caller has checked that they fit."""
        if not self.is_usable():
            self._over()
        if not 0 <= offset <= self.buffer_size - data.shape[0]:
            raise ValueError("outside the slot")
        if data.shape[0]:
            ax_copy(self.data + offset, &data[0], data.shape[0])
            self.written = max(self.written, offset + data.shape[0])

    def _clear(self, Py_ssize_t start, Py_ssize_t stop):
        """Zero bytes that were not written, so that no earlier frame shows."""
        if not self.is_usable():
            self._over()
        if 0 <= start < stop <= self.buffer_size:
            ax_zero(self.data + start, stop - start)

    def _get(self, Py_ssize_t start, Py_ssize_t stop):
        """Copy bytes out."""
        if not self.is_usable():
            self._over()
        if not 0 <= start <= stop <= self.buffer_size:
            raise ValueError("outside the slot")
        return (<char *>self.data)[start:stop]

    def _send(self, Py_ssize_t bytes, int code, tuple shape, int labels, device_time, device_sequence, time_ns):
        """Send the first `bytes` as a frame. Ends the loan."""
        cdef ax_stamp stamp
        cdef ax_frame head
        cdef char *slot
        if not 0 <= bytes <= self.buffer_size:
            raise ValueError("outside the slot")
        stamp.has_device = False
        stamp.time_ns = ax_now_ns() if time_ns is None else whole(time_ns, "time_ns")
        if device_time is not None or device_sequence is not None:
            stamp_device(&stamp, device_time, device_sequence)
        head_of(&head, code, shape, labels, self.producer.source)
        self.producer.enter()
        try:
            if not self.is_usable():
                self._over()
            if self.own is not None:
                slot = payload_at(&self.producer.ring, self.producer.ring.index)
                with nogil:
                    ax_copy(slot, self.data, bytes)
            self.producer.publish_frame(bytes, &head, &stamp)
            self.producer.ticket += 1
        finally:
            self.producer.leave()

    def __enter__(self):
        return self

    def __exit__(self, kind, *exc):
        """Send the frame if it was not sent yet; drop it after an exception."""
        if not self.is_usable():
            return
        if kind is not None:
            self.producer.end_loan(self.ticket)
            return
        try:
            self.send()
        except:
            self.producer.end_loan(self.ticket)
            raise

    def __dealloc__(self):
        if self.producer is not None:
            self.producer.end_loan(self.ticket)


@final
cdef class SlotView:
    """Exports the memory in which a loan's frame is assembled."""

    cdef WriteLoan loan

    def __cinit__(self, WriteLoan loan not None):
        self.loan = loan

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if not self.loan.is_usable():
            self.loan._over()
        self.loan.in_place = self.loan.own is None
        self.loan.exports += 1
        PyBuffer_FillInfo(buffer, self, self.loan.data, self.loan.buffer_size, 0, flags)
