"""A log as XDF: channels of numbers or text, each sample with its time."""

from __future__ import annotations

import datetime
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from ataraxis.log.export.track import ExportSeries

# ---- XDF, the files of the Lab Streaming Layer, written chunk by chunk

# Reference: the specification of XDF 1.0, github.com/sccn/xdf/wiki/Specifications.

FORMATS = {
    "f4": "float32", "f8": "double64", "i1": "int8", "i2": "int16", "i4": "int32",
    "i8": "int64", "str": "string",
}  # fmt: skip
"""What a channel may hold, and what XDF calls it."""
_WIDER = {"b1": "i1", "u1": "i2", "u2": "i4", "u4": "i8", "f2": "f4"}
_FILE, _HEADER, _SAMPLES, _CLOCK, _FOOTER = 1, 2, 3, 4, 6
_XML = "<?xml version='1.0'?>"


def fitting(dtype: np.dtype[Any]) -> str | None:
    """Say as which of `FORMATS` values of a dtype are kept exactly; None: as none.

    Examples
    --------
    >>> fitting(np.dtype("u1")), fitting(np.dtype("<f8")), fitting(np.dtype("u8"))
    ('i2', 'f8', None)
    """
    if dtype.kind in "OUS":
        return "str"
    kind = f"{dtype.kind}{dtype.itemsize}"
    kind = _WIDER.get(kind, kind)
    return kind if kind in FORMATS else None


@dataclass
class _Stream:
    """What the footer of a stream will say."""

    kind: str
    count: int = 0
    first: float = 0.0
    last: float = 0.0


