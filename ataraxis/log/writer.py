"""The process that writes a log: drains the queue, and ends with its logger.

Started by `start_writer` in an interpreter of its own, so that it depends on no start
method, no ``__main__`` and no thread of the caller. Signals of the terminal are the
caller's business: the writer takes none, drains what was accepted, and ends.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from pathlib import Path

from ataraxis.errors import LoggerError, SegmentNotFound
from ataraxis.log.disk_watch import DiskWatch
from ataraxis.log.sinks import Sink, open_sink
from ataraxis.log.status import (
    CREATED,
    CREATOR,
    ENDED,
    FINISHED,
    GENERATION,
    STATE,
    STOPPING,
    WORRY,
    WRITTEN,
    WRITTEN_BYTES,
    LogStatus,
    process_start,
)
from ataraxis.shm.process import python_command
from ataraxis.stream import MemQ

_IDLE_S = 0.25
_LOOK_S = 0.25
_SETTLE_S = 1.0
_GATHER_S, _GATHER_LARGE_S = 0.004, 0.001
_GATHER_BYTES = 1 << 17
_GATHER_SLOTS = 256
_SMALL_BYTES = 1024
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def start_writer(path: str | Path) -> int:
    """Start a writer for the log of that status; its pid."""
    command = python_command(
        f"from ataraxis.log.writer import main; main({str(path)!r})"
    )
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        return os.posix_spawn(
            command[0],
            command,
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
    while status.lock(timeout=1):
        try:
            status.words[GENERATION] += 1
            run(status)
            status.words[FINISHED] = 1
        except Exception as error:
            status.fail(said(error))
        finally:
            status.unlock()
        if not is_left_behind(status):
            break
    # Nothing is left to do that an interpreter would take its time for.
    os._exit(0)


def said(error: Exception) -> str:
    """Say what went wrong in a line."""
    cause = error.__cause__ if isinstance(error, LoggerError) else error
    if isinstance(cause, OSError):
        return str(cause)
    return f"{type(error).__name__}: {error}"


def run(status: LogStatus) -> None:
    """Write what is in the queue, until the logger stops or is gone."""
    about = status.about
    with MemQ.attach(about["queue"], context=about["context"]) as queue:
        sink = open_sink(status, queue)
        try:
            drain(status, queue, sink, Creator(status))
        finally:
            sink.close()
    if status.words[STATE] == ENDED:
        remove_unused(status)


def is_left_behind(status: LogStatus) -> bool:
    """Whether something was put by an orphan that saw this writer still at it.

    The orphan puts, then looks for a writer (`LogQueue._accepted_late`); the writer
    leaves, then looks for entries: one of the two sees the other.
    """
    about = status.about
    if status.words[STATE] != ENDED:
        return False
    try:
        queue = MemQ.attach(about["queue"], context=about["context"])
    except SegmentNotFound:
        return False
    with queue:
        return not queue.empty()


def remove_unused(status: LogStatus) -> None:
    """Remove the status of a log whose queue has no name any more."""
    about = status.about
    if not os.path.lexists(os.path.join(about["context"], about["queue"])):
        status.unlink()


def drain(status: LogStatus, queue: MemQ, sink: Sink, creator: Creator | None) -> None:
    """Move frames from the queue to the sink; without a creator, until it is empty."""
    words, about = status.words, status.about
    looked = time.monotonic()
    quiet_since: float | None = None
    # A look that brings few entries costs more than they do, and keeps putters that
    # share our cores from filling the queue.
    gathers = creator is not None and queue.buffer_count >= _GATHER_SLOTS
    watch = DiskWatch(
        Path(about["directory"]),
        about["low_disk_s"],
        status.worry,
        lambda: status.worry(None),
    )
    watch.look(0, is_forced=True)
    while True:
        is_last = creator is None or words[STATE] in (STOPPING, ENDED)
        if not is_last:
            queue.wait(_IDLE_S)  # stop() nudges
        entries, written = words[WRITTEN], words[WRITTEN_BYTES]
        has_some = sink.draw(queue, 0)
        if has_some:
            quiet_since = None
        elif is_last:
            # Somebody may be putting, or have died putting, in front of the rest.
            if not queue.sweep() and not queue.statistics().used:
                return
            quiet_since = quiet_since or time.monotonic()
            if time.monotonic() - quiet_since > _SETTLE_S:
                return
            time.sleep(0.001)
            continue
        came, size = words[WRITTEN] - entries, words[WRITTEN_BYTES] - written
        if gathers and has_some and not is_last and size < _GATHER_BYTES:
            time.sleep(_GATHER_S if size < came * _SMALL_BYTES else _GATHER_LARGE_S)
        now = time.monotonic()
        if creator is not None and (not has_some or now - looked > _LOOK_S):
            looked = now
            with suppress(OSError):  # writing will tell
                watch.look(words[WRITTEN_BYTES])
            if not is_last and creator.is_gone():
                words[STATE] = ENDED
                words[WORRY] = 1


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
