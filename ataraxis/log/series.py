"""Series: the entries of one source as rows of one dtype and shape, read lazily."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ataraxis.clock import Anchor
from ataraxis.errors import CorruptFrame, NotConnectedError
from ataraxis.frame import DType, Frame
from ataraxis.labels import Labels, is_blocks
from ataraxis.log.blocks import Blocks
from ataraxis.log.clock_table import clock_of
from ataraxis.log.rows import (
    PIECE_BYTES,
    TEXT,
    RowKind,
    Take,
    frame_kind,
    in_pieces,
    read_rows,
)
from ataraxis.log.selection import LogSource, Selection, SourceInfo, distinct

# ---- times: stamps as wall times, and entries by time

NOT_A_TIME = np.iinfo(np.int64).min
_LAST, _FIRST = 2**63 - 1, -(2**63)
_ONSETS_US = 10**15, 4 * 10**15
_ONSET_BYTES = 8
_LOOKED_AT = 64


TIME_AXIS = {"standard_name": "time", "axis": "T"}
"""Attributes by which cf_xarray finds the axis of time."""


class Times:
    """Converts the stamps of a source of a log to times.

    One shift per session is added to the stamps: of the session's anchor, or the onset
    of an npy log. So differences of times equal those of the stamps, even if the wall
    clock was adjusted in between. By default the onset, UTC microseconds, is an entry
    of stamp 0 whose 8 bytes are microseconds of this century.
    """

    def __init__(
        self, source: LogSource, number: int, onset_us: int | None = None
    ) -> None:
        self._source, self.number, self.unit = source, number, source.unit
        self.onsets: list[int] = []
        """Onsets that were found, UTC microseconds."""
        self._behind: NDArray[np.int64] = np.empty(0, np.int64)
        shifts: list[int | None]
        if self.unit == "us":
            self._find_onsets()
            is_one = len(set(self.onsets)) == 1
            if onset_us is None and is_one:
                onset_us = self.onsets[0]
            shifts = [onset_us]
        else:
            shifts = list(source.shifts_ns(number))
        self._shifts = sorted({shift for shift in shifts if shift is not None})
        self._scale = 1000 if self.unit == "us" else 1
        self.dtype = self._dtype()
        """datetime64[ns]; timedelta64[ns] if the wall time is unknown; uint64 if the
        stamps are not microseconds."""

    def _dtype(self) -> np.dtype[Any]:
        if self.unit == "us":
            # Reads no file: the index has the stamps.
            found = self._source.select(self.number).time
            most = int(found.max()) if len(found) else 0
            if (most + max(self._shifts, default=0)) * 1000 > _LAST:
                return np.dtype("u8")
        return np.dtype("M8[ns]" if self._shifts else "m8[ns]")

    def _find_onsets(self) -> None:
        found = self._source.select(self.number, 0, 1)
        behind = []
        for number in found.numbers[:_LOOKED_AT].tolist():
            try:
                payload = self._source.frame(number).payload
            except CorruptFrame:
                continue
            onset = int.from_bytes(payload, "little")
            if len(payload) == _ONSET_BYTES and _ONSETS_US[0] <= onset < _ONSETS_US[1]:
                self.onsets.append(onset)
                behind.append(number)
        self._behind = np.array(behind, np.int64)

    @property
    def onset_numbers(self) -> NDArray[np.int64]:
        """Numbers of the entries that are onsets."""
        return self._behind

    def without_onset(self, ranges: NDArray[np.int64]) -> NDArray[np.int64]:
        """Remove the onsets from the entries of the source."""
        for number in self._behind.tolist():
            k = int(np.searchsorted(ranges[:, 0], number, "right")) - 1
            first, last = ranges[k].tolist()
            parts = np.array([[first, number], [number + 1, last]], np.int64)
            parts = parts[parts[:, 0] < parts[:, 1]]
            ranges = np.concatenate([ranges[:k], parts, ranges[k + 1 :]])
        return ranges

    @property
    def attrs(self) -> dict[str, Any]:
        """Attributes for xarray; cf_xarray finds the axis by them."""
        if self.dtype.kind == "u":
            return {"long_name": "stamp, as its source gave it"}
        is_us, is_wall = self.unit == "us", self.dtype.kind == "M"
        if is_wall:
            start = "the onset" if is_us else "one anchor a session"
            name = f"wall time: stamps, counted from {start}"
        elif is_us:
            name = "time since the onset, which was not recorded"
        else:
            name = "time since the machine started"
            parts = self._source.parts(self.number)
            hosts = {clock_of(part.labels)[0] for part in parts} - {""}
            if hosts:
                name = f"time since host {', '.join(sorted(hosts))} started, its clock"
        found: dict[str, Any] = {"long_name": name, **TIME_AXIS}
        if not is_wall and len(self.onsets) > 1:
            found["onsets_us"] = self.onsets
        return found

    def of(self, found: Selection) -> NDArray[Any]:
        """Return the times of some entries, (n,), of `dtype`."""
        if self.dtype.kind == "u":
            stamps = self._source.device_stamps(found)
            if stamps is None:
                return np.empty(0, np.uint64)
            return stamps[:, 0].copy().view(np.uint64)
        if self.unit == "us":
            shift = self._shifts[0] if self._shifts else 0
            return ((found.time + shift) * 1000).view(self.dtype)
        shifted = self._source.wall_ns(found) if self._shifts else None
        if shifted is None:
            shifted = found.time.copy()
        return shifted.view(self.dtype)

    def between(self, start: int | None, stop: int | None) -> NDArray[np.int64]:
        """Return the numbers of entries from `start` to before `stop`, in order.

        Reads only the parts of the log that may have some.
        """
        parts = []
        for shift in self._shifts or [0]:
            low, high = (
                None if bound is None else _clipped(-(-bound // self._scale) - shift)
                for bound in (start, stop)
            )
            if self.dtype.kind == "u":
                low, high = start, stop
            parts.append(self._source.select(self.number, low, high))
        if len(parts) == 1:
            return parts[0].numbers
        kept = []
        for part in parts:
            own = self.of(part).view(np.int64)
            good = own != NOT_A_TIME
            if start is not None:
                good &= own >= start
            if stop is not None:
                good &= own < stop
            kept.append(part.numbers[good])
        return distinct(np.concatenate(kept))


def by_anchors(
    anchors: Sequence[Anchor], times: NDArray[np.int64], log: str
) -> NDArray[np.datetime64]:
    """Convert monotonic times to wall times, each by the last anchor before it."""
    if not anchors:
        raise ValueError(f"{log} has no anchors: its wall times are unknown")
    boots = {(anchor.host, anchor.boot_id) for anchor in anchors}
    if len(boots) > 1:
        raise ValueError(
            f"{log} was written in {len(boots)} boots, each with its own monotonic "
            "clock: the wall times of its entries are the 'time' of "
            "xarray.open_dataset(path, engine='ataraxis')"
        )
    ordered = sorted(anchors, key=lambda anchor: anchor.monotonic_ns)
    starts = np.array([anchor.monotonic_ns for anchor in ordered])
    shifts = np.array([anchor.wall_ns for anchor in ordered]) - starts
    at = np.maximum(np.searchsorted(starts, times, "right") - 1, 0)
    return np.asarray(times + shifts[at], "i8").astype("M8[ns]")


def _clipped(value: int) -> int:
    return min(max(value, _FIRST), _LAST)


# ---- the series

_TRIES = 64
Rows = slice | NDArray[np.int64]


class Series:
    """Read a source like one array; nothing is read before it is indexed.

    The options are those of ``xarray.open_dataset(engine="ataraxis")``. Raises
    `ValueError` if the entries differ in kind; the message states how to read them.

    Examples
    --------
    >>> import tempfile
    >>> from ataraxis.log.journal.reader import JournalReader
    >>> from ataraxis.log.journal.writer import JournalWriter
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     with JournalWriter(directory) as journal:
    ...         _ = journal.log_block(3, np.arange(12.0).reshape(4, 3))
    ...     reader = JournalReader(directory)
    ...     series = Series(reader, reader.sources[3])
    ...     len(series), series.shape, series.read(slice(1, 3)).tolist()
    (4, (3,), [[3.0, 4.0, 5.0], [6.0, 7.0, 8.0]])
    """

    def __init__(
        self,
        source: LogSource,
        info: SourceInfo,
        *,
        entries: slice | None = None,
        dtype: DTypeLike | None = None,
        onset_us: int | None = None,
        verify: bool = True,
    ) -> None:
        self.source, self.info, self.number = source, info, info.number
        self._verify, self._is_open = verify, True
        ranges = source.extents(info.number)
        self.times = Times(source, info.number, onset_us)
        ranges = self.times.without_onset(ranges)
        self.whole_ranges = ranges
        """Numbers of all entries of the source, (k, 2), also those left out."""
        self.use_ranges(_slice_ranges(ranges, entries))
        self.labels: Labels | None = info.labels
        """Labels of a row, if known."""
        self.has_device = self.is_device_unsigned = False
        """Whether entries have device stamps, and whether these are unsigned."""
        self._infer_kind(dtype)

    # ---- properties

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _infer_kind(self, dtype: DTypeLike | None) -> None:
        """Take the kind of the first intact entry for all of them."""
        self._kind = RowKind(DType.U8, np.dtype("u1"), (0,), True)
        frame = self._first()
        if frame is None:
            if self.labels is not None:
                dtype, shape = self.labels.dtype, self.labels.shape
                self._kind = RowKind(None, dtype, shape, True)
            return
        self.has_device = frame.device_time is not None
        self.is_device_unsigned = self.times.unit == "us" or frame.device_unsigned
        try:
            self._kind = RowKind.of(frame)
        except TypeError:
            raise ValueError(
                f"{self.title} has entries of {frame.dtype.name}, not arrays: "
                f"read them with LogArchive({str(self.source.path)!r})"
                f".entries({self.number})"
            ) from None
        labels = None if self.dtype == TEXT else frame.labels or self.info.labels
        whole = self.info.labels
        if whole is not None and is_blocks(whole) and _is_part(self._kind, whole):
            # The first block may be a shorter one.
            labels = whole
            self._kind = replace(self._kind, shape=whole.shape)
        kind = labels and (labels.dtype, labels.shape)
        self.labels = labels if kind == (self.dtype, self.shape) else None
        if dtype is not None and self.dtype != TEXT:
            self._reinterpret(np.dtype(dtype))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of a row; object: text."""
        return self._kind.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a row."""
        return self._kind.shape

    def _first(self) -> Frame | None:
        for row in range(min(len(self), _TRIES)):
            try:
                return self.source.frame(int(self.numbers(slice(row, row + 1))[0]))
            except CorruptFrame:
                continue
        return None

    def _reinterpret(self, dtype: np.dtype[Any]) -> None:
        """Interpret the bytes of a row as another dtype."""
        size = self.row_bytes
        if not self._kind.is_plain or not dtype.itemsize or size % dtype.itemsize:
            raise ValueError(
                f"{self.title} has entries of {size} bytes, which cannot be read as "
                f"{dtype}"
            )
        count = size // dtype.itemsize
        self._kind = RowKind(None, dtype, () if count == 1 else (count,), True)
        self.labels = None

    @property
    def row_bytes(self) -> int:
        """Size of a row."""
        return self._kind.row_bytes

    @property
    def title(self) -> str:
        """Name of the source and the log, for messages."""
        name = f" {self.info.name!r}" if self.info.name else ""
        return f"source {self.number}{name} of {self.source.path}"

    @property
    def name(self) -> str:
        """Name of its labels or its stream, or "data"."""
        own = self.labels.name if self.labels is not None else None
        return own or self.info.name or "data"

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the dimensions of a row."""
        if self.labels is not None:
            return self.labels.dims
        return tuple(f"dim_{i}" for i in range(len(self.shape)))

    @property
    def attrs(self) -> Mapping[str, Any]:
        """Attributes of a row: units, rates."""
        return self.labels.attrs if self.labels is not None else {}

    @property
    def is_blocks(self) -> bool:
        """Whether each entry has samples along a first dimension "time".

        Not if a coordinate of the labels is along it: that holds within an entry only.
        """
        if self.labels is None or not self.shape or self.dims[0] != "time":
            return False
        return all("time" not in coord.dims for coord in self.labels.coords.values())

    def whole(self, rows: int | None = None) -> Series:
        """Return a series with all entries of its source, or the first `rows`."""
        made = copy.copy(self)
        part = None if rows is None else slice(0, rows)
        made.use_ranges(_slice_ranges(self.whole_ranges, part))
        return made

    def use_ranges(self, ranges: NDArray[np.int64]) -> None:
        """Set the numbers of its entries, as ranges, (k, 2)."""
        self._ranges = ranges
        self._starts = np.zeros(len(ranges) + 1, np.int64)
        np.cumsum(ranges[:, 1] - ranges[:, 0], out=self._starts[1:])

    def blocks(self) -> Blocks:
        """Return the samples of the entries, which must be blocks."""
        return Blocks(
            self.source, self.number, self._ranges, self._kind, verify=self._verify,
            refuse=self._refuse, damaged=self._damaged,
        )  # fmt: skip

    # ---- rows

    def numbers(self, rows: Rows) -> NDArray[np.int64]:
        """Return the entry numbers of rows."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)), dtype=np.int64)
        at = np.searchsorted(self._starts, rows, "right") - 1
        first = self._ranges[:, 0] - self._starts[:-1]
        return np.asarray(rows + first[at] if len(rows) else rows, np.int64)

    def rows_of(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of entries, without those of other sources."""
        at = np.searchsorted(self._ranges[:, 0], numbers, "right") - 1
        good = at >= 0
        good[good] &= numbers[good] < self._ranges[at[good], 1]
        at, numbers = at[good], numbers[good]
        return np.asarray(numbers - self._ranges[at, 0] + self._starts[at], np.int64)

    def check_open(self) -> None:
        """Raise `NotConnectedError` if it is closed."""
        if not self._is_open:
            raise NotConnectedError(
                f"{self.title} is closed: open it again, or load() before closing"
            )

    def pick(self, rows: Rows) -> Selection:
        """Return rows without reading payloads."""
        self.check_open()
        return self.source.pick(self.numbers(rows))

    def read(self, rows: Rows, take: Take | None = None) -> NDArray[Any]:
        """Read rows into an array, shape (n, *shape): a copy.

        `take` is applied to each piece of rows, and returns the part to keep: so a part
        of each row needs no memory for the whole. Raises `ValueError` for a row of
        another kind and `CorruptFrame` for a damaged one, whose messages state which;
        and `NotConnectedError` if the series is closed.
        """
        found = self.pick(rows)
        step = max(1, PIECE_BYTES // max(self.row_bytes, 1))
        return in_pieces(found, step, self._read, take)

    def _read(self, found: Selection) -> NDArray[Any]:
        return read_rows(
            self.source, found, self._kind, verify=self._verify,
            refuse=self._refuse, damaged=self._damaged,
        )  # fmt: skip

    def _damaged(self, number: int, error: CorruptFrame) -> NoReturn:
        raise CorruptFrame(
            f"entry {self._row(number)} of {self.title} is damaged: {error}: leave it "
            "out, with drop_isel() in xarray"
        ) from error

    def _refuse(self, frame: Frame, number: int) -> NoReturn:
        row = self._row(number)
        raise ValueError(
            f"{self.title} is {self._kind}, and its entry {row} is "
            f"{frame_kind(frame)}: open entries of one kind with "
            f"entries=slice(0, {row}), or read them one by one with "
            f"LogArchive({str(self.source.path)!r}).entries({self.number})"
        )

    def _row(self, number: int) -> int:
        return int(self.rows_of(np.array([number]))[0])

    # ---- columns

    def columns(self) -> dict[str, tuple[np.dtype[Any], Column]]:
        """Return dtype and reader of each number beside the rows, by name.

        A reader is a method, called as ``reader(series, rows)``.
        """
        found: dict[str, tuple[np.dtype[Any], Column]] = {
            "time": (self.times.dtype, Series.time)
        }
        is_ns, u8 = self.times.unit == "ns", np.dtype("u8")
        if is_ns:
            found["monotonic_ns"] = np.dtype("i8"), Series.monotonic
        found["sequence"] = u8, Series.sequence
        if self.has_device:
            sign = u8 if self.is_device_unsigned else np.dtype("i8")
            found["device_time"] = sign, Series.device_time
            if is_ns:
                found["device_sequence"] = u8, Series.device_sequence
        return found

    def monotonic(self, rows: Rows) -> NDArray[np.int64]:
        """Return stamps in the unit of the log, (n,)."""
        return self.pick(rows).time

    def sequence(self, rows: Rows) -> NDArray[np.uint64]:
        """Return sequence numbers within the source, (n,)."""
        return self.pick(rows).sequence

    def device(self, rows: Rows) -> NDArray[np.int64]:
        """Return device times and counters, (n, 2).

        Raises `ValueError` if an entry has none.
        """
        found = self.pick(rows)
        stamps = self.source.device_stamps(found)
        if stamps is None:
            if not len(found):
                return np.empty((0, 2), np.int64)
            raise ValueError(
                f"not every entry of {self.title} has a device stamp, or one is "
                "damaged: open it with drop_variables=['device_time', "
                "'device_sequence']"
            )
        return stamps

    def device_time(self, rows: Rows) -> NDArray[Any]:
        """Return device times, signed or unsigned as they were given, (n,)."""
        found = self.device(rows)[:, 0].copy()
        return found.view(np.uint64) if self.is_device_unsigned else found

    def device_sequence(self, rows: Rows) -> NDArray[np.uint64]:
        """Return device counters, (n,)."""
        return self.device(rows)[:, 1].copy().view(np.uint64)

    def time(self, rows: Rows) -> NDArray[Any]:
        """Return times of `Times.dtype`, (n,); NaT where a header is damaged."""
        return self.times.of(self.pick(rows))

    def between(self, start: Any, stop: Any) -> NDArray[np.int64]:
        """Return the rows whose time is from `start` to before `stop`, as integers."""
        return self.rows_of(self.times.between(start, stop))

    def close(self) -> None:
        """Close the series; the log itself stays open."""
        self._is_open = False


Column = Callable[[Series, Rows], NDArray[Any]]


def _is_part(kind: RowKind, whole: Labels) -> bool:
    """Return whether an entry may be a block of labels, of any length."""
    return (kind.dtype, kind.shape[1:]) == (whole.dtype, whole.shape[1:]) and (
        len(kind.shape) == len(whole.shape)
    )


def _slice_ranges(
    ranges: NDArray[np.int64], entries: slice | None
) -> NDArray[np.int64]:
    """Return the part of some ranges of numbers that a slice selects."""
    if entries is None:
        return ranges
    sizes = ranges[:, 1] - ranges[:, 0]
    start, stop, step = entries.indices(int(sizes.sum()))
    if step != 1:
        raise ValueError(f"entries must be a slice without a step, got {entries}")
    starts = np.cumsum(sizes) - sizes
    part = ranges.copy()
    part[:, 0] += np.clip(start - starts, 0, sizes)
    part[:, 1] -= np.clip(starts + sizes - max(start, stop), 0, sizes)
    return part[part[:, 0] < part[:, 1]]
