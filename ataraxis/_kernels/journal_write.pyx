"""Writing frames into a journal, many at a time: stamped, checksummed, padded; from arrays, rings and queues.

The buffer holds complete frames only. If a write fails they stay in it, and the next attempt writes them to the same
offset. A ring's slots are released, and a queue's frames acknowledged, once they are in the file. Frames are copied
once, into the buffer; large frames are written directly from their slots.
"""
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from ataraxis._kernels.atomics cimport ax_load32, ax_load64, ax_store32, ax_u32
from ataraxis._kernels.consumer cimport ConsumerHandle
from ataraxis._kernels.crc cimport ax_crc32, ax_crc_init, ax_header_crc, ax_seal, ax_seal_of
from ataraxis._kernels.frame cimport (
    AX_EXTENTS_BYTES, AX_FLAG_CHECKSUM, AX_FLAG_DEVICE_STAMP, AX_FLAG_EXTENTS, AX_FRAME_MAGIC, AX_STAMP_BYTES,
    ax_frame, ax_padded,
)
from ataraxis._kernels.journal cimport ax_run, ax_run_add, ax_write_all, iovec
from ataraxis._kernels.layout cimport (
    AX_BUSY, AX_DAMAGED, AX_EMPTY, AX_ENDED, AX_FULL, AX_LAPPED, AX_MESSAGE_CHUNK, AX_MESSAGE_LARGE, AX_OK, AX_TORN,
)
from ataraxis._kernels.platform cimport ax_crash
from ataraxis._kernels.queue cimport add_to, ax_lease, ones, queue_lease, queue_settle, slot_of
from ataraxis._kernels.queue_handle cimport QueueHandle
from ataraxis._kernels.ring cimport (
    AX_UNKNOWN, ax_got, ax_ring, bytes_at, count_frame, frame_at, is_over, next_frame, payload_at,
    reader_stop_gating, release_frame,
)
from ataraxis._kernels.timing cimport deadline_of

cdef enum:
    DIRECT_BYTES = 16384        # longer payloads are written without a copy
    MOST_DIRECT = 32                # most of those in one write
    RUNS = 1024                 # runs kept until the index is written
    LATENCY_ROWS = 4096         # rows between checks of signals
    BATCH_BYTES = 1 << 24       # most bytes recorded before slots are released
    AHEAD = 6                   # frames prefetched ahead,
    SHORT = 512                 # if they are not longer

ax_crc_init()

cdef extern from *:
    """
    #define ax_prefetch(address) __builtin_prefetch(address, 0, 3)
    """
    void ax_prefetch(const void *address) nogil


# ---- the algorithm

cdef int flush(ax_sink *sink, const char *more, uint64_t count) noexcept nogil:
    # Write the buffer, and `count` bytes after it, to the file; `more` ends a frame, so it is padded.
    cdef char zeros[64]
    cdef iovec pieces[3]
    cdef int n = 1
    cdef uint64_t total = sink.used + count, pad = ax_padded(total) - total
    if not total:
        return AX_OK
    pieces[0].iov_base, pieces[0].iov_len = sink.buffer, sink.used
    if count:
        pieces[1].iov_base, pieces[1].iov_len = <void *>more, count
        n = 2
    if pad:
        memset(zeros, 0, 64)
        pieces[n].iov_base, pieces[n].iov_len = zeros, pad
        n += 1
    ax_crash("journal_unwritten")
    sink.error = ax_write_all(sink.fd, pieces, n, sink.at)
    if sink.error:
        return AX_TORN
    ax_crash("journal_written")
    sink.at += total + pad
    sink.used = 0
    sink.frames += sink.waiting
    sink.waiting = 0
    return AX_OK


cdef int write_index(ax_sink *sink) noexcept nogil:
    # Write the runs of frames in the file. If the process dies before, a reader scans the file.
    cdef iovec piece
    cdef size_t k
    if not sink.runs:
        return AX_OK
    for k in range(sink.runs):
        sink.run[k].crc = ax_header_crc(sink.seal, &sink.run[k])
    piece.iov_base, piece.iov_len = sink.run, sink.runs * sizeof(ax_run)
    sink.error = ax_write_all(sink.index_fd, &piece, 1, sink.index_at)
    if sink.error:
        return AX_TORN
    ax_crash("journal_indexed")
    sink.index_at += sink.runs * sizeof(ax_run)
    sink.runs = 0
    return AX_OK


