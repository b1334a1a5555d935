"""Replay: what is delivered, when, into what, and how it ends."""

from __future__ import annotations

import asyncio
import multiprocessing
import pickle
import queue
import threading
import time

import numpy as np
import pytest
from datamux_rig import counting, drained, drained_async
from deadline import wait_until
from ids import plain

import ataraxis.datamux as dm
from ataraxis import Consumer
from ataraxis.datamux.sinks.adapt import sink_of
from ataraxis.errors import QueueFull, SourceNotFound


@pytest.fixture
def api(tmp_path):
    with dm.API(tmp_path, tmp_path) as api:
        yield api


def numbers(items) -> list[int]:
    return [item["value"]["c0"] for item in items]


# ---- the end


def test_the_end_is_one_thing_whatever_its_reason():
    end = dm.END_OF_STREAM
    lost = dm.End("lost", ConnectionError("cable"))
    assert pickle.loads(pickle.dumps(end)) is end
    copy = pickle.loads(pickle.dumps(lost))
    assert (copy.reason, str(copy.error)) == ("lost", "cable")
    assert copy == end == lost
    assert not lost
    assert end != {}
    assert end != 0
    assert (np.arange(3) == end) is False
    assert (end == np.arange(3)) is False
    assert dm.util.END_OF_STREAM is end
    assert "cable" in repr(lost)


def test_an_error_that_cannot_be_pickled_travels_as_text():
    class Odd(Exception):
        def __init__(self, a, b):
            super().__init__(a)

    copy = pickle.loads(pickle.dumps(dm.End("failed", Odd("x", 2))))
    assert copy.reason == "failed"
    assert str(copy.error) == "Odd: x"


# ---- what is delivered


def test_items_are_the_seeds_dicts_of_python_scalars(api):
    sink = queue.Queue()
    api.replay(counting(3), sink, rate_limit=False)
    items, end = drained(sink)
    assert items[1] == {"index": {"t": 0.01}, "value": {"c0": 1, "c1": 1}}
    assert type(items[1]["value"]["c0"]) is int
    assert end is dm.END_OF_STREAM


def test_blocks_hold_every_sample_once_in_order(api):
    sink = queue.Queue()
    recording = counting(10_000)
    api.replay(recording, sink, rate_limit=False, deliver="block", block=999)
    blocks, _ = drained(sink)
    assert [b.sequence for b in blocks] == list(range(0, 10_000, 999))
    whole = np.concatenate([b.array for b in blocks])
    np.testing.assert_array_equal(whole, recording.read().array)
    assert np.shares_memory(blocks[3].array, recording.read().array)
    with pytest.raises(ValueError, match="read-only"):
        blocks[0].array[0] = 1
    np.testing.assert_array_equal(np.concatenate([b.t for b in blocks]), recording.t)


def test_xarray_is_wrapped_so_that_the_end_can_be_compared(api):
    sink = queue.Queue()
    api.replay(counting(5), sink, rate_limit=False, deliver="xarray")
    (item,), _ = drained(sink)
    assert item.dataset["c0"].values.tolist() == [0, 1, 2, 3, 4]
    assert item.dataset["time"].attrs["units"] == "s"


def test_times_are_relative_or_as_recorded(api):
    stream = dm.Stream("x", fields={"v": dm.Field()}, index={"t": dm.Field(unit="ms")})
    columns = {"t": np.array([5000.0, 5250.0]), "v": np.array([1.0, 2.0])}
    recording = dm.Recording.of(stream, columns)
    for relative, expected in [(True, [0.0, 0.25]), (False, [5.0, 5.25])]:
        sink = queue.Queue()
        api.replay(recording, sink, rate_limit=False, use_relative_ts=relative)
        items, _ = drained(sink)
        assert [item["index"]["t"] for item in items] == expected


