"""Frames with an origin, put and got in one call: a value straight into a slot, and straight out of it.

For pipelines, whose frames say which value they came of. What payload.pyx writes is put and got here; every other
value, and every frame that is not as it should be, goes the long way. It uses the NumPy C-API to make result arrays.
"""
cimport numpy as cnp
from cpython.buffer cimport PyBUF_READ
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from cython cimport no_gc_clear
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from ataraxis._kernels.atomics cimport AX_GIL_BYTES, ax_copy, ax_linger, ax_peek64, ax_put64
from ataraxis._kernels.crc cimport AX_CRC_BYTES, ax_crc32, ax_crc_init
from ataraxis._kernels.element cimport kind_of
from ataraxis._kernels.frame cimport (
    AX_DTYPE_RAW, AX_DTYPE_STR, AX_FLAG_CHECKSUM, AX_FLAG_ORIGIN, AX_FRAME_MAGIC, ax_frame, ax_padded,
)
from ataraxis._kernels.get cimport Grip, frame_at
from ataraxis._kernels.layout cimport AX_EMPTY, AX_MESSAGE_LARGE, AX_OK
from ataraxis._kernels.memory cimport inherited
from ataraxis._kernels.payload cimport ax_payload, lay_value, number_of, text_of
from ataraxis._kernels.platform cimport ax_crash
from ataraxis._kernels.queue cimport queue_abandon, queue_holds, queue_lease, queue_publish, queue_told, slot_of
from ataraxis._kernels.vigil cimport queue_look

cnp.import_array()
ax_crc_init()

cdef enum:
    SMALL = 40             # what a number, with its origin, takes at most of a cache line
    GLANCES = 40           # looks for a frame before it is said that there is none, some 10 us


# ---- the bridge

