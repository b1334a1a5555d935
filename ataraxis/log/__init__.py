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
    "ArchiveReport": "ataraxis.log.npy.archiving",
    "DataLogger": "ataraxis.log.logger",
    "JournalWriter": "ataraxis.log.journal.writer",
    "LogArchive": "ataraxis.log.archive",
    "LogPackage": "ataraxis.log.npy.package",
    "LogQueue": "ataraxis.log.queue",
    "LoggerStatistics": "ataraxis.log.logger",
    "Loss": "ataraxis.log.monitor",
    "LowDisk": "ataraxis.log.disk_watch",
    "Recorder": "ataraxis.log.recorder",
    "Recovery": "ataraxis.log.recovery",
    "assemble_log_archives": "ataraxis.log.npy.archiving",
    "compress_npy_logs": "ataraxis.log.npy.archiving",
    "export_log": "ataraxis.log.export.export",
    "recover_log": "ataraxis.log.recovery",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ataraxis.log' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
