"""The calls of DataMux, and `API`, which answers them on this machine.

Every call of `API` does its work at once and returns something that may be awaited, so
that ``await api.list_collections()`` and ``api.list_collections()`` are the same.
"""

from __future__ import annotations

import abc
import copy
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

from ataraxis.datamux.catalog import Catalog, pick
from ataraxis.datamux.description import Collection, Node, Stream
from ataraxis.datamux.price import Price, charge
from ataraxis.datamux.proxy import Proxy
from ataraxis.datamux.recording import Recording
from ataraxis.datamux.registry import Live, opened_price
from ataraxis.datamux.replay import Replay
from ataraxis.datamux.simulation import Faults, Signals, Simulate, Simulation
from ataraxis.datamux.sinks.adapt import sink_of
from ataraxis.datamux.sinks.sink import BUFFER, Sink
from ataraxis.datamux.source import Source
from ataraxis.datamux.streaminghub.util import Settings, expand
from ataraxis.datamux.task import (
    Deliver,
    Feed,
    Listing,
    StreamAck,
    Task,
    gen_randseq,
    identity,
    prefix,
)
from ataraxis.datamux.timeline import Timeline
from ataraxis.stream.overflow import Overflow

_REMEMBERED = 4096
_REPLAY_OPTIONS = ("speed", "start", "stop", "loop", "block", "paused")
Transform = Callable[[Any], Any] | str
Attrs = Mapping[str, Any]
T = TypeVar("T")


class SinkOptions(NamedTuple):
    """The options of a stream that are about its sink; see `DataMuxApi.replay`."""

    sink: Any
    transform: Transform = identity
    deliver: Deliver = "record"
    on_full: Overflow | None = None
    buffer: int = BUFFER
    timeline: Timeline | None = None
    policy: Overflow | None = None

    def make(self) -> Sink:
        """Return the sink."""
        return sink_of(self.sink, self.on_full, self.buffer, policy=self.policy)

    @classmethod
    def taken_from(cls, options: dict[str, Any], **given: Any) -> SinkOptions:
        """Take the sink's options out of those of a replay; `TypeError` for others."""
        found = {name: options.pop(name) for name in cls._fields if name in options}
        for name in options:
            if name not in _REPLAY_OPTIONS:
                known = (*_REPLAY_OPTIONS, *cls._fields[2:])
                raise TypeError(
                    f"unexpected keyword argument {name!r}: {', '.join(known)}"
                )
        return cls(**given, **found)


