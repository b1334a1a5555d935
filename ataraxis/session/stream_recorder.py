"""`StreamRecorder`: one stream of a session, recorded from when it appears."""

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

# ---- lag: how far behind the recorder of a stream is, and was at most

_SHORTEST_S = 0.05
_OLDEST_S = 86400.0 * 365


class Lag:
    """Writes into a verdict how far behind its recorder was.

    Parameters
    ----------
    verdict : StreamVerdict
        Of the stream.
    recorder : str
        The name its producer knows the recorder by.
    context : Context
        Where the stream lives.
    """

    def __init__(self, verdict: StreamVerdict, recorder: str, context: Context) -> None:
        self._verdict, self._recorder, self._context = verdict, recorder, context
        self._path = context.path_of(verdict.name)
        self._first: tuple[float, int] | None = None
        self._last: tuple[float, int] | None = None

    def seen(self) -> StreamStatistics | None:
        """Read the stream's words; None: it is not there."""
        if not os.path.exists(self._path):  # the common answer: let it cost little
            return None
        try:
            return Inspector(self._verdict.name, self._context).statistics()
        except (OSError, AtaraxisError):
            return None

    def look(self, found: StreamStatistics) -> None:
        """Take in what was just seen."""
        now, verdict = time.monotonic(), self._verdict
        lag = self._of(found)
        verdict.longest_lag = max(verdict.longest_lag, lag)
        if self._last is None or self._first is None:
            self._first = self._last = now, found.sent
        elif now - self._last[0] > _SHORTEST_S:
            # A stream that pauses or ends while some wait is not behind any further.
            rate = max(
                (found.sent - sent) / (now - when)
                for when, sent in (self._first, self._last)
            )
            if rate > 0:
                verdict.longest_lag_s = max(verdict.longest_lag_s, lag / rate)
            self._last = now, found.sent

    def was_away(self, found: StreamStatistics) -> None:
        """Take in how long frames have waited for a recorder that comes back now."""
        for reader in found.readers:
            if reader.label == self._recorder and reader.is_detached and reader.lag:
                seconds = min(reader.detached_s, _OLDEST_S)
                self._verdict.longest_lag_s = max(self._verdict.longest_lag_s, seconds)
                self._verdict.longest_lag = max(self._verdict.longest_lag, reader.lag)

    def forget(self) -> None:
        """Begin anew: the stream has ended."""
        self._first = self._last = None

    def behind(self) -> int:
        """Count the frames that wait in the ring for the recorder."""
        found = self.seen()
        return 0 if found is None else self._of(found)

    def is_promised(self, found: StreamStatistics) -> bool:
        """Whether the ring keeps frames for the recorder, which is away."""
        return any(r.label == self._recorder and r.is_detached for r in found.readers)

    def _of(self, found: StreamStatistics) -> int:
        lags = (r.lag for r in found.readers if r.label == self._recorder)
        return max(lags, default=0)


def unsaved_text(frames: range) -> str:
    """Name frames that are in no file."""
    return f"frames {frames[0]} to {frames[-1]} ({len(frames)}) are not on the disk"


# ---- the stream recorder

_PAUSE_S = 0.02


@dataclass(frozen=True)
class SessionLoss:
    """Frames of a session that are missing, as soon as it is known."""

    stream: str
    """Whose."""
    first: int
    """Sequence of the first one."""
    count: int
    """How many."""
    reason: str
    """Why, as far as is known."""
    time_ns: int
    """When it was noticed, monotonic ns."""


