/* Layout of a journal and its index, and how frames are grouped into runs; see docs/explanation/formats.md. */
#ifndef AX_JOURNAL_H
#define AX_JOURNAL_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include <unistd.h>
#include "crc.h"
#include "frame.h"

#define AX_CONTROL 0xFFFFFFFFu     /* source id of the journal's own records */
#define AX_SEVERAL 0xFFFFFFFFu     /* source of a run with more than one source */
#define AX_RUN_FRAMES 65536        /* most frames of one size in a run */
#define AX_WALK_FRAMES 1024        /* most frames of mixed sizes in a run */
#define AX_WALK_BEGINS 16          /* a shorter run accepts frames of other sizes */

/* One entry of the index: frames back to back. */
enum { AX_RUN_DATA = 0, AX_RUN_CONTROL = 1, AX_RUN_DAMAGE = 2 };
typedef struct {
    uint64_t offset;               /* of the first byte in the file */
    uint64_t bytes;                /* padding included */
    uint32_t count;                /* frames; 0 for damage */
    uint32_t stride;               /* bytes from frame to frame; 0: mixed sizes, follow the lengths */
    int64_t time_min, time_max;    /* ns */
    uint64_t sequence;             /* of the first frame */
    uint32_t source;               /* of all frames, or AX_SEVERAL */
    uint16_t kind;                 /* AX_RUN_* */
    uint16_t padding;              /* 1 + the zeros after each frame, if all have one length and kind; else 0 */
    uint32_t alike;                /* that kind: bytes 4 to 7 of every header, dtype, ndim and flags; else 0 */
    uint32_t crc;                  /* of bytes 0 to 59, continued from the file's uuid */
} ax_run;
_Static_assert(sizeof(ax_run) == 64 && offsetof(ax_run, count) == 16 && offsetof(ax_run, time_min) == 24 &&
               offsetof(ax_run, sequence) == 40 && offsetof(ax_run, source) == 48 && offsetof(ax_run, kind) == 52 &&
               offsetof(ax_run, padding) == 54 && offsetof(ax_run, alike) == 56 && offsetof(ax_run, crc) == 60, "ax_run");

/* One listed frame or gap; in memory only. */
enum { AX_ENTRY_GOOD = 0, AX_ENTRY_LOST = 1, AX_ENTRY_BROKEN = 2, AX_ENTRY_CUT = 3 };
typedef struct {
    uint64_t offset;               /* of the header; lost: of the gap */
    uint64_t bytes;                /* after the header; lost: of the gap */
    int64_t time_ns;
    uint64_t sequence;
    uint32_t source;
    uint32_t labels;
    uint8_t dtype;
    uint8_t ndim;
    uint16_t flags;
    uint32_t state;                /* AX_ENTRY_* */
} ax_entry;
_Static_assert(sizeof(ax_entry) == 48 && offsetof(ax_entry, source) == 32 && offsetof(ax_entry, state) == 44, "ax_entry");

/* Add a frame to the last of `count` runs, or to a new one. Returns the new count.
 *
 * Frames of one padded size may differ in length or kind. A short run forgets them when such a frame comes; a longer one
 * ends, so that the samples of its frames are still known from one header. */
static inline size_t ax_run_add(ax_run *runs, size_t closed, size_t count, uint64_t offset, uint64_t bytes,
                                const ax_frame *head)
{
    uint16_t kind = head->source == AX_CONTROL ? AX_RUN_CONTROL : AX_RUN_DATA;
    uint64_t zeros = bytes - sizeof *head - head->length;
    uint16_t padding = bytes <= UINT32_MAX && zeros < AX_FRAME_PAD ? (uint16_t)(1 + zeros) : 0;
    uint32_t alike = 0;
    ax_run *run = runs + count - 1;
    if (padding)
        memcpy(&alike, (const char *)head + 4, sizeof alike);
    if (count > closed && run->kind == kind && run->offset + run->bytes == offset && bytes <= UINT32_MAX) {
        int is_same = run->stride == bytes && run->padding == padding && run->alike == alike;
        uint32_t most = run->stride == 0 ? AX_WALK_FRAMES
                        : is_same || (run->stride == bytes && run->padding == 0) ? AX_RUN_FRAMES : AX_WALK_BEGINS;
        if (run->count < most) {
            run->stride = run->stride == bytes ? run->stride : 0;
            run->padding = is_same ? padding : 0;
            run->alike = is_same ? alike : 0;
            run->bytes += bytes;
            run->count++;
            run->time_min = head->time_ns < run->time_min ? head->time_ns : run->time_min;
            run->time_max = head->time_ns > run->time_max ? head->time_ns : run->time_max;
            run->source = run->source == head->source ? run->source : AX_SEVERAL;
            return count;
        }
    }
    run = runs + count;
    memset(run, 0, sizeof *run);
    run->offset = offset;
    run->bytes = bytes;
    run->count = 1;
    run->stride = bytes <= UINT32_MAX ? (uint32_t)bytes : 0;
    run->padding = padding;
    run->alike = alike;
    run->time_min = run->time_max = head->time_ns;
    run->sequence = head->sequence;
    run->source = head->source;
    run->kind = kind;
    return count + 1;
}

/* Write everything at offset `at`, in as many calls as needed; 0 or -errno. */
static inline int ax_write_all(int fd, struct iovec *pieces, int count, uint64_t at)
{
    while (count) {
        ssize_t done = pwritev(fd, pieces, count, (off_t)at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return done < 0 ? -errno : -ENOSPC;
        at += (uint64_t)done;
        while (count && (size_t)done >= pieces->iov_len) {
            done -= (ssize_t)pieces->iov_len;
            pieces++;
            count--;
        }
        if (count) {
            pieces->iov_base = (char *)pieces->iov_base + done;
            pieces->iov_len -= (size_t)done;
        }
    }
    return 0;
}

#endif
