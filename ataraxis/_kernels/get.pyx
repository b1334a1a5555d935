"""The getting half of a handle on a work queue: lease, copy, acknowledge.

The algorithm is queue.pyx's; this is the bridge. Bytes, text and arrays of plain numbers are read here; every other
value goes through `_decode` of the subclass. It uses the NumPy C-API to make result arrays.
"""
cimport numpy as cnp
from cpython.buffer cimport PyBUF_READ
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from ataraxis._kernels.atomics cimport AX_GIL_BYTES, ax_copy, ax_peek64, ax_put64
from ataraxis._kernels.block cimport BlockKernel
from ataraxis._kernels.crc cimport AX_CRC_BYTES, ax_crc32, ax_crc_init
from ataraxis._kernels.element cimport kind_of
from ataraxis._kernels.frame cimport (
    AX_DTYPE_RAW, AX_FLAG_CHECKSUM, AX_FLAG_END_OF_STREAM, AX_FLAG_EXTENTS, AX_FLAG_PICKLED, AX_FLAG_SESSION_EVENT,
    AX_FRAME_MAGIC, ax_frame, ax_front_bytes, ax_padded,
)
from ataraxis._kernels.layout cimport AX_EMPTY, AX_MESSAGE_LARGE, AX_OK, AX_TIMEOUT
from ataraxis._kernels.platform cimport ax_crash, ax_now_ns
from ataraxis._kernels.queue cimport (
    ax_grip, first_bit, ones, queue_holds, queue_lease, queue_mark, queue_settle, queue_told, slot_of,
)
from ataraxis._kernels.timing cimport deadline_of
from ataraxis._kernels.vigil cimport AX_WAIT_DATA, queue_look

cnp.import_array()
ax_crc_init()

cdef enum:
    # Flags of a frame that is more than a value as it is.
    UNUSUAL = AX_FLAG_END_OF_STREAM | AX_FLAG_PICKLED | AX_FLAG_EXTENTS | AX_FLAG_SESSION_EVENT

# ---- the bridge

cdef bint frame_at(ax_grip *grip, const char *slot, int k, uint64_t *at, uint64_t *bytes) noexcept nogil:
    # Where frame k of a slot is; False if its headers do not say so. What is in the slot is not believed.
    cdef int i
    at[0] = 0
    for i in range(k + 1):
        if at[0] + sizeof(ax_frame) > grip.bytes:
            return False
        bytes[0] = sizeof(ax_frame) + (<ax_frame *>(slot + at[0])).length
        if bytes[0] < sizeof(ax_frame) or bytes[0] > grip.bytes - at[0]:
            return False
        if i < k:
            at[0] += ax_padded(bytes[0])
    return True


cdef class Grip:
    """A slot that is leased: `pending` frames are not handed out yet, `out` ones are."""

    @property
    def failures(self):
        """How often somebody had it and did not acknowledge it."""
        return self.grip.failures

    @property
    def id(self):
        """Position in the queue: the same at each delivery, of no other slot's content."""
        return self.grip.id

    @property
    def is_large(self):
        """Whether the frame lies in a segment of its own."""
        return bool(self.grip.flags & AX_MESSAGE_LARGE)