class DataMuxApi(abc.ABC):
    """The calls of DataMux: `API` answers them here, `RemoteAPI` asks a server.

    It starts tasks and remembers them. A subclass lists, opens and starts what the
    calls ask for.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}
        self._lock = threading.Lock()

    # ---- what a subclass does

    @abc.abstractmethod
    def _list(self, call: str, kind: type[T], **which: Any) -> Listing[T]:
        """Return the descriptions, of one kind, that a call asks for."""

    @abc.abstractmethod
    def _read(self, collection_id: str, stream_id: str, attrs: Attrs) -> Recording:
        """Return a recording."""

    @abc.abstractmethod
    def _open(self, node_id: str, stream_id: str, attrs: Attrs) -> Source:
        """Return an open source."""

    @abc.abstractmethod
    def _stream(
        self, call: str, into: SinkOptions, options: dict[str, Any]
    ) -> StreamAck:
        """Start the stream that a call asks for."""

    # ---- tasks

    def stop_task(self, randseq: str) -> StreamAck:
        """Stop a task, or one that has ended; raise `SourceNotFound` for other ids.

        Its sink gets an end whose reason is 'stopped'.
        """
        with self._lock:
            task: Task = pick(self._tasks, randseq, "task", "this API")
        return StreamAck(task.stop(), randseq, task)

    def forget(self, randseq: str) -> None:
        """Release a task and the recording it holds; if it runs, it continues."""
        with self._lock:
            self._tasks.pop(randseq, None)

    def stop(self) -> None:
        """Stop every task of this API."""
        with self._lock:
            tasks = [*self._tasks.values()]
        for task in tasks:
            task.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop every task."""
        self.stop()

    def _start(self, feed: Feed, made: Sink, into: SinkOptions) -> StreamAck:
        transform: Any = into.transform  # a name is refused by `Task`
        task = Task(prefix + gen_randseq(), feed, made, into.deliver, transform)
        return self._begin(task)

    def _begin(self, task: Task) -> StreamAck:
        with self._lock:
            self._forget()
            self._tasks[task.randseq] = task
        task.start()
        return StreamAck(True, task.randseq, task)

    def _forget(self) -> None:
        """Keep a limited number of ended tasks, so that memory is bounded."""
        ended = [key for key, task in self._tasks.items() if task.is_done]
        for key in ended[: max(0, len(ended) - _REMEMBERED)]:
            del self._tasks[key]

    # ---- live sources

    def list_live_nodes(self) -> Listing[Node]:
        """Return the nodes of live streams: built-in kinds, plug-ins, described nodes.

        A node that fails to answer is left out with a `ConfigWarning`.
        """
        return self._list("list_live_nodes", Node)

    def list_live_streams(self, node_id: str) -> Listing[Stream]:
        """Return the streams of a live node; may search for a second.

        Raises
        ------
        SourceNotFound
            The node does not exist.
        """
        return self._list("list_live_streams", Stream, node_id=node_id)

    def open_source(
        self, node_id: str, stream_id: str, attrs: Attrs | None = None
    ) -> Source:
        """Open a live stream for the caller to read and close: `Source.read_into`.

        `RemoteAPI` waits for the server, also inside an event loop.

        Raises
        ------
        SourceNotFound, OSError
            The stream does not exist or does not open.
        """
        return self._open(node_id, stream_id, attrs or {})

    def proxy_live_stream(
        self,
        node_id: str,
        stream_id: str,
        attrs: Attrs,
        sink: Any,
        transform: Transform = identity,
        rate_limit: bool = True,
        strict_time: bool = True,
        use_relative_ts: bool = True,
        *,
        block: int | None = None,
        deliver: Deliver = "record",
        on_full: Overflow | None = None,
        buffer: int = BUFFER,
        patience: float | None = 10.0,
        policy: Overflow | None = None,
    ) -> StreamAck:
        """Pass a live stream into a sink, as it comes.

        A server never delays a source: a reader of `RemoteAPI` that is too slow, or
        disconnected for too long, loses the stream, which ends as 'lost'.

        Parameters
        ----------
        node_id, stream_id : str
            Which stream of which node.
        attrs : mapping
            Options of the kind of source; may be empty.
        sink, transform, use_relative_ts, deliver, on_full, buffer, policy
            As in `replay`.
        rate_limit, strict_time : bool
            Accepted and ignored: a live stream has its own pace.
        block : int, optional
            Most samples delivered together.
        patience : float or None
            How long to try to reopen the source after it went away, s; None: without
            end. `TaskStatistics.reconnects` lists the reasons.

        Returns
        -------
        StreamAck
            As of `replay`; ``task.source`` is the open source. The reason of the end is
            'lost' if the source did not come back.

        Raises
        ------
        SourceNotFound, OSError
            The stream does not exist or does not open; nothing was started.
        """
        arguments = {
            "node_id": node_id, "stream_id": stream_id, "attrs": attrs,
            "rate_limit": rate_limit, "strict_time": strict_time,
            "use_relative_ts": use_relative_ts, "block": block, "patience": patience,
        }  # fmt: skip
        into = SinkOptions(sink, transform, deliver, on_full, buffer, policy=policy)
        return self._stream("proxy_live_stream", into, arguments)

    def record_live_stream(
        self,
        node_id: str,
        stream_id: str,
        attrs: Attrs,
        directory: str | Path,
        name: str | None = None,
        *,
        samples: int | None = None,
        block: int | None = None,
        patience: float | None = 10.0,
        **options: Any,
    ) -> StreamAck:
        """Pass a live stream into a stream of shared memory and a journal, both here.

        Parameters
        ----------
        node_id, stream_id, attrs, block, patience
            As in `proxy_live_stream`.
        directory : str or Path
            Directory of the journal; created if missing.
        name : str, optional
            Of the stream and the journal; by default `stream_id`.
        samples, **options
            Options of `JournalSink`: ``durability=``, ``buffer_seconds=``, ...

        Returns
        -------
        StreamAck
            As of `proxy_live_stream`. The end comes when everything is in the journal;
            ``task.sink.close()`` then leaves the stream.

        Raises
        ------
        SourceNotFound, OSError, StreamExists, LoggerError
            Nothing was started.
        """
        from ataraxis.datamux.sinks.journal import JournalSink

        source = self.open_source(node_id, stream_id, attrs)
        sink = None
        try:
            sink = JournalSink(
                source.stream, name or stream_id, directory,
                source=source, samples=samples, **options,
            )  # fmt: skip
            feed = Proxy(source, block=block, patience=patience, lend=sink.lend)
            return self._start(feed, sink, SinkOptions(sink, deliver="block"))
        except BaseException:
            source.close()
            if sink is not None:
                sink.recorder.stop()
                sink.close()
            raise

    # ---- simulation

    def simulate_stream(
        self,
        source: str | Stream | Recording,
        stream_id: str = "",
        attrs: Attrs | None = None,
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
        on_full: Overflow | None = None,
        buffer: int = BUFFER,
        timeline: Timeline | None = None,
        policy: Overflow | None = None,
    ) -> StreamAck:
        """Simulate a stream into a sink; the same seed gives the same samples.

        Parameters
        ----------
        source : str, Stream or Recording
            What to imitate: a collection's id, a description, or a recording. With a
            `Recording`, `RemoteAPI` simulates here, not on the server.
        stream_id, attrs
            Which stream of the collection, and, if guided, which recording.
        sink, transform, rate_limit, speed, block, deliver, on_full, buffer, timeline,
        policy
            As in `replay`.
        signals : Signal, function, or mapping of field to these, optional
            Values of the fields: see `ataraxis.datamux.simulation`. By default sines.
        guided : bool
            Take values from random pieces of the recording instead.
        seed : int
            Seed of everything random.
        faults : Faults, optional
            Faults to simulate.
        duration : float, optional
            Length, s; by default until it is stopped.

        Raises
        ------
        SourceNotFound, RecordingError, ValueError
            Something is missing or does not fit; nothing was started.
        """
        into = SinkOptions(sink, transform, deliver, on_full, buffer, timeline, policy)
        options: dict[str, Any] = {
            "rate_limit": rate_limit, "signals": signals, "guided": guided,
            "seed": seed, "faults": faults, "duration": duration, "speed": speed,
            "block": block,
        }  # fmt: skip
        if isinstance(source, Recording):
            return self._simulate(into, source, **options)
        which = {"source": source, "stream_id": stream_id, "attrs": attrs}
        return self._stream("simulate_stream", into, {**which, **options})

    def _simulate(
        self, into: SinkOptions, source: Stream | Recording, *, rate_limit: bool,
        guided: bool, duration: float | None, speed: float, block: int | float | None,
        **options: Any,
    ) -> StreamAck:  # fmt: skip
        guide = source if isinstance(source, Recording) else None
        if guided and guide is None:
            raise ValueError("guided=True needs a recording: give one, or a collection")
        stream = source.stream if isinstance(source, Recording) else source
        guide = guide if guided else None
        simulation = Simulation(stream, guide=guide, **options)
        charge(simulation.price(speed if rate_limit else 0.0, block))
        timeline = into.timeline or Timeline(speed)
        clock = timeline if rate_limit else None
        feed = Simulate(simulation, clock, duration=duration, block=block)
        return self._start(feed, into.make(), into)

    # ---- collections and their recordings

    def list_collections(self) -> Listing[Collection]:
        """Return the collections that are described, sorted by id.

        A damaged description is left out with a `ConfigWarning`.

        Raises
        ------
        FileNotFoundError
            The folder of metadata does not exist.
        """
        return self._list("list_collections", Collection)

    def list_collection_streams(self, collection_id: str) -> Listing[Stream]:
        """Return each stream of each recording of a collection.

        Their `attrs` name the recording, as `replay_collection_stream` takes them.

        Raises
        ------
        SourceNotFound
            The collection does not exist, or has no folder.
        ConfigError
            Its description is damaged.
        """
        return self._list(
            "list_collection_streams", Stream, collection_id=collection_id
        )

    def recording(
        self, collection_id: str, stream_id: str, attrs: Attrs | None = None
    ) -> Recording:
        """Read one stream of one recording; from a server, fetch all of it.

        Raises
        ------
        SourceNotFound
            The collection, stream or recording does not exist.
        RecordingError
            The file is damaged, or does not fit its description.
        """
        return self._read(collection_id, stream_id, attrs or {})

    def replay_collection_stream(
        self,
        collection_id: str,
        stream_id: str,
        attrs: Attrs,
        sink: Any,
        transform: Transform = identity,
        rate_limit: bool = True,
        strict_time: bool = True,
        use_relative_ts: bool = True,
        **options: Any,
    ) -> StreamAck:
        """Replay one stream of one recording into a sink.

        Parameters
        ----------
        collection_id, stream_id : str
            Which stream of which collection.
        attrs : mapping
            Which recording: a value for each group of the collection's pattern.
        sink, transform, rate_limit, strict_time, use_relative_ts, **options
            As in `replay`.

        Raises
        ------
        SourceNotFound, ConfigError, RecordingError
            Something is missing or damaged; nothing was started.
        """
        into = SinkOptions.taken_from(options, sink=sink, transform=transform)
        arguments = {
            "collection_id": collection_id, "stream_id": stream_id, "attrs": attrs,
            "rate_limit": rate_limit, "strict_time": strict_time,
            "use_relative_ts": use_relative_ts, **options,
        }  # fmt: skip
        return self._stream("replay_collection_stream", into, arguments)

    def replay(
        self,
        recording: Recording,
        sink: Any,
        transform: Callable[[Any], Any] = identity,
        rate_limit: bool = True,
        strict_time: bool = True,
        use_relative_ts: bool = True,
        *,
        speed: float = 1.0,
        start: float | None = None,
        stop: float | None = None,
        loop: bool | int = False,
        block: int | float | None = None,
        deliver: Deliver = "record",
        on_full: Overflow | None = None,
        buffer: int = BUFFER,
        timeline: Timeline | None = None,
        paused: bool = False,
        policy: Overflow | None = None,
    ) -> StreamAck:
        """Replay a recording into a sink, from a thread.

        Parameters
        ----------
        recording : Recording
            What to replay.
        sink : object
            A queue (of asyncio, queue or multiprocessing), a callable, or a `Producer`
            (see `producer_of`), whose frames keep the recorded times as device times.
        transform : callable or str
            Applied to each item, or block. `RemoteAPI` runs a callable here; a name is
            a transform that is registered on the server, and runs there.
        rate_limit : bool
            Deliver in time; if false, as fast as the sink takes items.
        strict_time : bool
            Keep the recorded times, else the declared frequency.
        use_relative_ts : bool
            Times of records are relative to the recording's first sample.
        speed : float
            Seconds of the recording per second.
        start, stop : float, optional
            Only this part, s after the first sample.
        loop : bool or int
            Repeat without end, or so many times in all.
        block : int or float, optional
            Samples (int) or seconds (float) delivered together; by default what takes
            10 ms. A block is due when its last sample is.
        deliver : {'record', 'block', 'xarray'}
            Seed-style dicts, one per sample; `Block`; or a `LabelledBlock` around an
            `xarray.Dataset`.
        on_full : {'block', 'drop_oldest', 'drop_newest', 'raise'}, optional
            What to do when the sink is full; by default wait. Drops are counted.
        buffer : int
            How many items may wait in a queue without a bound.
        timeline : Timeline, optional
            A clock to share with other replays, which start, pause and seek together;
            its speed counts. With `RemoteAPI` the ``task.timeline`` of another stream.
        paused : bool
            Wait for ``ack.task.resume()``.
        policy : str, optional
            The old name of `on_full`.

        Returns
        -------
        StreamAck
            ``randseq`` is the id for `stop_task`; ``task`` pauses, seeks and counts.
            The sink gets an end last, equal to `END_OF_STREAM`, with its reason.
        """
        into = SinkOptions(sink, transform, deliver, on_full, buffer, timeline, policy)
        if timeline is None and rate_limit:
            timeline = Timeline(speed)
        charge(recording.price(speed if rate_limit else 0.0))
        feed = Replay(
            recording, timeline if rate_limit else None,
            strict_time=strict_time, use_relative_ts=use_relative_ts,
            start=start, stop=stop, loop=loop, block=block,
        )  # fmt: skip
        made = into.make()
        if paused and feed.timeline is not None:
            feed.timeline.pause()
        return self._start(feed, made, into)

    def publish_collection_stream(
        self, collection_id: str, stream_id: str, attrs: Attrs, **options: Any
    ) -> StreamAck:
        """Replay one stream of one recording onto the network, as an LSL outlet.

        The outlet is on the machine that answers: with `RemoteAPI` the server.

        Parameters
        ----------
        collection_id, stream_id, attrs
            As `replay_collection_stream` takes them.
        **options
            As `replay` takes them.

        Raises
        ------
        ModuleNotFoundError
            pylsl is not installed; the message names the command that installs it.
        """
        names = ("rate_limit", "strict_time", "use_relative_ts")
        arguments = {
            "collection_id": collection_id, "stream_id": stream_id, "attrs": attrs,
            **{name: options.pop(name) for name in names if name in options},
        }  # fmt: skip
        into = SinkOptions.taken_from(options, sink=_ignore)
        arguments.update(options)
        return self._stream("publish_collection_stream", into, arguments)


