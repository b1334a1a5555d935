"""Where a writer puts entries: npy files, or a journal."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ataraxis._kernels.haul import OTHER, Haul
from ataraxis._kernels.package import survey
from ataraxis.errors import CorruptFrame, DataOverflow
from ataraxis.frame import Frame
from ataraxis.log.directory import EntryDirectory
from ataraxis.log.entries import SUFFIX, EntryKey
from ataraxis.log.notes import BLOCK, Delivered, Notes, delivered
from ataraxis.log.status import DONE, INODE, INTENT, ROW, STAMP, WRITTEN, WRITTEN_BYTES

if TYPE_CHECKING:
    from ataraxis.log.journal_writer import JournalWriter
    from ataraxis.log.status import LogStatus
    from ataraxis.stream import MemQ

_ROW_BITS = 16


BUFFER_BYTES = 4 << 20
LEASE_BYTES = 2 << 20


class Sink(Protocol):
    """Takes frames from a queue; `status` says how far it is."""

    def draw(self, queue: MemQ, timeout: float) -> bool:
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
    """

    def __init__(self, take: Callable[[memoryview], None]) -> None:
        self._take = take
        self._buffer = bytearray()

    def draw(self, queue: MemQ, timeout: float) -> bool:
        """Drain and take; False if there was nothing. The caller acknowledges."""
        size = len(self._buffer) or BUFFER_BYTES
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


def open_sink(status: LogStatus) -> Sink:
    """Open what the status describes."""
    about = status.about
    if about["layout"] == "journal":
        return JournalSink(status, about)
    return NpySink(status, about)


class NpySink:
    """Write each entry as a file of its own."""

    def __init__(self, status: LogStatus, about: dict[str, Any]) -> None:
        self._status = status
        self._durable = about["durability"] == "disk"
        self._notes = Notes(status)
        self._entries = EntryDirectory(about["directory"], before=self._intend)
        self._bowl = Bowl(self._take)

    def _intend(self, descriptor: int) -> None:
        """Note the file that is about to get a name."""
        self._status.words[INODE] = os.fstat(descriptor).st_ino

    def draw(self, queue: MemQ, timeout: float) -> bool:
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
                words[INTENT] = 0
                words[DONE] += 1
        if self._durable:
            self._entries.sync()

    def _write(self, frame: Delivered) -> None:
        """Write the rows of a frame that are not there yet."""
        words, row = self._status.words, 0
        size = len(frame.payload) // frame.rows if frame.rows else 0
        if frame.number == self._notes.intent:
            row = self._notes.row
            row += self._is_there(frame.source, self._notes.stamp, self._notes.inode)
        words[ROW] = row
        while row < frame.rows:
            payload = frame.payload[row * size : (row + 1) * size]
            stamp = (frame.stamp + row * frame.step) % 2**64
            words[STAMP] = stamp
            words[INODE] = 0
            words[INTENT] = 1
            self._entries.write(frame.source, stamp, payload, durable=self._durable)
            row += 1
            words[ROW] = row
            words[INODE] = 0
            words[WRITTEN] += 1
            words[WRITTEN_BYTES] += size

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
    """Write frames into a journal: as they are, blocks row by row.

    A frame keeps its number in the queue as its sequence; of a block, the rows count
    from ``2**63 + number * 2**16``.
    """

    def __init__(self, status: LogStatus, about: dict[str, Any]) -> None:
        from ataraxis.log.journal_writer import JournalWriter

        self._status = status
        self._numbers = np.empty(len(status.numbers), np.uint64)
        self._notes = Notes(status)
        self._there = _rows_there(self._notes.numbers, about)
        self._notes.written = set(self._there)
        self._journal: JournalWriter = JournalWriter(
            about["directory"],
            about["queue"],
            durability=about["durability"],
            about={"logger": about["name"]},
        )
        self._bowl = Bowl(self._take)
        self._haul: Haul | None = None
        self._is_large_next = False

    def draw(self, queue: MemQ, timeout: float) -> bool:
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
        count, rows, size, self._is_large_next = haul.lease(
            self._numbers, LEASE_BYTES, timeout
        )
        if count:
            self._notes.begin(self._numbers[:count])
            while self._journal.haul(haul) == OTHER:
                other = haul.other()
                assert other is not None
                self._write_block(next(delivered(memoryview(other))))
            self._told(rows, size)
        return count > 0 or self._is_large_next

    def _told(self, rows: int, size: int) -> None:
        """Bring it into the file; count it."""
        self._journal.flush()
        words = self._status.words
        words[WRITTEN] += rows
        words[WRITTEN_BYTES] += size

    def _take(self, data: memoryview) -> None:
        """Write the frames, in the order they were put."""
        count, rows, size, has_blocks, end = survey(data, self._numbers)
        if end != len(data):
            raise CorruptFrame(f"no frame begins at byte {end} of what was drained")
        self._notes.begin(self._numbers[:count])
        if has_blocks or self._notes.written:
            for start, stop, part in _runs(list(delivered(data)), self._there):
                if part.is_block:
                    self._write_block(part)
                else:
                    self._journal.append(data[start:stop])
        else:
            self._journal.append(data)
        self._told(rows, size)

    def _write_block(self, part: Delivered) -> None:
        """Write the rows of a block that are not there yet."""
        frame = Frame.from_buffer(part.frame)
        first = self._there.get(part.number, 0)
        rows = frame.array[first:]
        stamps = np.uint64(part.stamp) + np.arange(
            first, part.rows, dtype=np.uint64
        ) * np.uint64(part.step)
        if len(rows):
            self._journal.log_block(
                part.source,
                rows,
                time_ns=frame.time_ns,
                sequence=BLOCK | part.number << _ROW_BITS,
                device_time=stamps,
            )

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


def _runs(
    frames: list[Delivered], there: dict[int, int]
) -> Iterator[tuple[int, int, Delivered]]:
    """Join neighbours that are written in one call: first byte, byte after, first."""
    run: tuple[int, int, Delivered] | None = None
    for frame in frames:
        if frame.number in there and not frame.is_block:
            continue
        if run is not None:
            start, stop, first = run
            if stop == frame.at and not (frame.is_block or first.is_block):
                run = start, frame.end, first
                continue
            yield run
        run = frame.at, frame.end, frame
    if run is not None:
        yield run


def _rows_there(numbers: frozenset[int], about: dict[str, Any]) -> dict[int, int]:
    """Find how many rows of the last, unacknowledged batch are in the journal."""
    found: dict[int, int] = {}
    if not numbers:
        return found
    from ataraxis.log.journal_reader import JournalReader

    try:
        reader = JournalReader(Path(about["directory"]), about["queue"])
    except FileNotFoundError:
        return found
    with reader:
        sequence = reader.select().sequence
    is_row = sequence >= BLOCK
    blocks = (sequence[is_row] - np.uint64(BLOCK)) >> np.uint64(_ROW_BITS)
    for number in np.concatenate((sequence[~is_row], blocks)):
        if int(number) in numbers:
            found[int(number)] = found.get(int(number), 0) + 1
    return found
