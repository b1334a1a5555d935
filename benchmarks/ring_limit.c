/* The limit: one producer, one consumer, a ring in shared memory, both spinning; no names, no types,
 * no recovery. Each message carries its number, and the consumer checks it.
 *
 *     ring_limit touch|copy BYTES SLOTS SECONDS CPU0 CPU1     prints messages/s
 *     ring_limit paced 8 SLOTS SECONDS CPU0 CPU1              prints p50 and p99 of one way, us, 1000/s
 *
 * touch reads the number in place; copy copies the message out, as Consumer.read does. CPU -1: not pinned.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define END (UINT64_C(1) << 63)

typedef struct {
    _Alignas(128) _Atomic uint64_t head;
    _Alignas(128) _Atomic uint64_t tail;
    _Alignas(128) char slots[];
} ring;

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void pin(int cpu)
{
    cpu_set_t set;
    if (cpu < 0) return;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
}

/* Spin, and yield now and then: on a busy machine the other side may wait for this CPU. */
static uint64_t look(_Atomic uint64_t *word, uint64_t not_yet, uint64_t slots)
{
    uint64_t seen;
    for (uint32_t looks = 1; (seen = atomic_load_explicit(word, memory_order_acquire)) + slots <= not_yet; looks++)
        if (looks % 65536 == 0) sched_yield();
    return seen;
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void produce(ring *r, size_t bytes, uint64_t slots, double seconds, int paced)
{
    char *own = aligned_alloc(128, (bytes + 127) / 128 * 128);
    memset(own, 1, bytes);
    int64_t end = now_ns() + (int64_t)(seconds * 1e9), due = now_ns();
    uint64_t k = 0, tail = 0;
    for (int last = 0; !last; k++) {
        if (paced) {
            due += 1000000;
            struct timespec t = {due / 1000000000, due % 1000000000};
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
            last = now_ns() > end;
        } else if (k % 64 == 0) {
            last = now_ns() > end;
        }
        *(uint64_t *)own = last ? END | k : paced ? (uint64_t)now_ns() : k;
        if (k - tail >= slots) tail = look(&r->tail, k, slots);
        memcpy(r->slots + k % slots * bytes, own, bytes);
        atomic_store_explicit(&r->head, k + 1, memory_order_release);
    }
}

static int consume(ring *r, size_t bytes, uint64_t slots, int copy, int paced)
{
    char *own = aligned_alloc(128, (bytes + 127) / 128 * 128);
    int64_t *delays = malloc(sizeof *delays * 1000000), begin = 0;
    uint64_t k = 0, head = 0, n;
    for (;; k++) {
        if (head == k) head = look(&r->head, k, 0);
        char *slot = r->slots + k % slots * bytes;
        if (copy) slot = memcpy(own, slot, bytes);
        n = *(volatile uint64_t *)slot;
        if (paced && k < 1000000) delays[k] = now_ns() - (int64_t)n;
        atomic_store_explicit(&r->tail, k + 1, memory_order_release);
        if (k == 0) begin = now_ns();
        if (n & END) break;
        if (!paced && n != k) return 3;
    }
    if ((n & ~END) != k || k < 10) return 4;
    if (!paced) {
        printf("%.1f\n", k / ((now_ns() - begin) * 1e-9));
        return 0;
    }
    delays += k / 10, n = k - k / 10;
    qsort(delays, n, sizeof *delays, by_value);
    printf("%.3f %.3f\n", delays[n / 2] * 1e-3, delays[n * 99 / 100] * 1e-3);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 7) return 2;
    int paced = !strcmp(argv[1], "paced"), copy = !strcmp(argv[1], "copy"), status = 0;
    size_t bytes = strtoull(argv[2], NULL, 10);
    uint64_t slots = strtoull(argv[3], NULL, 10);
    size_t total = sizeof(ring) + bytes * slots;
    ring *r = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (r == MAP_FAILED || slots & (slots - 1)) return 2;
    pid_t child = fork();
    if (!child) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pin(atoi(argv[5]));
        produce(r, bytes, slots, atof(argv[4]), paced);
        _exit(0);
    }
    pin(atoi(argv[6]));
    status = consume(r, bytes, slots, copy, paced);
    waitpid(child, NULL, 0);
    return status;
}
