"""Bytes to a file and back: a reader finds the whole old file or the whole new one.

The new bytes are written to a hidden file beside the target, synced to the disk, and
renamed in one step. A writer locks its hidden file: one without a lock was left by a
killed writer, and the next write to the same target removes it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ataraxis.config.limits import FILES

_SUFFIX = ".ataraxis-part"


def read_bytes(path: Path) -> bytes | None:
    """Read a file as `read_whole`; ``None`` if it does not exist."""
    try:
        return read_whole(path)
    except FileNotFoundError:
        return None


def read_whole(path: Path) -> bytes:
    """Read a regular file; never waits, as for the writer of a pipe.

    Raises `OSError` if it does not exist, is a device or pipe, or is longer than a text
    file may be.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, "a directory, not a file", str(path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "a device or pipe, not a file", str(path))
        data = file.read(FILES.text_bytes + 1)
    if len(data) > FILES.text_bytes:
        raise OSError(
            errno.EFBIG, f"longer than {FILES.text_bytes} bytes: not read", str(path)
        )
    return data


def replace_bytes(path: Path, data: bytes) -> None:
    """Replace the content of a file in one step; after an `OSError` it is unchanged.

    Follows symbolic links, keeps the mode bits (and the owner where allowed) of the
    old file, makes missing folders.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target)
    with _part_of(target) as (descriptor, part):
        written = 0
        while written < len(data):
            written += os.write(descriptor, data[written:])
        _take_over_rights(target, descriptor)
        os.fsync(descriptor)
        os.replace(part, target)
    _sync_folder(target.parent)


def keep_copy(path: Path, data: bytes) -> Path:
    """Write the bytes of an old file to ``.bak``, without replacing another copy."""
    target = Path(os.path.realpath(path))
    number = 1
    while True:
        suffix = ".bak" if number == 1 else f".bak{number}"
        copy = target.with_name(target.name + suffix)
        held = read_bytes(copy)
        if held is None:
            replace_bytes(copy, data)
            with suppress(OSError):
                os.chmod(copy, stat.S_IMODE(os.stat(target).st_mode))
            return copy
        if held == data:
            return copy
        number += 1


def sweep(target: Path) -> None:
    """Remove the hidden files that killed writers of this target left."""
    prefix = f".{target.name}."
    with os.scandir(target.parent) as entries:
        names = [
            entry.name
            for entry in entries
            if entry.name.startswith(prefix) and entry.name.endswith(_SUFFIX)
        ]
    for name in names:
        token = name[len(prefix) : -len(_SUFFIX)]
        if len(token) == 16 and all(digit in "0123456789abcdef" for digit in token):
            with suppress(OSError):
                _remove_abandoned(target.with_name(name))


def _remove_abandoned(part: Path) -> None:
    """Remove one hidden file unless its writer lives."""
    descriptor = os.open(part, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        part.unlink()
    finally:
        os.close(descriptor)


@contextmanager
def _part_of(target: Path) -> Iterator[tuple[int, Path]]:
    """Give a new hidden file, locked; remove it afterwards unless renamed."""
    while True:
        part = target.with_name(f".{target.name}.{secrets.token_hex(8)}{_SUFFIX}")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(part, flags, 0o666)
        with suppress(OSError):  # a file system without locks: nothing is swept either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Another writer's sweep may have removed it between open and lock.
        if os.fstat(descriptor).st_nlink:
            break
        os.close(descriptor)
    try:
        yield descriptor, part
    finally:
        # Unlinked before it is unlocked, so that no sweep finds it abandoned.
        with suppress(FileNotFoundError):
            os.unlink(part)
        os.close(descriptor)


def _take_over_rights(target: Path, descriptor: int) -> None:
    """Set the mode and the owner of the new file to those of the old one."""
    try:
        old = os.stat(target)
    except FileNotFoundError:
        return
    new = os.fstat(descriptor)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        with suppress(PermissionError):
            os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))


def _sync_folder(folder: Path) -> None:
    """Sync the new name to the disk, if the file system can sync folders."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
