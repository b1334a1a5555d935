"""Replay: a recording as a feed of blocks, each when its last sample is due."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from ataraxis.clock import now_ns
from ataraxis.datamux.block import Block
from ataraxis.datamux.recording import Recording, UniformTimes
from ataraxis.datamux.statistics import Lateness, LatenessStatistics
from ataraxis.datamux.timeline import Timeline

PACED_S = 0.01
UNPACED = 4096
BLOCK_BYTES = 4 * 2**20


class PacedFeed:
    """A feed with a clock: waits until blocks are due, and records how late they are.

    Without a clock (None) it is as fast as possible.
    """

    def __init__(self, timeline: Timeline | None) -> None:
        self.timeline = timeline
        self._lateness = Lateness()
        self._moves = 0 if timeline is None else timeline.moves

    def _begin(self, at_s: float) -> None:
        if self.timeline is not None:
            self.timeline.begin(at_s)

    def _is_due(self, at_s: float, is_over: Callable[[], bool]) -> bool:
        """Wait until a time is due; False after a seek, or if it is over."""
        timeline = self.timeline
        if timeline is None:
            return not is_over()
        late = timeline.wait(at_s, self._moves, is_over)
        if late is None:
            self._moves = timeline.moves
            return False
        self._lateness.add(now_ns(), late)
        return True

    def wake(self) -> None:
        """Make a wait check whether it is over."""
        if self.timeline is not None:
            self.timeline.wake()

    def lateness(self) -> LatenessStatistics:
        """Return how late blocks were."""
        return self._lateness.summary()


class Replay(PacedFeed):
    """Yields the blocks of a recording in time, or as fast as they are taken.

    The options are those of `API.replay`; without a `timeline` it is as fast as
    possible, with blocks of 4096 samples by default. Raises `ValueError` if an option
    does not fit the recording.
    """

    def __init__(
        self,
        recording: Recording,
        timeline: Timeline | None,
        *,
        strict_time: bool = True,
        use_relative_ts: bool = True,
        start: float | None = None,
        stop: float | None = None,
        loop: bool | int = False,
        block: int | float | None = None,
    ) -> None:
        super().__init__(timeline)
        self._recording = recording
        rate = recording.stream.rate_hz
        if not strict_time and timeline is not None and rate is None:
            raise ValueError(
                f"stream {recording.stream.id!r} has no frequency to pace by: "
                "strict_time=False needs one"
            )
        for name, value in (("start", start), ("stop", stop)):
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} must be 0 s or more, got {value!r}")
        self._first = 0 if start is None else recording.locate(start)
        self._last = len(recording) if stop is None else recording.locate(stop)
        if start is not None and self._first >= self._last:
            raise ValueError(
                f"start={start}, stop={stop}: no sample is between; the recording has "
                f"{recording.duration_s:.6g} s"
            )
        self._laps = math.inf if loop is True else max(1, int(loop))
        self._size, self._span_s = sizes(block, timeline, recording.read(0, 1))
        # The times by which blocks are paced, and what a lap adds to them.
        self._due: NDArray[np.float64] | UniformTimes = (
            recording.times
            if strict_time or rate is None
            else UniformTimes(len(recording), rate)
        )
        self._lap_s = self._length()
        self._origin_s = recording.first_s if use_relative_ts else 0.0

    def _length(self) -> float:
        """Return the length of a lap, s: to the last sample plus one interval."""
        if self._last - self._first < 2:
            rate = self._recording.stream.rate_hz
            return 1 / rate if rate else 1.0
        whole = float(self._due[self._last - 1] - self._due[self._first])
        if isinstance(self._due, UniformTimes):
            return whole + 1 / self._due.rate_hz
        steps = np.diff(self._due[self._first : self._last])
        return whole + float(np.median(steps))

    def blocks(self, is_over: Callable[[], bool]) -> Iterator[Block]:
        """Yield each block when its last sample is due."""
        at, lap, number = self._first, 0, 0
        if at >= self._last:
            return
        self._begin(float(self._due[at]))
        while lap < self._laps and not is_over():
            stop = self._edge(at)
            due = float(self._due[stop - 1]) + lap * self._lap_s
            if not self._is_due(due, is_over):
                if self.timeline is not None:
                    at, lap = self._sought(self.timeline.target_s)
                continue
            yield self._block(at, stop, lap, number)
            number += stop - at
            at = stop
            if at >= self._last:
                at, lap = self._first, lap + 1

    def _edge(self, at: int) -> int:
        """Return where the block that begins at a sample stops."""
        stop = min(at + self._size, self._last)
        if self._span_s is not None:
            until = float(self._due[at]) + self._span_s
            stop = min(stop, int(self._due.searchsorted(until, "left")))
        return max(stop, at + 1)

    def _block(self, at: int, stop: int, lap: int, number: int) -> Block:
        block = self._recording.read(at, stop)
        if lap:
            block.t = block.t + lap * self._lap_s
        block.origin_s = self._origin_s
        block.sequence = number
        return block

    def _sought(self, target_s: float) -> tuple[int, int]:
        """Return sample and lap of a time on the timeline."""
        since = target_s - float(self._due[self._first])
        lap = max(0, int(since // self._lap_s)) if self._laps > 1 else 0
        at = int(self._due.searchsorted(target_s - lap * self._lap_s, "left"))
        if at >= self._last:
            return self._first, lap + 1
        return max(at, self._first), lap

    def seek(self, at_s: float) -> None:
        """Go to `at_s` seconds after the recording's first sample."""
        if self.timeline is None:
            raise TypeError("a replay with rate_limit=False cannot seek: use start=")
        if not math.isfinite(at_s):
            raise ValueError(f"seek needs a finite time, s, got {at_s!r}")
        self.timeline.seek(float(self._due[0]) + at_s)

    def losses(self) -> tuple[int, tuple[str, ...]]:
        """Return no losses: a recording loses nothing."""
        return 0, ()


def sizes(
    block: int | float | None, timeline: Timeline | None, sample: Block
) -> tuple[int, float | None]:
    """Return the limits of a block: samples, and seconds or None.

    Raises `ValueError` or `TypeError` if `block` is not a number of these.
    """
    width = sum(column.nbytes for column in sample.values.values()) or 1
    most = max(1, BLOCK_BYTES // width)
    if block is None:
        if timeline is None:
            return min(UNPACED, most), None
        return most, PACED_S * timeline.speed
    if isinstance(block, bool) or not isinstance(block, (int, float)):
        raise TypeError(
            f"block must be samples (int) or seconds (float), got {block!r}"
        )
    if not 0 < block < math.inf:
        raise ValueError(f"block must be more than 0, got {block!r}")
    if isinstance(block, int):
        return block, None
    return most, float(block)
