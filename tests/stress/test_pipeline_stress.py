"""Pipes whose workers are killed, for long: no value is lost or repeated."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import test_pipeline
import test_pipeline_large
import workers_pipe as w

from ataraxis.pipeline import Pipe, Processor, Restart

HOW = {
    "ordered": {"ordered": True},
    "in any order": {},
    "by key": {"key": w.rest_of},
    "by key, ordered": {"key": w.rest_of, "ordered": True},
}


def diamond(context: Path, how: dict[str, Any]) -> Pipe:
    restart = Restart(limit=None, backoff_s=0.01)
    pipe = Pipe("diamond", context=context)
    common = {"restart": restart, "attempts": 1000}
    split = pipe.add(Processor("split", func=w.same, **common))
    merge = Processor("merge", func=w.same, **common)
    for name, func in (("left", w.left), ("right", w.right)):
        stage = Processor(name, func=func, workers=2, **how, **common)
        split.add(stage).add(merge)
    return pipe


@pytest.mark.parametrize("how", HOW)
def test_a_diamond_under_kills(
    how: str, arena: Path, figure: Callable[..., float]
) -> None:
    frames, kills = int(figure(500_000, 4000)), int(figure(100, 4))
    left: list[int] = []
    right: list[int] = []

    def take(value: tuple[str, int]) -> None:
        (left if value[0] == "l" else right).append(value[1])

    done = 0
    deadline = time.monotonic() + 3600
    with diamond(arena, HOW[how]).run(range(frames), take) as run:
        run.wait_until_ready(120)
        while run.state == "running" and done < kills:
            goal = frames * 2 * (done + 1) // (kills + 2)
            while len(left) + len(right) < goal and run.state == "running":
                assert time.monotonic() < deadline
                time.sleep(0.01)
            pid = random.choice(list(run.workers.values()))
            if pid is not None and run.state == "running":
                os.kill(pid, signal.SIGKILL)
                done += 1
    assert done >= kills - 1
    assert int(run.statistics().restarts.sum()) >= done - 1
    for side in (left, right):
        assert len(side) == frames
        assert (side if "ordered" in how else sorted(side)) == list(range(frames))
        if "key" in how:
            for rest in range(7):
                assert side_of(side, rest) == list(range(rest, frames, 7))


@pytest.mark.parametrize("how", [{"ordered": True}, {}], ids=["ordered", "any order"])
def test_a_diamond_of_all_sizes_under_kills(
    how: dict[str, Any],
    arena: Path,
    monkeypatch: pytest.MonkeyPatch,
    figure: Callable[..., float],
) -> None:
    """Values of 100 B to 4 MB: once, in order; all chunks are free at the end."""
    monkeypatch.setenv("ATARAXIS_CONTEXT", str(arena))
    pipe = test_pipeline_large.diamond(how)
    values, kills = int(figure(1_000_000, 1000)), int(figure(100, 5))
    test_pipeline_large.run_diamond(pipe, how, arena, values, kills, 7200)


def side_of(side: list[int], rest: int) -> list[int]:
    return [value for value in side if w.rest_of(value) == rest]


def test_the_seeds_counter_again_and_again(figure: Callable[..., float]) -> None:
    for _ in range(int(figure(50, 1))):
        lines = test_pipeline.run_counter(100_000)
        assert lines[-1] == "Running"
        assert "[b] embedded processor b completed" in lines
        assert "[b] timeout" not in lines
