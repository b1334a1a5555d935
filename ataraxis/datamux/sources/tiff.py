"""Stacks of images in TIFF, BigTIFF and ScanImage's, through ``tifffile``."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.datamux.description import Field, Stream, dtype_name
from ataraxis.datamux.folder import Folder, SuffixFormat
from ataraxis.datamux.recording import LazyRecording, Recording, UniformTimes
from ataraxis.datamux.sources.members import BY_NUMBER
from ataraxis.datamux.sources.pieces import held
from ataraxis.errors import RecordingError
from ataraxis.log.optional import need

_LARGE = 1 << 31
_SCANIMAGE_RATE = "SI.hRoiManager.scanFrameRate"
_SCANIMAGE_CHANNELS = "SI.hChannels.channelSave"


class Tiff(SuffixFormat):
    """``tiff://{session}``: one stream ``frames``; of ScanImage one a channel.

    The rate is the file's own: ScanImage's frame rate or ImageJ's frame interval.
    Without one, times are the numbers of the frames.
    """

    suffix = ".tif"

    def describe(self, folder: Folder, key: str) -> dict[str, Stream]:
        """Return the streams of a file; reads no image."""
        with contextlib.closing(_Stack(folder, f"{key}{self.suffix}")) as stack:
            return self._described(stack)

    def _described(self, stack: _Stack) -> dict[str, Stream]:
        described = {}
        for channel in range(stack.channels):
            name = "frames" if stack.channels == 1 else f"channel{stack.names[channel]}"
            kind = dtype_name(stack.dtype)
            if kind is None:
                raise RecordingError(f"{stack.shown}: images of {stack.dtype}")
            label = "time" if stack.has_rate else BY_NUMBER
            described[name] = Stream(
                name, frequency=stack.rate_hz,
                fields={"image": Field("image", dtype=kind, shape=stack.shape)},
                index={"t": Field(label, unit="s")},
                attrs={"id": name, "channel": channel},
            )  # fmt: skip
        return described

    def recording(
        self, folder: Folder, key: str, stream: Stream, where: str
    ) -> Recording:
        """Return the recording; images are read when they are asked for."""
        stack = _Stack(folder, f"{key}{self.suffix}")
        channel = int(stream.attrs.get("channel", 0))
        shapes = [tuple(field.shape) for field in stream.fields.values()]
        if shapes != [stack.shape] or not 0 <= channel < stack.channels:
            stack.close()
            raise RecordingError(
                f"{where}: {stack.channels} channels of images of {stack.shape}, the "
                f"stream declares {shapes}, channel {channel}"
            )
        times = UniformTimes(stack.count, stream.rate_hz or stack.rate_hz)

        def rows(start: int, stop: int) -> NDArray[Any]:
            return stack.read(range(start, stop), channel)

        width = math.prod(stack.shape) * stack.dtype.itemsize
        return LazyRecording(stream, times, rows, width, where, stack.close)


class _Stack:
    """The pages of a file."""

    def __init__(self, folder: Folder, name: str) -> None:
        tifffile = need("tifffile", "tiff", "a TIFF stack")
        opened = held(folder, name)
        self.shown, self.close = opened.shown, opened.file.close
        try:
            self._file = tifffile.TiffFile(opened.file)
            self.rate_hz, self.names = _metadata(self._file)
            is_small = not self._file.is_bigtiff and opened.size < _LARGE
            if self._file.is_scanimage and is_small:
                # tifffile computes the places of ScanImage's pages, which larger files
                # cannot hold, and may leave out the last one.
                opened.file.seek(0)
                self._file = tifffile.TiffFile(opened.file, is_scanimage=False)
            pages = self._file.pages
            first = pages[0]
            self.shape: tuple[int, ...] = tuple(int(n) for n in first.shape)
            self.dtype = np.dtype(first.dtype)
            count = len(pages)
        except Exception as error:  # tifffile raises several kinds
            self.close()
            raise RecordingError(
                f"{self.shown}: not TIFF, or damaged: {type(error).__name__}: {error}"
            ) from error
        self.has_rate = self.rate_hz > 0
        self.rate_hz = self.rate_hz or 1.0
        self.channels = max(1, len(self.names))
        self.count = count // self.channels

    def read(self, frames: range, channel: int) -> NDArray[Any]:
        """Read the images of a channel."""
        out = np.empty((len(frames), *self.shape), self.dtype)
        for place, frame in enumerate(frames):
            page = self._file.pages[frame * self.channels + channel].asarray()
            if page.shape != self.shape:
                raise RecordingError(
                    f"{self.shown}: image {frame} has shape {page.shape}, the first "
                    f"one {self.shape}"
                )
            out[place] = page
        return out


def _metadata(file: Any) -> tuple[float, list[int]]:
    """Return the rate of frames, 0 if unknown, and the numbers of the channels."""
    if file.is_scanimage:
        state = _state(str(file.pages[0].description))
        if state:
            return _of_state(state)
        tifffile = need("tifffile", "tiff", "a TIFF stack")
        found = (file.scanimage_metadata or {}).get("FrameData") or {}
        if _SCANIMAGE_CHANNELS not in found:
            text = file.pages[0].tags.valueof("Software", "")
            found = tifffile.matlabstr2py(str(text))
        saved = found.get(_SCANIMAGE_CHANNELS, 1)
        names = [int(n) for n in np.ravel(np.asarray(saved))]
        return float(found.get(_SCANIMAGE_RATE, 0) or 0), names
    if file.is_imagej:
        interval = float((file.imagej_metadata or {}).get("finterval", 0) or 0)
        return (1 / interval if interval > 0 else 0.0), [1]
    return 0.0, [1]


def _state(description: str) -> dict[str, str]:
    """Return what ScanImage up to 3.8 writes with the first image: state.x.y=value."""
    pairs = (line.partition("=") for line in description.splitlines())
    return {
        name.strip().removeprefix("state."): value.strip()
        for name, _, value in pairs
        if name.startswith("state.")
    }


def _of_state(state: dict[str, str]) -> tuple[float, list[int]]:
    """Return the rate of the images that were saved, and the channels that were."""

    def number(name: str, default: float) -> float:
        try:
            return float(state.get(name, default))
        except ValueError:
            return default

    averaged = 1.0
    if number("acq.averaging", 0):
        averaged = max(1.0, number("acq.numAvgFramesSave", 1))
    saved = [n for n in range(1, 5) if number(f"acq.savingChannel{n}", 0)]
    rate = number("acq.frameRate", 0) / averaged
    return (rate if math.isfinite(rate) and rate > 0 else 0.0), saved or [1]
