"""The kernels of a link: frames of a ring as bytes, and bytes as frames of a ring."""

from __future__ import annotations

import os
import random
import select
import signal
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ataraxis import Consumer, LogArchive, Producer, Recorder
from ataraxis._kernels.link import (
    CONTROL,
    EMPTY,
    ENDED,
    FULL,
    GAP,
    LAPPED,
    OK,
    OVERFLOW,
    TIMEOUT,
    TORN,
    BufferToRing,
    RingToBuffer,
)
from ataraxis.frame import Frame, Header, crc32
from ataraxis.link.inlet_run import MirroredRing
from ataraxis.log.account import REFUSED
from ataraxis.log.journal.reader import JournalReader
from ataraxis.log.journal.writer import JournalWriter

ALL = 1 << 62
WORDS = 3


def source(**options: Any) -> Producer:
    known = {"shape": (WORDS,), "dtype": "u8", "buffer_count": 16}
    return Producer("a", **{**known, **options})


def mirror(**options: Any) -> Producer:
    known = {"shape": (WORDS,), "dtype": "u8", "buffer_count": 16, "resume": True}
    return Producer("b", **{**known, **options})


def wire(sequence: int, value: int | None = None, words: int = WORDS) -> bytes:
    """Return a frame as it comes from another machine."""
    array = np.full(words, sequence if value is None else value, "u8")
    return Frame.from_value(
        array, sequence=sequence, source=1, labels_id=1, time_ns=sequence
    ).to_bytes()


def row(value: int) -> np.ndarray[Any, Any]:
    return np.full(WORDS, value, "u8")


def message(size: int = 5) -> bytes:
    return Frame.from_value(b"x" * size).to_bytes()


def sealed(head: bytes) -> bytes:
    """Return 60 bytes of a header with their checksum."""
    return head[:60] + struct.pack("<I", crc32(head[:60]))


def write(inflow: BufferToRing, data: bytes) -> tuple[int, int]:
    return inflow.write(data, 0, len(data))


def contents(consumer: Consumer) -> list[tuple[Any, ...]]:
    """Receive what is there: all that a reader can see of each frame."""
    found = []
    while (frame := consumer.receive(blocking=False)) is not None:
        with frame:
            found.append((
                frame.sequence, frame.time_ns, frame.device_time, frame.device_sequence,
                frame._code, frame._shape, bytes(frame),
            ))  # fmt: skip
    return found


class Pair:
    """A ring, and its mirror with a reader that gates."""

    def __init__(self, **options: Any) -> None:
        self.a, self.b = source(**options), mirror(**options)
        self.sender = Consumer("a", policy="lossless")
        self.outflow, self.inflow = RingToBuffer(self.sender), BufferToRing(self.b)
        self.there = Consumer("a", policy="lossless")
        self.here = Consumer("b", policy="lossless")

    def close(self) -> None:
        for end in (self.sender, self.there, self.here):
            end.close()
        self.a.unlink()
        self.b.unlink()

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def fetch(self) -> bytes:
        """Take all that is there; return its bytes."""
        self.outflow.take(ALL)
        buffer = bytearray(self.outflow.held_bytes)
        if not buffer:
            return b""
        first = self.outflow.first
        assert self.outflow.copy(first, buffer, 0) == (
            len(buffer),
            self.outflow.next,
            OK,
        )
        return bytes(buffer)


# ---- there and back


def test_the_bytes_are_frames_of_a_journal() -> None:
    with Pair() as pair:
        for k in range(3):
            pair.a.send(row(k), device_time=-k, device_sequence=k, time_ns=k + 7)
        data, at = pair.fetch(), 0
        for k in range(3):
            frame = Frame.from_buffer(memoryview(data)[at:])
            at += frame.nbytes
            assert (frame.sequence, frame.time_ns, frame.source) == (k, k + 7, 1)
            assert (frame.device_time, frame.device_sequence) == (-k, k)
            assert frame.checksum
            assert frame.shape == (WORDS,)
            assert bytes(frame.payload) == np.full(WORDS, k, "u8").tobytes()
        assert at == len(data)


