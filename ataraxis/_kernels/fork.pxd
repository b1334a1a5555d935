# The functions of fork.h. Its state is static: only memory.pyx may use it.
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
