"""Bringing a journal to the disk every so often, and knowing what is there."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING

from ataraxis.errors import LoggerError, NotConnectedError

if TYPE_CHECKING:
    from ataraxis.log.journal_output import JournalOutput


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
