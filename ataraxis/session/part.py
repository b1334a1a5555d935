"""The program of a recorder on another host: a part of a session, on that host's disk.

There it is a session of its own, in the directory that ``sessions:`` of ``hosts.yaml``
names, so that what reads, verifies or recovers a session does so with it. Its keeper
starts it, again if it dies; its verdict goes to the session of which it is a part.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ataraxis.config import YamlConfig
from ataraxis.session.directory import SessionFolder
from ataraxis.session.recorder import END
from ataraxis.session.session import Session
from ataraxis.shm.thread import Latch, Thread

PART = "part.yaml"
"""File in the directory there that tells whose part it is."""
_MOST = 10_000


@dataclass
class SessionPart(YamlConfig):
    """Contents of ``part.yaml``: the session of which a directory is a part."""

    session: str
    host: str
    id: str


def run(options: dict[str, Any]) -> None:
    """Record streams of this host until an order to end.

    The options are ``id``, ``host``, ``name``, ``subject``, ``streams``, ``durability``
    ``directory``, ``context``, and ``is_test``: its files are removed at the end.
    """
    lock = threading.Lock()

    def report(**message: Any) -> None:
        with lock:  # several threads report
            sys.stdout.write(json.dumps(message) + "\n")
            sys.stdout.flush()

    is_over = Latch()
    Thread(_read_orders, "ataraxis-orders", (is_over,)).start()
    part = SessionPart(str(options["name"]), str(options["host"]), str(options["id"]))
    place = Path(options["directory"])
    name, is_begun = _named(place, part)
    session = Session(
        name, directory=place, subject=str(options["subject"]),
        context=options["context"], durability=options["durability"], resume=is_begun,
        on_loss=lambda loss: report(loss=asdict(loss)),
    )  # fmt: skip
    try:
        part.to_yaml(session.directory / PART)
        session.record(*options["streams"])
        report(path=str(session.directory.absolute()))
        is_over.wait()
        nbytes = sum(
            session.statistics()[stream].nbytes for stream in options["streams"]
        )
    finally:
        verdict = session.close()
    doubts = [] if verdict.is_trusted else verdict.notes
    for stream in verdict.streams:
        if stream.name in options["streams"]:
            report(verdict=asdict(stream))
    if options["is_test"]:
        shutil.rmtree(session.directory, ignore_errors=True)
    report(done=True, nbytes=nbytes, doubts=doubts)


def _read_orders(is_over: Latch) -> None:
    """Read the order to end; without one, end as if killed: the rings keep the rest."""
    if sys.stdin.readline().strip() != END:
        os._exit(1)
    is_over.set()


def _named(place: Path, part: SessionPart) -> tuple[str, bool]:
    """Return the name of the directory, and whether it was begun by this part."""
    for number in range(1, _MOST):
        name = part.session if number == 1 else f"{part.session}-{number}"
        path = place / name
        if not path.exists():
            return name, False
        try:
            is_ours = SessionPart.from_yaml(path / PART).id == part.id
        except (OSError, ValueError):
            continue  # of another session
        if is_ours and SessionFolder(path).verdict() is None:
            return name, True
    raise FileExistsError(17, f"{_MOST} sessions have the name", str(place / name))


def main(text: str) -> None:
    """Run with options in JSON."""
    run(json.loads(text))
