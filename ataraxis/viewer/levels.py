"""Levels: the minimum and maximum of a recording at every scale, kept beside it.

The base level has a column for each 32 samples, by their positions, which count lost
samples, too; each further level joins 8 columns to one. A column of which no sample is
there has a minimum above its maximum.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.errors import CorruptFrame
from ataraxis.log.archive import LogNode, Nodes
from ataraxis.log.fits import POSITIONS, load_fit
from ataraxis.log.row_times import RowTimes, row_times_of
from ataraxis.log.rows import TEXT
from ataraxis.log.series import Series

BASE, JOIN, LEVELS = 32, 8, 7
FOLDER = ".ataraxis-overview"
PIECE_BYTES = 1 << 22
VERSION = 2
_ABOUT = "about.json"
_PARTS = 4
"""A column is joined from at least so many of a level."""
_SAVE_S = 2.0
_FITTED = 20_000
"""More frames take seconds to be fitted."""
_LARGE = 1 << 20
"""Of entries of more bytes only the part that is needed is read."""
Ints = NDArray[np.int64]


class Samples:
    """The samples of one stream of a recording, by number: values and positions.

    Samples of more than one dimension are flattened: a channel is one value of them.
    With `is_quick`, blocks without a saved fit that would take long to be fitted have
    the times of the host.
    """

    def __init__(self, node: LogNode, *, is_quick: bool = False) -> None:
        self.name = node.name
        self._series = node.series(verify=False)
        self.is_fitted = not (is_quick and _takes_long(self._series))
        """Whether times are fitted, as far as they can be."""
        kind = None if self.is_fitted else "host"
        self.times: RowTimes = row_times_of(self._series, kind)
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
        self._is_large = self.is_blocks and self._series.row_bytes > _LARGE
        self.series = self._series

    def __len__(self) -> int:
        return len(self.times)

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Read samples, shape (n, channels): a copy."""
        if self._is_large and start < stop:
            return self._read_parts(start, stop)
        rows = slice(start, stop)
        found = (
            self.times.read(rows)  # type: ignore[attr-defined]
            if self.is_blocks
            else self._series.read(rows)
        )
        return np.ascontiguousarray(
            found.reshape(len(found), self.channels), self.dtype
        )

    def _read_parts(self, start: int, stop: int) -> NDArray[Any]:
        """Read samples of large entries, of which only a part may be needed."""
        out = np.empty((stop - start, self.channels), self.dtype)
        at = start
        while at < stop:
            row, inner = self.times.blocks.rows_of(  # type: ignore[attr-defined]
                np.array([at])
            )
            number = int(self._series.numbers(row)[0])
            found = self._series.source.frame(number, verify=False).array
            part = found[int(inner[0]) : int(inner[0]) + stop - at]
            out[at - start : at - start + len(part)] = part.reshape(len(part), -1)
            at += len(part)
        return out

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

    def few(self, start: int, most: int) -> NDArray[Any]:
        """Return at most so many samples from `start` on, of one entry of blocks.

        No more of a large entry is read. Empty if it is damaged.
        """
        if not self.is_blocks:
            return self.read(start, min(start + most, len(self)))
        rows, inner = self.times.blocks.rows_of(  # type: ignore[attr-defined]
            np.array([start])
        )
        number = int(self._series.numbers(rows)[0])
        try:
            found = self._series.source.frame(number, verify=False).array
        except (CorruptFrame, TypeError):
            return np.empty((0, self.channels), self.dtype)
        part = found[int(inner[0]) : int(inner[0]) + most]
        return np.ascontiguousarray(part.reshape(len(part), self.channels), self.dtype)


def _takes_long(series: Series) -> bool:
    """Return whether blocks have no usable fit, and are too many to be fitted now."""
    if not series.is_blocks or len(series) <= _FITTED:
        return False
    name = series.info.name or str(series.number)
    saved = load_fit(Path(series.source.path), name)
    return saved is None or saved.of != POSITIONS or saved.entries < len(series)


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


