"""`DataLogger`: entries from any process to disk, by one writer process."""

from __future__ import annotations

import os
import secrets
import sys
import time
import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

from ataraxis.errors import LayoutError, LoggerError
from ataraxis.log.disk_watch import LowDisk
from ataraxis.log.modes import make_folder
from ataraxis.log.monitor import LogWatch, Loss
from ataraxis.log.npy.archiving import ArchiveReport, compress_npy_logs
from ataraxis.log.queue import ON_FULL, LogQueue, OnFull
from ataraxis.log.status import (
    CREATOR,
    DROPPED,
    FAILED,
    FINISHED,
    GENERATION,
    RUNNING,
    STATE,
    STOPPED,
    STOPPING,
    WRITTEN,
    WRITTEN_BYTES,
    LogStatus,
    statuses,
)
from ataraxis.log.writer import remove_unused
from ataraxis.shm.context import Context, ContextLike, checked_name
from ataraxis.shm.process import ProcessIdentity, check_can_start
from ataraxis.stream import MemQ
from ataraxis.stream.overflow import check_on_full

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

# ---- how a logger ends: every accepted entry is written

_CHECK_S = 0.2
_STALL_S = 5.0


def stop(queue: LogQueue, memq: MemQ, status: LogStatus, timeout: float | None) -> None:
    """Wait until the writer has written every entry."""
    words = status.words
    if words[STATE] == RUNNING:
        words[STATE] = STOPPING
        memq.nudge()
    began = moved = time.monotonic()
    written, pause, checked = words[WRITTEN], 0.0002, began
    while not (words[FINISHED] or words[STATE] == FAILED):
        now = time.monotonic()
        if timeout is not None and now - began > timeout:
            raise TimeoutError(
                f"{memq.qsize()} frames were not written within {timeout} s; the "
                "writer continues"
            )
        if now - checked > _CHECK_S:
            checked = now
            queue.check_writer()
            if not status.is_written():
                moved = max(moved, now)  # it is being started
        if words[WRITTEN] != written:
            written, moved = words[WRITTEN], now
        elif now - moved > _STALL_S:
            moved = now + 1e9
            warnings.warn(
                f"{memq!r}: nothing written for {_STALL_S:.0f} s; waiting for the disk",
                RuntimeWarning,
                stacklevel=3,
            )
        time.sleep(pause)
        pause = min(2 * pause, 0.01)
    queue.reap()
    if words[STATE] == FAILED:
        raise LoggerError(queue.failure_message(status.error))
    words[STATE] = STOPPED


def sweep(context: Context) -> None:
    """Remove the status files of ended logs whose queues are gone."""
    for path in statuses(context):
        try:
            status = LogStatus(path)
        except (LayoutError, FileNotFoundError):
            continue
        if not status.creator.is_alive():
            remove_unused(status)
        status.close()


def finalize(
    pid: int, queue: LogQueue, memq: MemQ, status: LogStatus, watch: LogWatch
) -> None:
    """Write every accepted entry when the program or the logger ends."""
    if pid != os.getpid():
        return
    _await_children()
    words = status.words
    try:
        if words[STATE] == STOPPED and not memq.empty():
            words[FINISHED] = words[GENERATION] = 0
            words[STATE] = RUNNING
            queue.begin()
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
    """Join children that still log, as Python does at the end of a program."""
    if "multiprocessing.process" not in sys.modules or not _is_at_exit():
        return
    import multiprocessing

    for child in multiprocessing.active_children():
        if not child.daemon:
            child.join()


def _is_at_exit() -> bool:
    return getattr(weakref.finalize, "_shutdown", False)


# ---- the logger

LOG_DIRECTORY_SUFFIX = "_data_log"


@dataclass(frozen=True)
class LoggerStatistics:
    """What a logger has written so far."""

    written: int
    """Entries written."""
    written_bytes: int
    """Payload bytes of these."""
    waiting: int
    """Frames accepted but not acknowledged as written."""
    dropped: int
    """Entries dropped because of `on_full`."""
    writers: int
    """Writer processes since `start`; more than 1 after a crash of one."""


