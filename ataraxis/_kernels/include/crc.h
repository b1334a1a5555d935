/* CRC-32 (IEEE, as zlib's) for frames in files; fast for short frames too.
 *
 * x86-64 folds 64 bytes at a time by carry-less multiplication (V. Gopal et al., "Fast CRC Computation for
 * Generic Polynomials Using PCLMULQDQ", Intel 2009), 256 bytes at a time where vectors of 512 bits multiply so too, and
 * then copies in the same pass; aarch64 has an instruction; elsewhere slicing by 8. */
#ifndef AX_CRC_H
#define AX_CRC_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "atomics.h"
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

#define AX_CRC_BYTES 1024           /* longer payloads use the subclass's checksum, which is faster there, unless ax_crc_is_wide */
#define AX_CRC_POLYNOMIAL 0xEDB88320u

static uint32_t ax_crc_table[8][256];
static int ax_crc_folds;
static int ax_crc_is_wide;          /* 512 bits at a time */

/* Call once, at import, before another thread can use the module. */
static inline void ax_crc_init(void)
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++)
            c = c & 1 ? (c >> 1) ^ AX_CRC_POLYNOMIAL : c >> 1;
        ax_crc_table[0][i] = c;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int k = 1; k < 8; k++)
            ax_crc_table[k][i] = (ax_crc_table[k - 1][i] >> 8) ^ ax_crc_table[0][ax_crc_table[k - 1][i] & 255];
#if defined(__x86_64__)
    __builtin_cpu_init();
    ax_crc_folds = __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
    ax_crc_is_wide = ax_crc_folds && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                     __builtin_cpu_supports("vpclmulqdq");
#endif
}

/* The functions below take and return the register itself, not zlib's complement of it. */
static inline uint32_t ax_crc_bytes(uint32_t state, const unsigned char *p, size_t n)
{
#if defined(__ARM_FEATURE_CRC32)
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        state = __crc32d(state, word);
    }
    for (; n; n--)
        state = __crc32b(state, *p++);
#else
    for (; n >= 8; n -= 8, p += 8) {
        uint32_t a, b;
        memcpy(&a, p, 4);
        memcpy(&b, p + 4, 4);
        a ^= state;
        state = ax_crc_table[7][a & 255] ^ ax_crc_table[6][(a >> 8) & 255] ^ ax_crc_table[5][(a >> 16) & 255] ^
                ax_crc_table[4][a >> 24] ^ ax_crc_table[3][b & 255] ^ ax_crc_table[2][(b >> 8) & 255] ^
                ax_crc_table[1][(b >> 16) & 255] ^ ax_crc_table[0][b >> 24];
    }
    for (; n; n--)
        state = (state >> 8) ^ ax_crc_table[0][(state ^ *p++) & 255];
#endif
    return state;
}

#if defined(__x86_64__)
#define AX_FOLD(x, k, next) \
    _mm_xor_si128(_mm_xor_si128(_mm_clmulepi64_si128(x, k, 0x00), _mm_clmulepi64_si128(x, k, 0x11)), next)
#define AX_LOAD(p) _mm_loadu_si128((const __m128i *)(p))

#define AX_FOLDING __attribute__((target("pclmul,sse4.1"))) static inline

AX_FOLDING __m128i ax_crc_join(__m128i a, __m128i b, __m128i c, __m128i d)
{
    const __m128i by1 = _mm_set_epi64x(0x00ccaa009e, 0x01751997d0);
    a = AX_FOLD(a, by1, b);
    a = AX_FOLD(a, by1, c);
    return AX_FOLD(a, by1, d);
}

AX_FOLDING uint32_t ax_crc_reduce(__m128i a)
{
    const __m128i by1 = _mm_set_epi64x(0x00ccaa009e, 0x01751997d0);
    const __m128i last = _mm_set_epi64x(0, 0x0163cd6124);
    const __m128i barrett = _mm_set_epi64x(0x01f7011641, 0x01db710641);
    const __m128i low = _mm_setr_epi32(~0, 0, ~0, 0);
    __m128i t;
    a = _mm_xor_si128(_mm_srli_si128(a, 8), _mm_clmulepi64_si128(a, by1, 0x10));
    a = _mm_xor_si128(_mm_srli_si128(a, 4), _mm_clmulepi64_si128(_mm_and_si128(a, low), last, 0x00));
    t = _mm_and_si128(_mm_clmulepi64_si128(_mm_and_si128(a, low), barrett, 0x10), low);
    a = _mm_xor_si128(a, _mm_clmulepi64_si128(t, barrett, 0x00));
    return (uint32_t)_mm_extract_epi32(a, 1);
}

/* n: a multiple of 16, at least 64. */
AX_FOLDING uint32_t ax_crc_fold(uint32_t state, const unsigned char *p, size_t n)
{
    const __m128i by4 = _mm_set_epi64x(0x01c6e41596, 0x0154442bd4);
    const __m128i by1 = _mm_set_epi64x(0x00ccaa009e, 0x01751997d0);
    __m128i a = _mm_xor_si128(AX_LOAD(p), _mm_cvtsi32_si128((int)state));
    __m128i b = AX_LOAD(p + 16), c = AX_LOAD(p + 32), d = AX_LOAD(p + 48);
    for (p += 64, n -= 64; n >= 64; p += 64, n -= 64) {
        a = AX_FOLD(a, by4, AX_LOAD(p));
        b = AX_FOLD(b, by4, AX_LOAD(p + 16));
        c = AX_FOLD(c, by4, AX_LOAD(p + 32));
        d = AX_FOLD(d, by4, AX_LOAD(p + 48));
    }
    a = ax_crc_join(a, b, c, d);
    for (; n; p += 16, n -= 16)
        a = AX_FOLD(a, by1, AX_LOAD(p));
    return ax_crc_reduce(a);
}

