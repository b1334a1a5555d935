"""The files behind a journal's writer: begun, rolled, finished, and what is safe."""

from __future__ import annotations

import os
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

from ataraxis._kernels.mapping import crash_point
from ataraxis._kernels.records import FULL, OK, TORN, RecordKernel
from ataraxis.clock import Anchor, now_ns
from ataraxis.errors import LoggerError, NotConnectedError
from ataraxis.labels import Labels
from ataraxis.log.journal.page import (
    CONTROL_SOURCE,
    PAGE,
    FileHeader,
    anchor_record,
    data_path,
    encode_record,
    index_path,
    labels_record,
)
from ataraxis.log.modes import FILE_MODE, make_folder, permit
from ataraxis.log.ownership import own

if TYPE_CHECKING:
    from ataraxis._kernels.haul import Haul
    from ataraxis._kernels.tap import Tap

# ---- one file of a journal, open for writing, its index, and the lock of its writer

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class OutputFile:
    """A file and its index, made anew under the first number that is free.

    The data file is locked for as long as it is open, so that readers know whether
    somebody still writes: the lock goes with the process.

    Parameters
    ----------
    directory : Path
        Where; it exists.
    name : str
        Of the journal.
    about : dict
        For the first page.
    session : str or None
        Of the writer; begun with this file, if None.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        about: dict[str, Any],
        session: str | None = None,
    ) -> None:
        self.index_fd = -1
        number = 0
        while True:
            self.path = data_path(directory, name, number)
            try:
                self.fd = os.open(self.path, _FLAGS, FILE_MODE)
                permit(self.fd)
                break
            except FileExistsError:
                number += 1
        try:
            crash_point(b"journal_opened")
            own(self.fd)
            self.header = FileHeader.make(name, number, about, session)
            page = self.header.pack()
            os.pwrite(self.fd, page, 0)
            crash_point(b"journal_begun")
            index = index_path(self.path)
            flags = _FLAGS & ~os.O_EXCL | os.O_TRUNC
            self.index_fd = os.open(index, flags, FILE_MODE)
            permit(self.index_fd)
            os.pwrite(self.index_fd, page, 0)
        except BaseException:
            self.close()
            raise

    def sync(self) -> None:
        """Bring it and its name to the disk."""
        os.fsync(self.fd)
        os.fsync(self.index_fd)
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def close(self) -> None:
        """Close both; again is nothing."""
        for fd in (self.fd, self.index_fd):
            if fd >= 0:
                os.close(fd)
        self.fd = self.index_fd = -1


FIRST = PAGE

# ---- bringing a journal to the disk every so often, and knowing what is there


class Syncer:
    """A thread that flushes a writer and waits for the disk.

    Parameters
    ----------
    output : weak reference to JournalOutput
        Whose files; the thread ends with it.
    seconds : float
        From one time to the next, s.
    limit_bytes : int
        `pace` waits while more than this is not on the disk.
    """

    def __init__(
        self, output: weakref.ref[JournalOutput], seconds: float, limit_bytes: int
    ) -> None:
        self.entries = 0
        """Entries on the disk."""
        self.count = 0
        """Times the disk was waited for."""
        self.failure: OSError | None = None
        """What the disk said; after that nothing is known, and nothing is tried."""
        self._output = output
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._told = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(seconds,), name="ataraxis-sync", daemon=True
        )
        self._thread.start()
        # At the end of the program too: once an interpreter is being taken down, its
        # daemon threads never run again, and a join waits for ever (Python 3.13).
        weakref.finalize(output(), self.stop)

    def _run(self, seconds: float) -> None:
        while not self._stop.wait(seconds):
            output = self._output()
            if output is None or not output.is_open or self.failure is not None:
                return
            if output.nbytes > self._bytes:
                try:
                    self.wait()
                except (LoggerError, NotConnectedError):
                    # Closed meanwhile; or whoever logs next learns of it.
                    pass
            del output

    def wait(self) -> None:
        """Bring everything accepted before this call to the disk.

        Raises
        ------
        LoggerError
            It could not be written, or the disk failed.
        """
        output = self._output()
        if output is None:
            return
        # Never the writer's lock while the disk works, unless the caller holds it.
        entries, nbytes, fd = output.settle()
        try:
            self.force(fd)
        except OSError as error:
            # Which pages were lost nobody can tell: never asked again.
            self.failure = error
            raise LoggerError(
                f"journal {output.name!r}: the disk failed: {error}; the first "
                f"{self.entries} entries are on it, of later ones nothing is known"
            ) from error
        finally:
            os.close(fd)
        with self._told:
            self.entries = max(self.entries, entries)
            self._bytes = max(self._bytes, nbytes)
            self.count += 1

    def force(self, fd: int) -> None:
        """Wait for the disk."""
        os.fdatasync(fd)

    def pace(self) -> None:
        """Wait for the disk while too much is not on it."""
        output = self._output()
        if output is not None and output.nbytes - self._bytes > self._limit_bytes:
            self.wait()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join()


# ---- the output

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


class JournalOutput(RecordKernel):
    """The half of `JournalWriter` that minds its files."""

    is_open = False
    """Whether entries can be logged."""

    def __init__(
        self,
        directory: Path,
        name: str,
        about: dict[str, Any],
        file_bytes: int,
        buffer_bytes: int,
    ) -> None:
        if not name or os.sep in name or name.startswith("."):
            raise ValueError(f"name={name!r}: a file name without a path")
        if file_bytes < 2 * FIRST or buffer_bytes < 4096:
            raise ValueError("file_bytes is 8192 or more, buffer_bytes 4096 or more")
        self.directory, self.name = directory, name
        self._about, self._file_bytes = dict(about), file_bytes
        self._buffer_bytes = buffer_bytes
        self._lock = threading.RLock()
        self._labels: dict[Labels, int] = {}
        self._sources: dict[int, dict[str, Any]] = {}
        self._records = self._gaps = self._past = self._before = self._anchored = 0
        self._syncer: Syncer | None = None
        self._pid = os.getpid()
        try:
            make_folder(directory)
            self._file = OutputFile(directory, name, self._about)
        except OSError as error:
            raise LoggerError(
                f"journal {name!r} cannot be begun in {directory}: {error}; nothing "
                "was written: make room, or give another directory"
            ) from error
        self.is_open = True
        self._begin()

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

    def draw(self, tap: Tap, source: int, labels: int) -> tuple[int, int, int]:
        """Take what a stream has now: frames, bytes, and the tap's status.

        Raises
        ------
        LoggerError
            It could not be written; the tap holds on to what was not.
        """
        with self._lock:
            self._checked(source)
            frames, nbytes, status = tap.record(self, source, labels)
            if status in (FULL, TORN):
                self._go_on(status, "a frame of a stream was not accepted")
                status = OK
            return frames, nbytes, status

    def haul(self, haul: Haul) -> None:
        """Take what was leased from a queue.

        Raises
        ------
        LoggerError
            It could not be written; what was not is still leased.
        """
        with self._lock:
            self._ready()
            while (status := haul.record(self)) != OK:
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
            self._finish()
        except BaseException:
            file.close()
            raise
        self._past += self._written[0]
        self._file.close()
        self._file = file
        self._begin()
        if self._syncer is not None:
            file.sync()

    def _finish(self) -> None:
        """Write what is left, and that it is all."""
        self._record("close", {"entries": self.entries - self._before})
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
        if not 0 <= source < CONTROL_SOURCE:
            raise ValueError(
                f"source={source}: give one from 0 to {CONTROL_SOURCE - 1}"
            )
        return int(source)

    def _fail(self, accepted: str) -> NoReturn:
        """Say what could not be done, and what is safe."""
        cause = None
        if self._error:
            cause = OSError(self._error, os.strerror(self._error), str(self._file.path))
        reason = os.strerror(self._error) if self._error else "failed"
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
                self._fail("the file was removed by somebody, what is in it is gone")
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

    def close(self) -> None:
        """Write what is left, say that it is complete, and close the file.

        Raises
        ------
        LoggerError
            Not all could be written: says what is safe. The rest is lost.
        """
        if os.getpid() != self._pid or not self.is_open:
            return
        try:
            with self._lock:
                self._finish()
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
            self.close()
