"""A stream and a journal as one sink: samples are shared and recorded."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from ataraxis.clock import Offset, now_ns
from ataraxis.datamux.description import Stream
from ataraxis.datamux.end import End
from ataraxis.datamux.sinks.sink import IsOver
from ataraxis.datamux.sinks.stream import StreamSink, producer_of
from ataraxis.datamux.source import Source
from ataraxis.errors import LoggerError
from ataraxis.log.recorder import Recorder
from ataraxis.shm.context import ContextLike
from ataraxis.shm.thread import Latch
from ataraxis.stream import Producer

CLOCK = ("offset_ns", "bound_ns", "lost")
"""Channels of the stream ``NAME.clock``, int64: measurements of a source."""


class JournalSink(StreamSink):
    """Creates a stream of shared memory and records each of its frames in a journal.

    Parameters
    ----------
    stream : Stream
        Description of the samples.
    name : str
        Name of the stream in its context, and of the journal.
    directory : str or Path
        Directory of the journal; created if missing.
    source : Source, optional
        The source of the samples: the offsets of its clock and its losses are recorded
        as the stream ``NAME.clock`` of `CLOCK`, one frame per change.
    samples : int, optional
        As `producer_of` takes it.
    context : Context, str, Path or None
        Directory of the stream.
    durability : {'os', 'disk'}
        As `Recorder` takes it.
    **options
        As `Producer` takes them: ``buffer_seconds=`` and so on.

    Raises
    ------
    StreamExists
        A live producer has the name.
    LoggerError
        The directory cannot be written.

    Notes
    -----
    A sink for `proxy_live_stream`, `replay` and `simulate_stream`, for one task. Frames
    are delivered when they are in the ring; the end comes when they are in the journal.
    If the disk refuses, the ring fills, and then the task fails with the `LoggerError`,
    which names the frames that are safe.

    Examples
    --------
    >>> import tempfile
    >>> import ataraxis.datamux as dm
    >>> stream = dm.Stream("x", frequency=10, fields={"v": dm.Field(dtype="i16")})
    >>> recording = dm.Recording.of(stream, {"v": np.arange(3)})
    >>> directory = tempfile.TemporaryDirectory()
    >>> sink = dm.JournalSink(stream, "doc_journal", directory.name)
    >>> dm.API().replay(recording, sink, rate_limit=False).wait(20)
    END_OF_STREAM(completed)
    >>> dm.open_recordings(directory.name)["doc_journal"].read().values["v"].tolist()
    [0, 1, 2]
    >>> sink.close(); directory.cleanup()
    """

    def __init__(
        self,
        stream: Stream,
        name: str,
        directory: str | os.PathLike[str],
        *,
        source: Source | None = None,
        samples: int | None = None,
        context: ContextLike = None,
        durability: Literal["os", "disk"] = "os",
        **options: Any,
    ) -> None:
        self._source = source
        self._noted, self._lost = 0, 0
        made = [producer_of(stream, name, samples=samples, context=context, **options)]
        try:
            if source is not None:
                made.append(_clock(f"{name}.clock", context))
            names = [producer.name for producer in made]
            self.recorder = Recorder(
                names, directory, context=context, name=name, durability=durability
            )
        except BaseException:
            for producer in made:
                producer.unlink()
            raise
        self._made = made
        self.release: Latch | None = None
        """If set, the end waits for a disk that refuses until this latch is set."""
        self.on_refusal: Callable[[LoggerError], object] = lambda error: None
        """Called when the disk refuses."""
        self.unsaved: dict[str, range] = {}
        """Sequences of each stream that were not recorded, since waiting was ended."""
        super().__init__(made[0])

    @property
    def producer(self) -> Producer:
        """The stream; it ends with the task; `close` closes it."""
        return self._made[0]

    def put(self, items: Sequence[Any], is_over: IsOver) -> None:
        """Send blocks; while the ring is full, check that the journal is written."""
        super().put(items, _asking(is_over, self.recorder.check))
        if self._source is not None:
            self._note(self._source)

    def _note(self, source: Source) -> None:
        """Send the source's offsets and losses that changed."""
        offsets, lost = getattr(source, "offsets", ()), int(getattr(source, "lost", 0))
        new = [(o, o.measured_ns) for o in offsets[self._noted :]]
        if not new and lost != self._lost:
            last = offsets[-1] if offsets else Offset(0, 0, 0)
            new = [(last, now_ns())]
        for offset, when in new:
            row = np.array((offset.offset_ns, offset.bound_ns, lost), "i8")
            self._made[1].send(row, time_ns=when)
        self._noted, self._lost = len(offsets), lost

    def finish(self, end: End, is_over: IsOver) -> End:
        """End the stream; wait until all of it is in the journal."""
        if self._source is not None:
            self._note(self._source)
        super().finish(end, is_over)
        for producer in self._made[1:]:
            producer.end()
        try:
            if self.release is None:
                self.recorder.stop()
            else:
                self.unsaved.update(self.recorder.finish(self.release, self.on_refusal))
        except LoggerError as error:
            return End("failed", end.error or error)
        return end

    def close(self) -> None:
        """Close the stream, which readers may still read; the journal stays."""
        for producer in self._made:
            producer.close()


def _clock(name: str, context: ContextLike) -> Producer:
    return Producer(
        name, shape=(len(CLOCK),), dtype="i8", dims=("channel",),
        coords={"channel": [*CLOCK]}, buffer_count=64, context=context,
        on_full="drop_newest",  # counted in the journal
    )  # fmt: skip


def _asking(is_over: IsOver, check: Callable[[], None]) -> IsOver:
    """Call `check` too, from the second call on: the sink waits by then."""
    asked = 0

    def ask() -> bool:
        nonlocal asked
        asked += 1
        if asked > 1:
            check()
        return is_over()

    return ask