def test_transform_is_applied_to_items_and_its_error_ends_the_stream(api):
    sink = queue.Queue()
    api.replay(counting(3), sink, lambda x: x["value"]["c0"] * 2, rate_limit=False)
    assert drained(sink)[0] == [0, 2, 4]
    ack = api.replay(counting(3), sink, lambda x: 1 / x["value"]["c0"], False)
    items, end = drained(sink)
    assert items == []
    assert (end.reason, type(end.error)) == ("failed", ZeroDivisionError)
    assert ack.wait(5).error is ack.error


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"start": 0.05}, [*range(5, 10)]),
        ({"stop": 0.03}, [0, 1, 2]),
        ({"start": 0.02, "stop": 0.04}, [2, 3]),
        ({"loop": 2}, [*range(10)] * 2),
        ({"loop": 3, "start": 0.08}, [8, 9] * 3),
    ],
    ids=str,
)
def test_a_part_and_again(api, options, expected):
    sink = queue.Queue()
    api.replay(counting(10), sink, rate_limit=False, **options)
    items, _ = drained(sink)
    assert numbers(items) == expected
    times = [item["index"]["t"] for item in items]
    np.testing.assert_allclose(np.diff(times), 0.01)


# ---- in time


def test_a_block_is_never_before_its_last_sample_and_nothing_adds_up(api):
    began, seen = time.monotonic(), []
    recording = counting(60, rate=100)
    ack = api.replay(
        recording,
        lambda b: seen.append((time.monotonic(), b)),
        deliver="block",
        block=7,
    )
    ack.wait(20)
    for at, block in seen[:-1]:
        assert at - began >= block.t[-1]
    late = ack.task.statistics().lateness
    assert late.count == 9
    assert 0 <= late.median_s <= late.p99_s <= late.max_s
    assert seen[-1][1] == dm.END_OF_STREAM


def test_speed_and_declared_frequency(api):
    stream = dm.Stream("x", frequency=1000, fields={"v": dm.Field()})
    columns = {"t": np.array([0.0, 0.2, 100.0]), "v": np.zeros(3)}
    recording = dm.Recording.of(stream, columns)
    sink = queue.Queue()
    began = time.monotonic()
    api.replay(recording, sink, strict_time=False)
    assert len(drained(sink)[0]) == 3
    assert time.monotonic() - began < 50  # not the 100 s that were recorded
    api.replay(recording, sink, speed=1000, stop=100.5)
    began = time.monotonic()
    assert len(drained(sink)[0]) == 3
    assert time.monotonic() - began >= 0.09


def test_pause_resume_and_seek(api):
    sink = queue.Queue()
    ack = api.replay(counting(100_000, rate=1000), sink, paused=True, block=1)
    assert ack.task.timeline.is_paused
    ack.task.seek(50.0)
    assert sink.empty()
    ack.task.resume()
    assert sink.get(timeout=10)["value"]["c0"] == 50_000
    ack.task.pause()
    ack.task.seek(99.995)
    wait_until(lambda: ack.task.timeline.position_s == 99.995)
    while not sink.empty():
        sink.get()
    ack.task.resume()
    items, end = drained(sink)
    assert numbers(items)[-5:] == [*range(99_995, 100_000)]
    assert end.reason == "completed"
    with pytest.raises(ValueError, match="seek"):
        ack.task.seek(float("nan"))


def test_two_recordings_on_one_clock(api):
    clock = dm.Timeline()
    clock.pause()
    sinks = [queue.Queue(), queue.Queue()]
    acks = [api.replay(counting(1000), s, timeline=clock, block=1) for s in sinks]
    acks[0].task.seek(9.97)
    clock.resume()
    assert [numbers(drained(s)[0]) for s in sinks] == [[997, 998, 999]] * 2


def test_speed_may_change_and_must_be_one():
    timeline = dm.Timeline(2.0)
    timeline.begin(10.0)
    timeline.pause()
    held = timeline.position_s
    assert 10.0 <= held < 15.0
    timeline.speed = 1e6
    assert timeline.position_s == held
    timeline.resume()
    assert timeline.wait(held + 10.0, 0, lambda: False) >= 0
    for speed in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="speed must be above 0"):
            dm.Timeline(speed)


