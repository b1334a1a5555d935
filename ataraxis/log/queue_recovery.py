"""`recover_log`: what was accepted and nobody was left to write."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from ataraxis.errors import LayoutError, SegmentNotFound
from ataraxis.log.sinks import open_sink
from ataraxis.log.status import (
    CREATED,
    CREATOR,
    WRITTEN,
    LogStatus,
    process_start,
    statuses,
)
from ataraxis.log.writer import drain, remove_unused
from ataraxis.shm.context import ContextLike
from ataraxis.stream import MemQ

PATIENCE_S = 10.0


@dataclass(frozen=True)
class Recovery:
    """A log that was left behind, and what was saved of it."""

    name: str
    """Of the logger."""
    directory: Path
    """Where its entries are."""
    entries: int
    """How many were waiting in memory and are written now."""
    problem: str = ""
    """Why it could not be finished; what is left stays where it is."""


def recover_log(
    directory: str | Path | None = None, *, context: ContextLike = None
) -> list[Recovery]:
    """Write what loggers had accepted when everything was killed.

    Parameters
    ----------
    directory : str or Path, optional
        Only logs that go to this directory, or to one in it.
    context : Context, str, Path or None
        Where their queues are.

    Returns
    -------
    list of Recovery
        One for each log that was left behind. Loggers that live are left alone.

    Notes
    -----
    Nothing is written twice, and nothing is removed before it is written. May be killed
    and run again.

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
    """Whether the log goes there."""
    if directory is None:
        return True
    return (
        Path(status.about["directory"])
        .resolve()
        .is_relative_to(Path(directory).resolve())
    )


def _is_left(status: LogStatus) -> bool:
    """Whether the process that made the logger is gone."""
    words = status.words
    start = process_start(words[CREATOR])
    return start == 0 or start != words[CREATED]


def _await_the_dying(status: LogStatus) -> None:
    """Wait, briefly, for killed processes to be gone: the last one takes the name."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            about = status.about
            MemQ.attach(about["queue"], context=about["context"]).close()
        except SegmentNotFound:
            return
        time.sleep(0.01)


def _recovered(status: LogStatus) -> Recovery | None:
    """Write what waits in the queue of a log; None if there is none any more."""
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
            directory.mkdir(parents=True, exist_ok=True)
            sink = open_sink(status, queue)
            try:
                drain(status, queue, sink, None)
            finally:
                sink.close()
        except (OSError, RuntimeError) as error:
            problem = str(error)
    if not problem:
        _await_the_dying(status)
        remove_unused(status)
    entries = status.words[WRITTEN] - before
    return Recovery(about["name"], directory, entries, problem)
