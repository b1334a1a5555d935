"""A laboratory of hosts in network namespaces, whose cables can be pulled.

`Lab` makes a namespace for each host and joins them by a switch (veths on a bridge) or,
two hosts only, by a `Wire` that delays and drops packets. Each host has a context, a
spool and a folder of ``hosts.yaml`` and certificates, made by `Hosts.create`; its
programs are those of `workers_link`, started within its namespaces and killed by pid.
Without root the hosts are three ports of 127.0.0.1, and have no cables.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from deadline import wait_until
from numpy.typing import NDArray
from places import PATH, TESTS
from wire import Wire
from workers_link import ROW

PROGRAM = TESTS / "programs" / "workers_link.py"
NETWORK = "10.77.0"
PORT = 7411
CARRIERS = ("tls", "zenoh")
_PREFIX = f"ataraxis-lab-{os.getpid()}-"
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def sh(command: str) -> None:
    done = subprocess.run(command.split(), capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr.strip()}")


def why_no_namespaces() -> str | None:
    """Return what network namespaces lack here, or None."""
    if shutil.which("ip") is None or shutil.which("nsenter") is None:
        return "ip(8) and nsenter(1) are needed"
    if os.geteuid():
        return "network namespaces need root"
    name = f"axp{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"no network namespaces here: {made.stderr.strip()}"
    sh(f"ip netns del {name}")
    return None


def why_no_carrier(carrier: str) -> str | None:
    """Return which package the carrier lacks here, or None."""
    from importlib.util import find_spec

    needed = {"tls": ("cryptography",), "zenoh": ("cryptography", "zenoh")}[carrier]
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        return f"{' and '.join(missing)} not installed: pip install 'ataraxis[cluster]'"
    return None


def need(carrier: str, *, namespaces: bool = True) -> None:
    """Skip the test, with the reason, where it cannot run."""
    if why := (why_no_namespaces() if namespaces else None) or why_no_carrier(carrier):
        pytest.skip(why)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


# ---- programs


class Program:
    """A program on a host; killed at the latest when its laboratory closes."""

    def __init__(
        self, name: str, command: Sequence[str], environment: dict[str, str], log: Path
    ) -> None:
        self.name, self.log = name, log
        self._file = open(log, "ab")  # noqa: SIM115 - closed by `close`
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=self._file,
            stderr=self._file, cwd="/", preexec_fn=_die_with_parent,
        )  # fmt: skip
        self.started = time.monotonic()
        self.status_path: Path | None = None
        self.rows_path: Path | None = None

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def status(self) -> dict[str, Any]:
        """What it last wrote of itself; empty before that."""
        assert self.status_path is not None
        try:
            found: dict[str, Any] = json.loads(self.status_path.read_text())
        except FileNotFoundError:
            return {}
        return found

    def until(self, timeout: float, **expected: Any) -> dict[str, Any]:
        """Wait until its status has these values, or at least these numbers."""

        def is_there() -> bool:
            found = self.status()
            if not self.is_running and not found.get("ended"):
                raise AssertionError(f"{self.name} ended: {self.said()[-3000:]}")
            return all(
                found.get(k, -1) >= v if type(v) in (int, float) else found.get(k) == v
                for k, v in expected.items()
            )

        try:
            wait_until(is_there, timeout, f"{self.name} to reach {expected}")
        except AssertionError as error:
            said = self.said()[-3000:]
            raise AssertionError(f"{error}; {self.status()}; {said}") from None
        return self.status()

    def kill(self) -> None:
        """End it by SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait(20)

    def terminate(self, timeout: float = 20) -> int:
        """Ask it to end; its exit code."""
        self.process.terminate()
        return self.process.wait(timeout)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(20)
        self._file.close()

    def cpu_s(self) -> float:
        """Processor time of its threads so far, s."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def rss(self) -> int:
        """Resident memory, bytes, without the shared memory it has mapped."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        found = {k: int(v) for k, v in re.findall(r"(Rss\w+):\s+(\d+) kB", text)}
        return 1024 * (found["RssAnon"] + found["RssFile"])

    def threads(self) -> int:
        """How many threads it has."""
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def descriptors(self) -> int:
        """How many files it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def anonymous(self) -> int:
        """Resident memory of its own, bytes: what a leak is made of."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        return 1024 * int(re.findall(r"RssAnon:\s+(\d+) kB", text)[0])


