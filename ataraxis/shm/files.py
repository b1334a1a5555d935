"""The files of segments: open, list and unlink them; `header` knows their contents."""

from __future__ import annotations

import difflib
import errno
import fcntl
import functools
import os
import stat
import struct
import sys
import time
from pathlib import Path

from ataraxis._kernels import lock as _status
from ataraxis._kernels.memory import (
    byte_held,
    crash_point,
    unlink,
    watch_open,
    watch_wait,
)
from ataraxis.errors import LayoutError, SegmentNotFound, SegmentTimeout
from ataraxis.shm.context import Context
from ataraxis.shm.header import LIVE, PAGE, PARTICIPANT_BYTES, READY, SegmentHeader


class Found:
    """An open file that may be a segment; close it with ``with``."""

    def __init__(
        self, path: str, descriptor: int, status: os.stat_result, directory: int
    ) -> None:
        self.path = path
        self.descriptor = descriptor
        self.status = status
        self.page = os.pread(descriptor, PAGE, 0)
        self._directory = directory

    def __enter__(self) -> Found:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self.descriptor)

    def is_retired(self) -> bool:
        """Return whether its name was removed, or is being removed."""
        return os.pread(self.descriptor, 4, LIVE) != READY.to_bytes(4, "little")

    def is_kept(self) -> bool:
        """Return whether it holds frames that are promised to a reader."""
        return os.pread(self.descriptor, 4, LIVE + 4) != bytes(4)

    def has_name(self, name: str) -> bool:
        """Return whether the name still means this file."""
        try:
            there = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return (there.st_dev, there.st_ino) == (self.status.st_dev, self.status.st_ino)

    def settle(self, slots: int) -> None:
        """Finish, or undo, the unlinking by a process that died meanwhile."""
        take_name(
            self.descriptor,
            self._directory,
            os.path.basename(self.path),
            slots,
            is_forced=False,
        )

    def reopen_path(self) -> bytes:
        """Return a path that opens this file again."""
        link = f"/proc/self/fd/{self.descriptor}"
        return os.fsencode(link if has_proc() else self.path)


@functools.cache
def has_proc() -> bool:
    """Return whether /proc lists the descriptors of this process; cached."""
    return os.path.exists("/proc/self/fd")


_LOOK_S, _POLL_S = 0.25, 0.02


def find(directory: int, context: Context, name: str, access: int = os.O_RDWR) -> Found:
    """Open the file of a name; refuse what cannot be a segment."""
    flags = access | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    path = context.join(name)
    try:
        descriptor = os.open(name, flags, dir_fd=directory)
    except FileNotFoundError:
        raise not_found(context, name) from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise LayoutError(
                f"{path} is not a segment: it is a link, a directory or a device; "
                "remove it or use another name"
            ) from None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise LayoutError(f"{path} is not a segment: not a regular file; remove it")
        if not context.trusts(status, directory) or status.st_mode & stat.S_IWOTH:
            raise PermissionError(
                errno.EACCES,
                f"the file belongs to user {status.st_uid} (mode "
                f"{stat.S_IMODE(status.st_mode):04o}), whom this context does not "
                "trust; share through a group context "
                "('ataraxis context create --group')",
                path,
            )
        return Found(path, descriptor, status, directory)
    except BaseException:
        os.close(descriptor)
        raise


def wait_for(
    directory: int, context: Context, name: str, timeout: float | None
) -> Found:
    """Open the file of a name; wait until it exists."""
    if timeout == 0:
        return find(directory, context, name)
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout must be None or >= 0 s, got {timeout!r}")
    deadline = None if timeout is None else time.monotonic() + timeout
    # The open directory, even if its path was replaced.
    here = f"/proc/self/fd/{directory}" if has_proc() else context.path
    watch = watch_open(os.fsencode(here))
    try:
        while True:
            try:
                return find(directory, context, name)
            except SegmentNotFound:
                left = _LOOK_S if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    raise _late(context, name, timeout) from None
            # Some file systems do not notify: look every 0.25 s.
            pause = min(left, _LOOK_S)
            if watch < 0 or watch_wait(watch, int(pause * 1e9)) == -errno.ENOSYS:
                time.sleep(min(pause, _POLL_S))
    finally:
        if watch >= 0:
            os.close(watch)


def not_found(context: Context, name: str) -> SegmentNotFound:
    """Return the error for a name that does not exist, with similar names."""
    error = SegmentNotFound(
        f"{_in_vain(context, name)}; wait with timeout=, or name the right context="
    )
    error.hint = functools.partial(_near, context, name)
    return error


