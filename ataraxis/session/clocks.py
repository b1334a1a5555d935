"""`fit_session`: fits of the clocks of a session's sources, kept beside the data."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ataraxis.errors import AtaraxisError
from ataraxis.log.archive import Nodes
from ataraxis.log.device import COUNTER
from ataraxis.log.fits import SourceFit, fit_series, save_fit
from ataraxis.session.events import EVENTS

ARRIVAL, FITTED, ABSOLUTE = "arrival", "fitted", "absolute"


@dataclass(frozen=True)
class StreamClock:
    """How the times of a stream of a session are known.

    Examples
    --------
    >>> str(StreamClock("camera", ARRIVAL, reason="it has no device times"))
    'camera: by arrival only: it has no device times'
    """

    name: str
    """Name of the stream."""
    kind: str
    """``arrival``: each stamp is of an arrival, with its jitter. ``fitted``: jitter and
    drift are bounded, the fixed delay is unknown. ``absolute``: all is bounded."""
    made: SourceFit | None = None
    """The fit, if one was made."""
    reason: str = ""
    """Why none could be made."""

    @property
    def bound_us(self) -> float | None:
        """Largest error of its times at the knots of the fit, us; None without one."""
        if self.made is None:
            return None
        parts = self.made.fit.segments
        worst = max(int(part.bound_ns.max()) for part in parts)
        return (worst + self.made.fit.half_latencies[1]) / 1000

    def __str__(self) -> str:
        if self.made is None:
            return f"{self.name}: by arrival only: {self.reason}"
        return f"{self.name}: {self.made.summary}"

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        found: dict[str, Any] = {
            "stream": self.name, "clock": self.kind, "bound_us": self.bound_us,
            "reason": self.reason,
        }  # fmt: skip
        if self.made is not None:
            found |= {
                "of": self.made.of, "assumption": self.made.fit.assumption,
                "segments": len(self.made.fit.segments),
                "drift_ppm": [round(1e6 * rate, 3) for rate in self.made.fit.rates],
            }  # fmt: skip
        return found


def fit_session(
    directory: str | os.PathLike[str],
    *,
    streams: Iterable[str] | None = None,
    latency_ms: Mapping[str, tuple[float, float]] | None = None,
) -> list[StreamClock]:
    """Fit the clock of each source of a session to the host's, and keep the fits.

    Stamps are never changed: a fit is a file of the folder ``fits``, which
    ``xarray.open_dataset(..., time="fitted")`` takes. An older one is replaced.

    Parameters
    ----------
    directory : str or Path
        Directory of a session or a log.
    streams : iterable of str, optional
        Names; by default all.
    latency_ms : mapping, optional
        By name: least and largest fixed delay of a device, ms. Else as the labels of
        the stream declare it, ``attrs["latency_ms"]``.

    Returns
    -------
    list of StreamClock
        For each stream with samples at a rate, or from a device. Reads the headers of
        its entries.

    Raises
    ------
    FileNotFoundError
        The directory has no log.
    KeyError
        There is no such stream; the message lists them.
    OSError
        A fit cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from ataraxis import Producer, Recorder
    >>> attrs = {"device_time_units": "us"}
    >>> directory = tempfile.TemporaryDirectory()
    >>> board = Producer("doc_clocks", shape=(), dtype="f8", attrs=attrs)
    >>> with board, Recorder("doc_clocks", directory.name):
    ...     for k in range(100):
    ...         _ = board.send(0.5, time_ns=10**9 + k * 10**7, device_time=k * 10**4)
    >>> [clock.kind for clock in fit_session(directory.name)]
    ['fitted']
    >>> board.unlink(); directory.cleanup()
    """
    place, declared = Path(directory), dict(latency_ms or {})
    nodes = Nodes(place)
    try:
        chosen = list(nodes) if streams is None else [nodes.find(s) for s in streams]
        for name in declared:
            nodes.find(name)
        found = []
        for node in chosen:
            name = node.info.name or node.name
            if name == EVENTS:
                continue
            try:
                series = node.series()
            except ValueError:
                continue  # no arrays of one kind: its entries have stamps only
            is_device = series.has_device or COUNTER in series.attrs
            if not series.is_blocks and not is_device:
                continue
            try:
                made = fit_series(series, declared.get(name))
            except (ValueError, AtaraxisError) as error:
                found.append(StreamClock(name, ARRIVAL, reason=str(error)))
                continue
            save_fit(place, name, made)
            kind = ABSOLUTE if made.fit.is_absolute else FITTED
            found.append(StreamClock(name, kind, made))
        return found
    finally:
        nodes.close()
