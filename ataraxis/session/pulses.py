"""Pulses: the edges of a recorded line that belong to the frames of a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.clock import FitSegment, fit_strobes
from ataraxis.errors import AmbiguousMatch, ConfigError
from ataraxis.labels import sample_rate, stamp_of
from ataraxis.log.archive import LogNode, Nodes
from ataraxis.log.device import BITS
from ataraxis.log.export.series import ExportSeries, fields_of
from ataraxis.log.fits import (
    DEVICE_TIME,
    NUMBERS,
    POSITIONS,
    SourceFit,
    fit_series,
    frames_of,
    kind_of_numbers,
    load_fit,
    numbers_of,
)
from ataraxis.log.sample_axis import SampleAxis
from ataraxis.log.series import Series

Ints = NDArray[np.int64]
UNKNOWN_MS = 0.0, 50.0
"""Least and largest fixed delay of a device that declares none, ms."""
_TOLERANCE_NS = 50_000


def pulses_of(directory: Path) -> dict[str, tuple[str, str | int]]:
    """Return the lines with a pulse for each frame, by stream, of the session's rig."""
    from ataraxis.session.rig import Rig

    try:
        rig = Rig.from_yaml(directory / "rig.yaml")
    except (FileNotFoundError, NotADirectoryError, ConfigError):
        return {}
    return {
        name: (source.pulses.stream, source.pulses.line)
        for name, source in rig.sources.items()
        if source.pulses is not None
    }


# ---- the edges of a line


