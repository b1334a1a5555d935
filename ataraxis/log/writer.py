"""The process that writes a log: drains the queue, and ends with its logger.

Started by `start_writer` in an interpreter of its own, so that it depends on no start
method, no ``__main__`` and no thread of the caller. Signals of the terminal are the
caller's business: the writer takes none, drains what was accepted, and ends.
"""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ataraxis._kernels.journal_scan import summarize_frames
from ataraxis._kernels.journal_write import QueueToFile
from ataraxis.errors import CorruptFrame, DataOverflow, LoggerError, SegmentNotFound
from ataraxis.frame import HEADER_BYTES
from ataraxis.log.disk_watch import DiskWatch
from ataraxis.log.npy.directory import EntryDirectory
from ataraxis.log.npy.entries import SUFFIX, EntryKey
from ataraxis.log.status import (
    COUNT,
    DONE,
    DROPPED,
    ENDED,
    FINISHED,
    GENERATION,
    INODE,
    INTENT,
    STAMP,
    STATE,
    STOPPING,
    WORRY,
    WRITTEN,
    WRITTEN_BYTES,
    LogStatus,
)
from ataraxis.shm.process import (
    ChildProcess,
    ProcessOutput,
    ProcessWatch,
    process_command,
    spawn,
)
from ataraxis.stream import MemQ

if TYPE_CHECKING:
    from ataraxis.log.journal.writer import JournalWriter

# ---- `WriterCheckpoint`: what a writer leaves to the next, so that no entry is twice

# A writer that dies has entries that it wrote and did not acknowledge: the queue gives
# them to the next one again. In the status stand the numbers of the batch it had, how
# many of these were written, and the entry it was about to write, with the inode its
# file had before it had a name. So the successor knows each of them.

_HEAD = struct.Struct("<4xBBHQQq16xI")
_STAMP = struct.Struct("<Q8x")
_EXTENDED, _STAMPED = 8, 16
_PAD = 63


class Delivered(NamedTuple):
    """A frame as it lies in a drained buffer: an entry."""

    number: int
    """Its number in the queue, the same at each delivery."""
    source: int
    stamp: int
    payload: memoryview
    at: int
    """Where in the buffer it begins."""
    end: int
    """Where the next one begins."""


def delivered(data: memoryview) -> Iterator[Delivered]:
    """Take a drained buffer apart."""
    at = 0
    while at < len(data):
        _, _, flags, length, number, stamp, source = _HEAD.unpack_from(data, at)
        start = at + HEADER_BYTES
        end = start + length
        if flags & _EXTENDED:
            start += 64
        if flags & _STAMPED:
            (stamp,) = _STAMP.unpack_from(data, start)
            start += _STAMP.size
        begin, at = at, (end + _PAD) & ~_PAD
        yield Delivered(number, source, stamp, data[start:end], begin, at)


class WriterCheckpoint:
    """What the writer before had not acknowledged, and our own notes.

    Parameters
    ----------
    status : LogStatus
        Has the notes of the writer before, and takes ours.
    again : list of int
        Numbers that the queue may give once more; the others were acknowledged.
    """

    def __init__(self, status: LogStatus, again: Iterable[int]) -> None:
        self._status = status
        words = status.words
        count, done = words[COUNT], words[DONE]
        numbers = list(status.numbers[:count])
        self.numbers = frozenset(numbers).intersection(again)
        """Entries of the last batch that was not acknowledged."""
        self.written = set(self.numbers.intersection(numbers[:done]))
        """Those that are written, and were not seen again yet."""
        self._again: set[int] = set()
        is_open = done < count and words[INTENT] == done + 1
        self.intent = numbers[done] if is_open else None
        """The entry that was being written."""
        self.inode, self.stamp = words[INODE], words[STAMP]

    def begin(self, numbers: NDArray[np.uint64]) -> None:
        """Note a batch, before any of it is written."""
        words = self._status.words
        if not self.written:
            words[COUNT] = words[INTENT] = words[DONE] = 0
            self._status.numbers[: len(numbers)] = numbers.data.cast("B").cast("Q")
            words[COUNT] = len(numbers)
            return
        self._begin_again(list(map(int, numbers)))

    def _begin_again(self, numbers: list[int]) -> None:
        """Note a batch with entries that a writer before had."""
        words = self._status.words
        self._again = self.written.intersection(numbers)
        # Written ones that are still to come again stay noted, in front.
        kept = sorted(self.written)
        new = [number for number in numbers if number not in self.written]
        everything = kept + new
        words[COUNT] = words[INTENT] = 0
        words[DONE] = len(kept)
        self._status.numbers[: len(everything)] = array("Q", everything)
        words[COUNT] = len(everything)

    def end(self) -> None:
        """Forget a batch that was acknowledged."""
        self.written -= self._again
        self._again.clear()
        if not self.written:
            self._status.words[COUNT] = 0


