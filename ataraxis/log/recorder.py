"""Recorder: streams to disk, each frame of each."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ataraxis._kernels.journal_write import (
    DAMAGED,
    EMPTY,
    ENDED,
    LAPPED,
    RecordKernel,
    Tap,
)
from ataraxis.errors import LoggerError
from ataraxis.log.disk_watch import DiskWatch, LowDisk
from ataraxis.log.journal.input import InputFile
from ataraxis.log.journal.page import Gap, files_of
from ataraxis.log.journal.reader import JournalReader
from ataraxis.log.journal.writer import JournalWriter
from ataraxis.log.modes import make_folder
from ataraxis.shm.context import ContextLike
from ataraxis.shm.thread import Latch, Thread
from ataraxis.stream import Consumer

# ---- recording: one stream into one journal, by a thread, without a miss

REFUSED = "given up by the producer, for no slot was free"
OVERTAKEN = "overwritten before they were recorded"
SLICE_S = 0.2
RETRY_S = 0.2
LINGER_S = 0.5
LOOK_S = 0.1


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


@dataclass(frozen=True)
class Past:
    """What is on disk of a stream already."""

    expected: int | None
    """First sequence that is not; None: nothing is there."""
    refused: int
    """Frames that were counted as given up by the producer."""


class Recording:
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
    ) -> None:
        self.consumer, self.journal, self.source = consumer, journal, source
        self.name = journal.name
        self.failure: LoggerError | None = None
        """What keeps it from writing."""
        self._on_loss, self._on_error, self._on_bytes = on_loss, on_error, on_bytes
        self._tap = Tap(consumer, past.expected)
        self._refused = past.refused
        self._looked = self._stopped = 0.0
        self._last_sent: int | None = None
        self.frames = self.nbytes = self.lost = self._skipped = 0
        journal.describe(
            source,
            self.name,
            consumer.labels if consumer.is_typed else None,
            stream=consumer.stream_id,
        )
        self._labels = journal.labels_id(consumer.labels) if consumer.is_typed else -1
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

    # ---- the thread

    def _run(self) -> None:
        try:
            while True:
                # Asked before trying, so that a stop is followed by one more try.
                was_stopped = self._stop.is_set()
                moved = self._step()
                if was_stopped and self._may_end(moved):
                    break
                if moved or was_stopped or self.failure is not None:
                    continue
                if self._tap.wait(SLICE_S) == ENDED:
                    break
        except Exception as error:
            self.failure = LoggerError(
                f"recording of {self.name!r} ended: {error!r}; what was not written "
                "stays in the ring"
            )
        finally:
            self._finish()

    def _may_end(self, moved: int) -> bool:
        """Whether all is recorded, or what is not is given up."""
        if self.failure is not None:
            return not self._is_patient or self._release.is_set()
        return self._is_done(moved) or self._release.is_set()

    def _is_done(self, moved: int) -> bool:
        """Whether all that was sent before `stop` is recorded."""
        if (self._tap.expected or 0) < (self._last_sent or 0):
            # Somebody is in the middle of a frame, or nothing is left after all.
            time.sleep(0 if moved else 0.001)
            return not moved and not self.consumer.has_next
        # Of several producers' frames some may be behind: look until there are none.
        return not moved or time.monotonic() > self._stopped + LINGER_S

    def _step(self) -> int:
        """Record what is there now, and give its slots back; how many frames."""
        frames = 0
        try:
            frames, nbytes, status = self.journal.draw(
                self._tap, self.source, self._labels
            )
            # In the journal, in memory at least: what is not written is tried again.
            self.frames += frames
            self.nbytes += nbytes
            if status == LAPPED:
                self._lose(self._tap.expected or 0, self._tap.accept(), OVERTAKEN)
                frames = max(frames, 1)
            if status == EMPTY or time.monotonic() - self._looked > LOOK_S:
                self._look()
            if self._tap.held:
                self.journal.flush()
                # Not before: a slot that was given back is gone.
                self._tap.release()
            if status == DAMAGED:
                self._tap.complain()
        except LoggerError as error:
            self._fail(error)
            return 0
        self.failure = None
        if frames:
            self._on_bytes()
        return frames

    def _look(self) -> None:
        """Count what the producer gave up because of us or others."""
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        refused = self.consumer.statistics().refused
        if refused > self._refused:
            count, self._refused = refused - self._refused, refused
            self._lose(self._tap.expected or 0, count, REFUSED)

    def _lose(self, first: int, count: int, reason: str) -> None:
        self.journal.gap(self.source, first, count, reason)
        self.lost += count
        if self._on_loss is not None:
            self._on_loss(Gap(self.source, first, count, reason, time.monotonic_ns()))

    def _fail(self, error: LoggerError) -> None:
        """Keep the frames, let the producer wait, and try again."""
        # Its traceback would hold the consumer.
        is_new, self.failure = self.failure is None, error.with_traceback(None)
        if is_new and self._on_error is not None:
            self._on_error(error)
        (self._release if self._stop.is_set() else self._stop).wait(RETRY_S)

    def _finish(self) -> None:
        try:
            if self.failure is None:
                self._looked = 0.0
                self._look()
                self._finish_journal()
            self.journal.close()
        except LoggerError as error:
            self.failure = self.failure or error.with_traceback(None)
        self._skipped = self._tap.skipped
        consumer = self.consumer
        if self._release.is_set():
            self.unsaved = self._missing_from_files()
            _give_back(self._tap)
        del self._tap, self.consumer
        if self.failure is None or self._release.is_set():
            consumer.close()
        # Else dropped, not closed: the ring keeps what is not safe, as after a death.

    def _finish_journal(self) -> None:
        """Write that the journal is complete, again while the disk refuses."""
        while True:
            try:
                self.journal.finish()
            except LoggerError as error:
                self._fail(error)
                if self._stop.is_set() and self._may_end(0):
                    return
            else:
                self.failure = None
                return

    def _missing_from_files(self) -> range:
        """Find the frames that were sent and are in no file; the journal is closed."""
        sent = self.consumer.last_sent_iteration
        first = self._tap.expected
        if first is None:
            first = self._tap.found
        if first is None:
            return range(sent, sent)
        said = self.journal.statistics()
        # Records of the journal's own may wait, too.
        kept = min(said.entries - said.written, self._tap.held)
        return range(max(first - kept, 0), max(sent, first))

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

    def join(self, timeout: float | None) -> bool:
        """Wait for the end; whether it came within `timeout`, s."""
        return self._thread.join(timeout)

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
            str(self.failure or ""),
        )


class _Nowhere(RecordKernel):
    """A file that takes every frame and keeps none."""

    def __init__(self, descriptor: int) -> None:
        self._open(descriptor, descriptor, 0, 0, (1 << 63) - 1, 0, 1 << 16)


def _give_back(tap: Tap) -> None:
    """Give back the slots of frames that no file takes; one that is held stays."""
    descriptor = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        while tap.found is not None:
            if tap.record(_Nowhere(descriptor), -1, -1)[2] == LAPPED:
                tap.accept()
            tap.release()
        tap.release()
    finally:
        os.close(descriptor)


def past_of(directory: Path, name: str, stream_id: str) -> Past:
    """Find what is on disk of a very stream: where an earlier recorder was stopped."""
    expected, refused = None, 0
    for path in reversed(files_of(directory, name).get(name, [])):
        file = InputFile(path)
        said: list[dict[str, Any]] = list(file.notes.sources.values())
        if not any(source.get("stream") == stream_id for source in said):
            continue
        gaps = file.notes.gaps
        refused += sum(gap.count for gap in gaps if gap.reason == REFUSED)
        if expected is None and len(file):
            tail = file.entries(max(len(file) - 4096, 0), len(file))
            good = tail[tail["state"] == 0]
            if len(good):
                expected = int(good["sequence"].max()) + 1
        file.close()
    return Past(expected, refused)


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
        **journal: Any,
    ) -> None:
        names = [streams] if isinstance(streams, str) else list(streams)
        if not names or len(set(names)) < len(names):
            raise ValueError(f"streams={names}: one or more, each once")
        self.directory = Path(directory)
        self._recordings: list[Recording] = []
        self._lock = threading.Lock()
        deadline = None if timeout is None else time.monotonic() + timeout
        consumers = []
        try:
            for stream in names:
                left = None if deadline is None else deadline - time.monotonic()
                consumer = Consumer(
                    stream,
                    context=context,
                    durable=name,
                    detached_timeout=detached_timeout,
                    timeout=None if left is None else max(left, 0),
                )
                consumers.append(consumer)
            numbers = self._numbers(names)
            self._watch = DiskWatch(self.directory, low_disk_s, on_low_disk)
            for stream, consumer in zip(names, consumers, strict=True):
                past = past_of(self.directory, stream, consumer.stream_id)
                output = JournalWriter(
                    self.directory, stream, durability=durability, **journal
                )
                self._recordings.append(
                    Recording(
                        consumer,
                        output,
                        numbers[stream],
                        past=past,
                        on_loss=on_loss,
                        on_error=on_error,
                        on_bytes=self._look,
                    )
                )
        except BaseException:
            for recording in self._recordings:
                recording.stop()
                recording.join(None)
            for consumer in consumers[len(self._recordings) :]:
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
            if recording.failure is not None:
                raise recording.failure

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until every stream has ended and is recorded; whether that is so.

        Raises
        ------
        LoggerError
            A stream cannot be recorded.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        for recording in self._recordings:
            while recording.is_recording:
                self.check()
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
            Not everything could be written: the frames that are not safe stay in their
            rings, for a recorder of the same name.
        """
        for recording in self._recordings:
            recording.stop()
        for recording in self._recordings:
            recording.join(None)
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
                    failure = other.failure
                    if failure is not None and other.is_recording:
                        if other.name not in told:
                            on_refusal(failure)
                        told.add(other.name)
                    if release.is_set():
                        other.release()
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
