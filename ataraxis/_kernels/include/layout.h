/* Shared memory layout that kernels use; see docs/explanation/memory.md.
 * shm/header.py packs and validates the header page. */
#ifndef AX_LAYOUT_H
#define AX_LAYOUT_H

#include <stddef.h>
#include "atomics.h"

#define AX_PAGE 4096
#define AX_LIVE_OFFSET 0x800       /* ax_live, in the header page */
#define AX_PARTICIPANTS_OFFSET AX_PAGE
#define AX_MAX_PARTICIPANTS 1024
#define AX_LABEL_BYTES 24

/* Kinds of segments. */
enum { AX_KIND_ARRAY = 1, AX_KIND_STREAM = 2, AX_KIND_QUEUE = 3, AX_KIND_FRAMEBUFFER = 4, AX_KIND_ARENA = 5, AX_KIND_LIMIT = 8 };

/* Statuses of kernels. Each room turns those other than FULL and EMPTY into exceptions in one place. */
enum {
    AX_OK = 0, AX_FULL = -1, AX_EMPTY = -2, AX_LAPPED = -3, AX_ENDED = -4, AX_DEAD = -5, AX_TIMEOUT = -6,
    AX_BUSY = -7, AX_TORN = -8, AX_RETIRED = -9, AX_CROWDED = -10, AX_OVERFLOW = -11, AX_KEPT = -12, AX_DAMAGED = -13
};

/* The only words of the header page that change after publication. Writers: creator, unlinker, reapers. */
enum { AX_READY = 1, AX_RETIRED_STATE = 2 };
typedef struct {
    ax_u32 state;        /* AX_READY or AX_RETIRED_STATE */
    ax_u32 kept;         /* not 0: holds undelivered frames; never reclaimed as stale */
    ax_u64 recoveries;   /* dead participants that were cleaned up */
} ax_live;
_Static_assert(offsetof(ax_live, state) == 0 && offsetof(ax_live, kept) == 4 && offsetof(ax_live, recoveries) == 8, "ax_live");

/* One participant. Its byte in the file (AX_BYTES + slot) is locked by the kernel for as long as its
 * owner's address space lives; this entry only records that a clean-up is due. */
enum { AX_FREE = 0, AX_ACTIVE = 1 };
typedef struct {
    ax_u32 state;
    uint32_t role;                /* bits that the kind defines */
    uint64_t nonce;               /* differs for each tenant of the slot */
    int64_t attach_ns;            /* CLOCK_MONOTONIC */
    int32_t pid;                  /* for messages only, never for decisions */
    uint32_t uid;
    char label[AX_LABEL_BYTES];
    uint64_t reserved;
} ax_participant;
_Static_assert(sizeof(ax_participant) == 64, "ax_participant");
_Static_assert(offsetof(ax_participant, nonce) == 8 && offsetof(ax_participant, pid) == 24 &&
               offsetof(ax_participant, label) == 32, "ax_participant");

/* The lock and its write section: everything in it is written by the lock's owner, so it
 * shares one line. lock = WAITERS | CHANGE | owner, owner = slot + 1, 0 free. */
#define AX_LOCK_WAITERS 0x80000000u   /* a thread sleeps on `lock` */
#define AX_LOCK_CHANGE 0x40000000u    /* a thread sleeps on `event` */
#define AX_LOCK_OWNER 0x0000FFFFu
typedef struct {
    _Alignas(128) ax_u32 lock;
    ax_u32 health;        /* 1: a writer died during a write and the data are not healed; 2: the lock was shared */
    ax_u64 version;       /* seqlock: odd inside a write section; + 2 per commit */
    ax_u32 dirty;         /* the owner may have written partly */
    ax_u32 torn_pid;      /* for messages: the writer that died */
    ax_u64 recoveries;    /* times the lock was taken from a dead owner */
    ax_u64 torn;          /* times data were left partly written */
    ax_u64 unlocked;      /* writes made without the lock; added atomically by each writer */
    ax_u32 event;         /* futex of threads that wait for a change: counts wake-ups */
} ax_guard;
_Static_assert(sizeof(ax_guard) == 128, "one line");
_Static_assert(offsetof(ax_guard, lock) == 0 && offsetof(ax_guard, health) == 4 && offsetof(ax_guard, version) == 8 &&
               offsetof(ax_guard, dirty) == 16 && offsetof(ax_guard, recoveries) == 24 && offsetof(ax_guard, torn) == 32 &&
               offsetof(ax_guard, unlocked) == 40 && offsetof(ax_guard, event) == 48,
               "ax_guard");

