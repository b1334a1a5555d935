"""Program: a process of a rig, started again when it fails, ended with the rig."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

from ataraxis.shm.child import python_command

PATIENCE_S = 30.0
_PAUSE_S = 0.5


class Program:
    """One process of a rig.

    Parameters
    ----------
    name : str
        What the log calls it.
    command : sequence of str
        What is run.
    context : str
        It finds it in ``ATARAXIS_CONTEXT``.
    say : callable
        Takes lines of the session's log.
    is_viewer : bool
        A viewer is started again however it ended, and told to end by SIGTERM; a
        source by the end of its standard input.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        context: str,
        say: Callable[[str], object],
        *,
        is_viewer: bool = False,
    ) -> None:
        self.name, self.is_viewer = name, is_viewer
        self.restarts = 0
        self._command, self._context, self._say = list(command), context, say
        self._ended_at = 0.0
        self._begin()

    @classmethod
    def of_source(
        cls, name: str, told: dict[str, Any], say: Callable[[str], object]
    ) -> Program:
        """Start the program of a source; `told` is as `source_program.run` takes it."""
        code = (
            "from ataraxis.session.source_program import main; raise SystemExit(main())"
        )
        command = python_command(code, json.dumps(told))
        return cls(name, command, told["context"], say)

    def _begin(self) -> None:
        # Files, not pipes: nobody need read them for it to go on.
        self._output = None if self.is_viewer else tempfile.TemporaryFile()  # noqa: SIM115
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        # A group of its own: Ctrl-C is for the rig, which ends it in order.
        self.process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=self._errors,
            env={**os.environ, "ATARAXIS_CONTEXT": self._context},
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
        if code == 0 and not self.is_viewer:
            return False
        if time.monotonic() - self._ended_at > _PAUSE_S:
            self._let_go()
            self.restarts += 1
            self._ended_at = 0.0
            self._begin()
            self._say(f"{self.name!r} started again, pid {self.process.pid}")
        return True

    def told(self) -> str:
        """Return what it printed at last: its report, or its complaint."""
        found = []
        for file in (self._output, self._errors):
            if file is not None:
                file.seek(0)
                found.append(file.read()[-2000:].decode("utf-8", "replace").strip())
        return " ".join(text.splitlines()[-1] for text in found if text)

    def tell_to_end(self) -> None:
        """Ask it to end; does not wait."""
        if self.is_viewer:
            self.process.terminate()
        elif self.process.stdin is not None:
            self.process.stdin.close()

    def end(self) -> None:
        """Wait for its end, and kill it if that does not come."""
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._say(f"{self.name!r} does not end: killed")
            self.process.kill()
            self.process.wait()
        if not self.is_viewer and not self._ended_at:
            self._say(f"{self.name!r} ended: {self.told()}")
        self._let_go()

    def _let_go(self) -> None:
        for file in (self.process.stdin, self._output, self._errors):
            if file is not None and not file.closed:
                file.close()
