"""A disk that blocks on demand: `python fuse_disk.py SOURCE MOUNT GATE`.

A FUSE file system that shows the directory SOURCE at MOUNT. While the file GATE exists,
writes and syncs do not return: their thread is blocked in the kernel, even if it was
killed, until GATE is removed or this program has ended.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from typing import Any


def main(source: str, mount: str, gate: str) -> None:
    import mfusepy  # type: ignore[import-untyped]

    def block() -> None:
        while os.path.exists(gate):
            time.sleep(0.01)

    class Disk(mfusepy.Operations):  # type: ignore[misc]
        """The operations that a recording uses."""

        def _of(self, path: str) -> str:
            return source + path

        def getattr(self, path: str, fh: Any = None) -> dict[str, Any]:
            status = os.lstat(self._of(path))
            return {
                name: getattr(status, name)
                for name in dir(status)
                if name.startswith("st_") and not name.endswith("_ns")
            }

        def readdir(self, path: str, fh: int) -> list[str]:
            return [".", "..", *os.listdir(self._of(path))]

        def mkdir(self, path: str, mode: int) -> None:
            os.mkdir(self._of(path), mode)

        def rmdir(self, path: str) -> None:
            os.rmdir(self._of(path))

        def unlink(self, path: str) -> None:
            os.unlink(self._of(path))

        def rename(self, old: str, new: str) -> None:
            os.rename(self._of(old), self._of(new))

        def chmod(self, path: str, mode: int) -> None:
            os.chmod(self._of(path), mode)

        def utimens(self, path: str, times: Any = None) -> None:
            os.utime(self._of(path))

        def create(self, path: str, mode: int, fi: Any = None) -> int:
            return os.open(self._of(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

        def open(self, path: str, flags: int) -> int:
            return os.open(self._of(path), flags)

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            return os.pread(fh, size, offset)

        def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
            block()
            return os.pwrite(fh, data, offset)

        def truncate(self, path: str, length: int, fh: Any = None) -> None:
            os.truncate(self._of(path), length)

        def fallocate(self, path: str, mode: int, at: int, size: int, fh: int) -> None:
            raise mfusepy.FuseOSError(errno.EOPNOTSUPP)

        def fsync(self, path: str, datasync: int, fh: int) -> None:
            block()
            os.fsync(fh)

        def release(self, path: str, fh: int) -> None:
            os.close(fh)

        def statfs(self, path: str) -> dict[str, int]:
            room = os.statvfs(source)
            return {
                name: getattr(room, name)
                for name in dir(room)
                if name.startswith("f_") and name != "f_fsid"
            }

    mfusepy.FUSE(Disk(), mount, foreground=True, nothreads=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
