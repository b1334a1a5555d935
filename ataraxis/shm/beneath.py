"""Open files below an open directory, and refuse paths that lead out of it.

`openat2` of Linux 5.6 does it in the kernel. Without it (an older kernel, a seccomp
filter), the components of the path are opened one after the other, never through a
link. This is stricter: it refuses every link, the kernel only those that lead out.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from typing import Any

_SYS_OPENAT2 = 437  # the same number on every architecture
NO_MOUNTS = 0x01
"""RESOLVE_NO_XDEV: refuse mount points."""
NO_MAGIC = 0x02
"""RESOLVE_NO_MAGICLINKS: refuse links such as those of /proc/self/fd."""
NO_LINKS = 0x04
"""RESOLVE_NO_SYMLINKS: refuse every link, also in the middle."""
BENEATH = 0x08
"""RESOLVE_BENEATH: refuse paths that lead out of the directory: '/', '..', links."""


class _How(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


@functools.cache
def _system_call() -> Any:
    try:
        call = ctypes.CDLL(None, use_errno=True).syscall
    except (OSError, AttributeError):
        return None
    call.restype = ctypes.c_long
    return call


def _openat2(directory: int, path: bytes, flags: int, resolve: int) -> int:
    """Call `openat2`; return a descriptor, or a negative errno."""
    call = _system_call()
    if call is None:
        return -errno.ENOSYS
    how = _How(flags, 0, resolve)
    made = call(
        ctypes.c_long(_SYS_OPENAT2),
        ctypes.c_int(directory),
        ctypes.c_char_p(path),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )
    return -ctypes.get_errno() if made < 0 else int(made)


@functools.cache
def has_openat2() -> bool:
    """Return whether the kernel has `openat2`, and lets this process use it."""
    made = _openat2(-100, b".", os.O_PATH | os.O_CLOEXEC, 0)
    if made < 0:
        return False
    os.close(made)
    return True


def open_beneath(
    directory: int, path: str, flags: int = os.O_RDONLY, *, resolve: int = 0
) -> int:
    """Open a file below a directory; the caller closes the descriptor.

    `path` is relative to the directory; `flags` are those of `os.open`, but nothing is
    created; `resolve` refuses more: `NO_LINKS`, `NO_MOUNTS`. Raises `OSError` if the
    file does not exist, or the path leads out: EXDEV or ELOOP.
    """
    flags |= os.O_CLOEXEC | os.O_NOCTTY
    if "\0" in path:
        raise OSError(errno.EINVAL, "the path contains a NUL", path)
    name = os.fsencode(path)
    if has_openat2():
        for _ in range(64):
            made = _openat2(directory, name, flags, BENEATH | NO_MAGIC | resolve)
            if made != -errno.EAGAIN:  # something was renamed meanwhile
                break
        if made >= 0:
            return made
        raise OSError(-made, os.strerror(-made), path)
    return walk_beneath(directory, path, flags, no_mounts=bool(resolve & NO_MOUNTS))


def walk_beneath(
    directory: int, path: str, flags: int = os.O_RDONLY, *, no_mounts: bool = False
) -> int:
    """Open as `open_beneath` does, without `openat2`; refuse every link."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
    device = os.fstat(directory).st_dev
    at = os.dup(directory)
    try:
        for k, part in enumerate(parts or ["."]):
            is_last = k + 1 >= len(parts)
            step = flags if is_last else os.O_RDONLY | os.O_DIRECTORY
            step |= os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                below = os.open(part, step, dir_fd=at)
            except OSError as error:
                raise OSError(error.errno, error.strerror, path) from None
            os.close(at)
            at = below
            if no_mounts and os.fstat(at).st_dev != device:
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
        made, at = at, -1
        return made
    finally:
        if at >= 0:
            os.close(at)


def path_of(descriptor: int) -> str:
    """Return a path to an open file, for libraries that take paths only.

    It is a link in /proc, which names this file even if its own path is replaced.
    """
    return f"/proc/self/fd/{descriptor}"
