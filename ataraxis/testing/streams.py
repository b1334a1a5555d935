"""StreamContract: what every producer and its consumer do, as tests over yours."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ataraxis.errors import EndOfStream
from ataraxis.labels import Labels

WAIT_S = 30.0
SLOTS = 16
SHAPE, DTYPE = (2, 3), "i4"
BLOCK, MS = 5, 1_000_000
LABELS: dict[str, Any] = {
    "dims": ("y", "axis"),
    "coords": {"axis": ["a", "b", "c"]},
    "attrs": {"units": "mV", "rate_hz": 100.0},
}


class StreamContract:
    """Laws of a producer and one consumer of its frames.

    Subclass it in a test module and give `make`; pytest runs the tests it inherits. A
    producer has ``send(array, device_time=, device_sequence=)`` and ``end()``; a
    consumer ``receive(timeout=)``, which returns a frame, or at the end None or
    `EndOfStream`, ``labels``, ``received_count`` and ``dropped_count``; a frame
    ``array`` and ``release()``, and stamps if `has_stamps`. If `has_samples`, a
    producer also has ``send(array, time_ns=)``, and a consumer ``read_block(n)``.

    Examples
    --------
    >>> from ataraxis import Consumer, Producer
    >>> from ataraxis.testing.streams import StreamContract
    >>> class TestLossless(StreamContract):
    ...     @contextmanager
    ...     def make(self, **options):
    ...         with Producer("doc_contract", **options) as producer:
    ...             with Consumer("doc_contract", policy="lossless") as consumer:
    ...                 yield producer, consumer
    >>> TestLossless().test_frames_come_in_order()
    """

    policy: Literal["lossless", "lossy", "latest"] = "lossless"
    """What a slow consumer misses: nothing, the oldest frames, all but the newest."""
    gives_views = True
    """Whether arrays are read-only views; else the caller's own copies."""
    has_stamps = True
    """Whether frames carry time_ns, device_time and device_sequence."""
    has_samples = True
    """Whether frames may be blocks, and the consumer reads samples with their times."""
    is_bounded = True
    """Whether a send without a free slot is refused while the consumer is behind."""

    def make(self, **options: Any) -> AbstractContextManager[tuple[Any, Any]]:
        """Return a context manager that gives a new producer and its consumer.

        Parameters
        ----------
        **options
            shape, dtype, dims, coords, attrs and buffer_count, as `Producer` takes
            them.
        """
        raise NotImplementedError

    def make_mortal(
        self,
    ) -> AbstractContextManager[tuple[Callable[[], object], Any]] | None:
        """Return a context manager that gives a kill and a consumer.

        The producer, of another process, has sent frames 0, 1 and 2 (`frame`) and goes
        on living until ``kill()``. None: no producer can die before its consumer.
        """
        raise NotImplementedError

    # ---- what the tests share

    @contextmanager
    def blocks(self, slots: int, stamp: str) -> Iterator[tuple[Any, Any]]:
        """Give a producer of blocks of up to `BLOCK` samples and its consumer."""
        options: dict[str, Any] = {"shape": (BLOCK, 2), "dtype": "i4"}
        options |= {"dims": ("time", "axis"), "coords": {"axis": ["a", "b"]}}
        attrs = {"sample_rate_hz": 1000, "stamp_of": stamp}
        with self.make(buffer_count=slots, attrs=attrs, **options) as (one, other):
            yield one, other

    def send_blocks(self, producer: Any, lengths: list[int], stamp: str) -> None:
        """Send samples 0, 1, 2, ..., one a millisecond, in blocks."""
        at = 0
        for n in lengths:
            rows = np.arange(at, at + n, dtype="i4")
            at += n
            first = (at - n if stamp == "sample" else at - 1) * MS
            producer.send(np.stack([rows, -rows], 1), time_ns=first)

    def read_blocks(self, consumer: Any, sizes: list[int]) -> list[Any]:
        """Read samples until the end, `sizes` at a time, round and round."""
        found: list[Any] = []
        while True:
            try:
                n = sizes[len(found) % len(sizes)]
                found.append(consumer.read_block(n, timeout=WAIT_S))
            except EndOfStream:
                return found

    def frame(self, k: int) -> NDArray[np.int32]:
        """Return frame number `k`: every item is `k`."""
        return np.full(SHAPE, k, DTYPE)

    @contextmanager
    def pair(self, slots: int = SLOTS) -> Iterator[tuple[Any, Any]]:
        """Give a producer of labelled frames and its consumer."""
        options = {"shape": SHAPE, "dtype": DTYPE, "buffer_count": slots, **LABELS}
        with self.make(**options) as (producer, consumer):
            yield producer, consumer

    def receive(self, consumer: Any, timeout: float = WAIT_S) -> Any:
        """Receive a frame; None at the end."""
        try:
            return consumer.receive(timeout=timeout)
        except EndOfStream:
            return None

    def number(self, frame: Any) -> int:
        """Return which frame it is, whole, and release it."""
        assert frame.array.dtype == DTYPE
        assert frame.array.shape == SHAPE
        k = int(frame.array[0, 0])
        assert (frame.array == k).all(), f"torn: {frame.array}"
        frame.release()
        return k

    def rest(self, consumer: Any) -> list[int]:
        """Receive until the end: which frames."""
        found = []
        while (frame := self.receive(consumer)) is not None:
            found.append(self.number(frame))
        return found

    # ---- the laws

    def test_frames_come_in_order(self) -> None:
        """Each frame once, with its content, in the order of sending."""
        with self.pair() as (producer, consumer):
            for k in range(3 * SLOTS):
                producer.send(self.frame(k))
                assert self.number(self.receive(consumer)) == k

    def test_stamps_come_with_the_frame(self) -> None:
        """The time of sending, monotonic ns, and the device's own time and number."""
        if not self.has_stamps:
            return
        with self.pair() as (producer, consumer):
            last = time.monotonic_ns()
            for k in range(4):
                producer.send(
                    self.frame(k), device_time=k * 10**9, device_sequence=7 + 2 * k
                )
                frame = self.receive(consumer)
                assert last <= frame.time_ns <= time.monotonic_ns()
                last = frame.time_ns
                assert frame.device_time == k * 10**9
                assert frame.device_sequence == 7 + 2 * k
                frame.release()

    def test_labels_are_carried(self) -> None:
        """The consumer knows dtype, shape, dims, coords and attrs of a frame."""
        with self.pair() as (producer, consumer):
            producer.send(self.frame(0))
            self.number(self.receive(consumer))
            assert consumer.labels == Labels(DTYPE, SHAPE, **LABELS)

    def test_nothing_there_is_a_timeout(self) -> None:
        """A wait for a frame that does not come ends in time; the next one works."""
        with self.pair() as (producer, consumer):
            for timeout in (0.01, 0.2):
                began = time.monotonic()
                try:
                    frame = consumer.receive(timeout=timeout)
                except TimeoutError:
                    assert 0.9 * timeout < time.monotonic() - began < WAIT_S
                    continue
                raise AssertionError(f"received {frame} of an empty stream")
            producer.send(self.frame(0))
            assert self.number(self.receive(consumer)) == 0

    def test_the_end_comes_after_all_that_was_sent(self) -> None:
        """Frames that were sent before the end are received before it; it stays."""
        with self.pair() as (producer, consumer):
            for k in range(4):
                producer.send(self.frame(k))
            producer.end()
            sent = [0, 1, 2, 3]
            assert self.rest(consumer) == (
                sent[3:] if self.policy == "latest" else sent
            )
            assert self.receive(consumer) is None

    def test_received_and_dropped_are_all_that_was_sent(self) -> None:
        """A slow consumer: what it misses is what its policy allows, and counted."""
        count = 4 * SLOTS

        def send() -> None:
            for k in range(count):
                producer.send(self.frame(k))
            producer.end()

        with self.pair() as (producer, consumer):
            thread = threading.Thread(target=send)
            thread.start()
            if self.policy != "lossless":
                thread.join(WAIT_S)
            found = self.rest(consumer)
            thread.join(WAIT_S)
            assert not thread.is_alive()
            assert producer.statistics().sent == count
            assert consumer.received_count == len(found)
            assert consumer.dropped_count == count - len(found)
        assert found == sorted(set(found))
        assert found[-1] == count - 1
        if self.policy == "lossless":
            assert len(found) == count
        elif self.policy == "latest":
            assert len(found) == 1
        else:
            assert 1 < len(found) < count

    def test_blocks_are_read_as_samples(self) -> None:
        """In order, once, with their times, however the blocks were cut."""
        if not self.has_samples or self.policy != "lossless":
            return
        lengths = [BLOCK, 1, 3, BLOCK, BLOCK, 2, BLOCK, 1, 1, BLOCK - 1]
        for stamp in ("arrival", "sample"):
            for sizes in ([1], [BLOCK], [3, 1, 4], [100]):
                with self.blocks(SLOTS, stamp) as (producer, consumer):
                    self.send_blocks(producer, lengths, stamp)
                    producer.end()
                    found = self.read_blocks(consumer, sizes)
                numbers = np.concatenate([block.data[:, 0] for block in found])
                times = np.concatenate([block.time_ns for block in found])
                np.testing.assert_array_equal(numbers, np.arange(sum(lengths)))
                np.testing.assert_array_equal(times, numbers.astype("i8") * MS)
                assert [block.lost for block in found] == [0] * len(found)

    def test_no_block_of_samples_spans_a_loss(self) -> None:
        """What a slow consumer missed lies between blocks, which tell how much."""
        if not self.has_samples or self.policy == "lossless":
            return
        with self.blocks(SLOTS, "sample") as (producer, consumer):
            self.send_blocks(producer, [BLOCK] * (4 * SLOTS), "sample")
            producer.end()
            found = self.read_blocks(consumer, [2 * BLOCK + 1])
        expected = 0
        for block in found:
            first = int(block.data[0, 0])
            numbers = np.arange(first, first + len(block))
            np.testing.assert_array_equal(block.data[:, 0], numbers)
            np.testing.assert_array_equal(block.time_ns, numbers * MS)
            assert block.lost == first - expected
            expected = first + len(block)
        assert expected == 4 * SLOTS * BLOCK
        assert found[0].lost > 0

    def test_what_is_held_stays_as_it_was(self) -> None:
        """Arrays of held frames do not change; a view is read-only, a copy is not."""
        with self.pair() as (producer, consumer):
            held = []
            for k in range(4):
                producer.send(self.frame(k))
                held.append(self.receive(consumer))
            for k in range(4, SLOTS):
                producer.send(self.frame(k))
                assert self.number(self.receive(consumer)) == k
            for k, frame in enumerate(held):
                assert frame.array.flags.writeable is not self.gives_views
                assert self.number(frame) == k

    def test_a_release_makes_room(self) -> None:
        """A full ring refuses frames until its lossless reader releases one."""
        if self.policy != "lossless" or not self.is_bounded:
            return
        with self.pair(2) as (producer, consumer):
            for k in range(2):
                producer.send(self.frame(k))
            for _ in range(2):
                try:
                    producer.send(self.frame(2), timeout=0.01)
                except TimeoutError:
                    continue
                raise AssertionError("a send into a full ring returned")
            assert self.number(self.receive(consumer)) == 0
            producer.send(self.frame(2), timeout=WAIT_S)
            producer.end()
            assert self.rest(consumer) == [1, 2]

    def test_a_killed_producer_is_an_end(self) -> None:
        """A consumer gets all that was sent, then the end: it does not wait on."""
        mortal = self.make_mortal()
        if mortal is None:
            return
        with mortal as (kill, consumer):
            timer = threading.Timer(0.2, kill)
            timer.start()
            found = self.rest(consumer)
            timer.join()
        assert found == ([2] if self.policy == "latest" else [0, 1, 2])
