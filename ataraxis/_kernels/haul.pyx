"""A getter that hands frames from a queue to a file, and acknowledges them once they are safe there.

No copy but the one into the file: frames go there from the slots they lie in, blocks row by row.
"""
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from ataraxis._kernels.atomics cimport ax_peek64, ax_put64
from ataraxis._kernels.crc cimport ax_crc32, ax_crc_prepare
from ataraxis._kernels.drain cimport DrainKernel
from ataraxis._kernels.layout cimport AX_BUSY, AX_EMPTY, AX_MESSAGE_LARGE, AX_OK, ax_frame
from ataraxis._kernels.queue cimport ax_grip, ones, padded, queue_lease, queue_settle, slot_of
from ataraxis._kernels.records cimport DIRECT_BYTES, SEVERAL, RecordKernel, ax_sink, put, put_several
from ataraxis._kernels.timing cimport deadline_of

ax_crc_prepare()

cdef enum:
    CHECKSUM = 1
    EXTENDED = 8
    DEVICE = 16
    UNSIGNED = 32
    STAMP_BYTES = 16
    ROW_BITS = 16               # of a row's number in its block


# ---- the algorithm

# What was leased, as far as its headers say.
cdef struct ax_sum:
    uint64_t frames
    uint64_t rows
    uint64_t payload
    uint64_t torn               # frames whose header is not whole


# What is recorded next: a slot, a frame of it, its first byte, that of the frame behind it; of a block, a row.
cdef struct ax_place:
    Py_ssize_t slot
    uint32_t frame
    uint64_t at
    uint64_t next
    uint64_t row


cdef struct ax_stamp:
    uint64_t time
    uint64_t counter


cdef inline uint64_t frame_of(const char *at, uint64_t room, ax_frame *head) noexcept nogil:
    # Copy the header, which is not believed: bytes of the frame, 0 if it does not fit.
    if room < sizeof(ax_frame):
        return 0
    memcpy(head, at, sizeof(ax_frame))
    if head.length > room - sizeof(ax_frame):
        return 0
    if head.flags & DEVICE and head.length < STAMP_BYTES + (sizeof(ax_frame) if head.flags & EXTENDED else 0):
        return 0
    return sizeof(ax_frame) + head.length


cdef inline bint stamp_of(const char *at, ax_frame *head, ax_stamp *stamp) noexcept nogil:
    # Whether the frame is a block; its device stamp.
    if not head.flags & DEVICE:
        return False
    memcpy(stamp, at + sizeof(ax_frame) + (sizeof(ax_frame) if head.flags & EXTENDED else 0), sizeof(ax_stamp))
    return stamp.counter >> 63


cdef void survey(const char *slot, ax_grip *grip, uint64_t *numbers, ax_sum *found) noexcept nogil:
    # The numbers of a slot's frames, behind those that are there; what they hold.
    cdef ax_frame head
    cdef ax_stamp stamp
    cdef uint64_t at = 0, bytes, extent, front
    cdef uint32_t k
    for k in range(grip.frames):
        bytes = frame_of(slot + at, grip.bytes - at, &head)
        if not bytes:
            found.torn += ones(grip.left >> k)
            # Nothing of it can be read; it goes with the slot.
            grip.frames = k
            return
        if grip.left >> k & 1:
            numbers[found.frames] = head.sequence
            found.frames += 1
            extent = 1
            front = 64 if head.flags & EXTENDED else 0
            if stamp_of(slot + at, &head, &stamp):
                extent = head.extents[0]
                if head.flags & EXTENDED:
                    memcpy(&extent, slot + at + sizeof(ax_frame), 8)
            found.rows += extent
            found.payload += head.length - front - (STAMP_BYTES if head.flags & DEVICE else 0)
        at += padded(bytes)
        if at > grip.bytes:
            at = grip.bytes


