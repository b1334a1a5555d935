"""Recordings of PhysioNet: WFDB headers, signals and annotations, through ``wfdb``.

A header names the files of its signals. Only files beside it are read, and the declared
amount of data is compared with their size before ``wfdb`` reads them.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ataraxis.config.limits import FILES
from ataraxis.datamux.description import Field, Stream
from ataraxis.datamux.folder import Folder, OpenedFile, SuffixFormat
from ataraxis.errors import RecordingError
from ataraxis.log.optional import need

ANNOTATOR = "annotator"


class Wfdb(SuffixFormat):
    """``wfdb://{record}``: the signals of a record, or the annotations beside it.

    A float field has the physical value, an integer field the value of the converter.
    In a record with several rates the stream ``signals_200hz`` has the signals of
    200 Hz. A stream whose attrs have ``annotator`` (``"atr"``) is the file of that
    suffix, an event stream with the fields ``symbol`` and ``sample``.
    """

    suffix = ".hea"

    def columns(
        self, folder: Folder, key: str, stream_id: str, stream: Stream
    ) -> Mapping[str, NDArray[Any]]:
        """Read the declared signals, or the annotations."""
        if ANNOTATOR in stream.attrs:
            return _annotations(folder, key, str(stream.attrs[ANNOTATOR]))
        with _record(folder, key) as (path, shown):
            return self._signals(path, shown, stream)

    def _signals(
        self, path: Path, shown: str, stream: Stream
    ) -> Mapping[str, NDArray[Any]]:
        header = _header(path, shown)
        is_physical = any(f.numpy_dtype.kind == "f" for f in stream.fields.values())
        missing = [name for name in stream.fields if name not in header.names]
        if missing:
            raise RecordingError(
                f"{shown}.hea: no signal {missing[0]!r}: found {header.names}"
            )
        rates = {header.rates[header.names.index(name)] for name in stream.fields}
        if len(rates) > 1:
            raise RecordingError(
                f"{shown}.hea: the fields {[*stream.fields]} have "
                f"{sorted(rates)} Hz: declare a stream for each rate"
            )
        rate = rates.pop() if rates else header.fs
        if stream.rate_hz is not None and stream.rate_hz != rate:
            raise RecordingError(
                f"{shown}.hea: {rate} Hz, the stream declares {stream.rate_hz} Hz"
            )
        # Otherwise wfdb averages several samples of a frame to one.
        has_frames = any(own != header.fs for own in header.rates)
        record = _read(path, shown, is_physical, has_frames)
        if has_frames:
            signals = record.e_p_signal if is_physical else record.e_d_signal
        else:
            signals = (record.p_signal if is_physical else record.d_signal).T
        columns = {
            name: np.asarray(signal)
            for name, signal, own in zip(
                header.names, signals, header.rates, strict=True
            )
            if own == rate
        }
        n = len(next(iter(columns.values()), ()))
        return {"t": np.arange(n) / rate, **columns}

    def describe(self, folder: Folder, key: str) -> dict[str, Stream]:
        """Return the streams of a record: ``signals`` and each annotator."""
        with _record(folder, key) as (path, shown):
            header = _header(path, shown)
        found = {}
        for rate in dict.fromkeys(header.rates):
            name = "signals" if len({*header.rates}) == 1 else f"signals_{rate:g}hz"
            found[name] = Stream(
                header.record, frequency=rate,
                fields={
                    field: Field(field, dtype="f64", unit=unit)
                    for field, unit, own in zip(
                        header.names, header.units, header.rates, strict=True
                    )
                    if own == rate
                },
                index={"t": Field("time", unit="s")},
                attrs={"id": name, "comments": header.comments},
            )  # fmt: skip
        for suffix in _suffixes(folder, key):
            if suffix not in ("hea", "dat", "xws", "mat") and _is_annotator(
                folder, f"{key}.{suffix}"
            ):
                fields = {
                    "symbol": Field("annotation", dtype="str"),
                    "sample": Field("sample", dtype="i64"),
                }
                found[suffix] = Stream(
                    f"{header.record} {suffix}", fields=fields,
                    index={"t": Field("time", unit="s")},
                    attrs={"id": suffix, ANNOTATOR: suffix},
                )  # fmt: skip
        return found


def _suffixes(folder: Folder, key: str) -> list[str]:
    parent, _, record = key.rpartition("/")
    for inside, names in folder.walk():
        if inside == parent:
            stems = [name for name in names if name.startswith(f"{record}.")]
            return sorted({name.rpartition(".")[2] for name in stems})
    return []


def _is_annotator(folder: Folder, name: str) -> bool:
    """Whether a file is words of two bytes, the last one 0, as annotations are."""
    if not _PLAIN.fullmatch(name.rpartition("/")[2]):
        return False
    with folder.opened(name) as opened:
        if opened.size < 2 or opened.size % 2:
            return False
        opened.file.seek(opened.size - 2)
        return bool(opened.file.read(2) == b"\0\0")


class _Header(NamedTuple):
    """The signals of a header, also of a record of several segments."""

    record: str
    fs: float
    names: list[str]
    """Unique: the second signal named ``ECG`` is ``ECG#2``."""
    units: list[str]
    rates: list[float]
    comments: list[str]


