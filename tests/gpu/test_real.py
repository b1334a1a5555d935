"""On a GPU: frames bit by bit through kills and forks, and nothing stays locked."""

from __future__ import annotations

import multiprocessing
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import gpu_devices
import numpy as np
import pytest
from deadline import wait_until
from gpu_rig import copies_are_over
from programs import Program

from ataraxis import Consumer, Producer

pytestmark = [pytest.mark.gpu, pytest.mark.slow]
SHAPE = (512, 1024)
KILLED = """
import time
from ataraxis import Consumer
with Consumer("s", policy="lossless", start="latest") as consumer, consumer.pin():
    print("ready", flush=True)
    made = [frame.to_torch() for frame in consumer]
"""
PRODUCER = """
import numpy as np
from ataraxis import Producer
producer = Producer("s", shape=(512, 1024), dtype="u1", buffer_count=8, resume=True)
first = producer.last_sent_iteration
for k in range(first, first + 1000):
    producer.send(np.random.default_rng(k).integers(0, 256, (512, 1024), "u1"))
"""


def frame_of(k: int) -> Any:
    return np.random.default_rng(k).integers(0, 256, SHAPE, "u1")


@pytest.fixture
def torch() -> Any:
    gpu_devices.need("torch")
    found = pytest.importorskip("torch")
    if not found.cuda.is_available():
        pytest.skip("PyTorch sees no GPU")
    return found


def locked_pages() -> int:
    """Return the pages that long-term users of this machine hold."""
    text = Path("/proc/vmstat").read_text()
    found = {name: int(n) for name, n in re.findall(r"(nr_foll_pin_\w+) (\d+)", text)}
    return found["nr_foll_pin_acquired"] - found["nr_foll_pin_released"]


def test_a_thousand_frames_through_kills_and_a_fork(torch: Any) -> None:
    before = locked_pages()
    with Producer("s", shape=SHAPE, dtype="u1", buffer_count=8) as producer:
        consumer = Consumer("s", policy="lossless")
        pin = consumer.pin()
        made: dict[int, Any] = {}

        def send() -> None:
            for k in range(1000):
                producer.send(frame_of(k), timeout=120)

        thread = threading.Thread(target=send)
        with Program(KILLED) as program:
            program.expect("ready")
            thread.start()
            for k in range(1000):
                frame = consumer.receive(timeout=120)
                made[frame.sequence] = frame.to_torch()
                frame.release()
                if k == 300:
                    program.process.send_signal(signal.SIGKILL)
                if k == 600:
                    child = multiprocessing.get_context("fork").Process(target=int)
                    child.start()
                    child.join(60)
                    assert child.exitcode == 0
                if len(made) == 50:
                    check(made)
            check(made)
        thread.join(120)
        assert pin.is_pinned
        consumer.close()
        producer.unlink()
    wait_until(copies_are_over)
    wait_until(lambda: locked_pages() <= before, timeout=60)


def check(made: dict[int, Any]) -> None:
    for k, tensor in made.items():
        assert np.array_equal(tensor.cpu().numpy(), frame_of(k)), k
    made.clear()


def test_a_producer_is_killed_and_started_again(torch: Any) -> None:
    for _ in range(3):
        with Program(PRODUCER) as program:
            consumer = Consumer("s", policy="lossless", timeout=60)
            with consumer, consumer.pin():
                for _k in range(50):
                    frame = consumer.receive(timeout=60)
                    number, tensor = frame.sequence, frame.to_torch()
                    frame.release()
                    assert np.array_equal(tensor.cpu().numpy(), frame_of(number))
            program.process.kill()
            program.process.wait(30)
    Producer("s", shape=SHAPE, dtype="u1", buffer_count=8, resume=True).unlink()


def test_the_driver_forgets_the_pages(torch: Any) -> None:
    from ataraxis.gpu.drivers import NOT_REGISTERED, DriverError, driver_for

    with Producer("s", shape=SHAPE, dtype="u1", buffer_count=8) as producer:
        address = producer._attached().mapping.address
        with producer.pin():
            assert driver_for("a test").device_address(address)
        with pytest.raises(DriverError) as error:
            driver_for("a test").unregister(address)
        assert error.value.code == NOT_REGISTERED


def test_a_batch_and_the_way_back(torch: Any) -> None:
    with (
        Producer("s", shape=SHAPE, dtype="u1", buffer_count=16) as producer,
        Consumer("s", policy="lossless") as consumer,
        Producer("back", shape=SHAPE, dtype="u1") as back,
        Consumer("back", policy="lossless") as reader,
        consumer.pin(),
        back.pin(),
    ):
        sender = threading.Thread(
            target=lambda: [producer.send(frame_of(k)) for k in range(64)]
        )
        sender.start()
        batches = consumer.batches(32, timeout=60)
        for turn in range(2):
            data, _ = next(batches)
            for row in range(0, 32, 8):
                back.send(data[row] + 1)
                found = reader.receive(timeout=60)
                assert np.array_equal(found.array, frame_of(32 * turn + row) + 1)
                found.release()
        sender.join(60)


def test_the_call_does_not_wait_for_the_copy(torch: Any) -> None:
    """A stream that is busy for long: the frame's copy is put behind it."""
    with (
        Producer("s", shape=SHAPE, dtype="u1", buffer_count=4) as producer,
        Consumer("s", policy="lossless") as consumer,
        consumer.pin(),
    ):
        producer.send(frame_of(0))
        warm = consumer.receive()
        warm.to_torch()
        warm.release()
        wait_until(copies_are_over)
        torch.cuda._sleep(2_000_000_000)  # cycles: about a second
        producer.send(frame_of(1))
        began = time.monotonic()
        frame = consumer.receive()
        tensor = frame.to_torch()
        frame.release()
        assert not copies_are_over(), f"after {time.monotonic() - began} s"
        assert np.array_equal(tensor.cpu().numpy(), frame_of(1))
        wait_until(copies_are_over)
