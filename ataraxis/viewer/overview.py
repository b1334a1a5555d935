"""`overview`: a recording as so many columns, each with its minimum and maximum."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.viewer.levels import (
    BASE,
    JOIN,
    Levels,
    Samples,
    empty_bounds,
    identity_of,
    joined,
    open_samples,
    reduced,
)

if TYPE_CHECKING:
    import xarray as xr

Columns = NDArray[Any]
_KEPT = 8
_READ_AT_MOST = 1 << 24
_FEW = 300
"""Samples of a column that a quick overview reads, of one entry."""
"""A span of fewer bytes is read as it is."""


class _Opened:
    """A stream that stays open, so that the next overview of it is quick."""

    def __init__(self, path: Path, stream: str | None) -> None:
        self.nodes, node = open_samples(path, stream)
        self.samples = Samples(node)
        self.levels = Levels(self.samples, path, identity_of(node))
        self.size = _size_of(path)

    def close(self) -> None:
        self.levels.close()
        self.nodes.close()


_opened: OrderedDict[tuple[str, str | None], _Opened] = OrderedDict()
_lock = threading.Lock()


def _size_of(path: Path) -> tuple[tuple[str, int, int], ...]:
    files = path.glob("*") if path.is_dir() else [path]
    found = [(f.name, f.stat()) for f in files if f.is_file()]
    return tuple(sorted((name, s.st_size, s.st_mtime_ns) for name, s in found))


def _of(path: Path, stream: str | None) -> _Opened:
    """Return an open stream; one whose files changed is opened again."""
    key = str(path.absolute()), stream
    found = _opened.pop(key, None)
    if found is not None and found.size != _size_of(path):
        found.close()
        found = None
    if found is None:
        found = _Opened(path, stream)
    _opened[key] = found
    while len(_opened) > _KEPT:
        _opened.popitem(last=False)[1].close()
    return found


def forget() -> None:
    """Close the recordings that are kept open for the next `overview`."""
    with _lock:
        while _opened:
            _opened.popitem()[1].close()


def overview(
    path: str | os.PathLike[str],
    stream: str | None = None,
    columns: int = 1000,
    *,
    start: float | None = None,
    stop: float | None = None,
    quick: bool = False,
) -> xr.DataArray:
    """Return a recording as columns, each with its exact minimum and maximum.

    Parameters
    ----------
    path : str or Path
        A session, the directory of a recorder, or another log of ataraxis.
    stream : str, optional
        Name of a stream of numbers; required if there are several.
    columns : int, optional
        How many columns at most, 1 to 65,536.
    start, stop : float, optional
        The span that is shown, s since the stream's first sample; by default all.
    quick : bool, optional
        Read a few samples of each column instead of all: the attribute ``is_sampled``
        of the result is true, and an extreme value may be missing.

    Returns
    -------
    xarray.DataArray
        Dims ``column``, ``bound`` ("min", "max") and ``channel``, in the stream's
        dtype; a sample of several dimensions is flattened. Coordinates along
        ``column``: ``first``, the position of the first sample, which counts lost ones;
        ``time`` of that sample; ``is_there``: false for a column of lost samples, whose
        minimum is above its maximum. The attribute ``samples_per_column`` is their
        number.

    Raises
    ------
    FileNotFoundError
        The path has no log.
    ValueError
        There are several streams, or the stream is not of numbers.

    Notes
    -----
    The first exact overview of a recording reads it once, and keeps the bounds of each
    32 samples in ``.ataraxis-overview`` beside it, or in the cache of the user if that
    cannot be written; further ones take milliseconds. A recording that grew is
    continued.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from ataraxis.labels import Labels
    >>> from ataraxis.log import JournalWriter
    >>> directory = tempfile.TemporaryDirectory()
    >>> labels = Labels("i2", (100, 2), ("time", "channel"),
    ...                 attrs={"sample_rate_hz": 1000})
    >>> with JournalWriter(directory.name, "probe") as journal:
    ...     journal.describe(1, "probe", labels)
    ...     blocks = np.arange(2000, dtype="i2").reshape(10, 100, 2)
    ...     times = 100_000_000 * np.arange(1, 11)
    ...     _ = journal.log_block(1, blocks, time_ns=times)
    >>> seen = overview(directory.name, "probe", 5)
    >>> seen.sizes["column"], seen.attrs["samples_per_column"]
    (5, 200)
    >>> seen.sel(bound="max").values[:, 1].tolist()
    [399, 799, 1199, 1599, 1999]
    >>> forget(), directory.cleanup()
    (None, None)
    """
    if not 1 <= columns <= 65_536:
        raise ValueError(f"columns must be 1 to 65,536, got {columns!r}")
    for name, value in (("start", start), ("stop", stop)):
        if value is not None and not 0 <= value < np.inf:
            raise ValueError(f"{name} must be 0 s or more, got {value!r}")
    with _lock:
        opened = _of(Path(path), stream)
        samples = opened.samples
        low, high = _span(samples, start, stop)
        if low == high:
            none = np.empty((0, 2, samples.channels), samples.dtype)
            return _labelled(samples, none, np.empty(0, np.int64), 1, low, high, False)
        begin = int(samples.positions(low, low + 1)[0])
        end = int(samples.positions(high - 1, high)[0]) + 1
        each = -(-(end - begin) // columns)
        nbytes = (high - low) * samples.channels * samples.dtype.itemsize
        if each < BASE or nbytes <= _READ_AT_MOST:
            found = _exact(samples, low, high, begin, each, columns)
        elif quick:
            found = _sampled(samples, low, high, begin, end, each)
        else:
            # Whole columns of a level, so that bounds are exact.
            level, size = opened.levels.size_for(each)
            each = -(-each // size) * size
            zero = opened.levels.begin
            begin = (begin - zero) // size * size + zero
            found = _of_levels(opened.levels, level, begin, end, each)
        firsts = begin + each * np.arange(len(found), dtype=np.int64)
        is_sampled = quick and not (each < BASE or nbytes <= _READ_AT_MOST)
        return _labelled(samples, found, firsts, each, low, high, is_sampled)


def _span(samples: Samples, start: float | None, stop: float | None) -> tuple[int, int]:
    """Return the numbers of the samples between two times since the first one, s."""
    total = len(samples)
    if not total or (start is None and stop is None):
        return 0, total
    first = int(samples.at(np.array([0]))[0].astype("i8"))
    ends = [
        None if value is None else first + round(value * 1e9) for value in (start, stop)
    ]
    found = samples.times.find(*ends)
    if isinstance(found, slice):
        return found.start, max(found.stop, found.start)
    return (int(found[0]), int(found[-1]) + 1) if len(found) else (0, 0)


def _exact(
    samples: Samples, low: int, high: int, begin: int, each: int, columns: int
) -> Columns:
    where = (samples.positions(low, high) - begin) // each
    where = np.maximum.accumulate(where)
    values = samples.read(low, high)
    return np.stack(reduced(values, where, int(where[-1]) + 1), 1)


def _of_levels(levels: Levels, level: int, begin: int, end: int, each: int) -> Columns:
    """Return columns joined from those of a level, which divides them."""
    levels.complete()
    size = BASE * JOIN**level
    first = (begin - levels.begin) // size
    part = levels.read(level, first, first + -(-(end - begin) // size))
    return joined(part, each // size)


def _sampled(
    samples: Samples, low: int, high: int, begin: int, end: int, each: int
) -> NDArray[Any]:
    """Return columns of a few samples each, from their beginnings."""
    count = -(-(end - begin) // each)
    out = np.empty((count, 2, samples.channels), samples.dtype)
    out[:, 0], out[:, 1] = empty_bounds(samples.dtype)
    few = max(1, min(each, _FEW))
    guesses = low + (np.arange(count) * (high - low)) // count
    heads = (_positions_at(samples, guesses) - begin).tolist()
    for at, head in zip(guesses.tolist(), heads, strict=True):
        values = samples.few(at, min(few, high - at))
        where = np.arange(head, head + len(values)) // each  # none is lost in an entry
        if not samples.is_blocks:
            where = (samples.positions(at, at + len(values)) - begin) // each
        if not len(values):
            continue
        first = int(where[0])
        last = min(int(where[-1]), count - 1)
        lows, highs = reduced(values, where - first, int(where[-1]) - first + 1)
        for own in range(first, last + 1):
            out[own, 0] = np.minimum(out[own, 0], lows[own - first])
            out[own, 1] = np.maximum(out[own, 1], highs[own - first])
    return out


def _labelled(
    samples: Samples,
    found: NDArray[Any],
    firsts: NDArray[np.int64],
    each: int,
    low: int,
    high: int,
    is_sampled: bool,
) -> xr.DataArray:
    import xarray as xr

    is_there = (found[:, 0] <= found[:, 1]).any(1)
    times = _times_of(samples, firsts, low, high)
    coords: dict[str, Any] = {
        "bound": ["min", "max"], "first": ("column", firsts),
        "is_there": ("column", is_there), "time": ("column", times),
    }  # fmt: skip
    if samples.names is not None:
        coords["channel"] = samples.names
    attrs: dict[str, Any] = {
        **{k: samples.attrs[k] for k in ("units", "long_name") if k in samples.attrs},
        "samples_per_column": each, "is_sampled": is_sampled,
    }  # fmt: skip
    dims = ("column", "bound", "channel")
    return xr.DataArray(found, coords, dims, samples.name, attrs)


def _times_of(
    samples: Samples, firsts: NDArray[np.int64], low: int, high: int
) -> NDArray[Any]:
    """Return times of positions: of the sample there, or the next one that is there."""
    left = np.full(len(firsts), low, np.int64)
    right = np.full(len(firsts), max(high - 1, low), np.int64)
    while True:
        is_open = left < right
        if not is_open.any():
            break
        middle = (left + right) // 2
        rows = np.where(is_open, middle, left)
        found = _positions_at(samples, rows)
        is_less = is_open & (found < firsts)
        left = np.where(is_less, middle + 1, left)
        right = np.where(is_open & ~is_less, middle, right)
    return samples.at(left)


def _positions_at(samples: Samples, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    if samples.is_blocks:
        found: NDArray[np.int64] = samples.times.positions(rows)  # type: ignore[attr-defined]
        return found
    sequence = samples.series.sequence
    return np.asarray(sequence(rows) - sequence(slice(0, 1))[0], np.int64)
