"""XDF, the files of the Lab Streaming Layer: read through ``pyxdf``, written here.

Reference: the specification of XDF 1.0, github.com/sccn/xdf/wiki/Specifications.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from ataraxis.datamux.channels import WIDER, channel_names
from ataraxis.datamux.description import DTYPES, Field, Stream
from ataraxis.datamux.formats import files
from ataraxis.datamux.optional import need
from ataraxis.datamux.recording import Recording
from ataraxis.errors import RecordingError

RAW = "raw"
_FORMATS = {
    "float32": "f32", "double64": "f64", "int8": "i8", "int16": "i16", "int32": "i32",
    "int64": "i64", "string": "str",
}  # fmt: skip
_CHUNK = 4096


class Xdf:
    """``xdf://{session}``: streams by their name in the file.

    Times are as `pyxdf` gives them: clocks aligned, jitter of regular streams removed,
    clock resets minded. The index ``raw``, if declared, has them as they were written.
    """

    def __init__(self) -> None:
        self._loaded: dict[tuple[Path, bool], list[dict[str, Any]]] = {}

    def _load(self, path: Path, is_corrected: bool) -> list[dict[str, Any]]:
        """Load a file once for all its streams."""
        if (path, is_corrected) not in self._loaded:
            self._loaded[path, is_corrected] = _load(path, is_corrected)
        return self._loaded[path, is_corrected]

    def keys(self, folder: Path) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """List ``*.xdf``."""
        return files(folder, ".xdf")

    def columns(
        self, folder: Path, key: str, stream_id: str, stream: Stream
    ) -> Mapping[str, NDArray[Any]]:
        """Read one stream: its channels under their labels, and its times."""
        path = folder / f"{key}.xdf"
        loaded = _named(self._load(path, True))
        wanted = str(stream.attrs.get("xdf_name", stream_id))
        chosen = _chosen(loaded, wanted, stream.name)
        if chosen is None:
            raise RecordingError(f"{path}: no stream {wanted!r}: found {[*loaded]}")
        names = _labels(loaded[chosen])
        if set(stream.fields) - set(names) and len(stream.fields) == len(names):
            names = [*stream.fields]  # the file does not label its channels
        made = _columns(loaded[chosen], names)
        made[stream.time] = loaded[chosen]["time_stamps"]
        if RAW in stream.index:
            raw = _named(self._load(path, False))
            made[RAW] = raw[chosen]["time_stamps"]
        return made

    def describe(self, folder: Path, key: str) -> dict[str, Stream]:
        """Say which streams a file has, by their names."""
        described = {}
        for stream_id, found in _named(self._load(folder / f"{key}.xdf", True)).items():
            info = found["info"]
            dtype = _FORMATS[info["channel_format"][0]]
            rate = float(info["nominal_srate"][0])
            described[stream_id] = Stream(
                name=info["name"][0],
                description=info["type"][0] or "",
                frequency=rate or None,
                fields={name: Field(name, dtype=dtype) for name in _labels(found)},
                index={
                    "t": Field("time", unit="s"),
                    RAW: Field("as written", unit="s"),
                },
                attrs={"id": stream_id, "type": info["type"][0] or ""},
            )
        return described


def _load(path: Path, is_corrected: bool) -> list[dict[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(2, "no such recording", str(path))
    with path.open("rb") as file:
        if (found := file.read(4)) != b"XDF:":
            raise RecordingError(f"{path}: not XDF: it begins with {found!r}")
    pyxdf = need("pyxdf", "xdf", "an XDF recording")
    try:
        streams, _ = pyxdf.load_xdf(
            str(path),
            synchronize_clocks=is_corrected,
            dejitter_timestamps=is_corrected,
            verbose=False,
        )
    except Exception as error:  # pyxdf raises whatever its parsing meets
        raise RecordingError(f"{path}: not XDF, or damaged: {error}") from error
    return list(streams)


def _named(streams: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return streams by name; those that share one by name and number."""
    names = [str(found["info"]["name"][0]) for found in streams]
    return {
        name
        if names.count(name) == 1
        else f"{name}#{found['info']['stream_id']}": found
        for name, found in zip(names, streams, strict=True)
    }


def _chosen(loaded: Mapping[str, Any], wanted: str, name: str) -> str | None:
    return next((n for n in (wanted, name) if n in loaded), None)


def _labels(found: dict[str, Any]) -> list[str]:
    """Labels of the channels, ch0... where the file has none."""
    info = found["info"]
    count = int(info["channel_count"][0])
    try:
        channels = info["desc"][0]["channels"][0]["channel"]
        labels = [str(channel["label"][0]) for channel in channels]
    except (TypeError, KeyError, IndexError):
        return channel_names(count)
    return channel_names(count, labels)


def _columns(found: dict[str, Any], names: list[str]) -> dict[str, NDArray[Any]]:
    series = found["time_series"]
    if isinstance(series, np.ndarray):
        whole = series.reshape(len(found["time_stamps"]), len(names))
    else:
        rows = [list(row) for row in series]
        whole = np.array(rows, "U").reshape(len(rows), len(names))
    return {name: whole[:, i] for i, name in enumerate(names)}


