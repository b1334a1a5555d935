"""Tap: the one lossy reader of a stream, for all pages, and what it has cut so far."""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis._kernels.consumer import Frame
from ataraxis.clock import now_ns
from ataraxis.errors import EndOfStream
from ataraxis.labels import Labels
from ataraxis.shm.context import ContextLike
from ataraxis.stream import Consumer
from ataraxis.stream.samples import SampleLayout
from ataraxis.stream.statistics import VIEWER
from ataraxis.viewer.columns import ColumnSeries, drawn_dtype, factor_of
from ataraxis.viewer.filters import (
    HighPass,
    MedianReference,
    Spectrum,
    make_filter,
)

LABEL = VIEWER
"""Label of viewers among the readers of a stream."""
MOST_CHANNELS = 4096
MOST_COLUMNS = 8192
_ROWS = 4096
_BUDGET_NS = 20_000_000
_SERIES_BYTES = 64_000_000
_LATE_NS = 100_000_000
_UNUSED_S = 60.0
_DRIFT = 5e-4
_JUMP_NS = 10**9
FIRST_BIN, BINS_A_DECADE, BIN_COUNT = 3, 10, 80
"""Bins of intervals: from 10**3 ns on, 10 for each power of ten, up to 100 s."""
_KEPT_S = 10


def shown_as(labels: Labels, is_typed: bool) -> str:
    """Return how a stream of these labels is shown: 'traces', 'picture' or ''.

    Examples
    --------
    >>> shown_as(Labels("i2", (300, 64), ("time", "channel")), True)
    'traces'
    >>> shown_as(Labels("u1", (480, 640), ("y", "x")), True)
    'picture'
    """
    if not is_typed or drawn_dtype(labels.dtype) is None:
        return ""
    shape = SampleLayout.of(labels).shape
    if len(shape) <= 1 and 0 < math.prod(shape) <= MOST_CHANNELS:
        return "traces"
    is_image = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))
    return "picture" if is_image and math.prod(shape) > 0 else ""


