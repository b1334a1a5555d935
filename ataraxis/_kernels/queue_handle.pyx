"""A handle on a work queue: put, get, drain.

Any number of threads use it at a time. queue.pyx has the algorithms of claims, leases and waiting. Bytes and arrays
of plain numbers are written and read here, small values with an origin in messages.pyx; other values go through
`_encode` and `_decode` of the subclass. Uses the NumPy C-API to examine arrays and to make result arrays.
"""
cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cython cimport critical_section, no_gc_clear
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from ataraxis._kernels.arena cimport (
    Arena, Chunk, arena_drop, arena_give, arena_rebuild, arena_release, arena_take, chunk_at, filling_chunk, pinned_chunk,
)
from ataraxis._kernels.atomics cimport (
    AX_GIL_BYTES, ax_add32, ax_copy, ax_linger, ax_load32, ax_load64, ax_peek32, ax_peek64, ax_put32, ax_put64,
    ax_store32,
)
from ataraxis._kernels.crc cimport ax_crc32, ax_crc_init
from ataraxis._kernels.element cimport code_of, kind_of
from ataraxis._kernels.event cimport event_signal, event_wake
from ataraxis._kernels.frame cimport (
    AX_DTYPE_RAW, AX_FLAG_CHECKSUM, AX_FLAG_DEVICE_STAMP, AX_FLAG_DEVICE_UNSIGNED, AX_FLAG_END_OF_STREAM,
    AX_FLAG_EXTENTS, AX_FLAG_PICKLED, AX_FLAG_SESSION_EVENT, AX_FRAME_MAGIC, AX_STAMP_BYTES, ax_frame, ax_front_bytes,
    ax_padded, whole,
)
from ataraxis._kernels.layout cimport (
    AX_BUSY, AX_DAMAGED, AX_DEAD, AX_EMPTY, AX_FULL, AX_MESSAGE_CHUNK, AX_MESSAGE_LARGE, AX_MESSAGE_NUMBERED, AX_OK,
    AX_OVERFLOW, AX_PAYLOAD_AT, AX_QUEUE_FRAMES, AX_SLOT_FREE, AX_SLOT_GROWING, AX_SLOT_LEASED, AX_SLOT_READY,
    AX_SLOT_RETRY, AX_TIMEOUT, ax_message, ax_tally, ax_ticket,
)
from ataraxis._kernels.memory cimport Participant, damage_text, inherited
from ataraxis._kernels.messages cimport (
    ax_message_header, ax_origin, ax_payload, copy_bytes, copy_crc, crc_after, encode_value, read_message, write_message,
)
from ataraxis._kernels.platform cimport ax_crash, ax_now_ns
from ataraxis._kernels.queue cimport (
    AX_WAIT_DATA, AX_WAIT_IDLE, AX_WAIT_ROOM, add_to, ax_lease, ax_last, first_bit, frame_at, ones, queue_abandon, queue_claim,
    queue_grow, queue_has_data, queue_has_room, queue_holds, queue_keeps, queue_lease, queue_reap, queue_mark, queue_open,
    queue_publish, queue_settle, queue_wake, queue_wait, slot_of,
)
from ataraxis._kernels.timing cimport deadline_of

cnp.import_array()
ax_crc_init()

cdef enum:
    # Flags of frames without a fast path.
    UNUSUAL = AX_FLAG_END_OF_STREAM | AX_FLAG_PICKLED | AX_FLAG_EXTENTS | AX_FLAG_SESSION_EVENT
    BATCH = 64             # slots between two wake-ups of putters that wait for room
    CHECKS = 40           # checks for a frame before giving up, some 10 us


# ---- the algorithm

cdef inline uint64_t length_of(ax_piece *piece) noexcept nogil:
    return piece.bytes if piece.whole else sizeof(ax_frame) + piece.stamp_bytes + piece.bytes


