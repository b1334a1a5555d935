"""Streams of blocks: what is sent as blocks is read as samples, with their times."""

from __future__ import annotations

import signal
import threading
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import examples
from programs import Program

from ataraxis.errors import CorruptFrame, DataOverflow, EndOfStream, NotConnectedError
from ataraxis.stream import Consumer, Producer, SampleBlock

MS = 1_000_000


def daq(length: int = 4, slots: int = 8, **options: Any) -> Producer:
    """A stream of blocks of two channels, whose stamps are of the first sample."""
    attrs = {"sample_rate_hz": 1000, "stamp_of": "sample", **options.pop("attrs", {})}
    return Producer(
        "s", shape=(length, 2), dtype="i4", buffer_count=slots, attrs=attrs,
        dims=("time", "channel"), coords={"channel": ["a", "b"]}, **options,
    )  # fmt: skip


def rows(first: int, stop: int) -> np.ndarray:
    """Samples `first` to `stop`: sample k is k and -k."""
    k = np.arange(first, stop, dtype="i4")
    return np.stack([k, -k], axis=1)


def send(stream: Producer, first: int, stop: int) -> None:
    """Send samples, one a millisecond."""
    assert stream.send(rows(first, stop), time_ns=first * MS)


def check(block: SampleBlock, first: int, stop: int) -> None:
    """Compare a block of `daq` with the samples that it should hold."""
    np.testing.assert_array_equal(block.data, rows(first, stop))
    np.testing.assert_array_equal(block.time_ns, np.arange(first, stop) * MS)
    assert block.time_ns.dtype == np.int64
    assert len(block) == stop - first


# ---- what a producer takes


def test_blocks_of_any_length_keep_their_labels() -> None:
    with daq() as stream, Consumer("s", policy="lossless") as reader:
        for n in (4, 3, 1, 0):
            assert stream.send(rows(0, n), time_ns=0)
            with reader.receive() as frame:
                assert frame.array.shape == (n, 2)
                assert frame.array.dtype == "i4"
                found = frame.to_xarray()
            assert found.dims == ("time", "channel")
            assert found.channel.values.tolist() == ["a", "b"]
            assert found.time.values.tolist() == [k * MS for k in range(n)]
            assert found.attrs["sample_rate_hz"] == 1000
        stream.unlink()


@pytest.mark.parametrize("dtype", ["i4", ">i2", "M8[us]", [("t", "<f4"), ("n", "u1")]])
def test_blocks_of_any_dtype(dtype: Any) -> None:
    attrs = {"rate_hz": 1000}
    options = {"shape": (4,), "dtype": dtype, "dims": ["time"], "attrs": attrs}
    sent = np.zeros(7, dtype)
    sent.view("u1")[:] = np.arange(sent.nbytes) % 2
    with Producer("s", **options) as stream, Consumer("s") as reader:
        assert stream.send(sent[:4])
        assert stream.send(sent[4:])
        block = reader.read_block(7)
        assert block.data.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(block.data, sent)
        stream.unlink()


@pytest.mark.parametrize(
    "shape", [(4, 3), (4,), (), (4, 2, 1), (2, 4), (4, 0)], ids=str
)
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with daq() as stream:
        array = np.zeros(shape, "i4")
        for value in (array, array.tolist() if array.size else array):
            with pytest.raises(ValueError, match="only the number of samples"):
                stream.send(value)
        assert stream.statistics().sent == 0
        stream.unlink()


def test_a_longer_block_is_refused() -> None:
    with daq(buffer_size=1000) as stream:
        with pytest.raises(DataOverflow, match="at most 4 samples, got 5"):
            stream.send(rows(0, 5))
        with pytest.raises(ValueError, match="send\\(\\) takes one block"):
            stream.send_block(rows(0, 4))
        assert stream.send_block(rows(0, 8).reshape(2, 4, 2)) == 2
        stream.unlink()


def test_a_slot_takes_a_shorter_block_in_place() -> None:
    with daq() as stream, Consumer("s", policy="lossless") as reader:
        for n in (4, 3):
            buffer = stream.next_to_send()
            buffer.array[:n] = rows(0, n)
            buffer.stamp(time_ns=0)
            buffer.send(n * 8)
        check(reader.read_block(4), 0, 4)
        check(reader.read_block(9, timeout=0.01), 0, 3)
        stream.unlink()


