"""What names of others cost: no listing where 'not found' is the expected answer."""

from __future__ import annotations

import os
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest

import ataraxis
from ataraxis import Consumer, MemQ, Producer, SharedMemoryArray
from ataraxis.errors import SegmentNotFound
from ataraxis.shm import files
from ataraxis.stream.inspector import Inspector


class Counted:
    """Counts calls of a function, which goes on to do what it did."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, where: object, name: str
    ) -> None:
        self.count, self._real = 0, getattr(where, name)
        monkeypatch.setattr(where, name, self)

    def __call__(self, *arguments: object, **options: object) -> object:
        self.count += 1
        return self._real(*arguments, **options)


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch, os, "listdir")


def test_making_and_attaching_lists_no_directory(listings: Counted) -> None:
    producer = Producer("camera", 64, 4)
    consumer = Consumer("camera")
    queue = MemQ("jobs", buffer_count=4, buffer_size=64)
    other = MemQ.attach("jobs")
    array = SharedMemoryArray.create_array("pose", np.zeros(3))
    assert ataraxis.attach("pose")[0] == 0
    for name in ("camer", "none"):
        with pytest.raises(SegmentNotFound):
            Inspector(name)
    assert listings.count == 0
    consumer.close()
    producer.unlink()
    other.close()
    queue.unlink()
    array.destroy()


def test_the_name_that_was_meant_is_looked_up_when_the_error_is_shown(
    listings: Counted,
) -> None:
    with Producer("camera", 64, 4) as producer:
        with pytest.raises(SegmentNotFound) as caught:
            Consumer("camrea")
        assert listings.count == 0
        assert "did you mean 'camera'?" in str(caught.value)
        assert listings.count == 1
        copy = pickle.loads(pickle.dumps(caught.value))
        assert "did you mean 'camera'?" in str(copy)
        producer.unlink()
    assert "there are 0 in it" in str(caught.value)
    assert "did you mean 'camera'?" in str(copy)


def test_a_missing_name_that_is_waited_for_is_looked_for_rarely(
    listings: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = Counted(monkeypatch, files, "find")
    with pytest.raises(TimeoutError, match="there are 0 in it"):
        Consumer("never", timeout=1.0)
    assert looks.count <= 8
    assert listings.count <= 1


def test_a_name_that_comes_is_seen_at_once(
    context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the directory's own notification: the next look would be far away."""
    monkeypatch.setattr(files, "_LOOK_S", 60.0)
    looked = threading.Event()
    real = files.find

    def find(*arguments: object) -> object:
        looked.set()
        return real(*arguments)

    monkeypatch.setattr(files, "find", find)
    made: list[Consumer] = []
    thread = threading.Thread(
        target=lambda: made.append(Consumer("late", timeout=None))
    )
    thread.start()
    assert looked.wait(10)
    producer = Producer("late", 64, 4)
    thread.join(20)
    assert not thread.is_alive()
    made[0].close()
    producer.unlink()
