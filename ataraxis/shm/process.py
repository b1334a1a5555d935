"""Processes of ataraxis's own that a program starts: workers, writers, recorders.

An entry is a function of ataraxis that takes text. It runs in another interpreter; in a
frozen program (PyInstaller, cx_Freeze, Nuitka), whose executable is the program itself,
in another copy of that, which must call `freeze_support` before anything else.
"""

from __future__ import annotations

import importlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, Self

from ataraxis.shm.thread import Latch

# Between the executable and the entry, where a frozen program is started as a process
# of ours. The hook for PyInstaller (`ataraxis.shm.pyinstaller`) looks for it, too.
FLAG = "--ataraxis-process"
# Set on `sys` by that hook: so it need not import anything where nothing is started.
MARK = "ataraxis_starts_processes"
_SLICE_S = 0.5
_NAP_S = 0.01


def process_command(entry: str, *arguments: str) -> list[str]:
    """Return the command of a process that runs an entry, and imports what this would.

    It looks for modules where this process does now, whatever the current folder
    holds: a source folder of ataraxis, say, which would hide the installed package.

    Parameters
    ----------
    entry : str
        ``module:function``, of ataraxis.
    *arguments : str
        What it is called with. What it returns is the exit code, None is 0.

    Raises
    ------
    OSError
        This program cannot start itself: see `check_can_start`.

    Examples
    --------
    >>> process_command("ataraxis.log.writer:main", "status")[-2:]
    ['ataraxis.log.writer:main', 'status']
    """
    check_can_start()
    if _is_frozen():
        return [sys.executable, FLAG, entry, *arguments]
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import enter; enter()"
    )
    return [sys.executable, "-c", code, entry, *arguments]


def check_can_start() -> None:
    """Find out whether processes of ours can be started, before anything is touched.

    Raises
    ------
    OSError
        This program is embedded, and does not know its Python; or it is frozen, and
        each process would be the whole program again.
    """
    if not sys.executable:
        raise OSError(
            "this program does not know its Python (sys.executable is empty): set it, "
            "so that processes can be started"
        )
    if _is_frozen() and not getattr(sys, MARK, False):
        raise OSError(
            "this program is frozen, and its processes would be the whole program "
            "again: call ataraxis.freeze_support() first in its main module, or build "
            "it with PyInstaller where ataraxis is installed, whose hook does so"
        )


def freeze_support() -> None:
    """Be a process of ataraxis's, if this frozen program was started as one.

    The first line of a frozen program's main module. Returns if it was started by a
    user; also in a program that is not frozen, where it does nothing. A program that is
    built with PyInstaller need not call it.

    Examples
    --------
    >>> freeze_support()
    """
    if not _is_frozen():
        return
    setattr(sys, MARK, True)
    if sys.argv[1:2] == [FLAG]:
        del sys.argv[1]
        enter()


def enter() -> None:
    """Run the entry that ``sys.argv`` names, and end."""
    entry, *arguments = sys.argv[1:]
    sys.argv[1:] = arguments
    module, _, function = entry.partition(":")
    if module.partition(".")[0] != __name__.partition(".")[0]:
        raise ValueError(f"{entry!r} is not an entry of ataraxis")
    raise SystemExit(getattr(importlib.import_module(module), function)(*arguments))


def _is_frozen() -> bool:
    return bool(getattr(sys, "frozen", False))


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
    >>> child = ChildProcess([sys.executable, "-c", "raise SystemExit(3)"])
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


# ---- `Ending`: the signals that end a program, taken as flags

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


class Ending:
    """While it is entered, signals that would end the program set flags instead.

    Nothing is thrown into the middle of anything: the program looks at the flags, or
    waits for them, and ends in order. Those that the program was told to ignore
    (``nohup``, a shell's background job) stay ignored; the handlers that were there are
    put back.

    Parameters
    ----------
    is_last : bool
        Once a signal came, further ones are ignored afterwards: what follows is the end
        of the program, and they do not change its exit code.

    Examples
    --------
    >>> import signal
    >>> with Ending() as ending:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     ending.first.wait(5), ending.second.is_set(), ending.name
    (True, False, 'SIGTERM')
    """

    def __init__(self, *, is_last: bool = False) -> None:
        self._is_last = is_last
        self.first = Latch()
        """Set by the first signal: end in order."""
        self.second = Latch()
        """Set by the second: end now."""
        self.name = ""
        """Of the signal that came last."""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        # Python hands signals to the main thread alone.
        if threading.current_thread() is threading.main_thread():
            for name in SIGNALS:
                number = getattr(signal, name, None)
                if number is None or signal.getsignal(number) == signal.SIG_IGN:
                    continue
                self._before[number] = signal.signal(number, self._take)
        return self

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name
        (self.second if self.first.is_set() else self.first).set()

    def __exit__(self, *exc: object) -> None:
        """Put the handlers back."""
        while self._before:
            number, before = self._before.popitem()
            if self._is_last and self.first.is_set():
                before = signal.SIG_IGN
            signal.signal(number, before)
