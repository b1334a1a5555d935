"""What a producer does, by itself and with consumers in the same process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from deadline import wait_until
from programs import Program, run

from ataraxis.errors import (
    CorruptFrame,
    DataOverflow,
    NotConnectedError,
    PutTimeout,
    QueueFull,
)
from ataraxis.stream import (
    AlreadySent,
    Consumer,
    Producer,
    ReleasedBuffer,
    StreamExists,
    StreamUnavailable,
)


@pytest.fixture
def stream() -> Iterator[Producer]:
    producer = Producer("s", 16, 4)
    yield producer
    producer.unlink()


def test_a_name_is_used_once_and_free_at_once(stream: Producer) -> None:
    with pytest.raises(StreamExists):
        Producer("s", 16, 4)
    stream.unlink()
    with pytest.raises(StreamUnavailable):
        Consumer("s")
    Producer(b"mx://s", 16, 4).unlink()


def test_write_buffer_is_a_file(stream: Producer) -> None:
    consumer = Consumer("s")
    buffer = stream.next_to_send()
    assert len(buffer[:]) == 16
    buffer.write(b"hello")
    buffer.seek(1)
    buffer.write(b"E")
    assert buffer.tell() == 2
    assert buffer.read() == b"hEllo"
    buffer[5] = 33
    buffer[6:9] = b"abc"
    buffer.send()
    with pytest.raises(AlreadySent):
        buffer.send()
    with pytest.raises(AlreadySent):
        buffer.write(b"x")
    with pytest.raises(ReleasedBuffer):
        buffer[0:2] = b"xx"
    assert consumer.receive().read() == b"hEllo!abc"


def test_nothing_of_earlier_frames_shows(stream: Producer) -> None:
    """Flaw 11: bytes that were not written are zeros."""
    consumer = Consumer("s")
    for _ in range(4):
        stream.send(b"SECRETSECRETSECR")
        consumer.receive()
    buffer = stream.next_to_send()
    buffer[12] = 65
    buffer.send()
    assert consumer.receive()[:] == bytes(12) + b"A"
    buffer = stream.next_to_send()
    buffer.write(b"ab")
    buffer.send(5)
    assert consumer.receive()[:] == b"ab\0\0\0"


def test_filling_the_memory_sends_all_of_it(stream: Producer) -> None:
    """Flaw 13: and not an empty message."""
    consumer = Consumer("s")
    buffer = stream.next_to_send()
    array = np.frombuffer(buffer, "u1")
    array[:] = 7
    buffer.send()
    assert consumer.receive().read() == bytes([7]) * 16


def test_what_does_not_fit_is_refused(stream: Producer) -> None:
    """Flaws 15, 16: nothing is written outside the slot."""
    consumer = Consumer("s")
    buffer = stream.next_to_send()
    with pytest.raises(DataOverflow):
        buffer.write(bytes(17))
    with pytest.raises(DataOverflow):
        buffer[0:3] = b"ABCDEFGH"
    with pytest.raises(ValueError, match="outside"):
        buffer.seek(2**64 - 16)
    with pytest.raises(DataOverflow):
        buffer.send(17)
    with pytest.raises(DataOverflow):
        stream.send(bytes(17))
    buffer = stream.next_to_send()
    buffer[::2] = bytes(range(8))
    assert buffer[14::-2] == bytes(range(7, -1, -1))
    assert buffer[:15:2] == bytes(range(8))
    buffer.send()
    assert len(consumer.receive()) == 15


def test_a_slot_that_was_not_sent_is_reused(stream: Producer) -> None:
    """Flaw 10: one slot, one number; the first buffer is over."""
    consumer = Consumer("s")
    first = stream.next_to_send()
    first.write(b"lost")
    second = stream.next_to_send()
    second.write(b"kept")
    second.send()
    with pytest.raises(ReleasedBuffer):
        first.send()
    assert consumer.receive().read() == b"kept"
    assert consumer.receive(blocking=False) is None


def test_an_exception_drops_the_frame() -> None:
    with Producer("s", shape=(2,), dtype="f4", buffer_count=4) as stream:
        consumer = Consumer("s", policy="lossless")
        with pytest.raises(ZeroDivisionError), stream.next_to_send() as frame:
            frame.array[:] = 1 / 0
        with stream.next_to_send() as frame:
            frame.array[:] = 1
        got = consumer.receive()
        assert got.sequence == 0
        assert got.array.tolist() == [1, 1]
        view = frame.array if False else None
        assert view is None
        stream.unlink()


@pytest.mark.parametrize("on_full", ["raise", "drop_newest", "block"])
def test_full(on_full: str) -> None:
    stream = Producer("s", 8, 2, on_full=on_full)
    consumer = Consumer("s", policy="lossless")
    stream.send(b"1")
    stream.send(b"2")
    if on_full == "raise":
        with pytest.raises(QueueFull):
            stream.send(b"3")
    elif on_full == "drop_newest":
        assert not stream.send(b"3")
        assert stream.statistics().refused == 1
    else:
        with pytest.raises(TimeoutError):
            stream.send(b"3", timeout=0.01)
    assert stream.next_to_send(blocking=False) is None
    assert consumer.receive().read() == b"1"
    assert stream.send(b"3")
    stream.unlink()


def test_cancel_event_ends_a_wait() -> None:
    event = threading.Event()
    stream = Producer("s", 8, 1, True, event)
    consumer = Consumer("s")
    stream.send(b"1")
    threading.Timer(0.05, event.set).start()
    assert stream.next_to_send() is None
    assert consumer.receive().read() == b"1"
    stream.unlink()


def test_device_stamps_and_gaps() -> None:
    stream = Producer("s", shape=(), dtype="i8", buffer_count=8)
    consumer = Consumer("s")
    stream.send(1, device_time=-5, device_sequence=10)
    stream.send(2, device_time=2**63, device_sequence=13)
    stream.send(3)
    first, second, third = (consumer.receive() for _ in range(3))
    assert (first.device_time, first.device_sequence) == (-5, 10)
    assert second.device_time == 2**63
    assert third.device_time is None
    assert int(second.array) == 2
    assert stream.statistics().device_gaps == 2
    stream.unlink()


def test_blocks_and_labels() -> None:
    stream = Producer(
        "s", shape=(3,), dtype="f4", buffer_count=64, dims=("channel",),
        coords={"channel": list("abc")}, attrs={"rate_hz": 1000, "units": "mV"},
    )  # fmt: skip
    consumer = Consumer("s", policy="lossless")
    block = np.arange(60, dtype="f4").reshape(20, 3)
    assert stream.send_block(block, time_ns=1000, step_ns=1_000_000) == 20
    recent = consumer.to_xarray(0.005)
    assert recent.dims == ("time", "channel")
    assert recent.coords["channel"].values.tolist() == list("abc")
    np.testing.assert_array_equal(recent.values, block[-5:])
    assert np.diff(recent.time.values).tolist() == [1_000_000] * 4
    np.testing.assert_array_equal(consumer.read(12), block[:12])
    frame = consumer.receive()
    assert frame.to_xarray().dims == ("channel",)
    np.testing.assert_array_equal(frame.array, block[12])
    stream.end()
    np.testing.assert_array_equal(consumer.read(100), block[13:])
    with pytest.raises(EOFError):
        consumer.read(1)
    del frame
    stream.close()


def test_rows_of_a_block_have_their_own_stamps() -> None:
    stream = Producer("s", shape=(), dtype="i4", buffer_count=8)
    consumer = Consumer("s", policy="lossless")
    times = np.arange(5) * 7 + 100
    times.flags.writeable = False
    device = np.stack([times * 10 - 2000, [0, 1, 4, 5, 6]], axis=1)
    assert (
        stream.send_block(np.arange(5, dtype="i4"), time_ns=times, device=device) == 5
    )
    got = [consumer.receive() for _ in range(5)]
    assert [f.time_ns for f in got] == times.tolist()
    assert [[f.device_time, f.device_sequence] for f in got] == device.tolist()
    assert stream.statistics().device_gaps == 2
    with pytest.raises(ValueError, match="device has shape"):
        stream.send_block(np.zeros(3, "i4"), device=device)
    with pytest.raises(ValueError, match="time_ns has shape"):
        stream.send_block(np.zeros(3, "i4"), time_ns=times)
    assert (
        stream.send_block(np.zeros(0, "i4"), time_ns=times[:0], device=device[:0]) == 0
    )
    del got
    # `count` is how many rows were sent in time.
    with pytest.raises(PutTimeout) as error:
        stream.send_block(np.arange(12, dtype="i4"), timeout=0.01)
    assert error.value.count == 8
    stream.unlink()


def test_after_the_end_nothing_is_sent(stream: Producer) -> None:
    stream.end()
    with pytest.raises(NotConnectedError):
        stream.send(b"x")


def test_a_forked_child_ends_nothing() -> None:
    """Flaw 6: its copies are inert."""
    code = """
    import os
    from ataraxis.stream import Consumer, Producer
    stream = Producer("s", 8, 4)
    consumer = Consumer("s", policy="lossless")
    pid = os.fork()
    if pid == 0:
        try:
            stream.send(b"x")
        except ConnectionError:
            del stream, consumer
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert stream.send(b"1")
    assert consumer.receive().read() == b"1"
    assert stream.subscriber_count == 1
    stream.unlink()
    """
    run(code)


def test_unlink_throws_away_what_a_durable_reader_was_promised(
    stream: Producer,
) -> None:
    consumer = Consumer("s", durable="recorder")
    stream.send(b"1")
    stream.unlink()
    with pytest.raises(StreamUnavailable):
        Consumer("s")
    assert consumer.receive().read() == b"1"
    consumer.close()


def test_a_killed_producer_is_not_stalled() -> None:
    stream = Producer("s", 8, 2, shared=True)
    consumer = Consumer("s", policy="lossless")
    code = """
    import warnings
    from ataraxis.stream import Producer
    warnings.simplefilter("ignore")
    stream = Producer("s", 8, 2, shared=True)
    print("here", flush=True)
    while True:
        stream.send(b"x")
    """
    with Program(code) as program:
        program.expect("here")
        wait_until(lambda: stream.statistics().is_stalled)
        program.process.send_signal(signal.SIGKILL)
        program.process.wait()
    assert stream.subscriber_count == 1  # looks for the dead
    assert not stream.statistics().is_stalled
    consumer.close()
    stream.unlink()


def frame_bytes(stream: Producer, text: bytes) -> memoryview:
    """The place of some bytes in the stream's memory."""
    memory = memoryview(stream._segment.mapping).cast("B")
    at = bytes(memory).index(text)
    return memory[at : at + len(text)]


