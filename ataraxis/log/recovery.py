"""Recovery: indexes of damaged journals, and entries that were left in memory."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ataraxis._kernels import journal_scan
from ataraxis.errors import LayoutError, SegmentNotFound
from ataraxis.log.journal.input import (
    RUN,
    Entries,
    InputFile,
    list_entries,
    valid_runs,
)
from ataraxis.log.journal.page import PAGE, files_of, index_path
from ataraxis.log.modes import make_folder
from ataraxis.log.selection import Problem
from ataraxis.log.status import (
    WRITTEN,
    LogStatus,
    statuses,
)
from ataraxis.log.writer import drain, open_sink, remove_unused
from ataraxis.shm.context import ContextLike
from ataraxis.stream import MemQ


@dataclass(frozen=True)
class FileReport:
    """What a full scan of one file of a journal found."""

    path: Path
    """The file."""
    entries: int
    """Intact entries."""
    problems: tuple[Problem, ...]
    """Damage, cut frames, and a missing end."""
    is_live: bool
    """Whether a writer has it open; then nothing was changed."""
    is_indexed_anew: bool
    """Whether its index was missing or wrong, and was rebuilt."""

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "path": str(self.path),
            "entries": self.entries,
            "problems": [
                {"offset": p.offset, "bytes": p.nbytes, "what": p.what}
                for p in self.problems
            ],
            "is_live": self.is_live,
            "is_indexed_anew": self.is_indexed_anew,
        }


def recover(
    path: str | os.PathLike[str], name: str | None = None, *, is_dry: bool = False
) -> list[FileReport]:
    """Scan every byte of a journal, and rebuild wrong indexes, unless `is_dry`.

    `path` and `name` are those of `JournalReader`. Returns one report per file. Data
    files are never changed, and nothing is deleted. Raises `FileNotFoundError` without
    a journal.

    Examples
    --------
    >>> import tempfile
    >>> from ataraxis.log.journal.writer import JournalWriter
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     with JournalWriter(directory) as journal:
    ...         _ = journal.log(1, "kept")
    ...     index_path(next(Path(directory).glob("*.axj"))).unlink()
    ...     report = recover(directory)[0]
    >>> report.entries, report.is_indexed_anew, report.problems
    (1, True, ())
    """
    found = files_of(Path(path), name)
    if not found:
        raise FileNotFoundError(2, "expected a journal, found none", str(path))
    return [_recover(file, is_dry) for files in found.values() for file in files]


def _recover(path: Path, is_dry: bool) -> FileReport:
    """Scan one file."""
    index = index_path(path)
    before = index.read_bytes() if index.exists() else b""
    try:
        file = InputFile(path, is_index_used=False)
    except LayoutError as error:
        lost = Problem(path, 0, path.stat().st_size, str(error))
        return FileReport(path, 0, (lost,), False, False)
    is_live = file.is_written
    entries, problems = 0, [*file.problems, *file.losses(), *file.ending()]
    for table in tables(file):
        journal_scan.check_entries(file.data, table.view("u1"))
        entries += int(np.count_nonzero(table["state"] == journal_scan.GOOD))
        problems += [
            Problem(
                path,
                int(entry["offset"]),
                64 + int(entry["bytes"]),
                f"entry {entry['sequence']} of source {entry['source']} is damaged: "
                "its checksum is wrong",
            )
            for entry in table[table["state"] == journal_scan.BROKEN]
        ]
    is_wrong = file.seed >= 0 and not _covers(before, file)
    if is_wrong and not is_live and not is_dry:
        _write_index(index, before, file)
    file.close()
    problems.sort(key=lambda problem: problem.offset)
    return FileReport(path, entries, tuple(problems), is_live, is_wrong)


def tables(file: InputFile) -> Iterator[Entries]:
    """List the entries of a file, run by run."""
    for run in file.data_runs:
        yield list_entries(file.data, run, file.seed)


def _covers(index: bytes, file: InputFile) -> bool:
    """Return whether an index is valid and lists every entry."""
    runs = valid_runs(index, file.seed, len(file.data))
    entries = int(runs["count"][runs["kind"] == journal_scan.DATA].sum())
    return bool(entries == len(file) and index[:PAGE] == file.data[:PAGE])


def _write_index(index: Path, before: bytes, file: InputFile) -> None:
    """Replace an index atomically."""
    # If the data's first page is lost, the old index has the only copy.
    page = bytes(file.data[:PAGE])
    if any("from its index" in problem.what for problem in file.problems):
        page = before[:PAGE]
    runs = np.ascontiguousarray(file.runs, RUN)
    new = index.with_name(index.name + ".new")
    with open(new, "wb") as out:
        out.write(page)
        out.write(runs.tobytes())
        out.flush()
        os.fsync(out.fileno())
    os.replace(new, index)


# ---- `recover_log`: entries accepted by loggers that were killed

EXIT_S = 10.0


@dataclass(frozen=True)
class Recovery:
    """What was recovered of one log."""

    name: str
    """Name of the logger."""
    directory: Path
    """Directory of the log."""
    entries: int
    """Entries that were in memory and are now written."""
    problem: str = ""
    """Why it failed; unwritten entries stay in memory."""


def recover_log(
    directory: str | Path | None = None, *, context: ContextLike = None
) -> list[Recovery]:
    """Write what loggers had accepted when every process was killed.

    Parameters
    ----------
    directory : str or Path, optional
        Only logs in this directory, or below it.
    context : Context, str, Path or None
        The context of their queues.

    Returns
    -------
    list of Recovery
        One per log that was left behind. Loggers that are alive are skipped.

    Notes
    -----
    Nothing is written twice, and nothing is removed before it is written. It may be
    killed and run again.

    Examples
    --------
    >>> recover_log("/tmp/no_such_log")
    []
    """
    found = []
    for path in statuses(context):
        try:
            status = LogStatus(path)
        except (LayoutError, FileNotFoundError):
            continue
        try:
            if _is_in(status, directory) and _is_left(status) and status.lock():
                found.append(_recovered(status))
        finally:
            status.close()
    return [one for one in found if one is not None]


def _is_in(status: LogStatus, directory: str | Path | None) -> bool:
    """Return whether the log is in a directory."""
    if directory is None:
        return True
    return (
        Path(status.about["directory"])
        .resolve()
        .is_relative_to(Path(directory).resolve())
    )


def _is_left(status: LogStatus) -> bool:
    """Return whether the process that made the logger is gone."""
    return not status.creator.start or not status.creator.is_alive()


def _await_detached(status: LogStatus) -> None:
    """Wait briefly until killed processes are gone: the last one unlinks the queue."""
    deadline = time.monotonic() + EXIT_S
    while time.monotonic() < deadline:
        try:
            about = status.about
            MemQ.attach(about["queue"], context=about["context"]).close()
        except SegmentNotFound:
            return
        time.sleep(0.01)


def _recovered(status: LogStatus) -> Recovery | None:
    """Write what is in the queue of a log; return None without a queue."""
    about = status.about
    directory = Path(about["directory"])
    before = status.words[WRITTEN]
    try:
        queue = MemQ.attach(about["queue"], context=about["context"])
    except SegmentNotFound:
        status.unlink()
        return None
    problem = ""
    with queue:
        try:
            make_folder(directory)
            sink = open_sink(status, queue)
            try:
                drain(status, queue, sink, None)
            finally:
                sink.close()
        except (OSError, RuntimeError) as error:
            problem = str(error)
    if not problem:
        _await_detached(status)
        remove_unused(status)
    return Recovery(about["name"], directory, status.words[WRITTEN] - before, problem)
