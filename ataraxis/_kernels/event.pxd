# The eventcount of rings: sleep until something happens, without a system call when nobody sleeps.
#
#   sleeper    read count; set its bit; fence E; look again; sleep while count is unchanged; clear its bit
#   signaller  publish; fence E; if any bit is set: count + 1, wake all
#
# Modelled in tests/models/wake.pml. The two fences are Dekker's: without either of them both sides can
# miss each other. A bit left by somebody who died costs wakes until its byte's owner clears it.
from libc.stdint cimport int64_t, uint32_t, uint64_t
from ataraxis._kernels.atomics cimport (
    ax_add32, ax_and64, ax_fence_full, ax_load32, ax_or64, ax_peek64,
)
from ataraxis._kernels.layout cimport ax_event
from ataraxis._kernels.platform cimport ax_futex_wake

cdef enum:
    EVERYBODY = 0x7FFFFFFF

cdef inline void event_wake(ax_event *event) noexcept nogil:
    # Acquire-release: pairs with the load in event_prepare.
    ax_add32(&event.count, 1)
    ax_futex_wake(&event.count, EVERYBODY)

cdef inline void event_signal(ax_event *event, uint32_t words) noexcept nogil:
    cdef uint32_t k
    # Fence E: what was published before is seen by whoever sets its bit after our look.
    ax_fence_full()
    for k in range(words):
        if ax_peek64(&event.sleepers[k]):
            event_wake(event)
            return

cdef inline uint32_t event_prepare(ax_event *event, uint32_t slot) noexcept nogil:
    cdef uint32_t seen = ax_load32(&event.count)
    ax_or64(&event.sleepers[slot >> 6], <uint64_t>1 << (slot & 63))
    # Fence E: our bit is set before we look again.
    ax_fence_full()
    return seen

cdef inline void event_cancel(ax_event *event, uint32_t slot) noexcept nogil:
    ax_and64(&event.sleepers[slot >> 6], ~(<uint64_t>1 << (slot & 63)))

cdef inline void event_rouse(ax_event *event, uint32_t words) noexcept nogil:
    # As event_signal, where signals come faster than sleepers wake: who was told once is not told again until it
    # goes to sleep anew. Bits go before the count moves: who sets its bit after we cleared it has read the new count,
    # or finds the count moved when it goes to sleep. Modelled in tests/models/queue_wake.pml.
    cdef uint32_t k
    cdef uint64_t seen, found = 0
    ax_fence_full()
    for k in range(words):
        seen = ax_peek64(&event.sleepers[k])
        if seen:
            ax_and64(&event.sleepers[k], ~seen)
            found = 1
    if found:
        event_wake(event)
