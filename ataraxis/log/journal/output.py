"""One file of a journal, open for writing, and the thread that syncs it to the disk."""

from __future__ import annotations

import os
import threading
import weakref
from pathlib import Path
from typing import Any, Protocol

from ataraxis._kernels.memory import crash_point
from ataraxis.errors import LoggerError, NotConnectedError
from ataraxis.log.journal.page import (
    PAGE,
    FileHeader,
    data_path,
    index_path,
)
from ataraxis.log.modes import FILE_MODE, permit
from ataraxis.shm.files import own
from ataraxis.shm.thread import Latch, Thread

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class OutputFile:
    """A new file and its index, under the first number that is free.

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

    def restore(self) -> None:
        """Write both again under their names, which are gone; go on in the new ones.

        Raises
        ------
        OSError
            There is no room, or something else has the name.
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
                # Under the number that the writer knows.
                os.dup2(new, fd, inheritable=False)
            except BaseException:
                os.unlink(path)
                raise
            finally:
                os.close(new)
        own(self.fd)

    def close(self) -> None:
        """Close both; again is nothing."""
        for fd in (self.fd, self.index_fd):
            if fd >= 0:
                os.close(fd)
        self.fd = self.index_fd = -1


FIRST = PAGE
_PIECE = 1 << 20

# ---- bringing a journal to the disk every so often, and knowing what is there


class Journal(Protocol):
    """What a `Syncer` needs of a journal's writer."""

    name: str
    is_open: bool

    @property
    def nbytes(self) -> int:
        """Bytes accepted for the present file."""

    def settle(self) -> tuple[int, int, int]:
        """Write what was accepted; return entries, bytes and a descriptor to sync."""


class Syncer:
    """A thread that flushes a writer and waits for the disk.

    Parameters
    ----------
    output : weak reference to Journal
        Whose files; the thread ends with it.
    seconds : float
        From one time to the next, s.
    limit_bytes : int
        `pace` waits while more than this is not on the disk.
    """

    def __init__(
        self, output: weakref.ref[Journal], seconds: float, limit_bytes: int
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
        self._stop = Latch()
        self._thread = Thread(self._run, "ataraxis-sync", (seconds,))
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
        self._thread.join()
