"""How a logger ends: everything accepted is written, whoever ends it, and how."""

from __future__ import annotations

import os
import sys
import time
import warnings
import weakref

from ataraxis.errors import LayoutError, LoggerError
from ataraxis.log.input_queue import LogQueue
from ataraxis.log.log_watch import LogWatch
from ataraxis.log.status import (
    CREATED,
    CREATOR,
    FAILED,
    FINISHED,
    GENERATION,
    RUNNING,
    STATE,
    STOPPED,
    STOPPING,
    WRITTEN,
    LogStatus,
    process_start,
    statuses,
)
from ataraxis.log.writer import remove_unused
from ataraxis.shm.context import Context
from ataraxis.stream import MemQ

_LOOK_S = 0.2
_STALL_S = 5.0


def stop(queue: LogQueue, memq: MemQ, status: LogStatus, timeout: float | None) -> None:
    """Wait until the writer has written everything."""
    words = status.words
    if words[STATE] == RUNNING:
        words[STATE] = STOPPING
        memq.nudge()
    began = told = time.monotonic()
    written, pause, looked = words[WRITTEN], 0.0002, began
    while not (words[FINISHED] or words[STATE] == FAILED):
        now = time.monotonic()
        if timeout is not None and now - began > timeout:
            raise TimeoutError(
                f"{memq.qsize()} frames were not written within {timeout} s; the "
                "writer goes on"
            )
        if now - looked > _LOOK_S:
            looked = now
            queue.look()
            if not status.is_written():
                told = max(told, now)  # it is being started
        if words[WRITTEN] != written:
            written, told = words[WRITTEN], now
        elif now - told > _STALL_S:
            told = now + 1e9
            warnings.warn(
                f"{memq!r}: the disk has taken nothing for {_STALL_S:.0f} s",
                RuntimeWarning,
                stacklevel=3,
            )
        time.sleep(pause)
        pause = min(2 * pause, 0.01)
    queue.reap()
    if words[STATE] == FAILED:
        raise LoggerError(queue.complaint(status.error))
    words[STATE] = STOPPED


def sweep(context: Context) -> None:
    """Remove statuses of logs that ended while others held their queues."""
    for path in statuses(context):
        try:
            status = LogStatus(path)
        except (LayoutError, FileNotFoundError):
            continue
        if process_start(status.words[CREATOR]) != status.words[CREATED]:
            remove_unused(status)
        status.close()


def farewell(
    pid: int, queue: LogQueue, memq: MemQ, status: LogStatus, watch: LogWatch
) -> None:
    """Write what was accepted, when the program or the logger ends."""
    if pid != os.getpid():
        return
    _await_children()
    words = status.words
    try:
        if words[STATE] == STOPPED and not memq.empty():
            words[FINISHED] = words[GENERATION] = 0
            words[STATE] = RUNNING
            queue.start_writer()
        if words[STATE] in (RUNNING, STOPPING):
            stop(queue, memq, status, None)
    except LoggerError as error:
        warnings.warn(str(error), RuntimeWarning, stacklevel=2)
    is_kept = not memq.empty()
    watch.stop()
    memq.close()
    if not is_kept:
        status.unlink()


def _await_children() -> None:
    """At the end of the program, wait for children that still put, as Python would."""
    if "multiprocessing.process" not in sys.modules or not _is_at_exit():
        return
    import multiprocessing

    for child in multiprocessing.active_children():
        if not child.daemon:
            child.join()


def _is_at_exit() -> bool:
    """Whether the interpreter is running what was registered for its end."""
    return getattr(weakref.finalize, "_shutdown", False)
