"""The writer process of a log: drains the queue, and ends with its logger.

`start_writer` starts it in a new interpreter, independent of start methods, of
``__main__`` and of the caller's threads. It ignores signals of the terminal, which are
for the caller; it drains what was accepted, and ends.
"""

from __future__ import annotations

import os
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
    ATTENTION,
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
    WRITTEN,
    WRITTEN_BYTES,
    LogStatus,
)
from ataraxis.shm.process import (
    SIGNALS,
    ChildProcess,
    ProcessOutput,
    ProcessWatch,
    process_command,
    spawn,
)
from ataraxis.stream import MemQ

if TYPE_CHECKING:
    from ataraxis.log.journal.writer import JournalWriter

# ---- `WriterCheckpoint`: the writer's state for its successor, so no entry is repeated

# When a writer dies, the queue redelivers the entries that it wrote but did not
# acknowledge. The status file has the numbers of its batch, how many of them are
# written, and the entry it was about to write with the inode of its unnamed file.

_HEAD = struct.Struct("<4xBBHQQq16xI")
_STAMP = struct.Struct("<Q8x")
_EXTENDED, _STAMPED = 8, 16
_PAD = 63


class Delivered(NamedTuple):
    """One entry in a drained buffer."""

    number: int
    """Its number in the queue, equal at each delivery."""
    source: int
    stamp: int
    payload: memoryview
    at: int
    """Where in the buffer it starts."""
    end: int
    """Where the next one starts."""


def delivered(data: memoryview) -> Iterator[Delivered]:
    """Iterate over the entries of a drained buffer."""
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
    """The batch that the last writer did not acknowledge, and that of this one.

    `status` has the last writer's and receives this one's. `again` are the numbers that
    the queue may redeliver; the others were acknowledged.
    """

    def __init__(self, status: LogStatus, again: Iterable[int]) -> None:
        self._status = status
        words = status.words
        count, done = words[COUNT], words[DONE]
        numbers = list(status.numbers[:count])
        self.numbers = frozenset(numbers).intersection(again)
        """Entries of the last batch that may be redelivered."""
        self.written = set(self.numbers.intersection(numbers[:done]))
        """The written ones of these that were not redelivered yet."""
        self._again: set[int] = set()
        is_open = done < count and words[INTENT] == done + 1
        self.intent = numbers[done] if is_open else None
        """The entry that was being written."""
        self.inode, self.stamp = words[INODE], words[STAMP]

    def begin(self, numbers: NDArray[np.uint64]) -> None:
        """Record a batch, before any of it is written."""
        words = self._status.words
        if not self.written:
            words[COUNT] = words[INTENT] = words[DONE] = 0
            self._status.numbers[: len(numbers)] = numbers.data.cast("B").cast("Q")
            words[COUNT] = len(numbers)
            return
        self._begin_again(list(map(int, numbers)))

    def _begin_again(self, numbers: list[int]) -> None:
        """Record a batch that contains redelivered entries."""
        words = self._status.words
        self._again = self.written.intersection(numbers)
        # Written ones that are still to be redelivered stay recorded, in front.
        kept = sorted(self.written)
        new = [number for number in numbers if number not in self.written]
        everything = kept + new
        words[COUNT] = words[INTENT] = 0
        words[DONE] = len(kept)
        self._status.numbers[: len(everything)] = array("Q", everything)
        words[COUNT] = len(everything)

    def end(self) -> None:
        """Clear a batch that was acknowledged."""
        self.written -= self._again
        self._again.clear()
        if not self.written:
            self._status.words[COUNT] = 0


# ---- sinks: npy files, or a journal

BUFFER_BYTES = 4 << 20
LEASE_BYTES = 2 << 20
FILES_BYTES = 256 << 10  # written as files in a fraction of a second


class EntrySink(Protocol):
    """Writes frames of a queue; records its progress in the status."""

    def write_from(self, queue: MemQ, timeout: float = 0) -> bool:
        """Write and acknowledge what is in the queue; return False if it is empty.

        An acknowledged entry is safe, as the log's `durability` promises.
        """

    def close(self) -> None:
        """Close the files."""


class DrainBuffer:
    """Drains frames into one buffer, which `write` writes.

    It drains `size` bytes at a time; the buffer grows for a larger frame.
    """

    def __init__(
        self, write: Callable[[memoryview], None], size: int = BUFFER_BYTES
    ) -> None:
        self._write, self._size = write, size
        self._buffer = bytearray()

    def fill(self, queue: MemQ, timeout: float = 0) -> bool:
        """Drain and write; return False if it is empty. The caller acknowledges."""
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
            self._write(memoryview(self._buffer)[:end])
        return True


