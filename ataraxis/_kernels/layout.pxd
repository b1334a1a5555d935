# The structs and constants of layout.h.
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from ataraxis._kernels.atomics cimport ax_u32, ax_u64

cdef extern from "layout.h" nogil:
    int AX_LIVE_OFFSET, AX_PARTICIPANTS_OFFSET, AX_MAX_PARTICIPANTS, AX_LABEL_BYTES
    int AX_KIND_ARRAY, AX_KIND_STREAM, AX_KIND_QUEUE, AX_KIND_FRAMEBUFFER, AX_KIND_ARENA, AX_KIND_LIMIT
    int AX_OK, AX_FULL, AX_EMPTY, AX_LAPPED, AX_ENDED, AX_DEAD, AX_TIMEOUT, AX_BUSY, AX_TORN
    int AX_RETIRED, AX_CROWDED, AX_OVERFLOW, AX_KEPT, AX_DAMAGED
    uint32_t AX_READY, AX_RETIRED_STATE, AX_FREE, AX_ACTIVE
    uint32_t AX_LOCK_WAITERS, AX_LOCK_CHANGE, AX_LOCK_OWNER

    ctypedef struct ax_live:
        ax_u32 state
        ax_u32 kept
        ax_u64 recoveries

    ctypedef struct ax_participant:
        ax_u32 state
        uint32_t role
        uint64_t nonce
        int64_t attach_ns
        int32_t pid
        uint32_t uid
        char label[24]

    ctypedef struct ax_guard:
        ax_u32 lock
        ax_u32 health
        ax_u64 version
        ax_u32 dirty
        ax_u32 torn_pid
        ax_u64 recoveries
        ax_u64 torn
        ax_u64 unlocked
        ax_u32 event

    int AX_SECTORS
    uint64_t AX_LAP_MASK

    ctypedef struct ax_framebuffer:
        ax_u64 head
        ax_u64 chunks
        ax_u32 server
        ax_u64 stamps[128]

    int AX_SLOT_FREE, AX_SLOT_WRITING, AX_SLOT_READY, AX_SLOT_SKIP
    int AX_CURSOR_IDLE, AX_CURSOR_GATING, AX_CURSOR_DETACHED, AX_CURSOR_WATCHING
    int AX_POLICY_LOSSLESS, AX_POLICY_LOSSY, AX_POLICY_LATEST, AX_POLICY_JOINING
    int AX_STREAM_SHARED, AX_STREAM_SYNC, AX_STREAM_TYPED, AX_STREAM_RESUMABLE
    int AX_DURABLES, AX_MASK_WORDS, AX_PAYLOAD_AT, AX_PINS_AT

    ctypedef struct ax_event:
        ax_u32 count
        ax_u64 sleepers[16]

    ctypedef struct ax_stream:
        uint64_t slots
        uint64_t stride
        uint64_t capacity
        uint64_t control_stride
        uint32_t participants
        uint32_t flags
        ax_u64 tail
        ax_u64 announced
        ax_u64 sent
        ax_u64 sent_bytes
        ax_u64 last_ns
        ax_u64 stalled_ns
        ax_u64 stalled_since_ns
        ax_u64 refused
        ax_u64 skipped
        ax_u64 gaps
        ax_u64 absent
        ax_u64 producers[16]
        ax_u64 readers[16]
        ax_u64 durables
        ax_u64 drained
        ax_u64 over
        ax_event data
        ax_event space

    ctypedef struct ax_reader:
        ax_u64 cursor
        ax_u32 policy
        ax_u32 owner
        ax_u64 received
        ax_u64 dropped
        ax_u64 joined
        ax_u64 detached_ns
        ax_u64 timeout_ns
        ax_u64 last_ns
        char name[64]

    ctypedef struct ax_slot:
        ax_u64 word
        ax_u32 at
        ax_u32 reserved
        ax_u64 bytes

    int AX_SLOT_LEASED, AX_SLOT_RETRY, AX_SLOT_GROWING, AX_MESSAGE_LARGE, AX_MESSAGE_NUMBERED, AX_MESSAGE_CHUNK
    int AX_QUEUE_FRAMES

    ctypedef struct ax_queue:
        uint64_t slots
        uint64_t stride
        uint64_t lease_ns
        uint32_t participants
        ax_u64 tail
        ax_u64 head
        ax_u32 hint
        ax_u32 has_larges
        ax_event data
        ax_event space

    ctypedef struct ax_tally:
        ax_u64 put
        ax_u64 put_bytes
        ax_u64 acknowledged
        ax_u64 redelivered
        ax_u64 refused
        ax_u64 stalled_ns
        ax_u64 stalled_since_ns
        ax_u64 lost
        ax_u64 corrupt
        ax_u64 last_put_ns
        ax_u64 last_get_ns

    ctypedef struct ax_message:
        ax_u64 word
        ax_u64 left
        ax_u64 id
        ax_u64 deadline_ns
        ax_u32 bytes
        ax_u32 frames
        ax_u32 flags
        ax_u32 failures

    int AX_CHUNK_FREE, AX_CHUNK_FILLING, AX_CHUNK_GIVEN, AX_CHUNK_CLASSES, AX_CHUNK_GRAIN, AX_ARENA_CHUNKS

    ctypedef struct ax_arena:
        uint64_t chunks
        uint64_t bytes
        uint32_t participants
        ax_u32 cut
        ax_u64 free[48]

    ctypedef struct ax_ticket:
        uint64_t chunk
        uint64_t at
        uint64_t bytes
