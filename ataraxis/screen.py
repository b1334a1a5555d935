"""Tables of the command line; plain text without a terminal.

Names come from files of unknown origin: characters that cannot be printed are escaped.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ataraxis.cluster.status import (
    AgentReading,
    AgentWatch,
    EdgeState,
    HostState,
    MirrorStatistics,
)
from ataraxis.datamux.registry import SourceKind
from ataraxis.datamux.summary import StreamSummary
from ataraxis.pipeline.statistics import RunStatistics, list_runs
from ataraxis.shm.context import ContextLike
from ataraxis.shm.doctor import Check
from ataraxis.shm.gc import Leftover
from ataraxis.shm.listing import Listed
from ataraxis.stream.inspector import Meter, Metered, MeterReading
from ataraxis.stream.statistics import (
    QueueStatistics,
    ReaderStatistics,
    StreamStatistics,
)

_COLOUR = {"ok": "green", "warn": "yellow", "fail": "red"}
_WIDE = 240


def console() -> Console:
    """Return a console; without a terminal, one that is plain and wide."""
    terminal = Console(highlight=False)
    if terminal.is_terminal or "COLUMNS" in os.environ:
        return terminal
    return Console(highlight=False, width=_WIDE)


def plain(text: str) -> str:
    """Return a text with escapes for characters that cannot be printed."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


def size(count: float | None, unit: str = "B") -> str:
    """Format a number with a prefix and a unit; '-' if unknown."""
    if count is None:
        return "-"
    for prefix in ("", "k", "M", "G"):
        if count < 1000:
            return f"{count:.3g} {prefix}{unit}".rstrip()
        count /= 1000
    return f"{count:,.4g} T{unit}"


def duration(seconds: float | None) -> str:
    """Format a time in a suitable unit; '-' if unknown."""
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def segments(rows: Iterable[Listed]) -> Table:
    """Return a table of the segments of a context."""
    heads = (
        "name", "kind", "dtype", "shape", "bytes", "contents", "attached", "problem",
    )  # fmt: skip
    return _table(heads, (_segment(row) for row in rows), right=("bytes",))


def _segment(row: Listed) -> Sequence[str | Text]:
    unused = "none (kept)" if row.is_kept else "none (stale)"
    users = "-" if row.problem else plain(", ".join(row.participants)) or unused
    inside = ""
    if isinstance(row.content, StreamStatistics):
        inside = _inside(row.content)
    elif isinstance(row.content, QueueStatistics):
        inside = _inside_queue(row.content)
    return (
        plain(row.name),
        row.kind,
        row.dtype,
        "x".join(map(str, row.shape)) or "-",
        f"{row.bytes:,}",
        inside,
        users,
        Text(plain(row.problem), "red"),
    )


def _inside(stream: StreamStatistics) -> str:
    """Return the contents of a stream in a line."""
    policies = [reader.policy for reader in stream.readers]
    readers = [f"{policies.count(p)} {p}" for p in dict.fromkeys(policies)]
    readers += [f"{plain(name)} away" for name in stream.detached]
    state = "" if stream.producers else f", {stream.state}"
    return (
        f"{stream.buffer_count} slots, {stream.sent:,} frames{state}; "
        f"{', '.join(readers) or 'no readers'}"
    )


def _inside_queue(queue: QueueStatistics) -> str:
    """Return the contents of a work queue in a line."""
    return (
        f"{queue.buffer_count:,} slots, {queue.put:,} frames put; "
        f"{queue.waiting:,} wait, {queue.leased:,} leased"
    )


def top(reading: MeterReading) -> RenderableType:
    """Return a table of the streams, with a line for each stream and each reader."""
    heads = (
        "stream", "frames/s", "bytes/s", "frames", "age", "slots", "lag", "lapped",
        "stalled", "",
    )  # fmt: skip
    lines: list[Sequence[str | Text]] = []
    for metered in reading.streams:
        lines.append(_stream(metered))
        slots = metered.stream.buffer_count if metered.stream else 0
        lines += [_reader(reader, slots) for reader in metered.readers]
    interval = reading.interval_s
    summary = f"{len(reading.streams)} streams" + (
        f", rates over {duration(interval)}" if interval is not None else ""
    )
    table = FittedTable(heads, lines, heads[1:8], (
        "slots", "bytes/s", "age", "lapped", "stalled",
    ))  # fmt: skip
    return Group(table, Text(summary, "dim"))


