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

typedef struct ax_unlink_entry {
    struct ax_unlink_entry *next;     /* never changes; the list only grows, entries are reused */
    _Atomic int armed;
    pid_t pid;                /* owner: a forked child ignores its copy */
    int fd;
    uint64_t dev, ino;
    int64_t slots;
    char path[PATH_MAX];
} ax_unlink_entry;

static _Atomic(ax_unlink_entry *) ax_unlink_entries;
static const int ax_fatal_signals[] = { SIGINT, SIGTERM, SIGHUP };
#define AX_FATAL_SIGNALS ((int)(sizeof ax_fatal_signals / sizeof *ax_fatal_signals))

static void ax_unlink_handler(int number)
{
    const struct timespec pause = { 0, 1000000 };
    struct sigaction fatal;
    ax_unlink_entry *entry;
    int tries;
    ax_crash("will_read");
    /* Acquire: pairs with the releases in ax_unlink_register. */
    for (entry = atomic_load_explicit(&ax_unlink_entries, memory_order_acquire); entry; entry = entry->next)
        if (atomic_load_explicit(&entry->armed, memory_order_acquire) && entry->pid == getpid() &&
            ax_same_file(entry->fd, entry->dev, entry->ino))
            for (tries = 0; tries < 50 && ax_unlink(entry->fd, AT_FDCWD, entry->path, entry->slots, 1) == AX_BUSY; tries++)
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

static inline void ax_unlink_handle_signals(int on)
{
    struct sigaction now, action;
    int k;
    memset(&action, 0, sizeof action);
    action.sa_handler = on ? ax_unlink_handler : SIG_DFL;
    action.sa_flags = on ? SA_ONSTACK : 0;
    if (on)
        sigfillset(&action.sa_mask);
    for (k = 0; k < AX_FATAL_SIGNALS; k++)
        if (sigaction(ax_fatal_signals[k], NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO) &&
            now.sa_handler == (on ? SIG_DFL : ax_unlink_handler))
            sigaction(ax_fatal_signals[k], &action, NULL);
}

/* The caller holds the GIL or a lock. NULL: out of memory, or the path is too long. */
static inline ax_unlink_entry *ax_unlink_register(int fd, uint64_t dev, uint64_t ino, int64_t slots, const char *path)
{
    ax_unlink_entry *first = atomic_load_explicit(&ax_unlink_entries, memory_order_acquire), *entry = first;
    if (strlen(path) >= sizeof entry->path)
        return NULL;
    while (entry && atomic_load_explicit(&entry->armed, memory_order_relaxed))
        entry = entry->next;
    if (!entry) {
        entry = calloc(1, sizeof *entry);
        if (!entry)
            return NULL;
        entry->next = first;
        atomic_store_explicit(&ax_unlink_entries, entry, memory_order_release);
    }
    entry->pid = getpid();
    entry->fd = fd;
    entry->dev = dev;
    entry->ino = ino;
    entry->slots = slots;
    strcpy(entry->path, path);
    atomic_store_explicit(&entry->armed, 1, memory_order_release);
    ax_crash("will_made");
    ax_unlink_handle_signals(1);
    return entry;
}

static inline void ax_unlink_cancel(ax_unlink_entry *entry)
{
    ax_unlink_entry *other;
    atomic_store_explicit(&entry->armed, 0, memory_order_release);
    ax_crash("will_revoked");
    for (other = atomic_load_explicit(&ax_unlink_entries, memory_order_acquire); other; other = other->next)
        if (atomic_load_explicit(&other->armed, memory_order_relaxed))
            return;
    ax_unlink_handle_signals(0);
}

#endif
