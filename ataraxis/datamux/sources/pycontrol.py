"""Logs of pyControl: its tables (``.tsv``) and the text of earlier versions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.config.limits import FILES
from ataraxis.datamux.description import Field, Stream
from ataraxis.datamux.folder import Folder, OpenedFile, SuffixFormat
from ataraxis.errors import RecordingError

_HEADER = ["time", "type", "subtype", "content"]
_DATA = re.compile(r"D (\d+) (\d+)")
_PRINT = re.compile(r"P (\d+) (.*)", re.DOTALL)
_NAMES = re.compile(r"([SE]) (\{.*\})")
Rows = list[tuple[float, str, str, str]]


class PyControl(SuffixFormat):
    """``pycontrol://{session}``, ``pycontrol_txt://{session}``: the stream ``events``.

    It has kind, name and text of each event.
    ``kind`` is state, event, print, variable and so on, as pyControl calls them.
    """

    suffix = ".tsv"

    def describe(self, folder: Folder, key: str) -> dict[str, Stream]:
        """Return the stream of a log."""
        with folder.opened(f"{key}{self.suffix}"):
            pass
        fields = {name: Field(name, dtype="str") for name in ("kind", "name", "text")}
        index = {"t": Field("time", unit="s")}
        return {"events": Stream("events", fields=fields, index=index)}

    def columns(
        self, folder: Folder, key: str, stream_id: str, stream: Stream
    ) -> Mapping[str, NDArray[Any]]:
        """Read the log."""
        with folder.opened(f"{key}{self.suffix}") as opened:
            if opened.size > FILES.text_bytes:
                raise RecordingError(
                    f"{opened.shown}: {opened.size} bytes are too long for a log"
                )
            try:
                lines = opened.file.read().decode("utf-8").splitlines()
            except UnicodeDecodeError as error:
                raise RecordingError(f"{opened.shown}: not text: {error}") from error
            rows = (_of_text if self.suffix == ".txt" else _of_table)(lines, opened)
        columns = {
            name: np.asarray([row[place] for row in rows], "U")
            for place, name in enumerate(("kind", "name", "text"), 1)
        }
        return {stream.time: np.asarray([row[0] for row in rows], "f8"), **columns}


def _of_table(lines: list[str], opened: OpenedFile) -> Rows:
    if not lines or lines[0].split("\t") != _HEADER:
        raise RecordingError(
            f"{opened.shown}: not a table of pyControl: expected the columns "
            f"{_HEADER}, found {lines[:1]}"
        )
    rows = []
    for number, line in enumerate(lines[1:], 2):
        cells = line.split("\t", 3)
        if len(cells) != 4:
            raise RecordingError(
                f"{opened.shown}:{number}: {len(cells)} cells, expected 4"
            )
        if cells[0]:  # lines about the run have no time
            kind, subtype, content = cells[1:]
            is_named = kind in ("state", "event")
            name = content if is_named else subtype
            text = subtype if is_named else content
            rows.append((_seconds(cells[0], opened, number), kind, name, text))
    return rows


def _of_text(lines: list[str], opened: OpenedFile) -> Rows:
    names: dict[int, tuple[str, str]] = {}
    rows: Rows = []
    for number, line in enumerate(lines, 1):
        if found := _NAMES.fullmatch(line):
            kind = "state" if found[1] == "S" else "event"
            try:
                listed = json.loads(found[2])
                names |= {int(k): (kind, str(name)) for name, k in listed.items()}
            except (ValueError, TypeError) as error:
                raise RecordingError(
                    f"{opened.shown}:{number}: not names: {error}"
                ) from error
        elif found := _DATA.fullmatch(line):
            kind, name = names.get(int(found[2]), ("event", found[2]))
            rows.append((int(found[1]) / 1000, kind, name, ""))
        elif found := _PRINT.fullmatch(line):
            rows.append((int(found[1]) / 1000, "print", "", found[2]))
    if not names:
        raise RecordingError(
            f"{opened.shown}: not a log of pyControl: it names no states or events"
        )
    return rows


def is_pycontrol(opened: OpenedFile) -> bool:
    """Return whether a text begins as one of pyControl's logs."""
    start = opened.file.read(65536)
    opened.file.seek(0)
    return bool(re.search(rb"^[SE] \{", start, re.MULTILINE)) and b"I " in start


def _seconds(text: str, opened: OpenedFile, number: int) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise RecordingError(f"{opened.shown}:{number}: {error}") from error
