# A timeout in seconds as a deadline on the monotonic clock, for bridges.
from libc.stdint cimport INT64_MAX, int64_t
from ataraxis._kernels.platform cimport ax_now_ns

cdef inline int64_t deadline_of(object timeout) except -1:
    # None: no end; 0: do not wait.
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
