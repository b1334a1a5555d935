"""From a GPU into a stream: the frame is whole before it is published."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from deadline import wait_until
from gpu_rig import fake_driver, fake_library

from ataraxis import Consumer, Producer
from ataraxis.errors import QueueFull
from ataraxis.testing.gpu import FakeDeviceArray, FakeLibrary

FRAME = np.arange(6, dtype="f4").reshape(2, 3)


@pytest.fixture
def library() -> Any:
    with fake_library() as made:
        yield made


def on_gpu(values: Any = FRAME) -> FakeDeviceArray:
    return FakeDeviceArray(np.array(values), "cuda:0")


def stream(**options: Any) -> Producer:
    options = {"shape": (2, 3), "dtype": "f4", "buffer_count": 4, **options}
    return Producer("s", **options)


@pytest.mark.parametrize("options", [{}, {"shared": True}, {"resume": True}], ids=str)
def test_an_array_of_a_gpu_is_sent(library: FakeLibrary, options: Any) -> None:
    with stream(**options) as producer, Consumer("s") as consumer:
        assert producer.send(on_gpu(), device_time=5, device_sequence=1, time_ns=77)
        frame = consumer.receive()
        assert np.array_equal(frame.array, FRAME)
        stamps = frame.device_time, frame.device_sequence, frame.time_ns
        assert stamps == (5, 1, 77)
        assert library.calls == ["copy_back", "mark"]
        del frame
        producer.unlink()


def test_nothing_is_published_before_the_copy_is_over(library: FakeLibrary) -> None:
    with stream() as producer, Consumer("s") as consumer:
        library.stop()
        thread = threading.Thread(target=lambda: producer.send(on_gpu()))
        thread.start()
        wait_until(lambda: library.calls == ["copy_back", "mark"])
        time.sleep(0.02)
        assert consumer.receive(blocking=False) is None
        library.go()
        thread.join(30)
        assert np.array_equal(consumer.receive(timeout=10).array, FRAME)


def slot_of(producer: Producer) -> int:
    buffer = producer.next_to_send()
    assert buffer is not None
    return buffer.array.ctypes.data


@pytest.mark.parametrize("options", [{}, {"shared": True}, {"resume": True}], ids=str)
def test_a_gpu_writes_into_the_slot_only_if_it_has_one_owner(
    library: FakeLibrary, monkeypatch: pytest.MonkeyPatch, options: Any
) -> None:
    written: list[int] = []
    copy_back = library.copy_back

    def noting(source: Any, target: Any) -> Any:
        written.append(target.ctypes.data)
        return copy_back(source, target)

    monkeypatch.setattr(library, "copy_back", noting)
    with fake_driver() as driver, stream(**options) as producer:
        producer.pin()
        segment = producer._attached()
        start, stop = (
            segment.mapping.address,
            segment.mapping.address + len(segment.mapping),
        )
        for _ in range(3):
            producer.send(on_gpu())
        assert all((start <= place < stop) == (not options) for place in written)
        # The private buffer is one, and page-locked too.
        assert len(driver.registered) == (2 if options else 1)
        assert len(set(written)) == (1 if options else 3)
        producer.unlink()


def test_a_buffer_takes_an_array_of_a_gpu(library: FakeLibrary) -> None:
    with stream() as producer, Consumer("s") as consumer:
        with producer.next_to_send() as buffer:
            assert buffer.copy_from(on_gpu()) == FRAME.nbytes
            buffer.array[0, 0] = 42
        found = consumer.receive().array
        assert found[0, 0] == 42
        assert found[1].tolist() == FRAME[1].tolist()


@pytest.mark.parametrize("options", [{}, {"resume": True}], ids=str)
def test_a_shorter_block(library: FakeLibrary, options: Any) -> None:
    with (
        stream(dims=("time", "y"), shape=(4, 3), **options) as producer,
        Consumer("s") as consumer,
    ):
        producer.send(on_gpu())
        assert np.array_equal(consumer.receive().array, FRAME)
        producer.unlink()


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (FRAME.astype("f8"), TypeError, "holds float32.*float64: convert it on"),
        (FRAME.T, ValueError, r"\(2, 3\), the GPU's array is \(3, 2\)"),
    ],
    ids=["dtype", "shape"],
)
def test_what_does_not_fit_is_refused(
    library: FakeLibrary, value: Any, error: Any, words: str
) -> None:
    with stream() as producer, Consumer("s") as consumer:
        with pytest.raises(error, match=words):
            producer.send(on_gpu(value))
        assert library.calls == []
        producer.send(on_gpu())
        assert consumer.receive().sequence == 0


def test_a_stream_of_bytes_refuses_it(library: FakeLibrary) -> None:
    with (
        Producer("s", 64) as producer,
        pytest.raises(TypeError, match=r"no dtype.*shape="),
    ):
        producer.send(on_gpu())


def test_a_full_ring_is_as_for_other_values(library: FakeLibrary) -> None:
    with stream(on_full="raise") as producer:
        consumer = Consumer("s", policy="lossless")
        for _ in range(4):
            producer.send(on_gpu())
        with pytest.raises(QueueFull):
            producer.send(on_gpu())
        consumer.close()
        producer.unlink()
    with stream(on_full="drop_newest") as producer:
        consumer = Consumer("s", policy="lossless")
        for _ in range(4):
            producer.send(on_gpu())
        assert producer.send(on_gpu()) is False
        assert producer.statistics().refused == 1
        consumer.close()
        producer.unlink()
    with stream() as producer:
        consumer = Consumer("s", policy="lossless")
        for _ in range(4):
            producer.send(on_gpu())
        with pytest.raises(TimeoutError):
            producer.send(on_gpu(), timeout=0.01)
        consumer.close()
        producer.unlink()


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_a_copy_that_is_broken_off_is_waited_for(
    library: FakeLibrary, monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    def fail(*_: Any) -> Any:
        raise error

    with stream() as producer, Consumer("s") as consumer:
        with monkeypatch.context() as patched:
            patched.setattr(library, "mark", fail)
            patched.setattr(
                library, "synchronize", lambda device: library.calls.append("s")
            )
            with pytest.raises(error):
                producer.send(on_gpu())
            assert library.calls == ["copy_back", "s"]
        producer.send(on_gpu(2 * FRAME))
        assert np.array_equal(consumer.receive().array, 2 * FRAME)


def test_an_array_of_the_host_is_not_one_of_a_gpu(library: FakeLibrary) -> None:
    with stream() as producer, Consumer("s") as consumer:
        producer.send(np.asfortranarray(FRAME))
        assert np.array_equal(consumer.receive().array, FRAME)
        buffer = producer.next_to_send()
        with pytest.raises(TypeError, match=r"ndarray is not an array of a GPU"):
            buffer.copy_from(FRAME)
        assert library.calls == []
        producer.unlink()
