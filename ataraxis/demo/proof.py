"""Proof: what is on disk, beside what the sources made; and what comes back of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.demo.detector import spikes
from ataraxis.demo.scene import SPIKES, Scene
from ataraxis.log.archive import LogArchive
from ataraxis.session.events import EVENTS, parsed
from ataraxis.session.playback import replay
from ataraxis.shm.context import Context
from ataraxis.stream import Consumer

BATCH_BYTES = 16 << 20
SPEED = 4.0


@dataclass(frozen=True)
class Compared:
    """One stream, sample by sample."""

    samples: int
    """How many are on disk."""
    wrong: int
    """How many of them are not what the source made."""


@dataclass(frozen=True)
class Replayed:
    """A part of the session that was sent again."""

    frames: int
    """How many came."""
    wrong: int
    """How many of them were not what was recorded, or had another time."""
    seconds: float
    """How much of the session it was, s."""
    late_s: float
    """How late the latest one was, s."""
    spikes: int | None
    """What the detector found in them; None: it was not asked."""
    spikes_then: int | None
    """What it found while they were recorded."""

    @property
    def is_same(self) -> bool:
        """Whether everything came back as it was."""
        return self.frames > 0 and not self.wrong and self.spikes == self.spikes_then


def compare(path: Path, stream: str, truth: Iterator[NDArray[Any]]) -> Compared:
    """Compare a recorded stream with what its source makes, from the first sample on.

    Parameters
    ----------
    path : Path
        Directory of the session.
    stream : str
        Which one.
    truth : iterator of ndarray
        As `Scene.truth` gives it.
    """
    samples = wrong = 0
    rest: NDArray[Any] | None = None
    with LogArchive(path) as archive:
        for rows in _rows(archive, stream):
            first = next(truth, None) if rest is None else rest
            sample = rows.shape[1:] if first is None else first.shape[1:]
            got = rows.reshape(-1, *sample)
            rest, at = first, 0
            while at < len(got) and rest is not None:
                n = min(len(rest), len(got) - at)
                if not np.array_equal(got[at : at + n], rest[:n], equal_nan=True):
                    wrong += _differing(got[at : at + n], rest[:n])
                at += n
                rest = rest[n:] if n < len(rest) else next(truth, None)
            wrong += len(got) - at
            samples += len(got)
    return Compared(samples, wrong)


def _rows(archive: LogArchive, stream: str) -> Iterator[NDArray[Any]]:
    """Go through the frames of a stream, some megabytes at a time."""
    found = archive.select(stream)
    size = int(found.nbytes.max(initial=1))
    step = max(BATCH_BYTES // size, 1)
    for at in range(0, len(found), step):
        yield archive.read(numbers=found.numbers[at : at + step]).data


def _differing(a: NDArray[Any], b: NDArray[Any]) -> int:
    is_same = (a == b) | ((a != a) & (b != b))
    return int(np.count_nonzero(~is_same.reshape(len(a), -1).all(axis=1)))


def play_again(
    path: Path, scene: Scene, context: Context, duration_s: float
) -> Replayed:
    """Replay the middle of a session at 4x, and run the detector on it again.

    Parameters
    ----------
    path : Path
        Directory of the session.
    scene : Scene
        What was recorded.
    context : Context
        Where the streams come to life; no other has their names there.
    duration_s : float
        How long the session was, s.
    """
    name = scene.main or next(iter(scene.rig.sources))
    part = min(2.0, duration_s / 2)
    start = (duration_s - part) / 2
    with LogArchive(path) as archive:
        times = archive.select(name).time
        begin = int(times.min()) + round(start * 1e9)
        span = np.flatnonzero((times >= begin) & (times < begin + round(part * 1e9)))
        numbers = archive.select(name).numbers[span]
        block = archive.read(numbers=numbers) if len(numbers) else None
        counts = _counts(archive) if scene.main else []
    frames = wrong = found = 0
    with replay(
        path, speed=SPEED, context=context, streams=[name], start=start,
        stop=start + part, buffer_count=len(span) + 8,
    ) as again:  # fmt: skip
        reader = Consumer(name, context=context, policy="lossless")
        for frame in reader:
            with frame:
                is_same = block is not None and frames < len(block) and (
                    frame.time_ns == block.time[frames]
                    and frame.array.tobytes() == block.data[frames].tobytes()
                )  # fmt: skip
                wrong += not is_same
                found += spikes(frame.array) if scene.main else 0
            frames += 1
        late = again.lateness()[name].max_s
        reader.close()
    wrong += len(span) - frames if frames < len(span) else 0
    then = sum(counts[k] for k in span if k < len(counts)) if scene.main else None
    return Replayed(frames, wrong, part, late, found if scene.main else None, then)


def _counts(archive: LogArchive) -> list[int]:
    """Return what the detector said of each frame, in their order."""
    found = archive.read(EVENTS).data
    rows = found[found["event"] == SPIKES]
    return [int(parsed(data)["value"]) for data in rows["data"]]
