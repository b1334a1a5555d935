"""A worker's way in and out, as quick as it goes: emit and get, plain and awaited.

One look, in the words of the board and the queue; whatever takes longer, or is out of the ordinary, is the subclass's.
"""
from cpython.exc cimport PyErr_Occurred, PyErr_WarnEx
from cpython.ref cimport Py_INCREF
from cython cimport final, freelist, no_gc
from libc.stdint cimport INT64_MAX, int64_t, uint64_t

from ataraxis._kernels.layout cimport AX_DAMAGED, AX_EMPTY, AX_OK
from ataraxis._kernels.messages cimport ax_message_header, read_message
from ataraxis._kernels.platform cimport ax_now_ns
from ataraxis._kernels.queue cimport ax_lease
from ataraxis._kernels.queue_handle cimport Message, QueueHandle

cdef extern from *:
    """
    typedef int (*ax_sender)(PyObject *, PyObject *, void **);
    static void ax_give_send(PyTypeObject *type, ax_sender send)
    {
        /* Who awaits calls it without an exception for the result (3.10, 3.11); others use __next__. */
        if (type->tp_as_async) type->tp_as_async->am_send = (sendfunc)(void (*)(void))send;
    }
    static void ax_drop(void *p) { Py_DECREF((PyObject *)p); }
    static int ax_send(PyObject *to, PyObject *value, void **result)
    {
        return PyIter_Send(to, value, (PyObject **)result);
    }
    static int ax_log2(uint64_t n) { return n ? 63 - __builtin_clzll(n) : 0; }
    """
    ctypedef int (*ax_sender)(object, object, void **) except -1
    void ax_give_send(object type, ax_sender send)
    int ax_send(object to, object value, void **result) except -1
    int ax_log2(uint64_t n) nogil
    void give_up "ax_drop"(void *)

cdef enum:
    RUNNING = 1            # states of the board
    FINISHED = 2
    RETURN = 0             # of PySendResult

cdef extern from *:
    """
    #define AX_CALL ((uint64_t)1 << 62)      /* of a lane: a caller waits for the result; frames.py has it too */
    """
    const uint64_t CALL "AX_CALL"

cdef object LATER = object()
cdef enum:
    EMIT, EMIT_SYNC, GET, GET_SYNC


# ---- the bridge