def edges_of(node: LogNode, line: str | int) -> Ints:
    """Return the rows at which a line rises above the middle of its extremes.

    Rows are the samples of blocks, else entries.
    """
    track = ExportSeries(node)
    take = _taker(track, line)
    low, high = np.inf, -np.inf
    for _, rows in track.pieces():
        values = take(track.read(rows))
        if values.size:
            low, high = min(low, values.min()), max(high, values.max())
    if not high > low:
        return np.empty(0, np.int64)
    # A line that is high at first has no known edge.
    middle, was_high, found = (low + high) / 2, True, [np.empty(0, np.int64)]
    for start, rows in track.pieces():
        values = take(track.read(rows))
        is_high = (values > middle).reshape(-1)
        at = np.flatnonzero(is_high & ~np.concatenate([[was_high], is_high[:-1]]))
        was_high = bool(is_high[-1]) if len(is_high) else was_high
        each = values.shape[1] if values.ndim > 1 else 1
        found.append(start + at // each)
    return np.concatenate(found)


def _taker(track: ExportSeries, line: str | int) -> Callable[[Any], NDArray[Any]]:
    """Return a function of rows to a line, shape (n,)."""
    series, shape = track.series, track.row_shape
    names = [".".join(field) for field in fields_of(series.dtype)]
    if isinstance(line, str) and line in names:
        return track.take(tuple(line.split(".")))
    channels: list[str] = []
    if series.labels is not None and shape:
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
    if not shape and number == 0:
        return track.take(())
    if not shape or not 0 <= number < shape[-1]:
        raise KeyError(f"stream {track.name!r} of shape {series.shape} has no {number}")
    return lambda rows: np.asarray(rows[..., number])


# ---- pulses counted against frames


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
        node = nodes.find(stream)
        edges = edges_of(node, line)
        is_open = len(edges) > frames and len(edges) > 0
        if is_open:
            is_open = _stamped_ns(node.series(), edges[-1:]) >= last_ns
    finally:
        nodes.close()
    return PulseCount(len(edges), frames, int(is_open))


def _stamped_ns(series: Series, row: Ints) -> int:
    """Return when a row was, by the stamp of its entry, monotonic ns."""
    if not series.is_blocks:
        return int(series.pick(row).time[0])
    entry, inner = series.blocks().rows_of(row)
    rate = sample_rate(series.attrs)
    ahead = round(int(inner[0]) * 1e9 / rate) if rate else 0
    return int(series.pick(entry).time[0]) + ahead


# ---- frames fitted to pulses


@dataclass(frozen=True, eq=False)
class PulseTimes:
    """When the pulses of a line were, by the fit of the stream that recorded it."""

    stream: str
    line: str | int
    edges_ns: Ints
    """Host time of the first high sample of each pulse, monotonic ns, (n,)."""
    bounds_ns: Ints
    """Largest error of each, but for a fixed delay, ns, (n,)."""
    sample_ns: int
    """Interval of samples: a pulse rose within so long before its time."""
    half_ns: int | None
    """Half of the range of the stream's fixed delay, ns; None: it is unknown."""

    def bounds_near(self, times_ns: Ints) -> Ints:
        """Return the larger bound of the pulses around each time, ns."""
        right = np.searchsorted(self.edges_ns, times_ns)
        last = len(self.edges_ns) - 1
        before, behind = np.clip(right - 1, 0, last), np.clip(right, 0, last)
        return np.asarray(np.maximum(self.bounds_ns[before], self.bounds_ns[behind]))


def pulse_times(
    directory: Path,
    nodes: Nodes,
    stream: str,
    line: str | int,
    latency_ms: tuple[float, float] | None = None,
) -> PulseTimes:
    """Return the times of the pulses of a line, by the fit that is kept of its stream.

    Without one that is of all its entries, or with `latency_ms`, it is made.

    Raises
    ------
    KeyError
        There is no such stream or line.
    ValueError
        The stream cannot be fitted.
    """
    node = nodes.find(stream)
    series = node.series()
    saved = None if latency_ms is not None else load_fit(directory, stream)
    if saved is None or saved.of in NUMBERS or saved.entries < len(series):
        saved = fit_series(series, latency_ms)
    edges, fit = edges_of(node, line), saved.fit
    frames = replace(frames_of(series), shift_ns=0)
    if saved.of == POSITIONS:
        positions = frames.positions(sample_rate(series.attrs), series.attrs)
        axis = SampleAxis.fitted(frames, positions, fit, stamp_of(series.attrs))
        times, bounds = axis.at(edges), fit.bound_at(axis.position(edges))
        sample = int(np.ceil(float(fit.unit)))
    else:
        if saved.of != DEVICE_TIME or frames.device is None:
            raise ValueError(
                f"not every entry of {series.title} has a device time, so that the "
                "times of its lines are those of arrival: send device_time="
            )
        near = frames.time_ns[edges]
        ticks = frames.device[edges, 0]
        times = fit.to_host_ns(ticks, near_ns=near)
        bounds = fit.bound_at(ticks, near_ns=near)
        sample = int(np.median(np.diff(frames.time_ns))) if len(frames) > 1 else 0
    half = fit.half_latencies[1]
    return PulseTimes(
        stream, line, times, bounds - half, sample, half if fit.is_absolute else None
    )


def fit_to_pulses(
    series: Series, pulses: PulseTimes, latency_ms: tuple[float, float] | None
) -> SourceFit:
    """Fit the numbers of frames to the pulses of a line.

    `latency_ms` is the least and largest fixed delay from a pulse to the arrival of its
    frame; `UNKNOWN_MS` if it is not known.

    Raises
    ------
    ValueError
        Too few match, or several pulses could be that of a frame: it states why.
    """
    if series.is_blocks:
        raise ValueError(f"{series.title} has blocks of samples, not frames")
    frames = frames_of(series)
    of = kind_of_numbers(series, frames)
    numbers, rows = numbers_of(frames, of), frames.rows
    delay_ms = _delays(pulses, latency_ms)
    bits = int(series.attrs.get(BITS, 64)) if of == NUMBERS[0] else 64
    arrivals = frames.time_ns
    try:
        fit = fit_strobes(
            pulses.edges_ns, numbers[rows], arrivals[rows], delay_ms=delay_ms,
            bits=bits if bits < 64 else None,
            tolerance_ns=_TOLERANCE_NS + 2 * pulses.sample_ns,
        )  # fmt: skip
    except AmbiguousMatch as error:
        raise ValueError(_not_told_apart(error, pulses, delay_ms)) from error
    segments = tuple(_widened(part, pulses) for part in fit.segments)
    half = pulses.half_ns
    made = replace(
        fit, kind="strobes", segments=segments,
        assumption=f"{fit.assumption} ({delay_ms[0]:.3g} to {delay_ms[1]:.3g}); the "
        f"strobes are line {pulses.line!r} of {pulses.stream!r}, by its own fit",
        latency_ns=None if half is None else (-half, half),
    )  # fmt: skip
    times = made.to_host_ns(numbers, near_ns=arrivals)
    late = (arrivals - times)[rows]
    usual, period = late[fit.used], float(fit.unit)
    is_off = (late < usual.min() - period) | (late > usual.max() + period)
    is_off[fit.used] = False
    if is_off.any():
        raise ValueError(
            f"{int(is_off.sum())} frames have no pulses, and they arrived more than a "
            "period earlier or later than the pulses of the others explain, as after a "
            "pause"
        )
    if (np.diff(times) <= 0).any():
        raise ValueError(
            f"the times of {int((np.diff(times) <= 0).sum())} frames would not be "
            "later than those of the frames before: their numbers do not increase"
        )
    return SourceFit(made, of, len(frames))


def _not_told_apart(
    error: AmbiguousMatch, pulses: PulseTimes, delay_ms: tuple[float, float]
) -> str:
    shifts = ", ".join(f"{shift / 1e6:.1f}" for shift in error.candidates[:2])
    low, high = delay_ms
    text = (
        f"pulses that are a period apart match equally well (shifts of {shifts} ms "
        f"...), as its frames may arrive {low:.3g} to {high:.3g} ms after their pulses"
    )
    period = float(np.median(np.diff(pulses.edges_ns))) / 1e6
    if high - low < period:
        return (
            f"{text}, and their jitter, or a pause next to few frames, hides which of "
            f"them, {period:.3g} ms apart, is whose"
        )
    return (
        f"{text}: declare attrs['latency_ms'], the least and largest fixed delay, of "
        f"it and of {pulses.stream!r}, so that both ranges are together shorter than "
        f"the period of {period:.3g} ms"
    )


def _delays(
    pulses: PulseTimes, latency_ms: tuple[float, float] | None
) -> tuple[float, float]:
    """Return by how much frames may arrive after the times of their pulses, ms."""
    low, high = latency_ms or UNKNOWN_MS
    doubt = (int(pulses.bounds_ns.max(initial=0)) + (pulses.half_ns or 0)) / 1e6
    if pulses.half_ns is None:  # these times are late by the stream's own delay
        low -= UNKNOWN_MS[1]
    return low - doubt, high + doubt


def _widened(part: FitSegment, pulses: PulseTimes) -> FitSegment:
    """Return a line whose bound has those of the pulses' times, and one sample."""
    more = pulses.bounds_near(part.host_ns) + pulses.sample_ns
    return replace(part, bound_ns=part.bound_ns + more)