@pytest.mark.parametrize(
    "attrs",
    [{"sample_rate_hz": -1}, {"exposure_ns": 1.5}, {"stamp_of": "first sample"},
     {"line_time_ns": -5}, {"readout_ns": "1 us"}],
    ids=str,
)  # fmt: skip
def test_wrong_attributes_of_time_are_refused(attrs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(attrs))):
        daq(attrs=attrs)
    with pytest.raises(ValueError, match=next(iter(attrs))):
        Producer("s", 64, attrs=attrs)


def test_a_rate_alone_is_of_samples() -> None:
    """Fault B1: 20,000 samples, not frames, a second."""
    options = {"shape": (200, 2), "dtype": "i2", "dims": ("time", "channel")}
    for name in ("rate_hz", "sample_rate_hz"):
        attrs = {name: 20000}
        with Producer("s", **options, attrs=attrs, buffer_seconds=1.0) as stream:
            assert stream.buffer_count == 101
            reader = Consumer("s")
            stream.send(np.zeros((200, 2), "i2"), time_ns=MS * 1000)
            block = reader.read_block(200)
            assert set(np.diff(block.time_ns)) == {50_000}
            assert block.time_ns[-1] == MS * 1000  # the stamp is of the arrival
            assert len(reader.latest(0.005)) == 100
            stream.unlink()


# ---- samples with their times


def test_samples_come_across_the_edges_of_blocks() -> None:
    with daq() as stream, Consumer("s", policy="lossless") as reader:
        for first, stop in ((0, 4), (4, 7), (7, 11), (11, 12)):
            send(stream, first, stop)
        found = [reader.read_block(n) for n in (3, 3, 1, 5)]
        for block, (first, stop) in zip(
            found, ((0, 3), (3, 6), (6, 7), (7, 12)), strict=True
        ):
            check(block, first, stop)
            assert block.lost == 0
        assert [block.sequence for block in found] == [0, 0, 1, 2]
        stream.unlink()


def test_a_frame_is_a_sample_elsewhere() -> None:
    """Of any shape; its time is the frame's own stamp."""
    with (
        Producer("s", shape=(2,), dtype="i4", buffer_count=32) as stream,
        Consumer("s") as reader,
    ):
        times = np.cumsum(np.arange(10)) + 5
        stream.send_block(rows(0, 10), time_ns=times)
        for n in (3, 7):
            block = reader.read_block(n)
            first = 0 if n == 3 else 3
            np.testing.assert_array_equal(block.data, rows(first, first + n))
            np.testing.assert_array_equal(block.time_ns, times[first : first + n])
            assert block.sequence == first
        stream.unlink()


def test_as_an_xarray() -> None:
    with daq() as stream, Consumer("s") as reader:
        send(stream, 0, 4)
        send(stream, 4, 8)
        found = reader.read_block(6).to_xarray()
        assert found.name == "s"
        assert found.dims == ("time", "channel")
        assert found.sel(channel="b").values.tolist() == [0, -1, -2, -3, -4, -5]
        assert found.sel(time=5 * MS, channel="a") == 5
        assert found.time.attrs["units"] == "ns"
        assert found.attrs == {"sample_rate_hz": 1000, "stamp_of": "sample"}
        stream.unlink()


def test_the_newest_samples_have_one_time_axis() -> None:
    with daq() as stream, Consumer("s") as reader:
        assert len(reader.to_xarray(5)) == 0
        for first, stop in ((0, 4), (4, 7), (7, 8)):
            send(stream, first, stop)
        for n, first in ((3, 5), (5, 3), (0.002, 6), (100, 0), (0.5, 0), (0, 8)):
            np.testing.assert_array_equal(reader.latest(n), rows(first, 8))
            found = reader.to_xarray(n)
            assert found.dims == ("time", "channel")
            np.testing.assert_array_equal(found.values, rows(first, 8))
            assert found.time.values.tolist() == [k * MS for k in range(first, 8)]
        stream.unlink()


def test_blocks_without_a_rate_have_no_times() -> None:
    with (
        Producer("s", shape=(4, 2), dtype="i4", dims=("time", "channel")) as stream,
        Consumer("s") as reader,
    ):
        send(stream, 0, 4)
        for read in (reader.read_block, reader.to_xarray):
            with pytest.raises(ValueError, match="sample_rate_hz"):
                read(2)
        with pytest.raises(ValueError, match="sample_rate_hz"):
            reader.latest(0.5)
        np.testing.assert_array_equal(reader.latest(3), rows(1, 4))
        np.testing.assert_array_equal(reader.read(1), rows(0, 4)[None])
        stream.unlink()


