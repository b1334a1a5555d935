"""`EntryDirectory`: one file an entry, whole or not there, never over another."""

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
_NO_NAMELESS = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_REMEMBERED = 65536


class EntryDirectory:
    """Write entries into a directory, each by a link: a kill leaves no empty file.

    Parameters
    ----------
    path : str or Path
        A directory that exists.
    before : callable, optional
        Called with the descriptor of each file, whole but for its name.

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
        """Write one entry; the name it got.

        Parameters
        ----------
        source, stamp : int
            Its id and stamp.
        payload : bytes-like
            Contiguous; not copied in memory.
        durable : bool, optional
            Return only when the bytes are on the disk; the name is when `sync` has
            returned.

        Raises
        ------
        OSError
            It was not written, and nothing is left of it.
        """
        data = memoryview(payload).cast("B")
        parts = (entry_head(source, stamp, len(data)), data)
        try:
            return self._write(EntryKey(stamp, source), parts, durable)
        except OSError as error:
            if self.is_removed():
                code, said = errno.ENOENT, "the directory was removed"
                raise FileNotFoundError(code, said, str(self.path)) from error
            raise

    def sync(self) -> None:
        """Bring the names to the disk."""
        os.fsync(self._directory)

    def is_removed(self) -> bool:
        """Whether the directory was taken away."""
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
                self._forget_nameless()
            else:
                try:
                    permit(new)
                    write_all(new, parts, durable)
                    if self._before is not None:
                        self._before(new)
                    return self._link(str(new), self._self, key)
                finally:
                    os.close(new)
        return self._write_named(key, parts, durable)

    def _forget_nameless(self) -> None:
        """Remember that this file system has no files without a name."""
        os.close(self._self)
        self._self = -1

    def _write_named(
        self, key: EntryKey, parts: Sequence[Buffer], durable: bool
    ) -> str:
        """Write under a temporary name first, and link."""
        if not self._has_links:
            return self._write_plain(key, parts, durable)
        temporary = f".tmp-{secrets.token_hex(8)}"
        flags = _NEW | os.O_CREAT | os.O_EXCL
        new = os.open(temporary, flags, FILE_MODE, dir_fd=self._directory)
        try:
            permit(new)
            write_all(new, parts, durable)
            if self._before is not None:
                self._before(new)
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
        """Write where links do not exist: a kill here may leave a part of a file."""
        flags = _NEW | os.O_CREAT | os.O_EXCL
        for name in self._names(key):
            try:
                new = os.open(name, flags, FILE_MODE, dir_fd=self._directory)
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
        """Give a whole file the first name that is free."""
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
        """Names this entry may have, the likely one first."""
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
            # Where the next of this stamp begins to look.
            self._copies[key[:2]] = copy
            yield f"{stem}_{copy}{SUFFIX}"


def write_all(descriptor: int, parts: Sequence[Buffer], durable: bool = False) -> None:
    """Write every byte of the parts, also where the kernel takes them in pieces."""
    left = [memoryview(part).cast("B") for part in parts]
    while left:
        left = _after(left, os.writev(descriptor, left))
    if durable:
        os.fsync(descriptor)


def _after(parts: list[memoryview], count: int) -> list[memoryview]:
    """Return views of what follows the first `count` bytes."""
    left = []
    for part in parts:
        left.append(part[count:])
        count = max(0, count - len(part))
    return [part for part in left if len(part)]


def keys_in(path: str | Path) -> tuple[list[tuple[EntryKey, str]], list[str]]:
    """List the entries of a directory, unsorted, and the npy files that are none.

    Returns
    -------
    entries : list of (EntryKey, str)
        Key and file name of each.
    foreign : list of str
        Names of other files that end in ``.npy``.
    """
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
def held(path: str | Path) -> Iterator[None]:
    """Hold the directory's lock: one process or thread at a time archives in it.

    It is a kernel lock on the directory itself: it leaves no file and dies with us.
    File systems that do not lock directories get a file, ``.archive-lock``.
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
