"""Formats of recordings, by the name at the start of a pattern.

The protocol of a format is here; each format is in a file of ``sources``.
"""

from __future__ import annotations

import difflib
import importlib
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ataraxis.config.limits import FILES
from ataraxis.datamux.description import DTYPES, Field, Stream
from ataraxis.datamux.folder import Folder
from ataraxis.datamux.recording import Recording, damage_named
from ataraxis.datamux.sources.arrays import npz_arrays, npz_members
from ataraxis.errors import ConfigError, RecordingError
from ataraxis.labels import RATES, given_rate

_HOME: dict[str, tuple[str, str]] = {
    "csv": ("tables", "Csv"),
    "npy": ("arrays", "Npy"),
    "npz": ("arrays", "Npz"),
    "parquet": ("tables", "Parquet"),
    "h5": ("hdf5", "Hdf5"),
    "wfdb": ("wfdb", "Wfdb"),
    "xdf": ("xdf", "Xdf"),
    "nwb": ("nwb", "Nwb"),
    "log": ("logs", "Logs"),
}


class RecordingFormat(Protocol):
    """Lists and reads recordings of one format."""

    def keys(self, folder: Folder) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """Return the path, without suffix, and the attributes of each recording."""

    def columns(
        self, folder: Folder, key: str, stream_id: str, stream: Stream
    ) -> Mapping[str, NDArray[Any]]:
        """Read the columns of one stream of a recording.

        Raises `FileNotFoundError`; or `RecordingError` if it is damaged, or does not
        contain the stream.
        """


