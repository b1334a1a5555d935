"""Processes of ataraxis's own that a program starts: workers, writers, recorders.

An entry is a function of ataraxis that takes text. It runs in another interpreter; in a
frozen program (PyInstaller, cx_Freeze, Nuitka), whose executable is the program itself,
in another copy of that, which must call `freeze_support` before anything else.
"""

from __future__ import annotations

import importlib
import sys

__all__ = ["check_can_start", "enter", "freeze_support", "process_command"]

# Between the executable and the entry, where a frozen program is started as a process
# of ours. The hook for PyInstaller (`ataraxis.shm.pyinstaller`) looks for it, too.
FLAG = "--ataraxis-process"
# Set on `sys` by that hook: so it need not import anything where nothing is started.
MARK = "ataraxis_starts_processes"


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
