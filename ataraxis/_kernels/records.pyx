"""Frames on their way into a file: stamped, checksummed, padded, and written many at a time.

The buffer holds whole frames only. What failed to be written stays in it, and is written again to the same
place by the next try.
"""
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from ataraxis._kernels.crc cimport ax_crc32, ax_crc_init, ax_header_crc, ax_seal_of
from ataraxis._kernels.frame cimport AX_FLAG_CHECKSUM, AX_FRAME_MAGIC, ax_frame, ax_padded
from ataraxis._kernels.journal cimport ax_run, ax_run_add, ax_write_all, iovec
from ataraxis._kernels.layout cimport AX_FULL, AX_OK, AX_TORN
from ataraxis._kernels.platform cimport ax_crash

cdef enum:
    RUNS = 1024                 # kept until the index is written
    LATENCY_ROWS = 4096         # rows between looks at signals

ax_crc_init()


# ---- the algorithm

cdef int drain(ax_sink *sink, const char *more, uint64_t count) noexcept nogil:
    # The buffer, and `count` bytes behind it, into the file; `more` ends a frame, so it is padded.
    cdef char zeros[64]
    cdef iovec pieces[3]
    cdef int n = 1
    cdef uint64_t total = sink.used + count, pad = ax_padded(total) - total
    if not total:
        return AX_OK
    pieces[0].iov_base, pieces[0].iov_len = sink.buffer, sink.used
    if count:
        pieces[1].iov_base, pieces[1].iov_len = <void *>more, count
        n = 2
    if pad:
        memset(zeros, 0, 64)
        pieces[n].iov_base, pieces[n].iov_len = zeros, pad
        n += 1
    ax_crash("journal_unwritten")
    sink.error = ax_write_all(sink.fd, pieces, n, sink.at)
    if sink.error:
        return AX_TORN
    ax_crash("journal_written")
    sink.at += total + pad
    sink.used = 0
    sink.frames += sink.waiting
    sink.waiting = 0
    return AX_OK


cdef int write_index(ax_sink *sink) noexcept nogil:
    # The runs of what is in the file; whoever dies before only costs a scan.
    cdef iovec piece
    cdef size_t k
    if not sink.runs:
        return AX_OK
    for k in range(sink.runs):
        sink.run[k].crc = ax_header_crc(sink.seal, &sink.run[k])
    piece.iov_base, piece.iov_len = sink.run, sink.runs * sizeof(ax_run)
    sink.error = ax_write_all(sink.index_fd, &piece, 1, sink.index_at)
    if sink.error:
        return AX_TORN
    ax_crash("journal_indexed")
    sink.index_at += sink.runs * sizeof(ax_run)
    sink.runs = 0
    return AX_OK


cdef int room(ax_sink *sink, uint64_t wanted) noexcept nogil:
    # A place for a frame and for its run. AX_FULL: the file is.
    if sink.at + sink.used >= sink.limit:
        return AX_FULL
    if sink.used + wanted > sink.capacity and drain(sink, NULL, 0) != AX_OK:
        return AX_TORN
    if sink.runs >= RUNS - 1 and (drain(sink, NULL, 0) != AX_OK or write_index(sink) != AX_OK):
        return AX_TORN
    return AX_OK


cdef int put(ax_sink *sink, ax_frame *head, const char *front, uint64_t front_bytes, const char *data, uint64_t count,
             bint is_checked) noexcept nogil:
    # One frame. `front`: its extensions; is_checked: its checksum is in the header already.
    cdef uint64_t inside = sizeof(ax_frame) + front_bytes, offset, padded
    cdef bint is_direct = count > DIRECT_BYTES
    cdef int status = room(sink, ax_padded(inside + (0 if is_direct else count)))
    cdef uint32_t crc
    cdef char *to
    if status != AX_OK:
        return status
    head.length = front_bytes + count
    offset = sink.at + sink.used
    padded = ax_padded(inside + count)
    to = sink.buffer + sink.used
    if front_bytes:
        memcpy(to + sizeof(ax_frame), front, front_bytes)
    if count and not is_direct:
        memcpy(to + inside, data, count)
    if head.flags & AX_FLAG_CHECKSUM and not is_checked:
        # Of the copy, in one go; of what is not copied, from where it is.
        crc = ax_crc32(0, to + sizeof(ax_frame), front_bytes + (0 if is_direct else count))
        head.crc = ax_crc32(crc, data, count) if is_direct else crc
    head.header_crc = ax_header_crc(sink.seal, head)
    memcpy(to, head, sizeof(ax_frame))
    sink.waiting += 1
    if is_direct:
        sink.used += inside
        if drain(sink, data, count) != AX_OK:
            sink.used -= inside
            sink.waiting -= 1
            return AX_TORN
    else:
        memset(to + inside + count, 0, padded - inside - count)
        sink.used += padded
    sink.runs = ax_run_add(sink.run, 0, sink.runs, offset, padded, head)
    return AX_OK