cdef void write_frame(char *to, ax_piece *piece) noexcept nogil:
    # Write the frame at `to`, zero-padded; its sequence and the header's checksum come later.
    cdef uint64_t bytes = length_of(piece), at = 0
    if not piece.whole:
        memcpy(to, &piece.head, sizeof(ax_frame))
        memcpy(to + sizeof(ax_frame), piece.stamp, piece.stamp_bytes)
        at = sizeof(ax_frame) + piece.stamp_bytes
    ax_copy(to + at, piece.data, piece.bytes // 2)
    ax_crash("put_half")
    ax_copy(to + at + piece.bytes // 2, piece.data + piece.bytes // 2, piece.bytes - piece.bytes // 2)
    memset(to + bytes, 0, ax_padded(bytes) - bytes)


cdef inline void number_frame(char *to, uint64_t sequence) noexcept nogil:
    cdef ax_frame *frame = <ax_frame *>to
    frame.sequence = sequence
    frame.header_crc = ax_crc32(0, frame, sizeof(ax_frame) - 4)


cdef void write_rows(char *to, ax_rows *rows, uint64_t sequence, uint64_t count) noexcept nogil:
    # Write `count` frames at `to`, back to back, numbered from `sequence` on.
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
            # Of the copy, in one pass.
            head.crc = ax_crc32(0, to + sizeof(ax_frame), AX_STAMP_BYTES + rows.width)
        head.sequence = sequence + k
        head.header_crc = ax_crc32(0, head, sizeof(ax_frame) - 4)
        to += rows.each
        rows.data += rows.width
        rows.stamp += rows.step


cdef uint64_t copy_frames(char *to, const char *slot, ax_lease *slot_lease, uint32_t seed) noexcept nogil:
    # Copy the unacknowledged frames of a slot, back to back; returns the bytes written. An invalid header ends it.
    cdef uint64_t at = 0, bytes, done = 0
    cdef uint32_t k
    cdef ax_frame *frame
    for k in range(slot_lease.frames):
        if at + sizeof(ax_frame) > slot_lease.bytes:
            break
        frame = <ax_frame *>(slot + at)
        bytes = ax_padded(sizeof(ax_frame) + frame.length)
        if bytes < sizeof(ax_frame) or bytes > slot_lease.bytes - at:
            break
        if slot_lease.left >> k & 1:
            ax_copy(to + done, slot + at, bytes)
            if seed:
                frame = <ax_frame *>(to + done)
                frame.header_crc = ax_crc32(seed, frame, sizeof(ax_frame) - 4)
            done += bytes
        at += bytes
    return done


# ---- the bridge

cdef class SlotLease:
    """A leased slot: `pending` frames are not handed out yet, `out` frames are."""

    @property
    def left(self):
        """Frames not handed out yet."""
        return ones(self.pending)


@no_gc_clear   # `work` points into `participant` and `memory`, which must outlive it
cdef class QueueHandle:
    """A participant of a queue.

    A subclass provides `_revive()` (make the handle usable or raise), `_gone()` (the last call has left) and
    `_fail(status, is_put)` (raise);

    `_attach_arena(bytes)` (the `Arena` of the queue, made if a frame of so many bytes is to be put; None: there is none);

    for putting, `_encode(value, source, time_ns, device_time, device_sequence)` -> bytes of a whole frame and whether to
    number it, `_put_whole(frame, is_numbered, deadline)` (of any size) and `_put_other(value, deadline, ...)` (every value
    without a fast path), both -> status;

    for getting, `_decode(frame)` -> value, `_open_large(name)` -> the frame's bytes or None (it was acknowledged),
    `_unlink_large(name)`, `_lose(id)` (raise: a lease expired), and `_get_leased(block, timeout)`, used if `_is_plain`
    is False.
    """

    def __dealloc__(self):
        free(self.drained)

    def _open(self, memory, Participant participant not None, crc_of, bint checks):
        """Use the payload `memory` (uint8). Return False if the geometry does not fit."""
        self.memory = memory
        self.participant = participant
        self.crc_of = crc_of
        self.checks = checks
        self._partial = []
        self.arena = None
        self._is_without_arena = False
        self.is_leaving = False
        ax_put32(&self.users, 0)
        if queue_open(&self.work, &participant.party, <char *>&self.memory[0], self.memory.shape[0]) != AX_OK:
            return False
        self.is_open = True
        return True

    def _shut(self):
        """Leave the queue once no call is in progress; leased frames are redelivered."""
        if not self.is_open:
            return
        self.is_open = False
        if inherited(self.work.party):
            self.participant = self.arena = None
            self.memory = None
            self._gone()
            return
        self.is_leaving = True
        ax_add32(&self.users, 1)
        ax_store32(&self.work.wake_flag, 1)
        event_wake(&self.work.queue.data)
        event_wake(&self.work.queue.space)
        self.leave()

    cdef inline int enter(self) except -1:
        # Any number of threads may be inside: their shared state is atomic.
        if not self.is_open or inherited(self.work.party):
            self._revive()
        ax_add32(&self.users, 1)
        return 0

    cdef inline int leave(self) except -1:
        if ax_add32(&self.users, <uint32_t>-1) == 1 and self.is_leaving:
            self.is_leaving = False
            self.participant = self.arena = None
            self.memory = None
            self._gone()
        return 0

    cdef int wait(self, int what, int64_t deadline) except -100:
        # Wait until `what` may hold: AX_OK, AX_TIMEOUT, AX_DAMAGED. The caller is inside.
        cdef int status
        cdef uint32_t slices = 0
        while True:
            with nogil:
                status = queue_wait(&self.work, what, deadline, slices)
            if status != AX_BUSY:
                return status
            slices += 1
            PyErr_CheckSignals()
            if not self.is_open:
                self._revive()

    def _await_idle(self, timeout):
        """Wait until every frame was acknowledged; return a status."""
        cdef int64_t deadline = deadline_of(timeout)
        self.enter()
        try:
            return self.wait(AX_WAIT_IDLE, deadline)
        finally:
            self.leave()

    def _await_data(self, timeout):
        """Wait until there may be a frame; return a status."""
        cdef int64_t deadline = deadline_of(timeout)
        self.enter()
        try:
            if queue_has_data(&self.work):
                return AX_OK
            queue_reap(&self.work)
            return self.wait(AX_WAIT_DATA, deadline)
        finally:
            self.leave()

    def _nudge(self):
        """Wake getters that wait for a frame."""
        self.enter()
        try:
            ax_store32(&self.work.queue.hint, 1)
            event_signal(&self.work.queue.data, self.work.words)
        finally:
            self.leave()

    @property
    def _has_data(self):
        """Whether a get would probably find a frame."""
        self.enter()
        try:
            if not queue_has_data(&self.work):
                queue_reap(&self.work)
            return queue_has_data(&self.work)
        finally:
            self.leave()

    cdef bint probably_has_room(self) except -1:
        # Whether a put would find room, without a look for dead participants.
        self.enter()
        cdef bint found = queue_has_room(&self.work)
        self.leave()
        return found

    @property
    def _has_room(self):
        """Whether a put would probably find room."""
        self.enter()
        try:
            if not queue_has_room(&self.work):
                queue_reap(&self.work)
            return queue_has_room(&self.work)
        finally:
            self.leave()

    def _counts(self):
        """Return the numbers of waiting frames, leased frames and used slots."""
        cdef uint64_t i, word, waiting = 0, leased = 0, used = 0
        cdef int frames
        self.enter()
        try:
            for i in range(self.work.slots):
                word = ax_load64(&self.work.lines[i].word)
                if word & 7 == AX_SLOT_FREE:
                    continue
                used += 1
                frames = ones(ax_peek64(&self.work.lines[i].left))
                if word & 7 == AX_SLOT_READY or word & 7 == AX_SLOT_RETRY:
                    waiting += frames
                elif word & 7 == AX_SLOT_GROWING:
                    # The frames before the one being appended.
                    waiting += ax_peek32(&self.work.lines[i].frames)
                elif word & 7 == AX_SLOT_LEASED:
                    leased += frames
        finally:
            self.leave()
        return waiting, leased, used

    def _had_before(self):
        """Return the ids of frames that were leased and not acknowledged."""
        cdef ax_message *line
        cdef uint64_t i, word, left
        cdef int k
        numbers = []
        self.enter()
        try:
            for i in range(self.work.slots):
                line = &self.work.lines[i]
                word = ax_load64(&line.word)
                if word & 7 != AX_SLOT_LEASED and word & 7 != AX_SLOT_RETRY:
                    continue
                left = ax_peek64(&line.left)
                for k in range(AX_QUEUE_FRAMES):
                    if left >> k & 1:
                        numbers.append(ax_peek64(&line.id) * AX_QUEUE_FRAMES + k)
        finally:
            self.leave()
        return numbers

    def _tallies(self):
        """Return sums over all participants, past and present: put, put_bytes, acknowledged, redelivered, refused,
        stalled_ns, lost, corrupt; the time of the last put and get, ns; and since when each waiting putter waits, ns."""
        cdef ax_tally *tally
        cdef uint32_t k
        cdef uint64_t last_put = 0, last_get = 0
        cdef uint64_t sums[8]
        self.enter()
        try:
            for k in range(8):
                sums[k] = 0
            stalled = []
            tally = self.work.tally - self.work.me
            for k in range(self.work.party.slots):
                sums[0] += ax_peek64(&tally[k].put)
                sums[1] += ax_peek64(&tally[k].put_bytes)
                sums[2] += ax_peek64(&tally[k].acknowledged)
                sums[3] += ax_peek64(&tally[k].redelivered)
                sums[4] += ax_peek64(&tally[k].refused)
                sums[5] += ax_peek64(&tally[k].stalled_ns)
                sums[6] += ax_peek64(&tally[k].lost)
                sums[7] += ax_peek64(&tally[k].corrupt)
                last_put = max(last_put, ax_peek64(&tally[k].last_put_ns))
                last_get = max(last_get, ax_peek64(&tally[k].last_get_ns))
                if ax_peek64(&tally[k].stalled_since_ns):
                    stalled.append(ax_peek64(&tally[k].stalled_since_ns))
        finally:
            self.leave()
        return *[sums[k] for k in range(8)], last_put, last_get, stalled

    @property
    def _damage(self):
        """The last DAMAGED as text: the word, its value, and what is possible."""
        return damage_text(&self.work.damage)

    @property
    def _geometry(self):
        """Slots, bytes of a slot, duration of a lease in ns."""
        return self.work.slots, self.work.stride, self.work.lease_ns

    @property
    def _users(self):
        """Calls in progress."""
        return ax_load32(&self.users)

    # ---- the arena

    cdef Arena attach_arena(self, uint64_t bytes):
        # The arena, attached at the first use; None: there is none. Of `bytes`, it is made if need be.
        cdef Arena made
        if self.arena is None and not (bytes and self._is_without_arena):
            made = self._attach_arena(bytes)
            with critical_section(self):
                # Another thread may have been faster: there is one for all of them.
                if self.arena is None:
                    self.arena = made
                self._is_without_arena = self.arena is None
        return self.arena

    @property
    def _arena_used(self):
        """Bytes of chunks that are not free."""
        self.enter()
        try:
            return 0 if self.attach_arena(0) is None else self.arena.used
        finally:
            self.leave()

    def _sweep_arena(self):
        """Clean up after dead participants of the arena, and free the chunks that no slot holds."""
        self.enter()
        try:
            if self.attach_arena(0) is not None:
                self.arena.sweep()
                arena_rebuild(&self.arena.store, <uint64_t>-1, queue_keeps, &self.work)
        finally:
            self.leave()

    cdef char *take_chunk(self, uint64_t front, uint64_t bytes, uint64_t *chunk, ax_ticket *ticket) except? NULL:
        # Take a chunk for a frame of so many bytes, the payload of which begins after `front`; NULL: there is none. The
        # caller fills it, and gives or drops it.
        cdef Arena arena = self.attach_arena(bytes)
        cdef char *start
        ticket.at = AX_PAYLOAD_AT - front if front < <uint64_t>AX_PAYLOAD_AT else 0
        ticket.bytes = bytes
        if arena is None:
            return NULL
        if arena_take(&arena.store, ticket.at + ax_padded(bytes), queue_keeps, &self.work, &ticket.chunk) != AX_OK:
            return NULL
        chunk[0] = ticket.chunk
        start = chunk_at(&arena.store, ticket.chunk, ticket.at, ax_padded(bytes))
        if start == NULL:       # damaged: it is not used again
            return NULL
        return start

    cdef int put_ticket(self, ax_last *slot, ax_ticket *ticket, uint64_t payload, int64_t now) except -100:
        # Publish the claimed slot, with a frame in a chunk that was given to it.
        memcpy(slot_of(&self.work, slot.index), ticket, sizeof(ax_ticket))
        slot.bytes, slot.frames = sizeof(ax_ticket), 1
        self.publish_slot(slot, AX_MESSAGE_CHUNK, 1, payload, now)
        return AX_OK

    cdef int put_piece_in_chunk(self, ax_piece *piece, int64_t deadline) except -100:
        # Put one frame in a chunk; OVERFLOW: there is none. The caller is inside.
        cdef uint64_t bytes = length_of(piece), chunk = 0
        cdef uint64_t front = sizeof(ax_frame) + (ax_front_bytes((<ax_frame *>piece.data).flags) if piece.whole else piece.stamp_bytes)
        cdef ax_ticket ticket
        cdef ax_last slot
        cdef char *to
        cdef int status = self.await_room(bytes, deadline)
        if status != AX_OK:
            return status
        to = self.take_chunk(front, bytes, &chunk, &ticket)
        if to == NULL:
            return AX_OVERFLOW
        try:
            with nogil:
                write_frame(to, piece)
            status = self.claim_slot(&slot, deadline)
        except:
            arena_drop(&self.arena.store, chunk)
            raise
        if status != AX_OK:
            arena_drop(&self.arena.store, chunk)
            return status
        if not piece.whole or piece.stamp_bytes:
            number_frame(to, slot.position * AX_QUEUE_FRAMES)
        if not arena_give(&self.arena.store, chunk, slot.position):
            queue_abandon(&self.work, slot.index)
            return AX_OVERFLOW
        return self.put_ticket(&slot, &ticket, piece.bytes, ax_now_ns() if piece.whole else piece.head.time_ns)

    cdef char *frame_of(self, ax_lease *slot_lease, int k, uint64_t *bytes) except? NULL:
        # Find frame k of a slot, in it or in its chunk; NULL: its header is invalid, or it is elsewhere.
        cdef uint64_t at = 0
        cdef char *slot = slot_of(&self.work, slot_lease.index)
        cdef ax_ticket *ticket = &slot_lease.ticket
        if slot_lease.flags & AX_MESSAGE_LARGE:
            return NULL
        if not slot_lease.flags & AX_MESSAGE_CHUNK:
            return slot + at if frame_at(slot_lease, slot, k, &at, bytes) else NULL
        if k or ticket.bytes < sizeof(ax_frame) or ticket.bytes > <uint64_t>1 << 62 or self.attach_arena(0) is None:
            return NULL
        slot = chunk_at(&self.arena.store, ticket.chunk, ticket.at, ax_padded(ticket.bytes))
        if slot == NULL:
            return NULL
        bytes[0] = sizeof(ax_frame) + (<ax_frame *>slot).length
        return slot if bytes[0] == ticket.bytes else NULL

    cdef object read(self, ax_lease *slot_lease, ax_message_header *header):
        # The value of a message; NotImplemented: no fast path. The caller is inside.
        cdef uint64_t bytes = 0
        cdef char *frame = self.frame_of(slot_lease, 0, &bytes)
        return read_message(&self.work, slot_lease, frame, bytes, self.arena if self._views else None, header, self.crc_of)

    # ---- putting

    cdef int piece_of(self, ax_piece *piece, value, source, time_ns, device_time, device_sequence) except -1:
        # Describe `value` as a piece that points into it: 1; 0: no fast path.
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
        piece.head.source = whole(source, "source")
        piece.head.time_ns = ax_now_ns() if time_ns is None else whole(time_ns, "time_ns")
        piece.stamp_bytes = 0
        if device_time is not None:
            piece.stamp_bytes = AX_STAMP_BYTES
            piece.head.flags = AX_FLAG_DEVICE_STAMP
            device_time = whole(device_time, "device_time")
            if device_time >= 1 << 63:
                piece.head.flags |= AX_FLAG_DEVICE_UNSIGNED
                piece.stamp[0] = device_time
            else:
                signed_ = device_time
                piece.stamp[0] = <uint64_t>signed_
            piece.stamp[1] = 0 if device_sequence is None else whole(device_sequence, "device_sequence")
        elif device_sequence is not None:
            return 0
        piece.head.length = piece.stamp_bytes + piece.bytes
        return 1

    cdef int checksum(self, ax_piece *piece) except -1:
        # Compute the checksum of everything after the header.
        cdef uint32_t crc
        if not self.checks:
            return 0
        piece.head.flags |= AX_FLAG_CHECKSUM
        crc = ax_crc32(0, piece.stamp, piece.stamp_bytes)
        piece.head.crc = crc_after(self.crc_of, crc, piece.data, piece.bytes)
        return 0

    cdef int await_room(self, uint64_t bytes, int64_t deadline) except -100:
        # Wait until there may be room for a frame larger than a slot: AX_OK, AX_FULL (not waiting), AX_TIMEOUT, AX_DAMAGED.
        # The caller is inside.
        cdef int64_t started
        if self._deep_bytes:
            ax_put64(&self.work.depth, max(self._deep_bytes // bytes, self._least_frames))
        if queue_has_room(&self.work):
            return AX_OK
        queue_reap(&self.work)
        if queue_has_room(&self.work):
            return AX_OK
        if ax_peek32(&self.work.is_damaged):
            return AX_DAMAGED
        if deadline == 0:
            add_to(&self.work.tally.refused, 1)
            return AX_FULL
        started = ax_now_ns()
        ax_put64(&self.work.tally.stalled_since_ns, <uint64_t>started)
        try:
            return self.wait(AX_WAIT_ROOM, deadline)
        finally:
            ax_put64(&self.work.tally.stalled_since_ns, 0)
            add_to(&self.work.tally.stalled_ns, <uint64_t>(ax_now_ns() - started))

    cdef int claim_slot(self, ax_last *slot, int64_t deadline) except -100:
        # Claim a new slot: AX_OK, AX_FULL (not waiting), AX_TIMEOUT, AX_DAMAGED. The caller is inside.
        cdef int status = queue_claim(&self.work, &slot.index, &slot.position)
        cdef int64_t started
        ax_put64(&self.work.depth, 0)
        slot.bytes = slot.frames = 0
        if status != AX_FULL:
            return status
        queue_reap(&self.work)
        status = queue_claim(&self.work, &slot.index, &slot.position)
        if status != AX_FULL:
            return status
        if ax_peek32(&self.work.is_damaged):
            return AX_DAMAGED
        if deadline == 0:
            add_to(&self.work.tally.refused, 1)
            return status
        started = ax_now_ns()
        ax_put64(&self.work.tally.stalled_since_ns, <uint64_t>started)
        try:
            while status == AX_FULL:
                status = self.wait(AX_WAIT_ROOM, deadline)
                if status == AX_TIMEOUT:
                    status = queue_claim(&self.work, &slot.index, &slot.position)
                    return status if status != AX_FULL else AX_TIMEOUT
                if status != AX_OK:
                    return status
                status = queue_claim(&self.work, &slot.index, &slot.position)
        finally:
            ax_put64(&self.work.tally.stalled_since_ns, 0)
            add_to(&self.work.tally.stalled_ns, <uint64_t>(ax_now_ns() - started))
        return status

    cdef void publish_slot(self, ax_last *slot, uint32_t flags, uint64_t frames, uint64_t payload, int64_t now) noexcept:
        # Publish the claimed slot, of whose frames so many are new; wake getters, count the frames.
        queue_publish(&self.work, slot.index, slot.position, slot.bytes, slot.frames, flags)
        queue_wake(&self.work, True)
        add_to(&self.work.tally.put, frames)
        add_to(&self.work.tally.put_bytes, payload)
        ax_put64(&self.work.tally.last_put_ns, <uint64_t>now)

    cdef int claim_room(self, ax_last *slot, uint64_t each, int64_t deadline) except -100:
        # Claim the last slot again if it has room for a frame of `each` bytes and is not leased yet; else a new one.
        cdef ax_last *last = &self.work.last
        if 0 < last.frames < AX_QUEUE_FRAMES and self.work.stride - last.bytes >= each and queue_grow(&self.work):
            slot[0] = last[0]
            return AX_OK
        return self.claim_slot(slot, deadline)

    cdef void publish_frames(self, ax_last *slot, uint64_t bytes, uint32_t frames, uint64_t payload, int64_t now) noexcept:
        # Publish `frames` more frames in the claimed slot; the next put may append.
        slot.bytes += bytes
        slot.frames += frames
        self.publish_slot(slot, 0, frames, payload, now)
        if self._packs:
            self.work.last = slot[0]

    cdef int put_piece(self, ax_piece *piece, int64_t deadline) except -100:
        # Put one frame, into the last slot where possible. The caller keeps the payload alive.
        cdef uint64_t bytes = ax_padded(length_of(piece))
        cdef ax_last slot
        cdef int status = AX_OK
        cdef char *to
        self.enter()
        try:
            if not piece.whole:
                self.checksum(piece)
            if bytes > self.work.stride:
                return self.put_piece_in_chunk(piece, deadline)
            if piece.whole or bytes > AX_GIL_BYTES:
                status = self.claim_slot(&slot, deadline)
            else:
                status = self.claim_room(&slot, bytes, deadline)
            if status == AX_OK:
                to = slot_of(&self.work, slot.index) + slot.bytes
                if bytes > AX_GIL_BYTES:
                    with nogil:
                        write_frame(to, piece)
                else:
                    write_frame(to, piece)
                if not piece.whole or piece.stamp_bytes:
                    number_frame(to, slot.position * AX_QUEUE_FRAMES + slot.frames)
                self.publish_frames(&slot, bytes, 1, piece.bytes, ax_now_ns() if piece.whole else piece.head.time_ns)
        finally:
            self.leave()
        return status

    def put(self, obj, block=True, timeout=None, *, source=0, time_ns=None, device_time=None, device_sequence=None):
        """Put one value, with one copy from `obj` into the queue.

        Parameters
        ----------
        obj : bytes, ndarray, Frame or any value that a frame can hold
            A `Frame` is put unchanged; other values are encoded as one. A frame larger than a slot is put in a chunk of
            the queue's arena, or, if none is free, in a separate segment.
        block : bool
            Wait for room.
        timeout : float or None
            Longest wait, s; None waits without limit, 0 does not wait.
        source : int, optional
            Source id, u32.
        time_ns : int, optional
            Monotonic time of the data, ns; now, if not given.
        device_time, device_sequence : int, optional
            The source's time, in its ticks, and counter.

        Raises
        ------
        QueueFull
            No room and `block` is false.
        TimeoutError
            No room within `timeout`; also a ``queue.Full``.
        TypeError
            A frame cannot hold such a value.

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
        """Put an encoded frame; return a status, OVERFLOW if it fits neither a slot nor a chunk."""
        cdef ax_piece piece
        piece.whole = True
        piece.stamp_bytes = numbered
        piece.data = <const char *>&frame[0]
        piece.bytes = frame.shape[0]
        return self.put_piece(&piece, deadline)

    def _put_ticket(self, bytes name not None, uint64_t payload, bint numbered, int64_t deadline):
        """Put the name of a segment that holds a frame too large for a slot; return a status."""
        cdef uint32_t bytes = len(name), flags = AX_MESSAGE_LARGE | (AX_MESSAGE_NUMBERED if numbered else 0)
        cdef ax_last slot
        cdef int status
        if bytes > self.work.stride:
            return AX_OVERFLOW
        self.enter()
        try:
            status = self.claim_slot(&slot, deadline)
            if status == AX_OK:
                memcpy(slot_of(&self.work, slot.index), <char *>name, bytes)
                slot.bytes, slot.frames = bytes, 1
                self.publish_slot(&slot, flags, 1, payload, ax_now_ns())
        finally:
            self.leave()
        return status

    cdef int put_packed(self, char *frames, uint32_t bytes, uint32_t count, uint64_t payload, int64_t deadline) except -100:
        # Put consecutive frames into one slot. A header_crc of 0 marks frames to number.
        cdef ax_last slot
        cdef uint32_t k, at = 0
        cdef char *to
        cdef int status
        if count == 0:
            return AX_OK
        status = self.claim_slot(&slot, deadline)
        if status == AX_OK:
            to = slot_of(&self.work, slot.index)
            memcpy(to, frames, bytes)
            for k in range(count):
                if (<ax_frame *>(to + at)).header_crc == 0:
                    number_frame(to + at, slot.position * AX_QUEUE_FRAMES + k)
                at += ax_padded(sizeof(ax_frame) + (<ax_frame *>(to + at)).length)
            slot.bytes, slot.frames = bytes, count
            self.publish_slot(&slot, 0, count, payload, ax_now_ns())
        return status

    def _put_many(self, values, bint pack, int64_t deadline, source, time_ns):
        """Put each value, as many per slot as fit; return how many were put, and a status."""
        cdef ax_piece piece
        cdef uint64_t bytes, at = 0, payload = 0
        cdef uint32_t count = 0
        cdef Py_ssize_t done = 0
        cdef int status = AX_OK
        cdef bint is_staged = True      # staged frames may be put; not after an interrupted wait for room
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
                        is_staged = False
                        status = self.put_packed(stage, at, count, payload, deadline)
                        if status != AX_OK:
                            break
                        done, at, count, payload = done + count, 0, 0, 0
                        status = self._put_whole(whole, is_numbered, deadline)
                        if status != AX_OK:
                            break
                        done += 1
                        is_staged = True
                        continue
                    piece.whole = True
                    piece.data = PyBytes_AS_STRING(whole)
                    piece.bytes = len(whole)
                else:
                    self.checksum(&piece)
                    is_numbered = True
                bytes = ax_padded(length_of(&piece))
                if count == AX_QUEUE_FRAMES or at + bytes > self.work.stride or (count and not pack):
                    is_staged = False
                    status = self.put_packed(stage, at, count, payload, deadline)
                    if status != AX_OK:
                        break
                    is_staged = True
                    done, at, count, payload = done + count, 0, 0, 0
                write_frame(stage + at, &piece)
                if is_numbered:
                    (<ax_frame *>(stage + at)).header_crc = 0
                at += bytes
                payload += piece.bytes
                count += 1
            else:
                is_staged = False
                status = self.put_packed(stage, at, count, payload, deadline)
                done += count if status == AX_OK else 0
        except BaseException:
            # Put the frames before the one that cannot be put.
            if is_staged:
                self.put_packed(stage, at, count, payload, deadline)
            raise
        finally:
            free(stage)
            self.leave()
        return done, status

    # ---- putting an array row by row: each row a frame with its stamp, without Python objects

    cdef int fill_slot(self, ax_rows *rows, uint64_t most, uint64_t *done, int64_t deadline) except -100:
        # Put up to `most` rows into one slot, the last one where possible. The caller is inside.
        cdef uint64_t count, first
        cdef ax_last slot
        cdef int status = self.claim_room(&slot, rows.each, deadline)
        cdef char *to
        if status != AX_OK:
            return status
        count = min((self.work.stride - slot.bytes) // rows.each, <uint64_t>AX_QUEUE_FRAMES - slot.frames)
        count = min(count, most)
        to = slot_of(&self.work, slot.index) + slot.bytes
        first = slot.position * AX_QUEUE_FRAMES + slot.frames
        if count * rows.each > AX_GIL_BYTES:
            with nogil:
                write_rows(to, rows, first, count)
        else:
            write_rows(to, rows, first, count)
        self.publish_frames(&slot, count * rows.each, count, count * rows.width, rows.head.time_ns)
        done[0] += count
        return AX_OK

    def _put_rows(self, const unsigned char[:, ::1] rows not None, const unsigned char[::1] template not None,
                  uint64_t stamp, uint64_t step, int64_t deadline):
        """Put each row as a frame; its device time is `stamp`, plus `step` per row. Return how many were put, and a status.

        The header `template` (64 bytes) gives dtype, shape and source. OVERFLOW: a row is larger than a slot.
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
                status = self.fill_slot(&block, count - done, &done, deadline)
        finally:
            self.leave()
        return done, status

    # ---- getting

    cdef int lease_next(self, ax_lease *slot_lease, int64_t deadline) except -100:
        # Lease a slot: AX_OK, AX_EMPTY (not waiting), AX_TIMEOUT, AX_DAMAGED. The caller is inside.
        cdef int status = queue_lease(&self.work, slot_lease)
        if status == AX_EMPTY:
            queue_reap(&self.work)
            status = queue_lease(&self.work, slot_lease)
            if status == AX_EMPTY and ax_peek32(&self.work.is_damaged):
                status = AX_DAMAGED
        while status == AX_EMPTY and deadline != 0:
            status = self.wait(AX_WAIT_DATA, deadline)
            if status == AX_TIMEOUT:
                status = queue_lease(&self.work, slot_lease)
                return status if status != AX_EMPTY else AX_TIMEOUT
            if status == AX_OK:
                status = queue_lease(&self.work, slot_lease)
        return self.count_lease(slot_lease, status)

    cdef inline int count_lease(self, ax_lease *slot_lease, int status) noexcept:
        if status == AX_OK and slot_lease.failures:
            add_to(&self.work.tally.redelivered, 1)
        if status == AX_OK and slot_lease.flags & AX_MESSAGE_CHUNK:
            # A putter may wait until fewer frames wait (`_deep_bytes`).
            queue_wake(&self.work, False)
        return status

    cdef int finish_lease(self, ax_lease *slot_lease, uint64_t done, bint failed, bint wake) noexcept:
        cdef int status = queue_settle(&self.work, slot_lease, done, failed)
        if status == AX_OK:
            if slot_lease.flags & AX_MESSAGE_CHUNK and self.arena is not None and done & slot_lease.left == slot_lease.left:
                arena_release(&self.arena.store, slot_lease.ticket.chunk, slot_lease.id)
            if wake:
                queue_wake(&self.work, False)
            add_to(&self.work.tally.acknowledged, ones(done))
            ax_put64(&self.work.tally.last_get_ns, <uint64_t>ax_now_ns())
        return status

    cdef object copy_of(self, ax_lease *slot_lease, int k):
        # Copy frame k of the slot to bytes; the rest of the slot if its header is invalid.
        cdef uint64_t at = 0, bytes = 0
        cdef char *to
        cdef char *slot = slot_of(&self.work, slot_lease.index)
        if slot_lease.flags & AX_MESSAGE_LARGE:
            return PyBytes_FromStringAndSize(slot, slot_lease.bytes)
        if slot_lease.flags & AX_MESSAGE_CHUNK:
            slot = self.frame_of(slot_lease, k, &bytes)
            if slot == NULL:
                return b""
        elif not frame_at(slot_lease, slot, k, &at, &bytes):
            bytes = slot_lease.bytes - at if slot_lease.bytes > at else 0
        if bytes <= AX_GIL_BYTES:
            return PyBytes_FromStringAndSize(slot + at, bytes)
        copy = PyBytes_FromStringAndSize(NULL, bytes)
        to = PyBytes_AS_STRING(copy)
        with nogil:
            ax_copy(to, slot + at, bytes)
        return copy

    cdef object decode_fast(self, ax_lease *slot_lease, int k):
        # Decode frame k; NotImplemented: no fast path, or the frame is damaged.
        cdef uint64_t bytes = 0
        cdef ax_frame head
        cdef char *slot = self.frame_of(slot_lease, k, &bytes)
        cdef const char *data
        cdef char *to
        cdef uint32_t front, crc
        cdef int kind, i
        cdef cnp.npy_intp dims[4]
        cdef uint64_t count
        if slot == NULL:
            return NotImplemented
        memcpy(&head, slot, sizeof(ax_frame))
        front = sizeof(ax_frame) + ax_front_bytes(head.flags)
        if (
            head.flags & UNUSUAL or memcmp(head.magic, AX_FRAME_MAGIC, 4) or front > bytes
            or ax_crc32(0, &head, sizeof(ax_frame) - 4) != head.header_crc
        ):
            return NotImplemented
        data = slot + front
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
        if not head.flags & AX_FLAG_CHECKSUM:
            copy_bytes(to, data, count)
            return value
        crc = ax_crc32(0, data - front + sizeof(ax_frame), front - sizeof(ax_frame))
        return value if copy_crc(self.crc_of, crc, to, data, count) == head.crc else NotImplemented

    cdef object take_frame(self, ax_lease *slot_lease, int k, bint *is_leased):
        # Decode frame k and acknowledge it. is_had False: the lease was over, or a large frame was acknowledged already.
        cdef bint is_large = slot_lease.flags & AX_MESSAGE_LARGE
        value = NotImplemented
        name = frame = None
        try:
            value = self.decode_fast(slot_lease, k)
            if value is NotImplemented:
                frame = self.copy_of(slot_lease, k)
                name = frame
                if is_large:
                    frame = self._open_large(name)
        except BaseException:
            self.finish_lease(slot_lease, 0, True, True)
            raise
        ax_crash("get_copied")
        if not queue_holds(&self.work, slot_lease):
            is_leased[0] = False
            self.finish_lease(slot_lease, 0, False, False)
            return None
        if is_large:
            try:
                self._unlink_large(name)
            except BaseException:
                self.finish_lease(slot_lease, 0, True, True)
                raise
        is_leased[0] = self.finish_lease(slot_lease, <uint64_t>1 << k, False, True) == AX_OK and not (is_large and frame is None)
        slot_lease.left &= ~(<uint64_t>1 << k)
        if value is NotImplemented and is_leased[0]:
            return self._checked(frame)
        return value

    def _checked(self, frame):
        """Decode a frame; count a damaged one."""
        try:
            return self._decode(frame)
        except ValueError:
            add_to(&self.work.tally.corrupt, 1)
            raise

    def get(self, block=True, timeout=None):
        """Get one value. No other getter receives it.

        Parameters
        ----------
        block : bool
            Wait for a value.
        timeout : float or None
            Longest wait, s; None waits without limit, 0 does not wait.

        Returns
        -------
        object
            A copy of the value. Arrays of plain numbers are writable, other arrays read-only. A `Frame`
            that was put is returned as its value, see `get_frame`.

        Raises
        ------
        QueueEmpty
            No value and `block` is false.
        TimeoutError
            No value came within `timeout`; also a ``queue.Empty``.
        CorruptFrame
            The bytes changed between put and get. The frame is dropped; the next get returns the next one.

        Notes
        -----
        Acknowledges when it returns, unless the queue was opened with another `acknowledge`.

        Examples
        --------
        >>> from ataraxis import MemQ
        >>> queue = MemQ()
        >>> queue.put(b"one")
        >>> queue.get(timeout=1)
        b'one'
        """
        cdef ax_lease slot_lease
        cdef int64_t deadline = deadline_of(timeout) if block else 0
        cdef int status = AX_OK
        cdef bint is_leased = False
        value = None
        if not self._is_plain:
            return self._get_leased(block, timeout)
        self.enter()
        try:
            while not is_leased:
                status = self.lease_next(&slot_lease, deadline)
                if status != AX_OK:
                    break
                value = self.take_frame(&slot_lease, first_bit(slot_lease.left), &is_leased)
        finally:
            self.leave()
        if status != AX_OK:
            self._fail(status, False)
        return value

    def _get_many(self, Py_ssize_t limit, int64_t deadline):
        """Return a list of at most `limit` values, and a status. Waits for the first value only."""
        cdef ax_lease slot_lease
        cdef int status = AX_OK
        values = []
        self.enter()
        try:
            while len(values) < limit:
                status = self.lease_next(&slot_lease, 0 if values else deadline)
                if status != AX_OK or not self.take_frames(&slot_lease, limit, values):
                    break
        finally:
            queue_wake(&self.work, False)
            self.leave()
        return values, AX_OK if values else status

    cdef bint take_frames(self, ax_lease *slot_lease, Py_ssize_t limit, list values) except -1:
        # Decode frames of one slot, then acknowledge them together. False: stop here.
        cdef uint64_t done = 0, left = slot_lease.left
        cdef Py_ssize_t before = len(values)
        cdef bint is_leased = True
        cdef int k = 0
        if slot_lease.flags & AX_MESSAGE_LARGE:
            value = self.take_frame(slot_lease, 0, &is_leased)
            if is_leased:
                values.append(value)
            return True
        try:
            while left and len(values) < limit:
                k = first_bit(left)
                value = self.decode_fast(slot_lease, k)
                if value is NotImplemented:
                    value = self._checked(self.copy_of(slot_lease, k))
                values.append(value)
                left &= left - 1
                done |= <uint64_t>1 << k
        except ValueError:
            # A damaged frame raises in a call without other values: the next one, if there are any before it.
            if not values:
                self.finish_lease(slot_lease, <uint64_t>1 << k, False, False)
                raise
            limit = 0
        except BaseException:
            del values[before:]
            self.finish_lease(slot_lease, 0, True, False)
            raise
        if not queue_holds(&self.work, slot_lease) or self.finish_lease(slot_lease, done, False, False) != AX_OK:
            del values[before:]
        return limit > 0

    # ---- leases

    def _lease(self, kind, int64_t deadline):
        """Lease a frame of a held slot or of the next one. Return a `kind` (a FrameLease), or a status.

        No exception of a signal handler can come in between: a leased frame always has an object that gives it back.
        """
        cdef FrameLease lease
        cdef ax_lease leased
        cdef int status
        self.enter()
        try:
            while True:
                if not self._partial:
                    status = self.lease_next(&leased, deadline)
                    if status != AX_OK:
                        return status
                    self.keep_partial(&leased)
                lease = kind.__new__(kind)
                if self.hand_out(lease, self._partial[0]):
                    return lease
        finally:
            self.leave()

    cdef SlotLease keep_partial(self, ax_lease *leased):
        # Keep a slot whose frames are handed out one by one.
        cdef SlotLease slot_lease = SlotLease.__new__(SlotLease)
        slot_lease.slot_lease = leased[0]
        slot_lease.pending = leased.left
        self._partial.append(slot_lease)
        self._is_plain = False
        return slot_lease

    cdef bint hand_out(self, FrameLease lease, SlotLease slot_lease) except -1:
        # Hand out the next frame of a slot; False if the lease of the slot was over.
        lease.handle, lease.slot_lease, lease.place = self, slot_lease, first_bit(slot_lease.pending)
        slot_lease.pending &= ~(<uint64_t>1 << lease.place)
        slot_lease.out |= <uint64_t>1 << lease.place
        lease.is_over = False
        if not slot_lease.pending:
            self.forget_slot(slot_lease)
        if slot_lease.slot_lease.flags & AX_MESSAGE_CHUNK and self._views:
            lease.view = self.pinned_frame(&slot_lease.slot_lease)
        lease.data = self.copy_of(&slot_lease.slot_lease, lease.place) if lease.view is None else b""
        if queue_holds(&self.work, &slot_lease.slot_lease):
            return True
        lease.is_over = True
        self.forget_slot(slot_lease)
        return False

    cdef Chunk pinned_frame(self, ax_lease *leased):
        # A view of a frame in a chunk; None: there is none, or the chunk is not the slot's any more.
        cdef uint64_t bytes = 0
        cdef char *frame = self.frame_of(leased, 0, &bytes)
        return None if frame == NULL else pinned_chunk(self.arena, leased.ticket.chunk, leased.id, frame, bytes)

    cdef int forget_slot(self, SlotLease slot_lease) except -1:
        # Hand out no more frames of a slot.
        slot_lease.pending = 0
        if slot_lease in self._partial:
            self._partial.remove(slot_lease)
        self._is_plain = self._acknowledges and not self._partial
        return 0

    cdef FrameLease frame_lease_of(self, ax_lease *leased):
        # Make a FrameLease of a leased slot with one frame; None: get its frames from `_lease`.
        cdef FrameLease lease
        cdef SlotLease slot_lease = self.keep_partial(leased)
        if slot_lease.pending != 1 or leased.flags & (AX_MESSAGE_LARGE | AX_MESSAGE_CHUNK):
            return None
        lease = FrameLease.__new__(FrameLease)
        return lease if self.hand_out(lease, slot_lease) else None

    cdef int end_lease(self, FrameLease lease, bint is_done) except -100:
        # End the lease of a frame: AX_OK, or AX_DEAD if it was over. No bytecode runs here.
        cdef SlotLease slot_lease = lease.slot_lease
        cdef uint64_t bit = <uint64_t>1 << lease.place
        cdef int status = AX_OK
        lease.is_over = True
        if not self.is_open or inherited(self.work.party):
            return AX_DEAD
        slot_lease.out &= ~bit
        if not is_done:
            slot_lease.failed = True
            self.forget_slot(slot_lease)
        if not slot_lease.out | slot_lease.pending:
            return self.finish_lease(&slot_lease.slot_lease, bit if is_done else 0, slot_lease.failed, True)
        if is_done:
            status = queue_mark(&self.work, &slot_lease.slot_lease, bit)
            if status == AX_OK:
                add_to(&self.work.tally.acknowledged, 1)
        return status

    # ---- draining: frames into one buffer, for writers of files, without an object per frame

    def _drain(self, unsigned char[::1] buffer not None, Py_ssize_t at, uint32_t seed, bint keeps, int64_t deadline):
        """Copy waiting frames into `buffer` from `at` on, each padded. Return the end, the number of frames and a status;
        of a large frame that was leased, the name, or None, and its number, or None if it has its own. OVERFLOW: the next
        frame does not fit; the number is how many bytes it has, or None."""
        cdef ax_lease slot_lease, inside
        cdef int status
        cdef char *frame
        cdef uint64_t bytes = 0
        cdef uint64_t frames = 0, here
        cdef char *to = <char *>&buffer[0]
        cdef Py_ssize_t room = buffer.shape[0]
        name = number = None
        self.enter()
        try:
            status = self.lease_next(&slot_lease, deadline) if room - at >= <Py_ssize_t>self.work.stride else AX_OVERFLOW
            while status == AX_OK:
                if slot_lease.flags & AX_MESSAGE_LARGE:
                    name = PyBytes_FromStringAndSize(slot_of(&self.work, slot_lease.index), slot_lease.bytes)
                    if slot_lease.flags & AX_MESSAGE_NUMBERED:
                        number = slot_lease.id * AX_QUEUE_FRAMES
                    self.keep_drained(&slot_lease)
                    break
                frame, inside = slot_of(&self.work, slot_lease.index), slot_lease
                if slot_lease.flags & AX_MESSAGE_CHUNK:
                    try:
                        frame = self.frame_of(&slot_lease, 0, &bytes)
                    except:
                        self.finish_lease(&slot_lease, 0, True, True)
                        raise
                    if frame == NULL:
                        # Not a ticket of the arena: reported as a name that is not one.
                        name = b""
                        self.keep_drained(&slot_lease)
                        break
                    inside.bytes = <uint32_t>min(ax_padded(bytes), <uint64_t>0xFFFFFFFFu)
                    if ax_padded(bytes) > <uint64_t>(room - at):
                        self.finish_lease(&slot_lease, 0, False, True)
                        number, status = bytes, AX_OVERFLOW
                        break
                if keeps:
                    self.keep_drained(&slot_lease)
                with nogil:
                    here = copy_frames(to + at, frame, &inside, seed)
                at += here
                frames += ones(slot_lease.left)
                if not keeps and self.finish_lease(&slot_lease, slot_lease.left, False, False) != AX_OK:
                    at -= here
                    frames -= ones(slot_lease.left)
                if frames % BATCH == 0:
                    queue_wake(&self.work, False)
                status = queue_lease(&self.work, &slot_lease) if room - at >= <Py_ssize_t>self.work.stride else AX_OVERFLOW
        finally:
            queue_wake(&self.work, False)
            self.leave()
        return at, frames, status, name, number

    cdef int keep_drained(self, ax_lease *slot_lease) except -1:
        cdef Py_ssize_t wanted
        cdef void *more
        if self.drained_count == self.drained_room:
            wanted = max(64, 2 * self.drained_room)
            more = realloc(self.drained, wanted * sizeof(ax_lease))
            if more == NULL:
                queue_settle(&self.work, slot_lease, 0, True)
                raise MemoryError()
            self.drained = <ax_lease *>more
            self.drained_room = wanted
        self.drained[self.drained_count] = slot_lease[0]
        self.drained_count += 1
        return 0

    def _release_drained(self, bint done, Py_ssize_t first):
        """Acknowledge the drained slots from number `first` on, or give them back; return how many leases were over."""
        cdef Py_ssize_t k, lost = 0
        self.enter()
        try:
            for k in range(first, self.drained_count):
                if self.finish_lease(&self.drained[k], self.drained[k].left if done else 0, not done, k % BATCH == 0) != AX_OK:
                    lost += 1
            self.drained_count = min(first, self.drained_count)
            queue_wake(&self.work, False)
        finally:
            self.leave()
        return lost

    @property
    def _drained(self):
        """Slots that are drained and still leased."""
        return self.drained_count

    # ---- messages: values with an origin, straight into and out of a slot

    cdef int put_message(self, value, int code, ax_message_header *header, int64_t deadline) except -100:
        # Put a value with dtype `code`, -1: its own. UNFIT: no fast path, nothing was put.
        cdef ax_payload payload
        cdef ax_last slot
        cdef uint64_t bytes
        cdef int status
        memset(&payload, 0, sizeof(ax_payload))
        if not encode_value(&payload, value, code):
            return UNFIT
        bytes = ax_padded(sizeof(ax_frame) + sizeof(ax_origin) + payload.bytes)
        self.enter()
        try:
            if bytes > self.work.stride:
                return self.put_message_in_chunk(value, &payload, header, deadline)
            status = self.claim_slot(&slot, deadline)
            if status != AX_OK:
                return status
            try:
                write_message(slot_of(&self.work, slot.index), &payload, header, self.crc_of, False)
            except BaseException:
                queue_abandon(&self.work, slot.index)
                raise
            slot.bytes, slot.frames = bytes, 1
            self.publish_slot(&slot, 0, 1, payload.bytes, header.time_ns)
        finally:
            self.leave()
        return AX_OK

    cdef int put_message_in_chunk(self, value, ax_payload *payload, ax_message_header *header, int64_t deadline) except -100:
        # Put a message in a chunk, or in the one that it lies in already; UNFIT: there is none. The caller is inside.
        cdef uint64_t front = sizeof(ax_frame) + sizeof(ax_origin), chunk = 0
        cdef ax_ticket ticket
        cdef ax_last slot
        cdef char *to
        cdef bint is_given
        cdef Chunk own = self.own_chunk(value, payload)
        cdef int status = self.await_room(payload.bytes, deadline)
        if status != AX_OK:
            return status
        if own is None:
            to = self.take_chunk(front, front + payload.bytes, &chunk, &ticket)
            if to == NULL:
                return UNFIT
        else:
            # No other thread gives it meanwhile.
            own.is_filling = False
            ticket.chunk, ticket.at, ticket.bytes = own.chunk, AX_PAYLOAD_AT - front, front + payload.bytes
            to = own.start - front
        status = AX_DEAD
        try:
            write_message(to, payload, header, self.crc_of, own is not None)
            status = self.claim_slot(&slot, deadline)
        finally:
            if status != AX_OK:
                if own is None:
                    arena_drop(&self.arena.store, chunk)
                else:
                    own.is_filling = True
        if status != AX_OK:
            return status
        if own is None:
            is_given = arena_give(&self.arena.store, chunk, slot.position)
        else:
            is_given = own.give(slot.position)
            cnp.PyArray_CLEARFLAGS(value, cnp.NPY_ARRAY_WRITEABLE)
            base = cnp.get_array_base(value)
            if cnp.PyArray_CheckExact(base):
                cnp.PyArray_CLEARFLAGS(base, cnp.NPY_ARRAY_WRITEABLE)
        if not is_given:
            queue_abandon(&self.work, slot.index)
            return UNFIT
        return self.put_ticket(&slot, &ticket, payload.bytes, header.time_ns)

    cdef Chunk own_chunk(self, value, ax_payload *payload):
        # The chunk in whose place for a payload the value lies; None: it lies elsewhere.
        cdef Chunk own
        if not cnp.PyArray_CheckExact(value):
            return None
        base = cnp.get_array_base(value)
        if cnp.PyArray_CheckExact(base):       # the array of `_empty`, of which this is a view
            base = cnp.get_array_base(base)
        if not isinstance(base, Chunk):
            return None
        own = base
        if not own.is_filling or own.arena is not self.arena:
            return None
        # Of a part of it, the bytes behind would be overwritten by the padding.
        return own if payload.data == own.start and payload.bytes == <uint64_t>own.bytes else None

    def _empty(self, shape, dtype not None):
        """Return an array for a message to be filled, in a chunk, or None: it would fit a slot, or there is no chunk."""
        cdef uint64_t front = sizeof(ax_frame) + sizeof(ax_origin), chunk = 0, bytes = dtype.itemsize
        cdef cnp.npy_intp dims[4]
        cdef ax_ticket ticket
        cdef char *to
        cdef int k = 0
        cdef Chunk pin = None
        if not dtype.isnative or code_of(dtype.num) == 0 or not 0 < len(shape) <= 4:
            return None
        for extent in shape:
            if not 0 < extent < 1 << 32 or bytes * extent >= 1 << 62:
                return None
            dims[k] = extent
            bytes *= <uint64_t>dims[k]
            k += 1
        if ax_padded(front + bytes) <= self.work.stride:
            return None
        self.enter()
        try:
            to = self.take_chunk(front, front + bytes, &chunk, &ticket)
            if to == NULL:
                return None
            pin = filling_chunk(self.arena, chunk, to + front, bytes)
        finally:
            self.leave()
        array = cnp.PyArray_SimpleNewFromData(k, dims, dtype.num, to + front)
        cnp.set_array_base(array, pin)
        return array

    def _post(
        self, value, int code, uint64_t lane, uint64_t sequence, uint32_t part, uint32_t overlap, uint32_t source,
        int64_t time_ns, int64_t deadline,
    ):
        """Put a value; return a status, UNFIT if it has no fast path."""
        cdef ax_message_header header
        header.origin.lane, header.origin.sequence = lane, sequence
        header.origin.part, header.origin.overlap = part, overlap
        header.source, header.time_ns = source, time_ns
        return self.put_message(value, code, &header, deadline)

    cdef int try_lease(self, ax_lease *slot_lease) except -100:
        # Lease a slot, checking for some 10 us: AX_OK, AX_EMPTY, AX_DAMAGED. The caller is inside.
        cdef int status = queue_lease(&self.work, slot_lease), left = CHECKS
        if status == AX_EMPTY:
            if self.work.cpus > 1:
                while status == AX_EMPTY and left:
                    ax_linger()
                    status = queue_lease(&self.work, slot_lease)
                    left -= 1
            else:
                queue_reap(&self.work)
                status = queue_lease(&self.work, slot_lease)
        return self.count_lease(slot_lease, status)

    def _fetch(self, int64_t deadline):
        """Lease a slot. Return a Message if its frame has a fast path, else a FrameLease, or None if its frames come from
        `_lease`; or a status."""
        cdef Message message = Message.__new__(Message)
        value = NotImplemented
        cdef int status
        self.enter()
        try:
            status = self.lease_next(&message.slot_lease, deadline)
            if status != AX_OK:
                return status
            message.queue, message.is_over = self, False
            value = self.read(&message.slot_lease, &message.header)
        finally:
            self.leave()
        if value is not NotImplemented:
            message.value = value
            return message
        message.is_over = True
        return self.frame_lease_of(&message.slot_lease)


@no_gc_clear   # `handle` and `slot_lease` must outlive it
cdef class FrameLease:
    """A leased frame, as bytes. No other getter receives it until it is given back.

    A context manager: acknowledges at the end of the block, gives the frame back after an exception. A lease that is
    dropped, in any thread, gives its frame back. Entry, exit and end are one call in C.
    """

    def __cinit__(self):
        self.is_over = True

    def __dealloc__(self):
        if not self.is_over:
            self.handle.end_lease(self, False)

    @property
    def id(self):
        """Number of the frame in the queue: the same at each delivery, never reused."""
        return self.slot_lease.slot_lease.id * AX_QUEUE_FRAMES + self.place

    @property
    def attempt(self):
        """1 at the first delivery, more after failures."""
        return self.slot_lease.slot_lease.failures + 1

    @property
    def is_large(self):
        """Whether the frame lies in a separate segment, named by `data`."""
        return bool(self.slot_lease.slot_lease.flags & AX_MESSAGE_LARGE)

    def acknowledge(self):
        """Acknowledge the frame. Does nothing the second time.

        Raises
        ------
        LeaseLost
            The lease expired, and the frame may have gone to another getter.
        """
        cdef QueueHandle handle = self.handle
        cdef int status = AX_OK
        if self.is_over:
            return
        if self.slot_lease.slot_lease.flags & AX_MESSAGE_LARGE:
            if not handle.is_open or inherited(handle.work.party) or queue_mark(&handle.work, &self.slot_lease.slot_lease, 0) != AX_OK:
                status = AX_DEAD
            else:
                # May be interrupted: then the lease is unchanged.
                handle._unlink_large(self.data)
        if status == AX_OK:
            status = handle.end_lease(self, True)
        self.is_over = True
        if status != AX_OK:
            handle._lose(self.id)

    def give_back(self):
        """Give the frame back for redelivery. Does nothing once the lease is over."""
        if not self.is_over:
            self.handle.end_lease(self, False)

    def __enter__(self):
        return self

    def __exit__(self, kind, *exc):
        """Acknowledge; give back after an exception."""
        if kind is not None:
            self.give_back()
            return
        try:
            self.acknowledge()
        except:
            self.give_back()
            raise


@no_gc_clear   # `queue` must outlive it
cdef class Message:
    """A leased frame of one value, decoded and checked."""

    def __cinit__(self):
        self.is_over = True

    def __dealloc__(self):
        # A dropped message counts as failed. A closed handle has given it back already.
        if not self.is_over and self.queue.is_open and not inherited(self.queue.work.party):
            self.queue.finish_lease(&self.slot_lease, 0, True, True)

    @property
    def lane(self):
        """Lane of the pipeline."""
        return self.header.origin.lane

    @property
    def sequence(self):
        """Sequence in the lane."""
        return self.header.origin.sequence

    @property
    def overlap(self):
        """Samples shared with the previous block."""
        return self.header.origin.overlap

    @property
    def source(self):
        """Source id of the emitter."""
        return self.header.source

    @property
    def time_ns(self):
        """Time of the data, ns."""
        return self.header.time_ns

    @property
    def id(self):
        """Number of the frame in the queue: the same at each delivery, never reused."""
        return self.slot_lease.id * 64

    @property
    def attempt(self):
        """1 at the first delivery, more after failures."""
        return self.slot_lease.failures + 1

    @property
    def data(self):
        """The whole frame; empty once the lease is over."""
        self.queue.enter()
        try:
            copy = self.queue.copy_of(&self.slot_lease, 0)
            return copy if queue_holds(&self.queue.work, &self.slot_lease) else b""
        finally:
            self.queue.leave()

    def acknowledge(self):
        """Acknowledge the frame; return whether the lease still held."""
        return self.finish(True)

    def give_back(self):
        """Give the frame back for redelivery. Does nothing once the lease is over."""
        return self.finish(False)

    cdef bint finish(self, bint is_done) except -1:
        cdef int status
        if self.is_over:
            return True
        self.is_over = True
        self.queue.enter()
        try:
            status = self.queue.finish_lease(&self.slot_lease, is_done, not is_done, True)
        finally:
            self.queue.leave()
        return status == AX_OK


# Statuses, for other packages.
OK, BUSY, TIMEOUT, FULL, EMPTY, OVERFLOW, LOST, DAMAGED = AX_OK, AX_BUSY, AX_TIMEOUT, AX_FULL, AX_EMPTY, AX_OVERFLOW, AX_DEAD, AX_DAMAGED