def _stream(metered: Metered) -> Sequence[str | Text]:
    name, stream = Text(plain(metered.name), "bold"), metered.stream
    if stream is None:
        return (name, *[""] * 8, Text(plain(metered.problem), "red"))
    share = metered.stalled_share
    waited = f"{duration(stream.stalled_s)}" + (f" ({share:.0%})" if share else "")
    notes = [f"{stream.refused:,} refused"] * bool(stream.refused)
    notes += [f"{stream.device_gaps:,} missing in the device"] * bool(
        stream.device_gaps
    )
    notes += [stream.state] * (not stream.producers)
    return (
        name,
        size(metered.frames_hz, ""),
        size(metered.bytes_hz),
        f"{stream.sent:,}",
        duration(stream.age_s),
        f"{stream.buffer_count:,}",
        "",
        "",
        Text(f"{waited}, now" if stream.is_stalled else waited, _stall(stream)),
        ", ".join(notes),
    )


def _stall(stream: StreamStatistics) -> str:
    return "red" if stream.is_stalled else ""


def _reader(reader: ReaderStatistics, slots: int) -> Sequence[str | Text]:
    is_behind = reader.is_gating and reader.lag >= slots
    notes = [reader.policy] + ["durable"] * reader.is_durable
    notes += [f"away for {duration(reader.detached_s)}"] * reader.is_detached
    return (
        Text(f"  {plain(reader.label)}"),
        *[""] * 2,
        f"{reader.received:,}",
        *[""] * 2,
        Text(f"{reader.lag:,}", "red" if is_behind else ""),
        Text(f"{reader.dropped:,}", "yellow" if reader.dropped else ""),
        "",
        Text(", ".join(notes), "yellow" if reader.is_detached else ""),
    )


def pipes(
    found: Sequence[RunStatistics], before: Sequence[RunStatistics], seconds: float
) -> FittedTable:
    """Return a table of the workers of pipes; rates are since `before`."""
    known = {(old.run, old.worker): old for old in before}
    has_hosts = any(seen.host != "localhost" for seen in found)
    heads = (
        "pipe", "worker", *["host"] * has_hosts, "pid", "values/s", "values", "emitted",
        "restarts", "dropped", "dead letters",
    )  # fmt: skip
    rows = []
    for seen in found:
        old = known.get((seen.run, seen.worker))
        rate = (seen.received - old.received) / seconds if old is not None else None
        rows.append(
            (
                plain(seen.run),
                plain(seen.worker),
                *[plain(seen.host)] * has_hosts,
                str(seen.pid or "-"),
                size(rate, ""),
                f"{seen.received:,}",
                f"{seen.emitted:,}",
                f"{seen.restarts:,}",
                f"{seen.dropped:,}",
                f"{seen.dead_letters:,}",
            )
        )
    spare = ("pid", "emitted", "dropped")
    return FittedTable(heads, rows, heads[2 + has_hosts :], spare)


def agent(reading: AgentReading | None) -> list[RenderableType]:
    """Return tables of what the agent of a context tells; empty without an agent."""
    if reading is None:
        return []
    parts: list[RenderableType] = [hosts(reading.hosts)] if reading.hosts else []
    parts += [mirrors(reading.mirrors)] if reading.mirrors else []
    parts += [edges(reading.edges)] if reading.edges else []
    if reading.problem:
        parts.append(Text(plain(reading.problem), "red"))
    return parts


def hosts(found: Iterable[HostState]) -> FittedTable:
    """Return a table of the hosts of a lab."""
    heads = (
        "host", "address", "state", "since", "round trip", "clock ahead", "bound",
        "drift", "mirrors", "served", "behind", "spooled", "lost", "",
    )  # fmt: skip
    rows = (
        (
            Text(plain(host.name), "bold"),
            plain(host.address),
            Text(host.state, _HOST_COLOUR.get(host.state, "")),
            duration(host.since_s),
            _nanoseconds(host.round_trip_ns),
            _nanoseconds(host.offset_ns),
            _nanoseconds(host.bound_ns, "±"),
            "-" if host.drift_ppb is None else f"{host.drift_ppb / 1000:+.3g} ppm",
            f"{host.mirrors:,}",
            f"{host.served:,}",
            f"{host.behind_frames:,}",
            size(host.spooled_bytes),
            Text(f"{host.lost:,}", "red" if host.lost else ""),
            Text(plain(host.problem), "red"),
        )
        for host in found
    )
    spare = ("address", "drift", "since", "served", "mirrors", "round trip", "bound")
    return FittedTable(heads, rows, heads[3:13], spare)


_HOST_COLOUR = {"connected": "green", "suspect": "yellow", "away": "red"}


def _nanoseconds(count: int | None, sign: str = "") -> str:
    if count is None:
        return "-"
    if abs(count) < 10**9:
        return f"{sign}{count / 1000:,.4g} us"
    return f"{sign}{count / 10**9:,.6f} s"