cdef int reserve(ax_sink *sink, uint64_t wanted) noexcept nogil:
    # Make room for a frame and its run. AX_FULL: the file is full.
    if sink.at + sink.used >= sink.limit:
        return AX_FULL
    if sink.used + wanted > sink.capacity and flush(sink, NULL, 0) != AX_OK:
        return AX_TORN
    if sink.runs >= RUNS - 1 and (flush(sink, NULL, 0) != AX_OK or write_index(sink) != AX_OK):
        return AX_TORN
    return AX_OK


cdef int put_frame(ax_sink *sink, ax_frame *head, const char *front, uint64_t front_bytes, const char *data, uint64_t count,
             bint is_checked) noexcept nogil:
    # Write one frame. `front`: its extensions; is_checked: its checksum is in the header already.
    cdef uint64_t inside = sizeof(ax_frame) + front_bytes, offset, padded
    cdef bint is_direct = count > DIRECT_BYTES
    cdef int status = reserve(sink, ax_padded(inside + (0 if is_direct else count)))
    cdef uint32_t crc
    cdef char *to
    if status != AX_OK:
        return status
    head.length = front_bytes + count
    offset = sink.at + sink.used
    padded = ax_padded(inside + count)
    to = sink.buffer + sink.used
    if front_bytes:
        memcpy(to + sizeof(ax_frame), front, front_bytes)
    if count and not is_direct:
        memcpy(to + inside, data, count)
    if head.flags & AX_FLAG_CHECKSUM and not is_checked:
        # Of the copy in one pass; of a payload that is not copied, from its memory.
        crc = ax_crc32(0, to + sizeof(ax_frame), front_bytes + (0 if is_direct else count))
        head.crc = ax_crc32(crc, data, count) if is_direct else crc
    head.header_crc = ax_header_crc(sink.seal, head)
    memcpy(to, head, sizeof(ax_frame))
    sink.waiting += 1
    if is_direct:
        sink.used += inside
        if flush(sink, data, count) != AX_OK:
            sink.used -= inside
            sink.waiting -= 1
            return AX_TORN
    else:
        memset(to + inside + count, 0, padded - inside - count)
        sink.used += padded
    sink.runs = ax_run_add(sink.run, 0, sink.runs, offset, padded, head)
    return AX_OK


cdef int put_whole(ax_sink *sink, const char *frame, uint64_t padded) noexcept nogil:
    # Write an unchanged, padded frame of at most DIRECT_BYTES. A CRC is linear: one XOR turns a header's CRC without a
    # seed into the one with this file's seed, and a wrong one stays wrong.
    cdef char *to
    cdef int status = reserve(sink, padded)
    if status != AX_OK:
        return status
    to = sink.buffer + sink.used
    memcpy(to, frame, padded)
    (<ax_frame *>to).header_crc ^= sink.shift
    sink.runs = ax_run_add(sink.run, 0, sink.runs, sink.at + sink.used, padded, <ax_frame *>to)
    sink.used += padded
    sink.waiting += 1
    return AX_OK