VALUES = {
    "typed": (
        {},
        st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=3).map(
            lambda k: np.array(k, "u8")
        ),
    ),
    "blocks": (
        {"shape": (5, 2), "dtype": "i2", "dims": ("time", "channel")},
        st.integers(0, 5).map(lambda n: np.arange(2 * n, dtype="i2").reshape(n, 2)),
    ),
    "records": (
        {"shape": (2,), "dtype": [("x", "f4"), ("y", "i8")]},
        st.just(np.array([(1.5, 2), (3.5, 4)], [("x", "f4"), ("y", "i8")])),
    ),
    "raw": (
        {"shape": None, "dtype": None, "buffer_size": 200},
        st.one_of(
            st.binary(max_size=200),
            st.text(max_size=40),
            st.just(np.zeros((2, 0, 3))),
            st.just(np.arange(6, dtype="c8").reshape(1, 2, 3)),
            st.just(np.True_),
        ),
    ),
}
STAMPS = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {
            "device_time": st.integers(-(2**63), 2**64 - 1),
            "device_sequence": st.integers(0, 2**32),
        }
    ),
)


@pytest.mark.parametrize("kind", VALUES)
@given(data=st.data())
@settings(max_examples=30)
def test_every_frame_comes_as_it_was(kind: str, data: st.DataObject) -> None:
    """Whatever the frames, and wherever their bytes are cut."""
    options, values = VALUES[kind]
    with Pair(**options, checksum=data.draw(st.booleans())) as pair:
        arrived = b""
        expected: list[Any] = []
        got: list[Any] = []
        for k in range(data.draw(st.integers(1, 4))):
            for value in data.draw(st.lists(values, max_size=8)):
                pair.a.send(value, time_ns=k, **data.draw(STAMPS))
            stream = pair.fetch()
            expected += contents(pair.there)
            cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=6))
            for start, stop in zip(
                [0, *sorted(cuts)], [*sorted(cuts), len(stream)], strict=True
            ):
                arrived += stream[start:stop]
                at, status = write(pair.inflow, arrived)
                assert status == OK, pair.inflow.fault
                arrived = arrived[at:]
                got += contents(pair.here)
            assert arrived == b""
            held = pair.outflow.held
            assert pair.outflow.release(pair.inflow.next) == held
        assert got == expected
        assert pair.inflow.next == len(expected) == pair.inflow.frames
        assert pair.here.dropped_count == pair.inflow.repeated == 0


@given(
    flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1),
    count=st.integers(1, 8),
)
def test_a_changed_byte_is_never_published(
    flips: list[tuple[int, int]], count: int
) -> None:
    good = [wire(k) for k in range(count)]
    data = bytearray(b"".join(good))
    for place, change in flips:
        data[place % len(data)] ^= change
    with mirror() as producer, Consumer("b", policy="lossless") as reader:
        inflow = BufferToRing(producer)
        at, status = inflow.write(data, 0, len(data))
        whole = 0
        while data[whole * len(good[0]) :][: len(good[0])] == good[whole]:
            whole += 1
            if whole == count:
                break
        assert inflow.frames == whole
        assert status in (OK, TORN, CONTROL) or whole == count
        assert status != TORN or inflow.fault
        assert [k[0] for k in contents(reader)] == list(range(whole))
        # The link closes, and they are asked for again.
        rest = b"".join(good[inflow.next :])
        assert write(inflow, rest) == (len(rest), OK)
        assert [k[-1] for k in contents(reader)] == [g[64:] for g in good[whole:]]
        producer.unlink()
        del at


@given(data=st.binary(max_size=300), front=st.sampled_from([b"", b"AXF1"]))
def test_garbage_is_refused(data: bytes, front: bytes) -> None:
    with mirror() as producer:
        inflow = BufferToRing(producer)
        at, status = write(inflow, front + data)
        assert at == 0
        assert inflow.frames == 0
        assert status in (OK, TORN)
        producer.unlink()


U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))


