"""JournalWriter: frames to files, many at a time."""

from __future__ import annotations

import math
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ataraxis._kernels.journal_write import FULL, OK, TORN, RecordKernel
from ataraxis._kernels.memory import crash_point
from ataraxis.clock import Anchor, now_ns
from ataraxis.errors import LoggerError, NotConnectedError
from ataraxis.frame import HEADER_BYTES, DType, Frame, Header
from ataraxis.labels import Labels, fit, unmasked, whole
from ataraxis.log.journal.output import FIRST, OutputFile, Syncer
from ataraxis.log.journal.page import CONTROL_SOURCE, encode_record, labels_record
from ataraxis.log.modes import make_folder
from ataraxis.shm.limits import advice

if TYPE_CHECKING:
    from ataraxis._kernels.journal_write import QueueToFile, RingToFile

# ---- rows of an array as frames: headers and extensions

_CODES = {
    "u1": DType.U8, "u2": DType.U16, "u4": DType.U32, "u8": DType.U64,
    "i1": DType.I8, "i2": DType.I16, "i4": DType.I32, "i8": DType.I64,
    "f2": DType.F16, "f4": DType.F32, "f8": DType.F64, "c8": DType.C64,
    "c16": DType.C128, "b1": DType.BOOL,
}  # fmt: skip


class EncodedRows(NamedTuple):
    """Rows as bytes."""

    template: bytes
    """Header that all rows share, except sequence number, time and checksums."""
    data: NDArray[np.uint8]
    """Payloads, shape (rows, bytes); a view of the input if that is contiguous."""
    fronts: NDArray[np.uint8] | None
    """Header extensions, shape (rows, bytes)."""


def row_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """View a contiguous array as the bytes of its rows, shape (rows, bytes)."""
    width = array.itemsize * math.prod(array.shape[1:])
    if not array.size * array.itemsize:
        return np.empty((len(array), width), np.uint8)
    return array.reshape(-1).view(np.uint8).reshape(len(array), width)


