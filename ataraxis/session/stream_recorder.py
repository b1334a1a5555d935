"""`StreamRecorder`: records one stream of a session, as soon as it exists."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ataraxis.errors import (
    AtaraxisError,
    LoggerError,
    NotConnectedError,
    StreamUnavailable,
)
from ataraxis.log.disk_watch import LowDisk
from ataraxis.log.journal.page import Gap
from ataraxis.log.recorder import Recorder, RecordingStatistics
from ataraxis.session.verdict import StreamVerdict
from ataraxis.shm.context import Context
from ataraxis.shm.thread import Latch
from ataraxis.stream.announcement import Announcement
from ataraxis.stream.inspector import Inspector
from ataraxis.stream.statistics import StreamStatistics

# ---- how far the recorder of a stream is behind

_SHORTEST_S = 0.05
_OLDEST_S = 86400.0 * 365


class Lag:
    """Measures how far a recorder is behind, for the verdict of its stream."""

    def __init__(self, verdict: StreamVerdict, recorder: str, context: Context) -> None:
        self._verdict, self._recorder, self._context = verdict, recorder, context
        self._path = context.path_of(verdict.name)
        self._first: tuple[float, int] | None = None
        self._last: tuple[float, int] | None = None

    def seen(self) -> StreamStatistics | None:
        """Read the statistics of the stream; None: it does not exist."""
        if not os.path.exists(self._path):  # the frequent case, made cheap
            return None
        try:
            return Inspector(self._verdict.name, self._context).statistics()
        except (OSError, AtaraxisError):
            return None

    def look(self, found: StreamStatistics) -> None:
        """Update the verdict with new statistics."""
        now, verdict = time.monotonic(), self._verdict
        lag = self._of(found)
        verdict.longest_lag = max(verdict.longest_lag, lag)
        if self._last is None or self._first is None:
            self._first = self._last = now, found.sent
        elif now - self._last[0] > _SHORTEST_S:
            # By the faster rate: while the stream pauses, the lag does not grow.
            rate = max(
                (found.sent - sent) / (now - when)
                for when, sent in (self._first, self._last)
            )
            if rate > 0:
                verdict.longest_lag_s = max(verdict.longest_lag_s, lag / rate)
            self._last = now, found.sent

    def was_away(self, found: StreamStatistics) -> None:
        """Update the verdict with the time that a recorder was away."""
        for reader in found.readers:
            if reader.label == self._recorder and reader.is_detached and reader.lag:
                seconds = min(reader.detached_s, _OLDEST_S)
                self._verdict.longest_lag_s = max(self._verdict.longest_lag_s, seconds)
                self._verdict.longest_lag = max(self._verdict.longest_lag, reader.lag)

    def forget(self) -> None:
        """Forget the rate: the stream has ended."""
        self._first = self._last = None

    def behind(self) -> int:
        """Return how many frames wait in the ring for the recorder."""
        found = self.seen()
        return 0 if found is None else self._of(found)

    def is_promised(self, found: StreamStatistics) -> bool:
        """Return whether the ring keeps frames for the recorder, which is away."""
        return any(r.label == self._recorder and r.is_detached for r in found.readers)

    def _of(self, found: StreamStatistics) -> int:
        lags = (r.lag for r in found.readers if r.label == self._recorder)
        return max(lags, default=0)


def unsaved_text(frames: range) -> str:
    """Return a text that names frames that were not written."""
    return f"frames {frames[0]} to {frames[-1]} ({len(frames)}) are not on the disk"


# ---- the stream recorder

_PAUSE_S = 0.02


@dataclass(frozen=True)
class SessionLoss:
    """Missing frames of a session."""

    stream: str
    """Name of the stream."""
    first: int
    """Sequence of the first frame."""
    count: int
    """Number of frames."""
    reason: str
    """Reason, as far as known."""
    time_ns: int
    """Time of the discovery, monotonic ns."""


class StreamRecorder:
    """Records one stream of a session, again each time it is made.

    Parameters
    ----------
    stream : str
        Its name; it need not exist yet.
    directory : Path
        Directory of the session.
    context : Context
        Context of the stream.
    recorder : str
        Name of the recorder, as reader of the stream.
    say : callable
        Takes lines for the session's log, from any thread.
    on_loss : callable
        Called with each `SessionLoss`, from the recorder's thread.
    on_end : callable, optional
        Called with the stream's name and True when it has ended and is whole on disk,
        with False when it begins again.
    on_alarm : callable, optional
        Called with the kind of an alarm, the stream's name, and a text.
    is_known : bool
        It was recorded before, by a process that died, and may have ended.
    **options
        As `Recorder` takes them.
    """

    def __init__(
        self,
        stream: str,
        directory: Path,
        context: Context,
        recorder: str,
        *,
        say: Callable[[str], object],
        on_loss: Callable[[SessionLoss], object],
        on_end: Callable[[str, bool], object] = lambda name, is_ended: None,
        on_alarm: Callable[[str, str, str], object] = lambda kind, stream, text: None,
        is_known: bool = False,
        **options: Any,
    ) -> None:
        self.name = stream
        self._directory, self._context, self._called = directory, context, recorder
        self._is_known, self._on_end, self._on_alarm = is_known, on_end, on_alarm
        self._say, self._on_loss, self._options = say, on_loss, options
        self._recorder: Recorder | None = None
        self._verdict = StreamVerdict(stream)
        self._lag = Lag(self._verdict, recorder, context)
        self._times = 0
        self._announcement: Announcement | None = None
        self._was_absent = False
        self._error = ""
        self._before = RecordingStatistics(stream, -1, 0, 0, 0, 0, False, "")
        self._lock = threading.Lock()

    # ---- recording

    @property
    def is_recording(self) -> bool:
        """Whether the stream is recorded now."""
        return self._recorder is not None and self._recorder.is_recording

    @property
    def has_begun(self) -> bool:
        """Whether it was ever recorded."""
        return self._times > 0

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for its stream."""
        return not self.is_recording

    def begin(self, timeout: float | None = 0) -> None:
        """Record it, if it exists within `timeout`.

        Raises `StreamUnavailable` or `TimeoutError` if it does not, or ended before
        this session; `LoggerError` if the directory cannot be written.
        """
        if self._announcement is None:
            # Announced before it is looked for: its producer waits for the recorder.
            self._announcement = Announcement(self.name, self._called, self._context)
            self._was_absent = self._lag.seen() is None
        self._leave_the_past(timeout or 0)
        if (found := self._lag.seen()) is not None:
            self._lag.was_away(found)
        self._recorder = Recorder(
            self.name, self._directory, context=self._context, name=self._called,
            timeout=timeout, on_loss=self._lose, on_error=self._warn,
            on_low_disk=self._low, is_whole=self._was_absent, **self._options,
        )  # fmt: skip
        # It stays announced: if made again, it is recorded from its first frame on.
        self._was_absent = True
        self._times += 1
        self._on_end(self.name, False)
        again = "" if self._times == 1 else f", made again, time {self._times}"
        self._say(f"recording {self.name!r}{again}")

    def withdraw(self) -> None:
        """Withdraw its announcement."""
        if self._announcement is not None:
            self._announcement.withdraw()

    def _leave_the_past(self, timeout: float) -> None:
        """Wait while the name means a stream that ended before this session."""
        deadline = time.monotonic() + timeout
        while (found := self._lag.seen()) is not None and not self._is_ours(found):
            if time.monotonic() >= deadline:
                raise StreamUnavailable(
                    f"stream {self.name!r} had ended before its recording began: "
                    "its ring holds frames of an earlier run ('ataraxis gc' "
                    "removes it). Start its source"
                )
            time.sleep(_PAUSE_S)

    def _is_ours(self, found: StreamStatistics) -> bool:
        """Return whether it has a producer, or keeps frames for this recorder."""
        return bool(found.producers) or self._lag.is_promised(found)

    def look(self) -> None:
        """Measure how far behind the recorder is; begin if the stream was made."""
        found = self._lag.seen()
        if found is None:
            self._retire()
            return
        if not self.is_recording:
            self._retire()
            if self._is_ours(found):
                self._try()
            return
        self._lag.look(found)
        error = self.statistics().error
        if error and error != self._error:
            self._warn(error)
        self._error = error

    def _try(self) -> None:
        try:
            self.begin()
        except (StreamUnavailable, NotConnectedError):
            return  # it does not exist yet, or only its name is reserved
        except Exception as error:  # it is in the log and in the verdict
            self._doubt(f"could not be recorded: {error}")

    def _retire(self) -> None:
        """Close a recorder whose stream has ended."""
        recorder = self._recorder
        if recorder is None or recorder.is_recording:
            return
        try:
            recorder.stop()
        except LoggerError as error:
            self._doubt(str(error))
        else:
            self._on_end(self.name, True)
        self._drop_recorder()
        self._say(f"{self.name!r} has ended; {self._before.frames} frames recorded")

    # ---- the end

    def stop(
        self,
        release: Latch | None = None,
        on_refusal: Callable[[str], object] = lambda text: None,
    ) -> StreamVerdict:
        """Record what was sent until now, and end; return the verdict.

        With `release`, it tries again while the disk refuses writes, and calls
        `on_refusal`, until that is set: then the producer is released, and the verdict
        names the frames that are not on disk.
        """
        self.look()
        self.withdraw()
        recorder = self._recorder
        if recorder is not None:
            try:
                if release is None:
                    recorder.stop()
                else:
                    self._finish(recorder, release, on_refusal)
            except LoggerError as error:
                self._verdict.missing += self._lag.behind()
                self._doubt(f"{error}; make room, then run 'ataraxis recover'")
            self._drop_recorder()
            frames = self._before.frames
            self._say(f"stopped recording {self.name!r}; {frames} frames recorded")
        if not self._times and not self._is_known:
            self._doubt(self._absence())
        if self._times > 1:
            self._verdict.note(f"was made again {self._times - 1} times")
        return self._verdict

    def _finish(
        self, recorder: Recorder, release: Latch, on_refusal: Callable[[str], object]
    ) -> None:
        def refused(error: LoggerError) -> None:
            on_refusal(f"{self.name!r} cannot be written to its end: {error}")

        for unsaved in recorder.finish(release, refused).values():
            self._verdict.missing += len(unsaved)
            self._doubt(f"{unsaved_text(unsaved)}: released before they were written")

    def _absence(self) -> str:
        """Return why nothing of it was recorded."""
        if self._lag.seen() is None:
            return "never existed"
        return "had ended before its recording began: start the session first"

    def statistics(self) -> RecordingStatistics:
        """Return the statistics of all recordings of the stream together."""
        with self._lock:
            recorder, before = self._recorder, self._before
            now = recorder.statistics()[self.name] if recorder is not None else None
        if now is None:
            return before
        return replace(
            now,
            frames=now.frames + before.frames,
            nbytes=now.nbytes + before.nbytes,
            lost=now.lost + before.lost,
            skipped=now.skipped + before.skipped,
        )

    def _drop_recorder(self) -> None:
        """Add the statistics of the recorder to those before, and drop it."""
        done = self.statistics()
        with self._lock:
            self._recorder = None
            self._before = replace(done, is_recording=False)
        self._lag.forget()

    # ---- losses and errors

    def _lose(self, gap: Gap) -> None:
        loss = SessionLoss(self.name, gap.first, gap.count, gap.reason, gap.time_ns)
        self._say(
            f"LOST {gap.count} frames of {self.name!r} at {gap.first}: {gap.reason}"
        )
        self._verdict.note(f"{gap.count} frames from {gap.first} on: {gap.reason}")
        self._on_loss(loss)

    def _warn(self, error: LoggerError | str) -> None:
        self._error = str(error)
        self._say(f"{self.name!r} cannot be written: {error}")
        self._verdict.note(f"could not be written for some time: {error}")
        self._on_alarm("recorder_down", self.name, f"it cannot be written: {error}")

    def _low(self, low: LowDisk) -> None:
        self._say(f"the disk is filling up: {low}")
        self._on_alarm("low_disk", self.name, str(low))

    def _doubt(self, text: str) -> None:
        if text not in self._verdict.notes:
            self._say(f"{self.name!r}: {text}")
        self._verdict.doubt(text)
