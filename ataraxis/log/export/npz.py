"""A log as one npz: of each source an array, and beside it its times and labels."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ataraxis.labels import Labels
from ataraxis.log.export.track import ExportSeries


class NpzExporter:
    """Members: ``camera``, ``camera.time``, ``camera.sequence``, ``camera.labels``...

    ``labels`` is the JSON of `Labels`: dims, coordinates, units. Members are stored,
    not deflated, written piece by piece.
    """

    subject = ""

    def check(self, tracks: list[ExportSeries]) -> None:
        """Anything goes into an npz."""

    def write(self, path: Path, tracks: list[ExportSeries]) -> None:
        """Write a new file."""
        with zipfile.ZipFile(path, "x", allowZip64=True) as archive:
            for track in tracks:
                self._write(archive, track)

    def _write(self, archive: zipfile.ZipFile, track: ExportSeries) -> None:
        series, name = track.series, track.name
        dtype = series.dtype
        if track.is_text:
            longest = 1
            for _, rows in track.pieces():
                longest = max(longest, *map(len, series.read(rows)))
            dtype = np.dtype(f"U{longest}")
        _member(archive, name, dtype, (len(track), *series.shape), _data(track, dtype))
        for key, (kind, read) in track.columns().items():
            _member(archive, f"{name}.{key}", kind, (len(track),), _of(track, read))
        labels = series.labels or Labels(dtype, series.shape)
        text = np.array(labels.to_json().decode())
        _member(archive, f"{name}.labels", text.dtype, (), iter([text]))


def _data(track: ExportSeries, dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    for _, rows in track.pieces():
        piece = track.series.read(rows)
        yield piece.astype(dtype) if track.is_text else piece
        track.told(len(piece))


def _of(track: ExportSeries, read: Callable[[Any], Any]) -> Iterator[NDArray[Any]]:
    for _, rows in track.pieces(1 << 20):
        yield read(rows)


def _member(
    archive: zipfile.ZipFile,
    name: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    pieces: Iterator[NDArray[Any]],
) -> None:
    """Write an array whose rows come in pieces."""
    head: dict[str, Any] = {
        "descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape,
    }  # fmt: skip
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        try:
            npy.write_array_header_1_0(file, head)
        except ValueError:
            npy.write_array_header_2_0(file, head)
        for piece in pieces:
            if piece.size and dtype.itemsize:
                flat = np.ascontiguousarray(piece, dtype).reshape(-1)
                file.write(flat.view(np.uint8).data)
