"""The API of DataMux on another machine: the calls of `API`, answered by a server."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from ssl import SSLContext
from typing import Any, Generic, TypeVar

import numpy as np

from ataraxis.clock import Offset, now_ns
from ataraxis.datamux.api import API, Tasks
from ataraxis.datamux.block import Block
from ataraxis.datamux.description import Collection, Node, Stream
from ataraxis.datamux.end import End
from ataraxis.datamux.recording import Recording
from ataraxis.datamux.remote.access import identity_of
from ataraxis.datamux.remote.codec import codec_of
from ataraxis.datamux.remote.inbound import Inlet
from ataraxis.datamux.remote.layout import packed, packed_signals, unpacked
from ataraxis.datamux.remote.link import Link
from ataraxis.datamux.remote.source import RemoteSource
from ataraxis.datamux.remote.transport import transport_of
from ataraxis.datamux.simulation import Faults, Signals
from ataraxis.datamux.sinks.adapt import sink_of
from ataraxis.datamux.sinks.sink import BUFFER, Policy
from ataraxis.datamux.source import Source
from ataraxis.datamux.task import (
    Deliver,
    Listing,
    StreamAck,
    Task,
    gen_randseq,
    identity,
    prefix,
)
from ataraxis.datamux.timeline import Timeline, checked_speed
from ataraxis.errors import NotConnectedError, SourceLost
from ataraxis.shm.thread import Outcome

# ---- what a remote call returns inside an event loop: an answer that is on its way

T = TypeVar("T")


class Answer(Generic[T]):
    """Await it; or use it as what it will be, which waits, and holds up the loop.

    Parameters
    ----------
    future : concurrent.futures.Future
        Of the answer.

    Examples
    --------
    >>> future = Future()
    >>> future.set_result([1, 2])
    >>> len(Answer(future)), Answer(future)[1]
    (2, 2)
    """

    def __init__(self, future: Future[T]) -> None:
        self._future = future

    def __await__(self) -> Generator[Any, None, T]:
        # Shielded: who stops waiting does not take the answer from others.
        return asyncio.shield(asyncio.wrap_future(self._future)).__await__()

    def result(self, timeout: float | None = None) -> T:
        """Wait for the answer, s; it, or the error that it is.

        Raises
        ------
        TimeoutError
            It is not here after `timeout`, s.
        """
        return self._future.result(timeout)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._future.result(), name)

    def __iter__(self) -> Iterator[Any]:
        found: Any = self._future.result()
        return iter(found)

    def __len__(self) -> int:
        found: Any = self._future.result()
        return len(found)

    def __getitem__(self, key: Any) -> Any:
        found: Any = self._future.result()
        return found[key]

    def __eq__(self, other: object) -> bool:
        return bool(self._future.result() == other)

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        return bool(self._future.result())

    def __repr__(self) -> str:
        return repr(self._future.result())


def answered(future: Future[T]) -> Any:
    """Return the answer; inside an event loop at once, as one that is on its way."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return future.result()
    return Answer(future)


# ---- the clock of a replay on another machine

Steer = Callable[[str, dict[str, Any]], Any]


class RemoteTimeline(Timeline):
    """A `Timeline` whose clock runs on the server; each use asks it.

    Parameters
    ----------
    number : int
        The stream it paces.
    steer : callable
        Asks the server.
    speed, is_paused
        As it was started.
    """

    def __init__(self, number: int, steer: Steer, speed: float, paused: bool) -> None:
        super().__init__(speed)
        self.number = number
        self._steer = steer
        self._is_held = paused

    @property
    def position_s(self) -> float:
        """Source time now, s."""
        return float(self._steer("position", {}))

    @property
    def speed(self) -> float:
        """Seconds of the recording a second; may be set while it runs."""
        return self._speed

    @speed.setter
    def speed(self, speed: float) -> None:
        self._speed = checked_speed(speed)
        self._steer("set_speed", {"speed": self._speed})

    @property
    def is_paused(self) -> bool:
        """Whether time stands still."""
        return self._is_held

    def pause(self) -> None:
        """Let time stand still."""
        self._is_held = True
        self._steer("pause", {})

    def resume(self) -> None:
        """Let time go on from where it stands."""
        self._is_held = False
        self._steer("resume", {})

    def seek(self, at_s: float) -> None:
        """Go to `at_s` seconds after the recording's first sample."""
        self._steer("seek", {"at_s": float(at_s)})


