"""Tracked points: the tables of DeepLabCut. SLEAP's files are in `hdf5_any`."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.config.limits import FILES
from ataraxis.datamux.description import Field, Stream, unique_names
from ataraxis.datamux.folder import Folder, OpenedFile, SuffixFormat
from ataraxis.datamux.sources.members import BY_NUMBER
from ataraxis.errors import RecordingError


class DeepLabCut(SuffixFormat):
    """``dlc://{session}``: the stream ``points``, fields ``nose.x``, ``nose.y``, ...

    With several animals ``mouse1.nose.x``. Times are the numbers of the frames, or of
    the rows where these are images; a collection may declare the camera's frequency.
    """

    suffix = ".csv"

    def describe(self, folder: Folder, key: str) -> dict[str, Stream]:
        """Return the stream of a table."""
        with folder.opened(f"{key}.csv") as opened:
            names, _ = _header(opened)
        fields = {name: Field(name, dtype="f64", unit=_unit(name)) for name in names}
        index = {"t": Field(BY_NUMBER, unit="s")}
        return {"points": Stream("points", frequency=1.0, fields=fields, index=index)}

    def columns(
        self, folder: Folder, key: str, stream_id: str, stream: Stream
    ) -> Mapping[str, NDArray[Any]]:
        """Read the points."""
        with folder.opened(f"{key}.csv") as opened:
            names, lines = _header(opened)
            opened.file.seek(0)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # about a file without rows
                    table = np.genfromtxt(
                        opened.file, delimiter=",", skip_header=lines, dtype="f8",
                        ndmin=2,
                    )  # fmt: skip
            except ValueError as error:
                raise RecordingError(
                    f"{opened.shown}: damaged: {str(error)[:300]}"
                ) from error
            if table.size and table.shape[1] != len(names) + 1:
                raise RecordingError(
                    f"{opened.shown}: rows of {table.shape[1]} cells, the header has "
                    f"{len(names) + 1}"
                )
        table = table.reshape(-1, len(names) + 1)
        frames = table[:, 0]
        if np.isnan(frames).all():  # labels of single images, by their paths
            frames = np.arange(len(table), dtype="f8")
        return {
            stream.time: frames / (stream.rate_hz or 1.0),
            **{name: table[:, i + 1] for i, name in enumerate(names)},
        }


def is_deeplabcut(opened: OpenedFile) -> bool:
    """Return whether a CSV file begins as DeepLabCut's do."""
    start = opened.file.read(4096).split(b"\n")
    opened.file.seek(0)
    firsts = [line.split(b",", 1)[0].strip() for line in start[:2]]
    return firsts in ([b"scorer", b"bodyparts"], [b"scorer", b"individuals"])


def _header(opened: OpenedFile) -> tuple[list[str], int]:
    """Return the names of the columns behind the frame's number, and the lines."""
    text = io.TextIOWrapper(opened.file, encoding="utf-8", newline="")
    try:
        levels: dict[str, list[str]] = {}
        for row in csv.reader(text):
            if not row or len(levels) > 4:
                break
            levels[row[0]] = row[1:]
            if row[0] == "coords":
                break
    except (UnicodeDecodeError, csv.Error) as error:
        raise RecordingError(f"{opened.shown}: not CSV text: {error}") from error
    finally:
        text.detach()
    if not {"scorer", "bodyparts", "coords"} <= levels.keys():
        raise RecordingError(
            f"{opened.shown}: not a table of DeepLabCut: expected the lines scorer, "
            f"bodyparts and coords, found {[*levels]}"
        )
    parts = [levels[k] for k in ("individuals", "bodyparts", "coords") if k in levels]
    if len({len(part) for part in parts}) != 1 or len(parts[0]) > FILES.columns:
        raise RecordingError(f"{opened.shown}: its header lines differ in length")
    names = [".".join(name) for name in zip(*parts, strict=True)]
    return unique_names(names), len(levels)


def _unit(name: str) -> str:
    return "" if name.endswith("likelihood") else "px"
