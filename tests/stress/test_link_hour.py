"""Two hosts for an hour with a cut a minute: exact, and memory stays flat."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from deadline import wait_until
from link_rig import CARRIERS, Filming, Lab, need, tell

GROWTH = 12e6
"""Bytes by which an agent may be larger in the last third than in the second."""


@pytest.mark.parametrize("carrier", CARRIERS)
def test_an_hour_with_a_cut_a_minute(
    carrier: str, figure: Callable[..., float]
) -> None:
    need(carrier)
    seconds = figure(3600, 45)
    every = 60.0 if seconds >= 600 else 15.0
    chance = np.random.default_rng(60)
    sizes: dict[str, list[int]] = {"acq": [], "gpu": []}
    files: dict[str, list[int]] = {"acq": [], "gpu": []}
    with Lab(carrier=carrier) as lab:
        filming = Filming(lab)
        began = time.monotonic()
        cuts = 0
        while time.monotonic() - began < seconds:
            due = time.monotonic() + every
            cut_s = float(chance.uniform(0.2, min(8.0, every / 3)))
            with lab.cable_is_out(cut_s, ("acq", "gpu")[cuts % 2]):
                cuts += 1
            while time.monotonic() < due:
                time.sleep(min(2.5, max(0.0, due - time.monotonic())))
                for name, agent in filming.agents.items():
                    assert agent.is_running, (name, agent.said())
                    sizes[name].append(agent.anonymous())
                    files[name].append(agent.descriptors())
        filming.flows(240)
        found = filming.finish()
        grown = {name: _growth(found) for name, found in sizes.items()}
        opened = {name: _growth(found) for name, found in files.items()}
        tell(
            f"hour {carrier}", seconds=seconds, cuts=cuts, frames=found.received,
            growth_MB={k: round(v / 1e6, 2) for k, v in grown.items()},
            size_MB={k: round(float(np.median(v)) / 1e6, 1) for k, v in sizes.items()},
            worst_send_s=filming.camera.status()["worst_s"],
        )  # fmt: skip
        assert max(grown.values()) < GROWTH, sizes
        assert max(opened.values()) <= 8, files
        filming.leave()


@pytest.mark.parametrize("carrier", CARRIERS)
def test_idle_agents(carrier: str, figure: Callable[..., float]) -> None:
    """I1: 10 mirrors of streams that send nothing."""
    need(carrier)
    seconds = figure(60, 8)
    with Lab(carrier=carrier) as lab:
        acq, gpu = lab["acq"], lab["gpu"]
        for k in range(10):
            lab.mirror(f"idle.{k}")
        agents = [host.start_agent() for host in (acq, gpu)]
        many = acq.start("many", count=10, hz=0.0, size=1000)
        many.until(30, ready=True)
        wait_until(
            lambda: sum(f.startswith("idle.") for f in gpu.files()) == 10, 60,
            "10 mirrors",
        )  # fmt: skip
        time.sleep(3.0)  # what begins has settled
        before = [agent.cpu_s() for agent in agents]
        time.sleep(seconds)
        used = [agent.cpu_s() - b for agent, b in zip(agents, before, strict=True)]
        sizes = [agent.rss() / 1e6 for agent in agents]
        tell(
            f"I1 {carrier}", cpu_percent=[round(100 * u / seconds, 2) for u in used],
            rss_MB=[round(s) for s in sizes], threads=[a.threads() for a in agents],
        )  # fmt: skip
        assert max(used) / seconds < 0.05
        assert max(sizes) < 120
        assert many.terminate() == 0


def _growth(found: list[int]) -> float:
    """Median of the last third minus that of the second."""
    third = len(found) // 3
    return float(np.median(found[-third:]) - np.median(found[third : 2 * third]))