class Tap:
    """Reads a stream for all pages, and loses what it is too slow for.

    A frame is cut or copied, and released, before anything else is done: while it is
    held, its slot cannot be used.

    Parameters
    ----------
    name : str
        Name of the stream.
    context : Context, str, Path or None
        Context of the stream.
    history_s : float
        How long columns are kept, s.

    Raises
    ------
    AtaraxisError, OSError
        The stream cannot be read.
    """

    def __init__(self, name: str, context: ContextLike, history_s: float) -> None:
        self.reader = Consumer(
            name, policy="lossy", start="latest", label=LABEL, context=context
        )
        self.name, self.stream_id = name, self.reader.stream_id
        self.labels = self.reader.labels
        self.layout = SampleLayout.of(self.labels)
        self.kind = shown_as(self.labels, self.reader.is_typed)
        self.channels = math.prod(self.layout.shape)
        self.rate = self.layout.rate
        self.intervals = Intervals()
        self.series: dict[tuple[str, int], ColumnSeries] = {}
        self._used_s: dict[tuple[str, int], float] = {}
        self._spectra: dict[tuple[str, int], Spectrum] = {}
        self._filters: dict[str, HighPass | MedianReference] = {}
        self.picture: tuple[int, int, NDArray[Any]] | None = None
        """Sequence, time and pixels of the newest frame, if it is a picture."""
        self._history_s = history_s
        self._sequence: int | None = None
        self._position = 0
        self._offset: float | None = None
        self._time_ns = 0
        self._is_whole = True

    @property
    def is_open(self) -> bool:
        """Whether it still reads; else it keeps what it has read."""
        return self._is_open

    @property
    def missed(self) -> int:
        """Frames that it was too slow for."""
        if self._is_open:
            self._missed = self.reader.dropped_count
        return self._missed

    def close(self) -> None:
        """Leave the stream; what was read is kept."""
        self._missed, self._is_open = self.missed, False
        self.reader.close()

    _is_open = True
    _missed = 0

    # ---- series

    def series_of(
        self, seconds: float, columns: int, filter_name: str = ""
    ) -> tuple[str, int]:
        """Return the key in `series` of columns that fit `columns` in `seconds`.

        It is the name of the filter that is used, and the factor in samples; without a
        rate, minus the length in ns.
        """
        columns = min(max(columns, 1), MOST_COLUMNS)
        if self.rate is not None:
            key = factor_of(self.rate * seconds, columns)
        else:
            key = -factor_of(seconds * 1e9, columns)
        made = make_filter(filter_name, self.rate)
        if made is None:
            filter_name = ""
        else:
            self._filters.setdefault(filter_name, made)
        found = filter_name, key
        if found not in self.series:
            dtype = np.dtype("f4") if filter_name else drawn_dtype(self.labels.dtype)
            assert dtype is not None
            length = max(self._history_s, seconds) * 1e9 / self.ns_a_column(found)
            kept = _SERIES_BYTES // (2 * self.channels * dtype.itemsize)
            capacity = min(math.ceil(length) + 2, max(kept, 2 * columns))
            factor = max(key, 1)
            self.series[found] = ColumnSeries(factor, self.channels, dtype, capacity)
        return found

    def spectrum_of(self, channel: int) -> tuple[str, int] | None:
        """Return the key in `series` of the spectrum of a channel; None: no rate."""
        if self.rate is None or not 0 <= channel < self.channels:
            return None
        spectrum = Spectrum(channel, self.rate)
        key = f"spectrum of {channel}", spectrum.hop
        if key not in self.series:
            self._spectra[key] = spectrum
            length = math.ceil(self._history_s * self.rate / spectrum.hop) + 2
            self.series[key] = ColumnSeries(
                spectrum.hop, spectrum.bins, np.dtype("f4"), length
            )
        return key

    def drop_unused(self, used: Collection[tuple[str, int] | None]) -> None:
        """Drop the series that no panel has used for a minute."""
        now = time.monotonic()
        for key in list(self.series):
            if key in used:
                self._used_s[key] = now
            elif now - self._used_s.setdefault(key, now) > _UNUSED_S:
                del self.series[key], self._used_s[key]
                self._spectra.pop(key, None)
        for name in self._filters.keys() - {name for name, _ in self.series}:
            del self._filters[name]

    def ns_a_column(self, key: tuple[str, int]) -> float:
        """Return how long a column is, ns."""
        _, factor = key
        return factor * 1e9 / self.rate if self.rate is not None else float(-factor)

    def time_of(self, key: tuple[str, int], column: int) -> int:
        """Return when a column begins, monotonic ns, as the stamps say."""
        return int(column * self.ns_a_column(key) + (self._offset or 0.0))

    # ---- reading

    def drain(self) -> bool:
        """Take what has come; return False once the stream has ended."""
        is_single = self.kind == "traces" and not self.layout.are_blocks
        end = now_ns() + _BUDGET_NS
        while now_ns() < end:
            if not (self._take_samples() if is_single else self._take_frame()):
                break
        else:
            return True
        if self.rate is None:
            for (_, factor), series in self.series.items():
                series.advance((now_ns() - _LATE_NS) // -factor)
        return self.reader.has_next

    def _take_frame(self) -> bool:
        frame = self.reader.receive(False)
        if frame is None:
            return False
        with frame:
            sequence, time_ns = frame.sequence, frame.time_ns
            self.intervals.add(sequence, np.array([time_ns]))
            if self.kind == "picture":
                self._keep(frame)
            elif self.kind == "traces":
                self._cut(frame.array, sequence, time_ns)
        return True

    def _keep(self, frame: Frame) -> None:
        pixels = frame.array
        if self.layout.are_blocks:
            pixels = pixels[-1]
        if pixels.shape == self.layout.shape:
            self.picture = frame.sequence, frame.time_ns, pixels.copy()

    def _take_samples(self) -> bool:
        try:
            block = self.reader.read_block(_ROWS, timeout=0)
        except (TimeoutError, EndOfStream):
            return False
        except ValueError:  # a frame of another shape
            return self._skip()
        if block.sequence is None:
            return False
        self.intervals.add(block.sequence, block.time_ns)
        rows = block.data.reshape(len(block), self.channels)
        self._place(block.sequence, int(block.time_ns[-1]), len(rows))
        self._add(rows, block.time_ns)
        return True

    def _skip(self) -> bool:
        frame = self.reader.receive(False)
        if frame is not None:
            frame.release()
        return frame is not None

    def _cut(self, array: NDArray[Any], sequence: int, time_ns: int) -> None:
        shape = array.shape[1:] if self.layout.are_blocks else array.shape
        if shape != self.layout.shape or not len(array):
            return
        rows = array.reshape(-1, self.channels)
        last_ns = time_ns
        if self.layout.stamp != "arrival" and self.rate is not None:
            last_ns += int((len(rows) - 1) * 1e9 / self.rate)
        self._place(sequence, last_ns, len(rows))
        self._add(rows, np.full(len(rows), last_ns) if self.rate is None else None)

    def _place(self, sequence: int, last_ns: int, count: int) -> None:
        """Set the position of the first of `count` samples, by what was lost before."""
        whole = self.layout.whole
        if self._sequence is None:
            self._position = sequence * whole
        elif lost := sequence - self._sequence:
            samples = lost * whole
            if not self._is_whole and self.rate is not None:
                passed = (last_ns - self._time_ns) * 1e-9 * self.rate
                samples = max(round(passed) - count, 0)
            self._position += samples
        self._is_whole &= count == whole or not self.layout.are_blocks
        self._sequence, self._time_ns = sequence + 1, last_ns
        if not self.layout.are_blocks:
            self._sequence = sequence + count
        if self.rate is None:
            return
        found = last_ns - (self._position + count - 1) * 1e9 / self.rate
        before = self._offset
        if before is None or abs(found - before) > _JUMP_NS:
            self._offset = found
        else:  # stamps are late, never early: the least is followed
            drift = _DRIFT * count * 1e9 / self.rate
            self._offset = min(found, before + drift)

    def _add(self, rows: NDArray[Any], times: NDArray[np.int64] | None) -> None:
        dtype = drawn_dtype(self.labels.dtype)
        if rows.dtype != dtype:
            rows = rows.astype(dtype)
        by_filter = {"": rows}
        for name, apply in self._filters.items():
            by_filter[name] = apply(self._position, rows)
        for key, spectrum in self._spectra.items():
            self.series[key].add_at(*spectrum(self._position, rows))
        for (name, factor), series in self.series.items():
            if (name, factor) in self._spectra:
                continue
            if factor > 0:
                series.add(self._position, by_filter[name])
            elif times is not None:
                columns = np.maximum.accumulate(times) // -factor
                series.add_at(columns, by_filter[name])
        self._position += len(rows)


class Intervals:
    """Counts of the times between the stamps of frames, of the last 10 s.

    Examples
    --------
    >>> intervals = Intervals()
    >>> intervals.add(0, np.array([0, 10_000_000, 20_000_000]))
    >>> counts = intervals.counts()
    >>> int(counts.argmax()), int(counts.sum())
    (40, 2)
    """

    def __init__(self) -> None:
        self._sequence, self._time = -1, 0
        self._seconds = np.zeros((_KEPT_S, BIN_COUNT), np.uint32)
        self._second = now_ns() // 10**9

    def add(self, sequence: int, times: NDArray[np.int64]) -> None:
        """Count frames that follow each other, from `sequence` on."""
        if sequence == self._sequence:
            times = np.concatenate([[self._time], times])
        steps = np.diff(times)
        self._sequence = sequence + len(times) - (sequence == self._sequence)
        self._time = int(times[-1])
        if len(steps):
            places = (np.log10(np.maximum(steps, 1)) - FIRST_BIN) * BINS_A_DECADE
            places = np.clip(np.floor(places), 0, BIN_COUNT - 1).astype(np.intp)
            np.add.at(self._row(), places, 1)

    def _row(self) -> NDArray[np.uint32]:
        """Return the counts of this second; forget those of 10 s ago."""
        second = now_ns() // 10**9
        for old in range(max(self._second + 1, second - _KEPT_S + 1), second + 1):
            self._seconds[old % _KEPT_S] = 0
        self._second = second
        row: NDArray[np.uint32] = self._seconds[second % _KEPT_S]
        return row

    def counts(self) -> NDArray[np.uint32]:
        """Return the counts of all bins."""
        self._row()
        found: NDArray[np.uint32] = self._seconds.sum(axis=0, dtype=np.uint32)
        return found
