"""`Producer(resume=True)`: a stream that outlives the death of its producer."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from deadline import wait_until

from ataraxis import Consumer, Producer
from ataraxis.errors import SegmentNotFound, StreamExists
from ataraxis.shm.gc import collect
from ataraxis.stream.inspector import Inspector


def make(**options: Any) -> Producer:
    known = {"shape": (2,), "dtype": "i8", "buffer_count": 8, "resume": True}
    return Producer("s", **{**known, **options})


def read(**options: Any) -> Consumer:
    return Consumer("s", **{"policy": "lossless", **options})


def send(producer: Producer, count: int = 1) -> None:
    for _ in range(count):
        producer.send(np.full(2, producer.last_sent_iteration), timeout=10)


def numbers(consumer: Consumer, count: int) -> list[int]:
    found = []
    for _ in range(count):
        with consumer.receive(timeout=10) as frame:
            assert int(frame.array[0]) == frame.sequence
            found.append(frame.sequence)
    return found


def in_a_process_that_is_killed(work: Callable[[], object]) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            keep = work()
            os.kill(os.getpid(), signal.SIGKILL)
            del keep
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL


def sender(count: int, **options: Any) -> Callable[[], object]:
    def work() -> object:
        producer = make(**options)
        send(producer, count)
        producer.next_to_send()  # half-written
        return producer

    return work


# ---- going on


def test_readers_see_nothing_of_a_death() -> None:
    in_a_process_that_is_killed(sender(3))
    reader = read()
    assert numbers(reader, 3) == [0, 1, 2]
    assert reader.receive(blocking=False) is None
    assert not reader.is_ended
    assert reader.has_next
    with pytest.raises(TimeoutError):
        reader.receive(timeout=0.05)
    for start in (3, 5):
        in_a_process_that_is_killed(sender(2))
        assert numbers(reader, 2) == [start, start + 1]
    with make() as producer:
        send(producer)
    assert numbers(reader, 1) == [7]
    assert reader.receive(timeout=10) is None
    assert reader.is_ended
    assert (reader.received_count, reader.dropped_count) == (8, 0)
    reader.close()


def test_a_reader_that_waits_gets_the_next_frame() -> None:
    in_a_process_that_is_killed(sender(1))
    reader = read()
    got: list[int] = []
    thread = threading.Thread(target=lambda: got.extend(numbers(reader, 2)))
    thread.start()
    wait_until(lambda: got == [] and reader.received_count == 1)
    with make() as producer:
        send(producer)
        thread.join(10)
    assert got == [0, 1]
    reader.close()


def test_many_deaths_of_a_producer_and_a_durable_reader() -> None:
    """Each is killed again and again: every number comes, from where the reader was."""

    def receive() -> object:
        consumer = read(durable="d")
        frame = consumer.receive(timeout=10)
        frame.release()
        return consumer

    for _ in range(5):
        in_a_process_that_is_killed(sender(1))
        in_a_process_that_is_killed(receive)
    with make() as producer, read(durable="d") as reader:
        assert producer.last_sent_iteration == 5
        assert producer.statistics().detached == ()
        send(producer)
        assert numbers(reader, 1) == [5]


def test_leave_is_as_a_death() -> None:
    producer = make()
    reader = read()
    send(producer)
    producer.leave()
    producer.leave()
    assert not producer.is_ended
    assert numbers(reader, 1) == [0]
    assert not reader.is_ended
    producer.close()
    assert not reader.is_ended
    with make() as again:
        assert again.last_sent_iteration == 1
    assert reader.is_ended
    assert again.is_ended
    reader.close()


def test_only_a_stream_to_be_resumed_can_be_left() -> None:
    with make(resume=False) as producer, pytest.raises(ValueError, match="close"):
        producer.leave()


def test_the_statistics_go_on() -> None:
    in_a_process_that_is_killed(sender(3))
    assert Inspector("s").statistics().producers == 0
    with make() as producer:
        send(producer)
        found = producer.statistics()
        assert (found.sent, found.sent_bytes, found.producers) == (4, 64, 1)
        assert Inspector("s").statistics().sent == 4
        producer.unlink()


# ---- numbers


def test_the_first_number() -> None:
    with make(first_sequence=7) as producer:
        reader = read()
        assert producer.last_sent_iteration == 7
        assert producer.statistics().sent == 0
        send(producer, 2)
        late = read()
        assert numbers(reader, 2) == numbers(late, 2) == [7, 8]
        assert producer.statistics().sent == 2
        assert Inspector("s").statistics().sent == 2
        for one in (reader, late):
            assert one.dropped_count == 0
            one.close()


def test_the_first_number_is_of_a_stream_that_is_made() -> None:
    in_a_process_that_is_killed(sender(2, first_sequence=7))
    with make(first_sequence=100) as producer:
        assert producer.last_sent_iteration == 9
        producer.unlink()


@pytest.mark.parametrize("first", [-1, 1 << 62])
def test_a_first_number_out_of_range(first: int) -> None:
    with pytest.raises(ValueError, match="first_sequence"):
        make(first_sequence=first)


@pytest.mark.parametrize(
    "options", [{}, {"resume": False, "first_sequence": 1}], ids=["resume", "first"]
)
def test_several_producers_do_not_resume(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="shared"):
        make(shared=True, **options)


# ---- when not


def test_a_live_producer_is_not_replaced() -> None:
    with make():
        with pytest.raises(StreamExists, match="live producer"):
            make()
        with pytest.raises(StreamExists):
            make(resume=False)


def test_an_end_is_an_end() -> None:
    with make() as producer:
        send(producer, 2)
        reader = read()
    assert numbers(reader, 2) == [0, 1]
    with make() as another:
        assert another.last_sent_iteration == 0
        assert reader.receive(timeout=10) is None
        with read() as new:
            assert new.stream_id != reader.stream_id
    reader.close()


def test_an_end_after_a_death_is_an_end() -> None:
    in_a_process_that_is_killed(sender(1))
    reader = read()
    make().close()
    assert numbers(reader, 1) == [0]
    assert reader.receive(timeout=10) is None
    reader.close()
    with pytest.raises(SegmentNotFound):
        read()


@pytest.mark.parametrize(
    "options",
    [
        {"resume": False},
        {"dtype": "f8"},
        {"attrs": {"origin": "another"}},
        {"buffer_count": 16},
        {"sync": True},
    ],
    ids=str,
)
def test_another_stream_ends_that_of_a_dead_producer(options: dict[str, Any]) -> None:
    """Its readers get what was sent, and the end."""
    in_a_process_that_is_killed(sender(2))
    reader = read()
    with make(**options) as producer:
        assert producer.last_sent_iteration == 0
        assert numbers(reader, 2) == [0, 1]
        assert reader.receive(timeout=10) is None
        assert reader.is_ended
        reader.close()


def test_another_stream_waits_for_durable_readers() -> None:
    in_a_process_that_is_killed(sender(2))
    reader = read(durable="d")
    with pytest.raises(StreamExists, match="resume=True"):
        make(resume=False)
    assert numbers(reader, 2) == [0, 1]
    reader.close()
    make(resume=False).close()


def test_a_stream_of_a_dead_producer_can_be_removed() -> None:
    in_a_process_that_is_killed(sender(2))
    assert [left.name for left in collect() if left.is_removed] == ["s"]
    with make() as producer:
        assert producer.last_sent_iteration == 0


def test_its_name_stays_while_it_may_be_resumed() -> None:
    in_a_process_that_is_killed(sender(1))
    reader = read()
    assert numbers(reader, 1) == [0]
    reader.close()
    with make() as producer:
        assert producer.last_sent_iteration == 1
        producer.unlink()


def test_one_of_many_resumes() -> None:
    in_a_process_that_is_killed(sender(1))
    barrier = threading.Barrier(4)
    made: list[Producer] = []
    refused: list[str] = []

    def work() -> None:
        barrier.wait()
        try:
            made.append(make())
        except StreamExists as error:
            refused.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (len(made), len(refused)) == (1, 3)
    assert made[0].last_sent_iteration == 1
    made[0].unlink()


def test_a_stream_without_resume_ends_with_its_producer() -> None:
    in_a_process_that_is_killed(sender(1, resume=False))
    reader = read()
    assert numbers(reader, 1) == [0]
    assert reader.receive(timeout=10) is None
    reader.close()
