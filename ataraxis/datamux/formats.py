"""Formats of recordings, by the name at the start of a pattern.

The protocol of a format is here; each format is in a file of ``sources``.
"""

from __future__ import annotations

import difflib
import importlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ataraxis.config.limits import FILES
from ataraxis.datamux.description import DTYPES, Field, Stream
from ataraxis.datamux.folder import Folder, OpenedFile
from ataraxis.datamux.recording import Recording, damage_named
from ataraxis.datamux.sources.arrays import npz_arrays, npz_members
from ataraxis.datamux.sources.mne import READERS as MNE_READERS
from ataraxis.datamux.sources.neo import FILES_OF, FOLDERS_OF, reader_of
from ataraxis.datamux.sources.nwb_zarr import SUFFIX as NWB_ZARR
from ataraxis.datamux.sources.pose import is_deeplabcut
from ataraxis.datamux.sources.pycontrol import is_pycontrol
from ataraxis.errors import ConfigError, RecordingError
from ataraxis.labels import RATES, given_rate

# Name -> module, class and, of formats of several suffixes, the suffix.
_HOME: dict[str, tuple[str, ...]] = {
    "csv": ("tables", "Csv"),
    "npy": ("arrays", "Npy"),
    "npz": ("arrays", "Npz"),
    "parquet": ("tables", "Parquet"),
    "h5": ("hdf5", "Hdf5"),
    "wfdb": ("wfdb", "Wfdb"),
    "xdf": ("xdf", "Xdf"),
    "nwb": ("nwb", "Nwb"),
    "nwb_zarr": ("nwb_zarr", "NwbZarr"),
    "log": ("logs", "Logs"),
    "edf": ("edf", "Edf"),
    "bdf": ("edf", "Edf", ".bdf"),
    "wav": ("audio", "Sound"),
    "flac": ("audio", "Sound", ".flac"),
    "neo": ("neo", "Neo"),
    "mne": ("mne", "Mne"),
    "mat": ("matlab", "Matlab"),
    "hdf5": ("hdf5_any", "Hdf5File"),
    "netcdf": ("gridded", "Gridded", ".nc"),
    "zarr": ("gridded", "Gridded", ".zarr"),
    "video": ("video", "Video"),
    "avi": ("video", "Video", ".avi"),
    "mkv": ("video", "Video", ".mkv"),
    "mov": ("video", "Video", ".mov"),
    "tiff": ("tiff", "Tiff"),
    "dlc": ("pose", "DeepLabCut"),
    "harp": ("harp", "Harp"),
    "pycontrol": ("pycontrol", "PyControl"),
    "pycontrol_txt": ("pycontrol", "PyControl", ".txt"),
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
        contain the stream. A format that reads samples when they are asked for has
        ``recording(folder, key, stream, where)`` instead, a `LazyRecording`.
        """


def read_stream(
    made: Any, folder: Folder, key: str, stream_id: str, stream: Stream, where: str
) -> Recording:
    """Return one stream of a recording, of either kind of format."""
    with damage_named(where):
        if hasattr(made, "recording"):
            found: Recording = made.recording(folder, key, stream, where)
            return found
        return Recording.of(stream, made.columns(folder, key, stream_id, stream), where)


def format_of(name: str) -> RecordingFormat:
    """Return the format that a pattern names; raise `ConfigError` if it is unknown."""
    if name not in _HOME:
        close = difflib.get_close_matches(name, _HOME, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(
            f"unknown format {name!r}: known are {', '.join(_HOME)}{hint}"
        )
    return _made(*_HOME[name])


def _made(module: str, kind: str, *suffix: str) -> RecordingFormat:
    found = importlib.import_module(f"ataraxis.datamux.sources.{module}")
    made: RecordingFormat = getattr(found, kind)(*suffix)
    return made


# ---- files that describe themselves, opened without a collection

_SUFFIXES = {
    ".hea": "wfdb", ".dat": "wfdb", ".xdf": "xdf", ".xdfz": "xdf", ".nwb": "nwb",
    ".axj": "log", ".npz": "log", ".edf": "edf", ".bdf": "bdf", ".wav": "wav",
    ".flac": "flac", ".mat": "mat", ".h5": "hdf5", ".hdf5": "hdf5", ".nc": "netcdf",
    ".zarr": "zarr", ".mp4": "video", ".avi": "avi", ".mkv": "mkv", ".mov": "mov",
    ".tif": "tiff", ".tiff": "tiff", ".tsv": "pycontrol", ".bin": "harp",
    **dict.fromkeys(MNE_READERS, "mne"),
}  # fmt: skip
# Suffixes that also other programs use: the file's beginning decides.
_SNIFFED: dict[str, tuple[str, Callable[[OpenedFile], bool]]] = {
    ".csv": ("dlc", is_deeplabcut), ".txt": ("pycontrol_txt", is_pycontrol),
}  # fmt: skip
# Formats that take a file's name with its suffix, and of two suffixes.
_WHOLE = {"log", "neo", "mne"}
_SECOND = {".hdf5", ".tiff"}


def _format_of_path(folder: Folder, name: str) -> tuple[Any, str, str]:
    """Return the format of a file or folder that describes itself, its name and key.

    The format is None if it does not describe itself.
    """
    stem, suffix = _split(name)
    lower = suffix.lower()
    kind: str | None
    if name.lower().endswith(NWB_ZARR):
        return format_of("nwb_zarr"), "nwb_zarr", name[: -len(NWB_ZARR)]
    if folder.is_folder(name) and lower != ".zarr":
        kind = "neo" if reader_of(folder, name) else "log"
        return format_of(kind), kind, name
    kind = _SUFFIXES.get(lower)
    if lower in _SNIFFED and folder.is_there(name):
        sniffed, is_one = _SNIFFED[lower]
        with folder.opened(name) as opened:
            kind = sniffed if is_one(opened) else None
    if lower in FILES_OF and kind is None:
        kind = "neo"
    is_part = lower in FOLDERS_OF or (
        lower == ".bin" and folder.is_there(f"{stem}.meta")
    )
    if is_part:  # one of the files of a folder
        return format_of("neo"), "neo", ""
    if kind is None:
        return None, "", name
    if lower in _SECOND:
        return _made(*_HOME[kind], lower), kind, stem
    return format_of(kind), kind, name if kind in _WHOLE else stem


def open_recordings(path: str | Path, *, times: str = "file") -> dict[str, Recording]:
    """Open every stream of a file or folder that describes itself.

    Parameters
    ----------
    path : str or Path
        A file or folder of one of the formats of ``docs/howto/collections.md``: XDF,
        WFDB, NWB, EDF, SpikeGLX, MATLAB, video and others; a log of a `Recorder` or
        `DataLogger`; or ``x.npz`` with columns of one length and their times ``t``, s,
        or one number ``sample_rate_hz`` (or ``rate_hz``).
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
    made, kind, key = _format_of_path(folder, last)
    if made is None:
        known = ", ".join(sorted({*_SUFFIXES, *FILES_OF, *FOLDERS_OF}))
        raise ValueError(
            f"{folder.shown(last)}: only {known} describe themselves; describe it by a "
            "collection, or make a Recording of its columns"
        )
    where = f"{folder.shown(last)} ({kind})"
    recordings = _Recordings()
    with damage_named(where):
        described = made.describe(folder, key, **options)
    for stream_id, stream in described.items():
        try:
            recordings[stream_id] = read_stream(
                made, folder, key, stream_id, stream, where
            )
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
