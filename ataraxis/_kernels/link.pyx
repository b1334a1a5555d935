"""Frames of a ring as bytes on the way to another machine, and back: whole frames, back to back, each with a checksum.

On the way a frame is as in a journal, but not padded, its source is 1, and the seed of its header's CRC is 0. A message
of a link itself is a frame of source 0; its payload is not this module's business. `RingToBuffer` holds the slots of frames
until the other machine has them: the ring is what is sent again after a break. `BufferToRing` trusts no byte: it checks a
frame's header before it claims a slot, and its checksum while it copies, and publishes nothing else than the next number.
"""
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from ataraxis._kernels.atomics cimport AX_GIL_BYTES, ax_add64, ax_copy, ax_load64, ax_put64, ax_store64, ax_u64
from ataraxis._kernels.consumer cimport ConsumerHandle
from ataraxis._kernels.crc cimport ax_copy_crc32, ax_crc_init, ax_header_crc, ax_seal, ax_seal_of
from ataraxis._kernels.frame cimport (
    AX_DTYPE_BOOL, AX_DTYPE_C64, AX_DTYPE_C128, AX_DTYPE_F16, AX_DTYPE_F32, AX_DTYPE_F64, AX_DTYPE_I8, AX_DTYPE_I16,
    AX_DTYPE_I32, AX_DTYPE_I64, AX_DTYPE_RAW, AX_DTYPE_STR, AX_DTYPE_U8, AX_DTYPE_U16, AX_DTYPE_U32, AX_DTYPE_U64,
    AX_FLAG_CHECKSUM, AX_FLAG_DEVICE_STAMP, AX_FLAG_DEVICE_UNSIGNED, AX_FRAME_MAGIC, ax_frame, ax_front_bytes,
)
from ataraxis._kernels.journal_write cimport RecordKernel, put_frame
from ataraxis._kernels.layout cimport (
    AX_BUSY, AX_DAMAGED, AX_EMPTY, AX_ENDED, AX_FULL, AX_LAPPED, AX_OK, AX_OVERFLOW, AX_PAYLOAD_AT, AX_TIMEOUT, AX_TORN,
)
from ataraxis._kernels.platform cimport ax_crash
from ataraxis._kernels.producer cimport ProducerHandle
from ataraxis._kernels.ring cimport (
    AX_UNKNOWN, HELD_BY_COPY, HELD_BY_CURSOR, ax_got, ax_ring, bytes_at, claim, claim_wait, count_frame, frame_at,
    is_over, next_frame, payload_at, publish, release_frame, sequence_at, slowest, unchanged,
)
from ataraxis._kernels.timing cimport deadline_of

# A frame whose slot is held. `got.held` is -1 once it was overwritten: it is lost.
cdef struct ax_held:
    ax_got got
    uint64_t sequence
    uint64_t bytes                      # of the whole frame

cdef enum:
    AX_CONTROL_NEXT = 1                 # statuses of `write` beside those of layout.h
    AX_GAP = 2
    SOURCE = 1                          # of every frame with data on a link
    ALLOWED = AX_FLAG_CHECKSUM | AX_FLAG_DEVICE_STAMP | AX_FLAG_DEVICE_UNSIGNED
    MOST_DIMENSIONS = 4                 # of a frame in a stream

cdef enum:                              # why a frame was refused
    GOOD, BAD_MAGIC, BAD_HEADER, BAD_SOURCE, BAD_FLAGS, BAD_LENGTH, BAD_TYPE, BAD_SHAPE, BAD_SUM, TOO_LARGE

FAULTS = (
    "", "no frame begins here", "the header's checksum is wrong", "its source is not 1", "its flags are none of a stream",
    "its length does not hold its extensions", "its type is not the stream's", "its shape does not fit the stream",
    "its checksum is wrong", "it is larger than a slot",
)

cdef uint64_t LARGEST = <uint64_t>1 << 62
cdef uint8_t item_bytes[256]            # of the codes whose arrays a stream without a dtype takes
for _code, _bytes in (
    (AX_DTYPE_U8, 1), (AX_DTYPE_U16, 2), (AX_DTYPE_U32, 4), (AX_DTYPE_U64, 8), (AX_DTYPE_I8, 1), (AX_DTYPE_I16, 2),
    (AX_DTYPE_I32, 4), (AX_DTYPE_I64, 8), (AX_DTYPE_F16, 2), (AX_DTYPE_F32, 4), (AX_DTYPE_F64, 8), (AX_DTYPE_C64, 8),
    (AX_DTYPE_C128, 16), (AX_DTYPE_BOOL, 1),
):
    item_bytes[<int>_code] = _bytes
