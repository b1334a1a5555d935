"""The consumer's end of a stream: wait for frames, lend them, or copy them into arrays.

The algorithm is reader.pyx's; this is the bridge. It uses the NumPy C-API for filling result arrays.
"""
cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from cython cimport no_gc_clear
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ataraxis._kernels.atomics cimport ax_copy, ax_load64, ax_peek64
from ataraxis._kernels.frame cimport ax_frame
from ataraxis._kernels.join cimport reader_join
from ataraxis._kernels.layout cimport AX_BUSY, AX_EMPTY, AX_ENDED, AX_LAPPED, AX_OK, AX_OVERFLOW, AX_TIMEOUT
from ataraxis._kernels.lend cimport Frame, Lender
from ataraxis._kernels.memory cimport Participant
from ataraxis._kernels.platform cimport ax_prefault
from ataraxis._kernels.reader cimport (
    HELD_BY_COPY, at_position, ax_got, copy_run, count_frame, give_back, has_next, next_frame, next_wait, unchanged,
)
from ataraxis._kernels.ring cimport (
    AX_UNKNOWN, anybody_sends, ax_ring, bytes_at, frame_at, payload_at, ring_open, sequence_at, time_at,
)
from ataraxis._kernels.timing cimport PAUSES, deadline_of, pause

cnp.import_array()


# ---- the bridge

