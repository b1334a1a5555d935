"""The putting half of a handle on a work queue: one call, one copy, one slot.

The algorithm is queue.pyx's; this is the bridge. Bytes and arrays of plain numbers are written here; every other
value goes through `_encode` of the subclass. It uses the NumPy C-API for the quick look at an array.
"""
cimport numpy as cnp
from cpython.buffer cimport PyBUF_READ
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from ataraxis._kernels.atomics cimport AX_GIL_BYTES, ax_copy, ax_peek64, ax_put64
from ataraxis._kernels.crc cimport AX_CRC_BYTES, ax_crc32, ax_crc_init
from ataraxis._kernels.element cimport code_of
from ataraxis._kernels.frame cimport (
    AX_FLAG_CHECKSUM, AX_FLAG_DEVICE_STAMP, AX_FLAG_DEVICE_UNSIGNED, AX_FRAME_MAGIC, AX_STAMP_BYTES, ax_frame,
    ax_padded,
)
from ataraxis._kernels.layout cimport (
    AX_FULL, AX_MESSAGE_LARGE, AX_MESSAGE_NUMBERED, AX_OK, AX_OVERFLOW, AX_QUEUE_FRAMES, AX_TIMEOUT,
)
from ataraxis._kernels.platform cimport ax_crash, ax_now_ns
from ataraxis._kernels.queue cimport ax_last, queue_claim, queue_grow, queue_publish, queue_told, slot_of
from ataraxis._kernels.timing cimport deadline_of
from ataraxis._kernels.vigil cimport AX_WAIT_ROOM, queue_look

cnp.import_array()
ax_crc_init()

# ---- the bridge

cdef inline uint64_t length_of(ax_piece *piece) noexcept nogil:
    return piece.bytes if piece.whole else sizeof(ax_frame) + piece.stamp_bytes + piece.bytes


