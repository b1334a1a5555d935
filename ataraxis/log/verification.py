"""Verification: of each recorded source, how many entries there should be and are."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ataraxis._kernels import journal_scan
from ataraxis.errors import CorruptFrame, LayoutError
from ataraxis.log.journal.input import InputFile
from ataraxis.log.journal.page import Gap, files_of
from ataraxis.log.npy.reader import PackageReader
from ataraxis.log.recovery import tables
from ataraxis.log.selection import Problem


@dataclass(frozen=True)
class SourceReport:
    """One source of one session."""

    journal: str
    """The journal it is in."""
    source: int
    """Its number."""
    name: str
    """What it was called; a stream's name."""
    expected: int
    """Entries its producer made, from the first one recorded on, as far as is known."""
    received: int
    """Entries that are in the files, and whole."""
    missing: int
    """expected - received: lost before they were written, or damaged since."""
    damaged: int
    """Entries whose bytes are not those that were written; of the missing ones."""
    repeated: int
    """Entries that are there once more."""

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class LogReport:
    """All of a log."""

    sources: tuple[SourceReport, ...]
    """One for each source and session."""
    problems: tuple[Problem, ...]
    """What is wrong with the files."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing, and nothing wrong."""
        return not self.problems and not any(s.missing for s in self.sources)


@dataclass
class _Seen:
    """What was found of one source of one session."""

    name: str = ""
    sequences: list[NDArray[np.uint64]] = field(default_factory=list)
    broken: int = 0
    gaps: list[Gap] = field(default_factory=list)


class _Ending(NamedTuple):
    """How a file ends: the streams in it by source, None if others are; problems."""

    streams: dict[int, str] | None
    problems: list[Problem]


def verify(path: str | os.PathLike[str], name: str | None = None) -> LogReport:
    """Look at every entry of a log, and count what should be there.

    Parameters
    ----------
    path : str or Path
        A directory, a file of a journal, or an npz archive.
    name : str, optional
        Only this journal of the directory.

    Returns
    -------
    LogReport
        Sequences that are missing between the first and the last entry of a source
        count, as do the gaps that a recorder wrote down. That a recorder did not close
        its file is no problem where a later one went on with the same streams: it had
        whatever the first one had not, or wrote down what it had not. Of a frame
        that is damaged so that its header does not say whose it was, the sequence is
        missing. Npy files and npz archives do not say how many there should be: those
        that are there count as expected, and `problems` has what else is known to be
        lost.

    Raises
    ------
    FileNotFoundError
        There is no log.

    Examples
    --------
    >>> import tempfile
    >>> from ataraxis.log.journal.writer import JournalWriter
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     with JournalWriter(directory) as journal:
    ...         for sequence in (4, 5, 8):
    ...             _ = journal.log(1, "x", sequence=sequence)
    ...     report = verify(directory)
    >>> report.sources[0].expected, report.sources[0].missing, report.is_complete
    (5, 2, False)
    """
    path = Path(path)
    found = {} if path.suffix == ".npz" else files_of(path, name)
    if not found and name is None and PackageReader.accepts(path):
        return _of_packages(path)
    if not found:
        raise FileNotFoundError(2, "there is no log", str(path))
    seen: dict[tuple[str, str, int], _Seen] = {}
    problems: list[Problem] = []
    for journal, paths in found.items():
        endings: list[_Ending] = []
        for each in paths:
            try:
                file = InputFile(each)
            except LayoutError as error:
                problems.append(Problem(each, 0, each.stat().st_size, str(error)))
                continue
            _count(journal, file, seen)
            problems += [*file.problems, *file.losses()]
            endings.append(_Ending(_streams(file), file.ending()))
            file.close()
        problems += _unfinished(endings)
    reports = (_report(key, seen[key]) for key in sorted(seen))
    return LogReport(tuple(reports), tuple(problems))


def _streams(file: InputFile) -> dict[int, str] | None:
    """Identify the streams that were recorded into a file; None: not only streams."""
    sources = file.notes.sources
    if not all("stream" in said for said in sources.values()):
        return None
    return {source: str(said["stream"]) for source, said in sources.items()}


def _unfinished(endings: list[_Ending]) -> list[Problem]:
    """Find the endings that no later file of the journal makes good, in order."""
    found: list[Problem] = []
    later: dict[int, str] = {}
    for streams, problems in reversed(endings):
        is_continued = (
            streams is not None and later and streams.items() <= later.items()
        )
        if not is_continued:
            found = problems + found
        later = {**later, **(streams or {})}
    return found


def _of_packages(path: Path) -> LogReport:
    """Count the entries of npy directories and npz archives."""
    good: Counter[int] = Counter()
    broken: Counter[int] = Counter()
    with PackageReader(path) as reader:
        for number, source in enumerate(reader.select().source.tolist()):
            try:
                good[reader.frame(number).source] += 1
            except CorruptFrame:
                broken[source] += 1
        problems = tuple(reader.problems)
    return LogReport(
        tuple(
            SourceReport(
                path.name, source, "", good[source] + broken[source], good[source],
                broken[source], broken[source], 0,
            )
            for source in sorted(good | broken)
        ),
        problems,
    )  # fmt: skip


def _count(
    journal: str, file: InputFile, seen: dict[tuple[str, str, int], _Seen]
) -> None:
    """Note the sequences of one file."""
    notes = file.notes
    session = file.header.session if file.header is not None else str(file.path)

    def of(source: int) -> _Seen:
        said = notes.sources.get(source, {})
        key = (journal, str(said.get("stream", session)), source)
        known = seen.setdefault(key, _Seen())
        known.name = str(said.get("name", known.name))
        return known

    for table in tables(file):
        journal_scan.check_entries(file.data, table.view("u1"))
        good, broken = (
            table["state"] == journal_scan.GOOD,
            table["state"] == journal_scan.BROKEN,
        )
        for source in np.unique(table["source"][good | broken]):
            own = table["source"] == source
            known = of(int(source))
            known.sequences.append(table["sequence"][own & good].copy())
            known.broken += int(np.count_nonzero(own & broken))
    for gap in notes.gaps:
        of(gap.source).gaps.append(gap)


def _report(key: tuple[str, str, int], known: _Seen) -> SourceReport:
    """Sum up one source."""
    everything = (
        np.concatenate(known.sequences) if known.sequences else np.empty(0, np.uint64)
    )
    unique = np.unique(everything)
    expected = int(unique[-1]) - int(unique[0]) + 1 if len(unique) else 0
    for gap in known.gaps:
        # Frames that were given up have no sequence of their own: the next one took it.
        at = int(np.searchsorted(unique, np.uint64(gap.first)))
        is_there = at < len(unique) and int(unique[at]) == gap.first
        if is_there or at in (0, len(unique)):
            expected += gap.count
    received = len(unique)
    expected = max(expected, received + known.broken)
    return SourceReport(
        key[0],
        key[2],
        known.name,
        expected,
        received,
        expected - received,
        known.broken,
        len(everything) - received,
    )
