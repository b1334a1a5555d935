"""Where a writer puts entries: npy files, or a journal."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ataraxis._kernels.journal_scan import survey
from ataraxis._kernels.journal_write import Haul
from ataraxis.errors import CorruptFrame, DataOverflow
from ataraxis.log.directory import EntryDirectory
from ataraxis.log.entries import SUFFIX, EntryKey
from ataraxis.log.notes import Delivered, Notes, delivered
from ataraxis.log.status import DONE, INODE, INTENT, STAMP, WRITTEN, WRITTEN_BYTES

if TYPE_CHECKING:
    from ataraxis.log.journal_writer import JournalWriter
    from ataraxis.log.status import LogStatus
    from ataraxis.stream import MemQ

BUFFER_BYTES = 4 << 20
LEASE_BYTES = 2 << 20
FILES_BYTES = 256 << 10  # of files of their own: a fraction of a second


class Sink(Protocol):
    """Takes frames from a queue; `status` says how far it is."""

    def draw(self, queue: MemQ, timeout: float = 0) -> bool:
        """Write what is in the queue and acknowledge it; False if there was nothing.

        What is acknowledged is safe, by the promise of the log.
        """

    def close(self) -> None:
        """Finish."""


class Bowl:
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


def open_sink(status: LogStatus, queue: MemQ) -> Sink:
    """Open what the status describes, to go on where the writer before was."""
    about = status.about
    notes = Notes(status, queue.had_before())
    if about["layout"] == "journal":
        return JournalSink(status, about, notes)
    return NpySink(status, about, notes)


class NpySink:
    """Write each entry as a file of its own."""

    def __init__(self, status: LogStatus, about: dict[str, Any], notes: Notes) -> None:
        self._status = status
        self._durable = about["durability"] == "disk"
        self._notes = notes
        self._entries = EntryDirectory(about["directory"], before=self._intend)
        self._bowl = Bowl(self._take, FILES_BYTES)

    def _intend(self, descriptor: int) -> None:
        """Note the file that is about to get a name."""
        self._status.words[INODE] = os.fstat(descriptor).st_ino

    def draw(self, queue: MemQ, timeout: float = 0) -> bool:
        """Write what is in the queue, and acknowledge it."""
        with _given_back(queue):
            if not self._bowl.draw(queue, timeout):
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


class JournalSink:
    """Write frames into a journal as they are.

    A frame keeps its number in the queue as its sequence.
    """

    def __init__(self, status: LogStatus, about: dict[str, Any], notes: Notes) -> None:
        from ataraxis.log.journal_writer import JournalWriter

        self._status = status
        self._numbers = np.empty(len(status.numbers), np.uint64)
        self._notes = notes
        self._notes.written = _already_there(self._notes.numbers, about)
        self._journal: JournalWriter = JournalWriter(
            about["directory"],
            about["queue"],
            durability=about["durability"],
            about={"logger": about["name"]},
        )
        self._bowl = Bowl(self._take)
        self._haul: Haul | None = None
        self._is_large_next = False

    def draw(self, queue: MemQ, timeout: float = 0) -> bool:
        """Write what is in the queue, and acknowledge it."""
        with _given_back(queue):
            if self._is_large_next or self._notes.written:
                # One of a segment of its own, or some that a writer before had.
                self._is_large_next = False
                has_some = self._bowl.draw(queue, timeout)
            else:
                has_some = self._record(queue, timeout)
        if has_some:
            queue.acknowledge_drained()
            self._notes.end()
        return has_some

    def _record(self, queue: MemQ, timeout: float) -> bool:
        """Write frames from where they lie."""
        haul = self._haul = self._haul or Haul(queue)
        count, size, self._is_large_next = haul.lease(
            self._numbers, LEASE_BYTES, timeout
        )
        if count:
            self._notes.begin(self._numbers[:count])
            self._journal.haul(haul)
            self._told(count, size)
        return count > 0 or self._is_large_next

    def _told(self, count: int, size: int) -> None:
        """Bring it into the file; count it."""
        self._journal.flush()
        words = self._status.words
        words[WRITTEN] += count
        words[WRITTEN_BYTES] += size

    def _take(self, data: memoryview) -> None:
        """Write the frames, in the order they were put."""
        count, size, end = survey(data, self._numbers)
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
        self._journal.close()


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
    from ataraxis.log.journal_reader import JournalReader

    try:
        reader = JournalReader(Path(about["directory"]), about["queue"])
    except FileNotFoundError:
        return set()
    with reader:
        sequence = reader.select().sequence
    wanted = np.fromiter(numbers, np.uint64, len(numbers))
    return set(np.intersect1d(sequence, wanted).tolist())
