"""Verdict: what was sent, what was recorded, and whether it may be trusted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ataraxis.clock import Anchor
from ataraxis.config import YamlConfig
from ataraxis.log.account import SourceReport
from ataraxis.log.archive import LogArchive
from ataraxis.log.clock_table import clock_of, is_table, table_name
from ataraxis.log.selection import Problem
from ataraxis.log.verification import LogReport, verify
from ataraxis.session.clocks import ARRIVAL, fit_session
from ataraxis.session.pulses import count_pulses, pulses_of

WAITED_S = 0.1
"""Shorter waits of a source for its readers are not reported, s."""
RATE_TOLERANCE = 0.05
"""Largest relative difference of a device's rate from the declared one."""
_FEW = 20
DEEP_S = 2.0
"""How long checksums are compared for a verdict, s."""


@dataclass
class StreamVerdict:
    """Verdict of one stream."""

    name: str
    expected: int = field(
        default=0, metadata={"help": "frames sent from where the recorder joined"}
    )
    received: int = field(default=0, metadata={"help": "frames that are whole on disk"})
    missing: int = field(default=0, metadata={"help": "expected - received"})
    damaged: int = field(default=0, metadata={"help": "of the missing ones"})
    late: int = field(
        default=0, metadata={"help": "frames sent before the recorder joined"}
    )
    device_lost: int | None = field(
        default=None, metadata={"help": "lost in the device; null: cannot be known"}
    )
    device_unit: str = field(
        default="frames", metadata={"help": "frames or samples, as its counter counts"}
    )
    is_device: bool = field(
        default=False, metadata={"help": "its labels name a device"}
    )
    waited_s: float = field(
        default=0.0,
        metadata={"units": "s", "help": "time that its source waited for readers"},
    )
    rate_hz: float | None = field(
        default=None, metadata={"units": "Hz", "help": "frames a second, as measured"}
    )
    longest_lag: int = field(
        default=0, metadata={"help": "frames that waited to be recorded, at most"}
    )
    longest_lag_s: float = field(default=0.0, metadata={"units": "s"})
    clock: str = field(
        default="",
        metadata={
            "help": "how its times are known: arrival, fitted (but for a fixed delay), "
            "absolute; empty: it has neither a device nor a rate"
        },
    )
    clock_bound_us: float | None = field(
        default=None, metadata={"units": "us", "help": "largest error of fitted times"}
    )
    host: str = field(
        default="", metadata={"help": "host that recorded it; empty: this one"}
    )
    path: str = field(default="", metadata={"help": "directory on that host"})
    is_trusted: bool = True
    notes: list[str] = field(default_factory=list)

    def note(self, *texts: str) -> None:
        """Add notes, each once."""
        self.notes += [text for text in dict.fromkeys(texts) if text not in self.notes]

    def doubt(self, *texts: str) -> None:
        """Add notes that are reasons not to trust it."""
        self.is_trusted = False
        self.note(*texts)


