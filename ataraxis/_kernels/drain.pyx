"""Draining a work queue: whole runs of frames into one buffer, without an object a frame.

For writers of files: frames as they lie in the queue, each padded, the headers' checksums continued from a seed.
"""
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc

from ataraxis._kernels.atomics cimport ax_copy
from ataraxis._kernels.crc cimport ax_crc32, ax_crc_init
from ataraxis._kernels.frame cimport ax_frame, ax_padded
from ataraxis._kernels.get cimport GetKernel
from ataraxis._kernels.layout cimport AX_MESSAGE_LARGE, AX_MESSAGE_NUMBERED, AX_OK, AX_OVERFLOW, AX_QUEUE_FRAMES
from ataraxis._kernels.queue cimport ax_grip, ones, queue_lease, queue_settle, queue_told, slot_of

ax_crc_init()

cdef enum:
    BATCH = 64             # slots of a run between two looks at those who wait for room


# ---- the algorithm

cdef uint64_t pour(char *to, const char *slot, ax_grip *grip, uint32_t seed) noexcept nogil:
    # The frames of a slot that are left, one behind the other: bytes written. A header that is not whole ends it.
    cdef uint64_t at = 0, bytes, done = 0
    cdef uint32_t k
    cdef ax_frame *frame
    for k in range(grip.frames):
        if at + sizeof(ax_frame) > grip.bytes:
            break
        frame = <ax_frame *>(slot + at)
        bytes = ax_padded(sizeof(ax_frame) + frame.length)
        if bytes < sizeof(ax_frame) or bytes > grip.bytes - at:
            break
        if grip.left >> k & 1:
            ax_copy(to + done, slot + at, bytes)
            if seed:
                frame = <ax_frame *>(to + done)
                frame.header_crc = ax_crc32(seed, frame, sizeof(ax_frame) - 4)
            done += bytes
        at += bytes
    return done


# ---- the bridge

cdef class DrainKernel(GetKernel):
    """What drains; a subclass gives the manners."""

    def __dealloc__(self):
        free(self.held)

    def _drain(self, unsigned char[::1] buffer not None, Py_ssize_t at, uint32_t seed, bint keeps, int64_t deadline):
        """Copy frames that are there into `buffer` from `at` on, each padded: end, frames, status; of a large one
        that came and is leased, the name, or None, and its number, or None if it keeps its own."""
        cdef ax_grip grip
        cdef int status
        cdef uint64_t frames = 0, here
        cdef char *to = <char *>&buffer[0]
        cdef Py_ssize_t room = buffer.shape[0]
        name = number = None
        self.enter()
        try:
            status = self.hold(&grip, deadline) if room - at >= <Py_ssize_t>self.work.stride else AX_OVERFLOW
            while status == AX_OK:
                if grip.flags & AX_MESSAGE_LARGE:
                    name = PyBytes_FromStringAndSize(slot_of(&self.work, grip.index), grip.bytes)
                    if grip.flags & AX_MESSAGE_NUMBERED:
                        number = grip.id * AX_QUEUE_FRAMES
                    self.remember(&grip)
                    break
                if keeps:
                    self.remember(&grip)
                with nogil:
                    here = pour(to + at, slot_of(&self.work, grip.index), &grip, seed)
                at += here
                frames += ones(grip.left)
                if not keeps and self.settle(&grip, grip.left, False, False) != AX_OK:
                    at -= here
                    frames -= ones(grip.left)
                if frames % BATCH == 0:
                    queue_told(&self.work, False)
                status = queue_lease(&self.work, &grip) if room - at >= <Py_ssize_t>self.work.stride else AX_OVERFLOW
        finally:
            queue_told(&self.work, False)
            self.leave()
        return at, frames, status, name, number

    cdef int remember(self, ax_grip *grip) except -1:
        cdef Py_ssize_t wanted
        cdef void *more
        if self.held_count == self.held_room:
            wanted = max(64, 2 * self.held_room)
            more = realloc(self.held, wanted * sizeof(ax_grip))
            if more == NULL:
                queue_settle(&self.work, grip, 0, True)
                raise MemoryError()
            self.held = <ax_grip *>more
            self.held_room = wanted
        self.held[self.held_count] = grip[0]
        self.held_count += 1
        return 0

    def _release_drained(self, bint done, Py_ssize_t first):
        """Acknowledge what drain has leased from number `first` on, or give it back: how many leases were over."""
        cdef Py_ssize_t k, lost = 0
        self.enter()
        try:
            for k in range(first, self.held_count):
                if self.settle(&self.held[k], self.held[k].left if done else 0, not done, k % BATCH == 0) != AX_OK:
                    lost += 1
            self.held_count = min(first, self.held_count)
            queue_told(&self.work, False)
        finally:
            self.leave()
        return lost

    @property
    def _drained(self):
        """Slots that drain has leased."""
        return self.held_count
