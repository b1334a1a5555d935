"""Cluster: a pipe whose workers run on several hosts."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import workers_pipe as w
from agents import Lab, lab
from deadline import wait_until

from ataraxis.cluster import Cluster
from ataraxis.errors import AccessDenied, HostUnavailable, PipeError
from ataraxis.pipeline import Local, Pipe, Processor
from ataraxis.shm.process import ProcessIdentity
from ataraxis.testing.carriers import FakeCarrier

WAIT_S = 30.0


@pytest.fixture
def rig() -> Iterator[Lab]:
    with lab("acq", "gpu", modules=["workers_pipe"]) as made:
        yield made


@contextlib.contextmanager
def cluster(rig: Lab, me: str = "acq", **keywords: Any) -> Iterator[Cluster]:
    """A cluster of a program on a host of the rig."""
    with Cluster(
        rig.hosts(me), context=rig.contexts[me],
        carrier=FakeCarrier(rig.network, me), **keywords,
    ) as made:  # fmt: skip
        yield made


def chain(rig: Lab, *stages: Processor) -> Pipe:
    pipe = Pipe("p", context=rig.contexts["acq"])
    last = pipe.add(stages[0])
    for stage in stages[1:]:
        last = last.add(stage)
    return pipe


def test_one_processor_runs_on_another_host(rig: Lab) -> None:
    pipe, found = chain(rig, Processor("far", func=w.double, host="gpu")), []
    with cluster(rig) as engine, pipe.run(range(500), found, engine=engine) as run:
        run.wait(WAIT_S)
        assert run.where == {("far", 0): "gpu"}
    assert found == [2 * k for k in range(500)]


def both_ways(rig: Lab, pipe: Pipe, values: Any, **keywords: Any) -> list[list[Any]]:
    """Return the results of a pipe on one host, and on the hosts of the rig."""
    results: list[list[Any]] = []
    with cluster(rig, **keywords) as engine:
        for each in (None, engine):
            found: list[Any] = []
            with pipe.run(values, found, engine=each) as run:
                run.wait(WAIT_S)
            results.append(found)
    return results


def test_the_same_pipe_gives_the_same_on_one_host_and_on_three() -> None:
    with lab("acq", "gpu", "cpu", modules=["workers_pipe"]) as rig:
        rig.tags["gpu"] = rig.tags["cpu"] = ["fast"]
        pipe = chain(
            rig,
            Processor("a", func=w.uneven, tag="fast", workers=4, ordered=True),
            Processor("b", func=w.double, host="cpu"),
            Processor("c", func=w.only_even),
            Processor("d", func=w.several, host="gpu"),
        )
        here, there = both_ways(rig, pipe, range(300))
    assert there == here
    assert len(here) == sum(2 * k % 4 for k in range(300))


@pytest.mark.slow
def test_this_host_and_another_share_the_work(rig: Lab) -> None:
    rig.tags["acq"] = rig.tags["gpu"] = ["fast"]
    pipe = chain(rig, Processor("a", func=w.takes_a_while, tag="fast", workers=4,
                                ordered=True),
                 Processor("b", func=w.double))  # fmt: skip
    found: list[int] = []
    with cluster(rig) as engine, pipe.run(range(600), found, engine=engine) as run:
        run.wait(WAIT_S)
        received = run.statistics().received
        done = Counter[str]()
        for (name, k), host in run.where.items():
            if name == "a":
                done[host] += int(received.sel(worker=f"a.{k}"))
    assert found == [2 * k for k in range(600)]
    assert done["acq"] > 0
    assert done["gpu"] > 0


@pytest.mark.slow
def test_parts_of_channels_and_keys_go_to_other_hosts(rig: Lab) -> None:
    import numpy as np

    pipe = chain(
        rig,
        Processor("parts", func=w.double, host="gpu", workers=2, split="channel"),
        Processor("whole", func=w.double),
    )
    blocks = [np.arange(6.0).reshape(2, 3) + k for k in range(20)]
    here, there = both_ways(rig, pipe, blocks)
    assert all(map(np.array_equal, there, here))
    pipe = chain(rig, Processor("k", func=w.same, host="gpu", workers=2, key="n"))
    here, there = both_ways(rig, pipe, [{"n": k % 5, "k": k} for k in range(50)])
    assert sorted(map(str, there)) == sorted(map(str, here))


def test_a_module_that_is_not_listed_is_refused(rig: Lab) -> None:
    with cluster(rig) as engine:
        pipe = chain(rig, Processor("far", func=divmod.__self__.abs, host="gpu"))
        with pytest.raises(AccessDenied, match=r"module 'builtins' is not under"):
            pipe.run([1], [], engine=engine)
        pipe = chain(rig, Processor("far", func=lambda value: value, host="gpu"))
        with pytest.raises(AccessDenied, match="functions: true"):
            pipe.run([1], [], engine=engine)
        pipe = chain(rig, Processor("far", func=w.double, host="gpu",
                                    allow_pickle=True))  # fmt: skip
        with pytest.raises(AccessDenied, match="allow_pickle=True"):
            pipe.run([1], [], engine=engine)
        pipe = chain(rig, Processor("far", "script.py", host="gpu"))
        with pytest.raises(AccessDenied, match="is the script"):
            pipe.run([1], [], engine=engine)
        assert nothing_is_left(rig)


def nothing_is_left(rig: Lab) -> bool:
    """Whether the contexts have nothing but what an agent has."""
    names = {p.name for context in rig.contexts.values() for p in context.iterdir()}
    return names <= {".agent", ".agent.lock"}


def test_what_a_listed_module_imports_is_not_run(rig: Lab) -> None:
    from ataraxis.pipeline.function import Code

    far = Processor("far", func=w.double, host="gpu")
    far._code = Code("map", "workers_pipe:os.system")
    pipe = chain(rig, far)
    with (
        cluster(rig) as engine,
        pytest.raises(PipeError, match="is not defined in its module"),
        pipe.run(["true"], [], engine=engine) as run,
    ):
        run.wait(WAIT_S)


def test_a_host_without_the_right_is_refused(rig: Lab) -> None:
    rig.stop("gpu")
    rig.may["gpu"] = {"acq": ["read"]}
    rig.start("gpu")
    pipe = chain(rig, Processor("far", func=w.double, host="gpu"))
    with (
        cluster(rig) as engine,
        pytest.raises(AccessDenied, match="may not run at 'gpu'"),
    ):
        pipe.run([1], [], engine=engine)
    assert nothing_is_left(rig)


def test_a_place_that_is_not_there_is_named(rig: Lab) -> None:
    with cluster(rig) as engine:
        pipe = chain(rig, Processor("far", func=w.double, host="gqu"))
        with pytest.raises(ValueError, match="host='gqu', which is not a host"):
            pipe.run([1], engine=engine)
        pipe = chain(rig, Processor("far", func=w.double, tag="cuda"))
        with pytest.raises(ValueError, match="tag='cuda', which no host"):
            pipe.run([1], engine=engine)
    with pytest.raises(ValueError, match="not both"):
        Processor("far", func=w.double, host="gpu", tag="cuda")
    rig.stop("acq")
    with pytest.raises(HostUnavailable, match="no agent runs in context"):
        Cluster(rig.hosts("acq"), context=rig.contexts["acq"])


def test_errors_output_and_dead_letters_come_here(
    rig: Lab, capfd: pytest.CaptureFixture[str]
) -> None:
    pipe = chain(rig, Processor("far", func=w.talks_and_fails, host="gpu"))
    with (
        cluster(rig) as engine,
        pytest.raises(PipeError, match="ValueError: not 3; with value number 3") as err,
        pipe.run(range(5), [], engine=engine) as run,
    ):
        run.wait(WAIT_S)
    assert "in talks_and_fails" in err.value.exceptions[0].remote_traceback
    assert "[far] value 2" in capfd.readouterr().out
    pipe = chain(rig, Processor("far", func=w.talks_and_fails, host="gpu",
                                on_error="skip"))  # fmt: skip
    found: list[int] = []
    with cluster(rig) as engine, pipe.run(range(5), found, engine=engine) as run:
        run.wait(WAIT_S)
        assert run.skipped == 1
        letters = list(run.dead_letters)
    assert found == [0, 1, 2, 4]
    assert [(x.processor, x.value, x.why) for x in letters] == [
        ("far", 3, "ValueError: not 3")
    ]
    statistics = run.statistics().sel(worker="far")
    assert int(statistics.received) == 5
    assert int(statistics.dead_letters) == 1
    assert nothing_is_left(rig)


# ---- what dies, and what is cut off


def running(run: Any, found: list[Any], count: int) -> None:
    wait_until(lambda: len(found) >= count, WAIT_S, f"{count} results")


def test_a_worker_that_is_killed_there_is_restarted(rig: Lab) -> None:
    pipe = chain(rig, Processor("far", func=w.takes_a_while, host="gpu", workers=2,
                                ordered=True))  # fmt: skip
    found: list[int] = []
    with cluster(rig) as engine, pipe.run(range(600), found, engine=engine) as run:
        running(run, found, 20)
        pid = run.workers["far", 0]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        run.wait(WAIT_S)
    assert found == list(range(600))
    restarts = run.statistics().restarts
    assert int(restarts.sel(worker="far.0")) == 1


@pytest.mark.slow
def test_an_agent_that_restarts_loses_nothing(rig: Lab) -> None:
    pipe = chain(
        rig, Processor("far", func=w.takes_a_while, host="gpu"),
        Processor("near", func=w.double),
    )  # fmt: skip
    found: list[int] = []
    with cluster(rig) as engine, pipe.run(range(600), found, engine=engine) as run:
        for count in (20, 200):
            running(run, found, count)
            rig.stop("gpu")
            rig.start("gpu")
        run.wait(WAIT_S)
        events = [event.text for event in run.history if event.what == "exited"]
    assert found == [2 * k for k in range(600)]
    # As its agent says while it ends, or the next one.
    assert re.search(r"does not have the run any more|has removed it", events[0])


@pytest.mark.slow
def test_what_puts_in_order_loses_nothing_with_its_host(rig: Lab) -> None:
    pipe = chain(
        rig,
        Processor("far", func=w.takes_a_while, host="gpu", workers=3, ordered=True),
        Processor("order", func=w.takes_a_while, host="gpu"),
        Processor("near", func=w.double, workers=2, ordered=True),
    )
    found: list[int] = []
    with cluster(rig) as engine, pipe.run(range(900), found, engine=engine) as run:
        for count in (50, 400):
            running(run, found, count)
            rig.stop("gpu")
            rig.start("gpu")
        run.wait(WAIT_S)
    assert found == [2 * k for k in range(900)]


@pytest.mark.slow
def test_the_end_of_the_agent_here_ends_the_run(rig: Lab) -> None:
    pipe = chain(rig, Processor("far", func=w.takes_a_while, host="gpu"))
    found: list[int] = []
    with cluster(rig) as engine:
        run = pipe.run(range(10_000), found, engine=engine)
        running(run, found, 20)
        rig.stop("acq")
        with pytest.raises(PipeError, match=r"the agent of this host .* has ended"):
            run.wait(WAIT_S)
    rig.start("acq")
    found.clear()
    with cluster(rig) as engine, pipe.run(range(100), found, engine=engine) as run:
        run.wait(WAIT_S)
    assert found == list(range(100))


@pytest.mark.slow
def test_a_worker_that_puts_in_order_and_was_lost_waits_as_long_as_it_takes() -> None:
    with lab("acq", "gpu", "cpu", modules=["workers_pipe"]) as rig:
        pipe = chain(
            rig, Processor("far", func=w.late_at_300, host="gpu", workers=3,
                           ordered=True),
            Processor("order", func=w.same, host="cpu"),
            Processor("near", func=w.only_even),
        )  # fmt: skip
        found: list[int] = []
        with cluster(rig) as engine, pipe.run(range(500), found, engine=engine) as run:
            running(run, found, 20)
            rig.stop("cpu")
            rig.start("cpu")
            run.wait(WAIT_S)
        assert found == list(range(0, 500, 2))


@pytest.mark.slow
def test_results_that_wait_for_a_lost_host_do_not_hold_up_its_workers() -> None:
    with lab("acq", "gpu", modules=["workers_pipe"]) as rig:
        pipe = chain(rig, Processor("far", func=w.second_takes_long, host="gpu",
                                    workers=3, ordered=True))  # fmt: skip
        found: list[int] = []
        with cluster(rig) as engine, pipe.run(range(90), found, engine=engine) as run:
            # The results of all others are here, and wait for the second one.
            wait_until(
                lambda: int(run.statistics().emitted.sum()) == 89, WAIT_S, "results"
            )
            assert found == [0]
            rig.stop("gpu")
            rig.start("gpu")
            run.wait(WAIT_S)
        assert found == list(range(90))


@pytest.mark.slow
def test_a_short_cut_ends_nobody(rig: Lab) -> None:
    pipe = chain(rig, Processor("far", func=w.takes_a_while, host="gpu"))
    found: list[int] = []
    with (
        cluster(rig, lease_s=60.0) as engine,
        pipe.run(range(600), found, engine=engine) as run,
    ):
        running(run, found, 20)
        pid = run.workers["far", 0]
        rig.network.cut("acq", "gpu")
        wait_until(lambda: "lost" in told(run), WAIT_S, "the host to be lost")
        rig.network.heal("acq", "gpu")
        wait_until(lambda: "found" in told(run), WAIT_S, "the host to be found")
        assert run.workers["far", 0] == pid
        run.wait(WAIT_S)
    assert found == list(range(600))
    assert "restarted" not in told(run)


def far_worker(run: Any) -> ProcessIdentity:
    pid = run.workers["far", 0]
    assert pid is not None
    return ProcessIdentity.of(pid)


def told(run: Any) -> list[str]:
    return [event.what for event in run.history]


@pytest.mark.slow
def test_workers_end_with_their_lease_and_start_again(rig: Lab) -> None:
    pipe = chain(rig, Processor("far", func=w.takes_a_while, host="gpu"))
    found: list[int] = []
    with (
        cluster(rig, lease_s=1.0) as engine,
        pipe.run(range(600), found, engine=engine) as run,
    ):
        running(run, found, 20)
        there = far_worker(run)
        rig.network.cut("acq", "gpu")
        wait_until(lambda: not there.is_alive(), WAIT_S, "the worker to be ended")
        rig.network.heal("acq", "gpu")
        run.wait(WAIT_S)
    assert found == list(range(600))
    assert "restarted" in told(run)


@pytest.mark.slow
def test_a_lease_ends_while_another_worker_is_slow_to_start(
    rig: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawn, may_start, starts = Local.spawn, threading.Event(), Counter[str]()

    def slow(local: Local, host: str, spec: Any) -> Any:
        starts["all"] += 1
        if starts["all"] > 2:
            may_start.wait(WAIT_S)
        return spawn(local, host, spec)

    monkeypatch.setattr(Local, "spawn", slow)
    pipe = chain(rig, Processor("far", func=w.takes_a_while, host="gpu", workers=2))
    found: list[int] = []
    with (
        cluster(rig, lease_s=1.0) as engine,
        pipe.run(range(900), found, engine=engine) as run,
    ):
        running(run, found, 20)
        one, other = (ProcessIdentity.of(run.workers["far", k] or 0) for k in range(2))
        os.kill(one.pid, signal.SIGKILL)
        wait_until(lambda: starts["all"] > 2, WAIT_S, "the next one to be started")
        rig.network.cut("acq", "gpu")
        try:
            wait_until(lambda: not other.is_alive(), WAIT_S / 3, "the other to end")
        finally:
            may_start.set()
        rig.network.heal("acq", "gpu")
        run.wait(WAIT_S)
    assert sorted(found) == list(range(900))


@pytest.mark.slow
def test_a_lease_counts_from_what_the_other_host_has_heard(rig: Lab) -> None:
    pipe = chain(rig, Processor("far", func=w.takes_a_while, host="gpu"))
    found: list[int] = []
    with (
        cluster(rig, lease_s=1.0) as engine,
        pipe.run(range(900), found, engine=engine) as run,
    ):
        running(run, found, 20)
        there = far_worker(run)
        rig.network.stall("gpu", "acq")  # which is still heard there
        wait_until(lambda: not there.is_alive(), WAIT_S, "the worker to be ended")
        assert "lost" not in told(run), "it went on until the channel was closed"
        rig.network.heal("gpu", "acq")
        run.wait(WAIT_S)
    assert found == list(range(900))


@pytest.mark.slow
def test_a_worker_moves_to_another_host_with_the_tag() -> None:
    with lab("acq", "gpu", "cpu", modules=["workers_pipe"]) as rig:
        rig.tags["gpu"] = rig.tags["cpu"] = ["fast"]
        pipe = chain(rig, Processor("far", func=w.takes_a_while, tag="fast"),
                     Processor("near", func=w.double))  # fmt: skip
        found: list[int] = []
        with (
            cluster(rig, lease_s=0.5) as engine,
            pipe.run(range(600), found, engine=engine) as run,
        ):
            running(run, found, 20)
            (host,) = {h for h in run.where.values() if h != "acq"}
            rig.network.cut("acq", host)
            run.wait(WAIT_S)
            assert run.where["far", 0] == ({"gpu", "cpu"} - {host}).pop()
        assert found == [2 * k for k in range(600)]
