"""A log as one npz: one array per source, and its times and labels."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ataraxis.labels import Labels
from ataraxis.log.export.series import ExportSeries


class NpzExporter:
    """Members: ``camera``, ``camera.time``, ``camera.sequence``, ``camera.labels``...

    ``labels`` is the JSON of `Labels`: dims, coordinates, units. Members are stored,
    not deflated, written piece by piece.
    """

    subject = ""

    def check(self, items: list[ExportSeries]) -> None:
        """Accept every log."""

    def write(self, path: Path, items: list[ExportSeries]) -> None:
        """Write a new file."""
        with zipfile.ZipFile(path, "x", allowZip64=True) as archive:
            for item in items:
                self._write(archive, item)

    def _write(self, archive: zipfile.ZipFile, item: ExportSeries) -> None:
        series, name = item.series, item.name
        dtype = series.dtype
        if item.is_text:
            longest = 1
            for _, rows in item.pieces():
                longest = max(longest, *map(len, series.read(rows)))
            dtype = np.dtype(f"U{longest}")
        _member(archive, name, dtype, (len(item), *series.shape), _data(item, dtype))
        columns = series.columns()
        for key in ("time", "sequence", *columns):  # the order of earlier versions
            if key in columns:
                kind, read = columns.pop(key)
                pieces = (read(series, rows) for _, rows in item.pieces(1 << 20))
                _member(archive, f"{name}.{key}", kind, (len(item),), pieces)
        labels = series.labels or Labels(dtype, series.shape)
        text = np.array(labels.to_json().decode())
        _member(archive, f"{name}.labels", text.dtype, (), iter([text]))


def _data(item: ExportSeries, dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    for _, rows in item.pieces():
        piece = item.series.read(rows)
        yield piece.astype(dtype) if item.is_text else piece
        item.report(len(piece))


def _member(
    archive: zipfile.ZipFile,
    name: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    pieces: Iterator[NDArray[Any]],
) -> None:
    """Write an array whose rows arrive in pieces."""
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
