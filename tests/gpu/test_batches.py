"""Batches: every frame once, in order, in one array, while slots go back."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deadline import wait_until
from gpu_rig import copies_are_over, fake_driver, fake_library

from ataraxis import Consumer, DataLogger, LogArchive, LogPackage, Producer
from ataraxis.gpu import DeviceBatch, batches
from ataraxis.testing.gpu import FakeLibrary


@pytest.fixture
def library() -> Any:
    with fake_library() as made:
        yield made


def stream(**options: Any) -> Producer:
    options = {"shape": (3,), "dtype": "i4", "buffer_count": 8, **options}
    return Producer("s", **options)


def frame_of(k: int) -> Any:
    return np.full(3, k, "i4")


def values(batch: Any) -> list[int]:
    return [int(row[0]) for row in batch.data.memory]


def sent_in_a_thread(producer: Producer, count: int) -> threading.Thread:
    def send() -> None:
        for k in range(count):
            producer.send(frame_of(k), time_ns=1000 * k)
        producer.end()

    thread = threading.Thread(target=send)
    thread.start()
    return thread


@pytest.mark.parametrize("n", [1, 3, 8, 50, 200])
def test_every_frame_once_and_in_order(library: FakeLibrary, n: int) -> None:
    """Also in batches that are larger than the ring, which frames pass meanwhile."""
    with (
        fake_driver(),
        stream(attrs={"units": "mV"}) as producer,
        Consumer("s", policy="lossless") as consumer,
    ):
        consumer.pin()
        thread = sent_in_a_thread(producer, 100)
        found = list(consumer.batches(n, timeout=30))
        thread.join(30)
        wait_until(copies_are_over)
        assert [len(batch) for batch in found[:-1]] == [n] * (len(found) - 1)
        assert sum(len(batch) for batch in found) == 100
        assert [v for batch in found for v in values(batch)] == list(range(100))
        times = np.concatenate([times for _, times in found])
        assert np.array_equal(times, 1000 * np.arange(100))
        numbers = np.concatenate([batch.sequence for batch in found])
        assert np.array_equal(numbers, np.arange(100))
        assert all(batch.labels == producer.labels for batch in found)


def test_one_event_a_batch_and_the_current_stream_follows(library: FakeLibrary) -> None:
    with stream(buffer_count=64) as producer, Consumer("s") as consumer:
        for k in range(8):
            producer.send(frame_of(k))
        producer.end()
        data, times = next(iter(consumer.batches(8)))
        assert data.shape == (8, 3)
        assert len(times) == 8
        assert library.calls == ["lead", *["copy"] * 8, "mark", "follow"]
        assert len(list(consumer)) == 0


def test_nothing_is_held_while_it_waits(library: FakeLibrary) -> None:
    """A producer with a full ring, and a batch that is not: neither waits for ever."""
    with (
        stream(buffer_count=2) as producer,
        Consumer("s", policy="lossless") as consumer,
    ):
        thread = sent_in_a_thread(producer, 21)
        assert [len(b) for b in consumer.batches(10, timeout=30)] == [10, 10, 1]
        thread.join(30)


def test_a_short_batch_after_the_timeout(library: FakeLibrary) -> None:
    with stream() as producer, Consumer("s", policy="lossless") as consumer:
        producer.send(frame_of(1)), producer.send(frame_of(2))
        found = consumer.batches(4, timeout=0.01)
        assert len(next(found)) == 2
        with pytest.raises(TimeoutError):
            next(found)
        producer.unlink()


def test_latest_skips_what_is_behind(library: FakeLibrary) -> None:
    with (
        stream(buffer_count=32) as producer,
        Consumer("s", policy="lossless") as consumer,
    ):
        for k in range(20):
            producer.send(frame_of(k))
        producer.end()
        (batch,) = consumer.batches(5, latest=True)
        wait_until(copies_are_over)
        assert values(batch) == [15, 16, 17, 18, 19]


def test_another_shape_begins_another_batch(library: FakeLibrary) -> None:
    with (
        stream(dims=("time", "y"), shape=(4, 3)) as producer,
        Consumer("s", policy="lossless") as consumer,
    ):
        for rows in (4, 4, 2, 4):
            producer.send(np.zeros((rows, 3), "i4"))
        producer.end()
        shapes = [batch.data.shape for batch in consumer.batches(3)]
        assert shapes == [(2, 4, 3), (1, 2, 3), (1, 4, 3)]


def test_a_loop_that_is_left_gives_the_slots_back(library: FakeLibrary) -> None:
    with (
        stream(buffer_count=4) as producer,
        Consumer("s", policy="lossless") as consumer,
    ):
        for k in range(3):
            producer.send(frame_of(k))
        for batch in consumer.batches(2):
            assert len(batch) == 2
            break
        for k in range(10):
            producer.send(frame_of(k), timeout=10)
            consumer.receive(timeout=10).release()
        producer.unlink()


def test_a_batch_unpacks() -> None:
    batch = DeviceBatch("data", np.arange(3), np.arange(3), None)
    data, times = batch
    assert data == "data"
    assert times.tolist() == [0, 1, 2]
    assert len(batch) == 3


def test_frames_of_a_log(library: FakeLibrary, tmp_path: Path) -> None:
    log = DataLogger(tmp_path, layout="journal")
    log.start()
    for k in range(10):
        log.input_queue.put(LogPackage(1, 1000 * k, np.full(6, k, np.uint8)))
    log.stop()
    with LogArchive(log.output_directory) as archive:
        found = list(batches(archive, 4, device="cuda:0"))
        wait_until(copies_are_over)
    assert [len(batch) for batch in found] == [4, 4, 2]
    assert [v for batch in found for v in values(batch)] == list(range(10))


def test_wrong_arguments_are_told(library: FakeLibrary) -> None:
    with pytest.raises(ValueError, match="1 or more frames, got 0"):
        list(batches([], 0))
    with stream() as producer, Consumer("s") as consumer:
        with pytest.raises(ValueError, match="timeout"):
            consumer.batches(3, timeout=-1)
        producer.unlink()


def test_jax_has_no_batches() -> None:
    import gpu_devices

    gpu_devices.jax_of_the_processor()
    with pytest.raises(ValueError, match=r"'torch' or 'cupy'"):
        list(batches([], 3, library="jax"))


def test_pytorch_on_the_processor() -> None:
    torch = pytest.importorskip("torch")
    with stream() as producer, Consumer("s", policy="lossless") as consumer:
        thread = sent_in_a_thread(producer, 21)
        found = list(consumer.batches(8, device="cpu", timeout=30))
        thread.join(30)
        whole = torch.cat([data for data, _ in found])
        assert whole[:, 0].tolist() == list(range(21))
