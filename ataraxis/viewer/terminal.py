"""Terminal: a stream as lines of text, for people on ssh: frames, and their rate."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ataraxis._kernels.consumer import Frame
from ataraxis.clock import Anchor
from ataraxis.session.events import EVENT
from ataraxis.shm.context import ContextLike
from ataraxis.stream import Consumer
from ataraxis.viewer.tap import LABEL

BARS = "▁▂▃▄▅▆▇█"
_WAIT_S = 0.1
_TEXT = 60


def spark(values: NDArray[Any] | list[float], width: int = 16) -> str:
    """Return numbers as a line of bars; each bar is the extreme of its numbers.

    Examples
    --------
    >>> spark([0, 1, 2, 3, 2, 1, 0]), spark([5, 5])
    ('▁▃▆█▆▃▁', '▁▁')
    """
    found = np.asarray(values, "f8")
    found = found[np.isfinite(found)]
    if not len(found):
        return ""
    pieces = np.array_split(found, min(width, len(found)))
    middle = np.median(found)
    shown = np.array([piece[np.abs(piece - middle).argmax()] for piece in pieces])
    reach = float(shown.max() - shown.min())
    if reach == 0:
        return BARS[0] * len(shown)
    places = ((shown - shown.min()) / reach * (len(BARS) - 1)).round().astype(int)
    return "".join(BARS[place] for place in places)


def printable(text: str, limit: int = _TEXT) -> str:
    """Return a text of unknown origin with escapes, of limited length."""
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode()
        for c in text[:limit]
    )
    return shown + "…" * (len(text) > limit)


# ---- frames


@dataclass(frozen=True)
class FrameLine:
    """One frame of a stream, in words."""

    sequence: int
    """Its number."""
    time: str
    """Its stamp as wall time, UTC."""
    nbytes: int
    """Bytes of its payload."""
    text: str
    """What it holds."""
    skipped: int
    """Frames since the last line that are not shown."""

    def as_json(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)

    def __str__(self) -> str:
        skipped = f"  (+{self.skipped:,})" if self.skipped else ""
        return f"{self.time[11:]}  #{self.sequence:,}{skipped}  {self.text}"


class StreamLines:
    """Reads a stream as a lossy reader, and describes its frames.

    Parameters
    ----------
    name : str
        Name of the stream.
    context : Context, str, Path or None
        Its context.

    Examples
    --------
    >>> from ataraxis import Producer
    >>> stream = Producer("doc_lines", shape=(3,))
    >>> lines = StreamLines("doc_lines", None)
    >>> _ = stream.send(np.array([1.0, 2, 3])), stream.end()
    >>> [line.text for line in lines.lines(0, lambda: False)]
    ['float64 3  1 to 3, mean 2  ▁▅█']
    >>> lines.close(); stream.unlink()
    """

    def __init__(self, name: str, context: ContextLike) -> None:
        self.reader = Consumer(
            name, policy="lossy", start="latest", label=LABEL, context=context
        )
        self._anchor = Anchor.take()

    def close(self) -> None:
        """Leave the stream."""
        self.reader.close()

    def frames(self, is_over: Callable[[], bool]) -> Iterator[Frame | None]:
        """Yield each frame, or None after 0.1 s without one, until the stream's end.

        A frame is released when the next one is asked for.
        """
        while not is_over():
            try:
                frame = self.reader.receive(timeout=_WAIT_S)
            except TimeoutError:
                yield None
                continue
            if frame is None:
                return
            with frame:
                yield frame

    def lines(self, most_hz: float, is_over: Callable[[], bool]) -> Iterator[FrameLine]:
        """Yield frames in words, at most `most_hz` a second; 0: each of them."""
        period, due, last = 1 / most_hz if most_hz else 0.0, 0.0, None
        for frame in self.frames(is_over):
            if frame is None or time.monotonic() < due:
                continue
            due = time.monotonic() + period
            skipped = 0 if last is None else frame.sequence - last - 1
            last = frame.sequence
            when = str(self._anchor.to_datetime64(frame.time_ns))[:23]
            text = self._describe(frame)
            yield FrameLine(frame.sequence, when, frame.nbytes, text, skipped)

    def _describe(self, frame: Frame) -> str:
        if not self.reader.is_typed:
            value = frame.value
            if isinstance(value, bytes):
                return f"{len(value):,} bytes  {printable(repr(value))}"
            return printable(str(value) if isinstance(value, str) else repr(value))
        array = frame.array
        if array.dtype == EVENT:
            return f"{printable(str(array['event']))}  {printable(str(array['data']))}"
        shape = "×".join(map(str, array.shape))
        what = f"{array.dtype} {shape}".strip() if array.dtype.names is None else ""
        return f"{what}  {numbers_of(array)}".strip()


def numbers_of(array: NDArray[Any]) -> str:
    """Return what is in an array: one value, or its range, mean and course.

    Examples
    --------
    >>> numbers_of(np.array(3)), numbers_of(np.zeros(0))
    ('3', 'empty')
    """
    if not array.size:
        return "empty"
    if array.ndim == 0 or array.dtype.kind not in "iufb":
        return printable(str(array[()]) if array.ndim == 0 else repr(array.tolist()))
    values = array.astype("f8", copy=False)
    good = values[np.isfinite(values)]
    if not good.size:
        return "not a finite number"
    least, most, mean = float(good.min()), float(good.max()), float(good.mean())
    course = values.reshape(len(values), -1)
    best = course[:, int(np.ptp(np.nan_to_num(course), axis=0).argmax())]
    return f"{least:g} to {most:g}, mean {mean:.4g}  {spark(best)}"


# ---- their rate


@dataclass(frozen=True)
class RateLine:
    """The rate of a stream over some time, by the stamps of its frames."""

    stream: str
    """Name of the stream."""
    seconds: float
    """How long it was measured."""
    frames: int
    """Frames that came."""
    hz: float
    """Frames a second."""
    mean_ms: float | None
    """Mean time between two frames that follow each other; None: there were none."""
    least_ms: float | None
    most_ms: float | None
    deviation_ms: float | None
    """Standard deviation of these times."""
    missed: int
    """Frames that this reader was too slow for."""

    def as_json(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))

    def __str__(self) -> str:
        words = [f"{self.stream}  {self.hz:.2f}/s"]
        if self.mean_ms is not None:
            words.append(
                f"mean {self.mean_ms:.3f} ms, {self.least_ms:.3f} to "
                f"{self.most_ms:.3f}, deviation {self.deviation_ms:.3f}"
            )
        if self.missed:
            words.append(f"{self.missed:,} missed by this command")
        return "  ".join(words)


class RateMeter:
    """Measures the rate of a stream, as `StreamLines` reads it.

    Parameters
    ----------
    name : str
        Name of the stream.
    context : Context, str, Path or None
        Its context.

    Examples
    --------
    >>> from ataraxis import Producer
    >>> stream = Producer("doc_rate", shape=(), buffer_count=16)
    >>> meter = RateMeter("doc_rate", None)
    >>> for k in range(5):
    ...     _ = stream.send(0.0, time_ns=k * 10**7)
    >>> stream.end()
    >>> line = meter.measure(1.0, lambda: False)
    >>> line.frames, line.mean_ms
    (5, 10.0)
    >>> meter.close(); stream.unlink()
    """

    def __init__(self, name: str, context: ContextLike) -> None:
        self._lines = StreamLines(name, context)
        self._name = name
        self._sequence, self._time_ns, self._missed = -1, 0, 0
        self.is_over = False
        """Whether the stream has ended."""

    def close(self) -> None:
        """Leave the stream."""
        self._lines.close()

    def measure(self, seconds: float, is_over: Callable[[], bool]) -> RateLine:
        """Measure for some time, or until the stream's end or `is_over`."""
        began = time.monotonic()
        end, steps, count = began + seconds, [], 0
        for frame in self._lines.frames(lambda: is_over() or time.monotonic() >= end):
            if frame is None:
                continue
            if frame.sequence == self._sequence + 1 and self._sequence >= 0:
                steps.append((frame.time_ns - self._time_ns) * 1e-6)
            self._sequence, self._time_ns = frame.sequence, frame.time_ns
            count += 1
        else:
            reader = self._lines.reader
            self.is_over = reader.is_ended and not reader.has_next
        passed = max(time.monotonic() - began, 1e-9)
        missed = self._lines.reader.dropped_count
        new, self._missed = missed - self._missed, missed
        if not steps:
            none = (None, None, None, None)
            return RateLine(self._name, passed, count, count / passed, *none, new)
        spread = statistics.pstdev(steps) if len(steps) > 1 else 0.0
        mean = math.fsum(steps) / len(steps)
        found = round(mean, 6), min(steps), max(steps), spread
        return RateLine(self._name, passed, count, count / passed, *found, new)
