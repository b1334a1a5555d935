"""Agents on the workers of dask: SSH, SLURM and Kubernetes find hosts, we stay there.

dask is asked once, for where its workers are and to start an agent beside each. An
agent is a process of its own session: it goes on when dask, or the way to it, dies. It
ends when the cluster says so, or has not been heard for `SILENCE_S`.
"""

from __future__ import annotations

import contextlib
import fcntl
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
from ataraxis.cluster.control import STAY
from ataraxis.cluster.door import agent_pid
from ataraxis.errors import AccessDenied, AtaraxisError, HostUnavailable
from ataraxis.link.hosts import FILE, Hosts
from ataraxis.shm.context import Context, ContextLike
from ataraxis.shm.process import Ending, process_command, spawn
from ataraxis.shm.thread import Latch, Thread

HOME = "client"
"""Name of the host that has the dask client, and starts the others."""
LEAVE = "leave"
"""What an agent beside a dask worker is told when the cluster is closed."""
SILENCE_S = 120.0
"""An agent beside a dask worker ends when it has not heard of the cluster so long, s;
with a longer lease, `_MARGIN_S` after that."""
_MARGIN_S = 60.0
_START_S = 60.0
_LEAVE_S, _DASK_S = 3.0, 10.0
_TURN_S, _LONG_TURN_S = 0.5, 5.0
_PREFIX, _LOCK = "ataraxis-dask-", "lock"


class KeyFolder:
    """A folder for the keys of a lab, locked by its program as long as that lives.

    Those that killed programs of this user have left are removed.
    """

    def __init__(self) -> None:
        _sweep_folders()
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        made = self.path / "locked"
        self._lock = os.open(made, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        made.rename(self.path / _LOCK)  # only now another program looks at it

    def close(self) -> None:
        """Remove it. Idempotent."""
        shutil.rmtree(self.path, ignore_errors=True)
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)


def _sweep_folders() -> None:
    """Remove the folders of programs that were killed."""
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        with contextlib.suppress(OSError):  # it goes just now, or is not ours
            if lock.parent.lstat().st_uid != os.geteuid() or lock.parent.is_symlink():
                continue
            found = os.open(lock, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)
            finally:
                os.close(found)


class DaskLab:
    """A lab whose other hosts are the workers of a dask client.

    See `Cluster.from_dask`. It has certificates, an agent here and one beside each
    worker, all of which end with it.
    """

    def __init__(
        self, client: Any, *, context: ContextLike = None, lease_s: float = 10.0
    ) -> None:
        self._agent: Agent | None = None
        self._by_worker: dict[str, str] = {}
        self.pids: dict[str, int] = {}
        """Processes of the agents, by the address of their dask worker."""
        self._client_of_dask = client
        self._silence_s = max(SILENCE_S, lease_s + _MARGIN_S)
        self._keys = KeyFolder()
        self._folder = self._keys.path
        try:
            self.hosts = self._make_lab(client)
            """What this host's file states."""
            self._agent = Agent(self.hosts, context=context)
            self._start_agents(client, self._agent)
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
        addresses = {HOME: f"{mine}:{free_port(mine)}", **addresses}
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
        return made[HOME]

    def _start_agents(self, client: Any, agent: Agent) -> None:
        files = {
            name: {
                path.name: path.read_bytes()
                for path in (self._folder / name).iterdir()
                if path.is_file()
            }
            for name in self._by_worker.values()
        }
        for worker, name in self._by_worker.items():
            found = client.run(
                start_agent, name, files[name], self._silence_s, workers=[worker]
            )
            self.pids[worker] = found[worker]
            agent.contact(name).keep()

    def close(self) -> None:
        """End the agents, and remove the certificates. Idempotent."""
        agent, self._agent = self._agent, None
        if agent is not None:
            try:
                self._dismiss(agent)
            finally:
                agent.close()
        if self.pids:  # not reached by us, but perhaps by dask
            thread = Thread(self._end_by_dask, "ataraxis-dask-end")
            thread.start()
            thread.join(_DASK_S)
        # Those that are left hear of the cluster no more, and end by themselves.
        self.pids = {}
        self._keys.close()

    def _dismiss(self, agent: Agent) -> None:
        """Tell the agents to end; those that could not be told stay in `pids`."""
        contacts = {
            worker: agent.contact(self._by_worker[worker]) for worker in self.pids
        }
        deadline = time.monotonic() + _LEAVE_S
        # Those that are connected answer at once, whatever has happened to the others.
        for worker in sorted(contacts, key=lambda w: not contacts[w].is_connected):
            contact = contacts[worker]
            least = _LEAVE_S if contact.is_connected else 0.0
            with contextlib.suppress(AtaraxisError, OSError):
                contact.ask(LEAVE, max(deadline - time.monotonic(), least))
                del self.pids[worker]

    def _end_by_dask(self) -> None:
        with contextlib.suppress(Exception):  # whatever dask raises: it may be gone
            there = self._client_of_dask.scheduler_info(n_workers=-1)["workers"]
            for worker, pid in self.pids.items():
                if worker in there:
                    self._client_of_dask.run(end_agent, pid, workers=[worker])


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


