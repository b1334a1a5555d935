"""Small frames in blocks: every row of an array is a frame, claimed and shown in runs."""
cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ataraxis._kernels.atomics cimport ax_add64, ax_copy
from ataraxis._kernels.event cimport event_signal
from ataraxis._kernels.frame cimport ax_frame
from ataraxis._kernels.layout cimport AX_BUSY, AX_FULL, AX_OK, AX_PAYLOAD_AT
from ataraxis._kernels.platform cimport ax_crash
from ataraxis._kernels.ring cimport (
    ax_ring, claim, locate, passed_over, payload_at, pinned, publish, publish_run, step,
)
from ataraxis._kernels.run cimport claim_run
from ataraxis._kernels.send cimport ProducerKernel, ax_stamp, number_head

cnp.import_array()

cdef enum:
    RUN = 16               # frames that are claimed at once; sleepers are told after them
    RUN_BYTES = 4096       # of their payloads, at most: longer ones were slower


# ---- the bridge

cdef class RowsKernel(ProducerKernel):
    """A producer that also takes whole arrays."""

    def _send_rows(
        self, cnp.ndarray block not None, const int64_t[::1] times not None, int64_t step_ns, const int64_t[:, ::1] device, timeout,
    ):
        """Send each row of a C-contiguous array as a frame of our dtype and shape; how many were sent.

        `times` has one a row, or the first only; `device` is (n, 2) or None.
        """
        cdef ax_rows rows
        cdef int status = AX_OK
        cdef int64_t deadline = self.patience(timeout)
        cdef ax_stamp stamp
        rows.data, rows.count, rows.sent = <char *>cnp.PyArray_DATA(block), cnp.PyArray_DIM(block, 0), 0
        rows.times = &times[0] if times.shape[0] == rows.count else NULL
        rows.device = &device[0, 0] if device is not None and rows.count else NULL
        stamp.has_device, stamp.is_unsigned = rows.device != NULL, False
        stamp.time_ns = times[0] if times.shape[0] else 0
        self.enter()
        try:
            # A buffer that was lent and not sent is over: its slot is ours.
            self.ticket += self.ring.claimed
            while rows.sent < rows.count:
                with nogil:
                    status = self.burst(&rows, &stamp, step_ns)
                if status == AX_FULL:
                    status = self.take(deadline)
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

    cdef int burst(self, ax_rows *rows, ax_stamp *stamp, int64_t step_ns) noexcept nogil:
        # Frames as long as there is room: runs, or one where there is something in the way of a run.
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
        # Fill all slots of a run, then show them in order: a reader that is close behind takes no line from us that we
        # still write to.
        cdef ax_ring *ring = &self.ring
        cdef uint64_t position = ring.position, end = position + run, sequence = ring.sent
        cdef uint32_t at = 0  # the same for all
        while ring.position < end:
            ring.claimed = True
            if pinned(ring, ring.index) and passed_over(ring):
                continue
            at = self.fill(rows, stamp, step_ns, sequence)
            sequence += 1
            step(ring)
        ax_crash("run_filled")
        locate(ring, position)
        publish_run(ring, end, at, self.typed_bytes)

    cdef inline uint32_t fill(self, ax_rows *rows, ax_stamp *stamp, int64_t step_ns, uint64_t sequence) noexcept nogil:
        # The next row into the slot where we stand: where in it the frame begins.
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
