"""Batches: frames gathered into one array of a GPU, while another is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ataraxis.gpu.libraries import library as library_named
from ataraxis.gpu.pins import Hold
from ataraxis.gpu.watcher import watcher

if TYPE_CHECKING:
    from ataraxis.labels import Labels


@dataclass(frozen=True, eq=False)
class DeviceBatch:
    """Frames in one array of a device; unpacks into `data` and `time_ns`."""

    data: Any
    """The library's array, shape ``(n, *shape)``: row by row, the frames."""
    time_ns: NDArray[np.int64]
    """Monotonic time of each frame, ns, shape (n,)."""
    sequence: NDArray[np.int64]
    """Number of each frame within its stream, shape (n,)."""
    labels: Labels | None
    """Labels of a frame, if it has some."""

    def __iter__(self) -> Iterator[Any]:
        return iter((self.data, self.time_ns))

    def __len__(self) -> int:
        return len(self.time_ns)


class _Gathering:
    """The batch that is being filled."""

    def __init__(
        self, n: int, device: Any, name: str, new_hold: Callable[[], Hold | None]
    ) -> None:
        self._library = library_named(name)
        if not hasattr(self._library, "side_stream"):
            raise ValueError(
                f"library={name!r} has arrays that cannot be written in parts: take "
                "'torch' or 'cupy', and hand over the batch by DLPack"
            )
        self._n, self._device, self._new_hold = n, device, new_hold
        self._side = self._library.side_stream(device)
        self._target: Any = None
        self._kept: list[Any] = []
        self._stamps: list[tuple[int, int]] = []
        self._labels: Labels | None = None
        self._kind: tuple[Any, ...] = ()

    def takes(self, array: NDArray[Any]) -> bool:
        """Return whether a frame fits the batch: it has room, and its shape."""
        if not self._stamps:
            return True
        kind = array.shape, array.dtype
        return len(self._stamps) < self._n and kind == self._kind

    def add(self, frame: Any, array: NDArray[Any]) -> None:
        """Begin to copy a frame into the next row."""
        if not self._stamps:
            self._kind = array.shape, array.dtype
            self._labels = getattr(frame, "labels", None)
            shape = (self._n, *array.shape)
            self._target = self._library.empty(
                shape, array.dtype, self._device, self._side
            )
            self._library.lead(self._target, self._side)
        row = self._target[len(self._stamps)]
        array = np.ascontiguousarray(array)
        self._kept += [array] if self._kept else [self._new_hold(), array]
        self._library.copy(array, row, self._side)
        self._stamps.append((frame.time_ns, frame.sequence))

    @property
    def under_way(self) -> int:
        """Frames whose copy was begun since the last `flush`."""
        return max(0, len(self._kept) - 1)

    @property
    def is_full(self) -> bool:
        """Whether it has `n` frames."""
        return len(self._stamps) == self._n

    def __bool__(self) -> bool:
        return bool(self._stamps)

    def flush(self) -> None:
        """Let the slots go when the copies that were begun are over."""
        kept, self._kept = self._kept, []
        if not kept:
            return
        try:
            event = self._library.mark(self._target, self._side)
            if event is not None:
                watcher().keep(event, kept)
        except BaseException:
            self._kept = kept
            raise

    def take(self, labels: Labels | None) -> DeviceBatch:
        """Return the batch; the current stream waits for its copies."""
        self.flush()
        target, stamps = self._target, self._stamps
        self._library.follow(target, self._side)
        self._target, self._stamps = None, []
        times, numbers = np.array(stamps, np.int64).T
        rows = target if len(stamps) == self._n else target[: len(stamps)]
        return DeviceBatch(rows, times, numbers, labels or self._labels)

    def abandon(self) -> None:
        """Wait for what was begun: its slots are given back after this."""
        if self._kept:
            self._library.synchronize(self._device)
        self._kept = []


def gather(
    next_frame: Callable[[bool], Any],
    n: int,
    *,
    device: Any,
    library: str,
    new_hold: Callable[[], Hold | None] = lambda: None,
    most_held: int | None = None,
    labels: Labels | None = None,
) -> Iterator[DeviceBatch]:
    """Iterate over batches of what `next_frame` returns.

    Parameters
    ----------
    next_frame : callable
        Takes whether it may wait; returns a frame, or None: the end if it might wait,
        else that it would have to wait. `TimeoutError` ends a batch that has frames.
    n : int
        Frames of a batch.
    device, library
        As for `batches`.
    new_hold : callable
        Returns a hold of locked pages for copies, or None.
    most_held : int, optional
        Most frames that are held: fewer than the ring has slots.
    labels : Labels, optional
        Labels of each frame.
    """
    if n < 1:
        raise ValueError(f"n must be 1 or more frames, got {n}")
    most = n if most_held is None else max(1, min(n, most_held))
    batch = _Gathering(n, device, library, new_hold)
    frame: Any = None
    try:
        while True:
            frame = next_frame(False)
            if frame is None:
                # Nothing is held while it waits: a producer may wait for these slots.
                batch.flush()
                try:
                    frame = next_frame(True)
                except TimeoutError:
                    if not batch:
                        raise
                    yield batch.take(labels)
                    continue
            if frame is None:
                break
            array = frame.array
            if not batch.takes(array):
                yield batch.take(labels)
            batch.add(frame, array)
            del array, frame
            if batch.under_way >= most:
                batch.flush()
            if batch.is_full:
                yield batch.take(labels)
        if batch:
            yield batch.take(labels)
    finally:
        batch.abandon()


def batches(
    frames: Iterable[Any],
    n: int,
    *,
    device: Any = "cuda",
    library: str = "torch",
    labels: Labels | None = None,
) -> Iterator[DeviceBatch]:
    """Iterate over arrays of a device, each with the values of `n` frames.

    Parameters
    ----------
    frames : iterable
        Frames: the entries of a `LogArchive`, or what was received from a stream.
        `Consumer.batches` takes them from the ring itself.
    n : int
        Frames of a batch; the last one, and one before a frame of another shape, has
        fewer.
    device : object
        As the library names it.
    library : {'torch', 'cupy'}
        Whose arrays.
    labels : Labels, optional
        Labels of each frame, if the frames do not carry them.

    Yields
    ------
    DeviceBatch
        Unpacks into data and times. It is a copy, and stays valid.

    Examples
    --------
    >>> from ataraxis import Consumer, Producer
    >>> import numpy as np
    >>> producer = Producer("doc_batches", shape=(2,), dtype="f4")
    >>> consumer = Consumer("doc_batches", policy="lossless")
    >>> sent = [producer.send(np.full(2, k, "f4")) for k in range(3)]
    >>> producer.end()
    >>> for data, times in consumer.batches(2, device="cpu"):  # doctest: +SKIP
    ...     data.shape, len(times)
    (torch.Size([2, 2]), 2)
    (torch.Size([1, 2]), 1)
    >>> consumer.close()
    >>> producer.unlink()
    """
    iterator = iter(frames)

    def next_frame(may_wait: bool) -> Any:
        return next(iterator, None)

    return gather(next_frame, n, device=device, library=library, labels=labels)