class StreamRecorder:
    """Records one stream of a session, again each time it is made anew.

    Parameters
    ----------
    stream : str
        Its name; it need not be there yet.
    directory : Path
        Of the session.
    context : Context
        Where the stream lives, or will.
    recorder : str
        The name its producer knows the recorder by.
    say : callable
        Takes lines of the session's log, from any thread.
    on_loss : callable
        Called with each `SessionLoss`, from the recorder's thread.
    on_end : callable, optional
        Called with the stream's name and True when it has ended and is whole on disk,
        with False when it begins again.
    is_known : bool
        It was recorded before, by a process that died: it may be over already.
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
        is_known: bool = False,
        **options: Any,
    ) -> None:
        self.name = stream
        self._directory, self._context, self._called = directory, context, recorder
        self._is_known, self._on_end = is_known, on_end
        self._say, self._on_loss, self._options = say, on_loss, options
        self._recorder: Recorder | None = None
        self._verdict = StreamVerdict(stream)
        self._lag = Lag(self._verdict, recorder, context)
        self._times = 0
        self._announcement: Announcement | None = None
        self._was_absent = False
        self._said = ""
        self._before = RecordingStatistics(stream, -1, 0, 0, 0, 0, False, "")
        self._lock = threading.Lock()

    # ---- while it goes on

    @property
    def is_recording(self) -> bool:
        """Whether the stream is there and being recorded."""
        return self._recorder is not None and self._recorder.is_recording

    @property
    def has_begun(self) -> bool:
        """Whether it was there, ever."""
        return self._times > 0

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for its stream."""
        return not self.is_recording

    def begin(self, timeout: float | None = 0) -> None:
        """Record it, if it is there (within `timeout`).

        Raises
        ------
        StreamUnavailable, TimeoutError
            It is not; or what has its name ended before, and is no frame of this
            session.
        LoggerError
            The directory cannot be written.
        """
        if self._announcement is None:
            # Announced first, and looked for then: its producer waits for us.
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
        # It stays announced: made again, it begins at its first frame, too.
        self._was_absent = True
        self._times += 1
        self._on_end(self.name, False)
        again = "" if self._times == 1 else f", made anew, time {self._times}"
        self._say(f"recording {self.name!r}{again}")

    def withdraw(self) -> None:
        """Announce it no longer."""
        announcement, self._announcement = self._announcement, None
        if announcement is not None:
            announcement.withdraw()

    def _leave_the_past(self, timeout: float) -> None:
        """Wait while the name means a stream that ended before it was recorded."""
        deadline = time.monotonic() + timeout
        while (found := self._lag.seen()) is not None and not self._is_ours(found):
            if time.monotonic() >= deadline:
                raise StreamUnavailable(
                    f"stream {self.name!r} had ended before it was to be recorded: "
                    "what it left in its ring is of an earlier run ('ataraxis gc' "
                    "removes it). Start its source"
                )
            time.sleep(_PAUSE_S)

    def _is_ours(self, found: StreamStatistics) -> bool:
        """Whether somebody sends, or the ring keeps frames for our recorder."""
        return bool(found.producers) or self._lag.is_promised(found)

    def look(self) -> None:
        """Look how far behind the recorder is; begin, if the stream has come."""
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
        if error and error != self._said:
            self._warn(error)
        self._said = error

    def _try(self) -> None:
        try:
            self.begin()
        except (StreamUnavailable, NotConnectedError):
            return  # not there yet, or its producer just keeps the name for us
        except Exception as error:  # told at the end, and in the log
            self._doubt(f"could not be recorded: {error}")

    def _retire(self) -> None:
        """Let go of a recorder whose stream has ended."""
        recorder = self._recorder
        if recorder is None or recorder.is_recording:
            return
        try:
            recorder.stop()
        except LoggerError as error:
            self._doubt(str(error))
        else:
            self._on_end(self.name, True)
        self._let_go()
        self._say(f"{self.name!r} has ended; {self._before.frames} frames recorded")

    # ---- the end

    def stop(
        self,
        release: Latch | None = None,
        on_refusal: Callable[[str], object] = lambda text: None,
    ) -> StreamVerdict:
        """Record what was sent until now, and end; what is known by then.

        With `release`, it goes on trying while the disk refuses, and says so to
        `on_refusal`, until that is set: then the producer is let go, and the verdict
        names the frames that are not on the disk.
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
            self._let_go()
            frames = self._before.frames
            self._say(f"stopped recording {self.name!r}; {frames} frames recorded")
        if not self._times and not self._is_known:
            self._doubt(self._absence())
        if self._times > 1:
            self._note(f"was made anew {self._times - 1} times")
        return self._verdict

    def _finish(
        self, recorder: Recorder, release: Latch, on_refusal: Callable[[str], object]
    ) -> None:
        def refused(error: LoggerError) -> None:
            on_refusal(f"{self.name!r} cannot be written to its end: {error}")

        for unsaved in recorder.finish(release, refused).values():
            self._verdict.missing += len(unsaved)
            self._doubt(f"{unsaved_text(unsaved)}: let go before the disk took them")

    def _absence(self) -> str:
        """Say why nothing of it was recorded."""
        if self._lag.seen() is None:
            return "was never there"
        return "had ended before it was to be recorded: start the session first"

    def statistics(self) -> RecordingStatistics:
        """Say how it goes, each time that the stream was made taken together."""
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

    def _let_go(self) -> Recorder | None:
        """Count what the recorder did, and be without one."""
        done = self.statistics()
        with self._lock:
            recorder, self._recorder = self._recorder, None
            self._before = replace(done, is_recording=False)
        self._lag.forget()
        return recorder

    # ---- what goes wrong

    def _lose(self, gap: Gap) -> None:
        loss = SessionLoss(self.name, gap.first, gap.count, gap.reason, gap.time_ns)
        self._say(
            f"LOST {gap.count} frames of {self.name!r} at {gap.first}: {gap.reason}"
        )
        self._note(f"{gap.count} frames from {gap.first} on: {gap.reason}")
        self._on_loss(loss)

    def _warn(self, error: LoggerError | str) -> None:
        self._said = str(error)
        self._say(f"{self.name!r} cannot be written: {error}")
        self._note(f"could not be written for some time: {error}")

    def _low(self, low: LowDisk) -> None:
        self._say(f"the disk is filling up: {low}")

    def _note(self, text: str) -> None:
        if text not in self._verdict.notes:
            self._verdict.notes.append(text)

    def _doubt(self, text: str) -> None:
        if text not in self._verdict.notes:
            self._say(f"{self.name!r}: {text}")
        self._verdict.is_trusted = False
        self._note(text)
