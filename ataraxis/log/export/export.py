"""`export_log`: a log as a file that others read, whole or not there."""

from __future__ import annotations

import errno
import importlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from ataraxis.config.document import Unreadable, parse
from ataraxis.config.node import Mapping, Scalar
from ataraxis.config.storage import read_whole
from ataraxis.log.export.track import ExportSeries
from ataraxis.log.nodes import Nodes

Progress = Callable[[str, int, int], None]
"""Told of progress: ``told(source, of how many rows, rows done now)``."""

FORMATS = {
    "npz": "ataraxis.log.export.npz:NpzExporter",
    "nwb": "ataraxis.log.export.nwb:NwbExporter",
    "zarr": "ataraxis.log.export.zarr:ZarrExporter",
    "xdf": "ataraxis.log.export.xdf:XdfExporter",
}
"""What can be written, by suffix, and the class that writes it."""

_TEMPORARY = ".export-"


class ExportFormat(Protocol):
    """What writes one format."""

    subject: str
    """Whom the recording is of; empty if nobody said."""

    def check(self, tracks: list[ExportSeries]) -> None:
        """Raise `ValueError` if it cannot hold a track, before anything is written."""

    def write(self, path: Path, tracks: list[ExportSeries]) -> None:
        """Write a new file or directory."""


def export_log(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    format: str | None = None,
    sources: Iterable[int | str] | None = None,
    name: str | None = None,
    onset_us: int | None = None,
    overwrite: bool = False,
    skip_damaged: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write a log as npz, NWB, Zarr or XDF.

    Every sample and every stamp is kept; memory is bounded, whatever the size.

    Parameters
    ----------
    path : str or Path
        Directory or file of a log.
    output : str or Path
        What to write: a file, or with Zarr a directory.
    format : {'npz', 'nwb', 'zarr', 'xdf'}, optional
        As the suffix of `output` says, if not given.
    sources : iterable of int or str, optional
        Only these streams or sources.
    name : str, optional
        In a directory of several journals: only this one.
    onset_us : int, optional
        UTC microseconds from which the stamps of an npy log count.
    overwrite : bool
        Replace `output` if it is there, once the new one is whole.
    skip_damaged : bool
        Leave out entries that are damaged; else they are an error. Reads all twice.
    progress : callable, optional
        Called as ``progress(source, rows, rows_done_now)``.

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    FileExistsError
        `output` is there.
    ValueError
        The format cannot hold it, or the entries are of several kinds: says what to do.
    CorruptFrame
        An entry is damaged.
    ModuleNotFoundError
        A package is missing: says what to install.

    Notes
    -----
    `output` gets its name when it is whole; until then it is ``.export-...`` beside it.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from ataraxis.log.journal.writer import JournalWriter
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     with JournalWriter(directory) as journal:
    ...         _ = journal.log_block(3, np.eye(2))
    ...     made = export_log(directory, f"{directory}/out.npz")
    ...     np.load(made)["source_3"]
    array([[1., 0.],
           [0., 1.]])
    """
    output = Path(os.path.abspath(output))
    kind = format or output.suffix.removeprefix(".")
    if kind not in FORMATS:
        raise ValueError(
            f"{output.name}: its suffix is none of {', '.join(FORMATS)}: give format="
        )
    if os.path.lexists(output) and not overwrite:
        raise _exists(output)
    module, _, exporter = FORMATS[kind].partition(":")
    writer: ExportFormat = getattr(importlib.import_module(module), exporter)()
    writer.subject = _subject_of(Path(path))
    nodes = Nodes(path, name)
    try:
        chosen = list(nodes) if sources is None else [nodes.find(s) for s in sources]
        if not chosen:
            raise ValueError(f"{path} is a log without entries: nothing to export")
        tracks = [
            ExportSeries(
                node, onset_us=onset_us, is_mended=skip_damaged, progress=progress
            )
            for node in chosen
        ]
        writer.check(tracks)
        _write(output, writer, tracks, overwrite)
    finally:
        nodes.close()
    return output


def _subject_of(path: Path) -> str:
    """Read from the session that a log is in, if it is in one, whom it is of."""
    try:
        text = read_whole(path / "session.yaml").decode()
        root = parse(text, str(path)).root
    except (OSError, ValueError, Unreadable):
        return ""
    pairs = root.pairs if isinstance(root, Mapping) else []
    texts = {
        key.text: value.text
        for key, value in pairs
        if isinstance(key, Scalar) and isinstance(value, Scalar)
    }
    return texts.get("subject", "")


def _exists(output: Path) -> FileExistsError:
    said = "it is there: give another name, or overwrite=True (--overwrite)"
    return FileExistsError(errno.EEXIST, said, str(output))


def _write(
    output: Path, writer: ExportFormat, tracks: list[ExportSeries], replace: bool
) -> None:
    """Write beside `output`, and give it its name."""
    new = output.parent / f"{_TEMPORARY}{secrets.token_hex(8)}{output.suffix}"
    try:
        writer.write(new, tracks)
        _sync(new)
        _name(new, output, replace)
        _sync(output.parent)
    finally:
        _remove(new)


def _name(new: Path, output: Path, replace: bool) -> None:
    if not replace:
        try:
            if new.is_dir():
                # Onto an empty directory it would go: one that is new since we looked.
                output.mkdir()
                os.rename(new, output)
            else:
                os.link(new, output)
        except FileExistsError:
            raise _exists(output) from None
        return
    if not output.is_dir() and not new.is_dir():
        os.replace(new, output)
        return
    # Directories cannot be renamed over: the old one is out of the way for a moment.
    old = output.parent / f"{_TEMPORARY}old-{secrets.token_hex(8)}"
    if os.path.lexists(output):
        os.rename(output, old)
    try:
        os.rename(new, output)
    except OSError:
        if os.path.lexists(old):
            os.rename(old, output)
        raise
    _remove(old)


def _sync(path: Path) -> None:
    """Bring it to the disk: a file, or a directory and all in it."""
    found = [path]
    if path.is_dir() and path.name.startswith(_TEMPORARY):
        for here, _, files in os.walk(path):
            found += [Path(here), *(Path(here, file) for file in files)]
    for each in found:
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
