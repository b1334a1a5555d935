"""Work queues and the links to other hosts: values leave an edge queue, enter an inbox there, and are looked for.

A value on its way is a record: its number in the edge queue, the length of its frame, u64 each, then the frame as it
lies in the queue, with zeros up to a multiple of 8. `QueueToLink` keeps the leases of what is away. `LinkToQueue` trusts no
byte of a record. `QueueScanner` reads slots that others own: it reads a slot's word before and after.
"""
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.set cimport PySet_Add
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from ataraxis._kernels.arena cimport Arena, arena_drop, arena_give, chunk_at
from ataraxis._kernels.atomics cimport AX_GIL_BYTES, ax_copy, ax_fence_acquire, ax_load64, ax_peek32, ax_peek64
from ataraxis._kernels.crc cimport ax_crc32, ax_crc_init
from ataraxis._kernels.frame cimport (
    AX_FLAG_END_OF_STREAM, AX_FLAG_ORIGIN, AX_FRAME_MAGIC, ax_frame, ax_front_bytes, ax_padded,
)
from ataraxis._kernels.layout cimport (
    AX_FULL, AX_MESSAGE_CHUNK, AX_MESSAGE_LARGE, AX_OK, AX_QUEUE_FRAMES, AX_SLOT_FREE, AX_SLOT_GROWING, AX_SLOT_LEASED,
    AX_SLOT_WRITING, ax_message, ax_ticket,
)
from ataraxis._kernels.messages cimport ax_origin
from ataraxis._kernels.platform cimport ax_now_ns
from ataraxis._kernels.queue cimport (
    add_to, ax_last, ax_lease, first_bit, frame_at, lease_retry, ones, queue_abandon, queue_lease, queue_mark, queue_reap,
    queue_wake, slot_of,
)
from ataraxis._kernels.queue_handle cimport QueueHandle, SlotLease

cdef enum:
    RECORD = 16                 # number and length, before the frame

cdef uint64_t MIX = 0x9E3779B97F4A7C15u

ax_crc_init()


cdef inline uint64_t room_of(uint64_t bytes) noexcept nogil:
    return RECORD + (bytes + 7) // 8 * 8


cdef inline void write_record(char *to, uint64_t number, const char *frame, uint64_t bytes) noexcept nogil:
    memcpy(to, &number, 8)
    memcpy(to + 8, &bytes, 8)
    ax_copy(to + RECORD, frame, bytes)
    memset(to + RECORD + bytes, 0, room_of(bytes) - RECORD - bytes)


cdef bytes bytes_of(whole):
    return bytes(whole)


# ---- the side that puts

