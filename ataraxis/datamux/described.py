"""Files that say themselves what is in them, opened without a collection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ataraxis.datamux.formats import format_of
from ataraxis.datamux.recording import Recording

_SUFFIXES = {".hea": "wfdb", ".dat": "wfdb", ".xdf": "xdf", ".nwb": "nwb"}


def open_recordings(path: str | Path) -> dict[str, Recording]:
    """Open every stream of an XDF, WFDB or NWB file.

    Parameters
    ----------
    path : str or Path
        ``x.xdf``, ``x.nwb``, or ``x.hea`` of a WFDB record.

    Returns
    -------
    dict of str to Recording
        By the names that the file gives its streams; of WFDB ``signals`` and each
        annotator, such as ``atr``.

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
    name = _SUFFIXES.get(file.suffix.lower())
    if name is None:
        raise ValueError(
            f"{file}: only {', '.join(_SUFFIXES)} say what is in them; describe it by "
            "a collection, or make a Recording of its columns"
        )
    made: Any = format_of(name)
    folder, key = file.parent, file.stem
    return {
        stream_id: Recording.of(
            stream, made.columns(folder, key, stream_id, stream), f"{file} ({name})"
        )
        for stream_id, stream in made.describe(folder, key).items()
    }
