"""Inspector: statistics of a stream, read without taking part in it."""

from __future__ import annotations

import dataclasses
import json
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from ataraxis._kernels.memory import byte_held
from ataraxis._kernels.snapshot import control_bytes, stride_of
from ataraxis.clock import now_ns
from ataraxis.errors import LayoutError
from ataraxis.labels import Labels
from ataraxis.shm import files
from ataraxis.shm.context import Context, ContextLike, checked_name
from ataraxis.shm.header import Kind, SegmentHeader
from ataraxis.shm.listing import Listed, list_segments
from ataraxis.stream import statistics
from ataraxis.stream.endpoint import RESUMABLE, plain_name
from ataraxis.stream.statistics import (
    ReaderStatistics,
    StreamStatistics,
    stream_statistics,
)

# ---- a copy of a stream's control words

# Byte offsets of the words in the control block of layout.h; a test compares them.
STREAM = {
    "slots": 0, "stride": 8, "capacity": 16, "control_stride": 24, "participants": 32,
    "flags": 36, "tail": 128, "sent": 256, "sent_bytes": 264, "last_ns": 272,
    "stalled_ns": 280, "stalled_since_ns": 288, "refused": 296, "skipped": 304,
    "gaps": 312, "absent": 320, "producers": 384, "readers": 512, "durables": 640,
    "drained": 648, "over": 656,
}  # fmt: skip
READER = {
    "cursor": 0, "policy": 8, "owner": 12, "received": 16, "dropped": 24, "joined": 32,
    "detached_ns": 40, "timeout_ns": 48, "last_ns": 56, "name": 64,
}  # fmt: skip
STREAM_BYTES, READER_BYTES, DURABLES = 1280, 128, 16
COUNTS = (
    "tail", "sent", "sent_bytes", "last_ns", "stalled_ns", "stalled_since_ns",
    "refused", "skipped", "gaps", "absent", "drained",
)  # fmt: skip
_GATING, _DETACHED = 1, 2
_TRIES = 8
Entry: TypeAlias = tuple[Any, ...]