def mirrors(found: Iterable[MirrorStatistics]) -> FittedTable:
    """Return a table of the mirrors here of streams of other hosts."""
    heads = (
        "mirror", "of", "state", "since", "frames", "lost", "repeated", "reconnects",
        "behind", "for", "spooled there", "",
    )  # fmt: skip
    rows = (
        (
            Text(plain(one.name), "bold"),
            plain(f"{one.host}:{one.stream}"),
            Text(one.state, _MIRROR_COLOUR.get(one.state, "")),
            duration(one.since_s),
            f"{one.frames:,}",
            Text(f"{one.lost:,}", "red" if one.lost else ""),
            f"{one.repeated:,}",
            f"{one.reconnects:,}",
            f"{one.behind_frames:,}",
            duration(one.behind_s) if one.behind_s else "",
            size(one.spooled_bytes),
            plain(", ".join(_mirror_notes(one))),
        )
        for one in found
    )
    spare = ("reconnects", "since", "spooled there", "repeated", "of", "for")
    return FittedTable(heads, rows, heads[3:11], spare)


_MIRROR_COLOUR = {
    "flowing": "green", "spooling": "yellow", "disconnected": "red", "lost": "red",
}  # fmt: skip


def _mirror_notes(one: MirrorStatistics) -> list[str]:
    notes = [one.policy] * (one.policy != "lossless")
    notes += ["detached"] * one.is_detached
    return notes + [one.problem] * bool(one.problem)


def edges(found: Iterable[EdgeState]) -> FittedTable:
    """Return a table of the edges of pipes between hosts."""
    heads = (
        "pipe", "queue", "from", "to", "state", "waiting", "leased", "settled/s",
        "settled", "repeated", "taken back", "",
    )  # fmt: skip
    rows = (
        (
            plain(one.run),
            Text(plain(one.name.removeprefix(f"{one.run}.")), "bold"),
            plain(one.source),
            plain(one.to),
            Text("connected", "green") if one.is_connected else Text("cut", "red"),
            "-" if one.waiting is None else f"{one.waiting:,}",
            f"{one.leased:,}",
            size(one.settled_hz, ""),
            f"{one.settled:,}",
            f"{one.repeated:,}",
            f"{one.taken_back:,}",
            Text(plain(one.problem), "red"),
        )
        for one in found
    )
    spare = ("taken back", "repeated", "pipe", "settled", "from")
    return FittedTable(heads, rows, heads[5:11], spare)


def remote_streams(rows: Iterable[dict[str, Any]]) -> Table:
    """Return a table of the streams of another host."""
    heads = ("stream", "dtype", "shape", "slots", "frames", "frames/s", "state")
    lines = (
        (
            Text(plain(str(row["name"])), "bold"),
            plain(str(row["dtype"])),
            "x".join(map(str, row["shape"])) or "-",
            f"{row['slots']:,}",
            f"{row['sent']:,}",
            "-" if row.get("rate_hz") is None else f"{row['rate_hz']:.4g}",
            "ended" if row["is_ended"] else "live",
        )
        for row in rows
    )
    return _table(heads, lines, right=heads[3:6])


def leftovers(found: Sequence[Leftover], is_dry: bool) -> RenderableType:
    """Return a table of what was, or would be, removed."""
    total = sum(left.bytes for left in found if left.is_removed)
    count = sum(left.is_removed for left in found)
    verb = "would be removed" if is_dry else "removed"
    summary = Text(f"{count} {verb}, {total:,} bytes")
    if not found:
        return summary
    rows = (
        (
            plain(left.name),
            left.kind or "?",
            f"{left.bytes:,}",
            verb if left.is_removed else Text("left", "yellow"),
            plain(left.reason),
        )
        for left in found
    )
    heads = ("name", "kind", "bytes", "", "why")
    return Group(_table(heads, rows, right=("bytes",)), summary)


def checks(found: Iterable[Check]) -> Table:
    """Return a table of the doctor's checks."""
    rows = (
        (
            check.name,
            Text(check.verdict, _COLOUR[check.verdict]),
            plain(check.found),
            plain(check.advice),
        )
        for check in found
    )
    return _table(("check", "", "found", "what to do"), rows)


def sources(found: Iterable[SourceKind]) -> Table:
    """Return a table of the kinds of live sources."""
    rows = (
        (
            plain(kind.name),
            plain(kind.summary),
            Text("available", "green") if kind.is_here else Text("missing", "yellow"),
            "" if kind.is_here else plain(kind.install),
        )
        for kind in found
    )
    return _table(("source", "what", "", "what to do"), rows)


def recordings(found: Iterable[StreamSummary]) -> Table:
    """Return a table of the streams of a recording."""
    heads = (
        "stream",
        "samples",
        "rate",
        "dtype",
        "fields",
        "unit",
        "from",
        "to",
        "gaps",
    )
    return _table(heads, map(_recording, found), right=("samples", "rate", "gaps"))


_FIELDS = 4