cdef class ParcelKernel(DrainKernel):
    """What puts and gets frames with an origin; a subclass gives the manners."""

    cdef int lay(self, char *slot, ax_payload *payload, ax_letter *letter) except -1:
        # The frame, zeros up to its padding.
        cdef uint64_t bytes = payload.bytes
        cdef uint32_t crc = ax_crc32(0, &letter.origin, sizeof(ax_origin))
        cdef char *to = slot + sizeof(ax_frame) + sizeof(ax_origin)
        memcpy(slot + sizeof(ax_frame), &letter.origin, sizeof(ax_origin))
        if 0 < bytes <= AX_GIL_BYTES:
            memcpy(to, payload.data, bytes)
        elif bytes:         # of None there are none, and no address
            with nogil:
                ax_copy(to, payload.data, bytes)
        ax_crash("put_half")
        # Of what lies there: nobody else writes it, and the value may change meanwhile.
        if bytes <= AX_CRC_BYTES:
            crc = ax_crc32(crc, to, bytes)
        else:
            crc = self.crc_of(PyMemoryView_FromMemory(to, bytes, PyBUF_READ), crc)
        memset(to + bytes, 0, ax_padded(sizeof(ax_frame) + sizeof(ax_origin) + bytes) - sizeof(ax_frame) - sizeof(ax_origin) - bytes)
        memcpy(payload.head.magic, AX_FRAME_MAGIC, 4)
        payload.head.flags = AX_FLAG_CHECKSUM | AX_FLAG_ORIGIN
        payload.head.length = sizeof(ax_origin) + bytes
        payload.head.sequence = letter.origin.sequence
        payload.head.time_ns = letter.time_ns
        payload.head.source = letter.source
        payload.head.crc = crc
        payload.head.header_crc = ax_crc32(0, &payload.head, sizeof(ax_frame) - 4)
        memcpy(slot, &payload.head, sizeof(ax_frame))
        return 0

    cdef int post(self, value, int code, ax_letter *letter, int64_t deadline) except -100:
        # Put a value; `code` -1: as itself. UNFIT: nothing was done.
        cdef ax_payload payload
        cdef uint64_t index = 0, position = 0, bytes
        cdef int status
        memset(&payload, 0, sizeof(ax_payload))
        if not lay_value(&payload, value, code):
            return UNFIT
        bytes = ax_padded(sizeof(ax_frame) + sizeof(ax_origin) + payload.bytes)
        if bytes > self.work.stride:
            return UNFIT
        self.enter()
        try:
            status = self.claim(&index, &position, deadline)
            if status != AX_OK:
                return status
            try:
                self.lay(slot_of(&self.work, index), &payload, letter)
            except BaseException:
                queue_abandon(&self.work, index)
                raise
            queue_publish(&self.work, index, position, bytes, 1, 0)
            queue_told(&self.work, True)
            self.count(1, payload.bytes, letter.time_ns)
        finally:
            self.leave()
        return AX_OK

    def _post(
        self, value, int code, uint64_t lane, uint64_t sequence, uint32_t part, uint32_t overlap, uint32_t source,
        int64_t time_ns, int64_t deadline,
    ):
        """Put a value: a status, UNFIT if it goes the long way."""
        cdef ax_letter letter
        letter.origin.lane, letter.origin.sequence = lane, sequence
        letter.origin.part, letter.origin.overlap = part, overlap
        letter.source, letter.time_ns = source, time_ns
        return self.post(value, code, &letter, deadline)

    cdef int lease_soon(self, ax_grip *grip) except -100:
        # Lease a slot if there is one now, or nearly: AX_OK, AX_EMPTY. The caller is inside.
        cdef int status = queue_lease(&self.work, grip), left = GLANCES
        if status == AX_EMPTY:
            if self.work.cpus > 1:
                while status == AX_EMPTY and left:
                    ax_linger()
                    status = queue_lease(&self.work, grip)
                    left -= 1
            else:
                queue_look(&self.work)
                status = queue_lease(&self.work, grip)
        if status == AX_OK and grip.failures:
            ax_put64(&self.work.tally.redelivered, ax_peek64(&self.work.tally.redelivered) + 1)
        return status

    cdef object opened(self, ax_grip *grip, ax_letter *letter):
        # The value of a leased slot, checked; NotImplemented: it goes the long way. The caller is inside.
        cdef uint64_t at = 0, bytes = 0, count
        cdef ax_frame head
        cdef char small[SMALL]
        cdef char *slot = slot_of(&self.work, grip.index)
        cdef char *to = small
        cdef uint32_t crc
        cdef int kind, i
        cdef cnp.npy_intp dims[4]
        if grip.flags & AX_MESSAGE_LARGE or grip.frames != 1 or not frame_at(grip, slot, 0, &at, &bytes):
            return NotImplemented
        memcpy(&head, slot, sizeof(ax_frame))
        if (
            head.flags != (AX_FLAG_CHECKSUM | AX_FLAG_ORIGIN) or memcmp(head.magic, AX_FRAME_MAGIC, 4) or head.labels or bytes < sizeof(ax_frame) + sizeof(ax_origin)
            or ax_crc32(0, &head, sizeof(ax_frame) - 4) != head.header_crc or head.sequence >> 63
        ):
            return NotImplemented
        memcpy(&letter.origin, slot + sizeof(ax_frame), sizeof(ax_origin))
        if letter.origin.part:
            return NotImplemented
        letter.time_ns, letter.source = head.time_ns, head.source
        slot += sizeof(ax_frame) + sizeof(ax_origin)
        count = bytes - sizeof(ax_frame) - sizeof(ax_origin)
        value = None
        if head.ndim == 0 and head.dtype == AX_DTYPE_RAW:
            value = PyBytes_FromStringAndSize(NULL, count)
            to = PyBytes_AS_STRING(value)
        elif head.ndim == 0 and head.dtype == AX_DTYPE_STR:
            value = PyBytes_FromStringAndSize(NULL, count)
            to = PyBytes_AS_STRING(value)
        elif head.ndim == 0:
            if count > SMALL:
                return NotImplemented
        else:
            kind = kind_of(head.dtype)
            if kind < 0 or head.ndim > 4:
                return NotImplemented
            for i in range(head.ndim):
                dims[i] = head.extents[i]
            value = cnp.PyArray_EMPTY(head.ndim, dims, kind, 0)
            if <uint64_t>cnp.PyArray_NBYTES(value) != count:
                return NotImplemented
            to = <char *>cnp.PyArray_DATA(value)
        if count <= AX_GIL_BYTES:
            memcpy(to, slot, count)
        else:
            with nogil:
                ax_copy(to, slot, count)
        ax_crash("get_copied")
        crc = ax_crc32(0, &letter.origin, sizeof(ax_origin))
        if count <= AX_CRC_BYTES:
            crc = ax_crc32(crc, to, count)
        else:
            crc = self.crc_of(PyMemoryView_FromMemory(to, count, PyBUF_READ), crc)
        if crc != head.crc or not queue_holds(&self.work, grip):
            return NotImplemented
        if head.ndim == 0 and head.dtype == AX_DTYPE_STR:
            return text_of(to, count)
        return number_of(head.dtype, small, count) if value is None else value

    def _fetch(self, int64_t deadline):
        """Lease a slot: a Parcel if its frame reads quickly, else a Grip; or a status."""
        cdef Parcel parcel = Parcel.__new__(Parcel)
        value = NotImplemented
        cdef int status
        self.enter()
        try:
            status = self.hold(&parcel.grip, deadline)
            if status != AX_OK:
                return status
            parcel.queue, parcel.is_over = self, False
            value = self.opened(&parcel.grip, &parcel.letter)
        finally:
            self.leave()
        if value is not NotImplemented:
            parcel.value = value
            return parcel
        parcel.is_over = True
        return grip_of(&parcel.grip)


