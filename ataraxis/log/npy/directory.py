"""`EntryDirectory`: one file per entry, complete or absent, never overwritten."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ataraxis.log.modes import FILE_MODE, permit
from ataraxis.log.npy.entries import SUFFIX, EntryKey, entry_head, parse_stem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

_NEW = os.O_WRONLY | os.O_CLOEXEC
_CREATE = _NEW | os.O_CREAT | os.O_EXCL
_NO_NAMELESS = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_REMEMBERED = 65536


class EntryDirectory:
    """Write entries to a directory, each by a link: a kill leaves no partial file.

    `before` is called with the descriptor of each complete file before it gets its
    name.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as path, EntryDirectory(path) as entries:
    ...     entries.write(1, 5, b"first"), entries.write(1, 5, b"second")
    ('001_00000000000000000005.npy', '001_00000000000000000005_1.npy')
    """

    def __init__(
        self, path: str | Path, before: Callable[[int], None] | None = None
    ) -> None:
        self.path = Path(path)
        self._before = before
        self._copies: dict[tuple[int, int], int] = {}
        self._directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._self = -1
        if hasattr(os, "O_TMPFILE"):
            try:
                self._self = os.open("/proc/self/fd", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                pass
        self._has_links = True

    def close(self) -> None:
        """Close the directory."""
        for descriptor in (self._directory, self._self):
            if descriptor >= 0:
                os.close(descriptor)
        self._directory = self._self = -1

    def __enter__(self) -> EntryDirectory:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def write(
        self, source: int, stamp: int, payload: Buffer, *, durable: bool = False
    ) -> str:
        """Write one entry, of contiguous bytes; return its file name.

        If `durable`, its bytes are on the disk then; `sync` does it for the name. After
        `OSError` nothing is left behind.
        """
        data = memoryview(payload).cast("B")
        parts = (entry_head(source, stamp, len(data)), data)
        try:
            return self._write(EntryKey(stamp, source), parts, durable)
        except OSError as error:
            if self.is_removed():
                code, message = errno.ENOENT, "the directory was removed"
                raise FileNotFoundError(code, message, str(self.path)) from error
            raise

    def sync(self) -> None:
        """Sync the names to the disk."""
        os.fsync(self._directory)

    def is_removed(self) -> bool:
        """Return whether the directory was removed."""
        return os.fstat(self._directory).st_nlink == 0

    def _write(self, key: EntryKey, parts: Sequence[Buffer], durable: bool) -> str:
        if self._self >= 0:
            try:
                new = os.open(
                    ".", _NEW | os.O_TMPFILE, FILE_MODE, dir_fd=self._directory
                )
            except OSError as error:
                if error.errno not in _NO_NAMELESS or self.is_removed():
                    raise
                os.close(self._self)  # the file system has no unnamed files
                self._self = -1
            else:
                try:
                    self._fill(new, parts, durable)
                    return self._link(str(new), self._self, key)
                finally:
                    os.close(new)
        return self._write_named(key, parts, durable)

    def _fill(self, descriptor: int, parts: Sequence[Buffer], durable: bool) -> None:
        """Write a file that has no name yet."""
        permit(descriptor)
        write_all(descriptor, parts, durable)
        if self._before is not None:
            self._before(descriptor)

    def _write_named(
        self, key: EntryKey, parts: Sequence[Buffer], durable: bool
    ) -> str:
        """Write to a temporary name, and link."""
        if not self._has_links:
            return self._write_plain(key, parts, durable)
        temporary = f".tmp-{secrets.token_hex(8)}"
        new = os.open(temporary, _CREATE, FILE_MODE, dir_fd=self._directory)
        try:
            self._fill(new, parts, durable)
            return self._link(temporary, self._directory, key)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._has_links = False
        finally:
            os.close(new)
            os.unlink(temporary, dir_fd=self._directory)
        return self._write_plain(key, parts, durable)

    def _write_plain(
        self, key: EntryKey, parts: Sequence[Buffer], durable: bool
    ) -> str:
        """Write without links: a kill may leave a partial file."""
        for name in self._names(key):
            try:
                new = os.open(name, _CREATE, FILE_MODE, dir_fd=self._directory)
            except FileExistsError:
                continue
            try:
                permit(new)
                if self._before is not None:
                    self._before(new)
                write_all(new, parts, durable)
            except OSError:
                os.unlink(name, dir_fd=self._directory)
                raise
            finally:
                os.close(new)
            return name
        raise AssertionError("names do not end")

    def _link(self, temporary: str, directory: int, key: EntryKey) -> str:
        """Give a complete file the first free name."""
        for name in self._names(key):
            try:
                os.link(
                    temporary,
                    name,
                    src_dir_fd=directory,
                    dst_dir_fd=self._directory,
                    follow_symlinks=directory == self._self,
                )
            except FileExistsError:
                continue
            return name
        raise AssertionError("names do not end")

    def _names(self, key: EntryKey) -> Iterator[str]:
        """Iterate over possible names of an entry, the likely one first."""
        stem = key.stem
        known = self._copies.get(key[:2]) if self._copies else None
        if known is None:
            yield stem + SUFFIX
            known = 0
            if len(self._copies) >= _REMEMBERED:
                self._copies.clear()
        copy = known
        while True:
            copy += 1
            # The search for the next entry of this stamp starts here.
            self._copies[key[:2]] = copy
            yield f"{stem}_{copy}{SUFFIX}"


def write_all(descriptor: int, parts: Sequence[Buffer], durable: bool = False) -> None:
    """Write every byte of some parts, even if the system writes only some at a time."""
    left = [memoryview(part).cast("B") for part in parts]
    while left:
        left = _after(left, os.writev(descriptor, left))
    if durable:
        os.fsync(descriptor)


def _after(parts: list[memoryview], count: int) -> list[memoryview]:
    """Return views of everything after the first `count` bytes."""
    left = []
    for part in parts:
        left.append(part[count:])
        count = max(0, count - len(part))
    return [part for part in left if len(part)]


def keys_in(path: str | Path) -> tuple[list[tuple[EntryKey, str]], list[str]]:
    """List a directory, unsorted: (key, name) of entries; names of other npy files."""
    entries, foreign = [], []
    with os.scandir(path) as listing:
        for found in listing:
            name = found.name
            if not name.endswith(SUFFIX) or name.startswith("."):
                continue
            key = parse_stem(name[: -len(SUFFIX)])
            if key is None or not found.is_file(follow_symlinks=False):
                foreign.append(name)
            else:
                entries.append((key, name))
    return entries, foreign


@contextmanager
def directory_lock(path: str | Path) -> Iterator[None]:
    """Lock a directory: one thread at a time archives in it.

    It is a kernel lock on the directory itself, which leaves no file and ends with the
    process. File systems without such locks get a file, ``.archive-lock``.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.EBADF, errno.EINVAL, errno.EOPNOTSUPP):
                raise
            os.close(descriptor)
            lock = os.path.join(path, ".archive-lock")
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            descriptor = os.open(lock, flags, FILE_MODE)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
