"""What a consumer receives, under every policy, and when its producer goes."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deadline import wait_until
from programs import Program, run

from ataraxis import attach
from ataraxis._kernels import snapshot
from ataraxis.errors import NotConnectedError
from ataraxis.shm import waiting
from ataraxis.stream import (
    Consumer,
    Producer,
    ReleasedBuffer,
    StreamExists,
    StreamUnavailable,
    endpoint,
    wait_for_stream,
)


@pytest.fixture
def stream() -> Iterator[Producer]:
    producer = Producer("s", 64, 3)
    yield producer
    producer.unlink()


def test_a_missing_stream_is_an_error() -> None:
    with pytest.raises(StreamUnavailable):
        Consumer("s")
    with pytest.raises(TimeoutError):
        Consumer("s", timeout=0.01)


def test_a_slow_lossy_reader_resumes_where_momentumx_does(stream: Producer) -> None:
    consumer = Consumer("s")
    stream.send(b"1")
    assert consumer.receive().read() == b"1"
    for k in range(2, 7):
        stream.send(str(k).encode())
    assert consumer.receive().read() == b"5"
    assert consumer.dropped_count == 3
    assert consumer.receive().read() == b"6"
    assert consumer.receive(blocking=False) is None


def test_a_late_joiner_begins_with_the_oldest_and_lost_nothing(
    stream: Producer,
) -> None:
    """Flaw 14: `dropped_count` counts from when it joined."""
    for k in range(1000):
        stream.send(str(k).encode())
    for policy in ("lossless", "lossy"):
        late = Consumer("s", policy=policy)
        assert [late.receive().read() for _ in range(3)] == [b"997", b"998", b"999"]
        assert late.dropped_count == 0
        late.close()
    late = Consumer("s", start="latest")
    stream.send(b"next")
    assert late.receive().read() == b"next"
    assert Consumer("s", policy="latest").receive().read() == b"next"


@pytest.mark.parametrize("policy", ["lossless", "lossy", "latest"])
def test_views_stay_whole_while_they_live(policy: str) -> None:
    """Flaw 12: a view of a released frame keeps its frame."""
    stream = Producer("s", shape=(8,), dtype="u4", buffer_count=6)
    consumer = Consumer("s", policy=policy)
    held = []
    for k in range(4):
        stream.send(np.full(8, k, "u4"))
        frame = consumer.receive()
        held.append((k, frame.array))
        frame.release()
        with pytest.raises(ReleasedBuffer):
            frame.read()
    assert not held[0][1].flags.writeable
    for k in range(100):
        stream.next_to_send(blocking=False)
        if policy != "lossless":
            stream.send(np.full(8, 100 + k, "u4"))
    for k, array in held:
        assert array.tolist() == [k] * 8
    consumer.close()
    assert held[3][1].tolist() == [3] * 8
    del held, array, frame
    gc.collect()
    stream.unlink()


def test_unread_data_outlives_the_producer() -> None:
    stream = Producer("s", 8, 4)
    early = Consumer("s", policy="lossless")
    for k in range(3):
        stream.send(str(k).encode())
    stream.close()
    late = Consumer("s")
    for consumer in (early, late):
        got = []
        while consumer.is_alive:
            b = consumer.receive()
            got.append(b[: b.data_size])
        assert got == [b"0", b"1", b"2"]
        assert consumer.receive() is None
        assert not consumer.has_next
        consumer.close()
    with pytest.raises(StreamUnavailable):
        Consumer("s")


def test_empty_frames_and_strings(stream: Producer) -> None:
    consumer = attach("s")
    stream.send(b"")
    stream.send_string("über")
    stream.send(2.5)
    assert consumer.receive().read() == b""
    assert consumer.receive_string() == "über"
    assert consumer.receive().value == 2.5


def test_a_killed_producer_is_noticed() -> None:
    """Flaws 1, 2: readers get all that was sent; the name is free."""
    code = """
    import time
    from ataraxis.stream import Producer
    stream = Producer("s", 8, 4, True)
    stream.wait_for_subscribers(1, 20)
    stream.send(b"1"); stream.send(b"2")
    print("sent", flush=True)
    buffer = stream.next_to_send(); buffer.write(b"half")
    time.sleep(60)
    """
    with Program(code) as program:
        consumer = Consumer("s", timeout=20)
        program.expect("sent")
        program.process.send_signal(signal.SIGKILL)
        began = time.monotonic()
        assert [f.read() for f in consumer] == [b"1", b"2"]
        assert time.monotonic() - began < 2
        Producer("s", 8, 4).unlink()
        assert consumer.is_ended
        consumer.close()


def test_ctrl_c_ends_a_blocked_receive() -> None:
    """Flaw 7: without a `cancel_event`."""
    code = """
    from ataraxis.stream import Consumer, Producer
    stream = Producer("s", 8, 4)
    consumer = Consumer("s")
    print("ready", flush=True)
    try:
        consumer.receive()
    except KeyboardInterrupt:
        print("interrupted")
    stream.unlink()
    """
    with Program(code) as program:
        program.expect("ready")
        program.wait_until_asleep()
        program.process.send_signal(signal.SIGINT)
        assert program.succeed(5) == "interrupted\n"


def test_an_idle_reader_costs_nothing() -> None:
    """It wakes a few times; what a wake-up costs is the machine's affair."""
    code = """
    import resource
    from ataraxis.stream import Consumer, Producer
    stream = Producer("s", 8, 4)
    consumer = Consumer("s")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    try:
        consumer.receive(timeout=2)
    except TimeoutError:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before)
    stream.unlink()
    """
    with Program(code) as program:
        assert int(program.succeed()) < 30