class XdfWriter:
    """Write streams into one XDF file; nothing is kept in memory.

    Parameters
    ----------
    path : str or Path
        A new file.
    more : mapping of str to object
        What else the file header says.

    Raises
    ------
    FileExistsError
        The file is there.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with XdfWriter(f"{folder}/a.xdf") as xdf:
    ...         number = xdf.stream("x", "f4", [("a", "mV"), ("b", "mV")], 10)
    ...         xdf.samples(number, np.array([0.0, 0.1]), np.zeros((2, 2)))
    ...     Path(f"{folder}/a.xdf").read_bytes()[:4]
    b'XDF:'
    """

    def __init__(self, path: str | Path, more: Mapping[str, Any] | None = None) -> None:
        self._file = open(path, "xb")  # noqa: SIM115
        self._streams: dict[int, _Stream] = {}
        self._file.write(b"XDF:")
        said = "".join(f"<{k}>{escape(str(v))}</{k}>" for k, v in (more or {}).items())
        info = f"{_XML}<info><version>1.0</version>{said}</info>"
        self._chunk(_FILE, info.encode())

    def stream(
        self,
        name: str,
        kind: str,
        channels: Sequence[tuple[str, str]],
        rate_hz: float = 0,
        type: str = "",
        more: str = "",
    ) -> int:
        """Describe a stream; its number.

        Parameters
        ----------
        name : str
            Of the stream.
        kind : str
            One of `FORMATS`.
        channels : sequence of (label, unit)
            Of each channel.
        rate_hz : float, optional
            Nominal rate, Hz; 0: irregular.
        type : str, optional
            Of its content.
        more : str, optional
            XML that goes into its ``desc``.
        """
        number = len(self._streams) + 1
        self._streams[number] = _Stream(kind)
        described = "".join(
            f"<channel><label>{escape(label)}</label><unit>{escape(unit)}</unit>"
            "</channel>"
            for label, unit in channels
        )
        info = (
            f"{_XML}<info><name>{escape(name)}</name><type>{escape(type)}</type>"
            f"<channel_count>{len(channels)}</channel_count>"
            f"<nominal_srate>{rate_hz or 0!r}</nominal_srate>"
            f"<channel_format>{FORMATS[kind]}</channel_format>"
            "<created_at>0</created_at>"
            f"<desc><channels>{described}</channels>{more}</desc></info>"
        )
        self._chunk(_HEADER, struct.pack("<I", number) + info.encode())
        return number

    def clock(self, number: int, time_s: float) -> None:
        """Say that the clock of a stream was that of the file."""
        self._chunk(_CLOCK, struct.pack("<Idd", number, time_s, 0.0))

    def samples(self, number: int, times_s: NDArray[np.float64], rows: Any) -> None:
        """Write samples, each with its time.

        Parameters
        ----------
        number : int
            Of the stream.
        times_s : float64 array
            Shape (n,), s.
        rows : array-like
            Shape (n, channels); kept as the stream's kind.
        """
        kind = self._streams[number].kind
        if kind == "str":
            body = b"".join(
                b"\x08" + struct.pack("<d", t) + b"".join(_text(str(v)) for v in row)
                for t, row in zip(times_s, rows, strict=True)
            )
        else:
            rows = np.asarray(rows)
            value = ("v", f"<{kind}", rows.shape[1:])
            made = np.empty(len(rows), [("size", "u1"), ("t", "<f8"), value])
            made["size"], made["t"], made["v"] = 8, times_s, rows
            body = made.tobytes()
        self._samples(number, times_s, len(times_s), body)

    def blocks(
        self, number: int, times_s: NDArray[np.float64], rows: NDArray[Any]
    ) -> None:
        """Write samples of which only each block's first has a time.

        Parameters
        ----------
        number : int
            Of the stream.
        times_s : float64 array
            Shape (n,), s.
        rows : ndarray
            Shape (n, samples, channels).
        """
        kind, (n, length, width) = self._streams[number].kind, rows.shape
        value = ("v", f"<{kind}", (width,))
        rest = np.dtype([("size", "u1"), value])
        first = [("size", "u1"), ("t", "<f8"), value]
        made = np.zeros(n, [*first, ("rest", rest, (length - 1,))])
        made["size"], made["t"], made["v"] = 8, times_s, rows[:, 0]
        made["rest"]["v"] = rows[:, 1:]
        self._samples(number, times_s, n * length, made.tobytes())

    def _samples(
        self, number: int, times_s: NDArray[np.float64], count: int, body: bytes
    ) -> None:
        if not count:
            return
        stream = self._streams[number]
        if not stream.count:
            stream.first = float(times_s[0])
        stream.count, stream.last = stream.count + count, float(times_s[-1])
        head = struct.pack("<IBI", number, 4, count)
        self._chunk(_SAMPLES, head + body)

    def _chunk(self, tag: int, content: bytes) -> None:
        size = len(content) + 2
        wide = size >= 2**32
        self._file.write(struct.pack("<BQ" if wide else "<BI", 8 if wide else 4, size))
        self._file.write(struct.pack("<H", tag) + content)

    def close(self) -> None:
        """Write the footers, and close the file."""
        if self._file.closed:
            return
        for number, stream in self._streams.items():
            footer = (
                f"{_XML}<info><first_timestamp>{stream.first!r}</first_timestamp>"
                f"<last_timestamp>{stream.last!r}</last_timestamp>"
                f"<sample_count>{stream.count}</sample_count></info>"
            )
            self._chunk(_FOOTER, struct.pack("<I", number) + footer.encode())
        self._file.close()

    def __enter__(self) -> XdfWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        """Close."""
        self.close()


def _text(value: str) -> bytes:
    data = value.encode()
    return b"\x04" + struct.pack("<I", len(data)) + data


# ---- the log as XDF

MOST_CHANNELS = 4096
_SECOND = 10**9
_DEVICE = [("device_time", "ticks"), ("device_sequence", "")]


