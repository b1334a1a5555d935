"""Simulated streams: faults, signals, chunks, and a feed of blocks in time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ataraxis.datamux.block import Block
from ataraxis.datamux.catalog import pick
from ataraxis.datamux.description import Stream
from ataraxis.datamux.price import Price
from ataraxis.datamux.recording import Recording
from ataraxis.datamux.replay import BLOCK_BYTES, PACED_S, UNPACED, PacedFeed, sizes
from ataraxis.datamux.timeline import Timeline
from ataraxis.errors import SourceLost

Rng = np.random.Generator

# ---- faults of real devices, reproducible


@dataclass(frozen=True)
class Faults:
    """Faults of a simulated stream; none by default."""

    dropout: float = 0.0
    """Probability that a sample is missing."""
    nan: float = 0.0
    """Probability that a sample's float values are NaN."""
    jitter_s: float = 0.0
    """Standard deviation of the error of times, s; times stay in order."""
    drift_ppm: float = 0.0
    """How much faster the clock runs, parts per million."""
    burst: float = 0.0
    """Stalls per second; delayed samples then come at once."""
    burst_s: float = 0.25
    """Length of a stall, s."""
    lost_after_s: float | None = None
    """When the source goes away for good, s; None: never."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if value is None or item.name == "drift_ppm":
                continue
            most = 1.0 if item.name in ("dropout", "nan") else float("inf")
            if not 0 <= value <= most:
                raise ValueError(
                    f"Faults.{item.name} must be 0 to {most:g}, got {value!r}"
                )

    def on(self, block: Block, rng: Rng, since_s: float) -> tuple[Block, int]:
        """Return a chunk with these faults, and its number of lost samples.

        `since_s` is the last time before the chunk, so that times do not decrease.
        """
        # Draw every random number always, so that faults do not influence each other.
        n = len(block)
        is_kept = rng.random(n) >= self.dropout
        is_nan = rng.random(n) < self.nan
        noise = rng.normal(0.0, 1.0, n)
        t = block.t * (1 + self.drift_ppm * 1e-6)
        if self.jitter_s:
            t = np.maximum(np.sort(t + noise * self.jitter_s), since_s)
        values = {}
        for name, column in block.values.items():
            if self.nan and column.dtype.kind == "f":
                column = column.copy()
                column[is_nan] = np.nan
            values[name] = column[is_kept] if self.dropout else column
        if self.dropout:
            t = t[is_kept]
        return Block(block.stream, t, values, sequence=block.sequence), n - len(t)

    def stall(
        self, start_s: float, stop_s: float, rng: Rng
    ) -> tuple[float, float] | None:
        """Return begin and end of a stall between two times, or None."""
        chance, where = rng.random(2)
        if not self.burst or chance >= self.burst * (stop_s - start_s):
            return None
        begin = start_s + where * (stop_s - start_s)
        return begin, begin + self.burst_s


# ---- signals of simulated streams, each a dataclass that gives values at given times

# Values depend on the times, and on a random generator that is seeded for each chunk:
# a stream is the same for every reader and speed.

Shape = tuple[int, ...]
Times = NDArray[np.float64]
Values = NDArray[Any]


class Signal(Protocol):
    """The values of a field of a simulated stream."""

    def values(self, t: Times, shape: Shape, rng: Rng) -> Values:
        """Return a value of `shape` for each time (s): shape (n, *shape)."""


@dataclass(frozen=True)
class Sine:
    """A sine.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> Sine(1.0, amplitude=2.0).values(np.array([0.0, 0.25]), (), rng)
    array([0., 2.])
    """

    frequency_hz: float = 1.0
    """Cycles per second."""
    amplitude: float = 1.0
    """Half of the peak-to-peak value."""
    offset: float = 0.0
    """Mean."""
    phase: float = 0.0
    """Phase at time 0, cycles."""

    def values(self, t: Times, shape: Shape, rng: Rng) -> Values:
        """Return the sine, the same for every element."""
        turn = 2 * np.pi * (self.frequency_hz * t + self.phase)
        return _spread(self.offset + self.amplitude * np.sin(turn), shape)


@dataclass(frozen=True)
class Noise:
    """White noise, normally distributed."""

    scale: float = 1.0
    """Standard deviation."""
    offset: float = 0.0
    """Mean."""

    def values(self, t: Times, shape: Shape, rng: Rng) -> Values:
        """Return noise, independent for each element."""
        return rng.normal(self.offset, self.scale, (len(t), *shape))


@dataclass(frozen=True)
class Spikes:
    """Single samples that stand out of noise, at random times."""

    rate_hz: float = 5.0
    """Mean number per second."""
    amplitude: float = 10.0
    """Height."""
    scale: float = 0.5
    """Standard deviation of the noise."""

    def values(self, t: Times, shape: Shape, rng: Rng) -> Values:
        """Return noise with spikes, independent for each element."""
        step = float(np.median(np.diff(t))) if len(t) > 1 else 1.0
        size = (len(t), *shape)
        are = rng.random(size) < self.rate_hz * step
        return rng.normal(0.0, self.scale, size) + self.amplitude * are


@dataclass(frozen=True)
class Ramp:
    """A sawtooth: from 0 to `height` in each period."""

    period_s: float = 1.0
    """Period, s."""
    height: float = 1.0
    """Height."""

    def values(self, t: Times, shape: Shape, rng: Rng) -> Values:
        """Return the sawtooth, the same for every element."""
        return _spread(self.height * ((t / self.period_s) % 1.0), shape)


@dataclass(frozen=True)
class Pattern:
    """A camera's image: a bar that crosses it once a period, on a gradient."""

    period_s: float = 2.0
    """Period, s."""
    height: float = 255.0
    """Brightness of the bar; the gradient reaches half of it."""

    def values(self, t: Times, shape: Shape, rng: Rng) -> Values:
        """Return images, (n, y, x) or (n, y, x, colour)."""
        if len(shape) < 2:
            return Ramp(self.period_s, self.height).values(t, shape, rng)
        x = np.arange(shape[1])
        centre = ((t / self.period_s) % 1.0)[:, None] * shape[1]
        is_bar = np.abs(x - centre) < max(1.0, shape[1] / 16)
        row = np.where(is_bar, self.height, x * (self.height / 2 / shape[1]))
        row = row.reshape(len(t), 1, shape[1], *(1 for _ in shape[2:]))
        return np.broadcast_to(row, (len(t), *shape))