def _late(context: Context, name: str, timeout: float | None) -> SegmentTimeout:
    """Return the error for a name that did not exist in time, with similar names."""
    error = SegmentTimeout(
        f"waited {timeout} s: {_in_vain(context, name)}, or name the right context="
    )
    error.hint = functools.partial(_near, context, name)
    return error


def _in_vain(context: Context, name: str) -> str:
    return (
        f"no segment is named {name!r} in {context.path}. Start the program that "
        "creates it and keep it running (the name goes with the handle that made it)"
    )


def _near(context: Context, name: str) -> str:
    """Return similar names, or the number of names."""
    try:
        names = context.names()
    except OSError:
        return "the context was removed"
    close = difflib.get_close_matches(name, names, 3)
    if close:
        return f"did you mean {', '.join(map(repr, close))}?"
    return f"there {'is' if len(names) == 1 else 'are'} {len(names)} in it"


def make_room(
    directory: int, context: Context, name: str, is_forced: bool
) -> str | None:
    """Unlink a segment that is not in use; return why not, 'busy' to try again."""
    try:
        found = find(directory, context, name)
    except SegmentNotFound:
        return None
    with found:
        header = SegmentHeader.unpack(found.page, found.status.st_size, found.path)
        slots = header.geometry.participants
        status = unlink(
            found.descriptor, directory, os.fsencode(name), slots, is_forced
        )
        crash_point(b"create_room_made")
        if status == _status.BUSY:
            return "busy"
        if status == _status.FULL:
            return f"the name is in use by {holders(found.descriptor, slots)}"
        if status == _status.KEPT:
            return "it holds undelivered frames ('ataraxis recover')"
        _raise_unlink(status, context.path / name)
        return None


def take_name(
    descriptor: int, directory: int, name: str, slots: int, *, is_forced: bool = True
) -> bool:
    """Unlink the name if it means this file; return whether it did."""
    deadline = time.monotonic() + 5
    while True:
        status = unlink(descriptor, directory, os.fsencode(name), slots, is_forced)
        if status != _status.BUSY or time.monotonic() > deadline:
            break
        time.sleep(0.001)
    _raise_unlink(status, Path(name))
    return bool(status == _status.OK)


def _raise_unlink(status: int, path: Path) -> None:
    if status <= -1000:
        raise OSError(-(status + 1000), os.strerror(-(status + 1000)), str(path))


def participants(descriptor: int, slots: int) -> list[str]:
    """Return program and pid of each participant, as text."""
    entry = struct.Struct("<IIQqiI24s8x")
    names = []
    table = os.pread(descriptor, slots * PARTICIPANT_BYTES, PAGE)
    for slot in range(len(table) // PARTICIPANT_BYTES):
        state, _, _, _, pid, _, label = entry.unpack_from(table, slot * entry.size)
        if state and byte_held(descriptor, slot) == 1:
            text = label.split(b"\0")[0].decode("utf-8", "replace")
            names.append(f"{text} (pid {pid})")
    return names


def holders(descriptor: int, slots: int) -> str:
    """Return the first participants, for messages."""
    names = participants(descriptor, slots)
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "")
    return shown or "a process that is attaching"


def unguarded() -> str:
    """Return a hint for a spawned worker that runs its parent's script again; or ''."""
    process = sys.modules.get("multiprocessing.process")
    if process is None or not getattr(process.current_process(), "_inheriting", False):
        return ""
    return (
        ". This is a worker process that runs its parent's script again: put code for "
        "the parent under 'if __name__ == \"__main__\":'"
    )


# ---- the writer of a file: the process that holds a lock on it

# struct flock: type, whence, start, length, process.
_FLOCK = "hhqqi4x"


def own(descriptor: int) -> bool:
    """Become the writer of an open file; return False if another process is.

    The descriptor is open for writing. The lock ends when it and all its copies are
    closed.
    """
    lock = struct.pack(_FLOCK, fcntl.F_WRLCK, 0, 0, 1, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)
    except (BlockingIOError, PermissionError):
        return False
    return True


def is_owned(file: Path | str | int) -> bool:
    """Return whether a file that exists, or a descriptor for reading, has a writer."""
    lock = struct.pack(_FLOCK, fcntl.F_WRLCK, 0, 0, 1, 0)
    with open(file, "rb", buffering=0, closefd=not isinstance(file, int)) as opened:
        found = fcntl.fcntl(opened, fcntl.F_OFD_GETLK, lock)
    kind: int = struct.unpack(_FLOCK, found)[0]
    return kind != fcntl.F_UNLCK
