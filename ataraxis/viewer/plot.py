"""`plot`: a session, or its trials around an event, as one SVG file."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ataraxis.card import count, plain, span
from ataraxis.session.trials import psth, raster
from ataraxis.viewer.figures import (
    COLOURS,
    FIGURES,
    WIDE,
    Lane,
    Mark,
    timeline,
    traces,
    trials,
)
from ataraxis.viewer.recorded import EVENTS, RecordedSession, RecordedStream

_CHANNELS, _COLUMNS, _TRIALS, _STREAMS, _MARKS = 16, 400, 100, 4, 400
_BINS = 60
_BOX = re.compile(r'viewBox="0 0 (\S+) (\S+)"')
Part = tuple[str, str]
"""A caption, and a figure."""


def plot(
    session: str | os.PathLike[str],
    path: str | os.PathLike[str] | None = None,
    *,
    around: str | None = None,
    streams: Sequence[str] = (),
    before: float = 0.5,
    after: float = 1.0,
) -> Path:
    """Draw a session, or its trials around an event, as one SVG file.

    Parameters
    ----------
    session : str or Path
        The directory of a session, or another log of ataraxis.
    path : str or Path, optional
        The file; by default ``plot.svg`` in the session, or ``around-EVENT.svg``. One
        that exists is replaced.
    around : str, optional
        Name of an event: points, which are other events and streams without a rate,
        become a raster and their rate (`ataraxis.session.trials.psth`), and samples
        their mean over the trials. Without it: when frames came, and a second from the
        middle of each stream.
    streams : sequence of str, optional
        Streams, or names of further events; by default some of each kind.
    before, after : float, optional
        Length of a trial before and after the event, s.

    Returns
    -------
    Path
        The file. It needs no library to be drawn, and follows a light or dark page.

    Raises
    ------
    FileNotFoundError
        The path has no log.
    KeyError
        The session has no such event or stream.
    ValueError
        `before` and `after` are not 0 or more, or both are 0.

    Examples
    --------
    >>> import tempfile
    >>> from ataraxis.log import JournalWriter
    >>> directory = tempfile.TemporaryDirectory()
    >>> with JournalWriter(directory.name, "lick") as journal:
    ...     journal.describe(1, "lick")
    ...     _ = journal.log_block(1, np.arange(10.0), time_ns=10**8 * np.arange(1, 11))
    >>> plot(directory.name).name
    'plot.svg'
    >>> directory.cleanup()
    """
    if not (before >= 0 and after >= 0 and 0 < before + after < np.inf):
        raise ValueError(
            "before and after must be seconds, 0 or more, and not both 0; got "
            f"before={before!r}, after={after!r}"
        )
    home = Path(session)
    name = "plot"
    if around is not None:
        name = "around-" + re.sub(r"[^-\w.]", "_", around)
    inside = home if home.is_dir() else home.parent
    target = Path(path) if path is not None else inside / f"{name}.svg"
    opened = RecordedSession(home)
    try:
        known = {*opened.streams, *opened.events[1]} - {EVENTS}
        for wanted in streams:
            if wanted not in known:
                raise KeyError(
                    f"no stream or event {wanted!r}: {home} has {sorted(known)}"
                )
        if around is None:
            title, parts = _whole(opened, streams)
        else:
            title, parts = _around(opened, around, streams, before, after)
    finally:
        opened.close()
    part = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        part.write_text(_page(title, parts), encoding="utf-8")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _chosen(session: RecordedSession, streams: Sequence[str]) -> list[RecordedStream]:
    """Return the streams of numbers that are drawn."""
    found = [
        s for s in session.streams.values()
        if s.kind == "traces" and len(s) and (not streams or s.name in streams)
    ]  # fmt: skip
    return found if streams else found[:_STREAMS]


# ---- the whole session


def _whole(session: RecordedSession, streams: Sequence[str]) -> tuple[str, list[Part]]:
    times, names = session.events
    step = max(1, -(-len(times) // _MARKS))
    marks = [
        Mark(t / 1e9, t / 1e9, "event", n)
        for t, n in zip(times[::step].tolist(), names[::step], strict=True)
    ]
    lanes = [
        Lane(
            s.name,
            (s.stamps - session.begin) / 1e9,
            [
                Mark((a - session.begin) / 1e9, (b - session.begin) / 1e9, "gap",
                     count(n, "missing frame"))
                for a, b, n in s.gaps[:_MARKS]
            ],
        )
        for s in session.streams.values()
        if len(s) and (not streams or s.name in streams)
    ]  # fmt: skip
    length = session.end / 1e9
    parts = [("", timeline(lanes, length, marks))]
    for stream in _chosen(session, streams):
        low, high = stream.limits
        long = min(10**9, high - low)
        start = (low + high - long) // 2
        drawn = _traces(session, stream, start, start + long)
        parts.append((f"{stream.name}, {span(long / 1e9)} from {span(start / 1e9)} on",
                      drawn))  # fmt: skip
    title = f"{session.home.absolute().name}, {span(length)}: {session.verdict['text']}"
    return title, parts


def _traces(
    session: RecordedSession, stream: RecordedStream, start: int, stop: int
) -> str:
    seen = stream.columns(start, stop, _COLUMNS)
    which, names = _channels(stream, seen.low.shape[1])
    low, high = seen.low[:, which].astype("f8"), seen.high[:, which].astype("f8")
    is_there = np.asarray((low <= high).any(1))
    low[~is_there] = high[~is_there] = 0
    if not seen.are_lost and is_there.any():  # no sample was due: the last one holds
        before = np.maximum.accumulate(np.where(is_there, np.arange(len(low)), 0))
        low, high = low[before], high[before]
        is_there = np.arange(len(low)) >= np.argmax(is_there)
    marks = [
        Mark((e["time_ns"] - start) / 1e9, 0, "event", e["name"])
        for e in session.events_in(start, stop)[:20]
    ]
    return traces(low, high, is_there, names, (stop - start) / 1e9, marks)


def _channels(stream: RecordedStream, count: int) -> tuple[NDArray[np.intp], list[str]]:
    which = np.unique(np.linspace(0, count - 1, min(count, _CHANNELS)).astype(np.intp))
    names = stream.about["names"]
    return which, [names[k] if k < len(names) else str(k) for k in which.tolist()]


# ---- around an event


def _around(
    session: RecordedSession,
    event: str,
    streams: Sequence[str],
    before: float,
    after: float,
) -> tuple[str, list[Part]]:
    times, names = session.events
    kinds = np.array(names, object)
    centres = times[kinds == event] if len(times) else times
    if not len(centres):
        raise KeyError(f"no event {event!r}: {session.home} has {sorted(set(names))}")
    points = {
        name: times[kinds == name]
        for name in dict.fromkeys(names)
        if name != event and (not streams or name in streams)
    }
    for stream in session.streams.values():
        is_point = not stream.kind and stream.name != EVENTS and len(stream)
        is_asked = stream.name in streams and stream.about["rate"] is None
        if is_asked or (is_point and not streams):
            points[stream.name] = stream.stamps - session.begin
    edges = np.linspace(-before, after, _BINS + 1)
    parts: list[Part] = []
    for name, when in list(points.items())[: len(streams) or _STREAMS]:
        seconds, middles = when / 1e9, centres / 1e9
        found = raster(seconds, middles, (-before, after))
        drawn = trials(found, psth(seconds, middles, edges), edges)
        parts.append((f"{name}: each trial, and the rate", drawn))
    for stream in _chosen(session, streams):
        if stream.name not in points:
            parts.append(_mean(stream, centres, before, after))
    title = (
        f"{session.home.absolute().name}: {count(len(centres), 'trial')} around {event}"
    )
    return title, parts


def _mean(stream: RecordedStream, centres: NDArray[np.int64], before: float,
          after: float) -> Part:  # fmt: skip
    """Return the mean over trials of the columns of a stream."""
    length, rate = before + after, stream.about["rate"]
    most = int(np.clip(length * rate / 4, 8, _COLUMNS)) if rate else 100
    step = -(-len(centres) // _TRIALS)
    which, names = _channels(stream, stream.samples.channels)
    shape = (2, most, len(which))
    total, number = np.zeros(shape), np.zeros(shape)
    for centre in centres[::step].tolist():
        start = centre - round(before * 1e9)
        seen = stream.columns(start, start + round(length * 1e9), most)
        middle = seen.start_ns - start + (np.arange(len(seen.low)) + 0.5) * seen.ns
        where = np.floor(middle / (length * 1e9) * most).astype(int)
        is_in = (where >= 0) & (where < most)
        for k, bound in enumerate((seen.low, seen.high)):
            values = bound[is_in][:, which].astype("f8")
            is_there = (seen.low <= seen.high)[is_in][:, which]
            np.add.at(total[k], where[is_in], np.where(is_there, values, 0))
            np.add.at(number[k], where[is_in], is_there)
    is_there = np.asarray(number.any((0, 2)))
    low, high = total / np.maximum(number, 1)
    marks = [Mark(before, before, "event", "")]
    drawn = traces(low, high, is_there, names, length, marks, -before)
    said = "mean over trials of the minimum and maximum of each column"
    if step > 1:
        said += f", of each {step}th trial"
    units = stream.about["units"]
    return f"{stream.name}{f', {units}' if units else ''}: {said}", drawn


# ---- the file


def _page(title: str, parts: Sequence[Part]) -> str:
    """Return figures below each other as one SVG with its style."""
    y, found = 34.0, [f'<text class="title" x="10" y="22">{plain(title, 200)}</text>']
    for caption, drawn in parts:
        if caption:
            y += 22
            found.append(f'<text x="10" y="{y - 6:g}">{plain(caption, 200)}</text>')
        box = _BOX.search(drawn)
        assert box is not None
        place = f'<svg x="0" y="{y:g}" width="{box[1]}" height="{box[2]}" '
        found.append(drawn.replace("<svg ", place, 1))
        y += float(box[2]) + 12
    style = (
        f"{COLOURS}{FIGURES}.title{{font-size:15px!important;fill:var(--t)!important}}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {y:g}" '
        f'width="{WIDE}" height="{y:g}"><style>{style}</style>'
        f'<rect width="100%" height="100%" fill="var(--g)"/>{"".join(found)}</svg>\n'
    )
