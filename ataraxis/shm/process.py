"""Processes that this one starts: the command of a Python, and a child waited for."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

__all__ = ["ChildProcess", "exit_code", "python_command"]
_SLICE_S = 0.5
_NAP_S = 0.01


def python_command(code: str, *arguments: str) -> list[str]:
    """Return the command of a Python that runs code and imports what this one would.

    It looks for modules where this process does now, whatever the current folder
    holds: a source folder of ataraxis, say, which would hide the installed package.

    Parameters
    ----------
    code : str
        What it runs.
    *arguments : str
        ``sys.argv[1:]`` of it.

    Raises
    ------
    OSError
        This program is embedded, and does not know its Python.

    Examples
    --------
    >>> import subprocess
    >>> subprocess.run(python_command("import ataraxis")).returncode
    0
    """
    if not sys.executable:
        raise OSError(
            "this program does not know its Python (sys.executable is empty): set it, "
            "so that processes can be started"
        )
    return [
        sys.executable,
        "-c",
        f"import sys; sys.path[:] = {sys.path!r}; {code}",
        *arguments,
    ]


def exit_code(pid: int) -> int | None:
    """Look how a child of this process has ended; None: it has not.

    Nothing is taken from the system, so that the look can be repeated: negative is the
    number of the signal that killed it. Raises `ChildProcessError` if it is not a child
    of this process, or was waited for by another part of the program.
    """
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


class ChildProcess:
    """A process that was started, and is waited for without a lock.

    `subprocess.Popen` guards ``poll`` and ``wait`` by a lock that an exception at the
    wrong instruction leaves taken, and loses an exit code that way. Here the code is
    read before the system forgets it, so that an interrupted look is repeated.

    Parameters
    ----------
    command : sequence of str
        What is run.
    **options
        As `subprocess.Popen` takes them.

    Examples
    --------
    >>> child = ChildProcess(python_command("raise SystemExit(3)"))
    >>> child.wait(60)
    3
    """

    def __init__(self, command: Sequence[str], **options: Any) -> None:
        self._process = subprocess.Popen(command, **options)
        self.pid = self._process.pid
        """Its process id."""
        self.code: int | None = None
        """Its exit code, once it was seen to have ended; as `exit_code` gives it."""
        self._descriptor = -1
        with suppress(OSError, AttributeError):  # not on every system
            self._descriptor = os.pidfd_open(self.pid)

    @property
    def stdin(self) -> Any:
        """Its standard input, if that is a pipe."""
        return self._process.stdin

    @property
    def returncode(self) -> int | None:
        """As `code`."""
        return self.code

    def poll(self) -> int | None:
        """Look whether it has ended: its exit code, or None."""
        if self.code is None:
            try:
                self.code = exit_code(self.pid)
            except ChildProcessError:  # the program waits for any child, somewhere
                self.code = 0
        if self.code is not None and self._process.returncode is None:
            with suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)
            self._process.returncode = self.code
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)
        return self.code

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; its exit code.

        Raises
        ------
        TimeoutError
            It still runs after `timeout`, s.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            left = _SLICE_S if end is None else min(end - time.monotonic(), _SLICE_S)
            if left <= 0:
                raise TimeoutError(f"process {self.pid} still runs after {timeout} s")
            if self._descriptor >= 0:
                poll = select.poll()
                poll.register(self._descriptor, select.POLLIN)
                poll.poll(left * 1000)
            else:
                time.sleep(min(left, _NAP_S))
        return code

    def signal(self, number: int) -> None:
        """Send it a signal; nothing happens if it has ended."""
        if self.poll() is None:
            # It is not waited for yet, so that the number is still its own.
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def __del__(self) -> None:
        descriptor = getattr(self, "_descriptor", -1)
        if descriptor >= 0:
            os.close(descriptor)
