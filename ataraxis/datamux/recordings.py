"""Collections and recordings, listed and replayed; a part of `API`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ataraxis.datamux.ack import Listing, StreamAck
from ataraxis.datamux.catalog import Catalog
from ataraxis.datamux.description import Collection, Stream
from ataraxis.datamux.recording import Recording
from ataraxis.datamux.replay import Replay
from ataraxis.datamux.settings import Settings, expand
from ataraxis.datamux.sink import BUFFER, Policy, sink_of
from ataraxis.datamux.task import Deliver
from ataraxis.datamux.tasks import Tasks
from ataraxis.datamux.timeline import Timeline
from ataraxis.datamux.util import identity


class Recordings(Tasks):
    """Lists collections and replays their recordings; a part of `API`."""

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