def test_lateness_knows_a_drift_from_a_busy_machine():
    from ataraxis.datamux.statistics import Lateness

    rng = np.random.default_rng(4)
    slow = np.convolve(rng.exponential(1e6, 6300), np.ones(300) / 300, "valid")
    for drift in (0.0, 1e-3):
        lateness = Lateness()
        for i, noise in enumerate(slow[:6000].tolist()):
            now = 5 * 10**9 + i * 10**7
            lateness.add(now, round(noise + drift * i * 10**7))
        found = lateness.summary()
        assert found.count == 6000
        assert abs(found.slope - drift) < 4 * found.slope_error
        assert (found.slope > 10 * found.slope_error) == (drift > 0)
    assert found.max_s >= found.p99_s >= found.median_s > 0
    few = Lateness()
    few.add(1, 2)
    assert few.summary().slope_error == float("inf")


# ---- sinks


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue", "bounded", "lifo of one"])
def test_queues_of_threads(api, kind):
    sink = {
        "Queue": queue.Queue,
        "SimpleQueue": queue.SimpleQueue,
        "bounded": lambda: queue.Queue(3),
        "lifo of one": lambda: queue.LifoQueue(1),
    }[kind]()
    ack = api.replay(counting(500), sink, rate_limit=False)
    assert numbers(drained(sink)[0]) == [*range(500)]
    assert ack.wait(5).reason == "completed"
    assert ack.task.statistics().delivered == 500


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue", "JoinableQueue"])
def test_queues_of_processes(api, kind):
    sink = getattr(multiprocessing.get_context("spawn"), kind)()
    api.replay(counting(50), sink, rate_limit=False)
    items, end = drained(sink)
    assert numbers(items) == [*range(50)]
    assert end is dm.END_OF_STREAM
    api.replay(counting(50), sink, rate_limit=False, deliver="block")
    (block,), _ = drained(sink)
    assert block.records()[7]["value"] == {"c0": 7, "c1": 7}
    assert block.stream.frequency == 100.0
    sink.close()
    if hasattr(sink, "join_thread"):
        sink.join_thread()


@pytest.mark.parametrize("size", [0, 1, 10])
def test_an_asyncio_queue_gets_all_whatever_its_size(api, size):
    async def main():
        sink = asyncio.Queue(size)
        ack = await api.replay(counting(3000), sink, rate_limit=False, block=100)
        items, _ = await drained_async(sink)
        assert numbers(items) == [*range(3000)]
        assert (await ack.done()).reason == "completed"

    asyncio.run(main())


def test_an_asyncio_queue_without_its_loop_is_refused(api):
    with pytest.raises(RuntimeError, match="from an async function"):
        api.replay(counting(3), asyncio.Queue())


def test_a_loop_that_was_closed_ends_the_task(api):
    async def main():
        return api.replay(counting(10_000), asyncio.Queue(5), rate_limit=False)

    ack = asyncio.run(main())
    end = ack.wait(10)
    assert end.reason == "failed"
    assert "loop" in str(end.error)


def test_coroutine_functions_are_awaited_in_turn(api):
    seen = []

    async def take(item):
        await asyncio.sleep(0)
        seen.append(item)

    async def main():
        ack = api.replay(counting(20), take, rate_limit=False)
        return await ack.done()

    assert asyncio.run(main()).reason == "completed"
    assert numbers(seen[:-1]) == [*range(20)]
    assert seen[-1] == dm.END_OF_STREAM


def test_a_callable_that_raises_ends_the_stream(api):
    def take(item):
        if item != dm.END_OF_STREAM:
            raise KeyError("mine")

    end = api.replay(counting(3), take, rate_limit=False).wait(5)
    assert (end.reason, type(end.error)) == ("failed", KeyError)


