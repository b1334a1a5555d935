"""What the session's tests run in other processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def record(streams: list[str], name: str, directory: Path, ready: object) -> None:
    """Record a session until killed; an event a frame of the first stream."""
    from ataraxis import Consumer, Session

    with Session(name, directory=directory, subject="m42") as session:
        session.record(*streams)
        reader = Consumer(streams[0], policy="lossless")
        ready.set()  # type: ignore[attr-defined]
        for frame in reader:
            session.event("seen", sequence=frame.sequence)
            frame.release()


def record_apart(streams: list[str], name: str, directory: Path, ready: object) -> None:
    """Record a session by a process of its own until killed."""
    import time

    from ataraxis import Session

    with Session(name, directory=directory, subject="m42") as session:
        session.record(*streams, process=True)
        while not all(session.statistics()[s].is_recording for s in streams):
            time.sleep(0.01)
        ready.set()  # type: ignore[attr-defined]
        time.sleep(600)


def record_and_tell(
    streams: list[str], name: str, directory: Path, pids: object
) -> None:
    """Record in a separate process until killed; send each new pid of it."""
    import time

    from ataraxis import Session

    pid = 0
    with Session(name, directory=directory, subject="m42") as session:
        session.record(*streams, process=True)
        while True:
            found, now = session.statistics(), session.recorders["recorder"]
            if now != pid and (pid or all(found[s].is_recording for s in streams)):
                pid = now
                pids.send(pid)  # type: ignore[attr-defined]
            time.sleep(0.01)


def peak(block: np.ndarray) -> float:
    """The largest value of a block; a step of a rig's pipe."""
    return float(block.max())
