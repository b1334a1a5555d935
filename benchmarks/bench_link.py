"""Mirrors between two agents against bare carriers: rates, CPU, latency, idling, clock.

    python benchmarks/bench_link.py [--json OUT] [--quick] [--carrier tls]

Two agents for each carrier, their contexts in /dev/shm, over loopback with mutual TLS
1.3. A mirror's frame goes from `send` of a producer to a reader of the other context;
its peers are `ssl` sockets with sendall and recv_into, and zenoh's put with a callback,
with the same certificates. Peers take turns, and all frames are counted. The CPU time
of a mirror is that of its two agents, the CPU time of a bare carrier that of its two
processes. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from measure import Aim, Result, interleaved, report

HERE = Path(__file__).resolve().parent
TICK = os.sysconf("SC_CLK_TCK")
SIZES = {"64 B": 64, "10 KB": 10_000, "1 MB": 1_000_000, "6 MB": 6_000_000}
COUNTS = {64: 200_000, 10_000: 40_000, 1_000_000: 600, 6_000_000: 120}
SLOTS = {64: 8192, 10_000: 1024, 1_000_000: 16, 6_000_000: 6}
LATENCY = "100 KB at 120 Hz"
LATENCY_SIZE, LATENCY_HZ = 100_000, 120
ONE = "one"
BOUND = "C2 bound / round trip"
CARRIERS = ("tls", "zenoh")
BARE = {"tls": "bare ssl", "zenoh": "bare zenoh"}
START = "import sys; sys.argv[0] = 'ataraxis'\nfrom ataraxis.cli import main; main()"


def mirror_of(carrier: str) -> str:
    return f"mirror, {carrier}"


class Peer:
    """A process of `link_peer`."""

    def __init__(self, stack: contextlib.ExitStack, role: str, **settings: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(HERE / "link_peer.py"), role,
             json.dumps(settings)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        stack.callback(self._close)

    def _close(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def tell(self, **command: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args[3]} ended")  # type: ignore[index]
        found: dict[str, Any] = json.loads(line)
        return found


class Pair:
    """A sender and a reader, and the processes between them."""

    def __init__(self, send: Peer, read: Peer, agents: tuple[int, ...] = ()) -> None:
        self.send, self.read, self._agents = send, read, agents

    def transfer(self, size: int, count: int, **more: Any) -> dict[str, float]:
        """Send `count` frames; seconds, CPU time of what is between, medians."""
        before = sum(map(cpu_s, self._agents))
        self.read.tell(size=size, count=count, **more)
        time.sleep(0.01)
        self.send.tell(size=size, count=count, **more)
        sent, had = self.send.hear(), self.read.hear()
        cpu = sum(map(cpu_s, self._agents)) - before
        if not self._agents:
            cpu = sent["cpu_s"] + had["cpu_s"]
        return {**had, **sent, "cpu_s": cpu, "seconds": had["seconds"]}


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def rss_mb(pid: int) -> float:
    """Resident memory without shared memory, MB."""
    kinds = ("RssAnon:", "RssFile:")
    lines = [line.split() for line in open(f"/proc/{pid}/status")]  # noqa: SIM115
    return sum(int(f[1]) for f in lines if f[0] in kinds) * 1024 / 1e6


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Lab:
    """Two agents, with mirrors on the second one of streams of the first one."""

    def __init__(
        self, stack: contextlib.ExitStack, carrier: str, streams: list[str]
    ) -> None:
        from ataraxis.cluster import Hosts

        self.carrier = carrier
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        contexts = Path(
            stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm"))
        )
        addresses = {name: f"127.0.0.1:{free_port()}" for name in ("acq", "gpu")}
        made = Hosts.create(folder / "rig", "rig", addresses, carrier=carrier)
        self.agents: list[subprocess.Popen[bytes]] = []
        self.contexts = {}
        self.files = [
            str(getattr(made["gpu"], f"{name}_path"))
            for name in ("certificate", "key", "authority")
        ]
        for name, hosts in made.items():
            hosts.spool.directory = str(folder / f"spool-{name}")
            path = hosts.path
            hosts.to_yaml(path)
            if name == "gpu":
                entries = [{"stream": s, "host": "acq"} for s in streams]
                text = path.read_text().replace("mirrors: []\n", "")
                path.write_text(f"{text}\nmirrors: {json.dumps(entries)}\n")
            context = contexts / name
            context.mkdir(mode=0o700)
            self.contexts[name] = str(context)
            self.agents.append(
                subprocess.Popen(
                    [sys.executable, "-P", "-c", START, "agent", "--hosts", path],
                    env={**os.environ, "ATARAXIS_CONTEXT": str(context)},
                    stdout=subprocess.DEVNULL,
                )
            )
            stack.callback(end, self.agents[-1])

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(agent.pid for agent in self.agents)


def end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGCONT)
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def mirrored(stack: contextlib.ExitStack, carrier: str) -> tuple[Lab, Pair]:
    """Return agents and the ends of a mirror of each size."""
    sizes = [*SIZES.values(), LATENCY_SIZE]
    lab = Lab(stack, carrier, [f"f{size}" for size in sizes])
    slots = [*SLOTS.values(), 32]
    send = Peer(
        stack, "ring_send", context=lab.contexts["acq"], sizes=sizes, slots=slots
    )
    read = Peer(stack, "ring_read", context=lab.contexts["gpu"], sizes=sizes)
    assert send.hear()["ready"]
    assert read.hear()["ready"]
    return lab, Pair(send, read, lab.pids)


def bare(stack: contextlib.ExitStack, carrier: str, files: list[str]) -> Pair:
    port = free_port()
    read = Peer(stack, f"{carrier}_read", port=port, files=files)
    assert read.hear()["listening"]
    send = Peer(stack, f"{carrier}_send", port=port, files=files)
    assert send.hear()["ready"]
    assert read.hear()["ready"]
    return Pair(send, read)


# ---- the rows


def rates(
    pairs: dict[str, Pair], scale: float, repetitions: int
) -> Iterator[list[Result]]:
    """R1 to R6: frames per second, and CPU time per GB beside them."""
    for case, size in SIZES.items():
        count = max(20, int(COUNTS[size] * scale))
        used: dict[str, list[float]] = {name: [] for name in pairs}

        def run(name: str, size=size, count=count, used=used) -> Callable[[], float]:
            def once() -> float:
                found = pairs[name].transfer(size, count)
                used[name].append(found["cpu_s"] / (size * count / 1e9))
                return (count - 1) / found["seconds"]

            return once

        yield interleaved(
            case, "frames/s", {name: run(name) for name in pairs}, repetitions
        )
        yield [
            Result(f"CPU, {case}", name, "s/GB", statistics.median(found[1:]),
                   min(found[1:]), max(found[1:]), len(found) - 1)
            for name, found in used.items()
        ]  # fmt: skip


def latency(pairs: dict[str, Pair], seconds: float, repetitions: int) -> list[Result]:
    """R7: p50 from `send` to `receive`; of a bare carrier, half of a round trip."""
    settings = {"size": LATENCY_SIZE, "count": int(seconds * LATENCY_HZ)}

    def run(name: str) -> Callable[[], float]:
        is_bare = name in BARE.values()

        def once() -> float:
            found = pairs[name].transfer(**settings, hz=LATENCY_HZ, echo=is_bare)
            return found["half_ms" if is_bare else "late_ms"]

        return once

    return interleaved(LATENCY, "ms", {name: run(name) for name in pairs}, repetitions)


def catch_up(lab: Lab, pair: Pair, stopped_s: float, repetitions: int) -> Result:
    """F5: at how many times the stream's rate a backlog drains.

    The agent of the reader stands still for some seconds, as behind a cut.
    """
    found = []
    for _ in range(repetitions):
        seconds = 3 * stopped_s + 3
        settings = {"size": LATENCY_SIZE, "count": int(seconds * LATENCY_HZ)}
        pair.read.tell(**settings, hz=LATENCY_HZ, caught_up=True)
        pair.send.tell(**settings, hz=LATENCY_HZ)
        time.sleep(1.0)
        os.kill(lab.pids[1], signal.SIGSTOP)
        time.sleep(stopped_s)
        os.kill(lab.pids[1], signal.SIGCONT)
        again = time.monotonic()
        pair.send.hear()
        had = pair.read.hear()
        first, caught = had["flows_s"], had["caught_up_s"]
        took = max(caught - first, 1e-3)
        backlog = (stopped_s + first - again) * LATENCY_HZ + took * LATENCY_HZ
        found.append(backlog / took / LATENCY_HZ)
    return Result(
        "F5 catch-up", mirror_of(lab.carrier), "x the rate", statistics.median(found),
        min(found), max(found), len(found),
    )  # fmt: skip


def clock_bound(lab: Lab, seconds: int) -> list[Result]:
    """C2: the bound of the other host's clock, of the least round trip to it."""
    from ataraxis.clock import now_ns
    from ataraxis.cluster.door import ask_agent
    from ataraxis.cluster.status import offset_of

    shares, bounds = [], []
    for _ in range(seconds):
        time.sleep(1.0)
        found = ask_agent("offset", context=lab.contexts["gpu"], host="acq")
        bounds.append(offset_of(found).bound_at(now_ns()))
        shares.append(bounds[-1] / found["round_trip_ns"])
    name = mirror_of(lab.carrier)
    return [
        Result(case, name, unit, statistics.median(values), min(values), max(values),
               len(values))
        for case, unit, values in (
            (BOUND, "of a round trip", shares),
            ("C2 bound", "us", [bound / 1e3 for bound in bounds]),
        )
    ]  # fmt: skip


