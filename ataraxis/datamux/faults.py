"""What goes wrong in laboratories, on request and reproducibly."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from ataraxis.datamux.block import Block


@dataclass(frozen=True)
class Faults:
    """Faults of a simulated stream; none by default.

    Examples
    --------
    >>> Faults(dropout=0.1).dropout
    0.1
    """

    dropout: float = 0.0
    """Probability that a sample is missing."""
    nan: float = 0.0
    """Probability that a sample's float values are NaN."""
    jitter_s: float = 0.0
    """Standard deviation of the error of its times, s; they stay in order."""
    drift_ppm: float = 0.0
    """How much faster its clock runs, millionths."""
    burst: float = 0.0
    """How often a second it stalls; what was held comes at once, late."""
    burst_s: float = 0.25
    """How long a stall is, s."""
    lost_after_s: float | None = None
    """When it goes away for good, s; None: it stays."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if value is None or item.name == "drift_ppm":
                continue
            most = 1.0 if item.name in ("dropout", "nan") else float("inf")
            if not 0 <= value <= most:
                raise ValueError(
                    f"Faults.{item.name}={value!r}: expected 0 to {most:g}"
                )

    def on(
        self, block: Block, rng: np.random.Generator, since_s: float
    ) -> tuple[Block, int]:
        """Return a chunk with these faults, and how many samples it lost.

        `since_s` is the last time before it: times never go back.
        """
        # Every draw is made whatever the faults are, so that one fault does not change
        # where another strikes.
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
        made = Block(block.stream, t, values, sequence=block.sequence)
        return made, n - len(t)

    def stall(
        self, start_s: float, stop_s: float, rng: np.random.Generator
    ) -> tuple[float, float] | None:
        """Return from when to when it stalls, if it does so between two times."""
        chance, where = rng.random(2)
        if not self.burst or chance >= self.burst * (stop_s - start_s):
            return None
        begin = start_s + where * (stop_s - start_s)
        return begin, begin + self.burst_s
