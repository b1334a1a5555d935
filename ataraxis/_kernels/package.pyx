"""Entries of a log on their way: one package, checked; and what a drained buffer holds.

It uses the NumPy C-API for the quick look at an array.
"""
cimport numpy as cnp
from cpython.bool cimport PyBool_Check
from cpython.long cimport PyLong_AsUnsignedLongLong
from cpython.number cimport PyNumber_Index
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from ataraxis._kernels.frame cimport (
    AX_EXTENTS_BYTES, AX_FLAG_DEVICE_STAMP, AX_FLAG_EXTENTS, AX_STAMP_BYTES, ax_frame, ax_padded,
)

cnp.import_array()

cdef enum:
    MOST_SOURCES = 256


# ---- the algorithm

cdef struct ax_survey:
    uint64_t frames
    uint64_t payload
    uint64_t end


cdef void survey_frames(const char *data, uint64_t bytes, uint64_t *numbers, uint64_t room, ax_survey *found) noexcept nogil:
    # Go from frame to frame, each padded to 64; `end` is where something that is none begins.
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

def survey(const unsigned char[::1] data not None, uint64_t[::1] numbers not None):
    """Look at drained frames: how many, bytes of payload, and where they end.

    The number of each goes into `numbers`, which is as long as there may be frames.
    """
    cdef ax_survey found
    found.frames = found.payload = found.end = 0
    if data.shape[0] and numbers.shape[0]:
        with nogil:
            survey_frames(<const char *>&data[0], data.shape[0], &numbers[0], numbers.shape[0], &found)
    return found.frames, found.payload, found.end


cdef class Package:
    """A source, a stamp and the bytes to keep; a subclass gives names and complaints.

    It provides `_settle(source, stamp, data)` -> the same, as plain integers and a uint8 vector, or raises.
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
        # Whether all three are as they should be; then they are taken.
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