def idle(carrier: str, seconds: float, repetitions: int) -> list[Result]:
    """I1: two agents with 10 mirrors of streams that send nothing."""
    from ataraxis import Producer
    from ataraxis.stream.inspector import Inspector

    with contextlib.ExitStack() as stack:
        names = [f"idle{k}" for k in range(10)]
        lab = Lab(stack, carrier, names)
        for name in names:
            producer = Producer(name, 1000, 8, context=lab.contexts["acq"])
            stack.callback(producer.unlink)
        deadline = time.monotonic() + 60
        for name in names:
            while time.monotonic() < deadline:
                with contextlib.suppress(OSError, RuntimeError):
                    Inspector(name, lab.contexts["gpu"])
                    break
                time.sleep(0.05)
            else:
                raise RuntimeError(f"{name} was not mirrored within 60 s")
        time.sleep(2.0)
        used = []
        for _ in range(repetitions):
            before, began = [cpu_s(pid) for pid in lab.pids], time.monotonic()
            time.sleep(seconds)
            passed = time.monotonic() - began
            after = [cpu_s(pid) for pid in lab.pids]
            shares = [a - b for a, b in zip(after, before, strict=True)]
            used.append(100 * max(shares) / passed)
        sizes = [rss_mb(pid) for pid in lab.pids]
    made = {"I1 idle, CPU": ("%", used), "I1 idle, memory": ("MB", sizes)}
    return [
        Result(case, mirror_of(carrier), unit, statistics.median(values), min(values),
               max(values), len(values))
        for case, (unit, values) in made.items()
    ]  # fmt: skip


