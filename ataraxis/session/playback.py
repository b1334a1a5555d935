"""`replay`: send a recorded session again, its streams on one clock."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.clock import now_ns
from ataraxis.datamux.statistics import Lateness, LatenessStatistics
from ataraxis.datamux.timeline import Timeline
from ataraxis.log.archive import LogArchive
from ataraxis.log.selection import Selection, SourceInfo
from ataraxis.shm.context import ContextLike
from ataraxis.shm.thread import Latch, Thread
from ataraxis.stream import Producer

# ---- one stream of a session, sent again

TOGETHER_S = 0.002
BATCH_BYTES = 4 << 20
_SLICE_S = 0.1


class StreamReplayer:
    """Sends the found frames of a stream of an archive again, each when it is due.

    `options` are those of `Producer`.
    """

    def __init__(
        self,
        archive: LogArchive,
        info: SourceInfo,
        found: Selection,
        *,
        context: ContextLike = None,
        **options: Any,
    ) -> None:
        self.name = info.name or f"source_{info.number}"
        self.sent = 0
        self.failure: Exception | None = None
        """Error that ended it."""
        self._archive, self._found = archive, found
        self._lateness = Lateness()
        labels = info.labels
        self._shape = None if labels is None else labels.shape
        self._is_typed = labels is not None and labels.dtype is not None
        if labels is not None and self._is_typed:
            coords = {n: (c.dims, c.values, c.attrs) for n, c in labels.coords.items()}
            self.producer = Producer(
                self.name, shape=labels.shape, dtype=labels.dtype, dims=labels.dims,
                coords=coords, attrs=labels.attrs, context=context, **options,
            )  # fmt: skip
        else:
            size = int(found.nbytes.max()) if len(found) else 1
            self.producer = Producer(self.name, size, context=context, **options)

    # ---- in the thread

    def play(self, timeline: Timeline, is_over: Callable[[], bool]) -> None:
        """Send every frame when it is due; end the stream in any case."""
        try:
            for numbers, due_ns in self._batches(timeline.speed):
                while True:
                    moves = timeline.moves
                    late = timeline.wait(due_ns * 1e-9, moves, is_over)
                    if late is not None or is_over():
                        break
                if late is None:
                    return
                self._lateness.add(now_ns(), late)
                self._send(numbers, is_over)
        except Exception as error:  # raised by `wait`
            self.failure = error
        finally:
            self.producer.end()

    def _batches(self, speed: float) -> Iterator[tuple[NDArray[np.int64], int]]:
        """Divide the frames into batches; yield their numbers and due times, ns."""
        found = self._found
        times = np.maximum.accumulate(found.time) if len(found) else found.time
        size = int(found.nbytes.max(initial=1)) or 1
        most = max(BATCH_BYTES // size, 1)
        span = round(TOGETHER_S * speed * 1e9)
        at = 0
        while at < len(found):
            until = int(np.searchsorted(times, times[at] + span, "right"))
            until = min(max(until, at + 1), at + most)
            # Blocks of one length at a time.
            sizes = found.nbytes[at:until]
            until = at + int(np.argmin(np.append(sizes == sizes[0], False)))
            yield found.numbers[at:until], int(times[until - 1])
            at = until

    def _send(self, numbers: NDArray[np.int64], is_over: Callable[[], bool]) -> None:
        if not self._is_typed:
            for frame in self._archive.entries(numbers=numbers):
                self._send_one(
                    is_over, frame.value, time_ns=frame.time_ns,
                    device_time=frame.device_time,
                    device_sequence=frame.device_sequence,
                )  # fmt: skip
            return
        block = self._archive.read(numbers=numbers)
        if block.data.shape[1:] != self._shape:  # shorter blocks than declared
            for k, row in enumerate(block.data):
                device = (None, None) if block.device is None else block.device[k]
                self._send_one(
                    is_over, row, time_ns=int(block.time[k]),
                    device_time=None if device[0] is None else int(device[0]),
                    device_sequence=None if device[1] is None else int(device[1]),
                )  # fmt: skip
            return
        at, n = 0, len(block)
        while at < n and not is_over():
            device = None if block.device is None else block.device[at:]
            try:
                at += self.producer.send_block(
                    block.data[at:],
                    time_ns=np.ascontiguousarray(block.time[at:], np.int64),
                    device=device,
                    timeout=_SLICE_S,
                )
            except TimeoutError as late:  # a gating reader is behind
                at += int(getattr(late, "count", 0))
        self.sent += at

    def _send_one(self, is_over: Callable[[], bool], value: Any, **stamps: Any) -> None:
        while not is_over():
            try:
                self.producer.send(value, timeout=_SLICE_S, **stamps)
            except TimeoutError:
                continue
            self.sent += 1
            return

    # ---- outside

    def lateness(self) -> LatenessStatistics:
        """Return how late its frames were."""
        return self._lateness.summary()

    def close(self) -> None:
        """Close the stream; remove its name if it has no reader."""
        if self.producer.subscriber_count:
            self.producer.close()
        else:
            self.producer.unlink()


# ---- the replay

_PAUSE_S = 0.02


def replay(
    session: str | os.PathLike[str],
    *,
    speed: float = 1.0,
    context: ContextLike = None,
    streams: Iterable[str] | None = None,
    start: float = 0.0,
    stop: float | None = None,
    readers: int = 0,
    timeout: float | None = 60.0,
    **options: Any,
) -> SessionReplay:
    """Send a recorded session again: each stream under its own name.

    Parameters
    ----------
    session : str or Path
        Directory of the session, or of any journals.
    speed : float
        Seconds of the session per second.
    context : Context, str, Path or None
        Context of the streams; it must not have live streams of these names.
    streams : iterable of str, optional
        Names; by default all.
    start, stop : float
        Part of the session, s after its first frame; `stop` is excluded.
    readers : int
        Begin when each stream has so many readers; a later reader misses the first
        frames.
    timeout : float or None
        How long to wait for the readers, s.
    **options
        As `Producer` takes them: ``sync=True`` (wait for readers, drop nothing),
        ``buffer_seconds=``, ...

    Returns
    -------
    SessionReplay
        It plays in threads. ``wait()``, and leaving its ``with`` block, waits for the
        end, and raises `TimeoutError` if there were too few readers.

    Raises
    ------
    FileNotFoundError, KeyError
        The session does not exist, or has no such stream.
    StreamExists
        A live producer has the name of a stream: choose another context.

    Notes
    -----
    Frames are sent when they are due, as recorded: bytes, labels, times
    (``frame.time_ns``, of the clock of the recording), device times and device
    counters. Only their sequences start again, from 0.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from ataraxis import Consumer, Producer, Recorder, replay
    >>> directory = tempfile.TemporaryDirectory()
    >>> with Producer("doc_again", shape=(2,), dtype="i8") as producer:
    ...     with Recorder("doc_again", directory.name):
    ...         for k in range(3):
    ...             _ = producer.send(np.full(2, k), time_ns=1000 * k)
    >>> with replay(directory.name, speed=4, sync=True, readers=1) as again:
    ...     reader = Consumer("doc_again")
    ...     [(f.array.tolist(), f.time_ns) for f in reader]
    [([0, 0], 0), ([1, 1], 1000), ([2, 2], 2000)]
    >>> reader.close(); directory.cleanup()
    """
    return SessionReplay(
        Path(session), speed, context, streams, start, stop, readers, timeout, options
    )


class SessionReplay:
    """A session that is replayed; made by `replay`."""

    def __init__(
        self,
        path: Path,
        speed: float,
        context: ContextLike,
        streams: Iterable[str] | None,
        start: float,
        stop: float | None,
        readers: int,
        timeout: float | None,
        options: dict[str, Any],
    ) -> None:
        self.timeline = Timeline(speed)
        self._is_over = Latch()
        self._replayers: list[StreamReplayer] = []
        self._archive = LogArchive(path)
        try:
            sources = _chosen(self._archive, streams)
            first = min(
                (int(self._archive.select(n).time.min()) for n in sources), default=0
            )
            begin_ns = first + round(start * 1e9)
            end_ns = None if stop is None else first + round(stop * 1e9)
            for number, info in sources.items():
                found = self._archive.select(number, begin_ns, end_ns)
                self._replayers.append(
                    StreamReplayer(
                        self._archive, info, found, context=context, **options
                    )
                )
        except BaseException:
            for replayer in self._replayers:
                replayer.close()
            self._archive.close()
            raise
        self._failure: TimeoutError | None = None
        self._threads = [
            Thread(
                replayer.play,
                f"ataraxis-replay-{replayer.name}",
                (self.timeline, self._is_over.is_set),
            )
            for replayer in self._replayers
        ]
        self._conductor = Thread(
            self._play, "ataraxis-replay", (begin_ns * 1e-9, readers, timeout)
        )
        self._conductor.start()

    def _play(self, begin_s: float, readers: int, timeout: float | None) -> None:
        """Wait for the readers, then start all streams at one instant."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for replayer in self._replayers:
            while (n := replayer.producer.subscriber_count) < readers:
                if self._is_over.wait(_PAUSE_S):
                    return
                if deadline is not None and time.monotonic() >= deadline:
                    self._failure = TimeoutError(
                        f"stream {replayer.name!r}: {n} of {readers} readers within "
                        f"{timeout} s; open Consumer({replayer.name!r}) while it waits"
                    )
                    return
        self.timeline.begin(begin_s)
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join()

    @property
    def streams(self) -> list[str]:
        """Names of its streams."""
        return [replayer.name for replayer in self._replayers]

    @property
    def is_over(self) -> bool:
        """Whether everything was sent, or it was stopped."""
        return not self._conductor.is_alive()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until everything was sent; return False after `timeout`, s.

        Raises
        ------
        TimeoutError
            There were too few readers within the replay's `timeout`.
        Exception
            The error that ended a stream.
        """
        self._conductor.join(timeout)
        if self._failure is not None:
            raise self._failure
        for replayer in self._replayers:
            if replayer.failure is not None:
                raise replayer.failure
        return self.is_over

    def pause(self) -> None:
        """Stop the clock."""
        self.timeline.pause()

    def resume(self) -> None:
        """Continue the clock."""
        self.timeline.resume()

    def sent(self) -> dict[str, int]:
        """Return how many frames of each stream were sent."""
        return {replayer.name: replayer.sent for replayer in self._replayers}

    def lateness(self) -> dict[str, LatenessStatistics]:
        """Return how late the frames of each stream were."""
        return {replayer.name: replayer.lateness() for replayer in self._replayers}

    def stop(self) -> None:
        """End the streams."""
        self._is_over.set()
        self.timeline.wake()
        self._conductor.join()

    def close(self) -> None:
        """Stop, and close the streams; unread frames stay."""
        self.stop()
        for replayer in self._replayers:
            replayer.close()
        self._archive.close()

    def __enter__(self) -> SessionReplay:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Wait for the end, unless something was raised; then close."""
        try:
            if error is None:
                self.wait()
        finally:
            self.close()

    def __repr__(self) -> str:
        state = "over" if self.is_over else "playing"
        return f"<SessionReplay of {self._archive.path}, {state}, {self.sent()}>"


def _chosen(
    archive: LogArchive, streams: Iterable[str] | None
) -> dict[int, SourceInfo]:
    """Return the sources that have entries, or those of the given names."""
    sources = {
        number: info
        for number, info in archive.sources.items()
        if len(archive.select(number))
    }
    if streams is None:
        return sources
    wanted = [streams] if isinstance(streams, str) else list(streams)
    named = {
        info.name or f"source_{number}": number for number, info in sources.items()
    }
    for name in wanted:
        if name not in named:
            raise KeyError(f"{archive.path} has no stream {name!r}: it has {[*named]}")
    return {named[name]: sources[named[name]] for name in wanted}