cdef int put_whole(ax_sink *sink, const char *frame, uint64_t padded) noexcept nogil:
    # A frame of DIRECT_BYTES or less as it is, with its padding. A CRC is linear: one XOR makes that of a header from no
    # seed into that of this file's, and what was wrong before stays wrong.
    cdef char *to
    cdef int status = room(sink, padded)
    if status != AX_OK:
        return status
    to = sink.buffer + sink.used
    memcpy(to, frame, padded)
    (<ax_frame *>to).header_crc ^= sink.shift
    sink.runs = ax_run_add(sink.run, 0, sink.runs, sink.at + sink.used, padded, <ax_frame *>to)
    sink.used += padded
    sink.waiting += 1
    return AX_OK


cdef int put_several(ax_sink *sink, ax_frame *heads, const char **data, uint32_t *count) noexcept nogil:
    # Frames of DIRECT_BYTES or more, at most SEVERAL, in one write: all that this file takes of them, or TORN and none.
    # `data`: what follows the header, padded as in a file; checksums are in the headers already.
    cdef iovec pieces[2 * SEVERAL]
    cdef uint64_t start = sink.at + sink.used, end = start
    cdef uint32_t k, n = 0
    cdef int status = room(sink, SEVERAL * sizeof(ax_frame))
    cdef char *to
    if status != AX_OK:
        count[0] = 0
        return status
    if sink.runs + SEVERAL >= RUNS and (drain(sink, NULL, 0) != AX_OK or write_index(sink) != AX_OK):
        count[0] = 0
        return AX_TORN
    to = sink.buffer + sink.used
    while n < count[0] and end < sink.limit:
        heads[n].header_crc = ax_header_crc(sink.seal, &heads[n])
        memcpy(to, &heads[n], sizeof(ax_frame))
        pieces[2 * n].iov_base, pieces[2 * n].iov_len = to, sizeof(ax_frame)
        pieces[2 * n + 1].iov_base = <void *>data[n]
        pieces[2 * n + 1].iov_len = ax_padded(sizeof(ax_frame) + heads[n].length) - sizeof(ax_frame)
        end += ax_padded(sizeof(ax_frame) + heads[n].length)
        to += sizeof(ax_frame)
        n += 1
    pieces[0].iov_base, pieces[0].iov_len = sink.buffer, sink.used + sizeof(ax_frame)
    count[0] = 0
    ax_crash("journal_unwritten")
    sink.error = ax_write_all(sink.fd, pieces, 2 * n, sink.at)
    if sink.error:
        return AX_TORN
    ax_crash("journal_written")
    sink.at = end
    sink.used = 0
    sink.frames += sink.waiting + n
    sink.waiting = 0
    for k in range(n):
        end = ax_padded(sizeof(ax_frame) + heads[k].length)
        sink.runs = ax_run_add(sink.run, 0, sink.runs, start, end, &heads[k])
        start += end
    count[0] = n
    return AX_OK


cdef uint64_t frame_bytes(const char *data, uint64_t left) noexcept nogil:
    # Of the frame that begins here, or 0: none does.
    cdef uint64_t length = 0
    if left < sizeof(ax_frame) or memcmp(data, AX_FRAME_MAGIC, 4) != 0:
        return 0
    memcpy(&length, data + 8, 8)
    return sizeof(ax_frame) + length if length <= left - sizeof(ax_frame) else 0


# ---- the bridge

