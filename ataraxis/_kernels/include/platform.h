/* Operating system services: futexes, byte locks that die with their owner, clock, fork.
 * Linux is the first tier. Elsewhere waits are bounded sleeps and a byte lock is an F_SETLK whose
 * descriptor stays open; compiled there, not tested. */
#ifndef AX_PLATFORM_H
#define AX_PLATFORM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "layout.h"
#ifdef __linux__
#include <linux/futex.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/syscall.h>
#endif

/* Lock byte of slot 0, beyond the end of any file. */
#define AX_BYTES ((off_t)1 << 62)
#define AX_RECLAIM_BYTE (1 << 20)   /* held while this file is being unlinked */

/* Crash points: compiled in only with -DAX_CRASH_POINTS. The process kills itself, as SIGKILL would,
 * at the point named by $ATARAXIS_CRASH_AT. */
#ifdef AX_CRASH_POINTS
#include <stdio.h>
static inline void ax_crash(const char *point)
{
    const char *wanted = getenv("ATARAXIS_CRASH_AT");
    if (wanted && !strcmp(wanted, point))
        kill(getpid(), SIGKILL);
}
#define AX_CRASH_BUILD 1
#else
static inline void ax_crash(const char *point) { (void)point; }
#define AX_CRASH_BUILD 0
#endif

static inline int64_t ax_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Map the pages of `bytes` from `memory` now, not at first use. A hint. */
static inline void ax_prefault(char *memory, size_t bytes)
{
#ifdef __linux__
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = (uintptr_t)memory / page * page, to = (uintptr_t)memory + bytes;
    (void)!madvise((void *)from, to - from, MADV_POPULATE_WRITE);
#else
    (void)memory; (void)bytes;
#endif
}

/* Sleep until *word differs from expected, a wake-up, a signal (-EINTR), or wait_ns passed.
 * Shared futexes (no FUTEX_PRIVATE_FLAG): the waker is another process. */
static inline int ax_futex_wait(void *word, uint32_t expected, int64_t wait_ns)
{
    struct timespec t = { wait_ns / 1000000000, wait_ns % 1000000000 };
    if (wait_ns <= 0)
        return 0;
#ifdef __linux__
    return syscall(SYS_futex, word, FUTEX_WAIT, expected, &t, NULL, 0) < 0 ? -errno : 0;
#else
    if (*(volatile uint32_t *)word == expected) {
        if (wait_ns > 1000000) { t.tv_sec = 0; t.tv_nsec = 1000000; }
        nanosleep(&t, NULL);
    }
    return 0;
#endif
}

static inline void ax_futex_wake(void *word, int n)
{
#ifdef __linux__
    syscall(SYS_futex, word, FUTEX_WAKE, n, NULL, NULL, 0);
#else
    (void)word; (void)n;
#endif
}

/* Bytes of a file from that of `slot` on, by an open-file-description lock: command F_SETLK or F_GETLK, type F_WRLCK or F_UNLCK.
 * Set: 0 or -errno. Get: 1 held by another process, 0 free, -errno. */
static inline int ax_bytes(int fd, int get, int type, int64_t slot, int64_t count)
{
    struct flock lock;
    int r;
    memset(&lock, 0, sizeof lock);
    lock.l_type = (short)type;
    lock.l_whence = SEEK_SET;
    lock.l_start = AX_BYTES + slot;
    lock.l_len = (off_t)count;
#ifdef F_OFD_SETLK
    do r = fcntl(fd, get ? F_OFD_GETLK : F_OFD_SETLK, &lock); while (r < 0 && errno == EINTR);
#else
    do r = fcntl(fd, get ? F_GETLK : F_SETLK, &lock); while (r < 0 && errno == EINTR);
#endif
    if (r < 0)
        return -errno;
    return get ? lock.l_type != F_UNLCK : 0;
}

static inline int ax_byte(int fd, int get, int type, int64_t slot) { return ax_bytes(fd, get, type, slot, 1); }

/* Whether `fd` still is that file: user code may have closed it and reused its number. */
static inline int ax_same_file(int fd, uint64_t dev, uint64_t ino)
{
    struct stat s;
    return fd >= 0 && fstat(fd, &s) == 0 && (uint64_t)s.st_dev == dev && (uint64_t)s.st_ino == ino;
}

/* Open `path` if it names that file; a descriptor or -errno. */
static inline int ax_reopen(const char *path, uint64_t dev, uint64_t ino)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    if (!ax_same_file(fd, dev, ino)) {
        close(fd);
        return -ESTALE;
    }
    return fd;
}

/* Lock the byte of `slot` for the life of a mapping: open the file again, lock, map one page, keep the
 * page out of children, close. The description, and so the lock, lives exactly as long as the mapping.
 * 0, or -errno (-EAGAIN: held). On success *page is the mapping. The caller holds the fork gate (memory.pyx). */
