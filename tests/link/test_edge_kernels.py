"""The kernels of edges: values of a queue as records, and records as values."""

from __future__ import annotations

import contextlib
import multiprocessing
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from deadline import wait_until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from workers_link import passing_on

from ataraxis import MemQ
from ataraxis._kernels.edge import LinkToQueue, QueueScanner, QueueToLink
from ataraxis.frame import Frame
from ataraxis.link.edge import LaneRoots, key_of
from ataraxis.pipeline.frames import HEAD_LANE, lane_of, last_frame, read

LARGE = np.arange(40_000, dtype="f8")
Roots = dict[int, int | tuple[int, ...]]


@contextlib.contextmanager
def queue_of(name: str, slots: int = 64) -> Iterator[MemQ]:
    queue = MemQ(name, slots, 1024)
    try:
        yield queue
    finally:
        queue.unlink()


def post(queue: MemQ, value: Any, sequence: int, lane: int = HEAD_LANE) -> None:
    assert queue.post(value, -1, (lane, sequence, 0), 3, 77, 0)


def taken(
    store: QueueToLink, most: int = 99, **more: bool
) -> tuple[bytearray, int, Any]:
    buffer = bytearray(1 << 20)
    end, numbers = store.take(buffer, 64, most, more.get("only_back", False))
    return buffer, end, numbers


def keys_in(queue: MemQ, roots: Roots) -> set[int]:
    keys: set[int] = set()
    QueueScanner(queue, True).scan(roots, keys)
    return keys


def test_values_arrive_as_they_lay_in_the_queue() -> None:
    with queue_of("near") as near, queue_of("far") as far:
        values = [5, 2.5, b"x" * 900, "text", None, LARGE, np.arange(6).reshape(2, 3)]
        for k, value in enumerate(values):
            post(near, value, k)
        near.put({"by": "hand"})
        store = QueueToLink(near)
        buffer, end, numbers = taken(store)
        assert numbers == [64 * k for k in range(8)]
        assert LinkToQueue(far).put(buffer, 64, end, {}) == (
            end, numbers, [*(key_of(HEAD_LANE, k) for k in range(7)), key_of(0, 448)],
            {HEAD_LANE, 0}, 0, False, "",
        )  # fmt: skip
        for k, value in enumerate(values):
            lease = far.lease(False)
            found = read(lease.frame.to_bytes())
            assert (found.lane, found.sequence, found.source) == (HEAD_LANE, k, 3)
            np.testing.assert_equal(found.value, value)
            lease.acknowledge()
        assert far.get(False) == {"by": "hand"}
        assert near.statistics().leased == 8
        store.settle(numbers)
        assert near.statistics().used == 0
        assert near.statistics().acknowledged == 8


def test_known_values_are_not_put_again() -> None:
    with queue_of("near") as near, queue_of("far") as far:
        for k in range(4):
            post(near, k, k)
        buffer, end, _ = taken(QueueToLink(near))
        found = LinkToQueue(far).put(buffer, 64, end, {0: 1, 128: None})
        assert (found[1], found[4]) == ([64, 192], 2)
        assert far.qsize() == 2


def test_a_full_inbox_takes_the_rest_later() -> None:
    with queue_of("near") as near, queue_of("far", slots=3) as far:
        for k in range(5):
            post(near, k, k)
        buffer, end, _ = taken(QueueToLink(near))
        entry = LinkToQueue(far)
        at, numbers, _, _, _, is_full, problem = entry.put(buffer, 64, end, {})
        assert (len(numbers), is_full, problem) == (3, True, "")
        far.get(False)
        assert entry.put(buffer, at, end, {})[1] == [192]


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(at=st.integers(0, 200), bit=st.integers(0, 7), cut=st.integers(0, 200))
def test_no_byte_of_a_record_is_trusted(at: int, bit: int, cut: int) -> None:
    with queue_of("near") as near, queue_of("far") as far:
        post(near, b"a" * 100, 0)
        buffer, end, _ = taken(QueueToLink(near))
        entry = LinkToQueue(far)
        if cut and end - cut > 64:
            assert entry.put(buffer, 64, end - cut, {})[1:3] == ([], [])
            assert entry.put(buffer, 64, end - cut, {})[6]
        buffer[64 + at] ^= 1 << bit
        found = entry.put(buffer, 64, end, {})
        # Its number, and what the frame's own checksum guards, may be another one.
        if 8 <= at < 80:
            assert found[1] == []
            assert found[6]


def test_a_buffer_that_is_too_small_says_what_it_needs() -> None:
    with queue_of("near") as near:
        post(near, LARGE, 0)
        store = QueueToLink(near)
        end, numbers = store.take(bytearray(4096), 64, 9, False)
        assert numbers == []
        assert end >= 64 + LARGE.nbytes
        end, numbers = store.take(bytearray(end), 64, 9, False)
        assert numbers == [0]
        needed, count = store.copy(numbers, bytearray(100), 64)
        assert (needed, count) == (end, 0)
        assert store.take(bytearray(70), 64, 9, False)[0] > 70