@no_gc_clear   # `ring` points into `participant` and `memory`: neither goes before it
cdef class ConsumerKernel(Lender):
    """A consumer's cursor and pins; its subclass gives the manners.

    A subclass provides `_fail(status)` (raise) and what `Lender` asks for.
    """

    def _open(self, memory, Participant participant not None, dtype, uint32_t policy, bint from_oldest, int durable):
        """Take part as a reader. False: the geometry does not fit the segment."""
        cdef uint64_t slots
        self.memory = memory
        self.participant = participant
        self.dtype = dtype
        if ring_open(&self.ring, &participant.party, <char *>&self.memory[0], self.memory.shape[0]) != AX_OK:
            return False
        slots = self.ring.slots
        with nogil:
            ax_prefault(<char *>&self.memory[0], self.memory.shape[0])
        self.out = bytearray(slots)
        self.ring.out = &self.out[0]
        reader_join(&self.ring, policy, from_oldest, durable)
        self.is_open = True
        return True

    cdef int next(self, ax_got *got, int64_t deadline) except -100:
        # AX_OK, AX_EMPTY (not waiting), AX_TIMEOUT, AX_ENDED, AX_BUSY (cancelled). The caller is inside.
        cdef int status = next_frame(&self.ring, got)
        cdef uint32_t pauses = 1
        cdef bint first = True
        if status != AX_EMPTY or deadline == 0:
            return status
        # Ever rarer looks: every look takes the slot's line away from the producer that is writing it.
        while pauses <= PAUSES:
            pause(pauses)
            pauses *= 2
            status = next_frame(&self.ring, got)
            if status != AX_EMPTY:
                return status
        while True:
            with nogil:
                status = next_wait(&self.ring, got, deadline, first)
            if status != AX_BUSY:
                return status
            first = False
            if self.returned is not None:
                self.settle()
            PyErr_CheckSignals()
            if self.cancel_event is not None and self.cancel_event.is_set():
                return AX_BUSY
            if not self.is_open:
                self._revive()

    cdef Frame wrap(self, ax_got *got):
        # A frame as an object, or None: it was overwritten while we copied it.
        cdef Frame frame = Frame.__new__(Frame)
        frame.owner = self
        frame.index = got.index
        frame.position = got.position
        frame.held = got.held
        frame.head = frame_at(&self.ring, got.index)
        frame.data = payload_at(&self.ring, got.index)
        frame.bytes = bytes_at(&self.ring, got.index)
        if got.held == HELD_BY_COPY and not copied(&self.ring, got, frame):
            return None
        return frame

    cdef Frame fetch(self, int64_t deadline, int *status):
        # Our next frame, counted; None with its status otherwise. The caller is inside.
        cdef ax_got got
        cdef Frame frame = None
        while frame is None:
            status[0] = self.next(&got, deadline)
            if status[0] != AX_OK:
                self.is_drained |= status[0] == AX_ENDED
                return None
            frame = self.wrap(&got)
        count_frame(&self.ring, frame.head.sequence)
        if self._verifies:
            frame.verify()
        return frame

    def receive(self, blocking=True, *, timeout=None, minimum_ts=None):
        """Wait for the next frame and lend it.

        Parameters
        ----------
        blocking : bool
            Wait for it; if false, None when there is none now.
        timeout : float or None
            Longest wait, s; None waits without end.
        minimum_ts : int, optional
            Accepted, and without meaning, as in MomentumX.

        Returns
        -------
        Frame or None
            Held until it is released or dropped, and all views of it are gone. None: nothing there
            (not blocking), the wait was cancelled, or the stream has ended and everything was read.

        Raises
        ------
        TimeoutError
            Nothing came within `timeout`.
        NotConnectedError
            The consumer was closed.

        Notes
        -----
        Looks, then sleeps in the kernel with the GIL released; Ctrl-C ends the wait.

        Examples
        --------
        >>> from ataraxis import Consumer, Producer
        >>> producer = Producer("doc_receive", 100, 4)
        >>> consumer = Consumer("doc_receive")
        >>> producer.send(b"hello")
        True
        >>> consumer.receive().read()
        b'hello'
        """
        cdef int status = AX_OK
        cdef Frame frame
        self.enter()
        try:
            if self.pending is not None:
                frame = self.pending
                self.pending = None
                self.last = frame.head.sequence
                return frame
            frame = self.fetch(deadline_of(timeout) if blocking else 0, &status)
            if frame is not None:
                self.last = frame.head.sequence
        finally:
            self.leave()
        if status == AX_TIMEOUT or status == AX_EMPTY and blocking:
            self._fail(AX_TIMEOUT)
        return frame

    def __iter__(self):
        return self

    def __next__(self):
        frame = self.receive()
        if frame is None:
            raise StopIteration
        return frame

    def _await(self, timeout):
        """Make sure that the next frame is at hand: a status, AX_OK if it is."""
        cdef int status = AX_OK
        self.enter()
        try:
            if self.pending is None:
                self.pending = self.fetch(deadline_of(timeout), &status)
        finally:
            self.leave()
        return status

    @property
    def _has_next(self):
        """Whether a frame we have not had was sent or is being written."""
        return self.is_open and (self.pending is not None or has_next(&self.ring))

    @property
    def _is_live(self):
        """Whether somebody sends."""
        return self.is_open and anybody_sends(&self.ring)

    def _read_into(self, cnp.ndarray out not None, cnp.ndarray times, Py_ssize_t start, timeout):
        """Copy whole frames into the rows of `out` from `start` on: rows filled, and why it ended."""
        cdef Py_ssize_t rows = cnp.PyArray_DIM(out, 0), done = start
        cdef Py_ssize_t each = cnp.PyArray_NBYTES(out) // rows if rows else 0
        cdef char *to = <char *>cnp.PyArray_DATA(out)
        cdef int64_t *stamps = <int64_t *>cnp.PyArray_DATA(times) if times is not None else NULL
        cdef int64_t deadline = deadline_of(timeout)
        cdef int status = AX_OK
        cdef bint has_got = False
        cdef Frame frame
        cdef ax_got got
        self.enter()
        try:
            while done < rows and status == AX_OK:
                if self.pending is not None:
                    if self.pending.bytes != each:
                        status = AX_OVERFLOW
                        break
                    ax_copy(to + done * each, self.pending.data, each)
                    if stamps != NULL:
                        stamps[done] = self.pending.head.time_ns
                    self.last = self.pending.head.sequence
                    self.pending = None
                    # We are inside, so the frame went to `returned`: give it back now, or its slot is missed.
                    self.settle()
                    done += 1
                    continue
                status = AX_OVERFLOW if has_got else AX_EMPTY
                if not self._verifies:
                    with nogil:
                        status = self.drain(to, stamps, each, rows, &done, &got, has_got)
                has_got = False
                if status == AX_EMPTY:
                    status = self.next(&got, deadline)
                    if status == AX_OK:
                        # Ours now: nothing may come between.
                        has_got = True
                        continue
                elif status == AX_OVERFLOW:
                    # One of another size is kept, and refused on the next round; so is one that is verified.
                    status = AX_OK
                    frame = self.wrap(&got)
                    if frame is not None:
                        count_frame(&self.ring, frame.head.sequence)
                        if self._verifies:
                            frame.verify()
                    self.pending, frame = frame, None
                PyErr_CheckSignals()
        finally:
            self.leave()
        self.is_drained |= status == AX_ENDED
        return done, status

    cdef int drain(
        self, char *to, int64_t *stamps, Py_ssize_t each, Py_ssize_t rows, Py_ssize_t *done, ax_got *got, bint has_got,
    ) noexcept nogil:
        # Frames that are there, copied; first the one that we have, if we do.
        cdef int status = AX_OK
        cdef Py_ssize_t run
        cdef bint whole
        cdef uint64_t sequence
        cdef int64_t stamp
        while done[0] < rows:
            if not has_got:
                run = copy_run(
                    &self.ring, to + done[0] * each, NULL if stamps == NULL else stamps + done[0], each, rows - done[0],
                )
                if run:
                    done[0] += run
                    self.last = self.ring.expected - 1
                    continue
                status = next_frame(&self.ring, got)
                if status != AX_OK:
                    break
            has_got = False
            if bytes_at(&self.ring, got.index) != <uint64_t>each:
                status = AX_OVERFLOW
                break
            sequence = sequence_at(&self.ring, got.index)
            stamp = time_at(&self.ring, got.index)
            ax_copy(to + done[0] * each, payload_at(&self.ring, got.index), each)
            whole = got.held != HELD_BY_COPY or unchanged(&self.ring, got)
            give_back(&self.ring, got.index, got.position, got.held)
            if whole:
                count_frame(&self.ring, sequence)
                self.last = sequence
                if stamps != NULL:
                    stamps[done[0]] = stamp
                done[0] += 1
        return status

    def _latest_into(self, cnp.ndarray out not None, cnp.ndarray times not None):
        """Copy the newest frames into the last rows of `out`, whatever was received; how many there were."""
        cdef Py_ssize_t rows = cnp.PyArray_DIM(out, 0), left = rows
        cdef Py_ssize_t each = cnp.PyArray_NBYTES(out) // rows if rows else 0
        cdef char *to = <char *>cnp.PyArray_DATA(out)
        cdef int64_t *stamps = <int64_t *>cnp.PyArray_DATA(times)
        cdef uint64_t position
        cdef int status
        cdef ax_got got
        self.enter()
        try:
            with nogil:
                position = ax_load64(&self.ring.stream.tail)
                while left and position:
                    position -= 1
                    status = at_position(&self.ring, position, &got)
                    if status == AX_LAPPED:
                        break
                    if status == AX_EMPTY:
                        continue
                    if bytes_at(&self.ring, got.index) != <uint64_t>each:
                        break
                    ax_copy(to + (left - 1) * each, payload_at(&self.ring, got.index), each)
                    stamps[left - 1] = time_at(&self.ring, got.index)
                    if not unchanged(&self.ring, &got):
                        break
                    left -= 1
        finally:
            self.leave()
        return rows - left

    @property
    def _words(self):
        """position, received, dropped, held, joined; also after closing."""
        cdef ax_ring *ring = &self.ring
        if self.memory is not None and ring.expected != AX_UNKNOWN:
            self.joined = ax_peek64(&ring.line.joined)
        return ring.position, ring.received, ring.dropped, ring.held, None if ring.expected == AX_UNKNOWN else self.joined


cdef bint copied(ax_ring *ring, ax_got *got, Frame frame) except -1:
    # Where nothing keeps the slot: the frame as bytes of our own, if it stayed whole meanwhile.
    cdef Py_ssize_t front = frame.data - <char *>frame.head
    cdef char *source = <char *>frame.head
    cdef Py_ssize_t count = front + frame.bytes
    cdef char *to
    frame.copy = PyBytes_FromStringAndSize(NULL, count)
    to = PyBytes_AS_STRING(frame.copy)
    with nogil:
        ax_copy(to, source, count)
    frame.head = <ax_frame *>to
    frame.data = to + front
    if unchanged(ring, got):
        return True
    return False


# Statuses, for the rooms.
OK, BUSY, TIMEOUT, FULL, EMPTY, ENDED, OVERFLOW, LAPPED = AX_OK, AX_BUSY, AX_TIMEOUT, -1, AX_EMPTY, AX_ENDED, AX_OVERFLOW, AX_LAPPED
