"""Program: a process of a rig, restarted when it fails, ended with the rig."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from ataraxis.datamux import API, End, StreamAck, producer_of
from ataraxis.shm.process import (
    ProcessOutput,
    ProcessWatch,
    RestartBudget,
    process_command,
    spawn,
)
from ataraxis.shm.thread import Latch, Thread

PATIENCE_S = 30.0
MOST_FAILS, EARLY_S = 5, 5.0
LOOK_S = 0.5
GRACE_S = 25.0
_PAUSE_S = 0.5
_LOOK_S = 0.05
AWAY = "away"
"""Key of the line that a source prints when its device has gone away."""
GO_ON = b"g"
"""What a source reads that waits for its order to send."""


class Program:
    """One process of a rig.

    Parameters
    ----------
    name : str
        Its name in the session's log.
    command : sequence of str, or callable
        What is run; or a function that returns that, called before each start.
    context : str
        What it gets as ``ATARAXIS_CONTEXT``.
    note : callable
        Takes lines for the session's log.
    is_viewer : bool
        A viewer is restarted after every end, and ended by SIGTERM; a source is
        restarted when it failed, and ended by the end of its standard input.
    end_message : bytes
        Written to its standard input before the end of that, when it shall end. Without
        it, the process knows that this one has died.
    is_ended_by_signal : bool
        A source that gets a SIGTERM, too: a command of the user.
    is_reporting : bool
        What it prints is read with `output`, and not part of messages about its end.
    pause_s : float
        Time between its end and its restart, s.
    on_failure : callable
        Called with a line when it has failed.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str] | Callable[[], Sequence[str]],
        context: str,
        note: Callable[[str], object],
        *,
        is_viewer: bool = False,
        end_message: bytes = b"",
        is_reporting: bool = False,
        is_ended_by_signal: bool = False,
        pause_s: float = _PAUSE_S,
        on_failure: Callable[[str], object] = lambda text: None,
    ) -> None:
        self.name, self.is_viewer = name, is_viewer
        self.restarts, self.was_killed = 0, False
        self._command, self._context, self._note = command, context, note
        self._end_message, self._is_reporting = end_message, is_reporting
        self._pause_s, self._is_ended_by_signal = pause_s, is_ended_by_signal
        self._on_failure = on_failure
        self._budget, self._ended_at = RestartBudget(MOST_FAILS), 0.0
        self.failure = ""
        """Why it is not restarted any more; empty: it is."""
        self._start()

    @classmethod
    def of_source(
        cls,
        name: str,
        options: dict[str, Any],
        note: Callable[[str], object],
        on_failure: Callable[[str], object] = lambda text: None,
    ) -> Program:
        """Start the program of a source, `run` with these options."""
        command = process_command("ataraxis.session.process:main", json.dumps(options))
        context = options["context"]
        return cls(name, command, context, note, on_failure=on_failure)

    def _start(self) -> None:
        self._began_at = time.monotonic()
        self._output = None if self.is_viewer else ProcessOutput()
        self._errors = ProcessOutput()
        self.process = spawn(
            list(self._command() if callable(self._command) else self._command),
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=self._errors,
            env={
                **os.environ,
                "ATARAXIS_CONTEXT": self._context,
                "ATARAXIS_STREAM": self.name,
            },
        )

    def look(self) -> bool:
        """Restart it if it failed; return whether it runs, or will."""
        code = self.process.poll()
        if code is None:
            return True
        is_over = code == 0 and not self.is_viewer
        if not self._ended_at:
            self._note_end(code)
        elif not (is_over or self.failure) and self._is_due():
            self.restart()
        return not (is_over or self.failure)

    def _is_due(self) -> bool:
        return time.monotonic() - self._ended_at > self._pause_s

    def _note_end(self, code: int) -> None:
        self._ended_at = time.monotonic()
        output = self.last_output()
        self._note(f"{self.name!r} ended, exit code {code}: {output}")
        if code and not self.is_viewer:
            self._on_failure(f"it ended, exit code {code}: {output}")
        if code == 0 or self._ended_at - self._began_at >= EARLY_S:
            self._budget.renew()
            return
        self._budget.spend()
        if self._budget.is_spent:
            self.failure = (
                f"{self.name!r} failed {self._budget.deaths} times, each within "
                f"{EARLY_S:g} s of its start, and is not started again: exit code "
                f"{code}: {output}"
            )
            self._note(self.failure)
            self._on_failure(self.failure)

    def restart(self) -> None:
        """Start it again; it has ended."""
        self._close()
        self.restarts += 1
        self._ended_at = 0.0
        self._start()
        self._note(f"{self.name!r} started again, pid {self.process.pid}")

    def output(self, start: int = 0) -> bytes:
        """Return what it has printed so far, from byte `start` on."""
        return b"" if self._output is None else self._output.read(start)

    def last_output(self) -> str:
        """Return the last lines that it printed, to its output and its errors."""
        files = (None if self._is_reporting else self._output, self._errors)
        return " ".join(line for f in files if f is not None for line in f.last_lines())

    def last_error(self) -> str:
        """Return the last line of its errors; empty if it printed none."""
        return "" if self.is_closed else "".join(self._errors.last_lines())

    def request_end(self) -> None:
        """Ask it to end; does not wait."""
        stdin = self.process.stdin
        if not self.is_viewer:
            if stdin.closed:
                return
            with contextlib.suppress(BrokenPipeError), stdin:
                stdin.write(self._end_message)
        if self.is_viewer or self._is_ended_by_signal:
            self.process.signal(signal.SIGTERM)

    def send(self, data: bytes) -> None:
        """Write to its standard input, which stays open."""
        if not self.process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.write(data)
                self.process.stdin.flush()

    def wait(self, hurry: Latch | None = None) -> int:
        """Wait until it has ended, for 30 s, then kill it; return its exit code.

        Once `hurry` is set it is killed at once.
        """
        deadline = time.monotonic() + PATIENCE_S
        while (left := deadline - time.monotonic()) > 0:
            if hurry is not None and hurry.is_set():
                break
            with contextlib.suppress(TimeoutError):
                return self.process.wait(min(left, _LOOK_S) if hurry else left)
        self._note(f"{self.name!r} does not end: killed")
        self.kill()
        return self.process.wait()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def poll(self) -> int | None:
        """Return its exit code; None: it runs."""
        return self.process.poll()

    def kill(self) -> None:
        """Kill it; does not wait."""
        self.was_killed = True
        self.process.signal(signal.SIGKILL)

    @property
    def is_closed(self) -> bool:
        """Whether it has ended, and what it printed was thrown away."""
        return self._errors.is_closed

    def end(self) -> None:
        """Wait as `wait` does, then throw away what it printed."""
        self.wait()
        if self.is_closed:
            return
        if not self.is_viewer and not self._ended_at:
            self._note(f"{self.name!r} ended: {self.last_output()}")
        self._close()

    def _close(self) -> None:
        for file in (self.process.stdin, self._output, self._errors):
            if file is not None:
                with contextlib.suppress(BrokenPipeError):  # it has died unread
                    file.close()