def _ignore(end: object) -> None:
    """Ignore the end of a stream that is published elsewhere."""


class API(DataMuxApi):
    """Replay recordings, proxy live sources and simulate both, on this machine.

    Parameters
    ----------
    data_dir, meta_dir : str or Path, optional
        Folders of recordings and metadata; by default those in ``.streaminghubrc``,
        else ``$HOME/streaminghub``.

    Raises
    ------
    ConfigError
        ``.streaminghubrc`` is damaged.

    Examples
    --------
    >>> import queue
    >>> import numpy as np
    >>> from ataraxis.datamux import API, END_OF_STREAM, Field, Recording, Stream
    >>> api, sink = API(), queue.Queue()
    >>> stream = Stream("x", frequency=100, fields={"v": Field(dtype="i16")})
    >>> recording = Recording.of(stream, {"v": np.arange(3)})
    >>> ack = api.replay(recording, sink, rate_limit=False)
    >>> ack.wait(5)
    END_OF_STREAM(completed)
    >>> [sink.get()["value"] for _ in range(3)], sink.get() == END_OF_STREAM
    ([{'v': 0}, {'v': 1}, {'v': 2}], True)
    """

    def __init__(
        self, data_dir: str | Path | None = None, meta_dir: str | Path | None = None
    ) -> None:
        super().__init__()
        found = Settings.load() if data_dir is None or meta_dir is None else None
        self.settings = Settings(
            found.data_dir if data_dir is None and found else expand(data_dir or ""),
            found.meta_dir if meta_dir is None and found else expand(meta_dir or ""),
        )
        self._catalog = Catalog(self.settings)
        self._live = Live(self._catalog)

    def confined(self) -> Self:
        """Return this API for untrusted clients: it opens files of its folders only.

        Clients name recordings in the folder of data, and descriptions by their ids;
        messages contain no path. The tasks are shared with this API.
        """
        made = copy.copy(self)
        made._confine()  # noqa: SLF001 - a copy of this one
        return made

    def _confine(self) -> None:
        self._catalog = Catalog(self.settings, is_confined=True)
        self._live = Live(self._catalog)

    def _list(self, call: str, kind: type[T], **which: Any) -> Listing[T]:
        answers: dict[str, Callable[..., list[Any]]] = {
            "list_collections": self._catalog.collections,
            "list_collection_streams": self._catalog.streams,
            "list_live_nodes": self._live.nodes,
            "list_live_streams": self._live.streams,
        }
        return Listing(answers[call](**which))

    def _read(self, collection_id: str, stream_id: str, attrs: Attrs) -> Recording:
        return self._catalog.recording(collection_id, stream_id, attrs)

    def _open(self, node_id: str, stream_id: str, attrs: Attrs) -> Source:
        source = self._live.source(node_id, stream_id, attrs)
        price = getattr(source, "price", None)
        if price is not None:
            charge(price())
        source.open()
        if price is None:
            charge(opened_price(source))
        return source

    def _stream(
        self, call: str, into: SinkOptions, options: dict[str, Any]
    ) -> StreamAck:
        if call == "proxy_live_stream":
            return self._proxy(into, **options)
        stream_id, attrs = options.pop("stream_id"), options.pop("attrs")
        if call == "simulate_stream":
            source = options.pop("source")
            if isinstance(source, str) and options["guided"]:
                source = self.recording(source, stream_id, attrs)
            elif isinstance(source, str):
                streams, of = self._catalog.collection(source).streams, repr(source)
                source = pick(streams, stream_id, "stream", f"collection {of}").copy()
            return self._simulate(into, source, **options)
        recording = self.recording(options.pop("collection_id"), stream_id, attrs)
        if call == "publish_collection_stream":
            from ataraxis.datamux.sources.lsl import LslOutlet

            into = into._replace(sink=LslOutlet(recording.stream))
        return self.replay(recording, **into._asdict(), **options)

    def _proxy(
        self, into: SinkOptions, node_id: str, stream_id: str, attrs: Attrs, *,
        use_relative_ts: bool, block: int | None, patience: float | None,
        **ignored: Any,
    ) -> StreamAck:  # fmt: skip
        made = into.make()
        source = self.open_source(node_id, stream_id, attrs)
        try:
            charge(Price(memory_bytes=(block or 0) * source.labels.nbytes))
            lend = getattr(made, "lend", None) if into.transform is identity else None
            feed = Proxy(
                source, use_relative_ts=use_relative_ts, block=block, patience=patience,
                lend=lend,
            )  # fmt: skip
            return self._start(feed, made, into)
        except BaseException:
            source.close()
            raise
