"""Agents that are processes of their own, over TLS on ports of 127.0.0.1.

They are stopped, killed and started again; see `agents` for agents of this process.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from places import PATH

from ataraxis.link.hosts import Hosts


class AgentProcesses:
    """A lab of hosts, each with a context and, while it runs, an agent.

    Parameters
    ----------
    place : Path
        Folder for certificates, spools and contexts.
    contexts : dict of str to Path
        The context of each host that has an agent.
    names : sequence of str
        All hosts of the lab.
    modules : sequence of str
        Whose functions each host may run on the others.
    """

    def __init__(
        self, place: Path, contexts: dict[str, Path], names: Sequence[str],
        modules: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.contexts = contexts
        addresses = {name: f"127.0.0.1:{port}" for name, port in _ports(names)}
        self.hosts = Hosts.create(place / "rig", "rig", addresses, carrier="tls")
        for name, made in self.hosts.items():
            made.spool.directory = str(place / f"spool-{name}")
            made.modules = list(modules)
            rights: Any = ["read", "put", "run"]
            made.may = {other: list(rights) for other in names if other != name}
            made.to_yaml(made.path)
            made.path.chmod(0o600)
        self._running: dict[str, subprocess.Popen[str]] = {}

    def start(self, name: str) -> None:
        """Start the agent of a host; return once it listens."""
        code = "from ataraxis.cli import main; main()"
        made = self._running[name] = subprocess.Popen(
            [sys.executable, "-P", "-c", code, "agent", "--hosts",
             str(self.hosts[name].path), "--context", str(self.contexts[name])],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd="/",
            env={**os.environ, "PYTHONPATH": PATH},
        )  # fmt: skip
        assert made.stdout is not None
        assert "listens on" in made.stdout.readline()

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a signal to the agent of a host."""
        self._running[name].send_signal(number)

    def kill(self, name: str) -> None:
        """Kill the agent of a host, and wait until it is gone."""
        self._running[name].kill()
        self._end(name)

    def _end(self, name: str) -> None:
        process = self._running.pop(name)
        process.wait(20)
        assert process.stdout is not None
        process.stdout.close()

    def close(self) -> None:
        """End all agents, so that nothing of them is left."""
        for name in list(self._running):
            self.send(name, signal.SIGCONT)
            self.send(name, signal.SIGTERM)
        for name in list(self._running):
            try:
                self._running[name].wait(20)
            except subprocess.TimeoutExpired:
                self._running[name].kill()
            self._end(name)


@contextlib.contextmanager
def agent_processes(
    here: Path, *, others: Sequence[str] = ("acq",), off: Sequence[str] = (),
    modules: Sequence[str] = (),
) -> Iterator[AgentProcesses]:  # fmt: skip
    """Run agents of host gpu, whose context is `here`, and of `others`.

    Hosts `off` are in the file, and have no agent.
    """
    pytest.importorskip("cryptography", reason="certificates need cryptography")
    shm = "/dev/shm" if Path("/dev/shm").is_dir() else None
    place = Path(tempfile.mkdtemp(prefix="ataraxis-lab-", dir=shm))
    contexts = {"gpu": here, **{name: place / f"context-{name}" for name in others}}
    for name in others:
        contexts[name].mkdir(mode=0o700)
    try:
        made = AgentProcesses(place, contexts, ["gpu", *others, *off], modules)
        try:
            for name in contexts:
                made.start(name)
            yield made
        finally:
            made.close()
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _ports(names: Sequence[str]) -> list[tuple[str, int]]:
    """Return a free port for each host."""
    with contextlib.ExitStack() as stack:
        found = []
        for name in names:
            line = stack.enter_context(socket.socket())
            line.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            line.bind(("127.0.0.1", 0))
            found.append((name, line.getsockname()[1]))
        return found
