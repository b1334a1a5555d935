"""Fast paths of a worker's emit and get, plain and awaited.

One check of the board's and the queue's words. Everything else is left to the subclass.
"""
from cpython.exc cimport PyErr_Occurred, PyErr_WarnEx
from cpython.ref cimport Py_INCREF
from cython cimport final, freelist, no_gc
from libc.stdint cimport INT64_MAX, int64_t, uint64_t

from ataraxis._kernels.layout cimport AX_DAMAGED, AX_EMPTY, AX_OK
from ataraxis._kernels.messages cimport ax_message_header
from ataraxis._kernels.platform cimport ax_now_ns
from ataraxis._kernels.queue cimport ax_lease
from ataraxis._kernels.queue_handle cimport Message, QueueHandle

cdef extern from *:
    """
    typedef int (*ax_sender)(PyObject *, PyObject *, void **);
    static void ax_give_send(PyTypeObject *type, ax_sender send)
    {
        /* `await` calls it, which saves the StopIteration (3.10, 3.11); other callers use __next__. */
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
    void drop_reference "ax_drop"(void *)

cdef enum:
    RUNNING = 1            # states of the board
    FINISHED = 2
    RETURN = 0             # of PySendResult

cdef extern from *:
    """
    #define AX_CALL ((uint64_t)1 << 62)      /* bit of a lane: a caller waits for the result; also in frames.py */
    """
    const uint64_t CALL "AX_CALL"

cdef object NOT_READY = object()
cdef enum:
    EMIT, EMIT_SYNC, GET, GET_SYNC


# ---- the bridge

cdef class WorkerHandle:
    """Emit and get of a pipeline's worker.

    A subclass provides `_emit(value, dtype, timeout)` and `_get(timeout)`, which wait; `_accept(lease)`, which takes a
    leased frame without a fast path (None: its frames come one by one); `acknowledge()`; and for each awaited call a
    coroutine that finishes it: `_emit_later(value, dtype)`, `_emit_sync_later(value, dtype, timeout)`, `_get_later()`,
    `_get_sync_later(timeout)`.
    """

    cdef QueueHandle outbox             # of the only child; None: emit has no fast path
    cdef QueueHandle inbox              # None: get has no fast path
    cdef int64_t[::1] board
    cdef Py_ssize_t state, finished     # indices on the board: of the run's state, of the only child's
    cdef Py_ssize_t emitted, received, bins, last_bin, lane_at, began, last
    cdef Py_ssize_t edge
    cdef ax_lease slot_lease
    cdef bint is_held                   # `slot_lease` is the lease of the last value of `get`
    # A function may use the pipe itself while it has a value, so that value has a lease of its own: only `emit_result`
    # acknowledges it, and whatever else ends the worker gives it back.
    cdef ax_lease served
    cdef bint is_served                 # `served` is the lease of the last value of `next_value`
    cdef ax_message_header header       # of that value
    cdef Py_ssize_t busy
    cdef bint tells_gaps                # send the child a gap marker for a value without a result
    cdef uint64_t lane_in, lane_out     # results of frames in `lane_in` are sent in `lane_out`
    cdef object lane_of
    cdef public uint64_t _lane, _sequence
    cdef uint64_t source
    cdef public bint _has_got, _is_quick
    cdef public object _job, _values

    def _plug(self, board, dict words, QueueHandle inbox, QueueHandle outbox, lane_of, bint tells_gaps):
        """Use the board and the queues; `words` maps names to indices on the board.

        `lane_of` maps the lane of a value to that of its results; `tells_gaps`: the child is told of a value without any.
        """
        self.board = board
        self.state, self.finished, self.edge = words["state"], words["finished"], words["edge"]
        self.emitted, self.received = words["emitted"], words["received"]
        self.bins, self.last_bin = words["bins"], words["last_bin"]
        self.lane_at, self.began, self.last = words["lane"], words["began"], words["last"]
        self.source, self.busy = words["source"], words["busy"]
        self.lane_of, self.tells_gaps = lane_of, tells_gaps
        self.lane_in = <uint64_t>-1     # no frame has it
        self.inbox, self.outbox = inbox, outbox
        self._is_quick = inbox is not None

    def _unplug(self, bint is_done):
        """Leave; acknowledge the last value of `get`, or give it back; give that of `next_value` back."""
        cdef bint is_open = (self.is_held or self.is_served) and self.inbox.is_open
        if is_open:
            self.inbox.enter()
            try:
                if self.is_held:
                    self.inbox.finish_lease(&self.slot_lease, is_done, not is_done, True)
                if self.is_served:
                    self.inbox.finish_lease(&self.served, 0, True, True)
            finally:
                self.inbox.leave()
        self.is_held = self.is_served = False
        self._is_quick = False
        self.inbox = self.outbox = None
        self.board = None

    cdef bint try_emit(self, value, dtype) except -1:
        # Emit if there is a fast path; False: `_emit` does it, or raises.
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
        status = self.outbox.put_message(value, code, &header, 0)
        if status != AX_OK:
            return False
        self._sequence += 1
        self.board[self.emitted] += 1
        self.board[self.edge] += 1
        if self.is_held or self._job is not None:
            self.board[self.began] = header.time_ns
        return True

    cdef int acknowledge_previous(self, int64_t now) except -1:
        # Acknowledge the last value. The caller is inside.
        if self.is_held:
            self.is_held = False
            self.inbox.finish_lease(&self.slot_lease, 1, False, True)
            self.end(now)
        return 0

    cdef int begin(self, ax_message_header *header, int64_t now) except -1:
        # Count a value, and show on the board that the worker has it.
        self.board[self.lane_at] = header.origin.lane
        self.board[self.lane_at + 1] = header.origin.sequence
        self.board[self.began] = now
        self.board[self.received] += 1
        self.board[self.bins + min(ax_log2(max(now - header.time_ns, 1)), self.last_bin)] += 1
        return 0

    cdef int end(self, int64_t now) except -1:
        # Show on the board that the worker has acknowledged its value.
        self.board[self.began] = self.board[self.lane_at] = 0
        self.board[self.last] = now
        return 0

    cdef object try_get(self):
        # Return the next value; NOT_READY: none is ready, or it has no fast path.
        cdef QueueHandle inbox = self.inbox
        cdef ax_message_header header
        cdef int64_t now
        cdef bint is_there
        cdef int status = AX_EMPTY
        value = NotImplemented
        if not self._is_quick or self._values:
            return NOT_READY
        if self._job is not None:
            self.acknowledge()
        self._has_got = True
        inbox.enter()
        try:
            now = ax_now_ns()
            self.acknowledge_previous(now)
            status = inbox.try_lease(&self.slot_lease)
            is_there = status == AX_OK
            if is_there:
                try:
                    value = inbox.read(&self.slot_lease, &header)
                except BaseException:
                    inbox.finish_lease(&self.slot_lease, 0, True, True)
                    raise
        finally:
            inbox.leave()
        if status == AX_DAMAGED:
            inbox._fail(status, False)
        if not is_there:
            return NOT_READY
        if value is NotImplemented:
            self._accept(inbox.frame_lease_of(&self.slot_lease))
            return NOT_READY
        self.is_held = True
        self.begin(&header, now)
        return value

    def _ack_deferred(self):
        """Acknowledge the last value, if it came by the fast path."""
        if self.is_held:
            self.inbox.enter()
            try:
                self.acknowledge_previous(ax_now_ns())
            finally:
                self.inbox.leave()

    # ---- a plain function: the next value, and its result

    def serve(self, call, end_value):
        """Get each value, call a function with it, send its result and acknowledge the value, until one has no fast path.

        `end_value(value, result, error)` handles a result that the kernel cannot send, or what the function raised.
        """
        while True:
            value = self.next_value()
            if value is NotImplemented:
                return
            try:
                result = call(value)
            except BaseException as error:
                end_value(value, None, error)
            else:
                if not self.emit_result(result):
                    end_value(value, result, None)
            # Views end here, not after a wait for the next value.
            value = result = None

    cpdef object next_value(self):
        """Lease the next frame and return its value, waiting for it without a limit.

        NotImplemented: no fast path; the inbox returns the frame. So for a frame that is not one plain value, one for
        whose result a caller waits, and one with which a worker has failed before.
        """
        cdef QueueHandle inbox = self.inbox
        cdef int64_t now
        cdef int status
        value = NotImplemented
        if not self._is_quick:
            return value
        inbox.enter()
        try:
            status = inbox.lease_next(&self.served, INT64_MAX)
            now = ax_now_ns()
            if status == AX_OK:
                self.is_served = True
                value = inbox.read(&self.served, &self.header)
        finally:
            inbox.leave()
        if status != AX_OK:
            if status == AX_DAMAGED:
                inbox._fail(status, False)
            return NotImplemented
        if value is NotImplemented:
            self.is_served = False
            self._accept(inbox.frame_lease_of(&self.served))
            return NotImplemented
        if self.served.failures or self.header.origin.overlap or self.header.origin.lane & CALL:
            self._accept(self.message(value))
            return NotImplemented
        self.begin(&self.header, now)
        return value

    cpdef bint emit_result(self, result) except -1:
        """Send the result for the value of `next_value`, then acknowledge the value.

        Return False if there is no fast path and nothing was done; see `message`.
        """
        cdef ax_message_header header = self.header
        cdef int64_t now
        if result is None:
            if self.tells_gaps:
                return False
        else:
            if self.outbox is None or self.board[self.finished] == FINISHED or not self.outbox.probably_has_room():
                return False
            if header.origin.lane != self.lane_in:
                self.lane_out = self.lane_of(header.origin.lane)
                self.lane_in = header.origin.lane
            header.origin.lane, header.source = self.lane_out, self.source
            header.origin.part = header.origin.overlap = 0
            if self.outbox.put_message(result, -1, &header, 0) != AX_OK:
                return False
            self.board[self.emitted] += 1
            self.board[self.edge] += 1
        now = ax_now_ns()
        if self.board[self.began]:      # 0: an emit of the function's own waited
            self.board[self.busy] += now - self.board[self.began]
        self.inbox.enter()
        try:
            self.is_served = False
            self.inbox.finish_lease(&self.served, 1, False, True)
        finally:
            self.inbox.leave()
        self.end(now)
        return True

    def message(self, value):
        """Return the leased frame of `next_value` as a `Message`, which now holds the lease."""
        cdef Message made = Message.__new__(Message)
        made.queue, made.slot_lease, made.header, made.value = self.inbox, self.served, self.header, value
        made.is_over = self.is_served = False
        return made

    # ---- plain

    def emit(self, value, dtype=None, timeout=0.5):
        """Emit a value to every child, or to none. Return False if there was no room in time.

        Parameters
        ----------
        value : object
            As for `Frame.from_value`. Copied.
        dtype : DType, optional
            Dtype to send it as; by default its own.
        timeout : float or None
            Longest wait, s; None waits without limit.

        Raises
        ------
        EndOfStream
            The children have finished, or the pipe is being stopped.
        """
        return self.try_emit(value, dtype) or self._emit(value, dtype, timeout)

    def get(self, timeout=5):
        """Return the next value. Waits up to `timeout`, s; None waits without limit.

        The next `get` acknowledges it. Raises `TimeoutError` and `EndOfStream` like
        ``await get_sync()``.
        """
        value = self.try_get()
        return self._get(timeout) if value is NOT_READY else value

    # ---- awaited

    cdef object try_now(self, int what, value, more):
        if what == EMIT or what == EMIT_SYNC:
            return True if self.try_emit(value, more) else NOT_READY
        return self.try_get()

    def _emitting(self, value, d_type=None):
        """Emit, awaited: see `Processor.emit`."""
        return ready(self, EMIT, value, d_type, None)

    def _emitting_sync(self, value, d_type=None, timeout=None):
        """Emit, waiting for room, awaited: see `Processor.emit_sync`."""
        return ready(self, EMIT_SYNC, value, d_type, timeout)

    def _getting(self):
        """Get a value that is ready, awaited: see `Processor.get`."""
        return ready(self, GET, None, None, None)

    def _getting_sync(self, timeout=5):
        """Get, awaited: see `Processor.get_sync`."""
        return ready(self, GET_SYNC, None, None, timeout)


cdef inline ReadyAwaitable ready(WorkerHandle handle, int what, value, more, timeout):
    cdef ReadyAwaitable made = ReadyAwaitable.__new__(ReadyAwaitable)
    made.handle, made.what, made.value, made.more, made.timeout = handle, what, value, more, timeout
    return made


@final
@no_gc       # it lives as long as one await, and is in no reference cycle
@freelist(16)
cdef class ReadyAwaitable:
    """A coroutine that returns at its first step if the result is ready."""

    cdef WorkerHandle handle
    cdef int what
    cdef object value, more, timeout, inner
    cdef bint is_begun

    def __dealloc__(self):
        if not self.is_begun and not PyErr_Occurred():
            PyErr_WarnEx(RuntimeWarning, b"emit or get of a worker was never awaited: nothing was done", 1)

    cdef int step(self, value, void **result) except -1:
        cdef WorkerHandle handle = self.handle
        if self.inner is None:
            if self.is_begun:
                raise RuntimeError("cannot reuse already awaited coroutine")
            self.is_begun = True
            if value is not None:
                raise TypeError("can't send non-None value to a just-started coroutine")
            found = handle.try_now(self.what, self.value, self.more)
            if found is not NOT_READY:
                Py_INCREF(found)
                result[0] = <void *>found
                return RETURN
            if self.what == EMIT:
                self.inner = handle._emit_later(self.value, self.more)
            elif self.what == EMIT_SYNC:
                self.inner = handle._emit_sync_later(self.value, self.more, self.timeout)
            elif self.what == GET:
                self.inner = handle._get_later()
            else:
                self.inner = handle._get_sync_later(self.timeout)
        return ax_send(self.inner, value, result)

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value):
        """Resume."""
        cdef void *result = NULL
        cdef int status = self.step(value, &result)
        found = <object>result
        # `result` is a new reference, and `found` holds another one.
        drop_reference(result)
        if status == RETURN:
            raise StopIteration(found)
        return found

    def throw(self, kind, value=None, trace=None):
        """Resume with an exception."""
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


cdef int send(awaitable, value, void **result) except -1:
    return (<ReadyAwaitable>awaitable).step(value, result)


ax_give_send(ReadyAwaitable, send)
