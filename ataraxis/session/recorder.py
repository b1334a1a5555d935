"""RecorderProcess: streams of a session recorded by a process of its own."""

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

# Records until it is told to end. If its standard input ends without a word, whoever
# started it is gone: then it ends at once, as if killed, so that the rings keep what is
# not on disk for ``ataraxis recover``.

END, DRAIN, RELEASE = "end", "drain", "release"
LOOK_S = 0.1
SOON_S = 0.02


class _Voice:
    """Tells what happens, a line of JSON each; any thread may."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def tell(self, **what: Any) -> None:
        with self._lock:
            sys.stdout.write(json.dumps(what) + "\n")
            sys.stdout.flush()


def run(told: dict[str, Any]) -> None:
    """Record streams until told to end.

    Parameters
    ----------
    told : dict
        ``streams``, ``directory``, ``context``, ``recorder``, ``durability``, and
        ``known``, the streams that were recorded before by one that died.
    """
    voice = _Voice()

    def say(text: str) -> None:
        voice.tell(say=text)

    def lose(loss: SessionLoss) -> None:
        voice.tell(loss=asdict(loss))

    def end(name: str, is_ended: bool) -> None:
        voice.tell(stream=name, ended=is_ended)

    tracks = [
        StreamRecorder(
            name, Path(told["directory"]), Context.of(told["context"]),
            told["recorder"], say=say, on_loss=lose, on_end=end,
            durability=told["durability"], is_known=name in told["known"],
        )
        for name in told["streams"]
    ]  # fmt: skip
    is_over, orders = Latch(), _Orders()
    Thread(_listen, "ataraxis-listen", (is_over, orders)).start()
    known = set(told["known"])
    while not is_over.wait(
        SOON_S if any(track.is_waiting for track in tracks) else LOOK_S
    ):
        for track in tracks:
            track.look()
            if track.has_begun and track.name not in known:
                known.add(track.name)
                voice.tell(known=track.name)
    release = orders.release if orders.is_patient else None
    for track in tracks:
        verdict = track.stop(release, lambda text: voice.tell(refused=text))
        voice.tell(verdict=asdict(verdict))


class _Orders:
    """How it is to end."""

    def __init__(self) -> None:
        self.is_patient = False
        self.release = Latch()


def _listen(is_over: Latch, orders: _Orders) -> None:
    order = sys.stdin.readline().strip()
    if order not in (END, DRAIN):
        os._exit(1)
    orders.is_patient = order == DRAIN
    is_over.set()
    if orders.is_patient:
        if sys.stdin.readline().strip() != RELEASE:
            os._exit(1)
        orders.release.set()


def main(text: str) -> None:
    """Run what `text` says, JSON."""
    run(json.loads(text))


# ---- `RecorderProxy`: one stream of a session that another process records


class RecorderProxy:
    """One stream of a session that another process records, seen from here.

    Parameters
    ----------
    stream : str
        Its name.
    context : Context
        Where it lives, or will.
    recorder : str
        The name its producer knows the recorder by.
    """

    def __init__(self, stream: str, context: Context, recorder: str) -> None:
        self.name = stream
        self.verdict = StreamVerdict(stream)
        self.is_known = False
        """Whether any recorder has begun with it."""
        self._lag, self._recorder = Lag(self.verdict, recorder, context), recorder
        self._lost = 0
        # Until its process has begun: a stream that comes meanwhile waits for it.
        self._announcement: Announcement | None = Announcement(
            stream, recorder, context
        )

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for its stream; its process looks often itself."""
        return False

    def _withdraw(self) -> None:
        announcement, self._announcement = self._announcement, None
        if announcement is not None:
            announcement.withdraw()

    def look(self) -> None:
        """Look how far behind its recorder is."""
        found, _ = self._seen()
        if found is None:
            self._lag.forget()
        else:
            self._lag.look(found)

    def _seen(self) -> tuple[StreamStatistics | None, ReaderStatistics | None]:
        """Look at the stream, and at its recorder's place in it: that it has begun."""
        found = self._lag.seen()
        readers = found.readers if found is not None else ()
        ours = next((r for r in readers if r.label == self._recorder), None)
        self.is_known |= ours is not None
        if self.is_known:  # its process holds one of its own
            self._withdraw()
        return found, ours

    def lose(self, loss: SessionLoss) -> None:
        """Count a loss that its recorder told."""
        self._lost += loss.count

    def merge(self, told: StreamVerdict) -> None:
        """Take in what a recorder says of it at its end."""
        self.note(*told.notes)
        self.verdict.is_trusted &= told.is_trusted
        self.verdict.missing += told.missing
        self.verdict.longest_lag = max(self.verdict.longest_lag, told.longest_lag)
        behind = max(self.verdict.longest_lag_s, told.longest_lag_s)
        self.verdict.longest_lag_s = behind

    def note(self, *texts: str) -> None:
        """Write down what is to be said of it, once."""
        known = self.verdict.notes
        known += [text for text in texts if text not in known]

    def stop(
        self,
        release: Latch | None = None,
        on_refusal: Callable[[str], object] = lambda text: None,
    ) -> StreamVerdict:
        """Say what is known of it; its recorder has ended."""
        self._withdraw()
        found = self._lag.seen()
        if found is not None and self._lag.is_promised(found):
            self.verdict.missing += self._lag.behind()
            self.verdict.is_trusted = False
            self.note("its ring holds what is not recorded: run 'ataraxis recover'")
        return self.verdict

    def statistics(self) -> RecordingStatistics:
        """Say how it goes, as far as its ring tells."""
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
    """A process that records some streams, started again when it dies.

    Parameters
    ----------
    name : str
        What the log calls it.
    streams : sequence of str
        What it records.
    directory : Path
        Of the session.
    context : Context
        Where the streams live, or will.
    recorder : str
        The name producers know it by.
    durability : str
        As `Recorder` takes it.
    say, on_loss, on_end
        As `StreamRecorder` takes them; called by whoever calls `look`.
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
    ) -> None:
        self.name = name
        self.tracks = {s: RecorderProxy(s, context, recorder) for s in streams}
        self._say, self._on_loss, self._on_end = say, on_loss, on_end
        self._on_refusal: Callable[[str], object] = say
        self._is_patient = False
        self._told = {
            "streams": [*streams], "directory": str(directory.absolute()),
            "context": str(context.path), "recorder": recorder,
            "durability": durability,
        }  # fmt: skip
        self._read = 0
        self._verdicts: set[str] = set()
        self.program = Program(
            name, self._command, str(context.path), say,
            farewell=f"{END}\n".encode(), is_reporting=True, pause_s=0.0,
        )  # fmt: skip

    def _command(self) -> list[str]:
        """Return what is run next; it is told what its predecessor had begun with."""
        self._read = 0
        known = [name for name, track in self.tracks.items() if track.is_known]
        told = json.dumps({**self._told, "known": known})
        return process_command("ataraxis.session.recorder:main", told)

    def look(self) -> None:
        """Take in what it says, and start it again if it died."""
        self._hear()
        self.program.look()

    def _hear(self) -> None:
        said = self.program.output(self._read)
        whole = said[: said.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            self._take(json.loads(line))

    def _take(self, told: dict[str, Any]) -> None:
        if "say" in told:
            self._say(told["say"])
        if "refused" in told:
            self._on_refusal(told["refused"])
        if "known" in told:
            self.tracks[told["known"]].is_known = True
        if "ended" in told:
            self._on_end(told["stream"], told["ended"])
        if "loss" in told:
            loss = SessionLoss(**told["loss"])
            self.tracks[loss.stream].lose(loss)
            self._on_loss(loss)
        if "verdict" in told:
            verdict = StreamVerdict(**told["verdict"])
            self._verdicts.add(verdict.name)
            self.tracks[verdict.name].merge(verdict)

    def tell_to_end(self, is_patient: bool = False) -> None:
        """Ask it to record what was sent until now, and to end; does not wait.

        One that is patient tries until `finish` is told to release.
        """
        self._is_patient = is_patient
        if is_patient:
            self.program.tell(f"{DRAIN}\n".encode())
        else:
            self.program.tell_to_end()

    def finish(
        self,
        release: Latch | None = None,
        on_refusal: Callable[[str], object] = lambda text: None,
    ) -> None:
        """Wait for its end; one that dies meanwhile is started again to finish."""
        self._on_refusal = on_refusal
        for left in reversed(range(TRIES)):
            if release is not None and self._is_patient:
                self._wait_until(release)
            code = self.program.wait()
            self._hear()
            if code == 0 or not left or self.program.failure:
                break
            self.program.restart()
            self.tell_to_end(self._is_patient)
        told = f": exit code {code}: {self.program.errors()}" if code else ""
        self.program.end()
        died = self.program.restarts
        for name, track in self.tracks.items():
            if self.program.failure:
                track.verdict.is_trusted = False
                track.note(self.program.failure)
            if died:
                track.note(f"its recorder died and was started again, {died} times")
            if name not in self._verdicts:
                track.verdict.is_trusted = False
                track.note(
                    f"its recorder did not end in order{told}; run 'ataraxis recover'"
                )

    def _wait_until(self, release: Latch) -> None:
        """Wait for the end of a patient one, and hear it; once released, no longer."""
        while self.program.process.poll() is None:
            self._hear()
            if release.wait(LOOK_S):
                self.program.tell(f"{RELEASE}\n".encode())
                return