@pytest.mark.parametrize("kind", ["typed", "blocks", "raw"])
@given(data=st.data())
@settings(max_examples=150)
def test_a_hostile_header_makes_no_bad_frame(kind: str, data: st.DataObject) -> None:
    """Its checksums are right; what is published can be read, as what was sent here."""
    draw = data.draw
    options = VALUES[kind][0]
    fields = (
        b"AXF1", draw(st.integers(0, 255)), draw(st.integers(0, 8)),
        draw(st.one_of(st.sampled_from([1, 17, 49]), U16)),
    )  # fmt: skip
    extents = draw(st.lists(st.one_of(st.integers(0, 6), U32), min_size=4, max_size=4))
    rest = draw(st.binary(max_size=200))
    length = draw(st.one_of(st.just(len(rest)), U64))
    head = struct.pack(
        "<4sBBHQQq4IIII", *fields, length, draw(st.sampled_from([0, 0, 1, 2**64 - 1])),
        draw(st.integers(-(2**63), 2**63 - 1)), *extents,
        draw(st.sampled_from([1, 1, 2])), crc32(rest), draw(st.sampled_from([0, 1, 2])),
    )  # fmt: skip
    with mirror(**options) as producer, Consumer("b", policy="lossless") as reader:
        inflow = BufferToRing(producer)
        _, status = write(inflow, sealed(head) + rest)
        assert status in (OK, TORN, GAP, OVERFLOW)
        for _ in range(inflow.frames):
            with reader.receive(timeout=5) as frame:
                assert frame.verify()
                assert frame.array.nbytes == len(frame)
                assert frame.value is not None
                if kind == "blocks" and frame._shape:
                    assert frame._shape[0] <= 5
                    assert frame._shape[1:] == (2,)
        producer.unlink()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"dtype": 5}, "type"),
        ({"dtype": 16}, "type"),
        ({"shape": (WORDS + 1,)}, "shape"),
        ({"labels_id": 2}, "type"),
        ({"labels_id": 0}, "type"),
        ({"source": 2}, "source"),
        ({"end_of_stream": True}, "flags"),
        ({"checksum": False}, "flags"),
        ({"origin": (0, 0, 0, 0)}, "flags"),
        ({"shape": (1, 1, 1, 1, WORDS)}, "flags"),
    ],
    ids=str,
)
def test_a_frame_of_another_stream_is_refused(
    change: dict[str, Any], text: str
) -> None:
    known = {
        "dtype": 4, "shape": (WORDS,), "payload_bytes": 8 * WORDS, "source": 1,
        "labels_id": 1, "checksum": True,
    }  # fmt: skip
    header = Header(**{**known, **change})
    data = bytearray(header.nbytes)
    body = header.extensions() + bytes(8 * WORDS)
    data[64:] = body
    header.write(data, crc=crc32(body))
    with mirror() as producer:
        inflow = BufferToRing(producer)
        assert write(inflow, bytes(data)) == (0, TORN)
        assert text in inflow.fault
        assert producer.last_sent_iteration == 0
        producer.unlink()


def test_a_frame_larger_than_a_slot_is_refused_before_it_is_whole() -> None:
    with mirror() as producer:
        inflow = BufferToRing(producer)
        large = wire(0, words=WORDS + 1)
        assert write(inflow, large[:64]) == (0, OVERFLOW)
        assert "larger" in inflow.fault
        producer.unlink()


def test_messages_are_left_to_the_caller() -> None:
    with mirror() as producer:
        inflow = BufferToRing(producer)
        data = wire(0) + message() + wire(1)
        at, status = write(inflow, data)
        assert (at, status) == (len(wire(0)), CONTROL)
        assert inflow.write(data, at, at + 64) == (at, CONTROL)
        at += len(message())
        assert inflow.write(data, at, len(data)) == (len(data), OK)
        assert inflow.next == 2
        producer.unlink()


# ---- numbers


@given(
    numbers=st.lists(st.integers(0, 12), max_size=20),
    lost=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 5)), max_size=4),
    first=st.integers(0, 3),
)
def test_only_the_next_number_is_published(
    numbers: list[int], lost: list[tuple[int, int]], first: int
) -> None:
    with (
        mirror(first_sequence=first, buffer_count=64) as producer,
        Consumer("b", policy="lossless") as reader,
    ):
        inflow = BufferToRing(producer, first)
        wanted, repeated, expected, dropped, since = first, 0, [], 0, 0
        for k, number in enumerate(numbers):
            if k < len(lost):
                begin, count = lost[k]
                if begin > wanted:
                    with pytest.raises(ValueError, match="next number"):
                        inflow.lose(begin, count)
                else:
                    inflow.lose(begin, count)
                    inflow.lose(begin, count)
                    since += max(begin + count - wanted, 0)
                    wanted = max(wanted, begin + count)
            at, status = write(inflow, wire(number))
            assert status == (GAP if number > wanted else OK)
            assert at == (0 if number > wanted else len(wire(0)))
            repeated += number < wanted
            if number == wanted:
                expected.append(number)
                dropped, since, wanted = dropped + since, 0, wanted + 1
        assert (inflow.next, inflow.repeated) == (wanted, repeated)
        assert [k[0] for k in contents(reader)] == expected
        assert reader.dropped_count == dropped
        assert producer.statistics().sent == len(expected)
        producer.close()
        assert reader.receive(timeout=5) is None
        assert reader.dropped_count == dropped + since