static inline int ax_hold_slot(const char *path, uint64_t dev, uint64_t ino, int64_t slot, size_t page_bytes, void **page)
{
    int r, fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    void *m;
    if (fd < 0)
        return -errno;
    if (!ax_same_file(fd, dev, ino)) {
        close(fd);
        return -ESTALE;
    }
    r = ax_byte(fd, 0, F_WRLCK, slot);
    if (r < 0) {
        close(fd);
        return r;
    }
    m = mmap(NULL, page_bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (m == MAP_FAILED) {
        r = -errno;
        close(fd);
        return r;
    }
#ifdef MADV_DONTFORK
    if (madvise(m, page_bytes, MADV_DONTFORK) < 0) {
        r = -errno;
        munmap(m, page_bytes);
        close(fd);
        return r;
    }
    close(fd);
#endif
    *page = m;
    return 0;
}

/* Unlink `name` if it names the file `fd` (else AX_ENDED), unless it has participants (AX_FULL; `force` ignores them),
 * holds undelivered frames (AX_KEPT) or is being unlinked by another process (AX_BUSY). The
 * reclaim byte makes check and unlink one step: only its holder unlinks, and a name that is in use cannot
 * be taken again. The state changes first, so that a process that attaches meanwhile checks again. */
static inline int ax_unlink(int fd, int dirfd, const char *name, int64_t slots, int force)
{
    struct stat mine, named;
    uint32_t word[2];
    int r = ax_byte(fd, 0, F_WRLCK, AX_RECLAIM_BYTE);
    if (r < 0)
        return AX_BUSY;
    r = AX_ENDED;
    if (!force && ax_bytes(fd, 1, F_WRLCK, 0, slots)) {
        /* No other process unlinks it now: the one that began died, or the word was damaged. */
        if (pread(fd, word, sizeof word, AX_LIVE_OFFSET) == (ssize_t)sizeof word && word[0] != AX_READY &&
            fstat(fd, &mine) == 0 && fstatat(dirfd, name, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
            mine.st_dev == named.st_dev && mine.st_ino == named.st_ino) {
            uint32_t ready = AX_READY;
            if (pwrite(fd, &ready, sizeof ready, AX_LIVE_OFFSET) < 0)
                r = -1000 - errno;
        }
        ax_byte(fd, 0, F_UNLCK, AX_RECLAIM_BYTE);
        return r == AX_ENDED ? AX_FULL : r;   /* the common answer, before anything is touched */
    }
    if (fstat(fd, &mine) == 0 && fstatat(dirfd, name, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
        mine.st_dev == named.st_dev && mine.st_ino == named.st_ino &&
        pread(fd, word, sizeof word, AX_LIVE_OFFSET) == (ssize_t)sizeof word) {
        uint32_t state = AX_RETIRED_STATE;
        r = pwrite(fd, &state, sizeof state, AX_LIVE_OFFSET) == (ssize_t)sizeof state ? AX_OK : -1000 - errno;
        ax_crash("unlink_retired");
        if (r == AX_OK && word[1])
            r = AX_KEPT;
        if (r == AX_OK && !force)
            r = ax_bytes(fd, 1, F_WRLCK, 0, slots) ? AX_FULL : AX_OK;
        if (r == AX_OK && unlinkat(dirfd, name, 0) < 0)
            r = -1000 - errno;
        if (r != AX_OK) {
            state = AX_READY;
            if (pwrite(fd, &state, sizeof state, AX_LIVE_OFFSET) < 0)
                r = -1000 - errno;
        }
        ax_crash("unlink_done");
    }
    ax_byte(fd, 0, F_UNLCK, AX_RECLAIM_BYTE);
    return r;
}

/* Admit one thread at a time to an object's methods: 1 if admitted. With a GIL, the GIL guards the word. */
static inline int ax_take_turn(uint32_t *busy)
{
#ifdef Py_GIL_DISABLED
    uint32_t idle = 0;
    return __atomic_compare_exchange_n(busy, &idle, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
#else
    return *busy ? 0 : (*busy = 1);
#endif
}

static inline void ax_end_turn(uint32_t *busy)
{
#ifdef Py_GIL_DISABLED
    __atomic_store_n(busy, 0, __ATOMIC_RELEASE);
#else
    *busy = 0;
#endif
}

/* CPUs that this process may use. With one, spinning only delays the thread that is waited for. */
static inline int ax_cpus(void)
{
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return CPU_COUNT(&set);
#endif
    return (int)sysconf(_SC_NPROCESSORS_ONLN);
}

/* Back `bytes` from `offset` with memory now, so that a store never meets SIGBUS. 0 or -errno; -EINTR
 * asks the caller to handle signals and continue. */
static inline int ax_allocate(int fd, int64_t offset, int64_t bytes)
{
#ifdef __linux__
    if (fallocate(fd, 0, offset, bytes) == 0)
        return 0;
    if (errno != EOPNOTSUPP)
        return -errno;
#endif
    static const char zeros[65536];
    while (bytes > 0) {
        ssize_t n = pwrite(fd, zeros, bytes < (int64_t)sizeof zeros ? (size_t)bytes : sizeof zeros, offset);
        if (n < 0)
            return -errno;
        offset += n;
        bytes -= n;
    }
    return 0;
}

/* Watch `directory` for new names, and for writes and closes of its files; -errno where nothing can be watched. */
static inline int ax_watch_open(const char *directory, int writes)
{
#ifdef __linux__
    int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (inotify_add_watch(fd, directory, IN_CREATE | IN_MOVED_TO | IN_ONLYDIR | (writes ? IN_MODIFY | IN_CLOSE_WRITE : 0)) < 0) {
        int e = errno;
        close(fd);
        return -e;
    }
    return fd;
#else
    (void)directory; (void)writes;
    return -ENOSYS;
#endif
}

/* Sleep until an event or until wait_ns passed. */
static inline int ax_watch_wait(int fd, int64_t wait_ns)
{
#ifdef __linux__
    char scratch[4096];
    struct pollfd p = { fd, POLLIN, 0 };
    int r = poll(&p, 1, (int)(wait_ns / 1000000) + 1);
    if (r > 0)
        while (read(fd, scratch, sizeof scratch) > 0) { }
    return r < 0 ? -errno : r;
#else
    (void)fd; (void)wait_ns;
    return -ENOSYS;
#endif
}

#endif
