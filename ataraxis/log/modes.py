"""Who may read a recording: permission bits of its files and folders.

A recording is its owner's alone, as shared memory is: files 0600 in folders 0700,
whatever the umask. ``--mode`` of the commands says otherwise; it is handed on in the
environment, so that the processes which write the files have it too.
"""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "ATARAXIS_RECORDING_MODE"
FILE_MODE = 0o600


def checked_mode(text: str) -> int:
    """Return the mode of files that a text says, in octal.

    Raises
    ------
    ValueError
        The owner could not read and write them, or everybody could write.

    Examples
    --------
    >>> oct(checked_mode("0640"))
    '0o640'
    """
    try:
        mode = int(text, 8)
    except ValueError:
        raise ValueError(f"mode {text!r}: expected octal digits, as 0640") from None
    if mode & ~0o666 or mode & 0o600 != 0o600 or mode & 0o002:
        raise ValueError(
            f"mode {text!r}: the owner must read and write a recording, and not "
            "everybody may write it: 0600, 0640, 0644, 0660 or 0664"
        )
    return mode


def file_mode() -> int:
    """Return the mode of a recording's files."""
    text = os.environ.get(VARIABLE)
    return checked_mode(text) if text else FILE_MODE


def permit(descriptor: int) -> None:
    """Give a new file the mode that was asked for, whatever the umask."""
    if (mode := file_mode()) != FILE_MODE:
        os.fchmod(descriptor, mode)


def make_folder(path: Path, *, exist_ok: bool = True) -> None:
    """Make a recording's folder, and those above it; one that is there stays as it is.

    Raises
    ------
    FileExistsError
        It is there, and may not be; or a file is.
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
