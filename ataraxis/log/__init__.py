"""The log: every entry to disk, and back from it.

Two layouts: one npy file an entry, archived to npz, as ataraxis-data-structures has
them; and a journal of frames.
"""

from ataraxis.log.archiving import ArchiveReport
from ataraxis.log.compression import assemble_log_archives, compress_npy_logs
from ataraxis.log.package import LogPackage

__all__ = [
    "ArchiveReport",
    "LogPackage",
    "assemble_log_archives",
    "compress_npy_logs",
]
