"""`export_log`: a log as a file of another format; the file appears when complete."""

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
from ataraxis.log.archive import Nodes
from ataraxis.log.export.series import ExportSeries

Progress = Callable[[str, int, int], None]
"""Called as ``progress(source, total_rows, new_rows)``."""

FORMATS = {
    "npz": "ataraxis.log.export.npz:NpzExporter",
    "nwb": "ataraxis.log.export.nwb:NwbExporter",
    "zarr": "ataraxis.log.export.zarr:ZarrExporter",
    "xdf": "ataraxis.log.export.xdf:XdfExporter",
}
"""Formats by suffix, with the class that writes each."""

_TEMPORARY = ".export-"


class ExportFormat(Protocol):
    """Writes one format."""

    subject: str
    """Subject of the recording; empty if unknown."""

    def check(self, items: list[ExportSeries]) -> None:
        """Raise `ValueError` if it cannot hold a series, before anything is written."""

    def write(self, path: Path, items: list[ExportSeries]) -> None:
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

    Every sample and stamp is kept; memory is bounded whatever the size.

    Parameters
    ----------
    path : str or Path
        Directory or file of a log.
    output : str or Path
        A new file; with Zarr a directory.
    format : {'npz', 'nwb', 'zarr', 'xdf'}, optional
        Default: the suffix of `output`.
    sources : iterable of int or str, optional
        Only these streams or sources.
    name : str, optional
        Only this journal of a directory.
    onset_us : int, optional
        UTC microseconds from which the stamps of an npy log count.
    overwrite : bool
        Replace an existing `output` when the new one is complete.
    skip_damaged : bool
        Leave out damaged entries, which are an error otherwise. Reads everything twice.
    progress : callable, optional
        Called as ``progress(source, total_rows, new_rows)``.

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    FileExistsError
        `output` exists.
    ValueError
        The format cannot hold the log, or the entries differ in kind; the message
        states what to do.
    CorruptFrame
        An entry is damaged.
    ModuleNotFoundError
        A package is missing; the message has the pip command.

    Notes
    -----
    `output` is written as ``.export-...`` beside it, and renamed when complete.

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
            f"{output.name}: its suffix is not one of {', '.join(FORMATS)}: "
            "give format="
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
            raise ValueError(f"{path} is a log without entries")
        items = [
            ExportSeries(
                node,
                onset_us=onset_us,
                skip_damaged=skip_damaged,
                progress=progress,
                by_entry=kind == "npz",
            )
            for node in chosen
        ]
        writer.check(items)
        _write(output, writer, items, overwrite)
    finally:
        nodes.close()
    return output


def _subject_of(path: Path) -> str:
    """Return the subject of the session that a log belongs to; '' if unknown."""
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
    message = "it exists: give another name, or overwrite=True (--overwrite)"
    return FileExistsError(errno.EEXIST, message, str(output))


def _write(
    output: Path, writer: ExportFormat, items: list[ExportSeries], replace: bool
) -> None:
    """Write beside `output`, then rename."""
    new = output.parent / f"{_TEMPORARY}{secrets.token_hex(8)}{output.suffix}"
    try:
        writer.write(new, items)
        _sync(new)
        _name(new, output, replace)
        _sync(output.parent)
    finally:
        _remove(new)


def _name(new: Path, output: Path, replace: bool) -> None:
    if not replace:
        try:
            if new.is_dir():
                # A rename would replace an empty directory that another process made.
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
    # A rename cannot replace a directory: move the old one away first.
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