def test_the_number_must_be_the_streams() -> None:
    with mirror(first_sequence=4) as producer:
        with pytest.raises(ValueError, match="number 4, not 5"):
            BufferToRing(producer, 5)
        with pytest.raises(ValueError, match="cannot be lost"):
            BufferToRing(producer).lose(4, 1 << 63)
        producer.unlink()
    with (
        Producer("c", 8, 4, shared=True) as shared,
        pytest.raises(ValueError, match="shared"),
    ):
        BufferToRing(shared)


@pytest.mark.parametrize("policy", ["lossless", "lossy", "latest"])
def test_each_reader_counts_a_loss_once(policy: Any) -> None:
    with mirror() as producer, Consumer("b", policy=policy) as reader:
        inflow = BufferToRing(producer)
        write(inflow, wire(0))
        assert len(contents(reader)) == 1
        inflow.lose(1, 4)
        with Consumer("b", policy=policy, start="latest") as late:
            write(inflow, wire(5))
            assert [k[0] for k in contents(reader)] == [5]
            assert [k[0] for k in contents(late)] == [5]
            assert (reader.dropped_count, late.dropped_count) == (4, 0)
            inflow.lose(6, 2)
            producer.close()
            assert reader.receive(timeout=5) is late.receive(timeout=5) is None
            assert (reader.dropped_count, late.dropped_count) == (6, 2)


def test_a_recorder_writes_a_gap(tmp_path: Path) -> None:
    producer = mirror()
    inflow = BufferToRing(producer)
    with Recorder(["b"], tmp_path) as recorder:
        write(inflow, wire(0))
        inflow.lose(1, 4)
        write(inflow, wire(5))
        inflow.lose(6, 2)
        inflow.account(3, 0, 0)
        producer.close()
        recorder.wait(timeout=20)
    gaps = LogArchive(tmp_path).gaps
    refused = [gap.count for gap in gaps if gap.reason == REFUSED]
    assert refused == [3]
    lost = sorted((gap.first, gap.count) for gap in gaps if gap.reason != REFUSED)
    assert lost == [(1, 4), (6, 2)]


def test_the_account_of_the_other_machine() -> None:
    """Its refusals, gaps and waits are this stream's; the inflow's waits are not."""
    with mirror(buffer_count=2) as producer, Consumer("b", policy="lossless") as reader:
        inflow = BufferToRing(producer)
        inflow.account(3, 4, 5_000_000_000)
        data = wire(0) + wire(1) + wire(2)
        assert write(inflow, data) == (2 * len(wire(0)), FULL)
        assert inflow.free == 0
        assert inflow.wait(0.05) == TIMEOUT
        found = producer.statistics()
        assert (found.refused, found.device_gaps, found.stalled_s) == (3, 4, 5.0)
        assert not found.is_stalled
        with reader.receive() as frame:
            assert frame.sequence == 0
        assert inflow.wait(5) == OK
        assert inflow.free == 1
        at = 2 * len(wire(0))
        assert inflow.write(data, at, len(data)) == (len(data), OK)
        assert [k[0] for k in contents(reader)] == [1, 2]
        assert inflow.free == 2
        producer.unlink()


# ---- slots that are held


def test_what_is_held_is_not_overwritten() -> None:
    with Pair(buffer_count=4) as pair:
        pair.there.close()
        for k in range(4):
            pair.a.send(row(k))
        assert pair.outflow.take(2) == (2, OK)
        assert pair.outflow.take(9) == (2, OK)  # all slots
        assert (pair.outflow.first, pair.outflow.next, pair.outflow.held) == (0, 4, 4)
        assert pair.a.next_to_send(blocking=False) is None
        each = pair.outflow.held_bytes // 4
        buffer = bytearray(3 * each - 1)
        assert pair.outflow.copy(1, buffer, 0) == (2 * each, 3, OK)
        assert pair.outflow.copy(3, buffer, each) == (2 * each, 4, OK)
        assert pair.outflow.copy(4, buffer, 0) == (0, 4, EMPTY)
        assert pair.outflow.copy(3, buffer, 2 * each) == (2 * each, 3, OVERFLOW)
        assert pair.outflow.release(2) == 2
        assert pair.outflow.copy(1, buffer, 0) == (0, 1, LAPPED)
        assert pair.outflow.missing(1) == 1
        assert pair.outflow.first == 2
        pair.a.send(row(4))
        assert pair.outflow.take(9) == (1, EMPTY)
        assert pair.outflow.release(ALL) == 3
        assert pair.outflow.held_bytes == 0
        pair.a.close()
        assert pair.outflow.take(9) == (0, ENDED)


