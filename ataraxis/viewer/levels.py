"""Levels: the minimum and maximum of a recording at every scale, kept beside it.

The base level has a column for each 32 samples, by their positions, which count lost
samples, too; each further level joins 8 columns to one. A column of which no sample is
there has a minimum above its maximum.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.log.archive import LogNode, Nodes
from ataraxis.log.row_times import RowTimes, row_times_of
from ataraxis.log.rows import TEXT

BASE, JOIN = 32, 8
FOLDER = ".ataraxis-overview"
PIECE_BYTES = 1 << 22
VERSION = 1
_FLAGS = 1 << 20
Ints = NDArray[np.int64]


class Samples:
    """The samples of one stream of a recording, by number: values and positions.

    Samples of more than one dimension are flattened: a channel is one value of them.
    """

    def __init__(self, node: LogNode) -> None:
        self.name = node.name
        self._series = node.series(verify=False)
        self.times: RowTimes = row_times_of(self._series)
        dtype = self._series.dtype
        if dtype == TEXT or dtype.kind not in "iufb":
            raise ValueError(
                f"stream {node.name!r} is {'text' if dtype == TEXT else dtype}: "
                "an overview shows numbers"
            )
        self.dtype = np.dtype("u1") if dtype.kind == "b" else dtype.newbyteorder("=")
        self.is_blocks = self._series.is_blocks
        shape = self._series.shape[1:] if self.is_blocks else self._series.shape
        self.channels = int(np.prod(shape, dtype=np.int64))
        self.attrs = dict(self._series.attrs)
        self.names = _channel_names(self._series, shape)
        self.series = self._series

    def __len__(self) -> int:
        return len(self.times)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Read samples, shape (n, channels): a copy."""
        rows = slice(start, stop)
        found = (
            self.times.read(rows)  # type: ignore[attr-defined]
            if self.is_blocks
            else self._series.read(rows)
        )
        return np.ascontiguousarray(found.reshape(len(found), -1), self.dtype)

    def positions(self, start: int, stop: int) -> Ints:
        """Return positions of samples: those of blocks count lost ones, too."""
        rows = np.arange(start, stop, dtype=np.int64)
        if self.is_blocks:
            return self.times.positions(rows)  # type: ignore[attr-defined,no-any-return]
        first = self._series.sequence(slice(0, 1))
        found = self._series.sequence(slice(start, stop)) - first[0]
        return np.asarray(found, np.int64)

    def at(self, rows: Ints) -> NDArray[Any]:
        """Return the times of samples."""
        return self.times.at(rows)


def _channel_names(series: Any, shape: tuple[int, ...]) -> list[str] | None:
    """Return the coordinate of a sample's only dimension, if it has one."""
    labels = series.labels
    if labels is None or len(shape) != 1:
        return None
    dim = series.dims[-1]
    coord = labels.coords.get(dim)
    if coord is None or coord.dims != (dim,):
        return None
    return [str(value) for value in coord.values]