def test_a_producer_keeps_every_sample_and_stamp(api):
    recording = counting(300)
    with dm.producer_of(recording.stream, "count", sync=True) as producer:
        reader = Consumer("count")
        ack = api.replay(recording, producer, rate_limit=False)
        frames = [(f.array.copy(), f.device_time, f.device_sequence) for f in reader]
        assert ack.wait(5).reason == "completed"
        reader.close()
    values, stamps, numbered = zip(*frames, strict=True)
    np.testing.assert_array_equal(np.array(values), recording.read().array)
    np.testing.assert_array_equal(stamps, recording.read().time_ns)
    assert list(numbered) == [*range(300)]
    assert producer.labels.attrs["rate_hz"] == 100


def test_a_producer_of_chunks_gets_them_whole(api):
    recording = counting(105)
    made = dm.producer_of(recording.stream, "chunks", samples=10, sync=True)
    with made as producer, Consumer("chunks") as reader:
        ack = api.replay(recording, producer, rate_limit=False, block=7)
        frames = [(f.array.copy(), f.device_time, f.device_sequence) for f in reader]
    assert len(frames) == 10
    assert frames[3][0][:, 0].tolist() == [*range(30, 40)]
    assert frames[3][1:] == (300_000_000, 30)
    assert ack.task.statistics().dropped == 5


def test_a_producer_that_does_not_fit_is_refused(api):
    from ataraxis import Producer

    with Producer("bytes", 64, 8) as producer, pytest.raises(TypeError, match="bytes"):
        api.replay(counting(3), producer)
    with Producer("other", shape=(7,), dtype="f4") as producer:
        end = api.replay(counting(3), producer, rate_limit=False).wait(5)
        assert (end.reason, type(end.error)) == ("failed", ValueError)
        producer.unlink()


@pytest.mark.parametrize("sink", [3, None, object()], ids=plain)
def test_an_invalid_sink_is_refused_in_the_call(api, sink):
    with pytest.raises(TypeError, match="sink must be a queue"):
        api.replay(counting(3), sink)


def test_drops_of_a_full_sink_are_counted(api):
    for on_full, kept in [("drop_newest", [0, 1, 2, 3]), ("drop_oldest", [6, 7, 8, 9])]:
        sink = queue.Queue(4)
        ack = api.replay(counting(10), sink, rate_limit=False, on_full=on_full)
        end = ack.wait(10)
        assert end.reason == "completed"
        items, _ = drained(sink)
        assert numbers(items) == kept[1:]  # one was dropped for the end
        assert ack.task.statistics().dropped == 7
    sink = queue.Queue(4)
    end = api.replay(counting(10), sink, rate_limit=False, on_full="raise").wait(10)
    assert (end.reason, type(end.error)) == ("failed", QueueFull)
    with pytest.raises(ValueError, match="on_full must be one of"):
        sink_of(queue.Queue(), "drop")


@pytest.mark.parametrize("on_full", ["drop_newest", "drop_oldest", "raise"])
def test_a_full_asyncio_sink_does_what_on_full_demands(api, on_full):
    async def main():
        sink = asyncio.Queue(4)
        ack = api.replay(counting(10), sink, rate_limit=False, on_full=on_full)
        end = await ack.done()
        items, found = await drained_async(sink)
        assert found.reason == end.reason
        return numbers(items), end, ack.task.statistics()

    kept, end, statistics = asyncio.run(main())
    if on_full == "raise":
        assert type(end.error) is QueueFull
    else:
        assert kept == {"drop_newest": [1, 2, 3], "drop_oldest": [7, 8, 9]}[on_full]
        assert statistics.dropped == 7


def test_an_unbounded_queue_is_bounded_by_buffer(api):
    sink = queue.SimpleQueue()
    ack = api.replay(counting(1000), sink, rate_limit=False, buffer=10)
    wait_until(lambda: sink.qsize() >= 10)
    assert not ack.task.is_done
    assert sink.qsize() <= 11
    assert numbers(drained(sink)[0]) == [*range(1000)]


