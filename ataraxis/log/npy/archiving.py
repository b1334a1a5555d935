"""Archiving of npy entries: one npz archive per source.

An archive is written to a temporary file beside the old one, synced and renamed over
it; only then are sources removed. If a run is killed in between, the next one finds the
same entries in both, and recognizes them by their bytes and the time of their files.
"""

from __future__ import annotations

import os
import secrets
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from ataraxis.errors import CorruptFrame
from ataraxis.frame import crc32
from ataraxis.log.npy.directory import directory_lock, keys_in
from ataraxis.log.npy.entries import SUFFIX, EntryKey, payload_start
from ataraxis.log.npy.npz_index import NOT_AN_ENTRY, NpzIndex, open_bytes
from ataraxis.log.npy.npz_writer import NpzWriter
from ataraxis.shm.thread import Latch

ARCHIVE_SUFFIX = "_log.npz"
_TEMPORARY = ".archive-"
_MOST_WORKERS = 4
_LAST = 2**64 - 1
_MAPPED_BYTES = 1 << 20

Progress = Callable[[Path, int, int], None]


@dataclass(frozen=True)
class ArchiveReport:
    """What was archived, and what was left in place."""

    archives: tuple[Path, ...] = ()
    """Archives that were written."""
    entries: int = 0
    """Entries added to an archive."""
    foreign: tuple[Path, ...] = ()
    """Files named ``.npy`` that are not entries."""
    damaged: dict[Path, str] = field(default_factory=dict)
    """Damaged entries and archives, with the damage."""

    def __add__(self, other: ArchiveReport) -> ArchiveReport:
        return ArchiveReport(
            self.archives + other.archives,
            self.entries + other.entries,
            self.foreign + other.foreign,
            self.damaged | other.damaged,
        )

    def warning_text(self) -> str:
        """Return what was left in place, in a few lines."""
        lines = [f"{path}: {why}" for path, why in self.damaged.items()]
        lines += [f"{path}: {NOT_AN_ENTRY}" for path in self.foreign]
        more = len(lines) - 10
        shown = lines[:10] + ([f"and {more} more"] if more > 0 else [])
        return "left as they are, not archived: " + "; ".join(shown)

    complaint = warning_text


def archive_directory(
    path: Path,
    *,
    compress: bool,
    remove: bool,
    verify: bool,
    workers: int | None,
    progress: Progress | None = None,
) -> ArchiveReport:
    """Archive the entries of one directory, one archive per source."""
    keys, foreign = keys_in(path)
    if not keys:
        return ArchiveReport(foreign=tuple(path / name for name in sorted(foreign)))
    with directory_lock(path):
        # Another process may have archived in the meantime.
        keys, foreign = keys_in(path)
        _sweep(path)
        keys.sort(key=lambda found: (found[0].source, found[0]))
        jobs = [
            _Job(path, source, list(group), compress, remove, verify)
            for source, group in groupby(keys, key=lambda found: found[0].source)
        ]
        report = ArchiveReport(foreign=tuple(path / n for n in sorted(foreign)))
        for done in _run(jobs, workers, progress, len(keys)):
            report += done
    return report


def _sweep(path: Path) -> None:
    """Remove files of killed runs; the lock keeps others from writing."""
    for name in os.listdir(path):
        if name.startswith(_TEMPORARY) and name.endswith(".tmp"):
            os.unlink(path / name)


def _run(
    jobs: list[_Job], workers: int | None, progress: Progress | None, total: int
) -> Iterator[ArchiveReport]:
    """Run jobs in threads; an error stops them all."""
    if workers is None:
        workers = min(_MOST_WORKERS, os.cpu_count() or 1)
    stop = Latch()

    def report(done: int, job: _Job) -> None:
        if stop.is_set():
            raise InterruptedError("another archive failed")
        if progress is not None:
            progress(job.path, total, done)

    workers = max(1, min(workers, len(jobs)))
    if workers == 1:
        yield from (job.run(report) for job in jobs)
        return
    with ThreadPoolExecutor(workers) as pool:
        running = [pool.submit(job.run, report) for job in jobs]
        try:
            for done in running:
                yield done.result()
        finally:
            stop.set()


