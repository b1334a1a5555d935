"""What the other processes of the log's tests do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ataraxis.log import compress_npy_logs
from ataraxis.log.directory import EntryDirectory


def archive_at_once(path: Path, at_once: Any, base: int) -> None:
    """Add a hundred entries, then archive while others do so too."""
    with EntryDirectory(path) as entries:
        for i in range(100):
            entries.write(i % 3, base + i, b"late")
    at_once.wait(30)
    compress_npy_logs(path, remove_sources=True)
