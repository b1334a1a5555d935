"""Program: a process of a rig, started again when it fails, ended with the rig."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

from ataraxis.datamux import API, producer_of
from ataraxis.shm.process import ChildProcess, process_command
from ataraxis.shm.thread import Latch, Thread

PATIENCE_S = 30.0
MOST_FAILS, EARLY_S = 5, 5.0
LOOK_S = 0.5
GRACE_S = 25.0
_PAUSE_S = 0.5
_LOOK_S = 0.05


class Program:
    """One process of a rig.

    Parameters
    ----------
    name : str
        What the log calls it.
    command : sequence of str, or callable
        What is run; or what returns that, asked before each start.
    context : str
        It finds it in ``ATARAXIS_CONTEXT``.
    say : callable
        Takes lines of the session's log.
    is_viewer : bool
        A viewer is started again however it ended, and told to end by SIGTERM; a
        source by the end of its standard input.
    farewell : bytes
        Written to its standard input before that ends, if it is told to end: so it
        knows whether this process has died.
    is_told_by_signal : bool
        A source that is told to end by SIGTERM, too: a program of the user's own.
    is_reporting : bool
        What it prints is for `output` alone, and no complaint.
    pause_s : float
        How long after its end it is started again, s.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str] | Callable[[], Sequence[str]],
        context: str,
        say: Callable[[str], object],
        *,
        is_viewer: bool = False,
        farewell: bytes = b"",
        is_reporting: bool = False,
        is_told_by_signal: bool = False,
        pause_s: float = _PAUSE_S,
    ) -> None:
        self.name, self.is_viewer = name, is_viewer
        self.restarts, self.was_killed = 0, False
        self._command, self._context, self._say = command, context, say
        self._farewell, self._is_reporting = farewell, is_reporting
        self._pause_s, self._is_told_by_signal = pause_s, is_told_by_signal
        self._ended_at = 0.0
        self._fails, self.failure = 0, ""
        """Why it is not started again; empty: it is, when it fails."""
        self._begin()

    @classmethod
    def of_source(
        cls, name: str, told: dict[str, Any], say: Callable[[str], object]
    ) -> Program:
        """Start the program of a source; `told` is as `source_program.run` takes it."""
        command = process_command("ataraxis.session.process:main", json.dumps(told))
        return cls(name, command, told["context"], say)

    def _begin(self) -> None:
        self._began_at = time.monotonic()
        # Files, not pipes: nobody need read them for it to go on.
        self._output = None if self.is_viewer else tempfile.TemporaryFile()  # noqa: SIM115
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        # A group of its own: Ctrl-C is for the rig, which ends it in order.
        self.process = ChildProcess(
            list(self._command() if callable(self._command) else self._command),
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=self._errors,
            env={
                **os.environ,
                "ATARAXIS_CONTEXT": self._context,
                "ATARAXIS_STREAM": self.name,
            },
            process_group=0,
        )

    def look(self) -> bool:
        """Start it again if it failed; whether it runs, or will."""
        code = self.process.poll()
        if code is None:
            return True
        if not self._ended_at:
            self._ended_at = time.monotonic()
            self._say(f"{self.name!r} ended, exit code {code}: {self.told()}")
            is_early = self._ended_at - self._began_at < EARLY_S and code != 0
            self._fails = self._fails + 1 if is_early else 0
            if self._fails >= MOST_FAILS:
                self.failure = (
                    f"{self.name!r} failed {self._fails} times, each within "
                    f"{EARLY_S:g} s of its start, and is not started again: exit code "
                    f"{code}: {self.told()}"
                )
                self._say(self.failure)
                return False
            return code != 0 or self.is_viewer
        if code == 0 and not self.is_viewer:
            return False
        if self._fails >= MOST_FAILS:
            return False
        if time.monotonic() - self._ended_at > self._pause_s:
            self.restart()
        return True

    def restart(self) -> None:
        """Start it again; it has ended."""
        self._let_go()
        self.restarts += 1
        self._ended_at = 0.0
        self._begin()
        self._say(f"{self.name!r} started again, pid {self.process.pid}")

    def output(self, start: int = 0) -> bytes:
        """Return what it has printed so far, from byte `start` on."""
        if self._output is None:
            return b""
        number = self._output.fileno()
        return os.pread(number, max(os.fstat(number).st_size - start, 0), start)

    def told(self) -> str:
        """Return what it printed at last: its report, or its complaint."""
        found = []
        for file in (None if self._is_reporting else self._output, self._errors):
            if file is not None:  # by pread: they share their place with the process
                size = os.fstat(file.fileno()).st_size
                last = os.pread(file.fileno(), 2000, max(size - 2000, 0))
                found.append(last.decode("utf-8", "replace").strip())
        return " ".join(text.splitlines()[-1] for text in found if text)

    def errors(self) -> str:
        """Return the last line of its error channel; empty if it said nothing."""
        if self.is_let_go:
            return ""
        size = os.fstat(self._errors.fileno()).st_size
        last = os.pread(self._errors.fileno(), 2000, max(size - 2000, 0))
        lines = last.decode("utf-8", "replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "")

    def tell_to_end(self) -> None:
        """Ask it to end; does not wait."""
        if self.is_viewer:
            self.process.signal(signal.SIGTERM)
        elif self.process.stdin is not None and not self.process.stdin.closed:
            with contextlib.suppress(BrokenPipeError), self.process.stdin as given:
                given.write(self._farewell)
            if self._is_told_by_signal:
                self.process.signal(signal.SIGTERM)

    def tell(self, text: bytes) -> None:
        """Write to its standard input, which stays open."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.write(text)
                self.process.stdin.flush()

    def wait(self, hurry: Latch | None = None) -> int:
        """Wait for its end, and kill it if that does not come; its exit code.

        Once `hurry` is set it is killed at once.
        """
        deadline = time.monotonic() + PATIENCE_S
        while (left := deadline - time.monotonic()) > 0:
            if hurry is not None and hurry.is_set():
                break
            with contextlib.suppress(TimeoutError):
                return self.process.wait(min(left, _LOOK_S) if hurry else left)
        self._say(f"{self.name!r} does not end: killed")
        self.was_killed = True
        self.process.signal(signal.SIGKILL)
        return self.process.wait()

    @property
    def is_let_go(self) -> bool:
        """Whether it has ended, and what it printed was thrown away."""
        return self._errors.closed

    def end(self) -> None:
        """Wait for its end, and kill it if that does not come."""
        self.wait()
        if self.is_let_go:
            return
        if not self.is_viewer and not self._ended_at:
            self._say(f"{self.name!r} ended: {self.told()}")
        self._let_go()

    def _let_go(self) -> None:
        for file in (self.process.stdin, self._output, self._errors):
            if file is not None and not file.closed:
                file.close()


# ---- the program of one source of a rig; `Program.of_source` starts it

# Passes a live source into a stream until the source ends, or its standard input does:
# it ends with whoever started it.


def run(told: dict[str, Any]) -> dict[str, Any]:
    """Pass a source on; what became of it.

    Parameters
    ----------
    told : dict
        ``node``, ``stream``, ``attrs``, ``name``, ``samples``, ``buffer_s``,
        ``patience_s``, ``context``, and ``readers``, which it waits for at first.
    """
    with API() as api:
        source = api.open_source(told["node"], told["stream"], told["attrs"])
        described = source.stream
        source.close()
        options = {"buffer_seconds": told["buffer_s"]} if described.rate_hz else {}
        producer = producer_of(
            described, told["name"], samples=told["samples"],
            context=told["context"], **options,
        )  # fmt: skip
        is_over = Latch()
        producer.cancel_event = is_over
        # From the first moment on: who waits for readers, or for a device, ends, too.
        Thread(_end_with_input, "ataraxis-input", (api, is_over)).start()
        with producer:
            producer.wait_for_subscribers(told["readers"], told["timeout_s"])
            ack = api.proxy_live_stream(
                told["node"], told["stream"], told["attrs"], producer,
                patience=told["patience_s"],
            )  # fmt: skip
            if is_over.is_set():
                api.stop()
            end = ack.wait()
            done = ack.task.statistics()
    return {
        "samples": done.samples,
        "lost": done.lost,
        "dropped": done.dropped,
        "reconnects": list(done.reconnects),
        "error": "" if end.error is None else str(end.error),
    }


def _end_with_input(api: API, is_over: Latch) -> None:
    """End when our input does, or our parent has; by force after a while."""
    parent = os.getppid()
    while os.getppid() == parent:
        is_there = select.select([sys.stdin], [], [], LOOK_S)[0]
        if is_there and not sys.stdin.read(1):
            break
    is_over.set()
    api.stop()
    time.sleep(GRACE_S)  # a driver may hold us for ever
    os._exit(1)


def main(text: str) -> int:
    """Run what `text` says, JSON; tell what became of it, JSON."""
    found = run(json.loads(text))
    sys.stdout.write(json.dumps(found) + "\n")
    return int(bool(found["error"]))
