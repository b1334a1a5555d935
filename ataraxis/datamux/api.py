"""The API of DataMux on this machine, as the seed prints it.

Every call does its work at once and returns something that may be awaited, so that
``await api.list_collections()`` and ``api.list_collections()`` are the same.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from ataraxis.datamux.catalog import Catalog, pick
from ataraxis.datamux.description import Collection, Node, Stream
from ataraxis.datamux.price import Price, charge
from ataraxis.datamux.proxy import Proxy
from ataraxis.datamux.recording import Recording
from ataraxis.datamux.registry import Live, opened_price
from ataraxis.datamux.replay import Replay
from ataraxis.datamux.simulation import Faults, Signals, Simulate, Simulation
from ataraxis.datamux.sinks.adapt import sink_of
from ataraxis.datamux.sinks.sink import BUFFER, Policy, Sink
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

# ---- the tasks of an API: started, found by id, stopped

_REMEMBERED = 4096


class Tasks:
    """Starts tasks and remembers them; a part of `API`."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}
        self._lock = threading.Lock()

    def stop_task(self, randseq: str) -> StreamAck:
        """Stop a task; its sink gets an end whose reason is 'stopped'.

        Stopping what has ended is fine.

        Raises
        ------
        SourceNotFound
            No task has that id.
        """
        with self._lock:
            task: Task = pick(self._tasks, randseq, "task", "this API")
        return StreamAck(task.stop(), randseq, task)

    def forget(self, randseq: str) -> None:
        """Let go of a task, and of the recording it holds; it goes on if it runs."""
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

    def _start(
        self,
        feed: Feed,
        sink: Sink,
        deliver: Deliver,
        transform: Callable[[Any], Any],
    ) -> StreamAck:
        return self._begin(Task(prefix + gen_randseq(), feed, sink, deliver, transform))

    def _begin(self, task: Task) -> StreamAck:
        with self._lock:
            self._forget()
            self._tasks[task.randseq] = task
        task.start()
        return StreamAck(True, task.randseq, task)

    def _forget(self) -> None:
        """Keep only so many tasks that have ended, so that memory is bounded."""
        ended = [key for key, task in self._tasks.items() if task.is_done]
        for key in ended[: max(0, len(ended) - _REMEMBERED)]:
            del self._tasks[key]


# ---- the api


