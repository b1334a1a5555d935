/* Unlink names of segments when a signal kills the process.
 *
 * Only where the signal would kill at once (SIG_DFL): a handler unknown to Python then unlinks the
 * names, restores SIG_DFL and raises the signal again. It needs no interpreter, so the process dies as promptly as
 * without it, and of the signal. A handler that the application sets later replaces this one. Everything called here
 * is async-signal-safe (POSIX.1-2017, 2.4.3). */
#ifndef AX_UNLINK_ON_SIGNAL_H
#define AX_UNLINK_ON_SIGNAL_H

#include <limits.h>
#include "platform.h"

typedef struct ax_will {
    struct ax_will *next;     /* never changes; the list only grows, entries are reused */
    _Atomic int armed;
    pid_t pid;                /* owner: a forked child ignores its copy */
    int fd;
    uint64_t dev, ino;
    int64_t slots;
    char path[PATH_MAX];
} ax_will;

static _Atomic(ax_will *) ax_wills;
static const int ax_deadly[] = { SIGINT, SIGTERM, SIGHUP };
#define AX_DEADLY ((int)(sizeof ax_deadly / sizeof *ax_deadly))

static void ax_execute(int number)
{
    const struct timespec pause = { 0, 1000000 };
    struct sigaction fatal;
    ax_will *will;
    int tries;
    ax_crash("will_read");
    /* Acquire: pairs with the releases in ax_will_make. */
    for (will = atomic_load_explicit(&ax_wills, memory_order_acquire); will; will = will->next)
        if (atomic_load_explicit(&will->armed, memory_order_acquire) && will->pid == getpid() &&
            ax_same_file(will->fd, will->dev, will->ino))
            for (tries = 0; tries < 50 && ax_unlink(will->fd, AT_FDCWD, will->path, will->slots, 1) == AX_BUSY; tries++)
                nanosleep(&pause, NULL);
    ax_crash("will_done");
    memset(&fatal, 0, sizeof fatal);
    fatal.sa_handler = SIG_DFL;
    sigaction(number, &fatal, NULL);
    /* The kernel drops uncaught signals of the first process of a container: exit instead of running on without names. */
    if (getpid() == 1)
        _exit(128 + number);
    raise(number);   /* blocked here: it kills on return */
}

static inline void ax_will_watch(int on)
{
    struct sigaction now, ours;
    int k;
    memset(&ours, 0, sizeof ours);
    ours.sa_handler = on ? ax_execute : SIG_DFL;
    ours.sa_flags = on ? SA_ONSTACK : 0;
    if (on)
        sigfillset(&ours.sa_mask);
    for (k = 0; k < AX_DEADLY; k++)
        if (sigaction(ax_deadly[k], NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO) &&
            now.sa_handler == (on ? SIG_DFL : ax_execute))
            sigaction(ax_deadly[k], &ours, NULL);
}

/* The caller holds the GIL or a lock. NULL: out of memory, or the path is too long. */
static inline ax_will *ax_will_make(int fd, uint64_t dev, uint64_t ino, int64_t slots, const char *path)
{
    ax_will *first = atomic_load_explicit(&ax_wills, memory_order_acquire), *will = first;
    if (strlen(path) >= sizeof will->path)
        return NULL;
    while (will && atomic_load_explicit(&will->armed, memory_order_relaxed))
        will = will->next;
    if (!will) {
        will = calloc(1, sizeof *will);
        if (!will)
            return NULL;
        will->next = first;
        atomic_store_explicit(&ax_wills, will, memory_order_release);
    }
    will->pid = getpid();
    will->fd = fd;
    will->dev = dev;
    will->ino = ino;
    will->slots = slots;
    strcpy(will->path, path);
    atomic_store_explicit(&will->armed, 1, memory_order_release);
    ax_crash("will_made");
    ax_will_watch(1);
    return will;
}

static inline void ax_will_revoke(ax_will *will)
{
    ax_will *other;
    atomic_store_explicit(&will->armed, 0, memory_order_release);
    ax_crash("will_revoked");
    for (other = atomic_load_explicit(&ax_wills, memory_order_acquire); other; other = other->next)
        if (atomic_load_explicit(&other->armed, memory_order_relaxed))
            return;
    ax_will_watch(0);
}

#endif
