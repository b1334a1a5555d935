"""Which functions of ataraxis run, in the order in which each is first called.

Imported by ``sitecustomize`` in the processes that a test starts, and by the test.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from types import FrameType

PLACE = "ATARAXIS_WALK"
"""Environment variable: the directory that each process writes its trace into."""
_seen: dict[tuple[str, str], int] = {}
_file = -1


def start(directory: str | Path) -> None:
    """Write each function at its first call from now on, in all threads."""
    global _file
    _seen.clear()
    path = Path(directory) / f"{os.getpid()}.txt"
    _file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    threading.setprofile(_note)
    sys.setprofile(_note)


def stop() -> dict[tuple[str, str], int]:
    """Stop, and return how often each function was called, by file and name."""
    sys.setprofile(None)
    threading.setprofile(None)
    return dict(_seen)


def _note(frame: FrameType, event: str, argument: object) -> None:
    if event != "call":
        return
    _, found, name = frame.f_code.co_filename.rpartition("/ataraxis/")
    if not found:
        return
    place = name, frame.f_code.co_qualname
    count = _seen.get(place, 0)
    _seen[place] = count + 1
    if not count:
        os.write(_file, f"{name} {frame.f_code.co_qualname}\n".encode())