def steer_of(link: Link, inlet: Inlet) -> Steer:
    """Return what asks the server about a stream: it waits for the answer.

    Inside an event loop it waits only for one that is needed.
    """

    def steer(call: str, arguments: dict[str, Any]) -> Any:
        future = link.request(call, arguments, inlet)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return future.result()
        return future.result() if call == "position" else None

    return steer


# ---- a client of a server: its connection, and how it asks for lists and streams

U = TypeVar("U")
Transform = Callable[[Any], Any] | str


def then(future: Future[T], convert: Callable[[T], U]) -> Future[U]:
    """Return a future of what becomes of another's result."""
    made: Future[U] = Outcome()

    def pass_on(done: Future[T]) -> None:
        try:
            made.set_result(convert(done.result()))
        except BaseException as error:  # it is the future's, whatever it is
            made.set_exception(error)

    future.add_done_callback(pass_on)
    return made


# ---- a recording that was fetched from a server, put together from its blocks


def recording_from(
    started: Future[StreamAck], listed: Future[Any], stream_id: str, items: list[Any]
) -> Future[Recording]:
    """Return a future of the recording whose blocks come into a list.

    Parameters
    ----------
    started : Future of StreamAck
        Of the replay that fetches it.
    listed : Future
        Of the streams of its collection, which describe one without samples.
    stream_id : str
        Which stream it is.
    items : list
        Where blocks come, and then the end.
    """
    made: Future[Recording] = Outcome()

    def ended(end: End) -> None:
        try:
            if end.reason != "completed":
                raise end.error or SourceLost("the recording was not fetched whole")
            blocks = [item for item in items if isinstance(item, Block)]
            made.set_result(_joined(blocks) if blocks else _empty(listed, stream_id))
        except Exception as error:  # it is the future's, whatever it is
            made.set_exception(error)

    def begun(done: Future[StreamAck]) -> None:
        error = done.exception()
        if error is not None:
            made.set_exception(error)
            return
        task = done.result().task
        assert task is not None
        task.call_when_done(ended)

    started.add_done_callback(begun)
    return made


def _joined(blocks: list[Block]) -> Recording:
    stream = blocks[0].stream
    columns = {k: np.concatenate([b.values[k] for b in blocks]) for k in stream.fields}
    for key in blocks[0].index:
        columns[key] = np.concatenate([b.index[key] for b in blocks])
    if not blocks[0].index and not stream.rate_hz:
        columns[stream.time] = np.concatenate([b.t for b in blocks])
    return Recording.of(stream, columns, f"stream {stream.id!r} of the server")


def _empty(listed: Future[Any], stream_id: str) -> Recording:
    streams = [unpacked(Stream, item) for item in listed.result(30)]
    stream = next(s for s in streams if s.id == stream_id)
    columns = {
        name: np.empty((0, *field.shape), field.numpy_dtype)
        for name, field in {**stream.index, **stream.fields}.items()
    }
    return Recording.of(stream, columns, f"stream {stream_id!r} of the server")


# ---- the api


