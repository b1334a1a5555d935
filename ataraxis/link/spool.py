"""`Spool`: frames of a stream that cannot wait in its ring; and which mirrors exist.

A spool is a directory, named by the stream's id, with files of a journal and a file of
what is remembered. Frames are in a file, and survive this process, before their slots
are given back; a file is removed once no mirror needs its frames. What a dead agent
left is opened as it is: of a frame that was cut off, the ring still has the whole one.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import os
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ataraxis._kernels import journal_scan
from ataraxis.errors import LayoutError, LoggerError, SpoolFull
from ataraxis.frame import HEADER_BYTES, crc32
from ataraxis.link.messages import DATA_SOURCE, StreamEnd
from ataraxis.log.journal.input import Entries, InputFile
from ataraxis.log.journal.page import PAGE, index_path, split_name
from ataraxis.log.journal.writer import JournalWriter
from ataraxis.log.modes import make_folder

PART_BYTES, LEAST_PART_BYTES = 1 << 26, 1 << 16
PADDING_BYTES = 64
MEMORY = "mirrors.json"
MOST_MEMORY = 1 << 22
_NAME = "spool"
_ID = re.compile(r"[0-9a-f]{8,64}")
_LIST = 4096
_CRC_AT = 60


class MirrorKey(NamedTuple):
    """What a mirror is known by, at the host of its stream."""

    host: str
    mirror: str


class HeldFrames(Protocol):
    """A ring's frames whose slots are held: `ataraxis._kernels.link.RingToBuffer`."""

    @property
    def first(self) -> int | None:
        """Number of the oldest held frame; of the next one without any."""

    @property
    def held(self) -> int:
        """Held frames."""

    @property
    def held_bytes(self) -> int:
        """Bytes of the held frames."""

    def spill(
        self, file: Any, source: int, labels: int, until: int
    ) -> tuple[int, int, int]:
        """Write frames before a number that were not written yet; they stay held.

        Returns frames, bytes and a status: OK, or what the file did not take.
        """


@dataclass(frozen=True)
class KnownMirror:
    """A mirror, as it is remembered."""

    next: int
    """Every frame before this number may be forgotten; it may be out of date."""
    on_spool_full: str = "wait"
    has_ended: bool = False


@dataclass(frozen=True)
class SpoolMemory:
    """What is remembered beside the frames."""

    stream: str = ""
    stream_id: str = ""
    labels: str = ""
    mirrors: dict[MirrorKey, KnownMirror] = field(default_factory=dict)
    end: StreamEnd | None = None
    slots: int = 0
    slot_bytes: int = 0


