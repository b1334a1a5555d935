"""JournalWriter: frames into files, many at a time."""

from __future__ import annotations

import math
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
from ataraxis.log.journal.page import (
    CONTROL_SOURCE,
    anchor_record,
    encode_record,
    labels_record,
)
from ataraxis.log.modes import make_folder
from ataraxis.shm.limits import advice

if TYPE_CHECKING:
    from ataraxis._kernels.journal_write import QueueToFile, RingToFile

# ---- rows of an array as frames of a journal: their header and their extensions

_CODES = {
    "u1": DType.U8, "u2": DType.U16, "u4": DType.U32, "u8": DType.U64,
    "i1": DType.I8, "i2": DType.I16, "i4": DType.I32, "i8": DType.I64,
    "f2": DType.F16, "f4": DType.F32, "f8": DType.F64, "c8": DType.C64,
    "c16": DType.C128, "b1": DType.BOOL,
}  # fmt: skip


class EncodedRows(NamedTuple):
    """Rows as bytes."""

    template: bytes
    """Header that all share but for sequence, time and checksums."""
    data: NDArray[np.uint8]
    """Payloads, shape (rows, bytes); a view of what was given, if contiguous."""
    fronts: NDArray[np.uint8] | None
    """Extensions, shape (rows, bytes)."""


def row_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    """View a contiguous array as the bytes of its rows, shape (rows, bytes)."""
    width = array.itemsize * math.prod(array.shape[1:])
    if not array.size * array.itemsize:
        return np.empty((len(array), width), np.uint8)
    return array.reshape(-1).view(np.uint8).reshape(len(array), width)