# ---- with the other calls


def test_receive_returns_a_half_read_block_as_a_whole() -> None:
    for again in ("receive", "read"):
        with daq() as stream, Consumer("s", policy="lossless") as reader:
            for first in (0, 4, 8):
                send(stream, first, first + 4)
            check(reader.read_block(2), 0, 2)
            assert reader.has_next
            assert reader.is_alive
            if again == "read":
                np.testing.assert_array_equal(reader.read(1)[0], rows(0, 4))
            else:
                with reader.receive() as frame:
                    np.testing.assert_array_equal(frame.array, rows(0, 4))
            block = reader.read_block(6)
            check(block, 4, 10)
            assert block.lost == 0
            assert reader.received_count == 3
            stream.unlink()


def test_what_is_not_samples_is_left_for_receive() -> None:
    with daq() as stream, Consumer("s", policy="lossless") as reader:
        send(stream, 0, 3)
        stream.send("a remark")
        send(stream, 3, 6)
        check(reader.read_block(5), 0, 3)
        with pytest.raises(ValueError, match=r"receive\(\) it"):
            reader.read_block(5)
        assert reader.receive().value == "a remark"
        check(reader.read_block(3), 3, 6)
        stream.unlink()


def test_bytes_of_a_whole_block_are_samples() -> None:
    """As MomentumX writes them; `read` takes them, too."""
    with daq() as stream, Consumer("s") as reader:
        with stream.next_to_send() as buffer:
            buffer.write(rows(0, 4).tobytes())
            buffer.stamp(time_ns=0)
        check(reader.read_block(4), 0, 4)
        stream.unlink()


def test_the_slot_of_a_half_read_block_is_held() -> None:
    with daq(slots=2) as stream, Consumer("s", policy="lossless") as reader:
        send(stream, 0, 4)
        send(stream, 4, 8)
        check(reader.read_block(3), 0, 3)
        with pytest.raises(TimeoutError):
            stream.send(rows(8, 12), timeout=0.01)
        check(reader.read_block(1), 3, 4)
        send(stream, 8, 12)
        check(reader.read_block(8), 4, 12)
        reader.read_block(0)
        stream.unlink()


# ---- waits, ends, losses


def test_waits_and_the_end() -> None:
    with daq() as stream, Consumer("s", policy="lossless") as reader:
        with pytest.raises(TimeoutError):
            reader.read_block(4, timeout=0.01)
        send(stream, 0, 3)
        check(reader.read_block(4, timeout=0.01), 0, 3)
        thread = threading.Timer(0.05, lambda: send(stream, 3, 7))
        thread.start()
        check(reader.read_block(4, timeout=20), 3, 7)
        thread.join()
        send(stream, 7, 9)
        stream.end()
        check(reader.read_block(1), 7, 8)
        check(reader.read_block(4), 8, 9)
        with pytest.raises(EndOfStream):
            reader.read_block(4)
        for n in (-1, 1.5):
            with pytest.raises((ValueError, TypeError)):
                reader.read_block(n)
    with pytest.raises(NotConnectedError):
        reader.read_block(1)


def test_a_cancelled_wait_returns_what_came() -> None:
    event = threading.Event()
    with daq() as stream, Consumer("s", event) as reader:
        send(stream, 0, 3)
        threading.Timer(0.05, event.set).start()
        check(reader.read_block(8), 0, 3)
        empty = reader.read_block(8)
        assert (len(empty), empty.sequence, empty.lost) == (0, None, 0)
        stream.unlink()


@pytest.mark.parametrize("policy", ["lossy", "latest"])
def test_a_block_ends_at_a_loss(policy: str) -> None:
    with daq(slots=4) as stream, Consumer("s", policy=policy) as reader:
        send(stream, 0, 4)
        check(reader.read_block(3), 0, 3)
        for first in range(4, 44, 4):
            send(stream, first, first + 4)
        block = reader.read_block(20, timeout=0)
        check(block, 3, 4)
        assert block.lost == 0
        block = reader.read_block(20, timeout=0)
        first = 44 - len(block)
        check(block, first, 44)
        assert block.lost == first - 4
        assert block.lost == 4 * reader.dropped_count
        assert block.sequence == first // 4
        stream.unlink()


