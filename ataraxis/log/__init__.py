"""The log: every frame to disk, at the disk's speed, and back as arrays.

Two layouts: a journal of frames, written by `JournalWriter`; and one npy file an entry,
archived to npz, as ataraxis-data-structures has them. `DataLogger` writes either, and
`LogArchive` reads both.
"""

from __future__ import annotations

import importlib
from typing import Any

# Public name -> the module it lives in, loaded on first use.
_HOME = {
    "ArchiveReport": "ataraxis.log.archiving",
    "DataLogger": "ataraxis.log.logger",
    "JournalWriter": "ataraxis.log.journal_writer",
    "LogArchive": "ataraxis.log.archive",
    "LogPackage": "ataraxis.log.package",
    "LogQueue": "ataraxis.log.input_queue",
    "LoggerStatistics": "ataraxis.log.logger",
    "Loss": "ataraxis.log.log_watch",
    "LowDisk": "ataraxis.log.disk_watch",
    "Recorder": "ataraxis.log.recorder",
    "Recovery": "ataraxis.log.queue_recovery",
    "assemble_log_archives": "ataraxis.log.compression",
    "compress_npy_logs": "ataraxis.log.compression",
    "export_log": "ataraxis.log.export",
    "recover_log": "ataraxis.log.queue_recovery",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Load a name from its file on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'ataraxis.log' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
