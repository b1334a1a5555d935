"""The process that writes a log: drains the queue, and ends with its logger.

Started by `start_writer` in an interpreter of its own, so that it depends on no start
method, no ``__main__`` and no thread of the caller. Signals of the terminal are the
caller's business: the writer takes none, drains what was accepted, and ends.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from ataraxis.log.sinks import Sink, open_sink
from ataraxis.log.status import (
    CREATED,
    CREATOR,
    ENDED,
    FINISHED,
    GENERATION,
    STATE,
    STOPPING,
    LogStatus,
    process_start,
)
from ataraxis.stream import MemQ

if TYPE_CHECKING:
    from pathlib import Path

_IDLE_S = 0.02
_LOOK_S = 0.25
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def start_writer(path: str | Path) -> int:
    """Start a writer for the log of that status; its pid."""
    if not sys.executable:
        raise RuntimeError(
            "this program does not know its Python (sys.executable is empty): set it, "
            "so that the log's writer can be started"
        )
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; "
        f"from ataraxis.log.writer import main; main({str(path)!r})"
    )
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", code],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, null, to) for to in (0, 1, 2)],
            setsigmask=_SIGNALS,
        )
    finally:
        os.close(null)


def main(path: str) -> None:
    """Be the writer of a log, unless there is one."""
    try:
        status = LogStatus(path)
    except FileNotFoundError:
        return
    if not status.lock(timeout=1):
        return
    try:
        status.words[GENERATION] += 1
        run(status)
        status.words[FINISHED] = 1
    except Exception as error:
        status.fail(said(error))
    finally:
        status.unlock()


def said(error: Exception) -> str:
    """Say what went wrong in a line."""
    if isinstance(error, OSError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def run(status: LogStatus) -> None:
    """Write what is in the queue, until the logger stops or is gone."""
    about = status.about
    with MemQ.attach(about["queue"], context=about["context"]) as queue:
        sink = open_sink(status)
        try:
            creator = Creator(status)
            drain(status, queue, sink, creator)
        finally:
            sink.close()
    if status.words[STATE] == ENDED:
        remove_unused(status)


def remove_unused(status: LogStatus) -> None:
    """Remove the status of a log whose queue has no name any more."""
    about = status.about
    if not os.path.lexists(os.path.join(about["context"], about["queue"])):
        status.unlink()


def drain(status: LogStatus, queue: MemQ, sink: Sink, creator: Creator | None) -> None:
    """Move frames from the queue to the sink; without a creator, until it is empty."""
    words = status.words
    looked = time.monotonic()
    while True:
        is_last = creator is None or words[STATE] in (STOPPING, ENDED)
        has_some = sink.draw(queue, 0 if is_last else _IDLE_S)
        if is_last and not has_some:
            return
        now = time.monotonic()
        if creator is not None and (not has_some or now - looked > _LOOK_S):
            looked = now
            if not is_last and creator.is_gone():
                words[STATE] = ENDED


class Creator:
    """The process that made the logger, as its writer sees it."""

    def __init__(self, status: LogStatus) -> None:
        self._pid, self._start = status.words[CREATOR], status.words[CREATED]
        self._descriptor = -1
        self._is_gone = process_start(self._pid) != self._start
        if not self._is_gone:
            with suppress(OSError, AttributeError):
                self._descriptor = os.pidfd_open(self._pid)
                # Between the two looks the number may have changed hands.
                self._is_gone = process_start(self._pid) != self._start

    def is_gone(self) -> bool:
        """Whether the process has ended."""
        if not self._is_gone and self._descriptor >= 0:
            poll = select.poll()
            poll.register(self._descriptor, select.POLLIN)
            self._is_gone = bool(poll.poll(0))
        if not self._is_gone and self._descriptor < 0:
            self._is_gone = process_start(self._pid) != self._start
        return self._is_gone
