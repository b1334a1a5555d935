# The functions of unlink_on_signal.h. Its list is static: only memory.pyx may use it.
from libc.stdint cimport int64_t, uint64_t

cdef extern from "unlink_on_signal.h" nogil:
    ctypedef struct ax_unlink_entry:
        pass
    ax_unlink_entry *ax_unlink_register(int fd, uint64_t dev, uint64_t ino, int64_t slots, const char *path)
    void ax_unlink_cancel(ax_unlink_entry *entry)