def _recording(found: StreamSummary) -> Sequence[str | Text]:
    names = ", ".join(found.fields[:_FIELDS])
    if len(found.fields) > _FIELDS:
        names += f" … {found.fields[-1]} ({len(found.fields)})"
    if len(found.fields) == 1 and found.shape:
        names += f" {'x'.join(map(str, found.shape))}"
    return (
        plain(found.name),
        f"{found.samples:,}",
        f"{found.rate_hz:g} Hz" if found.rate_hz else "events",
        found.dtype,
        plain(names),
        plain(found.unit),
        *("" if at is None else f"{at:.6g} s" for at in (found.first_s, found.last_s)),
        str(found.gaps or ""),
    )


def _table(
    heads: Sequence[str], rows: Iterable[Sequence[str | Text]], right: Any = ()
) -> Table:
    table = Table()
    for head in heads:
        table.add_column(
            head, justify="right" if head in right else "left", overflow="fold"
        )
    for row in rows:
        cells = [cell if isinstance(cell, Text) else Text(cell) for cell in row]
        table.add_row(*cells)
    return table


class FittedTable:
    """A table that fits the terminal, and cuts nothing without a mark.

    A narrow terminal has no lines between columns, then fewer of the `spare` columns,
    which it names below; names end with "…", and the last column goes on in a further
    line. Numbers are whole.
    """

    def __init__(
        self,
        heads: Sequence[str],
        rows: Iterable[Sequence[str | Text]],
        right: Sequence[str],
        spare: Sequence[str],
    ) -> None:
        self._heads, self._right, self._spare = heads, right, spare
        self._rows = [
            [cell if isinstance(cell, Text) else Text(cell) for cell in row]
            for row in rows
        ]
        columns = zip(*self._rows, strict=True) if self._rows else ([] for _ in heads)
        self._widths = [
            max(cell_len(head), *(cell.cell_len for cell in column), 0)
            for head, column in zip(heads, columns, strict=True)
        ]

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        whole = _table(self._heads, self._rows, self._right)
        wide = options.max_width
        if (
            Measurement.get(console, options.update(max_width=_WIDE), whole).maximum
            <= wide
        ):
            yield whole
            return
        for count in range(len(self._spare) + 1):
            without = self._spare[:count]
            table, is_fitting = self._narrow(without, wide)
            if is_fitting:
                break
        yield table
        if without:
            text = f"too narrow for: {', '.join(without)}; --json has all"
            yield Text(text, "dim")

    def _narrow(self, without: Sequence[str], wide: int) -> tuple[Table, bool]:
        """Return a table without some columns, and whether it fits into `wide`."""
        shown = [k for k, head in enumerate(self._heads) if head not in without]
        widths = {k: self._widths[k] for k in shown}
        excess = sum(widths.values()) + _GAP * (len(shown) - 1) - wide
        for k in (k for k in shown if self._heads[k] not in self._right):
            least = _WORDS if k == shown[-1] else _NAME
            cut = min(max(excess, 0), max(widths[k] - least, 0))
            widths[k] -= cut
            excess -= cut
        table = Table(
            box=SIMPLE_HEAD, show_edge=False, pad_edge=False,
            padding=(0, _GAP - 1, 0, 0),
        )  # fmt: skip
        for k in shown:
            head = self._heads[k]
            is_words = k == shown[-1] and head not in self._right
            table.add_column(
                head, justify="right" if head in self._right else "left",
                width=widths[k], no_wrap=not is_words,
                overflow="fold" if is_words else "ellipsis",
            )  # fmt: skip
        for row in self._rows:
            table.add_row(*(row[k] for k in shown))
        return table, excess <= 0


_GAP, _NAME, _WORDS = 2, 22, 14
_ANSWER_S = 1.0


class Watch:
    """Reads the statistics of a context repeatedly, every `interval` s."""

    def __init__(self, context: ContextLike, interval: float) -> None:
        self._context, self._interval = context, interval
        self._meter = Meter(context)
        self._meter.read()
        self._before = list_runs(context)
        self._agent = AgentWatch(context, 0.0)
        self._agent.look(_ANSWER_S)

    def look(self) -> RenderableType:
        """Return a table of a new reading."""
        parts, found = [top(self._meter.read())], list_runs(self._context)
        before, self._before = self._before, found
        if found:
            parts.append(pipes(found, before, self._interval))
        parts += agent(self._agent.look(_ANSWER_S))
        return Group(*parts) if len(parts) > 1 else parts[0]

    def as_dict(self) -> dict[str, Any]:
        """Return a new reading, JSON-able."""
        workers = [dataclasses.asdict(seen) for seen in list_runs(self._context)]
        told = self._agent.look(_ANSWER_S)
        return {
            **self._meter.read().as_dict(), "pipes": workers,
            "agent": None if told is None else told.state,
            **(AgentReading("") if told is None else told).as_dict(),
        }  # fmt: skip

    def close(self) -> None:
        """Leave the agent."""
        self._agent.close()