class XdfExporter:
    """Streams by their names, and ``NAME device`` with their device stamps.

    Times are seconds from the whole second before the first sample of all, which the
    header says (``zero_ns``, ns since 1970): doubles hold them to the nanosecond.
    """

    subject = ""

    def check(self, tracks: list[ExportSeries]) -> None:
        """Refuse what is no channels, and times that are none."""
        for track in tracks:
            series = track.series
            for field in track.fields:
                dtype, shape = track.kind(field)
                if fitting(dtype) is None:
                    raise ValueError(
                        f"{series.called} is {dtype}, which XDF has not: export it to "
                        "npz, nwb or zarr"
                    )
                if _channels(track, shape) > MOST_CHANNELS:
                    raise ValueError(
                        f"{series.called} has rows of shape {shape}, and XDF is for "
                        f"channels, at most {MOST_CHANNELS}: export it to nwb or zarr"
                    )
            if series.times.dtype.kind == "u":
                raise ValueError(
                    f"the stamps of {series.called} are no microseconds, and XDF wants "
                    "times: export it to npz or zarr"
                )
            if track.is_blocks and not track.rate_hz:
                raise ValueError(
                    f"{series.called} has several samples an entry and nobody says at "
                    "which rate (attrs sample_rate_hz): export it to npz, nwb or zarr"
                )

    def write(self, path: Path, tracks: list[ExportSeries]) -> None:
        """Write a new file."""
        zero = zero_ns(tracks)
        when = datetime.datetime.fromtimestamp(zero // _SECOND, datetime.UTC)
        said = {"datetime": when.isoformat(), "zero_ns": zero}
        with XdfWriter(path, said) as xdf:
            numbers = [_described(xdf, track, zero) for track in tracks]
            for track, (streams, device) in zip(tracks, numbers, strict=True):
                for start, rows in track.pieces(most=1 << 15):
                    t = seconds(track, rows, zero)
                    if not start:
                        for number in streams if device is None else [*streams, device]:
                            xdf.clock(number, float(t[0]))
                    read = track.series.read(rows)
                    for number, field in zip(streams, track.fields, strict=True):
                        _write(xdf, track, number, t, track.take(field)(read))
                    if device is not None:
                        xdf.samples(device, t, _stamps(track, rows))
                    track.told(len(t))


def zero_ns(tracks: list[ExportSeries]) -> int:
    """Return the whole second before the first time of all, ns."""
    firsts = []
    for track in tracks:
        if len(track):
            first = track.series.time(track.at(0, 1)).view(np.int64)[0]
            firsts.append(int(first))
    return min(firsts, default=0) // _SECOND * _SECOND


def seconds(track: ExportSeries, rows: Any, zero: int) -> NDArray[np.float64]:
    """Return times of rows, s after `zero`."""
    return (track.series.time(rows).view(np.int64) - zero) / _SECOND


def _stamps(track: ExportSeries, rows: Any) -> NDArray[np.int64]:
    stamps = track.series.device(rows)
    if track.series.is_device_unsigned and len(stamps) and stamps.min() < 0:
        raise ValueError(
            f"{track.series.called} has device stamps of 2**63 or more, and XDF has no "
            "unsigned numbers: export it to npz, nwb or zarr"
        )
    return stamps


def _channels(track: ExportSeries, shape: tuple[int, ...]) -> int:
    return math.prod(shape[1:] if track.is_blocks else shape)


def _described(
    xdf: XdfWriter, track: ExportSeries, zero: int
) -> tuple[list[int], int | None]:
    """Describe the streams of a track: one a field, and that of device stamps."""
    series = track.series
    labels = series.labels
    text = "" if labels is None else escape(labels.to_json().decode())
    more = f"<labels>{text}</labels><zero_ns>{zero}</zero_ns>"
    streams = []
    for field in track.fields:
        dtype, shape = track.kind(field)
        count = _channels(track, shape)
        names = [(label, track.units) for label in _names(track, count, field)]
        name = ".".join((track.name, *field))
        kind = fitting(dtype)
        if kind is None:
            raise ValueError(f"{dtype} does not go into XDF")
        streams.append(
            xdf.stream(name, kind, names, track.rate_hz, _type_of(track), more)
        )
    device = None
    if series.has_device:
        rate = 0.0 if track.is_blocks else track.rate_hz
        device = xdf.stream(f"{track.name} device", "i8", _DEVICE, rate, "device")
    return streams, device


def _type_of(track: ExportSeries) -> str:
    default = "Markers" if track.is_text else ""
    return str(track.series.attrs.get("type", default))


def _names(track: ExportSeries, count: int, field: tuple[str, ...]) -> list[str]:
    """Name channels by the coordinate of the only dimension they have."""
    labels = track.series.labels
    dims = track.series.dims[1:] if track.is_blocks else track.series.dims
    if labels is not None and len(dims) == 1 and dims[0] in labels.coords:
        found = [str(value) for value in labels.coords[dims[0]].values]
        if len(found) == count:
            return found
    if count == 1:
        return [field[-1] if field else track.series.name]
    return [f"ch{i}" for i in range(count)]


def _write(
    xdf: XdfWriter, track: ExportSeries, number: int, t: NDArray[np.float64], rows: Any
) -> None:
    n = len(t)
    if track.is_blocks:
        xdf.blocks(number, t, rows.reshape(n, rows.shape[1], -1))
    else:
        xdf.samples(number, t, rows.reshape(n, -1))
