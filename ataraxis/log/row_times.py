"""Row times: the time of each row of a dataset, and rows by time.

A row is an entry, or a sample of a source of blocks.
"""

from __future__ import annotations

import difflib
import threading
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ataraxis.labels import sample_rate, stamp_of
from ataraxis.log.device import PER_S, UNITS
from ataraxis.log.fits import (
    DEVICE_TIME,
    NUMBERS,
    POSITIONS,
    SourceFit,
    fit_of_frames,
    frames_of,
    load_fit,
    numbers_of,
)
from ataraxis.log.rows import PIECE_BYTES, Take, in_pieces
from ataraxis.log.sample_axis import FrameTimes, SampleAxis, axis_of, rate_of
from ataraxis.log.series import Series

Ints = NDArray[np.int64]
KINDS = ("fitted", "host", "device")


def checked_kind(time: str | None) -> str | None:
    """Return the name of a clock, or refuse it."""
    if time is None or time in KINDS:
        return time
    close = difflib.get_close_matches(str(time), KINDS, 1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"time must be one of {', '.join(KINDS)}, got {time!r}{hint}")


class RowTimes(Protocol):
    """Times of rows; `start` and `stop` of `find` are integers of `dtype`."""

    title: str
    """Name of the source, for messages."""
    dtype: np.dtype[Any]
    """Of the times."""
    attrs: dict[str, Any]
    """Attributes of the coordinate."""

    def __len__(self) -> int: ...
    def at(self, rows: Ints) -> NDArray[Any]:
        """Return the times of rows, (n,), of `dtype`."""

    def find(self, start: int | None, stop: int | None) -> slice | Ints:
        """Return the rows from `start` to before `stop`."""

    @property
    def is_sorted(self) -> bool:
        """Whether times may have an index: they do not go back."""


class EntryTimes:
    """Stamps of entries, looked up on disk."""

    is_sorted = True  # an index of entries is used as it is

    def __init__(self, series: Series) -> None:
        self._series, self.title = series, series.title
        self.dtype, self.attrs = series.times.dtype, series.times.attrs

    def __len__(self) -> int:
        return len(self._series)

    def at(self, rows: Ints) -> NDArray[Any]:
        """Return the times of rows, (n,), of `dtype`."""
        return self._series.time(rows)

    def find(self, start: int | None, stop: int | None) -> slice | Ints:
        """Return the rows from `start` to before `stop`."""
        return self._series.between(start, stop)


class ConvertedTimes:
    """Times of entries by their device's clock, converted at the first use.

    With a fit of `NUMBERS` the fitted ones are those of the pulses of its frames.
    """

    is_sorted = True

    def __init__(self, series: Series, kind: str, saved: SourceFit | None) -> None:
        self._series, self._kind, self._saved = series, kind, saved
        self.title, self._lock = series.title, threading.Lock()
        is_host = kind == "fitted"
        self.dtype = series.times.dtype if is_host else np.dtype("m8[ns]")
        self.attrs = {**series.times.attrs, "clock": kind} if is_host else _of_device()
        self._is_numbered = is_host and saved is not None and saved.of in NUMBERS
        unit = PER_S.get(str(series.attrs.get(UNITS)))
        if not self._is_numbered and (not series.has_device or unit is None):
            raise ValueError(
                f"{self.title} has no device times of a known unit "
                f"(attrs[{UNITS!r}]): open it with time='host'"
            )
        self._ns = 10**9 // (unit or 1)

    def __len__(self) -> int:
        return len(self._series)

    @cached_property
    def _times(self) -> Ints:
        frames = frames_of(self._series, _end(self._series))
        if self._is_numbered:
            return self._pulsed(frames)[_begin(self._series) :]
        if frames.device is None:
            raise ValueError(
                f"not every entry of {self.title} has a device time: open it with "
                "time='host'"
            )
        device = frames.device[:, 0]
        if self._kind == "device":
            made = device * self._ns
        else:
            saved = _usable(self._saved, DEVICE_TIME, frames)
            saved = saved or fit_of_frames(self._series, frames)
            made = saved.fit.to_host_ns(device, near_ns=frames.time_ns)
            made = made + frames.shift_ns
        return np.asarray(made[_begin(self._series) :])

    def _pulsed(self, frames: FrameTimes) -> Ints:
        """Return the time of each frame by its number."""
        assert self._saved is not None
        try:
            numbers = numbers_of(frames, self._saved.of)
        except ValueError as error:
            raise ValueError(
                f"{self.title} has no fitted times: {error}; open it with time='host'"
            ) from error
        made = self._saved.fit.to_host_ns(numbers, near_ns=frames.time_ns)
        return np.asarray(made + frames.shift_ns)

    def at(self, rows: Ints) -> NDArray[Any]:
        """Return the times of rows, (n,), of `dtype`."""
        with self._lock:
            return self._times[rows].view(self.dtype)

    def find(self, start: int | None, stop: int | None) -> slice | Ints:
        """Return the rows from `start` to before `stop`."""
        with self._lock:
            times = self._times
        is_in = np.ones(len(times), bool)
        if start is not None:
            is_in &= times >= start
        if stop is not None:
            is_in &= times < stop
        return np.flatnonzero(is_in)


