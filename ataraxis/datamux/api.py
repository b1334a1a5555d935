"""The API of DataMux on this machine, as the seed prints it.

Every call does its work at once and returns something that may be awaited, so that
``await api.list_collections()`` and ``api.list_collections()`` are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ataraxis.datamux.ack import Listing, StreamAck
from ataraxis.datamux.catalog import pick
from ataraxis.datamux.description import Node, Stream
from ataraxis.datamux.faults import Faults
from ataraxis.datamux.live import Live
from ataraxis.datamux.proxy import Proxy
from ataraxis.datamux.recording import Recording
from ataraxis.datamux.recordings import Recordings
from ataraxis.datamux.simulation import Signals, Simulate, Simulation
from ataraxis.datamux.sink import BUFFER, Policy, sink_of
from ataraxis.datamux.source import Source
from ataraxis.datamux.task import Deliver
from ataraxis.datamux.timeline import Timeline
from ataraxis.datamux.util import identity


class API(Recordings):
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
        super().__init__(data_dir, meta_dir)
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
        source.open()
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
        from ataraxis.datamux.journalsink import JournalSink

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
            What fields show: see `ataraxis.datamux.signals`. Sines, if not given.
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
        if timeline is None:
            timeline = Timeline(speed)
        clock = timeline if rate_limit else None
        feed = Simulate(simulation, clock, duration=duration, block=block)
        return self._start(feed, sink_of(sink, policy, buffer), deliver, transform)