def format_of(name: str) -> RecordingFormat:
    """Return the format that a pattern names; raise `ConfigError` if it is unknown."""
    if name not in _HOME:
        close = difflib.get_close_matches(name, _HOME, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(
            f"unknown format {name!r}: known are {', '.join(_HOME)}{hint}"
        )
    module, kind = _HOME[name]
    found = importlib.import_module(f"ataraxis.datamux.sources.{module}")
    made: RecordingFormat = getattr(found, kind)()
    return made


# ---- files that describe themselves, opened without a collection

_SUFFIXES = {
    ".hea": "wfdb", ".dat": "wfdb", ".xdf": "xdf", ".nwb": "nwb", ".axj": "log",
    ".npz": "log",
}  # fmt: skip


def open_recordings(path: str | Path, *, times: str = "file") -> dict[str, Recording]:
    """Open every stream of an XDF, WFDB or NWB file, or of a log of ataraxis.

    Parameters
    ----------
    path : str or Path
        ``x.xdf``, ``x.nwb``, ``x.hea`` of a WFDB record, the directory or archive of
        a log of a `Recorder` or `DataLogger`, or ``x.npz`` with columns of one length
        and their times ``t``, s, or one number ``sample_rate_hz`` (or ``rate_hz``).
    times : str, optional
        Of XDF: ``file``, as pyxdf corrects them, or ``fitted``: those as written,
        converted by a fit of the file's clock offsets, with the largest error of each
        in the index ``bound``, s.

    Returns
    -------
    dict of str to Recording
        By the names of the streams in the file; of WFDB ``signals`` and each annotator,
        such as ``atr``; of a log its numeric sources. A stream that cannot be read is
        left out with a warning, and raises its error when it is looked up.

    Raises
    ------
    FileNotFoundError
        The file does not exist.
    RecordingError
        The file is damaged, or none of its streams can be read.
    ValueError
        The file has another format, and needs a collection that describes it; or
        fitted times of a file that is not XDF.
    """
    file = Path(path)
    return recordings_in(Folder(file.parent), file.name, times)


def recordings_in(
    folder: Folder, name: str, times: str = "file"
) -> dict[str, Recording]:
    """Open every stream of a file, or log, of a folder; as `open_recordings`."""
    inside, _, last = name.rpartition("/")
    folder = folder.below(inside) if inside else folder
    stem, suffix = _split(last)
    options = {} if times == "file" else {"times": times}
    if options and suffix.lower() != ".xdf":
        raise ValueError(
            f"{folder.shown(last)}: times={times!r} is for XDF, which has offsets"
            " of clocks; fit the clock of others by ataraxis.clock"
        )
    if suffix.lower() == ".npz" and (found := _columns(folder, last)) is not None:
        return {stem: found}
    kind = "log" if folder.is_folder(last) else _SUFFIXES.get(suffix.lower())
    if kind is None:
        raise ValueError(
            f"{folder.shown(last)}: only {', '.join(_SUFFIXES)} describe themselves; "
            "describe it by a collection, or make a Recording of its columns"
        )
    made: Any = format_of(kind)
    key = last if kind == "log" else stem
    where = f"{folder.shown(last)} ({kind})"
    recordings = _Recordings()
    with damage_named(where):
        described = made.describe(folder, key, **options)
    for stream_id, stream in described.items():
        try:
            with damage_named(where):
                columns = made.columns(folder, key, stream_id, stream)
                recordings[stream_id] = Recording.of(stream, columns, where)
        except RecordingError as error:
            recordings.problems[stream_id] = error
    if recordings.problems and not recordings:
        raise next(iter(recordings.problems.values()))
    for stream_id, problem in recordings.problems.items():
        warnings.warn(
            f"stream {stream_id!r} is left out: {problem}", RuntimeWarning, stacklevel=3
        )
    return recordings


class _Recordings(dict[str, Recording]):
    """The recordings of a file; a stream that was left out raises when it is read."""

    def __init__(self) -> None:
        super().__init__()
        self.problems: dict[str, RecordingError] = {}

    def __missing__(self, stream_id: str) -> Recording:
        if stream_id in self.problems:
            raise self.problems[stream_id]
        raise KeyError(stream_id)


def _split(name: str) -> tuple[str, str]:
    stem, dot, suffix = name.rpartition(".")
    return (stem, f".{suffix}") if dot and stem else (name, "")


def _kind(values: NDArray[Any]) -> str:
    """Return the name of a dtype in metadata; `RecordingError` if it has none."""
    native = values.dtype.newbyteorder("=")
    for name, kind in DTYPES.items():
        dtype = np.dtype(kind)
        if native == dtype or (native.kind == dtype.kind in "US"):
            return name
    raise RecordingError(f"a column of {values.dtype}: expected {', '.join(DTYPES)}")


def _columns(folder: Folder, name: str) -> Recording | None:
    """Read plain columns and their times or rate; None if the file is not of these."""
    stem = _split(name)[0]
    with folder.opened(name) as opened:
        members = npz_members(opened)
        if not {"t", *RATES} & {*members}:
            return None
        columns = npz_arrays(opened, [*members])
        where = f"{opened.shown} (npz)"
        with damage_named(where):
            return _recording_of(stem, columns, where)


def _recording_of(stem: str, columns: dict[str, NDArray[Any]], where: str) -> Recording:
    rate = given_rate(columns)
    columns = {name: found for name, found in columns.items() if name not in RATES}
    if rate is not None and rate.size != 1:
        raise RecordingError(
            f"{where}: {RATES[0]}: expected one number, found {rate!r}"
        )
    fields, flat = {}, {}
    for name, column in columns.items():
        if name == "t":
            continue
        if not column.ndim:
            raise RecordingError(f"{where}: {name!r} is one value, not a column")
        parts = {name: column}
        if column.ndim == 2:
            if column.shape[1] > FILES.columns:
                raise RecordingError(
                    f"{where}: {name!r}: {column.shape[1]} columns, at most "
                    f"{FILES.columns} are read"
                )
            names = [f"{name}{i}" for i in range(column.shape[1])]
            if {*names} & {*columns}:
                names = [f"{name}[{i}]" for i in range(column.shape[1])]
            parts = {own: column[:, i] for i, own in enumerate(names)}
        for part, values in parts.items():
            fields[part] = Field(part, dtype=_kind(values), shape=values.shape[1:])
            flat[part] = values
    stream = Stream(
        stem, frequency=None if rate is None else float(rate.item()), fields=fields,
        index={"t": Field("time", unit="s")}, attrs={"id": stem},
    )  # fmt: skip
    if "t" in columns:
        flat["t"] = columns["t"]
    return Recording.of(stream, flat, where)