class _Job:
    """Archives one source of one directory."""

    def __init__(
        self,
        path: Path,
        source: int,
        found: list[tuple[EntryKey, str]],
        compress: bool,
        remove: bool,
        verify: bool,
    ) -> None:
        self.path, self.found = path, found
        self.final = path / f"{source}{ARCHIVE_SUFFIX}"
        self.compress, self.remove, self.verify = compress, remove, verify
        self.damaged: dict[Path, str] = {}
        self.archived: list[tuple[str, str]] = []
        self.added = 0

    def run(self, report: Callable[[int, _Job], None]) -> ArchiveReport:
        """Write the archive, rename it, remove the sources."""
        old = _ExistingArchive(self.final)
        self.damaged |= old.damaged
        temporary = self.path / f"{_TEMPORARY}{secrets.token_hex(8)}.tmp"
        try:
            with NpzWriter(temporary, compress=self.compress) as new:
                for rows, members in _merged(old, self.found):
                    self._add_stamp(new, old, rows, members)
                    report(len(members), self)
                for row in old.others:
                    new.add_packed(old.index.member(row), [old.index.packed(row)])
                new.finish()
            if self.added:
                if self.verify:
                    self._compare(temporary)
                old.keep_damaged()
                os.rename(temporary, self.final)
                _sync(self.path)
        finally:
            temporary.unlink(missing_ok=True)
        if self.remove:
            for _, name in self.archived:
                os.unlink(self.path / name)
        written = (self.final,) if self.added else ()
        return ArchiveReport(written, self.added, (), self.damaged)

    def _add_stamp(
        self,
        new: NpzWriter,
        old: _ExistingArchive,
        rows: list[Any],
        found: list[tuple[EntryKey, str]],
    ) -> None:
        """Add the entries of one stamp, of the archive and the directory."""
        taken = {int(row["copy"]) for row in rows}
        known: dict[tuple[int, int], list[int]] = {}
        for row in rows:
            same = int(row["nbytes"]), int(row["crc"])
            known.setdefault(same, []).append(int(row["written_ns"]))
            new.add_packed(old.index.member(row), [old.index.packed(row)])
        free = 0
        for key, name in found:
            read = self._read(name)
            if read is None:
                continue
            data, written_ns = read
            is_first = key.copy not in taken
            if not is_first or rows:
                member = len(data), crc32(data)
                times = known.get(member, [])
                # 0: an archive of ataraxis-data-structures has no times.
                same_time = next((t for t in times if t in (written_ns, 0)), None)
                if same_time is not None:
                    times.remove(same_time)
                    self.archived.append(("", name))
                    continue
            copy = key.copy
            while copy in taken:
                copy = free = free + 1
            taken.add(copy)
            stem = EntryKey(key.stamp, key.source, copy).stem
            if is_first:
                stem = name[: -len(SUFFIX)]
            new.add(stem, data, written_ns)
            self.archived.append((stem, name))
            self.added += 1

    def _read(self, name: str) -> tuple[memoryview | bytes, int] | None:
        """Return an entry and the time of its file; None, with a report, if damaged."""
        path = self.path / name
        try:
            with open(path, "rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                large = status.st_size > _MAPPED_BYTES
                data = open_bytes(path).data if large else file.read()
            payload_start(data)
        except FileNotFoundError:
            self.damaged[path] = "it was removed while it was archived"
        except (CorruptFrame, OSError) as error:
            self.damaged[path] = str(error)
        else:
            return data, status.st_mtime_ns
        return None

    def _compare(self, temporary: Path) -> None:
        """Read the archive back and compare it with the sources."""
        written = NpzIndex(temporary)
        rows = {written.name(row)[: -len(SUFFIX)]: row for row in written.table}
        for stem, name in self.archived:
            if not stem:
                continue
            source = self._read(name)
            try:
                is_same = source is not None and written.read(rows[stem]) == source[0]
            except (CorruptFrame, KeyError):
                is_same = False
            if not is_same:
                raise ValueError(
                    f"{name} differs from its copy in the archive: check the disk; "
                    f"nothing was removed, and {self.final} is unchanged"
                )


class _ExistingArchive:
    """The archive to add to, if it exists."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stamps = np.empty(0, np.uint64)
        self.order = np.empty(0, np.int64)
        self.others: list[Any] = []
        self.damaged: dict[Path, str] = {}
        if not path.exists():
            return
        self.index = NpzIndex(path)
        if self.index.problem is not None:
            self.damaged[path] = self.index.problem
        for problem in self.index.damaged:
            self.damaged.setdefault(path, str(problem))
        table = self.index.table
        is_whole = np.ones(len(table), np.bool_)
        for i in range(len(table)):
            try:
                self._check_member(table[i])
            except CorruptFrame as error:
                self.damaged[path] = str(error)
                is_whole[i] = False
        self.others = list(table[is_whole & ~table["is_entry"]])
        kept = np.flatnonzero(is_whole & table["is_entry"])
        self.order = kept[np.lexsort((table["copy"][kept], table["stamp"][kept]))]
        self.stamps = table["stamp"][self.order]

    def _check_member(self, row: Any) -> None:
        """Check that a member to copy agrees with the directory."""
        if self.index.agrees(row):
            self.index.packed(row)
            return
        problem = self.index.correct(row)
        self.damaged[self.path] = str(problem or "a member and the directory disagree")
        self.index.read(row)

    def until(self, at: int, stamp: int) -> int:
        """Return the position, from `at` on, of the first stamp of at least `stamp`."""
        return at + int(np.searchsorted(self.stamps[at:], np.uint64(stamp)))

    def rows(self, start: int, stop: int) -> list[Any]:
        """Return members by position in ascending order."""
        return [self.index.table[i] for i in self.order[start:stop]]

    def keep_damaged(self) -> None:
        """Keep a damaged archive under another name before it is replaced."""
        if not self.damaged:
            return
        for number in range(10_000):
            kept = self.path.with_name(f"{self.path.name}.damaged-{number}")
            try:
                os.link(self.path, kept)
            except FileExistsError:
                continue
            return


def _merged(
    old: _ExistingArchive, found: Iterable[tuple[EntryKey, str]]
) -> Iterator[tuple[list[Any], list[tuple[EntryKey, str]]]]:
    """Iterate over stamps: the members of the archive, and the entries of each."""
    at = 0
    for stamp, group in groupby(found, key=lambda one: one[0].stamp):
        begin = old.until(at, stamp)
        for i in range(at, begin):
            yield old.rows(i, i + 1), []
        at = old.until(begin, stamp + 1) if stamp < _LAST else len(old.order)
        yield old.rows(begin, at), list(group)
    for i in range(at, len(old.order)):
        yield old.rows(i, i + 1), []


def _sync(path: Path) -> None:
    """Sync the names of a directory."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ---- the functions of ataraxis-data-structures


def compress_npy_logs(
    log_directory: str | Path,
    remove_sources: bool = False,
    memory_mapping: bool = False,
    verbose: bool = False,
    compress: bool = True,
    verify_integrity: bool = False,
    max_workers: int | None = None,
) -> ArchiveReport:
    """Put the entries of a directory and its subdirectories into npz archives.

    Each directory gets its own ``{source}_log.npz``, beside its entries, so entries of
    two loggers never mix. An existing archive is extended, never overwritten; entries
    it has already are not added again.

    Parameters
    ----------
    log_directory : str or Path
        Directory of entries, or of directories with entries.
    remove_sources : bool
        Remove entries after their archive is synced.
    memory_mapping : bool
        Accepted; memory is bounded in any case (about 100 bytes per entry).
    verbose : bool
        Show a progress bar.
    compress : bool
        Deflate the archives.
    verify_integrity : bool
        Compare every byte of an archive before it is renamed.
    max_workers : int, optional
        Threads, one per source. Default: the CPUs, at most 4.

    Returns
    -------
    ArchiveReport
        What was archived, and what was left in place because it is not an entry, or is
        damaged. A `RuntimeWarning` lists these too.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        The directory does not exist.
    ValueError
        Verification failed; nothing was removed or renamed.

    Examples
    --------
    >>> import tempfile
    >>> from ataraxis.log.npy.directory import EntryDirectory
    >>> with tempfile.TemporaryDirectory() as path:
    ...     with EntryDirectory(path) as entries:
    ...         _ = entries.write(7, 5, b"payload")
    ...     report = compress_npy_logs(path, remove_sources=True)
    ...     sorted(os.listdir(path)), report.entries
    (['7_log.npz'], 1)
    """
    root = _directory(log_directory)
    found = [Path(here) for here, _, _ in os.walk(root)]
    return _archive(
        found, compress=compress, remove=remove_sources, verify=verify_integrity,
        workers=max_workers, verbose=verbose,
    )  # fmt: skip


def assemble_log_archives(
    log_directory: str | Path,
    max_workers: int | None = None,
    *,
    remove_sources: bool = True,
    memory_mapping: bool = True,
    verbose: bool = False,
    verify_integrity: bool = False,
) -> ArchiveReport:
    """Put the entries of one directory into npz archives without compression.

    Like `compress_npy_logs`, but subdirectories are skipped, sources are removed, and
    the archives are fast to read at random.

    Parameters
    ----------
    log_directory : str or Path
        Directory of the entries.
    max_workers, remove_sources, memory_mapping, verbose, verify_integrity
        As for `compress_npy_logs`.

    Returns
    -------
    ArchiveReport
        What was archived, and what was left in place.
    """
    return _archive(
        [_directory(log_directory)], compress=False, remove=remove_sources,
        verify=verify_integrity, workers=max_workers, verbose=verbose,
    )  # fmt: skip


def _directory(path: str | Path) -> Path:
    """Return an existing directory, or raise."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"log directory {str(path)!r} does not exist")
    if not path.is_dir():
        raise NotADirectoryError(f"{str(path)!r} is not a directory of log entries")
    return path


def _archive(directories: list[Path], *, verbose: bool, **how: Any) -> ArchiveReport:
    """Archive each directory; return one report, with one warning."""
    report = ArchiveReport()
    with _progress(verbose) as progress:
        for directory in directories:
            report += archive_directory(directory, progress=progress, **how)
    if report.foreign or report.damaged:
        warnings.warn(report.warning_text(), RuntimeWarning, stacklevel=3)
    return report


@contextmanager
def _progress(is_shown: bool) -> Iterator[Any]:
    """Show a progress bar; yield a function ``report(directory, total, done)``."""
    if not is_shown:
        yield None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, Any] = {}

        def report(directory: Path, total: int, done: int) -> None:
            name = str(directory)
            if name not in tasks:
                tasks[name] = bar.add_task(directory.name, total=total)
            bar.advance(tasks[name], done)

        yield report