cdef inline uint64_t item_bytes(uint8_t code) noexcept nogil:
    # Of the plain numbers, 0 of others.
    if code == 1 or code == 10 or code == 19:
        return 1
    if code == 2 or code == 11 or code == 14:
        return 2
    if code == 3 or code == 12 or code == 15:
        return 4
    if code == 4 or code == 13 or code == 16 or code == 17:
        return 8
    return 16 if code == 18 else 0


cdef bint is_plain_block(const char *at, ax_frame *head) noexcept nogil:
    # Rows of plain numbers, whole; the others are the caller's.
    cdef uint64_t bytes = item_bytes(head.dtype)
    cdef uint32_t k
    if not bytes or head.flags & ~(CHECKSUM | DEVICE | UNSIGNED) or head.labels or not 0 < head.ndim <= 4:
        return False
    for k in range(head.ndim):
        if head.extents[k] and bytes > (<uint64_t>1 << 40) // head.extents[k]:
            return False
        bytes *= head.extents[k]
    if bytes != head.length - STAMP_BYTES:
        return False
    return not head.flags & CHECKSUM or ax_crc32(0, at + sizeof(ax_frame), head.length) == head.crc


cdef int put_rows(ax_sink *sink, const char *at, ax_frame *head, ax_stamp *stamp, uint64_t *row) noexcept nogil:
    # The rows of a plain block from `row` on, each with its stamp.
    cdef ax_frame each
    cdef ax_stamp own
    cdef uint64_t rows = head.extents[0], width, step = stamp.counter & ~(<uint64_t>1 << 63)
    cdef const char *data = at + sizeof(ax_frame) + STAMP_BYTES
    cdef int status
    cdef uint32_t k
    if rows == 0:
        return AX_OK
    width = (head.length - STAMP_BYTES) // rows
    memcpy(&each, head, sizeof(ax_frame))
    each.flags = CHECKSUM | DEVICE | UNSIGNED
    each.ndim = head.ndim - 1
    for k in range(3):
        each.extents[k] = head.extents[k + 1]
    each.extents[3] = 0
    own.counter = 0
    while row[0] < rows:
        each.sequence = (<uint64_t>1 << 63 | head.sequence << ROW_BITS) + row[0]
        own.time = stamp.time + row[0] * step
        status = put(sink, &each, <const char *>&own, STAMP_BYTES, data + row[0] * width, width, False)
        if status != AX_OK:
            return status
        row[0] += 1
    return AX_OK


cdef bint next_place(DrainKernel queue, ax_place *place, ax_frame *head, const char **at) noexcept nogil:
    # Go to the next frame to record, and copy its header; False: there is none.
    cdef ax_grip *grip
    cdef uint64_t bytes
    while place.slot < queue.held_count:
        grip = &queue.held[place.slot]
        while place.frame < grip.frames:
            at[0] = slot_of(&queue.work, grip.index) + place.at
            bytes = frame_of(at[0], grip.bytes - place.at, head)
            if not bytes:
                break
            place.next = min(place.at + padded(bytes), <uint64_t>grip.bytes)
            if grip.left >> place.frame & 1:
                return True
            pass_on(place)
        place.slot += 1
        place.frame, place.at, place.row = 0, 0, 0
    return False


cdef inline void pass_on(ax_place *place) noexcept nogil:
    place.at = place.next
    place.frame += 1
    place.row = 0


cdef int put_long(DrainKernel queue, ax_sink *sink, ax_place *place) noexcept nogil:
    # Long frames that follow each other, in one write.
    cdef ax_frame heads[SEVERAL]
    cdef const char *data[SEVERAL]
    cdef ax_place ahead = place[0]
    cdef ax_frame head
    cdef const char *at = NULL
    cdef ax_stamp stamp
    cdef uint32_t n = 0
    cdef int status
    while n < SEVERAL and next_place(queue, &ahead, &head, &at):
        if head.length <= DIRECT_BYTES or stamp_of(at, &head, &stamp) or not head.flags & CHECKSUM:
            break
        # Its padding is in the slot too.
        if ahead.next - ahead.at != padded(sizeof(ax_frame) + head.length):
            break
        heads[n] = head
        data[n] = at + sizeof(ax_frame)
        n += 1
        pass_on(&ahead)
    if n < 2:
        return AX_BUSY
    status = put_several(sink, heads, data, &n)
    while n:
        next_place(queue, place, &head, &at)
        pass_on(place)
        n -= 1
    return status


