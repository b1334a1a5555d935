"""RecorderProcess: a process that records streams of a session."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ataraxis.log.recorder import RecordingStatistics
from ataraxis.session.process import Program
from ataraxis.session.stream_recorder import Lag, SessionLoss, StreamRecorder
from ataraxis.session.verdict import StreamVerdict
from ataraxis.shm.context import Context
from ataraxis.shm.process import process_command
from ataraxis.shm.thread import Latch, Thread
from ataraxis.stream.announcement import Announcement
from ataraxis.stream.statistics import ReaderStatistics, StreamStatistics

# ---- the program of a recorder of a session; `RecorderProcess` starts it

# Records until its standard input has an order to end. If that ends without one, the
# process that started it has died: then it ends at once, as if killed, so that the
# rings keep what is not on disk for ``ataraxis recover``.

END, DRAIN, RELEASE = "end", "drain", "release"
LOOK_S = 0.1
SOON_S = 0.02


def run(options: dict[str, Any]) -> None:
    """Record streams until an order to end.

    The options are ``streams``, ``directory``, ``context``, ``recorder``,
    ``durability``, and ``known``, the streams that a recorder that died had begun with.
    """
    lock = threading.Lock()

    def report(**message: Any) -> None:
        with lock:  # several threads report
            sys.stdout.write(json.dumps(message) + "\n")
            sys.stdout.flush()

    recorders = [
        StreamRecorder(
            name, Path(options["directory"]), Context.of(options["context"]),
            options["recorder"], say=lambda text: report(note=text),
            on_loss=lambda loss: report(loss=asdict(loss)),
            on_alarm=lambda *alarm: report(alarm=alarm),
            on_end=lambda stream, is_ended: report(stream=stream, ended=is_ended),
            durability=options["durability"], is_known=name in options["known"],
        )
        for name in options["streams"]
    ]  # fmt: skip
    orders = _Orders()
    Thread(orders.read, "ataraxis-orders").start()
    known = set(options["known"])
    while not orders.end.wait(
        SOON_S if any(recorder.is_waiting for recorder in recorders) else LOOK_S
    ):
        for recorder in recorders:
            recorder.look()
            if recorder.has_begun and recorder.name not in known:
                known.add(recorder.name)
                report(known=recorder.name)
    release = orders.release if orders.is_patient else None
    for recorder in recorders:
        verdict = recorder.stop(release, lambda text: report(refused=text))
        report(verdict=asdict(verdict))


class _Orders:
    """Orders to end, read from standard input."""

    def __init__(self) -> None:
        self.end, self.release, self.is_patient = Latch(), Latch(), False

    def read(self) -> None:
        """Read them; end the process without one."""
        order = sys.stdin.readline().strip()
        if order not in (END, DRAIN):
            os._exit(1)
        self.is_patient = order == DRAIN
        self.end.set()
        if self.is_patient:
            if sys.stdin.readline().strip() != RELEASE:
                os._exit(1)
            self.release.set()


def main(text: str) -> None:
    """Run with options in JSON."""
    run(json.loads(text))


# ---- `RecorderProxy`: one stream of a session that another process records


class RecorderProxy:
    """One stream, which may not exist yet, that another process records.

    `recorder` is its name as reader of the stream.
    """

    def __init__(self, stream: str, context: Context, recorder: str) -> None:
        self.name = stream
        self.verdict = StreamVerdict(stream)
        self.is_known = False
        """Whether a recorder has begun with it."""
        self._lag, self._recorder = Lag(self.verdict, recorder, context), recorder
        self._lost = 0
        # Until its process has begun: a stream made meanwhile waits for the recorder.
        self._announcement = Announcement(stream, recorder, context)

    @property
    def is_waiting(self) -> bool:
        """False: its process waits for the stream."""
        return False

    def look(self) -> None:
        """Measure how far behind its recorder is."""
        found, _ = self._seen()
        if found is None:
            self._lag.forget()
        else:
            self._lag.look(found)

    def _seen(self) -> tuple[StreamStatistics | None, ReaderStatistics | None]:
        """Read the statistics of the stream, and those of its recorder in it."""
        found = self._lag.seen()
        readers = found.readers if found is not None else ()
        ours = next((r for r in readers if r.label == self._recorder), None)
        self.is_known |= ours is not None
        if self.is_known:  # its process has announced itself
            self._announcement.withdraw()
        return found, ours

    def lose(self, loss: SessionLoss) -> None:
        """Count a loss that its recorder reported."""
        self._lost += loss.count

    def merge(self, other: StreamVerdict) -> None:
        """Add the verdict of a recorder process."""
        self.verdict.note(*other.notes)
        self.verdict.is_trusted &= other.is_trusted
        self.verdict.missing += other.missing
        self.verdict.longest_lag = max(self.verdict.longest_lag, other.longest_lag)
        behind = max(self.verdict.longest_lag_s, other.longest_lag_s)
        self.verdict.longest_lag_s = behind

    def stop(
        self,
        release: Latch | None = None,
        on_refusal: Callable[[str], object] = lambda text: None,
    ) -> StreamVerdict:
        """Return the verdict; its recorder has ended."""
        self._announcement.withdraw()
        found = self._lag.seen()
        if found is not None and self._lag.is_promised(found):
            self.verdict.missing += self._lag.behind()
            self.verdict.doubt(
                "its ring holds what is not recorded: run 'ataraxis recover'"
            )
        return self.verdict

    def statistics(self) -> RecordingStatistics:
        """Return statistics, as far as the ring has them."""
        found, ours = self._seen()
        if found is None or ours is None:
            return RecordingStatistics(self.name, -1, 0, 0, self._lost, 0, False, "")
        frames = max(found.sent - ours.joined_sequence - ours.lag, 0)
        mean = found.sent_bytes // max(found.sent, 1)
        return RecordingStatistics(
            self.name, -1, frames, frames * mean, self._lost, 0,
            not ours.is_detached, "",
        )  # fmt: skip


# ---- the process

TRIES = 3


class RecorderProcess:
    """A process that records some streams; it is restarted when it dies.

    `name` is its name in the session's log, `recorder` that as reader of the streams.
    The callbacks are those of `StreamRecorder`, called within `look` and `finish`.
    """

    def __init__(
        self,
        name: str,
        streams: Sequence[str],
        directory: Path,
        context: Context,
        recorder: str,
        durability: str,
        *,
        say: Callable[[str], object],
        on_loss: Callable[[SessionLoss], object],
        on_end: Callable[[str, bool], object],
        on_alarm: Callable[[str, str, str], object] = lambda kind, stream, text: None,
    ) -> None:
        self.name = name
        self.tracks = {s: RecorderProxy(s, context, recorder) for s in streams}
        self._say, self._on_loss, self._on_end = say, on_loss, on_end
        self._on_alarm = on_alarm
        self._on_refusal: Callable[[str], object] = say
        self._is_patient = False
        self._options = {
            "streams": [*streams], "directory": str(directory.absolute()),
            "context": str(context.path), "recorder": recorder,
            "durability": durability,
        }  # fmt: skip
        self._read = 0
        self._verdicts: set[str] = set()
        self.program = Program(
            name, self._command, str(context.path), say,
            end_message=f"{END}\n".encode(), is_reporting=True, pause_s=0.0,
            on_failure=lambda text: on_alarm(
                "recorder_down", streams[0] if len(streams) == 1 else "",
                f"{name!r}, which records {', '.join(streams)}: {text}",
            ),
        )  # fmt: skip

    def _command(self) -> list[str]:
        """Return what is run next, with the streams that were begun before."""
        self._read = 0
        known = [name for name, track in self.tracks.items() if track.is_known]
        options = json.dumps({**self._options, "known": known})
        return process_command("ataraxis.session.recorder:main", options)

    def look(self) -> None:
        """Read its messages, and restart it if it died."""
        self._read_messages()
        self.program.look()

    def _read_messages(self) -> None:
        output = self.program.output(self._read)
        whole = output[: output.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            self._handle(json.loads(line))

    def _handle(self, message: dict[str, Any]) -> None:
        if "note" in message:
            self._say(message["note"])
        if "refused" in message:
            self._on_refusal(message["refused"])
        if "known" in message:
            self.tracks[message["known"]].is_known = True
        if "ended" in message:
            self._on_end(message["stream"], message["ended"])
        if "alarm" in message:
            self._on_alarm(*message["alarm"])
        if "loss" in message:
            loss = SessionLoss(**message["loss"])
            self.tracks[loss.stream].lose(loss)
            self._on_loss(loss)
        if "verdict" in message:
            verdict = StreamVerdict(**message["verdict"])
            self._verdicts.add(verdict.name)
            self.tracks[verdict.name].merge(verdict)

    def request_end(self, is_patient: bool = False) -> None:
        """Ask it to record what was sent until now, and to end; does not wait.

        With `is_patient` it tries until `finish` releases it.
        """
        self._is_patient = is_patient
        if is_patient:
            self.program.send(f"{DRAIN}\n".encode())
        else:
            self.program.request_end()

    def finish(
        self,
        release: Latch | None = None,
        on_refusal: Callable[[str], object] = lambda text: None,
    ) -> None:
        """Wait until it has ended; if it dies, restart it to finish."""
        self._on_refusal = on_refusal
        for left in reversed(range(TRIES)):
            if release is not None and self._is_patient:
                self._wait_until(release)
            code = self.program.wait()
            self._read_messages()
            if code == 0 or not left or self.program.failure:
                break
            self.program.restart()
            self.request_end(self._is_patient)
        reason = f": exit code {code}: {self.program.last_error()}" if code else ""
        self.program.end()
        died = self.program.restarts
        for name, track in self.tracks.items():
            if self.program.failure:
                track.verdict.doubt(self.program.failure)
            if died:
                track.verdict.note(
                    f"its recorder died and was started again, {died} times"
                )
            if name not in self._verdicts:
                track.verdict.doubt(
                    f"its recorder did not end in order{reason}; run 'ataraxis recover'"
                )

    def _wait_until(self, release: Latch) -> None:
        """Read messages until it has ended; send it the release once that is set."""
        while self.program.process.poll() is None:
            self._read_messages()
            if release.wait(LOOK_S):
                self.program.send(f"{RELEASE}\n".encode())
                return
