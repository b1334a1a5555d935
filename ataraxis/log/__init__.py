"""The log: every entry to disk, and back from it.

Two layouts: one npy file an entry, archived to npz, as ataraxis-data-structures has
them; and a journal of frames.
"""

from ataraxis.log.archiving import ArchiveReport
from ataraxis.log.compression import assemble_log_archives, compress_npy_logs
from ataraxis.log.input_queue import LogQueue
from ataraxis.log.logger import DataLogger, LoggerStatistics
from ataraxis.log.package import LogPackage
from ataraxis.log.queue_recovery import Recovery, recover_log

__all__ = [
    "ArchiveReport",
    "DataLogger",
    "LogPackage",
    "LogQueue",
    "LoggerStatistics",
    "Recovery",
    "assemble_log_archives",
    "compress_npy_logs",
    "recover_log",
]