# ---- the bridge

cdef class Haul:
    """What a writer has leased from a queue, for one thread; its handle acknowledges it, or gives it back."""

    cdef DrainKernel queue
    cdef ax_place place

    def __init__(self, DrainKernel queue not None):
        self.queue = queue

    def lease(self, uint64_t[::1] numbers not None, uint64_t most, timeout):
        """Lease slots up to `most` bytes: frames, their rows, bytes of payload, and whether a large frame is next.

        Waits for the first. The numbers of the frames go into `numbers`, which is as long as there may be frames. A
        large frame is not leased: `drain_into` is for it.
        """
        cdef DrainKernel queue = self.queue
        cdef ax_grip grip
        cdef ax_sum found
        cdef uint64_t bytes = 0
        cdef int64_t deadline = deadline_of(timeout)
        cdef int status
        cdef bint is_large = False
        found.frames = found.rows = found.payload = found.torn = 0
        memset(&self.place, 0, sizeof(ax_place))
        self.place.slot = queue.held_count
        queue.enter()
        try:
            status = queue.hold(&grip, deadline)
            while status == AX_OK:
                if grip.flags & AX_MESSAGE_LARGE:
                    queue_settle(&queue.work, &grip, 0, False)
                    is_large = True
                    break
                survey(slot_of(&queue.work, grip.index), &grip, &numbers[0], &found)
                queue.remember(&grip)
                bytes += grip.bytes
                if bytes >= most or found.frames + 64 > <uint64_t>numbers.shape[0]:
                    break
                status = queue_lease(&queue.work, &grip)
            if found.torn:
                ax_put64(&queue.work.tally.corrupt, ax_peek64(&queue.work.tally.corrupt) + found.torn)
        finally:
            queue.leave()
        return found.frames, found.rows, found.payload, is_large

    def record(self, RecordKernel file not None):
        """Put what is leased and not recorded yet into the file: OK, OTHER (`other` is for the caller), or the file's
        own status: it did not take the next frame."""
        cdef DrainKernel queue = self.queue
        cdef ax_place *place = &self.place
        cdef ax_frame head
        cdef ax_stamp stamp
        cdef const char *at = NULL
        cdef int status = AX_OK
        queue.enter()
        try:
            with nogil:
                while next_place(queue, place, &head, &at):
                    if head.length > DIRECT_BYTES:
                        status = put_long(queue, &file.sink, place)
                        if status == AX_OK:
                            continue
                        if status != AX_BUSY:
                            break
                    if not stamp_of(at, &head, &stamp):
                        status = put(
                            &file.sink, &head, NULL, 0, at + sizeof(ax_frame), head.length, head.flags & CHECKSUM,
                        )
                    elif is_plain_block(at, &head):
                        status = put_rows(&file.sink, at, &head, &stamp, &place.row)
                    else:
                        status = AX_EMPTY
                    if status != AX_OK:
                        break
                    pass_on(place)
        finally:
            queue.leave()
        return status

    def other(self):
        """The frame that `record` left to the caller, as bytes; passes on to the next one."""
        cdef ax_frame head
        cdef const char *at = NULL
        self.queue.enter()
        try:
            if not next_place(self.queue, &self.place, &head, &at):
                return None
            frame = PyBytes_FromStringAndSize(at, sizeof(ax_frame) + head.length)
            pass_on(&self.place)
            return frame
        finally:
            self.queue.leave()


OTHER = AX_EMPTY
