"""A getter that hands frames from a queue to a file, and acknowledges them once they are safe there.

No copy but the one into the file: frames go there from the slots they lie in.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from ataraxis._kernels.atomics cimport ax_peek64, ax_put64
from ataraxis._kernels.frame cimport (
    AX_EXTENTS_BYTES, AX_FLAG_CHECKSUM, AX_FLAG_DEVICE_STAMP, AX_FLAG_EXTENTS, AX_STAMP_BYTES, ax_frame, ax_padded,
)
from ataraxis._kernels.layout cimport AX_BUSY, AX_MESSAGE_LARGE, AX_OK
from ataraxis._kernels.queue cimport ax_grip, ones, queue_lease, queue_settle, slot_of
from ataraxis._kernels.queue_handle cimport QueueHandle
from ataraxis._kernels.records cimport DIRECT_BYTES, RecordKernel, SEVERAL, ax_sink, put, put_several, put_whole
from ataraxis._kernels.timing cimport deadline_of

cdef extern from *:
    """
    #define ax_prefetch(address) __builtin_prefetch(address, 0, 3)
    """
    void ax_prefetch(const void *address) nogil

cdef enum:
    AHEAD = 6                   # frames that are asked for before they are looked at,
    SHORT = 512                 # if they are no longer


# ---- the algorithm

# What was leased, as far as its headers say.
cdef struct ax_sum:
    uint64_t frames
    uint64_t payload
    uint64_t torn               # frames whose header is not whole


# What is recorded next: a slot, a frame of it, its first byte, that of the frame behind it.
cdef struct ax_place:
    Py_ssize_t slot
    uint32_t frame
    uint64_t at
    uint64_t next


cdef inline uint64_t frame_of(const char *at, uint64_t room, ax_frame *head) noexcept nogil:
    # Copy the header, which is not believed: bytes of the frame, 0 if it does not fit.
    if room < sizeof(ax_frame):
        return 0
    memcpy(head, at, sizeof(ax_frame))
    if head.length > room - sizeof(ax_frame):
        return 0
    if head.flags & AX_FLAG_DEVICE_STAMP and head.length < AX_STAMP_BYTES + (AX_EXTENTS_BYTES if head.flags & AX_FLAG_EXTENTS else 0):
        return 0
    return sizeof(ax_frame) + head.length


cdef void survey(const char *slot, ax_grip *grip, uint64_t *numbers, ax_sum *found) noexcept nogil:
    # The numbers of a slot's frames, behind those that are there; what they hold.
    cdef ax_frame head
    cdef uint64_t at = 0, bytes, line
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
            found.payload += head.length - (AX_EXTENTS_BYTES if head.flags & AX_FLAG_EXTENTS else 0)
            found.payload -= AX_STAMP_BYTES if head.flags & AX_FLAG_DEVICE_STAMP else 0
        bytes = ax_padded(bytes)
        # Whoever put them has the lines; the next ones are mostly as long.
        if bytes <= SHORT:
            for line in range(0, bytes, 64):
                ax_prefetch(slot + at + AHEAD * bytes + line)
        at += bytes
        if at > grip.bytes:
            at = grip.bytes


cdef bint next_place(QueueHandle queue, ax_place *place, ax_frame *head, const char **at) noexcept nogil:
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
            place.next = min(place.at + ax_padded(bytes), <uint64_t>grip.bytes)
            if grip.left >> place.frame & 1:
                return True
            pass_on(place)
        place.slot += 1
        place.frame, place.at = 0, 0
    return False


cdef inline void pass_on(ax_place *place) noexcept nogil:
    place.at = place.next
    place.frame += 1


cdef int put_long(QueueHandle queue, ax_sink *sink, ax_place *place) noexcept nogil:
    # Long frames that follow each other, in one write.
    cdef ax_frame heads[SEVERAL]
    cdef const char *data[SEVERAL]
    cdef ax_place ahead = place[0]
    cdef ax_frame head
    cdef const char *at = NULL
    cdef uint32_t n = 0
    cdef int status
    while n < SEVERAL and next_place(queue, &ahead, &head, &at):
        if head.length <= DIRECT_BYTES or not head.flags & AX_FLAG_CHECKSUM:
            break
        # Its padding is in the slot too.
        if ahead.next - ahead.at != ax_padded(sizeof(ax_frame) + head.length):
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

    cdef QueueHandle queue
    cdef ax_place place

    def __init__(self, QueueHandle queue not None):
        self.queue = queue

    def lease(self, uint64_t[::1] numbers not None, uint64_t most, timeout):
        """Lease slots up to `most` bytes: frames, bytes of payload, and whether a large frame is next.

        Waits for the first. The numbers of the frames go into `numbers`, which is as long as there may be frames. A
        large frame is not leased: `drain_into` is for it.
        """
        cdef QueueHandle queue = self.queue
        cdef ax_grip grip
        cdef ax_sum found
        cdef uint64_t bytes = 0
        cdef int64_t deadline = deadline_of(timeout)
        cdef int status
        cdef bint is_large = False
        found.frames = found.payload = found.torn = 0
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
        return found.frames, found.payload, is_large

    def record(self, RecordKernel file not None):
        """Put what is leased and not recorded yet into the file: its status; if not OK, it did not take the next frame."""
        cdef QueueHandle queue = self.queue
        cdef ax_place *place = &self.place
        cdef ax_frame head
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
                    if head.length <= DIRECT_BYTES and place.next - place.at == ax_padded(sizeof(ax_frame) + head.length):
                        status = put_whole(&file.sink, at, place.next - place.at)
                    else:
                        status = put(
                            &file.sink, &head, NULL, 0, at + sizeof(ax_frame), head.length, head.flags & AX_FLAG_CHECKSUM,
                        )
                    if status != AX_OK:
                        break
                    pass_on(place)
        finally:
            queue.leave()
        return status