def open_sink(status: LogStatus, queue: MemQ) -> EntrySink:
    """Open the sink that the status describes, to continue after the last writer."""
    about = status.about
    checkpoint = WriterCheckpoint(status, queue.had_before())
    if about["layout"] == "journal":
        return JournalEntrySink(status, about, checkpoint)
    return NpyEntrySink(status, about, checkpoint)


class NpyEntrySink:
    """Writes each entry to its own file."""

    def __init__(
        self, status: LogStatus, about: dict[str, Any], checkpoint: WriterCheckpoint
    ) -> None:
        self._status = status
        self._durable = about["durability"] == "disk"
        self._checkpoint = checkpoint
        self._entries = EntryDirectory(about["directory"], before=self._record_inode)
        self._drain_buffer = DrainBuffer(self._write_batch, FILES_BYTES)

    def _record_inode(self, descriptor: int) -> None:
        """Record the file that is about to get a name."""
        self._status.words[INODE] = os.fstat(descriptor).st_ino

    def write_from(self, queue: MemQ, timeout: float = 0) -> bool:
        """Write and acknowledge what is in the queue."""
        with _given_back(queue):
            if not self._drain_buffer.fill(queue, timeout):
                return False
        queue.acknowledge_drained()
        self._checkpoint.end()
        return True

    def _write_batch(self, data: memoryview) -> None:
        """Write the entries, in the order they were put."""
        checkpoint, words = self._checkpoint, self._status.words
        frames = sorted(delivered(data), key=lambda frame: frame.number)
        checkpoint.begin(np.array([frame.number for frame in frames], np.uint64))
        for frame in frames:
            if frame.number not in checkpoint.written:
                self._write(frame)
                # One store: from here on it is written, and no intent is open.
                words[DONE] += 1
                words[WRITTEN] += 1
                words[WRITTEN_BYTES] += len(frame.payload)
        if self._durable:
            self._entries.sync()

    def _write(self, frame: Delivered) -> None:
        """Write an entry, unless the last writer had finished it."""
        words, checkpoint = self._status.words, self._checkpoint
        if frame.number == checkpoint.intent and self._exists(
            frame.source, checkpoint.stamp, checkpoint.inode
        ):
            return
        words[STAMP] = frame.stamp
        words[INODE] = 0
        words[INTENT] = words[DONE] + 1
        self._entries.write(
            frame.source, frame.stamp, frame.payload, durable=self._durable
        )

    def _exists(self, source: int, stamp: int, inode: int) -> bool:
        """Return whether the file that was about to get a name has one."""
        files = self._entries.path.glob(f"{EntryKey(stamp, source).stem}*{SUFFIX}")
        return bool(inode) and any(path.stat().st_ino == inode for path in files)

    def close(self) -> None:
        """Close the directory."""
        self._entries.close()


class JournalEntrySink:
    """Writes frames to a journal unchanged.

    The sequence number of an entry is its number in the queue.
    """

    def __init__(
        self, status: LogStatus, about: dict[str, Any], checkpoint: WriterCheckpoint
    ) -> None:
        self._status, self._about = status, about
        self._numbers = np.empty(len(status.numbers), np.uint64)
        self._checkpoint = checkpoint
        checkpoint.written = _in_journal(checkpoint.numbers, about)
        self._journal = self._open()
        self._drain_buffer = DrainBuffer(self._write_batch)
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

    def write_from(self, queue: MemQ, timeout: float = 0) -> bool:
        """Write and acknowledge what is in the queue."""
        try:
            return self._write_from(queue, timeout)
        except LoggerError:
            self._replace_file()
            raise

    def _replace_file(self) -> None:
        """After a failed sync, start a file that repeats the unsynced entries.

        The system may have dropped their pages and report the next sync as a success.
        The entries are redelivered, and the next writer writes them.
        """
        lost = self._journal
        if lost.has_lost_pages:
            with suppress(LoggerError, OSError):  # repeated by `close`
                self._journal = self._open(again=lost.on_disk())
                lost.abandon()

    def _write_from(self, queue: MemQ, timeout: float) -> bool:
        with _given_back(queue):
            if self._is_large_next or self._checkpoint.written:
                # An entry in its own segment, or redelivered ones.
                self._is_large_next = False
                has_some = self._drain_buffer.fill(queue, timeout)
            else:
                has_some = self._record(queue, timeout)
        if has_some:
            queue.acknowledge_drained()
            self._checkpoint.end()
        return has_some

    def _record(self, queue: MemQ, timeout: float) -> bool:
        """Write frames directly from the queue."""
        queue_to_file = self._queue_to_file = self._queue_to_file or QueueToFile(queue)
        count, size, self._is_large_next = queue_to_file.lease(
            self._numbers, LEASE_BYTES, timeout
        )
        if count:
            self._checkpoint.begin(self._numbers[:count])
            self._journal.record_queue(queue_to_file)
            self._commit(count, size)
        return count > 0 or self._is_large_next

    def _commit(self, count: int, size: int) -> None:
        """Flush to the file, or sync to the disk; count the entries."""
        if self._journal.durability == "disk":
            self._journal.sync()
        else:
            self._journal.flush()
        words = self._status.words
        words[WRITTEN] += count
        words[WRITTEN_BYTES] += size

    def _write_batch(self, data: memoryview) -> None:
        """Write the frames, in the order they were put."""
        count, size, end = summarize_frames(data, self._numbers)
        if end != len(data):
            raise CorruptFrame(f"no frame begins at byte {end} of the drained data")
        written = self._checkpoint.written
        self._checkpoint.begin(self._numbers[:count])
        if written:
            new = [one for one in delivered(data) if one.number not in written]
            for start, stop in _runs(new):
                self._journal.append(data[start:stop])
            count, size = len(new), sum(len(one.payload) for one in new)
        else:
            self._journal.append(data)
        self._commit(count, size)

    def close(self) -> None:
        """Close the journal."""
        self._replace_file()
        if self._journal.has_lost_pages:
            self._journal.abandon()
        else:
            self._journal.close(dropped=self._status.words[DROPPED])


