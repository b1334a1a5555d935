"""Who writes a file: a lock that goes with the writer, asked for without being taken.

An open-file-description lock on the first byte. Who only looks never holds it, not even
for a moment, so that a writer never finds its own file taken.
"""

from __future__ import annotations

import fcntl
import struct
from pathlib import Path

# struct flock: type, whence, start, length, process.
_FLOCK = "hhqqi4x"


def own(descriptor: int) -> bool:
    """Become the writer of an open file; False if somebody else is.

    Parameters
    ----------
    descriptor : int
        Open for writing. The lock goes when it and all its copies are closed.
    """
    wish = struct.pack(_FLOCK, fcntl.F_WRLCK, 0, 0, 1, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wish)
    except (BlockingIOError, PermissionError):
        return False
    return True


def is_owned(file: Path | str | int) -> bool:
    """Tell whether a file has a writer.

    Parameters
    ----------
    file : Path, str or int
        The file, which exists; or a descriptor of it, opened for reading.
    """
    wish = struct.pack(_FLOCK, fcntl.F_WRLCK, 0, 0, 1, 0)
    with open(file, "rb", buffering=0, closefd=not isinstance(file, int)) as opened:
        found = fcntl.fcntl(opened, fcntl.F_OFD_GETLK, wish)
    kind: int = struct.unpack(_FLOCK, found)[0]
    return kind != fcntl.F_UNLCK
