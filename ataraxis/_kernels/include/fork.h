/* Fork detection (memory.pyx includes this, nothing else does): the generation
 * tells an inherited handle from its original; the gate keeps a fork from happening between taking a
 * byte and MADV_DONTFORK, which would leave the child holding the byte. Registered at the first attachment. */
#ifndef AX_FORK_H
#define AX_FORK_H

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>
#include "platform.h"

/* A byte taken through a probe belongs to its open file description. A forked child's copy would keep the
 * description, and so the byte, when the parent is killed during a clean-up: the child closes its
 * copies before anything else runs. The list is changed and walked inside the gate only. */
typedef struct ax_probe {
    struct ax_probe *next, *previous;
    int *fd;
    uint64_t dev, ino;
} ax_probe;
static ax_probe ax_probes = { &ax_probes, &ax_probes, NULL, 0, 0 };

static uint64_t ax_forks = 1;
static pthread_mutex_t ax_gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t ax_watched = PTHREAD_ONCE_INIT;

static void ax_before_fork(void) { pthread_mutex_lock(&ax_gate); }
static void ax_after_fork_parent(void) { pthread_mutex_unlock(&ax_gate); }
static void ax_after_fork_child(void)
{
    ax_probe *probe;
    pthread_mutex_init(&ax_gate, NULL);
    for (probe = ax_probes.next; probe != &ax_probes; probe = probe->next) {
        if (ax_same_file(*probe->fd, probe->dev, probe->ino))
            close(*probe->fd);
        *probe->fd = -1;
    }
    ax_forks++;
}
static void ax_watch_forks_once(void) { pthread_atfork(ax_before_fork, ax_after_fork_parent, ax_after_fork_child); }
static inline void ax_watch_forks(void) { pthread_once(&ax_watched, ax_watch_forks_once); }
static inline void ax_gate_enter(void) { pthread_mutex_lock(&ax_gate); }
static inline void ax_gate_leave(void) { pthread_mutex_unlock(&ax_gate); }

/* Register the descriptor *fd of the file dev, ino; NULL: out of memory. */
static inline ax_probe *ax_watch_probe(int *fd, uint64_t dev, uint64_t ino)
{
    ax_probe *probe = malloc(sizeof *probe);
    if (!probe)
        return NULL;
    probe->fd = fd;
    probe->dev = dev;
    probe->ino = ino;
    ax_gate_enter();
    probe->previous = &ax_probes;
    probe->next = ax_probes.next;
    ax_probes.next->previous = probe;
    ax_probes.next = probe;
    ax_gate_leave();
    return probe;
}

static inline void ax_forget_probe(ax_probe *probe)
{
    if (!probe)
        return;
    ax_gate_enter();
    probe->previous->next = probe->next;
    probe->next->previous = probe->previous;
    ax_gate_leave();
    free(probe);
}

static inline uint64_t *ax_fork_count(void) { return &ax_forks; }

#endif