class Spool:
    """Frames of one stream on disk, in the order of their numbers.

    Parameters
    ----------
    directory : str or Path
        Of all spools of this host; created if missing.
    stream_id : str
        Id of the stream: its spool has a directory of its own.
    limit : int
        Most bytes of its files.

    Raises
    ------
    LoggerError
        The directory cannot be made.

    Notes
    -----
    One thread at a time. `append` writes; `read` is for the frames that are in a file.
    """

    def __init__(
        self, directory: str | os.PathLike[str], stream_id: str, limit: int
    ) -> None:
        self.directory = Path(directory) / directory_name(stream_id)
        self.stream_id, self._limit = stream_id, limit
        self._part_bytes = min(max(limit // 8, LEAST_PART_BYTES), PART_BYTES)
        self._parts: list[_Part] = []
        self._writer: JournalWriter | None = None
        self._is_dirty, self._dirty_until = False, 0
        self._remembered: Any = ()
        self._first = self._next = 0
        try:
            make_folder(Path(directory))
            make_folder(self.directory)
            self._open()
        except OSError as error:
            raise LoggerError(
                f"the spool {self.directory} cannot be opened: {error}; nothing was "
                "lost: make room, or name another directory in hosts.yaml"
            ) from error

    def _open(self) -> None:
        """Find the frames that an earlier agent left."""
        paths = []
        for path in self.directory.iterdir():
            own = split_name(path)
            if own is not None and own[0] == _NAME:
                paths.append((own[1], path))
        for _, path in sorted(paths):
            part = _Part.found(path)
            if part is None:  # it was begun, and its writer was killed
                path.unlink()
                index_path(path).unlink(missing_ok=True)
            else:
                self._parts.append(part)
        # By their frames: a writer takes the least number that is free.
        self._parts.sort(key=lambda part: part.first)
        if self._parts:
            self._first, self._next = self._parts[0].first, self._parts[-1].until

    # ---- what is here

    @property
    def first(self) -> int:
        """Number of the oldest frame; `next` without any."""
        return self._first

    @property
    def next(self) -> int:
        """Number after the newest frame that is in a file."""
        return self._next

    @property
    def limit(self) -> int:
        """Most bytes of its files."""
        return self._limit

    @property
    def nbytes(self) -> int:
        """Bytes of its files, without their indexes."""
        return sum(part.nbytes for part in self._parts)

    @property
    def oldest_until(self) -> int:
        """Number after the last frame of its oldest file: what dropping that costs."""
        return self._parts[0].until if self._parts else self._next

    # ---- frames

    def append(self, store: HeldFrames, until: int) -> int:
        """Write held frames before a number to files.

        Parameters
        ----------
        store : HeldFrames
            The ring; it knows which of its frames were written already.
        until : int
            Frames before this number are written.

        Returns
        -------
        int
            `next`: frames before it survive this process, and may be released.

        Raises
        ------
        SpoolFull
            The files have reached `limit`; frames up to `next` were written.
        LoggerError
            The disk is full or failed; frames up to `next` were written. The next call
            tries the others again.
        """
        if self._writer is not None and self._is_dirty:
            self._writer.flush()
            self._written(self._dirty_until)
        while (at := max(self._next, store.first or 0)) < until:
            each = PADDING_BYTES + store.held_bytes // max(store.held, 1)
            room = self._limit - self.nbytes - (PAGE if self._writer is None else 0)
            if room < each:
                raise SpoolFull(
                    f"{self.directory} has {self.nbytes} bytes and at most "
                    f"{self._limit} are allowed: repair the link, or allow more in "
                    "hosts.yaml"
                )
            writer = self._writing(at)
            most = min(room, self._part_bytes) // each
            self._dirty_until = min(until, at + max(most, 1))
            self._is_dirty = True
            batch = _Batch(store, self._dirty_until)
            writer.record_ring(cast(Any, batch), DATA_SOURCE, -1)
            writer.flush()
            self._written(self._dirty_until)
        return self._next

    def _writing(self, first: int) -> JournalWriter:
        """Return the writer of the newest file, or of one that begins now."""
        if self._writer is None:
            if self._first == self._next:
                self._first = self._next = first
            writer = JournalWriter(
                self.directory, _NAME, file_bytes=_NO_LIMIT,
                about={"stream": self.stream_id},
            )  # fmt: skip
            self._parts.append(_Part(writer.statistics().path, first, first))
            self._writer = writer
        return self._writer

    def _written(self, until: int) -> None:
        """Note that frames before a number are in the newest file."""
        assert self._writer is not None
        part = self._parts[-1]
        part.until = self._next = until
        part.nbytes = self._writer.statistics().nbytes
        self._is_dirty = False
        if part.nbytes >= self._part_bytes:
            self._end_part()

    def _end_part(self) -> None:
        """Close the newest file as it is: all that counts is in it."""
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None

    def read(self, sequence: int, buffer: Any, start: int) -> tuple[int, int]:
        """Copy whole frames, from a number on, as they are sent on a link.

        Parameters
        ----------
        sequence : int
            Of the first frame.
        buffer : writable bytes-like
            Filled from `start` on with as many frames as fit.
        start : int
            First byte.

        Returns
        -------
        end : int
            Where the frames end; `start`: the first one does not fit, or is not here.
        next : int
            Number of the first frame that was not copied; if none was, and it is larger
            than `sequence`: those before it are missing or damaged.
        """
        k = bisect.bisect_right(self._parts, sequence, key=lambda part: part.until)
        if k == len(self._parts):
            return start, sequence
        part = self._parts[k]
        if sequence < part.first:
            return start, part.first
        out = np.frombuffer(buffer, np.uint8)[start:]
        nbytes, after = part.read(sequence, out)
        return start + nbytes, after

    def trim(self, until: int) -> None:
        """Forget frames before a number, and remove files without others."""
        self._first = min(max(self._first, until), self._next)
        while self._parts and self._parts[0].until <= self._first:
            if len(self._parts) == 1 and self._writer is not None:
                if self._is_dirty:
                    return  # the ring counts what it has as written
                self._end_part()
            self._parts.pop(0).remove()

    # ---- what is remembered

    def recall(self) -> SpoolMemory:
        """Return what was remembered; nothing before the first `remember`.

        Raises `LoggerError` if it is there, and cannot be read: which mirrors need the
        frames is then unknown, and none may be forgotten.
        """
        path = self.directory / MEMORY
        try:
            memory = read_memory(self.directory)
        except OSError as error:
            raise LoggerError(f"{path} cannot be read: {error}") from error
        if memory is None and path.exists():
            raise LoggerError(
                f"{path} is damaged, so the mirrors of the stream are not known: if it "
                f"has none, remove the directory {self.directory}"
            )
        return memory or SpoolMemory()

    def remember(self, memory: SpoolMemory) -> None:
        """Replace what is remembered; raise `LoggerError` if it cannot be written."""
        tree = asdict(memory)
        tree["mirrors"] = [
            {"host": key.host, "mirror": key.mirror, **asdict(known)}
            for key, known in memory.mirrors.items()
        ]
        path = self.directory / MEMORY
        new = path.with_suffix(".new")
        try:
            with open(new, "w", encoding="utf-8", opener=_private) as file:
                json.dump(tree, file)
                file.flush()
                if memory.mirrors.keys() != self._remembered:
                    os.fsync(file.fileno())
            os.replace(new, path)
        except OSError as error:
            new.unlink(missing_ok=True)
            raise LoggerError(
                f"the mirrors of {memory.stream!r} cannot be noted in {path}: {error}; "
                "nothing was lost: make room"
            ) from error
        self._remembered = memory.mirrors.keys()

    # ---- the end

    def close(self) -> None:
        """Close the files; another `Spool` goes on with them."""
        self._end_part()
        for part in self._parts:
            part.close()

    def remove(self) -> None:
        """Close and remove everything: no mirror needs the stream any more."""
        self.close()
        self._parts.clear()
        self._first = self._next
        shutil.rmtree(self.directory, ignore_errors=True)

    def __repr__(self) -> str:
        return f"<Spool {self.first} to {self.next} in {self.directory}>"


@dataclass
class _Batch:
    """What a journal's writer calls, as it does a recorder's: the ring, and how far."""

    store: HeldFrames
    until: int

    def record(self, file: Any, source: int, labels: int) -> tuple[int, int, int]:
        return self.store.spill(file, source, labels, self.until)


class _Part:
    """One file of a spool."""

    def __init__(self, path: Path, first: int, until: int) -> None:
        self.path = path
        self.first, self.until = first, until
        self.nbytes = path.stat().st_size
        self._file: InputFile | None = None

    @classmethod
    def found(cls, path: Path) -> _Part | None:
        """Return a file that a dead agent left; None if it has no frames."""
        try:
            file = InputFile(path)
        except LayoutError:
            return None
        if not len(file):
            return None
        first, last = file.entries(0, 1)[0], file.entries(len(file) - 1, len(file))[0]
        part = cls(path, int(first["sequence"]), int(last["sequence"]) + 1)
        part._file = file
        return part

    def read(self, sequence: int, out: NDArray[np.uint8]) -> tuple[int, int]:
        """Copy frames; return their bytes, and the next number."""
        if self._file is None:
            self._file = InputFile(self.path)
        file = self._file
        table = self._entries(file, sequence)
        if not len(table):
            file.refresh()
            table = self._entries(file, sequence)
        is_good = table["state"] == journal_scan.GOOD
        numbers = table["sequence"].astype(np.int64)
        is_next = is_good & (numbers == sequence + np.arange(len(table)))
        count = len(table) if is_next.all() else int(np.argmin(is_next))
        if not count:
            later = numbers[is_good & (numbers > sequence)]
            return 0, int(later[0]) if len(later) else self.until
        sizes = table["bytes"][:count].astype(np.int64) + HEADER_BYTES
        ends = np.cumsum(sizes)
        count = int(np.searchsorted(ends, len(out), "right"))
        table = np.ascontiguousarray(table[:count])
        if count and journal_scan.check_entries(file.data, table.view("u1")):
            # What comes before the first damaged frame is sent, then it is lost.
            count = int(np.argmin(table["state"] == journal_scan.GOOD))
            if not count:
                return 0, sequence + 1
        if not count:
            return 0, sequence
        nbytes = int(ends[count - 1])
        _copy(file, table[:count], ends[:count] - sizes[:count], out[:nbytes])
        return nbytes, sequence + count

    def _entries(self, file: InputFile, sequence: int) -> Entries:
        """List entries from the one with a number on, or the one after it."""
        runs = file.data_runs
        k = int(np.searchsorted(runs["sequence"], sequence, "right")) - 1
        number = 0
        if k >= 0:
            first, count = int(file.starts[k]), int(runs["count"][k])
            number = first + min(sequence - int(runs["sequence"][k]), count)
            if number < first + count:
                entry = file.entries(number, number + 1)[0]
                if int(entry["sequence"]) != sequence:
                    table = file.entries(first, first + count)
                    number = first + int(np.searchsorted(table["sequence"], sequence))
        return file.entries(number, min(number + _LIST, len(file)))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        self.close()
        for path in (self.path, index_path(self.path)):
            path.unlink(missing_ok=True)


def _copy(
    file: InputFile,
    table: Entries,
    starts: NDArray[np.int64],
    out: NDArray[np.uint8],
) -> None:
    """Copy frames of a file without their padding, with headers for a link."""
    data = np.frombuffer(file.data, np.uint8)
    offsets = table["offset"].astype(np.int64)
    size = int(table["bytes"][0]) + HEADER_BYTES
    count = len(table)
    strides = np.diff(offsets)
    is_even = count > 2 and len(out) == count * size
    if is_even and (strides == strides[0]).all() and (np.diff(starts) == size).all():
        stride, first = int(strides[0]), int(offsets[0])
        block = data[first : first + stride * (count - 1)].reshape(count - 1, stride)
        out[:-size].reshape(count - 1, size)[:] = block[:, :size]
        out[-size:] = data[int(offsets[-1]) : int(offsets[-1]) + size]
    else:
        ends = [*starts[1:].tolist(), len(out)]
        for at, end, offset in zip(
            starts.tolist(), ends, offsets.tolist(), strict=True
        ):
            out[at:end] = data[offset : offset + end - at]
    # A CRC is linear: one XOR turns that with the file's seed into that without one.
    shift = crc32(bytes(_CRC_AT), file.seed) ^ crc32(bytes(_CRC_AT))
    own = np.frombuffer(shift.to_bytes(4, "little"), np.uint8)
    out[starts[:, None] + (_CRC_AT + np.arange(4))] ^= own


# ---- names, and what is remembered

_NO_LIMIT = 2**62


def directory_name(stream_id: str) -> str:
    """Return the name of a stream's spool: its id, or a hash of one that is not hex."""
    if _ID.fullmatch(stream_id):
        return stream_id
    return "x" + hashlib.sha256(stream_id.encode(errors="replace")).hexdigest()[:40]


def spools_of(directory: str | os.PathLike[str]) -> list[SpoolMemory]:
    """Return what the spools in a directory remember, oldest first.

    Streams that ended, and whose mirrors were not there: `Spool` opens each by its
    stream id. Directories without a memory that can be read are left out.
    """
    found = []
    try:
        paths = [path for path in Path(directory).iterdir() if path.is_dir()]
    except FileNotFoundError:
        return []
    for path in paths:
        memory = read_memory(path)
        if memory is not None and directory_name(memory.stream_id) == path.name:
            found.append(((path / MEMORY).stat().st_mtime_ns, memory))
    return [memory for _, memory in sorted(found, key=lambda pair: pair[0])]


def read_memory(directory: Path) -> SpoolMemory | None:
    """Read what a spool remembers; None if there is nothing, or it is damaged."""
    try:
        with open(directory / MEMORY, "rb") as file:
            text = file.read(MOST_MEMORY + 1)
    except FileNotFoundError:
        return None
    try:
        if len(text) > MOST_MEMORY:
            return None
        tree = json.loads(text)
        mirrors = {
            MirrorKey(str(m["host"]), str(m["mirror"])): KnownMirror(
                int(m["next"]), str(m["on_spool_full"]), bool(m["has_ended"])
            )
            for m in tree["mirrors"]
        }
        end = StreamEnd(**tree["end"]) if tree["end"] else None
        return SpoolMemory(
            str(tree["stream"]), str(tree["stream_id"]), str(tree["labels"]), mirrors,
            end, int(tree["slots"]), int(tree["slot_bytes"]),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