def test_a_loss_before_the_first_block_is_shown() -> None:
    with daq(slots=4) as stream, Consumer("s") as reader:
        for first in range(0, 40, 4):
            send(stream, first, first + 4)
        block = reader.read_block(20, timeout=0)
        check(block, 40 - len(block), 40)
        assert block.lost == 40 - len(block)
        stream.unlink()


def test_a_changed_block_is_a_loss() -> None:
    """The samples before it are kept for the next call, and those after it."""
    stream = daq(checksum=True)
    reader = Consumer("s", policy="lossless", verify=True)
    for first in range(0, 20, 4):
        send(stream, first, first + 4)
    memory = np.frombuffer(memoryview(stream._segment.mapping), "u1")
    at = memory.tobytes().index(rows(8, 12).tobytes())
    memory[at] ^= 1
    del memory
    with pytest.raises(CorruptFrame):
        reader.read_block(20)
    check(reader.read_block(3, timeout=0), 0, 3)
    rest = reader.read_block(20, timeout=0)
    check(rest, 3, 8)
    assert (rest.sequence, rest.lost) == (0, 0)
    block = reader.read_block(20, timeout=0)
    check(block, 12, 20)
    assert (block.lost, block.sequence) == (4, 3)
    reader.close()
    stream.unlink()