class Control:
    """A copy of a control block, which does not change any more.

    `words` are 64-bit, up to the end of the readers' lines; `names` are those in the
    lines.
    """

    def __init__(self, words: list[int], names: list[bytes], participants: int) -> None:
        self._words = words
        self._names = names
        self._participants = participants

    def word(self, name: str) -> int:
        """Return a 64-bit word of the stream."""
        return self._words[STREAM[name] // 8]

    def half(self, name: str) -> int:
        """Return a 32-bit word of the stream."""
        return _half(self._words, STREAM[name])

    def members(self, name: str) -> list[int]:
        """List the participants whose bit is set."""
        first = STREAM[name] // 8
        return [
            slot
            for slot in range(self._participants)
            if self._words[first + slot // 64] >> slot % 64 & 1
        ]

    def readers(self, is_alive: Callable[[int], bool]) -> list[Entry]:
        """List the live readers without a durable name."""
        return [
            self._entry(slot, slot, False)
            for slot in self.members("readers")
            if is_alive(slot)
        ]

    def durables(self, is_alive: Callable[[int], bool]) -> list[Entry]:
        """List the durable readers, attached or not."""
        found = []
        for k in range(DURABLES):
            if not self.word("durables") >> k & 1:
                continue
            line = self._participants + k
            owner = _half(self._words, self._start(line) + READER["owner"])
            slot = owner - 1 if 0 < owner <= self._participants else None
            entry = self._entry(line, slot, True)
            if entry[2] == _GATING and (slot is None or not is_alive(slot)):
                # Dead, and no participant has noticed yet: detached since now.
                entry = (None, True, _DETACHED, *entry[3:8], 1 << 63, *entry[9:])
            found.append(entry)
        return found

    def _start(self, line: int) -> int:
        return STREAM_BYTES + line * READER_BYTES

    def _entry(self, line: int, slot: int | None, is_durable: bool) -> Entry:
        """Return a reader's line in the order of `snapshot.readers`."""
        start = self._start(line)
        cursor, received, dropped, joined, detached, timeout = (
            self._words[(start + READER[name]) // 8]
            for name in (
                "cursor", "received", "dropped", "joined", "detached_ns", "timeout_ns"
            )
        )  # fmt: skip
        policy = _half(self._words, start + READER["policy"])
        name = self._names[line].split(b"\0")[0]
        return (
            slot, is_durable, cursor & 3, cursor >> 2, policy, received, dropped,
            joined, detached, timeout, name,
        )  # fmt: skip


def _half(words: list[int], offset: int) -> int:
    """Return a 32-bit word of a little-endian file."""
    return words[offset // 8] >> offset % 8 * 8 & 0xFFFFFFFF


# ---- the inspector


class Inspector:
    """Read the statistics of a stream without taking part in it.

    Parameters
    ----------
    stream_name : str or bytes
        Its name in the context; ``mx://`` in front is taken off.
    context : Context, str, Path or None
        The directory it lives in.

    Notes
    -----
    Opens the file read-only for each call. It takes no participant slot and no lock,
    writes nothing and wakes nothing.

    Examples
    --------
    >>> from ataraxis.stream import Producer
    >>> from ataraxis.stream.inspector import Inspector
    >>> with Producer("doc_inspector", 64, 4) as stream:
    ...     _ = stream.send(b"a")
    ...     Inspector("doc_inspector").statistics().sent
    ...     stream.unlink()
    1
    """

    def __init__(self, stream_name: str | bytes, context: ContextLike = None) -> None:
        self._name = checked_name(plain_name(stream_name))
        self._context = Context.of(context)
        self.statistics()

    @property
    def name(self) -> str:
        """Name of the stream in its context."""
        return self._name

    def statistics(self) -> StreamStatistics:
        """Read the control words.

        Producers and readers that died do not count, cleaned up or not; a durable
        reader that died is detached.

        Raises
        ------
        SegmentNotFound
            The name is gone.
        LayoutError
            The file is damaged, or is not a stream.
        """
        found: StreamStatistics = self._read(read_stream)
        return found

    def stream_id(self) -> str:
        """Return the id of the stream that has the name now, as `Consumer.stream_id`.

        Raises
        ------
        SegmentNotFound, LayoutError
            As `statistics`.
        """
        return str(self._read(lambda found, header: header.uuid.hex()))

    def _read(self, read: Callable[[files.Found, SegmentHeader], Any]) -> Any:
        directory = self._context.open_directory()
        try:
            with files.find(directory, self._context, self._name, os.O_RDONLY) as found:
                size = found.status.st_size
                header = SegmentHeader.unpack(found.page, size, found.path)
                if header.kind is not Kind.STREAM:
                    raise LayoutError(
                        f"{found.path} holds a {header.kind.name.lower()}, not a stream"
                    )
                return read(found, header)
        finally:
            os.close(directory)

    def control_snapshot(self, timeout: float = 0.5) -> str:
        """Return the control words as JSON text (MomentumX); never waits."""
        return json.dumps(dataclasses.asdict(self.statistics()))

    def __repr__(self) -> str:
        return f"<Inspector {self._name!r}>"


def inspect(context: ContextLike = None) -> list[Listed]:
    """Describe every segment of a context, sorted by name.

    The `content` of a stream is its `StreamStatistics`, of a queue its
    `QueueStatistics`.
    """
    readers = {Kind.STREAM: read_stream, Kind.QUEUE: statistics.read_queue}
    return list_segments(context, readers)


def read_stream(found: files.Found, header: SegmentHeader) -> StreamStatistics:
    """Read the stream in an open file with a valid header; or raise `LayoutError`."""
    g, status = header.geometry, found.status
    readers = g.participants + DURABLES
    needed = STREAM_BYTES + readers * READER_BYTES
    if needed > g.control_bytes:
        raise _damaged(found, f"{g.control_bytes} bytes of control words")
    if status.st_blocks * 512 < status.st_size:
        raise _damaged(found, f"{status.st_blocks * 512} bytes backed by memory")
    control = _copy(found, g.control, needed, g.participants)
    slots, capacity, stride = (control.word(w) for w in ("slots", "capacity", "stride"))
    if (
        control.half("participants") != g.participants
        or not 0 < slots <= g.payload_bytes
        or capacity > g.payload_bytes
        or stride != stride_of(capacity)
        or slots * stride != g.payload_bytes
        or control_bytes(slots, g.participants) != g.control_bytes
    ):
        raise _damaged(found, f"{slots} slots of {capacity} bytes")

    def is_alive(slot: int) -> bool:
        return byte_held(found.descriptor, slot) != 0

    sending = [slot for slot in control.members("producers") if is_alive(slot)]
    counts = {name: control.word(name) for name in COUNTS}
    if counts["gaps"]:
        labels = Labels.from_json(os.pread(found.descriptor, g.labels_bytes, g.labels))
        for _ in range(_TRIES):  # a gap is counted just before its frame
            again = _copy(found, g.control, needed, g.participants)
            if again.word("sent") == counts["sent"]:
                break
            control, counts = again, {name: again.word(name) for name in COUNTS}
        gaps, sent = counts["gaps"], counts["sent"]
        counts["gaps"] = statistics.device_gaps(gaps, sent, labels)
    if not sending:
        counts["stalled_since_ns"] = 0  # the producer that waited is dead
    entries = [*control.readers(is_alive), *control.durables(is_alive)]
    flags = control.half("flags")
    is_over = not flags & RESUMABLE or control.word("over") != 0
    return stream_statistics(
        os.path.basename(found.path),
        (slots, capacity, flags),
        tuple(counts.values()),
        len(sending),
        entries,
        is_ended=not sending and is_over,
    )


def _copy(found: files.Found, at: int, needed: int, participants: int) -> Control:
    """Copy the first `needed` bytes of the control block at `at`, through a map."""
    start = at - at % mmap.ALLOCATIONGRANULARITY
    with mmap.mmap(
        found.descriptor,
        at + needed - start,
        flags=mmap.MAP_SHARED,
        prot=mmap.PROT_READ,
        offset=start,
    ) as mapped:
        whole = memoryview(mapped)[at - start :]
        # Word by word: a copy of the whole block could tear a word.
        cells = whole.cast("Q")
        words = cells.tolist()
        names = [
            bytes(whole[at : at + 64])
            for at in range(STREAM_BYTES + READER["name"], needed, READER_BYTES)
        ]
        cells.release()
        whole.release()
    return Control(words, names, participants)


def _damaged(found: files.Found, what: str) -> LayoutError:
    return LayoutError(
        f"{found.path}: its control block does not fit the file ({what}): it was "
        "damaged or copied; remove it if nothing uses it"
    )


# ---- rates of streams, from two readings of their control words


@dataclass(frozen=True)
class Metered:
    """One stream in a reading."""

    name: str
    """Its name in the context."""
    problem: str
    """Why it cannot be read, or ''; the rest is None then."""
    participants: tuple[str, ...] = ()
    """Program and pid of each participant."""
    stream: StreamStatistics | None = None
    """Its statistics."""
    frames_hz: float | None = None
    """Frames per second since the last reading; None in the first."""
    bytes_hz: float | None = None
    """Payload bytes per second."""
    stalled_share: float | None = None
    """Share of the time that producers waited for readers, 0 to 1."""

    @property
    def readers(self) -> tuple[ReaderStatistics, ...]:
        """Its readers."""
        return self.stream.readers if self.stream is not None else ()


@dataclass(frozen=True)
class MeterReading:
    """All streams of a context, and their rates since the last reading."""

    time_ns: int
    """Time of the reading, monotonic ns."""
    interval_s: float | None
    """Time since the last reading, s; None in the first."""
    streams: tuple[Metered, ...]
    """By name; a file that cannot be read is listed with its problem."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, JSON-able."""
        return dataclasses.asdict(self)


class Meter:
    """Read the streams of a context repeatedly, without taking part in them.

    Examples
    --------
    >>> from ataraxis.stream import Producer
    >>> from ataraxis.stream.inspector import Meter
    >>> stream = Producer("doc_meter", 64, 4)
    >>> meter = Meter()
    >>> before = meter.read()
    >>> _ = stream.send(b"a")
    >>> [m.frames_hz > 0 for m in meter.read().streams if m.name == "doc_meter"]
    [True]
    >>> stream.unlink()
    """

    def __init__(self, context: ContextLike = None) -> None:
        self._context = Context.of(context)
        self._before: dict[str, tuple[int, StreamStatistics]] = {}
        self._last_ns: int | None = None

    def read(self) -> MeterReading:
        """Read all streams; rates are those since the last call."""
        last, now = self._last_ns, now_ns()
        streams, seen = [], {}
        for listed in inspect(self._context):
            if listed.problem:
                streams.append(Metered(listed.name, listed.problem))
                continue
            if listed.kind != "stream":
                continue
            read_ns = now_ns()
            stream: StreamStatistics = listed.content
            seen[listed.uuid] = read_ns, stream
            metered = Metered(listed.name, "", listed.participants, stream)
            before_ns, before = self._before.get(listed.uuid, (read_ns, stream))
            seconds = (read_ns - before_ns) * 1e-9
            if seconds > 0:
                share = (stream.stalled_s - before.stalled_s) / seconds
                metered = dataclasses.replace(
                    metered,
                    frames_hz=max(stream.sent - before.sent, 0) / seconds,
                    bytes_hz=max(stream.sent_bytes - before.sent_bytes, 0) / seconds,
                    stalled_share=min(max(share, 0.0), 1.0),
                )
            streams.append(metered)
        self._before, self._last_ns = seen, now
        interval = None if last is None else (now - last) * 1e-9
        return MeterReading(now, interval, tuple(streams))