# ---- where a writer puts entries: npy files, or a journal

BUFFER_BYTES = 4 << 20
LEASE_BYTES = 2 << 20
FILES_BYTES = 256 << 10  # of files of their own: a fraction of a second


class EntrySink(Protocol):
    """Takes frames from a queue; `status` says how far it is."""

    def draw(self, queue: MemQ, timeout: float = 0) -> bool:
        """Write what is in the queue and acknowledge it; False if there was nothing.

        What is acknowledged is safe, by the promise of the log.
        """

    def close(self) -> None:
        """Finish."""


class DrainBuffer:
    """What is drained into, for a sink that wants frames in one piece.

    Parameters
    ----------
    take : callable
        Writes the frames.
    size : int
        Bytes of frames to take at a time, if they are not larger.
    """

    def __init__(
        self, take: Callable[[memoryview], None], size: int = BUFFER_BYTES
    ) -> None:
        self._take, self._size = take, size
        self._buffer = bytearray()

    def draw(self, queue: MemQ, timeout: float = 0) -> bool:
        """Drain and take; False if there was nothing. The caller acknowledges."""
        size = len(self._buffer) or self._size
        while True:
            if len(self._buffer) < size:
                self._buffer = bytearray(size)
            try:
                end, _ = queue.drain_into(
                    self._buffer, timeout=timeout, acknowledge=False
                )
                break
            except Empty:
                return False
            except DataOverflow:
                size *= 2
        if end:
            self._take(memoryview(self._buffer)[:end])
        return True


def open_sink(status: LogStatus, queue: MemQ) -> EntrySink:
    """Open what the status describes, to go on where the writer before was."""
    about = status.about
    notes = WriterCheckpoint(status, queue.had_before())
    if about["layout"] == "journal":
        return JournalEntrySink(status, about, notes)
    return NpyEntrySink(status, about, notes)


class NpyEntrySink:
    """Write each entry as a file of its own."""

    def __init__(
        self, status: LogStatus, about: dict[str, Any], notes: WriterCheckpoint
    ) -> None:
        self._status = status
        self._durable = about["durability"] == "disk"
        self._notes = notes
        self._entries = EntryDirectory(about["directory"], before=self._intend)
        self._drain_buffer = DrainBuffer(self._take, FILES_BYTES)

    def _intend(self, descriptor: int) -> None:
        """Note the file that is about to get a name."""
        self._status.words[INODE] = os.fstat(descriptor).st_ino

    def draw(self, queue: MemQ, timeout: float = 0) -> bool:
        """Write what is in the queue, and acknowledge it."""
        with _given_back(queue):
            if not self._drain_buffer.draw(queue, timeout):
                return False
        queue.acknowledge_drained()
        self._notes.end()
        return True

    def _take(self, data: memoryview) -> None:
        """Write the entries, in the order they were put."""
        notes, words = self._notes, self._status.words
        frames = sorted(delivered(data), key=lambda frame: frame.number)
        notes.begin(np.array([frame.number for frame in frames], np.uint64))
        for frame in frames:
            if frame.number not in notes.written:
                self._write(frame)
                # One store: from here on it is written, and no intent is open.
                words[DONE] += 1
                words[WRITTEN] += 1
                words[WRITTEN_BYTES] += len(frame.payload)
        if self._durable:
            self._entries.sync()

    def _write(self, frame: Delivered) -> None:
        """Write an entry, unless the writer before got that far."""
        words, notes = self._status.words, self._notes
        if frame.number == notes.intent and self._is_there(
            frame.source, notes.stamp, notes.inode
        ):
            return
        words[STAMP] = frame.stamp
        words[INODE] = 0
        words[INTENT] = words[DONE] + 1
        self._entries.write(
            frame.source, frame.stamp, frame.payload, durable=self._durable
        )

    def _is_there(self, source: int, stamp: int, inode: int) -> bool:
        """Whether the file that was about to get a name has got it."""
        if not inode:
            return False
        stem = EntryKey(stamp, source).stem
        for path in self._entries.path.glob(f"{stem}*{SUFFIX}"):
            if path.stat().st_ino == inode:
                return True
        return False

    def close(self) -> None:
        """Close the directory."""
        self._entries.close()


