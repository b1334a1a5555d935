"""Signals of simulated streams, each a dataclass that gives values at given times.

Values depend on the times, and on a random generator that the simulation seeds anew for
each chunk, so that a stream is the same whoever reads it and however fast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]


class Signal(Protocol):
    """What a field of a simulated stream shows."""

    def values(
        self, t: NDArray[np.float64], shape: Shape, rng: np.random.Generator
    ) -> NDArray[Any]:
        """Give a value of `shape` for each time (s): shape (n, *shape)."""


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
    """Cycles a second."""
    amplitude: float = 1.0
    """Half of what lies between its peaks."""
    offset: float = 0.0
    """Its mean."""
    phase: float = 0.0
    """Where it begins, cycles."""

    def values(
        self, t: NDArray[np.float64], shape: Shape, rng: np.random.Generator
    ) -> NDArray[Any]:
        """Give the sine, the same for every element."""
        turn = 2 * np.pi * (self.frequency_hz * t + self.phase)
        return _spread(self.offset + self.amplitude * np.sin(turn), shape)


@dataclass(frozen=True)
class Noise:
    """White noise, normally distributed."""

    scale: float = 1.0
    """Standard deviation."""
    offset: float = 0.0
    """Its mean."""

    def values(
        self, t: NDArray[np.float64], shape: Shape, rng: np.random.Generator
    ) -> NDArray[Any]:
        """Give noise, each element its own."""
        return rng.normal(self.offset, self.scale, (len(t), *shape))


@dataclass(frozen=True)
class Spikes:
    """Single samples that stand out of noise, at random times."""

    rate_hz: float = 5.0
    """How many a second, on average."""
    amplitude: float = 10.0
    """How high."""
    scale: float = 0.5
    """Standard deviation of the noise."""

    def values(
        self, t: NDArray[np.float64], shape: Shape, rng: np.random.Generator
    ) -> NDArray[Any]:
        """Give noise with spikes, each element its own."""
        step = float(np.median(np.diff(t))) if len(t) > 1 else 1.0
        size = (len(t), *shape)
        are = rng.random(size) < self.rate_hz * step
        return rng.normal(0.0, self.scale, size) + self.amplitude * are


@dataclass(frozen=True)
class Ramp:
    """A saw tooth: from 0 to `height` in each period."""

    period_s: float = 1.0
    """How long a tooth is, s."""
    height: float = 1.0
    """How high."""

    def values(
        self, t: NDArray[np.float64], shape: Shape, rng: np.random.Generator
    ) -> NDArray[Any]:
        """Give the saw tooth, the same for every element."""
        return _spread(self.height * ((t / self.period_s) % 1.0), shape)


@dataclass(frozen=True)
class Pattern:
    """A camera's picture: a bar that crosses it once a period, on a gradient."""

    period_s: float = 2.0
    """How long the bar takes, s."""
    height: float = 255.0
    """Brightness of the bar; the gradient goes to half of it."""

    def values(
        self, t: NDArray[np.float64], shape: Shape, rng: np.random.Generator
    ) -> NDArray[Any]:
        """Give pictures, (n, y, x) or (n, y, x, colour)."""
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
    """Codes of events, drawn at random; for streams without a rate."""

    rate_hz: float = 2.0
    """How many a second, on average."""
    count: int = 4
    """Codes are 1 to `count`."""

    def values(
        self, t: NDArray[np.float64], shape: Shape, rng: np.random.Generator
    ) -> NDArray[Any]:
        """Give codes."""
        return rng.integers(1, self.count + 1, (len(t), *shape))


@dataclass(frozen=True)
class Function:
    """Any function of time: takes times, s, (n,), and gives values, (n, *shape)."""

    function: Callable[[NDArray[np.float64]], Any]
    """The function."""

    def values(
        self, t: NDArray[np.float64], shape: Shape, rng: np.random.Generator
    ) -> NDArray[Any]:
        """Give what the function gives.

        Raises
        ------
        ValueError
            It gives another shape.
        """
        found = np.asarray(self.function(t))
        if found.shape != (len(t), *shape):
            raise ValueError(
                f"a simulated field's function gave shape {found.shape} for "
                f"{len(t)} times: expected {(len(t), *shape)}"
            )
        return found


def _spread(values: NDArray[Any], shape: Shape) -> NDArray[Any]:
    """Give every element the value of its time; read-only."""
    if not shape:
        return values
    column = values.reshape(len(values), *(1 for _ in shape))
    return np.broadcast_to(column, (len(values), *shape))