class RemoteAPI(Tasks):
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

    # ---- connects to a server; a part of `RemoteAPI`, which see

    def __init__(self, rpc_name: str = "websocket", codec_name: str = "frame") -> None:
        super().__init__()
        self._transport = transport_of(rpc_name)
        self._codec = codec_of(codec_name)
        self._link: Link | None = None

    # ---- the connection

    def connect(
        self,
        server_host: str,
        server_port: int = 0,
        *,
        token: str | None = None,
        tls: bool | str | Path | SSLContext | None = None,
        patience: float = 30.0,
        heartbeat_s: float = 5.0,
    ) -> Any:
        """Connect to a server; awaitable.

        Parameters
        ----------
        server_host, server_port
            Where it is; ``unix:/a/path`` is a Unix socket, ``unix:`` the one in this
            user's context, both without a port.
        token : str, optional
            The server's token. If not given: ``$ATARAXIS_TOKEN``, if it is
            ``host=token`` of this host; for a server of this machine also a token
            without a host, and the one that a server of this user left in the context.
        tls : bool, str, Path or SSLContext, optional
            The file of the server's certificate, or True for authorities that this
            machine trusts; by default True beyond this machine.
        patience : float
            How long to try to come back when the connection breaks, s. Streams go on
            where they were if the server still has what is missing, else they end:
            'lost'.
        heartbeat_s : float
            How often to ask whether the server is there; it is gone after three in
            vain.

        Raises
        ------
        AccessDenied
            The token is wrong, or would be seen on its way.
        RemoteError, OSError
            The server refuses, or is not there.
        """
        self.disconnect()
        identity = identity_of(server_host, token, tls, int(server_port))
        link = Link(
            self._transport, self._codec, identity, server_host, int(server_port),
            patience=patience, heartbeat_s=heartbeat_s,
        )  # fmt: skip
        self._link = link
        weakref.finalize(self, link.retire).atexit = False
        opened = link.open()
        opened.add_done_callback(lambda f: link.retire() if f.exception() else None)
        return answered(opened)

    def disconnect(self) -> None:
        """Leave: every stream ends here, and stops there. Twice is fine."""
        link, self._link = self._link, None
        if link is not None:
            self.stop()
            link.close()

    def __exit__(self, *exc: object) -> None:
        """Leave."""
        self.disconnect()

    def _linked(self) -> Link:
        if self._link is None:
            raise NotConnectedError(
                "not connected: call connect(server_host=..., server_port=...) first"
            )
        return self._link

    @property
    def transforms(self) -> list[str]:
        """Names of the transforms that the server has."""
        return [str(name) for name in self._linked().welcome.get("transforms", [])]

    def measure_offset(self, round_trips: int = 8) -> Offset:
        """Measure how far the server's monotonic clock is ahead; waits.

        Times of samples stay those of the server: this is to be kept beside them.

        Parameters
        ----------
        round_trips : int
            How many; the shortest counts.

        Returns
        -------
        Offset
            In ns, with its bound.
        """
        link, samples = self._linked(), []
        for _ in range(round_trips):
            before = now_ns()
            there = int(link.request("time", {}).result())
            samples.append((before, there, there, now_ns()))
        return Offset.from_round_trips(samples, link.place)

    # ---- asking

    def _listed(self, call: str, kind: type[T], **arguments: Any) -> Any:
        def listing(found: Any) -> Listing[T]:
            return Listing(unpacked(kind, item) for item in found)

        return answered(then(self._linked().request(call, arguments), listing))

    def _started(
        self,
        call: str,
        arguments: Mapping[str, Any],
        sink: Any,
        transform: Transform,
        deliver: Deliver,
        policy: Policy = "block",
        buffer: int = BUFFER,
        timeline: Timeline | None = None,
    ) -> Future[StreamAck]:
        """Ask for a stream; everything here is ready before the request goes out."""
        link = self._linked()
        asked = dict(arguments)
        if isinstance(transform, str):
            asked["transform"] = transform
        if timeline is not None:
            if not isinstance(timeline, RemoteTimeline):
                raise TypeError(
                    "a clock of this machine does not pace another: share that of the "
                    "first stream, timeline=ack.task.timeline"
                )
            asked["timeline"] = timeline.number
        made = sink_of(sink, policy, buffer)
        inlet = link.inlet()
        applied = identity if isinstance(transform, str) else transform
        task = Task(prefix + gen_randseq(), inlet, made, deliver, applied)

        def begin(answer: Any) -> StreamAck:
            if answer.get("is_paced"):
                clock = timeline or RemoteTimeline(
                    inlet.number, steer_of(link, inlet), asked.get("speed", 1.0),
                    asked.get("paused", False),
                )  # fmt: skip
                inlet.timeline = clock
                inlet.seek = clock.seek
            return self._begin(task)

        return then(link.start(call, asked, inlet), begin)


_OPTIONS = ("speed", "start", "stop", "loop", "block", "paused")


def checked_options(options: Mapping[str, Any], *more: str) -> dict[str, Any]:
    """Return the options of a replay, or raise because there is none of that name."""
    for name in options:
        if name not in (*_OPTIONS, *more):
            raise TypeError(
                f"unexpected keyword argument {name!r}: {', '.join((*_OPTIONS, *more))}"
            )
    return dict(options)
