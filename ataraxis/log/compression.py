"""`compress_npy_logs`, `assemble_log_archives`: from one file an entry to one a source.

What may happen at once, or half-way, is in `archiving`; here are the two names the
originals have, and the report.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ataraxis.log.archiving import ArchiveReport, archive_directory


def compress_npy_logs(
    log_directory: str | Path,
    remove_sources: bool = False,
    memory_mapping: bool = False,
    verbose: bool = False,
    compress: bool = True,
    verify_integrity: bool = False,
    max_workers: int | None = None,
) -> ArchiveReport:
    """Put the entries of a directory, and of those in it, into npz archives.

    Each directory gets its own ``{source}_log.npz``, beside its entries, so that
    entries of two loggers never meet. An archive that is there is added to, never
    overwritten; what is there already is not added twice.

    Parameters
    ----------
    log_directory : str or Path
        Where the entries are, or directories with entries.
    remove_sources : bool
        Remove each entry once the archive that has it is on the disk.
    memory_mapping : bool
        Accepted; memory is bounded in any case (about 100 bytes an entry).
    verbose : bool
        Show a progress bar.
    compress : bool
        Deflate, or store.
    verify_integrity : bool
        Read each archive back and compare every byte, before it gets its name.
    max_workers : int, optional
        Threads, one a source; at least one is used. Default: the CPUs, at most 4.

    Returns
    -------
    ArchiveReport
        What was archived, and what was left where it was because it is no entry, or a
        damaged one. A `RuntimeWarning` names these too.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        No such directory.
    ValueError
        Verification failed: nothing was removed, the archive was not renamed.

    Examples
    --------
    >>> import tempfile
    >>> from ataraxis.log.directory import EntryDirectory
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
        found,
        compress=compress,
        remove=remove_sources,
        verify=verify_integrity,
        workers=max_workers,
        verbose=verbose,
    )


def assemble_log_archives(
    log_directory: str | Path,
    max_workers: int | None = None,
    *,
    remove_sources: bool = True,
    memory_mapping: bool = True,
    verbose: bool = False,
    verify_integrity: bool = False,
) -> ArchiveReport:
    """Put the entries of one directory into npz archives, stored, not deflated.

    As `compress_npy_logs`, but directories inside are left alone, the sources are
    removed, and the archives are quick to read at random.

    Parameters
    ----------
    log_directory : str or Path
        Where the entries are.
    max_workers, remove_sources, memory_mapping, verbose, verify_integrity
        As for `compress_npy_logs`.

    Returns
    -------
    ArchiveReport
        What was archived, and what was left.
    """
    return _archive(
        [_directory(log_directory)],
        compress=False,
        remove=remove_sources,
        verify=verify_integrity,
        workers=max_workers,
        verbose=verbose,
    )


def _directory(path: str | Path) -> Path:
    """Return a directory that is there, or say that it is not."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"log directory {str(path)!r} does not exist")
    if not path.is_dir():
        raise NotADirectoryError(f"{str(path)!r} is no directory of log entries")
    return path


def _archive(directories: list[Path], *, verbose: bool, **how: Any) -> ArchiveReport:
    """Archive in each directory; one report, one warning."""
    report = ArchiveReport()
    with _progress(verbose) as progress:
        for directory in directories:
            report += archive_directory(directory, progress=progress, **how)
    if report.foreign or report.damaged:
        warnings.warn(report.complaint(), RuntimeWarning, stacklevel=3)
    return report


@contextmanager
def _progress(is_shown: bool) -> Iterator[Any]:
    """Lend a function that is told of steps: ``told(directory, of, done)``."""
    if not is_shown:
        yield None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, Any] = {}

        def told(directory: Path, total: int, done: int) -> None:
            name = str(directory)
            if name not in tasks:
                tasks[name] = bar.add_task(directory.name, total=total)
            bar.advance(tasks[name], done)

        yield told
