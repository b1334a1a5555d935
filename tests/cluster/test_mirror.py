"""Mirrors between agents of two hosts: whole, in order, once, whatever breaks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from agents import Lab, lab
from deadline import wait_until

from ataraxis import Consumer, Producer
from ataraxis.cluster import Mirror


@pytest.fixture
def rig() -> Iterator[Lab]:
    with lab() as made:
        yield made


def send(producer: Producer, frames: int, start: int = 0) -> None:
    for k in range(start, start + frames):
        producer.send(np.full(4, k, "i8"))


def read(consumer: Consumer, frames: int) -> list[int]:
    found = []
    for _ in range(frames):
        frame = consumer.receive(timeout=20)
        assert frame is not None
        with frame:
            found.append(int(frame.array[0]))
    return found


def source(rig: Lab, name: str = "camera", slots: int = 64) -> Producer:
    return Producer(
        name, shape=(4,), dtype="i8", buffer_count=slots, context=rig.contexts["acq"]
    )


def test_a_stream_is_here_whole_with_its_numbers_and_times(rig: Lab) -> None:
    there, here = rig.contexts["acq"], rig.contexts["gpu"]
    with source(rig) as producer:
        original = Consumer("camera", policy="lossless", context=there)
        with Mirror("camera", "acq", context=here) as mirror:
            reader = Consumer("camera", policy="lossless", context=here)
            thread = threading.Thread(target=send, args=(producer, 1000))
            thread.start()
            for k in range(1000):
                with reader.receive(timeout=20) as copy, original.receive() as frame:
                    assert int(copy.array[0]) == k
                    assert copy.sequence == frame.sequence
                    assert copy.time_ns == frame.time_ns
            thread.join()
            producer.end()
            assert reader.receive(timeout=20) is None
            assert mirror.wait(20).reason == "completed"
            found = mirror.statistics()
            assert (found.frames, found.lost, found.repeated) == (1000, 0, 0)
            reader.close(), original.close()