/* The frame buffer's ring of chunks. `head` counts every byte ever handed out, skipped tails included: the chunk at
 * position p has offset p % capacity, and is whole until head passes p + capacity. */
#define AX_SECTORS 128
#define AX_LAP_MASK 0xFFFu
typedef struct {
    _Alignas(128) ax_u64 head;     /* writers: allocators, by CAS */
    ax_u64 chunks;                 /* chunks handed out; same writers, after head */
    _Alignas(128) ax_u32 server;   /* slot + 1 of the server, 0 none; writer: the server, or its reaper */
    _Alignas(128) ax_u64 stamps[AX_SECTORS]; /* when head last passed the start of each 128th: ns, low 12 bits the lap */
} ax_framebuffer;
_Static_assert(sizeof(ax_framebuffer) == 256 + 8 * AX_SECTORS, "ax_framebuffer");
_Static_assert(offsetof(ax_framebuffer, head) == 0 && offsetof(ax_framebuffer, chunks) == 8 &&
               offsetof(ax_framebuffer, server) == 128 && offsetof(ax_framebuffer, stamps) == 256, "ax_framebuffer");
/* A stream. Control block: ax_stream, then a reader line per participant and per durable name, then a
 * control line per slot. Payload: the slots; payload bytes start at AX_PAYLOAD_AT of a slot, headers end there. */
enum { AX_SLOT_FREE = 0, AX_SLOT_WRITING = 1, AX_SLOT_READY = 2, AX_SLOT_SKIP = 3 };
enum { AX_CURSOR_IDLE = 0, AX_CURSOR_GATING = 1, AX_CURSOR_DETACHED = 2, AX_CURSOR_WATCHING = 3 };
enum { AX_POLICY_LOSSLESS = 0, AX_POLICY_LOSSY = 1, AX_POLICY_LATEST = 2, AX_POLICY_JOINING = 0x100 };
enum { AX_STREAM_SHARED = 1, AX_STREAM_SYNC = 2, AX_STREAM_TYPED = 4,
       AX_STREAM_RESUMABLE = 8 };  /* ends when `over` is set, not when its producer dies */
#define AX_DURABLES 16
#define AX_MASK_WORDS (AX_MAX_PARTICIPANTS / 64)
#define AX_PAYLOAD_AT 192          /* header 64, extents 64, device stamp 16, origin 24, aligned */

/* An eventcount. Sleepers are named, so that a dead one costs only wake-ups. */
typedef struct {
    _Alignas(128) ax_u32 count;                        /* futex; writers: signallers */
    _Alignas(128) ax_u64 sleepers[AX_MASK_WORDS];      /* a bit per participant; writers: sleepers */
} ax_event;
_Static_assert(sizeof(ax_event) == 256 && offsetof(ax_event, sleepers) == 128, "ax_event");

typedef struct {
    /* Written before publication, read once. */
    _Alignas(128) uint64_t slots;
    uint64_t stride;                                   /* bytes from slot to slot */
    uint64_t capacity;                                 /* payload bytes of a slot */
    uint64_t control_stride;                           /* bytes from control line to control line */
    uint32_t participants;
    uint32_t flags;                                    /* AX_STREAM_* */
    uint64_t reserved;
    /* Next position to claim, or one behind while it is claimed. Writers: producers. */
    _Alignas(128) ax_u64 tail;
    ax_u64 announced;                                  /* no producer claims at or above it without reading the cursors */
    /* Statistics of producers. */
    _Alignas(128) ax_u64 sent;                         /* frames published; one producer: number of the next frame */
    ax_u64 sent_bytes;
    ax_u64 last_ns;                                    /* time of the last frame */
    ax_u64 stalled_ns;                                 /* time spent waiting for readers */
    ax_u64 stalled_since_ns;                           /* 0: not waiting now */
    ax_u64 refused;                                    /* frames dropped because of on_full */
    ax_u64 skipped;                                    /* positions passed over for a pin */
    ax_u64 gaps;                                       /* frames missing in the device counter */
    ax_u64 absent;                                     /* numbers below `sent` of frames that were never published here */
    /* Roles: a bit per participant. */
    _Alignas(128) ax_u64 producers[AX_MASK_WORDS];
    _Alignas(128) ax_u64 readers[AX_MASK_WORDS];
    _Alignas(128) ax_u64 durables;                     /* a bit per durable name */
    ax_u64 drained;                                    /* the position up to which a reader has read everything */
    ax_u64 over;                                       /* 1: a stream that can be resumed was ended */
    ax_event data;
    ax_event space;
} ax_stream;
_Static_assert(offsetof(ax_stream, tail) == 128 && offsetof(ax_stream, sent) == 256 &&
               offsetof(ax_stream, absent) == 320 && offsetof(ax_stream, producers) == 384 && offsetof(ax_stream, readers) == 512 &&
               offsetof(ax_stream, durables) == 640 && offsetof(ax_stream, over) == 656 && offsetof(ax_stream, data) == 768 &&
               offsetof(ax_stream, space) == 1024 && sizeof(ax_stream) == 1280, "ax_stream");