def test_an_interrupt_loses_no_sample() -> None:
    class Stop(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stop

    before = signal.signal(signal.SIGALRM, stop)
    try:
        with daq(slots=64) as stream, Consumer("s", policy="lossless") as reader:
            for first in range(0, 40, 4):
                send(stream, first, first + 4)
            check(reader.read_block(2), 0, 2)
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(Stop):
                reader.read_block(1000)
            send(stream, 40, 44)
            found = [reader.read_block(n, timeout=0) for n in (5, 50, 50)]
            check(found[0], 2, 7)
            check(found[1], 7, 40)
            check(found[2], 40, 44)
            assert [b.sequence for b in found] == [0, 1, 10]
            stream.unlink()
    finally:
        signal.signal(signal.SIGALRM, before)


READER = """
from ataraxis import Consumer
reader = Consumer("s", durable="detector")
print(reader.read_block(6).data[:, 0].tolist(), flush=True)
input()
"""


def test_a_half_read_block_comes_again_after_a_death() -> None:
    """A durable reader that died in a block receives it from its start."""
    stream = daq()
    for first in (0, 4, 8):
        send(stream, first, first + 4)
    with Program(READER) as program:
        program.expect(str(list(range(6))))
        program.process.kill()
        program.process.wait()
    with Consumer("s", durable="detector") as again:
        check(again.read_block(100, timeout=0), 4, 12)
    stream.unlink()


SENDER = """
import time
import numpy as np
from ataraxis import Producer
stream = Producer("s", shape=(4, 2), dtype="i4", dims=("time", "channel"),
                  attrs={"sample_rate_hz": 1000})
stream.send(np.zeros((4, 2), "i4"))
stream.send(np.ones((3, 2), "i4"))
print("sent", flush=True)
time.sleep(60)
"""


def test_a_killed_producer_is_an_end() -> None:
    with Program(SENDER) as program:
        program.expect("sent")
        with Consumer("s", policy="lossless") as reader:
            assert len(reader.read_block(5)) == 5
            timer = threading.Timer(0.1, program.process.kill)
            timer.start()
            assert len(reader.read_block(5)) == 2
            with pytest.raises(EndOfStream):
                reader.read_block(5)
            timer.join()


def test_threads_share_a_reader() -> None:
    """Each sample goes to one of them, in runs that follow each other."""
    with daq(slots=64) as stream, Consumer("s", policy="lossless") as reader:
        for first in range(0, 120, 4):
            send(stream, first, first + 4)
        stream.end()
        found: list[SampleBlock] = []

        def read() -> None:
            while True:
                try:
                    found.append(reader.read_block(7))
                except EndOfStream:
                    return

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        for block in found:
            check(block, int(block.data[0, 0]), int(block.data[-1, 0]) + 1)
        numbers = np.concatenate([block.data[:, 0] for block in found])
        assert sorted(numbers.tolist()) == list(range(120))


def test_several_producers() -> None:
    options = {"shared": True, "slots": 16}
    with daq(**options) as one, daq(**options) as other, Consumer("s") as reader:
        send(one, 0, 4)
        send(other, 4, 7)
        dropped = other.next_to_send()
        del dropped
        send(one, 7, 11)
        block = reader.read_block(11)
        check(block, 0, 11)
        assert block.lost == 0
        one.unlink()


def test_a_header_with_too_many_samples_is_refused() -> None:
    """The header lies in shared memory and is not trusted."""
    with daq() as stream, Consumer("s", policy="lossless") as reader:
        send(stream, 0, 4)
        memory = np.frombuffer(memoryview(stream._segment.mapping), "u1")
        at = memory.tobytes().index(b"AXF1")
        for count in (5, 2**32 - 1):
            memory[at + 32 : at + 36].view("u4")[0] = count
            with pytest.raises(ValueError, match=r"receive\(\) it"):
                reader.read_block(4)
            assert len(reader.latest(4)) == 0
        del memory
        stream.unlink()


# ---- the law


def oracle(
    lengths: list[int], stamps: list[int], rate: float, stamp: str
) -> tuple[list[int], list[int]]:
    """The time of each sample that was sent, and the number of its frame."""
    period = 10**9 / Fraction(repr(rate))
    times, frames = [], []
    for number, (m, t) in enumerate(zip(lengths, stamps, strict=True)):
        for i in range(m):
            if stamp == "arrival":
                times.append(t - int((m - 1 - i) * period + Fraction(1, 2)))
            else:
                times.append(t + int(i * period + Fraction(1, 2)))
            frames.append(number)
    return times, frames


@settings(max_examples=examples(300), deadline=None)
@given(data=st.data())
def test_samples_are_read_in_order_once_with_their_times(data: st.DataObject) -> None:
    """Any lengths of blocks, rates, stamps, policies, pauses, and numbers asked for."""
    draw = data.draw
    whole, slots = draw(st.integers(1, 6)), draw(st.integers(2, 9))
    lengths = draw(st.lists(st.integers(0, whole), max_size=30))
    rate = draw(st.sampled_from([1.0, 30.0, 20000.0, 44100.0, 29.97, 20004.99]))
    stamp = draw(st.sampled_from(["arrival", "sample"]))
    policy = draw(st.sampled_from(["lossless", "lossy", "latest"]))
    stamps = np.cumsum([10**12, *[7 * 10**9] * len(lengths)])[1:].tolist()
    times, frames = oracle(lengths, stamps, rate, stamp)
    starts = np.cumsum([0, *lengths])
    attrs = {"sample_rate_hz": rate, "stamp_of": stamp}
    found: list[SampleBlock] = []
    sent = 0
    with (
        Producer(
            "s", shape=(whole,), dtype="i8", dims=("time",), attrs=attrs,
            buffer_count=slots,
        ) as stream,
        Consumer("s", policy=policy) as reader,
    ):  # fmt: skip
        while True:
            unread = stream.statistics().readers[0].lag
            room = slots - unread if policy == "lossless" else 3 * slots
            burst = draw(st.integers(0, room)) if sent < len(lengths) else 0
            for k in range(sent, min(sent + burst, len(lengths))):
                values = np.arange(starts[k], starts[k + 1])
                assert stream.send(values, time_ns=stamps[k])
                sent = k + 1
            if sent == len(lengths):
                stream.end()
            try:
                found.append(reader.read_block(draw(st.integers(1, 20)), timeout=0))
            except TimeoutError:
                continue
            except EndOfStream:
                break
        dropped = reader.dropped_count
        stream.unlink()
    expected = first_frame = 0
    for block in found:
        first = int(block.data[0])
        # Each once, in order, without a hole inside, each with its time.
        np.testing.assert_array_equal(block.data, first + np.arange(len(block)))
        assert block.time_ns.tolist() == times[first : first + len(block)]
        assert block.sequence == frames[first]
        if policy == "lossless":
            assert first == expected
        assert first >= expected
        lost = set(range(first_frame, frames[first])) - {
            k for k, length in enumerate(lengths) if not length
        }
        assert block.lost >= whole * len(lost)
        assert block.lost <= whole * (frames[first] - first_frame)
        if lost:
            assert first == starts[frames[first]]
        expected = first + len(block)
        last = frames[expected - 1]
        first_frame = last + (starts[last + 1] == expected)
    if policy == "lossless":
        assert expected == len(times)
        assert sum(block.lost for block in found) == 0
    else:
        assert sum(block.lost for block in found) <= whole * dropped