class DataLogger:
    """Log entries of any number of processes through one writer process.

    Parameters
    ----------
    output_directory : str or Path
        The log goes to ``{instance_name}_data_log`` in it, which is created if missing.
    instance_name : str
        Name of the log. Two loggers of one name may write at once; nothing is
        overwritten. Of a path, the last part is the name.
    process_count, thread_count, sleep_timer, poll_interval : int
        Accepted for compatibility, without effect.
    exist_ok : bool
        Accepted; several loggers may share a name.
    layout : {'npy', 'journal'}
        One file per entry, as in ataraxis-data-structures; or a journal of frames,
        which also keeps dtypes and shapes, and sources up to 2**32 - 2.
    durability : {'os', 'disk'}
        Whether a written entry survives the death of every process, or also a power
        failure.
    on_full : {'block', 'raise', 'drop_newest'}
        What `put` does when the queue is full: wait for the disk, raise `QueueFull`, or
        drop the entry and count it.
    buffer_count, buffer_size : int
        Slots of the queue, and bytes per slot: up to 64 entries of a process share
        one. Larger entries get segments of their own.
    context : Context, str, Path or None
        The directory of segments of the queue.
    on_loss : callable, optional
        Called with `Loss` when a process dropped entries.
    on_error : callable, optional
        Called with the `LoggerError` when the log cannot be written any more.
    on_low_disk : callable, optional
        Called with `LowDisk` well before the disk is full. Default: every process that
        logs warns once.
    low_disk_s : float
        Report when the free space lasts less than this at the present rate, s, or is
        below 256 MiB.

    Notes
    -----
    An entry is accepted when `put` has returned: it is in shared memory, and is written
    even if this process or the writer dies. If no process is left to write it, it stays
    in memory until the machine restarts; `recover_log` writes it. Callbacks run in a
    thread of this process that exists only for them.

    Needs no ``if __name__ == "__main__"``. Ends with the program, or with the last
    reference; both drain the queue first.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from ataraxis import DataLogger, LogPackage
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     with DataLogger(directory, "doc_logger") as logger:
    ...         logger.input_queue.put(LogPackage(1, 5, np.array([7, 8], np.uint8)))
    ...     names = [path.name for path in logger.output_directory.iterdir()]
    ...     logger.close()
    >>> names
    ['001_00000000000000000005.npy']
    """

    def __init__(
        self,
        output_directory: str | Path,
        instance_name: str = "data_logger",
        process_count: int = 1,
        thread_count: int = 5,
        sleep_timer: int = 5000,
        exist_ok: bool = False,
        *,
        poll_interval: int = 5,
        layout: Literal["npy", "journal"] = "npy",
        durability: Literal["os", "disk"] = "os",
        on_full: OnFull = "block",
        buffer_count: int = 512,
        buffer_size: int = 65536,
        context: ContextLike = None,
        on_loss: Callable[[Loss], object] | None = None,
        on_error: Callable[[LoggerError], object] | None = None,
        on_low_disk: Callable[[LowDisk], object] | None = None,
        low_disk_s: float = 600.0,
    ) -> None:
        for name, value, among in (
            ("layout", layout, ("npy", "journal")),
            ("durability", durability, ("os", "disk")),
        ):
            if value not in among:
                raise ValueError(f"{name} must be one of {among}, got {value!r}")
        check_on_full(on_full, ON_FULL)
        directory = Path(output_directory) / f"{instance_name}{LOG_DIRECTORY_SUFFIX}"
        instance_name = checked_name(Path(instance_name).name)
        self._name = instance_name
        make_folder(directory)
        self._directory = directory
        where = Context.of(context)
        queue = f"{instance_name[:100]}-log-{secrets.token_hex(6)}"
        about = {
            "name": instance_name,
            "queue": queue,
            "context": str(where.path),
            "directory": str(directory.absolute()),
            "layout": layout,
            "durability": durability,
            "low_disk_s": low_disk_s,
        }
        sweep(where)
        memq = MemQ(queue, buffer_count, buffer_size, context=where)
        status = LogStatus.create(queue, about, where, buffer_count * 64)
        status.creator = ProcessIdentity.of(os.getpid())
        self._status = status
        self._memq = memq
        self._queue = LogQueue(memq, status.path, on_full, layout)
        self._queue.set_owner(warns=on_low_disk is None)
        self._watch = LogWatch(self._queue, status, on_loss, on_error, on_low_disk)
        self._end = weakref.finalize(
            self, finalize, os.getpid(), self._queue, memq, status, self._watch
        )

    # ---- life

    def start(self) -> None:
        """Start the writer if it does not run. Also after a `LoggerError`."""
        self._check_creator("start")
        words = self._status.words
        if words[STATE] in (RUNNING, STOPPING):
            self._queue.check_writer()
            return
        check_can_start()
        self._queue.reap()
        self._status.reset_error()
        words[FINISHED] = 0
        words[STATE] = RUNNING
        self._queue.begin()
        self._watch.start()

    def stop(self, timeout: float | None = None) -> None:
        """Write every accepted entry and end the writer, if it runs.

        Parameters
        ----------
        timeout : float or None
            Longest wait for the disk, s.

        Raises
        ------
        LoggerError
            Not everything could be written; the message states what is safe and where
            the rest is.
        TimeoutError
            The disk was slower. The writer continues, and `stop` may be called again.
        """
        self._check_creator("stop")
        words = self._status.words
        try:
            if words[STATE] != STOPPED:
                stop(self._queue, self._memq, self._status, timeout)
        finally:
            if words[STATE] != STOPPING:
                self._watch.stop()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"the logger {self._name!r} stays in the process that made it: send its "
            "input_queue to other processes, and call put() or log() there"
        )

    def __enter__(self) -> DataLogger:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def close(self) -> None:
        """Stop, and close the queue; entries that cannot be written stay in it."""
        self._end()

    def _check_creator(self, what: str) -> None:
        if self._status.words[CREATOR] != os.getpid():
            raise RuntimeError(
                f"only the process that made the logger {self._name!r} may {what} it; "
                "other processes put into its input_queue"
            )

    # ---- entries

    @property
    def input_queue(self) -> LogQueue:
        """The queue for entries; can be sent to any process."""
        return self._queue

    def log(
        self, source_id: int, array: ArrayLike, *, timestamp: int | None = None
    ) -> None:
        """Log an array of any dtype and shape; see `LogQueue.log`."""
        self._queue.log(source_id, array, timestamp=timestamp)

    def log_block(
        self,
        source_id: int,
        block: ArrayLike,
        *,
        timestamp: int | None = None,
        step: int = 0,
    ) -> int:
        """Log each row of an array as one entry; see `LogQueue.log_block`."""
        return self._queue.log_block(source_id, block, timestamp=timestamp, step=step)

    # ---- properties

    @property
    def output_directory(self) -> Path:
        """Directory of the log."""
        return self._directory

    @property
    def name(self) -> str:
        """Name of the logger."""
        return self._name

    @property
    def started(self) -> bool:
        """Whether entries are being written."""
        return self._status.words[STATE] in (RUNNING, STOPPING)

    @property
    def alive(self) -> bool:
        """Same as `started`."""
        return self.started

    def statistics(self) -> LoggerStatistics:
        """Return the totals so far, without waiting for the writer."""
        words = self._status.words
        waiting = self._memq.statistics()
        return LoggerStatistics(
            words[WRITTEN],
            words[WRITTEN_BYTES],
            waiting.waiting + waiting.leased,
            words[DROPPED],
            words[GENERATION],
        )

    def compress_logs(
        self,
        remove_sources: bool = False,
        memory_mapping: bool = False,
        verbose: bool = False,
        compress: bool = True,
        verify_integrity: bool = False,
        max_workers: int | None = None,
    ) -> ArchiveReport:
        """Put the log's entries into npz archives; see `compress_npy_logs`."""
        return compress_npy_logs(
            self._directory, remove_sources, memory_mapping, verbose, compress,
            verify_integrity, max_workers,
        )  # fmt: skip

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from ataraxis.card import html_of

        return html_of("logger", self)

    def __repr__(self) -> str:
        return (
            f"DataLogger(name={self._name!r}, output_directory={str(self._directory)!r}"
            f", started={self.started})"
        )
