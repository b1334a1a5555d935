"""The consumer's handle on a stream: wait for frames, return them as views, or copy them into arrays.

ring.pyx has the algorithm; this is the bridge. A frame's slot is released when the frame was released and its last
view is gone, in any thread. Uses the NumPy C-API for views of a frame and for filling result arrays.
"""
cimport numpy as cnp
from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_ND, PyBUF_READ, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_FillInfo, PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from cpython.memoryview cimport PyMemoryView_FromMemory, PyMemoryView_FromObject
from cpython.ref cimport Py_INCREF
from cython cimport final, freelist, no_gc_clear
from libc.stdint cimport int16_t, int32_t, int64_t, uint16_t, uint32_t, uint64_t

from ataraxis._kernels.atomics cimport AX_GIL_BYTES, ax_copy, ax_load64, ax_peek64, ax_store32
from ataraxis._kernels.event cimport event_wake
from ataraxis._kernels.frame cimport AX_DTYPE_RAW, AX_DTYPE_STR, AX_FLAG_CHECKSUM, AX_FLAG_DEVICE_STAMP, AX_FLAG_DEVICE_UNSIGNED, ax_frame
from ataraxis._kernels.layout cimport (
    AX_BUSY, AX_DAMAGED, AX_EMPTY, AX_ENDED, AX_LAPPED, AX_OK, AX_OVERFLOW, AX_TIMEOUT,
)
from ataraxis._kernels.lock cimport pthread_self
from ataraxis._kernels.memory cimport Participant, inherited
from ataraxis._kernels.platform cimport ax_prefault, ax_take_turn
from ataraxis._kernels.ring cimport (
    AX_UNKNOWN, HELD_BY_COPY, at_position, ax_got, ax_ring, bytes_at, copy_run, count_frame, frame_at, is_over,
    release_frame, has_next, next_frame, next_wait, payload_at, reader_join, reader_leave, ring_open, sequence_at,
    mark_read, time_at, unchanged,
)
from ataraxis._kernels.timing cimport PAUSES, deadline_of, pause

cdef extern from "numpy/arrayobject.h":
    object PyArray_NewFromDescr(type subtype, cnp.dtype descr, int nd, cnp.npy_intp *dims, cnp.npy_intp *strides,
                                void *data, int flags, object obj)

cnp.import_array()

# ---- the bridge

