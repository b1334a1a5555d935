"""Recording: one stream into one journal, by a thread, without a miss."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ataraxis._kernels.journal_write import EMPTY, ENDED, LAPPED, Tap
from ataraxis.errors import LoggerError
from ataraxis.log.journal_input import InputFile
from ataraxis.log.journal_page import files_of
from ataraxis.log.journal_record import Gap
from ataraxis.log.journal_writer import JournalWriter
from ataraxis.stream import Consumer

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
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"ataraxis-record-{self.name}", daemon=True
        )
        self._thread.start()

    # ---- the thread

    def _run(self) -> None:
        try:
            while True:
                # Asked before trying, so that a stop is followed by one more try.
                was_stopped = self._stop.is_set()
                moved = self._step()
                if was_stopped and (self.failure is not None or self._is_done(moved)):
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
            if status == LAPPED:
                self._lose(self._tap.expected or 0, self._tap.accept(), OVERTAKEN)
                frames = max(frames, 1)
            if status == EMPTY or time.monotonic() - self._looked > LOOK_S:
                self._look()
            if self._tap.held:
                self.journal.flush()
                # Not before: a slot that was given back is gone.
                self._tap.release()
            self.frames += frames
            self.nbytes += nbytes
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
        self._stop.wait(RETRY_S)

    def _finish(self) -> None:
        try:
            if self.failure is None:
                self._looked = 0.0
                self._look()
            self.journal.close()
        except LoggerError as error:
            self.failure = self.failure or error.with_traceback(None)
        self._skipped = self._tap.skipped
        consumer = self.consumer
        del self._tap, self.consumer
        if self.failure is None:
            consumer.close()
        # Else dropped, not closed: the ring keeps what is not safe, as after a death.

    # ---- the caller's side

    @property
    def is_recording(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Record what was sent until now, and end."""
        consumer = getattr(self, "consumer", None)
        if consumer is not None:
            self._last_sent = consumer.last_sent_iteration
        self._stopped = time.monotonic()
        self._stop.set()

    def join(self, timeout: float | None) -> bool:
        """Wait for the end; whether it came within `timeout`, s."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

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
