# The functions of platform.h.
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from "platform.h" nogil:
    int AX_RECLAIM_BYTE, AX_CRASH_BUILD
    int F_WRLCK, F_UNLCK
    void ax_crash(const char *point)
    int64_t ax_now_ns()
    bint ax_take_turn(uint32_t *busy)
    void ax_end_turn(uint32_t *busy)
    void ax_prefault(char *memory, size_t bytes)
    int ax_futex_wait(void *word, uint32_t expected, int64_t wait_ns)
    void ax_futex_wake(void *word, int n)
    int ax_byte(int fd, int get, int type, int64_t slot)
    int ax_bytes(int fd, int get, int type, int64_t slot, int64_t count)
    int ax_unlink(int fd, int dirfd, const char *name, int64_t slots, int force)
    bint ax_same_file(int fd, uint64_t dev, uint64_t ino)
    int ax_reopen(const char *path, uint64_t dev, uint64_t ino)
    int ax_hold_slot(const char *path, uint64_t dev, uint64_t ino, int64_t slot, size_t page_bytes, void **page)
    int ax_cpus()
    int ax_allocate(int fd, int64_t offset, int64_t bytes)
    int ax_watch_open(const char *directory, int writes)
    int ax_watch_wait(int fd, int64_t wait_ns)