def test_values_given_back_come_first() -> None:
    with queue_of("near") as near:
        for k in range(4):
            post(near, k, k)
        store = QueueToLink(near)
        assert taken(store, 2)[2] == [0, 64]
        assert taken(store, only_back=True)[2] == []
        store.give_back([64, 640])
        assert taken(store, only_back=True)[2] == [64]
        store.give_back([0])
        assert taken(store)[2] == [0, 128, 192]
        buffer = bytearray(1 << 12)
        end, count = store.copy([192, 0], buffer, 64)
        assert count == 2
        assert int.from_bytes(buffer[64:72], "little") == 192
        assert end > 64


def test_frames_that_share_a_slot_are_settled_one_by_one() -> None:
    with queue_of("near") as near:
        near.put_many([1, 2, 3])
        store = QueueToLink(near)
        numbers = taken(store)[2]
        assert numbers == [0, 1, 2]
        store.settle([1])
        store.give_back([0])
        assert near.get_many() == [1, 3]


def test_the_end_of_a_stream_is_kept_aside() -> None:
    with queue_of("near") as near:
        post(near, 1, 0)
        near.offer(last_frame(), 0)
        store = QueueToLink(near)
        assert taken(store)[2] == [0]
        assert store.last == [64]
        assert store.copy(store.last, bytearray(4096), 64)[1] == 1
        store.give_back([64])
        assert (store.last, near.qsize()) == ([], 1)


def test_a_dead_host_gives_its_leases_back() -> None:
    with queue_of("near") as near:
        post(near, 7, 0)
        other = MemQ.attach("near")
        assert taken(QueueToLink(other))[2] == [0]
        other.close()
        assert near.get(False) == 7


# ---- what is looked at


def test_a_scan_finds_what_is_not_acknowledged() -> None:
    with queue_of("near") as near:
        for k, value in enumerate((1, LARGE, 3)):
            post(near, value, k)
        post(near, 4, 9, lane=55)
        near.offer(last_frame(), 0)
        keys: set[int] = set()
        roots: Roots = {HEAD_LANE: HEAD_LANE}
        unknown, foreign, tail, waiting = QueueScanner(near, False).scan(roots, keys)
        assert keys == {key_of(HEAD_LANE, k) for k in range(3)}
        assert (unknown, foreign, waiting) == ({55}, None, 4)
        assert tail >= 5 * 64
        roots[55] = -1
        assert QueueScanner(near, False).scan(roots, keys)[1] == 3 * 64
        roots[55] = (HEAD_LANE, 55)
        assert QueueScanner(near, False).scan(roots, keys)[:2] == (set(), None)
        assert {key_of(HEAD_LANE, 9), key_of(55, 9)} <= keys
        lease = near.lease()
        assert keys_in(near, roots) >= {key_of(HEAD_LANE, 0)}
        lease.give_back()
        assert keys_in(near, roots) >= {key_of(HEAD_LANE, 0)}
        near.get()
        assert key_of(HEAD_LANE, 0) not in keys_in(near, roots)


def test_a_frame_in_a_segment_of_its_own_is_sent_and_found() -> None:
    with queue_of("near") as near, queue_of("far") as far:
        near._is_without_arena = True
        data = Frame.from_value(LARGE).to_bytes()
        assert near.offer(data, 0)
        store = QueueToLink(near)
        buffer, end, numbers = taken(store)
        assert numbers == [0]
        assert LinkToQueue(far).put(buffer, 64, end, {})[1] == [0]
        np.testing.assert_array_equal(far.get(False), LARGE)
        store.settle(numbers)
        assert near.statistics().used == 0


@pytest.mark.slow
def test_a_look_down_the_queues_misses_nothing() -> None:
    """A value that a process moves is in one of the queues, in every look."""
    names, count = [f"row{k}" for k in range(6)], 150
    queues = [MemQ(name, 256, 1024) for name in names]
    roots = LaneRoots(lane_of)
    roots.enter(HEAD_LANE, [(k - 1, k) for k in range(len(names))])
    expected = {key_of(HEAD_LANE, k) for k in range(count)}
    scanners = [QueueScanner(queue, k == 0) for k, queue in enumerate(queues)]
    process = multiprocessing.get_context("spawn").Process(
        target=passing_on, args=(names,), daemon=True
    )
    process.start()
    try:
        looks = 0

        def look() -> set[int]:
            held: set[int] = set()
            for scanner in scanners:
                unknown, *_ = scanner.scan(roots.table, held)
                assert not unknown
            return held

        for _ in range(5):
            for k in random.sample(range(count), count):
                post(queues[0], k, k)
            while queues[-1].qsize() < count:
                assert look() == expected
                looks += 1
            for _ in range(count):
                queues[-1].get()
        assert looks > 100
    finally:
        process.kill()
        process.join()
        for queue in queues:
            queue.unlink()
    wait_until(lambda: not process.is_alive(), 5)