# ---- hosts


@dataclass
class RigHost:
    """One host: names, directories, and what runs on it."""

    name: str
    address: str
    context: Path
    folder: Path
    spool: Path
    logs: Path
    namespace: str | None = None
    clock_holder: int | None = None
    package: Path | None = None
    programs: list[Program] = field(default_factory=list)
    _count: int = 0

    @property
    def hosts_file(self) -> Path:
        return self.folder / "hosts.yaml"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ, "PYTHONPATH": PATH, "PYTHONSAFEPATH": "1",
            "ATARAXIS_CONTEXT": str(self.context),
            "ATARAXIS_HOSTS": str(self.hosts_file), "OPENBLAS_NUM_THREADS": "1",
        }  # fmt: skip

    def within(self, *command: str) -> list[str]:
        """Return a command as it is started on this host."""
        enter = []
        if self.namespace is not None:
            enter = ["nsenter", f"--net=/run/netns/{self.namespace}"]
            if self.clock_holder is not None:
                enter.append(f"--time=/proc/{self.clock_holder}/ns/time")
        return [*enter, *command]

    def start(
        self,
        program: str,
        label: str = "",
        *,
        script: Path = PROGRAM,
        **arguments: Any,
    ) -> Program:
        """Start a program of `workers_link`; a label it had before goes on there."""
        label = label or program
        self._count += 1
        if program not in ("agent",):
            arguments["status"] = str(self.logs / f"{label}.status")
            (self.logs / f"{label}.status").unlink(missing_ok=True)
        if program in ("reader", "truth"):
            arguments["rows"] = str(self.logs / f"{label}.rows")
        started = Program(
            f"{label} on {self.name}",
            self.within(
                sys.executable, "-P", str(script), program, json.dumps(arguments)
            ),
            self.environment,
            self.logs / f"{label}.{self._count}.log",
        )
        self.programs.append(started)
        if "status" in arguments:
            started.status_path = Path(arguments["status"])
        if "rows" in arguments:
            started.rows_path = Path(arguments["rows"])
        return started

    def start_agent(
        self, *, crash_at: str = "", after_s: float = 0.0, ready: bool = True
    ) -> Program:
        """Start the agent, and wait until it answers in its context."""
        arguments: dict[str, Any] = {"hosts": str(self.hosts_file)}
        if crash_at:
            arguments |= {"crash_at": crash_at, "after_s": after_s}
        if self.package is not None:
            arguments["package"] = str(self.package)
        started = self.start("agent", **arguments)
        if ready:
            self.wait_for_agent(started)
        return started

    def wait_for_agent(self, started: Program, timeout: float = 40) -> None:
        from ataraxis.cluster.door import agent_pid

        def is_there() -> bool:
            if not started.is_running:
                raise AssertionError(f"{started.name} ended: {started.said()[-3000:]}")
            return agent_pid(self.context) == started.pid

        wait_until(is_there, timeout, f"{started.name} to answer")

    def run(
        self, *arguments: str, timeout: float = 60, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run ``ataraxis ...`` on this host."""
        start = (
            "import sys; sys.argv[0] = 'ataraxis'\nimport ataraxis.cli as c; c.main()"
        )
        done = subprocess.run(
            self.within(sys.executable, "-P", "-c", start, *arguments), cwd="/",
            env={**self.environment, "COLUMNS": "300"}, capture_output=True, text=True,
            timeout=timeout,
        )  # fmt: skip
        assert not check or done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done

    def python(self, code: str, timeout: float = 60) -> str:
        """Run Python on this host; what it printed."""
        done = subprocess.run(
            self.within(sys.executable, "-P", "-c", code), cwd="/",
            env=self.environment, capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip
        assert done.returncode == 0, (code, done.stdout, done.stderr)
        return done.stdout

    def configure(self, **fields: Any) -> None:
        """Change fields of ``hosts.yaml``; lists and mappings as YAML has them."""
        text = self.hosts_file.read_text()
        for name, value in fields.items():
            line = f"{name}: {json.dumps(value)}\n"
            pattern = rf"(?m)^{name}:.*\n(?:[ \t-].*\n|\n)*"
            if re.search(pattern, text):
                text = re.sub(pattern, lambda _, line=line: line, text)
            else:
                text += line if text.endswith("\n") else "\n" + line
        self.hosts_file.write_text(text)

    def mirror_state(self, name: str = "camera") -> dict[str, Any]:
        """What the agent here says of a mirror; empty without agent or mirror."""
        from ataraxis.cluster.status import mirrors_here

        found = [m.as_dict() for m in mirrors_here(self.context) if m.name == name]
        return found[0] if found else {}

    def files(self) -> list[str]:
        return sorted(p.name for p in self.context.iterdir())

    def pids(self) -> list[int]:
        """Return the processes in its namespace."""
        assert self.namespace is not None
        found = subprocess.run(
            ["ip", "netns", "pids", self.namespace],
            capture_output=True, text=True, timeout=20,
        )  # fmt: skip
        return [int(pid) for pid in found.stdout.split()]

    def wipe(self) -> None:
        """Kill all that runs here, and empty the context: its memory is gone."""
        while pids := self.pids():
            for pid in pids:
                _end(pid)
            time.sleep(0.01)
        for program in self.programs:
            program.close()
        for path in self.context.iterdir():
            path.unlink()

    def listening(self) -> list[str]:
        """Return ``address:port`` of the TCP sockets that listen in its namespace."""
        found = subprocess.run(
            self.within("ss", "-Hltn"), capture_output=True, text=True, timeout=20
        ).stdout  # fmt: skip
        return [line.split()[3] for line in found.splitlines()]


class Lab:
    """Hosts on a network; everything it made is gone after `close`.

    Parameters
    ----------
    names : sequence of str
        Hosts, the camera's first.
    carrier : str
        'tls' or 'zenoh'.
    wire : mapping, optional
        Join two hosts by a `Wire` of this state (``loss=0.01``) instead of a switch.
    clocks : mapping of str to int, optional
        How far a host's monotonic clock is ahead of this machine's, s.
    package : Path, optional
        ataraxis with crash points, for the agents.
    namespaces : bool
        False: ports of 127.0.0.1, which needs no root.
    spool_bytes : int
        Bound of each host's spool.
    """

    def __init__(
        self,
        names: Sequence[str] = ("acq", "gpu"),
        carrier: str = "tls",
        *,
        wire: Mapping[str, float] | None = None,
        clocks: Mapping[str, int] | None = None,
        package: Path | None = None,
        namespaces: bool = True,
        spool_bytes: int = 4 * 10**9,
    ) -> None:
        self.carrier = carrier
        self.hosts: dict[str, RigHost] = {}
        self.wire: Wire | None = None
        self._stack = contextlib.ExitStack()
        self._tag = f"ax{os.getpid()}n"
        self._switch = f"{self._tag}sw"
        _sweep()
        try:
            self._make(names, namespaces, wire, clocks or {}, package, spool_bytes)
        except BaseException:
            self.close()
            raise

    def _make(
        self,
        names: Sequence[str],
        namespaces: bool,
        wire: Mapping[str, float] | None,
        clocks: Mapping[str, int],
        package: Path | None,
        spool_bytes: int,
    ) -> None:
        self.root = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._stack.callback(shutil.rmtree, self.root, ignore_errors=True)
        contexts = Path(tempfile.mkdtemp(prefix=_PREFIX, dir="/dev/shm"))
        self._stack.callback(shutil.rmtree, contexts, ignore_errors=True)
        if namespaces:
            addresses = {n: f"{NETWORK}.{k + 1}:{PORT}" for k, n in enumerate(names)}
        else:
            ports = _free_ports(len(names))
            addresses = {n: f"127.0.0.1:{p}" for n, p in zip(names, ports, strict=True)}
        self.folder = self.root / "rig"
        self._certify(addresses)
        for k, name in enumerate(names):
            context = contexts / name
            context.mkdir(mode=0o700)
            for folder in ("spool", "logs"):
                (self.root / name / folder).mkdir(parents=True)
            host = RigHost(
                name, addresses[name], context, self.folder / name,
                self.root / name / "spool", self.root / name / "logs", package=package,
            )  # fmt: skip
            self.hosts[name] = host
            host.configure(
                carrier=self.carrier,
                spool={"directory": str(host.spool), "bytes": spool_bytes},
            )
            if namespaces:
                host.namespace = f"{self._tag}{k}"
                self._namespace(host.namespace)
                if name in clocks:
                    host.clock_holder = self._clock(clocks[name])
        self._stack.callback(self._end_programs)
        if namespaces and wire is None:
            self._join_by_switch()
        elif namespaces:
            ends = [
                (h.namespace or "", h.address.partition(":")[0])
                for h in self.hosts.values()
            ]
            self.wire = Wire(ends, **(wire or {}))
            self._stack.callback(self.wire.close)

    def _certify(self, addresses: dict[str, str]) -> None:
        from ataraxis.link.hosts import Hosts

        Hosts.create(self.folder, "rig", addresses)

    def _namespace(self, name: str) -> None:
        sh(f"ip netns add {name}")
        self._stack.callback(
            subprocess.run, ["ip", "netns", "del", name], capture_output=True
        )
        sh(f"ip -n {name} link set lo up")

    def _clock(self, ahead_s: int) -> int:
        """Return the pid of a process in a time namespace, which lasts with us."""
        holder = subprocess.Popen(
            ["unshare", "--time", "--fork", "--kill-child", "--monotonic",
             str(ahead_s), "--boottime", str(ahead_s), "sleep", "86400"],
            preexec_fn=_die_with_parent,
        )  # fmt: skip
        self._stack.callback(holder.wait, 20)
        self._stack.callback(holder.kill)
        children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children")
        ours = os.readlink("/proc/self/ns/time")

        def is_there() -> bool:
            pids = children.read_text().split()
            return bool(pids) and os.readlink(f"/proc/{pids[0]}/ns/time") != ours

        wait_until(is_there, 20, "a time namespace")
        child = int(children.read_text())
        self._stack.callback(_end, child)
        return child

    def _join_by_switch(self) -> None:
        self._namespace(self._switch)
        sh(f"ip -n {self._switch} link add bridge type bridge")
        sh(f"ip -n {self._switch} link set bridge up")
        for k, host in enumerate(self.hosts.values()):
            here = host.namespace
            sh(
                f"ip link add eth0 netns {here} type veth "
                f"peer port{k} netns {self._switch}"
            )
            sh(f"ip -n {self._switch} link set port{k} master bridge up")
            sh(f"ip -n {here} addr add {NETWORK}.{k + 1}/24 dev eth0")
            sh(f"ip -n {here} link set eth0 up")

    # ---- the cable

    def cable_out(self, name: str | None = None) -> None:
        """Pull the cable of a host (the last one's), at the switch."""
        if self.wire is not None:
            self.wire.set(cut=1)
        else:
            sh(f"ip -n {self._switch} link set {self._port(name)} down")

    def cable_in(self, name: str | None = None) -> None:
        if self.wire is not None:
            self.wire.set(cut=0)
        else:
            sh(f"ip -n {self._switch} link set {self._port(name)} up")

    @contextlib.contextmanager
    def cable_is_out(self, seconds: float, name: str | None = None) -> Iterator[None]:
        """Pull it; put it back `seconds` later, at the end of the block."""
        self.cable_out(name)
        end = time.monotonic() + seconds
        try:
            yield
        finally:
            time.sleep(max(0.0, end - time.monotonic()))
            self.cable_in(name)

    def part(self, *ways: tuple[str, str]) -> None:
        """Drop what each first host sends to the second one, from now on.

        It is sent to a card that does not exist; so any set of directions can be cut.
        """
        for source, to in ways:
            there = self.hosts[to].address.partition(":")[0]
            sh(
                f"ip -n {self.hosts[source].namespace} neigh replace {there} "
                "lladdr 02:00:00:00:00:fe dev eth0 nud permanent"
            )

    def rejoin(self) -> None:
        """Let all hosts reach each other again, after `part`."""
        for host in self.hosts.values():
            sh(f"ip -n {host.namespace} neigh flush dev eth0 nud permanent")

    def _port(self, name: str | None) -> str:
        names = list(self.hosts)
        return f"port{names.index(name or names[-1])}"

    # ---- usual programs

    def let_run(self, *tagged: str) -> None:
        """Let each host run the functions of the tests on the others; start the agents.

        The hosts in `tagged` have the tag 'fast'.
        """
        hosts = {
            name: {"address": host.address, "tags": ["fast"] if name in tagged else []}
            for name, host in self.hosts.items()
        }
        for name, host in self.hosts.items():
            rights = {each: ["read", "put", "run"] for each in hosts if each != name}
            host.configure(hosts=hosts, may=rights, modules=["workers_pipe"])
            host.start_agent()

    def mirror(
        self,
        stream: str = "camera",
        source: str = "acq",
        on: str = "gpu",
        **options: Any,
    ) -> None:
        """Write a standing mirror into a host's ``hosts.yaml``, before its agent."""
        host = self.hosts[on]
        found = re.findall(r"(?m)^mirrors: (\[.*\])$", host.hosts_file.read_text())
        mirrors = json.loads(found[0]) if found else []
        entry = {"stream": stream, "host": source, "policy": "lossless", **options}
        host.configure(mirrors=[*mirrors, entry])

    def __getitem__(self, name: str) -> RigHost:
        return self.hosts[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if exc[0] is not None:
            for host in self.hosts.values():
                for program in host.programs:
                    print(f"--- {program.name}", program.said()[-2000:])
        self.close()

    def _end_programs(self) -> None:
        for host in self.hosts.values():
            for program in host.programs:
                program.close()

    def close(self) -> None:
        self._stack.close()


def _sweep() -> None:
    """Remove namespaces and contexts of test processes that were killed."""

    def is_left(name: str, pattern: str) -> bool:
        found = re.fullmatch(pattern, name)
        return found is not None and not os.path.exists(f"/proc/{found[1]}")

    if not os.geteuid() and os.path.isdir("/run/netns"):
        for name in os.listdir("/run/netns"):
            if is_left(name, r"ax(\d+)n(?:\d+|sw)"):
                subprocess.run(["ip", "netns", "del", name], capture_output=True)
    for name in os.listdir("/dev/shm"):
        if is_left(name, r"ataraxis-lab-(\d+)-\w+"):
            shutil.rmtree(f"/dev/shm/{name}", ignore_errors=True)


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in found:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in found]


# ---- what readers had


def tell(row: str, **figures: Any) -> None:
    """Print a figure of a row of the plan; append it to $ATARAXIS_FIGURES, if set."""
    text = ", ".join(
        f"{k.replace('_', ' ')} {v:.3g}" if isinstance(v, float) else f"{k} {v}"
        for k, v in figures.items()
    )
    print(f"{row}: {text}")
    if path := os.environ.get("ATARAXIS_FIGURES"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%H:%M:%S')} {row}: {text}\n")


def worst_send_s(status: Mapping[str, Any], since: float, until: float) -> float:
    """The longest `send` of a camera that ended between two wall times, s."""
    found = [took for at, took in status["slow"] if since <= at <= until]
    return float(max(found, default=0.02))


@dataclass(frozen=True)
class Received:
    """What a reader wrote: how many of `count` numbers are missing, repeated ..."""

    received: int
    missing: int
    repeated: int
    disordered: int
    longest_pause_s: float
    numbers: NDArray[np.int64]
    at_s: NDArray[np.float64]
    """Wall time at which each was received, s."""
    sent_s: NDArray[np.float64]

    def flows_again_s(self, since: float) -> float:
        """How long after `since`, wall time, the first frame was received."""
        later = self.at_s[self.at_s >= since]
        return float(later[0] - since) if len(later) else np.inf

    def caught_up_s(self, since: float, lag_s: float = 0.1) -> float:
        """How long after `since` frames came at most `lag_s` after their `send`."""
        is_late = (self.at_s - self.sent_s > lag_s) & (self.at_s >= since)
        return float(self.at_s[is_late].max() - since) if is_late.any() else 0.0


def received(rows: Path, count: int) -> Received:
    """Judge the rows of a reader."""
    data = rows.read_bytes()
    table = np.frombuffer(data[: len(data) - len(data) % ROW], "<i8").reshape(-1, 3)
    numbers = table[:, 0]
    at = table[:, 1] / 1e9
    different = np.unique(numbers)
    return Received(
        len(numbers),
        count - int(((different >= 0) & (different < count)).sum()),
        len(numbers) - len(different),
        int((np.diff(numbers) <= 0).sum()),
        float(np.diff(at).max()) if len(at) > 1 else 0.0,
        numbers,
        at,
        table[:, 2] / 1e9,
    )


def assert_all(rows: Path, count: int, what: str = "") -> Received:
    """Every number once and in order."""
    found = received(rows, count)
    left = np.setdiff1d(np.arange(count), found.numbers)
    wrong = (found.missing, found.repeated, found.disordered)
    assert wrong == (0, 0, 0), (
        f"{what}: of {count} frames {found.missing} are missing ({left[:5]} ...), "
        f"{found.repeated} repeated, {found.disordered} out of order"
    )
    return found


# ---- what most proofs do


class Filming:
    """A camera on the first host, mirrored to the last one, where a reader has it all.

    Agents, camera and reader run when this is made, and frames flow. `finish` ends the
    camera, waits until the reader has the end, and judges what it has.
    """

    def __init__(
        self,
        lab: Lab,
        *,
        hz: float = 120.0,
        size: int = 100_000,
        slots: int = 32,
        count: int = 10**7,
        reader: Mapping[str, Any] | None = None,
        flowing: int = 60,
        **mirror: Any,
    ) -> None:
        self.lab = lab
        self.here, self.there = list(lab.hosts.values())[:: len(lab.hosts) - 1]
        self._reader = {"stream": "camera", **(reader or {})}
        lab.mirror("camera", self.here.name, self.there.name, **mirror)
        self.agents = {host.name: host.start_agent() for host in lab.hosts.values()}
        self.camera = self.here.start(
            "camera", stream="camera", count=count, hz=hz, size=size, slots=slots
        )
        self.reader = self.start_reader()
        if flowing:
            self.flows(flowing)

    def start_reader(self) -> Program:
        self.reader = self.there.start("reader", **self._reader)
        return self.reader

    def restart(self, host: str, **arguments: Any) -> Program:
        """Start a host's agent again; it was killed or has died."""
        self.agents[host].close()
        self.agents[host] = self.lab[host].start_agent(**arguments)
        return self.agents[host]

    @property
    def rows(self) -> int:
        """How many frames the reader has written."""
        assert self.reader.rows_path is not None
        path = self.reader.rows_path
        return path.stat().st_size // ROW if path.exists() else 0

    def flows(self, more: int = 30, timeout: float = 60) -> float:
        """Wait until the reader has so many more frames; how long that took, s."""
        before, began = self.rows, time.monotonic()

        def is_there() -> bool:
            for program in (self.camera, self.reader):
                if not program.is_running:
                    raise AssertionError(f"{program.name}: {program.said()[-3000:]}")
            return self.rows >= before + more

        wait_until(is_there, timeout, f"{more} frames after {before}; {self.state()}")
        return time.monotonic() - began

    def state(self) -> str:
        """What all sides say, for messages."""
        said = {name: agent.said()[-1000:] for name, agent in self.agents.items()}
        try:
            mirror: Any = self.there.mirror_state()
        except Exception as error:
            mirror = error
        return f"camera {self.camera.status()}, mirror {mirror}, agents {said}"

    def finish(self, timeout: float = 120) -> Received:
        """End the camera; all that it sent was received, once and in order."""
        sent = self.end_camera()
        found = self.reader.until(timeout, ended=True)
        assert (found["damaged"], found["lost"]) == (0, 0), found
        assert self.reader.rows_path is not None
        return assert_all(self.reader.rows_path, sent, self.lab.carrier)

    def end_camera(self, timeout: float = 60) -> int:
        """Let the camera send its end; how many frames it has sent."""
        if self.camera.is_running:
            self.camera.process.send_signal(signal.SIGUSR1)
        return int(self.camera.until(timeout, done=True)["sent"])

    def leave(self) -> None:
        """End everything in order; the contexts hold no file of ours after that."""
        from ataraxis.errors import AtaraxisError
        from ataraxis.stream.inspector import Inspector

        def is_acknowledged() -> bool:
            try:
                found = Inspector("camera", self.here.context).statistics()
            except (AtaraxisError, OSError):
                return True
            return "agent" not in [reader.label for reader in found.readers]

        wait_until(is_acknowledged, 20, f"the end to be acknowledged; {self.state()}")
        for name, agent in self.agents.items():
            code = agent.terminate()
            assert code == 0, (name, code, agent.said())
        assert self.camera.terminate() in (0, -signal.SIGTERM), self.camera.said()
        for host in self.lab.hosts.values():
            # A standing mirror's state says which stream it has to its end.
            left = [f for f in host.files() if not f.startswith(("clock.", ".agent."))]
            assert not left, f"left on {host.name}: {left}"
