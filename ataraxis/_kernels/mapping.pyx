"""Files backed and mapped: the memory that everything else lends views of.

Nothing unmaps while a view lives: the mapping goes with its last reference, never by a call.
"""
from cpython.buffer cimport PyBuffer_FillInfo
from libc.errno cimport errno
from libc.stdint cimport int64_t
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap

from ataraxis._kernels.platform cimport AX_CRASH_BUILD, ax_allocate, ax_crash, ax_watch_open, ax_watch_wait

CRASH_BUILD = bool(AX_CRASH_BUILD)

cdef class Mapping:
    """Map `bytes` of the file `descriptor`, shared and writable; exports a buffer."""

    def __cinit__(self, int descriptor, Py_ssize_t bytes):
        cdef void *base = mmap(NULL, <size_t>bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
        if base == MAP_FAILED:
            raise OSError(errno, "mmap failed")
        self.base = <char *>base
        self.bytes = bytes

    def __dealloc__(self):
        if self.base != NULL:
            munmap(self.base, <size_t>self.bytes)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.base, self.bytes, 0, flags)

    def __len__(self):
        return self.bytes

def allocate(int descriptor, int64_t offset, int64_t bytes):
    """Back the range with memory; 0 or -errno. The caller goes in pieces and looks at signals."""
    cdef int status
    with nogil:
        status = ax_allocate(descriptor, offset, bytes)
    return status

def watch_open(bytes directory, bint writes=False):
    """Watch a directory for new names, perhaps also for writes and closes; a descriptor, or -errno."""
    return ax_watch_open(directory, writes)

def watch_wait(int descriptor, int64_t wait_ns):
    """Sleep until something was seen or `wait_ns` passed; >= 0, or -errno."""
    cdef int status
    with nogil:
        status = ax_watch_wait(descriptor, wait_ns)
    return status

def crash_point(bytes name):
    """Die here, as by SIGKILL, if a crash-test build was told so; nothing otherwise."""
    ax_crash(name)
