"""What the session's tests run in other processes."""

from __future__ import annotations

from pathlib import Path


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
