"""Reading frames from files and buffers: listing, checking, gathering; entries of a log.

The bytes are not trusted. All reads stay inside the given memory; bytes that are not a frame are skipped, 64 at a
time. Uses the NumPy C-API to examine arrays.
"""
cimport numpy as cnp
from cpython.bool cimport PyBool_Check
from cpython.long cimport PyLong_AsUnsignedLongLong
from cpython.number cimport PyNumber_Index
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from ataraxis._kernels.crc cimport ax_crc32, ax_crc_init, ax_header_crc, ax_seal, ax_seal_of
from ataraxis._kernels.frame cimport (
    AX_EXTENTS_BYTES, AX_FLAG_CHECKSUM, AX_FLAG_DEVICE_STAMP, AX_FLAG_EXTENTS, AX_FRAME_MAGIC, AX_FRAME_PAD,
    AX_STAMP_BYTES, ax_frame, ax_front_bytes, ax_padded,
)
from ataraxis._kernels.journal cimport (
    AX_ENTRY_BROKEN, AX_ENTRY_CUT, AX_ENTRY_GOOD, AX_ENTRY_LOST, AX_RUN_CONTROL, AX_RUN_DAMAGE, AX_RUN_DATA, ax_entry,
    ax_run, ax_run_add,
)

ax_crc_init()

cnp.import_array()

cdef enum:
    MOST_SOURCES = 256


# ---- the algorithm

cdef inline bint is_header(const char *data, uint64_t left, ax_seal seal, ax_frame *head) noexcept nogil:
    if left < sizeof(ax_frame) or memcmp(data, AX_FRAME_MAGIC, 4) != 0:
        return False
    memcpy(head, data, sizeof(ax_frame))
    return head.header_crc == ax_header_crc(seal, head) and head.length >= ax_front_bytes(head.flags)


cdef int describe_entry(const char *data, uint64_t at, uint64_t stop, ax_seal seal, uint64_t stride, ax_entry *entry) noexcept nogil:
    # Describe what begins at `at`: a frame, a truncated frame, or a gap until the next frame.
    cdef ax_frame head
    cdef uint64_t next = at
    if is_header(data + at, stop - at, seal, &head):
        entry.offset, entry.bytes, entry.time_ns, entry.sequence = at, head.length, head.time_ns, head.sequence
        entry.source, entry.labels, entry.flags = head.source, head.labels, head.flags
        entry.dtype, entry.ndim = head.dtype, head.ndim
        entry.state = AX_ENTRY_GOOD if head.length <= stop - at - sizeof(ax_frame) else AX_ENTRY_CUT
        return entry.state
    memset(entry, 0, sizeof(ax_entry))
    if stride:
        next = min(at + stride, stop)
    else:
        while next < stop:
            next = min(next + AX_FRAME_PAD, stop)
            if is_header(data + next, stop - next, seal, &head):
                break
    entry.offset, entry.bytes, entry.state = at, next - at, AX_ENTRY_LOST
    return AX_ENTRY_LOST


cdef inline uint64_t entry_end(ax_entry *entry, uint64_t stop) noexcept nogil:
    if entry.state == AX_ENTRY_CUT:
        return stop
    if entry.state == AX_ENTRY_LOST:
        return entry.offset + entry.bytes
    # May be after the end of the file: padding may be missing.
    return entry.offset + ax_padded(sizeof(ax_frame) + entry.bytes)


cdef bint checksum_matches(const char *data, ax_entry *entry) noexcept nogil:
    # Whether the checksum matches, if there is one.
    cdef ax_frame head
    memcpy(&head, data + entry.offset, sizeof(ax_frame))
    return not head.flags & AX_FLAG_CHECKSUM or head.crc == ax_crc32(0, data + entry.offset + sizeof(ax_frame), entry.bytes)


cdef size_t make_runs(const char *data, uint64_t *at, uint64_t stop, ax_seal seal, ax_run *runs, size_t room) noexcept nogil:
    # Make runs of the bytes between `at` and `stop`, at most `room`; moves `at`.
    cdef size_t count = 0
    cdef ax_entry entry
    cdef ax_frame head
    while at[0] < stop and count < room:
        if describe_entry(data, at[0], stop, seal, 0, &entry) == AX_ENTRY_GOOD:
            memcpy(&head, data + at[0], sizeof(ax_frame))
            count = ax_run_add(runs, 0, count, at[0], entry_end(&entry, stop) - at[0], &head)
        else:
            memset(&runs[count], 0, sizeof(ax_run))
            runs[count].offset, runs[count].bytes = at[0], entry_end(&entry, stop) - at[0]
            runs[count].kind = AX_RUN_DAMAGE
            count += 1
        at[0] = entry_end(&entry, stop)
    return count


cdef struct ax_summary:
    uint64_t frames
    uint64_t payload
    uint64_t end