class JournalEntrySink:
    """Write frames into a journal as they are.

    A frame keeps its number in the queue as its sequence.
    """

    def __init__(
        self, status: LogStatus, about: dict[str, Any], notes: WriterCheckpoint
    ) -> None:
        self._status, self._about = status, about
        self._numbers = np.empty(len(status.numbers), np.uint64)
        self._notes = notes
        self._notes.written = _already_there(self._notes.numbers, about)
        self._journal = self._open()
        self._drain_buffer = DrainBuffer(self._take)
        self._queue_to_file: QueueToFile | None = None
        self._is_large_next = False

    def _open(self, **more: Any) -> JournalWriter:
        from ataraxis.log.journal.writer import JournalWriter

        return JournalWriter(
            self._about["directory"],
            self._about["queue"],
            durability=self._about["durability"],
            about={"logger": self._about["name"], **more},
        )

    def draw(self, queue: MemQ, timeout: float = 0) -> bool:
        """Write what is in the queue, and acknowledge it."""
        try:
            return self._draw(queue, timeout)
        except LoggerError:
            self._disown()
            raise

    def _disown(self) -> None:
        """After a sync that failed, say in a new file which entries count no more.

        The system may have dropped their pages, and call the next sync a success. They
        are in the queue again, and the next writer has them written.
        """
        lost = self._journal
        if lost.has_lost_pages:
            with suppress(LoggerError, OSError):  # tried again by `close`
                self._journal = self._open(again=lost.on_disk())
                lost.abandon()

    def _draw(self, queue: MemQ, timeout: float) -> bool:
        with _given_back(queue):
            if self._is_large_next or self._notes.written:
                # One of a segment of its own, or some that a writer before had.
                self._is_large_next = False
                has_some = self._drain_buffer.draw(queue, timeout)
            else:
                has_some = self._record(queue, timeout)
        if has_some:
            queue.acknowledge_drained()
            self._notes.end()
        return has_some

    def _record(self, queue: MemQ, timeout: float) -> bool:
        """Write frames from where they lie."""
        queue_to_file = self._queue_to_file = self._queue_to_file or QueueToFile(queue)
        count, size, self._is_large_next = queue_to_file.lease(
            self._numbers, LEASE_BYTES, timeout
        )
        if count:
            self._notes.begin(self._numbers[:count])
            self._journal.record_queue(queue_to_file)
            self._told(count, size)
        return count > 0 or self._is_large_next

    def _told(self, count: int, size: int) -> None:
        """Bring it into the file, or to the disk; count it."""
        if self._journal.durability == "disk":
            self._journal.sync()
        else:
            self._journal.flush()
        words = self._status.words
        words[WRITTEN] += count
        words[WRITTEN_BYTES] += size

    def _take(self, data: memoryview) -> None:
        """Write the frames, in the order they were put."""
        count, size, end = summarize_frames(data, self._numbers)
        if end != len(data):
            raise CorruptFrame(f"no frame begins at byte {end} of what was drained")
        there = self._notes.written
        self._notes.begin(self._numbers[:count])
        if there:
            new = [one for one in delivered(data) if one.number not in there]
            for start, stop in _runs(new):
                self._journal.append(data[start:stop])
            count, size = len(new), sum(len(one.payload) for one in new)
        else:
            self._journal.append(data)
        self._told(count, size)

    def close(self) -> None:
        """Close the journal."""
        self._disown()
        if self._journal.has_lost_pages:
            self._journal.abandon()
        else:
            self._journal.close(dropped=self._status.words[DROPPED])


@contextmanager
def _given_back(queue: MemQ) -> Iterator[None]:
    """Let the next writer have what this one drained and could not write."""
    try:
        yield
    except BaseException:
        queue.give_back_drained()
        raise


def _runs(frames: Iterable[Delivered]) -> Iterator[tuple[int, int]]:
    """Join neighbours that are written in one call: first byte, byte after."""
    start = stop = 0
    for frame in frames:
        if frame.at != stop:
            if stop > start:
                yield start, stop
            start = frame.at
        stop = frame.end
    if stop > start:
        yield start, stop


def _already_there(numbers: frozenset[int], about: dict[str, Any]) -> set[int]:
    """Find which of the last, unacknowledged batch are in the journal."""
    if not numbers:
        return set()
    from ataraxis.log.journal.reader import JournalReader

    try:
        reader = JournalReader(Path(about["directory"]), about["queue"])
    except FileNotFoundError:
        return set()
    with reader:
        sequence = reader.select().sequence
    wanted = np.fromiter(numbers, np.uint64, len(numbers))
    return set(sequence[np.isin(sequence, wanted)].tolist())


# ---- the writer

_IDLE_S = 0.25
_LOOK_S = 0.25
_SETTLE_S = 1.0
_GATHER_S, _GATHER_LARGE_S = 0.004, 0.001
_GATHER_BYTES = 1 << 17
_GATHER_SLOTS = 256
_SMALL_BYTES = 1024
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def start_writer(path: str | Path, errors: ProcessOutput) -> ChildProcess:
    """Start a writer for the log of a status file; its errors go to `errors`.

    Raises `OSError` if the interpreter cannot be started.
    """
    return spawn(
        process_command("ataraxis.log.writer:main", str(path)),
        blocked=_SIGNALS,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        process_group=None,
    )


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
            drain(status, queue, sink, ProcessWatch(status.creator))
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


def drain(
    status: LogStatus, queue: MemQ, sink: EntrySink, creator: ProcessWatch | None
) -> None:
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
        status.warn,
        lambda: status.warn(None),
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
