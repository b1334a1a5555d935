"""A live stream of another machine here, not lossless: a lost connection loses frames.

For programs in other languages, viewers, and hosts without an agent.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from ataraxis.datamux.catalog import pick
from ataraxis.datamux.description import Stream, labels_of
from ataraxis.datamux.end import End
from ataraxis.datamux.remote.api import RemoteAPI
from ataraxis.datamux.sinks.stream import producer_of, producer_with
from ataraxis.datamux.task import StreamAck
from ataraxis.labels import Labels, stamp_of
from ataraxis.shm.context import ContextLike
from ataraxis.stream import Producer


class ServerMirror:
    """Receives a stream and sends it again here; not lossless, see `ataraxis.cluster`.

    It lasts until the stream ends, or it is closed, or the connection is lost: the
    frames of that time are lost, and after `patience` the stream here. For a recording,
    use ``ataraxis.cluster.Mirror``, which resends, and keeps stamps and numbers.

    A frame has the device time of the original, its number there as device sequence,
    and its time of arrival here: the labels state that, whatever they stated there.
    Blocks must have the length that the labels state.

    Parameters
    ----------
    url : str
        Address of the server: ``ws://host:port``, or ``wss://`` with TLS.
    stream_id : str
        Id of the stream.
    name : str, optional
        Name here; by default `stream_id`.
    node_id : str
        Node of the server; 'shared' has its streams of shared memory.
    attrs : mapping, optional
        Attributes of the node, such as ``{"policy": "latest"}`` of 'shared'. By default
        'shared' is read lossless, which holds its producer up while the connection is
        slow, and ends when it breaks.
    codec_name : str
        'frame', 'msgpack' or 'json'.
    token, tls, patience
        As `RemoteAPI.connect` takes them; by default TLS if the url says wss.
    context : Context, str, Path or None
        Directory of the stream here.
    **options
        As `Producer` takes them: ``buffer_count=`` and so on.

    Raises
    ------
    SourceNotFound
        The node or stream does not exist.
    AccessDenied, RemoteError, OSError
        The server refuses, or cannot be reached.
    SegmentExists
        The name is in use here.

    Warns
    -----
    UserWarning
        The stream is asked for without a loss, which this mirror cannot promise.
    """

    def __init__(
        self,
        url: str,
        stream_id: str,
        name: str | None = None,
        *,
        node_id: str = "shared",
        attrs: Mapping[str, Any] | None = None,
        codec_name: str = "frame",
        token: str | None = None,
        tls: bool | str | Path | None = None,
        patience: float = 30.0,
        context: ContextLike = None,
        **options: Any,
    ) -> None:
        host, port, is_secure = place_of(url)
        if (attrs or {}).get("policy", "lossless") == "lossless":
            warnings.warn(
                f"the mirror of {stream_id!r} of {url} loses frames if the connection "
                "breaks, and then ends: for a recording mirror it by the agents of "
                "both hosts (ataraxis.cluster.Mirror, 'ataraxis mirror HOST:STREAM'); "
                "to watch it, give attrs={'policy': 'latest'} or 'lossy'",
                UserWarning,
                stacklevel=2,
            )
        self._api = RemoteAPI("websocket", codec_name)
        self.producer: Producer | None = None
        """The producer of the stream here."""
        try:
            answer = self._api.connect(
                host, port, token=token, patience=patience,
                tls=is_secure if tls is None else tls,
            )  # fmt: skip
            if answer is not None:
                answer.result()  # inside an event loop
            found = {s.id: s for s in self._api.list_live_streams(node_id)}
            stream = pick(found, stream_id, "stream", f"node {node_id!r} of {url}")
            self.producer = _producer(stream, name or stream_id, context, options)
            self._ack: StreamAck = self._api.proxy_live_stream(
                node_id, stream_id, dict(attrs or {}), self.producer, deliver="block"
            )
        except BaseException:
            self.close()
            raise

    def wait(self, timeout: float | None = None) -> End:
        """Wait until the stream ends, at most `timeout` s, and return the end.

        Raises
        ------
        TimeoutError
            The stream still runs after `timeout` s.
        """
        return self._ack.wait(timeout)

    def close(self) -> None:
        """End the stream here, and disconnect; a second call does nothing."""
        self._api.disconnect()
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


Mirror = ServerMirror
"""Its public name in `ataraxis.datamux`; `ataraxis.cluster.Mirror` loses nothing."""


def place_of(url: str) -> tuple[str, int, bool]:
    """Return host, port, and whether TLS is used; `ValueError` if the url is invalid.

    Examples
    --------
    >>> place_of("wss://lab-3:8765")
    ('lab-3', 8765, True)
    """
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname or not parts.port:
        raise ValueError(f"{url!r}: expected ws://host:port or wss://host:port")
    return parts.hostname, parts.port, parts.scheme == "wss"


def _producer(
    stream: Stream, name: str, context: ContextLike, options: Mapping[str, Any]
) -> Producer:
    """Make a producer with the labels of the original stream."""
    if "labels" not in stream.attrs:
        return producer_of(stream, name, context=context, **options)
    labels = labels_of(stream)
    if stamp_of(labels) != "arrival":
        attrs = {**labels.attrs, "stamp_of": "arrival"}
        labels = Labels(
            labels.dtype, labels.shape, labels.dims, labels.coords, attrs, labels.name
        )
    return producer_with(labels, name, context=context, **options)
