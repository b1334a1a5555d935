"""Files that say themselves what is in them, opened without a collection."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.datamux.description import DTYPES, Field, Stream
from ataraxis.datamux.formats import format_of
from ataraxis.datamux.recording import Recording
from ataraxis.errors import RecordingError

_SUFFIXES = {
    ".hea": "wfdb", ".dat": "wfdb", ".xdf": "xdf", ".nwb": "nwb", ".axj": "log",
    ".npz": "log",
}  # fmt: skip


def open_recordings(path: str | Path) -> dict[str, Recording]:
    """Open every stream of an XDF, WFDB or NWB file, or of a log of ataraxis.

    Parameters
    ----------
    path : str or Path
        ``x.xdf``, ``x.nwb``, ``x.hea`` of a WFDB record, the directory or archive of
        a log, which a `Recorder` or `DataLogger` made, or ``x.npz`` with columns of one
        length and their times ``t``, s, or one number ``rate_hz``.

    Returns
    -------
    dict of str to Recording
        By the names that the file gives its streams; of WFDB ``signals`` and each
        annotator, such as ``atr``; of a log its sources of numbers.

    Raises
    ------
    FileNotFoundError
        It is not there.
    RecordingError
        It is damaged.
    ValueError
        It is none of these: describe it by a collection.
    """
    file = Path(path)
    if file.suffix.lower() == ".npz" and (found := _columns(file)) is not None:
        return {file.stem: found}
    name = "log" if file.is_dir() else _SUFFIXES.get(file.suffix.lower())
    if name is None:
        raise ValueError(
            f"{file}: only {', '.join(_SUFFIXES)} say what is in them; describe it by "
            "a collection, or make a Recording of its columns"
        )
    made: Any = format_of(name)
    folder, key = file.parent, file.name if name == "log" else file.stem
    return {
        stream_id: Recording.of(
            stream, made.columns(folder, key, stream_id, stream), f"{file} ({name})"
        )
        for stream_id, stream in made.describe(folder, key).items()
    }


def _kind(values: NDArray[Any]) -> str:
    """Name a dtype as metadata do.

    Raises
    ------
    RecordingError
        They cannot.
    """
    for name, kind in DTYPES.items():
        dtype = np.dtype(kind)
        if values.dtype == dtype or (values.dtype.kind == dtype.kind in "US"):
            return name
    raise RecordingError(f"a column of {values.dtype}: expected {', '.join(DTYPES)}")


def _columns(file: Path) -> Recording | None:
    """Read plain columns and their times, or rate; None: it is a log, if anything."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            if not {"t", "rate_hz"} & {*archive.files}:
                return None
            columns = {name: archive[name] for name in archive.files}
    except (ValueError, zipfile.BadZipFile) as error:
        raise RecordingError(f"{file}: not NumPy's, or damaged: {error}") from error
    rate = columns.pop("rate_hz", None)
    fields, flat = {}, {}
    for name, column in columns.items():
        if name == "t":
            continue
        parts = {name: column}
        if column.ndim == 2:
            parts = {f"{name}{i}": column[:, i] for i in range(column.shape[1])}
        for part, values in parts.items():
            fields[part] = Field(part, dtype=_kind(values), shape=values.shape[1:])
            flat[part] = values
    stream = Stream(
        file.stem, frequency=None if rate is None else float(rate), fields=fields,
        index={"t": Field("time", unit="s")}, attrs={"id": file.stem},
    )  # fmt: skip
    if "t" in columns:
        flat["t"] = columns["t"]
    return Recording.of(stream, flat, f"{file} (npz)")