def test_frames_that_the_other_side_has_are_released_at_once() -> None:
    with source() as producer, Consumer("a", durable="agent") as consumer:
        for k in range(6):
            producer.send(row(k))
        outflow = RingToBuffer(consumer, 4)
        assert outflow.wait(1) == OK
        assert outflow.found == 0
        assert outflow.take(9) == (2, EMPTY)
        assert (outflow.first, outflow.skipped) == (4, 4)
        outflow.release(ALL)
    assert not os.path.exists(f"{os.environ['ATARAXIS_CONTEXT']}/a")


def test_a_lossy_sender_says_what_is_missing() -> None:
    with source(buffer_count=8) as producer, Consumer("a", policy="lossy") as consumer:
        outflow = RingToBuffer(consumer)
        producer.send(row(0))
        assert outflow.take(9) == (1, EMPTY)
        for k in range(40):
            producer.send(row(k))
        done, status = outflow.take(9)
        assert (done, status) == (0, LAPPED)
        found = outflow.found
        assert outflow.missing(1) == 0
        assert outflow.accept() == found - 1
        assert outflow.accept() == 0
        buffer = bytearray(10_000)
        # Its slot may have been overwritten meanwhile: then it is missing, too.
        end, following, status = outflow.copy(0, buffer, 0)
        assert (end, following, status) == (0, 0, LAPPED) or following == 1
        assert outflow.take(99)[1] in (OK, EMPTY)
        end, following, status = outflow.copy(found, buffer, 0)
        assert following == 41
        assert outflow.missing(0) in (0, found)
        producer.unlink()
        outflow.release(ALL)


@given(ops=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 8)), max_size=40))
@settings(max_examples=60)
def test_any_order_of_calls(ops: list[tuple[int, int]]) -> None:
    """The frames from the first held one on are always there, whole and in order."""
    with Pair(buffer_count=8) as pair:
        pair.there.close()
        sent = taken = released = 0
        buffer = bytearray(8 * 88)
        for what, k in ops:
            if what == 0 and sent - released < 8:
                pair.a.send(row(sent))
                sent += 1
            elif what == 1:
                done, status = pair.outflow.take(k)
                assert done == min(k, sent - taken)
                assert status == (EMPTY if done < k else OK)
                taken += done
            elif what == 2:
                until = released + k
                assert pair.outflow.release(until) == min(until, taken) - released
                released = min(until, taken)
            elif what == 3 and released + k < taken:
                end, following, status = pair.outflow.copy(released + k, buffer, 0)
                assert (following, status) == (taken, OK)
                for number in range(released + k, taken):
                    frame = Frame.from_buffer(buffer, 88 * (number - released - k))
                    assert frame.sequence == number
                    assert bytes(frame.payload) == row(number).tobytes()
                assert end == 88 * (taken - released - k)
            assert pair.outflow.held == taken - released
        pair.outflow.release(ALL)


def test_spilled_frames_are_in_the_journal(tmp_path: Path) -> None:
    with Pair(buffer_count=8) as pair:
        pair.there.close()
        for k in range(6):
            pair.a.send(row(k), time_ns=k)
        pair.outflow.take(9)
        journal = JournalWriter(tmp_path, "spool")
        journal.describe(1, "a", pair.a.labels)
        number = journal.labels_id(pair.a.labels)
        assert pair.outflow.spill(journal, 1, number, 4)[::2] == (4, OK)
        assert pair.outflow.spill(journal, 1, number, 4) == (0, 0, OK)
        assert pair.outflow.spilled == 4
        journal.flush()
        assert pair.outflow.release(3) == 3
        assert pair.outflow.spill(journal, 1, number, ALL)[::2] == (2, OK)
        journal.close()
        pair.outflow.release(ALL)
    with JournalReader(tmp_path) as found:
        frames = [found.frame(k) for k in range(len(found))]
        assert [frame.sequence for frame in frames] == list(range(6))
        assert [int(frame.array[0]) for frame in frames] == list(range(6))