cdef int put_frames(ax_sink *sink, ax_frame *heads, const char **data, uint32_t *count) noexcept nogil:
    # Write frames longer than DIRECT_BYTES, at most SEVERAL, in one write: all that fit this file, or on TORN none.
    # `data`: the bytes after the header, padded as in a file; checksums are in the headers already.
    cdef iovec pieces[2 * MOST_DIRECT]
    cdef uint64_t start = sink.at + sink.used, end = start
    cdef uint32_t k, n = 0
    cdef int status = reserve(sink, MOST_DIRECT * sizeof(ax_frame))
    cdef char *to
    if status != AX_OK:
        count[0] = 0
        return status
    if sink.runs + MOST_DIRECT >= RUNS and (flush(sink, NULL, 0) != AX_OK or write_index(sink) != AX_OK):
        count[0] = 0
        return AX_TORN
    to = sink.buffer + sink.used
    while n < count[0] and end < sink.limit:
        heads[n].header_crc = ax_header_crc(sink.seal, &heads[n])
        memcpy(to, &heads[n], sizeof(ax_frame))
        pieces[2 * n].iov_base, pieces[2 * n].iov_len = to, sizeof(ax_frame)
        pieces[2 * n + 1].iov_base = <void *>data[n]
        pieces[2 * n + 1].iov_len = ax_padded(sizeof(ax_frame) + heads[n].length) - sizeof(ax_frame)
        end += ax_padded(sizeof(ax_frame) + heads[n].length)
        to += sizeof(ax_frame)
        n += 1
    pieces[0].iov_base, pieces[0].iov_len = sink.buffer, sink.used + sizeof(ax_frame)
    count[0] = 0
    ax_crash("journal_unwritten")
    sink.error = ax_write_all(sink.fd, pieces, 2 * n, sink.at)
    if sink.error:
        return AX_TORN
    ax_crash("journal_written")
    sink.at = end
    sink.used = 0
    sink.frames += sink.waiting + n
    sink.waiting = 0
    for k in range(n):
        end = ax_padded(sizeof(ax_frame) + heads[k].length)
        sink.runs = ax_run_add(sink.run, 0, sink.runs, start, end, &heads[k])
        start += end
    count[0] = n
    return AX_OK


cdef uint64_t frame_bytes(const char *data, uint64_t left) noexcept nogil:
    # Size of the frame that begins here, 0 if none does.
    cdef uint64_t length = 0
    if left < sizeof(ax_frame) or memcmp(data, AX_FRAME_MAGIC, 4) != 0:
        return 0
    memcpy(&length, data + 8, 8)
    return sizeof(ax_frame) + length if length <= left - sizeof(ax_frame) else 0


# ---- frames leased from a queue

# Totals according to the headers.
cdef struct ax_sum:
    uint64_t frames
    uint64_t payload
    uint64_t torn               # frames with an invalid header


# The next frame to record: its slot, its index there, its offset, the offset of the following frame.
cdef struct ax_place:
    Py_ssize_t slot
    uint32_t frame
    uint64_t at
    uint64_t next


cdef inline uint64_t frame_of(const char *at, uint64_t room, ax_frame *head) noexcept nogil:
    # Copy the header, which is not trusted; returns the size of the frame, 0 if it does not fit.
    if room < sizeof(ax_frame):
        return 0
    memcpy(head, at, sizeof(ax_frame))
    if head.length > room - sizeof(ax_frame):
        return 0
    if head.flags & AX_FLAG_DEVICE_STAMP and head.length < AX_STAMP_BYTES + (AX_EXTENTS_BYTES if head.flags & AX_FLAG_EXTENTS else 0):
        return 0
    return sizeof(ax_frame) + head.length


cdef void summarize_frames(const char *slot, ax_lease *slot_lease, uint64_t *numbers, ax_sum *found) noexcept nogil:
    # Append the sequences of a slot's frames to `numbers`, and add up their contents.
    cdef ax_frame head
    cdef uint64_t at = 0, bytes, line
    cdef uint32_t k
    for k in range(slot_lease.frames):
        bytes = frame_of(slot + at, slot_lease.bytes - at, &head)
        if not bytes:
            found.torn += ones(slot_lease.left >> k)
            # It cannot be read, and is acknowledged with the slot.
            slot_lease.frames = k
            return
        if slot_lease.left >> k & 1:
            numbers[found.frames] = head.sequence
            found.frames += 1
            found.payload += head.length - (AX_EXTENTS_BYTES if head.flags & AX_FLAG_EXTENTS else 0)
            found.payload -= AX_STAMP_BYTES if head.flags & AX_FLAG_DEVICE_STAMP else 0
        bytes = ax_padded(bytes)
        # The lines are in the putter's cache; the following frames are mostly of the same size.
        if bytes <= SHORT:
            for line in range(0, bytes, 64):
                ax_prefetch(slot + at + AHEAD * bytes + line)
        at += bytes
        if at > slot_lease.bytes:
            at = slot_lease.bytes


