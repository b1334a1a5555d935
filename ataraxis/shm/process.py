"""Processes that ataraxis starts: workers, writers, recorders, and commands of a rig.

An entry is a function of ataraxis that takes text. It runs in another interpreter; in a
frozen program (PyInstaller, cx_Freeze, Nuitka), whose executable is the program itself,
in another copy of that, which must call `freeze_support` before anything else.
"""

from __future__ import annotations

import ctypes
import importlib
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any, Self

from ataraxis.shm.thread import Latch

# Between the executable and the entry, where a frozen program is started as a process
# of ataraxis. The hook for PyInstaller (`ataraxis.shm.pyinstaller`) knows it, too.
FLAG = "--ataraxis-process"
# Set on `sys` by that hook: so it need not import anything where nothing is started.
MARK = "ataraxis_starts_processes"
_SLICE_S = 0.5
_NAP_S = 0.01
_TAIL_BYTES = 2000
_LONGEST_BACKOFF_S = 5.0
_PR_SET_PDEATHSIG = 1

# ---- entries: what a process of ataraxis runs


def process_command(entry: str, *arguments: str) -> list[str]:
    """Return the command of a process that runs an entry, ``module:function``.

    Its module path is the current one of this process, without the current folder: a
    source folder of ataraxis would hide the installed package. The function takes the
    arguments, and returns the exit code; None is 0. Raises as `check_can_start`.
    """
    check_can_start()
    if _is_frozen():
        return [sys.executable, FLAG, entry, *arguments]
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import enter; enter()"
    )
    return [sys.executable, "-c", code, entry, *arguments]


def check_can_start() -> None:
    """Raise `OSError` if this program cannot start processes of ataraxis.

    It is embedded, and does not know its Python; or it is frozen, and each process
    would be the whole program again.
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
    """Run a process of ataraxis, if this frozen program was started as one.

    Call it first in the main module of a frozen program. It returns if the program was
    started by a user, or is not frozen. Programs built with PyInstaller need not call
    it.

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
    """Run the entry in ``sys.argv``, and exit."""
    entry, *arguments = sys.argv[1:]
    sys.argv[1:] = arguments
    module, _, function = entry.partition(":")
    if module.partition(".")[0] != __name__.partition(".")[0]:
        raise ValueError(f"{entry!r} is not an entry of ataraxis")
    raise SystemExit(getattr(importlib.import_module(module), function)(*arguments))


def _is_frozen() -> bool:
    return bool(getattr(sys, "frozen", False))


# ---- `spawn`: the one way a process is started


def spawn(
    command: Sequence[str], *, blocked: Collection[int] = (), **options: Any
) -> ChildProcess:
    """Start a process in a group of its own: Ctrl-C is the caller's business.

    `command` is as of `process_command`; `blocked` are signals that are blocked from
    its first instruction on; the options are those of `subprocess.Popen`; without
    ``stdin`` its input is empty. Raises `OSError`.

    Examples
    --------
    >>> spawn([sys.executable, "-c", "raise SystemExit(3)"]).wait(60)
    3
    """
    for pid in _dropped.copy():
        if _is_reaped(pid):
            _dropped.discard(pid)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    try:
        defaults = {"stdin": subprocess.DEVNULL, "process_group": 0}
        return ChildProcess(command, **{**defaults, **options})
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# Children that were dropped while they ran: `spawn` reaps those that have ended.
_dropped: set[int] = set()


def _is_reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:  # it is not a child of this process
        return True