cdef void add_up_frames(const char *data, uint64_t bytes, uint64_t *numbers, uint64_t room, ax_summary *found) noexcept nogil:
    # Go from frame to frame, each padded to 64; `end` is the first byte that does not begin a frame.
    cdef ax_frame head
    cdef uint64_t at = 0, length, front
    while at + sizeof(ax_frame) <= bytes and found.frames < room:
        memcpy(&head, data + at, sizeof(ax_frame))
        length = head.length
        if length > bytes - at - sizeof(ax_frame):
            break
        front = sizeof(ax_frame)
        if head.flags & AX_FLAG_EXTENTS:
            front += AX_EXTENTS_BYTES
        if head.flags & AX_FLAG_DEVICE_STAMP:
            front += AX_STAMP_BYTES
        if front > sizeof(ax_frame) + length:
            break
        numbers[found.frames] = head.sequence
        found.frames += 1
        found.payload += sizeof(ax_frame) + length - front
        at += ax_padded(sizeof(ax_frame) + length)
    found.end = min(at, bytes)


# ---- the bridge

def list_entries(const unsigned char[::1] data not None, uint64_t start, uint64_t stop, uint32_t seed, uint64_t stride,
                 unsigned char[::1] out not None, bint verify):
    """List the entries between two bytes; return how many, and the byte after them. Stops when `out` is full."""
    cdef ax_seal seal = ax_seal_of(seed)
    cdef size_t count = 0, room = out.shape[0] // sizeof(ax_entry)
    cdef const char *base
    cdef ax_entry *entries
    if stop > <uint64_t>data.shape[0] or not room or start >= stop:
        return 0, start
    base, entries = <const char *>&data[0], <ax_entry *>&out[0]
    with nogil:
        while start < stop and count < room:
            if describe_entry(base, start, stop, seal, stride, &entries[count]) == AX_ENTRY_GOOD:
                if verify and not checksum_matches(base, &entries[count]):
                    entries[count].state = AX_ENTRY_BROKEN
            start = entry_end(&entries[count], stop)
            count += 1
    return count, start


def list_runs(const unsigned char[::1] data not None, uint64_t start, uint64_t stop, uint32_t seed,
              unsigned char[::1] out not None):
    """Make the index of the bytes from `start` to `stop`; return how many runs, and the byte after them."""
    cdef ax_seal seal = ax_seal_of(seed)
    cdef size_t count, k, room = out.shape[0] // sizeof(ax_run)
    cdef ax_run *runs
    if stop > <uint64_t>data.shape[0] or not room or start >= stop:
        return 0, start
    runs = <ax_run *>&out[0]
    with nogil:
        count = make_runs(<const char *>&data[0], &start, stop, seal, runs, room)
        for k in range(count):
            runs[k].crc = ax_header_crc(seal, &runs[k])
    return count, start


def good_runs(const unsigned char[::1] data not None, uint32_t seed, uint64_t start, uint64_t size):
    """Count the valid runs: with a correct CRC, contiguous, inside the file."""
    cdef ax_seal seal = ax_seal_of(seed)
    cdef size_t k, count = data.shape[0] // sizeof(ax_run)
    cdef ax_run run
    with nogil:
        for k in range(count):
            memcpy(&run, &data[k * sizeof(ax_run)], sizeof(ax_run))
            if (run.crc != ax_header_crc(seal, &run) or run.offset != start or run.bytes > ax_padded(size) - start
                    or run.bytes % AX_FRAME_PAD and run.kind != AX_RUN_DAMAGE or run.kind > AX_RUN_DAMAGE or run.count > run.bytes // AX_FRAME_PAD
                    or run.stride and run.count * <uint64_t>run.stride != run.bytes):
                count = k
                break
            start += run.bytes
    return count


def check_entries(const unsigned char[::1] data not None, unsigned char[::1] table not None):
    """Mark each good entry with a wrong checksum as broken; return how many."""
    cdef size_t k, count = table.shape[0] // sizeof(ax_entry), bad = 0
    cdef uint64_t size = data.shape[0]
    cdef ax_entry *entries
    cdef const char *base
    if not count or not size:
        return 0
    base, entries = <const char *>&data[0], <ax_entry *>&table[0]
    with nogil:
        for k in range(count):
            if entries[k].state != AX_ENTRY_GOOD:
                continue
            if not inside(&entries[k], size) or not checksum_matches(base, &entries[k]):
                entries[k].state = AX_ENTRY_BROKEN
                bad += 1
    return bad


cdef inline bint inside(ax_entry *entry, uint64_t size) noexcept nogil:
    return entry.offset <= size and sizeof(ax_frame) <= size - entry.offset and \
        entry.bytes <= size - entry.offset - sizeof(ax_frame)


cdef inline bint is_same_kind(const char *a, const char *b) noexcept nogil:
    # Whether dtype, shape and labels are equal.
    return memcmp(a + 4, b + 4, 2) == 0 and memcmp(a + 32, b + 32, 16) == 0 and memcmp(a + 56, b + 56, 4) == 0