# ---- writing


def write_xdf(path: str | Path, recordings: Mapping[str, Recording]) -> None:
    """Write recordings as the streams of one XDF file.

    Parameters
    ----------
    path : str or Path
        The file; it must not be there.
    recordings : mapping of str to Recording
        Name of a stream to what it holds. Times and values are written exactly; fields
        share one dtype, u8 to u32, bool and f16 become the next wider one that XDF has,
        and where one field is text all are.

    Raises
    ------
    ValueError
        XDF cannot hold a recording; nothing is written.
    FileExistsError
        The file is there.

    Examples
    --------
    >>> import tempfile
    >>> from ataraxis.datamux import Field, Recording, Stream
    >>> stream = Stream("x", frequency=10, fields={"v": Field(dtype="i16")})
    >>> recording = Recording.of(stream, {"v": np.arange(3)})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_xdf(f"{folder}/a.xdf", {"x": recording})
    ...     Path(f"{folder}/a.xdf").read_bytes()[:4]
    b'XDF:'
    """
    formats = {name: _format_of(name, rec) for name, rec in recordings.items()}
    with Path(path).open("xb") as file:
        file.write(b"XDF:")
        _chunk(file, 1, b"<?xml version='1.0'?><info><version>1.0</version></info>")
        for number, (name, recording) in enumerate(recordings.items(), 1):
            sid = struct.pack("<I", number)
            _chunk(file, 2, sid + _header(name, recording, formats[name]))
        for number, (name, recording) in enumerate(recordings.items(), 1):
            sid = struct.pack("<I", number)
            kind = _FORMATS[formats[name]]
            # One clock wrote them all: its offset to itself, once.
            clock = float(recording.t[0]) if len(recording) else 0.0
            _chunk(file, 4, sid + struct.pack("<dd", clock, 0.0))
            for at in range(0, len(recording), _CHUNK):
                _chunk(file, 3, sid + _samples(recording, at, at + _CHUNK, kind))
        for number, recording in enumerate(recordings.values(), 1):
            first, last = (
                (recording.t[0], recording.t[-1]) if len(recording) else (0, 0)
            )
            footer = (
                f"<?xml version='1.0'?><info><first_timestamp>{first!s}"
                f"</first_timestamp><last_timestamp>{last!s}</last_timestamp>"
                f"<sample_count>{len(recording)}</sample_count></info>"
            )
            _chunk(file, 6, struct.pack("<I", number) + footer.encode())


def _format_of(name: str, recording: Recording) -> str:
    declared = [field.dtype for field in recording.stream.fields.values()]
    dtypes = {WIDER.get(dtype, dtype) for dtype in declared}
    if "str" in dtypes:
        dtypes = {"str"}
    known = {ours: theirs for theirs, ours in _FORMATS.items()}
    if len(dtypes) != 1 or (dtype := dtypes.pop()) not in known:
        raise ValueError(
            f"stream {name!r}: XDF has one dtype a stream, of {', '.join(known)}; "
            f"found {declared}"
        )
    if any(field.shape for field in recording.stream.fields.values()):
        raise ValueError(f"stream {name!r}: XDF has no fields that are arrays")
    return known[dtype]


def _header(name: str, recording: Recording, kind: str) -> bytes:
    stream = recording.stream
    channels = "".join(
        f"<channel><label>{escape(key)}</label>"
        f"<unit>{escape(field.unit or stream.unit)}</unit></channel>"
        for key, field in stream.fields.items()
    )
    return (
        f"<?xml version='1.0'?><info><name>{escape(name)}</name>"
        f"<type>{escape(str(stream.attrs.get('type', stream.description)))}</type>"
        f"<channel_count>{len(stream.fields)}</channel_count>"
        f"<nominal_srate>{stream.rate_hz or 0!r}</nominal_srate>"
        f"<channel_format>{kind}</channel_format><created_at>0</created_at>"
        f"<desc><channels>{channels}</channels></desc></info>"
    ).encode()


def _samples(recording: Recording, start: int, stop: int, kind: str) -> bytes:
    """Samples chunk: their count, then of each a stamp and its values."""
    block = recording.read(start, stop)
    count = b"\x04" + struct.pack("<I", len(block))
    columns = [*block.values.values()]
    if kind == "str":
        texts = zip(*(column.tolist() for column in columns), strict=True)
        return count + b"".join(
            b"\x08" + struct.pack("<d", t) + b"".join(_text(str(v)) for v in row)
            for t, row in zip(block.t, texts, strict=True)
        )
    value = ("v", f"<{DTYPES[kind]}", (len(columns),))
    rows = np.empty(len(block), [("size", "u1"), ("t", "<f8"), value])
    rows["size"], rows["t"] = 8, block.t
    for i, column in enumerate(columns):
        rows["v"][:, i] = column
    return count + rows.tobytes()


def _text(value: str) -> bytes:
    data = value.encode()
    return b"\x04" + struct.pack("<I", len(data)) + data


def _chunk(file: BinaryIO, tag: int, content: bytes) -> None:
    file.write(b"\x04" + struct.pack("<IH", len(content) + 2, tag) + content)