class ChildProcess:
    """A process that `spawn` started; it is waited for without a lock.

    `subprocess.Popen` guards ``poll`` and ``wait`` by a lock that an exception at the
    wrong instruction leaves taken, and loses an exit code that way. Here the code is
    read before the system forgets it, so that an interrupted look is repeated.
    """

    def __init__(self, command: Sequence[str], **options: Any) -> None:
        self._process = subprocess.Popen(command, **options)
        self.pid = self._process.pid
        """Its process id."""
        self.code: int | None = None
        """Its exit code, once `poll` has seen its end; negative: number of a signal."""
        self.descriptor = _pidfd(self.pid)
        """A pidfd: readable once it has ended. -1: unavailable, or `code` is known."""

    @property
    def stdin(self) -> Any:
        """Its standard input, if that is a pipe."""
        return self._process.stdin

    @property
    def stdout(self) -> Any:
        """Its standard output, if that is a pipe."""
        return self._process.stdout

    def poll(self) -> int | None:
        """Return its exit code; None: it runs.

        0 if another part of the program has waited for it, and knows the code.
        """
        if self.code is None:
            try:
                ended = os.waitid(
                    os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT
                )
            except ChildProcessError:
                if self.code is None:  # another thread sets it before it reaps
                    self.code = 0
            else:
                if ended is not None:
                    is_exit = ended.si_code == os.CLD_EXITED
                    self.code = ended.si_status if is_exit else -ended.si_status
        if self.code is not None and self._process.returncode is None:
            with suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)
            self._process.returncode = self.code
            self._close()
        return self.code

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended, or raise `TimeoutError`; return its exit code."""
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            left = _SLICE_S if end is None else min(end - time.monotonic(), _SLICE_S)
            if left <= 0:
                raise TimeoutError(f"process {self.pid} still runs after {timeout} s")
            if self.descriptor >= 0:
                is_readable(self.descriptor, left)
            else:
                time.sleep(min(left, _NAP_S))
        return code

    def signal(self, number: int) -> None:
        """Send it a signal; nothing happens if it has ended."""
        with suppress(ProcessLookupError):
            if self.descriptor >= 0:
                signal.pidfd_send_signal(self.descriptor, number)
            elif self.poll() is None:
                os.kill(self.pid, number)

    def _close(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            if self.poll() is None:
                _dropped.add(self.pid)
            self._close()
            self._process.returncode = self.code or 0  # Popen warns of one that runs


class ProcessOutput:
    r"""A file without a name that takes what a process prints; gone with this object.

    Unlike a pipe, it need not be read for the process to go on.

    Examples
    --------
    >>> output = ProcessOutput()
    >>> child = spawn([sys.executable, "-c", "print(1); print(2)"], stdout=output)
    >>> child.wait(60), output.read(), output.last_lines()
    (0, b'1\n2\n', ['2'])
    """

    def __init__(self) -> None:
        self._descriptor = -1
        with tempfile.TemporaryFile() as file:
            self._descriptor = os.dup(file.fileno())

    def fileno(self) -> int:
        """Return the descriptor, for `spawn`."""
        return self._descriptor

    def read(self, start: int = 0) -> bytes:
        """Return what was printed so far, from byte `start` on."""
        # By pread: this process and the other share one position.
        size = os.fstat(self._descriptor).st_size
        return os.pread(self._descriptor, max(size - start, 0), start)

    def last_lines(self, count: int = 1) -> list[str]:
        """Return the last lines that are not blank, of the last 2000 bytes."""
        start = max(os.fstat(self._descriptor).st_size - _TAIL_BYTES, 0)
        lines = self.read(start).decode("utf-8", "replace").splitlines()
        return [line.strip() for line in lines if line.strip()][-count:]

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._descriptor < 0

    def close(self) -> None:
        """Throw away what was printed; nothing happens the second time."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    __del__ = close


class RestartBudget:
    """Up to `limit` deaths of a process within a window, s; None: any number.

    Before the first restart it waits `backoff_s`, doubled by each death, up to 5 s.

    Examples
    --------
    >>> budget = RestartBudget(2, backoff_s=0.5)
    >>> budget.spend(), budget.spend(), budget.is_spent
    (0.5, 1.0, True)
    """

    def __init__(
        self, limit: int | None, window_s: float = math.inf, backoff_s: float = 0.0
    ) -> None:
        self.limit, self.window_s, self._backoff_s = limit, window_s, backoff_s
        self._deaths: deque[float] = deque()

    @property
    def deaths(self) -> int:
        """How many deaths there were within the window."""
        first = time.monotonic() - self.window_s
        while self._deaths and self._deaths[0] < first:
            self._deaths.popleft()
        return len(self._deaths)

    @property
    def is_spent(self) -> bool:
        """Whether another restart is one too many."""
        return self.limit is not None and self.deaths >= self.limit

    def spend(self) -> float:
        """Count a death; return how long to wait before the restart, s."""
        wait = min(self._backoff_s * 2.0 ** min(self.deaths, 10), _LONGEST_BACKOFF_S)
        self._deaths.append(time.monotonic())
        return wait

    def renew(self) -> None:
        """Forget all deaths."""
        self._deaths.clear()


