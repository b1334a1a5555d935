# A consumer's handle on a stream, and the frames it returns.
cimport numpy as cnp
from libc.stdint cimport int64_t, uint64_t

from ataraxis._kernels.frame cimport ax_frame
from ataraxis._kernels.ring cimport Endpoint, ax_got

# Samples that are being copied out of frames, into rows of an array.
cdef struct ax_samples:
    char *to
    int64_t *frames           # three a frame: its time, its sequence, its samples
    Py_ssize_t rows
    Py_ssize_t done
    Py_ssize_t room           # for frames
    Py_ssize_t count          # frames
    Py_ssize_t row            # bytes of a sample
    Py_ssize_t whole          # samples of a whole frame
    bint are_blocks           # frames have samples along their first dimension

cdef class ConsumerHandle(Endpoint):
    cdef unsigned char[::1] out
    cdef list returned                  # frames released while a thread was inside
    cdef Frame pending                  # fetched by `_await` or `_read_samples`, not yet received
    cdef Py_ssize_t taken               # samples of it that were copied
    cdef uint64_t shown                 # of the frames lost, those that `_read_samples` has shown
    cdef object dtype                   # dtype of frames with the stream's labels, or None
    cdef uint64_t joined                # first sequence that counted
    cdef bint is_drained
    cdef public object cancel_event
    cdef public bint _verifies          # verify the checksum of every frame
    cdef uint64_t last                  # sequence of the last frame received

    cdef int release_returned(self) noexcept
    cdef void release_slot(self, uint64_t index, uint64_t position, int held) noexcept
    cdef int next(self, ax_got *got, int64_t deadline) except -100
    cdef Frame wrap(self, ax_got *got)
    cdef int drain(
        self, char *to, int64_t *stamps, Py_ssize_t each, Py_ssize_t rows, Py_ssize_t *done, ax_got *got, bint has_got,
    ) noexcept nogil
    cdef Frame fetch(self, int64_t deadline, int *status)
    cdef int copy_whole(self, ax_samples *want, ax_got *got, bint *is_left) noexcept nogil
    cdef int copy_part(self, ax_samples *want, int64_t *state)
    cdef int hold(self, ax_got *got) except -1

cdef class PinnedSlot:
    cdef Frame frame

cdef class Frame:
    cdef ConsumerHandle owner
    cdef ax_frame *head
    cdef char *data
    cdef Py_ssize_t bytes
    cdef uint64_t index
    cdef uint64_t position
    cdef int held                       # HELD_BY_*, or -1: released
    cdef bint is_over                   # released by the user
    cdef Py_ssize_t views                # live views
    cdef Py_ssize_t cursor              # of read()
    cdef object copy                    # private copy, where the slot could not be held
    cdef Py_ssize_t extents[8]          # of its buffers: shape and strides, the same for all

    cdef cnp.dtype descr(self)
    cdef int shape_of(self, Py_ssize_t itemsize, cnp.npy_intp *dims) except -1
    cdef bint fill_typed(self, Py_buffer *buffer, int flags) except -1
    cdef PinnedSlot pin(self)
    cdef int ready(self) except -1
    cdef void release_held(self) noexcept
