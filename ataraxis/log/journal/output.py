"""A file of a journal open for writing, and the thread that syncs it to the disk."""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path
from typing import Any, Protocol

from ataraxis._kernels.memory import crash_point
from ataraxis.errors import LoggerError, NotConnectedError
from ataraxis.log.journal.page import PAGE, FileHeader, data_path, index_path
from ataraxis.log.modes import FILE_MODE, permit
from ataraxis.shm.files import own
from ataraxis.shm.thread import Latch, Thread

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class OutputFile:
    """A new file and its index, under the first free number of a journal.

    The data file is locked while it is open: readers see whether a writer is alive,
    since the lock ends with its process. `about` is for the first page; without
    `session`, one of the writer is started.
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
            self.index_fd = os.open(index, _FLAGS & ~os.O_EXCL | os.O_TRUNC, FILE_MODE)
            permit(self.index_fd)
            os.pwrite(self.index_fd, page, 0)
        except BaseException:
            self.close()
            raise

    def sync(self) -> None:
        """Sync the files and their names to the disk."""
        os.fsync(self.fd)
        os.fsync(self.index_fd)
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def restore(self) -> None:
        """Write both files again after they were removed; continue in the new ones.

        Raises `OSError` without room, or if another file has the name.
        """
        for fd, path in (
            (self.fd, self.path),
            (self.index_fd, index_path(self.path)),
        ):
            if os.fstat(fd).st_nlink:
                continue
            new = os.open(path, _FLAGS, FILE_MODE)
            try:
                permit(new)
                at, size = 0, os.fstat(fd).st_size
                while at < size:
                    data = os.pread(fd, min(_PIECE, size - at), at)
                    at += os.pwrite(new, data, at)
                # The writer keeps using the same descriptor.
                os.dup2(new, fd, inheritable=False)
            except BaseException:
                os.unlink(path)
                raise
            finally:
                os.close(new)
        own(self.fd)

    def close(self) -> None:
        """Close both files; may be called again."""
        for fd in (self.fd, self.index_fd):
            if fd >= 0:
                os.close(fd)
        self.fd = self.index_fd = -1


FIRST = PAGE
_PIECE = 1 << 20

# ---- syncing a journal to the disk at intervals


class Journal(Protocol):
    """The part of a journal's writer that `Syncer` uses."""

    name: str
    is_open: bool

    @property
    def nbytes(self) -> int:
        """Bytes accepted since the writer was made."""

    def flush_for_sync(self) -> tuple[int, int, int]:
        """Flush; return entries, bytes and a descriptor to sync."""


class Syncer:
    """A thread that flushes a writer and syncs its file; it ends with the writer.

    It does so every `seconds`; `pace` waits while more than `limit_bytes` are not on
    the disk.
    """

    def __init__(
        self, output: weakref.ref[Journal], seconds: float, limit_bytes: int
    ) -> None:
        self.entries = 0
        """Entries on the disk."""
        self.count = 0
        """Number of syncs."""
        self.failure: OSError | None = None
        """Error of the disk, after which nothing more is synced."""
        self._output = output
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._stop = Latch()
        self._thread = Thread(self._run, "ataraxis-sync", (seconds,))
        self._thread.start()
        # Also at exit: once the interpreter is finalizing, daemon threads never run
        # again, and a join would block forever (Python 3.13).
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
                    # It was closed; or the next call of the writer raises the failure.
                    pass
            del output

    def wait(self) -> None:
        """Sync everything accepted before this call; `LoggerError` if that fails."""
        output = self._output()
        if output is None:
            return
        # Do not hold the writer's lock while the disk works, unless the caller does.
        entries, nbytes, fd = output.flush_for_sync()
        try:
            self.force(fd)
        except OSError as error:
            # Which pages were lost is unknown: never sync again.
            self.failure = error
            raise LoggerError(
                f"journal {output.name!r}: the disk failed: {error}; the first "
                f"{self.entries} entries are on it, later ones may be lost"
            ) from error
        finally:
            os.close(fd)
        with self._lock:
            self.entries = max(self.entries, entries)
            self._bytes = max(self._bytes, nbytes)
            self.count += 1

    def force(self, fd: int) -> None:
        """Sync a file."""
        os.fdatasync(fd)

    def pace(self) -> None:
        """Sync if too many bytes are not on the disk."""
        output = self._output()
        if output is not None and output.nbytes - self._bytes > self._limit_bytes:
            self.wait()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()