def aims(carriers: tuple[str, ...]) -> list[Aim]:
    """Return the rows of the plan: aim, floor."""
    found = []
    for carrier in carriers:
        ours, other = mirror_of(carrier), BARE[carrier]
        rows = {
            "tls": {"1 MB": (0.95, 0.7), "6 MB": (0.95, 0.7)},
            "zenoh": {
                "64 B": (1.5, 0.8), "10 KB": (0.8, 0.4), "1 MB": (0.9, 0.6),
                "6 MB": (0.9, 0.6),
            },
        }  # fmt: skip
        for case, (aim, floor) in rows[carrier].items():
            found.append(Aim(case, ours, other, aim, floor, smaller_is_better=False))
        if carrier == "tls":
            found.append(Aim("CPU, 1 MB", ours, other, 1.3, 1.8))
        found.append(Aim(LATENCY, ours, other, 2.0, 4.0))
        found.append(Aim("F5 catch-up", ours, ONE, 5.0, 3.0, smaller_is_better=False))
        found.append(Aim(BOUND, ours, ONE, 0.6, 1.0))
        found.append(Aim("I1 idle, CPU", ours, ONE, 0.5, 2.0))
        found.append(Aim("I1 idle, memory", ours, ONE, 60.0, 120.0))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", help="also write the results to this file")
    parser.add_argument("--quick", action="store_true", help="smaller, and fewer turns")
    parser.add_argument(
        "--carrier", action="append", choices=CARRIERS, help="only this one"
    )
    options = parser.parse_args()
    carriers = tuple(options.carrier or CARRIERS)
    repetitions = 5 if options.quick else 7
    results: list[Result] = []
    with contextlib.ExitStack() as stack:
        pairs: dict[str, Pair] = {}
        labs: dict[str, tuple[Lab, Pair]] = {}
        for carrier in carriers:
            lab, pair = mirrored(stack, carrier)
            labs[carrier] = lab, pair
            pairs[mirror_of(carrier)] = pair
            pairs[BARE[carrier]] = bare(stack, carrier, lab.files)
        for found in rates(pairs, 0.25 if options.quick else 1.0, repetitions):
            results += found
        results += latency(pairs, 1.0 if options.quick else 3.0, repetitions)
        for lab, pair in labs.values():
            results.append(
                catch_up(lab, pair, 4.0 if options.quick else 8.0, 1 + repetitions // 4)
            )
            results += clock_bound(lab, 5 if options.quick else 15)
    for carrier in carriers:
        results += idle(carrier, 3.0 if options.quick else 10.0, 2)
    for case, unit in (
        ("F5 catch-up", "x the rate"), (BOUND, "of a round trip"),
        ("I1 idle, CPU", "%"), ("I1 idle, memory", "MB"),
    ):  # fmt: skip
        results.append(Result(case, ONE, unit, 1.0, 1.0, 1.0, 1))
    medians = {(r.case, r.peer): r.median for r in results}
    notes = []
    for case, size in SIZES.items():
        told = [f"{n} {medians[case, n] * size / 1e9:.3g} GB/s" for n in pairs]
        notes.append(f"{case}: {', '.join(told)}")
    return report(results, aims(carriers), options.json, notes)


if __name__ == "__main__":
    sys.exit(main())
