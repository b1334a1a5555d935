"""Agents beside the workers of dask, on hosts with cables, and what they outlive."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from deadline import wait_until
from link_rig import TESTS, Lab, Program, need, tell

from ataraxis.shm.process import ProcessIdentity

pytest.importorskip("cryptography", reason="certificates need cryptography")
pytest.importorskip("distributed", reason="distributed is not installed")

SCRIPT = TESTS / "programs" / "workers_hosts.py"
PORT = 8786
HOSTS = ("one", "two")
"""Hosts of dask's workers; its scheduler and its client are at home."""


class DaskRig:
    """Dask on the hosts of a laboratory, and a client with a pipe on its workers."""

    def __init__(self, lab: Lab) -> None:
        from workers_hosts import make_keys

        self.lab = lab
        keys = lab.root / "keys"
        make_keys(keys)
        self._keys = str(keys)
        self._agents: list[ProcessIdentity] = []
        self.folders: list[Path] = []
        """What the agents have made: folders in /tmp and in /dev/shm."""
        home = lab["home"]
        address = home.address.partition(":")[0]
        self._scheduler_address = f"tls://{address}:{PORT}"
        self.scheduler = home.start(
            "scheduler", script=SCRIPT, host=address, port=PORT, keys=self._keys
        )
        self.scheduler.until(90, ready=True)
        self.workers = [self._worker(name) for name in HOSTS]
        for worker in self.workers:
            worker.until(90, ready=True)

    def _worker(self, name: str) -> Program:
        host = self.lab[name]
        return host.start(
            "worker", script=SCRIPT, scheduler=self._scheduler_address,
            host=host.address.partition(":")[0], keys=self._keys,
            folder=str(self.lab.root / name / "dask"), tag="fast",
        )  # fmt: skip

    def run(self, count: int, lease_s: float, silence_s: float = 0.0) -> Program:
        """Start the client; return it once some results are there."""
        home = self.lab["home"]
        client = home.start(
            "client", script=SCRIPT, scheduler=self._scheduler_address,
            keys=self._keys, context=str(home.context), count=count, lease_s=lease_s,
            silence_s=silence_s,
        )  # fmt: skip
        wait_until(
            lambda: client.status().get("agents") or not client.is_running, 120,
            "agents beside the workers",
        )  # fmt: skip
        self._agents = [ProcessIdentity.of(p) for p in client.status()["agents"]]
        for agent in self._agents:
            words = Path(f"/proc/{agent.pid}/cmdline").read_text().split("\0")
            self.folders += [Path(w) for w in words if "/ataraxis-dask-" in w]
        assert len(self.folders) == 2 * len(HOSTS)
        client.until(60, ready=True, received=50)
        return client

    @property
    def agents_that_live(self) -> int:
        return sum(agent.is_alive() for agent in self._agents)

    def kill_dask(self) -> None:
        """Kill the scheduler and the workers of dask; the agents are left."""
        for program in (self.scheduler, *self.workers):
            program.kill()

    def agents_end(self, timeout: float) -> float:
        """Wait until the agents have ended and left nothing; how long that took, s."""
        began = time.monotonic()
        wait_until(lambda: not self.agents_that_live, timeout, "the agents to end")
        took = time.monotonic() - began
        assert not [path for path in self.folders if path.exists()]
        return took

    def close(self) -> None:
        for agent in self._agents:
            if agent.is_alive():
                os.kill(agent.pid, signal.SIGKILL)


@pytest.fixture
def rig() -> Iterator[DaskRig]:
    need("tls")
    with Lab(("home", *HOSTS), "tls") as lab:
        made = DaskRig(lab)
        try:
            yield made
        finally:
            made.close()


def exact(client: Program, count: int) -> dict[str, Any]:
    found = client.until(180, ended=True)
    result = [found[k] for k in ("received", "missing", "repeated", "disordered")]
    assert result == [count, 0, 0, 0]
    return found


def test_agents_outlive_dask_and_a_cut(
    rig: DaskRig, figure: Callable[..., float]
) -> None:
    """No worker of ours ends; the agents end with the cluster, at once."""
    cut_s = figure(45, 8)
    client = rig.run(4000, lease_s=60.0)
    workers = [ProcessIdentity.of(p) for p in client.status()["pids"].values()]
    rig.kill_dask()
    with rig.lab.cable_is_out(cut_s, "two"):
        pass
    assert rig.agents_that_live == len(HOSTS)
    assert all(worker.is_alive() for worker in workers)
    again = time.monotonic()
    client.until(120, run_ended=True)
    took = rig.agents_end(60)
    found = exact(client, 4000)
    tell(
        f"dask is dead, and a cable out for {cut_s:g} s", results=found["received"],
        ended_after_the_cut_s=time.monotonic() - again, agents_end_s=took,
        load=os.getloadavg()[0],
    )  # fmt: skip
    assert not any(event.startswith("restarted") for event in found["events"])


def test_a_cut_longer_than_the_lease(
    rig: DaskRig, figure: Callable[..., float]
) -> None:
    """The workers there end; the agent stays, and starts them again."""
    cut_s = figure(45, 12)
    client = rig.run(4000, lease_s=5.0)
    pids = client.status()["pids"]
    where = client.status()["where"]
    far = [ProcessIdentity.of(p) for w, p in pids.items() if where[w] == "dask-1"]
    rig.kill_dask()
    with rig.lab.cable_is_out(cut_s, "two"):
        wait_until(lambda: not any(p.is_alive() for p in far), 20, "the workers to end")
    found = exact(client, 4000)
    tell(
        f"dask is dead, and a cable out for {cut_s:g} s of a lease of 5 s",
        results=found["received"], agents_end_s=rig.agents_end(60),
        load=os.getloadavg()[0],
    )  # fmt: skip
    assert any(event.startswith("restarted") for event in found["events"])


@pytest.mark.parametrize("left", ["dask", "nothing", "no cable"])
def test_agents_end_after_a_client_that_was_killed(rig: DaskRig, left: str) -> None:
    """Nothing tells them of it: they have not heard of it for so long."""
    client = rig.run(10**6, lease_s=5.0, silence_s=10.0)
    workers = [ProcessIdentity.of(p) for p in client.status()["pids"].values()]
    if left != "dask":
        rig.kill_dask()
    if left == "no cable":
        rig.lab.cable_out("two")
    client.kill()
    took = rig.agents_end(60)
    tell(
        f"the client was killed, {left} is left", agents_end_s=took,
        load=os.getloadavg()[0],
    )  # fmt: skip
    assert not any(worker.is_alive() for worker in workers)