# ---- another process: which it is, and whether it lives


@dataclass(frozen=True)
class ProcessIdentity:
    """A process, distinguished from a later one that has the same pid."""

    pid: int
    start: int
    """When it was started, clock ticks since boot; 0: unknown, or it has ended."""

    @classmethod
    def of(cls, pid: int) -> Self:
        """Return the identity of the process that has this pid now."""
        return cls(pid, _start_of(pid) or 0)

    def is_alive(self) -> bool:
        """Return whether it runs; also True where that cannot be found out."""
        found = _start_of(self.pid)
        if found is None:
            return not self.start and _has_pid(self.pid)
        return found == self.start != 0


def _start_of(pid: int) -> int | None:
    """Return when a process was started; 0: it has ended; None: nothing is known."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return 0 if fields[0] in b"ZX" else int(fields[19])


def _has_pid(pid: int) -> bool:
    """Return whether any process has a pid."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is not ours
        return True
    return True


class ProcessWatch:
    """Notices the end of a process, which need not be a child of this one."""

    def __init__(self, process: ProcessIdentity) -> None:
        self._process = process
        self._descriptor = _pidfd(process.pid)
        # After opening it: before, another process may have got the pid.
        self._is_gone = not process.is_alive()

    @classmethod
    def of_parent(cls) -> Self:
        """Watch the parent of this process."""
        return cls(ProcessIdentity.of(os.getppid()))

    def fileno(self) -> int:
        """Return a pidfd, readable once the process has ended; -1: unavailable."""
        return self._descriptor

    def close(self) -> None:
        """Close the pidfd; nothing happens the second time."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def is_gone(self) -> bool:
        """Return whether the process has ended; does not wait."""
        if not self._is_gone and self._descriptor >= 0:
            self._is_gone = is_readable(self._descriptor, 0)
        elif not self._is_gone:
            self._is_gone = not self._process.is_alive()
        return self._is_gone


def signal_at_end_of(parent: int, number: int) -> None:
    """Have the kernel send this process a signal when its parent ends.

    Raises `ProcessLookupError` if its parent is not `parent`: that one has ended.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        raise ProcessLookupError(f"process {parent}, which started this one, has ended")


def _pidfd(pid: int) -> int:
    """Open a pidfd; -1 in a sandbox or a Python without them, or without such a pid."""
    try:
        return os.pidfd_open(pid)
    except (OSError, AttributeError):
        return -1


def is_readable(descriptor: int, timeout: float) -> bool:
    """Wait until a descriptor is readable; False after `timeout`, s."""
    poll = select.poll()  # select.select takes no descriptor above 1023
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


# ---- `Ending`: signals that end a program, as flags

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ending:
    """While it is entered, signals that would end the program set flags instead.

    The program reads the flags, or waits for them, and ends in order. Ignored signals
    (``nohup``, a shell's background job) stay ignored; the handlers are restored at the
    end. If `is_last`, further ones are ignored also after the end of this block: they
    do not change the exit code of the program.

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
        """Set by the second signal: end now."""
        self.name = ""
        """Name of the last signal."""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        # Python calls handlers in the main thread only.
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._take)
        return self

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name
        (self.second if self.first.is_set() else self.first).set()

    def __exit__(self, *exc: object) -> None:
        while self._before:
            number, before = self._before.popitem()
            if self._is_last and self.first.is_set():
                before = signal.SIG_IGN
            signal.signal(number, before)
