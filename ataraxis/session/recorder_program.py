"""The program of a recorder of a session; `RecorderProcess` starts it.

Records until it is told to end. If its standard input ends without a word, whoever
started it is gone: then it ends at once, as if killed, so that the rings keep what is
not on disk for ``ataraxis recover``.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ataraxis.session.track import SessionLoss, Track
from ataraxis.shm.context import Context

END = "end"
LOOK_S = 0.1


class _Voice:
    """Tells what happens, a line of JSON each; any thread may."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def tell(self, **what: Any) -> None:
        with self._lock:
            sys.stdout.write(json.dumps(what) + "\n")
            sys.stdout.flush()


def run(told: dict[str, Any]) -> None:
    """Record streams until told to end.

    Parameters
    ----------
    told : dict
        ``streams``, ``directory``, ``context``, ``recorder``, ``durability``, and
        ``known``, the streams that were recorded before by one that died.
    """
    voice = _Voice()

    def say(text: str) -> None:
        voice.tell(say=text)

    def lose(loss: SessionLoss) -> None:
        voice.tell(loss=asdict(loss))

    def end(name: str, is_ended: bool) -> None:
        voice.tell(stream=name, ended=is_ended)

    tracks = [
        Track(
            name, Path(told["directory"]), Context.of(told["context"]),
            told["recorder"], say=say, on_loss=lose, on_end=end,
            durability=told["durability"], is_known=name in told["known"],
        )
        for name in told["streams"]
    ]  # fmt: skip
    is_over = threading.Event()
    threading.Thread(target=_listen, args=(is_over,), daemon=True).start()
    known = set(told["known"])
    while not is_over.wait(LOOK_S):
        for track in tracks:
            track.look()
            if track.has_begun and track.name not in known:
                known.add(track.name)
                voice.tell(known=track.name)
    for track in tracks:
        verdict = asdict(track.stop())
        voice.tell(verdict=verdict)


def _listen(is_over: threading.Event) -> None:
    if sys.stdin.readline().strip() == END:
        is_over.set()
    else:
        os._exit(1)


def main() -> int:
    """Run what the first argument says, JSON."""
    run(json.loads(sys.argv[1]))
    return 0
