"""A log as XDF: channels of numbers or text, each sample with its time."""

from __future__ import annotations

import datetime
import math
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from ataraxis.log.track import Track
from ataraxis.log.xdf import XdfWriter, fitting

MOST_CHANNELS = 4096
_SECOND = 10**9
_DEVICE = [("device_time", "ticks"), ("device_sequence", "")]


class Writer:
    """Streams by their names, and ``NAME device`` with their device stamps.

    Times are seconds from the whole second before the first sample of all, which the
    header says (``zero_ns``, ns since 1970): doubles hold them to the nanosecond.
    """

    def check(self, tracks: list[Track]) -> None:
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

    def write(self, path: Path, tracks: list[Track]) -> None:
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


def zero_ns(tracks: list[Track]) -> int:
    """Return the whole second before the first time of all, ns."""
    firsts = []
    for track in tracks:
        if len(track):
            first = track.series.time(track.at(0, 1)).view(np.int64)[0]
            firsts.append(int(first))
    return min(firsts, default=0) // _SECOND * _SECOND


def seconds(track: Track, rows: Any, zero: int) -> NDArray[np.float64]:
    """Return times of rows, s after `zero`."""
    return (track.series.time(rows).view(np.int64) - zero) / _SECOND


def _stamps(track: Track, rows: Any) -> NDArray[np.int64]:
    stamps = track.series.device(rows)
    if track.series.is_device_unsigned and len(stamps) and stamps.min() < 0:
        raise ValueError(
            f"{track.series.called} has device stamps of 2**63 or more, and XDF has no "
            "unsigned numbers: export it to npz, nwb or zarr"
        )
    return stamps


def _channels(track: Track, shape: tuple[int, ...]) -> int:
    return math.prod(shape[1:] if track.is_blocks else shape)


def _described(xdf: XdfWriter, track: Track, zero: int) -> tuple[list[int], int | None]:
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


def _type_of(track: Track) -> str:
    default = "Markers" if track.is_text else ""
    return str(track.series.attrs.get("type", default))


def _names(track: Track, count: int, field: tuple[str, ...]) -> list[str]:
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
    xdf: XdfWriter, track: Track, number: int, t: NDArray[np.float64], rows: Any
) -> None:
    n = len(t)
    if track.is_blocks:
        xdf.blocks(number, t, rows.reshape(n, rows.shape[1], -1))
    else:
        xdf.samples(number, t, rows.reshape(n, -1))
