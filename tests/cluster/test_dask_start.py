"""Agents that run for one other host: when they end. Without dask."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from agents import Lab, lab
from deadline import wait_until
from link_rig import PATH, TESTS, Program

from ataraxis.cluster import Agent
from ataraxis.cluster.dask_start import (
    HOME,
    LEAVE,
    GuestAgent,
    KeyFolder,
    free_port,
    start_agent,
)
from ataraxis.errors import HostUnavailable, RemoteError
from ataraxis.link.hosts import Hosts
from ataraxis.shm.process import ProcessIdentity
from ataraxis.testing.carriers import FakeCarrier

WAIT_S = 30.0
SCALE = float(os.environ.get("ATARAXIS_STRESS", "0.1"))


@pytest.fixture
def rig() -> Iterator[Lab]:
    with lab(HOME, "dask-0", "dask-1") as made:
        yield made


def guest(rig: Lab, silence_s: float) -> GuestAgent:
    """Let the agent of dask-0 be one that runs for its home."""
    rig.stop("dask-0")
    made = GuestAgent(
        rig.hosts("dask-0"), silence_s, context=rig.contexts["dask-0"],
        carrier=FakeCarrier(rig.network, "dask-0"),
    )  # fmt: skip
    rig.agents["dask-0"] = made
    return made


def test_keys_that_a_killed_program_has_left_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a program that lives, and folders without a lock, are left alone."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    program = (
        "import sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
        "from ataraxis.cluster.dask_start import KeyFolder\n"
        "print(KeyFolder().path, flush=True); input()"
    )
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with child:
        assert child.stdout is not None
        left = Path(child.stdout.readline().strip())
        agent = tmp_path / "ataraxis-dask-0-agent"
        agent.mkdir()
        living = KeyFolder()
        assert left.is_dir(), "its program lives"
        child.kill()
    another = KeyFolder()
    assert sorted(tmp_path.iterdir()) == sorted([agent, living.path, another.path])
    for folder in (living, another, another):
        folder.close()
    assert [*tmp_path.iterdir()] == [agent]


def test_only_its_home_tells_an_agent_to_leave(rig: Lab) -> None:
    agent = guest(rig, 600)
    with pytest.raises(RemoteError, match="not the one that started"):
        rig.agents["dask-1"].contact("dask-0").ask(LEAVE, WAIT_S)
    assert agent.why_not_needed() == ""
    rig.agents[HOME].contact("dask-0").ask(LEAVE, WAIT_S)
    assert agent.why_not_needed() == "the cluster is closed"


def test_an_agent_that_is_kept_is_needed(
    rig: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ataraxis.cluster.control.STAY_S", 0.05)
    agent = guest(rig, 600)
    rig.agents["dask-1"].contact("dask-0").keep()  # which is nothing to it
    agent._silent_s = 500.0
    rig.agents[HOME].contact("dask-0").keep()
    wait_until(lambda: agent._silent_s < 500, WAIT_S, "the home to be heard")
    assert agent.why_not_needed() == ""
    rig.stop(HOME)
    agent._silence_s = 1.0
    wait_until(agent.why_not_needed, WAIT_S, "the silence to be long")
    assert "'client' has been silent" in agent.why_not_needed()


def test_a_stop_of_the_agent_is_not_a_silence_of_its_home(rig: Lab) -> None:
    agent = guest(rig, 100.0)
    agent._looked -= 1000.0  # as SIGSTOP and SIGCONT leave it
    assert agent.why_not_needed() == ""


def started(
    tmp_path: Path, silence_s: float
) -> tuple[dict[str, Hosts], ProcessIdentity, list[Path]]:
    """Start an agent as dask does; return the lab, the process, and its folders."""
    addresses = {
        name: f"127.0.0.1:{free_port('127.0.0.1')}" for name in (HOME, "dask-0")
    }
    made = Hosts.create(tmp_path / "lab", "lab", addresses, carrier="tls")
    made["dask-0"].may = {HOME: ["read", "put", "run"]}
    made["dask-0"].functions = True
    made["dask-0"].to_yaml(made["dask-0"].path)
    made["dask-0"].path.chmod(0o600)
    files = {p.name: p.read_bytes() for p in made["dask-0"].path.parent.iterdir()}
    process = ProcessIdentity.of(start_agent("dask-0", files, silence_s))
    words = Path(f"/proc/{process.pid}/cmdline").read_text().split("\0")
    return made, process, [Path(w) for w in words if "/ataraxis-dask-0-" in w]


def ended(process: ProcessIdentity, folders: list[Path]) -> None:
    """Wait until it has ended; nothing of it is left."""
    try:
        wait_until(lambda: not process.is_alive(), WAIT_S, "the agent to end")
        assert len(folders) == 2
        assert not [path for path in folders if path.exists()]
    finally:
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        os.waitpid(process.pid, 0)
        for path in folders:
            shutil.rmtree(path, ignore_errors=True)


@pytest.mark.slow
def test_an_agent_lives_as_long_as_its_home(context: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="certificates need cryptography")
    made, process, folders = started(tmp_path, 5.0)
    try:
        with Agent(made[HOME], context=context) as home:
            home.contact("dask-0").keep()
            end = time.monotonic() + 8.0
            while time.monotonic() < end:
                assert process.is_alive()
                time.sleep(0.1)
    finally:
        ended(process, folders)


def test_an_agent_that_never_hears_of_its_home_ends(tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="certificates need cryptography")
    _, process, folders = started(tmp_path, 0.5)
    ended(process, folders)


def test_an_agent_that_does_not_start_leaves_nothing(tmp_path: Path) -> None:
    before = set(Path("/dev/shm").glob("ataraxis-dask-9-*"))
    why = r"(?s)dask-9.*did not start.*ConfigError"
    with pytest.raises(HostUnavailable, match=why):
        start_agent("dask-9", {"hosts.yaml": b"lab: 3\n"}, 1.0)
    assert set(Path("/dev/shm").glob("ataraxis-dask-9-*")) == before


@pytest.mark.slow
def test_an_agent_ends_whenever_its_home_is_killed(
    context: Path, tmp_path: Path
) -> None:
    """Before it has a run, while that is prepared, or later: no worker is left."""
    pytest.importorskip("cryptography", reason="certificates need cryptography")
    chance = random.Random(26)
    for number in range(max(3, int(12 * SCALE))):
        place = tmp_path / str(number)
        made, process, folders = started(place, 3.0)
        try:
            program = Program(
                "home",
                [
                    sys.executable, "-P", str(TESTS / "programs" / "workers_hosts.py"),
                    "home", json.dumps({
                        "status": str(place / "status"), "context": str(context),
                        "hosts": str(made[HOME].path),
                    }),
                ],
                {**os.environ, "PYTHONPATH": PATH, "PYTHONSAFEPATH": "1"},
                place / "log",
            )  # fmt: skip
            program.status_path = place / "status"
            program.until(WAIT_S, ready=True)
            time.sleep(chance.uniform(0.0, 2.0))
            program.kill()
            program.close()
            for path in context.iterdir():  # as of another host
                path.unlink()
        finally:
            ended(process, folders)
        assert not workers_of(folders)


def workers_of(folders: list[Path]) -> list[str]:
    """Return the processes that an agent has left, by their context."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (path / "cmdline").read_text()
            if any(str(folder) in words for folder in folders):
                found.append(f"{path.name} {words}")
    return found