cdef class WorkerHandle:
    """What emits and gets; a subclass gives the manners.

    It provides `_emit(value, dtype, timeout)` and `_get(timeout)`, which wait; `_accept(lease)`, which has a leased frame
    that does not read quickly (None: its frames come one by one); `acknowledge()`; and for each awaited call a coroutine of the rest of it:
    `_emit_later(value, dtype)`, `_emit_sync_later(value, dtype, timeout)`, `_get_later()`, `_get_sync_later(timeout)`.
    """

    cdef QueueHandle outbox             # of the only child; None: emitting goes the long way
    cdef QueueHandle inbox              # None: so does getting
    cdef int64_t[::1] board
    cdef Py_ssize_t state, finished     # words of the board: of the run, of the only child
    cdef Py_ssize_t emitted, received, bins, last_bin, lane_at, began, last
    cdef Py_ssize_t edge
    cdef ax_lease slot_lease
    cdef ax_message_header header       # of the frame that `next_value` returned
    cdef bint is_held                   # `slot_lease` is leased: what `get` or `next_value` returned last
    cdef Py_ssize_t busy
    cdef bint tells_gaps                # a value without a result is told to the child
    cdef uint64_t lane_in, lane_out     # results of frames of the one lane go on in the other
    cdef object lane_of
    cdef public uint64_t _lane, _sequence
    cdef uint64_t source
    cdef public bint _has_got, _is_quick
    cdef public object _job, _values

    def _plug(self, board, dict words, QueueHandle inbox, QueueHandle outbox):
        """Take the words of the board and the queues; `words` says where which word is."""
        self.board = board
        self.state, self.finished, self.edge = words["state"], words["finished"], words["edge"]
        self.emitted, self.received = words["emitted"], words["received"]
        self.bins, self.last_bin = words["bins"], words["last_bin"]
        self.lane_at, self.began, self.last = words["lane"], words["began"], words["last"]
        self.source, self.busy = words["source"], words["busy"]
        self.lane_in = self.lane_out = 0
        self.inbox, self.outbox = inbox, outbox
        self._is_quick = inbox is not None

    def _unplug(self, bint is_done):
        """Leave: what was got last is acknowledged, or goes back."""
        if self.is_held:
            self.is_held = False
            if self.inbox.is_open:
                self.inbox.enter()
                try:
                    self.inbox.finish_lease(&self.slot_lease, is_done, not is_done, True)
                finally:
                    self.inbox.leave()
        self._is_quick = False
        self.inbox = self.outbox = None
        self.board = None

    cdef bint try_emit(self, value, dtype) except -1:
        # Whether it went; False: the long way says why not.
        cdef ax_message_header header
        cdef int code = -1, status
        if self.outbox is None or self.board[self.state] > RUNNING or self.board[self.finished] == FINISHED:
            return False
        if dtype is not None:
            if not isinstance(dtype, int):
                return False
            code = dtype
        header.origin.lane, header.origin.sequence = self._lane, self._sequence
        header.origin.part = header.origin.overlap = 0
        header.source, header.time_ns = self.source, ax_now_ns()
        status = self.outbox.post(value, code, &header, 0)
        if status != AX_OK:
            return False
        self._sequence += 1
        self.board[self.emitted] += 1
        self.board[self.edge] += 1
        if self.is_held or self._job is not None:
            self.board[self.began] = header.time_ns
        return True

    cdef int acknowledge_previous(self, int64_t now) except -1:
        # Acknowledge what was got last. The caller is inside.
        if self.is_held:
            self.is_held = False
            self.inbox.finish_lease(&self.slot_lease, 1, False, True)
            self.board[self.began] = 0
            self.board[self.lane_at] = 0
            self.board[self.last] = now
        return 0

    cdef object try_get(self):
        # The next value; LATER: there is none now, or it goes the long way.
        cdef QueueHandle inbox = self.inbox
        cdef ax_message_header header
        cdef int64_t now
        cdef bint is_there
        cdef int status = AX_EMPTY
        value = NotImplemented
        if not self._is_quick or self._values:
            return LATER
        if self._job is not None:
            self.acknowledge()
        self._has_got = True
        inbox.enter()
        try:
            now = ax_now_ns()
            self.acknowledge_previous(now)
            status = inbox.lease_soon(&self.slot_lease)
            is_there = status == AX_OK
            if is_there:
                try:
                    value = read_message(&inbox.work, &self.slot_lease, &header, inbox.crc_of)
                except BaseException:
                    inbox.finish_lease(&self.slot_lease, 0, True, True)
                    raise
        finally:
            inbox.leave()
        if status == AX_DAMAGED:
            inbox._fail(status, False)
        if not is_there:
            return LATER
        if value is NotImplemented:
            self._accept(inbox.adopt(&self.slot_lease))
            return LATER
        self.is_held = True
        self.board[self.lane_at] = header.origin.lane
        self.board[self.lane_at + 1] = header.origin.sequence
        self.board[self.began] = now
        self.board[self.received] += 1
        self.board[self.bins + min(ax_log2(max(now - header.time_ns, 1)), self.last_bin)] += 1
        return value

    def _ack_deferred(self):
        """Acknowledge what was got last, if it was got quickly."""
        if self.is_held:
            self.inbox.enter()
            try:
                self.acknowledge_previous(ax_now_ns())
            finally:
                self.inbox.leave()

    # ---- a function of a value: the next value, and what came of it

    def _serve_with(self, lane_of, bint tells_gaps):
        """Prepare `next_value` and `emit_result`; `lane_of` maps the lane of a frame to that of its results."""
        self.lane_of, self.tells_gaps = lane_of, tells_gaps

    def next_value(self):
        """Lease the next frame and return its value, waiting for it without a limit.

        NotImplemented: it goes the long way, by the inbox. A frame does so if it is not one plain value, if a caller
        waits for its result, or if a worker has failed with it before.
        """
        cdef QueueHandle inbox = self.inbox
        cdef int64_t now
        cdef int status
        value = NotImplemented
        if not self._is_quick:
            return value
        inbox.enter()
        try:
            status = inbox.hold(&self.slot_lease, INT64_MAX)
            now = ax_now_ns()
            if status == AX_OK and self.slot_lease.failures == 0:
                try:
                    value = read_message(&inbox.work, &self.slot_lease, &self.header, inbox.crc_of)
                except BaseException:
                    inbox.finish_lease(&self.slot_lease, 0, True, True)
                    raise
        finally:
            inbox.leave()
        if status != AX_OK:
            return NotImplemented
        if value is NotImplemented or self.header.origin.overlap or self.header.origin.lane & CALL:
            self._accept(inbox.adopt(&self.slot_lease))
            return NotImplemented
        self.is_held = True
        self.board[self.lane_at] = self.header.origin.lane
        self.board[self.lane_at + 1] = self.header.origin.sequence
        self.board[self.began] = now
        self.board[self.received] += 1
        self.board[self.bins + min(ax_log2(max(now - self.header.time_ns, 1)), self.last_bin)] += 1
        return value

    def emit_result(self, result):
        """Send what came of the value of `next_value`, then acknowledge the value.

        False: it goes the long way, and nothing was done; see `message`.
        """
        cdef ax_message_header header = self.header
        cdef int64_t now
        if result is None:
            if self.tells_gaps:
                return False
        else:
            if self.outbox is None or self.board[self.finished] == FINISHED:
                return False
            if header.origin.lane != self.lane_in:
                self.lane_out = self.lane_of(header.origin.lane)
                self.lane_in = header.origin.lane
            header.origin.lane, header.source = self.lane_out, self.source
            header.origin.part = header.origin.overlap = 0
            if self.outbox.post(result, -1, &header, 0) != AX_OK:
                return False
            self.board[self.emitted] += 1
            self.board[self.edge] += 1
        now = ax_now_ns()
        self.board[self.busy] += now - self.board[self.began]
        self.inbox.enter()
        try:
            self.acknowledge_previous(now)
        finally:
            self.inbox.leave()
        return True

    def message(self, value):
        """Return the leased frame of `next_value` as a `Message`, which is acknowledged or given back from now on."""
        cdef Message made = Message.__new__(Message)
        made.queue, made.slot_lease, made.header, made.value = self.inbox, self.slot_lease, self.header, value
        made.is_over = self.is_held = False
        return made

    # ---- plain

    def emit(self, value, dtype=None, timeout=0.5):
        """Hand a value to every child, or to none: False if there was no room in time.

        Parameters
        ----------
        value : object
            As for `Frame.from_value`. Copied.
        dtype : DType, optional
            How to send it, if not as itself.
        timeout : float or None
            Longest wait, s; None waits without end.

        Raises
        ------
        EndOfStream
            The children have finished, or the pipe is being stopped.
        """
        return self.try_emit(value, dtype) or self._emit(value, dtype, timeout)

    def get(self, timeout=5):
        """Return the next value, waiting up to `timeout`, s; None: for ever.

        Acknowledged by the next `get`. Raises `TimeoutError` and `EndOfStream` as
        ``await get_sync()`` does.
        """
        value = self.try_get()
        return self._get(timeout) if value is LATER else value

    # ---- awaited

    cdef object attempt(self, int what, value, more):
        if what == EMIT or what == EMIT_SYNC:
            return True if self.try_emit(value, more) else LATER
        return self.try_get()

    def _emitting(self, value, d_type=None):
        """Emit, awaited: see `Processor.emit`."""
        return ready(self, EMIT, value, d_type, None)

    def _emitting_sync(self, value, d_type=None, timeout=None):
        """Emit, however long it takes, awaited: see `Processor.emit_sync`."""
        return ready(self, EMIT_SYNC, value, d_type, timeout)

    def _getting(self):
        """Get what there is, awaited: see `Processor.get`."""
        return ready(self, GET, None, None, None)

    def _getting_sync(self, timeout=5):
        """Get, awaited: see `Processor.get_sync`."""
        return ready(self, GET_SYNC, None, None, timeout)