class SampleTimes:
    """Times of the samples of blocks; nothing is read before the first use.

    With `kind` None it is the fitted one, or, if the stamps cannot be fitted, that of
    the host.
    """

    def __init__(
        self, series: Series, kind: str | None, saved: SourceFit | None
    ) -> None:
        self._series, self._kind, self._saved = series, kind, saved
        self.title, self._lock = series.title, threading.Lock()
        self.blocks = series.blocks()
        is_device = kind == "device"
        self.dtype = np.dtype("m8[ns]") if is_device else series.times.dtype
        self.attrs = _of_device() if is_device else {
            **series.times.attrs, "clock": kind or "fitted"
        }  # fmt: skip
        self._per_s = PER_S.get(str(series.attrs.get(UNITS)))
        if is_device and (not series.has_device or self._per_s is None):
            raise ValueError(
                f"{self.title} has no device times of a known unit "
                f"(attrs[{UNITS!r}]): open it with time='fitted' or 'host'"
            )

    def __len__(self) -> int:
        return len(self.blocks)

    @cached_property
    def _made(self) -> SampleAxis:
        series = self._series
        frames = frames_of(series, _end(series))
        kind_of_stamp = stamp_of(series.attrs)
        kind = self._kind or "fitted"
        if kind == "fitted":
            saved = _usable(self._saved, POSITIONS, frames)
            try:
                return axis_of(
                    frames, series.attrs, None if saved is None else saved.fit
                )
            except ValueError as error:
                if self._kind is not None or not len(frames):
                    raise
                warnings.warn(
                    f"the times of {self.title} are those of the host: {error}",
                    RuntimeWarning,
                    stacklevel=2,
                )
        declared = sample_rate(series.attrs)
        positions = frames.positions(declared, series.attrs)
        rate = declared or rate_of(frames, positions, declared, kind_of_stamp)
        if kind != "device":
            stamps = frames.time_ns + frames.shift_ns
            return SampleAxis.stamped(frames, positions, stamps, rate, kind_of_stamp)
        if frames.device is None:
            raise ValueError(
                f"not every entry of {self.title} has a device time: open it with "
                "time='fitted' or 'host'"
            )
        assert self._per_s is not None
        stamps = frames.device[:, 0] * (10**9 // self._per_s)
        return SampleAxis.stamped(frames, positions, stamps, rate, "sample")

    @property
    def axis(self) -> SampleAxis:
        """Times and positions of the samples of the whole source, by number."""
        with self._lock:
            return self._made

    @cached_property
    def first(self) -> int:
        """Number of the first sample within the whole source."""
        begin = _begin(self._series)
        if not begin:
            return 0
        return len(self._series.whole(begin).blocks())

    def read(self, rows: slice | Ints, take: Take | None = None) -> NDArray[Any]:
        """Read samples into an array: a copy. `take` is as that of `Series.read`."""
        self._series.check_open()
        blocks = self.blocks
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(blocks))
            if step == 1 and take is None:
                return blocks.read(start, max(stop, start))
            rows = np.arange(start, stop, step, dtype=np.int64)
        each = max(1, PIECE_BYTES // max(blocks.sample_bytes, 1))
        return in_pieces(rows, each, blocks.take, take)

    def at(self, rows: Ints) -> NDArray[Any]:
        """Return the times of samples, (n,), of `dtype`."""
        if not len(rows):
            return np.empty(0, self.dtype)
        return self.axis.at(rows + self.first).view(self.dtype)

    def positions(self, rows: Ints) -> Ints:
        """Return the positions of samples, (n,): lost ones count."""
        if not len(rows):
            return np.empty(0, np.int64)
        return self.axis.position(rows + self.first)

    def find(self, start: int | None, stop: int | None) -> slice | Ints:
        """Return the samples from `start` to before `stop`."""
        if not len(self):
            return slice(0, 0)
        found = self.axis.find(start, stop)
        last = self.first + len(self)
        if isinstance(found, slice):
            low = min(max(found.start, self.first), last) - self.first
            return slice(low, max(min(found.stop, last) - self.first, low))
        return found[(found >= self.first) & (found < last)] - self.first

    def search(self, times_ns: Ints) -> Ints:
        """Return how many samples are before each time; they must be sorted."""
        found = self.axis.search(times_ns) - self.first
        return np.asarray(np.clip(found, 0, len(self)))

    @property
    def is_sorted(self) -> bool:
        """Whether times increase from the first sample to the last."""
        return not len(self) or self.axis.is_sorted


def _of_device() -> dict[str, Any]:
    return {"long_name": "time of the device", "axis": "T", "clock": "device"}


def _begin(series: Series) -> int:
    """Return the row of the whole source at which a series begins."""
    if not len(series):
        return 0
    whole = series.whole()
    return int(whole.rows_of(series.numbers(slice(0, 1)))[0])


def _end(series: Series) -> int:
    """Return the row of the whole source behind a series."""
    return _begin(series) + len(series)


def _usable(saved: SourceFit | None, of: str, frames: FrameTimes) -> SourceFit | None:
    """Return a fit that was kept, if it is of the entries that are there now."""
    is_same = saved is not None and saved.of == of and saved.entries >= len(frames)
    return saved if is_same else None


def row_times_of(series: Series, time: str | None = None) -> RowTimes:
    """Return the times of a series by one of `KINDS`.

    By default the fitted one, of blocks, and where a fit is kept beside the log; else
    that of the host.
    """
    kind = checked_kind(time)
    name = series.info.name or str(series.number)
    directory = Path(series.source.path)
    saved = load_fit(directory, name) if kind in (None, "fitted") else None
    if series.is_blocks:
        return SampleTimes(series, kind, saved)
    if saved is not None and saved.of in NUMBERS and saved.entries < _end(series):
        saved = None  # the recording has grown
    if kind == "host" or (kind is None and (saved is None or saved.of == POSITIONS)):
        return EntryTimes(series)
    try:
        return ConvertedTimes(series, kind or "fitted", saved)
    except ValueError:
        if kind is not None:
            raise
        return EntryTimes(series)
