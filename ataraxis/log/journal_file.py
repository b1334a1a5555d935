"""One file of a journal, open for writing, its index, and the lock of its writer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ataraxis._kernels.memory import crash_point
from ataraxis.log.journal_page import PAGE, FileHeader, data_path, index_path
from ataraxis.log.ownership import own

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
                self.fd = os.open(self.path, _FLAGS, 0o666)
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
            self.index_fd = os.open(index, _FLAGS & ~os.O_EXCL | os.O_TRUNC, 0o666)
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
