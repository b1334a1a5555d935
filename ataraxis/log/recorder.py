"""Recorder: streams to disk, frame by frame."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import threading
import time
import warnings
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
from ataraxis.errors import AtaraxisError, LayoutError, LoggerError, StreamUnavailable
from ataraxis.log.account import REFUSED
from ataraxis.log.clock_table import FIRST_TABLE, clock_of, table_name, table_number
from ataraxis.log.disk_watch import DiskWatch, LowDisk
from ataraxis.log.journal.input import InputFile, leave_out_repeated
from ataraxis.log.journal.page import Gap, files_of, index_path
from ataraxis.log.journal.reader import JournalReader
from ataraxis.log.journal.writer import JournalWriter
from ataraxis.log.modes import make_folder
from ataraxis.shm.context import Context, ContextLike
from ataraxis.shm.files import is_owned
from ataraxis.shm.thread import Latch, Thread
from ataraxis.stream import Consumer
from ataraxis.stream.announcement import Announcement, forget
from ataraxis.stream.inspector import Inspector

# ---- recording one stream into one journal, in a thread

OVERWRITTEN = "overwritten before they were recorded"
BEFORE_JOIN = "sent before the recorder had joined"
SLICE_S = 0.2
RETRY_S = 0.2
SETTLE_S = 0.5
CHECK_S = 0.1
ATTACH_S = 0.02
SYNC_S = 0.5
SILENT_S = 5.0
"""The disk is reported as silent when it has not answered for this long, s."""
STUCK_S = 60.0
"""`stop` waits this long for a disk that does not answer, s."""


@dataclass(frozen=True)
class RecordingStatistics:
    """State of the recording of one stream."""

    stream: str
    """Name of the stream."""
    source: int
    """Number of the stream in the directory."""
    frames: int
    """Frames recorded since this recorder started."""
    nbytes: int
    """Bytes of these frames."""
    lost: int
    """Missing frames; each is in a gap record."""
    skipped: int
    """Frames skipped because an earlier recorder has written them."""
    is_recording: bool
    """Whether it runs; False at the end of the stream, after `stop` or a failure."""
    error: str
    """Why it cannot write now; empty if it can."""
    had_ended: bool = False
    """Whether the stream had ended before: these are frames left in its ring."""
    parts: int = 1
    """How many streams of the name were recorded, one after the other."""
    is_clock: bool = False
    """Whether it is the clock of another host, recorded beside that host's streams."""


@dataclass(frozen=True)
class ResumePoint:
    """Where to resume the recording of a stream."""

    expected: int | None
    """First sequence number that is not on disk; None if nothing is."""
    refused: int
    """Frames counted as given up by the producer."""
    description: dict[str, Any] = field(default_factory=dict)
    """Description of the stream by its first recorder."""