def start_agent(name: str, files: dict[str, bytes], silence_s: float) -> int:
    """Start an agent that outlives this worker; return its pid; run by dask.

    It ends when its home has told it to, or has been silent for `silence_s`.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"ataraxis-{name}-"))
    for file, data in files.items():
        with open(os.open(folder / file, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as out:
            out.write(data)
    shm = "/dev/shm" if os.path.isdir("/dev/shm") else None
    context = Context.of(tempfile.mkdtemp(prefix=f"ataraxis-{name}-", dir=shm))
    places = str(folder), str(context.path)
    with open(folder / "agent.log", "w+b") as log:
        child = spawn(
            process_command(
                "ataraxis.cluster.dask_start:serve", *places, f"{silence_s:g}"
            ),
            stdout=log,
            stderr=log,
            process_group=None,
            start_new_session=True,
        )
        deadline = time.monotonic() + _START_S
        while not _answers(context):
            if child.poll() is not None or time.monotonic() > deadline:
                child.signal(signal.SIGKILL)
                child.wait()
                _remove(*places)
                said = os.pread(log.fileno(), 1 << 20, 0).decode(errors="replace")
                raise HostUnavailable(
                    f"the agent of {name!r} did not start: {said[-1000:]}"
                )
            time.sleep(0.05)
    return child.pid


def _answers(context: Context) -> bool:
    try:
        return agent_pid(context) is not None
    except OSError:  # it has failed, and has removed the directory
        return False


def end_agent(pid: int) -> None:
    """End an agent; run by dask."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


# ---- the process beside a worker of dask


class GuestAgent(Agent):
    """An agent that runs for one other host, its home, and only while that is there.

    Parameters
    ----------
    hosts : Hosts
        The hosts of the lab; one of them is `HOME`.
    silence_s : float
        How long its home may be silent before it is not needed any more, s.
    **keywords
        As for `Agent`.
    """

    def __init__(self, hosts: Hosts, silence_s: float, **keywords: Any) -> None:
        self._silence_s, self._silent_s = silence_s, 0.0
        self._looked = time.monotonic()
        self._is_dismissed = Latch()
        super().__init__(hosts, **keywords)

    def _answer(
        self, host: str, what: str, arguments: dict[str, Any]
    ) -> dict[str, Any]:
        if what not in (STAY, LEAVE):
            return super()._answer(host, what, arguments)
        if host != HOME:
            raise AccessDenied(f"host {host!r} is not the one that started this agent")
        self._silent_s = 0.0
        if what == LEAVE:
            self._is_dismissed.set()
        return {}

    def why_not_needed(self) -> str:
        """Return why it should end, '' if it should not; asked again and again."""
        now = time.monotonic()
        # While this process was stopped, it could not hear anything.
        self._silent_s += min(now - self._looked, _LONG_TURN_S)
        self._looked = now
        if self._is_dismissed.is_set():
            return "the cluster is closed"
        if self._silent_s >= self._silence_s:
            return f"host {HOME!r} has been silent for {self._silent_s:.0f} s"
        return ""


def serve(folder: str, context: str, silence_s: str) -> None:
    """Run an agent until SIGTERM, or until its home does not need it any more."""
    try:
        hosts = Hosts.load(Path(folder) / FILE)
        hosts.spool.directory = str(Path(folder) / "spool")
        with (
            Ending(is_last=True) as ending,
            GuestAgent(hosts, float(silence_s), context=context, say=_say) as agent,
        ):
            while not ending.first.wait(_TURN_S):
                if why := agent.why_not_needed():
                    _say(f"{why}: the agent ends")
                    break
    finally:
        _remove(folder, context)


def _remove(*folders: str) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