ax_crc_init()
cdef ax_seal seal = ax_seal_of(0)


# ---- the algorithm

cdef int copy_frame(ax_ring *ring, ax_held *held, char *to) noexcept nogil:
    # Write one held frame to `to`: AX_OK, or AX_LAPPED if its slot was overwritten meanwhile.
    cdef ax_frame head
    cdef char *frame = <char *>frame_at(ring, held.got.index)
    cdef uint64_t length = held.bytes - sizeof(ax_frame)
    ax_copy(&head, frame, sizeof(ax_frame))
    memcpy(head.magic, AX_FRAME_MAGIC, 4)
    head.length = length
    head.sequence = held.sequence
    head.source = SOURCE
    head.flags |= AX_FLAG_CHECKSUM
    head.crc = ax_copy_crc32(0, to + sizeof(ax_frame), frame + sizeof(ax_frame), length)
    head.header_crc = ax_header_crc(seal, &head)
    memcpy(to, &head, sizeof(ax_frame))
    return AX_OK if unchanged(ring, &held.got) else AX_LAPPED


cdef int check_shape(ProducerHandle to, const ax_frame *head, uint64_t bytes) noexcept nogil:
    # Whether a local `send` could have sent a frame of this dtype, shape and size.
    cdef uint64_t items = 1, most = 1, item
    cdef int k
    if head.labels:
        if to.typed.labels == 0 or head.labels != to.typed.labels or head.dtype != to.typed.dtype:
            return BAD_TYPE
        item = <uint64_t>to.item_bytes
    elif head.dtype == AX_DTYPE_RAW or head.dtype == AX_DTYPE_STR:
        return BAD_SHAPE if head.ndim or has_extents(head, 0) else GOOD
    else:
        item = item_bytes[head.dtype]
        if to.typed.labels or not item:
            return BAD_TYPE
    if head.ndim > MOST_DIMENSIONS or has_extents(head, head.ndim):
        return BAD_SHAPE
    for k in range(head.ndim):
        items *= head.extents[k]
        if head.extents[k] > LARGEST // most:
            return BAD_SHAPE
        most *= max(<uint32_t>1, head.extents[k])
    if most > LARGEST // max(<uint64_t>1, item) or items * item != bytes:
        return BAD_SHAPE
    if head.labels and to.takes_short:
        if head.ndim != to.ndim or <Py_ssize_t>head.extents[0] > to.shape[0]:
            return BAD_SHAPE
        for k in range(1, to.ndim):
            if <Py_ssize_t>head.extents[k] != to.shape[k]:
                return BAD_SHAPE
    return GOOD


cdef bint has_extents(const ax_frame *head, int first) noexcept nogil:
    cdef int k
    for k in range(first, MOST_DIMENSIONS):
        if head.extents[k]:
            return True
    return False


cdef int check_head(ProducerHandle to, const ax_frame *head) noexcept nogil:
    # Check a header whose own checksum is right.
    cdef uint64_t front = ax_front_bytes(head.flags)
    if head.source != SOURCE:
        return BAD_SOURCE
    if head.flags & ~<uint32_t>ALLOWED or not head.flags & AX_FLAG_CHECKSUM:
        return BAD_FLAGS
    if head.flags & AX_FLAG_DEVICE_UNSIGNED and not head.flags & AX_FLAG_DEVICE_STAMP:
        return BAD_FLAGS
    if head.length < front:
        return BAD_LENGTH
    if head.length - front > to.ring.capacity:
        return TOO_LARGE
    return check_shape(to, head, head.length - front)