def _header(path: Path, shown: str) -> _Header:
    wfdb = need("wfdb", "wfdb", "a WFDB recording")
    try:
        found = wfdb.rdheader(str(path))
        described = found
        if getattr(found, "seg_name", None) is not None:
            segments = wfdb.rdheader(str(path), rd_segments=True).segments
            described = next(s for s in segments if s is not None)
        given = described.sig_name or []
        count = len(given)
        frames = described.samps_per_frame or [1] * count
        names: list[str] = []
        times: Counter[str] = Counter()
        for k, name in enumerate(given):
            own = name or f"ch{k}"
            times[own] += 1
            names.append(own if times[own] == 1 else f"{own}#{times[own]}")
        if len(set(names)) < count:
            names = [f"ch{k}" for k in range(count)]
        return _Header(
            str(found.record_name), float(found.fs), names,
            [unit or "" for unit in described.units or [""] * count],
            [float(found.fs) * (each or 1) for each in frames],
            list(found.comments or []),
        )  # fmt: skip
    except Exception as error:  # wfdb may raise anything
        raise RecordingError(f"{shown}.hea: not a WFDB header: {error}") from error


def _read(path: Path, shown: str, is_physical: bool, has_frames: bool) -> Any:
    wfdb = need("wfdb", "wfdb", "a WFDB recording")
    try:
        return wfdb.rdrecord(
            str(path), physical=is_physical, smooth_frames=not has_frames
        )
    except Exception as error:  # wfdb may raise anything
        raise RecordingError(f"{shown}: cannot read its signals: {error}") from error


def _annotations(folder: Folder, key: str, suffix: str) -> Mapping[str, NDArray[Any]]:
    wfdb = need("wfdb", "wfdb", "a WFDB recording")
    if not _PLAIN.fullmatch(suffix) or not folder.is_there(f"{key}.{suffix}"):
        raise folder.not_there(f"{key}.{suffix}")
    with _record(folder, key, suffix) as (path, shown):
        header = _header(path, shown)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # deprecations of pandas in wfdb
                read = wfdb.rdann(str(path), suffix)
        except Exception as error:  # wfdb may raise anything
            raise RecordingError(
                f"{shown}.{suffix}: not WFDB annotations: {error}"
            ) from error
        sample = np.asarray(read.sample, np.int64)
        symbols = np.array(read.symbol, "U") if len(sample) else np.empty(0, "U1")
        rate = float(read.fs or header.fs)  # annotations may have their own rate
    return {"t": sample / rate, "sample": sample, "symbol": symbols}


# ---- the files of a record, opened here, and passed to wfdb in a folder of links

_PLAIN = re.compile(r"[A-Za-z0-9_\-][A-Za-z0-9_.\-]*")
_FORMAT = re.compile(r"\d+(?:x(?P<frame>\d+))?(?::(?P<skew>\d+))?(?:\+(?P<at>\d+))?")
_NULL = "~"  # a missing file or segment


