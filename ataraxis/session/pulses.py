"""Compare the pulses of a trigger line with the frames of a device.

A camera without a counter may lose frames unnoticed. If another device records its
trigger or exposure, each pulse is a frame that should exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.log.export.series import ExportSeries, fields_of
from ataraxis.log.nodes import LogNode, Nodes


@dataclass(frozen=True)
class PulseCount:
    """Pulses of a line, and frames of a device."""

    pulses: int
    """Rising edges."""
    frames: int
    """Frames that were sent, or dropped by this host."""
    open: int
    """Pulses after the last frame, which was stopped in mid-exposure; 0 or 1."""

    @property
    def lost(self) -> int:
        """Pulses without a frame; below 0: frames without a pulse."""
        return self.pulses - self.open - self.frames


def count_pulses(
    directory: Path, stream: str, line: str | int, frames: int, last_ns: int
) -> PulseCount:
    """Count the rising edges of a line, given by name or number, of a recorded stream.

    They are compared with `frames` of a device, the last of which was at `last_ns`.
    Raises `KeyError` or `FileNotFoundError` without the stream or line; the message
    names those that exist.
    """
    nodes = Nodes(directory)
    try:
        edges = _edges(nodes.find(stream), line)
    finally:
        nodes.close()
    is_open = len(edges) > frames and len(edges) > 0 and int(edges[-1]) >= last_ns
    return PulseCount(len(edges), frames, int(is_open))


def _edges(node: LogNode, line: str | int) -> NDArray[np.int64]:
    """Return when a line rose above the middle of its extremes, monotonic ns."""
    track = ExportSeries(node)
    take = _taker(track, line)
    low, high = np.inf, -np.inf
    for _, rows in track.pieces():
        values = take(track.series.read(rows))
        if values.size:
            low, high = min(low, values.min()), max(high, values.max())
    if not high > low:
        return np.empty(0, np.int64)
    # A line that is high at first has no known edge.
    middle, was_high, found = (low + high) / 2, True, [np.empty(0, np.int64)]
    per_ns = 1e9 / track.rate_hz if track.is_blocks and track.rate_hz else 0.0
    for _, rows in track.pieces():
        values = take(track.series.read(rows))
        is_high = (values > middle).reshape(-1)
        at = np.flatnonzero(is_high & ~np.concatenate([[was_high], is_high[:-1]]))
        was_high = bool(is_high[-1]) if len(is_high) else was_high
        each = values.shape[1] if values.ndim > 1 else 1
        times = track.series.pick(rows).time
        found.append(times[at // each] + np.round(at % each * per_ns).astype("i8"))
    return np.concatenate(found)


def _taker(track: ExportSeries, line: str | int) -> Any:
    """Return a function of rows to a line: shape (n,), or (n, samples) of blocks."""
    series = track.series
    names = [".".join(field) for field in fields_of(series.dtype)]
    if isinstance(line, str) and line in names:
        return track.take(tuple(line.split(".")))
    channels: list[str] = []
    if series.labels is not None and series.shape:
        coord = series.labels.coords.get(series.dims[-1])
        if coord is not None:
            channels = [str(name) for name in coord.values.tolist()]
    if isinstance(line, str):
        if line not in channels:
            raise KeyError(
                f"stream {track.name!r} has no line {line!r}: it has "
                f"{[name for name in names if name] + channels}"
            )
        line = channels.index(line)
    number = int(line)
    if not series.shape or not 0 <= number < series.shape[-1]:
        raise KeyError(f"stream {track.name!r} of shape {series.shape} has no {number}")
    return lambda rows: rows[..., number]
