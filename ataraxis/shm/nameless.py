"""Files that have no name until they are whole."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
from types import TracebackType

from ataraxis._kernels.memory import allocate, anybody, crash_point
from ataraxis.shm.context import Context, group_id
from ataraxis.shm.files import Found, has_proc
from ataraxis.shm.header import PAGE

CHUNK = 16 << 20
TEMPORARY = ".tmp-"


class Nameless:
    """A file of `total` bytes in a directory that has no name until it is whole.

    Without O_TMPFILE or /proc it has a temporary one, which is swept once its creator
    is gone.
    """

    def __init__(self, directory: int, context: Context, total: int) -> None:
        self.total = total
        self._directory = directory
        self._context = context
        self._temporary: str | None = None
        flags = os.O_RDWR | os.O_CLOEXEC
        try:
            if not has_proc():
                raise OSError(errno.EOPNOTSUPP, "no /proc")
            here = "/proc/self/fd/" + str(directory)
            self.descriptor = os.open(here, flags | os.O_TMPFILE, 0o600)
        except (OSError, AttributeError) as error:
            refused = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)
            if isinstance(error, OSError) and error.errno not in refused:
                raise
            self.descriptor = self._open_named(flags)

    def _open_named(self, flags: int) -> int:
        sweep_temporaries(self._directory)
        self._temporary = TEMPORARY + secrets.token_hex(8)
        flags |= os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        return os.open(self._temporary, flags, 0o600, dir_fd=self._directory)

    def __enter__(self) -> Nameless:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._temporary is not None:
            os.unlink(self._temporary, dir_fd=self._directory)
        os.close(self.descriptor)

    def permit(self, mode: int | None, group: str | int | None) -> None:
        """Set permission bits and group; 0o600, or 0o660 in a group context."""
        if mode is None:
            mode = 0o660 if self._context.is_shared_with_group else 0o600
        if mode & stat.S_IWOTH or mode & ~0o777 or mode & 0o600 != 0o600:
            raise ValueError(
                f"mode={mode:04o} cannot be used: a segment is readable and writable "
                "by its owner and never writable by everybody"
            )
        if group is not None:
            os.fchown(self.descriptor, -1, group_id(group))
        os.fchmod(self.descriptor, mode)

    def allocate(self, name: str) -> None:
        """Back every byte with memory now, so that no store can fail later."""
        room = os.fstatvfs(self._directory)
        if self.total > room.f_bavail * room.f_frsize:
            raise self._no_room(name, errno.ENOSPC)
        if self.total > CHUNK and self.total > _free_memory():
            # A tmpfs may be larger than the memory behind it: the kernel would kill.
            raise self._no_room(name, errno.ENOMEM)
        done, chunk = 0, CHUNK
        while done < self.total:
            count = min(chunk, self.total - done)
            status = allocate(self.descriptor, done, count)
            if status == 0:
                done += count
            elif status == -errno.EINTR:
                # Some kernels undo an interrupted piece: with a timer that fires
                # faster than one is done, only smaller ones ever are.
                chunk = max(chunk // 2, PAGE)
            else:
                raise self._no_room(name, -status)

    def _no_room(self, name: str, code: int) -> OSError:
        room = os.fstatvfs(self._directory)
        return OSError(
            code,
            f"{os.strerror(code)}: segment {name!r} needs {self.total} bytes, "
            f"{room.f_bavail * room.f_frsize} are free. Make room, choose another "
            "context=, or enlarge it (Docker: --shm-size; Linux: mount -o "
            "remount,size=)",
            str(self._context.path),
        )

    def found(self) -> Found:
        """View it as an open file, to take part in it."""
        name = self._temporary or "(no name yet)"
        where = self._context.join(name)
        status = os.fstat(self.descriptor)
        return Found(where, self.descriptor, status, self._directory)

    def link(self, name: str) -> bool:
        """Give it its name; False if something has it."""
        source = self._temporary or f"/proc/self/fd/{self.descriptor}"
        from_ = self._directory if self._temporary else None
        try:
            os.link(
                source,
                name,
                src_dir_fd=from_,
                dst_dir_fd=self._directory,
                follow_symlinks=self._temporary is None,
            )
        except FileExistsError:
            return False
        crash_point(b"create_linked")
        return True


def _free_memory() -> int:
    """Bytes that can be had without killing anybody; without /proc, no limit."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            found = dict(line.split(":", 1) for line in lines)
        kib = sum(int(found[key].split()[0]) for key in ("MemAvailable", "SwapFree"))
        return kib * 1024
    except (OSError, KeyError, ValueError):
        return sys.maxsize


def sweep_temporaries(directory: int) -> int:
    """Remove temporary files whose creator is gone; how many."""
    swept = 0
    for name in os.listdir(directory):
        if not name.startswith(TEMPORARY):
            continue
        try:
            descriptor = os.open(name, os.O_RDWR | os.O_CLOEXEC, dir_fd=directory)
        except OSError:
            continue
        try:
            if anybody(descriptor, 1024) == 0:
                os.unlink(name, dir_fd=directory)
                swept += 1
        except FileNotFoundError:
            pass
        finally:
            os.close(descriptor)
    return swept
