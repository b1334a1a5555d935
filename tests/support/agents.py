"""Agents of several hosts in one process: each has a context and a spool."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ataraxis.cluster.agent import Agent
from ataraxis.link.hosts import Hosts, LabHost, SpoolFolder, StandingMirror
from ataraxis.testing.carriers import FakeCarrier, FakeNetwork


class Lab:
    """Hosts of a lab, each with a context; their agents are started and stopped."""

    def __init__(self, place: Path, names: tuple[str, ...] = ("acq", "gpu")) -> None:
        self.network = FakeNetwork()
        self.place, self.names = place, names
        self.contexts = {name: place / f"context-{name}" for name in names}
        for path in self.contexts.values():
            path.mkdir(mode=0o700)
        self.agents: dict[str, Agent] = {}
        self.said: list[str] = []
        self.spool_bytes: int | str = "1 GB"
        self.may: dict[str, dict[str, list[str]]] = {}
        self.mirrors: dict[str, list[StandingMirror]] = {}
        self.modules: dict[str, list[str]] = {}
        self.tags: dict[str, list[str]] = {}
        self.sessions: dict[str, str] = {}

    def hosts(self, name: str) -> Hosts:
        """What the file of a host states."""
        listed = {
            each: LabHost(f"{each}:7411", self.tags.get(each, []))
            for each in self.names
        }
        spool = SpoolFolder(str(self.place / f"spool-{name}"), self.spool_bytes)
        made = Hosts("rig", name, listed, spool=spool)
        made.mirrors = self.mirrors.get(name, [])
        made.may = self.may.get(name, {})  # type: ignore[assignment]
        made.modules = self.modules.get(name, [])
        made.sessions = self.sessions.get(name, "")
        return made

    def start(self, name: str) -> Agent:
        """Start the agent of a host."""
        self.agents[name] = Agent(
            self.hosts(name),
            context=self.contexts[name],
            carrier=FakeCarrier(self.network, name),
            say=lambda text: self.said.append(f"{name}: {text}"),
        )
        return self.agents[name]

    def stop(self, name: str) -> None:
        """Stop the agent of a host, as SIGTERM does."""
        self.agents.pop(name).close()

    def close(self) -> None:
        """Stop all agents."""
        for name in list(self.agents):
            self.stop(name)


@contextlib.contextmanager
def lab(*names: str, modules: Sequence[str] = ()) -> Iterator[Lab]:
    """Run the agents of a lab in this process; their contexts are removed.

    With `modules`, each host may run their functions on the others.
    """
    shm = "/dev/shm" if Path("/dev/shm").is_dir() else None
    place = Path(tempfile.mkdtemp(prefix="ataraxis-lab-", dir=shm))
    made = Lab(place, names or ("acq", "gpu"))
    if modules:
        made.modules = {name: list(modules) for name in made.names}
        rights = {name: ["read", "put", "run"] for name in made.names}
        made.may = dict.fromkeys(made.names, rights)
    try:
        for name in made.names:
            made.start(name)
        yield made
    finally:
        made.close()
        shutil.rmtree(place, ignore_errors=True)
