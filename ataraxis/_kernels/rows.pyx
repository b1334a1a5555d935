"""Small frames in blocks: every row of an array is a frame, claimed and shown in runs."""
cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ataraxis._kernels.atomics cimport ax_add64, ax_copy
from ataraxis._kernels.event cimport event_signal
from ataraxis._kernels.layout cimport AX_BUSY, AX_FULL, AX_OK
from ataraxis._kernels.platform cimport ax_crash
from ataraxis._kernels.ring cimport ax_ring, claim, locate, passed_over, payload_at, publish, step
from ataraxis._kernels.run cimport claim_run, ours
from ataraxis._kernels.send cimport ProducerKernel, ax_stamp

cnp.import_array()

cdef enum:
    RUN = 16               # frames that are claimed at once; sleepers are told after them
    RUN_BYTES = 4096       # of their payloads, at most: longer ones were slower


# ---- the bridge

cdef class RowsKernel(ProducerKernel):
    """A producer that also takes whole arrays."""

    def _send_rows(self, cnp.ndarray rows not None, int64_t time_ns, int64_t step_ns, timeout):
        """Send each row of a C-contiguous array as a frame of our dtype and shape; how many were sent."""
        cdef Py_ssize_t count = cnp.PyArray_DIM(rows, 0), sent = 0
        cdef const char *data = <char *>cnp.PyArray_DATA(rows)
        cdef int status = AX_OK
        cdef int64_t deadline = self.patience(timeout)
        cdef ax_stamp stamp
        stamp.has_device = False
        stamp.time_ns = time_ns
        self.enter()
        try:
            # A buffer that was lent and not sent is over: its slot is ours.
            self.ticket += self.ring.claimed
            while sent < count:
                with nogil:
                    status = self.burst(&data, &sent, count, &stamp, step_ns)
                if status == AX_FULL:
                    status = self.take(deadline)
                if status != AX_OK:
                    if status == AX_FULL and self._on_full == 2:
                        ax_add64(&self.ring.stream.refused, count - sent)
                    elif status != AX_BUSY:
                        self._fail(status)
                    break
                PyErr_CheckSignals()
        finally:
            event_signal(&self.ring.stream.data, self.ring.words)
            self.leave()
        return sent

    cdef int burst(self, const char **data, Py_ssize_t *sent, Py_ssize_t count, ax_stamp *stamp, int64_t step_ns) noexcept nogil:
        # Frames as long as there is room: runs, or one where there is something in the way of a run.
        cdef Py_ssize_t most = max(1, min(RUN, RUN_BYTES // max(1, self.typed_bytes)))
        cdef uint64_t run
        while sent[0] < count:
            run = 0 if self.ring.claimed else claim_run(&self.ring, min(most, count - sent[0]))
            if run:
                self.send_run(run, data, sent, stamp, step_ns)
                continue
            if not self.ring.claimed and claim(&self.ring) != AX_OK:
                event_signal(&self.ring.stream.data, self.ring.words)
                return AX_FULL
            ax_copy(payload_at(&self.ring, self.ring.index), data[0], self.typed_bytes)
            self.seal(self.typed_bytes, &self.typed, stamp)
            stamp.time_ns += step_ns
            data[0] += self.typed_bytes
            sent[0] += 1
        return AX_OK

    cdef void send_run(self, uint64_t run, const char **data, Py_ssize_t *sent, ax_stamp *stamp, int64_t step_ns) noexcept nogil:
        # Fill all slots of a run, then show them in order: a reader that is close behind takes no line from us that we
        # still write to.
        cdef ax_ring *ring = &self.ring
        cdef uint64_t position = ring.position, end = position + run, filled = 0
        cdef uint32_t at = 0  # the same for all
        while ring.position < end:
            ring.claimed = True
            if passed_over(ring):
                continue
            ax_copy(payload_at(ring, ring.index), data[0], self.typed_bytes)
            at = self.write_head(self.typed_bytes, &self.typed, stamp, ring.sent + filled)
            stamp.time_ns += step_ns
            data[0] += self.typed_bytes
            filled += 1
            step(ring)
        ax_crash("run_filled")
        locate(ring, position)
        sent[0] += filled
        while ring.position < end:
            if ours(ring):
                filled -= 1
                publish(ring, at, self.typed_bytes, filled == 0)
            else:
                step(ring)