cdef Grip grip_of(ax_grip *leased):
    cdef Grip grip = Grip.__new__(Grip)
    grip.grip = leased[0]
    grip.pending = leased.left
    return grip


@no_gc_clear   # `queue` goes after the lease
cdef class Parcel:
    """A leased frame of one value, read and checked: what a `Held` is, and what it says."""

    def __cinit__(self):
        self.is_over = True

    def __dealloc__(self):
        # Who dropped it has failed with it; a handle that was closed has given it back.
        if not self.is_over and self.queue.is_open and not inherited(self.queue.work.party):
            self.queue.settle(&self.grip, 0, True, True)

    @property
    def lane(self):
        """The way it has come."""
        return self.letter.origin.lane

    @property
    def sequence(self):
        """Its number there."""
        return self.letter.origin.sequence

    @property
    def overlap(self):
        """Samples of the block before."""
        return self.letter.origin.overlap

    @property
    def source(self):
        """Who emitted it."""
        return self.letter.source

    @property
    def time_ns(self):
        """Of what time it is, ns."""
        return self.letter.time_ns

    @property
    def id(self):
        """Number of the frame in the queue: the same at each delivery, never reused."""
        return self.grip.id * 64

    @property
    def attempt(self):
        """1 at the first delivery; more after somebody had it and failed."""
        return self.grip.failures + 1

    @property
    def data(self):
        """The whole frame, as long as it is leased."""
        return self.queue._copy(grip_of(&self.grip), 0) or b""

    def acknowledge(self):
        """Say that the frame is done with: whether the lease was still ours."""
        return self.finish(True)

    def give_back(self):
        """Let another getter have the frame; does nothing after the lease is over."""
        return self.finish(False)

    cdef bint finish(self, bint is_done) except -1:
        cdef int status
        if self.is_over:
            return True
        self.is_over = True
        self.queue.enter()
        try:
            status = self.queue.settle(&self.grip, is_done, not is_done, True)
        finally:
            self.queue.leave()
        return status == AX_OK
