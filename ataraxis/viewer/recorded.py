"""RecordedSession: what a page of a recording shows, by times since it began, ns."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ataraxis.card import span
from ataraxis.labels import Labels, sample_rate
from ataraxis.log.archive import LogNode, Nodes
from ataraxis.log.rows import TEXT
from ataraxis.log.series import Series
from ataraxis.session.directory import SessionFolder
from ataraxis.viewer.columns import drawn_dtype
from ataraxis.viewer.levels import (
    Levels,
    Samples,
    empty_bounds,
    identity_of,
    reduced,
)
from ataraxis.viewer.tap import BIN_COUNT, BINS_A_DECADE, FIRST_BIN
from ataraxis.viewer.watch import describe

Ints = NDArray[np.int64]
EVENTS = "events"
LANE = 600
"""Most bins of the lane of a stream."""
_ROWS = 1 << 22
"""Of longer streams only every n-th stamp is kept in memory."""
_READ_AT_MOST = 1 << 24
_CLOSE = 4
"""Fewer samples a column than this are placed by their own interval."""
_FEW = 512
_PATIENCE_S = 0.3
_MOST_GAPS, _MOST_EVENTS, _MOST_TEXT = 1000, 400, 200
_ODD = 64
_JITTER_NS = 2e8


class ColumnSpan(NamedTuple):
    """Columns of a span of time, each of the same length."""

    start_ns: int
    """When the first one begins, ns since the beginning."""
    ns: float
    """Length of a column."""
    low: NDArray[Any]
    """Minimum, shape (columns, channels); above the maximum where no sample is."""
    high: NDArray[Any]
    """Maximum."""
    is_exact: bool
    """Else some columns are of a few of their samples."""
    are_lost: bool
    """Whether a column without samples is a loss; else no sample was due."""


class RecordedStream:
    """One stream of a recording, found by times since the recording began, ns.

    Parameters
    ----------
    node : LogNode
        The stream in its log.
    home : Path
        The recording.
    """

    def __init__(self, node: LogNode, home: Path) -> None:
        self.node, self.name, self._home = node, node.name, home
        self.problem = ""
        self.kind = ""
        self.zero = 0
        """Time of the beginning, ns of the recording's clock."""
        self.about: dict[str, Any] = {"what": "", "kind": "", "rate": None}
        try:
            self.series: Series | None = node.series(verify=False)
            self._describe(self.series)
        except ValueError as error:  # values of several kinds
            self.series, self.problem = None, str(error)[:_MOST_TEXT]

    def _describe(self, series: Series) -> None:
        self.step = max(1, -(-len(series) // _ROWS))
        if series.dtype == TEXT:
            self.about["what"] = "text"
            return
        labels = series.labels or Labels(series.dtype, series.shape, series.dims)
        self.about = describe(labels)
        if not series.is_blocks and labels.dims[:1] == ("time",):
            self.about["rate"] = None
        self.kind = self.about["kind"]

    def __len__(self) -> int:
        return 0 if self.series is None else len(self.series)

    # ---- stamps of its entries

    @cached_property
    def rows(self) -> Ints:
        """Rows of the stamps that are kept."""
        return np.arange(0, len(self), self.step, dtype=np.int64)

    @cached_property
    def stamps(self) -> Ints:
        """Times of these rows, ns of the recording's clock, in order."""
        if self.series is None or not len(self):
            return np.empty(0, np.int64)
        found = np.asarray(self.series.time(self.rows)).astype(np.int64)
        return np.maximum.accumulate(found)

    @cached_property
    def shift_ns(self) -> int:
        """Time of the recording's clock minus monotonic time, of its first entry."""
        assert self.series is not None
        first = np.array([0])
        unit = 1000 if self.series.times.unit == "us" else 1
        return int(self.stamps[0] - self.series.monotonic(first)[0] * unit)

    @cached_property
    def gaps(self) -> list[tuple[int, int, int]]:
        """Lost frames: times of the frames around them, and how many."""
        series = self.series
        if series is None or len(self) < 2 or not self._is_numbered:
            return []
        numbers = np.asarray(series.sequence(self.rows)).view(np.int64)
        lost = np.diff(numbers) - np.diff(self.rows)
        found = np.flatnonzero(lost > 0)[:_MOST_GAPS]
        return [
            (int(self.stamps[k]), int(self.stamps[k + 1]), int(lost[k]))
            for k in found.tolist()
        ]

    @property
    def _is_numbered(self) -> bool:
        return self.node.log.is_numbered(self.node.info.number)

    def lane(self, end: int) -> list[int]:
        """Return how many frames came in each part of the recording."""
        bins = int(np.clip(len(self) / 8, 12, LANE))  # of few frames wide ones
        edges = np.linspace(self.zero, self.zero + max(end, 1), bins + 1)
        counts, _ = np.histogram(self.stamps, edges)
        found: list[int] = (counts * self.step).tolist()
        return found

    def intervals(self) -> NDArray[np.uint32]:
        """Return how often each time between frames came, in bins as a tap's."""
        steps = np.diff(self.stamps) // self.step
        steps = steps[steps > 0]
        places = (np.log10(steps) - FIRST_BIN) * BINS_A_DECADE
        places = np.clip(np.floor(places), 0, BIN_COUNT - 1).astype(np.intp)
        return np.bincount(places, minlength=BIN_COUNT).astype(np.uint32)

    def nearest(self, at: int) -> int:
        """Return the row of the entry nearest to a time since the beginning."""
        wanted = at + self.zero
        after = int(self._entries_before(np.array([wanted]))[0])
        if after in (0, len(self)):
            return min(after, len(self) - 1)
        before, behind = self._stamps_of(np.array([after - 1, after])).tolist()
        return after - int(wanted - before < behind - wanted)

    def picture(self, at: int) -> tuple[int, int, NDArray[Any]] | None:
        """Return number, time since the beginning, and pixels of the nearest frame."""
        if self.series is None or not len(self):
            return None
        row = self.nearest(at)
        pixels = self.series.read(slice(row, row + 1))[0]
        when = int(self._stamps_of(np.array([row]))[0]) - self.zero
        return row, max(when, 0), pixels[-1] if self.series.is_blocks else pixels

    def _stamps_of(self, rows: Ints) -> Ints:
        if self.step == 1:
            return self.stamps[rows]
        assert self.series is not None
        return np.asarray(self.series.time(rows)).astype(np.int64)

    def _entries_before(self, times: Ints) -> Ints:
        """Return how many entries are before each time, which increase."""
        found = np.searchsorted(self.stamps, times)
        if self.step == 1:
            return np.asarray(found, np.int64)
        low = np.maximum(found - 1, 0) * self.step
        high = np.minimum(found * self.step, len(self))
        return _bisected(low, high, times, self._stamps_of)

    # ---- its samples

    @cached_property
    def samples(self) -> Samples:
        """Its samples; the first use finds their times."""
        return Samples(self.node, is_quick=True)

    @cached_property
    def levels(self) -> Levels:
        """Its columns at every scale."""
        return Levels(self.samples, self._home, identity_of(self.node))

    @property
    def is_whole(self) -> bool:
        """Whether the columns of every scale are made."""
        return self.levels.is_whole

    @property
    def share(self) -> float:
        """Share of the samples whose columns are made."""
        return self.levels.until / max(len(self.samples), 1)

    @cached_property
    def limits(self) -> tuple[int, int]:
        """When its first sample was, and when behind its last one."""
        count = len(self.samples)
        if not count:
            return 0, 0
        ends = self.samples.at(np.array([0, count - 1])).astype(np.int64) - self.zero
        rate = self.about["rate"] if self.samples.is_blocks else None
        return int(ends[0]), int(ends[1]) + (round(1e9 / rate) if rate else 1)

    def _before(self, times: Ints) -> Ints:
        """Return how many samples are before each time since the beginning."""
        wanted = times + self.zero
        if not self.samples.is_blocks:
            return self._entries_before(wanted)
        found: Ints = self.samples.times.search(wanted)  # type: ignore[attr-defined]
        return np.maximum.accumulate(found)

    def columns(self, start: int, stop: int, most: int) -> ColumnSpan:
        """Return columns of a span, ns since the beginning; `most` of them, or so.

        Before the stream's first sample and behind its last one there are none.
        Each has the exact minimum and maximum of its samples. An edge of a column of
        many samples lies where one of its level does: at most an eighth of it apart.
        """
        samples, whole = self.samples, max(stop - start, 1)
        start, stop = max(start, self.limits[0]), min(stop, self.limits[1])
        if stop <= start:
            none = np.empty((0, samples.channels), samples.dtype)
            return ColumnSpan(start, 1.0, *_drawn(none, none), True, False)
        length, rate = stop - start, self.about["rate"]
        most = max(1, round(most * length / whole))
        is_rated = rate is not None and samples.is_blocks
        if is_rated and length * rate * 1e-9 < _CLOSE * most:
            return self._near(start, stop, most, 1e9 / rate)
        edges = start + np.arange(most + 1) * (length / most)
        rows = self._before(np.rint(edges).astype(np.int64))
        nbytes = int(rows[-1] - rows[0]) * samples.channels * samples.dtype.itemsize
        is_exact = True
        if nbytes <= _READ_AT_MOST:
            where = np.repeat(np.arange(most), np.diff(rows))
            values = samples.read(int(rows[0]), int(rows[-1]))
            low, high = reduced(values, where, most)
        else:
            low, high, is_exact = self._far(rows)
        if not is_rated and 0 < rows[0] == rows[1]:  # the last value holds until now
            low[0] = high[0] = samples.read(int(rows[0]) - 1, int(rows[0]))[0]
        return ColumnSpan(
            start, length / most, *_drawn(low, high), is_exact, bool(is_rated)
        )

    def _near(self, start: int, stop: int, most: int, interval: float) -> ColumnSpan:
        """Return columns of one or a few samples each, by the samples' own times."""
        samples = self.samples
        each = max(1, int(np.ceil((stop - start) / interval / most)))
        margin = int(2 * each * interval)
        low, high = self._before(np.array([start - margin, stop + margin])).tolist()
        times = samples.at(np.arange(low, high)).astype(np.int64) - self.zero
        if len(times) > 1:
            interval = float(np.median(np.diff(times)))
            if not samples.is_fitted:
                times = _straight(times, samples.positions(low, high), interval)
        ns = each * interval
        anchor = (float(times[0]) if len(times) else start) - interval / 2
        first = anchor + np.floor((start - anchor) / ns) * ns
        count = int(np.ceil((stop - first) / ns))
        where = np.floor((times - first) / ns).astype(np.int64)
        is_in = (where >= 0) & (where < count)
        where = np.maximum.accumulate(where[is_in])
        at = low + int(np.argmax(is_in)) if is_in.any() else low
        values = samples.read(at, at + len(where))
        bounds = reduced(values, where, count)
        return ColumnSpan(round(first), ns, *_drawn(*bounds), True, True)

    def _far(self, rows: Ints) -> tuple[NDArray[Any], NDArray[Any], bool]:
        """Return columns of the samples between each two rows, by the levels."""
        samples, levels, count = self.samples, self.levels, len(rows) - 1
        low_of, high_of = empty_bounds(samples.dtype)
        low = np.full((count, samples.channels), low_of, samples.dtype)
        high = np.full((count, samples.channels), high_of, samples.dtype)
        where = np.array([self._position(row) for row in rows.tolist()])
        level, size = levels.size_for(int(where[-1] - where[0]) // count)
        until = levels.until
        cut = (where + size // 2) // size
        if rows[-1] == len(samples):
            cut[-1] = -(-where[-1] // size)
        has_some, has_columns = np.diff(rows) > 0, np.diff(cut) > 0
        is_made = rows[1:] <= until
        own = np.flatnonzero(has_some & has_columns & is_made)
        if len(own):
            first = int(cut[own[0]])
            part = levels.read(level, first, int(cut[own[-1] + 1]))
            # Between two columns that are shown may be others, of samples before.
            starts = np.stack([cut[own], cut[own + 1]], 1).ravel() - first
            least, most = _extremes(part, starts)
            low[own], high[own] = least, most
        for k in np.flatnonzero(has_some & ~has_columns & is_made)[:_ODD].tolist():
            values = samples.read(int(rows[k]), int(rows[k + 1]))
            low[k], high[k] = (
                bound[0] for bound in reduced(values, np.zeros(len(values), int), 1)
            )
        rest = np.flatnonzero(has_some & ~is_made)
        if len(rest):
            self._sample(rest, rows, low, high)
        return low, high, not len(rest)

    def _position(self, row: int) -> int:
        """Return the place of a sample, lost ones counted; of the end: behind it."""
        last = len(self.samples) - 1
        found = int(self.samples.positions(min(row, last), min(row, last) + 1)[0])
        return found - self.levels.begin + (row > last)

    def _sample(
        self, which: Ints, rows: Ints, low: NDArray[Any], high: NDArray[Any]
    ) -> None:
        """Show a few samples of some columns; those that took too long are as others.

        Every 16th column comes first, so that a slow disk shows a picture, too.
        """
        deadline = time.monotonic() + _PATIENCE_S
        done = np.zeros(len(which), bool)
        for step in (16, 4, 1):
            for k in range(0, len(which), step):
                if done[k] or (time.monotonic() > deadline and done.any()):
                    continue
                at = int(which[k])
                most = min(_FEW, int(rows[at + 1] - rows[at]))
                values = self.samples.few(int(rows[at]), most)
                bounds = reduced(values, np.zeros(len(values), int), 1)
                low[at], high[at], done[k] = bounds[0][0], bounds[1][0], True
        before = np.maximum.accumulate(np.where(done, np.arange(len(which)), 0))
        low[which], high[which] = low[which[before]], high[which[before]]

    def close(self) -> None:
        """Close the files of its columns."""
        if "levels" in self.__dict__:
            self.levels.close()


def _straight(times: Ints, positions: Ints, interval: float) -> Ints:
    """Return times without the jitter of arrivals, if they are near one line."""
    line = (positions - positions[0]) * interval
    away = times - line
    middle = np.median(away)
    if np.abs(away - middle).max() > _JITTER_NS:
        return times
    return np.asarray(np.rint(line + middle), np.int64)


def _bisected(low: Ints, high: Ints, times: Ints, at: Callable[[Ints], Ints]) -> Ints:
    """Return how many rows are before each time, between two rows each."""
    low, high = low.copy(), high.copy()
    while (is_open := low < high).any():
        middle = (low + high) // 2
        is_less = is_open & (at(np.where(is_open, middle, 0)) < times)
        low = np.where(is_less, middle + 1, low)
        high = np.where(is_open & ~is_less, middle, high)
    return low


def _extremes(part: NDArray[Any], starts: Ints) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the extremes of parts; `starts` are their beginnings and ends, in turn."""
    is_float = part.dtype.kind == "f"
    least, most = (np.fmin, np.fmax) if is_float else (np.minimum, np.maximum)
    starts = np.minimum(starts[:-1], len(part) - 1)  # the last one ends with them
    return (
        least.reduceat(part[:, 0], starts, 0)[::2],
        most.reduceat(part[:, 1], starts, 0)[::2],
    )


def _drawn(low: NDArray[Any], high: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return bounds in the dtype that a bundle carries; what is empty stays so."""
    dtype = drawn_dtype(low.dtype)
    assert dtype is not None
    return (
        (low, high) if dtype == low.dtype else (low.astype(dtype), high.astype(dtype))
    )


class RecordedSession:
    """A recording as a page shows it.

    Parameters
    ----------
    path : str or Path
        The directory of a session, or another log of ataraxis.

    Raises
    ------
    FileNotFoundError
        The path has no log.

    Examples
    --------
    >>> import tempfile
    >>> from ataraxis.log import JournalWriter
    >>> directory = tempfile.TemporaryDirectory()
    >>> labels = Labels("i2", (100, 2), ("time", "channel"),
    ...                 attrs={"sample_rate_hz": 1000})
    >>> with JournalWriter(directory.name, "probe") as journal:
    ...     journal.describe(1, "probe", labels)
    ...     blocks = np.arange(2000, dtype="i2").reshape(10, 100, 2)
    ...     _ = journal.log_block(1, blocks, time_ns=10**8 * np.arange(1, 11))
    >>> session = RecordedSession(directory.name)
    >>> seen = session.streams["probe"].columns(0, session.end, 5)
    >>> seen.high[:, 1].tolist(), seen.is_exact
    ([399, 799, 1199, 1599, 1999], True)
    >>> session.close(), directory.cleanup()
    (None, None)
    """

    def __init__(self, path: str | Path) -> None:
        self.home = Path(path)
        self._nodes = Nodes(self.home)
        found = [RecordedStream(node, self.home) for node in self._nodes]
        self.streams = {stream.name: stream for stream in found}
        """By their names."""
        some = [stream for stream in found if len(stream.stamps)]
        firsts = [int(s.stamps[0]) - _ahead(s) for s in some]
        self.begin = min(firsts, default=0)
        """Time of the first sample, ns of the recording's clock."""
        last = max((int(stream.stamps[-1]) for stream in some), default=0)
        self.end = max(last - self.begin + 1, 1)
        """Behind its last sample, ns since its first."""
        self.shift_ns = some[0].shift_ns if some else 0
        self.is_wall = (
            bool(some)
            and some[0].series is not None
            and (some[0].series.times.dtype.kind == "M")
        )
        for stream in found:
            stream.zero = self.begin

    @cached_property
    def verdict(self) -> dict[str, str]:
        """The session's verdict in words, and its tone."""
        try:
            found = SessionFolder(self.home).verdict()
        except (OSError, ValueError):
            found = None
        lost = sum(count for s in self.streams.values() for *_, count in s.gaps)
        if found is None:
            said = f"{lost:,} frames missing" if lost else "nothing missing"
            return {"tone": "bad" if lost else "", "text": f"not judged · {said}"}
        if found.is_trusted:
            return {"tone": "good", "text": "trusted · nothing missing"}
        missing = sum(stream.missing for stream in found.streams)
        said = f" · {missing:,} frames missing" if missing else ""
        return {"tone": "bad", "text": f"not to be trusted{said}"}

    def words(self) -> dict[str, Any]:
        """Return what a page needs to know, JSON-able; times since the beginning."""
        streams = [s for s in self.streams.values() if s.name != EVENTS]
        return {
            "recording": {
                "name": self.home.absolute().name, "path": str(self.home.absolute()),
                "end": self.end, "length": span(self.end * 1e-9),
                "begin_ms": self.begin // 10**6 if self.is_wall else None,
                "size": size_of(self.home),
                "events": len(self.events[0]), "notes": self._notes(),
            },
            "streams": [self._line(stream) for stream in streams],
            "labels": {stream.name: stream.about for stream in streams},
            "lanes": {s.name: s.lane(self.end) for s in streams if len(s)},
            "marks": self._marks(),
            "gaps": {
                s.name: [[a - self.begin, b - self.begin, n] for a, b, n in s.gaps]
                for s in streams if s.gaps
            },
            "verdict": self.verdict,
        }  # fmt: skip

    def _line(self, stream: RecordedStream) -> dict[str, Any]:
        stamps = stream.stamps
        length = int(stamps[-1] - stamps[0]) * 1e-9 if len(stamps) > 1 else 0.0
        return {
            "name": stream.name, "id": stream.name, "problem": stream.problem,
            "what": stream.about["what"], "kind": stream.kind if len(stream) else "",
            "frames": len(stream), "span_s": length,
            "hz": (len(stream) - 1) / length if length else None,
            "lost": sum(count for *_, count in stream.gaps),
        }  # fmt: skip

    def _notes(self) -> list[list[Any]]:
        """Return the lines of the session's log: when, ns, and what."""
        found: list[list[Any]] = []
        try:
            lines = (self.home / "session.log").read_text("utf-8", "replace")
        except OSError:
            return found
        for line in lines.splitlines()[-_MOST_EVENTS:]:
            parts = line.split(" ", 2)
            if len(parts) == 3 and parts[1].isdigit():
                at = int(parts[1]) + self.shift_ns - self.begin
                found.append([at, parts[2][:_MOST_TEXT]])
        return found

    # ---- events

    @cached_property
    def events(self) -> tuple[Ints, list[str]]:
        """Times of the events since the beginning, ns, and their names."""
        stream = self.streams.get(EVENTS)
        none: tuple[Ints, list[str]] = np.empty(0, np.int64), []
        if stream is None or stream.series is None or stream.step > 1:
            return none
        names = stream.series.dtype.names
        if names is None or "event" not in names:
            return none
        found = stream.series.read(slice(None), lambda rows: rows["event"])
        return stream.stamps - self.begin, [str(name) for name in found]

    def _marks(self) -> list[list[Any]]:
        """Return some events of the whole recording, for its lane."""
        times, names = self.events
        step = max(1, -(-len(times) // _MOST_EVENTS))
        return [
            [t, n[:24]] for t, n in zip(times[::step].tolist(), names[::step],
                                        strict=True)
        ]  # fmt: skip

    def events_in(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Return the events of a span: all, or every n-th of very many."""
        times, names = self.events
        low, high = np.searchsorted(times, [start, stop]).tolist()
        step = max(1, -(-(high - low) // _MOST_EVENTS))
        return [
            {"time_ns": int(times[k]), "name": names[k][:_MOST_TEXT]}
            for k in range(low, high, step)
        ]

    def close(self) -> None:
        """Close the files."""
        for stream in self.streams.values():
            stream.close()
        self._nodes.close()


def _ahead(stream: RecordedStream) -> int:
    """Return how long before its stamp the first frame began, ns."""
    series = stream.series
    if series is None or not series.is_blocks:
        return 0
    rate = sample_rate(series.attrs)
    return round((series.shape[0] - 1) / rate * 1e9) if rate else 0


def size_of(home: Path) -> str:
    """Return the size of the files of a recording, in words."""
    files = home.glob("*") if home.is_dir() else [home]
    total = float(sum(f.stat().st_size for f in files if f.is_file()))
    for unit in ("bytes", "kB", "MB", "GB"):
        if total < 1000:
            return f"{total:.3g} {unit}"
        total /= 1000
    return f"{total:.3g} TB"
