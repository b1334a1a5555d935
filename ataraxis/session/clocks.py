"""`fit_session`: fits of the clocks of a session's sources, kept beside the data."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ataraxis.errors import AtaraxisError
from ataraxis.log.archive import LogNode, Nodes
from ataraxis.log.device import COUNTER
from ataraxis.log.fits import SourceFit, fit_series, save_fit
from ataraxis.log.sample_axis import latency_of
from ataraxis.log.series import Series
from ataraxis.session.events import EVENTS
from ataraxis.session.pulses import fit_to_pulses, pulse_times, pulses_of

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
    """Why none could be made, or none from the declared pulses."""

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
        behind = f"; {self.reason}" if self.reason else ""
        return f"{self.name}: {self.made.summary}{behind}"

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        found: dict[str, Any] = {
            "stream": self.name, "clock": self.kind, "bound_us": self.bound_us,
            "reason": self.reason,
        }  # fmt: skip
        if self.made is not None:
            found |= {
                "from": self.made.fit.kind, "of": self.made.of,
                "assumption": self.made.fit.assumption,
                "segments": len(self.made.fit.segments),
                "drift_ppm": [round(1e6 * rate, 3) for rate in self.made.fit.rates],
            }  # fmt: skip
        return found


def fit_session(
    directory: str | os.PathLike[str],
    *,
    streams: Iterable[str] | None = None,
    latency_ms: Mapping[str, tuple[float, float]] | None = None,
    pulses: Mapping[str, tuple[str, str | int]] | None = None,
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
    pulses : mapping, optional
        By name: the stream and the line that recorded one pulse for each frame, such as
        ``{"camera": ("daq", "trigger")}``. Else as the session's ``rig.yaml`` declares
        it. Such frames have the times of their pulses, by the fit of that stream; where
        pulses cannot be told apart, they are fitted as other sources are.

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
    nodes = Nodes(Path(directory))
    try:
        return _Clocks(Path(directory), nodes, latency_ms or {}, pulses or {}).fit(
            list(nodes) if streams is None else [nodes.find(s) for s in streams]
        )
    finally:
        nodes.close()


class _Clocks:
    """Fits the sources of one session."""

    def __init__(
        self,
        directory: Path,
        nodes: Nodes,
        latency_ms: Mapping[str, tuple[float, float]],
        pulses: Mapping[str, tuple[str, str | int]],
    ) -> None:
        for name in (*latency_ms, *pulses, *(stream for stream, _ in pulses.values())):
            nodes.find(name)
        self._directory, self._nodes, self._latency_ms = directory, nodes, latency_ms
        self._pulses = {**pulses_of(directory), **pulses}

    def fit(self, nodes: list[LogNode]) -> list[StreamClock]:
        """Fit sources, those with pulses behind the streams that recorded these."""
        names = [node.info.name or node.name for node in nodes]
        found: list[StreamClock | None] = [None] * len(nodes)
        for k in sorted(range(len(nodes)), key=lambda k: names[k] in self._pulses):
            clock = None if names[k] == EVENTS else self._fit(nodes[k], names[k])
            if clock is not None and clock.made is not None:
                save_fit(self._directory, clock.name, clock.made)
            found[k] = clock
        return [clock for clock in found if clock is not None]

    def _fit(self, node: LogNode, name: str) -> StreamClock | None:
        reason = ""
        try:
            series = node.series()
        except ValueError as error:
            if name not in self._pulses:
                return None  # no arrays of one kind: its entries have stamps only
            return StreamClock(name, ARRIVAL, reason=str(error))
        if name in self._pulses:
            stream, line = self._pulses[name]
            try:
                return _known(name, self._pulsed(name, series))
            except (KeyError, OSError, ValueError, AtaraxisError) as error:
                why = error.args[0] if isinstance(error, KeyError) else error
                reason = f"not fitted to line {line!r} of {stream!r}: {why}"
        elif not (series.is_blocks or series.has_device or COUNTER in series.attrs):
            return None
        try:
            made = fit_series(series, self._latency_ms.get(name))
        except (ValueError, AtaraxisError) as error:
            reason = f"{reason}; {error}" if reason else str(error)
            return StreamClock(name, ARRIVAL, reason=reason)
        return _known(name, made, reason)

    def _pulsed(self, name: str, series: Series) -> SourceFit:
        stream, line = self._pulses[name]
        given = self._latency_ms
        pulses = pulse_times(
            self._directory, self._nodes, stream, line, given.get(stream)
        )
        return fit_to_pulses(
            series, pulses, given.get(name) or latency_of(series.attrs)
        )


def _known(name: str, made: SourceFit, reason: str = "") -> StreamClock:
    kind = ABSOLUTE if made.fit.is_absolute else FITTED
    return StreamClock(name, kind, made, reason)
