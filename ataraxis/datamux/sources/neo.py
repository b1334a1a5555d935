"""Raw electrophysiology through ``neo.rawio``: SpikeGLX, Open Ephys, Intan and others.

Neo reads several files of a folder by itself, so these recordings are opened by
programs of this machine only, not by clients of a server.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.config.limits import FILES
from ataraxis.datamux.description import Field, Stream, dtype_name, unique_names
from ataraxis.datamux.folder import Folder
from ataraxis.datamux.recording import (
    LazyRecording,
    Recording,
    check_fields,
    check_rate,
)
from ataraxis.datamux.sources.neo_mended import (
    check_signals,
    folder_argument,
    has_durations,
    look_after,
    parsed,
    rate_of,
    reader_of_blocks,
    spike_stamps,
    times_of,
)
from ataraxis.errors import RecordingError
from ataraxis.log.optional import need

# Suffix of a file -> the reader; of the readers of folders, a suffix that is in one.
FILES_OF = {
    ".rhd": "IntanRawIO", ".rhs": "IntanRawIO", ".ns1": "BlackrockRawIO",
    ".ns2": "BlackrockRawIO", ".ns3": "BlackrockRawIO", ".ns4": "BlackrockRawIO",
    ".ns5": "BlackrockRawIO", ".ns6": "BlackrockRawIO", ".nev": "BlackrockRawIO",
    ".plx": "PlexonRawIO", ".pl2": "Plexon2RawIO", ".smr": "Spike2RawIO",
    ".smrx": "CedRawIO", ".abf": "AxonRawIO", ".axgd": "AxographRawIO",
    ".axgx": "AxographRawIO", ".wcp": "WinWcpRawIO", ".edr": "WinEdrRawIO",
    ".trc": "MicromedRawIO", ".vhdr": "BrainVisionRawIO", ".nex": "NeuroExplorerRawIO",
    ".rec": "SpikeGadgetsRawIO",
}  # fmt: skip
FOLDERS_OF = {
    ".meta": "SpikeGLXRawIO", ".oebin": "OpenEphysBinaryRawIO",
    ".continuous": "OpenEphysRawIO", ".ncs": "NeuralynxRawIO", ".tsq": "TdtRawIO",
    ".mpx": "AlphaOmegaRawIO", ".medd": "MedRawIO",
}  # fmt: skip
_OF_FOLDERS = (".medd",)  # the suffix of the folder itself


# So many files of a folder tell what it is.
_LOOKED_AT = 4096


class Neo:
    """``neo://{session}``: a file or folder of a recording system, read in pieces.

    Each group of channels with one rate is a stream under the name that neo gives it,
    such as ``imec0.ap``; each channel of events or epochs is one, and the spikes of all
    units are one: ``spikes``. Further segments have ``:1``, ``:2`` at their names.

    An integer field has the stored value, and ``attrs`` have ``gain`` and ``offset``,
    one a channel: ``gain * value + offset`` is the value in ``scaled_unit``. A float
    field has that value.
    """

    def __init__(self) -> None:
        self._known = ""
        self._read: tuple[Any, list[tuple[Stream, Any]]] = (None, [])

    def keys(self, folder: Folder) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """List the folders and files that neo can read."""
        found: set[str] = set()
        for inside, names in folder.walk():
            suffixes = {os.path.splitext(name)[1].lower() for name in names}
            if inside.lower().endswith(_OF_FOLDERS):
                found.add(inside)
                continue
            if inside and suffixes & FOLDERS_OF.keys():
                found.add(inside)
                continue
            for name in names:
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in FILES_OF:
                    found.add(f"{inside}/{stem}" if inside else stem)
        return [(key, {}) for key in sorted(found)]

    def describe(self, folder: Folder, key: str) -> dict[str, Stream]:
        """Return the streams of a recording; reads headers only."""
        return {stream.id: stream for stream, _ in self._parts(folder, key)[1]}

    def recording(
        self, folder: Folder, key: str, stream: Stream, where: str
    ) -> Recording:
        """Return one stream; signals are read when they are asked for."""
        raw, parts = self._parts(folder, key)
        wanted = str(stream.attrs.get("neo_name", stream.id))
        for found, part in parts:
            if found.id == wanted:
                made: Recording = part(raw, found, stream, where)
                return made
        raise RecordingError(
            f"{where}: no stream {wanted!r}: found {[s.id for s, _ in parts]}"
        )

    def _parts(self, folder: Folder, key: str) -> tuple[Any, list[tuple[Stream, Any]]]:
        """Return neo's reader and its streams; the headers are parsed once."""
        known = folder.shown(key)
        if self._known != known:
            raw = _opened(folder, key)
            self._read, self._known = (raw, _parts(raw)), known
        return self._read


