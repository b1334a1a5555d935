"""The API of DataMux on another machine: the calls of `API`, answered by a server."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from ataraxis.datamux.ack import Listing, StreamAck
from ataraxis.datamux.api import API
from ataraxis.datamux.description import Collection, Node, Stream
from ataraxis.datamux.faults import Faults
from ataraxis.datamux.recording import Recording
from ataraxis.datamux.remote.answer import answered
from ataraxis.datamux.remote.client import Client, Transform, then
from ataraxis.datamux.remote.describing import packed, packed_signals, unpacked
from ataraxis.datamux.remote.gathering import recording_from
from ataraxis.datamux.remote.source import RemoteSource
from ataraxis.datamux.simulation import Signals
from ataraxis.datamux.sink import BUFFER, Policy
from ataraxis.datamux.source import Source
from ataraxis.datamux.task import Deliver
from ataraxis.datamux.timeline import Timeline
from ataraxis.datamux.util import identity


class RemoteAPI(Client):
    """Replay, proxy and simulate on another machine, into sinks of this one.

    Every call is that of `API` with the same options. Outside of an event loop it
    returns when the server has answered; inside one it returns at once, to be awaited.
    A ``transform`` runs here, or, if it is a name, on the server, where that name is
    registered.

    Parameters
    ----------
    rpc_name : str
        The transport: 'websocket'.
    codec_name : str
        'frame' (our own, fastest), 'msgpack' or 'json'.

    Raises
    ------
    SourceNotFound, ModuleNotFoundError
        There is none of that name, or what it needs is not installed.

    Examples
    --------
    >>> import queue
    >>> from ataraxis.datamux import END_OF_STREAM, Server
    >>> with Server() as server, RemoteAPI("websocket", "msgpack") as api:
    ...     api.connect(server_host="127.0.0.1", server_port=server.port)
    ...     sink = queue.Queue()
    ...     ack = api.proxy_live_stream("sim", "sine", {}, sink)
    ...     [*sink.get()["value"]]
    ['ch0', 'ch1', 'ch2', 'ch3']
    """

    # ---- what there is

    def list_collections(self) -> Listing[Collection]:
        """Return the server's collections; see `API.list_collections`."""
        found: Listing[Collection] = self._listed("list_collections", Collection)
        return found

    def list_collection_streams(self, collection_id: str) -> Listing[Stream]:
        """Return each stream of each recording; see `API.list_collection_streams`."""
        found: Listing[Stream] = self._listed(
            "list_collection_streams", Stream, collection_id=collection_id
        )
        return found

    def list_live_nodes(self) -> Listing[Node]:
        """Return what gives live streams there; see `API.list_live_nodes`."""
        found: Listing[Node] = self._listed("list_live_nodes", Node)
        return found

    def list_live_streams(self, node_id: str) -> Listing[Stream]:
        """Return the streams of a live node there; see `API.list_live_streams`."""
        found: Listing[Stream] = self._listed(
            "list_live_streams", Stream, node_id=node_id
        )
        return found

    def recording(
        self,
        collection_id: str,
        stream_id: str,
        attrs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Fetch one stream of one recording, all of it; see `API.recording`."""
        asked = {"collection_id": collection_id, "stream_id": stream_id}
        blocks: list[Any] = []
        started: Future[StreamAck] = self._started(
            "replay_collection_stream",
            {**asked, "attrs": packed(attrs or {}), "rate_limit": False},
            blocks.append, identity, "block",
        )  # fmt: skip
        listed = self._linked().request(
            "list_collection_streams", {"collection_id": collection_id}
        )
        return answered(recording_from(started, listed, stream_id, blocks))

    # ---- streams

    def open_source(
        self, node_id: str, stream_id: str, attrs: Mapping[str, Any] | None = None
    ) -> Source:
        """Open a live stream of the server to be read by you; see `API.open_source`.

        Waits for the server, also inside an event loop.
        """
        asked = {
            "node_id": node_id, "stream_id": stream_id, "attrs": packed(attrs or {}),
            "use_relative_ts": False,
        }  # fmt: skip

        def listed() -> Future[list[Stream]]:
            return then(
                self._linked().request("list_live_streams", {"node_id": node_id}),
                lambda found: [unpacked(Stream, item) for item in found],
            )

        def start(sink: Any) -> Future[StreamAck]:
            return self._started("proxy_live_stream", asked, sink, identity, "block")

        source = RemoteSource(stream_id, node_id, listed, start)
        source.open()
        return source

    def record_live_stream(
        self,
        node_id: str,
        stream_id: str,
        attrs: Mapping[str, Any],
        directory: str | Path,
        name: str | None = None,
        **options: Any,
    ) -> StreamAck:
        """Record a live stream of the server here; see `API.record_live_stream`."""
        here: Any = self
        return API.record_live_stream(
            here, node_id, stream_id, attrs, directory, name, **options
        )

    def proxy_live_stream(
        self,
        node_id: str,
        stream_id: str,
        attrs: Mapping[str, Any],
        sink: Any,
        transform: Transform = identity,
        rate_limit: bool = True,
        strict_time: bool = True,
        use_relative_ts: bool = True,
        *,
        block: int | None = None,
        deliver: Deliver = "record",
        policy: Policy = "block",
        buffer: int = BUFFER,
        patience: float | None = 10.0,
    ) -> StreamAck:
        """Pass a live stream of the server into a sink; see `API.proxy_live_stream`.

        A source is never held up: a reader that is too slow, or away for too long,
        loses the stream, which ends as 'lost'.
        """
        asked = {
            "node_id": node_id, "stream_id": stream_id, "attrs": packed(attrs),
            "rate_limit": rate_limit, "strict_time": strict_time,
            "use_relative_ts": use_relative_ts, "block": block, "patience": patience,
        }  # fmt: skip
        ack: StreamAck = answered(
            self._started(
                "proxy_live_stream", asked, sink, transform, deliver, policy, buffer
            )
        )
        return ack

    def replay_collection_stream(
        self,
        collection_id: str,
        stream_id: str,
        attrs: Mapping[str, Any],
        sink: Any,
        transform: Transform = identity,
        rate_limit: bool = True,
        strict_time: bool = True,
        use_relative_ts: bool = True,
        *,
        deliver: Deliver = "record",
        policy: Policy = "block",
        buffer: int = BUFFER,
        timeline: Timeline | None = None,
        **options: Any,
    ) -> StreamAck:
        """Replay a recording of the server; see `API.replay_collection_stream`."""
        asked = {
            "collection_id": collection_id, "stream_id": stream_id,
            "attrs": packed(attrs), "rate_limit": rate_limit,
            "strict_time": strict_time, "use_relative_ts": use_relative_ts,
            **checked_options(options),
        }  # fmt: skip
        ack: StreamAck = answered(
            self._started(
                "replay_collection_stream",
                asked, sink, transform, deliver, policy, buffer, timeline,
            )
        )  # fmt: skip
        return ack

    def publish_collection_stream(
        self,
        collection_id: str,
        stream_id: str,
        attrs: Mapping[str, Any],
        **options: Any,
    ) -> StreamAck:
        """Replay onto the server's network; see `API.publish_collection_stream`."""
        asked = {
            "collection_id": collection_id, "stream_id": stream_id,
            "attrs": packed(attrs), **checked_options(options, "rate_limit",
            "strict_time", "use_relative_ts"),
        }  # fmt: skip
        ack: StreamAck = answered(
            self._started(
                "publish_collection_stream", asked, lambda end: None, identity, "block"
            )
        )
        return ack

    def simulate_stream(
        self,
        source: str | Stream | Recording,
        stream_id: str = "",
        attrs: Mapping[str, Any] | None = None,
        sink: Any = None,
        transform: Transform = identity,
        rate_limit: bool = True,
        *,
        signals: Signals | None = None,
        guided: bool = False,
        seed: int = 0,
        faults: Faults | None = None,
        duration: float | None = None,
        speed: float = 1.0,
        block: int | float | None = None,
        deliver: Deliver = "record",
        policy: Policy = "block",
        buffer: int = BUFFER,
        timeline: Timeline | None = None,
    ) -> StreamAck:
        """Simulate a stream there; see `API.simulate_stream`.

        A `Recording` is here already, so that what it guides is simulated here.
        """
        if isinstance(source, Recording):
            here: Any = self
            ack: StreamAck = API.simulate_stream(
                here, source, stream_id, attrs, sink, transform,  # type: ignore[arg-type]
                rate_limit, signals=signals, guided=guided, seed=seed, faults=faults,
                duration=duration, speed=speed, block=block, deliver=deliver,
                policy=policy, buffer=buffer, timeline=timeline,
            )  # fmt: skip
            return ack
        asked = {
            "source": source if isinstance(source, str) else packed(source),
            "stream_id": stream_id, "attrs": None if attrs is None else packed(attrs),
            "rate_limit": rate_limit, "signals": packed_signals(signals),
            "guided": guided, "seed": seed, "faults": packed(faults),
            "duration": duration, "speed": speed, "block": block,
        }  # fmt: skip
        ack = answered(
            self._started(
                "simulate_stream",
                asked, sink, transform, deliver, policy, buffer, timeline,
            )
        )  # fmt: skip
        return ack

    def replay(
        self, recording: Recording, sink: Any, *args: Any, **options: Any
    ) -> Any:
        """Replay a recording that is here; see `API.replay`."""
        here: Any = self
        return API.replay(here, recording, sink, *args, **options)


_OPTIONS = ("speed", "start", "stop", "loop", "block", "paused")


def checked_options(options: Mapping[str, Any], *more: str) -> dict[str, Any]:
    """Return the options of a replay, or raise because there is none of that name."""
    for name in options:
        if name not in (*_OPTIONS, *more):
            raise TypeError(
                f"unexpected keyword argument {name!r}: {', '.join((*_OPTIONS, *more))}"
            )
    return dict(options)
