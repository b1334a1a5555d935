"""`RemoteAPI`: the calls of `API`, answered by a server."""

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
from ataraxis.datamux.api import Attrs, DataMuxApi, SinkOptions
from ataraxis.datamux.block import Block
from ataraxis.datamux.description import Stream
from ataraxis.datamux.end import End
from ataraxis.datamux.recording import Recording
from ataraxis.datamux.remote.access import identity_of
from ataraxis.datamux.remote.codec import codec_of
from ataraxis.datamux.remote.inbound import Inlet, RemoteSource
from ataraxis.datamux.remote.layout import packed, packed_signals, unpacked
from ataraxis.datamux.remote.link import Link
from ataraxis.datamux.remote.transport import transport_of
from ataraxis.datamux.source import Source
from ataraxis.datamux.task import (
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

# ---- what a remote call returns inside an event loop: an answer to come

T = TypeVar("T")


class Answer(Generic[T]):
    """Await it; or use it like its value, which waits and blocks the loop."""

    def __init__(self, future: Future[T]) -> None:
        self._future = future

    def __await__(self) -> Generator[Any, None, T]:
        # Shielded: a cancelled wait does not cancel the answer for others.
        return asyncio.shield(asyncio.wrap_future(self._future)).__await__()

    def result(self, timeout: float | None = None) -> T:
        """Wait up to `timeout` s for the answer; return it or raise its error."""
        return self._future.result(timeout)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._future.result(), name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._value())

    def __len__(self) -> int:
        return len(self._value())

    def __getitem__(self, key: Any) -> Any:
        return self._value()[key]

    def __eq__(self, other: object) -> bool:
        return bool(self._value() == other)

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        return bool(self._value())

    def __repr__(self) -> str:
        return repr(self._value())

    def _value(self) -> Any:
        return self._future.result()


def answered(future: Future[T]) -> T:
    """Return the answer; inside an event loop an `Answer`, at once."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return future.result()
    made: Any = Answer(future)
    return made  # type: ignore[no-any-return]


# ---- the clock of a replay on the server

Steer = Callable[[str, dict[str, Any]], Any]


class RemoteTimeline(Timeline):
    """A `Timeline` whose clock runs on the server; each use is a request."""

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
        """Seconds of the recording per second; can be set while it runs."""
        return self._speed

    @speed.setter
    def speed(self, speed: float) -> None:
        self._speed = checked_speed(speed)
        self._steer("set_speed", {"speed": self._speed})

    @property
    def is_paused(self) -> bool:
        """Whether the clock is paused."""
        return self._is_held

    def pause(self) -> None:
        """Pause the clock."""
        self._is_held = True
        self._steer("pause", {})

    def resume(self) -> None:
        """Resume the clock where it was paused."""
        self._is_held = False
        self._steer("resume", {})

    def seek(self, at_s: float) -> None:
        """Go to `at_s` seconds after the recording's first sample."""
        self._steer("seek", {"at_s": float(at_s)})


def steer_of(link: Link, inlet: Inlet) -> Steer:
    """Return a function that sends requests about a stream, and waits for the answer.

    Inside an event loop it waits only for 'position'.
    """

    def steer(call: str, arguments: dict[str, Any]) -> Any:
        future = link.request(call, arguments, inlet)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return future.result()
        return future.result() if call == "position" else None

    return steer


# ---- futures of converted answers

U = TypeVar("U")


def then(future: Future[T], convert: Callable[[T], U]) -> Future[U]:
    """Return a future of the converted result of another."""
    made: Future[U] = Outcome()

    def pass_on(done: Future[T]) -> None:
        try:
            made.set_result(convert(done.result()))
        except BaseException as error:  # any error becomes the future's
            made.set_exception(error)

    future.add_done_callback(pass_on)
    return made


# ---- a recording fetched from a server, joined from its blocks


def recording_from(
    started: Future[StreamAck],
    listed: Future[list[Stream]],
    stream_id: str,
    items: list[Any],
) -> Future[Recording]:
    """Return a future of the recording whose replay has started into `items`.

    `listed` has the streams of the collection, to describe one without samples.
    """
    made: Future[Recording] = Outcome()

    def ended(end: End) -> None:
        try:
            if end.reason != "completed":
                raise end.error or SourceLost(
                    "the recording was not fetched completely"
                )
            blocks = [item for item in items if isinstance(item, Block)]
            made.set_result(_joined(blocks) if blocks else _empty(listed, stream_id))
        except Exception as error:  # any error becomes the future's
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


def _empty(listed: Future[list[Stream]], stream_id: str) -> Recording:
    stream = next(s for s in listed.result(30) if s.id == stream_id)
    columns = {
        name: np.empty((0, *field.shape), field.numpy_dtype)
        for name, field in {**stream.index, **stream.fields}.items()
    }
    return Recording.of(stream, columns, f"stream {stream_id!r} of the server")


# ---- the api


