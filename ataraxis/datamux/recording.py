"""A recording of one stream: its columns in order of time, checked once."""

from __future__ import annotations

import contextlib
import difflib
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from ataraxis.datamux.block import ArrayColumns, Block
from ataraxis.datamux.description import TIME_UNITS, Field, Stream
from ataraxis.datamux.price import Price
from ataraxis.errors import AtaraxisError, RecordingError
from ataraxis.labels import fit, unmasked


class UniformTimes:
    """Times of samples at one rate, s, computed where they are asked for.

    Indexed by a number it gives a float, by a slice (of step 1) an array.

    Parameters
    ----------
    count : int
        How many samples.
    rate_hz : float
        Samples a second.
    first_s : float
        Time of the first one, s.

    Examples
    --------
    >>> times = UniformTimes(10**12, 30_000.0)
    >>> float(times[30_000]), times[3:5].tolist()
    (1.0, [0.0001, 0.00013333333333333334])
    >>> times.searchsorted(2.0), times.searchsorted(2.0, "right")
    (60000, 60001)
    """

    __slots__ = ("_count", "_first_s", "rate_hz")

    def __init__(self, count: int, rate_hz: float, first_s: float = 0.0) -> None:
        self._count, self.rate_hz, self._first_s = count, rate_hz, first_s

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, at: int) -> float: ...
    @overload
    def __getitem__(self, at: slice) -> NDArray[np.float64]: ...
    def __getitem__(self, at: int | slice) -> float | NDArray[np.float64]:
        if isinstance(at, slice):
            start, stop, _ = at.indices(self._count)
            found = np.arange(start, max(start, stop)) / self.rate_hz
            if self._first_s:
                found += self._first_s
            found.flags.writeable = False
            return found
        place = at + self._count if at < 0 else at
        if not 0 <= place < self._count:
            raise IndexError(f"sample {at} of {self._count}")
        return place / self.rate_hz + self._first_s

    def searchsorted(self, t: float, side: Literal["left", "right"] = "left") -> int:
        """Return the first place before which `t` may be inserted; as NumPy's."""
        if t != t:
            return self._count
        near = max(min((t - self._first_s) * self.rate_hz, float(self._count)), 0.0)
        first = max(0, int(near) - 2)
        few = self[first : first + 5]
        return first + int(np.searchsorted(few, t, side))

    def __repr__(self) -> str:
        return f"<{self._count} times, {self.rate_hz:g} a second>"