def test_only_frames_that_are_kept_can_be_spilled(tmp_path: Path) -> None:
    with source() as producer, Consumer("a", policy="lossy") as consumer:
        journal = JournalWriter(tmp_path, "spool")
        with pytest.raises(ValueError, match="lossless"):
            RingToBuffer(consumer).spill(journal, 1, -1, 9)
        journal.close()
        producer.unlink()


def test_arguments_out_of_range() -> None:
    with Pair() as pair:
        with pytest.raises(ValueError, match="start"):
            pair.outflow.copy(0, bytearray(5), 6)
        for start, stop in ((-1, 0), (2, 1), (0, 6)):
            with pytest.raises(ValueError, match="stop"):
                pair.inflow.write(bytes(5), start, stop)
        with pytest.raises((TypeError, BufferError)):
            pair.outflow.copy(0, b"read only", 0)


# ---- kills


def in_a_child(work: Any) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(1)
    return pid


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL


def test_an_inflow_that_is_killed_again_and_again() -> None:
    """Killed at any instant, also between publishing and acknowledging."""
    draw = random.Random(1)
    most = 3000
    frames = [wire(k) for k in range(most)]
    mirror().leave()
    reader = Consumer("b", policy="lossless")
    got: list[int] = []

    def work() -> None:
        producer = mirror()
        inflow = BufferToRing(producer)
        while True:
            data = b"".join(frames[inflow.next : inflow.next + 7])
            write(inflow, data)
            inflow.wait(None)

    kills = 0
    while len(got) < most:
        pid = in_a_child(work)
        until = len(got) + draw.randrange(1, 300)
        while len(got) < min(until, most):
            with reader.receive(timeout=20) as frame:
                assert (frame.array == frame.sequence).all()
                got.append(frame.sequence)
        kill(pid)
        kills += 1
    assert kills > 10
    assert got == list(range(most))
    assert reader.dropped_count == 0
    assert not reader.is_ended
    with mirror() as producer:
        assert producer.last_sent_iteration == most
    assert reader.receive(timeout=10) is None
    reader.close()


def test_an_outflow_that_is_killed_again_and_again() -> None:
    """What was not acknowledged is in the ring for the next one."""
    draw = random.Random(2)
    most = 600
    with (
        source() as producer,
        mirror() as copy,
        Consumer("b", policy="lossless") as here,
    ):
        keeper = Consumer("a", durable="agent")
        del keeper  # not closed: the name keeps gating
        inflow = BufferToRing(copy)
        got: list[int] = []
        sent = 0
        while len(got) < most:
            (out, into), (said, say) = os.pipe(), os.pipe()
            pid = in_a_child(lambda into=into, said=said: pump(into, said, inflow.next))
            os.close(into)
            os.close(said)
            until = min(len(got) + draw.randrange(1, 60), most)
            data = b""
            while len(got) < until:
                while sent < most and producer.next_to_send(blocking=False) is not None:
                    producer.send(row(sent))
                    sent += 1
                if not select.select([out], [], [], 0.01)[0]:
                    continue
                data += os.read(out, draw.randrange(1, 300))
                at, status = write(inflow, data)
                assert status == OK
                data = data[at:]
                got += [k[0] for k in contents(here)]
                os.write(say, struct.pack("<Q", inflow.next))
            kill(pid)
            os.close(out)
            os.close(say)
        assert got == list(range(most))
        assert inflow.repeated == 0
        with Consumer("a", durable="agent") as last:
            RingToBuffer(last, most).take(ALL)
        producer.unlink()
        copy.unlink()


def pump(into: int, said: int, first: int) -> None:
    """Send from `first` on to a pipe; release what the other side says that it has."""
    outflow = RingToBuffer(Consumer("a", durable="agent"), first)
    sent, buffer = first, bytearray(1 << 16)
    while True:
        outflow.wait(0.01)
        assert outflow.take(ALL)[1] != LAPPED
        stop, sent, _ = outflow.copy(sent, buffer, 0)
        os.write(into, memoryview(buffer)[:stop])
        while select.select([said], [], [], 0)[0]:
            outflow.release(struct.unpack("<Q", os.read(said, 8))[0])


