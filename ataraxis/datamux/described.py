"""Files that say themselves what is in them, opened without a collection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ataraxis.datamux.formats import format_of
from ataraxis.datamux.recording import Recording

_SUFFIXES = {
    ".hea": "wfdb", ".dat": "wfdb", ".xdf": "xdf", ".nwb": "nwb", ".axj": "log",
    ".npz": "log",
}  # fmt: skip


def open_recordings(path: str | Path) -> dict[str, Recording]:
    """Open every stream of an XDF, WFDB or NWB file, or of a log of ataraxis.

    Parameters
    ----------
    path : str or Path
        ``x.xdf``, ``x.nwb``, ``x.hea`` of a WFDB record, or the directory or archive
        of a log, which a `Recorder` or `DataLogger` made.

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
