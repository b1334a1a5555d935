"""Agents on the workers of dask: SSH, SLURM and Kubernetes find hosts, we stay there.

dask is asked once, for where its workers are and to start an agent beside each. An
agent is a process of its own session: it goes on when dask, or the way to it, dies.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from ataraxis.cluster.agent import Agent
from ataraxis.cluster.door import agent_pid
from ataraxis.errors import AccessDenied, HostUnavailable
from ataraxis.link.hosts import FILE, Hosts
from ataraxis.shm.context import Context, ContextLike
from ataraxis.shm.process import Ending, process_command, spawn

_START_S = 60.0
_LINGER_S = 120.0
_TURN_S = 1.0


class DaskLab:
    """A lab whose other hosts are the workers of a dask client.

    See `Cluster.from_dask`. It has certificates, an agent here and one beside each
    worker, all of which end with it.
    """

    def __init__(self, client: Any, *, context: ContextLike = None) -> None:
        self._agent: Agent | None = None
        self._pids: dict[str, int] = {}
        self._client_of_dask = client
        self._folder = Path(tempfile.mkdtemp(prefix="ataraxis-dask-"))
        try:
            self.hosts = self._make_lab(client)
            """What this host's file states."""
            self._agent = Agent(self.hosts, context=context)
            self._start_agents(client)
        except BaseException:
            self.close()
            raise

    def _make_lab(self, client: Any) -> Hosts:
        """Return what this host's file states, of a lab of the client's workers."""
        workers = dict(client.scheduler_info(n_workers=-1)["workers"])
        if not workers:
            raise HostUnavailable(
                "the dask client has no workers: call client.wait_for_workers(n) first"
            )
        check_client(str(client.scheduler.address))
        places: dict[str, tuple[str, int]] = client.run(free_address)
        self._by_worker = {address: f"dask-{k}" for k, address in enumerate(places)}
        addresses = {
            self._by_worker[worker]: f"{host}:{port}"
            for worker, (host, port) in places.items()
        }
        first = next(iter(places.values()))[0]
        mine = address_towards(first)
        addresses = {"client": f"{mine}:{free_port(mine)}", **addresses}
        lab = f"dask-{uuid.uuid4().hex[:8]}"
        made = Hosts.create(self._folder, lab, addresses, carrier="tls")
        for name, hosts in made.items():
            others = [each for each in addresses if each != name]
            hosts.may = {each: ["read", "put", "run"] for each in others}
            # Who has the client can run any code there already.
            hosts.functions = True
            for worker, host in self._by_worker.items():
                tags = sorted(workers.get(worker, {}).get("resources", {}))
                hosts.hosts[host].tags = tags
            hosts.to_yaml(hosts.path)
            hosts.path.chmod(0o600)
        return made["client"]

    def _start_agents(self, client: Any) -> None:
        files = {
            name: {
                path.name: path.read_bytes()
                for path in (self._folder / name).iterdir()
                if path.is_file()
            }
            for name in self._by_worker.values()
        }
        for worker, name in self._by_worker.items():
            found = client.run(start_agent, name, files[name], workers=[worker])
            self._pids[worker] = found[worker]

    def close(self) -> None:
        """End the agents, and remove the certificates. Idempotent."""
        agent, self._agent = self._agent, None
        if agent is not None:
            agent.close()
        # Without dask, they end by themselves when no run has been there for a while.
        with contextlib.suppress(Exception):  # whatever dask raises: it may be gone
            there = self._client_of_dask.scheduler_info(n_workers=-1)["workers"]
            for worker, pid in self._pids.items():
                if worker in there:
                    self._client_of_dask.run(end_agent, pid, workers=[worker])
        self._pids = {}
        shutil.rmtree(self._folder, ignore_errors=True)


def check_client(address: str) -> None:
    """Raise `AccessDenied` unless the scheduler is reached by TLS, or is on this host.

    Examples
    --------
    >>> check_client("tcp://127.0.0.1:8786")
    >>> check_client("tcp://192.0.2.1:8786")
    Traceback (most recent call last):
        ...
    ataraxis.errors.AccessDenied: the dask scheduler tcp://192.0.2.1:8786 is reached ...
    """
    kind, _, rest = address.partition("://")
    if kind in ("tls", "wss", "inproc"):
        return
    host = rest.rpartition(":")[0].strip("[]")
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return
    raise AccessDenied(
        f"the dask scheduler {address} is reached without TLS, and keys of hosts would "
        "be sent through it: give the client security=Security(...), as of "
        "https://distributed.dask.org/en/stable/tls.html"
    )


def address_towards(host: str) -> str:
    """Return the address of this host by which another one reaches it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as line:
        line.connect((host, 9))  # of a datagram socket: nothing is sent
        return str(line.getsockname()[0])


def free_port(host: str) -> int:
    """Return a port of an address of this host on which nothing listens."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as line:
        line.bind((host, 0))
        return int(line.getsockname()[1])


# ---- on the workers of dask


def free_address(dask_worker: Any) -> tuple[str, int]:
    """Return the address of a worker's host, and a free port; run by dask."""
    host = str(dask_worker.address).partition("://")[2].rpartition(":")[0].strip("[]")
    return host, free_port(host)


def start_agent(name: str, files: dict[str, bytes]) -> int:
    """Start an agent that outlives this worker; return its pid; run by dask."""
    folder = Path(tempfile.mkdtemp(prefix=f"ataraxis-{name}-"))
    for file, data in files.items():
        with open(os.open(folder / file, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as out:
            out.write(data)
    shm = "/dev/shm" if os.path.isdir("/dev/shm") else None
    context = Context.of(tempfile.mkdtemp(prefix=f"ataraxis-{name}-", dir=shm))
    with open(folder / "agent.log", "wb") as log:
        child = spawn(
            process_command(
                "ataraxis.cluster.dask_start:serve", str(folder), str(context.path)
            ),
            stdout=log,
            stderr=log,
            process_group=None,
            start_new_session=True,
        )
    deadline = time.monotonic() + _START_S
    while agent_pid(context) is None:
        if child.poll() is not None or time.monotonic() > deadline:
            said = (folder / "agent.log").read_text(errors="replace")[-1000:]
            raise HostUnavailable(f"the agent of {name!r} did not start: {said}")
        time.sleep(0.05)
    return child.pid


def end_agent(pid: int) -> None:
    """End an agent; run by dask."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


def serve(folder: str, context: str) -> None:
    """Run an agent until SIGTERM, or until no run was here for two minutes."""
    try:
        hosts = Hosts.load(Path(folder) / FILE)
        hosts.spool.directory = str(Path(folder) / "spool")
        with (
            Ending(is_last=True) as ending,
            Agent(hosts, context=context, say=_say) as agent,
        ):
            needed = time.monotonic()
            while not ending.first.wait(_TURN_S):
                if agent.statistics()["runs"]:
                    needed = time.monotonic()
                elif time.monotonic() - needed > _LINGER_S:
                    return
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(context, ignore_errors=True)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