@dataclass(frozen=True)
class Events:
    """Random event codes, for streams without a rate."""

    rate_hz: float = 2.0
    """Mean number per second."""
    count: int = 4
    """Codes are 1 to `count`."""

    def values(self, t: Times, shape: Shape, rng: Rng) -> Values:
        """Return codes."""
        return rng.integers(1, self.count + 1, (len(t), *shape))


@dataclass(frozen=True)
class Function:
    """A function of time: takes times, s, (n,), returns values, (n, *shape)."""

    function: Callable[[Times], Any]
    """The function."""

    def values(self, t: Times, shape: Shape, rng: Rng) -> Values:
        """Return the function's values; raise `ValueError` if their shape is wrong."""
        found = np.asarray(self.function(t))
        if found.shape != (len(t), *shape):
            raise ValueError(
                f"a simulated field's function returned shape {found.shape} for "
                f"{len(t)} times: expected {(len(t), *shape)}"
            )
        return found


def _spread(values: Values, shape: Shape) -> Values:
    """Return the value of each time for all elements; read-only."""
    if not shape:
        return values
    column = values.reshape(len(values), *(1 for _ in shape))
    return np.broadcast_to(column, (len(values), *shape))


# ---- the simulation

_CHUNK_S = 0.1
_CHUNK = 4096
_EVENTS_S = 1.0
_GUIDED_S = 1.0

Signals = Mapping[str, Signal | Callable[[Any], Any]] | Signal


class Chunk(NamedTuple):
    """A part of a simulated stream, the same for every reader."""

    block: Block
    """The samples."""
    end_s: float
    """Begin of the next chunk, s."""
    lost: int
    """Number of samples that faults removed."""
    stall: tuple[float, float] | None
    """Begin and end of a stall, s, if any."""


