"""Scene: what the demo records, and what its sources send."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ataraxis.datamux import Recording, open_recordings
from ataraxis.datamux.registry import BUILT_IN
from ataraxis.datamux.sources.sim import simulation_of
from ataraxis.session.rig import Rig, RigPipe, RigSource, RigStep

DETECTOR = "ataraxis.demo.detector:spikes"
WORKERS = 2
BLOCKS_HZ = 100.0
SPIKES = "spikes"
PROBE: dict[str, Any] = {"seed": 7}
CAMERA: dict[str, Any] = {"shape": [480, 640], "rate_hz": 120}
PROBE_SAMPLES = 300
BYTES_S = 30_000 * 64 * 2 + 480 * 640 * 120
_ROWS = 4096


@dataclass
class Scene:
    """What is recorded."""

    rig: Rig
    """Sources, and the detector."""
    descriptions: dict[str, str]
    """Description of each stream."""
    main: str | None
    """Stream of the detector; None: no stream is suitable."""
    bytes_s: float
    """Approximate bytes per second on disk."""
    seconds: float
    """Longest duration, s."""
    recordings: dict[str, Recording] = field(default_factory=dict)
    """The user's recordings, by stream."""
    notes: list[str] = field(default_factory=list)
    """What was left out, and why."""

    def truth(self, stream: str) -> Iterator[NDArray[Any]] | None:
        """Generate the samples of a source again; None: they cannot be known.

        Yields
        ------
        ndarray
            Shape (n, *sample), from the first sample on, of any length.
        """
        source = self.rig.sources[stream]
        if source.node == "sim":
            simulation = simulation_of(source.stream, source.attrs)
            return (chunk.block.array for chunk in simulation.chunks())
        if stream in self.recordings:
            return _pieces(self.recordings[stream])
        return None


def _pieces(recording: Recording) -> Iterator[NDArray[Any]]:
    for at in range(0, len(recording), _ROWS):
        yield recording.read(at, at + _ROWS).array


def simulated(seconds: float, buffer_s: float) -> Scene:
    """Return a scene of this machine's load, a probe and a camera.

    It takes `seconds`; the rings hold `buffer_s`.
    """
    sources = {
        "probe": RigSource("sim", "probe", PROBE, PROBE_SAMPLES, 2 * buffer_s),
        "camera": RigSource("sim", "camera", CAMERA, buffer_s=buffer_s),
    }
    descriptions = {
        "probe": "64 channels x 30 kHz, simulated",
        "camera": "640 x 480 x 120/s, simulated",
    }
    notes = []
    if BUILT_IN["telemetry"].is_here:
        sources["telemetry"] = RigSource("telemetry", "cpu", {"rate_hz": 10})
        descriptions["telemetry"] = "the processors of this machine"
    else:
        notes.append(f"telemetry is left out: {BUILT_IN['telemetry'].install}")
    rig = Rig(sources, pipes={SPIKES: _pipe("probe")})
    return Scene(rig, descriptions, "probe", float(BYTES_S), seconds, notes=notes)


_SHORT = 100
"""With fewer frames, a last frame that is not full would matter."""


def of_recording(path: Path, seconds: float) -> Scene:
    """Return a scene of a user's recording, played in real time.

    Raises `ValueError`, `RecordingError` or `FileNotFoundError` if it cannot be read,
    or has no stream of numbers.
    """
    notes: list[str] = []
    sources: dict[str, RigSource] = {}
    descriptions: dict[str, str] = {}
    kept: dict[str, Recording] = {}
    total, main, fastest = 0.0, None, 0.0
    for key, recording in open_recordings(path).items():
        stream = recording.stream
        try:
            labels = stream.labels()
        except ValueError:
            notes.append(f"{key!r} is left out: it is text")
            continue
        if not len(recording):
            notes.append(f"{key!r} is left out: it is empty")
            continue
        name = _name(key, kept)
        rate = stream.rate_hz
        samples = _samples(rate) if rate and len(labels.shape) == 1 else None
        if samples is not None and len(recording) < _SHORT * samples:
            samples = 1  # samples that do not fill a frame are not sent
        attrs = {"path": str(path.absolute()), "stop": seconds}
        sources[name] = RigSource("recording", key, attrs, samples)
        size = "x".join(map(str, labels.shape)) or "1"
        description = f"{size} {labels.dtype} at {rate:g} Hz" if rate else "events"
        descriptions[name] = description
        kept[name] = recording
        total += (rate or 1.0) * labels.nbytes
        if (rate or 0.0) > fastest and len(labels.shape) == 1:
            main, fastest = name, rate or 0.0
    if not sources:
        raise ValueError(f"{path}: no stream of numbers in it; {'; '.join(notes)}")
    pipes = {} if main is None else {SPIKES: _pipe(main)}
    longest = max(r.duration_s for r in kept.values())
    seconds = min(seconds, max(longest, 0.1))
    rig = Rig(sources, pipes=pipes)
    return Scene(rig, descriptions, main, total, seconds, kept, notes)


def _samples(rate_hz: float) -> int:
    """Return the samples per frame: 10 ms of them; of slow streams 100 ms."""
    hz = BLOCKS_HZ if rate_hz > 10 * BLOCKS_HZ else BLOCKS_HZ / 10
    return max(1, round(rate_hz / hz))


def _pipe(stream: str) -> RigPipe:
    step = RigStep("detect", DETECTOR, WORKERS, ordered=True)
    return RigPipe(stream, [step], event=SPIKES)


def _name(key: str, taken: dict[str, Recording]) -> str:
    """Return a valid and unused name for a stream of a file."""
    plain = re.sub(r"[^\w-]+", "_", key).strip("_")[:60] or "stream"
    if plain == "events":
        plain = "events_recorded"
    numbered = (f"{plain}_{k}" for k in itertools.count(2))
    return next(n for n in itertools.chain([plain], numbered) if n not in taken)
