/* Notes every write, sync and name of files whose path holds $RECORD_PATH into $RECORD_LOG, in their order:
   kind (W write, S sync, N new, D sync of a directory), length of path, offset, length of data, path, data. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;

static int path_of(int fd, char *path)
{
    char link[64];
    ssize_t n;
    const char *want = getenv("RECORD_PATH");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, path, 511);
    if (n < 0 || !want)
        return 0;
    path[n] = 0;
    return strstr(path, want) != NULL;
}

static void note(char kind, const char *path, uint64_t at, const void *data, uint64_t n)
{
    static ssize_t (*real)(int, const void *, size_t);
    uint64_t head[4] = {(uint64_t)kind, strlen(path), at, n};
    if (!real)
        real = dlsym(RTLD_NEXT, "write");
    pthread_mutex_lock(&lock);
    if (log_fd < 0) {
        int (*real_open)(const char *, int, ...) = dlsym(RTLD_NEXT, "open64");
        log_fd = real_open(getenv("RECORD_LOG"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    }
    real(log_fd, head, sizeof head);
    real(log_fd, path, strlen(path));
    if (n)
        real(log_fd, data, n);
    pthread_mutex_unlock(&lock);
}

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at)
{
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    char path[512];
    ssize_t done;
    if (!real)
        real = dlsym(RTLD_NEXT, "pwrite64");
    done = real(fd, data, n, at);
    if (done > 0 && path_of(fd, path))
        note('W', path, at, data, done);
    return done;
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) { return pwrite64(fd, data, n, at); }

ssize_t pwritev64(int fd, const struct iovec *pieces, int count, off64_t at)
{
    static ssize_t (*real)(int, const struct iovec *, int, off64_t);
    char path[512];
    ssize_t done, left;
    int k;
    if (!real)
        real = dlsym(RTLD_NEXT, "pwritev64");
    left = done = real(fd, pieces, count, at);
    if (done > 0 && path_of(fd, path))
        for (k = 0; k < count && left > 0; k++) {
            size_t n = pieces[k].iov_len < (size_t)left ? pieces[k].iov_len : (size_t)left;
            note('W', path, at, pieces[k].iov_base, n);
            at += n;
            left -= n;
        }
    return done;
}
ssize_t pwritev(int fd, const struct iovec *pieces, int count, off_t at) { return pwritev64(fd, pieces, count, at); }

static int synced(int fd, int done)
{
    char path[512];
    struct stat status;
    if (done == 0 && path_of(fd, path) && fstat(fd, &status) == 0)
        note(S_ISDIR(status.st_mode) ? 'D' : 'S', path, 0, NULL, 0);
    return done;
}
int fsync(int fd)
{
    static int (*real)(int);
    if (!real)
        real = dlsym(RTLD_NEXT, "fsync");
    return synced(fd, real(fd));
}
int fdatasync(int fd)
{
    static int (*real)(int);
    if (!real)
        real = dlsym(RTLD_NEXT, "fdatasync");
    return synced(fd, real(fd));
}
