"""Copies to a GPU: the slot is held until the copy is over, and not longer."""

from __future__ import annotations

import gc
import os
import threading
import time
from typing import Any

import numpy as np
import pytest
from deadline import wait_until
from gpu_rig import copies_are_over, fake_driver, fake_library, in_child

from ataraxis import Consumer, Producer
from ataraxis.errors import GpuUnavailable, QueueFull
from ataraxis.gpu import libraries
from ataraxis.gpu.copies import copy_to_device
from ataraxis.gpu.watcher import CopyEvent, CopyWatcher, watcher
from ataraxis.testing.gpu import FakeLibrary

SHAPE = (64,)


def frame_of(k: int) -> Any:
    return np.full(SHAPE, k, "i4")


@pytest.fixture
def library() -> Any:
    with fake_library() as made:
        yield made


@pytest.fixture
def ends() -> Any:
    with Producer("s", shape=SHAPE, dtype="i4", buffer_count=4) as producer:
        consumer = Consumer("s", policy="lossless")
        yield producer, consumer
        consumer.close()
        producer.unlink()


# ---- the slot


def test_the_slot_is_held_until_the_copy_is_over(ends: Any, library: Any) -> None:
    producer, consumer = ends
    producer.send(frame_of(7))
    library.stop()
    with consumer.receive() as frame:
        made = frame.to_torch()
    del frame
    for k in range(3):
        producer.send(frame_of(k))
    with pytest.raises(QueueFull):
        producer.send(frame_of(3), timeout=0)
    library.go()
    assert producer.send(frame_of(3), timeout=10)
    wait_until(copies_are_over)
    assert np.array_equal(made.memory, frame_of(7))


def test_a_copy_that_is_over_wakes_a_sender(ends: Any, library: Any) -> None:
    producer, consumer = ends
    for k in range(4):
        producer.send(frame_of(k))
    library.stop()
    made = [consumer.receive().to_torch() for _ in range(4)]
    sent: list[bool] = []
    thread = threading.Thread(target=lambda: sent.append(producer.send(frame_of(4))))
    thread.start()
    time.sleep(0.05)
    assert not sent
    library.go()
    thread.join(30)
    assert sent == [True]
    wait_until(copies_are_over)
    assert [int(array.memory[0]) for array in made] == [0, 1, 2, 3]


def test_a_slot_comes_back_while_a_thread_waits_in_receive(
    ends: Any, library: Any
) -> None:
    """The thread inside gives it back: it is woken, and the producer goes on."""
    producer, consumer = ends
    for k in range(4):
        producer.send(frame_of(k))
    library.stop()
    made = [consumer.receive().to_torch() for _ in range(4)]
    received: list[int] = []

    def receive() -> None:
        received.append(int(consumer.receive(timeout=30).array[0]))

    thread = threading.Thread(target=receive)
    thread.start()
    time.sleep(0.05)
    library.go()
    assert producer.send(frame_of(4), timeout=30)
    thread.join(30)
    assert received == [4]
    wait_until(copies_are_over)
    assert len(made) == 4


def test_a_lossy_reader_stops_nobody(library: Any) -> None:
    with Producer("s", shape=SHAPE, dtype="i4", buffer_count=4) as producer:
        consumer = Consumer("s", policy="lossy")
        producer.send(frame_of(0))
        library.stop()
        made = consumer.receive().to_torch()
        for k in range(1, 100):
            assert producer.send(frame_of(k), timeout=0)
        library.go()
        wait_until(copies_are_over)
        assert np.array_equal(made.memory, frame_of(0)), "its slot was passed over"
        consumer.close()
        producer.unlink()


def test_a_consumer_may_be_closed_before_the_copy_is_over(library: Any) -> None:
    with Producer("s", shape=SHAPE, dtype="i4", buffer_count=4) as producer:
        consumer = Consumer("s", policy="lossless")
        producer.send(frame_of(5))
        library.stop()
        made = consumer.receive().to_torch()
        consumer.close()
        del consumer
        gc.collect()
        for k in range(3):
            producer.send(frame_of(k), timeout=10)
        # It leaves the stream when the copy is over, and until then gates.
        with pytest.raises(QueueFull):
            producer.send(frame_of(3), timeout=0)
        library.go()
        assert producer.send(frame_of(3), timeout=10)
        wait_until(copies_are_over)
        assert np.array_equal(made.memory, frame_of(5))
        producer.unlink()


def test_a_thousand_frames_are_as_they_were_sent(library: Any) -> None:
    """Bit by bit, with a slow GPU now and then, through pinned and unpinned slots."""
    random = np.random.default_rng(1)
    frames = random.integers(-(2**31), 2**31 - 1, (1000, *SHAPE)).astype("i4")
    with (
        fake_driver(),
        Producer("s", shape=SHAPE, dtype="i4", buffer_count=8) as producer,
        Consumer("s", policy="lossless") as consumer,
    ):
        thread = threading.Thread(target=lambda: producer.send_block(frames))
        thread.start()
        pin, made = consumer.pin(), []
        for k in range(1000):
            if k % 100 == 0:
                library.stop()
                threading.Timer(0.01, library.go).start()
            if k == 500:
                pin.close()
            made.append(consumer.receive(timeout=30).to_cupy())
        thread.join(30)
        wait_until(copies_are_over)
        assert all(
            np.array_equal(one.memory, frame)
            for one, frame in zip(made, frames, strict=True)
        )