# ---- stopping


def test_stop_ends_the_stream_and_says_so(api):
    sink = queue.Queue()
    ack = api.replay(counting(100_000), sink)
    sink.get(timeout=10)
    stopped = api.stop_task(ack.randseq)
    assert stopped.status
    assert stopped.randseq == ack.randseq
    assert drained(sink)[1].reason == "stopped" == ack.reason
    assert api.stop_task(ack.randseq).status
    with pytest.raises(SourceNotFound, match="no task 'nonsense'"):
        api.stop_task("nonsense")


@pytest.mark.parametrize("kind", ["thread", "asyncio"])
def test_stop_with_a_full_sink_and_a_reader_that_left(api, kind):
    async def main():
        sink = (asyncio if kind == "asyncio" else queue).Queue(3)
        ack = api.replay(counting(100), sink, rate_limit=False)
        while not sink.full():
            await asyncio.sleep(0.001)
        assert api.stop_task(ack.randseq).status
        await asyncio.sleep(0)
        items = [sink.get_nowait() for _ in range(sink.qsize())]
        assert items[-1] == dm.END_OF_STREAM
        assert items[-1].reason == "stopped"

    asyncio.run(main())


def test_stop_while_paused_and_from_inside(api):
    sink = queue.Queue()
    ack = api.replay(counting(10), sink, paused=True)
    assert api.stop_task(ack.randseq).status
    assert sink.get_nowait().reason == "stopped"
    seen, box = [], queue.Queue()

    def take(item):
        seen.append(item)
        if len(seen) == 1:
            api.stop_task(box.get())

    ack = api.replay(counting(10), take, rate_limit=False)
    box.put(ack.randseq)
    assert ack.wait(5).reason == "stopped"
    assert len(seen) == 2


def test_no_thread_outlives_its_api(tmp_path):
    before = threading.active_count()
    with dm.API(tmp_path, tmp_path) as api:
        for _ in range(5):
            api.replay(counting(1000), queue.Queue())
        assert threading.active_count() == before + 5
    assert threading.active_count() == before


def test_ids_do_not_follow_pythons_seed(api):
    import random

    ids = set()
    for _ in range(2):
        random.seed(0)
        ids.add(api.replay(counting(1), queue.Queue()).randseq)
    assert len(ids) == 2
    assert all(i.startswith("d_") for i in ids)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speed": 0}, "speed must be above 0, got 0"),
        ({"start": -1}, "start must be 0 s or more, got -1"),
        ({"start": 99.0}, "no sample is between"),
        ({"block": 0}, "block must be more than 0, got 0"),
        ({"block": "many"}, "got 'many'"),
        ({"deliver": "dict"}, "got 'dict'"),
        ({"on_full": "maybe"}, "got 'maybe'"),
        ({"policy": "maybe"}, "got 'maybe'"),
        ({"buffer": 0}, "buffer must be at least 1 item, got 0"),
        ({"transform": 3}, "transform must be callable, got 3"),
    ],
    ids=str,
)
def test_invalid_options_are_refused_in_the_call(api, options, message):
    sink = queue.Queue()
    with pytest.raises((ValueError, TypeError), match=message):
        api.replay(counting(3), sink, **options)
    assert sink.empty()
    api.replay(counting(3), sink, rate_limit=False)
    assert len(drained(sink)[0]) == 3


def test_events_cannot_be_paced_by_a_frequency_they_do_not_have(api):
    with pytest.raises(ValueError, match="has no frequency"):
        api.replay(counting(3, rate=None), queue.Queue(), strict_time=False)


@pytest.mark.parametrize("n", [0, 1])
def test_no_sample_and_one_sample_are_recordings_too(api, n):
    sink = queue.Queue()
    api.replay(counting(n), sink)
    items, end = drained(sink)
    assert (len(items), end.reason) == (n, "completed")
