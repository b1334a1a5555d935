"""One behaviour, written once, over everything that sends and receives frames."""

from __future__ import annotations

import queue
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from deadline import wait_until
from programs import Program
from remote_rig import served

from ataraxis import Consumer, FrameBufferClient, FrameBufferServer, Producer
from ataraxis.datamux import Mirror
from ataraxis.datamux.source import STAMP
from ataraxis.datamux.sources.shared import SharedSource
from ataraxis.errors import EndOfStream, FrameBufferTimeout
from ataraxis.testing.streams import StreamContract

MORTAL = """
import sys, time
import numpy as np
from ataraxis import Producer
stream = Producer("mortal", shape=(2, 3), dtype="i4", buffer_count=16)
for k in range(3):
    stream.send(np.full((2, 3), k, "i4"))
print("sent", flush=True)
time.sleep(60)
"""


class Lossless(StreamContract):
    """A producer and whatever `open` makes of its stream."""

    def open(self, name: str) -> Any:
        return Consumer(name, policy=self.policy)

    @contextmanager
    def make(self, **options: Any) -> Iterator[tuple[Any, Any]]:
        with Producer("s", **options) as producer, self.open("s") as consumer:
            yield producer, consumer
            producer.unlink()

    @contextmanager
    def make_mortal(self) -> Iterator[tuple[Callable[[], object], Any]]:
        with Program(MORTAL) as program:
            program.expect("sent")
            with self.open("mortal") as consumer:
                yield program.process.kill, consumer


class TestLossless(Lossless):
    def test_rows_end_with_an_error(self) -> None:
        """`read` gives what was sent, less than asked for, then `EndOfStream`."""
        with self.pair() as (producer, consumer):
            producer.send(self.frame(0))
            producer.end()
            np.testing.assert_array_equal(consumer.read(9), [self.frame(0)])
            with pytest.raises(EndOfStream):
                consumer.read(1)


class TestLossy(Lossless):
    policy = "lossy"


class TestLatest(Lossless):
    policy = "latest"


class Rows:
    """A source of DataMux as a consumer: each row is a frame, a copy."""

    def __init__(self, source: SharedSource) -> None:
        self.source = source
        source.open()
        self.received_count = 0

    @property
    def labels(self) -> Any:
        return self.source.labels

    @property
    def dropped_count(self) -> int:
        return self.source.lost

    def receive(self, timeout: float) -> Any:
        row = np.empty((1, *self.labels.shape), self.labels.dtype)
        stamps = np.zeros(1, STAMP)
        if not self.source.read_into(row, stamps, timeout=timeout):
            raise TimeoutError
        self.received_count += 1
        return SimpleNamespace(
            array=row[0],
            time_ns=int(stamps["time_ns"][0]),
            device_time=round(float(stamps["device_s"][0]) * 1e9),
            device_sequence=int(stamps["device_sequence"][0]),
            release=lambda: None,
        )

    def __enter__(self) -> Rows:
        return self

    def __exit__(self, *exc: object) -> None:
        self.source.close()


class TestSharedSource(Lossless):
    gives_views = False
    has_samples = False

    def open(self, name: str) -> Any:
        return Rows(SharedSource(name, self.policy))


class TestSharedSourceLossy(TestSharedSource):
    policy = "lossy"


@pytest.mark.filterwarnings("ignore:the mirror of .* loses frames")
class TestMirror(Lossless):
    """Through a server, into a context of its own."""

    is_bounded = False  # what is on its way has left the ring
    has_samples = False  # its times are of the arrival here, its blocks of one length

    @contextmanager
    def mirror(self, name: str) -> Iterator[Any]:
        with (
            tempfile.TemporaryDirectory(dir="/dev/shm") as here,
            served(Path(here)) as server,
            Mirror(f"ws://127.0.0.1:{server.port}", name, "here", context=here),
            Consumer("here", context=here, policy="lossless") as consumer,
        ):
            yield consumer

    @contextmanager
    def make(self, **options: Any) -> Iterator[tuple[Any, Any]]:
        with Producer("s", **options) as producer, self.mirror("s") as consumer:
            wait_until(lambda: producer.subscriber_count == 1)
            yield producer, consumer
            producer.unlink()

    def open(self, name: str) -> Any:
        return self.mirror(name)


class Tickets:
    """A frame buffer as a stream: tickets travel through a queue."""

    def __init__(self, client: FrameBufferClient, labels: dict[str, Any]) -> None:
        self.client, self.options = client, labels
        self.tickets: queue.Queue[Any] = queue.Queue()
        self.labels: Any = None
        self.received_count = self.dropped_count = self.sent = 0

    def send(self, array: Any, **stamps: Any) -> None:
        self.tickets.put(self.client.put(array, **self.options))
        self.sent += 1

    def end(self) -> None:
        self.tickets.put(None)

    def statistics(self) -> Any:
        return SimpleNamespace(sent=self.client.statistics().chunks)

    def receive(self, timeout: float) -> Any:
        while True:
            try:
                ticket = self.tickets.get(timeout=timeout)
            except queue.Empty:
                raise TimeoutError from None
            if ticket is None:
                self.end()
                return None
            try:
                array = self.client.get(ticket)
            except FrameBufferTimeout:
                self.dropped_count += 1
                continue
            self.labels = ticket.meaning
            self.received_count += 1
            return SimpleNamespace(array=array, release=lambda: None)


class TestFrameBuffer(StreamContract):
    """Slots of 64 bytes: the ring overtakes a reader that is slow."""

    policy = "lossy"
    gives_views = False
    has_stamps = False
    has_samples = False

    @contextmanager
    def make(self, **options: Any) -> Iterator[tuple[Any, Any]]:
        size = 64 * options.pop("buffer_count")
        labels = {key: options[key] for key in ("dims", "coords", "attrs")}
        key = str(uuid.uuid4())
        with FrameBufferServer(key, size), FrameBufferClient(key) as client:
            both = Tickets(client, labels)
            yield both, both

    def make_mortal(self) -> None:
        return None
