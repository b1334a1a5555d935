"""Streams of ataraxis in the shared memory of this machine as sources."""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from ataraxis.datamux.description import Node, Stream, stream_of
from ataraxis.datamux.source import (
    Array,
    Attrs,
    DescribedSource,
    DeviceHandle,
    OneNodeDriver,
    check_out,
)
from ataraxis.errors import EndOfStream, LayoutError, SourceNotFound
from ataraxis.shm.context import ContextLike
from ataraxis.shm.header import Kind
from ataraxis.stream import Consumer
from ataraxis.stream.inspector import inspect


class Shared(OneNodeDriver):
    """Driver of the node "shared": the streams of this context by name.

    A node with uri ``shared:///path`` has the streams of another context.
    """

    node_id = "shared"
    options: ClassVar[frozenset[str]] = frozenset(["policy"])
    """Attributes of a stream."""

    def streams(self, node: Node, timeout: float) -> dict[str, Stream]:
        """Return the streams with shape and dtype."""
        context = _context(node)
        found = {}
        for listed in inspect(context):
            if listed.kind != Kind.STREAM.name.lower() or listed.name is None:
                continue
            try:
                with Consumer(listed.name, context=context, policy="latest") as reader:
                    if reader.is_typed:
                        found[listed.name] = stream_of(listed.name, reader.labels)
            except (OSError, RuntimeError, LayoutError):
                continue  # it has ended, or is damaged: see 'ataraxis ls'
        return found

    def source(self, node: Node, stream_id: str, attrs: Attrs) -> SharedSource:
        """Return the source of a stream; ``attrs["policy"]`` as `Consumer` takes it."""
        policy = str(attrs.get("policy", "lossless"))
        return SharedSource(stream_id, policy, _context(node))


def _context(node: Node) -> str | None:
    return unquote(urlsplit(node.uri or "").path) or None


class SharedSource(DescribedSource):
    """Reads a stream of shared memory, one frame per sample; options as `Consumer`.

    Blocks must have the length that the labels state: `read_into` raises `LayoutError`
    for a shorter one.
    """

    def __init__(
        self, name: str, policy: str = "lossless", context: ContextLike = None
    ) -> None:
        self._name = name
        self._policy: Any = policy
        self._context = context
        what = f"stream {name!r}"
        super().__init__(Stream(name, attrs={"id": name, "mode": "proxy"}), what)
        self._reader = DeviceHandle(what, Consumer.close)

    def open(self) -> None:
        """Join the stream."""
        try:
            reader = Consumer(self._name, context=self._context, policy=self._policy)
        except FileNotFoundError as error:
            raise SourceNotFound(str(error)) from error
        if not reader.is_typed:
            reader.close()
            raise LayoutError(
                f"stream {self._name!r} holds bytes: only streams with a shape and "
                "dtype are sources"
            )
        self._stream = stream_of(self._name, reader.labels)
        self._labels = reader.labels
        self._reader.hold(reader)

    def read_into(
        self, out: Array, stamps: Array | None = None, *, timeout: float | None = None
    ) -> int:
        """Fill rows with the next frames; see `Source.read_into`."""
        reader = self._reader.get()
        check_out(out, reader.labels)
        got = 0
        while got < len(out):
            try:
                frame = reader.receive(timeout=0 if got else timeout)
            except TimeoutError:
                break
            if frame is None:
                if got or reader.has_next:
                    break
                raise EndOfStream(f"stream {self._name!r} has ended")
            with frame:
                if (shape := frame.array.shape) != out.shape[1:]:
                    raise LayoutError(
                        f"stream {self._name!r}: frame {frame.sequence} has shape "
                        f"{shape}, a source gives frames of {out.shape[1:]} only: "
                        "read shorter blocks with Consumer.read_block"
                    )
                out[got] = frame.array
                if stamps is not None:
                    stamps["time_ns"][got] = frame.time_ns
                    device = frame.device_time
                    if device is not None:
                        stamps["device_s"][got] = device * 1e-9
                    number = frame.device_sequence
                    stamps["device_sequence"][got] = (
                        frame.sequence if number is None else number
                    )
            got += 1
        self.lost = reader.dropped_count
        return got

    def close(self) -> None:
        """Close the reader."""
        self._reader.close()
