"""``Processor(gpu=...)``: one worker a GPU, which sees no other one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import workers_gpu
from gpu_rig import fake_driver

from ataraxis import MemQ, Pipe, Processor
from ataraxis.errors import GpuUnavailable
from ataraxis.gpu import drivers
from ataraxis.gpu.drivers import visible_gpus
from ataraxis.pipeline.engine import Local
from ataraxis.pipeline.graph import GraphNode
from ataraxis.stream import arena


def seen(**settings: Any) -> set[tuple[str, int]]:
    """Run 40 values through workers; return which GPUs each process saw."""
    pipe = Pipe("gpus")
    pipe.add(Processor("see", func=workers_gpu.visible, **settings))
    results: list[Any] = []
    with pipe.run(range(40), results) as run:
        run.wait(60)
    return {(gpu, pid) for gpu, pid in results}


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5e")


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_one_worker_a_gpu(start: str) -> None:
    pipe = Pipe("gpus")
    pipe.add(Processor("see", func=workers_gpu.visible, gpu=True))
    results: list[Any] = []
    with pipe.run(range(40), results, engine=Local(start=start)) as run:
        run.wait(60)
    found = {(gpu, pid) for gpu, pid in results}
    assert {gpu for gpu, _ in found} <= {"3", "GPU-5e"}
    assert len(found) == len({pid for _, pid in found})


@pytest.mark.usefixtures("two")
def test_the_specifications_name_gpus() -> None:
    assert gpus_of(gpu=True) == ["3", "GPU-5e"]
    assert gpus_of(gpu=True, workers=5) == ["3", "GPU-5e", "3", "GPU-5e", "3"]
    assert gpus_of(gpu=1) == ["GPU-5e"]
    assert gpus_of(gpu=0, workers=2) == ["3", "3"]
    assert gpus_of(gpu=None) == [None]
    assert gpus_of(gpu=False) == [None]


def gpus_of(**settings: Any) -> list[str | None]:
    node = GraphNode(Processor("see", func=workers_gpu.visible, **settings), 0)
    return [node.gpu_of(k) for k in range(node.settings.workers)]


@pytest.mark.usefixtures("two")
def test_a_number_is_one_gpu() -> None:
    assert {gpu for gpu, _ in seen(gpu=1)} == {"GPU-5e"}


@pytest.mark.parametrize("wanted", [True, 0, 2])
def test_a_gpu_that_is_missing_is_told(
    monkeypatch: pytest.MonkeyPatch, wanted: Any
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(GpuUnavailable, match=r"'see': gpu=.*shows 0 GPUs.*leave out"):
        seen(gpu=wanted)


def test_what_is_not_a_gpu_is_refused() -> None:
    with pytest.raises(ValueError, match="number of a GPU, got -1"):
        Processor("see", func=abs, gpu=-1)
    with pytest.raises(ValueError, match="got 'cuda:0'"):
        Processor("see", func=abs, gpu="cuda:0")


@pytest.mark.parametrize(
    ("named", "found"),
    [("", []), ("-1", []), ("0,1", ["0", "1"]), ("2,-1,3", ["2"]), (" 1 ", ["1"])],
)
def test_visible_gpus_are_those_of_cuda(
    monkeypatch: pytest.MonkeyPatch, named: str, found: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus() == found


# ---- the arena of the input queue


def test_the_arena_is_locked_once_it_is_used() -> None:
    with fake_driver() as driver:
        queue = MemQ("q", buffer_count=8, buffer_size=256)
        getter = MemQ.attach("q")
        getter.pin_arena()
        assert driver.registered == {}
        for k in range(3):
            queue.put(np.full(1 << 16, k, "u1"))
            assert getter.get()[0] == k
        assert [name for _, name, _ in driver.calls] == ["register"]
        getter.close()
        assert driver.registered == {}
        queue.unlink()


def test_values_outside_of_the_arena_are_counted_and_warned_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arena, "LEAST_BYTES", 1 << 20)
    monkeypatch.setattr(arena, "MOST_BYTES", 1 << 20)
    with fake_driver():
        queue = MemQ("q", buffer_count=8, buffer_size=256)
        getter = MemQ.attach("q")
        getter.pin_arena()
        queue.put(np.zeros(1 << 10, "u1"))
        assert len(getter.get()) == 1 << 10
        assert getter.unpinned_count == 0
        queue.put(np.zeros(1 << 22, "u1"))
        with pytest.warns(RuntimeWarning, match="outside of the page-locked arena"):
            assert len(getter.get()) == 1 << 22
        queue.put(np.ones(1 << 22, "u1"))
        assert getter.get()[-1] == 1  # warned of once
        assert getter.unpinned_count == 2
        getter.close()
        queue.unlink()


def test_an_arena_that_cannot_be_locked_is_used_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drivers, "_is_installed", lambda module: False)
    queue = MemQ("q", buffer_count=8, buffer_size=256)
    queue.pin_arena()
    with pytest.warns(RuntimeWarning, match="arena of queue 'q' cannot be page-locked"):
        queue.put(np.zeros(1 << 16, "u1"))
    assert len(queue.get()) == 1 << 16
    queue.unlink()
