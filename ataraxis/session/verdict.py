"""Verdict: what was made, what is there, and whether it may be trusted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ataraxis.clock import Anchor
from ataraxis.config import YamlConfig
from ataraxis.log.selection import Problem
from ataraxis.log.verification import SourceReport, verify


@dataclass
class StreamVerdict:
    """What is to be said of one stream."""

    name: str
    expected: int = field(default=0, metadata={"help": "frames its source made"})
    received: int = field(default=0, metadata={"help": "frames that are whole on disk"})
    missing: int = field(default=0, metadata={"help": "expected - received"})
    damaged: int = field(default=0, metadata={"help": "of the missing ones"})
    longest_lag: int = field(
        default=0, metadata={"help": "frames that waited to be recorded, at most"}
    )
    longest_lag_s: float = field(default=0.0, metadata={"units": "s"})
    is_trusted: bool = True
    notes: list[str] = field(default_factory=list)


@dataclass
class Verdict(YamlConfig):
    """What is to be said of a session; ``verdict.yaml``."""

    is_trusted: bool
    duration_s: float = field(metadata={"units": "s"})
    clock: Anchor = field(
        metadata={"help": "one instant on both clocks, when it was judged"}
    )
    streams: list[StreamVerdict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> StreamVerdict:
        """Return the verdict of one stream."""
        for stream in self.streams:
            if stream.name == name:
                return stream
        raise KeyError(
            f"no stream {name!r} in the session: it has "
            f"{[stream.name for stream in self.streams]}"
        )

    @property
    def headline(self) -> str:
        """The verdict in a line."""
        streams = f"{len(self.streams)} stream" + "s" * (len(self.streams) != 1)
        trust = "trusted" if self.is_trusted else "NOT TRUSTED"
        return f"{trust}, {self.duration_s:.1f} s, {streams}"

    def __str__(self) -> str:
        lines = [self.headline]
        for s in self.streams:
            lines.append(
                f"  {s.name}: {s.expected} expected, {s.received} received, "
                f"{s.missing} missing; at most {s.longest_lag_s:.3g} s behind"
                + ("" if s.is_trusted else "; NOT TRUSTED")
            )
            lines += [f"    {note}" for note in s.notes]
        lines += [f"  {note}" for note in self.notes]
        return "\n".join(lines)


def judge(
    directory: Path,
    begun: Anchor,
    *,
    tracked: Iterable[StreamVerdict] = (),
    doubts: Iterable[str] = (),
    notes: Iterable[str] = (),
    ended_ns: int | None = None,
) -> Verdict:
    """Count every entry of a session, and say what may be trusted.

    Parameters
    ----------
    directory : Path
        Of the session. Every byte of its journals is read.
    begun : Anchor
        When it began.
    tracked : iterable of StreamVerdict
        What is known of streams while they were recorded: lags, notes, and, as
        `missing`, frames that are known to be on no disk.
    doubts, notes : iterable of str
        Of the session as a whole; a doubt is a reason not to trust it.
    ended_ns : int, optional
        When it ended, monotonic; now, if not given.

    Returns
    -------
    Verdict
        A stream is trusted if nothing of it is missing or damaged, and nothing made
        that uncertain. A session is, if all of its streams are.
    """
    clock = Anchor.take()
    found = {stream.name: stream for stream in tracked}
    try:
        report = verify(directory)
        sources, problems = report.sources, report.problems
    except FileNotFoundError:
        sources, problems = (), ()
    for source in sources:
        _add(found, source)
    for stream in found.values():
        stream.is_trusted = not stream.missing and stream.is_trusted
    doubted = [*doubts, *(str(p) for p in problems if not _is_cut(p))]
    notes = [*notes, *(str(p) for p in problems if _is_cut(p))]
    end = clock.monotonic_ns if ended_ns is None else ended_ns
    return Verdict(
        is_trusted=all(s.is_trusted for s in found.values()) and not doubted,
        duration_s=max(end - begun.monotonic_ns, 0) * 1e-9,
        clock=clock,
        streams=sorted(found.values(), key=lambda stream: stream.name),
        notes=[*doubted, *notes],
    )


def _is_cut(problem: Problem) -> bool:
    """Whether a file merely ends early, as a killed writer leaves it.

    What was cut off was in the ring still: if nobody wrote it later, it is missing.
    """
    if not problem.nbytes:
        return True
    return problem.offset + problem.nbytes >= problem.path.stat().st_size


def _add(found: dict[str, StreamVerdict], source: SourceReport) -> None:
    """Add what the journal of a stream holds; a stream made anew counts again."""
    name = source.name or f"source {source.source}"
    stream = found.setdefault(name, StreamVerdict(name))
    # What never reached a disk was expected, too.
    if not stream.expected:
        stream.expected = stream.missing
    stream.expected += source.expected
    stream.received += source.received
    stream.missing += source.missing
    stream.damaged += source.damaged
