# Eventcount: sleep until an event. Signalling makes no system call while no thread sleeps.
#
#   sleeper    read count; set its bit; fence E; check again; sleep while count is unchanged; clear its bit
#   signaller  publish; fence E; if any bit is set: clear them all; count + 1, wake all
#
# Modelled in tests/models/wake.pml. The two fences are Dekker's: without either of them both sides can
# miss each other. Bits are cleared before the count changes: a bit set after that belongs to a sleeper that read the
# new count, or whose sleep the new count ends. A sleeper is woken once, however many events precede its wake-up.
# A signaller killed between the two leaves sleepers to the end of their slice (PROBE_NS).
from libc.stdint cimport uint32_t, uint64_t

from ataraxis._kernels.atomics cimport ax_add32, ax_and64, ax_fence_full, ax_load32, ax_or64, ax_peek64
from ataraxis._kernels.layout cimport ax_event
from ataraxis._kernels.platform cimport ax_crash, ax_futex_wake

cdef enum:
    ALL_SLEEPERS = 0x7FFFFFFF

cdef inline void event_wake(ax_event *event) noexcept nogil:
    # Acquire-release: pairs with the load in event_prepare.
    ax_add32(&event.count, 1)
    ax_futex_wake(&event.count, ALL_SLEEPERS)

cdef inline void event_signal(ax_event *event, uint32_t words) noexcept nogil:
    cdef uint32_t k
    cdef bint has_sleepers = False
    # Fence E: a sleeper whose bit is set after the check below sees what was published before.
    ax_fence_full()
    for k in range(words):
        if ax_peek64(&event.sleepers[k]):
            ax_and64(&event.sleepers[k], 0)
            has_sleepers = True
    if has_sleepers:
        ax_crash("wake_cleared")
        event_wake(event)

cdef inline uint32_t event_prepare(ax_event *event, uint32_t slot) noexcept nogil:
    cdef uint32_t seen = ax_load32(&event.count)
    ax_or64(&event.sleepers[slot >> 6], <uint64_t>1 << (slot & 63))
    # Fence E: the bit is set before the caller checks again.
    ax_fence_full()
    return seen

cdef inline void event_cancel(ax_event *event, uint32_t slot) noexcept nogil:
    # A signaller that woke this thread has cleared it.
    if ax_peek64(&event.sleepers[slot >> 6]) >> (slot & 63) & 1:
        ax_and64(&event.sleepers[slot >> 6], ~(<uint64_t>1 << (slot & 63)))