class RemoteAPI(DataMuxApi):
    """Replay, proxy and simulate on another machine, into sinks of this one.

    The calls are those of `API` with the same options. Outside an event loop they
    return when the server has answered; inside one they return at once, and are to be
    awaited. A ``transform`` runs here, or, if it is a name, on the server, where that
    name is registered.

    Parameters
    ----------
    rpc_name : str
        The transport: 'websocket'.
    codec_name : str
        'frame' (of ataraxis, fastest), 'msgpack' or 'json'.

    Raises
    ------
    SourceNotFound, ModuleNotFoundError
        The name is unknown, or a package that it needs is not installed.

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

    def __init__(self, rpc_name: str = "websocket", codec_name: str = "frame") -> None:
        super().__init__()
        self._transport = transport_of(rpc_name)
        self._codec = codec_of(codec_name)
        self._link: Link | None = None

    def _list(self, call: str, kind: type[T], **which: Any) -> Listing[T]:
        return answered(then(self._described(call, kind, **which), Listing[T]))

    def _described(self, call: str, kind: type[T], **which: Any) -> Future[list[T]]:
        return then(
            self._linked().request(call, which),
            lambda found: [unpacked(kind, item) for item in found],
        )

    def _read(self, collection_id: str, stream_id: str, attrs: Attrs) -> Any:
        blocks: list[Any] = []
        arguments = {
            "collection_id": collection_id, "stream_id": stream_id, "attrs": attrs,
            "rate_limit": False,
        }  # fmt: skip
        into = SinkOptions(blocks.append, deliver="block")
        started = self._started("replay_collection_stream", into, arguments)
        listed = self._described(
            "list_collection_streams", Stream, collection_id=collection_id
        )
        return answered(recording_from(started, listed, stream_id, blocks))

    def _open(self, node_id: str, stream_id: str, attrs: Attrs) -> Source:
        arguments = {
            "node_id": node_id, "stream_id": stream_id, "attrs": attrs,
            "use_relative_ts": False,
        }  # fmt: skip

        def listed() -> Future[list[Stream]]:
            return self._described("list_live_streams", Stream, node_id=node_id)

        def start(sink: Any) -> Future[StreamAck]:
            into = SinkOptions(sink, deliver="block")
            return self._started("proxy_live_stream", into, arguments)

        source = RemoteSource(stream_id, node_id, listed, start)
        source.open()
        return source

    def _stream(
        self, call: str, into: SinkOptions, options: dict[str, Any]
    ) -> StreamAck:
        return answered(self._started(call, into, options))

    def _started(
        self, call: str, into: SinkOptions, arguments: Mapping[str, Any]
    ) -> Future[StreamAck]:
        """Request a stream; everything here is ready before the request is sent."""
        link, timeline = self._linked(), into.timeline
        asked = {
            name: packed_signals(value) if name == "signals" else packed(value)
            for name, value in arguments.items()
        }
        if isinstance(into.transform, str):
            asked["transform"] = into.transform
        elif call == "publish_collection_stream" and into.transform is not identity:
            raise TypeError(
                f"transform={into.transform!r}: what the server publishes is "
                "transformed there: give the name of a transform of the server"
            )
        if timeline is not None:
            if not isinstance(timeline, RemoteTimeline):
                raise TypeError(
                    "a clock of this machine cannot pace a stream of the server: share "
                    "that of its first stream, timeline=ack.task.timeline"
                )
            asked["timeline"] = timeline.number
        made = into.make()
        inlet = link.inlet()
        applied = identity if isinstance(into.transform, str) else into.transform
        task = Task(prefix + gen_randseq(), inlet, made, into.deliver, applied)

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
            Address of the server; ``unix:/a/path`` is a Unix socket, ``unix:`` the one
            in this user's context, both without a port.
        token : str, optional
            The server's token. By default that of ``$ATARAXIS_TOKEN``, if it is
            ``host=token`` of this host; for a server of this machine also a token
            without a host, or the one of a server of this user in the context.
        tls : bool, str, Path or SSLContext, optional
            The file of the server's certificate, or True for the authorities that this
            machine trusts; by default True for other machines.
        patience : float
            How long to try to reconnect after the connection breaks, s. Streams
            continue if the server still has the missing messages, else they end as
            'lost'.
        heartbeat_s : float
            Interval of heartbeats, s; after three without an answer the connection is
            broken.

        Raises
        ------
        AccessDenied
            The token is wrong, or would be sent unencrypted.
        RemoteError, OSError
            The server refuses, or cannot be reached.
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
        """Disconnect, and stop every stream; a second call does nothing."""
        link, self._link = self._link, None
        if link is not None:
            self.stop()
            link.close()

    def __exit__(self, *exc: object) -> None:
        self.disconnect()

    def _linked(self) -> Link:
        if self._link is None:
            raise NotConnectedError(
                "not connected: call connect(server_host=..., server_port=...) first"
            )
        return self._link

    @property
    def transforms(self) -> list[str]:
        """Names of the server's transforms."""
        return [str(name) for name in self._linked().welcome.get("transforms", [])]

    def measure_offset(self, round_trips: int = 8) -> Offset:
        """Measure the offset of the server's monotonic clock; waits.

        Times of samples stay those of the server: record the offset with them.

        Parameters
        ----------
        round_trips : int
            Number of measurements; the shortest counts.

        Returns
        -------
        Offset
            Offset in ns, with its bound.
        """
        link, samples = self._linked(), []
        for _ in range(round_trips):
            before = now_ns()
            there = int(link.request("time", {}).result())
            samples.append((before, there, there, now_ns()))
        return Offset.from_round_trips(samples, link.place)
