"""A reader that hands frames from a ring to a file, and gives their slots back once they are safe there.

No copy but the one into the file: large frames are written from their slots.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ataraxis._kernels.consumer cimport ConsumerHandle
from ataraxis._kernels.frame cimport AX_FLAG_CHECKSUM, ax_frame
from ataraxis._kernels.layout cimport AX_EMPTY, AX_ENDED, AX_LAPPED, AX_OK
from ataraxis._kernels.records cimport RecordKernel, put
from ataraxis._kernels.ring cimport (
    AX_UNKNOWN, ax_got, ax_ring, bytes_at, count_frame, frame_at, give_back, next_frame, payload_at,
)
from ataraxis._kernels.timing cimport deadline_of

cdef enum:
    BATCH_BYTES = 1 << 24       # in files before slots are given back


# ---- the bridge

cdef class Tap:
    """The end of a lossless consumer, for one thread; frames it took are held until `release`."""

    cdef ConsumerHandle consumer
    cdef unsigned char[::1] memory
    cdef ax_got *kept
    cdef uint64_t count, most, first_missing, passed
    cdef ax_got stuck                   # taken from the ring, and not by the file
    cdef bint is_stuck

    def __init__(self, ConsumerHandle consumer not None, expected=None):
        """`expected`: the first sequence that the file has not."""
        self.consumer = consumer
        self.most = consumer.ring.slots // 2 + 1
        self.memory = bytearray(self.most * sizeof(ax_got))
        self.kept = <ax_got *>&self.memory[0]
        self.first_missing = AX_UNKNOWN if expected is None else <uint64_t>expected

    def wait(self, timeout):
        """Wait for a frame, and hold it for `record`: OK, TIMEOUT, ENDED, or BUSY (cancelled)."""
        cdef ConsumerHandle consumer = self.consumer
        cdef int status = AX_OK
        if self.is_stuck:
            return status
        consumer.enter()
        try:
            status = consumer.next(&self.stuck, deadline_of(timeout))
            if status == AX_OK:
                self.is_stuck = True
                count_frame(&consumer.ring, frame_at(&consumer.ring, self.stuck.index).sequence)
        finally:
            consumer.leave()
        return status

    def record(self, RecordKernel file not None, int64_t source, int64_t labels):
        """Put what is in the ring into the file: frames, bytes, and a status.

        EMPTY: there is no more now; OK: `release` comes first; LAPPED: the frame `found` is next where `expected`
        should be, `accept` it; the file's own status: it did not take the next frame.
        """
        cdef ConsumerHandle consumer = self.consumer
        cdef ax_ring *ring = &consumer.ring
        cdef ax_frame *frame
        cdef ax_frame head
        cdef uint64_t frames = 0, nbytes = 0, front
        cdef int status = AX_OK
        cdef const char *data
        consumer.enter()
        try:
            with nogil:
                while self.count < self.most and nbytes < BATCH_BYTES:
                    if not self.is_stuck:
                        status = next_frame(ring, &self.stuck)
                        if status != AX_OK:
                            break
                        self.is_stuck = True
                        count_frame(ring, frame_at(ring, self.stuck.index).sequence)
                    frame = frame_at(ring, self.stuck.index)
                    data = payload_at(ring, self.stuck.index)
                    memcpy(&head, frame, sizeof(ax_frame))
                    if self.first_missing != AX_UNKNOWN and head.sequence < self.first_missing and not ring.shared:
                        self.passed += 1
                    else:
                        if self.first_missing != AX_UNKNOWN and head.sequence > self.first_missing and not ring.shared:
                            status = AX_LAPPED
                            break
                        if source >= 0:
                            head.source = <uint32_t>source
                        if labels >= 0 and head.labels:
                            head.labels = <uint32_t>labels
                        head.flags |= AX_FLAG_CHECKSUM
                        front = data - <char *>frame - sizeof(ax_frame)
                        status = put(
                            &file.sink, &head, <char *>frame + sizeof(ax_frame), front, data,
                            bytes_at(ring, self.stuck.index), False,
                        )
                        if status != AX_OK:
                            break
                        frames += 1
                        nbytes += sizeof(ax_frame) + head.length
                        self.first_missing = head.sequence + 1
                    self.kept[self.count] = self.stuck
                    self.count += 1
                    self.is_stuck = False
        finally:
            consumer.leave()
        return frames, nbytes, status

    def release(self):
        """Give the slots back: what they held is safe."""
        cdef ConsumerHandle consumer = self.consumer
        cdef uint64_t k
        if not self.count:
            return
        consumer.enter()
        try:
            with nogil:
                for k in range(self.count):
                    give_back(&consumer.ring, self.kept[k].index, self.kept[k].position, self.kept[k].held)
                self.count = 0
        finally:
            consumer.leave()

    def accept(self):
        """Go on with the frame that is not the expected one; how many are missing before it."""
        cdef uint64_t missing = 0
        if self.is_stuck:
            missing = self.found - self.first_missing
            self.first_missing = self.found
        return missing

    @property
    def found(self):
        """Sequence of the frame that is next; None: there is none at hand."""
        if not self.is_stuck:
            return None
        return frame_at(&self.consumer.ring, self.stuck.index).sequence

    @property
    def expected(self):
        """First sequence that the file has not; None before the first frame."""
        return None if self.first_missing == AX_UNKNOWN else self.first_missing

    @property
    def held(self):
        """Frames whose slots wait for `release`."""
        return self.count

    @property
    def skipped(self):
        """Frames that the file had already."""
        return self.passed


EMPTY, ENDED, LAPPED = AX_EMPTY, AX_ENDED, AX_LAPPED