class ActiveRecording:
    """Records one stream, in a thread; made by `Recorder`.

    Its durable consumer and its journal are closed at the end, and opened again under
    the same names by `open_consumer` and `open_journal`. The callbacks are called from
    the thread: `on_bytes` after frames were recorded, others as of `Recorder`.
    `refused` counts frames that the producer had given up before the recorder joined;
    of a mirror, which begins with the counts of the other host, it is read when the
    first frame is there.
    """

    def __init__(
        self,
        consumer: Consumer,
        journal: JournalWriter,
        source: int,
        *,
        resume: ResumePoint,
        on_loss: Callable[[Gap], object] | None,
        on_error: Callable[[LoggerError], object] | None,
        on_bytes: Callable[[], object],
        open_consumer: Callable[[], Consumer],
        open_journal: Callable[..., JournalWriter],
        is_whole: bool = False,
        is_mirror: bool = False,
        refused: int = 0,
    ) -> None:
        self._open_consumer, self._open_journal = open_consumer, open_journal
        self.consumer, self.journal, self.source = consumer, journal, source
        self.name, self.stream_id = journal.name, consumer.stream_id
        self.failure: LoggerError | None = None
        """Why it cannot write."""
        self._on_loss, self._on_error, self._on_bytes = on_loss, on_error, on_bytes
        self._ring_to_file = RingToFile(consumer, resume.expected)
        earlier = resume.description
        if earlier:
            refused = int(earlier.get("refused", 0)) + resume.refused
        elif is_whole:
            refused = 0
        self._refused = refused
        self._resume, self._is_whole, self._is_mirror = resume, is_whole, is_mirror
        self._has_joined = self._is_detached = self._is_described = False
        self._skips_counted = self._pending_bytes = 0
        # The ring keeps counting for a durable reader that returns in time.
        self._was_attached = consumer.received_count > 0
        self._dropped = consumer.dropped_count
        self._checked_at = self._stopped_at = self._synced_at = 0.0
        self._answered_at = time.monotonic()
        """When the disk last answered; it is accessed every `SLICE_S` at least."""
        self._safe = resume.expected
        """First sequence number that is not known to be safe."""
        self._last_sent: int | None = None
        self.frames = self.nbytes = self.lost = self._skipped = 0
        self.had_ended = consumer.is_ended and not self._was_attached
        """Whether the stream had ended before this recorder joined."""
        self._description: dict[str, Any] = {
            **({"had_ended": True} if self.had_ended else {}),
            "stream": consumer.stream_id,
            # Of a mirror, too: its numbers are those of the shared stream.
            "is_shared": consumer.is_shared
            or bool(consumer.labels.attrs.get("origin_is_shared")),
            "stalled_ns": self._stalled_ns(),
            "refused": refused - resume.refused,
            **{k: earlier[k] for k in ("joined", "late") if k in earlier},
        }
        if is_mirror and not earlier:
            # What the other host counted before comes with the first frame.
            del self._description["stalled_ns"]
        self._describe()
        journal.flush()
        self.unsaved = range(0)
        """Sequence numbers that are in no file, after `release`."""
        self._is_persistent = False
        self._stop, self._release = Latch(), Latch()
        self._thread = Thread(self._run, f"ataraxis-record-{self.name}")
        try:
            self._thread.start()
        except BaseException:
            # The caller has no recording to stop.
            self._stop.set()
            self._thread.join()
            raise

    def _describe(self) -> None:
        labels = self.consumer.labels if self.consumer.is_typed else None
        self.journal.describe(self.source, self.name, labels, **self._description)
        self._labels = -1 if labels is None else self.journal.labels_id(labels)
        self._is_described = True

    def _stalled_ns(self) -> int:
        """Return the accumulated waits of the producers, as the ring counts them."""
        return round(self.consumer.statistics().stalled_s * 1e9)

    # ---- the thread

    def _run(self) -> None:
        try:
            while self._record() and not self._complete():
                pass  # read what the disk lost from the ring again
        except Exception as error:
            self.failure = LoggerError(
                f"recording of {self.name!r} ended: {error!r}; what was not written "
                "stays in the ring"
            )
        finally:
            self._finish()

    def _record(self) -> bool:
        """Record until the end of the stream or `stop`; return False if incomplete."""
        while True:
            self._answered_at = time.monotonic()
            # Read before the step, so that one more step follows a stop.
            was_stopped = self._stop.is_set()
            moved = self._step()
            if was_stopped and self._may_end(moved):
                return self.failure is None
            if moved or was_stopped or self.failure is not None:
                continue
            if self._ring_to_file.wait(SLICE_S) == ENDED:
                return True

    def _may_end(self, moved: int) -> bool:
        """Return whether all is recorded, or the rest may be dropped."""
        if self.failure is not None:
            return not self._is_persistent or self._release.is_set()
        return self._is_done(moved) or self._release.is_set()

    def _is_done(self, moved: int) -> bool:
        """Return whether every frame sent before `stop` is recorded."""
        if (self._ring_to_file.expected or 0) < (self._last_sent or 0):
            # A producer is writing a frame, or there are only skipped positions left.
            time.sleep(0 if moved else 0.001)
            return not moved and not self.consumer.has_next
        # Frames of several producers may arrive out of order: wait until none come.
        return not moved or time.monotonic() > self._stopped_at + SETTLE_S

    def _step(self) -> int:
        """Record the available frames and release their slots; return how many."""
        frames = 0
        try:
            if self._is_detached:
                self._reattach()
            if not self._is_described:
                self._describe()
            if not self._has_joined and not self._join():
                self._count_losses()
                self.failure = None
                return 0
            frames, nbytes, status = self.journal.record_ring(
                self._ring_to_file, self.source, self._labels
            )
            self._pending_bytes += nbytes
            if status == LAPPED:
                first = self._ring_to_file.expected or 0
                self._record_gap(first, self._ring_to_file.accept(), OVERWRITTEN)
                frames = max(frames, 1)
            if status == EMPTY or time.monotonic() - self._checked_at > CHECK_S:
                self._count_losses()
            if self._is_commit_due():
                self._commit()
            if status == DAMAGED:
                self._ring_to_file.complain()
        except LoggerError as error:
            self._fail(error)
            return 0
        self.failure = None
        if frames:
            self._on_bytes()  # checks the disk
        return frames

    def _is_commit_due(self) -> bool:
        """Return whether to commit now; syncing takes time."""
        if self.journal.durability != "disk" or self._stop.is_set():
            return True
        is_much = self._ring_to_file.held * 4 >= self.consumer.buffer_count
        return is_much or time.monotonic() - self._synced_at > SYNC_S

    def _commit(self) -> None:
        """Write the copied frames to the file, or the disk; release their slots."""
        if not self._ring_to_file.held:
            return
        # Not released before: a released slot is overwritten.
        if self.journal.durability == "disk":
            self.journal.sync()
        else:
            self.journal.flush()
        self._count(self._ring_to_file.held)
        self._ring_to_file.release()
        self._safe, self._synced_at = self._ring_to_file.expected, time.monotonic()

    def _count(self, held: int) -> None:
        """Add frames to the totals, without those that were skipped."""
        self.frames += max(held - (self._ring_to_file.skipped - self._skips_counted), 0)
        self._skips_counted = self._ring_to_file.skipped
        self.nbytes, self._pending_bytes = self.nbytes + self._pending_bytes, 0

    def _restart_file(self) -> None:
        """Write all frames that are not known to be on the disk to a new file.

        After a failed sync the system may have dropped pages without reporting it the
        next time. The ring still has the frames: they are read again, as after a crash.
        """
        new = self._open_journal(about={"again": self.journal.on_disk()})
        self.journal.abandon()
        self.journal = new
        del self._ring_to_file, self.consumer  # not closed: the ring keeps them
        self._is_detached = True

    def _reattach(self) -> None:
        """Read the ring from the first frame on that is not known to be safe."""
        try:
            self.consumer = self._open_consumer()
        except (AtaraxisError, OSError) as error:
            raise LoggerError(
                f"recording of {self.name!r}: its stream cannot be read again: {error}"
            ) from error
        self._ring_to_file = RingToFile(self.consumer, self._safe)
        self._skips_counted = self._pending_bytes = 0
        self._is_detached = self._is_described = False
        if self._stop.is_set() and self._last_sent is None:
            self._last_sent = self.consumer.last_sent_iteration

    def _join(self) -> bool:
        """Record where it begins and what is missing before; return whether it has."""
        if self._ring_to_file.wait(0) != OK:
            return False
        self._has_joined = True
        first, expected = self._ring_to_file.found or 0, self._resume.expected
        if expected is None:
            late = first
            statistics = self.consumer.statistics()
            if self.consumer.is_shared:
                # Skipped positions had no frame.
                late = max(first - statistics.skipped, 0)
            if self._is_mirror:
                self._refused = statistics.refused
                waited = {"stalled_ns": self._stalled_ns(), "refused": self._refused}
                self._description |= waited
            self._description |= {"joined": first, "late": late}
            self._describe()
            if late and self._is_whole:
                self._record_gap(first - late, late, BEFORE_JOIN)
        elif self.consumer.is_shared and not self._was_attached and first > expected:
            # Some of these may be skipped positions.
            self._record_gap(expected, first - expected, OVERWRITTEN)
        return True

    def _count_losses(self) -> None:
        """Record the frames that the producer gave up or the ring dropped."""
        now = time.monotonic()
        is_new = self._resume.expected is None and not self._has_joined
        if (self._is_mirror and is_new) or now - self._checked_at < CHECK_S:
            return
        self._checked_at = now
        refused = self.consumer.statistics().refused
        if refused > self._refused:
            count, self._refused = refused - self._refused, refused
            self._record_gap(self._ring_to_file.expected or 0, count, REFUSED)
        if self.consumer.is_shared:
            # A missing number may be a skipped position; only the ring can tell.
            dropped = self.consumer.dropped_count
            if dropped > self._dropped:
                count, self._dropped = dropped - self._dropped, dropped
                self._record_gap(self._ring_to_file.expected or 0, count, OVERWRITTEN)

    def _record_gap(self, first: int, count: int, reason: str) -> None:
        self.journal.gap(self.source, first, count, reason)
        self.lost += count
        if self._on_loss is not None:
            gap = Gap(self.source, first, count, reason, time.monotonic_ns())
            self._call(self._on_loss, gap)

    def _call(self, callback: Callable[..., object], *args: Any) -> None:
        """Call a callback of the user, whose time does not count as the disk's."""
        self._answered_at = math.inf
        try:
            callback(*args)
        finally:
            self._answered_at = time.monotonic()

    def _fail(self, error: LoggerError) -> None:
        """Keep the frames in the ring, and wait before the next try."""
        # Its traceback would keep the consumer alive.
        is_new, self.failure = self.failure is None, error.with_traceback(None)
        if is_new and self._on_error is not None:
            self._call(self._on_error, error)
        (self._release if self._stop.is_set() else self._stop).wait(RETRY_S)
        if self.journal.has_lost_pages:
            with contextlib.suppress(LoggerError):  # repeated after the next step
                self._restart_file()

    def _complete(self) -> bool:
        """Write that the journal is complete; retry while the disk fails.

        Returns False if pages were lost, whose frames must be recorded again first.
        """
        is_committed, self._checked_at = False, 0.0
        while True:
            self._answered_at = time.monotonic()
            try:
                if not is_committed:
                    self._count_losses()
                    self._commit()
                    is_committed = True
                self.journal.finish(
                    stalled_ns=self._stalled_ns(),
                    has_ended=self.consumer.is_ended and not self.consumer.has_next,
                )
            except LoggerError as error:
                self._fail(error)
                if self._stop.is_set() and self._may_end(0):
                    return True
                if self._is_detached:
                    return False
            else:
                self.failure = None
                return True

    def _finish(self) -> None:
        self._answered_at = time.monotonic()
        try:
            if self._is_detached or self.journal.has_lost_pages:
                self.journal.abandon()
            else:
                self.journal.close()
        except LoggerError as error:
            self.failure = self.failure or error.with_traceback(None)
        if self._is_detached and self._release.is_set():
            with contextlib.suppress(LoggerError):  # the stream is gone
                self._reattach()
                self._ring_to_file.wait(0)
        if self._is_detached:
            return
        self._skipped = self._ring_to_file.skipped
        consumer = self.consumer
        if self._release.is_set():
            unwritten = self._unwritten()
            self.unsaved = self._unsaved_range(unwritten)
            self._count(self._ring_to_file.held - unwritten)
            _release_all(self._ring_to_file)
        del self._ring_to_file, self.consumer
        if self.failure is None or self._release.is_set():
            consumer.close()
        # Else dropped, not closed: the ring keeps what is not safe, as after a crash.

    def _unwritten(self) -> int:
        """Count copied frames that are in no file; the journal is closed."""
        if self.journal.has_lost_pages:
            return self._ring_to_file.held
        written = self.journal.statistics()
        # Records of the journal itself may be unwritten, too.
        return min(written.entries - written.written, self._ring_to_file.held)

    def _unsaved_range(self, unwritten: int) -> range:
        """Return the sequence numbers that were sent and are in no file."""
        sent = self.consumer.last_sent_iteration
        first = self._ring_to_file.expected
        if first is None:
            first = self._ring_to_file.found
        if first is None:
            return range(sent, sent)
        return range(max(first - unwritten, 0), max(sent, first))

    # ---- called by the owner

    @property
    def is_recording(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def stop(self, *, is_persistent: bool = False) -> None:
        """Record every frame sent until now, and end.

        If the disk fails, a persistent one retries until `release`.
        """
        self._is_persistent = is_persistent
        if self._stop.is_set():
            return
        consumer = getattr(self, "consumer", None)
        if consumer is not None:
            self._last_sent = consumer.last_sent_iteration
        self._stopped_at = time.monotonic()
        self._stop.set()

    def release(self) -> None:
        """End now, and let the producer continue; `unsaved` is what is in no file."""
        self._release.set()
        self.stop()
        ring_to_file = getattr(self, "_ring_to_file", None)
        consumer = getattr(self, "consumer", None)
        if self.is_silent() and ring_to_file is not None and consumer is not None:
            # Its thread is blocked in the kernel, and cannot do it.
            ring_to_file.stand_aside()
            first = self._safe
            if first is None:
                first = self._description.get("joined", 0)
            self.unsaved = range(first, max(consumer.last_sent_iteration, first))

    def join(self, timeout: float | None) -> bool:
        """Wait for the end up to `timeout`, s; return whether it has ended."""
        return self._thread.join(timeout)

    def is_silent(self, seconds: float = SILENT_S) -> bool:
        """Return whether the disk has not answered for so long, s."""
        answered = self._answered_at
        if not self.is_recording or time.monotonic() - answered <= seconds:
            return False
        # If this whole process was stopped, the thread continues within this time.
        time.sleep(CHECK_S)
        return self._answered_at == answered and self.is_recording

    @property
    def current_error(self) -> LoggerError | None:
        """Why it cannot write now: an error, or a disk that does not answer."""
        if self.failure is not None or not self.is_silent():
            return self.failure
        return LoggerError(
            f"recording of {self.name!r}: the disk of {self.journal.directory} has not "
            f"answered for {SILENT_S:.0f} s; unsaved frames stay in the ring, and are "
            "written when it answers"
        )

    def end(self) -> None:
        """Wait for the end; raise `LoggerError` after `STUCK_S` without an answer.

        The disk has not answered then, and the thread is still blocked.
        """
        while not self.join(CHECK_S):
            if self.is_silent(STUCK_S):
                raise LoggerError(
                    f"recording of {self.name!r}: gave up waiting for the disk of "
                    f"{self.journal.directory}, which has not answered for "
                    f"{STUCK_S:.0f} s; unsaved frames stay in the ring"
                )

    def statistics(self) -> RecordingStatistics:
        """Return the state of the recording."""
        return RecordingStatistics(
            self.name,
            self.source,
            self.frames,
            self.nbytes,
            self.lost,
            self._skipped,
            self.is_recording,
            str(self.current_error or ""),
            self.had_ended,
        )


class _NullFile(RecordKernel):
    """A file that accepts every frame and keeps none."""

    def __init__(self, descriptor: int) -> None:
        self._open(descriptor, descriptor, 0, 0, (1 << 63) - 1, 0, 1 << 16)


def _release_all(ring_to_file: RingToFile) -> None:
    """Release the slots of frames that are in no file, but for a claimed one."""
    descriptor = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        while ring_to_file.found is not None and not ring_to_file.is_aside:
            if ring_to_file.record(_NullFile(descriptor), -1, -1)[2] == LAPPED:
                ring_to_file.accept()
            ring_to_file.release()
        ring_to_file.release()
    finally:
        os.close(descriptor)


def find_resume_point(directory: Path, name: str, stream_id: str) -> ResumePoint:
    """Find where an earlier recorder of the same stream was stopped."""
    expected, refused = None, 0
    first: dict[str, Any] = {}
    files = []
    for path in files_of(directory, name).get(name, []):
        with contextlib.suppress(LayoutError):  # the writer died before its first page
            files.append(InputFile(path))
    leave_out_repeated(files)
    for file in reversed(files):
        descriptions: list[dict[str, Any]] = list(file.records.sources.values())
        own = [one for one in descriptions if one.get("stream") == stream_id]
        if not own:
            continue
        first = own[0]
        gaps = file.records.gaps
        refused += sum(gap.count for gap in gaps if gap.reason == REFUSED)
        if expected is None and len(file):
            tail = file.entries(max(len(file) - 4096, 0), len(file))
            good = tail[tail["state"] == 0]
            if len(good):
                expected = int(good["sequence"].max()) + 1
        file.close()
    return ResumePoint(expected, refused, first)


def _is_written(directory: Path, name: str, before: Path | None = None) -> bool:
    """Return whether a writer has a file of a journal open, of those before one."""
    for path in files_of(directory, name).get(name, []):
        if path == before:
            return False
        with contextlib.suppress(OSError):
            if is_owned(path):
                return True
    return False


def _refused(stream: str, context: ContextLike) -> int:
    """Return how many frames the producer has given up; 0 without a stream."""
    place = Context.of(context)
    if not os.path.exists(place.path_of(stream)):
        return 0
    try:
        return Inspector(stream, place).statistics().refused
    except (OSError, AtaraxisError):
        return 0  # opening it reports the error


@dataclass(frozen=True)
class _Joined:
    """A stream that the recorder has joined."""

    stream: str
    consumer: Consumer
    refused: int
    """Frames that the producer had given up before."""
    was_absent: bool
    """Whether it did not exist when the recorder first tried to join."""


def _join(
    names: list[str],
    context: ContextLike,
    durable: str,
    detached_timeout: float | None,
    timeout: float | None,
) -> Iterator[_Joined]:
    """Join streams as they appear, in any order.

    Missing ones are announced, so that they begin with their reader.
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
                # Read before joining: the producer gives nothing up for it until then.
                refused = _refused(stream, context)
                try:
                    consumer = Consumer(
                        stream,
                        context=context,
                        durable=durable,
                        detached_timeout=detached_timeout,
                        timeout=0 if stream not in absent or is_over else ATTACH_S,
                    )
                except (StreamUnavailable, TimeoutError) as error:
                    if is_over and timeout:
                        raise TimeoutError(
                            f"stream {stream!r} did not appear within {timeout} s"
                        ) from error
                    if is_over:
                        raise
                    absent.add(stream)
                    continue
                del waiting[stream]
                yield _Joined(stream, consumer, refused, stream in absent)
                if announcement is not None:
                    announcement.withdraw()


# ---- recording the streams of one name, one after the other

FOLLOW_S = 0.02
"""How often the next stream of a name is looked for, s."""
CLOCK_S = 0.2
"""How often the clock of another host is looked for, s."""


class FollowedRecording:
    """Records the streams of one name, one after the other, in a thread.

    Each is a part of its own. `begin` takes the id of the stream recorded last, "" if
    there was none, and returns the recording of another one, or None while there is
    none. `first` is the first recording, if it has begun.
    """

    def __init__(
        self,
        name: str,
        source: int,
        begin: Callable[[str], ActiveRecording | None],
        first: ActiveRecording | None = None,
        *,
        pause_s: float = FOLLOW_S,
        on_error: Callable[[LoggerError], object] | None = None,
        is_clock: bool = False,
    ) -> None:
        self.name, self.source = name, source
        self._begin, self._part, self._pause_s = begin, first, pause_s
        self._on_error, self._is_clock = on_error, is_clock
        self._last = "" if first is None else first.stream_id
        self._done: list[RecordingStatistics] = []
        self.unsaved = range(0)
        """Sequence numbers of the last stream that are in no file, after `release`."""
        self._failure: LoggerError | None = None
        self._lock = threading.Lock()
        self._stop, self._release = Latch(), Latch()
        self._is_persistent = False
        self._thread = Thread(self._run, f"ataraxis-follow-{name}")
        try:
            self._thread.start()
        except BaseException:
            self.stop()
            raise

    # ---- the thread

    def _run(self) -> None:
        while True:
            part = self._part
            if part is not None and not part.join(1.0):
                continue
            if part is not None and not self._retire(part):
                return
            was_stopped = self._stop.is_set()
            has_begun = self._next()
            # After a stop once more: what was sent until then is recorded.
            if was_stopped and not has_begun:
                return
            if not has_begun:
                self._stop.wait(self._pause_s)

    def _next(self) -> bool:
        """Begin with the next stream; return whether there is one."""
        try:
            part, error = self._begin(self._last), None
        except (AtaraxisError, OSError, ValueError) as found:
            part, error = (
                None,
                LoggerError(
                    f"the next stream {self.name!r} cannot be recorded: {found}"
                ),
            )
        is_new = error is not None and self._failure is None
        self._failure = error
        if is_new and error is not None and self._on_error is not None:
            self._on_error(error)
        if part is None:
            return False
        with self._lock:
            self._part, self._last = part, part.stream_id
            if self._release.is_set():
                part.release()
            if self._stop.is_set():
                part.stop(is_persistent=self._is_persistent)
        return True

    def _retire(self, part: ActiveRecording) -> bool:
        """Keep the statistics of a part that has ended; return whether to go on."""
        with self._lock:
            self.unsaved = part.unsaved
            if part.failure is not None:
                self._failure = part.failure
                return False
            self._done.append(part.statistics())
            self._part = None
        return True

    # ---- called by the owner, as those of `ActiveRecording`

    @property
    def is_recording(self) -> bool:
        """Whether it records or waits for the next stream."""
        return self._thread.is_alive()

    @property
    def failure(self) -> LoggerError | None:
        """Why it cannot write, or begin with the next stream."""
        part = self._part
        return self._failure if part is None else part.failure

    @property
    def current_error(self) -> LoggerError | None:
        """Why it cannot write now: an error, or a disk that does not answer."""
        part = self._part
        return self._failure if part is None else part.current_error

    def stop(self, *, is_persistent: bool = False) -> None:
        """Record every frame sent until now, and end."""
        with self._lock:
            self._is_persistent = is_persistent
            if self._part is not None:
                self._part.stop(is_persistent=is_persistent)
            self._stop.set()

    def release(self) -> None:
        """End now, and let the producer continue."""
        with self._lock:
            self._release.set()
            if self._part is not None:
                self._part.release()
                self.unsaved = self._part.unsaved
        self.stop()

    def join(self, timeout: float | None) -> bool:
        """Wait for the end up to `timeout`, s; return whether it has ended."""
        return self._thread.join(timeout)

    def is_silent(self, seconds: float = SILENT_S) -> bool:
        """Return whether the disk has not answered for so long, s."""
        part = self._part
        return part is not None and part.is_silent(seconds)

    def end(self) -> None:
        """Wait for the end; raise `LoggerError` if the disk does not answer."""
        while not self.join(CHECK_S):
            if (part := self._part) is not None:
                part.end()

    def statistics(self) -> RecordingStatistics:
        """Return the statistics of all parts together."""
        with self._lock:
            found = list(self._done)
            if self._part is not None:
                found.append(self._part.statistics())
        return RecordingStatistics(
            self.name,
            self.source,
            sum(part.frames for part in found),
            sum(part.nbytes for part in found),
            sum(part.lost for part in found),
            sum(part.skipped for part in found),
            self.is_recording,
            str(self.current_error or ""),
            bool(found) and found[0].had_ended,
            len(found),
            self._is_clock,
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the frames recorded."""
        return self.statistics().nbytes


class _NextStream:
    """Looks whether a name means another stream than before, cheaply."""

    def __init__(self, name: str, context: Context) -> None:
        self._name, self._context = name, context
        self._path = context.path_of(name)
        self._seen: tuple[int, int] | None = None

    def is_another(self, last: str) -> bool:
        """Return whether the name means a stream, of another id than `last`."""
        try:
            found = os.stat(self._path)
        except OSError:
            return False
        here = found.st_ino, found.st_ctime_ns
        if here == self._seen:
            return False
        try:
            is_another = Inspector(self._name, self._context).stream_id() != last
        except (StreamUnavailable, LayoutError, OSError):
            return False  # not complete yet, or gone
        if not is_another:
            self._seen = here
        return is_another


# ---- the recorder

Recording = ActiveRecording | FollowedRecording


class Recorder:
    """Record streams, each into a journal of its name, with labels and device stamps.

    Parameters
    ----------
    streams : str or iterable of str
        Names of streams.
    directory : str or Path
        Created if missing. Existing files stay.
    context : Context, str, Path or None
        The directory of the streams.
    name : str
        Name of the recorder for the producers: after its death they wait for a
        recorder of the same name. One at a time may use it.
    durability : {'os', 'disk'}
        As for `JournalWriter`, like other keywords (`sync_s`, `file_bytes`, ...).
    detached_timeout : float or None
        How long producers wait for this recorder if it dies, s; None: forever.
    timeout : float or None
        How long to wait for missing streams, s.
    on_loss : callable, optional
        Called with a `Gap` when frames are missing, from a thread.
    on_error : callable, optional
        Called with the `LoggerError` when a journal begins to fail, from a thread.
    on_low_disk : callable, optional
        Called with `LowDisk` well before the disk is full. Default: a warning.
    low_disk_s : float
        Report when the free space lasts less than this at the present rate, s.
    is_whole : bool
        Count frames that were sent before this recorder joined as missing. By default,
        and of a mirror of another host's stream, they count as late.
    follow : bool
        When a stream ends, go on with the next stream of the name, until `stop`: its
        program was restarted. Each is a part of its own in the journal.

    Raises
    ------
    StreamUnavailable, TimeoutError
        A stream does not exist (within `timeout`).
    LoggerError
        The directory cannot be written.

    Notes
    -----
    The recorder is a lossless consumer: a producer waits for it rather than lose a
    frame. With ``on_full="drop_newest"`` the producer gives frames up instead; they are
    counted in the journal. A slot is released only when its frame is in a file, so a
    killed recorder loses nothing: the next one resumes where it was. If the disk fails,
    frames stay in the ring, producers wait, and writing is retried until `stop`.

    Of a stream whose stamps are of another host, by its labels, the stream
    ``clock.HOST`` of the same context is recorded too, while there is one: it relates
    the two clocks. No producer waits for that, and it never fails the recording.

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
        follow: bool = False,
        **journal: Any,
    ) -> None:
        names = [streams] if isinstance(streams, str) else list(streams)
        if not names or len(set(names)) < len(names):
            raise ValueError(f"streams must be one or more unique names, got {names}")
        self.directory = Path(directory)
        self._names, self._context, self._durable = names, Context.of(context), name
        self._detached_timeout = detached_timeout
        self._is_whole = is_whole
        self._callbacks: dict[str, Any] = {"on_loss": on_loss, "on_error": on_error}
        self._journal = {"durability": durability, **journal}
        self._recordings: list[Recording] = []
        self._clocks: dict[str, FollowedRecording] = {}
        self._announcements: list[Announcement] = []
        self._lock = threading.Lock()
        joining: list[Consumer] = []
        try:
            if follow:
                # For as long as it lasts, and if it dies: each next producer waits.
                for stream in names:
                    self._announcements.append(
                        Announcement(
                            stream, name, context, is_kept=True,
                            detached_timeout=detached_timeout,
                        )
                    )  # fmt: skip
            for found in _join(names, context, name, detached_timeout, timeout):
                joining = [found.consumer]
                if not self._recordings:
                    numbers = self._numbers(names)
                    self._watch = DiskWatch(self.directory, low_disk_s, on_low_disk)
                # Start each at once: its producer would wait for the recorder.
                begun = self._record(found, numbers[found.stream])
                joining = []
                self._recordings.append(self._followed(begun) if follow else begun)
                del found, begun
            self._recordings.sort(key=lambda recording: names.index(recording.name))
        except BaseException:
            for recording in (*self._recordings, *self._clocks.values()):
                recording.stop()
            for recording in (*self._recordings, *self._clocks.values()):
                recording.join(None)
            for consumer in joining:
                consumer.close()
            self._withdraw()
            raise

    # ---- beginning

    def _record(self, found: _Joined, number: int) -> ActiveRecording:
        """Begin to record a stream that was joined, and the clock of its host."""
        stream, consumer = found.stream, found.consumer
        resume = find_resume_point(self.directory, stream, consumer.stream_id)
        open_journal = functools.partial(
            JournalWriter, self.directory, stream, **self._journal
        )
        host, _ = clock_of(consumer.labels)
        begun = ActiveRecording(
            consumer,
            open_journal(),
            number,
            resume=resume,
            on_bytes=self._check_disk,
            # A mirror begins in the midst of its stream: what was before is late.
            is_whole=(self._is_whole or found.was_absent) and not host,
            is_mirror=bool(host),
            refused=found.refused,
            open_journal=open_journal,
            open_consumer=functools.partial(
                Consumer,
                stream,
                context=self._context,
                durable=self._durable,
                detached_timeout=self._detached_timeout,
            ),
            **self._callbacks,
        )
        if host:
            try:
                self._record_clock(host)
            except Exception as error:  # the recording is worth more than its clock
                warnings.warn(
                    f"the clock of {host!r} is not recorded: {error}",
                    RuntimeWarning,
                    stacklevel=4,
                )
        return begun

    def _followed(self, first: ActiveRecording) -> FollowedRecording:
        """Go on with the next streams of the name of a recording."""
        stream, number = first.name, first.source
        after = _NextStream(stream, self._context)

        def begin(last: str) -> ActiveRecording | None:
            if not after.is_another(last):
                return None
            refused = _refused(stream, self._context)
            try:
                consumer = Consumer(
                    stream,
                    context=self._context,
                    durable=self._durable,
                    detached_timeout=self._detached_timeout,
                )
            except StreamUnavailable:
                return None
            # It was announced: what was sent before it joined is missing. If recording
            # fails, the consumer is dropped, not closed: the ring keeps the frames.
            return self._record(_Joined(stream, consumer, refused, True), number)

        return FollowedRecording(
            stream, number, begin, first, on_error=self._callbacks["on_error"]
        )

    def _record_clock(self, host: str) -> None:
        """Record the clock of another host, whenever its stream is there."""
        stream = table_name(host)
        if stream in self._clocks or stream in self._names:
            return
        after = _NextStream(stream, self._context)

        def begin(last: str) -> ActiveRecording | None:
            if not after.is_another(last) or _is_written(self.directory, stream):
                return None
            open_consumer = functools.partial(
                Consumer, stream, context=self._context, policy="lossy",
                label=self._durable,
            )  # fmt: skip
            open_journal = functools.partial(
                JournalWriter, self.directory, stream, **self._journal
            )
            try:
                consumer = open_consumer()
            except StreamUnavailable:
                return None
            journal = open_journal()
            path = journal.statistics().path
            if _is_written(self.directory, stream, path):
                # Another recorder has begun with it at the same time.
                journal.abandon()
                for file in (path, index_path(path)):
                    file.unlink(missing_ok=True)
                consumer.close()
                return None
            resume = find_resume_point(self.directory, stream, consumer.stream_id)
            return ActiveRecording(
                consumer, journal, table_number(host), resume=resume, on_loss=None,
                on_error=None, on_bytes=self._check_disk, open_consumer=open_consumer,
                open_journal=open_journal,
            )  # fmt: skip

        self._clocks[stream] = FollowedRecording(
            stream, table_number(host), begin, pause_s=CLOCK_S, is_clock=True
        )

    def _withdraw(self) -> None:
        """Let the next producers begin without it, or a dead one of its name."""
        for announcement in self._announcements:
            announcement.withdraw()
        for stream in self._names:
            forget(stream, self._durable, self._context)

    def _numbers(self, names: list[str]) -> dict[str, int]:
        """Number the streams, as an earlier recording did if there is one."""
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
            usual = (number for number in known.values() if number < FIRST_TABLE)
            known.setdefault(name, max(usual, default=-1) + 1)
        return known

    def _check_disk(self) -> None:
        with self._lock:
            self._watch.check(sum(r.nbytes for r in self._recordings))

    # ---- state

    @property
    def is_recording(self) -> bool:
        """Whether a stream is still being recorded."""
        return any(r.is_recording for r in self._recordings)

    def statistics(self) -> dict[str, RecordingStatistics]:
        """Return the state of each stream, and of the clocks of other hosts."""
        every = (*self._recordings, *self._clocks.values())
        return {r.name: r.statistics() for r in every}

    def check(self) -> None:
        """Raise the error of a stream that cannot be recorded, if there is one.

        Raises
        ------
        LoggerError
            The message states which frames are safe; the others stay in their ring.
        """
        for recording in self._recordings:
            if (error := recording.current_error) is not None:
                raise error

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until every stream has ended and is recorded; return whether it is.

        With ``follow=True`` none ends before `stop`. While the disk fails, frames stay
        in their ring and writing is retried without limit: see `check`, `statistics`
        and `on_error`.

        Raises
        ------
        LoggerError
            The recording of a stream has ended with an error.
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
        """Record every frame sent until now, close the journals, release the producers.

        Raises
        ------
        LoggerError
            Not everything could be written, or the disk has not answered for
            `STUCK_S`; the unsaved frames stay in their rings, for a recorder of the
            same name.
        """
        for recording in self._recordings:
            recording.stop()
        stuck: LoggerError | None = None
        for recording in self._recordings:
            try:
                recording.end()
            except LoggerError as error:
                stuck = stuck or error
        self._end_clocks()
        if stuck is not None:
            raise stuck
        self.check()

    def _end_clocks(self) -> None:
        """End what is recorded beside the streams; nothing waits for its disk."""
        self._withdraw()
        for clock in self._clocks.values():
            clock.stop()
        for clock in self._clocks.values():
            clock.join(SILENT_S)

    def finish(
        self, release: Latch, on_refusal: Callable[[LoggerError], object]
    ) -> dict[str, range]:
        """Record every frame sent until now, and end, however long the disk takes.

        Unlike `stop`, it retries while the disk fails, and the producers keep waiting.

        Parameters
        ----------
        release : Latch
            Set it, from a signal handler for example, to release the producers.
        on_refusal : callable
            Called with the `LoggerError`, once per stream, if the disk fails.

        Returns
        -------
        dict
            The unsaved sequence numbers of each stream that was released early.
        """
        for recording in self._recordings:
            recording.stop(is_persistent=True)
        reported = set()
        for recording in self._recordings:
            while not recording.join(CHECK_S):
                for other in self._recordings:
                    error = other.current_error
                    if error is not None and other.is_recording:
                        if other.name not in reported:
                            on_refusal(error)
                        reported.add(other.name)
                    if release.is_set():
                        other.release()
                if release.is_set() and recording.is_silent():
                    break
        self._end_clocks()
        left = {r.name: r.unsaved for r in self._recordings if len(r.unsaved)}
        for recording in self._recordings:
            # It failed without being released: its thread has ended.
            if recording.failure is not None and recording.name not in left:
                raise recording.failure
        return left

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from ataraxis.card import html_of

        return html_of("recorder", self)

    def __repr__(self) -> str:
        names = ", ".join(r.name for r in self._recordings)
        return f"<Recorder of {names} to {self.directory}>"