cdef bint next_place(QueueHandle queue, ax_place *place, ax_frame *head, const char **at) noexcept nogil:
    # Move to the next frame to record, and copy its header; False at the end.
    cdef ax_lease *slot_lease
    cdef uint64_t bytes
    while place.slot < queue.drained_count:
        slot_lease = &queue.drained[place.slot]
        while place.frame < slot_lease.frames:
            at[0] = slot_of(&queue.work, slot_lease.index) + place.at
            bytes = frame_of(at[0], slot_lease.bytes - place.at, head)
            if not bytes:
                break
            place.next = min(place.at + ax_padded(bytes), <uint64_t>slot_lease.bytes)
            if slot_lease.left >> place.frame & 1:
                return True
            step_place(place)
        place.slot += 1
        place.frame, place.at = 0, 0
    return False


cdef inline void step_place(ax_place *place) noexcept nogil:
    place.at = place.next
    place.frame += 1


cdef int put_long(QueueHandle queue, ax_sink *sink, ax_place *place) noexcept nogil:
    # Record consecutive long frames in one write.
    cdef ax_frame heads[MOST_DIRECT]
    cdef const char *data[MOST_DIRECT]
    cdef ax_place ahead = place[0]
    cdef ax_frame head
    cdef const char *at = NULL
    cdef uint32_t n = 0
    cdef int status
    while n < MOST_DIRECT and next_place(queue, &ahead, &head, &at):
        if head.length <= DIRECT_BYTES or not head.flags & AX_FLAG_CHECKSUM:
            break
        # Its padding is in the slot too.
        if ahead.next - ahead.at != ax_padded(sizeof(ax_frame) + head.length):
            break
        heads[n] = head
        data[n] = at + sizeof(ax_frame)
        n += 1
        step_place(&ahead)
    if n < 2:
        return AX_BUSY
    status = put_frames(sink, heads, data, &n)
    while n:
        next_place(queue, place, &head, &at)
        step_place(place)
        n -= 1
    return status


# ---- the bridge