/* One reader. Writer: the reader; after its death, the owner of its byte. */
typedef struct {
    _Alignas(128) ax_u64 cursor;                       /* position << 2 | AX_CURSOR_*: all before it is done */
    ax_u32 policy;
    ax_u32 owner;                                      /* durable lines: participant + 1, 0 none */
    ax_u64 received;
    ax_u64 dropped;
    ax_u64 joined;                                     /* first sequence that counts */
    ax_u64 detached_ns;                                /* durable: time at which the reader left */
    ax_u64 timeout_ns;                                 /* durable: how long it may stay away */
    ax_u64 last_ns;
    char name[64];                                     /* label or durable name, UTF-8, zero-padded */
} ax_reader;
_Static_assert(sizeof(ax_reader) == 128 && offsetof(ax_reader, owner) == 12 && offsetof(ax_reader, name) == 64, "ax_reader");

/* The control line of a slot; pins follow at AX_PINS_AT, a bit per participant. */
#define AX_PINS_AT 64
typedef struct {
    ax_u64 word;                                       /* lap << 16 | owner << 3 | AX_SLOT_* */
    ax_u32 at;                                         /* where the frame begins in its slot */
    ax_u32 reserved;
    ax_u64 bytes;                                      /* payload bytes */
} ax_slot;
_Static_assert(sizeof(ax_slot) <= AX_PINS_AT && offsetof(ax_slot, bytes) == 16, "ax_slot");

/* A work queue. Control block: ax_queue, then a tally per participant, then a line per slot. Payload: the slots, each with
 * one frame or several, back to back, every one padded to AX_FRAME_PAD. Position p lies in slot p % n, lap p / n + 1. */
enum { AX_SLOT_LEASED = 4, AX_SLOT_RETRY = 5, AX_SLOT_GROWING = 6 };
enum { AX_MESSAGE_LARGE = 1,       /* the name of a segment that holds the frame */
       AX_MESSAGE_NUMBERED = 2,    /* whose number is the slot's, not its own */
       AX_MESSAGE_CHUNK = 4 };     /* an ax_ticket: the frame lies in a chunk of the arena */
#define AX_QUEUE_FRAMES 64         /* most frames in a slot, a bit each */
typedef struct {
    /* Written before publication, read once. */
    _Alignas(128) uint64_t slots;
    uint64_t stride;                                   /* bytes from slot to slot */
    uint64_t lease_ns;                                 /* how long a lease lasts, 0: until it is acknowledged */
    uint32_t participants;
    uint32_t reserved;
    _Alignas(128) ax_u64 tail;                         /* next position to claim, or behind it. Writers: putters, which help each other */
    _Alignas(128) ax_u64 head;                         /* next position to lease, or behind it. Writers: putters and getters */
    ax_u32 hint;                                       /* not 0: a slot may be RETRY, look from hint - 1 on */
    ax_u32 has_larges;                                 /* 1: an arena, or a segment of a large frame, was made. Writers: putters, before that */
    ax_event data;
    ax_event space;
} ax_queue;
_Static_assert(offsetof(ax_queue, tail) == 128 && offsetof(ax_queue, head) == 256 && offsetof(ax_queue, hint) == 264 &&
               offsetof(ax_queue, has_larges) == 268 &&
               offsetof(ax_queue, data) == 384 && offsetof(ax_queue, space) == 640 && sizeof(ax_queue) == 896, "ax_queue");

