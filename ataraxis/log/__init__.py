"""The log: every frame to disk, at the disk's speed, and back as arrays.

A journal is written by `JournalWriter` and read, like every other layout, by
`LogArchive`.
"""

from __future__ import annotations

import importlib
from typing import Any

# Public name -> the module it lives in, loaded on first use.
_HOME = {
    "JournalWriter": "ataraxis.log.journal_writer",
    "LogArchive": "ataraxis.log.archive",
    "Recorder": "ataraxis.log.recorder",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Load a name from its file on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'ataraxis.log' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
