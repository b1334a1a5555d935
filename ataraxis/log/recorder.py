"""Recorder: streams to disk, each frame of each."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ataraxis._kernels.consumer import OK
from ataraxis._kernels.journal_write import (
    DAMAGED,
    EMPTY,
    ENDED,
    LAPPED,
    RecordKernel,
    RingToFile,
)
from ataraxis.errors import (
    AtaraxisError,
    LayoutError,
    LoggerError,
    StreamUnavailable,
)
from ataraxis.log.account import REFUSED
from ataraxis.log.disk_watch import DiskWatch, LowDisk
from ataraxis.log.journal.input import InputFile, leave_out_repeated
from ataraxis.log.journal.page import Gap, files_of
from ataraxis.log.journal.reader import JournalReader
from ataraxis.log.journal.writer import JournalWriter
from ataraxis.log.modes import make_folder
from ataraxis.shm.context import Context, ContextLike
from ataraxis.shm.thread import Latch, Thread
from ataraxis.stream import Consumer
from ataraxis.stream.announcement import Announcement
from ataraxis.stream.inspector import Inspector

# ---- recording: one stream into one journal, by a thread, without a miss

OVERTAKEN = "overwritten before they were recorded"
UNSEEN = "sent before the recorder had joined"
SLICE_S = 0.2
RETRY_S = 0.2
LINGER_S = 0.5
LOOK_S = 0.1
SHORT_S = 0.02
SYNC_S = 0.5
SILENT_S = 5.0
"""A disk that has not answered for so long is said not to, s."""
STUCK_S = 60.0
"""`stop` waits so long for a disk that does not answer, s."""


@dataclass(frozen=True)
class RecordingStatistics:
    """How the recording of one stream goes."""

    stream: str
    """Its name."""
    source: int
    """Its number in the directory."""
    frames: int
    """Recorded since this recorder began."""
    nbytes: int
    """Of these frames."""
    lost: int
    """Frames counted missing; each is in a gap record."""
    skipped: int
    """Frames that an earlier recorder had written already."""
    is_recording: bool
    """Whether it goes on; False at the end of the stream, after `stop` or a failure."""
    error: str
    """What keeps it from writing now; empty if nothing does."""
    had_ended: bool = False
    """Whether the stream had ended before: these are frames that it left."""


@dataclass(frozen=True)
class Past:
    """What is on disk of a stream already."""

    expected: int | None
    """First sequence that is not; None: nothing is there."""
    refused: int
    """Frames that were counted as given up by the producer."""
    said: dict[str, Any] = field(default_factory=dict)
    """What its first recorder said of the stream."""


class ActiveRecording:
    """Record one stream; `Recorder` makes them.

    Parameters
    ----------
    consumer : Consumer
        Durable, of this recording alone. Closed at the end.
    journal : JournalWriter
        Closed at the end.
    source : int
        The stream's number.
    on_loss : callable or None
        Called with each `Gap`, from the thread.
    on_error : callable or None
        Called with the `LoggerError` when writing begins to fail, from the thread.
    on_bytes : callable
        Called with the bytes recorded so far.
    past : Past
        Where to go on.
    open_consumer, open_journal : callable
        Open them once more, under the same names.
    is_whole : bool
        It was to be recorded from its first frame on: what was sent before the recorder
        joined is missing.
    refused : int
        Frames that had been given up before it joined.
    """

    def __init__(
        self,
        consumer: Consumer,
        journal: JournalWriter,
        source: int,
        *,
        past: Past,
        on_loss: Callable[[Gap], object] | None,
        on_error: Callable[[LoggerError], object] | None,
        on_bytes: Callable[[], object],
        open_consumer: Callable[[], Consumer],
        open_journal: Callable[..., JournalWriter],
        is_whole: bool = False,
        refused: int = 0,
    ) -> None:
        self._open_consumer, self._open_journal = open_consumer, open_journal
        self.consumer, self.journal, self.source = consumer, journal, source
        self.name = journal.name
        self.failure: LoggerError | None = None
        """What keeps it from writing."""
        self._on_loss, self._on_error, self._on_bytes = on_loss, on_error, on_bytes
        self._ring_to_file = RingToFile(consumer, past.expected)
        if past.said:
            refused = int(past.said.get("refused", 0)) + past.refused
        elif is_whole:
            refused = 0
        self._refused = refused
        self._past, self._is_whole = past, is_whole
        self._has_joined = self._is_away = self._is_described = False
        self._passed = self._drawn = 0
        # The ring counts on for a durable reader that comes back in time.
        self._was_kept = consumer.received_count > 0
        self._dropped = consumer.dropped_count
        self._looked = self._stopped = self._synced = 0.0
        self._turned = time.monotonic()
        """When the disk last answered; it is asked every `SLICE_S` or more often."""
        self._safe = past.expected
        """First sequence that is not known to be safe."""
        self._last_sent: int | None = None
        self.frames = self.nbytes = self.lost = self._skipped = 0
        self.had_ended = consumer.is_ended and not self._was_kept
        """Whether the stream was over before this recorder came."""
        self._said: dict[str, Any] = {
            **({"had_ended": True} if self.had_ended else {}),
            "stream": consumer.stream_id,
            "is_shared": consumer.is_shared,
            "stalled_ns": self._stalled_ns(),
            "refused": refused - past.refused,
            **{k: past.said[k] for k in ("joined", "late") if k in past.said},
        }
        self._describe()
        journal.flush()
        self.unsaved = range(0)
        """Sequences that are in no file, after `release`."""
        self._is_patient = False
        self._stop, self._release = Latch(), Latch()
        self._thread = Thread(self._run, f"ataraxis-record-{self.name}")
        try:
            self._thread.start()
        except BaseException:
            # Nobody has it yet who could end it.
            self._stop.set()
            self._thread.join()
            raise

    def _describe(self) -> None:
        labels = self.consumer.labels if self.consumer.is_typed else None
        self.journal.describe(self.source, self.name, labels, **self._said)
        self._labels = -1 if labels is None else self.journal.labels_id(labels)
        self._is_described = True

    def _stalled_ns(self) -> int:
        """Return what producers have waited for readers, as the ring itself counts."""
        return round(self.consumer.statistics().stalled_s * 1e9)

    # ---- the thread

    def _run(self) -> None:
        try:
            while self._record() and not self._complete():
                pass  # what the disk has lost is read from the ring again
        except Exception as error:
            self.failure = LoggerError(
                f"recording of {self.name!r} ended: {error!r}; what was not written "
                "stays in the ring"
            )
        finally:
            self._finish()

    def _record(self) -> bool:
        """Record until the stream ends, or `stop`; False: not all, it is given up."""
        while True:
            self._turned = time.monotonic()
            # Asked before trying, so that a stop is followed by one more try.
            was_stopped = self._stop.is_set()
            moved = self._step()
            if was_stopped and self._may_end(moved):
                return self.failure is None
            if moved or was_stopped or self.failure is not None:
                continue
            if self._ring_to_file.wait(SLICE_S) == ENDED:
                return True

    def _may_end(self, moved: int) -> bool:
        """Whether all is recorded, or what is not is given up."""
        if self.failure is not None:
            return not self._is_patient or self._release.is_set()
        return self._is_done(moved) or self._release.is_set()

    def _is_done(self, moved: int) -> bool:
        """Whether all that was sent before `stop` is recorded."""
        if (self._ring_to_file.expected or 0) < (self._last_sent or 0):
            # Somebody is in the middle of a frame, or nothing is left after all.
            time.sleep(0 if moved else 0.001)
            return not moved and not self.consumer.has_next
        # Of several producers' frames some may be behind: look until there are none.
        return not moved or time.monotonic() > self._stopped + LINGER_S

    def _step(self) -> int:
        """Record what is there now, and give its slots back; how many frames."""
        frames = 0
        try:
            if self._is_away:
                self._rejoin()
            if not self._is_described:
                self._describe()
            if not self._has_joined and not self._join():
                self._look()
                self.failure = None
                return 0
            frames, nbytes, status = self.journal.record_ring(
                self._ring_to_file, self.source, self._labels
            )
            self._drawn += nbytes
            if status == LAPPED:
                self._lose(
                    self._ring_to_file.expected or 0,
                    self._ring_to_file.accept(),
                    OVERTAKEN,
                )
                frames = max(frames, 1)
            if status == EMPTY or time.monotonic() - self._looked > LOOK_S:
                self._look()
            if self._is_due():
                self._make_safe()
            if status == DAMAGED:
                self._ring_to_file.complain()
        except LoggerError as error:
            self._fail(error)
            return 0
        self.failure = None
        if frames:
            self._on_bytes()  # looks at the disk
        return frames

    def _is_due(self) -> bool:
        """Whether what was taken is to be made safe now; syncing takes its time."""
        if self.journal.durability != "disk" or self._stop.is_set():
            return True
        is_much = self._ring_to_file.held * 4 >= self.consumer.buffer_count
        return is_much or time.monotonic() - self._synced > SYNC_S

    def _make_safe(self) -> None:
        """Bring what was taken into the file, or to the disk; give its slots back."""
        if not self._ring_to_file.held:
            return
        # Not released before: a slot that was given back is gone.
        if self.journal.durability == "disk":
            self.journal.sync()
        else:
            self.journal.flush()
        self._count(self._ring_to_file.held)
        self._ring_to_file.release()
        self._safe, self._synced = self._ring_to_file.expected, time.monotonic()

    def _count(self, held: int) -> None:
        """Count frames that were taken as recorded, but for those that were there."""
        self.frames += max(held - (self._ring_to_file.skipped - self._passed), 0)
        self._passed = self._ring_to_file.skipped
        self.nbytes, self._drawn = self.nbytes + self._drawn, 0

    def _begin_again(self) -> None:
        """Go on in a new file with all that was not known to be on the disk.

        The system may have dropped the pages that could not be synced, and say nothing
        the next time. The ring has the frames still: they are read from it again, as
        after a death.
        """
        new = self._open_journal(about={"again": self.journal.on_disk()})
        self.journal.abandon()
        self.journal = new
        del (
            self._ring_to_file,
            self.consumer,
        )  # dropped, not closed: the ring keeps them
        self._is_away = True

    def _rejoin(self) -> None:
        """Read the ring from the first frame on that is not known to be safe."""
        try:
            self.consumer = self._open_consumer()
        except (AtaraxisError, OSError) as error:
            raise LoggerError(
                f"recording of {self.name!r}: its stream cannot be read again: {error}"
            ) from error
        self._ring_to_file, self._passed, self._drawn = (
            RingToFile(self.consumer, self._safe),
            0,
            0,
        )
        self._is_away = self._is_described = False
        if self._stop.is_set() and self._last_sent is None:
            self._last_sent = self.consumer.last_sent_iteration

    def _join(self) -> bool:
        """Say where it begins and what is missing before; whether it has begun."""
        if self._ring_to_file.wait(0) != OK:
            return False
        self._has_joined = True
        first, past = self._ring_to_file.found or 0, self._past
        if past.expected is None:
            late = first
            statistics = self.consumer.statistics()
            if self.consumer.is_shared:
                # Positions that were passed over had no frame.
                late = max(first - statistics.skipped, 0)
            self._said |= {"joined": first, "late": late}
            self._describe()
            if late and self._is_whole:
                self._lose(first - late, late, UNSEEN)
        elif self.consumer.is_shared and not self._was_kept and first > past.expected:
            # Of these, some may be positions that were passed over.
            self._lose(past.expected, first - past.expected, OVERTAKEN)
        return True

    def _look(self) -> None:
        """Count what the producer gave up because of us or others."""
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        refused = self.consumer.statistics().refused
        if refused > self._refused:
            count, self._refused = refused - self._refused, refused
            self._lose(self._ring_to_file.expected or 0, count, REFUSED)
        if self.consumer.is_shared:
            # There a hole in the sequence may be a position that was passed over; the
            # ring tells them apart.
            dropped = self.consumer.dropped_count
            if dropped > self._dropped:
                count, self._dropped = dropped - self._dropped, dropped
                self._lose(self._ring_to_file.expected or 0, count, OVERTAKEN)

    def _lose(self, first: int, count: int, reason: str) -> None:
        self.journal.gap(self.source, first, count, reason)
        self.lost += count
        if self._on_loss is not None:
            gap = Gap(self.source, first, count, reason, time.monotonic_ns())
            self._tell(self._on_loss, gap)

    def _tell(self, callback: Callable[..., object], *args: Any) -> None:
        """Call what the caller gave us; the time that takes is not the disk's."""
        self._turned = math.inf
        try:
            callback(*args)
        finally:
            self._turned = time.monotonic()

    def _fail(self, error: LoggerError) -> None:
        """Keep the frames, let the producer wait, and try again."""
        # Its traceback would hold the consumer.
        is_new, self.failure = self.failure is None, error.with_traceback(None)
        if is_new and self._on_error is not None:
            self._tell(self._on_error, error)
        (self._release if self._stop.is_set() else self._stop).wait(RETRY_S)
        if self.journal.has_lost_pages:
            with contextlib.suppress(LoggerError):  # tried again after the next step
                self._begin_again()

    def _complete(self) -> bool:
        """Write that the journal is complete, again while the disk refuses.

        False: pages were lost, what they had is to be recorded once more first.
        """
        is_told, self._looked = False, 0.0
        while True:
            self._turned = time.monotonic()
            try:
                if not is_told:
                    self._look()
                    self._make_safe()
                    is_told = True
                self.journal.finish(
                    stalled_ns=self._stalled_ns(),
                    has_ended=self.consumer.is_ended and not self.consumer.has_next,
                )
            except LoggerError as error:
                self._fail(error)
                if self._stop.is_set() and self._may_end(0):
                    return True
                if self._is_away:
                    return False
            else:
                self.failure = None
                return True

    def _finish(self) -> None:
        self._turned = time.monotonic()
        try:
            if self._is_away or self.journal.has_lost_pages:
                self.journal.abandon()
            else:
                self.journal.close()
        except LoggerError as error:
            self.failure = self.failure or error.with_traceback(None)
        if self._is_away and self._release.is_set():
            with contextlib.suppress(LoggerError):  # it is gone: nobody waits there
                self._rejoin()
                self._ring_to_file.wait(0)
        if self._is_away:
            return
        self._skipped = self._ring_to_file.skipped
        consumer = self.consumer
        if self._release.is_set():
            unsafe = self._unsafe()
            self.unsaved = self._missing_from_files(unsafe)
            self._count(self._ring_to_file.held - unsafe)
            _give_back(self._ring_to_file)
        del self._ring_to_file, self.consumer
        if self.failure is None or self._release.is_set():
            consumer.close()
        # Else dropped, not closed: the ring keeps what is not safe, as after a death.

    def _unsafe(self) -> int:
        """Count frames that were taken and are in no file; the journal is closed."""
        if self.journal.has_lost_pages:
            return self._ring_to_file.held
        said = self.journal.statistics()
        # Records of the journal's own may wait, too.
        return min(said.entries - said.written, self._ring_to_file.held)

    def _missing_from_files(self, unsafe: int) -> range:
        """Find the frames that were sent and are in no file."""
        sent = self.consumer.last_sent_iteration
        first = self._ring_to_file.expected
        if first is None:
            first = self._ring_to_file.found
        if first is None:
            return range(sent, sent)
        return range(max(first - unsafe, 0), max(sent, first))

    # ---- the caller's side

    @property
    def is_recording(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def stop(self, *, is_patient: bool = False) -> None:
        """Record what was sent until now, and end; is_patient: however long it takes.

        While the disk refuses, one that is patient tries again until `release`.
        """
        self._is_patient = is_patient
        if self._stop.is_set():
            return
        consumer = getattr(self, "consumer", None)
        if consumer is not None:
            self._last_sent = consumer.last_sent_iteration
        self._stopped = time.monotonic()
        self._stop.set()

    def release(self) -> None:
        """End now, and let the producer go: `unsaved` says what is in no file then."""
        self._release.set()
        self.stop()
        ring_to_file, consumer = (
            getattr(self, "_ring_to_file", None),
            getattr(self, "consumer", None),
        )
        if self.is_silent() and ring_to_file is not None and consumer is not None:
            # Its thread hangs in the kernel, and cannot do it.
            ring_to_file.stand_aside()
            first = self._said.get("joined", 0) if self._safe is None else self._safe
            self.unsaved = range(first, max(consumer.last_sent_iteration, first))

    def join(self, timeout: float | None) -> bool:
        """Wait for the end; whether it came within `timeout`, s."""
        return self._thread.join(timeout)

    def is_silent(self, seconds: float = SILENT_S) -> bool:
        """Whether the disk has not answered for so long, s: a call of it hangs."""
        turned = self._turned
        if not self.is_recording or time.monotonic() - turned <= seconds:
            return False
        # This very process may have been stopped: the thread gets on with it first.
        time.sleep(LOOK_S)
        return self._turned == turned and self.is_recording

    @property
    def trouble(self) -> LoggerError | None:
        """What keeps it from writing: an error, or a disk that does not answer."""
        if self.failure is not None or not self.is_silent():
            return self.failure
        return LoggerError(
            f"recording of {self.name!r}: the disk under {self.journal.directory} has "
            f"not answered for {SILENT_S:.0f} s; frames that are not on it stay in the "
            "ring, and are written when it answers"
        )

    def end(self) -> None:
        """Wait for the end, unless the disk does not answer.

        Raises
        ------
        LoggerError
            It did not for `STUCK_S`: the thread ends when the kernel lets it go.
        """
        while not self.join(LOOK_S):
            if self.is_silent(STUCK_S):
                raise LoggerError(
                    f"recording of {self.name!r}: the disk under "
                    f"{self.journal.directory} has not answered for {STUCK_S:.0f} s, "
                    "and is not waited for; frames that are not on it stay in the ring"
                )

    def statistics(self) -> RecordingStatistics:
        """Say how it goes."""
        return RecordingStatistics(
            self.name,
            self.source,
            self.frames,
            self.nbytes,
            self.lost,
            self._skipped,
            self.is_recording,
            str(self.trouble or ""),
            self.had_ended,
        )


class _Nowhere(RecordKernel):
    """A file that takes every frame and keeps none."""

    def __init__(self, descriptor: int) -> None:
        self._open(descriptor, descriptor, 0, 0, (1 << 63) - 1, 0, 1 << 16)


def _give_back(ring_to_file: RingToFile) -> None:
    """Give back the slots of frames that no file takes; one that is held stays."""
    descriptor = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        while ring_to_file.found is not None and not ring_to_file.is_aside:
            if ring_to_file.record(_Nowhere(descriptor), -1, -1)[2] == LAPPED:
                ring_to_file.accept()
            ring_to_file.release()
        ring_to_file.release()
    finally:
        os.close(descriptor)


def past_of(directory: Path, name: str, stream_id: str) -> Past:
    """Find what is on disk of a very stream: where an earlier recorder was stopped."""
    expected, refused = None, 0
    first: dict[str, Any] = {}
    files = []
    for path in files_of(directory, name).get(name, []):
        with contextlib.suppress(LayoutError):  # of a death before its first page
            files.append(InputFile(path))
    leave_out_repeated(files)
    for file in reversed(files):
        said: list[dict[str, Any]] = list(file.notes.sources.values())
        own = [source for source in said if source.get("stream") == stream_id]
        if not own:
            continue
        first = own[0]
        gaps = file.notes.gaps
        refused += sum(gap.count for gap in gaps if gap.reason == REFUSED)
        if expected is None and len(file):
            tail = file.entries(max(len(file) - 4096, 0), len(file))
            good = tail[tail["state"] == 0]
            if len(good):
                expected = int(good["sequence"].max()) + 1
        file.close()
    return Past(expected, refused, first)


def _refused(stream: str, context: ContextLike) -> int:
    """Read how many frames the producer has given up; 0 where there is no stream."""
    place = Context.of(context)
    if not os.path.exists(place.path_of(stream)):
        return 0
    try:
        return Inspector(stream, place).statistics().refused
    except (OSError, AtaraxisError):
        return 0  # opening it says why


@dataclass(frozen=True)
class _Joined:
    """A stream that a recorder has joined."""

    stream: str
    consumer: Consumer
    refused: int
    """Frames that had been given up before."""
    was_absent: bool
    """Whether it was not there when the recorder first looked."""


def _join(
    names: list[str],
    context: ContextLike,
    durable: str,
    detached_timeout: float | None,
    timeout: float | None,
) -> Iterator[_Joined]:
    """Join streams as they come, in any order.

    Each that is not there is announced, so that it begins with its reader.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    absent: set[str] = set()
    with contextlib.ExitStack() as stack:
        waiting = {
            stream: None
            if timeout == 0
            else stack.enter_context(Announcement(stream, durable, context))
            for stream in names
        }
        while waiting:
            for stream, announcement in list(waiting.items()):
                left = None if deadline is None else deadline - time.monotonic()
                is_over = left is not None and left <= 0
                # Read before it gates: nothing is given up for it until then.
                refused = _refused(stream, context)
                try:
                    consumer = Consumer(
                        stream,
                        context=context,
                        durable=durable,
                        detached_timeout=detached_timeout,
                        timeout=0 if stream not in absent or is_over else SHORT_S,
                    )
                except (StreamUnavailable, TimeoutError) as error:
                    if is_over and timeout:
                        raise TimeoutError(
                            f"stream {stream!r} did not come within {timeout} s"
                        ) from error
                    if is_over:
                        raise
                    absent.add(stream)
                    continue
                del waiting[stream]
                yield _Joined(stream, consumer, refused, stream in absent)
                if announcement is not None:
                    announcement.withdraw()


# ---- the recorder


class Recorder:
    """Record streams: each into a journal of its name, labels and device stamps kept.

    Parameters
    ----------
    streams : str or iterable of str
        Names of streams.
    directory : str or Path
        Made if it is not there. What is in it stays.
    context : Context, str, Path or None
        The directory the streams live in.
    name : str
        Under which it is known to the producers: they wait for a recorder of that name
        that died, until one comes back. One recorder of a name at a time.
    durability : {'os', 'disk'}
        As for `JournalWriter`, as are other keywords (`sync_s`, `file_bytes`, ...).
    detached_timeout : float or None
        How long producers wait for this recorder if it dies, s; None: no end.
    timeout : float or None
        How long to wait for streams that are not there yet, s.
    on_loss : callable, optional
        Called with a `Gap` when frames are counted missing, from a thread.
    on_error : callable, optional
        Called with the `LoggerError` when a journal begins to refuse, from a thread.
    on_low_disk : callable, optional
        Called with `LowDisk` well before the disk is full; a warning, if not given.
    low_disk_s : float
        How well before: the free space lasts less than this at the present rate, s.
    is_whole : bool
        Streams are to be recorded from their first frame on: what was sent before this
        recorder joined is counted missing. Else it is named: it began late.

    Raises
    ------
    StreamUnavailable, TimeoutError
        A stream is not there (within `timeout`).
    LoggerError
        The directory cannot be written.

    Notes
    -----
    A lossless consumer: a producer waits for it rather than lose a frame, unless it
    was told not to wait (``on_full="drop_newest"``): then what it gave up is counted,
    and the count written into the journal. A slot is given back only after its frame
    is in a file, so that a recorder that is killed misses nothing: the next one goes
    on where it was. If the disk refuses, frames are kept in the ring, the producers
    wait, and writing is tried again until `stop`.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from ataraxis import LogArchive, Producer
    >>> directory = tempfile.TemporaryDirectory()
    >>> camera = Producer("doc_recorded", shape=(2,), dtype="f8", dims=("axis",))
    >>> with Recorder("doc_recorded", directory.name):
    ...     for k in range(3):
    ...         _ = camera.send(np.full(2, k))
    >>> LogArchive(directory.name).read("doc_recorded").data.tolist()
    [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]
    >>> camera.unlink(); directory.cleanup()
    """

    def __init__(
        self,
        streams: str | Iterable[str],
        directory: str | os.PathLike[str],
        *,
        context: ContextLike = None,
        name: str = "recorder",
        durability: Literal["os", "disk"] = "os",
        detached_timeout: float | None = None,
        timeout: float | None = 0,
        on_loss: Callable[[Gap], object] | None = None,
        on_error: Callable[[LoggerError], object] | None = None,
        on_low_disk: Callable[[LowDisk], object] | None = None,
        low_disk_s: float = 600.0,
        is_whole: bool = False,
        **journal: Any,
    ) -> None:
        names = [streams] if isinstance(streams, str) else list(streams)
        if not names or len(set(names)) < len(names):
            raise ValueError(f"streams={names}: one or more, each once")
        self.directory = Path(directory)
        self._recordings: list[ActiveRecording] = []
        self._lock = threading.Lock()
        joining: list[Consumer] = []
        try:
            for found in _join(names, context, name, detached_timeout, timeout):
                joining = [found.consumer]
                if not self._recordings:
                    numbers = self._numbers(names)
                    self._watch = DiskWatch(self.directory, low_disk_s, on_low_disk)
                stream, stream_id = found.stream, found.consumer.stream_id
                past = past_of(self.directory, stream, stream_id)
                open_journal = functools.partial(
                    JournalWriter, self.directory, stream,
                    **{"durability": durability, **journal},
                )  # fmt: skip
                # Each from when it comes: it would wait for us.
                self._recordings.append(
                    ActiveRecording(
                        found.consumer,
                        open_journal(),
                        numbers[stream],
                        past=past,
                        on_loss=on_loss,
                        on_error=on_error,
                        on_bytes=self._look,
                        is_whole=is_whole or found.was_absent,
                        refused=found.refused,
                        open_journal=open_journal,
                        open_consumer=functools.partial(
                            Consumer,
                            stream,
                            context=context,
                            durable=name,
                            detached_timeout=detached_timeout,
                        ),
                    )
                )
                joining = []
                del found
            self._recordings.sort(key=lambda recording: names.index(recording.name))
        except BaseException:
            for recording in self._recordings:
                recording.stop()
            for recording in self._recordings:
                recording.join(None)
            for consumer in joining:
                consumer.close()
            raise

    def _numbers(self, names: list[str]) -> dict[str, int]:
        """Give each stream a number of its own, that of an earlier recording if any."""
        try:
            make_folder(self.directory)
        except OSError as error:
            raise LoggerError(
                f"cannot record to {self.directory}: {error}; nothing was recorded"
            ) from error
        known: dict[str, int] = {}
        if JournalReader.accepts(self.directory):
            with JournalReader(self.directory) as reader:
                for number, info in reader.sources.items():
                    known.setdefault(info.name or f"source {number}", number)
        for name in names:
            known.setdefault(name, max(known.values(), default=-1) + 1)
        return known

    def _look(self) -> None:
        with self._lock:
            self._watch.look(sum(r.nbytes for r in self._recordings))

    # ---- what it does

    @property
    def is_recording(self) -> bool:
        """Whether a stream is still recorded."""
        return any(r.is_recording for r in self._recordings)

    def statistics(self) -> dict[str, RecordingStatistics]:
        """Say of each stream how it goes."""
        return {r.name: r.statistics() for r in self._recordings}

    def check(self) -> None:
        """Raise what keeps a stream from being recorded, if anything does.

        Raises
        ------
        LoggerError
            Says which frames are safe; the others are kept in their ring.
        """
        for recording in self._recordings:
            if (trouble := recording.trouble) is not None:
                raise trouble

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until every stream has ended and is recorded; whether that is so.

        While a disk refuses, frames are kept in their ring and writing is tried again,
        for as long as it takes: `check` and `statistics` say so, `on_error` is called.

        Raises
        ------
        LoggerError
            The recording of a stream has ended for good.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        for recording in self._recordings:
            while recording.is_recording:
                left = 0.1
                if deadline is not None:
                    left = min(left, deadline - time.monotonic())
                    if left <= 0:
                        return False
                recording.join(left)
        self.check()
        return True

    def stop(self) -> None:
        """Record what was sent until now, close the journals, let the producers go.

        Raises
        ------
        LoggerError
            Not everything could be written, or the disk has not answered for
            `STUCK_S`: the frames that are not safe stay in their rings, for a recorder
            of the same name.
        """
        for recording in self._recordings:
            recording.stop()
        stuck: LoggerError | None = None
        for recording in self._recordings:
            try:
                recording.end()
            except LoggerError as error:
                stuck = stuck or error
        if stuck is not None:
            raise stuck
        self.check()

    def finish(
        self, release: Latch, on_refusal: Callable[[LoggerError], object]
    ) -> dict[str, range]:
        """Record what was sent until now, and end, however long the disk takes.

        Unlike `stop`, while the disk refuses it goes on trying, and the producers go on
        waiting for it.

        Parameters
        ----------
        release : Latch
            Once it is set, by a signal's handler say, the producers are let go.
        on_refusal : callable
            Called with the `LoggerError`, once a stream, if the disk refuses.

        Returns
        -------
        dict
            Of streams that were let go before all was recorded, the sequences that are
            in no file; empty if everything is.
        """
        for recording in self._recordings:
            recording.stop(is_patient=True)
        told = set()
        for recording in self._recordings:
            while not recording.join(LOOK_S):
                for other in self._recordings:
                    trouble = other.trouble
                    if trouble is not None and other.is_recording:
                        if other.name not in told:
                            on_refusal(trouble)
                        told.add(other.name)
                    if release.is_set():
                        other.release()
                if release.is_set() and recording.is_silent():
                    break
        left = {r.name: r.unsaved for r in self._recordings if len(r.unsaved)}
        for recording in self._recordings:
            # One that was not let go, and failed all the same: its thread has ended.
            if recording.failure is not None and recording.name not in left:
                raise recording.failure
        return left

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop."""
        self.stop()

    def __repr__(self) -> str:
        names = ", ".join(r.name for r in self._recordings)
        return f"<Recorder of {names} to {self.directory}>"