cdef class RecordKernel:
    """A file of frames and its index, both open for writing."""

    def _open(self, int fd, int index_fd, uint64_t at, uint64_t index_at, uint64_t limit, uint32_t seed,
              Py_ssize_t capacity):
        """Write to these files from `at` on; buffered frames go there, too."""
        cdef ax_sink *sink = &self.sink
        cdef ax_frame nothing
        if sink.buffer == NULL:
            self.buffer = bytearray(capacity + 2 * DIRECT_BYTES)
            self.run_memory = bytearray(RUNS * sizeof(ax_run))
            sink.buffer, sink.run = <char *>&self.buffer[0], <ax_run *>&self.run_memory[0]
            sink.capacity = capacity + 2 * DIRECT_BYTES
        sink.fd, sink.index_fd, sink.at, sink.index_at, sink.limit = fd, index_fd, at, index_at, limit
        sink.seal = ax_seal_of(seed)
        memset(&nothing, 0, sizeof(ax_frame))
        sink.shift = ax_header_crc(sink.seal, &nothing) ^ ax_crc32(0, &nothing, sizeof(ax_frame) - 4)

    def _rows(self, const unsigned char[::1] template not None, const unsigned char[:, ::1] rows not None,
              const unsigned char[:, ::1] fronts, uint64_t sequence, const int64_t[::1] times, int64_t time, int64_t step):
        """Write rows as frames with the header `template`; return how many, and FULL, TORN or OK."""
        cdef ax_frame head
        cdef uint64_t count = rows.shape[1], front_bytes = fronts.shape[1] if fronts is not None else 0
        cdef Py_ssize_t n = rows.shape[0], k = 0, stop
        cdef const char *data = NULL
        cdef const char *front = NULL
        cdef int status = AX_OK
        if n and count:
            data = <const char *>&rows[0, 0]
        if n and front_bytes:
            front = <const char *>&fronts[0, 0]
        memcpy(&head, &template[0], sizeof(ax_frame))
        while k < n and status == AX_OK:
            stop = min(n, k + LATENCY_ROWS)
            with nogil:
                while k < stop:
                    head.sequence = sequence + <uint64_t>k
                    head.time_ns = times[k] if times is not None else time + k * step
                    status = put_frame(&self.sink, &head, front, front_bytes, data + <uint64_t>k * count, count, False)
                    if status != AX_OK:
                        break
                    k += 1
                    if front_bytes:
                        front += front_bytes
        return k, status

    def _packed(self, const unsigned char[::1] data not None, Py_ssize_t start, Py_ssize_t align, int64_t source,
                int64_t labels):
        """Write frames that lie `align` bytes apart; return how many, the next byte, and a status.

        `source` and `labels` replace those of the frames if not negative, labels only in frames that have some. Only magic
        and length are checked: the first byte that does not begin a frame ends it, with OK.
        """
        cdef ax_frame head
        cdef uint64_t whole, n = data.shape[0], at = start
        cdef Py_ssize_t frames = 0
        cdef const char *base = NULL
        cdef int status = AX_OK
        if n:
            base = <const char *>&data[0]
        with nogil:
            while at < n:
                whole = frame_bytes(base + at, n - at)
                if not whole:
                    break
                memcpy(&head, base + at, sizeof(ax_frame))
                if source >= 0:
                    head.source = <uint32_t>source
                if labels >= 0 and head.labels:
                    head.labels = <uint32_t>labels
                status = put_frame(
                    &self.sink, &head, NULL, 0, base + at + sizeof(ax_frame), whole - sizeof(ax_frame),
                    head.flags & AX_FLAG_CHECKSUM,
                )
                if status != AX_OK:
                    break
                frames += 1
                at += (whole + align - 1) // align * align
        return frames, at, status

    def _flush(self):
        """Write the buffer to the file, and the runs to the index; return OK or TORN."""
        cdef int status
        with nogil:
            status = flush(&self.sink, NULL, 0)
            if status == AX_OK:
                status = write_index(&self.sink)
        PyErr_CheckSignals()
        return status

    def _limit(self, uint64_t limit):
        """Set the offset at or after which no frame begins."""
        self.sink.limit = limit

    @property
    def _error(self):
        """errno of the last write, 0 if it succeeded."""
        return -self.sink.error

    @property
    def _written(self):
        """Bytes of the file, and frames written to it by this object."""
        return self.sink.at, self.sink.frames

    @property
    def _waiting(self):
        """Bytes and frames in the buffer."""
        return self.sink.used, self.sink.waiting

    @property
    def _index_at(self):
        return self.sink.index_at


def crc32(const unsigned char[::1] data not None, uint32_t value=0):
    """Return the CRC-32 of bytes, as zlib's."""
    cdef size_t n = data.shape[0]
    return ax_crc32(value, &data[0], n) if n else value


