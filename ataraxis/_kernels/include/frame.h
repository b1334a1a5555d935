/* The frame header, its flags and dtype codes, as ataraxis.frame writes them; see docs/explanation/formats.md.
 * tests/frame/test_frame_header.py compares both. */
#ifndef AX_FRAME_H
#define AX_FRAME_H

#include <stddef.h>
#include <stdint.h>

#define AX_FRAME_MAGIC "AXF1"
#define AX_FRAME_PAD 64            /* frames are padded to it: in slots, drained buffers and files */
#define AX_EXTENTS_BYTES 64        /* the extensions, in the order in which they follow the header */
#define AX_STAMP_BYTES 16
#define AX_ORIGIN_BYTES 24

typedef struct {
    char magic[4];
    uint8_t dtype;                                     /* AX_DTYPE_* */
    uint8_t ndim;
    uint16_t flags;                                    /* AX_FLAG_* */
    uint64_t length;                                   /* extensions and payload */
    uint64_t sequence;
    int64_t time_ns;
    uint32_t extents[4];
    uint32_t source;
    uint32_t crc;
    uint32_t labels;
    uint32_t header_crc;                               /* set where the frame leaves a stream. Within one: how many numbers before it had no frame, for mirrors */
} ax_frame;
_Static_assert(sizeof(ax_frame) == 64 && offsetof(ax_frame, extents) == 32 && offsetof(ax_frame, header_crc) == 60, "ax_frame");

enum {
    AX_FLAG_CHECKSUM = 1,          /* crc covers everything after the header */
    AX_FLAG_END_OF_STREAM = 2,
    AX_FLAG_PICKLED = 4,
    AX_FLAG_EXTENTS = 8,           /* more than four dimensions, or long ones: after the header */
    AX_FLAG_DEVICE_STAMP = 16,
    AX_FLAG_DEVICE_UNSIGNED = 32,
    AX_FLAG_ORIGIN = 64,           /* the pipeline value it was made from */
    AX_FLAG_SESSION_EVENT = 128
};

/* Dtype codes that kernels write or read. */
enum {
    AX_DTYPE_RAW = 0, AX_DTYPE_U8 = 1, AX_DTYPE_U16 = 2, AX_DTYPE_U32 = 3, AX_DTYPE_U64 = 4, AX_DTYPE_STR = 5,
    AX_DTYPE_I8 = 10, AX_DTYPE_I16 = 11, AX_DTYPE_I32 = 12, AX_DTYPE_I64 = 13, AX_DTYPE_F16 = 14, AX_DTYPE_F32 = 15,
    AX_DTYPE_F64 = 16, AX_DTYPE_C64 = 17, AX_DTYPE_C128 = 18, AX_DTYPE_BOOL = 19, AX_DTYPE_NONE = 20, AX_DTYPE_INT = 21
};

static inline uint64_t ax_padded(uint64_t bytes)
{
    return (bytes + AX_FRAME_PAD - 1) / AX_FRAME_PAD * AX_FRAME_PAD;
}

/* Bytes of the extensions that the flags name. */
static inline uint32_t ax_front_bytes(uint32_t flags)
{
    return (flags & AX_FLAG_EXTENTS ? AX_EXTENTS_BYTES : 0) + (flags & AX_FLAG_DEVICE_STAMP ? AX_STAMP_BYTES : 0) +
           (flags & AX_FLAG_ORIGIN ? AX_ORIGIN_BYTES : 0);
}

#endif
