/* A disk that stalls, or refuses: preloaded into a program. While the file $STALL exists, whatever writes to a regular file
 * waits; while $REFUSE does, it gets EACCES. While $LOSE exists, what is to be synced is not: EIO. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static int refused(int fd)
{
    const struct timespec pause = { 0, 5000000 };
    const char *stall = getenv("STALL"), *refuse = getenv("REFUSE");
    struct stat about;
    if (fstat(fd, &about) || !S_ISREG(about.st_mode))
        return 0;
    while (stall && access(stall, F_OK) == 0)
        nanosleep(&pause, NULL);
    if (refuse && access(refuse, F_OK) == 0) {
        errno = EACCES;
        return 1;
    }
    return 0;
}

ssize_t pwritev64(int fd, const struct iovec *pieces, int count, off64_t at)
{
    ssize_t (*next)(int, const struct iovec *, int, off64_t) = dlsym(RTLD_NEXT, "pwritev64");
    return refused(fd) ? -1 : next(fd, pieces, count, at);
}

ssize_t writev(int fd, const struct iovec *pieces, int count)
{
    ssize_t (*next)(int, const struct iovec *, int) = dlsym(RTLD_NEXT, "writev");
    return refused(fd) ? -1 : next(fd, pieces, count);
}

static int lost(void)
{
    const char *lose = getenv("LOSE");
    if (!lose || access(lose, F_OK))
        return 0;
    errno = EIO;
    return 1;
}

int fdatasync(int fd)
{
    int (*next)(int) = dlsym(RTLD_NEXT, "fdatasync");
    return refused(fd) || lost() ? -1 : next(fd);
}

int fsync(int fd)
{
    int (*next)(int) = dlsym(RTLD_NEXT, "fsync");
    return refused(fd) ? -1 : next(fd);
}