cdef class RingToFile:
    """Records a lossless consumer's frames, in one thread; slots are held until `release`."""

    cdef ConsumerHandle consumer
    cdef unsigned char[::1] memory
    cdef ax_got *recorded
    cdef uint64_t count, most, first_missing, passed
    cdef ax_got taken                   # taken from the ring, not recorded yet
    cdef bint has_taken
    cdef ax_u32 aside                   # producers do not wait for this reader any more: slots may be overwritten

    def __init__(self, ConsumerHandle consumer not None, expected=None):
        """`expected`: the first sequence that is not in the file."""
        self.consumer = consumer
        self.most = consumer.ring.slots // 2 + 1
        self.memory = bytearray(self.most * sizeof(ax_got))
        self.recorded = <ax_got *>&self.memory[0]
        self.first_missing = AX_UNKNOWN if expected is None else <uint64_t>expected

    def wait(self, timeout):
        """Wait for a frame and hold it for `record`; return OK, TIMEOUT, ENDED, or BUSY (cancelled)."""
        cdef ConsumerHandle consumer = self.consumer
        cdef int status = AX_OK
        if self.has_taken:
            return status
        consumer.enter()
        try:
            status = consumer.next(&self.taken, deadline_of(timeout))
            if status == AX_OK:
                self.has_taken = True
                self.count_taken()
        finally:
            consumer.leave()
        if status == AX_DAMAGED:
            consumer._fail(status)
        return status

    def record(self, RecordKernel file not None, int64_t source, int64_t labels):
        """Write the frames of the ring to the file; return frames, bytes, and a status.

        EMPTY: no more now; OK: call `release` first; LAPPED: the next frame is `found` instead of
        `expected`, or frames are missing before the end, see `accept`; DAMAGED: of the ring; others: of the file, which did not take the next frame.
        """
        cdef ConsumerHandle consumer = self.consumer
        cdef ax_ring *ring = &consumer.ring
        cdef ax_frame *frame
        cdef ax_frame head
        cdef uint64_t frames = 0, nbytes = 0, front, wanted
        cdef int status = AX_OK
        cdef const char *data
        consumer.enter()
        try:
            with nogil:
                while self.count < self.most and nbytes < BATCH_BYTES:
                    if not self.has_taken:
                        status = next_frame(ring, &self.taken)
                        if status == AX_ENDED and self.missing_at_end():
                            status = AX_LAPPED
                        if status != AX_OK:
                            break
                        self.has_taken = True
                        self.count_taken()
                    frame = frame_at(ring, self.taken.index)
                    data = payload_at(ring, self.taken.index)
                    # Wait for the disk before reading the slot: producers may stop waiting meanwhile.
                    wanted = sizeof(ax_frame) + (data - <char *>frame - sizeof(ax_frame)) + bytes_at(ring, self.taken.index)
                    status = reserve(&file.sink, ax_padded(min(wanted, 2 * DIRECT_BYTES)))
                    if status != AX_OK:
                        break
                    if ax_load32(&self.aside):          # pairs with the store in stand_aside
                        status = AX_EMPTY
                        break
                    memcpy(&head, frame, sizeof(ax_frame))
                    if self.first_missing != AX_UNKNOWN and head.sequence < self.first_missing:
                        # Positions are taken in order: of a shared stream, too.
                        self.passed += 1
                    else:
                        if self.missing_before(&head) and not ring.shared:
                            status = AX_LAPPED
                            break
                        if source >= 0:
                            head.source = <uint32_t>source
                        if labels >= 0 and head.labels:
                            head.labels = <uint32_t>labels
                        head.flags |= AX_FLAG_CHECKSUM
                        front = data - <char *>frame - sizeof(ax_frame)
                        status = put_frame(
                            &file.sink, &head, <char *>frame + sizeof(ax_frame), front, data,
                            bytes_at(ring, self.taken.index), False,
                        )
                        if status != AX_OK:
                            break
                        frames += 1
                        nbytes += sizeof(ax_frame) + head.length
                        self.first_missing = head.sequence + 1
                    self.recorded[self.count] = self.taken
                    self.count += 1
                    self.has_taken = False
        finally:
            consumer.leave()
        return frames, nbytes, status

    cdef void count_taken(self) noexcept nogil:
        cdef ax_frame *frame = frame_at(&self.consumer.ring, self.taken.index)
        count_frame(&self.consumer.ring, frame.sequence, frame.header_crc)

    cdef uint64_t missing_before(self, const ax_frame *head) noexcept nogil:
        # Frames that are missing before this one. A mirror's ring states how many numbers before it had none.
        cdef uint64_t gap
        if self.first_missing == AX_UNKNOWN or head.sequence <= self.first_missing:
            return 0
        gap = head.sequence - self.first_missing
        return gap - min(gap, <uint64_t>head.header_crc)

    cdef uint64_t missing_at_end(self) noexcept nogil:
        # Frames that were lost after the last one. Acquire: pairs with the releases of `sent`.
        cdef uint64_t sent = ax_load64(&self.consumer.ring.stream.sent)
        if self.has_taken or self.consumer.ring.shared or self.first_missing == AX_UNKNOWN or not is_over(&self.consumer.ring):
            return 0
        return sent - self.first_missing if sent > self.first_missing else 0

    def release(self):
        """Release the slots of recorded frames."""
        cdef ConsumerHandle consumer = self.consumer
        cdef uint64_t k
        if not self.count:
            return
        consumer.enter()
        try:
            with nogil:
                for k in range(self.count):
                    release_frame(&consumer.ring, self.recorded[k].index, self.recorded[k].position, self.recorded[k].held)
                self.count = 0
        finally:
            consumer.leave()

    def stand_aside(self):
        """Stop holding up producers. Called by another thread while the one inside hangs in the kernel."""
        if self.consumer.is_open:
            ax_store32(&self.aside, 1)                  # pairs with the load in record
            reader_stop_gating(&self.consumer.ring)

    @property
    def is_aside(self):
        """Whether `stand_aside` was called: the slots may be overwritten and must not be recorded."""
        return ax_load32(&self.aside) != 0

    def complain(self):
        """Raise the error of DAMAGED."""
        self.consumer._fail(AX_DAMAGED)

    def accept(self):
        """Go on with the frame `found`, or the end; return how many are missing before it."""
        cdef uint64_t missing = self.missing_at_end()
        if self.has_taken:
            missing = self.missing_before(frame_at(&self.consumer.ring, self.taken.index))
        self.first_missing += missing
        return missing

    @property
    def found(self):
        """Sequence of the next frame; None if none was taken."""
        if not self.has_taken:
            return None
        return frame_at(&self.consumer.ring, self.taken.index).sequence

    @property
    def expected(self):
        """First sequence that is not in the file; None before the first frame."""
        return None if self.first_missing == AX_UNKNOWN else self.first_missing

    @property
    def held(self):
        """Frames whose slots wait for `release`."""
        return self.count

    @property
    def skipped(self):
        """Frames that were in the file already."""
        return self.passed