#define AX_WIDE __attribute__((target("avx512f,avx512vl,vpclmulqdq,pclmul,sse4.1"))) static inline
#define AX_FOLD_WIDE(x, k, next) \
    _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(x, k, 0x00), _mm512_clmulepi64_epi128(x, k, 0x11), next, 0x96)

/* The next 64 bytes, which are also stored at `*to` if that is not NULL. */
AX_WIDE __m512i ax_crc_pass(const unsigned char **p, unsigned char **to)
{
    __m512i x = _mm512_loadu_si512((const void *)*p);
    *p += 64;
    if (*to) {
        _mm512_storeu_si512((void *)*to, x);
        *to += 64;
    }
    return x;
}

/* n: a multiple of 64, at least 256. */
AX_WIDE uint32_t ax_crc_wide(uint32_t state, unsigned char *to, const unsigned char *p, size_t n)
{
    const __m512i by16 = _mm512_broadcast_i32x4(_mm_set_epi64x(0x01322d1430, 0x011542778a));
    const __m512i by4 = _mm512_broadcast_i32x4(_mm_set_epi64x(0x01c6e41596, 0x0154442bd4));
    __m512i a = _mm512_xor_si512(ax_crc_pass(&p, &to), _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)state)));
    __m512i b = ax_crc_pass(&p, &to), c = ax_crc_pass(&p, &to), d = ax_crc_pass(&p, &to);
    for (n -= 256; n >= 256; n -= 256) {
        a = AX_FOLD_WIDE(a, by16, ax_crc_pass(&p, &to));
        b = AX_FOLD_WIDE(b, by16, ax_crc_pass(&p, &to));
        c = AX_FOLD_WIDE(c, by16, ax_crc_pass(&p, &to));
        d = AX_FOLD_WIDE(d, by16, ax_crc_pass(&p, &to));
    }
    b = AX_FOLD_WIDE(a, by4, b);
    c = AX_FOLD_WIDE(b, by4, c);
    d = AX_FOLD_WIDE(c, by4, d);
    for (; n; n -= 64)
        d = AX_FOLD_WIDE(d, by4, ax_crc_pass(&p, &to));
    return ax_crc_reduce(ax_crc_join(_mm512_extracti32x4_epi32(d, 0), _mm512_extracti32x4_epi32(d, 1),
                                     _mm512_extracti32x4_epi32(d, 2), _mm512_extracti32x4_epi32(d, 3)));
}

/* CRC of four bytes in front of a header's 60, in registers. */
AX_FOLDING uint32_t ax_crc_fold_header(uint32_t front, const unsigned char *p)
{
    __m128i a = _mm_or_si128(_mm_slli_si128(AX_LOAD(p), 4), _mm_cvtsi32_si128((int)front));
    return ax_crc_reduce(ax_crc_join(a, AX_LOAD(p + 12), AX_LOAD(p + 28), AX_LOAD(p + 44)));
}
#endif

/* As zlib's crc32(). */
static inline uint32_t ax_crc32(uint32_t crc, const void *data, size_t n)
{
    const unsigned char *p = data;
    uint32_t state = ~crc;
#if defined(__x86_64__)
    if (n >= 256 && ax_crc_is_wide) {
        size_t whole = n & ~(size_t)63;
        state = ax_crc_wide(state, NULL, p, whole);
        p += whole;
        n -= whole;
    }
    if (n >= 64 && ax_crc_folds) {
        size_t whole = n & ~(size_t)15;
        state = ax_crc_fold(state, p, whole);
        p += whole;
        n -= whole;
    }
#endif
    return ~ax_crc_bytes(state, p, n);
}

/* Copy between private memory and shared payload as ax_copy, and continue the CRC by what was copied. */
static inline uint32_t ax_copy_crc32(uint32_t crc, void *to, const void *from, size_t n)
{
#if defined(__x86_64__) && !defined(AX_TSAN) && !defined(AX_PLANT_OVERRUN)
    if (n >= 256 && ax_crc_is_wide) {
        size_t whole = n & ~(size_t)63;
        uint32_t state = ax_crc_wide(~crc, (unsigned char *)to, (const unsigned char *)from, whole);
        memcpy((char *)to + whole, (const char *)from + whole, n - whole);
        return ~ax_crc_bytes(state, (const unsigned char *)to + whole, n - whole);
    }
#endif
    ax_copy(to, from, n);
    return ax_crc32(crc, to, n);
}

/* A header's CRC covers 60 bytes and continues from a seed. Where folding is available, four bytes are put in front that
 * bring the empty register to that seed, to make 64 bytes: they are the seed run backwards. */
typedef struct { uint32_t seed, front; } ax_seal;

static inline ax_seal ax_seal_of(uint32_t seed)
{
    ax_seal seal = { seed, ~seed };
    for (int k = 0; k < 32; k++)
        seal.front = seal.front & 0x80000000u ? ((seal.front ^ AX_CRC_POLYNOMIAL) << 1) | 1 : seal.front << 1;
    return seal;
}

static inline uint32_t ax_header_crc(ax_seal seal, const void *header)
{
#if defined(__x86_64__)
    if (ax_crc_folds)
        return ~ax_crc_fold_header(seal.front, header);
#endif
    return ax_crc32(seal.seed, header, 60);
}

#endif