def reader_of(folder: Folder, name: str) -> str | None:
    """Return the reader of a folder by the files in it; None if there is none."""
    own = os.path.splitext(name)[1].lower()
    if own in _OF_FOLDERS:
        return FOLDERS_OF[own]
    inside = folder.below(name) if name else folder
    files = (own for _, names in inside.walk() for own in names)
    suffixes = {os.path.splitext(own)[1].lower() for own in islice(files, _LOOKED_AT)}
    return next((r for s, r in FOLDERS_OF.items() if s in suffixes), None)


def _opened(folder: Folder, key: str) -> Any:
    """Return neo's reader with the header parsed."""
    if folder.is_confined:
        raise RecordingError(
            f"{folder.shown(key)}: recordings read by neo consist of several files, "
            "and are opened by programs of this machine only"
        )
    rawio = need("neo.rawio", "neo", "a recording of this system")
    path = Path(folder.shown(key))
    name: str | None
    if not key or folder.is_folder(key):
        name = reader_of(folder, key)
    else:
        beside = [path] if path.is_file() else [*path.parent.glob(f"{path.name}.*")]
        known = [p for p in beside if p.suffix.lower() in FILES_OF]
        if not known:
            raise folder.not_there(key)
        path = min(known, key=lambda p: ([*FILES_OF].index(p.suffix.lower()), p.name))
        name = FILES_OF[path.suffix.lower()]
    if name is None:
        raise RecordingError(
            f"{path}: none of its files is of a system that is read: "
            f"{', '.join(FOLDERS_OF)}"
        )
    kind = getattr(rawio, name)
    argument = {"filename": str(path)}
    if path.is_dir():
        argument = {"dirname": str(folder_argument(name, path))}
    elif kind.rawmode == "one-dir":
        argument = {"dirname": str(path.parent)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what its readers do not know
            raw = parsed(kind, argument)
    except Exception as error:  # each of neo's readers raises what it likes
        raise RecordingError(
            f"{path}: {name} of neo does not read it: {type(error).__name__}: {error}"
        ) from error
    look_after(raw, path)
    raw.ataraxis_path = path
    return raw


def _parts(raw: Any) -> list[tuple[Stream, Any]]:
    """Return the streams of a reader, each with the function that reads it."""
    found: list[tuple[Stream, Any]] = []
    header = raw.header
    names = unique_names(
        [str(name) for name in header["signal_streams"]["name"]], "sig"
    )
    events = unique_names(
        [str(name) for name in header["event_channels"]["name"]], "events"
    )
    if len(names) + len(events) > FILES.streams:
        raise RecordingError(
            f"{raw.ataraxis_path}: {len(names) + len(events)} streams, at most "
            f"{FILES.streams} are read"
        )
    # A list, or a dict, as its reader likes.
    segments = [int(header["nb_segment"][b]) for b in range(header["nb_block"])]
    for block, count in enumerate(segments):
        for segment in range(count):
            place = sum(segments[:block]) + segment
            end = f":{place}" if place else ""
            at = {"block_index": block, "seg_index": segment}
            for number, name in enumerate(names):
                found.append((_signals(raw, number, name + end, at), _signal_part))
            for number, name in enumerate(events):
                found.append((_events(raw, number, name + end, at), _event_part))
            if len(header["spike_channels"]):
                found.append((_spikes(raw, f"spikes{end}", at), _spike_part))
    return found


def _signals(raw: Any, number: int, name: str, at: dict[str, int]) -> Stream:
    header = raw.header
    own = header["signal_streams"][number]["id"]
    channels = header["signal_channels"][header["signal_channels"]["stream_id"] == own]
    labels = unique_names([str(label) for label in channels["name"]])
    dtypes = {np.dtype(kind) for kind in {str(kind) for kind in channels["dtype"]}}
    dtype = dtype_name(dtypes.pop()) if len(dtypes) == 1 else None
    gains, offsets = channels["gain"].tolist(), channels["offset"].tolist()
    units = [str(unit) for unit in channels["units"]]
    is_stored = any(gain != 1 for gain in gains) or any(offsets)
    return Stream(
        name, frequency=rate_of(raw, number),
        fields={
            label: Field(label, dtype=dtype or "f64", unit="" if is_stored else unit)
            for label, unit in zip(labels, units, strict=True)
        },
        index={"t": Field("time", unit="s")},
        attrs={
            "id": name, "neo_name": name, "neo": number, **at,
            **({"gain": gains, "offset": offsets, "scaled_unit": units}
               if is_stored else {}),
        },
    )  # fmt: skip


def _signal_part(raw: Any, found: Stream, stream: Stream, where: str) -> Recording:
    number, at = found.attrs["neo"], _at(found)
    check_signals(raw, number, at, where)
    rate = rate_of(raw, number)
    names = [*found.fields]
    check_fields(stream, names, where)
    check_rate(stream, rate, where)
    places = {name: place for place, name in enumerate(names)}
    chosen = [places[name] for name in stream.fields]
    channels: Any = None if chosen == [*range(len(names))] else chosen
    stored = next(iter(found.fields.values())).numpy_dtype if found.fields else None
    target = {field.dtype for field in stream.fields.values()}
    if len(target) != 1:
        raise RecordingError(f"{where}: the fields of a signal have one dtype")
    dtype = next(iter(stream.fields.values())).numpy_dtype
    is_scaled = dtype.kind == "f" and dtype != stored
    if not is_scaled and dtype != stored:
        raise RecordingError(
            f"{where}: {dtype} is declared, {stored} is stored, or a float for the "
            "scaled values"
        )

    of_blocks = reader_of_blocks(raw, number, at)

    def rows(start: int, stop: int) -> NDArray[Any]:
        if of_blocks is not None:
            chunk = of_blocks(start, stop, channels)
        else:
            chunk = raw.get_analogsignal_chunk(
                i_start=start, i_stop=stop, stream_index=number,
                channel_indexes=channels, **at,
            )  # fmt: skip
        if is_scaled:
            chunk = raw.rescale_signal_raw_to_float(
                chunk, dtype=dtype, stream_index=number, channel_indexes=channels
            )
        return np.asarray(chunk)

    times = times_of(raw, number, at, where)
    width = dtype.itemsize * len(chosen)
    return LazyRecording(stream, times, rows, width, where)


def _at(found: Stream) -> dict[str, int]:
    return {name: found.attrs[name] for name in ("block_index", "seg_index")}


def _events(raw: Any, number: int, name: str, at: dict[str, int]) -> Stream:
    fields = {"label": Field("label", dtype="str")}
    if has_durations(raw, number, at):
        fields["duration"] = Field("duration", dtype="f64", unit="s")
    return Stream(
        name, fields=fields, index={"t": Field("time", unit="s")},
        attrs={"id": name, "neo_name": name, "neo": number, **at},
    )  # fmt: skip


def _event_part(raw: Any, found: Stream, stream: Stream, where: str) -> Recording:
    number = found.attrs["neo"]
    stamps, durations, labels = raw.get_event_timestamps(
        event_channel_index=number, **_at(found)
    )
    t = raw.rescale_event_timestamp(stamps, "float64", number)
    columns = {
        stream.time: np.asarray(t, "f8"),
        "label": np.asarray(labels).astype("U"),
    }
    if durations is not None:
        columns["duration"] = np.asarray(
            raw.rescale_epoch_duration(durations, "float64", number), "f8"
        )
    return Recording.of(stream, columns, where)


def _spikes(raw: Any, name: str, at: dict[str, int]) -> Stream:
    fields = {"unit": Field("unit", dtype="str")}
    return Stream(
        name, fields=fields, index={"t": Field("time", unit="s")},
        attrs={"id": name, "neo_name": name, **at},
    )  # fmt: skip


def _spike_part(raw: Any, found: Stream, stream: Stream, where: str) -> Recording:
    header = raw.header["spike_channels"]
    units = unique_names([str(name) for name in header["name"]], "unit")
    times: list[NDArray[np.float64]] = []
    for number in range(len(header)):
        stamps = spike_stamps(raw, number, _at(found))
        times.append(np.asarray(raw.rescale_spike_timestamp(stamps, "float64"), "f8"))
    names = np.repeat(np.array(units, "U"), [len(own) for own in times])
    return Recording.of(
        stream, {stream.time: np.concatenate(times), "unit": names}, where
    )