cdef class QueueToFile:
    """Records frames leased from a queue, in one thread. The queue's handle acknowledges them, or gives them back."""

    cdef QueueHandle queue
    cdef ax_place place

    def __init__(self, QueueHandle queue not None):
        self.queue = queue

    def lease(self, uint64_t[::1] numbers not None, uint64_t most, timeout):
        """Lease slots of up to `most` bytes; return frames, bytes of payload, and whether a large frame is next.

        Waits for the first. Writes the sequences of the frames to `numbers`, which must be long enough. Frames larger
        than a slot are not leased: see `drain_into`.
        """
        cdef QueueHandle queue = self.queue
        cdef ax_lease slot_lease
        cdef ax_sum found
        cdef uint64_t bytes = 0
        cdef int64_t deadline = deadline_of(timeout)
        cdef int status
        cdef bint is_large = False
        found.frames = found.payload = found.torn = 0
        memset(&self.place, 0, sizeof(ax_place))
        self.place.slot = queue.drained_count
        queue.enter()
        try:
            status = queue.lease_next(&slot_lease, deadline)
            while status == AX_OK:
                if slot_lease.flags & (AX_MESSAGE_LARGE | AX_MESSAGE_CHUNK):
                    queue_settle(&queue.work, &slot_lease, 0, False)
                    is_large = True
                    break
                summarize_frames(slot_of(&queue.work, slot_lease.index), &slot_lease, &numbers[0], &found)
                queue.keep_drained(&slot_lease)
                bytes += slot_lease.bytes
                if bytes >= most or found.frames + 64 > <uint64_t>numbers.shape[0]:
                    break
                status = queue_lease(&queue.work, &slot_lease)
            if found.torn:
                add_to(&queue.work.tally.corrupt, found.torn)
        finally:
            queue.leave()
        return found.frames, found.payload, is_large

    def record(self, RecordKernel file not None):
        """Write leased frames to the file that are not recorded yet; return its status, not OK if one frame failed."""
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
                        status = put_frame(
                            &file.sink, &head, NULL, 0, at + sizeof(ax_frame), head.length, head.flags & AX_FLAG_CHECKSUM,
                        )
                    if status != AX_OK:
                        break
                    step_place(place)
        finally:
            queue.leave()
        return status


# Statuses, for other packages.
OK, FULL, TORN = AX_OK, AX_FULL, AX_TORN
EMPTY, ENDED, LAPPED, DAMAGED = AX_EMPTY, AX_ENDED, AX_LAPPED, AX_DAMAGED
