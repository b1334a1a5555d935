"""A stream's control words as Python numbers, and the registration of durable readers.

Reading never disturbs the stream. A locked byte of the file guards registration; the kernel unlocks it when its
holder dies.
"""
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from ataraxis._kernels.atomics cimport (
    ax_copy, ax_load32, ax_load64, ax_or64, ax_peek32, ax_peek64, ax_put64, ax_store32, ax_store64,
)
from ataraxis._kernels.event cimport event_wake
from ataraxis._kernels.layout cimport (
    AX_BUSY, AX_CROWDED, AX_CURSOR_IDLE, AX_DURABLES, AX_PAYLOAD_AT, AX_READY, AX_RETIRED, AX_STREAM_RESUMABLE, ax_reader,
    ax_stream,
)
from ataraxis._kernels.memory cimport Participant, ax_party, live_of
from ataraxis._kernels.platform cimport F_UNLCK, F_WRLCK, ax_byte, ax_crash
from ataraxis._kernels.ring cimport control_stride_of

cdef enum:
    REGISTER_BYTE = (1 << 20) + 1


# ---- the algorithm

cdef int register(ax_party *party, const char *name, uint64_t timeout_ns) noexcept nogil:
    # Find a line for the name and own it; the caller holds the registration byte. Or AX_BUSY, AX_CROWDED,
    # AX_RETIRED: the stream was unlinked, so that a reader could not return to a durable name.
    cdef ax_reader *lines = <ax_reader *>(party.control + sizeof(ax_stream)) + party.slots
    cdef int k, free = -1
    cdef char theirs[64]
    if ax_load32(&live_of(party).state) != AX_READY:
        return AX_RETIRED
    for k in range(AX_DURABLES):
        if ax_load32(&lines[k].owner) == 0 and ax_load64(&lines[k].cursor) & 3 == AX_CURSOR_IDLE:
            free = k if free < 0 else free
            continue
        ax_copy(theirs, lines[k].name, 64)
        if memcmp(theirs, name, 64) == 0:
            if ax_load32(&lines[k].owner):
                return AX_BUSY
            free = k
            break
    if free < 0:
        return AX_CROWDED
    # `kept` is set before frames are guaranteed: a segment with undelivered frames is never reclaimed.
    ax_store32(&live_of(party).kept, 1)
    ax_store32(&lines[free].owner, party.slot + 1)
    ax_crash("durable_owned")
    ax_copy(lines[free].name, name, 64)
    ax_put64(&lines[free].timeout_ns, timeout_ns)
    return free


# ---- the bridge

def register_durable(Participant participant not None, bytes name, uint64_t timeout_ns):
    """Own the line of a durable name. Return its number, BUSY (it has a reader), CROWDED, RETIRED, or None to try again."""
    cdef char text[64]
    cdef ax_party *party = &participant.party
    cdef int status
    memset(text, 0, 64)
    memcpy(text, <char *>name, min(len(name), 63))
    if ax_byte(party.probe, 0, F_WRLCK, REGISTER_BYTE) != 0:
        return None
    status = register(party, text, timeout_ns)
    ax_byte(party.probe, 0, F_UNLCK, REGISTER_BYTE)
    return status


def hold_names(Participant participant not None):
    """Lock registration of durable names; return False if another process holds the lock."""
    return ax_byte(participant.party.probe, 0, F_WRLCK, REGISTER_BYTE) == 0


def free_names(Participant participant not None):
    """Unlock registration of durable names."""
    ax_byte(participant.party.probe, 0, F_UNLCK, REGISTER_BYTE)


def registered(Participant participant not None):
    """Return the durable names whose reader has registered and has no cursor yet."""
    cdef ax_reader *lines = <ax_reader *>(participant.party.control + sizeof(ax_stream)) + participant.party.slots
    cdef char text[64]
    cdef int k
    found = []
    for k in range(AX_DURABLES):
        if ax_load32(&lines[k].owner) and ax_load64(&lines[k].cursor) & 3 == AX_CURSOR_IDLE:
            ax_copy(text, lines[k].name, 64)
            found.append((<bytes>text[:64]).split(b"\0")[0])
    return found

def keep(Participant participant not None, bint kept):
    """Set whether the segment holds frames guaranteed to a reader."""
    ax_store32(&live_of(&participant.party).kept, kept)


def label(Participant participant not None, bytes name):
    """Name this participant's reader line, for messages and statistics."""
    cdef ax_party *party = &participant.party
    cdef ax_reader *lines = <ax_reader *>(party.control + sizeof(ax_stream))
    cdef char text[64]
    memset(text, 0, 64)
    memcpy(text, <char *>name, min(len(name), 63))
    # Not atomic: the name is for messages only.
    ax_copy(lines[party.slot].name, text, 64)


def geometry(Participant participant not None):
    """Return slots, capacity, flags."""
    cdef ax_stream *stream = <ax_stream *>participant.party.control
    return stream.slots, stream.capacity, stream.flags