# ---- the program of one source of a rig; `Program.of_source` starts it


def run(options: dict[str, Any]) -> dict[str, Any]:
    """Pass a live source into a stream; return its report, as `RigRun.reports`.

    It ends with the source, with its standard input, or with the process that started
    it. The options are ``node``, ``stream``, ``attrs``, ``name``, ``samples``,
    ``buffer_s``, ``patience_s``, ``context``; ``readers``, the number that it waits
    for first, for ``timeout_s``; and ``is_ordered``: then it also waits for `GO_ON`.
    """
    with API() as api:
        address = options["node"], options["stream"], options["attrs"]
        source = api.open_source(*address)
        described = source.stream
        source.close()
        buffer = {"buffer_seconds": options["buffer_s"]} if described.rate_hz else {}
        producer = producer_of(
            described, options["name"], samples=options["samples"],
            context=options["context"], **buffer,
        )  # fmt: skip
        is_over, goes = Latch(), Latch()
        producer.cancel_event = is_over
        # Before the waits for readers and for a device: they end, too.
        Thread(_end_with_input, "ataraxis-input", (api, is_over, goes)).start()
        with producer:
            producer.wait_for_subscribers(options["readers"], options["timeout_s"])
            if options.get("is_ordered"):
                goes.wait(options["timeout_s"])
            ack = api.proxy_live_stream(
                *address, producer, patience=options["patience_s"]
            )
            if is_over.is_set():
                api.stop()
            end = _await_end(ack)
            done = ack.task.statistics()
    return {
        "samples": done.samples,
        "lost": done.lost,
        "dropped": done.dropped,
        "reconnects": list(done.reconnects),
        "error": "" if end.error is None else str(end.error),
    }


def _await_end(ack: StreamAck) -> End:
    """Wait for the end; print a line each time that the source has gone away."""
    was_away, times = False, ack.task.statistics().reconnects
    while True:
        with contextlib.suppress(TimeoutError):
            return ack.wait(LOOK_S)
        away, found = ack.task.away, ack.task.statistics().reconnects
        # It may have gone and come back since the last look.
        if not was_away and (away or found != times):
            sys.stdout.write(json.dumps({AWAY: away or found[-1]}) + "\n")
            sys.stdout.flush()
        was_away, times = bool(away), found


def _end_with_input(api: API, is_over: Latch, goes: Latch) -> None:
    """End with standard input or the parent; by force after a while."""
    parent, stdin = ProcessWatch.of_parent(), sys.stdin.fileno()
    while not parent.is_gone():
        if not select.select([stdin], [], [], LOOK_S)[0]:
            continue
        words = os.read(stdin, 64)
        if not words:
            break
        if GO_ON in words:
            goes.set()
    is_over.set()
    goes.set()
    api.stop()
    time.sleep(GRACE_S)  # a driver may never return
    os._exit(1)


def main(text: str) -> int:
    """Run with options in JSON; print the report, JSON."""
    report = run(json.loads(text))
    sys.stdout.write(json.dumps(report) + "\n")
    return int(bool(report["error"]))
