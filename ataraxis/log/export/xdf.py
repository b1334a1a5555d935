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

from ataraxis.log.export.series import ExportSeries, on_one_clock

# ---- the file format of the Lab Streaming Layer

# Reference: the specification of XDF 1.0, github.com/sccn/xdf/wiki/Specifications.

FORMATS = {
    "f4": "float32", "f8": "double64", "i1": "int8", "i2": "int16", "i4": "int32",
    "i8": "int64", "str": "string",
}  # fmt: skip
"""Types of channels, with XDF's names."""
_WIDER = {"b1": "i1", "u1": "i2", "u2": "i4", "u4": "i8", "f2": "f4"}
_FILE, _HEADER, _SAMPLES, _CLOCK, _FOOTER = 1, 2, 3, 4, 6
_XML = "<?xml version='1.0'?>"


def fitting(dtype: np.dtype[Any]) -> str | None:
    """Return the one of `FORMATS` that holds values of a dtype exactly, or None.

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
    """Contents of the footer of a stream."""

    kind: str
    count: int = 0
    first: float = 0.0
    last: float = 0.0


class XdfWriter:
    """Write streams to one XDF file, chunk by chunk; the file must be new.

    `more` has further elements of the file header.
    """

    def __init__(self, path: str | Path, more: Mapping[str, Any] | None = None) -> None:
        self._file = open(path, "xb")  # noqa: SIM115
        self._streams: dict[int, _Stream] = {}
        self._file.write(b"XDF:")
        pairs = (more or {}).items()
        fields = "".join(f"<{key}>{escape(str(v))}</{key}>" for key, v in pairs)
        info = f"{_XML}<info><version>1.0</version>{fields}</info>"
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
        """Describe a stream; return its number.

        `kind` is one of `FORMATS`; a channel is its label and unit; a rate of 0 is
        irregular; `type` is that of the content; `more` is XML for the ``desc``.
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
        """Write that the clock of a stream equals that of the file."""
        self._chunk(_CLOCK, struct.pack("<Idd", number, time_s, 0.0))

    def samples(self, number: int, times_s: NDArray[np.float64], rows: Any) -> None:
        """Write samples, (n, channels), each with its time, s; cast to the kind."""
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
        """Write the footers and close the file."""
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
        self.close()


def _text(value: str) -> bytes:
    data = value.encode()
    return b"\x04" + struct.pack("<I", len(data)) + data


# ---- the log as XDF

MOST_CHANNELS = 4096
_SECOND = 10**9
_DEVICE = [("device_time", "ticks"), ("device_sequence", "")]


class XdfExporter:
    """Streams by the names of the sources; device stamps as ``NAME device``.

    Times are seconds since the whole second before the first sample of all, which is
    in the header (``zero_ns``, ns since 1970): a double holds them to the nanosecond.
    """

    subject = ""

    def check(self, items: list[ExportSeries]) -> None:
        """Raise for data that are not channels, and for stamps without a time unit."""
        for item in items:
            series = item.series
            for field in item.fields:
                dtype, shape = item.kind(field)
                if fitting(dtype) is None:
                    raise ValueError(
                        f"{series.title} is {dtype}, which XDF cannot hold: export it "
                        "to npz, nwb or zarr"
                    )
                if math.prod(shape) > MOST_CHANNELS:
                    raise ValueError(
                        f"{series.title} has rows of shape {shape}, and XDF holds at "
                        f"most {MOST_CHANNELS} channels: export it to nwb or zarr"
                    )
            item.check_times("XDF")
        on_one_clock(items, "XDF")

    def write(self, path: Path, items: list[ExportSeries]) -> None:
        """Write a new file."""
        zero = zero_ns(items)
        when = datetime.datetime.fromtimestamp(zero // _SECOND, datetime.UTC)
        header = {"datetime": when.isoformat(), "zero_ns": zero}
        with XdfWriter(path, header) as xdf:
            numbers = [_described(xdf, item, zero) for item in items]
            for item, (streams, device) in zip(items, numbers, strict=True):
                for start, rows in item.pieces(most=1 << 15):
                    t = seconds(item, rows, zero)
                    if not start:
                        for number in streams if device is None else [*streams, device]:
                            xdf.clock(number, float(t[0]))
                    read = item.read(rows)
                    for number, field in zip(streams, item.fields, strict=True):
                        part = item.take(field)(read)
                        xdf.samples(number, t, part.reshape(len(t), -1))
                    item.report(len(t))
                for start in range(0, item.entry_count if device else 0, 1 << 15):
                    stop = min(start + (1 << 15), item.entry_count)
                    entries = item.entries_at(start, stop)
                    t = (item.entry_time(entries).view(np.int64) - zero) / _SECOND
                    assert device is not None
                    xdf.samples(device, t, _stamps(item, entries))


def zero_ns(items: list[ExportSeries]) -> int:
    """Return the whole second before the first time of all series, ns."""
    firsts = []
    for item in items:
        if len(item):
            first = item.time(item.at(0, 1)).view(np.int64)[0]
            firsts.append(int(first))
    return min(firsts, default=0) // _SECOND * _SECOND


def seconds(item: ExportSeries, rows: Any, zero: int) -> NDArray[np.float64]:
    """Return times of rows, s after `zero`."""
    return (item.time(rows).view(np.int64) - zero) / _SECOND


def _stamps(item: ExportSeries, rows: Any) -> NDArray[np.int64]:
    stamps = item.series.device(rows)
    if item.series.is_device_unsigned and len(stamps) and stamps.min() < 0:
        raise ValueError(
            f"{item.series.title} has device stamps of 2**63 or more, and XDF lacks "
            "unsigned numbers: export it to npz, nwb or zarr"
        )
    return stamps


def _described(
    xdf: XdfWriter, item: ExportSeries, zero: int
) -> tuple[list[int], int | None]:
    """Describe the streams of a series: one per field, and one of device stamps."""
    series = item.series
    labels = series.labels
    text = "" if labels is None else escape(labels.to_json().decode())
    more = f"<labels>{text}</labels><zero_ns>{zero}</zero_ns>"
    streams = []
    for field in item.fields:
        dtype, shape = item.kind(field)
        count = math.prod(shape)
        names = [(label, item.units) for label in _names(item, count, field)]
        name = ".".join((item.name, *field))
        kind = fitting(dtype)
        if kind is None:
            raise ValueError(f"XDF cannot hold {dtype}")
        streams.append(
            xdf.stream(name, kind, names, item.rate_hz, _type_of(item), more)
        )
    device = None
    if series.has_device:
        rate = 0.0 if item.is_samples else item.rate_hz
        device = xdf.stream(f"{item.name} device", "i8", _DEVICE, rate, "device")
    return streams, device


def _type_of(item: ExportSeries) -> str:
    return str(item.series.attrs.get("type", "Markers" if item.is_text else ""))


def _names(item: ExportSeries, count: int, field: tuple[str, ...]) -> list[str]:
    """Return the names of channels: the coordinate of their only dimension, if any."""
    found = item.dim_labels(item.row_dims)
    if len(found) == count:
        return found
    if count == 1:
        return [field[-1] if field else item.series.name]
    return [f"ch{i}" for i in range(count)]
