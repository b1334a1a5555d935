"""Diary: the log of what happened in a session, a line each."""

from __future__ import annotations

import threading
from pathlib import Path

from ataraxis.clock import Anchor, now_ns


class Diary:
    r"""Appends lines to ``session.log``; each is in the file when `say` returns.

    Parameters
    ----------
    path : Path
        The file; made if it is not there.
    clock : Anchor
        What wall time it is.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     diary = Diary(Path(folder) / "session.log", Anchor.take())
    ...     diary.say("begun")
    ...     diary.close()
    ...     line = (Path(folder) / "session.log").read_text()
    >>> line.split(maxsplit=2)[2]
    'begun\n'
    """

    def __init__(self, path: Path, clock: Anchor) -> None:
        self._file = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115
        self._clock = clock
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        """Write one line: UTC, monotonic ns, and the text; its line breaks go."""
        now = now_ns()
        wall = str(self._clock.to_datetime64(now))[:23]
        with self._lock:
            if not self._file.closed:
                self._file.write(f"{wall}Z {now} {' '.join(text.split())}\n")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()