def plain_header(
    source: int, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> bytes | None:
    """Return the header of rows with device stamps; None if they need labels or more.

    The caller adds sequence numbers, times and checksums.
    """
    code = _code_of(dtype)
    if code == DType.ND_ARR:
        return None
    template, extents = _template(
        code, shape, dtype.itemsize, source=source, device_time=0, device_sequence=0,
        device_unsigned=True,
    )  # fmt: skip
    return None if extents else template


def _code_of(dtype: np.dtype[Any]) -> DType:
    """Return the code of plain numbers, or of dtypes that need labels."""
    if not dtype.isnative or dtype.names is not None:
        return DType.ND_ARR
    return _CODES.get(dtype.str[1:], DType.ND_ARR)


def _template(
    code: DType, shape: tuple[int, ...], itemsize: int, **more: Any
) -> tuple[bytes, bytes]:
    """Return the header of a row, and the extension for its shape, if it has one."""
    width = itemsize * math.prod(shape)
    header = Header(dtype=code, shape=shape, payload_bytes=width, **more)
    data = bytearray(header.nbytes - width)
    header.write(data)
    end = len(data) - (16 if header.device_time is not None else 0)
    return bytes(data[:HEADER_BYTES]), bytes(data[HEADER_BYTES:end])


class RowTemplates:
    """Encodes rows; caches one header per kind of row.

    `checksum` is whether frames get one.
    """

    def __init__(self, checksum: bool) -> None:
        self.checksum = checksum
        self._known: dict[tuple[Any, ...], tuple[bytes, bytes]] = {}

    def encode(
        self,
        source: int,
        block: ArrayLike,
        device_time: NDArray[Any] | None,
        device_sequence: NDArray[Any] | None,
        labels_id: Callable[[Labels], int],
    ) -> EncodedRows:
        """Encode an array of shape (n, ...) as n rows.

        `labels_id` returns the id of labels, for dtypes that need them. Raises
        `TypeError` or `ValueError` for an array without rows, Python objects, or stamps
        that do not fit.
        """
        array = np.ascontiguousarray(unmasked(block, "a journal"))
        if np.ndim(block) == 0:
            raise ValueError("log_block needs an array of rows; use log() for a value")
        if array.dtype.hasobject:
            raise TypeError(f"{array.dtype} has Python objects: convert it first")
        n, shape = len(array), array.shape[1:]
        data = row_bytes(array)
        stamps = _stamps(n, device_time, device_sequence)
        unsigned = stamps is not None and np.asarray(device_time).dtype.kind == "u"
        kind = str(array.dtype.descr) if array.dtype.names else array.dtype.str
        key = (source, kind, shape, stamps is not None, unsigned)
        made = self._known.get(key)
        if made is None:
            code = _code_of(array.dtype)
            labels = 0
            if code == DType.ND_ARR:
                labels = labels_id(Labels(array.dtype, shape))
            stamp = None if stamps is None else 0
            made = self._known[key] = _template(
                code, shape, array.dtype.itemsize, source=source, labels_id=labels,
                device_time=stamp, device_sequence=stamp, device_unsigned=unsigned,
                checksum=self.checksum,
            )  # fmt: skip
        template, extents = made
        fronts = stamps
        if extents:
            lead = np.broadcast_to(np.frombuffer(extents, "u1"), (n, len(extents)))
            fronts = np.hstack([lead, stamps] if stamps is not None else [lead])
        if fronts is not None:
            fronts = np.ascontiguousarray(fronts)
        return EncodedRows(template, data, fronts)


def _stamps(
    n: int, device_time: NDArray[Any] | None, device_sequence: NDArray[Any] | None
) -> NDArray[np.uint8] | None:
    """Return device stamps as bytes, shape (n, 16)."""
    if device_time is None:
        if device_sequence is not None:
            raise ValueError("device_sequence needs device_time: give both")
        return None
    times = np.asarray(device_time)
    counts = np.zeros(n, "u8") if device_sequence is None else device_sequence
    counts = np.asarray(counts)
    if times.dtype.kind not in "iu" or counts.dtype.kind not in "iu":
        raise TypeError("device_time and device_sequence must be integers")
    counts = fit(counts, np.dtype("u8"), None, "device_sequence")
    if times.shape != (n,) or counts.shape != (n,):
        raise ValueError(f"device stamps must have shape ({n},), one per row")
    stamps = np.empty((n, 2), "<u8")
    stamps[:, 0] = times.astype("u8" if times.dtype.kind == "u" else "i8").view("u8")
    stamps[:, 1] = counts
    return stamps.view(np.uint8)


# ---- the writer

ANCHOR_NS = 60 * 10**9
NO_LIMIT = 2**63


@dataclass(frozen=True)
class JournalStatistics:
    """Totals of a journal's writer since it was made."""

    path: Path
    """The current file."""
    entries: int
    """Entries accepted."""
    written: int
    """Entries in a file: these survive the death of every process."""
    on_disk: int
    """Entries on the disk: these survive a power failure."""
    nbytes: int
    """Size of the current file."""
    gaps: int
    """Gap records."""
    syncs: int
    """Number of syncs."""


class JournalWriter(RecordKernel):
    """Write frames into a journal: append-only files that survive their writer.

    Parameters
    ----------
    directory : str or Path
        Created if missing. Existing files stay: a second writer of the same name
        continues with the next number.
    name : str
        Name of the journal: its files are called ``name.000000.axj``.
    durability : {'os', 'disk'}
        Whether entries survive the death of every process after `flush`, or after
        `sync_s` or `sync_bytes` also a power failure.
    sync_s : float
        With 'disk': entries are synced at this interval, s, if the disk is fast enough.
    sync_bytes : int
        With 'disk': `log` waits while more bytes than this are not on the disk.
    file_bytes : int
        Entries that would start behind this byte go to the next file.
    buffer_bytes : int
        Entries are buffered up to this size; `flush` writes at once.
    checksum : bool
        Whether the payload of an entry gets a checksum, besides that of its header.
    about : dict, optional
        Small JSON for the first page of each file, up to about 3 KiB.

    Raises
    ------
    LoggerError
        The files cannot be created or written; the message states what is safe.

    Notes
    -----
    Threads may share it; a forked copy must not be used. Several writers of one name
    write their own files, which a reader joins.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from ataraxis.log.archive import LogArchive
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     with JournalWriter(directory) as journal:
    ...         _ = journal.log(7, np.arange(3.0), time_ns=5)
    ...         _ = journal.log_block(8, np.eye(3), time_ns=6, step_ns=1)
    ...     archive = LogArchive(directory)
    ...     len(archive), archive[0].array, archive.read(8).data.shape
    (4, array([0., 1., 2.]), (3, 3))
    """

    is_open = False
    """Whether entries can be logged."""

    def __init__(
        self,
        directory: str | os.PathLike[str],
        name: str = "journal",
        *,
        durability: Literal["os", "disk"] = "os",
        sync_s: float = 1.0,
        sync_bytes: int = 2**26,
        file_bytes: int = 2**30,
        buffer_bytes: int = 2**18,
        checksum: bool = True,
        about: dict[str, Any] | None = None,
    ) -> None:
        self.durability = durability
        if durability not in ("os", "disk"):
            raise ValueError(f"durability must be 'os' or 'disk', got {durability!r}")
        if sync_s <= 0 or sync_bytes <= 0:
            raise ValueError("sync_s and sync_bytes must be above 0")
        self._rows_of = RowTemplates(checksum)
        self._next: dict[int, int] = {}
        path = Path(directory)
        if not name or os.sep in name or name.startswith("."):
            raise ValueError(f"name must be a file name without a path, got {name!r}")
        if file_bytes < 2 * FIRST or buffer_bytes < 4096:
            raise ValueError("file_bytes must be at least 8192, buffer_bytes 4096")
        self.directory, self.name = path, name
        self._about, self._file_bytes = dict(about or {}), file_bytes
        self._buffer_bytes = buffer_bytes
        self._lock = threading.RLock()
        self._labels: dict[Labels, int] = {}
        self._sources: dict[int, dict[str, Any]] = {}
        self._records = self._gaps = self._earlier_bytes = 0
        self._earlier_entries = self._anchored = 0
        self._syncer: Syncer | None = None
        self._pid = os.getpid()
        try:
            make_folder(path)
            self._file = OutputFile(path, name, self._about)
        except OSError as error:
            raise LoggerError(
                f"journal {name!r} cannot be created in {path}: {error}; nothing "
                "was written: make room, or give another directory"
            ) from error
        self.is_open = True
        self._begin_file()
        if durability == "disk":
            self._file.sync()
            self._syncer = Syncer(weakref.ref(self), sync_s, sync_bytes)

    # ---- logging

    def log(
        self,
        source: int,
        value: Any,
        *,
        time_ns: int | None = None,
        sequence: int | None = None,
        device_time: int | None = None,
        device_sequence: int | None = None,
    ) -> int:
        """Log one value as an entry.

        Parameters
        ----------
        source : int
            Number of the source, 0 to 2**32 - 2.
        value : object
            Any value of `Frame.from_value`. Copied.
        time_ns : int, optional
            Monotonic time, ns. Default: now.
        sequence : int, optional
            Number within the source. Default: the next one.
        device_time, device_sequence : int, optional
            Time of the source's device, in its ticks, and its counter.

        Returns
        -------
        int
            The sequence number.

        Raises
        ------
        LoggerError
            It could not be written, and was not accepted.
        TypeError
            A frame cannot hold the value.

        Notes
        -----
        The entry is buffered; it is safe after `flush`, or when the buffer was full.
        """
        source = self._check_source(source)
        with self._lock:
            own = self._next.get(source, 0)
            if sequence is not None:
                own = whole(sequence, "sequence")
            frame = Frame.from_value(
                value,
                sequence=own,
                time_ns=time_ns,
                source=source,
                device_time=device_time,
                device_sequence=device_sequence,
                checksum=self._rows_of.checksum,
            )
            data = frame.to_bytes()
            while (status := self._packed(data, 0, 1, -1, -1)[2]) != OK:
                self._roll_or_fail(status, "this entry was not accepted")
            self._next[source] = own + 1
        self._pace()
        return own

    def log_block(
        self,
        source: int,
        block: ArrayLike,
        *,
        time_ns: int | NDArray[np.int64] | None = None,
        step_ns: int = 0,
        sequence: int | None = None,
        device_time: NDArray[Any] | None = None,
        device_sequence: NDArray[Any] | None = None,
    ) -> int:
        """Log each row of an array as one entry.

        Parameters
        ----------
        source : int
            Number of the source.
        block : ndarray
            Shape (n, ...), any dtype without Python objects. Copied.
        time_ns : int or int64 array of shape (n,), optional
            Monotonic time of the first row, or of each, ns. Default: now.
        step_ns : int
            Time from row to row, ns, if `time_ns` is one number.
        sequence : int, optional
            Of the first row. Default: the next one of the source.
        device_time, device_sequence : arrays of shape (n,), optional
            Time of the source's device, int64 or uint64, and counter of each row.

        Returns
        -------
        int
            Sequence number of the first row.

        Raises
        ------
        LoggerError
            Not all rows were written; the message states how many were accepted.
        """
        source = self._check_source(source)
        with self._lock:
            rows = self._rows_of.encode(
                source, block, device_time, device_sequence, self.labels_id
            )
            n = len(rows.data)
            first = self._next.get(source, 0)
            if sequence is not None:
                first = whole(sequence, "sequence")
            step_ns = whole(step_ns, "step_ns")
            times, start = None, now_ns()
            if isinstance(time_ns, np.ndarray):
                times = fit(time_ns, np.dtype(np.int64), None, "time_ns")
                times = np.ascontiguousarray(times)
                if times.shape != (n,):
                    raise ValueError(f"time_ns has shape {times.shape}, not ({n},)")
            elif time_ns is not None:
                start = whole(time_ns, "time_ns")
            done = 0
            while done < n:
                count, status = self._rows(
                    rows.template,
                    rows.data[done:],
                    None if rows.fronts is None else rows.fronts[done:],
                    first + done,
                    None if times is None else times[done:],
                    start + done * step_ns,
                    step_ns,
                )
                done += count
                self._next[source] = first + done
                if status != OK:
                    self._roll_or_fail(status, f"{done} of {n} rows were accepted")
        self._pace()
        return first

    def append(
        self,
        frames: Any,
        *,
        align: int = 64,
        source: int | None = None,
        labels: int | None = None,
    ) -> int:
        """Log encoded frames unchanged.

        Parameters
        ----------
        frames : bytes-like
            Consecutive frames of `ataraxis.frame`, each at a multiple of `align` bytes
            from the first. Frames without a checksum stay without.
        align : int
            1 for frames without padding.
        source, labels : int, optional
            Replace the numbers in the headers; `labels` is from `labels_id`.

        Returns
        -------
        int
            Number of frames.

        Raises
        ------
        ValueError
            A frame is invalid; those before it were logged.
        """
        data = memoryview(frames).cast("B")
        done = at = 0
        with self._lock:
            self._check_open()
            while at < len(data):
                own = -1 if source is None else self._check_source(source)
                count, at, status = self._packed(
                    data, at, align, own, -1 if labels is None else labels
                )
                done += count
                if status != OK:
                    self._roll_or_fail(status, f"{done} of these frames were accepted")
                elif at < len(data):
                    raise ValueError(
                        f"no frame begins at byte {at} of {len(data)}; the {done} "
                        "before it were logged"
                    )
        self._pace()
        return done

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed"
        return f"<JournalWriter {self.name!r} in {self.directory}, {state}>"

    # ---- records

    def labels_id(self, labels: Labels) -> int:
        """Write labels to the journal, once; return their id for frames."""
        with self._lock:
            number = self._labels.get(labels)
            if number is None:
                number = len(self._labels) + 1
                self._record("labels", labels_record(number, labels))
                self._labels[labels] = number
            return number

    def describe(
        self,
        source: int,
        name: str | None = None,
        labels: Labels | None = None,
        **more: Any,
    ) -> None:
        """Describe a source: its name, the labels of its entries, and small JSON."""
        with self._lock:
            description = {"source": self._check_source(source), **more}
            if name is not None:
                description["name"] = name
            if labels is not None:
                description["labels"] = self.labels_id(labels)
            self._record("source", description)
            self._sources[source] = description

    def gap(self, source: int, first: int, count: int, reason: str) -> None:
        """Record that `count` frames of a source are missing, from `first` on."""
        with self._lock:
            gap = {"source": source, "first": first, "count": count, "reason": reason}
            self._record("gap", gap)
            self._gaps += 1

    def _record(self, kind: str, content: dict[str, Any]) -> None:
        """Write a record, whatever the size of the file."""
        self._check_open()
        data = encode_record(kind, content, self._records)
        self._limit(NO_LIMIT)
        try:
            if self._packed(data, 0, 1, -1, -1)[2] != OK:
                self._fail(f"a record of {kind} was not accepted")
            self._records += 1
        finally:
            self._limit(self._file_bytes)

    def record_ring(
        self, ring_to_file: RingToFile, source: int, labels: int
    ) -> tuple[int, int, int]:
        """Write what a stream has now; return frames, bytes, and a status of the ring.

        Raises `LoggerError` if it cannot; the ring keeps the unwritten frames.
        """
        with self._lock:
            self._check_source(source)
            frames, nbytes, status = ring_to_file.record(self, source, labels)
            if status in (FULL, TORN):
                self._roll_or_fail(status, "a frame of a stream was not accepted")
                status = OK
            return frames, nbytes, status

    def record_queue(self, queue_to_file: QueueToFile) -> None:
        """Write what was leased from a queue.

        Raises `LoggerError` if it cannot; unwritten frames stay leased.
        """
        with self._lock:
            self._check_open()
            while (status := queue_to_file.record(self)) != OK:
                self._roll_or_fail(status, "a part of a batch was not accepted")
        self._pace()

    # ---- files

    def _begin_file(self) -> None:
        """Start writing the current file; repeat labels and descriptions in it."""
        file = self._file
        self._open(
            file.fd, file.index_fd, FIRST, FIRST, self._file_bytes, file.header.seed,
            self._buffer_bytes,
        )  # fmt: skip
        self._earlier_entries, self._anchored = self.entries, now_ns()
        self._is_finishing = False
        for labels, number in self._labels.items():
            self._record("labels", labels_record(number, labels))
        for description in self._sources.values():
            self._record("source", description)

    def _roll_or_fail(self, status: int, accepted: str) -> None:
        """Begin the next file if this one is full; raise if it cannot be written."""
        if status != FULL:
            self._fail(accepted)
        self._roll()

    def _roll(self) -> None:
        """Complete the file and begin the next."""
        try:
            session = self._file.header.session
            file = OutputFile(self.directory, self.name, self._about, session)
        except OSError as error:
            self._fail(f"the next file cannot be created: {error}")
        crash_point(b"journal_rolling")
        try:
            self._finish({"is_last": False})
        except BaseException:
            file.close()
            raise
        self._earlier_bytes += self._written[0]
        self._file.close()
        self._file = file
        self._begin_file()
        if self._syncer is not None:
            file.sync()

    @property
    def has_lost_pages(self) -> bool:
        """Whether a sync failed, so that entries since the last one may be lost.

        The writer accepts nothing more; entries not `on_disk` must be written again.
        """
        return self._syncer is not None and self._syncer.failure is not None

    def on_disk(self) -> dict[str, Any]:
        """Return how much of the current file is known to be on the disk, as JSON."""
        entries = 0
        if self._syncer is not None:
            entries = max(self._syncer.entries - self._earlier_entries, 0)
        return {"uuid": self._file.header.uuid.hex(), "entries": entries}

    def abandon(self) -> None:
        """Close the files unfinished: a later one repeats what may be lost."""
        if self.is_open:
            self.is_open = False
            self._file.close()
            if self._syncer is not None:
                self._syncer.stop()

    def _restore(self) -> None:
        """Write a removed file again from its open descriptor, and continue in it."""
        try:
            make_folder(self.directory)
            self._file.restore()
        except OSError as error:
            self._fail(f"another process removed the file: {error}")

    def _finish(self, fields: Mapping[str, Any]) -> None:
        """Write everything, and the record that completes the file."""
        if not self._is_finishing:
            count = self.entries - self._earlier_entries
            self._record("close", {**fields, "entries": count})
            self._is_finishing = True
        if self._flush() != OK:
            self._fail("the file could not be finished")
        if self._syncer is not None:
            self._syncer.wait()

    def _check_open(self) -> None:
        if not self.is_open:
            raise NotConnectedError(f"journal {self.name!r} is closed: make a new one")
        if os.getpid() != self._pid:
            raise NotConnectedError(
                f"journal {self.name!r} belongs to process {self._pid}, and this is a "
                "forked copy: make another JournalWriter here"
            )
        if self._syncer is not None and self._syncer.failure is not None:
            self._fail(f"the disk failed: {self._syncer.failure}")

    def _check_source(self, source: int) -> int:
        """Raise unless the journal is open and `source` is a valid number."""
        self._check_open()
        source = whole(source, "source")
        if not 0 <= source < CONTROL_SOURCE:
            raise ValueError(
                f"source={source}: give one from 0 to {CONTROL_SOURCE - 1}"
            )
        return source

    def _fail(self, accepted: str) -> NoReturn:
        """Raise `LoggerError`: what failed, and what is safe."""
        cause = None
        if self._error:
            cause = OSError(self._error, os.strerror(self._error), str(self._file.path))
        reason = os.strerror(self._error) if self._error else "failed"
        if limit := advice(self._error):
            reason += f" ({limit})"
        known = self.statistics()
        kept = known.entries - known.written
        disk = f", {known.on_disk} of them on the disk" if self._syncer else ""
        raise LoggerError(
            f"journal {self.name!r}: {known.path} could not be written: {reason}; "
            f"{accepted + '; ' if accepted else ''}the first {known.written} entries "
            f"are in files and safe{disk}; {kept} more are in memory: make room and "
            "call flush(), for close() loses what it cannot write"
        ) from cause

    # ---- durability

    @property
    def entries(self) -> int:
        """Entries accepted since the writer was made."""
        return self._written[1] + self._waiting[1] - self._records

    @property
    def nbytes(self) -> int:
        """Bytes accepted since the writer was made, first pages included."""
        return self._earlier_bytes + self._written[0] + self._waiting[0]

    def flush(self) -> int:
        """Write all accepted entries to the file: they survive every process.

        Returns
        -------
        int
            Entries in files since the writer was made.

        Raises
        ------
        LoggerError
            Not all could be written; they are kept, and the next `flush` retries.
        """
        with self._lock:
            self._check_open()
            if now_ns() - self._anchored > ANCHOR_NS:
                self._anchored = now_ns()
                self._record("anchor", asdict(Anchor.take()))
            if self._flush() != OK:
                self._fail("")
            if os.fstat(self._file.fd).st_nlink == 0:
                self._restore()
            return self.entries

    def sync(self) -> int:
        """Sync all accepted entries to the disk; return how many.

        Raises
        ------
        LoggerError
            The disk failed.
        """
        with self._lock:
            count = self.flush()
            if self._syncer is not None:
                self._syncer.wait()
            else:
                self._file.sync()
            return count

    def flush_for_sync(self) -> tuple[int, int, int]:
        """Flush; return entries and bytes in files, and a descriptor to sync and close.

        Raises `LoggerError` as `flush` does.
        """
        with self._lock:
            return self.flush(), self.nbytes, os.dup(self._file.fd)

    def _pace(self) -> None:
        """Wait for the disk if more than `sync_bytes` are not on it."""
        if self._syncer is not None:
            self._syncer.pace()

    def statistics(self) -> JournalStatistics:
        """Return how much was accepted, written, and synced."""
        with self._lock:
            syncer, waiting = self._syncer, self._waiting[1]
            return JournalStatistics(
                self._file.path,
                self.entries,
                max(self.entries - waiting, 0),
                syncer.entries if syncer is not None else 0,
                self._written[0] + self._waiting[0],
                self._gaps,
                syncer.count if syncer is not None else 0,
            )

    def finish(self, **fields: Any) -> None:
        """Write everything and complete the file; nothing can be logged afterwards.

        Parameters
        ----------
        **fields
            Small JSON for the last record.

        Raises
        ------
        LoggerError
            Not everything could be written; it is kept, and `finish` may be retried.
        """
        with self._lock:
            self._check_open()
            self._finish({"is_last": True, **fields})

    def close(self, **fields: Any) -> None:
        """Write everything, complete the file and close it.

        Takes `fields` as `finish`. Raises `LoggerError` if not everything could be
        written: the message states what is safe, the rest is lost.
        """
        if os.getpid() != self._pid or not self.is_open:
            return
        try:
            with self._lock:
                self._finish({"is_last": True, **fields})
        finally:
            self.is_open = False
            self._file.close()
            if self._syncer is not None:
                self._syncer.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if self.is_open:
            try:
                self.close()
            except LoggerError as error:
                warnings.warn(str(error), RuntimeWarning, stacklevel=2)
