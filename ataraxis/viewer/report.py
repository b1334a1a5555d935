"""`report`: a session as one HTML file, which needs nothing else and runs nothing."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ataraxis.card import count, image, plain, span
from ataraxis.clock import Anchor
from ataraxis.log.archive import LogArchive, LogNode, Nodes
from ataraxis.log.fits import load_fit
from ataraxis.log.verification import verify as check
from ataraxis.session.directory import SessionFolder, SessionRecord
from ataraxis.session.verdict import judge
from ataraxis.viewer.figures import (
    COLOURS,
    FIGURES,
    Lane,
    Mark,
    intervals,
    timeline,
    traces,
)
from ataraxis.viewer.overview import forget, overview
from ataraxis.viewer.recorded import size_of

if TYPE_CHECKING:
    from ataraxis.log.journal.page import Gap
    from ataraxis.log.series import Series
    from ataraxis.session.verdict import StreamVerdict, Verdict

EVENTS = "events"
_CHANNELS, _COLUMNS, _GAPS, _EVENTS, _LINES = 24, 480, 4, 400, 40
_AROUND_S = 0.25
_TEXT_BYTES = 1 << 16
_FRAMES = 1 << 21
"""Of longer streams some frames are left out of the lanes."""
STYLE = (
    COLOURS
    + FIGURES
    + """
body{font:15px/1.5 system-ui,sans-serif;color:var(--t);background:var(--g);
max-width:1060px;margin:30px auto;padding:0 24px}
h1{font-size:26px;margin:0}h2{font-size:17px;margin:36px 0 8px}
.m,figcaption,th{color:var(--m)}.verdict{display:inline-block;padding:6px 16px;
border-radius:18px;font-weight:600;margin-top:10px;color:var(--good);
background:var(--goodp)}.verdict.bad{color:var(--bad);background:var(--badp)}
figure{margin:0 0 14px;background:var(--p);border-radius:8px;padding:10px}
figure img{max-width:100%}svg{display:block;width:100%}td svg{width:260px}
table{border-collapse:collapse}th{font-weight:400;text-align:left}
td,th{padding:5px 18px 5px 0;border-bottom:1px solid var(--l);vertical-align:middle}
.n{text-align:right;font-variant-numeric:tabular-nums}
.no{color:var(--bad);font-weight:600}
pre{background:var(--p);border-radius:8px;padding:12px;overflow-x:auto;font-size:12px}
li{margin:2px 0}
@media print{body{margin:0;max-width:none}figure,pre{break-inside:avoid}}
"""
)


_POLICY = (
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
    "style-src 'unsafe-inline'; img-src data:\">"
)


class _ReportedGap(NamedTuple):
    """Frames that are missing, between two that are there."""

    start_ns: int
    stop_ns: int
    frames: int
    reason: str

    @property
    def text(self) -> str:
        why = f" ({self.reason})" if self.reason else ""
        return f"{count(self.frames, 'missing frame')}{why}"


@dataclass
class _ReportedStream:
    """One stream of the recording, as the report shows it."""

    node: LogNode
    series: Series
    times_ns: NDArray[np.int64]
    gaps: list[_ReportedGap] = field(default_factory=list)
    verdict: StreamVerdict | None = None

    def find_gaps(self, known: Sequence[Gap]) -> None:
        """Find missing frames by the numbers of those that are there."""
        times = self.times_ns
        if not len(times):
            return
        numbers = np.asarray(self.sequence).view(np.int64)
        reasons = {gap.first: gap.reason for gap in known}
        if self.node.log.is_numbered(self.node.info.number):
            for k in np.flatnonzero(np.diff(numbers) > 1).tolist():
                first, lost = int(numbers[k]) + 1, int(numbers[k + 1] - numbers[k]) - 1
                reason = reasons.pop(first, "")
                ends = int(times[k]), int(times[k + 1])
                self.gaps.append(_ReportedGap(*ends, lost, reason))
        for gap in known:  # at the ends, or of frames without numbers
            if gap.first in reasons:
                row = int(np.searchsorted(numbers, gap.first))
                at = int(times[min(max(row, 1), len(times)) - 1])
                self.gaps.append(_ReportedGap(at, at, gap.count, gap.reason))
        self.gaps.sort()

    @property
    def name(self) -> str:
        return self.node.name

    @cached_property
    def sequence(self) -> NDArray[np.uint64]:
        """Sequence numbers of its frames."""
        return self.series.sequence(slice(None))


def report(
    session: str | os.PathLike[str],
    path: str | os.PathLike[str] | None = None,
    *,
    verify: bool = False,
) -> Path:
    """Write what a session holds, and whether it is whole, as one HTML file.

    Parameters
    ----------
    session : str or Path
        The directory of a session, or another log of ataraxis.
    path : str or Path, optional
        The file; by default ``report.html`` in the session. One that exists is
        replaced.
    verify : bool, optional
        Read and check every byte first, instead of using the session's own verdict.

    Returns
    -------
    Path
        The file: no script, no request, readable printed and in the dark.

    Raises
    ------
    FileNotFoundError
        The path has no log.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from ataraxis.log import JournalWriter
    >>> directory = tempfile.TemporaryDirectory()
    >>> with JournalWriter(directory.name, "lick") as journal:
    ...     journal.describe(1, "lick")
    ...     _ = journal.log_block(1, np.arange(10.0), time_ns=10**8 * np.arange(1, 11))
    >>> made = report(directory.name)
    >>> made.name, "<script" in made.read_text()
    ('report.html', False)
    >>> directory.cleanup()
    """
    return write_report(session, path, verify=verify)[0]


def write_report(
    session: str | os.PathLike[str],
    path: str | os.PathLike[str] | None = None,
    *,
    verify: bool = False,
) -> tuple[Path, bool]:
    """Write the file of `report`; return it, and whether the session is trusted."""
    home = Path(session)
    target = Path(path) if path is not None else home / "report.html"
    if path is None and not home.is_dir():
        target = home.with_suffix(".html")
    made = _Report(home, verify=verify)
    part = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        part.write_text(made.html(), encoding="utf-8")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target, made.verdict.is_trusted


def _verdict(home: Path, record: SessionRecord | None, *, verify: bool) -> Verdict:
    """Return the session's verdict, or one that is made now."""
    try:
        known = SessionFolder(home).verdict()
    except FileNotFoundError:
        known = None
    if known is not None and not verify:
        return known
    begun = record.clock if record is not None else Anchor.take()
    made = judge(home, begun)
    if verify:
        made.is_trusted = made.is_trusted and check(home).is_complete
    return made