@no_gc_clear   # `ring` points into `participant` and `memory`: neither goes before it
cdef class ConsumerHandle(Endpoint):
    """A consumer's cursor, pins and held frames.

    A subclass provides `_revive()` (make usable or raise), `_fail(status)` (raise), `_dtype_of(code)`,
    `_over(frame)` (raise: the frame was released), `_drained()` (called at the stream's end) and the hooks of `Frame`.
    """

    def _open(self, memory, Participant participant not None, dtype, uint32_t policy, bint from_oldest, int durable):
        """Join as a reader. Return False if the geometry does not fit the segment."""
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
        if reader_join(&self.ring, policy, from_oldest, durable) != AX_OK:
            self._fail(AX_DAMAGED)
        self.is_open = True
        return True

    # ---- one thread inside, and frames that are released meanwhile

    cdef void interrupt(self) noexcept:
        ax_store32(&self.ring.wake_flag, 1)
        event_wake(&self.ring.stream.data)

    cdef void finish(self) noexcept:
        # A frame that was fetched and not received does not count as read.
        if self.pending is None:
            mark_read(&self.ring)
        self.pending = None

    cdef void detach(self) noexcept:
        if self.is_leaving and not self.ring.held:
            self.is_leaving = False
            if self.ring.expected != AX_UNKNOWN:
                self.joined = ax_peek64(&self.ring.line.joined)
            reader_leave(&self.ring)
            self.participant = None
            self.memory = None

    cdef void leave(self) noexcept:
        if self.is_leaving:
            self.pending = None
        if self.returned is not None:
            self.release_returned()
        Endpoint.leave(self)

    cdef int release_returned(self) noexcept:
        # Release the frames that came back while a thread was inside.
        cdef list returned
        ax_store32(&self.ring.wake_flag, 0)
        while self.returned is not None:
            returned, self.returned = self.returned, None
            for index, position, held in returned:
                release_frame(&self.ring, index, position, held)
        return 0

    cdef void release_slot(self, uint64_t index, uint64_t position, int held) noexcept:
        if inherited(self.ring.party):
            return
        if ax_take_turn(&self.busy):
            release_frame(&self.ring, index, position, held)
            self.leave()
            return
        # A thread is inside: that thread releases the frame.
        if self.returned is None:
            self.returned = []
        self.returned.append((index, position, held))
        if self.inside != pthread_self():
            ax_store32(&self.ring.wake_flag, 1)
            event_wake(&self.ring.stream.data)

    # ---- receiving

    cdef int next(self, ax_got *got, int64_t deadline) except -100:
        # AX_OK, AX_EMPTY (not waiting), AX_TIMEOUT, AX_ENDED, AX_BUSY (cancelled). The caller is inside.
        cdef int status = next_frame(&self.ring, got)
        cdef uint32_t pauses = 1
        cdef bint first = True
        if status != AX_EMPTY or deadline == 0:
            return status
        # Increasing pauses: every check takes the slot's cache line from the producer that is writing it.
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
                self.release_returned()
            PyErr_CheckSignals()
            if self.cancel_event is not None and self.cancel_event.is_set():
                return AX_BUSY
            if not self.is_open:
                self._revive()

    cdef Frame wrap(self, ax_got *got):
        # Make a Frame; None if it was overwritten during the copy.
        cdef Frame frame = Frame.__new__(Frame)
        frame.owner = self
        frame.index = got.index
        frame.position = got.position
        frame.held = got.held
        frame.head = frame_at(&self.ring, got.index)
        frame.data = payload_at(&self.ring, got.index)
        frame.bytes = bytes_at(&self.ring, got.index)
        if got.held == HELD_BY_COPY and not copy_frame(&self.ring, got, frame):
            return None
        return frame

    cdef Frame fetch(self, int64_t deadline, int *status):
        # Return the next frame, counted; or None and a status. The caller is inside.
        cdef ax_got got
        cdef Frame frame = None
        while frame is None:
            status[0] = self.next(&got, deadline)
            if status[0] != AX_OK:
                self.is_drained |= status[0] == AX_ENDED
                return None
            frame = self.wrap(&got)
        count_frame(&self.ring, frame.head.sequence, frame.head.header_crc)
        if self._verifies:
            frame.verify()
        return frame

    def receive(self, blocking=True, *, timeout=None, minimum_ts=None):
        """Wait for the next frame and return a view of it.

        Parameters
        ----------
        blocking : bool
            Wait for a frame; if false, return None if none is ready.
        timeout : float or None
            Longest wait, s; None waits without limit.
        minimum_ts : int, optional
            Accepted and ignored, as in MomentumX.

        Returns
        -------
        Frame or None
            Its slot is held until the frame is released or dropped and all its views are gone. None: no frame
            (not blocking), a cancelled wait, or the stream has ended and everything was read.

        Raises
        ------
        TimeoutError
            No frame came within `timeout`.
        NotConnectedError
            The consumer is closed.

        Notes
        -----
        Spins, then sleeps in the kernel with the GIL released; Ctrl-C ends the wait.

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
                self.pending, self.taken = None, 0
                self.last = frame.head.sequence
                return frame
            frame = self.fetch(deadline_of(timeout) if blocking else 0, &status)
            if frame is not None:
                self.last = frame.head.sequence
        finally:
            self.leave()
        if status == AX_TIMEOUT or status == AX_EMPTY and blocking:
            self._fail(AX_TIMEOUT)
        if status == AX_DAMAGED:
            self._fail(status)
        if status == AX_ENDED:
            self._drained()
        return frame

    def __iter__(self):
        return self

    def __next__(self):
        frame = self.receive()
        if frame is None:
            raise StopIteration
        return frame

    def _await(self, timeout):
        """Wait for the next frame and keep it for `receive`; return a status."""
        cdef int status = AX_OK
        self.enter()
        try:
            if self.pending is None:
                self.pending = self.fetch(deadline_of(timeout), &status)
        finally:
            self.leave()
        if status == AX_DAMAGED:
            self._fail(status)
        if status == AX_ENDED:
            self._drained()
        return status

    @property
    def _has_next(self):
        """Whether an unread frame was sent or is being written."""
        return self.is_open and (self.pending is not None or has_next(&self.ring))

    @property
    def _is_live(self):
        """Whether frames may still be published."""
        return self.is_open and not is_over(&self.ring)

    def _read_into(self, cnp.ndarray out not None, cnp.ndarray times, Py_ssize_t start, timeout):
        """Copy whole frames into the rows of `out` from `start` on; return the rows filled and a status."""
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
                    self.pending, self.taken = None, 0
                    # This thread is inside, so the frame went to `returned`: release its slot now.
                    self.release_returned()
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
                        # Taken: drain it before anything else can raise.
                        has_got = True
                        continue
                elif status == AX_OVERFLOW:
                    # A frame of another size is kept and refused in the next round; a verified one is kept too.
                    status = AX_OK
                    frame = self.wrap(&got)
                    if frame is not None:
                        count_frame(&self.ring, frame.head.sequence, frame.head.header_crc)
                        if self._verifies:
                            frame.verify()
                    self.pending, frame = frame, None
                PyErr_CheckSignals()
        finally:
            self.leave()
        self.is_drained |= status == AX_ENDED
        if status == AX_ENDED:
            self._drained()
        return done, status

    cdef int drain(
        self, char *to, int64_t *stamps, Py_ssize_t each, Py_ssize_t rows, Py_ssize_t *done, ax_got *got, bint has_got,
    ) noexcept nogil:
        # Copy the frames that are ready; first `got`, if has_got.
        cdef int status = AX_OK
        cdef Py_ssize_t run
        cdef bint whole
        cdef uint64_t sequence, passed
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
            passed = frame_at(&self.ring, got.index).header_crc
            stamp = time_at(&self.ring, got.index)
            ax_copy(to + done[0] * each, payload_at(&self.ring, got.index), each)
            whole = got.held != HELD_BY_COPY or unchanged(&self.ring, got)
            release_frame(&self.ring, got.index, got.position, got.held)
            if whole:
                count_frame(&self.ring, sequence, passed)
                self.last = sequence
                if stamps != NULL:
                    stamps[done[0]] = stamp
                done[0] += 1
        return status

    # ---- samples of frames, across their edges

    def _read_samples(
        self, cnp.ndarray out not None, int64_t[:, ::1] frames not None, int64_t[::1] state not None, Py_ssize_t whole,
        bint are_blocks, timeout,
    ):
        """Copy the next samples into the rows of `out`, at most to the next loss; return a status.

        `frames` gets time, sequence and number of samples of each frame; `state`, also if this raises: the rows filled, the
        frames used, which sample of the first frame was the first one, and the frames lost before it. LAPPED: frames were
        lost behind the rows filled; OVERFLOW: the next frame does not consist of samples. A frame of which only a part was
        copied is kept: the next call continues with it, and `receive` returns it. Each sample is copied once from the
        ring, except for those of such a frame in a slot that a reader cannot hold.
        """
        cdef ax_samples want
        cdef ax_got got
        cdef int64_t deadline = deadline_of(timeout)
        cdef int status = AX_OK
        cdef bint is_left
        prepare(&want, out, frames, whole, are_blocks)
        self.enter()
        try:
            while want.done < want.rows and want.count < want.room and status == AX_OK:
                if self.pending is not None:
                    status = self.copy_part(&want, &state[0])
                    continue
                is_left = False
                with nogil:
                    status = self.copy_whole(&want, &got, &is_left)
                if status == AX_EMPTY:
                    status = self.next(&got, deadline)
                    is_left = status == AX_OK
                if is_left:
                    self.hold(&got)
                PyErr_CheckSignals()
        finally:
            if not want.done:
                # Nothing is returned that follows the loss: it is shown by the next call.
                self.shown -= <uint64_t>state[3]
                state[3] = 0
            state[0], state[1] = want.done, want.count
            self.leave()
        self.is_drained |= status == AX_ENDED
        if status == AX_ENDED:
            self._drained()
        return status

    cdef int copy_whole(self, ax_samples *want, ax_got *got, bint *is_left) noexcept nogil:
        # Copy whole frames that follow each other. is_left: `got` was taken and is left to the caller.
        cdef Py_ssize_t count
        cdef ax_frame head
        cdef bint is_good
        cdef int status
        while want.done < want.rows and want.count < want.room:
            status = next_frame(&self.ring, got)
            if status != AX_OK:
                return status
            ax_copy(&head, frame_at(&self.ring, got.index), sizeof(ax_frame))
            count = samples_of(want, &head, bytes_at(&self.ring, got.index))
            if (
                self._verifies or count < 0 or count > want.rows - want.done or self.ring.dropped != self.shown
                or self.ring.expected != AX_UNKNOWN and head.sequence != self.ring.expected
            ):
                is_left[0] = True
                return AX_OK
            ax_copy(want.to + want.done * want.row, payload_at(&self.ring, got.index), count * want.row)
            is_good = got.held != HELD_BY_COPY or unchanged(&self.ring, got)
            release_frame(&self.ring, got.index, got.position, got.held)
            if is_good:
                count_frame(&self.ring, head.sequence, head.header_crc)
                self.last = head.sequence
                add_frame(want, &head, count)
                want.done += count
        return AX_OK

    cdef int copy_part(self, ax_samples *want, int64_t *state):
        # Copy what fits of the pending frame: AX_OK, AX_LAPPED (frames were lost before it), AX_OVERFLOW.
        cdef Frame frame = self.pending
        cdef Py_ssize_t count = samples_of(want, frame.head, frame.bytes), taken = self.taken
        cdef Py_ssize_t part = min(count - taken, want.rows - want.done)
        cdef char *to = want.to + want.done * want.row
        if count < taken:
            return AX_OVERFLOW
        if self.ring.dropped != self.shown:
            if want.done:
                return AX_LAPPED
            state[3] += <int64_t>(self.ring.dropped - self.shown)
            self.shown = self.ring.dropped
        if part * want.row > AX_GIL_BYTES:
            with nogil:
                ax_copy(to, frame.data + taken * want.row, part * want.row)
        else:
            ax_copy(to, frame.data + taken * want.row, part * want.row)
        if not want.done:
            state[2] = taken
        if part:
            add_frame(want, frame.head, count)
        want.done += part
        self.taken += part
        self.last = frame.head.sequence
        if self.taken == count:
            self.pending, self.taken = None, 0
            frame = None
            # This thread is inside, so the frame went to `returned`: release its slot now.
            self.release_returned()
        return AX_OK

    cdef int hold(self, ax_got *got) except -1:
        # Keep a frame as the pending one, unless it was overwritten. One whose checksum is wrong counts as lost.
        cdef Frame frame = self.wrap(got)
        if frame is None:
            return 0
        count_frame(&self.ring, frame.head.sequence, frame.head.header_crc)
        if self._verifies:
            self.shown -= 1
            frame.verify()
            self.shown += 1
        self.pending, self.taken = frame, 0
        return 0

    def _latest_into(self, cnp.ndarray out not None, int64_t[:, ::1] frames not None, Py_ssize_t whole, bint are_blocks):
        """Copy the newest samples into the last rows of `out`, received or not; return the rows and the frames.

        The last rows of `frames` get time, sequence and number of samples of each frame.
        """
        cdef ax_samples want
        cdef uint64_t position, looks = self.ring.slots + 1
        cdef Py_ssize_t count, part, left, at
        cdef ax_frame head
        cdef ax_got got
        cdef int status
        prepare(&want, out, frames, whole, are_blocks)
        left = want.rows
        self.enter()
        try:
            with nogil:
                position = ax_load64(&self.ring.stream.tail)
                while left and position and looks and want.count < want.room:
                    position -= 1
                    looks -= 1
                    status = at_position(&self.ring, position, &got)
                    if status == AX_LAPPED:
                        break
                    if status == AX_EMPTY:
                        continue
                    ax_copy(&head, frame_at(&self.ring, got.index), sizeof(ax_frame))
                    count = samples_of(&want, &head, bytes_at(&self.ring, got.index))
                    if count < 0:
                        break
                    part = min(count, left)
                    ax_copy(
                        want.to + (left - part) * want.row, payload_at(&self.ring, got.index) + (count - part) * want.row,
                        part * want.row,
                    )
                    if not unchanged(&self.ring, &got):
                        break
                    left -= part
                    if part:
                        want.count += 1
                        at = 3 * (want.room - want.count)
                        want.frames[at], want.frames[at + 1], want.frames[at + 2] = head.time_ns, <int64_t>head.sequence, count
        finally:
            self.leave()
        return want.rows - left, want.count

    @property
    def _words(self):
        """Position, received, dropped, held, joined; also after closing."""
        cdef ax_ring *ring = &self.ring
        if self.memory is not None and ring.expected != AX_UNKNOWN:
            self.joined = ax_peek64(&ring.line.joined)
        return ring.position, ring.received, ring.dropped, ring.held, None if ring.expected == AX_UNKNOWN else self.joined


cdef int prepare(ax_samples *want, cnp.ndarray out, int64_t[:, ::1] frames, Py_ssize_t whole, bint are_blocks) except -1:
    want.rows, want.done = cnp.PyArray_DIM(out, 0), 0
    want.row = cnp.PyArray_NBYTES(out) // want.rows if want.rows else 0
    want.to = <char *>cnp.PyArray_DATA(out)
    want.room, want.count = frames.shape[0], 0
    want.frames = &frames[0, 0] if frames.shape[0] else NULL
    want.whole, want.are_blocks = whole, are_blocks
    return 0


cdef Py_ssize_t samples_of(ax_samples *want, ax_frame *head, uint64_t bytes) noexcept nogil:
    # How many samples a frame has; -1: it does not consist of the stream's samples. The header is not trusted.
    cdef Py_ssize_t count = want.whole
    if want.are_blocks and head.labels:
        count = <Py_ssize_t>head.extents[0]
        if not head.ndim or count > want.whole:
            return -1
    return count if <uint64_t>(count * want.row) == bytes else -1


cdef inline void add_frame(ax_samples *want, ax_frame *head, Py_ssize_t count) noexcept nogil:
    cdef int64_t *frame = want.frames + 3 * want.count
    if count:
        frame[0], frame[1], frame[2] = head.time_ns, <int64_t>head.sequence, count
        want.count += 1


cdef bint copy_frame(ax_ring *ring, ax_got *got, Frame frame) except -1:
    # Copy an unprotected frame; False if it was overwritten during the copy.
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


cdef const char *format_of(cnp.dtype descr) noexcept:
    # The buffer protocol's format of a native number; NULL of other dtypes.
    cdef int kind = descr.type_num
    if not cnp.PyDataType_ISNUMBER(descr) and kind != cnp.NPY_BOOL or descr.byteorder == c">":
        return NULL
    if kind == cnp.NPY_BOOL:
        return b"?"
    if kind == cnp.NPY_INT8:
        return b"b"
    if kind == cnp.NPY_UINT8:
        return b"B"
    if kind == cnp.NPY_INT16:
        return b"h"
    if kind == cnp.NPY_UINT16:
        return b"H"
    if kind == cnp.NPY_INT32:
        return b"i"
    if kind == cnp.NPY_UINT32:
        return b"I"
    if kind == cnp.NPY_LONG:
        return b"l"
    if kind == cnp.NPY_ULONG:
        return b"L"
    if kind == cnp.NPY_FLOAT32:
        return b"f"
    if kind == cnp.NPY_FLOAT64:
        return b"d"
    return NULL


cdef object number_at(const char *data, const char *form):
    # One number of a format. Payloads are aligned to 64 bytes.
    cdef char kind = form[0]
    if kind == c"d":
        return (<double *>data)[0]
    if kind == c"l":
        return (<int64_t *>data)[0]
    if kind == c"L":
        return (<uint64_t *>data)[0]
    if kind == c"f":
        return <double>(<float *>data)[0]
    if kind == c"i":
        return (<int32_t *>data)[0]
    if kind == c"I":
        return (<uint32_t *>data)[0]
    if kind == c"h":
        return (<int16_t *>data)[0]
    if kind == c"H":
        return (<uint16_t *>data)[0]
    if kind == c"b":
        return <int>(<signed char *>data)[0]
    if kind == c"B":
        return <int>(<unsigned char *>data)[0]
    return data[0] != 0


@final
@freelist(64)
@no_gc_clear
cdef class PinnedSlot:
    """Keeps a frame's slot while a view of it lives; exports the payload's bytes."""

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.frame.data, self.frame.bytes, 1, flags)

    def __dealloc__(self):
        self.frame.views -= 1
        if self.frame.is_over and not self.frame.views:
            self.frame.release_held()


@final
@freelist(64)
@no_gc_clear   # releases its slot through its owner
cdef class Frame:
    """One received frame: read-only, and not overwritten while it or a view of it lives.

    Has the methods of MomentumX's ReadBuffer; converts to an array and to a labelled array.
    """

    def __dealloc__(self):
        self.release_held()

    cdef inline void release_held(self) noexcept:
        if self.held >= 0 and self.owner is not None:
            self.owner.release_slot(self.index, self.position, self.held)
            self.held = -1

    cdef inline int ready(self) except -1:
        if self.is_over:
            self.owner._over(self)
        return 0

    def release(self):
        """Release the slot, once the last live view is gone. May be repeated."""
        self.is_over = True
        if not self.views:
            self.release_held()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.release()

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        self.ready()
        if flags & PyBUF_FORMAT and (self.head.labels or self.head.ndim or self.head.dtype > AX_DTYPE_RAW and self.head.dtype != AX_DTYPE_STR):
            # A consumer of formats (`numpy.asarray`, `memoryview`) gets the array with its dtype and shape. After a
            # BufferError, NumPy goes on to `__array__`.
            if self.fill_typed(buffer, flags):
                return
            array = self.array
            if array.dtype.kind == "V" and array.dtype.names is None:
                raise BufferError(f"the buffer protocol has no {array.dtype}: use .array, or .buffer for the bytes")
            try:
                PyObject_GetBuffer(array, buffer, flags)
            except ValueError:
                raise BufferError(f"the buffer protocol has no {array.dtype}: use .array, or .buffer for the bytes") from None
            return
        PyBuffer_FillInfo(buffer, self, self.data, self.bytes, 1, flags)
        self.views += 1

    def __releasebuffer__(self, Py_buffer *buffer):
        self.views -= 1
        if self.is_over and not self.views:
            self.release_held()

    cdef bint fill_typed(self, Py_buffer *buffer, int flags) except -1:
        # Export an array of native numbers; False: another way is needed.
        cdef cnp.npy_intp dims[4]
        cdef cnp.dtype descr = self.descr()
        cdef const char *form = format_of(descr)
        cdef int k, ndim
        # Bit 0x40: columns first.
        if form == NULL or not flags & PyBUF_ND or flags & (PyBUF_WRITABLE | 0x40):
            return False
        ndim = self.shape_of(descr.itemsize, dims)
        for k in range(ndim):
            self.extents[k] = dims[k]
        if flags & PyBUF_STRIDES == PyBUF_STRIDES:
            self.extents[4 + max(ndim - 1, 0)] = descr.itemsize
            for k in range(ndim - 2, -1, -1):
                self.extents[4 + k] = self.extents[5 + k] * dims[k + 1]
            buffer.strides = &self.extents[4] if ndim else NULL
        else:
            buffer.strides = NULL
        buffer.shape = &self.extents[0] if ndim else NULL
        buffer.buf, buffer.len, buffer.itemsize = self.data, self.bytes, descr.itemsize
        buffer.ndim, buffer.readonly, buffer.format = ndim, 1, <char *>form
        buffer.suboffsets, buffer.internal, buffer.obj = NULL, NULL, self
        self.views += 1
        return True

    cdef PinnedSlot pin(self):
        cdef PinnedSlot keep = PinnedSlot.__new__(PinnedSlot)
        keep.frame = self
        self.views += 1
        return keep

    @property
    def buffer(self):
        """The payload's bytes: a read-only memoryview, shape (bytes,). It keeps the slot."""
        self.ready()
        return PyMemoryView_FromObject(self.pin())

    def __bytes__(self):
        self.ready()
        return PyBytes_FromStringAndSize(self.data, self.bytes)

    @property
    def array(self):
        """The payload: a read-only view with the stream's dtype and the frame's shape.

        It keeps the slot, under every policy. uint8 with shape (bytes,) if the frame is not an array.
        """
        cdef cnp.npy_intp dims[4]
        cdef cnp.dtype descr
        cdef int ndim
        self.ready()
        descr = self.descr()
        ndim = self.shape_of(descr.itemsize, dims)
        Py_INCREF(descr)
        result = PyArray_NewFromDescr(cnp.ndarray, descr, ndim, dims, NULL, self.data, cnp.NPY_ARRAY_C_CONTIGUOUS | cnp.NPY_ARRAY_ALIGNED, None)
        cnp.set_array_base(result, self.pin())
        return result

    cdef cnp.dtype descr(self):
        if self.head.labels and self.owner.dtype is not None:
            return self.owner.dtype
        return self.owner._dtype_of(self.head.dtype)

    cdef int shape_of(self, Py_ssize_t itemsize, cnp.npy_intp *dims) except -1:
        # The shape, and its number of dimensions; raises if it does not fit the bytes.
        cdef int k, ndim = self.head.ndim
        cdef Py_ssize_t count = itemsize
        if ndim > 4:
            self.owner._corrupt(self)
        if ndim == 0 and count != self.bytes:
            ndim = 1
            dims[0] = self.bytes // count if count else 0
            count *= dims[0]
        else:
            for k in range(ndim):
                dims[k] = self.head.extents[k]
                count *= dims[k]
        if count != self.bytes:
            self.owner._corrupt(self)
        return ndim

    def item(self):
        """Return the value of a frame with one element, as a Python object.

        Returns
        -------
        int, float, bool or object
            As `numpy.ndarray.item`; a copy.

        Raises
        ------
        ValueError
            The frame has another number of elements.

        Examples
        --------
        >>> from ataraxis import Consumer, Producer
        >>> with Producer("doc_item", shape=(), dtype="f8") as force:
        ...     with Consumer("doc_item") as reader:
        ...         _ = force.send(0.5)
        ...         reader.receive().item()
        0.5
        """
        cdef cnp.dtype descr
        cdef const char *form
        self.ready()
        descr = self.descr()
        form = format_of(descr)
        if form != NULL and self.bytes == descr.itemsize:
            return number_at(self.data, form)
        return self.array.item()

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    def __array__(self, dtype=None, copy=None):
        array = self.array
        return array if dtype is None or dtype == array.dtype else array.astype(dtype)

    def verify(self):
        """Compare the frame with its CRC-32.

        Returns
        -------
        bool
            True if they match; False if the frame has no checksum (the producer's ``checksum=False``).

        Raises
        ------
        CorruptFrame
            The bytes changed since they were sent.
        """
        cdef Py_ssize_t front
        self.ready()
        if not self.head.flags & AX_FLAG_CHECKSUM:
            return False
        front = self.data - <char *>self.head - sizeof(ax_frame)
        if front + self.bytes:
            data = PyMemoryView_FromMemory(self.data - front, front + self.bytes, PyBUF_READ)
        else:
            data = b""
        self.owner._compare(self, data, self.head.crc)
        return True

    def to_xarray(self):
        """The payload with the stream's labels: a DataArray over a read-only view."""
        return self.owner._to_xarray(self)

    # ---- on a GPU

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        """Export `array` by DLPack: read-only, without a copy; the importer keeps the slot.

        ``dl_device=(3, 0)`` (kDLCUDAHost) states that the memory is page-locked; the consumer must be pinned.
        """
        return self.owner._to_dlpack(self, stream, max_version, dl_device, copy)

    def __dlpack_device__(self):
        return (1, 0)

    def to_torch(self, device="cuda", *, stream=None):
        """Copy the frame into a new tensor, asynchronously.

        Parameters
        ----------
        device : str, int or torch.device
            Where the tensor is made. "cpu": a plain copy.
        stream : torch.cuda.Stream, optional
            The stream of the copy; by default the device's current one.

        Returns
        -------
        torch.Tensor
            The frame's shape and dtype. Work on the same stream sees the whole frame; other streams wait for that one.

        Raises
        ------
        GpuUnavailable
            PyTorch is not installed, or has no such device.

        Notes
        -----
        The call does not wait for the copy if the consumer is pinned (`Consumer.pin`). The slot is held until the copy is
        over, also if the frame is released before.
        """
        return self.owner._to_gpu(self, "torch", device, stream)

    def to_cupy(self, device=None, *, stream=None):
        """Copy the frame into a new CuPy array, asynchronously; otherwise as `to_torch`.

        Parameters
        ----------
        device : int, optional
            Number of the GPU; by default the current one.
        stream : cupy.cuda.Stream, optional
            The stream of the copy; by default the current one.
        """
        return self.owner._to_gpu(self, "cupy", device, stream)

    def to_jax(self, device=None):
        """Copy the frame into a new JAX array, asynchronously; the slot is held as by `to_torch`.

        Parameters
        ----------
        device : str or jax.Device, optional
            As "cuda:0" or "cpu"; by default JAX's.

        Raises
        ------
        TypeError
            JAX would change the dtype: float64 needs its option ``jax_enable_x64``.
        """
        return self.owner._to_gpu(self, "jax", device, None)

    def device_view(self):
        """Return a view that a GPU reads over the bus, without a copy; for small frames.

        Returns
        -------
        DeviceView
            Has ``__cuda_array_interface__``: ``cupy.asarray(view)``, Numba. It keeps the slot: keep it until the kernels
            that read it are over.

        Raises
        ------
        PinError
            The consumer is not pinned.
        """
        return self.owner._device_view(self)

    def _repr_html_(self):
        return self.owner._to_html(self)

    @property
    def value(self):
        """The value that was sent, as a Python or NumPy object; arrays are read-only views."""
        self.ready()
        return self.owner._value(self)

    def __len__(self):
        return self.bytes

    def __getitem__(self, index):
        cdef Py_ssize_t i
        self.ready()
        if isinstance(index, slice):
            start, stop, step = index.indices(self.bytes)
            if step == 1:
                i = start
                return PyBytes_FromStringAndSize(self.data + i, max(stop - start, 0))
            return PyBytes_FromStringAndSize(self.data, self.bytes)[index]
        i = index
        if i < 0:
            i += self.bytes
        if not 0 <= i < self.bytes:
            raise IndexError(f"index {index} is out of range for {self.bytes} bytes")
        return (<unsigned char *>self.data)[i]

    def read(self, count=None):
        """Return all bytes, or `count` bytes from the cursor on; a copy."""
        cdef Py_ssize_t start = 0, stop = self.bytes
        self.ready()
        if count is not None:
            if count < 0:
                raise ValueError(f"count must be >= 0, got {count}")
            start = self.cursor
            stop = min(self.bytes, start + <Py_ssize_t>min(count, self.bytes))
        self.cursor = stop
        return PyBytes_FromStringAndSize(self.data + start, stop - start)

    def seek(self, index):
        """Move the cursor of `read` and return it."""
        if not 0 <= index <= self.bytes:
            raise ValueError(f"position {index} is outside the frame's {self.bytes} bytes")
        self.cursor = index
        return index

    def tell(self):
        """Return the cursor of `read`."""
        return self.cursor

    @property
    def sequence(self):
        """Number within the stream, from 0."""
        self.ready()
        return self.head.sequence

    @property
    def iteration(self):
        """Number within the stream, from 1 (MomentumX)."""
        self.ready()
        return self.head.sequence + 1

    @property
    def time_ns(self):
        """Time of the data: monotonic clock of the producer's host, ns."""
        self.ready()
        return self.head.time_ns

    @property
    def data_timestamp(self):
        """Time of the data, ns (MomentumX)."""
        self.ready()
        return self.head.time_ns

    @property
    def device_time(self):
        """The device's time in its ticks, or None."""
        self.ready()
        if not self.head.flags & AX_FLAG_DEVICE_STAMP:
            return None
        if self.head.flags & AX_FLAG_DEVICE_UNSIGNED:
            return (<uint64_t *>(self.data - 16))[0]
        return (<int64_t *>(self.data - 16))[0]

    @property
    def device_sequence(self):
        """The device's counter, or None."""
        self.ready()
        return (<uint64_t *>(self.data - 8))[0] if self.head.flags & AX_FLAG_DEVICE_STAMP else None

    @property
    def _code(self):
        return self.head.dtype

    @property
    def _flags(self):
        return self.head.flags

    @property
    def _shape(self):
        return tuple([self.head.extents[k] for k in range(min(<int>self.head.ndim, 4))])

    @property
    def nbytes(self):
        """Bytes of payload."""
        return self.bytes

    @property
    def data_size(self):
        """Bytes of payload (MomentumX)."""
        return self.bytes

    @property
    def buffer_id(self):
        """Index of its buffer: iteration modulo the number of buffers (MomentumX)."""
        return (self.position + 1) % self.owner.ring.slots

    @property
    def buffer_size(self):
        """Capacity of a slot in bytes."""
        return self.owner.ring.capacity

    @property
    def buffer_count(self):
        """Number of slots of the stream."""
        return self.owner.ring.slots

    @property
    def dropped_count(self):
        """Frames that its consumer lost so far."""
        return self.owner.ring.dropped

    @property
    def is_released(self):
        """Whether it was released."""
        return self.is_over

    def __repr__(self):
        if self.is_over:
            return "<Frame, released>"
        return f"<Frame {self.head.sequence}: {self.bytes} bytes>"


# Statuses, for other packages.
OK, BUSY, TIMEOUT, FULL, EMPTY, ENDED, OVERFLOW, LAPPED = AX_OK, AX_BUSY, AX_TIMEOUT, -1, AX_EMPTY, AX_ENDED, AX_OVERFLOW, AX_LAPPED
DAMAGED = AX_DAMAGED
