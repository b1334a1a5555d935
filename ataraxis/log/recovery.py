"""Recovery: every intact entry of a torn or damaged journal, and what is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ataraxis._kernels import journal_scan
from ataraxis.errors import LayoutError
from ataraxis.log.journal_index import RUN, Entries, believed, listed
from ataraxis.log.journal_input import InputFile
from ataraxis.log.journal_page import PAGE, files_of, index_path
from ataraxis.log.problem import Problem


@dataclass(frozen=True)
class FileReport:
    """What is in one file of a journal, after all of it was looked at."""

    path: Path
    """The file."""
    entries: int
    """Entries that are whole."""
    problems: tuple[Problem, ...]
    """What is damaged, cut off or was never closed."""
    is_live: bool
    """Whether somebody writes it: then nothing was changed."""
    is_indexed_anew: bool
    """Whether its index was missing or wrong, and was written again."""

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
    """Look at every byte of a journal, and write indexes that are wrong again.

    Parameters
    ----------
    path : str or Path
        A directory, or a file of a journal.
    name : str, optional
        Only this journal of the directory.
    is_dry : bool
        Only look.

    Returns
    -------
    list of FileReport
        One for each file. Data files are never changed, and nothing is deleted.

    Raises
    ------
    FileNotFoundError
        There is no journal.

    Examples
    --------
    >>> import tempfile
    >>> from ataraxis.log.journal_writer import JournalWriter
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     with JournalWriter(directory) as journal:
    ...         _ = journal.log(1, "kept")
    ...     index_path(next(Path(directory).glob("*.axj"))).unlink()
    ...     report = recover(directory)[0]
    >>> report.entries, report.is_indexed_anew, report.problems
    (1, True, ())
    """
    place = Path(path)
    found = files_of(place, name)
    if not found:
        raise FileNotFoundError(2, "there is no journal", str(path))
    return [_recover(file, is_dry) for files in found.values() for file in files]


def _recover(path: Path, is_dry: bool) -> FileReport:
    """Look at one file."""
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
                f"entry {entry['sequence']} of source {entry['source']}: its bytes "
                "are not those that were written",
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
    """List the entries of a file, a run at a time."""
    for run in file.data_runs:
        yield listed(file.data, run, file.seed)


def _covers(index: bytes, file: InputFile) -> bool:
    """Tell whether an index can be believed, and says as much as the data."""
    runs = believed(index, file.seed, len(file.data))
    entries = int(runs["count"][runs["kind"] == journal_scan.DATA].sum())
    return bool(entries == len(file) and index[:PAGE] == file.data[:PAGE])


def _write_index(index: Path, before: bytes, file: InputFile) -> None:
    """Write the index of what was found, in one step."""
    # Where the data's first page is lost, that of the old index is all there is.
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