cdef bint fill_slot(
    ProducerHandle to, const ax_frame *head, const char *rest, uint64_t passed, uint32_t *at,
) noexcept nogil:
    # Copy a frame into the claimed slot; `at`: where it begins there. False if its checksum is wrong: the slot stays claimed.
    # `passed`: how many numbers before it had no frame, for readers. Inside of a stream a header has no checksum.
    cdef ax_ring *ring = &to.ring
    cdef uint32_t front = ax_front_bytes(head.flags)
    cdef char *payload = payload_at(ring, ring.index)
    cdef ax_frame *frame = <ax_frame *>(payload - front - sizeof(ax_frame))
    cdef ax_frame own = head[0]
    if ax_copy_crc32(0, payload - front, rest, head.length) != head.crc:
        return False
    own.source = to.source
    own.header_crc = <uint32_t>min(passed, <uint64_t>0xFFFFFFFF)
    # A reader that copies and checks again may be reading it.
    ax_copy(frame, &own, sizeof(ax_frame))
    ax_put64(&ring.stream.last_ns, <uint64_t>head.time_ns)
    at[0] = AX_PAYLOAD_AT - front - <uint32_t>sizeof(ax_frame)
    return True


# ---- the bridge

cdef class RingToBuffer:
    """Sends a consumer's frames, in one thread at a time; their slots are held until `release`.

    Under the policy lossless the ring's producers wait for what is held. Else a held frame may be overwritten: it is then
    missing when it is copied.
    """

    cdef ConsumerHandle consumer
    cdef unsigned char[::1] memory
    cdef ax_held *frames                # a ring of its own: `count` from `begin` on
    cdef uint64_t most, begin, count
    cdef uint64_t wanted                # the next sequence to hold
    cdef uint64_t unspilled             # the first that `spill` has not written
    cdef uint64_t nbytes, passed
    cdef ax_got taken                   # taken from the ring, not held yet
    cdef bint has_taken

    def __init__(self, ConsumerHandle consumer not None, expected=None):
        """`expected`: the first sequence that the other side lacks; smaller ones are released at once."""
        self.consumer = consumer
        self.most = consumer.ring.slots
        self.memory = bytearray(self.most * sizeof(ax_held))
        self.frames = <ax_held *>&self.memory[0]
        self.wanted = AX_UNKNOWN if expected is None else <uint64_t>expected

    cdef inline ax_held *held_at(self, uint64_t k) noexcept nogil:
        k += self.begin
        return &self.frames[k - self.most if k >= self.most else k]

    cdef uint64_t place_of(self, uint64_t sequence) noexcept nogil:
        # Place of the first held frame with this sequence or a larger one.
        cdef uint64_t low = 0, high = self.count, k
        if self.count and sequence >= self.held_at(0).sequence:
            k = sequence - self.held_at(0).sequence
            if k < self.count and self.held_at(k).sequence == sequence:
                return k
        while low < high:
            k = (low + high) // 2
            if self.held_at(k).sequence < sequence:
                low = k + 1
            else:
                high = k
        return low

    cdef int hold(self, uint64_t most, uint64_t *done) noexcept nogil:
        cdef ax_ring *ring = &self.consumer.ring
        cdef ax_held *held
        cdef uint64_t sequence, nbytes
        cdef int status
        while done[0] < most and self.count < self.most:
            if not self.has_taken:
                status = next_frame(ring, &self.taken)
                if status == AX_ENDED and self.missing_at_end():
                    return AX_LAPPED
                if status != AX_OK:
                    return status
                self.has_taken = True
            sequence = sequence_at(ring, self.taken.index)
            nbytes = <uint64_t>(payload_at(ring, self.taken.index) - <char *>frame_at(ring, self.taken.index))
            nbytes += bytes_at(ring, self.taken.index)
            if self.taken.held == HELD_BY_COPY and not unchanged(ring, &self.taken):
                self.drop_taken()
                continue
            if self.wanted != AX_UNKNOWN and sequence < self.wanted:
                self.passed += 1
                count_frame(ring, sequence, 0)
                self.drop_taken()
                continue
            if self.wanted != AX_UNKNOWN and sequence > self.wanted and sequence - self.wanted > self.frameless():
                return AX_LAPPED
            count_frame(ring, sequence, frame_at(ring, self.taken.index).header_crc)
            held = self.held_at(self.count)
            held.got, held.sequence, held.bytes = self.taken, sequence, nbytes
            self.count += 1
            self.nbytes += nbytes
            self.wanted = sequence + 1
            self.has_taken = False
            done[0] += 1
        return AX_OK

    cdef uint64_t frameless(self) noexcept nogil:
        # How many numbers from `wanted` on never had a frame: positions of a shared stream that were skipped, which the
        # reader has passed, or what a mirror's ring states.
        cdef ax_ring *ring = &self.consumer.ring
        if not ring.shared:
            return frame_at(ring, self.taken.index).header_crc
        return ring.expected - self.wanted if ring.expected != AX_UNKNOWN and ring.expected > self.wanted else 0

    cdef uint64_t missing_at_end(self) noexcept nogil:
        # Frames that were lost after the last one. Acquire: pairs with the releases of `sent`.
        cdef uint64_t sent = ax_load64(&self.consumer.ring.stream.sent)
        if self.has_taken or self.consumer.ring.shared or self.wanted == AX_UNKNOWN or not is_over(&self.consumer.ring):
            return 0
        return sent - self.wanted if sent > self.wanted else 0

    cdef void drop_taken(self) noexcept nogil:
        self.has_taken = False
        release_frame(&self.consumer.ring, self.taken.index, self.taken.position, self.taken.held)

    cdef int copy_some(self, char *to, uint64_t room, uint64_t *used, uint64_t *sequence) noexcept nogil:
        cdef uint64_t k = self.place_of(sequence[0])
        cdef ax_held *held
        while k < self.count:
            held = self.held_at(k)
            if held.got.held < 0 or held.sequence != sequence[0]:
                return AX_LAPPED
            if held.bytes > room - used[0]:
                return AX_OK if used[0] else AX_OVERFLOW
            if copy_frame(&self.consumer.ring, held, to + used[0]) != AX_OK:
                if held.got.held == HELD_BY_CURSOR:
                    return AX_DAMAGED
                release_frame(&self.consumer.ring, held.got.index, held.got.position, held.got.held)
                held.got.held = -1
                return AX_LAPPED
            used[0] += held.bytes
            sequence[0] += 1
            k += 1
        if used[0]:
            return AX_OK
        return AX_LAPPED if self.wanted != AX_UNKNOWN and sequence[0] < self.wanted else AX_EMPTY

    def wait(self, timeout):
        """Wait for a frame and keep it for `take`; return OK, TIMEOUT, ENDED, or BUSY (cancelled).

        `timeout` in s, None: without limit, 0: EMPTY if none is there.
        """
        cdef ConsumerHandle consumer = self.consumer
        cdef int status = AX_OK
        if self.has_taken:
            return status
        consumer.enter()
        try:
            status = consumer.next(&self.taken, deadline_of(timeout))
            self.has_taken = status == AX_OK
        finally:
            consumer.leave()
        if status == AX_DAMAGED:
            consumer._fail(status)
        return status

    def take(self, uint64_t most):
        """Hold up to `most` more frames that are there; return how many, and a status.

        OK: `most`, or every slot is held; EMPTY: no more now; ENDED; LAPPED: the next frame is `found` instead of `next`, or
        frames are missing before the end, see `accept`; DAMAGED, see `complain`. Never waits.
        """
        cdef ConsumerHandle consumer = self.consumer
        cdef uint64_t done = 0
        cdef int status
        consumer.enter()
        try:
            with nogil:
                status = self.hold(most, &done)
        finally:
            consumer.leave()
        ax_crash("outflow_taken")
        return done, status

    def copy(self, uint64_t sequence, buffer, Py_ssize_t start):
        """Copy held frames from `sequence` on into buffer[start:], as many as fit.

        Returns where they end, the first sequence that was not copied, and a status. OK: at least one; EMPTY: none is held
        from there on; LAPPED: the next one is missing, after those copied, see `missing`; OVERFLOW: not even the first
        fits; DAMAGED, see `complain`.
        """
        cdef ConsumerHandle consumer = self.consumer
        cdef Py_buffer view
        cdef uint64_t used = 0, room
        cdef int status = AX_OK
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        try:
            if not 0 <= start <= view.len:
                raise ValueError(f"start must be 0 to {view.len}, got {start}")
            room = <uint64_t>(view.len - start)
            consumer.enter()
            try:
                if min(room, self.nbytes) > <uint64_t>AX_GIL_BYTES:
                    with nogil:
                        status = self.copy_some(<char *>view.buf + start, room, &used, &sequence)
                else:
                    status = self.copy_some(<char *>view.buf + start, room, &used, &sequence)
            finally:
                consumer.leave()
        finally:
            PyBuffer_Release(&view)
        ax_crash("outflow_copied")
        return start + <Py_ssize_t>used, sequence, status

    def missing(self, uint64_t sequence):
        """Return how many frames from `sequence` on are not held before the next one that is, or before `next`."""
        cdef uint64_t k = self.place_of(sequence)
        while k < self.count and self.held_at(k).got.held < 0:
            k += 1
        if k < self.count:
            return self.held_at(k).sequence - sequence
        return self.wanted - sequence if self.wanted != AX_UNKNOWN and self.wanted > sequence else 0

    def spill(self, RecordKernel file not None, int64_t source, int64_t labels, uint64_t until):
        """Write held frames below `until` to a journal, each once; return frames, bytes, and a status of the file.

        OK: all are in it, or in its buffer. They stay held: release them when they are safe. `source` and `labels` replace
        those of the frames if not negative, as in `RingToFile.record`.
        """
        cdef ConsumerHandle consumer = self.consumer
        cdef ax_ring *ring = &consumer.ring
        cdef ax_held *held
        cdef ax_frame head
        cdef uint64_t frames = 0, nbytes = 0, front, k
        cdef char *frame
        cdef char *data
        cdef int status = AX_OK
        if not ring.gates:
            raise ValueError("only frames of a lossless consumer can be spilled: others may be overwritten meanwhile")
        consumer.enter()
        try:
            with nogil:
                k = self.place_of(self.unspilled)
                while k < self.count and status == AX_OK:
                    held = self.held_at(k)
                    if held.sequence >= until:
                        break
                    frame, data = <char *>frame_at(ring, held.got.index), payload_at(ring, held.got.index)
                    ax_copy(&head, frame, sizeof(ax_frame))
                    if source >= 0:
                        head.source = <uint32_t>source
                    if labels >= 0 and head.labels:
                        head.labels = <uint32_t>labels
                    head.flags |= AX_FLAG_CHECKSUM
                    front = <uint64_t>(data - frame) - sizeof(ax_frame)
                    status = put_frame(
                        &file.sink, &head, frame + sizeof(ax_frame), front, data, held.bytes - sizeof(ax_frame) - front, False,
                    )
                    if status == AX_OK:
                        frames += 1
                        nbytes += held.bytes
                        self.unspilled = held.sequence + 1
                        k += 1
        finally:
            consumer.leave()
        ax_crash("outflow_spilled")
        return frames, nbytes, status

    def release(self, uint64_t until):
        """Release the slots of held frames whose sequence is below `until`; return how many."""
        cdef ConsumerHandle consumer = self.consumer
        cdef ax_held *held
        cdef uint64_t done = 0
        if not self.count or self.held_at(0).sequence >= until:
            return 0
        consumer.enter()
        try:
            while self.count and self.held_at(0).sequence < until:
                held = self.held_at(0)
                if held.got.held >= 0:
                    release_frame(&consumer.ring, held.got.index, held.got.position, held.got.held)
                self.nbytes -= held.bytes
                self.begin = self.begin + 1 if self.begin + 1 < self.most else 0
                self.count -= 1
                done += 1
        finally:
            consumer.leave()
        return done

    def accept(self):
        """Go on with the frame `found`, or the end; return how many are missing before it: from `next` on, before this call."""
        cdef uint64_t missing = self.missing_at_end(), found
        if self.has_taken and self.wanted != AX_UNKNOWN:
            found = sequence_at(&self.consumer.ring, self.taken.index)
            if found > self.wanted:
                missing = found - self.wanted
        self.wanted += missing
        return missing

    def complain(self):
        """Raise the error of DAMAGED."""
        self.consumer._fail(AX_DAMAGED)

    @property
    def found(self):
        """Sequence of the frame that was taken and is not held; None if there is none."""
        return sequence_at(&self.consumer.ring, self.taken.index) if self.has_taken else None

    @property
    def first(self):
        """Sequence of the oldest held frame; `next` if none is held."""
        return self.held_at(0).sequence if self.count else self.next

    @property
    def next(self):
        """Sequence after the newest held frame; None before the first one."""
        return None if self.wanted == AX_UNKNOWN else self.wanted

    @property
    def held(self):
        """Held frames."""
        return self.count

    @property
    def held_bytes(self):
        """Bytes of the held frames on a link, headers included."""
        return self.nbytes

    @property
    def skipped(self):
        """Frames that were released at once, because the other side has them."""
        return self.passed

    @property
    def spilled(self):
        """First sequence that `spill` has not written; 0 before the first."""
        return self.unspilled


