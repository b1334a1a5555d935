"""Formats of recordings, by the name that a pattern begins with.

What a format has to do is here; each is a file of ``sources``.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from numpy.typing import NDArray

from ataraxis.datamux.description import Stream
from ataraxis.datamux.folder import Folder
from ataraxis.errors import ConfigError

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
    """How recordings of one format are listed and read."""

    def keys(self, folder: Folder) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """Give the path, without suffix, and the attributes of each recording."""

    def columns(
        self, folder: Folder, key: str, stream_id: str, stream: Stream
    ) -> Mapping[str, NDArray[Any]]:
        """Read the columns of one stream of a recording.

        Raises
        ------
        FileNotFoundError
            There is no such recording.
        RecordingError
            It is damaged, or has no such stream.
        """


def format_of(name: str) -> RecordingFormat:
    """Return the format that a pattern names.

    Raises
    ------
    ConfigError
        There is none of that name.
    """
    if name not in _HOME:
        close = difflib.get_close_matches(name, _HOME, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"no format {name!r}: known are {', '.join(_HOME)}{hint}")
    module, kind = _HOME[name]
    found = importlib.import_module(f"ataraxis.datamux.sources.{module}")
    made: RecordingFormat = getattr(found, kind)()
    return made
