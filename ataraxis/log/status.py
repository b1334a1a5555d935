"""`LogStatus`: the words that a logger, its writer and all who put share.

A small file in the context, beside the queue: it says where the log goes, how far the
writer is, and what went wrong. It stays after a kill, for `recover_log`; its writer
holds a kernel lock on it for as long as it lives.
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

# Words of 8 bytes, from byte 8 on; each has one writer, named here.
STATE = 1
"""One of the states below: the logger's, or the writer's when it fails."""
WRITTEN = 2
"""Entries written: the writer's."""
WRITTEN_BYTES = 3
"""Payload bytes written: the writer's."""
GENERATION = 4
"""How many writers there were since `start`: theirs; the logger's at `start`."""
CREATOR, CREATED = 5, 6
"""The process that made the logger: its pid and start time."""
COUNT, DONE, INTENT, INODE, STAMP = 8, 9, 10, 12, 13
"""The writer's notes for its successor, see `ataraxis.log.writer`."""
DROPPED = 14
"""Entries dropped because their putter would not wait; about, if several did."""
FINISHED = 15
"""1 when the last writer ended because all was done: its own; 0: the logger's."""
WORRY = 16
"""Not 0: whoever puts looks at the state first, and at the room on the disk."""
FREE, RATE = 17, 18
"""Bytes that are left on the disk, and written in a second; 0: that is enough."""

STOPPED, RUNNING, STOPPING, ENDED, FAILED = range(5)


class LogStatus:
    """Words and texts about one log; open it by its path.

    Parameters
    ----------
    path : str or Path
        The file, made by `create`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        with open(path, "r+b") as file:
            size = os.fstat(file.fileno()).st_size
            if size < _BYTES or size % 8:
                raise LayoutError(f"{self.path} is no status of a log")
            self._map = mmap.mmap(file.fileno(), size)
        if self._map[:8] != _MAGIC:
            raise LayoutError(
                f"{self.path} is no status of a log, or of another version"
            )
        self.words = memoryview(self._map).cast("Q")
        self.numbers = self.words[_NUMBERS // 8 :]
        self._lock = -1

    @classmethod
    def create(
        cls, queue: str, about: dict[str, Any], context: Context, frames: int
    ) -> LogStatus:
        """Make the status of the log behind a queue.

        Parameters
        ----------
        queue : str
            Name of the queue's segment.
        about : dict
            Where and how to write: JSON of at most 8188 bytes.
        context : Context
            The queue's.
        frames : int
            How many the queue holds.
        """
        size = max(_BYTES, _NUMBERS + 8 * frames)
        text = json.dumps(about).encode()
        if len(text) > _ABOUT_BYTES - 4:
            raise ValueError("the path of the log directory is too long")
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
        """Where and how to write."""
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
        """What went wrong; empty if nothing did."""
        return self._text(_ERROR, _ERROR_BYTES).decode("utf-8", "replace")

    def fail(self, error: str) -> None:
        """Say what went wrong, and that nothing more is written."""
        text = error.encode()[: _ERROR_BYTES - 4]
        start = _ERROR + 4
        self._map[start : start + len(text)] = text
        self._map[_ERROR:start] = len(text).to_bytes(4, "little")
        self.words[STATE] = FAILED
        self.words[WORRY] = 1

    def reset_error(self) -> None:
        """Forget the error, to try again."""
        self._map[_ERROR : _ERROR + 4] = bytes(4)
        self.words[GENERATION] = self.words[FREE] = self.words[WORRY] = 0

    def warn(self, low: LowDisk | None) -> None:
        """Say that the disk will soon be full; None: that it will not."""
        words = self.words
        if low is not None:
            words[RATE], words[FREE] = int(low.rate_bytes), max(1, low.free_bytes)
            words[WORRY] = 1
        elif words[STATE] < ENDED:
            words[FREE] = words[WORRY] = 0

    def low_disk(self) -> LowDisk | None:
        """Return what `warn` was told."""
        free, rate = self.words[FREE], self.words[RATE]
        return LowDisk(Path(self.about["directory"]), free, rate) if free else None

    def _text(self, at: int, most: int) -> bytes:
        size = min(int.from_bytes(self._map[at : at + 4], "little"), most - 4)
        return self._map[at + 4 : at + 4 + size]

    # ---- the writer's lock

    def lock(self, timeout: float = 0) -> bool:
        """Become the writer; False if somebody else is."""
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
        """Be the writer no more."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def is_written(self) -> bool:
        """Whether a writer lives."""
        try:
            return is_owned(self.path)
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Let go of the file."""
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
