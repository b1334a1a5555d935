"""Edges between agents: values are worked on elsewhere, results come home once."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import agents
import link_rig
import numpy as np
import pytest
from deadline import wait_until
from workers_link import mapping_worker

from ataraxis import MemQ
from ataraxis.cluster import Hosts
from ataraxis.cluster.agent import Agent
from ataraxis.cluster.edges import EdgePlan
from ataraxis.errors import BadMessage, QueueEmpty
from ataraxis.pipeline.frames import HEAD_LANE, last_frame, read

RUN = "r"
SLOTS = 512


class Pipe:
    """A pipe over a lab: `stages` of hosts that compete, from and to `home`."""

    def __init__(self, lab: agents.Lab, home: str, *stages: tuple[str, ...]) -> None:
        self.lab, self.home, self.stages = lab, home, stages
        self.queues: dict[tuple[str, str], MemQ] = {}
        self.workers: dict[str, Any] = {}
        self.results: dict[int, Any] = {}
        self.raw = 0
        self.plans: list[EdgePlan] = []
        sources: tuple[str, ...] = (home,)
        for k, hosts in enumerate((*stages, (home,))):
            is_home = k == len(stages)
            inbox = f"{RUN}.end" if is_home else f"{RUN}.in.{k}"
            path = () if is_home else (f"{RUN}.edge.{k + 1}",)
            self.plans += [
                EdgePlan(RUN, f"{RUN}.edge.{k}", s, h, inbox, path, is_home)
                for s in sources
                for h in hosts
            ]
            sources = hosts
        self._make_queues(home)
        for hosts in stages:
            for host in hosts:
                self.start(host)
        self._connect(home)

    def _make_queues(self, host: str) -> None:
        for plan in self.plans:
            for owner, name in ((plan.source, plan.name), (plan.to, plan.inbox)):
                key = owner, name
                if owner == host and key not in self.queues:
                    self.queues[key] = MemQ(
                        name, SLOTS, 1024, context=self.lab.contexts[host]
                    )

    def _connect(self, host: str) -> None:
        for plan in self.plans:
            if host in (plan.source, plan.to):
                self.lab.agents[host].edges.connect(plan)

    def start(self, host: str) -> None:
        """Make the queues of a host, its worker and its edges."""
        self._make_queues(host)
        self._connect(host)
        self.lab.agents[host].edges.on_fence = lambda run, why: threading.Thread(
            target=self.fence, args=(host,), daemon=True
        ).start()
        self.start_worker(host)

    def start_worker(self, host: str) -> None:
        stage = next(k for k, hosts in enumerate(self.stages) if host in hosts)
        process = multiprocessing.get_context("spawn").Process(
            target=mapping_worker, daemon=True,
            args=(str(self.lab.contexts[host]), f"{RUN}.in.{stage}",
                  f"{RUN}.edge.{stage + 1}", stage),
        )  # fmt: skip
        process.start()
        self.workers[host] = process

    def kill_worker(self, host: str) -> None:
        self.workers[host].kill()
        self.workers[host].join()

    def fence(self, host: str) -> None:
        """What an engine does on a host whose lease is over."""
        self.kill_worker(host)
        self.lab.agents[host].edges.fence(RUN)
        self.start_worker(host)

    def wipe(self, host: str) -> None:
        """Lose what a host has: its agent, its worker and its queues."""
        self.kill_worker(host)
        self.lab.stop(host)
        for key in [key for key in self.queues if key[0] == host]:
            self.queues.pop(key).unlink()
        self.lab.start(host)
        self.start(host)

    def put(self, values: Any, first: int = 0) -> None:
        queue = self.queues[self.home, f"{RUN}.edge.0"]
        for k, value in enumerate(values):
            assert queue.post(value, -1, (HEAD_LANE, first + k, 0), 0, 1, 60)

    def feed(self, count: int) -> threading.Thread:
        thread = threading.Thread(target=self.put, args=(range(count),))
        thread.start()
        return thread

    def collect(self, count: int, timeout: float = 30) -> None:
        """Take results behind the filter of a sink until there are so many."""
        end, deadline = self.queues[self.home, f"{RUN}.end"], time.monotonic() + timeout
        while len(self.results) < count:
            with contextlib.suppress(QueueEmpty, TimeoutError):
                with end.lease(True, 0.2) as lease:
                    found = read(lease.frame.to_bytes())
                    self.raw += 1
                    before = self.results.setdefault(found.sequence, found.value)
                    np.testing.assert_equal(before, found.value)
                continue
            if time.monotonic() > deadline:
                raise self._explained(AssertionError(f"{len(self.results)} results"))

    def is_settled(self) -> bool:
        return all(agent.edges.idle(RUN) for agent in self.lab.agents.values())

    def statistics(self) -> list[dict[str, Any]]:
        return [row for a in self.lab.agents.values() for row in a.edges.statistics()]

    def check(self, count: int) -> None:
        """Every result is here, and every lease has ended."""
        assert sorted(self.results) == list(range(count))
        try:
            wait_until(self.is_settled, 20)
        except AssertionError as error:
            raise self._explained(error) from None

    def _explained(self, error: AssertionError) -> AssertionError:
        """Add what is known of the edges and queues."""
        for row in [*self.statistics(), *self.lab.said[-5:]]:
            error.add_note(str(row))
        for (host, name), queue in self.queues.items():
            error.add_note(f"{host} {name}: {queue.statistics()}")
        return error

    def close(self) -> None:
        for process in self.workers.values():
            process.kill()
            process.join()
        for agent in self.lab.agents.values():
            agent.edges.release(RUN)
        for queue in self.queues.values():
            queue.unlink()


@contextlib.contextmanager
def pipe(*stages: tuple[str, ...]) -> Iterator[Pipe]:
    hosts = [host for stage in stages for host in stage]
    with agents.lab("home", *hosts) as lab:
        made = Pipe(lab, "home", *stages)
        try:
            yield made
        finally:
            made.close()


def test_a_value_is_worked_on_elsewhere_and_comes_home_once() -> None:
    with pipe(("b",)) as made:
        thread = made.feed(300)
        made.collect(300)
        thread.join()
        made.check(300)
        assert made.results == {k: k * k for k in range(300)}
        assert made.raw == 300
        rows = {(r["name"], r["kind"]): r for r in made.statistics()}
        assert rows["r.edge.0", "outlet"]["settled"] == 300
        assert rows["r.edge.0", "inlet"]["repeated"] == 0


@pytest.mark.slow
def test_large_values_travel() -> None:
    with pipe(("b",)) as made:
        values = [np.arange(k * 40_000, dtype="f8") for k in range(1, 6)]
        values.append(np.ones(1_500_000))  # larger than the first buffers
        thread = threading.Thread(target=made.put, args=(values,))
        thread.start()
        made.collect(6)
        thread.join()
        made.check(6)
        np.testing.assert_array_equal(made.results[4], values[4] ** 2)


@pytest.mark.slow
def test_hosts_compete_and_pass_values_on() -> None:
    with pipe(("b", "b2"), ("c",)) as made:
        thread = made.feed(1500)
        made.collect(1500)
        thread.join()
        made.check(1500)
        rows = [r for r in made.statistics() if r["kind"] == "inlet"]
        shares = [r["sent"] for r in rows if r["name"] == "r.edge.0"]
        assert sum(shares) == 1500
        assert min(shares) > 50


@pytest.mark.slow
def test_cuts_and_deaths_lose_nothing() -> None:
    with pipe(("b", "b2"), ("c",)) as made:
        thread, network = made.feed(3000), made.lab.network
        for k in range(4):
            made.collect(400 + 500 * k)
            match k:
                case 0:
                    network.cut("home", "b")
                case 1:
                    made.kill_worker("b2")
                    made.start_worker("b2")
                    network.heal("home", "b")
                case 2:
                    network.cut("b", "c")
                    made.wipe("c")
                case 3:
                    network.heal("b", "c")
                    made.wipe("b")
        made.collect(3000)
        thread.join()
        made.check(3000)
        assert made.results == {k: k**4 for k in range(3000)}


@pytest.mark.slow
def test_a_host_that_is_lost_ends_its_workers_when_it_returns() -> None:
    with pipe(("b", "b2")) as made:
        thread, network = made.feed(2000), made.lab.network
        made.collect(300)
        edges = made.lab.agents["b"].edges
        before = edges.generation(RUN)
        made.kill_worker("b")  # what it has stays with it
        home = made.lab.agents["home"].edges
        wait_until(
            lambda: any(r["host"] == "b" and r["held"] for r in home.statistics()), 20
        )
        network.cut("home", "b")
        taken = home.lost("b", RUN, before)
        assert taken > 0
        made.collect(2000)  # by the other host alone
        network.heal("home", "b")
        wait_until(lambda: edges.generation(RUN) != before, 20)
        thread.join()
        made.check(2000)
        made.put(range(2000, 2600), 2000)
        made.collect(2600)
        made.check(2600)
        wait_until(lambda: all(r["is_connected"] for r in edges.statistics()), 20)


def test_the_end_of_a_stream_comes_last() -> None:
    with pipe(("b",)) as made:
        made.put(range(50))
        queue = made.queues["home", "r.edge.0"]
        assert queue.offer(last_frame(), 0)
        made.collect(50)
        end = made.queues["home", "r.end"]
        with end.lease(True, 20) as lease:
            assert lease.frame.end_of_stream
        wait_until(made.is_settled, 20)


def test_an_edge_of_another_host_or_another_plan_is_refused() -> None:
    with agents.lab("home", "b") as lab:
        edges = lab.agents["home"].edges
        plan = EdgePlan(RUN, "x", "b", "c", "y")
        with pytest.raises(ValueError, match="not one of host 'home'"):
            edges.connect(plan)
        assert EdgePlan.from_dict(plan.as_dict()) == plan
        good = plan.as_dict()
        for bad in ({**good, "path": [1]}, {**good, "more": 1}, {"run": "r"},
                    {**good, "ends": True}):  # fmt: skip
            with pytest.raises(BadMessage):
                EdgePlan.from_dict(bad)


def test_a_host_without_a_plan_gets_no_values() -> None:
    with agents.lab("home", "b", "spy") as lab:
        queue = MemQ("r.edge.0", 8, 1024, context=lab.contexts["home"])
        inbox = MemQ("r.in.0", 8, 1024, context=lab.contexts["spy"])
        queue.put(5)
        plan = EdgePlan(RUN, "r.edge.0", "home", "b", "r.in.0")
        lab.agents["home"].edges.connect(plan)
        lab.agents["spy"].edges.connect(dataclasses.replace(plan, to="spy"))
        wait_until(lambda: any("has no part of edge" in text for text in lab.said), 20)
        assert (queue.qsize(), inbox.qsize()) == (1, 0)
        queue.unlink()
        inbox.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("carrier", ["tls", "zenoh"])
def test_over_a_carrier(carrier: str, tmp_path: Path) -> None:
    link_rig.need(carrier, namespaces=False)
    ports = link_rig._free_ports(2)
    addresses = {
        name: f"127.0.0.1:{port}"
        for name, port in zip(("home", "b"), ports, strict=True)
    }
    rig = Hosts.create(tmp_path / "rig", "rig", addresses, carrier=carrier)
    with agents.lab("home", "b") as lab:
        for name, hosts in rig.items():
            lab.stop(name)
            hosts.spool.directory = str(tmp_path / f"spool-{name}")
            lab.agents[name] = Agent(
                hosts, context=lab.contexts[name], say=lab.said.append
            )
        made = Pipe(lab, "home", ("b",))
        try:
            thread = made.feed(3000)
            made.collect(3000)
            thread.join()
            made.check(3000)
        finally:
            made.close()
