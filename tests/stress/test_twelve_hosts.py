"""Twelve hosts on one switch, whose cables are pulled at random: all of it is exact."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from deadline import wait_until
from link_rig import CARRIERS, TESTS, Lab, Program, RigHost, need, tell

from ataraxis.errors import SegmentNotFound
from ataraxis.stream.inspector import Inspector

COUNT = 12
HZ, SIZE, SLOTS = 50.0, 4096, 64
PIPE = (("same", 3), ("takes_a_while", 6), ("same", 9))
"""Functions of the pipe of the first host, and the hosts of their workers."""
BUSY_S = 240.0
"""How long each step may take on a machine that runs other tests, too."""
STATIONS = TESTS / "programs" / "workers_hosts.py"


def name_of(number: int) -> str:
    return f"h{number % COUNT}"


def set_up(lab: Lab) -> list[Program]:
    """Start an agent a host, with mirrors of two others; return the agents."""
    names = list(lab.hosts)
    for number, (name, host) in enumerate(lab.hosts.items()):
        for other in others_of(number):
            lab.mirror(other, other, name)
        host.configure(
            may={each: ["read", "put", "run"] for each in names if each != name},
            modules=["workers_pipe"],
        )
    agents = [host.start_agent(ready=False) for host in lab.hosts.values()]
    for agent, host in zip(agents, lab.hosts.values(), strict=True):
        host.wait_for_agent(agent, BUSY_S)
    return agents


def others_of(number: int) -> list[str]:
    """Return two other hosts: so each one's stream is mirrored twice."""
    return [name_of(number + 1), name_of(number + 5)]


def pull_cables(lab: Lab, chance: random.Random, seconds: float) -> int:
    """Pull cables of random hosts for 1 to 3 s, two at a time at most; how often."""
    end = time.monotonic() + seconds
    out: dict[str, float] = {}
    next_at, cuts = 0.0, 0
    while (now := time.monotonic()) < end or out:
        for name, until in list(out.items()):
            if now >= until:
                lab.cable_in(name)
                del out[name]
        if now < end and now >= next_at and len(out) < 2:
            name = chance.choice([each for each in lab.hosts if each not in out])
            lab.cable_out(name)
            cuts += 1
            out[name] = now + chance.uniform(1.0, 3.0)
            next_at = now + chance.uniform(0.2, 1.0)
        time.sleep(0.02)
    return cuts


def judge(stations: dict[str, Program]) -> int:
    """Every reader has received every number of its stream once, in order; how many."""
    sent = {name: one.status()["sent"] for name, one in stations.items()}
    total = 0
    for name, one in stations.items():
        for stream, found in one.status()["watched"].items():
            expected: dict[str, Any] = {
                "is_here": True, "received": sent[stream], "next": sent[stream],
                "wrong": 0, "damaged": 0, "lost": 0, "is_ended": True, "error": "",
            }  # fmt: skip
            assert found == expected, f"{stream} on {name}"
            total += found["received"]
    return total


@pytest.mark.parametrize("carrier", CARRIERS)
def test_twelve_hosts_on_one_switch(carrier: str, figure: Callable[..., float]) -> None:
    """24 mirrors, and a pipe over four hosts, through cuts of 1 to 3 s at random."""
    need(carrier)
    seconds = figure(30, 5)
    seed = int(
        os.environ.get("ATARAXIS_SEED", "0")
    ) or random.SystemRandom().getrandbits(32)
    print(f"ATARAXIS_SEED={seed}")
    count = int(400 * seconds)
    began = time.monotonic()
    with Lab([name_of(k) for k in range(COUNT)], carrier) as lab:
        agents = set_up(lab)
        stations = {
            name: host.start(
                "station", script=STATIONS, stream=name, others=others_of(number),
                hz=HZ, size=SIZE, slots=SLOTS,
            )
            for number, (name, host) in enumerate(lab.hosts.items())
        }  # fmt: skip
        first = lab[name_of(0)]
        pipe = first.start(
            "pipe", context=str(first.context), count=count,
            stages=[{"func": func, "host": name_of(k)} for func, k in PIPE],
        )  # fmt: skip
        for station in stations.values():
            station.until(BUSY_S, is_here=True)
        for station in stations.values():
            station.process.send_signal(signal.SIGUSR2)
        for station in stations.values():
            station.until(BUSY_S, least=20)
        pipe.until(BUSY_S, received=20)
        ready = time.monotonic()
        cuts = pull_cables(lab, random.Random(seed), seconds)
        for station in stations.values():
            station.process.send_signal(signal.SIGUSR1)
        for station in stations.values():
            station.until(BUSY_S, ended=True)
        total = judge(stations)
        found = pipe.until(BUSY_S, ended=True)
        over = time.monotonic()
        result = [found[k] for k in ("received", "missing", "repeated", "disordered")]
        tell(
            f"12 hosts, {carrier}", seed=seed, cuts=cuts, frames=total,
            sent=sum(s.status()["sent"] for s in stations.values()),
            worst_send_s=max(s.status()["worst_s"] for s in stations.values()),
            results=found["received"], pipe_s=found["seconds"],
            begins_s=ready - began, runs_s=over - ready, load=os.getloadavg()[0],
        )  # fmt: skip
        assert result == [count, 0, 0, 0]
        leave(lab, agents, stations)


def is_let_go(host: RigHost) -> bool:
    """Return whether its agent has every acknowledgement of its stream's end."""
    try:
        readers = Inspector(host.name, host.context).statistics().readers
    except SegmentNotFound:
        return True
    return "agent" not in [reader.label for reader in readers]


def leave(lab: Lab, agents: list[Program], stations: dict[str, Program]) -> None:
    """End everything; nothing is left in any context."""

    wait_until(lambda: all(map(is_let_go, lab.hosts.values())), BUSY_S, "every ack")
    for program in [*agents, *stations.values()]:
        program.process.terminate()
    for program in [*stations.values(), *agents]:
        code = program.process.wait(60)
        assert code == 0, (program.name, code, program.said()[-2000:])
    for host in lab.hosts.values():
        # A standing mirror's state says which stream it has to its end.
        left = [f for f in host.files() if not f.startswith(".agent.")]
        assert not left, f"left on {host.name}: {left}"
