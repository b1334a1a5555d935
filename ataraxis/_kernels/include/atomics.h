/* C11 atomics as opaque structs, so that a plain access to a shared word does not compile.
 *
 * Names tell the order: load = acquire, peek = relaxed, store = release, put = relaxed;
 * cas/swap/or/and/add are acquire-release. Each use names the access it pairs with.
 */
#ifndef AX_ATOMICS_H
#define AX_ATOMICS_H

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

typedef struct { _Atomic uint32_t value; } ax_u32;
typedef struct { _Atomic uint64_t value; } ax_u64;

/* Only lock-free atomics may live in shared memory. */
_Static_assert(ATOMIC_INT_LOCK_FREE == 2 && ATOMIC_LLONG_LOCK_FREE == 2, "lock-free atomics");
_Static_assert(sizeof(ax_u32) == 4 && sizeof(ax_u64) == 8, "atomics have no padding");

static inline uint32_t ax_load32(ax_u32 *p) { return atomic_load_explicit(&p->value, memory_order_acquire); }
static inline uint32_t ax_peek32(ax_u32 *p) { return atomic_load_explicit(&p->value, memory_order_relaxed); }
static inline void ax_store32(ax_u32 *p, uint32_t v) { atomic_store_explicit(&p->value, v, memory_order_release); }
static inline void ax_put32(ax_u32 *p, uint32_t v) { atomic_store_explicit(&p->value, v, memory_order_relaxed); }
static inline uint32_t ax_swap32(ax_u32 *p, uint32_t v) { return atomic_exchange_explicit(&p->value, v, memory_order_acq_rel); }
static inline uint32_t ax_or32(ax_u32 *p, uint32_t v) { return atomic_fetch_or_explicit(&p->value, v, memory_order_acq_rel); }
static inline uint32_t ax_and32(ax_u32 *p, uint32_t v) { return atomic_fetch_and_explicit(&p->value, v, memory_order_acq_rel); }
static inline uint32_t ax_add32(ax_u32 *p, uint32_t v) { return atomic_fetch_add_explicit(&p->value, v, memory_order_acq_rel); }
static inline int ax_cas32(ax_u32 *p, uint32_t expected, uint32_t desired)
{
    return atomic_compare_exchange_strong_explicit(&p->value, &expected, desired, memory_order_acq_rel, memory_order_acquire);
}

static inline uint64_t ax_load64(ax_u64 *p) { return atomic_load_explicit(&p->value, memory_order_acquire); }
static inline uint64_t ax_peek64(ax_u64 *p) { return atomic_load_explicit(&p->value, memory_order_relaxed); }
#ifdef AX_PLANT_RACE
/* A plain store where all others are atomic: what the sanitizer check must find, or it checks nothing. */
static inline void ax_store64(ax_u64 *p, uint64_t v) { *(uint64_t *)&p->value = v; }
#else
static inline void ax_store64(ax_u64 *p, uint64_t v) { atomic_store_explicit(&p->value, v, memory_order_release); }
#endif
static inline void ax_put64(ax_u64 *p, uint64_t v) { atomic_store_explicit(&p->value, v, memory_order_relaxed); }
static inline uint64_t ax_or64(ax_u64 *p, uint64_t v) { return atomic_fetch_or_explicit(&p->value, v, memory_order_acq_rel); }
static inline uint64_t ax_and64(ax_u64 *p, uint64_t v) { return atomic_fetch_and_explicit(&p->value, v, memory_order_acq_rel); }
static inline uint64_t ax_add64(ax_u64 *p, uint64_t v) { return atomic_fetch_add_explicit(&p->value, v, memory_order_acq_rel); }
static inline int ax_cas64(ax_u64 *p, uint64_t expected, uint64_t desired)
{
    return atomic_compare_exchange_strong_explicit(&p->value, &expected, desired, memory_order_acq_rel, memory_order_acquire);
}

static inline void ax_fence_acquire(void) { atomic_thread_fence(memory_order_acquire); }
static inline void ax_fence_release(void) { atomic_thread_fence(memory_order_release); }
static inline void ax_fence_full(void) { atomic_thread_fence(memory_order_seq_cst); }

static inline void ax_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* Wait about 50 ns. Pauses close together would hand a virtual CPU back to its host ("pause-loop
 * exiting"), which takes far longer. */
static inline void ax_linger(void)
{
    ax_pause();
    for (int i = 0; i < 150; i++)
        __asm__ __volatile__("");
}

#if defined(__SANITIZE_THREAD__)
#define AX_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define AX_TSAN 1
#endif
#endif

#define AX_GIL_BYTES 65536         /* a longer copy lets other threads run */

/* Copies between private memory and shared payload. A seqlock's reader may race with the writer by
 * design (Boehm 2012): release builds use memcpy between the fences, ThreadSanitizer builds and
 * single elements use relaxed atomics, so that nothing is formally a race there. */
static inline void ax_copy(void *to, const void *from, size_t n)
{
    if (n == 8 && !(((uintptr_t)to | (uintptr_t)from) & 7)) {
        uint64_t v = atomic_load_explicit((_Atomic uint64_t *)(uintptr_t)from, memory_order_relaxed);
        atomic_store_explicit((_Atomic uint64_t *)to, v, memory_order_relaxed);
        return;
    }
    if (n == 4 && !(((uintptr_t)to | (uintptr_t)from) & 3)) {
        uint32_t v = atomic_load_explicit((_Atomic uint32_t *)(uintptr_t)from, memory_order_relaxed);
        atomic_store_explicit((_Atomic uint32_t *)to, v, memory_order_relaxed);
        return;
    }
    if (n == 2 && !(((uintptr_t)to | (uintptr_t)from) & 1)) {
        uint16_t v = atomic_load_explicit((_Atomic uint16_t *)(uintptr_t)from, memory_order_relaxed);
        atomic_store_explicit((_Atomic uint16_t *)to, v, memory_order_relaxed);
        return;
    }
#ifdef AX_TSAN
    for (size_t i = 0; i < n; i++) {
        uint8_t v = atomic_load_explicit((_Atomic uint8_t *)(uintptr_t)from + i, memory_order_relaxed);
        atomic_store_explicit((_Atomic uint8_t *)to + i, v, memory_order_relaxed);
    }
#else
#ifdef AX_PLANT_OVERRUN
    n += n > 8; /* one byte too many, for the same reason */
#endif
    memcpy(to, from, n);
#endif
}

static inline void ax_zero(void *to, size_t n)
{
#ifdef AX_TSAN
    for (size_t i = 0; i < n; i++)
        atomic_store_explicit((_Atomic uint8_t *)to + i, 0, memory_order_relaxed);
#else
    memset(to, 0, n);
#endif
}

#endif