cdef class BufferToRing:
    """Publishes frames that come as bytes, in one thread at a time, with their own numbers, times and stamps."""

    cdef ProducerHandle producer
    cdef uint64_t again, published, published_bytes
    cdef uint64_t passed_until          # numbers below it have no frame; if larger than the ring's next one
    cdef int reason

    def __init__(self, ProducerHandle producer not None, next=None):
        """`next`: the first sequence that is taken, which must be the stream's next one; None: whatever that is."""
        if producer.ring.shared:
            raise ValueError("a mirror has one producer: make its stream without shared=True")
        if next is not None and next != producer.ring.sent:
            raise ValueError(f"the stream's next frame is number {producer.ring.sent}, not {next}: call lose() first")
        self.producer = producer

    cdef int write_some(self, ProducerHandle to, const char *data, uint64_t *at, uint64_t stop) noexcept nogil:
        cdef ax_ring *ring = &to.ring
        cdef ax_frame head
        cdef uint64_t whole, room, passed
        cdef uint32_t begin = 0
        cdef int status
        while at[0] < stop:
            room = stop - at[0]
            if memcmp(data + at[0], AX_FRAME_MAGIC, min(room, <uint64_t>4)) != 0:
                self.reason = BAD_MAGIC
                return AX_TORN
            if room < sizeof(ax_frame):
                return AX_OK
            memcpy(&head, data + at[0], sizeof(ax_frame))
            if ax_header_crc(seal, &head) != head.header_crc:
                self.reason = BAD_HEADER
                return AX_TORN
            if head.source == 0:
                return AX_CONTROL_NEXT
            self.reason = check_head(to, &head)
            if self.reason != GOOD:
                return AX_OVERFLOW if self.reason == TOO_LARGE else AX_TORN
            if head.sequence > max(ring.sent, self.passed_until):
                return AX_GAP
            whole = sizeof(ax_frame) + head.length
            if whole > room:
                return AX_OK
            if head.sequence < max(ring.sent, self.passed_until):
                self.again += 1
                at[0] += whole
                continue
            if not ring.claimed:
                status = claim(ring)
                if status != AX_OK:
                    return status
            ax_crash("inflow_claimed")
            passed = head.sequence - ring.sent
            if not fill_slot(to, &head, data + at[0] + sizeof(ax_frame), passed, &begin):
                self.reason = BAD_SUM
                return AX_TORN
            ax_crash("inflow_filled")
            if passed:
                ax_add64(&ring.stream.absent, passed)
                ring.sent = head.sequence
            publish(ring, begin, head.length - ax_front_bytes(head.flags))
            ax_crash("inflow_published")
            self.published += 1
            self.published_bytes += whole
            at[0] += whole
        return AX_OK

    def write(self, buffer, Py_ssize_t start, Py_ssize_t stop):
        """Publish the whole frames of buffer[start:stop]; return the first byte that was not taken, and a status.

        OK: no whole frame is left; CONTROL: a frame of source 0 begins there, whole or not; FULL: there is no room for the
        frame there, see `wait`; GAP: frames are missing before it; TORN or OVERFLOW: it does not fit this stream, or is
        larger than a slot, see `fault`. Frames that the stream has already are dropped and counted. Never waits.
        """
        cdef ProducerHandle producer = self.producer
        cdef Py_buffer view
        cdef uint64_t at = <uint64_t>start
        cdef int status = AX_OK
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE)
        try:
            if not 0 <= start <= stop <= view.len:
                raise ValueError(f"start and stop must be 0 to {view.len}, in this order, got {start} and {stop}")
            producer.enter()
            try:
                # A loan that was not sent is over: its slot is used.
                producer.ticket += producer.ring.claimed
                if stop - start > AX_GIL_BYTES:
                    with nogil:
                        status = self.write_some(producer, <const char *>view.buf, &at, <uint64_t>stop)
                else:
                    status = self.write_some(producer, <const char *>view.buf, &at, <uint64_t>stop)
            finally:
                producer.leave()
        finally:
            PyBuffer_Release(&view)
        if status == AX_DAMAGED:
            producer._fail(status)
        return <Py_ssize_t>at, status

    def wait(self, timeout):
        """Wait until there is room for a frame; return OK, TIMEOUT, or BUSY (cancelled). `timeout` in s, None: no limit.

        The time is not counted: what the stream's producers have waited is what `account` says of the other machine.
        """
        cdef ProducerHandle producer = self.producer
        cdef int64_t deadline = deadline_of(timeout)
        cdef bint first = True
        cdef int status = AX_OK
        producer.enter()
        try:
            while not producer.ring.claimed:
                with nogil:
                    status = claim_wait(&producer.ring, deadline, first)
                if status != AX_BUSY:
                    break
                first = False
                PyErr_CheckSignals()
                if producer.cancel_event is not None and producer.cancel_event.is_set():
                    break
                if not producer.is_open:
                    producer._revive()
        finally:
            producer.leave()
        if status == AX_DAMAGED:
            producer._fail(status)
        return status

    def lose(self, uint64_t first, uint64_t count):
        """Pass over frames that the other machine has lost; every reader counts them when the next frame comes.

        Numbers that were passed over or published before are left out, so it may be repeated.
        """
        cdef ProducerHandle producer = self.producer
        cdef ax_ring *ring = &producer.ring
        producer.enter()
        try:
            if first > max(ring.sent, self.passed_until) or count > LARGEST or first + count > LARGEST:
                raise ValueError(f"{count} frames from {first} on cannot be lost: the next number is {ring.sent}")
            if first + count > ring.sent:
                ax_add64(&ring.stream.absent, first + count - ring.sent)
                ax_crash("inflow_absent")
                ring.sent = first + count
                # Release: pairs with `first_expected`.
                ax_store64(&ring.stream.sent, ring.sent)
        finally:
            producer.leave()

    def skip(self, uint64_t first, uint64_t count):
        """Pass over numbers that never had a frame; no reader counts them as lost.

        The ring has them with the next frame: before, a kill forgets them, and they are told again.
        """
        if first > self.next or count > LARGEST or first + count > LARGEST:
            raise ValueError(f"{count} numbers from {first} on cannot be skipped: the next one is {self.next}")
        self.passed_until = max(self.passed_until, first + count)

    def account(self, uint64_t refused, uint64_t gaps, uint64_t stalled_ns):
        """State what the other machine's producers refused, their device's gaps, and their waits, ns, up to now."""
        cdef ProducerHandle producer = self.producer
        producer.enter()
        try:
            ax_put64(&producer.ring.stream.refused, refused)
            ax_put64(&producer.ring.stream.gaps, gaps)
            ax_put64(&producer.ring.stream.stalled_ns, stalled_ns)
        finally:
            producer.leave()

    @property
    def next(self):
        """Number of the next frame that is taken."""
        return max(self.producer.ring.sent, self.passed_until)

    @property
    def free(self):
        """Slots that can be written before a reader that gates must read on."""
        cdef ProducerHandle producer = self.producer
        cdef uint64_t tail, used
        producer.enter()
        try:
            # A slot that `wait` has claimed is free, too.
            tail = ax_load64(&producer.ring.stream.tail) - producer.ring.claimed
            used = tail - slowest(&producer.ring, tail)
            return producer.ring.slots - min(used, producer.ring.slots)
        finally:
            producer.leave()

    @property
    def repeated(self):
        """Frames that were dropped because the stream had them."""
        return self.again

    @property
    def frames(self):
        """Frames published by this object."""
        return self.published

    @property
    def nbytes(self):
        """Bytes of these frames on the link, headers included."""
        return self.published_bytes

    @property
    def fault(self):
        """What was wrong with the frame of the last TORN or OVERFLOW, as text."""
        return FAULTS[self.reason]


# Statuses, for other packages.
OK, FULL, EMPTY, LAPPED, ENDED, TIMEOUT = AX_OK, AX_FULL, AX_EMPTY, AX_LAPPED, AX_ENDED, AX_TIMEOUT
BUSY, TORN, OVERFLOW, DAMAGED = AX_BUSY, AX_TORN, AX_OVERFLOW, AX_DAMAGED
CONTROL, GAP = AX_CONTROL_NEXT, AX_GAP