cdef class RecordKernel:
    """A file of frames and its index, both open for writing; a subclass names them and gives the manners."""

    def _open(self, int fd, int index_fd, uint64_t at, uint64_t index_at, uint64_t limit, uint32_t seed,
              Py_ssize_t capacity):
        """Write from `at` on; what waits in the buffer goes there too."""
        cdef ax_sink *sink = &self.sink
        cdef ax_frame nothing
        if sink.buffer == NULL:
            self.buffer = bytearray(capacity + 2 * DIRECT_BYTES)
            self.run_memory = bytearray(RUNS * sizeof(ax_run))
            sink.buffer, sink.run = <char *>&self.buffer[0], <ax_run *>&self.run_memory[0]
            sink.capacity = capacity + 2 * DIRECT_BYTES
        sink.fd, sink.index_fd, sink.at, sink.index_at, sink.limit = fd, index_fd, at, index_at, limit
        sink.seal = ax_seal_of(seed)
        memset(&nothing, 0, sizeof(ax_frame))
        sink.shift = ax_header_crc(sink.seal, &nothing) ^ ax_crc32(0, &nothing, sizeof(ax_frame) - 4)

    def _rows(self, const unsigned char[::1] template not None, const unsigned char[:, ::1] rows not None,
              const unsigned char[:, ::1] fronts, uint64_t sequence, const int64_t[::1] times, int64_t time, int64_t step):
        """Take rows as frames like `template`: how many, and FULL, TORN or OK."""
        cdef ax_frame head
        cdef uint64_t count = rows.shape[1], front_bytes = fronts.shape[1] if fronts is not None else 0
        cdef Py_ssize_t n = rows.shape[0], k = 0, stop
        cdef const char *data = NULL
        cdef const char *front = NULL
        cdef int status = AX_OK
        if n and count:
            data = <const char *>&rows[0, 0]
        if n and front_bytes:
            front = <const char *>&fronts[0, 0]
        memcpy(&head, &template[0], sizeof(ax_frame))
        while k < n and status == AX_OK:
            stop = min(n, k + LATENCY_ROWS)
            with nogil:
                while k < stop:
                    head.sequence = sequence + <uint64_t>k
                    head.time_ns = times[k] if times is not None else time + k * step
                    status = put(&self.sink, &head, front, front_bytes, data + <uint64_t>k * count, count, False)
                    if status != AX_OK:
                        break
                    k += 1
                    if front_bytes:
                        front += front_bytes
        return k, status

    def _packed(self, const unsigned char[::1] data not None, Py_ssize_t start, Py_ssize_t align, int64_t source,
                int64_t labels):
        """Take frames that lie back to back, `align` bytes apart: how many, the next byte, and the status.

        `source` and `labels` replace theirs if they are not negative, the labels only of frames that have some. Here only the magic and the length are looked
        at: what no frame begins stops it, with OK.
        """
        cdef ax_frame head
        cdef uint64_t whole, n = data.shape[0], at = start
        cdef Py_ssize_t frames = 0
        cdef const char *base = NULL
        cdef int status = AX_OK
        if n:
            base = <const char *>&data[0]
        with nogil:
            while at < n:
                whole = frame_bytes(base + at, n - at)
                if not whole:
                    break
                memcpy(&head, base + at, sizeof(ax_frame))
                if source >= 0:
                    head.source = <uint32_t>source
                if labels >= 0 and head.labels:
                    head.labels = <uint32_t>labels
                status = put(
                    &self.sink, &head, NULL, 0, base + at + sizeof(ax_frame), whole - sizeof(ax_frame),
                    head.flags & AX_FLAG_CHECKSUM,
                )
                if status != AX_OK:
                    break
                frames += 1
                at += (whole + align - 1) // align * align
        return frames, at, status

    def _flush(self):
        """Bring all of it into the file, and the runs into the index: OK or TORN."""
        cdef int status
        with nogil:
            status = drain(&self.sink, NULL, 0)
            if status == AX_OK:
                status = write_index(&self.sink)
        PyErr_CheckSignals()
        return status

    def _limit(self, uint64_t limit):
        """Let no frame begin at or behind a byte of the file."""
        self.sink.limit = limit

    @property
    def _error(self):
        """errno of the last write, 0 if it went well."""
        return -self.sink.error

    @property
    def _written(self):
        """Bytes of the file, and frames brought into it since the kernel was made."""
        return self.sink.at, self.sink.frames

    @property
    def _waiting(self):
        """Bytes and frames that are in the buffer."""
        return self.sink.used, self.sink.waiting

    @property
    def _index_at(self):
        return self.sink.index_at


def crc32(const unsigned char[::1] data not None, uint32_t value=0):
    """CRC-32 of bytes, as zlib's."""
    cdef size_t n = data.shape[0]
    return ax_crc32(value, &data[0], n) if n else value


OK, FULL, TORN = AX_OK, AX_FULL, AX_TORN