def empty_bounds(dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """Return minimum and maximum of a column without samples."""
    if dtype.kind == "f":
        return np.inf, -np.inf
    info = np.iinfo(dtype)
    return info.max, info.min


def reduced(
    values: NDArray[Any], columns: Ints, count: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return minimum and maximum of `count` columns, (count, channels) each.

    `columns` are those of the values, not decreasing, from 0. NaN is not a sample.
    """
    dtype = values.dtype
    least, most = (np.fmin, np.fmax) if dtype.kind == "f" else (np.minimum, np.maximum)
    low_of, high_of = empty_bounds(dtype)
    low = np.full((count, values.shape[1]), low_of, dtype)
    high = np.full((count, values.shape[1]), high_of, dtype)
    if len(values):
        starts = np.flatnonzero(np.diff(columns, prepend=columns[0] - 1))
        at = columns[starts]
        # Columns of equally many samples are a dozen times as fast.
        each = int(starts[1]) if len(starts) > 1 else len(values)
        even = len(values) // each
        if not np.array_equal(starts[:even], np.arange(even) * each):
            even = 0
        if even == len(starts) and even * each != len(values):
            even -= 1  # the last one has more
        if even:
            cut = values[: even * each].reshape(even, each, -1)
            low[at[:even]], high[at[:even]] = least.reduce(cut, 1), most.reduce(cut, 1)
        if even < len(starts):
            low[at[even:]] = least.reduceat(values, starts[even:], 0)
            high[at[even:]] = most.reduceat(values, starts[even:], 0)
        if dtype.kind == "f":
            none = np.isnan(low)
            low[none], high[none] = low_of, high_of
    return low, high


class Levels:
    """The columns of one stream at every scale; made once, and kept in a file.

    A recording that grew is continued; one that changed is read again.
    """

    def __init__(self, samples: Samples, home: Path, identity: str) -> None:
        self.samples = samples
        self._lock = threading.Lock()
        self._path = _cached(home, samples.name, identity)
        self._levels: list[NDArray[Any]] = []
        self.begin = 0
        """Position of the first sample of the first column."""
        self._until = self._saved = 0

    def level(self, factor: int) -> tuple[int, NDArray[Any]]:
        """Return the coarsest level of at most `factor` samples a column.

        Returns
        -------
        int
            Samples of a column.
        ndarray
            Shape (columns, 2, channels): minimum and maximum, from position `begin`.
        """
        with self._lock:
            self._update()
            size, place = BASE, 0
            while size * JOIN <= factor and place + 1 < len(self._levels):
                size, place = size * JOIN, place + 1
            return size, self._levels[place]

    def _update(self) -> None:
        """Read the samples that came since the last time."""
        total = len(self.samples)
        if not self._levels:
            self._load()
        if self._levels and self._until == total:
            if len(self._levels) == 1:
                self._levels = _all_levels(self._levels[0])
            return
        parts = [self._levels[0]] if self._levels else []
        if not parts and total:
            self.begin = int(self.samples.positions(0, 1)[0]) // BASE * BASE
        parts += list(self._columns(self._until, total, sum(map(len, parts))))
        shape = (0, 2, self.samples.channels)
        base = np.concatenate(parts) if parts else np.empty(shape, self.samples.dtype)
        self._until = total
        self._levels = _all_levels(base)
        self._save(base)

    def _columns(self, start: int, stop: int, done: int) -> Iterator[NDArray[Any]]:
        """Yield further columns of the base, of samples `start` to `stop`.

        The last column of those that are done was complete: see `_save`.
        """
        samples = self.samples
        row_bytes = max(1, samples.channels * samples.dtype.itemsize)
        step = max(BASE, PIECE_BYTES // row_bytes // BASE * BASE)
        open_values = np.empty((0, samples.channels), samples.dtype)
        open_columns = np.empty(0, np.int64)
        at = start
        while at < stop:
            end = min(at + step, stop)
            values = samples.read(at, end)
            where = (samples.positions(at, end) - self.begin) // BASE
            where = np.maximum.accumulate(np.maximum(where, done))
            values = np.concatenate([open_values, values])
            where = np.concatenate([open_columns, where])
            last = int(where[-1])
            is_open = where == last
            if end < stop:
                open_values, open_columns = values[is_open], where[is_open]
                values, where = values[~is_open], where[~is_open]
                last -= 1
            if last >= done:
                low, high = reduced(values, where - done, last + 1 - done)
                yield np.stack([low, high], 1)
                done = last + 1
            at = end

    # ---- the file

    def _load(self) -> None:
        with contextlib.suppress(OSError, EOFError, ValueError, KeyError, TypeError):
            known = json.loads(self._path.with_suffix(".json").read_text())
            base = np.load(self._path, allow_pickle=False)
            shape = (known["columns"], 2, self.samples.channels)
            if base.shape != shape or base.dtype != self.samples.dtype:
                return
            until = int(known["samples"])
            if not 0 <= until <= len(self.samples):
                return
            self.begin, self._until = int(known["begin"]), until
            self._saved = known["columns"]
            self._levels = [base]

    def _save(self, base: NDArray[Any]) -> None:
        """Keep whole columns: the last may grow. A folder that cannot be written is
        left alone.
        """
        whole = max(len(base) - 1, 0)
        if whole <= self._saved:
            return
        self._saved = whole
        until = self._first_of(self.begin + whole * BASE)
        known = {"version": VERSION, "begin": self.begin, "columns": whole,
                 "samples": until}  # fmt: skip
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part = self._path.with_name(f"{self._path.name}.{os.getpid()}")
            try:
                with part.open("wb") as file:
                    np.save(file, base[:whole], allow_pickle=False)
                self._path.with_suffix(".json").unlink(missing_ok=True)
                part.replace(self._path)
                self._path.with_suffix(".json").write_text(json.dumps(known))
            finally:
                part.unlink(missing_ok=True)

    def _first_of(self, position: int) -> int:
        """Return the number of the first sample at or behind a position."""
        low, high = 0, len(self.samples)
        while low < high:
            middle = (low + high) // 2
            if int(self.samples.positions(middle, middle + 1)[0]) < position:
                low = middle + 1
            else:
                high = middle
        return low


def joined(columns: NDArray[Any], each: int) -> NDArray[Any]:
    """Join each so many columns, (n, 2, channels), to one; the last may be of fewer."""
    is_float = columns.dtype.kind == "f"
    least, most = (np.fmin, np.fmax) if is_float else (np.minimum, np.maximum)
    whole = len(columns) // each
    rest = columns[whole * each :]
    out = np.empty((whole + bool(len(rest)), *columns.shape[1:]), columns.dtype)
    cut = columns[: whole * each].reshape(whole, each, 2, -1)
    least.reduce(cut[:, :, 0], 1, out=out[:whole, 0])
    most.reduce(cut[:, :, 1], 1, out=out[:whole, 1])
    if len(rest):
        out[whole, 0] = least.reduce(rest[:, 0], 0)
        out[whole, 1] = most.reduce(rest[:, 1], 0)
    return out


def _all_levels(base: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the base, and levels of which each joins columns of the one before."""
    levels = [base]
    while len(levels[-1]) > JOIN:
        levels.append(joined(levels[-1], JOIN))
    return levels


def identity_of(node: LogNode) -> str:
    """Return what tells a recording from another at its place: how its files begin."""
    path = Path(node.home.path)
    files = sorted(path.glob("*")) if path.is_dir() else [path]
    digest = hashlib.blake2b(digest_size=8)
    prefix = node.journal
    for file in files:
        if prefix is not None and not file.name.startswith(prefix):
            continue
        if file.is_file() and file.suffix in (".axj", ".npz"):
            digest.update(file.name.encode())
            with file.open("rb") as opened:
                digest.update(opened.read(256))
            break
    digest.update(f"{node.info.number} {node.name} {VERSION}".encode())
    return digest.hexdigest()


def _cached(home: Path, name: str, identity: str) -> Path:
    """Return where the columns of a stream are kept: beside it, or in the cache."""
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:80]
    file = f"{safe}-{identity}.npy"
    folder = home if home.is_dir() else home.parent
    if os.access(folder, os.W_OK):
        return folder / FOLDER / file
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "ataraxis" / "overview" / file


def open_samples(
    path: str | os.PathLike[str], stream: str | None
) -> tuple[Nodes, LogNode]:
    """Open one stream of a recording; close the nodes."""
    nodes = Nodes(path)
    try:
        return nodes, nodes.find(stream)
    except BaseException:
        nodes.close()
        raise