@pytest.mark.parametrize("policy", ["lossless", "lossy", "latest"])
@pytest.mark.parametrize("shared", [False, True])
def test_checksums(policy: str, shared: bool) -> None:
    stream = Producer("s", 64, 8, checksum=True, shared=shared)
    plain = Consumer("s", policy=policy)
    watchful = Consumer("s", policy=policy, verify=True)
    stream.send(b"as it was sent", device_time=5, device_sequence=7)
    frame = plain.receive()
    assert frame.verify()
    assert frame._flags & 1
    assert watchful.receive().verify()
    for value in (b"", "text", np.arange(5)):
        stream.send(value)
        assert plain.receive().verify()
        assert watchful.receive().verify()
    with stream.next_to_send() as buffer:
        buffer.write(b"put together")
    assert plain.receive().verify()
    assert watchful.receive().read() == b"put together"
    for _ in range(8):  # a slot that a viewer pins, and one that it copies
        stream.send(b"changed later", device_time=1)
        frame_bytes(stream, b"changed later")[3] ^= 4
        with pytest.raises(CorruptFrame, match="after it was sent"):
            watchful.receive()
        frame = plain.receive()
        with pytest.raises(CorruptFrame, match=f"frame {frame.sequence}:"):
            frame.verify()
        del frame
    stream.send(b"whole again")
    assert watchful.receive().read() == b"whole again"
    assert watchful.dropped_count == 0
    plain.close()
    watchful.close()
    stream.unlink()


