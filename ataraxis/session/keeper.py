"""Keeper: the process that runs one program here for the rig of another host.

It starts the program, starts it again when it fails, and ends it, as `RigRun` does with
a program of its own host; so that goes on while the other host, or the agent here, is
away. It tells all of it to the agent here, whichever that is, and that tells the other
host. If no agent has been asked for it for its lease, it ends the program in order.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import signal
import sys
import time
from collections import deque
from typing import Any

from ataraxis.clock import boottime
from ataraxis.cluster.door import AgentClient
from ataraxis.cluster.programs import COMMAND, END, FORGET, GO, HURRY, RECORDER, SOURCE
from ataraxis.errors import AtaraxisError
from ataraxis.link.outlet_run import DURABLE
from ataraxis.session.process import GO_ON, PATIENCE_S, Program
from ataraxis.session.recorder import END as END_ORDER
from ataraxis.session.recorder import TRIES
from ataraxis.shm.process import process_command, signal_at_end_of
from ataraxis.shm.thread import Latch
from ataraxis.stream.announcement import Announcement

_TURN_S = 0.05
_ASK_S, _RETRY_S = 5.0, 0.3
_EVENTS, _EVENT_BYTES, _TOLD_BYTES = 2000, 8000, 30_000


class Keeper:
    """One program and its story; `about` is what the agent has started it with."""

    def __init__(self, about: dict[str, Any]) -> None:
        self._about = about
        self._kind, self._options = str(about["kind"]), dict(about["options"])
        self._lease_s = float(about["lease_s"])
        self._heard = boottime()
        self._client: AgentClient | None = None
        self._retry_at = 0.0
        self._number = 0
        self._events: deque[list[Any]] = deque(maxlen=_EVENTS)
        self._read = self._pid = 0
        self._ended_at: float | None = None
        self._left = TRIES
        self._is_over = self._is_going = self._is_forgotten = False
        self._was_killed = False
        self._output = ""
        self._terminated = Latch()
        is_recorder = self._kind == RECORDER
        self._announcement: Announcement | None = None
        if self._options.get("is_mirrored"):
            # So that its first frames wait for the mirror of the other host.
            stream, context = str(self._options["name"]), str(about["context"])
            self._announcement = Announcement(stream, DURABLE, context)
        self._program = Program(
            str(self._options["name"]), self._command, str(about["context"]),
            lambda text: self._add("note", text),
            end_message=f"{END_ORDER}\n".encode() if is_recorder else b"",
            is_reporting=is_recorder, is_ended_by_signal=self._kind == COMMAND,
            pause_s=0.0 if is_recorder else 0.5,
            on_failure=lambda text: self._add("failure", text),
        )  # fmt: skip
        self._note_start()

    def _command(self) -> list[str]:
        """Return what is run: only what the agent has found to be allowed."""
        options = {**self._options, "context": self._about["context"]}
        if self._kind == SOURCE:
            return process_command("ataraxis.session.process:main", json.dumps(options))
        if self._kind == RECORDER:
            options["host"] = self._about["host"]
            return process_command("ataraxis.session.part:main", json.dumps(options))
        words = [str(options["module"]), *map(str, options["arguments"])]
        return process_command("ataraxis.session.keeper:run_module", *words)

    # ---- its story

    def _add(self, what: str, data: Any) -> None:
        if isinstance(data, str):
            data = data[:_EVENT_BYTES]
        self._number += 1
        self._events.append([self._number, what, data])

    def _note_start(self) -> None:
        self._pid, self._read = self._program.pid, 0
        self._add("start", self._pid)
        if self._is_going:
            self._program.send(GO_ON)

    def _read_lines(self) -> None:
        """Tell the lines that it has printed; of a user's program, its end only."""
        if self._program.is_closed or self._kind == COMMAND:
            return
        output = self._program.output(self._read)
        whole = output[: output.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            if line.startswith(b"{"):
                self._add("line", line.decode("utf-8", "replace"))

    def _state(self) -> dict[str, Any]:
        program = self._program
        return {
            "pid": self._pid, "code": program.poll(), "is_over": self._is_over,
            "restarts": program.restarts, "failure": program.failure,
            "was_killed": self._was_killed, "output": self._output,
        }  # fmt: skip

    # ---- one turn

    def run(self) -> None:
        """Run until the program has ended and the other host knows, or the lease."""
        signal.signal(signal.SIGTERM, lambda *_: self._terminated.set())
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        try:
            while not self._is_forgotten:
                self._turn()
                self._terminated.wait(0 if self._is_forgotten else _TURN_S)
                if self._terminated.is_set():
                    self._end()
                    time.sleep(_TURN_S)
        finally:
            self._end(is_hurry=True)
            self._program.end()
            if self._client is not None:
                self._client.close()
            if self._announcement is not None:
                self._announcement.withdraw()

    def _turn(self) -> None:
        program = self._program
        if self._ended_at is None:
            is_running = program.look()
            if program.pid != self._pid:
                self._note_start()
            self._read_lines()
            if not is_running:
                self._finish()
        elif not self._is_over:
            self._see_end()
        silent = boottime() - self._heard
        if silent >= self._lease_s and not self._is_over:
            self._add(
                "note",
                f"host {self._about['host']!r} was not heard for {silent:.0f} s, and "
                f"{program.name!r} runs {self._lease_s:g} s without it: it ends",
            )
            self._end()
        self._tell()
        # One that is not asked for is kept for one more lease.
        is_alone = silent >= 2 * self._lease_s or self._terminated.is_set()
        self._is_forgotten = self._is_forgotten or (self._is_over and is_alone)

    def _end(self, *, is_hurry: bool = False) -> None:
        """Ask the program to end; one that does not is killed after a while."""
        if self._is_over:
            return
        if self._ended_at is None:
            self._ended_at = time.monotonic()
            self._program.request_end()
        if is_hurry:
            self._ended_at = min(self._ended_at, time.monotonic() - PATIENCE_S)

    def _see_end(self) -> None:
        """Look whether the program has ended, that was asked to."""
        assert self._ended_at is not None
        program, late = self._program, time.monotonic() - self._ended_at
        code = program.poll()
        if code is None:
            if late >= PATIENCE_S and not self._was_killed:
                self._add("note", f"{program.name!r} does not end: killed")
                self._was_killed = True
                program.kill()
            return
        self._read_lines()
        self._left -= 1
        if self._kind == RECORDER and code and self._left > 0 and late < PATIENCE_S:
            program.restart()
            self._note_start()
            program.request_end()
            return
        self._finish()

    def _finish(self) -> None:
        """The program has ended, and is not started again."""
        if not self._program.is_closed:
            self._read_lines()
            self._output = self._program.last_output()[:_EVENT_BYTES]
            self._program.end()
        self._is_over = True

    # ---- the agent here

    def _tell(self) -> None:
        """Tell the agent of all that the other host does not know; take its orders."""
        if time.monotonic() < self._retry_at:
            return
        told: list[list[Any]] = []
        size = 0
        for event in self._events:
            size += len(json.dumps(event))
            if told and size > _TOLD_BYTES:
                break
            told.append(event)
        state = self._state()
        # Not over before the other host can have all of it.
        state["is_over"] = self._is_over and len(told) == len(self._events)
        try:
            if self._client is None:
                self._client = AgentClient(self._about["context"])
            found = self._client.ask(
                "keeper", _ASK_S, id=self._about["id"], host=self._about["host"],
                state=state, events=told,
            )  # fmt: skip
        except (AtaraxisError, OSError):  # it is away, or will be restarted
            client, self._client = self._client, None
            if client is not None:
                client.close()
            self._retry_at = time.monotonic() + _RETRY_S
            if not os.path.isdir(self._about["context"]):
                self._terminated.set()  # its streams are gone, too
            return
        while self._events and self._events[0][0] <= found["have"]:
            self._events.popleft()
        if found["heard_s"] is not None:
            self._heard = max(self._heard, boottime() - float(found["heard_s"]))
        self._obey(set(found["orders"]), state["is_over"])

    def _obey(self, orders: set[str], was_told: bool) -> None:
        if GO in orders and not self._is_going:
            self._is_going = True
            self._program.send(GO_ON)
        if END in orders or HURRY in orders:
            self._end(is_hurry=HURRY in orders)
        if FORGET in orders and was_told:
            self._is_forgotten = True


def main(text: str) -> None:
    """Keep the program of `text`, JSON; run by an agent."""
    with contextlib.suppress(KeyboardInterrupt):
        Keeper(json.loads(text)).run()


def run_module(module: str, *arguments: str) -> None:
    """Run a module as ``python -m`` does, with the module path of the agent.

    It gets a SIGTERM if its keeper is killed: the next one starts it again.
    """
    with contextlib.suppress(ProcessLookupError, OSError):
        signal_at_end_of(os.getppid(), signal.SIGTERM)
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)