cdef void lay(char *to, ax_piece *piece) noexcept nogil:
    # The frame at `to`, zeros up to its padding; its number and the header's checksum come later.
    cdef uint64_t bytes = length_of(piece), at = 0
    if not piece.whole:
        memcpy(to, &piece.head, sizeof(ax_frame))
        memcpy(to + sizeof(ax_frame), piece.stamp, piece.stamp_bytes)
        at = sizeof(ax_frame) + piece.stamp_bytes
    ax_copy(to + at, piece.data, piece.bytes // 2)
    ax_crash("put_half")
    ax_copy(to + at + piece.bytes // 2, piece.data + piece.bytes // 2, piece.bytes - piece.bytes // 2)
    memset(to + bytes, 0, ax_padded(bytes) - bytes)


cdef inline void number(char *to, uint64_t sequence) noexcept nogil:
    cdef ax_frame *frame = <ax_frame *>to
    frame.sequence = sequence
    frame.header_crc = ax_crc32(0, frame, sizeof(ax_frame) - 4)


cdef class PutKernel(Desk):
    """What puts; a subclass gives the manners.

    It provides `_encode(value, source, time_ns, device_time, device_sequence)` -> bytes of a whole frame and whether
    to number it, or None after it has been put in a segment of its own; `_fail(status, is_put)` (raise).
    """

    cdef int piece_of(self, ax_piece *piece, value, source, time_ns, device_time, device_sequence) except -1:
        # 1: `value` in pieces, which it keeps alive. 0: it is none that goes quickly.
        cdef int code, k
        cdef int64_t signed_
        piece.whole = False
        memset(&piece.head, 0, sizeof(ax_frame))
        memcpy(piece.head.magic, AX_FRAME_MAGIC, 4)
        if PyBytes_CheckExact(value):
            piece.data = PyBytes_AS_STRING(value)
            piece.bytes = PyBytes_GET_SIZE(value)
        elif cnp.PyArray_CheckExact(value) and cnp.PyArray_ISCARRAY_RO(value) and 0 < cnp.PyArray_NDIM(value) <= 4:
            code = code_of(cnp.PyArray_TYPE(value))
            if code == 0:
                return 0
            piece.head.dtype = code
            piece.head.ndim = cnp.PyArray_NDIM(value)
            for k in range(cnp.PyArray_NDIM(value)):
                if cnp.PyArray_DIM(value, k) >= 1 << 32:
                    return 0
                piece.head.extents[k] = cnp.PyArray_DIM(value, k)
            piece.data = <char *>cnp.PyArray_DATA(value)
            piece.bytes = cnp.PyArray_NBYTES(value)
        else:
            return 0
        piece.head.source = source
        piece.head.time_ns = ax_now_ns() if time_ns is None else time_ns
        piece.stamp_bytes = 0
        if device_time is not None:
            piece.stamp_bytes = AX_STAMP_BYTES
            piece.head.flags = AX_FLAG_DEVICE_STAMP
            if device_time >= 1 << 63:
                piece.head.flags |= AX_FLAG_DEVICE_UNSIGNED
                piece.stamp[0] = device_time
            else:
                signed_ = device_time
                piece.stamp[0] = <uint64_t>signed_
            piece.stamp[1] = 0 if device_sequence is None else device_sequence
        elif device_sequence is not None:
            return 0
        piece.head.length = piece.stamp_bytes + piece.bytes
        return 1

    cdef int seal(self, ax_piece *piece) except -1:
        # The checksum of what follows the header.
        cdef uint32_t crc
        if not self.checks:
            return 0
        piece.head.flags |= AX_FLAG_CHECKSUM
        crc = ax_crc32(0, piece.stamp, piece.stamp_bytes)
        if piece.bytes > AX_CRC_BYTES:
            crc = self.crc_of(PyMemoryView_FromMemory(<char *>piece.data, piece.bytes, PyBUF_READ), crc)
        else:
            crc = ax_crc32(crc, piece.data, piece.bytes)
        piece.head.crc = crc
        return 0

    cdef int claim(self, uint64_t *index, uint64_t *position, int64_t deadline) except -100:
        # Own a slot: AX_OK, AX_FULL (not waiting), AX_TIMEOUT. The caller is inside.
        cdef int status = queue_claim(&self.work, index, position)
        cdef int64_t started
        if status == AX_OK:
            return status
        queue_look(&self.work)
        status = queue_claim(&self.work, index, position)
        if status == AX_OK:
            return status
        if deadline == 0:
            ax_put64(&self.work.tally.refused, ax_peek64(&self.work.tally.refused) + 1)
            return status
        started = ax_now_ns()
        ax_put64(&self.work.tally.stalled_since_ns, <uint64_t>started)
        try:
            while status == AX_FULL:
                if self.wait(AX_WAIT_ROOM, deadline) == AX_TIMEOUT:
                    status = queue_claim(&self.work, index, position)
                    return AX_OK if status == AX_OK else AX_TIMEOUT
                status = queue_claim(&self.work, index, position)
        finally:
            ax_put64(&self.work.tally.stalled_since_ns, 0)
            ax_put64(&self.work.tally.stalled_ns, ax_peek64(&self.work.tally.stalled_ns) + <uint64_t>(ax_now_ns() - started))
        return status

    cdef void count(self, uint64_t frames, uint64_t bytes, int64_t now) noexcept:
        ax_put64(&self.work.tally.put, ax_peek64(&self.work.tally.put) + frames)
        ax_put64(&self.work.tally.put_bytes, ax_peek64(&self.work.tally.put_bytes) + bytes)
        ax_put64(&self.work.tally.last_put_ns, <uint64_t>now)

    cdef uint32_t reopen(self, uint64_t each) noexcept:
        # Own our last slot once more: how many frames of `each` bytes it takes; 0: it is full, or somebody has taken it.
        cdef ax_last *last = &self.work.last
        cdef uint64_t room
        if not 0 < last.frames < AX_QUEUE_FRAMES:
            return 0
        room = min((self.work.stride - last.bytes) // each, <uint64_t>AX_QUEUE_FRAMES - last.frames)
        return room if room and queue_grow(&self.work) else 0

    cdef void show(self, ax_last *slot, uint64_t bytes, uint32_t frames) noexcept:
        # The slot we own has so much more; the next put may add to it. The caller tells sleepers.
        slot.bytes += bytes
        slot.frames += frames
        queue_publish(&self.work, slot.index, slot.position, slot.bytes, slot.frames, 0)
        if self._packs:
            self.work.last = slot[0]

    cdef bint add(self, ax_piece *piece, uint64_t bytes) noexcept:
        # Put a frame behind those that nobody has taken yet out of our last slot. The caller is inside.
        cdef ax_last last
        cdef char *to
        if piece.whole or bytes > AX_GIL_BYTES or not self.reopen(bytes):
            return False
        last = self.work.last
        to = slot_of(&self.work, last.index) + last.bytes
        lay(to, piece)
        number(to, last.position * AX_QUEUE_FRAMES + last.frames)
        self.show(&last, bytes, 1)
        return True

    cdef int put_alone(self, ax_piece *piece, uint64_t bytes, int64_t deadline) except -100:
        # One frame into a slot of its own.
        cdef ax_last slot = ax_last(0, 0, 0, 0)
        cdef int status = self.claim(&slot.index, &slot.position, deadline)
        cdef char *to
        if status == AX_OK:
            to = slot_of(&self.work, slot.index)
            if bytes > AX_GIL_BYTES:
                with nogil:
                    lay(to, piece)
            else:
                lay(to, piece)
            if not piece.whole or piece.stamp_bytes:
                number(to, slot.position * AX_QUEUE_FRAMES)
            self.show(&slot, bytes, 1)
        return status

    cdef int put_piece(self, ax_piece *piece, int64_t deadline) except -100:
        # One frame, behind others of ours where it may be. The caller keeps the payload alive.
        cdef uint64_t bytes = ax_padded(length_of(piece))
        cdef int status
        if bytes > self.work.stride:
            return AX_OVERFLOW
        self.enter()
        try:
            if not piece.whole:
                self.seal(piece)
            status = AX_OK if self.add(piece, bytes) else self.put_alone(piece, bytes, deadline)
            if status == AX_OK:
                queue_told(&self.work, True)
                self.count(1, piece.bytes, ax_now_ns() if piece.whole else piece.head.time_ns)
        finally:
            self.leave()
        return status

    def put(self, obj, block=True, timeout=None, *, source=0, time_ns=None, device_time=None, device_sequence=None):
        """Put one value: one copy, from `obj` into the queue.

        Parameters
        ----------
        obj : bytes, ndarray, Frame or whatever a frame can hold
            A `Frame` travels as it is; of anything else one is made. One that is larger than a slot travels in
            a segment of its own.
        block : bool
            Wait for room.
        timeout : float or None
            Longest wait, s; None waits without end, 0 not at all.
        source : int, optional
            Source id, u32.
        time_ns : int, optional
            Monotonic time of the data, ns; now, if not given.
        device_time, device_sequence : int, optional
            The source's own time, in its ticks, and counter.

        Raises
        ------
        QueueFull
            No room, not waiting.
        TimeoutError
            No room within `timeout`; also a ``queue.Full``.
        TypeError
            No frame carries such a value.

        Examples
        --------
        >>> from ataraxis import MemQ
        >>> with MemQ() as queue:
        ...     queue.put({"mouse": 7})
        ...     queue.get()
        {'mouse': 7}
        """
        cdef ax_piece piece
        cdef int64_t deadline = deadline_of(timeout) if block else 0
        cdef int status
        if self.piece_of(&piece, obj, source, time_ns, device_time, device_sequence):
            status = self.put_piece(&piece, deadline)
            if status == AX_OK:
                return
            if status != AX_OVERFLOW:
                self._fail(status, True)
        status = self._put_other(obj, deadline, source, time_ns, device_time, device_sequence)
        if status != AX_OK:
            self._fail(status, True)

    def _put_frame(self, const unsigned char[::1] frame not None, bint numbered, int64_t deadline):
        """Put a whole frame, encoded already: a status."""
        cdef ax_piece piece
        piece.whole = True
        piece.stamp_bytes = numbered
        piece.data = <const char *>&frame[0]
        piece.bytes = frame.shape[0]
        return self.put_piece(&piece, deadline)

    def _put_ticket(self, bytes name not None, uint64_t payload, bint numbered, int64_t deadline):
        """Put the name of a segment that holds a frame too large for a slot, whether to number it: a status."""
        cdef uint64_t index = 0, position = 0
        cdef uint32_t bytes = len(name)
        cdef int status
        if bytes > self.work.stride:
            return AX_OVERFLOW
        self.enter()
        try:
            status = self.claim(&index, &position, deadline)
            if status == AX_OK:
                memcpy(slot_of(&self.work, index), <char *>name, bytes)
                queue_publish(
                    &self.work, index, position, bytes, 1,
                    AX_MESSAGE_LARGE | (AX_MESSAGE_NUMBERED if numbered else 0),
                )
                queue_told(&self.work, True)
                self.count(1, payload, ax_now_ns())
        finally:
            self.leave()
        return status

    cdef int put_packed(self, char *frames, uint32_t bytes, uint32_t count, uint64_t payload, int64_t deadline) except -100:
        # Frames laid out one behind the other, into one slot. Numbers: 0 in a frame that keeps its own.
        cdef uint64_t index = 0, position = 0
        cdef uint32_t k, at = 0
        cdef char *to
        cdef int status
        if count == 0:
            return AX_OK
        status = self.claim(&index, &position, deadline)
        if status == AX_OK:
            to = slot_of(&self.work, index)
            memcpy(to, frames, bytes)
            for k in range(count):
                if (<ax_frame *>(to + at)).header_crc == 0:
                    number(to + at, position * AX_QUEUE_FRAMES + k)
                at += ax_padded(sizeof(ax_frame) + (<ax_frame *>(to + at)).length)
            queue_publish(&self.work, index, position, bytes, count, 0)
            queue_told(&self.work, True)
            self.count(count, payload, ax_now_ns())
        return status

    def _put_many(self, values, bint pack, int64_t deadline, source, time_ns):
        """Put each value, as many to a slot as it takes: how many were put, and a status."""
        cdef ax_piece piece
        cdef uint64_t bytes, at = 0, payload = 0
        cdef uint32_t count = 0
        cdef Py_ssize_t done = 0
        cdef int status = AX_OK
        cdef char *stage = <char *>malloc(self.work.stride)
        if stage == NULL:
            raise MemoryError()
        self.enter()
        try:
            for value in values:
                whole = None
                if not self.piece_of(&piece, value, source, time_ns, None, None) or ax_padded(length_of(&piece)) > self.work.stride:
                    whole, is_numbered = self._encode(value, source, time_ns, None, None)
                    if len(whole) > self.work.stride:
                        status = self.put_packed(stage, at, count, payload, deadline)
                        if status != AX_OK:
                            break
                        done, at, count, payload = done + count, 0, 0, 0
                        status = self._put_large(whole, is_numbered, deadline)
                        if status != AX_OK:
                            break
                        done += 1
                        continue
                    piece.whole = True
                    piece.data = PyBytes_AS_STRING(whole)
                    piece.bytes = len(whole)
                else:
                    self.seal(&piece)
                    is_numbered = True
                bytes = ax_padded(length_of(&piece))
                if count == AX_QUEUE_FRAMES or at + bytes > self.work.stride or (count and not pack):
                    status = self.put_packed(stage, at, count, payload, deadline)
                    if status != AX_OK:
                        break
                    done, at, count, payload = done + count, 0, 0, 0
                lay(stage + at, &piece)
                if is_numbered:
                    (<ax_frame *>(stage + at)).header_crc = 0
                at += bytes
                payload += piece.bytes
                count += 1
            else:
                status = self.put_packed(stage, at, count, payload, deadline)
                done += count if status == AX_OK else 0
        except BaseException:
            # Those before the one that cannot be put.
            self.put_packed(stage, at, count, payload, deadline)
            raise
        finally:
            free(stage)
            self.leave()
        return done, status