def test_a_run_passes_over_what_a_viewer_holds() -> None:
    """Every row arrives, in order; the slots of what is held stay as they are."""
    stream = Producer("s", shape=(2,), dtype="u8", buffer_count=64)
    gating = Consumer("s", policy="lossless")
    viewer = Consumer("s", policy="lossy")
    rows = np.repeat(np.arange(1000, dtype="u8"), 2).reshape(1000, 2)
    held, sent, seen = [], 0, 0
    while sent < len(rows):
        sent += stream.send_block(rows[sent : sent + 40])
        np.testing.assert_array_equal(gating.read(40), rows[sent - 40 : sent])
        while (frame := viewer.receive(blocking=False)) is not None:
            seen += 1
            # In the half of the ring that is pinned.
            if len(held) < 6 and frame.buffer_id % 8 == 1:
                held.append(frame)
    assert stream.statistics().skipped >= len(held) > 1
    assert stream.statistics().sent == 1000
    for frame in held:
        assert frame.array[0] == frame.array[1] == frame.sequence
    assert seen + viewer.dropped_count == 1000
    assert gating.dropped_count == 0
    del frame, held
    stream.unlink()


def test_runs_take_the_pin_of_a_dead_viewer_away() -> None:
    """No process waits or checks who lives, except the producer that passes over it."""
    stream = Producer("s", shape=(2,), dtype="u8", buffer_count=64)
    rows = np.zeros((64, 2), "u8")
    code = """
    import time
    from ataraxis.stream import Consumer
    viewer = Consumer("s", policy="lossy")
    frames = [frame for frame in (viewer.receive() for _ in range(64))]
    print("held", flush=True)
    time.sleep(60)
    """
    with Program(code) as program:
        wait_until(lambda: stream.subscriber_count == 1)
        stream.send_block(rows)
        program.expect("held")
        stream.send_block(rows)
        assert stream.statistics().skipped > 20

    def skips_nothing() -> bool:
        skipped = stream.statistics().skipped
        stream.send_block(rows)
        return stream.statistics().skipped == skipped

    wait_until(skips_nothing)
    stream.unlink()