def test_closing_ends_another_threads_wait(stream: Producer) -> None:
    consumer = Consumer("s")
    outcome: list[BaseException] = []

    def wait() -> None:
        try:
            consumer.receive()
        except NotConnectedError as error:
            outcome.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.05)
    consumer.close()
    thread.join(5)
    assert outcome


def test_frames_dropped_by_another_thread_make_room() -> None:
    stream = Producer("s", 8, 2)
    consumer = Consumer("s", policy="lossless")
    frames = []
    thread = threading.Thread(
        target=lambda: frames.extend(consumer.receive() for _ in range(3))
    )
    stream.send(b"1")
    stream.send(b"2")
    thread.start()
    wait_until(lambda: consumer._words[3] == 2)
    time.sleep(0.02)
    held = [consumer]
    del held
    thread2 = threading.Thread(target=lambda: stream.send(b"3", timeout=5))
    thread2.start()
    time.sleep(0.02)
    frames and frames.clear()
    thread2.join(6)
    thread.join(6)
    assert not thread.is_alive()
    frames.clear()
    stream.unlink()


def test_async_iteration() -> None:
    stream = Producer("s", 8, 64)
    consumers = [Consumer("s", policy="lossless") for _ in range(2)]

    async def collect(consumer: Consumer) -> list[bytes]:
        return [frame.read() async for frame in consumer]

    async def main() -> list[list[bytes]]:
        tasks = [asyncio.create_task(collect(c)) for c in consumers]
        for k in range(5):
            await asyncio.sleep(0.005)
            stream.send(str(k).encode())
        stream.end()
        return await asyncio.gather(*tasks)

    expected = [b"0", b"1", b"2", b"3", b"4"]
    assert asyncio.run(main()) == [expected, expected]
    for consumer in consumers:
        consumer.close()
    stream.close()