def plain_header(
    source: int, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> bytes | None:
    """Write the header of rows with device stamps; None: it takes labels or more bytes.

    Sequence, times and checksums are whoever writes the rows'.
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
    """Find the code of plain numbers; of others that of what labels name."""
    if not dtype.isnative or dtype.names is not None:
        return DType.ND_ARR
    return _CODES.get(dtype.str[1:], DType.ND_ARR)


def _template(
    code: DType, shape: tuple[int, ...], itemsize: int, **more: Any
) -> tuple[bytes, bytes]:
    """Write a row's header, and the extension that says its extents, if it has one."""
    width = itemsize * math.prod(shape)
    header = Header(dtype=code, shape=shape, payload_bytes=width, **more)
    data = bytearray(header.nbytes - width)
    header.write(data)
    end = len(data) - (16 if header.device_time is not None else 0)
    return bytes(data[:HEADER_BYTES]), bytes(data[HEADER_BYTES:end])


class RowTemplates:
    """Headers of rows, made once for each kind of row.

    Parameters
    ----------
    checksum : bool
        Whether frames get a checksum.
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
        """Take an array of shape (n, ...) apart into rows.

        Parameters
        ----------
        source : int
            Of all rows.
        block : array-like
            Its first axis is that of the rows.
        device_time, device_sequence : array or None
            Of each row.
        labels_id : callable
            Gives the id of labels, for dtypes that only labels can name.

        Raises
        ------
        TypeError, ValueError
            It has no rows, or holds Python objects, or stamps do not fit.
        """
        array = np.ascontiguousarray(unmasked(block, "a journal"))
        if np.ndim(block) == 0:
            raise ValueError("log_block takes an array of rows: log() takes one value")
        if array.dtype.hasobject:
            raise TypeError(f"{array.dtype} holds Python objects: convert it first")
        n, shape = len(array), array.shape[1:]
        data = row_bytes(array)
        stamps = _stamps(n, device_time, device_sequence)
        unsigned = stamps is not None and np.asarray(device_time).dtype.kind == "u"
        kind = str(array.dtype.descr) if array.dtype.names else array.dtype.str
        key = (source, kind, shape, stamps is not None, unsigned)
        template, extents = self._known.get(key) or self._make(
            key, source, array.dtype, shape, stamps is not None, unsigned, labels_id,
        )  # fmt: skip
        fronts = stamps
        if extents:
            lead = np.broadcast_to(np.frombuffer(extents, "u1"), (n, len(extents)))
            fronts = np.hstack([lead, stamps] if stamps is not None else [lead])
        if fronts is not None:
            fronts = np.ascontiguousarray(fronts)
        return EncodedRows(template, data, fronts)

    def _make(
        self,
        key: tuple[Any, ...],
        source: int,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        is_stamped: bool,
        unsigned: bool,
        labels_id: Callable[[Labels], int],
    ) -> tuple[bytes, bytes]:
        code = _code_of(dtype)
        made = _template(
            code, shape, dtype.itemsize, source=source,
            labels_id=labels_id(Labels(dtype, shape)) if code == DType.ND_ARR else 0,
            device_time=0 if is_stamped else None,
            device_sequence=0 if is_stamped else None,
            device_unsigned=unsigned, checksum=self.checksum,
        )  # fmt: skip
        self._known[key] = made
        return made


def _stamps(
    n: int, device_time: NDArray[Any] | None, device_sequence: NDArray[Any] | None
) -> NDArray[np.uint8] | None:
    """Write device stamps as their bytes, shape (n, 16)."""
    if device_time is None:
        if device_sequence is not None:
            raise ValueError("device_sequence goes with device_time: give both")
        return None
    times = np.asarray(device_time)
    counts = np.zeros(n, "u8") if device_sequence is None else device_sequence
    counts = np.asarray(counts)
    if times.dtype.kind not in "iu" or counts.dtype.kind not in "iu":
        raise TypeError("device_time and device_sequence are integers")
    counts = fit(counts, np.dtype("u8"), None, "device_sequence")
    if times.shape != (n,) or counts.shape != (n,):
        raise ValueError(f"device stamps have shape ({n},), one for each row")
    stamps = np.empty((n, 2), "<u8")
    stamps[:, 0] = times.astype("u8" if times.dtype.kind == "u" else "i8").view("u8")
    stamps[:, 1] = counts
    return stamps.view(np.uint8)


# ---- the writer

ANCHOR_NS = 60 * 10**9
NO_LIMIT = 2**63


@dataclass(frozen=True)
class JournalStatistics:
    """What a journal's writer has done; entries and bytes since it was made."""

    path: Path
    """The file it writes now."""
    entries: int
    """Accepted."""
    written: int
    """Brought into a file: these survive the death of every process."""
    on_disk: int
    """Brought to the disk: these survive the loss of power."""
    nbytes: int
    """Of the present file."""
    gaps: int
    """Gap records."""
    syncs: int
    """Times the disk was waited for."""


class JournalWriter(RecordKernel):
    """Write frames into a journal: append-only files that survive their writer.

    Parameters
    ----------
    directory : str or Path
        Made if it is not there. Files that are there are never touched: a second
        writer of the same name goes on with the next number.
    name : str
        Of the journal: files are called ``name.000000.axj``.
    durability : {'os', 'disk'}
        What is promised of entries after `flush`: that they survive the death of every
        process, or after `sync_s` or `sync_bytes` also the loss of power.
    sync_s : float
        With 'disk': an entry is on the disk this long after it was logged, s, if the
        disk is not slower than that.
    sync_bytes : int
        With 'disk': `log` waits rather than have more than this not on the disk.
    file_bytes : int
        A file is not begun an entry in behind this byte; the next file is.
    buffer_bytes : int
        Entries are collected up to this before they are written; `flush` writes now.
    checksum : bool
        Whether entries get a checksum, besides that of their header.
    about : dict, optional
        Small JSON that goes into the first page of each file, up to some 3 KiB.

    Raises
    ------
    LoggerError
        The files cannot be made or written: says what is safe.

    Notes
    -----
    Any thread may use it. A forked copy must not. One process writes one file; several
    writers of one name write files of their own, and a reader takes them together.

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
            raise ValueError(f"durability={durability!r}: 'os' or 'disk'")
        if sync_s <= 0 or sync_bytes <= 0:
            raise ValueError("sync_s and sync_bytes are above 0")
        self._rows_of = RowTemplates(checksum)
        self._next: dict[int, int] = {}
        path = Path(directory)
        if not name or os.sep in name or name.startswith("."):
            raise ValueError(f"name={name!r}: a file name without a path")
        if file_bytes < 2 * FIRST or buffer_bytes < 4096:
            raise ValueError("file_bytes is 8192 or more, buffer_bytes 4096 or more")
        self.directory, self.name = path, name
        self._about, self._file_bytes = dict(about or {}), file_bytes
        self._buffer_bytes = buffer_bytes
        self._lock = threading.RLock()
        self._labels: dict[Labels, int] = {}
        self._sources: dict[int, dict[str, Any]] = {}
        self._records = self._gaps = self._past = self._before = self._anchored = 0
        self._syncer: Syncer | None = None
        self._pid = os.getpid()
        try:
            make_folder(path)
            self._file = OutputFile(path, name, self._about)
        except OSError as error:
            raise LoggerError(
                f"journal {name!r} cannot be begun in {path}: {error}; nothing "
                "was written: make room, or give another directory"
            ) from error
        self.is_open = True
        self._begin()
        if durability == "disk":
            self._follow(Syncer(weakref.ref(self), sync_s, sync_bytes))

    # ---- what goes in

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
        """Log one value as an entry: whatever a frame takes.

        Parameters
        ----------
        source : int
            Number of the source, 0 to 2**32 - 2.
        value : object
            As for `Frame.from_value`. Copied.
        time_ns : int, optional
            Monotonic time, ns; now, if not given.
        sequence : int, optional
            Number within the source; the next one, if not given.
        device_time, device_sequence : int, optional
            The source's own time, in its own ticks, and counter.

        Returns
        -------
        int
            Its sequence.

        Raises
        ------
        LoggerError
            It could not be written, and was not accepted.
        TypeError
            No frame carries such a value.

        Notes
        -----
        Accepted into the buffer: safe after `flush`, or once the buffer was full.
        """
        source = self._checked(source)
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
                self._go_on(status, "this entry was not accepted")
            self._next[source] = own + 1
        self._paced()
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
        """Log each row of an array as one entry, in one call.

        Parameters
        ----------
        source : int
            Number of the source.
        block : ndarray
            Shape (n, ...), any dtype without Python objects. Copied.
        time_ns : int or int64 array of shape (n,), optional
            Monotonic time of the first row, or of each, ns; now, if not given.
        step_ns : int
            Time from row to row, ns, if `time_ns` is one number.
        sequence : int, optional
            Of the first row; the next one of the source, if not given.
        device_time, device_sequence : arrays of shape (n,), optional
            The source's own time, int64 or uint64, and counter of each row.

        Returns
        -------
        int
            Sequence of the first row.

        Raises
        ------
        LoggerError
            Not all could be written: the message says how many rows were accepted.
        """
        source = self._checked(source)
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
                    self._go_on(status, f"{done} of {n} rows were accepted")
        self._paced()
        return first

    def append(
        self,
        frames: Any,
        *,
        align: int = 64,
        source: int | None = None,
        labels: int | None = None,
    ) -> int:
        """Log frames that are encoded already: their bytes are copied as they are.

        Parameters
        ----------
        frames : bytes-like
            Frames of `ataraxis.frame` back to back, each beginning `align` bytes
            aligned to the first. Frames without a checksum keep none.
        align : int
            1 for frames without anything between them.
        source, labels : int, optional
            Replace the numbers in the headers: `labels` is what `labels_id` gave.

        Returns
        -------
        int
            How many frames there were.

        Raises
        ------
        ValueError
            Some of it is no frame; what came before was logged.
        """
        data = memoryview(frames).cast("B")
        done = at = 0
        with self._lock:
            self._ready()
            while at < len(data):
                own = -1 if source is None else self._checked(source)
                count, at, status = self._packed(
                    data, at, align, own, -1 if labels is None else labels
                )
                done += count
                if status != OK:
                    self._go_on(status, f"{done} of these frames were accepted")
                elif at < len(data):
                    raise ValueError(
                        f"no frame begins at byte {at} of {len(data)}; the {done} "
                        "before it were logged"
                    )
        self._paced()
        return done

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed"
        return f"<JournalWriter {self.name!r} in {self.directory}, {state}>"

    # ---- records of its own

    def labels_id(self, labels: Labels) -> int:
        """Put labels into the journal, once: their id, for frames that refer to it."""
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
        """Say what a source is: its name, the labels of its entries, any small JSON."""
        with self._lock:
            said = {"source": self._checked(source), **more}
            if name is not None:
                said["name"] = name
            if labels is not None:
                said["labels"] = self.labels_id(labels)
            self._record("source", said)
            self._sources[source] = said

    def gap(self, source: int, first: int, count: int, reason: str) -> None:
        """Record that frames of a source are missing: `count` from `first` on."""
        with self._lock:
            gap = {"source": source, "first": first, "count": count, "reason": reason}
            self._record("gap", gap)
            self._gaps += 1

    def _record(self, kind: str, content: dict[str, Any]) -> None:
        """Write a record; the size of the file is no matter."""
        self._ready()
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
        """Take what a stream has now: frames, bytes, and the ring_to_file's status.

        Raises
        ------
        LoggerError
            It could not be written; the ring_to_file holds on to what was not.
        """
        with self._lock:
            self._checked(source)
            frames, nbytes, status = ring_to_file.record(self, source, labels)
            if status in (FULL, TORN):
                self._go_on(status, "a frame of a stream was not accepted")
                status = OK
            return frames, nbytes, status

    def record_queue(self, queue_to_file: QueueToFile) -> None:
        """Take what was leased from a queue.

        Raises
        ------
        LoggerError
            It could not be written; what was not is still leased.
        """
        with self._lock:
            self._ready()
            while (status := queue_to_file.record(self)) != OK:
                self._go_on(status, "some of a batch was not accepted")
        self._paced()

    # ---- files

    def _begin(self) -> None:
        """Go on in the present file: say in it what labels and sources mean."""
        file = self._file
        self._open(
            file.fd, file.index_fd, FIRST, FIRST, self._file_bytes, file.header.seed,
            self._buffer_bytes,
        )  # fmt: skip
        self._before, self._anchored = self.entries, now_ns()
        self._is_finishing = False
        for labels, number in self._labels.items():
            self._record("labels", labels_record(number, labels))
        for said in self._sources.values():
            self._record("source", said)

    def _roll(self) -> None:
        """Finish the file and begin the next."""
        try:
            session = self._file.header.session
            file = OutputFile(self.directory, self.name, self._about, session)
        except OSError as error:
            self._fail(f"the next file cannot be begun: {error}")
        crash_point(b"journal_rolling")
        try:
            self._finish({"is_last": False})
        except BaseException:
            file.close()
            raise
        self._past += self._written[0]
        self._file.close()
        self._file = file
        self._begin()
        if self._syncer is not None:
            file.sync()

    @property
    def has_lost_pages(self) -> bool:
        """Whether a sync failed: nothing is known of what was written since the last.

        Such a writer takes nothing more; what is not `on_disk` is to be written again.
        """
        return self._syncer is not None and self._syncer.failure is not None

    def on_disk(self) -> dict[str, Any]:
        """Say how much of the present file is known to be on the disk, small JSON."""
        entries = 0
        if self._syncer is not None:
            entries = max(self._syncer.entries - self._before, 0)
        return {"uuid": self._file.header.uuid.hex(), "entries": entries}

    def abandon(self) -> None:
        """Leave the files as they are: a later one has what is not known to be safe."""
        if self.is_open:
            self.is_open = False
            self._file.close()
            if self._syncer is not None:
                self._syncer.stop()

    def _restore(self) -> None:
        """Write a file that was removed again, from what is still open; go on in it."""
        try:
            make_folder(self.directory)
            self._file.restore()
        except OSError as error:
            self._fail(f"the file was removed by somebody: {error}")

    def _finish(self, said: Mapping[str, Any]) -> None:
        """Write what is left, and that it is all."""
        if not self._is_finishing:
            self._record("close", {**said, "entries": self.entries - self._before})
            self._is_finishing = True
        if self._flush() != OK:
            self._fail("the file could not be finished")
        if self._syncer is not None:
            self._syncer.wait()

    def _follow(self, syncer: Syncer) -> None:
        """Let a syncer bring the files to the disk."""
        self._file.sync()
        self._syncer = syncer

    def _go_on(self, status: int, accepted: str) -> None:
        """Begin the next file where this one is full; raise if it cannot be written."""
        if status != FULL:
            self._fail(accepted)
        self._roll()

    def _ready(self) -> None:
        if not self.is_open:
            raise NotConnectedError(f"journal {self.name!r} is closed: make a new one")
        if os.getpid() != self._pid:
            raise NotConnectedError(
                f"journal {self.name!r} belongs to process {self._pid}: this is a "
                "forked copy; make a JournalWriter of its own here"
            )
        if self._syncer is not None and self._syncer.failure is not None:
            self._fail(f"the disk failed: {self._syncer.failure}")

    def _checked(self, source: int) -> int:
        """Refuse what is no source, before anything is written."""
        self._ready()
        source = whole(source, "source")
        if not 0 <= source < CONTROL_SOURCE:
            raise ValueError(
                f"source={source}: give one from 0 to {CONTROL_SOURCE - 1}"
            )
        return source

    def _fail(self, accepted: str) -> NoReturn:
        """Say what could not be done, and what is safe."""
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
            f"are in files and safe{disk}; {kept} more are kept in memory: make room "
            "and flush(), for close() loses what it cannot write"
        ) from cause

    # ---- what is safe

    @property
    def entries(self) -> int:
        """Entries accepted since the writer was made."""
        return self._written[1] + self._waiting[1] - self._records

    @property
    def nbytes(self) -> int:
        """Bytes accepted since the writer was made, first pages included."""
        return self._past + self._written[0] + self._waiting[0]

    def flush(self) -> int:
        """Bring all accepted entries into the file: they survive every process.

        Returns
        -------
        int
            How many entries are in files since the writer was made.

        Raises
        ------
        LoggerError
            Not all could be written; they are kept, and the next `flush` tries again.
        """
        with self._lock:
            self._ready()
            if now_ns() - self._anchored > ANCHOR_NS:
                self._anchored = now_ns()
                self._record("anchor", anchor_record(Anchor.take()))
            if self._flush() != OK:
                self._fail("")
            if os.fstat(self._file.fd).st_nlink == 0:
                self._restore()
            return self.entries

    def sync(self) -> int:
        """Bring all accepted entries to the disk, and wait for it; how many are there.

        Raises
        ------
        LoggerError
            The disk refused.
        """
        with self._lock:
            count = self.flush()
            if self._syncer is not None:
                self._syncer.wait()
            else:
                self._file.sync()
            return count

    def settle(self) -> tuple[int, int, int]:
        """Flush, for a syncer: entries and bytes that are in files, and the last one.

        Raises `LoggerError` as `flush` does. The descriptor is the caller's to close.
        """
        with self._lock:
            return self.flush(), self.nbytes, os.dup(self._file.fd)

    def _paced(self) -> None:
        """Wait for the disk where more than was promised is not on it."""
        if self._syncer is not None:
            self._syncer.pace()

    def statistics(self) -> JournalStatistics:
        """Say what was accepted, written, and brought to the disk."""
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

    def finish(self, **said: Any) -> None:
        """Write what is left, and that it is complete; nothing is logged after it.

        Parameters
        ----------
        **said
            What else is to be said with it, small JSON.

        Raises
        ------
        LoggerError
            Not all could be written; it is kept, and may be tried again.
        """
        with self._lock:
            self._ready()
            self._finish({"is_last": True, **said})

    def close(self, **said: Any) -> None:
        """Write what is left, say that it is complete, and close the file.

        Parameters
        ----------
        **said
            What else is to be said with it, small JSON.

        Raises
        ------
        LoggerError
            Not all could be written: says what is safe. The rest is lost.
        """
        if os.getpid() != self._pid or not self.is_open:
            return
        try:
            with self._lock:
                self._finish({"is_last": True, **said})
        finally:
            self.is_open = False
            self._file.close()
            if self._syncer is not None:
                self._syncer.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        """Close."""
        self.close()

    def __del__(self) -> None:
        """Write what is left, if nobody has closed it."""
        if self.is_open:
            try:
                self.close()
            except LoggerError as error:
                warnings.warn(str(error), RuntimeWarning, stacklevel=2)