def test_checksums_of_blocks() -> None:
    stream = Producer("s", shape=(3,), dtype="i4", buffer_count=8, checksum=True)
    consumer = Consumer("s", policy="lossless", verify=True)
    block = np.arange(18, dtype="i4").reshape(6, 3)
    assert stream.send_block(block) == 6
    np.testing.assert_array_equal(consumer.read(4), block[:4])
    frame_bytes(stream, block[5].tobytes())[0] ^= 1
    assert consumer.receive().verify()
    with pytest.raises(CorruptFrame):
        consumer.read(1)
    with stream.next_to_send() as buffer:
        buffer.array[:] = 7
    np.testing.assert_array_equal(consumer.read(1), [[7] * 3])
    consumer.close()
    stream.unlink()


def test_without_checksums_there_is_nothing_to_verify(stream: Producer) -> None:
    consumer = Consumer("s", verify=True)
    stream.send(b"x")
    assert not consumer.receive().verify()


def test_sequences_of_a_shared_stream_go_up_and_may_have_gaps() -> None:
    """A dropped frame takes its number with it; a gating reader has dropped nothing."""
    first, second = (Producer("s", 8, 8, shared=True) for _ in range(2))
    consumer = Consumer("s", policy="lossless")
    first.send(b"0")
    with pytest.raises(KeyError), first.next_to_send() as buffer:
        raise KeyError(buffer.sequence)
    second.send(b"2")
    first.send(b"3")
    got = [consumer.receive(timeout=5) for _ in range(3)]
    assert [frame.sequence for frame in got] == [0, 2, 3]
    assert [frame.read() for frame in got] == [b"0", b"2", b"3"]
    assert (consumer.received_count, consumer.dropped_count) == (3, 0)
    assert first.statistics().sent == 3
    del got
    consumer.close()
    second.close()
    first.unlink()


@pytest.mark.parametrize("free", [1, 3])
def test_a_look_whether_there_is_room_costs_none(free: int) -> None:
    """A slot that was requested and dropped is reused, also the last free one."""
    with Producer("looked", 8, 4) as producer:
        reader = Consumer("looked", policy="lossless")
        for k in range(4 - free):
            producer.send(bytes([k]))
        for k in range(4 - free, 4):
            for _ in range(10):
                assert producer.next_to_send(blocking=False) is not None
            assert producer.send(bytes([k]), timeout=0)
        assert producer.next_to_send(blocking=False) is None
        got = [reader.receive().read() for _ in range(4)]
        assert got == [b"\0", b"\1", b"\2", b"\3"]
        assert producer.statistics().skipped == 0
        reader.close()