@dataclass
class Verdict(YamlConfig):
    """Verdict of a session; ``verdict.yaml``."""

    is_trusted: bool
    duration_s: float = field(metadata={"units": "s"})
    clock: Anchor = field(
        metadata={"help": "one instant on both clocks, when it was judged"}
    )
    streams: list[StreamVerdict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> StreamVerdict:
        for stream in self.streams:
            if stream.name == name:
                return stream
        raise KeyError(
            f"no stream {name!r} in the session: it has "
            f"{[stream.name for stream in self.streams]}"
        )

    @property
    def by_arrival(self) -> list[str]:
        """Streams of devices whose times are known by arrival only."""
        return [s.name for s in self.streams if s.clock == ARRIVAL]

    @property
    def headline(self) -> str:
        """The verdict in a line."""
        streams = f"{len(self.streams)} stream" + "s" * (len(self.streams) != 1)
        trust = "trusted" if self.is_trusted else "NOT TRUSTED"
        return f"{trust}, {self.duration_s:.1f} s, {streams}"

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from ataraxis.card import html_of

        return html_of("verdict", self)

    def __str__(self) -> str:
        lines = [self.headline]
        for s in self.streams:
            lines.append(
                f"  {s.name}: {s.expected} expected, {s.received} received, "
                f"{s.missing} missing{_device(s)}; at most {s.longest_lag_s:.3g} s "
                "behind" + ("" if s.is_trusted else "; NOT TRUSTED")
            )
            lines += [f"    {note}" for note in s.notes]
        if self.by_arrival:
            names = ", ".join(self.by_arrival)
            lines.append(f"  time known by arrival only: {names}")
        lines += [f"  {note}" for note in self.notes]
        return "\n".join(lines)


def _device(stream: StreamVerdict) -> str:
    """Return what is known of losses in the device."""
    if stream.device_lost is None:
        return ", device loss cannot be known" if stream.is_device else ""
    return f", {stream.device_lost} {stream.device_unit} lost in the device"


def judge(
    directory: Path,
    begun: Anchor,
    *,
    tracked: Iterable[StreamVerdict] = (),
    doubts: Iterable[str] = (),
    notes: Iterable[str] = (),
    elsewhere: Iterable[StreamVerdict] = (),
    ended_ns: int | None = None,
) -> Verdict:
    """Count every entry of a session, and decide what may be trusted.

    Parameters
    ----------
    directory : Path
        Directory of the session. Every entry of its journals is counted, by its header;
        checksums are compared for `DEEP_S`. `verify` reads every byte.
    begun : Anchor
        When it began.
    tracked : iterable of StreamVerdict
        What the recorders observed: lags, notes, and, as `missing`, frames that were
        never written.
    doubts, notes : iterable of str
        Of the session as a whole; a doubt is a reason not to trust it.
    elsewhere : iterable of StreamVerdict
        Verdicts of streams that other hosts have recorded and judged.
    ended_ns : int, optional
        When it ended, monotonic ns; by default now.

    Returns
    -------
    Verdict
        A stream is trusted if nothing is missing, damaged or uncertain; a session, if
        all of its streams are.
    """
    clock = Anchor.take()
    found = {stream.name: stream for stream in tracked}
    try:
        report = verify(directory, seconds=DEEP_S)
    except FileNotFoundError:
        report = LogReport((), ())
    mirrors, clocks = _of_others(directory)
    for source in report.sources:
        # The clock of another host, recorded beside its streams, is not judged.
        if source.name in found or source.name not in clocks:
            _add(found, source)
    lines = pulses_of(directory)
    for name, (line_stream, line) in lines.items():
        if name in found:
            _compare_pulses(directory, found[name], line_stream, line)
    for stream in found.values():
        is_whole = not stream.missing and not stream.device_lost
        stream.is_trusted = is_whole and stream.is_trusted
        if stream.late:
            stream.notes.append(
                f"began at sequence {stream.late}: {stream.late} frames were sent "
                "before the recorder joined"
            )
        if stream.waited_s > WAITED_S:
            stream.notes.append(
                f"its source waited {stream.waited_s:.1f} s in all for readers"
            )
    for name, text in mirrors.items():
        if name in found:
            found[name].note(text)
    notes = [*notes, *_add_clocks(directory, found, lines)]
    found.update((stream.name, stream) for stream in elsewhere)
    problems = report.problems
    doubted = [*doubts, *(str(p) for p in problems if not _is_cut(p))]
    if report.unknown:
        doubted.append(f"{report.unknown} entries of unknown sources are missing")
    notes = [*notes, *(str(p) for p in problems if _is_cut(p))]
    if not report.is_deep:
        notes.append(
            "counted by the headers of its entries; 'ataraxis verify' reads every byte"
        )
    end = clock.monotonic_ns if ended_ns is None else ended_ns
    return Verdict(
        is_trusted=all(s.is_trusted for s in found.values()) and not doubted,
        duration_s=max(end - begun.monotonic_ns, 0) * 1e-9,
        clock=clock,
        streams=sorted(found.values(), key=lambda stream: stream.name),
        notes=[*doubted, *notes],
    )


def _of_others(directory: Path) -> tuple[dict[str, str], set[str]]:
    """Return what is known of the times of mirrored streams, and the clocks' names."""
    mirrors: dict[str, str] = {}
    clocks: set[str] = set()
    try:
        archive = LogArchive(directory)
    except FileNotFoundError:
        return mirrors, clocks
    with archive:
        for info in archive.sources.values():
            name = info.name or ""
            if is_table(name, info.labels):
                clocks.add(name)
            elif host := clock_of(info.labels)[0]:
                times = archive.select(info.number).time
                mirrors[name] = _relation(archive, info.number, times, host)
    return mirrors, clocks


def _relation(
    archive: LogArchive, source: int, times: NDArray[np.int64], host: str
) -> str:
    """Return how the times of a mirrored stream relate to the clock here."""
    text = f"a mirror of a stream of host {host!r}, with the times of its clock"
    here = next((anchor.host for anchor in archive.anchors if anchor.host), "")
    if not len(times):
        return text
    try:
        local, bounds = archive.to_clock(source, times, here)
    except ValueError:
        known = table_name(host)
        return (
            f"{text}, which cannot be related to the clock here: {known!r} was not "
            "recorded"
        )
    ahead = int(times[-1] - local[-1]) / 1e9
    return (
        f"{text}: {ahead:.6f} s ahead of the clock here at its end, "
        f"+-{int(bounds.max()) / 1000:.3g} us in all"
    )


def _add_clocks(
    directory: Path, found: dict[str, StreamVerdict], lines: Iterable[str]
) -> list[str]:
    """Fit the clocks of the streams, and keep the fits; return what went wrong."""
    try:
        clocks = fit_session(directory)
    except FileNotFoundError:
        return []
    except Exception as error:  # the verdict is written in any case
        return [f"the clocks of its streams were not fitted: {error}: 'ataraxis fit'"]
    for clock in clocks:
        if clock.name in found:
            found[clock.name].clock = clock.kind
            found[clock.name].clock_bound_us = clock.bound_us
            if clock.reason and clock.name in lines:
                found[clock.name].note(clock.reason)
    return []


def _is_cut(problem: Problem) -> bool:
    """Return whether a file only ends early, as a killed writer leaves it.

    The ring still held what was cut off: unless written later, it counts as missing.
    """
    if not problem.nbytes:
        return problem.offset > 0
    return problem.offset + problem.nbytes >= problem.path.stat().st_size


def _add(found: dict[str, StreamVerdict], source: SourceReport) -> None:
    """Add the counts of a stream's journal; a stream may have several."""
    name = source.name or f"source {source.source}"
    stream = found.setdefault(name, StreamVerdict(name))
    # Frames that were never written were expected, too.
    if not stream.expected:
        stream.expected = stream.missing
    stream.expected += source.expected
    stream.received += source.received
    stream.missing += source.missing
    stream.damaged += source.damaged
    stream.late += source.late
    stream.waited_s += source.waited_s
    stream.rate_hz = source.rate_hz
    if source.repeated:
        stream.doubt(f"{source.repeated} of its frames are recorded twice")
    device = source.device
    if device is not None:
        stream.device_lost = (stream.device_lost or 0) + device.lost
        stream.device_unit = device.unit
        if device.resets:
            stream.doubt(
                f"the counter of its device restarted {device.resets} times: losses at "
                "these times cannot be known"
            )
    if _is_off(source):
        stream.doubt(
            f"its device made {source.rate_hz:.6g} frames a second by its clock, "
            f"{source.declared_hz:.6g} are declared"
        )
    stream.is_device |= source.is_device


def _compare_pulses(
    directory: Path, stream: StreamVerdict, line_stream: str, line: str | int
) -> None:
    """Compare the frames of a device with its recorded pulses."""
    try:
        with LogArchive(directory) as archive:
            times = archive.select(stream.name).time
        last_ns = int(times.max()) if len(times) else 0
        frames = stream.expected + (stream.device_lost or 0)
        found = count_pulses(directory, line_stream, line, frames, last_ns)
    except (KeyError, OSError, ValueError) as error:
        stream.doubt(f"its pulses cannot be counted: {error}")
        return
    stream.is_device = True
    if found.open:
        stream.notes.append("stopped in mid-exposure: its last pulse has no frame")
    if found.lost >= 0:
        stream.device_lost = (stream.device_lost or 0) + found.lost
    else:
        stream.doubt(
            f"{found.pulses} pulses on line {line!r} of {line_stream!r}, and "
            f"{found.frames} frames: {-found.lost} have no pulse"
        )


def _is_off(source: SourceReport) -> bool:
    """Return whether the device itself was not as fast as declared."""
    rate, declared = source.rate_hz, source.declared_hz
    if not source.is_device_rate or rate is None or declared is None:
        return False
    return source.received > _FEW and abs(rate / declared - 1) > RATE_TOLERANCE
