"""`FarRecorder`: streams of a session that another host records, on its own disk."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import fields

from ataraxis.cluster.programs import RECORDER
from ataraxis.session.far_program import FarHost, FarProgram
from ataraxis.session.stream_recorder import SessionLoss
from ataraxis.session.verdict import StreamVerdict
from ataraxis.shm.thread import Latch


class FarRecorder:
    """A recorder of a rig on another host.

    Parameters
    ----------
    host : FarHost
        That host.
    session, subject : str
        Name and subject of the session.
    streams : list of str
        Streams of that host.
    durability : {'os', 'disk'}
        As of `RigRecorder`.
    away_s : float
        How long it goes on without a sign of life from here, s.
    on_loss : callable
        Called with each `SessionLoss`, in a thread.
    on_failure : callable
        Called with a line when it has failed, in a thread.
    is_test : bool
        Its files there are removed at its end.

    Raises
    ------
    AtaraxisError
        The host cannot be reached, or does not record for this one.
    """

    def __init__(
        self,
        host: FarHost,
        session: str,
        subject: str,
        streams: list[str],
        durability: str,
        away_s: float,
        *,
        on_loss: Callable[[SessionLoss], object],
        on_failure: Callable[[str], object],
        is_test: bool = False,
    ) -> None:
        self.host, self.streams = host, streams
        self.path = ""
        """Its directory there; '' until it records."""
        self.nbytes = 0
        """Bytes of its frames, once it has ended."""
        self.doubts: list[str] = []
        """Why it may not be trusted as a whole."""
        self._verdicts: dict[str, StreamVerdict] = {}
        self._is_done = False
        self._on_loss = on_loss
        options = {
            "name": session, "subject": subject, "streams": streams,
            "durability": durability, "is_test": is_test, "id": uuid.uuid4().hex,
        }  # fmt: skip
        self.program = FarProgram(
            f"recorder of {session}", host, RECORDER, options, away_s,
            on_line=self._take, on_failure=on_failure,
        )  # fmt: skip

    def _take(self, line: str) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            return
        self.path = str(message.get("path", self.path))
        if "loss" in message:
            self._on_loss(SessionLoss(**message["loss"]))
        if "verdict" in message:
            known = {field.name for field in fields(StreamVerdict)}
            found = {k: v for k, v in message["verdict"].items() if k in known}
            self._verdicts[str(found["name"])] = StreamVerdict(**found)
        if "done" in message:
            self._is_done = True
            self.nbytes, self.doubts = int(message["nbytes"]), list(message["doubts"])

    @property
    def is_ready(self) -> bool:
        """Whether it records, or waits for its streams."""
        return bool(self.path)

    def verdicts(self) -> list[StreamVerdict]:
        """Return the verdicts of its streams; it has ended."""
        found = []
        for name in self.streams:
            verdict = self._verdicts.get(name) or StreamVerdict(name)
            verdict.host, verdict.path = self.host.host, self.path
            where = f"recorded on host {verdict.host!r}"
            verdict.notes.insert(0, f"{where}, in {verdict.path or 'no directory'}")
            if not self._is_done or name not in self._verdicts:
                why = self.program.failure or "it did not end in order"
                verdict.doubt(
                    f"what it has there is not known here: {why}; its verdict will be "
                    "there, or run 'ataraxis recover' there"
                )
            elif self.program.restarts:
                verdict.note(
                    "its recorder died and was started again, "
                    f"{self.program.restarts} times"
                )
            found.append(verdict)
        return found

    def finish(self, hurry: Latch | None = None) -> None:
        """Record what was sent until now, and end."""
        self.program.request_end()
        self.program.wait(hurry)
        self.program.end()


def wait_until_ready(recorder: FarRecorder, timeout: float, until: Latch) -> str:
    """Wait until a recorder records; return why it does not, '' if it does."""
    deadline = time.monotonic() + timeout
    while not recorder.is_ready:
        if recorder.program.poll() is not None:
            return f"ended: {recorder.program.last_output() or 'it printed nothing'}"
        if time.monotonic() > deadline:
            return f"did not begin within {timeout:g} s: {recorder.host.problem}"
        if until.wait(0.05):
            return "was ended by a signal"
    return ""