def gather(const unsigned char[::1] data not None, const unsigned char[::1] table not None,
           unsigned char[:, ::1] out not None, bint verify):
    """Copy the payloads of entries into the rows of `out`; return the index of the first that fails, or their number.

    An entry fails if it is damaged, its payload is not of a row's size, or its dtype or shape differs from the first
    one's.
    """
    cdef size_t k = 0, count = table.shape[0] // sizeof(ax_entry)
    cdef uint64_t size = data.shape[0], row = out.shape[1], front
    cdef ax_entry entry
    cdef const char *base
    cdef const char *first
    cdef char *to
    if <size_t>out.shape[0] < count:
        raise ValueError("out has fewer rows than there are entries")
    if not count or not size:
        return 0
    base, first, to = <const char *>&data[0], NULL, NULL
    if row:
        to = <char *>&out[0, 0]
    with nogil:
        while k < count:
            memcpy(&entry, &table[k * sizeof(ax_entry)], sizeof(ax_entry))
            front = ax_front_bytes(entry.flags)
            if entry.state != AX_ENTRY_GOOD or not inside(&entry, size) or entry.bytes != front + row:
                break
            if verify and not checksum_matches(base, &entry):
                break
            if k == 0:
                first = base + entry.offset
            elif not is_same_kind(first, base + entry.offset):
                break
            if row:
                memcpy(to + k * row, base + entry.offset + sizeof(ax_frame) + front, row)
            k += 1
    return k


def device_stamps(const unsigned char[::1] data not None, const unsigned char[::1] table not None, int64_t[:, ::1] out not None):
    """Copy device time and counter of entries into rows of two; return the first entry without, or their number."""
    cdef size_t k = 0, count = table.shape[0] // sizeof(ax_entry)
    cdef uint64_t size = data.shape[0], at
    cdef ax_entry entry
    with nogil:
        while k < count:
            memcpy(&entry, &table[k * sizeof(ax_entry)], sizeof(ax_entry))
            if not entry.flags & AX_FLAG_DEVICE_STAMP or not inside(&entry, size):
                break
            at = entry.offset + sizeof(ax_frame) + (AX_EXTENTS_BYTES if entry.flags & AX_FLAG_EXTENTS else 0)
            if at > size - AX_STAMP_BYTES:
                break
            memcpy(&out[k, 0], &data[at], AX_STAMP_BYTES)
            k += 1
    return k


def summarize_frames(const unsigned char[::1] data not None, uint64_t[::1] numbers not None):
    """Return the number of drained frames, their bytes of payload, and where they end.

    Writes their sequences to `numbers`, which must be long enough.
    """
    cdef ax_summary found
    found.frames = found.payload = found.end = 0
    if data.shape[0] and numbers.shape[0]:
        with nogil:
            add_up_frames(<const char *>&data[0], data.shape[0], &numbers[0], numbers.shape[0], &found)
    return found.frames, found.payload, found.end


cdef class Package:
    """A source, a stamp and the bytes to store.

    A subclass provides `_settle(source, stamp, data)` -> the same, as plain integers and a uint8 vector, or raises.
    """

    cdef readonly uint32_t source
    cdef readonly uint64_t stamp
    cdef readonly object payload

    def __init__(self, source_id, timestamp=None, data=None, *, time_stamp=None, acquisition_time=None, serialized_data=None):
        if time_stamp is not None or acquisition_time is not None or serialized_data is not None:
            timestamp, data = self._named(timestamp, data, time_stamp, acquisition_time, serialized_data)
        if not self.take(source_id, timestamp, data):
            source_id, timestamp, data = self._settle(source_id, timestamp, data)
            self.source, self.stamp, self.payload = source_id, timestamp, data

    cdef bint take(self, source, stamp, data) except -1:
        # Store the three if no conversion is needed; else False.
        cdef uint64_t number
        if not (
            cnp.PyArray_CheckExact(data) and cnp.PyArray_TYPE(data) == cnp.NPY_UINT8 and cnp.PyArray_NDIM(data) == 1
        ) or PyBool_Check(source) or PyBool_Check(stamp):
            return False
        try:
            number = PyLong_AsUnsignedLongLong(PyNumber_Index(source))
            self.stamp = PyLong_AsUnsignedLongLong(PyNumber_Index(stamp))
        except (TypeError, OverflowError):
            return False
        if number >= MOST_SOURCES:
            return False
        self.source = number
        self.payload = data
        return True


# States of entries and kinds of runs, for other packages.
GOOD, LOST, BROKEN, CUT = AX_ENTRY_GOOD, AX_ENTRY_LOST, AX_ENTRY_BROKEN, AX_ENTRY_CUT
DATA, CONTROL, DAMAGE = AX_RUN_DATA, AX_RUN_CONTROL, AX_RUN_DAMAGE