cdef inline ReadyAwaitable ready(WorkerHandle port, int what, value, more, timeout):
    cdef ReadyAwaitable made = ReadyAwaitable.__new__(ReadyAwaitable)
    made.port, made.what, made.value, made.more, made.timeout = port, what, value, more, timeout
    return made


@final
@no_gc       # it lives as long as one await, and nothing that it holds knows it
@freelist(16)
cdef class ReadyAwaitable:
    """A coroutine that has its result at its first step, if that is possible at all."""

    cdef WorkerHandle port
    cdef int what
    cdef object value, more, timeout, inner
    cdef bint is_begun

    def __dealloc__(self):
        if not self.is_begun and not PyErr_Occurred():
            PyErr_WarnEx(RuntimeWarning, b"emit or get of a worker was never awaited: nothing was done", 1)

    cdef int go(self, value, void **result) except -1:
        cdef WorkerHandle port = self.port
        if self.inner is None:
            if self.is_begun:
                raise RuntimeError("cannot reuse already awaited coroutine")
            self.is_begun = True
            if value is not None:
                raise TypeError("can't send non-None value to a just-started coroutine")
            found = port.attempt(self.what, self.value, self.more)
            if found is not LATER:
                Py_INCREF(found)
                result[0] = <void *>found
                return RETURN
            if self.what == EMIT:
                self.inner = port._emit_later(self.value, self.more)
            elif self.what == EMIT_SYNC:
                self.inner = port._emit_sync_later(self.value, self.more, self.timeout)
            elif self.what == GET:
                self.inner = port._get_later()
            else:
                self.inner = port._get_sync_later(self.timeout)
        return ax_send(self.inner, value, result)

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value):
        """Go on."""
        cdef void *result = NULL
        cdef int how = self.go(value, &result)
        found = <object>result
        # It was ours to keep: `found` has taken another reference.
        give_up(result)
        if how == RETURN:
            raise StopIteration(found)
        return found

    def throw(self, kind, value=None, trace=None):
        """Go on with an exception."""
        self.is_begun = True
        if self.inner is not None:
            return self.inner.throw(kind if value is None else value)
        if value is None:
            value = kind() if isinstance(kind, type) else kind
        raise value

    def close(self):
        """End."""
        self.is_begun = True
        if self.inner is not None:
            self.inner.close()


cdef int send(promise, value, void **result) except -1:
    return (<ReadyAwaitable>promise).go(value, result)


ax_give_send(ReadyAwaitable, send)
