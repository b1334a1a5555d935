"""Explain limits of the system: which one was reached, who set it, what to do."""

from __future__ import annotations

import errno
import os
import resource
from contextlib import suppress

__all__ = ["advice", "raise_explained"]


def raise_explained(error: OSError, what: str, path: str, needed: int = 0) -> None:
    """Raise the error with advice if it is about a limit; else return.

    `what` is what failed, as ``"segment 'x' cannot be made"``; `path` that of the
    context; `needed` bytes, 0 if unknown.
    """
    text = advice(error.errno, path, needed)
    if text and error.errno is not None:
        reason = os.strerror(error.errno)
        raise OSError(error.errno, f"{reason}: {what}: {text}", path) from error


def advice(code: int | None, path: str = "", needed: int = 0) -> str:
    """Return which limit an errno is about, and what to do; empty: none."""
    size = f" and {needed} bytes are needed" if needed else ""
    if code == errno.EMFILE:
        limit, used = _limit("RLIMIT_NOFILE"), _count("/proc/self/fd")
        return (
            f"this process may have {limit} descriptors open (RLIMIT_NOFILE, set by "
            f"the shell, the service manager or the container){used}; each handle of a "
            "segment takes 2. Close handles that are not used, or allow more: ulimit "
            "-n, LimitNOFILE=, docker --ulimit nofile="
        )
    if code == errno.ENFILE:
        return (
            "the whole system has no descriptors left (fs.file-max): close programs, "
            "or have the administrator allow more"
        )
    if code == errno.EFBIG:
        limit = _limit("RLIMIT_FSIZE")
        return (
            f"a file may have {limit} bytes (RLIMIT_FSIZE, set by the shell or the "
            f"service manager){size}; that the disk has room does not matter. Allow "
            "larger files: ulimit -f unlimited, LimitFSIZE=infinity"
        )
    if code == errno.ENOMEM:
        return _memory(size)
    if code == errno.EROFS:
        return (
            f"{path} is on a file system that is mounted read-only (a volume with "
            "':ro'?), and every participant writes there. Mount it writable, or choose "
            "another context="
        )
    return ""


def _memory(size: str) -> str:
    limit = _limit("RLIMIT_AS")
    if limit == "any number of":
        return (
            f"no memory is left to map it{size}, or the process has too many "
            "mappings (vm.max_map_count). Free memory, or close handles that are not "
            "used"
        )
    used = ""
    with suppress(OSError, ValueError), open("/proc/self/statm") as file:
        used = f", {int(file.read().split()[0]) * os.sysconf('SC_PAGE_SIZE')} are used"
    return (
        f"this process may map {limit} bytes (RLIMIT_AS, set by the shell or the job's "
        f"scheduler){used}{size}. Allow more: ulimit -v unlimited, or ask for more "
        "memory for the job"
    )


def _limit(name: str) -> str:
    soft = resource.getrlimit(getattr(resource, name))[0]
    return "any number of" if soft == resource.RLIM_INFINITY else str(soft)


def _count(place: str) -> str:
    """Return how many are open; listing them takes a descriptor, too."""
    try:
        return f", {len(os.listdir(place))} are open"
    except OSError:
        return ", all are open"
