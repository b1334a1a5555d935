"""RecorderProcess: streams of a session recorded by a process of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ataraxis.session.program import Program
from ataraxis.session.recorder_program import END
from ataraxis.session.track import SessionLoss
from ataraxis.session.verdict import StreamVerdict
from ataraxis.session.watched_track import WatchedTrack
from ataraxis.shm.context import Context
from ataraxis.shm.process import python_command

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
        As `Track` takes them; called by whoever calls `look`.
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
        self.tracks = {s: WatchedTrack(s, context, recorder) for s in streams}
        self._say, self._on_loss, self._on_end = say, on_loss, on_end
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
        code = (
            "from ataraxis.session.recorder_program import main; "
            "raise SystemExit(main())"
        )
        return python_command(code, json.dumps({**self._told, "known": known}))

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

    def tell_to_end(self) -> None:
        """Ask it to record what was sent until now, and to end; does not wait."""
        self.program.tell_to_end()

    def finish(self) -> None:
        """Wait for its end; one that dies meanwhile is started again to finish."""
        for left in reversed(range(TRIES)):
            code = self.program.wait()
            self._hear()
            if code == 0 or not left:
                break
            self.program.restart()
            self.program.tell_to_end()
        self.program.end()
        died = self.program.restarts
        for name, track in self.tracks.items():
            if died:
                track.note(f"its recorder died and was started again, {died} times")
            if name not in self._verdicts:
                track.verdict.is_trusted = False
                track.note("its recorder did not end in order; run 'ataraxis recover'")