class Recording:
    """Columns of one stream in order of time; made by `Recording.of`.

    Attributes
    ----------
    stream : Stream
        Its description.
    times : ndarray of float64, or UniformTimes
        Times, s, not decreasing: of one rate they are computed where they are read.
    where : str
        Name of its file, for errors.

    Examples
    --------
    >>> from ataraxis.datamux import Field, Stream
    >>> stream = Stream("x", frequency=10, fields={"v": Field(dtype="i16")})
    >>> recording = Recording.of(stream, {"v": np.arange(5)})
    >>> recording.read(1, 3).records()
    [{'index': {'t': 0.1}, 'value': {'v': 1}}, {'index': {'t': 0.2}, 'value': {'v': 2}}]
    """

    def __init__(
        self,
        stream: Stream,
        times: NDArray[np.float64] | UniformTimes,
        values: Mapping[str, NDArray[Any]],
        index: Mapping[str, NDArray[Any]],
        array: NDArray[Any] | None,
        where: str,
    ) -> None:
        self.stream = stream
        self.times = times
        self.where = where
        self._values = values
        self._index = index
        self._array = array
        for column in (*values.values(), *index.values()):
            column.flags.writeable = False
        if isinstance(times, np.ndarray):
            times.flags.writeable = False
        if array is not None:
            array.flags.writeable = False

    @classmethod
    def of(
        cls,
        stream: Stream,
        columns: Mapping[str, NDArray[Any]],
        where: str = "the columns",
    ) -> Recording:
        """Check columns against a description, and sort them by time.

        Parameters
        ----------
        stream : Stream
            Description: fields, dtypes, index, frequency.
        columns : mapping of str to ndarray
            Fields, and the index if it was recorded; others are ignored. Columns of
            the declared dtype, in order, are not copied.
        where : str
            Name of the columns in errors.

        Raises
        ------
        RecordingError
            A field is missing, a value does not fit its dtype, index and frequency
            are both missing, or a time is not finite.
        """
        check_fields(stream, columns, where)
        values = {
            name: _fitted(columns[name], field, where, name)
            for name, field in stream.fields.items()
        }
        lengths = {name: len(column) for name, column in values.items()}
        n = next(iter(lengths.values()), 0)
        if len(set(lengths.values())) > 1:
            raise RecordingError(f"{where}: its columns differ in length: {lengths}")
        t, index = _times(stream, columns, n, where)
        if isinstance(t, np.ndarray) and n > 1 and bool((np.diff(t) < 0).any()):
            order = np.argsort(t, kind="stable")
            t = t[order]
            values = {name: column[order] for name, column in values.items()}
            index = {name: column[order] for name, column in index.items()}
        array = _joint(stream, values)
        if array is not None:
            return cls(
                stream, t, ArrayColumns(tuple(values), array), index, array, where
            )
        return cls(stream, t, values, index, array, where)

    @cached_property
    def t(self) -> NDArray[np.float64]:
        """All times, s, shape (n,), read-only; 8 bytes a sample, see `times`."""
        return self.times[:]

    def __len__(self) -> int:
        return len(self.times)

    @property
    def first_s(self) -> float:
        """Time of the first sample, s; 0 without samples."""
        return float(self.times[0]) if len(self) else 0.0

    @property
    def duration_s(self) -> float:
        """Time from the first to the last sample, s."""
        return float(self.times[-1] - self.times[0]) if len(self) else 0.0

    def locate(self, offset_s: float) -> int:
        """Return the number of the first sample at least `offset_s` after the first."""
        return int(self.times.searchsorted(self.first_s + offset_s, "left"))

    def read(self, start: int = 0, stop: int | None = None) -> Block:
        """Return samples ``start`` to ``stop``, as read-only views."""
        start, stop, _ = slice(start, stop).indices(len(self))
        rows = slice(start, max(start, stop))
        array = None if self._array is None else self._array[rows]
        values: Mapping[str, NDArray[Any]]
        if array is not None and isinstance(self._values, ArrayColumns):
            values = ArrayColumns(tuple(self._values), array)
        else:
            values = {name: column[rows] for name, column in self._values.items()}
        index = {name: column[rows] for name, column in self._index.items()}
        times = self.times[rows]
        return Block(self.stream, times, values, index, sequence=start, array=array)

    def price(self, speed: float) -> Price:
        """Return the price of a replay at a speed; 0: as fast as its reader."""
        rate = len(self) / self.duration_s * speed if self.duration_s > 0 else 0.0
        return Price(bytes_s=rate * self._row_bytes(), samples_hz=rate)

    def _row_bytes(self) -> int:
        """Return the bytes of a sample, its time included."""
        columns = [*self._values.values(), *self._index.values()]
        return 8 + sum(c.nbytes // max(1, len(c)) for c in columns)

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from ataraxis.card import html_of

        return html_of("recording", self)

    def __repr__(self) -> str:
        return f"<Recording of {self.stream.id!r}: {len(self)} samples, {self.where}>"


class LazyRecording(Recording):
    """A recording whose samples are read from its file when they are asked for.

    Parameters
    ----------
    stream : Stream
        Its description.
    times : ndarray of float64, or UniformTimes
        Times, s, not decreasing.
    rows : callable
        ``rows(start, stop)`` reads samples: an array of shape (n, fields), or (n,
        *shape) if the only field has a shape, in the fields' dtype. Called by one
        thread at a time.
    row_bytes : int
        Bytes of a sample in memory.
    where : str
        Name of its file, for errors.
    close : callable, optional
        Closes the file; called when the recording is not used any more.

    Examples
    --------
    >>> from ataraxis.datamux import Field, Stream
    >>> stream = Stream("x", frequency=10, fields={"v": Field(dtype="i16")})
    >>> rows = lambda start, stop: np.arange(start, stop, dtype="i2")[:, np.newaxis]
    >>> recording = LazyRecording(stream, UniformTimes(10**9, 10.0), rows, 2, "x.bin")
    >>> recording.read(700, 702).values["v"].tolist(), len(recording)
    ([700, 701], 1000000000)
    """

    def __init__(
        self,
        stream: Stream,
        times: NDArray[np.float64] | UniformTimes,
        rows: Callable[[int, int], NDArray[Any]],
        row_bytes: int,
        where: str,
        close: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(stream, times, {}, {}, None, where)
        if close is not None:
            weakref.finalize(self, close)
        self._rows, self._bytes = rows, row_bytes
        self._lock = threading.Lock()

    def read(self, start: int = 0, stop: int | None = None) -> Block:
        """Read samples ``start`` to ``stop``; raises `RecordingError` if it fails."""
        start, stop, _ = slice(start, stop).indices(len(self))
        stop = max(start, stop)
        try:
            with self._lock:
                array = self._rows(start, stop)
        except AtaraxisError:
            raise
        except Exception as error:  # other packages may raise anything
            raise RecordingError(
                f"{self.where}: samples {start} to {stop} cannot be read: "
                f"{type(error).__name__}: {str(error)[:300]}"
            ) from error
        names = tuple(self.stream.fields)
        if len(array) != stop - start:
            raise RecordingError(
                f"{self.where}: samples {start} to {stop} were asked for, "
                f"{len(array)} were read: the file is shorter than it was"
            )
        array.flags.writeable = False
        is_one = len(names) == 1 and array.ndim == 1 + len(
            self.stream.fields[names[0]].shape
        )
        values = {names[0]: array} if is_one else ArrayColumns(names, array)
        joint = None if is_one else array
        times = self.times[start:stop]
        return Block(self.stream, times, values, sequence=start, array=joint)

    def _row_bytes(self) -> int:
        return 8 + self._bytes


_DAMAGE = (
    ArithmeticError, AttributeError, BufferError, IndexError, KeyError, MemoryError,
    RecursionError, TypeError, UnicodeError, ValueError, AssertionError,
)  # fmt: skip


@contextlib.contextmanager
def damage_named(where: str) -> Iterator[None]:
    """Turn errors of code that reads a damaged file into `RecordingError`."""
    try:
        yield
    except AtaraxisError:
        raise
    except _DAMAGE as error:
        kind = type(error).__name__
        raise RecordingError(f"{where}: damaged: {kind}: {str(error)[:300]}") from error


def _joint(stream: Stream, values: Mapping[str, NDArray[Any]]) -> NDArray[Any] | None:
    """Return columns of one dtype as one array, so that a block is one view."""
    if not stream.is_uniform or any(c.ndim > 1 for c in values.values()):
        return None
    first, *others = values.values()
    whole = first.base
    if (
        isinstance(whole, np.ndarray)
        and whole.ndim == 2
        and whole.shape == (len(first), len(values))
        and all(
            c.ctypes.data == whole[:, i].ctypes.data
            and c.strides == whole[:, i].strides
            for i, c in enumerate(values.values())
        )
    ):
        return whole.view()
    return np.stack([first, *others], axis=1)


def _fitted(column: Any, field: Field, where: str, name: str) -> NDArray[Any]:
    """Return a column in its declared dtype; raise for the first misfit."""
    found = unmasked(column, f"{where}: {name!r}")
    shape = found.shape[1:]
    if tuple(field.shape) != shape:
        raise RecordingError(
            f"{where}: {name!r}: values of shape {tuple(field.shape)} are declared, "
            f"found {shape}"
        )
    target = field.numpy_dtype
    if target.kind in "US":
        if found.dtype == object:
            for row, value in enumerate(found.flat):
                if not isinstance(value, str | bytes):
                    ways = "text has no null: use a text such as ''"
                    raise _unfit(field, where, name, row, value, ways)
        return found if found.dtype.kind == target.kind else found.astype(target.kind)
    if found.dtype == target:
        return found.view()
    if found.dtype.kind not in "fiub":
        raise RecordingError(
            f"{where}: {name!r}: {field.dtype} is declared, found {found.dtype}"
        )
    try:
        return _into(found, target, name)
    except ValueError:
        first, last = 0, len(found)
        while last - first > 1:
            middle = (first + last) // 2
            try:
                _into(found[first:middle], target, name)
            except ValueError:
                last = middle
            else:
                first = middle
        ways = "declare a dtype that holds it"
        raise _unfit(field, where, name, first, found[first], ways) from None


def _into(found: NDArray[Any], target: np.dtype[Any], name: str) -> NDArray[Any]:
    """Convert numbers to a dtype; ValueError if one would change."""
    is_cut = found.dtype.kind == "f" and target.kind in "iu"
    if is_cut and (np.abs(found) > 2**53).any():
        raise ValueError("beyond 2**53 the integer in the file may differ")
    return fit(found, target, None, name)


def _unfit(
    field: Field, where: str, name: str, row: int, value: Any, ways: str
) -> RecordingError:
    return RecordingError(
        f"{where}: {name!r}: {field.dtype} is declared, and row {row} is {value!r}: "
        f"{ways}"
    )


def _times(
    stream: Stream, columns: Mapping[str, NDArray[Any]], n: int, where: str
) -> tuple[NDArray[np.float64] | UniformTimes, dict[str, NDArray[Any]]]:
    """Return seconds, and the index columns as recorded."""
    rate = stream.rate_hz
    name = stream.time
    index = {}
    for key, field in stream.index.items():
        if key in columns:
            index[key] = _fitted_index(columns[key], field, where, key)
            if len(index[key]) != n:
                raise RecordingError(
                    f"{where}: index {key!r} has {len(index[key])} rows, fields {n}"
                )
    if name not in index and name in columns and not stream.index:
        index[name] = np.asarray(columns[name])
    if name not in index:
        if rate is None:
            raise RecordingError(
                f"{where}: stream {stream.id!r} has neither a column {name!r} nor a "
                f"frequency, so no times: found {[*columns]}; declare one of the two"
            )
        return UniformTimes(n, rate), index
    raw = index[name]
    if raw.dtype.kind == "M":
        none = np.flatnonzero(np.isnat(raw))
        if len(none):
            raise RecordingError(
                f"{where}: index {name!r}: row {none[0]} is not a time"
            )
        exact = raw.astype("M8[ns]")  # which wraps outside of 1678 to 2262
        beyond = np.flatnonzero(exact.astype(raw.dtype) != raw)
        if len(beyond):
            raise RecordingError(
                f"{where}: index {name!r}: row {beyond[0]} is {raw[beyond[0]]}, and ns"
                " in 64 bits hold the years 1678 to 2262: is its unit right?"
            )
        seconds = exact.astype(np.int64) / 1e9
    elif raw.dtype.kind in "fiu":
        unit = stream.index[name].unit if name in stream.index else "s"
        seconds = raw.astype(np.float64) / _per_second(raw, unit, rate, where, name)
    else:
        raise RecordingError(f"{where}: index {name!r} is {raw.dtype}, not time")
    wrong = np.flatnonzero(~np.isfinite(seconds))
    if len(wrong):
        raise RecordingError(f"{where}: index {name!r}: row {wrong[0]} is not a time")
    return seconds, index


def _fitted_index(column: Any, field: Field, where: str, name: str) -> NDArray[Any]:
    found = np.asarray(column)
    if found.dtype.kind == "M":
        return found.view()
    # DFDS declares float32, exact to 2^24 ms only: keep the dtype of the file.
    if found.dtype.kind == "f" and field.numpy_dtype.kind == "f":
        return found.view()
    return _fitted(found, field, where, name)


def _per_second(
    raw: NDArray[Any], unit: str, rate: float | None, where: str, name: str
) -> float:
    """Return the index units per second, by the unit or else by the intervals."""
    if unit:
        if unit not in TIME_UNITS:
            raise RecordingError(
                f"{where}: index {name!r} is in {unit!r}: expected one of "
                f"{', '.join(TIME_UNITS)}"
            )
        return TIME_UNITS[unit]
    steps = np.abs(np.diff(raw.astype(np.float64)))
    steps = steps[steps > 0]
    if rate is None or not len(steps):
        return 1.0
    ratio = float(np.median(steps)) * rate
    scales = np.array([1.0, 1e3, 1e6, 1e9])
    return float(scales[np.abs(np.log(scales) - np.log(ratio)).argmin()])


def check_rate(stream: Stream, rate: float, where: str) -> None:
    """Raise `RecordingError` if a stream declares another rate than its file has."""
    if stream.rate_hz not in (None, rate):
        raise RecordingError(
            f"{where}: {rate:g} Hz, the stream declares {stream.rate_hz:g} Hz"
        )


def check_fields(stream: Stream, names: Iterable[str], where: str) -> None:
    """Raise `RecordingError` if a field of the stream is not among a file's columns."""
    columns = [name for name in names if name]
    known = {*columns}
    missing = [name for name in stream.fields if name not in known]
    if missing:
        close = difflib.get_close_matches(missing[0], columns, 1)
        raise RecordingError(
            f"{where}: stream {stream.id!r} has field {missing[0]!r} and the file "
            f"has {columns}" + (f"; did you mean {close[0]!r}?" if close else "")
        )
