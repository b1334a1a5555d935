"""Video files through PyAV: frames in order, their exact count, and their stamps."""

from __future__ import annotations

import bisect
import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.datamux.description import Field, Stream
from ataraxis.datamux.folder import Folder, OpenedFile, SuffixFormat
from ataraxis.datamux.recording import LazyRecording, Recording
from ataraxis.datamux.sources.pieces import held
from ataraxis.errors import RecordingError
from ataraxis.log.optional import need

_GREY = ("gray", "gray8", "graya", "monow", "monob")


class Video(SuffixFormat):
    """``video://{session}``, ``avi``, ``mkv``, ``mov``: the stream ``frames``.

    It has one field, ``image``.
    Times are the container's stamps, s, of each frame that it holds; those of a file of
    stamps may be given by ``attrs: {stamps: times.npy}``, one a frame, s, beside the
    video. Images are uint8, (height, width) in grey or (height, width, 3) in RGB.
    """

    suffix = ".mp4"

    def describe(self, folder: Folder, key: str) -> dict[str, Stream]:
        """Return the stream of a file; reads the list of frames, and no image."""
        reader = _Frames(held(folder, f"{key}{self.suffix}"))
        try:
            field = Field("image", dtype="u8", shape=reader.shape)
            rate = reader.rate_hz
        finally:
            reader.close()
        return {"frames": Stream("frames", frequency=rate, fields={"image": field})}

    def recording(
        self, folder: Folder, key: str, stream: Stream, where: str
    ) -> Recording:
        """Return the recording; images are decoded when they are asked for."""
        reader = _Frames(held(folder, f"{key}{self.suffix}"))
        times = reader.times
        try:
            shapes = [tuple(field.shape) for field in stream.fields.values()]
            if shapes != [reader.shape]:
                raise RecordingError(
                    f"{where}: images of {reader.shape}, the stream declares {shapes}"
                )
            if "stamps" in stream.attrs:
                name = str(stream.attrs["stamps"])
                times = _stamps(folder, key, name, len(times), where)
        except BaseException:
            reader.close()
            raise
        width = int(np.prod(reader.shape))
        return LazyRecording(stream, times, reader.rows, width, where, reader.close)


def _stamps(
    folder: Folder, key: str, name: str, count: int, where: str
) -> NDArray[np.float64]:
    """Read a file of stamps: npy, or text with one number a line."""
    inside = key.rpartition("/")[0]
    with folder.opened(f"{inside}/{name}" if inside else name) as opened:
        try:
            if name.endswith(".npy"):
                found = np.load(opened.file, allow_pickle=False)
            else:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # about a file without numbers
                    found = np.loadtxt(opened.file, delimiter=",", ndmin=1)
        except ValueError as error:
            raise RecordingError(f"{opened.shown}: not stamps: {error}") from error
    if found.shape != (count,):
        raise RecordingError(
            f"{where}: {count} frames, and stamps of shape {found.shape} in {name!r}"
        )
    times: NDArray[np.float64] = found.astype(np.float64)
    return times


class _Frames:
    """Decodes frames by number; goes back to a key frame only where it must."""

    def __init__(self, opened: OpenedFile) -> None:
        av = need("av", "video", "a video")
        self._opened = opened
        try:
            self._container = av.open(opened.file)
            self._stream = self._container.streams.video[0]
            packets = [
                (packet.pts, packet.is_keyframe, packet.dts)
                for packet in self._container.demux(self._stream)
                if packet.size and packet.pts is not None and not packet.is_discard
            ]
        except Exception as error:  # PyAV raises several kinds
            opened.file.close()
            raise RecordingError(
                f"{opened.shown}: not a video, or damaged: {type(error).__name__}: "
                f"{error}"
            ) from error
        if not packets:
            self.close()
            raise RecordingError(f"{opened.shown}: no frame of it has a stamp")
        packets.sort(key=lambda packet: int(packet[0]))
        self._pts = np.array([pts for pts, *_ in packets], np.int64)
        # Where decoding may begin: containers seek by the time of decoding.
        self._keys = [
            (pts, pts if dts is None else dts) for pts, is_key, dts in packets if is_key
        ]
        base = self._stream.time_base
        exact = self._pts.astype(object) * base.numerator / base.denominator
        self.times = exact.astype(np.float64)
        context = self._stream.codec_context
        is_grey = (context.pix_fmt or "").startswith(_GREY)
        self._format = "gray" if is_grey else "rgb24"
        size = (int(context.height), int(context.width))
        self.shape: tuple[int, ...] = size if is_grey else (*size, 3)
        rate = self._stream.average_rate
        self.rate_hz = float(rate) if rate else None
        self._next = -1
        self._frames: Iterator[Any] = iter(())

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Decode frames `start` to `stop`."""
        out = np.empty((stop - start, *self.shape), np.uint8)
        for at in range(start, stop):
            out[at - start] = self._frame(at)
        return out

    def _frame(self, at: int) -> Any:
        wanted = int(self._pts[at])
        if at != self._next:
            self._frames = self._from(wanted)
        for frame in self._frames:
            if frame.pts is not None and frame.pts >= wanted:
                break
        else:
            raise RecordingError(f"{self._opened.shown}: frame {at} does not decode")
        if frame.pts != wanted:
            raise RecordingError(
                f"{self._opened.shown}: frame {at} does not decode: the next that does "
                f"has the stamp {frame.pts}, not {wanted}"
            )
        self._next = at + 1
        return frame.to_ndarray(format=self._format)

    def _from(self, wanted: int) -> Iterator[Any]:
        """Decode from the last key frame behind which the frame `wanted` comes.

        A frame that is shown before a key frame may be stored after it, and needs the
        key frame before.
        """
        place = bisect.bisect_right(self._keys, wanted, key=lambda key: int(key[0]))
        for _, dts in reversed(self._keys[:place]):
            self._container.seek(dts, stream=self._stream)
            frames = self._container.decode(self._stream)
            first = next(frames, None)
            if first is not None and first.pts is not None and first.pts <= wanted:
                return itertools.chain([first], frames)
        self._container.seek(int(self._pts[0]), stream=self._stream)
        frames = self._container.decode(self._stream)
        return iter(frames)

    def close(self) -> None:
        """Close the file."""
        self._container.close()
        self._opened.file.close()
