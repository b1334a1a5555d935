"""Recordings as sources: played in time, like a device."""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

import numpy as np

from ataraxis.clock import now_ns
from ataraxis.datamux.catalog import pick
from ataraxis.datamux.description import Field, Node, Stream
from ataraxis.datamux.folder import Folder
from ataraxis.datamux.formats import open_recordings, recordings_in
from ataraxis.datamux.price import Price
from ataraxis.datamux.recording import Recording
from ataraxis.datamux.source import (
    Array,
    Attrs,
    DescribedSource,
    OneNodeDriver,
    check_out,
    wait_until,
)
from ataraxis.errors import (
    EndOfStream,
    NotConnectedError,
    RecordingError,
    SourceNotFound,
)


class Recorded(OneNodeDriver):
    """Driver of the node "recording"; ``attrs["path"]`` is the file or directory.

    ``attrs`` may have ``speed``, seconds of the recording per second, and ``start`` and
    ``stop``, s after its first sample. A node's file may have
    ``uri: recording:///path/of/a/file.xdf``. Formats are those of
    `ataraxis.datamux.open_recordings`. For a client of a server ``path`` is a name in
    the server's folder of data.
    """

    node_id = "recording"
    options: ClassVar[frozenset[str]] = frozenset(["path", "speed", "start", "stop"])
    """Attributes of a stream."""

    def __init__(self) -> None:
        self._folder: Folder | None = None

    def confine(self, folder: Folder) -> None:
        """Open only files in a folder, by their names in it."""
        self._folder = folder

    def streams(self, node: Node, timeout: float) -> dict[str, Stream]:
        """Return the streams of the node's file, if it has one."""
        path = _path(node)
        if not path:
            return {}
        return {name: found.stream for name, found in open_recordings(path).items()}

    def source(self, node: Node, stream_id: str, attrs: Attrs) -> RecordedSource:
        """Return the source of a stream."""
        path = str(attrs.get("path", _path(node)))
        if not path:
            raise SourceNotFound(
                'node "recording" needs the file to play: attrs={"path": ...}'
            )
        opened = (
            self._named(path)
            if self._folder is not None and "path" in attrs
            else open_recordings(path)
        )
        found: Recording = pick(opened, stream_id, "stream", path)
        stop = attrs.get("stop")
        return RecordedSource(
            found,
            float(attrs.get("speed", 1.0)),
            float(attrs.get("start", 0.0)),
            None if stop is None else float(stop),
        )

    def _named(self, name: str) -> dict[str, Recording]:
        """Open a recording that a client names; every failure has the same message."""
        assert self._folder is not None
        there = f"no recording {name[:200]!r}: give its name in the folder of data"
        if name.startswith("/") or ".." in name.split("/") or "\0" in name:
            raise SourceNotFound(there)
        try:
            return recordings_in(self._folder, name)
        except FileNotFoundError as error:
            raise SourceNotFound(there) from error
        except (ValueError, RecordingError) as error:
            is_there = self._folder.is_there(name) or self._folder.is_folder(name)
            if isinstance(error, RecordingError) and is_there:
                raise
            raise SourceNotFound(there) from error


def _path(node: Node) -> str:
    path = unquote(urlsplit(node.uri or "").path)
    return str(Path(path)) if path else ""


class RecordedSource(DescribedSource):
    """A recording whose samples come when they are due, and which then ends.

    Device times are those of the recording, device sequences its sample numbers; its
    fields make one array. `speed`, `start` and `stop` are those of `API.replay`.
    """

    def __init__(
        self,
        recording: Recording,
        speed: float = 1.0,
        start: float = 0.0,
        stop: float | None = None,
    ) -> None:
        if not 0 < speed < math.inf:
            raise ValueError(f"speed must be above 0, got {speed!r}")
        self._recording, self._speed = recording, speed
        stream = recording.stream.copy()
        stream.index = stream.index or {"t": Field("time", unit="s")}
        super().__init__(stream)
        self._first = recording.locate(start)
        self._last = len(recording) if stop is None else recording.locate(stop)
        self._at: int | None = None
        self._began_ns = 0

    def price(self) -> Price:
        """Return its price."""
        return self._recording.price(self._speed)

    def open(self) -> None:
        """Start from the first sample."""
        self._at, self._began_ns = self._first, now_ns()

    def read_into(
        self, out: Array, stamps: Array | None = None, *, timeout: float | None = None
    ) -> int:
        """Fill rows with the samples that are due; see `Source.read_into`."""
        check_out(out, self.labels)
        at = self._at
        if at is None:
            raise NotConnectedError("the recording is closed: open() the source first")
        if at >= self._last:
            raise EndOfStream(f"{self._recording.where}: the recording has ended")
        t = self._recording.times
        origin = float(t[self._first])
        due_ns = self._began_ns + round((float(t[at]) - origin) / self._speed * 1e9)
        if not wait_until(due_ns, timeout):
            return 0
        reached = origin + (now_ns() - self._began_ns) * 1e-9 * self._speed
        until = max(min(int(t.searchsorted(reached, "right")), self._last), at + 1)
        got = min(until - at, len(out))
        block = self._recording.read(at, at + got)
        out[:got] = block.array
        if stamps is not None:
            stamps["time_ns"][:got] = now_ns()
            stamps["device_s"][:got] = block.t
            stamps["device_sequence"][:got] = np.arange(at, at + got)
        self._at = at + got
        return got

    def close(self) -> None:
        """Close the source."""
        self._at = None
