"""`LogStatus`: shared state of a logger, its writer and the processes that log.

A small file in the context, beside the queue, with the destination of the log, the
progress of the writer, and its error. It remains after a kill, for `recover_log`. The
writer holds a kernel lock on it while it lives.
"""

from __future__ import annotations

import json
import mmap
import os
import time
from pathlib import Path
from typing import Any

from ataraxis._kernels.memory import allocate
from ataraxis.errors import LayoutError
from ataraxis.log.disk_watch import LowDisk
from ataraxis.shm.context import Context, ContextLike
from ataraxis.shm.files import is_owned, own
from ataraxis.shm.process import ProcessIdentity

PREFIX = ".log-"
_MAGIC = b"AXLS\x02\0\0\0"
_ABOUT, _ABOUT_BYTES = 512, 8192
_ERROR, _ERROR_BYTES = 8704, 4096
_NUMBERS = 12800
_BYTES = 16384

# Words of 8 bytes, from byte 8 on; each has one process that writes it, named here.
STATE = 1
"""One of the states below: the logger's, or the writer's when it fails."""
WRITTEN = 2
"""Entries written: the writer's."""
WRITTEN_BYTES = 3
"""Payload bytes written: the writer's."""
GENERATION = 4
"""Writers since `start`: each writer's; the logger's at `start`."""
CREATOR, CREATED = 5, 6
"""The process that made the logger: its pid and start time."""
COUNT, DONE, INTENT, INODE, STAMP = 8, 9, 10, 12, 13
"""The writer's checkpoint for its successor, see `ataraxis.log.writer`."""
DROPPED = 14
"""Entries dropped when the queue was full; approximate if several processes did."""
FINISHED = 15
"""1 when the last writer ended because all was done: its own; 0: the logger's."""
ATTENTION = 16
"""Not 0: putters must check the state and the free space of the disk."""
FREE, RATE = 17, 18
"""Free bytes of the disk, and bytes written per second; 0: there is enough space."""

STOPPED, RUNNING, STOPPING, ENDED, FAILED = range(5)


class LogStatus:
    """The shared state of one log; opened by the path of the file made by `create`."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        with open(path, "r+b") as file:
            size = os.fstat(file.fileno()).st_size
            if size < _BYTES or size % 8:
                raise LayoutError(f"{self.path} is not the status file of a log")
            self._map = mmap.mmap(file.fileno(), size)
        if self._map[:8] != _MAGIC:
            raise LayoutError(
                f"{self.path} is not the status file of a log, or of another version"
            )
        self.words = memoryview(self._map).cast("Q")
        self.numbers = self.words[_NUMBERS // 8 :]
        self._lock = -1

    @classmethod
    def create(
        cls, queue: str, about: dict[str, Any], context: Context, frames: int
    ) -> LogStatus:
        """Create the status file of the log of a queue, given its segment's name.

        `about` is destination and options, JSON of at most 8188 bytes; `frames` is the
        capacity of the queue.
        """
        size = max(_BYTES, _NUMBERS + 8 * frames)
        text = json.dumps(about).encode()
        if len(text) > _ABOUT_BYTES - 4:
            raise ValueError(f"about takes {len(text)} bytes: shorten the log's path")
        name = f"{PREFIX}{queue}"
        temporary = f"{name}.{os.getpid()}.new"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with context.opened() as directory:
            descriptor = os.open(temporary, flags, 0o600, dir_fd=directory)
            try:
                if status := allocate(descriptor, 0, size):
                    raise OSError(-status, os.strerror(-status), str(context.path))
                os.pwrite(descriptor, len(text).to_bytes(4, "little") + text, _ABOUT)
                os.pwrite(descriptor, _MAGIC, 0)
                os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            except BaseException:
                os.unlink(temporary, dir_fd=directory)
                raise
            finally:
                os.close(descriptor)
        return cls(context.join(name))

    @property
    def about(self) -> dict[str, Any]:
        """Destination and options."""
        found = json.loads(self._text(_ABOUT, _ABOUT_BYTES))
        assert isinstance(found, dict)
        return found

    @property
    def creator(self) -> ProcessIdentity:
        """Process that made the logger."""
        return ProcessIdentity(self.words[CREATOR], self.words[CREATED])

    @creator.setter
    def creator(self, process: ProcessIdentity) -> None:
        self.words[CREATOR], self.words[CREATED] = process.pid, process.start

    @property
    def error(self) -> str:
        """Error message; empty without an error."""
        return self._text(_ERROR, _ERROR_BYTES).decode("utf-8", "replace")

    def fail(self, error: str) -> None:
        """Store an error message, and mark the log as failed."""
        text = error.encode()[: _ERROR_BYTES - 4]
        start = _ERROR + 4
        self._map[start : start + len(text)] = text
        self._map[_ERROR:start] = len(text).to_bytes(4, "little")
        self.words[STATE] = FAILED
        self.words[ATTENTION] = 1

    def reset_error(self) -> None:
        """Clear the error, for another try."""
        self._map[_ERROR : _ERROR + 4] = bytes(4)
        self.words[GENERATION] = self.words[FREE] = self.words[ATTENTION] = 0

    def warn(self, low: LowDisk | None) -> None:
        """Store that the disk is almost full; None: that it is not."""
        words = self.words
        if low is not None:
            words[RATE], words[FREE] = int(low.rate_bytes), max(1, low.free_bytes)
            words[ATTENTION] = 1
        elif words[STATE] < ENDED:
            words[FREE] = words[ATTENTION] = 0

    def low_disk(self) -> LowDisk | None:
        """Return what `warn` stored."""
        free, rate = self.words[FREE], self.words[RATE]
        return LowDisk(Path(self.about["directory"]), free, rate) if free else None

    def _text(self, at: int, most: int) -> bytes:
        size = min(int.from_bytes(self._map[at : at + 4], "little"), most - 4)
        return self._map[at + 4 : at + 4 + size]

    # ---- the writer's lock

    def lock(self, timeout: float = 0) -> bool:
        """Become the writer; return False if another process is."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        deadline = time.monotonic() + timeout
        while not own(descriptor):
            if time.monotonic() >= deadline:
                os.close(descriptor)
                return False
            time.sleep(0.005)
        self._lock = descriptor
        return True

    def unlock(self) -> None:
        """Release the writer's lock."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def is_written(self) -> bool:
        """Return whether a writer is alive."""
        try:
            return is_owned(self.path)
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Close the file."""
        self.unlock()
        self.numbers.release()
        self.words.release()
        self._map.close()

    def unlink(self) -> None:
        """Remove the file; what is mapped stays readable."""
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass


def statuses(context: ContextLike = None) -> list[Path]:
    """List the status files of a context."""
    where = Context.of(context).path
    return [
        where / name
        for name in sorted(os.listdir(where))
        if name.startswith(PREFIX) and not name.endswith(".new")
    ]
