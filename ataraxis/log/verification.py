"""Verification: how many entries of each recorded source are expected and present."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ataraxis._kernels import journal_scan
from ataraxis.errors import CorruptFrame, LayoutError
from ataraxis.log.account import SourceAccount, SourceReport
from ataraxis.log.journal.input import SEVERAL, InputFile, leave_out_repeated
from ataraxis.log.journal.page import files_of
from ataraxis.log.npy.reader import PackageReader
from ataraxis.log.recovery import tables
from ataraxis.log.selection import Problem, distinct


@dataclass(frozen=True)
class LogReport:
    """Result of `verify`."""

    sources: tuple[SourceReport, ...]
    """One per source and session."""
    problems: tuple[Problem, ...]
    """Damage of the files, and missing files."""
    unknown: int = 0
    """Missing entries whose source is unknown."""
    is_deep: bool = True
    """Whether the checksum of every entry was checked."""

    @property
    def missing(self) -> int:
        """Missing entries of all sources."""
        return self.unknown + sum(source.missing for source in self.sources)

    @property
    def is_complete(self) -> bool:
        """Whether no entry is missing and no problem was found."""
        return not self.problems and not self.missing


class _Ending(NamedTuple):
    """End of a file: its streams by source, None if it has other sources; problems."""

    streams: dict[int, str] | None
    problems: list[Problem]


def verify(
    path: str | os.PathLike[str],
    name: str | None = None,
    *,
    seconds: float | None = None,
) -> LogReport:
    """Check every entry of a log, and count missing ones.

    Parameters
    ----------
    path : str or Path
        A directory, a file of a journal, or an npz archive; `FileNotFoundError` if it
        has no log.
    name : str, optional
        Only this journal of the directory.
    seconds : float, optional
        Check payloads for this long, s. Later entries are checked by their headers
        only, and `LogReport.is_deep` is False.

    Returns
    -------
    LogReport
        docs/reference/verdict.md defines its fields. A gap in the sequence numbers of a
        source is a loss if each frame takes the next number: in a stream of one
        producer, and in what `JournalWriter` numbers; not in the log of a `DataLogger`,
        nor in a stream of several producers. An unclosed file is not a problem if a
        later recorder resumed the same streams, since that one wrote or counted what
        was missing. In npy files and npz archives every entry counts as expected;
        `problems` has other known losses.

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
        raise FileNotFoundError(2, "expected a log, found none", str(path))
    seen: dict[tuple[str, str, int], SourceAccount] = {}
    problems: list[Problem] = []
    deadline = math.inf if seconds is None else time.monotonic() + seconds
    unknown, is_deep = 0, True
    dropped: dict[str, int] = {}
    for journal, paths in found.items():
        endings: list[_Ending] = []
        sessions, files = _Sessions(), []
        for each in paths:
            try:
                files.append(InputFile(each))
            except LayoutError as error:
                problems.append(Problem(each, 0, each.stat().st_size, str(error)))
        leave_out_repeated(files)
        for file in files:
            gone, is_whole = _count(journal, file, seen, deadline)
            unknown += gone
            is_deep &= is_whole
            close = file.records.close or {}
            if "dropped" in close:  # by all processes, since the logger was made
                dropped[journal] = max(int(close["dropped"]), dropped.get(journal, 0))
            problems += [*file.problems, *file.losses(), *sessions.add(file)]
            endings.append(_Ending(_streams(file), file.ending()))
            file.close()
        problems += [*sessions.end(), *_unfinished(endings)]
    reports = (seen[key].report(key[0], key[2]) for key in sorted(seen))
    unknown += sum(dropped.values())
    return LogReport(tuple(reports), tuple(problems), unknown, is_deep)


class _Sessions:
    """Checks that no file of a writer was removed."""

    def __init__(self) -> None:
        self._open: dict[str, Path] = {}

    def add(self, file: InputFile) -> list[Problem]:
        """Add the next file of a journal."""
        header = file.header
        if header is None:
            return []
        found = []
        before = self._open.pop(header.session, None)
        if before is None and header.uuid.hex() != header.session:
            what = "the file before it, of the same writer, is missing"
            found.append(Problem(file.path, 0, 0, what))
        close = file.records.close
        if close is not None and close.get("is_last") is False:
            self._open[header.session] = file.path
        return found

    def end(self) -> list[Problem]:
        """Return the files that lack their successor."""
        what = "the file after it, of the same writer, is missing"
        return [Problem(path, 0, 0, what) for path in self._open.values()]


def _streams(file: InputFile) -> dict[int, str] | None:
    """Return the streams recorded in a file; None if it has other sources."""
    sources = file.records.sources
    if not all("stream" in fields for fields in sources.values()):
        return None
    return {source: str(fields["stream"]) for source, fields in sources.items()}


def _unfinished(endings: list[_Ending]) -> list[Problem]:
    """Return the problems at ends of files that no later file resumes, in order."""
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
    journal: str,
    file: InputFile,
    seen: dict[tuple[str, str, int], SourceAccount],
    deadline: float,
) -> tuple[int, bool]:
    """Count the entries of one file; return how many are lost of unknown sources.

    Also returns whether every checksum was checked before `deadline`.
    """
    records, header = file.records, file.header
    session = header.session if header is not None else str(file.path)
    if header is not None and "logger" in header.about:
        session = str(header.about["logger"])  # shared by the writers of one queue
    known: dict[int, SourceAccount] = {}

    def of(source: int) -> SourceAccount:
        if source not in known:
            fields = records.sources.get(source, {})
            key = (journal, str(fields.get("stream", session)), source)
            known[source] = account = seen.setdefault(key, SourceAccount())
            account.describe(header, fields)
            account.add_stall(records.close or {})
            labels = records.labels.get(fields.get("labels", 0))
            if labels is not None:
                is_block = labels.dims[:1] == ("time",) and bool(labels.shape)
                each = labels.shape[0] if is_block else 1
                account.stamps.describe(labels.attrs, each)
        return known[source]

    streams = [n for n, fields in records.sources.items() if "stream" in fields]
    for number in streams:
        of(number)
    is_deep, counted, unknown = True, 0, 0
    for run, table in zip(file.data_runs, tables(file), strict=True):
        if time.monotonic() < deadline:
            journal_scan.check_entries(file.data, table.view("u1"))
        else:
            is_deep = False
        state = table["state"]
        good, broken, lost = (
            state == kind
            for kind in (journal_scan.GOOD, journal_scan.BROKEN, journal_scan.LOST)
        )
        counted += len(table)
        gone = int(np.count_nonzero(lost))
        if gone and run["source"] != SEVERAL:
            of(int(run["source"])).broken += gone
        else:
            unknown += gone
        is_plain = run["source"] != SEVERAL and good.all()
        sources = table["source"]
        for source in sources[:1] if is_plain else distinct(sources[good | broken]):
            own = sources == source
            account = of(int(source))
            part = table if is_plain else table[own & good]
            account.sequences.append(part["sequence"].copy())
            account.broken += int(np.count_nonzero(own & broken))
            account.stamps.add(
                file.device_stamps(part), account.sequences[-1], part["time_ns"].copy()
            )
    for gap in records.gaps:
        of(gap.source).gaps.append(gap)
    close = records.close
    if close is not None and not file.is_written:
        gone = int(close.get("entries", counted)) - counted
        if gone > 0 and len(streams) == 1 and not known[streams[0]].is_numbered:
            known[streams[0]].broken += gone
        elif gone > 0 and not streams:
            unknown += gone
    return unknown, is_deep
