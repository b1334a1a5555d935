# What fork.h offers; its state is static, so one kernel only may take it (memory.pyx).
from libc.stdint cimport uint64_t

cdef extern from "fork.h" nogil:
    void ax_watch_forks()
    void ax_gate_enter()
    void ax_gate_leave()
    ctypedef struct ax_probe:
        pass
    ax_probe *ax_watch_probe(int *fd, uint64_t dev, uint64_t ino)
    void ax_forget_probe(ax_probe *probe)
    uint64_t *ax_fork_count()
