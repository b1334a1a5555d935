"""What goes on while latencies are measured: a session records, and is looked at.

One process sends 100 frames a second of 64 channels and records them in a session, on
the disk (``durability="disk"``); another reads the statistics of all streams and pipes
of the context ten times a second, as ``ataraxis top`` does.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ataraxis.latency.task import (
    LOOKS,
    READY,
    SENT,
    START_S,
    EventSchedule,
    StampFile,
    taking_part,
)
from ataraxis.pipeline.statistics import list_runs
from ataraxis.session import Session, SessionFolder
from ataraxis.stream import Producer
from ataraxis.stream.inspector import Meter

NAME = "load"
RATE_HZ = 100.0
SHAPE = (100, 64)
LOOK_S = 0.1


@dataclass(frozen=True)
class LoadReport:
    """What went on while latencies were measured."""

    directory: str
    """Where the session was recorded; it is removed at the end."""
    sent: int
    """Frames that the recorded stream sent."""
    recorded: int
    """Frames of it that are on the disk."""
    looks: int
    """How often the statistics of all streams were read."""
    problem: str = ""
    """Why the load was not what it should be; empty if it was."""

    @classmethod
    def of(cls, directory: Path, file: StampFile, problem: str) -> LoadReport:
        """Return the report of a load that has ended."""
        recorded = 0
        try:
            verdict = SessionFolder(directory / NAME).verdict()
            if verdict is not None:
                recorded = verdict[NAME].received
                if not (verdict.is_trusted or problem):
                    problem = str(verdict)
            else:
                problem = problem or "the session was not finished"
        except (FileNotFoundError, KeyError):
            problem = problem or "nothing was recorded"
        words = file.words
        return cls(str(directory), words[SENT], recorded, words[LOOKS], problem)


def record(text: str, directory: str) -> None:
    """Send and record until SIGTERM; an entry of `ataraxis.shm.process`."""
    with taking_part(text) as task:
        file = StampFile(task.stamps)
        frame = np.random.default_rng(1).integers(-999, 999, SHAPE).astype("i2")
        with (
            Session(
                NAME, directory=directory, context=task.context, durability="disk"
            ) as session,
            Producer(
                NAME, shape=SHAPE, dtype="i2", context=task.context,
                dims=("time", "channel"), attrs={"rate_hz": RATE_HZ},
                buffer_seconds=2.0, on_stall=lambda _: None,
            ) as producer,
        ):  # fmt: skip
            session.record(NAME, timeout=START_S)
            try:
                _send(producer, frame, file)
            except KeyboardInterrupt:
                # The session ends in order. The signal may have come between a frame
                # and its count.
                file.words[SENT] = producer.last_sent_iteration


def _send(producer: Producer, frame: np.ndarray, file: StampFile) -> None:
    words, schedule, k = file.words, EventSchedule(RATE_HZ), 0
    schedule.begin()
    while True:
        producer.send(frame)
        k += 1
        words[SENT] = k
        words[READY] = 1
        schedule.wait(k)


def watch(text: str) -> None:
    """Read statistics until SIGTERM; an entry of `ataraxis.shm.process`."""
    with taking_part(text) as task:
        words, meter = StampFile(task.stamps).words, Meter(task.context)
        while True:
            meter.read()
            list_runs(task.context)
            words[LOOKS] += 1
            time.sleep(LOOK_S)
