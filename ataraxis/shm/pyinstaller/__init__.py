"""What PyInstaller has to know of ataraxis; found by the entry point ``pyinstaller40``.

Names of ataraxis are loaded on first use, and its kernels import each other from C:
PyInstaller sees neither. The run-time hook makes the built program start its workers,
writers and recorders, as `ataraxis.freeze_support` does.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["hook_directories"]


def hook_directories() -> list[str]:
    """Return the folders with hooks: this one."""
    return [str(Path(__file__).parent)]
