"""LogContract, run over every layout of logs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ataraxis.log import (
    JournalWriter,
    LogArchive,
    assemble_log_archives,
    compress_npy_logs,
)
from ataraxis.log.npy.directory import EntryDirectory
from ataraxis.testing.logs import Entry, LogContract


class TestJournal(LogContract):
    def write(self, directory: Path, entries: list[Entry]) -> Path:
        with JournalWriter(directory) as journal:
            for source, stamp, payload in entries:
                journal.log(source, payload, time_ns=stamp)
        return directory


class TestJournalOfManyFiles(LogContract):
    def write(self, directory: Path, entries: list[Entry]) -> Path:
        with JournalWriter(directory, file_bytes=8192, buffer_bytes=4096) as journal:
            for source, stamp, payload in entries:
                journal.log(source, payload, time_ns=stamp)
        return directory


def test_rows_of_the_next_file_are_compared_too(tmp_path: Path) -> None:
    """Equal sizes, different dtypes: one array cannot hold both."""
    for rows in (np.ones((4, 3)), np.ones((4, 6), "f4")):
        with JournalWriter(tmp_path) as journal:
            journal.log_block(1, rows)
    with LogArchive(tmp_path) as log, pytest.raises(ValueError, match=r"entry 4 .*f"):
        log.read(1)


class TestDirectory(LogContract):
    def write(self, directory: Path, entries: list[Entry]) -> Path:
        with EntryDirectory(directory) as files:
            for entry in entries:
                files.write(*entry)
        return directory


class TestArchives(TestDirectory):
    def write(self, directory: Path, entries: list[Entry]) -> Path:
        super().write(directory, entries)
        assemble_log_archives(directory)
        return directory


class TestDeflatedArchives(TestDirectory):
    def write(self, directory: Path, entries: list[Entry]) -> Path:
        super().write(directory, entries)
        compress_npy_logs(directory, remove_sources=True)
        return directory


class TestArchivesAndDirectory(TestDirectory):
    """The state after a killed archiver: entries in both count once."""

    def write(self, directory: Path, entries: list[Entry]) -> Path:
        super().write(directory, entries)
        compress_npy_logs(directory)
        return directory


class TestOneArchive(TestDirectory):
    """An archive by its own path has one source."""

    def entries(self, count: int = 60, start: int = 10) -> list[Entry]:
        found = super().entries(count, start)
        return [Entry(7, stamp, b"%05d" % k) for k, (_, stamp, _) in enumerate(found)]

    def write(self, directory: Path, entries: list[Entry]) -> Path:
        super().write(directory, entries)
        assemble_log_archives(directory)
        return directory / "7_log.npz"

    def test_what_is_alike_is_one_array(self, tmp_path: Path) -> None:
        archive, _ = self.open(self.write(tmp_path, self.entries()))
        assert archive.read().data.shape == (60, 5)
        archive.close()
