"""A diamond over three hosts: each is wiped and cut off, again and again; exact.

Values go from the program on `home` to the hosts `one` and `two`, are joined on `two`,
and come back. A wipe kills the agent and all workers of a host, and empties its memory.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deadline import wait_until
from link_rig import CARRIERS, Lab, Program, need, tell
from workers_link import DIAMONDS

from ataraxis.shm.process import ProcessIdentity

pytest.importorskip("cryptography", reason="certificates need cryptography")

LEASE_S = 5.0
CUTS_S = (2.0, 9.0, 0.5, 4.0, 9.0)
"""Shorter and longer than the lease, and than what closes a channel."""
WAIT_S = 120.0


@pytest.fixture(params=CARRIERS)
def carrier(request: pytest.FixtureRequest) -> str:
    need(request.param)
    return str(request.param)


def leave(lab: Lab, program: Program) -> None:
    """End everything in order; no process and no segment is left on any host."""
    program.process.wait(20)
    for name, host in lab.hosts.items():
        agent = next(p for p in reversed(host.programs) if p is not program)
        assert agent.terminate() == 0, (name, agent.said())
        assert host.pids() == [], name
        left = [f for f in host.files() if not f.startswith(("clock.", ".agent"))]
        assert not left, (name, left)


class Diamond:
    """A diamond that runs; the gate opens a part at a time, one for each fault."""

    def __init__(self, lab: Lab, count: int, parts: int, shape: str) -> None:
        self.lab, self.count, self.parts = lab, count, parts
        self.results = count if shape == "competing" else 2 * count
        home = lab["home"]
        self.gate: Path = home.logs / "gate"
        self.opened = 0
        self.open()
        self.program = home.start(
            "diamond", context=str(home.context), count=count, shape=shape,
            gate=str(self.gate), lease_s=LEASE_S,
        )  # fmt: skip
        self.program.until(WAIT_S, ready=True)

    def open(self) -> None:
        """Let the values of the next part in."""
        self.opened += 1
        new = self.gate.with_suffix(".new")
        new.write_text(str(self.count * self.opened // self.parts))
        new.replace(self.gate)

    def flows(self) -> None:
        """Wait until a third of the newest part has arrived: the rest is on its way."""
        share = self.results / self.parts
        self.program.until(WAIT_S, received=int((self.opened - 2 / 3) * share))

    def works(self, before: dict[str, Any], *lost: str) -> None:
        """Wait until all workers run, those of the hosts in `lost` as new processes."""
        gone = {
            name: before["pids"][name]
            for name, host in before["where"].items()
            if host in lost
        }

        def is_there() -> bool:
            pids: dict[str, int | None] = self.program.until(1)["pids"]
            return all(pid and pid != gone.get(name) for name, pid in pids.items())

        wait_until(is_there, WAIT_S, f"workers again on {lost}")

    def wipe(self, name: str) -> None:
        before = self.program.status()
        self.lab[name].wipe()
        self.lab[name].start_agent()
        self.works(before, name)

    def cut(self, seconds: float, name: str) -> None:
        with self.lab.cable_is_out(seconds, name):
            pass
        wait_until(lambda: "lost" not in self.last_words(), WAIT_S, "all hosts")

    def last_words(self) -> set[str]:
        """What was last told of each processor's host: lost, found or restarted."""
        found: dict[str, str] = {}
        for event in self.program.until(1)["events"]:
            what, processor, _ = event.split(" ", 2)
            if what in ("lost", "found", "restarted"):
                found[processor] = what
        return set(found.values())


@pytest.mark.parametrize("shape", DIAMONDS)
def test_a_diamond_is_exact(
    carrier: str, shape: str, figure: Callable[..., float]
) -> None:
    if shape not in DIAMONDS[: int(figure(len(DIAMONDS), 2))]:
        pytest.skip("one of the shapes is for the full figures")
    wipes, cuts = int(figure(5, 1)), int(figure(5, 1))
    count = int(figure(100_000, 2_000))
    faults: list[tuple[Any, ...]] = []
    cables = itertools.cycle(("one", "two", "home"))
    for k in range(max(wipes, cuts)):
        if k < wipes:
            faults += [(Diamond.wipe, "one"), (Diamond.wipe, "two")]
        if k < cuts:
            faults.append((Diamond.cut, CUTS_S[k], next(cables)))
    with Lab(("home", "one", "two"), carrier) as lab:
        lab.let_run("one", "two")
        began = time.monotonic()
        diamond = Diamond(lab, count, len(faults) + 1, shape)
        for fault, *how in faults:
            diamond.flows()
            fault(diamond, *how)
            diamond.open()
        found = diamond.program.until(WAIT_S + count / 200, ended=True)
        tell(
            f"diamond, {carrier}, {shape}", values=count, wipes=2 * wipes, cuts=cuts,
            restarts=found["restarts"], seconds=time.monotonic() - began,
            values_per_s=count / found["seconds"], load=os.getloadavg()[0],
            **{k: found[k] for k in ("received", "missing", "repeated", "disordered")},
        )  # fmt: skip
        wrong = found["missing"], found["repeated"], found["disordered"]
        assert (found["received"], wrong) == (diamond.results, (0, 0, 0)), found
        leave(lab, diamond.program)


def both(one: str, other: str) -> list[tuple[str, str]]:
    return [(one, other), (other, one)]


PARTITIONS: dict[str, tuple[list[tuple[str, str]], set[str]]] = {
    "home | one": (both("home", "one"), {"one"}),
    "one > home": ([("one", "home")], {"one"}),
    "one | two": (both("one", "two"), set()),
    "home > two": ([("home", "two")], {"two"}),
    "two > one": ([("two", "one")], set()),
    "home | one | two": (
        both("home", "one") + both("home", "two") + both("one", "two"),
        {"one", "two"},
    ),
}
"""Which host does not reach which, and whose workers end by that."""


def test_no_worker_runs_past_its_lease(
    carrier: str, figure: Callable[..., float]
) -> None:
    names = list(PARTITIONS)[: int(figure(len(PARTITIONS), 2))]
    count = int(figure(30_000, 2_000))
    with Lab(("home", "one", "two"), carrier) as lab:
        lab.let_run()
        diamond = Diamond(lab, count, len(names) + 1, "sides")
        for name in names:
            ways, lost = PARTITIONS[name]
            diamond.flows()
            before = diamond.program.status()
            ends, lives = list[ProcessIdentity](), list[ProcessIdentity]()
            for worker, host in before["where"].items():
                (ends if host in lost else lives).append(
                    ProcessIdentity.of(before["pids"][worker])
                )
            lab.part(*ways)
            began = time.monotonic()
            took = 0.0
            while (now := time.monotonic() - began) < LEASE_S + 3.0:
                if any(worker.is_alive() for worker in ends):
                    took = now
                time.sleep(0.02)
            tell(
                f"leases, {carrier}, {name}", ended_after_s=took, lease_s=LEASE_S,
                load=os.getloadavg()[0],
            )  # fmt: skip
            assert took <= LEASE_S + 2.0, name
            assert all(worker.is_alive() for worker in lives), name
            lab.rejoin()
            diamond.works(before, *lost)
            diamond.open()
        found = diamond.program.until(WAIT_S + count / 200, ended=True)
        wrong = found["missing"], found["repeated"], found["disordered"]
        assert (found["received"], wrong) == (diamond.results, (0, 0, 0)), found
        leave(lab, diamond.program)