def test_numbers_that_never_had_a_frame_are_not_lost() -> None:
    """A shared stream skips slots that a viewer holds: their numbers are passed."""
    with Producer("s", 64, 8, shared=True) as a:
        sender, view = Consumer("s", policy="lossless"), Consumer("s", policy="lossy")
        outflow = RingToBuffer(sender)
        held = []
        for k in range(8):
            a.send(b"%d" % k)
            held.append(view.receive())
        assert outflow.take(ALL) == (8, OK)
        assert outflow.release(8) == 8
        for k in range(4):
            a.send(b"%d" % k)
        assert outflow.take(ALL) == (4, EMPTY)
        assert outflow.release(10) == 2
        for k in range(2):
            a.send(b"%d" % k)  # behind the slots that are held
        assert a.statistics().skipped == 4
        assert outflow.take(ALL) == (2, EMPTY), "a hole is not a loss"
        buffer = bytearray(4096)
        end, after, status = outflow.copy(10, buffer, 0)
        numbers = []
        with Producer("t", 64, 32, resume=True, first_sequence=10) as b:
            inflow = BufferToRing(b)
            reader = Consumer("t", policy="lossless")
            assert (after, status) == (12, LAPPED)
            assert inflow.write(buffer, 0, end) == (end, OK)
            assert outflow.missing(12) == 4
            inflow.skip(12, 4)
            assert inflow.next == 16
            end, after, status = outflow.copy(16, buffer, 0)
            assert (after, status) == (18, OK)
            assert inflow.write(buffer, 0, end) == (end, OK)
            while (frame := reader.receive(blocking=False)) is not None:
                numbers.append(frame.sequence)
                frame.release()
            assert numbers == [10, 11, 16, 17]
            assert reader.dropped_count == 0
            assert b.statistics().sent == 4
            inflow.lose(18, 2)
            assert inflow.write(wire_bytes(20), 0, 65) == (65, OK)
            assert reader.receive(timeout=5).sequence == 20
            assert reader.dropped_count == 2
            reader.close()
            b.unlink()
        for frame in held:
            frame.release()
        sender.close()
        view.close()
        a.unlink()


def wire_bytes(sequence: int) -> bytes:
    """Return a frame of one byte as it comes from another machine."""
    return Frame.from_value(b"x", sequence=sequence, source=1).to_bytes()


def test_a_skip_is_forgotten_with_its_agent() -> None:
    """It is in the ring with the next frame: before, the number is asked for again."""
    with Producer("t", 64, 8, resume=True) as b:
        inflow = BufferToRing(b)
        inflow.write(wire_bytes(0), 0, 65)
        inflow.skip(1, 3)
        assert inflow.next == 4
        assert BufferToRing(b).next == 1
        assert write(inflow, wire_bytes(5))[1] == GAP
        assert write(inflow, wire_bytes(2)) == (65, OK)
        assert inflow.repeated == 1
        with pytest.raises(ValueError, match="cannot be skipped"):
            inflow.skip(5, 1)
        b.unlink()


def test_frames_behind_lost_numbers_are_not_said_to_be_recorded() -> None:
    with mirror() as producer:
        ring = MirroredRing(producer, holds=False)
        assert ring.recorded() is None
        with Consumer("b", durable="recorder") as recorder:
            for number in (0, 1, 2):
                assert write(ring, wire(number))[1] == OK
            ring.lose(3, 7)
            assert write(ring, wire(10))[1] == OK
            ring.skip(11, 2)
            assert write(ring, wire(13))[1] == OK
            for number, following in ((0, 1), (1, 2), (2, 10), (10, 13), (13, 14)):
                assert ring.recorded() == number
                frame = recorder.receive(timeout=5)
                assert frame is not None
                assert frame.sequence == number
                frame.release()
                assert ring.recorded() == following
        producer.unlink()


def test_frames_of_an_earlier_agent_are_not_said_to_be_recorded() -> None:
    with mirror() as first:
        ring = MirroredRing(first, holds=False)
        recorder = Consumer("b", durable="recorder")
        ring.lose(0, 5)
        assert write(ring, wire(5))[1] == OK
        again = MirroredRing(first, holds=False)
        assert write(again, wire(6))[1] == OK
        assert again.recorded() == 0
        recorder.receive(timeout=5).release()
        assert again.recorded() == 6
        recorder.close()
        first.unlink()
