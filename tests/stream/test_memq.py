"""What a work queue does, in one process and with every start method."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue as standard
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import workers_queue
from click.testing import CliRunner
from hypothesis import given

from ataraxis import MemQ, attach
from ataraxis.cli import main
from ataraxis.errors import (
    CorruptFrame,
    DataOverflow,
    LayoutError,
    LeaseLost,
    NotConnectedError,
    QueueEmpty,
    QueueFull,
    SegmentExists,
    SegmentNotFound,
    TooManyParticipants,
)
from ataraxis.frame import Frame, crc32
from ataraxis.stream import lease, memq
from ataraxis.stream.inspector import inspect
from ataraxis.testing import values


@pytest.fixture
def queue() -> Any:
    with MemQ("q", 8, 256) as made:
        yield made
        made.unlink()


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return pickle.dumps(a) == pickle.dumps(b) or a == b or (a != a and b != b)


# ---- values


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"x",
        bytes(range(256)),
        bytes(10_000),
        "",
        "µs",
        0,
        -1,
        1 << 100,
        1.5,
        True,
        None,
        1 + 2j,
        [1, ["a", b"b"], {}],
        (1, 2),
        {"a": np.arange(3.0).tolist()},
        np.float32(1.5),
        np.arange(6, dtype="u1").reshape(2, 3),
        np.arange(6.0),
        np.zeros(0),
        np.zeros((2, 0, 3), "i4"),
        np.zeros((3, 4))[:, ::2],
        np.array([True, False]),
        np.zeros(3, ">f8"),
        np.zeros(2, [("a", "u2"), ("b", "f4")]),
        np.array(["2026-11-21"], "M8[s]"),
        np.zeros((1,) * 6),
        np.zeros((100, 100)),
    ],
    ids=repr,
)
def test_every_value_comes_back(queue: MemQ, value: Any) -> None:
    for get in (queue.get, lambda: queue.get_many()[0], lambda: queue.lease().value):
        queue.put(value)
        got = get()
        assert type(got) is type(value)
        assert same(got, value)
        while not queue.empty():
            queue.get()


@given(values())
def test_drawn_values_come_back(value: Any) -> None:
    with MemQ(buffer_count=2) as queue:
        queue.put(value)
        frame = Frame.from_value(value)
        again = queue.get_frame()
        assert again.dtype == frame.dtype
        assert again.payload.tobytes() == frame.payload.tobytes()


def test_arrays_are_the_callers_own(queue: MemQ) -> None:
    queue.put(np.arange(3))
    got = queue.get()
    got[0] = 7
    queue.put(np.zeros(3))
    assert got.tolist() == [7, 1, 2]


def test_frames_travel_as_they_are(queue: MemQ) -> None:
    frame = Frame.from_value(
        np.arange(3, dtype="u1"), sequence=41, source=7, device_time=5, origin=(1, 2)
    )
    queue.put(frame)
    assert queue.get_frame().to_bytes() == frame.to_bytes()
    queue.put(b"abc", source=3, time_ns=9, device_time=2**63, device_sequence=4)
    got = queue.get_frame()
    assert (got.source, got.time_ns, got.device_time) == (3, 9, 2**63)
    assert (got.device_sequence, got.value, got.checksum) == (4, b"abc", True)
    queue.put(b"abc", device_time=-5)
    assert queue.get_frame().device_time == -5


def test_no_frame_carries_an_object(queue: MemQ) -> None:
    with pytest.raises(TypeError, match="no frame carries"):
        queue.put(object())
    with pytest.raises(TypeError):
        queue.put_many([b"a", object(), b"b"])
    assert queue.get_many() == [b"a"]
    with MemQ(allow_pickle=True) as open_queue:
        open_queue.put({1, 2})
        assert open_queue.get() == {1, 2}


def test_a_changed_byte_is_found_and_the_queue_goes_on(queue: MemQ) -> None:
    for k in range(4):
        queue.put(b"%d" % k * 20)
    assert queue._segment is not None
    payload = queue._segment.payload
    payload[queue._geometry[1] + 70] ^= 1
    assert queue.get() == b"0" * 20
    with pytest.raises(CorruptFrame):
        queue.get()
    assert queue.get_many() == [b"2" * 20, b"3" * 20]
    assert queue.statistics().corrupt == 1
    assert queue.statistics().used == 0


@pytest.mark.parametrize("at", range(64))
def test_a_changed_header_is_found(queue: MemQ, at: int) -> None:
    queue.put_many([b"one", b"two"])
    assert queue._segment is not None
    queue._segment.payload[at] ^= 0xFF
    with pytest.raises(CorruptFrame):
        queue.get_many()
    queue.put(b"next")
    seen = []
    for _ in range(3):
        try:
            seen.append(queue.get_nowait())
        except CorruptFrame:
            pass
        except QueueEmpty:
            break
    assert seen[-1] == b"next"
    assert queue.statistics().used == 0


# ---- room and waiting


def test_bounded_first_in_first_out(queue: MemQ) -> None:
    for turn in range(5):
        for k in range(8):
            queue.put_nowait((turn, k))
        assert queue.full()
        with pytest.raises(QueueFull) as caught:
            queue.put_nowait(b"")
        assert isinstance(caught.value, standard.Full)
        assert [queue.get_nowait() for _ in range(8)] == [(turn, k) for k in range(8)]
        assert queue.empty()
        with pytest.raises(QueueEmpty):
            queue.get_nowait()
    assert queue.statistics().refused == 5


def test_timeouts(queue: MemQ) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError) as caught:
        queue.get(timeout=0.05)
    assert isinstance(caught.value, standard.Empty)
    for _ in range(8):
        queue.put(b"")
    with pytest.raises(TimeoutError) as caught:
        queue.put(b"", timeout=0.05)
    assert isinstance(caught.value, standard.Full)
    assert time.monotonic() - began >= 0.1
    with pytest.raises(ValueError, match="timeout"):
        queue.get(timeout=-1)
    with pytest.raises(QueueFull):
        queue.put(b"", timeout=0)
    with pytest.raises(TimeoutError) as caught:
        queue.put_many([b""] * 3, timeout=0.01)
    assert caught.value.count == 0


def test_waits_end_when_something_happens(queue: MemQ) -> None:
    got: list[Any] = []
    getter = threading.Thread(target=lambda: got.append(queue.get(timeout=20)))
    getter.start()
    queue.put("late")
    getter.join(20)
    assert got == ["late"]
    for k in range(8):
        queue.put(k)
    putter = threading.Thread(target=queue.put, args=("full",))
    putter.start()
    assert queue.get() == 0
    putter.join(20)
    assert queue.get_many() == [1, 2, 3, 4, 5, 6, 7, "full"]


def test_threads_share_a_handle(queue: MemQ) -> None:
    got: list[int] = []

    def get() -> None:
        while (value := queue.get(timeout=20)) is not None:
            got.append(value)

    def put(first: int) -> None:
        for k in range(500):
            queue.put(first + k)

    getters = [threading.Thread(target=get) for _ in range(3)]
    putters = [threading.Thread(target=put, args=(1000 * k,)) for k in range(3)]
    for thread in getters + putters:
        thread.start()
    for thread in putters:
        thread.join(30)
    for _ in getters:
        queue.put(None)
    for thread in getters:
        thread.join(30)
    assert sorted(got) == [1000 * k + i for k in range(3) for i in range(500)]


def test_closing_ends_a_wait(queue: MemQ) -> None:
    other = MemQ.attach("q")
    caught: list[BaseException] = []

    def get() -> None:
        try:
            other.get()
        except NotConnectedError as error:
            caught.append(error)

    thread = threading.Thread(target=get)
    thread.start()
    while not other._users:
        time.sleep(0.001)
    other.close()
    thread.join(20)
    assert caught
    with pytest.raises(NotConnectedError, match="closed"):
        other.put(b"")
    other.close()


# ---- several frames to a slot


def test_small_frames_share_a_slot(queue: MemQ) -> None:
    assert queue.put_many([b"%d" % k for k in range(8)]) == 8
    assert (queue.qsize(), queue.statistics().used) == (8, 3)
    other = MemQ.attach("q")
    assert [queue.get(), other.get(), queue.get()] == [b"0", b"1", b"2"]
    assert other.get_many(2) == [b"3", b"4"]
    assert queue.get_many() == [b"5", b"6", b"7"]
    other.close()
    assert queue.put_many([b"a", b"b"], pack=False) == 2
    assert queue.statistics().used == 2
    assert queue.put_many([]) == 0


def test_at_most_64_frames_share_a_slot() -> None:
    with MemQ(buffer_count=4, buffer_size=1 << 16) as queue:
        queue.put_many(b"%d" % k for k in range(130))
        assert queue.statistics().used == 3
        assert queue.get_many() == [b"%d" % k for k in range(130)]


def test_numbers_are_unique(queue: MemQ) -> None:
    seen = []
    for _ in range(10):
        queue.put_many([b"a", np.arange(3), "x", b"d"])
        queue.put(b"e")
        seen += [queue.get_frame().sequence for _ in range(5)]
    assert len(set(seen)) == 50
    assert seen == sorted(seen)


# ---- large frames


def test_a_frame_that_fits_no_chunk_has_a_segment_of_its_own(
    queue: MemQ, context: Path
) -> None:
    queue._is_without_arena = True
    big = np.arange(100_000)
    queue.put_many([b"a", big, b"b"])
    assert len(os.listdir(context)) == 2
    assert queue.qsize() == 3
    assert queue.get() == b"a"
    got = queue.get()
    assert same(got, big)
    assert os.listdir(context) == ["q"]
    assert same(got, big)
    assert queue.get() == b"b"
    queue.put(big)
    with pytest.raises(LayoutError, match="not a work queue"):
        MemQ.attach(next(n for n in os.listdir(context) if n != "q"))


def test_only_a_queue_that_had_large_frames_looks_for_them_at_its_end(
    queue: MemQ, context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    real = lease.sweep_large

    def sweep(name: str, *more: Any) -> None:
        looked.append(name)
        real(name, *more)

    monkeypatch.setattr(memq, "sweep_large", sweep)
    monkeypatch.setattr(lease, "sweep_large", sweep)
    for large in (False, True):
        for end in ("close", "unlink"):
            with MemQ(f"{end}-{large}", 8, 64) as other:
                other.put(b"small")
                assert other.get() == b"small"
                if large:
                    other.put(bytes(1000))
                    assert other.get() == bytes(1000)
                getattr(other, end)()
    assert looked == ["close-True", "unlink-True"]


def test_a_large_frame_that_finds_no_room_leaves_nothing(
    queue: MemQ, context: Path
) -> None:
    for _ in range(8):
        queue.put(b"")
    with pytest.raises(QueueFull):
        queue.put_nowait(bytes(10_000))
    assert os.listdir(context) == ["q"]


def test_a_leased_large_frame_comes_again(queue: MemQ, context: Path) -> None:
    queue._is_without_arena = True
    queue.put(bytes(10_000))
    lease = queue.lease()
    lease.give_back()
    assert len(os.listdir(context)) == 2
    with queue.lease() as lease:
        assert lease.attempt == 2
        assert lease.value == bytes(10_000)
    assert os.listdir(context) == ["q"]


# ---- leases


def test_a_lease_is_acknowledged_or_given_back(queue: MemQ) -> None:
    queue.put("a")
    queue.put("b")
    with queue.lease() as first:
        assert (first.value, first.attempt) == ("a", 1)
        assert (queue.qsize(), queue.statistics().leased) == (1, 1)
    with pytest.raises(RuntimeError, match="boom"), queue.lease() as second:
        raise RuntimeError("boom")
    again = queue.lease()
    assert (again.value, again.attempt, again.id) == ("b", 2, second.id)
    again.acknowledge()
    again.acknowledge()
    again.give_back()
    assert queue.statistics().used == 0
    assert queue.statistics().redelivered == 1


def test_a_dropped_lease_is_given_back(queue: MemQ) -> None:
    queue.put("a")
    queue.lease()
    assert queue.get_nowait() == "a"


def test_a_closed_handle_gives_back(queue: MemQ) -> None:
    other = MemQ.attach("q")
    queue.put("a")
    queue.put_many([b"b", b"c", b"d"])
    with other.lease():
        assert (other.qsize(), queue.qsize()) == (3, 3)
    with other.lease():
        assert (other.qsize(), queue.qsize()) == (2, 0)
        queue.put("a")
    kept = [other.lease() for _ in range(2)]
    kept[1].acknowledge()
    other.close()
    assert not kept[0].is_over
    assert queue.get_many() == [b"c", "a"]


def test_a_long_lease_delays_no_getter(queue: MemQ) -> None:
    queue.put("slow")
    lease = queue.lease()
    for k in range(50):
        queue.put(k)
        assert queue.get() == k
    held = []
    for k in range(6):
        queue.put(k)
        held.append(queue.lease())
    queue.put("last")
    with pytest.raises(QueueFull):
        queue.put_nowait("none")
    assert queue.get() == "last"
    lease.acknowledge()
    for one in held:
        one.acknowledge()
    assert queue.statistics().used == 0


def test_a_lease_runs_out() -> None:
    with MemQ("q", 4, lease_timeout=0.05) as queue, MemQ.attach("q") as other:
        queue.put("a")
        slow = queue.lease()
        again = other.lease(timeout=20)
        assert (again.value, again.attempt) == ("a", 2)
        with pytest.raises(LeaseLost):
            slow.acknowledge()
        again.acknowledge()
        queue.put("b")
        slow = queue.lease()
        again = queue.lease(timeout=20)
        with pytest.raises(LeaseLost):
            slow.acknowledge()
        again.acknowledge()
        assert queue.statistics().lost_leases == 2
        assert queue.statistics().used == 0


def test_acknowledged_by_the_next_get(queue: MemQ) -> None:
    worker = MemQ.attach("q", acknowledge="next")
    queue.put(1)
    queue.put(2)
    assert worker.get() == 1
    assert queue.statistics().leased == 1
    assert worker.get() == 2
    assert queue.statistics().leased == 1
    worker.close()
    assert queue.statistics().used == 0


def test_acknowledged_by_task_done(queue: MemQ) -> None:
    worker = MemQ.attach("q", acknowledge="task_done")
    queue.put(1)
    queue.put(2)
    assert [worker.get(), worker.get()] == [1, 2]
    worker.task_done()
    with pytest.raises(TimeoutError):
        queue.join(timeout=0.02)
    worker.close()
    assert queue.get() == 2
    queue.join(timeout=0)
    with pytest.raises(ValueError, match="task_done"):
        queue.task_done()


# ---- runs


@pytest.mark.parametrize("acknowledge", [True, False])
def test_drain_is_frames_back_to_back(queue: MemQ, acknowledge: bool) -> None:
    sent = [b"a", np.arange(5), b"b" * 200, "text", bytes(3000), b"last"]
    queue.put_many(sent[:2])
    for value in sent[2:]:
        queue.put(value)
    buffer = bytearray(8192)
    got = []
    seed = crc32(b"uuid")
    while len(got) < len(sent):
        end, frames = queue.drain_into(buffer, seed=seed, acknowledge=acknowledge)
        at = 0
        for _ in range(frames):
            frame = Frame.from_buffer(bytes(buffer[:end]), at, seed=seed)
            got.append(frame.value)
            at += -(-frame.nbytes // 64) * 64
        assert at == end
    assert all(same(a, b) for a, b in zip(got, sent, strict=True))
    if not acknowledge:
        assert queue.statistics().leased == len(sent)
        queue.acknowledge_drained()
    assert queue.statistics().used == 0


def test_drained_and_not_acknowledged_goes_back(queue: MemQ) -> None:
    queue.put_many([b"a", b"b", b"c", bytes(3000)])
    with MemQ.attach("q") as other:
        buffer = bytearray(1 << 14)
        _, frames = other.drain_into(buffer, acknowledge=False)
        assert frames == 4
        other.give_back_drained()
        other.drain_into(buffer, acknowledge=False)
    got = queue.get_many()
    assert sorted(got) == sorted([b"a", b"b", b"c", bytes(3000)])


def test_a_buffer_too_small_takes_nothing(queue: MemQ) -> None:
    queue.put(b"a")
    with pytest.raises(DataOverflow, match="shorter"):
        queue.drain_into(bytearray(100))
    assert queue.get() == b"a"
    queue.put(bytes(10_000))
    with pytest.raises(DataOverflow, match="larger"):
        queue.drain_into(bytearray(2000))
    assert queue.get() == bytes(10_000)
    with pytest.raises(QueueEmpty):
        queue.drain_into(bytearray(2000), False)
    with pytest.raises(TimeoutError):
        queue.drain_into(bytearray(2000), timeout=0.01)


def test_a_put_past_a_leased_slot_leaves_the_frames_that_wait() -> None:
    with MemQ("q", 4, 256) as queue:
        for k in range(4):
            queue.put(bytes([k]) * 150)  # two do not fit into a slot
        first = queue.lease()
        assert queue.get()[0] == 1
        queue.put(bytes([4]) * 150)
        assert [queue.get(timeout=5)[0] for _ in range(3)] == [2, 3, 4]
        first.acknowledge()
        queue.join(timeout=5)


# ---- seen from outside


def test_a_context_lists_what_is_in_a_queue(queue: MemQ) -> None:
    queue._is_without_arena = True
    queue.put_many([b"a", b"b", b"c"])
    queue.put(bytes(10_000))
    lease = queue.lease()
    rows = {row.name: row for row in inspect()}
    assert rows["q"].content == queue.statistics()
    assert rows["q"].is_kept
    large = [row for row in rows.values() if row.name != "q"]
    assert [(row.kind, row.content, row.is_kept) for row in large] == [
        ("queue", None, True)
    ]
    text = CliRunner().invoke(main, ["ls"]).output
    assert "8 slots, 4 frames put; 1 wait, 3 leased" in text
    lease.acknowledge()
    queue.get_many(2)
    queue.get()
    assert len(inspect()) == 1


def test_a_getter_that_waits_marks_a_drained_queue_as_empty(queue: MemQ) -> None:
    """Then a queue whose processes are killed is removed, not kept for its frames."""
    queue.put(b"a")
    assert queue.get() == b"a"
    with pytest.raises(TimeoutError):
        queue.get(timeout=0.01)
    (row,) = inspect()
    assert not row.is_kept
    queue.put(b"b")
    with pytest.raises(TimeoutError):
        queue.join(timeout=0.01)
    (row,) = inspect()
    assert row.is_kept


# ---- names


def test_a_name_and_its_end(context: Path) -> None:
    queue = MemQ("q", 4)
    with pytest.raises(SegmentExists):
        MemQ("q", 4)
    other = attach("q")
    assert isinstance(other, MemQ)
    queue.close()
    assert os.listdir(context) == ["q"]
    other.put(b"kept")
    other.close()
    assert os.listdir(context) == ["q"]
    with pytest.raises(SegmentExists, match="undelivered"):
        MemQ("q", 4)
    last = MemQ.attach("q")
    assert last.get() == b"kept"
    last.close()
    assert os.listdir(context) == []
    with pytest.raises(SegmentNotFound):
        MemQ.attach("q")
    with pytest.raises(TimeoutError):
        MemQ.attach("q", timeout=0.01)


def test_unlink_takes_what_is_in_it(context: Path) -> None:
    queue = MemQ("q", 4)
    queue.put(b"a")
    queue.put(bytes(100_000))
    queue.unlink()
    assert os.listdir(context) == []


def test_more_handles_than_fit() -> None:
    with MemQ("q", 4, participants=1), pytest.raises(TooManyParticipants):
        MemQ.attach("q")


@pytest.mark.parametrize(
    "options",
    [
        {"buffer_count": 0},
        {"buffer_size": -1},
        {"lease_timeout": 0},
        {"acknowledge": "later"},
        {"name": "x" * 190},
        {"name": "a/b"},
    ],
    ids=repr,
)
def test_impossible_queues_are_refused(options: dict[str, Any], context: Path) -> None:
    with pytest.raises(ValueError, match=r"."):
        MemQ(**options)
    assert os.listdir(context) == []


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_every_start_method(method: str) -> None:
    start = multiprocessing.get_context(method)
    with MemQ(None, 8, 256) as questions, MemQ(None, 8, 256) as answers:
        child = start.Process(target=workers_queue.echo, args=(questions, answers))
        child.start()
        sent = [b"a", {"b": 1}, np.arange(3), bytes(5000)]
        for value in sent:
            questions.put(value)
            assert same(answers.get(timeout=30), value)
        questions.put(None)
        child.join(30)
        assert child.exitcode == 0
        questions.sweep()
        assert questions.statistics().used == 0
    if method == "forkserver":
        from multiprocessing import forkserver

        forkserver._forkserver._stop()  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_child_that_ends_cleanly_has_acknowledged(method: str) -> None:
    start = multiprocessing.get_context(method)
    with MemQ(None, 8, acknowledge="next") as queue:
        queue.put("a")
        child = start.Process(target=workers_queue.get_one, args=(queue,))
        child.start()
        child.join(30)
        assert child.exitcode == 0
        assert queue.statistics().used == 0
        assert queue.statistics().recoveries == 0


def test_ctrl_c_ends_a_wait(queue: MemQ) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            queue.get()
        for _ in range(8):
            queue.put(b"")
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            queue.put(b"")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(queue.get_many()) == 8
    assert queue._users == 0


def test_a_forked_copy_attaches_again_and_ends_nothing(context: Path) -> None:
    start = multiprocessing.get_context("fork")
    with MemQ("q", 8) as questions, MemQ("a", 8) as answers:
        questions.put("before")
        lease = questions.lease()
        child = start.Process(
            target=workers_queue.use_inherited, args=(questions, answers)
        )
        child.start()
        questions.put("x")
        questions.put(None)
        assert answers.get(timeout=30) == "x"
        child.join(30)
        assert child.exitcode == 0
        assert not lease.is_over
        lease.acknowledge()
        assert sorted(os.listdir(context)) == ["a", "q"]


def test_a_handle_that_shares_slots_keeps_its_order() -> None:
    with MemQ(buffer_count=8, buffer_size=1024) as queue:
        queue.share_slots()
        large = b"l" * 5000
        for value in (b"a", b"b", large, b"c"):
            queue.put(value)
        queue.put_many([b"d", b"e"])
        queue.put(b"f")
        assert queue.statistics().used == 5
        assert queue.get_many() == [b"a", b"b", large, b"c", b"d", b"e", b"f"]


def test_a_drained_frame_has_the_number_of_its_place() -> None:
    with MemQ(buffer_count=8, buffer_size=1024) as queue:
        queue.share_slots()
        for value in (b"a", b"b", b"l" * 5000, b"c"):
            queue.put(value)
        queue.put(Frame.from_value(b"l" * 5000, sequence=7))
        buffer, numbers = bytearray(1 << 14), []
        while not queue.empty():
            end, _ = queue.drain_into(buffer)
            at = 0
            while at < end:
                frame = Frame.from_buffer(buffer, at)
                numbers.append(frame.sequence)
                at += -(-frame.nbytes // 64) * 64
        assert numbers == [0, 1, 64, 128, 7]