@contextmanager
def _given_back(queue: MemQ) -> Iterator[None]:
    """On an error, give drained frames back to the queue for the next writer."""
    try:
        yield
    except BaseException:
        queue.give_back_drained()
        raise


def _runs(frames: Iterable[Delivered]) -> Iterator[tuple[int, int]]:
    """Join adjacent frames: first byte, and byte after the last."""
    start = stop = 0
    for frame in frames:
        if frame.at != stop:
            if stop > start:
                yield start, stop
            start = frame.at
        stop = frame.end
    if stop > start:
        yield start, stop


def _in_journal(numbers: frozenset[int], about: dict[str, Any]) -> set[int]:
    """Return which of the unacknowledged entries are in the journal."""
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
_CHECK_S = 0.25
_SETTLE_S = 1.0
_GATHER_S, _GATHER_LARGE_S = 0.004, 0.001
_GATHER_BYTES = 1 << 17
_GATHER_SLOTS = 256
_SMALL_BYTES = 1024


def start_writer(path: str | Path, errors: ProcessOutput) -> ChildProcess:
    """Start a writer for the log of a status file; its errors go to `errors`.

    Raises `OSError` if the interpreter cannot be started.
    """
    return spawn(
        process_command("ataraxis.log.writer:main", str(path)),
        blocked=SIGNALS,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        process_group=None,
    )


def main(path: str) -> None:
    """Write a log, unless another writer does."""
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
            status.fail(describe_error(error))
        finally:
            status.unlock()
        if not is_left_behind(status):
            break
    # Exit without the interpreter's cleanup, which takes time.
    os._exit(0)


def describe_error(error: Exception) -> str:
    """Return an error in one line."""
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
    """Return whether an entry was put after the logger's end, before the writer's.

    The process that put it then checks for a writer (`LogQueue._restart_if_ended`), and
    the ending writer checks for entries: one of the two sees the other.
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
    """Remove the status of a log whose queue was unlinked."""
    about = status.about
    if not os.path.lexists(os.path.join(about["context"], about["queue"])):
        status.unlink()


def drain(
    status: LogStatus, queue: MemQ, sink: EntrySink, creator: ProcessWatch | None
) -> None:
    """Move frames from the queue to the sink; without a creator, until it is empty."""
    words, about = status.words, status.about
    checked = time.monotonic()
    quiet_since: float | None = None
    # Draining a few entries costs more than they do, and keeps putters that share the
    # CPUs from filling the queue.
    gathers = creator is not None and queue.buffer_count >= _GATHER_SLOTS
    watch = DiskWatch(
        Path(about["directory"]),
        about["low_disk_s"],
        status.warn,
        lambda: status.warn(None),
    )
    watch.check(0, is_forced=True)
    while True:
        is_last = creator is None or words[STATE] in (STOPPING, ENDED)
        if not is_last:
            queue.wait(_IDLE_S)  # stop() nudges
        entries, written = words[WRITTEN], words[WRITTEN_BYTES]
        has_some = sink.write_from(queue, 0)
        if has_some:
            quiet_since = None
        elif is_last:
            # A process may be putting, or may have died while putting.
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
        if creator is not None and (not has_some or now - checked > _CHECK_S):
            checked = now
            with suppress(OSError):  # a write will fail, too
                watch.check(words[WRITTEN_BYTES])
            if not is_last and creator.is_gone():
                words[STATE] = ENDED
                words[ATTENTION] = 1
