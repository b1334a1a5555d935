"""Cameras and video files through OpenCV, one image per sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from ataraxis.clock import now_ns
from ataraxis.datamux.description import Field, Node, Stream
from ataraxis.datamux.source import (
    Array,
    Attrs,
    DescribedSource,
    DeviceHandle,
    check_out,
    wait_until,
)
from ataraxis.errors import EndOfStream, SourceLost, SourceNotFound
from ataraxis.log.optional import need

STREAM_ID = "frames"


class Cameras:
    """Driver of cameras: nodes ``camera0`` and so on, each with the stream ``frames``.

    A node's file may have ``uri: camera://0`` or ``camera:///path/of/a/video.avi``.
    Images are (y, x, colour), blue first, uint8.
    """

    options: ClassVar[frozenset[str]] = frozenset([])
    """Attributes of a stream."""

    def nodes(self, timeout: float) -> list[Node]:
        """Return the video devices of this machine; none is opened."""
        found = sorted(Path("/dev").glob("video*"))
        numbers = [p.name[5:] for p in found if p.name[5:].isdecimal()]
        return [Node(id=f"camera{n}", uri=f"camera://{n}") for n in numbers]

    def streams(self, node: Node, timeout: float) -> dict[str, Stream]:
        """Open the camera and describe its stream."""
        source = CameraSource(_place(node))
        source.open()
        source.close()
        return {STREAM_ID: source.stream}

    def source(self, node: Node, stream_id: str, attrs: Attrs) -> CameraSource:
        """Return the source of a camera."""
        if stream_id != STREAM_ID:
            raise SourceNotFound(
                f"no stream {stream_id!r} in node {node.id!r}: found {STREAM_ID!r}"
            )
        return CameraSource(_place(node))


def _place(node: Node) -> int | str:
    parts = urlsplit(node.uri or "")
    return int(parts.netloc) if parts.netloc.isdecimal() else unquote(parts.path)


class CameraSource(DescribedSource):
    """One camera, by its number; or one video file, by its path, played at its rate.

    Device times are those of the driver or file, ms since its begin; device sequences
    are the frame numbers of a file. Missing numbers count as lost.
    """

    def __init__(self, place: int | str) -> None:
        self._cv2 = need("cv2", "camera", "a camera")
        self._place = place
        what = f"camera {place!r}"
        self._capture = DeviceHandle[Any](what, lambda made: made.release())
        self._first: Any = None
        self._is_file = isinstance(place, str)
        self._began_ns = self._count = 0
        name = Path(place).name if isinstance(place, str) else f"camera {place}"
        attrs = {"id": STREAM_ID, "mode": "proxy", "place": str(place)}
        # OpenCV has no counter for live cameras: dropped images are unknown.
        attrs["device_counter"] = "frames" if self._is_file else "unknown"
        index = {"t": Field("time", unit="s")}
        super().__init__(Stream(name, index=index, attrs=attrs), what)

    def open(self) -> None:
        """Open the device and take a first image, which has the size."""
        self.close()
        capture = self._cv2.VideoCapture(self._place)
        is_read, picture = capture.read() if capture.isOpened() else (False, None)
        if not is_read or picture is None:
            capture.release()
            raise SourceNotFound(
                f"camera {self._place!r} gives no image: is it connected, and free?"
            )
        rate = float(capture.get(self._cv2.CAP_PROP_FPS))
        self._stream.frequency = rate if 0 < rate < 1e4 else None
        self._stream.fields = {
            "frame": Field("picture", dtype="u8", shape=picture.shape)
        }
        self._labels = self._stream.labels()
        self._capture.hold(capture)
        self._first = picture
        self._began_ns, self._count = now_ns(), 0

    def read_into(
        self, out: Array, stamps: Array | None = None, *, timeout: float | None = None
    ) -> int:
        """Fill one row with the next image; see `Source.read_into`.

        If the driver blocks, this waits longer than `timeout`.
        """
        capture = self._capture.get()
        check_out(out, self.labels)
        due_s = self._count / (self._stream.rate_hz or 30.0)
        due_ns = self._began_ns + round(due_s * 1e9)
        if self._is_file and not wait_until(due_ns, timeout):
            return 0
        picture, self._first = self._first, None
        if picture is None:
            is_read, picture = capture.read()
            if not is_read and self._is_file:
                raise EndOfStream(f"video {self._place!r} has ended")
            if not is_read:
                raise SourceLost(f"camera {self._place!r} gives no more images")
        arrived = now_ns()
        out[0] = picture
        if stamps is not None:
            stamps["time_ns"][0] = arrived
            device_ms = capture.get(self._cv2.CAP_PROP_POS_MSEC)
            if device_ms > 0:
                stamps["device_s"][0] = device_ms * 1e-3
            elif self._is_file and self._stream.rate_hz:
                stamps["device_s"][0] = self._count / self._stream.rate_hz
            if self._is_file:
                stamps["device_sequence"][0] = self._count
        self._count += 1
        return 1

    def close(self) -> None:
        """Release the device."""
        self._capture.close()