cdef class QueueToLink:
    """Leases the values of an edge queue, and keeps the leases until they are settled. One thread at a time."""

    cdef QueueHandle queue
    cdef dict slots                     # SlotLease by position; its `pending`: frames that are not settled
    cdef readonly list last             # numbers of leased frames that end a stream

    def __init__(self, QueueHandle queue not None):
        self.queue = queue
        self.slots = {}
        self.last = []

    @property
    def has_waiting(self):
        """Whether a value waits that is not leased."""
        return self.queue._has_data

    @property
    def held(self):
        """How many slots are leased."""
        return len(self.slots)

    @property
    def slot_bytes(self):
        """Bytes that a buffer needs for the frames of a slot, as records."""
        return self.queue.work.stride + RECORD * AX_QUEUE_FRAMES

    def take(self, unsigned char[::1] buffer not None, uint64_t start, Py_ssize_t most, bint only_back):
        """Lease values and write them as records; return the end and their numbers.

        An end behind the buffer, without numbers: so many bytes are needed for the next one.
        """
        cdef SlotLease slot
        cdef uint64_t at = start, room = buffer.shape[0]
        cdef int status
        cdef list numbers = []
        self.queue.enter()
        try:
            while len(numbers) < most and room - at >= self.queue.work.stride + RECORD * AX_QUEUE_FRAMES:
                slot = SlotLease.__new__(SlotLease)
                if only_back:
                    status = lease_retry(&self.queue.work, &slot.slot_lease) if ax_peek32(&self.queue.work.queue.hint) else AX_FULL
                else:
                    status = queue_lease(&self.queue.work, &slot.slot_lease)
                if status != AX_OK:
                    break
                self.queue.count_lease(&slot.slot_lease, status)
                if not self.write_slot(slot, &buffer[0], &at, room, numbers):
                    if not numbers:
                        return at, numbers
                    break
            else:
                if not numbers and most > 0:
                    return start + self.queue.work.stride + RECORD * AX_QUEUE_FRAMES, numbers
        finally:
            self.queue.leave()
        return at, numbers

    cdef bint write_slot(self, SlotLease slot, unsigned char *buffer, uint64_t *at, uint64_t room, list numbers) except -1:
        # Write the frames of a leased slot; False: there was no room, the slot is given back.
        cdef ax_lease *leased = &slot.slot_lease
        cdef uint64_t left = leased.left, bytes = 0
        cdef char *frame
        cdef int k
        try:
            slot.pending = left
            if leased.flags & AX_MESSAGE_LARGE:
                whole = self.queue._open_large(self.queue.copy_of(leased, 0))
                if whole is None:
                    # Acknowledged by a getter that died before it freed the slot.
                    self.queue.finish_lease(leased, left, False, True)
                    return True
                bytes = len(whole)
                if room_of(bytes) > room - at[0]:
                    self.queue.finish_lease(leased, 0, False, True)
                    at[0] += room_of(bytes)
                    return False
                data = bytes_of(whole)
                self.write_frame(slot, 0, PyBytes_AS_STRING(data), bytes, buffer, at, numbers)
            while left and not leased.flags & AX_MESSAGE_LARGE:
                k = first_bit(left)
                left &= left - 1
                frame = self.queue.frame_of(leased, k, &bytes)
                if frame == NULL:
                    # Damaged: dropped and counted, as by a getter.
                    add_to(&self.queue.work.tally.corrupt, 1)
                    slot.pending &= ~(<uint64_t>1 << k)
                    queue_mark(&self.queue.work, leased, <uint64_t>1 << k)
                    continue
                if room_of(bytes) > room - at[0]:
                    self.queue.finish_lease(leased, 0, False, True)
                    at[0] += room_of(bytes)
                    return False
                self.write_frame(slot, k, frame, bytes, buffer, at, numbers)
        except BaseException:
            self.queue.finish_lease(leased, 0, True, True)
            raise
        if slot.pending:
            self.slots[leased.id] = slot
        else:
            self.queue.finish_lease(leased, leased.left, False, True)
        return True

    cdef int write_frame(self, SlotLease slot, int k, const char *frame, uint64_t bytes, unsigned char *buffer, uint64_t *at,
                         list numbers) except -1:
        cdef uint64_t number = slot.slot_lease.id * AX_QUEUE_FRAMES + k
        if (<ax_frame *>frame).flags & AX_FLAG_END_OF_STREAM:
            self.last.append(number)
            return 0
        write_record(<char *>buffer + at[0], number, frame, bytes)
        at[0] += room_of(bytes)
        numbers.append(number)
        return 0

    def copy(self, numbers, unsigned char[::1] buffer not None, uint64_t start):
        """Write leased values again; return the end, and how many fit. An end behind the buffer: so many bytes are needed."""
        cdef SlotLease slot
        cdef uint64_t at = start, room = buffer.shape[0], number, bytes = 0
        cdef char *frame
        cdef Py_ssize_t count = 0
        self.queue.enter()
        try:
            for number in numbers:
                slot = self.slots.get(number // AX_QUEUE_FRAMES)
                if slot is not None:
                    data = None
                    if slot.slot_lease.flags & AX_MESSAGE_LARGE:
                        whole = self.queue._open_large(self.queue.copy_of(&slot.slot_lease, 0))
                        data = b"" if whole is None else bytes_of(whole)
                        frame, bytes = PyBytes_AS_STRING(data), len(data)
                    else:
                        frame = self.queue.frame_of(&slot.slot_lease, number % AX_QUEUE_FRAMES, &bytes)
                    if frame != NULL and bytes:
                        if room_of(bytes) > room - at:
                            if not count:
                                at += room_of(bytes)
                            break
                        write_record(<char *>&buffer[at], number, frame, bytes)
                        at += room_of(bytes)
                count += 1
        finally:
            self.queue.leave()
        return at, count

    def settle(self, numbers):
        """Acknowledge leased values; others are ignored."""
        cdef SlotLease slot
        cdef uint64_t number, bit
        self.queue.enter()
        try:
            for number in numbers:
                slot = self.slots.get(number // AX_QUEUE_FRAMES)
                bit = <uint64_t>1 << (number % AX_QUEUE_FRAMES)
                if slot is None or not slot.pending & bit:
                    continue
                if slot.slot_lease.flags & AX_MESSAGE_LARGE:
                    self.queue._unlink_large(self.queue.copy_of(&slot.slot_lease, 0))
                slot.pending &= ~bit
                if self.last and number in self.last:
                    self.last.remove(number)
                if slot.pending:
                    if queue_mark(&self.queue.work, &slot.slot_lease, bit) == AX_OK:
                        add_to(&self.queue.work.tally.acknowledged, 1)
                    continue
                del self.slots[number // AX_QUEUE_FRAMES]
                self.queue.finish_lease(&slot.slot_lease, bit, False, False)
            queue_wake(&self.queue.work, False)
        finally:
            self.queue.leave()

    def give_back(self, numbers):
        """Give leased values back: they come first, before those that were never leased."""
        cdef SlotLease slot
        cdef uint64_t number
        self.queue.enter()
        try:
            for number in numbers:
                if number in self.last:
                    self.last.remove(number)
                slot = self.slots.pop(number // AX_QUEUE_FRAMES, None)
                if slot is not None:
                    self.queue.finish_lease(&slot.slot_lease, 0, True, True)
        finally:
            self.queue.leave()


# ---- the side of the workers

cdef class LinkToQueue:
    """Puts the values that arrive into an inbox. One thread at a time."""

    cdef QueueHandle queue

    def __init__(self, QueueHandle queue not None):
        self.queue = queue

    def put(self, const unsigned char[::1] buffer not None, uint64_t start, uint64_t stop, known not None):
        """Put the values of records, but for known ones, without waiting.

        Return where the rest begins, the numbers of what was put, the key of each (`key_of` in link/edge.py), their lanes,
        how many were known, whether the inbox is full, and what is wrong with the next record, or "".
        """
        cdef uint64_t at = start, number = 0, bytes = 0, position = 0
        cdef ax_frame head
        cdef ax_origin origin
        cdef list numbers = [], keys = []
        cdef set lanes = set()
        cdef uint64_t last_lane = 0
        cdef Py_ssize_t repeated = 0
        cdef int status
        cdef const char *frame
        cdef uint32_t front
        if stop > <uint64_t>buffer.shape[0]:
            raise ValueError(f"stop must be at most {buffer.shape[0]}, got {stop}")
        self.queue.enter()
        try:
            while at < stop:
                if stop - at < RECORD + sizeof(ax_frame):
                    return at, numbers, keys, lanes, repeated, False, "a part of a record"
                memcpy(&number, &buffer[at], 8)
                memcpy(&bytes, &buffer[at + 8], 8)
                frame = <const char *>&buffer[at] + RECORD
                if bytes < sizeof(ax_frame) or bytes > stop - at or room_of(bytes) > stop - at or number >> 63:
                    return at, numbers, keys, lanes, repeated, False, "the length of a record is wrong"
                memcpy(&head, frame, sizeof(ax_frame))
                front = ax_front_bytes(head.flags)
                if (
                    memcmp(head.magic, AX_FRAME_MAGIC, 4) or ax_crc32(0, &head, sizeof(ax_frame) - 4) != head.header_crc
                    or head.length != bytes - sizeof(ax_frame) or front > head.length
                ):
                    return at, numbers, keys, lanes, repeated, False, "a record holds no frame"
                if known and number in known:
                    repeated += 1
                else:
                    status = self.put_frame(frame, &head, bytes, &position)
                    if status != AX_OK:
                        return at, numbers, keys, lanes, repeated, True, ""
                    numbers.append(number)
                    if head.flags & AX_FLAG_ORIGIN:
                        memcpy(&origin, frame + sizeof(ax_frame) + front - sizeof(ax_origin), sizeof(ax_origin))
                    else:
                        # Readers number it by its place here.
                        origin.lane, origin.sequence = 0, position * AX_QUEUE_FRAMES
                    if not lanes or origin.lane != last_lane:
                        last_lane = origin.lane
                        PySet_Add(lanes, last_lane)
                    keys.append(origin.lane ^ origin.sequence * MIX)
                at += room_of(bytes)
        finally:
            self.queue.leave()
        return at, numbers, keys, lanes, repeated, False, ""

    cdef int put_frame(self, const char *frame, const ax_frame *head, uint64_t bytes, uint64_t *position) except -100:
        # Put a whole frame without waiting; AX_FULL, or AX_OK and its position. The caller is inside.
        cdef ax_last slot
        cdef ax_ticket ticket
        cdef uint64_t padded = ax_padded(bytes), chunk = 0
        cdef char *to
        cdef int status
        if padded > self.queue.work.stride:
            to = self.queue.take_chunk(sizeof(ax_frame) + ax_front_bytes(head.flags), bytes, &chunk, &ticket)
            if to == NULL:
                # The segment of its own has no position that is known here; such a frame has an origin in pipelines.
                status = self.queue._put_whole(frame[:bytes], False, 0)
                position[0] = 0
                return AX_OK if status == AX_OK else AX_FULL
            with nogil:
                ax_copy(to, frame, bytes)
            status = self.queue.claim_slot(&slot, 0)
            if status != AX_OK:
                arena_drop(&self.queue.arena.store, chunk)
                return AX_FULL
            if not arena_give(&self.queue.arena.store, chunk, slot.position):
                queue_abandon(&self.queue.work, slot.index)
                return AX_FULL
            position[0] = slot.position
            return self.queue.put_ticket(&slot, &ticket, bytes - sizeof(ax_frame), ax_now_ns())
        status = self.queue.claim_slot(&slot, 0)
        if status != AX_OK:
            return AX_FULL
        position[0] = slot.position
        to = slot_of(&self.queue.work, slot.index) + slot.bytes
        if bytes > AX_GIL_BYTES:
            with nogil:
                ax_copy(to, frame, bytes)
        else:
            memcpy(to, frame, bytes)
        memset(to + bytes, 0, padded - bytes)
        self.queue.publish_frames(&slot, padded, 1, bytes - sizeof(ax_frame), ax_now_ns())
        return AX_OK


cdef class QueueScanner:
    """Finds which values a queue holds that are not acknowledged. One thread at a time."""

    cdef QueueHandle queue
    cdef bint has_last                  # frames that end a stream count

    def __init__(self, QueueHandle queue not None, bint has_last):
        self.queue = queue
        self.has_last = has_last

    def scan(self, dict roots not None, set keys not None):
        """Add the keys of the values to `keys`. Return the lanes that are not in `roots`, the smallest number of a frame whose
        root is -1, or None, the number that the next frame has at least, and how many frames wait."""
        cdef uint64_t i, k, lane, last_lane = 0, root = 0, waiting = 0, first_foreign = <uint64_t>-1, tail
        cdef ax_origin origins[64]
        cdef uint64_t numbers[64]
        cdef int count
        cdef bint is_known = False, is_foreign = False
        cdef tuple several = None
        cdef set unknown = set()
        self.queue.enter()
        try:
            queue_reap(&self.queue.work)
            self.queue.attach_arena(0)
            # Before the slots: what is put meanwhile has a larger number. The word may be one behind.
            tail = (ax_load64(&self.queue.work.queue.tail) + 1) * AX_QUEUE_FRAMES
            for i in range(self.queue.work.slots):
                count = self.read_slot(i, origins, numbers, &waiting)
                for k in range(count):
                    lane = origins[k].lane
                    if not is_known or lane != last_lane:
                        found = roots.get(lane)
                        if found is None:
                            PySet_Add(unknown, lane)
                            continue
                        is_known, last_lane = True, lane
                        several = found if isinstance(found, tuple) else None
                        is_foreign = several is None and found < 0
                        root = 0 if is_foreign or several is not None else <uint64_t>found
                    if several is not None:
                        for root in several:
                            PySet_Add(keys, root ^ origins[k].sequence * MIX)
                    elif is_foreign:
                        first_foreign = min(first_foreign, numbers[k])
                    else:
                        PySet_Add(keys, root ^ origins[k].sequence * MIX)
        finally:
            self.queue.leave()
        return unknown, None if first_foreign == <uint64_t>-1 else first_foreign, tail, waiting

    cdef int read_slot(self, uint64_t i, ax_origin *origins, uint64_t *numbers, uint64_t *waiting) except -1:
        # The frames of a slot that are not acknowledged, as they were at one moment; their count.
        cdef ax_message *line = &self.queue.work.lines[i]
        cdef uint64_t word, state, left, bytes = 0, id
        cdef ax_lease seen
        cdef ax_frame head
        cdef ax_ticket ticket
        cdef char *slot = slot_of(&self.queue.work, i)
        cdef char *frame
        cdef uint64_t at = 0
        cdef uint32_t front
        cdef int count, k
        while True:
            word = ax_load64(&line.word)
            state = word & 7
            if state == AX_SLOT_FREE or state == AX_SLOT_WRITING:
                # Its putter holds what the frame is made of, or puts a value that has just arrived.
                return 0
            id = ax_peek64(&line.id)
            seen.bytes = <uint32_t>min(<uint64_t>ax_peek32(&line.bytes), self.queue.work.stride)
            seen.frames = ax_peek32(&line.frames)
            seen.flags = ax_peek32(&line.flags)
            left = ax_peek64(&line.left)
            if state == AX_SLOT_GROWING:
                left = <uint64_t>-1 >> (AX_QUEUE_FRAMES - min(max(seen.frames, <uint32_t>1), <uint32_t>AX_QUEUE_FRAMES))
            count = 0
            while left:
                k = first_bit(left)
                left &= left - 1
                numbers[count] = id * AX_QUEUE_FRAMES + k
                origins[count].lane, origins[count].sequence = 0, numbers[count]
                frame = NULL
                if seen.flags & AX_MESSAGE_LARGE:
                    self.read_large(slot, seen.bytes, &origins[count])
                    count += 1
                    break
                if seen.flags & AX_MESSAGE_CHUNK:
                    memcpy(&ticket, slot, sizeof(ax_ticket))
                    if self.queue.arena is not None and sizeof(ax_frame) <= ticket.bytes < <uint64_t>1 << 62:
                        frame = chunk_at(&self.queue.arena.store, ticket.chunk, ticket.at, ticket.bytes)
                        bytes = ticket.bytes
                elif frame_at(&seen, slot, k, &at, &bytes):
                    frame = slot + at
                if frame != NULL:
                    memcpy(&head, frame, sizeof(ax_frame))
                    front = ax_front_bytes(head.flags)
                    if head.flags & AX_FLAG_ORIGIN and sizeof(ax_frame) + front <= bytes:
                        memcpy(&origins[count], frame + sizeof(ax_frame) + front - sizeof(ax_origin), sizeof(ax_origin))
                    elif head.flags & AX_FLAG_END_OF_STREAM and not self.has_last:
                        continue
                count += 1
            # The slot has not changed meanwhile: all that was read is of one moment.
            ax_fence_acquire()
            if ax_load64(&line.word) == word:
                if state != AX_SLOT_LEASED:
                    waiting[0] += count
                return count

    cdef int read_large(self, char *slot, uint32_t bytes, ax_origin *origin) except -1:
        # The origin of a frame in a segment of its own; that may be gone already.
        cdef ax_frame head
        cdef const unsigned char[::1] view
        cdef uint32_t front
        whole = self.queue._open_large(slot[:bytes])
        if whole is None or len(whole) < <Py_ssize_t>sizeof(ax_frame):
            return 0
        view = whole
        memcpy(&head, &view[0], sizeof(ax_frame))
        front = ax_front_bytes(head.flags)
        if head.flags & AX_FLAG_ORIGIN and <Py_ssize_t>(sizeof(ax_frame) + front) <= view.shape[0]:
            memcpy(origin, &view[sizeof(ax_frame) + front - sizeof(ax_origin)], sizeof(ax_origin))
        return 0
