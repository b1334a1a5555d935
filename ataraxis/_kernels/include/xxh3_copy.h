/* XXH3-64 (its published specification, seed 0, default secret) of more than AX_MOVE_SHORT bytes, while they are copied:
 * one pass over memory, with AVX2 or AVX-512. The xxhash library hashes everything else; tests compare
 * both at every size.
 *
 * The stored bytes are hashed: each stripe is loaded once, into a register that the compiler cannot reload
 * (the empty asm), then stored and hashed from there, because the source may be shared and change. */
#ifndef AX_XXH3_COPY_H
#define AX_XXH3_COPY_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "atomics.h"

#define AX_MOVE_SHORT 240

/* Copy n > AX_MOVE_SHORT bytes; returns the hash of the copy. `mine` is the private one of the two: the last stripe
 * overlaps others and is loaded from there. */
typedef uint64_t (*ax_mover)(char *to, const char *from, size_t n, const char *mine);

/* ThreadSanitizer wants atomic copies of shared bytes. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(AX_TSAN)
#include <immintrin.h>

#define AX_STRIPE 64                /* bytes; each uses the secret 8 bytes further on */
#define AX_BLOCK (16 * AX_STRIPE)   /* the sums are scrambled after each */
#define AX_PRIME32_1 0x9E3779B1u
#define AX_PRIME64_1 0x9E3779B185EBCA87u

static const uint8_t ax_secret[192] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
};
static const uint64_t ax_sums[8] = {
    0xC2B2AE3Du, AX_PRIME64_1, 0xC2B2AE3D27D4EB4Fu, 0x165667B19E3779F9u,
    0x85EBCA77C2B2AE63u, 0x85EBCA77u, 0x27D4EB2F165667C5u, AX_PRIME32_1
};
/* Offsets in the secret: for scrambling, the last stripe, the final merge. */
enum { AX_SCRAMBLE_AT = 192 - 64, AX_LAST_AT = 192 - 64 - 7, AX_MERGE_AT = 11 };

static inline uint64_t ax_merge(const uint64_t *sums, uint64_t n)
{
    uint64_t hash = n * AX_PRIME64_1, secret[8];
    int k;
    memcpy(secret, ax_secret + AX_MERGE_AT, sizeof secret);
    for (k = 0; k < 8; k += 2) {
        __extension__ unsigned __int128 product = (unsigned __int128)(sums[k] ^ secret[k]) * (sums[k + 1] ^ secret[k + 1]);
        hash += (uint64_t)product ^ (uint64_t)(product >> 64);
    }
    hash ^= hash >> 37;
    hash *= 0x165667919E3779F9u;
    return hash ^ hash >> 32;
}

/* The words of a stripe are added to the neighbours' sums, once per block, at its end. */
#define AX_STRIPE_64(to, from, secret) do { \
    __m512i word = _mm512_loadu_si512(from), key; \
    __asm__("" : "+v"(word)); \
    _mm512_storeu_si512(to, word); \
    key = _mm512_xor_si512(word, _mm512_loadu_si512(secret)); \
    words = _mm512_add_epi64(words, word); \
    sums = _mm512_add_epi64(sums, _mm512_mul_epu32(key, _mm512_srli_epi64(key, 32))); \
} while (0)

__attribute__((target("avx512f")))
static uint64_t ax_move_64(char *to, const char *from, size_t n, const char *mine)
{
    const __m512i prime = _mm512_set1_epi32((int)AX_PRIME32_1);
    __m512i sums = _mm512_loadu_si512(ax_sums), words;
    size_t k, left = n;
    uint64_t out[8];
    for (; left > AX_BLOCK; left -= AX_BLOCK, from += AX_BLOCK, to += AX_BLOCK) {
        words = _mm512_setzero_si512();
#pragma GCC unroll 16
        for (k = 0; k < 16; k++)
            AX_STRIPE_64(to + k * AX_STRIPE, from + k * AX_STRIPE, ax_secret + k * 8);
        sums = _mm512_add_epi64(sums, _mm512_shuffle_epi32(words, _MM_PERM_BADC));
        sums = _mm512_xor_si512(sums, _mm512_srli_epi64(sums, 47));
        sums = _mm512_xor_si512(sums, _mm512_loadu_si512(ax_secret + AX_SCRAMBLE_AT));
        sums = _mm512_add_epi64(_mm512_mul_epu32(sums, prime), _mm512_slli_epi64(
            _mm512_mul_epu32(_mm512_srli_epi64(sums, 32), prime), 32));
    }
    words = _mm512_setzero_si512();
    for (k = 0; left > AX_STRIPE; left -= AX_STRIPE, k++)
        AX_STRIPE_64(to + k * AX_STRIPE, from + k * AX_STRIPE, ax_secret + k * 8);
    if (left == AX_STRIPE) {
        AX_STRIPE_64(to + k * AX_STRIPE, from + k * AX_STRIPE, ax_secret + AX_LAST_AT);
    } else {
        memcpy(to + k * AX_STRIPE, from + k * AX_STRIPE, left);
        AX_STRIPE_64((char *)out, mine + n - AX_STRIPE, ax_secret + AX_LAST_AT);
    }
    sums = _mm512_add_epi64(sums, _mm512_shuffle_epi32(words, _MM_PERM_BADC));
    _mm512_storeu_si512(out, sums);
    return ax_merge(out, n);
}

