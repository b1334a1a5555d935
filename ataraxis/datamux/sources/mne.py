"""EEG and eye tracking through ``mne``: BrainVision, EEGLAB, FIF, EyeLink and others.

MNE opens the files beside a header by itself, so these recordings are opened by
programs of this machine only, not by clients of a server.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.datamux.description import Field, Stream, unique_names
from ataraxis.datamux.folder import Folder
from ataraxis.datamux.recording import (
    LazyRecording,
    Recording,
    UniformTimes,
    check_fields,
    check_rate,
)
from ataraxis.errors import RecordingError
from ataraxis.log.optional import need

READERS = {
    ".vhdr": "brainvision", ".set": "eeglab", ".fif": "fif", ".asc": "eyelink",
    ".cnt": "cnt", ".gdf": "gdf", ".nedf": "nedf", ".snirf": "snirf",
}  # fmt: skip
# Of Neuroscan's header: where it points to another one, how many channels and samples
# there are, where events begin, and its own length and that of a channel's part.
_NEXT, _CHANNELS, _COUNT, _EVENTS, _HEAD, _CHANNEL = 12, 370, 864, 886, 900, 75
_IS_32_BIT = 52  # of the other one
# ANT's recorders give their files, which are of RIFF, the suffix of Neuroscan's.
_RIFF = (b"RIFF", b"RF64")
ANNOTATIONS = "annotations"
# Of readers that read whole blocks only: MNE 1.13 fails between those of NEDF.
_BLOCK = {"RawNedf": 5}


class Mne:
    """``mne://{session}``: the stream ``signals`` and, if there are any, annotations.

    Values are MNE's, in SI units (V, not uV), read in pieces. ``annotations`` has text
    and duration, s, of each.
    """

    def keys(self, folder: Folder) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """List the files, also in sub-folders."""
        found = [key for suffix in READERS for key, _ in folder.files(suffix)]
        return [(key, {}) for key in sorted({*found})]

    def describe(self, folder: Folder, key: str) -> dict[str, Stream]:
        """Return the streams of a file."""
        raw = _opened(folder, key)
        names = unique_names([str(name) for name in raw.ch_names])
        units = [_unit(channel) for channel in raw.info["chs"]]
        described = {
            "signals": Stream(
                "signals", frequency=float(raw.info["sfreq"]),
                fields={
                    name: Field(name, dtype="f64", unit=unit)
                    for name, unit in zip(names, units, strict=True)
                },
                index={"t": Field("time", unit="s")}, attrs={"id": "signals"},
            )
        }  # fmt: skip
        if len(raw.annotations):
            described[ANNOTATIONS] = Stream(
                ANNOTATIONS,
                fields={
                    "text": Field("annotation", dtype="str"),
                    "duration": Field("duration", dtype="f64", unit="s"),
                },
                index={"t": Field("onset", unit="s")}, attrs={"id": ANNOTATIONS},
            )  # fmt: skip
        return described

    def recording(
        self, folder: Folder, key: str, stream: Stream, where: str
    ) -> Recording:
        """Return one stream; signals are read when they are asked for."""
        raw = _opened(folder, key)
        if stream.id == ANNOTATIONS:
            return _annotations(raw, stream, where)
        names = unique_names([str(name) for name in raw.ch_names])
        check_fields(stream, names, where)
        rate = float(raw.info["sfreq"])
        check_rate(stream, rate, where)
        chosen = [names.index(name) for name in stream.fields]
        block = _BLOCK.get(type(raw).__name__, 1)

        def rows(start: int, stop: int) -> NDArray[Any]:
            if stop == start:
                return np.empty((0, len(chosen)))
            first = start - start % block
            found: NDArray[Any] = raw.get_data(picks=chosen, start=first, stop=stop)
            return found.T[start - first :]

        times = UniformTimes(len(raw.times), rate)
        return LazyRecording(stream, times, rows, 8 * len(chosen), where)


def _annotations(raw: Any, stream: Stream, where: str) -> Recording:
    notes = raw.annotations
    # MNE counts onsets from the measurement's start, and samples from the first one.
    begun = raw.first_time if notes.orig_time is not None else 0.0
    columns = {
        stream.time: np.asarray(notes.onset, "f8") - begun,
        "text": np.asarray([str(text) for text in notes.description], "U"),
        "duration": np.asarray(notes.duration, "f8"),
    }
    return Recording.of(stream, columns, where)


def _unit(channel: Mapping[str, Any]) -> str:
    """Return the unit of a channel, by FIFF's number of it."""
    text = str(channel["unit"])
    for name, unit in (("UNIT_V", "V"), ("UNIT_T_M", "T/m"), ("UNIT_T", "T")):
        if text.rstrip(")").endswith(name):
            return unit
    return ""


def _reader_of(path: Path) -> str:
    """Return the reader of a file by its suffix and, where two share it, its start."""
    reader = READERS[path.suffix.lower()]
    if reader == "cnt":
        with path.open("rb") as file:
            return "ant" if file.read(4) in _RIFF else reader
    return reader


def _neuroscan(path: Path) -> dict[str, Any]:
    """Return how wide samples are, and whether the file has fewer than its count."""

    def number(place: int, length: int = 4) -> int:
        file.seek(place)
        return int.from_bytes(file.read(length), "little", signed=length == 4)

    with path.open("rb") as file:
        following = number(_NEXT)
        width = 2
        if following > 0 and number(following + _IS_32_BIT, 1) == 1:
            width = 4
        channels = number(_CHANNELS, 2)
        stored = number(_EVENTS) - _HEAD - _CHANNEL * channels
        options: dict[str, Any] = {"data_format": f"int{8 * width}"}
        if number(_COUNT) * channels * width > stored:
            options["recompute_n_samples"] = True
        return options


def _opened(folder: Folder, key: str) -> Any:
    """Return MNE's reader; it has read no samples."""
    if folder.is_confined:
        raise RecordingError(
            f"{folder.shown(key)}: recordings read by MNE consist of several files, "
            "and are opened by programs of this machine only"
        )
    path = Path(folder.shown(key))
    if path.suffix.lower() not in READERS:
        beside = sorted(p for p in path.parent.glob(f"{path.name}.*"))
        path = next((p for p in beside if p.suffix.lower() in READERS), path)
    if not path.is_file():
        raise folder.not_there(key)
    mne = need("mne", "mne", "a recording of this kind")
    read = getattr(mne.io, f"read_raw_{_reader_of(path)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about names and annotations
            try:
                raw = read(path, verbose="error")
            except RuntimeError:  # it cannot tell how wide samples are
                if read is not mne.io.read_raw_cnt:
                    raise
                raw = read(path, **_neuroscan(path), verbose="error")
    except Exception as error:  # MNE raises several kinds
        raise RecordingError(
            f"{path}: not a recording that MNE reads, or damaged: "
            f"{type(error).__name__}: {error}"
        ) from error
    return raw