cdef class GetKernel(BlockKernel):
    """What gets; a subclass gives the manners.

    It provides `_decode(frame)` -> value, `_open_large(name)` -> the frame's bytes or None (it was acknowledged),
    `_unlink_large(name)`, and `_get_leased(block, timeout)` for the manners of `_is_plain` False.
    """

    cdef int hold(self, ax_grip *grip, int64_t deadline) except -100:
        # Lease a slot: AX_OK, AX_EMPTY (not waiting), AX_TIMEOUT. The caller is inside.
        cdef int status = queue_lease(&self.work, grip)
        if status != AX_OK:
            queue_look(&self.work)
            status = queue_lease(&self.work, grip)
        while status == AX_EMPTY and deadline != 0:
            if self.wait(AX_WAIT_DATA, deadline) == AX_TIMEOUT:
                status = queue_lease(&self.work, grip)
                return AX_OK if status == AX_OK else AX_TIMEOUT
            status = queue_lease(&self.work, grip)
        if status == AX_OK and grip.failures:
            ax_put64(&self.work.tally.redelivered, ax_peek64(&self.work.tally.redelivered) + 1)
        return status

    cdef int settle(self, ax_grip *grip, uint64_t done, bint failed, bint tell) noexcept:
        cdef int status = queue_settle(&self.work, grip, done, failed)
        if status == AX_OK:
            if tell:
                queue_told(&self.work, False)
            ax_put64(&self.work.tally.acknowledged, ax_peek64(&self.work.tally.acknowledged) + ones(done))
            ax_put64(&self.work.tally.last_get_ns, <uint64_t>ax_now_ns())
        return status

    cdef object copy_of(self, ax_grip *grip, int k):
        # Frame k of the slot, as bytes of our own; whatever is there, if its header is not whole.
        cdef uint64_t at = 0, bytes = 0
        cdef char *to
        cdef char *slot = slot_of(&self.work, grip.index)
        if grip.flags & AX_MESSAGE_LARGE:
            return PyBytes_FromStringAndSize(slot, grip.bytes)
        if not frame_at(grip, slot, k, &at, &bytes):
            bytes = grip.bytes - at if grip.bytes > at else 0
        if bytes <= AX_GIL_BYTES:
            return PyBytes_FromStringAndSize(slot + at, bytes)
        copy = PyBytes_FromStringAndSize(NULL, bytes)
        to = PyBytes_AS_STRING(copy)
        with nogil:
            ax_copy(to, slot + at, bytes)
        return copy

    cdef object quick(self, ax_grip *grip, int k):
        # Frame k as a value, or NotImplemented: it is none that goes quickly, or something is wrong with it.
        cdef uint64_t at = 0, bytes = 0
        cdef ax_frame head
        cdef char *slot = slot_of(&self.work, grip.index)
        cdef const char *data
        cdef char *to
        cdef uint32_t front, crc
        cdef int kind, i
        cdef cnp.npy_intp dims[4]
        cdef uint64_t count
        if grip.flags & AX_MESSAGE_LARGE or not frame_at(grip, slot, k, &at, &bytes):
            return NotImplemented
        memcpy(&head, slot + at, sizeof(ax_frame))
        front = sizeof(ax_frame) + ax_front_bytes(head.flags)
        if (
            head.flags & UNUSUAL or memcmp(head.magic, AX_FRAME_MAGIC, 4) or front > bytes
            or ax_crc32(0, &head, sizeof(ax_frame) - 4) != head.header_crc
        ):
            return NotImplemented
        data = slot + at + front
        count = bytes - front
        if head.dtype == AX_DTYPE_RAW and head.ndim == 0:
            value = PyBytes_FromStringAndSize(NULL, count)
            to = PyBytes_AS_STRING(value)
        else:
            kind = kind_of(head.dtype)
            if kind < 0 or not 0 < head.ndim <= 4:
                return NotImplemented
            for i in range(head.ndim):
                dims[i] = head.extents[i]
            value = cnp.PyArray_EMPTY(head.ndim, dims, kind, 0)
            if <uint64_t>cnp.PyArray_NBYTES(value) != count or kind == cnp.NPY_BOOL:
                return NotImplemented
            to = <char *>cnp.PyArray_DATA(value)
        if count > AX_GIL_BYTES:
            with nogil:
                ax_copy(to, data, count)
        else:
            memcpy(to, data, count)
        if head.flags & AX_FLAG_CHECKSUM:
            crc = ax_crc32(0, data - front + sizeof(ax_frame), front - sizeof(ax_frame))
            if count > AX_CRC_BYTES:
                crc = self.crc_of(PyMemoryView_FromMemory(to, count, PyBUF_READ), crc)
            else:
                crc = ax_crc32(crc, to, count)
            if crc != head.crc:
                return NotImplemented
        return value

    cdef object one(self, ax_grip *grip, int k, bint *is_had):
        # Frame k as a value, acknowledged; is_had False: the lease was over, or a large one had been acknowledged.
        cdef bint is_large = grip.flags & AX_MESSAGE_LARGE
        value = NotImplemented
        name = frame = None
        try:
            value = self.quick(grip, k)
            if value is NotImplemented:
                frame = self.copy_of(grip, k)
                name = frame
                if is_large:
                    frame = self._open_large(name)
        except BaseException:
            self.settle(grip, 0, True, True)
            raise
        ax_crash("get_copied")
        if not queue_holds(&self.work, grip):
            is_had[0] = False
            self.settle(grip, 0, False, False)
            return None
        if is_large:
            self._unlink_large(name)
        is_had[0] = self.settle(grip, <uint64_t>1 << k, False, True) == AX_OK and not (is_large and frame is None)
        grip.left &= ~(<uint64_t>1 << k)
        if value is NotImplemented and is_had[0]:
            return self._checked(frame)
        return value

    def _checked(self, frame):
        """Decode a frame, counting those that are damaged."""
        try:
            return self._decode(frame)
        except ValueError:
            ax_put64(&self.work.tally.corrupt, ax_peek64(&self.work.tally.corrupt) + 1)
            raise

    def get(self, block=True, timeout=None):
        """Get one value; no other getter gets it.

        Parameters
        ----------
        block : bool
            Wait for one.
        timeout : float or None
            Longest wait, s; None waits without end, 0 not at all.

        Returns
        -------
        object
            What was put: a copy. Arrays of plain numbers are the caller's own, other arrays read-only. A `Frame`
            that was put comes back as its value, see `get_frame`.

        Raises
        ------
        QueueEmpty
            Nothing there, not waiting.
        TimeoutError
            Nothing came within `timeout`; also a ``queue.Empty``.
        CorruptFrame
            The bytes changed between putter and getter. The frame is gone, the next one comes next.

        Notes
        -----
        Acknowledged when it returns, unless the handle says otherwise (`acknowledge`).

        Examples
        --------
        >>> from ataraxis import MemQ
        >>> queue = MemQ()
        >>> queue.put(b"one")
        >>> queue.get(timeout=1)
        b'one'
        """
        cdef ax_grip grip
        cdef int64_t deadline = deadline_of(timeout) if block else 0
        cdef int status = AX_OK
        cdef bint is_had = False
        value = None
        if not self._is_plain:
            return self._get_leased(block, timeout)
        self.enter()
        try:
            while not is_had:
                status = self.hold(&grip, deadline)
                if status != AX_OK:
                    break
                value = self.one(&grip, first_bit(grip.left), &is_had)
        finally:
            self.leave()
        if status != AX_OK:
            self._fail(status, False)
        return value

    def _get_many(self, Py_ssize_t limit, int64_t deadline):
        """Values that are there, at most `limit`; waits for the first. A list, and a status."""
        cdef ax_grip grip
        cdef int status = AX_OK
        values = []
        self.enter()
        try:
            while len(values) < limit:
                status = self.hold(&grip, 0 if values else deadline)
                if status != AX_OK or not self.several(&grip, limit, values):
                    break
        finally:
            queue_told(&self.work, False)
            self.leave()
        return values, AX_OK if values else status

    cdef bint several(self, ax_grip *grip, Py_ssize_t limit, list values) except -1:
        # Frames of one slot, decoded and then acknowledged together. False: stop here.
        cdef uint64_t done = 0, left = grip.left
        cdef Py_ssize_t before = len(values)
        cdef bint is_had = True
        cdef int k = 0
        if grip.flags & AX_MESSAGE_LARGE:
            value = self.one(grip, 0, &is_had)
            if is_had:
                values.append(value)
            return True
        try:
            while left and len(values) < limit:
                k = first_bit(left)
                value = self.quick(grip, k)
                if value is NotImplemented:
                    value = self._checked(self.copy_of(grip, k))
                values.append(value)
                left &= left - 1
                done |= <uint64_t>1 << k
        except ValueError:
            # A damaged one comes alone: after those before it, by the next call.
            if not values:
                self.settle(grip, <uint64_t>1 << k, False, False)
                raise
            limit = 0
        except BaseException:
            del values[before:]
            self.settle(grip, 0, True, False)
            raise
        if not queue_holds(&self.work, grip) or self.settle(grip, done, False, False) != AX_OK:
            del values[before:]
        return limit > 0

    # ---- leases

    def _hold(self, int64_t deadline):
        """Lease a slot: a Grip, or a status."""
        cdef Grip grip = Grip.__new__(Grip)
        cdef int status
        self.enter()
        try:
            status = self.hold(&grip.grip, deadline)
        finally:
            self.leave()
        if status != AX_OK:
            return status
        grip.pending = grip.grip.left
        return grip

    def _copy(self, Grip grip not None, int k):
        """Frame k of a leased slot, or the name of the segment it lies in: bytes of our own; None: the lease is over."""
        self.enter()
        try:
            copy = self.copy_of(&grip.grip, k)
            return copy if queue_holds(&self.work, &grip.grip) else None
        finally:
            self.leave()

    def _mark(self, Grip grip not None, uint64_t done):
        """Acknowledge frames of a slot that stays leased: a status, LOST if the lease was over."""
        cdef int status
        self.enter()
        try:
            status = queue_mark(&self.work, &grip.grip, done)
            if status == AX_OK:
                ax_put64(&self.work.tally.acknowledged, ax_peek64(&self.work.tally.acknowledged) + ones(done))
            return status
        finally:
            self.leave()

    def _settle(self, Grip grip not None, uint64_t done, bint failed):
        """Acknowledge frames of a leased slot and give the rest back: a status, LOST if the lease was over."""
        self.enter()
        try:
            return self.settle(&grip.grip, done, failed, True)
        finally:
            self.leave()