def words(Participant participant not None):
    """Return tail, sent, bytes, last_ns, stalled_ns, stalled_since_ns, refused, skipped, gaps, absent, drained."""
    cdef ax_stream *stream = <ax_stream *>participant.party.control
    return (
        ax_load64(&stream.tail), ax_load64(&stream.sent), ax_peek64(&stream.sent_bytes), ax_peek64(&stream.last_ns),
        ax_peek64(&stream.stalled_ns), ax_peek64(&stream.stalled_since_ns), ax_peek64(&stream.refused),
        ax_peek64(&stream.skipped), ax_peek64(&stream.gaps), ax_peek64(&stream.absent), ax_load64(&stream.drained),
    )


def producers(Participant participant not None):
    """Return the participants that are producers."""
    cdef ax_stream *stream = <ax_stream *>participant.party.control
    cdef uint32_t k
    found = []
    for k in range(participant.party.slots):
        if ax_load64(&stream.producers[k >> 6]) >> (k & 63) & 1:
            found.append(k)
    return found


def is_over(Participant participant not None):
    """Return whether no frame will be published any more: no producer is left, and none may resume the stream."""
    cdef ax_stream *stream = <ax_stream *>participant.party.control
    cdef uint32_t k
    for k in range((participant.party.slots + 63) // 64):
        if ax_load64(&stream.producers[k]):
            return False
    # Acquire: pairs with the release in `producer_leave`.
    return not stream.flags & AX_STREAM_RESUMABLE or ax_load64(&stream.over) != 0


def end(Participant participant not None):
    """Mark the end of a stream whose producer died, and that will not be resumed; wake its readers."""
    cdef ax_stream *stream = <ax_stream *>participant.party.control
    # Release: pairs with `is_over`.
    ax_store64(&stream.over, 1)
    event_wake(&stream.data)


def announce(Participant participant not None):
    """Mark this participant as a producer, before the stream is visible without one."""
    cdef ax_stream *stream = <ax_stream *>participant.party.control
    ax_or64(&stream.producers[participant.party.slot >> 6], <uint64_t>1 << (participant.party.slot & 63))


def take_over(Participant participant not None):
    """Mark this participant as the producer of a stream that has none and is not over; return whether it is.

    The caller has called `hold_names`, so that of several one succeeds.
    """
    if producers(participant) or is_over(participant):
        return False
    ax_crash("resume_alone")
    announce(participant)
    ax_crash("resume_announced")
    return True


def readers(Participant participant not None):
    """Return for each reader: slot (None: durable and away), is_durable, state, position, policy, received, dropped,
    joined, detached_ns, timeout_ns, name."""
    cdef ax_party *party = &participant.party
    cdef ax_stream *stream = <ax_stream *>party.control
    cdef ax_reader *lines = <ax_reader *>(party.control + sizeof(ax_stream))
    cdef ax_reader *line
    cdef uint32_t k
    cdef uint64_t cursor
    cdef char text[64]
    found = []
    for k in range(party.slots + AX_DURABLES):
        if k < party.slots:
            if not ax_load64(&stream.readers[k >> 6]) >> (k & 63) & 1:
                continue
        elif not ax_load64(&stream.durables) >> (k - party.slots) & 1:
            continue
        line = &lines[k]
        cursor = ax_load64(&line.cursor)
        ax_copy(text, line.name, 64)
        slot = <object>k if k < party.slots else <object>(ax_load32(&line.owner)) - 1
        found.append((
            slot if slot >= 0 else None, k >= party.slots, <int>(cursor & 3), cursor >> 2, ax_peek32(&line.policy) & 0xFF,
            ax_peek64(&line.received), ax_peek64(&line.dropped), ax_peek64(&line.joined), ax_peek64(&line.detached_ns),
            ax_peek64(&line.timeout_ns), (<bytes>text[:64]).split(b"\0")[0],
        ))
    return found


def reader_count(Participant participant not None):
    """Return the number of readers, durable ones that are away included."""
    cdef ax_stream *stream = <ax_stream *>participant.party.control
    cdef uint32_t k
    cdef int count = (<object>ax_load64(&stream.durables)).bit_count()
    for k in range((participant.party.slots + 63) // 64):
        count += (<object>ax_load64(&stream.readers[k])).bit_count()
    return count


def control_bytes(uint64_t slots, uint32_t participants):
    """Return the size of a stream's control block in bytes; a multiple of 128."""
    return sizeof(ax_stream) + (participants + AX_DURABLES) * sizeof(ax_reader) + slots * control_stride_of(participants)


def stride_of(uint64_t capacity):
    """Return the bytes from slot to slot for at most `capacity` payload bytes; a multiple of 128."""
    return (AX_PAYLOAD_AT + capacity + 127) // 128 * 128


def describe(
    unsigned char[::1] control, uint64_t slots, uint64_t capacity, uint32_t participants, uint32_t flags, uint64_t first=0,
):
    """Write a stream's geometry into its control block, which is all zeros and not published yet.

    `first`: number of its first frame.
    """
    cdef ax_stream *stream = <ax_stream *>&control[0]
    stream.slots = slots
    stream.stride = stride_of(capacity)
    stream.capacity = capacity
    stream.control_stride = control_stride_of(participants)
    stream.participants = participants
    stream.flags = flags
    ax_put64(&stream.sent, first)
    ax_put64(&stream.absent, first)


# A status, for other packages.
RETIRED = AX_RETIRED
