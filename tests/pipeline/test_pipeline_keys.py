"""Several workers by key: one of them gets all values of a key, in order."""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import workers_pipe as w
from deadline import wait_until
from pipelines import chain

from ataraxis.errors import PipeError
from ataraxis.pipeline import Pipe, Processor, Restart
from ataraxis.pipeline.partition import Key, Router, number_of

QUICK = Restart(limit=None, backoff_s=0.01)
VALUES = [{"mouse": k * k % 7, "at": k} for k in range(600)]


def of_each_mouse(found: list[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    sorted_out = defaultdict(list)
    for value in found:
        sorted_out[value["mouse"]].append(value)
    return sorted_out


# ---- which worker


@pytest.mark.parametrize(
    ("one", "other"),
    [(5, 5.0), (1, True), (7, np.uint8(7)), ("a", np.str_("a")), (2.5, np.float32(2.5)),
     (("a", 1), ("a", 1.0)), (3, np.array(3))],
)  # fmt: skip
def test_equal_keys_have_equal_numbers(one: object, other: object) -> None:
    assert number_of(one) == number_of(other)


def test_numbers_are_spread_and_do_not_change() -> None:
    assert [number_of(k) for k in range(4)] == [0, 1, 2, 3]
    # Part of the format: every version must distribute keys in the same way.
    assert number_of("mouse") == 2939533037
    assert number_of((1, "a", None, b"b")) == 2317675420
    places = [Router(Key(0), "p", 3).worker_of([f"cell {k}"]) for k in range(300)]
    assert all(places.count(k) > 60 for k in range(3))


@pytest.mark.parametrize("key", [w.mouse_of, "mouse", lambda value: value["mouse"]])
@pytest.mark.parametrize("ordered", [False, True])
def test_a_key_is_always_at_one_worker_and_in_order(key: object, ordered: bool) -> None:
    pipe = chain(
        Processor("first", func=w.same),
        Processor("per", func=w.PerMouse, key=key, workers=3, ordered=ordered),
        Processor("last", func=w.same),
    )
    found = list(pipe.map(VALUES))
    for mouse, values in of_each_mouse(found).items():
        assert [v["at"] for v in values] == [
            v["at"] for v in VALUES if v["mouse"] == mouse
        ]
        assert [v["n"] for v in values] == list(range(1, len(values) + 1))
        assert len({v["pid"] for v in values}) == 1
    assert len({v["pid"] for v in found}) == 3
    if ordered:
        assert [v["at"] for v in found] == list(range(len(VALUES)))
    counters = pipe.execution.statistics()
    each = [sum(number_of(v["mouse"]) % 3 == k for v in VALUES) for k in range(3)]
    assert counters.received.values.tolist()[1:4] == each


def test_from_the_head_and_in_batches() -> None:
    def pids(values: list[int]) -> list[tuple[int, int]]:
        return [(value, os.getpid()) for value in values]

    stage = Processor(
        "a", func=pids, key=lambda k: k % 4, workers=2, max_batch=8, max_wait=0.01
    )
    found = list(chain(stage).map(range(200)))
    assert sorted(k for k, _ in found) == list(range(200))
    for rest in range(2):
        mine = [(k, pid) for k, pid in found if k % 2 == rest]
        assert mine == sorted(mine)
        assert len({pid for _, pid in mine}) == 1


def test_one_worker_does_not_need_the_key() -> None:
    pipe = chain(Processor("a", func=w.same, key="nothing has it"))
    assert list(pipe.map(range(5))) == list(range(5))


# ---- several values of one


def expected_mice(count: int) -> list[tuple[int, int]]:
    return [(v["mouse"], v["at"]) for k in range(count) for v in w.mice(k)]


@pytest.mark.parametrize("ordered", [False, True])
def test_what_a_generator_gives_goes_to_the_workers_of_its_keys(ordered: bool) -> None:
    pipe = chain(
        Processor("mice", func=w.mice),
        Processor("per", func=w.PerMouse, key="mouse", workers=3, ordered=ordered),
        Processor("again", func=w.PerMouse, key="mouse", workers=2, ordered=ordered),
    )
    found = list(pipe.map(range(400)))
    wanted = expected_mice(400)
    assert sorted((v["mouse"], v["at"]) for v in found) == sorted(wanted)
    for mouse, values in of_each_mouse(found).items():
        assert [v["at"] for v in values] == [at for m, at in wanted if m == mouse]
        assert [v["n"] for v in values] == list(range(1, len(values) + 1))
    if ordered:
        # Those of one value come together; of the same worker in their order.
        assert [v["at"] for v in found] == [at for _, at in wanted]


@pytest.mark.parametrize("ordered", [False, True])
def test_parts_of_a_value_are_distributed_again(ordered: bool) -> None:
    """One worker's part has keys of two workers, the others' of one: none is lost."""
    pipe = chain(
        Processor("four", func=w.four),
        Processor("a", func=w.without_one, key="k", workers=3, ordered=ordered),
        Processor("b", func=w.same, key="third", workers=2, ordered=ordered),
    )
    wanted = [
        (value, k) for value in range(60) for k in range(4) if k != 1 or value % 2 == 0
    ]
    found = [(v["value"], v["k"]) for v in pipe.map(range(60))]
    assert sorted(found) == wanted
    if ordered:
        assert [value for value, _ in found] == [value for value, _ in wanted]
    with pipe.run() as run:
        for value, ks in ((4, [0, 1, 2, 3]), (5, [0, 2, 3])):
            assert sorted(v["k"] for v in run.call(value, timeout=60)) == ks
        run.stop(60)


def test_an_answer_has_the_values_of_all_keys() -> None:
    pipe = chain(
        Processor("mice", func=w.mice),
        Processor("per", func=w.PerMouse, key="mouse", workers=3),
    )
    with pipe.run() as run:
        answer = run.call(7, timeout=60)
        assert run.call(5, timeout=60) is None
        run.stop(60)
    assert sorted((v["mouse"], v["at"]) for v in answer) == [(3, 7), (4, 7), (5, 7)]


# ---- deaths


@pytest.mark.parametrize("ordered", [False, True])
def test_a_killed_workers_keys_wait_for_it(
    ordered: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPE_MARKS", str(tmp_path))
    pipe = chain(
        Processor("dies", func=w.dies_once_by_key, key="mouse", workers=3,
                  ordered=ordered, restart=QUICK),
        Processor("last", func=w.same),
    )  # fmt: skip
    found = list(pipe.map(VALUES[:200]))
    assert len(list(tmp_path.iterdir())) == 5
    assert int(pipe.execution.statistics().restarts.sum()) == 5
    assert len(found) == 200
    for mouse, values in of_each_mouse(found).items():
        assert values == [v for v in VALUES[:200] if v["mouse"] == mouse]
    if ordered:
        assert found == VALUES[:200]


def test_groups_come_once_when_workers_are_killed_from_outside() -> None:
    pipe, found = Pipe("p"), []
    common = {"workers": 2, "restart": QUICK, "attempts": 100}
    pipe.add(Processor("mice", func=w.mice, restart=QUICK)).add(
        Processor("a", func=w.same, key="mouse", ordered=True, **common)
    ).add(Processor("b", func=w.same, key="mouse", **common))
    with pipe.run(range(3000), found) as run:
        run.wait_until_ready(60)
        for k, name in enumerate(("a", "b", "mice")):
            enough = len(found) + 100
            wait_until(lambda n=enough: len(found) > n or run.state != "running", 60)
            pid = run.workers[name, 0]
            if pid is not None and run.state == "running":
                os.kill(pid, signal.SIGKILL)
                wait_until(
                    lambda n=k: (
                        int(run.statistics().restarts.sum()) > n
                        or run.state != "running"
                    ),
                    60,
                )
    assert int(run.statistics().restarts.sum()) >= 1
    wanted = expected_mice(3000)
    assert len(found) == len(wanted)
    for mouse, values in of_each_mouse(found).items():
        assert [v["at"] for v in values] == [at for m, at in wanted if m == mouse]


# ---- refusals


@pytest.mark.parametrize("key", [3.5, True, ["mouse"], w.later, w.counting])
def test_an_invalid_key_is_refused_at_once(key: object) -> None:
    with pytest.raises(TypeError, match="of processor 'a' must be a plain function"):
        Processor("a", func=w.same, key=key)


@pytest.mark.parametrize(
    ("func", "settings", "message"),
    [
        (w.same, {"split": "channel"}, "key= cannot be combined with"),
        (w.forward, {}, "key= is for functions of a value"),
    ],
)
def test_settings_that_cannot_be_combined_with_a_key(
    func: Callable[..., Any], settings: dict[str, Any], message: str, context: Path
) -> None:
    stage = Processor("a", func=func, key="mouse", workers=2, **settings)
    with pytest.raises(ValueError, match=message):
        chain(stage).run()
    assert list(context.iterdir()) == []


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("colour", "key= of processor 'b' raised KeyError: 'colour'; its value was"),
        (w.no_key, "key= of processor 'b' must return a number, text, bytes"),
    ],
)
def test_a_value_without_a_key_fails_the_pipe_with_the_reason(
    key: object, message: str
) -> None:
    pipe = chain(
        Processor("a", func=w.same), Processor("b", func=w.same, key=key, workers=2)
    )
    with pytest.raises(PipeError) as caught:
        list(pipe.map(VALUES[:3]))
    assert message in str(caught.value.exceptions[0])


def test_a_value_without_a_key_is_put_into_no_queue() -> None:
    pipe, found = Pipe("p"), []
    pipe.connect_to(
        Processor("plain", func=w.same),
        Processor("keyed", func=w.same, key="mouse", workers=2),
    )
    with pipe.run(sink=found) as run:
        assert run.emit(VALUES[1])
        with pytest.raises(ValueError, match="raised KeyError"):
            run.emit({"at": 2})
        assert run.emit(VALUES[3])
        run.stop(60)
    assert sorted(v["at"] for v in found) == [1, 1, 3, 3]


def test_a_key_travels_as_json() -> None:
    for key in ("mouse", 0, w.mouse_of):
        pipe = chain(Processor("a", func=w.same, key=key, workers=2))
        again = Pipe.from_json(pipe.to_json())
        assert again.to_json() == pipe.to_json()
        (node,) = again.graph().nodes
        assert node.processor.key == Key.of("a", key)
    assert list(again.map(VALUES[:1])) == VALUES[:1]
    # In order: two workers have the two values, and either may be first.
    common = {"workers": 2, "ordered": True}
    local = chain(Processor("a", func=w.same, key=lambda v: v["mouse"], **common))
    with pytest.raises(ValueError, match="the key= of 'a' is a pickle"):
        Pipe.from_json(local.to_json())
    copy = Pipe.from_json(local.to_json(), allow_pickle=True)
    assert list(copy.map(VALUES[:2])) == VALUES[:2]
