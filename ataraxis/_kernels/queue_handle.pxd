# A handle on a work queue, and its leases.
from libc.stdint cimport int64_t, uint32_t, uint64_t

from ataraxis._kernels.arena cimport Arena, Chunk
from ataraxis._kernels.atomics cimport ax_u32
from ataraxis._kernels.frame cimport ax_frame
from ataraxis._kernels.layout cimport ax_ticket
from ataraxis._kernels.memory cimport Participant
from ataraxis._kernels.messages cimport ax_message_header, ax_payload
from ataraxis._kernels.queue cimport ax_lease, ax_last, ax_work

# A frame in pieces: header, device stamp, payload.
cdef struct ax_piece:
    ax_frame head
    uint64_t stamp[2]
    uint32_t stamp_bytes
    const char *data
    uint64_t bytes
    bint whole                # `data` is a complete frame with header

# Rows of one array: the fields that their frames share, and the next row.
cdef struct ax_rows:
    ax_frame head
    const char *data
    uint64_t width            # bytes of a row
    uint64_t each             # bytes of a frame, padded
    uint64_t stamp            # device time of the next row
    uint64_t step

cdef enum:
    UNFIT = -2                # of a put: no fast path for this value

cdef class SlotLease:
    cdef ax_lease slot_lease
    cdef uint64_t pending
    cdef uint64_t out
    cdef bint failed

cdef class QueueHandle:
    cdef ax_work work
    cdef readonly bint is_open
    cdef bint is_leaving
    cdef ax_u32 users                   # calls in progress
    cdef Participant participant
    cdef unsigned char[::1] memory      # the payload
    cdef object crc_of                  # crc32(data, value), for long payloads
    cdef bint checks                    # frames get a checksum
    cdef public bint _packs             # a put is appended to the last slot while that is not leased
    cdef public bint _acknowledges      # a get acknowledges when it returns
    cdef public bint _is_plain          # it does, and `_partial` is empty
    cdef public list _partial            # leased slots whose frames are handed out one by one
    cdef readonly Arena arena           # of the queue; None: not attached
    cdef public bint _is_without_arena  # there was no room for one, or no place in it
    cdef public uint64_t _deep_bytes    # large frames that wait, together, at which the queue counts as full; 0: no limit
    cdef public uint64_t _least_frames  # but not with fewer
    cdef public bint _views             # arrays in a chunk, and leased frames there, are views of it, not copies
    cdef ax_lease *drained                  # drained and not acknowledged yet
    cdef Py_ssize_t drained_count, drained_room

    cdef int enter(self) except -1
    cdef int leave(self) except -1
    cdef int wait(self, int what, int64_t deadline) except -100
    cdef int piece_of(self, ax_piece *piece, value, source, time_ns, device_time, device_sequence) except -1
    cdef int claim_slot(self, ax_last *slot, int64_t deadline) except -100
    cdef int claim_room(self, ax_last *slot, uint64_t each, int64_t deadline) except -100
    cdef void publish_slot(self, ax_last *slot, uint32_t flags, uint64_t frames, uint64_t payload, int64_t now) noexcept
    cdef void publish_frames(self, ax_last *slot, uint64_t bytes, uint32_t frames, uint64_t payload, int64_t now) noexcept
    cdef int checksum(self, ax_piece *piece) except -1
    cdef int put_piece(self, ax_piece *piece, int64_t deadline) except -100
    cdef Arena attach_arena(self, uint64_t bytes)
    cdef int await_room(self, uint64_t bytes, int64_t deadline) except -100
    cdef char *take_chunk(self, uint64_t front, uint64_t bytes, uint64_t *chunk, ax_ticket *ticket) except? NULL
    cdef int put_ticket(self, ax_last *slot, ax_ticket *ticket, uint64_t payload, int64_t now) except -100
    cdef int put_piece_in_chunk(self, ax_piece *piece, int64_t deadline) except -100
    cdef int put_message_in_chunk(self, value, ax_payload *payload, ax_message_header *header, int64_t deadline) except -100
    cdef Chunk own_chunk(self, value, ax_payload *payload)
    cdef char *frame_of(self, ax_lease *slot_lease, int k, uint64_t *bytes) except? NULL
    cdef object read(self, ax_lease *slot_lease, ax_message_header *header)
    cdef int put_packed(self, char *frames, uint32_t bytes, uint32_t count, uint64_t payload, int64_t deadline) except -100
    cdef int fill_slot(self, ax_rows *rows, uint64_t most, uint64_t *done, int64_t deadline) except -100
    cdef int lease_next(self, ax_lease *slot_lease, int64_t deadline) except -100
    cdef int count_lease(self, ax_lease *slot_lease, int status) noexcept
    cdef int finish_lease(self, ax_lease *slot_lease, uint64_t done, bint failed, bint wake) noexcept
    cdef object copy_of(self, ax_lease *slot_lease, int k)
    cdef object decode_fast(self, ax_lease *slot_lease, int k)
    cdef object take_frame(self, ax_lease *slot_lease, int k, bint *is_leased)
    cdef bint take_frames(self, ax_lease *slot_lease, Py_ssize_t limit, list values) except -1
    cdef int keep_drained(self, ax_lease *slot_lease) except -1
    cdef int put_message(self, value, int code, ax_message_header *header, int64_t deadline) except -100
    cdef bint probably_has_room(self) except -1
    cdef int try_lease(self, ax_lease *slot_lease) except -100
    cdef SlotLease keep_partial(self, ax_lease *leased)
    cdef bint hand_out(self, FrameLease lease, SlotLease slot_lease) except -1
    cdef Chunk pinned_frame(self, ax_lease *leased)
    cdef int forget_slot(self, SlotLease slot_lease) except -1
    cdef FrameLease frame_lease_of(self, ax_lease *leased)
    cdef int end_lease(self, FrameLease lease, bint is_done) except -100

cdef class FrameLease:
    cdef QueueHandle handle
    cdef SlotLease slot_lease
    cdef int place                      # index of the frame in the slot
    cdef readonly bint is_over          # acknowledged, given back, or expired
    cdef readonly bytes data            # the whole frame, or the name of its segment; empty if `view` has it
    cdef readonly Chunk view            # a frame in a chunk, pinned; None: it is not in one, or the handle has no views

cdef class Message:
    cdef QueueHandle queue
    cdef ax_lease slot_lease
    cdef ax_message_header header
    cdef bint is_over
    cdef readonly object value
    cdef bint finish(self, bint is_done) except -1