# ---- the order of calls


def test_the_event_comes_after_the_copy(ends: Any, library: Any) -> None:
    producer, consumer = ends
    producer.send(frame_of(0))
    consumer.receive().to_torch()
    assert library.calls == ["copy", "mark"]


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_a_copy_without_an_event_is_waited_for(
    ends: Any, library: Any, monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    producer, consumer = ends
    producer.send(frame_of(9))

    def fail(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(library, "mark", fail)
    monkeypatch.setattr(
        library, "synchronize", lambda device: library.calls.append("s")
    )
    with pytest.raises(error):
        consumer.receive().to_torch()
    assert library.calls == ["copy", "s"]


def test_a_copy_that_failed_gives_the_slot_back(
    ends: Any, library: Any, caplog: pytest.LogCaptureFixture
) -> None:
    producer, consumer = ends

    def lost() -> Any:
        raise RuntimeError("the GPU has fallen off the bus")

    def put(source: Any, device: Any, stream: Any) -> Any:
        return None, CopyEvent(lost, lost)

    library.put = put
    for k in range(8):
        producer.send(frame_of(k), timeout=10)
        consumer.receive(timeout=10).to_torch()
    wait_until(copies_are_over)
    assert "fallen off the bus" in caplog.text


# ---- the watcher


def test_one_thread_watches_and_ends_when_idle(
    ends: Any, library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ataraxis.gpu.watcher.IDLE_S", 0.01)
    made = CopyWatcher()
    seen: set[int] = set()
    for _ in range(5):
        over = threading.Event()
        kept = [object()]
        made.keep(
            CopyEvent(lambda: seen.add(threading.get_ident()), lambda: True), kept
        )
        wait_until(lambda: made.ended == made.begun)
        assert kept == []
        over.set()
    assert seen
    assert threading.get_ident() not in seen
    wait_until(lambda: not made._is_running)


def test_later_copies_that_are_over_do_not_wait_for_the_first() -> None:
    made, first, second = CopyWatcher(), threading.Event(), threading.Event()
    early: list[Any] = ["early"]
    late: list[Any] = ["late"]
    third: list[Any] = ["third"]
    made.keep(CopyEvent(first.wait, first.is_set), early)
    made.keep(CopyEvent(second.wait, second.is_set), late)
    made.keep(CopyEvent(lambda: True, lambda: True), third)
    first.set()
    wait_until(lambda: third == [])
    assert early == []
    assert late == ["late"]
    second.set()
    wait_until(lambda: late == [])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*_at_fork.*")  # of JAX, if it is there
def test_a_forked_child_has_a_watcher_of_its_own(ends: Any, library: Any) -> None:
    producer, consumer = ends
    producer.send(frame_of(3))
    library.stop()
    made = consumer.receive().to_torch()
    parent = os.getpid()

    def child() -> None:
        assert watcher().pid == os.getpid() != parent
        assert watcher().begun == 0
        with FakeLibrary() as own, libraries.use_library("torch", own):
            copied = copy_to_device("torch", frame_of(4), None, None, None)
            wait_until(copies_are_over)
            assert np.array_equal(copied.memory, frame_of(4))

    in_child(child)
    assert watcher().begun - watcher().ended == 1
    library.go()
    wait_until(copies_are_over)
    assert np.array_equal(made.memory, frame_of(3))


# ---- libraries


def test_a_library_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise ImportError("No module named 'torch'")

    monkeypatch.setitem(libraries._KINDS, "torch", missing)
    monkeypatch.setattr(libraries, "_made", {})
    with pytest.raises(
        GpuUnavailable, match=r"PyTorch cannot be imported.*pip install"
    ):
        libraries.library("torch")
    with pytest.raises(ValueError, match="torch, cupy, jax"):
        libraries.library("tensorflow")


def test_pytorch_on_the_processor(ends: Any) -> None:
    pytest.importorskip("torch")
    producer, consumer = ends
    for k in range(8):  # twice round: nothing stays held
        producer.send(frame_of(k), timeout=10)
        with consumer.receive(timeout=10) as frame:
            made = frame.to_torch("cpu")
        assert np.array_equal(made.numpy(), frame_of(k))


def test_pytorch_without_a_gpu_says_so(ends: Any) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("a GPU is there")
    producer, consumer = ends
    producer.send(frame_of(0))
    with pytest.raises(GpuUnavailable, match=r"no device 'cuda'.*is_available"):
        consumer.receive().to_torch()


def test_jax_on_the_processor(ends: Any) -> None:
    import gpu_devices

    gpu_devices.jax_of_the_processor()
    producer, consumer = ends
    producer.send(frame_of(1))
    with consumer.receive() as frame:
        made = frame.to_jax("cpu")
    for k in range(2, 10):
        producer.send(frame_of(k), timeout=10)
        consumer.receive().release()
    assert np.array_equal(np.asarray(made), frame_of(1))


def test_cupy_without_a_gpu_says_so(ends: Any) -> None:
    pytest.importorskip("cupy")
    import gpu_devices

    if gpu_devices.has_gpu():
        pytest.skip("a GPU is there")
    producer, consumer = ends
    producer.send(frame_of(0))
    with pytest.raises(GpuUnavailable, match=r"CuPy .* has no device"):
        consumer.receive().to_cupy()
