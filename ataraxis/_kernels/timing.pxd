# Deadlines on the monotonic clock, and spinning before a sleep.
from libc.stdint cimport INT64_MAX, int64_t, uint32_t

from ataraxis._kernels.atomics cimport ax_linger
from ataraxis._kernels.platform cimport ax_now_ns

cdef enum:
    SPIN_MAX_NS = 100000   # a sleep and its wake-up cost some 30 us on small machines
    SPIN_CROWDED_NS = 5000 # with more participants than CPUs: the one waited for may need this CPU
    SPIN_MIN_NS = 2000
    PAUSES = 16            # between two checks for a frame, below 1 us
    ROOM_PAUSES = 512      # between two checks for room, at most

cdef inline int64_t deadline_of(object timeout) except -1:
    # None: wait without limit; 0: do not wait.
    cdef double seconds
    if timeout is None:
        return INT64_MAX
    seconds = timeout
    if not seconds >= 0:
        raise ValueError(f"timeout must be None or >= 0 s, got {timeout!r}")
    if seconds == 0:
        return 0
    if seconds > 9e8:
        return INT64_MAX
    return ax_now_ns() + <int64_t>(seconds * 1e9)


cdef inline void pause(uint32_t times) noexcept nogil:
    while times:
        ax_linger()
        times -= 1

cdef inline bint spin_on(uint32_t pauses, int64_t began, int64_t spin_ns) noexcept nogil:
    # Between two checks of a spin: whether to go on.
    pause(pauses)
    return ax_now_ns() - began < spin_ns

cdef inline int64_t next_spin(int64_t spin_ns, int64_t waited_ns) noexcept nogil:
    # How long to spin next time, after a spin failed. A wait that short is worth spinning for.
    if spin_ns == 0 or waited_ns < SPIN_MAX_NS * 3 // 2:
        return SPIN_MAX_NS if spin_ns else 0
    return max(spin_ns // 2, SPIN_MIN_NS)
