"""Meter: how fast streams go, from two looks at their control words."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ataraxis.clock import now_ns
from ataraxis.shm.context import Context, ContextLike
from ataraxis.stream.inspector import inspect
from ataraxis.stream.statistics import ReaderStatistics, StreamStatistics


@dataclass(frozen=True)
class Metered:
    """One stream at the second of two looks."""

    name: str
    """Its name in the context."""
    problem: str
    """Why it cannot be read, or ''; the rest is None then."""
    participants: tuple[str, ...] = ()
    """Who takes part: program and pid."""
    stream: StreamStatistics | None = None
    """Its control words."""
    frames_hz: float | None = None
    """Frames a second between the looks; None at the first look."""
    bytes_hz: float | None = None
    """Payload bytes a second."""
    stalled_share: float | None = None
    """Share of the time that producers waited for readers, 0 to 1."""

    @property
    def readers(self) -> tuple[ReaderStatistics, ...]:
        """Everybody who reads it."""
        return self.stream.readers if self.stream is not None else ()


@dataclass(frozen=True)
class MeterReading:
    """All streams of a context, and how fast they went since the look before."""

    time_ns: int
    """When, monotonic ns."""
    interval_s: float | None
    """Time since the look before, s; None at the first."""
    streams: tuple[Metered, ...]
    """By name; files that cannot be read are among them, with their problem."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, JSON-able."""
        return dataclasses.asdict(self)


class Meter:
    """Look at the streams of a context again and again; disturbs nobody.

    Parameters
    ----------
    context : Context, str, Path or None
        The directory; None is this user's own.

    Examples
    --------
    >>> from ataraxis.stream import Producer
    >>> from ataraxis.stream.meter import Meter
    >>> stream = Producer("doc_meter", 64, 4)
    >>> meter = Meter()
    >>> before = meter.read()
    >>> _ = stream.send(b"a")
    >>> [m.frames_hz > 0 for m in meter.read().streams if m.name == "doc_meter"]
    [True]
    >>> stream.unlink()
    """

    def __init__(self, context: ContextLike = None) -> None:
        self._context = Context.of(context)
        self._before: dict[str, tuple[int, StreamStatistics]] = {}
        self._last_ns: int | None = None

    def read(self) -> MeterReading:
        """Look once; rates are those since the look before."""
        last, now = self._last_ns, now_ns()
        streams, seen = [], {}
        for listed in inspect(self._context):
            if listed.problem:
                streams.append(Metered(listed.name, listed.problem))
                continue
            if listed.kind != "stream":
                continue
            looked_ns = now_ns()
            stream: StreamStatistics = listed.content
            seen[listed.uuid] = looked_ns, stream
            metered = Metered(listed.name, "", listed.participants, stream)
            before = self._before.get(listed.uuid)
            if before is not None and looked_ns > before[0]:
                metered = _measured(metered, stream, looked_ns, *before)
            streams.append(metered)
        self._before, self._last_ns = seen, now
        interval = None if last is None else (now - last) * 1e-9
        return MeterReading(now, interval, tuple(streams))


def _measured(
    metered: Metered,
    now: StreamStatistics,
    now_ns: int,
    before_ns: int,
    before: StreamStatistics,
) -> Metered:
    """Add what happened between two looks."""
    seconds = (now_ns - before_ns) * 1e-9
    share = (now.stalled_s - before.stalled_s) / seconds
    return dataclasses.replace(
        metered,
        frames_hz=max(now.sent - before.sent, 0) / seconds,
        bytes_hz=max(now.sent_bytes - before.sent_bytes, 0) / seconds,
        stalled_share=min(max(share, 0.0), 1.0),
    )
