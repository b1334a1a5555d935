"""Voice: one stream of a session, sent again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.clock import now_ns
from ataraxis.datamux.statistics import Lateness, LatenessStatistics
from ataraxis.datamux.timeline import Timeline
from ataraxis.log.archive import LogArchive
from ataraxis.log.selection import Selection, SourceInfo
from ataraxis.shm.context import ContextLike
from ataraxis.stream import Producer

TOGETHER_S = 0.002
BATCH_BYTES = 4 << 20
_SLICE_S = 0.1


class Voice:
    """Sends one recorded stream again, each frame when it is due.

    Parameters
    ----------
    archive : LogArchive
        Where its frames are; stays open.
    info : SourceInfo
        Which source it is.
    found : Selection
        The frames to send.
    context : Context, str, Path or None
        Where the stream is made.
    **options
        As `Producer` takes them.
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
        """What kept it from going on."""
        self._archive, self._found = archive, found
        self._lateness = Lateness()
        labels = info.labels
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

    # ---- in its thread

    def speak(self, timeline: Timeline, is_over: Callable[[], bool]) -> None:
        """Send every frame when it is due; ends the stream, whatever happens."""
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
        except Exception as error:  # told by `wait`
            self.failure = error
        finally:
            self.producer.end()

    def _batches(self, speed: float) -> Iterator[tuple[NDArray[np.int64], int]]:
        """Divide the frames into those that are sent together, and when, ns."""
        found = self._found
        times = np.maximum.accumulate(found.time) if len(found) else found.time
        size = int(found.nbytes.max(initial=1)) or 1
        most = max(BATCH_BYTES // size, 1)
        span = round(TOGETHER_S * speed * 1e9)
        at = 0
        while at < len(found):
            until = int(np.searchsorted(times, times[at] + span, "right"))
            until = min(max(until, at + 1), at + most)
            yield found.numbers[at:until], int(times[until - 1])
            at = until

    def _send(self, numbers: NDArray[np.int64], is_over: Callable[[], bool]) -> None:
        if not self._is_typed:
            for frame in self._archive.entries(numbers=numbers):
                self._patiently(
                    is_over, frame.value, time_ns=frame.time_ns,
                    device_time=frame.device_time,
                    device_sequence=frame.device_sequence,
                )  # fmt: skip
            return
        block = self._archive.read(numbers=numbers)
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
            except TimeoutError as late:  # a reader that gates is behind
                at += int(getattr(late, "count", 0))
        self.sent += at

    def _patiently(
        self, is_over: Callable[[], bool], value: Any, **stamps: Any
    ) -> None:
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
        """Leave the stream; its name goes, if nobody reads it."""
        if self.producer.subscriber_count:
            self.producer.close()
        else:
            self.producer.unlink()
