"""Pipes of large values: views, results in place, one copy from a stream, kills."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import workers_pipe as w
from deadline import wait_until
from pipelines import chain

from ataraxis import Consumer, MemQ, Producer
from ataraxis.pipeline import Pipe, Processor, Restart
from ataraxis.pipeline.run import Run

QUICK = Restart(limit=None, backoff_s=0.01)


def arenas(context: Path) -> list[MemQ]:
    """Return the queues of a context that have an arena."""
    names = sorted(p.name for p in context.iterdir() if "~" in p.name)
    return [MemQ.attach(name.rpartition("~")[0], context=context) for name in names]


# ---- views


def test_a_worker_sees_a_large_input_as_a_read_only_view() -> None:
    pipe = chain(Processor("a", func=w.is_writable))
    assert list(pipe.map([np.zeros(10), np.zeros(100_000)])) == [True, False]


def test_a_result_is_a_copy_that_the_caller_owns(context: Path) -> None:
    values = [w.of_size(k) for k in range(20)]
    pipe = chain(Processor("a", func=w.passes_on_whole))
    results = list(pipe.map(values))
    for value, result in zip(values, results, strict=True):
        assert np.array_equal(value, result)
        assert result.flags.writeable
    assert os.listdir(context) == []


def test_views_that_a_worker_keeps_never_change() -> None:
    values = [np.full(10_000 + 5000 * (k % 3), k) for k in range(60)]
    pipe = chain(Processor("a", func=w.Keeps))
    assert list(pipe.map(values)) == list(range(1, 61))


# ---- results in place


def test_a_result_is_written_where_it_will_lie() -> None:
    values = [w.of_size(k) for k in range(30)]
    pipe = chain(
        Processor("a", func=w.ToTheRight),
        Processor("b", func=w.ToTheRight),
        Processor("c", func=w.to_the_left),
    )
    for k, result in enumerate(pipe.map(values)):
        assert w.number_of(result) == 2 * (2 * (2 * k + 1) + 1)
        assert len(result) == len(values[k])


def test_an_array_of_empty_is_sent_once_without_a_copy() -> None:
    pipe = chain(Processor("forward", func=w.forwards_in_place))
    value = np.arange(100_000)
    half, whole, again, place = pipe.map([value])
    assert np.array_equal(half, value[:50_000])
    assert np.array_equal(whole, value.reshape(2, -1))
    assert np.array_equal(again, value)
    assert place[0] == 0


def test_empty_is_an_ordinary_array_where_there_are_several_children() -> None:
    pipe = Pipe("p")
    first = pipe.add(Processor("a", func=w.ToTheRight))
    for name in "bc":
        first.add(Processor(name, func=w.passes_on_whole))
    results = list(pipe.map([np.full(50_000, k) for k in range(5)]))
    assert sorted(map(w.number_of, results)) == sorted(2 * [1, 3, 5, 7, 9])


# ---- a stream


def test_a_frame_of_a_stream_is_whole() -> None:
    pipe = chain(Processor("a", func=w.passes_on_whole))
    found: list[Any] = []
    camera = Producer("s", shape=(50_000,), dtype="i8", buffer_count=4)
    with pipe.run(Consumer("s", policy="lossless"), found.append) as run:
        run.wait_until_ready(60)
        for k in range(40):
            camera.send(np.full(50_000, k), timeout=30)
        camera.close()
        run.wait(60)
    assert [w.number_of(value) for value in found] == list(range(40))


# ---- deaths


def diamond(how: dict[str, Any]) -> Pipe:
    common: dict[str, Any] = {"restart": QUICK, "attempts": 1000, "buffer_count": 32}
    pipe = Pipe("diamond")
    split = pipe.add(Processor("split", func=w.passes_on_whole, **common))
    merge = Processor("merge", func=w.passes_on_whole, **common)
    for name, func in (("left", w.to_the_left), ("right", w.ToTheRight)):
        stage = Processor(name, func=func, workers=2, **how, **common)
        split.add(stage).add(merge)
    return pipe


@pytest.mark.parametrize("how", [{"ordered": True}, {}], ids=["ordered", "any order"])
def test_a_diamond_of_all_sizes_under_kills(how: dict[str, Any], context: Path) -> None:
    run_diamond(diamond(how), how, context, 400, 4, 300)


def run_diamond(
    pipe: Pipe,
    how: dict[str, Any],
    context: Path,
    values: int,
    kills: int,
    seconds: float,
) -> None:
    """Every value comes out once on each side, in order, and all chunks are free."""
    left: list[int] = []
    right: list[int] = []

    def take(value: Any) -> None:
        number = w.number_of(value)
        side = right if number % 2 else left
        assert len(value) == len(w.of_size(number // 2))
        side.append(number // 2)

    done = 0
    with pipe.run(sink=take) as run:
        run.wait_until_ready(120)
        for k in range(values):
            assert run.emit(w.of_size(k), timeout=None)
            if (k + 1) % (values // kills) == 0:
                done += kill_one(run, k)
        wait_until(lambda: len(left) + len(right) >= 2 * values, seconds, "the results")
        for queue in arenas(context):
            wait_until(lambda q=queue: q.sweep() or q.arena_bytes == 0, 30, queue.name)  # type: ignore[misc]
            queue.close()
        run.stop()
    assert done == kills
    for side in (left, right):
        assert (side if how else sorted(side)) == list(range(values))
    assert os.listdir(context) == []


def kill_one(run: Run, k: int) -> int:
    """Kill a worker that takes part."""
    wait_until(lambda: all(run.workers.values()), 60, "all processes")
    pid = sorted(pid for pid in run.workers.values() if pid is not None)[k % 5]
    os.kill(pid, signal.SIGKILL)
    return 1
