"""Stacks of images in TIFF, BigTIFF and ScanImage's, through ``tifffile``."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
import struct
from collections.abc import Iterator
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
_SCANIMAGE_STAMP = re.compile(
    rb"^frame ?timestamps?(?:_sec|\(s\)) *= *([0-9.eE+-]+)",
    re.MULTILINE | re.IGNORECASE,
)
_DESCRIPTION = 270  # the tag
_ENTRIES = 4096  # at most, of a page
_STAMP_WITHIN = 1024  # bytes of a description


class Tiff(SuffixFormat):
    """``tiff://{session}``: one stream ``frames``; of ScanImage one a channel.

    The rate is the file's own: ScanImage's frame rate or ImageJ's frame interval.
    Without one, times are the numbers of the frames. Times of ScanImage are the stamps
    of its frames: with pauses between volumes and acquisitions, and, in the files of
    one acquisition, since its start.
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
        stamps = stack.stamps(channel)
        back = np.flatnonzero(np.diff(() if stamps is None else stamps) < 0)
        if stamps is not None and back.size:
            stack.close()
            raise RecordingError(
                f"{where}: the time stamps go back after frame {int(back[0])}: from "
                f"{stamps[back[0]]:.6f} to {stamps[back[0] + 1]:.6f} s"
            )
        rate = stream.rate_hz or stack.rate_hz
        times = UniformTimes(stack.count, rate) if stamps is None else stamps

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
            self._is_scanimage = bool(self._file.is_scanimage)
            self._fileno = opened.file.fileno()
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

    def stamps(self, channel: int) -> NDArray[np.float64] | None:
        """Return ScanImage's own times of the images of a channel, s; None without."""
        if not self._is_scanimage:
            return None
        found = np.empty(self.count)
        try:
            pages = _descriptions(self._fileno)
            own = itertools.islice(pages, channel, None, self.channels)
            for frame in range(self.count):
                stamp = _SCANIMAGE_STAMP.search(next(own, b""))
                if stamp is None:
                    return None
                found[frame] = float(stamp[1])
        except (struct.error, ValueError, OverflowError, OSError):  # damaged places
            return None
        return found

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


def _descriptions(fileno: int) -> Iterator[bytes]:
    """Give the beginning of each page's description; quicker than tifffile's pages."""
    head = os.pread(fileno, 16, 0)
    order = "<" if head[:2] == b"II" else ">"
    is_big = struct.unpack_from(f"{order}H", head, 2) == (43,)
    count = struct.Struct(f"{order}{'Q' if is_big else 'H'}")
    entry = struct.Struct(f"{order}{'HHQQ' if is_big else 'HHII'}")
    place = struct.Struct(f"{order}{'Q' if is_big else 'I'}")
    (at,) = place.unpack_from(head, 8 if is_big else 4)
    expected = 32 * entry.size
    while at:
        page = os.pread(fileno, expected, at)
        (entries,) = count.unpack_from(page)
        if entries > _ENTRIES:
            raise ValueError(f"a page of {entries} entries")
        end = count.size + entries * entry.size
        if end + place.size > len(page):
            page = os.pread(fileno, end + place.size, at)
        text = b""
        for tag, _, size, where in entry.iter_unpack(page[count.size : end]):
            if tag == _DESCRIPTION:
                text = os.pread(fileno, min(size, _STAMP_WITHIN), where)
        yield text
        (at,) = place.unpack_from(page, end)


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