def test_several_that_wait_sleep_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread sleeps for all of them; no task polls."""
    streams = [Producer(f"s{k}", 8, 4) for k in range(3)]
    consumers = [Consumer(f"s{k}") for k in range(3)]
    sleeps = []
    sleep = waiting._System.sleep

    def counted(self: Any, waits: Any, seconds: float) -> None:
        sleeps.append(len(waits))
        sleep(self, waits, seconds)

    monkeypatch.setattr(waiting._System, "sleep", counted)

    async def main() -> list[bytes]:
        tasks = [asyncio.create_task(c.receive_async()) for c in consumers]
        await asyncio.sleep(1)
        for k in (1, 0, 2):
            streams[k].send(str(k).encode())
            await asyncio.wait_for(tasks[k], 10)
        return [frame.read() for frame in await asyncio.gather(*tasks)]

    assert asyncio.run(main()) == [b"0", b"1", b"2"]
    assert max(sleeps) == 4  # and the bell
    assert len(sleeps) < 100  # looking every 2 ms is 500 and more
    for stream, consumer in zip(streams, consumers, strict=True):
        consumer.close()
        stream.close()


def test_a_durable_reader_comes_back(stream: Producer) -> None:
    code = """
    from ataraxis.stream import Consumer
    consumer = Consumer("s", durable="recorder", timeout=10)
    print("here", flush=True)
    frame = consumer.receive()
    print("one", flush=True)
    input()
    """
    with Program(code) as program:
        program.expect("here")
        stream.send(b"1")
        program.expect("one")
        program.process.send_signal(signal.SIGKILL)
        program.process.wait()
    stream.send(b"2")
    stream.send(b"3")
    with pytest.raises(TimeoutError):
        stream.send(b"4", timeout=0.1)
    assert stream.statistics().detached == ("recorder",)
    stream.end()
    stream.close()
    again = Consumer("s", durable="recorder")
    assert [f.read() for f in again] == [b"1", b"2", b"3"]
    again.close()


def test_a_read_longer_than_the_ring_does_not_stall() -> None:
    stream = Producer("s", shape=(4,), dtype="u8", buffer_count=4)
    consumer = Consumer("s", policy="lossless")
    rows = np.arange(2000, dtype="u8").reshape(500, 4)
    thread = threading.Thread(target=lambda: stream.send_block(rows, timeout=20))
    began = time.monotonic()
    thread.start()
    np.testing.assert_array_equal(consumer.read(500), rows)
    thread.join()
    assert time.monotonic() - began < 3
    stream.unlink()


@pytest.mark.parametrize("is_ended", [True, False])
def test_a_reader_of_every_frame_leaves_no_name(is_ended: bool) -> None:
    stream = Producer("s", 8, 4)
    consumer = Consumer("s", policy="lossless")
    stream.send(b"1")
    stream.send(b"2")
    if is_ended:
        stream.close()
    frames = [consumer.receive(), consumer.receive()]
    consumer.close()
    stream.close()
    assert [frame.read() for frame in frames] == [b"1", b"2"]
    with pytest.raises(StreamUnavailable):
        Consumer("s")


@pytest.mark.parametrize("leave", ["", "del stream, viewer", "del viewer, stream"])
def test_a_program_that_closes_nothing_leaves_no_name(
    leave: str, context: Path
) -> None:
    code = f"""
    from ataraxis import Consumer, Producer
    stream = Producer("s", shape=(3,), dtype="u1")
    viewer = Consumer("s", policy="latest")
    stream.send(b"123")
    assert viewer.receive().nbytes == 3
    {leave}
    """
    run(code)
    assert list(context.iterdir()) == []


def test_a_durable_name_outlives_a_program_that_does_not_give_it_up() -> None:
    stream = Producer("s", 8, 4)
    run('from ataraxis import Consumer; recorder = Consumer("s", durable="r")')
    stream.send(b"1")
    stream.close()
    with Consumer("s", durable="r") as recorder:
        assert [frame.read() for frame in recorder] == [b"1"]


def test_a_reader_that_left_early_leaves_the_name() -> None:
    stream = Producer("s", 8, 4)
    consumer = Consumer("s", policy="lossless")
    idle = Consumer("s", start="latest")
    stream.send(b"1")
    stream.send(b"2")
    stream.close()
    assert consumer.receive().read() == b"1"
    assert consumer.is_alive  # looks at the next frame, and does not receive it
    consumer.close()
    idle.close()
    late = Consumer("s")
    assert [frame.read() for frame in late] == [b"1", b"2"]
    late.close()


def test_wait_for_stream() -> None:
    with pytest.raises(TimeoutError):
        wait_for_stream("s", 0.05)
    made = []
    timer = threading.Timer(0.1, lambda: made.append(Producer("s", 8, 4)))
    timer.start()
    wait_for_stream(b"mx://s", 20)
    timer.join()
    made[0].unlink()


def test_a_registration_while_the_name_goes_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A durable reader is promised nothing by a stream that has lost its name."""
    old = Producer("s", 8, 4)
    old.send(b"1")
    old.close()
    asked, outcome = threading.Event(), []
    keep, register = snapshot.keep, snapshot.register_durable

    def late() -> None:
        try:
            Consumer("s", durable="late")
        except StreamUnavailable as error:
            outcome.append(str(error))

    def register_late(*arguments: Any) -> Any:
        asked.set()
        return register(*arguments)

    def keep_and_wait(*arguments: Any) -> None:
        keep(*arguments)
        thread.start()
        assert asked.wait(10)

    thread = threading.Thread(target=late)
    with monkeypatch.context() as patch:
        patch.setattr(snapshot, "register_durable", register_late)
        patch.setattr(snapshot, "keep", keep_and_wait)
        new = Producer("s", 8, 4)
    thread.join(10)
    assert outcome
    assert "taken away" in outcome[0]
    with Consumer("s", durable="late") as reader:
        new.send(b"2")
        assert reader.receive().read() == b"2"
    new.unlink()


def test_a_registered_reader_without_a_cursor_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Registered, and not yet with a cursor: the name is not taken from it."""
    old = Producer("s", 8, 4)
    old.send(b"1")
    old.close()
    opened = Consumer._open
    refused: list[str] = []

    def open_late(*arguments: Any) -> bool:
        with pytest.raises(StreamExists) as caught:
            Producer("s", 8, 4)
        refused.append(str(caught.value))
        return opened(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(endpoint, "DURABLE_WAIT_S", 0.05)
        patch.setattr(Consumer, "_open", open_late)
        reader = Consumer("s", durable="recorder")
    assert "'recorder'" in refused[0]
    assert [frame.read() for frame in reader] == [b"1"]
    reader.close()