class API(Tasks):
    """Replay recordings, proxy live sources and simulate both, on this machine.

    Parameters
    ----------
    data_dir, meta_dir : str or Path, optional
        Where recordings and metadata are; by default what ``.streaminghubrc`` says,
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
        """Return this API for strangers: the same tasks, and nothing but its folders.

        Recordings are given by names in the folder of data, descriptions by their ids;
        nothing else of the file system is opened, and no message has a path.
        """
        made = copy.copy(self)
        made._confine()  # noqa: SLF001 - a copy of this one
        return made

    def _confine(self) -> None:
        self._catalog = Catalog(self.settings, is_confined=True)
        self._live = Live(self._catalog)

    # ---- live sources

    def list_live_nodes(self) -> Listing[Node]:
        """Return what gives live streams: built-in kinds, plug-ins, described nodes.

        What fails to answer is left out with a `ConfigWarning`.
        """
        return Listing(self._live.nodes())

    def list_live_streams(self, node_id: str) -> Listing[Stream]:
        """Return the streams of a live node; may look for them for a second.

        Raises
        ------
        SourceNotFound
            There is no such node.
        """
        return Listing(self._live.streams(node_id))

    def open_source(
        self, node_id: str, stream_id: str, attrs: Mapping[str, Any] | None = None
    ) -> Source:
        """Open a live stream to be read by you: `Source.read_into`; close it.

        Raises
        ------
        SourceNotFound, OSError
            It is not there.
        """
        source = self._live.source(node_id, stream_id, attrs or {})
        price = getattr(source, "price", None)
        if price is not None:
            charge(price())
        source.open()
        if price is None:
            charge(opened_price(source))
        return source

    def proxy_live_stream(
        self,
        node_id: str,
        stream_id: str,
        attrs: Mapping[str, Any],
        sink: Any,
        transform: Callable[[Any], Any] = identity,
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
        """Pass a live stream on into a sink, as it comes.

        Parameters
        ----------
        node_id, stream_id : str
            Which stream of which node.
        attrs : mapping
            What the kind of source takes; an empty one will do.
        sink, transform, use_relative_ts, deliver, policy, buffer
            As in `replay`.
        rate_limit, strict_time : bool
            Accepted; a live stream has its own pace.
        block : int, optional
            Most samples handed over together.
        patience : float or None
            How long to try to open the source again when it went away, s; None: without
            end. `TaskStatistics.reconnects` tells of each time.

        Returns
        -------
        StreamAck
            As of `replay`; ``task.source`` is the open source. The end says 'lost' if
            it went away for good.

        Raises
        ------
        SourceNotFound, OSError
            It is not there; nothing was started.
        """
        made = sink_of(sink, policy, buffer)
        source = self.open_source(node_id, stream_id, attrs)
        try:
            charge(Price(memory_bytes=(block or 0) * source.labels.nbytes))
            feed = Proxy(
                source,
                use_relative_ts=use_relative_ts,
                block=block,
                patience=patience,
                lend=getattr(made, "lend", None) if transform is identity else None,
            )
            return self._start(feed, made, deliver, transform)
        except BaseException:
            source.close()
            raise

    def record_live_stream(
        self,
        node_id: str,
        stream_id: str,
        attrs: Mapping[str, Any],
        directory: str | Path,
        name: str | None = None,
        *,
        samples: int | None = None,
        block: int | None = None,
        patience: float | None = 10.0,
        **options: Any,
    ) -> StreamAck:
        """Pass a live stream on into a stream of shared memory and a journal.

        Parameters
        ----------
        node_id, stream_id, attrs, block, patience
            As in `proxy_live_stream`.
        directory : str or Path
            Where the journal goes; made if it is not there.
        name : str, optional
            Of the stream and the journal; `stream_id`, if not given.
        samples, **options
            As `JournalSink` takes them: ``durability=``, ``buffer_seconds=``, ...

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
            return self._start(feed, sink, "block", identity)
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
        attrs: Mapping[str, Any] | None = None,
        sink: Any = None,
        transform: Callable[[Any], Any] = identity,
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
        """Simulate a stream into a sink; the same seed gives the same samples.

        Parameters
        ----------
        source : str, Stream or Recording
            What it is to look like: a collection's id, a description, or a recording.
        stream_id, attrs
            Which stream of the collection, and, if guided, which recording.
        sink, transform, rate_limit, speed, block, deliver, policy, buffer, timeline
            As in `replay`.
        signals : Signal, function, or mapping of field to these, optional
            What fields show: see `ataraxis.datamux.simulation`. Sines, if not given.
        guided : bool
            Take values from the recording instead, pieces of it drawn at random.
        seed : int
            Of everything random.
        faults : Faults, optional
            What goes wrong.
        duration : float, optional
            How long, s; until it is stopped, if not given.

        Raises
        ------
        SourceNotFound, RecordingError, ValueError
            Nothing was started: what is missing or does not fit.
        """
        guide = source if isinstance(source, Recording) else None
        if isinstance(source, str):
            if guided:
                guide = self.recording(source, stream_id, attrs)
                stream = guide.stream
            else:
                streams = self._catalog.collection(source).streams
                stream = pick(
                    streams, stream_id, "stream", f"collection {source!r}"
                ).copy()
        else:
            stream = source.stream if isinstance(source, Recording) else source
        if guided and guide is None:
            raise ValueError("guided=True needs a recording: give one, or a collection")
        simulation = Simulation(
            stream,
            signals,
            guide=guide if guided else None,
            seed=seed,
            faults=faults,
        )
        charge(simulation.price(speed if rate_limit else 0.0, block))
        if timeline is None:
            timeline = Timeline(speed)
        clock = timeline if rate_limit else None
        feed = Simulate(simulation, clock, duration=duration, block=block)
        return self._start(feed, sink_of(sink, policy, buffer), deliver, transform)

    # ---- lists collections and replays their recordings; a part of `API`

    def list_collections(self) -> Listing[Collection]:
        """Return the collections that are described, sorted by id.

        A damaged description is left out with a `ConfigWarning`.

        Raises
        ------
        FileNotFoundError
            The folder of metadata is not there.
        """
        return Listing(self._catalog.collections())

    def list_collection_streams(self, collection_id: str) -> Listing[Stream]:
        """Return each stream of each recording of a collection.

        Their `attrs` say which recording, as `replay_collection_stream` takes them.

        Raises
        ------
        SourceNotFound
            There is no such collection, or it has no folder.
        ConfigError
            Its description is damaged.
        """
        return Listing(self._catalog.streams(collection_id))

    def recording(
        self,
        collection_id: str,
        stream_id: str,
        attrs: Mapping[str, Any] | None = None,
    ) -> Recording:
        """Read one stream of one recording.

        Raises
        ------
        SourceNotFound
            There is no such collection, stream or recording.
        RecordingError
            The file is damaged, or is not what is declared.
        """
        return self._catalog.recording(collection_id, stream_id, attrs or {})

    def replay_collection_stream(
        self,
        collection_id: str,
        stream_id: str,
        attrs: Mapping[str, Any],
        sink: Any,
        transform: Callable[[Any], Any] = identity,
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
        sink : object
            See `replay`; also for the rest and for `options`.
        transform, rate_limit, strict_time, use_relative_ts
            As in `replay`.

        Raises
        ------
        SourceNotFound, ConfigError, RecordingError
            Nothing was started: what is missing or damaged.
        """
        recording = self.recording(collection_id, stream_id, attrs)
        return self.replay(
            recording,
            sink,
            transform,
            rate_limit,
            strict_time,
            use_relative_ts,
            **options,
        )

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
        policy: Policy = "block",
        buffer: int = BUFFER,
        timeline: Timeline | None = None,
        paused: bool = False,
    ) -> StreamAck:
        """Replay a recording into a sink, from a thread of its own.

        Parameters
        ----------
        recording : Recording
            What to replay.
        sink : object
            A queue (of asyncio, queue or multiprocessing), a callable, or a `Producer`
            (see `producer_of`), whose frames keep the recorded times as device times.
        transform : callable
            Applied to each item, or block.
        rate_limit : bool
            Deliver in time; if false, as fast as the sink takes it.
        strict_time : bool
            Keep the recorded times, else the declared frequency.
        use_relative_ts : bool
            Records have times since the recording's first sample.
        speed : float
            Seconds of the recording a second.
        start, stop : float, optional
            Only this part, s after the first sample.
        loop : bool or int
            Again and again, or so often in all.
        block : int or float, optional
            Samples (int) or seconds (float) handed over together; by default what takes
            10 ms. A block is due when its last sample is.
        deliver : {'record', 'block', 'xarray'}
            Seed-style dicts, one a sample; `Block`; or a `LabelledBlock` around an
            `xarray.Dataset`.
        policy : {'block', 'drop_oldest', 'drop_newest', 'raise'}
            What happens when the sink is full; drops are counted.
        buffer : int
            How many items may wait in a queue that has no bound.
        timeline : Timeline, optional
            A clock to share with other replays, which start, pause and seek together;
            its speed counts.
        paused : bool
            Wait for ``ack.task.resume()``.

        Returns
        -------
        StreamAck
            ``randseq`` is the id for `stop_task`; ``task`` pauses, seeks and counts.
            The sink gets `END_OF_STREAM` last, which says why.
        """
        if timeline is None and rate_limit:
            timeline = Timeline(speed)
        charge(recording.price(speed if rate_limit else 0.0))
        feed = Replay(
            recording, timeline if rate_limit else None,
            strict_time=strict_time, use_relative_ts=use_relative_ts,
            start=start, stop=stop, loop=loop, block=block,
        )  # fmt: skip
        made = sink_of(sink, policy, buffer)
        if paused and feed.timeline is not None:
            feed.timeline.pause()
        return self._start(feed, made, deliver, transform)

    def publish_collection_stream(
        self,
        collection_id: str,
        stream_id: str,
        attrs: Mapping[str, Any],
        **options: Any,
    ) -> StreamAck:
        """Replay one stream of one recording onto the network, as an LSL outlet.

        Parameters
        ----------
        collection_id, stream_id, attrs
            As `replay_collection_stream` takes them.
        **options
            As `replay` takes them.

        Raises
        ------
        ModuleNotFoundError
            pylsl is not installed: what to type.
        """
        from ataraxis.datamux.sources.lsl import LslOutlet

        recording = self.recording(collection_id, stream_id, attrs)
        return self.replay(recording, LslOutlet(recording.stream), **options)