/* Counters of a participant; the next owner of its slot continues them. Writer: the participant. */
typedef struct {
    _Alignas(128) ax_u64 put;                          /* frames */
    ax_u64 put_bytes;
    ax_u64 acknowledged;                               /* frames */
    ax_u64 redelivered;                                /* slots leased again after a failure */
    ax_u64 refused;                                    /* puts that found no room and did not wait */
    ax_u64 stalled_ns;                                 /* time spent waiting for room */
    ax_u64 stalled_since_ns;                           /* 0: not waiting now */
    ax_u64 lost;                                       /* leases that ran out before the acknowledgement */
    ax_u64 corrupt;                                    /* damaged frames */
    ax_u64 last_put_ns;
    ax_u64 last_get_ns;
} ax_tally;
_Static_assert(sizeof(ax_tally) == 128 && offsetof(ax_tally, refused) == 32 && offsetof(ax_tally, last_get_ns) == 80, "ax_tally");

/* The control line of a slot. Writer: the owner of the word: putter, then lease holder, then cleaner. */
typedef struct {
    _Alignas(64) ax_u64 word;                          /* lap << 20 | lease << 13 | owner << 3 | AX_SLOT_* */
    ax_u64 left;                                       /* a bit per frame not yet acknowledged */
    ax_u64 id;                                         /* the position it was put at: stays when the lap is bumped */
    ax_u64 deadline_ns;                                /* when the lease runs out, 0 never */
    ax_u32 bytes;                                      /* of all frames, padding included */
    ax_u32 frames;
    ax_u32 flags;                                      /* AX_MESSAGE_* */
    ax_u32 failures;                                   /* leases that ended without an acknowledgement */
} ax_message;
_Static_assert(sizeof(ax_message) == 64 && offsetof(ax_message, id) == 16 && offsetof(ax_message, bytes) == 32, "ax_message");

/* The arena of a queue: chunks for frames larger than a slot, in a segment of its own. Control block: ax_arena, then arrays
 * with an element per chunk, each array at a multiple of 128 bytes: words, extents, next (u32), listed (u32), and the pins, a
 * bit per participant. Payload: the chunks, cut from it one after the other. The frame in a chunk begins before
 * AX_PAYLOAD_AT, so that its payload begins there. */
enum { AX_CHUNK_FREE = 0,          /* 0 */
       AX_CHUNK_FILLING = 1,       /* participant << 2 | FILLING */
       AX_CHUNK_GIVEN = 2 };       /* position << 2 | GIVEN: of the slot at this position of the queue */
#define AX_CHUNK_CLASSES 48        /* of sizes: class 2k has (16 KiB << k) + 8 KiB, class 2k + 1 (24 KiB << k) + 8 KiB */
#define AX_CHUNK_GRAIN 8192        /* every size and offset is a multiple of it */
#define AX_ARENA_CHUNKS 65536      /* most chunks */
typedef struct {
    /* Written before publication, read once. */
    _Alignas(128) uint64_t chunks;                     /* most chunks */
    uint64_t bytes;                                    /* of all chunks together */
    uint32_t participants;
    uint32_t reserved;
    _Alignas(128) ax_u32 cut;                          /* chunks cut so far, or fewer: a hint. Writers: putters */
    _Alignas(128) ax_u64 free[AX_CHUNK_CLASSES];       /* per class, a hint: the chunk freed last, tag << 32 | chunk + 1 */
} ax_arena;
_Static_assert(sizeof(ax_arena) == 640 && offsetof(ax_arena, bytes) == 8 && offsetof(ax_arena, participants) == 16 &&
               offsetof(ax_arena, cut) == 128 && offsetof(ax_arena, free) == 256, "ax_arena");

/* What a slot holds of a frame in a chunk. */
typedef struct {
    uint64_t chunk;
    uint64_t at;                                       /* where the frame begins in its chunk */
    uint64_t bytes;                                    /* of the frame, header included */
} ax_ticket;
_Static_assert(sizeof(ax_ticket) == 24 && offsetof(ax_ticket, bytes) == 16, "ax_ticket");

#endif