def folded(values: NDArray[Any], each: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return minimum and maximum of each `each` values along the first dimension."""
    is_float = values.dtype.kind == "f"
    least, most = (np.fmin, np.fmax) if is_float else (np.minimum, np.maximum)
    cut = values.reshape(-1, each, *values.shape[1:])
    if values[0].size == 1 or each & (each - 1):
        return least.reduce(cut, 1), most.reduce(cut, 1)
    # Halves onto each other: twice to ten times as fast, as rows are short.
    return _halved(cut, least), _halved(cut, most)


def _halved(cut: NDArray[Any], apply: np.ufunc) -> NDArray[Any]:
    while (half := cut.shape[1] // 2) > 0:
        cut = apply(cut[:, :half], cut[:, half:])
    return cut[:, 0]


class Levels:
    """The columns of one stream at every scale; made once, and kept in files.

    A recording that grew is continued; one that changed is read again. `extend` makes
    them bit by bit, so that something else can be done meanwhile. One thread uses it.
    """

    def __init__(self, samples: Samples, home: Path, identity: str) -> None:
        self.samples = samples
        self._store = LevelStore(_cached(home, samples.name, identity), samples)
        known = self._store.load(len(samples))
        self.begin = known["begin"] if known else 0
        """Position of the first sample of the first column."""
        self._until = known["samples"] if known else 0
        if not known and len(samples):
            self.begin = int(samples.positions(0, 1)[0]) // BASE * BASE
        self._total = len(samples)
        self._open: NDArray[Any] | None = None
        self._is_whole = False
        self._saved_s = time.monotonic()

    @property
    def until(self) -> int:
        """Number of the first sample that is in no column yet."""
        return self._total if self._is_whole else self._until

    @property
    def is_whole(self) -> bool:
        """Whether all samples are in columns."""
        return self._is_whole

    def complete(self) -> None:
        """Read all samples that were not read."""
        while self.extend():
            pass

    def extend(self) -> bool:
        """Read some megabytes more; return False once all are read."""
        if self._is_whole:
            return False
        samples, total, at = self.samples, self._total, self._until
        row_bytes = max(1, samples.channels * samples.dtype.itemsize)
        end = min(at + max(BASE, PIECE_BYTES // row_bytes // BASE * BASE), total)
        count = self._add(at, end) if at < end else 0
        if not count:
            self._finish()
            return False
        self._until += count
        self._join_up()
        self._save_sometimes()
        return True

    def _add(self, at: int, end: int) -> int:
        """Add the columns that samples complete; return how many samples these are."""
        samples, done = self.samples, self._store.counts[0]
        first, last = self._place(at), self._place(end - 1)
        if first == done * BASE and last - first == end - 1 - at:  # nothing is lost
            whole = (end - at) // BASE * BASE
            if whole:
                values = samples.read(at, at + whole)
                self._store.append(0, np.stack(folded(values, BASE), 1))
            return whole
        where = (samples.positions(at, end) - self.begin) // BASE
        where = np.maximum.accumulate(np.maximum(where, done))
        final = int(where[-1])  # further samples may belong to it
        count = int(np.searchsorted(where, final))
        if not count:
            if end == self._total:
                return 0
            count, final = end - at, final + 1  # stray ones: positions went back
        values = samples.read(at, at + count)
        bounds = reduced(values, where[:count] - done, final - done)
        self._store.append(0, np.stack(bounds, 1))
        return count

    def _place(self, sample: int) -> int:
        found = int(self.samples.positions(sample, sample + 1)[0])
        return found - self.begin

    def _join_up(self) -> None:
        """Add the columns of the further levels that have become complete."""
        store = self._store
        for k in range(LEVELS - 1):
            done = store.counts[k + 1]
            whole = store.counts[k] // JOIN
            if whole > done:
                store.append(
                    k + 1, joined(store.read(k, done * JOIN, whole * JOIN), JOIN)
                )

    def _save_sometimes(self) -> None:
        now = time.monotonic()
        if now - self._saved_s > _SAVE_S:
            self._saved_s = now
            self._store.save(self.begin, self._until)

    def _finish(self) -> None:
        """Keep the last column, which may grow, in memory only."""
        self._store.save(self.begin, self._until)
        shape = (0, 2, self.samples.channels)
        self._open = np.empty(shape, self.samples.dtype)
        if self._until < self._total:
            values = self.samples.read(self._until, self._total)
            done = self._store.counts[0]
            where = (
                self.samples.positions(self._until, self._total) - self.begin
            ) // BASE
            where = np.maximum.accumulate(np.maximum(where, done)) - done
            self._open = np.stack(reduced(values, where, int(where[-1]) + 1), 1)
        self._is_whole = True

    # ---- reading

    def size_for(self, samples: int) -> tuple[int, int]:
        """Return a level, and the samples of its columns: at most a quarter of some."""
        level = 0
        while level + 1 < LEVELS and BASE * JOIN ** (level + 1) * _PARTS <= samples:
            level += 1
        return level, BASE * JOIN**level

    def count(self, level: int) -> int:
        """Return how many columns a level has, by what was read so far."""
        base = self._store.counts[0] + (0 if self._open is None else len(self._open))
        return int(-(-base // JOIN**level))

    def read(self, level: int, start: int, stop: int) -> NDArray[Any]:
        """Return columns of a level, shape (columns, 2, channels), as far as read."""
        start, stop = max(start, 0), min(stop, self.count(level))
        done = self._store.counts[level]
        parts = [self._store.read(level, start, min(stop, done))]
        if stop > max(start, done):
            if level:
                low = max(start, done) * JOIN
                parts.append(joined(self.read(level - 1, low, stop * JOIN), JOIN))
            elif self._open is not None:
                parts.append(self._open[max(start - done, 0) : stop - done])
        parts = [part for part in parts if len(part)] or parts[:1]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def close(self) -> None:
        """Close the files."""
        self._store.close()


class LevelStore:
    """The files of the levels of one stream: they grow, and are mapped to be read.

    One process writes them; a further one that needs to meanwhile has files without a
    name, as one that cannot write the folder.
    """

    def __init__(self, folder: Path, samples: Samples) -> None:
        self._folder, self._samples = folder, samples
        self.counts = [0] * LEVELS
        """Columns of each level."""
        self._files: list[Any] = []
        self._lock = -1
        self._maps: list[NDArray[Any] | None] = [None] * LEVELS
        self._is_named = True
        self._column = 2 * samples.channels * samples.dtype.itemsize

    def load(self, total: int) -> dict[str, Any] | None:
        """Return what is known of the files; None: they are made again."""
        try:
            known = json.loads((self._folder / _ABOUT).read_text())
            counts = [int(count) for count in known["columns"]]
            is_good = (
                known["version"] == VERSION and len(counts) == LEVELS
                and known["dtype"] == self._samples.dtype.str
                and known["channels"] == self._samples.channels
                and 0 <= int(known["samples"]) <= total and int(known["begin"]) >= 0
                and all((self._folder / str(k)).stat().st_size >= count * self._column
                        for k, count in enumerate(counts) if count)
            )  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if not is_good:
            return None
        self.counts = counts
        return {"begin": int(known["begin"]), "samples": int(known["samples"])}

    # ---- writing

    def append(self, level: int, columns: NDArray[Any]) -> None:
        """Add columns to a level."""
        if not self._files:
            self._open()
        data = np.ascontiguousarray(columns)
        try:
            self._write(level, data)
        except OSError:
            if not self._is_named:
                raise
            self._move()
            self._write(level, data)
        self.counts[level] += len(data)

    def _write(self, level: int, data: NDArray[Any]) -> None:
        at, rest = (
            self.counts[level] * self._column,
            data.reshape(-1).view(np.uint8).data,
        )
        while len(rest):
            wrote = os.pwrite(self._files[level].fileno(), rest, at)
            at, rest = at + wrote, rest[wrote:]

    def _open(self) -> None:
        """Open the files to be written; those that are not known are made again."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._folder / ".lock", os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not any(self.counts):
                for k in (_ABOUT, *range(LEVELS)):
                    (self._folder / str(k)).unlink(missing_ok=True)
            for k in range(LEVELS):
                (self._folder / str(k)).touch()
                self._files.append((self._folder / str(k)).open("r+b"))
        except OSError:
            self._move()

    def _move(self) -> None:
        """Go on in files without a name."""
        found = [self.read(k, 0, count) for k, count in enumerate(self.counts)]
        self.close()
        self._is_named = False
        self._files = [tempfile.TemporaryFile() for _ in range(LEVELS)]  # noqa: SIM115
        counts, self.counts = self.counts, [0] * LEVELS
        for k, columns in enumerate(found):
            if len(columns):
                self._write(k, np.ascontiguousarray(columns))
        self.counts = counts

    def save(self, begin: int, samples: int) -> None:
        """Note what the files hold."""
        if not self._files or not self._is_named:
            return
        known = {
            "version": VERSION, "begin": begin, "samples": samples,
            "columns": self.counts, "channels": self._samples.channels,
            "dtype": self._samples.dtype.str,
        }  # fmt: skip
        part = self._folder / f"{_ABOUT}.part"
        with contextlib.suppress(OSError):
            part.write_text(json.dumps(known))
            part.replace(self._folder / _ABOUT)

    # ---- reading

    def read(self, level: int, start: int, stop: int) -> NDArray[Any]:
        """Return columns of a level: a view of the file."""
        shape = (0, 2, self._samples.channels)
        if stop <= start:
            return np.empty(shape, self._samples.dtype)
        kept = self._maps[level]
        if kept is None or len(kept) < stop:
            kept = self._maps[level] = self._map(level)
        return kept[start:stop]

    def _map(self, level: int) -> NDArray[Any]:
        file = self._files[level] if self._files else self._folder / str(level)
        shape = (self.counts[level], 2, self._samples.channels)
        return np.memmap(file, self._samples.dtype, "r", 0, shape).view(np.ndarray)

    def close(self) -> None:
        """Close the files; what was read stays valid."""
        for file in self._files:
            file.close()
        self._files, self._maps = [], [None] * LEVELS
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def joined(columns: NDArray[Any], each: int) -> NDArray[Any]:
    """Join each so many columns, (n, 2, channels), to one; the last may be of fewer."""
    is_float = columns.dtype.kind == "f"
    least, most = (np.fmin, np.fmax) if is_float else (np.minimum, np.maximum)
    whole = len(columns) // each
    rest = columns[whole * each :]
    out = np.empty((whole + bool(len(rest)), *columns.shape[1:]), columns.dtype)
    cut = columns[: whole * each].reshape(whole, each, *columns.shape[1:])
    if each & (each - 1):
        least.reduce(cut[:, :, 0], 1, out=out[:whole, 0])
        most.reduce(cut[:, :, 1], 1, out=out[:whole, 1])
    elif whole:
        out[:whole, 0] = _halved(cut[:, :, 0], least)
        out[:whole, 1] = _halved(cut[:, :, 1], most)
    if len(rest):
        out[whole, 0] = least.reduce(rest[:, 0], 0)
        out[whole, 1] = most.reduce(rest[:, 1], 0)
    return out


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
    """Return the folder of a stream's columns: beside it, or in the cache."""
    safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:80]
    file = f"{safe}-{identity}"
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