class Simulation:
    """The chunks of a simulated stream; the same seed gives the same samples.

    Parameters
    ----------
    stream : Stream
        Description: fields, dtypes, rate.
    signals : Signal, or mapping of field to Signal or function, optional
        Values of the fields; by default sines of 1, 2, ... Hz, and images.
    guide : Recording, optional
        Take values from random pieces of this recording instead, of a second each.
    seed : int
        Seed of everything random.
    faults : Faults, optional
        Faults to simulate.

    Raises
    ------
    ValueError, SourceNotFound
        The stream cannot be simulated with these options.
    """

    def __init__(
        self,
        stream: Stream,
        signals: Signals | None = None,
        *,
        guide: Recording | None = None,
        seed: int = 0,
        faults: Faults | None = None,
    ) -> None:
        self.stream = stream
        self._guide = guide
        self._seed = int(seed)
        self.faults = faults or Faults()
        self._signals = _signals(stream, signals)
        text = [k for k, f in stream.fields.items() if f.numpy_dtype.kind in "US"]
        if guide is not None and not len(guide):
            raise ValueError(f"{guide} is empty: it cannot guide a simulation")
        if guide is None and text:
            raise ValueError(
                f"stream {stream.id!r}: field {text[0]!r} is text, which needs a "
                "recording as guide"
            )

    def price(self, speed: float = 1.0, block: int | float | None = None) -> Price:
        """Return the price at a speed; 0: as fast as its reader.

        A chunk is made as float64 for all elements, and then converted.
        """
        rate = self.stream.rate_hz
        hz = self._events_hz() if rate is None else rate
        rows = hz * _EVENTS_S if rate is None else min(_CHUNK, max(1.0, hz * _CHUNK_S))
        fields_ = self.stream.fields.values()
        elements = sum(math.prod(f.shape) for f in fields_)
        row = 8 + sum(math.prod(f.shape) * f.numpy_dtype.itemsize for f in fields_)
        if self._guide is not None:
            hz = rate or len(self._guide) / (self._guide.duration_s or 1.0)
            elements = 0
        gathered = PACED_S * hz * speed if block is None else float(block)
        gathered *= hz if isinstance(block, float) else 1
        if block is None:
            most_rows = min(UNPACED, BLOCK_BYTES // row)
            gathered = min(most_rows, gathered) if speed else most_rows
        most = 2.0**62
        return Price(
            bytes_s=min(most, hz * speed * row),
            samples_hz=min(most, hz * speed),
            memory_bytes=int(
                min(most, rows * (row + 24 * elements) + 2 * gathered * row)
            ),
        )

    def chunks(self) -> Iterator[Chunk]:
        """Yield chunks without end."""
        since, number, begin = -math.inf, 0, 0.0
        for k in range(2**62):
            rng = np.random.Generator(np.random.Philox(key=[self._seed, k]))
            block, end = self._chunk(k, begin, rng)
            block.sequence = number
            number += len(block)
            stall = self.faults.stall(begin, end, rng)
            block, lost = self.faults.on(block, rng, since)
            since = float(block.t[-1]) if len(block) else since
            begin = end
            yield Chunk(block, end, lost, stall)

    def _chunk(self, k: int, begin: float, rng: Rng) -> tuple[Block, float]:
        """Return the samples of chunk `k`, which begins at `begin` s, and its end."""
        if self._guide is not None:
            return self._guided(k, begin, rng)
        rate = self.stream.rate_hz
        if rate is None:
            t = begin + np.sort(rng.random(rng.poisson(self._events_hz() * _EVENTS_S)))
            end = begin + _EVENTS_S
        else:
            n = min(_CHUNK, max(1, round(rate * _CHUNK_S)))
            t = (k * n + np.arange(n)) / rate
            end = (k + 1) * n / rate
        values = {}
        for name, field in self.stream.fields.items():
            found = self._signals[name].values(t, tuple(field.shape), rng)
            values[name] = converted(found, field.numpy_dtype)
        return Block(self.stream, t, values), end

    def _events_hz(self) -> float:
        rates = [s.rate_hz for s in self._signals.values() if isinstance(s, Events)]
        return max(rates, default=2.0)

    def _guided(self, k: int, begin: float, rng: Rng) -> tuple[Block, float]:
        """Return a random piece of the recording, with its intervals, and its end."""
        guide = self._guide
        assert guide is not None
        rate = self.stream.rate_hz
        n = max(1, min(_CHUNK, round(rate * _GUIDED_S) if rate else 16, len(guide)))
        at = int(rng.integers(0, len(guide) - n + 1))
        piece = guide.read(at, at + n)
        if rate:
            t = (k * n + np.arange(n)) / rate
            end = (k + 1) * n / rate
        else:
            steps = np.diff(guide.t[at : at + n + 1])
            mean = guide.duration_s / max(1, len(guide) - 1) or 1.0
            steps = np.append(steps, [mean] * (n - len(steps)))
            t, end = begin + np.cumsum(steps) - steps[0], begin + float(steps.sum())
        return Block(self.stream, t, piece.values), end


def converted(found: Values, dtype: np.dtype[Any]) -> Values:
    """Return values in a field's dtype: rounded and clipped, as an ADC does."""
    if 0 in found.strides and found.size:  # such as images whose rows are equal
        once = found[tuple(slice(None, None if s else 1) for s in found.strides)]
        if once.size < found.size:
            return np.broadcast_to(converted(once, dtype), found.shape)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        with np.errstate(invalid="ignore"):
            clipped = np.clip(np.rint(found), limits.min, limits.max)
            return np.asarray(clipped, dtype)
    if dtype.kind == "b":
        return np.asarray(found > 0.5)
    return np.asarray(found, dtype)


def _signals(stream: Stream, given: Signals | None) -> dict[str, Signal]:
    made: dict[str, Signal] = {}
    for i, (name, field) in enumerate(stream.fields.items()):
        if stream.rate_hz is None:
            made[name] = Events()
        else:
            made[name] = Pattern() if len(field.shape) > 1 else Sine(float(i + 1))
    if isinstance(given, Mapping):
        for name, signal in given.items():
            pick(stream.fields, name, "field", f"stream {stream.id!r}")
            made[name] = _signal(signal)
    elif given is not None:
        made = dict.fromkeys(made, _signal(given))
    return made


def _signal(given: Any) -> Signal:
    if hasattr(given, "values"):
        return cast("Signal", given)
    if callable(given):
        return Function(given)
    raise TypeError(f"signal must be one of ataraxis.datamux.simulation, got {given!r}")


class Simulate(PacedFeed):
    """Yields the blocks of a simulation in time, or as fast as they are taken.

    It lasts `duration` s, or without end; `block` is in samples or seconds.
    """

    def __init__(
        self,
        simulation: Simulation,
        timeline: Timeline | None,
        *,
        duration: float | None = None,
        block: int | float | None = None,
    ) -> None:
        if duration is not None and not 0 <= duration < math.inf:
            raise ValueError(f"duration must be 0 s or more, got {duration!r}")
        self._simulation = simulation
        super().__init__(timeline)
        self._duration = math.inf if duration is None else duration
        fields = simulation.stream.fields
        empty = {k: np.empty((1, *f.shape), f.numpy_dtype) for k, f in fields.items()}
        sample = Block(simulation.stream, np.zeros(1), empty)
        most, span = sizes(block, timeline, sample)
        rate = simulation.stream.rate_hz
        if span is not None:
            most = min(most, max(1, round(span * rate))) if rate else 1
        self._size = most
        self._lost = 0

    def blocks(self, is_over: Callable[[], bool]) -> Iterator[Block]:
        """Yield each block when its last sample is due, or a stall is over."""
        stall: tuple[float, float] | None = None
        self._begin(0.0)
        for block, stalled in self._cut(is_over):
            stall = stalled or stall
            due = float(block.t[-1])
            if stall is not None and stall[0] <= due < stall[1]:
                due = stall[1]
            while not self._is_due(due, is_over):
                if is_over():
                    return
            yield block

    def _cut(
        self, is_over: Callable[[], bool]
    ) -> Iterator[tuple[Block, tuple[float, float] | None]]:
        """Cut the chunks into blocks of the requested size."""
        rest: Block | None = None
        lost_after = self._simulation.faults.lost_after_s
        until = min(self._duration, math.inf if lost_after is None else lost_after)
        stall = None
        for chunk in self._simulation.chunks():
            self._lost += chunk.lost
            stall = chunk.stall or stall
            stop = int(np.searchsorted(chunk.block.t, until, "left"))
            piece = chunk.block[:stop]
            whole = piece if rest is None else rest.followed_by(piece)
            at = 0
            while len(whole) - at >= self._size:
                yield whole[at : at + self._size], stall
                at, stall = at + self._size, None
            rest = whole[at:] if at < len(whole) else None
            if stop < len(chunk.block) or chunk.end_s >= until or is_over():
                break
        if rest is not None:
            yield rest, stall
        if lost_after is not None and until == lost_after < self._duration:
            raise SourceLost(f"simulated: the source went away after {lost_after} s")

    def losses(self) -> tuple[int, tuple[str, ...]]:
        """Return the number of samples that `Faults.dropout` removed."""
        return self._lost, ()