@contextlib.contextmanager
def _record(folder: Folder, key: str, *suffixes: str) -> Iterator[tuple[Path, str]]:
    """Open the files of a record; yield its path for wfdb, and its name."""
    if not folder.is_there(f"{key}.hea"):
        raise folder.not_there(f"{key}.hea")
    parent, _, record = key.rpartition("/")
    place = f"{parent}/" if parent else ""
    with contextlib.ExitStack() as stack:
        links = Path(stack.enter_context(tempfile.TemporaryDirectory("-wfdb")))
        files: dict[str, OpenedFile] = {}

        def use(name: str) -> OpenedFile:
            if name not in files:
                if len(files) >= FILES.streams:
                    raise RecordingError(f"{folder.shown(key)}: too many files")
                opened = stack.enter_context(folder.opened(f"{place}{name}"))
                os.symlink(f"/proc/self/fd/{opened.file.fileno()}", links / name)
                files[name] = opened
            return files[name]

        use(f"{record}.hea")
        declared = _declared(use, record, folder.shown(key), 0)
        size = sum(opened.size for opened in files.values())
        for suffix in suffixes:
            use(f"{record}.{suffix}")
        files[f"{record}.hea"]._replace(size=size).check(declared, "the header")
        with folder.reworded(str(links / record), folder.shown(key)):
            yield links / record, folder.shown(key)


def _declared(use: Any, record: str, shown: str, depth: int) -> int:
    """Open the files that a header names; return the declared size in bytes."""
    opened = use(f"{record}.hea")
    if opened.size > FILES.text_bytes:
        raise RecordingError(
            f"{shown}.hea: {opened.size} bytes are too long for a header"
        )
    opened.file.seek(0)
    text = opened.file.read().decode("latin-1")
    lines = [line for line in text.splitlines() if line.strip()[:1] not in ("", "#")]
    if not lines:
        raise RecordingError(f"{shown}.hea: not a WFDB header: empty")
    words = lines[0].split()
    segments = words[0].partition("/")[2]
    try:
        signals = int(words[1]) if len(words) > 1 else 0
        samples = int(words[3]) if len(words) > 3 else 0
        count = int(segments) if segments else 0
    except ValueError as error:
        raise RecordingError(f"{shown}.hea: not a WFDB header: {error}") from error
    if max(signals, count) > FILES.columns or min(signals, samples, count) < 0:
        raise RecordingError(
            f"{shown}.hea: {signals} signals, {count} segments: at most "
            f"{FILES.columns} are read"
        )
    if segments:
        return _segments(use, lines[1 : 1 + count], signals, shown, depth)
    longest, values = samples, 0
    for line in lines[1 : 1 + signals]:
        parts = line.split()
        form = _FORMAT.match(parts[1]) if len(parts) > 1 else None
        if form is None:
            raise RecordingError(f"{shown}.hea: not a signal: {line[:80]!r}")
        per_frame = int(form["frame"] or 1)
        if int(form["skew"] or 0) > max(samples, 2**20):
            raise RecordingError(
                f"{shown}.hea: skew of {form['skew']} samples is too large"
            )
        if parts[0] != _NULL:
            size = _beside(use, parts[0], shown).size
            longest = max(longest, 0 if samples else size)
        values += max(1, per_frame)
    return longest * values * 8


def _segments(use: Any, lines: list[str], signals: int, shown: str, depth: int) -> int:
    total = nbytes = 0
    seen: dict[str, int] = {}
    for line in lines:
        parts = line.split()
        try:
            length = int(parts[1])
        except (IndexError, ValueError) as error:
            raise RecordingError(
                f"{shown}.hea: not a segment: {line[:80]!r}"
            ) from error
        total += max(0, length)
        name = parts[0]
        if name == _NULL or name in seen:
            nbytes += seen.get(name, 0)
            continue
        if depth or not _PLAIN.fullmatch(name):
            raise RecordingError(f"{shown}.hea: segment {name[:80]!r}: not a record")
        try:
            seen[name] = _declared(use, name, f"{shown}: segment {name}", depth + 1)
        except FileNotFoundError as error:
            raise RecordingError(f"{shown}.hea: missing segment {name!r}") from error
        nbytes += seen[name]
    return nbytes + total * signals * 8


def _beside(use: Any, name: str, shown: str) -> OpenedFile:
    """Open a file that a header names, if it is beside the header."""
    if not _PLAIN.fullmatch(name):
        raise RecordingError(
            f"{shown}.hea: signals in {name[:80]!r}: only files beside the header are "
            "read"
        )
    try:
        opened: OpenedFile = use(name)
    except FileNotFoundError as error:
        raise RecordingError(f"{shown}: missing file of signals: {name}") from error
    return opened
