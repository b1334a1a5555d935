"""Permission bits of the files and directories of a recording.

A recording is private to its owner, as shared memory is: files 0600 in directories
0700, whatever the umask. ``--mode`` of the commands changes it through the environment,
which the processes that write the files inherit.
"""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "ATARAXIS_RECORDING_MODE"
FILE_MODE = 0o600


def checked_mode(text: str) -> int:
    """Return the file mode that an octal text gives.

    Raises `ValueError` if the owner could not read and write them, or everyone could
    write.
    """
    try:
        mode = int(text, 8)
    except ValueError:
        raise ValueError(f"mode must be octal digits like 0640, got {text!r}") from None
    if mode & ~0o666 or mode & 0o600 != 0o600 or mode & 0o002:
        raise ValueError(
            f"mode {text!r}: the owner must be able to read and write a recording, and "
            "not everyone may write it: use 0600, 0640, 0644, 0660 or 0664"
        )
    return mode


def file_mode() -> int:
    """Return the mode of a recording's files."""
    text = os.environ.get(VARIABLE)
    return checked_mode(text) if text else FILE_MODE


def permit(descriptor: int) -> None:
    """Set the requested mode on a new file, whatever the umask."""
    if (mode := file_mode()) != FILE_MODE:
        os.fchmod(descriptor, mode)


def make_folder(path: Path, *, exist_ok: bool = True) -> None:
    """Create the directory of a recording and its parents; keep an existing one.

    Raises `FileExistsError` if it is a file, or exists without `exist_ok`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        if not exist_ok or not path.is_dir():
            raise
        return
    mode = file_mode()
    if mode != FILE_MODE:
        path.chmod(mode | (mode & 0o444) >> 2)
