"""Putting an array row by row: each row a frame with its stamp, as many to a slot as it takes, without an object a row."""
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy, memset

from ataraxis._kernels.atomics cimport AX_GIL_BYTES, ax_copy
from ataraxis._kernels.crc cimport ax_crc32, ax_crc_init
from ataraxis._kernels.frame cimport (
    AX_FLAG_CHECKSUM, AX_FLAG_DEVICE_STAMP, AX_FLAG_DEVICE_UNSIGNED, AX_STAMP_BYTES, ax_frame, ax_padded,
)
from ataraxis._kernels.layout cimport AX_OK, AX_OVERFLOW, AX_QUEUE_FRAMES
from ataraxis._kernels.platform cimport ax_now_ns
from ataraxis._kernels.queue cimport ax_last, queue_told, slot_of

ax_crc_init()


# ---- the algorithm

cdef void lay_rows(char *to, ax_rows *rows, uint64_t sequence, uint64_t count) noexcept nogil:
    # `count` frames at `to`, one behind the other, from `sequence` on.
    cdef ax_frame *head
    cdef uint64_t stamp[2]
    cdef uint64_t k, whole = sizeof(ax_frame) + AX_STAMP_BYTES + rows.width
    stamp[1] = 0
    for k in range(count):
        stamp[0] = rows.stamp
        head = <ax_frame *>to
        memcpy(to, &rows.head, sizeof(ax_frame))
        memcpy(to + sizeof(ax_frame), stamp, AX_STAMP_BYTES)
        ax_copy(to + sizeof(ax_frame) + AX_STAMP_BYTES, rows.data, rows.width)
        memset(to + whole, 0, rows.each - whole)
        if head.flags & AX_FLAG_CHECKSUM:
            # Of the copy, in one go.
            head.crc = ax_crc32(0, to + sizeof(ax_frame), AX_STAMP_BYTES + rows.width)
        head.sequence = sequence + k
        head.header_crc = ax_crc32(0, head, sizeof(ax_frame) - 4)
        to += rows.each
        rows.data += rows.width
        rows.stamp += rows.step


# ---- the bridge

cdef class BlockKernel(PutKernel):
    """What puts rows; a subclass gives the manners."""

    cdef int fill(self, ax_rows *rows, uint64_t most, uint64_t *done, int64_t deadline) except -100:
        # As many of `most` rows as one slot takes, behind others of ours where that may be. The caller is inside.
        cdef uint64_t count = self.reopen(rows.each), first
        cdef ax_last slot = self.work.last
        cdef int status
        cdef char *to
        if not count:
            slot = ax_last(0, 0, 0, 0)
            status = self.claim(&slot.index, &slot.position, deadline)
            if status != AX_OK:
                return status
            count = min(self.work.stride // rows.each, <uint64_t>AX_QUEUE_FRAMES)
        count = min(count, most)
        to = slot_of(&self.work, slot.index) + slot.bytes
        first = slot.position * AX_QUEUE_FRAMES + slot.frames
        if count * rows.each > AX_GIL_BYTES:
            with nogil:
                lay_rows(to, rows, first, count)
        else:
            lay_rows(to, rows, first, count)
        self.show(&slot, count * rows.each, count)
        queue_told(&self.work, True)
        done[0] += count
        return AX_OK

    def _put_rows(self, const unsigned char[:, ::1] rows not None, const unsigned char[::1] template not None,
                  uint64_t stamp, uint64_t step, int64_t deadline):
        """Put each row with the device time `stamp`, and `step` more from row to row: how many were put, and a status.

        The header `template` (64 bytes) says what a row is, and its source. OVERFLOW: a row is larger than a slot.
        """
        cdef ax_rows block
        cdef uint64_t done = 0, count = rows.shape[0], width = rows.shape[1]
        cdef int status = AX_OK
        if count == 0:
            return 0, status
        memcpy(&block.head, &template[0], sizeof(ax_frame))
        block.data = <const char *>&rows[0, 0] if width else <const char *>&template[0]
        block.width, block.stamp, block.step = width, stamp, step
        block.each = ax_padded(sizeof(ax_frame) + AX_STAMP_BYTES + width)
        if block.each > self.work.stride:
            return 0, AX_OVERFLOW
        block.head.flags = AX_FLAG_DEVICE_STAMP | AX_FLAG_DEVICE_UNSIGNED | (AX_FLAG_CHECKSUM if self.checks else 0)
        block.head.length = AX_STAMP_BYTES + width
        block.head.time_ns = ax_now_ns()
        self.enter()
        try:
            while done < count and status == AX_OK:
                status = self.fill(&block, count - done, &done, deadline)
        finally:
            self.count(done, done * width, block.head.time_ns)
            self.leave()
        return done, status
