"""Warn long before a disk is full."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_EVERY_S = 1.0
_LEAST_BYTES = 2**28


@dataclass(frozen=True)
class LowDisk:
    """How long the free space of a disk lasts."""

    path: Path
    """Directory of the recording."""
    free_bytes: int
    """Free space."""
    rate_bytes: float
    """Bytes written per second."""

    @property
    def seconds_left(self) -> float:
        """Time until the disk is full, s."""
        return self.free_bytes / self.rate_bytes if self.rate_bytes else float("inf")

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.free_bytes / 2**20:.0f} MiB are left, for "
            f"{self.seconds_left:.0f} s at {self.rate_bytes / 2**20:.1f} MiB/s: "
            "make room"
        )


_REMOTE = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "afs"}
_MEMORY = {"tmpfs", "ramfs"}


def filesystem_of(path: Path) -> str:
    """Return the kind of file system of a path, as the system names it, or ''."""
    try:
        place = os.path.realpath(path)
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    found, longest = "", -1
    for line in lines:
        fields, _, more = line.partition(" - ")
        mount = fields.split()[4].encode().decode("unicode_escape")
        is_in = place == mount or place.startswith(mount.rstrip("/") + "/")
        if is_in and len(mount) >= longest:  # the later mount hides an earlier one
            found, longest = more.split()[0], len(mount)
    return found


def caution_of(path: Path) -> str:
    """Return a warning about the file system of a path; '' for a local disk."""
    kind = filesystem_of(path)
    if kind in _REMOTE:
        return (
            f"{path} is on another machine ({kind}): while it does not answer, frames "
            "wait in their rings; make them long enough (buffer_s), or record to a "
            "local disk and copy"
        )
    if kind.startswith("fuse"):
        return (
            f"{path} is on a FUSE file system ({kind}): data it reports as synced is "
            "as safe as its program makes it, and frames wait in their rings while it "
            "does not answer"
        )
    if kind in _MEMORY:
        return f"{path} is in memory ({kind}): its contents are lost at power-off"
    return ""


class DiskWatch:
    """Check the free space of a directory's disk, and report once when it gets low.

    That is below 256 MiB, or when the space lasts less than `seconds`. `on_low` is
    called with `LowDisk`, by default a warning; `on_enough` when there is enough space
    again.
    """

    def __init__(
        self,
        path: Path,
        seconds: float,
        on_low: Callable[[LowDisk], object] | None,
        on_enough: Callable[[], object] | None = None,
    ) -> None:
        self.path, self._seconds, self._on_low = path, seconds, on_low
        self._on_enough = on_enough
        self._was_low = False
        self._checked_at, self._nbytes = time.monotonic(), 0

    def check(self, nbytes: int, *, is_forced: bool = False) -> None:
        """Check the space, given the bytes written since the start."""
        now = time.monotonic()
        passed = now - self._checked_at
        if passed < _EVERY_S and not is_forced:
            return
        rate = max(nbytes - self._nbytes, 0) / passed if passed > 0 else 0.0
        self._checked_at, self._nbytes = now, nbytes
        status = os.statvfs(self.path)
        low = LowDisk(self.path, status.f_bavail * status.f_frsize, rate)
        is_low = low.seconds_left < self._seconds or low.free_bytes < _LEAST_BYTES
        if is_low and not self._was_low:
            if self._on_low is not None:
                self._on_low(low)
            else:
                warnings.warn(str(low), RuntimeWarning, stacklevel=2)
        elif self._was_low and not is_low and self._on_enough is not None:
            self._on_enough()
        self._was_low = is_low