/* Two of these make a stripe. */
#define AX_HALF_32(sums, to, from, secret) do { \
    __m256i word = _mm256_loadu_si256((const __m256i *)(from)), key; \
    __asm__("" : "+x"(word)); \
    _mm256_storeu_si256((__m256i *)(to), word); \
    key = _mm256_xor_si256(word, _mm256_loadu_si256((const __m256i *)(secret))); \
    sums = _mm256_add_epi64(sums, _mm256_add_epi64(_mm256_mul_epu32(key, _mm256_srli_epi64(key, 32)), \
                                                   _mm256_shuffle_epi32(word, 0x4E))); \
} while (0)
#define AX_STRIPE_32(to, from, secret) do { \
    AX_HALF_32(low, to, from, secret); \
    AX_HALF_32(high, (to) + 32, (from) + 32, (secret) + 32); \
} while (0)

__attribute__((target("avx2")))
static inline __m256i ax_scramble_32(__m256i sums, const uint8_t *secret)
{
    const __m256i prime = _mm256_set1_epi32((int)AX_PRIME32_1);
    sums = _mm256_xor_si256(sums, _mm256_srli_epi64(sums, 47));
    sums = _mm256_xor_si256(sums, _mm256_loadu_si256((const __m256i *)secret));
    return _mm256_add_epi64(_mm256_mul_epu32(sums, prime), _mm256_slli_epi64(
        _mm256_mul_epu32(_mm256_srli_epi64(sums, 32), prime), 32));
}

__attribute__((target("avx2")))
static uint64_t ax_move_32(char *to, const char *from, size_t n, const char *mine)
{
    __m256i low = _mm256_loadu_si256((const __m256i *)ax_sums), high = _mm256_loadu_si256((const __m256i *)(ax_sums + 4));
    size_t k, left = n;
    uint64_t out[8];
    for (; left > AX_BLOCK; left -= AX_BLOCK, from += AX_BLOCK, to += AX_BLOCK) {
        for (k = 0; k < 16; k++)
            AX_STRIPE_32(to + k * AX_STRIPE, from + k * AX_STRIPE, ax_secret + k * 8);
        low = ax_scramble_32(low, ax_secret + AX_SCRAMBLE_AT);
        high = ax_scramble_32(high, ax_secret + AX_SCRAMBLE_AT + 32);
    }
    for (k = 0; left > AX_STRIPE; left -= AX_STRIPE, k++)
        AX_STRIPE_32(to + k * AX_STRIPE, from + k * AX_STRIPE, ax_secret + k * 8);
    if (left == AX_STRIPE) {
        AX_STRIPE_32(to + k * AX_STRIPE, from + k * AX_STRIPE, ax_secret + AX_LAST_AT);
    } else {
        memcpy(to + k * AX_STRIPE, from + k * AX_STRIPE, left);
        AX_STRIPE_32((char *)out, mine + n - AX_STRIPE, ax_secret + AX_LAST_AT);
    }
    _mm256_storeu_si256((__m256i *)out, low);
    _mm256_storeu_si256((__m256i *)(out + 4), high);
    return ax_merge(out, n);
}

/* The function for vectors of so many bytes, or NULL if this CPU has none. */
static inline ax_mover ax_mover_of(int bytes)
{
    __builtin_cpu_init();
    if (bytes == 64 && __builtin_cpu_supports("avx512f"))
        return ax_move_64;
    if (bytes == 32 && __builtin_cpu_supports("avx2"))
        return ax_move_32;
    return NULL;
}
#else
static inline ax_mover ax_mover_of(int bytes) { (void)bytes; return NULL; }
#endif

#endif
