# Waiting in a work queue.
from libc.stdint cimport int64_t, uint32_t

from ataraxis._kernels.queue cimport ax_work

# What one waits for.
cdef enum:
    AX_WAIT_DATA = 0
    AX_WAIT_ROOM = 1
    AX_WAIT_IDLE = 2

cdef void queue_look(ax_work *work) noexcept nogil
cdef bint queue_has_data(ax_work *work) noexcept nogil
cdef bint queue_has_room(ax_work *work) noexcept nogil
cdef bint queue_idle(ax_work *work) noexcept nogil
cdef int queue_wait(ax_work *work, int what, int64_t deadline, uint32_t naps) noexcept nogil