def _record(home: Path) -> SessionRecord | None:
    try:
        return SessionFolder(home).record()
    except (OSError, ValueError):
        return None


class _Report:
    """Reads a recording once, and writes its parts."""

    def __init__(self, home: Path, *, verify: bool) -> None:
        self.home = home
        nodes = Nodes(home)  # raises before anything else
        try:
            self.record = _record(home)
            self.verdict = _verdict(home, self.record, verify=verify)
            self.streams = [_stream(node, self.verdict) for node in nodes]
            self._add_gaps()
            times = [s.times_ns for s in self.streams if len(s.times_ns)]
            self.begin = min((int(t[0]) for t in times), default=0)
            self.length_s = (
                max((int(t[-1]) for t in times), default=0) - self.begin
            ) / 1e9
            self.events = self._events()
            self.size = size_of(home)
            self.parts = [
                self._head(), self._timeline(), self._table(), *self._pictures(),
                self._event_table(), self._clocks(), self._origin(), *self._texts(),
            ]  # fmt: skip
        finally:
            nodes.close()
            forget()

    def html(self) -> str:
        """Return the page."""
        title = plain(self.home.absolute().name)
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}'
            f"</title>{_POLICY}"
            '<meta name="viewport" content="width=device-width">'
            f"<style>{STYLE}</style></head><body>"
            f"{''.join(self.parts)}</body></html>\n"
        )

    def _add_gaps(self) -> None:
        """Find gaps in the sequence numbers, and what the recorder says of them."""
        with LogArchive(self.home) as archive:
            reasons: dict[int, list[Gap]] = {}
            for gap in archive.gaps:
                reasons.setdefault(gap.source, []).append(gap)
        for stream in self.streams:
            stream.find_gaps(reasons.get(stream.node.info.number, []))

    def _events(self) -> list[tuple[float, str]]:
        """Return the events of the session: when, s since the beginning, and what."""
        for stream in self.streams:
            if stream.name != EVENTS:
                continue
            rows = stream.series.read(slice(None))
            if rows.dtype.names is None or "event" not in rows.dtype.names:
                return []
            at = (stream.times_ns - self.begin) / 1e9
            return [(float(t), str(e)) for t, e in zip(at, rows["event"], strict=False)]
        return []

    # ---- the parts

    def _head(self) -> str:
        when = ""
        if self.record is not None:
            begun = self.record.clock.to_datetime64(self.record.clock.monotonic_ns)
            when = f"{str(begun)[:19]} UTC, "
        what = f"{when}{span(self.length_s)}, {len(self.streams)} streams, {self.size}"
        lost = sum(s.missing for s in self.verdict.streams)
        verdict, kind = "Not to be trusted", " bad"
        if lost:
            verdict += f": {lost:,} frames are missing"
        if self.verdict.is_trusted:
            verdict, kind = "Trusted: nothing is missing", ""
        return (
            f"<h1>{plain(self.home.absolute().name)}</h1>"
            f'<div class="m">{plain(what)}</div>'
            f'<div class="verdict{kind}" role="status">{plain(verdict)}</div>'
            f"{_list(self.verdict.notes)}"
        )

    def _timeline(self) -> str:
        lanes = []
        for stream in self.streams:
            marks = [self._gap_mark(gap) for gap in stream.gaps[:_EVENTS]]
            times = (stream.times_ns - self.begin) / 1e9
            lanes.append(
                Lane(stream.name, times[:: -(-len(times) // _FRAMES) or 1], marks)
            )
        lanes += self._notes_lane()
        step = max(1, -(-len(self.events) // _EVENTS))
        events = [Mark(t, t, "event", name) for t, name in self.events[::step]]
        drawn = timeline(lanes, self.length_s, events)
        key = "frames a second of each stream; lines: events; red: frames are missing"
        if step > 1:
            key += f"; each {step}th event is drawn"
        return _section("When", _figure(drawn, key) + self._happened(lanes))

    def _happened(self, lanes: Sequence[Lane]) -> str:
        """Return what the marks mean, for those who cannot point at them."""
        found = [
            (mark.start_s, f"{lane.name}: {mark.text}" if lane.name != "log" else
             mark.text)
            for lane in lanes for mark in lane.marks
        ]  # fmt: skip
        lines = [f"{span(at) if at >= 1e-3 else '0 s'}: {text}"
                 for at, text in sorted(found)]  # fmt: skip
        more = len(lines) - _LINES
        if more > 0:
            lines = [*lines[:_LINES], f"and {more:,} more"]
        return _list(lines)

    def _gap_mark(self, gap: _ReportedGap) -> Mark:
        start, stop = ((t - self.begin) / 1e9 for t in (gap.start_ns, gap.stop_ns))
        return Mark(start, stop, "gap", gap.text)

    def _notes_lane(self) -> list[Lane]:
        """Return what the session's log tells: kills, restarts, waits."""
        marks = []
        for line in _tail(self.home / "session.log").splitlines():
            parts = line.split(" ", 2)
            if len(parts) == 3 and parts[1].isdigit():
                at = (int(parts[1]) - self.begin) / 1e9
                kind = "wait" if "wait" in parts[2] else "note"
                marks.append(Mark(at, at, kind, parts[2]))
        return [Lane("log", np.empty(0), marks)] if marks else []

    def _table(self) -> str:
        heads = (
            "stream",
            "what",
            "made",
            "on disk",
            "missing",
            "most behind",
            "waited",
        )
        rows = []
        for stream in self.streams:
            known = stream.verdict
            cells = [
                f"<td><b>{plain(stream.name)}</b></td><td>{plain(_what(stream))}</td>"
            ]
            if known is None:
                cells.append(f"<td></td>{_n(len(stream.times_ns))}<td></td>" * 1)
                cells.append("<td></td><td></td>")
            else:
                waited = span(known.waited_s) if known.waited_s else ""
                tone = ' class="n no"' if known.missing else ' class="n"'
                cells.append(
                    f"{_n(known.expected)}{_n(known.received)}"
                    f"<td{tone}>{known.missing:,}</td>"
                    f'<td class="n">{span(known.longest_lag_s)}</td>'
                    f'<td class="n">{waited}</td>'
                )
            times = stream.times_ns[:_FRAMES] / 1e9
            cells.append(f"<td>{intervals(times)}</td>")
            rows.append(f"<tr>{''.join(cells)}</tr>")
        head = "".join(
            f'<th scope="col">{h}</th>' for h in (*heads, "time between frames")
        )
        notes = [
            f"{s.name}: {note}"
            for s in self.streams
            if s.verdict
            for note in s.verdict.notes
        ]
        body = "".join(rows)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return _section("Streams", table + _list(notes))

    def _pictures(self) -> list[str]:
        return [part for stream in self.streams if (part := self._picture(stream))]

    def _picture(self, stream: _ReportedStream) -> str:
        series = stream.series
        if not len(series) or series.dtype.kind not in "iufb" or stream.name == EVENTS:
            return ""
        if not series.is_blocks and len(series.shape) in (2, 3):
            found = series.read(slice(len(series) // 2, len(series) // 2 + 1))[0]
            shown = image(found, "the picture in the middle")
            return (
                ""
                if shown is None
                else _section(stream.name, _figure(shown.html, shown.caption))
            )
        length = float(stream.times_ns[-1] - stream.times_ns[0]) / 1e9
        spans = [(max(length / 2 - 0.5, 0.0), 1.0, "from the middle")]
        first = float(stream.times_ns[0] - self.begin) / 1e9
        for gap in stream.gaps[:_GAPS]:
            start, stop = ((t - self.begin) / 1e9 - first
                           for t in (gap.start_ns, gap.stop_ns))  # fmt: skip
            around = max(_AROUND_S, (stop - start) / 2)
            long = stop - start + 2 * around
            spans.append((max(start - around, 0.0), long, f"around {gap.text}"))
        if len(stream.gaps) > _GAPS:
            text = f"the first {_GAPS} of {len(stream.gaps):,} gaps are drawn"
            return self._traces_of(stream, first, spans, text)
        return self._traces_of(stream, first, spans, "")

    def _traces_of(
        self, stream: _ReportedStream, first: float,
        spans: Sequence[tuple[float, float, str]], note: str,
    ) -> str:  # fmt: skip
        """Return the traces of some spans of a stream."""
        figures = [self._traces(stream, first, *one) for one in spans]
        if not any(figures):
            return ""
        return _section(stream.name, "".join(figures) + _list([note] if note else []))

    def _traces(
        self,
        stream: _ReportedStream,
        first: float,
        start: float,
        long: float,
        text: str,
    ) -> str:
        seen = overview(
            self.home, stream.name, _COLUMNS, start=start, stop=start + long
        )
        if not seen.sizes["column"]:
            return ""
        channels = seen.sizes["channel"]
        chosen = np.unique(
            np.linspace(0, channels - 1, min(channels, _CHANNELS)).astype(int)
        )
        low, high = (seen.values[:, k][:, chosen].astype("f8") for k in (0, 1))
        names = (
            [str(n) for n in seen["channel"].values]
            if "channel" in seen.coords
            else [str(n) for n in range(channels)]
        )
        there = seen["is_there"].values
        low[~there] = high[~there] = 0
        begun = first + start
        marks = [
            Mark(at - begun, at - begun, "event", name)
            for at, name in self.events
            if begun <= at < begun + long
        ][:20]
        drawn = traces(low, high, there, [names[k] for k in chosen], long, marks)
        unit = seen.attrs.get("units", "")
        caption = (
            f"{span(long)} {text} ({span(begun)}), {channels} channels"
            + (f" ({len(chosen)} drawn)" if len(chosen) < channels else "")
            + (f", {unit}" if isinstance(unit, str) and unit else "")
            + ", minimum and maximum of each column"
        )
        return _figure(drawn, caption)

    def _event_table(self) -> str:
        counts = Counter(name for _, name in self.events)
        rows = "".join(
            f"<tr><td>{plain(name)}</td>{_n(n)}</tr>"
            for name, n in counts.most_common(50)
        )
        if not rows:
            return ""
        head = '<tr><th scope="col">event</th><th scope="col" class="n">times</th></tr>'
        return _section(
            "Events", f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"
        )

    def _clocks(self) -> str:
        lines = []
        for stream in self.streams:
            made = load_fit(self.home, stream.name) if self.home.is_dir() else None
            if made is not None:
                lines.append(f"{stream.name}: {made.summary}")
        return _section("Clocks", _list(lines)) if lines else ""

    def _origin(self) -> str:
        if self.record is None:
            return ""
        origin, record = self.record.provenance, self.record
        software = [("Python", origin.python), *origin.packages.items()]
        commit = origin.git_commit[:12] + (", changed" if origin.is_git_changed else "")
        facts = {
            "session": f"{record.name}, {record.id}", "subject": record.subject,
            "host": f"{origin.host}, {origin.system}, {origin.processors} processors",
            "user": origin.user, "command": " ".join(origin.command),
            "directory": origin.directory,
            "commit": commit if origin.git_commit else "",
            "software": ", ".join(f"{name} {version}" for name, version in software),
        }  # fmt: skip
        rows = "".join(
            f'<tr><th scope="row">{k}</th><td>{plain(v, 400)}</td></tr>'
            for k, v in facts.items()
            if v
        )
        return _section("Where and with what", f"<table><tbody>{rows}</tbody></table>")

    def _texts(self) -> Sequence[str]:
        found = []
        for title, name in (
            ("Configuration", "config.yaml"), ("Rig", "rig.yaml"),
            ("Log", "session.log"),
        ):  # fmt: skip
            text = _tail(self.home / name)
            if text:
                found.append(_section(title, f"<pre>{_lines(text)}</pre>"))
        return found


def _stream(node: LogNode, verdict: Verdict) -> _ReportedStream:
    series = node.series(verify=False)
    times = np.asarray(series.monotonic(slice(None)), np.int64)
    if series.times.unit != "ns":
        times = times * 1000
    known = next((s for s in verdict.streams if s.name == node.name), None)
    return _ReportedStream(node, series, np.sort(times), [], known)


def _what(stream: _ReportedStream) -> str:
    series = stream.series
    if stream.name == EVENTS:
        return "events"
    shape = " × ".join(map(str, series.shape))
    return f"{'text' if series.dtype == object else series.dtype} {shape}".strip()


def _tail(path: Path) -> str:
    """Return the last part of a text file; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TEXT_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def _lines(text: str) -> str:
    return "\n".join(plain(line, 400) for line in text.splitlines())


def _n(value: int) -> str:
    return f'<td class="n">{value:,}</td>'


def _list(lines: Sequence[str]) -> str:
    items = "".join(f"<li>{plain(line, 400)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def _section(title: str, body: str) -> str:
    return f"<section><h2>{plain(title)}</h2>{body}</section>"


def _figure(drawn: str, caption: str) -> str:
    note = f"<figcaption>{plain(caption, 300)}</figcaption>" if caption else ""
    return f"<figure>{drawn}{note}</figure>"
